"""Tests of common.py: the data and its errors, minibatches, neighbors, pictures."""

import shutil
from collections import Counter

import numpy
import pytest
import torch
from conftest import ROOT
from PIL import Image
from torchvision.datasets import MNIST

import common

RAW = ROOT / "data" / "MNIST" / "raw"


def test_mnist_is_what_it_should_be(data):
    train_x, train_y, test_x, test_y = data
    assert train_x.shape == (60_000, 784) and test_x.shape == (10_000, 784)
    assert train_x.min() == 0 and train_x.max() == 1
    assert train_x.mean().item() == pytest.approx(0.1307, abs=1e-4)  # the well-known mean
    assert train_y[:5].tolist() == [5, 0, 4, 1, 9] and test_y[:5].tolist() == [7, 2, 1, 0, 4]
    assert torch.bincount(train_y).tolist() == [5923, 6742, 5958, 6131, 5842,
                                                5421, 5918, 6265, 5851, 5949]


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """A copy of the .gz files, and no mirror to fetch others from."""
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for file in RAW.glob("*.gz"):
        shutil.copy(file, folder)
    return folder


def load(raw):
    return common.mnist(raw.parent.parent, torch.device("cpu"))


def test_unpacks_without_network_and_without_a_word(raw, capfd):
    assert load(raw)[0].shape == (60_000, 784)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("name", common.UNPACKED_BYTES)
def test_missing_file_is_named(raw, name):
    (raw / f"{name}.gz").unlink()
    with pytest.raises(OSError, match=f"{name}.gz is missing or damaged"):
        load(raw)


def test_damaged_archive_is_named(raw):
    archive = raw / "t10k-images-idx3-ubyte.gz"
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(OSError, match="t10k-images-idx3-ubyte.gz is missing or damaged"):
        load(raw)


def test_damaged_unpacked_file_is_named(raw):
    (raw / "train-images-idx3-ubyte").write_bytes(b"half a file")
    with pytest.raises(OSError, match="train-images-idx3-ubyte is damaged.*delete it"):
        load(raw)


def test_a_pass_of_minibatches_shows_every_row_once():
    x = torch.arange(10.0).unsqueeze(1)
    batches = common.minibatches(x, 3)
    passes = [torch.cat([next(batches) for _ in range(3)]).flatten().tolist() for _ in range(20)]
    for rows in passes:  # nine of ten rows, none of them twice
        assert len(set(rows)) == 9
    assert len(set(map(tuple, passes))) == 20  # every pass in an order of its own
    left_out = Counter(row for rows in passes for row in set(range(10)) - set(rows))
    assert len(left_out) > 3  # nor is it always the same row that is skipped


def test_nearest_against_all_distances(data):
    queries, references = data[2][:600], data[0][:1000]
    index, distance = common.nearest(queries, references)
    every = torch.cdist(queries.double(), references.double())
    assert torch.equal(index, every.argmin(1))
    assert torch.allclose(distance.double(), every.min(1).values, rtol=1e-5)


def test_grid_shows_the_images_in_reading_order(tmp_path, data):
    images = data[2][:6]
    common.save_grid(images, tmp_path / "grid.png", columns=3)
    pixels = numpy.asarray(Image.open(tmp_path / "grid.png").convert("L")) / 255
    assert pixels.shape == (2 * 58 + 2, 3 * 58 + 2)  # images of 56, and frames of 2 pixels
    for i, image in enumerate(images):
        top, left = 2 + 58 * (i // 3), 2 + 58 * (i % 3)
        shown = pixels[top:top + 56:2, left:left + 56:2]
        assert numpy.allclose(shown, image.view(28, 28), atol=1 / 255)


@pytest.mark.parametrize("pictures, frames", [(1, 1), (5, 5), (150, 60)])
def test_gif_runs_from_the_first_picture_to_the_last(tmp_path, pictures, frames):
    paths = []
    for shade in range(pictures):
        paths.append(tmp_path / f"{shade:03}.png")
        Image.new("L", (4, 4), shade).save(paths[-1])
    common.save_gif(paths, tmp_path / "all.gif")
    gif = Image.open(tmp_path / "all.gif")
    assert getattr(gif, "n_frames", 1) == frames
    shades = []
    for frame in range(frames):
        gif.seek(frame)
        shades.append(gif.convert("L").getpixel((0, 0)))
    assert shades == sorted(shades) and (shades[0], shades[-1]) == (0, pictures - 1)


def test_gif_in_color_keeps_points_on_a_surface(tmp_path):
    orange, paths = numpy.array([255, 127, 14]), [tmp_path / f"{i}.png" for i in range(3)]
    surface = numpy.linspace([68, 1, 84], [253, 231, 37], 20).repeat(500, 0).reshape(100, 100, 3)
    for i, path in enumerate(paths):
        surface[20 * i : 20 * i + 10, 45:55] = orange  # a hundredth of the picture
        Image.fromarray(surface.astype("uint8")).save(path)
    common.save_gif(paths, tmp_path / "all.gif", in_color=True)
    gif = Image.open(tmp_path / "all.gif")
    for frame in range(3):
        gif.seek(frame)
        shown = numpy.asarray(gif.convert("RGB")).astype(float)
        assert (abs(shown[20 * frame + 5, 50] - orange) < 20).all()
        assert abs(shown - numpy.asarray(Image.open(paths[frame]))).mean() < 8


def test_panels_and_curves_show_what_they_are_given(tmp_path, data, monkeypatch):
    figures = []
    figure = common.Figure
    monkeypatch.setattr(common, "Figure", lambda **k: figures.append(figure(**k)) or figures[-1])
    common.save_panels({"digits": data[2][:4], "in color": data[2][4:8]}, tmp_path / "panels.png",
                       2, in_color=("in color",), columns=2)
    common.save_curves({"left": {"a": ([1, 2], [3, 4])}, "right": {"b": ([1, 2], [5, 6])}},
                       tmp_path / "curves.png", "x", "y", log=True)
    panels, curves = figures
    assert [axes.get_title() for axes in panels.axes[:2]] == ["digits", "in color"]
    tiles = panels.axes[0].get_images()[0].get_array()
    assert numpy.allclose(tiles[2:30, 32:60], data[2][1].view(28, 28))
    assert len(panels.axes) == 3  # the third is the scale of the colors
    right = curves.axes[1]
    assert right.get_title() == "right" and right.get_yscale() == "log"
    assert right.lines[0].get_ydata().tolist() == [5, 6]
    assert right.get_legend().get_texts()[0].get_text() == "b"
    for name in ("panels.png", "curves.png"):
        assert Image.open(tmp_path / name).size > (300, 300)


def test_scatter_shows_every_label_in_its_color(tmp_path, monkeypatch):
    figures = []
    figure = common.Figure
    monkeypatch.setattr(common, "Figure", lambda **k: figures.append(figure(**k)) or figures[-1])
    points, labels = torch.rand(30, 2), torch.arange(30) % 3 * 4
    common.save_scatter({"left": points, "right": 2 * points}, labels, tmp_path / "scatter.png")
    left, right = figures[0].axes
    assert [axes.get_title() for axes in (left, right)] == ["left", "right"]
    for cloud, label in zip(right.collections, (0, 4, 8)):
        assert numpy.allclose(cloud.get_offsets(), 2 * points[labels == label])
        assert cloud.get_label() == str(label)
    assert len({tuple(cloud.get_facecolor()[0]) for cloud in left.collections}) == 3
    (legend,) = figures[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["0", "4", "8"]
    assert Image.open(tmp_path / "scatter.png").size > (300, 300)
