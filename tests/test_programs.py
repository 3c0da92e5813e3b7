"""What every script does around its paper: options, interruptions, damage, and running alone."""

import ast
import gzip
import importlib
import json
import math
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from conftest import ROOT, SHORT, UNTRAINED, assert_same, checkpoint
from PIL import Image

import benchmark
import common

TRAINED = [name for name in SHORT if name not in UNTRAINED]
scripts = pytest.mark.parametrize("name", SHORT)
trained = pytest.mark.parametrize("name", TRAINED)


def refused(call, capsys, status: int = 2) -> str:
    """The one line with which a program ends that refuses to go on."""
    with pytest.raises(SystemExit) as stop:
        call()
    if isinstance(stop.value.code, str):  # sys.exit(line): status 1
        assert status == 1 and "\n" not in stop.value.code
        return stop.value.code
    assert stop.value.code == status
    return capsys.readouterr().err.splitlines()[-1]


def contents(folder: Path) -> dict:
    """What the files below a folder contain."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module", autouse=True)
def beside(request, tmp_path_factory):
    """What a test waits for: programs that run beside this module's other tests."""
    with ThreadPoolExecutor(1) as threads:
        if any("runs_alone" in item.name for item in request.session.items):
            folder = tmp_path_factory.mktemp("alone")
            yield folder, threads.submit(run_alone, folder)
        else:
            yield


# ---- runs ---------------------------------------------------------------------------------------


@scripts
def test_smoke(name, short, capsys):
    run = short(name)
    epochs = () if name in UNTRAINED else ("--epochs", "2")
    out = run(*epochs, "--seed", "3")
    results = json.loads((out / "results.json").read_text(), parse_constant=pytest.fail)
    assert {item.name for item in fields(run.script.Options)} <= results.keys()
    assert results["seed"] == 3 and results["device"] == "cpu" and results["torch"]
    printed = capsys.readouterr().out.splitlines()
    assert "on cpu" in printed[0] and str(out) in printed[-1]
    pictures = [*out.rglob("*.png"), *out.rglob("*.gif")]
    assert any(picture.parent == out for picture in pictures)
    for picture in pictures:
        Image.open(picture).load()
    if name in TRAINED:
        assert (out / "samples" / "epoch-002.png") in pictures
        header, *rows = (out / "metrics.csv").read_text().splitlines()
        assert rows and all(math.isfinite(float(value)) for row in rows for value in row.split(","))
        saved = checkpoint(out)
        assert saved["epoch"] == 2 and saved["script"] == f"{name}.py"
        for key in results:
            if key.startswith("parameters_"):  # but for what batch normalization counts
                weights = saved[key.removeprefix("parameters_")].items()
                assert results[key] == sum(weight.numel() for name, weight in weights if not
                                           re.search(r"running_|num_batches", name))


@trained
def test_resumed_equals_uninterrupted_and_seeds_differ(name, short):
    run = short(name, whole=name in ("binarygan", "bigan"))
    whole, part = run("--epochs", "3", out="whole"), run("--epochs", "1", out="part")
    run("--resume", str(part), "--epochs", "3")
    a, b = checkpoint(whole), checkpoint(part)
    assert_same(a, b)
    pictures = [file for file in whole.rglob("*.*") if file.suffix in (".csv", ".png", ".gif")]
    assert len(pictures) >= 4  # the first samples, and those of three epochs
    for file in pictures:
        assert file.read_bytes() == (part / file.relative_to(whole)).read_bytes(), file.name
    a, b = (json.loads((out / "results.json").read_text()) for out in (whole, part))
    assert {key for key in a if a[key] != b[key]} <= {"training_seconds", "evaluation_seconds"}

    other = checkpoint(run("--epochs", "1", "--seed", "1", out="other"))
    networks = [key for key, value in other.items() if isinstance(value, dict) and any(
        isinstance(weight, torch.Tensor) and weight.dim() > 1 for weight in value.values())]
    assert networks
    for network in networks:
        assert any(not torch.equal(weight, checkpoint(part)[network][key])
                   for key, weight in other[network].items() if weight.dim() > 1)


