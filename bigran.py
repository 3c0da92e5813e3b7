"""BiGRAN: a recurrent GAN with an encoder, whose generator draws an image in several updates.

Ben Striner, "Bi-Directional Generative Recurrent Adversarial Networks", 2016, section 4; the
author's code is github.com/bstriner/bigran.

The idea. A BiGAN (bigan.py) with recurrent networks. The encoder E reads an image x at T times and
samples a code z_t at each. The decoder G reads codes z_1 ... z_T, and after each of them updates a
canvas, as a painter adds strokes. The canvas, through a sigmoid, is an image x_t. The discriminator
D tells two kinds of pairs apart: (x, E(x)), with the same real image at every t, and (x_t, z), with
z from N(0, 1). Its output at t depends on the image at t and the codes up to t, so the canvas has
to look real after every update. D also reads the images of a set one after another, and its output
for an image depends on those before it, too (recurrent discrimination, section 3). Each of them is
further evidence against a decoder that always draws the same digit.

The objective. Let D_ti be D's output for (x, E(x)) at time t and image i of a set, a probability,
and D'_ti that for (x_t, z). With means over t, i and sets,

    D minimizes        L_D  = -mean log D_ti  - mean log(1 - D'_ti) + l1 |weights of D|
    E and G minimize   L_EG = -mean log D'_ti - mean log(1 - D_ti)  + l1 |weights of E and G|

    figures 7, 8 and 9    a first look             python bigran.py --epochs 5
    the same              as in docs/bigran.md     python bigran.py --epochs 50
    the same              as long as the author    python bigran.py

Where this differs from the paper or the author's code (measured in docs/bigran.md):
- D steps as often as E and G, at a fifth of their rate; weights are averaged. Author: --d-steps 4
  --lr-d 3e-4 --lr-eg 1e-4 --beta1 0.9 --dropout 0.5 --average 0; bigran-authors-decay.patch.
- E and G learn from the last minibatch, codes and noise of D; the author draws new ones.
- L_EG exchanges the targets, as the author's code does; in the paper E and G minimize -L_D.
- Dropout is at the inputs and outputs of D's second LSTM, and between its tanh layers; the
  author's is at the inputs and inside the recurrences of both LSTMs, and between the layers.
- The gates of the LSTMs are sigmoids; the author's are piecewise linear, as in Keras 1.
- An epoch has 937 steps of E and G, a pass over the training images; the author's has 1,000.
- The caption of figure 7 has "pairwise discrimination" (--set-size 2); the author's code has 4.
"""

import copy
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

LATENT = 25  # numbers in the code of one time step; from the author's code
SAMPLES = 10_000  # generated images that the evaluation counts
SCORE_EVERY = 5  # epochs from one row of scores.csv to the next; the last epoch has one, too
SCORES = ("reconstruction_error_first", "reconstruction_error_last", "sharpness_first",
          "sharpness_last", "reconstruction_label_accuracy_last", "kl")


@dataclass(frozen=True)
class Options:
    """Default, accepted values and meaning of each; raises ValueError where one is not accepted."""

    script = "bigran.py"
    time_steps: int = option(4, (1, 100), "codes of an image, and updates of the canvas")
    set_size: int = option(4, (1, 1000), "images that D reads one after another")
    hidden: int = option(128, (1, 10_000), "units of every hidden layer")
    dropout: float = option(0.3, (0, 0.99), "share of hidden values that D leaves out")
    epochs: int = option(300, (1, 10**6), "an epoch has a step of E and G for each minibatch")
    batch_size: int = option(64, (1, 60_000), "images in a minibatch, a multiple of the set size")
    d_steps: int = option(1, (1, 1000), "steps of D before each step of E and G")
    lr_d: float = option(4e-4, (1e-9, 10), "learning rate of D")
    lr_eg: float = option(2e-3, (1e-9, 10), "learning rate of E and G")
    beta1: float = option(0.5, (0, 0.9999), "of Adam, in both optimizers")
    l1: float = option(1e-6, (0, 1), "weight of the L1 norm of the weights in both losses")
    average: float = option(0.9999, (0, 1), "decay per step of the EMA of E and G; 0: no average")
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
    """As in Keras 1, the author's: Glorot, recurrent 1.1 x orthogonal, biases 0, forget gates 1."""
    if isinstance(layer, nn.LSTM):
        for w_ih, w_hh in zip(layer.weight_ih_l0.chunk(4), layer.weight_hh_l0.chunk(4)):
            nn.init.xavier_uniform_(w_ih)
            nn.init.orthogonal_(w_hh, 1.1)
        layer.bias_hh_l0.zero_()
        layer.bias_ih_l0.zero_().chunk(4)[1].fill_(1)  # gates: input, forget, cell, output
    elif isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        layer.bias.zero_()


