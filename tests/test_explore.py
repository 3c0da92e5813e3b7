"""explore.py: the page's functions against torch, in node; a page for the runs of each script."""

import base64
import json
import re
import shutil
import subprocess

import pytest
import torch
from conftest import ROOT, build
from torch import Tensor, nn

import binarygan
import cbigan
import common
import explore
import infogan
import wgan_gp_binary_seed

TEMPLATE = (ROOT / "explore.html").read_text(encoding="utf-8")


def javascript(expression: str, **variables):
    """The value of an expression, with the page's runtime and these variables; in node."""
    if not shutil.which("node"):
        pytest.skip("there is no node")
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


def decoded(text: str, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=dtype)


def with_rounded_weights(network: nn.Sequential, exported: list[dict]) -> nn.Sequential:
    """The network, batch normalization folded, with the weights of the page."""
    layers, parts = explore.folded(network), iter(exported)
    for layer in layers:
        if isinstance(layer, (nn.Linear, nn.ConvTranspose2d)):
            part = next(part for part in parts if "weight" in part)
            weight = layer.weight.data.transpose(0, 1)  # outputs first
            if isinstance(layer, nn.ConvTranspose2d):
                shape = layer.weight.shape
                whole = decoded(part["weight"], torch.int8).view(shape).transpose(0, 1)
            else:
                whole, weight = decoded(part["weight"], torch.int8).view(weight.shape).T, weight.T
            scale = decoded(part["scale"], torch.float32).view(-1, *[1] * (weight.dim() - 1))
            assert (whole.flatten(1).abs().amax(1) == 127).all()
            assert ((whole * scale - weight).abs() <= 0.5001 * scale).all()
            weight.copy_(whole * scale)
    return nn.Sequential(*layers)


def trained(network: nn.Module) -> nn.Module:
    """In eval mode, with batch normalization that does something."""
    for layer in network.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.2, 3)
            layer.weight.data.uniform_(0.5, 2)
            layer.bias.data.normal_()
    return network.eval()


class Twice(nn.Sequential):
    """One activation object in two places, and a Sequential inside."""

    def __init__(self):
        activation = nn.LeakyReLU(0.2)
        super().__init__(nn.Linear(9, 30), activation, nn.Sequential(
            nn.Linear(30, 20, bias=False), nn.BatchNorm1d(20), nn.Dropout(0.5), activation),
            nn.Identity(), nn.Linear(20, 4), nn.Tanh())


def transposed(**settings) -> nn.Sequential:
    """A layer of 6 x (4, 3) inputs and 5 channels of outputs, some of them cut off."""
    return nn.Sequential(nn.Unflatten(1, (6, 4, 3)), nn.ConvTranspose2d(6, 5, **settings),
                         nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten())


def infogan_generator() -> nn.Sequential:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(infogan, "HIDDEN", 64)  # of 1,024
        return infogan.generator()


NETWORKS = {
    "one activation twice": (Twice, 9),
    "kernel 4, stride 2, padding 1": (lambda: transposed(
        kernel_size=4, stride=2, padding=1), 72),
    "kernel 5, output_padding 1": (lambda: transposed(
        kernel_size=5, stride=2, padding=2, output_padding=1), 72),
    "no padding, no bias": (lambda: transposed(kernel_size=3, stride=2, bias=False), 72),
    "neither square": (lambda: transposed(
        kernel_size=(2, 5), stride=(3, 1), padding=(0, 2), output_padding=(1, 0)), 72),
    "binarygan mlp": (lambda: binarygan.generator("mlp", "batch"), 128),
    "binarygan cnn": (lambda: binarygan.generator("cnn", "batch"), 128),
    "infogan": (infogan_generator, 74),
    "wgan_gp_binary_seed": (lambda: wgan_gp_binary_seed.generator(19), 19),
    "encoder": (lambda: cbigan.Encoder().core, 784),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_against_torch(name):
    torch.manual_seed(0)
    build, inputs = NETWORKS[name]
    network, x = trained(build()), torch.randn(2, inputs)
    exported = explore.exported(network, inputs)
    with torch.no_grad():
        page, exact = outputs(exported, x), network(x)
        close = with_rounded_weights(network, exported)(x)
    assert exact.std() > 1e-3
    torch.testing.assert_close(page, close, atol=1e-4, rtol=1e-5)
    assert (page - exact).abs().mean() < 0.02 * exact.std()


@pytest.mark.parametrize("name", NETWORKS)
def test_batch_normalization_is_folded_exactly(name):
    torch.manual_seed(0)
    build, inputs = NETWORKS[name]
    network, x = trained(build()).double(), torch.randn(3, inputs, dtype=torch.float64)
    layers = explore.folded(network)
    assert not any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in layers)
    torch.testing.assert_close(nn.Sequential(*layers)(x), network(x), atol=1e-12, rtol=0)


