#!/usr/bin/env bash
# How long an audit of a million charges takes, and what it costs the webhooks: 500 events/s coming in, p99 without an
# audit and with one under way. Bounded: some five minutes after the release build. Usage: bench-audit.sh [CALLS] [SECONDS]
set -euo pipefail
calls=${1:-1000000} seconds=${2:-30}
cd "$(dirname "$0")/.."
cargo build --release --locked
binary=$PWD/target/release/hookledger
folder=$(mktemp -d)
daemon= auditing=
stop() { [ -z "$auditing" ] || { kill "$auditing"; wait "$auditing" || true; auditing=; }
  [ -z "$daemon" ] || { kill "$daemon" && wait "$daemon"; daemon=; } || true; }
trap 'stop; rm -rf "$folder"' EXIT
cd "$folder"
export HOOKLEDGER__SERVER__LISTEN=127.0.0.1:14000 HOOKLEDGER__METRICS__LISTEN=127.0.0.1:19464
export HOOKLEDGER__DATABASE__URL=sqlite://$folder/hookledger.db HOOKLEDGER__LOG__FORMAT=text

"$binary" serve 2>>"$folder/log" &
daemon=$!
for _ in $(seq 100); do curl -fs http://127.0.0.1:14000/readyz >/dev/null && break; sleep 0.1; done
"$binary" user add --email bench@example.com --credits 1000000 >/dev/null
"$binary" key add --user bench@example.com --remote-id 42 >/dev/null

echo "building $calls charges of 200 users ..."
# 1.5 credits a call, 10 calls a second, from 2026-01-01 on. Each user's first transaction gives him his credits.
sqlite3 hookledger.db "PRAGMA cache_size = -262144; PRAGMA temp_store = MEMORY; BEGIN;
  CREATE TEMP TABLE call AS WITH RECURSIVE n(v) AS (SELECT 0 UNION ALL SELECT v + 1 FROM n WHERE v + 1 < $calls)
  SELECT v AS n, v % 200 AS u, v / 200 AS k, 1767225600 + v / 10 AS second,
    printf('%08x-%04x-7%03x-8000-%012x', ((1767225600 + v / 10) * 1000) >> 16, ((1767225600 + v / 10) * 1000) & 65535,
      v & 4095, v) AS id, 1 + (v / 200) % 2 AS moved FROM n;
  INSERT INTO users (id, email) SELECT 'u' || u, 'u' || u || '@example.com' FROM call WHERE k = 0;
  INSERT INTO api_keys (id, userId, label, remoteKeyId) SELECT 'k' || u, 'u' || u, 'bench', 1000 + u FROM call WHERE k = 0;
  INSERT INTO credit_transactions (id, userId, type, amount, balance, createdAt)
    SELECT 'first-' || u, 'u' || u, 'RECHARGE', 1000000000, 1000000000, '2025-12-31 00:00:00.000' FROM call WHERE k = 0;
  INSERT INTO hookledger_claims (call_second, claim_id, source, event_id, event_at_ms, remote_key_id, model, prompt_tokens,
      completion_tokens, price_units, price_credits, price_femtos, rate_micros, quota_per_unit, user_id, key_id,
      credits_moved, credits_unpaid, remainder_before, remainder_after, settled_at_ms, rounding)
    SELECT second, id, 'webhook', 'evt-' || n, second * 1000, 1000 + u, 'gpt-4.1', 900, 120, 750, 1, 500000000000000,
      1000000000, 500000, 'u' || u, 'k' || u, moved, 0, (moved - 1) * 500000000000000, (2 - moved) * 500000000000000,
      second * 1000, 'carry' FROM call ORDER BY second, id;
  INSERT INTO usage_records (id, apiKeyId, timestamp, model, promptTokens, completionTokens, totalTokens, creditCost, rawMeta)
    SELECT id, 'k' || u, strftime('%Y-%m-%d %H:%M:%f', second, 'unixepoch'), 'gpt-4.1', 900, 120, 1020, moved,
      printf('%400s', '') FROM call ORDER BY id;
  INSERT INTO credit_transactions (id, userId, type, amount, balance, ref, desc, createdAt)
    SELECT substr(id, 1, 20) || '9' || substr(id, 22), 'u' || u, 'DEDUCT', -moved, 1000000000 - (k + 1) / 2 * 3 - (k + 1) % 2, id,
      'gpt-4.1', strftime('%Y-%m-%d %H:%M:%f', second, 'unixepoch') FROM call ORDER BY id;
  INSERT INTO user_credit_balances (id, userId, currentCredits)
    SELECT 'b' || u, 'u' || u, 1000000000 - (max(k) + 1) / 2 * 3 - (max(k) + 1) % 2 FROM call GROUP BY u;
  INSERT INTO hookledger_accounts SELECT 'u' || u, ((max(k) + 1) % 2) * 500000000000000, 0 FROM call GROUP BY u; COMMIT;"

load() { "$binary" send --remote-key-id 42 --count $((500 * seconds)) --per-second 500 --concurrency 32 --json; }
p99() { sed -E 's/.*"p99":([0-9.]+).*/\1/' <<<"$1"; }
audit() { # prints its seconds
  local started ended
  started=$(date +%s.%N)
  "$binary" audit --json >"$folder/report"
  ended=$(date +%s.%N)
  awk "BEGIN { printf \"%.1f\n\", $ended - $started }"
}
echo "an audit of a quiet database: $(audit) s, then $(audit) s"
sed -E 's/.*("lookedAt":\{[^}]*\}).*/\1/' "$folder/report"
load >/dev/null # warms up
for round in 1 2 3; do
  without=$(load)
  (while true; do echo "an audit under load: $(audit) s"; done) &
  auditing=$!
  with=$(load)
  kill "$auditing"; wait "$auditing" || true; auditing=
  echo "round $round without: $without"
  echo "round $round with:    $with"
  echo "round $round: p99 $(p99 "$without") ms without, $(p99 "$with") ms with"
done
