"""Tests of bigan.py and cbigan.py: the mathematics, then the programs as their users meet them."""

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

import bigan
import cbigan

CPU = torch.device("cpu")
SCRIPTS = {"bigan": (bigan, []), "simple": (cbigan, ["--variant", "simple"]),
           "extended": (cbigan, ["--variant", "extended"])}


@pytest.fixture(params=SCRIPTS)
def script(request):
    """A script, and the options that choose one of its models."""
    return SCRIPTS[request.param]


@pytest.fixture
def double(monkeypatch):
    """Double precision throughout: single rounds enough to turn a leaky ReLU over."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def parts_of(module, options):
    return module.build(module.parse_args(options), CPU)


# ---- objective ----------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [bigan, cbigan])
def test_losses_against_their_formulas(module):
    on_real, on_fake = torch.randn(50, 1).double() * 4, torch.randn(50, 1).double() * 4
    D_real, D_fake = (scipy.special.expit(logits.numpy()) for logits in (on_real, on_fake))
    d_loss, eg_loss = module.losses(on_real, on_fake)
    assert d_loss.item() == pytest.approx(-(numpy.log(D_real) + numpy.log(1 - D_fake)).mean())
    assert eg_loss.item() == pytest.approx(-(numpy.log(D_fake) + numpy.log(1 - D_real)).mean())
    sure = torch.tensor([[-1000.0]])  # where log(sigmoid) would be minus infinity
    assert [loss.item() for loss in module.losses(sure, -sure)] == [2000, 0]


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
    on_real = lambda: table[points, torch.tensor(code_of)]  # noqa: E731
    on_fake = lambda: table[torch.tensor(image_of), points]  # noqa: E731
    optimizer = torch.optim.Adam([table], 0.3)
    for _ in range(300):
        d_loss, _ = bigan.losses(on_real(), on_fake())
        optimizer.zero_grad()
        d_loss.backward()
        optimizer.step()
    assert -d_loss.item() == pytest.approx(-math.log(4) + 2 * divergence, abs=5e-3)


def test_a_step_moves_each_player_by_its_own_loss_alone(script, double, monkeypatch, data,
                                                         tmp_path):
    """One step of the program against one step of each player while the others stand still."""
    module, options = script
    new, moved = parts_of(module, options), {}
    data = data[0][:8].double(), data[1][:8], data[2].double(), data[3]
    monkeypatch.setattr(module, "mnist", lambda *_: data)
    monkeypatch.setattr(module, "evaluate", lambda *_: None)
    monkeypatch.setattr(module, "score", lambda *_: [0.0] * 4)
    build = module.build
    monkeypatch.setattr(module, "build", lambda *a: moved.update(build(*a)) or dict(moved))
    module.main([*options, "--train-size", "8", "--batch-size", "8", "--epochs", "1",
                 "--device", "cpu", "--out", str(tmp_path / "run")])

    torch.manual_seed(1_000_000)
    indices = torch.randperm(8)
    x = data[0][indices]
    labels = [] if module is bigan else [nn.functional.one_hot(data[1][indices], 10).double()]
    z = 2 * torch.rand(8, 50) - 1
    E, G, D, _, opt_d, *_ = new.values()
    with torch.no_grad():
        code, image = E(x), G(z, *labels)
    real, fake = (torch.sigmoid(D(*pair, *labels)) for pair in ((x, code), (image, z)))
    (-(torch.log(real) + torch.log(1 - fake)).mean()).backward()
    opt_d.step()
    D.requires_grad_(False)  # E and G move against the discriminator after its step
    real, fake = (torch.sigmoid(D(*pair, *labels)) for pair in ((x, E(x)), (G(z, *labels), z)))
    (-(torch.log(fake) + torch.log(1 - real)).mean()).backward()
    for player in "EGD":
        for name, w in new[player].named_parameters():
            gradient = moved[player].get_parameter(name).grad
            difference = (w.grad - gradient).norm()  # a bias before batch norm has gradient 0
            assert difference < 1e-6 * gradient.norm() + 1e-12, (player, name)


# ---- networks -----------------------------------------------------------------------------------


def dense(inputs, outputs):
    return (inputs + 1) * outputs


def perceptron(inputs, outputs):
    return dense(inputs, 1024) + dense(1024, 1024) + 2 * 1024 + dense(1024, outputs)


def test_parameter_counts(script):
    module, options = script
    expected = {
        "bigan": (perceptron(784, 50), perceptron(50, 784), perceptron(784 + 50, 1)),
        "simple": (perceptron(784, 50), perceptron(50 + 10, 784), perceptron(784 + 50 + 10, 1)),
        "extended": (perceptron(784, 50),
                     dense(50, 200) + dense(10, 800) + perceptron(200 + 800, 784),
                     dense(784, 1000) + dense(50, 200) + dense(10, 800)
                     + perceptron(1000 + 200 + 800, 1)),
    }[options[1] if options else "bigan"]
    parts = parts_of(module, options)
    assert tuple(sum(w.numel() for w in parts[name].parameters()) for name in "EGD") == expected


@pytest.mark.parametrize("init", ["fan-in", "paper"])
def test_initial_weights_and_activations(script, init):
    module, options = script
    if module is cbigan and init != "fan-in":  # the default
        options = [*options, "--dense-init", init]
    parts = parts_of(module, options)
    for name, slopes in (("E", {0.2}), ("G", {0.0}), ("D", {0.2})):
        for key, layer in parts[name].named_modules():
            if isinstance(layer, nn.Linear):
                dense = not key.startswith("core")  # the extended variant's first layers
                std = layer.in_features ** -0.5 if dense and init == "fan-in" else 0.02
                assert layer.weight.std().item() == pytest.approx(std, rel=0.05)
                assert abs(layer.weight.mean().item()) < 5 * std / layer.weight.numel() ** 0.5
                assert (layer.bias == 0).all()
        seen = [layer for layer in parts[name].modules()
                if isinstance(layer, (nn.ReLU, nn.LeakyReLU))]
        assert {layer(torch.tensor(-5.0)).item() for layer in seen} == {-5 * s for s in slopes}
        norms = [i for i, layer in enumerate(parts[name].core)
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


# ---- schedule and average -----------------------------------------------------------------------


@pytest.mark.parametrize("module", [bigan, cbigan])
def test_learning_rate_falls_to_a_hundredth(module):
    args = module.parse_args(["--lr", "2e-4", "--decay-from", "200"])
    rates = [module.learning_rate(args, epoch) for epoch in (0, 200, 300, 400)]
    assert rates == pytest.approx([2e-4, 2e-4, 2e-5, 2e-6])
    args.decay_from = 0
    assert module.learning_rate(args, 399) == 2e-4


@pytest.mark.parametrize("module", [bigan, cbigan])
def test_average_follows_weights_and_batch_statistics(module):
    network, average = module.Encoder(), module.Encoder().eval()
    start = average.core[0].weight.clone()
    network(torch.rand(8, 784))  # moves the batch statistics
    module.follow(average, network, 0.9)
    assert torch.allclose(average.core[0].weight, 0.9 * start + 0.1 * network.core[0].weight)
    assert torch.allclose(average.core[3].running_var, 0.9 + 0.1 * network.core[3].running_var)
    module.follow(average, network, 0)
    assert_same({name: w for name, w in average.state_dict().items() if w.is_floating_point()},
                {name: w for name, w in network.state_dict().items() if w.is_floating_point()})


# ---- the programs -------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch, data, tmp_path, script):
    """Run a script on little data: run(options) gives the run's folder."""
    module, chosen = script
    few = data[0], data[1], data[2][:100], data[3][:100]
    monkeypatch.setattr(module, "mnist", lambda *_: few)
    monkeypatch.setattr(module, "SAMPLES", 100)
    monkeypatch.setattr(module, "EVERY", 2)

    def run(*options, out="run"):
        out = tmp_path / out
        options += ("--resume", str(out)) if "again" in options else ("--out", str(out))
        module.main([*chosen, *(o for o in options if o != "again"), "--train-size", "256",
                     "--batch-size", "64", "--device", "cpu"])
        return out
    return run


