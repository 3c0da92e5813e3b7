"""Tests of binarygan.py: the mathematics, then the program as its users meet it."""

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

import binarygan

# ---- binary neurons -----------------------------------------------------------------------------


@pytest.mark.parametrize("neuron", ["sbn", "dbn"])
def test_binary_neurons_give_exactly_0_or_1(neuron):
    x = torch.randn(1000, 784) * 5
    y, p = binarygan.binary_neuron(x, 1.3, neuron)
    assert ((y == 0) | (y == 1)).all()
    assert 0.4 < y.mean() < 0.6
    assert numpy.allclose(p, scipy.special.expit(1.3 * x.double().numpy()), atol=1e-6)


@pytest.mark.parametrize("neuron", ["sbn", "dbn"])
@pytest.mark.parametrize("slope", [1.0, 1.1**19])
def test_straight_through_gradient_is_that_of_the_sigmoid(neuron, slope):
    x = torch.linspace(-6, 6, 101, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(101, dtype=torch.float64)
    y, _ = binarygan.binary_neuron(x, slope, neuron)
    (y * weight).sum().backward()
    sigma = scipy.special.expit(slope * x.detach().numpy())
    assert numpy.allclose(x.grad, weight.numpy() * slope * sigma * (1 - sigma), rtol=1e-9)


def test_stochastic_neuron_fires_with_probability_sigma():
    x = torch.tensor([-4.0, -1.0, 0.0, 0.3, 2.0])
    draws = 200_000
    y, _ = binarygan.binary_neuron(x.expand(draws, 5), 1.5, "sbn")
    sigma = scipy.special.expit(1.5 * x.double().numpy())
    error = (y.double().mean(0).numpy() - sigma) / numpy.sqrt(sigma * (1 - sigma) / draws)
    assert numpy.abs(error).max() < 5  # standard errors
    assert numpy.abs(numpy.corrcoef(y.T) - numpy.eye(5)).max() < 0.02  # each draws its own v


def test_deterministic_neuron_fires_above_one_half():
    x = torch.tensor([-3.0, -1e-3, 1e-3, 3.0])
    for slope in (1.0, 6.0):
        assert binarygan.binary_neuron(x, slope, "dbn")[0].tolist() == [0, 0, 1, 1]


def test_real_neuron_is_the_sigmoid_at_slope_1():
    x = torch.randn(100)
    y, p = binarygan.binary_neuron(x, 4.0, "real")
    assert torch.equal(y, p)
    assert numpy.allclose(y, scipy.special.expit(x.numpy()), atol=1e-6)


# ---- networks -----------------------------------------------------------------------------------


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_parameter_counts():
    """The paper says 0.53M for MLP and 1.4M for CNN, and that the CNN has fewer: swapped."""
    G, D = binarygan.generator("mlp", "none"), binarygan.discriminator("mlp", "none")
    assert count(G) == (128 + 1) * 1024 + (1024 + 1) * 784
    assert count(D) == (784 + 1) * 512 + (512 + 1) * 256 + 256 + 1
    assert round((count(G) + count(D)) / 1e6, 2) == 1.47
    G, D = binarygan.generator("cnn", "none"), binarygan.discriminator("cnn", "none")
    assert count(G) == sum(i * o * k * k + o for i, o, k in
                           [(128, 128, 2), (128, 64, 4), (64, 32, 3), (32, 1, 4)])
    assert count(D) == (9 + 1) * 32 + (32 * 9 + 1) * 64 + (2304 + 1) * 128 + 128 + 1
    assert round((count(G) + count(D)) / 1e6, 2) == 0.53


def test_image_sizes_inside_the_cnn():
    def sizes(network, x):
        seen = []
        for layer in network:
            x = layer(x)
            if x.ndim == 4 and (not seen or seen[-1] != tuple(x.shape[1:])):
                seen.append(tuple(x.shape[1:]))
        return seen

    assert sizes(binarygan.generator("cnn", "batch"), torch.randn(2, 128)) == [
        (128, 1, 1), (128, 2, 2), (64, 6, 6), (32, 13, 13), (1, 28, 28)]
    assert sizes(binarygan.discriminator("cnn", "batch"), torch.randn(2, 784)) == [
        (1, 28, 28), (32, 26, 26), (32, 13, 13), (64, 11, 11), (64, 6, 6)]


@pytest.mark.parametrize("arch", ["mlp", "cnn"])
def test_batch_norm_follows_every_layer_of_G_and_every_hidden_layer_of_D(arch):
    def norms(network):
        return sum(isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)) for layer in network)

    layers = {"mlp": (2, 2), "cnn": (4, 3)}[arch]
    for norm, expected in (("batch", layers), ("none", (0, 0))):
        assert (norms(binarygan.generator(arch, norm)),
                norms(binarygan.discriminator(arch, norm))) == expected


