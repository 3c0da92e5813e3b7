#!/usr/bin/env bash
# PyTorch 2.14.1, the two functions that are called spectral_norm.
#
# Guess: torch.nn.utils.spectral_norm is the older name of parametrizations.spectral_norm and makes
# the same layer: its largest singular value is 1, but for a few percent at the beginning.
# Seen: the newer runs 15 power iterations when it is called, the older none. Of five layers
# Linear(784, 256) the largest singular value in the first pass is 1.01 to 1.02 with the newer,
# 1.31 to 1.39 with the older; in evaluation, before any training, it is 42 to 312 with the older.
# So a critic with the older one begins steeper, the more so the more layers it has, and scores of
# one that was never in training have no bound.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 numpy==2.2.6
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import torch
from torch import nn

found = {}
for name, function in (("newer", nn.utils.parametrizations.spectral_norm),
                       ("older", nn.utils.spectral_norm)):
    for training in True, False:
        found[name, training] = []
        for seed in range(5):
            torch.manual_seed(seed)
            layer = function(nn.Linear(784, 256)).train(training)
            layer(torch.randn(4, 784))
            weight = layer.eval().weight if name == "newer" else layer.weight
            found[name, training].append(torch.linalg.matrix_norm(weight, 2).item())
for (name, training), values in found.items():
    print(f"{name}, training {training}: {min(values):.2f} to {max(values):.2f}")
assert 1 < min(found["newer", True]) and max(found["newer", True]) < 1.05
assert 1 < min(found["newer", False]) and max(found["newer", False]) < 1.05
assert abs(min(found["older", True]) - 1.31) < 0.02
assert abs(max(found["older", True]) - 1.39) < 0.02
assert min(found["older", False]) > 20 and max(found["older", False]) > 100
PY
