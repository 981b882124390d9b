#!/usr/bin/env python3
"""Training by `lacuna train` beside the same loop in PyTorch: losses step by step, seconds a step, memory.

    python3 -m venv venv && venv/bin/pip install torch==2.7.1 safetensors tokenizers numpy
    venv/bin/python scripts/train_torch.py target/release/lacuna MODEL TEXT --steps 50 --context 1024 [--teacher DIR] [--cache FILE]

MODEL is a folder of the family Llama, TEXT a text or a safetensors file with `input_ids`. Both begin at the same weights, see the same
sequences in the same order (lacuna says which, line by line), and have the same optimiser: AdamW without decay on norms and embeddings,
warm-up and cosine, gradients clipped to norm 1. PyTorch's attention is its fused one, its optimiser the `foreach` one, everything in f32.
With --turns the two take turns of --steps steps each, so that another load of the machine meets both; medians are printed.
"""
import argparse, json, math, os, resource, statistics, subprocess, sys, tempfile, time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("lacuna")
parser.add_argument("model", type=Path)
parser.add_argument("text", type=Path)
parser.add_argument("--steps", type=int, default=50)
parser.add_argument("--context", type=int, default=1024)
parser.add_argument("--batch", type=int, default=1)
parser.add_argument("--lr", type=float, default=1e-4)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--threads", type=int, default=os.cpu_count())
parser.add_argument("--teacher", type=Path)
parser.add_argument("--cache", type=Path, help="a file of `lacuna logits --top`, for lacuna alone: PyTorch's column is then plain training")
parser.add_argument("--turns", type=int, default=1)
args = parser.parse_args()

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

torch.set_num_threads(args.threads)


class Llama(torch.nn.Module):
    def __init__(self, folder):
        super().__init__()
        self.config = c = json.loads((folder / "config.json").read_text())
        assert c["model_type"] == "llama", c["model_type"]
        weights = {}
        for file in sorted(folder.glob("model*.safetensors")):
            weights.update(load_file(file))
        self.w = torch.nn.ParameterDict({k.replace(".", "/"): torch.nn.Parameter(v.float()) for k, v in weights.items()})
        self.heads, self.kv = c["num_attention_heads"], c.get("num_key_value_heads", c["num_attention_heads"])
        self.dim = c.get("head_dim") or c["hidden_size"] // self.heads
        self.eps, self.tied = c["rms_norm_eps"], "lm_head/weight" not in self.w
        self.inverse = 1.0 / (c.get("rope_theta", 10000.0) ** (torch.arange(0, self.dim, 2).float() / self.dim))

    def p(self, name):
        return self.w[name.replace(".", "/")]

    def forward(self, ids):
        b, n = ids.shape
        h = F.embedding(ids, self.p("model.embed_tokens.weight"))
        turns = torch.outer(torch.arange(n).float(), self.inverse)
        turns = torch.cat([turns, turns], -1)
        cos, sin = turns.cos(), turns.sin()
        half = self.dim // 2
        rotate = lambda x: x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin
        norm = lambda x, name: F.rms_norm(x, (x.shape[-1],), self.p(name), self.eps)
        for i in range(self.config["num_hidden_layers"]):
            at = f"model.layers.{i}."
            x = norm(h, at + "input_layernorm.weight")
            q, k, v = (
                F.linear(x, self.p(f"{at}self_attn.{part}_proj.weight")).view(b, n, heads, self.dim).transpose(1, 2)
                for part, heads in (("q", self.heads), ("k", self.kv), ("v", self.kv))
            )
            q, k = rotate(q), rotate(k)
            k, v = (t.repeat_interleave(self.heads // self.kv, 1) for t in (k, v))
            x = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, n, -1)
            h = h + F.linear(x, self.p(at + "self_attn.o_proj.weight"))
            x = norm(h, at + "post_attention_layernorm.weight")
            x = F.silu(F.linear(x, self.p(at + "mlp.gate_proj.weight"))) * F.linear(x, self.p(at + "mlp.up_proj.weight"))
            h = h + F.linear(x, self.p(at + "mlp.down_proj.weight"))
        h = norm(h, "model.norm.weight")
        return F.linear(h, self.p("model.embed_tokens.weight" if self.tied else "lm_head.weight"))


def tokens():
    if args.text.suffix == ".safetensors":
        return load_file(args.text)["input_ids"].reshape(-1).long()
    from tokenizers import Tokenizer

    text = args.text.read_text()
    return torch.tensor(Tokenizer.from_file(str(args.model / "tokenizer.json")).encode(text).ids)


def lacuna(steps):
    """The lines of a run and the seconds of its steps."""
    with tempfile.TemporaryDirectory(dir=args.model.resolve().parent) as scratch:
        command = [args.lacuna, "train", args.model, f"{scratch}/out", "--text", args.text, "--steps", steps, "--context", args.context]
        command += ["--batch", args.batch, "--lr", args.lr, "--seed", args.seed, "--json", "--save-every", 10**9]
        command += ["--teacher", args.teacher] if args.teacher else []
        command += ["--teacher-cache", args.cache] if args.cache else []
        environment = dict(os.environ, RAYON_NUM_THREADS=str(args.threads))
        lines, times = [], []
        with subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, text=True, env=environment) as run:
            for line in run.stdout:
                times.append(time.perf_counter())
                lines.append(json.loads(line))
        assert run.returncode == 0, run.returncode
    end = lines.pop()
    return lines, [b - a for a, b in zip(times, times[1:-1])], end["peak_bytes"]


