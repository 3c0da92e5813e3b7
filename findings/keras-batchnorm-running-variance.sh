#!/usr/bin/env bash
# Keras 3.12.0 with PyTorch 2.9.1, the running variance of batch normalization.
#
# Guess: a momentum of 0.9 in Keras is one of 0.1 in torch. With that, and one epsilon, both keep
# the same running variance.
# Seen: after one minibatch of 0 and 2, 1.0 in Keras and 1.1 in torch. Both normalize by the
# variance with 1/n, here 1. Keras keeps that; torch keeps the one with 1/(n - 1), here 2. With 64
# images in a minibatch it is 1.6% after a dense layer, little after a convolution, where n counts
# pixels, too. So the same weights make other images in evaluation, the more so the smaller the
# minibatch.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet keras==3.12.0 torch==2.9.1 numpy==2.2.6
KERAS_BACKEND=torch KERAS_HOME="$folder" CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import keras
import torch

minibatch = torch.tensor([[0.0], [2.0]])
ours = torch.nn.BatchNorm1d(1, momentum=0.1, eps=1e-5)
theirs = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
same = torch.allclose(ours(minibatch), theirs(minibatch, training=True))
kept = ours.running_var.item(), float(keras.ops.convert_to_numpy(theirs.moving_variance)[0])
print(f"equal outputs in training: {same}; running variance: torch {kept[0]:.3f}, "
      f"keras {kept[1]:.3f}")
assert same and abs(kept[0] - 1.1) < 1e-6 and abs(kept[1] - 1) < 1e-6
PY
