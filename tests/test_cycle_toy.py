"""Tests of cycle_toy.py: losses on maps made by hand, who learns from what, seeds as a batch."""

import csv
import json
import math

import pytest
import torch
from conftest import assert_same, checkpoint
from PIL import Image
from torch import nn

import cycle_toy as toy

TRANSFORMS = ("scaled", "shifted", "turned")


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def mirrored(points):
    """Points of A, with the y axis upside down: mode i becomes mode -i."""
    return points * points.new_tensor([1.0, -1.0])


class Map(nn.Module):
    """A function of points as a network for one seed."""

    def __init__(self, function):
        super().__init__()
        self.function, self.biases = function, [torch.zeros(1, 1, 2)]

    def forward(self, x):
        return self.function(x)


# ---- data and networks --------------------------------------------------------------------------


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_points_stand_around_the_modes(transform):
    a, b, noise = toy.draw(10, 4000, transform, *generators(1)).unbind(1)
    for x, mean, spread in ((a, toy.centers(transform)[0], 0.05),
                            (b, toy.centers(transform)[1], 0.1 if transform == "scaled" else 0.05)):
        away, mode = torch.cdist(x.flatten(0, 1), mean).min(1)
        assert (torch.bincount(mode) / len(mode)).allclose(torch.tensor(1 / 8), atol=0.01)
        assert away.square().mean().sqrt().item() == pytest.approx(spread * 2**0.5, rel=0.05)
    assert noise.std().item() == pytest.approx(toy.NOISE, rel=0.05)
    mode_a = torch.cdist(a.flatten(0, 1), toy.centers(transform)[0]).argmin(1)
    mode_b = torch.cdist(b.flatten(0, 1), toy.centers(transform)[1]).argmin(1)
    assert (mode_a == mode_b).float().mean().item() == pytest.approx(1 / 8, abs=0.01)  # no pairs


def test_turned_is_a_rotation_by_two_modes_and_a_half():
    angle = toy.ANGLE + 0.3
    point = torch.tensor([math.cos(0.3), math.sin(0.3)])
    expected = torch.tensor([math.cos(angle), math.sin(angle)])
    assert torch.allclose(toy.translate(point, "turned"), expected)
    assert math.degrees(toy.ANGLE) == pytest.approx(112.5)


def test_networks_are_plain_mlps_side_by_side():
    net = toy.MLP(2, 3, generators(4, 5))
    x = torch.randn(2, 7, 2)
    for seed in (0, 1):
        w, b = ([p[seed] for p in group] for group in (net.weights, net.biases))
        expected = ((x[seed] @ w[0] + b[0]).relu() @ w[1] + b[1]).relu() @ w[2] + b[2]
        assert torch.allclose(net(x)[seed], expected, atol=1e-5)
    wide = toy.MLP(200, 1, generators(0))
    assert wide.weights[0].std().item() == pytest.approx(math.sqrt(2 / 200), rel=0.02)


# ---- objectives ---------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_perfect_permutation_has_no_cycle_loss_and_no_accuracy(transform):
    """T_AB turns the circle by one mode, and T_BA turns it back: what the worry is about."""
    a, b = (x[None] for x in toy.draw(1, 500, transform, *generators(1))[0, :2])
    turn = torch.tensor([[1.0, 1.0], [-1.0, 1.0]]) / 2**0.5  # by 45 degrees
    zero = toy.translate(torch.zeros(2), transform)  # the inverse of the true translation
    back = torch.linalg.inv(toy.translate(torch.eye(2), transform) - zero)
    T_AB = Map(lambda x: toy.translate(x @ turn, transform))
    T_BA = Map(lambda x: (x - zero) @ back @ turn.T)
    fake_a, fake_b = T_BA(b), T_AB(a)
    assert toy.cycle_loss(T_AB, T_BA, a, b, fake_a, fake_b).item() == pytest.approx(0, abs=1e-5)
    scores, _ = toy.evaluate(T_AB, T_BA, transform)
    assert scores["accuracy"] == [0] and scores["best_accuracy"] == [1]
    assert scores["permutation"] == ["rotation"]
    assert scores["good_share"][0] == pytest.approx(1 - math.exp(-4.5), abs=0.01)  # Rayleigh
    assert scores["cycle_error"][0] == pytest.approx(0, abs=1e-5)
    scores, _ = toy.evaluate(Map(lambda x: toy.translate(x, transform)), T_BA, transform)
    assert scores["accuracy"] == [1] and scores["permutation"] == ["identity"]
    scores, _ = toy.evaluate(Map(lambda x: toy.translate(mirrored(x), transform)), T_BA, transform)
    assert scores["accuracy"] == [0.25] and scores["permutation"] == ["mirror"]  # two stay


