"""A page to play with: the networks of a run in one HTML file, which runs them in a browser.

    python explore.py runs/cbigan/FOLDER    writes explore.html into that folder

The page needs no server, no network and no library. Beside a large picture stand rows of small
ones: each is the large one with one part of G's input replaced, and a click takes it.

    bigan.py, cbigan.py       draw a digit; its reconstruction, the same code with other labels
    wgan_gp_binary_seed.py    each bit of z_b flipped; other z_c with the same bits
    infogan.py                the codes c1, c2 and c3
    binarygan.py              p, its gradient, thresholds, draws and their mean, the slope

How a network gets there: batch normalization is folded into the layer before it, and weights are
rounded to int8, with a scale for each output unit.
"""

import argparse
import base64
import json
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

import bigan
import binarygan
import cbigan
import common
import infogan
import wgan_gp_binary_seed

# ---- networks -----------------------------------------------------------------------------------


def loaded(network: nn.Module, weights: dict) -> nn.Module:
    network.load_state_dict(weights)
    return network.eval()


def folded(network: nn.Sequential) -> list[nn.Module]:
    """The layers in turn, in eval mode, batch normalization folded into the layer before it."""
    layers = []
    for layer in network:
        before = layers[-1] if layers else None
        if isinstance(layer, nn.Sequential):
            layers += folded(layer)
        elif isinstance(layer, nn.BatchNorm1d) and isinstance(before, nn.Linear):
            layers[-1] = fuse_linear_bn_eval(before, layer)
        elif isinstance(layer, nn.BatchNorm2d) and isinstance(before, nn.ConvTranspose2d):
            layers[-1] = fuse_conv_bn_eval(before, layer, transpose=True)
        elif not isinstance(layer, (nn.Identity, nn.Dropout)):
            layers.append(layer)
    return layers


def text(numbers: Tensor) -> str:
    """The bytes of a tensor in base64, its last dimension fastest."""
    return base64.b64encode(numbers.numpy().tobytes()).decode()


@torch.no_grad()
def exported(network: nn.Sequential, inputs: int) -> list[dict]:
    """The layers of a network, (N, inputs) -> (N, outputs), as explore.html runs them.

    Raises ValueError where it does not know one.
    """
    found, x = [], torch.zeros(1, inputs)
    for layer in folded(network):
        y, kind = layer(x), type(layer).__name__
        if kind == "Linear" or kind == "ConvTranspose2d" and {layer.groups, *layer.dilation} == {1}:
            weight = layer.weight if kind == "Linear" else layer.weight.transpose(0, 1)
            scale = weight.flatten(1).abs().amax(1).clamp(min=1e-30) / 127  # for each output unit
            whole = (weight.flatten(1) / scale[:, None]).round().to(torch.int8).view(weight.shape)
            bias = torch.zeros_like(scale) if layer.bias is None else layer.bias
            found.append(dict(kind=kind, weight=text(whole.transpose(0, 1))))
            found[-1] |= dict(scale=text(scale), bias=text(bias))
            if kind == "ConvTranspose2d":
                found[-1] |= dict(input=x.shape[1:], output=y.shape[1:], stride=layer.stride,
                                  kernel=layer.kernel_size, padding=layer.padding)
        elif kind in ("ReLU", "LeakyReLU"):
            found.append(dict(kind="LeakyReLU", slope=getattr(layer, "negative_slope", 0)))
        elif kind in ("Sigmoid", "Tanh"):
            found.append(dict(kind=kind))
        elif kind not in ("Flatten", "Unflatten"):
            raise ValueError(f"the page has no layer {layer}; accepted: Linear and ConvTranspose2d,"
                             " batch normalization after them, ReLU, LeakyReLU, Sigmoid, Tanh")
        x = y
    return found


# ---- pages --------------------------------------------------------------------------------------
# `input` is G's first input, a sample where there is a prior. In a group's pictures other numbers
# stand in it, from `start` on: `choices` with their labels; one of `size` bits flipped, from `flip`
# to 1 or back; or `size` numbers from a prior: normal, uniform, or the lower value of a bit.


def bigan_page(script: ModuleType, saved: dict) -> dict:
    """That of bigan.py and of cbigan.py."""
    options, n, labels, first = saved["options"], script.LATENT, getattr(script, "CLASSES", 0), []
    G = script.Generator(options["variant"]) if labels else script.Generator()
    E, G = loaded(script.Encoder(), saved["average_E"]), loaded(G, saved["average_G"])
    if options.get("variant") == "extended":  # the layers of z and c as one
        first = [nn.Linear(n + labels, len(G.z[0].bias) + len(G.c[0].bias)), nn.ReLU()]
        first[0].weight.data = torch.block_diag(G.z[0].weight, G.c[0].weight)
        first[0].bias.data = torch.cat([G.z[0].bias, G.c[0].bias])
    *_, x, y = common.load_images(options["data"], options["dataset"])
    found = torch.cat([(y == label).nonzero().flatten()[:2] for label in y.unique()])
    groups = [dict(title="The same code with each label; in brackets the distance to x", start=n,
                   choices=[*enumerate(torch.eye(labels).tolist())]),
              dict(title="From the last x to this one: codes between", start=0),
              dict(title="Other codes", start=0, size=n, prior="uniform")]
    return dict(caption="G(E(x), c)" if labels else "G(E(x))", input=[0] * (n + labels),
                E=exported(E.core, 784), groups=groups if labels else groups[1:],
                G=exported(nn.Sequential(*first, G.core, nn.Sigmoid()), n + labels),
                images=[text(image) for image in (255 * x[found]).round().byte()],
                labels=y[found].tolist())