def test_smoke(run, script, capsys):
    module, chosen = script
    init = ["--dense-init", "paper"] if module is cbigan else []
    out = run("--epochs", "2", "--lr", "1e-3", "--decay-from", "1", "--weight-decay", "2.5e-5",
              "--average", "0.9", "--seed", "3", *init)
    saved, results = checkpoint(out), json.loads((out / "results.json").read_text())
    new = parts_of(module, [*chosen, "--seed", "3", *init])
    for name in ("E", "G", "D", "average_E", "average_G"):
        assert all(not torch.equal(saved[name][key], w)
                   for key, w in new[name].named_parameters() if "weight" in key)
    assert not torch.equal(saved["E"]["core.0.weight"], saved["average_E"]["core.0.weight"])

    figures = (["figure2-reconstructions.png", "figure3-tsne.png"] if module is bigan else
               ["figure4-reconstructions.png", "figure5-tsne.png", "classes.png"])
    for picture in (*figures, "losses.png", "scores.png", "training.gif",
                    "samples/epoch-000.png", "samples/epoch-002.png"):
        Image.open(out / picture).load()
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    assert [row["step"] for row in rows] == ["4", "8"]
    assert all(math.isfinite(float(value)) for row in rows for value in row.values())
    rows = list(csv.DictReader((out / "scores.csv").open()))
    assert [row["epoch"] for row in rows] == ["0", "2"]
    for name, value in rows[1].items():
        if name != "epoch":
            assert float(value) == pytest.approx(results[name], rel=1e-6)
    assert results["seed"] == 3 and results["epochs"] == 2
    printed = capsys.readouterr().out.splitlines()
    assert "on cpu" in printed[0] and str(out) in printed[-1]


