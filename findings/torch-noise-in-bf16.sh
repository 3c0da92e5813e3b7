#!/usr/bin/env bash
# PyTorch 2.9.1 on a CPU, Bernoulli(p) samples as (torch.rand_like(p) < p), p in bfloat16.
#
# Guess: the share of ones is p, up to bfloat16's rounding of p, 0.4%.
# Seen: with p = 0.001 the share is 0.0039, with p = 0.0001 the same. In bfloat16 torch.rand has 256
# values, 0, 1/256, ..., 255/256, so that no p below 1/256 but 0 has a smaller share.
# torch.bernoulli(p) is right, and so is the comparison with noise in float32, torch.rand(p.shape).
# Under autocast a layer with its sigmoid gives bfloat16, and rand_like then follows: stochastic
# binary neurons in an almost black image have four ones, or forty, where one is due.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.9.1 numpy==2.2.6
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import torch

torch.manual_seed(0)
for p in 1e-3, 1e-4:
    given = torch.full((1_000_000,), p, dtype=torch.bfloat16)
    compared, sampled, in_full = (ones.float().mean().item() for ones in (
        torch.rand_like(given) < given, torch.bernoulli(given), torch.rand(given.shape) < given))
    print(f"p {p}: rand_like(p) < p {compared:.5f}, bernoulli(p) {sampled:.5f}, "
          f"rand(p.shape) < p {in_full:.5f}")
    assert abs(compared - 1 / 256) < 3e-4
    assert abs(sampled - p) < 2e-4 and abs(in_full - p) < 2e-4
values = len(torch.rand(1_000_000, dtype=torch.bfloat16).unique())
print(f"values of torch.rand in bfloat16: {values}")
assert values == 256
PY
