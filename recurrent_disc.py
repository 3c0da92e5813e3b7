"""Recurrent discrimination: a GAN on MNIST whose discriminator reads sets of images.

Ben Striner, "Bi-Directional Generative Recurrent Adversarial Networks", 2016, section 3.2. (The
paper is anonymous; its code is not.) Section 3.1 is in recurrent_disc_toy.py, section 4 in
bigran.py.

The idea. A GAN may collapse: its generator makes good ones, and nothing else. A discriminator that
sees a single image objects weakly: a one is more often generated than real, but still a fine digit.
Each further image multiplies the odds: so many ones in a row are unlikely among real digits.
Recurrent discrimination is an LSTM that reads a set of k images, with a sigmoid after each of them.
Output i has seen images 1 to i, and is the probability that they are real. With k = 1 it is an
ordinary discriminator.

The objective. D_i is the output after image i of a set, x are real images, G(z) generated ones; the
means are over i and over sets. |W| is the sum of the absolute values of a network's weights.

    D minimizes  - E[0.9 log D_i(x) + 0.1 log(1 - D_i(x))] - E[log(1 - D_i(G(z)))] + 1e-5 |W_D|  (1)
    G minimizes  - E[log D_i(G(z))] + 1e-6 |W_G|                                                 (2)

    figure 4  samples, k = 1       python recurrent_disc.py --set-size 1   figures4-6-k1.png
    figure 5  samples, k = 2       python recurrent_disc.py --set-size 2   figures4-6-k2.png
    figure 6  samples, k = 4       python recurrent_disc.py --set-size 4   figures4-6-k4.png
    figures 4 to 6, three seeds    python reproduce.py recurrent_disc      figures4-6.png,
                                                                           digits-by-k.png

The paper has no numbers for figures 4 to 6, but a claim: the larger k, the more modes. The
author's samples for k = 1 show only ones, those for k = 4 mostly 3, 8, 0, 1 and 6. We count the
digits, in three trainings for each k.

Where this differs from the paper or the author's code (measured in docs/recurrent_disc.md):
- The author's discriminator is bidirectional, so that each output has seen the whole set. The paper
  speaks of an LSTM; with a plain one, output i has seen i images.
- From the author's code, since the paper does not say: all sizes, initial weights (Keras 1's),
  z ~ N(0, 1), Adam and its rates, which fall as 1 / (1 + decay step), the 0.9 and the L1 norms in
  (1) and (2), which are those of matrices, 4 steps of D per step of G, 64 images a step in sets of
  k, and an epoch of 1,000 steps of G.
- G minimizes -log D, as in the author's code; the paper has log(1 - D), the minimax objective.
- The gates of the LSTM are sigmoids, where the author's Keras had a piecewise linear function.
"""

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # before torch: waiting threads that spin slow down all else
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from tqdm import tqdm

import common
from common import option

# from the author's code:
LATENT = 100  # numbers in z
TARGET = 0.9  # of D on real images: "label smoothing"
RATE_D, DECAY_D = 3e-4, 1e-4  # Adam's learning rate, and its decay
RATE_G, DECAY_G = 1e-4, 4e-4
L1_D, L1_G = 1e-5, 1e-6  # factors of the L1 norms
D_STEPS = 4  # before each step of G
STEPS_PER_EPOCH = 1000  # of G

SAMPLES = 10_000  # generated images that the evaluation counts


@dataclass(frozen=True)
class Options:
    """Default, accepted values and meaning of each; raises ValueError where one is not accepted."""

    script = "recurrent_disc.py"
    set_size: int = option(4, (1, 60_000), "k: images in a set")
    epochs: int = option(10, (1, 10**6), "an epoch is 1,000 generator steps")
    batch_size: int = option(64, (1, 60_000), "images in a minibatch, a multiple of the set size")
    train_size: int = option(0, (0, 10**9), "use the first N training and test images; 0: all")
    seed: int = option(0, (0, 4000), "of weights, minibatches and noise")
    precision: str = option("full", ("full", "reduced"), "of training; reduced: where it is faster")
    device: str = option("auto", ("auto", "cpu", "cuda", "mps"), "auto is cuda, else cpu")
    dataset: str = option("MNIST", common.DATASETS, "images in DATA/DATASET/raw")
    data: str = option("data", (), "folder of the data set")

    def __post_init__(self):
        common.check_options(self)
        if self.batch_size % self.set_size:
            raise ValueError(f"--batch-size: {self.batch_size} is not a multiple of --set-size "
                             f"{self.set_size}")


