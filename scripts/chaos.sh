#!/usr/bin/env bash
# Runs the chaos or the soak of tests/chaos in a release build, bounded by MINUTES:
#
#   scripts/chaos.sh chaos   everything that can go wrong, at random, to a loaded daemon (MINUTES=5)
#   scripts/chaos.sh ready   how long from a kill to ready with CALLS=1000000 in the books, of 50 kills
#   scripts/chaos.sh soak    an even load with nothing broken, half of full speed or RATE calls a second (MINUTES=60)
#
# SEED=17 repeats the choices of a run, DATABASE=mariadb runs on a private MariaDB, LIVES=25 says how often the daemon
# dies between two looks at the books. A chaos ends with the first look at which they are wrong; the database and the
# daemon's log are kept then, and what is printed says where.
set -euo pipefail
cd "$(dirname "$0")/.."

mode=${1:-chaos}
case $mode in
  chaos) minutes=${MINUTES:-5} ;;
  ready) minutes= ;;
  soak) minutes=${MINUTES:-60} ;;
  *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac

binary=$("${CARGO:-cargo}" test --release --locked --features failpoints --test chaos --no-run \
  --message-format json | sed -n 's/.*"executable":"\([^"]*\/chaos-[^"]*\)".*/\1/p' | tail -n 1)
[ -n "$binary" ] || { echo "the chaos was not built" >&2; exit 1; }

export RUST_BACKTRACE=0 CHAOS_MODE=$mode MINUTES=$minutes HOOKLEDGER_TEST_DATABASE=${DATABASE:-sqlite}
exec "$binary"
