#!/usr/bin/env bash
# Keras 3.12.0 with PyTorch 2.9.1, spectral normalization (of a critic's layers).
#
# Guess: SpectralNormalization(Dense) is W / sigma(W) in every call, as torch's spectral_norm is. So
# it is normalized in evaluation, too; and since the scale of W does not matter, the gradient with
# respect to W is orthogonal to W.
# Seen: neither. A call in evaluation uses the kernel as it is, sigma 7.28 here, until a call in
# training has come before it. That call overwrites the kernel with W / sigma, and takes the
# gradient with respect to the new kernel: the cosine of kernel and gradient is 0.835, with torch 0.
# Keras projects the weights before each step, torch differentiates through sigma: two different
# trainings.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet keras==3.12.0 torch==2.9.1 numpy==2.2.6
KERAS_BACKEND=torch KERAS_HOME="$folder" CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import keras
import torch

torch.manual_seed(0)
x = torch.randn(32, 16)
kernel = torch.randn(16, 8)
dense = keras.layers.Dense(8, use_bias=False)
theirs = keras.layers.SpectralNormalization(dense, power_iterations=50)
theirs.build((32, 16))
dense.kernel.assign(kernel)
ours = torch.nn.Linear(16, 8, bias=False)
ours.weight.data = kernel.T.clone()
ours = torch.nn.utils.parametrizations.spectral_norm(ours, n_power_iterations=50)


def cosine(weight):
    return torch.cosine_similarity(weight.flatten(), weight.grad.flatten(), 0).item()


unchanged = torch.allclose(theirs(x, training=False), x @ kernel, atol=1e-5)
sigma = torch.linalg.matrix_norm(kernel, 2).item()
theirs(x, training=True).square().mean().backward()
ours(x).square().mean().backward()
after = torch.linalg.matrix_norm(dense.kernel.value.detach(), 2).item()
cosines = cosine(ours.parametrizations.weight.original), cosine(dense.kernel.value)
print(f"in evaluation keras uses the kernel as it is: {unchanged}, sigma {sigma:.2f}; "
      f"after a call in training {after:.2f}")
print(f"cosine of kernel and gradient: torch {cosines[0]:.3f}, keras {cosines[1]:.3f}")
assert unchanged and abs(sigma - 7.28) < 0.01 and abs(after - 1) < 0.01
assert abs(cosines[0]) < 1e-3 and abs(cosines[1] - 0.835) < 0.01
PY
