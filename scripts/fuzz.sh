#!/usr/bin/env bash
# Feeds what nobody wrote on purpose to everything that reads what others send, and ends with an error if something breaks:
#
#   scripts/fuzz.sh [MINUTES [TARGET…]]
#
# MINUTES (5 unless given) are shared by the targets; all of fuzz/fuzz_targets unless some are named. What was found
# before is in fuzz/corpus, which git ignores, beside what is kept in fuzz/seeds. cargo-fuzz is installed if it is missing,
# and a stable toolchain is enough.
set -euo pipefail
cd "$(dirname "$0")/.."

minutes=${1:-5}
shift || true
if [ $# -gt 0 ]; then
  targets=("$@")
else
  mapfile -t targets < <(cd fuzz/fuzz_targets && ls -- *.rs | sed 's/\.rs$//')
fi
cargo=${CARGO:-cargo}
# The toolchain may be any, stable included: no sanitizer is asked for.
command -v cargo-fuzz >/dev/null || "$cargo" install cargo-fuzz --locked
each_secs=$((minutes * 60 / ${#targets[@]}))
[ "$each_secs" -gt 0 ] || { echo "give at least a second to each of ${#targets[@]} targets" >&2; exit 2; }

# A daemon's database lies in memory: no disk is worn, and none slows this down.
folder=$(mktemp -d "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")/hookledger-fuzz.XXXXXX")
trap 'rm -rf "$folder"' EXIT
export HOOKLEDGER_FUZZ_FOLDER=$folder

report=""
broken=0
for target in "${targets[@]}"; do
  # Built first, so that the time is the fuzzer's own.
  "$cargo" fuzz build --sanitizer none --codegen-units 16 "$target"
  mkdir -p "fuzz/corpus/$target"
  log=$folder/$target.log
  echo "$target: $each_secs s"
  begun=$SECONDS
  if ! "$cargo" fuzz run --sanitizer none --codegen-units 16 "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
    "-max_total_time=$each_secs" -timeout=25 -rss_limit_mb=2048 -max_len=16384 -print_final_stats=1 \
    "-dict=fuzz/dictionaries/$target.dict" >"$log" 2>&1; then
    broken=1
    tail -40 "$log" >&2
  fi
  executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  covered=$(grep -o 'cov: [0-9]*' "$log" | tail -1)
  report+=$(printf '%-16s %12s %8d s %8d %7d %8s' "$target" "${executed:-?}" $((SECONDS - begun)) \
    "$(find "fuzz/corpus/$target" -type f | wc -l)" "$(find "fuzz/seeds/$target" -type f | wc -l)" "${covered#cov: }")$'\n'
done
printf '\n%-16s %12s %10s %8s %7s %8s\n%s' target executions time corpus seeds edges "$report"
exit "$broken"
