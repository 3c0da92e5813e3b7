#!/usr/bin/env bash
# Keras 3.12.0 with PyTorch 2.9.1, the first step of RMSprop (rate 1, decay 0.9, gradient 1e-4).
#
# Guess: Keras, with PyTorch below it, makes the step of torch.optim.RMSprop: both divide by the root
# of 0.1 g^2, so 3.16, up to an epsilon of 1e-7 or 1e-8.
# Seen: 3.16 with torch, 0.315 with Keras. Keras adds its epsilon, 1e-7, under the root, where it is
# as large as (3.2e-4)^2; torch adds 1e-8 outside of it. With the small gradients of a critic whose
# weights are clipped, the same words and the same numbers are two different optimizers.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet keras==3.12.0 torch==2.9.1 numpy==2.2.6
KERAS_BACKEND=torch KERAS_HOME="$folder" CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import keras
import torch

weight = torch.nn.Parameter(torch.zeros(1))
weight.grad = torch.full((1,), 1e-4)
torch.optim.RMSprop([weight], lr=1.0, alpha=0.9).step()
variable = keras.Variable([0.0])
optimizer = keras.optimizers.RMSprop(learning_rate=1.0, rho=0.9)
optimizer.apply([torch.full((1,), 1e-4)], [variable])
steps = -weight.item(), -float(keras.ops.convert_to_numpy(variable.value)[0])
print(f"first step: torch {steps[0]:.3f}, keras {steps[1]:.3f}")
assert abs(steps[0] - 3.162) < 0.001 and abs(steps[1] - 0.315) < 0.001
PY
