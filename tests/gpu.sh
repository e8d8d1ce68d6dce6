#!/bin/sh
# All that is to be known of softxent on a GPU, by programs that were built on another machine.
#
#   sh tests/gpu.sh build DIR               builds what travels: the tests, softxent, facts, softxent-peers; and
#                                           packs it, DIR.tar.gz
#   sh tests/gpu.sh run DIR OUT [STEP …]    takes every step, or those, and leaves what they say in OUT
#
# Steps, in their order: info, facts (what the driver does where WGSL leaves it open), tests (all that need a
# device, but the browser's), check (what the README promises), bench (every shape), stages (what each stage of a
# kernel costs: the same shapes without vectors, without rows that stay, without subgroups, with the checks in
# shaders), kernels (each on its shapes), peers (burn), nvidia (what people use there;
# needs PyTorch with CUDA). A step that fails, or that takes longer than it may, is named at the end. All of them
# may take eight minutes, and TIMES=2 sh tests/gpu.sh … twice as much.
set -u
cd "$(dirname "$0")/.."

build() {
    set -e
    mkdir -p "$1"
    cargo build --release --bin softxent --example facts
    cargo test --release --test it --no-run
    (cd benches/peers && cargo build --release)
    cp target/release/softxent target/release/examples/facts benches/peers/target/release/softxent-peers "$1"
    # The newest: cargo keeps older ones.
    cp "$(find target/release/deps -name 'it-*' ! -name '*.*' -exec ls -t {} + | head -n 1)" "$1/it"
    strip "$1"/*
    # Tests know the tree that they were built in.
    pwd >"$1/tree"
    tar -czf "${1%/}.tar.gz" -C "$1" .
}

# Seconds that a step may take, its name, its command.
step() {
    may=$1 name=$2
    shift 2
    case " $steps " in
        *" $name "*) ;;
        *) return ;;
    esac
    began=$(date +%s)
    timeout "$((may * ${TIMES:-1}))" "$@" >"$out/$name.txt" 2>&1
    code=$?
    echo "$name: $(($(date +%s) - began)) s, exit status $code"
    [ "$code" = 0 ] || failed="$failed $name"
}

run_tests() {
    tree=$(cat "$dir/tree")
    if [ ! -e "$tree" ]; then
        mkdir -p "$(dirname "$tree")" && ln -s "$PWD" "$tree"
    fi
    mkdir -p target/release && cp "$dir/softxent" target/release/softxent
    export SOFTXENT_SKIP_WEB=1
    "$dir/it" --skip planted:: --skip readme:: && "$dir/it" planted::
}

stages() {
    for how in "--plan vectors=yes" "--plan vectors=no" "--plan keeps=no" --no-subgroups --shader-checks; do
        # The words of $how are arguments.
        # shellcheck disable=SC2086
        bench --op loss,softmax,loss-grad --classes 16,100,1000,1024,8192,32000,50257,128256 $how \
            --csv "$out/stages$(echo "$how" | tr -c 'a-z\n' _).csv" || return
    done
}

check() {
    "$dir/softxent" check --json >"$out/check.json"
}

kernels() {
    bench --kernel all --op loss-grad --classes 16,64,256,1024,4096,16384,65536,262144 \
        --rows 1,16,64,128,1024,8192 --csv "$out/kernels.csv" || return
    for how in spans=256 spans=4096 parts=512 parts=8192 span_workgroup=64; do
        bench --kernel split_row --op loss-grad --classes 16384,65536,262144 --rows 1,8,64 --plan $how \
            --csv "$out/split_$how.csv" || return
    done
}

bench() {
    "$dir/softxent" bench --min-time 0.03 --max-time 0.1 "$@"
}

nvidia() {
    for dtype in float32 bfloat16 float16; do
        python3 benches/peers/nvidia.py --dtype "$dtype" --csv "$out/nvidia_$dtype.csv" || return
    done
}

run() {
    dir=$1 out=$2
    shift 2
    mkdir -p "$out"
    out=$(cd "$out" && pwd)
    dir=$(cd "$dir" && pwd)
    steps=${*:-info facts tests check bench stages kernels peers nvidia}
    failed=
    step 5 info "$dir/softxent" info
    step 5 facts "$dir/facts"
    step 160 tests sh tests/gpu.sh one tests "$dir" "$out"
    step 30 check sh tests/gpu.sh one check "$dir" "$out"
    step 90 bench "$dir/softxent" bench --preset full --min-time 0.05 --max-time 0.2 \
        --csv "$out/bench.csv" --md "$out/bench.md" --svg "$out/bench.svg"
    step 45 stages sh tests/gpu.sh one stages "$dir" "$out"
    step 30 kernels sh tests/gpu.sh one kernels "$dir" "$out"
    step 45 peers "$dir/softxent-peers" --skip torch --csv "$out/peers.csv" --md "$out/peers.md"
    step 70 nvidia sh tests/gpu.sh one nvidia "$dir" "$out"
    [ -z "$failed" ] || {
        echo "failed:$failed" >&2
        exit 1
    }
}

case "${1:-}" in
    build) build "${2:?a folder}" ;;
    run) shift && run "${1:?the folder of the programs}" "${2:?a folder for the results}" "$@" ;;
    # A step of several commands, so that its time can be limited.
    one)
        dir=$3 out=$4
        case "$2" in
            tests) run_tests ;;
            *) "$2" ;;
        esac
        ;;
    *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0" >&2 && exit 2 ;;
esac
