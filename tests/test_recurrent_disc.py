"""Tests of recurrent_disc.py: networks, objectives, and the training written out once more."""

import json

import numpy
import pytest
import scipy.special
import scipy.stats
import torch
from conftest import build, checkpoint
from PIL import Image
from torch import nn

import common
import recurrent_disc as recurrent

CPU = torch.device("cpu")


# ---- networks -----------------------------------------------------------------------------------


def test_output_i_depends_on_images_1_to_i():
    torch.manual_seed(0)
    D, sets = recurrent.Discriminator(784).double(), torch.rand(3, 5, 784).double()
    logits = D(sets)
    assert logits.shape == (3, 5)
    for place in range(5):
        changed = sets.clone()
        changed[:, place] = torch.rand(3, 784)
        differs = D(changed) != logits
        assert not differs[:, :place].any() and differs[:, place:].all()
        assert torch.allclose(D(sets[:, : place + 1]), logits[:, : place + 1], rtol=1e-12)


def test_discriminator_is_an_lstm_with_a_dense_readout():
    """Cell by cell, after Hochreiter and Schmidhuber with forget gates."""
    D, sets = recurrent.Discriminator(7).double(), torch.rand(2, 3, 7).double()
    w, u, b, c = (p.detach().numpy() for p in D.lstm.parameters())
    h, state, sigmoid = numpy.zeros((2, 256)), numpy.zeros((2, 256)), scipy.special.expit
    for i in range(3):
        gates = sets[:, i].numpy() @ w.T + h @ u.T + b + c
        enter, forget, new, leave = numpy.split(gates, 4, axis=1)
        state = sigmoid(forget) * state + sigmoid(enter) * numpy.tanh(new)
        h = sigmoid(leave) * numpy.tanh(state)
        expected = h @ D.readout.weight.detach().numpy().T + D.readout.bias.item()
        assert numpy.allclose(D(sets)[:, i].detach(), expected[:, 0])


def test_generator():
    G = recurrent.generator().double()
    z = torch.randn(2, 3, 100).double()
    h = z
    for layer in (G[0], G[2]):
        assert layer.out_features == 256
        h = torch.tanh(nn.functional.linear(h, layer.weight, layer.bias))
    assert torch.allclose(G(z), torch.sigmoid(nn.functional.linear(h, G[4].weight, G[4].bias)))
    assert sum(w.numel() for w in G.parameters()) == 101 * 256 + 257 * 256 + 257 * 784
    assert sum(w.numel() for w in recurrent.Discriminator(784).parameters()) == (
        4 * 256 * (784 + 256 + 2) + 257)


def test_initial_weights_are_those_of_keras(run):
    """Uniform within sqrt(6 / (inputs + outputs)), by gate; recurrent ones 1.1 times orthogonal."""
    torch.manual_seed(0)
    D, G = recurrent.Discriminator(784).apply(recurrent.initialize), recurrent.generator()
    G.apply(recurrent.initialize)
    dense = [layer for layer in (*G, D.readout) if isinstance(layer, nn.Linear)]
    gates = [D.lstm.weight_ih_l0[i : i + 256] for i in range(0, 1024, 256)]
    for w in (*gates, *(layer.weight for layer in dense)):
        bound = (6 / sum(w.shape)) ** 0.5
        assert 0.97 * bound < w.abs().max() <= bound
        assert w.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
    assert not any(layer.bias.any() for layer in dense)
    for i in range(0, 1024, 256):
        u = D.lstm.weight_hh_l0[i : i + 256]
        assert torch.allclose(u @ u.T, 1.21 * torch.eye(256), atol=1e-5)
    # only the forget gate, the second, begins open: of two biases one is 1
    b = (D.lstm.bias_ih_l0 + D.lstm.bias_hh_l0).view(4, 256)
    assert b.eq(torch.tensor([[0.0], [1], [0], [0]])).all()
    # and a training begins with them
    saved = checkpoint(run(epochs=1))
    b = saved["D"]["lstm.bias_ih_l0"].view(4, 256)
    assert (b - torch.tensor([[0.0], [1], [0], [0]])).abs().max() < 0.01
    assert saved["G"]["0.bias"].abs().max() < 0.01


# ---- objectives and schedule --------------------------------------------------------------------


def test_cross_entropy_against_its_definition():
    logits = torch.randn(6, 4).double() * 5
    D = scipy.special.expit(logits.numpy())
    for target in (0, 0.9, 1):
        expected = -(target * numpy.log(D) + (1 - target) * numpy.log(1 - D)).mean()
        assert recurrent.cross_entropy(logits, target).item() == pytest.approx(expected)
    assert recurrent.cross_entropy(torch.tensor([-1000.0]), 1).item() == 1000  # no underflow


def test_losses_against_their_definitions():
    D = recurrent.Discriminator(6).double()
    real, fake = torch.rand(5, 3, 6).double(), torch.rand(5, 3, 6).double()
    on_real, on_fake = (scipy.special.expit(D(sets).detach().numpy()) for sets in (real, fake))
    expected = -(0.9 * numpy.log(on_real) + 0.1 * numpy.log(1 - on_real)).mean()
    expected -= numpy.log(1 - on_fake).mean()
    assert recurrent.discriminator_loss(D, real, fake).item() == pytest.approx(expected)
    assert recurrent.generator_loss(D, fake).item() == pytest.approx(-numpy.log(on_fake).mean())


