"""InfoGAN: a GAN that finds the digits without labels, as ten values of one number in its seed.

Xi Chen, Yan Duan, Rein Houthooft, John Schulman, Ilya Sutskever and Pieter Abbeel, "InfoGAN:
Interpretable Representation Learning by Information Maximizing Generative Adversarial Nets",
2016, arXiv 1606.03657.

The idea. A generator may use its seed in any way. Here the seed is noise z and a code c: c1, one of
ten categories, c2 and c3, uniform on [-1, 1]. A network Q reads the code back from the image, and G
is rewarded where Q can. Nobody sees a label. Ten categories that can be told apart, in images that
look like digits, come out much like the digits; c2 and c3 like slant and width.

The objective (equation 6), V the value of the GAN, L_I a lower bound on I(c; G(z, c)):

    min over G, Q, max over D of   V(D, G) - lambda L_I(G, Q)
    L_I = H(c) + E[log Q(c | G(z, c))]                                    equations 4 and 5

D and Q are two heads on one trunk, so that Q costs nearly nothing. Who learns from what:
- D's step: D from its loss, Q from L_I, the trunk from both.
- G's step: G alone, from its non-saturating loss and from L_I.
With --info 0 neither G nor the trunk learns from L_I: a plain GAN, with Q reading on the side.

    figures 1, 2a, 2c, 2d                python infogan.py                  figure1-*, figure2-*
    the plain GAN: figures 1, 2b         python infogan.py --info 0         figure1-*, figure2-*
    all figures and the table, 6 runs    python reproduce.py infogan        figure1-*, figure2-*

Where this differs from the paper or the authors' code (see docs/infogan.md):
- Q learns the deviations of c2 and c3; the authors' code has 1 there, and lambda 1 for all codes.
- G's step uses the images of D's step; the authors sample others.
- Batch normalization in D and Q always uses the statistics of the images that come together.
- From the authors' code: z is uniform on [-1, 1], initial weights are N(0, 0.02), Q learns in D's
  step at D's rate, and 5,000 steps, which are 10.7 epochs.
"""

import math
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # before torch: waiting threads that spin slow down all else
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, one_hot, softplus
from tqdm import tqdm

import common
from common import option

NOISE, CATEGORIES = 62, 10  # sizes of z and c1; appendix C.1
HIDDEN = 1024  # units of the fully connected layers; table 1
C1, C2, C3 = slice(0, 10), slice(10, 11), slice(11, 12)  # where the codes stand in c
LAMBDA = (1.0, 0.1)  # of L_I for c1, and for c2 and c3; section 6: 1, and less if continuous
SAMPLES = 10_000  # generated images that the evaluation counts, real ones that choose the matching


@dataclass(frozen=True)
class Options:
    """Default, accepted values and meaning of each; raises ValueError where one is not accepted."""

    script = "infogan.py"
    info: float = option(1.0, (0, 1000), "factor on lambda; 0: a plain GAN, with Q on the side")
    epochs: int = option(11, (1, 10**6), "an epoch is one pass of the training set")
    batch_size: int = option(128, (2, 60_000), "images in a minibatch")
    lr_g: float = option(1e-3, (1e-9, 10), "learning rate of G")
    lr_d: float = option(2e-4, (1e-9, 10), "learning rate of D, Q and their trunk")
    train_size: int = option(0, (0, 10**9), "use the first N training and test images; 0: all")
    seed: int = option(0, (0, 4000), "of weights, minibatches and noise")
    precision: str = option("full", ("full", "reduced"), "of training; reduced: where it is faster")
    device: str = option("auto", ("auto", "cpu", "cuda", "mps"), "auto is cuda, else cpu")
    dataset: str = option("MNIST", common.DATASETS, "images in DATA/DATASET/raw")
    data: str = option("data", (), "folder of the data set")

    def __post_init__(self):
        common.check_options(self)


# ---- networks -----------------------------------------------------------------------------------


def initialize(layer: nn.Module) -> None:
    """Weights N(0, 0.02), biases 0, as the authors' code; batch normalization stays as it is."""
    if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(layer.weight, 0, 0.02)
        nn.init.zeros_(layer.bias)


