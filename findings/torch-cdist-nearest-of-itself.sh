#!/usr/bin/env bash
# PyTorch 2.14.1: torch.cdist of 2,000 points of the plane with themselves, to find each one's
# nearest.
#
# Guess: the nearest of each is itself, at distance 0.
# Seen: for points in the square from (100, 100) to (101, 101) it is for less than a quarter of
# them, and some point has more than 0.03 to itself: with more than 25 rows the distance is made
# from |x|^2 + |y|^2 - 2xy, whose digits cancel. A search for copies would miss them. Subtract the
# mean, or say compute_mode="donot_use_mm_for_euclid_dist"; then all are right. The first 25 alone
# are, too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 numpy==2.2.6
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import torch

torch.manual_seed(0)
x = torch.rand(2000, 2) + 100
ways = {"default": (x, "use_mm_for_euclid_dist_if_necessary"),
        "mean subtracted": (x - x.mean(0), "use_mm_for_euclid_dist_if_necessary"),
        "no products": (x, "donot_use_mm_for_euclid_dist")}
right = {}
for name, (points, mode) in ways.items():
    distance = torch.cdist(points, points, compute_mode=mode)
    right[name] = (distance.argmin(1) == torch.arange(2000)).float().mean().item()
    print(f"{name}: own nearest {right[name]:.3f}, to itself {distance.diagonal().max():.4f}")
assert right["default"] < 0.25 and right["mean subtracted"] == right["no products"] == 1
assert torch.cdist(x, x).diagonal().max() > 0.03
assert not torch.cdist(x[:25], x[:25]).diagonal().any()
PY