def seed_page(script: ModuleType, saved: dict) -> dict:
    n_c, n_b, low = (saved["options"][name] for name in ("n_c", "n_b", "low"))
    G = loaded(script.generator(n_c + n_b), saved["G"])
    groups = [dict(title="One bit flipped: its number, its new value", start=n_c, flip=low,
                   size=min(n_b, 100)),
              dict(title="Other z_c, the same bits", start=0, size=n_c, prior="normal"),
              dict(title="Other bits, the same z_c", start=n_c, size=n_b, prior=low)]
    return dict(caption="G(z_c, z_b)", G=exported(G, n_c + n_b), input=[0] * (n_c + n_b),
                groups=[group for group in groups if group["size"]])


def infogan_page(script: ModuleType, saved: dict) -> dict:
    n, k = script.NOISE, script.CATEGORIES
    one_hot, across = torch.eye(k).tolist(), [(i / 2, [i / 2]) for i in range(-4, 5)]
    return dict(caption="G(z, c)", G=exported(loaded(script.generator(), saved["G"]), n + k + 2),
                input=[0] * n + [1] + [0] * (k + 1), groups=[
                    dict(title="c1: a category", start=n, choices=[*enumerate(one_hot)]),
                    dict(title="c2: from -1 to 1 in training", start=n + k, choices=across),
                    dict(title="c3: from -1 to 1 in training", start=n + k + 1, choices=across),
                    dict(title="z: other noise", start=0, size=n, prior="uniform")])


def binarygan_page(script: ModuleType, saved: dict) -> dict:
    options, n = saved["options"], script.LATENT
    G = loaded(script.generator(options["arch"], options["norm"]), saved["G"])
    slope = 1 if options["neuron"] == "real" else options["anneal"] ** max(0, saved["epoch"] - 1)
    return dict(caption="p, or what is made of it", G=exported(G, n), neurons=n,
                input=[0] * n + [slope, 0, 0], groups=[  # see `neurons` in explore.html
                    dict(title="p, its gradient p (1 - p) (white is 1/4), thresholds",
                         start=n + 1, choices=[("p", [0, 0]), ("gradient", [-1, 0])] + [
                             (f"p > {t / 10}", [t / 10, 0]) for t in range(1, 10, 2)]),
                    dict(title="SBN: ten draws, and means of N draws", start=n + 1, choices=[
                        *((i, [1, i]) for i in range(1, 11)),
                        *((f"N = {2**i}", [2**i, 0]) for i in range(1, 9))]),
                    dict(title=f"The slope, in this run {slope:.3g}", start=n, choices=[
                        (f"{f * slope:.2g}", [f * slope]) for f in (0.25, 0.5, 1, 2, 4, 8)]),
                    dict(title="z: other noise", start=0, size=n, prior="normal")])


PAGES = {"bigan.py": (bigan, bigan_page), "cbigan.py": (cbigan, bigan_page),
         "wgan_gp_binary_seed.py": (wgan_gp_binary_seed, seed_page),
         "infogan.py": (infogan, infogan_page), "binarygan.py": (binarygan, binarygan_page)}


def main(argv: list[str] | None = None) -> None:
    """The program: status 0, or 2 where the folder holds no run that has a page."""
    parser = argparse.ArgumentParser("explore.py", argparse.SUPPRESS, __doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="of the run")
    folder = parser.parse_args(argv).folder
    try:
        saved = common.read_checkpoint(folder)
        script = saved["script"]
        if script not in PAGES:
            raise ValueError(f"{folder} holds a run of {script}; accepted: {', '.join(PAGES)}")
        module, make = PAGES[script]
        page = make(module, saved) | dict(title=f"{script}, epoch {saved['epoch']}",
                                          about=module.__doc__.splitlines()[0])
        data = json.dumps(page).replace("<", "\\u003c")  # nothing in it ends the page's script
        template = Path(__file__).with_name("explore.html").read_text(encoding="utf-8")
        common.write_whole(folder / "explore.html", template.replace("DATA", data, 1).encode())
    except (OSError, ValueError) as error:
        parser.error(str(error))
    except (RuntimeError, KeyError):
        parser.error(f"{script} has changed since the run in {folder} began; begin another run")
    print(f"{folder / 'explore.html'}: open it in a browser")


if __name__ == "__main__":
    main()
