#!/usr/bin/env bash
# Makes the sample database of a version: make-sample.sh BINARY FILE. The binary is a test build (feature `failpoints`)
# of that version, so that its clock can be set; curl, openssl and sqlite3 do the rest.
set -euo pipefail
binary=$(realpath "$1") file=$(realpath -m "$2")
at=1795521600 # 2026-11-24 12:00:00 UTC
secret=sample-secret-0123456789abcdef0123456789
port=45881

folder=$(mktemp -d)
daemon=
trap '[ -z "$daemon" ] || kill "$daemon"; rm -rf "$folder"' EXIT
cd "$folder"
export HOOKLEDGER__DATABASE__URL="sqlite://$folder/hookledger.db" HOOKLEDGER__SERVER__LISTEN="127.0.0.1:$port" \
  HOOKLEDGER__METRICS__LISTEN="" HOOKLEDGER__RETRY__MAX_ATTEMPTS=1 WEBHOOK_SECRET="$secret" \
  HOOKLEDGER_TEST_CLOCK_FILE="$folder/clock"
echo $(((at - $(date +%s)) * 1000)) > clock

"$binary" serve 2> log &
daemon=$!
until curl -sf "http://127.0.0.1:$port/readyz" > /dev/null; do sleep 0.1; done

"$binary" user add --email alice@example.com --name Alice --credits 1000
"$binary" user add --email bob@example.com
"$binary" user add --email carol@example.com --credits 20
"$binary" key add --user alice@example.com --remote-id 42 --label laptop
"$binary" key add --user bob@example.com --remote-id 43
"$binary" key add --user carol@example.com --remote-id 44
"$binary" credits grant --user bob@example.com --amount 50 --reason "a gift" --idempotency-key gift-1
# The platform can give one token to two users; the commands do not.
sqlite3 hookledger.db "INSERT INTO api_keys (id, userId, label, remoteKeyId)
  SELECT 'second-key-44', id, 'also 44', '44' FROM users WHERE email = 'bob@example.com'"

# post EVENT_ID TOKEN QUOTA SECONDS_AFTER
post() {
  local body="{\"eventId\":\"$1\",\"eventType\":\"usage\",\"timestamp\":$((at + $4)),\"data\":{\"remoteKeyId\":$2,"
  body+="\"model\":\"gpt-4\",\"promptTokens\":100,\"completionTokens\":50,\"quota\":$3}}"
  local signature
  signature=$(printf %s "$body" | openssl dgst -sha256 -hmac "$secret" -r | cut -d' ' -f1)
  curl -sS -H 'Content-Type: application/json' -H "X-Webhook-Signature: $signature" -d "$body" \
    "http://127.0.0.1:$port/api/webhooks/events"
  echo
}
post charged-1 42 1830 1              # 3.66 credits
post charged-2 42 620 2               # 1.24
post charged-3 43 30000 3             # 60: below zero
post free-1 43 0 4
post parked-1 45 1500 5               # no such key: 3 credits, when there is one
post ambiguous-1 44 500 6             # two users have the token
post dead-1 42 9000000000000000 7     # fits no balance: dead after one attempt

kill "$daemon"
wait "$daemon" || true
daemon=
sqlite3 hookledger.db "SELECT status, COUNT(*) FROM webhook_logs GROUP BY status"
mv hookledger.db "$file"