def test_identity_loss_is_what_a_permutation_pays():
    a, b = torch.randn(2, 1, 50, 2)
    same, half = Map(lambda x: x), Map(lambda x: x / 2)
    assert toy.identity_loss(same, same, a, b).item() == 0
    for T_AB, T_BA, moved in ((half, same, b), (same, half, a)):  # T_AB is to leave b alone
        assert toy.identity_loss(T_AB, T_BA, a, b).item() == pytest.approx(
            moved.abs().sum(2).mean().item() / 2)


def test_losses_against_their_definitions():
    real, fake, D = torch.randn(2, 9, 2), torch.randn(2, 9, 2), toy.MLP(2, 1, generators(0, 1))
    p, q = D(real).sigmoid(), D(fake).sigmoid()
    expected = -(p.log() + (1 - q).log()).mean((1, 2))
    assert torch.allclose(toy.discriminator_loss(D, real, fake), expected, atol=1e-6)
    assert torch.allclose(toy.translator_loss(D, fake), -q.log().mean((1, 2)), atol=1e-6)
    expected = -((1 - p).log() + q.log()).mean((1, 2)) / 2
    assert torch.allclose(toy.inspector_loss(D, real, fake), expected, atol=1e-6)
    expected = -(p.log() + (1 - q).log()).mean((1, 2)) / 2
    assert torch.allclose(toy.hygiene_loss(D, real, fake), expected, atol=1e-6)


def test_inspector_at_its_optimum():
    """Codes N(-m, 1) of A, N(m, 1) of B: the best H is 2 m s, and its loss log 2 less the JSD."""
    line = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    for m in (0.0, 0.5, 2.0):
        a = torch.exp(-(line + m) ** 2 / 2) / math.sqrt(2 * math.pi)
        b = torch.exp(-(line - m) ** 2 / 2) / math.sqrt(2 * math.pi)
        middle = (a + b) / 2
        divergence = torch.trapezoid(
            torch.xlogy(a, a / middle) / 2 + torch.xlogy(b, b / middle) / 2, line).item()
        code = torch.randn(1, 400_000, 1, generator=generators(2)[0], dtype=torch.float64)
        loss = toy.inspector_loss(Map(lambda s, m=m: 2 * m * s), code - m, code + m).item()
        assert loss == pytest.approx(math.log(2) - divergence, abs=2e-3)
        for slope in (0.7, 1.4) if m else ():  # any other inspector does worse
            worse = toy.inspector_loss(Map(lambda s, m=m, slope=slope: slope * 2 * m * s),
                                       code - m, code + m)
            assert worse.item() > loss
    assert divergence > 0.4


def test_reconstruction_is_told_the_domain():
    """Codes that are the same for both domains can be decoded."""
    a = torch.randn(1, 20, 2)
    b, code = 2 * a, a
    R = Map(lambda x: x[..., :2] * (1.5 + x[..., 2:] / 2))
    assert toy.reconstruction_loss(R, code, code, a, b).item() == pytest.approx(0, abs=1e-6)


# ---- the algorithm ------------------------------------------------------------------------------


def make(method, *seeds):
    nets = toy.networks(method, generators(*seeds))
    return nets, toy.optimizers(nets, 1e-3)


def batches(steps, *seeds, transform="scaled"):
    return torch.stack([toy.draw(steps, 16, transform, g) for g in generators(*seeds)], 2)


