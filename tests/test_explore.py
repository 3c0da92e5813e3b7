"""explore.py: the page's functions against torch, in node; a page for the runs of each script."""

import base64
import json
import re
import shutil
import subprocess

import pytest
import torch
from conftest import ROOT, SHORT
from torch import Tensor, nn

import binarygan
import cbigan
import explore
import infogan

TEMPLATE = (ROOT / "explore.html").read_text(encoding="utf-8")
node = pytest.mark.skipif(not shutil.which("node"), reason="there is no node")


def javascript(expression: str, **variables):
    """The value of an expression, with the page's runtime and these variables."""
    (runtime,) = re.findall(r'<script id="runtime">(.*?)</script>', TEMPLATE, re.S)
    names = "".join(f"const {name} = input.{name};\n" for name in variables)
    program = (f"{runtime}\nconst input = JSON.parse(require('fs').readFileSync(0, 'utf8'));\n"
               f"{names}console.log(JSON.stringify({expression}));")
    done = subprocess.run(["node", "-e", program], input=json.dumps(variables), text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def outputs(network: list[dict], x: Tensor) -> Tensor:
    """What the page's runtime makes of the inputs (N, n)."""
    rows = javascript("x.map(row => [...run(network.map(unpack), row)])", network=network,
                      x=x.tolist())
    return torch.tensor(rows)


def with_rounded_weights(network: nn.Sequential) -> nn.Sequential:
    """The network, batch normalization folded, with the numbers that the page has."""
    layers = explore.folded(network)
    for layer in layers:
        if isinstance(layer, (nn.Linear, nn.ConvTranspose2d)):
            weight = layer.weight.T if isinstance(layer, nn.Linear) else layer.weight
            units = [unit / unit.abs().max() * 127 for unit in weight.detach().unbind(1)]
            scales = [unit.abs().max() / 127 for unit in weight.detach().unbind(1)]
            whole = torch.stack([unit.round() * scale for unit, scale in zip(units, scales)], 1)
            layer.weight.data = whole.T if isinstance(layer, nn.Linear) else whole
    return nn.Sequential(*layers)


def trained(network: nn.Module) -> nn.Module:
    """In eval mode, with running statistics and weights of batch normalization that do something."""
    for layer in network.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.2, 3)
            layer.weight.data.uniform_(0.5, 2)
            layer.bias.data.normal_()
    return network.eval()
