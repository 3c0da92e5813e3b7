"""Binary seeds for WGAN-GP: Bernoulli(1/2) latent variables instead of normal ones, or with them.

Arnaud Sors, Stephane Bonnet, Laurent Vercueil and Jean-Francois Payen, "Binary seeds for
generative adversarial networks", 2017.

The idea. A generator G turns a latent vector z, its seed, into an image. Usually z is normal. But
digits come in kinds, and a continuous map of one Gaussian has to morph each kind into the next.
So the seed gets a binary part, and nothing else changes (section 3.2):

    z = [z_c, z_b],  z_c ~ N(0, I) with n_c dimensions,  z_b ~ Bernoulli(1/2) with n_b dimensions

Which n_c and n_b are best? The critic C of a Wasserstein GAN can tell, because it estimates the
distance between real and generated images, as long as it is close to its optimum.

The objective (equation 3), real images x_r, generated images x_g = G(z):

    C minimizes  L1 + lambda L2,  L1 = E[C(x_g)] - E[C(x_r)],  L2 = E[(|grad C(x~)| - 1)^2]
    G maximizes  L1

with x~ uniform on the line between a real and a generated image. We compare -L1, the estimate of
the Wasserstein distance: lower is better.

    figure 1  samples               python wgan_gp_binary_seed.py                   figure1-*.png
    figure 4  z_c or z_b fixed      python wgan_gp_binary_seed.py --n-c 7 --n-b 12  figure4-*.png
    figures 2 and 3, the search     python wgan_gp_binary_seed.py --paper           figure2, figure3
              a part of the search  python wgan_gp_binary_seed.py --paper --dims 0 4 12

What the paper leaves open, and what we add (see docs/wgan_gp_binary_seed.md):
- The "critic loss" of the paper's figures: we read it as -L1, without the penalty.
- An epoch: 78 generator steps, whose 6 * 78 critic steps are one pass over the training images.
- "Occasionally run 100 critic iterations": each epoch begins with such a block instead of 6.
- Adam's betas are (0.5, 0.9), from the MNIST code of Gulrajani et al. 2017, arXiv 1704.00028; their
  algorithm 1 has beta1 = 0. The initial weights are PyTorch's.
- Figure 2's curves are our selection; the paper's text names (4, 0), 12 and 7 + 12 only.
- Runs with the same --seed share C's initial weights and the order of the training images.
- Added: the estimate on test images, to see overfitting; a "final" one, of more critic steps with
  G frozen; and how often the label of a sample is unchanged when z_c or z_b is resampled.
"""

import itertools
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

if __name__ == "__main__":  # before torch: waiting threads that spin slow down all else
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d
from tqdm import tqdm

import common
from common import Figure, option

PENALTY = 10.0  # lambda of the gradient penalty; section 4
CRITIC_STEPS = 6  # of the critic before a generator step; section 4
BETAS = (0.5, 0.9)  # of Adam; MNIST code of Gulrajani et al. 2017
BLOCK = 100  # critic steps "to make sure the critic has remained optimal"; section 4
LAST = 200  # critic steps whose mean is the reported estimate; section 4.1
WINDOW = 50  # critic steps under the Hanning window of figure 2
DIMS = (0, 2, 4, 7, 12, 21, 36, 64, 112, 196)  # values of n_c and n_b; section 4.1
SELECTION = ((4, 0), (12, 0), (36, 0), (0, 4), (0, 12), (0, 36), (7, 12))  # (n_c, n_b) of figure 2
SAMPLES = 10_000  # generated images that the evaluation counts


