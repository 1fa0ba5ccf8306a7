-- The other side of a call: its row in new-api's log. A claim keeps the identities of both sides. One statement, so that
-- it is there as a whole or not at all; repeated, it finds its columns there.

ALTER TABLE hookledger_claims
  ADD COLUMN row_source VARCHAR(191) NULL,
  ADD COLUMN row_second BIGINT NULL,
  ADD COLUMN row_digest VARCHAR(64) NULL,
  ADD COLUMN row_nth BIGINT NULL,
  ADD COLUMN row_request_id VARBINARY(764) NULL,
  ADD COLUMN row_log_id BIGINT NULL,
  ADD COLUMN tie_rule VARCHAR(16) NULL,
  ADD COLUMN untied_row_token BIGINT NULL,
  ADD INDEX hookledger_claims_untied_row (untied_row_token, call_second),
  ADD INDEX hookledger_claims_request (request_id),
  ADD INDEX hookledger_claims_row_request (row_request_id);

CREATE TABLE IF NOT EXISTS hookledger_rows (
  source      VARCHAR(191) NOT NULL,
  row_second  BIGINT NOT NULL,
  row_digest  VARCHAR(64) NOT NULL,
  row_nth     BIGINT NOT NULL,
  state       VARCHAR(16) NOT NULL,
  call_second BIGINT NULL,
  claim_id    VARCHAR(191) NULL,
  open_token  BIGINT NULL,
  content     TEXT NULL,
  reason      VARCHAR(191) NULL,
  units       BIGINT NOT NULL,
  is_refund   BIGINT NOT NULL,
  task_id     VARCHAR(191) NULL,
  read_at_ms  BIGINT NOT NULL,
  PRIMARY KEY (row_second, row_digest, row_nth, source),
  INDEX hookledger_rows_open (open_token, row_second)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS hookledger_unowned_rows (
  source        VARCHAR(191) NOT NULL,
  row_second    BIGINT NOT NULL,
  remote_key_id BIGINT NOT NULL,
  token_name    VARCHAR(191) NOT NULL,
  row_count     BIGINT NOT NULL,
  units         BIGINT NOT NULL,
  refund_count  BIGINT NOT NULL,
  PRIMARY KEY (row_second, remote_key_id, source),
  INDEX hookledger_unowned_rows_token (remote_key_id, row_second)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS hookledger_spans (
  source       VARCHAR(191) NOT NULL,
  filter       VARCHAR(191) NOT NULL,
  from_second  BIGINT NOT NULL,
  until_second BIGINT NOT NULL,
  proof        VARCHAR(16) NOT NULL,
  proved_at_ms BIGINT NOT NULL,
  PRIMARY KEY (source, filter, from_second)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