@trained
def test_as_in_a_notebook(name, short, tmp_path, monkeypatch):
    """train() takes a string, returns the results, and never old ones for new code."""
    script = short(name, whole=False).script
    words = SHORT[name][0].replace("--", "").replace("-", "_").split()
    table = {item.name: type(item.default) for item in fields(script.Options)}
    options = script.Options(epochs=1, device="cpu", **{
        key: table[key](value) for key, value in zip(words[::2], words[1::2])})
    settings = (torch.get_num_threads, torch.get_default_device, torch.get_default_dtype,
                torch.get_float32_matmul_precision)
    before = [setting() for setting in settings]
    results = script.train(options, str(tmp_path / "run"))
    assert before == [setting() for setting in settings]
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == results
    with pytest.raises(FileExistsError, match="is not empty; name a new folder, or continue"):
        script.train(options, tmp_path / "run")
    assert script.train(options, tmp_path / "run", resume=True).keys() == results.keys()


@pytest.mark.parametrize("name", benchmark.RUNS)
def test_the_benchmark_can_measure_every_script(name, short, monkeypatch):
    """Its command is accepted, trains, and ends with the seconds, with few data and no process."""
    run = short(name)

    def here(command, **_):
        assert command[1].name == f"{name}.py"
        run.script.main(command[2:])

    monkeypatch.setattr(subprocess, "run", here)
    monkeypatch.setattr(benchmark, "FEW", 64)
    monkeypatch.setitem(benchmark.RUNS, name,
                        f"{benchmark.RUNS[name]} {SHORT[name][0]} --epochs 1")
    assert benchmark.training_seconds(name, "--precision", "reduced") >= 0


@trained
def test_reduced_precision_is_that_of_the_steps(name, short, monkeypatch):
    """Of all networks, and of nothing else."""
    run = short(name)
    if "precision" not in run.script.Options.__dataclass_fields__:
        return
    networks, seen = [], set()
    begin, mean_losses = common.begin, common.mean_losses

    def begin_and_tell(out, options, state, *more, **numbers):
        networks.extend(part for part in state.values() if isinstance(part, torch.nn.Module))
        return begin(out, options, state, *more, **numbers)

    def in_bf16() -> bool:
        return all("forward" in vars(network) for network in networks
                   if any(weight.dim() == 4 for weight in network.parameters()))

    def watched(losses, *more, **every):
        def look(row):
            seen.add((torch.get_float32_matmul_precision(), in_bf16()))
            return row
        return mean_losses(map(look, losses), *more, **every)

    monkeypatch.setattr(common, "begin", begin_and_tell)
    monkeypatch.setattr(common, "mean_losses", watched)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    run("--epochs", "1", "--precision", "reduced")
    assert seen == {("medium", True)}
    assert torch.get_float32_matmul_precision() == "highest"
    assert not any("forward" in vars(network) for network in networks)


@trained
def test_half_of_the_classes_and_few_test_images(name, short, monkeypatch):
    """Five classes, and fewer test images than most data sets have."""
    run = short(name)
    if "dataset" in run.script.Options.__dataclass_fields__:
        x, y, test_x, test_y = common.load_images()
        few = x[y < 5][:64], y[y < 5][:64], test_x[test_y < 5][:9], test_y[test_y < 5][:9]
        monkeypatch.setattr(common, "load_images", lambda *_: few)
        for picture in run("--epochs", "1").rglob("*.png"):
            Image.open(picture).load()


def test_a_closed_stderr_is_no_obstacle(short, monkeypatch):
    run = short("gan_toy", whole=False)
    monkeypatch.setattr(sys, "stderr", None)
    assert (run("--epochs", "1") / "results.json").exists()


