"""BinaryGAN: a GAN whose generator ends in binary neurons and is trained end to end.

Hao-Wen Dong and Yi-Hsuan Yang, "Training Generative Adversarial Networks with Binary Neurons
by End-to-end Backpropagation", 2018, arXiv 1810.04714.

The idea. Some data are binary: black-and-white images, piano rolls. Usually a generator ends in a
sigmoid, and its outputs are binarized afterwards. Here they are binarized before the discriminator
sees them. With x the output of G's last layer and p = sigmoid(slope x) the "preactivated output":

    deterministic (DBN)   1 if p > 1/2, else 0                            equation 6
    stochastic (SBN)      1 if p > v, else 0, v uniform on [0, 1]         equation 7

A step function has no useful gradient, so the backward pass takes that of p instead: the
sigmoid-adjusted straight-through estimator of section 2.3. After every epoch the slope grows by
the factor --anneal, so that p comes closer to the step function ("slope annealing", section 4.2).

The objective (equations 3 to 5), D without a sigmoid, real images x, fake images G(z):

    D minimizes   E[D(G(z))] - E[D(x)] + lambda E[(|grad D(x^)| - 1)^2]       (wgan-gp)
    G minimizes  -E[D(G(z))]

with x^ uniform on the line between a real and a fake image. Other objectives: wgan clips the
weights of D instead of using the penalty; gan is the non-saturating GAN of equations 1 and 2.

    figure 3  samples, preactivations    python binarygan.py --neuron sbn    figure3-*.png
    figure 4  their histogram            python binarygan.py --neuron dbn    figure4-*.png
    figure 5  real values binarized      python binarygan.py --neuron real   figure5-*.png
    figures 3 to 8, all experiments      python reproduce.py binarygan       figure3 to figure8

Where this differs from the paper or the authors' code (see docs/binarygan.md)
- No batch normalization in G: the authors' code has it, but never in training mode (--norm batch).
- lambda and the gradient of D in equation 5 are from Gulrajani et al. 2017, arXiv 1704.00028.
- Every critic step has its own minibatch and noise; the authors reuse both until G has made a step.
- Initial weights are PyTorch's; the authors' are from a truncated normal distribution of 0.02.
- We train on the 60,000 training images; the authors on all 70,000.
- From the authors' code: size of z, LeakyReLU's slope, Adam's settings, --schedule paper's critic.
- SBN and real have a short schedule, found as good; the paper's is --schedule paper.
- Equations 6 and 7 have no slope; the authors' code never anneals it (--anneal 1); real has none.
- Figure 4 has p in equal bins; the paper's has 8-bit pictures of p, whose last bin is p = 1.
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

LATENT = 128  # numbers in z; from the authors' code
PENALTY = 10.0  # lambda of the gradient penalty; Gulrajani et al. 2017
CLIP = 0.01  # bound on D's weights with the wgan objective; Arjovsky et al. 2017
SAMPLES = 10_000  # generated images that the evaluation counts
SCHEDULES = {  # options that are not given; docs/binarygan.md compares the two
    "paper": {"epochs": 20, "batch_size": 64, "lr": 1e-4, "lr_decay": 1.0, "anneal": 1.1},
    "short": {"epochs": 5, "batch_size": 128, "lr": 3e-3, "lr_decay": 0.6, "anneal": 1.2}}


@dataclass(frozen=True)
class Options:
    """Default, accepted values and meaning of each; raises ValueError where one is not accepted."""

    script = "binarygan.py"
    neuron: str = option("sbn", ("sbn", "dbn", "real"), "G's output: binary neurons, or a sigmoid")
    objective: str = option("wgan-gp", ("gan", "wgan", "wgan-gp"), "what D and G minimize")
    arch: str = option("mlp", ("mlp", "cnn"), "networks")
    norm: str = option("none", ("none", "batch"), "batch normalization in G (with gan in D, too)")
    schedule: str = option("auto", ("auto", *SCHEDULES), "D's steps and what is 0 of the next "
                           "five; auto: short for SBN and real with all other defaults, else paper")
    epochs: int = option(0, (0, 10**6), "an epoch has a generator step for each minibatch")
    batch_size: int = option(0, (2, 60_000), "images in a minibatch")
    lr: float = option(0.0, (1e-9, 10), "learning rate")
    lr_decay: float = option(0.0, (0.01, 1), "factor on it after each epoch")
    anneal: float = option(0.0, (0.5, 2), "factor on the slope after each epoch; 1: no annealing")
    train_size: int = option(0, (0, 10**9), "use the first N training and test images; 0: all")
    seed: int = option(0, (0, 4000), "of weights, minibatches and noise")
    precision: str = option("full", ("full", "reduced"), "of training; reduced: where it is faster")
    device: str = option("auto", ("auto", "cpu", "cuda", "mps"), "auto is cuda, else cpu")
    dataset: str = option("MNIST", common.DATASETS, "images in DATA/DATASET/raw")
    data: str = option("data", (), "folder of the data set")

    def __post_init__(self):
        if self.schedule == "auto":  # short where fresh seeds found it as good
            usual = self.objective, self.arch, self.norm, self.train_size
            short = self.neuron != "dbn" and usual == ("wgan-gp", "mlp", "none", 0)
            object.__setattr__(self, "schedule", "short" if short else "paper")  # frozen otherwise
        for name, value in SCHEDULES.get(self.schedule, {}).items():
            object.__setattr__(self, name, getattr(self, name) or value)
        common.check_options(self)
        if (self.device, self.arch, self.objective) == ("mps", "cnn", "wgan-gp"):
            raise ValueError("--device: mps has no second derivative of max pooling; accepted: cpu")


# ---- networks -----------------------------------------------------------------------------------


def generator(arch: str, norm: str) -> nn.Sequential:
    """G: z (N, 128) -> x (N, 784), the input of the binary neurons. Tables 1 (mlp) and 3 (cnn)."""
    def batch_norm(features: int, layer: type = nn.BatchNorm1d) -> nn.Module:
        return layer(features) if norm == "batch" else nn.Identity()

    if arch == "mlp":
        return nn.Sequential(
            nn.Linear(LATENT, 1024), batch_norm(1024), nn.ReLU(),
            nn.Linear(1024, 784), batch_norm(784))
    return nn.Sequential(  # no padding: 1 -> 2 -> 6 -> 13 -> 28 pixels
        nn.Unflatten(1, (LATENT, 1, 1)),
        nn.ConvTranspose2d(LATENT, 128, 2), batch_norm(128, nn.BatchNorm2d), nn.ReLU(),
        nn.ConvTranspose2d(128, 64, 4, stride=2), batch_norm(64, nn.BatchNorm2d), nn.ReLU(),
        nn.ConvTranspose2d(64, 32, 3, stride=2), batch_norm(32, nn.BatchNorm2d), nn.ReLU(),
        nn.ConvTranspose2d(32, 1, 4, stride=2), batch_norm(1, nn.BatchNorm2d),
        nn.Flatten())


def discriminator(arch: str, norm: str) -> nn.Sequential:
    """D: images (N, 784) -> scores (N, 1), no sigmoid. Tables 2 (mlp) and 4 (cnn).

    Batch normalization, which only gan has in D, always uses the statistics of the minibatch: a
    generator step does not change D, and D is not used outside training.
    """
    def batch_norm(features: int, layer: type = nn.BatchNorm1d) -> nn.Module:
        return layer(features, track_running_stats=False) if norm == "batch" else nn.Identity()

    if arch == "mlp":
        return nn.Sequential(
            nn.Linear(784, 512), batch_norm(512), nn.LeakyReLU(0.2),
            nn.Linear(512, 256), batch_norm(256), nn.LeakyReLU(0.2),
            nn.Linear(256, 1))
    return nn.Sequential(  # 28 -> 26 -> 13 -> 11 -> 6 pixels: the second pooling pads
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 32, 3), batch_norm(32, nn.BatchNorm2d), nn.LeakyReLU(0.2), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3), batch_norm(64, nn.BatchNorm2d), nn.LeakyReLU(0.2),
        nn.MaxPool2d(2, ceil_mode=True), nn.Flatten(),
        nn.Linear(64 * 6 * 6, 128), batch_norm(128), nn.LeakyReLU(0.2),
        nn.Linear(128, 1))


def binary_neuron(x: Tensor, slope: float, neuron: str) -> tuple[Tensor, Tensor]:
    """Equations 6 and 7, with the straight-through gradient of section 2.3.

    x of any shape gives two tensors of that shape: the outputs, exactly 0 or 1, and the
    preactivated outputs p. Backward, the outputs pass on dp/dx = slope p (1 - p).
    `neuron` is "dbn", "sbn", or "real", whose outputs are p = sigmoid(x).
    """
    if neuron == "real":
        p = torch.sigmoid(x)
        return p, p
    p = torch.sigmoid(slope * x)
    threshold = torch.rand_like(p) if neuron == "sbn" else 0.5
    hard = (p > threshold).to(p.dtype)
    # p + (hard - p) is exact for hard in {0, 1}; hard + p - p.detach() would be off by rounding
    return p + (hard - p).detach(), p


# ---- objectives ---------------------------------------------------------------------------------


def mlp_gradient(D: nn.Sequential, x: Tensor) -> Tensor:
    """The gradient at x (N, 784) of an MLP D of Linear and LeakyReLU layers; (N, 784).

    Around x LeakyReLU multiplies each unit by a constant: 1 or 0.2. With these in diagonal matrices
    M, D(x) = w3^T M2 (W2 M1 (W1 x + b1) + b2) + b3, and the gradient is w3^T M2 W2 M1 W1. A small
    change of the weights leaves M as it is: all that depends on them is in this product, and
    training with it needs no derivative of a derivative.
    """
    factors = []
    with torch.no_grad():
        for layer in D:
            if isinstance(layer, nn.LeakyReLU):
                factors.append(torch.ones_like(x).where(x > 0, layer.negative_slope))
            x = layer(x)
    gradient = torch.ones_like(x)
    for layer in reversed(D):
        if isinstance(layer, nn.Linear):
            gradient = gradient @ layer.weight
        elif isinstance(layer, nn.LeakyReLU):
            gradient = gradient * factors.pop()
    return gradient


def gradient_penalty(D: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """E[(|grad D(x^)| - 1)^2], the last term of equation 5 without lambda; a scalar.

    real, fake (N, 784); one epsilon per image, and the norm over all pixels of an image.
    """
    epsilon = torch.rand(len(real), 1, device=real.device)
    x_hat = (epsilon * real + (1 - epsilon) * fake).requires_grad_()
    if isinstance(D, nn.Sequential) and {*map(type, D)} <= {nn.Linear, nn.LeakyReLU, nn.Identity}:
        gradient = mlp_gradient(D, x_hat)  # the same for less
    else:  # for any D
        (gradient,) = torch.autograd.grad(D(x_hat).sum(), x_hat, create_graph=True)
    return ((gradient.norm(dim=1) - 1) ** 2).mean()


def discriminator_loss(D: nn.Module, real: Tensor, fake: Tensor,
                       objective: str) -> tuple[Tensor, Tensor]:
    """What D minimizes: equations 2, 3 and 5 with the sign changed.

    Returns the loss and E[D(x)] - E[D(G(z))], which for wgan-gp is the estimate of the Wasserstein
    distance and carries no gradient. Both are scalars.
    """
    if objective == "gan":  # one after the other: batch normalization must not mix the two
        real_score, fake_score = D(real), D(fake)
        loss = softplus(-real_score).mean() + softplus(fake_score).mean()
    else:
        real_score, fake_score = D(torch.cat([real, fake])).chunk(2)
        loss = fake_score.mean() - real_score.mean()
    if objective == "wgan-gp":
        loss = loss + PENALTY * gradient_penalty(D, real, fake)
    return loss, (real_score.mean() - fake_score.mean()).detach()


def generator_loss(D: nn.Module, fake: Tensor, objective: str) -> Tensor:
    """What G minimizes: equation 1 for gan, equations 3 and 4 for the others; a scalar."""
    return softplus(-D(fake)).mean() if objective == "gan" else -D(fake).mean()


# ---- the algorithm ------------------------------------------------------------------------------


def optimizer(network: nn.Module, lr: float, objective: str) -> torch.optim.Optimizer:
    """RMSprop for wgan, Adam for the others; from the authors' code."""
    if objective == "wgan":
        return torch.optim.RMSprop(network.parameters(), lr, alpha=0.9)
    return torch.optim.Adam(network.parameters(), lr, (0.5, 0.9), fused=True)