@dataclass(frozen=True)
class Options:
    """Default, accepted values and meaning of each; raises ValueError where one is not accepted."""

    n_c: int = option(7, (0, 10_000), "normal latent variables")
    n_b: int = option(12, (0, 10_000), "Bernoulli(1/2) latent variables")
    epochs: int = option(9, (1, 10**6), "an epoch has a generator step per 6 minibatches")
    batch_size: int = option(128, (2, 60_000), "images in a minibatch")
    lr: float = option(1e-3, (1e-9, 10), "learning rate")
    train_size: int = option(60_000, (2, 60_000), "train on the first N training images")
    seed: int = option(0, (0, 10**9), "of weights, minibatches and noise")
    device: str = option("auto", ("auto", "cpu", "cuda", "mps"), "auto is cuda, else cpu")
    data: str = option("data", (), "folder of the data set")

    def __post_init__(self):
        common.check_options(self)
        if self.n_c + self.n_b == 0:
            raise ValueError("--n-c: 0 together with --n-b 0 leaves no seed; accepted: 1 or more")


# ---- networks -----------------------------------------------------------------------------------


def sample_z(count: int, n_c: int, n_b: int, device: torch.device) -> Tensor:
    """Seeds z = [z_c, z_b] of section 3.2, (count, n_c + n_b): z_c normal, z_b 0 or 1."""
    z_c = torch.randn(count, n_c, device=device)
    z_b = torch.randint(2, (count, n_b), device=device)
    return torch.cat([z_c, z_b.float()], dim=1)


def generator(n_z: int) -> nn.Sequential:
    """G: z (N, n_z) -> images (N, 784). "(6272-fc)-(128-reshape)-(64-conv-5-2)-(1-conv-5-2)".

    Section 4. 6272 (n_z + 1) + 206,465 parameters, which is 331,905 for n_z = 7 + 12.
    """
    return nn.Sequential(  # strides go up: 7 -> 14 -> 28 pixels; without output_padding 13 and 25
        nn.Linear(n_z, 6272), nn.LeakyReLU(0.1), nn.Unflatten(1, (128, 7, 7)),
        nn.ConvTranspose2d(128, 64, 5, stride=2, padding=2, output_padding=1), nn.LeakyReLU(0.1),
        nn.ConvTranspose2d(64, 1, 5, stride=2, padding=2, output_padding=1), nn.Sigmoid(),
        nn.Flatten())


class LeakyReLU(nn.Module):
    """nn.LeakyReLU(0.1), but its slope is a constant to autograd, as it is piece by piece.

    The second derivative of nn.LeakyReLU is zero, and the convolutions would process these zeros
    at full cost in the penalty's backward pass: a seventh of all operations of a critic step.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.where(x > 0, 1.0, 0.1)


def critic() -> nn.Sequential:
    """C: images (N, 784) -> scores (N, 1). "The same (transposed) architecture", section 4.

    212,865 parameters; no activation on the output.
    """
    return nn.Sequential(  # 28 -> 14 -> 7 pixels
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 64, 5, stride=2, padding=2), LeakyReLU(),
        nn.Conv2d(64, 128, 5, stride=2, padding=2), LeakyReLU(),
        nn.Flatten(), nn.Linear(6272, 1))


# ---- objective ----------------------------------------------------------------------------------


def gradient_penalty(C: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """L2 = E[(|grad C(x~)| - 1)^2] of equation 3; a scalar. x~ is x_hat here.

    real, fake (N, 784); one epsilon per image, and the norm over all pixels of an image.
    """
    epsilon = torch.rand(len(real), 1, device=real.device)
    x_hat = (epsilon * real + (1 - epsilon) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(C(x_hat).sum(), x_hat, create_graph=True)
    return ((gradient.norm(dim=1) - 1) ** 2).mean()


def critic_loss(C: nn.Module, real: Tensor, fake: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Equation 3: what C minimizes, L1 + lambda L2; a scalar.

    Also returns two estimates -L1 = E[C(x_r)] - E[C(x_g)], (2,), without gradient: with x_r the
    real images, which C learns from, and with x_r the test images, which it does not.
    """
    real_score, fake_score = C(torch.cat([real, fake])).chunk(2)
    loss = fake_score.mean() - real_score.mean() + PENALTY * gradient_penalty(C, real, fake)
    with torch.no_grad():
        estimates = torch.stack([real_score.mean(), C(test).mean()]) - fake_score.mean()
    return loss, estimates