def test_a_whole_script_in_a_cell_of_a_notebook(tmp_path, monkeypatch):
    """No __file__, no module of that name, Options subclassed there, the kernel's arguments."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    monkeypatch.setitem(sys.modules, "ipykernel", None)
    text = (ROOT / "gan_toy.py").read_text().replace("option(120,", "option(1,")
    cell = {"__name__": "__main__", "__doc__": ast.get_docstring(ast.parse(text))}
    exec(compile(text, "cell", "exec"), cell)
    (out,) = tmp_path.glob("runs/gan_toy/*")
    assert (out / "results.json").exists()
    more = ("@dataclass(frozen=True)\nclass Mine(Options):\n    batch_size: int = "
            "option(16, (1, 99), '')\nresults = train(Mine(epochs=1), 'here')")
    exec(compile(more, "cell", "exec"), cell)
    assert cell["results"]["batch_size"] == 16 and (tmp_path / "here" / "results.json").exists()


@trained
def test_interrupted_run_is_continued_by_the_command_that_it_prints(name, short, monkeypatch,
                                                                    capsys, tmp_path):
    run = short(name, whole=False)
    whole = run("--epochs", "2", out="whole")
    script, calls = run.script, []
    algorithm = script.train_epoch

    def interrupted(*args, **names):
        calls.append(1)
        for row in algorithm(*args, **names):
            if len(calls) == 2:
                raise KeyboardInterrupt
            yield row

    with monkeypatch.context() as patch:
        patch.setattr(script, "train_epoch", interrupted)
        last = refused(lambda: run("--epochs", "2", out="a folder"), capsys, status=130)
    out = tmp_path / "a folder"
    assert checkpoint(out)["epoch"] == 1 and not list(out.glob("*.part"))
    command = shlex.split(last.partition("To continue: ")[2])
    assert command[0] == "python" and Path(command[1]).name == f"{name}.py"
    script.main(command[2:])
    assert_same(checkpoint(whole), checkpoint(out))


@trained
@pytest.mark.parametrize("where", ("load_images", "save_checkpoint", "save_grid"))
def test_ctrl_c_before_the_first_epoch(name, where, short, monkeypatch, capsys, tmp_path):
    """A folder exists only where it can be resumed, and what is advised works."""
    run = short(name, whole=False)

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(common, where, stop)
        try:
            last = refused(lambda: run("--epochs", "1"), capsys, status=130)
        except pytest.fail.Exception:
            pytest.skip(f"{name} has no {where}")
    if (tmp_path / "run").exists():
        run.script.main(shlex.split(last.partition("To continue: ")[2])[2:])
        assert checkpoint(tmp_path / "run")["epoch"] == 1
    else:
        assert last == "Interrupted; there is nothing to continue."
        run("--epochs", "1")


@trained
@pytest.mark.parametrize("what", ("loss", "weight"))
def test_what_is_not_finite_stops_the_run(name, what, short, monkeypatch, capsys, tmp_path):
    """The last step of the second epoch breaks; the checkpoint of the first stays."""
    run = short(name, whole=False)
    script, epochs = run.script, []
    algorithm = script.train_epoch

    def breaks(*args, **names):
        epochs.append(1)
        network = next(arg for arg in [*args, *names.values()] if isinstance(arg, torch.nn.Module))
        rows = list(algorithm(*args, **names))
        if len(epochs) == 2 and what == "loss":
            rows[-1] = rows[-1] * math.nan
        if len(epochs) == 2 and what == "weight":
            with torch.no_grad():
                next(network.parameters()).view(-1)[0] = math.inf
        yield from rows

    monkeypatch.setattr(script, "train_epoch", breaks)
    line = refused(lambda: run("--epochs", "3"), capsys, status=1)
    assert line.startswith(f"{name}.py: error: a {what}") and "is not finite" in line
    assert "epoch 2" in line
    assert checkpoint(tmp_path / "run")["epoch"] == 1


@trained
def test_a_full_disk_ends_with_one_line(name, short, monkeypatch, capsys, tmp_path):
    run, write = short(name, whole=False), Path.write_bytes

    def full(path, content):
        write(path, content[:100])
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        line = refused(lambda: run("--epochs", "1"), capsys, status=1)
    assert line.startswith(f"{name}.py: error: ") and "No space left" in line
    assert not any((tmp_path / "run").iterdir())  # so that it can be the folder of another try

    out = run("--epochs", "1")
    before = contents(out)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        refused(lambda: run("--resume", str(out), "--epochs", "2"), capsys, status=1)
    assert (out / "checkpoint.pt").read_bytes() == before[out / "checkpoint.pt"]
    assert not list(out.glob("*.part"))


@trained
def test_damaged_files(name, short, capsys, monkeypatch):
    run = short(name, whole=False)
    out = run("--epochs", "1")
    whole = (out / "checkpoint.pt").read_bytes()
    saved = checkpoint(out)
    for damage in (whole[:1000], b"", None, {"script": "other.py"}, {"options": {"seed": 1}}):
        if isinstance(damage, dict):
            torch.save(saved | damage, out / "checkpoint.pt")
        elif damage is None:
            (out / "checkpoint.pt").unlink()
        else:
            (out / "checkpoint.pt").write_bytes(damage)
        line = refused(lambda: run("--resume", str(out), "--epochs", "2"), capsys)
        changed = damage == {"options": {"seed": 1}}
        assert ("begin another run" if changed else f"{out} holds ") in line
        assert ("a run of other.py" in line) == (damage == {"script": "other.py"})


# ---- options ------------------------------------------------------------------------------------


@scripts
def test_bad_options_end_with_one_line_and_change_nothing(name, monkeypatch, capsys, tmp_path):
    script = importlib.import_module(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "there").mkdir(parents=True)
    bad = [(["--device", "cuda"], "there is no cuda here; accepted: auto, cpu"),
           (["--device", "mps"], "there is no mps here"),
           (["--out", "here"], "here is not empty; name a new folder"),
           (["--colour", "red"], "unrecognized arguments: --colour red")]
    for item in fields(script.Options):
        accepted, flag = item.metadata["accepted"], common.flag(item.name)
        if isinstance(item.default, str):
            bad += [([flag, "xor"], f"{flag}: 'xor' is not one of {', '.join(accepted)}")
                    for _ in accepted[:1]]
            continue
        for value in ("many", "nan", accepted[0] - 1, accepted[1] + 1):
            kind = "a whole number" if isinstance(item.default, int) else "a number"
            complaint = f"is not {kind} from {accepted[0]} to {accepted[1]}"
            if value == "many" or value == "nan" and isinstance(item.default, int):
                complaint = f"argument {flag}: invalid {type(item.default).__name__} value"
            bad.append(([f"{flag}={value}"], complaint))
    if {"batch_size", "train_size"} <= {item.name for item in fields(script.Options)}:
        bad.append((["--batch-size", "64", "--train-size", "63"],
                    "--batch-size: 64 is more than --train-size 63"))
    if name in TRAINED:
        bad += [(["--resume", "nowhere"], "nowhere holds no whole checkpoint.pt"),
                (["--resume", "here", "--out", "there"], "--out: not allowed with argument")]
    for argv, complaint in bad:
        line = refused(lambda: script.main(argv), capsys)
        assert line.startswith(f"{name}.py: error: ") and complaint in line, argv
    assert [path.name for path in tmp_path.rglob("*")] == ["here", "there"]


@scripts
def test_options_in_a_notebook_are_checked(name):
    script = importlib.import_module(name)
    for change in ({"seed": -1}, {"seed": "0"}, {"seed": 0.5}, {"device": "tpu"}):
        with pytest.raises(ValueError, match=f"--{next(iter(change))}: .* is not "):
            script.Options(**change)


@trained
def test_resume_keeps_the_options(name, short, capsys, tmp_path):
    run = short(name, whole=False)
    out = run("--epochs", "2", "--seed", "5")
    before = contents(out)
    for argv, complaint in ((["--seed", "1"], "--seed: the run in"),
                            (["--batch-size", "8"], "--batch-size: the run in"),
                            (["--epochs", "1"], "has 2 already")):
        line = refused(lambda: run("--resume", str(out), *argv), capsys)
        assert complaint in line and str(out) in line
    assert contents(out) == before
    line = refused(lambda: run("--epochs", "2"), capsys)  # the same folder again
    assert line.endswith(f"or continue the run in it with --resume {out}")


@scripts
def test_help_shows_defaults_and_examples(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / f"{name}.py"), run_name="__main__")
    assert stop.value.code == 0
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert shown.count(f"python {name}.py") >= 2
    for item in fields(importlib.import_module(name).Options):
        assert f"{item.metadata['meaning']} (default: {item.default})" in shown


@scripts
def test_two_runs_in_the_same_second_are_two_runs(name, monkeypatch):
    script = importlib.import_module(name)
    folders = set()
    monkeypatch.setattr(script, "train", lambda options, out, resume: folders.add(out) or {})
    for _ in range(2):
        script.main([])
        time.sleep(0.01)
    assert len(folders) == 2 and all(out.parts[:2] == ("runs", name) for out in folders)


# ---- files --------------------------------------------------------------------------------------

ONE_BY_ONE = """
import importlib, os, sys
from matplotlib.figure import Figure
savefig = Figure.savefig
Figure.savefig = lambda self, path, **_: savefig(self, path, dpi=20)
Figure.get_layout_engine = lambda self: None
for name, options in {runs}.items():
    os.chdir({folder!r} + "/" + name)
    sys.path[0] = os.getcwd()
    for known in {{*{runs}, "common"}} & {{*sys.modules}}:
        del sys.modules[known]
    script = importlib.import_module(name)
    for constant, value in {constants}[name].items():
        setattr(script, constant, value)
    script.tsne, script.critic_steps = lambda codes, _: codes[:, :2], lambda *_: 2
    script.main(options.split())
