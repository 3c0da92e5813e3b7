"""Binary seeds for WGAN-GP: coins in place of the generator's normal numbers, or beside them.

Arnaud Sors, Stephane Bonnet, Laurent Vercueil and Jean-Francois Payen, "Binary seeds for
generative adversarial networks", 2017.

The idea. A generator G turns a seed z, which is noise, into an image. Usually z is normal. But
digits come in kinds, and a smooth map of one Gaussian has to morph each kind into the next. So:

    z = [z_c, z_b],  z_c: n_c normal numbers,  z_b: n_b fair coins, 0 or 1       section 3.2

and nothing else changes. How large should n_c and n_b be? The critic C of a Wasserstein GAN can
tell, as long as it is close to its optimum (equation 3; x_r real images, x_g = G(z)):

    C minimizes   L1 + lambda L2,  L1 = E[C(x_g)] - E[C(x_r)],  L2 = E[(|grad C(x~)| - 1)^2]
    G maximizes   L1,              x~ uniform on the line between an x_r and an x_g

What is compared is -L1, the estimate of the Wasserstein distance: positive, and lower is better.

    paper                              command                                     file
    figure 1  samples                  python wgan_gp_binary_seed.py               figure1-*.png
    figure 2  critic loss in training  python wgan_gp_binary_seed.py               figure2-*.png
    figure 4  z_c fixed, z_b fixed     python wgan_gp_binary_seed.py               figure4-*.png
    figures 2 and 3, the search        python wgan_gp_binary_seed.py --paper       figure2, figure3

What the estimate is worth
- It is comparable: given a --seed, every (n_c, n_b) has the same critic to begin with, and the
  same training images in the same order.
- It wants a critic that keeps up with G. results.json has the paper's number, the mean of the last
  200 critic steps of the training; and, as "final", one with G at rest: after 100 more critic
  steps, the mean of another 200.
- It is not exact, for the penalty only discourages slopes above 1. Between two point masses at
  distance d a critic of slope s gains d s and pays lambda (s - 1)^2. The best slope is therefore
  1 + d / (2 lambda), and the estimate d (1 + d / (2 lambda)), not d. An optimal critic's is too
  high, the more so the larger the distance, and that of a critic that lags behind is lower: the
  order of two models counts, not their ratio.
- A critic can learn its training images by heart. So each step also makes the estimate on test
  images, another 50 every time, all 10,000 in 200 steps. The difference is the overfitting.

What the paper leaves open, and what we add
- "Occasionally 100 critic iterations": such a stretch opens every epoch, so that C is close to its
  optimum before G's first step and again after each pass; none is in the last 200 critic steps.
  An epoch is 78 generator steps, for which 6 critic steps each make one pass over the training
  images. The stretch comes on top, from a second pass.
- Adam's betas: (0.5, 0.9), as in Gulrajani et al. 2017, arXiv 1704.00028.
- 'Same' padding at stride 2 halves the size in C and doubles it in G, whose convolutions must be
  transposed ones: the paper has the same words for both.
- "z_b mostly codes for shape and z_c mostly codes for style" is left to the eye, in figure 4. We
  count how many samples keep their digit when z_c alone, or z_b alone, is drawn anew.

Things to try: `--n-c 4 --n-b 0`, which the paper found slow; `--n-c 0 --n-b 4`, sixteen images in
all; `--n-c 1 --n-b 4`, and look at figure 4; nn.LeakyReLU in the critic, and the clock.
"""

import argparse
import csv
import json
import math
import os
import shlex
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import conv1d
from tqdm import tqdm

from common import minibatches, mnist, nearest, save_curves, save_gif, save_grid, save_panels

PENALTY = 10.0  # lambda of the gradient penalty; section 4
CRITIC_STEPS = 6  # of the critic to a generator step; section 4
STRETCH = 100  # critic steps "to make sure the critic has remained optimal"; section 4
LAST = 200  # critic steps whose mean is the reported estimate; section 4.1
WINDOW = 50  # critic steps under the Hanning window of figure 2
DIMS = (0, 2, 4, 7, 12, 21, 36, 64, 112, 196)  # values of n_c and n_b; section 4.1
SELECTION = ((4, 0), (12, 0), (36, 0), (0, 4), (0, 12), (0, 36), (7, 12))  # curves of figure 2
SAMPLES = 10_000  # generated images that the evaluation counts


