"""Tests of wasserstein_toy.py: the mathematics, then the program as its users meet it."""

import csv
import json
import math
import re

import numpy
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import torch
from conftest import assert_same, checkpoint
from PIL import Image
from torch import nn

import wasserstein_toy as toy

REAL, FAKE = toy.REAL_1D, toy.FAKE_1D

# ---- distributions ------------------------------------------------------------------------------


def scipy_mixture(mixture, x, what):
    return sum(w * getattr(scipy.stats.norm(mean, std), what)(x) for w, mean, std in mixture)


def test_density_and_distribution_against_scipy():
    for name, ours in (("pdf", toy.density), ("cdf", toy.distribution)):
        expected = scipy_mixture(FAKE, toy.GRID.numpy(), name)
        assert numpy.allclose(ours(FAKE, toy.GRID), expected, atol=1e-12)


def test_draws_of_a_mixture_have_its_moments():
    mixture = ((0.3, -1.0, 0.5), (0.7, 2.0, 2.0))
    x = toy.draw(mixture, 400_000)
    assert x.shape == (400_000, 1)
    assert x.mean().item() == pytest.approx(0.3 * -1 + 0.7 * 2, abs=0.02)
    second = 0.3 * (1 + 0.25) + 0.7 * (4 + 4)
    assert x.square().mean().item() == pytest.approx(second, rel=0.02)
    distance = scipy.stats.kstest(x[:20_000, 0], lambda t: scipy_mixture(mixture, t, "cdf"))
    assert distance.pvalue > 1e-4


def spiral_moment(function):
    """The mean of a function of the angle over the Swiss roll, by scipy's quadrature."""
    low, high = 1.5 * math.pi, 4.5 * math.pi
    return scipy.integrate.quad(function, low, high)[0] / (high - low)


def test_moments_of_the_plane():
    roll = numpy.array([spiral_moment(lambda t: t * math.cos(t)),
                        spiral_moment(lambda t: t * math.sin(t))]) / 7.5
    squares = numpy.array([[spiral_moment(lambda t: t * t * f(t) * g(t))
                            for f in (math.cos, math.sin)] for g in (math.cos, math.sin)]) / 7.5**2
    small = toy.SPREAD**2 * numpy.eye(2)
    expected = {  # mean, and mean of x x'
        "8 Gaussians": (numpy.zeros(2), toy.RADIUS**2 / 2 * numpy.eye(2) + small),
        "25 Gaussians": (numpy.zeros(2), 2 * numpy.eye(2) + small),  # (4 + 1 + 0 + 1 + 4) / 5
        "Swiss roll": (roll, squares + (0.25 / 7.5) ** 2 * numpy.eye(2)),
    }
    assert expected.keys() == toy.PLANE.keys()
    for name, (mean, second) in expected.items():
        x = toy.PLANE[name](400_000).double().numpy()
        assert x.shape == (400_000, 2)
        assert numpy.allclose(x.mean(0), mean, atol=0.01), name
        assert numpy.allclose(x.T @ x / len(x), second, atol=0.012), name


def test_gaussians_stand_where_they_should():
    x = toy.eight_gaussians(80_000)
    angle = torch.atan2(x[:, 1], x[:, 0]) * 8 / (2 * math.pi)
    assert numpy.allclose(torch.bincount(angle.round().long() % 8) / 80_000, 1 / 8, atol=0.006)
    assert (x.norm(dim=1) - 2).std().item() == pytest.approx(0.05, rel=0.03)
    x = toy.twenty_five_gaussians(50_000)
    counts = torch.bincount(((x[:, 0].round() + 2) * 5 + x[:, 1].round() + 2).long())
    assert len(counts) == 25 and numpy.allclose(counts / 50_000, 1 / 25, atol=0.005)
    assert (x - x.round()).std().item() == pytest.approx(0.05, rel=0.03)
    ring = toy.swiss_roll(1000).norm(dim=1)
    assert ring.min() > 0.4 and ring.max() < 2.1


# ---- what is known in one dimension -------------------------------------------------------------


def test_exact_distance_against_scipy_and_closed_forms():
    count = 300_000
    sampled = scipy.stats.wasserstein_distance(toy.draw(REAL, count)[:, 0],
                                               toy.draw(FAKE, count)[:, 0])
    assert toy.wasserstein(REAL, FAKE) == pytest.approx(sampled, abs=0.02)
    assert toy.wasserstein(REAL, FAKE) == pytest.approx(1.702, abs=1e-3)
    # Shifted, the distance is the shift; rescaled, that of the deviations times E|N(0, 1)|.
    assert toy.wasserstein(((1, -3, 1),), ((1, 1, 1),)) == pytest.approx(4, rel=1e-6)
    assert toy.wasserstein(((1, 0, 0.5),), ((1, 0, 1.2),)) == pytest.approx(
        0.7 * math.sqrt(2 / math.pi), rel=1e-5)