def generator_loss(C: nn.Module, fake: Tensor) -> Tensor:
    """What G minimizes: -E[C(G(z))], the part of -L1 that depends on G; a scalar."""
    return -C(fake).mean()


# ---- the algorithm ------------------------------------------------------------------------------


def critic_steps(step: int, steps_per_epoch: int) -> int:
    """Steps of C before generator step number `step`, counted from 0.

    A block opens each epoch, if at least the 200 critic steps of the reported mean follow it.
    """
    following = CRITIC_STEPS * (steps_per_epoch - 1)
    return BLOCK if step % steps_per_epoch == 0 and following >= LAST else CRITIC_STEPS


def critic_step(G: nn.Module, C: nn.Module, opt_c: torch.optim.Optimizer, real: Tensor,
                test: Tensor, n_c: int, n_b: int) -> Tensor:
    """One step of C; returns, from before it, loss and estimates on real and test images, (3,)."""
    with torch.no_grad():
        fake = G(sample_z(len(real), n_c, n_b, real.device))
    c_loss, estimates = critic_loss(C, real, fake, test)
    opt_c.zero_grad()
    c_loss.backward(inputs=list(C.parameters()))  # no gradient for x_hat
    opt_c.step()
    return torch.cat([c_loss.detach().view(1), estimates])


def train_epoch(G: nn.Module, C: nn.Module, opt_g: torch.optim.Optimizer,
                opt_c: torch.optim.Optimizer, batches: Iterator[tuple[Tensor, Tensor]],
                steps: range, n_c: int, n_b: int) -> Iterator[Tensor]:
    """Train G for an epoch, the steps with these numbers, and C as critic_steps says.

    `batches` gives real images (N, 784) and test images. After each generator step this yields
    what the k critic steps before it returned; (k, 3), on the device of the images.
    """
    for step in steps:
        losses = []
        for _ in range(critic_steps(step, len(steps))):
            real, test = next(batches)
            losses.append(critic_step(G, C, opt_c, real, test, n_c, n_b))

        fake = G(sample_z(len(real), n_c, n_b, real.device))
        g_loss = generator_loss(C, fake)
        opt_g.zero_grad()
        g_loss.backward(inputs=list(G.parameters()))  # C's parameters accumulate no gradient
        opt_g.step()
        yield torch.stack(losses)


# ---- evaluation and figures ---------------------------------------------------------------------


def final_critic_steps(G: nn.Module, C: nn.Module, opt_c: torch.optim.Optimizer,
                       batches: Iterator[tuple[Tensor, Tensor]], n_c: int, n_b: int) -> Tensor:
    """300 more steps of C with G frozen; what critic_step returned in the last 200, (200, 3)."""
    losses = [critic_step(G, C, opt_c, *next(batches), n_c, n_b)
              for _ in tqdm(range(BLOCK + LAST), "final critic steps", leave=False)]
    return torch.stack(losses[-LAST:])


@torch.no_grad()
def generate(G: nn.Module, z: Tensor) -> Tensor:
    """Images (N, 784) from seeds z (N, n_c + n_b), in batches of 1,000."""
    return torch.cat([G(batch) for batch in z.split(1000)])


def groups(G: nn.Module, n_c: int, n_b: int, seed: int) -> dict[str, Tensor]:
    """Figure 4: groups of 16 random images (16, 784): a1 to a6 of one z_c, b1 to b6 of one z_b.

    Groups in which nothing would vary are left out: a if n_b = 0, b if n_c = 0.
    """
    def group(fixed: slice) -> Tensor:
        z = sample_z(16, n_c, n_b, next(G.parameters()).device)
        z[:, fixed] = z[0, fixed].clone()
        return generate(G, z)

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        a = {f"a{i}: z_c fixed": group(slice(0, n_c)) for i in range(1, 7) if n_b > 0}
        b = {f"b{i}: z_b fixed": group(slice(n_c, None)) for i in range(1, 7) if n_c > 0}
    return a | b


