#!/usr/bin/env bash
# PyTorch 2.14.1 on a CPU: the first noise vectors of a seed, when more or fewer of them are drawn.
#
# Guess: randn(20) begins with the numbers of randn(16), and these with those of randn(15): one
# seed, one stream, of which more or less is taken.
# Seen: randn(15) differs from randn(16) in every place. randn(16) and randn(32) begin alike. Of the
# first 16 numbers of randn(20) only four are theirs. From 16 numbers on, normals are made in blocks
# of 16, and where the count is no multiple of 16, the last 16 are drawn once more; below 16 it is
# another method. So "the samples of seed 0" depend on how many one asks for: draw 64 and take the
# first ten.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 numpy==2.2.6
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import torch


def randn(count):
    torch.manual_seed(0)
    return torch.randn(count)


def alike(few, many, count):
    equal = (randn(few)[:count] == randn(many)[:count]).sum().item()
    print(f"randn({few}) and randn({many}): {equal} of the first {count} numbers are equal")
    return equal


assert [alike(15, 16, 15), alike(16, 32, 16), alike(20, 32, 16)] == [0, 16, 4]
PY
