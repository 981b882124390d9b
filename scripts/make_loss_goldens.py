#!/usr/bin/env python3
"""Writes tests/language/goldens/losses.json: losses of distillation and their gradients as PyTorch 2.7 has them, in f64.

Run where torch is installed. Every number is out of torch's own functions and autograd; only the inputs are drawn here.
"""

import json
import pathlib

import torch
import torch.nn.functional as F

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)


def rounded(x):
    # Numbers that f32 holds exactly.
    return x.float().double()


def forward_kl(z, v, t):
    return F.kl_div(F.log_softmax(z / t, -1), F.log_softmax(v / t, -1), reduction="sum", log_target=True)


def reverse_kl(z, v, t):
    return F.kl_div(F.log_softmax(v / t, -1), F.log_softmax(z / t, -1), reduction="sum", log_target=True)


def jensen_shannon(z, v, t):
    log_q, log_p = F.log_softmax(z / t, -1), F.log_softmax(v / t, -1)
    log_m = torch.logsumexp(torch.stack([log_q, log_p]), 0) - torch.log(torch.tensor(2.0))
    one = F.kl_div(log_m, log_p, reduction="sum", log_target=True)
    other = F.kl_div(log_m, log_q, reduction="sum", log_target=True)
    return 0.5 * one + 0.5 * other


def margin(z, v, t, y, m):
    p = F.softmax(v / t, -1)
    if int(p.argmax()) != y:
        c = (p.max() - p[y] + m) / (1 + p.max() - p[y])
        p = (1 - c) * p + c * F.one_hot(torch.tensor(y), p.numel())
    return F.kl_div(F.log_softmax(z / t, -1), p, reduction="sum")


WAYS = {"forward-kl": forward_kl, "reverse-kl": reverse_kl, "jensen-shannon": jensen_shannon}

rows = []
for n, (name, temperature, hard, m) in enumerate(
    [(name, t, h, None) for name in WAYS for t, h in [(1.0, 0.0), (2.0, 0.25), (0.5, 1.0)]]
    + [("forward-kl", 1.0, 0.0, 0.25), ("forward-kl", 2.0, 0.5, 0.25)]
):
    width, y = 11, n % 11
    z, v = rounded(2 * torch.randn(width)).requires_grad_(), rounded(3 * torch.randn(width))
    soft = WAYS[name](z, v, temperature) if m is None else margin(z, v, temperature, y, m)
    loss = (1 - hard) * temperature**2 * soft + hard * F.cross_entropy(z[None], torch.tensor([y]))
    loss.backward()
    rows.append(
        {"divergence": name, "temperature": temperature, "hard": hard, "margin": m, "y": y, "z": z.tolist(), "v": v.tolist(),
         "loss": loss.item(), "slope": z.grad.tolist()}
    )

hidden = []
for name in ["mse", "cosine"]:
    y, t = rounded(torch.randn(5, 7)).requires_grad_(), rounded(2 * torch.randn(5, 7))
    loss = F.mse_loss(y, t) if name == "mse" else (1 - F.cosine_similarity(y, t, dim=-1)).mean()
    loss.backward()
    hidden.append({"loss": name, "y": y.tolist(), "target": t.tolist(), "value": loss.item(), "slope": y.grad.tolist()})

out = pathlib.Path(__file__).parent.parent / "tests/language/goldens/losses.json"
out.parent.mkdir(exist_ok=True)
out.write_text(json.dumps({"torch": torch.__version__.split("+")[0], "rows": rows, "hidden": hidden}) + "\n")
