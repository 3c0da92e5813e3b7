"""Tests of recurrent_disc_toy.py: the mathematics, then the programs as their users meet them."""

import csv
import itertools
import json
import math
import re
from fractions import Fraction

import numpy
import pytest
import scipy.special
import scipy.stats
import torch
from conftest import assert_same, checkpoint
from PIL import Image
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

import recurrent_disc_toy as recurrent

CPU = torch.device("cpu")


# ---- what is known ------------------------------------------------------------------------------


def posterior(categories):
    """Bayes' rule for one set of the toy, real and generated sets equally frequent."""
    real = generated = Fraction(1)
    for category in categories:
        real *= Fraction(1, 10)
        generated *= Fraction(1, 5) if category < 5 else 0
    return real / (real + generated)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_exact_output_against_bayes_rule_for_every_set(k):
    for categories in itertools.product(range(10), repeat=k):
        expected = 1 if max(categories) >= 5 else recurrent.likelihood(k)
        assert float(posterior(categories)) == pytest.approx(expected, rel=1e-12)


class Bayes(nn.Module):
    """In D's place: the exact logit after each sample, each set's number `wrong` aside."""

    def __init__(self, wrong=lambda categories: 0.0):
        super().__init__()
        self.readout, self.wrong = nn.Linear(1, 1), wrong

    def forward(self, sets):
        categories = sets.argmax(2).tolist()
        assert torch.equal(sets.sum(2), torch.ones(sets.shape[:2]))  # one-hot
        return torch.tensor([[scipy.special.logit(min(float(posterior(row[:k])) + self.wrong(
            row[:k]), 1 - 1e-9)) for k in range(1, len(row) + 1)] for row in categories])


@pytest.mark.parametrize("size", [1, 3])
def test_tables_of_an_exact_discriminator(size):
    rows, missing = recurrent.toy_tables(Bayes(), size)
    assert [row["k"] for row in rows] == [*range(1, size + 1)]
    for row in rows:
        expected = Fraction(1, 2 ** row["k"] + 1)
        for name in ("exact", "mean", "lowest", "highest"):
            assert row[name] == pytest.approx(float(expected), abs=1e-6)
        assert row["worst_error"] == pytest.approx(0, abs=1e-6)
    places = [(row["place"], row["k"]) for row in missing]
    assert places == [(i, k) for i in range(1, size + 1) for k in range(i, size + 1)]
    assert all(row["lowest"] == pytest.approx(1, abs=1e-6) for row in missing)


def test_tables_find_the_one_set_that_is_wrong():
    """Of all 125 sets, and of the 25 x 5 with a missing category in the second place."""
    rows, _ = recurrent.toy_tables(Bayes(lambda row: -0.1 * (row == [0, 0, 1])), 3)
    assert rows[2]["worst_error"] == pytest.approx(0.1, abs=1e-6)
    assert rows[2]["lowest"] == pytest.approx(1 / 9 - 0.1, abs=1e-6)
    rows, _ = recurrent.toy_tables(Bayes(lambda row: 0.3 * (row == [4, 0, 3])), 3)
    assert rows[2]["worst_error"] == pytest.approx(0.3, abs=1e-6)
    assert rows[2]["mean"] == pytest.approx(1 / 9 + 0.3 / 125, abs=1e-6)
    assert rows[2]["highest"] == pytest.approx(1 / 9 + 0.3, abs=1e-6)
    assert rows[1]["worst_error"] == pytest.approx(0, abs=1e-6)
    _, missing = recurrent.toy_tables(Bayes(lambda row: -0.3 * (row == [4, 9, 3])), 3)
    lowest = {(row["place"], row["k"]): row["lowest"] for row in missing}
    mean = {(row["place"], row["k"]): row["mean"] for row in missing}
    assert lowest.pop((2, 3)) == pytest.approx(0.7, abs=1e-6)
    assert mean.pop((2, 3)) == pytest.approx(1 - 0.3 / 125, abs=1e-6)
    assert min(lowest.values()) == pytest.approx(1, abs=1e-6)