def generator() -> nn.Sequential:
    """G: (z, c) (N, 74) -> images (N, 784) in [0, 1]. Table 1; 7 -> 14 -> 28 pixels."""
    return nn.Sequential(
        nn.Linear(NOISE + CATEGORIES + 2, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(),
        nn.Linear(HIDDEN, 128 * 7 * 7), nn.BatchNorm1d(128 * 7 * 7), nn.ReLU(),
        nn.Unflatten(1, (128, 7, 7)),
        nn.ConvTranspose2d(128, 64, 4, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.ConvTranspose2d(64, 1, 4, stride=2, padding=1), nn.Sigmoid(),
        nn.Flatten()).apply(initialize)


def trunk_d_and_q() -> tuple[nn.Sequential, nn.Linear, nn.Sequential]:
    """What D and Q share, images (N, 784) -> features (N, 1024), and their last layers. Table 1.

    D: features -> logit (N, 1) of the image being real. Q: features -> parameters (N, 14) of
    Q(c | x): ten logits of c1, means of c2 and c3, logarithms of their deviations.
    """
    def batch_norm(features: int, layer: type = nn.BatchNorm1d) -> nn.Module:
        return layer(features, track_running_stats=False)

    trunk = nn.Sequential(  # 28 -> 14 -> 7 pixels
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 64, 4, stride=2, padding=1), nn.LeakyReLU(0.1),
        nn.Conv2d(64, 128, 4, stride=2, padding=1), batch_norm(128, nn.BatchNorm2d),
        nn.LeakyReLU(0.1),
        nn.Flatten(), nn.Linear(128 * 7 * 7, HIDDEN), batch_norm(HIDDEN), nn.LeakyReLU(0.1))
    D = nn.Linear(HIDDEN, 1)
    Q = nn.Sequential(nn.Linear(HIDDEN, 128), batch_norm(128), nn.LeakyReLU(0.1),
                      nn.Linear(128, CATEGORIES + 2 + 2))
    return trunk.apply(initialize), D.apply(initialize), Q.apply(initialize)


def sample_prior(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """z (count, 62) uniform on [-1, 1], and c (count, 12): c1 one-hot, c2 and c3 on [-1, 1]."""
    z = 2 * torch.rand(count, NOISE, device=device) - 1
    c1 = one_hot(torch.randint(CATEGORIES, (count,), device=device), CATEGORIES)
    return z, torch.cat([c1, 2 * torch.rand(count, 2, device=device) - 1], 1)


# ---- objectives ---------------------------------------------------------------------------------


def lower_bound(reading: Tensor, c: Tensor) -> Tensor:
    """L_I of equation 5 in nats, of c1, and of c2 and c3 together; (2,).

    reading (N, 14) are Q's parameters for images that G made with the codes c (N, 12).

    Section 5 of the paper. I(c; x) = H(c) - H(c | x) needs the posterior P(c | x), which nobody
    knows. For any Q

        -H(c | x) = E[log P(c | x)] = E[log Q(c | x)] + E[KL(P(. | x) || Q(. | x))],

    and no KL is negative. So L_I = H(c) + E[log Q(c | x)] is at most I(c; x), and equal to it where
    Q is the posterior. Its mean is over x and c from P(c | x), the posterior again. By Lemma 5.1
    this is the mean over c from the prior and x = G(z, c), which training samples.
    The codes are independent in the prior and in Q, so that each has a bound of its own. H is
    ln 10 for c1, the most that L_I of c1 can be, and ln 2 each for c2 and c3.
    """
    logits, mean, log_deviation = reading.split([CATEGORIES, 2, 2], dim=1)
    categorical = (c[:, C1] * log_softmax(logits, 1)).sum(1)
    error = (c[:, CATEGORIES:] - mean) / log_deviation.exp()
    gaussian = -(error.square() / 2 + log_deviation + math.log(2 * math.pi) / 2).sum(1)
    return torch.stack([math.log(CATEGORIES) + categorical.mean(),
                        2 * math.log(2) + gaussian.mean()])


# ---- the algorithm ------------------------------------------------------------------------------


def train_epoch(G: nn.Module, trunk: nn.Module, D: nn.Module, Q: nn.Module,
                opt_g: torch.optim.Optimizer, opt_d: torch.optim.Optimizer,
                batches: Iterator[Tensor], steps: Iterable[int], info: float) -> Iterator[Tensor]:
    """Train for the steps with these numbers. `opt_d` has the weights of trunk, D and Q.

    `batches` gives real images (N, 784). After each step this yields the losses of D and G, and
    L_I of c1 and of c2 and c3, on images that Q has not learned from; (4,).
    """
    for _ in steps:
        real = next(batches)
        z, c = sample_prior(len(real), real.device)
        fake = G(torch.cat([z, c], 1))

        # real and fake in two passes: batch normalization must not mix them
        real_score = D(trunk(real))
        features = trunk(fake.detach())
        d_loss = softplus(-real_score).mean() + softplus(D(features)).mean()
        # lerp(a, b, info) is a + info (b - a). Here both are features, so that Q reads features,
        # but only b passes the gradient back: Q learns from L_I, the trunk from `info` times L_I
        reading = Q(torch.lerp(features.detach(), features, info))
        bound = lower_bound(reading, c)
        opt_d.zero_grad()
        (d_loss - LAMBDA[0] * bound[0] - LAMBDA[1] * bound[1]).backward()
        opt_d.step()

        features = trunk(fake)
        g_loss = softplus(-D(features)).mean()
        g_bound = lower_bound(Q(features), c)
        opt_g.zero_grad()
        (g_loss - info * (LAMBDA[0] * g_bound[0] + LAMBDA[1] * g_bound[1])).backward(
            inputs=list(G.parameters()))  # the others accumulate no gradient
        opt_g.step()
        yield torch.cat([torch.stack([d_loss, g_loss]), bound]).detach()


# ---- evaluation and figures ---------------------------------------------------------------------


@torch.no_grad()
def generate(G: nn.Module, z: Tensor, c: Tensor) -> Tensor:
    """G's images (N, 784) of z (N, 62) and c (N, 12), with G's running statistics."""
    G.eval()
    images = torch.cat([G(batch) for batch in torch.cat([z, c], 1).split(1000)])
    G.train()
    return images


@torch.no_grad()
def read(trunk: nn.Module, Q: nn.Module, images: Tensor) -> Tensor:
    """Q's parameters (N, 14) for images (N, 784), normalized in batches of 1,000 to 1,999.

    The reading of an image depends on those it comes with, and one alone raises ValueError. To read
    one, put it among real images: read(trunk, Q, torch.cat([image, test_x[:999]]))[0].
    """
    return torch.cat([Q(trunk(x)) for x in images.tensor_split(max(1, len(images) // 1000))])


def vary(z: Tensor, c: Tensor, code: slice, values: Tensor) -> tuple[Tensor, Tensor]:
    """Each row of z (N, 62) and c (N, 12) with each of K values of a code; N K rows each."""
    many_c = c.repeat_interleave(len(values), 0)
    many_c[:, code] = values.repeat(len(c), 1)
    return z.repeat_interleave(len(values), 0), many_c


def slant_and_width(images: Tensor) -> tuple[Tensor, Tensor]:
    """Slant in degrees and width in pixels of images (N, 784), from the moments of ink; (N,) each.

    The slant is the angle from the vertical, to the right, of the shear that the second moments
    show. The width is the standard deviation of the ink across, once that shear is undone.
    """
    ink = (images / images.sum(1, keepdim=True).clamp(min=1e-6)).view(-1, 28, 28)
    across = torch.arange(28.0, device=images.device)
    upward = -across.view(28, 1)

    def mean(values: Tensor) -> Tensor:
        return (ink * values).sum((1, 2)).view(-1, 1, 1)

    dx, dy = across - mean(across), upward - mean(upward)
    shear = mean(dx * dy) / mean(dy.square()).clamp(min=1e-6)
    width = mean((dx - shear * dy).square()).sqrt()
    return shear.atan().rad2deg().flatten(), width.flatten()


def fixed_prior(count: int, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """sample_prior, the same for a seed; the global random stream is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return sample_prior(count, device)


def classification(train_c1: Tensor, train_y: Tensor, test_c1: Tensor, test_y: Tensor) -> dict:
    """c1 as a classifier of real images, each category standing for one digit.

    train_c1 and test_c1 (N,) are the most likely categories. The one-to-one matching of categories
    and digits is that with the fewest errors on the training images (the Hungarian algorithm).
    """
    from scipy.optimize import linear_sum_assignment  # scipy comes with scikit-learn

    pairs = torch.bincount(10 * train_c1 + train_y, minlength=100).view(10, 10)
    _, digits = linear_sum_assignment(pairs.cpu().numpy(), maximize=True)
    digits = torch.from_numpy(digits).to(train_y.device)
    return {"c1_error_train": (digits[train_c1] != train_y).float().mean().item(),
            "c1_error_test": (digits[test_c1] != test_y).float().mean().item(),
            "digit_of_category": digits.tolist()}


def label_dependence(G: nn.Module, z: Tensor, c: Tensor, new_z: Tensor, new_c: Tensor,
                     train_x: Tensor, train_y: Tensor) -> dict:
    """How much of the digit c1 tells: labels are those of the nearest training images.

    First the share of samples with the most frequent label of their category. Then the shares whose
    predicted label is unchanged when a part of the seed is resampled, from new_z and new_c.
    """
    def labels(z: Tensor, c1: Tensor, c: Tensor) -> Tensor:
        images = generate(G, z, torch.cat([c1[:, C1], c[:, CATEGORIES:]], 1))
        return train_y[common.nearest(images, train_x)[0]]

    before, after_c1, after_rest = labels(z, c, c), labels(z, new_c, c), labels(new_z, c, new_c)
    pairs = torch.bincount(10 * c[:, C1].argmax(1) + before, minlength=100).view(10, 10)
    shares = pairs.sum(0) / len(before)
    return {"one_label_per_c1": pairs.amax(1).sum().item() / len(before),
            "unchanged_if_c1_resampled": (before == after_c1).float().mean().item(),
            "unchanged_if_rest_resampled": (before == after_rest).float().mean().item(),
            "unchanged_if_all_resampled": shares.square().sum().item()}  # two independent samples


def code_effects(G: nn.Module, z: Tensor, c: Tensor) -> dict:
    """What c2 and c3 do to slant and width of the images of z (N, 62) and c (N, 12).

    The correlations over these; and the mean change, in degrees and pixels, when one code alone
    goes from -2 to 2 in the first 1,000 of them.
    """
    results, measured = {}, torch.stack(slant_and_width(generate(G, z, c)))
    ends = torch.tensor([[-2.0], [2.0]], device=c.device)
    for name, code in (("c2", C2), ("c3", C3)):
        correlations = torch.corrcoef(torch.cat([c[:, code].T, measured]))[0]
        _, slant, width = correlations.nan_to_num().tolist()  # 0 where all images are alike
        at_ends = slant_and_width(generate(G, *vary(z[:1000], c[:1000], code, ends)))
        degrees, pixels = (values.view(-1, 2).mean(0).diff().item() for values in at_ends)
        results |= {f"{name}_slant_correlation": slant, f"{name}_slant_degrees": degrees,
                    f"{name}_width_correlation": width, f"{name}_width_pixels": pixels}
    return results


def evaluate(G: nn.Module, trunk: nn.Module, Q: nn.Module, seed: int, train_x: Tensor,
             train_y: Tensor, test_x: Tensor, test_y: Tensor) -> dict:
    """All numbers of a trained model, from samples that are the same for a seed."""
    (z, new_z), (c, new_c) = (
        part.chunk(2) for part in fixed_prior(2 * SAMPLES, seed, train_x.device))
    images = generate(G, z, c)
    bound = lower_bound(read(trunk, Q, images), c)
    train_c1, test_c1 = (read(trunk, Q, x)[:, C1].argmax(1) for x in (train_x[:SAMPLES], test_x))
    return {**classification(train_c1, train_y[:SAMPLES], test_c1, test_y),
            "bound_c1": bound[0].item(), "bound_c2_c3": bound[1].item(),
            **label_dependence(G, z, c, new_z, new_c, train_x, train_y), **code_effects(G, z, c),
            **common.label_statistics(images, train_x, train_y, test_x, test_y)}


def code_panels(G: nn.Module, digits: list[int], seed: int) -> dict[str, Tensor]:
    """Figures 2a, 2c and 2d: ten rows, in each of which one code varies alone; (100, 784) each.

    The categories, columns of the first and rows of the others, are in the order of the digits
    matched with them. c2 and c3 go from -2 to 2, beyond their range in training.
    """
    device = next(G.parameters()).device
    z, c = fixed_prior(CATEGORIES, seed, device)
    categories = torch.eye(CATEGORIES)[torch.tensor(digits).argsort()].to(device)
    c[:, C1] = categories
    values = torch.linspace(-2, 2, 10, device=device).view(-1, 1)
    return {"c1": generate(G, *vary(z, c, C1, categories)),
            "c2 from -2 to 2": generate(G, *vary(z, c, C2, values)),
            "c3 from -2 to 2": generate(G, *vary(z, c, C3, values))}


def save_bounds(logs: dict[str, list], path: Path) -> None:
    """Figure 1: L_I over training, of c1, and of c2 and c3, for each of the logs, by label."""
    panels = {"c1": {}, "c2 and c3": {}}
    for label, log in logs.items():
        steps, _, _, c1, c2_c3 = zip(*log)
        panels["c1"][label], panels["c2 and c3"][label] = (steps, c1), (steps, c2_c3)
    panels["c1"]["ln 10"] = ((1, steps[-1]), (math.log(10),) * 2)
    common.save_curves(panels, path, "step", "L_I in nats")


# ---- run ----------------------------------------------------------------------------------------


def train(options: Options, out: str | Path, resume: bool = False) -> dict:
    """Train in the new folder `out`, or continue the run that is there; return the results."""
    out, device = Path(out), common.pick_device(options.device)
    train_x, train_y, test_x, test_y = common.load_images(
        options.data, options.dataset, options.train_size, device)

    torch.manual_seed(options.seed)
    G, trunk, D, Q = (network.to(device) for network in (generator(), *trunk_d_and_q()))
    readers = [*trunk.parameters(), *D.parameters(), *Q.parameters()]
    opt_g = torch.optim.Adam(G.parameters(), options.lr_g, (0.5, 0.999), fused=True)
    opt_d = torch.optim.Adam(readers, options.lr_d, (0.5, 0.999), fused=True)
    state = {"G": G, "trunk": trunk, "D": D, "Q": Q, "opt_g": opt_g, "opt_d": opt_d}
    start_epoch, log, seconds = common.begin(out, options, state, device, resume)

    def draw(epochs: int) -> None:
        images = code_panels(G, list(range(CATEGORIES)), options.seed)["c1"]
        common.save_grid(images, out / "samples" / f"epoch-{epochs:03}.png", CATEGORIES,
                         f"after {epochs} epochs; across: c1")

    draw(start_epoch)
    n = len(train_x) // options.batch_size  # steps in an epoch
    bar = tqdm(total=options.epochs * n, initial=start_epoch * n, desc=out.name, unit=" steps")
    for epoch in range(start_epoch, options.epochs):
        start, steps = time.perf_counter(), range(epoch * n, (epoch + 1) * n)
        torch.manual_seed(1_000_000 * (options.seed + 1) + epoch)  # all that an epoch needs
        batches = common.minibatches(train_x, options.batch_size)
        losses = train_epoch(G, trunk, D, Q, opt_g, opt_d, batches, steps, options.info)
        with common.training_precision(options.precision, G, trunk, D, Q):
            for row in common.mean_losses(losses, steps, epoch + 1, bar):
                log.append(row)
                bar.set_postfix_str("epoch {}/{}, D {:.3f}, G {:.3f}, L_I {:.3f} {:.3f}".format(
                    epoch + 1, options.epochs, *row[1:]))
        seconds += time.perf_counter() - start
        common.save_checkpoint(out, options, state, epoch=epoch + 1, log=log, seconds=seconds)
        common.save_csv(("step", "d_loss", "g_loss", "bound_c1", "bound_c2_c3"), log,
                        out / "metrics.csv")
        draw(epoch + 1)
    bar.close()

    results = evaluate(G, trunk, Q, options.seed, train_x, train_y, test_x, test_y)
    steps, d_loss, g_loss, *_ = zip(*log)
    common.save_curves({"losses": {"D": (steps, d_loss), "G": (steps, g_loss)}},
                       out / "losses.png", "step")
    common.save_gif((out / "samples").glob("epoch-*.png"), out / "training.gif")
    save_bounds({"this run": log}, out / "figure1-bound.png")
    common.save_panels(code_panels(G, results["digit_of_category"], options.seed),
                       out / "figure2-codes.png", 3, columns=10)
    return common.save_results(out, options, results, state, device, seconds)


def main(argv: list[str] | None = None) -> None:
    """The program: status 0, 1 (data, disk or losses), 2 (options), 130 (Ctrl-C)."""
    options, out, resume = common.parse_args(Options, __doc__, argv)
    with common.exit_status(options, out):
        train(options, out, resume)


if __name__ == "__main__":
    main()
