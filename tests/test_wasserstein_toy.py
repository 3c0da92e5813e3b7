"""Tests of wasserstein_toy.py: what is known exactly, the critic's training, and the figures."""

import json
import math

import numpy
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

import wasserstein_toy as toy

CPU = torch.device("cpu")
REAL, FAKE = toy.REAL_1, toy.FAKE_1


def sampled(mixture, count):
    """(count,)"""
    return toy.numbers_from(mixture, count, CPU)[:, 0]


def trained(limit, value, steps, lr, D, real, fake):
    """The critic, and the losses of its training."""
    return D, torch.stack(list(toy.train_critic(D, real, fake, steps, lr, limit, value)))


# ---- distributions ------------------------------------------------------------------------------


def scipy_mixture(mixture, x, what):
    return sum(w * getattr(scipy.stats.norm(mean, std), what)(x) for w, mean, std in mixture)


def test_pdf_and_cdf_against_scipy():
    for name in ("pdf", "cdf"):
        expected = scipy_mixture(FAKE, toy.GRID.numpy(), name)
        assert numpy.allclose(getattr(toy, name)(FAKE, toy.GRID), expected, atol=1e-12)


def test_numbers_from_a_mixture_have_its_moments():
    mixture = ((0.3, -1.0, 0.5), (0.7, 2.0, 2.0))
    numbers = toy.numbers_from(mixture, 400_000, CPU)
    assert numbers.shape == (400_000, 1)
    x = numbers[:, 0]
    assert x.mean().item() == pytest.approx(0.3 * -1 + 0.7 * 2, abs=0.02)
    second = 0.3 * (1 + 0.25) + 0.7 * (4 + 4)
    assert x.square().mean().item() == pytest.approx(second, rel=0.02)
    distance = scipy.stats.kstest(x[:20_000], lambda t: scipy_mixture(mixture, t, "cdf"))
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
        x = toy.PLANE[name](400_000, CPU).double().numpy()
        assert x.shape == (400_000, 2)
        assert numpy.allclose(x.mean(0), mean, atol=0.01), name
        assert numpy.allclose(x.T @ x / len(x), second, atol=0.012), name


def test_gaussians_stand_where_they_should():
    x = toy.eight_gaussians(80_000, CPU)
    angle = torch.atan2(x[:, 1], x[:, 0]) * 8 / (2 * math.pi)
    assert numpy.allclose(torch.bincount(angle.round().long() % 8) / 80_000, 1 / 8, atol=0.006)
    assert (x.norm(dim=1) - 2).std().item() == pytest.approx(0.05, rel=0.03)
    x = toy.twenty_five_gaussians(50_000, CPU)
    counts = torch.bincount(((x[:, 0].round() + 2) * 5 + x[:, 1].round() + 2).long())
    assert len(counts) == 25 and numpy.allclose(counts / 50_000, 1 / 25, atol=0.005)
    assert (x - x.round()).std().item() == pytest.approx(0.05, rel=0.03)
    ring = toy.swiss_roll(1000, CPU).norm(dim=1)
    assert ring.min() > 0.4 and ring.max() < 2.1


def test_the_fixed_generator_adds_unit_noise_to_other_points():
    drawn = []
    fake = toy.noisy(lambda count: drawn.append(torch.rand(count, 2)) or drawn[-1])(20_000)
    noise = fake - drawn[0]
    assert noise.std().item() == pytest.approx(1, rel=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=0.02)


# ---- what is known in one dimension -------------------------------------------------------------


def test_exact_distance_against_scipy_and_closed_forms():
    distance = scipy.stats.wasserstein_distance(sampled(REAL, 300_000), sampled(FAKE, 300_000))
    assert toy.wasserstein(REAL, FAKE) == pytest.approx(distance, abs=0.02)
    assert toy.wasserstein(REAL, FAKE) == pytest.approx(1.702, abs=1e-3)
    # Shifted, the distance is the shift; rescaled, that of the deviations times E|N(0, 1)|.
    assert toy.wasserstein(((1, -3, 1),), ((1, 1, 1),)) == pytest.approx(4, rel=1e-6)
    assert toy.wasserstein(((1, 0, 0.5),), ((1, 0, 1.2),)) == pytest.approx(
        0.7 * math.sqrt(2 / math.pi), rel=1e-5)


