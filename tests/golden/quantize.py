#!/usr/bin/env python3
"""Writes quantize.safetensors: one layer with its inputs, and the codes that a plain transcription of GPTQ's loop makes of it.

In float64, with the published order of steps: blocks of 128 columns, steps of a group from the weights as they are when its block begins.
Needs numpy alone; the file is written by hand.
"""
import json
from pathlib import Path

import numpy as np

OUT, IN, TOKENS, BLOCK, DAMPING = 32, 192, 220, 128, 0.01


def layer():
    rng = np.random.default_rng(24)
    mix = rng.normal(size=(IN, IN)) * (rng.random((IN, IN)) < 0.05) + np.eye(IN)
    x = rng.standard_t(5, size=(TOKENS, IN)) @ mix * np.exp(rng.normal(size=IN) * 0.7)
    w = rng.standard_t(4, size=(OUT, IN)) * 0.1
    return w.astype(np.float32), x.astype(np.float32)


def find(w, bits, symmetric):
    w = w.astype(np.float32)
    low, high = np.minimum(w.min(1), 0), np.maximum(w.max(1), 0)
    if symmetric:
        high = np.maximum(-low, high)
        low = -high
    scale = (high - low) / np.float32(2**bits - 1)
    zero = np.full_like(scale, 2 ** (bits - 1)) if symmetric else np.round(-low / scale)
    return scale.astype(np.float64), zero.astype(np.float64)


def gptq(w, h, bits, symmetric, group=None, order=None, static=False):
    w, group = w.astype(np.float64), group or IN
    given = [find(w[:, g : g + group], bits, symmetric) for g in range(0, IN, group)]
    order = np.arange(IN) if order is None else order
    w, h = w[:, order].copy(), h[order][:, order].copy()
    h += DAMPING * np.mean(np.diag(h)) * np.eye(IN)
    u = np.linalg.cholesky(np.linalg.inv(h)).T
    codes = np.zeros_like(w)
    for start in range(0, IN, BLOCK):
        stop = min(start + BLOCK, IN)
        block, error = w[:, start:stop].copy(), np.zeros((OUT, stop - start))
        for i in range(stop - start):
            c = start + i
            if static:
                scale, zero = given[order[c] // group]
            elif c % group == 0:
                scale, zero = find(w[:, c : c + group], bits, symmetric)
            code = np.clip(np.round(block[:, i] / scale) + zero, 0, 2**bits - 1)
            codes[:, c] = code
            error[:, i] = (block[:, i] - scale * (code - zero)) / u[c, c]
            block[:, i:] -= np.outer(error[:, i], u[c, c:stop])
        w[:, stop:] -= error @ u[start:stop, stop:]
    back = np.argsort(order)
    return codes[:, back].astype(np.float32)


def write(path, tensors):
    header, data, at = {}, b"", 0
    for name, array in tensors.items():
        raw = np.ascontiguousarray(array, dtype="<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [at, at + len(raw)]}
        data, at = data + raw, at + len(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def main():
    w, x = layer()
    h = x.astype(np.float64).T @ x.astype(np.float64)
    diagonal = np.diag(h)
    activation = np.argsort(-diagonal, kind="stable")
    groups = [np.arange(g, g + 32)[np.argsort(-diagonal[g : g + 32], kind="stable")] for g in range(0, IN, 32)]
    aware = np.concatenate([groups[g] for g in np.argsort([-diagonal[g[0]] for g in groups], kind="stable")])
    write(Path(__file__).with_name("quantize.safetensors"), {
        "weight": w, "inputs": x,
        "row4": gptq(w, h, 4, False),
        "group3": gptq(w, h, 3, False, 32),
        "sym4": gptq(w, h, 4, True, 32),
        "static2": gptq(w, h, 2, False, 32, static=True),
        "act4": gptq(w, h, 4, True, 32, activation, static=True),
        "aware3": gptq(w, h, 3, True, 32, aware),
    })


main()
