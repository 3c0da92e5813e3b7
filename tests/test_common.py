"""Tests of common.py: the data and its errors, minibatches, neighbors, pictures."""

import gzip
import hashlib
import re
import shutil
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy
import pytest
import torch
from conftest import ROOT
from matplotlib.colors import to_rgb
from PIL import Image
from scipy.spatial.distance import pdist
from torchvision.datasets import MNIST

import common

RAW = ROOT / "data" / "MNIST" / "raw"


# ---- data ---------------------------------------------------------------------------------------


def test_mnist_is_what_it_should_be(data):
    train_x, train_y, test_x, test_y = data
    assert train_x.shape == (60_000, 784) and test_x.shape == (10_000, 784)
    assert train_x.min() == 0 and train_x.max() == 1
    assert train_x.mean().item() == pytest.approx(0.1307, abs=1e-4)  # the well-known mean
    assert train_y[:5].tolist() == [5, 0, 4, 1, 9] and test_y[:5].tolist() == [7, 2, 1, 0, 4]
    assert torch.bincount(train_y).tolist() == [5923, 6742, 5958, 6131, 5842,
                                                5421, 5918, 6265, 5851, 5949]


def idx(values: torch.Tensor) -> bytes:
    """An idx file with these unsigned bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.dim()]) + sizes + values.to(torch.uint8).numpy().tobytes()


@pytest.fixture
def small() -> dict[str, torch.Tensor]:
    """A data set of a few images, under MNIST's names."""
    stream = torch.Generator().manual_seed(0)
    arrays = {}
    for part, count in (("train", 5), ("t10k", 3)):
        arrays[f"{part}-images-idx3-ubyte"] = torch.randint(256, (count, 28, 28), generator=stream)
        arrays[f"{part}-labels-idx1-ubyte"] = torch.randint(10, (count,), generator=stream)
    return arrays


@pytest.fixture
def raw(tmp_path, small, monkeypatch) -> Path:
    """A folder with those four as .gz files, and no mirror to fetch others from."""
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, array in small.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    return folder


def load(raw: Path) -> tuple[torch.Tensor, ...]:
    return common.load_images(raw.parent.parent)


def assert_is(tensors: tuple[torch.Tensor, ...], arrays: dict[str, torch.Tensor]) -> None:
    """That these were loaded."""
    train_x, train_y, test_x, test_y = tensors
    for x, y, part in ((train_x, train_y, "train"), (test_x, test_y, "t10k")):
        assert x.dtype == torch.float32 and y.dtype == torch.int64
        assert torch.equal((x * 255).round().long().view(-1, 28, 28),
                           arrays[f"{part}-images-idx3-ubyte"])
        assert torch.equal(y, arrays[f"{part}-labels-idx1-ubyte"])


def contents(folder: Path) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fails(raw: Path) -> str:
    """The one line with which loading fails; the folder stays as it is."""
    before = contents(raw.parent)
    with pytest.raises(OSError) as error:
        load(raw)
    assert contents(raw.parent) == before and {*raw.iterdir()} == {*before}
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_same_bits_as_torchvision_and_nothing_is_unpacked(data, tmp_path, capfd):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in RAW.glob("*.gz"):
        shutil.copy(file, raw)
    tensors = load(raw)
    assert capfd.readouterr() == ("", "")
    assert len([*raw.iterdir()]) == 4
    for train, x, y in ((True, *tensors[:2]), (False, *tensors[2:])):
        expected = MNIST(tmp_path, train=train, download=True)  # unpacks
        assert torch.equal(x, expected.data.flatten(1).float() / 255)
        assert torch.equal(y, expected.targets) and y.dtype == expected.targets.dtype


def test_own_images_are_all_used_or_the_first(raw, small):
    before = contents(raw)
    assert_is(load(raw), small)
    few = common.load_images(raw.parent.parent, train_size=2)
    for tensor, whole in zip(few, load(raw)):
        assert torch.equal(tensor, whole[:2])
    assert contents(raw) == before


