#!/usr/bin/env bash
# PyTorch 2.14.1, autocast to bfloat16 on the CPU: means of a critic's scores.
#
# Guess: as PyTorch documents it for a GPU, where autocast takes sum, norm, exp and softplus to
# float32: layers compute in bfloat16, but what is summed up over a minibatch is float32.
# Seen: on the CPU sum, mean, norm, exp and softplus of bfloat16 give bfloat16, with three digits.
# The means of 10,000 scores each of real and generated images, near 100, differ by 0.25, in
# bfloat16 by 0.5. A gradient of norm 1.003 has norm 1, so no penalty. mse_loss and
# binary_cross_entropy_with_logits do give float32. Say scores.float() before a mean.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 numpy==2.2.6
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import torch
from torch.nn import functional

torch.manual_seed(0)
critic = torch.nn.Linear(64, 1)
torch.nn.init.constant_(critic.bias, 100.0)
with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
    generated, real = critic(torch.randn(10000, 64)), critic(torch.randn(10000, 64)) + 0.25
    dtypes = {f.__name__: f(real).dtype for f in (
        torch.sum, torch.mean, torch.norm, torch.exp, functional.softplus)}
    others = {f.__name__: f(real, real).dtype for f in (
        functional.mse_loss, functional.binary_cross_entropy_with_logits)}
    differences = [(real.mean() - generated.mean()).item(),
                   (real.float().mean() - generated.float().mean()).item()]
    gradient = (1.003 * functional.normalize(torch.randn(784), dim=0)).bfloat16()
    norms = [gradient.norm().item(), gradient.float().norm().item()]
print(dtypes, others)
print(f"in bfloat16 and float32: differences of means {differences}, norms {norms}")
assert {*dtypes.values()} == {torch.bfloat16} and {*others.values()} == {torch.float32}
assert differences[0] == 0.5 and abs(differences[1] - 0.25) < 0.01
assert norms[0] == 1 and abs(norms[1] - 1.003) < 0.001
PY
