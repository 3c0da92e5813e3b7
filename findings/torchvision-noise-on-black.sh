#!/usr/bin/env bash
# torchvision 0.29.1: v2.GaussianNoise, as instance noise on images in [0, 1], deviation 0.3.
#
# Guess: it adds noise of mean 0, so that the mean image stays.
# Seen: it clips to [0, 1], by default. Where MNIST is black, four pixels of five, half of the
# noise is cut off: 0.12 are added to black, and the mean of an image with 10% of white pixels goes
# from 0.10 to 0.20. Whoever adds it to real images alone tells D which are real. With clip=False
# the mean stays.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torchvision==0.29.1 torch==2.14.1 numpy==2.2.6
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import torch
from torchvision.transforms import v2

torch.manual_seed(0)
images = (torch.rand(200, 1, 28, 28) < 0.1).float()
means = {"images": images.mean().item()}
for clip in True, False:
    noisy = v2.GaussianNoise(sigma=0.3, clip=clip)(images)
    means[f"clip={clip}"] = noisy.mean().item()
    print(f"clip={clip}: mean of black {noisy[images == 0].mean():.3f}")
print(means)
assert abs(means["images"] - 0.1) < 0.005 and abs(means["clip=True"] - 0.196) < 0.005
assert abs(means["clip=False"] - means["images"]) < 0.003
PY
