#!/usr/bin/env bash
# PyTorch 2.14.1: log_prob of a RelaxedBernoulli's own samples, at temperature 0.1.
#
# Guess: for a probability of 1/2 all is symmetric: the mean log_prob of the samples above 1/2 is
# that of the samples below.
# Seen: below it is 9.65, above 6.22. Samples are clipped to 1 - 1.2e-7, where floats end, while
# near 0 they go on to 1e-38. A sixth of all samples are this largest number, and their log_prob is
# not that of what was drawn. A KL divergence from such samples (a relaxed posterior) is biased.
# LogitRelaxedBernoulli, the same before its sigmoid, is symmetric.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 numpy==2.2.6
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import torch
from torch.distributions import RelaxedBernoulli
from torch.distributions.relaxed_bernoulli import LogitRelaxedBernoulli

torch.manual_seed(0)
half = torch.tensor(0.5)
p = RelaxedBernoulli(torch.tensor(0.1), half)
x = p.sample((100_000,))
below, above = (p.log_prob(part).mean().item() for part in (x[x < half], x[x > half]))
largest = (x == x.max()).float().mean().item()
print(f"below 1/2 {below:.2f}, above {above:.2f}; share of the largest number {largest:.3f}")
assert abs(below - 9.65) < 0.1 and abs(above - 6.22) < 0.1 and abs(largest - 0.17) < 0.01

q = LogitRelaxedBernoulli(torch.tensor(0.1), half)
y = q.sample((100_000,))
below, above = (q.log_prob(part).mean().item() for part in (y[y < 0], y[y > 0]))
print(f"before the sigmoid: below 0 {below:.2f}, above {above:.2f}")
assert abs(below - above) < 0.05
PY
