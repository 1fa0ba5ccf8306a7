# The units under a real systemd, from boot to stop. Run by scripts/test-systemd.sh, inside its sandbox.
# shellcheck shell=bash
source /sandbox/common.sh

if [ ! -e /sandbox/booted ]; then
  touch /sandbox/booted
  systemd-sysusers
  systemctl enable --quiet hookledger.service hookledger-audit.timer
  systemctl start reboot.target
  exit 0
fi

# At boot, and what it is then.
check_soon "starts at boot" 120 is_active hookledger.service
check "its socket is there" is_active hookledger.socket
check "the nightly audit is timed" is_active hookledger-audit.timer
same "type" "$(property hookledger.service Type)" notify
check "status is one true line" grep -q '^events are taken; channel idle; no log is read; ' <<<"$(property hookledger.service StatusText)"
check "an event gets through" hl send --ping

pid=$(main_pid)
same "user" "$(ps -o user= -p "$pid" | tr -d ' ')" hookledger
same "no privileges can be gained" "$(sed -n 's/^NoNewPrivs:\t//p' "/proc/$pid/status")" 1
same "capabilities" "$(sed -n 's/^CapBnd:\t//p' "/proc/$pid/status")" 0000000000000000
same "system calls are filtered" "$(sed -n 's/^Seccomp:\t//p' "/proc/$pid/status")" 2
same "state folder" "$(stat -c '%a %U' /var/lib/hookledger)" "700 hookledger"
same "database" "$(stat -c '%a %U' /var/lib/hookledger/hookledger.db)" "600 hookledger"
same "generated secret" "$(stat -c '%a %U' /var/lib/hookledger/webhook-secret)" "600 hookledger"
same "socket of the commands" "$(stat -c '%a %U' /run/hookledger/admin.sock)" "600 hookledger"
check_fails "it says nothing of file modes" journal_has chmod

# The journal has fields, not lines that hold JSON.
fields=$(journalctl -u hookledger.service -o json --no-pager)
check "the journal has the message" grep -q '"MESSAGE":"hookledger is listening"' <<<"$fields"
check "and its fields" grep -q '"HOOKLEDGER_DATABASE":"sqlite:///var/lib/hookledger/hookledger.db"' <<<"$fields"
check "and a priority" grep -q '"PRIORITY":"6"' <<<"$fields"

# Money.
check "a user is added" hl user add --email alice@example.com --credits 1000000
check "and a key" hl key add --user alice@example.com --remote-id 42
check "and a call is charged" hl send --remote-key-id 42 --quota 1830
same "credits" "$(credits alice@example.com)" 999997
check_soon "status follows" 60 status_has 'channel healthy'

# Reload.
printf '\n[log]\nlevel = "debug"\n' >>/etc/hookledger/hookledger.toml
check "a reload is done when systemctl says so" systemctl reload hookledger.service
check_soon "it took the change" 60 journal_has 'changed: log.level'
same "same process" "$(main_pid)" "$pid"
cp /etc/hookledger/hookledger.toml /sandbox/good.toml
sed -i 's/level = "debug"/level = "loud"/' /etc/hookledger/hookledger.toml
check "a wrong configuration changes nothing" systemctl reload hookledger.service
check_soon "and status says so" 60 status_has 'the last reload was refused'
check "and the daemon works on" hl send --ping --url http://127.0.0.1:4000/api/webhooks/events --config /sandbox/good.toml
same "same process" "$(main_pid)" "$pid"
same "and is active" "$(systemctl is-active hookledger.service)" active
cp /sandbox/good.toml /etc/hookledger/hookledger.toml
check "a right one is taken again" systemctl reload hookledger.service
check_soon "and status follows" 60 status_has_not 'the last reload was refused'

# A process that hangs.
drop_in watchdog $'[Service]\nWatchdogSec=2'
check "watchdog of two seconds" systemctl restart hookledger.service
pid=$(main_pid)
restarts=$(property hookledger.service NRestarts)
sleep 5
same "it is fed" "$(main_pid)" "$pid"
begin=$(date +%s%N)
kill -STOP "$pid"
check_soon "a hung process is killed and replaced" 120 is_another_pid "$pid"
check_soon "and answers" 60 hl send --ping
echo "   from standing still to answering: $(((($(date +%s%N) - begin)) / 1000000)) ms"
same "one restart" "$(property hookledger.service NRestarts)" "$((restarts + 1))"
check "the journal says why" sh -c 'journalctl --no-pager -u hookledger.service | grep -q "Watchdog timeout"'

# Restart under load, kill, hang: the socket is there all the time.
restart_all() {
  for _ in 1 2 3; do
    more_sent
    systemctl restart hookledger.service
  done
  more_sent
}
socket=$(property hookledger.socket InvocationID)
start_senders
begin=$SECONDS
restart_all
stop_senders
same "events without an answer over three restarts, of $(sent) in $((SECONDS - begin)) s" "$(unanswered)" 0
before=$(sent)
hl send --remote-key-id 42 --quota 500 --count 3000 --concurrency 8 --per-second 300 >/sandbox/steady 2>&1 &
steady=$!
for _ in 1 2 3; do
  sleep 2
  systemctl restart hookledger.service
