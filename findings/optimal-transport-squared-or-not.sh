#!/usr/bin/env bash
# POT 0.9.7.post1 beside GeomLoss 0.3.1: W2 of two points at distance 3, asked for with p=2.
#
# Guess: what takes p=2 returns the distance W2, which is 3, or in all of them its square, 9.
# Seen: POT's wasserstein_1d returns 9, its sliced_wasserstein_distance 3 (points on a line: slicing
# changes nothing), and GeomLoss's SamplesLoss 4.5, since its cost is |x - y|^2 / 2. With p=1 all
# three have 3. So a critic's estimate of W1 must not be laid beside a number that was printed with
# another p, and two papers' "Wasserstein distance, p = 2" may differ by a root and by a half.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet POT==0.9.7.post1 geomloss==0.3.1 \
    torch==2.9.1 numpy==2.2.6 scipy==1.17.1
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import geomloss
import numpy
import ot
import torch

a, b = numpy.zeros((1, 1)), numpy.full((1, 1), 3.0)
for p, expected in (1, (3, 3, 3)), (2, (9, 3, 4.5)):
    values = (ot.wasserstein_1d(a[:, 0], b[:, 0], p=p),
              ot.sliced_wasserstein_distance(a, b, n_projections=10, p=p, seed=0),
              geomloss.SamplesLoss("sinkhorn", p=p, blur=1e-3)(
                  torch.tensor(a).float(), torch.tensor(b).float()).item())
    print(f"p = {p}: " + ", ".join(f"{name} {value:.3f}" for name, value in zip(
        ("wasserstein_1d", "sliced_wasserstein_distance", "SamplesLoss"), values)))
    assert numpy.allclose(values, expected, atol=1e-3)
PY
