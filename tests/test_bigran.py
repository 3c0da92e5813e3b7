"""Tests of bigran.py: the mathematics, who learns from what, and its numbers over training."""

import csv
import inspect
import json
import math
from dataclasses import replace

import numpy
import pytest
import scipy.special
import scipy.stats
import torch
from conftest import assert_same, build, checkpoint
from PIL import Image
from torch import nn

import bigran
import common

CPU = torch.device("cpu")
SMALL = bigran.Options(time_steps=3, set_size=2, hidden=8, device="cpu")


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


def test_codes_have_the_mean_and_variance_that_the_encoder_gives():
    E, n = bigran.Encoder(2, 4), 4000
    torch.manual_seed(0)
    E.out.bias.data = torch.randn(2 * bigran.LATENT)
    x = torch.rand(784)
    mu, log_variance = E.out(E.lstm(x.expand(1, 2, 784))[0]).detach()[0].split(bigran.LATENT, 1)
    assert all(torch.equal(a[0], b) for a, b in zip(E.moments(x[None]), (mu, log_variance)))
    z = E(x.expand(n, 784)).detach()
    assert z.shape == (n, 2, bigran.LATENT)
    deviation = (log_variance / 2).exp()
    assert ((z.mean(0) - mu) / deviation).abs().max() < 5 / n**0.5
    assert (z.var(0) / deviation**2 - 1).abs().max() < 5 * (2 / n) ** 0.5
    noise = ((z - mu) / deviation).flatten(1)  # independent over times and entries
    assert (noise.T.corrcoef() - torch.eye(2 * bigran.LATENT)).abs().max() < 6 / n**0.5


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
    """The score at (t, i): images 1 ... i of its set at time t, their codes at times 1 ... t."""
    D = bigran.Discriminator(8, 3, 0.0)
    x, z = torch.rand(6, 4, 784).requires_grad_(), torch.randn(6, 4, 25).requires_grad_()
    scores = D(x, z)
    assert scores.shape == (6, 4)
    for row in range(6):
        seen = torch.tensor([row // 3 == other // 3 and other <= row for other in range(6)])
        for t in range(4):
            slopes = torch.autograd.grad(scores[row, t], (x, z), retain_graph=True)
            on_x, on_z = ((slope != 0).any(2) for slope in slopes)
            times = torch.arange(4)
            assert torch.equal(on_x, seen[:, None] & (times == t))
            assert torch.equal(on_z, seen[:, None] & (times <= t))


def test_gradient_reaches_every_update_through_every_later_canvas():
    G, D = bigran.Decoder(8), bigran.Discriminator(8, 2, 0.0)
    z = torch.randn(4, 3, 25, requires_grad=True)
    canvas = G(z)
    eg_loss = bigran.encoder_generator_loss(torch.zeros(4, 3), D(canvas, z.detach()))
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
    assert shapes == [(4, 2, 2 * 64), (4, 2, 64)]  # inputs and outputs of the second LSTM
    assert [layer.p for layer in D.modules() if isinstance(layer, nn.Dropout)] == [0.5, 0.5]
    assert torch.equal(D.eval()(x, z), D(x, z))


def test_initial_weights_are_those_of_keras():
    """Uniform within sqrt(6 / (inputs + outputs)), by gate; recurrent ones 1.1 times orthogonal."""
    state = build(bigran, bigran.Options(device="cpu"))
    forget = torch.tensor([[0.0], [1], [0], [0]])
    for layer in (layer for name in "EGD" for layer in state[name].modules()):
        uniform = [layer.weight] if isinstance(layer, nn.Linear) else []
        if isinstance(layer, nn.LSTM):
            uniform = layer.weight_ih_l0.split(128)
            for u in layer.weight_hh_l0.split(128):
                assert torch.allclose(u @ u.T, 1.21 * torch.eye(128), atol=1e-5)
            # only the forget gate, the second, begins open: of two biases one is 1
            assert (layer.bias_ih_l0 + layer.bias_hh_l0).view(4, 128).eq(forget).all()
        elif uniform:
            assert not layer.bias.any()
        for w in uniform:
            bound = (6 / sum(w.shape)) ** 0.5
            assert 0.97 * bound < w.abs().max() <= bound
            assert w.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
    assert_same(dict(state["E"].state_dict()), dict(state["average_E"].state_dict()))


def test_parameter_counts():
    def lstm(inputs, hidden):  # PyTorch has two biases for each gate
        return 4 * hidden * (inputs + hidden + 2)

    expected = {"E": lstm(784, 128) + 129 * 50, "G": lstm(25, 128) + 129 * 784,
                "D": lstm(25, 128) + 785 * 128 + 129 * 128 + lstm(256, 128) + 129}
    state = build(bigran, bigran.Options())
    for name, network in (("E", "E"), ("G", "G"), ("D", "D"), ("E", "average_E"),
                          ("G", "average_G")):
        assert sum(w.numel() for w in state[network].parameters()) == expected[name]


def test_every_lstm_is_flattened_for_cudnn(monkeypatch):
    """The copies, too: on a GPU a network that is not gives a warning at every use."""
    flattened = set()
    monkeypatch.setattr(nn.LSTM, "flatten_parameters", lambda lstm: flattened.add(id(lstm)))
    state = build(bigran, SMALL)
    lstms = [layer for network in state.values() if isinstance(network, nn.Module)
             for layer in network.modules() if isinstance(layer, nn.LSTM)]
    assert len(lstms) == 6 and {id(lstm) for lstm in lstms} <= flattened


# ---- objective ----------------------------------------------------------------------------------


def test_losses_against_their_formulas():
    scores = torch.randn(2, 50, 4).double() * 4
    real, fake = scipy.special.expit(scores.numpy())
    assert bigran.discriminator_loss(*scores).item() == pytest.approx(
        -(numpy.log(real) + numpy.log(1 - fake)).mean())
    assert bigran.encoder_generator_loss(*scores).item() == pytest.approx(
        -(numpy.log(fake) + numpy.log(1 - real)).mean())


def test_l1_norm_against_a_hand_count():
    G = bigran.Decoder(3)
    for name, w in G.named_parameters():
        w.data.fill_(100.0 if "bias" in name else -0.5)
    # four gates of three units see 25 inputs and three units; 784 pixels see three units
    assert bigran.l1_norm(G).item() == 0.5 * (4 * 3 * (25 + 3) + 784 * 3)
    assert bigran.l1_norm(G, G) == 2 * bigran.l1_norm(G)


def test_pairs_are_real_images_with_their_codes_then_canvases_with_theirs():
    state = build(bigran, SMALL)
    x = torch.rand(4, 784)
    torch.manual_seed(0)
    images, codes = bigran.pairs(x, state["E"], state["G"])
    torch.manual_seed(0)
    code = state["E"](x)
    z = torch.randn(4, 3, 25)
    assert torch.equal(codes, torch.cat([code, z]))
    assert torch.equal(images[:4], x.unsqueeze(1).repeat(1, 3, 1))
    assert torch.equal(images[4:], state["G"](z))


# ---- the algorithm ------------------------------------------------------------------------------


def algorithm(state, batches, steps, d_steps=1, l1=0.0, ema_decay=0.9):
    networks = (state[name] for name in ("E", "G", "D", "average_E", "average_G"))
    return list(bigran.train_epoch(*networks, state["opt_eg"], state["opt_d"], batches, steps,
                                   d_steps, l1, ema_decay))


def test_a_step_moves_each_player_by_its_own_loss_alone(data):
    """One step, two of D in it, against the formulas, with the other networks frozen."""
    options = replace(SMALL, dropout=0.0, lr_d=1e-3)
    new, moved = build(bigran, options), build(bigran, options)
    batches = data[0][:16].split(8)
    torch.manual_seed(0)
    (losses,) = algorithm(moved, iter(batches), range(1), d_steps=2, l1=0.01)

    E, G, D, opt_d, opt_eg = (new[name] for name in ("E", "G", "D", "opt_d", "opt_eg"))

    def sample(x):
        code, z = E(x), torch.randn(8, 3, 25)
        fakes = G(z)
        return lambda: (torch.sigmoid(D(x.unsqueeze(1).repeat(1, 3, 1), code)),
                        torch.sigmoid(D(fakes, z)))

    def norm(*networks):
        return sum(w.abs().sum() for n in networks for w in n.parameters() if w.dim() == 2)

    torch.manual_seed(0)
    for x in batches:
        outputs = sample(x)
        real, fake = outputs()
        d_loss = -(torch.log(real) + torch.log(1 - fake)).mean()
        opt_d.zero_grad()
        (d_loss + 0.01 * norm(D)).backward(inputs=[*D.parameters()], retain_graph=True)
        opt_d.step()
    real, fake = outputs()  # the last pairs once more, of the discriminator after its steps
    eg_loss = -(torch.log(fake) + torch.log(1 - real)).mean()
    (eg_loss + 0.01 * norm(E, G)).backward(inputs=[*E.parameters(), *G.parameters()])
    opt_eg.step()
    assert torch.allclose(losses, torch.stack([d_loss, eg_loss]), rtol=1e-4)
    for player in "EGD":
        for name, w in new[player].named_parameters():
            other = moved[player].get_parameter(name)
            assert torch.allclose(w.grad, other.grad, rtol=1e-3, atol=1e-6), (player, name)
            # Adam's first step moves by the rate, whichever sign a gradient of about 0 has
            assert ((w - other).abs() > 1e-5).float().mean() < 0.01, (player, name)


def test_ema_against_its_formula():
    network, average = bigran.Decoder(4), bigran.Decoder(4)
    start = average.lstm.weight_hh_l0.clone()
    bigran.update_ema(average, network, 0.9)
    assert torch.allclose(average.lstm.weight_hh_l0, 0.9 * start + 0.1 * network.lstm.weight_hh_l0)
    bigran.update_ema(average, network, 0)
    assert_same(dict(average.state_dict()), dict(network.state_dict()))


def test_ema_warms_up(monkeypatch, data):
    updates, state = [], build(bigran, SMALL)
    names = {id(network): name for name, network in state.items()}
    monkeypatch.setattr(bigran, "update_ema", lambda average, network, decay: updates.append(
        (names[id(average)], names[id(network)], decay)))
    algorithm(state, common.minibatches(data[0][:8], 8), [0, 1, 10**5], ema_decay=0.999)
    assert updates == [(f"average_{name}", name, pytest.approx(decay))
                       for decay in (1 / 10, 2 / 11, 0.999) for name in "EG"]


# ---- numbers ------------------------------------------------------------------------------------


def test_distances_and_sharpness_of_a_small_case():
    x, canvas = torch.zeros(2, 784), torch.full((2, 2, 784), 0.5)
    canvas[0, 1, :196] = 1.0  # one image of two is a quarter sharp at the second time
    canvas[0, 1, 196:] = 0.11
    canvas[1, 1] = 0.09
    assert bigran.sharpness(canvas) == pytest.approx([0, (0.25 + 1) / 2])
    assert bigran.distances(canvas, x) == pytest.approx(
        [14, (math.sqrt(196 + 588 * 0.11**2) + 28 * 0.09) / 2])


def test_noise_is_the_same_for_a_seed_and_disturbs_nothing():
    E, G = bigran.Encoder(3, 8), bigran.Decoder(8)
    x, before = torch.rand(4, 784), torch.get_rng_state()
    z, canvas = bigran.fixed_z(4, 3, 1, CPU), bigran.autoencode(E, G, x, 1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(z, torch.randn(4, 3, 25))
    torch.manual_seed(1)
    assert torch.allclose(canvas, G(E(x)), atol=1e-6)
    assert torch.allclose(bigran.sample(G, z), G(z)[:, 2], atol=1e-6)
    assert not torch.equal(bigran.fixed_z(4, 3, 2, CPU), z)
    assert not torch.equal(bigran.autoencode(E, G, x, 2), canvas)


# ---- runs ---------------------------------------------------------------------------------------


@pytest.fixture
def run(data, monkeypatch, tmp_path):
    """Short runs on few data: run(*options, out="run") -> its folder. Curves go to run.curves."""
    few = data[0], data[1], data[2][:100], data[3][:100]
    monkeypatch.setattr(common, "load_images", lambda root, dataset, size, device: (
        few[0][:size or None], few[1][:size or None], *few[2:]))
    monkeypatch.setattr(bigran, "SAMPLES", 100)
    monkeypatch.setattr(bigran, "SCORE_EVERY", 2)
    monkeypatch.setattr(common, "save_curves",
                        lambda panels, path, xlabel: run.curves.update({path.name: panels}))

    def run(*argv, out="run"):
        if "--resume" not in argv:
            argv = ("--time-steps", "3", "--set-size", "2", "--hidden", "8", "--train-size", "256",
                    "--device", "cpu", "--out", str(tmp_path / out), *argv)
        bigran.main([*argv])
        return tmp_path / out

    run.curves = {}
    return run


def test_results_are_right(run, data):
    """Every number once more, from the checkpoint, with all distances written out."""
    out = run("--epochs", "2", "--average", "0", "--lr-eg", "0.01")
    results, saved = json.loads((out / "results.json").read_text()), checkpoint(out)
    train_x, train_y, test_x, test_y = data[0][:256], data[1][:256], data[2][:100], data[3][:100]

    def label(queries):
        return train_y[torch.cdist(queries.double(), train_x.double()).argmin(1)]

    E, G = bigran.Encoder(3, 8), bigran.Decoder(8)
    E.load_state_dict(saved["E"])
    G.load_state_dict(saved["G"])
    with torch.no_grad():
        torch.manual_seed(0)
        canvas = G(E(test_x))
        torch.manual_seed(0)
        samples = G(torch.randn(100, 3, 25))[:, 2]
    for name in "EGD":
        assert results[f"parameters_{name}"] == sum(w.numel() for w in saved[name].values())
    assert len(results["reconstruction_label_accuracy"]) == 3
    other = torch.stack([test_x[i - 1] for i in range(100)])
    for t in range(3):
        assert results["reconstruction_error"][t] == pytest.approx(
            numpy.linalg.norm(test_x - canvas[:, t], axis=1).mean(), rel=1e-5)
        assert results["error_to_another_image"][t] == pytest.approx(
            numpy.linalg.norm(other - canvas[:, t], axis=1).mean(), rel=1e-5)
        assert results["reconstruction_label_accuracy"][t] == pytest.approx(
            (label(canvas[:, t]) == test_y).float().mean().item())
        values = canvas[:, t].flatten().tolist()
        assert results["sharpness"][t] == pytest.approx(
            sum(v <= 0.1 or v >= 0.9 for v in values) / len(values), abs=1e-4)
    assert results["error_of_class_means"] == pytest.approx(numpy.mean([
        numpy.linalg.norm(x - train_x[train_y == y].numpy().mean(0))
        for x, y in zip(test_x.numpy(), test_y)]), rel=1e-5)
    shares = numpy.bincount(label(samples), minlength=10) / 100
    assert numpy.allclose(results["class_distribution"], shares)
    assert results["digits"] == (shares >= 0.02).sum()
    assert results["kl"] == pytest.approx(
        scipy.stats.entropy(shares, numpy.bincount(train_y, minlength=10) / 256), rel=1e-4)
    assert results["median_distance"] == pytest.approx(
        torch.cdist(samples, train_x).min(1).values.median().item(), rel=1e-4)
    for name, images in (("variance", samples), ("variance_of_test_images", test_x)):
        ones = (images.numpy() > 0.5).astype(float)
        assert results[name] == pytest.approx(ones.var(0, ddof=1).sum(), rel=1e-5), name
    assert results["variance"] > 0
    assert results["sharpness_of_test_images"] == pytest.approx(
        ((test_x <= 0.1) | (test_x >= 0.9)).float().mean().item(), abs=1e-4)
    assert results["label_accuracy_on_test_images"] == pytest.approx(
        (label(test_x) == test_y).float().mean().item())

    *_, row = csv.DictReader((out / "scores.csv").open())  # the same, at the first and last t
    for name, value in row.items():
        key, _, when = name.rpartition("_")
        if name != "epoch":
            expected = results[name] if name == "kl" else results[key][-(when == "last")]
            assert float(value) == pytest.approx(expected, rel=1e-6), name


def test_averages_make_pictures_and_numbers(run):
    """The same training twice: only with --average 0 are the averages the last weights."""
    slow, last = (run("--epochs", "2", "--average", decay, out=decay) for decay in ("0.9", "0"))
    for network in "EG":
        a, b = (checkpoint(out) for out in (slow, last))
        assert_same(a[network], b[network])
        assert_same(b[network], b[f"average_{network}"])
        assert not torch.equal(a[network]["out.weight"], a[f"average_{network}"]["out.weight"])
    for name in ("figure7-samples.png", "figure8-autoencodings.png", "samples/epoch-001.png"):
        assert (slow / name).read_bytes() != (last / name).read_bytes()
    a, b = (json.loads((out / "results.json").read_text()) for out in (slow, last))
    for name in ("reconstruction_error", "median_distance"):
        assert a[name] != b[name]
    assert checkpoint(slow)["scores"][1][1:3] != checkpoint(last)["scores"][1][1:3]


def tile(picture, row, column):
    """An image (784,) of a grid, in its 256 gray values."""
    grid = torch.from_numpy(numpy.array(Image.open(picture).convert("L")))
    y, x = (grid.shape[0] - 2) % 58 + 2 + 58 * row, 2 + 58 * column  # below the title
    return grid[y: y + 56: 2, x: x + 56: 2].flatten().float()


def test_figures_show_one_image_of_each_digit(run, data):
    out = run("--epochs", "1", "--average", "0")
    saved, E, G = checkpoint(out), bigran.Encoder(3, 8), bigran.Decoder(8)
    E.load_state_dict(saved["E"])
    G.load_state_dict(saved["G"])
    assert Image.open(out / "figure8-autoencodings.png").size == (2 + 58 * 11, 22 + 2 + 58 * 10)
    assert Image.open(out / "figure9-canvas.png").size == (2 + 58 * 4, 22 + 2 + 58 * 10)
    images = torch.stack([data[2][data[3] == digit][0] for digit in range(10)])
    canvas = bigran.autoencode(E, G, images, 0)
    for digit, x in enumerate(images):
        for name in ("figure8-autoencodings.png", "figure9-canvas.png"):
            assert (tile(out / name, digit, 0) - 255 * x).abs().max() <= 1
        for t in range(3):
            shown = tile(out / "figure9-canvas.png", digit, 1 + t)
            assert (shown - 255 * canvas[digit, t]).abs().max() <= 1
        ten = [tile(out / "figure8-autoencodings.png", digit, column) for column in range(1, 11)]
        assert len({tuple(image.tolist()) for image in ten}) == 10  # each with noise of its own
    for last in ("canvas-3.png", "epoch-001.png"):  # the same noise
        shown, figure7 = (numpy.array(Image.open(path).convert("L"))[-(2 + 58 * 10):] for path in (
            out / "samples" / last, out / "figure7-samples.png"))
        assert (shown == figure7).all()


def test_autoencodings_stand_beside_their_image(tmp_path):
    """Without noise all ten of figure 8 are G(mu), and so is the last canvas of figure 9."""
    torch.manual_seed(0)
    E, G, x = bigran.Encoder(3, 8), bigran.Decoder(8), torch.rand(4, 784)
    E.out.weight.data *= 20
    E.out.weight.data[bigran.LATENT:] = 0
    E.out.bias.data[bigran.LATENT:] = -30  # the log variance
    bigran.save_autoencodings(E, G, x, 0, tmp_path)
    expected = 255 * G(E.moments(x)[0]).detach()
    assert (expected[:-1, -1] - expected[1:, -1]).abs().amax(1).min() > 10
    for row in range(4):
        for name, column, t in (("figure8-autoencodings", 1, 2), ("figure8-autoencodings", 10, 2),
                                ("figure9-canvas", 1, 0), ("figure9-canvas", 3, 2)):
            shown = tile(tmp_path / f"{name}.png", row, column)
            assert (shown - expected[row, t]).abs().max() <= 1, (name, row, column)


def test_options_reach_the_algorithm_and_epochs_have_their_own_numbers(run, monkeypatch):
    calls, numbers, names = [], set(), inspect.signature(bigran.train_epoch)

    def recorded(*args):
        calls.append(names.bind(*args).arguments)
        numbers.add((next(calls[-1]["batches"]).sum().item(), torch.rand(()).item()))
        yield from torch.zeros(len(calls[-1]["steps"]), 2)

    monkeypatch.setattr(bigran, "train_epoch", recorded)
    options = ("--epochs", "2", "--batch-size", "32", "--d-steps", "3", "--lr-d", "0.1", "--lr-eg",
               "0.2", "--beta1", "0.3", "--l1", "0.6", "--average", "0.7")
    run(*options, out="a")
    run(*options, "--seed", "1", out="b")
    assert len(numbers) == len(calls) == 4
    for call, steps in zip(calls, (range(8), range(8, 16)) * 2):
        assert call["steps"] == steps
        assert [call[name] for name in ("d_steps", "l1", "ema_decay")] == [3, 0.6, 0.7]
        for name, lr in ("opt_d", 0.1), ("opt_eg", 0.2):
            assert call[name].defaults["lr"] == lr and call[name].defaults["betas"] == (0.3, 0.999)


def test_every_second_epoch_has_a_score(run):
    """And the last one; a longer run has no score of a shorter one's last. SCORE_EVERY is 2."""
    def epochs(out):
        return [row["epoch"] for row in csv.DictReader((out / "scores.csv").open())]

    out = run("--epochs", "3")
    assert epochs(out) == ["0", "2", "3"]
    run("--resume", str(out), "--epochs", "5")
    assert epochs(out) == ["0", "2", "4", "5"]
    curves = [curve for panel in run.curves["scores.png"].values() for curve in panel.values()]
    rows = list(csv.DictReader((out / "scores.csv").open()))
    assert curves == [((0, 2, 4, 5), tuple(float(row[name]) for row in rows))
                      for name in bigran.SCORES]
    assert [row[0] for row in checkpoint(out)["scores"]] == [0, 2, 4]
    assert_same(checkpoint(out), checkpoint(run("--epochs", "5", out="whole")))


def test_an_epoch_whose_score_was_interrupted_is_trained_again(run, monkeypatch, tmp_path):
    """Ctrl-C while the second epoch is scored: the first one's checkpoint stays."""
    whole, score, calls = run("--epochs", "3", out="whole"), bigran.score, []

    def interrupted(*tensors):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return score(*tensors)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(bigran, "score", interrupted)
        run("--epochs", "3")
    out = tmp_path / "run"
    assert stop.value.code == 130 and checkpoint(out)["epoch"] == 1
    assert [row[0] for row in checkpoint(out)["scores"]] == [0]
    run("--resume", str(out))
    assert_same(checkpoint(whole), checkpoint(out))
    for name in ("scores.csv", "training.gif", "samples/epoch-002.png"):
        assert (whole / name).read_bytes() == (out / name).read_bytes(), name


def test_an_infinite_deviation_stops_the_run(data, monkeypatch, tmp_path):
    """All weights are finite after this step, but E's codes are not; epoch 0 stays."""
    monkeypatch.setattr(common, "load_images", lambda *_: tuple(tensor[:32] for tensor in data))
    monkeypatch.setattr(bigran, "SAMPLES", 30)
    out = tmp_path / "run"
    with pytest.raises(SystemExit) as stop:
        bigran.main(["--train-size", "32", "--batch-size", "32", "--lr-eg", "10", "--epochs", "1",
                     "--device", "cpu", "--out", str(out)])
    assert stop.value.code == ("bigran.py: error: a weight or an autoencoding is not "
                               "finite in epoch 1; earlier epochs are kept")
    assert checkpoint(out)["epoch"] == 0 and not (out / "samples" / "epoch-001.png").exists()


def test_a_minibatch_is_whole_sets():
    with pytest.raises(ValueError, match="--batch-size: 66 is not a multiple of --set-size 4"):
        bigran.Options(batch_size=66)
