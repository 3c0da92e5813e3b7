#!/usr/bin/env bash
# prdc 0.2.0 (precision, recall, density, coverage of a generator), on binary images.
#
# Guess: a generator that gives back the very set of real images has precision, recall and coverage
# of 1, and a density of 1.
# Seen: if every image stands ten times in the set, as simple binary images may, all four are 0. The
# balls around real images reach to the k-th neighbor, here at distance 0, and prdc asks for less
# than the radius. With 200 binary images of 16 pixels, few of them equal, three are 1 but the
# density is 0.665: many distances tie with the radius. Normal vectors have 1 everywhere.
# So on binary images these numbers measure ties; a generator that repeats itself can score 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet prdc==0.2 scikit-learn==1.7.2 numpy==2.2.6
"$folder/venv/bin/python" - <<'PY'
import numpy as np
from prdc import compute_prdc

rng = np.random.default_rng(0)
repeated = rng.integers(0, 2, (20, 16)).astype(float).repeat(10, 0)
distinct = rng.integers(0, 2, (200, 16)).astype(float)
normal = rng.normal(size=(200, 16))
found = [[round(float(value), 3) for value in compute_prdc(x, x.copy(), nearest_k=5).values()]
         for x in (repeated, distinct, normal)]
print("precision, recall, density, coverage of a set beside itself:", *found, sep="\n")
assert found == [[0, 0, 0, 0], [1, 1, 0.665, 1], [1, 1, 1, 1]]
PY