# ---- networks -----------------------------------------------------------------------------------


@torch.no_grad()
def initialize(layer: nn.Module) -> None:
    """G and D begin as in Keras 1: Glorot, recurrent 1.1 times orthogonal, biases 0, forget 1."""
    if isinstance(layer, nn.LSTM):
        for w_ih, w_hh in zip(layer.weight_ih_l0.chunk(4), layer.weight_hh_l0.chunk(4)):
            nn.init.xavier_uniform_(w_ih)
            nn.init.orthogonal_(w_hh, 1.1)
        layer.bias_hh_l0.zero_()
        layer.bias_ih_l0.zero_().chunk(4)[1].fill_(1)  # gates: input, forget, cell, output
    elif isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        layer.bias.zero_()


def generator() -> nn.Sequential:
    """G: z (..., 100) -> images (..., 784) in [0, 1]."""
    return nn.Sequential(nn.Linear(LATENT, 256), nn.Tanh(), nn.Linear(256, 256), nn.Tanh(),
                         nn.Linear(256, 784), nn.Sigmoid())


class Discriminator(nn.Module):
    """D: sets of k samples (N, k, inputs) -> logits (N, k) of the first 1, 2 ... k being real."""

    def __init__(self, inputs: int):
        super().__init__()
        self.lstm = nn.LSTM(inputs, 256, batch_first=True)
        self.readout = nn.Linear(256, 1)

    def forward(self, sets: Tensor) -> Tensor:
        hidden, _ = self.lstm(sets)
        return self.readout(hidden).squeeze(-1)


# ---- objectives ---------------------------------------------------------------------------------


def cross_entropy(logits: Tensor, target: float) -> Tensor:
    """The mean of -target log D - (1 - target) log(1 - D), with D the sigmoid of the logits."""
    return (softplus(logits) - target * logits).mean()