def test_scores_against_all_distances(script, data):
    """With networks whose codes and images differ widely, as those of few steps do not."""
    module, chosen = script
    torch.manual_seed(1)
    parts = parts_of(module, chosen)
    E, G = parts["average_E"], parts["average_G"]
    for network in (E, G):
        for w in network.parameters():
            w.data = torch.randn_like(w)
    train_x, train_y, test_x, test_y = data[0][:2000], data[1][:2000], data[2][:500], data[3][:500]
    hidden, code, labels = [], [], [] if module is bigan else [torch.eye(10)[test_y]]
    with torch.no_grad():
        for x in (train_x, test_x):
            in_one = E.core(x)
            h = nn.functional.leaky_relu(nn.functional.linear(x, E.core[0].weight, E.core[0].bias),
                                         0.2)
            h = nn.functional.linear(h, E.core[2].weight, E.core[2].bias) / (1 + 1e-5) ** 0.5
            hidden.append(nn.functional.leaky_relu(h * E.core[3].weight + E.core[3].bias, 0.2))
            code.append(nn.functional.linear(hidden[-1], E.core[5].weight, E.core[5].bias))
            assert torch.allclose(code[-1], in_one, rtol=1e-3, atol=1e-2 * in_one.std().item())
        again = G(code[1], *labels)
    accuracy = [(train_y[torch.cdist(test.double(), train.double()).argmin(1)] == test_y)
                .float().mean().item() for train, test in (code, hidden)]
    assert accuracy[0] != accuracy[1]
    distances = [numpy.linalg.norm(test_x - again, axis=1).mean(),
                 numpy.linalg.norm(test_x[[i - 1 for i in range(500)]] - again, axis=1).mean()]
    scores = module.score(E, G, (train_x, train_y, test_x, test_y))
    assert scores[:2] == pytest.approx(accuracy, abs=0.0041)  # but for two near ties
    assert scores[2:] == pytest.approx(distances, rel=1e-5)


