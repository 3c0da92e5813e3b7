#!/usr/bin/env bash
# torchinfo 1.8.0: the table of a network's layers, printed between the seed and the training.
#
# Guess: summary() looks at the network and leaves the random stream alone, so that a training gives
# the same bits with and without it.
# Seen: given an input_size, it draws a random input from the global stream, even with verbose=0,
# and what follows is another training. Without input_size it draws nothing. Print before you seed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torchinfo==1.8.0 torch==2.14.1 numpy==2.2.6
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import torch
import torchinfo

network = torch.nn.Linear(4, 4)


def noise(**arguments):
    torch.manual_seed(0)
    torchinfo.summary(network, verbose=0, **arguments)
    return torch.rand(3)


torch.manual_seed(0)
alone, without, given = torch.rand(3), noise(), noise(input_size=(2, 4))
print("alone", alone.tolist())
print("after summary(network)", without.tolist())
print("after summary(network, input_size=(2, 4))", given.tolist())
assert alone.equal(without) and not alone.equal(given)
PY
