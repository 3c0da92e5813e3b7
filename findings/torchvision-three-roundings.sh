#!/usr/bin/env bash
# torchvision 0.29.1: three ways from floats in [0, 1] to the bytes of a picture.
#
# Guess: one rounding in all three, so that 1/2 is one byte.
# Seen: of 0.5, 0.999 and 1, save_image makes 128, 255, 255, to_pil_image 127, 254, 255, and
# v2.ToDtype(torch.uint8, scale=True) 127, 255, 255: to the nearest, down, and 256 equal bins. So
# pictures of the same samples differ in up to half of their pixels by one, and a histogram of
# bytes read back depends on who wrote them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torchvision==0.29.1 torch==2.14.1 numpy==2.2.6
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import io

import torch
from PIL import Image
from torchvision.transforms import functional, v2
from torchvision.utils import save_image

x = torch.tensor([0.5, 0.999, 1.0]).expand(3, 1, 3)  # channels, rows, columns


def saved(x):
    save_image(x, file := io.BytesIO(), "png")
    return functional.pil_to_tensor(Image.open(file))


ways = {"save_image": saved,
        "to_pil_image": lambda x: functional.pil_to_tensor(functional.to_pil_image(x)),
        "v2.ToDtype": v2.ToDtype(torch.uint8, scale=True)}
seen = {name: way(x)[0, 0].tolist() for name, way in ways.items()}
print(seen)
assert [*seen.values()] == [[128, 255, 255], [127, 254, 255], [127, 255, 255]]
many = torch.rand(3, 100, 100, generator=torch.Generator().manual_seed(0))
images = [way(many) for way in ways.values()]
share = [(images[0] != other).float().mean().item() for other in images[1:]]
print("share of pixels that are not save_image's:", share)
assert share[0] > 0.45 and share[1] > 0.15
PY