def test_density_between_against_a_histogram():
    count, edges = 2_000_000, numpy.linspace(-4, 4, 41)
    epsilon = torch.rand(count)
    x = epsilon * toy.draw(REAL, count)[:, 0] + (1 - epsilon) * toy.draw(FAKE, count)[:, 0]
    expected = numpy.histogram(x, edges)[0] / count / 0.2
    fine = torch.linspace(-4, 4, 801, dtype=torch.float64)  # 20 pieces to a bin
    ours = toy.density_between(REAL, FAKE, fine)
    means = ((ours[:-1] + ours[1:]) / 2).view(40, 20).mean(1)
    assert numpy.allclose(means, expected, atol=0.004)
    assert toy.integral(toy.density_between(REAL, FAKE, toy.GRID)) == pytest.approx(1, abs=1e-5)


def test_equations_4_and_5_against_all_pairs_of_quantiles():
    """p^(t) is also the mean of 1 / |x - y| over the pairs with t between them."""
    u = (torch.arange(800, dtype=torch.float64) + 0.5) / 800
    x = torch.special.ndtri(u)
    half = 0.5 * torch.special.ndtri((torch.arange(400, dtype=torch.float64) + 0.5) / 400)
    y = torch.cat([half - 3, half + 2])
    inverse = 1 / (x[:, None] - y).abs()
    points = toy.GRID[(toy.GRID > -4) & (toy.GRID < 3)][::40]
    slopes = []
    for t in points:
        astride = (x[:, None] < t) != (y < t)
        difference = ((x < t).double().mean() - (y < t).double().mean()).abs()
        between = inverse[astride].sum() / inverse.numel()
        slopes.append(1 + (difference / (2 * 3 * between)).item())
    ours, slopes = toy.penalized_slope(REAL, FAKE, 3.0).numpy(), numpy.array(slopes)
    ours = ours[numpy.isin(toy.GRID, points)]
    assert numpy.abs(ours - slopes).mean() < 0.02  # 0.33 is the mean of what is above 1
    # by equation 5 the estimate is W1 and a share of it that falls like 1 / lambda
    overshoot = [toy.penalized_estimate(REAL, FAKE, weight) - toy.wasserstein(REAL, FAKE)
                 for weight in (0.1, 10)]
    difference = (toy.distribution(REAL, points) - toy.distribution(FAKE, points)).abs().numpy()
    expected = numpy.trapezoid(difference * (slopes - 1), points) * 3 / 10
    assert overshoot[1] == pytest.approx(expected, rel=0.02)
    assert overshoot[0] == pytest.approx(100 * overshoot[1])


def test_formula_for_point_masses():
    """Two normals so narrow that they are points, at the distance 2."""
    P, Q = ((1.0, -1.0, 0.01),), ((1.0, 1.0, 0.01),)
    for weight in (0.5, 10):
        assert toy.penalized_estimate(P, Q, weight) == pytest.approx(2 * (1 + 2 / (2 * weight)),
                                                                     rel=0.01)


@pytest.mark.parametrize("distance, weight", [(0.5, 1.0), (3.0, 10.0)])
def test_critic_of_two_point_masses(distance, weight):
    """Fitted, its estimate is d (1 + d / (2 lambda)): the penalty is what the formula says."""
    torch.manual_seed(0)
    x, y = torch.zeros(1, 1), torch.full((1, 1), distance)
    D = toy.fit(toy.mlp([1, 32, 1], nn.SiLU), lambda count: (x.expand(count, 1),
                                                             y.expand(count, 1)),
                400, 2e-2, "", weight)
    estimate = (D(x) - D(y)).item()
    assert estimate == pytest.approx(distance * (1 + distance / (2 * weight)), rel=0.01)