"""


def write_idx(path: Path, values: torch.Tensor) -> None:
    """Bytes in the format of MNIST's files."""
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(gzip.compress(bytes([0, 0, 8, values.dim()]) + sizes
                                   + values.byte().numpy().tobytes()))


def run_alone(folder: Path) -> tuple[int, str]:
    """Every script, one after the other in one program; returns status and what was printed."""
    runs, constants, raw = {}, {}, folder / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    stream = torch.Generator().manual_seed(0)
    for part in ("train", "t10k"):
        write_idx(raw / f"{part}-images-idx3-ubyte.gz",
                  torch.randint(256, (300, 28, 28), generator=stream))
        write_idx(raw / f"{part}-labels-idx1-ubyte.gz", torch.arange(300) % 10)
    for name, (options, values) in SHORT.items():
        (folder / name).mkdir()
        for file in (f"{name}.py", "common.py"):
            shutil.copy(ROOT / file, folder / name)
        os.symlink(folder / "data", folder / name / "data")
        runs[name] = options + ("" if name in UNTRAINED else " --epochs 1")
        constants[name] = {key: value for key, value in values.items() if type(value) is int}
    program = ONE_BY_ONE.format(runs=runs, constants=constants, folder=str(folder))
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True,
                          text=True)
    return done.returncode, done.stderr


