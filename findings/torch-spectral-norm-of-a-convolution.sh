#!/usr/bin/env bash
# PyTorch 2.14.1, spectral_norm of a convolution, as in the discriminator of SN-GAN.
#
# Guess: the layer multiplies the norm of an image by 1 at most.
# Seen: by 2.98 with a constant 3 x 3 kernel, images of 28 x 28 pixels and padding 1; by 2.70 from
# one channel to 64 and by 1.53 from 64 to 64 with kernels as they are drawn at first. What has the
# largest singular value 1 is the kernel, taken as a matrix of channels out by all the rest, not the
# map from image to image, for which 3 is the bound here. So a critic of such layers need not be
# 1-Lipschitz, and its scores bound a Wasserstein distance only if divided by the true factor.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 numpy==2.2.6
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import torch
from torch import nn
from torch.nn.functional import conv2d, conv_transpose2d


def largest(weight):
    x = torch.rand(1, weight.shape[1], 28, 28)
    for _ in range(100):
        y = conv2d(x / x.norm(), weight, padding=1)
        x = conv_transpose2d(y / y.norm(), weight, padding=1)
    return x.norm().item()


torch.manual_seed(0)
constant = nn.Conv2d(1, 1, 3, padding=1)
nn.init.ones_(constant.weight)
for name, layer, expected in (
        ("constant kernel", constant, 2.98), ("1 to 64", nn.Conv2d(1, 64, 3, padding=1), 2.70),
        ("64 to 64", nn.Conv2d(64, 64, 3, padding=1), 1.53)):
    layer = nn.utils.parametrizations.spectral_norm(layer, n_power_iterations=100)
    weight = layer.weight.detach()
    matrix, image = torch.linalg.matrix_norm(weight.flatten(1), 2).item(), largest(weight)
    print(f"{name}: kernel as a matrix {matrix:.3f}, from image to image {image:.2f}")
    assert abs(matrix - 1) < 0.01 and abs(image - expected) < 0.02
PY
