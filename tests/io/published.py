"""Makes tests/io/published.safetensors: one weight in the layout sparse-bitmask and one in sparse-24-bitmask, written by
compressed-tensors 0.9.4 (which still has them), and the two dense, under other names.

    pip install compressed-tensors==0.9.4 torch safetensors
    python tests/io/published.py tests/io/published.safetensors
"""

import sys

import torch
from compressed_tensors.compressors.sparse_compressors.sparse_24_bitmask import Sparse24BitMaskTensor
from compressed_tensors.compressors.sparse_compressors.sparse_bitmask import BitmaskTensor
from safetensors.torch import save_file

torch.manual_seed(0)
weight = torch.randn(5, 19)
weight[torch.rand(5, 19) < 0.6] = 0
weight[2] = 0
half = torch.randn(6, 24).to(torch.bfloat16)
tensors = BitmaskTensor.from_dense(weight).dict(name_prefix="model.a")
packed = Sparse24BitMaskTensor.from_dense(half)
tensors |= packed.dict(name_prefix="model.b.weight")
tensors |= {"dense.a": weight, "dense.b": packed.decompress()}
save_file({name: t.contiguous() for name, t in tensors.items()}, sys.argv[1], metadata={"format": "pt"})
