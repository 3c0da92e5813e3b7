"""Every script on a simulated accelerator, which is as strict as a real one.

Its tensors have their numbers on the CPU. They are marked by their storage, say that they are on
another device, and refuse what that device would refuse.
"""

import importlib
import json
from copy import deepcopy

import numpy
import pytest
import torch
from conftest import SHORT, UNTRAINED
from sklearn.manifold import TSNE
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import common

DEVICE = torch.device("mps:0")  # a name that torch knows; the device itself is not needed
READS = {"item", "tolist", "cpu", "__bool__", "__float__", "__int__", "__index__", "__format__",
         "nonzero", "unique", "masked_select"}  # functions that wait for the device
CROSS = {"copy_", "__set__", "_has_compatible_shallow_copy_type"}  # do take tensors of both


def tensors_in(value) -> list[Tensor]:
    """All tensors in a value, through tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (tuple, list)):
        return []
    return [tensor for item in value for tensor in tensors_in(item)]


def on_device(tensor: Tensor) -> bool:
    return getattr(tensor.untyped_storage(), "on_device", False)


def mark(tensor: Tensor, here: bool = True) -> None:
    tensor.untyped_storage().on_device = here


class Kernels(TorchDispatchMode):
    """Below autograd: what is computed from the device's tensors, gradients too, is there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **kwargs or {})
        if func is not torch.ops.aten.copy_.default and any(map(on_device, tensors_in(args))):
            for tensor in tensors_in(result):
                mark(tensor)
        return result


class Accelerator(TorchFunctionMode):
    """What a program calls: the rules of the device. `waits` counts what waits for it."""

    waits = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if func == Tensor.device.__get__:
            return DEVICE if on_device(args[0]) else func(*args)
        if name in ("__get__", "device", "_parse_to"):  # attributes, and names of devices
            return func(*args, **kwargs)
        copies = name == "__deepcopy__"  # the other argument holds what has been copied before
        given = tensors_in(args[0] if copies else [args, kwargs])
        here = [tensor for tensor in given if on_device(tensor)]
        if here and name in ("numpy", "__array__"):
            raise TypeError(f"can't convert {DEVICE} device type tensor to numpy")

        target = "cpu" if name == "cpu" else kwargs.get("device")
        if copies:
            target = DEVICE if here else "cpu"
        if name == "to":
            for i, arg in enumerate(args[1:], 1):
                if isinstance(arg, Tensor):
                    target = DEVICE if on_device(arg) else "cpu"
                elif isinstance(arg, (str, torch.device)):
                    target, args = arg, (*args[:i], "cpu", *args[i + 1 :])
        if "device" in kwargs:
            kwargs["device"] = None if target is None else "cpu"
        there = bool(here) if target is None else torch.device(target).type == DEVICE.type
        if target is None and name not in CROSS:
            self.check_together(name, args, given, here)
        if kwargs.get("generator") and (kwargs["generator"].device == DEVICE) != there:
            raise RuntimeError(f"{name}: the generator is on another device")
        index = tensors_in(args[1:]) if name == "__getitem__" else []
        slow = name in READS or any(t.dtype == torch.bool or not on_device(t) for t in index)
        if here and slow or there and not here and name in ("to", "tensor"):
            self.waits += 1

        result = func(*args, **kwargs)
        for tensor in tensors_in(result) if target is not None else []:
            if any(t.untyped_storage() is tensor.untyped_storage() for t in given):
                if on_device(tensor) != there:  # to(): a copy on the other device
                    result = tensor = tensor.clone()
            mark(tensor, there)
        if any(t.dtype == torch.float64 and on_device(t) for t in tensors_in(result)):
            raise TypeError(f"{name}: the device has no float64")
        return result

    def check_together(self, name: str, args: tuple, given: list, here: list) -> None:
        """Raise RuntimeError where the device's tensors meet others."""
        if name == "__getitem__" and on_device(args[0]):
            return  # indices may be on the CPU
        numbers = name not in ("cat", "stack")  # a CPU tensor of no dimensions counts as a number
        others = [t for t in given if not on_device(t) and not (numbers and t.dim() == 0)]
        if here and others:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device")


class Generator(torch.Generator):
    """A stream of random numbers for the device that it names."""

    def __new__(cls, device="cpu"):
        stream = super().__new__(cls)
        stream.named = torch.device(device)
        return stream

    @property
    def device(self):
        return DEVICE if self.named.type == DEVICE.type else self.named


@pytest.fixture
def accelerator(monkeypatch):
    """The simulated accelerator, which every script picks."""
    load = torch.load

    def load_there(file, map_location=None, **names):
        content = load(file, map_location="cpu", **names)
        if map_location is not None and torch.device(map_location).type == DEVICE.type:
            for tensor in tensors_in(content):
                mark(tensor)
        return content

    monkeypatch.setattr(torch, "load", load_there)
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(common, "pick_device", lambda name: torch.device(DEVICE.type))
    with Kernels(), Accelerator() as accelerator:
        yield accelerator


# ---- the simulation finds what it should --------------------------------------------------------


def refuses(call, message: str = "same device") -> None:
    with pytest.raises((RuntimeError, TypeError), match=message):
        call()