def test_results_are_right(run, script, data):
    """Every number once more, from the checkpoint, with all distances written out."""
    module, chosen = script
    out = run("--epochs", "1", "--average", "0")
    results, saved = json.loads((out / "results.json").read_text()), checkpoint(out)
    train_x, train_y, test_x, test_y = data[0][:256], data[1][:256], data[2][:100], data[3][:100]

    def label(queries, references):
        return train_y[torch.cdist(queries.double(), references.double()).argmin(1)]

    parts = parts_of(module, chosen)
    E, G = parts["E"].eval(), parts["G"].eval()
    E.load_state_dict(saved["E"])
    G.load_state_dict(saved["G"])
    onehot = [] if module is bigan else [torch.eye(10)[test_y]]
    with torch.no_grad():
        assert results["1nn_accuracy_code"] == pytest.approx(
            (label(E(test_x), E(train_x)) == test_y).float().mean().item())
        hidden = [E.core[4](E.core[3](E.core[2](E.core[1](E.core[0](x)))))
                  for x in (test_x, train_x)]
        assert results["1nn_accuracy_hidden"] == pytest.approx(
            (label(*hidden) == test_y).float().mean().item())
        again = G(E(test_x), *onehot)
        assert results["reconstruction_error"] == pytest.approx(
            numpy.linalg.norm(test_x - again, axis=1).mean(), rel=1e-5)
        other = torch.stack([test_x[i - 1] for i in range(100)])
        assert results["error_to_another_image"] == pytest.approx(
            numpy.linalg.norm(other - again, axis=1).mean(), rel=1e-5)
        assert results["class_kept"] == pytest.approx(
            (label(again, train_x) == test_y).float().mean().item())
        assert results["label_accuracy_on_test_images"] == pytest.approx(
            (label(test_x, train_x) == test_y).float().mean().item())

        torch.manual_seed(0)
        z, asked = 2 * torch.rand(100, 50) - 1, torch.arange(100) % 10
        samples = G(z) if module is bigan else G(z, torch.eye(10)[asked])
        assert results["median_distance"] == pytest.approx(
            torch.cdist(samples, train_x).min(1).values.median().item(), rel=1e-4)
        labels = label(samples, train_x)
        if module is bigan:
            shares = numpy.bincount(labels, minlength=10) / 100
            train = numpy.bincount(train_y, minlength=10) / 256
            assert numpy.allclose(results["digit_shares"], shares)
            assert results["kl"] == pytest.approx(scipy.stats.entropy(shares, train), rel=1e-4)
        else:
            assert results["class_as_asked"] == pytest.approx(
                (labels == asked).float().mean().item())


def test_pictures_show_two_images_of_each_digit(script, data):
    module, chosen = script
    parts = parts_of(module, chosen)
    args = module.parse_args(chosen)
    rows = module.picture(args, parts["average_E"], parts["average_G"], data).view(3, 20, 784)
    for i, image in enumerate(rows[1]):
        (index,) = (data[2] == image).all(1).nonzero().flatten().tolist()
        assert data[3][index] == i // 2
    onehot = [] if module is bigan else [torch.eye(10).repeat_interleave(2, 0)]
    E, G = parts["average_E"], parts["average_G"]
    assert torch.allclose(rows[2], G(E(rows[1]), *onehot))
    again = module.picture(args, E, G, data)
    assert torch.equal(again[:20], rows[0])  # the same noise


def test_same_seed_same_bits_and_resumed_equals_uninterrupted(run):
    whole = run("--epochs", "3", "--decay-from", "1", out="whole")
    part = run("--epochs", "1", "--decay-from", "1", out="part")
    run("again", "--epochs", "3", out="part")
    assert_same(checkpoint(whole), checkpoint(part))
    for name in ("metrics.csv", "scores.csv", "training.gif", "samples/epoch-003.png"):
        assert (whole / name).read_bytes() == (part / name).read_bytes()
    a, b = (json.loads((out / "results.json").read_text()) for out in (whole, part))
    assert a.pop("training_seconds") > 0 < b.pop("training_seconds")
    assert a == b
    other = run("--epochs", "1", "--decay-from", "1", "--seed", "1", out="other")
    assert not torch.equal(checkpoint(other)["E"]["core.0.weight"],
                           checkpoint(part)["E"]["core.0.weight"])


def test_nan_stops_the_run_and_names_the_step(run, script, monkeypatch, tmp_path):
    module, _ = script
    calls, losses = [], module.losses

    def breaks(*logits):
        calls.append(1)
        d_loss, eg_loss = losses(*logits)
        return d_loss, eg_loss * (math.nan if len(calls) == 12 else 1)  # two a step

    monkeypatch.setattr(module, "losses", breaks)
    with pytest.raises(SystemExit) as stop:
        run("--epochs", "3")
    assert re.search(r"not finite in steps 5 to 8 \(epoch 2\)", str(stop.value.code))
    assert checkpoint(tmp_path / "run")["epoch"] == 1


