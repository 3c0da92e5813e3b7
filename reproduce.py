"""Whole papers: the trainings as command lines, run side by side; then their figures and table.

    python reproduce.py binarygan              experiments I to IV: figures 3 to 8
    python reproduce.py gan_toy                four objectives, three seeds
    python reproduce.py wgan_gp_binary_seed    the search over n_c and n_b: figures 2 and 3
    python reproduce.py infogan                InfoGAN and a plain GAN: figures 1 and 2
    python reproduce.py cbigan                 both variants: figures 4 and 5
    python reproduce.py recurrent_disc_toy     three seeds: figure 3
    python reproduce.py recurrent_disc         k = 1, 2, 4, three seeds: figures 4 to 6
    python reproduce.py cycle_toy              three transforms, four methods, six fresh seeds

    python reproduce.py infogan --list         the trainings, a command a line, as anyone would type
    python reproduce.py infogan --jobs 4       four at a time, one thread and one log each
    python reproduce.py infogan --only seed0 -- --epochs 1     some; what follows -- goes to each

What is finished stays, what was stopped is resumed by the same command. Figures and table are of
what there is, so a part of the list may run elsewhere, in GNU parallel or a job array, first.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean

import torch
from matplotlib.figure import Figure
from tqdm import tqdm

import binarygan
import cbigan
import common
import gan_toy
import infogan
import recurrent_disc
import recurrent_disc_toy
import wgan_gp_binary_seed as seeds

Runs = dict[str, tuple[dict, Path]]  # of those that are finished: results and folder, by name

# ---- binarygan ----------------------------------------------------------------------------------

NEURONS = {"DBN": "dbn", "SBN": "sbn", "real": "real"}
OBJECTIVES = {"GAN": "gan", "WGAN": "wgan", "WGAN-GP": "wgan-gp"}
BINARYGAN = {
    f"{neuron}-{objective}-{arch}-{norm}-seed{seed}":
        f"--neuron {neuron} --objective {objective} --arch {arch} --norm {norm} --anneal 1.1 "
        f"--schedule paper --epochs 20 --batch-size 64 --lr 1e-4 --seed {seed}"
    for neuron, objective, arch, norm, seed in (
        *((neuron, "wgan-gp", "mlp", "none", 0) for neuron in NEURONS.values()),
        *(("sbn", objective, "mlp", norm, 0) for norm in ("none", "batch")
          for objective in OBJECTIVES.values()),
        *(("sbn", objective, "mlp", "none", seed) for seed in (1, 2)
          for objective in OBJECTIVES.values()),
        *((neuron, "wgan-gp", "cnn", "none", 0) for neuron in NEURONS.values()))}


def binarygan_figures(runs: Runs, out: Path) -> None:
    """Figures 3 to 8, each where all its runs are there; samples and preactivated outputs."""
    def drawn(names: dict[str, str]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        panels = {}
        for title, name in names.items() if {*names.values()} <= runs.keys() else ():
            saved = common.read_checkpoint(runs[name][1])
            options = binarygan.Options(**saved["options"])
            G = binarygan.generator(options.arch, options.norm)
            G.load_state_dict(saved["G"])
            panels[title] = binarygan.sample(G, binarygan.SAMPLES, options.anneal ** (
                saved["epoch"] - 1), options.neuron, options.seed)
        return panels

    def side_by_side(chosen: dict, name: str, across: int) -> None:
        panels = {}
        for title, (images, p) in chosen.items():
            panels |= {f"{title}, samples": images[:64], f"{title}, preactivated": p[:64]}
        common.save_panels(panels, out / name, across, [t for t in panels if "preactivated" in t])

    if neurons := drawn({k: f"{v}-wgan-gp-mlp-none-seed0" for k, v in NEURONS.items()}):
        side_by_side({k: neurons[k] for k in ("DBN", "SBN")}, "figure3-neurons.png", 2)
        binarygan.save_histograms({k: p for k, (_, p) in neurons.items()},
                                  out / "figure4-histograms.png")
        common.save_panels(binarygan.binarizations(neurons["real"][1][:64], 0),
                           out / "figure5-binarized.png", 3)
    if objectives := drawn({k + suffix: f"sbn-{v}-mlp-{norm}-seed0" for suffix, norm in (
            ("", "none"), (", batch norm", "batch")) for k, v in OBJECTIVES.items()}):
        common.save_panels({k: objectives[k][0][:64] for k in ("GAN", "WGAN")},
                           out / "figure6-gan-wgan.png", 2)
        side_by_side(objectives, "figure8-objectives.png", 4)
    if cnns := drawn({k: f"{v}-wgan-gp-cnn-none-seed0" for k, v in NEURONS.items()}):
        real = binarygan.binarizations(cnns["real"][1][:64], 0)
        common.save_panels({k: cnns[k][0][:64] for k in ("DBN", "SBN")}
                           | {f"real, {k}": real[k] for k in ("threshold 0.5", "Bernoulli")},
                           out / "figure7-cnn.png", 4)


# ---- gan_toy ------------------------------------------------------------------------------------

GAN_TOY = {f"{objective}-seed{seed}": f"--objective {objective} --lr {lr} --critic-steps {steps} "
           f"--epochs 120 --batch-size 256 --seed {seed}"
           for objective, (lr, steps) in gan_toy.BEST.items() for seed in (0, 1, 2)}


def gan_toy_figures(runs: Runs, out: Path) -> None:
    """D's surface and last samples with seed 0; the modes found over training."""
    surfaces, modes = {}, {}
    for results, folder in runs.values():
        saved, objective = common.read_checkpoint(folder), results["objective"]
        if results["seed"] == 0:
            G, D = gan_toy.generator(), gan_toy.discriminator()
            G.load_state_dict(saved["G"])
            D.load_state_dict(saved["D"])
            surfaces[objective] = (D, gan_toy.sample(G, 1000, 0))
        steps, _, _, _, found, *_ = zip(*saved["log"])
        modes.setdefault(objective, {})[f"seed {results['seed']}"] = (steps, found)
    if surfaces:
        gan_toy.save_surfaces(surfaces, out / "figure-objectives.png")
    common.save_curves(modes, out / "figure-modes.png", "generator step", "modes found, of 8")


