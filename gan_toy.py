"""A GAN on eight Gaussians in the plane, with four objectives. The file to read first.

Grant Reaber, "Introduction to Generative Adversarial Networks", slides, 2017. The objectives come
from Goodfellow et al. 2014, arXiv 1406.2661 (minimax, non-saturating), Arjovsky et al. 2017,
arXiv 1701.07875 (wgan), and Gulrajani et al. 2017, arXiv 1704.00028 (wgan-gp).

The idea. We have points x in the plane and want more points like them. Two networks are trained
against each other:

    generator      G turns noise z, two standard normal numbers, into a point G(z).
    discriminator  D gives every point x a score D(x). It learns to give high scores to real
                   points and low scores to generated ones.

They take turns. D learns to tell real points from those that G makes now. Then G changes so that
its points get higher scores. G never sees a real point. All it knows is the gradient of D: the
direction in which the score of each of its points would rise. Where D is flat, G learns nothing.

The real points come from eight Gaussians on a circle, the modes. So we can see how a GAN may fail:
G finds some of the modes and never the others (mode dropping).

The objectives. E is the mean over real points x and noise z. With the first two, sigmoid(D(x)) is
the probability that D gives x to be real:

    minimax         D minimizes  -E[log sigmoid(D(x))] - E[log(1 - sigmoid(D(G(z))))]
                    G minimizes   E[log(1 - sigmoid(D(G(z))))]
    non-saturating  D minimizes   the same as with minimax
                    G minimizes  -E[log sigmoid(D(G(z)))]
    wgan            D minimizes   E[D(G(z))] - E[D(x)], all its weights clipped to [-0.01, 0.01]
                    G minimizes  -E[D(G(z))]
    wgan-gp         D minimizes   E[D(G(z))] - E[D(x)] + lambda E[(|grad D(x^)| - 1)^2]
                    G minimizes  -E[D(G(z))]

Where D is sure that G(z) is not real, the loss of G is flat with minimax, but not with
non-saturating. In the last two D is called a critic. Nothing but clipping or the penalty keeps its
scores from growing without end: the penalty asks for gradients of length 1 at points x^, uniform on
the line between a real and a generated point. wasserstein_toy.py shows what such critics learn.

    points find the modes          python gan_toy.py                        training.gif
    with another objective         python gan_toy.py --objective minimax    training.gif
    all objectives, three seeds    python reproduce.py gan_toy              figure-*, results.csv

Where this differs from the slides or the papers (measured in docs/gan_toy.md):
- The slides show the eight Gaussians but give no numbers. Widths, networks, minibatches and
  learning rates are ours.
- lambda is 10 as in the paper; its authors' toy code has 0.1.
- D makes 5 steps for each of G's with wgan and wgan-gp, else 1; the rate is 3e-4, with wgan-gp
  1e-3: for each objective the best of ten settings (--lr, --critic-steps).
"""

import math
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

if __name__ == "__main__":  # before torch: networks this small are slower with two threads
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus
from tqdm import tqdm

import common
from common import Figure, option

LATENT = 2  # standard normal numbers in z
RADIUS, SPREAD = 2.0, 0.05  # of the circle of modes; standard deviation of each Gaussian
PENALTY = 10.0  # lambda of the gradient penalty; Gulrajani et al. 2017
CLIP = 0.01  # bound on D's weights with the wgan objective; Arjovsky et al. 2017
BEST = {  # learning rate and steps of D, for each objective the best of ten; see docs/gan_toy.md
    "minimax": (3e-4, 1), "non-saturating": (3e-4, 1), "wgan": (3e-4, 5), "wgan-gp": (1e-3, 5)}
STEPS_PER_EPOCH = 25  # generator steps: there is no data set to pass through
SAMPLES = 10_000  # generated points that the evaluation counts


