"""Whole papers: processes that are resumed and leave nothing behind, figures, tables."""

import csv
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest
import torch
from conftest import ROOT, SHORT, checkpoint
from PIL import Image

import gan_toy
import reproduce

FEW = {  # of the trainings of a paper: what its figures and table need at least
    "binarygan": "seed0", "gan_toy": "seed[01]", "wgan_gp_binary_seed": r"^c(4-b0|0-b4)-seed0",
    "infogan": "seed[01]", "cbigan": "", "recurrent_disc_toy": "", "recurrent_disc": "seed[01]",
    "cycle_toy": "cycle|d-identity"}
FIGURES = {
    "binarygan": {"figure3-neurons", "figure4-histograms", "figure5-binarized", "figure6-gan-wgan",
                  "figure7-cnn", "figure8-objectives"},
    "gan_toy": {"figure-objectives", "figure-modes"},
    "wgan_gp_binary_seed": {"figure2-critic", "figure3-search"},
    "infogan": {"figure1-bound", "figure2-codes"},
    "cbigan": {"figure4-reconstructions", "figure5-tsne"},
    "recurrent_disc_toy": {"figure3-seeds"},
    "recurrent_disc": {"figures4-6", "digits-by-k"},
    "cycle_toy": {"figure-accuracy"}}
