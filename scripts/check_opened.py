#!/usr/bin/env python3
"""Opens folders that `lacuna quantize` or `lacuna train --quantize` has written in transformers with compressed-tensors, on the CPU, and compares the logits.

    PYTHON scripts/check_opened.py LACUNA FOLDER...

PYTHON has torch, transformers, safetensors and compressed-tensors (from 0.18 on for codes of 3 bits). LACUNA is the binary, each FOLDER one of the layouts
compressed-tensors or int-quantized. Prints a line for each: the largest difference of a logit over the largest logit, beside `lacuna logits` of the same folder. Exits with 1 if one
is above 1e-4 (2e-2 where activations have 8 bits, which `lacuna logits` does not round) or does not open: packed zero points of rows and groups do not in
transformers 4.57 and 5.24.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM


def main():
    lacuna, faults = Path(sys.argv[1]).resolve(), 0
    for folder in map(Path, sys.argv[2:]):
        config = json.loads((folder / "config.json").read_text())
        ids = (torch.arange(1, 49) * 7919 % config["vocab_size"])[None]
        rounds = config["quantization_config"]["config_groups"]["group_0"]["input_activations"] is not None
        with tempfile.TemporaryDirectory() as name:
            given, out = Path(name) / "ids.safetensors", Path(name) / "logits.safetensors"
            save_file({"input_ids": ids}, given)
            subprocess.run([lacuna, "logits", folder, "--ids", given, "--out", out], check=True, capture_output=True)
            mine = load_file(out)["logits"]
        try:
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
            with torch.no_grad():
                theirs = model(ids).logits
        except Exception as error:  # whatever transformers says
            faults += 1
            print(f"{folder.name:24} FAILED: {str(error).strip().splitlines()[0]}", flush=True)
            continue
        off = ((mine - theirs).abs().max() / theirs.abs().max()).item()
        far = off > (2e-2 if rounds else 1e-4)
        faults += far
        print(f"{folder.name:24} {off:.1e}{' TOO FAR' if far else ''}", flush=True)
    print(f"{faults} faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