@dataclass(frozen=True)
class Options:
    """Default, accepted values and meaning of each; raises ValueError where one is not accepted."""

    script = "gan_toy.py"
    objective: str = option("wgan-gp", (*BEST,), "what D and G minimize")
    epochs: int = option(120, (1, 10**6), f"an epoch is {STEPS_PER_EPOCH} generator steps")
    batch_size: int = option(256, (1, 10**6), "points in a minibatch")
    lr: float = option(0.0, (0, 10), "learning rate; 0: the objective's best, 3e-4 or 1e-3")
    critic_steps: int = option(0, (0, 1000), "steps of D before each of G; 0: the best, 1 or 5")
    seed: int = option(0, (0, 4000), "of weights, points and noise")
    device: str = option("auto", ("auto", "cpu", "cuda", "mps"), "auto is cuda, else cpu")

    def __post_init__(self):
        common.check_options(self)
        lr, critic_steps = BEST[self.objective]
        object.__setattr__(self, "lr", self.lr or lr)  # frozen, but for what is not given
        object.__setattr__(self, "critic_steps", self.critic_steps or critic_steps)


# ---- data and networks --------------------------------------------------------------------------


def eight_centers(device: torch.device) -> Tensor:
    """The means of the eight Gaussians, evenly on a circle; (8, 2)."""
    angle = torch.arange(8, device=device) * (2 * math.pi / 8)
    return RADIUS * torch.stack([angle.cos(), angle.sin()], dim=1)


