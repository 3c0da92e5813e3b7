"""Tests of bigran.py: the mathematics, then the program as its users meet it."""

import csv
import json
import math
import re

import numpy
import pytest
import scipy.special
import scipy.stats
import torch
from conftest import assert_same, checkpoint
from PIL import Image
from torch import nn

import bigran

CPU = torch.device("cpu")
SMALL = ["--time-steps", "3", "--set-size", "2", "--hidden", "8"]


def parts_of(*options):
    return bigran.build(bigran.parse_args([*SMALL, *options]), CPU)


# ---- networks -----------------------------------------------------------------------------------


def test_canvas_is_the_sigmoid_of_a_running_sum():
    """With constant gates the decoder's LSTM can be computed by hand, and so can the canvas."""
    G = bigran.Decoder(1)
    for w in G.parameters():
        w.data.zero_()
    i, f, g, o = 0.3, -0.2, 0.7, 1.1  # PyTorch's order of the gates
    G.lstm.bias_ih_l0.data = torch.tensor([i, f, g, o])
    G.out.weight.data = torch.linspace(-3, 3, 784).unsqueeze(1)
    G.out.bias.data.fill_(0.25)
    c, total, canvas = 0.0, numpy.zeros(784), G(torch.randn(2, 3, bigran.LATENT))
    for t in range(3):
        c = scipy.special.expit(f) * c + scipy.special.expit(i) * math.tanh(g)
        h = scipy.special.expit(o) * math.tanh(c)
        total += numpy.linspace(-3, 3, 784) * h + 0.25
        assert numpy.allclose(canvas[:, t].detach(), scipy.special.expit(total), atol=1e-6)


def test_codes_have_the_mean_and_variance_that_the_encoder_says():
    E, n = bigran.Encoder(2, 4), 4000
    torch.manual_seed(0)
    E.out.bias.data = torch.randn(2 * bigran.LATENT)
    x = torch.rand(784)
    mu, log_variance = E.out(E.lstm(x.expand(1, 2, 784))[0]).detach()[0].split(bigran.LATENT, 1)
    z = E(x.expand(n, 784)).detach()
    assert z.shape == (n, 2, bigran.LATENT)
    deviation = (log_variance / 2).exp()
    assert ((z.mean(0) - mu) / deviation).abs().max() < 5 / n ** 0.5
    assert (z.var(0) / deviation ** 2 - 1).abs().max() < 5 * (2 / n) ** 0.5
    noise = ((z - mu) / deviation).flatten(1)  # independent over times and entries
    assert (noise.T.corrcoef() - torch.eye(2 * bigran.LATENT)).abs().max() < 6 / n ** 0.5


def test_encoder_sees_the_image_at_every_time_and_its_gradient_passes_through_the_noise():
    E = bigran.Encoder(3, 4)
    x = torch.rand(2, 784, requires_grad=True)
    for t in range(3):
        (slope,) = torch.autograd.grad(E(x)[0, t].sum(), x)
        assert slope[0].abs().sum() > 0 and slope[1].abs().sum() == 0
    h, _ = E.lstm(x.unsqueeze(1).repeat(1, 3, 1))
    torch.manual_seed(0)
    code = E(x)
    torch.manual_seed(0)
    mu, log_variance = E.out(h).chunk(2, 2)
    assert torch.allclose(code, mu + torch.randn(2, 3, 25) * torch.sqrt(log_variance.exp()))


