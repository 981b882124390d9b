#!/usr/bin/env bash
# Times sparse products on this machine and writes a folder of benches/record/ that is named by its processor: JSON lines, and a README
# with the machine and the commands. Build with `cargo build --release` first, and let nothing else run. RUN names a command to run each
# part under, as `RUN="nice -n -5"`.
# PARTS names the parts to measure, all by default; parts that were measured before stay. The part `layers` wants WEIGHTS, the
# model.safetensors of SmolLM2-135M as `lacuna import` writes it.
set -euo pipefail
cd "$(dirname "$0")/.."
cpu() { lscpu | sed -n "s/^$1: *//p" | tr '[:upper:]' '[:lower:]'; }
folder=benches/record/$(cpu "Vendor ID")-$(cpu "CPU family")-$(cpu Model)
lacuna=${CARGO_TARGET_DIR:-target}/release/lacuna
mkdir -p "$folder"

small="576x1536,1536x576,3072x768"
sparsities="0.5,0.7,0.8,0.9,0.95"
declare -A commands=(
    [spmm]="spmm --shape $small --tokens 1,4,16,128,512 --sparsity $sparsities --threads 1 --seconds 0.3"
    [spmm-2]="spmm --shape $small --tokens 1,4,16,128,512 --sparsity $sparsities --threads 2 --seconds 0.3"
    [large]="spmm --shape 4096x4096 --tokens 16,128 --sparsity 0.5,0.8,0.9,0.95 --threads 1,2 --seconds 2"
    [cold]="spmm --shape 4096x4096,11008x4096 --tokens 1 --sparsity 0.5,0.8,0.9 --threads 1,2 --cold --seconds 1"
    [nm]="spmm --shape 576x1536,3072x768 --tokens 1,16,128 --pattern 2:4 --format nm:2:4 --threads 1,2 --seconds 0.3"
    [blocks]="spmm --shape 576x1536,3072x768 --tokens 1,16,128 --pattern block16x1 --sparsity 0.7,0.9 --format bsr:16x1 --threads 1,2 --seconds 0.3"
    [values]="spmm --shape 4096x4096 --tokens 1 --sparsity 0.5,0.8,0.9 --values f32,bf16,f16,i8 --format bitmask:4096,sell:padded,sell:packed --cold --seconds 0.6"
    [skewed]="spmm --shape $small --tokens 1,16,128 --sparsity 0.5,0.9 --skewed --seconds 0.3"
    [sweep]="sweep --shape $small --tokens 1,4,16,128 --seconds 0.05"
    [check]="check --shape $small --tokens 1,4,16,128 --threads 1 --seconds 0.15"
    [check-2]="check --shape $small --tokens 1,4,16,128 --threads 2 --seconds 0.15"
)
all=(spmm spmm-2 large cold nm blocks values skewed sweep check check-2)
tensors=(model.layers.{2,15}.{self_attn.o_proj,mlp.gate_proj,mlp.down_proj}.weight)
for part in ${PARTS:-${all[@]}}; do
    echo "== $part: lacuna bench ${commands[$part]} --json" >&2
    # A check that finds something is a finding, not a failure of the record.
    # shellcheck disable=SC2086
    ${RUN:-} "$lacuna" bench ${commands[$part]} --json > "$folder/$part.jsonl.part" || [[ $part == check* ]]
    mv "$folder/$part.jsonl.part" "$folder/$part.jsonl"
    date -u +%Y-%m-%d > "$folder/$part.date"
done

if [ -n "${WEIGHTS:-}" ]; then
    for tensor in "${tensors[@]}"; do
        echo "== layers: $tensor" >&2
        ${RUN:-} "$lacuna" bench spmm --weights "$WEIGHTS" --tensor "$tensor" --tokens 1,16,128 --sparsity 0.5,0.8 --threads 1 --seconds 0.3 --json |
            sed "s/^{/{\"tensor\":\"$tensor\",/"
    done > "$folder/layers.jsonl.part"
    mv "$folder/layers.jsonl.part" "$folder/layers.jsonl"
    date -u +%Y-%m-%d > "$folder/layers.date"
fi

{
    echo "# What sparse products took, on one machine"
    echo
    echo "Written by \`scripts/record_bench.sh\`; medians in microseconds, contenders in turns, answers checked before they were timed. Dense is the"
    echo "fastest of the dense products that are linked. The machine, in the words of \`lscpu\`:"
    echo
    echo '```text'
    lscpu | grep -E "^(Architecture|Vendor ID|Model name|CPU family|Model|Stepping|CPU\(s\)|Thread\(s\) per core|L1d cache|L2 cache|L3 cache|Hypervisor vendor|BogoMIPS):"
    lscpu | grep -oE "avx2|avx512[a-z0-9_]*|fma" | sort -u | paste -sd' ' | sed 's/^/of its Flags:                            /'
    echo '```'
    echo
    echo "| file | date | command |"
    echo "|---|---|---|"
    for part in "${all[@]}"; do
        if [ -f "$folder/$part.jsonl" ]; then
            echo "| \`$part.jsonl\` | $(cat "$folder/$part.date") | \`lacuna bench ${commands[$part]} --json\` |"
        fi
    done
    if [ -f "$folder/layers.jsonl" ]; then
        echo "| \`layers.jsonl\` | $(cat "$folder/layers.date") | \`lacuna bench spmm --weights model.safetensors --tensor … --tokens 1,16,128 --sparsity 0.5,0.8 --threads 1 --seconds 0.3 --json\`, layers of SmolLM2-135M pruned by magnitude |"
    fi
} > "$folder/README.md"
