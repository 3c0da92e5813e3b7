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
    figures 2 and 3, the search     python reproduce.py wgan_gp_binary_seed         figure2, figure3

What the paper leaves open, and what we add (see docs/wgan_gp_binary_seed.md):
- z_b is 0 or 1. With -1 or 1 (--low -1) it has the mean and variance of z_c, and two verdicts turn.
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
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

if __name__ == "__main__":  # before torch: waiting threads that spin slow down all else
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d
from tqdm import tqdm

import common
from common import option

PENALTY = 10.0  # lambda of the gradient penalty; section 4
CRITIC_STEPS = 6  # of the critic before a generator step; section 4
BETAS = (0.5, 0.9)  # of Adam; MNIST code of Gulrajani et al. 2017
BLOCK = 100  # critic steps "to make sure the critic has remained optimal"; section 4
LAST = 200  # critic steps whose mean is the reported estimate; section 4.1
WINDOW = 50  # critic steps under the Hanning window of figure 2
SAMPLES = 10_000  # generated images that the evaluation counts


@dataclass(frozen=True)
class Options:
    """Default, accepted values and meaning of each; raises ValueError where one is not accepted."""

    script = "wgan_gp_binary_seed.py"
    n_c: int = option(7, (0, 10_000), "normal latent variables")
    n_b: int = option(12, (0, 10_000), "Bernoulli(1/2) latent variables")
    low: int = option(0, (-1, 0), "their lower value: 0, or -1 for mean 0 and variance 1")
    epochs: int = option(9, (1, 10**6), "an epoch has a generator step per 6 minibatches")
    batch_size: int = option(128, (2, 60_000), "images in a minibatch")
    lr: float = option(1e-3, (1e-9, 10), "learning rate")
    train_size: int = option(0, (0, 10**9), "use the first N training and test images; 0: all")
    seed: int = option(0, (0, 4000), "of weights, minibatches and noise")
    precision: str = option("full", ("full", "reduced"), "of training; reduced: where it is faster")
    device: str = option("auto", ("auto", "cpu", "cuda", "mps"), "auto is cuda, else cpu")
    dataset: str = option("MNIST", common.DATASETS, "images in DATA/DATASET/raw")
    data: str = option("data", (), "folder of the data set")

    def __post_init__(self):
        common.check_options(self)
        if self.n_c + self.n_b == 0:
            raise ValueError("--n-c: 0 together with --n-b 0 leaves no seed; accepted: 1 or more")


# ---- networks -----------------------------------------------------------------------------------


def sample_z(count: int, n_c: int, n_b: int, device: torch.device, low: int = 0) -> Tensor:
    """Seeds z = [z_c, z_b] of section 3.2, (count, n_c + n_b): z_c normal, z_b `low` or 1."""
    z_c = torch.randn(count, n_c, device=device)
    z_b = torch.randint(2, (count, n_b), device=device)
    return torch.cat([z_c, low + (1 - low) * z_b.float()], dim=1)


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
        return x * torch.where(x > 0, 1.0, 0.1).to(x.dtype)  # bf16 stays bf16


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
                test: Tensor, n_c: int, n_b: int, low: int = 0) -> Tensor:
    """One step of C; returns, from before it, loss and estimates on real and test images, (3,)."""
    with torch.no_grad():
        fake = G(sample_z(len(real), n_c, n_b, real.device, low))
    c_loss, estimates = critic_loss(C, real, fake, test)
    opt_c.zero_grad()
    c_loss.backward(inputs=list(C.parameters()))  # no gradient for x_hat
    opt_c.step()
    return torch.cat([c_loss.detach().view(1), estimates])


