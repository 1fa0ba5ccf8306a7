#!/usr/bin/env bash
# What a server beside LetAiCode bears: events/s by number of writing connections, statements and commits
# of a batch, bytes of our own state, and what a user's row that another session holds costs the others. On a private
# durable MariaDB, all on this machine, senders included. Bounded: about ten minutes after the release build.
#
#   scripts/bench-server.sh [EVENTS] [SECONDS]
#
# EVENTS of each of six loads (40000), SECONDS for which a row is held (30).
set -euo pipefail
readonly EVENTS=${1:-40000} SECONDS_HELD=${2:-30} USERS=16 OTHERS=8 PACE=20
readonly DATABASE=letaicode STATE=hookledger PORT=14002 METRICS=19466
cd "$(dirname "$0")/.."
tables=$PWD/tests/kit/letaicode.sql
cargo build --release --locked
binary=$PWD/target/release/hookledger
server=$(mktemp -u "${TMPDIR:-/tmp}/hl-bench-XXXXXX")
folder=$(mktemp -d)
daemon=

stop() { [ -z "$daemon" ] || { kill "$daemon" && wait "$daemon"; daemon=; } || true; }
clean_up() {
  stop
  [ ! -d "$server" ] || { scripts/mariadb.sh stop "$server" && rm -rf "$server"; }
  rm -rf "$folder"
}
trap clean_up EXIT

url=$(scripts/mariadb.sh start "$server")
sql() { mariadb --no-defaults --socket="$server/socket" --user="$(id -un)" --batch --skip-column-names "$@"; }
sql --execute "CREATE DATABASE $DATABASE CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci"
sql "$DATABASE" <"$tables"
for user in $(seq $USERS); do
  echo "INSERT INTO users (id, email, updatedAt) VALUES ('u$user', 'u$user@example.com', '2026-01-01');
    INSERT INTO api_keys (id, userId, label, remoteKeyId, maskedValue, fullValue, updatedAt)
      VALUES ('k$user', 'u$user', '', '$user', '', '', '2026-01-01');
    INSERT INTO user_credit_balances (id, userId, currentCredits, updatedAt)
      VALUES ('b$user', 'u$user', 0, '2026-01-01');"
done | sql "$DATABASE"

export HOOKLEDGER__SERVER__LISTEN=127.0.0.1:$PORT HOOKLEDGER__METRICS__LISTEN=127.0.0.1:$METRICS
export HOOKLEDGER__DATABASE__URL=$url$DATABASE HOOKLEDGER__DATABASE__STATE_SCHEMA=$STATE
export HOOKLEDGER__LOG__FORMAT=text WEBHOOK_SECRET=0123456789abcdef0123456789abcdef

start() { # the number of writing connections
  (cd "$folder" && HOOKLEDGER__LEDGER__SHARDS=$1 exec "$binary" serve 2>>"$folder/log") &
  daemon=$!
  for _ in $(seq 200); do curl -fs "http://127.0.0.1:$PORT/readyz" >/dev/null && return; sleep 0.1; done
  cat "$folder/log" >&2
  return 1
}
status() { sql --execute "SHOW GLOBAL STATUS LIKE '$1'" | cut -f 2; }
batches() { curl -s "http://127.0.0.1:$METRICS/metrics" | awk '/^hookledger_ledger_batch_size_count/ { print $2 }'; }
waiting() { sql --execute "SELECT COUNT(*) FROM $STATE.hookledger_inbox"; }
now() { date +%s.%N; }
since() { awk -v from="$1" -v to="$(now)" 'BEGIN { printf "%.2f", to - from }'; }
row() { printf '%-34s %10s %9s %12s %11s\n' "$@"; }
send() { # token, events, then what else: prints the report, fine also where some wait
  (cd "$folder" && "$binary" send --remote-key-id "$1" --count "$2" --json "${@:3}") || true
}
wait_settled() {
  for _ in $(seq 3000); do [ "$(waiting)" = 0 ] && return; sleep 0.02; done
  echo "events still wait" >&2
  return 1
}

