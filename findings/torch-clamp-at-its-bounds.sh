#!/usr/bin/env bash
# PyTorch 2.13.0 beside 2.14.1: the gradient of x.clamp(0, 1) at 0 and at 1.
#
# Guess: from one release to the next such a gradient stays as it is.
# Seen: 1 at both bounds in 2.13.0, 0 in 2.14.1. Pixels are often exactly 0 or 1, and clipped
# weights lie on their bounds: what learned through a clamp there stops in the newer release.
# hardtanh, which is the same function, has 0 in both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 2.13.0 2.14.1
do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/python" -m pip install --quiet "torch==$version" numpy==2.2.6
    CUDA_VISIBLE_DEVICES= "$folder/$version/bin/python" - "$version" <<'PY'
import sys

import torch

seen = []
for function in (lambda x: x.clamp(0, 1), lambda x: torch.nn.functional.hardtanh(x, 0, 1)):
    x = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0], requires_grad=True)
    function(x).sum().backward()
    seen.append(x.grad.tolist())
print(f"{torch.__version__}: clamp {seen[0]}, hardtanh {seen[1]}")
at_bounds = float(sys.argv[1] == "2.13.0")
assert seen == [[0, at_bounds, 1, at_bounds, 0], [0, 0, 1, 0, 0]]
PY
done
