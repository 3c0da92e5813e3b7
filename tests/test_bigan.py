"""Tests of bigan.py and cbigan.py: the mathematics, and who learns from what."""

import csv
import math

import numpy
import pytest
import scipy.special
import scipy.stats
import torch
from conftest import assert_same, build, checkpoint
from torch import nn

import bigan
import cbigan
import common

CPU = torch.device("cpu")
SCRIPTS = {"bigan": (bigan, {}), "simple": (cbigan, {"variant": "simple"}),
           "extended": (cbigan, {"variant": "extended"})}


once_a_script = pytest.mark.parametrize("script", ["bigan", "simple"], indirect=True)


@pytest.fixture(params=SCRIPTS)
def script(request):
    """A script, and the options that choose one of its models."""
    return SCRIPTS[request.param]


@pytest.fixture
def narrow(monkeypatch):
    """Hidden layers of 64 neurons, which take less time."""
    for module in (bigan, cbigan):
        monkeypatch.setattr(module, "HIDDEN", 64)


@pytest.fixture
def double(monkeypatch):
    """Double precision throughout: single rounds enough to turn a leaky ReLU over."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def new(module, chosen, **more):
    """Networks, averages and optimizers, new."""
    return build(module, module.Options(**chosen, **more))


def labels_of(module, y):
    """What G and D take besides: nothing, or the labels (N,) as one-hot rows."""
    return [] if module is bigan else [torch.eye(10)[y]]


def batches_of(module, data, size):
    """Minibatches of the first images, as train_epoch takes them."""
    for x, y in zip(data[0].split(size), data[1].split(size)):
        yield x if module is bigan else (x, torch.eye(10)[y])


def one_epoch(module, state, batches, steps, decay=0.9):
    networks = [state[name] for name in ("E", "G", "D", "average_E", "average_G")]
    return list(module.train_epoch(*networks, state["opt_eg"], state["opt_d"], batches, steps,
                                   decay))


# ---- objective ----------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [bigan, cbigan])
def test_losses_against_their_formulas(module):
    real_score, fake_score = torch.randn(50, 1).double() * 4, torch.randn(50, 1).double() * 4
    real, fake = (scipy.special.expit(logits.numpy()) for logits in (real_score, fake_score))
    d_loss = module.discriminator_loss(real_score, fake_score)
    eg_loss = module.encoder_generator_loss(real_score, fake_score)
    assert d_loss.item() == pytest.approx(-(numpy.log(real) + numpy.log(1 - fake)).mean())
    assert eg_loss.item() == pytest.approx(-(numpy.log(fake) + numpy.log(1 - real)).mean())
    sure = torch.tensor([[-1000.0]])  # where log(sigmoid) would be minus infinity
    assert module.discriminator_loss(sure, -sure) == 2000
    assert module.encoder_generator_loss(sure, -sure) == 0


@pytest.mark.parametrize("code_of, image_of, divergence", [
    ([2, 0, 3, 1], [1, 3, 0, 2], 0.0),               # E and G are each other's inverses
    ([2, 0, 3, 1], [0, 1, 2, 3], math.log(2)),       # no pair is common to both
    ([2, 0, 3, 1], [1, 3, 2, 0], math.log(2) / 2)])  # half of the pairs are
def test_value_of_the_best_discriminator(code_of, image_of, divergence):
    """Four images and four codes, all equally likely; D is a table of 16 logits, trained.

    Its value is -log 4 + 2 JSD of the two distributions of pairs: least, -log 4, where E = G^-1.
    """
    table = torch.zeros(4, 4, dtype=torch.float64, requires_grad=True)
    points = torch.arange(4)
    optimizer = torch.optim.Adam([table], 0.3)
    for _ in range(300):
        d_loss = bigan.discriminator_loss(table[points, torch.tensor(code_of)],
                                          table[torch.tensor(image_of), points])
        optimizer.zero_grad()
        d_loss.backward()
        optimizer.step()
    assert -d_loss.item() == pytest.approx(-math.log(4) + 2 * divergence, abs=5e-3)


# ---- networks -----------------------------------------------------------------------------------


def linear(inputs, outputs):
    return (inputs + 1) * outputs


def mlp(inputs, outputs):
    return linear(inputs, 1024) + linear(1024, 1024) + 2 * 1024 + linear(1024, outputs)


def test_parameter_counts(script):
    module, chosen = script
    expected = {
        None: (mlp(784, 50), mlp(50, 784), mlp(784 + 50, 1)),
        "simple": (mlp(784, 50), mlp(50 + 10, 784), mlp(784 + 50 + 10, 1)),
        "extended": (mlp(784, 50),
                     linear(50, 200) + linear(10, 800) + mlp(200 + 800, 784),
                     linear(784, 1000) + linear(50, 200) + linear(10, 800)
                     + mlp(1000 + 200 + 800, 1)),
    }[chosen.get("variant")]
    state = new(module, chosen)
    assert tuple(sum(w.numel() for w in state[name].parameters()) for name in "EGD") == expected


@pytest.mark.parametrize("init", ["fan-in", "paper"])
def test_initial_weights_and_activations(script, init):
    module, chosen = script
    state = new(module, chosen | ({} if module is bigan else {"dense_init": init}))
    for name, slope in (("E", 0.2), ("G", 0.0), ("D", 0.2)):
        for key, layer in state[name].named_modules():
            if isinstance(layer, nn.Linear):
                additional = not key.startswith("core")  # the extended variant's first layers
                std = layer.in_features**-0.5 if additional and init == "fan-in" else 0.02
                assert layer.weight.std().item() == pytest.approx(std, rel=0.05)
                assert abs(layer.weight.mean().item()) < 5 * std / layer.weight.numel()**0.5
                assert (layer.bias == 0).all()
        seen = [layer for layer in state[name].modules()
                if isinstance(layer, (nn.ReLU, nn.LeakyReLU))]
        assert {layer(torch.tensor(-5.0)).item() for layer in seen} == {-5 * slope}
        norms = [i for i, layer in enumerate(state[name].core)
                 if isinstance(layer, nn.BatchNorm1d)]
        assert norms == [3]  # after the second linear layer, before its activation


def test_inputs_are_concatenated_in_order():
    x, z, c = torch.rand(3, 784), torch.randn(3, 50), torch.eye(10)[:3]
    D = bigan.Discriminator().eval()
    assert torch.equal(D(x, z), D.core(torch.cat([x, z], 1)))
    G, D = cbigan.Generator("simple").eval(), cbigan.Discriminator("simple").eval()
    assert torch.equal(G(z, c), torch.sigmoid(G.core(torch.cat([z, c], 1))))
    assert torch.equal(D(x, z, c), D.core(torch.cat([x, z, c], 1)))
    G, D = cbigan.Generator("extended").eval(), cbigan.Discriminator("extended").eval()
    relu = torch.cat([layer(value).clamp(min=0) for layer, value in ((G.z[0], z), (G.c[0], c))], 1)
    assert torch.equal(G(z, c), torch.sigmoid(G.core(relu)))
    leaky = torch.cat([nn.functional.leaky_relu(layer[0](value), 0.2)
                       for layer, value in ((D.x, x), (D.z, z), (D.c, c))], 1)
    assert torch.equal(D(x, z, c), D.core(leaky))


def test_labels_are_one_hot():
    assert torch.equal(cbigan.one_hot(torch.tensor([3, 0, 9])), torch.eye(10)[[3, 0, 9]])


# ---- the algorithm ------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [bigan, cbigan])
def test_codes_are_uniform_on_the_cube(module):
    z = module.sample_z(4000, CPU)
    assert z.shape == (4000, 50) and z.min() >= -1 and z.max() <= 1
    assert scipy.stats.kstest(z.flatten(), scipy.stats.uniform(-1, 2).cdf).pvalue > 1e-4
    assert torch.equal(module.fixed_z(5, CPU, 7), module.fixed_z(5, CPU, 7))
    torch.manual_seed(8)
    stream = torch.get_rng_state()
    module.fixed_z(5, CPU, 7)
    assert torch.equal(torch.get_rng_state(), stream)


def test_a_step_moves_each_player_by_its_own_loss_alone(script, narrow, double, data):
    """One step of the algorithm against one step of each player with the others frozen."""
    module, chosen = script
    few = data[0][:8].double(), data[1][:8]
    moved, expected = new(module, chosen), new(module, chosen)
    torch.manual_seed(1)
    (row,) = one_epoch(module, moved, batches_of(module, few, 8), range(1))

    torch.manual_seed(1)
    x, c = few[0], labels_of(module, few[1])
    z = 2 * torch.rand(8, 50) - 1
    E, G, D = (expected[name] for name in "EGD")
    with torch.no_grad():
        code, image = E(x), G(z, *c)
    real, fake = torch.sigmoid(D(x, code, *c)), torch.sigmoid(D(image, z, *c))
    d_loss = -(torch.log(real) + torch.log(1 - fake)).mean()
    d_loss.backward()
    expected["opt_d"].step()
    D.requires_grad_(False)  # E and G step against the discriminator after its step
    real, fake = torch.sigmoid(D(x, E(x), *c)), torch.sigmoid(D(G(z, *c), z, *c))
    eg_loss = -(torch.log(fake) + torch.log(1 - real)).mean()
    eg_loss.backward()
    assert row.tolist() == pytest.approx([d_loss.item(), eg_loss.item()], rel=1e-12)
    for player in "EGD":
        for name, w in expected[player].named_parameters():
            gradient = moved[player].get_parameter(name).grad
            difference = (w.grad - gradient).norm()  # a bias before batch norm has gradient 0
            assert difference < 1e-6 * gradient.norm() + 1e-12, (player, name)


def test_optimizers_are_the_papers(script):
    module, chosen = script
    state = new(module, chosen, lr=3e-4, weight_decay=1e-5)
    for name, networks in (("opt_d", "D"), ("opt_eg", "EG")):
        (group,) = state[name].param_groups
        assert (group["lr"], group["betas"], group["weight_decay"]) == (3e-4, (0.5, 0.999), 1e-5)
        assert ({id(w) for w in group["params"]}
                == {id(w) for network in networks for w in state[network].parameters()})


def test_discriminator_has_no_running_statistics(script):
    module, chosen = script
    assert not [*new(module, chosen)["D"].buffers()]


@pytest.mark.parametrize("module", [bigan, cbigan])
def test_learning_rate_decays_to_a_hundredth(module):
    rates = [module.learning_rate(2e-4, 200, epoch) for epoch in (0, 200, 300, 400)]
    assert rates == pytest.approx([2e-4, 2e-4, 2e-5, 2e-6])
    assert module.learning_rate(2e-4, 0, 399) == 2e-4


@pytest.mark.parametrize("module", [bigan, cbigan])
def test_ema_of_weights_and_running_statistics(module):
    network, average = module.Encoder(), module.Encoder().eval()
    start = average.core[0].weight.clone()
    network(torch.rand(8, 784))  # updates the running statistics
    module.update_ema(average, network, 0.9)
    assert torch.allclose(average.core[0].weight, 0.9 * start + 0.1 * network.core[0].weight)
    assert torch.allclose(average.core[3].running_var, 0.9 + 0.1 * network.core[3].running_var)
    module.update_ema(average, network, 0)
    assert_same({name: w for name, w in average.state_dict().items() if w.is_floating_point()},
                {name: w for name, w in network.state_dict().items() if w.is_floating_point()})


@pytest.mark.parametrize("decay", [0.5, 0.0])
def test_ema_warms_up(script, narrow, data, decay):
    """Its decay is (1 + step) / (10 + step), until that exceeds the decay chosen."""
    module, chosen = script
    state = new(module, chosen)
    players = {"E": state["average_E"], "G": state["average_G"]}
    expected = {name: average.core[0].weight.clone() for name, average in players.items()}
    batches = batches_of(module, (data[0][:80], data[1][:80]), 16)
    networks = [state[name] for name in ("E", "G", "D", "average_E", "average_G")]
    for step, _ in zip(range(5, 10), module.train_epoch(
            *networks, state["opt_eg"], state["opt_d"], batches, range(5, 10), decay)):
        weight = min(decay, (1 + step) / (10 + step))
        for name, average in players.items():
            now = state[name].core[0].weight.detach()
            expected[name] = weight * expected[name] + (1 - weight) * now
            assert torch.allclose(average.core[0].weight, expected[name], atol=1e-7), (step, name)
            if decay == 0:
                assert torch.equal(average.core[0].weight, now)


# ---- evaluation and figures ---------------------------------------------------------------------


def test_scores_against_all_distances(script, narrow, data):
    """With networks whose codes and images differ widely, as those of few steps do not."""
    module, chosen = script
    state = new(module, chosen)
    torch.manual_seed(1)
    E, G = state["average_E"], state["average_G"]
    for network in (E, G):
        for w in network.parameters():
            w.data = torch.randn_like(w)
    train_x, train_y, test_x, test_y = data[0][:2000], data[1][:2000], data[2][:500], data[3][:500]
    hidden, code = [], []
    with torch.no_grad():
        for x in (train_x, test_x):
            h = nn.functional.leaky_relu(nn.functional.linear(x, E.core[0].weight, E.core[0].bias),
                                         0.2)
            h = nn.functional.linear(h, E.core[2].weight, E.core[2].bias) / (1 + 1e-5)**0.5
            hidden.append(nn.functional.leaky_relu(h * E.core[3].weight + E.core[3].bias, 0.2))
            code.append(nn.functional.linear(hidden[-1], E.core[5].weight, E.core[5].bias))
            assert torch.allclose(code[-1], E(x), rtol=1e-3, atol=1e-2 * code[-1].std().item())
        reconstruction = G(code[1], *labels_of(module, test_y))
    accuracy = [(train_y[torch.cdist(test.double(), train.double()).argmin(1)] == test_y)
                .float().mean().item() for train, test in (code, hidden)]
    assert accuracy[0] != accuracy[1]
    previous = test_x[[i - 1 for i in range(500)]]
    distances = [numpy.linalg.norm(x - reconstruction, axis=1).mean() for x in (test_x, previous)]
    scores = module.score(E, G, train_x, train_y, test_x, test_y)
    assert scores[:2] == pytest.approx(accuracy, abs=0.0041)  # but for two near ties
    assert scores[2:] == pytest.approx(distances, rel=1e-5)


def test_pictures_show_two_images_of_each_digit(script, narrow, data):
    module, chosen = script
    state = new(module, chosen)
    E, G = state["average_E"], state["average_G"]
    rows = module.samples_and_reconstructions(E, G, data[2], data[3], 3).view(3, 20, 784)
    for i, image in enumerate(rows[1]):
        (index,) = (data[2] == image).all(1).nonzero().flatten().tolist()
        assert data[3][index] == i // 2
    c = labels_of(module, torch.arange(10).repeat_interleave(2))
    torch.manual_seed(3)
    assert torch.allclose(rows[0], G(2 * torch.rand(20, 50) - 1, *c))
    assert torch.allclose(rows[2], G(E(rows[1]), *c))


@pytest.mark.parametrize("variant", ["simple", "extended"])
def test_classes_have_a_row_for_each_digit(variant):
    G = cbigan.Generator(variant).eval()
    grid = cbigan.every_class(G, CPU, 3).view(10, 10, 784)
    torch.manual_seed(3)
    z = 2 * torch.rand(10, 50) - 1
    for digit in range(10):
        assert torch.allclose(grid[digit], G(z, torch.eye(10)[digit].expand(10, 10)))


@pytest.mark.parametrize("module", [bigan, cbigan])
def test_tsne_puts_neighbors_together(module):
    torch.manual_seed(0)
    codes = torch.cat([torch.randn(30, 50), torch.randn(30, 50) + 10])
    points = module.tsne(codes, 0)
    assert points.shape == (60, 2) and points.device == CPU
    nearest = (torch.cdist(points, points) + 1e9 * torch.eye(60)).argmin(1)
    assert torch.equal(nearest < 30, torch.arange(60) < 30)


# ---- runs ---------------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch, narrow, data, tmp_path, script):
    """Train on little data: run(out, **options) gives the run's folder and results."""
    module, chosen = script
    few = tuple(tensor[:100] for tensor in data)
    monkeypatch.setattr(common, "load_images", lambda root, dataset, size, device: (
        few[0][:size or None], few[1][:size or None], *few[2:]))
    monkeypatch.setattr(module, "SAMPLES", 100)
    monkeypatch.setattr(module, "tsne", lambda codes, seed: codes[:, :2])
    for picture in ("curves", "gif", "scatter"):  # most of the time, and not looked at here
        monkeypatch.setattr(common, f"save_{picture}", lambda *_, **__: None)

    def run(out, **options):
        options = module.Options(**chosen, train_size=64, batch_size=32, device="cpu", **options)
        resume = (tmp_path / out).exists()
        return tmp_path / out, module.train(options, tmp_path / out, resume)
    return run


