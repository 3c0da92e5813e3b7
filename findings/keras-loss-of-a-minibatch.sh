#!/usr/bin/env bash
# Keras 3.12.0 with PyTorch 2.9.1, the number that train_on_batch returns.
#
# Guess: the loss of this minibatch, as in Keras 1 and 2; a GAN's curves are made of it.
# Seen: the mean over all minibatches since the last reset. Losses of 1, 0, 0, 0 are returned as
# 1.0, 0.5, 0.333, 0.25; test_on_batch goes on with the same mean, 0.2. So the curves of a GAN that
# is trained with it look calm and seem to converge, and after a thousand steps a collapse hardly
# shows. With reset_metrics() before each call it is as guessed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet keras==3.12.0 torch==2.9.1 numpy==2.2.6
KERAS_BACKEND=torch KERAS_HOME="$folder" CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import keras
import numpy as np

found = {}
for reset in False, True:
    model = keras.Sequential([
        keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    found[reset] = []
    for step in (model.train_on_batch,) * 4 + (model.test_on_batch,):
        if reset:
            model.reset_metrics()
        target = np.full((4, 1), 0.0 if found[reset] else 1.0)
        found[reset].append(round(float(step(np.ones((4, 1)), target)), 3))
    print(f"reset_metrics() before each call {reset}: {found[reset]}")
assert found == {False: [1, 0.5, 0.333, 0.25, 0.2], True: [1, 0, 0, 0, 0]}
PY