done
wait "$steady" || fail "3000 events over 8 kept-alive connections: $(</sandbox/steady)"
held "3000 events over 8 kept-alive connections and three restarts: all answered"
before=$((before + 3000))
start_senders
for _ in 1 2; do
  more_sent
  kill -KILL "$(main_pid)"
done
more_sent
pid=$(main_pid)
kill -STOP "$pid"
check_soon "killed twice and hung once under load, it is back" 120 is_another_pid "$pid"
more_sent
stop_senders
same "connections refused meanwhile, of $(sent) ($(unanswered) others were cut)" "$(unanswered refused)" 0
same "the socket is the same" "$(property hookledger.socket InvocationID)" "$socket"
no_drop_in watchdog
# Each event that was acknowledged is charged; one that was cut may be, too.
least=$((999997 - before - $(sent) - $(unanswered)))
credits=$(credits alice@example.com)
[ "$credits" -ge "$least" ] && [ "$credits" -le $((999997 - before - $(sent))) ] || fail "credits are $credits"
held "all that was acknowledged is charged: $credits credits are left"
check "the books agree" hl audit

# Exit 70, and back.
drop_in failing $'[Service]\nEnvironment=FAILPOINTS=receiver.handle=panic\nEnvironment=HOOKLEDGER__SUPERVISOR__MAX_RESTARTS=1'
systemctl restart hookledger.service
check_fails "an actor that fails for ever answers nothing" hl send --ping
for _ in $(seq 20); do hl send --ping >/dev/null 2>&1 || :; done
check_soon "it gives up with 70" 120 sh -c 'journalctl --no-pager -u hookledger.service | grep -q "status=70"'
no_drop_in failing
check_soon "and comes back by itself when the cause is gone" 120 hl send --ping

# A configuration that cannot be used, and its mending.
echo 'nonsense = 1' >>/etc/hookledger/hookledger.toml
check_fails "a wrong configuration fails the start" systemctl restart hookledger.service
check "and says why" journal_has 'nonsense'
cp /sandbox/good.toml /etc/hookledger/hookledger.toml
check_soon "mended, it starts by itself" 120 hl send --ping

# Credentials.
install -d -m 700 /etc/hookledger/credentials
hookledger secret >/etc/hookledger/credentials/webhook-secrets
chmod 600 /etc/hookledger/credentials/webhook-secrets
install -m 644 -o hookledger /etc/hookledger/credentials/webhook-secrets /sandbox/secret
drop_in credentials "$(cat /sandbox/credentials.conf)"
check "it starts with a secret that root alone can read" systemctl restart hookledger.service
check_fails "its user cannot read it there" runuser -u hookledger -- cat /etc/hookledger/credentials/webhook-secrets
check "the credential counts" hl send --ping --secret-file /sandbox/secret
check_fails "and the generated secret no longer" hl send --ping --secret-file /var/lib/hookledger/webhook-secret
check_fails "no warning about its mode" journal_has chmod
check "a reload finds it as well" systemctl reload hookledger.service
check_soon "and takes it" 60 status_has_not refused
check "and it still counts" hl send --ping --secret-file /sandbox/secret
mv /etc/hookledger/credentials/webhook-secrets /sandbox/away
check_fails "without the file it does not start" systemctl restart hookledger.service
check "and systemd says why" sh -c 'journalctl --no-pager -u hookledger.service | grep -q "status=243/CREDENTIALS"'
mv /sandbox/away /etc/hookledger/credentials/webhook-secrets
check_soon "with it, it starts by itself" 120 hl send --ping --secret-file /sandbox/secret
no_drop_in credentials
systemctl restart hookledger.service

# Exposure, as systemd sees the unit that runs.
exposure() { systemd-analyze security --no-pager "$1" | sed -n 's/.*exposure level for .*: \([0-9.]*\) .*/\1/p'; }
check "exposure at most 1.1" systemd-analyze security --no-pager --threshold=11 hookledger.service
echo "   hookledger.service: $(exposure hookledger.service)"
check "the audit's as well" systemd-analyze security --no-pager --threshold=11 hookledger-audit.service
drop_in local-only "$(cat /sandbox/local-only.conf)"
check "it starts with local-only.conf" systemctl restart hookledger.service
check "and works" hl send --ping
check "exposure at most 0.9" systemd-analyze security --no-pager --threshold=9 hookledger.service
echo "   hookledger.service with local-only.conf: $(exposure hookledger.service)"
no_drop_in local-only

# The audit.
check "the nightly audit finds the books right" systemctl start hookledger-audit.service

# Stop.
pid=$(main_pid)
check "a stop" systemctl stop hookledger.service
same "ends well" "$(property hookledger.service Result)" success
check "who connects now starts it again" hl send --ping
check "stopping the socket stops both" systemctl stop hookledger.socket
same "the daemon is gone" "$(systemctl is-active hookledger.service || :)" inactive
check_fails "and nobody listens" hl send --ping
check "starting the daemon starts both" systemctl start hookledger.service
check "and it answers" hl send --ping

echo "$checks checks held"
