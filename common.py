"""What every script needs and no paper is about: images as tensors, measures, pictures, runs.

Images are rows of 784 floats in [0, 1] (28 x 28, row by row, 0 is black) wherever they go.
"""

import argparse
import csv
import gzip
import io
import json
import math
import os
import shlex
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, field, fields
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from matplotlib import color_sequences
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torch.nn.functional import interpolate
from tqdm import tqdm

DATASETS = ("MNIST", "FashionMNIST", "KMNIST")
FREE = ("epochs", "device", "data")  # options in which a continued run may differ

# ---- data ---------------------------------------------------------------------------------------


def load_images(root: str | Path = "data", dataset: str = "MNIST", train_size: int = 0,
                device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A data set, whole, on the device: it fits anywhere, and a minibatch is then one index.

    Returns train_x (N, 784), train_y (N,), test_x (M, 784), test_y (M,): all or, where it is not 0,
    the first train_size of each. Raises OSError where a file is missing, damaged, or does not fit.
    """
    raw, may_download = Path(root, dataset, "raw"), str(root) == "data"
    if may_download and not raw.exists() and "__file__" in globals():
        raw = Path(__file__).parent / raw
    tensors = []
    for part in ("train", "t10k"):
        x, y = (read_idx(raw / f"{part}-{name}-ubyte.gz", dataset, may_download)
                for name in ("images-idx3", "labels-idx1"))
        if x.shape[1:] != (28, 28) or y.shape != x.shape[:1] or len(x) < 2 or y.max() > 9:
            raise OSError(f"{raw}/{part}-*: the shapes are {tuple(x.shape)} and {tuple(y.shape)}, "
                          f"labels up to {y.max()}; accepted: at least two images of 28 x 28, "
                          "labels from 0 to 9")
        x, y = x[: train_size or None], y[: train_size or None]
        if len(y.unique()) == 1:
            print(f"note: all {len(y)} images used of {raw}/{part}-* have the label {y[0]}")
        tensors += [(x.flatten(1).float() / 255).to(device), y.long().to(device)]
    return tuple(tensors)


def read_idx(path: Path, dataset: str, may_download: bool) -> Tensor:
    """The unsigned bytes in a packed idx file.

    The layout: 0, 0, 8, number of dimensions; the sizes, four bytes each; the values.
    """
    if not path.exists():
        download(path, dataset, may_download)
    packed = path.read_bytes()
    try:
        content = bytearray(gzip.decompress(packed))
        start = 4 + 4 * content[3]
        sizes = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
        if content[:3] != bytes([0, 0, 8]):
            raise ValueError("it does not begin with 0, 0, 8")
        return torch.frombuffer(content, dtype=torch.uint8, offset=start).view(sizes)
    except Exception as error:  # what a damaged file raises depends on the damage
        raise OSError(f"{path} is damaged, or no idx file: {error}") from None


def download(path: Path, dataset: str, may_download: bool) -> None:
    """Fetch one of the .gz files from torchvision's mirrors, whole or not at all."""
    from torchvision import datasets  # importing it takes as long as torch: where needed

    source, reason = getattr(datasets, dataset), "only the default --data is downloaded into"
    for mirror in source.mirrors if may_download else ():
        print(f"downloading {mirror}{path.name}", flush=True)
        try:
            with TemporaryDirectory() as folder:
                datasets.utils.download_url(mirror + path.name, folder,
                                            md5=dict(source.resources)[path.name])
                return write_whole(path, Path(folder, path.name).read_bytes())
        except Exception as error:  # what a mirror of no use raises depends on the use
            reason = f"no mirror has it: {error}"
    raise OSError(f"{path} is missing: {reason}; put the four .gz files of {dataset} in its folder")


def minibatches(x: Tensor, batch_size: int,
                generator: torch.Generator | None = None) -> Iterator[Tensor]:
    """Minibatches of the rows of x without end, in another random order in every pass.

    What is left over at the end of a pass, fewer rows than a minibatch, is skipped. Raises OSError
    where that is all: then the data are too few.
    """
    if len(x) < batch_size:
        raise OSError(f"{len(x)} training images do not fill a minibatch of {batch_size}")
    while True:
        order = torch.randperm(len(x), generator=generator, device=x.device)
        for indices in order.split(batch_size)[: len(x) // batch_size]:
            yield x[indices]


# ---- measures -----------------------------------------------------------------------------------


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


def label_accuracy(queries: Tensor, labels: Tensor, references: Tensor,
                   reference_labels: Tensor) -> float:
    """1-NN: the share of queries (N, d) whose nearest reference (M, d) has their label."""
    return (reference_labels[nearest(queries, references)[0]] == labels).float().mean().item()


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


# ---- precision ----------------------------------------------------------------------------------


@contextmanager
def training_precision(name: str, *networks: nn.Module) -> Iterator[None]:
    """Within, "reduced" has matrix products in bf16 or TF32, "full" changes nothing.

    On a CPU, networks with convolutions are in bf16 from input to output, which stay float32.
    A CPU that cannot multiply bf16 is slower with it: there "reduced" changes nothing either.
    """
    before, cpu = torch.get_float32_matmul_precision(), next(networks[0].parameters()).is_cpu
    able = getattr(torch.cpu, "get_capabilities", dict)()
    if name == "reduced" and (not cpu or able.get("amx_bf16") or able.get("avx512_bf16")):
        torch.set_float32_matmul_precision("medium")
        for network in networks:
            if cpu and any(w.dim() == 4 for w in network.parameters()):
                bf16 = torch.autocast("cpu", torch.bfloat16)(network.forward)
                network.forward = lambda x, bf16=bf16: bf16(x).float()
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        for network in networks:
            network.__dict__.pop("forward", None)


# ---- pictures -----------------------------------------------------------------------------------


def save_grid(images: Tensor, path: Path, columns: int = 8, title: str = "") -> None:
    """Write images (N, 784) as one plain picture, twice their size, with a title above."""
    from torchvision.utils import make_grid

    grid = make_grid(interpolate(images.cpu().view(-1, 1, 28, 28), scale_factor=2), columns,
                     pad_value=0.5)[0]
    above = 22 if title else 0
    picture = Image.new("L", (grid.shape[1], grid.shape[0] + above), 255)
    picture.paste(Image.fromarray((255 * grid + 0.5).byte().numpy()), (0, above))
    ImageDraw.Draw(picture).text((4, 2), title, 0, ImageFont.load_default(14))
    picture.save(path)


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
        shown = axes.imshow(tiles.numpy(), vmin=0, vmax=1, interpolation="nearest",
                            cmap="viridis" if color else "gray")
        axes.set_title(title, fontsize=10)
        if color:
            figure.colorbar(shown, ax=axes, shrink=0.8)
    figure.savefig(path, dpi=150)


def save_curves(panels: dict[str, dict[str, tuple]], path: Path, xlabel: str,
                ylabel: str = "", log: bool = False) -> None:
    """Write curves {panel title: {label: (x, y)}}, each panel with axes and a legend of its own.

    x and y are tensors or sequences of numbers. A curve of one point is a dot.
    A panel with nothing positive has no logarithmic axis.
    """
    rows = math.ceil(len(panels) / 2)  # two in a row can still be read on a page
    figure = Figure(figsize=(5.5 * min(len(panels), 2), 3.8 * rows), layout="constrained")
    for i, (title, curves) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(rows, min(len(panels), 2), i)
        axes.set_prop_cycle(color=color_sequences["petroff10"])  # for color-blind people, too
        for label, points in curves.items():
            x, y = (torch.as_tensor(values).cpu().numpy() for values in points)
            axes.plot(x, y, linewidth=1, marker="o" if len(x) == 1 else None, label=label)
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel,
                 yscale="log" if log and axes.dataLim.ymax > 0 else "linear")
        axes.grid(alpha=0.3)
        beside = {"loc": "upper left", "bbox_to_anchor": (1, 1)}  # many would cover a curve
        axes.legend(**beside if len(curves) > 5 else {})
    figure.savefig(path, dpi=150)


def save_scatter(panels: dict[str, Tensor], labels: Tensor, path: Path) -> None:
    """Write titled clouds of points (N, 2) side by side, a color for each of the labels (N,).

    The labels, from 0 to 9, also stand at the medians of their points.
    """
    labels = labels.cpu()
    figure = Figure(figsize=(6 * len(panels) + 0.8, 6), layout="constrained")
    for axes, (title, points) in zip(figure.subplots(1, len(panels), squeeze=False).flat,
                                     panels.items()):
        for label in labels.unique().tolist():
            x, y = points.cpu()[labels == label].T
            axes.scatter(x, y, s=2, color=color_sequences["petroff10"][label], label=label)
            axes.text(x.median(), y.median(), label, size=16, weight="bold", ha="center",
                      va="center", bbox={"color": "white", "alpha": 0.7, "pad": 1})
        axes.set(title=title, xticks=[], yticks=[])
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", markerscale=6)
    figure.savefig(path, dpi=120)


# ---- options and checkpoints --------------------------------------------------------------------
# Options is a script's dataclass of `option` fields, with the script's name as Options.script.


def option(default: str | int | float, accepted: tuple, meaning: str):
    """A field of Options. `accepted`: the words, or lowest and highest number; () is any text."""
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
            kind, whole = (int, "whole ") if isinstance(item.default, int) else ((int, float), "")
            good = isinstance(value, kind) and accepted[0] <= value <= accepted[1]
            wanted = f"a {whole}number from {accepted[0]} to {accepted[1]}"
        if not good:
            raise ValueError(f"{flag(item.name)}: {value!r} is not {wanted}")
    if 0 < getattr(options, "train_size", 0) < options.batch_size:
        raise ValueError(f"--batch-size: {options.batch_size} is more than --train-size "
                         f"{options.train_size}")
    if options.device != "auto" and not getattr(torch, options.device).is_available():
        raise ValueError(f"--device: there is no {options.device} here; accepted: auto, cpu")


def parse_args(Options: type, doc: str, argv: list[str] | None) -> tuple:
    """Options, the run's folder, and whether to continue the run in it, from the command line.

    A bad option ends the program with status 2 and one line, before anything is created.
    """
    sys.stderr = sys.stderr or open(os.devnull, "w")  # where it was closed: bars need one
    parser = argparse.ArgumentParser(Options.script, f"python {Options.script} [options]", doc,
                                     allow_abbrev=False, argument_default=argparse.SUPPRESS,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    for item in fields(Options):
        kind, accepted = type(item.default), item.metadata["accepted"]
        parser.add_argument(flag(item.name), type=kind, metavar={int: "N", float: "X"}.get(
            kind, "|".join(map(str, accepted)) or "DIR"),
            help=f"{item.metadata['meaning']} (default: {item.default})")
    folders = parser.add_mutually_exclusive_group()
    folders.add_argument("--out", type=Path, metavar="DIR", help="new folder for the run")
    if "epochs" in Options.__dataclass_fields__:
        folders.add_argument("--resume", type=Path, metavar="DIR", help="continue the run in DIR; "
                             f"only {', '.join(map(flag, FREE))} may differ")
    # a script pasted whole into a notebook's cell: the notebook's own arguments are not for us
    given = vars(parser.parse_args([] if argv is None and "ipykernel" in sys.modules else argv))
    out, old = given.pop("out", None), given.pop("resume", None)
    moment = datetime.now().strftime("%Y%m%d-%H%M%S-%f")[:-3]  # two in a second are two runs
    name = "-".join([moment, *(f"{key.replace('_', '-')}-{value}" for key, value in given.items()
                               if key not in FREE)])
    out = old or out or Path("runs", Path(Options.script).stem, name)
    try:
        kept = read_checkpoint(old, Options.script)["options"] if old else {}
        names = kept.keys() & Options.__dataclass_fields__.keys()
        options = Options(**{name: kept[name] for name in names} | given)
        check_run(options, out, bool(old))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return options, out, bool(old)


@contextmanager
def exit_status(options, out: Path) -> Iterator[None]:
    """End the program with status 1 and one line (data, disk, losses), or with 130 (Ctrl-C)."""
    try:
        yield
    except KeyboardInterrupt:
        hint = "Interrupted; there is nothing to continue."
        if (out / "checkpoint.pt").exists():
            typed = sys.argv[0] if Path(sys.argv[0]).name == options.script else options.script
            hint = ("Interrupted. What is finished is kept. To continue: "
                    + shlex.join(["python", typed, "--resume", str(out)]))
        print(f"\n{hint}", file=sys.stderr)
        sys.exit(130)
    except (OSError, FloatingPointError) as error:
        sys.exit(f"{options.script}: error: {error}")


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" is cuda where there is one, else cpu."""
    return torch.device(name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, whether the disk is full or the program is stopped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def save_checkpoint(out: Path, options, state: dict, **numbers) -> None:
    """Write checkpoint.pt: networks and optimizers (`state`, by name), numbers, and options.

    Raises FloatingPointError where a weight is not finite, so that the last good one stays.
    """
    for name, part in state.items():
        if isinstance(part, nn.Module) and not all(w.isfinite().all() for w in part.parameters()):
            raise FloatingPointError(f"a weight of {name} is not finite in epoch "
                                     f"{numbers['epoch']}; earlier epochs are kept")
    content = io.BytesIO()
    torch.save({name: part.state_dict() for name, part in state.items()} | numbers
               | {"options": asdict(options), "script": options.script}, content)
    write_whole(out / "checkpoint.pt", content.getvalue())


def read_checkpoint(out: str | Path, script: str = "") -> dict:
    """What checkpoint.pt holds. Raises OSError where it is not whole, or not that script's."""
    try:
        saved = torch.load(Path(out) / "checkpoint.pt", map_location="cpu", weights_only=True)
        made_by = saved["script"]
    except Exception:  # what a damaged file raises depends on the damage
        raise OSError(f"{out} holds no whole checkpoint.pt") from None
    if script and made_by != script:
        raise OSError(f"{out} holds a run of {made_by}, not of {script}")
    return saved


def begin(out: Path, options, state: dict, device: torch.device, resume: bool, **more) -> list:
    """Write a first checkpoint, or, to resume, put the one that is there into `state`.

    Returns epochs done, log, seconds of training, and `more`: 0, [], 0.0 and those given, or what
    the checkpoint has. Raises OSError or ValueError where it does not fit, or `out` is not new.
    """
    numbers = {"epoch": 0, "log": [], "seconds": 0.0} | more
    saved = check_run(options, out, resume)
    if resume:
        try:
            for name, part in state.items():
                part.load_state_dict(saved[name])
        except (RuntimeError, ValueError, KeyError):
            raise OSError(f"{options.script} has changed since the run in {out} began: its {name} "
                          "does not fit; begin another run") from None
        numbers = {name: saved[name] for name in numbers}
    else:
        save_checkpoint(out, options, state, **numbers)
    (out / "samples").mkdir(exist_ok=True)
    print(f"{out} on {device} ({torch.get_num_threads()} CPU threads), {numbers['epoch']} of "
          f"{options.epochs} epochs done", flush=True)
    return list(numbers.values())


def check_run(options, out: Path, resume: bool) -> dict:
    """The checkpoint of the run in `out` that is to go on; {} for a new one.

    Raises OSError where a new run's folder has files, as another run's must not be lost, or where
    there is no whole checkpoint; ValueError where the run cannot go on with these options.
    """
    if not resume:
        if out.exists() and any(out.iterdir()):
            raise FileExistsError(f"{out} is not empty; name a new folder, or continue the run in "
                                  f"it with --resume {shlex.quote(str(out))}")
        return {}
    saved = read_checkpoint(out, options.script)
    now, before = asdict(options), saved["options"]
    for name in {**before, **now}:
        if name not in FREE and now.get(name) != before.get(name):
            raise ValueError(f"{flag(name)}: the run in {out} has {before.get(name)}, which it "
                             "keeps; begin another run")
    if saved["epoch"] > options.epochs:
        raise ValueError(f"--epochs: the run in {out} has {saved['epoch']} already")
    return saved


def mean_losses(losses: Iterable[Tensor], steps: range, epoch: int, bar: tqdm,
                every: int = 50) -> Iterator[list]:
    """A row for the log after every fifty steps, and after the last: steps done, mean losses.

    `losses` gives those of each step, (K,), on any device; at each of them an accelerator would
    have to wait. The bar moves with every step. Raises FloatingPointError at a mean not finite.
    """
    rows = []
    for step, row in zip(steps, losses):
        rows.append(row)
        bar.update()
        if len(rows) == every or step == steps[-1]:
            means = torch.stack(rows).mean(0).tolist()
            if not all(map(math.isfinite, means)):
                raise FloatingPointError(f"a loss is not finite in epoch {epoch}; earlier epochs "
                                         "are kept")
            yield [step + 1, *means]
            rows = []


def save_results(out: Path, options, numbers: dict, state: dict, device: torch.device,
                 seconds: float) -> dict:
    """Write results.json: numbers, options, and what they were made with; print and return all.

    Of `state`, how many parameters each network has. What is not a number, as 0 / 0, is null.
    """
    counts = {f"parameters_{name}": sum(w.numel() for w in part.parameters())
              for name, part in state.items() if isinstance(part, nn.Module)}
    results = numbers | counts | asdict(options) | {
        "device": str(device), "threads": torch.get_num_threads(), "torch": torch.__version__,
        "training_seconds": round(seconds, 1)}
    results = json.loads(json.dumps(results), parse_constant=lambda nan: None)
    write_whole(out / "results.json", json.dumps(results, indent=2).encode())
    for name, value in results.items():
        values = value if isinstance(value, list) else [value]
        print(f"{name:31}", *(f"{v:.4g}" if isinstance(v, float) else v for v in values))
    print(f"To compare: docs/{options.script[:-3]}.md. Pictures and numbers: {out}", flush=True)
    return results


def save_csv(names: Iterable[str], rows: Iterable[Iterable], path: Path) -> None:
    """Write rows under the names of their columns, whole or not at all."""
    text = io.StringIO()
    csv.writer(text).writerows([names, *rows])
    write_whole(path, text.getvalue().encode())
