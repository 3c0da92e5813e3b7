"""BiGAN: a GAN that also learns the way back, from images to codes.

Michal Stypulkowski, "Reproduction of Adversarial Feature Learning", 2019, of
Jeff Donahue, Philipp Kraehenbuehl and Trevor Darrell, "Adversarial Feature Learning", 2017,
arXiv 1605.09782.

The idea. A generator G makes images G(z) from random codes z. An encoder E makes codes E(x) from
real images x. The discriminator D sees an image together with a code, (x, E(x)) or (G(z), z), and
says which of the two it is. E and G both try to fool it. No loss compares x with G(E(x)), and E and
G never see each other's outputs. But they can fool D only if the two kinds of pairs have the same
distribution, and then E inverts G. The codes are features learned without labels: an image whose
code is near should show the same digit.

The objective (equation 1), whose value at the optimum is -log 4:

    min over E, G  max over D    E[log D(x, E(x))] + E[log(1 - D(G(z), z))]

In practice D minimizes L_D, and E and G minimize L_EG, which exchanges the targets of both kinds
of pairs (section 3.2):

    L_D  = -E[log D(x, E(x))] - E[log(1 - D(G(z), z))]
    L_EG = -E[log D(G(z), z)] - E[log(1 - D(x, E(x)))]

    section 4  1-NN accuracy, first look   python bigan.py --epochs 5    results.json, scores.csv
    figure 2   samples, reconstructions    python bigan.py --epochs 30   figure2-*.png
    figure 3   t-SNE of the codes E(x)     python bigan.py               figure3-tsne.png

Where this differs from the paper or the authors' notebooks (measured in docs/bigan.md):
- E and G step against D after its step. The notebooks backpropagate through the graph from before.
- Pictures and numbers are from an exponential moving average (EMA) of the weights (--average 0).
- The learning rate is the paper's; the notebooks have 2e-5 (--lr 2e-5). Donahue et al. let it
  decay in the second half (--decay-from 200), and normalize both hidden layers of G.
- The losses are means. The paper prints sums, for which Adam's weight decay would be weaker.
- D gives logits, since the logarithm of a sigmoid underflows.
- 1-NN accuracy is also measured on E's last hidden layer, as in Donahue et al.
- E always takes pixels from 0 to 1. The notebooks give it 0 to 255 for 1-NN and t-SNE.
- From the notebooks: LeakyReLU's slope 0.2, minibatches of 128, 400 epochs.
"""

import copy
import os
import time
from collections.abc import Callable, Iterable, Iterator
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

LATENT = 50  # numbers in z, uniform on [-1, 1]; section 3.3
HIDDEN = 1024  # neurons in each of the two hidden layers; section 3.1
SAMPLES = 10_000  # generated images that the evaluation counts
SCORE_EVERY = 5  # epochs from one row of scores.csv to the next; the last epoch has one, too
SCORES = ("1nn_accuracy_code", "1nn_accuracy_hidden", "reconstruction_error",
          "error_to_another_image")


@dataclass(frozen=True)
class Options:
    """Default, accepted values and meaning of each; raises ValueError where one is not accepted."""

    script = "bigan.py"
    epochs: int = option(400, (1, 10**6), "an epoch is one pass over the training images")
    batch_size: int = option(128, (2, 60_000), "images in a minibatch")
    lr: float = option(2e-4, (1e-9, 10), "learning rate")
    decay_from: int = option(0, (0, 10**6),
                             "the rate decays from epoch N on, to lr / 100 at 2 N; 0: never")
    weight_decay: float = option(1e-5, (0, 1), "weight of half the squared weights in both losses")
    average: float = option(0.999, (0, 1), "decay per step of the EMA of E and G; 0: no average")
    train_size: int = option(0, (0, 10**9), "use the first N training and test images; 0: all")
    seed: int = option(0, (0, 4000), "of weights, minibatches and noise")
    precision: str = option("full", ("full", "reduced"), "of training; reduced: where it is faster")
    device: str = option("auto", ("auto", "cpu", "cuda", "mps"), "auto is cuda, else cpu")
    dataset: str = option("MNIST", common.DATASETS, "images in DATA/DATASET/raw")
    data: str = option("data", (), "folder of the data set")

    def __post_init__(self):
        common.check_options(self)


# ---- networks -----------------------------------------------------------------------------------