def train_epoch(G: nn.Module, C: nn.Module, opt_g: torch.optim.Optimizer,
                opt_c: torch.optim.Optimizer, batches: Iterator[tuple[Tensor, Tensor]],
                steps: range, n_c: int, n_b: int, low: int = 0) -> Iterator[Tensor]:
    """Train G for an epoch, the steps with these numbers, and C as critic_steps says.

    `batches` gives real images (N, 784) and test images. After each generator step this yields
    what the k critic steps before it returned; (k, 3), on the device of the images.
    """
    for step in steps:
        losses = []
        for _ in range(critic_steps(step, len(steps))):
            real, test = next(batches)
            losses.append(critic_step(G, C, opt_c, real, test, n_c, n_b, low))

        fake = G(sample_z(len(real), n_c, n_b, real.device, low))
        g_loss = generator_loss(C, fake)
        opt_g.zero_grad()
        g_loss.backward(inputs=list(G.parameters()))  # C's parameters accumulate no gradient
        opt_g.step()
        yield torch.stack(losses)


# ---- evaluation and figures ---------------------------------------------------------------------


def final_critic_steps(G: nn.Module, C: nn.Module, opt_c: torch.optim.Optimizer,
                       batches: Iterator[tuple[Tensor, Tensor]], n_c: int, n_b: int,
                       low: int = 0) -> Tensor:
    """300 more steps of C with G frozen; what critic_step returned in the last 200, (200, 3)."""
    losses = [critic_step(G, C, opt_c, *next(batches), n_c, n_b, low)
              for _ in tqdm(range(BLOCK + LAST), "final critic steps", leave=False)]
    return torch.stack(losses[-LAST:])


@torch.no_grad()
def generate(G: nn.Module, z: Tensor) -> Tensor:
    """Images (N, 784) from seeds z (N, n_c + n_b), in batches of 1,000."""
    return torch.cat([G(batch) for batch in z.split(1000)])


def groups(G: nn.Module, n_c: int, n_b: int, seed: int, low: int = 0) -> dict[str, Tensor]:
    """Figure 4: groups of 16 random images (16, 784): a1 to a6 of one z_c, b1 to b6 of one z_b.

    Groups in which nothing would vary are left out: a if n_b = 0, b if n_c = 0.
    """
    def group(fixed: slice) -> Tensor:
        z = sample_z(16, n_c, n_b, next(G.parameters()).device, low)
        z[:, fixed] = z[0, fixed].clone()
        return generate(G, z)

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        a = {f"a{i}: z_c fixed": group(slice(0, n_c)) for i in range(1, 7) if n_b > 0}
        b = {f"b{i}: z_b fixed": group(slice(n_c, None)) for i in range(1, 7) if n_c > 0}
    return a | b


def evaluate(G: nn.Module, n_c: int, n_b: int, seed: int, train_x: Tensor, train_y: Tensor,
             test_x: Tensor, test_y: Tensor, low: int = 0) -> dict:
    """What the labels of the nearest training images tell about 10,000 samples.

    label_unchanged_X_resampled: the share whose label is the same with another X (z_c, z_b or z).
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        z, other_z = (sample_z(SAMPLES, n_c, n_b, train_x.device, low) for _ in range(2))

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


# ---- run ----------------------------------------------------------------------------------------


def epoch_batches(train_x: Tensor, test_x: Tensor, batch_size: int, seed: int, epoch: int,
                  critic_step: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Seed an epoch; return its minibatches, each with 50 test images, from that critic step on.

    All test images come in 200 steps. The order of the training images has its own random
    generator, because z takes more or fewer random numbers by n_c and n_b.
    """
    number = 1_000_000 * (seed + 1) + epoch
    torch.manual_seed(number)
    order = torch.Generator(train_x.device).manual_seed(number + 500_000)
    few = min(LAST, len(test_x))
    test_batches = (test_x[i % few :: few] for i in itertools.count(critic_step))
    return zip(common.minibatches(train_x, batch_size, order), test_batches)