def test_penalized_critic_finds_the_distance_and_the_overshoot():
    """Figure 1 at lambda 10, with fewer steps."""
    torch.manual_seed(0)
    D = toy.fit(toy.mlp([1, 64, 64, 1], nn.SiLU),
                lambda count: (toy.draw(REAL, count), toy.draw(FAKE, count)), 400, 5e-3, "", 10.0)
    f, slope = toy.on_grid(D)
    estimate = toy.integral(f * (toy.density(REAL, toy.GRID) - toy.density(FAKE, toy.GRID)))
    exact = toy.wasserstein(REAL, FAKE)
    assert estimate - exact == pytest.approx(toy.penalized_estimate(REAL, FAKE, 10) - exact,
                                             rel=0.2)
    assert f.mean().item() == pytest.approx(0, abs=1e-9)
    assert slope[2000].item() == pytest.approx(abs(f[2001] - f[1999]).item() / 0.008, abs=0.02)


# ---- networks and objectives --------------------------------------------------------------------


def test_mlp():
    D = toy.mlp([2, 64, 64, 1])
    assert [type(layer) for layer in D] == [nn.Linear, nn.ReLU] * 2 + [nn.Linear]
    assert sum(p.numel() for p in D.parameters()) == 3 * 64 + 65 * 64 + 65
    assert D[2].weight.std().item() == pytest.approx(math.sqrt(2 / 64), rel=0.1)


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
    (between,) = seen
    assert penalty.item() == pytest.approx(((between.norm(dim=1) - 1) ** 2).mean().item())
    epsilon = (between - fake) / (real - fake)
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
    on_real, on_fake = D(real).detach().numpy(), D(fake).detach().numpy()
    probability = scipy.special.expit
    entropy = -(numpy.log(probability(on_real)) + numpy.log(1 - probability(on_fake))).mean()
    distance = (on_real - on_fake).mean()
    torch.manual_seed(5)
    penalty = toy.gradient_penalty(D, real, fake).item()
    expected = {  # of D, of G
        "minimax": (entropy, numpy.log(1 - probability(on_fake)).mean()),
        "non-saturating": (entropy, -numpy.log(probability(on_fake)).mean()),
        "wgan": (-distance, -on_fake.mean()),
        "wgan-gp": (-distance + 3 * penalty, -on_fake.mean()),
    }
    assert tuple(expected) == toy.OBJECTIVES
    for objective, (of_d, of_g) in expected.items():
        torch.manual_seed(5)
        loss, estimate = toy.discriminator_loss(D, real, fake, objective, 3)
        assert loss.item() == pytest.approx(of_d)
        assert estimate.item() == pytest.approx(distance) and not estimate.requires_grad
        assert toy.generator_loss(D, fake, objective).item() == pytest.approx(of_g)


def test_clipped_critic_stays_within_bounds():
    D = toy.mlp([2, 16, 16, 1])
    assert D[0].weight.abs().max() > 0.1
    toy.fit(D, toy.noisy(toy.swiss_roll), 3, 1e-2, "", bound=0.1)
    largest = max(p.abs().max().item() for p in D.parameters())
    assert largest == pytest.approx(0.1)  # reached, and not passed


def test_lambda_grows_to_the_penalty(monkeypatch):
    weights, loss = [], toy.discriminator_loss
    monkeypatch.setattr(toy, "discriminator_loss",
                        lambda *args: weights.append(args[-1]) or loss(*args))
    for penalty, full in ((0.1, 0), (10.0, 12), (100.0, 15)):
        weights.clear()
        toy.fit(toy.mlp([2, 4, 1]), toy.noisy(toy.swiss_roll), 20, 1e-3, "", penalty)
        assert weights == sorted(weights) and weights[:6] == [0.1] * 6
        assert weights[full:] == [penalty] * (20 - full)


# ---- evaluation ---------------------------------------------------------------------------------


def test_modes_found():
    found, share = toy.modes_found(toy.eight_gaussians(50_000))
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


def test_slope_of_a_known_function():
    x = torch.randn(20, 2)
    assert torch.allclose(toy.slope(lambda x: (x**2).sum(1), x), 2 * x.norm(dim=1))


def test_layer_gradients_of_a_network_whose_units_are_all_on():
    """It is then linear, and the gradient a product of its matrices."""
    D = toy.mlp([2, 6, 5, 4, 1])
    for layer in D[:-1:2]:
        nn.init.constant_(layer.bias, 100.0)
        layer.weight.data.abs_()
    W = [layer.weight.detach().double() for layer in D[::2]]
    expected = [(W[3] @ W[2] @ W[1]).norm(), (W[3] @ W[2]).norm(), W[3].norm()]
    assert toy.layer_gradients(D, torch.rand(7, 2), torch.rand(7, 2)) == pytest.approx(
        [norm.item() for norm in expected], rel=1e-5)


