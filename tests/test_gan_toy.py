"""Tests of gan_toy.py: the mathematics, who learns from what, and what a run tells."""

import csv
import json
import math
from statistics import mean

import numpy
import pytest
import scipy.special
import torch
from conftest import assert_same, checkpoint
from PIL import Image
from torch import nn

import common
import gan_toy as toy

CPU = torch.device("cpu")

# ---- data and networks --------------------------------------------------------------------------


def test_real_points_stand_around_the_modes():
    x = next(toy.real_batches(80_000, CPU))
    assert x.shape == (80_000, 2)
    angle = torch.atan2(x[:, 1], x[:, 0]) * 8 / (2 * math.pi)
    assert numpy.allclose(torch.bincount(angle.round().long() % 8) / 80_000, 1 / 8, atol=0.006)
    assert (x.norm(dim=1) - 2).std().item() == pytest.approx(0.05, rel=0.03)
    expected = toy.RADIUS**2 / 2 + toy.SPREAD**2  # E[x x'] of a circle, and of the Gaussians
    assert numpy.allclose(x.T @ x / len(x), expected * numpy.eye(2), atol=0.03)


def test_networks():
    G, D = toy.generator(), toy.discriminator()
    assert G(torch.randn(5, 2)).shape == (5, 2) and D(torch.randn(5, 2)).shape == (5, 1)
    for network, outputs in ((G, 2), (D, 1)):
        assert [type(layer) for layer in network] == [nn.Linear, nn.ReLU] * 3 + [nn.Linear]
        count = sum(p.numel() for p in network.parameters())
        assert count == 3 * 128 + 2 * 129 * 128 + 129 * outputs
    assert D[2].weight.std().item() == pytest.approx(math.sqrt(2 / 128), rel=0.05)


# ---- objectives ---------------------------------------------------------------------------------


def test_penalty_of_a_linear_critic():
    D = nn.Linear(50, 1)
    norm = D.weight.detach().double().norm().item()
    penalty = toy.gradient_penalty(D, torch.rand(8, 50), torch.rand(8, 50))
    assert penalty.item() == pytest.approx((norm - 1) ** 2, rel=1e-5)


def test_penalty_takes_the_norm_point_by_point():
    """D(x) = |x|^2 / 2 has gradient x: the penalty is known once the points between are."""
    seen = []

    def D(x):
        seen.append(x.detach())
        return x.square().sum(1, keepdim=True) / 2

    real, fake = torch.rand(64, 5) * torch.arange(1, 65).view(-1, 1), torch.rand(64, 5)
    penalty = toy.gradient_penalty(D, real, fake)
    (x_hat,) = seen
    assert penalty.item() == pytest.approx(((x_hat.norm(dim=1) - 1) ** 2).mean().item())
    epsilon = (x_hat - fake) / (real - fake)
    assert torch.allclose(epsilon, epsilon.median(1, keepdim=True).values, atol=1e-2)
    epsilon = epsilon.median(1).values
    assert 0 <= epsilon.min() < 0.2 and 0.8 < epsilon.max() <= 1


def test_gradient_of_the_penalty_against_finite_differences():
    torch.manual_seed(1)
    D = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    real, fake = torch.rand(3, 2).double(), torch.rand(3, 2).double()

    def penalty():
        torch.manual_seed(2)
        return toy.gradient_penalty(D, real, fake)

    penalty().backward()
    for weights in (D[0].weight, D[2].weight):
        values = []
        for step in (1e-5, -2e-5):
            with torch.no_grad():
                weights[0, 1] += step
            values.append(penalty().item())
        assert weights.grad[0, 1].item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4)


def test_losses_against_their_definitions():
    D = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    real, fake = torch.rand(8, 2).double(), torch.rand(8, 2).double()
    real_score, fake_score = D(real).detach().numpy(), D(fake).detach().numpy()
    sigmoid = scipy.special.expit
    entropy = -(numpy.log(sigmoid(real_score)) + numpy.log(1 - sigmoid(fake_score))).mean()
    distance = (real_score - fake_score).mean()
    torch.manual_seed(5)
    penalty = toy.gradient_penalty(D, real, fake).item()
    expected = {  # of D, of G
        "minimax": (entropy, numpy.log(1 - sigmoid(fake_score)).mean()),
        "non-saturating": (entropy, -numpy.log(sigmoid(fake_score)).mean()),
        "wgan": (-distance, -fake_score.mean()),
        "wgan-gp": (-distance + 10 * penalty, -fake_score.mean()),
    }
    assert tuple(expected) == (*toy.BEST,)
    for objective, (d_loss, g_loss) in expected.items():
        torch.manual_seed(5)
        loss, estimate = toy.discriminator_loss(D, real, fake, objective)
        assert loss.item() == pytest.approx(d_loss)
        assert estimate.item() == pytest.approx(distance) and not estimate.requires_grad
        assert toy.generator_loss(D, fake, objective).item() == pytest.approx(g_loss)


# ---- the algorithm ------------------------------------------------------------------------------


