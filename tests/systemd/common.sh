# What the scripts that run inside the sandbox share: checks that tell what held, and a few words for the daemon.
# Not run by itself.
# shellcheck shell=bash

set -euo pipefail
export SYSTEMD_PAGER= LC_ALL=C.UTF-8

checks=0
# Over a reboot.
[ ! -e /sandbox/checks ] || checks=$(</sandbox/checks)

held() {
  checks=$((checks + 1))
  echo "$checks" >/sandbox/checks
  echo "ok $checks - $*"
}

fail() {
  echo "NOT OK - $*"
  echo "--- systemctl status"
  systemctl status --no-pager --lines=0 hookledger.service hookledger.socket 2>&1 | head -40 || :
  echo "--- the journal's last lines"
  journalctl --no-pager -o short-monotonic -n 40 2>&1 || :
  exit 1
}

# check WHAT COMMAND...: the command must succeed.
check() {
  local what=$1 said
  shift
  if said=$("$@" 2>&1); then held "$what"; else fail "$what: $* said: $said"; fi
}

# check_fails WHAT COMMAND...
check_fails() {
  local what=$1 said
  shift
  if said=$("$@" 2>&1); then fail "$what: $* succeeded and said: $said"; else held "$what"; fi
}

# same WHAT GOT WANTED
same() {
  [ "$2" = "$3" ] || fail "$1: it is $2, and should be $3"
  held "$1: $2"
}

# until_true SECONDS COMMAND...: waits for the command to succeed.
until_true() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.1
  done
}

# check_soon WHAT SECONDS COMMAND...
check_soon() {
  local what=$1 seconds=$2
  shift 2
  until_true "$seconds" "$@" || fail "$what: not within $seconds seconds"
  held "$what"
}

property() { systemctl show --value -p "$2" "$1"; }
main_pid() { property hookledger.service MainPID; }
is_active() { systemctl is-active --quiet "$1"; }
hl() { runuser -u hookledger -- hookledger "$@"; }
is_another_pid() { [ "$(main_pid)" != "$1" ] && [ "$(main_pid)" != 0 ] && is_active hookledger.service; }
status_has() { property hookledger.service StatusText | grep -q -- "$1"; }
status_has_not() { ! status_has "$1"; }
journal_has() { journalctl -u hookledger.service --no-pager -o cat | grep -q -- "$1"; }
credits() { hl credits show "$1" --json | sed -n 's/.*"credits": *\(-\{0,1\}[0-9]*\).*/\1/p' | head -1; }

# drop_in NAME LINES: a drop-in of the service, in force from the next start.
drop_in() {
  mkdir -p /etc/systemd/system/hookledger.service.d
  printf '%s\n' "$2" >"/etc/systemd/system/hookledger.service.d/$1.conf"
  systemctl daemon-reload
}

no_drop_in() {
  rm -f "/etc/systemd/system/hookledger.service.d/$1.conf"
  systemctl daemon-reload
}

# Senders, each event over a connection of its own, until stop_senders. What had no 2xx is kept with its reason.
start_senders() {
  rm -f /sandbox/sent.* /sandbox/unanswered.* /sandbox/enough
  senders=()
  local one
  for one in 1 2 3 4; do
    (
      sent=0
      while [ ! -e /sandbox/enough ]; do
        if said=$(hl send --remote-key-id 42 --quota 500 2>&1); then
          sent=$((sent + 1))
          echo "$sent" >"/sandbox/sent.$one"
        else
          printf '%s\n' "${said//$'\n'/ }" >>"/sandbox/unanswered.$one"
        fi
      done
    ) &
    senders+=($!)
  done
}

sent() { cat /sandbox/sent.* 2>/dev/null | awk '{ sum += $1 } END { print sum + 0 }'; }
unanswered() { cat /sandbox/unanswered.* 2>/dev/null | grep -c -- "${1:-}" || :; }
# more_sent: waits until each of the senders had its turn.
more_sent() {
  local wanted=$(($(sent) + 40)) end=$((SECONDS + 240))
  while [ "$(sent)" -lt "$wanted" ]; do
    [ "$SECONDS" -lt "$end" ] || fail "no more events get through"
    sleep 0.1
  done
}
stop_senders() {
  touch /sandbox/enough
  wait "${senders[@]}"
}