@pytest.mark.parametrize("objective, in_D", [("gan", True), ("wgan", False), ("wgan-gp", False)])
def test_only_gan_normalizes_in_D(objective, in_D):
    args = binarygan.parse_args(["--objective", objective, "--norm", "batch"])
    parts = binarygan.build(args, torch.device("cpu"))
    assert any(isinstance(layer, nn.BatchNorm1d) for layer in parts["D"]) == in_D
    assert any(isinstance(layer, nn.BatchNorm1d) for layer in parts["G"])


# ---- objectives ---------------------------------------------------------------------------------


def test_penalty_of_a_linear_critic():
    D = nn.Linear(784, 1)
    norm = D.weight.detach().double().norm().item()
    penalty = binarygan.gradient_penalty(D, torch.rand(8, 784), torch.rand(8, 784))
    assert penalty.item() == pytest.approx((norm - 1) ** 2, rel=1e-5)


def test_penalty_takes_the_norm_image_by_image():
    """D(x) = |x|^2 / 2 has gradient x: the penalty is known once the images between are."""
    seen = []

    def D(x):
        seen.append(x.detach())
        return x.square().sum(1, keepdim=True) / 2

    real, fake = torch.rand(16, 50) * torch.arange(1, 17).view(-1, 1), torch.rand(16, 50)
    penalty = binarygan.gradient_penalty(D, real, fake)
    (between,) = seen
    assert penalty.item() == pytest.approx(((between.norm(dim=1) - 1) ** 2).mean().item())
    epsilon = (between - fake) / (real - fake)  # one for all pixels of an image, another for each
    assert torch.allclose(epsilon, epsilon.median(1, keepdim=True).values, atol=1e-2)
    epsilon = epsilon.median(1).values
    assert 0 <= epsilon.min() < 0.3 and 0.7 < epsilon.max() <= 1


def test_penalty_and_its_gradient_against_finite_differences():
    """Of a small MLP critic: first by the pixels, then, through the penalty, by the weights."""
    torch.manual_seed(1)
    D = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.LeakyReLU(0.2),
                      nn.Linear(4, 1)).double()
    real, fake = torch.rand(3, 6).double(), torch.rand(3, 6).double()
    h = 1e-6

    def by_differences():
        """The penalty with D used forward alone, at the same epsilons."""
        torch.manual_seed(2)
        epsilon = torch.rand(3, 1)
        between = epsilon * real + (1 - epsilon) * fake
        steps = h * torch.eye(6, dtype=torch.float64)
        gradient = torch.cat([(D(between + step) - D(between - step)) / (2 * h)
                              for step in steps], dim=1)
        return ((gradient.square().sum(1).sqrt() - 1) ** 2).mean()

    torch.manual_seed(2)
    penalty = binarygan.gradient_penalty(D, real, fake)
    with torch.no_grad():
        assert penalty.item() == pytest.approx(by_differences().item(), rel=1e-6)

    penalty.backward()
    for weights in (D[0].weight, D[2].weight, D[4].weight):
        for index in [(0, 0), (0, 3), (-1, 1)]:
            values = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    weights[index] += step
                torch.manual_seed(2)
                values.append(binarygan.gradient_penalty(D, real, fake).item())
                with torch.no_grad():
                    weights[index] -= step
            expected = (values[0] - values[1]) / 2e-5
            assert weights.grad[index].item() == pytest.approx(expected, rel=1e-4, abs=1e-8)