def test_pdf_between_against_a_histogram():
    count, edges = 2_000_000, numpy.linspace(-4, 4, 41)
    epsilon = torch.rand(count)
    x = epsilon * sampled(REAL, count) + (1 - epsilon) * sampled(FAKE, count)
    expected = numpy.histogram(x, edges)[0] / count / 0.2
    fine = torch.linspace(-4, 4, 801, dtype=torch.float64)  # 20 pieces to a bin
    ours = toy.pdf_between(REAL, FAKE, fine)
    means = ((ours[:-1] + ours[1:]) / 2).view(40, 20).mean(1)
    assert numpy.allclose(means, expected, atol=0.004)
    assert toy.integral(toy.pdf_between(REAL, FAKE, toy.GRID)) == pytest.approx(1, abs=1e-5)


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
        p_hat = inverse[astride].sum() / inverse.numel()
        slopes.append(1 + (difference / (2 * 3 * p_hat)).item())
    ours, slopes = toy.penalized_slope(REAL, FAKE, 3.0).numpy(), numpy.array(slopes)
    ours = ours[numpy.isin(toy.GRID, points)]
    assert numpy.abs(ours - slopes).mean() < 0.02  # 0.33 is the mean of what is above 1
    # by equation 5 the estimate is W1 and a share of it that falls like 1 / lambda
    overshoot = [toy.penalized_estimate(REAL, FAKE, penalty) - toy.wasserstein(REAL, FAKE)
                 for penalty in (0.1, 10)]
    difference = (toy.cdf(REAL, points) - toy.cdf(FAKE, points)).abs().numpy()
    expected = scipy.integrate.trapezoid(difference * (slopes - 1), points) * 3 / 10
    assert overshoot[1] == pytest.approx(expected, rel=0.02)
    assert overshoot[0] == pytest.approx(100 * overshoot[1])


def test_formula_for_point_masses():
    """Two normals so narrow that they are points, at the distance 2."""
    P, Q = ((1.0, -1.0, 0.01),), ((1.0, 1.0, 0.01),)
    for penalty in (0.5, 10):
        assert toy.penalized_estimate(P, Q, penalty) == pytest.approx(2 * (1 + 2 / (2 * penalty)),
                                                                      rel=0.01)


# ---- networks and objective ---------------------------------------------------------------------


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
    (x_hat,) = seen
    assert penalty.item() == pytest.approx(((x_hat.norm(dim=1) - 1) ** 2).mean().item())
    epsilon = (x_hat - fake) / (real - fake)
    assert torch.allclose(epsilon, epsilon.median(1, keepdim=True).values, atol=1e-2)
    epsilon = epsilon.median(1).values
    assert 0 <= epsilon.min() < 0.2 and 0.8 < epsilon.max() <= 1


def test_critic_loss_is_equation_3():
    D = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    real, fake = torch.rand(8, 2).double(), torch.rand(8, 2).double()
    distance = (D(real).mean() - D(fake).mean()).item()
    torch.manual_seed(5)
    penalty = toy.gradient_penalty(D, real, fake).item()
    for weight in (0, 3):
        torch.manual_seed(5)
        loss = toy.critic_loss(D, real, fake, weight).item()
        assert loss == pytest.approx(-distance + weight * penalty)


# ---- the algorithm ------------------------------------------------------------------------------


def test_clipped_critic_stays_within_bounds():
    D, real = toy.mlp([2, 16, 16, 1]), lambda count: toy.swiss_roll(count, CPU)
    assert D[0].weight.abs().max() > 0.1
    trained("clip", 0.1, 3, 1e-2, D, real, toy.noisy(real))
    largest = max(p.abs().max().item() for p in D.parameters())
    assert largest == pytest.approx(0.1)  # reached, and not passed


def test_lambda_grows_to_its_value(monkeypatch):
    """With a loss that is lambda alone, the losses are the schedule."""
    monkeypatch.setattr(toy, "critic_loss", lambda D, real, fake, penalty: (
        penalty + 0 * (D(real) + D(fake)).mean()))
    real = fake = lambda count: torch.rand(count, 2)  # noqa: E731
    for value, full in ((0.1, 0), (10.0, 12), (100.0, 15)):
        _, losses = trained("lambda", value, 20, 1e-3, toy.mlp([2, 4, 1]), real, fake)
        assert losses.tolist() == sorted(losses.tolist())
        assert losses[:6].tolist() == pytest.approx([0.1] * 6)
        assert losses[full:].tolist() == pytest.approx([value] * (20 - full))
    assert losses[10].item() == pytest.approx(0.1 * 1000**0.5)  # halfway, on a scale of logs
    _, losses = trained("clip", 0.01, 2, 1e-3, toy.mlp([2, 4, 1]), real, fake)
    assert losses.tolist() == [0, 0]


@pytest.mark.parametrize("distance, penalty", [(0.5, 1.0), (3.0, 10.0)])
def test_critic_of_two_point_masses(distance, penalty):
    """Trained, its estimate is d (1 + d / (2 lambda)): the penalty is what the formula says."""
    torch.manual_seed(0)
    D, _ = trained("lambda", penalty, 400, 2e-2, toy.mlp([1, 32, 1], nn.SiLU),
                   lambda count: torch.zeros(count, 1),
                   lambda count: torch.full((count, 1), distance))
    estimate = (D(torch.zeros(1, 1)) - D(torch.full((1, 1), distance))).item()
    assert estimate == pytest.approx(distance * (1 + distance / (2 * penalty)), rel=0.01)