def players(objective):
    """G, D and their optimizers, by name."""
    G, D = toy.generator(), toy.discriminator()
    return {"G": G, "D": D, "opt_g": toy.optimizer(G, 1e-3, objective),
            "opt_d": toy.optimizer(D, 1e-3, objective)}


@pytest.mark.parametrize("objective", toy.BEST)
def test_each_player_leaves_the_other_alone(monkeypatch, objective):
    modules, history = players(objective), []
    G, D = modules["G"], modules["D"]
    d_loss, g_loss = toy.discriminator_loss, toy.generator_loss

    def remember(player, fake=None):
        assert fake is None or fake.requires_grad == (player == "G")
        weights = [{key: w.clone() for key, w in network.state_dict().items()}
                   for network in (G, D)]
        gradients = [w.grad.clone() for w in D.parameters() if w.grad is not None]
        history.append((player, *weights, gradients))

    monkeypatch.setattr(toy, "discriminator_loss", lambda *a: remember("D", a[2]) or d_loss(*a))
    monkeypatch.setattr(toy, "generator_loss", lambda *a: remember("G", a[1]) or g_loss(*a))
    list(toy.train_epoch(**modules, batches=toy.real_batches(8, CPU), steps=range(3),
                         critic_steps=3, objective=objective))
    remember("end")
    assert [player for player, *_ in history] == list("DDDG") * 3 + ["end"]
    for (player, G, D, gradients), (_, next_G, next_D, next_gradients) in zip(history,
                                                                              history[1:]):
        if player == "D":
            assert_same(G, next_G)
            assert not torch.equal(D["0.weight"], next_D["0.weight"])
        else:
            assert_same(D, next_D)
            assert_same(gradients, next_gradients)
            assert not torch.equal(G["0.weight"], next_G["0.weight"])
    largest = max(w.abs().max().item() for w in next_D.values())
    assert (largest == pytest.approx(0.01)) == (objective == "wgan")  # reached, and not passed


def test_an_epoch_yields_the_last_losses_of_each_step(monkeypatch):
    seen, d_loss, g_loss = [], toy.discriminator_loss, toy.generator_loss
    monkeypatch.setattr(toy, "discriminator_loss", lambda *a: seen.append(d_loss(*a)) or seen[-1])
    monkeypatch.setattr(toy, "generator_loss", lambda *a: seen.append(g_loss(*a)) or seen[-1])
    rows = list(toy.train_epoch(**players("wgan-gp"), batches=toy.real_batches(8, CPU),
                                steps=range(2), critic_steps=2, objective="wgan-gp"))
    for row, (_, (of_d, estimate), of_g) in zip(rows, (seen[:3], seen[3:]), strict=True):
        assert row.tolist() == [of_d.item(), of_g.item(), estimate.item()]


def test_optimizers():
    """1701.07875, algorithm 1: RMSprop; 1704.00028, algorithm 1: Adam with betas 0 and 0.9."""
    assert type(toy.optimizer(toy.generator(), 1e-3, "wgan")) is torch.optim.RMSprop
    for objective in ("minimax", "non-saturating", "wgan-gp"):
        opt = toy.optimizer(toy.generator(), 1e-3, objective)
        assert type(opt) is torch.optim.Adam and opt.defaults["betas"] == (0.0, 0.9)


# ---- evaluation ---------------------------------------------------------------------------------


def test_modes_found():
    found, share = toy.modes_found(next(toy.real_batches(50_000, CPU)))
    assert found == 8
    assert share == pytest.approx(1 - math.exp(-4.5), abs=0.003)  # Rayleigh, at three deviations
    angle = 2 * math.pi / 8 * 3
    third = toy.RADIUS * torch.tensor([math.cos(angle), math.sin(angle)])
    points = torch.cat([third.expand(980, 2), -third.expand(10, 2), torch.zeros(10, 2)])
    assert toy.modes_found(points) == (2, pytest.approx(0.99))
    points[985:] = 0  # now only five of a thousand are on the second
    assert toy.modes_found(points) == (1, pytest.approx(0.985))
    radius = third * (1 + torch.tensor([[0.14], [0.16]]) / toy.RADIUS)  # within, and outside
    assert toy.modes_found(radius)[1] == 0.5


def test_dead_share():
    """D = ReLU(x_0) is dead where x_0 is negative; a hidden layer that is off kills all of D."""
    half = nn.Sequential(nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 1))
    half[0].weight.data = torch.tensor([[1.0, 0.0]])
    half[0].bias.data.zero_()
    points = torch.tensor([[-1.0, 3.0], [2.0, 0.0], [-0.5, -1.0], [-2.0, 1.0]])
    assert toy.dead_share(half, points) == 0.75
    D = toy.discriminator()
    assert toy.dead_share(D, points) == 0
    nn.init.constant_(D[2].bias, -1000.0)
    assert toy.dead_share(D, points) == 1
    flat = nn.Sequential(nn.Linear(2, 1))  # nearly flat is not dead
    nn.init.constant_(flat[0].weight, 1e-20)
    assert toy.dead_share(flat, points) == 0


