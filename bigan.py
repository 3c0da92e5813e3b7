"""BiGAN: a GAN that also learns the way back, from images to codes.

Michal Stypulkowski, "Reproduction of Adversarial Feature Learning", 2019, of
Jeff Donahue, Philipp Kraehenbuehl and Trevor Darrell, "Adversarial Feature Learning", 2017,
arXiv 1605.09782.

The idea. A generator G makes images G(z) from codes z. An encoder E makes codes E(x) from images.
The discriminator D sees an image together with a code, either (x, E(x)) with a real image x or
(G(z), z) with a random code z, and says which of the two it is. E and G both try to mislead it. No
loss compares x with G(E(x)), and E and G never see each other's outputs; still, D can only be
misled where the two kinds of pairs are distributed alike, and then E inverts G. The codes are
features that no label went into, and a digit's nearest neighbors among them should be digits of
its class.

The objective (equation 1):

    min over E, G  max over D    E[log D(x, E(x))] + E[log(1 - D(G(z), z))]

Its value at the optimum is -log 4. In practice D minimizes the negative of it, and E and G minimize
the same with the two answers exchanged, on both kinds of pairs (section 3.2):

    L_D  = -E[log D(x, E(x))] - E[log(1 - D(G(z), z))]
    L_EG = -E[log D(G(z), z)] - E[log(1 - D(x, E(x)))]

    paper                                           command            file
    figure 2   samples, images, reconstructions     python bigan.py    figure2-reconstructions.png
    figure 3   the codes of the test images         python bigan.py    figure3-tsne.png
    section 4  nearest neighbors among the codes    python bigan.py    results.json, scores.csv

Where this differs from the paper or the authors' code, and why
- E and G move against D as it is after its step: D is asked again. The published notebooks go back
  through the answers from before it, which PyTorch by now refuses; and with both gradients taken
  before either step, D won at once, and E never came to invert G.
- Pictures and numbers are made with averages of E's and G's weights over the last steps, which
  reconstruct images far better than the weights of the last step do (`--average 0`, as in the
  paper), though after 30 epochs those had the better nearest neighbors (README.md).
- The learning rate is the paper's, 2e-4; its notebooks use 2e-5 (`--lr 2e-5`). Donahue et al. let
  it fall in the second half (`--decay-from 200`): averages then reconstruct worse (README.md).
- Weight decay is 5e-5, chosen with one seed; three show no gain over the paper's 1e-5 (README.md;
  `--weight-decay 1e-5`). Donahue et al. have 2.5e-5; they normalize both hidden layers of G, too.
- The losses are means over a minibatch; the paper prints sums, beside which weight decay is less.
- D works on logits: the log of a sigmoid underflows.
- Nearest neighbors are also looked for in the encoder's last hidden layer, as in Donahue et al.

Things to try: `--lr 2e-5`; `--average 0`, and watch scores.png; both gradients, by
torch.autograd.grad, before either step; real and fake pairs through D as one minibatch, batch
normalization and all.
"""

import argparse
import copy
import csv
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from tqdm import tqdm

from common import minibatches, mnist, nearest, save_curves, save_gif, save_grid, save_scatter

LATENT = 50  # numbers in z, uniform on [-1, 1]; section 3.3
SAMPLES = 10_000  # generated images that the evaluation counts
EVERY = 5  # epochs from one line of scores.csv to the next


# ---- networks -----------------------------------------------------------------------------------


def perceptron(inputs: int, outputs: int, activation: nn.Module,
               statistics: bool = True) -> nn.Sequential:
    """The network that E, G and D have in common, (N, inputs) -> (N, outputs); section 3.1.

    Without running `statistics` it normalizes by the minibatch at hand alone.
    """
    network = nn.Sequential(
        nn.Linear(inputs, 1024), activation,
        nn.Linear(1024, 1024), nn.BatchNorm1d(1024, track_running_stats=statistics), activation,
        nn.Linear(1024, outputs))
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
        self.core = perceptron(784, LATENT, nn.LeakyReLU(0.2))

    def forward(self, x: Tensor) -> Tensor:
        return self.core(x)


class Generator(nn.Module):
    """G: codes (N, 50) -> images (N, 784) in [0, 1]."""

    def __init__(self):
        super().__init__()
        self.core = perceptron(LATENT, 784, nn.ReLU())

    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.core(z))