@pytest.mark.parametrize("layer", [nn.GELU(), nn.Conv2d(1, 1, 3), nn.BatchNorm2d(2),
                                   nn.ConvTranspose2d(2, 2, 3, groups=2),
                                   nn.ConvTranspose2d(2, 2, 3, dilation=2)])
def test_other_layers_are_refused(layer):
    unflatten = nn.Unflatten(1, (layer.in_channels if hasattr(layer, "in_channels") else 2, 4, 4))
    network = nn.Sequential(unflatten, layer).eval()
    with pytest.raises(ValueError, match="the page has no layer"):
        explore.exported(network, 16 * unflatten.unflattened_size[0])


# ---- pages --------------------------------------------------------------------------------------


def page_of(folder, capsys) -> dict:
    """Write the page of a run; the data in it."""
    explore.main([str(folder)])
    assert capsys.readouterr().out == f"{folder}/explore.html: open it in a browser\n"
    page = (folder / "explore.html").read_text(encoding="utf-8")
    before, data, after = re.split(r'(?<=id="data">)(.*?)(?=</script>)', page, flags=re.S)
    assert before + "DATA" + after == TEMPLATE
    return json.loads(data)


def texts(value):
    """All texts in the data but numbers in base64."""
    if isinstance(value, (dict, list)):
        for part in value.items() if isinstance(value, dict) else value:
            yield from texts(list(part) if isinstance(part, tuple) else part)
    elif isinstance(value, str) and not re.fullmatch(r"[\w+/]{40,}=*", value):
        yield value


