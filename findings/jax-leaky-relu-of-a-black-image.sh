#!/usr/bin/env bash
# JAX 0.10.2 beside PyTorch 2.9.1: the gradient of LeakyReLU, slope 0.2, at exactly 0.
#
# Guess: the same number in both, and 0 never occurs.
# Seen: 0.2 with PyTorch, 1 with JAX. And 0 does occur: a black image through layers whose biases
# begin with 0, as Flax's and Keras's do, is 0 at every unit. The critic's gradient
# there, which the gradient penalty drives to the length 1, is in JAX five times as long for each
# LeakyReLU: 25 times with two. jnp.abs has 1 there, torch.abs 0; both have 0 for relu.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet jax==0.10.2 torch==2.9.1 numpy==2.2.6
CUDA_VISIBLE_DEVICES= JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PY'
import jax
import jax.numpy as jnp
import numpy
import torch
from torch.nn import functional

seen = {}
for name, ours, theirs in (("leaky_relu", functional.leaky_relu, jax.nn.leaky_relu),
                           ("abs", lambda x, _: x.abs(), lambda x, _: jnp.abs(x)),
                           ("relu", lambda x, _: x.relu(), lambda x, _: jax.nn.relu(x))):
    x = torch.zeros(1, requires_grad=True)
    ours(x, 0.2).sum().backward()
    seen[name] = x.grad.item(), jax.grad(lambda x: theirs(x, 0.2).sum())(jnp.zeros(1)).item()
    print(f"{name} at 0: torch {seen[name][0]:.1f}, jax {seen[name][1]:.1f}")
assert numpy.allclose([*seen.values()], [[0.2, 1], [0, 1], [0, 0]])

draw = numpy.random.default_rng(0)
sizes = (784, 512), (512, 256), (256, 1)
weights = [draw.standard_normal(size).astype("float32") / 28 for size in sizes]


def critic(x, leaky, weights):
    return leaky(leaky(x @ weights[0], 0.2) @ weights[1], 0.2) @ weights[2]


black = torch.zeros(1, 784, requires_grad=True)
critic(black, functional.leaky_relu, [*map(torch.tensor, weights)]).sum().backward()
other = jax.grad(lambda x: critic(x, jax.nn.leaky_relu, weights).sum())(jnp.zeros((1, 784)))
ratio = float(jnp.linalg.norm(other)) / black.grad.norm().item()
print(f"length of the critic's gradient at a black image: jax {ratio:.1f} times torch's")
assert abs(ratio - 25) < 0.1
PY