# ---- wgan_gp_binary_seed ------------------------------------------------------------------------

DIMS = (0, 2, 4, 7, 12, 21, 36, 64, 112, 196)  # values of n_c and n_b; section 4.1
SELECTION = ((4, 0), (12, 0), (36, 0), (0, 4), (0, 12), (0, 36), (7, 12))  # of figure 2
SEARCH = {  # the pairs that the claims compare come first, and with three seeds
    f"c{n_c}-b{n_b}-seed{seed}": f"--n-c {n_c} --n-b {n_b} --epochs 9 --batch-size 128 --lr 1e-3 "
                                 f"--seed {seed}"
    for n_c, n_b, seed in (
        *((*pair, seed) for seed in (0, 1, 2) for pair in SELECTION),
        *((n_c, n_b, 0) for n_c in DIMS for n_b in DIMS if n_c + n_b > 0))}


def search_figures(runs: Runs, out: Path) -> None:
    """Figures 2 and 3, of the runs with seed 0."""
    found = {(results["n_c"], results["n_b"]): (results, folder)
             for results, folder in runs.values() if results["seed"] == 0}
    curves = {}
    for n_c, n_b in [pair for pair in SELECTION if pair in found]:
        log = torch.tensor(common.read_checkpoint(found[n_c, n_b][1])["log"])
        curves[f"n_c = {n_c}, n_b = {n_b}"] = (range(1, len(log) + 1), seeds.smooth(log[:, 1]))
    if curves:
        common.save_curves({f"Hanning window of {seeds.WINDOW}": curves},
                           out / "figure2-critic.png", "critic step", "E[C(x)] - E[C(G(z))]",
                           log=True)

    dims = sorted({n for pair in found for n in pair})
    figure = Figure(figsize=(5 + len(dims), 2 + len(dims) / 2), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, 2), (
            ("wasserstein_train", "last 200 critic steps of the training"),
            ("wasserstein_train_final", "final critic steps, G frozen"))):
        cells = torch.full((len(dims), len(dims)), float("nan"))  # [n_b, n_c]
        for (n_c, n_b), (results, _) in found.items():
            i, j = dims.index(n_b), dims.index(n_c)
            cells[i, j] = results[name]
            axes.text(j, i, f"{results[name]:.2f}", ha="center", va="center", fontsize=8)
        shown = axes.imshow(cells.numpy(), cmap="viridis_r", alpha=0.6)  # the numbers are black
        axes.set(title=title, xlabel="n_c", xticks=range(len(dims)), xticklabels=dims,
                 ylabel="n_b", yticks=range(len(dims)), yticklabels=dims)
        figure.colorbar(shown, ax=axes, shrink=0.8)
    figure.savefig(out / "figure3-search.png", dpi=150)