def test_images_of_one_class_are_told(raw, capsys):
    (raw / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(torch.tensor([7, 7, 7]))))
    load(raw)
    assert re.search("note: all 3 .* of .*t10k-.* have the label 7", capsys.readouterr().out)


@pytest.mark.parametrize("name, array, message", [
    ("train-images-idx3-ubyte", torch.zeros(5, 32, 32), r"train-.*\(5, 32, 32\)"),
    ("train-images-idx3-ubyte", torch.zeros(4, 28, 28), r"train-.*\(4, 28, 28\) and \(5,\)"),
    ("t10k-labels-idx1-ubyte", torch.zeros(4), r"t10k-.*\(3, 28, 28\) and \(4,\)"),
    ("t10k-labels-idx1-ubyte", torch.tensor([0, 26, 1]), "t10k-.*: .* labels up to 26"),
    ("t10k-images-idx3-ubyte", torch.zeros(0, 28, 28), "t10k-images-idx3-ubyte.gz is damaged"),
    ("t10k-images-idx3-ubyte", torch.zeros(3, 784), r"t10k-.*\(3, 784\) and \(3,\)"),
])
def test_a_file_that_does_not_fit_is_named(raw, name, array, message):
    (raw / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    line = fails(raw)
    assert str(raw) in line and re.search(message, line)


def test_a_damaged_file_is_named(raw, small):
    plain = idx(small["train-images-idx3-ubyte"])
    whole = gzip.compress(plain)
    damaged = [b"", b"no gzip file", whole[:5], whole[:-100], whole[:-3]]
    damaged += map(gzip.compress, (b"", b"text", plain + b"0", plain[:-1], b"1" + plain[1:]))
    for place in (*range(10, 20), len(whole) // 2, len(whole) - 6):  # after the header
        damaged.append(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
    for content in damaged:
        (raw / "train-images-idx3-ubyte.gz").write_bytes(content)
        assert "train-images-idx3-ubyte.gz is damaged" in fails(raw)


def test_data_beside_common_are_found_from_another_folder(raw, small, tmp_path, monkeypatch):
    there, here = tmp_path / "there", tmp_path / "here"
    for folder in (there, here):
        folder.mkdir()
    monkeypatch.setattr(common, "__file__", str(there / "common.py"))
    monkeypatch.chdir(here)
    shutil.copytree(tmp_path / "MNIST", there / "data" / "MNIST")
    (here / "data").mkdir()  # a folder of that name that holds other data
    assert_is(common.load_images(), small)
    other = {name: array // 2 for name, array in small.items()}
    (here / "data" / "MNIST" / "raw").mkdir(parents=True)
    for name, array in other.items():
        (here / "data" / "MNIST" / "raw" / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    assert_is(common.load_images(), other)  # the nearer goes first


@pytest.fixture
def mirror(small, tmp_path, monkeypatch):
    """A mirror with the small data set, for which MNIST's checksums are changed; its address.

    `mirror.answers` holds what it sends, and `mirror.asked` the names of the files asked for.
    """
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path[1:]
            self.server.asked.append(name)
            content = self.server.answers.get(name)
            self.send_response(200 if content else 404)
            self.end_headers()
            self.wfile.write(content or b"not here")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    server.answers = {f"{name}.gz": gzip.compress(idx(array)) for name, array in small.items()}
    server.address = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setattr(MNIST, "resources", [
        (name, hashlib.md5(content).hexdigest()) for name, content in server.answers.items()])
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/", server.address])
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr(common, "__file__")  # or MNIST would be found beside common.py
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_is_missing_is_downloaded_into_the_default_folder(small, mirror, tmp_path, capfd):
    raw = tmp_path / "data" / "MNIST" / "raw"
    assert_is(common.load_images(), small)
    assert capfd.readouterr().out.count(f"downloading {mirror.address}") == 4
    assert {path.name: path.read_bytes() for path in raw.iterdir()} == mirror.answers
    assert {*mirror.asked} == {*mirror.answers}

    (raw / "t10k-labels-idx1-ubyte.gz").unlink()
    mirror.asked.clear()
    assert_is(common.load_images(), small)
    assert {*mirror.asked} == {"t10k-labels-idx1-ubyte.gz"}


def test_no_other_folder_is_downloaded_into(mirror, tmp_path):
    with pytest.raises(OSError, match="my_pngs/MNIST/raw/train-images.* is missing: .*--data"):
        common.load_images("my_pngs")
    assert not mirror.asked and not [*tmp_path.rglob("*")]


@pytest.mark.parametrize("answer", ["nobody", "404", "a page", "another file", "half"])
def test_a_mirror_of_no_use(answer, mirror, monkeypatch, tmp_path):
    name = "train-images-idx3-ubyte.gz"
    whole = mirror.answers.pop(name)
    addresses = [mirror.address]
    if answer == "nobody":
        addresses = ["http://127.0.0.1:9/"]
    if answer in ("a page", "another file", "half"):
        mirror.answers[name] = {"a page": b"<html>", "another file": gzip.compress(b"other"),
                                "half": whole[:-4]}[answer]
    monkeypatch.setattr(MNIST, "mirrors", addresses)
    with pytest.raises(OSError, match=f"{name} is missing.*put the four .gz files of MNIST in its"):
        common.load_images()
    assert not [*tmp_path.rglob("*.gz*")]


# ---- minibatches and neighbors ------------------------------------------------------------------


def test_a_pass_of_minibatches_shows_every_row_once():
    x = torch.arange(10.0).unsqueeze(1)
    batches = common.minibatches(x, 3)
    passes = [torch.cat([next(batches) for _ in range(3)]).flatten().tolist() for _ in range(20)]
    for rows in passes:  # nine of ten rows, none of them twice
        assert len(set(rows)) == 9
    assert len(set(map(tuple, passes))) == 20  # every pass in an order of its own
    left_out = Counter(row for rows in passes for row in set(range(10)) - set(rows))
    assert len(left_out) > 3  # nor is it always the same row that is skipped


def test_fewer_rows_than_a_minibatch_are_refused():
    with pytest.raises(OSError, match="3 training images do not fill a minibatch of 4"):
        next(common.minibatches(torch.zeros(3, 1), 4))


def test_nearest_against_all_distances(data):
    queries, references = data[2][:600], data[0][:1000]
    index, distance = common.nearest(queries, references)
    every = torch.cdist(queries.double(), references.double())
    assert torch.equal(index, every.argmin(1))
    assert torch.allclose(distance.double(), every.min(1).values, rtol=1e-5)


# ---- pictures -----------------------------------------------------------------------------------


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


def test_gif_shows_pictures_by_number(tmp_path):
    for number in (9, 99, 999, 1000, 1001):
        Image.new("L", (4, 4), number // 10).save(tmp_path / f"epoch-{number:03}.png")
    common.save_gif(tmp_path.glob("epoch-*.png"), tmp_path / "all.gif")
    gif = Image.open(tmp_path / "all.gif")
    shades, milliseconds = [], []
    for frame in range(gif.n_frames):
        gif.seek(frame)
        shades.append(gif.convert("L").getpixel((0, 0)))
        milliseconds.append(gif.info["duration"])
    assert shades == [0, 9, 99, 100]  # Pillow joins equal frames: 1000 and 1001
    assert milliseconds == [500, 500, 500, 2500]


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


def drawn(monkeypatch) -> list:
    """The figures that common makes from now on."""
    figures, figure = [], common.Figure
    monkeypatch.setattr(common, "Figure", lambda **k: figures.append(figure(**k)) or figures[-1])
    return figures


def test_panels_and_curves_show_what_they_are_given(tmp_path, data, monkeypatch):
    figures = drawn(monkeypatch)
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
        Image.open(tmp_path / name).load()


def test_a_panel_of_zeros_and_ones_has_no_gray(tmp_path, data):
    """imshow would resample, and a fifth of the pixels come out gray."""
    binary = (data[2][:16] > 0).float()
    common.save_panels({"": binary}, tmp_path / "panel.png", 1, columns=4)
    pixels = numpy.asarray(Image.open(tmp_path / "panel.png").convert("L"))
    height, width = pixels.shape
    inside = pixels[height // 4 : -height // 4, width // 4 : -width // 4]
    assert numpy.isin(inside, (0, 255)).mean() > 0.97  # all but the lines of the grid


def test_a_curve_of_one_point_is_seen(tmp_path):
    pictures = []
    for y in (2.0, numpy.nan):
        path = tmp_path / f"{y}.png"
        common.save_curves({"": {"a": ([1], [y]), "b": ([0, 1, 2], [1, 1, 3])}}, path, "x")
        pictures.append(numpy.asarray(Image.open(path)))
    differs = (pictures[0] != pictures[1]).any(2)
    assert 1 < differs.sum() < 50  # a dot, and all else is the same


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("y, scale", [
    ([-1.0, -2.0], "linear"), ([0.0, 0.0], "linear"), ([numpy.nan, -1.0], "linear"),
    ([-1.0, 2.0], "log"), (torch.tensor([numpy.nan, 2.0]), "log")])
def test_only_what_is_positive_has_a_logarithmic_axis(tmp_path, monkeypatch, y, scale):
    """Of the others it would show nothing, and matplotlib would warn."""
    figures = drawn(monkeypatch)
    common.save_curves({"": {"a": (range(2), y)}}, tmp_path / "curves.png", "x", log=True)
    (axes,) = figures[0].axes
    assert axes.get_yscale() == scale
    assert axes.get_ylim()[0] < numpy.nanmax(y) < axes.get_ylim()[1]


def test_colors_differ_for_color_blind_people(tmp_path, monkeypatch):
    """Deuteranopia as simulated by Machado et al. 2009, and distances in CIELAB."""
    to_deuteranope = [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]

    def nearest_two(colors):
        rgb = numpy.array([to_rgb(color) for color in colors])
        linear = numpy.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        seen = (linear @ numpy.transpose(to_deuteranope)).clip(0, 1)
        x, y, z = numpy.cbrt(to_xyz @ seen.T / numpy.array([[0.9505], [1], [1.089]]))
        return pdist(numpy.stack([116 * y, 500 * (x - y), 200 * (y - z)], 1)).min()

    figures = drawn(monkeypatch)
    common.save_curves({"": {str(i): ([0, 1], [i, i]) for i in range(4)}}, tmp_path / "1.png", "x")
    common.save_scatter({"": torch.rand(50, 2)}, torch.arange(50) % 10, tmp_path / "2.png")
    curves, clouds = (figure.axes[0] for figure in figures)
    assert nearest_two([f"C{i}" for i in range(4)]) < 8  # matplotlib's green and red
    assert nearest_two([line.get_color() for line in curves.lines]) > 40
    assert nearest_two([cloud.get_facecolor()[0] for cloud in clouds.collections]) > 17


def test_a_legend_of_many_curves_covers_none(tmp_path, monkeypatch):
    monkeypatch.undo()  # the layout counts here
    figures = drawn(monkeypatch)
    curves = {f"n = {i}, a long label": (range(9), [i] * 9) for i in range(7)}
    common.save_curves({"": curves}, tmp_path / "curves.png", "x")
    (axes,) = figures[0].axes
    legend, panel = axes.get_legend().get_window_extent(), axes.get_window_extent()
    assert legend.x0 >= panel.x1 > 300 and legend.x1 <= figures[0].bbox.width


def test_labels_stand_on_their_clouds(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    points, labels = torch.randn(300, 2), torch.arange(300) % 3
    common.save_scatter({"": points + 9 * labels[:, None]}, labels, tmp_path / "scatter.png")
    (axes,) = figures[0].axes
    assert [text.get_text() for text in axes.texts] == ["0", "1", "2"]
    for i, text in enumerate(axes.texts):
        assert all(abs(value - 9 * i) < 0.5 for value in text.get_position())


def test_scatter_shows_every_label_in_its_color(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
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
    Image.open(tmp_path / "scatter.png").load()
