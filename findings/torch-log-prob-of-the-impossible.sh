#!/usr/bin/env bash
# PyTorch 2.14.1, distributions: the logarithm of the probability of what is impossible.
#
# Guess: Categorical([1, 0]) gives the second category the log-probability -inf, Bernoulli(0) a 1.
# Seen: both have -15.94, in float64 -36.04: probabilities are clamped to the machine's epsilon. The
# same distribution from logits, 0 and -inf, has -inf, and the divergence of a fair coin from it is
# inf. So the log-likelihood of an image under a decoder that calls one of its pixels impossible is
# finite, and better in float32 than in float64. Torch's cross-entropy has a third number, 100.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 numpy==2.2.6
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import torch
from torch.distributions import Bernoulli, Categorical, kl_divergence
from torch.nn.functional import binary_cross_entropy

found = {}
for dtype in torch.float32, torch.float64:
    sure, fair = torch.tensor([1, 0], dtype=dtype), torch.tensor([0.5, 0.5], dtype=dtype)
    zero, one = torch.zeros((), dtype=dtype), torch.ones((), dtype=dtype)
    found[dtype] = [round(value.item(), 2) for value in (
        Categorical(sure).log_prob(one), Bernoulli(zero).log_prob(one),
        Categorical(logits=sure.log()).log_prob(one),
        kl_divergence(Categorical(fair), Categorical(sure)),
        kl_divergence(Bernoulli(fair[0]), Bernoulli(zero)), binary_cross_entropy(zero, one))]
    print(dtype, "Categorical, Bernoulli, from logits, two divergences, cross-entropy:")
    print(found[dtype])
inf = float("inf")
assert found[torch.float32] == [-15.94, -15.94, -inf, inf, inf, 100]
assert found[torch.float64] == [-36.04, -36.04, -inf, inf, inf, 100]
PY