throughput() { # name, tokens, senders for each, each one's connections
  local began batches_before commits statements took senders=()
  began=$(now) batches_before=$(batches) commits=$(status Com_commit) statements=$(status Com_stmt_execute)
  for token in $2; do
    send "$token" $((EVENTS / $(wc -w <<<"$2"))) --concurrency "$3" >>"$folder/sent" & senders+=($!)
  done
  wait "${senders[@]}"
  wait_settled
  took=$(since "$began")
  awk -v name="$1" -v events="$EVENTS" -v took="$took" -v batches="$(($(batches) - batches_before))" \
    -v commits="$(($(status Com_commit) - commits))" -v statements="$(($(status Com_stmt_execute) - statements))" \
    'BEGIN { printf "%-34s %10.0f %9.1f %12.1f %11.2f\n", name, events / took, events / batches, statements / batches,
      commits / batches }'
}

version=$(sql --execute 'SELECT VERSION()')
echo "$EVENTS events each; $(nproc) cores, load $(cut -d ' ' -f 1 /proc/loadavg); server $version"
row load events/s batch stmts/batch commits/b.
for shards in 1 2 4; do
  start "$shards"
  throughput "$USERS users, shards = $shards" "$(seq -s ' ' $USERS)" 4
  throughput "one user, shards = $shards" 1 64
  stop
done

sql --execute "ANALYZE TABLE $(sql --execute "SELECT GROUP_CONCAT(CONCAT(table_schema, '.', table_name)) FROM
  information_schema.tables WHERE table_schema = '$STATE'")" >/dev/null
charged=$(sql --execute "SELECT COUNT(*) FROM $STATE.hookledger_claims")
bytes=$(sql --execute "SELECT CAST(SUM(data_length + index_length) AS SIGNED) FROM information_schema.tables
  WHERE table_schema = '$STATE'")
echo
echo "state: $bytes bytes for $charged events, $((bytes * 1000 / charged * 1000 / 1000000)) MB for a million"

p99() { jq -s 'map(.latencyMs.p99 // .p99) | max' "$1"; }
others() { # what it prints: the worst p99 of other users, each at $PACE events/s
  local senders=() token
  : >"$folder/others"
  for token in $(seq 2 $((OTHERS + 1))); do
    send "$token" $((PACE * SECONDS_HELD)) --per-second $PACE --concurrency 16 >>"$folder/others" & senders+=($!)
  done
  wait "${senders[@]}"
  p99 "$folder/others"
}
held() { # name, statement that locks a row of user 1
  local holder result
  (
    echo "START TRANSACTION; $2; SELECT SLEEP($SECONDS_HELD + 2); ROLLBACK;" | sql "$DATABASE" >/dev/null
    now >"$folder/released"
  ) &
  holder=$!
  sleep 1
  send 1 $((SECONDS_HELD * 3)) --per-second 10 --concurrency 16 >"$folder/held" &
  local sender=$!
  result=$(others)
  wait "$holder" "$sender"
  wait_settled
  result="others' p99 $result ms; he is settled $(since "$(cat "$folder/released")") s after the release"
  echo "$1 of user 1 held for $((SECONDS_HELD + 2)) s: $result"
}
echo
start 2
wait_settled
echo "nobody holds a row: p99 of $OTHERS users, $PACE events/s each: $(others) ms"
held "the balance row" "SELECT id FROM user_credit_balances WHERE id = 'b1' FOR UPDATE"
held "the users row" "SELECT id FROM users WHERE id = 'u1' FOR UPDATE"
stop
missing=$(sql --execute "SELECT (SELECT COUNT(*) FROM $DATABASE.usage_records) -
  (SELECT COUNT(*) FROM $STATE.hookledger_claims)")
[ "$missing" = 0 ] || { echo "usage records and claims differ by $missing" >&2; exit 1; }
