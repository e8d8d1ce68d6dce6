#!/bin/sh
# Runs every test. They need a Vulkan, Metal or DX12 driver; a software one will do. Those in a browser
# need Chromium, and are left out, loudly, where there is none.
#
#   sh tests/run.sh                    says how to get a driver where there is none
#   sh tests/run.sh --install-driver   installs the software driver where there is none, and Chromium
#                                      (Debian, Ubuntu)
#   SOFTXENT_LONG=1 sh tests/run.sh    the full grids
#   SOFTXENT_SHADER_CHECKS=1 …         all tests with the checks in shaders that are proven needless
#   SOFTXENT_SKIP_GPU=1 …              leaves out what needs a driver, loudly
#   SOFTXENT_SKIP_WEB=1 …              leaves out what needs a browser, loudly
#   SOFTXENT_WEB=1 …                   fails where there is no browser with WebGPU
#   SOFTXENT_CHROMIUM=/path/to/it …    the browser to take; else the first of chromium,
#                                      chromium-browser, google-chrome
set -eu
cd "$(dirname "$0")/.."

install=no
for word in "$@"; do
    case "$word" in
        --install-driver) install=yes ;;
        *) echo "tests/run.sh: $word is not known; the one option is --install-driver" >&2; exit 2 ;;
    esac
done

# Asked of an example, which shares its build with the tests. Whatever else fails, the tests will say.
has_driver() {
    ! cargo run --quiet --release --example minimal 2>&1 | grep -q NoAdapter
}

has_chromium() {
    [ -n "${SOFTXENT_CHROMIUM:-}" ] && return
    for name in chromium chromium-browser google-chrome; do
        command -v "$name" >/dev/null && return
    done
    return 1
}

as_root=
[ "$(id -u)" = 0 ] || as_root="sudo "

if [ "${SOFTXENT_SKIP_GPU:-}" != 1 ] && ! has_driver; then
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

if [ "$install" = yes ] && [ "${SOFTXENT_SKIP_WEB:-}" != 1 ] && ! has_chromium; then
    # 100 MB that only the tests in a browser need: without them the others still run.
    sh -ec "${as_root}apt-get update && ${as_root}apt-get install -y --no-install-recommends chromium" ||
        echo "WARNING: Chromium could not be installed: nothing will be tested in a browser." >&2
fi

# One process after the other: a software driver keeps the code of all pipelines of a process, and all tests
# make thousands, which takes more than 16 GB.
cargo test --release -- --skip planted:: --skip reproducibility:: --skip agreement:: --skip reference_set::
cargo test --release --test it -- planted::
cargo test --release --test it -- reproducibility::
cargo test --release --test it -- agreement:: reference_set::
