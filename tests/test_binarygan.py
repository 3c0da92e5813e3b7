"""Tests of binarygan.py: the mathematics, and who learns from what."""

import json

import numpy
import pytest
import scipy.special
import scipy.stats
import torch
from conftest import assert_same, build, checkpoint
from torch import nn

import binarygan
import common

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
    options = binarygan.Options(objective=objective, norm="batch")
    state = build(binarygan, options)
    assert any(isinstance(layer, nn.BatchNorm1d) for layer in state["D"]) == in_D
    assert any(isinstance(layer, nn.BatchNorm1d) for layer in state["G"])


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


def test_penalty_of_an_mlp_critic_against_a_double_backward(monkeypatch):
    """In closed form, and as of any other critic: a function's layers are not known."""
    calls, gradient = [], binarygan.mlp_gradient
    monkeypatch.setattr(binarygan, "mlp_gradient", lambda *a: calls.append(1) or gradient(*a))
    torch.manual_seed(0)
    D = binarygan.discriminator("mlp", "none").double()
    real, fake = (torch.rand(64, 784).double().round() for _ in range(2))
    penalties, gradients = [], []
    for critic in (D, D.forward):
        torch.manual_seed(1)
        penalties.append(binarygan.gradient_penalty(critic, real, fake))
        gradients.append(torch.autograd.grad(penalties[-1], list(D.parameters()),
                                             allow_unused=True, materialize_grads=True))
    assert len(calls) == 1 and penalties[0].item() == pytest.approx(penalties[1].item(), rel=1e-6)
    for ours, expected in zip(*gradients):
        assert torch.allclose(ours, expected, rtol=1e-6, atol=1e-12)
    assert all(g.abs().max() > 1e-3 for g in gradients[1][::2])  # no weight's is 0


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
    steps = [binarygan.critic_steps(step, "paper") for step in range(20 * 937)]
    assert set(steps[:25]) == {100} and steps[25:30] == [5] * 5
    assert [i for i, n in enumerate(steps) if n == 100 and i >= 25] == list(range(500, 18740, 500))
    assert sum(steps) == 99_590  # the 100k critic steps of the authors' 18.7k generator steps
    assert {binarygan.critic_steps(step, "short") for step in (0, 24, 25, 500)} == {3}


# ---- evaluation ---------------------------------------------------------------------------------


def test_histogram_against_numpy(monkeypatch, tmp_path):
    outputs = torch.rand(1000, 784) ** 4
    expected = numpy.histogram(outputs.double(), 256, (0, 1))[0] / outputs.numel()
    assert numpy.allclose(binarygan.histogram(outputs), expected, atol=1e-5)
    drawn = []
    monkeypatch.setattr(common, "save_curves", lambda panels, *_, **__: drawn.append(panels))
    binarygan.save_histograms({"sbn": outputs}, tmp_path)
    middles, shares = drawn[0][""]["sbn"]
    assert middles[0] == 1 / 512 and middles[-1] == 511 / 512
    assert numpy.allclose(shares, expected, atol=1e-5)


def test_titles_say_whose_samples_they_are(monkeypatch, tmp_path):
    titles = []
    monkeypatch.setattr(common, "save_panels", lambda panels, *_: titles.extend(panels))
    for name in ("save_curves", "save_gif"):
        monkeypatch.setattr(common, name, lambda *_, **__: None)
    images = torch.rand(64, 784).round()
    for objective in ("gan", "wgan"):
        binarygan.save_figures("sbn", objective, [[1, 0, 0, 0]], images, images, tmp_path)
    assert len({*titles}) == 4 and all("sbn" in title for title in titles)


def test_binarizations_of_figure_5():
    p = torch.rand(2000, 50)
    panels = binarygan.binarizations(p, 0)
    assert panels["raw"] is p and torch.equal(panels["threshold 0.5"], (p > 0.5).float())
    sampled = panels["Bernoulli"]
    assert ((sampled == 0) | (sampled == 1)).all()
    assert (sampled.mean(0) - p.mean(0)).abs().max() < 5 * (0.25 / 2000) ** 0.5


