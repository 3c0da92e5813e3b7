#!/usr/bin/env bash
# torchgan 0.1.0 with PyTorch 2.14.1, the gradient penalties of WGAN-GP and of DRAGAN.
#
# Guess: each image has its own gradient g, and the penalty is the mean of (|g| - 1)^2. So a critic
# of slope 1 everywhere has the penalty 0, however many images are in the minibatch.
# Seen: the norm is taken once, over the gradients of all N images together: with slope 1 it is
# sqrt(N), and the penalty (sqrt(N) - 1)^2, 0 with one image and 49 with 64. With 64 it is 0 where
# the slope is 1/8. So it pulls the critic to the slope 1/sqrt(N), not 1: the size of the minibatch
# sets the scale of the critic, and that of an estimate of the Wasserstein distance from it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torchgan==0.1.0 torchvision==0.29.1 torch==2.14.1 \
    numpy==2.2.6
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import torch
from torchgan.losses import functional

found = {}
for n in 1, 4, 16, 64:
    for slope in {1.0, 1 / n ** 0.5}:
        x = torch.rand(n, 1, 28, 28, requires_grad=True)
        for penalty in (functional.wasserstein_gradient_penalty,
                        functional.dragan_gradient_penalty):
            value = penalty(x, slope * x[:, 0, 14, 14]).item()
            found.setdefault((n, slope), []).append(round(value, 4))
for (n, slope), values in found.items():
    print(f"{n} images, slope {slope}: WGAN-GP {values[0]}, DRAGAN {values[1]}")
assert [found[n, 1.0] for n in (1, 4, 16, 64)] == [[0, 0], [1, 1], [9, 9], [49, 49]]
assert found[64, 0.125] == found[16, 0.25] == found[4, 0.5] == [0, 0]
PY
