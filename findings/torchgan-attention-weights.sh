#!/usr/bin/env bash
# torchgan 0.1.0 with PyTorch 2.14.1, SelfAttention2d, the attention of SAGAN.
#
# Guess: what a pixel receives is an average of the values at all pixels: its weights are positive
# and sum to 1. So where all values are 1, attention gives 1 everywhere.
# Seen: the softmax runs over the other axis. The weights that a pixel gives away sum to 1; those
# that it receives sum to 0.44 to 8.06 here, with 49 pixels, and that is what attention makes of
# values that are all 1. So it scales pixels up and down, and a network with this layer is not the
# one of the paper.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torchgan==0.1.0 torchvision==0.29.1 torch==2.14.1 \
    numpy==2.2.6
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import torch
from torchgan.layers import SelfAttention2d

torch.manual_seed(0)
layer = SelfAttention2d(16, return_attn=True)
torch.nn.init.ones_(layer.gamma)
torch.nn.init.zeros_(layer.value.weight)
torch.nn.init.ones_(layer.value.bias)
x = 2 * torch.randn(1, 16, 7, 7)
with torch.no_grad():
    y, weights = layer(x)
attended = y - x
print(f"attention to values of 1: {attended.min():.2f} to {attended.max():.2f}")
for axis in 1, 2:
    total = weights.sum(axis)
    print(f"weights, summed over axis {axis}: {total.min():.2f} to {total.max():.2f}")
assert torch.allclose(weights.sum(2), torch.ones(1, 49), atol=1e-5)
assert torch.allclose(attended[0, 0].flatten(), weights.sum(1)[0], atol=1e-5)
assert abs(attended.min() - 0.44) < 0.02 and abs(attended.max() - 8.06) < 0.1
PY