class Discriminator(nn.Module):
    """D: images (N, 784) with codes (N, 50) -> logits (N, 1) of the pair being (x, E(x)).

    It keeps no batch statistics: a step of E and G leaves no trace in D.
    """

    def __init__(self):
        super().__init__()
        self.core = perceptron(784 + LATENT, 1, nn.LeakyReLU(0.2), statistics=False)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.core(torch.cat([x, z], 1))


# ---- objective ----------------------------------------------------------------------------------


def losses(on_real: Tensor, on_fake: Tensor) -> tuple[Tensor, Tensor]:
    """L_D and L_EG of section 3.2, two scalars, from D's logits.

    Those are on (x, E(x)) and on (G(z), z), (N, 1) each. With D the sigmoid of
    a logit, -log D is softplus(-logit) and -log(1 - D) is softplus(logit).
    """
    d_loss = softplus(-on_real).mean() + softplus(on_fake).mean()
    eg_loss = softplus(on_real).mean() + softplus(-on_fake).mean()
    return d_loss, eg_loss


# ---- training -----------------------------------------------------------------------------------


def build(args: argparse.Namespace, device: torch.device) -> dict:
    """Networks, their averages and optimizers, new, by the names they have in checkpoint.pt."""
    torch.manual_seed(args.seed)
    E, G, D = Encoder().to(device), Generator().to(device), Discriminator().to(device)
    opt_eg, opt_d = (torch.optim.Adam(parameters, args.lr, (0.5, 0.999), fused=True,
                                      weight_decay=args.weight_decay)
                     for parameters in ([*E.parameters(), *G.parameters()], D.parameters()))
    return {"E": E, "G": G, "D": D, "opt_eg": opt_eg, "opt_d": opt_d,
            "average_E": copy.deepcopy(E).eval(), "average_G": copy.deepcopy(G).eval()}


def learning_rate(args: argparse.Namespace, epoch: int) -> float:
    """That of an epoch, counted from 0: from epoch s on it falls, to a hundredth at epoch 2 s."""
    s = args.decay_from
    return args.lr * 0.01 ** ((epoch - s) / s) if 0 < s < epoch else args.lr


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the exponential average of a network's weights (and batch statistics) one step on."""
    for slow, fast in zip(average.state_dict().values(), network.state_dict().values()):
        if slow.is_floating_point():  # not the count of batches
            slow.lerp_(fast, 1 - decay)