# ---- seed and networks --------------------------------------------------------------------------


def draw_z(count: int, n_c: int, n_b: int, device: torch.device) -> Tensor:
    """Seeds z = [z_c, z_b] of section 3.2, (count, n_c + n_b): normal numbers, then fair coins."""
    z_c = torch.randn(count, n_c, device=device)
    z_b = torch.randint(2, (count, n_b), device=device)
    return torch.cat([z_c, z_b.float()], dim=1)


def generator(n_z: int) -> nn.Sequential:
    """G: z (N, n_z) -> images (N, 784). "(6272-fc)-(128-reshape)-(64-conv-5-2)-(1-conv-5-2)".

    Section 4. 6272 (n_z + 1) + 206,465 parameters, which is 331,905 for n_z = 7 + 12.
    """
    return nn.Sequential(  # 7 -> 14 -> 28 pixels; without output_padding 13 and 25
        nn.Linear(n_z, 6272), nn.LeakyReLU(0.1), nn.Unflatten(1, (128, 7, 7)),
        nn.ConvTranspose2d(128, 64, 5, stride=2, padding=2, output_padding=1), nn.LeakyReLU(0.1),
        nn.ConvTranspose2d(64, 1, 5, stride=2, padding=2, output_padding=1), nn.Sigmoid(),
        nn.Flatten())


class LeakyReLU(nn.Module):
    """nn.LeakyReLU(0.1), but its slope is a constant to autograd, as it is piece by piece.

    Through the second derivative of nn.LeakyReLU the penalty sends zeros back, which the
    convolutions then process at full price: a seventh of all operations of a critic step.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.where(x > 0, 1.0, 0.1)


def critic() -> nn.Sequential:
    """C: images (N, 784) -> scores (N, 1). "The same (transposed) architecture", section 4.

    212,865 parameters; no activation on the output.
    """
    return nn.Sequential(  # 28 -> 14 -> 7 pixels
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 64, 5, stride=2, padding=2), LeakyReLU(),
        nn.Conv2d(64, 128, 5, stride=2, padding=2), LeakyReLU(),
        nn.Flatten(), nn.Linear(6272, 1))


# ---- objective ----------------------------------------------------------------------------------


def gradient_penalty(C: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """L2 = E[(|grad C(x~)| - 1)^2] of equation 3; a scalar.

    real, fake (N, 784); one epsilon per image, and the norm over all pixels of an image.
    """
    epsilon = torch.rand(len(real), 1, device=real.device)
    between = (epsilon * real + (1 - epsilon) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(C(between).sum(), between, create_graph=True)
    return ((gradient.norm(dim=1) - 1) ** 2).mean()


def critic_loss(C: nn.Module, real: Tensor, fake: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Equation 3: what C minimizes, L1 + lambda L2; a scalar.

    Also returns the estimates -L1 = E[C(x_r)] - E[C(x_g)] with x_r the real images, which C learns
    from, and with x_r the test images, which it does not; (2,), without gradient.
    """
    on_real, on_fake = C(torch.cat([real, fake])).chunk(2)
    loss = on_fake.mean() - on_real.mean() + PENALTY * gradient_penalty(C, real, fake)
    with torch.no_grad():
        estimates = torch.stack([on_real.mean(), C(test).mean()]) - on_fake.mean()
    return loss, estimates


def generator_loss(C: nn.Module, fake: Tensor) -> Tensor:
    """What G minimizes: -E[C(G(z))], the part of -L1 that depends on G; a scalar."""
    return -C(fake).mean()


# ---- training -----------------------------------------------------------------------------------


def critic_steps(step: int, steps: int) -> int:
    """Steps of C before generator step number `step`, counted from 0, of `steps` in an epoch.

    A stretch opens each epoch, but for one so short that fewer than 200 steps of C would follow.
    """
    return STRETCH if step % steps == 0 and CRITIC_STEPS * (steps - 1) >= LAST else CRITIC_STEPS


def build(args: argparse.Namespace, device: torch.device) -> dict:
    """Networks and optimizers, new, by the names they have in checkpoint.pt."""
    torch.manual_seed(args.seed)
    C = critic().to(device)  # before G: the same one, whatever the size of the seed
    G = generator(args.n_c + args.n_b).to(device)
    opt_c, opt_g = (torch.optim.Adam(network.parameters(), args.lr, (0.5, 0.9), fused=True)
                    for network in (C, G))
    return {"C": C, "G": G, "opt_c": opt_c, "opt_g": opt_g}