# ---- networks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("inputs", [10, 784])
def test_output_i_depends_on_samples_1_to_i(inputs):
    torch.manual_seed(0)
    D, sets = recurrent.Discriminator(inputs).double(), torch.rand(3, 5, inputs).double()
    logits = D(sets)
    assert logits.shape == (3, 5)
    for place in range(5):
        changed = sets.clone()
        changed[:, place] = torch.rand(3, inputs)
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


# ---- objectives and schedule --------------------------------------------------------------------


def test_cross_entropy_against_its_definition():
    logits = torch.randn(6, 4).double() * 5
    D = scipy.special.expit(logits.numpy())
    for target in (0, 0.9, 1):
        expected = -(target * numpy.log(D) + (1 - target) * numpy.log(1 - D)).mean()
        assert recurrent.cross_entropy(logits, target).item() == pytest.approx(expected)
    assert recurrent.cross_entropy(torch.tensor([-1000.0]), 1).item() == 1000  # no underflow


def test_discriminator_loss_against_its_definition():
    D = recurrent.Discriminator(6).double()
    real, fake = torch.rand(5, 3, 6).double(), torch.rand(5, 3, 6).double()
    on_real, on_fake = (scipy.special.expit(D(sets).detach().numpy()) for sets in (real, fake))
    for target in (0.9, 1):
        expected = -(target * numpy.log(on_real) + (1 - target) * numpy.log(1 - on_real)).mean()
        expected -= numpy.log(1 - on_fake).mean()
        loss = recurrent.discriminator_loss(D, real, fake, target)
        assert loss.item() == pytest.approx(expected)


def test_l1_norm_by_hand():
    D, G = recurrent.Discriminator(3), recurrent.generator()
    for network in (D, G):
        for w in network.parameters():
            nn.init.constant_(w, -0.5)
    assert recurrent.l1_norm(D).item() == (4 * 256 * 3 + 4 * 256 * 256 + 256) / 2
    assert recurrent.l1_norm(G).item() == (100 * 256 + 256 * 256 + 256 * 784) / 2
    (recurrent.l1_norm(D)).backward()
    assert (D.lstm.weight_hh_l0.grad == -1).all() and D.lstm.bias_hh_l0.grad is None


@pytest.mark.parametrize("player, first, decay", [("D", 3e-4, 1e-4), ("G", 1e-4, 4e-4)])
def test_decay_of_the_rates(player, first, decay):
    for step in (0, 1, 10, 2500, 39_999):
        assert recurrent.learning_rate(player, step) == pytest.approx(first / (1 + decay * step))


# ---- the toy ------------------------------------------------------------------------------------


def toy_run(out, *options):
    recurrent.main([*options, "--device", "cpu", "--out", str(out)])
    return out, json.loads((out / "results.json").read_text())


def test_toy_approaches_the_exact_outputs(tmp_path, monkeypatch):
    """Shortened; an output one depth off would be wrong by 0.08 and more."""
    monkeypatch.setattr(recurrent, "TOY_STEPS", 400)
    monkeypatch.setattr(recurrent, "TOY_SETS", 32)
    _, results = toy_run(tmp_path / "toy", "--set-size", "3")
    for row in results["figure3"]:
        assert row["mean"] == pytest.approx(float(posterior([0] * row["k"])), abs=0.04)
        assert row["worst_error"] < 0.06
    assert all(row["lowest"] > 0.9 for row in results["missing"])


def test_toy_draws_sets_of_both_populations(tmp_path, monkeypatch):
    drawn = []

    def loss(D, real, fake, target):
        drawn.append((real.argmax(2), fake.argmax(2)))
        assert target == 1 and torch.equal(real.sum(2), torch.ones(real.shape[:2]))
        return D(real).mean() + D(fake).mean()

    monkeypatch.setattr(recurrent, "discriminator_loss", loss)
    monkeypatch.setattr(recurrent, "TOY_STEPS", 40)
    monkeypatch.setattr(recurrent, "draw_figure_3", lambda *_: None)
    toy_run(tmp_path / "toy", "--set-size", "2")
    for sets, categories in zip(map(torch.cat, zip(*drawn)), (10, 5)):
        count = len(sets)
        assert count == 40 * 128
        pairs = torch.bincount(10 * sets[:, 0] + sets[:, 1], minlength=100).view(10, 10)
        assert pairs[categories:].sum() == pairs[:, categories:].sum() == 0
        pairs = pairs[:categories, :categories].flatten()
        assert scipy.stats.chisquare(pairs).pvalue > 1e-4  # uniform, and independent