def test_every_script_runs_alone(beside):
    """With common.py and few data beside it, in a folder with nothing else."""
    folder, ended = beside
    status, err = ended.result()
    assert status == 0, err
    for name in SHORT:
        (out,) = (folder / name / "runs" / name).iterdir()
        assert (out / "results.json").exists()


def above_the_line(name: str) -> ast.Module:
    """The part of a script above `# ---- run`, but for its docstring, imports and Options."""
    text = (ROOT / f"{name}.py").read_text()
    paper, line, _ = text.partition("# ---- run")
    assert line, f"{name}.py has no line '# ---- run'"
    module = ast.parse(paper)
    module.body = [node for node in module.body
                   if not isinstance(node, (ast.Import, ast.ImportFrom, ast.If))
                   and not (isinstance(node, ast.ClassDef) and node.name == "Options")]
    return module


TWO_STEPS = {  # the code that a student would write below the pasted part
    "gan_toy": """
G, D = generator(), discriminator()
losses = train_epoch(G, D, optimizer(G, 1e-3, "wgan-gp"), optimizer(D, 1e-3, "wgan-gp"),
                     real_batches(8, torch.device("cpu")), range(2), 5, "wgan-gp")""",
    "wgan_gp_binary_seed": """
BLOCK = 2
C, G = critic(), generator(7 + 12)
opt_c, opt_g = (torch.optim.Adam(network.parameters(), 1e-3) for network in (C, G))
batches = iter(lambda: (torch.rand(2, 784), torch.rand(2, 784)), None)
losses = train_epoch(G, C, opt_g, opt_c, batches, range(2), 7, 12)""",
    "binarygan": """
G, D = generator("mlp", "none"), discriminator("mlp", "none")
batches = iter(lambda: torch.rand(4, 784).round(), None)
losses = train_epoch(G, D, optimizer(G, 1e-4, "wgan-gp"), optimizer(D, 1e-4, "wgan-gp"),
                     batches, [5, 5], 1.0, "sbn", "wgan-gp")""",
    "infogan": """
G, (trunk, D, Q) = generator(), trunk_d_and_q()
opt_g = torch.optim.Adam(G.parameters(), 1e-3)
opt_d = torch.optim.Adam([*trunk.parameters(), *D.parameters(), *Q.parameters()], 2e-4)
batches = iter(lambda: torch.rand(4, 784), None)
losses = train_epoch(G, trunk, D, Q, opt_g, opt_d, batches, range(2), 1.0)""",
    "bigan": """
E, G, D = Encoder(), Generator(), Discriminator()
opt_eg, opt_d = adam([*E.parameters(), *G.parameters()], 2e-4, 0), adam(D.parameters(), 2e-4, 0)
batches = iter(lambda: torch.rand(4, 784), None)
losses = train_epoch(E, G, D, copy.deepcopy(E), copy.deepcopy(G), opt_eg, opt_d, batches,
                     range(2), 0.999)""",
    "cbigan": """
E, G, D = Encoder(), Generator("simple"), Discriminator("simple")
opt_eg, opt_d = adam([*E.parameters(), *G.parameters()], 2e-4, 0), adam(D.parameters(), 2e-4, 0)
batches = iter(lambda: (torch.rand(4, 784), torch.eye(10)[:4]), None)
losses = train_epoch(E, G, D, copy.deepcopy(E), copy.deepcopy(G), opt_eg, opt_d, batches,
                     range(2), 0.999)""",
    "recurrent_disc_toy": """
STEPS = 2
D = Discriminator(10)
losses = fit(D, copy.deepcopy(D), torch.optim.Adam(D.parameters()), 4)""",
    "recurrent_disc": """
G, D = generator(), Discriminator(784)
opt_g, opt_d = (torch.optim.Adam(network.parameters()) for network in (G, D))
losses = train_epoch(G, D, opt_g, opt_d, iter(lambda: torch.rand(8, 784), None), range(2), 2, 4)""",
    "bigran": """
E, G, D = Encoder(4, 8), Decoder(8), Discriminator(8, 4, 0.3)
opt_eg = torch.optim.Adam([*E.parameters(), *G.parameters()], 2e-4)
opt_d = torch.optim.Adam(D.parameters(), 2e-4)
batches = iter(lambda: torch.rand(8, 784), None)
losses = train_epoch(E, G, D, copy.deepcopy(E), copy.deepcopy(G), opt_eg, opt_d, batches,
                     range(2), 1, 1e-6, 0.999)""",
    "cycle_toy": """
nets = networks("inspector", [torch.Generator().manual_seed(seed) for seed in (0, 1)])
losses = train_epoch(nets, optimizers(nets, 1e-3), torch.rand(2, 3, 2, 8, 2), "inspector", True,
                     1.0)""",
}