class Encoder(nn.Module):
    """E: images (N, 784) -> codes (N, T, 25), sampled; section 4.1."""

    def __init__(self, time_steps: int, hidden: int):
        super().__init__()
        self.time_steps = time_steps
        self.lstm = nn.LSTM(784, hidden, batch_first=True)
        self.out = nn.Linear(hidden, 2 * LATENT)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the codes of x, (N, T, 25) each."""
        h, _ = self.lstm(x.unsqueeze(1).expand(-1, self.time_steps, -1))
        mu, log_variance = self.out(h).chunk(2, 2)
        return mu, log_variance

    def forward(self, x: Tensor) -> Tensor:
        mu, log_variance = self.moments(x)
        return mu + torch.randn_like(mu) * (log_variance / 2).exp()


class Decoder(nn.Module):
    """G: codes (N, T, 25) -> the canvas at each time, images (N, T, 784) in [0, 1]; section 4.2."""

    def __init__(self, hidden: int):
        super().__init__()
        self.lstm = nn.LSTM(LATENT, hidden, batch_first=True)
        self.out = nn.Linear(hidden, 784)

    def forward(self, z: Tensor) -> Tensor:
        h, _ = self.lstm(z)
        return torch.sigmoid(self.out(h).cumsum(1))


class Discriminator(nn.Module):
    """D: images (N, T, 784) with codes (N, T, 25) -> scores (N, T), no sigmoid; section 4.3.

    Every `set_size` rows are a set. The score at time t of image i of a set depends on that image
    at t, its codes up to t, and the same of the images before it.
    """

    def __init__(self, hidden: int, set_size: int, dropout: float):
        super().__init__()
        self.set_size = set_size
        self.drop = nn.Dropout(dropout)
        self.codes = nn.LSTM(LATENT, hidden, batch_first=True)
        self.image = nn.Sequential(nn.Linear(784, hidden), nn.Tanh(), nn.Dropout(dropout),
                                   nn.Linear(hidden, hidden), nn.Tanh())
        self.images = nn.LSTM(2 * hidden, hidden, batch_first=True)
        self.out = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        h = self.drop(torch.cat([self.image(x), self.codes(z)[0]], 2))
        # (N, T, 2 hidden) -> (sets * T, set_size, 2 hidden): along the images, at each t by itself
        h = h.unflatten(0, (-1, self.set_size)).transpose(1, 2).flatten(0, 1)
        h = self.out(self.drop(self.images(h)[0]))
        return h.view(-1, x.shape[1], self.set_size).transpose(1, 2).flatten(0, 1)


# ---- objectives ---------------------------------------------------------------------------------
# D's output is the sigmoid of its score: -log D is softplus(-score), -log(1 - D) softplus(score).


def discriminator_loss(real_score: Tensor, fake_score: Tensor) -> Tensor:
    """L_D without the norm, a scalar, from the scores (N, T) of (x, E(x)) and of (x_t, z)."""
    return softplus(-real_score).mean() + softplus(fake_score).mean()


def encoder_generator_loss(real_score: Tensor, fake_score: Tensor) -> Tensor:
    """L_EG without the norm, a scalar: the targets of L_D exchanged."""
    return softplus(real_score).mean() + softplus(-fake_score).mean()


def l1_norm(*networks: nn.Module) -> Tensor:
    """The sum of the absolute values of all weights, biases left out; a scalar."""
    return sum(w.abs().sum() for network in networks for w in network.parameters() if w.dim() > 1)


# ---- the algorithm ------------------------------------------------------------------------------


def pairs(x: Tensor, E: nn.Module, G: nn.Module) -> tuple[Tensor, Tensor]:
    """What D sees for real images x (N, 784): images (2 N, T, 784) with codes (2 N, T, 25).

    First (x, E(x)), with x at every time, then as many (G(z), z).
    """
    code = E(x)
    z = torch.randn_like(code)
    canvas = G(z)
    return torch.cat([x.unsqueeze(1).expand_as(canvas), canvas]), torch.cat([code, z])


@torch.no_grad()
def update_ema(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the exponential moving average (EMA) of a network's weights one step on."""
    for slow, fast in zip(average.parameters(), network.parameters()):
        slow.lerp_(fast, 1 - decay)