def train(options: Options, out: str | Path, resume: bool = False) -> dict:
    """Train in the new folder `out`, or continue the run that is there; return the results."""
    out, device = Path(out), common.pick_device(options.device)
    n_c, n_b, low = options.n_c, options.n_b, options.low
    train_x, train_y, test_x, test_y = common.load_images(
        options.data, options.dataset, options.train_size, device)

    torch.manual_seed(options.seed)
    C = critic().to(device)  # before G: the same one, whatever the size of the seed
    G = generator(n_c + n_b).to(device)
    opt_c, opt_g = (torch.optim.Adam(network.parameters(), options.lr, BETAS, fused=True)
                    for network in (C, G))
    state = {"C": C, "G": G, "opt_c": opt_c, "opt_g": opt_g}
    start_epoch, log, seconds = common.begin(out, options, state, device, resume)
    torch.manual_seed(options.seed)
    z = sample_z(64, n_c, n_b, device, low)  # for every picture the same

    def draw(epochs: int) -> None:
        common.save_grid(generate(G, z), out / "samples" / f"epoch-{epochs:03}.png",
                         title=f"after {epochs} epochs")

    draw(start_epoch)
    n = max(1, len(train_x) // options.batch_size // CRITIC_STEPS)  # generator steps in an epoch
    bar = tqdm(total=options.epochs * sum(critic_steps(step, n) for step in range(n)),
               initial=len(log), desc=out.name, unit=" critic steps")
    for epoch in range(start_epoch, options.epochs):
        start, steps = time.perf_counter(), range(epoch * n, (epoch + 1) * n)
        batches = epoch_batches(train_x, test_x, options.batch_size, options.seed, epoch, len(log))
        losses = chain.from_iterable(train_epoch(G, C, opt_g, opt_c, batches, steps, n_c, n_b, low))
        with common.training_precision(options.precision, G, C):
            for _, *row in common.mean_losses(losses, range(bar.n, bar.total), epoch + 1, bar,
                                              every=1):
                log.append(row)
                bar.set_postfix_str("epoch {}/{}, loss {:.3f}, estimate {:.3f}, on test {:.3f}"
                                    .format(epoch + 1, options.epochs, *row), refresh=False)
        seconds += time.perf_counter() - start
        common.save_checkpoint(out, options, state, epoch=epoch + 1, log=log, seconds=seconds)
        common.save_csv(("critic_step", "c_loss", "train", "test"),
                        ([i, *row] for i, row in enumerate(log, 1)), out / "metrics.csv")
        draw(epoch + 1)
    bar.close()

    save_figures(log, out)
    common.save_grid(generate(G, z), out / "figure1-samples.png")
    common.save_panels(groups(G, n_c, n_b, options.seed, low), out / "figure4-groups.png", 6,
                       columns=4)
    batches = epoch_batches(train_x, test_x, options.batch_size, options.seed, options.epochs, 0)
    final = final_critic_steps(G, C, opt_c, batches, n_c, n_b, low)
    results = {}
    for name, losses in (("", torch.tensor(log[-LAST:])), ("_final", final)):
        _, on_train, on_test = losses.mean(0).tolist()
        results |= {f"wasserstein_train{name}": on_train, f"wasserstein_test{name}": on_test,
                    f"overfitting{name}": on_train - on_test}
    results |= evaluate(G, n_c, n_b, options.seed, train_x, train_y, test_x, test_y, low)
    return common.save_results(out, options, results, state, device, seconds)


def save_figures(log: list, out: Path) -> None:
    """training.gif and the paper's figure 2 of one run."""
    steps, (_, on_train, on_test) = range(1, len(log) + 1), torch.tensor(log).T
    curves = {"training images": on_train, "test images": on_test}
    common.save_curves(
        {"step by step": {label: (steps, y) for label, y in curves.items()},
         f"Hanning window of {WINDOW}": {label: (steps, smooth(y)) for label, y in curves.items()}},
        out / "figure2-critic.png", "critic step", "E[C(x)] - E[C(G(z))]", log=True)
    common.save_gif((out / "samples").glob("epoch-*.png"), out / "training.gif")


def main(argv: list[str] | None = None) -> None:
    """The program: status 0, 1 (data, disk or losses), 2 (options), 130 (Ctrl-C)."""
    options, out, resume = common.parse_args(Options, __doc__, argv)
    with common.exit_status(options, out):
        train(options, out, resume)


if __name__ == "__main__":
    main()
