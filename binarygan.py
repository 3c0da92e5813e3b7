"""BinaryGAN: a GAN whose generator ends in binary neurons and is trained end to end.

Hao-Wen Dong and Yi-Hsuan Yang, "Training Generative Adversarial Networks with Binary Neurons
by End-to-end Backpropagation", 2018, arXiv 1810.04714.

The idea. Some data are binary: black-and-white images, piano rolls. A generator that ends in a
sigmoid gives numbers between 0 and 1, and somebody has to binarize them afterwards. Here the
generator does it itself, before the discriminator looks. With x the output of G's last layer and
p = sigmoid(slope x) the "preactivated output", a binary neuron gives

    deterministic (DBN)   1 if p > 1/2, else 0                            equation 6
    stochastic (SBN)      1 if p > v, else 0, v uniform on [0, 1]         equation 7

A step has no useful gradient, so the backward pass takes that of p instead: the sigmoid-adjusted
straight-through estimator of section 2.3. The slope is multiplied by 1.1 after every epoch, so
that p comes ever closer to the step ("slope annealing", section 4.2).

The objective (equations 3 to 5), D without a sigmoid, real images x, fake images G(z):

    D minimizes   E[D(G(z))] - E[D(x)] + lambda E[(|grad D(x^)| - 1)^2]       (wgan-gp)
    G minimizes  -E[D(G(z))]

with x^ uniform on the line between a real and a fake image. Other objectives: wgan clips the
weights of D instead of using the penalty; gan is the non-saturating GAN of equations 1 and 2.

    paper                                command                             file
    figure 3  samples, preactivations    python binarygan.py --neuron sbn    figure3-*.png
    figure 4  their histogram            python binarygan.py --neuron dbn    figure4-*.png
    figure 5  real values binarized      python binarygan.py --neuron real   figure5-*.png
    figures 3 to 8, all experiments      python binarygan.py --paper         figure3 to figure8

Where this differs from the paper or the authors' code, and why
- Batch normalization. The paper normalizes in G (for gan in D, too), and its code does so on every
  layer of G, the output too: `--norm batch`. But that code never switches it to training mode, so
  that it only scales and shifts: the published figures come from networks without it, and so does
  our default. Normalized, G comes to the same estimate, but late: until its last layer has learned
  to undo the normalization of each pixel, some samples come out inverted (README.md).
- Equation 5 is printed without lambda and with the gradient of |x^| instead of |gradient of D|.
  We take both from Gulrajani et al. 2017, arXiv 1704.00028, which the paper cites: lambda = 10.
- Every critic step draws a new minibatch; the authors reuse one for all critic steps between two
  generator steps. An epoch is theirs: as many generator steps as there are minibatches.
- We train on the 60,000 training images and keep the test set apart; the authors use all 70,000.
- From the authors' code, since the paper does not say: z is 128 normal numbers, LeakyReLU has
  slope 0.2, D makes 5 steps before each generator step, but 100 before each of the first 25 and
  before every 500th, for all three objectives.
- The real-valued model (`--neuron real`) has nothing to anneal: its slope stays 1.

Things to try: `--neuron dbn`, and compare the middle of figure 4; `--objective gan --epochs 1`, and
count the digits; `--anneal 1`, and look at the last bin; replace the straight-through gradient of p
by that of x, and see what the slope was for.
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
from torch import Tensor, nn
from torch.nn.functional import softplus
from tqdm import tqdm

from common import minibatches, mnist, nearest, save_curves, save_gif, save_grid, save_panels

LATENT = 128  # numbers in z; from the authors' code
PENALTY = 10.0  # lambda of the gradient penalty; Gulrajani et al. 2017
CLIP = 0.01  # bound on D's weights with the wgan objective; Arjovsky et al. 2017
SAMPLES = 10_000  # generated images that the evaluation counts


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

    Normalization, which only gan has in D, is by the minibatch at hand alone: such a D is never
    asked for a score outside training, and a generator step must leave no trace in it.
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


def gradient_penalty(D: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """E[(|grad D(x^)| - 1)^2], the last term of equation 5 without lambda; a scalar.

    real, fake (N, 784); one epsilon per image, and the norm over all pixels of an image.
    """
    epsilon = torch.rand(len(real), 1, device=real.device)
    between = (epsilon * real + (1 - epsilon) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(D(between).sum(), between, create_graph=True)
    return ((gradient.norm(dim=1) - 1) ** 2).mean()


def discriminator_loss(D: nn.Module, real: Tensor, fake: Tensor,
                       objective: str) -> tuple[Tensor, Tensor]:
    """What D minimizes: equations 2, 3 and 5 with the sign changed.

    Returns the loss and E[D(x)] - E[D(G(z))], which for wgan-gp is the estimate of the Wasserstein
    distance and carries no gradient. Both are scalars.
    """
    if objective == "gan":  # one after the other: batch normalization must not mix the two
        on_real, on_fake = D(real), D(fake)
        loss = softplus(-on_real).mean() + softplus(on_fake).mean()
    else:
        on_real, on_fake = D(torch.cat([real, fake])).chunk(2)
        loss = on_fake.mean() - on_real.mean()
    if objective == "wgan-gp":
        loss = loss + PENALTY * gradient_penalty(D, real, fake)
    return loss, (on_real.mean() - on_fake.mean()).detach()


def generator_loss(D: nn.Module, fake: Tensor, objective: str) -> Tensor:
    """What G minimizes: equation 1 for gan, equations 3 and 4 for the others; a scalar."""
    return softplus(-D(fake)).mean() if objective == "gan" else -D(fake).mean()


# ---- training -----------------------------------------------------------------------------------


def critic_steps(step: int) -> int:
    """Steps of D before generator step number `step`, counted from 0; from the authors' code."""
    return 100 if step < 25 or step % 500 == 0 else 5


