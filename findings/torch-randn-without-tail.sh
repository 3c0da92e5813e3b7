#!/usr/bin/env bash
# PyTorch 2.14.1 beside NumPy 2.2.6: the largest of a billion normal numbers on a CPU. A minute.
#
# Guess: about 6.1 in both; eight of a billion should be beyond 5.768.
# Seen: 5.759 with torch.randn, 6.259 with NumPy, both in float32. PyTorch makes normal numbers of
# uniform ones (Box and Muller's way), with sqrt(-2 log u). Its u has 24 bits, so that no number is
# beyond sqrt(-2 log 2^-24) = 5.768, however many are drawn. In float64 300 million numbers come
# to 6.161. It matters to nobody who draws images, but to a test of the tail.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 numpy==2.2.6
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import math

import numpy
import torch

torch.manual_seed(0)
draw = numpy.random.default_rng(0)
many = 10_000_000
largest = {
    "torch": max(torch.randn(many).abs().max().item() for _ in range(100)),
    "numpy": max(abs(draw.standard_normal(many, "float32")).max().item() for _ in range(100)),
    "torch, float64": max(
        torch.randn(many, dtype=torch.float64).abs().max().item() for _ in range(30))}
bound = math.sqrt(-2 * math.log(2 ** -24))
print(largest, "bound of 24 bits", bound)
assert largest["torch"] < bound < min(largest["numpy"], largest["torch, float64"])
PY