# ---- infogan, cbigan ----------------------------------------------------------------------------

INFOGAN = {f"info{info}-seed{seed}": f"--info {info} --epochs 11 --batch-size 128 --lr-g 1e-3 "
           f"--lr-d 2e-4 --seed {seed}" for seed in (0, 1, 2) for info in (1, 0)}


def infogan_figures(runs: Runs, out: Path) -> None:
    """Figures 1 and 2, of the runs with seed 0."""
    models, logs, panels = {"InfoGAN": "info1-seed0", "plain GAN": "info0-seed0"}, {}, {}
    if not set(models.values()) <= runs.keys():
        return
    for model, name in models.items():
        results, folder = runs[name]
        saved, G = common.read_checkpoint(folder), infogan.generator()
        G.load_state_dict(saved["G"])
        logs[model] = saved["log"]
        panels[model] = infogan.code_panels(G, results["digit_of_category"], 0)
    infogan.save_bounds(logs, out / "figure1-bound.png")
    common.save_panels({"a: c1, InfoGAN": panels["InfoGAN"]["c1"],
                        "b: c1, plain GAN": panels["plain GAN"]["c1"],
                        "c: c2 from -2 to 2": panels["InfoGAN"]["c2 from -2 to 2"],
                        "d: c3 from -2 to 2": panels["InfoGAN"]["c3 from -2 to 2"]},
                       out / "figure2-codes.png", 2, columns=10)


CBIGAN = {f"{variant}-seed0": f"--variant {variant} --epochs {epochs} --batch-size 128 --lr 2e-4 "
          f"--decay-from 200 --weight-decay 5e-5 --seed 0"
          for variant, epochs in (("simple", 400), ("extended", 500))}


def cbigan_figures(runs: Runs, out: Path) -> None:
    """Figures 4 and 5, both variants."""
    pictures, points = [], {}
    for results, folder in runs.values():
        saved, variant, seed = common.read_checkpoint(folder), results["variant"], results["seed"]
        _, _, test_x, test_y = common.load_images(results["data"], results["dataset"])
        E, G = cbigan.Encoder().eval(), cbigan.Generator(variant).eval()
        E.load_state_dict(saved["average_E"])
        G.load_state_dict(saved["average_G"])
        pictures.append(cbigan.samples_and_reconstructions(E, G, test_x, test_y, seed))
        points[f"{variant} CBiGAN"] = cbigan.tsne(cbigan.in_batches(E, test_x), seed)
    common.save_grid(torch.cat(pictures), out / "figure4-reconstructions.png", 20,
                     "; ".join(f"{name}: G(z, c), x, G(E(x), c)" for name in points))
    common.save_scatter(points, test_y, out / "figure5-tsne.png")


# ---- recurrent discrimination -------------------------------------------------------------------

TOY = {f"k4-seed{seed}": f"--set-size 4 --seed {seed}" for seed in (0, 1, 2)}


def toy_figures(runs: Runs, out: Path) -> None:
    """Figure 3 with a curve for each seed."""
    rows = [results for results, _ in runs.values()]
    depths = range(1, rows[0]["set_size"] + 1)
    panels = {name: {f"seed {row['seed']}": (depths, row[name]) for row in rows}
              for name in ("mean_by_k", "worst_error_by_k")}
    panels["mean_by_k"]["exact"] = depths, [recurrent_disc_toy.likelihood(k) for k in depths]
    common.save_curves(panels, out / "figure3-seeds.png", "k, samples read")


RECURRENT = {f"k{k}-seed{seed}": f"--set-size {k} --epochs 10 --batch-size 64 --seed {seed}"
             for k in (1, 2, 4) for seed in (0, 1, 2)}


def recurrent_figures(runs: Runs, out: Path) -> None:
    """Figures 4 to 6, and the paper's claim as numbers: digits, and KL, against k."""
    panels, rows = {}, [results for results, _ in runs.values()]
    for results, folder in runs.values():
        if results["seed"] == 0:
            G = recurrent_disc.generator()
            G.load_state_dict(common.read_checkpoint(folder)["G"])
            panels[f"k = {results['set_size']}"] = recurrent_disc.sample(G, 100, 0)
    if panels:
        common.save_panels(panels, out / "figures4-6.png", len(panels), columns=10)
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("digits", "kl")):
        axes.plot([row["set_size"] + (row["seed"] - 1) / 20 for row in rows],
                  [row[name] for row in rows], "o")
        axes.set(title=f"{name}, a dot each seed", xlabel="k, images in a set", xticks=(1, 2, 4),
                 ylim=(0, None))
    figure.savefig(out / "digits-by-k.png", dpi=120)


