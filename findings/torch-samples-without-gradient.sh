#!/usr/bin/env bash
# PyTorch 2.9.1, does backward() tell that a sample passes no gradient to its parameters?
#
# Guess: what cannot be differentiated has no graph, and backward() raises, as after p > 0.5. And
# torch.normal(mean, deviation) is mean + deviation * noise, whose gradient for the mean is 1.
# Seen: torch.bernoulli, torch.poisson and torch.normal have a graph, and their gradient is 0. So
# nothing raises: binary neurons that are written with torch.bernoulli, or a code that is drawn with
# torch.normal(mean, deviation), leave the layers below untrained, without a word. multinomial and
# distributions.Bernoulli.sample have no graph, and raise. distributions.Normal.rsample is right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.9.1 numpy==2.2.6
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import torch
from torch import distributions

seen = {}
for name, sample in {
        "torch.bernoulli": torch.bernoulli, "torch.poisson": torch.poisson,
        "torch.normal": lambda x: torch.normal(x, 1.0),
        "torch.multinomial": lambda x: torch.multinomial(x, 1),
        "Bernoulli.sample": lambda x: distributions.Bernoulli(x).sample(),
        "Normal.rsample": lambda x: distributions.Normal(x, 1.0).rsample()}.items():
    x = torch.full((2,), 0.5, requires_grad=True)
    try:
        sample(x).sum().backward()
        seen[name] = x.grad.tolist()
    except RuntimeError:
        seen[name] = "raises"
    print(f"{name}: {seen[name]}")
assert [*seen.values()] == 3 * [[0, 0]] + 2 * ["raises"] + [[1, 1]]
PY
