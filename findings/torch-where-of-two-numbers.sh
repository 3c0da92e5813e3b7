#!/usr/bin/env bash
# PyTorch 2.9.1 beside JAX 0.10.2: a LeakyReLU as x * where(x > 0, 1.0, 0.1), with x in bfloat16.
#
# Guess: the two numbers are as weak as in x * 0.1, so that the product stays in bfloat16.
# Seen: with JAX it does. With PyTorch where() of two numbers is a tensor of the default type, which
# is as strong as any, and the product is float32. Under autocast nothing warns: the next
# convolution takes bfloat16 again, after a pass over memory twice as wide and a conversion.
# where(x > 0, x, 0.1 * x), or where(...).to(x.dtype), stays in bfloat16.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.9.1 jax==0.10.2 numpy==2.2.6
CUDA_VISIBLE_DEVICES= JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PY'
import jax.numpy as jnp
import torch

x, y = torch.ones(3, dtype=torch.bfloat16), jnp.ones(3, jnp.bfloat16)
types = {
    "torch, x * 0.1": (x * 0.1).dtype,
    "torch, x * where(x > 0, 1.0, 0.1)": (x * torch.where(x > 0, 1.0, 0.1)).dtype,
    "torch, where(x > 0, x, 0.1 * x)": torch.where(x > 0, x, 0.1 * x).dtype,
    "jax, x * where(x > 0, 1.0, 0.1)": (y * jnp.where(y > 0, 1.0, 0.1)).dtype}
for name, kind in types.items():
    print(f"{name}: {kind}")
assert [str(kind).removeprefix("torch.") for kind in types.values()] == [
    "bfloat16", "float32", "bfloat16", "bfloat16"]
PY
