"""Recurrent discrimination: a discriminator that reads a set of samples, one after another.

Ben Striner, "Bi-Directional Generative Recurrent Adversarial Networks", 2016, section 3. (The paper
is anonymous; its code is not.) For section 4 see bigran.py.

The idea. A GAN collapses: its generator draws good ones, and nothing but ones. Shown a single
image, a discriminator cannot object: a one is a fine digit. Shown several, it can: so many ones in
a row are unlikely among real digits. Recurrent discrimination is an LSTM over a set of k samples
with a sigmoid after each of them: output i has seen samples 1 to i, and says how likely they are
to be real.

How much does each further sample tell? In the toy of section 3.1 that is known. Real samples are
one of 10 categories, generated ones one of the first 5: all modes of the first half, none of the
second. Any k of the first 5 have the probability 10^-k if real, 5^-k if generated. With p = 1/2,
the ratio for one sample, and as many real sets as generated ones, Bayes' rule gives

    D_k = p^k / (1 + p^k) = 1/3, 1/5, 1/9, 1/17 ...

for each of those sets, and 1 for every set that holds one of the other 5 categories, in whatever
place. Cross entropy after every sample is least where the LSTM's outputs are these. Then a GAN on
MNIST, section 3.2: the same discriminator, images instead of categories, and a generator that
learns from it. With D_i the output after sample i of a set, and means over i and over sets,

    D minimizes  - E[0.9 log D_i(x) + 0.1 log(1 - D_i(x))] - E[log(1 - D_i(G(z)))] + 1e-5 |W_D|  (1)
    G minimizes  - E[log D_i(G(z))] + 1e-6 |W_G|                                                 (2)

    paper                                    command                                      file
    figure 3        learned and exact        python recurrent_disc_toy.py                 figure3-*
    figures 4 to 6  samples, k = 1, 2, 4     python recurrent_disc_toy.py --mnist --set-size 4
                                                                                       figures4-6-*
    all of them, three seeds each            python recurrent_disc_toy.py --paper
                                                                 figures4-6.png, digits-by-k.png

The paper has no numbers for figures 4 to 6, but a claim: the larger k, the more modes. The
author's samples for k = 1 show only ones, those for k = 4 mostly 3, 8, 0, 1 and 6. Here digits are
counted, in three trainings for each k.

Where this differs from the paper or the author's code, and why
- The author's discriminator of images is bidirectional, so that each output has seen the whole set.
  The paper speaks of an LSTM; with a plain one output i has seen i samples, as in the toy.
- The paper's toy table is for one sequence, 0, 0, 0, 0. Here it is the mean over all 5^k, and the
  largest error of any. The author trains for 10,000 steps of 128 / k sets, at a rate of 1e-4 and
  less; here it is 2,000 steps of 128 sets, the rate falls from 2e-3 to 0, and the outputs are those
  of the weights' mean over the second half: weights of a single step follow the few minibatches
  before it.
- For MNIST, from the author's code, since the paper does not say: all sizes, z from N(0, 1), Adam
  and its rates, which fall as lr / (1 + decay step), 0.9 and the weights' L1 norms in (1) and (2)
  (those of matrices, as in Keras; biases do not count), 4 steps of D per step of G, 64 images a
  step in sets of k, and an epoch of 1,000 steps of G.
- G minimizes -log D, as in the author's code; the paper has log(1 - D), the minimax objective.
- Weights begin as PyTorch has them, the author's as Keras did in 2016; the LSTM's gates are
  sigmoids, where Keras had a piecewise linear function.

Things to try: `--set-size 6`, and see where the toy begins to be wrong; GENERATED = 9, a generator
that misses one category only: how many samples does it take to notice? `--mnist --set-size 8`;
D_STEPS = 1.
"""

import argparse
import csv
import json
import math
import os
import shlex
import sys
import time
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import one_hot, softplus
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from common import minibatches, mnist, nearest, save_curves, save_gif, save_grid, save_panels

