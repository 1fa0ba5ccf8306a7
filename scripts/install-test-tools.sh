#!/usr/bin/env bash
# Installs from Debian's packages what the tests need, if it is missing: sqlite3 (looks at the books from outside),
# strace (shows when the daemon syncs, and makes system calls fail), procps.
set -euo pipefail

missing=()
for tool in sqlite3 strace; do
  command -v "$tool" >/dev/null || missing+=("$tool")
done
command -v kill >/dev/null || missing+=(procps)
# The embedded database is compiled from C.
command -v cc >/dev/null || missing+=(build-essential)
[ "${#missing[@]}" -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "The tests need: ${missing[*]}. Please install them with your package manager." >&2
  exit 1
fi
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
echo "Installing what the tests need: ${missing[*]}"
"${as_root[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
