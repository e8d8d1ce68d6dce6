#!/bin/sh
# Checks that examples/burn compiles, with burn's fusion and without: 600 packages, outside the default build.
#
#   sh tests/burn.sh          compiles
#   sh tests/burn.sh --test   runs its tests too, both ways; they need a driver
set -eu
cd "$(dirname "$0")/../examples/burn"

for flags in "" "--no-default-features --features cli"; do
    # The flags are words.
    # shellcheck disable=SC2086
    cargo check --release --locked --all-targets $flags
    if [ "${1:-}" = --test ]; then
        # shellcheck disable=SC2086
        cargo test --release --locked $flags
    fi
done
echo "burn: checked $(date +%F)"
