"""Translation without pairs in the plane: does cycle consistency permute, and what cures it?

Grant Reaber, "Introduction to Generative Adversarial Networks", slides, 2017; Zhu et al. 2017,
"Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", arXiv 1703.10593.

The idea. There are points a of A and b of B, but no pairs. T_AB turns a into a point of B, T_BA
turns b into one of A. D_B tells b from T_AB(a), D_A tells a from T_BA(b):

    (1)  D_B minimizes   -E[log sigmoid(D_B(b))] - E[log(1 - sigmoid(D_B(T_AB(a))))]
    (2)  T_AB minimizes  -E[log sigmoid(D_B(T_AB(a)))],  and the same for D_A and T_BA
    (3)  both T minimize, times lambda,  E|T_BA(T_AB(a)) - a| + E|T_AB(T_BA(b)) - b|

(3) is cycle consistency. The slides worry about "non-trivial permutations": T_AB may mix up modes,
and T_BA undo it. Here A has eight modes on a circle, and B is A scaled, shifted or turned: we know
what is right, and can count. A remedy, and the slides' speculation:

    (4)  both T also minimize  E|T_AB(b) - b| + E|T_BA(a) - a|  (identity; section 5.2 of Zhu)

D_B compares (S(b), b) with (S(a), T_AB(a)), where S scrubs the original input of its domain, and so
does D_A. A "hygiene inspector" H tries to tell the domain from S(x):

    (5)  H minimizes  -E[log(1 - sigmoid(H(S(a))))] / 2 - E[log sigmoid(H(S(b)))] / 2
    (6)  S minimizes  -E[log sigmoid(H(S(a)))] / 2 - E[log(1 - sigmoid(H(S(b))))] / 2, and (1)
    (7)  S and a decoder R minimize  E|R(S(a), A) - a| + E|R(S(b), B) - b|, with --reconstruct yes

    it permutes      python cycle_toy.py                                         figure-maps.png
    identity loss    python cycle_toy.py --method identity                       figure-maps.png
    inspector        python cycle_toy.py --method inspector --reconstruct yes    figure-maps.png

Where this differs from the slides or the paper (measured in docs/cycle_toy.md):
- Data, networks, weights and learning rates are ours, and so is R; D sees noise, and lambda grows.
- The paper has least squares, and earlier translations for D. (1) and (2) are its equation 1.
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
from torch.nn.functional import one_hot, softplus
from tqdm import tqdm

import common
from common import Figure, option

MODES, RADIUS, SPREAD = 8, 1.0, 0.05  # of the circle A; standard deviation of each Gaussian
SCALE, SHIFT = 2.0, (3.0, 0.0)  # of B, with scaled and with shifted: there A and B do not overlap
ANGLE = 2.5 * 2 * math.pi / MODES  # with turned: 112.5 degrees, B's modes lie between those of A
HIDDEN, CODE = 64, 2  # hidden units in each of two layers; numbers in S(x)
# What follows was chosen on seeds 0 to 2; docs/cycle_toy.md says from what.
IDENTITY, HYGIENE, RECONSTRUCTION = 5.0, 1.0, 10.0  # weights of (4), (6) and (7)
NOISE = 0.3  # standard deviation of what is added to the points that D sees
FASTER = 5.0  # learning rate of D, S, R and H, over that of T
RISE = 40  # epochs: lambda grows linearly until then; from then to twice as many, rates fall to 0
SAMPLES = 2000  # points of A that the evaluation translates
STEPS_PER_EPOCH, FRAME = 25, 4  # steps; epochs from one frame of training.gif to the next
METRICS = ("step", "d_loss", "t_loss", "cycle", "h_loss", "accuracy", "best_accuracy", "good_share")
COLORS = "black #E69F00 #56B4E9 #009E73 #F0E442 #0072B2 #D55E00 #CC79A7".split()  # Okabe and Ito's


@dataclass(frozen=True)
class Options:
    """Default, accepted values and meaning of each; raises ValueError where one is not accepted."""

    script = "cycle_toy.py"
    method: str = option("cycle", ("cycle", "identity", "inspector"), "what is to find the modes")
    reconstruct: str = option("no", ("yes", "no"), "S keeps information, with the inspector")
    transform: str = option("scaled", ("scaled", "shifted", "turned"), "what makes B of A")
    cycle_weight: float = option(5.0, (0, 1000), "lambda of the cycle loss")
    epochs: int = option(80, (1, 10**6), f"an epoch is {STEPS_PER_EPOCH} steps")
    batch_size: int = option(128, (1, 10**6), "points of each domain in a minibatch")
    lr: float = option(4e-4, (1e-9, 10), f"learning rate of T; the others have {FASTER:g} times it")
    seeds: int = option(6, (1, 1000), "how many seeds are trained at once")
    seed: int = option(0, (0, 4000), "the first of them")
    device: str = option("auto", ("auto", "cpu", "cuda", "mps"), "auto is cuda, else cpu")

    def __post_init__(self):
        common.check_options(self)
        if self.reconstruct == "yes" and self.method != "inspector":
            raise ValueError("--reconstruct: yes goes with --method inspector")


# ---- data and networks --------------------------------------------------------------------------


def translate(points: Tensor, transform: str) -> Tensor:
    """The true translation of points of A (..., 2) to B, which no network is told."""
    if transform == "scaled":
        return SCALE * points
    if transform == "shifted":
        return points + points.new_tensor(SHIFT)
    cos, sin = math.cos(ANGLE), math.sin(ANGLE)
    return points @ points.new_tensor([[cos, sin], [-sin, cos]])


def centers(transform: str) -> Tensor:
    """The means of the modes of A, and of B in the same order; (2, 8, 2)."""
    angle = torch.arange(MODES) * (2 * math.pi / MODES)
    modes = RADIUS * torch.stack([angle.cos(), angle.sin()], dim=1)
    return torch.stack([modes, translate(modes, transform)])


def draw(steps: int, batch_size: int, transform: str, generator: torch.Generator) -> Tensor:
    """For each step, of one seed: points of A, points of B, noise; (steps, 3, batch_size, 2)."""
    mode = torch.randint(MODES, (steps, 2, batch_size), generator=generator)
    normal = torch.randn(steps, 3, batch_size, 2, generator=generator)
    x = centers(transform)[0][mode] + SPREAD * normal[:, :2]
    return torch.stack([x[:, 0], translate(x[:, 1], transform), NOISE * normal[:, 2]], dim=1)


class MLP(nn.Module):
    """An MLP for each seed, side by side: (seeds, N, inputs) -> (seeds, N, outputs).

    No seed sees another. First weights as He et al.
    """

    def __init__(self, inputs: int, outputs: int, generators: list[torch.Generator]):
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for n, m in (inputs, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, outputs):
            weight = torch.stack([torch.randn(n, m, generator=g) for g in generators])
            self.weights.append(weight * math.sqrt(2 / n))
            self.biases.append(torch.zeros(len(generators), 1, m))

    def forward(self, x: Tensor) -> Tensor:
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            x = torch.baddbmm(bias, x.relu() if layer else x, weight)
        return x


def networks(method: str, generators: list[torch.Generator]) -> nn.ModuleDict:
    """T_AB, T_BA, D_A, D_B; with the inspector also S, H, and R, whose input is (S(x), domain)."""
    code = CODE if method == "inspector" else 0
    sizes = {"T_AB": (2, 2), "T_BA": (2, 2), "D_A": (code + 2, 1), "D_B": (code + 2, 1)}
    if method == "inspector":
        sizes |= {"S": (2, CODE), "R": (CODE + 1, 2), "H": (CODE, 1)}
    return nn.ModuleDict({name: MLP(*size, generators) for name, size in sizes.items()})


# ---- objectives: each gives one loss for each seed, (seeds,) ------------------------------------


def distance(x: Tensor, y: Tensor) -> Tensor:
    """E|x - y|, the L1 norm as in the paper; (seeds, N, 2) -> (seeds,)."""
    return (x - y).abs().sum(2).mean(1)


def discriminator_loss(D: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """(1): the cross-entropy of D; -log sigmoid(s) is softplus(-s)."""
    return (softplus(-D(real)) + softplus(D(fake))).mean((1, 2))


def translator_loss(D: nn.Module, fake: Tensor) -> Tensor:
    """(2): T wants D to take its points for real."""
    return softplus(-D(fake)).mean((1, 2))


def cycle_loss(T_AB: nn.Module, T_BA: nn.Module, a: Tensor, b: Tensor, fake_a: Tensor,
               fake_b: Tensor) -> Tensor:
    """(3), with fake_a = T_BA(b), fake_b = T_AB(a). Any one-to-one map and its inverse give 0."""
    return distance(T_BA(fake_b), a) + distance(T_AB(fake_a), b)


def identity_loss(T_AB: nn.Module, T_BA: nn.Module, a: Tensor, b: Tensor) -> Tensor:
    """(4): T_AB leaves a point alone that is in B already, which ties T to where points are."""
    return distance(T_AB(b), b) + distance(T_BA(a), a)


def inspector_loss(H: nn.Module, code_a: Tensor, code_b: Tensor) -> Tensor:
    """(5): the cross-entropy of H. Its optimum is sigmoid(H(s)) = p_B(s) / (p_A(s) + p_B(s)).

    There the loss is log 2 less the Jensen-Shannon divergence of the codes: log 2, chance, if and
    only if codes of A and B have the same distribution.
    """
    return (softplus(H(code_a)) + softplus(-H(code_b))).mean((1, 2)) / 2


def hygiene_loss(H: nn.Module, code_a: Tensor, code_b: Tensor) -> Tensor:
    """(6): (5) with the domains exchanged. The negative of (5) would be flat where H is sure."""
    return inspector_loss(H, code_b, code_a)


def reconstruction_loss(R: nn.Module, code_a: Tensor, code_b: Tensor, a: Tensor,
                        b: Tensor) -> Tensor:
    """(7): one decoder for both. It is told the domain, so that the code need not hold it."""
    domain = torch.ones_like(a[..., :1])
    return (distance(R(torch.cat([code_a, -domain], 2)), a)
            + distance(R(torch.cat([code_b, domain], 2)), b))


# ---- the algorithm ------------------------------------------------------------------------------


def optimizers(nets: nn.ModuleDict, lr: float) -> dict[str, torch.optim.Optimizer]:
    """Adam for the translators T, the discriminators D (with S and R), and the inspector H."""
    players = {"T": ("T_AB", "T_BA"), "D": ("D_A", "D_B", "S", "R"), "H": ("H",)}
    return {player: torch.optim.Adam(
                [p for name in names if name in nets for p in nets[name].parameters()],
                lr if player == "T" else FASTER * lr, (0.5, 0.9), fused=True)
            for player, names in players.items() if player != "H" or "H" in nets}


def step(optimizer: torch.optim.Optimizer, losses: Tensor) -> None:
    """Descend the losses (seeds,); no other player accumulates a gradient."""
    optimizer.zero_grad()
    losses.sum().backward(inputs=optimizer.param_groups[0]["params"])
    optimizer.step()


def train_epoch(nets: nn.ModuleDict, opt: dict[str, torch.optim.Optimizer],
                batches: Iterable[tuple[Tensor, Tensor, Tensor]], method: str, reconstruct: bool,
                cycle_weight: float) -> Iterator[Tensor]:
    """One step of each player for each of the batches: points of A, of B, noise (seeds, N, 2).

    After each this yields the losses (1), (2), (3) and (5), 0 without H; (4, seeds).
    """
    T_AB, T_BA, D_A, D_B = (nets[name] for name in ("T_AB", "T_BA", "D_A", "D_B"))
    S = nets["S"] if "S" in nets else lambda x: x[..., :0]  # no numbers where there is none
    for a, b, noise in batches:
        def seen(code, y):  # by a discriminator
            return torch.cat([code, y + noise], 2)

        with torch.no_grad():
            fake_a, fake_b = T_BA(b), T_AB(a)
        code_a, code_b = S(a), S(b)
        d_loss = (discriminator_loss(D_A, seen(code_a, a), seen(code_b, fake_a))
                  + discriminator_loss(D_B, seen(code_b, b), seen(code_a, fake_b)))
        total, h_loss = d_loss, torch.zeros_like(d_loss)
        if method == "inspector":
            total = total + HYGIENE * hygiene_loss(nets["H"], code_a, code_b)
        if reconstruct:
            total = total + RECONSTRUCTION * reconstruction_loss(nets["R"], code_a, code_b, a, b)
        step(opt["D"], total)

        with torch.no_grad():
            code_a, code_b = S(a), S(b)
        if method == "inspector":
            h_loss = inspector_loss(nets["H"], code_a, code_b)
            step(opt["H"], h_loss)

        fake_a, fake_b = T_BA(b), T_AB(a)
        t_loss = (translator_loss(D_A, seen(code_b, fake_a))
                  + translator_loss(D_B, seen(code_a, fake_b)))
        cycle = cycle_loss(T_AB, T_BA, a, b, fake_a, fake_b)
        total = t_loss + cycle_weight * cycle
        if method == "identity":
            total = total + IDENTITY * identity_loss(T_AB, T_BA, a, b)
        step(opt["T"], total)
        yield torch.stack([d_loss, t_loss, cycle, h_loss]).detach()


# ---- evaluation and figures ---------------------------------------------------------------------


def kind(permutation: list[int]) -> str:
    """What the permutation of the circle's modes is: identity, rotation, mirror or other."""
    steps = {(after - mode) % MODES for mode, after in zip(permutation, permutation[1:])}
    if steps == {1}:
        return "rotation" if permutation[0] else "identity"
    return "mirror" if steps == {MODES - 1} else "other"


