"""What every script needs and no paper is about: MNIST as tensors, minibatches, plots.

Images are rows of 784 floats in [0, 1] (28 x 28, row by row, 0 is black) wherever they go.
"""

from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.datasets import MNIST
from torchvision.utils import make_grid, save_image
from tqdm import tqdm

UNPACKED_BYTES = {  # the size of each file once unpacked: torchvision checks only the .gz
    "train-images-idx3-ubyte": 47_040_016,
    "train-labels-idx1-ubyte": 60_008,
    "t10k-images-idx3-ubyte": 7_840_016,
    "t10k-labels-idx1-ubyte": 10_008,
}


def mnist(root: str | Path, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """MNIST, whole, on the device: it fits anywhere, and a minibatch is then one index.

    Returns train_x (60000, 784), train_y (60000,), test_x (10000, 784), test_y (10000,).
    Files missing below `root` are downloaded. Raises OSError, naming the file, where one is
    damaged, or missing with no network to fetch it from.
    """
    raw = Path(root) / "MNIST" / "raw"
    for name, size in UNPACKED_BYTES.items():
        if (raw / name).exists() and (raw / name).stat().st_size != size:
            raise OSError(f"{raw / name} is damaged, or another run is unpacking it just now: "
                          "delete it, or wait, and run again")
    try:
        with redirect_stdout(None):  # older releases say "Downloading" where they only unpack
            sets = [MNIST(root, train=train, download=True) for train in (True, False)]
    except RuntimeError:  # every mirror failed
        missing = next(name for name in UNPACKED_BYTES if not (raw / name).exists())
        raise OSError(f"{raw / missing}.gz is missing or damaged, and no mirror could be reached: "
                      f"put the four MNIST .gz files into {raw}") from None
    return tuple(tensor.to(device) for s in sets
                 for tensor in (s.data.flatten(1).float() / 255, s.targets))


def minibatches(x: Tensor, batch_size: int,
                generator: torch.Generator | None = None) -> Iterator[Tensor]:
    """Minibatches of the rows of x without end, shuffled anew after every pass.

    What is left over at the end of a pass, fewer rows than a minibatch, is skipped.
    """
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


def save_grid(images: Tensor, path: Path, columns: int = 8) -> None:
    """Write images (N, 784) as one plain picture, twice their size."""
    images = interpolate(images.view(-1, 1, 28, 28), scale_factor=2)
    save_image(images, path, nrow=columns, pad_value=0.5)


def save_gif(pictures: list[Path], path: Path, most: int = 60, in_color: bool = False) -> None:
    """Write at most so many of the pictures, evenly spaced, as an animation that rests at the end.

    A picture stays for half a second or less, eight seconds in all, the last for two more. It is
    gray, or, `in_color`, in 32 colors that are found in the first picture.
    """
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
                in_color: tuple[str, ...] = (), columns: int = 8) -> None:
    """Write titled grids of images (N, 784) side by side, `across` in a row.

    Panels named `in_color` are shown through a color map with its scale, the others in gray.
    """
    rows = -(-len(panels) // across)
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
    """Write curves {panel title: {label: (x, y)}}, each panel with axes and a legend of its own."""
    figure = Figure(figsize=(5.5 * len(panels), 3.8), layout="constrained")
    for axes, (title, curves) in zip(figure.subplots(1, len(panels), squeeze=False).flat,
                                     panels.items()):
        for label, (x, y) in curves.items():
            axes.plot(x, y, linewidth=1, label=label)
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel, yscale="log" if log else "linear")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=150)


def save_scatter(panels: dict[str, Tensor], labels: Tensor, path: Path) -> None:
    """Write titled clouds of points (N, 2) side by side, a color for each of the labels (N,)."""
    figure = Figure(figsize=(6 * len(panels) + 0.8, 6), layout="constrained")
    for axes, (title, points) in zip(figure.subplots(1, len(panels), squeeze=False).flat,
                                     panels.items()):
        for label in labels.unique().tolist():
            x, y = points[labels == label].T.tolist()
            axes.scatter(x, y, s=2, color=f"C{label}", label=label)
        axes.set(title=title, xticks=[], yticks=[])
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", markerscale=6)
    figure.savefig(path, dpi=120)
