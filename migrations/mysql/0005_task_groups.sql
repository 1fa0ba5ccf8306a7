-- Asynchronous tasks: rows of one task form a group, and a group knows the charge that it gives back. On the embedded
-- database the same columns and tables say what each is for. One statement a table, so that it is there as a whole.
-- Indexes that statements name do not begin as tables do: a table's name gets its schema in front.

ALTER TABLE hookledger_claims
  ADD COLUMN task_token BIGINT NULL,
  ADD INDEX claims_task (task_token, call_second, price_units);

UPDATE hookledger_claims SET task_token = remote_key_id
  WHERE call_second > UNIX_TIMESTAMP() - 2592000 AND prompt_tokens = 0 AND completion_tokens = 0;

ALTER TABLE hookledger_rows
  ADD COLUMN stated_units BIGINT NULL,
  ADD COLUMN task_token BIGINT NULL,
  ADD INDEX rows_task_token (task_token, row_second),
  ADD INDEX rows_task (task_id);

UPDATE hookledger_rows SET task_token = open_token WHERE open_token > 0 AND state = 'refund_open';

CREATE TABLE IF NOT EXISTS hookledger_task_groups (
  task_id       VARCHAR(191) NOT NULL,
  remote_key_id BIGINT NOT NULL,
  source        VARCHAR(191) NOT NULL,
  call_second   BIGINT NOT NULL,
  claim_id      VARCHAR(191) NOT NULL,
  tied_at_ms    BIGINT NOT NULL,
  PRIMARY KEY (task_id, remote_key_id, source),
  INDEX task_groups_charge (call_second, claim_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