def mlp(inputs: int, outputs: int, activation: nn.Module, running: bool = True) -> nn.Sequential:
    """What E, G and D have in common, (N, inputs) -> (N, outputs); section 3.1.

    Without `running` statistics, batch normalization always uses those of the minibatch.
    """
    network = nn.Sequential(
        nn.Linear(inputs, HIDDEN), activation,
        nn.Linear(HIDDEN, HIDDEN), nn.BatchNorm1d(HIDDEN, track_running_stats=running), activation,
        nn.Linear(HIDDEN, outputs))
    network.apply(initialize)
    return network


@torch.no_grad()
def initialize(layer: nn.Module) -> None:
    """Weights from N(0, 0.02^2), biases 0; section 3.3."""
    if isinstance(layer, nn.Linear):
        layer.weight.normal_(0, 0.02)
        layer.bias.zero_()


class Encoder(nn.Module):
    """E: images (N, 784) -> codes (N, 50), any real numbers."""

    def __init__(self):
        super().__init__()
        self.core = mlp(784, LATENT, nn.LeakyReLU(0.2))

    def forward(self, x: Tensor) -> Tensor:
        return self.core(x)


class Generator(nn.Module):
    """G: codes (N, 50) -> images (N, 784) in [0, 1]."""

    def __init__(self):
        super().__init__()
        self.core = mlp(LATENT, 784, nn.ReLU())

    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.core(z))


class Discriminator(nn.Module):
    """D: images (N, 784) and codes (N, 50) -> logits (N, 1); high for (x, E(x)).

    It has no running statistics, so that a step of E and G does not change it.
    """

    def __init__(self):
        super().__init__()
        self.core = mlp(784 + LATENT, 1, nn.LeakyReLU(0.2), running=False)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.core(torch.cat([x, z], 1))


# ---- objective ----------------------------------------------------------------------------------
# real_score (N, 1) are D's logits for (x, E(x)), fake_score (N, 1) those for (G(z), z).
# With D the sigmoid of a logit, -log D is softplus(-logit), and -log(1 - D) is softplus(logit).


def discriminator_loss(real_score: Tensor, fake_score: Tensor) -> Tensor:
    """L_D of section 3.2, a scalar."""
    return softplus(-real_score).mean() + softplus(fake_score).mean()


def encoder_generator_loss(real_score: Tensor, fake_score: Tensor) -> Tensor:
    """L_EG of section 3.2, a scalar."""
    return softplus(real_score).mean() + softplus(-fake_score).mean()


# ---- the algorithm ------------------------------------------------------------------------------


def sample_z(count: int, device: torch.device) -> Tensor:
    """Codes (count, 50), uniform on [-1, 1]."""
    return 2 * torch.rand(count, LATENT, device=device) - 1


def adam(parameters: Iterable[Tensor], lr: float, weight_decay: float) -> torch.optim.Adam:
    """The optimizer of section 3.3, with its betas."""
    return torch.optim.Adam(parameters, lr, (0.5, 0.999), weight_decay=weight_decay, fused=True)


def learning_rate(lr: float, decay_from: int, epoch: int) -> float:
    """That of an epoch, counted from 0: it decays exponentially to lr / 100 at 2 decay_from."""
    if 0 < decay_from < epoch:
        return lr * 0.01 ** ((epoch - decay_from) / decay_from)
    return lr


@torch.no_grad()
def update_ema(average: nn.Module, network: nn.Module, decay: float) -> None:
    """average = decay average + (1 - decay) network, for weights and running statistics."""
    for slow, fast in zip(average.state_dict().values(), network.state_dict().values()):
        if slow.is_floating_point():  # not the number of minibatches that batch norm counts
            slow.lerp_(fast, 1 - decay)