def test_interrupted_run_can_be_continued(run, script, monkeypatch, tmp_path, capsys):
    module, _ = script
    whole = run("--epochs", "2", out="whole")
    calls, losses = [], module.losses

    def interrupted(*logits):
        calls.append(1)
        if len(calls) == 11:  # two a step
            raise KeyboardInterrupt
        return losses(*logits)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(module, "losses", interrupted)
        run("--epochs", "2")
    assert stop.value.code == 130
    assert f"--resume {tmp_path / 'run'}" in capsys.readouterr().err
    run("again")
    assert_same(checkpoint(whole), checkpoint(tmp_path / "run"))


def test_paper_trains_both_variants_draws_both_and_continues(monkeypatch, data, tmp_path, capsys):
    monkeypatch.setattr(cbigan, "mnist", lambda *_: (*data[:2], data[2][:100], data[3][:100]))
    monkeypatch.setattr(cbigan, "SAMPLES", 100)
    out, trained, train = tmp_path / "paper", [], cbigan.train

    def stops_in_the_second(args):
        trained.append(args.variant)
        if len(trained) == 2:
            raise KeyboardInterrupt
        train(args)

    monkeypatch.setattr(cbigan, "train", stops_in_the_second)
    options = ["--paper", "--epochs", "1", "--train-size", "256", "--device", "cpu",
               "--out", str(out)]
    with pytest.raises(SystemExit) as stop:
        cbigan.main(options)
    assert stop.value.code == 130
    assert "To continue: python cbigan.py --paper" in capsys.readouterr().err
    cbigan.main(options)
    assert trained == ["simple", "extended", "extended"]
    grid = Image.open(out / "figure4-reconstructions.png")
    assert grid.size == (20 * 58 + 2, 6 * 58 + 2)
    Image.open(out / "figure5-tsne.png").load()
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert [row["run"] for row in rows] == ["simple-seed0", "extended-seed0"]
    cbigan.main(options)
    assert len(trained) == 3  # all is there


@pytest.mark.parametrize("module", [bigan, cbigan])
@pytest.mark.parametrize("options, complaint", [
    (["--epochs", "0"], "--epochs: '0' is not a whole number from 1"),
    (["--batch-size", "0"], "--batch-size: '0' is not a whole number from 2"),
    (["--batch-size", "64", "--train-size", "63"], "--batch-size: 64 is more than"),
    (["--train-size", "60001"], "--train-size: '60001' is not a whole number from 2 to 60000"),
    (["--lr", "nan"], "--lr: 'nan' is not a number from 1e-09 to 10"),
    (["--decay-from", "-1"], "--decay-from: '-1' is not a whole number from 0"),
    (["--weight-decay", "2"], "--weight-decay: '2' is not a number from 0 to 1"),
    (["--average", "-0.1"], "--average: '-0.1' is not a number from 0 to 1"),
    (["--seed", "-1"], "--seed: '-1' is not a whole number from 0"),
    (["--device", "cuda"], "--device: there is no cuda here"),
    (["--resume", "nowhere"], "--resume: nowhere holds no whole run of"),
    (["--out", "here"], "--out: here exists"),
    (["--resume", "here", "--out", "there"], "--resume: not allowed with"),
    (["--slope", "2"], "unrecognized arguments: --slope 2"),
])
def test_bad_options_end_with_one_line_and_change_nothing(module, options, complaint, tmp_path,
                                                          monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(SystemExit) as stop:
        module.main(options)
    assert stop.value.code == 2
    assert complaint in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


def test_bad_variants_and_bad_ways_to_resume(run, script, capsys):
    module, chosen = script
    out = run("--epochs", "2")
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    complaints = [(["--seed", "1"], "--seed: the run in"), (["--epochs", "1"], "has 2 already")]
    if module is cbigan:
        other = "simple" if "extended" in chosen else "extended"
        complaints += [(["--variant", other], "--variant: the run in"),
                       (["--variant", "none"], "--variant: invalid choice: 'none'")]
    for options, complaint in complaints:
        with pytest.raises(SystemExit) as stop:
            module.main(["--resume", str(out), *options])
        assert stop.value.code == 2
        assert complaint in capsys.readouterr().err.splitlines()[-1]
    assert before == {path: path.read_bytes() for path in out.rglob("*.*")}
    wrong = cbigan if module is bigan else bigan  # each refuses the other's runs
    with pytest.raises(SystemExit) as stop:
        wrong.main(["--resume", str(out)])
    assert stop.value.code == 2 and "holds no whole run" in capsys.readouterr().err
