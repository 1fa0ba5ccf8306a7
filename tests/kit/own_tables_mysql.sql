-- Our own tables, as far as the rules of the books look at them: for the kit's checks of itself, which need no daemon.

CREATE TABLE hookledger_claims (
  call_second       BIGINT NOT NULL,
  claim_id          VARCHAR(191) NOT NULL,
  source            VARCHAR(16) NOT NULL,
  event_id          VARBINARY(764),
  event_at_ms       BIGINT,
  request_id        VARBINARY(764),
  log_id            BIGINT,
  remote_key_id     BIGINT NOT NULL,
  model             TEXT NOT NULL,
  prompt_tokens     BIGINT NOT NULL,
  completion_tokens BIGINT NOT NULL,
  price_units       BIGINT,
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
  PRIMARY KEY (call_second, claim_id),
  UNIQUE INDEX (event_at_ms, event_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE hookledger_accounts (
  user_id          VARCHAR(191) NOT NULL PRIMARY KEY,
  remainder_femtos BIGINT NOT NULL,
  unpaid_credits   BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE hookledger_inbox (
  inbox_id       VARCHAR(191) NOT NULL PRIMARY KEY,
  state          VARCHAR(16) NOT NULL,
  reason         VARCHAR(191) NOT NULL,
  remote_key_id  BIGINT NOT NULL,
  called_at_ms   BIGINT NOT NULL,
  recorded_at_ms BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE hookledger_refunds (
  refund_id        VARCHAR(191) NOT NULL PRIMARY KEY,
  call_second      BIGINT NOT NULL,
  claim_id         VARCHAR(191) NOT NULL,
  origin           VARCHAR(16) NOT NULL,
  idempotency_key  VARCHAR(191) NOT NULL,
  user_id          VARCHAR(191) NOT NULL,
  price_credits    BIGINT NOT NULL,
  price_femtos     BIGINT NOT NULL,
  credits_moved    BIGINT NOT NULL,
  unpaid_lowered   BIGINT NOT NULL,
  remainder_before BIGINT NOT NULL,
  remainder_after  BIGINT NOT NULL,
  reason           TEXT NOT NULL,
  transaction_id   VARCHAR(191),
  refunded_at_ms   BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
