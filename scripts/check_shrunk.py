#!/usr/bin/env python3
"""Opens what `lacuna shrink` writes in transformers, and compares the logits with Lacuna's.

    PYTHON scripts/check_shrunk.py LACUNA MODELS [SEED]

PYTHON has torch, transformers below 5 (GPT-2's `pruned_heads` open in 4 alone) and safetensors. LACUNA is the binary, MODELS a folder whose
folders are models, small ones of random weights best. Each is made smaller in several ways: fewer feed-forward features, fewer heads, fewer
layers, fewer hidden features by both scores, all at once, sorted, blocks without one of their halves and blocks of different widths, both padded. Prints a line for each and the largest difference of a logit, over the
largest logit. Exits with 1 if one is above 1e-4, if transformers refuses a folder or if Lacuna refuses what it should do. What a family
has not (principal components where norms take means) is said and no fault; nor are sizes under `layer_widths`, which Lacuna alone reads.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

TOLERANCE = 1e-4
# What a family has not, or a small model.
REFUSED = ["unknown", "is none of", "hidden-by: pca", "no width of heads", "error: pad: ", "error: drop: ", "cannot stay", "is not at least 1", "per-layer: "]
# What transformers refuses by a rule of its own: lengths of longrope's lists, and Qwen2-MoE's heads before its version 5.
CLOSED = ["short_factor", "hidden_size must be divisible by num_heads"]


def sizes(config):
    """Heads, heads of keys and values, feed-forward, hidden features and layers, by the names that families have."""
    of = lambda *names: next((config[n] for n in names if config.get(n) is not None), None)
    heads = of("num_attention_heads", "n_head", "num_heads")
    hidden = of("hidden_size", "n_embd", "d_model")
    return {
        "heads": heads,
        "kv": of("num_key_value_heads") or heads,
        "intermediate": of("intermediate_size", "ffn_dim", "d_ff", "n_inner") or 4 * hidden,
        "hidden": hidden,
        "layers": of("num_hidden_layers", "n_layer", "num_layers"),
    }


def ways(config):
    """Options by name."""
    n = sizes(config)
    t5 = config["model_type"] == "t5"
    share = n["heads"] // n["kv"]
    heads = ["--heads", str(max(1, n["heads"] // 2))] if share == 1 else ["--heads", str(n["kv"] * max(1, share // 2))]
    feed = ["--intermediate", str(n["intermediate"] * 2 // 3)]
    hidden = ["--hidden", str(n["hidden"] * 3 // 4)]
    layers = ["--layers", str(n["layers"] - 1)]
    if t5:
        return {"feed": feed + ["--method", "magnitude"], "heads": heads + ["--method", "magnitude"]}
    all_ways = {
        "feed": feed,
        "feed by errors": feed + ["--metric", "error", "--correct", "0.5"],
        "heads": heads,
        "layers": layers,
        "hidden": hidden,
        "principal": hidden + ["--hidden-by", "pca"],
        "all": feed + heads + layers + hidden,
        "flap": feed + ["--method", "flap"],
        "sorted": ["--sort", "--method", "minitron"],
        "halves padded": ["--drop", f"attention:{n['layers'] - 1},mlp:0", "--pad"],
        "widths padded": ["--parameters", "0.9", "--per-layer", "--round", "4", "--pad"],
    }
    if n["kv"] > 1 and share > 1:
        all_ways["groups"] = ["--kv-heads", str(n["kv"] // 2)]
    return all_ways


def compare(lacuna, folder, ids_file, above, t5):
    """The largest difference over the largest logit."""
    out = above / "logits.safetensors"
    subprocess.run([lacuna, "logits", folder, "--ids", ids_file, "--out", out, "--force"], check=True, capture_output=True)
    mine, given = load_file(out)["logits"], load_file(ids_file)
    kind = AutoModelForSeq2SeqLM if t5 else AutoModelForCausalLM
    model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        theirs = model(**given).logits
    return ((mine - theirs).abs().max() / theirs.abs().max()).item()


def main():
    lacuna, models = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    faults = 0
    generator = torch.Generator().manual_seed(seed)
    for folder in sorted(p.parent for p in models.glob("*/config.json")):
        config = json.loads((folder / "config.json").read_text())
        t5 = config["model_type"] == "t5"
        with tempfile.TemporaryDirectory() as name:
            above = Path(name)
            draw = lambda rows, length: torch.randint(3, config["vocab_size"], (rows, length), generator=generator)
            calibration, ids_file = above / "calibration.safetensors", above / "ids.safetensors"
            save_file({"input_ids": draw(16, 16)}, calibration)
            save_file({"input_ids": draw(1, 20), **({"labels": draw(1, 9)} if t5 else {})}, ids_file)
            for way, options in ways(config).items():
                out = above / way.replace(" ", "-")
                measured = [] if t5 else ["--calibration", calibration, "--samples", "16", "--context", "16"]
                run = subprocess.run([lacuna, "shrink", folder, out, *options, *measured], capture_output=True, text=True)
                said = f"{folder.name:14} {way:16}"
                if run.returncode != 0:
                    line = run.stderr.strip().splitlines()[-1] if run.stderr.strip() else "nothing said"
                    known = any(word in line for word in REFUSED)
                    faults += 0 if known else 1
                    print(f"{said} {'not for this family' if known else 'REFUSED'}: {line}")
                    continue
                left = json.loads((out / "config.json").read_text())
                if "layer_widths" in left and not left.get("pruned_heads"):
                    print(f"{said} Lacuna alone")
                    continue
                try:
                    off = compare(lacuna, out, ids_file, above, t5)
                except Exception as error:  # whatever transformers says
                    line = str(error).splitlines()[0]
                    known = any(word in str(error) for word in CLOSED)
                    faults += not known
                    print(f"{said} {'not opened' if known else 'FAILED'}: {line}")
                    continue
                faults += off > TOLERANCE
                print(f"{said} {off:.1e}{'' if off <= TOLERANCE else ' TOO FAR'}", flush=True)
    print(f"{faults} faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
