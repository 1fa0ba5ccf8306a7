#!/usr/bin/env bash
# Runs seeds of the simulation in a release build, one process a core, each pinned to its own.
#
#   scripts/simulate.sh seeds     N seeds (default 10000) from SEED (default 1) on; DATABASE=mariadb: on private servers
#   scripts/simulate.sh planted   how many seeds each planted bug takes, from SEED on
#
# Prints the seeds a second of each process. A failing seed ends its process, which prints a small trace of it and the
# command that replays it.
set -euo pipefail
cd "$(dirname "$0")/.."

mode=${1:-seeds}
count=${N:-10000}
first=${SEED:-1}
cores=${CORES:-$(nproc)}
[ "$mode" = planted ] || [ "$count" -ge "$cores" ] || cores=1

binary=$("${CARGO:-cargo}" test --release --locked --features failpoints --test simulation --no-run \
  --message-format json | sed -n 's/.*"executable":"\([^"]*\/simulation-[^"]*\)".*/\1/p' | tail -n 1)
[ -n "$binary" ] || { echo "the simulation was not built" >&2; exit 1; }

export RUST_BACKTRACE=0 SIMULATE_DATABASE=${DATABASE:-sqlite} SIMULATE_PARTS=$cores
pin() { if command -v taskset >/dev/null; then taskset -c "$1" "${@:2}"; else "${@:2}"; fi; }

started=$(date +%s)
processes=()
for core in $(seq 0 $((cores - 1))); do
  if [ "$mode" = planted ]; then
    SIMULATE_SEED=$first SIMULATE_PART=$core pin "$core" "$binary" --ignored --exact planted::find_each --nocapture &
  else
    from=$((first + count * core / cores))
    until=$((first + count * (core + 1) / cores))
    SIMULATE_SEED=$from SIMULATE_COUNT=$((until - from)) \
      pin "$core" "$binary" --ignored --exact seeds::simulate --nocapture &
  fi
  processes+=($!)
done
failed=0
for process in "${processes[@]}"; do wait "$process" || failed=1; done
took=$(($(date +%s) - started))
[ "$mode" = planted ] || echo "$count seeds from $first on, on $SIMULATE_DATABASE: $((count / (took > 0 ? took : 1))) a second on $cores cores"
exit "$failed"
