#!/usr/bin/env bash
# Gives damaged files to every reader of outside bytes: builds the targets of fuzz/, writes their first inputs, runs each for some seconds
# and says how many inputs it has had. Fails if an input ends the program, breaks what a target holds, or takes too long or too much memory;
# the input then lies in fuzz/artifacts/TARGET.
#
#     scripts/fuzz.sh [SECONDS] [TARGET…]         10 seconds for each, and all of them, if nothing is said
#
# It needs a C++ compiler for libFuzzer, which is a part of the crate libfuzzer-sys; a stable toolchain will do.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
seconds=${1:-10}
shift || true
targets=("$@")
if [ ${#targets[@]} = 0 ]; then
    for file in fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi

if ! command -v c++ >/dev/null; then
    apt-get update -qq
    apt-get install -y -qq g++
fi
host=$(rustc -vV | sed -n 's/^host: //p')
# What libFuzzer wants to know of a run: which edges it took, and what was compared with what.
flags="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
for what in inline-8bit-counters pc-table trace-compares; do flags+=" -Cllvm-args=-sanitizer-coverage-$what"; done
bins=()
for target in "${targets[@]}"; do bins+=(--bin "$target"); done
# The flags are for the targets alone and not for what runs while they are built, which is why the host is named.
RUSTFLAGS="$flags" ${CARGO:-cargo} build --locked --release --target "$host" "${bins[@]}" --bin make_seeds
built=${CARGO_TARGET_DIR:-target}/$host/release

room=$(mktemp -d -p "$(if [ -d /dev/shm ]; then echo /dev/shm; else echo "${TMPDIR:-/tmp}"; fi)")
trap 'rm -rf "$room"' EXIT
export LACUNA_FUZZ_ROOM=$room
"$built/make_seeds"

total=0
failed=()
for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" "artifacts/$target"
    if ! "$built/$target" "corpus/$target" -dict=words.dict -artifact_prefix="artifacts/$target/" -max_total_time="$seconds" \
        -max_len="${MAX_LEN:-4096}" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 > "$room/log" 2>&1; then
        failed+=("$target")
        tail -n 40 "$room/log"
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$room/log")
    rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$room/log")
    edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$room/log" | tail -n 1)
    printf '%-14s %10s inputs, %7s a second, %6s edges\n' "$target" "${runs:-0}" "${rate:-0}" "${edges:-0}"
    total=$((total + ${runs:-0}))
done
printf '%-14s %10s inputs\n' all "$total"
if [ ${#failed[@]} != 0 ]; then
    echo "failed: ${failed[*]}"
    exit 1
fi
