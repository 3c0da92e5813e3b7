#!/usr/bin/env bash
# torchmetrics 1.9.0 with PyTorch 2.9.1, the structural similarity (SSIM) of images in [0, 1].
#
# Guess: with reduction="none" the SSIM of two images is a number of these two, whatever else is in
# the minibatch; and that of an image with itself is 1.
# Seen: two images of noise up to 0.1 have 0.038 alone and 0.371 beside a pair of binary images:
# without data_range the range is that of the whole minibatch, and it sets the constants C1 and C2.
# Two black images have nan: the range is 0, and so are C1 and C2. With data_range=1 both are as
# guessed, 0.371 and 1. So a mean over minibatches depends on which images come together.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torchmetrics==1.9.0 torch==2.9.1 numpy==2.2.6
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import torch
from torchmetrics.functional.image import structural_similarity_index_measure as ssim

torch.manual_seed(0)
dark, other = 0.1 * torch.rand(2, 1, 1, 28, 28)
digit = (torch.rand(1, 1, 28, 28) > 0.8).float()
black = torch.zeros(1, 1, 28, 28)
for given in {}, {"data_range": 1.0}:
    alone = ssim(dark, other, reduction="none", **given)[0].item()
    beside = ssim(torch.cat([dark, digit]), torch.cat([other, 1 - digit]), reduction="none",
                  **given)[0].item()
    itself = ssim(black, black, **given).item()
    print(f"{given}: alone {alone:.3f}, beside others {beside:.3f}, black with itself {itself:.3f}")
    if given:
        assert abs(alone - beside) < 1e-5 and itself == 1
    else:
        assert abs(alone - 0.038) < 0.001 and abs(beside - 0.371) < 0.001 and itself != itself
PY
