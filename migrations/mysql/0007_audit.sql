-- What the audit needs beside the books themselves. On the embedded database the same columns and tables say what each is
-- for.

CREATE TABLE IF NOT EXISTS hookledger_cleared_claims (
  user_id         VARCHAR(191) NOT NULL,
  carried_credits BIGINT NOT NULL,
  carried_femtos  BIGINT NOT NULL,
  unpaid_credits  BIGINT NOT NULL,
  PRIMARY KEY (user_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

INSERT IGNORE INTO hookledger_meta (name, value) SELECT 'claims_cleared_unsummed', '1' FROM hookledger_meta
  WHERE name = 'claims_remembered_from_second';

CREATE TABLE IF NOT EXISTS hookledger_accepted_differences (
  difference_id  VARCHAR(32) NOT NULL,
  reason         VARCHAR(191) NOT NULL,
  accepted_at_ms BIGINT NOT NULL,
  PRIMARY KEY (difference_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
