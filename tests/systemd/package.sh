# The Debian package as its users meet it: install, use, upgrade, remove, purge. Run by scripts/test-systemd.sh, inside its
# sandbox, with two revisions of the package in /sandbox.
# shellcheck shell=bash
source /sandbox/common.sh

first=/sandbox/first.deb
second=/sandbox/second.deb
dpkg_quietly() { DEBIAN_FRONTEND=noninteractive dpkg "$@" </dev/null; }

check "install" dpkg_quietly -i "$first"
check_soon "the daemon runs" 120 is_active hookledger.service
check "and is enabled" systemctl is-enabled hookledger.service hookledger.socket hookledger-audit.timer
check "the audit is timed" is_active hookledger-audit.timer
check_fails "and was not run by the installation" sh -c 'journalctl --no-pager -u hookledger-audit.service | grep -q Starting'
same "units" "$(cd /usr/lib/systemd/system && echo hookledger*)" \
  "hookledger-audit.service hookledger-audit.timer hookledger.service hookledger.socket"
check "its user is there" getent passwd hookledger
check "manual page" sh -c 'man -w hookledger hookledger-send || ls /usr/share/man/man1/hookledger.1.gz'
check "completions" test -s /usr/share/bash-completion/completions/hookledger
check "exposure at most 1.1" systemd-analyze security --no-pager --threshold=11 hookledger.service
check "an event gets through" hl send --ping
check "a user" hl user add --email alice@example.com --credits 1000000
check "a key" hl key add --user alice@example.com --remote-id 42
check "a charge" hl send --remote-key-id 42 --quota 500
same "credits" "$(credits alice@example.com)" 999999

echo '# a line of the operator' >>/etc/hookledger/hookledger.toml
pid=$(main_pid) socket=$(property hookledger.socket InvocationID)
start_senders
more_sent
check "upgrade under load" dpkg_quietly -i "$second"
check_soon "another process" 120 is_another_pid "$pid"
more_sent
stop_senders
same "events without an answer over the upgrade, of $(sent)" "$(unanswered)" 0
same "the socket stayed open" "$(property hookledger.socket InvocationID)" "$socket"
check "the edited conffile survives" grep -q 'a line of the operator' /etc/hookledger/hookledger.toml
same "credits" "$(credits alice@example.com)" $((999999 - $(sent)))
check "the books agree" hl audit

left=$(credits alice@example.com)
check "remove" dpkg_quietly -r hookledger
check_fails "the daemon is gone" is_active hookledger.service
check_fails "and its port" is_active hookledger.socket
check_fails "and the timer" is_active hookledger-audit.timer
check "the books stay" test -s /var/lib/hookledger/hookledger.db
check "the secret stays" test -s /var/lib/hookledger/webhook-secret
check "the configuration stays" grep -q 'a line of the operator' /etc/hookledger/hookledger.toml
check "install again" dpkg_quietly -i "$second"
check_soon "it answers" 120 hl send --ping
same "with the same books" "$(credits alice@example.com)" "$left"

check "purge" dpkg_quietly -P hookledger
check_fails "the books are gone" test -e /var/lib/hookledger
check_fails "and the configuration" test -e /etc/hookledger
check_fails "and what was enabled" sh -c 'ls /etc/systemd/system/*.wants/hookledger* 2>/dev/null'
check "install after a purge" dpkg_quietly -i "$first"
check_soon "it begins anew" 120 hl send --ping
same "with empty books" "$(hl user list --json | tr -d ' \n')" "[]"

echo "$checks checks held"
