"""BiGRAN: a GAN with an encoder that draws an image in several strokes, and reads it in as many.

Ben Striner, "Bi-Directional Generative Recurrent Adversarial Networks", 2016; the author's code is
github.com/bstriner/bigran.

The idea. A BiGAN (bigan.py) whose networks are recurrent. The decoder G takes a sequence of codes
z_1 ... z_T; after each of them it adds something to a canvas, and the canvas, through a sigmoid, is
an image x_t. The encoder E looks at an image T times and answers each time with a code. The
discriminator D sees, at every time t, an image and the codes up to t, and says whether they are
(x, E(x)), the same real image at every t, or (x_t, z). So the drawing has to pass at every t, and
gets feedback at every t, through the last stroke as well as through all before it. D also sees
several images at once, a set of k: it reads them one after another and answers after each with all
before it in mind (recurrent discrimination, section 3 of the paper; recurrent_disc_toy.py). A
generator that always draws the same digit is told so by the second image of a set.

The objective. At time t and image i of a set, let D_ti be D's answer to (x, E(x)) and D'_ti the one
to (x_t, z). With means over t, i and sets,

    L_D  = -E[log D_ti] - E[log(1 - D'_ti)] + l1 |weights of D|
    L_EG = -E[log D'_ti] - E[log(1 - D_ti)] + l1 |weights of E and G|

    paper                                            command             file
    figure 7  samples                                python bigran.py    figure7-samples.png
    figure 8  ten autoencodings of each digit        python bigran.py    figure8-autoencodings.png
    figure 9  the canvas over t, autoencoding        python bigran.py    figure9-canvas.png

The paper has no numbers. Here are some, at every t (results.json): the distance from the canvas to
the image that it reconstructs, its sharpness, and how often it has the image's class. The canvas
sharpens from t to t, as the paper says, while its distance to the image may grow: where the code
leaves a doubt, the least distance is that of a blurred mean of all candidates, and a sharp canvas
has to pick one.

Where this differs from the paper or the author's code, and why
- The author's settings are --d-steps 4 --lr-d 3e-4 --lr-eg 1e-4 --decay-d 1e-4 --decay-eg 4e-4
  --beta1 0.9 --dropout 0.5 --average 0. With them D wins within an epoch, and G collapses. Here D
  makes a step where E and G make one, at a fifth of their rate (README.md has the comparison).
- Pictures and numbers are made with averages of E's and G's weights over the last steps.
- The author's dropout is inside the recurrences too, where PyTorch's LSTM has none: here it is at
  the inputs and outputs of D's second LSTM, and between its tanh layers.
- L_EG exchanges the answers, as the author's code does; the paper has E and G minimize -L_D.
- E and G move against D as it is after its step: D is asked again.
- An epoch is one pass of E and G over the training images, 937 steps; the author's has 1,000.
- Weights begin as PyTorch has them; the author's began as Keras had them in 2016.
- "Pairwise discrimination", in the caption of figure 7, would be --set-size 2; the code has 4.

Things to try: `--set-size 1`, and count the digits; `--time-steps 1`, a BiGAN, and 8; the author's
settings, and watch losses.png; `--hidden 512`, if you have the time.
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

from common import minibatches, mnist, nearest, save_curves, save_gif, save_grid

LATENT = 25  # numbers in the code of one time step, N(0, 1)
SAMPLES = 10_000  # generated images that the evaluation counts
EVERY = 5  # epochs from one line of scores.csv to the next


# ---- networks -----------------------------------------------------------------------------------


class Encoder(nn.Module):
    """E: images (N, 784) -> codes (N, T, 25), drawn at random; section 4.1."""

    def __init__(self, time_steps: int, hidden: int):
        super().__init__()
        self.time_steps = time_steps
        self.lstm = nn.LSTM(784, hidden, batch_first=True)
        self.out = nn.Linear(hidden, 2 * LATENT)

    def forward(self, x: Tensor) -> Tensor:
        h, _ = self.lstm(x.unsqueeze(1).expand(-1, self.time_steps, -1))
        mu, log_variance = self.out(h).chunk(2, 2)
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
    """D: images (N, T, 784) with codes (N, T, 25) -> logits (N, T) of the pairs being real.

    Every `set_size` rows are a set. The logit at time t of the set's image i depends on that image,
    the codes of that image up to t, and the same of the images before it; section 4.3.
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


