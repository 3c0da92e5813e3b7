#!/usr/bin/env bash
# Keras 3.12.0 with PyTorch 2.9.1, the first step of Adam (rate 1, epsilon 1e-7, gradient 1e-6).
#
# Guess: with the same betas and the same epsilon both make the same step, |g| / (|g| + epsilon),
# 0.909.
# Seen: 0.909 with torch, 0.240 with Keras. Torch adds epsilon to the corrected root of the mean
# square, which is |g|. Keras adds it to the root before the correction, sqrt(0.001) |g|: in the
# first step its epsilon acts as one of 3.2e-6, larger than the gradient. (The paper on Adam has
# both: algorithm 1, and the other form for speed, whose epsilon it writes with a hat.) Where
# gradients are small, as those of a generator that a sure discriminator judges, Keras warms up
# slowly where torch does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet keras==3.12.0 torch==2.9.1 numpy==2.2.6
KERAS_BACKEND=torch KERAS_HOME="$folder" CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import keras
import torch

weight = torch.nn.Parameter(torch.zeros(1))
weight.grad = torch.full((1,), 1e-6)
torch.optim.Adam([weight], lr=1.0, eps=1e-7).step()
variable = keras.Variable([0.0])
optimizer = keras.optimizers.Adam(learning_rate=1.0, epsilon=1e-7)
optimizer.apply([torch.full((1,), 1e-6)], [variable])
steps = -weight.item(), -float(keras.ops.convert_to_numpy(variable.value)[0])
print(f"first step: torch {steps[0]:.3f}, keras {steps[1]:.3f}")
assert abs(steps[0] - 0.909) < 0.001 and abs(steps[1] - 0.240) < 0.001
PY