def critic_steps(step: int, schedule: str) -> int:
    """Steps of D before generator step number `step`, counted from 0; paper: the authors' code."""
    return 3 if schedule == "short" else 100 if step < 25 or step % 500 == 0 else 5


@torch.no_grad()
def clip(D: nn.Module) -> None:
    """Keep D's weights in [-0.01, 0.01]: wgan's way to keep D Lipschitz continuous."""
    for parameter in D.parameters():
        parameter.clamp_(-CLIP, CLIP)


def train_epoch(G: nn.Module, D: nn.Module, opt_g: torch.optim.Optimizer,
                opt_d: torch.optim.Optimizer, batches: Iterator[Tensor], counts: Iterable[int],
                slope: float, neuron: str, objective: str) -> Iterator[Tensor]:
    """For each of the counts, make that many steps of D, then a step of G.

    `batches` gives real images (N, 784). After each generator step this yields the last loss of D,
    that of G, and E[D(x)] - E[D(G(z))]; (3,), on the device of the images.
    """
    for count in counts:
        for _ in range(count):
            real = next(batches)
            with torch.no_grad():
                z = torch.randn(len(real), LATENT, device=real.device)
                fake, _ = binary_neuron(G(z), slope, neuron)
            d_loss, estimate = discriminator_loss(D, real, fake, objective)
            opt_d.zero_grad()
            d_loss.backward(inputs=list(D.parameters()))  # no gradient for x_hat
            opt_d.step()
            if objective == "wgan":
                clip(D)

        z = torch.randn(len(real), LATENT, device=real.device)
        fake, _ = binary_neuron(G(z), slope, neuron)
        g_loss = generator_loss(D, fake, objective)
        opt_g.zero_grad()
        g_loss.backward(inputs=list(G.parameters()))  # D's parameters accumulate no gradient
        opt_g.step()
        yield torch.stack([d_loss.detach(), g_loss.detach(), estimate])