@torch.no_grad()
def evaluate(T_AB: nn.Module, T_BA: nn.Module, transform: str) -> tuple[dict, Tensor]:
    """Numbers of each seed by name, and where the same points of A go; (seeds, SAMPLES, 2).

    A point has the nearest mode of B. It is good if that is within three standard deviations. The
    best permutation is that of all one-to-one maps of A's modes to B's which has the most points.
    """
    from scipy.optimize import linear_sum_assignment

    device, seeds = T_AB.biases[0].device, len(T_AB.biases[0])
    mode = torch.arange(SAMPLES) % MODES
    noise = torch.randn(SAMPLES, 2, generator=torch.Generator().manual_seed(0))
    a = (centers(transform)[0][mode] + SPREAD * noise).to(device).expand(seeds, -1, -1)
    fake_b = T_AB(a)
    away = torch.cdist(fake_b, centers(transform)[1].to(device).expand(seeds, -1, -1)).cpu()
    spread = SPREAD * (SCALE if transform == "scaled" else 1)
    tables = one_hot(mode, MODES).T @ one_hot(away.argmin(2), MODES)  # points from and to a mode
    best = [linear_sum_assignment(table, maximize=True) for table in tables]
    return {"accuracy": [table.trace().item() / SAMPLES for table in tables],
            "best_accuracy": [t[pairs].sum().item() / SAMPLES for t, pairs in zip(tables, best)],
            "permutation": [kind(modes.tolist()) for _, modes in best],
            "good_share": (away.amin(2) < 3 * spread).float().mean(1).tolist(),
            "cycle_error": distance(T_BA(fake_b), a).tolist()}, fake_b.cpu()


