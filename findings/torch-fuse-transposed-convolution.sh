#!/usr/bin/env bash
# PyTorch 2.14.1, fuse_conv_bn_eval, which folds batch normalization into the layer before it.
#
# Guess: given a ConvTranspose2d, a generator's layer, it folds correctly, or says that it cannot.
# Seen: unless transpose=True is said, it scales the wrong axis of the weights. With 8 channels in
# and 4 out it raises. With 8 and 8 it returns a layer that is wrong: off by 4.42 where values go up
# to 10.11, and no word is said. With transpose=True both are right. So images of a generator that
# was folded in order to be fast, or to be exported, are to be compared with those before.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 numpy==2.2.6
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

found = {}
for out in 8, 4:
    torch.manual_seed(0)
    layer, norm = nn.ConvTranspose2d(8, out, 4, 2, 1).eval(), nn.BatchNorm2d(out).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.1, 4)
    nn.init.uniform_(norm.weight, 0.2, 3)
    x = torch.randn(2, 8, 7, 7)
    expected = norm(layer(x))
    for transpose in False, True:
        try:
            fused = fuse_conv_bn_eval(layer, norm, transpose=transpose)
            found[out, transpose] = round((fused(x) - expected).abs().max().item(), 4)
        except RuntimeError:
            found[out, transpose] = "raises"
    print(f"8 to {out} channels, values to {expected.abs().max():.2f}: "
          f"error {found[out, False]}, with transpose=True {found[out, True]}")
assert abs(found[8, False] - 4.42) < 0.02
assert found[4, False] == "raises" and found[8, True] == found[4, True] == 0
PY
