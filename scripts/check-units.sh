#!/usr/bin/env bash
# Checks the units in systemd/ with systemd's own tools, without a running systemd:
#
#   scripts/check-units.sh [PROGRAM]
#
# Each unit must be understood without a word, and be exposed no more than what is promised: 1.1 as shipped, 0.9 with
# local-only.conf. PROGRAM stands for /usr/bin/hookledger, which need not be installed. Without systemd-analyze nothing is
# checked, and the script says so.
set -euo pipefail
cd "$(dirname "$0")/.."

program=${1:-target/debug/hookledger}
shipped_tenths=11
local_only_tenths=9

if ! command -v systemd-analyze >/dev/null; then
  echo "The units are not checked: there is no systemd-analyze on this machine." >&2
  exit 0
fi
[ -x "$program" ] || { echo "There is no program at $program: build it first." >&2; exit 1; }
program=$(realpath "$program")

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for unit in systemd/hookledger*.service systemd/hookledger*.socket systemd/hookledger*.timer; do
  sed "s|/usr/bin/hookledger|$program|" "$unit" >"$folder/${unit##*/}"
done

# It exits with 0 whatever it says about a key that it does not know, so that each word counts. Other units of this
# machine are its own business.
said=$(systemd-analyze verify --man=no --recursive-errors=no "$folder"/* 2>&1 || echo "exit code $?")
if [ -n "$said" ]; then
  printf 'systemd-analyze verify:\n%s\n' "$said" >&2
  exit 1
fi

# exposure NAME FILE TENTHS
exposure() {
  local answer
  if ! answer=$(systemd-analyze security --no-pager --offline=true --threshold="$3" "$2" 2>&1); then
    grep -v '^✓' <<<"$answer" >&2
    echo "$1 is exposed more than ${3%?}.${3: -1}" >&2
    exit 1
  fi
  echo "$1: $(sed -n 's/.*exposure level for .*: \([0-9.]*\) .*/\1/p' <<<"$answer")"
}

for service in hookledger hookledger-audit; do
  exposure "$service.service" "$folder/$service.service" "$shipped_tenths"
  mkdir -p "$folder/local-only"
  cat "$folder/$service.service" systemd/local-only.conf >"$folder/local-only/$service.service"
  exposure "$service.service with local-only.conf" "$folder/local-only/$service.service" "$local_only_tenths"
done