def save_maps(scores: dict, fake_b: Tensor, transform: str, path: Path, first: int, title: str = "",
              dpi: int = 100) -> None:
    """Six seeds at most: arrows from A's modes to their images; rings: which color is right."""
    shown = min(len(fake_b), 6)
    across, rows = min(shown, 3), math.ceil(shown / 3)
    figure = Figure(figsize=(3 * across, 3.2 * rows + 0.3), layout="constrained")
    figure.suptitle(title, fontsize=10)
    a, b = centers(transform)
    for i, axes in enumerate(figure.subplots(rows, across, squeeze=False).flat[:shown]):
        for mode, color in enumerate(COLORS):
            points = fake_b[i, mode::MODES]
            axes.plot(*points[:40].T, ".", color=color, markersize=3)
            axes.plot(*b[mode], "o", color=color, fillstyle="none", markersize=13)
            axes.plot(*a[mode], "s", color=color, markersize=4)
            axes.annotate("", points.mean(0).tolist(), a[mode].tolist(), annotation_clip=True,
                          arrowprops={"arrowstyle": "->", "color": color, "linewidth": 1.3})
        low, high = (-1.5, 4.5) if transform == "shifted" else (-2.8, 2.8)
        axes.set(aspect="equal", xlim=(low, high), ylim=(-2.8, 2.8), xticks=[], yticks=[])
        axes.set_title(f"seed {first + i}: {scores['permutation'][i]}\naccuracy "
                       f"{scores['accuracy'][i]:.2f}, best permutation "
                       f"{scores['best_accuracy'][i]:.2f}", fontsize=9)
    figure.savefig(path, dpi=dpi)


