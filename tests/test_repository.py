"""Tests of what holds for every script: it runs alone, and the pages tell the truth about it."""

import importlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys

import pytest
import torch
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


ONE_BY_ONE = """
import importlib, os, sys
for name, (options, shorter) in {scripts}.items():
    os.chdir({folder!r} + "/" + name)
    sys.path[0] = os.getcwd()
    for known in {{*{scripts}, "common"}} & {{*sys.modules}}:
        del sys.modules[known]
    script = importlib.import_module(name)
    exec(shorter)
    script.main(options.split())
"""


def test_every_script_runs_alone(tmp_path):
    """With common.py and data/ beside it, in a folder with nothing else; all in one process."""
    for script in SHORTEST:
        (tmp_path / script).mkdir()
        for name in (f"{script}.py", "common.py"):
            shutil.copy(ROOT / name, tmp_path / script)
        os.symlink(ROOT / "data", tmp_path / script / "data")
    program = ONE_BY_ONE.format(scripts=SHORTEST, folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    for script in SHORTEST:
        (out,) = (tmp_path / script / "runs" / script).iterdir()
        assert out.name.endswith("-seed0") and (out / "results.json").exists()


@pytest.mark.parametrize("script", SHORTEST)
def test_help(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{script}.py", "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / f"{script}.py"), run_name="__main__")
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert f"python {script}.py" in shown.partition("examples:")[2]


@pytest.mark.parametrize("name", SHORTEST)
def test_resume_refuses_a_run_whose_options_differ(name, tmp_path, capsys):
    """As those of an older version of the script do, which had others."""
    script = importlib.import_module(name)
    shortest = script.parse_args(SHORTEST[name][0].split())
    whole = {"script": f"{name}.py"} | {key: getattr(shortest, key) for key in script.STORED}
    (tmp_path / "options.json").write_text(json.dumps(whole))
    torch.save({"epoch": 0}, tmp_path / "checkpoint.pt")
    assert script.parse_args(["--resume", str(tmp_path)]).out == tmp_path
    for other in (whole | {"unknown": 1}, {key: whole[key] for key in whole if key != "seed"}):
        (tmp_path / "options.json").write_text(json.dumps(other))
        with pytest.raises(SystemExit) as stop:
            script.parse_args(["--resume", str(tmp_path)])
        assert stop.value.code == 2 and "holds no whole" in capsys.readouterr().err


@pytest.mark.parametrize("page", ("README.md", "EXERCISES.md"))
def test_commands_parse_and_pictures_exist(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no run is in the way here
    text = (ROOT / page).read_text()
    commands = re.findall(r"python (\w+)\.py((?: --?[\w-]+(?: [\w./-]+)*)*)", text)
    assert {script for script, _ in commands} == set(SHORTEST)
    for script, options in commands:
        if "--resume" not in options:
            importlib.import_module(script).parse_args(options.split())
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert pictures and all((ROOT / picture).exists() for picture in pictures)


@pytest.mark.parametrize("page", ("README.md", "EXERCISES.md"))
def test_links_lead_to_headings(page):
    text = (ROOT / page).read_text()
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(#([^)]+)\)", text)
    assert len(links) >= len(SHORTEST) and set(links) <= anchors


@pytest.mark.parametrize("script", SHORTEST)
def test_readme_options(script, capsys):
    """The table of options that mean the same everywhere: every script has them, or it says not."""
    with pytest.raises(SystemExit):
        importlib.import_module(script).parse_args(["--help"])
    shown = capsys.readouterr().out
    _, _, table = (ROOT / "README.md").read_text().partition("\n| option | meaning |\n")
    rows = re.findall(r"^\| `(--[\w-]+)[^|]*\| (.*) \|$", table.partition("\n\n")[0], re.M)
    assert len(rows) == 9
    for option, meaning in rows:
        _, _, without = meaning.partition("not in ")
        assert (f"\n  {option} " in shown) == (f"`{script}.py`" not in without), option


def test_exercises_fit_the_scripts():
    """Three for each script; what a change takes out stands in the script, in one place."""
    sections = re.split(r"^## (\w+)\.py$", (ROOT / "EXERCISES.md").read_text(), flags=re.M)[1:]
    assert sections[::2] == [*SHORTEST]
    for script, text in zip(sections[::2], sections[1::2]):
        assert len(re.findall(r"^### \d\. ", text, re.M)) == 3
        assert text.count("<summary>What to expect</summary>") == 3
        for short in re.findall(r"```python\n(.*?)```", text, re.S):
            compile(short, script, "exec")
        program = (ROOT / f"{script}.py").read_text()
        for change in re.findall(r"```diff\n(.*?)```", text, re.S):
            lines = change.splitlines(keepends=True)
            before, after = ("".join(line[1:] for line in lines if line[0] != sign)
                             for sign in "+-")
            assert program.count(before) == 1, before
            compile(program.replace(before, after), script, "exec")