@pytest.mark.parametrize("size", ["1", "4"])
def test_toy_smoke(tmp_path, monkeypatch, capsys, size):
    monkeypatch.setattr(recurrent, "TOY_STEPS", 2)
    monkeypatch.setattr(recurrent, "TOY_SETS", 4)
    out, results = toy_run(tmp_path / "toy", "--set-size", size, "--seed", "3")
    Image.open(out / "figure3-toy.png").load()
    for name, table in (("figure3.csv", results["figure3"]), ("missing.csv", results["missing"])):
        rows = list(csv.DictReader((out / name).open()))
        assert [{key: float(value) for key, value in row.items()} for row in rows] == table
    assert len(results["figure3"]) == int(size)
    assert results["worst_error"] == max(row["worst_error"] for row in results["figure3"])
    assert results["lowest_with_missing"] == min(row["lowest"] for row in results["missing"])
    assert results["seed"] == 3
    options = json.loads((out / "options.json").read_text())
    assert options["script"] == "recurrent_disc_toy.py" and options["set_size"] == int(size)
    printed = capsys.readouterr().out.splitlines()
    assert "on cpu" in printed[0] and str(out) in printed[-1]
    assert "   0.3363" in printed[2] and f"{results['figure3'][0]['mean']:.4f}" in printed[2]

    _, again = toy_run(tmp_path / "again", "--set-size", size, "--seed", "3")
    _, other = toy_run(tmp_path / "other", "--set-size", size, "--seed", "4")
    assert again.pop("training_seconds") >= 0 <= results.pop("training_seconds")
    assert again == results and other["figure3"] != results["figure3"]


def test_toy_rate_falls_and_later_weights_are_averaged(tmp_path, monkeypatch):
    steps, evaluated, tables = [], [], recurrent.toy_tables
    monkeypatch.setattr(recurrent, "toy_tables",
                        lambda D, size: evaluated.append(D) or tables(D, size))
    monkeypatch.setattr(recurrent, "TOY_STEPS", 8)
    hook = register_optimizer_step_post_hook(lambda opt, *_: steps.append(
        (opt.param_groups[0]["lr"], opt.param_groups[0]["params"][-2].detach().clone())))
    toy_run(tmp_path / "toy", "--set-size", "1")
    hook.remove()
    rates, weights = zip(*steps)
    assert rates == pytest.approx([2e-3 * rest / 8 for rest in (8, 7, 6, 5, 4, 3, 2, 1)])
    (D,) = evaluated
    assert torch.allclose(D.readout.weight, torch.stack(weights[4:]).mean(0), atol=1e-8)
    assert not torch.allclose(D.readout.weight, weights[-1], atol=1e-4)


# ---- MNIST --------------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch, data, tmp_path):
    """Run --mnist on little data: run(options) gives the run's folder."""
    monkeypatch.setattr(recurrent, "mnist", lambda *_: (*data[:2], data[2][:100], data[3][:100]))
    monkeypatch.setattr(recurrent, "SAMPLES", 100)
    monkeypatch.setattr(recurrent, "EPOCH", 3)

    def run(*options, out="run"):
        out = tmp_path / out
        if "again" in options:
            options = ["--resume", str(out), *(o for o in options if o != "again")]
        else:
            options = ["--mnist", "--train-size", "256", "--batch-size", "16", *options,
                       "--out", str(out)]
        recurrent.main([*options, "--device", "cpu"])
        return out
    return run


