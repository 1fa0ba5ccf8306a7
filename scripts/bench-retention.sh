#!/usr/bin/env bash
# How much clearing old rows costs the webhooks: a million old processed rows, 1,000 events/s coming in, p99 without and
# with the clearing. Bounded: about two minutes after the release build. Usage: bench-retention.sh [ROWS] [SECONDS]
set -euo pipefail
rows=${1:-1000000} seconds=${2:-40}
cd "$(dirname "$0")/.."
cargo build --release --locked
binary=$PWD/target/release/hookledger
folder=$(mktemp -d)
daemon=
stop() { [ -z "$daemon" ] || { kill "$daemon" && wait "$daemon"; daemon=; } || true; }
trap 'stop; rm -rf "$folder"' EXIT
cd "$folder"
export HOOKLEDGER__SERVER__LISTEN=127.0.0.1:14000 HOOKLEDGER__METRICS__LISTEN=127.0.0.1:19464
export HOOKLEDGER__DATABASE__URL=sqlite://$folder/hookledger.db HOOKLEDGER__LOG__FORMAT=text

start() { # the retention of processed rows
  HOOKLEDGER__RETENTION__WEBHOOK_LOGS=$1 "$binary" serve 2>>"$folder/log" &
  daemon=$!
  for _ in $(seq 100); do curl -fs http://127.0.0.1:14000/readyz >/dev/null && return; sleep 0.1; done
  cat "$folder/log"; exit 1
}
load() { "$binary" send --remote-key-id 42 --count $((1000 * seconds)) --per-second 1000 --concurrency 64 --json; }
left() { sqlite3 hookledger.db "SELECT count(*) FROM webhook_logs WHERE createdAt < '2020-01-01'"; }

start forever
"$binary" user add --email bench@example.com --credits 1000000 >/dev/null
"$binary" key add --user bench@example.com --remote-id 42 >/dev/null
echo "inserting $rows old rows ..."
sqlite3 hookledger.db "PRAGMA cache_size = -262144; BEGIN;
  WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < $rows)
  INSERT INTO webhook_logs (id, eventId, payload, status, processedAt, createdAt)
  SELECT printf('00000000-%012d', value), lower(hex(randomblob(16))), printf('%300s', value), 'processed',
    strftime('%Y-%m-%d %H:%M:%f', '2019-01-01', (value / 2) || ' seconds'),
    strftime('%Y-%m-%d %H:%M:%f', '2019-01-01', (value / 2) || ' seconds') FROM n; COMMIT;"
load >/dev/null # warms up
p99() { sed -E 's/.*"p99":([0-9]+).*/\1/' <<<"$1"; }
worst=0
for round in 1 2 3; do
  without=$(load)
  stop
  start 90d
  before=$(left)
  with=$(load)
  after=$(left)
  stop
  start forever
  cleared=$(((before - after) / seconds))
  echo "round $round without: $without"
  echo "round $round with:    $with"
  echo "round $round: p99 $(p99 "$without") ms without, $(p99 "$with") ms with; $cleared rows/s cleared, 1000/s came in"
  [ "$(p99 "$with")" -le $((2 * $(p99 "$without") + 1)) ] || worst=$((worst + 1))
done
# The machine's own noise may spoil one round.
[ "$worst" -le 1 ]
