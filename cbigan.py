"""CBiGAN: a BiGAN whose generator and discriminator are told the digit.

Michal Stypulkowski, "Reproduction of Adversarial Feature Learning", 2019, section 5, after
Jeff Donahue, Philipp Kraehenbuehl and Trevor Darrell, "Adversarial Feature Learning", 2017,
arXiv 1605.09782.

The idea. Read bigan.py first: `diff bigan.py cbigan.py` is this file's lesson. The label c of an
image, one-hot, now goes into G beside the code, and into D beside image and code: D compares
(x, E(x), c) with (G(z, c), z, c). So one can ask G for a digit, and the code need not say which
digit it is: it may tell how the digit is written. E sees the image alone.

    simple      c is concatenated to what G and D take already
    extended    one more layer for each of x, z and c, before they are concatenated

The objective is that of bigan.py, equation 1 and section 3.2, with triples for pairs:

    L_D  = -E[log D(x, E(x), c)] - E[log(1 - D(G(z, c), z, c))]
    L_EG = -E[log D(G(z, c), z, c)] - E[log(1 - D(x, E(x), c))]

    paper                                     command                    file
    figure 4   samples, reconstructions       python cbigan.py           figure4-reconstructions.png
    figure 5   the codes of the test images   python cbigan.py           figure5-tsne.png
    section 5  nearest neighbors              python cbigan.py           results.json, scores.csv
               digits down, z across          python cbigan.py           classes.png
    both figures, with both variants          python cbigan.py --paper   the same names

Where this differs from the paper or the authors' code, and why
- As in bigan.py: D is asked again after its step, weights are averaged, and decayed by 5e-5; the
  paper has 1e-5 (`--weight-decay 1e-5`).
- From epoch 200 of 400 on the learning rate falls, as in Donahue et al., for the neighbors gain
  from it here (README.md); the paper's is constant (`--decay-from 0`).
- The extended variant's first layers have initial weights from N(0, 1 / inputs): better codes and
  shorter distances (README.md); the paper's are from N(0, 0.02^2), like all others
  (`--dense-init paper`).
- The paper trains the extended variant for 500 epochs (`--epochs 500 --decay-from 250`).
- The number of outputs of the extended variant's layers is that of the published notebooks.

Things to try: `--variant extended`, and compare nearest neighbors and pictures; give G the wrong
label of an image to reconstruct, and see what the code knows besides the digit.
"""

import argparse
import copy
import csv
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, softplus
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
def initialize(layer: nn.Module, std: float = 0.02) -> None:
    """Weights from N(0, std^2), biases 0; the paper has 0.02 throughout, section 3.3."""
    if isinstance(layer, nn.Linear):
        layer.weight.normal_(0, std)
        layer.bias.zero_()


class Encoder(nn.Module):
    """E: images (N, 784) -> codes (N, 50), any real numbers."""

    def __init__(self):
        super().__init__()
        self.core = perceptron(784, LATENT, nn.LeakyReLU(0.2))

    def forward(self, x: Tensor) -> Tensor:
        return self.core(x)


def dense(inputs: int, outputs: int, activation: nn.Module, init: str) -> nn.Sequential:
    """One more layer for each input of G and D, before they are concatenated; section 5.

    Its initial weights have a standard deviation of 1 / sqrt(inputs), which keeps the size of the
    values (`init` "fan-in"), or of 0.02, which makes them the smaller the fewer inputs there are
    ("paper").
    """
    layer = nn.Linear(inputs, outputs)
    initialize(layer, 0.02 if init == "paper" else inputs ** -0.5)
    return nn.Sequential(layer, activation)


class Generator(nn.Module):
    """G: codes (N, 50), labels (N, 10), one-hot -> images (N, 784) in [0, 1]."""

    def __init__(self, variant: str, init: str = "fan-in"):
        super().__init__()
        if variant == "simple":
            self.z, self.c, inputs = nn.Identity(), nn.Identity(), LATENT + 10
        else:
            self.z, self.c = (dense(inputs, outputs, nn.ReLU(), init)
                              for inputs, outputs in ((LATENT, 200), (10, 800)))
            inputs = 200 + 800
        self.core = perceptron(inputs, 784, nn.ReLU())

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        return torch.sigmoid(self.core(torch.cat([self.z(z), self.c(c)], 1)))


