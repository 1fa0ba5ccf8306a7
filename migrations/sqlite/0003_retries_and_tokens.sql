-- Retries: errors so far, and when the next try is due. What waits for a change has no due time.

ALTER TABLE hookledger_inbox ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hookledger_inbox ADD COLUMN due_at_ms INTEGER;
CREATE INDEX hookledger_inbox_due ON hookledger_inbox (due_at_ms) WHERE due_at_ms IS NOT NULL;
CREATE INDEX hookledger_inbox_token ON hookledger_inbox (reason, remote_key_id);

-- What looks saw of a token: the last time that no key had it.
CREATE TABLE hookledger_unknown_tokens (
  remote_key_id INTEGER NOT NULL PRIMARY KEY,
  last_look_ms  INTEGER NOT NULL
) WITHOUT ROWID;
