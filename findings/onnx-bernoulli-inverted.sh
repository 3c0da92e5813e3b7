#!/usr/bin/env bash
# onnx 1.23.2 and onnxruntime 1.32.0, torch.bernoulli exported by PyTorch 2.14.1.
#
# Guess: torch.bernoulli(p) becomes ONNX's operator Bernoulli, which is 1 with the probability p.
# Seen: exported for opset 15 or 20 it is 1 with the probability 1 - p: of p = 0.1 come 90% of ones,
# of p = 0 nothing else. ONNX spells the operator out as a uniform number compared with p the wrong
# way around, and onnxruntime runs that; onnx's own reference evaluator does not. For opset 13 it is
# right, as is (torch.rand_like(p) < p) for all. So a generator whose binary neurons use
# torch.bernoulli runs with every probability inverted, without a word.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 numpy==2.2.6 onnx==1.23.2 \
    onnxruntime==1.32.0
CUDA_VISIBLE_DEVICES= "$folder/venv/bin/python" - <<'PY'
import io

import onnx.reference
import onnxruntime
import torch


class Neurons(torch.nn.Module):
    def forward(self, p):
        return torch.bernoulli(p), (torch.rand_like(p) < p).float()


p = torch.full((100000,), 0.1)
for opset in 13, 15, 20:
    file = io.BytesIO()
    torch.onnx.export(Neurons(), (p,), file, input_names=["p"], opset_version=opset, dynamo=False)
    run = onnxruntime.InferenceSession(file.getvalue()).run
    means = [[round(float(y.mean()), 2) for y in run(None, {"p": q.numpy()})] for q in (p, 0 * p)]
    evaluator = onnx.reference.ReferenceEvaluator(onnx.load_from_string(file.getvalue()))
    other = round(float(evaluator.run(None, {"p": p.numpy()})[0].mean()), 2)
    print(f"opset {opset}: ones of p = 0.1 and of p = 0 {means}, reference {other}")
    assert means == ([[0.1, 0.1], [0, 0]] if opset == 13 else [[0.9, 0.1], [1, 0]]) and other == 0.1
PY