def train_epoch(E: nn.Module, G: nn.Module, D: nn.Module, average_E: nn.Module,
                average_G: nn.Module, opt_eg: torch.optim.Optimizer, opt_d: torch.optim.Optimizer,
                batches: Iterator[Tensor], steps: Iterable[int], decay: float) -> Iterator[Tensor]:
    """Train E, G and D for the steps with these numbers, and update the EMA of E and of G.

    `batches` gives x (N, 784). `decay` is that of the EMA after its warm-up.
    After each step this yields L_D and L_EG; (2,), on the device of x.
    """
    for step in steps:
        x = next(batches)
        z = sample_z(len(x), x.device)
        code, image = E(x), G(z)

        # one after the other: batch normalization must not mix real and fake
        d_loss = discriminator_loss(D(x, code.detach()), D(image.detach(), z))
        opt_d.zero_grad()
        d_loss.backward()
        opt_d.step()

        # D has changed: evaluate it again
        eg_loss = encoder_generator_loss(D(x, code), D(image, z))
        opt_eg.zero_grad()
        eg_loss.backward(inputs=[*E.parameters(), *G.parameters()])  # D accumulates no gradient
        opt_eg.step()

        ema_decay = min(decay, (1 + step) / (10 + step))  # warm-up: forget the first weights
        update_ema(average_E, E, ema_decay)
        update_ema(average_G, G, ema_decay)
        yield torch.stack([d_loss.detach(), eg_loss.detach()])


# ---- evaluation and figures ---------------------------------------------------------------------