def test_results_are_right(run, script, data):
    """Every number once more, from the checkpoint, with all distances written out."""
    module, chosen = script
    out, results = run("run", epochs=1, average=0)
    saved = checkpoint(out)
    train_x, train_y, test_x, test_y = data[0][:64], data[1][:64], data[2][:100], data[3][:100]

    def label(queries, references):
        return train_y[torch.cdist(queries.double(), references.double()).argmin(1)]

    def share(equal):
        return equal.float().mean().item()

    state = new(module, chosen)
    E, G = state["E"].eval(), state["G"].eval()
    E.load_state_dict(saved["E"])
    G.load_state_dict(saved["G"])
    with torch.no_grad():
        assert results["1nn_accuracy_code"] == share(label(E(test_x), E(train_x)) == test_y)
        hidden = [E.core[4](E.core[3](E.core[2](E.core[1](E.core[0](x)))))
                  for x in (test_x, train_x)]
        assert results["1nn_accuracy_hidden"] == share(label(*hidden) == test_y)
        reconstruction = G(E(test_x), *labels_of(module, test_y))
        assert results["reconstruction_error"] == pytest.approx(
            numpy.linalg.norm(test_x - reconstruction, axis=1).mean(), rel=1e-5)
        other = torch.stack([test_x[i - 1] for i in range(100)])
        assert results["error_to_another_image"] == pytest.approx(
            numpy.linalg.norm(other - reconstruction, axis=1).mean(), rel=1e-5)
        assert results["reconstruction_label_accuracy"] == share(
            label(reconstruction, train_x) == test_y)
        assert results["label_accuracy_on_test_images"] == share(label(test_x, train_x) == test_y)

        torch.manual_seed(0)
        z, digits = 2 * torch.rand(100, 50) - 1, torch.arange(100) % 10
        samples = G(z, *labels_of(module, digits))
        labels = label(samples, train_x)
    assert results["median_distance"] == pytest.approx(
        torch.cdist(samples, train_x).min(1).values.median().item(), rel=1e-4)
    shares = numpy.bincount(labels, minlength=10) / 100
    train = numpy.bincount(train_y, minlength=10) / 64
    assert numpy.allclose(results["class_distribution"], shares)
    assert results["kl"] == pytest.approx(scipy.stats.entropy(shares, train), rel=1e-4)
    if module is cbigan:
        assert results["sample_label_accuracy"] == share(labels == digits)
    for name in "EGD":
        assert results[f"parameters_{name}"] == sum(w.numel() for w in state[name].parameters())