def test_penalty_is_finite_where_the_gradient_is_zero():
    D = binarygan.discriminator("mlp", "none")
    nn.init.zeros_(D[-1].weight)
    penalty = binarygan.gradient_penalty(D, torch.rand(4, 784), torch.rand(4, 784))
    penalty.backward()
    assert penalty.item() == 1  # (0 - 1)^2
    assert all(torch.isfinite(w.grad).all() for w in D.parameters() if w.grad is not None)


def test_losses_against_their_definitions():
    D = nn.Sequential(nn.Linear(784, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    real, fake = torch.rand(8, 784).double(), torch.rand(8, 784).double()
    on_real, on_fake = D(real).detach().numpy(), D(fake).detach().numpy()
    probability = scipy.special.expit

    loss, estimate = binarygan.discriminator_loss(D, real, fake, "gan")
    expected = -(numpy.log(probability(on_real)) + numpy.log(1 - probability(on_fake))).mean()
    assert loss.item() == pytest.approx(expected)
    assert estimate.item() == pytest.approx((on_real - on_fake).mean())
    expected = -numpy.log(probability(on_fake)).mean()
    assert binarygan.generator_loss(D, fake, "gan").item() == pytest.approx(expected)

    assert binarygan.discriminator_loss(D, real, fake, "wgan")[0].item() == pytest.approx(
        -(on_real - on_fake).mean())
    torch.manual_seed(5)
    loss, estimate = binarygan.discriminator_loss(D, real, fake, "wgan-gp")
    torch.manual_seed(5)
    penalty = binarygan.gradient_penalty(D, real, fake).item()
    assert loss.item() == pytest.approx(-estimate.item() + 10 * penalty)
    for objective in ("wgan", "wgan-gp"):
        assert binarygan.generator_loss(D, fake, objective).item() == pytest.approx(
            -on_fake.mean())


def test_gan_keeps_real_and_fake_apart_in_batch_norm():
    D = nn.BatchNorm1d(1, affine=False, track_running_stats=False)
    real, fake = torch.randn(64, 1) + 100, torch.randn(64, 1)
    _, estimate = binarygan.discriminator_loss(D, real, fake, "gan")
    assert abs(estimate.item()) < 1e-3  # normalized together, the two would lie 2 apart


def test_critic_schedule():
    steps = [binarygan.critic_steps(step) for step in range(20 * 937)]
    assert set(steps[:25]) == {100} and steps[25:30] == [5] * 5
    assert [i for i, n in enumerate(steps) if n == 100 and i >= 25] == list(range(500, 18740, 500))
    assert sum(steps) == 99_590  # the 100k critic steps of the authors' 18.7k generator steps


# ---- evaluation ---------------------------------------------------------------------------------


def test_kl_and_histogram_against_scipy_and_numpy():
    p, q = torch.tensor([0.5, 0.3, 0.0, 0.2]), torch.tensor([0.1, 0.4, 0.3, 0.2])
    assert binarygan.kl_divergence(p, q) == pytest.approx(scipy.stats.entropy(p, q), rel=1e-5)
    assert binarygan.kl_divergence(q, q) == pytest.approx(0, abs=1e-7)
    outputs = torch.rand(1000, 784) ** 4
    expected = numpy.histogram(outputs.double(), 256, (0, 1))[0] / outputs.numel()
    assert numpy.allclose(binarygan.histogram(outputs), expected, atol=1e-5)
    middles, shares = binarygan.histogram_curve(outputs)
    assert middles[0] == 1 / 512 and middles[-1] == 511 / 512 and sum(shares) == pytest.approx(1)


# ---- the program --------------------------------------------------------------------------------


@pytest.fixture
def run(data, monkeypatch, tmp_path):
    """Run the program on 256 images, with the data already loaded and a shortened schedule."""
    few = tuple(tensor[:1000] for tensor in data)
    monkeypatch.setattr(binarygan, "mnist", lambda *_: few)
    monkeypatch.setattr(binarygan, "critic_steps", lambda step: 3 if step < 2 else 2)
    monkeypatch.setattr(binarygan, "SAMPLES", 300)

    def run(*options, out="run", size=True):
        out = tmp_path / out
        binarygan.main([*options, *(["--train-size", "256"] if size else []), "--device", "cpu",
                        *([] if "--resume" in options else ["--out", str(out)])])
        return out
    return run


@pytest.mark.parametrize("neuron, objective, arch, norm", [
    ("sbn", "wgan-gp", "mlp", "none"), ("dbn", "wgan", "mlp", "batch"),
    ("real", "gan", "mlp", "batch"), ("sbn", "gan", "cnn", "batch"),
    ("dbn", "wgan-gp", "cnn", "none"), ("real", "wgan", "cnn", "none"),
    ("real", "wgan-gp", "mlp", "batch"), ("dbn", "gan", "mlp", "none")])
def test_smoke(run, capsys, neuron, objective, arch, norm):
    out = run("--neuron", neuron, "--objective", objective, "--arch", arch, "--norm", norm,
              "--epochs", "2", "--batch-size", "32", "--lr", "2e-4", "--seed", "3")
    saved, options = checkpoint(out), json.loads((out / "options.json").read_text())
    new = binarygan.build(binarygan.parse_args(["--resume", str(out)]), torch.device("cpu"))
    for name in ("G", "D"):
        assert all(not torch.equal(saved[name][key], tensor)
                   for key, tensor in new[name].named_parameters() if "weight" in key)
    assert saved["epoch"] == 2 and options["neuron"] == neuron and options["lr"] == 2e-4

    pictures = ["losses.png", "figure3-samples.png", "figure4-histogram.png", "training.gif",
                "samples/epoch-000.png", "samples/epoch-001.png", "samples/epoch-002.png"]
    pictures += ["figure5-binarized.png"] if neuron == "real" else []
    for picture in pictures:
        Image.open(out / picture).load()
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    assert [row["generator_step"] for row in rows] == ["8", "16"]
    assert all(math.isfinite(float(value)) for row in rows for value in row.values())

    results = json.loads((out / "results.json").read_text())
    assert sum(results["digit_shares"]) == pytest.approx(1, abs=1e-5)
    assert 1 <= results["digits"] <= 10 and results["kl"] >= 0
    assert results["parameters_G"] == count(new["G"])
    assert ("wasserstein_test" in results) == (objective == "wgan-gp")
    assert results["seed"] == 3 and results["epochs"] == 2
    printed = capsys.readouterr().out.splitlines()
    assert "on cpu" in printed[0] and str(out) in printed[-1]


def test_results_are_right(run, data, monkeypatch):
    """With a generator that gives test images back, its results can be told beforehand."""
    images = (data[2][:300] > 0).float()
    shown = images.clamp(0.004, 0.996)  # as preactivated outputs: in bins 1 and 254
    monkeypatch.setattr(binarygan, "sample",
                        lambda args, G, count, epoch: (images[:count], shown[:count]))
    out = run("--epochs", "1")
    results = json.loads((out / "results.json").read_text())
    distances = torch.cdist(images, (data[0][:256] > 0).float())
    labels = data[1][distances.argmin(1)]
    shares = numpy.bincount(labels, minlength=10) / 300
    train = numpy.bincount(data[1][:256], minlength=10) / 256
    assert numpy.allclose(results["digit_shares"], shares)
    assert results["kl"] == pytest.approx(scipy.stats.entropy(shares, train), rel=1e-4)
    assert results["digits"] == (shares >= 0.02).sum()
    assert results["median_distance"] == pytest.approx(distances.min(1).values.median().item())
    assert results["histogram_first_bin"] == results["histogram_middle"] == 0
    D = binarygan.discriminator("mlp", "none")
    D.load_state_dict(checkpoint(out)["D"])
    with torch.no_grad():
        fake, test = D(images).mean(), D((data[2][:1000] > 0).float()).mean()
        train = D((data[0][:256] > 0).float()).mean()
    assert results["wasserstein_test"] == pytest.approx((test - fake).item(), abs=1e-4)
    assert results["wasserstein_train"] == pytest.approx((train - fake).item(), abs=1e-4)


@pytest.mark.parametrize("options", [[], ["--objective", "wgan"],
                                     ["--objective", "gan", "--norm", "batch"]])
def test_same_seed_same_bits_and_resumed_equals_uninterrupted(run, options):
    whole = run(*options, "--epochs", "3", out="whole")
    part = run(*options, "--epochs", "1", out="part")
    run("--resume", str(part), "--epochs", "3")
    assert_same(checkpoint(whole), checkpoint(part))
    for name in ("metrics.csv", "training.gif", "figure3-samples.png", "samples/epoch-003.png"):
        assert (whole / name).read_bytes() == (part / name).read_bytes()
    a, b = (json.loads((out / "results.json").read_text()) for out in (whole, part))
    assert a.pop("training_seconds") > 0 < b.pop("training_seconds")
    assert a == b

    other = run(*options, "--epochs", "1", "--seed", "1", out="other")
    assert not torch.equal(checkpoint(other)["G"]["0.weight"], checkpoint(part)["G"]["0.weight"])


@pytest.mark.parametrize("objective", ["wgan-gp", "wgan", "gan"])
def test_each_player_leaves_the_other_alone(run, monkeypatch, objective):
    """Nothing of D changes in a step of G, and no weight of G in a step of D."""
    parts, history = {}, []
    build, d_loss, g_loss = (getattr(binarygan, name) for name in
                             ("build", "discriminator_loss", "generator_loss"))

    def remember(player):
        G = {name: w.detach().clone() for name, w in parts["G"].named_parameters()}
        D = {name: w.clone() for name, w in parts["D"].state_dict().items()}
        gradients = [w.grad.clone() for w in parts["D"].parameters() if w.grad is not None]
        history.append((player, G, D, gradients))

    monkeypatch.setattr(binarygan, "build", lambda *a: parts.update(build(*a)) or dict(parts))
    monkeypatch.setattr(binarygan, "discriminator_loss",
                        lambda *a: remember("D") or d_loss(*a))
    monkeypatch.setattr(binarygan, "generator_loss", lambda *a: remember("G") or g_loss(*a))
    run("--objective", objective, "--norm", "batch", "--epochs", "1")

    turns = [player for player, *_ in history]
    assert turns == list("DDDGDDDGDDGDDG")
    for (player, G, D, gradients), (_, next_G, next_D, next_gradients) in zip(history,
                                                                              history[1:]):
        if player == "D":
            assert_same(G, next_G)
            assert not torch.equal(D["0.weight"], next_D["0.weight"])
        else:
            assert_same(D, next_D)
            assert_same(gradients, next_gradients)
            assert not torch.equal(G["0.weight"], next_G["0.weight"])
    if objective == "wgan":  # the weights are clipped after each step of D
        for _, _, D, _ in history[1:]:
            assert max(w.abs().max() for w in D.values()) <= 0.01
        assert history[0][2]["0.weight"].abs().max() > 0.01


@pytest.mark.parametrize("options, factor", [([], 1.1), (["--anneal", "1"], 1.0)])
def test_slope_is_annealed_epoch_by_epoch(run, monkeypatch, options, factor):
    slopes, neuron = [], binarygan.binary_neuron
    monkeypatch.setattr(binarygan, "binary_neuron",
                        lambda x, slope, kind: slopes.append(slope) or neuron(x, slope, kind))
    run("--epochs", "3", *options)
    # at first the picture of epoch 0; in each epoch critic and generator steps, then a picture
    steps = [10 + 4, 8 + 4, 8 + 4]
    expected = [1.0] + [factor**epoch for epoch in range(3) for _ in range(steps[epoch] + 1)]
    assert slopes == pytest.approx([*expected, factor**2])  # and the evaluation


def test_every_epoch_and_every_seed_draws_its_own_numbers(run, monkeypatch):
    drawn, loss = [], binarygan.discriminator_loss
    monkeypatch.setattr(binarygan, "discriminator_loss", lambda D, real, fake, objective:
                        drawn.append((real, fake)) or loss(D, real, fake, objective))
    run("--epochs", "2", out="a")
    run("--epochs", "1", "--seed", "1", out="b")
    assert len(drawn) == 10 + 8 + 10  # in the first epoch two generator steps have 3, two have 2
    for i in (0, 1):
        assert len({tuple(pair[i].sum(1).tolist()) for pair in drawn}) == len(drawn)


def test_nan_stops_the_run_and_names_the_step(run, monkeypatch, tmp_path):
    calls, loss = [], binarygan.generator_loss

    def breaks(D, fake, objective):
        calls.append(1)
        return loss(D, fake, objective) * (math.nan if len(calls) == 6 else 1)

    monkeypatch.setattr(binarygan, "generator_loss", breaks)
    with pytest.raises(SystemExit) as stop:
        run("--epochs", "3")
    assert re.search(r"not finite in generator steps 5 to 8 \(epoch 2\)", str(stop.value.code))
    assert checkpoint(tmp_path / "run")["epoch"] == 1


def test_interrupted_run_can_be_continued(run, monkeypatch, tmp_path, capsys):
    whole = run("--epochs", "2", out="whole")
    calls, loss = [], binarygan.generator_loss

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return loss(*args)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(binarygan, "generator_loss", interrupted)
        run("--epochs", "2")
    assert stop.value.code == 130
    out = tmp_path / "run"
    assert f"python binarygan.py --resume {out}" in capsys.readouterr().err
    run("--resume", str(out))
    assert_same(checkpoint(whole), checkpoint(out))


@pytest.mark.parametrize("options, complaint", [
    (["--neuron", "xor"], "--neuron: invalid choice: 'xor'"),
    (["--objective", "began"], "--objective: invalid choice"),
    (["--arch", "vit"], "--arch: invalid choice"),
    (["--norm", "layer"], "--norm: invalid choice"),
    (["--epochs", "0"], "--epochs: '0' is not a whole number from 1"),
    (["--epochs", "-3"], "--epochs: '-3' is not a whole number"),
    (["--epochs", "many"], "--epochs: 'many' is not a whole number"),
    (["--batch-size", "0"], "--batch-size: '0' is not a whole number from 2"),
    (["--batch-size", "64", "--train-size", "63"], "--batch-size: 64 is more than"),
    (["--train-size", "60001"], "--train-size: '60001' is not a whole number from 2 to 60000"),
    (["--lr", "nan"], "--lr: 'nan' is not a number from 1e-09 to 10"),
    (["--lr", "0"], "--lr: '0' is not a number from 1e-09 to 10"),
    (["--lr", "fast"], "--lr: 'fast' is not a number from 1e-09 to 10"),
    (["--anneal", "0"], "--anneal: '0' is not a number from 0.5 to 2"),
    (["--seed", "-1"], "--seed: '-1' is not a whole number from 0"),
    (["--device", "tpu"], "--device: invalid choice"),
    (["--device", "mps"], "--device: there is no mps here"),
    (["--device", "cuda"], "--device: there is no cuda here"),
    (["--resume", "nowhere"], "--resume: nowhere holds no whole run of binarygan.py"),
    (["--out", "here"], "--out: here exists"),
    (["--resume", "here", "--paper"], "--resume: not allowed with --paper or --out"),
    (["--paper", "--seed", "1"], "--seed: --paper runs through its values itself"),
    (["--paper", "--neuron", "dbn"], "--neuron: --paper runs through its values itself"),
    (["--slope", "2"], "unrecognized arguments: --slope 2"),
])
def test_bad_options_end_with_one_line_and_change_nothing(options, complaint, tmp_path,
                                                          monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(SystemExit) as stop:
        binarygan.main(options)
    assert stop.value.code == 2
    assert complaint in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


def test_bad_ways_to_resume(run, capsys):
    out = run("--epochs", "2")
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    for options, complaint in ((["--neuron", "dbn"], "--neuron: the run in"),
                               (["--seed", "1"], "--seed: the run in"),
                               (["--epochs", "1"], "has 2 already"),
                               (["--out", "elsewhere"], "--resume: not allowed with")):
        with pytest.raises(SystemExit) as stop:
            binarygan.main(["--resume", str(out), *options])
        assert stop.value.code == 2
        assert complaint in capsys.readouterr().err.splitlines()[-1]
    assert before == {path: path.read_bytes() for path in out.rglob("*.*")}

    options = json.loads((out / "options.json").read_text())
    for damage in (lambda: (out / "options.json").write_text(
                       json.dumps(options | {"script": "bigan.py"})),
                   lambda: (out / "checkpoint.pt").write_bytes(b"half a file"),
                   lambda: (out / "checkpoint.pt").unlink()):
        damage()
        with pytest.raises(SystemExit) as stop:
            binarygan.main(["--resume", str(out)])
        assert stop.value.code == 2
        assert "holds no whole run of binarygan.py" in capsys.readouterr().err.splitlines()[-1]
        (out / "options.json").write_text(json.dumps(options))


def test_damaged_data_end_with_one_line(tmp_path):
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").write_bytes(b"")
    with pytest.raises(SystemExit) as stop:
        binarygan.main(["--data", str(tmp_path), "--out", str(tmp_path / "run")])
    assert str(stop.value.code).startswith("binarygan.py: error: ")
    assert "t10k-labels-idx1-ubyte is damaged" in stop.value.code
    assert not (tmp_path / "run").exists()


def test_paper_trains_all_draws_all_and_continues(run, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(binarygan, "critic_steps", lambda step: 1)
    options = ["--paper", "--epochs", "1", "--batch-size", "128", "--anneal", "1.2"]
    trained, train = [], binarygan.train

    def stops_in_experiment_3(args):
        trained.append(binarygan.configuration(args))
        if len(trained) == 5:
            raise KeyboardInterrupt
        train(args)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(binarygan, "train", stops_in_experiment_3)
        run(*options)
    assert stop.value.code == 130
    assert "To continue: python binarygan.py --paper" in capsys.readouterr().err
    out = tmp_path / "run"
    figures = {"figure3-neurons.png", "figure4-histograms.png", "figure5-binarized.png"}
    assert {path.name for path in out.glob("*.png")} == figures  # of experiments I and II

    monkeypatch.setattr(binarygan, "train",
                        lambda args: trained.append(binarygan.configuration(args)) or train(args))
    run(*options)
    # nothing is trained twice but the one that was stopped
    assert len(trained) == 18 and len(set(trained)) == 17
    figures |= {"figure6-gan-wgan.png", "figure7-cnn.png", "figure8-objectives.png"}
    assert {path.name for path in out.glob("*.png")} == figures
    for name in figures:
        Image.open(out / name).load()
    rows = [row["run"] for row in csv.DictReader((out / "results.csv").open())]
    assert sorted(rows) == sorted(set(trained))
    assert all(json.loads((out / row / "options.json").read_text())["anneal"] == 1.2
               for row in rows)
    assert {f"sbn-{objective}-mlp-none-seed{seed}" for objective in ("gan", "wgan", "wgan-gp")
            for seed in (0, 1, 2)} <= set(rows)
    table = capsys.readouterr().out.splitlines()[-18:-1]
    assert [line.split()[0] for line in table] == rows
