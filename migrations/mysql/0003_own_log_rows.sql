-- Rows of the platform's webhook_logs that we wrote and no claim tells of: notices, and events of ignored tokens. A row
-- that neither this nor a claim knows may be another program's, and is never cleared.

CREATE TABLE IF NOT EXISTS hookledger_log_rows (
  log_id VARCHAR(191) NOT NULL,
  PRIMARY KEY (log_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