def train(args: argparse.Namespace) -> None:
    """The whole algorithm, from the data to the figures in args.out."""
    device = pick_device(args.device)
    train_x, train_y, test_x, test_y = mnist(args.data, device)
    train_x, train_y = train_x[: args.train_size], train_y[: args.train_size]
    data = train_x, train_y, test_x, test_y

    parts, log, scores, first, seconds = build(args, device), [], [], 0, 0.0
    E, G, D, opt_eg, opt_d, average_E, average_G = parts.values()

    def save(epoch: int) -> None:
        save_grid(picture(args, average_E, average_G, data), columns=20,
                  path=args.out / "samples" / f"epoch-{epoch:03}.png")
        if epoch % EVERY == 0:
            scores.append([epoch, *score(average_E, average_G, data)])
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"epoch": epoch, "log": log, "scores": scores, "seconds": seconds}
        torch.save(state, args.out / "checkpoint.tmp")
        os.replace(args.out / "checkpoint.tmp", args.out / "checkpoint.pt")

    (args.out / "samples").mkdir(parents=True, exist_ok=bool(args.resume))
    options = {"script": "bigan.py"} | {name: getattr(args, name) for name in STORED}
    (args.out / "options.json").write_text(json.dumps(options, indent=2) + "\n")
    if args.resume:
        saved = torch.load(args.out / "checkpoint.pt", map_location=device, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        first, log = saved["epoch"], saved["log"]
        scores, seconds = saved["scores"], saved["seconds"]
    else:
        save(0)

    steps = len(train_x) // args.batch_size  # in an epoch
    print(f"{args.out}: on {device} ({torch.get_num_threads()} CPU threads), {first} of "
          f"{args.epochs} epochs done, {steps} steps each")
    bar = tqdm(total=args.epochs * steps, initial=first * steps, unit=" steps", smoothing=0.05)
    for epoch in range(first, args.epochs):
        start = time.perf_counter()
        torch.manual_seed(1_000_000 * (args.seed + 1) + epoch)  # an epoch depends on these alone
        for optimizer in (opt_eg, opt_d):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(args, epoch)
        batches = minibatches(train_x, args.batch_size)
        gathered = []  # losses stay on the device until they are read, some fifty steps at a time
        for step in range(epoch * steps, (epoch + 1) * steps):
            x = next(batches)
            z = 2 * torch.rand(args.batch_size, LATENT, device=device) - 1
            code, image = E(x), G(z)

            # One after the other: batch normalization must not mix the two kinds of pairs.
            d_loss, _ = losses(D(x, code.detach()), D(image.detach(), z))
            opt_d.zero_grad()
            d_loss.backward()
            opt_d.step()

            _, eg_loss = losses(D(x, code), D(image, z))  # D has changed: ask it again
            opt_eg.zero_grad()
            eg_loss.backward(inputs=[*E.parameters(), *G.parameters()])  # none for D
            opt_eg.step()
            decay = min(args.average, (1 + step) / (10 + step))  # soon rid of the first weights
            follow(average_E, E, decay)
            follow(average_G, G, decay)

            gathered.append(torch.stack([d_loss.detach(), eg_loss.detach()]))
            bar.update()
            if len(gathered) == 50 or step + 1 == (epoch + 1) * steps:
                means = torch.stack(gathered).mean(0).tolist()
                if not all(map(math.isfinite, means)):
                    bar.close()
                    raise FloatingPointError(
                        f"a loss is not finite in steps {step + 2 - len(gathered)} to {step + 1} "
                        f"(epoch {epoch + 1}); {args.out} holds epoch {epoch}")
                log.append([step + 1, *means])
                bar.set_postfix_str(f"epoch {epoch + 1}/{args.epochs}, D {means[0]:.3f}, "
                                    f"E and G {means[1]:.3f}")
                gathered = []
        seconds += time.perf_counter() - start
        save(epoch + 1)
    bar.close()
    evaluate(args, average_E, average_G, log, scores, seconds, data)


@torch.no_grad()
def picture(args: argparse.Namespace, E: nn.Module, G: nn.Module, data: tuple) -> Tensor:
    """Figure 2, (60, 784): in rows of 20 samples G(z), images x, reconstructions G(E(x)).

    The images are the first two of each digit in the test set. The noise depends on args.seed
    alone: the same samples grow from picture to picture. An epoch seeds its own numbers, so that
    drawing some between epochs does not disturb the training.
    """
    _, _, test_x, test_y = data
    torch.manual_seed(args.seed)
    z = 2 * torch.rand(20, LATENT, device=test_x.device) - 1
    x = torch.cat([test_x[test_y == digit][:2] for digit in range(10)])
    return torch.cat([G(z), x, G(E(x))])


# ---- evaluation and figures ---------------------------------------------------------------------


def apply(network: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """The network's outputs for all rows of the inputs, in pieces that fit into memory."""
    return torch.cat([network(*piece) for piece in zip(*(x.split(1000) for x in inputs))])


@torch.no_grad()
def score(E: nn.Module, G: nn.Module, data: tuple) -> list[float]:
    """What table 1 of Donahue et al. and their log report, on all test images; four numbers.

    Accuracy of the label of the training image with the nearest code E(x); the same with the
    encoder's last hidden layer instead of E(x); mean Euclidean distance |x - G(E(x))|; the same
    from G(E(x)) to another image, the one before it in the test set.
    """
    train_x, train_y, test_x, test_y = data
    result = []
    for features in (E, E.core[:-1]):
        index, _ = nearest(apply(features, test_x), apply(features, train_x))
        result.append((train_y[index] == test_y).float().mean().item())
    again = apply(G, apply(E, test_x))
    for x in (test_x, test_x.roll(1, 0)):
        result.append((x - again).norm(dim=1).mean().item())
    return result


def kl_divergence(p: Tensor, q: Tensor) -> float:
    """KL(p || q) in nats of two discrete distributions of the same shape; 0 log 0 is 0."""
    p, q = p[p > 0], q[p > 0]
    return (p * (p / q).log()).sum().item()


def tsne(codes: Tensor, seed: int) -> Tensor:
    """Codes (N, 50) laid out in the plane, (N, 2), neighbors beside neighbors; about a minute."""
    from sklearn.manifold import TSNE

    print(f"t-SNE of {len(codes)} codes, about a minute for 10,000 ...", flush=True)
    perplexity = min(30, (len(codes) - 1) / 3)  # 30 is scikit-learn's choice
    layout = TSNE(perplexity=perplexity, random_state=seed, n_jobs=-1).fit_transform(codes.cpu())
    return torch.from_numpy(layout)


@torch.no_grad()
def evaluate(args: argparse.Namespace, E: nn.Module, G: nn.Module, log: list, scores: list,
             seconds: float, data: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    """Write the run's metrics, figures and results.json, and print the results."""
    train_x, train_y, test_x, test_y = data
    names = ("1nn_accuracy_code", "1nn_accuracy_hidden", "reconstruction_error",
             "error_to_another_image")
    for file_name, header, rows in (("metrics.csv", ("step", "d_loss", "eg_loss"), log),
                                    ("scores.csv", ("epoch", *names), scores)):
        with open(args.out / file_name, "w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
    steps, d_loss, eg_loss = zip(*log)
    save_curves({"losses": {"D": (steps, d_loss), "E and G": (steps, eg_loss)}},
                args.out / "losses.png", "step")
    epochs, code, hidden, error, other = zip(*scores)
    save_curves({"1-NN accuracy": {"E(x)": (epochs, code), "last hidden layer": (epochs, hidden)},
                 "distance from G(E(x))": {"to x": (epochs, error),
                                           "to another image": (epochs, other)}},
                args.out / "scores.png", "epoch")
    save_gif(sorted((args.out / "samples").glob("epoch-*.png")), args.out / "training.gif")
    save_grid(picture(args, E, G, data), args.out / "figure2-reconstructions.png", columns=20)
    codes = apply(E, test_x)
    save_scatter({"": tsne(codes, args.seed)}, test_y, args.out / "figure3-tsne.png")

    torch.manual_seed(args.seed)
    samples = apply(G, 2 * torch.rand(SAMPLES, LATENT, device=train_x.device) - 1)
    index, distance = nearest(samples, train_x)
    again_index, _ = nearest(apply(G, codes), train_x)
    real_index, real_distance = nearest(test_x, train_x)
    shares = torch.bincount(train_y[index], minlength=10) / SAMPLES
    results = {
        "parameters_E": sum(w.numel() for w in E.parameters()),
        "parameters_G": sum(w.numel() for w in G.parameters()),
        "parameters_D": sum(w.numel() for w in Discriminator().parameters()),
        **dict(zip(names, score(E, G, data))),
        "class_kept": (train_y[again_index] == test_y).float().mean().item(),
        "digit_shares": shares.tolist(),
        "digits": (shares >= 0.02).sum().item(),
        "kl": kl_divergence(shares, torch.bincount(train_y, minlength=10) / len(train_y)),
        "median_distance": distance.median().item(),
        "median_distance_of_test_images": real_distance.median().item(),
        "label_accuracy_on_test_images": (train_y[real_index] == test_y).float().mean().item(),
    }
    results |= {"epochs": args.epochs, "seed": args.seed, "device": str(train_x.device),
                "threads": torch.get_num_threads(), "torch": torch.__version__,
                "training_seconds": round(seconds, 1)}
    (args.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    for name, value in results.items():
        value = " ".join(f"{v:.3f}" for v in value) if isinstance(value, list) else value
        print(f"{name:32}{value:.4g}" if isinstance(value, float) else f"{name:32}{value}")
    print(f"Pictures and numbers: {args.out}")


# ---- command line -------------------------------------------------------------------------------

KEPT = ("lr", "decay_from", "weight_decay", "average", "batch_size", "train_size", "seed")
STORED = (*KEPT, "epochs", "device", "data")  # on --resume only these last three may differ


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
    if name == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32
    return torch.device(name)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of a run. A bad one ends the program with status 2 and a line that says why."""
    class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
        pass

    parser = argparse.ArgumentParser(
        prog="bigan.py", formatter_class=Formatter, allow_abbrev=False,
        description="BiGAN (Stypulkowski 2019, of Donahue et al. 2017): a GAN with an encoder.",
        epilog="""examples:
  python bigan.py --epochs 5                     a first look
  python bigan.py                                paper length: a GPU, or hours
  python bigan.py --lr 2e-5                      the learning rate of the published notebooks
  python bigan.py --resume runs/bigan/NAME       continue an interrupted run""")
    parser.set_defaults(out=None, resume=None)  # here, --help need not show them
    training = parser.add_argument_group("training")
    training.add_argument("--epochs", type=number(int, 1, 10**6), default=400, metavar="N",
                          help="an epoch is one pass over the training images")
    training.add_argument("--batch-size", type=number(int, 2, 60_000), default=128, metavar="N",
                          help="images in a minibatch")
    training.add_argument("--lr", type=number(float, 1e-9, 10), default=2e-4, metavar="X",
                          help="learning rate")
    training.add_argument("--decay-from", type=number(int, 0, 10**6), default=0, metavar="N",
                          help="from epoch N on the learning rate falls, to a hundredth at 2 N; "
                               "0: never")
    training.add_argument("--weight-decay", type=number(float, 0, 1), default=5e-5, metavar="X",
                          help="weight of half the squared weights in both losses")
    training.add_argument("--average", type=number(float, 0, 1), default=0.999, metavar="X",
                          help="decay, per step, of the average of E's and G's weights that makes "
                               "pictures and numbers; 0: the weights as they are")
    training.add_argument("--train-size", type=number(int, 2, 60_000), default=60_000, metavar="N",
                          help="train on the first N training images")
    training.add_argument("--seed", type=number(int, 0, 10**9), default=0, metavar="N",
                          help="of weights, minibatches and noise")
    run = parser.add_argument_group("run")
    run.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto",
                     help="auto is cuda, else cpu; mps is untested")
    run.add_argument("--data", default="data", metavar="DIR", help="folder of the data set")
    run.add_argument("--out", type=Path, default=argparse.SUPPRESS, metavar="DIR",
                     help="folder to make (default: runs/bigan/DATE-TIME-seedN)")
    run.add_argument("--resume", type=Path, default=argparse.SUPPRESS, metavar="DIR",
                     help="continue the run in DIR; only --epochs, --device and --data may differ")
    args = parser.parse_args(argv)

    if args.resume:
        if args.out:
            parser.error("argument --resume: not allowed with --out")
        try:
            stored = json.loads((args.resume / "options.json").read_text())
            epochs = torch.load(args.resume / "checkpoint.pt", "cpu", weights_only=True)["epoch"]
        except Exception:  # what a damaged file raises depends on the damage
            stored = {}
        if stored.pop("script", None) != "bigan.py" or stored.keys() != {*STORED}:
            parser.error(f"argument --resume: {args.resume} holds no whole run of bigan.py")
        args = parser.parse_args(argv, argparse.Namespace(**stored))  # stored values as defaults
        for name in KEPT:
            if getattr(args, name) != stored[name]:
                parser.error(f"argument --{name.replace('_', '-')}: the run in {args.resume} has "
                             f"{stored[name]}, which --resume keeps")
        if args.epochs < epochs:
            parser.error(f"argument --epochs: the run in {args.resume} has {epochs} already")
        args.out = args.resume
    else:
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-seed{args.seed}"
        args.out = args.out or Path("runs/bigan") / name
        if args.out.exists():
            parser.error(f"argument --out: {args.out} exists; name a new folder, "
                         f"or continue the run in it with --resume {args.out}")
    if args.batch_size > args.train_size:
        parser.error(f"argument --batch-size: {args.batch_size} is more than "
                     f"--train-size {args.train_size}")
    if (args.device == "cuda" and not torch.cuda.is_available()
            or args.device == "mps" and not torch.backends.mps.is_available()):
        parser.error(f"argument --device: there is no {args.device} here; accepted: auto, cpu")
    return args


def main(argv: list[str] | None = None) -> None:
    """The program: status 0, 1 (data or losses are not as they should be), 2 (options), 130."""
    args = parse_args(argv)
    try:
        train(args)
    except KeyboardInterrupt:
        kept = (args.out / "checkpoint.pt").exists()
        print("\nInterrupted." + kept * (" Whole epochs are kept. To continue: "
                                         f"python bigan.py --resume {args.out}"), file=sys.stderr)
        sys.exit(130)
    except (OSError, FloatingPointError) as error:
        sys.exit(f"bigan.py: error: {error}")


if __name__ == "__main__":
    main()
