"""Tests of recurrent_disc_toy.py: the exact outputs, what D minimizes, how it is trained."""

import csv
import itertools
import math
from fractions import Fraction

import numpy
import pytest
import scipy.special
import scipy.stats
import torch
from torch import nn

import recurrent_disc_toy as toy

# ---- what is known ------------------------------------------------------------------------------


def posterior(categories):
    """Bayes' rule for one set, real and generated sets equally frequent."""
    real = generated = Fraction(1)
    for category in categories:
        real *= Fraction(1, 10)
        generated *= Fraction(1, 5) if category < 5 else 0
    return real / (real + generated)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_exact_output_against_bayes_rule_for_every_set(k):
    for categories in itertools.product(range(10), repeat=k):
        expected = 1 if max(categories) >= 5 else toy.likelihood(k)
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
    rows, missing = toy.tables(Bayes(), size)
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
    rows, _ = toy.tables(Bayes(lambda row: -0.1 * (row == [0, 0, 1])), 3)
    assert rows[2]["worst_error"] == pytest.approx(0.1, abs=1e-6)
    assert rows[2]["lowest"] == pytest.approx(1 / 9 - 0.1, abs=1e-6)
    rows, _ = toy.tables(Bayes(lambda row: 0.3 * (row == [4, 0, 3])), 3)
    assert rows[2]["worst_error"] == pytest.approx(0.3, abs=1e-6)
    assert rows[2]["mean"] == pytest.approx(1 / 9 + 0.3 / 125, abs=1e-6)
    assert rows[2]["highest"] == pytest.approx(1 / 9 + 0.3, abs=1e-6)
    assert rows[1]["worst_error"] == pytest.approx(0, abs=1e-6)
    _, missing = toy.tables(Bayes(lambda row: -0.3 * (row == [4, 9, 3])), 3)
    lowest = {(row["place"], row["k"]): row["lowest"] for row in missing}
    mean = {(row["place"], row["k"]): row["mean"] for row in missing}
    assert lowest.pop((2, 3)) == pytest.approx(0.7, abs=1e-6)
    assert mean.pop((2, 3)) == pytest.approx(1 - 0.3 / 125, abs=1e-6)
    assert min(lowest.values()) == pytest.approx(1, abs=1e-6)


# ---- network and objective ----------------------------------------------------------------------


def test_output_i_depends_on_samples_1_to_i():
    torch.manual_seed(0)
    D, sets = toy.Discriminator(10).double(), torch.rand(3, 5, 10).double()
    logits = D(sets)
    assert logits.shape == (3, 5)
    for place in range(5):
        changed = sets.clone()
        changed[:, place] = torch.rand(3, 10)
        differs = D(changed) != logits
        assert not differs[:, :place].any() and differs[:, place:].all()
        assert torch.allclose(D(sets[:, : place + 1]), logits[:, : place + 1], rtol=1e-12)


def test_cross_entropy_against_its_definition():
    logits = torch.randn(6, 4).double() * 5
    D = scipy.special.expit(logits.numpy())
    for target in (0, 0.3, 1):
        expected = -(target * numpy.log(D) + (1 - target) * numpy.log(1 - D)).mean()
        assert toy.cross_entropy(logits, target).item() == pytest.approx(expected)
    assert toy.cross_entropy(torch.tensor([-1000.0]), 1).item() == 1000  # no underflow


def test_discriminator_loss_against_its_definition():
    D = toy.Discriminator(6).double()
    real, fake = torch.rand(5, 3, 6).double(), torch.rand(5, 3, 6).double()
    on_real, on_fake = (scipy.special.expit(D(sets).detach().numpy()) for sets in (real, fake))
    expected = -numpy.log(on_real).mean() - numpy.log(1 - on_fake).mean()
    assert toy.discriminator_loss(D, real, fake).item() == pytest.approx(expected)


def test_the_exact_output_is_where_the_loss_is_least():
    """Over all 10^2 real and 5^2 generated sets: any other output for any set costs more."""
    real = torch.cartesian_prod(torch.arange(10), torch.arange(10))
    fake = torch.cartesian_prod(torch.arange(5), torch.arange(5)).repeat(4, 1)  # as many
    least = toy.discriminator_loss(Bayes(), toy.encode(real), toy.encode(fake)).item()
    for wrong in (lambda row: 0.03, lambda row: -0.03, lambda row: 0.1 * (row == [0, 1])):
        loss = toy.discriminator_loss(Bayes(wrong), toy.encode(real), toy.encode(fake)).item()
        assert loss > least + 1e-4


