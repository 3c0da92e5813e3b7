"""Tests of wgan_gp_binary_seed.py: the mathematics, then the program as its users meet it."""

import csv
import json
import math
import re

import numpy
import pytest
import scipy.signal
import scipy.stats
import torch
from conftest import assert_same, checkpoint
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

import wgan_gp_binary_seed as seed

CPU = torch.device("cpu")


# ---- seed and networks --------------------------------------------------------------------------


def test_seed_is_normal_numbers_and_fair_coins():
    z = seed.draw_z(200_000, 3, 4, CPU).double().numpy()
    assert z.shape == (200_000, 7)
    z_c, z_b = z[:, :3], z[:, 3:]
    assert numpy.isin(z_b, (0, 1)).all()
    assert numpy.abs(z_b.mean(0) - 0.5).max() < 5 * 0.5 / math.sqrt(200_000)  # standard errors
    for column in z_c.T:
        assert scipy.stats.kstest(column, "norm").pvalue > 1e-4
    # independent: the sixteen patterns equally frequent, and nothing correlated
    counts = numpy.bincount((z_b @ [1, 2, 4, 8]).astype(int), minlength=16)
    assert scipy.stats.chisquare(counts).pvalue > 1e-4
    assert numpy.abs(numpy.corrcoef(z.T) - numpy.eye(7)).max() < 0.02
    assert len(numpy.unique(z_c[:, 0])) > 190_000


@pytest.mark.parametrize("n_c, n_b", [(0, 5), (5, 0)])
def test_seed_of_one_kind(n_c, n_b):
    z = seed.draw_z(100, n_c, n_b, CPU)
    assert z.shape == (100, 5) and z.dtype == torch.float32
    assert ((z == 0) | (z == 1)).all() == (n_c == 0)


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_shapes_after_each_layer_and_parameter_counts():
    def shapes(network, x):
        return [tuple((x := layer(x)).shape[1:]) for layer in network]

    def without_repeats(seen):
        return [shape for i, shape in enumerate(seen) if i == 0 or shape != seen[i - 1]]

    G, C = seed.generator(19), seed.critic()
    assert without_repeats(shapes(G, torch.randn(2, 19))) == [
        (6272,), (128, 7, 7), (64, 14, 14), (1, 28, 28), (784,)]
    assert without_repeats(shapes(C, torch.rand(2, 784))) == [
        (1, 28, 28), (64, 14, 14), (128, 7, 7), (6272,), (1,)]
    assert count(G) == 20 * 6272 + (128 * 64 * 25 + 64) + (64 * 25 + 1) == 331_905
    assert count(C) == (25 * 64 + 64) + (64 * 128 * 25 + 128) + (6272 + 1) == 212_865
    x = G(torch.randn(50, 19) * 100)
    assert 0 <= x.min() < 0.01 and 0.99 < x.max() <= 1  # a sigmoid
    slopes = [layer.negative_slope for layer in G if isinstance(layer, nn.LeakyReLU)]
    assert slopes == [0.1, 0.1]


def test_leaky_relu_is_that_of_torch_but_sends_nothing_back_from_the_penalty():
    torch.manual_seed(0)
    C, real, fake = seed.critic(), torch.rand(4, 784), torch.rand(4, 784)
    usual = nn.Sequential(*[nn.LeakyReLU(0.1) if isinstance(layer, seed.LeakyReLU) else layer
                            for layer in C])
    assert torch.allclose(C(real), usual(real), atol=1e-6)
    gradients = []
    for network in (usual, C):
        C.zero_grad()
        torch.manual_seed(1)
        seed.gradient_penalty(network, real, fake).backward()
        gradients.append({name: w.grad for name, w in C.named_parameters()})
    for name, gradient in gradients[1].items():
        expected = gradients[0][name]
        assert (torch.allclose(gradient, expected, atol=1e-6) if "weight" in name
                else gradient is None and (expected is None or not expected.any()))


