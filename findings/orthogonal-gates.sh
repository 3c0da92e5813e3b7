#!/usr/bin/env bash
# Keras 3.12.0 and PyTorch 2.9.1, orthogonal initialization of a recurrent layer.
#
# Guess: the matrix of each gate is orthogonal, so that it keeps the length of the state: all its
# singular values are 1. It is the default of LSTM and GRU in Keras, and in PyTorch the purpose of
# orthogonal_(layer.weight_hh_l0).
# Seen: all gates' matrices are one, for an LSTM with 64 units 64 x 256, and that one is orthogonal.
# The singular values of one gate's block go from almost 0 to 0.87, with a root mean square of 0.50;
# for a GRU to 0.94, and 0.58. So the gates of a recurrent generator begin with half the signal that
# the word promises. Initialize each block by itself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet keras==3.12.0 torch==2.9.1 numpy==2.2.6
KERAS_BACKEND=torch KERAS_HOME="$folder" CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import keras
import torch

torch.manual_seed(0)
keras.utils.set_random_seed(0)
for name, size, largest in ("LSTM", 0.5, 0.87), ("GRU", 3 ** -0.5, 0.94):
    theirs = getattr(keras.layers, name)(64)
    theirs.build((1, 5, 8))
    ours = getattr(torch.nn, name)(8, 64)
    torch.nn.init.orthogonal_(ours.weight_hh_l0)
    for weight in theirs.cell.recurrent_kernel.value.detach().T, ours.weight_hh_l0.detach():
        whole = torch.linalg.svdvals(weight)
        gates = torch.linalg.svdvals(weight.reshape(-1, 64, 64))
        rms = gates.square().mean().sqrt()
        print(f"{name}: all {whole.min():.2f} to {whole.max():.2f}, one gate {gates.min():.2f} "
              f"to {gates.max():.2f}, root mean square {rms:.2f}")
        assert torch.allclose(whole, torch.ones(64), atol=1e-4)
        assert gates.min() < 0.03 and abs(gates.max() - largest) < 0.02 and abs(rms - size) < 1e-3
    for block in ours.weight_hh_l0.detach().split(64):
        torch.nn.init.orthogonal_(block)
        assert torch.allclose(torch.linalg.svdvals(block), torch.ones(64), atol=1e-4)
PY
