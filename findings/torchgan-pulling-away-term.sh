#!/usr/bin/env bash
# torchgan 0.1.0 with PyTorch 2.14.1, the pulling-away term of energy-based GANs.
#
# Guess: as in the paper, it is the mean of the squared cosine of two images' codes, over all pairs
# of different images: 0 where the codes are orthogonal, 1 where all point in one direction, and
# their lengths do not matter.
# Seen: each feature is divided by its norm over the minibatch, not each code by its own length, and
# each image is paired with itself, too. Eight orthogonal codes have 1/7 = 0.143. Equal codes have
# 1.14 with 8 features, 4.57 with 16 and 1170 with 256. Codes that differ in length alone, 1 to 8,
# have 4.57 as well. So a weight of this term that is taken from a paper means more, the wider the
# code is.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torchgan==0.1.0 torchvision==0.29.1 torch==2.14.1 \
    numpy==2.2.6
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import torch
from torchgan.losses.functional import energy_based_pulling_away_term as term

lengths = torch.arange(1.0, 9)[:, None]
codes = {
    "orthogonal": torch.eye(8), "orthogonal, three times as long": 3 * torch.eye(8),
    "equal, 8 features": torch.ones(8, 8), "equal, 16 features": torch.ones(8, 16),
    "equal, 256 features": torch.ones(8, 256), "lengths 1 to 8": lengths * torch.ones(8, 16)}


def paper(codes):
    cosine = torch.nn.functional.normalize(codes, dim=1)
    return ((cosine @ cosine.T).square().sum() - 8) / (8 * 7)


found = {name: [term(code).item(), paper(code).item()] for name, code in codes.items()}
for name, (theirs, defined) in found.items():
    print(f"{name}: torchgan {theirs:.4g}, as defined {defined:.4g}")
assert [round(defined) for _, defined in found.values()] == [0, 0, 1, 1, 1, 1]
expected = [1 / 7, 1 / 7, 8 / 7, 32 / 7, 8192 / 7, 32 / 7]
assert all(abs(f[0] / e - 1) < 0.01 for f, e in zip(found.values(), expected))
PY
