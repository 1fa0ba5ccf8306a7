#!/usr/bin/env bash
# Tests the units (and with --package also the Debian package) under a real systemd, in a sandbox: scripts/sandbox.sh says
# what that is and needs. Minutes, bounded, by hand: `make test-systemd`, `make test-deb`.
#
#   scripts/test-systemd.sh [--package]
set -euo pipefail
cd "$(dirname "$0")/.."

what=${1:-units}
cargo=${CARGO:-cargo}
# Debug builds: what systemd does with them is the same. The units are tested with fail points, to make an actor fail.
if [ "$what" = --package ]; then
  scripts/package.sh --debug
  first=$(ls -t target/debian/hookledger_*.deb | head -1)
  # The next revision: the same in all but its number.
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  dpkg-deb -R "$first" "$folder/package"
  sed -i 's/^\(Version: .*\)-1$/\1-2/' "$folder/package/DEBIAN/control"
  dpkg-deb -Znone --root-owner-group -b "$folder/package" "$folder/second.deb"
  scripts/sandbox.sh tests/systemd/package.sh tests/systemd/common.sh:/sandbox/common.sh \
    "$first:/sandbox/first.deb" "$folder/second.deb:/sandbox/second.deb"
  exit
fi
"$cargo" build --locked --features failpoints
places=(
  tests/systemd/common.sh:/sandbox/common.sh
  target/debug/hookledger:/usr/bin/hookledger
  packaging/sysusers.d/hookledger.conf:/usr/lib/sysusers.d/hookledger.conf
  packaging/hookledger.toml:/etc/hookledger/hookledger.toml
  systemd/credentials.conf:/sandbox/credentials.conf
  systemd/local-only.conf:/sandbox/local-only.conf
)
for unit in systemd/hookledger*.{service,socket,timer}; do
  places+=("$unit:/usr/lib/systemd/system/${unit##*/}")
done
exec scripts/sandbox.sh tests/systemd/units.sh "${places[@]}"
