#!/usr/bin/env python3
"""Reads a folder of weights in codes (compressed-tensors, GPTQ or AWQ layout) by an own decoder, and holds the weights against what Lacuna makes of them.

    scripts/check_quantized.py QUANTIZED WHOLE

WHOLE is the folder that `lacuna pack QUANTIZED WHOLE --save weights` has written. Needs numpy alone: safetensors files are read by hand. Prints a line, and fails
where a weight differs.
"""
import json
import sys
from pathlib import Path

import numpy as np

TYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I32": "<u4", "I64": "<i8", "I8": "i1", "U8": "u1"}


def tensors(folder):
    found = {}
    for path in sorted(Path(folder).glob("model*.safetensors")):
        raw = path.read_bytes()
        size = int.from_bytes(raw[:8], "little")
        for name, entry in json.loads(raw[8 : 8 + size]).items():
            if name == "__metadata__":
                continue
            begin, end = (8 + size + at for at in entry["data_offsets"])
            array = np.frombuffer(raw[begin:end], TYPES[entry["dtype"]]).reshape(entry["shape"])
            if entry["dtype"] == "BF16":
                array = (array.astype(np.uint32) << 16).view(np.float32)
            found[name] = array
    return found


def stream(words, bits, count):
    """Codes of the last axis: `count` of `bits` bits each, from the lowest bit of the first word on."""
    lanes = np.unpackbits(np.ascontiguousarray(words).view(np.uint8).reshape(*words.shape[:-1], -1), axis=-1, bitorder="little")
    lanes = lanes[..., : count * bits].reshape(*words.shape[:-1], count, bits)
    return (lanes.astype(np.int64) << np.arange(bits)).sum(-1)


def awq(words):
    nibbles = stream(words, 4, words.shape[-1] * 8).reshape(*words.shape, 8)
    natural = np.empty_like(nibbles)
    natural[..., [0, 2, 4, 6, 1, 3, 5, 7]] = nibbles
    return natural.reshape(*words.shape[:-1], -1)


def spread(per_group, columns, index=None):
    """(out, groups) to (out, in)."""
    if index is not None:
        return per_group[:, index]
    return np.repeat(per_group, columns // per_group.shape[1], axis=1)


def weights(folder):
    said = json.loads((Path(folder) / "config.json").read_text())["quantization_config"]
    all, method = tensors(folder), said["quant_method"]
    for name in list(all):
        layer = name.rsplit(".", 1)[0]
        get = lambda part: all.get(f"{layer}.{part}")
        if method == "compressed-tensors" and name.endswith(".weight_packed"):
            bits = said["config_groups"]["group_0"]["weights"]["num_bits"]
            rows, columns = (int(n) for n in get("weight_shape"))
            codes, scale = stream(get("weight_packed"), bits, columns), get("weight_scale").astype(np.float32)
            scale = np.broadcast_to(scale.reshape(-1, scale.shape[-1]) if scale.size > 1 else scale.reshape(1, 1), (rows, scale.shape[-1]))
            zero = get("weight_zero_point")
            if zero is None:
                zero = np.full(scale.shape, 2 ** (bits - 1))
            elif zero.size == 1:
                zero = np.full(scale.shape, int(zero.ravel()[0]) + 2 ** (bits - 1))
            else:
                zero = stream(zero.T, bits, rows).T
            index = get("weight_g_idx")
        elif method == "compressed-tensors" and get("weight_scale") is not None and name.endswith(".weight"):
            codes, scale = all[name].astype(np.int64) + 128, get("weight_scale").astype(np.float32)
            rows, columns = codes.shape
            scale = np.broadcast_to(scale.reshape(-1, scale.shape[-1]) if scale.size > 1 else scale.reshape(1, 1), (rows, scale.shape[-1]))
            zero = get("weight_zero_point")
            zero = np.full(scale.shape, 128) if zero is None else np.broadcast_to(zero.reshape(-1, scale.shape[-1]).astype(np.int64) + 128, scale.shape)
            index = None
        elif method == "gptq" and name.endswith(".qweight"):
            bits, words = said["bits"], all[name]
            columns, rows = words.shape[0] * 32 // bits, words.shape[1]
            codes, scale = stream(words.T, bits, columns), get("scales").astype(np.float32).T
            zero = stream(get("qzeros"), bits, rows).T + (said.get("checkpoint_format") != "gptq_v2")
            index = get("g_idx").astype(np.int64)
        elif method == "awq" and name.endswith(".qweight"):
            codes, scale = awq(all[name]).T, get("scales").astype(np.float32).T
            rows, columns = codes.shape
            zero, index = awq(get("qzeros")).T, None
        else:
            continue
        yield layer, spread(scale, columns, index) * (codes - spread(zero, columns, index)).astype(np.float32)


def main():
    quantized, whole = sys.argv[1:3]
    expected, count = tensors(whole), 0
    for layer, weight in weights(quantized):
        if not np.array_equal(weight, expected[f"{layer}.weight"]):
            worst = np.abs(weight - expected[f"{layer}.weight"]).max()
            sys.exit(f"{layer}: weights differ, by {worst} at most")
        count += 1
    if count == 0:
        sys.exit(f"{quantized} has no weights in codes")
    print(f"{count} weights in codes are what lacuna reads")


main()