def test_l1_norm_by_hand():
    D, G = recurrent.Discriminator(3), recurrent.generator()
    for network in (D, G):
        for w in network.parameters():
            nn.init.constant_(w, -0.5)
    assert recurrent.l1_norm(D).item() == (4 * 256 * 3 + 4 * 256 * 256 + 256) / 2
    assert recurrent.l1_norm(G).item() == (100 * 256 + 256 * 256 + 256 * 784) / 2
    (recurrent.l1_norm(D)).backward()
    assert (D.lstm.weight_hh_l0.grad == -1).all() and D.lstm.bias_hh_l0.grad is None


@pytest.mark.parametrize("rate, decay", [(3e-4, 1e-4), (1e-4, 4e-4)])
def test_decay_of_the_rates(rate, decay):
    for step in (0, 1, 10, 2500, 39_999):
        expected = rate / (1 + decay * step)
        assert recurrent.learning_rate(rate, decay, step) == pytest.approx(expected)


def test_settings_are_the_authors():
    assert (recurrent.RATE_D, recurrent.DECAY_D, recurrent.L1_D) == (3e-4, 1e-4, 1e-5)
    assert (recurrent.RATE_G, recurrent.DECAY_G, recurrent.L1_G) == (1e-4, 4e-4, 1e-6)
    assert (recurrent.TARGET, recurrent.D_STEPS, recurrent.STEPS_PER_EPOCH) == (0.9, 4, 1000)
    options = recurrent.Options()
    assert (options.set_size, options.batch_size, options.epochs) == (4, 64, 10)
    for name, network in (("opt_d", "D"), ("opt_g", "G")):
        state = build(recurrent, options)
        (group,) = state[name].param_groups
        assert group["betas"] == (0.9, 0.999) and group["weight_decay"] == 0
        assert [*map(id, group["params"])] == [*map(id, state[network].parameters())]


# ---- the algorithm ------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch, data, tmp_path):
    """run(set_size=4) trains on little data, and gives the folder."""
    few = (*data[:2], data[2][:100], data[3][:100])
    monkeypatch.setattr(common, "load_images", lambda root, dataset, size, device: (
        few[0][:size or None], few[1][:size or None], *few[2:]))
    monkeypatch.setattr(recurrent, "SAMPLES", 100)
    monkeypatch.setattr(recurrent, "STEPS_PER_EPOCH", 3)

    def run(**change):
        recurrent.train(recurrent.Options(train_size=256, batch_size=16, device="cpu", **change),
                        tmp_path / "run")
        return tmp_path / "run"
    return run


def test_training_against_the_paper_written_out(run, monkeypatch, data):
    """Two epochs once more, with every loss, every rate and every norm by its formula.

    Decay and norms are larger than the author's, so that they show after so few steps.
    """
    rates, norms = {"D": (1e-3, 0.5), "G": (2e-3, 0.25)}, {"D": 2e-2, "G": 1e-2}
    for player in ("D", "G"):
        monkeypatch.setattr(recurrent, f"RATE_{player}", rates[player][0])
        monkeypatch.setattr(recurrent, f"DECAY_{player}", rates[player][1])
        monkeypatch.setattr(recurrent, f"L1_{player}", norms[player])
    trained, begin = {}, common.begin
    monkeypatch.setattr(common, "begin", lambda out, options, state, *a: trained.update(state)
                        or begin(out, options, state, *a))
    out = run(epochs=2, set_size=2, seed=7)

    options = recurrent.Options(seed=7)
    monkeypatch.setattr(common, "begin", begin)
    new = build(recurrent, options)
    G, D = new["G"], new["D"]
    optimizers = {"D": torch.optim.Adam(D.parameters()), "G": torch.optim.Adam(G.parameters())}
    done, losses = {"D": 0, "G": 0}, []

    def step(player, network, loss):
        first, decay = rates[player]
        optimizers[player].param_groups[0]["lr"] = first / (1 + decay * done[player])
        done[player] += 1
        for name, w in network.named_parameters():
            loss = loss + norms[player] * w.abs().sum() * ("weight" in name)
        for w in network.parameters():
            w.grad = None
        gradients = torch.autograd.grad(loss, [*network.parameters()])
        for w, gradient in zip(network.parameters(), gradients):
            w.grad = gradient
        optimizers[player].step()

    for epoch in (0, 1):
        torch.manual_seed(8_000_000 + epoch)
        order = None
        for _ in range(3):
            z = torch.randn(4 * 16, 100)
            order = torch.randperm(256) if order is None else order
            for i in range(4):
                fake = G(z[16 * i:][:16]).detach()
                real, order = data[0][order[:16]], order[16:]
                y_real, y_fake = (torch.sigmoid(D(x.reshape(8, 2, 784))) for x in (real, fake))
                d_loss = (-(0.9 * y_real.log() + 0.1 * (1 - y_real).log()).mean()
                          - (1 - y_fake).log().mean())
                step("D", D, d_loss)
            g_loss = -torch.sigmoid(D(G(torch.randn(16, 100)).reshape(8, 2, 784))).log().mean()
            step("G", G, g_loss)
            losses.append([d_loss.item(), g_loss.item()])
            if len(order) < 4 * 16:
                assert len(order) == 256 - 3 * 64  # the last three steps of an epoch fit in a pass

    saved = checkpoint(out)
    for player, network in (("D", D), ("G", G)):
        initial = build(recurrent, options)[player].state_dict()
        for name, w in network.state_dict().items():
            far = (w - saved[player][name]).abs() > 1e-5
            assert far.float().mean() < 0.01, (player, name)  # where a gradient is about zero
            assert not torch.equal(initial[name], w)
    for ours, (_, *logged) in zip(numpy.array(losses).reshape(2, 3, 2).mean(1), saved["log"]):
        assert logged == pytest.approx(ours.tolist(), rel=1e-4)
    # G's last step left D's gradients as D's last step had made them
    assert torch.allclose(trained["D"].readout.weight.grad, D.readout.weight.grad, atol=1e-6)


