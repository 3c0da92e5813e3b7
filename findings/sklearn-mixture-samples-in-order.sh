#!/usr/bin/env bash
# scikit-learn 1.9.1, GaussianMixture.sample, as real data for a GAN on eight Gaussians.
#
# Guess: the samples are independent, in random order: the first of 8,000 are from all modes.
# Seen: the samples are sorted by component. Only their numbers are random. The first 500 are all of
# one mode, and minibatches that are slices show a discriminator one mode after the other: a
# generator that follows collapses, by no fault of the objective. KernelDensity.sample draws in
# random order.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet scikit-learn==1.9.1 numpy==2.2.6
"$folder/venv/bin/python" - <<'PY'
import numpy
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

angle = numpy.arange(8) * numpy.pi / 4
means = numpy.stack([numpy.cos(angle), numpy.sin(angle)], 1)
mixture = GaussianMixture(8, means_init=means, random_state=0).fit(
    numpy.repeat(means, 50, 0) + 0.02 * numpy.random.default_rng(0).standard_normal((400, 2)))
_, component = mixture.sample(8000)
points = KernelDensity(bandwidth=0.02).fit(means).sample(8000, random_state=0)
nearest = ((points[:, None] - means) ** 2).sum(2).argmin(1)
print(f"modes among the first 500: GaussianMixture {len(set(component[:500]))}, "
      f"KernelDensity {len(set(nearest[:500]))}")
assert (numpy.diff(component) >= 0).all() and len(set(component[:500])) == 1
assert len(set(nearest[:500])) == 8
PY