def evaluate(G: nn.Module, n_c: int, n_b: int, seed: int, train_x: Tensor, train_y: Tensor,
             test_x: Tensor, test_y: Tensor) -> dict:
    """What the labels of the nearest training images tell about 10,000 samples.

    label_unchanged_X_resampled: the share whose label is the same with another X (z_c, z_b or z).
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        z, other_z = (sample_z(SAMPLES, n_c, n_b, train_x.device) for _ in range(2))

    def labels(z: Tensor) -> Tensor:
        return train_y[common.nearest(generate(G, z), train_x)[0]]

    results = common.label_statistics(generate(G, z), train_x, train_y, test_x, test_y)
    p = torch.tensor(results["class_distribution"])
    results["label_unchanged_z_resampled"] = p.square().sum().item()  # two independent samples
    old_labels = labels(z)
    for name, size, part in (("z_c", n_c, slice(0, n_c)), ("z_b", n_b, slice(n_c, None))):
        if size > 0:
            resampled = z.clone()
            resampled[:, part] = other_z[:, part]
            unchanged = (labels(resampled) == old_labels).float().mean().item()
            results[f"label_unchanged_{name}_resampled"] = unchanged
    return results


def smooth(values: Tensor) -> Tensor:
    """Means of values (N,) under a Hanning window of 50, at either end under a part of it; (N,)."""
    window = torch.hann_window(WINDOW, periodic=False, dtype=values.dtype).view(1, 1, -1)
    sums, weights = (conv1d(x.view(1, 1, -1), window, padding=WINDOW // 2).flatten()[: len(x)]
                     for x in (values, torch.ones_like(values)))
    return sums / weights


def save_figure_3(rows: list[dict], dims: list[int], path: Path) -> None:
    """Heat maps over n_c and n_b, from the results with seed 0: the paper's number, and final."""
    size = 2 + 0.5 * len(dims)
    figure = Figure(figsize=(2 * size + 1, size), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, 2), (
            ("wasserstein_train", "last 200 critic steps of the training"),
            ("wasserstein_train_final", "final critic steps, G frozen"))):
        cells = torch.full((len(dims), len(dims)), math.nan)  # [n_b, n_c]
        for row in rows:
            if row["seed"] == 0:
                i, j = dims.index(row["n_b"]), dims.index(row["n_c"])
                cells[i, j] = row[name]
                axes.text(j, i, f"{row[name]:.2f}", ha="center", va="center", fontsize=8)
        shown = axes.imshow(cells.numpy(), cmap="viridis_r", alpha=0.6)  # the numbers are black
        axes.set(title=title, xlabel="n_c", xticks=range(len(dims)), xticklabels=dims,
                 ylabel="n_b", yticks=range(len(dims)), yticklabels=dims)
        figure.colorbar(shown, ax=axes, shrink=0.8)
    figure.savefig(path, dpi=150)


# ---- run ----------------------------------------------------------------------------------------


def configuration(options: Options) -> str:
    """The name of a run: what makes it different from the others of the search."""
    return f"c{options.n_c}-b{options.n_b}-seed{options.seed}"


def build(options: Options, device: torch.device) -> dict:
    """Networks and optimizers, new, by the names they have in checkpoint.pt."""
    torch.manual_seed(options.seed)
    C = critic().to(device)  # before G: the same one, whatever the size of the seed
    G = generator(options.n_c + options.n_b).to(device)
    opt_c, opt_g = (torch.optim.Adam(network.parameters(), options.lr, BETAS, fused=True)
                    for network in (C, G))
    return {"C": C, "G": G, "opt_c": opt_c, "opt_g": opt_g}


