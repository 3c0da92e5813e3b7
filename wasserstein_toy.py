"""What the Wasserstein critic learns, in one and two dimensions.

Grant Reaber, "Introduction to Generative Adversarial Networks", slides, 2017, with figures from
Arjovsky et al. 2017, arXiv 1701.07875, and Gulrajani et al. 2017, arXiv 1704.00028.

The idea. A discriminator that is sure is flat, and the generator learns nothing from it
(gan_toy.py). A critic f answers another question: how far, on average, must the generated points Q
be carried to become the real ones P? For the best way to carry them that is the Wasserstein
distance W1. By Kantorovich-Rubinstein duality

    W1(P, Q) = max of E_P[f(x)] - E_Q[f(y)] over all f whose slope is nowhere above 1           (1)

In one dimension all is known. By parts, E_P[f] - E_Q[f] is the integral of f' (F_Q - F_P), with F
the distribution functions. So the best f has slope +1 where F_Q > F_P, elsewhere -1, and

    W1(P, Q) = integral of |F_P - F_Q|                                                          (2)

WGAN clips every weight to [-c, c]: that bounds the slope by an unknown number; gradients explode or
vanish (figure 4). WGAN-GP penalizes every slope but 1, at points x^ between x and y:

    f minimizes  E_Q[f(y)] - E_P[f(x)] + lambda E[(|grad f(x^)| - 1)^2]                         (3)
    x^ = epsilon x + (1 - epsilon) y,  epsilon uniform on [0, 1]

What is the best f now? In one dimension, with p^ the density of x^, (3) is the integral of
-f' (F_Q - F_P) + lambda p^ (|f'| - 1)^2, and can be minimized point by point:

    |f'| = 1 + |F_P - F_Q| / (2 lambda p^)                                                      (4)
    E_P[f] - E_Q[f] = W1 + integral of (F_P - F_Q)^2 / (2 lambda p^)                            (5)

So the penalty is a spring, not a wall. For two point masses at distance d, p^ is 1 / d between
them, and the estimate d (1 + d / (2 lambda)).

    all four figures                              python wasserstein_toy.py
    1-D: f, its slope, the overshoot              slides, "Wasserstein Distance"   figure1-*.png
    discriminator, critic, and their gradients    1701.07875, figure 2             figure2-*.png
    value surfaces                                1704.00028, figure 1             figure3-*.png
    gradient norm by layer (published as 1b)      1704.00028, figure 2             figure4-*.png

Where this differs from the slides or the papers (measured in docs/wasserstein_toy.md):
- The distributions of figures 1 and 2, networks, minibatches and learning rates are ours.
- lambda begins at 0.1 and grows, so that a slope of the wrong sign turns.
- The optimal discriminator of figure 2 is not trained but known: p / (p + q).
- lambda is 10 as in the paper; its authors' toy code has 0.1 (figures 1 and 3 have both).
- Critics train for at most 1,500 steps, the authors' for 100,000; figure 4 has a fixed generator.
"""

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

if __name__ == "__main__":  # before torch: networks this small are slower with two threads
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn
from tqdm import tqdm

import common
from common import Figure, color_sequences, option

PENALTY = 10.0  # lambda; Gulrajani et al. 2017
LAMBDAS = (0.1, 1.0, 10.0, 100.0)  # of figure 1
SURFACES = (("clip", 0.01), ("lambda", 0.1), ("lambda", PENALTY))  # how critics of figure 3 ...
LAYERS = (("clip", 0.1), ("clip", 0.01), ("clip", 0.001), ("lambda", PENALTY))  # and 4 are limited
RADIUS, SPREAD = 2.0, 0.05  # of the circle of 8 Gaussians; standard deviation of each Gaussian
BATCH = 256  # real and as many generated points in a minibatch
STEPS_1D, STEPS_PLANE, STEPS_DEEP = 1000, 1500, 500  # critic steps in each fit of the figures
SAMPLES = 10_000  # points that estimates are measured with
COLORS = color_sequences["petroff10"]  # for color-blind people, too


@dataclass(frozen=True)
class Options:
    """Default, accepted values and meaning of each; raises ValueError where one is not accepted."""

    script = "wasserstein_toy.py"
    seed: int = option(0, (0, 4000), "of weights and points")
    device: str = option("auto", ("auto", "cpu", "cuda", "mps"), "auto is cuda, else cpu")

    def __post_init__(self):
        common.check_options(self)


# ---- distributions ------------------------------------------------------------------------------