@pytest.mark.parametrize("method, reconstruct", [("cycle", False), ("identity", False),
                                                 ("inspector", False), ("inspector", True)])
def test_who_learns_from_what(monkeypatch, method, reconstruct):
    """Each player's step moves its own networks, and only they get a gradient from its loss."""
    nets, opt = make(method, 0, 1)
    owners = {"D": {"D_A", "D_B", "S", "R"}, "H": {"H"}, "T": {"T_AB", "T_BA"}}
    calls = []

    def step(optimizer, losses):
        before = {name: [p.clone() for p in net.parameters()] for name, net in nets.items()}
        (player,) = [key for key, value in opt.items() if value is optimizer]
        for p in nets.parameters():
            p.grad = None
        original(optimizer, losses)
        moved = {name for name, net in nets.items()
                 if any(not torch.equal(p, q) for p, q in zip(net.parameters(), before[name]))}
        touched = {name for name, net in nets.items()
                   if any(p.grad is not None for p in net.parameters())}
        assert touched <= owners[player]
        calls.append((player, moved))

    original = toy.step
    monkeypatch.setattr(toy, "step", step)
    rows = list(toy.train_epoch(nets, opt, batches(2, 5, 6), method, reconstruct, 1.0))
    assert [row.shape for row in rows] == [(4, 2)] * 2
    expected = [("D", {"D_A", "D_B"} | ({"S"} if method == "inspector" else set())
                 | ({"R"} if reconstruct else set()))]
    expected += [("H", {"H"})] if method == "inspector" else []
    expected += [("T", {"T_AB", "T_BA"})]
    assert calls == expected * 2
    assert (rows[0][3] == 0).all() == (method != "inspector")


def test_what_the_weights_do():
    """Without cycle weight T's step is that of (2) alone; with it, another."""
    def after(weight, method="cycle"):
        nets, opt = make(method, 0)
        list(toy.train_epoch(nets, opt, batches(3, 5), method, False, weight))
        return nets["T_AB"].weights[0].detach()

    assert not torch.equal(after(0.0), after(1.0))
    assert not torch.equal(after(0.0), after(0.0, "identity"))
    assert torch.equal(after(1.0), after(1.0))


@pytest.mark.parametrize("method, reconstruct", [("cycle", False), ("inspector", True)])
def test_a_batch_of_seeds_is_each_seed_alone(method, reconstruct):
    together, opt = make(method, 3, 4, 5)
    rows = list(toy.train_epoch(together, opt, batches(5, 3, 4, 5), method, reconstruct, 1.0))
    for i, seed in enumerate((3, 4, 5)):
        alone, opt = make(method, seed)
        own = list(toy.train_epoch(alone, opt, batches(5, seed), method, reconstruct, 1.0))
        assert torch.allclose(torch.stack(rows)[:, :, i], torch.stack(own)[:, :, 0], rtol=1e-4)
        for p, q in zip(together.parameters(), alone.parameters()):
            assert torch.allclose(p[i], q[0], atol=1e-4)


# ---- evaluation ---------------------------------------------------------------------------------


def test_kinds_of_permutations():
    assert toy.kind([0, 1, 2, 3, 4, 5, 6, 7]) == "identity"
    assert toy.kind([3, 4, 5, 6, 7, 0, 1, 2]) == "rotation"
    assert toy.kind([2, 1, 0, 7, 6, 5, 4, 3]) == toy.kind([0, 7, 6, 5, 4, 3, 2, 1]) == "mirror"
    assert toy.kind([1, 0, 2, 3, 4, 5, 6, 7]) == "other"


def test_best_permutation_is_one_to_one():
    """Mode 1 goes where mode 0 is, which only one of them can have; all others to their own."""
    def T(x):
        mode = torch.arange(x.shape[1]) % 8
        return toy.centers("scaled")[1][mode.where(mode != 1, 0)][None]

    scores, _ = toy.evaluate(Map(T), Map(lambda x: x), "scaled")
    assert scores["best_accuracy"] == scores["accuracy"] == [7 / 8]
    assert scores["permutation"] == ["identity"]