# ---- evaluation and figures ---------------------------------------------------------------------


@torch.no_grad()
def sample(G: nn.Module, count: int, slope: float, neuron: str, seed: int) -> tuple[Tensor, Tensor]:
    """`count` images and their preactivated outputs, both (count, 784), the same for a seed.

    Another count has other thresholds, so that SBN's first 10 of 64 are not its 10.
    The global random stream is left as it was. Batch normalization uses its running statistics.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        z = torch.randn(count, LATENT, device=next(G.parameters()).device)
        G.eval()
        images, p = binary_neuron(G(z), slope, neuron)
        G.train()
    return images, p


def histogram(p: Tensor) -> Tensor:
    """The share of the preactivated outputs p in each of 256 equal bins of [0, 1]; (256,)."""
    return torch.histc(p, 256, 0, 1).cpu() / p.numel()


def save_histograms(outputs: dict[str, Tensor], path: Path) -> None:
    """Figure 4: a curve for the histogram of each of the preactivated outputs, by label."""
    middles = [(i + 0.5) / 256 for i in range(256)]
    curves = {label: (middles, histogram(p).tolist()) for label, p in outputs.items()}
    common.save_curves({"": curves}, path, "preactivated output", "share of outputs in bin",
                       log=True)


def binarizations(p: Tensor, seed: int) -> dict[str, Tensor]:
    """Figure 5: real-valued outputs p (N, 784), and the two usual ways to make them binary."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sampled = torch.bernoulli(p)
    return {"raw": p, "threshold 0.5": (p > 0.5).float(), "Bernoulli": sampled}


