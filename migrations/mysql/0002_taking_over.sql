-- Usage records of other programs that were noticed: those that took a call of ours, and those that came after we took
-- over.

CREATE TABLE IF NOT EXISTS hookledger_foreign_records (
  record_id      VARCHAR(191) NOT NULL,
  recorded_at_ms BIGINT NOT NULL,
  user_id        VARCHAR(191) NOT NULL,
  credits        BIGINT NOT NULL,
  is_adopted     BIGINT NOT NULL,
  noticed_at_ms  BIGINT NOT NULL,
  PRIMARY KEY (record_id),
  INDEX hookledger_foreign_records_noticed (noticed_at_ms),
  INDEX hookledger_foreign_records_adopted (is_adopted)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