CATEGORIES, GENERATED = 10, 5  # of the toy: all, and those that its generator makes
TOY_STEPS, TOY_SETS, TOY_RATE = 2000, 128, 2e-3  # ours; so many sets of either kind in a step
PUBLISHED = {1: 0.3363147, 2: 0.1982634, 3: 0.1088916, 4: 0.0486446}  # the table of figure 3
LATENT = 100  # numbers in z
TARGET = 0.9  # of D on real images: "label smoothing"
RATES = {"D": (3e-4, 1e-4), "G": (1e-4, 4e-4)}  # of Adam: the first, and its decay
L1 = {"D": 1e-5, "G": 1e-6}
D_STEPS = 4  # before each step of G
EPOCH = 1000  # generator steps in what --epochs counts
SAMPLES = 10_000  # generated images that the evaluation counts


# ---- networks -----------------------------------------------------------------------------------


class Discriminator(nn.Module):
    """D: sets of k samples (N, k, inputs) -> logits (N, k) of the first 1, 2 ... k being real."""

    def __init__(self, inputs: int):
        super().__init__()
        self.lstm = nn.LSTM(inputs, 256, batch_first=True)
        self.readout = nn.Linear(256, 1)

    def forward(self, sets: Tensor) -> Tensor:
        states, _ = self.lstm(sets)
        return self.readout(states).squeeze(-1)


def generator() -> nn.Sequential:
    """G: z (..., 100) -> images (..., 784) in [0, 1]."""
    return nn.Sequential(nn.Linear(LATENT, 256), nn.Tanh(), nn.Linear(256, 256), nn.Tanh(),
                         nn.Linear(256, 784), nn.Sigmoid())


# ---- objectives ---------------------------------------------------------------------------------


def cross_entropy(logits: Tensor, target: float) -> Tensor:
    """The mean of -target log D - (1 - target) log(1 - D), with D the sigmoid of the logits."""
    return (softplus(logits) - target * logits).mean()


def discriminator_loss(D: nn.Module, real: Tensor, fake: Tensor, target: float) -> Tensor:
    """What D minimizes, without the weights' norm: (1) for target 0.9, the toy's for target 1.

    real, fake (N, k, inputs): sets of real samples, and sets of generated ones.
    """
    on_real, on_fake = D(torch.cat([real, fake])).chunk(2)
    return cross_entropy(on_real, target) + cross_entropy(on_fake, 0)


def l1_norm(network: nn.Module) -> Tensor:
    """|W|, the sum of the absolute values of all weights, biases left out; a scalar."""
    return sum(w.abs().sum() for w in network.parameters() if w.dim() > 1)


def likelihood(k: int) -> float:
    """p^k / (1 + p^k): the exact output for k samples that the toy generator can make."""
    odds = (GENERATED / CATEGORIES) ** k
    return odds / (1 + odds)


# ---- the toy: section 3.1 -----------------------------------------------------------------------


def encode(categories: Tensor) -> Tensor:
    """Categories (N, k) as the samples that D reads, (N, k, 10)."""
    return one_hot(categories, CATEGORIES).float()


def toy(args: argparse.Namespace) -> None:
    """Train D on the toy, and compare it with what is known: figure 3 in args.out."""
    device, start = pick_device(args.device), time.perf_counter()
    args.out.mkdir(parents=True, exist_ok=True)  # there already if --paper was stopped here
    save_options(args)
    torch.manual_seed(args.seed)
    D = Discriminator(CATEGORIES).to(device)
    average = AveragedModel(D)
    opt = torch.optim.Adam(D.parameters(), fused=True)
    print(f"{args.out}: the toy on {device} ({torch.get_num_threads()} CPU threads), "
          f"{TOY_STEPS} steps")
    for step in tqdm(range(TOY_STEPS), unit=" steps"):
        opt.param_groups[0]["lr"] = TOY_RATE * (1 - step / TOY_STEPS)
        real, fake = (torch.randint(categories, (TOY_SETS, args.set_size), device=device)
                      for categories in (CATEGORIES, GENERATED))
        loss = discriminator_loss(D, encode(real), encode(fake), 1)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step >= TOY_STEPS // 2:
            average.update_parameters(D)
    seconds = time.perf_counter() - start
    rows, missing = toy_tables(average.module, args.set_size)
    draw_figure_3(rows, missing, args.out / "figure3-toy.png")
    for name, table in (("figure3.csv", rows), ("missing.csv", missing)):
        save_csv(table, args.out / name)
    print(" k     mean    exact    paper  worst error  "
          "lowest output with a missing category in place 1, 2, ...")
    for row in rows:
        paper = f"{PUBLISHED[row['k']]:.4f}" if row["k"] in PUBLISHED else ""
        lowest = "".join(f"{m['lowest']:8.4f}" for m in missing if m["k"] == row["k"])
        print(f"{row['k']:2}{row['mean']:9.4f}{row['exact']:9.4f}{paper:>9}"
              f"{row['worst_error']:13.4f}{lowest}")
    save_results(args, {
        "figure3": rows, "missing": missing,
        "error_of_mean": max(abs(row["mean"] - row["exact"]) for row in rows),
        "worst_error": max(row["worst_error"] for row in rows),
        "lowest_with_missing": min(row["lowest"] for row in missing)}, device, seconds)


