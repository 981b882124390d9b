#!/usr/bin/env python3
"""Writes solve.safetensors: one layer with its inputs, and what plain versions of published methods make of it.

Every method is written out here in float64, a loop a line of its paper, with the published order of steps; nothing is blocked or
lazy unless the result depends on it. Needs numpy and safetensors.
"""
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

OUT, IN, TOKENS, BLOCK, DAMPING = 16, 72, 150, 32, 0.01


def layer():
    rng = np.random.default_rng(5)
    mix = rng.normal(size=(IN, IN)) * (rng.random((IN, IN)) < 0.1) + np.eye(IN)
    x = rng.standard_t(5, size=(TOKENS, IN)) @ mix * np.exp(rng.normal(size=IN) * 0.7)
    x[:, 40] *= 12  # an input with outliers
    x[:, 11] = 0  # a dead one
    w = rng.standard_t(4, size=(OUT, IN)) * 0.1
    return w.astype(np.float32), x.astype(np.float32)


def factor(gram, damping=DAMPING):
    h = gram.copy()
    dead = np.diag(h) == 0
    h[dead, dead] = 1
    h += damping * np.mean(np.where(dead, 0, np.diag(h))) * np.eye(IN)
    lower = np.linalg.cholesky(np.linalg.inv(h))  # inverse = lower lowerT
    # The upper factor with inverse = UT U is the transpose of it.
    return lower.T, dead


def quantizer(w, bits):
    low, high = np.minimum(w.min(1), 0), np.maximum(w.max(1), 0)
    step = (high - low) / (2**bits - 1)
    zero = np.round(-low / step)
    return lambda q, r: step[r] * (np.clip(np.round(q / step[r]) + zero[r], 0, 2**bits - 1) - zero[r])


def sparsegpt(w, gram, sparsity=0.5, nm=None, bits=None, order=None):
    w = w.astype(np.float64)
    grid = quantizer(w.astype(np.float32).astype(np.float64), bits) if bits else None
    order = np.arange(IN) if order is None else order
    w, gram = w[:, order].copy(), gram[order][:, order]
    u, dead = factor(gram)
    w[:, dead] = 0
    mask = np.zeros(w.shape, bool)  # true = dropped
    for start in range(0, IN, BLOCK):
        stop = min(start + BLOCK, IN)
        if nm is None:
            score = (w[:, start:stop] / np.diag(u)[start:stop]) ** 2
            drop = np.argsort(score, axis=None, kind="stable")[: round(score.size * sparsity)]
            block = np.zeros(score.size, bool)
            block[drop] = True
            mask[:, start:stop] = block.reshape(score.shape)
        for i in range(start, stop):
            if nm and i % nm[1] == 0:
                score = (w[:, i : i + nm[1]] / np.diag(u)[i : i + nm[1]]) ** 2
                drop = np.argsort(score, axis=1, kind="stable")[:, : nm[1] - nm[0]]
                np.put_along_axis(mask[:, i : i + nm[1]], drop, True, 1)
            q = np.where(mask[:, i], 0, w[:, i])
            if grid:
                q = np.array([grid(v, r) for r, v in enumerate(q)])
            error = (w[:, i] - q) / u[i, i]
            w[:, i:] -= np.outer(error, u[i, i:])
            w[:, i] = q
    back = np.argsort(order)
    return w[:, back], ~mask[:, back]


def obc(w, gram, sparsity=None, nm=None):
    """Greedy removal, one row at a time; over the layer by the losses of all rows' steps, in order."""
    h = gram.copy()
    dead = np.diag(h) == 0
    h[dead, dead] = 1
    w = np.where(dead, 0, w.astype(np.float64))
    h += DAMPING * np.mean(np.where(dead, 0, np.diag(gram))) * np.eye(IN)
    traces, losses = [], []
    for row in w:
        row, gone, inverse = row.copy(), np.zeros(IN, bool), np.linalg.inv(h)
        trace, steps = [row.copy()], []
        limit = IN if nm is None else IN // nm[1] * (nm[1] - nm[0])
        while gone.sum() < limit:
            score = row**2 / np.where(gone, 1, np.diag(inverse))
            score[gone] = np.inf
            if nm:
                full = gone.reshape(-1, nm[1]).sum(1) >= nm[1] - nm[0]
                score[np.repeat(full, nm[1])] = np.inf
            q = int(np.argmin(score))
            steps.append(score[q])
            row -= row[q] / inverse[q, q] * inverse[q]
            inverse -= np.outer(inverse[q], inverse[q]) / inverse[q, q]
            gone[q] = True
            row[gone] = 0
            inverse[gone] = inverse[:, gone] = 0
            trace.append(row.copy())
        traces.append(trace), losses.append(steps)
    if nm:
        result = np.array([t[-1] for t in traces])
    else:
        # A step comes after those before it in its row, however small it is.
        keys = np.maximum.accumulate(np.array(losses), 1)
        order = np.argsort(keys, axis=None, kind="stable")[: round(OUT * IN * sparsity)]
        counts = np.bincount(order // IN, minlength=OUT)
        result = np.array([t[c] for t, c in zip(traces, counts)])
    return result, result != 0


def wanda(w, x):
    score = np.abs(w) * np.linalg.norm(x.astype(np.float64), axis=0).astype(np.float32)
    drop = np.argsort(score, axis=1, kind="stable")[:, : IN // 2]
    mask = np.ones(w.shape, bool)
    np.put_along_axis(mask, drop, False, 1)
    return mask


def main():
    w, x = layer()
    gram = x.astype(np.float64).T @ x.astype(np.float64)
    tensors = {"weight": w, "inputs": x}
    by_activation = np.argsort(-np.diag(gram), kind="stable")
    cases = {
        "sparsegpt 50": sparsegpt(w, gram),
        "sparsegpt 70": sparsegpt(w, gram, 0.7),
        "sparsegpt 2:4": sparsegpt(w, gram, nm=(2, 4)),
        "sparsegpt 50 actorder": sparsegpt(w, gram, order=by_activation),
        "sparsegpt 50 4 bits": sparsegpt(w, gram, bits=4),
        "obc 50": obc(w, gram, 0.5),
        "obc 2:4": obc(w, gram, nm=(2, 4)),
    }
    for name, (weight, mask) in cases.items():
        tensors[name] = weight.astype(np.float32)
        tensors[name + " mask"] = np.packbits(mask, axis=1, bitorder="little").astype(np.float32)
    tensors["wanda 50 mask"] = np.packbits(wanda(w, x), axis=1, bitorder="little").astype(np.float32)
    # The file takes the bytes as they lie: rows first.
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, Path(__file__).with_name("solve.safetensors"))


main()