SCRIPT = """
import os, sys, time
from pathlib import Path
argv = sys.argv[1:]
resumed = "--resume" in argv
out = Path(argv[argv.index("--resume" if resumed else "--out") + 1])
print(os.environ["OMP_NUM_THREADS"], "resumed" if resumed else "begun", flush=True)
if "dies" in out.name:
    sys.exit("stand-in.py: error: it dies")
out.mkdir(exist_ok=True)
(out / "checkpoint.pt").touch()
if "slow" in out.name and not resumed:
    time.sleep(60)
(out / "results.json").write_text("{}")
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch) -> Path:
    """A script in place of a real one, which would take seconds to import torch; its folder."""
    (tmp_path / "stand_in.py").write_text(SCRIPT)
    monkeypatch.setattr(reproduce, "__file__", str(tmp_path / "reproduce.py"))
    return tmp_path / "runs"


def commands(out: Path, *names: str) -> dict[str, list[str]]:
    return {name: ["python", "stand_in.py", "--out", str(out / name)] for name in names}


def test_what_is_finished_stays_and_what_was_stopped_is_resumed(stand_in, capsys):
    wanted = commands(stand_in, "a", "b", "c", "dies")
    (stand_in / "a").mkdir(parents=True)
    (stand_in / "a" / "results.json").write_text("mine")
    (stand_in / "b").mkdir()
    (stand_in / "b" / "checkpoint.pt").touch()
    assert reproduce.run_all(wanted, [], stand_in, 2) == ["dies"]
    assert "dies: stand-in.py: error: it dies" in capsys.readouterr().err
    assert (stand_in / "a" / "results.json").read_text() == "mine"
    for name, how in (("b", "1 resumed"), ("c", "1 begun")):  # one thread each
        assert (stand_in / f"{name}.log").read_text().splitlines()[1] == how
        assert (stand_in / name / "results.json").exists()
    assert reproduce.run_all(wanted, [], stand_in, 2) == ["dies"]  # the others stay


def test_a_run_of_another_command_is_refused(stand_in):
    reproduce.run_all(commands(stand_in, "a"), [], stand_in, 1)
    other = {"a": [*commands(stand_in, "a")["a"], "--epochs", "1"]}
    with pytest.raises(ValueError, match="a.log begins with another command"):
        reproduce.run_all(other, [], stand_in, 1)


@pytest.mark.parametrize("signal_", (signal.SIGINT, signal.SIGTERM, signal.SIGKILL))
def test_no_training_outlives_this_process(stand_in, signal_):
    program = ("import pathlib, reproduce\n"
               f"reproduce.__file__ = {reproduce.__file__!r}\n"
               f"wanted = {commands(stand_in, 'slow', 'slow2')}\n"
               f"reproduce.run_all(wanted, [], pathlib.Path({str(stand_in)!r}), 2)")
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, preexec_fn=lambda:
                               signal.signal(signal.SIGINT, signal.default_int_handler),
                               stderr=subprocess.DEVNULL)
    while len([*stand_in.glob("*/checkpoint.pt")]) < 2:
        assert process.poll() is None
        time.sleep(0.1)
    started = [pid for pid in os.listdir("/proc") if pid.isdigit() and str(stand_in) in read(pid)]
    process.send_signal(signal_)
    assert process.wait(30) != 0
    for _ in range(100):
        left = [pid for pid in started if pid != str(process.pid) and str(stand_in) in read(pid)]
        if not left:
            break
        time.sleep(0.1)
    assert len(started) == 3 and not left
    reproduce.run_all(commands(stand_in, "slow", "slow2"), [], stand_in, 2)  # goes on
    assert len([*stand_in.glob("*/results.json")]) == 2


def read(pid: str) -> str:
    """The command line of a process, "" where it has ended."""
    try:
        return Path("/proc", pid, "cmdline").read_text()
    except OSError:
        return ""


@pytest.mark.parametrize("name", reproduce.PAPERS)
def test_figures_and_tables(name, short, tmp_path, monkeypatch, capsys):
    """Of short runs, made in this process."""
    trainings, figures, shown = reproduce.PAPERS[name]
    run, few = short(name, whole=False), {}
    monkeypatch.setattr(reproduce, "run_all", lambda commands, more, out, jobs: [
        run.script.main([*command[2:-2], *SHORT[name][0].split(), "--device", "cpu",
                         *(() if name == "recurrent_disc_toy" else ("--epochs", "1")),
                         *command[-2:]]) for command in commands.values()] and [])
    if hasattr(importlib.import_module(name), "tsne"):
        monkeypatch.setattr(run.script, "tsne", lambda codes, seed: codes[:, :2])
    out = tmp_path / "paper"
    reproduce.main([name, "--only", FEW[name], "--out", str(out)])
    pictures = {path.stem: path for path in out.glob("*.png")}
    assert pictures.keys() == FIGURES[name]
    for path in pictures.values():
        Image.open(path).load()
    rows = list(csv.DictReader((out / "results.csv").open()))
    few = [training for training in trainings if re.search(FEW[name], training)]
    assert [row["run"] for row in rows] == few and {*shown} <= rows[0].keys()
    column = shown[-1]
    values = {}
    for training in few:
        results = json.loads((out / training / "results.json").read_text())
        values.setdefault(training.partition("-seed")[0], []).append(results[column])
    summary = {row["run"]: row for row in csv.DictReader((out / "summary.csv").open())
               if row["number"] == column}
    for group, of_group in values.items():
        found = [float(summary[group][key]) for key in ("mean", "lowest", "highest")]
        assert found == pytest.approx([numpy.mean(of_group), min(of_group), max(of_group)])
    printed = capsys.readouterr().out
    assert all(training in printed for training in few)


def test_a_number_that_is_null_does_not_stop_the_table(tmp_path, capsys):
    reproduce.save_tables({"a-seed0": ({"kl": None, "digits": 3}, tmp_path)}, ("kl",), tmp_path)
    assert capsys.readouterr().out.count("nan") == 4  # of the run; mean, lowest, highest
    assert "digits,a,3" in (tmp_path / "summary.csv").read_text()


def test_figures_of_the_gan_toy_show_what_the_runs_saved(short, tmp_path, monkeypatch):
    run, shown, curves = short("gan_toy", whole=False), {}, {}
    runs = {}
    for seed in (0, 1):
        out = run("--epochs", "1", "--seed", str(seed), out=f"wgan-gp-seed{seed}")
        runs[out.name] = json.loads((out / "results.json").read_text()), out
    monkeypatch.setattr(gan_toy, "save_surfaces", lambda panels, path: shown.update(panels))
    monkeypatch.setattr(reproduce.common, "save_curves", lambda panels, *_: curves.update(panels))
    reproduce.gan_toy_figures(runs, tmp_path)
    D, points = shown["wgan-gp"]
    saved = checkpoint(tmp_path / "wgan-gp-seed0")
    assert all(torch.equal(w, saved["D"][key]) for key, w in D.state_dict().items())
    G = gan_toy.generator()
    G.load_state_dict(saved["G"])
    assert torch.equal(points, gan_toy.sample(G, 1000, 0))
    assert curves["wgan-gp"]["seed 1"][1] == (checkpoint(tmp_path / "wgan-gp-seed1")["log"][0][4],)


def test_cells_of_the_heat_map(tmp_path, monkeypatch):
    """n_c across and n_b down, whatever the order of the runs; seed 0 alone."""
    figures = []
    monkeypatch.setattr(reproduce.Figure, "savefig", lambda self, *_, **__: figures.append(self))
    monkeypatch.setattr(reproduce.common, "read_checkpoint", lambda _: {"log": [[0.0] * 3] * 60})
    runs = {f"{n_c}-{n_b}-{seed}": ({"n_c": n_c, "n_b": n_b, "seed": seed,
                                     "wasserstein_train": 100 * n_c + n_b + seed,
                                     "wasserstein_train_final": -(100 * n_c + n_b)}, tmp_path)
            for n_b in (12, 0, 4) for n_c in (4, 12, 0) for seed in (0, 1)
            if (n_c or n_b) and (n_c, n_b) != (12, 4)}  # one is not yet trained
    reproduce.search_figures(runs, tmp_path)
    dims = [0, 4, 12]
    for axes, sign in zip(figures[-1].axes, (1, -1)):
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("n_c", "n_b")
        for text in axes.texts:
            column, row = text.get_position()
            assert float(text.get_text()) == sign * (100 * dims[column] + dims[row])
        cells = axes.images[0].get_array().filled(numpy.nan) * sign
        assert numpy.array_equal(cells, [[numpy.nan, 400, 1200], [4, 404, numpy.nan],
                                         [12, 412, 1212]], equal_nan=True)


def test_grid_of_the_search():
    options = [re.findall(r"--n-c (\d+) --n-b (\d+) .*--seed (\d)", line)[0]
               for line in reproduce.SEARCH.values()]
    grid = [(int(n_c), int(n_b)) for n_c, n_b, seed in options if seed == "0"]
    assert len(grid) == len(set(grid)) == 99 and (0, 0) not in grid
    assert {n for pair in grid for n in pair} == {0, 2, 4, 7, 12, 21, 36, 64, 112, 196}
    assert len(options) == len(set(options)) == 99 + 2 * 7


def test_the_papers_objectives_have_three_seeds():
    assert len(reproduce.BINARYGAN) == 17
    assert {f"sbn-{objective}-mlp-none-seed{seed}" for objective in ("gan", "wgan", "wgan-gp")
            for seed in (0, 1, 2)} <= reproduce.BINARYGAN.keys()


@pytest.mark.parametrize("argv, complaint", [
    (["gan_toy", "--jobs", "0"], "--jobs: a whole number from 1 on"),
    (["gan_toy", "--only", "nothing"], "--only: no run has such a name"),
    (["bigan"], "invalid choice: 'bigan'")])
def test_bad_options_change_nothing(argv, complaint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        reproduce.main(argv)
    assert stop.value.code == 2 and complaint in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]