def begin_epoch(options: Options, train_x: Tensor, test_x: Tensor, epoch: int,
                step: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Seed an epoch; return its minibatches, each with 50 test images, from critic step `step` on.

    All test images come in 200 steps. The order of the training images has its own random
    generator, because z takes more or fewer random numbers by n_c and n_b.
    """
    number = 1_000_000 * (options.seed + 1) + epoch
    torch.manual_seed(number)
    order = torch.Generator(train_x.device).manual_seed(number + 500_000)
    test_batches = (test_x[i % LAST :: LAST] for i in itertools.count(step))
    return zip(common.minibatches(train_x, options.batch_size, order), test_batches)


def train(options: Options, out: Path) -> dict:
    """Begin or continue the run in `out`, or just return its results where it has finished."""
    if results := common.finished(options, out):
        return results
    device = common.pick_device(options.device)
    train_x, train_y, test_x, test_y = common.mnist(options.data, device)
    train_x, train_y = train_x[: options.train_size], train_y[: options.train_size]

    state, n_c, n_b = build(options, device), options.n_c, options.n_b
    G, C, opt_g, opt_c = (state[name] for name in ("G", "C", "opt_g", "opt_c"))
    first, log, seconds = common.begin(options, out, state, device)
    torch.manual_seed(options.seed)
    z = sample_z(64, n_c, n_b, device)  # for every picture the same

    def draw(epochs: int) -> None:
        common.save_grid(generate(G, z), out / "samples" / f"epoch-{epochs:03}.png")

    draw(first)
    n = max(1, len(train_x) // options.batch_size // CRITIC_STEPS)  # generator steps in an epoch
    total = options.epochs * sum(critic_steps(step, n) for step in range(n))
    with tqdm(total=total, initial=len(log), desc=out.name, unit=" critic steps") as bar:
        for epoch in range(first, options.epochs):
            start, steps = time.perf_counter(), range(epoch * n, (epoch + 1) * n)
            batches = begin_epoch(options, train_x, test_x, epoch, len(log))
            losses, same_losses = itertools.tee(
                train_epoch(G, C, opt_g, opt_c, batches, steps, n_c, n_b))
            means = (block.mean(0) for block in losses)
            for row in common.mean_losses(means, steps, bar, lambda step: critic_steps(step, n)):
                bar.set_postfix_str("epoch {}/{}, loss {:.3f}, estimate {:.3f}, on test images "
                                    "{:.3f}".format(epoch + 1, options.epochs, *row[1:]))
            log += torch.cat(list(same_losses)).tolist()  # every critic step
            seconds += time.perf_counter() - start
            common.save_checkpoint(options, out, state, epoch + 1, log, seconds)
            draw(epoch + 1)

    save_figures(options, out, log, G)
    common.save_grid(generate(G, z), out / "figure1-samples.png")
    batches = begin_epoch(options, train_x, test_x, options.epochs, 0)
    final = final_critic_steps(G, C, opt_c, batches, n_c, n_b)
    results = common.parameter_counts(state) | evaluate(
        G, n_c, n_b, options.seed, train_x, train_y, test_x, test_y)
    for name, losses in (("", torch.tensor(log[-LAST:])), ("_final", final)):
        _, on_train, on_test = losses.mean(0).tolist()
        results |= {f"wasserstein_train{name}": on_train, f"wasserstein_test{name}": on_test,
                    f"overfitting{name}": on_train - on_test}
    return common.save_results(options, out, results, device, seconds)


def save_figures(options: Options, out: Path, log: list, G: nn.Module) -> None:
    """metrics.csv, training.gif and the paper's figures 2 and 4 of one run."""
    rows = ([step, *losses] for step, losses in enumerate(log, 1))
    common.save_csv(("critic_step", "c_loss", "train", "test"), rows, out / "metrics.csv")
    steps, (_, on_train, on_test) = range(1, len(log) + 1), torch.tensor(log).T
    curves = {"training images": on_train, "test images": on_test}
    common.save_curves(
        {"step by step": {label: (steps, y) for label, y in curves.items()},
         f"Hanning window of {WINDOW}": {label: (steps, smooth(y)) for label, y in curves.items()}},
        out / "figure2-critic.png", "critic step", "E[C(x)] - E[C(G(z))]", log=True)
    common.save_panels(groups(G, options.n_c, options.n_b, options.seed),
                       out / "figure4-groups.png", 6, columns=4)
    common.save_gif((out / "samples").glob("epoch-*.png"), out / "training.gif")


def trainings(dims: list[int]) -> list[tuple[int, int, int]]:
    """(n_c, n_b, seed) of every training, in order: n_c and n_b from dims, not both 0.

    The pairs of figure 2, which the paper's claims compare, come first, and with three seeds: a
    search that is stopped early has results for them. Raises ValueError where dims are not fit.
    """
    if not all(0 <= n <= 10_000 for n in dims) or len(set(dims)) < len(dims) or max(dims) == 0:
        raise ValueError("--dims: give different whole numbers from 0 to 10000, and not 0 alone")
    grid = [(n_c, n_b) for n_c in dims for n_b in dims if n_c + n_b > 0]
    compared = [pair for pair in SELECTION if pair in grid]
    return ([(*pair, seed) for seed in (0, 1, 2) for pair in compared]
            + [(*pair, 0) for pair in grid if pair not in compared])


def paper(options: Options, out: Path, jobs: int, dims: list[int]) -> None:
    """The search of section 4.1; its figures and table, of what there is, after each training."""
    runs, rows = {}, {}
    for n_c, n_b, seed in trainings(sorted(dims)):
        run = replace(options, n_c=n_c, n_b=n_b, seed=seed)
        runs[out / configuration(run)] = run
    old = [folder.name for folder, run in runs.items() if common.finished(run, folder)]
    for row in common.train_all(train, runs, jobs):
        rows[row["run"]] = row
        if row["run"] not in old or len(rows) == len(runs):
            save_search([rows[folder.name] for folder in runs if folder.name in rows],
                        sorted(dims), out)


def save_search(rows: list[dict], dims: list[int], out: Path) -> None:
    """Figures 2 and 3, from the runs with seed 0, and the table of all results."""
    folders = {(row["n_c"], row["n_b"]): out / row["run"] for row in rows if row["seed"] == 0}
    curves = {}
    for n_c, n_b in [pair for pair in SELECTION if pair in folders] or folders:
        log = common.read_checkpoint(Options, folders[n_c, n_b])["log"]
        estimates = smooth(torch.tensor(log)[:, 1])
        curves[f"n_c = {n_c}, n_b = {n_b}"] = (range(1, len(log) + 1), estimates)
    if curves:  # with several jobs the first run that ends may have another seed
        common.save_curves({f"Hanning window of {WINDOW}": curves}, out / "figure2-critic.png",
                           "critic step", "E[C(x)] - E[C(G(z))]", log=True)
    save_figure_3(rows, dims, out / "figure3-search.png")
    common.save_table(rows, out / "results.csv", (
        "wasserstein_train", "wasserstein_train_final", "kl", "training_seconds"))


def main(argv: list[str] | None = None) -> None:
    """The program: status 0, 1 (data, disk or losses), 2 (options), 130 (Ctrl-C)."""
    dims = {"type": int, "nargs": "+", "default": list(DIMS), "metavar": "N",
            "help": "with --paper: the values of n_c and n_b (default: the paper's ten)"}
    common.run_program(Options, train, configuration, argv, paper, varied=("n_c", "n_b", "seed"),
                       paper_arguments={"dims": dims}, paper_check=trainings)


if __name__ == "__main__":
    main()