@torch.no_grad()
def toy_tables(D: nn.Module, size: int) -> tuple[list[dict], list[dict]]:
    """D's outputs for all 5^size sets that the generator can make, and with one sample changed.

    The first table has a row for each depth k, the number of samples read. The second has one for
    each place and each depth from there on: the sample in that place is one of the missing
    categories, so that the exact output is 1.
    """
    categories = torch.arange(CATEGORIES, device=D.readout.weight.device)
    can, cannot = categories[:GENERATED], categories[GENERATED:]

    def outputs(places: list[Tensor]) -> Tensor:
        """D's outputs, (size, sets), for all sets with these categories in these places."""
        sets = torch.cartesian_prod(*places).view(-1, size)  # a flat tensor where size is 1
        return torch.cat([torch.sigmoid(D(encode(part))) for part in sets.split(1000)]).double().T

    rows, missing = [], []
    for k, output in enumerate(outputs([can] * size), 1):
        exact = likelihood(k)
        rows.append({"k": k, "mean": output.mean().item(), "exact": exact,
                     "worst_error": (output - exact).abs().max().item(),
                     "lowest": output.min().item(), "highest": output.max().item()})
    for place in range(size):
        places = [can] * place + [cannot] + [can] * (size - place - 1)
        for k, output in enumerate(outputs(places)[place:], place + 1):
            missing.append({"place": place + 1, "k": k, "mean": output.mean().item(),
                            "lowest": output.min().item()})
    return rows, missing


