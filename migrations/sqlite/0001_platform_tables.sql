-- The platform's tables, with the names and columns that LetAiCode's have, so that one query means the same on
-- both. Timestamps are UTC text: YYYY-MM-DD HH:MM:SS.mmm. Indexes are ours; each that begins with something random
-- costs more than its row, so there are few.

CREATE TABLE users (
  id        TEXT NOT NULL PRIMARY KEY,
  email     TEXT NOT NULL UNIQUE,
  name      TEXT,
  role      TEXT NOT NULL DEFAULT 'USER' CHECK (role IN ('USER', 'ADMIN', 'ROOT')),
  status    INTEGER NOT NULL DEFAULT 1,
  timezone  TEXT NOT NULL DEFAULT 'Asia/Shanghai',
  createdAt TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  updatedAt TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
);

CREATE TABLE api_keys (
  id          TEXT NOT NULL PRIMARY KEY,
  userId      TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE ON UPDATE CASCADE,
  label       TEXT NOT NULL,
  remoteKeyId TEXT,
  maskedValue TEXT NOT NULL DEFAULT '',
  fullValue   TEXT NOT NULL DEFAULT '',
  status      TEXT NOT NULL DEFAULT 'ACTIVE' CHECK (status IN ('ACTIVE', 'DISABLED', 'DELETED')),
  createdAt   TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  updatedAt   TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  lastUsedAt  TEXT
);
CREATE INDEX api_keys_userId_idx ON api_keys (userId);
CREATE INDEX api_keys_remoteKeyId_idx ON api_keys (remoteKeyId);

CREATE TABLE usage_records (
  id               TEXT NOT NULL PRIMARY KEY,
  apiKeyId         TEXT NOT NULL REFERENCES api_keys (id) ON DELETE CASCADE ON UPDATE CASCADE,
  timestamp        TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  model            TEXT NOT NULL,
  promptTokens     INTEGER NOT NULL,
  completionTokens INTEGER NOT NULL,
  totalTokens      INTEGER NOT NULL,
  costUsd          REAL NOT NULL DEFAULT 0,
  creditCost       INTEGER NOT NULL,
  rawMeta          TEXT
) WITHOUT ROWID;

CREATE TABLE credit_transactions (
  id        TEXT NOT NULL PRIMARY KEY,
  userId    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE ON UPDATE CASCADE,
  type      TEXT NOT NULL CHECK (type IN ('SUBSCRIPTION', 'REPLENISH', 'DAILY_RESET', 'DEDUCT', 'ADMIN_ADJUST', 'RECHARGE', 'BONUS', 'REFUND')),
  amount    INTEGER NOT NULL,
  balance   INTEGER NOT NULL,
  ref       TEXT,
  desc      TEXT,
  createdAt TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
) WITHOUT ROWID;
CREATE INDEX credit_transactions_userId_createdAt_idx ON credit_transactions (userId, createdAt);

CREATE TABLE user_credit_balances (
  id               TEXT NOT NULL PRIMARY KEY,
  userId           TEXT NOT NULL UNIQUE REFERENCES users (id) ON DELETE CASCADE ON UPDATE CASCADE,
  baseCredits      INTEGER NOT NULL DEFAULT 0,
  replenishCredits INTEGER NOT NULL DEFAULT 0,
  currentCredits   INTEGER NOT NULL DEFAULT 0,
  lastReplenishAt  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  lastDailyResetAt TEXT,
  createdAt        TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  updatedAt        TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
);

CREATE TABLE options (
  key       TEXT NOT NULL PRIMARY KEY,
  value     TEXT NOT NULL,
  desc      TEXT,
  updatedAt TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
);

CREATE TABLE webhook_logs (
  id          TEXT NOT NULL PRIMARY KEY,
  eventId     TEXT NOT NULL UNIQUE,
  payload     TEXT NOT NULL,
  status      TEXT NOT NULL DEFAULT 'processed',
  errorMsg    TEXT,
  processedAt TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  createdAt   TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
);
CREATE INDEX webhook_logs_createdAt_idx ON webhook_logs (createdAt);
-- For the operators' own look at failures, which names the status as a constant.
CREATE INDEX webhook_logs_failed_idx ON webhook_logs (createdAt) WHERE status = 'failed';
