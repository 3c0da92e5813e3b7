#!/usr/bin/env bash
# PyTorch 2.9.1, swa_utils.AveragedModel with get_ema_multi_avg_fn(0.999), as for a generator's EMA.
#
# Guess: the average begins as the initial weights, and its first update keeps 0.999 of them: a
# weight that was 0 and is 1 now is 0.001 on average.
# Seen: it is 1. The first update copies the weights, the second is the first to average. An average
# that is written by hand, average.lerp_(weight, 0.001) after every step, goes another way: it holds
# 0.37 of the initial weights after a thousand steps, where this one holds 0.37 of those after the
# first step, and nothing of the initial ones.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.9.1 numpy==2.2.6
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

model = torch.nn.Linear(1, 1, bias=False)
torch.nn.init.zeros_(model.weight)
average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))
by_hand, seen = model.weight.detach().clone(), []
for value in 1.0, 2.0:
    torch.nn.init.constant_(model.weight, value)
    average.update_parameters(model)
    by_hand.lerp_(model.weight.detach(), 0.001)
    seen.append((average.module.weight.item(), by_hand.item()))
    print(f"weight {value}: AveragedModel {seen[-1][0]:.4f}, by hand {seen[-1][1]:.4f}")
assert torch.allclose(torch.tensor(seen), torch.tensor([[1, 0.001], [1.001, 0.002999]]))
PY