def discriminator_loss(D: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """What D minimizes, (1) without the norm. real, fake (N, k, 784): sets of images."""
    real_score, fake_score = D(torch.cat([real, fake])).chunk(2)
    return cross_entropy(real_score, TARGET) + cross_entropy(fake_score, 0)


def generator_loss(D: nn.Module, fake: Tensor) -> Tensor:
    """What G minimizes, (2) without the norm. fake (N, k, 784): sets of images."""
    return cross_entropy(D(fake), 1)


def l1_norm(network: nn.Module) -> Tensor:
    """|W|, the sum of the absolute values of all weights, biases left out; a scalar."""
    return sum(w.abs().sum() for w in network.parameters() if w.dim() > 1)


# ---- the algorithm ------------------------------------------------------------------------------


def learning_rate(rate: float, decay: float, step: int) -> float:
    """Adam's learning rate in step number `step`, counted from 0: Keras' decay."""
    return rate / (1 + decay * step)


def train_epoch(G: nn.Module, D: nn.Module, opt_g: torch.optim.Optimizer,
                opt_d: torch.optim.Optimizer, batches: Iterator[Tensor], steps: Iterable[int],
                sets: int, set_size: int) -> Iterator[Tensor]:
    """Train G for the steps with these numbers, and D four times before each of them.

    `batches` gives real images (sets * set_size, 784). After each generator step this yields the
    last loss of D and that of G, without the norms; (2,), on the device of the networks.
    """
    device = next(G.parameters()).device
    for step in steps:
        with torch.no_grad():  # G is frozen while D learns: one pass for all of D's steps
            fakes = G(torch.randn(D_STEPS, sets, set_size, LATENT, device=device))
        for i, fake in enumerate(fakes):
            opt_d.param_groups[0]["lr"] = learning_rate(RATE_D, DECAY_D, D_STEPS * step + i)
            real = next(batches).view(sets, set_size, 784)
            d_loss = discriminator_loss(D, real, fake)
            opt_d.zero_grad()
            (d_loss + L1_D * l1_norm(D)).backward()
            opt_d.step()

        opt_g.param_groups[0]["lr"] = learning_rate(RATE_G, DECAY_G, step)
        fake = G(torch.randn(sets, set_size, LATENT, device=device))
        g_loss = generator_loss(D, fake)
        opt_g.zero_grad()
        # D's parameters accumulate no gradient
        (g_loss + L1_G * l1_norm(G)).backward(inputs=list(G.parameters()))
        opt_g.step()
        yield torch.stack([d_loss.detach(), g_loss.detach()])


# ---- evaluation and figures ---------------------------------------------------------------------


@torch.no_grad()
def sample(G: nn.Module, count: int, seed: int) -> Tensor:
    """`count` images, (count, 784), the same for a seed; the global random stream is left as it
    was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return G(torch.randn(count, LATENT, device=next(G.parameters()).device))


# ---- run ----------------------------------------------------------------------------------------


def train(options: Options, out: str | Path, resume: bool = False) -> dict:
    """Train in the new folder `out`, or continue the run that is there; return the results."""
    out, device, n = Path(out), common.pick_device(options.device), STEPS_PER_EPOCH
    train_x, train_y, test_x, test_y = common.load_images(
        options.data, options.dataset, options.train_size, device)

    torch.manual_seed(options.seed)
    G, D = (network.apply(initialize).to(device) for network in (generator(), Discriminator(784)))
    opt_g, opt_d = (torch.optim.Adam(network.parameters(), fused=True) for network in (G, D))
    state = {"G": G, "D": D, "opt_g": opt_g, "opt_d": opt_d}
    start_epoch, log, seconds = common.begin(out, options, state, device, resume)

    def draw(epochs: int) -> None:
        common.save_grid(sample(G, 100, options.seed), out / "samples" / f"epoch-{epochs:03}.png",
                         10, f"after {epochs} epochs")

    draw(start_epoch)
    sets = options.batch_size // options.set_size
    bar = tqdm(total=options.epochs * n, initial=start_epoch * n, desc=out.name, unit=" steps")
    for epoch in range(start_epoch, options.epochs):
        start, steps = time.perf_counter(), range(epoch * n, (epoch + 1) * n)
        torch.manual_seed(1_000_000 * (options.seed + 1) + epoch)  # all that an epoch needs
        batches = common.minibatches(train_x, options.batch_size)
        losses = train_epoch(G, D, opt_g, opt_d, batches, steps, sets, options.set_size)
        with common.training_precision(options.precision, G, D):
            for row in common.mean_losses(losses, steps, epoch + 1, bar):
                log.append(row)
                bar.set_postfix_str("epoch {}/{}, D {:.3f}, G {:.3f}".format(
                    epoch + 1, options.epochs, *row[1:]))
        seconds += time.perf_counter() - start
        common.save_checkpoint(out, options, state, epoch=epoch + 1, log=log, seconds=seconds)
        common.save_csv(("generator_step", "d_loss", "g_loss"), log, out / "metrics.csv")
        draw(epoch + 1)
    bar.close()

    images = sample(G, SAMPLES, options.seed)
    steps, d_loss, g_loss = zip(*log)
    common.save_curves({"losses": {"D": (steps, d_loss), "G": (steps, g_loss)}},
                       out / "losses.png", "generator step")
    common.save_gif((out / "samples").glob("epoch-*.png"), out / "training.gif")
    common.save_grid(images[:100], out / f"figures4-6-k{options.set_size}.png", columns=10)
    results = common.label_statistics(images, train_x, train_y, test_x, test_y)
    return common.save_results(out, options, results, state, device, seconds)


def main(argv: list[str] | None = None) -> None:
    """The program: status 0, 1 (data, disk or losses), 2 (options), 130 (Ctrl-C)."""
    options, out, resume = common.parse_args(Options, __doc__, argv)
    with common.exit_status(options, out):
        train(options, out, resume)


if __name__ == "__main__":
    main()