def draw_figure_3(rows: list[dict], missing: list[dict], path: Path) -> None:
    """Learned and exact outputs by depth, and the outputs where a category was missing."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    k, mean, exact, _, lowest, highest = zip(*(row.values() for row in rows))
    left.plot(k, exact, "k:", marker="_", markersize=16, label="exact, p^k / (1 + p^k)")
    left.vlines(k, lowest, highest, "C0", linewidth=5, alpha=0.5, label="learned, all 5^k sets")
    left.plot(k, mean, "C0o", markersize=4, label="learned, their mean")
    left.plot([i for i in k if i in PUBLISHED], [PUBLISHED[i] for i in k if i in PUBLISHED], "C1x",
              label="paper, one set")
    left.set(title="Sets that the generator can make", ylim=(0, None), ylabel="output")
    for place in k:
        depth, mean, lowest = zip(*((row["k"], row["mean"], row["lowest"]) for row in missing
                                    if row["place"] == place))
        right.plot(depth, mean, f"C{place}o-", markersize=4, label=f"in place {place}, mean")
        right.plot(depth, lowest, f"C{place}v:", markersize=4, label=f"in place {place}, lowest")
    right.set(title="Sets with one missing category (exact: 1)")
    for axes in (left, right):
        axes.set(xlabel="k, samples read", xticks=k, xlim=(0.7, len(k) + 0.3))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


# ---- MNIST: section 3.2 -------------------------------------------------------------------------


def learning_rate(player: str, step: int) -> float:
    """Adam's rate for G or D in its own step number `step`, counted from 0: Keras' decay."""
    rate, decay = RATES[player]
    return rate / (1 + decay * step)


def build(args: argparse.Namespace, device: torch.device) -> dict:
    """Networks and optimizers, new, by the names they have in checkpoint.pt."""
    torch.manual_seed(args.seed)
    G, D = generator().to(device), Discriminator(784).to(device)
    opt_g, opt_d = (torch.optim.Adam(network.parameters(), fused=True) for network in (G, D))
    return {"G": G, "D": D, "opt_g": opt_g, "opt_d": opt_d}


def train(args: argparse.Namespace) -> None:
    """The whole algorithm, from the data to the figures in args.out."""
    device = pick_device(args.device)
    train_x, train_y, test_x, test_y = mnist(args.data, device)
    train_x, train_y = train_x[: args.train_size], train_y[: args.train_size]

    parts, log, first, seconds = build(args, device), [], 0, 0.0
    G, D, opt_g, opt_d = parts.values()

    def save(epoch: int) -> None:
        save_grid(sample(args, G, 100), args.out / "samples" / f"epoch-{epoch:03}.png", columns=10)
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"epoch": epoch, "log": log, "seconds": seconds}
        torch.save(state, args.out / "checkpoint.tmp")
        os.replace(args.out / "checkpoint.tmp", args.out / "checkpoint.pt")

    (args.out / "samples").mkdir(parents=True, exist_ok=bool(args.resume))
    save_options(args)
    if args.resume:
        saved = torch.load(args.out / "checkpoint.pt", map_location=device, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        first, log, seconds = saved["epoch"], saved["log"], saved["seconds"]
    else:
        save(0)

    sets = args.batch_size // args.set_size
    print(f"{args.out}: k = {args.set_size} on {device} ({torch.get_num_threads()} CPU threads), "
          f"{first} of {args.epochs} epochs done, {EPOCH} generator steps each")
    bar = tqdm(total=args.epochs * EPOCH, initial=first * EPOCH, unit=" steps", smoothing=0.05)
    for epoch in range(first, args.epochs):
        start = time.perf_counter()
        torch.manual_seed(1_000_000 * (args.seed + 1) + epoch)  # an epoch depends on these alone
        batches = minibatches(train_x, args.batch_size)
        losses = []  # stay on the device until they are read, some fifty steps at a time
        for step in range(epoch * EPOCH, (epoch + 1) * EPOCH):
            with torch.no_grad():  # G rests while D learns: one pass for all of D's steps
                fakes = G(torch.randn(D_STEPS, sets, args.set_size, LATENT, device=device))
            for i, fake in enumerate(fakes):
                opt_d.param_groups[0]["lr"] = learning_rate("D", D_STEPS * step + i)
                real = next(batches).view_as(fake)
                d_loss = discriminator_loss(D, real, fake, TARGET)
                opt_d.zero_grad()
                (d_loss + L1["D"] * l1_norm(D)).backward()
                opt_d.step()

            opt_g.param_groups[0]["lr"] = learning_rate("G", step)
            fake = G(torch.randn(sets, args.set_size, LATENT, device=device))
            g_loss = cross_entropy(D(fake), 1)
            opt_g.zero_grad()
            # D's parameters gather no gradient
            (g_loss + L1["G"] * l1_norm(G)).backward(inputs=list(G.parameters()))
            opt_g.step()

            losses.append(torch.stack([d_loss.detach(), g_loss.detach()]))
            bar.update()
            if len(losses) == 50 or step + 1 == (epoch + 1) * EPOCH:
                means = torch.stack(losses).mean(0).tolist()
                if not all(map(math.isfinite, means)):
                    bar.close()
                    raise FloatingPointError(
                        f"a loss is not finite in generator steps {step + 2 - len(losses)} to "
                        f"{step + 1} (epoch {epoch + 1}); {args.out} holds epoch {epoch}")
                log.append([step + 1, *means])
                bar.set_postfix_str(f"epoch {epoch + 1}/{args.epochs}, D {means[0]:.3f}, "
                                    f"G {means[1]:.3f}")
                losses = []
        seconds += time.perf_counter() - start
        save(epoch + 1)
    bar.close()
    evaluate(args, G, log, seconds, (train_x, train_y, test_x, test_y))


@torch.no_grad()
def sample(args: argparse.Namespace, G: nn.Module, count: int) -> Tensor:
    """`count` images (count, 784) of noise that depends on args.seed alone.

    The same samples grow from picture to picture. An epoch seeds its own numbers, so that sampling
    between epochs does not disturb the training.
    """
    torch.manual_seed(args.seed)
    return G(torch.randn(count, LATENT, device=G[0].weight.device))


def kl_divergence(p: Tensor, q: Tensor) -> float:
    """KL(p || q) in nats of two discrete distributions of the same shape; 0 log 0 is 0."""
    p, q = p[p > 0], q[p > 0]
    return (p * (p / q).log()).sum().item()


def evaluate(args: argparse.Namespace, G: nn.Module, log: list, seconds: float,
             data: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    """Write the run's metrics, pictures and results.json, and print the results."""
    train_x, train_y, test_x, test_y = data
    with open(args.out / "metrics.csv", "w", newline="") as file:
        csv.writer(file).writerows([["generator_step", "d_loss", "g_loss"], *log])
    steps, d_loss, g_loss = zip(*log)
    save_curves({"losses": {"D": (steps, d_loss), "G": (steps, g_loss)}},
                args.out / "losses.png", "generator step")
    save_gif(sorted((args.out / "samples").glob("epoch-*.png")), args.out / "training.gif")

    images = sample(args, G, SAMPLES)
    save_grid(images[:100], args.out / f"figures4-6-k{args.set_size}.png", columns=10)
    index, distance = nearest(images, train_x)
    real_index, real_distance = nearest(test_x, train_x)
    shares = torch.bincount(train_y[index], minlength=10) / SAMPLES
    save_results(args, {
        "set_size": args.set_size,
        "parameters_G": sum(w.numel() for w in G.parameters()),
        "parameters_D": sum(w.numel() for w in Discriminator(784).parameters()),
        "digit_shares": shares.tolist(),
        "digits": (shares >= 0.02).sum().item(),
        "kl": kl_divergence(shares, torch.bincount(train_y, minlength=10) / len(train_y)),
        "median_distance": distance.median().item(),
        "median_distance_of_test_images": real_distance.median().item(),
        "label_accuracy_on_test_images": (train_y[real_index] == test_y).float().mean().item(),
        "epochs": args.epochs}, train_x.device, seconds)