def test_settings_are_the_authors():
    assert recurrent.RATES == {"D": (3e-4, 1e-4), "G": (1e-4, 4e-4)}
    assert recurrent.L1 == {"D": 1e-5, "G": 1e-6}
    assert (recurrent.TARGET, recurrent.D_STEPS, recurrent.EPOCH) == (0.9, 4, 1000)
    args = recurrent.parse_args(["--mnist"])
    assert (args.set_size, args.batch_size, args.epochs) == (4, 64, 10)
    for name, network in (("opt_d", "D"), ("opt_g", "G")):
        parts = recurrent.build(args, CPU)
        (group,) = parts[name].param_groups
        assert group["betas"] == (0.9, 0.999) and group["weight_decay"] == 0
        assert [*map(id, group["params"])] == [*map(id, parts[network].parameters())]


def test_training_against_the_paper_written_out(run, monkeypatch, data):
    """Two epochs once more, with every loss, every rate and every norm by its formula.

    Decay and norms are larger than the author's, so that they show after so few steps.
    """
    rates, norms = {"D": (1e-3, 0.5), "G": (2e-3, 0.25)}, {"D": 2e-2, "G": 1e-2}
    monkeypatch.setattr(recurrent, "RATES", rates)
    monkeypatch.setattr(recurrent, "L1", norms)
    trained, build = {}, recurrent.build
    monkeypatch.setattr(recurrent, "build", lambda *a: trained.update(build(*a)) or dict(trained))
    out = run("--epochs", "2", "--set-size", "2", "--seed", "7")

    args = recurrent.parse_args(["--mnist", "--seed", "7"])
    G, D, *_ = build(args, CPU).values()
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
        new = build(args, CPU)[player].state_dict()
        for name, w in network.state_dict().items():
            far = (w - saved[player][name]).abs() > 1e-5
            assert far.float().mean() < 0.01, (player, name)  # where a gradient is about zero
            assert not torch.equal(new[name], w)
    for ours, (_, *logged) in zip(numpy.array(losses).reshape(2, 3, 2).mean(1), saved["log"]):
        assert logged == pytest.approx(ours.tolist(), rel=1e-4)
    # G's last step left D's gradients as D's last step had made them
    assert torch.allclose(trained["D"].readout.weight.grad, D.readout.weight.grad, atol=1e-6)


