#!/usr/bin/env bash
# A private MariaDB for the tests: in a folder of its own, durable, on loopback, as nobody in particular.
#
#   scripts/mariadb.sh start FOLDER   sets it up if FOLDER does not exist, starts it in the background, prints its URL
#   scripts/mariadb.sh stop FOLDER    stops it; the folder stays
#   scripts/mariadb.sh url FOLDER     prints the URL of its administrator
#   scripts/mariadb.sh guard FOLDER   for a program that holds the other end of standard input: sets it up, starts it,
#                                     prints its URL, obeys the lines "kill" (as a power cut would), "stop" and "start",
#                                     and ends the server and removes FOLDER when standard input ends, however the
#                                     program did; with HOOKLEDGER_TEST_KEEP set, FOLDER stays
#
# FOLDER must be absolute and short: the path of a Unix socket in it must fit 107 bytes.
set -euo pipefail

usage() {
  sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
}
[ $# -eq 2 ] || usage
action=$1
folder=$2
[[ $folder = /* ]] || usage
PATH=$PATH:/usr/sbin
readonly READY_SECS=60
server=

# Root hands the server to an account that can do nothing else.
as_owner=()
owner=$(id -un)
if [ "$(id -u)" -eq 0 ]; then
  owner=nobody
  ! id mysql >/dev/null 2>&1 || owner=mysql
  as_owner=(setpriv "--reuid=$owner" "--regid=$(id -g "$owner")" --clear-groups)
fi

say() { echo "mariadb.sh: $*" >&2; }

for program in mariadbd mariadb mariadb-install-db setpriv; do
  command -v "$program" >/dev/null || { say "$program is missing: run scripts/install-test-tools.sh"; exit 1; }
done

free_port() {
  local port
  for _ in $(seq 100); do
    # Below those that the tests hand out to daemons, and those of outgoing connections.
    port=$((5000 + RANDOM % 5000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
  say "found no free port"
  return 1
}

set_up() {
  # A server that starts removes what others' statements keep in a folder for temporary tables that they share.
  mkdir -m 0711 "$folder" "$folder/tmp"
  local port password
  port=$(free_port)
  password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
  # What the books promise hangs on the first two; the rest keeps it small and quick to start.
  cat >"$folder/my.cnf" <<SETTINGS
[mariadbd]
innodb_flush_log_at_trx_commit = 1
innodb_flush_method = O_DIRECT
character_set_server = utf8mb4
collation_server = utf8mb4_unicode_ci
datadir = $folder/data
tmpdir = $folder/tmp
socket = $folder/socket
pid_file = $folder/mariadbd.pid
bind_address = 127.0.0.1
port = $port
skip_name_resolve
default_time_zone = +00:00
innodb_buffer_pool_size = 256M
innodb_log_file_size = 64M
max_connections = 300
performance_schema = off
SETTINGS
  (umask 077 && echo "mysql://admin:$password@127.0.0.1:$port/" >"$folder/url")
  [ "${#as_owner[@]}" -eq 0 ] || chown "$owner" "$folder" "$folder/tmp"
  # Root by the Unix socket alone, for whoever set this up; the administrator by TCP.
  local log="$folder/set-up.log"
  TMPDIR="$folder/tmp" "${as_owner[@]}" mariadb-install-db --no-defaults --datadir="$folder/data" --skip-test-db \
    --auth-root-authentication-method=socket --auth-root-socket-user="$(id -un)" \
    --innodb-log-file-size=64M >"$log" 2>&1 || { cat "$log" >&2; return 1; }
  (umask 077 && cat >"$folder/init.sql" <<INIT
CREATE USER IF NOT EXISTS 'admin'@'%' IDENTIFIED BY '$password';
GRANT ALL PRIVILEGES ON *.* TO 'admin'@'%' WITH GRANT OPTION;
INIT
  )
  [ "${#as_owner[@]}" -eq 0 ] || chown "$owner" "$folder/init.sql"
}

answers() {
  mariadb --no-defaults --socket="$folder/socket" --user="$(id -un)" --execute='SELECT 1' >/dev/null 2>&1
}

# Ends with $server being its process. With an argument, it dies with this script, however that ends.
start() {
  "${as_owner[@]}" setpriv ${1:+--pdeathsig KILL} mariadbd --defaults-file="$folder/my.cnf" \
    --init-file="$folder/init.sql" </dev/null >>"$folder/error.log" 2>&1 &
  server=$!
  local deadline=$((SECONDS + READY_SECS))
  until answers; do
    if ! kill -0 "$server" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then
      say "the server did not get ready; its log ends with:"
      tail -n 30 "$folder/error.log" >&2
      end KILL
      return 1
    fi
    sleep 0.05
  done
}

# $1: TERM or KILL, for a child of this script.
end() {
  [ -n "$server" ] || return 0
  kill -s "$1" "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
}

end_guard() {
  if [ -n "${HOOKLEDGER_TEST_KEEP:-}" ]; then
    end TERM
    say "kept $folder: scripts/mariadb.sh start $folder"
  else
    end KILL
    rm -rf "$folder"
  fi
}

guard() {
  # A signal to all that a terminal runs must not leave the server or its folder behind.
  trap '' INT HUP TERM PIPE
  trap 'end_guard' EXIT
  set_up
  start with-me
  cat "$folder/url"
  while read -r word; do
    case $word in
      kill) end KILL ;;
      stop) end TERM ;;
      start) start with-me ;;
      *) say "what is $word?" && exit 2 ;;
    esac
    echo "$word: done"
  done
}

case $action in
  start)
    [ -d "$folder" ] || set_up
    # Out of reach of the signals that end what called this.
    set -m
    start
    cat "$folder/url"
    ;;
  stop)
    server=$(cat "$folder/mariadbd.pid")
    kill "$server"
    while kill -0 "$server" 2>/dev/null; do sleep 0.05; done
    ;;
  url) cat "$folder/url" ;;
  guard) guard ;;
  *) usage ;;
esac