def real_batches(batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """Minibatches of real points (batch_size, 2), without end."""
    centers = eight_centers(device)
    while True:
        mode = torch.randint(8, (batch_size,), device=device)
        yield centers[mode] + SPREAD * torch.randn(batch_size, 2, device=device)


def mlp(sizes: list[int]) -> nn.Sequential:
    """Linear layers, (N, sizes[0]) -> (N, sizes[-1]), with ReLUs between; weights as He et al."""
    layers = []
    for inputs, outputs in zip(sizes, sizes[1:]):
        linear = nn.Linear(inputs, outputs)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def generator() -> nn.Sequential:
    """G: noise z (N, LATENT) -> points (N, 2)."""
    return mlp([LATENT, 128, 128, 128, 2])


def discriminator() -> nn.Sequential:
    """D: points (N, 2) -> scores (N, 1), no sigmoid."""
    return mlp([2, 128, 128, 128, 1])


# ---- objectives ---------------------------------------------------------------------------------


def gradient_penalty(D: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """E[(|grad D(x^)| - 1)^2], a scalar; real, fake (N, 2), and one epsilon per point."""
    epsilon = torch.rand(len(real), 1, device=real.device)
    x_hat = (epsilon * real + (1 - epsilon) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(D(x_hat).sum(), x_hat, create_graph=True)
    return ((gradient.norm(dim=1) - 1) ** 2).mean()


def discriminator_loss(D: nn.Module, real: Tensor, fake: Tensor,
                       objective: str) -> tuple[Tensor, Tensor]:
    """What D minimizes: the loss, and E[D(x)] - E[D(G(z))] without gradient; both scalars."""
    real_score, fake_score = D(torch.cat([real, fake])).chunk(2)
    if objective in ("minimax", "non-saturating"):  # -log sigmoid(s) is softplus(-s)
        loss = softplus(-real_score).mean() + softplus(fake_score).mean()
    else:
        loss = fake_score.mean() - real_score.mean()
    if objective == "wgan-gp":
        loss = loss + PENALTY * gradient_penalty(D, real, fake)
    return loss, (real_score.mean() - fake_score.mean()).detach()


def generator_loss(D: nn.Module, fake: Tensor, objective: str) -> Tensor:
    """What G minimizes; a scalar."""
    if objective == "minimax":  # log(1 - sigmoid(s)) is logsigmoid(-s)
        return logsigmoid(-D(fake)).mean()
    if objective == "non-saturating":
        return softplus(-D(fake)).mean()
    return -D(fake).mean()


# ---- the algorithm ------------------------------------------------------------------------------


def optimizer(network: nn.Module, lr: float, objective: str) -> torch.optim.Optimizer:
    """RMSprop for wgan, as its paper has it; for the others Adam as in 1704.00028, algorithm 1."""
    if objective == "wgan":
        return torch.optim.RMSprop(network.parameters(), lr, alpha=0.9)
    return torch.optim.Adam(network.parameters(), lr, (0.0, 0.9), fused=True)


@torch.no_grad()
def clip(D: nn.Module) -> None:
    """Keep D's weights in [-0.01, 0.01]: wgan's way to bound the slope of D."""
    for parameter in D.parameters():
        parameter.clamp_(-CLIP, CLIP)


def train_epoch(G: nn.Module, D: nn.Module, opt_g: torch.optim.Optimizer,
                opt_d: torch.optim.Optimizer, batches: Iterator[Tensor], steps: Iterable[int],
                critic_steps: int, objective: str) -> Iterator[Tensor]:
    """Train G for the steps with these numbers, and D `critic_steps` times before each of them.

    `batches` gives real points (N, 2). After each generator step this yields the last loss of D,
    that of G, and E[D(x)] - E[D(G(z))]; (3,), on the device of the points.
    """
    for _ in steps:
        for _ in range(critic_steps):
            real = next(batches)
            with torch.no_grad():
                fake = G(torch.randn(len(real), LATENT, device=real.device))
            d_loss, estimate = discriminator_loss(D, real, fake, objective)
            opt_d.zero_grad()
            d_loss.backward(inputs=list(D.parameters()))  # no gradient for x_hat
            opt_d.step()
            if objective == "wgan":
                clip(D)

        fake = G(torch.randn(len(real), LATENT, device=real.device))
        g_loss = generator_loss(D, fake, objective)
        opt_g.zero_grad()
        g_loss.backward(inputs=list(G.parameters()))  # D's parameters accumulate no gradient
        opt_g.step()
        yield torch.stack([d_loss.detach(), g_loss.detach(), estimate])


# ---- evaluation and figures ---------------------------------------------------------------------


@torch.no_grad()
def sample(G: nn.Module, count: int, seed: int) -> Tensor:
    """`count` generated points (count, 2), the same for a seed; global randomness is untouched."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return G(torch.randn(count, LATENT, device=next(G.parameters()).device))


def modes_found(points: Tensor) -> tuple[int, float]:
    """How many of the eight modes the points (N, 2) have found, and the share of good points.

    A good point lies within three standard deviations of a mode, as 98.9% of the real ones do. A
    mode is found if 1% of all points are good and nearest to it; its fair share is 12.5%.
    """
    distance, mode = torch.cdist(points, eight_centers(points.device)).min(1)
    good = distance < 3 * SPREAD
    shares = torch.bincount(mode[good], minlength=8) / len(points)
    return (shares >= 0.01).sum().item(), good.float().mean().item()


def dead_share(D: nn.Module, points: Tensor) -> float:
    """The share of points (N, 2) at which the gradient of D is exactly 0: there D is dead.

    G learns nothing from such a point. One layer of D whose ReLUs are all 0 there is enough.
    """
    points = points.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(D(points).sum(), points)
    return (gradient == 0).all(1).float().mean().item()


@torch.no_grad()
def save_surfaces(panels: dict[str, tuple[nn.Module, Tensor]], path: Path) -> None:
    """For each title D over a square, with generated points (N, 2) and real ones, in white.

    The colors are the deviation of D's scores from their mean in the square, in standard
    deviations, so that they are steady from picture to picture. The title tells the range of D.
    """
    noise = torch.randn(8, 20, 2, generator=torch.Generator().manual_seed(0))
    real = (eight_centers(torch.device("cpu")).unsqueeze(1) + SPREAD * noise).flatten(0, 1)
    figure = Figure(figsize=(3 * len(panels), 3.3), layout="constrained")
    for axes, (title, (D, points)) in zip(figure.subplots(1, len(panels), squeeze=False).flat,
                                          panels.items()):
        line = torch.linspace(-3, 3, 150, device=points.device)
        score = D(torch.cartesian_prod(line, line)).view(150, 150).T.cpu()  # rows are y
        axes.contourf(line.cpu(), line.cpu(), (score - score.mean()) / (score.std() + 1e-12),
                      levels=torch.linspace(-2.5, 2.5, 11), cmap="cividis", extend="both")
        axes.plot(*real.T, "o", color="white", markersize=1.5)
        axes.plot(*points.T.cpu(), "o", color="#D55E00", markersize=2)
        axes.set(aspect="equal", xlim=(-3, 3), ylim=(-3, 3), xticks=range(-2, 3),
                 yticks=range(-2, 3))
        axes.set_title(f"{title}\nD from {score.min():.3g} to {score.max():.3g}", fontsize=9)
    figure.savefig(path, dpi=120)


# ---- run ----------------------------------------------------------------------------------------


def train(options: Options, out: str | Path, resume: bool = False) -> dict:
    """Train in the new folder `out`, or continue the run that is there; return the results."""
    out, device, n = Path(out), common.pick_device(options.device), STEPS_PER_EPOCH
    torch.manual_seed(options.seed)
    G, D = generator().to(device), discriminator().to(device)
    opt_g, opt_d = (optimizer(network, options.lr, options.objective) for network in (G, D))
    state = {"G": G, "D": D, "opt_g": opt_g, "opt_d": opt_d}
    start_epoch, log, seconds = common.begin(out, options, state, device, resume)

    def draw(epochs: int) -> None:
        points = sample(G, SAMPLES, options.seed)
        title = f"{options.objective}, step {epochs * n}: {modes_found(points)[0]} of 8"
        save_surfaces({title: (D, points[:500])}, out / "samples" / f"epoch-{epochs:03}.png")

    draw(start_epoch)
    batches = real_batches(options.batch_size, device)
    bar = tqdm(total=options.epochs * n, initial=start_epoch * n, desc=out.name, unit=" steps")
    for epoch in range(start_epoch, options.epochs):
        start, steps = time.perf_counter(), range(epoch * n, (epoch + 1) * n)
        torch.manual_seed(1_000_000 * (options.seed + 1) + epoch)  # all that an epoch needs
        losses = train_epoch(G, D, opt_g, opt_d, batches, steps, options.critic_steps,
                             options.objective)
        for row in common.mean_losses(losses, steps, epoch + 1, bar):
            points = sample(G, SAMPLES, options.seed)
            (modes, share), dead = modes_found(points), dead_share(D, points)
            log.append([*row, modes, share, dead])
            bar.set_postfix_str("epoch {}/{}, D {:.3f}, G {:.3f}, {} of 8 modes, D dead at "
                                "{:.0%}".format(epoch + 1, options.epochs, *row[1:3], modes, dead))
        seconds += time.perf_counter() - start
        common.save_checkpoint(out, options, state, epoch=epoch + 1, log=log, seconds=seconds)
        common.save_csv(("generator_step", "d_loss", "g_loss", "estimate", "modes", "share",
                         "dead_share"), log, out / "metrics.csv")
        draw(epoch + 1)
    bar.close()

    save_figures(options.objective, log, out)
    save_surfaces({options.objective: (D, sample(G, 1000, options.seed))},
                  out / "figure-points.png")
    *_, modes, share, dead = zip(*log)
    half = len(log) // 2  # the end is one moment of many, so means of the later half, too
    return common.save_results(out, options, {
        "modes": modes[-1], "modes_mean_of_later_half": fmean(modes[half:]),
        "share_within_three_deviations": share[-1],
        "dead_share": dead[-1], "dead_share_mean_of_later_half": fmean(dead[half:])},
        state, device, seconds)


def save_figures(objective: str, log: list, out: Path) -> None:
    """losses.png and training.gif of one run."""
    steps, d_loss, g_loss, estimate, modes, share, dead = zip(*log)
    common.save_curves({"losses": {"D": (steps, d_loss), "G": (steps, g_loss)},
                        "E[D(x)] - E[D(G(z))]": {objective: (steps, estimate)},
                        "modes found, of 8": {objective: (steps, modes)},
                        "shares of generated points": {
                            "within three deviations of a mode": (steps, share),
                            "D is dead there": (steps, dead)}},
                       out / "losses.png", "generator step")
    common.save_gif((out / "samples").glob("epoch-*.png"), out / "training.gif", most=30,
                    in_color=True)


def main(argv: list[str] | None = None) -> None:
    """The program: status 0, 1 (disk or losses), 2 (options), 130 (Ctrl-C)."""
    options, out, resume = common.parse_args(Options, __doc__, argv)
    with common.exit_status(options, out):
        train(options, out, resume)


if __name__ == "__main__":
    main()