# ---- objective ----------------------------------------------------------------------------------


def losses(on_real: Tensor, on_fake: Tensor) -> tuple[Tensor, Tensor]:
    """L_D and L_EG, two scalars, but for the weights' norm, from D's logits.

    Those are on (x, E(x)) and on (x_t, z), (N, T) each. With D the sigmoid of
    a logit, -log D is softplus(-logit) and -log(1 - D) is softplus(logit).
    """
    d_loss = softplus(-on_real).mean() + softplus(on_fake).mean()
    eg_loss = softplus(on_real).mean() + softplus(-on_fake).mean()
    return d_loss, eg_loss


def l1_norm(*networks: nn.Module) -> Tensor:
    """The sum of the absolute values of all weights, biases left out; a scalar."""
    return sum(w.abs().sum() for network in networks for w in network.parameters() if w.dim() > 1)


# ---- training -----------------------------------------------------------------------------------


def build(args: argparse.Namespace, device: torch.device) -> dict:
    """Networks, their averages and optimizers, new, by the names they have in checkpoint.pt."""
    torch.manual_seed(args.seed)
    E = Encoder(args.time_steps, args.hidden).to(device)
    G = Decoder(args.hidden).to(device)
    D = Discriminator(args.hidden, args.set_size, args.dropout).to(device)
    opt_eg, opt_d = (torch.optim.Adam(parameters, lr, (args.beta1, 0.999), fused=True)
                     for parameters, lr in (([*E.parameters(), *G.parameters()], args.lr_eg),
                                            (D.parameters(), args.lr_d)))
    return {"E": E, "G": G, "D": D, "opt_eg": opt_eg, "opt_d": opt_d,
            "average_E": copy.deepcopy(E), "average_G": copy.deepcopy(G)}


def set_rate(optimizer: torch.optim.Optimizer, lr: float, decay: float, step: int) -> None:
    """The learning rate of the optimizer's step, counted from 0: lr / (1 + decay step)."""
    for group in optimizer.param_groups:
        group["lr"] = lr / (1 + decay * step)


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the exponential average of a network's weights one step on."""
    for slow, fast in zip(average.parameters(), network.parameters()):
        slow.lerp_(fast, 1 - decay)


def pairs(x: Tensor, E: nn.Module, G: nn.Module) -> tuple[Tensor, Tensor]:
    """What D sees of real images x (N, 784): images (2 N, T, 784) with codes (2 N, T, 25).

    First (x, E(x)), with x at every time, then as many (G(z), z).
    """
    code = E(x)
    z = torch.randn_like(code)
    canvas = G(z)
    return torch.cat([x.unsqueeze(1).expand_as(canvas), canvas]), torch.cat([code, z])