@pytest.mark.parametrize("name", TWO_STEPS)
def test_the_paper_can_be_pasted_into_an_empty_module(name):
    """Networks, objective and algorithm need nothing but torch and the constants, for two steps."""
    imports = ("import math, copy, itertools\nimport torch\nfrom torch import Tensor, nn\n"
               "from torch.nn import functional\nfrom torch.nn.functional import *\n"
               "from collections.abc import *\nfrom pathlib import Path\n")
    module = {"__name__": "coursework"}
    exec(compile(imports, "imports", "exec"), module)
    exec(compile(above_the_line(name), name, "exec"), module)
    exec(compile(TWO_STEPS[name], "two steps", "exec"), module)
    rows = list(module["losses"])
    assert len(rows) == 2 and all(torch.as_tensor(row).isfinite().all() for row in rows)


@scripts
def test_shape(name):
    """Short, no bundles above the line, no script imports another."""
    text = (ROOT / f"{name}.py").read_text()
    assert len(text.splitlines()) <= 430
    for node in ast.walk(above_the_line(name)):
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            names = {arg.arg for arg in [*node.args.args, *node.args.kwonlyargs]}
            assert not names & {"args", "options", "parts", "state", "data", "modules"}, node.name


def test_three_floors():
    """Arrows go downward only: common; the scripts; what looks at whole papers and models."""
    floors = {"common": 0, **dict.fromkeys(SHORT, 1)}
    for path in ROOT.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                imported = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                for name in imported & {file.stem for file in ROOT.glob("*.py")}:
                    assert floors.get(name, 2) < floors.get(path.stem, 2), f"{path.name}: {name}"


def test_every_script_is_tested_here():
    above = {"common", "benchmark", "reproduce", "explore"}
    assert {path.stem for path in ROOT.glob("*.py")} - above == {*SHORT}
    assert {*TWO_STEPS} == {*SHORT} - {"wasserstein_toy"}  # which shows critics, and trains no GAN