@pytest.mark.parametrize("size", [1, 4, 8])
def test_sets_hold_distinct_images_of_one_kind(run, monkeypatch, data, size):
    seen, loss = [], recurrent.discriminator_loss
    monkeypatch.setattr(recurrent, "discriminator_loss", lambda D, real, fake, target: (
        seen.append((real, fake, target)) or loss(D, real, fake, target)))
    run("--epochs", "1", "--set-size", str(size))
    assert len(seen) == 3 * 4
    train_x = data[0][:256]
    for real, fake, target in seen:
        assert real.shape == fake.shape == (16 // size, size, 784) and target == 0.9
        equal = (real.view(16, 1, 784) == train_x).all(2)
        assert (equal.sum(1) == 1).all()  # each is a training image
        assert (equal.sum(0) <= 1).all()  # and none is there twice
        assert len(fake.view(16, 784).unique(dim=0)) == 16
        assert not (fake.view(16, 1, 784) == train_x).all(2).any() and not fake.requires_grad
    real = torch.cat([real.flatten(0, 1) for real, *_ in seen])
    assert len(real.unique(dim=0)) == len(real)  # all of one pass over the training images
    fakes = torch.cat([fake.flatten(0, 1) for _, fake, _ in seen])
    assert len(fakes.unique(dim=0)) == len(fakes)


def test_smoke(run, capsys):
    out = run("--epochs", "2", "--set-size", "8", "--seed", "3")
    saved, results = checkpoint(out), json.loads((out / "results.json").read_text())
    for picture in ("figures4-6-k8.png", "losses.png", "training.gif", "samples/epoch-000.png",
                    "samples/epoch-002.png"):
        Image.open(out / picture).load()
    assert Image.open(out / "figures4-6-k8.png").size == (10 * 58 + 2, 10 * 58 + 2)
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    assert [row["generator_step"] for row in rows] == ["3", "6"]
    assert all(math.isfinite(float(value)) for row in rows for value in row.values())
    assert results["seed"] == 3 and results["epochs"] == 2 and results["set_size"] == 8
    printed = capsys.readouterr().out.splitlines()
    assert "k = 8 on cpu" in printed[0] and str(out) in printed[-1]
    assert saved["epoch"] == 2


def test_results_are_right(run, data):
    """Every number once more, from the checkpoint, with all distances written out."""
    out = run("--epochs", "1", "--seed", "5")
    results, G = json.loads((out / "results.json").read_text()), recurrent.generator()
    G.load_state_dict(checkpoint(out)["G"])
    train_x, train_y, test_x, test_y = data[0][:256], data[1][:256], data[2][:100], data[3][:100]
    torch.manual_seed(5)
    with torch.no_grad():
        samples = G(torch.randn(100, 100))
    distance, index = torch.cdist(samples.double(), train_x.double()).min(1)
    shares = numpy.bincount(train_y[index], minlength=10) / 100
    assert numpy.allclose(results["digit_shares"], shares)
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
    (grid,) = torch.from_numpy(numpy.array(Image.open(out / "figures4-6-k4.png").convert("L")))[
        None, 2:, 2:]
    tiles = grid.reshape(10, 58, 10, 58)[:, :56:2, :, :56:2].permute(0, 2, 1, 3).reshape(100, 784)
    assert (tiles / 255 - samples).abs().max() < 0.003  # the same samples


def test_a_digit_is_covered_by_two_percent(run, monkeypatch, data):
    train_x, train_y = data[0][:256], data[1][:256]
    images = torch.cat([train_x[train_y == digit][:1].expand(count, 784)
                        for digit, count in ((3, 2), (8, 1), (1, 97))])
    monkeypatch.setattr(recurrent, "sample", lambda *_: images)
    results = json.loads((run("--epochs", "1") / "results.json").read_text())
    assert results["digits"] == 2 and results["median_distance"] == pytest.approx(0, abs=1e-3)
    assert numpy.allclose(results["digit_shares"], [0, 0.97, 0, 0.02, 0, 0, 0, 0, 0.01, 0])


def test_same_seed_same_bits_and_resumed_equals_uninterrupted(run):
    whole = run("--epochs", "3", out="whole")
    part = run("--epochs", "1", out="part")
    run("again", "--epochs", "3", out="part")
    assert_same(checkpoint(whole), checkpoint(part))
    for name in ("metrics.csv", "training.gif", "samples/epoch-003.png", "figures4-6-k4.png"):
        assert (whole / name).read_bytes() == (part / name).read_bytes()
    a, b = (json.loads((out / "results.json").read_text()) for out in (whole, part))
    assert a.pop("training_seconds") > 0 < b.pop("training_seconds")
    assert a == b
    other = run("--epochs", "1", "--seed", "1", out="other")
    assert not torch.equal(checkpoint(other)["G"]["0.weight"], checkpoint(part)["G"]["0.weight"])


def test_nan_stops_the_run_and_names_the_step(run, monkeypatch, tmp_path):
    calls, loss = [], recurrent.discriminator_loss

    def breaks(*args):
        calls.append(1)
        return loss(*args) * (math.nan if len(calls) == 20 else 1)  # in step 5

    monkeypatch.setattr(recurrent, "discriminator_loss", breaks)
    with pytest.raises(SystemExit) as stop:
        run("--epochs", "3")
    assert re.search(r"not finite in generator steps 4 to 6 \(epoch 2\)", str(stop.value.code))
    assert checkpoint(tmp_path / "run")["epoch"] == 1


def test_interrupted_run_can_be_continued(run, monkeypatch, tmp_path, capsys):
    whole = run("--epochs", "2", out="whole")
    calls, loss = [], recurrent.discriminator_loss

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 15:
            raise KeyboardInterrupt
        return loss(*args)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(recurrent, "discriminator_loss", interrupted)
        run("--epochs", "2")
    assert stop.value.code == 130
    out = tmp_path / "run"
    assert f"recurrent_disc_toy.py --resume {out}" in capsys.readouterr().err
    run("again")
    assert_same(checkpoint(whole), checkpoint(out))


def test_paper_runs_all_and_continues(run, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(recurrent, "EPOCH", 1)
    monkeypatch.setattr(recurrent, "TOY_STEPS", 2)
    monkeypatch.setattr(recurrent, "TOY_SETS", 4)
    for name in ("draw_figure_3", "save_curves"):
        monkeypatch.setattr(recurrent, name, lambda *_: None)
    trained, drawn, save_panels = [], {}, recurrent.save_panels
    toy, train, out = recurrent.toy, recurrent.train, tmp_path / "paper"
    monkeypatch.setattr(recurrent, "save_panels", lambda panels, *args, **options: (
        drawn.update(panels), save_panels(panels, *args, **options)))

    def stops(real):
        def training(args):
            trained.append(recurrent.configuration(args))
            if len(trained) in (2, 6):
                args.out.mkdir(parents=True, exist_ok=True)  # as the toy does to begin with
                if args.mnist:
                    args.out.rmdir()
                raise KeyboardInterrupt
            real(args)
        return training

    monkeypatch.setattr(recurrent, "toy", stops(toy))
    monkeypatch.setattr(recurrent, "train", stops(train))
    options = ["--paper", "--epochs", "1", "--batch-size", "8", "--train-size", "256",
               "--device", "cpu", "--out", str(out)]
    for _ in range(2):
        with pytest.raises(SystemExit) as stop:
            recurrent.main(options)
        assert stop.value.code == 130
        assert "To continue: python recurrent_disc_toy.py --paper" in capsys.readouterr().err
    recurrent.main(options)
    toys = [f"toy-k4-seed{seed}" for seed in (0, 1, 2)]
    runs = [f"mnist-k{k}-seed{seed}" for k in (1, 2, 4) for seed in (0, 1, 2)]
    assert trained == [*toys[:2], *toys[1:], *runs[:2], *runs[1:]]
    for picture in ("figures4-6.png", "digits-by-k.png"):
        Image.open(out / picture).load()
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert [row["run"] for row in rows] == runs
    assert [row["set_size"] for row in rows] == [*"111222444"]
    for k in (1, 2, 4):
        G = recurrent.generator()
        G.load_state_dict(checkpoint(out / f"mnist-k{k}-seed0")["G"])
        torch.manual_seed(0)
        assert torch.equal(drawn[f"k = {k}"], G(torch.randn(100, 100)))
    assert len(drawn) == 3

    for i, name in enumerate(runs):  # numbers that differ, as those of one step do not
        results = json.loads((out / name / "results.json").read_text())
        (out / name / "results.json").write_text(json.dumps(results | {"kl": i**2}))
    capsys.readouterr()
    recurrent.main(options)
    assert len(trained) == 14  # all was there
    printed = capsys.readouterr().out
    for line in ("k = 1: digits", "kl 1.667 (0 to 4)", "kl 16.67 (9 to 25)", "kl 49.67 (36 to 64)"):
        assert line in printed
    with pytest.raises(SystemExit) as stop:  # what is there was made with another option
        recurrent.main([*options, "--batch-size", "16"])
    assert stop.value.code == 2
    assert "--batch-size: the run in" in capsys.readouterr().err


def test_digits_by_k_shows_every_seed(monkeypatch, tmp_path):
    figures = []
    monkeypatch.setattr(recurrent.Figure, "savefig", lambda self, *a, **k: figures.append(self))
    rows = [{"set_size": k, "digits": 2 * k + seed, "kl": 1 / k + 0.1 * seed}
            for k in (1, 2, 4) for seed in (0, 1, 2)]
    recurrent.draw_digits(rows, tmp_path / "none.png")
    for axes, value in zip(figures[0].axes, (lambda k, s: 2 * k + s, lambda k, s: 1 / k + 0.1 * s)):
        mean, *seeds, _ = (line.get_ydata() for line in axes.lines)
        assert numpy.allclose(mean, [value(k, 1) for k in (1, 2, 4)])
        assert numpy.allclose(seeds, [[value(k, s) for k in (1, 2, 4)] for s in (0, 1, 2)])
        (ranges,) = axes.collections
        assert numpy.allclose([segment[:, 1] for segment in ranges.get_segments()],
                              [[value(k, 0), value(k, 2)] for k in (1, 2, 4)])


# ---- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options, complaint", [
    (["--set-size", "0"], "--set-size: '0' is not a whole number from 1"),
    (["--set-size", "7"], "--set-size: 7 is more than 6"),
    (["--epochs", "3"], "--epochs: only with --mnist or --paper"),
    (["--batch-size", "8"], "--batch-size: only with --mnist or --paper"),
    (["--train-size", "8"], "--train-size: only with --mnist or --paper"),
    (["--data", "elsewhere"], "--data: only with --mnist or --paper"),
    (["--mnist", "--set-size", "3"], "--batch-size: 64 is not a multiple of --set-size 3"),
    (["--mnist", "--set-size", "128"], "--batch-size: 64 is not a multiple of --set-size 128"),
    (["--mnist", "--epochs", "0"], "--epochs: '0' is not a whole number from 1"),
    (["--mnist", "--batch-size", "0"], "--batch-size: '0' is not a whole number from 1"),
    (["--mnist", "--train-size", "63"], "--batch-size: 64 is more than --train-size 63"),
    (["--mnist", "--train-size", "60001"], "--train-size: '60001' is not a whole number from 1"),
    (["--seed", "-1"], "--seed: '-1' is not a whole number from 0"),
    (["--device", "tpu"], "--device: invalid choice"),
    (["--device", "cuda"], "--device: there is no cuda here"),
    (["--mnist", "--device", "mps"], "--device: there is no mps here"),
    (["--out", "here"], "--out: here exists"),
    (["--mnist", "--out", "here"], "--out: here exists"),
    (["--resume", "nowhere"], "--resume: nowhere holds no whole run of"),
    (["--resume", "here"], "--resume: here holds no whole run of"),
    (["--resume", "here", "--paper"], "--resume: not allowed with --paper or --out"),
    (["--resume", "here", "--out", "there"], "--resume: not allowed with --paper or --out"),
    (["--paper", "--seed", "1"], "--seed: --paper runs through its values itself"),
    (["--paper", "--set-size", "2"], "--set-size: --paper runs through its values itself"),
    (["--paper", "--batch-size", "2"], "--batch-size: 2 is not a multiple of --set-size 4"),
    (["--lr", "1"], "unrecognized arguments: --lr 1"),
])
def test_bad_options_end_with_one_line_and_change_nothing(options, complaint, tmp_path,
                                                          monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in ("toy", "train", "paper"):
        monkeypatch.setattr(recurrent, name, lambda args: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(SystemExit) as stop:
        recurrent.main(options)
    assert stop.value.code == 2
    assert complaint in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


def test_bad_ways_to_resume(run, capsys):
    out = run("--epochs", "2")
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    for options, complaint in ((["--seed", "1"], "--seed: the run in"),
                               (["--set-size", "2"], "--set-size: the run in"),
                               (["--batch-size", "32"], "--batch-size: the run in"),
                               (["--train-size", "512"], "--train-size: the run in"),
                               (["--epochs", "1"], "has 2 already")):
        with pytest.raises(SystemExit) as stop:
            recurrent.main(["--resume", str(out), *options])
        assert stop.value.code == 2
        assert complaint in capsys.readouterr().err.splitlines()[-1]
    assert before == {path: path.read_bytes() for path in out.rglob("*.*")}

    options = json.loads((out / "options.json").read_text())
    for damage in (lambda: (out / "options.json").write_text(
                       json.dumps(options | {"script": "bigan.py"})),
                   lambda: (out / "checkpoint.pt").write_bytes(b"half a file")):
        damage()
        with pytest.raises(SystemExit) as stop:
            recurrent.main(["--resume", str(out)])
        assert stop.value.code == 2
        assert "holds no whole run" in capsys.readouterr().err.splitlines()[-1]
        (out / "options.json").write_text(json.dumps(options))