def test_good_points():
    """Within three deviations of a mode; 0.35 is more than 3 * 0.1 from the nearest."""
    T = Map(lambda x: toy.centers("scaled")[1][torch.arange(x.shape[1]) % 8][None]
            * (1 + 0.35 / 2 * (torch.arange(x.shape[1]) < 500)[:, None]))
    scores, _ = toy.evaluate(T, Map(lambda x: x), "scaled")
    assert scores["good_share"] == [0.75] and scores["accuracy"] == [1]


# ---- runs ---------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Train with everything small; returns the results and the folder."""
    monkeypatch.setattr(toy, "STEPS_PER_EPOCH", 2)
    monkeypatch.setattr(toy, "FRAME", 1)
    monkeypatch.setattr(toy, "SAMPLES", 400)

    def start(out, resume=False, **options):
        options = {"batch_size": 16, "seeds": 2, "epochs": 3, "device": "cpu"} | options
        return toy.train(toy.Options(**options), tmp_path / out, resume), tmp_path / out
    return start


@pytest.mark.parametrize("options", [{}, {"method": "identity", "transform": "turned"},
                                     {"method": "inspector", "transform": "shifted"},
                                     {"method": "inspector", "reconstruct": "yes"}])
def test_a_run_and_its_numbers(run, options):
    results, out = run("run", seed=3, **options)
    assert json.loads((out / "results.json").read_text()) == results
    for name in ("accuracy", "best_accuracy", "permutation", "good_share", "cycle_error"):
        assert len(results[name]) == 2
    assert results["accuracy_mean"] == pytest.approx(sum(results["accuracy"]) / 2)
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    assert float(rows[-1]["accuracy"]) == results["accuracy_mean"]
    assert Image.open(out / "training.gif").n_frames == 4
    assert Image.open(out / "figure-maps.png").width > 0
    saved = checkpoint(out)
    assert ("H" in saved) == ("S" in saved) == (results["method"] == "inspector")


def test_resumed_equals_uninterrupted(run):
    options = {"method": "inspector", "reconstruct": "yes"}
    whole, a = run("whole", **options)
    run("part", epochs=1, **options)
    part, b = run("part", resume=True, **options)
    assert_same(checkpoint(a), checkpoint(b))
    assert {key for key in whole if whole[key] != part[key]} <= {"training_seconds"}


def test_a_seed_of_a_run_is_the_run_of_that_seed(run):
    both, _ = run("both", seed=4)
    alone, _ = run("alone", seed=5, seeds=1)
    assert both["cycle_error"][1] == pytest.approx(alone["cycle_error"][0], rel=1e-4)
    assert both["cycle_error"][0] != pytest.approx(alone["cycle_error"][0], rel=1e-2)


def test_rates_fall_and_the_cycle_weight_grows(run, monkeypatch):
    seen, original = [], toy.train_epoch
    monkeypatch.setattr(toy, "RISE", 2)
    monkeypatch.setattr(toy, "train_epoch", lambda nets, opt, *rest: seen.append(
        (rest[-1], opt["T"].param_groups[0]["lr"], opt["D"].param_groups[0]["lr"])) or original(
            nets, opt, *rest))
    run("run", epochs=5, lr=0.001, cycle_weight=4.0)
    assert [weight for weight, _, _ in seen] == [0, 2, 4, 4, 4]
    assert [rate for _, rate, _ in seen] == pytest.approx([1e-3, 1e-3, 1e-3, 5e-4, 2.5e-5])
    assert [fast / slow for _, slow, fast in seen] == pytest.approx([toy.FASTER] * 5)


@pytest.mark.parametrize("bad, complaint", [
    ("--method gan", "--method: 'gan' is not one of cycle, identity, inspector"),
    ("--reconstruct yes", "--reconstruct: yes goes with --method inspector"),
    ("--seeds 0", "--seeds: 0 is not a whole number from 1"),
    ("--cycle-weight -1", "--cycle-weight: -1.0 is not a number from 0")])
def test_bad_options(bad, complaint, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        toy.main(bad.split())
    assert end.value.code == 2 and complaint in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
