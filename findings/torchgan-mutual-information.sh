#!/usr/bin/env bash
# torchgan 0.1.0 with PyTorch 2.14.1, the mutual information of InfoGAN.
#
# Guess: the penalty is -log Q(c|x), summed over all codes, and H(c) minus the penalty is the lower
# bound L_I of the paper. So a Q that knows nothing, which gives each code its prior, has as penalty
# the entropy of the codes, and L_I is 0. Ten categories and two normal codes have 5.14 nats.
# Seen: the penalty is a mean over codes, and then over the two kinds. It is 1.86, and "L_I" 3.28
# where there is no information. With ten normal codes, not two, it is 1.86 as before, and 16.5 is
# due. So lambda = 1 counts the categories half and each normal code a quarter, or a twentieth.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torchgan==0.1.0 torchvision==0.29.1 torch==2.14.1 \
    numpy==2.2.6
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import math

import torch
from torch.distributions import Categorical, Normal
from torchgan.losses.functional import mutual_information_penalty

found = {}
category = torch.arange(1000) % 10
for codes in 2, 10:
    normal = torch.ones(1000, codes)
    normal[::2] = -1
    q = Categorical(torch.full((1000, 10), 0.1)), Normal(torch.zeros(1000, codes), 1.0)
    theirs = mutual_information_penalty(category, normal, *q).item()
    due = -(q[0].log_prob(category) + q[1].log_prob(normal).sum(1)).mean().item()
    entropy = math.log(10) + codes * math.log(2 * math.pi * math.e) / 2
    found[codes] = [round(value, 2) for value in (theirs, due, entropy)]
    print(f"10 categories, {codes} normal codes: penalty {theirs:.2f}, due {due:.2f}, "
          f"entropy of the codes {entropy:.2f}, bound {entropy - theirs:.2f}")
assert found[2] == [1.86, 5.14, 5.14]
assert found[10] == [1.86, 16.49, 16.49]
PY
