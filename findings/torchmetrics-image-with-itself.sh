#!/usr/bin/env bash
# torchmetrics 1.9.0: similarity of an image to itself, a one drawn as a bar on black.
#
# Guess: 1, the best there is, for every measure of similarity.
# Seen: the universal image quality index is 0.66 and the spatial correlation coefficient 0.46; of
# noise without black both are 1. Where a window is black, numerator and denominator are 0, and
# that counts as no similarity. SSIM, with its constants, is 1 for both images. So with the two how
# well digits are reconstructed is mixed with how much of the picture is black.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torchmetrics==1.9.0 torch==2.14.1 numpy==2.2.6
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import torch
from torchmetrics import functional

one = torch.zeros(1, 1, 28, 28)
one[..., 4:24, 12:16] = 1
images = {"one": one,
          "noise": torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))}
seen = {}
for name, image in images.items():
    for measure in (functional.image.universal_image_quality_index,
                    functional.image.spatial_correlation_coefficient):
        seen[name, measure.__name__] = round(measure(image, image).item(), 3)
    same = functional.image.structural_similarity_index_measure(image, image, data_range=1.0)
    assert abs(same - 1) < 1e-5
print(seen)
assert seen["one", "universal_image_quality_index"] < 0.7
assert seen["one", "spatial_correlation_coefficient"] < 0.5
assert seen["noise", "universal_image_quality_index"] == 1
assert seen["noise", "spatial_correlation_coefficient"] == 1
PY
