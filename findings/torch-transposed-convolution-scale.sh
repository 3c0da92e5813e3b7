#!/usr/bin/env bash
# PyTorch 2.14.1: the initial scale of a generator's layers, ConvTranspose2d.
#
# Guess: weights are scaled by the number of inputs of a unit, as in Conv2d: a normal input gives
# about the same deviation whatever the number of channels.
# Seen: they are scaled by the number of channels that come out. From 64 channels to 64, 4 x 4,
# stride 2, noise of deviation 1 becomes one of 0.29; from 64 to one, as in a generator's last
# layer, 2.3, so that behind a sigmoid many pixels begin near 0 or 1. Conv2d has 0.6 for both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 numpy==2.2.6
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import torch

torch.manual_seed(0)
x = torch.randn(64, 64, 14, 14)
deviation = {}
for kind, arguments in ((torch.nn.ConvTranspose2d, (4, 2, 1)), (torch.nn.Conv2d, (4, 2, 1))):
    for channels in 1, 64:
        y = kind(64, channels, *arguments)(x)[:, :, 2:-2, 2:-2]
        deviation[kind.__name__, channels] = round(y.std().item(), 2)
print(deviation)
transposed, plain = [*deviation.values()][:2], [*deviation.values()][2:]
assert max(abs(a - b) for a, b in zip(transposed, (2.3, 0.29))) < 0.1
assert max(abs(value - 0.57) for value in plain) < 0.1
PY
