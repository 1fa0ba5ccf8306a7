-- What was given back of a charge: by an operator, by a reversal of many, or (later) because the log says so.
CREATE TABLE hookledger_refunds (
  refund_id        TEXT NOT NULL PRIMARY KEY,
  call_second      INTEGER NOT NULL,  -- with claim_id: the charge
  claim_id         TEXT NOT NULL,
  origin           TEXT NOT NULL CHECK (origin IN ('operator', 'reversal', 'log')),
  idempotency_key  TEXT NOT NULL,
  is_rest          INTEGER NOT NULL,  -- asked for was all that was left, not an amount
  user_id          TEXT NOT NULL,
  price_credits    INTEGER NOT NULL,  -- exact amount given back: whole credits ...
  price_femtos     INTEGER NOT NULL,  -- ... and the part below one, in 1e-15 credit
  credits_moved    INTEGER NOT NULL,  -- whole credits added to the balance
  unpaid_lowered   INTEGER NOT NULL,  -- whole credits by which the unpaid amount was lowered instead
  remainder_before INTEGER NOT NULL,
  remainder_after  INTEGER NOT NULL,
  reason           TEXT NOT NULL,
  transaction_id   TEXT,              -- absent where no whole credit moved
  refunded_at_ms   INTEGER NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX hookledger_refunds_key ON hookledger_refunds (origin, idempotency_key);
CREATE INDEX hookledger_refunds_claim ON hookledger_refunds (claim_id);

-- A reversal keeps what it selected, so that a repeat goes on with the same charges and no later ones.
CREATE TABLE hookledger_reversals (
  idempotency_key  TEXT NOT NULL PRIMARY KEY,
  selection        TEXT NOT NULL,
  settled_until_ms INTEGER NOT NULL,
  reason           TEXT NOT NULL,
  is_finished      INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- How a charge was rounded, which is how it is given back; absent in those of earlier versions.
ALTER TABLE hookledger_claims ADD COLUMN rounding TEXT;

-- Grants and adjustments share their idempotency keys.
ALTER TABLE hookledger_grants ADD COLUMN kind TEXT NOT NULL DEFAULT 'RECHARGE';

-- Tokens that a person said are nobody's here: their calls are stored, not charged, and no longer counted as waiting.
CREATE TABLE hookledger_ignored_tokens (
  remote_key_id INTEGER NOT NULL PRIMARY KEY,
  ignored_at_ms INTEGER NOT NULL
) WITHOUT ROWID;

-- A token is open as long as no look found a key for it. The last look of all open ones is one value in
-- hookledger_meta, `tokens_looked_at_ms`, so that a look writes nothing where nothing changed.
ALTER TABLE hookledger_unknown_tokens ADD COLUMN is_open INTEGER NOT NULL DEFAULT 1;
CREATE INDEX hookledger_unknown_tokens_open ON hookledger_unknown_tokens (remote_key_id) WHERE is_open = 1;

-- Whose a token was, and from when on, as far as it was seen.
CREATE TABLE hookledger_token_owners (
  remote_key_id INTEGER NOT NULL,
  from_ms       INTEGER NOT NULL,
  user_id       TEXT NOT NULL,
  key_id        TEXT NOT NULL,
  PRIMARY KEY (remote_key_id, from_ms)
) WITHOUT ROWID;