# ---- objective ----------------------------------------------------------------------------------


def test_penalty_through_the_convolutions_against_finite_differences():
    """First by the pixels, then, through the penalty, by the weights of each layer."""
    torch.manual_seed(1)
    C = seed.critic().double()
    real, fake = torch.rand(1, 784).double(), torch.rand(1, 784).double()

    def penalty():
        torch.manual_seed(2)
        return seed.gradient_penalty(C, real, fake)

    torch.manual_seed(2)
    epsilon = torch.rand(1, 1)
    between, steps = epsilon * real + (1 - epsilon) * fake, 1e-7 * torch.eye(784).double()
    with torch.no_grad():
        gradient = (C(between + steps) - C(between - steps)) / 2e-7
    expected = (gradient.square().sum().sqrt() - 1) ** 2
    assert penalty().item() == pytest.approx(expected.item(), rel=1e-6)

    C.zero_grad()
    penalty().backward()
    for weights, indices in ((C[1].weight, [(0, 0, 2, 2), (9, 0, 4, 0)]),
                             (C[3].weight, [(0, 0, 2, 2), (7, 9, 0, 3)]),
                             (C[6].weight, [(0, 0), (0, 3000)])):
        for index in indices:
            values = []
            for step in (1e-7, -1e-7):
                with torch.no_grad():
                    weights[index] += step
                values.append(penalty().item())
                with torch.no_grad():
                    weights[index] -= step
            expected = (values[0] - values[1]) / 2e-7
            assert weights.grad[index].item() == pytest.approx(expected, rel=1e-3, abs=1e-7)


def test_penalty_takes_the_norm_image_by_image():
    """C(x) = |x|^2 / 2 has gradient x: the penalty is known once the images between are."""
    seen = []

    def C(x):
        seen.append(x.detach())
        return x.square().sum(1, keepdim=True) / 2

    real, fake = torch.rand(16, 50) * torch.arange(1, 17).view(-1, 1), torch.rand(16, 50)
    penalty = seed.gradient_penalty(C, real, fake)
    (between,) = seen
    assert penalty.item() == pytest.approx(((between.norm(dim=1) - 1) ** 2).mean().item())
    epsilon = ((between - fake) / (real - fake)).median(1).values  # one for each image
    assert torch.allclose(between, epsilon.view(-1, 1) * (real - fake) + fake, atol=1e-3)
    assert 0 <= epsilon.min() < 0.3 and 0.7 < epsilon.max() <= 1


