-- The other side of a call: its row in new-api's log. A claim keeps the identities of both sides.

ALTER TABLE hookledger_claims ADD COLUMN row_source TEXT;
ALTER TABLE hookledger_claims ADD COLUMN row_second INTEGER;
ALTER TABLE hookledger_claims ADD COLUMN row_digest TEXT;
ALTER TABLE hookledger_claims ADD COLUMN row_nth INTEGER;          -- which of the equal rows of its second, from 0
ALTER TABLE hookledger_claims ADD COLUMN row_request_id TEXT;
ALTER TABLE hookledger_claims ADD COLUMN row_log_id INTEGER;
ALTER TABLE hookledger_claims ADD COLUMN tie_rule TEXT;
-- The token, while a row was charged of which no event has told: what an event looks for.
ALTER TABLE hookledger_claims ADD COLUMN untied_row_token INTEGER;

CREATE INDEX hookledger_claims_untied_row ON hookledger_claims (untied_row_token, call_second)
  WHERE untied_row_token IS NOT NULL;
-- Request ids begin with their time, so both lists grow at their end.
CREATE INDEX hookledger_claims_request ON hookledger_claims (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX hookledger_claims_row_request ON hookledger_claims (row_request_id) WHERE row_request_id IS NOT NULL;

-- Rows that were read, but for those that nobody here pays for. The same row read again is found here, whatever became
-- of its id.
CREATE TABLE hookledger_rows (
  source      TEXT NOT NULL,
  row_second  INTEGER NOT NULL,
  row_digest  TEXT NOT NULL,
  row_nth     INTEGER NOT NULL,
  state       TEXT NOT NULL,
  call_second INTEGER,           -- with claim_id: the charge that it is a side of
  claim_id    TEXT,
  open_token  INTEGER,           -- its token, while it may still be charged or given back
  content     TEXT,              -- whole, as long
  reason      TEXT,
  units       INTEGER NOT NULL,  -- quota units, as the source sums them
  is_refund   INTEGER NOT NULL,
  task_id     TEXT,              -- the asynchronous task that it belongs to
  read_at_ms  INTEGER NOT NULL,
  PRIMARY KEY (row_second, row_digest, row_nth, source)
) WITHOUT ROWID;
CREATE INDEX hookledger_rows_open ON hookledger_rows (open_token, row_second) WHERE open_token IS NOT NULL;

-- Rows that nobody here pays for, by second: a second that is read again replaces what it said.
CREATE TABLE hookledger_unowned_rows (
  source        TEXT NOT NULL,
  row_second    INTEGER NOT NULL,
  remote_key_id INTEGER NOT NULL,
  token_name    TEXT NOT NULL,
  row_count     INTEGER NOT NULL,
  units         INTEGER NOT NULL,
  refund_count  INTEGER NOT NULL,
  PRIMARY KEY (row_second, remote_key_id, source)
) WITHOUT ROWID;
CREATE INDEX hookledger_unowned_rows_token ON hookledger_unowned_rows (remote_key_id, row_second);

-- What was read completely or proved by figures. The first second that no span holds is where reading goes on.
CREATE TABLE hookledger_spans (
  source       TEXT NOT NULL,
  filter       TEXT NOT NULL,
  from_second  INTEGER NOT NULL,
  until_second INTEGER NOT NULL,  -- included
  proof        TEXT NOT NULL,     -- read, agreed; reopened: an event came for a span that had agreed
  proved_at_ms INTEGER NOT NULL,
  PRIMARY KEY (source, filter, from_second)
) WITHOUT ROWID;