# ---- run ----------------------------------------------------------------------------------------


def train(options: Options, out: str | Path, resume: bool = False) -> dict:
    """Train in the new folder `out`, or continue the run that is there; return the results."""
    out, device, n = Path(out), common.pick_device(options.device), STEPS_PER_EPOCH
    transform, seeds = options.transform, range(options.seed, options.seed + options.seeds)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    nets = networks(options.method, generators).to(device)
    T_AB, T_BA, opt = nets["T_AB"], nets["T_BA"], optimizers(nets, options.lr)
    state = dict(nets) | {f"opt_{player}": optimizer for player, optimizer in opt.items()}
    start_epoch, log, seconds = common.begin(out, options, state, device, resume)
    scores, fake_b = evaluate(T_AB, T_BA, transform)

    def draw_frame(epochs: int) -> None:
        save_maps(scores, fake_b, transform, out / "samples" / f"epoch-{epochs:03}.png", seeds[0],
                  f"step {epochs * n}", 60)

    draw_frame(start_epoch)
    bar = tqdm(total=options.epochs * n, initial=start_epoch * n, desc=out.name, unit=" steps")
    for epoch in range(start_epoch, options.epochs):
        start, steps = time.perf_counter(), range(epoch * n, (epoch + 1) * n)
        batches = torch.stack([draw(n, options.batch_size, transform, generator.manual_seed(
            1_000_000 * (seed + 1) + epoch)) for seed, generator in zip(seeds, generators)], 2)
        for optimizer in opt.values():  # no lower than a fortieth, however many epochs
            optimizer.param_groups[0]["lr"] = optimizer.defaults["lr"] * max(
                min(1, 2 - epoch / RISE), 1 / 40)
        losses = train_epoch(nets, opt, batches.to(device), options.method,
                             options.reconstruct == "yes",
                             options.cycle_weight * min(1, epoch / RISE))
        (row,) = common.mean_losses((loss.mean(1) for loss in losses), steps, epoch + 1, bar)
        scores, fake_b = evaluate(T_AB, T_BA, transform)
        log.append([*row, *(fmean(scores[name]) for name in METRICS[5:])])
        bar.set_postfix_str(f"epoch {epoch + 1}/{options.epochs}, accuracy {log[-1][5]:.2f}")
        seconds += time.perf_counter() - start
        common.save_checkpoint(out, options, state, epoch=epoch + 1, log=log, seconds=seconds)
        common.save_csv(METRICS, log, out / "metrics.csv")
        if (epoch + 1) % FRAME == 0:
            draw_frame(epoch + 1)
    bar.close()

    save_maps(scores, fake_b, transform, out / "figure-maps.png", seeds[0])
    steps, *columns = zip(*log)
    curves = [(name, (steps, column)) for name, column in zip(METRICS[1:], columns)]
    panels = {"losses": dict(curves[:4]), "shares of translated points": dict(curves[4:])}
    common.save_curves(panels, out / "losses.png", "step")
    common.save_gif((out / "samples").glob("epoch-*.png"), out / "training.gif", 30, in_color=True)
    means = {f"{name}_mean": fmean(scores[name]) for name in (*METRICS[5:], "cycle_error")}
    results = means | scores | {"inspector_loss": log[-1][4]}
    return common.save_results(out, options, results, {}, device, seconds)


def main(argv: list[str] | None = None) -> None:
    """The program: status 0, 1 (disk or losses), 2 (options), 130 (Ctrl-C)."""
    options, out, resume = common.parse_args(Options, __doc__, argv)
    with common.exit_status(options, out):
        train(options, out, resume)


if __name__ == "__main__":
    main()
