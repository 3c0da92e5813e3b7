"""What the tests share: the data set, loaded once, and short runs of every script."""

import importlib
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the tests' tensors are small

import pytest
import torch
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

import common

ROOT = Path(__file__).resolve().parent.parent
SHORT = {  # options of a short run of each script, and constants that shorten it further
    "gan_toy": ("--batch-size 16", {"SAMPLES": 50, "STEPS_PER_EPOCH": 2}),
    "wasserstein_toy": ("", {"STEPS_1D": 4, "STEPS_PLANE": 4, "STEPS_DEEP": 4, "SAMPLES": 50,
                             "GRID": torch.linspace(-8, 8, 401, dtype=torch.float64),
                             "pdf_between": lambda P, Q, x: torch.full_like(x, 1 / 16)}),
    "wgan_gp_binary_seed": ("--batch-size 2 --train-size 8",
                            {"SAMPLES": 30, "CRITIC_STEPS": 2, "BLOCK": 2, "LAST": 2}),
    "binarygan": ("--batch-size 32 --train-size 64",
                  {"SAMPLES": 30, "critic_steps": lambda *_: 2}),
    "infogan": ("--batch-size 16 --train-size 32", {"SAMPLES": 30, "HIDDEN": 16}),
    "bigan": ("--batch-size 32 --train-size 64",
              {"SAMPLES": 30, "HIDDEN": 16, "tsne": lambda codes, seed: codes[:, :2].cpu()}),
    "cbigan": ("--batch-size 32 --train-size 64",
               {"SAMPLES": 30, "HIDDEN": 16, "tsne": lambda codes, seed: codes[:, :2].cpu()}),
    "recurrent_disc_toy": ("--set-size 2", {"STEPS": 4, "SETS": 4}),
    "recurrent_disc": ("--batch-size 16 --train-size 64",
                       {"SAMPLES": 30, "STEPS_PER_EPOCH": 2}),
    "bigran": ("--batch-size 16 --train-size 32 --hidden 8", {"SAMPLES": 30}),
    "cycle_toy": ("--batch-size 16 --seeds 2", {"SAMPLES": 400, "STEPS_PER_EPOCH": 2, "FRAME": 1}),
}
SMALL = {  # stand-ins for convolutions and pictures, where a test is about neither
    "gan_toy": {"save_surfaces": lambda panels, path: Image.new("L", (4, 4)).save(path)},
    "wgan_gp_binary_seed": {
        "generator": lambda n_z: nn.Sequential(nn.Linear(n_z, 784), nn.Sigmoid()),
        "critic": lambda: nn.Sequential(nn.Linear(784, 8), nn.LeakyReLU(0.1), nn.Linear(8, 1))},
    "infogan": {
        "generator": lambda: nn.Sequential(nn.Linear(74, 784), nn.BatchNorm1d(784), nn.Sigmoid()),
        "trunk_d_and_q": lambda: (nn.Linear(784, 8), nn.Linear(8, 1), nn.Linear(8, 14))},
}
UNTRAINED = ("wasserstein_toy", "recurrent_disc_toy")  # of a minute: no epochs, no checkpoint


@pytest.fixture(scope="session")
def data() -> tuple[torch.Tensor, ...]:
    """MNIST on the CPU: train_x, train_y, test_x, test_y."""
    return common.load_images(ROOT / "data")


@pytest.fixture(autouse=True)
def plain_figures(monkeypatch):
    """Small figures without ticks, left as they are set: else these take most of the time."""
    savefig = Figure.savefig
    monkeypatch.setattr(Axis, "draw", lambda *_: None)
    monkeypatch.setattr(Figure, "get_layout_engine", lambda self: None)
    monkeypatch.setattr(Figure, "savefig", lambda self, path, dpi: savefig(self, path, dpi=20))


@pytest.fixture
def short(data, monkeypatch, tmp_path):
    """short(script) makes short runs of it: run(*options, out="run") -> its folder.

    The data are loaded already, and few. A run that is not `whole` draws samples only, no figures,
    and has small networks.
    """
    few = tuple(tensor[:300] for tensor in data)

    def load_images(root="data", dataset="MNIST", train_size=0, device="cpu"):
        return tuple(tensor[: train_size or None].to(device) for tensor in few)

    monkeypatch.setattr(common, "load_images", load_images)

    def program(name: str, whole: bool = True):
        script = importlib.import_module(name)
        options, constants = SHORT[name]
        if not whole:
            constants = constants | SMALL.get(name, {})
            if hasattr(script, "save_figures"):
                constants["save_figures"] = lambda *_: None
        for constant, value in constants.items():
            monkeypatch.setattr(script, constant, value)

        def run(*argv: str, out: str | Path = "run") -> Path:
            if "--resume" in argv:
                script.main([*argv])
            else:
                script.main([*options.split(), "--device", "cpu", *argv, "--out",
                             str(tmp_path / out)])
            return tmp_path / out

        run.script = script
        return run

    return program


def build(script, options) -> dict:
    """The networks and optimizers that train() makes, by name, before it trains them."""
    class Built(Exception):
        pass

    def begin(out, options, state, *_, **__):
        raise Built(state)

    few = torch.rand(8, 784), torch.arange(8), torch.rand(8, 784), torch.arange(8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common, "begin", begin)
        patch.setattr(common, "load_images", lambda *_: few)
        with pytest.raises(Built) as built:
            script.train(options, "nowhere")
    return built.value.args[0]


def checkpoint(out: Path) -> dict:
    """What the run in that folder has saved."""
    return torch.load(out / "checkpoint.pt", weights_only=True)


def assert_same(a, b) -> None:
    """Equal to the last bit, through dictionaries and lists."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a.keys() - {"seconds"}:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b):
            assert_same(x, y)
    else:
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