def test_layer_gradients_do_not_underflow():
    D = toy.mlp([2, 4, 4, 1])
    for layer in D[::2]:
        nn.init.constant_(layer.weight, 1e-12)
    assert min(toy.layer_gradients(D, torch.rand(7, 2), torch.rand(7, 2))) > 0


# ---- the program --------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the program with everything small; returns the folder of the run."""
    monkeypatch.setattr(toy, "EPOCH", 2)
    monkeypatch.setattr(toy, "SAMPLES", 200)
    for name in ("STEPS_1D", "STEPS_PLANE", "STEPS_DEEP"):
        monkeypatch.setattr(toy, name, 2)

    def start(*options, out="run"):
        resumed = "--resume" in options
        toy.main([*options] if resumed else [*options, "--out", str(tmp_path / out)])
        return tmp_path / out
    return start


@pytest.fixture
def no_pictures(monkeypatch):
    """Frames of four pixels and no curves, for the tests that look at neither."""
    monkeypatch.setattr(toy, "draw_samples", lambda args, G, D, epoch: Image.new(
        "RGB", (4, 4)).save(args.out / "samples" / f"epoch-{epoch:03}.png"))
    monkeypatch.setattr(toy, "save_curves", lambda *a, **k: None)


FIGURES = ["figure1-one-dimension.png", "figure2-two-gaussians.png", "figure3-value-surfaces.png",
           "figure4-layer-gradients.png"]


def test_figures(run, capsys, monkeypatch):
    out = run("--seed", "3")
    for name in FIGURES:
        Image.open(out / name).load()
    results = json.loads((out / "results.json").read_text())
    assert results["w1"]["exact"] == toy.wasserstein(REAL, FAKE)
    assert results["w1"]["lambda 10, equation 5"] == toy.penalized_estimate(REAL, FAKE, 10)
    mass = (toy.density(REAL, toy.GRID) > 0.01) | (toy.density(FAKE, toy.GRID) > 0.01)
    assert results["median_slope"]["lambda 1, equation 4"] == pytest.approx(
        toy.penalized_slope(REAL, FAKE, 1)[mass].median().item())
    # D = 1 / (1 + exp(-6 x)), so at -3 log(1 - D) has the slope 6 D, and log D 6 (1 - D)
    minimax, non_saturating, critic = results["gradient_at_mean_of_q"].values()
    assert minimax == pytest.approx(6 * scipy.special.expit(-18), rel=1e-6)
    assert non_saturating == pytest.approx(6) and critic > 0
    assert len(results["estimate"]) == 9
    assert [*results["layer_gradient_ratio"]] == ["clipped at 0.1", "clipped at 0.01",
                                                  "clipped at 0.001", "lambda 10"]
    assert results["seed"] == 3
    printed = capsys.readouterr().out.splitlines()
    assert str(out) in printed[0] and str(out) in printed[-1]

    monkeypatch.setattr(toy.Figure, "savefig", lambda *a, **k: None)  # saves most of the time
    again = json.loads((run("--seed", "3", out="again") / "results.json").read_text())
    other = json.loads((run("--seed", "4", out="other") / "results.json").read_text())
    assert again.pop("training_seconds") > 0 < results.pop("training_seconds")
    assert again == results and other["estimate"] != results["estimate"]


@pytest.mark.parametrize("objective", toy.OBJECTIVES)
def test_training_smoke_and_resume(run, objective):
    """Twice the same bits, the second time in two parts."""
    options = ["--train", objective, "--batch-size", "16", "--lr", "2e-3", "--critic-steps", "2"]
    whole = run(*options, "--epochs", "2", out="whole")
    part = run(*options, "--epochs", "1", out="part")
    run("--resume", str(part), "--epochs", "2")
    saved = checkpoint(whole)
    assert_same(saved, checkpoint(part))
    for name in ("metrics.csv", "training.gif", "figure5-training.png", "samples/epoch-002.png"):
        assert (whole / name).read_bytes() == (part / name).read_bytes()
    a, b = (json.loads((out / "results.json").read_text()) for out in (whole, part))
    assert a.pop("training_seconds") > 0 < b.pop("training_seconds")
    assert a == b

    new = toy.build(toy.parse_args(["--resume", str(whole)]))
    for name in ("G", "D"):
        assert all(not torch.equal(saved[name][key], tensor)
                   for key, tensor in new[name].named_parameters() if "weight" in key)
    if objective == "wgan":
        assert max(w.abs().max() for w in saved["D"].values()) <= toy.CLIP
    rows = list(csv.DictReader((whole / "metrics.csv").open()))
    assert [row["generator_step"] for row in rows] == ["2", "4"]
    assert all(math.isfinite(float(value)) for row in rows for value in row.values())
    gif = Image.open(whole / "training.gif")
    assert gif.n_frames == 3
    assert len(set(gif.convert("RGB").getpixel((200, 200)))) > 1  # in color
    assert a["modes"] == int(rows[-1]["modes"]) and a["epochs"] == 2

    other = toy.build(toy.parse_args([*options, "--seed", "1"]))["G"]
    assert not torch.equal(other[0].weight, new["G"][0].weight)