@once_a_script
def test_an_epoch_has_every_image_once_with_its_label(run, script, data, monkeypatch):
    module, _ = script
    seen, train_epoch = [], module.train_epoch

    def spy(E, G, D, average_E, average_G, opt_eg, opt_d, batches, steps, decay):
        def recorded():
            for batch in batches:
                seen.append(batch if module is cbigan else (batch, None))
                yield batch
        return train_epoch(E, G, D, average_E, average_G, opt_eg, opt_d, recorded(), steps, decay)

    monkeypatch.setattr(module, "train_epoch", spy)
    run("run", epochs=2)
    assert len(seen) == 4
    orders = []
    for epoch in (seen[:2], seen[2:]):
        x = torch.cat([batch[0] for batch in epoch])
        order = (x[:, None] == data[0][:64]).all(2).long().argmax(1)
        assert order.sort().values.tolist() == list(range(64))
        orders.append(order.tolist())
        if module is cbigan:
            c = torch.cat([batch[1] for batch in epoch])
            assert torch.equal(c, torch.eye(10)[data[1][order]])
    assert orders[0] != orders[1]


@once_a_script
def test_last_epoch_is_scored_and_a_continued_run_forgets_it(run, script, monkeypatch):
    module, _ = script
    monkeypatch.setattr(module, "SCORE_EVERY", 3)
    out, results = run("part", epochs=2)
    rows = list(csv.DictReader((out / "scores.csv").open()))
    assert [row.pop("epoch") for row in rows] == ["0", "2"]
    assert {name: float(value) for name, value in rows[1].items()} == {
        name: results[name] for name in module.SCORES}
    run("part", epochs=4)
    whole, _ = run("whole", epochs=4)
    for folder in (out, whole):
        rows = list(csv.DictReader((folder / "scores.csv").open()))
        assert [row["epoch"] for row in rows] == ["0", "3", "4"]
        assert [row[0] for row in checkpoint(folder)["scores"]] == [0, 3]
    assert_same(checkpoint(out), checkpoint(whole))


@once_a_script
def test_interrupted_while_scoring(run, script, monkeypatch):
    """The epoch before is kept, and the run that continues is as if it had not been stopped."""
    module, _ = script
    whole, _ = run("whole", epochs=2)
    calls, score = [], module.score

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 2:  # the first is that of epoch 0
            raise KeyboardInterrupt
        return score(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "score", interrupted)
        run("part", epochs=2)
    out, results = run("part", epochs=2)
    assert_same(checkpoint(whole), checkpoint(out))
    for name in ("scores.csv", "samples/epoch-002.png"):
        assert (whole / name).read_bytes() == (out / name).read_bytes()
    assert len(calls) == 2 and results["1nn_accuracy_code"] >= 0
