#!/usr/bin/env bash
# scikit-learn 1.9.1: score() of two density estimates, as for a generator's log-likelihood.
#
# Guess: both return the mean log-likelihood of a point, as GaussianMixture does.
# Seen: KernelDensity, the Parzen window of many papers' tables, returns the sum over all points:
# for 100 points it is 100 times as large, and grows with the test set. Both call it score(X).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet scikit-learn==1.9.1 numpy==2.2.6
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import numpy
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

x = numpy.random.default_rng(0).normal(size=(100, 1))
for model, divisor in (GaussianMixture().fit(x), 1), (KernelDensity().fit(x), 100):
    mean = model.score_samples(x).mean()
    print(f"{type(model).__name__}: score {model.score(x):.3f}, mean of a point {mean:.3f}")
    assert numpy.isclose(model.score(x) / divisor, mean) and -2 < mean < -1
PY