@pytest.mark.parametrize("size", [1, 4, 8])
def test_sets_hold_distinct_images_of_one_kind(run, monkeypatch, data, size):
    seen, loss = [], recurrent.discriminator_loss
    monkeypatch.setattr(recurrent, "discriminator_loss", lambda D, real, fake: (
        seen.append((real, fake)) or loss(D, real, fake)))
    run(epochs=1, set_size=size)
    assert len(seen) == 3 * 4
    train_x = data[0][:256]
    for real, fake in seen:
        assert real.shape == fake.shape == (16 // size, size, 784)
        equal = (real.view(16, 1, 784) == train_x).all(2)
        assert (equal.sum(1) == 1).all()  # each is a training image
        assert (equal.sum(0) <= 1).all()  # and none is there twice
        assert len(fake.view(16, 784).unique(dim=0)) == 16
        assert not (fake.view(16, 1, 784) == train_x).all(2).any() and not fake.requires_grad
    real = torch.cat([real.flatten(0, 1) for real, _ in seen])
    assert len(real.unique(dim=0)) == len(real)  # all of one pass over the training images
    fakes = torch.cat([fake.flatten(0, 1) for _, fake in seen])
    assert len(fakes.unique(dim=0)) == len(fakes)


# ---- results and figures ------------------------------------------------------------------------


def test_results_are_right(run, data):
    """Every number once more, from the checkpoint, with all distances written out."""
    out = run(epochs=1, seed=5)
    results, G = json.loads((out / "results.json").read_text()), recurrent.generator()
    G.load_state_dict(checkpoint(out)["G"])
    train_x, train_y, test_x, test_y = data[0][:256], data[1][:256], data[2][:100], data[3][:100]
    torch.manual_seed(5)
    with torch.no_grad():
        samples = G(torch.randn(100, 100))
    distance, index = torch.cdist(samples.double(), train_x.double()).min(1)
    shares = numpy.bincount(train_y[index], minlength=10) / 100
    assert numpy.allclose(results["class_distribution"], shares)
    assert results["digits"] == (shares > 0.0199).sum()
    train = numpy.bincount(train_y, minlength=10) / 256
    assert results["kl"] == pytest.approx(scipy.stats.entropy(shares, train), rel=1e-4)
    assert results["median_distance"] == pytest.approx(distance.median().item(), rel=1e-4)
    distance, index = torch.cdist(test_x.double(), train_x.double()).min(1)
    assert results["median_distance_of_test_images"] == pytest.approx(distance.median().item(),
                                                                      rel=1e-4)
    assert results["label_accuracy_on_test_images"] == pytest.approx(
        (train_y[index] == test_y).float().mean().item())
    assert results["parameters_G"] == sum(w.numel() for w in G.parameters())
    assert results["parameters_D"] == 4 * 256 * (784 + 256 + 2) + 257
    grid = torch.from_numpy(numpy.array(Image.open(out / "figures4-6-k4.png").convert("L")))
    assert grid.shape == (10 * 58 + 2, 10 * 58 + 2)
    tiles = grid[2:, 2:].reshape(10, 58, 10, 58)[:, :56:2, :, :56:2]
    tiles = tiles.permute(0, 2, 1, 3).reshape(100, 784)
    assert (tiles / 255 - samples).abs().max() < 0.003  # the same samples


def test_sampling_leaves_the_random_stream_as_it_was():
    G = recurrent.generator()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    images = recurrent.sample(G, 5, 9)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(images, recurrent.sample(G, 5, 9))
    assert not torch.equal(images, recurrent.sample(G, 5, 8))


@pytest.mark.parametrize("batch_size, set_size", [(64, 3), (64, 128), (2, 4)])
def test_a_minibatch_is_a_whole_number_of_sets(batch_size, set_size):
    with pytest.raises(ValueError, match=f"--batch-size: {batch_size} is not a multiple of "
                                         f"--set-size {set_size}"):
        recurrent.Options(batch_size=batch_size, set_size=set_size)
