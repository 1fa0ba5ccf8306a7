#!/usr/bin/env bash
# Runs the behaviour suite on any server that speaks MySQL:
#
#   scripts/test-on.sh mysql://user:password@host:port/ [what cargo test takes]
#
# The user must be allowed to create and drop databases and users, and to grant what it has. Each test makes two
# databases and a user, whose names begin with "hl", and drops them; nothing else on the server is touched. The server
# must allow 100 connections beside those that it has, and be reachable from here under the same address.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ ${1:-} != mysql://* ]]; then
  sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
fi
export HOOKLEDGER_TEST_DATABASE=$1
shift
exec "${CARGO:-cargo}" test --locked --features failpoints --test behaviour "$@"
