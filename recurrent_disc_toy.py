"""Recurrent discrimination, the toy: the likelihood of a set of samples, exactly known.

Ben Striner, "Bi-Directional Generative Recurrent Adversarial Networks", 2016, section 3.1. (The
paper is anonymous; its code is not.) Section 3.2 is in recurrent_disc.py, section 4 in bigran.py.

The idea. A GAN may collapse: its generator makes good ones, and nothing else. A discriminator that
sees a single image objects weakly: a one is more often generated than real, but still a fine digit.
Each further image multiplies the odds: so many ones in a row are unlikely among real digits. And
only with sets does the gradient of one sample depend on the others. Recurrent discrimination is an
LSTM that reads a set of k samples, with a sigmoid after each of them. Output i has seen samples 1
to i, and is the probability that they are real.

How much does each further sample tell? In this toy we know it. Real samples are one of 10
categories. Generated samples are one of the first 5: all modes of one half, none of the other. Any
k of the first 5 categories have probability 10^-k if real, 5^-k if generated. The ratio is p^k with
p = 1/2. With as many real sets as generated ones, Bayes' rule gives

    D_k = p^k / (1 + p^k) = 1/3, 1/5, 1/9, 1/17 ...

for each of those sets, and 1 for every set that holds one of the other 5 categories, in any place.

The objective: cross entropy after every sample. D_i is the output after sample i of a set; the
means are over i and over sets.

    D minimizes  - E[log D_i(real)] - E[log(1 - D_i(generated))]                              (1)

It is least where the LSTM's outputs are the probabilities above. No generator is trained. But what
the best discriminator could tell one is known: (1) is then 2 ln 2 - 2 JSD, JSD the Jensen-Shannon
divergence of real and generated sets of size k. With p the share of real samples that are of a kind
that the generator makes, and M the mean of both distributions, it is

    JSD_k = KL(real || M) / 2 + KL(generated || M) / 2,    KL(generated || M) = ln(2 / (1 + p^k)),
    KL(real || M) = p^k ln(2 p^k / (1 + p^k)) + (1 - p^k) ln 2                                (2)

    figure 3  learned and exact       python recurrent_disc_toy.py               figure3-toy.png
    figure 3  for longer sets         python recurrent_disc_toy.py --set-size 6  figure3-toy.png
    JSD_k by the dropped share 1 - p  python recurrent_disc_toy.py               divergence.png
    figure 3  with three seeds        python reproduce.py recurrent_disc_toy     figure3-seeds.png

Where this differs from the paper or the author's code (measured in docs/recurrent_disc_toy.md):
- The paper's table is for one sequence, 0, 0, 0, 0. Here it is the mean over all 5^k sequences,
  and the largest error of any.
- We train for 2,000 steps of 128 sets, the author for 10,000 steps of 128 / k sets.
- The learning rate falls from 2e-3 to 0; the author's is 1e-4, and falls as 1 / (1 + 0.001 step).
- The evaluated weights are the mean of those after each step of the second half. The weights of a
  single step follow the few minibatches before it.
- Weights are initialized as in PyTorch, the author's as in Keras of 2016. The gates of the LSTM are
  sigmoids, where Keras had a piecewise linear function.
"""

import math
import os
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # before torch: waiting threads that spin slow down all else
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, softplus
from tqdm import tqdm

import common
from common import Figure, option

CATEGORIES, GENERATED = 10, 5  # all categories, and how many of them the generator makes
PUBLISHED = {1: 0.3363147, 2: 0.1982634, 3: 0.1088916, 4: 0.0486446}  # the table of figure 3
STEPS, SETS, RATE = 2000, 128, 2e-3  # ours; SETS real ones and SETS generated ones in each step


@dataclass(frozen=True)
class Options:
    """Default, accepted values and meaning of each; raises ValueError where one is not accepted."""

    script = "recurrent_disc_toy.py"
    set_size: int = option(4, (1, 6), "samples in a set")  # the tables go through all 5^6 sets
    seed: int = option(0, (0, 4000), "of weights and samples")
    device: str = option("auto", ("auto", "cpu", "cuda", "mps"), "auto is cuda, else cpu")

    def __post_init__(self):
        common.check_options(self)


# ---- networks -----------------------------------------------------------------------------------