# ---- the algorithm ------------------------------------------------------------------------------


def new(size=10):
    torch.manual_seed(3)
    D, mean_D = toy.Discriminator(size), toy.Discriminator(size)
    return D, mean_D, torch.optim.Adam(D.parameters())


def test_mean_of_networks():
    networks = [nn.Linear(5, 3) for _ in range(7)]
    mean = nn.Linear(5, 3)
    for count, network in enumerate(networks, 1):
        toy.update_mean(mean, network, count)
        if count == 1:
            assert torch.equal(mean.weight, network.weight)  # to the last bit
    for name in ("weight", "bias"):
        expected = torch.stack([getattr(network, name) for network in networks]).mean(0)
        assert torch.allclose(getattr(mean, name), expected, atol=1e-6)


def test_rate_falls_and_later_weights_are_averaged(monkeypatch):
    monkeypatch.setattr(toy, "STEPS", 8)
    D, mean_D, opt = new()
    rates, weights = [], []
    for loss in toy.fit(D, mean_D, opt, 1):
        assert loss.shape == (1,) and not loss.requires_grad
        rates.append(opt.param_groups[0]["lr"])
        weights.append([w.detach().clone() for w in D.parameters()])
    assert rates == pytest.approx([2e-3 * rest / 8 for rest in (8, 7, 6, 5, 4, 3, 2, 1)])
    for i, w in enumerate(mean_D.parameters()):
        assert torch.allclose(w, torch.stack([of[i] for of in weights[4:]]).mean(0), atol=1e-7)
    assert not torch.allclose(mean_D.readout.weight, weights[-1][-2], atol=1e-4)


def test_sets_of_both_populations(monkeypatch):
    seen = []

    def loss(D, real, fake):
        seen.append((real.argmax(2), fake.argmax(2)))
        for sets in (real, fake):
            assert torch.equal(sets.sum(2), torch.ones(sets.shape[:2]))  # one-hot
        return D(real).mean() + D(fake).mean()

    monkeypatch.setattr(toy, "discriminator_loss", loss)
    monkeypatch.setattr(toy, "STEPS", 40)
    list(toy.fit(*new(), 2))
    for sets, categories in zip(map(torch.cat, zip(*seen)), (10, 5)):
        assert len(sets) == 40 * 128
        pairs = torch.bincount(10 * sets[:, 0] + sets[:, 1], minlength=100).view(10, 10)
        assert pairs[categories:].sum() == pairs[:, categories:].sum() == 0
        pairs = pairs[:categories, :categories].flatten()
        assert scipy.stats.chisquare(pairs).pvalue > 1e-4  # uniform, and independent


def test_the_lstm_approaches_the_exact_outputs(monkeypatch):
    """Shortened; an output one depth off would be wrong by 0.08 and more."""
    monkeypatch.setattr(toy, "STEPS", 400)
    monkeypatch.setattr(toy, "SETS", 32)
    D, mean_D, opt = new()
    for _ in toy.fit(D, mean_D, opt, 3):
        pass
    rows, missing = toy.tables(mean_D, 3)
    for row in rows:
        assert row["mean"] == pytest.approx(float(posterior([0] * row["k"])), abs=0.04)
        assert row["worst_error"] < 0.06
    assert all(row["lowest"] > 0.9 for row in missing)


# ---- runs ---------------------------------------------------------------------------------------


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(toy, "STEPS", 2)
    monkeypatch.setattr(toy, "SETS", 4)


@pytest.mark.parametrize("size", [1, 4])
def test_a_run_is_told_by_its_tables(short, tmp_path, monkeypatch, capsys, size):
    torch.manual_seed(0)
    rows, missing = toy.tables(toy.Discriminator(10), size)
    rows[-1]["mean"] -= 0.9  # the largest error of a mean is one of too low a mean
    monkeypatch.setattr(toy, "tables", lambda D, k: (rows, missing))
    options = toy.Options(set_size=size, seed=3, device="cpu")
    results = toy.train(options, tmp_path / "a")
    for name, table in (("figure3.csv", rows), ("missing.csv", missing)):
        lines = list(csv.DictReader((tmp_path / "a" / name).open()))
        assert [{key: float(value) for key, value in line.items()} for line in lines] == table
    assert results["mean_by_k"] == [row["mean"] for row in rows] and len(rows) == size
    assert results["worst_error_by_k"] == [row["worst_error"] for row in rows]
    assert results["worst_error"] == max(results["worst_error_by_k"])
    assert results["error_of_mean"] == max(abs(row["mean"] - row["exact"]) for row in rows)
    assert results["lowest_with_missing"] == min(row["lowest"] for row in missing)
    line = capsys.readouterr().out.splitlines()[2]
    assert line == f" 1{rows[0]['mean']:9.4f}   0.3333   0.3363{rows[0]['worst_error']:13.4f}"

    with pytest.raises(FileExistsError):
        toy.train(options, tmp_path / "a")