# ---- what both programs write -------------------------------------------------------------------


def save_options(args: argparse.Namespace) -> None:
    """Write options.json, from which --resume takes them."""
    options = {"script": "recurrent_disc_toy.py"} | {name: getattr(args, name) for name in STORED}
    (args.out / "options.json").write_text(json.dumps(options, indent=2) + "\n")


def save_results(args: argparse.Namespace, results: dict, device: torch.device,
                 seconds: float) -> None:
    """Write results.json, and print it but for its tables."""
    results |= {"seed": args.seed, "device": str(device), "threads": torch.get_num_threads(),
                "torch": torch.__version__, "training_seconds": round(seconds, 1)}
    (args.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    for name, value in results.items():
        if name in ("figure3", "missing"):
            continue
        value = " ".join(f"{v:.3f}" for v in value) if isinstance(value, list) else value
        print(f"{name:32}{value:.4g}" if isinstance(value, float) else f"{name:32}{value}")
    print(f"Pictures and numbers: {args.out}")


def save_csv(rows: list[dict], path: Path) -> None:
    """Write rows with the same names as CSV."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


# ---- all experiments of the paper ---------------------------------------------------------------

SET_SIZES, SEEDS = (1, 2, 4), (0, 1, 2)


def configuration(args: argparse.Namespace) -> str:
    """The name of a run: what makes it different from the others of the paper."""
    return f"{'mnist' if args.mnist else 'toy'}-k{args.set_size}-seed{args.seed}"


def paper(args: argparse.Namespace) -> None:
    """The toy, then MNIST for every k, with three seeds each: figures and tables in args.out.

    What is already there is continued, or left alone when complete.
    """
    shared = ["--batch-size", str(args.batch_size), "--train-size", str(args.train_size), "--data",
              args.data, "--device", args.device]
    toys, rows, panels = [], [], {}
    for seed in SEEDS:
        run = parse_args(["--seed", str(seed), "--device", args.device])
        run.out = args.out / configuration(run)
        if not (run.out / "results.json").exists():
            print(f"\nTraining of {run.out.name}")
            toy(run)
        toys.append(json.loads((run.out / "results.json").read_text()))
    for k in SET_SIZES:
        for seed in SEEDS:
            options = ["--mnist", "--set-size", str(k), "--seed", str(seed), *shared]
            run = args.out / configuration(parse_args(options))
            argv = [*options, "--resume" if (run / "checkpoint.pt").exists() else "--out", str(run)]
            results = run / "results.json"
            if not results.exists() or json.loads(results.read_text())["epochs"] < args.epochs:
                print(f"\nTraining of {run.name}")
                train(parse_args([*argv, "--epochs", str(args.epochs)]))
            parse_args([*options, "--resume", str(run)])  # it must have these options
            rows.append({"run": run.name} | json.loads(results.read_text()))
            if seed == 0:
                saved = torch.load(run / "checkpoint.pt", "cpu", weights_only=True)
                G = generator()
                G.load_state_dict(saved["G"])
                panels[f"k = {k}"] = sample(args, G, 100)

    save_panels(panels, args.out / "figures4-6.png", len(panels), columns=10)
    draw_digits(rows, args.out / "digits-by-k.png")
    save_csv(rows, args.out / "results.csv")
    print(f"\n{'run':20}epochs  digits      KL  distance  seconds")
    for row in rows:
        print(f"{row['run']:20}{row['epochs']:6}{row['digits']:8}{row['kl']:8.3f}"
              f"{row['median_distance']:10.2f}{row['training_seconds']:9.0f}")
    print("\nMean (lowest to highest) of the seeds")
    for name in ("error_of_mean", "worst_error", "lowest_with_missing"):
        print(f"toy, {name}: {mean_and_range([row[name] for row in toys])}")
    for k in SET_SIZES:
        of_k = [row for row in rows if row["set_size"] == k]
        print(f"MNIST, k = {k}: " + ", ".join(
            f"{name} {mean_and_range([row[name] for row in of_k])}"
            for name in ("digits", "kl", "median_distance")))
    print(f"Figures and results.csv: {args.out}")


def mean_and_range(values: list[float]) -> str:
    """As it is printed: the mean, and the lowest and the highest value."""
    return f"{sum(values) / len(values):.4g} ({min(values):.4g} to {max(values):.4g})"


def draw_digits(rows: list[dict], path: Path) -> None:
    """The paper's claim as numbers: digits covered, and KL of the digits' shares, against k."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    titles = {"digits": "digits with at least 2% of the samples",
              "kl": "KL of the digits' shares from the training set's"}
    for axes, (name, title) in zip(figure.subplots(1, 2), titles.items()):
        values = [[row[name] for row in rows if row["set_size"] == k] for k in SET_SIZES]
        axes.vlines(SET_SIZES, [*map(min, values)], [*map(max, values)], "C0", linewidth=5,
                    alpha=0.3, label="range")
        axes.plot(SET_SIZES, [sum(v) / len(v) for v in values], "C0_-", markersize=16, label="mean")
        axes.plot(SET_SIZES, values, "C1o", markersize=4)
        axes.plot([], [], "C1o", markersize=4, label="one seed")
        axes.set(title=title, xlabel="k, images in a set", xticks=SET_SIZES,
                 ylim=(0, 1.1 * max(map(max, values))))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