class Discriminator(nn.Module):
    """D: sets of k samples (N, k, inputs) -> logits (N, k) of the first 1, 2 ... k being real."""

    def __init__(self, inputs: int):
        super().__init__()
        self.lstm = nn.LSTM(inputs, 256, batch_first=True)
        self.readout = nn.Linear(256, 1)

    def forward(self, sets: Tensor) -> Tensor:
        hidden, _ = self.lstm(sets)
        return self.readout(hidden).squeeze(-1)


# ---- objective ----------------------------------------------------------------------------------


def cross_entropy(logits: Tensor, target: float) -> Tensor:
    """The mean of -target log D - (1 - target) log(1 - D), with D the sigmoid of the logits."""
    return (softplus(logits) - target * logits).mean()


def discriminator_loss(D: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """What D minimizes, (1) above. real, fake (N, k, 10): sets of either kind."""
    real_score, fake_score = D(torch.cat([real, fake])).chunk(2)
    return cross_entropy(real_score, 1) + cross_entropy(fake_score, 0)


def likelihood(k: int) -> float:
    """p^k / (1 + p^k): the exact output for k samples that the generator can make."""
    odds = (GENERATED / CATEGORIES) ** k
    return odds / (1 + odds)


def divergence(p: float, k: int) -> float:
    """(2) in nats, of sets of k: from 0 for p = 1 to ln 2 for p = 0, where one set tells all."""
    q = p**k
    real = (q * math.log(2 * q / (1 + q)) if q > 0 else 0) + (1 - q) * math.log(2)
    return real / 2 + math.log(2 / (1 + q)) / 2


# ---- the algorithm ------------------------------------------------------------------------------


def encode(categories: Tensor) -> Tensor:
    """Categories (N, k) as the samples that D reads, one-hot, (N, k, 10)."""
    return one_hot(categories, CATEGORIES).float()


@torch.no_grad()
def update_mean(mean: nn.Module, network: nn.Module, count: int) -> None:
    """Make `mean` the mean of `count` networks: of the count - 1 before, and of this one."""
    for average, weight in zip(mean.parameters(), network.parameters()):
        average.copy_(weight if count == 1 else average + (weight - average) / count)


def fit(D: nn.Module, mean_D: nn.Module, opt: torch.optim.Optimizer,
        set_size: int) -> Iterator[Tensor]:
    """Train D on sets of `set_size` samples; mean_D becomes its mean over the second half.

    Yields the loss after each of the STEPS steps; (1,), on the device of D.
    """
    device = next(D.parameters()).device
    for step in range(STEPS):
        opt.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
        real = torch.randint(CATEGORIES, (SETS, set_size), device=device)
        fake = torch.randint(GENERATED, (SETS, set_size), device=device)
        loss = discriminator_loss(D, encode(real), encode(fake))
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step >= STEPS // 2:
            update_mean(mean_D, D, step - STEPS // 2 + 1)
        yield loss.detach().view(1)


# ---- evaluation and figures ---------------------------------------------------------------------


@torch.no_grad()
def tables(D: nn.Module, set_size: int) -> tuple[list[dict], list[dict]]:
    """D's outputs for all 5^set_size sets that the generator can make, and with one sample changed.

    The first table has a row for each depth k, the number of samples read. The second has one for
    each place and each depth from there on: the sample in that place is one of the missing
    categories, so that the exact output is 1.
    """
    device = next(D.parameters()).device
    categories = torch.arange(CATEGORIES)
    made, missing = categories[:GENERATED], categories[GENERATED:]

    def outputs(places: list[Tensor]) -> Tensor:
        """D's outputs, (set_size, sets), for all sets with these categories in these places."""
        sets = torch.cartesian_prod(*places).view(-1, set_size)  # a flat tensor if set_size is 1
        batches = [torch.sigmoid(D(encode(batch).to(device))) for batch in sets.split(1000)]
        return torch.cat(batches).cpu().double().T

    rows, rows_missing = [], []
    for k, output in enumerate(outputs([made] * set_size), 1):
        exact = likelihood(k)
        rows.append({"k": k, "mean": output.mean().item(), "exact": exact,
                     "worst_error": (output - exact).abs().max().item(),
                     "lowest": output.min().item(), "highest": output.max().item()})
    for place in range(set_size):
        places = [made] * place + [missing] + [made] * (set_size - place - 1)
        for k, output in enumerate(outputs(places)[place:], place + 1):
            rows_missing.append({"place": place + 1, "k": k, "mean": output.mean().item(),
                                 "lowest": output.min().item()})
    return rows, rows_missing


def print_table(rows: list[dict]) -> None:
    """The table of figure 3: learned, exact and published outputs by depth."""
    print(" k     mean    exact    paper  worst error")
    for row in rows:
        published = f"{PUBLISHED[row['k']]:.4f}" if row["k"] in PUBLISHED else ""
        print(f"{row['k']:2}{row['mean']:9.4f}{row['exact']:9.4f}{published:>9}"
              f"{row['worst_error']:13.4f}")


def save_figure_3(rows: list[dict], missing: list[dict], path: Path) -> None:
    """Learned and exact outputs by depth, and the outputs for sets with a missing category."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    depths = [row["k"] for row in rows]
    left.plot(depths, [row["exact"] for row in rows], "k:", marker="_", markersize=16,
              label="exact, p^k / (1 + p^k)")
    left.vlines(depths, [row["lowest"] for row in rows], [row["highest"] for row in rows], "C0",
                linewidth=5, alpha=0.5, label="learned, all 5^k sets")
    left.plot(depths, [row["mean"] for row in rows], "C0o", markersize=4,
              label="learned, their mean")
    left.plot([k for k in depths if k in PUBLISHED],
              [PUBLISHED[k] for k in depths if k in PUBLISHED], "C1x", label="paper, one set")
    left.set(title="Sets that the generator can make", ylim=(0, None), ylabel="output")
    for place in depths:
        of_place = [row for row in missing if row["place"] == place]
        for name, style in (("mean", "o-"), ("lowest", "v:")):
            right.plot([row["k"] for row in of_place], [row[name] for row in of_place],
                       style, color=common.color_sequences["petroff10"][place], markersize=4,
                       label=f"in place {place}, {name}")
    right.set(title="Sets with one missing category (exact: 1)")
    for axes in (left, right):
        axes.set(xlabel="k, samples read", xticks=depths, xlim=(0.7, len(depths) + 0.3))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


# ---- run ----------------------------------------------------------------------------------------


def train(options: Options, out: str | Path, resume: bool = False) -> dict:
    """Train and fill the new folder `out`; return the results.

    This takes a minute, so there is no checkpoint, and nothing to resume.
    """
    out, device, start = Path(out), common.pick_device(options.device), time.perf_counter()
    common.check_run(options, out, resume=False)
    torch.manual_seed(options.seed)
    D = Discriminator(CATEGORIES)
    mean_D = deepcopy(D).to(device)  # copied on the CPU: .to() makes the LSTM's weights one piece
    D.to(device)
    opt = torch.optim.Adam(D.parameters(), fused=True)
    print(f"{out} on {device} ({torch.get_num_threads()} CPU threads), {STEPS} steps", flush=True)
    log, bar = [], tqdm(total=STEPS, desc=out.name, unit=" steps")
    for row in common.mean_losses(fit(D, mean_D, opt, options.set_size), range(STEPS), 1, bar):
        log.append(row)
        bar.set_postfix_str(f"loss {row[1]:.3f}")
    bar.close()
    seconds = time.perf_counter() - start

    rows, missing = tables(mean_D, options.set_size)
    print_table(rows)
    for name, table in (("figure3", rows), ("missing", missing)):
        common.save_csv(table[0], (row.values() for row in table), out / f"{name}.csv")
    common.save_csv(("step", "loss"), log, out / "metrics.csv")
    save_figure_3(rows, missing, out / "figure3-toy.png")
    dropped = [share / 100 for share in range(101)]
    common.save_curves({"": {f"k = {k}": (dropped, [divergence(1 - share, k) for share in dropped])
                             for k in (1, 2, 4, 8)}}, out / "divergence.png",
                       "share of real samples that G never makes", "JSD of sets of k, nats")
    return common.save_results(out, options, {
        "mean_by_k": [row["mean"] for row in rows],
        "worst_error_by_k": [row["worst_error"] for row in rows],
        "error_of_mean": max(abs(row["mean"] - row["exact"]) for row in rows),
        "worst_error": max(row["worst_error"] for row in rows),
        "lowest_with_missing": min(row["lowest"] for row in missing)}, {}, device, seconds)


def main(argv: list[str] | None = None) -> None:
    """The program: status 0, 1 (data, disk or losses), 2 (options), 130 (Ctrl-C)."""
    options, out, resume = common.parse_args(Options, __doc__, argv)
    with common.exit_status(options, out):
        train(options, out, resume)


if __name__ == "__main__":
    main()
