#!/usr/bin/env python3
"""Writes quants.safetensors: random blocks of every type of GGUF that is read, and the numbers that the gguf package finds in them.

    python make_goldens.py            needs: pip install gguf==0.19.0 safetensors numpy

For each type T: `T.bytes`, U8 (blocks, bytes of a block), and `T.values`, F32 (blocks, numbers of a block).
The 16-bit floats of a block are finite; everything else in it is any byte.
"""
import os

import gguf
import numpy as np
from safetensors.numpy import save_file

SCALES = {  # where the 16-bit floats of a block stand
    "F16": [0], "BF16": [0], "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}
random = np.random.default_rng(4)
tensors = {}
for name, places in SCALES.items():
    kind = gguf.GGMLQuantizationType[name]
    numbers, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = {1: 64, 32: 12, 256: 3}[numbers]
    data = random.integers(0, 256, (blocks, size), dtype=np.uint8)
    for place in places:
        values = random.normal(size=blocks).astype(np.float32) * 10.0 ** random.integers(-6, 3, blocks).astype(np.float32)
        stored = values.astype(np.float16).view(np.uint16) if name != "BF16" else (values.view(np.uint32) >> 16).astype(np.uint16)
        data[:, place:place + 2] = stored.view(np.uint8).reshape(blocks, 2)
    tensors[f"{name}.bytes"] = data
    tensors[f"{name}.values"] = gguf.quants.dequantize(data, kind).astype(np.float32).reshape(blocks, numbers)
save_file(tensors, os.path.join(os.path.dirname(__file__), "quants.safetensors"))