def train_epoch(E: nn.Module, G: nn.Module, D: nn.Module, average_E: nn.Module,
                average_G: nn.Module, opt_eg: torch.optim.Optimizer, opt_d: torch.optim.Optimizer,
                batches: Iterator[Tensor], steps: Iterable[int], d_steps: int, l1: float,
                ema_decay: float) -> Iterator[Tensor]:
    """Train E and G for the steps with these numbers, and D `d_steps` times before each of them.

    `batches` gives real images (N, 784). After each step of E and G this yields the last L_D, and
    L_EG, both without the norm; (2,), on the device of the images.
    """
    for step in steps:
        for _ in range(d_steps):
            images, codes = pairs(next(batches), E, G)
            real_score, fake_score = D(images.detach(), codes.detach()).chunk(2)
            d_loss = discriminator_loss(real_score, fake_score)
            opt_d.zero_grad()
            (d_loss + l1 * l1_norm(D)).backward()
            opt_d.step()

        real_score, fake_score = D(images, codes).chunk(2)  # the same pairs, by D after its step
        eg_loss = encoder_generator_loss(real_score, fake_score)
        opt_eg.zero_grad()
        (eg_loss + l1 * l1_norm(E, G)).backward(  # D's parameters accumulate no gradient
            inputs=[*E.parameters(), *G.parameters()])
        opt_eg.step()

        decay = min(ema_decay, (1 + step) / (10 + step))  # EMA warm-up
        update_ema(average_E, E, decay)
        update_ema(average_G, G, decay)
        yield torch.stack([d_loss.detach(), eg_loss.detach()])


# ---- evaluation and figures ---------------------------------------------------------------------


def fixed_z(count: int, time_steps: int, seed: int, device: torch.device) -> Tensor:
    """Codes (count, T, 25) from N(0, 1), the same for a seed; the global random stream stays."""
    generator = torch.Generator(device).manual_seed(seed)
    return torch.randn(count, time_steps, LATENT, generator=generator, device=device)


@torch.no_grad()
def sample(G: nn.Module, z: Tensor) -> Tensor:
    """The images (N, 784) that G has drawn after the last of the codes z (N, T, 25)."""
    return torch.cat([G(batch)[:, -1] for batch in z.split(1000)])


