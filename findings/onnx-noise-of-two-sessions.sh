#!/usr/bin/env bash
# onnxruntime 1.32.0 with PyTorch 2.14.1: a generator that draws its noise in the exported model.
#
# Guess: two sessions draw different noise, as two calls of the generator in torch do.
# Seen: each run of a session has new noise, but every session of a process begins with the same: a
# model that is loaded a second time repeats the images of the first, in the same order.
# onnxruntime.set_seed, called in between, gives another start. So samples of two sessions, made to
# have more of them, are no more, and their measures agree better than they should.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 numpy==2.2.6 onnx==1.23.2 \
    onnxruntime==1.32.0
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import io

import onnxruntime
import torch


class Generator(torch.nn.Module):
    def forward(self, shift):
        return torch.randn_like(shift) + shift


def session():
    run = onnxruntime.InferenceSession(file.getvalue()).run
    return [run(None, {"shift": torch.zeros(4).numpy()})[0].round(3).tolist() for _ in range(2)]


file = io.BytesIO()
torch.onnx.export(Generator(), (torch.zeros(4),), file, input_names=["shift"], dynamo=False)
first, second = session(), session()
onnxruntime.set_seed(1)
third = session()
print(*first, "another session:", *second, "after set_seed:", *third, sep="\n")
assert first == second and first[0] != first[1] and first[0] != third[0]
PY