def test_losses_against_their_definitions():
    torch.manual_seed(0)
    C = nn.Sequential(nn.Linear(784, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    real, fake, test = (torch.rand(n, 784).double() for n in (8, 8, 5))
    on_real, on_fake, on_test = (C(x).mean().item() for x in (real, fake, test))
    torch.manual_seed(5)
    loss, estimates = seed.critic_loss(C, real, fake, test)
    torch.manual_seed(5)
    penalty = seed.gradient_penalty(C, real, fake).item()
    assert loss.item() == pytest.approx(on_fake - on_real + 10 * penalty)
    assert estimates.tolist() == pytest.approx([on_real - on_fake, on_test - on_fake])
    assert not estimates.requires_grad
    assert seed.generator_loss(C, fake).item() == pytest.approx(-on_fake)
    loss.backward()  # by the test images nothing is learned
    gradients = [w.grad.clone() for w in C.parameters()]
    C.zero_grad()
    torch.manual_seed(5)
    seed.critic_loss(C, real, fake, test * 0)[0].backward()
    assert all(torch.equal(w.grad, gradient) for w, gradient in zip(C.parameters(), gradients))


@pytest.mark.parametrize("d", [1.0, 4.0])
def test_estimate_of_two_point_masses_is_the_penalized_optimum(d):
    """Not d itself: slope s gains d s and costs 10 (s - 1)^2, which is best at s = 1 + d / 20."""
    torch.manual_seed(0)
    C = nn.Sequential(nn.Linear(2, 64), seed.LeakyReLU(), nn.Linear(64, 64), seed.LeakyReLU(),
                      nn.Linear(64, 1))
    optimizer = torch.optim.Adam(C.parameters(), 2e-3, (0.5, 0.9))
    fake = torch.tensor([[0.3, 0.1]]).expand(64, 2)
    real = fake + d * torch.tensor([0.6, 0.8])
    estimates = []
    for step in range(800):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - step / 800)
        loss, estimate = seed.critic_loss(C, real, fake, real[:1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        estimates.append(estimate)
    assert torch.stack(estimates[-100:]).mean().item() == pytest.approx(d * (1 + d / 20), rel=0.01)


# ---- schedule and comparability -----------------------------------------------------------------


def test_stretches_open_the_epochs_and_leave_the_last_200_critic_steps_alone():
    schedule = [seed.critic_steps(step, 78) for step in range(9 * 78)]
    assert [step for step, n in enumerate(schedule) if n == 100] == list(range(0, 702, 78))
    assert set(schedule) == {6, 100} and sum(schedule) == 9 * (77 * 6 + 100) == 5058
    for steps in range(1, 200):
        schedule = [seed.critic_steps(step, steps) for step in range(2 * steps)]
        sizes = [n for n in schedule for _ in range(n)]  # of the group that a critic step is in
        assert 100 not in sizes[-200:]
        assert (100 in sizes) == (steps >= 35)


def args(*options):
    return seed.parse_args(["--device", "cpu", *options])


def test_initial_critic_depends_on_the_seed_alone():
    critics = [seed.build(args(*options.split()), CPU)["C"].state_dict() for options in (
        "--n-c 7 --n-b 12", "--n-c 0 --n-b 2", "--n-c 196 --n-b 0", "--seed 1")]
    for other in critics[1:3]:
        assert all(torch.equal(critics[0][name], other[name]) for name in other)
    assert not torch.equal(critics[0]["1.weight"], critics[3]["1.weight"])


# ---- evaluation and figures ---------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 30, 50, 51, 400])
def test_smoothing_against_numpy(n):
    x = torch.randn(n, dtype=torch.float64).cumsum(0)
    window = numpy.hanning(50)
    inside = slice(24, 24 + n)
    expected = numpy.convolve(x, window)[inside] / numpy.convolve(numpy.ones(n), window)[inside]
    assert numpy.allclose(seed.smooth(x), expected, rtol=1e-9)
    assert numpy.allclose(seed.smooth(torch.full((n,), 3.0)), 3)
    if n == 400:  # away from the ends, scipy's window too
        middle = scipy.signal.convolve(x, scipy.signal.windows.hann(50) / window.sum(), "valid")
        assert numpy.allclose(seed.smooth(x)[25:25 + len(middle)], middle)


def test_kl_against_scipy():
    p, q = torch.tensor([0.5, 0.3, 0.0, 0.2]), torch.tensor([0.1, 0.4, 0.3, 0.2])
    assert seed.kl_divergence(p, q) == pytest.approx(scipy.stats.entropy(p, q), rel=1e-5)


@pytest.mark.parametrize("n_c, n_b, names", [
    (3, 4, "a1 a2 a3 a4 a5 a6 b1 b2 b3 b4 b5 b6"), (3, 0, "b1 b2 b3 b4 b5 b6"),
    (0, 4, "a1 a2 a3 a4 a5 a6")])
def test_groups_of_figure_4(monkeypatch, n_c, n_b, names):
    monkeypatch.setattr(seed, "generate", lambda G, z: z)
    panels = seed.groups(args("--n-c", str(n_c), "--n-b", str(n_b)), seed.generator(n_c + n_b))
    assert [title.split(":")[0] for title in panels] == names.split()
    fixed_parts = set()
    for title, z in panels.items():
        fixed, varies = (z[:, :n_c], z[:, n_c:]) if "a" in title[0] else (z[:, n_c:], z[:, :n_c])
        assert z.shape == (16, n_c + n_b) and (fixed == fixed[0]).all()
        assert len(varies.unique(dim=0)) > 5
        fixed_parts.add((title[0], *fixed[0].tolist()))
    assert len(fixed_parts) > 6 or n_c * n_b == 0  # from group to group the fixed part differs


def test_grid_of_the_search():
    trainings = seed.trainings(list(seed.DIMS))
    grid = [(n_c, n_b) for n_c, n_b, number in trainings if number == 0]
    assert len(grid) == len(set(grid)) == 99 and (0, 0) not in grid
    assert {n for pair in grid for n in pair} == {0, 2, 4, 7, 12, 21, 36, 64, 112, 196}
    assert len(trainings) == len(set(trainings)) == 99 + 2 * 7
    for pair in seed.SELECTION:
        assert [number for *other, number in trainings if tuple(other) == pair] == [0, 1, 2]
    assert {pair[:2] for pair in seed.trainings([0, 5])} == {(0, 5), (5, 0), (5, 5)}


def test_cells_of_the_heat_map(monkeypatch, tmp_path):
    """n_c across and n_b down, whatever the order of the rows."""
    dims = [0, 4, 12]
    rows = [{"n_c": n_c, "n_b": n_b, "seed": number, "wasserstein_train": 100 * n_c + n_b + number,
             "wasserstein_train_final": -(100 * n_c + n_b)}
            for n_b in (12, 0, 4) for n_c in (4, 12, 0) for number in (0, 1) if n_c or n_b]
    rows = [row for row in rows if (row["n_c"], row["n_b"]) != (12, 4)]  # not yet trained
    cells = seed.heat_map(rows, dims, "wasserstein_train")
    assert cells.isnan().nonzero().tolist() == [[0, 0], [1, 2]]
    assert cells.nan_to_num(-1).tolist() == [[-1, 400, 1200], [4, 404, -1], [12, 412, 1212]]

    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    seed.figure_3(tmp_path, rows, dims)
    for axes, sign in zip(figures[0].axes, (1, -1)):
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("n_c", "n_b")
        labels = [[int(label.get_text()) for label in side]
                  for side in (axes.get_xticklabels(), axes.get_yticklabels())]
        assert labels == [dims, dims] and len(axes.texts) == 7
        for text in axes.texts:
            column, row = text.get_position()
            assert float(text.get_text()) == sign * (100 * dims[column] + dims[row])
        shown = axes.images[0].get_array()
        assert shown[2, 1] == sign * 412  # row n_b = 12, column n_c = 4


# ---- the program --------------------------------------------------------------------------------


@pytest.fixture
def run(data, monkeypatch, tmp_path):
    """Run the program on 96 images in minibatches of 8, and shorten what takes long."""
    few = tuple(tensor[:240] for tensor in data)
    monkeypatch.setattr(seed, "mnist", lambda *_: few)
    monkeypatch.setattr(seed, "critic_steps", lambda step, steps: 5 if step % steps == 0 else 2)
    monkeypatch.setattr(seed, "STRETCH", 1)
    monkeypatch.setattr(seed, "LAST", 6)
    monkeypatch.setattr(seed, "SAMPLES", 100)

    def run(*options, out="run"):
        out = tmp_path / out
        seed.main([*options, *([] if "--resume" in options else
                               ["--train-size", "96", "--batch-size", "8", "--out", str(out)]),
                   "--device", "cpu"])
        return out
    return run


@pytest.mark.parametrize("n_c, n_b", [(7, 12), (3, 0), (0, 5)])
def test_smoke(run, capsys, n_c, n_b):
    out = run("--n-c", str(n_c), "--n-b", str(n_b), "--epochs", "2", "--lr", "2e-3", "--seed", "3")
    saved, options = checkpoint(out), json.loads((out / "options.json").read_text())
    new = seed.build(seed.parse_args(["--resume", str(out)]), CPU)
    for name in ("G", "C"):
        assert all(not torch.equal(saved[name][key], tensor)
                   for key, tensor in new[name].named_parameters() if "weight" in key)
    assert saved["epoch"] == 2 and (options["n_c"], options["n_b"]) == (n_c, n_b)
    assert options["lr"] == 2e-3 and saved["G"]["0.weight"].shape == (6272, n_c + n_b)

    for picture in ("figure1-samples.png", "figure2-critic.png", "figure4-groups.png",
                    "training.gif", *(f"samples/epoch-00{epoch}.png" for epoch in range(3))):
        Image.open(out / picture).load()
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    assert [row["critic_step"] for row in rows] == [str(i) for i in range(1, 15)]
    assert all(math.isfinite(float(value)) for row in rows for value in row.values())

    results = json.loads((out / "results.json").read_text())
    for name in ("train", "test"):
        mean = sum(float(row[name]) for row in rows[-6:]) / 6
        assert results[f"wasserstein_{name}"] == pytest.approx(mean, rel=1e-5)
        assert math.isfinite(results[f"wasserstein_{name}_final"])
    for name in ("", "_final"):
        assert results[f"overfitting{name}"] == pytest.approx(
            results[f"wasserstein_train{name}"] - results[f"wasserstein_test{name}"], abs=1e-6)
    assert ("kept_if_z_c_redrawn" in results) == (n_c > 0)
    assert ("kept_if_z_b_redrawn" in results) == (n_b > 0)
    assert (results["n_c"], results["n_b"], results["seed"], results["epochs"]) == (n_c, n_b, 3, 2)
    assert results["parameters_G"] == count(new["G"])
    printed = capsys.readouterr().out.splitlines()
    assert "on cpu" in printed[0] and str(out) in printed[-1]


def test_results_are_right(run, data, monkeypatch):
    """With a generator whose digit is told by z_b, and z_c does nothing."""
    chosen = torch.tensor([data[3].tolist().index(digit) for digit in range(8)])
    images = data[2][chosen]
    drawn = []

    def generate(G, z):
        digit = (z[:, 2:] @ torch.tensor([1.0, 2.0, 4.0])).long()
        drawn.append(digit)
        return images[digit]

    monkeypatch.setattr(seed, "generate", generate)
    out = run("--n-c", "2", "--n-b", "3", "--epochs", "1")
    results = json.loads((out / "results.json").read_text())
    distances = torch.cdist(images, data[0][:96])
    labels = data[1][distances.argmin(1)]
    first, _, redrawn = drawn[-3:]  # as drawn, z_c drawn anew, z_b drawn anew
    shares = numpy.bincount(labels[first], minlength=10) / 100
    train = numpy.bincount(data[1][:96], minlength=10) / 96
    assert numpy.allclose(results["digit_shares"], shares)
    assert results["kl"] == pytest.approx(scipy.stats.entropy(shares, train), rel=1e-4)
    assert results["digits"] == (shares >= 0.02).sum()
    assert results["median_distance"] == pytest.approx(
        distances.min(1).values[first].median().item(), rel=1e-5)
    assert results["kept_if_z_c_redrawn"] == 1
    kept = (labels[first] == labels[redrawn]).float().mean().item()
    assert results["kept_if_z_b_redrawn"] == pytest.approx(kept) and kept < 0.5
    assert results["kept_if_all_redrawn"] == pytest.approx((shares**2).sum())
    assert results["label_accuracy_on_test_images"] == pytest.approx(
        (data[1][torch.cdist(data[2][:240], data[0][:96]).argmin(1)] == data[3][:240])
        .float().mean().item())


def test_every_configuration_sees_the_same_images_in_the_same_order(run, monkeypatch):
    """Through second passes and the final stretch; and the whole test set in every LAST steps."""
    monkeypatch.setattr(seed, "critic_steps", lambda step, steps: 14 if step % steps == 0 else 2)
    drawn, loss = [], seed.critic_loss
    monkeypatch.setattr(seed, "critic_loss", lambda C, real, fake, test:
                        drawn.append((real, fake, test)) or loss(C, real, fake, test))
    seen = {}
    for options in ("--n-c 7 --n-b 12", "--n-c 0 --n-b 3", "--n-c 7 --n-b 12 --seed 1"):
        run(*options.split(), "--epochs", "2", out=options.replace(" ", ""))
        seen[options] = drawn[:]
        drawn.clear()
    mixed, binary, other = seen.values()
    assert len(mixed) == len(binary) == 2 * 16 + 7
    for a, b in zip(mixed, binary):
        assert torch.equal(a[0], b[0]) and torch.equal(a[2], b[2])
        assert not torch.equal(a[1], b[1])
    # each pass, epoch and seed in an order of its own, with fakes of its own
    for drawn in (mixed, other):
        for i in (0, 1):
            assert len({tuple(step[i].sum(1).tolist()) for step in drawn}) == len(drawn)
    assert not torch.equal(mixed[0][0], other[0][0])
    passed = torch.cat([step[0] for step in mixed[:12]])  # the first pass is all of the 96 images
    assert len(passed.unique(dim=0)) == 96

    for start in (0, 3, 20):
        tested = torch.cat([step[2] for step in mixed[start:start + 6]])
        assert len(tested) == 240 and len(tested.unique(dim=0)) == 240


def test_final_stretch_moves_the_critic_alone_and_leaves_the_checkpoint(run, monkeypatch):
    calls, stretch = [], seed.final_stretch

    def remember(args, parts, train_x, test_x):
        before = {name: {k: w.clone() for k, w in parts[name].state_dict().items()}
                  for name in ("C", "G")}
        rows = stretch(args, parts, train_x, test_x)
        calls.append((before, parts, rows))
        return rows

    monkeypatch.setattr(seed, "final_stretch", remember)
    out = run("--epochs", "1")
    ((before, parts, rows),) = calls
    assert_same(before["G"], dict(parts["G"].state_dict()))
    assert not torch.equal(before["C"]["1.weight"], parts["C"].state_dict()["1.weight"])
    assert_same(before["C"], dict(checkpoint(out)["C"]))
    assert rows.shape == (6, 3)
    results = json.loads((out / "results.json").read_text())
    assert results["wasserstein_train_final"] == pytest.approx(rows[:, 1].mean().item())
    assert results["wasserstein_test_final"] == pytest.approx(rows[:, 2].mean().item())


def test_same_seed_same_bits_and_resumed_equals_uninterrupted(run):
    whole = run("--epochs", "3", out="whole")
    part = run("--epochs", "1", out="part")
    run("--resume", str(part), "--epochs", "3")
    assert_same(checkpoint(whole), checkpoint(part))
    for name in ("metrics.csv", "training.gif", "figure4-groups.png", "samples/epoch-003.png"):
        assert (whole / name).read_bytes() == (part / name).read_bytes()
    a, b = (json.loads((out / "results.json").read_text()) for out in (whole, part))
    for name in ("training_seconds", "evaluation_seconds"):
        assert a.pop(name) > 0 < b.pop(name)
    assert a == b


def test_each_player_leaves_the_other_alone(run, monkeypatch):
    """Nothing of C changes in a step of G, and no weight of G in a step of C."""
    parts, history = {}, []
    build, c_loss, g_loss = (getattr(seed, name) for name in
                             ("build", "critic_loss", "generator_loss"))

    def remember(player):
        history.append((player, *({key: w.detach().clone() for key, w in
                                   parts[name].state_dict().items()} for name in ("G", "C")),
                        [w.grad.clone() for w in parts["C"].parameters() if w.grad is not None]))

    monkeypatch.setattr(seed, "build", lambda *a: parts.update(build(*a)) or dict(parts))
    monkeypatch.setattr(seed, "critic_loss", lambda *a: remember("C") or c_loss(*a))
    monkeypatch.setattr(seed, "generator_loss", lambda *a: remember("G") or g_loss(*a))
    run("--epochs", "1")
    assert "".join(player for player, *_ in history) == "CCCCCGCCG" + 7 * "C"
    for (player, G, C, gradients), (_, next_G, next_C, next_gradients) in zip(history,
                                                                              history[1:]):
        if player == "C":
            assert_same(G, next_G)
            assert not torch.equal(C["1.weight"], next_C["1.weight"])
        else:
            assert_same(C, next_C)
            assert_same(gradients, next_gradients)
            assert not torch.equal(G["0.weight"], next_G["0.weight"])


@pytest.mark.parametrize("loss, breaks_at, steps", [("critic_loss", 9, "8 to 14"),
                                                    ("generator_loss", 4, "8 to 14")])
def test_nan_stops_the_run_and_names_the_step(run, monkeypatch, tmp_path, loss, breaks_at, steps):
    calls, whole = [], getattr(seed, loss)

    def breaks(*arguments):
        calls.append(1)
        value = whole(*arguments)
        if len(calls) != breaks_at:
            return value
        return value * math.nan if loss == "generator_loss" else (value[0] * math.nan, value[1])

    monkeypatch.setattr(seed, loss, breaks)
    with pytest.raises(SystemExit) as stop:
        run("--epochs", "3")
    assert re.search(rf"not finite in critic steps {steps} \(epoch 2\)", str(stop.value.code))
    assert checkpoint(tmp_path / "run")["epoch"] == 1


def test_interrupted_run_can_be_continued(run, monkeypatch, tmp_path, capsys):
    whole = run("--epochs", "2", out="whole")
    calls, loss = [], seed.generator_loss

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss(*arguments)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(seed, "generator_loss", interrupted)
        run("--epochs", "2")
    assert stop.value.code == 130
    out = tmp_path / "run"
    assert f"python wgan_gp_binary_seed.py --resume {out}" in capsys.readouterr().err
    run("--resume", str(out))
    assert_same(checkpoint(whole), checkpoint(out))


@pytest.mark.parametrize("options, complaint", [
    (["--n-c", "0", "--n-b", "0"], "--n-c: 0 together with --n-b 0 leaves no seed"),
    (["--n-c", "-1"], "--n-c: '-1' is not a whole number from 0 to 10000"),
    (["--n-b", "1.5"], "--n-b: '1.5' is not a whole number from 0 to 10000"),
    (["--dims", "0", "4"], "--dims: goes with --paper"),
    (["--paper", "--dims", "0"], "--dims: 0 alone leaves no seed"),
    (["--paper", "--dims", "4", "x"], "--dims: 'x' is not a whole number"),
    (["--paper", "--dims"], "--dims: expected at least one argument"),
    (["--epochs", "0"], "--epochs: '0' is not a whole number from 1"),
    (["--epochs", "-3"], "--epochs: '-3' is not a whole number"),
    (["--batch-size", "0"], "--batch-size: '0' is not a whole number from 2"),
    (["--batch-size", "64", "--train-size", "63"], "--batch-size: 64 is more than"),
    (["--train-size", "60001"], "--train-size: '60001' is not a whole number from 2 to 60000"),
    (["--lr", "nan"], "--lr: 'nan' is not a number from 1e-09 to 10"),
    (["--lr", "0"], "--lr: '0' is not a number from 1e-09 to 10"),
    (["--seed", "-1"], "--seed: '-1' is not a whole number from 0"),
    (["--device", "tpu"], "--device: invalid choice"),
    (["--device", "mps"], "--device: there is no mps here"),
    (["--device", "cuda"], "--device: there is no cuda here"),
    (["--resume", "nowhere"], "--resume: nowhere holds no whole run of wgan_gp_binary_seed.py"),
    (["--out", "here"], "--out: here exists"),
    (["--resume", "here", "--paper"], "--resume: not allowed with --paper or --out"),
    (["--paper", "--seed", "1"], "--seed: --paper runs through its values itself"),
    (["--paper", "--n-c", "12"], "--n-c: --paper runs through its values itself"),
    (["--neuron", "sbn"], "unrecognized arguments: --neuron sbn"),
])
def test_bad_options_end_with_one_line_and_change_nothing(options, complaint, tmp_path,
                                                          monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(SystemExit) as stop:
        seed.main(options)
    assert stop.value.code == 2
    assert complaint in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


def test_bad_ways_to_resume(run, capsys):
    out = run("--epochs", "2")
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    for options, complaint in ((["--n-c", "12"], "--n-c: the run in"),
                               (["--seed", "1"], "--seed: the run in"),
                               (["--epochs", "1"], "has 2 already"),
                               (["--out", "elsewhere"], "--resume: not allowed with")):
        with pytest.raises(SystemExit) as stop:
            seed.main(["--resume", str(out), *options])
        assert stop.value.code == 2
        assert complaint in capsys.readouterr().err.splitlines()[-1]
    assert before == {path: path.read_bytes() for path in out.rglob("*.*")}

    options = json.loads((out / "options.json").read_text())
    (out / "options.json").write_text(json.dumps(options | {"script": "binarygan.py"}))
    with pytest.raises(SystemExit) as stop:
        seed.main(["--resume", str(out)])
    assert stop.value.code == 2
    assert "holds no whole run of wgan_gp_binary_seed.py" in capsys.readouterr().err


def test_search_is_interrupted_and_continued(run, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(seed, "SELECTION", ((4, 0), (7, 12)))
    options = ["--paper", "--dims", "4", "0", "4", "--epochs", "1"]
    trained, train = [], seed.train

    def stops_in_the_third(args):
        trained.append(seed.configuration(args))
        if len(trained) == 3:
            with monkeypatch.context() as patch:
                patch.setattr(seed, "generator_loss", lambda *_: (_ for _ in ()).throw(
                    KeyboardInterrupt))
                train(args)
        train(args)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(seed, "train", stops_in_the_third)
        run(*options)
    assert stop.value.code == 130
    printed = capsys.readouterr()
    assert "To continue: python wgan_gp_binary_seed.py --paper --dims 4 0 4" in printed.err
    assert re.search(r"Left: 3 of 5 trainings, about \d+\.\d hours", printed.out)
    out = tmp_path / "run"
    for name in ("figure2-critic.png", "figure3-search.png"):  # of what there is so far
        Image.open(out / name).load()
    rows = [row["run"] for row in csv.DictReader((out / "results.csv").open())]
    assert rows == ["c4-b0-seed0", "c4-b0-seed1"]

    monkeypatch.setattr(seed, "train",
                        lambda args: trained.append(seed.configuration(args)) or train(args))
    run(*options)
    # nothing is trained twice but the one that was stopped
    assert trained == ["c4-b0-seed0", "c4-b0-seed1", "c4-b0-seed2", "c4-b0-seed2",
                       "c0-b4-seed0", "c4-b4-seed0"]
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert [row["run"] for row in rows] == list(dict.fromkeys(trained))
    assert [(row["n_c"], row["n_b"]) for row in rows[2:]] == [("4", "0"), ("0", "4"), ("4", "4")]
    table = capsys.readouterr().out.splitlines()[-6:-1]
    assert [line.split()[0] for line in table] == [row["run"] for row in rows]
    run(*options)  # all is there: only the figures and the table once more
    assert len(trained) == 6
    for other, complaint in (("--lr 0.01", "argument --lr: the run in"),
                             ("--epochs 0", "argument --epochs: '0' is not")):
        with pytest.raises(SystemExit) as stop:
            run(*options, *other.split())
        assert stop.value.code == 2 and complaint in capsys.readouterr().err.splitlines()[-1]


# ---- the repository -----------------------------------------------------------------------------
