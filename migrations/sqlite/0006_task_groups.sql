-- Asynchronous tasks: rows of one task form a group, and a group knows the charge that it gives back.

-- The token of a charge that may be a task's submission: those have no token counts.
ALTER TABLE hookledger_claims ADD COLUMN task_token INTEGER;
CREATE INDEX hookledger_claims_task ON hookledger_claims (task_token, call_second, price_units)
  WHERE task_token IS NOT NULL;
UPDATE hookledger_claims SET task_token = remote_key_id
  WHERE call_second > CAST(strftime('%s', 'now') AS INTEGER) - 2592000 AND prompt_tokens = 0 AND completion_tokens = 0;

ALTER TABLE hookledger_rows ADD COLUMN stated_units INTEGER;  -- what it says that its task's submission cost
-- Its token, while it looks for its task's charge: a refund until it is given back, a further charge until it is tied.
ALTER TABLE hookledger_rows ADD COLUMN task_token INTEGER;
UPDATE hookledger_rows SET task_token = open_token WHERE open_token > 0 AND state = 'refund_open';
CREATE INDEX hookledger_rows_task_token ON hookledger_rows (task_token, row_second) WHERE task_token IS NOT NULL;
CREATE INDEX hookledger_rows_task ON hookledger_rows (task_id) WHERE task_id IS NOT NULL;

CREATE TABLE hookledger_task_groups (
  task_id       TEXT NOT NULL,
  remote_key_id INTEGER NOT NULL,
  source        TEXT NOT NULL,
  call_second   INTEGER NOT NULL,  -- with claim_id: the charge of its submission
  claim_id      TEXT NOT NULL,
  tied_at_ms    INTEGER NOT NULL,
  PRIMARY KEY (task_id, remote_key_id, source)
) WITHOUT ROWID;
CREATE INDEX hookledger_task_groups_charge ON hookledger_task_groups (call_second, claim_id);
