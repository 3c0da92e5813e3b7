"""What the Wasserstein critic learns, in one and two dimensions. The file to read first.

Grant Reaber, "Introduction to Generative Adversarial Networks", slides, 2017. His figures come from
Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017, arXiv 1701.07875, and from
Gulrajani et al., "Improved Training of Wasserstein GANs", 2017, arXiv 1704.00028.

The idea. A GAN's discriminator tells real points from generated ones. Where it is sure it is flat,
and the generator learns nothing from it. A critic f answers another question: how far, on average,
must the generated points Q be carried to become the real ones P? For the best way to carry them
that is the Wasserstein distance W1, and by Kantorovich-Rubinstein duality

    W1(P, Q) = max of E_P[f(x)] - E_Q[f(y)] over all f whose slope is nowhere above 1           (1)

In one dimension all is known. By parts, E_P[f] - E_Q[f] is the integral of f' (F_Q - F_P), with F
the distribution functions, so that the best f has slope +1 where F_Q > F_P, elsewhere -1, and

    W1(P, Q) = integral of |F_P - F_Q|                                                          (2)

How is a network kept to such slopes? WGAN clips every weight to [-c, c]. That bounds the slope,
but nobody knows by what, and leaves little else: most weights end near -c or c, the critic is a
simple function, and from layer to layer gradients grow or shrink by a factor that depends on c,
so that through twelve layers they explode or vanish. WGAN-GP instead charges for each slope that
is not 1, at points x^ = epsilon x + (1 - epsilon) y, epsilon uniform on [0, 1]:

    f minimizes  E_Q[f(y)] - E_P[f(x)] + lambda E[(|grad f(x^)| - 1)^2]                         (3)

What is the best f now? In one dimension, with p^ the density of x^, (3) is the integral of
-f' (F_Q - F_P) + lambda p^ (|f'| - 1)^2, and can be minimized point by point:

    |f'| = 1 + |F_P - F_Q| / (2 lambda p^)                                                      (4)
    E_P[f] - E_Q[f] = W1 + integral of (F_P - F_Q)^2 / (2 lambda p^)                            (5)

So the penalty is a spring, not a wall: the estimate overshoots, in proportion to 1 / lambda. For
two point masses at distance d, p^ is 1 / d between them, and the estimate d (1 + d / (2 lambda)).
In general |F_P - F_Q| / p^ is at most the harmonic mean of |x - y| over all pairs on either side
of a point, so that (4) is finite even where p^ is tiny.

    figure                                       command                            file
    1-D: f, its slope, the overshoot             python wasserstein_toy.py          figure1-*.png
    discriminator, critic and their gradients    (the same; 1701.07875, figure 2)   figure2-*.png
    value surfaces                               (the same; 1704.00028, figure 1)   figure3-*.png
    gradient norm per layer                      (the same; 1704.00028, figure 2)   figure4-*.png
    a GAN learns the 8 Gaussians                 python wasserstein_toy.py --train wgan-gp
                                                                 training.gif, figure5-*.png
    all, four objectives, three seeds            python wasserstein_toy.py --paper  figure6-*.png

Where this differs from the slides or the papers, and why
- The mixture of figure 1 and the widths of the Gaussians are ours; the slides name no numbers. Ours
  are the learning rates, the minibatches and the sizes of the networks, too.
- In figures 1 to 4 lambda begins at 0.1 and grows. (|f'| - 1)^2 has two wells, and under a large
  lambda a slope that begins with the wrong sign may stay in the wrong one, with a minus in (4): a
  local minimum that looks well trained.
- The optimal discriminator of figure 2 is not trained. It is known: p / (p + q).
- lambda is 10, as in the paper. The authors' toy code has 0.1: figure 1 shows what that does to the
  slope, and figure 3 has both. Our critics train for up to 1,500 steps, theirs for 100,000.
- Figure 4 trains the critic alone, the generator fixed as in figure 3; the paper trains both.
- All objectives make 5 critic steps per generator step, as the Wasserstein papers do; a GAN usually
  makes 1 (`--critic-steps 1`).

Things to try: `--train minimax`, and see the generator run to few modes and stay there; the same
with `--critic-steps 1`; CLIP = 0.1; in `fit`, the penalty from the first step on (`--seed 2`,
figure 1); LEFT moved away from RIGHT, to -5, and see which of the gradients minds.
"""

import argparse
import csv
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus
from tqdm import tqdm

from common import save_curves, save_gif

PENALTY = 10.0  # lambda; Gulrajani et al. 2017
CLIP = 0.01  # bound on the weights; Arjovsky et al. 2017
LAMBDAS = (0.1, 1.0, 10.0, 100.0)  # of figure 1
CLIPS = (0.1, 0.01, 0.001)  # of figure 4; Gulrajani et al. 2017, figure 2
STEPS_1D, STEPS_PLANE, STEPS_DEEP = 1000, 1500, 500  # critic steps in each fit of the figures
EPOCH = 25  # generator steps in what --epochs counts: there is no data set to pass through
SAMPLES = 10_000  # generated points that the evaluation counts