def train(args: argparse.Namespace) -> None:
    """The whole algorithm, from the data to the figures in args.out."""
    device = pick_device(args.device)
    train_x, train_y, test_x, test_y = mnist(args.data, device)
    train_x, train_y = train_x[: args.train_size], train_y[: args.train_size]
    data = train_x, train_y, test_x, test_y

    parts, log, scores, first, seconds = build(args, device), [], [], 0, 0.0
    E, G, D, opt_eg, opt_d, average_E, average_G = parts.values()

    def save(epoch: int) -> None:
        save_grid(picture(args, average_G, device), columns=10,
                  path=args.out / "samples" / f"epoch-{epoch:03}.png")
        if epoch % EVERY == 0:
            scores.append([epoch, *score(args, average_E, average_G, data)])
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"epoch": epoch, "log": log, "scores": scores, "seconds": seconds}
        torch.save(state, args.out / "checkpoint.tmp")
        os.replace(args.out / "checkpoint.tmp", args.out / "checkpoint.pt")

    (args.out / "samples").mkdir(parents=True, exist_ok=bool(args.resume))
    options = {"script": "bigran.py"} | {name: getattr(args, name) for name in STORED}
    (args.out / "options.json").write_text(json.dumps(options, indent=2) + "\n")
    if args.resume:
        saved = torch.load(args.out / "checkpoint.pt", map_location=device, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        first, log = saved["epoch"], saved["log"]
        scores, seconds = saved["scores"], saved["seconds"]
    else:
        save(0)

    steps = len(train_x) // args.batch_size  # of E and G, in an epoch
    print(f"{args.out}: on {device} ({torch.get_num_threads()} CPU threads), {first} of "
          f"{args.epochs} epochs done, {steps} steps each")
    bar = tqdm(total=args.epochs * steps, initial=first * steps, unit=" steps", smoothing=0.05)
    for epoch in range(first, args.epochs):
        start = time.perf_counter()
        torch.manual_seed(1_000_000 * (args.seed + 1) + epoch)  # an epoch depends on these alone
        batches = minibatches(train_x, args.batch_size)
        gathered = []  # losses stay on the device until they are read, some fifty steps at a time
        for step in range(epoch * steps, (epoch + 1) * steps):
            for i in range(args.d_steps):
                images, codes = pairs(next(batches), E, G)
                d_loss, _ = losses(*D(images.detach(), codes.detach()).chunk(2))
                set_rate(opt_d, args.lr_d, args.decay_d, args.d_steps * step + i)
                opt_d.zero_grad()
                (d_loss + args.l1 * l1_norm(D)).backward()
                opt_d.step()

            _, eg_loss = losses(*D(images, codes).chunk(2))  # D has changed: ask it again
            set_rate(opt_eg, args.lr_eg, args.decay_eg, step)
            opt_eg.zero_grad()
            (eg_loss + args.l1 * l1_norm(E, G)).backward(
                inputs=[*E.parameters(), *G.parameters()])  # none for D
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


# ---- evaluation and figures ---------------------------------------------------------------------


@torch.no_grad()
def picture(args: argparse.Namespace, G: nn.Module, device: torch.device, t: int = -1) -> Tensor:
    """Figure 7, 100 samples (100, 784) after stroke t, counted from 0; the last by default.

    The noise depends on args.seed alone: the same samples grow from picture to picture. An epoch
    seeds its own numbers, so that drawing some between epochs does not disturb the training.
    """
    torch.manual_seed(args.seed)
    return G(torch.randn(100, args.time_steps, LATENT, device=device))[:, t]


def apply(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The network's outputs for all rows of x, in pieces that fit into memory."""
    return torch.cat([network(piece) for piece in x.split(1000)])


def labels(images: Tensor, data: tuple) -> tuple[Tensor, Tensor]:
    """Label (N,) of the training image nearest to each image (N, 784), and its distance (N,)."""
    index, distance = nearest(images, data[0])
    return data[1][index], distance


def kl_divergence(p: Tensor, q: Tensor) -> float:
    """KL(p || q) in nats of two discrete distributions of the same shape; 0 log 0 is 0."""
    p, q = p[p > 0], q[p > 0]
    return (p * (p / q).log()).sum().item()


def distances(canvas: Tensor, x: Tensor) -> list[float]:
    """Mean Euclidean distance from the canvas (N, T, 784) to the images x (N, 784), at each t."""
    return [(images - x).norm(dim=1).mean().item() for images in canvas.unbind(1)]


def sharpness(canvas: Tensor) -> list[float]:
    """Share of the pixels of a canvas (N, T, 784) within 0.1 of 0 or of 1, at each t."""
    return ((canvas - 0.5).abs() >= 0.4).float().mean((0, 2)).tolist()


def variance(images: Tensor) -> float:
    """Total variance of images (N, 784), binarized at 1/2, lest sharper ones have more of it."""
    return (images > 0.5).float().var(0).sum().item()


@torch.no_grad()
def count_samples(args: argparse.Namespace, G: nn.Module, data: tuple) -> dict:
    """What is counted of SAMPLES generated images, as they are after the last stroke."""
    torch.manual_seed(args.seed)
    z = torch.randn(SAMPLES, args.time_steps, LATENT, device=data[0].device)
    images = apply(lambda z: G(z)[:, -1], z)
    label, distance = labels(images, data)
    shares = torch.bincount(label, minlength=10) / SAMPLES
    return {
        "digit_shares": shares.tolist(),
        "digits": (shares >= 0.02).sum().item(),
        "kl": kl_divergence(shares, torch.bincount(data[1], minlength=10) / len(data[1])),
        "median_distance": distance.median().item(),
        "variance": variance(images),
    }


@torch.no_grad()
def score(args: argparse.Namespace, E: nn.Module, G: nn.Module, data: tuple) -> list[float]:
    """A line of scores.csv but for the epoch, SCORES: how good codes, canvases and samples are."""
    _, _, test_x, test_y = data
    torch.manual_seed(args.seed)
    canvas = apply(lambda x: G(E(x)), test_x)
    error, sharp = distances(canvas, test_x), sharpness(canvas)
    kept = (labels(canvas[:, -1], data)[0] == test_y).float().mean().item()
    return [error[0], error[-1], sharp[0], sharp[-1], kept, count_samples(args, G, data)["kl"]]


SCORES = ("reconstruction_error_first", "reconstruction_error_last", "sharpness_first",
          "sharpness_last", "class_kept_last", "kl")


@torch.no_grad()
def evaluate(args: argparse.Namespace, E: nn.Module, G: nn.Module, log: list, scores: list,
             seconds: float, data: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    """Write the run's metrics, figures and results.json, and print the results."""
    train_x, _, test_x, test_y = data
    for file_name, header, rows in (("metrics.csv", ("step", "d_loss", "eg_loss"), log),
                                    ("scores.csv", ("epoch", *SCORES), scores)):
        with open(args.out / file_name, "w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
    steps, d_loss, eg_loss = zip(*log)
    save_curves({"losses": {"D": (steps, d_loss), "E and G": (steps, eg_loss)}},
                args.out / "losses.png", "step")
    epochs, *columns = zip(*scores)
    first, last, dull, sharp, kept, kl = ((epochs, column) for column in columns)
    save_curves({"distance from canvas to image": {"first": first, "last": last},
                 "sharpness of the canvas": {"first": dull, "last": sharp},
                 "share of canvases of the image's class": {"last": kept},
                 "KL of the samples' digits": {"last": kl}}, args.out / "scores.png", "epoch")
    save_gif(sorted((args.out / "samples").glob("epoch-*.png")), args.out / "training.gif")

    save_grid(picture(args, G, train_x.device), args.out / "figure7-samples.png", columns=10)
    strokes = [args.out / "samples" / f"stroke-{t + 1}.png" for t in range(args.time_steps)]
    for t, path in enumerate(strokes):
        save_grid(picture(args, G, train_x.device, t), path, columns=10)
    save_gif(strokes, args.out / "drawing.gif")
    x = torch.cat([test_x[test_y == digit][:1] for digit in range(10)])
    again = torch.stack([G(E(x))[:, -1] for _ in range(10)], 1)
    save_grid(torch.cat([x.unsqueeze(1), again], 1).flatten(0, 1),
              args.out / "figure8-autoencodings.png", columns=11)
    save_grid(torch.cat([x.unsqueeze(1), G(E(x))], 1).flatten(0, 1),
              args.out / "figure9-canvas.png", columns=1 + args.time_steps)

    torch.manual_seed(args.seed)
    canvas = apply(lambda x: G(E(x)), test_x)
    real_label, real_distance = labels(test_x, data)
    results = {
        "parameters_E": sum(w.numel() for w in E.parameters()),
        "parameters_G": sum(w.numel() for w in G.parameters()),
        "parameters_D": sum(w.numel() for w in Discriminator(args.hidden, 1, 0).parameters()),
        "reconstruction_error": distances(canvas, test_x),
        "sharpness": sharpness(canvas),
        "class_kept": [(labels(images, data)[0] == test_y).float().mean().item()
                       for images in canvas.unbind(1)],
        "error_to_another_image": distances(canvas, test_x.roll(1, 0)),
        **count_samples(args, G, data),
        "sharpness_of_test_images": sharpness(test_x.unsqueeze(1))[0],
        "median_distance_of_test_images": real_distance.median().item(),
        "variance_of_test_images": variance(test_x),
        "label_accuracy_on_test_images": (real_label == test_y).float().mean().item(),
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

KEPT = ("time_steps", "set_size", "hidden", "d_steps", "lr_d", "lr_eg", "decay_d", "decay_eg",
        "beta1", "dropout", "l1", "average", "batch_size", "train_size", "seed")
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
        prog="bigran.py", formatter_class=Formatter, allow_abbrev=False,
        description="BiGRAN (Striner 2016): a recurrent GAN with a recurrent encoder.",
        epilog="""examples:
  python bigran.py --epochs 5                    a first look
  python bigran.py                               the author's length: a GPU, or hours
  python bigran.py --set-size 1                  no recurrent discrimination
  python bigran.py --resume runs/bigran/NAME     continue an interrupted run""")
    parser.set_defaults(out=None, resume=None)  # here, --help need not show them
    model = parser.add_argument_group("the paper's choices")
    model.add_argument("--time-steps", type=number(int, 1, 100), default=4, metavar="T",
                       help="codes of an image, and strokes of its drawing")
    model.add_argument("--set-size", type=number(int, 1, 1000), default=4, metavar="K",
                       help="images that D reads one after another")
    model.add_argument("--hidden", type=number(int, 1, 10_000), default=128, metavar="N",
                       help="units of every hidden layer")
    model.add_argument("--dropout", type=number(float, 0, 0.99), default=0.3, metavar="X",
                       help="share of hidden values that D leaves out")
    training = parser.add_argument_group("training")
    training.add_argument("--epochs", type=number(int, 1, 10**6), default=300, metavar="N",
                          help="an epoch is as many steps of E and G as the training images "
                               "make minibatches")
    training.add_argument("--batch-size", type=number(int, 1, 60_000), default=64, metavar="N",
                          help="images in a minibatch, a multiple of the set size")
    training.add_argument("--d-steps", type=number(int, 1, 1000), default=1, metavar="N",
                          help="steps of D before each step of E and G")
    training.add_argument("--lr-d", type=number(float, 1e-9, 10), default=4e-4, metavar="X",
                          help="learning rate of D")
    training.add_argument("--lr-eg", type=number(float, 1e-9, 10), default=2e-3, metavar="X",
                          help="learning rate of E and G")
    training.add_argument("--decay-d", type=number(float, 0, 1), default=0.0, metavar="X",
                          help="D's rate is divided by 1 + X times the number of its steps")
    training.add_argument("--decay-eg", type=number(float, 0, 1), default=0.0, metavar="X",
                          help="the same for E and G")
    training.add_argument("--beta1", type=number(float, 0, 0.9999), default=0.5, metavar="X",
                          help="of Adam, in both")
    training.add_argument("--l1", type=number(float, 0, 1), default=1e-6, metavar="X",
                          help="weight of the absolute values of the weights in both losses")
    training.add_argument("--average", type=number(float, 0, 1), default=0.9999, metavar="X",
                          help="decay, per step, of the average of E's and G's weights that makes "
                               "pictures and numbers; 0: the weights as they are")
    training.add_argument("--train-size", type=number(int, 1, 60_000), default=60_000, metavar="N",
                          help="train on the first N training images")
    training.add_argument("--seed", type=number(int, 0, 10**9), default=0, metavar="N",
                          help="of weights, minibatches and noise")
    run = parser.add_argument_group("run")
    run.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto",
                     help="auto is cuda, else cpu; mps is untested")
    run.add_argument("--data", default="data", metavar="DIR", help="folder of the data set")
    run.add_argument("--out", type=Path, default=argparse.SUPPRESS, metavar="DIR",
                     help="folder to make (default: runs/bigran/DATE-TIME-seedN)")
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
        if stored.pop("script", None) != "bigran.py" or stored.keys() != {*STORED}:
            parser.error(f"argument --resume: {args.resume} holds no whole run of bigran.py")
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
        args.out = args.out or Path("runs/bigran") / name
        if args.out.exists():
            parser.error(f"argument --out: {args.out} exists; name a new folder, "
                         f"or continue the run in it with --resume {args.out}")
    if args.batch_size > args.train_size:
        parser.error(f"argument --batch-size: {args.batch_size} is more than "
                     f"--train-size {args.train_size}")
    if args.batch_size % args.set_size:
        parser.error(f"argument --batch-size: {args.batch_size} is not a multiple of "
                     f"--set-size {args.set_size}")
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
                                         f"python bigran.py --resume {args.out}"), file=sys.stderr)
        sys.exit(130)
    except (OSError, FloatingPointError) as error:
        sys.exit(f"bigran.py: error: {error}")


if __name__ == "__main__":
    main()