def torches(lines):
    """Losses and seconds of the same steps."""
    ids = tokens()
    ids = ids[: len(ids) // args.context * args.context].view(-1, args.context)
    model = Llama(args.model)
    teacher = Llama(args.teacher).requires_grad_(False) if args.teacher else None
    flat = [p for p in model.parameters() if p.ndim < 2]
    embeddings = [model.p("model.embed_tokens.weight")]
    rest = [p for p in model.parameters() if p.ndim == 2 and all(p is not e for e in embeddings)]
    groups = [{"params": flat + embeddings, "weight_decay": 0.0}, {"params": rest, "weight_decay": 0.01}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.999), eps=1e-8)
    losses, times = [], []
    for line in lines:
        begun = time.perf_counter()
        batch = ids[line["sequences"]]
        logits = model(batch)[:, :-1].reshape(-1, model.config["vocab_size"])
        if teacher is None:
            loss = F.cross_entropy(logits, batch[:, 1:].reshape(-1))
        else:
            with torch.no_grad():
                target = F.log_softmax(teacher(batch)[:, :-1].reshape(-1, model.config["vocab_size"]), -1)
            loss = F.kl_div(F.log_softmax(logits, -1), target, reduction="batchmean", log_target=True)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = line["learning_rate"]
        optimizer.step()
        losses.append(loss.item())
        times.append(time.perf_counter() - begun)
    return losses, times[1:]


ours, theirs, apart, memory = [], [], 0.0, 0
for turn in range(args.turns):
    lines, seconds, bytes = lacuna(args.steps)
    losses, times = torches(lines)
    ours, theirs, memory = ours + seconds, theirs + times, max(memory, bytes or 0)
    if not args.cache:
        differences = [abs(line["loss"] - loss) for line, loss in zip(lines, losses)]
        apart = max(apart, max(differences))
        print(f"turn {turn}: loss {lines[0]['loss']:.6f} / {losses[0]:.6f} to {lines[-1]['loss']:.6f} / {losses[-1]:.6f}, largest difference {max(differences):.2e} at step {differences.index(max(differences)) + 1}", flush=True)
result = {
    "steps": args.steps, "context": args.context, "batch": args.batch, "threads": args.threads, "teacher": bool(args.teacher), "cache": bool(args.cache),
    "largest_difference": None if args.cache else apart, "lacuna_seconds": statistics.median(ours), "torch_seconds": statistics.median(theirs),
    "ratio": statistics.median(ours) / statistics.median(theirs), "lacuna_gb": memory / 1e9,
    "torch_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
}
print(json.dumps(result))