# ---- cycle_toy ----------------------------------------------------------------------------------

METHODS = {"cycle": "--method cycle", "identity": "--method identity",
           "inspector": "--method inspector --reconstruct no",
           "inspector-reconstruct": "--method inspector --reconstruct yes"}
CYCLE = {f"{transform}-{name}": f"{options} --transform {transform} --seeds 6 --seed 6"
         for transform in ("scaled", "shifted", "turned") for name, options in METHODS.items()}


def cycle_figures(runs: Runs, out: Path) -> None:
    """Accuracy by method and transform: dots, a seed each; rings: of the best permutation."""
    transforms = list(dict.fromkeys(name.split("-")[0] for name in runs))
    figure = Figure(figsize=(3.6 * len(transforms), 3.4), layout="constrained")
    for axes, transform in zip(figure.subplots(1, len(transforms), squeeze=False).flat, transforms):
        for x, method in enumerate(METHODS):
            if results := runs.get(f"{transform}-{method}", ({}, None))[0]:
                seeds_at = torch.linspace(x - 0.15, x + 0.15, results["seeds"])
                axes.plot(seeds_at, results["best_accuracy"], "o", color="#E69F00",
                          fillstyle="none", markersize=8)
                axes.plot(seeds_at, results["accuracy"], "o", color="#0072B2", markersize=4)
        axes.axhline(1 / 8, color="gray", linestyle=":", linewidth=1)  # chance
        axes.set(title=f"B is A {transform}", ylim=(-0.05, 1.05), xticks=range(len(METHODS)),
                 xticklabels=[name.replace("-", "\n") for name in METHODS], xlim=(-0.5, 3.5))
    figure.savefig(out / "figure-accuracy.png", dpi=110)


PAPERS = {  # trainings by name, figures, and the columns of the table that are printed
    "binarygan": (BINARYGAN, binarygan_figures, (
        "epochs", "histogram_first_bin", "histogram_last_bin", "digits", "kl", "median_distance")),
    "gan_toy": (GAN_TOY, gan_toy_figures, (
        "lr", "critic_steps", "modes", "modes_mean_of_later_half", "share_within_three_deviations",
        "dead_share_mean_of_later_half")),
    "wgan_gp_binary_seed": (SEARCH, search_figures, (
        "wasserstein_train", "wasserstein_train_final", "kl")),
    "infogan": (INFOGAN, infogan_figures, (
        "epochs", "c1_error_test", "bound_c1", "kl", "median_distance")),
    "cbigan": (CBIGAN, cbigan_figures, (
        "epochs", *cbigan.SCORES, "sample_label_accuracy", "reconstruction_label_accuracy",
        "median_distance")),
    "recurrent_disc_toy": (TOY, toy_figures, (
        "error_of_mean", "worst_error", "lowest_with_missing")),
    "recurrent_disc": (RECURRENT, recurrent_figures, ("epochs", "digits", "kl", "median_distance")),
    "cycle_toy": (CYCLE, cycle_figures, (
        "accuracy_mean", "best_accuracy_mean", "good_share_mean", "cycle_error_mean")),
}

# ---- run ----------------------------------------------------------------------------------------

# A training lives as long as the pipe from this process is open, however this process ends.
WATCHED = """
import os, runpy, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
del sys.argv[0]
sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_all(commands: dict[str, list[str]], more: list[str], out: Path, jobs: int) -> list[str]:
    """Run commands by name, `jobs` at a time, a log beside each; return the names that failed.

    A run with results.json stays as it is; one with checkpoint.pt is resumed. Raises ValueError
    where another command has made the run of that name.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name, command in commands.items():
        log = out / f"{name}.log"
        if log.exists() and log.read_text().partition("\n")[0] != shlex.join(command):
            raise ValueError(f"--out: {log} begins with another command; name another folder")
    waiting = [name for name in commands if not (out / name / "results.json").exists()]
    running, failed = {}, []
    try:
        with tqdm(total=len(commands), initial=len(commands) - len(waiting), unit=" runs") as bar:
            while waiting or running:
                while waiting and len(running) < jobs:
                    name = waiting.pop(0)
                    running[name] = start(commands[name], more, out, name)
                    bar.set_postfix_str(", ".join(running))
                time.sleep(0.2)
                for name in [n for n, process in running.items() if process.poll() is not None]:
                    if running.pop(name).returncode:
                        failed.append(name)
                        last = (out / f"{name}.log").read_text().strip().splitlines()[-1]
                        tqdm.write(f"{name}: {last}", sys.stderr)
                    bar.update()
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    return failed