# ---- distributions ------------------------------------------------------------------------------

Mixture = tuple[tuple[float, float, float], ...]  # of normal distributions: weight, mean, deviation
REAL_1D: Mixture = ((1.0, 0.0, 1.0),)
FAKE_1D: Mixture = ((0.5, -3.0, 0.5), (0.5, 2.0, 0.5))
LEFT: Mixture = ((1.0, -3.0, 1.0),)  # the generated points of figure 2 ...
RIGHT: Mixture = ((1.0, 3.0, 1.0),)  # ... and the real ones


def density(mixture: Mixture, x: Tensor) -> Tensor:
    """The density of the mixture at x, in the shape of x."""
    return sum(w * torch.exp(-0.5 * ((x - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
               for w, mean, std in mixture)


def distribution(mixture: Mixture, x: Tensor) -> Tensor:
    """F(x), the probability of a number below x, in the shape of x."""
    return sum(w * torch.special.ndtr((x - mean) / std) for w, mean, std in mixture)


def draw(mixture: Mixture, count: int) -> Tensor:
    """`count` numbers from the mixture; (count, 1)."""
    weight, mean, std = torch.tensor(mixture).T
    which = torch.multinomial(weight, count, replacement=True)
    return (mean[which] + std[which] * torch.randn(count)).unsqueeze(1)


RADIUS, SPREAD = 2.0, 0.05  # of the 8 Gaussians: of their circle, and of each


def eight_centers() -> Tensor:
    """The means of the 8 Gaussians, evenly on a circle; (8, 2)."""
    angle = torch.arange(8) * (2 * math.pi / 8)
    return RADIUS * torch.stack([angle.cos(), angle.sin()], dim=1)


def eight_gaussians(count: int) -> Tensor:
    """(count, 2)."""
    return eight_centers()[torch.randint(8, (count,))] + SPREAD * torch.randn(count, 2)


def twenty_five_gaussians(count: int) -> Tensor:
    """The 25 stand on the whole numbers from -2 to 2; (count, 2)."""
    return torch.randint(-2, 3, (count, 2)) + SPREAD * torch.randn(count, 2)


def swiss_roll(count: int) -> Tensor:
    """One and a half turns of a spiral, in the scale of Gulrajani et al.'s code; (count, 2)."""
    angle = math.pi * (1.5 + 3 * torch.rand(count))
    spiral = torch.stack([angle * angle.cos(), angle * angle.sin()], dim=1)
    return (spiral + 0.25 * torch.randn(count, 2)) / 7.5


PLANE = {"8 Gaussians": eight_gaussians, "25 Gaussians": twenty_five_gaussians,
         "Swiss roll": swiss_roll}


# ---- what is known in one dimension -------------------------------------------------------------

GRID = torch.linspace(-8, 8, 4001, dtype=torch.float64)  # beyond it all the densities are nothing


def integral(values: Tensor) -> float:
    """The integral of a function over GRID, from its values there (4001,)."""
    return torch.trapezoid(values, GRID).item()


def gap(P: Mixture, Q: Mixture) -> Tensor:
    """|F_P - F_Q| on GRID; (4001,)."""
    return (distribution(P, GRID) - distribution(Q, GRID)).abs()


def wasserstein(P: Mixture, Q: Mixture) -> float:
    """Equation 2: the exact W1."""
    return integral(gap(P, Q))


def density_between(P: Mixture, Q: Mixture, x: Tensor) -> Tensor:
    """p^, the density of epsilon x + (1 - epsilon) y, in the shape of x.

    For each epsilon and each pair of components this is again a normal distribution; the mean over
    epsilon is taken with the midpoints of 400 equal pieces of [0, 1].
    """
    total = torch.zeros_like(x)
    for epsilon in ((torch.arange(400) + 0.5) / 400).tolist():
        total += density(tuple((v * w, epsilon * a + (1 - epsilon) * b,
                                math.hypot(epsilon * r, (1 - epsilon) * s))
                               for v, a, r in P for w, b, s in Q), x)
    return total / 400


def penalized_slope(P: Mixture, Q: Mixture, weight: float) -> Tensor:
    """Equation 4 for lambda = weight: |f'| of the best penalized f, on GRID; (4001,).

    Where p^ is below 1e-9 the quotient is left out, before it becomes one of rounding errors. So
    little mass is there that it does not show in the integral (see the docstring on top).
    """
    between = density_between(P, Q, GRID)
    return 1 + torch.where(between > 1e-9, gap(P, Q) / (2 * weight * between), 0)


def penalized_estimate(P: Mixture, Q: Mixture, weight: float) -> float:
    """Equation 5 for lambda = weight, as the integral of |F_P - F_Q| |f'|."""
    return integral(gap(P, Q) * penalized_slope(P, Q, weight))


# ---- networks -----------------------------------------------------------------------------------


def mlp(sizes: list[int], activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """A network of linear layers, (N, sizes[0]) -> (N, sizes[-1]), with nothing after the last.

    He initialization: with PyTorch's default the signal would be gone after twelve ReLU layers.
    """
    layers = []
    for inputs, outputs in zip(sizes, sizes[1:]):
        layers += [nn.Linear(inputs, outputs), activation()]
        nn.init.kaiming_normal_(layers[-2].weight, nonlinearity="relu")
        nn.init.zeros_(layers[-2].bias)
    return nn.Sequential(*layers[:-1])


# ---- objectives ---------------------------------------------------------------------------------


def gradient_penalty(D: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """E[(|grad D(x^)| - 1)^2], the last term of equation 3 without lambda; a scalar.

    real, fake (N, d); one epsilon per point.
    """
    epsilon = torch.rand(len(real), 1)
    between = (epsilon * real + (1 - epsilon) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(D(between).sum(), between, create_graph=True)
    return ((gradient.norm(dim=1) - 1) ** 2).mean()


def discriminator_loss(D: nn.Module, real: Tensor, fake: Tensor, objective: str,
                       penalty: float = PENALTY) -> tuple[Tensor, Tensor]:
    """What D minimizes. For both GAN objectives it is cross entropy, D's output being the logit.

    Returns the loss and E[D(x)] - E[D(y)], which for wgan-gp is the estimate of W1 and carries no
    gradient. Both are scalars.
    """
    on_real, on_fake = D(torch.cat([real, fake])).chunk(2)
    if objective in ("minimax", "non-saturating"):
        loss = softplus(-on_real).mean() + softplus(on_fake).mean()
    else:
        loss = on_fake.mean() - on_real.mean()
    if objective == "wgan-gp":
        loss = loss + penalty * gradient_penalty(D, real, fake)
    return loss, (on_real.mean() - on_fake.mean()).detach()


def generator_loss(D: nn.Module, fake: Tensor, objective: str) -> Tensor:
    """What G minimizes: log(1 - D), -log D (D as a probability here), or minus the critic."""
    if objective == "minimax":
        return logsigmoid(-D(fake)).mean()
    return softplus(-D(fake)).mean() if objective == "non-saturating" else -D(fake).mean()


@torch.no_grad()
def clip(D: nn.Module, bound: float = CLIP) -> None:
    """Keep D's weights in [-bound, bound]: wgan's way to keep D Lipschitz continuous."""
    for parameter in D.parameters():
        parameter.clamp_(-bound, bound)


def optimizer(network: nn.Module, lr: float, objective: str) -> torch.optim.Optimizer:
    """RMSprop for wgan, as its paper has it; for the others Adam as in 1704.00028, algorithm 1."""
    if objective == "wgan":
        return torch.optim.RMSprop(network.parameters(), lr, alpha=0.9)
    return torch.optim.Adam(network.parameters(), lr, (0.0, 0.9), fused=True)


# ---- figures of fitted critics ------------------------------------------------------------------

Pairs = Callable[[int], tuple[Tensor, Tensor]]  # gives so many real and as many generated points


def fit(D: nn.Module, pairs: Pairs, steps: int, lr: float, name: str, penalty: float | None = None,
        bound: float | None = None) -> nn.Module:
    """Train critic D, under a penalty or clipped to a bound, and return it.

    Raises FloatingPointError where the last loss is not finite: from nan there is no way back.
    lambda stays at 0.1 for a quarter of the steps and then grows to the penalty (to 100 within the
    next half): a slope of -1 costs no more than one of +1, and a critic that begins with a large
    lambda can stay on the wrong side.
    """
    objective = "wgan" if penalty is None else "wgan-gp"
    opt, weight = optimizer(D, lr, objective), None
    for step in tqdm(range(steps), f"{name:40}"):
        opt.param_groups[0]["lr"] = lr * (1 - step / steps)  # to zero: the noise averages out
        if penalty is not None:
            weight = min(penalty, max(0.1, 0.1 * 1000 ** (2 * step / steps - 0.5)))
        loss, _ = discriminator_loss(D, *pairs(256), objective, weight)
        opt.zero_grad()
        loss.backward(inputs=list(D.parameters()))  # none for the points between
        opt.step()
        if objective == "wgan":
            clip(D, bound)
    if not loss.isfinite():
        raise FloatingPointError(f"the loss is not finite: {name}")
    return D


def slope(D: nn.Module, x: Tensor) -> Tensor:
    """|grad D| at x: (N, d) -> (N,)."""
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(D(x).sum(), x)
    return gradient.norm(dim=1)


def on_grid(D: nn.Module) -> tuple[Tensor, Tensor]:
    """f and |f'| of a critic with one input, on GRID, both (4001,); f with mean zero there."""
    x = GRID.float().unsqueeze(1).to(torch.get_default_device())
    f = D(x).detach()[:, 0].double().cpu()
    return f - f.mean(), slope(D, x).double().cpu()


def figure_1(out: Path) -> dict:
    """The best f between a Gaussian and a mixture of two; its slope and the overshoot by lambda."""
    p, q = density(REAL_1D, GRID), density(FAKE_1D, GRID)
    mass = torch.maximum(p, q) > 0.01
    w1, slopes = {"exact": wasserstein(REAL_1D, FAKE_1D)}, {}
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    (top, right), (bottom, low) = figure.subplots(2, 2, sharex=True)
    for i, weight in enumerate(LAMBDAS):
        D = mlp([1, 64, 64, 1], nn.SiLU)  # smooth, since f' is, too, but for its changes of sign
        name = f"lambda {weight:g}"
        fit(D, lambda count: (draw(REAL_1D, count), draw(FAKE_1D, count)), STEPS_1D, 5e-3,
            f"figure 1, {name}", weight)
        f, steepness = on_grid(D)
        formula = penalized_slope(REAL_1D, FAKE_1D, weight)
        w1[name] = integral(f * (p - q))
        w1[f"{name}, equation 5"] = penalized_estimate(REAL_1D, FAKE_1D, weight)
        slopes[name] = steepness[mass].median().item()
        slopes[f"{name}, equation 4"] = formula[mass].median().item()
        right.plot(GRID, steepness, f"C{i}", label=f"{name}: estimate {w1[name]:.3f}")
        right.plot(GRID, formula, "k:", linewidth=1)

    for axes in (top, low):
        axes.fill_between(GRID, p, alpha=0.3, label="p, real")
        axes.fill_between(GRID, q, alpha=0.3, label="q, generated")
    top.plot(GRID, f / 10, "C3", label=f"f / 10, {name}")
    bottom.plot(GRID, f * (p - q), "C3")
    bottom.fill_between(GRID, f * (p - q), color="C3", alpha=0.2)
    low.plot(GRID, density_between(REAL_1D, FAKE_1D, GRID), "k", label="p^, points between")
    low.plot(GRID, gap(REAL_1D, FAKE_1D), "C4--", label="|F_P - F_Q|")
    top.set(title="Both densities, and the critic f")
    bottom.set(title=f"f (p - q): its integral {w1[name]:.3f}, exact W1 {w1['exact']:.3f}",
               xlabel="x", xlim=(-6, 5))
    right.set(title=f"|f'|, and equation 4 (dotted); exact W1 {w1['exact']:.3f}", yscale="log",
              ylim=(0.5, 60))
    low.set(title="What equation 4 is made of", xlabel="x", ylim=(0, 0.68))
    for axes in (top, right, low):
        axes.legend(fontsize=9)
    figure.savefig(out / "figure1-one-dimension.png", dpi=120)
    return {"w1": w1, "median_slope": slopes}


def figure_2(out: Path) -> dict:
    """Two Gaussians: the optimal discriminator and the critic, and what each tells a generator."""
    p, q = density(RIGHT, GRID), density(LEFT, GRID)
    D = fit(mlp([1, 64, 64, 1], nn.SiLU), lambda count: (draw(RIGHT, count), draw(LEFT, count)),
            STEPS_1D, 5e-3, f"figure 2, lambda {PENALTY:g}", PENALTY)
    f, steepness = on_grid(D)
    logit = p.log() - q.log()  # of the optimal discriminator p / (p + q)
    (logit_slope,) = torch.gradient(logit, spacing=(GRID,))
    probability = torch.sigmoid(logit)
    gradients = {"minimax: |grad log(1 - D)|": probability * logit_slope,
                 "non-saturating: |grad log D|": (1 - probability) * logit_slope,
                 "critic: |grad f|": steepness}

    figure = Figure(figsize=(12, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.fill_between(GRID, p, alpha=0.3, label="p, real")
    left.fill_between(GRID, q, alpha=0.3, label="q, generated")
    left.plot(GRID, probability, "C2", label="optimal discriminator p / (p + q)")
    left.plot(GRID, f / 10, "C3", label="critic f / 10")
    left.set(title="Discriminator and critic", xlabel="x", ylim=(-1.2, 1.2))
    for (name, gradient), color in zip(gradients.items(), ("C2", "C4", "C3")):
        right.plot(GRID, gradient, color, label=name)
    right.set(title="What the generator gets", xlabel="x", yscale="log", ylim=(1e-12, 1e3))
    for axes in (left, right):
        axes.legend(fontsize=9)
    figure.savefig(out / "figure2-two-gaussians.png", dpi=120)
    center = (GRID - LEFT[0][1]).abs().argmin()
    return {"gradient_at_mean_of_q":
            {name: gradient[center].item() for name, gradient in gradients.items()}}


def noisy(points: Callable[[int], Tensor]) -> Pairs:
    """The fixed generator of figures 3 and 4: other real points plus unit Gaussian noise."""
    return lambda count: (points(count), points(count) + torch.randn(count, 2))


def draw_surface(axes, D: nn.Module, points: Tensor, reach: float = 3.0):
    """D over the square from -reach to reach, as filled contours with points (N, 2) on them."""
    line = torch.linspace(-reach, reach, 150)
    with torch.no_grad():
        values = D(torch.cartesian_prod(line, line)).view(150, 150).T  # rows are y
    surface = axes.contourf(line.cpu(), line.cpu(), (values - values.mean()).cpu(), levels=12)
    axes.plot(*points.T.cpu(), ".", color="C1", markersize=2)
    axes.set(aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach), xticks=range(-2, 3),
             yticks=range(-2, 3))
    return surface


def figure_3(out: Path) -> dict:
    """Value surfaces of critics, clipped and penalized, the generator fixed."""
    figure = Figure(figsize=(11, 9), layout="constrained")
    results = {}
    for column, (name, points) in zip(figure.subplots(3, 3).T, PLANE.items()):
        limits = {f"clipped at {CLIP}": {"bound": CLIP}, "lambda 0.1": {"penalty": 0.1},
                  f"lambda {PENALTY:g}": {"penalty": PENALTY}}
        for axes, (how, limit) in zip(column, limits.items()):
            title = f"{name}, {how}"
            D = fit(mlp([2, 128, 128, 128, 1]), noisy(points), STEPS_PLANE, 5e-3,
                    f"figure 3, {title}", **limit)
            figure.colorbar(draw_surface(axes, D, points(500)), ax=axes, shrink=0.9)
            axes.set_title(title, fontsize=11)
            with torch.no_grad():
                real, fake = noisy(points)(SAMPLES)
                results[title] = (D(real).mean() - D(fake).mean()).item()
    figure.savefig(out / "figure3-value-surfaces.png", dpi=100)
    return {"estimate": results}


def layer_gradients(D: nn.Sequential, real: Tensor, fake: Tensor) -> list[float]:
    """The mean over all points of |dD / da|, a the output of each ReLU of D, the first one first.

    real, fake (N, d). Up to signs and 1 / N that is the gradient of equation 1.
    """
    a, outputs = torch.cat([real, fake]), []
    for layer in D:
        a = layer(a)
        if isinstance(layer, nn.ReLU):
            outputs.append(a)
    return [gradient.double().norm(dim=1).mean().item()  # squared, 1e-23 is 0 in float32
            for gradient in torch.autograd.grad(a.sum(), outputs)]


def figure_4(out: Path) -> dict:
    """The gradient's way through 12 hidden layers: clipped, it explodes or vanishes."""
    curves, ratios = {}, {}
    pairs = noisy(swiss_roll)
    limits = {f"clipped at {bound}": {"bound": bound} for bound in CLIPS}
    limits[f"lambda {PENALTY:g}"] = {"penalty": PENALTY}
    for name, limit in limits.items():
        D = fit(mlp([2] + [64] * 12 + [1]), pairs, STEPS_DEEP, 1e-3, f"figure 4, {name}", **limit)
        norms = layer_gradients(D, *pairs(SAMPLES))
        curves[name] = (range(1, 13), norms)
        ratios[name] = max(norms) / min(norms)
    save_curves({"Gradient of the critic by its layers' outputs": curves},
                out / "figure4-layer-gradients.png", "hidden layer", "mean norm", log=True)
    return {"layer_gradient_ratio": ratios}


def figures(args: argparse.Namespace) -> None:
    """All figures that need no generator, and results.json, in args.out."""
    args.out.mkdir(parents=True, exist_ok=True)  # there already if --paper was stopped here
    print(f"{args.out}: figures 1 to 4, {4 + 1 + 9 + 4} critics to fit")
    start, results = time.perf_counter(), {}
    for draw_figure in (figure_1, figure_2, figure_3, figure_4):
        torch.manual_seed(args.seed)  # each figure depends on the seed alone
        results |= draw_figure(args.out)
    save_results(args, results, time.perf_counter() - start)


def save_results(args: argparse.Namespace, results: dict, seconds: float) -> None:
    """Write results.json and print it."""
    results |= {"seed": args.seed, "device": str(torch.get_default_device()),
                "threads": torch.get_num_threads(), "torch": torch.__version__,
                "training_seconds": round(seconds, 1)}
    (args.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    for name, value in results.items():
        for part, shown in value.items() if isinstance(value, dict) else [("", value)]:
            print(f"{name} {part}".ljust(60), f"{shown:.4g}" if isinstance(shown, float)
                  else shown)
    print(f"Pictures and numbers: {args.out}")


# ---- a GAN on the 8 Gaussians -------------------------------------------------------------------


def build(args: argparse.Namespace) -> dict:
    """Networks and optimizers, new, by the names they have in checkpoint.pt."""
    torch.manual_seed(args.seed)
    G, D = mlp([2, 128, 128, 128, 2]), mlp([2, 128, 128, 128, 1])
    return {"G": G, "D": D, "opt_g": optimizer(G, args.lr, args.train),
            "opt_d": optimizer(D, args.lr, args.train)}


def train(args: argparse.Namespace) -> None:
    """The whole algorithm, from the first step to the animation in args.out."""
    parts, log, first, seconds = build(args), [], 0, 0.0
    G, D, opt_g, opt_d = parts.values()

    def save(epoch: int) -> None:
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"epoch": epoch, "log": log, "seconds": seconds}
        torch.save(state, args.out / "checkpoint.tmp")
        os.replace(args.out / "checkpoint.tmp", args.out / "checkpoint.pt")

    (args.out / "samples").mkdir(parents=True, exist_ok=bool(args.resume))
    options = {"script": "wasserstein_toy.py"} | {name: getattr(args, name) for name in STORED}
    (args.out / "options.json").write_text(json.dumps(options, indent=2) + "\n")
    if args.resume:
        saved = torch.load(args.out / "checkpoint.pt", torch.get_default_device(),
                           weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        first, log, seconds = saved["epoch"], saved["log"], saved["seconds"]
    else:
        save(0)
        draw_samples(args, G, D, 0)

    print(f"{args.out}: {args.train} on {torch.get_default_device()}, {first} of {args.epochs} "
          f"epochs done, {EPOCH} generator steps each, each after {args.critic_steps} critic steps")
    bar = tqdm(range(first, args.epochs), initial=first, total=args.epochs, unit=" epochs")
    for epoch in bar:
        start = time.perf_counter()
        torch.manual_seed(1_000_000 * (args.seed + 1) + epoch)  # an epoch depends on these alone
        losses = []
        for _ in range(EPOCH):
            for _ in range(args.critic_steps):
                real = eight_gaussians(args.batch_size)
                with torch.no_grad():
                    fake = G(torch.randn(args.batch_size, 2))
                d_loss, estimate = discriminator_loss(D, real, fake, args.train)
                opt_d.zero_grad()
                d_loss.backward(inputs=list(D.parameters()))
                opt_d.step()
                if args.train == "wgan":
                    clip(D)

            g_loss = generator_loss(D, G(torch.randn(args.batch_size, 2)), args.train)
            opt_g.zero_grad()
            g_loss.backward(inputs=list(G.parameters()))  # D's parameters gather no gradient
            opt_g.step()
            losses.append(torch.stack([d_loss.detach(), g_loss.detach(), estimate]))

        means = torch.stack(losses).mean(0).tolist()
        if not all(map(math.isfinite, means)):
            bar.close()
            raise FloatingPointError(
                f"a loss is not finite in generator steps {epoch * EPOCH + 1} to "
                f"{(epoch + 1) * EPOCH} (epoch {epoch + 1}); {args.out} holds epoch {epoch}")
        modes, share = modes_found(sample(args, G))
        log.append([(epoch + 1) * EPOCH, *means, modes, share])
        bar.set_postfix_str(f"D {means[0]:.3f}, G {means[1]:.3f}, {modes} of 8 modes")
        draw_samples(args, G, D, epoch + 1)
        seconds += time.perf_counter() - start
        save(epoch + 1)
    evaluate(args, log, seconds)


@torch.no_grad()
def sample(args: argparse.Namespace, G: nn.Module) -> Tensor:
    """SAMPLES generated points (SAMPLES, 2), of noise that depends on args.seed alone."""
    torch.manual_seed(args.seed)
    return G(torch.randn(SAMPLES, 2))


def modes_found(points: Tensor) -> tuple[int, float]:
    """How many of the 8 Gaussians the points (N, 2) have found, and the share of good points.

    A good point lies within three standard deviations of a mode, as 98.9% of the real ones do. A
    mode is found if 1% of all points are good and its own; its fair share is 12.5%.
    """
    distance, mode = torch.cdist(points, eight_centers()).min(1)
    good = distance < 3 * SPREAD
    shares = torch.bincount(mode[good], minlength=8) / len(points)
    return (shares >= 0.01).sum().item(), good.float().mean().item()


def draw_samples(args: argparse.Namespace, G: nn.Module, D: nn.Module, epoch: int) -> None:
    """A frame of the animation: D's surface, 500 samples, and circles around the modes."""
    points = sample(args, G)
    figure = Figure(figsize=(3, 3.2), layout="constrained")
    axes = figure.subplots()
    draw_surface(axes, D, points[:500])
    axes.plot(*eight_centers().T.cpu(), "ow", fillstyle="none", markersize=10)
    axes.set_title(f"{args.train}, step {epoch * EPOCH}: {modes_found(points)[0]} of 8", fontsize=9)
    figure.savefig(args.out / "samples" / f"epoch-{epoch:03}.png", dpi=90)


def evaluate(args: argparse.Namespace, log: list, seconds: float) -> None:
    """Write the run's metrics, curves, animation and results.json."""
    with open(args.out / "metrics.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [["generator_step", "d_loss", "g_loss", "estimate", "modes", "share"], *log])
    steps, d_loss, g_loss, estimate, modes, share = zip(*log)
    save_curves({"losses": {"D": (steps, d_loss), "G": (steps, g_loss)},
                 "E[D(x)] - E[D(G(z))]": {args.train: (steps, estimate)},
                 "modes found, of 8": {args.train: (steps, modes)},
                 "share within three deviations of a mode": {args.train: (steps, share)}},
                args.out / "figure5-training.png", "generator step")
    save_gif(sorted((args.out / "samples").glob("epoch-*.png")), args.out / "training.gif",
             most=30, in_color=True)
    later = modes[len(modes) // 2:]
    save_results(args, {"modes": modes[-1], "modes_mean_of_later_half": sum(later) / len(later),
                        "share_within_three_deviations": share[-1], "epochs": args.epochs}, seconds)


# ---- all experiments ----------------------------------------------------------------------------

OBJECTIVES = ("minimax", "non-saturating", "wgan", "wgan-gp")


def figure_6(out: Path, runs: list[argparse.Namespace]) -> None:
    """The last samples of each objective, seed 0; below, the modes found by the three seeds."""
    figure = Figure(figsize=(13, 6), layout="constrained")
    pictures, curves = figure.subplots(2, 4, sharey="row", height_ratios=(2, 1))
    for run in runs:
        saved = torch.load(run.out / "checkpoint.pt", torch.get_default_device(),
                           weights_only=True)
        column = OBJECTIVES.index(run.train)
        steps, *_, modes, _ = zip(*saved["log"])
        curves[column].plot(steps, modes, linewidth=1, label=f"seed {run.seed}")
        if run.seed == 0:
            parts = build(run)
            for name in ("G", "D"):
                parts[name].load_state_dict(saved[name])
            draw_surface(pictures[column], parts["D"], sample(run, parts["G"])[:1000])
            pictures[column].set_title(run.train)
    for axes in curves:
        axes.set(xlabel="generator step", ylim=(-0.3, 8.3), yticks=(0, 2, 4, 6, 8))
        axes.grid(alpha=0.3)
    curves[0].set_ylabel("modes found, of 8")
    curves[0].legend(fontsize=8)
    figure.savefig(out / "figure6-objectives.png", dpi=100)


def configuration(args: argparse.Namespace) -> str:
    """The name of a run: what makes it different from the others of --paper."""
    return f"{args.train or 'figures'}-seed{args.seed}"


def paper(args: argparse.Namespace) -> None:
    """Figures 1 to 4, then every objective with three seeds: figure 6, and a table of its runs.

    What is already there is continued, or left alone when complete.
    """
    if not (args.out / "figures" / "results.json").exists():
        figures(argparse.Namespace(out=args.out / "figures", seed=0))
    shared = ["--batch-size", str(args.batch_size), "--lr", str(args.lr), "--critic-steps",
              str(args.critic_steps), "--device", args.device]
    runs, rows = [], []
    for objective in OBJECTIVES:
        for seed in (0, 1, 2):
            options = ["--train", objective, "--seed", str(seed), *shared]
            run = args.out / configuration(parse_args(options))
            argv = [*options, "--resume" if (run / "checkpoint.pt").exists() else "--out", str(run)]
            results = run / "results.json"
            if not results.exists() or json.loads(results.read_text())["epochs"] < args.epochs:
                print(f"\nTraining of {run.name}")
                train(parse_args([*argv, "--epochs", str(args.epochs)]))
            runs.append(parse_args([*options, "--resume", str(run)]))  # it must have these options
            rows.append({"run": run.name} | json.loads(results.read_text()))
    figure_6(args.out, runs)
    with open(args.out / "results.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print(f"\n{'run':24}epochs  modes  mean of later half  share within 3 deviations  seconds")
    for row in rows:
        print(f"{row['run']:24}{row['epochs']:6}{row['modes']:7}"
              f"{row['modes_mean_of_later_half']:20.1f}"
              f"{row['share_within_three_deviations']:27.2f}{row['training_seconds']:9.0f}")
    print(f"Figures and results.csv: {args.out}")


# ---- command line -------------------------------------------------------------------------------

KEPT = ("train", "batch_size", "lr", "critic_steps", "seed")
STORED = (*KEPT, "epochs", "device")  # on --resume only these last two may differ


def number(kind: type, low: float, high: float):
    """The argparse type of the numbers of that kind, int or float, from low to high."""
    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # also where it is not a number
            raise argparse.ArgumentTypeError(
                f"{text!r} is not {'a whole' if kind is int else 'a'} number from {low} to {high}")
        return value
    return parse


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" is cuda where there is one, else cpu."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of a run. A bad one ends the program with status 2 and a line that says why."""
    class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
        pass

    parser = argparse.ArgumentParser(
        prog="wasserstein_toy.py", formatter_class=Formatter, allow_abbrev=False,
        description="What the Wasserstein critic learns (Reaber 2017): figures 1 to 4, or, with "
                    "--train, a small GAN on the 8 Gaussians.",
        epilog="""examples:
  python wasserstein_toy.py                              figures 1 to 4
  python wasserstein_toy.py --train wgan-gp              a GAN, with an animation
  python wasserstein_toy.py --train minimax --critic-steps 1
  python wasserstein_toy.py --resume runs/wasserstein_toy/NAME --epochs 200
  python wasserstein_toy.py --paper                      all of it, with three seeds""")
    parser.set_defaults(train=None, out=None, resume=None, paper=False)  # not shown by --help
    training = parser.add_argument_group("training")
    training.add_argument("--train", choices=OBJECTIVES, default=argparse.SUPPRESS,
                          help="train a GAN with this objective (without: figures 1 to 4)")
    training.add_argument("--epochs", type=number(int, 1, 10**6), default=120, metavar="N",
                          help=f"an epoch is {EPOCH} generator steps")
    training.add_argument("--batch-size", type=number(int, 1, 10**6), default=256, metavar="N",
                          help="points in a minibatch")
    training.add_argument("--lr", type=number(float, 1e-9, 10), default=1e-3, metavar="X",
                          help="learning rate")
    training.add_argument("--critic-steps", type=number(int, 1, 1000), default=5, metavar="N",
                          help="steps of D before each of G")
    run = parser.add_argument_group("run")
    run.add_argument("--seed", type=number(int, 0, 10**9), default=0, metavar="N",
                     help="of weights, points and noise")
    run.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto",
                     help="auto is cuda, else cpu; mps is untested")
    run.add_argument("--out", type=Path, default=argparse.SUPPRESS, metavar="DIR",
                     help="folder to make (default: runs/wasserstein_toy/DATE-TIME-CONFIGURATION)")
    run.add_argument("--resume", type=Path, default=argparse.SUPPRESS, metavar="DIR",
                     help="continue the training in DIR; only --epochs and --device may differ")
    run.add_argument("--paper", action="store_true", default=argparse.SUPPRESS,
                     help="figures 1 to 4, all objectives with three seeds, and figure 6; "
                          "continues what was stopped")
    args = parser.parse_args(argv)

    if args.resume:
        if args.paper or args.out:
            parser.error("argument --resume: not allowed with --paper or --out")
        try:
            stored = json.loads((args.resume / "options.json").read_text())
            epochs = torch.load(args.resume / "checkpoint.pt", "cpu", weights_only=True)["epoch"]
        except Exception:  # what a damaged file raises depends on the damage
            stored = {}
        if stored.pop("script", None) != "wasserstein_toy.py" or stored.keys() != {*STORED}:
            parser.error(f"argument --resume: {args.resume} holds no whole training of "
                         "wasserstein_toy.py")
        args = parser.parse_args(argv, argparse.Namespace(**stored))  # stored values as defaults
        for name in KEPT:
            if getattr(args, name) != stored[name]:
                parser.error(f"argument --{name.replace('_', '-')}: the run in {args.resume} has "
                             f"{stored[name]}, which --resume keeps")
        if args.epochs < epochs:
            parser.error(f"argument --epochs: the run in {args.resume} has {epochs} already")
        args.out = args.resume
    elif args.paper:
        for name in ("train", "seed"):
            if getattr(args, name):
                parser.error(f"argument --{name}: --paper runs through its values itself")
        args.out = args.out or Path("runs/wasserstein_toy/paper")
    else:
        for name in ("epochs", "batch_size", "lr", "critic_steps"):
            if not args.train and getattr(args, name) != parser.get_default(name):
                parser.error(f"argument --{name.replace('_', '-')}: only with --train or --paper")
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{configuration(args)}"
        args.out = args.out or Path("runs/wasserstein_toy") / name
        if args.out.exists():
            again = f", or continue the training in it with --resume {args.out}" * bool(args.train)
            parser.error(f"argument --out: {args.out} exists; name a new folder{again}")
    if (args.device == "cuda" and not torch.cuda.is_available()
            or args.device == "mps" and not torch.backends.mps.is_available()):
        parser.error(f"argument --device: there is no {args.device} here; accepted: auto, cpu")
    return args


def main(argv: list[str] | None = None) -> None:
    """The program: status 0, 1 (losses are not as they should be), 2 (options), 130."""
    args = parse_args(argv)
    torch.set_num_threads(1)  # for networks this small a second thread measured slower
    torch.set_default_device(pick_device(args.device))
    try:
        (paper if args.paper else train if args.train else figures)(args)
    except KeyboardInterrupt:
        same = sys.argv[1:] if argv is None else argv
        options = shlex.join(same if args.paper else ["--resume", str(args.out)])
        kept = args.paper or (args.out / "checkpoint.pt").exists()
        print("\nInterrupted." + kept * (" Whole epochs are kept. To continue: "
                                         f"python wasserstein_toy.py {options}"), file=sys.stderr)
        sys.exit(130)
    except (OSError, FloatingPointError) as error:
        sys.exit(f"wasserstein_toy.py: error: {error}")


if __name__ == "__main__":
    main()
