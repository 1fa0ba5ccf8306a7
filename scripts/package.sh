#!/usr/bin/env bash
# Builds the Debian package into target/debian, with manual pages and completions made by the program itself, and has
# lintian look at it:
#
#   scripts/package.sh [--debug] [--revision N]
#
# cargo-deb and lintian are installed if they are missing. --debug packs the debug build, for tests of the package.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=release
revision=1
while [ $# -gt 0 ]; do
  case $1 in
    --debug) profile=debug ;;
    --revision) revision=$2; shift ;;
    *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
  esac
  shift
done
cargo=${CARGO:-cargo}
command -v cargo-deb >/dev/null || "$cargo" install cargo-deb --locked
if ! command -v lintian >/dev/null && command -v apt-get >/dev/null; then
  as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends lintian
fi

if [ "$profile" = release ]; then
  "$cargo" build --release --locked
  packed=(--no-build)
else
  "$cargo" build --locked
  # Of the debug build, without what only a debugger reads.
  packed=(--no-build --profile dev --strip --fast)
fi
rm -rf target/package
"target/$profile/hookledger" documentation target/package
package=$("$cargo" deb "${packed[@]}" --deb-revision "$revision" | tail -1)
echo "$package"

# Errors of lintian end this; what else it says is shown.
lintian --tag-display-limit 0 --fail-on error "$package"