def test_same_seed_same_bits(short, tmp_path):
    a, b, c = (toy.train(toy.Options(seed=seed, device="cpu"), tmp_path / name)
               for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert a.pop("training_seconds") >= 0 <= b.pop("training_seconds")
    assert a == b and a["mean_by_k"] != c["mean_by_k"]


def test_the_mean_of_the_weights_is_evaluated(short, tmp_path, monkeypatch):
    """Of two steps only the second counts."""
    pair, fit = [], toy.fit
    monkeypatch.setattr(toy, "fit", lambda D, mean_D, opt, size:
                        pair.extend((D, mean_D)) or fit(D, mean_D, opt, size))
    monkeypatch.setattr(toy, "STEPS", 4)
    results = toy.train(toy.Options(device="cpu"), tmp_path / "a")
    means = [[row["mean"] for row in toy.tables(D, 4)[0]] for D in pair]
    assert results["mean_by_k"] == means[1] != means[0]


def test_figure_3_shows_the_tables(monkeypatch, tmp_path):
    figures = []
    monkeypatch.setattr(toy.Figure, "savefig", lambda self, *_, **__: figures.append(self))
    rows, missing = toy.tables(Bayes(lambda row: -0.05 * (row == [0, 1])), 3)
    toy.save_figure_3(rows, missing, tmp_path / "none.png")
    left, right = figures[0].axes
    exact, mean, paper = (line.get_xydata() for line in left.lines)
    assert numpy.allclose(exact, [(1, 1 / 3), (2, 1 / 5), (3, 1 / 9)])
    assert numpy.allclose(mean, [(row["k"], row["mean"]) for row in rows])
    assert numpy.allclose(paper, [(1, 0.3363147), (2, 0.1982634), (3, 0.1088916)])
    (ranges,) = (segments.get_segments() for segments in left.collections)
    assert numpy.allclose(ranges[1], [(2, 0.15), (2, 0.2)], atol=1e-6)
    assert [line.get_xdata().tolist() for line in right.lines[::2]] == [[1, 2, 3], [2, 3], [3]]
    assert all(numpy.allclose(line.get_ydata(), 1, atol=1e-6) for line in right.lines)


def test_sets_are_not_larger_than_the_tables_can_be():
    with pytest.raises(ValueError, match="--set-size: 7 is not a whole number from 1 to 6"):
        toy.Options(set_size=7)


@pytest.mark.parametrize("k", (1, 2, 4))
@pytest.mark.parametrize("kinds", (1, 3, 5, 10))
def test_divergence_against_all_sets_counted(kinds, k):
    """All 10^k sets, each with its two probabilities."""
    sets = numpy.stack(numpy.meshgrid(*[numpy.arange(10)] * k), -1).reshape(-1, k)
    real, made = numpy.full(len(sets), 10.0**-k), (sets < kinds).all(1) / float(kinds) ** k
    middle = (real + made) / 2
    expected = (scipy.stats.entropy(real, middle) + scipy.stats.entropy(made, middle)) / 2
    assert toy.divergence(kinds / 10, k) == pytest.approx(expected, abs=1e-12)


def test_divergence_is_what_the_best_discriminator_gains():
    """The loss (1) of the exact outputs, for p = 1/2 and the last depth alone."""
    for k in (1, 3):
        d = toy.likelihood(k)
        loss = -(0.5**k * math.log(d) + 0) - math.log(1 - d)  # sets with a missing kind: log 1
        assert loss == pytest.approx(2 * math.log(2) - 2 * toy.divergence(0.5, k))
    assert toy.divergence(0, 1) == pytest.approx(math.log(2)) and toy.divergence(1, 4) == 0