def test_sample_leaves_the_random_stream_alone():
    G = toy.generator()
    torch.manual_seed(3)
    expected = torch.randn(2)
    torch.manual_seed(3)
    points = toy.sample(G, 7, 5)
    assert torch.equal(torch.randn(2), expected)
    torch.manual_seed(5)
    assert torch.equal(points, G(torch.randn(7, 2)))


def test_surface_tells_the_range_of_scores(monkeypatch, tmp_path):
    titles = []
    monkeypatch.setattr("matplotlib.axes.Axes.set_title",
                        lambda axes, title, **_: titles.append(title))
    flat = nn.Linear(2, 1)
    nn.init.zeros_(flat.weight)
    nn.init.constant_(flat.bias, 0.25)
    tilted = nn.Linear(2, 1)
    tilted.weight.data = torch.tensor([[2.0, 0.0]])
    nn.init.zeros_(tilted.bias)
    toy.save_surfaces({"flat": (flat, torch.rand(5, 2)), "tilted": (tilted, torch.rand(5, 2))},
                      tmp_path / "a.png")
    assert titles == ["flat\nD from 0.25 to 0.25", "tilted\nD from -6 to 6"]
    assert Image.open(tmp_path / "a.png").width > 0


# ---- runs ---------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Train with everything small; returns the results and the folder."""
    monkeypatch.setattr(toy, "STEPS_PER_EPOCH", 2)
    monkeypatch.setattr(toy, "SAMPLES", 200)

    def start(out, **options):
        options = {"batch_size": 16, "critic_steps": 2, "device": "cpu"} | options
        return toy.train(toy.Options(**options), tmp_path / out,
                         (tmp_path / out).exists()), tmp_path / out
    return start


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr(toy, "save_surfaces", lambda *a: None)
    monkeypatch.setattr(common, "save_curves", lambda *a: None)
    monkeypatch.setattr(common, "save_gif", lambda *a, **k: None)


def test_a_run_and_its_numbers(run, monkeypatch):
    monkeypatch.setattr(toy, "dead_share", lambda D, points: D(points).mean().item())  # not just 0
    results, out = run("run", epochs=3, seed=1)
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    assert [row["generator_step"] for row in rows] == ["2", "4", "6"]
    assert list(rows[0])[-1] == "dead_share"
    G, D = toy.generator(), toy.discriminator()
    G.load_state_dict(checkpoint(out)["G"])
    D.load_state_dict(checkpoint(out)["D"])
    points = toy.sample(G, 200, 1)
    assert (results["modes"], results["share_within_three_deviations"]) == toy.modes_found(points)
    assert results["dead_share"] == toy.dead_share(D, points)
    for name in ("modes", "dead_share"):
        assert results[name] == float(rows[-1][name])
        assert results[f"{name}_mean_of_later_half"] == pytest.approx(
            mean(float(row[name]) for row in rows[1:]))
    assert json.loads((out / "results.json").read_text()) == results
    assert Image.open(out / "figure-points.png").width > 0
    gif = Image.open(out / "training.gif")
    assert gif.n_frames == 4
    assert numpy.ptp(numpy.asarray(gif.convert("RGB")), axis=2).max() > 20  # in color


def test_a_critic_that_dies_is_seen(run, no_pictures, monkeypatch, capsys):
    """With weights clipped to nothing D is 0 everywhere, and so is its gradient."""
    monkeypatch.setattr(toy, "CLIP", 0.0)
    results, out = run("run", epochs=2, objective="wgan")
    assert results["dead_share"] == results["dead_share_mean_of_later_half"] == 1
    assert "D dead at 100%" in capsys.readouterr().err
    assert run("live", epochs=2)[0]["dead_share"] == 0


def test_an_epoch_depends_on_the_seed_and_its_number_alone(run, no_pictures, monkeypatch):
    drawn, loss = [], toy.discriminator_loss
    monkeypatch.setattr(toy, "discriminator_loss", lambda D, real, fake, objective:
                        drawn.append((real, fake)) or loss(D, real, fake, objective))
    run("a", epochs=2)
    run("b", epochs=1, seed=1)
    assert len(drawn) == 3 * 2 * 2
    for i in (0, 1):
        assert len({pair[i].sum().item() for pair in drawn}) == len(drawn)
    first = drawn[0][0]
    drawn.clear()
    torch.rand(7)  # what happened before does not matter
    run("c", epochs=1)
    assert torch.equal(drawn[0][0], first)


def test_a_run_resumed_at_its_end_has_its_results(run, no_pictures):
    results, out = run("run", epochs=2)
    (out / "results.json").unlink()
    again, _ = run("run", epochs=2)
    assert results.pop("training_seconds") == pytest.approx(again.pop("training_seconds"), abs=0.1)
    assert again == results


def test_each_objective_has_its_own_rate_and_steps_of_d():
    """And what is given goes first."""
    for objective, (lr, steps) in toy.BEST.items():
        options = toy.Options(objective=objective)
        assert (options.lr, options.critic_steps) == (lr, steps)
        options = toy.Options(objective=objective, lr=0.5, critic_steps=7)
        assert (options.lr, options.critic_steps) == (0.5, 7)
