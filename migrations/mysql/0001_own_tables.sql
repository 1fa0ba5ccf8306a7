-- hookledger's own state, in a database of its own beside the platform's. Instants are UTC milliseconds, amounts are
-- integers with their unit in the name, identities compare by bytes. Every statement can be repeated: the server
-- cannot take back what a migration that was cut off has made.

CREATE TABLE IF NOT EXISTS hookledger_meta (
  name  VARCHAR(64) NOT NULL,
  value VARCHAR(1000) NOT NULL,
  PRIMARY KEY (name)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What a settlement writes first for each token that it touches: whoever else settles that token waits for it.
CREATE TABLE IF NOT EXISTS hookledger_tokens (
  remote_key_id BIGINT NOT NULL,
  touched       BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (remote_key_id)
) ENGINE=InnoDB;

CREATE TABLE IF NOT EXISTS hookledger_claims (
  call_second       BIGINT NOT NULL,
  claim_id          VARCHAR(191) NOT NULL,
  source            VARCHAR(16) NOT NULL,
  event_id          VARBINARY(764) NULL,
  event_at_ms       BIGINT NULL,
  request_id        VARBINARY(764) NULL,
  log_id            BIGINT NULL,
  remote_key_id     BIGINT NOT NULL,
  model             TEXT NOT NULL,
  prompt_tokens     BIGINT NOT NULL,
  completion_tokens BIGINT NOT NULL,
  price_units       BIGINT NULL,
  price_credits     BIGINT NOT NULL,
  price_femtos      BIGINT NOT NULL,
  rate_micros       BIGINT NOT NULL,
  quota_per_unit    BIGINT NOT NULL,
  user_id           VARCHAR(191) NOT NULL,
  key_id            VARCHAR(191) NOT NULL,
  credits_moved     BIGINT NOT NULL,
  credits_unpaid    BIGINT NOT NULL,
  remainder_before  BIGINT NOT NULL,
  remainder_after   BIGINT NOT NULL,
  settled_at_ms     BIGINT NOT NULL,
  rounding          VARCHAR(16) NULL,
  PRIMARY KEY (call_second, claim_id),
  UNIQUE INDEX hookledger_claims_event (event_at_ms, event_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- A user's row is also what a settlement writes first for him.
CREATE TABLE IF NOT EXISTS hookledger_accounts (
  user_id          VARCHAR(191) NOT NULL,
  remainder_femtos BIGINT NOT NULL,
  unpaid_credits   BIGINT NOT NULL,
  touched          BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (user_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS hookledger_inbox (
  inbox_id       VARCHAR(191) NOT NULL,
  state          VARCHAR(16) NOT NULL,
  reason         VARCHAR(32) NOT NULL,
  remote_key_id  BIGINT NOT NULL,
  called_at_ms   BIGINT NOT NULL,
  recorded_at_ms BIGINT NOT NULL,
  attempts       BIGINT NOT NULL DEFAULT 0,
  due_at_ms      BIGINT NULL,
  PRIMARY KEY (inbox_id),
  INDEX hookledger_inbox_state (state, inbox_id),
  INDEX hookledger_inbox_due (due_at_ms),
  INDEX hookledger_inbox_token (reason, remote_key_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS hookledger_prices (
  kind        VARCHAR(32) NOT NULL,
  from_second BIGINT NOT NULL,
  value       BIGINT NOT NULL,
  PRIMARY KEY (kind, from_second)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS hookledger_grants (
  idempotency_key VARCHAR(191) NOT NULL,
  transaction_id  VARCHAR(191) NOT NULL,
  user_id         VARCHAR(191) NOT NULL,
  amount          BIGINT NOT NULL,
  kind            VARCHAR(32) NOT NULL DEFAULT 'RECHARGE',
  PRIMARY KEY (idempotency_key)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS hookledger_refunds (
  refund_id        VARCHAR(191) NOT NULL,
  call_second      BIGINT NOT NULL,
  claim_id         VARCHAR(191) NOT NULL,
  origin           VARCHAR(16) NOT NULL,
  idempotency_key  VARCHAR(255) NOT NULL,
  is_rest          BIGINT NOT NULL,
  user_id          VARCHAR(191) NOT NULL,
  price_credits    BIGINT NOT NULL,
  price_femtos     BIGINT NOT NULL,
  credits_moved    BIGINT NOT NULL,
  unpaid_lowered   BIGINT NOT NULL,
  remainder_before BIGINT NOT NULL,
  remainder_after  BIGINT NOT NULL,
  reason           VARCHAR(191) NOT NULL,
  transaction_id   VARCHAR(191) NULL,
  refunded_at_ms   BIGINT NOT NULL,
  PRIMARY KEY (refund_id),
  UNIQUE INDEX hookledger_refunds_key (origin, idempotency_key),
  INDEX hookledger_refunds_claim (claim_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS hookledger_reversals (
  idempotency_key  VARCHAR(191) NOT NULL,
  selection        TEXT NOT NULL,
  settled_until_ms BIGINT NOT NULL,
  reason           VARCHAR(191) NOT NULL,
  is_finished      BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (idempotency_key)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS hookledger_ignored_tokens (
  remote_key_id BIGINT NOT NULL,
  ignored_at_ms BIGINT NOT NULL,
  PRIMARY KEY (remote_key_id)
) ENGINE=InnoDB;

CREATE TABLE IF NOT EXISTS hookledger_unknown_tokens (
  remote_key_id BIGINT NOT NULL,
  last_look_ms  BIGINT NOT NULL,
  is_open       BIGINT NOT NULL DEFAULT 1,
  PRIMARY KEY (remote_key_id),
  INDEX hookledger_unknown_tokens_open (is_open, remote_key_id)
) ENGINE=InnoDB;

CREATE TABLE IF NOT EXISTS hookledger_token_owners (
  remote_key_id BIGINT NOT NULL,
  from_ms       BIGINT NOT NULL,
  user_id       VARCHAR(191) NOT NULL,
  key_id        VARCHAR(191) NOT NULL,
  PRIMARY KEY (remote_key_id, from_ms)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
