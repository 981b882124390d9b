#!/usr/bin/env python3
"""What the command and the library do, as lines `NAME DIGEST`: a change that is to change nothing is held to them.

    scripts/digests.py LACUNA [--keep DIR] [--quick] > before.txt
    (change, and build again)
    scripts/digests.py LACUNA [--kept DIR] > after.txt
    diff before.txt after.txt

LACUNA is the binary. Digests are of: what `--help` of every subcommand says; exit codes and messages of calls that are refused; the keys of
every JSON report; all files of the folders that every method and pattern of `prune` writes for two families, of every layout of `pack`, of
`import`; logits, perplexities and texts; and, of `cargo run --release --example digests` under every instruction set of this machine, on one
thread and on two, what training, pruning and products give. Times, memory and paths are left out.

--keep DIR leaves there what a later build must be able to read: folders, and runs that were killed when they were half done. --kept DIR goes on
with those runs and reads those folders; the lines are the same as those of whole runs. --quick leaves the instruction sets out.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
from kill_prune import CASES, comparable, content, ids  # noqa: E402

SUBCOMMANDS = ["", "demo", "import", "init", "eval", "logits", "generate", "prune", "train", "run", "pack", "bench", "bench spmm", "bench sweep", "bench check", "inspect"]
METHODS = ["magnitude", "magnitude-l2", "random", "wanda", "ria", "sparsegpt", "d2prune", "obc", "alps", "dsnot", "taylor", "fisher", "woodfisher"]
PATTERNS = ["unstructured", "2:4", "block4x2", "rows", "cols"]
MEASURED = ["--calibration", "ids.safetensors", "--samples", "8", "--context", "32"]
LAYOUTS = ["weights", "sparse-bitmask", "csr", "tile-csr", "tile-pairs", "bitmask", "sell:padded"]
# Methods that are run with further options, allocations and searches.
FURTHER = {
    "global": ["--method", "fisher", "--allocate", "global"],
    "erk": ["--method", "magnitude", "--allocate", "erk"],
    "lamp": ["--method", "random", "--allocate", "lamp"],
    "owl": ["--method", "wanda", "--allocate", "owl"],
    "block": ["--method", "sparsegpt", "--turn", "block"],
    "dense": ["--method", "sparsegpt", "--inputs", "dense"],
    "disk": ["--method", "sparsegpt", "--activations", "0"],
    "actorder": ["--method", "sparsegpt", "--actorder"],
    "bits": ["--method", "sparsegpt", "--bits", "4"],
    "row": ["--method", "sparsegpt", "--scope", "row"],
    "correct": ["--method", "alps", "--correct", "1,1"],
    "reconstruct": ["--method", "wanda", "--reconstruct", "10"],
    "blocks": ["--method", "sparsegpt", "--reconstruct-blocks=1"],
    "only": ["--method", "wanda", "--only", "mlp", "--skip", "down_proj"],
    "saved": ["--method", "wanda", "--save", "bitmask"],
    "text": ["--method", "magnitude", "--text", "ids.safetensors", "--windows", "2"],
    "sensitivity": ["--method", "wanda", "--allocate", "sensitivity", "--levels", "0.4,0.5,0.6", "--search-tokens", "64"],
    "dynamic": ["--method", "wanda", "--allocate", "dynamic", "--levels", "0.4,0.5,0.6"],
    "evolve": ["--method", "wanda", "--allocate", "evolve", "--levels", "0.4,0.5,0.6", "--generations", "2", "--search-tokens", "64"],
}
# Training runs, but for text and context.
TRAINING = {
    "plain": ["--steps", "4", "--batch", "2", "--accumulate", "2"],
    "wsd": ["--epochs", "0.5", "--schedule", "wsd", "--held-out", "2", "--eval-every", "1"],
    "lora": ["--steps", "3", "--lora", "2"],
    "norms": ["--steps", "3", "--only", "kind:norm"],
    "forward": ["--steps", "3", "--teacher", "MODEL", "--temperature", "2", "--hard", "0.5"],
    "reverse": ["--steps", "3", "--teacher", "MODEL", "--divergence", "reverse-kl"],
    "jensen-shannon": ["--steps", "3", "--teacher", "MODEL", "--divergence", "jensen-shannon"],
    "margin": ["--steps", "3", "--teacher", "MODEL", "--margin", "0.2"],
    "cache": ["--steps", "3", "--teacher-cache", "top.safetensors"],
}
# Calls that are refused.
BAD = [
    "",
    "nothing",
    "prune",
    "prune llama out",
    "prune nowhere out --sparsity 0.5",
    "prune llama out --sparsity 1.5",
    "prune llama out --sparsity 0.5 --pattern 2:4",
    "prune llama out --sparsity 0.5 --method wanda",
    "prune llama out --sparsity 0.5 --method wonda",
    "prune llama llama --sparsity 0.5",
    "prune llama out --pattern 5:4",
    "prune llama out --sparsity 0.5 --save nothing",
    "prune llama out --sparsity 0.5 --only nothing",
    "prune llama out --sparsity 0.5 --correct 3 --method sparsegpt --calibration ids.safetensors",
    "prune llama out --sparsity 0.5 --method wanda --calibration ids.safetensors --samples 99999",
    "prune llama/model.safetensors out.safetensors --sparsity 0.5 --method wanda",
    "prune llama/model.safetensors out.safetensors --sparsity 0.5 --skip nothing",
    "eval llama --text nowhere",
    "eval nowhere --text ids.safetensors",
    "eval llama --text ids.safetensors --context 1",
    "generate llama --prompt a",
    "generate gpt2 --prompt a --tokens 99999",
    "logits llama --ids nowhere --out l.safetensors",
    "pack llama out --save bitmask",
    "pack nowhere out --save bitmask",
    "import nowhere out",
    "import gpt2.gguf llama",
    "inspect nowhere",
    "bench spmm",
    "bench spmm --shape 0x4",
    "bench spmm --shape 8x8 --tokens 0 --sparsity 0.5",
    "bench spmm --shape 8x8 --format nothing --sparsity 0.5",
    "bench sweep --shape 8x8 --sparsity 2",
    "demo --seeds 0",
]


def digest(data):
    return hashlib.sha256(data if isinstance(data, bytes) else data.encode()).hexdigest()[:16]


def say(name, data):
    print(name.replace(" ", "_"), digest(data))


def keys(value, path=""):
    """The places of a report, without its numbers."""
    if isinstance(value, dict):
        return {place for key, inner in value.items() for place in keys(inner, f"{path}/{key if not re.search('[0-9]', key) else '*'}")} | {path}
    if isinstance(value, list):
        return {place for inner in value for place in keys(inner, f"{path}/*")} | {path}
    return {path}


class Place:
    """A folder with the models."""

    def __init__(self, lacuna, root):
        self.lacuna, self.root = lacuna, root

    def run(self, args, code=0):
        done = subprocess.run([self.lacuna, *args], cwd=self.root, capture_output=True, text=True)
        if code is not None and done.returncode != code:
            sys.exit(f"{args}: exit code {done.returncode}: {done.stderr.strip()}")
        return done

    def folder(self, name, out):
        """Every file of a folder that was written."""
        files = comparable(content(self.root / out))
        say(name, "".join(f"{file} {digest(data)}\n" for file, data in files.items()))

    def prune(self, name, model, options):
        shutil.rmtree(self.root / "out", ignore_errors=True)
        done = self.run(["prune", model, "out", "--json", *options], None)
        if done.returncode != 0:
            return say(name, f"{done.returncode} {done.stderr}")
        report = json.loads(done.stdout.splitlines()[-1])
        say(name + "/keys", "\n".join(sorted(keys(report))))
        self.folder(name, "out")
        return None


def models(lacuna, root):
    """A Llama of random weights, and a GPT-2 out of the tests."""
    place = Place(lacuna, root)
    make = ["cargo", "run", "--release", "--quiet", "--example", "random_model", "--", str(root / "llama"), "tiny"]
    subprocess.run(make, cwd=ROOT, check=True)
    shutil.copy(ROOT / "tests/checkpoints/gpt2.gguf", root / "gpt2.gguf")
    place.run(["import", "gpt2.gguf", "gpt2"])
    for model in ["llama", "gpt2"]:
        vocab = json.loads((root / model / "config.json").read_text())["vocab_size"]
        if model == "llama":
            ids(root / "ids.safetensors", 1, vocab)
        ids(root / f"{model}.ids.safetensors", 1, min(vocab, 40))
    return place


def options_of(model, options):
    """The options of a case for a model: of fewer positions and tokens for the small one."""
    found = [o.replace("ids.safetensors", f"{model}.ids.safetensors") for o in options]
    if model == "gpt2" and "--context" in found:
        found[found.index("--context") + 1] = "8"
    return found


def words(place):
    for name in SUBCOMMANDS:
        say(f"help/{name}", place.run([*name.split(), "--help"]).stdout)
    for args in BAD:
        done = place.run(args.split(), None)
        say(f"refused/{args}", f"{done.returncode} {done.stderr} {done.stdout}")


def folders(place):
    place.folder("import/gpt2", "gpt2")
    for model in ["llama", "gpt2"]:
        for method in METHODS:
            for pattern in PATTERNS:
                sparsity = [] if ":" in pattern else ["--sparsity", "0.5"]
                options = ["--method", method, "--pattern", pattern, *sparsity, *options_of(model, MEASURED)]
                place.prune(f"prune/{model}/{method}/{pattern}", model, options)
        for name, more in FURTHER.items():
            context = ["--context", "8"] if model == "gpt2" else []
            options = ["--sparsity", "0.5", *options_of(model, more), *options_of(model, MEASURED)]
            place.prune(f"prune/{model}/{name}", model, options if "--context" in options else options + context)
        place.run(["prune", model, f"{model}-half", "--sparsity", "0.5", "--method", "wanda", *options_of(model, MEASURED)])
        place.run(["prune", model, f"{model}-24", "--pattern", "2:4", "--method", "wanda", *options_of(model, MEASURED)])
        for layout in LAYOUTS:
            place.run(["pack", f"{model}-half", "packed", "--save", layout, "--force"])
            place.folder(f"pack/{model}/{layout}", "packed")
            reading(place, f"packed/{model}/{layout}", "packed", model)
        for layout in ["sparse-24-bitmask", "nm:2:4"]:
            # GPT-2 keeps its weights turned, where 2:4 is not along the rows of the file.
            done = place.run(["pack", f"{model}-24", "packed", "--save", layout, "--force"], None)
            if done.returncode != 0:
                say(f"pack/{model}/{layout}", f"{done.returncode} {done.stderr}")
            else:
                place.folder(f"pack/{model}/{layout}", "packed")
        reading(place, f"whole/{model}", model, model)
    for model in ["llama", "gpt2"]:
        text = ["--text", f"{model}.ids.safetensors", "--context", "8" if model == "gpt2" else "32"]
        for entries in ["top", "sample"]:
            place.run(["logits", model, "--out", f"{entries}.safetensors", f"--{entries}", "6", "--force", *text])
            say(f"cache/{model}/{entries}", (place.root / f"{entries}.safetensors").read_bytes())
        for name, options in TRAINING.items():
            shutil.rmtree(place.root / "out", ignore_errors=True)
            options = [model if option == "MODEL" else option for option in options]
            done = place.run(["train", f"{model}-half", "out", "--lr", "0.01", "--json", *text, *options])
            say(f"train/{model}/{name}/keys", "\n".join(sorted(keys(json.loads(done.stdout.splitlines()[-1])))))
            place.folder(f"train/{model}/{name}", "out")
        shutil.rmtree(place.root / "new", ignore_errors=True)
        place.run(["init", model, "new", "--seed", "3"])
        place.folder(f"init/{model}", "new")
    for allocate in ["uniform", "global", "er", "erk", "lamp"]:
        place.run(["prune", "llama/model.safetensors", "file.safetensors", "--sparsity", "0.5", "--allocate", allocate, "--force"])
        say(f"file/{allocate}", (place.root / "file.safetensors").read_bytes())


def reading(place, name, folder, model):
    """Logits, perplexity and what is said of a folder."""
    place.run(["logits", folder, "--ids", f"{model}.short.safetensors", "--out", "logits.safetensors", "--force"])
    say(f"logits/{name}", (place.root / "logits.safetensors").read_bytes())
    for stream in [[], ["--stream"]]:
        context = "8" if model == "gpt2" else "32"
        done = place.run(["eval", folder, "--text", f"{model}.ids.safetensors", "--context", context, "--windows", "3", "--json", *stream])
        report = json.loads(done.stdout.splitlines()[-1])
        say(f"eval/{name}/{len(stream)}", f"{report['perplexity']!r} {sorted(keys(report))}")
    report = json.loads(place.run(["inspect", folder, "--json"]).stdout.splitlines()[-1])
    say(f"inspect/{name}", json.dumps({k: v for k, v in report.items() if k != "folder"}, sort_keys=True))


def short_ids(place):
    """One sequence for logits."""
    import struct

    for model in ["llama", "gpt2"]:
        numbers = [3, 1, 4, 1, 5, 9, 2, 6]
        header = json.dumps({"input_ids": {"dtype": "I64", "shape": [1, 8], "data_offsets": [0, 64]}}).encode()
        (place.root / f"{model}.short.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<8q", *numbers))


HALF_DONE = ["magnitude", "wanda", "sparsegpt", "alps", "taylor", "woodfisher", "sparsegpt, corrected", "sparsegpt by evolve", "wanda, packed"]


def keep(place, kept):
    """Folders, and runs that were killed half done, for a later build."""
    kept.mkdir(parents=True)
    for name in ["llama", "gpt2", "llama-half", "gpt2-half", "llama-24"]:
        shutil.copytree(place.root / name, kept / name)
    for layout in LAYOUTS:
        place.run(["pack", "llama-half", str(kept / f"packed-{layout.replace(':', '-')}"), "--save", layout])
    for name in place.root.glob("*.safetensors"):
        shutil.copy(name, kept)
    for case in HALF_DONE:
        half_done(place.lacuna, kept, case)


def half_done(lacuna, kept, case):
    """A run that was killed when some of its blocks were done."""
    out = "half " + case.replace(", ", "-").replace(" ", "-")
    part = kept / f".{out}.part"
    for _ in range(100):
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(kept / out, ignore_errors=True)
        child = subprocess.Popen([lacuna, "prune", "llama", out, *CASES[case]], cwd=kept, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while child.poll() is None and not (part / ".records.json").exists():
            time.sleep(0.0005)
        child.kill()
        child.wait()
        if (part / ".records.json").exists() and not (kept / out).exists():
            return
    sys.exit(f"{case}: the run ends before it can be killed")


def resumed(lacuna, kept, root):
    """Runs of an earlier build, gone on with, against whole ones of it; and its folders."""
    place = Place(lacuna, root)
    for case in HALF_DONE:
        out = "half " + case.replace(", ", "-").replace(" ", "-")
        done = subprocess.run([lacuna, "prune", "llama", out, "--resume", *CASES[case]], cwd=kept, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{case}: {done.stderr}")
        again = subprocess.run([lacuna, "prune", "llama", "whole", "--force", *CASES[case]], cwd=kept, capture_output=True, text=True)
        if again.returncode != 0:
            sys.exit(f"{case}: {again.stderr}")
        a, b = (comparable(content(kept / folder)) for folder in [out, "whole"])
        say(f"resumed/{case}", "same" if a == b else f"other files: {sorted(n for n in set(a) | set(b) if a.get(n) != b.get(n))}")
        if a != b:
            print(f"resumed/{case}: differs", file=sys.stderr)
    for folder in sorted(kept.iterdir()):
        if (folder / "config.json").exists() and not folder.name.startswith((".", "half", "whole")):
            done = subprocess.run([lacuna, "inspect", folder.name, "--json"], cwd=kept, capture_output=True, text=True)
            say(f"kept/{folder.name}", f"{done.returncode} {done.stdout.splitlines()[-1:]}")
    return place


def library():
    """What the library computes, under every instruction set and on one thread and two."""
    sets = ["portable"]
    flags = Path("/proc/cpuinfo").read_text()
    sets += [name for name, flag in [("avx2", "avx2"), ("avx512", "avx512dq")] if re.search(rf"\b{flag}\b", flags)]
    for isa in sets:
        found = set()
        for threads in ["1", "2"]:
            env = {**os.environ, "LACUNA_ISA": isa, "RAYON_NUM_THREADS": threads}
            run = ["cargo", "run", "--release", "--quiet", "--example", "digests"]
            lines = subprocess.run(run, cwd=ROOT, env=env, check=True, capture_output=True, text=True).stdout
            found.add(lines)
        if len(found) != 1:
            sys.exit(f"{isa}: one thread and two differ")
        for line in found.pop().splitlines():
            print(f"{isa}/{line}")


def main():
    args = sys.argv[1:]
    if not args or args[0].startswith("-"):
        sys.exit(__doc__.split("\n\n")[1].strip())
    lacuna = str(Path(args[0]).resolve())
    option = {name: Path(args[args.index(name) + 1]).resolve() for name in ["--keep", "--kept"] if name in args}
    root = Path(tempfile.mkdtemp(prefix="digests-"))
    try:
        place = models(lacuna, root)
        short_ids(place)
        words(place)
        folders(place)
        if "--keep" in option:
            keep(place, option["--keep"])
        if kept := option.get("--keep") or option.get("--kept"):
            copy = root / "kept"
            shutil.copytree(kept, copy)
            resumed(lacuna, copy, root)
        if "--quick" not in args:
            library()
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
