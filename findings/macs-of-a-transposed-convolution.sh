#!/usr/bin/env bash
# Five counters of multiplications at a generator's transposed convolution, 7 x 7 to 14 x 14:
# thop 0.1.1.post2209072238, torchinfo 1.8.0, ptflops 0.7.5, fvcore 0.1.5.post20221221, and the
# FlopCounterMode of PyTorch 2.14.1.
#
# Guess: all say the same. Each number that goes in is multiplied with each weight of its channel
# once: 49 x 64 x 32 x 16 = 1.6 million.
# Seen: ptflops, fvcore and FlopCounterMode (two operations for each) do. thop and torchinfo count
# the pixels that come out, as for a convolution: four times as many with stride 2. A table of
# costs from these two makes a generator look dearer than the discriminator it mirrors.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet thop==0.1.1.post2209072238 torchinfo==1.8.0 \
    ptflops==0.7.5 fvcore==0.1.5.post20221221 torch==2.14.1 numpy==2.2.6
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import warnings

import torch
from fvcore.nn import FlopCountAnalysis
from ptflops import get_model_complexity_info
from thop import profile
from torch.utils.flop_counter import FlopCounterMode
from torchinfo import summary

warnings.simplefilter("ignore")
layer = torch.nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False)
x = torch.randn(1, 64, 7, 7)
with FlopCounterMode(display=False) as counter:
    layer(x)
seen = {
    "thop": profile(layer, (x,), verbose=False)[0],
    "torchinfo": summary(layer, input_data=x, verbose=0).total_mult_adds,
    "ptflops": get_model_complexity_info(
        layer, (64, 7, 7), as_strings=False, print_per_layer_stat=False)[0],
    "fvcore": FlopCountAnalysis(layer, x).total(),
    "FlopCounterMode": counter.get_total_flops() / 2}
times = {name: count / (49 * 64 * 32 * 16) for name, count in seen.items()}
print(times)
assert times == {
    "thop": 4, "torchinfo": 4, "ptflops": 1, "fvcore": 1, "FlopCounterMode": 1}
PY