@torch.no_grad()
def autoencode(E: nn.Module, G: nn.Module, x: Tensor, seed: int) -> Tensor:
    """The canvas at each time, (N, T, 784), for E's codes of images x (N, 784).

    The noise is the same for a seed; the global random stream stays as it was.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.cat([G(E(batch)) for batch in x.split(1000)])


def distances(canvas: Tensor, x: Tensor) -> list[float]:
    """Mean Euclidean distance from the canvas (N, T, 784) to the images x (N, 784), at each t."""
    return [(images - x).norm(dim=1).mean().item() for images in canvas.unbind(1)]


def sharpness(canvas: Tensor) -> list[float]:
    """Share of the pixels of a canvas (N, T, 784) within 0.1 of 0 or of 1, at each t."""
    return ((canvas - 0.5).abs() >= 0.4).float().mean((0, 2)).tolist()


def variance(images: Tensor) -> float:
    """Total variance of images (N, 784), binarized at 1/2 so that sharp ones have no more of it."""
    return (images > 0.5).float().var(0).sum().item()


def score(canvas: Tensor, images: Tensor, train_x: Tensor, train_y: Tensor, test_x: Tensor,
          test_y: Tensor) -> list[float]:
    """The numbers SCORES: those of evaluate that are quick to compute, at the first and last t."""
    error, sharp = distances(canvas, test_x), sharpness(canvas)
    accuracy = common.label_accuracy(canvas[:, -1], test_y, train_x, train_y)
    index, _ = common.nearest(images, train_x)
    sampled, real = (torch.bincount(labels, minlength=10) / len(labels)
                     for labels in (train_y[index], train_y))
    return [error[0], error[-1], sharp[0], sharp[-1], accuracy,
            common.kl_divergence(sampled, real)]


def evaluate(canvas: Tensor, images: Tensor, train_x: Tensor, train_y: Tensor, test_x: Tensor,
             test_y: Tensor) -> dict:
    """Numbers of the autoencodings of test_x, `canvas` (10000, T, 784), and of samples (N, 784).

    Two distances are there to compare with: from the canvas to another test image, the one before
    x, and from the test images to the mean training image of their class.
    """
    means = torch.stack([train_x[train_y == digit].mean(0) for digit in range(10)])
    return {
        "reconstruction_error": distances(canvas, test_x),
        "sharpness": sharpness(canvas),
        "reconstruction_label_accuracy": [common.label_accuracy(at_t, test_y, train_x, train_y)
                                          for at_t in canvas.unbind(1)],
        "error_to_another_image": distances(canvas, test_x.roll(1, 0)),
        "error_of_class_means": (means[test_y] - test_x).norm(dim=1).mean().item(),
        **common.label_statistics(images, train_x, train_y, test_x, test_y),
        "variance": variance(images),
        "variance_of_test_images": variance(test_x),
        "sharpness_of_test_images": sharpness(test_x.unsqueeze(1))[0]}


@torch.no_grad()
def save_samples(G: nn.Module, z: Tensor, out: Path) -> None:
    """Figure 7, and drawing.gif: the canvas at each time for the codes z (100, T, 25)."""
    for t, images in enumerate(G(z).unbind(1), 1):
        common.save_grid(images, out / "samples" / f"canvas-{t}.png", 10, f"the canvas at t = {t}")
    common.save_gif((out / "samples").glob("canvas-*.png"), out / "drawing.gif")
    common.save_grid(images, out / "figure7-samples.png", columns=10)


def save_autoencodings(E: nn.Module, G: nn.Module, x: Tensor, seed: int, out: Path) -> None:
    """Figures 8 and 9: images x (N, 784), a row each; ten autoencodings; the canvas at each t."""
    ten = autoencode(E, G, x.repeat_interleave(10, 0), seed)[:, -1].unflatten(0, (-1, 10))
    canvas = autoencode(E, G, x, seed)
    for name, others, title in (
            ("figure8-autoencodings.png", ten, "an image, and ten autoencodings of it"),
            ("figure9-canvas.png", canvas, "an image, and the canvas at each t")):
        rows = torch.cat([x.unsqueeze(1), others], 1)
        common.save_grid(rows.flatten(0, 1), out / name, rows.shape[1], title)


# ---- run ----------------------------------------------------------------------------------------


def train(options: Options, out: str | Path, resume: bool = False) -> dict:
    """Train in the new folder `out`, or continue the run that is there; return the results."""
    out, device = Path(out), common.pick_device(options.device)
    train_x, train_y, test_x, test_y = common.load_images(
        options.data, options.dataset, options.train_size, device)

    torch.manual_seed(options.seed)
    networks = (Encoder(options.time_steps, options.hidden), Decoder(options.hidden),
                Discriminator(options.hidden, options.set_size, options.dropout))
    E, G, D = (network.apply(initialize).to(device) for network in networks)
    # cuDNN wants an LSTM's weights in one block of memory: `to` sees to it, a copy has several
    average_E, average_G = (copy.deepcopy(network).to(device) for network in (E, G))
    betas = (options.beta1, 0.999)
    opt_eg = torch.optim.Adam([*E.parameters(), *G.parameters()], options.lr_eg, betas, fused=True)
    opt_d = torch.optim.Adam(D.parameters(), options.lr_d, betas, fused=True)
    state = {"E": E, "G": G, "D": D, "opt_eg": opt_eg, "opt_d": opt_d,
             "average_E": average_E, "average_G": average_G}
    start_epoch, log, seconds, scores = common.begin(out, options, state, device, resume, scores=[])
    z = fixed_z(SAMPLES, options.time_steps, options.seed, device)

    def draw(epoch: int) -> None:
        common.save_grid(sample(average_G, z[:100]), out / "samples" / f"epoch-{epoch:03}.png", 10,
                         f"after {epoch} epochs")

    def score_row(epoch: int) -> list[float]:
        canvas = autoencode(average_E, average_G, test_x, options.seed)
        return [epoch, *score(canvas, sample(average_G, z), train_x, train_y, test_x, test_y)]

    draw(start_epoch)
    scores = scores or [score_row(0)]
    n = len(train_x) // options.batch_size  # steps of E and G in an epoch
    bar = tqdm(total=options.epochs * n, initial=start_epoch * n, desc=out.name, unit=" steps")
    for epoch in range(start_epoch, options.epochs):
        start, steps = time.perf_counter(), range(epoch * n, (epoch + 1) * n)
        torch.manual_seed(1_000_000 * (options.seed + 1) + epoch)  # all that an epoch needs
        batches = common.minibatches(train_x, options.batch_size)
        losses = train_epoch(E, G, D, average_E, average_G, opt_eg, opt_d, batches, steps,
                             options.d_steps, options.l1, options.average)
        with common.training_precision(options.precision, E, G, D):
            for row in common.mean_losses(losses, steps, epoch + 1, bar):
                log.append(row)
                bar.set_postfix_str("epoch {}/{}, D {:.3f}, E and G {:.3f}".format(
                    epoch + 1, options.epochs, *row[1:]))
        seconds += time.perf_counter() - start
        # E's deviation, an exponential, can be infinite where all weights are finite
        if not autoencode(E, G, train_x[:1000], options.seed).isfinite().all():
            raise FloatingPointError("a weight or an autoencoding is not finite in epoch "
                                     f"{epoch + 1}; earlier epochs are kept")
        if (epoch + 1) % SCORE_EVERY == 0:
            scores.append(score_row(epoch + 1))
        common.save_checkpoint(out, options, state, epoch=epoch + 1, log=log, seconds=seconds,
                               scores=scores)
        common.save_csv(("step", "d_loss", "eg_loss"), log, out / "metrics.csv")
        draw(epoch + 1)
    bar.close()

    if scores[-1][0] < options.epochs:
        scores.append(score_row(options.epochs))
    common.save_csv(("epoch", *SCORES), scores, out / "scores.csv")
    save_figures(log, scores, out)
    save_samples(average_G, z[:100], out)
    x = torch.cat([test_x[test_y == digit][:1] for digit in range(10)])
    save_autoencodings(average_E, average_G, x, options.seed, out)
    canvas = autoencode(average_E, average_G, test_x, options.seed)
    results = evaluate(canvas, sample(average_G, z), train_x, train_y, test_x, test_y)
    return common.save_results(out, options, results, {"E": E, "G": G, "D": D}, device, seconds)


def save_figures(log: list, scores: list, out: Path) -> None:
    """Curves of the losses and of scores.csv, and training.gif."""
    steps, d_loss, eg_loss = zip(*log)
    common.save_curves({"losses": {"D": (steps, d_loss), "E and G": (steps, eg_loss)}},
                       out / "losses.png", "step")
    epochs, first_error, last_error, first_sharp, last_sharp, accuracy, kl = zip(*scores)
    common.save_curves({
        "distance from canvas to image": {"t = 1": (epochs, first_error),
                                          "last t": (epochs, last_error)},
        "sharpness of the canvas": {"t = 1": (epochs, first_sharp), "last t": (epochs, last_sharp)},
        "label accuracy of autoencodings": {"last t": (epochs, accuracy)},
        "KL of the class distribution": {"last t": (epochs, kl)}}, out / "scores.png", "epoch")
    common.save_gif((out / "samples").glob("epoch-*.png"), out / "training.gif")


def main(argv: list[str] | None = None) -> None:
    """The program: status 0, 1 (data, disk or losses), 2 (options), 130 (Ctrl-C)."""
    options, out, resume = common.parse_args(Options, __doc__, argv)
    with common.exit_status(options, out):
        train(options, out, resume)


if __name__ == "__main__":
    main()
