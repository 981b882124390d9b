#!/usr/bin/env python3
"""Kills `lacuna prune`, `lacuna quantize`, `lacuna shrink` and `lacuna train` at random instants and goes on with `--resume`, for every method and
allocation that resumes, and for training of all kinds.

    scripts/kill_prune.py LACUNA SEED COUNT [MODEL]

LACUNA is the binary, COUNT how many runs are killed. MODEL is a folder with a model of random weights; without it one is made by
`cargo run --release --example random_model -- DIR tiny`. Held after every kill:

- the output is not there, or it is whole: nothing half written has its name;
- no file of another's has changed, neither beside the output nor within its working folder;

and after the run that goes on:

- exit code 0, and every file has the bytes of an unbroken run (of prune.json but for times and memory, of prune.html that it is there);
  where the output was there already, and a file of another's is all that its working folder still holds, that file is named instead;
- nothing of the run is left beside the output.

Prints a line for each fault and exits with 1 if there was one.
"""

import json
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONTEXT = 64
SAMPLES = 48
# Commands by which options begin; those of others are of prune.
NAMED = ("quantize", "shrink", "train")
# Instants are drawn over an unbroken run, and a little beyond it.
BEYOND = 1.05
# So often one trial is killed before it may end.
AGAIN = 4

MEASURED = ["--calibration", "ids.safetensors", "--samples", str(SAMPLES), "--context", str(CONTEXT)]
SOURCES = ["--calibration", "ids.safetensors:0.5,more.safetensors:0.5", "--samples", str(SAMPLES), "--context", str(CONTEXT)]
HALF = ["--sparsity", "0.5"]
CASES = {
    "magnitude": ["--method", "magnitude", *HALF],
    "magnitude of squares by blocks": ["--method", "magnitude-l2", "--pattern", "block4x4", *HALF],
    "random by lamp": ["--method", "random", "--allocate", "lamp", *HALF],
    "wanda": ["--method", "wanda", *HALF, *MEASURED],
    "ria": ["--method", "ria", *HALF, *MEASURED],
    "sparsegpt": ["--method", "sparsegpt", *HALF, *MEASURED],
    "sparsegpt by blocks": ["--method", "sparsegpt", "--turn", "block", *HALF, *MEASURED],
    "sparsegpt, dense inputs": ["--method", "sparsegpt", "--inputs", "dense", *HALF, *MEASURED],
    "sparsegpt, on the disk": ["--method", "sparsegpt", "--activations", "0", *HALF, *MEASURED],
    "d2prune": ["--method", "d2prune", *HALF, *MEASURED],
    "obc": ["--method", "obc", *HALF, *MEASURED],
    "alps": ["--method", "alps", *HALF, *MEASURED],
    "dsnot": ["--method", "dsnot", *HALF, *MEASURED],
    "taylor": ["--method", "taylor", *HALF, *MEASURED],
    "fisher by global": ["--method", "fisher", "--allocate", "global", *HALF, *MEASURED],
    "woodfisher": ["--method", "woodfisher", "--block-size", "32", *HALF, *MEASURED],
    "wanda, least squares": ["--method", "wanda", "--reconstruct", "20", *HALF, *MEASURED],
    "sparsegpt, corrected": ["--method", "sparsegpt", "--correct", "1,1", *HALF, *MEASURED],
    "sparsegpt, blocks reconstructed": ["--method", "sparsegpt", "--reconstruct-blocks=2", *HALF, *MEASURED],
    "sparsegpt, shrunk, sources of their own": [
        "--method", "sparsegpt", "--shrinkage", "0.1,0.5", "--robust=2", *HALF, *SOURCES,
    ],
    "alps, chosen on sources left out": [
        "--method", "alps", "--correct", "1,1", "--choose", "damping,shrinkage,correct", "--hold-out", "more.safetensors", *HALF, *SOURCES,
    ],
    "sparsegpt by owl": ["--method", "sparsegpt", "--allocate", "owl", *HALF, *MEASURED],
    "sparsegpt by sensitivity": ["--method", "sparsegpt", "--allocate", "sensitivity", "--levels", "0.4,0.5,0.6", *HALF, *MEASURED],
    "wanda by dynamic": ["--method", "wanda", "--allocate", "dynamic", "--levels", "0.4,0.5,0.6", *HALF, *MEASURED],
    "sparsegpt by evolve": ["--method", "sparsegpt", "--allocate", "evolve", "--generations", "2", "--levels", "0.4,0.5,0.6", *HALF, *MEASURED],
    "wanda, packed": ["--method", "wanda", "--save", "sparse-bitmask", *HALF, *MEASURED],
    "wanda, over an older folder": ["--method", "wanda", "--force", *HALF, *MEASURED],
    "wanda, packed over an older folder": ["--method", "wanda", "--force", "--save", "sparse-bitmask", *HALF, *MEASURED],
    "magnitude, packed": ["--method", "magnitude", "--save", "sparse-bitmask", *HALF],
    "sparsegpt 2:4, packed": ["--method", "sparsegpt", "--pattern", "2:4", "--save", "sparse-24-bitmask", *MEASURED],
    "sparsegpt, in storages": ["--method", "sparsegpt", "--save", "bitmask", "--text", "ids.safetensors", "--windows", "2", *HALF, *MEASURED],
}
STEPS = ["train", "--text", "ids.safetensors", "--steps", "12", "--context", str(CONTEXT), "--batch", "2", "--save-every", "2", "--lr", "1e-3"]
CASES |= {
    "train": STEPS,
    "train, measured, the best kept": [*STEPS, "--held-out", "4", "--eval-every", "3"],
    "train, passes added up, averaged": [*STEPS, "--accumulate", "2", "--average", "0.9", "--held-out", "4"],
    "train, with a teacher and its hidden states": [*STEPS, "--teacher", "lm", "--temperature", "2", "--hidden-states", "0:1"],
    "train, on levels": [*STEPS, "--quantize", "4", "--quantize-group", "row"],
    "train, on levels straight through, the best kept": [
        *STEPS, "--quantize", "3", "--quantize-group", "row", "--quantize-rule", "straight-through", "--held-out", "4", "--eval-every", "3",
    ],
    "train, low rank": [*STEPS, "--lora", "4", "--seed", "3"],
    "train, norms alone, over an older folder": [*STEPS, "--only", "kind:norm", "--force"],
}
CODES = ["quantize", "--group", "row"]
CASES |= {
    "quantize, rtn": [*CODES, "--method", "rtn", "--bits", "3"],
    "quantize, gptq": [*CODES, *MEASURED],
    "quantize, gptq with pruning, over an older folder": [*CODES, "--sparsity", "0.5", "--force", *MEASURED],
    "quantize, gptq, smoothed": [*CODES, "--smooth", "0.5", "--bits", "8", "--layout", "int-quantized", *MEASURED],
    "quantize, awq": [*CODES, "--method", "awq", *MEASURED],
    "quantize, corrected, measured": [*CODES, "--correct", "1,1", "--text", "ids.safetensors", "--windows", "2", *MEASURED],
}
CASES |= {
    "quantize, obr with pruning": [*CODES, "--method", "obr", "--sparsity", "0.5", *MEASURED],
    "quantize, trained on levels": [*CODES, "--reconstruct-blocks=2", "--bits", "3", *MEASURED],
    "shrink": ["shrink", "--intermediate", "96", "--heads", "2", *MEASURED],
    "shrink, trained, over an older folder": ["shrink", "--intermediate", "96", "--reconstruct-blocks=2", "--force", *MEASURED],
    "shrink, rotated, by minitron": ["shrink", "--hidden", "48", "--hidden-by", "pca", "--intermediate", "96", "--method", "minitron", *MEASURED],
    "shrink, layers, corrected, measured": [
        "shrink", "--layers", "4", "--intermediate", "96", "--correct", "1,1", "--text", "ids.safetensors", "--windows", "2", *MEASURED,
    ],
}
# What a run keeps for itself in the folder, and removes at its end.
OWN = {".state.safetensors", ".lacuna.json", ".settings.json", ".written.json", ".records.json"}