Mixture = tuple[tuple[float, float, float], ...]  # of normal distributions: weight, mean, deviation
REAL_1: Mixture = ((1.0, 0.0, 1.0),)  # of figure 1 ...
FAKE_1: Mixture = ((0.5, -3.0, 0.5), (0.5, 2.0, 0.5))
REAL_2: Mixture = ((1.0, 3.0, 1.0),)  # ... and of figure 2
FAKE_2: Mixture = ((1.0, -3.0, 1.0),)
Points = Callable[[int], Tensor]  # gives so many points of a distribution; (count, d)


def pdf(mixture: Mixture, x: Tensor) -> Tensor:
    """The density of the mixture at x, in the shape of x."""
    return sum(w * torch.exp(-0.5 * ((x - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
               for w, mean, std in mixture)


def cdf(mixture: Mixture, x: Tensor) -> Tensor:
    """F(x), the probability of a number below x, in the shape of x."""
    return sum(w * torch.special.ndtr((x - mean) / std) for w, mean, std in mixture)


def numbers_from(mixture: Mixture, count: int, device: torch.device) -> Tensor:
    """Numbers (count, 1) from the mixture."""
    weight, mean, std = torch.tensor(mixture, device=device).T
    which = torch.multinomial(weight, count, replacement=True)
    return (mean[which] + std[which] * torch.randn(count, device=device)).unsqueeze(1)


def eight_gaussians(count: int, device: torch.device) -> Tensor:
    """Their means stand evenly on a circle; (count, 2)."""
    angle = torch.randint(8, (count,), device=device) * (2 * math.pi / 8)
    centers = RADIUS * torch.stack([angle.cos(), angle.sin()], dim=1)
    return centers + SPREAD * torch.randn(count, 2, device=device)


def twenty_five_gaussians(count: int, device: torch.device) -> Tensor:
    """Their means are the pairs of whole numbers from -2 to 2; (count, 2)."""
    centers = torch.randint(-2, 3, (count, 2), device=device)
    return centers + SPREAD * torch.randn(count, 2, device=device)


def swiss_roll(count: int, device: torch.device) -> Tensor:
    """One and a half turns of a spiral, in the scale of Gulrajani et al.'s code; (count, 2)."""
    angle = math.pi * (1.5 + 3 * torch.rand(count, device=device))
    spiral = torch.stack([angle * angle.cos(), angle * angle.sin()], dim=1)
    return (spiral + 0.25 * torch.randn(count, 2, device=device)) / 7.5


PLANE = {"8 Gaussians": eight_gaussians, "25 Gaussians": twenty_five_gaussians,
         "Swiss roll": swiss_roll}


# ---- what is known in one dimension -------------------------------------------------------------

GRID = torch.linspace(-8, 8, 4001, dtype=torch.float64)  # beyond it all densities are nearly 0


def integral(values: Tensor) -> float:
    """The integral of a function over GRID, from its values there (4001,)."""
    return torch.trapezoid(values, GRID).item()


def gap(P: Mixture, Q: Mixture) -> Tensor:
    """|F_P - F_Q| on GRID; (4001,)."""
    return (cdf(P, GRID) - cdf(Q, GRID)).abs()


def wasserstein(P: Mixture, Q: Mixture) -> float:
    """Equation 2: the exact W1."""
    return integral(gap(P, Q))


def pdf_between(P: Mixture, Q: Mixture, x: Tensor) -> Tensor:
    """p^, the density of epsilon x + (1 - epsilon) y, in the shape of x.

    For an epsilon and a pair of components this is again a normal distribution. The mean over
    epsilon takes the midpoints of 400 equal pieces of [0, 1].
    """
    total = torch.zeros_like(x)
    for epsilon in ((torch.arange(400) + 0.5) / 400).tolist():
        total += pdf(tuple((v * w, epsilon * a + (1 - epsilon) * b,
                            math.hypot(epsilon * r, (1 - epsilon) * s))
                           for v, a, r in P for w, b, s in Q), x)
    return total / 400


def penalized_slope(P: Mixture, Q: Mixture, penalty: float) -> Tensor:
    """Equation 4 for lambda = penalty: |f'| of the best penalized f, on GRID; (4001,).

    |F_P - F_Q| / p^ is at most the harmonic mean of |x - y| over all pairs on either side of a
    point. Where p^ is below 1e-9, and the quotient one of rounding errors, it does not matter.
    """
    p_hat = pdf_between(P, Q, GRID)
    return 1 + torch.where(p_hat > 1e-9, gap(P, Q) / (2 * penalty * p_hat), 0)


def penalized_estimate(P: Mixture, Q: Mixture, penalty: float) -> float:
    """Equation 5 for lambda = penalty, as the integral of |F_P - F_Q| |f'|."""
    return integral(gap(P, Q) * penalized_slope(P, Q, penalty))


# ---- networks and objective ---------------------------------------------------------------------


def mlp(sizes: list[int], activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers, (N, sizes[0]) -> (N, sizes[-1]), with an activation between any two."""
    layers = []
    for inputs, outputs in zip(sizes, sizes[1:]):
        linear = nn.Linear(inputs, outputs)
        # He et al.: with PyTorch's default the signal would vanish in twelve ReLU layers
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
        layers += [linear, activation()]
    return nn.Sequential(*layers[:-1])


def gradient_penalty(D: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """E[(|grad f(x^)| - 1)^2] of equation 3, a scalar; real, fake (N, d), one epsilon per point."""
    epsilon = torch.rand(len(real), 1, device=real.device)
    x_hat = (epsilon * real + (1 - epsilon) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(D(x_hat).sum(), x_hat, create_graph=True)
    return ((gradient.norm(dim=1) - 1) ** 2).mean()


def critic_loss(D: nn.Module, real: Tensor, fake: Tensor, penalty: float) -> Tensor:
    """Equation 3 for lambda = penalty, a scalar; real, fake (N, d). 0 is for clipped critics."""
    real_score, fake_score = D(torch.cat([real, fake])).chunk(2)
    loss = fake_score.mean() - real_score.mean()
    return loss + penalty * gradient_penalty(D, real, fake) if penalty else loss


# ---- the algorithm ------------------------------------------------------------------------------


def train_critic(D: nn.Module, real: Points, fake: Points, steps: int, lr: float, limit: str,
                 value: float) -> Iterator[Tensor]:
    """Train critic D, the generator being fixed; yield the loss after each step, a scalar.

    `limit` is "clip", and `value` bounds the weights, or "lambda", and `value` is that of the
    penalty. RMSprop for clipping, as its paper has it; else Adam as in 1704.00028, algorithm 1.
    """
    penalty = 0.0
    opt = (torch.optim.RMSprop(D.parameters(), lr, alpha=0.9) if limit == "clip" else
           torch.optim.Adam(D.parameters(), lr, (0.0, 0.9), fused=True))
    for step in range(steps):
        opt.param_groups[0]["lr"] = lr * (1 - step / steps)  # to zero: the noise averages out
        if limit == "lambda":  # 0.1 at first, so that slopes of the wrong sign turn, then growing
            penalty = min(value, max(0.1, 0.1 * 1000 ** (2 * step / steps - 0.5)))
        loss = critic_loss(D, real(BATCH), fake(BATCH), penalty)
        opt.zero_grad()
        loss.backward(inputs=list(D.parameters()))  # no gradient for x_hat
        opt.step()
        if limit == "clip":
            with torch.no_grad():
                for parameter in D.parameters():
                    parameter.clamp_(-value, value)
        yield loss.detach()


def fit(D: nn.Module, real: Points, fake: Points, steps: int, lr: float, limit: str, value: float,
        figure: str) -> nn.Module:
    """Take all steps of train_critic under a bar. FloatingPointError where a loss is not finite."""
    losses, name = train_critic(D, real, fake, steps, lr, limit, value), f"{limit} {value:g}"
    for loss in tqdm(losses, f"{figure}, {name}", steps):
        pass
    if not loss.isfinite():  # the last will do: from nan there is no way back
        raise FloatingPointError(f"the loss is not finite: {figure}, {name}")
    return D


# ---- evaluation and figures ---------------------------------------------------------------------
# Each figure fits its critics on the device, writes the picture, and returns numbers by name.


def fit_1d(P: Mixture, Q: Mixture, penalty: float, figure: str,
           device: torch.device) -> tuple[Tensor, Tensor]:
    """A fitted critic with one input: f, of mean zero, and |f'| on GRID, both (4001,)."""
    D = mlp([1, 64, 64, 1], nn.SiLU).to(device)  # smooth as f is, but where f' changes sign
    real, fake = (partial(numbers_from, mixture, device=device) for mixture in (P, Q))
    fit(D, real, fake, STEPS_1D, 5e-3, "lambda", penalty, figure)
    x = GRID.float().unsqueeze(1).to(device).requires_grad_()
    f = D(x)
    (gradient,) = torch.autograd.grad(f.sum(), x)
    f = f.detach()[:, 0].cpu().double()  # on the CPU first: mps has no float64
    return f - f.mean(), gradient[:, 0].abs().cpu().double()


def figure_1(path: Path, device: torch.device) -> dict:
    """The best f between a Gaussian and a mixture of two; its slope and the overshoot by lambda."""
    p, q, w1 = pdf(REAL_1, GRID), pdf(FAKE_1, GRID), wasserstein(REAL_1, FAKE_1)
    mass = torch.maximum(p, q) > 0.01
    rows = []  # for each lambda: estimate and median slope, fitted and exact
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    (top, right), (bottom, low) = figure.subplots(2, 2, sharex=True)
    for i, penalty in enumerate(LAMBDAS):
        f, steepness = fit_1d(REAL_1, FAKE_1, penalty, "figure 1", device)
        formula = penalized_slope(REAL_1, FAKE_1, penalty)
        estimate = integral(f * (p - q))
        rows.append((estimate, penalized_estimate(REAL_1, FAKE_1, penalty),
                     steepness[mass].median().item(), formula[mass].median().item()))
        right.plot(GRID, steepness, color=COLORS[i], linewidth=4, alpha=0.4,
                   label=f"lambda {penalty:g}: estimate {estimate:.3f}")
        right.plot(GRID, formula, ":", color=COLORS[i])

    for axes in (top, low):
        axes.fill_between(GRID, p, alpha=0.3, label="p, real")
        axes.fill_between(GRID, q, alpha=0.3, label="q, generated")
    top.plot(GRID, f / 10, color=COLORS[i], label=f"f / 10, lambda {penalty:g}")
    bottom.fill_between(GRID, f * (p - q), facecolor=COLORS[i], edgecolor=COLORS[i], alpha=0.3)
    low.plot(GRID, pdf_between(REAL_1, FAKE_1, GRID), "k", label="p^, points between")
    low.plot(GRID, gap(REAL_1, FAKE_1), "--", color=COLORS[4], label="|F_P - F_Q|")
    top.set(title=f"Both densities, and the critic f; exact W1 {w1:.3f}")
    bottom.set(title=f"f (p - q), its integral {estimate:.3f}", xlabel="x", xlim=(-6, 5))
    right.set(title="|f'|, and equation 4 (dotted)", yscale="log", ylim=(0.5, 60))
    low.set(title="What equation 4 is made of", xlabel="x", ylim=(0, 0.68))
    for axes in (top, right, low):
        axes.legend(fontsize=9)
    figure.savefig(path, dpi=120)
    names = ("estimate", "equation_5", "median_slope", "equation_4")
    return {"figure1_w1": w1, "figure1_lambda": list(LAMBDAS)} | {
        f"figure1_{name}": list(column) for name, column in zip(names, zip(*rows))}


def figure_2(path: Path, device: torch.device) -> dict:
    """Two Gaussians: the optimal discriminator and the critic, and what each tells a generator."""
    p, q = pdf(REAL_2, GRID), pdf(FAKE_2, GRID)
    f, steepness = fit_1d(REAL_2, FAKE_2, PENALTY, "figure 2", device)
    logit = p.log() - q.log()  # of the optimal discriminator p / (p + q)
    (logit_slope,) = torch.gradient(logit, spacing=(GRID,))
    probability = torch.sigmoid(logit)
    minimax, non_saturating = probability * logit_slope, (1 - probability) * logit_slope

    figure = Figure(figsize=(12, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.fill_between(GRID, p, alpha=0.3, label="p, real")
    left.fill_between(GRID, q, alpha=0.3, label="q, generated")
    left.plot(GRID, probability, color=COLORS[2], label="optimal discriminator p / (p + q)")
    left.plot(GRID, f / 10, color=COLORS[4], label="critic f / 10")
    left.set(title="Discriminator and critic", xlabel="x", ylim=(-1.2, 1.2))
    right.plot(GRID, minimax, color=COLORS[2], label="minimax: |grad log(1 - D)|")
    right.plot(GRID, non_saturating, "--", color=COLORS[1], label="non-saturating: |grad log D|")
    right.plot(GRID, steepness, color=COLORS[4], label="critic: |grad f|")
    right.set(title="What the generator gets", xlabel="x", yscale="log", ylim=(1e-12, 1e3))
    for axes in (left, right):
        axes.legend(fontsize=9)
    figure.savefig(path, dpi=120)
    mean_of_q = (GRID - FAKE_2[0][1]).abs().argmin()
    return {"figure2_gradient_minimax": minimax[mean_of_q].item(),
            "figure2_gradient_non_saturating": non_saturating[mean_of_q].item(),
            "figure2_gradient_critic": steepness[mean_of_q].item()}


def noisy(points: Points) -> Points:
    """The fixed generator of figures 3 and 4: other real points plus unit Gaussian noise."""
    return lambda count: (x := points(count)) + torch.randn_like(x)


def figure_3(path: Path, device: torch.device) -> dict:
    """Value surfaces of critics, clipped and penalized, the generator fixed; their estimates."""
    figure, results = Figure(figsize=(11, 9), layout="constrained"), {}
    line = torch.linspace(-3, 3, 150, device=device)
    for column, (name, distribution) in zip(figure.subplots(3, 3).T, PLANE.items()):
        real = partial(distribution, device=device)
        fake = noisy(real)
        for axes, (limit, value) in zip(column, SURFACES):
            title = f"{name}, {limit} {value:g}"
            D = fit(mlp([2, 128, 128, 128, 1]).to(device), real, fake, STEPS_PLANE, 5e-3, limit,
                    value, f"figure 3, {name}")
            axes.plot(*real(500).cpu().T, ".", color="C1", markersize=2)
            with torch.no_grad():
                values = D(torch.cartesian_prod(line, line)).view(150, 150).T.cpu()  # rows are y
                estimate = D(real(SAMPLES)).mean() - D(fake(SAMPLES)).mean()
            results[f"figure3_{title}".replace(", ", "_").replace(" ", "_")] = estimate.item()
            surface = axes.contourf(line.cpu(), line.cpu(), values - values.mean(), levels=12)
            axes.set(title=title, aspect="equal", xticks=range(-3, 4), yticks=range(-3, 4))
            figure.colorbar(surface, ax=axes, shrink=0.9)
    figure.savefig(path, dpi=120)
    return results


def layer_gradients(D: nn.Sequential, real: Tensor, fake: Tensor) -> list[float]:
    """The mean over all points of |dD / da|, a the output of each ReLU of D, the first one first.

    real, fake (N, d). Up to signs and 1 / N that is the gradient of equation 1.
    """
    a, outputs = torch.cat([real, fake]), []
    for layer in D:
        a = layer(a)
        if isinstance(layer, nn.ReLU):
            outputs.append(a)
    return [gradient.cpu().double().norm(dim=1).mean().item()  # squared, 1e-23 is 0 in float32
            for gradient in torch.autograd.grad(a.sum(), outputs)]


def figure_4(path: Path, device: torch.device) -> dict:
    """The gradient's way through 12 hidden layers; the largest mean norm over the smallest."""
    curves, results, real = {}, {}, partial(swiss_roll, device=device)
    fake = noisy(real)
    for limit, value in LAYERS:
        D = fit(mlp([2] + [64] * 12 + [1]).to(device), real, fake, STEPS_DEEP, 1e-3, limit, value,
                "figure 4")
        norms = layer_gradients(D, real(SAMPLES), fake(SAMPLES))
        curves[f"{limit} {value:g}"] = (range(1, 13), norms)
        results[f"figure4_ratio_{limit}_{value:g}"] = max(norms) / min(norms)
    common.save_curves({"": curves}, path, "hidden layer", "mean norm of the gradient", log=True)
    return results


# ---- run ----------------------------------------------------------------------------------------

FIGURES = {"figure1-one-dimension.png": figure_1, "figure2-two-gaussians.png": figure_2,
           "figure3-value-surfaces.png": figure_3, "figure4-layer-gradients.png": figure_4}


def train(options: Options, out: str | Path, resume: bool = False) -> dict:
    """All figures and results.json in the new folder `out`; return the results.

    The files come together at the end: a run that is stopped leaves nothing to resume.
    """
    out, device, start = Path(out), common.pick_device(options.device), time.perf_counter()
    common.check_run(options, out, resume=False)
    print(f"{out} on {device}: figures 1 to 4, 18 critics to fit", flush=True)
    results = {}
    with TemporaryDirectory() as folder:
        for name, make in FIGURES.items():
            torch.manual_seed(options.seed)  # each figure depends on the seed alone
            results |= make(Path(folder, name), device)
        for picture in Path(folder).iterdir():
            common.write_whole(out / picture.name, picture.read_bytes())
    return common.save_results(out, options, results, {}, device, time.perf_counter() - start)


def main(argv: list[str] | None = None) -> None:
    """The program: status 0, 1 (data, disk or losses), 2 (options), 130 (Ctrl-C)."""
    options, out, resume = common.parse_args(Options, __doc__, argv)
    with common.exit_status(options, out):
        train(options, out, resume)


if __name__ == "__main__":
    main()