def begin_epoch(args: argparse.Namespace, train_x: Tensor, epoch: int) -> Iterator[Tensor]:
    """Seed the numbers of an epoch, which depend on (seed, epoch) alone; return its minibatches.

    Their order has a random generator of its own: z takes more or fewer numbers, by n_c and n_b.
    """
    number = 1_000_000 * (args.seed + 1) + epoch
    torch.manual_seed(number)
    order = torch.Generator(train_x.device).manual_seed(number + 500_000)
    return minibatches(train_x, args.batch_size, order)


def critic_step(args: argparse.Namespace, parts: dict, real: Tensor, test: Tensor) -> Tensor:
    """One step of C on real images (N, 784) and as many fake ones.

    Returns (3,), from before the step: loss, estimate on the real and on the test images.
    """
    C, G, opt_c, _ = parts.values()
    with torch.no_grad():
        fake = G(draw_z(len(real), args.n_c, args.n_b, real.device))
    c_loss, estimates = critic_loss(C, real, fake, test)
    opt_c.zero_grad()
    c_loss.backward(inputs=list(C.parameters()))  # none for the images between
    opt_c.step()
    return torch.cat([c_loss.detach().view(1), estimates])


def train(args: argparse.Namespace) -> None:
    """The whole algorithm, from the data to the figures in args.out."""
    device = pick_device(args.device)
    train_x, train_y, test_x, test_y = mnist(args.data, device)
    train_x, train_y = train_x[: args.train_size], train_y[: args.train_size]

    parts, log, first, seconds = build(args, device), [], 0, 0.0
    C, G, opt_c, opt_g = parts.values()

    def save(epoch: int) -> None:
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"epoch": epoch, "log": log, "seconds": seconds}
        torch.save(state, args.out / "checkpoint.tmp")
        os.replace(args.out / "checkpoint.tmp", args.out / "checkpoint.pt")

    (args.out / "samples").mkdir(parents=True, exist_ok=bool(args.resume))
    options = {"script": "wgan_gp_binary_seed.py"} | {name: getattr(args, name) for name in STORED}
    (args.out / "options.json").write_text(json.dumps(options, indent=2) + "\n")
    if args.resume:
        saved = torch.load(args.out / "checkpoint.pt", map_location=device, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        first, log, seconds = saved["epoch"], saved["log"], saved["seconds"]
    else:
        save(0)
        save_grid(sample(args, G), args.out / "samples" / "epoch-000.png")

    steps = max(1, len(train_x) // args.batch_size // CRITIC_STEPS)  # generator steps in an epoch
    total = sum(critic_steps(step, steps) for step in range(args.epochs * steps))
    print(f"{args.out}: n_c {args.n_c}, n_b {args.n_b}, on {device} ({torch.get_num_threads()} CPU "
          f"threads), {first} of {args.epochs} epochs done, {steps} generator steps each")
    bar = tqdm(total=total, initial=len(log), unit=" critic steps", smoothing=0.05)
    for epoch in range(first, args.epochs):
        start = time.perf_counter()
        batches = begin_epoch(args, train_x, epoch)
        losses = []  # stay on the device until they are read, some fifty critic steps at a time
        for step in range(epoch * steps, (epoch + 1) * steps):
            for _ in range(critic_steps(step, steps)):
                held_out = test_x[(len(log) + len(losses)) % LAST :: LAST]
                losses.append(critic_step(args, parts, next(batches), held_out))
                bar.update()

            fake = G(draw_z(args.batch_size, args.n_c, args.n_b, device))
            g_loss = generator_loss(C, fake)
            opt_g.zero_grad()
            g_loss.backward(inputs=list(G.parameters()))  # C's parameters gather no gradient
            opt_g.step()

            if len(losses) >= 50 or step + 1 == (epoch + 1) * steps:
                rows = torch.stack(losses).tolist()
                # of the generator's losses the last is enough: from nan there is no way back
                if not all(map(math.isfinite, [g_loss.item(), *sum(rows, [])])):
                    bar.close()
                    raise FloatingPointError(
                        f"a loss is not finite in critic steps {len(log) + 1} to {len(log + rows)} "
                        f"(epoch {epoch + 1}); {args.out} holds epoch {epoch}")
                log += rows
                means = torch.tensor(rows).mean(0)
                bar.set_postfix_str(f"epoch {epoch + 1}/{args.epochs}, loss {means[0]:.3f}, "
                                    f"estimate {means[1]:.3f}, on test images {means[2]:.3f}")
                losses = []
        save_grid(sample(args, G), args.out / "samples" / f"epoch-{epoch + 1:03}.png")
        seconds += time.perf_counter() - start
        save(epoch + 1)
    bar.close()
    evaluate(args, parts, log, seconds, (train_x, train_y, test_x, test_y))


@torch.no_grad()
def generate(G: nn.Module, z: Tensor) -> Tensor:
    """Images (N, 784) from seeds z (N, n_c + n_b), in pieces that fit into memory."""
    return torch.cat([G(chunk) for chunk in z.split(1000)])


def sample(args: argparse.Namespace, G: nn.Module) -> Tensor:
    """64 images (64, 784) from seeds that depend on args.seed alone.

    So the same samples grow from picture to picture. An epoch seeds its own numbers, so that
    sampling between epochs does not disturb the training.
    """
    torch.manual_seed(args.seed)
    return generate(G, draw_z(64, args.n_c, args.n_b, next(G.parameters()).device))


# ---- evaluation and figures ---------------------------------------------------------------------


def final_stretch(args: argparse.Namespace, parts: dict, train_x: Tensor, test_x: Tensor) -> Tensor:
    """Another 300 steps of C with G at rest. Of the last 200, the rows (200, 3) of critic_step.

    checkpoint.pt was saved before: a run that is continued knows nothing of them.
    """
    batches = begin_epoch(args, train_x, args.epochs)
    rows = [critic_step(args, parts, next(batches), test_x[step % LAST :: LAST])
            for step in tqdm(range(STRETCH + LAST), "final critic steps", leave=False)]
    return torch.stack(rows[-LAST:])


def smooth(values: Tensor) -> Tensor:
    """Means of values (N,) under a Hanning window of 50, as in figure 2; (N,).

    At either end, the mean under that part of the window which lies on the curve.
    """
    window = torch.hann_window(WINDOW, periodic=False, dtype=values.dtype).view(1, 1, -1)
    sums = [conv1d(x.view(1, 1, -1), window, padding=WINDOW // 2).flatten()[: len(x)]
            for x in (values, torch.ones_like(values))]
    return sums[0] / sums[1]


def kl_divergence(p: Tensor, q: Tensor) -> float:
    """KL(p || q) in nats of two discrete distributions of the same shape; 0 log 0 is 0."""
    p, q = p[p > 0], q[p > 0]
    return (p * (p / q).log()).sum().item()


def groups(args: argparse.Namespace, G: nn.Module) -> dict[str, Tensor]:
    """Figure 4: groups of 16 images (16, 784), a1 to a6 and b1 to b6, drawn once, not selected.

    In an a-group all have the same z_c, in a b-group the same z_b. A group in which nothing is
    left to vary is left out: a with n_b = 0, b with n_c = 0.
    """
    torch.manual_seed(args.seed)
    panels = {}
    for name, fixed, varies in (("a{}: z_c fixed", slice(None, args.n_c), args.n_b),
                                ("b{}: z_b fixed", slice(args.n_c, None), args.n_c)):
        for number in range(1, 7) if varies else ():
            z = draw_z(16, args.n_c, args.n_b, next(G.parameters()).device)
            z[:, fixed] = z[0, fixed]
            panels[name.format(number)] = generate(G, z)
    return panels


def evaluate(args: argparse.Namespace, parts: dict, log: list, seconds: float,
             data: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    """Write the run's metrics, figures and results.json, and print the results."""
    start = time.perf_counter()
    train_x, train_y, test_x, test_y = data
    G = parts["G"]
    with open(args.out / "metrics.csv", "w", newline="") as file:
        rows = ([step, *row] for step, row in enumerate(log, 1))
        csv.writer(file).writerows([["critic_step", "c_loss", "train", "test"], *rows])
    steps, (_, train, test) = range(1, len(log) + 1), torch.tensor(log).T
    save_curves({"step by step": {"training images": (steps, train), "test images": (steps, test)},
                 "Hanning window of 50": {"training images": (steps, smooth(train)),
                                          "test images": (steps, smooth(test))}},
                args.out / "figure2-critic.png", "critic step", "E[C(x)] - E[C(G(z))]", log=True)
    save_gif(sorted((args.out / "samples").glob("epoch-*.png")), args.out / "training.gif")
    save_grid(sample(args, G), args.out / "figure1-samples.png")
    save_panels(groups(args, G), args.out / "figure4-groups.png", 6, columns=4)

    results = {"n_c": args.n_c, "n_b": args.n_b, "seed": args.seed, "epochs": args.epochs}
    for name, rows in (("", torch.tensor(log[-LAST:])),
                       ("_final", final_stretch(args, parts, train_x, test_x))):
        _, train, test = rows.mean(0).tolist()
        results |= {f"wasserstein_train{name}": train, f"wasserstein_test{name}": test,
                    f"overfitting{name}": train - test}

    torch.manual_seed(args.seed)
    z, redrawn = (draw_z(SAMPLES, args.n_c, args.n_b, train_x.device) for _ in range(2))
    index, distance = nearest(generate(G, z), train_x)
    real_index, real_distance = nearest(test_x, train_x)
    labels = train_y[index]
    shares = torch.bincount(labels, minlength=10) / SAMPLES
    results |= {
        "digit_shares": shares.tolist(),
        "digits": (shares >= 0.02).sum().item(),
        "kl": kl_divergence(shares, torch.bincount(train_y, minlength=10) / len(train_y)),
        "median_distance": distance.median().item(),
        "median_distance_of_test_images": real_distance.median().item(),
        "label_accuracy_on_test_images": (train_y[real_index] == test_y).float().mean().item(),
        "kept_if_all_redrawn": shares.square().sum().item(),  # of two independent samples
    }
    for name, part, size in (("z_c", slice(None, args.n_c), args.n_c),
                             ("z_b", slice(args.n_c, None), args.n_b)):
        if size:
            changed = z.clone()
            changed[:, part] = redrawn[:, part]
            index, _ = nearest(generate(G, changed), train_x)
            results[f"kept_if_{name}_redrawn"] = (train_y[index] == labels).float().mean().item()
    for name, network in (("C", parts["C"]), ("G", G)):
        results[f"parameters_{name}"] = sum(w.numel() for w in network.parameters())
    results |= {"device": str(train_x.device), "threads": torch.get_num_threads(),
                "torch": torch.__version__, "training_seconds": round(seconds, 1),
                "evaluation_seconds": round(time.perf_counter() - start, 1)}
    (args.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    for name, value in results.items():
        value = " ".join(f"{v:.3f}" for v in value) if isinstance(value, list) else value
        print(f"{name:32}{value:.4g}" if isinstance(value, float) else f"{name:32}{value}")
    print(f"Pictures and numbers: {args.out}")


# ---- the search of section 4.1 ------------------------------------------------------------------


def configuration(args: argparse.Namespace) -> str:
    """The name of a run: what makes it different from the others of the search."""
    return f"c{args.n_c}-b{args.n_b}-seed{args.seed}"


def trainings(dims: list[int]) -> list[tuple[int, int, int]]:
    """(n_c, n_b, seed) of every training, in order: n_c and n_b from dims, not both 0.

    Figure 2's selection comes first, with three seeds, since the paper's claims compare it: a
    search that is stopped has then something to say.
    """
    grid = [(n_c, n_b) for n_c in dims for n_b in dims if n_c or n_b]
    compared = [pair for pair in SELECTION if pair in grid]
    return ([(*pair, seed) for seed in (0, 1, 2) for pair in compared]
            + [(*pair, 0) for pair in grid if pair not in compared])


def finished(run: Path, epochs: int) -> dict | None:
    """The results of a run, with its name, or None while it has not had so many epochs."""
    if not (run / "results.json").exists():
        return None
    results = {"run": run.name} | json.loads((run / "results.json").read_text())
    return results if results["epochs"] == epochs else None


def figure_2(out: Path, rows: list[dict]) -> None:
    """The smoothed estimates of the selection, or of all runs where none of it is there; seed 0."""
    names = {(row["n_c"], row["n_b"]): row["run"] for row in rows if row["seed"] == 0}
    curves = {}
    for n_c, n_b in [pair for pair in SELECTION if pair in names] or names:
        with open(out / names[n_c, n_b] / "metrics.csv", newline="") as file:
            values = torch.tensor([float(row["train"]) for row in csv.DictReader(file)])
        curves[f"n_c = {n_c}, n_b = {n_b}"] = (range(1, len(values) + 1), smooth(values))
    save_curves({"Hanning window of 50": curves}, out / "figure2-critic.png", "critic step",
                "E[C(x)] - E[C(G(z))]", log=True)


def heat_map(rows: list[dict], dims: list[int], name: str) -> Tensor:
    """Figure 3: the number `name` of the runs with seed 0, by [n_b, n_c], else nan."""
    cells = torch.full((len(dims), len(dims)), math.nan)
    for row in rows:
        if row["seed"] == 0:
            cells[dims.index(row["n_b"]), dims.index(row["n_c"])] = row[name]
    return cells


def figure_3(out: Path, rows: list[dict], dims: list[int]) -> None:
    """The heat map twice: with the number that the paper takes, and with G at rest."""
    size = 2 + 0.5 * len(dims)
    figure = Figure(figsize=(2 * size + 1, size), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, 2), (
            ("wasserstein_train", "last 200 critic steps of the training"),
            ("wasserstein_train_final", "final stretch, G at rest"))):
        cells = heat_map(rows, dims, name)
        shown = axes.imshow(cells.numpy(), cmap="viridis_r", alpha=0.6)  # the numbers are black
        for i, j in (~cells.isnan()).nonzero().tolist():
            axes.text(j, i, f"{cells[i, j]:.2f}", ha="center", va="center", fontsize=8)
        axes.set(title=title, xlabel="n_c", ylabel="n_b")
        axes.set_xticks(range(len(dims)), dims)
        axes.set_yticks(range(len(dims)), dims)
        figure.colorbar(shown, ax=axes, shrink=0.8)
    figure.savefig(out / "figure3-search.png", dpi=150)


def save_table(out: Path, rows: list[dict]) -> None:
    """Write the results of the runs to results.csv, and print the most important ones."""
    names = dict.fromkeys(name for row in rows for name in row)  # in order, each once
    with open(out / "results.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    print(f"\n{'run':20}epochs  estimate  on test  final estimate  on test      KL  seconds")
    for row in rows:
        print(f"{row['run']:20}{row['epochs']:6}{row['wasserstein_train']:10.3f}"
              f"{row['wasserstein_test']:9.3f}{row['wasserstein_train_final']:16.3f}"
              f"{row['wasserstein_test_final']:9.3f}{row['kl']:8.3f}{row['training_seconds']:9.0f}")
    print(f"Figures and results.csv: {out}")


def paper(args: argparse.Namespace) -> None:
    """The search over args.dims, with figures 2 and 3 and the table of all runs so far in args.out.

    A training that is already there is continued, or left alone when complete. All the options
    are looked at before the first training: one that is there must have the same.
    """
    shared = ["--batch-size", str(args.batch_size), "--lr", str(args.lr), "--train-size",
              str(args.train_size), "--data", args.data, "--device", args.device]
    runs = {}
    for n_c, n_b, seed in trainings(args.dims):
        argv = [*f"--n-c {n_c} --n-b {n_b} --seed {seed} --epochs {args.epochs}".split(), *shared]
        run = args.out / configuration(parse_args(argv))
        there = (run / "checkpoint.pt").exists()
        runs[run] = parse_args([*argv, "--resume" if there else "--out", str(run)])
    while True:
        rows = [row for run in runs if (row := finished(run, args.epochs))]
        if rows:
            figure_2(args.out, rows)
            figure_3(args.out, rows, args.dims)
            save_table(args.out, rows)
        left = [run for run in runs if not finished(run, args.epochs)]
        if not left:
            return
        print(f"\nTraining of {left[0].name}. Left: {len(left)} of {len(runs)} trainings", end="")
        if rows:
            mean = statistics.mean(r["training_seconds"] + r["evaluation_seconds"] for r in rows)
            print(f", about {len(left) * mean / 3600:.1f} hours", end="")
        print()
        train(runs[left[0]])


# ---- command line -------------------------------------------------------------------------------

KEPT = ("n_c", "n_b", "batch_size", "lr", "train_size", "seed")
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
        prog="wgan_gp_binary_seed.py", formatter_class=Formatter, allow_abbrev=False,
        description="Binary seeds (Sors et al. 2017): WGAN-GP whose seed is normal numbers, "
                    "coins, or both.",
        epilog="""examples:
  python wgan_gp_binary_seed.py                            the paper's mixed seed, 7 + 12
  python wgan_gp_binary_seed.py --epochs 1                 a first look
  python wgan_gp_binary_seed.py --n-c 0 --n-b 12           a seed of coins alone
  python wgan_gp_binary_seed.py --resume DIR               continue an interrupted run
  python wgan_gp_binary_seed.py --paper                    the whole search
  python wgan_gp_binary_seed.py --paper --dims 0 4 12      a part of it""")
    parser.set_defaults(out=None, resume=None, paper=False)  # here, --help need not show them
    model = parser.add_argument_group("the paper's choices")
    model.add_argument("--n-c", type=number(int, 0, 10_000), default=7, metavar="N",
                       help="normal numbers in the seed")
    model.add_argument("--n-b", type=number(int, 0, 10_000), default=12, metavar="N",
                       help="binary numbers in the seed")
    model.add_argument("--dims", type=number(int, 0, 10_000), nargs="+", default=list(DIMS),
                       metavar="N", help="with --paper: the values of n_c and of n_b")
    training = parser.add_argument_group("training")
    training.add_argument("--epochs", type=number(int, 1, 10**6), default=9, metavar="N",
                          help="an epoch has a generator step per 6 minibatches: about one pass "
                               "of the critic over the training images")
    training.add_argument("--batch-size", type=number(int, 2, 60_000), default=128, metavar="N",
                          help="images in a minibatch")
    training.add_argument("--lr", type=number(float, 1e-9, 10), default=1e-3, metavar="X",
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
                     help="folder to make (default: "
                          "runs/wgan_gp_binary_seed/DATE-TIME-CONFIGURATION)")
    run.add_argument("--resume", type=Path, default=argparse.SUPPRESS, metavar="DIR",
                     help="continue the run in DIR; only --epochs, --device and --data may differ")
    run.add_argument("--paper", action="store_true", default=argparse.SUPPRESS,
                     help="the search with figures 2 and 3; continues what was stopped")
    args = parser.parse_args(argv)

    if args.resume:
        if args.paper or args.out:
            parser.error("argument --resume: not allowed with --paper or --out")
        try:
            stored = json.loads((args.resume / "options.json").read_text())
            epochs = torch.load(args.resume / "checkpoint.pt", "cpu", weights_only=True)["epoch"]
        except Exception:  # what a damaged file raises depends on the damage
            stored = {}
        if stored.pop("script", None) != "wgan_gp_binary_seed.py" or stored.keys() != {*STORED}:
            parser.error(f"argument --resume: {args.resume} holds no whole run of "
                         "wgan_gp_binary_seed.py")
        args = parser.parse_args(argv, argparse.Namespace(**stored))  # stored values as defaults
        for name in KEPT:
            if getattr(args, name) != stored[name]:
                parser.error(f"argument --{name.replace('_', '-')}: the run in {args.resume} has "
                             f"{stored[name]}, which --resume keeps")
        if args.epochs < epochs:
            parser.error(f"argument --epochs: the run in {args.resume} has {epochs} already")
        args.out = args.resume
    elif args.paper:
        for name in ("n_c", "n_b", "seed"):
            if getattr(args, name) != parser.get_default(name):
                parser.error(f"argument --{name.replace('_', '-')}: --paper runs through its "
                             "values itself")
        args.dims = sorted(set(args.dims))
        args.out = args.out or Path("runs/wgan_gp_binary_seed/paper")
    else:
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{configuration(args)}"
        args.out = args.out or Path("runs/wgan_gp_binary_seed") / name
        if args.out.exists():
            parser.error(f"argument --out: {args.out} exists; name a new folder, "
                         f"or continue the run in it with --resume {args.out}")
    if args.n_c == args.n_b == 0:
        parser.error("argument --n-c: 0 together with --n-b 0 leaves no seed; accepted: 1 or more")
    if args.dims == [0]:
        parser.error("argument --dims: 0 alone leaves no seed; name other values, too")
    if args.dims != list(DIMS) and not args.paper:
        parser.error("argument --dims: goes with --paper")
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
                                         f"python wgan_gp_binary_seed.py {options}"),
              file=sys.stderr)
        sys.exit(130)
    except (OSError, FloatingPointError) as error:
        sys.exit(f"wgan_gp_binary_seed.py: error: {error}")


if __name__ == "__main__":
    main()
