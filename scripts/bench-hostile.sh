#!/usr/bin/env bash
# What load that hurts costs the good events, and the daemon in memory and descriptors: under 10,000 idle connections,
# slow senders, forgers, heads without an end, clients that take no answers. A release build serves; about four minutes
# after the builds. Beside it, whoever attacks works on the same cores. Usage: bench-hostile.sh
set -euo pipefail
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
# Both sides of 10,000 connections, with room to spare.
needed=13000
ulimit -n "$(ulimit -Hn)"
if [ "$(ulimit -n)" != unlimited ] && [ "$(ulimit -n)" -lt "$needed" ]; then
  echo "only $(ulimit -n) descriptors may be open here, and $needed are needed: raise the hard limit (ulimit -Hn)" >&2
  exit 2
fi
"$cargo" build --release --locked
HOOKLEDGER_TEST_BINARY=$PWD/target/release/hookledger HOOKLEDGER_TEST_DATABASE=${HOOKLEDGER_TEST_DATABASE:-sqlite} \
  "$cargo" test --locked --features failpoints --test behaviour hostile::figures -- --ignored --nocapture --test-threads 1