def build(args: argparse.Namespace, device: torch.device) -> dict:
    """Networks and optimizers, new, by the names they have in checkpoint.pt."""
    torch.manual_seed(args.seed)
    G = generator(args.arch, args.norm)
    # a normalized critic's score would depend on the minibatch; the penalty would miss its slope
    D = discriminator(args.arch, args.norm if args.objective == "gan" else "none")
    for network in (G, D):
        network.to(device, memory_format=torch.channels_last)  # convolutions 1.2x faster on CPU
    if args.objective == "wgan":
        opt_g, opt_d = (torch.optim.RMSprop(network.parameters(), args.lr, alpha=0.9)
                        for network in (G, D))
    else:
        opt_g, opt_d = (torch.optim.Adam(network.parameters(), args.lr, (0.5, 0.9), fused=True)
                        for network in (G, D))
    return {"G": G, "D": D, "opt_g": opt_g, "opt_d": opt_d}


def train(args: argparse.Namespace) -> None:
    """The whole algorithm, from the data to the figures in args.out."""
    device = pick_device(args.device)
    train_x, train_y, test_x, test_y = mnist(args.data, device)
    train_x, train_y = train_x[: args.train_size], train_y[: args.train_size]
    train_x, test_x = (train_x > 0).float(), (test_x > 0).float()  # section 4.1

    parts, log, first, seconds = build(args, device), [], 0, 0.0
    G, D, opt_g, opt_d = parts.values()

    def save(epoch: int) -> None:
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"epoch": epoch, "log": log, "seconds": seconds}
        torch.save(state, args.out / "checkpoint.tmp")
        os.replace(args.out / "checkpoint.tmp", args.out / "checkpoint.pt")

    (args.out / "samples").mkdir(parents=True, exist_ok=bool(args.resume))
    options = {"script": "binarygan.py"} | {name: getattr(args, name) for name in STORED}
    (args.out / "options.json").write_text(json.dumps(options, indent=2) + "\n")
    if args.resume:
        saved = torch.load(args.out / "checkpoint.pt", map_location=device, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        first, log, seconds = saved["epoch"], saved["log"], saved["seconds"]
    else:
        save(0)
        save_grid(sample(args, G, 64, 0)[0], args.out / "samples" / "epoch-000.png")

    steps = len(train_x) // args.batch_size  # generator steps in an epoch
    total = sum(critic_steps(step) for step in range(args.epochs * steps))
    done = sum(critic_steps(step) for step in range(first * steps))
    print(f"{args.out}: {args.neuron}, {args.objective}, {args.arch}, norm {args.norm}, "
          f"on {device} ({torch.get_num_threads()} CPU threads), {first} of {args.epochs} epochs "
          f"done, {steps} generator steps each")
    bar = tqdm(total=total, initial=done, unit=" critic steps", smoothing=0.05)
    for epoch in range(first, args.epochs):
        start = time.perf_counter()
        torch.manual_seed(1_000_000 * (args.seed + 1) + epoch)  # an epoch depends on these alone
        slope = args.anneal**epoch
        batches = minibatches(train_x, args.batch_size)
        losses = []  # stay on the device until they are read, some fifty steps at a time
        for step in range(epoch * steps, (epoch + 1) * steps):
            for _ in range(critic_steps(step)):
                real = next(batches)
                with torch.no_grad():
                    z = torch.randn(args.batch_size, LATENT, device=device)
                    fake, _ = binary_neuron(G(z), slope, args.neuron)
                d_loss, estimate = discriminator_loss(D, real, fake, args.objective)
                opt_d.zero_grad()
                d_loss.backward(inputs=list(D.parameters()))  # none for the images between
                opt_d.step()
                if args.objective == "wgan":
                    clip(D)

            z = torch.randn(args.batch_size, LATENT, device=device)
            fake, _ = binary_neuron(G(z), slope, args.neuron)
            g_loss = generator_loss(D, fake, args.objective)
            opt_g.zero_grad()
            g_loss.backward(inputs=list(G.parameters()))  # D's parameters gather no gradient
            opt_g.step()

            losses.append(torch.stack([d_loss.detach(), g_loss.detach(), estimate]))
            bar.update(critic_steps(step))
            if len(losses) == 50 or step + 1 == (epoch + 1) * steps:
                means = torch.stack(losses).mean(0).tolist()
                if not all(map(math.isfinite, means)):
                    bar.close()
                    raise FloatingPointError(
                        f"a loss is not finite in generator steps {step + 2 - len(losses)} to "
                        f"{step + 1} (epoch {epoch + 1}); {args.out} holds epoch {epoch}")
                log.append([step + 1, *means])
                bar.set_postfix_str(f"epoch {epoch + 1}/{args.epochs}, D {means[0]:.3f}, "
                                    f"G {means[1]:.3f}, estimate {means[2]:.3f}")
                losses = []
        save_grid(sample(args, G, 64, epoch)[0], args.out / "samples" / f"epoch-{epoch + 1:03}.png")
        seconds += time.perf_counter() - start
        save(epoch + 1)
    bar.close()
    evaluate(args, G, D, log, seconds, (train_x, train_y, test_x, test_y))


@torch.no_grad()
def clip(D: nn.Module) -> None:
    """Keep D's weights in [-0.01, 0.01]: wgan's way to keep D Lipschitz continuous."""
    for parameter in D.parameters():
        parameter.clamp_(-CLIP, CLIP)


@torch.no_grad()
def sample(args: argparse.Namespace, G: nn.Module, count: int, epoch: int) -> tuple[Tensor, Tensor]:
    """`count` images and their preactivated outputs, both (count, 784), at the slope of `epoch`.

    The noise depends on args.seed alone: the same samples grow from picture to picture. An epoch
    seeds its own numbers, so that sampling between epochs does not disturb the training.
    """
    torch.manual_seed(args.seed)
    G.eval()  # batch normalization, where there is any, by its running statistics
    z = torch.randn(count, LATENT, device=next(G.parameters()).device)
    images, p = binary_neuron(G(z), args.anneal**epoch, args.neuron)
    G.train()
    return images, p


# ---- evaluation and figures ---------------------------------------------------------------------


def histogram(p: Tensor) -> Tensor:
    """The share of the preactivated outputs p in each of 256 equal bins of [0, 1]; (256,)."""
    return torch.histc(p, 256, 0, 1).cpu() / p.numel()


def histogram_curve(p: Tensor) -> tuple[list[float], list[float]]:
    """The histogram as a curve for figure 4: the middles of the bins, and the shares."""
    return [(i + 0.5) / 256 for i in range(256)], histogram(p).tolist()


def kl_divergence(p: Tensor, q: Tensor) -> float:
    """KL(p || q) in nats of two discrete distributions of the same shape; 0 log 0 is 0."""
    p, q = p[p > 0], q[p > 0]
    return (p * (p / q).log()).sum().item()


def mean_score(D: nn.Module, images: Tensor) -> float:
    """The mean of D over images (N, 784), in pieces that fit into memory."""
    return torch.cat([D(chunk) for chunk in images.split(1000)]).mean().item()


@torch.no_grad()
def evaluate(args: argparse.Namespace, G: nn.Module, D: nn.Module, log: list, seconds: float,
             data: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    """Write the run's metrics, figures and results.json, and print the results."""
    train_x, train_y, test_x, test_y = data
    with open(args.out / "metrics.csv", "w", newline="") as file:
        csv.writer(file).writerows([["generator_step", "d_loss", "g_loss", "estimate"], *log])
    steps, d_loss, g_loss, estimate = zip(*log)
    save_curves({"losses": {"D": (steps, d_loss), "G": (steps, g_loss)},
                 "E[D(x)] - E[D(G(z))]": {args.objective: (steps, estimate)}},
                args.out / "losses.png", "generator step")
    save_gif(sorted((args.out / "samples").glob("epoch-*.png")), args.out / "training.gif")

    images, p = sample(args, G, SAMPLES, args.epochs - 1)
    save_panels({"samples": images[:64], "preactivated outputs": p[:64]},
                args.out / "figure3-samples.png", 2, ("preactivated outputs",))
    masses = histogram(p)
    save_curves({"": {args.neuron: histogram_curve(p)}}, args.out / "figure4-histogram.png",
                "preactivated output", "share of outputs in bin", log=True)
    if args.neuron == "real":
        save_panels(binarizations(args, p[:64]), args.out / "figure5-binarized.png", 3)

    # For the count of digits the real-valued model is binarized at 1/2, as its users would.
    index, distance = nearest((images > 0.5).float(), train_x)
    real_index, real_distance = nearest(test_x, train_x)
    shares = torch.bincount(train_y[index], minlength=10) / SAMPLES
    results = {
        "parameters_G": sum(w.numel() for w in G.parameters()),
        "parameters_D": sum(w.numel() for w in D.parameters()),
        "histogram_first_bin": masses[0].item(),
        "histogram_last_bin": masses[-1].item(),
        "histogram_middle": masses[64:192].sum().item(),  # outputs from 1/4 to 3/4
        "histogram_notch": (masses[127:129].mean() / masses[96:160].mean()).item(),
        "digit_shares": shares.tolist(),
        "digits": (shares >= 0.02).sum().item(),
        "kl": kl_divergence(shares, torch.bincount(train_y, minlength=10) / len(train_y)),
        "median_distance": distance.median().item(),
        "median_distance_of_test_images": real_distance.median().item(),
        "label_accuracy_on_test_images": (train_y[real_index] == test_y).float().mean().item(),
    }
    if args.objective == "wgan-gp":  # with clipping the scale of D is not known
        fake = mean_score(D, images)
        results["wasserstein_train"] = mean_score(D, train_x) - fake
        results["wasserstein_test"] = mean_score(D, test_x) - fake
    results |= {"epochs": args.epochs, "seed": args.seed, "device": str(train_x.device),
                "threads": torch.get_num_threads(), "torch": torch.__version__,
                "training_seconds": round(seconds, 1)}
    (args.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    for name, value in results.items():
        value = " ".join(f"{v:.3f}" for v in value) if isinstance(value, list) else value
        print(f"{name:32}{value:.4g}" if isinstance(value, float) else f"{name:32}{value}")
    print(f"Pictures and numbers: {args.out}")


def binarizations(args: argparse.Namespace, p: Tensor) -> dict[str, Tensor]:
    """Figure 5: the real-valued outputs p (N, 784) and the two usual ways to make them binary."""
    torch.manual_seed(args.seed)
    return {"raw": p, "threshold 0.5": (p > 0.5).float(), "Bernoulli sampling": torch.bernoulli(p)}


# ---- all experiments of the paper ---------------------------------------------------------------


def load_samples(args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """The samples that the evaluation of a finished run counts, and their preactivated outputs."""
    saved = torch.load(args.out / "checkpoint.pt", map_location="cpu", weights_only=True)
    G = build(args, torch.device("cpu"))["G"]
    G.load_state_dict(saved["G"])
    return sample(args, G, SAMPLES, saved["epoch"] - 1)


def side_by_side(drawn: dict[str, tuple[Tensor, Tensor]], path: Path, across: int) -> None:
    """For each title a panel of samples and one of their preactivated outputs, as in figure 3."""
    panels = {f"{title}, {what}": images[:64] for title, pair in drawn.items()
              for what, images in zip(("samples", "preactivated"), pair)}
    save_panels(panels, path, across, tuple(panels)[1::2])


def figures_3_to_5(out: Path, runs: list[argparse.Namespace]) -> None:
    """Experiments I and II: the neurons."""
    drawn = {args.neuron: load_samples(args) for args in runs}
    side_by_side({neuron.upper(): drawn[neuron] for neuron in ("dbn", "sbn")},
                 out / "figure3-neurons.png", 2)
    save_curves({"": {neuron: histogram_curve(p) for neuron, (_, p) in drawn.items()}},
                out / "figure4-histograms.png", "preactivated output", "share of outputs in bin",
                log=True)
    save_panels(binarizations(runs[0], drawn["real"][1][:64]), out / "figure5-binarized.png", 3)


def figures_6_and_8(out: Path, runs: list[argparse.Namespace]) -> None:
    """Experiment III: the objectives."""
    drawn = {args.objective.upper() + (", batch norm" if args.norm == "batch" else ""):
             load_samples(args) for args in runs if args.seed == 0}
    save_panels({title: drawn[title][0][:64] for title in ("GAN", "WGAN")},
                out / "figure6-gan-wgan.png", 2)
    side_by_side(drawn, out / "figure8-objectives.png", 4)


def figure_7(out: Path, runs: list[argparse.Namespace]) -> None:
    """Experiment IV: the CNN."""
    drawn = {args.neuron: load_samples(args) for args in runs}
    _, threshold, bernoulli = binarizations(runs[0], drawn["real"][1][:64]).items()
    save_panels({"DBN": drawn["dbn"][0][:64], "SBN": drawn["sbn"][0][:64],
                 **{f"real, {title}": images for title, images in (threshold, bernoulli)}},
                out / "figure7-cnn.png", 4)


OBJECTIVES = ("gan", "wgan", "wgan-gp")
EXPERIMENTS = [  # the trainings of each, all else at its default, and what draws its figures
    ([f"--neuron {neuron}" for neuron in ("dbn", "sbn", "real")], figures_3_to_5),
    ([f"--objective {objective} --seed {seed}" for seed in (0, 1, 2) for objective in OBJECTIVES]
     + [f"--objective {objective} --norm batch" for objective in OBJECTIVES], figures_6_and_8),
    ([f"--neuron {neuron} --arch cnn" for neuron in ("dbn", "sbn", "real")], figure_7),
]


def configuration(args: argparse.Namespace) -> str:
    """The name of a run: what makes it different from the others of the paper."""
    return f"{args.neuron}-{args.objective}-{args.arch}-{args.norm}-seed{args.seed}"


def paper(args: argparse.Namespace) -> None:
    """Experiments I to IV, each with its figures and the table of all runs so far in args.out.

    A training that is already there is continued, or left alone when complete.
    """
    shared = ["--anneal", str(args.anneal), "--batch-size", str(args.batch_size), "--lr",
              str(args.lr), "--train-size", str(args.train_size), "--data", args.data, "--device",
              args.device]
    rows = {}
    for trainings, draw in EXPERIMENTS:
        runs = []
        for options in trainings:
            argv = [*options.split(), *shared]
            run = args.out / configuration(parse_args(argv))
            argv += ["--resume" if (run / "checkpoint.pt").exists() else "--out", str(run)]
            results = run / "results.json"
            if not results.exists() or json.loads(results.read_text())["epochs"] < args.epochs:
                print(f"\nTraining of {run.name}")
                train(parse_args([*argv, "--epochs", str(args.epochs)]))
            runs.append(parse_args([*options.split(), *shared, "--resume", str(run)]))
            rows[run.name] = {"run": run.name} | json.loads(results.read_text())
        draw(args.out, runs)
        save_table(args.out, list(rows.values()))


def save_table(out: Path, rows: list[dict]) -> None:
    """Write the results of the runs to results.csv, and print the most important ones."""
    names = dict.fromkeys(name for row in rows for name in row)  # in order, each once
    with open(out / "results.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    print(f"\n{'run':34}epochs  first bin  last bin  digits      KL  distance  seconds")
    for row in rows:
        print(f"{row['run']:34}{row['epochs']:6}{row['histogram_first_bin']:11.3f}"
              f"{row['histogram_last_bin']:10.4f}{row['digits']:8}{row['kl']:8.3f}"
              f"{row['median_distance']:10.2f}{row['training_seconds']:9.0f}")
    print(f"Figures and results.csv: {out}")


# ---- command line -------------------------------------------------------------------------------

KEPT = ("neuron", "objective", "arch", "norm", "anneal", "batch_size", "lr", "train_size", "seed")
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
        prog="binarygan.py", formatter_class=Formatter, allow_abbrev=False,
        description="BinaryGAN (Dong and Yang 2018): binary neurons at the generator's output.",
        epilog="""examples:
  python binarygan.py --neuron sbn                       the main job
  python binarygan.py --neuron sbn --epochs 1            a first look
  python binarygan.py --neuron dbn --arch cnn            another neuron, another network
  python binarygan.py --resume runs/binarygan/NAME       continue an interrupted run
  python binarygan.py --paper --epochs 2                 all experiments, shortened""")
    parser.set_defaults(out=None, resume=None, paper=False)  # here, --help need not show them
    model = parser.add_argument_group("the paper's choices")
    model.add_argument("--neuron", choices=("sbn", "dbn", "real"), default="sbn",
                       help="G's output: stochastic or deterministic binary neurons, or sigmoid")
    model.add_argument("--objective", choices=OBJECTIVES, default="wgan-gp",
                       help="what D and G minimize")
    model.add_argument("--arch", choices=("mlp", "cnn"), default="mlp", help="networks")
    model.add_argument("--norm", choices=("none", "batch"), default="none",
                       help="batch normalization in G (with gan in D, too)")
    model.add_argument("--anneal", type=number(float, 0.5, 2), default=1.1, metavar="X",
                       help="factor on the slope after each epoch; 1 switches annealing off")
    training = parser.add_argument_group("training")
    training.add_argument("--epochs", type=number(int, 1, 10**6), default=20, metavar="N",
                          help="an epoch has as many generator steps as there are minibatches")
    training.add_argument("--batch-size", type=number(int, 2, 60_000), default=64, metavar="N",
                          help="images in a minibatch")
    training.add_argument("--lr", type=number(float, 1e-9, 10), default=1e-4, metavar="X",
                          help="learning rate")
    training.add_argument("--train-size", type=number(int, 2, 60_000), default=60_000, metavar="N",
                          help="train on the first N training images")
    training.add_argument("--seed", type=number(int, 0, 10**9), default=0, metavar="N",
                          help="of weights, minibatches and noise")
    run = parser.add_argument_group("run")
    run.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto",
                     help="auto is cuda, else cpu; mps is untested")
    run.add_argument("--data", default="data", metavar="DIR", help="folder of the data set")
    run.add_argument("--out", type=Path, default=argparse.SUPPRESS, metavar="DIR",
                     help="folder to make (default: runs/binarygan/DATE-TIME-CONFIGURATION)")
    run.add_argument("--resume", type=Path, default=argparse.SUPPRESS, metavar="DIR",
                     help="continue the run in DIR; only --epochs, --device and --data may differ")
    run.add_argument("--paper", action="store_true", default=argparse.SUPPRESS,
                     help="experiments I to IV with figures 3 to 8; continues what was stopped")
    args = parser.parse_args(argv)

    if args.resume:
        if args.paper or args.out:
            parser.error("argument --resume: not allowed with --paper or --out")
        try:
            stored = json.loads((args.resume / "options.json").read_text())
            epochs = torch.load(args.resume / "checkpoint.pt", "cpu", weights_only=True)["epoch"]
        except Exception:  # what a damaged file raises depends on the damage
            stored = {}
        if stored.pop("script", None) != "binarygan.py" or stored.keys() != {*STORED}:
            parser.error(f"argument --resume: {args.resume} holds no whole run of binarygan.py")
        args = parser.parse_args(argv, argparse.Namespace(**stored))  # stored values as defaults
        for name in KEPT:
            if getattr(args, name) != stored[name]:
                parser.error(f"argument --{name.replace('_', '-')}: the run in {args.resume} has "
                             f"{stored[name]}, which --resume keeps")
        if args.epochs < epochs:
            parser.error(f"argument --epochs: the run in {args.resume} has {epochs} already")
        args.out = args.resume
    elif args.paper:
        for name in ("neuron", "objective", "arch", "norm", "seed"):
            if getattr(args, name) != parser.get_default(name):
                parser.error(f"argument --{name}: --paper runs through its values itself")
        args.out = args.out or Path("runs/binarygan/paper")
    else:
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{configuration(args)}"
        args.out = args.out or Path("runs/binarygan") / name
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
                                         f"python binarygan.py {options}"), file=sys.stderr)
        sys.exit(130)
    except (OSError, FloatingPointError) as error:
        sys.exit(f"binarygan.py: error: {error}")


if __name__ == "__main__":
    main()