def test_tensors_of_two_devices_do_not_meet(accelerator):
    cpu, there = torch.ones(3), torch.ones(3, device=DEVICE)
    assert cpu.device.type == "cpu" and there.device == cpu.to(DEVICE).device == DEVICE
    for call in (lambda: cpu + there, lambda: there.add_(cpu), lambda: torch.cat([cpu, there]),
                 lambda: cpu[there > 0], lambda: cpu[there.long()], lambda: nn.Linear(3, 1)(there),
                 lambda: torch.stack([cpu[0], there[0]]), lambda: cpu * there.sum()):
        refuses(call)
    refuses(lambda: torch.randperm(3, generator=torch.Generator(), device=DEVICE), "generator")
    for tensor in (there + 1, there * cpu.sum(), there[cpu.long()], cpu.to(there), there[1:],
                   torch.rand_like(there), there.new_zeros(2), torch.tensor([1], device=DEVICE),
                   torch.randn(2, generator=torch.Generator(DEVICE), device=DEVICE)):
        assert tensor.device == DEVICE
    back = there.cpu()
    assert back.device == there.to("cpu").device == cpu.device and torch.equal(back, cpu)
    back += 1
    assert there.sum().item() == 3  # it was a copy


@pytest.mark.filterwarnings("ignore:__array__")
def test_there_is_no_float64_and_nothing_for_numpy(accelerator):
    there, axes = torch.rand(20, 2, device=DEVICE), common.Figure().subplots()
    for call in (there.double, lambda: torch.zeros(2, dtype=torch.float64, device=DEVICE),
                 lambda: torch.zeros(2).double().to(DEVICE)):
        refuses(call, "float64")
    for call in (there.numpy, lambda: numpy.asarray(there), lambda: axes.plot(there[:, 0]),
                 lambda: axes.scatter(there[:, 0], there[:, 1]), lambda: axes.imshow(there),
                 lambda: TSNE(perplexity=5).fit_transform(there)):
        refuses(call, "numpy")


def test_what_waits_is_counted(accelerator):
    there = torch.ones(3, device=DEVICE)
    for call, waits in ((there.tolist, 1), (there.cpu, 1), (there.sum().item, 1),
                        (lambda: bool((there > 0).all()), 1), (lambda: there[there > 0], 1),
                        (lambda: there[torch.arange(2)], 1),
                        (lambda: torch.ones(3).to(DEVICE), 1), (lambda: there.to(DEVICE), 0),
                        (lambda: torch.ones(3, device=DEVICE) * there[1:].sum(), 0)):
        before = accelerator.waits
        call()
        assert accelerator.waits == before + waits


def test_networks_gradients_and_checkpoints_stay_on_the_device(accelerator, tmp_path):
    x = torch.randn(8, 3, device=DEVICE)
    for make in (torch.optim.RMSprop, lambda w: torch.optim.Adam(w, fused=True)):
        network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).to(DEVICE)
        network = deepcopy(network)
        optimizer = make(network.parameters())
        network(x).square().mean().backward()
        optimizer.step()
        torch.save([network.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")
        for place in (DEVICE, "cpu"):
            weights, state = torch.load(tmp_path / "state.pt", place)
            assert weights["0.weight"].device.type == torch.device(place).type
            network.load_state_dict(weights)
            optimizer.load_state_dict(state)
            optimizer.step()
        for tensor in tensors_in([network.state_dict(), [w.grad for w in network.parameters()]]):
            assert tensor.device == DEVICE


def test_pictures_of_what_is_on_the_device(accelerator, tmp_path):
    points, labels = torch.rand(30, 2), torch.arange(30, device=DEVICE) % 3
    images = torch.rand(4, 784, device=DEVICE)
    with pytest.raises(RuntimeError, match="same device"):  # save_scatter, as it once was
        for label in labels.unique().tolist():
            x, y = points[labels == label].T.tolist()
    common.save_scatter({"CPU": points, "device": points.to(DEVICE)}, labels, tmp_path / "1.png")
    common.save_grid(images, tmp_path / "2.png")
    common.save_panels({"gray": images, "color": images}, tmp_path / "3.png", 2, ["color"])
    common.save_curves({"": {"a": (range(4), images[:, 0]), "b": (labels[:1], images[0, :1])}},
                       tmp_path / "4.png", "x")
    assert len([*tmp_path.glob("*.png")]) == 4


# ---- the scripts --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHORT)
def test_script(name, short, accelerator, monkeypatch):
    """Training, figures and numbers, then the same for a run that goes on."""
    waits = []

    def watched(algorithm):
        def steps(*args):
            losses = algorithm(*args)
            while True:
                before = accelerator.waits
                row = next(losses, None)
                waits.append(accelerator.waits - before)
                if row is None:
                    return
                assert row.device == DEVICE and not row.requires_grad
                yield row
        return steps

    monkeypatch.setattr(TSNE, "fit_transform", lambda self, x: numpy.asarray(x)[:, :2])
    layout = getattr(importlib.import_module(name), "tsne", None)
    run = short(name)
    if name not in UNTRAINED:
        monkeypatch.setattr(run.script, "train_epoch", watched(run.script.train_epoch))
    if layout:
        monkeypatch.setattr(run.script, "tsne", layout)  # not one that is short
    with monkeypatch.context() as patch:
        if name not in UNTRAINED:  # whose figures are made below
            patch.setattr(run.script, "save_figures", lambda *_: None, raising=False)
        out = run(*() if name in UNTRAINED else ("--epochs", "1"))
    if name not in UNTRAINED:
        run("--resume", str(out), "--epochs", "2")
        assert waits and not any(waits)  # no step waits for the device
    assert json.loads((out / "results.json").read_text())["device"] == DEVICE.type