@torch.no_grad()
def mean_score(D: nn.Module, images: Tensor) -> float:
    """The mean of D over images (N, 784), in batches of 1,000."""
    return torch.cat([D(batch) for batch in images.split(1000)]).mean().item()


def evaluate(images: Tensor, p: Tensor, train_x: Tensor, train_y: Tensor, test_x: Tensor,
             test_y: Tensor) -> dict:
    """The masses of figure 4, and what the labels of the nearest training images tell.

    images and preactivated outputs p (N, 784). Real-valued images are binarized at 1/2.
    """
    masses = histogram(p)
    return {"histogram_first_bin": masses[0].item(),
            "histogram_last_bin": masses[-1].item(),
            "histogram_middle": masses[64:192].sum().item(),  # outputs from 1/4 to 3/4
            "histogram_notch": (masses[127:129].mean() / masses[96:160].mean()).item(),
            **common.label_statistics((images > 0.5).float(), train_x, train_y, test_x, test_y)}


# ---- run ----------------------------------------------------------------------------------------


def train(options: Options, out: str | Path, resume: bool = False) -> dict:
    """Train in the new folder `out`, or continue the run that is there; return the results."""
    out, device = Path(out), common.pick_device(options.device)
    train_x, train_y, test_x, test_y = common.load_images(
        options.data, options.dataset, options.train_size, device)
    train_x, test_x = (train_x > 0).float(), (test_x > 0).float()  # section 4.1
    if train_x.mean() > 0.9:
        print("note: nine of ten pixels are above 0 and become 1; is the background not quite 0?")

    torch.manual_seed(options.seed)
    G = generator(options.arch, options.norm)
    # a normalized critic's score would depend on the minibatch; the penalty would miss its slope
    D = discriminator(options.arch, options.norm if options.objective == "gan" else "none")
    for network in (G, D):
        network.to(device, memory_format=torch.channels_last)  # convolutions 1.2x faster on CPU
    opt_g, opt_d = (optimizer(network, options.lr, options.objective) for network in (G, D))
    state = {"G": G, "D": D, "opt_g": opt_g, "opt_d": opt_d}
    start_epoch, log, seconds = common.begin(out, options, state, device, resume)

    def draw(epochs: int) -> None:
        slope = options.anneal ** max(0, epochs - 1)
        common.save_grid(sample(G, 64, slope, options.neuron, options.seed)[0],
                         out / "samples" / f"epoch-{epochs:03}.png", title=f"after {epochs} epochs")

    draw(start_epoch)
    n = len(train_x) // options.batch_size  # generator steps in an epoch
    bar = tqdm(total=options.epochs * n, initial=start_epoch * n, desc=out.name, unit=" steps")
    for epoch in range(start_epoch, options.epochs):
        start, steps = time.perf_counter(), range(epoch * n, (epoch + 1) * n)
        torch.manual_seed(1_000_000 * (options.seed + 1) + epoch)  # all that an epoch needs
        batches = common.minibatches(train_x, options.batch_size)
        for opt in (opt_g, opt_d):
            opt.param_groups[0]["lr"] = options.lr * options.lr_decay**epoch
        counts = [critic_steps(step, options.schedule) for step in steps]
        losses = train_epoch(G, D, opt_g, opt_d, batches, counts, options.anneal**epoch,
                             options.neuron, options.objective)
        with common.training_precision(options.precision, G, D):
            for row in common.mean_losses(losses, steps, epoch + 1, bar):
                log.append(row)
                bar.set_postfix_str("epoch {}/{}, D {:.3f}, G {:.3f}, estimate {:.3f}".format(
                    epoch + 1, options.epochs, *row[1:]))
        seconds += time.perf_counter() - start
        common.save_checkpoint(out, options, state, epoch=epoch + 1, log=log, seconds=seconds)
        common.save_csv(("generator_step", "d_loss", "g_loss", "estimate"), log,
                        out / "metrics.csv")
        draw(epoch + 1)
    bar.close()

    slope = options.anneal ** (options.epochs - 1)
    images, p = sample(G, SAMPLES, slope, options.neuron, options.seed)
    save_figures(options.neuron, options.objective, log, images, p, out)
    results = evaluate(images, p, train_x, train_y, test_x, test_y)
    if options.objective == "wgan-gp":  # with clipping the scale of D is not known
        fake = mean_score(D, images)
        results |= {"wasserstein_train": mean_score(D, train_x) - fake,
                    "wasserstein_test": mean_score(D, test_x) - fake}
    return common.save_results(out, options, results, state, device, seconds)