def test_sampling_is_the_same_for_a_seed_and_disturbs_nothing():
    G = binarygan.generator("mlp", "batch")
    torch.manual_seed(3)
    before = torch.get_rng_state()
    statistics = {name: value.clone() for name, value in G.state_dict().items()}
    (a, p), (b, _), (c, _) = (binarygan.sample(G, 5, 2.0, "sbn", seed) for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c) and p.shape == (5, 784)
    assert torch.equal(torch.get_rng_state(), before) and G.training
    assert_same(G.state_dict(), statistics)


# ---- training -----------------------------------------------------------------------------------


@pytest.mark.parametrize("neuron, objective, arch, norm", [
    ("dbn", "wgan", "mlp", "batch"), ("real", "gan", "mlp", "batch"),
    ("sbn", "gan", "cnn", "batch"), ("dbn", "wgan-gp", "cnn", "none"),
    ("real", "wgan", "cnn", "none"), ("real", "wgan-gp", "mlp", "batch")])
def test_all_combinations_train(short, neuron, objective, arch, norm):
    out = short("binarygan")("--neuron", neuron, "--objective", objective, "--arch", arch,
                             "--norm", norm, "--epochs", "1", "--lr", "2e-4")
    saved = checkpoint(out)
    new = build(binarygan, binarygan.Options(**saved["options"]))
    for name in ("G", "D"):
        assert all(not torch.equal(saved[name][key], tensor)
                   for key, tensor in new[name].named_parameters() if "weight" in key)
    results = json.loads((out / "results.json").read_text())
    assert results["parameters_G"] == count(new["G"])
    assert ("wasserstein_test" in results) == (objective == "wgan-gp")
    assert (out / "figure5-binarized.png").exists() == (neuron == "real")


def test_results_are_right(short, data, monkeypatch):
    """With a generator that gives test images back, its results can be told beforehand."""
    run = short("binarygan")
    monkeypatch.setattr(binarygan, "SAMPLES", 300)
    images = (data[2][:300] > 0).float()
    shown = images.clamp(0.004, 0.996)  # as preactivated outputs: in bins 1 and 254
    monkeypatch.setattr(binarygan, "sample",
                        lambda G, count, slope, neuron, seed: (images[:count], shown[:count]))
    out = run("--epochs", "1", "--train-size", "256")
    results = json.loads((out / "results.json").read_text())
    distances = torch.cdist(images, (data[0][:256] > 0).float())
    labels = data[1][distances.argmin(1)]
    shares = numpy.bincount(labels, minlength=10) / 300
    train = numpy.bincount(data[1][:256], minlength=10) / 256
    assert numpy.allclose(results["class_distribution"], shares)
    assert results["kl"] == pytest.approx(scipy.stats.entropy(shares, train), rel=1e-4)
    assert results["digits"] == (shares >= 0.02).sum()
    assert results["median_distance"] == pytest.approx(distances.min(1).values.median().item())
    assert results["histogram_first_bin"] == results["histogram_middle"] == 0
    assert results["histogram_notch"] is None  # 0 / 0
    D = binarygan.discriminator("mlp", "none")
    D.load_state_dict(checkpoint(out)["D"])
    with torch.no_grad():
        fake, test = D(images).mean(), D((data[2][:256] > 0).float()).mean()
        train = D((data[0][:256] > 0).float()).mean()
    assert results["wasserstein_test"] == pytest.approx((test - fake).item(), abs=1e-4)
    assert results["wasserstein_train"] == pytest.approx((train - fake).item(), abs=1e-4)


