#!/usr/bin/env bash
# JAX 0.10.2 beside PyTorch 2.9.1: the gradient penalty (|grad D(x)| - 1)^2 where D is flat.
#
# Guess: the norm at 0 has the gradient 0 in both, so that the penalty of a critic whose units are
# all dead does nothing.
# Seen: with PyTorch it is 0. With JAX it is not a number, and one such image is enough to make the
# gradient of a whole minibatch that. A small number under a root of one's own is the cure, and
# leaves the penalty there at 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet jax==0.10.2 torch==2.9.1 numpy==2.2.6
CUDA_VISIBLE_DEVICES= JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PY'
import jax
import jax.numpy as jnp
import torch

x = torch.zeros(3, requires_grad=True)
((x.norm() - 1) ** 2).backward()
gradients = {
    "torch": x.grad,
    "jax": jax.grad(lambda x: (jnp.linalg.norm(x) - 1) ** 2)(jnp.zeros(3)),
    "jax, root of one's own": jax.grad(
        lambda x: (jnp.sqrt((x * x).sum() + 1e-12) - 1) ** 2)(jnp.zeros(3))}
for name, gradient in gradients.items():
    print(f"{name}: {gradient.tolist()}")
values = [gradient.tolist() for gradient in gradients.values()]
assert values[0] == values[2] == 3 * [0] and all(value != value for value in values[1])
PY
