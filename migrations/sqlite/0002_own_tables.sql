-- hookledger's own state. Instants are UTC milliseconds, amounts are integers with their unit in the name.

CREATE TABLE hookledger_meta (
  name  TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;

-- The memory of what was charged: one row a call, kept outside webhook_logs and in the order of the calls' times, so
-- that inserts and look-ups touch the young end only. `source` is the side that told of the call first; the match key
-- (token, model, tokens, price, second) lets the other side find it.
CREATE TABLE hookledger_claims (
  call_second       INTEGER NOT NULL,
  claim_id          TEXT NOT NULL,     -- usage_records.id
  source            TEXT NOT NULL CHECK (source IN ('webhook', 'log')),
  event_id          TEXT,
  event_at_ms       INTEGER,
  request_id        TEXT,
  log_id            INTEGER,
  remote_key_id     INTEGER NOT NULL,
  model             TEXT NOT NULL,     -- whole, also where the shared tables cut it
  prompt_tokens     INTEGER NOT NULL,
  completion_tokens INTEGER NOT NULL,
  price_units       INTEGER,           -- quota units; NULL where the sender priced in credits
  price_credits     INTEGER NOT NULL,  -- exact price: whole credits ...
  price_femtos      INTEGER NOT NULL,  -- ... and the part below one, in 1e-15 credit
  rate_micros       INTEGER NOT NULL,  -- credits per US dollar at the call's second, in millionths
  quota_per_unit    INTEGER NOT NULL,
  user_id           TEXT NOT NULL,
  key_id            TEXT NOT NULL,
  credits_moved     INTEGER NOT NULL,
  credits_unpaid    INTEGER NOT NULL,
  remainder_before  INTEGER NOT NULL,  -- 1e-15 credit
  remainder_after   INTEGER NOT NULL,
  settled_at_ms     INTEGER NOT NULL,
  PRIMARY KEY (call_second, claim_id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX hookledger_claims_event ON hookledger_claims (event_at_ms, event_id) WHERE event_id IS NOT NULL;

-- What a user owes below one credit, and what was refused for want of balance.
CREATE TABLE hookledger_accounts (
  user_id          TEXT NOT NULL PRIMARY KEY,
  remainder_femtos INTEGER NOT NULL CHECK (remainder_femtos >= 0 AND remainder_femtos < 1000000000000000),
  unpaid_credits   INTEGER NOT NULL
) WITHOUT ROWID;

-- Events of webhook_logs that wait for their settlement; a row goes when its event is charged.
CREATE TABLE hookledger_inbox (
  inbox_id      TEXT NOT NULL PRIMARY KEY,  -- webhook_logs.id
  state         TEXT NOT NULL CHECK (state IN ('pending', 'failed', 'dead')),
  reason        TEXT NOT NULL,
  remote_key_id INTEGER NOT NULL,
  called_at_ms  INTEGER NOT NULL,
  recorded_at_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX hookledger_inbox_state ON hookledger_inbox (state, inbox_id);

-- Dated lists: a value counts from its second on, and is stored before the minute from which it counts.
CREATE TABLE hookledger_prices (
  kind        TEXT NOT NULL CHECK (kind IN ('usd_to_credits_micros', 'quota_per_unit')),
  from_second INTEGER NOT NULL,
  value       INTEGER NOT NULL,
  PRIMARY KEY (kind, from_second)
) WITHOUT ROWID;

-- Grants by idempotency key, so that a repeated request adds nothing.
CREATE TABLE hookledger_grants (
  idempotency_key TEXT NOT NULL PRIMARY KEY,
  transaction_id  TEXT NOT NULL,
  user_id         TEXT NOT NULL,
  amount          INTEGER NOT NULL
) WITHOUT ROWID;
