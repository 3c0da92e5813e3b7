#!/usr/bin/env bash
# Keras 3.12.0 with PyTorch 2.9.1, the non-saturating loss of a GAN, -log D, from a probability.
#
# Guess: its gradient with respect to the logit of D is -(1 - D), so -1 where D is sure that an
# image is generated. That is why it is called non-saturating.
# Seen: with binary_crossentropy of Keras it is -1 at a logit of -15, and 0 at -17: Keras clips the
# probability to [1e-7, 1 - 1e-7] and no gradient passes a clip. The loss stops at 16.1. Torch clips
# the logarithm at -100 and has -1 still at -25. (At -30 it has -0.094: it divides by at least
# 1e-12.) With from_logits=True Keras has -1 everywhere. So a discriminator that ends in a sigmoid
# teaches such a generator nothing once it is sure.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet keras==3.12.0 torch==2.9.1 numpy==2.2.6
KERAS_BACKEND=torch KERAS_HOME="$folder" CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import keras
import torch
from torch.nn.functional import binary_cross_entropy


def slope(loss, s):
    logit = torch.tensor([s], requires_grad=True)
    value = loss(logit)
    value.sum().backward()
    return round(value.item(), 1), round(logit.grad.item(), 3)


real = torch.ones(1)
crossentropy = keras.losses.binary_crossentropy
losses = {
    "torch": lambda logit: binary_cross_entropy(torch.sigmoid(logit), real),
    "keras": lambda logit: crossentropy(real, torch.sigmoid(logit)),
    "keras, from logits": lambda logit: crossentropy(real, logit, from_logits=True)}
found = {name: [slope(loss, s) for s in (-15.0, -17.0, -25.0)] for name, loss in losses.items()}
print("loss and its gradient at logits -15, -17, -25:")
print("\n".join(f"{name}: {values}" for name, values in found.items()))
assert found["torch"] == found["keras, from logits"] == [(15.0, -1.0), (17.0, -1.0), (25.0, -1.0)]
assert [gradient for _, gradient in found["keras"]] == [-1.0, 0.0, 0.0]
assert found["keras"][2][0] == 16.1
PY
