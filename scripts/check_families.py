#!/usr/bin/env python3
"""Opens models of every family in transformers: as they were, pruned, and made smaller by Lacuna.

    PYTHON scripts/check_families.py LACUNA [NAME…]

PYTHON has torch, transformers and safetensors; LACUNA is the binary. The models are the goldens of tests/lm. Of each, transformers must know every
tensor and miss none, and give the logits that `lacuna logits` gives (encoders: only the tensors). Without names what was found goes to
tests/lm/goldens/reopened.json: for each family the versions of transformers that passed, one of each generation. Exits with 1 if a model fails.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

TOLERANCE = 1e-4
GOLDENS = Path(__file__).resolve().parent.parent / "tests/lm/goldens"


def opened(folder, config, lacuna, above):
    """The largest difference over the largest logit; 0 of an encoder. Raises if a tensor is missing or left over."""
    encoder, both = config["model_type"] == "bert", bool(config.get("is_encoder_decoder"))
    kind = transformers.AutoModel if encoder else transformers.AutoModelForSeq2SeqLM if both else transformers.AutoModelForCausalLM
    more = {"add_pooling_layer": False} if encoder else {}
    model, info = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True, **more)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        # Masks are another file, which transformers does not open.
        if info[what]:
            raise ValueError(f"{what}: {sorted(info[what])[:3]}")
    if encoder:
        return 0.0
    ids, out = above / "ids.safetensors", above / "logits.safetensors"
    generator = torch.Generator().manual_seed(5)
    draw = lambda n: torch.randint(3, config["vocab_size"], (1, n), generator=generator)
    given = {"input_ids": draw(20)} | ({"labels": draw(9)} if both else {})
    save_file(given, ids)
    subprocess.run([lacuna, "logits", folder, "--ids", ids, "--out", out, "--force"], check=True, capture_output=True)
    with torch.no_grad():
        theirs = model.eval()(**given).logits
    return ((load_file(out)["logits"] - theirs).abs().max() / theirs.abs().max()).item()


def smaller(config):
    """Options that make a model smaller by its weights alone."""
    if config.get("num_experts") or config.get("num_local_experts"):
        return ["--experts", "3" if config.get("num_experts", 4) > 3 else "2", "--experts-by", "random"]
    if config["model_type"] == "bloom":
        return ["--layers", "1"]
    width = config.get("intermediate_size") or config.get("ffn_dim") or config.get("d_ff") or config.get("n_inner") or 4 * config["n_embd"]
    return ["--intermediate", str(width // 2), "--method", "magnitude"]


def main():
    lacuna, only = Path(sys.argv[1]).resolve(), sys.argv[2:]
    faults, passed = 0, {}
    for path in sorted(GOLDENS.glob("*.safetensors")):
        if only and path.stem not in only:
            continue
        with safe_open(path, "pt") as file:
            config = json.loads(file.metadata()["config"])
            tensors = {name: file.get_tensor(name) for name in file.keys() if not name.startswith("expected.")}
        family = config["model_type"]
        if family == "olmo3":
            # One from outside the crate, which the command does not know.
            continue
        with tempfile.TemporaryDirectory() as name:
            above = Path(name)
            folder = above / "whole"
            folder.mkdir()
            save_file(tensors, folder / "model.safetensors", {"format": "pt"})
            (folder / "config.json").write_text(json.dumps(config))
            pruned, cut = above / "pruned", above / "cut"
            runs = [(folder, None), (pruned, ["prune", folder, pruned, "--method", "magnitude", "--sparsity", "0.5"])]
            options = smaller(config)
            if "--layers" in options:
                # Its blocks have no size of their own, and layers are chosen by a calibration.
                ids = above / "calibration.safetensors"
                save_file({"input_ids": torch.randint(3, config["vocab_size"], (8, 16))}, ids)
                options = [*options, "--calibration", str(ids), "--samples", "8", "--context", "16"]
            runs.append((cut, ["shrink", folder, cut, *options]))
            for model, run in runs:
                said = f"{path.stem:18} {model.name:7}"
                try:
                    if run:
                        done = subprocess.run([lacuna, *run], capture_output=True, text=True)
                        if done.returncode != 0:
                            raise ValueError(done.stderr.strip().splitlines()[-1])
                    off = opened(model, json.loads((model / "config.json").read_text()), lacuna, above)
                    good = off <= TOLERANCE
                    print(f"{said} {off:.1e}{'' if good else ' TOO FAR'}", flush=True)
                except Exception as error:  # whatever transformers says
                    good = False
                    print(f"{said} FAILED: {str(error).splitlines()[0]}", flush=True)
                passed[family] = passed.get(family, True) and good
                faults += not good
    if not only:
        record = GOLDENS / "reopened.json"
        known = json.loads(record.read_text()) if record.exists() else {}
        mine = transformers.__version__
        for family, good in passed.items():
            others = [v for v in known.get(family, []) if v.split(".")[0] != mine.split(".")[0]]
            known[family] = sorted(others + [mine] if good else others)
        lines = [f"{json.dumps(name)}: {json.dumps(known[name])}" for name in sorted(known)]
        record.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{faults} faults, transformers {transformers.__version__}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