@pytest.mark.parametrize("objective", toy.OBJECTIVES)
def test_each_player_leaves_the_other_alone(run, no_pictures, monkeypatch, objective):
    parts, history = {}, []
    build, d_loss, g_loss = toy.build, toy.discriminator_loss, toy.generator_loss

    def remember(player):
        weights = {name: {key: w.clone() for key, w in parts[name].state_dict().items()}
                   for name in ("G", "D")}
        gradients = [w.grad.clone() for w in parts["D"].parameters() if w.grad is not None]
        history.append((player, weights["G"], weights["D"], gradients))

    monkeypatch.setattr(toy, "build", lambda *a: parts.update(build(*a)) or dict(parts))
    monkeypatch.setattr(toy, "discriminator_loss", lambda *a: remember("D") or d_loss(*a))
    monkeypatch.setattr(toy, "generator_loss", lambda *a: remember("G") or g_loss(*a))
    run("--train", objective, "--epochs", "2", "--critic-steps", "3")
    assert [player for player, *_ in history] == list("DDDG") * 4
    for (player, G, D, gradients), (_, next_G, next_D, next_gradients) in zip(history,
                                                                              history[1:]):
        if player == "D":
            assert_same(G, next_G)
            assert not torch.equal(D["0.weight"], next_D["0.weight"])
        else:
            assert_same(D, next_D)
            assert_same(gradients, next_gradients)
            assert not torch.equal(G["0.weight"], next_G["0.weight"])


def test_every_epoch_draws_its_own_points(run, no_pictures, monkeypatch):
    drawn, loss = [], toy.discriminator_loss
    monkeypatch.setattr(toy, "discriminator_loss", lambda D, real, fake, objective:
                        drawn.append((real, fake)) or loss(D, real, fake, objective))
    run("--train", "wgan-gp", "--epochs", "2", out="a")
    run("--train", "wgan-gp", "--epochs", "1", "--seed", "1", out="b")
    assert len(drawn) == 3 * 2 * 5
    for i in (0, 1):
        assert len({pair[i].sum().item() for pair in drawn}) == len(drawn)


def test_nan_stops_the_run_and_names_the_step(run, no_pictures, monkeypatch, tmp_path):
    calls, loss = [], toy.generator_loss

    def breaks(*args):
        calls.append(1)
        return loss(*args) * (math.nan if len(calls) == 3 else 1)

    monkeypatch.setattr(toy, "generator_loss", breaks)
    with pytest.raises(SystemExit) as stop:
        run("--train", "wgan-gp", "--epochs", "3")
    assert re.search(r"not finite in generator steps 3 to 4 \(epoch 2\)", str(stop.value.code))
    assert checkpoint(tmp_path / "run")["epoch"] == 1


def test_nan_in_a_figure_stops_it_and_names_it(run, monkeypatch, tmp_path):
    monkeypatch.setattr(toy, "gradient_penalty", lambda D, real, fake: math.nan * D(real).mean())
    with pytest.raises(SystemExit) as stop:
        run()
    assert "not finite: figure 1, lambda 0.1" in str(stop.value.code)
    assert not (tmp_path / "run" / "results.json").exists()


def test_interrupted_run_can_be_continued(run, no_pictures, monkeypatch, tmp_path, capsys):
    whole = run("--train", "wgan", "--epochs", "2", out="whole")
    calls, loss = [], toy.generator_loss

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss(*args)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(toy, "generator_loss", interrupted)
        run("--train", "wgan", "--epochs", "2")
    assert stop.value.code == 130
    out = tmp_path / "run"
    assert f"python wasserstein_toy.py --resume {out}" in capsys.readouterr().err
    run("--resume", str(out))
    assert_same(checkpoint(whole), checkpoint(out))


