"""Tests of wgan_gp_binary_seed.py: its mathematics, and what a run and the search leave."""

import csv
import json
import math

import numpy
import pytest
import scipy.signal
import scipy.stats
import torch
from conftest import assert_same, build, checkpoint
from matplotlib.figure import Figure
from torch import nn

import common
import wgan_gp_binary_seed as seed

CPU = torch.device("cpu")


# ---- networks -----------------------------------------------------------------------------------


def test_seeds_are_normal_and_bernoulli_variables():
    z = seed.sample_z(200_000, 3, 4, CPU).double().numpy()
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


def test_binary_variables_of_minus_one_and_one_have_the_moments_of_normal_ones():
    z_b = seed.sample_z(200_000, 1, 4, CPU, low=-1)[:, 1:].double().numpy()
    assert numpy.isin(z_b, (-1, 1)).all()
    assert numpy.abs(z_b.mean(0)).max() < 5 / math.sqrt(200_000)  # standard errors
    assert z_b.var() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("n_c, n_b", [(0, 5), (5, 0)])
def test_seeds_of_one_kind(n_c, n_b):
    z = seed.sample_z(100, n_c, n_b, CPU)
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


def test_leaky_relu_is_that_of_torch_but_its_second_derivative_is_left_out():
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


def test_initial_critic_depends_on_the_seed_alone():
    critics = [build(seed, seed.Options(**options))["C"].state_dict() for options in (
        {"n_c": 7, "n_b": 12}, {"n_c": 0, "n_b": 2}, {"n_c": 196, "n_b": 0}, {"seed": 1})]
    for other in critics[1:3]:
        assert_same(dict(critics[0]), dict(other))
    assert not torch.equal(critics[0]["1.weight"], critics[3]["1.weight"])


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
    x_hat, steps = epsilon * real + (1 - epsilon) * fake, 1e-7 * torch.eye(784).double()
    with torch.no_grad():  # C is piecewise linear: one side is enough
        gradient = (C(x_hat + steps) - C(x_hat)) / 1e-7
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
    """C(x) = |x|^2 / 2 has gradient x: the penalty is known once x_hat is."""
    seen = []

    def C(x):
        seen.append(x.detach())
        return x.square().sum(1, keepdim=True) / 2

    real, fake = torch.rand(16, 50) * torch.arange(1, 17).view(-1, 1), torch.rand(16, 50)
    penalty = seed.gradient_penalty(C, real, fake)
    (x_hat,) = seen
    assert penalty.item() == pytest.approx(((x_hat.norm(dim=1) - 1) ** 2).mean().item())
    epsilon = ((x_hat - fake) / (real - fake)).median(1).values  # one for each image
    assert torch.allclose(x_hat, epsilon.view(-1, 1) * (real - fake) + fake, atol=1e-3)
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
    loss.backward()  # C does not learn from the test images
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
    optimizer = torch.optim.Adam(C.parameters(), 4e-3, (0.5, 0.9))
    fake = torch.tensor([[0.3, 0.1]]).expand(64, 2)
    real = fake + d * torch.tensor([0.6, 0.8])
    estimates = []
    for step in range(400):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * (1 - step / 400)
        loss, estimate = seed.critic_loss(C, real, fake, real[:1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        estimates.append(estimate)
    assert torch.stack(estimates[-50:]).mean().item() == pytest.approx(d * (1 + d / 20), rel=0.01)


# ---- the algorithm ------------------------------------------------------------------------------


def test_blocks_open_the_epochs_and_leave_the_last_200_critic_steps_alone():
    schedule = [seed.critic_steps(step, 78) for step in range(9 * 78)]
    assert [step for step, n in enumerate(schedule) if n == 100] == list(range(0, 702, 78))
    assert set(schedule) == {6, 100} and sum(schedule) == 9 * (77 * 6 + 100) == 5058
    for steps in range(1, 200):
        schedule = [seed.critic_steps(step, steps) for step in range(2 * steps)]
        sizes = [n for n in schedule for _ in range(n)]  # for each critic step, how many go with it
        assert 100 not in sizes[-200:]
        assert (100 in sizes) == (steps >= 35)


@pytest.fixture
def players():
    """G and C for n_c = 2, n_b = 3, their optimizers, and pairs of minibatches without end."""
    torch.manual_seed(0)
    state = build(seed, seed.Options(n_c=2, n_b=3))
    batches = iter(lambda: (torch.rand(4, 784), torch.rand(2, 784)), None)
    return *(state[name] for name in ("G", "C", "opt_g", "opt_c")), batches


def test_each_player_leaves_the_other_alone(players, monkeypatch):
    """Nothing of C changes in a step of G, and nothing of G in a step of C."""
    G, C, opt_g, opt_c, batches = players
    c_loss, g_loss, history, rows = seed.critic_loss, seed.generator_loss, [], []

    def remember(player):
        history.append((player, *({name: w.detach().clone() for name, w in
                                   network.named_parameters()} for network in (G, C)),
                        *([w.grad.clone() for w in network.parameters() if w.grad is not None]
                          for network in (G, C))))

    def critic_loss(*arguments):
        remember("C")
        assert not arguments[2].requires_grad  # no graph of G
        loss, estimates = c_loss(*arguments)
        rows.append([loss.item(), *estimates.tolist()])
        return loss, estimates

    monkeypatch.setattr(seed, "critic_loss", critic_loss)
    monkeypatch.setattr(seed, "generator_loss", lambda *a: remember("G") or g_loss(*a))
    monkeypatch.setattr(seed, "critic_steps", lambda step, n: {4: 3, 5: 1}[step] if n == 2 else 0)
    yielded = list(seed.train_epoch(G, C, opt_g, opt_c, batches, range(4, 6), 2, 3))
    remember("end")
    assert "".join(player for player, *_ in history) == "CCCGCGend"
    for (player, *before), (_, *after) in zip(history, history[1:]):
        # before, after: weights of G, of C, gradients of G, of C
        moves, stays = (1, 0) if player == "C" else (0, 1)
        assert_same(before[stays], after[stays])
        assert_same(before[stays + 2], after[stays + 2])
        assert all(not torch.equal(before[moves][name], w) for name, w in after[moves].items()
                   if "weight" in name)
    assert [block.shape for block in yielded] == [(3, 3), (1, 3)]
    assert torch.cat(yielded).tolist() == rows  # from before each step


def test_final_critic_steps_train_the_critic_alone(players, monkeypatch):
    G, C, _, opt_c, batches = players
    monkeypatch.setattr(seed, "BLOCK", 1)
    monkeypatch.setattr(seed, "LAST", 3)
    step, rows = seed.critic_step, []
    monkeypatch.setattr(seed, "critic_step", lambda *a: rows.append(step(*a)) or rows[-1])
    before = [{name: w.clone() for name, w in network.state_dict().items()} for network in (G, C)]
    last = seed.final_critic_steps(G, C, opt_c, batches, 2, 3)
    assert len(rows) == 4 and torch.equal(last, torch.stack(rows[1:]))
    assert_same(before[0], dict(G.state_dict()))
    assert not torch.equal(before[1]["1.weight"], C.state_dict()["1.weight"])


# ---- evaluation and figures ---------------------------------------------------------------------


@pytest.mark.parametrize("n_c, n_b, names", [
    (3, 4, "a1 a2 a3 a4 a5 a6 b1 b2 b3 b4 b5 b6"), (3, 0, "b1 b2 b3 b4 b5 b6"),
    (0, 4, "a1 a2 a3 a4 a5 a6")])
def test_groups_of_figure_4(monkeypatch, n_c, n_b, names):
    monkeypatch.setattr(seed, "generate", lambda G, z: z)
    stream = torch.get_rng_state()
    panels = seed.groups(seed.generator(n_c + n_b), n_c, n_b, 0)
    torch.set_rng_state(stream)
    assert [title.split(":")[0] for title in panels] == names.split()
    fixed_parts = set()
    for title, z in panels.items():
        fixed, varies = (z[:, :n_c], z[:, n_c:]) if "a" in title[0] else (z[:, n_c:], z[:, :n_c])
        assert z.shape == (16, n_c + n_b) and (fixed == fixed[0]).all()
        assert len(varies.unique(dim=0)) > 5
        fixed_parts.add((title[0], *fixed[0].tolist()))
    assert len(fixed_parts) > 6 or n_c * n_b == 0  # from group to group the fixed part differs


def test_shares_of_unchanged_labels(data, monkeypatch):
    """With a generator whose digit is told by z_b, and z_c does nothing."""
    train_x, train_y, test_x, test_y = (tensor[:240] for tensor in data)
    images = data[2][torch.tensor([data[3].tolist().index(digit) for digit in range(8)])]
    generated = []

    def generate(G, z):
        generated.append(z)
        return images[(z[:, 2:] @ torch.tensor([1.0, 2.0, 4.0])).long()]

    monkeypatch.setattr(seed, "generate", generate)
    monkeypatch.setattr(seed, "SAMPLES", 400)
    stream = torch.get_rng_state()
    results = seed.evaluate(None, 2, 3, 0, train_x, train_y, test_x, test_y)
    assert torch.equal(stream, torch.get_rng_state())

    def labels(z):
        return train_y[torch.cdist(generate(None, z), train_x).argmin(1)]

    z, other_z_c, other_z_b = generated[0], *generated[-2:]
    assert torch.equal(other_z_c[:, 2:], z[:, 2:]) and torch.equal(other_z_b[:, :2], z[:, :2])
    assert (other_z_c[:, :2] != z[:, :2]).all()
    shares = numpy.bincount(labels(z), minlength=10) / 400
    assert numpy.allclose(results["class_distribution"], shares)
    assert results["label_unchanged_z_resampled"] == pytest.approx((shares**2).sum())
    assert results["label_unchanged_z_c_resampled"] == 1
    unchanged = (labels(z) == labels(other_z_b)).float().mean().item()
    assert results["label_unchanged_z_b_resampled"] == pytest.approx(unchanged)
    assert unchanged == pytest.approx((shares**2).sum(), abs=0.08)  # z_b alone tells the label


@pytest.mark.parametrize("n_c, n_b", [(3, 0), (0, 5)])
def test_a_part_that_is_not_there_is_not_resampled(data, monkeypatch, n_c, n_b):
    monkeypatch.setattr(seed, "SAMPLES", 20)
    results = seed.evaluate(seed.generator(n_c + n_b), n_c, n_b, 0, *(x[:50] for x in data))
    assert ("label_unchanged_z_c_resampled" in results) == (n_c > 0)
    assert ("label_unchanged_z_b_resampled" in results) == (n_b > 0)


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


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, by the name of the file."""
    saved = {}
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: saved.update({path: figure}))
    return saved


# ---- run ----------------------------------------------------------------------------------------


@pytest.fixture
def run(data, monkeypatch, tmp_path):
    """Run the program on 96 images in minibatches of 8, with small networks and few steps."""
    few = tuple(tensor[:240] for tensor in data)
    monkeypatch.setattr(common, "load_images", lambda root, dataset, size, device: (
        few[0][:size or None], few[1][:size or None], *few[2:]))
    monkeypatch.setattr(seed, "generator", lambda n_z: nn.Sequential(nn.Linear(n_z, 784),
                                                                     nn.Sigmoid()))
    monkeypatch.setattr(seed, "critic", lambda: nn.Sequential(nn.Linear(784, 8), seed.LeakyReLU(),
                                                              nn.Linear(8, 1)))
    monkeypatch.setattr(seed, "critic_steps", lambda step, steps: 5 if step % steps == 0 else 2)
    monkeypatch.setattr(seed, "BLOCK", 1)
    monkeypatch.setattr(seed, "LAST", 6)
    monkeypatch.setattr(seed, "SAMPLES", 100)

    def run(*options, out="run"):
        seed.main([*options, "--train-size", "96", "--batch-size", "8", "--device", "cpu",
                   "--out", str(tmp_path / out)])
        return tmp_path / out
    return run


def test_numbers_of_a_run(run, figures, monkeypatch):
    final, kept = seed.final_critic_steps, []
    lows, sample_z = set(), seed.sample_z
    monkeypatch.setattr(seed, "sample_z", lambda *a: lows.add(a[4]) or sample_z(*a))
    monkeypatch.setattr(seed, "final_critic_steps",
                        lambda *a: kept.append(final(*a)) or kept[-1])
    out = run("--epochs", "2", "--seed", "3", "--low", "-1")
    assert lows == {-1}  # in every step, sample and number
    results, log = json.loads((out / "results.json").read_text()), checkpoint(out)["log"]
    rows = list(csv.reader((out / "metrics.csv").open()))
    assert rows[0] == ["critic_step", "c_loss", "train", "test"]
    # every critic step: two epochs of two generator steps, with 5 and 2 critic steps before them
    assert [[float(v) for v in row] for row in rows[1:]] == [
        [step, *losses] for step, losses in enumerate(log, 1)] and len(log) == 14
    for name, losses in (("", torch.tensor(log[-6:])), ("_final", kept[0])):
        _, train, test = losses.double().mean(0).tolist()
        assert results[f"wasserstein_train{name}"] == pytest.approx(train, rel=1e-5)
        assert results[f"wasserstein_test{name}"] == pytest.approx(test, rel=1e-5)
        assert results[f"overfitting{name}"] == pytest.approx(train - test, abs=1e-5)
    panels = figures[out / "figure2-critic.png"].axes
    for column, curve in ((1, 0), (2, 1)):
        estimates = torch.tensor([losses[column] for losses in log])
        for axes, expected in zip(panels, (estimates, seed.smooth(estimates))):
            x, y = axes.lines[curve].get_data()
            assert list(x) == list(range(1, 15)) and numpy.allclose(y, expected)


def test_every_configuration_sees_the_same_images_in_the_same_order(run, monkeypatch):
    """Through second passes and the final critic steps; all test images in every LAST steps."""
    monkeypatch.setattr(seed, "critic_steps", lambda step, steps: 14 if step % steps == 0 else 2)
    monkeypatch.setattr(seed, "save_figures", lambda *_: None)
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

    for start in (0, 3, 13, 20):  # the second epoch begins after 16 critic steps
        tested = torch.cat([step[2] for step in mixed[start:start + 6]])
        assert len(tested) == 240 and len(tested.unique(dim=0)) == 240


@pytest.mark.parametrize("breaks_at", [1, 4])
def test_a_broken_loss_of_the_generator_stops_the_run(run, monkeypatch, tmp_path, breaks_at):
    """It is not read, but what follows is: the critic's losses, or G's weights after the epoch."""
    calls, loss = [], seed.generator_loss

    def breaks(*arguments):
        calls.append(1)
        return loss(*arguments) * (math.nan if len(calls) == breaks_at else 1)

    monkeypatch.setattr(seed, "generator_loss", breaks)
    with pytest.raises(SystemExit) as stop:
        run("--epochs", "3")
    epoch = (breaks_at + 1) // 2
    assert "is not finite" in str(stop.value.code) and f"epoch {epoch}" in str(stop.value.code)
    assert checkpoint(tmp_path / "run")["epoch"] == epoch - 1


# ---- the search ---------------------------------------------------------------------------------


def test_no_seed_at_all(capsys):
    with pytest.raises(SystemExit) as stop:
        seed.main(["--n-c", "0", "--n-b", "0"])
    assert stop.value.code == 2
    assert "--n-c: 0 together with --n-b 0 leaves no seed" in capsys.readouterr().err
