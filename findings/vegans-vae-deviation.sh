#!/usr/bin/env bash
# vegans 0.4.0 with PyTorch 2.14.1, VanillaVAE.
# (It asks for PyTorch 1.8.1. With today's its fit() raises; losses and optimizers work.)
#
# Guess: with v, the logarithm of the variance, a code is mean + exp(v / 2) * noise, and its
# divergence from the prior is a mean over the minibatch, as the reconstruction is.
# Seen: a code is mean + exp(v) * noise: with v = 2 its deviation is 7.39, not 2.72, while the
# divergence is that of the variance exp(2). It is summed over the minibatch, where the
# reconstruction is a mean: 8 equal images have 70.2, 32 have 280.9. So the minibatch sets the
# weight of the divergence, which is not that of the codes drawn: no bound on the likelihood.
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
from vegans.GAN import VanillaVAE

model = VanillaVAE(
    nn.Sequential(nn.Linear(16, 8)), nn.Sequential(nn.Linear(4, 16)), x_dim=16, z_dim=4,
    lambda_KL=1, device="cpu", folder=None)
model.train()
for head, value in (model.mu, 0.0), (model.log_variance, 2.0):
    nn.init.zeros_(head[1].weight)
    nn.init.constant_(head[1].bias, value)
codes = []
model.decoder.register_forward_pre_hook(lambda module, inputs: codes.append(inputs[0]))
images = torch.full((32, 16), 0.5)
losses = {n: model.calculate_losses(images[:n], torch.ones(n, 4)) for n in (8, 32)}
deviations = codes[0].unique().tolist()
divergences = [round(loss["Kullback-Leibler"].item(), 1) for loss in losses.values()]
equal = torch.allclose(losses[8]["Reconstruction"], losses[32]["Reconstruction"])
print(f"code of noise 1 with v = 2: {deviations}; divergence of 8 and 32 images: {divergences}, "
      f"reconstruction the same: {equal}")
assert len(deviations) == 1 and abs(deviations[0] - 7.389) < 0.001
assert divergences == [70.2, 280.9] and equal
PY