@pytest.mark.parametrize("options, complaint", [
    (["--train", "began"], "--train: invalid choice: 'began'"),
    (["--train", "wgan", "--epochs", "0"], "--epochs: '0' is not a whole number from 1"),
    (["--epochs", "many"], "--epochs: 'many' is not a whole number"),
    (["--epochs", "3"], "--epochs: only with --train or --paper"),
    (["--lr", "0.1"], "--lr: only with --train or --paper"),
    (["--batch-size", "0"], "--batch-size: '0' is not a whole number from 1"),
    (["--critic-steps", "0"], "--critic-steps: '0' is not a whole number from 1"),
    (["--lr", "nan"], "--lr: 'nan' is not a number from 1e-09 to 10"),
    (["--seed", "-1"], "--seed: '-1' is not a whole number from 0"),
    (["--device", "tpu"], "--device: invalid choice"),
    (["--device", "mps"], "--device: there is no mps here"),
    (["--device", "cuda"], "--device: there is no cuda here"),
    (["--resume", "nowhere"], "--resume: nowhere holds no whole training of wasserstein_toy.py"),
    (["--out", "here"], "--out: here exists"),
    (["--resume", "here", "--paper"], "--resume: not allowed with --paper or --out"),
    (["--paper", "--seed", "1"], "--seed: --paper runs through its values itself"),
    (["--paper", "--train", "wgan"], "--train: --paper runs through its values itself"),
    (["--objective", "wgan"], "unrecognized arguments: --objective wgan"),
])
def test_bad_options_end_with_one_line_and_change_nothing(options, complaint, tmp_path,
                                                          monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(SystemExit) as stop:
        toy.main(options)
    assert stop.value.code == 2
    assert complaint in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


def test_bad_ways_to_resume(run, no_pictures, capsys):
    out = run("--train", "minimax", "--epochs", "2")
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    for options, complaint in ((["--train", "wgan"], "--train: the run in"),
                               (["--seed", "1"], "--seed: the run in"),
                               (["--critic-steps", "1"], "--critic-steps: the run in"),
                               (["--epochs", "1"], "has 2 already"),
                               (["--out", "elsewhere"], "--resume: not allowed with")):
        with pytest.raises(SystemExit) as stop:
            toy.main(["--resume", str(out), *options])
        assert stop.value.code == 2
        assert complaint in capsys.readouterr().err.splitlines()[-1]
    assert before == {path: path.read_bytes() for path in out.rglob("*.*")}

    options = json.loads((out / "options.json").read_text())
    for damage in (lambda: (out / "options.json").write_text(
                       json.dumps(options | {"script": "bigan.py"})),
                   lambda: (out / "checkpoint.pt").write_bytes(b"half a file"),
                   lambda: (out / "checkpoint.pt").unlink()):
        damage()
        with pytest.raises(SystemExit) as stop:
            toy.main(["--resume", str(out)])
        assert stop.value.code == 2
        assert "holds no whole training" in capsys.readouterr().err.splitlines()[-1]
        (out / "options.json").write_text(json.dumps(options))


def test_paper_runs_all_and_continues(run, no_pictures, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(toy, "figures", lambda args: trained.append("figures") or (
        args.out.mkdir(parents=True), (args.out / "results.json").write_text("{}")))
    trained, train = [], toy.train

    def stops(args):
        trained.append(toy.configuration(args))
        if len(trained) == 5:
            raise KeyboardInterrupt
        train(args)

    options = ["--paper", "--epochs", "1", "--batch-size", "4"]
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(toy, "train", stops)
        run(*options)
    assert stop.value.code == 130
    assert "To continue: python wasserstein_toy.py --paper" in capsys.readouterr().err

    monkeypatch.setattr(toy, "train",
                        lambda args: trained.append(toy.configuration(args)) or train(args))
    out = run(*options)
    expected = [f"{objective}-seed{seed}" for objective in toy.OBJECTIVES for seed in (0, 1, 2)]
    assert trained == ["figures", *expected[:4], *expected[3:]]  # only the stopped one again
    Image.open(out / "figure6-objectives.png").load()
    assert [row["run"] for row in csv.DictReader((out / "results.csv").open())] == expected
    table = capsys.readouterr().out.splitlines()[-13:-1]
    assert [line.split()[0] for line in table] == expected

    with pytest.raises(SystemExit) as stop:  # what is there was made with another option
        run(*options, "--lr", "0.5")
    assert stop.value.code == 2
    assert "--lr: the run in" in capsys.readouterr().err
