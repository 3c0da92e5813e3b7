#!/usr/bin/env bash
# vegans 0.4.0 with PyTorch 2.14.1, InfoGAN: the heads that read the codes from a generated image.
# (It asks for PyTorch 1.8.1. With today's its fit() raises; losses and optimizers work.)
#
# Guess: Q is the encoder with its heads, all are trained, and a perfect Q has cross-entropy 0.
# Seen: the encoder is trained, but none of the six weights and biases of the heads is in any
# optimizer: they stay as they were drawn. The head of the categories ends in a sigmoid and goes
# into a cross-entropy that takes logits: of ten categories the best is log(1 + 9/e) = 1.461, so of
# ln 10 = 2.303 nats only 0.841 can be read. The variance of a normal code is at least 1, its
# prior's. So do not take these losses for the paper's bound on the mutual information.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 torchvision==0.29.1 numpy==2.2.6 \
    matplotlib==3.10.8 pandas==2.3.3 tensorboard==2.20.0
"$folder/venv/bin/python" -m pip install --quiet --no-deps vegans==0.4.0
CUDA_VISIBLE_DEVICES= MPLBACKEND=Agg "$folder/venv/bin/python" - <<'PY'
import math

import torch
from torch import nn
from vegans.GAN import InfoGAN

model = InfoGAN(
    nn.Sequential(nn.Linear(4 + 12, 16)), nn.Sequential(nn.Linear(16, 1), nn.Sigmoid()),
    nn.Sequential(nn.Linear(16, 8)), x_dim=16, z_dim=4, c_dim_discrete=10, c_dim_continuous=2,
    device="cpu", folder=None)
heads = [*model.multinomial.parameters(), *model.mu.parameters(), *model.log_variance.parameters()]
trained = {id(p) for optimizer in model.optimizers.values()
           for group in optimizer.param_groups for p in group["params"]}
counts = [sum(id(p) in trained for p in ps) for ps in (model.encoder.parameters(), heads)]
print(f"in an optimizer: encoder {counts[0]} of 2, heads {counts[1]} of {len(heads)}")
model.multinomial[1].bias.data = 2000 * torch.eye(10)[3] - 1000
best = model.loss_functions["Discrete"](
    model.multinomial(torch.zeros(1, 8)), torch.tensor([3])).item()
variance = model.log_variance(1000 * torch.randn(1000, 8)).exp().min().item()
print(f"cross-entropy {best:.3f}, read {math.log(10) - best:.3f}, variance {variance:.1f} or more")
assert counts == [2, 0] and len(heads) == 6
assert abs(best - math.log(1 + 9 / math.e)) < 1e-4 and variance == 1
PY