def test_discriminator_sees_what_came_before_and_nothing_else():
    """The answer at (t, i): images 1 ... i of its set at time t, their codes at times 1 ... t."""
    D = bigran.Discriminator(8, 3, 0.0)
    x, z = torch.rand(6, 4, 784).requires_grad_(), torch.randn(6, 4, 25).requires_grad_()
    logits = D(x, z)
    assert logits.shape == (6, 4)
    for row in range(6):
        seen = torch.tensor([row // 3 == other // 3 and other <= row for other in range(6)])
        for t in range(4):
            slopes = torch.autograd.grad(logits[row, t], (x, z), retain_graph=True)
            on_x, on_z = ((slope != 0).any(2) for slope in slopes)
            times = torch.arange(4)
            assert torch.equal(on_x, seen[:, None] & (times == t))
            assert torch.equal(on_z, seen[:, None] & (times <= t))


def test_gradient_reaches_every_stroke_through_every_later_canvas():
    G, D = bigran.Decoder(8), bigran.Discriminator(8, 2, 0.0)
    z = torch.randn(4, 3, 25, requires_grad=True)
    canvas = G(z)
    _, eg_loss = bigran.losses(torch.zeros(4, 3), D(canvas, z.detach()))
    (slope,) = torch.autograd.grad(eg_loss, canvas, retain_graph=True)
    assert (slope.abs().sum(2) > 0).all()  # every image of a set, at every time
    for t in range(3):
        (slope,) = torch.autograd.grad(canvas[:, t].sum(), z, retain_graph=True)
        assert torch.equal((slope != 0).any(2), (torch.arange(3) <= t).expand(4, 3))


def test_dropout_is_in_the_discriminator_while_it_trains():
    D = bigran.Discriminator(64, 2, 0.5)
    x, z = torch.rand(4, 2, 784), torch.randn(4, 2, 25)
    assert not torch.equal(D(x, z), D(x, z))
    shapes = []
    D.drop.register_forward_hook(lambda _, inputs, output: shapes.append(tuple(output.shape)))
    D(x, z)
    assert shapes == [(4, 2, 2 * 64), (4, 2, 64)]  # what the second LSTM reads, and what it says
    assert [layer.p for layer in D.modules() if isinstance(layer, nn.Dropout)] == [0.5, 0.5]
    assert torch.equal(D.eval()(x, z), D(x, z))


def test_parameter_counts():
    def lstm(inputs, hidden):  # PyTorch has two biases for each gate
        return 4 * hidden * (inputs + hidden + 2)

    parts = bigran.build(bigran.parse_args([]), CPU)
    assert [sum(w.numel() for w in parts[name].parameters()) for name in "EGD"] == [
        lstm(784, 128) + 129 * 50,
        lstm(25, 128) + 129 * 784,
        lstm(25, 128) + 785 * 128 + 129 * 128 + lstm(256, 128) + 129]


# ---- objective ----------------------------------------------------------------------------------


def test_losses_against_their_formulas():
    on_real, on_fake = torch.randn(50, 4).double() * 4, torch.randn(50, 4).double() * 4
    D_real, D_fake = (scipy.special.expit(logits.numpy()) for logits in (on_real, on_fake))
    d_loss, eg_loss = bigran.losses(on_real, on_fake)
    assert d_loss.item() == pytest.approx(-(numpy.log(D_real) + numpy.log(1 - D_fake)).mean())
    assert eg_loss.item() == pytest.approx(-(numpy.log(D_fake) + numpy.log(1 - D_real)).mean())


def test_l1_norm_against_a_hand_count():
    G = bigran.Decoder(3)
    for name, w in G.named_parameters():
        w.data.fill_(100.0 if "bias" in name else -0.5)
    # four gates of three units see 25 inputs and three units; 784 pixels see three units
    assert bigran.l1_norm(G).item() == 0.5 * (4 * 3 * (25 + 3) + 784 * 3)
    assert bigran.l1_norm(G, G) == 2 * bigran.l1_norm(G)


def test_pairs_are_real_images_with_their_codes_then_canvases_with_theirs():
    parts = parts_of()
    x = torch.rand(4, 784)
    torch.manual_seed(0)
    images, codes = bigran.pairs(x, parts["E"], parts["G"])
    torch.manual_seed(0)
    code = parts["E"](x)
    z = torch.randn(4, 3, 25)
    assert torch.equal(codes, torch.cat([code, z]))
    assert torch.equal(images[:4], x.unsqueeze(1).repeat(1, 3, 1))
    assert torch.equal(images[4:], parts["G"](z))


def test_a_step_moves_each_player_by_its_own_loss_alone(monkeypatch, data, tmp_path):
    """One step of the program, two of D in it, against the steps of each while the others rest."""
    options = ["--dropout", "0", "--l1", "0.01", "--d-steps", "2", "--lr-d", "1e-3"]
    new, moved, build = parts_of(*options), {}, bigran.build
    monkeypatch.setattr(bigran, "mnist", lambda *_: (data[0][:8], data[1][:8], *data[2:]))
    monkeypatch.setattr(bigran, "evaluate", lambda *_: None)
    monkeypatch.setattr(bigran, "score", lambda *_: [0.0] * 6)
    monkeypatch.setattr(bigran, "build", lambda *a: moved.update(build(*a)) or dict(moved))
    bigran.main([*SMALL, *options, "--train-size", "8", "--batch-size", "8", "--epochs", "1",
                 "--device", "cpu", "--out", str(tmp_path / "run")])

    def answers():
        x = data[0][torch.randperm(8)]
        code, z = E(x), torch.randn(8, 3, 25)
        fakes = G(z)
        return lambda: (torch.sigmoid(D(x.unsqueeze(1).repeat(1, 3, 1), code)),
                        torch.sigmoid(D(fakes, z)))

    def norm(*networks):
        return sum(w.abs().sum() for n in networks for w in n.parameters() if w.dim() == 2)

    E, G, D, _, opt_d, *_ = new.values()
    torch.manual_seed(1_000_000)
    for _ in range(2):
        ask = answers()
        real, fake = ask()
        opt_d.zero_grad()
        loss = -(torch.log(real) + torch.log(1 - fake)).mean() + 0.01 * norm(D)
        loss.backward(inputs=[*D.parameters()], retain_graph=True)
        opt_d.step()
    real, fake = ask()  # the last pairs once more, of the discriminator after its steps
    loss = -(torch.log(fake) + torch.log(1 - real)).mean() + 0.01 * norm(E, G)
    loss.backward(inputs=[*E.parameters(), *G.parameters()])
    for player in "EGD":
        for name, w in new[player].named_parameters():
            gradient = moved[player].get_parameter(name).grad
            assert torch.allclose(w.grad, gradient, rtol=1e-3, atol=1e-6), (player, name)


# ---- schedule and average -----------------------------------------------------------------------


def test_learning_rates_follow_their_formula(monkeypatch, data, tmp_path):
    """lr / (1 + decay n), n the steps that this optimizer has made; a resumed run goes on."""
    rates = {"d": [], "eg": []}
    step = torch.optim.Adam.step

    def recorded(optimizer):
        (group,) = optimizer.param_groups
        assert group["betas"] == (0.25, 0.999)
        rates["d" if len(group["params"]) == 14 else "eg"].append(group["lr"])
        step(optimizer)

    monkeypatch.setattr(torch.optim.Adam, "step", recorded)
    monkeypatch.setattr(bigran, "mnist", lambda *_: (data[0][:32], data[1][:32], *data[2:]))
    monkeypatch.setattr(bigran, "evaluate", lambda *_: None)
    monkeypatch.setattr(bigran, "score", lambda *_: [0.0] * 6)
    options = [*SMALL, "--d-steps", "3", "--lr-d", "1e-3", "--lr-eg", "4e-4", "--decay-d", "0.1",
               "--decay-eg", "0.5", "--beta1", "0.25", "--train-size", "32", "--batch-size", "16"]
    bigran.main([*options, "--epochs", "1", "--out", str(tmp_path / "run")])
    bigran.main(["--resume", str(tmp_path / "run"), "--epochs", "2"])
    assert rates["d"] == pytest.approx([1e-3 / (1 + 0.1 * n) for n in range(12)])
    assert rates["eg"] == pytest.approx([4e-4, 4e-4 / 1.5, 4e-4 / 2, 4e-4 / 2.5])


def test_average_follows_the_weights():
    network, average = bigran.Decoder(4), bigran.Decoder(4)
    start = average.lstm.weight_hh_l0.clone()
    bigran.follow(average, network, 0.9)
    assert torch.allclose(average.lstm.weight_hh_l0, 0.9 * start + 0.1 * network.lstm.weight_hh_l0)
    bigran.follow(average, network, 0)
    assert_same(dict(average.state_dict()), dict(network.state_dict()))


# ---- numbers ------------------------------------------------------------------------------------


def test_distances_and_sharpness_of_a_small_case():
    x, canvas = torch.zeros(2, 784), torch.full((2, 2, 784), 0.5)
    canvas[0, 1, :196] = 1.0  # one image of two is a quarter sharp at the second time
    canvas[0, 1, 196:] = 0.11
    canvas[1, 1] = 0.09
    assert bigran.sharpness(canvas) == pytest.approx([0, (0.25 + 1) / 2])
    assert bigran.distances(canvas, x) == pytest.approx(
        [14, (math.sqrt(196 + 588 * 0.11 ** 2) + 28 * 0.09) / 2])


# ---- the program --------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch, data, tmp_path):
    """Run the script on little data: run(options) gives the run's folder."""
    few = data[0], data[1], data[2][:100], data[3][:100]
    monkeypatch.setattr(bigran, "mnist", lambda *_: few)
    monkeypatch.setattr(bigran, "SAMPLES", 100)
    monkeypatch.setattr(bigran, "EVERY", 2)

    def run(*options, out="run"):
        out = tmp_path / out
        options += ("--resume", str(out)) if "again" in options else ("--out", str(out))
        bigran.main([*SMALL, *(o for o in options if o != "again"), "--train-size", "256",
                     "--device", "cpu"])
        return out
    return run


@pytest.mark.parametrize("options", [
    ["--seed", "3", "--d-steps", "2", "--lr-d", "1e-3", "--lr-eg", "1e-3", "--decay-d", "1e-4",
     "--decay-eg", "4e-4", "--beta1", "0.9", "--dropout", "0.5", "--l1", "1e-3",
     "--average", "0.9"],
    ["--seed", "3", "--time-steps", "1", "--set-size", "1", "--hidden", "1"]])
def test_smoke(run, options, capsys):
    out = run("--epochs", "2", *options)
    saved, results = checkpoint(out), json.loads((out / "results.json").read_text())
    new = parts_of(*options)
    for name in ("E", "G", "D", "average_E", "average_G"):
        assert all(not torch.equal(saved[name][key], w) for key, w in new[name].named_parameters())
    assert not torch.equal(saved["E"]["out.weight"], saved["average_E"]["out.weight"])

    for picture in ("figure7-samples.png", "figure8-autoencodings.png", "figure9-canvas.png",
                    "drawing.gif", "losses.png", "scores.png", "training.gif",
                    "samples/epoch-000.png", "samples/epoch-002.png"):
        Image.open(out / picture).load()
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    assert [row["step"] for row in rows] == ["4", "8"]
    assert all(math.isfinite(float(value)) for row in rows for value in row.values())
    rows = list(csv.DictReader((out / "scores.csv").open()))
    assert [row["epoch"] for row in rows] == ["0", "2"]
    for name, value in rows[1].items():
        key, _, when = name.rpartition("_")
        if name != "epoch":
            expected = results[name] if name == "kl" else results[key][-(when == "last")]
            assert float(value) == pytest.approx(expected, rel=1e-6)
    assert results["seed"] == 3 and results["epochs"] == 2
    printed = capsys.readouterr().out.splitlines()
    assert "on cpu" in printed[0] and str(out) in printed[-1]


def test_results_are_right(run, data):
    """Every number once more, from the checkpoint, with all distances written out."""
    out = run("--epochs", "1", "--average", "0", "--lr-eg", "0.01")
    results, saved = json.loads((out / "results.json").read_text()), checkpoint(out)
    train_x, train_y, test_x, test_y = data[0][:256], data[1][:256], data[2][:100], data[3][:100]

    def label(queries):
        return train_y[torch.cdist(queries.double(), train_x.double()).argmin(1)]

    parts = parts_of()
    E, G = parts["E"], parts["G"]
    E.load_state_dict(saved["E"])
    G.load_state_dict(saved["G"])
    with torch.no_grad():
        torch.manual_seed(0)
        canvas = G(E(test_x))
        torch.manual_seed(0)
        samples = G(torch.randn(100, 3, 25))[:, 2]
    for name in "EGD":
        assert results[f"parameters_{name}"] == sum(w.numel() for w in saved[name].values())
    assert len(results["class_kept"]) == 3
    other = torch.stack([test_x[i - 1] for i in range(100)])
    for t in range(3):
        assert results["reconstruction_error"][t] == pytest.approx(
            numpy.linalg.norm(test_x - canvas[:, t], axis=1).mean(), rel=1e-5)
        assert results["error_to_another_image"][t] == pytest.approx(
            numpy.linalg.norm(other - canvas[:, t], axis=1).mean(), rel=1e-5)
        assert results["class_kept"][t] == pytest.approx(
            (label(canvas[:, t]) == test_y).float().mean().item())
        values = canvas[:, t].flatten().tolist()
        assert results["sharpness"][t] == pytest.approx(
            sum(v <= 0.1 or v >= 0.9 for v in values) / len(values), abs=1e-4)
    shares = numpy.bincount(label(samples), minlength=10) / 100
    assert numpy.allclose(results["digit_shares"], shares)
    assert results["digits"] == (shares >= 0.02).sum()
    assert results["kl"] == pytest.approx(
        scipy.stats.entropy(shares, numpy.bincount(train_y, minlength=10) / 256), rel=1e-4)
    assert results["median_distance"] == pytest.approx(
        torch.cdist(samples, train_x).min(1).values.median().item(), rel=1e-4)
    for name, images in (("variance", samples), ("variance_of_test_images", test_x)):
        ones = (images.numpy() > 0.5).astype(float)
        assert results[name] == pytest.approx(ones.var(0, ddof=1).sum(), rel=1e-5), name
    assert results["variance"] > 0
    assert results["label_accuracy_on_test_images"] == pytest.approx(
        (label(test_x) == test_y).float().mean().item())


def tile(picture, row, column):
    """An image (784,) of a grid, in its 256 grey values."""
    grid = torch.from_numpy(numpy.array(Image.open(picture).convert("L")))
    y, x = 2 + 58 * row, 2 + 58 * column
    return grid[y: y + 56: 2, x: x + 56: 2].flatten().float()


def test_figures_show_one_image_of_each_digit(run, data):
    out = run("--epochs", "1")
    assert Image.open(out / "figure8-autoencodings.png").size == (2 + 58 * 11, 2 + 58 * 10)
    assert Image.open(out / "figure9-canvas.png").size == (2 + 58 * 4, 2 + 58 * 10)
    for digit in range(10):
        x = data[2][data[3] == digit][0]
        for name in ("figure8-autoencodings.png", "figure9-canvas.png"):
            assert (tile(out / name, digit, 0) - 255 * x).abs().max() <= 1
        tiles = [tile(out / "figure8-autoencodings.png", digit, column) for column in range(1, 11)]
        assert len({tuple(image.tolist()) for image in tiles}) == 10  # each with noise of its own
    for last in ("stroke-3.png", "epoch-001.png"):  # the same noise
        assert ((out / "samples" / last).read_bytes()
                == (out / "figure7-samples.png").read_bytes())
    assert Image.open(out / "drawing.gif").n_frames == 3


def test_same_seed_same_bits_and_resumed_equals_uninterrupted(run):
    options = ["--d-steps", "2", "--decay-d", "0.01", "--decay-eg", "0.01"]
    whole = run("--epochs", "3", *options, out="whole")
    part = run("--epochs", "1", *options, out="part")
    run("again", "--epochs", "3", *options, out="part")
    assert_same(checkpoint(whole), checkpoint(part))
    for name in ("metrics.csv", "scores.csv", "training.gif", "samples/epoch-003.png"):
        assert (whole / name).read_bytes() == (part / name).read_bytes()
    a, b = (json.loads((out / "results.json").read_text()) for out in (whole, part))
    assert a.pop("training_seconds") > 0 < b.pop("training_seconds")
    assert a == b
    other = run("--epochs", "1", "--seed", "1", out="other")
    assert not torch.equal(checkpoint(other)["E"]["out.weight"],
                           checkpoint(part)["E"]["out.weight"])


def test_nan_stops_the_run_and_names_the_step(run, monkeypatch, tmp_path):
    calls, losses = [], bigran.losses

    def breaks(*logits):
        calls.append(1)
        d_loss, eg_loss = losses(*logits)
        return d_loss, eg_loss * (math.nan if len(calls) == 12 else 1)  # two a step

    monkeypatch.setattr(bigran, "losses", breaks)
    with pytest.raises(SystemExit) as stop:
        run("--epochs", "3")
    assert re.search(r"not finite in steps 5 to 8 \(epoch 2\)", str(stop.value.code))
    assert checkpoint(tmp_path / "run")["epoch"] == 1


def test_interrupted_run_can_be_continued(run, monkeypatch, tmp_path, capsys):
    whole = run("--epochs", "2", out="whole")
    calls, losses = [], bigran.losses

    def interrupted(*logits):
        calls.append(1)
        if len(calls) == 11:  # two a step
            raise KeyboardInterrupt
        return losses(*logits)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(bigran, "losses", interrupted)
        run("--epochs", "2")
    assert stop.value.code == 130
    assert f"--resume {tmp_path / 'run'}" in capsys.readouterr().err
    run("again")
    assert_same(checkpoint(whole), checkpoint(tmp_path / "run"))


@pytest.mark.parametrize("options, complaint", [
    (["--epochs", "0"], "--epochs: '0' is not a whole number from 1"),
    (["--batch-size", "0"], "--batch-size: '0' is not a whole number from 1"),
    (["--batch-size", "64", "--train-size", "63"], "--batch-size: 64 is more than"),
    (["--batch-size", "66"], "--batch-size: 66 is not a multiple of --set-size 4"),
    (["--set-size", "0"], "--set-size: '0' is not a whole number from 1"),
    (["--time-steps", "0"], "--time-steps: '0' is not a whole number from 1"),
    (["--hidden", "0"], "--hidden: '0' is not a whole number from 1"),
    (["--d-steps", "0"], "--d-steps: '0' is not a whole number from 1"),
    (["--train-size", "60001"], "--train-size: '60001' is not a whole number from 1 to 60000"),
    (["--lr-d", "nan"], "--lr-d: 'nan' is not a number from 1e-09 to 10"),
    (["--lr-eg", "0"], "--lr-eg: '0' is not a number from 1e-09 to 10"),
    (["--decay-d", "-1"], "--decay-d: '-1' is not a number from 0"),
    (["--decay-eg", "2"], "--decay-eg: '2' is not a number from 0"),
    (["--beta1", "1"], "--beta1: '1' is not a number from 0 to 0.9999"),
    (["--dropout", "1"], "--dropout: '1' is not a number from 0 to 0.99"),
    (["--l1", "-1"], "--l1: '-1' is not a number from 0 to 1"),
    (["--average", "-0.1"], "--average: '-0.1' is not a number from 0 to 1"),
    (["--seed", "-1"], "--seed: '-1' is not a whole number from 0"),
    (["--device", "cuda"], "--device: there is no cuda here"),
    (["--resume", "nowhere"], "--resume: nowhere holds no whole run of"),
    (["--out", "here"], "--out: here exists"),
    (["--resume", "here", "--out", "there"], "--resume: not allowed with"),
    (["--slope", "2"], "unrecognized arguments: --slope 2"),
])
def test_bad_options_end_with_one_line_and_change_nothing(options, complaint, tmp_path,
                                                          monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(SystemExit) as stop:
        bigran.main(options)
    assert stop.value.code == 2
    assert complaint in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


def test_bad_ways_to_resume(run, capsys):
    out = run("--epochs", "2")
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    changed = {"--time-steps": 4, "--set-size": 4, "--hidden": 9, "--d-steps": 3, "--lr-d": 1,
               "--lr-eg": 1, "--decay-d": 1, "--decay-eg": 1, "--beta1": 0.1, "--dropout": 0.1,
               "--l1": 1, "--average": 0.1, "--batch-size": 2, "--train-size": 64, "--seed": 1}
    assert len(changed) == len(bigran.KEPT)
    complaints = [([option, str(value)], f"{option}: the run in")
                  for option, value in changed.items()] + [(["--epochs", "1"], "has 2 already")]
    for options, complaint in complaints:
        with pytest.raises(SystemExit) as stop:
            bigran.main(["--resume", str(out), *options])
        assert stop.value.code == 2
        assert complaint in capsys.readouterr().err.splitlines()[-1]
    assert before == {path: path.read_bytes() for path in out.rglob("*.*")}