class Discriminator(nn.Module):
    """D: images (N, 784), codes (N, 50), labels (N, 10) -> logits (N, 1) of being (x, E(x), c).

    It keeps no batch statistics: a step of E and G leaves no trace in D.
    """

    def __init__(self, variant: str, init: str = "fan-in"):
        super().__init__()
        if variant == "simple":
            self.x, self.z, self.c = nn.Identity(), nn.Identity(), nn.Identity()
            inputs = 784 + LATENT + 10
        else:
            self.x, self.z, self.c = (dense(inputs, outputs, nn.LeakyReLU(0.2), init)
                                      for inputs, outputs
                                      in ((784, 1000), (LATENT, 200), (10, 800)))
            inputs = 1000 + 200 + 800
        self.core = perceptron(inputs, 1, nn.LeakyReLU(0.2), statistics=False)

    def forward(self, x: Tensor, z: Tensor, c: Tensor) -> Tensor:
        return self.core(torch.cat([self.x(x), self.z(z), self.c(c)], 1))


# ---- objective ----------------------------------------------------------------------------------


def losses(on_real: Tensor, on_fake: Tensor) -> tuple[Tensor, Tensor]:
    """L_D and L_EG of section 3.2, two scalars, from D's logits.

    Those are on (x, E(x), c) and on (G(z, c), z, c), (N, 1) each. With D the sigmoid of
    a logit, -log D is softplus(-logit) and -log(1 - D) is softplus(logit).
    """
    d_loss = softplus(-on_real).mean() + softplus(on_fake).mean()
    eg_loss = softplus(on_real).mean() + softplus(-on_fake).mean()
    return d_loss, eg_loss


# ---- training -----------------------------------------------------------------------------------


def build(args: argparse.Namespace, device: torch.device) -> dict:
    """Networks, their averages and optimizers, new, by the names they have in checkpoint.pt."""
    torch.manual_seed(args.seed)
    E = Encoder().to(device)
    G, D = (network(args.variant, args.dense_init).to(device)
            for network in (Generator, Discriminator))
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
    options = {"script": "cbigan.py"} | {name: getattr(args, name) for name in STORED}
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
        batches = minibatches(torch.arange(len(train_x), device=device), args.batch_size)
        gathered = []  # losses stay on the device until they are read, some fifty steps at a time
        for step in range(epoch * steps, (epoch + 1) * steps):
            indices = next(batches)
            x, c = train_x[indices], one_hot(train_y[indices], 10).float()
            z = 2 * torch.rand(args.batch_size, LATENT, device=device) - 1
            code, image = E(x), G(z, c)

            # One after the other: batch normalization must not mix the two kinds of triples.
            d_loss, _ = losses(D(x, code.detach(), c), D(image.detach(), z, c))
            opt_d.zero_grad()
            d_loss.backward()
            opt_d.step()

            _, eg_loss = losses(D(x, code, c), D(image, z, c))  # D has changed: ask it again
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
    """Figure 4, (60, 784): in rows of 20 samples G(z, c), images x, reconstructions G(E(x), c).

    The images are the first two of each digit in the test set, c their labels. The noise depends
    on args.seed alone: the same samples grow from picture to picture. An epoch seeds its own
    numbers, so that drawing some between epochs does not disturb the training.
    """
    _, _, test_x, test_y = data
    torch.manual_seed(args.seed)
    z = 2 * torch.rand(20, LATENT, device=test_x.device) - 1
    x = torch.cat([test_x[test_y == digit][:2] for digit in range(10)])
    c = torch.eye(10, device=x.device).repeat_interleave(2, 0)
    return torch.cat([G(z, c), x, G(E(x), c)])


# ---- evaluation and figures ---------------------------------------------------------------------


