#!/usr/bin/env bash
# Peak memory of `lacuna prune` and `lacuna shrink --experts` on a mixture of 64 experts whose weights are random: that of one block, and not of two.
#
#   scripts/check_mixture_memory.sh [HIDDEN] [FEATURES] [FOLDER]
#
# HIDDEN features of the hidden states (1024), FEATURES between the layers of an expert (384): in f32 a block has 64 x 3 x HIDDEN x FEATURES x 4 bytes,
# by default 302 MB; there are three. FOLDER takes the model and what is written of it. LACUNA names another binary than the one that is built here.
set -euo pipefail
cd "$(dirname "$0")/.."
hidden=${1:-1024} features=${2:-384}
if [ -z "${LACUNA:-}" ]; then
    cargo build --release --bins
    LACUNA=${CARGO_TARGET_DIR:-target}/release/lacuna
fi
dir=$(mktemp -d "${3:-${TMPDIR:-/tmp}}/mixture_memory.XXXXXX")
trap 'rm -rf "$dir"' EXIT
cat >"$dir/config.json" <<END
{"model_type": "olmoe", "vocab_size": 512, "hidden_size": $hidden, "intermediate_size": $features, "num_hidden_layers": 3,
 "num_attention_heads": 8, "num_experts": 64, "num_experts_per_tok": 8, "max_position_embeddings": 512, "tie_word_embeddings": false}
END
"$LACUNA" init "$dir/config.json" "$dir/model" --seed 1 --dtype bf16
python3 - "$dir/ids.safetensors" <<'END'
import json, random, struct, sys
random.seed(3)
data = b"".join(struct.pack("<I", random.randrange(512)) for _ in range(512))
header = json.dumps({"input_ids": {"dtype": "U32", "shape": [512], "data_offsets": [0, len(data)]}}).encode()
open(sys.argv[1], "wb").write(struct.pack("<Q", len(header)) + header + data)
END
block=$((64 * 3 * hidden * features * 4 / 1000000))
# A block, and below another for everything else: statistics of an expert, hidden states, the program.
most=$((block * 9 / 5))
echo "a block of 64 experts has $block MB in f32; at most $most MB are allowed"
failed=0
run() {
    local said=$1 peak seconds
    shift
    rm -rf "$dir/out"
    read -r peak seconds < <("$LACUNA" "$@" --json 2>/dev/null | tail -1 | python3 -c '
import json, sys
r = json.load(sys.stdin)
print(r["peak_bytes"] // 10**6, round(r["seconds"], 1))')
    echo "$said: at most $peak MB, $seconds s"
    if [ "$peak" -gt "$most" ]; then
        echo "$said: more than $most MB" >&2
        failed=1
    fi
}
measured=(--calibration "$dir/ids.safetensors" --samples 4 --context 128)
run "magnitude" prune "$dir/model" "$dir/out" --method magnitude --sparsity 0.5
run "wanda" prune "$dir/model" "$dir/out" --method wanda --sparsity 0.5 "${measured[@]}"
run "wanda, by block" prune "$dir/model" "$dir/out" --method wanda --sparsity 0.5 --turn block "${measured[@]}"
run "sparsegpt" prune "$dir/model" "$dir/out" --method sparsegpt --sparsity 0.5 --correct 1,1 "${measured[@]}"
run "experts by reap" shrink "$dir/model" "$dir/out" --experts 48 "${measured[@]}"
exit $failed
