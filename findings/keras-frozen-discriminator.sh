#!/usr/bin/env bash
# Keras 3.12.0 with PyTorch 2.9.1, the usual GAN: compile D; freeze it, D.trainable = False; compile
# G and D in one model; then call train_on_batch of D and of both in turn.
#
# Guess, from Keras 1 and 2: trainable counts when a model is compiled. So D, compiled before it was
# frozen, learns in its own steps, and not in those of both.
# Seen: D never learns. Its weights do not move in its own steps either; there is a warning, no
# error. G learns to please a D that is as it was drawn. Set D.trainable before every step: True for
# D's own, False for that of both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet keras==3.12.0 torch==2.9.1 numpy==2.2.6
KERAS_BACKEND=torch KERAS_HOME="$folder" CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import keras
import numpy as np


def train(switch):
    keras.utils.set_random_seed(0)
    d = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    d.compile("sgd", "mse")
    d.trainable = False
    g = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    both = keras.Sequential([keras.Input((2,)), g, d])
    both.compile("sgd", "mse")
    moved = []
    for model in d, both:
        d.trainable = switch and model is d
        before = [net.get_weights()[0] for net in (d, g)]
        model.train_on_batch(np.ones((4, 2)), np.ones((4, 1)))
        moved.append([bool((n.get_weights()[0] != w).any()) for n, w in zip((d, g), before)])
    print(f"D switched {switch}: D, G moved in D's step {moved[0]}, in both's {moved[1]}")
    return moved


assert train(False) == [[False, False], [False, True]]
assert train(True) == [[True, False], [False, True]]
PY
