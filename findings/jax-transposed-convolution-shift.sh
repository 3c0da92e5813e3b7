#!/usr/bin/env bash
# JAX 0.10.2 beside PyTorch 2.9.1: a generator's transposed convolution, 5 x 5, stride 2, 7 to 14.
#
# Guess: lax.conv_transpose with "SAME" and transpose_kernel=True, which is the gradient of a
# convolution, is conv_transpose2d with padding 2 and output_padding 1, the usual way from 7 to 14.
# Seen: with the same weights the picture is moved by one pixel to the right and down: it is that of
# padding 1 without its last row and column. "SAME" pads a convolution from 14 to 7 by 1 in front
# and 2 behind, PyTorch's padding 2 by 2 and (in effect) 1. Weights that are taken over from one to
# the other draw the digits shifted, and at each doubling of the size again.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet jax==0.10.2 torch==2.9.1 numpy==2.2.6
CUDA_VISIBLE_DEVICES= JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PY'
import jax
import numpy
import torch

draw = numpy.random.default_rng(0)
x, kernel = (draw.standard_normal(s).astype("float32") for s in ((1, 7, 7, 3), (5, 5, 1, 3)))
same = numpy.array(jax.lax.conv_transpose(
    x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
    transpose_kernel=True))[0, :, :, 0]
usual, other = (torch.nn.functional.conv_transpose2d(
    torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(kernel).permute(3, 2, 0, 1), stride=2,
    padding=padding, output_padding=extra)[0, 0].numpy() for padding, extra in ((2, 1), (1, 0)))
differences = [abs(a - b).max() for a, b in (
    (usual, same), (usual[:13, :13], same[1:, 1:]), (other[:14, :14], same))]
print(f"largest difference from padding 2 {differences[0]:.2f}, when moved by one pixel "
      f"{differences[1]:.1e}, from padding 1, cropped, {differences[2]:.1e}")
assert usual.shape == same.shape == (14, 14)
assert differences[0] > 1 and max(differences[1:]) < 1e-4
PY