# ---- command line -------------------------------------------------------------------------------

KEPT = ("mnist", "set_size", "batch_size", "train_size", "seed")
STORED = (*KEPT, "epochs", "device", "data")  # on --resume only these last three may differ
MOST = 6  # samples in a set of the toy: 5^6 sets are looked at, seven times over


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
        prog="recurrent_disc_toy.py", formatter_class=Formatter, allow_abbrev=False,
        description="Recurrent discrimination (Striner 2016, section 3): the toy, or, with "
                    "--mnist, a GAN whose discriminator reads sets of images.",
        epilog="""examples:
  python recurrent_disc_toy.py                              the toy: figure 3
  python recurrent_disc_toy.py --mnist --epochs 1           a GAN, a first look
  python recurrent_disc_toy.py --mnist --set-size 1         figure 4
  python recurrent_disc_toy.py --resume runs/recurrent_disc_toy/NAME
  python recurrent_disc_toy.py --paper                      all of it, with three seeds""")
    parser.set_defaults(mnist=False, out=None, resume=None, paper=False)  # not shown by --help
    model = parser.add_argument_group("the paper's choices")
    model.add_argument("--mnist", action="store_true", default=argparse.SUPPRESS,
                       help="train a GAN on MNIST (without: the toy)")
    model.add_argument("--set-size", type=number(int, 1, 60_000), default=4, metavar="K",
                       help=f"samples in a set; the toy reads up to {MOST}")
    training = parser.add_argument_group("training on MNIST")
    training.add_argument("--epochs", type=number(int, 1, 10**6), default=10, metavar="N",
                          help=f"an epoch is {EPOCH} generator steps")
    training.add_argument("--batch-size", type=number(int, 1, 60_000), default=64, metavar="N",
                          help="images in a minibatch, a multiple of the set size")
    training.add_argument("--train-size", type=number(int, 1, 60_000), default=60_000, metavar="N",
                          help="train on the first N training images")
    training.add_argument("--data", default="data", metavar="DIR", help="folder of the data set")
    run = parser.add_argument_group("run")
    run.add_argument("--seed", type=number(int, 0, 10**9), default=0, metavar="N",
                     help="of weights, samples and noise")
    run.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto",
                     help="auto is cuda, else cpu; mps is untested")
    run.add_argument("--out", type=Path, default=argparse.SUPPRESS, metavar="DIR",
                     help="folder to make "
                          "(default: runs/recurrent_disc_toy/DATE-TIME-CONFIGURATION)")
    run.add_argument("--resume", type=Path, default=argparse.SUPPRESS, metavar="DIR",
                     help="continue the run on MNIST in DIR; only --epochs, --device and --data "
                          "may differ")
    run.add_argument("--paper", action="store_true", default=argparse.SUPPRESS,
                     help="the toy, and MNIST with 1, 2 and 4 images in a set, three seeds each; "
                          "continues what was stopped")
    args = parser.parse_args(argv)

    if args.resume:
        if args.paper or args.out:
            parser.error("argument --resume: not allowed with --paper or --out")
        try:
            stored = json.loads((args.resume / "options.json").read_text())
            epochs = torch.load(args.resume / "checkpoint.pt", "cpu", weights_only=True)["epoch"]
        except Exception:  # what a damaged file raises depends on the damage
            stored = {}
        if stored.pop("script", None) != "recurrent_disc_toy.py" or stored.keys() != {*STORED}:
            parser.error(f"argument --resume: {args.resume} holds no whole run of "
                         "recurrent_disc_toy.py --mnist")
        args = parser.parse_args(argv, argparse.Namespace(**stored))  # stored values as defaults
        for name in KEPT:
            if getattr(args, name) != stored[name]:
                parser.error(f"argument --{name.replace('_', '-')}: the run in {args.resume} has "
                             f"{stored[name]}, which --resume keeps")
        if args.epochs < epochs:
            parser.error(f"argument --epochs: the run in {args.resume} has {epochs} already")
        args.out = args.resume
    elif args.paper:
        for name in ("set_size", "seed"):
            if getattr(args, name) != parser.get_default(name):
                parser.error(f"argument --{name.replace('_', '-')}: "
                             "--paper runs through its values itself")
        args.out = args.out or Path("runs/recurrent_disc_toy/paper")
    else:
        for name in ("epochs", "batch_size", "train_size", "data"):
            if not args.mnist and getattr(args, name) != parser.get_default(name):
                parser.error(f"argument --{name.replace('_', '-')}: only with --mnist or --paper")
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{configuration(args)}"
        args.out = args.out or Path("runs/recurrent_disc_toy") / name
        if args.out.exists():
            again = f", or continue the run in it with --resume {args.out}" * args.mnist
            parser.error(f"argument --out: {args.out} exists; name a new folder{again}")
    if args.mnist or args.paper:
        for size in SET_SIZES if args.paper else (args.set_size,):
            if args.batch_size % size:
                parser.error(f"argument --batch-size: {args.batch_size} is not a multiple of "
                             f"--set-size {size}")
    elif args.set_size > MOST:
        parser.error(f"argument --set-size: {args.set_size} is more than {MOST}, the most without "
                     "--mnist")
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
        (paper if args.paper else train if args.mnist else toy)(args)
    except KeyboardInterrupt:
        same = sys.argv[1:] if argv is None else argv
        options = shlex.join(same if args.paper else ["--resume", str(args.out)])
        kept = args.paper or (args.out / "checkpoint.pt").exists()
        print("\nInterrupted." + kept * (" Whole epochs are kept. To continue: "
                                         f"python recurrent_disc_toy.py {options}"),
              file=sys.stderr)
        sys.exit(130)
    except (OSError, FloatingPointError) as error:
        sys.exit(f"recurrent_disc_toy.py: error: {error}")


if __name__ == "__main__":
    main()
