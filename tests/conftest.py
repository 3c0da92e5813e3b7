"""What the tests share: the data set, loaded once."""

from pathlib import Path

import pytest
import torch

import common

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data() -> tuple[torch.Tensor, ...]:
    """MNIST on the CPU: train_x, train_y, test_x, test_y."""
    return common.mnist(ROOT / "data", torch.device("cpu"))
