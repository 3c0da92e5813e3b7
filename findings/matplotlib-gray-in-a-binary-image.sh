#!/usr/bin/env bash
# matplotlib 3.11.2: a binary image of 28 x 28 pixels, shown by imshow() on more pixels than it has.
#
# Guess: enlarged, black stays black and white stays white; gray comes only from making it smaller.
# Seen: on twice as many pixels a side, and on 3.5 times as many, there are two values.
# At 1.5 and 2.5 times there are more than ten: the default interpolation smooths there. So samples
# of a binary generator look gray in a notebook, whose default figure shows 8 x 8 digits 1.6 times
# as large. interpolation="nearest" keeps two values at all four sizes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet matplotlib==3.11.2 numpy==2.2.6
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy

image = numpy.random.default_rng(0).random((28, 28)) > 0.8


def values(times, interpolation):
    figure = plt.figure(figsize=(0.28 * times, 0.28 * times), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1), frame_on=False, xticks=[], yticks=[])
    axes.imshow(image, cmap="gray", interpolation=interpolation)
    figure.canvas.draw()
    return len(numpy.unique(numpy.asarray(figure.canvas.buffer_rgba())[..., 0]))


for times in 1.5, 2, 2.5, 3.5:
    default, nearest = values(times, None), values(times, "nearest")
    print(f"{times} times as large: {default} values, with nearest {nearest}")
    assert nearest == 2 and (default > 10 if times in (1.5, 2.5) else default == 2)
PY