@pytest.mark.parametrize("objective", ["wgan-gp", "wgan", "gan"])
def test_each_player_leaves_the_other_alone(monkeypatch, objective):
    """Nothing of D changes in a step of G, and no weight of G in a step of D."""
    torch.manual_seed(0)
    G = binarygan.generator("mlp", "batch")
    D = binarygan.discriminator("mlp", "batch" if objective == "gan" else "none")
    history = []
    d_loss, g_loss = binarygan.discriminator_loss, binarygan.generator_loss

    def remember(player):
        weights = {name: w.detach().clone() for name, w in G.named_parameters()}
        gradients = [w.grad.clone() for w in D.parameters() if w.grad is not None]
        history.append((player, weights, {name: w.clone() for name, w in D.state_dict().items()},
                        gradients))

    monkeypatch.setattr(binarygan, "discriminator_loss", lambda *a: remember("D") or d_loss(*a))
    monkeypatch.setattr(binarygan, "generator_loss", lambda *a: remember("G") or g_loss(*a))
    batches = iter(lambda: (torch.rand(8, 784) > 0.5).float(), None)
    opt_g, opt_d = (binarygan.optimizer(network, 1e-4, objective) for network in (G, D))
    rows = list(binarygan.train_epoch(G, D, opt_g, opt_d, batches, [3, 3, 2, 2], 1.0, "sbn",
                                      objective))
    assert len(rows) == 4 and all(row.shape == (3,) and not row.requires_grad for row in rows)

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


@pytest.mark.parametrize("options, factor", [
    ([], 1.1), (["--schedule", "short"], 1.2), (["--anneal", "1"], 1.0)])
def test_slope_is_annealed_epoch_by_epoch(short, monkeypatch, options, factor):
    slopes, neuron = [], binarygan.binary_neuron
    run = short("binarygan")
    monkeypatch.setattr(binarygan, "binary_neuron",
                        lambda x, slope, kind: slopes.append(slope) or neuron(x, slope, kind))
    run("--epochs", "3", *options)
    # the picture of epoch 0; in each epoch two generator steps after two critic steps, a picture
    expected = [1.0] + [factor**epoch for epoch in range(3) for _ in range(2 * 3 + 1)]
    assert slopes == pytest.approx([*expected, factor**2])  # and the evaluation


@pytest.mark.parametrize("name, other", [("paper", "short"), ("short", "paper")])
def test_a_schedule_is_what_is_not_given(name, other):
    row = binarygan.SCHEDULES[name]
    assert {key: getattr(binarygan.Options(schedule=name), key) for key in row} == row
    for key, value in binarygan.SCHEDULES[other].items():
        options = binarygan.Options(schedule=name, **{key: value})
        assert {key: getattr(options, key) for key in row} == row | {key: value}
    with pytest.raises(ValueError, match="--schedule: 'long' is not one of auto, paper, short"):
        binarygan.Options(schedule="long")


@pytest.mark.parametrize("options, schedule", [
    ({}, "short"), ({"neuron": "real"}, "short"), ({"neuron": "dbn"}, "paper"),
    ({"objective": "wgan"}, "paper"), ({"arch": "cnn"}, "paper"), ({"norm": "batch"}, "paper"),
    ({"train_size": 6400}, "paper"),
    ({"schedule": "paper"}, "paper"), ({"neuron": "dbn", "schedule": "short"}, "short")])
def test_the_short_schedule_is_the_default_where_it_was_found_as_good(options, schedule):
    assert binarygan.Options(**options).schedule == schedule


def test_short_schedule_lets_the_rate_fall_also_in_a_run_that_goes_on(short, monkeypatch):
    critic_steps, epochs, algorithm = binarygan.critic_steps, [], binarygan.train_epoch
    run = short("binarygan", whole=False)
    monkeypatch.setattr(binarygan, "critic_steps", critic_steps)
    monkeypatch.setattr(binarygan, "train_epoch", lambda G, D, opt_g, opt_d, batches, counts, *a:
                        epochs.append((*(group["lr"] for opt in (opt_g, opt_d)
                                         for group in opt.param_groups), [*counts]))
                        or algorithm(G, D, opt_g, opt_d, batches, counts, *a))
    whole, part = (run("--schedule", "short", "--epochs", n, out=n) for n in ("3", "1"))
    run("--resume", str(part), "--epochs", "3")
    lr, factor = (binarygan.SCHEDULES["short"][key] for key in ("lr", "lr_decay"))
    rates = [lr * factor**epoch for epoch in (0, 1, 2, 0, 1, 2)]
    assert epochs == [(pytest.approx(rate), pytest.approx(rate), [3, 3]) for rate in rates]
    assert_same(checkpoint(whole), checkpoint(part))


