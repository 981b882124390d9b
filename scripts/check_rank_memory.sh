#!/usr/bin/env bash
# Peak memory of a whole run of `lacuna prune` by magnitude, with budgets that rank all layers, on a folder of random bf16 weights: that of a
# few layers, however many there are.
#
#   scripts/check_rank_memory.sh [SHAPE] [BLOCKS] [MB] [FOLDER]
#
# SHAPE is one that examples/random_model.rs knows; FOLDER takes the model and what is written of it, twice its size. Small enough for every
# change: the default. A model of 8B parameters, 16 GB on the disk: llama-3.1-8b 32 2000.
set -euo pipefail
cd "$(dirname "$0")/.."
shape=${1:-smollm2-135m} blocks=${2:-30} most=${3:-150}
cargo build --release --bins --example random_model
target=${CARGO_TARGET_DIR:-target}/release
dir=$(mktemp -d "${4:-${TMPDIR:-/tmp}}/rank_memory.XXXXXX")
trap 'rm -rf "$dir"' EXIT
"$target/examples/random_model" "$dir/model" "$shape" "$blocks"
echo "$shape with $blocks blocks: $(du -sm "$dir/model" | cut -f1) MB on the disk"
failed=0
for allocate in er global lamp; do
    rm -rf "$dir/out"
    report=$("$target/lacuna" prune "$dir/model" "$dir/out" --method magnitude --sparsity 0.5 --allocate "$allocate" --json | tail -1)
    read -r peak seconds kept weights < <(python3 -c '
import json, sys
r = json.loads(sys.argv[1])
print(r["peak_bytes"] // 10**6, round(r["seconds"], 1), r["kept"], r["weights"])' "$report")
    echo "$allocate: at most $peak MB of memory, $seconds s, $kept of $weights weights kept"
    if [ "$peak" -gt "$most" ] || [ "$kept" -ne "$((weights - (weights + 1) / 2))" ]; then
        echo "$allocate: not within $most MB, or not half of the weights" >&2
        failed=1
    fi
done
exit $failed