@torch.no_grad()
def in_batches(network: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """The network's outputs for all rows of the inputs, in batches of 1,000."""
    batches = zip(*(rows.split(1000) for rows in inputs))
    return torch.cat([network(*batch) for batch in batches])


def fixed_z(count: int, device: torch.device, seed: int) -> Tensor:
    """Codes (count, 50), the same for a seed. The global random stream is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return sample_z(count, device)


@torch.no_grad()
def samples_and_reconstructions(E: nn.Module, G: nn.Module, test_x: Tensor, test_y: Tensor,
                                seed: int) -> Tensor:
    """Figure 2, (60, 784): rows of 20 samples G(z), images x, reconstructions G(E(x)).

    The images are the first two of each digit in the test set; where digits are missing, again.
    """
    z = fixed_z(20, test_x.device, seed)
    found = torch.cat([(test_y == digit).nonzero().flatten()[:2] for digit in range(10)])
    x = test_x[found.repeat(20)[:20]]
    return torch.cat([G(z), x, G(E(x))])


def score(E: nn.Module, G: nn.Module, train_x: Tensor, train_y: Tensor, test_x: Tensor,
          test_y: Tensor) -> list[float]:
    """The four numbers SCORES, for all test images; table 1 and the log of Donahue et al.

    1-NN accuracy on the codes E(x); the same on E's last hidden layer; mean Euclidean distance
    from G(E(x)) to x; the same to another image, the one before x in the test set.
    """
    train_hidden, hidden = (in_batches(E.core[:-1], x) for x in (train_x, test_x))
    train_code, code = (in_batches(E.core[-1], h) for h in (train_hidden, hidden))
    reconstruction = in_batches(G, code)
    return [common.label_accuracy(code, test_y, train_code, train_y),
            common.label_accuracy(hidden, test_y, train_hidden, train_y),
            (test_x - reconstruction).norm(dim=1).mean().item(),
            (test_x.roll(1, 0) - reconstruction).norm(dim=1).mean().item()]


def evaluate(E: nn.Module, G: nn.Module, train_x: Tensor, train_y: Tensor, test_x: Tensor,
             test_y: Tensor, seed: int) -> dict:
    """What the labels of the nearest training images tell about reconstructions and samples."""
    reconstruction = in_batches(G, in_batches(E, test_x))
    samples = in_batches(G, fixed_z(SAMPLES, test_x.device, seed))
    return {
        "reconstruction_label_accuracy": common.label_accuracy(reconstruction, test_y, train_x,
                                                               train_y),
        **common.label_statistics(samples, train_x, train_y, test_x, test_y)}


def tsne(codes: Tensor, seed: int) -> Tensor:
    """Codes (N, 50) as points (N, 2) of the plane, neighbors near neighbors; on the CPU."""
    from sklearn.manifold import TSNE

    print(f"t-SNE of {len(codes)} codes, about a minute for 10,000 ...", flush=True)
    perplexity = min(30, (len(codes) - 1) / 3)  # 30 is scikit-learn's choice
    points = TSNE(perplexity=perplexity, random_state=seed, n_jobs=torch.get_num_threads())
    return torch.from_numpy(points.fit_transform(codes.cpu().numpy()))


# ---- run ----------------------------------------------------------------------------------------


def train(options: Options, out: str | Path, resume: bool = False) -> dict:
    """Train in the new folder `out`, or continue the run that is there; return the results."""
    out, device = Path(out), common.pick_device(options.device)
    train_x, train_y, test_x, test_y = common.load_images(
        options.data, options.dataset, options.train_size, device)

    torch.manual_seed(options.seed)
    E, G, D = (network.to(device) for network in (Encoder(), Generator(), Discriminator()))
    opt_eg = adam([*E.parameters(), *G.parameters()], options.lr, options.weight_decay)
    opt_d = adam(D.parameters(), options.lr, options.weight_decay)
    average_E, average_G = copy.deepcopy(E).eval(), copy.deepcopy(G).eval()
    state = {"E": E, "G": G, "D": D, "opt_eg": opt_eg, "opt_d": opt_d,
             "average_E": average_E, "average_G": average_G}
    start_epoch, log, seconds, scores = common.begin(out, options, state, device, resume, scores=[])

    def draw(epoch: int) -> None:
        rows = samples_and_reconstructions(average_E, average_G, test_x, test_y, options.seed)
        common.save_grid(rows, out / "samples" / f"epoch-{epoch:03}.png", 20,
                         f"after {epoch} epochs: G(z), x, G(E(x))")

    def score_row(epoch: int) -> list[float]:
        return [epoch, *score(average_E, average_G, train_x, train_y, test_x, test_y)]

    draw(start_epoch)
    scores = scores or [score_row(0)]
    n = len(train_x) // options.batch_size  # steps in an epoch
    bar = tqdm(total=options.epochs * n, initial=start_epoch * n, desc=out.name, unit=" steps")
    for epoch in range(start_epoch, options.epochs):
        start, steps = time.perf_counter(), range(epoch * n, (epoch + 1) * n)
        torch.manual_seed(1_000_000 * (options.seed + 1) + epoch)  # all that an epoch needs
        for group in (*opt_eg.param_groups, *opt_d.param_groups):
            group["lr"] = learning_rate(options.lr, options.decay_from, epoch)
        batches = common.minibatches(train_x, options.batch_size)
        losses = train_epoch(E, G, D, average_E, average_G, opt_eg, opt_d, batches, steps,
                             options.average)
        with common.training_precision(options.precision, E, G, D):
            for row in common.mean_losses(losses, steps, epoch + 1, bar):
                log.append(row)
                bar.set_postfix_str("epoch {}/{}, D {:.3f}, E and G {:.3f}".format(
                    epoch + 1, options.epochs, *row[1:]))
        seconds += time.perf_counter() - start
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
    save_figures(log, scores, average_E, average_G, test_x, test_y, options.seed, out)
    results = dict(zip(SCORES, scores[-1][1:])) | evaluate(
        average_E, average_G, train_x, train_y, test_x, test_y, options.seed)
    return common.save_results(out, options, results, {"E": E, "G": G, "D": D}, device, seconds)


def save_figures(log: list, scores: list, E: nn.Module, G: nn.Module, test_x: Tensor,
                 test_y: Tensor, seed: int, out: Path) -> None:
    """Curves of the losses and of scores.csv, training.gif and the paper's figures."""
    steps, d_loss, eg_loss = zip(*log)
    common.save_curves({"losses": {"D": (steps, d_loss), "E and G": (steps, eg_loss)}},
                       out / "losses.png", "step")
    epochs, code, hidden, error, other = zip(*scores)
    common.save_curves({
        "1-NN accuracy": {"E(x)": (epochs, code), "last hidden layer": (epochs, hidden)},
        "distance from the reconstruction": {"to x": (epochs, error),
                                             "to another image": (epochs, other)}},
        out / "scores.png", "epoch")
    common.save_gif((out / "samples").glob("epoch-*.png"), out / "training.gif")
    rows = samples_and_reconstructions(E, G, test_x, test_y, seed)
    common.save_grid(rows, out / "figure2-reconstructions.png", 20, "G(z), x, G(E(x))")
    points = tsne(in_batches(E, test_x), seed)
    common.save_scatter({"": points}, test_y.cpu(), out / "figure3-tsne.png")


def main(argv: list[str] | None = None) -> None:
    """The program: status 0, 1 (data, disk or losses), 2 (options), 130 (Ctrl-C)."""
    options, out, resume = common.parse_args(Options, __doc__, argv)
    with common.exit_status(options, out):
        train(options, out, resume)


if __name__ == "__main__":
    main()
