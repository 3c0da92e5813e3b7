"""What every script needs and no paper is about: MNIST as tensors, plots, and the program around.

Images are rows of 784 floats in [0, 1] (28 x 28, row by row, 0 is black) wherever they go.
"""

import argparse
import csv
import gzip
import hashlib
import io
import json
import math
import multiprocessing
import os
import shlex
import signal
import sys
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, field, fields
from datetime import datetime
from functools import partial, partialmethod
from http.client import HTTPException
from multiprocessing import SimpleQueue
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

if "matplotlib" not in sys.modules and "MPLBACKEND" in os.environ:
    # Jupyter names its backend there for every program that it starts; where that backend is not
    # installed, matplotlib refuses to be imported. We only write files and need none.
    backend = os.environ.pop("MPLBACKEND")
    import matplotlib
    os.environ["MPLBACKEND"] = backend
    with suppress(ValueError):
        matplotlib.rcParams["backend"] = backend  # for a notebook, as if nothing had been

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate
from tqdm import tqdm

FILES = {  # of MNIST, and the MD5 checksum of what is in each
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
SILENCE = 20  # seconds after which we give up a mirror that does not answer


def mnist(root: str | Path, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """MNIST, whole, on the device: it fits anywhere, and a minibatch is then one index.

    Returns train_x (60000, 784), train_y (60000,), test_x (10000, 784), test_y (10000,).
    The files are in MNIST/raw below `root`, here or beside common.py. Those missing are downloaded.
    Another data set under their names, such as Fashion-MNIST, is used with a warning. Raises
    OSError, naming the file, where one is missing, damaged, or does not fit.
    """
    raw = Path(root) / "MNIST" / "raw"
    if not raw.exists() and (Path(__file__).parent / raw).exists():
        raw = Path(__file__).parent / raw
    missing = [raw / f"{name}.gz" for name in FILES
               if not (raw / f"{name}.gz").exists() and not (raw / name).exists()]
    if missing:
        print(f"downloading {', '.join(path.name for path in missing)}", flush=True)
    for path in missing:
        download(path)

    tensors = []
    for part in (f"{raw}/train", f"{raw}/t10k"):
        x = read_idx(Path(f"{part}-images-idx3-ubyte"), 3)
        y = read_idx(Path(f"{part}-labels-idx1-ubyte"), 1)
        if x.shape[1:] != (28, 28) or len(x) != len(y) or y.max() > 9:
            raise OSError(f"{part}-*: {len(x)} images of {x.shape[1]} x {x.shape[2]} pixels, "
                          f"{len(y)} labels up to {y.max()}; the programs need images of 28 x 28 "
                          "pixels and as many labels from 0 to 9")
        tensors += [(x.flatten(1).float() / 255).to(device), y.long().to(device)]
    return tuple(tensors)


def read_idx(path: Path, dimensions: int) -> Tensor:
    """The unsigned bytes in an idx file, or in the .gz file beside it, which goes first.

    The layout: 0, 0, 8, number of dimensions; the sizes, four bytes each; the values.
    """
    expected, start = FILES[path.name], 4 + 4 * dimensions
    if path.with_name(f"{path.name}.gz").exists():
        path = path.with_name(f"{path.name}.gz")
    content = path.read_bytes()
    try:
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise OSError(f"{path} is damaged: {error}") from None
    sizes = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    values = len(content) - start
    if content[:4] != bytes([0, 0, 8, dimensions]) or math.prod(sizes) != values or values == 0:
        raise OSError(f"{path} is damaged, or no idx file: {len(content)} bytes in it do not make "
                      f"an array in {dimensions} dimensions")
    if md5(content) != expected:
        tqdm.write(f"warning: {path} is not MNIST's (its checksum differs); this program goes on "
                   "with it", sys.stderr)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).view(sizes)


def download(path: Path) -> None:
    """Fetch one of the .gz files from torchvision's mirrors, whole or not at all."""
    from torchvision.datasets import MNIST  # importing it takes as long as torch: where needed

    for mirror in MNIST.mirrors:
        try:
            with urlopen(mirror + path.name, timeout=SILENCE) as answer:
                packed = answer.read(10_000_000)  # none of the files is larger
            if md5(gzip.decompress(packed)) == FILES[path.stem]:
                break
            reason = "another file under its name"
        except (OSError, EOFError, zlib.error, HTTPException) as error:
            reason = error
    else:
        raise OSError(f"{path} is missing, and no mirror has it ({reason}): put the four MNIST .gz "
                      f"files into {path.parent}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent) as folder:
        part = Path(folder) / path.name
        part.write_bytes(packed)
        if not path.exists():  # another program may have been faster
            os.replace(part, path)


def md5(content: bytes) -> str:
    """The checksum that everyone uses for MNIST."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def minibatches(x: Tensor, batch_size: int,
                generator: torch.Generator | None = None) -> Iterator[Tensor]:
    """Minibatches of the rows of x without end, in another random order in every pass.

    What is left over at the end of a pass, fewer rows than a minibatch, is skipped.
    """
    if len(x) < batch_size:
        raise ValueError(f"{len(x)} rows do not fill a minibatch of {batch_size}")
    while True:
        order = torch.randperm(len(x), generator=generator, device=x.device)
        for indices in order.split(batch_size)[: len(x) // batch_size]:
            yield x[indices]


def nearest(queries: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
    """The reference nearest to each query in Euclidean distance.

    queries (N, d) and references (M, d) give index (N,) and distance (N,). Labels by nearest
    training image are `train_y[index]`.
    """
    norms = references.square().sum(1)
    index = []
    for chunk in tqdm(queries.split(500), "nearest neighbors", leave=False):
        # |q - r|^2 less |q|^2, which is the same for all references
        index.append(torch.addmm(norms, chunk, references.T, alpha=-2).argmin(1))
    index = torch.cat(index)
    return index, (queries - references[index]).norm(dim=1)


def kl_divergence(p: Tensor, q: Tensor) -> float:
    """KL(p || q) in nats of two discrete distributions of the same shape; 0 log 0 is 0."""
    p, q = p[p > 0], q[p > 0]
    return (p * (p / q).log()).sum().item()


def label_statistics(images: Tensor, train_x: Tensor, train_y: Tensor, test_x: Tensor,
                     test_y: Tensor) -> dict:
    """What the nearest training images tell about images (N, 784).

    Their class distribution, how many digits have at least 2% of them, KL(class distribution ||
    that of the training set), and the median distance; the same distance of the test images, and
    the share of these whose nearest training image has their label.
    """
    index, distance = nearest(images, train_x)
    test_index, test_distance = nearest(test_x, train_x)
    shares = torch.bincount(train_y[index], minlength=10) / len(images)
    return {
        "class_distribution": shares.tolist(),
        "digits": (shares >= 0.02).sum().item(),
        "kl": kl_divergence(shares, torch.bincount(train_y, minlength=10) / len(train_y)),
        "median_distance": distance.median().item(),
        "median_distance_of_test_images": test_distance.median().item(),
        "label_accuracy_on_test_images": (train_y[test_index] == test_y).float().mean().item(),
    }


def save_grid(images: Tensor, path: Path, columns: int = 8) -> None:
    """Write images (N, 784) as one plain picture, twice their size."""
    from torchvision.utils import save_image

    images = interpolate(images.cpu().view(-1, 1, 28, 28), scale_factor=2)
    save_image(images, path, nrow=columns, pad_value=0.5)


def save_gif(pictures: Iterable[Path], path: Path, most: int = 60, in_color: bool = False) -> None:
    """Write numbered pictures as an animation, or `most` of them, evenly spaced.

    Each is shown for half a second or less, all for eight seconds; the last stays for two seconds.
    They become gray, or, `in_color`, get 32 colors, which are those of the first picture.
    """
    # epoch-1000 comes after epoch-999
    pictures = sorted(pictures, key=lambda picture: (len(picture.name), picture.name))
    if len(pictures) > most:
        pictures = [pictures[round(i * (len(pictures) - 1) / (most - 1))] for i in range(most)]
    frames = [Image.open(picture).convert("RGB" if in_color else "L") for picture in pictures]
    if in_color:
        palette = frames[0].quantize(32)
        frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    pause = min(500, 8000 // len(frames))
    frames[0].save(path, save_all=True, append_images=frames[1:], loop=0,
                   duration=[pause] * (len(frames) - 1) + [2000])


def save_panels(panels: dict[str, Tensor], path: Path, across: int,
                in_color: Collection[str] = (), columns: int = 8) -> None:
    """Write titled grids of images (N, 784) side by side, `across` in a row.

    Panels named `in_color` are shown through a color map with its scale, the others in gray.
    """
    from torchvision.utils import make_grid

    rows = math.ceil(len(panels) / across)
    figure = Figure(figsize=(3.6 * across, 4 * rows), layout="constrained")
    for axes in figure.subplots(rows, across, squeeze=False).flat:
        axes.set_axis_off()
    for axes, (title, images) in zip(figure.axes, panels.items()):
        tiles = make_grid(images.cpu().view(-1, 1, 28, 28), columns, pad_value=float("nan"))[0]
        color = title in in_color
        shown = axes.imshow(tiles.numpy(), cmap="viridis" if color else "gray", vmin=0, vmax=1)
        axes.set_title(title, fontsize=10)
        if color:
            figure.colorbar(shown, ax=axes, shrink=0.8)
    figure.savefig(path, dpi=150)


def save_curves(panels: dict[str, dict[str, tuple]], path: Path, xlabel: str,
                ylabel: str = "", log: bool = False) -> None:
    """Write curves {panel title: {label: (x, y)}}, each panel with axes and a legend of its own.

    x and y are tensors or sequences of numbers. A curve of one point is a dot.
    """
    def on_cpu(values):
        return values.cpu() if isinstance(values, Tensor) else values

    figure = Figure(figsize=(5.5 * len(panels), 3.8), layout="constrained")
    for axes, (title, curves) in zip(figure.subplots(1, len(panels), squeeze=False).flat,
                                     panels.items()):
        for label, (x, y) in curves.items():
            axes.plot(on_cpu(x), on_cpu(y), linewidth=1, marker="o" if len(x) == 1 else None,
                      label=label)
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel, yscale="log" if log else "linear")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=150)


def save_scatter(panels: dict[str, Tensor], labels: Tensor, path: Path) -> None:
    """Write titled clouds of points (N, 2) side by side, a color for each of the labels (N,)."""
    labels = labels.cpu()
    figure = Figure(figsize=(6 * len(panels) + 0.8, 6), layout="constrained")
    for axes, (title, points) in zip(figure.subplots(1, len(panels), squeeze=False).flat,
                                     panels.items()):
        for label in labels.unique().tolist():
            x, y = points.cpu()[labels == label].T
            axes.scatter(x, y, s=2, color=f"C{label}", label=label)
        axes.set(title=title, xticks=[], yticks=[])
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", markerscale=6)
    figure.savefig(path, dpi=120)


# ---- programs -----------------------------------------------------------------------------------
# What every script does around its paper: options, files that are whole, runs side by side.

FREE = ("epochs", "device", "data")  # options in which a continued run may differ


def option(default: str | int | float, accepted: tuple, meaning: str):
    """A field of a script's Options: a dataclass, from which its command line is made.

    `accepted` holds the accepted words, or the lowest and the highest number; () is any text.
    """
    return field(default=default, metadata={"accepted": accepted, "meaning": meaning})


def flag(name: str) -> str:
    """The option as it stands on the command line."""
    return "--" + name.replace("_", "-")


def check_options(options) -> None:
    """Raise ValueError, naming the option and what is accepted, where a value is not accepted."""
    for item in fields(options):
        value, accepted = getattr(options, item.name), item.metadata["accepted"]
        if isinstance(item.default, str):
            good, wanted = not accepted or value in accepted, f"one of {', '.join(accepted)}"
        else:
            whole, (low, high) = isinstance(item.default, int), accepted
            good = isinstance(value, int if whole else (int, float)) and low <= value <= high
            wanted = f"a {'whole number' if whole else 'number'} from {low} to {high}"
        if not good:
            raise ValueError(f"{flag(item.name)}: {value!r} is not {wanted}")
    if getattr(options, "batch_size", 0) > getattr(options, "train_size", math.inf):
        raise ValueError(f"--batch-size: {options.batch_size} is more than --train-size "
                         f"{options.train_size}")
    if (options.device == "cuda" and not torch.cuda.is_available()
            or options.device == "mps" and not torch.backends.mps.is_available()):
        raise ValueError(f"--device: there is no {options.device} here; accepted: auto, cpu")


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" is cuda where there is one, else cpu."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def script_of(options) -> Path:
    """The file that the class or instance of Options is from."""
    module = options.__module__
    return Path(sys.modules[module].__file__)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, whether the disk is full or the program is stopped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
        if not any(path.parent.iterdir()):
            path.parent.rmdir()


def save_checkpoint(options, out: Path, state: dict, epoch: int, log: list, seconds: float,
                    **more) -> None:
    """Write checkpoint.pt: networks and optimizers (`state`, by name), numbers, and options.

    Raises FloatingPointError where a weight is not finite; the last checkpoint stays as it is.
    """
    for name, part in state.items():
        if isinstance(part, nn.Module) and not all(w.isfinite().all() for w in part.parameters()):
            raise FloatingPointError(f"a weight of {name} is not finite after epoch {epoch}; {out} "
                                     f"holds epoch {epoch - 1}")
    content = {name: part.state_dict() for name, part in state.items()} | more
    content |= {"epoch": epoch, "log": log, "seconds": seconds, "options": asdict(options),
                "script": script_of(options).name}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_whole(out / "checkpoint.pt", buffer.getvalue())


def read_checkpoint(Options: type, out: Path, device: torch.device | str = "cpu") -> dict:
    """The content of checkpoint.pt. Raises OSError where it is not a whole one of this script."""
    try:
        saved = torch.load(out / "checkpoint.pt", map_location=device, weights_only=True)
    except Exception:  # what a damaged file raises depends on the damage
        saved = {}
    script, names = script_of(Options).name, {item.name for item in fields(Options)}
    if saved.get("script") != script or saved["options"].keys() != names:
        by = f"; {saved['script']} made it" if saved.get("script", script) != script else ""
        raise OSError(f"{out} holds no whole run of {script}{by}")
    return saved


def begin(options, out: Path, state: dict, device: torch.device, **more) -> list:
    """Write a first checkpoint.pt, or put the one that is there into `state`, and say so.

    Returns epochs done, log, seconds of training, and the values of `more`: 0, [], 0.0 and those
    given, or what is in checkpoint.pt. Raises OSError where that is not a whole one, has other
    options, or more epochs.
    """
    numbers = {"epoch": 0, "log": [], "seconds": 0.0} | more
    if (out / "checkpoint.pt").exists():
        saved = read_checkpoint(type(options), out, device)
        require_same(options, saved["options"], out)
        require_epochs(options, saved["epoch"], out)
        for name, part in state.items():
            part.load_state_dict(saved[name])
        numbers = {name: saved[name] for name in numbers}
    else:
        save_checkpoint(options, out, state, **numbers)
    (out / "samples").mkdir(exist_ok=True)
    say(f"{out} on {device} ({torch.get_num_threads()} CPU threads), {numbers['epoch']} of "
        f"{options.epochs} epochs done")
    return list(numbers.values())


def require_same(options, stored: dict, out: Path) -> None:
    """Raise FileExistsError where an option that a run keeps is not the one in its folder."""
    for name, value in asdict(options).items():
        if name not in FREE and stored[name] != value:
            raise FileExistsError(f"{flag(name)}: the run in {out} has {stored[name]}, which it "
                                  "keeps")


def require_epochs(options, done: int, out: Path) -> None:
    """Raise FileExistsError where more epochs are done than the options have."""
    if done > options.epochs:
        raise FileExistsError(f"--epochs: the run in {out} has {done} already")


def finished(options, out: Path) -> dict | None:
    """The results of the run in `out`, where it has finished with so many epochs, else None.

    Raises FileExistsError where it has other options.
    """
    try:
        results = json.loads((out / "results.json").read_text())
        stored = {name: results[name] for name in asdict(options)}
    except (OSError, ValueError, LookupError, TypeError):  # none, or not whole
        return None
    require_same(options, stored, out)
    return results if stored.get("epochs") == getattr(options, "epochs", None) else None


def parameter_counts(state: dict) -> dict:
    """How many parameters each network of `state` has, as parameters_NAME."""
    return {f"parameters_{name}": sum(w.numel() for w in part.parameters())
            for name, part in state.items() if isinstance(part, nn.Module)}


def save_results(options, out: Path, numbers: dict, device: torch.device, seconds: float) -> dict:
    """Write results.json: the numbers, the options, and what they were made with; return all.

    What is not a number, as 0 / 0, is null there.
    """
    def defined(value):
        if isinstance(value, list):
            return [defined(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    made_with = {"device": str(device), "threads": torch.get_num_threads(),
                 "torch": torch.__version__, "training_seconds": round(seconds, 1)}
    results = numbers | asdict(options) | made_with
    results = {name: defined(value) for name, value in results.items()}
    write_whole(out / "results.json", json.dumps(results, indent=2, allow_nan=False).encode())
    return results


def save_csv(names: Iterable[str], rows: Iterable[Iterable], path: Path) -> None:
    """Write rows under the names of their columns."""
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([names, *rows])


def save_table(rows: list[dict], path: Path, shown: tuple[str, ...]) -> None:
    """Write the results of several runs as CSV, each run once; print the columns `shown`."""
    rows = list({row["run"]: row for row in rows}.values())
    names = list(dict.fromkeys(name for row in rows for name in row))  # in order, each once
    save_csv(names, ([row.get(name) for name in names] for row in rows), path)
    cells = [["run", *shown], *([row["run"], *(in_words(row[name]) for name in shown)]
                                for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    print()
    for run, *numbers in cells:
        numbers = [number.rjust(width) for number, width in zip(numbers, widths[1:])]
        print(run.ljust(widths[0]), *numbers, sep="  ")


def mean_losses(losses: Iterator[Tensor], steps: range, bar: tqdm,
                units: Callable[[int], int] = lambda step: 1) -> Iterator[list[float]]:
    """Read the losses of an epoch's steps, some fifty at a time: until then they stay where they
    are, and an accelerator need not wait.

    Yields [number of the last step, from 1, means of the losses]. Step i counts units(i) on the
    bar. Raises FloatingPointError where a loss is not finite, OSError where there is no step.
    """
    if not steps:
        raise OSError("the data have fewer images than a minibatch")
    rows = []
    for step, row in zip(steps, losses):
        rows.append(row)
        bar.update(units(step))
        if len(rows) == 50 or step == steps[-1]:
            means = torch.stack(rows).mean(0).tolist()
            if not all(map(math.isfinite, means)):
                epoch = steps.start // len(steps) + 1
                raise FloatingPointError(f"a loss is not finite in steps {step + 2 - len(rows)} to "
                                         f"{step + 1} (epoch {epoch}); earlier epochs are kept")
            yield [step + 1, *means]
            rows = []


def begin_process(slots: SimpleQueue, lock) -> None:
    """One of the processes of train_all: one thread, a line of its own for its bars."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends the others
    torch.set_num_threads(1)
    sys.stdout = open(os.devnull, "w")
    tqdm.set_lock(lock)
    tqdm.__init__ = partialmethod(tqdm.__init__, position=slots.get(), leave=False)


def train_all(train: Callable, runs: dict[Path, object], jobs: int) -> Iterator[dict]:
    """Train runs, options by folder, `jobs` at a time; yield their results as rows of a table.

    With one job they train in this process, else in processes of one thread each, and rows come as
    the runs end. An error in one is printed with its name and leaves the others alone; at the end
    it raises ChildProcessError.
    """
    pool, failed, lock = None, [], tqdm.get_lock()
    try:
        if jobs == 1:
            ended = ((out, partial(train, options, out)) for out, options in runs.items())
        else:
            context = multiprocessing.get_context("spawn")
            slots = context.SimpleQueue()
            for slot in range(jobs):
                slots.put(slot + 1)
            tqdm.set_lock(context.RLock())  # the bars of all processes take turns
            pool = ProcessPoolExecutor(jobs, context, begin_process, (slots, tqdm.get_lock()))
            futures = {pool.submit(train, options, out): out for out, options in runs.items()}
            ended = ((futures[future], future.result) for future in as_completed(futures))
        for out, result in tqdm(ended, "all runs", len(runs), unit=" runs", disable=jobs == 1):
            try:
                yield {"run": out.name} | result()
            except (OSError, FloatingPointError, BrokenExecutor) as error:
                tqdm.write(f"{out.name}: error: {error}", sys.stderr)
                failed.append(out.name)
    finally:
        if pool:
            for process in multiprocessing.active_children():
                process.terminate()
            pool.shutdown(cancel_futures=True)
            tqdm.set_lock(lock)
    if failed:
        raise ChildProcessError(f"{len(failed)} of {len(runs)} runs failed: {', '.join(failed)}")


def parse_args(Options: type, configuration: Callable, argv: list[str] | None, resume: bool,
               varied: tuple[str, ...] | None, paper_arguments: dict,
               paper_check: Callable | None) -> argparse.Namespace:
    """The command line: options, out, paper, jobs, command, and the arguments of paper by name.

    A bad one ends the program with status 2 and one line. `varied` are the options whose values
    --paper goes through; None where there is no --paper.
    """
    script = script_of(Options)
    command = shlex.join(["python", os.path.relpath(script)])
    title, *lines = sys.modules[Options.__module__].__doc__.splitlines()
    examples = [line for line in lines if f"python {script.name}" in line]  # figure, command, file
    parser = argparse.ArgumentParser(
        prog=script.name, usage=f"python {script.name} [options]", description=title,
        epilog="\n".join(["examples:", *examples]), allow_abbrev=False,
        argument_default=argparse.SUPPRESS, formatter_class=argparse.RawDescriptionHelpFormatter)

    def convert(kind: type, text: str) -> str | int | float:
        try:
            return kind(text)
        except ValueError:
            return text  # refused by the table of options, which says what is accepted

    for item in fields(Options):
        kind, accepted = type(item.default), item.metadata["accepted"]
        metavar = {int: "N", float: "X", str: "|".join(accepted) if kind is str else ""}[kind]
        parser.add_argument(flag(item.name), type=partial(convert, kind), metavar=metavar or "DIR",
                            help=f"{item.metadata['meaning']} (default: {item.default})")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to make (default: runs/"
                        f"{script.stem}/DATE-TIME-CONFIGURATION)")
    if resume:
        free = [flag(item.name) for item in fields(Options) if item.name in FREE]
        parser.add_argument("--resume", type=Path, metavar="DIR", help="continue the run in DIR "
                            f"with its options; only {' and '.join(free)} may differ")
    if varied is not None:
        parser.add_argument("--paper", action="store_true", help="all trainings of the paper, then "
                            "its figures and tables; continues what was stopped")
        parser.add_argument("--jobs", type=int, metavar="N", help="trainings at a time with "
                            "--paper (default: the number of cores, 1 on a GPU)")
    for name, settings in paper_arguments.items():
        parser.add_argument(flag(name), **settings)

    given = vars(parser.parse_args(argv))
    out, old, paper, jobs = (given.pop(name, None) for name in ("out", "resume", "paper", "jobs"))
    more = {name: given.pop(name) for name in paper_arguments if name in given}
    try:
        if old and (paper or out):
            raise ValueError("--resume: not allowed with --paper or --out")
        if jobs is not None and (not paper or jobs < 1):
            raise ValueError("--jobs: goes with --paper, and is a whole number from 1 on")
        for name, value in more.items():
            if not paper and value != paper_arguments[name].get("default"):
                raise ValueError(f"{flag(name)}: goes with --paper")
        if paper_check and paper:
            paper_check(**more)
        saved = read_checkpoint(Options, old) if old else {"options": {}}
        options = Options(**saved["options"] | given)
        if old:
            require_same(options, saved["options"], old)
            require_epochs(options, saved["epoch"], old)
        for name in varied if paper else ():
            if name in given:
                raise ValueError(f"{flag(name)}: --paper goes through its values itself")
        if out and out.exists() and not paper:
            hint = f", or continue the run in it with {command} --resume {shlex.quote(str(out))}"
            raise ValueError(f"--out: {out} exists; name a new folder{hint if resume else ''}")
    except (OSError, ValueError) as error:
        parser.error(str(error))
    moment = datetime.now().strftime("%Y%m%d-%H%M%S-%f")[:-3]  # two in a second are two runs
    name = "paper" if paper else f"{moment}-{configuration(options)}"
    cores = os.cpu_count() if pick_device(options.device).type == "cpu" else 1
    return argparse.Namespace(options=options, out=old or out or Path("runs", script.stem, name),
                              paper=paper, jobs=jobs or cores, command=command, more=more)


def run_program(Options: type, train: Callable, configuration: Callable,
                argv: list[str] | None = None, paper: Callable | None = None,
                varied: tuple[str, ...] = (), resume: bool = True,
                paper_arguments: dict | None = None, paper_check: Callable | None = None) -> None:
    """A script's main: status 0, 1 (data, disk or losses), 2 (options), 130 (Ctrl-C).

    train(options, out) gives the results of one run; paper(options, out, jobs, ...) makes all of
    them. `paper_arguments` are its further arguments, as for argparse, by name; paper_check(...)
    raises ValueError where one is not accepted.
    """
    args = None
    try:
        args = parse_args(Options, configuration, argv, resume, varied if paper else None,
                          paper_arguments or {}, paper_check)
        if args.paper:
            paper(args.options, args.out, args.jobs, **args.more)
        else:
            show(train(args.options, args.out))
        say(f"Pictures and numbers: {args.out}")
    except KeyboardInterrupt:
        hint = "Interrupted; there was nothing to keep yet." if args else "Interrupted."
        if args and (args.paper or (args.out / "checkpoint.pt").exists()):
            given = sys.argv[1:] if argv is None else argv
            again = shlex.join(given if args.paper else ["--resume", str(args.out)])
            hint = f"Interrupted. What is finished is kept. To continue: {args.command} {again}"
        print(f"\n{hint}", file=sys.stderr)
        sys.exit(130)
    except (OSError, FloatingPointError) as error:
        sys.exit(f"{script_of(Options).name}: error: {error}")


def say(text: str) -> None:
    """Print text; what the console has no sign for, as in a folder's name, is escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def show(results: dict) -> None:
    """Print results, a line each."""
    for name, value in results.items():
        print(f"{name:32}{in_words(value)}")


def in_words(value) -> str:
    """A result as it is printed: numbers with four digits, "-" for what is undefined."""
    if isinstance(value, list):
        return " ".join(map(in_words, value))
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