def apply(network: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """The network's outputs for all rows of the inputs, in pieces that fit into memory."""
    return torch.cat([network(*piece) for piece in zip(*(x.split(1000) for x in inputs))])


@torch.no_grad()
def score(E: nn.Module, G: nn.Module, data: tuple) -> list[float]:
    """What table 1 of Donahue et al. and their log report, on all test images; four numbers.

    Accuracy of the label of the training image with the nearest code E(x); the same with the
    encoder's last hidden layer instead of E(x); mean Euclidean distance |x - G(E(x), c)|; the
    same from G(E(x), c) to another image, the one before it in the test set.
    """
    train_x, train_y, test_x, test_y = data
    result = []
    for features in (E, E.core[:-1]):
        index, _ = nearest(apply(features, test_x), apply(features, train_x))
        result.append((train_y[index] == test_y).float().mean().item())
    again = apply(G, apply(E, test_x), one_hot(test_y, 10).float())
    for x in (test_x, test_x.roll(1, 0)):
        result.append((x - again).norm(dim=1).mean().item())
    return result


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
                 "distance from G(E(x), c)": {"to x": (epochs, error),
                                              "to another image": (epochs, other)}},
                args.out / "scores.png", "epoch")
    save_gif(sorted((args.out / "samples").glob("epoch-*.png")), args.out / "training.gif")
    save_grid(picture(args, E, G, data), args.out / "figure4-reconstructions.png", columns=20)
    codes = apply(E, test_x)
    save_scatter({"": tsne(codes, args.seed)}, test_y, args.out / "figure5-tsne.png")

    torch.manual_seed(args.seed)
    z = 2 * torch.rand(SAMPLES, LATENT, device=train_x.device) - 1
    asked = torch.arange(SAMPLES, device=z.device) % 10
    samples = apply(G, z, one_hot(asked, 10).float())
    rows = torch.eye(10, device=z.device).repeat_interleave(10, 0)  # digits down, z across
    save_grid(G(z[:10].repeat(10, 1), rows), args.out / "classes.png", columns=10)
    index, distance = nearest(samples, train_x)
    again_index, _ = nearest(apply(G, codes, one_hot(test_y, 10).float()), train_x)
    real_index, real_distance = nearest(test_x, train_x)
    results = {
        "parameters_E": sum(w.numel() for w in E.parameters()),
        "parameters_G": sum(w.numel() for w in G.parameters()),
        "parameters_D": sum(w.numel() for w in Discriminator(args.variant).parameters()),
        **dict(zip(names, score(E, G, data))),
        # G is told the label of x: this says that G obeys, and nothing of what the code knows
        "class_kept": (train_y[again_index] == test_y).float().mean().item(),
        "class_as_asked": (train_y[index] == asked).float().mean().item(),
        "median_distance": distance.median().item(),
        "median_distance_of_test_images": real_distance.median().item(),
        "label_accuracy_on_test_images": (train_y[real_index] == test_y).float().mean().item(),
    }
    results |= {"epochs": args.epochs, "seed": args.seed, "device": str(train_x.device),
                "threads": torch.get_num_threads(), "torch": torch.__version__,
                "training_seconds": round(seconds, 1)}
    (args.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    for name, value in results.items():
        print(f"{name:32}{value:.4g}" if isinstance(value, float) else f"{name:32}{value}")
    print(f"Pictures and numbers: {args.out}")


# ---- both variants ------------------------------------------------------------------------------


def configuration(args: argparse.Namespace) -> str:
    """The name of a run: what makes it different from the others of the paper."""
    return f"{args.variant}-seed{args.seed}"


def paper(args: argparse.Namespace) -> None:
    """Both variants, in args.out, then figures 4 and 5 and the results of both in results.csv.

    A training that is already there is continued, or left alone when complete.
    """
    shared = ["--device", args.device, "--data", args.data]
    for name in KEPT[1:]:
        shared += ["--" + name.replace("_", "-"), str(getattr(args, name))]
    data = mnist(args.data, torch.device("cpu"))
    pictures, layouts, rows = [], {}, []
    for variant in ("simple", "extended"):
        argv = ["--variant", variant, *shared]
        run = args.out / configuration(parse_args(argv))
        argv += ["--resume" if (run / "checkpoint.pt").exists() else "--out", str(run)]
        results = run / "results.json"
        if not results.exists() or json.loads(results.read_text())["epochs"] < args.epochs:
            print(f"\nTraining of {run.name}")
            train(parse_args([*argv, "--epochs", str(args.epochs)]))
        rows.append({"run": run.name} | json.loads(results.read_text()))

        options = parse_args(["--variant", variant, *shared, "--resume", str(run)])
        saved = torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=True)
        parts = build(options, torch.device("cpu"))
        E, G = parts["average_E"], parts["average_G"]
        E.load_state_dict(saved["average_E"])
        G.load_state_dict(saved["average_G"])
        pictures.append(picture(options, E, G, data))
        with torch.no_grad():
            layouts[f"{variant} CBiGAN"] = tsne(apply(E, data[2]), args.seed)
    save_grid(torch.cat(pictures), args.out / "figure4-reconstructions.png", columns=20)
    save_scatter(layouts, data[3], args.out / "figure5-tsne.png")
    with open(args.out / "results.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print(f"Figures and results.csv: {args.out}")


# ---- command line -------------------------------------------------------------------------------

KEPT = ("variant", "dense_init", "lr", "decay_from", "weight_decay", "average", "batch_size",
        "train_size", "seed")
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
        prog="cbigan.py", formatter_class=Formatter, allow_abbrev=False,
        description="Conditional BiGAN (Stypulkowski 2019): a BiGAN that is told the digit.",
        epilog="""examples:
  python cbigan.py --epochs 5                    a first look
  python cbigan.py --variant extended            a layer more for each input of G and D
  python cbigan.py --paper                       both variants: a GPU, or hours
  python cbigan.py --resume runs/cbigan/NAME     continue an interrupted run""")
    parser.set_defaults(out=None, resume=None, paper=False)  # here, --help need not show them
    model = parser.add_argument_group("the paper's choices")
    model.add_argument("--variant", choices=("simple", "extended"), default="simple",
                       help="extended: a layer more for each input of G and D")
    model.add_argument("--dense-init", choices=("fan-in", "paper"), default="fan-in",
                       help="initial weights of that layer: N(0, 1 / inputs) or N(0, 0.02^2)")
    training = parser.add_argument_group("training")
    training.add_argument("--epochs", type=number(int, 1, 10**6), default=400, metavar="N",
                          help="an epoch is one pass over the training images; the paper trains "
                               "the extended variant for 500")
    training.add_argument("--batch-size", type=number(int, 2, 60_000), default=128, metavar="N",
                          help="images in a minibatch")
    training.add_argument("--lr", type=number(float, 1e-9, 10), default=2e-4, metavar="X",
                          help="learning rate")
    training.add_argument("--decay-from", type=number(int, 0, 10**6), default=200, metavar="N",
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
                     help="folder to make (default: runs/cbigan/DATE-TIME-CONFIGURATION)")
    run.add_argument("--resume", type=Path, default=argparse.SUPPRESS, metavar="DIR",
                     help="continue the run in DIR; only --epochs, --device and --data may differ")
    run.add_argument("--paper", action="store_true", default=argparse.SUPPRESS,
                     help="both variants with figures 4 and 5; continues what was stopped")
    args = parser.parse_args(argv)

    if args.resume:
        if args.paper or args.out:
            parser.error("argument --resume: not allowed with --paper or --out")
        try:
            stored = json.loads((args.resume / "options.json").read_text())
            epochs = torch.load(args.resume / "checkpoint.pt", "cpu", weights_only=True)["epoch"]
        except Exception:  # what a damaged file raises depends on the damage
            stored = {}
        if stored.pop("script", None) != "cbigan.py" or stored.keys() != {*STORED}:
            parser.error(f"argument --resume: {args.resume} holds no whole run of cbigan.py")
        args = parser.parse_args(argv, argparse.Namespace(**stored))  # stored values as defaults
        for name in KEPT:
            if getattr(args, name) != stored[name]:
                parser.error(f"argument --{name.replace('_', '-')}: the run in {args.resume} has "
                             f"{stored[name]}, which --resume keeps")
        if args.epochs < epochs:
            parser.error(f"argument --epochs: the run in {args.resume} has {epochs} already")
        args.out = args.resume
    elif args.paper:
        if args.variant != parser.get_default("variant"):
            parser.error("argument --variant: --paper runs through its values itself")
        args.out = args.out or Path("runs/cbigan/paper")
    else:
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{configuration(args)}"
        args.out = args.out or Path("runs/cbigan") / name
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
        (paper if args.paper else train)(args)
    except KeyboardInterrupt:
        same = sys.argv[1:] if argv is None else argv
        options = shlex.join(same if args.paper else ["--resume", str(args.out)])
        kept = args.paper or (args.out / "checkpoint.pt").exists()
        print("\nInterrupted." + kept * (" Whole epochs are kept. To continue: "
                                         f"python cbigan.py {options}"), file=sys.stderr)
        sys.exit(130)
    except (OSError, FloatingPointError) as error:
        sys.exit(f"cbigan.py: error: {error}")


if __name__ == "__main__":
    main()