def test_every_epoch_and_every_seed_has_its_own_numbers(short, monkeypatch):
    pairs, loss = [], binarygan.discriminator_loss
    run = short("binarygan")
    monkeypatch.setattr(binarygan, "discriminator_loss", lambda D, real, fake, objective:
                        pairs.append((real, fake)) or loss(D, real, fake, objective))
    run("--epochs", "2", out="a")
    run("--epochs", "1", "--seed", "1", out="b")
    assert len(pairs) == 4 + 4 + 4
    for i in (0, 1):
        sums = [tuple(pair[i].sum(1).tolist()) for pair in pairs]
        assert len({*sums}) == len(pairs)


def test_mps_is_refused_where_it_lacks_a_derivative(monkeypatch):
    monkeypatch.setattr(torch.mps, "is_available", lambda: True, raising=False)
    with pytest.raises(ValueError, match="max pooling"):
        binarygan.Options(device="mps", arch="cnn")
    assert binarygan.Options(device="mps", arch="cnn", objective="gan").arch == "cnn"


# ---- precision ----------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ["mlp", "cnn"])
@pytest.mark.parametrize("able", ["amx_bf16", "avx512_bf16", ""])
def test_reduced_precision_is_that_of_training_alone(short, monkeypatch, arch, able):
    """A processor without bf16 would be slower: it keeps full precision, to the last bit."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {able: True}, raising=False)
    run = short("binarygan")
    seen = []

    def watch(name):
        function = getattr(binarygan, name)

        def watched(*args):
            bf16 = isinstance(args[0], nn.Module) and "forward" in vars(args[0])
            seen.append((name, torch.get_float32_matmul_precision(), bf16))
            return function(*args)
        monkeypatch.setattr(binarygan, name, watched)

    for name in ("generator_loss", "sample", "mean_score"):
        watch(name)
    monkeypatch.setattr(common, "label_statistics", lambda *_: seen.append(
        ("labels", torch.get_float32_matmul_precision(), False)) or {})
    before = torch.get_float32_matmul_precision()
    outs = [run("--arch", arch, "--epochs", "2", "--precision", precision, out=precision)
            for precision in ("full", "reduced")]
    assert torch.get_float32_matmul_precision() == before
    full, reduced = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert {item[1:] for item in full} == {(before, False)}
    assert {name for name, *_ in full} == {"generator_loss", "sample", "mean_score", "labels"}
    assert reduced == ([("generator_loss", "medium", arch == "cnn") if item[0] == "generator_loss"
                        else item for item in full] if able else full)

    a, b = map(checkpoint, outs)
    assert all(tensor.dtype == torch.float32 for tensor in b["G"].values())
    same = all(torch.equal(a[name][key], b[name][key]) for name in ("G", "D") for key in a[name])
    assert same != bool(able) or arch == "mlp" and able  # whose bf16 the machine must have
    for ours, theirs in zip(a["log"], b["log"]):
        assert ours[1:] == pytest.approx(theirs[1:], rel=0.02, abs=0.01)


def test_the_scores_of_a_convolutional_critic_are_averaged_in_float32():
    """In bf16 they would be rounded, and weights cast once would stay as they were."""
    torch.manual_seed(0)
    D = binarygan.discriminator("cnn", "none")
    images = torch.rand(6, 784)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
        with common.training_precision("reduced", D):
            scores = D(images)
            assert scores.dtype == torch.float32
            assert torch.equal(scores, scores.bfloat16().float())  # they were computed in bf16
            with torch.no_grad():
                D[-1].bias += 1
            assert torch.allclose(D(images), scores + 1, atol=0.01)
    after = D(images)
    assert not torch.equal(after, after.bfloat16().float())