@pytest.mark.parametrize("name, options, images", [
    ("wgan_gp_binary_seed", "--low -1", lambda G, z: G(z)),
    ("wgan_gp_binary_seed", "--n-c 0 --n-b 3", lambda G, z: G(z)),
    ("infogan", "", lambda G, z: G(z)),
    ("binarygan", "", lambda G, z: G(z)),
    ("binarygan", "--arch cnn --neuron real --norm batch", lambda G, z: G(z)),
    ("bigan", "", lambda G, z: G(z)),
    ("cbigan", "", lambda G, z: G(z[:, :50], z[:, 50:])),
    ("cbigan", "--variant extended", lambda G, z: G(z[:, :50], z[:, 50:])),
])
def test_page_of_a_run(name, options, images, short, capsys):
    """Its networks give what the script's give with the weights of the checkpoint."""
    run = short(name, whole=False)
    folder = run("--epochs", "1", *options.split())
    capsys.readouterr()
    page = page_of(folder, capsys)
    assert page["title"] == f"{name}.py, epoch 1" and page["about"] in run.script.__doc__
    assert not [words for words in texts(page) if "http" in words]

    size = len(page["input"])
    for group in page["groups"]:
        longest = max(len(values) for _, values in group.get("choices", [("", [0])]))
        assert 0 <= group["start"] < group["start"] + max(longest, group.get("size", 1)) <= size
    saved = common.read_checkpoint(folder)
    networks = build(run.script, run.script.Options(**saved["options"]))
    for key in {"G", "average_G", "average_E"} & networks.keys():
        networks[key].load_state_dict(saved[key])
        networks[key].eval()
    torch.manual_seed(0)
    z = torch.randn(5, page.get("neurons", size))
    with torch.no_grad():
        exact = images(networks.get("average_G", networks["G"]), z)
    error = (outputs(page["G"], z) - exact).abs().mean()
    assert error < 0.002 and error < 0.05 * exact.std(0).mean()  # of what the inputs change
    if "E" in page:
        x = torch.stack([torch.frombuffer(bytearray(base64.b64decode(image)), dtype=torch.uint8)
                         for image in page["images"]]) / 255
        assert x.shape == (20, 784) and page["labels"] == [i // 2 for i in range(20)]
        with torch.no_grad():
            exact = networks["average_E"](x)
        assert (outputs(page["E"], x) - exact).abs().mean() < 0.02 * exact.std()


def test_http_appears_nowhere():
    assert "http" not in TEMPLATE and TEMPLATE.count("DATA") == 1
    assert len(TEMPLATE.splitlines()) <= 300
    assert len((ROOT / "explore.py").read_text().splitlines()) <= 190


def test_what_has_no_page_is_refused_in_a_line(short, tmp_path, capsys):
    run = short("recurrent_disc", whole=False)
    other, run = run("--epochs", "1", out="other"), short("infogan", whole=False)
    damaged, changed = run("--epochs", "1", out="damaged"), run("--epochs", "1", out="changed")
    with open(damaged / "checkpoint.pt", "r+b") as file:
        file.truncate(1000)
    run.script.generator = lambda: nn.Sequential(nn.Linear(74, 784), nn.Sigmoid())
    capsys.readouterr()
    for folder, words in ((tmp_path / "nowhere", "holds no whole checkpoint.pt"),
                          (damaged, "holds no whole checkpoint.pt"),
                          (other, "holds a run of recurrent_disc.py; accepted: bigan.py, cbigan"),
                          (changed, "infogan.py has changed since the run in")):
        with pytest.raises(SystemExit) as stop:
            explore.main([str(folder)])
        assert stop.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("explore.py: error: ") and words in line
        assert not (folder / "explore.html").exists()


# ---- drawings and binary neurons ----------------------------------------------------------------


def test_a_drawing_is_centered_and_scaled():
    """Wherever and however large it is drawn; 20 pixels, the center of its ink in the middle."""
    seven = [[[0, 0], [1, 0], [0.4, 1.6]], [[0.3, 0.8], [0.9, 0.8]]]
    small = [[[0.7 + 0.1 * x, 0.2 + 0.1 * y] for x, y in stroke] for stroke in seven]
    a, b = (torch.tensor(javascript("[...drawing(strokes)]", strokes=strokes)).view(28, 28)
            for strokes in (seven, small))
    torch.testing.assert_close(a, b, atol=1e-4, rtol=0)
    index = torch.arange(28.0)
    for dim in (0, 1):
        ink = a.sum(dim)
        assert abs((ink * index).sum() / ink.sum() - 14) < 0.5
    rows = (a.amax(1) > 0.5).nonzero().flatten()
    assert 19 <= rows.max() - rows.min() + 1 <= 21
    assert a.min() == 0 and a.max() == 1


def test_a_dot_is_a_drawing():
    dot = torch.tensor(javascript("[...drawing(strokes)]", strokes=[[[0.2, 0.9]]])).view(28, 28)
    assert dot[14, 14] == 1 and 5 < dot.sum() < 20


def test_drawn_lines_are_as_wide_as_those_of_real_ones(data):
    *_, x, y = data
    one = torch.tensor(javascript("[...drawing(s)]", s=[[[0.5, 0.1], [0.5, 0.9]]])).view(28, 28)
    real = x[y == 1].view(-1, 28, 28)[:, 14].sum(1).mean()  # slanted, and so a little wider
    assert 0.8 * real < one[14].sum() < real


def test_neurons():
    torch.manual_seed(0)
    x = torch.randn(784)
    p = torch.sigmoid(1.5 * x)
    views = [[0, 0], [-1, 0], [0.3, 0], [1, 0], [1, 1], [1, 1], [2, 0], [256, 0]]
    views = torch.tensor(javascript("views.map(view => [...neurons(x, 1.5, ...view)])",
                                    x=x.tolist(), views=views))
    torch.testing.assert_close(views[0], p)
    torch.testing.assert_close(views[1], 4 * p * (1 - p))
    assert torch.equal(views[2], (p > 0.3).float())
    first, second, same, mean, many = views[3:]
    assert {*first.tolist()} == {0, 1} and (first != second).float().mean() > 0.1
    torch.testing.assert_close(mean, (first + second) / 2)
    assert (first - p).abs().mean() > 0.2 and (many - p).abs().mean() < 0.04


def test_priors():
    samples = javascript("priors.map(prior => sample(prior, 4000))",
                         priors=["normal", "uniform", 0, -1])
    normal, uniform, bits, signs = map(torch.Tensor, samples)
    for numbers, deviation in ((normal, 1), (uniform, 3**-0.5), (bits, 0.5), (signs, 1)):
        assert abs(numbers.std() / deviation - 1) < 0.08
        assert abs(numbers.mean() - (0.5 if numbers is bits else 0)) < 0.08
    assert uniform.abs().max() <= 1 and normal.abs().max() > 2.5
    assert {*bits.tolist()} == {0, 1} and {*signs.tolist()} == {-1, 1}
