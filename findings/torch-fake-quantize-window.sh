#!/usr/bin/env bash
# PyTorch 2.14.1: fake_quantize_per_tensor_affine to two values, 0 and 1, as a binary neuron.
#
# Guess: a straight-through estimator whose gradient is 1 between 0 and 1, and a threshold at 1/2
# that gives 1 from there on, as (x >= 0.5) does.
# Seen: the gradient is 1 between -0.5 and 1.5, where x rounds to 0 or 1, and 0 outside; and 1/2
# gives 0: halves go to the even neighbor.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 numpy==2.2.6
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import torch

x = torch.tensor([-0.6, -0.4, 0.0, 0.5, 0.6, 1.0, 1.4, 1.6], requires_grad=True)
y = torch.fake_quantize_per_tensor_affine(x, 1.0, 0, 0, 1)
y.sum().backward()
print("x       ", [round(v, 1) for v in x.tolist()])
print("value   ", y.tolist())
print("gradient", x.grad.tolist())
assert y.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
assert x.grad.tolist() == [0, 1, 1, 1, 1, 1, 1, 0]
PY
