"""What the tests share: the data set, loaded once."""

from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

import common

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data() -> tuple[torch.Tensor, ...]:
    """MNIST on the CPU: train_x, train_y, test_x, test_y."""
    return common.mnist(ROOT / "data", torch.device("cpu"))


@pytest.fixture(autouse=True)
def plain_layout(monkeypatch):
    """Leave figures as they are set: arranging them is most of their time, and no test sees it."""
    monkeypatch.setattr(Figure, "get_layout_engine", lambda self: None)


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
