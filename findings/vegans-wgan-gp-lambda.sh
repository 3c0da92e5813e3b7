#!/usr/bin/env bash
# vegans 0.4.0 with PyTorch 2.14.1, WassersteinGANGP.
# (It asks for PyTorch 1.8.1. With today's its fit() raises; losses and optimizers work.)
#
# Guess: with lmbda_grad=10 its critic minimizes mean f(fake) - mean f(real) + 10 * penalty, as in
# the paper. With real images at 3, generated ones at 0 and f(x) = a * x the best is a = 1.15.
# Seen: a = -1.075. The two means are weighted with 1/2, the penalty is not, so lmbda_grad=10 is the
# paper's 20; and real images get the lower score. So read its scores with the other sign, and for
# the paper's setting take lmbda_grad=5: then a = -1.15.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 torchvision==0.29.1 numpy==2.2.6 \
    matplotlib==3.10.8 pandas==2.3.3 tensorboard==2.20.0
"$folder/venv/bin/python" -m pip install --quiet --no-deps vegans==0.4.0
CUDA_VISIBLE_DEVICES= MPLBACKEND=Agg "$folder/venv/bin/python" - <<'PY'
import torch
from torch import nn
from vegans.GAN import WassersteinGANGP


def best_slope(weight):
    critic = nn.Linear(1, 1, bias=False)
    critic.weight.data.fill_(-0.5)
    black = nn.Sequential(nn.Linear(1, 1), nn.Threshold(1e9, 0.0))
    model = WassersteinGANGP(black, nn.Sequential(critic), 1, 1, lmbda_grad=weight, folder=None)
    model.train()
    sgd = torch.optim.SGD(critic.parameters(), 0.02)
    for _ in range(200):
        sgd.zero_grad()
        loss = model.calculate_losses(torch.full((8, 1), 3.0), torch.zeros(8, 1))["Adversary"]
        loss.backward()
        sgd.step()
    return round(critic.weight.item(), 3)


slopes = [best_slope(10), best_slope(5)]
print(f"slopes with lmbda_grad 10 and 5: {slopes}")
assert slopes == [-1.075, -1.15]
PY
