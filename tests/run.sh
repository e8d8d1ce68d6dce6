#!/bin/sh
# Runs every test. They need a Vulkan, Metal or DX12 driver; a software one will do.
#
#   sh tests/run.sh                    says how to get a driver where there is none
#   sh tests/run.sh --install-driver   installs the software driver where there is none (Debian, Ubuntu)
#   SOFTXENT_LONG=1 sh tests/run.sh    the full grids
#   SOFTXENT_SKIP_GPU=1 …              leaves out what needs a driver, loudly
set -eu
cd "$(dirname "$0")/.."

install=no
for word in "$@"; do
    case "$word" in
        --install-driver) install=yes ;;
        *) echo "tests/run.sh: $word is not known; the one option is --install-driver" >&2; exit 2 ;;
    esac
done

has_driver() {
    cargo run --quiet --release -- info --json 2>/dev/null | grep -q '"index"'
}

if [ "${SOFTXENT_SKIP_GPU:-}" != 1 ] && ! has_driver; then
    as_root=
    [ "$(id -u)" = 0 ] || as_root="sudo "
    line="${as_root}apt-get update && ${as_root}apt-get install -y mesa-vulkan-drivers libvulkan1"
    if [ "$install" = no ]; then
        echo "No GPU driver was found. This installs a software driver:" >&2
        echo "  $line" >&2
        echo "or let this script do it: sh tests/run.sh --install-driver" >&2
        exit 1
    fi
    command -v apt-get >/dev/null || {
        echo "No apt-get here: install your system's Mesa Vulkan drivers (lavapipe) by hand." >&2
        exit 1
    }
    sh -ec "$line"
    has_driver || { echo "The driver was installed, and no adapter shows up." >&2; exit 1; }
fi

cargo test --release
