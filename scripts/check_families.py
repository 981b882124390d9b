#!/usr/bin/env python3
"""Opens models of every family in transformers: as they were, pruned, and made smaller by Lacuna.

    PYTHON scripts/check_families.py LACUNA [NAME…]

PYTHON has torch, transformers and safetensors; LACUNA is the binary. The models are the goldens of tests/lm. Of each, transformers must know every
tensor and miss none, and give the logits that `lacuna logits` gives (encoders: only the tensors). Without names what was found goes to
tests/lm/goldens/reopened.json: for each family the versions of transformers that passed, one of each generation, and which smaller models they do not
open. Sizes under `layer_widths` are Lacuna's alone and not tried. Exits with 1 if a model as it was, or pruned, is not opened, or logits differ.
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


def ways(config):
    """Options by what leaves: as tests/lm/page.rs has them. Layers and hidden features are chosen by a calibration."""
    of = lambda *names: next((config[n] for n in names if config.get(n) is not None), None)
    hidden, heads = of("hidden_size", "n_embd", "d_model"), of("num_attention_heads", "n_head", "num_heads")
    layers, kv = of("num_hidden_layers", "n_layer", "num_layers"), of("num_key_value_heads") or heads
    width = of("intermediate_size", "ffn_dim", "d_ff", "n_inner") or 4 * hidden
    found = {
        "features": ["--intermediate", width // 2],
        "heads": ["--heads", max(heads // 2, kv if heads > kv else 1)],
        "layers": ["--layers", max(layers - 1, 1)],
        "hidden": ["--hidden", hidden - heads],
    }
    if config.get("num_experts") or config.get("num_local_experts"):
        found["experts"] = ["--experts", 2, "--experts-by", "random"]
    return found


def main():
    lacuna, only = Path(sys.argv[1]).resolve(), sys.argv[2:]
    faults, passed, closed = 0, {}, {}
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
            ids = above / "calibration.safetensors"
            save_file({"input_ids": torch.randint(3, config["vocab_size"], (8, 16))}, ids)
            measured = [] if family == "t5" else ["--calibration", ids, "--samples", "8", "--context", "16"]
            runs = [("whole", None), ("pruned", ["prune", folder, above / "pruned", "--method", "magnitude", "--sparsity", "0.5"])]
            for way, options in ways(config).items():
                given = [] if way in ("experts", "features") else measured
                method = [] if way == "experts" else ["--method", "magnitude"]
                runs.append((way, ["shrink", folder, above / way, *map(str, options), *method, *given]))
            for way, run in runs:
                said, model, cut = f"{path.stem:18} {way:8}", above / way, way not in ("whole", "pruned")
                good = True
                try:
                    if run:
                        done = subprocess.run([lacuna, *run], capture_output=True, text=True)
                        if done.returncode != 0:
                            line = done.stderr.strip().splitlines()[-1]
                            if cut and any(known in line for known in ("stay", "nothing goes", "chosen by activations")):
                                print(f"{said} stays: {line}", flush=True)
                                continue
                            raise RuntimeError(line)
                    left = json.loads((model / "config.json").read_text())
                    if "layer_widths" in left:
                        print(f"{said} Lacuna alone", flush=True)
                        continue
                    try:
                        off = opened(model, left, lacuna, above)
                    except Exception as error:  # whatever transformers says
                        if not cut:
                            raise
                        print(f"{said} NOT OPENED: {str(error).splitlines()[0]}", flush=True)
                        closed.setdefault(family, {}).setdefault(way, []).append(path.stem)
                        continue
                    good = off <= TOLERANCE
                    print(f"{said} {off:.1e}{'' if good else ' TOO FAR'}", flush=True)
                except Exception as error:
                    good = False
                    print(f"{said} FAILED: {str(error).splitlines()[0]}", flush=True)
                passed[family] = passed.get(family, True) and good
                faults += not good
    if not only:
        record = GOLDENS / "reopened.json"
        known = json.loads(record.read_text()) if record.exists() else {}
        mine = transformers.__version__
        others = lambda versions: [v for v in versions if v.split(".")[0] != mine.split(".")[0]]
        for family, good in passed.items():
            before = known.get(family, {})
            entry = {"opens": sorted(others(before.get("opens", [])) + [mine] * good)}
            kept = {way: {model: others(v) for model, v in models.items()} for way, models in before.get("closed", {}).items()}
            for way, models in closed.get(family, {}).items():
                for model in models:
                    kept.setdefault(way, {}).setdefault(model, []).append(mine)
            kept = {way: {m: sorted(v) for m, v in models.items() if v} for way, models in kept.items()}
            kept = {way: models for way, models in kept.items() if models}
            known[family] = entry | ({"closed": kept} if kept else {})
        lines = [f"{json.dumps(name)}: {json.dumps(known[name])}" for name in sorted(known)]
        record.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{faults} faults, transformers {transformers.__version__}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