def test_penalized_critic_finds_the_distance_and_the_overshoot(monkeypatch):
    """Figure 1 at lambda 10, with fewer steps."""
    monkeypatch.setattr(toy, "STEPS_1D", 400)
    torch.manual_seed(0)
    f, slope = toy.fit_1d(REAL, FAKE, 10.0, "test", CPU)
    estimate = toy.integral(f * (toy.pdf(REAL, toy.GRID) - toy.pdf(FAKE, toy.GRID)))
    exact = toy.wasserstein(REAL, FAKE)
    assert estimate - exact == pytest.approx(toy.penalized_estimate(REAL, FAKE, 10) - exact,
                                             rel=0.2)
    assert f.mean().item() == pytest.approx(0, abs=1e-9)
    assert numpy.allclose(slope[1:-1], (f[2:] - f[:-2]).abs() / 0.008, atol=0.02)


# ---- figures ------------------------------------------------------------------------------------


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


@pytest.fixture
def run(tmp_path, monkeypatch):
    """All figures with two steps for each critic; returns the results and the folder."""
    monkeypatch.setattr(toy, "SAMPLES", 200)
    for name in ("STEPS_1D", "STEPS_PLANE", "STEPS_DEEP"):
        monkeypatch.setattr(toy, name, 2)

    def start(out, seed=3):
        return toy.train(toy.Options(seed=seed, device="cpu"), tmp_path / out), \
            tmp_path / out
    return start


def test_figures_and_their_numbers(run, monkeypatch):
    results, out = run("run")
    assert json.loads((out / "results.json").read_text()) == results
    for name in toy.FIGURES:
        Image.open(out / name).load()
    assert sorted(path.name for path in out.iterdir()) == sorted([*toy.FIGURES, "results.json"])
    out.with_name("plain").mkdir()
    assert out.stat().st_mode == out.with_name("plain").stat().st_mode  # others may read it
    assert results["figure1_w1"] == toy.wasserstein(REAL, FAKE)
    for i, penalty in enumerate((0.1, 1, 10, 100)):
        assert results["figure1_lambda"][i] == penalty
        assert results["figure1_equation_5"][i] == toy.penalized_estimate(REAL, FAKE, penalty)
    mass = (toy.pdf(REAL, toy.GRID) > 0.01) | (toy.pdf(FAKE, toy.GRID) > 0.01)
    assert results["figure1_equation_4"][1] == pytest.approx(
        toy.penalized_slope(REAL, FAKE, 1)[mass].median().item())
    # D = 1 / (1 + exp(-6 x)), so at -3 log(1 - D) has the slope 6 D, and log D 6 (1 - D)
    assert results["figure2_gradient_minimax"] == pytest.approx(6 * scipy.special.expit(-18),
                                                                rel=1e-6)
    assert results["figure2_gradient_non_saturating"] == pytest.approx(6)
    assert results["figure2_gradient_critic"] > 0
    assert sum(name.startswith("figure3") for name in results) == 9
    assert [name for name in results if name.startswith("figure4")] == [
        "figure4_ratio_clip_0.1", "figure4_ratio_clip_0.01", "figure4_ratio_clip_0.001",
        "figure4_ratio_lambda_10"]

    monkeypatch.setattr(Figure, "savefig", lambda *a, **k: None)  # saves most of the time
    monkeypatch.setattr(toy, "FIGURES", {"figure3.png": toy.figure_3})
    again, other = run("again")[0], run("other", seed=4)[0]
    assert again.pop("training_seconds") > 0 < results.pop("training_seconds")
    assert again.items() <= results.items()
    assert other["figure3_Swiss_roll_lambda_10"] != results["figure3_Swiss_roll_lambda_10"]


def empty(path, device):
    Figure().savefig(path, dpi=20)
    return {"number": 1.5}


def test_an_interrupted_run_leaves_nothing_in_the_way(monkeypatch, capsys, tmp_path):
    def stopped(path, device):
        raise KeyboardInterrupt

    monkeypatch.setattr(toy, "FIGURES", {"empty.png": empty, "stopped.png": stopped})
    with pytest.raises(SystemExit) as stop:
        toy.main(["--device", "cpu", "--out", str(tmp_path / "run")])
    assert stop.value.code == 130
    assert "nothing to continue" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_nan_stops_the_figures_and_is_named(run, monkeypatch, tmp_path):
    monkeypatch.setattr(toy, "gradient_penalty", lambda D, real, fake: math.nan * D(real).mean())
    with pytest.raises(SystemExit) as stop:
        toy.main(["--device", "cpu", "--out", str(tmp_path / "run")])
    assert "not finite: figure 1, lambda 0.1" in str(stop.value.code)
    assert not (tmp_path / "run").exists()