def save_figures(neuron: str, objective: str, log: list, images: Tensor, p: Tensor,
                 out: Path) -> None:
    """losses.png, training.gif and the paper's figures of one run."""
    steps, d_loss, g_loss, estimate = zip(*log)
    common.save_curves({"losses": {"D": (steps, d_loss), "G": (steps, g_loss)},
                        "E[D(x)] - E[D(G(z))]": {objective: (steps, estimate)}},
                       out / "losses.png", "generator step")
    common.save_gif((out / "samples").glob("epoch-*.png"), out / "training.gif")
    model = f"{neuron}, {objective}"
    common.save_panels({f"{model}: samples": images[:64], f"{model}: preactivated": p[:64]},
                       out / "figure3-samples.png", 2, (f"{model}: preactivated",))
    save_histograms({neuron: p}, out / "figure4-histogram.png")
    if neuron == "real":
        common.save_panels(binarizations(p[:64], 0), out / "figure5-binarized.png", 3)


def main(argv: list[str] | None = None) -> None:
    """The program: status 0, 1 (data, disk or losses), 2 (options), 130 (Ctrl-C)."""
    options, out, resume = common.parse_args(Options, __doc__, argv)
    with common.exit_status(options, out):
        train(options, out, resume)


if __name__ == "__main__":
    main()