def content(folder):
    """Every file below a folder with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def comparable(files):
    """Files without what no two runs share: times, paths, and the page that is made of them."""
    files = dict(files)
    if "prune.html" in files:
        files["prune.html"] = b""
    if "train.html" in files:
        files["train.html"] = b""
    if "train.json" in files:
        report = json.loads(files["train.json"])
        for key in ["seconds", "tokens_per_second", "peak_bytes", "out", "resumed_at"]:
            report.pop(key, None)
        report.get("job", {}).pop("out", None)
        files["train.json"] = json.dumps(report, sort_keys=True)
    for page in {"quantize.html", "shrink.html"} & set(files):
        files[page] = b""
    for record in {"prune.json", "quantize.json", "shrink.json"} & set(files):
        report = json.loads(files[record])
        for key in ["seconds", "peak_bytes", "out"]:
            report.pop(key, None)
        report.get("job", {}).pop("out", None)
        for layer in report["units" if record == "shrink.json" else "layers"]:
            layer.pop("seconds")
        files[record] = json.dumps(report, sort_keys=True)
    return files


def difference(found, wanted):
    """The first file in which two folders differ, or None."""
    for name in sorted(set(found) | set(wanted)):
        if found.get(name) != wanted.get(name):
            kind = "is missing" if name not in found else "is new" if name not in wanted else "has other bytes"
            if kind == "has other bytes" and name in ("prune.json", "quantize.json", "shrink.json", "train.json"):
                kind += ": " + place(json.loads(wanted[name]), json.loads(found[name]))
            return f"{name} {kind}"
    return None


def place(wanted, found, path=""):
    """Where two records differ first."""
    if type(wanted) is type(found) and isinstance(wanted, (dict, list)) and len(wanted) == len(found):
        keys = sorted(wanted) if isinstance(wanted, dict) else range(len(wanted))
        for key in keys:
            if isinstance(found, dict) and key not in found:
                return f"{path}/{key} is missing"
            if wanted[key] != found[key]:
                return place(wanted[key], found[key], f"{path}/{key}")
    return f"{path} is {found!r:.80}, not {wanted!r:.80}"


class Trial:
    """One output, and what lies around it."""

    def __init__(self, lacuna, work, options, chance):
        self.lacuna, self.work, self.options, self.chance = lacuna, work, options, chance
        self.out, self.part = work / "out", work / ".out.part"
        self.foreign = {
            "out.txt": b"mine",
            ".out.part.txt": b"mine",
            ".outer.part/model.safetensors": b"mine",
            ".lacuna-notes.part/notes": b"mine",
            ".lacuna.json": b"mine",
        }
        for name, data in self.foreign.items():
            path = work / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        self.inside = None
        self.older = {"config.json": b"{}", "model.safetensors": b"older"} if "--force" in options else None
        if self.older:
            self.out.mkdir()
            for name, data in self.older.items():
                (self.out / name).write_bytes(data)

    def there(self):
        """Whether there is an output, other than the folder that it is to replace."""
        return self.out.exists() and (not self.older or self.found() != self.older)

    def found(self):
        """The folder at the output's place; between two renames it has a mark."""
        return {name: data for name, data in content(self.out).items() if name != ".lacuna-replaced"}

    def command(self, resume):
        name, options = (self.options[0], self.options[1:]) if self.options[0] in NAMED else ("prune", self.options)
        return [self.lacuna, name, "lm", "out", "--json", *options, *(["--resume"] if resume else [])]

    def counted(self, report):
        """What a record counts."""
        if self.options[0] == "shrink":
            return report["after"]["parameters"]
        return report[{"train": "steps", "quantize": "weights"}.get(self.options[0], "kept")]

    def run(self, resume):
        """Runs to the end: exit code and both outputs."""
        done = subprocess.run(self.command(resume), cwd=self.work, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    def killed(self, resume, after):
        """Whether a run was killed before it ended; else its exit code and errors must be those of a good one."""
        child = subprocess.Popen(self.command(resume), cwd=self.work, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        time.sleep(after)
        child.kill()
        _, errors = child.communicate()
        killed = child.returncode == -signal.SIGKILL
        if not killed and child.returncode != 0:
            raise Fault(f"exit code {child.returncode}: {errors.strip()}")
        return killed

    def check_foreign(self):
        for name, data in self.foreign.items():
            path = self.work / name
            if not path.is_file() or path.read_bytes() != data:
                raise Fault(f"{name}, which is another's, has gone or changed")

    def put_inside(self):
        """A file of another's within the working folder of a run that has begun."""
        if self.inside is None and (self.part / ".settings.json").exists() and self.chance.random() < 0.5:
            self.inside = self.chance.choice(["notes.txt", ".notes"])
            (self.part / self.inside).write_bytes(b"mine")

    def check_whole(self, wanted, ended):
        """The output, if there is one, is whole."""
        if not self.there():
            aside = self.work / ".out.old"
            if self.older and not self.out.exists() and not aside.exists():
                raise Fault("neither the older folder is there nor the new one")
            return False
        found = self.found()
        if not ended:
            # Killed between its last two steps, a run leaves what was for itself.
            found = {name: data for name, data in found.items() if name not in OWN}
        if self.inside and found.pop(self.inside, b"mine" if self.packed() else None) != b"mine":
            raise Fault(f"{self.inside}, which is another's, has gone or changed")
        apart = difference(comparable(found), wanted)
        if apart:
            raise Fault(f"the output is there, and {apart}")
        return True

    def packed(self):
        """Whether the output is not the working folder under another name: another's file then stays there."""
        return "--save" in self.options

    def is_in_the_way(self):
        """Whether a file of another's, and nothing of a run, is where the next run would work."""
        return self.inside is not None and self.part.is_dir() and set(content(self.part)) == {self.inside}

    def check_beside(self):
        own = {"lm", "ids.safetensors", "more.safetensors", "out"} | {Path(name).parts[0] for name in self.foreign}
        rest = {p.name for p in self.work.iterdir()} - own
        if self.inside and self.packed() and rest == {".out.part"}:
            rest = {f".out.part/{name}" for name in content(self.part)} - {f".out.part/{self.inside}"}
        if rest:
            raise Fault(f"left beside the output: {', '.join(sorted(rest))}")


class Fault(Exception):
    pass


def ids(path, seed, vocab):
    """Token numbers by chance, a tensor input_ids."""
    chance = random.Random(seed)
    count = CONTEXT * SAMPLES
    header = json.dumps({"input_ids": {"dtype": "I64", "shape": [count], "data_offsets": [0, 8 * count]}}).encode()
    numbers = struct.pack(f"<{count}q", *(chance.randrange(vocab) for _ in range(count)))
    path.write_bytes(struct.pack("<Q", len(header)) + header + numbers)


def main():
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__.split("\n\n")[1].strip())
    lacuna, seed, count = str(Path(sys.argv[1]).resolve()), int(sys.argv[2]), int(sys.argv[3])
    root = Path(tempfile.mkdtemp(prefix="kill-prune-"))
    try:
        if len(sys.argv) == 5:
            model = Path(sys.argv[4]).resolve()
        else:
            model = root / "model"
            make = ["cargo", "run", "--release", "--quiet", "--example", "random_model", "--", str(model), "tiny"]
            subprocess.run(make, cwd=Path(__file__).resolve().parent.parent, check=True)
        vocab = json.loads((model / "config.json").read_text())["vocab_size"]
        sys.exit(trials(lacuna, seed, count, root, model, vocab))
    finally:
        shutil.rmtree(root, ignore_errors=True)


def room(root, name, model, seed, vocab):
    """A folder for trials."""
    work = root / name
    work.mkdir()
    (work / "lm").symlink_to(model)
    ids(work / "ids.safetensors", seed, vocab)
    ids(work / "more.safetensors", seed + 1, vocab)
    return work


def trials(lacuna, seed, count, root, model, vocab):
    chance = random.Random(seed)
    order = []
    for _ in range(count // len(CASES) + 1):
        order += chance.sample(list(CASES), len(CASES))
    before = content(model)
    unbroken, faults, kills, early, resumed, number = {}, 0, 0, 0, 0, 0
    while kills < count:
        case = order[number % len(order)]
        number += 1
        if number > 20 * count:
            print("the runs end before they can be killed: give a larger model")
            return 1
        if case not in unbroken:
            trial = Trial(lacuna, room(root, "unbroken", model, seed, vocab), CASES[case], chance)
            begun = time.monotonic()
            code, _, errors = trial.run(False)
            if code != 0:
                print(f"{case}: exit code {code} of the unbroken run: {errors.strip()}")
                return 1
            unbroken[case] = (comparable(content(trial.out)), time.monotonic() - begun)
            shutil.rmtree(trial.work)
        wanted, seconds = unbroken[case]
        trial = Trial(lacuna, room(root, "trial", model, seed, vocab), CASES[case], chance)
        story = []
        try:
            for again in range(AGAIN):
                after = chance.uniform(0.0, BEYOND * seconds)
                resume = again > 0
                hit = trial.killed(resume, after)
                story.append(f"{'killed' if hit else 'over'} after {after:.3f} of {seconds:.3f} s")
                kills += hit
                there = trial.there()
                if not hit and not there:
                    raise Fault("a run that ended by itself has left no output")
                early += hit and not there
                resumed += hit and resume
                trial.check_foreign()
                trial.check_whole(wanted, False)
                if there or kills >= count or chance.random() < 0.4:
                    break
                trial.put_inside()
            code, said, errors = trial.run(True)
            if code != 0 and trial.there() and trial.is_in_the_way():
                if trial.inside not in errors:
                    raise Fault(f"{trial.inside} is in the way and is not named: {errors.strip()}")
                (trial.part / trial.inside).unlink()
                code, said, errors = trial.run(True)
            if code != 0:
                raise Fault(f"exit code {code} of the run that goes on: {errors.strip()}")
            lines = [line for line in errors.splitlines() if not line.startswith("note: there is no unfinished run")]
            if lines or trial.counted(json.loads(said.splitlines()[-1])) <= 0:
                raise Fault(f"it said {lines or said}")
            trial.check_foreign()
            if not trial.check_whole(wanted, True):
                raise Fault("there is no output")
            trial.check_beside()
        except Fault as fault:
            faults += 1
            print(f"{case} ({'; '.join(story)}): {fault}")
        shutil.rmtree(trial.work)
    if content(model) != before:
        faults += 1
        print("the model that was pruned has changed")
    print(f"{kills} kills in {number} runs of {len(unbroken)} kinds: {early} before the output was there, {resumed} of runs that went on; {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    main()