def start(command: list[str], more: list[str], out: Path, name: str) -> subprocess.Popen:
    """Begin or continue a training in a process of one thread, with its log."""
    _, script, *options = command
    if (out / name / "checkpoint.pt").exists():
        options = ["--resume", str(out / name), *more]
    with open(out / f"{name}.log", "a") as log:
        if not log.tell():
            print(shlex.join(command), file=log, flush=True)
        return subprocess.Popen(
            [sys.executable, "-c", WATCHED, str(Path(__file__).parent / script), *options],
            stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"})


def save_tables(runs: Runs, shown: tuple[str, ...], out: Path) -> None:
    """results.csv, a row a run; summary.csv, over the seeds; the columns `shown` are printed."""
    rows = [{"run": name} | {k: float("nan") if v is None else v for k, v in results.items()}
            for name, (results, _) in runs.items()]
    names = list(dict.fromkeys(name for row in rows for name in row))  # in order, each once
    common.save_csv(names, ([row.get(name) for name in names] for row in rows), out / "results.csv")
    groups, lines = {}, []
    print(f"\n{'run':32}", *(f"{name:>14.14}" for name in shown))
    for row in rows:
        groups.setdefault(row["run"].partition("-seed")[0], []).append(row)
        print(f"{row['run']:32}", *(f"{row[name]:14.4g}" for name in shown))
    print("\nMean (lowest to highest) of the seeds")
    for group, of_group in groups.items():
        for name in [name for name in names if isinstance(of_group[0].get(name), (int, float))]:
            values = [row[name] for row in of_group]
            lines.append([name, group, fmean(values), min(values), max(values)])
            if name in shown:
                print("{:32}{:20}{:10.4g} ({:.4g} to {:.4g})".format(*lines[-1]))
    common.save_csv(("number", "run", "mean", "lowest", "highest"), lines, out / "summary.csv")


def main(argv: list[str] | None = None) -> None:
    """The program: status 0, 1 (a training failed), 2 (options), 130 (Ctrl-C)."""
    argv = sys.argv[1:] if argv is None else argv
    cut = argv.index("--") if "--" in argv else len(argv)
    argv, more = argv[:cut], argv[cut + 1:]
    parser = argparse.ArgumentParser("reproduce.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paper", choices=PAPERS)
    parser.add_argument("--list", action="store_true", help="print the commands, run nothing")
    parser.add_argument("--jobs", type=int, metavar="N", help="at a time (default: cores; GPU: 1)",
                        default=1 if torch.cuda.is_available() else os.cpu_count())
    parser.add_argument("--only", metavar="REGEX", default="", help="runs whose name matches")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: runs/paper/PAPER")
    args = parser.parse_args(argv)
    out = args.out or Path("runs", "paper", args.paper)
    trainings, figures, shown = PAPERS[args.paper]
    commands = {name: ["python", f"{args.paper}.py", *options.split(), *more,
                       "--out", str(out / name)]
                for name, options in trainings.items() if re.search(args.only, name)}
    if not commands or args.jobs < 1:
        parser.error("--only: no run has such a name; see --list" if not commands else
                     "--jobs: a whole number from 1 on")
    if args.list:
        return print("\n".join(map(shlex.join, commands.values())))
    try:
        failed = run_all(commands, more, out, args.jobs)
    except ValueError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("\nInterrupted. What is finished is kept; the same command continues.",
              file=sys.stderr)
        sys.exit(130)
    runs = {name: (json.loads((out / name / "results.json").read_text()), out / name)
            for name in trainings if (out / name / "results.json").exists()}
    if runs:
        figures(runs, out)
        save_tables(runs, shown, out)
    print(f"Figures and tables: {out}")
    if failed:
        sys.exit(f"reproduce.py: error: failed, as their logs in {out} say: {', '.join(failed)}")


if __name__ == "__main__":
    main()
