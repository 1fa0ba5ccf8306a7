#!/usr/bin/env bash
# Installs from Debian's packages what the tests need, if it is missing: sqlite3 and mariadb (look at the books from
# outside), mariadbd (a private server for the tests), strace (shows when the daemon syncs, and makes system calls
# fail), procps, promtool (checks metrics and alert rules).
set -euo pipefail
PATH=$PATH:/usr/sbin

missing=()
for tool in sqlite3 strace; do
  command -v "$tool" >/dev/null || missing+=("$tool")
done
command -v kill >/dev/null || missing+=(procps)
command -v setpriv >/dev/null || missing+=(util-linux)
# The embedded database is compiled from C.
command -v cc >/dev/null || missing+=(build-essential)
# The programs alone. Their package mariadb-server would bring a service, an account and a database along; these two
# have neither a unit nor a script that starts anything, and leave a server that is there as it is.
command -v mariadb >/dev/null || missing+=(mariadb-client-core)
{ command -v mariadbd && command -v mariadb-install-db; } >/dev/null || missing+=(mariadb-server-core)
names=("${missing[@]}")
command -v promtool >/dev/null || names+=(promtool)
[ "${#names[@]}" -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "The tests need: ${names[*]}. Please install them with your package manager." >&2
  exit 1
fi
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
echo "Installing what the tests need: ${names[*]}"
"${as_root[@]}" apt-get update -qq
if [ "${#missing[@]}" -gt 0 ]; then
  # Rather fail than remove what is there, such as a MySQL of the same machine.
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends --no-remove \
    "${missing[@]}"
fi

# Its package would start a Prometheus of its own, so that one program is taken out of it and nothing is installed.
if ! command -v promtool >/dev/null; then
  unpacked="$(mktemp -d)"
  trap 'rm -rf "$unpacked"' EXIT
  # As this user: the one that apt would change to cannot write into the folder.
  (cd "$unpacked" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download prometheus)
  dpkg -x "$unpacked"/prometheus_*.deb "$unpacked"
  "${as_root[@]}" install -m 755 "$unpacked/usr/bin/promtool" /usr/local/bin/promtool
fi
