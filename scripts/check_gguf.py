#!/usr/bin/env python3
"""Holds the GGUF files that `lacuna export` writes against llama.cpp and the `gguf` package.

    PYTHON scripts/check_gguf.py LACUNA FOLDER TEXT [TYPE...]

PYTHON has gguf, numpy, safetensors, tokenizers and xllamacpp (llama.cpp prebuilt). LACUNA is the binary, FOLDER a model of the architectures llama, qwen2 or qwen3, TEXT a
text of some hundred words. Of each type (all of them, unless some are named):

- the file is written and imported again;
- `gguf` decodes every tensor, and the numbers are those that Lacuna has imported;
- llama.cpp opens it and says the log-probabilities of the 500 likeliest tokens behind 64 beginnings of the text, which are held against those of
  `lacuna logits` for what was imported. llama.cpp rounds activations to 8 bits before it multiplies by blocks; so files of blocks are also asked
  for as the same numbers in f32, where nothing is rounded.

Prints a line a type. Exits with 1 where a tensor differs, llama.cpp refuses a file, or log-probabilities of floats are off by more than 0.01 in the mean.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import gguf
import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

FLOATS = ["f32", "f16", "bf16"]
TYPES = [*FLOATS, "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k"]
PREFIXES = [3 * i + 2 for i in range(64)]
LIKELIEST = 500
TOLERANCE = 0.01


def turned(weight, heads):
    """The rows of a head as llama.cpp rotates them: pairs beside one another, not half a head apart."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def decoded(file, folder):
    """Tensors that `gguf` decodes to other numbers than Lacuna, how many there are, and the largest difference."""
    config = json.loads((folder / "config.json").read_text())
    reader, mine = gguf.GGUFReader(file), load_file(folder / "model.safetensors")
    architecture = reader.get_field("general.architecture").contents()
    number = next(n for n, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(number, config["num_hidden_layers"])
    theirs = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).reshape([int(n) for n in reversed(t.shape)]) for t in reader.tensors}
    wrong, largest = [], 0.0
    for name, weight in mine.items():
        to = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if to not in theirs:
            wrong.append(name)
            continue
        if architecture == "llama" and ".self_attn.q_proj." in name:
            weight = turned(weight, config["num_attention_heads"])
        if architecture == "llama" and ".self_attn.k_proj." in name:
            weight = turned(weight, config["num_key_value_heads"])
        other = theirs.pop(to).astype(np.float32)
        if not np.array_equal(weight, other):
            wrong.append(name)
            largest = max(largest, float(np.abs(weight - other).max()))
    left = [name for name in theirs if name not in ("output.weight", "rope_freqs.weight")]
    return wrong + left, len(mine), largest


def asked(file, ids):
    """What llama.cpp says may follow each beginning: log-probabilities by token. In a process of its own, whose messages are dropped."""
    run = subprocess.run([sys.executable, __file__, "--ask", file, json.dumps(ids)], capture_output=True, text=True)
    if run.returncode != 0:
        raise RuntimeError((run.stderr.strip().splitlines() or ["nothing said"])[-1])
    return json.loads(run.stdout.splitlines()[-1])


def ask(file, ids):
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = file
    params.n_ctx, params.n_parallel = 1024, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server, answers = xllamacpp.Server(params), []
    for length in PREFIXES:
        answer = server.handle_completions({"prompt": ids[:length], "n_predict": 1, "temperature": 0, "n_probs": LIKELIEST, "cache_prompt": True})
        answer = json.loads(answer) if isinstance(answer, str) else answer
        found = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        answers.append({str(one["id"]): one["logprob"] for one in found})
    print()
    print(json.dumps(answers), flush=True)
    os._exit(0)


def log_softmax(logits):
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def compare(mine, answers, ids):
    """How far the likeliest tokens are off, how far the one that follows, and how often the likeliest is the same."""
    off, following, likeliest = [], [], 0
    for length, theirs in zip(PREFIXES, answers):
        own = mine[length - 1]
        differences = {int(token): abs(own[int(token)] - said) for token, said in theirs.items()}
        likeliest += int(max(theirs, key=theirs.get)) == int(own.argmax())
        off += differences.values()
        following += [differences[ids[length]]] if ids[length] in differences else []
    return off, following, likeliest


def main():
    lacuna, folder, text, types = Path(sys.argv[1]).resolve(), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:] or TYPES
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text.read_text()[:20000]).ids[: PREFIXES[-1] + 1]
    faults = 0
    with tempfile.TemporaryDirectory() as name:
        above = Path(name)
        save_file({"input_ids": np.array([ids], dtype=np.int64)}, above / "ids.safetensors")
        for kind in types:
            file, again, out = above / "model.gguf", above / "again", above / "logits.safetensors"
            for command in (
                ["export", folder, file, "--type", kind, "--force"],
                ["import", file, again, "--dtype", "f32", "--force"],
                ["logits", again, "--ids", above / "ids.safetensors", "--out", out, "--force"],
            ):
                run = subprocess.run([lacuna, *command], capture_output=True, text=True)
                if run.returncode != 0:
                    break
            if run.returncode != 0:
                faults += 1
                print(f"{kind:5} REFUSED: {run.stderr.strip().splitlines()[-1]}", flush=True)
                continue
            wrong, count, largest = decoded(file, again)
            mine = log_softmax(load_file(out)["logits"][0].astype(np.float64))
            try:
                theirs = {kind: asked(str(file), ids)}
                if kind not in FLOATS:
                    subprocess.run([lacuna, "export", again, file, "--type", "f32", "--force"], check=True, capture_output=True)
                    theirs["f32"] = asked(str(file), ids)
            except RuntimeError as error:
                faults += 1
                print(f"{kind:5} llama.cpp FAILED: {error}", flush=True)
                continue
            said = []
            for name, answers in theirs.items():
                off, following, likeliest = compare(mine, answers, ids)
                bad = name in FLOATS and np.mean(off) > TOLERANCE
                faults += bad
                said.append(
                    f"{'' if name == kind else 'the same numbers as f32: '}off by {np.mean(off):.1e}, at most {max(off):.1e}, of the token that follows {np.mean(following):.1e},"
                    f" the same likeliest {likeliest} of {len(PREFIXES)}{' TOO FAR' if bad else ''}"
                )
            faults += bool(wrong)
            differ = f"{len(wrong)} DIFFER by up to {largest:.1e}, as {wrong[0]}" if wrong else "equal"
            print(f"{kind:5} {count} tensors {differ}; log-probabilities {'; '.join(said)}", flush=True)
    print(f"{faults} faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ask"]:
        ask(sys.argv[2], json.loads(sys.argv[3]))
    main()
