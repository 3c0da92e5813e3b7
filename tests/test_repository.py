"""Tests of what holds for every script: it runs alone, and README.md tells the truth about it."""

import importlib
import os
import re
import runpy
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

SHORTEST = {  # the shortest training of each script, and what would take long after it
    "wasserstein_toy": ("--train wgan-gp --epochs 1 --batch-size 2", "script.SAMPLES = 20"),
    "wgan_gp_binary_seed": ("--epochs 1 --train-size 4 --batch-size 2",
                            "script.SAMPLES = 20; script.STRETCH = -190"),
    "binarygan": ("--epochs 1 --train-size 4 --batch-size 2", "script.SAMPLES = 20"),
    "bigan": ("--epochs 1 --train-size 4 --batch-size 2",
              "script.SAMPLES = 20; script.tsne = lambda codes, seed: codes[:, :2]"),
    "cbigan": ("--epochs 1 --train-size 4 --batch-size 2",
               "script.SAMPLES = 20; script.tsne = lambda codes, seed: codes[:, :2]"),
    "recurrent_disc_toy": ("--mnist --epochs 1 --train-size 4 --batch-size 4",
                           "script.SAMPLES = 20; script.EPOCH = 2"),
    "bigran": ("--epochs 1 --train-size 4 --batch-size 4", "script.SAMPLES = 20"),
}


def test_every_script_is_here_and_in_the_readme():
    assert {path.stem for path in ROOT.glob("*.py")} == {*SHORTEST, "common"}
    text = (ROOT / "README.md").read_text()
    for script in SHORTEST:
        assert re.search(rf"^\| `{script}.py` \|", text, re.M), "in the table of files"
        assert re.search(rf"^## .*\b{script}.py", text, re.M), "a section of its own"


@pytest.mark.parametrize("script", SHORTEST)
def test_script_runs_alone(script, tmp_path):
    """With common.py and data/ beside it, in an empty folder."""
    for name in (f"{script}.py", "common.py"):
        shutil.copy(ROOT / name, tmp_path)
    os.symlink(ROOT / "data", tmp_path / "data")
    options, shorter = SHORTEST[script]
    program = f"import {script} as script; {shorter}; script.main({options.split()})"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    (out,) = (tmp_path / "runs" / script).iterdir()
    assert out.name.endswith("-seed0") and (out / "results.json").exists()


@pytest.mark.parametrize("script", SHORTEST)
def test_help(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{script}.py", "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / f"{script}.py"), run_name="__main__")
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert f"python {script}.py" in shown.partition("examples:")[2]


def test_readme_commands_parse_and_pictures_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no run is in the way here
    text = (ROOT / "README.md").read_text()
    commands = re.findall(r"python (\w+)\.py((?: --?[\w-]+(?: [\w./-]+)*)*)", text)
    assert ("binarygan", " --neuron sbn") in commands
    for script, options in commands:
        if "--resume" not in options:
            importlib.import_module(script).parse_args(options.split())
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert pictures and all((ROOT / picture).exists() for picture in pictures)
