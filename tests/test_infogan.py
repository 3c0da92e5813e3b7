"""The mathematics of infogan.py."""

import itertools
import math
from fractions import Fraction

import numpy
import pytest
import scipy.stats
import torch
from torch import nn

import infogan

# ---- networks -----------------------------------------------------------------------------------


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_parameter_counts():
    """Table 1 by hand; batch normalization has two parameters for each feature."""
    G, (trunk, D, Q) = infogan.generator(), infogan.trunk_d_and_q()
    assert count(G) == (75 * 1024 + 2 * 1024 + 1025 * 6272 + 2 * 6272
                        + (128 * 16 + 1) * 64 + 2 * 64 + 64 * 16 + 1)
    assert count(trunk) == ((16 + 1) * 64 + (64 * 16 + 1) * 128 + 2 * 128
                            + 6273 * 1024 + 2 * 1024)
    assert count(D) == 1025
    assert count(Q) == 1025 * 128 + 2 * 128 + 129 * 14


def test_image_sizes_and_batch_norm():
    def sizes(network, x):
        seen = []
        for layer in network:
            x = layer(x)
            if x.ndim == 4 and tuple(x.shape[1:]) not in seen:
                seen.append(tuple(x.shape[1:]))
        return seen, tuple(x.shape)

    G, (trunk, _, Q) = infogan.generator(), infogan.trunk_d_and_q()
    assert sizes(G, torch.rand(2, 74)) == ([(128, 7, 7), (64, 14, 14), (1, 28, 28)], (2, 784))
    assert sizes(trunk, torch.rand(2, 784)) == ([(1, 28, 28), (64, 14, 14), (128, 7, 7)],
                                                (2, 1024))
    assert sizes(Q, torch.rand(2, 1024)) == ([], (2, 14))
    norms = [sum(isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)) for layer in network)
             for network in (G, trunk, Q)]
    assert norms == [3, 2, 1]
    assert not list(trunk.buffers()) + list(Q.buffers())  # no running statistics in D and Q


def test_prior():
    z, c = infogan.sample_prior(20_000, torch.device("cpu"))
    assert z.shape == (20_000, 62) and c.shape == (20_000, 12)
    assert (c[:, :10].sum(1) == 1).all() and c[:, :10].unique().tolist() == [0, 1]
    assert scipy.stats.chisquare(c[:, :10].sum(0)).pvalue > 1e-4
    for uniform in (z[:, 0], z[:, 61], c[:, 10], c[:, 11]):
        assert scipy.stats.kstest(uniform, scipy.stats.uniform(-1, 2).cdf).pvalue > 1e-4
    assert numpy.abs(numpy.corrcoef(c[:, 10:].T)[0, 1]) < 0.05
    z, c = infogan.fixed_prior(5, 3, torch.device("cpu"))
    state = torch.get_rng_state()
    again = infogan.fixed_prior(5, 3, torch.device("cpu"))
    assert torch.equal(z, again[0]) and torch.equal(c, again[1])
    assert torch.equal(state, torch.get_rng_state())


# ---- objectives ---------------------------------------------------------------------------------

# a channel from ten codes to four symbols: P(x | c) in eighths, a row for each c
CHANNEL = torch.tensor([[8, 0, 0, 0], [0, 8, 0, 0], [0, 0, 8, 0], [0, 0, 0, 8], [4, 4, 0, 0],
                        [2, 2, 2, 2], [1, 2, 5, 0], [0, 0, 1, 7], [3, 0, 5, 0], [1, 1, 1, 5]])


def pairs_of_channel():
    """Each pair (c, x) as often as it is likely, and the exact I(c; x) and P(c | x)."""
    pairs = [(c, x) for c in range(10) for x in range(4) for _ in range(CHANNEL[c, x])]
    joint = CHANNEL.double().numpy() / 80
    product = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    information = sum(p * math.log(p / q) for p, q in zip(joint.flat, product.flat) if p)
    return torch.tensor(pairs), information, joint / joint.sum(0)


def bound_of_c1(posterior, pairs):
    """L_I of c1 where Q(c | x) is posterior[:, x]."""
    logits = torch.tensor(posterior).clamp(min=1e-300).log().T[pairs[:, 1]]
    reading = torch.cat([logits, torch.zeros(len(pairs), 4).double()], 1)
    codes = nn.functional.one_hot(pairs[:, 0], 10).double()
    return infogan.lower_bound(reading, torch.cat([codes, torch.zeros(len(pairs), 2)], 1))[0]


def test_bound_is_the_information_where_q_is_the_posterior():
    pairs, information, posterior = pairs_of_channel()
    assert bound_of_c1(posterior, pairs).item() == pytest.approx(information, rel=1e-12)


def test_bound_is_below_by_the_mean_divergence_of_q():
    pairs, information, posterior = pairs_of_channel()
    generator = numpy.random.default_rng(0)
    for _ in range(20):
        q = generator.dirichlet(numpy.ones(10), 4).T
        gap = sum(scipy.stats.entropy(posterior[:, x], q[:, x]) * CHANNEL[:, x].sum().item() / 80
                  for x in range(4))
        assert gap > 0.1
        assert bound_of_c1(q, pairs).item() == pytest.approx(information - gap, rel=1e-10)


def test_bound_of_a_code_that_is_read_without_error_is_its_entropy():
    c = torch.eye(12, dtype=torch.float64)[:10]
    reading = torch.cat([1000 * c[:, :10], torch.zeros(10, 4)], 1)
    assert infogan.lower_bound(reading, c)[0].item() == pytest.approx(math.log(10))
    assert infogan.lower_bound(0 * reading, c)[0].item() == pytest.approx(0, abs=1e-12)


def test_gaussian_likelihood_against_scipy():
    generator = torch.Generator().manual_seed(0)
    reading = torch.randn(50, 14, generator=generator).double()
    c = torch.rand(50, 12, generator=generator).double()
    mean, deviation = reading[:, 10:12].numpy(), numpy.exp(reading[:, 12:].numpy())
    likelihood = scipy.stats.norm(mean, deviation).logpdf(c[:, 10:].numpy()).sum(1).mean()
    prior = 2 * scipy.stats.uniform(-1, 2).entropy()
    assert infogan.lower_bound(reading, c)[1].item() == pytest.approx(prior + likelihood)


# ---- the algorithm ------------------------------------------------------------------------------


def small_networks():
    """G, trunk, D, Q like those of the script, but small: one layer each."""
    torch.manual_seed(0)
    G = nn.Sequential(nn.Linear(74, 784), nn.Sigmoid())
    trunk = nn.Sequential(nn.Linear(784, 16), nn.BatchNorm1d(16, track_running_stats=False),
                          nn.LeakyReLU(0.1))
    return {"G": G, "trunk": trunk, "D": nn.Linear(16, 1), "Q": nn.Linear(16, 14)}


def one_step(info, learner):
    """How each network moves in one step in which only that learner, "G" or "D", has a rate.

    The rate is 1, without momentum: the moves are the gradients with the sign changed.
    """
    networks = small_networks()
    before = {name: nn.utils.parameters_to_vector(network.parameters()).detach().clone()
              for name, network in networks.items()}
    readers = [w for name in ("trunk", "D", "Q") for w in networks[name].parameters()]
    opt_g = torch.optim.SGD(networks["G"].parameters(), float(learner == "G"))
    opt_d = torch.optim.SGD(readers, float(learner == "D"))
    real = torch.rand(8, 784)
    (row,) = infogan.train_epoch(*networks.values(), opt_g, opt_d, iter([real]), range(1), info)
    moved = {name: nn.utils.parameters_to_vector(network.parameters()).detach() - before[name]
             for name, network in networks.items()}
    return moved, row


def test_who_learns_in_which_step():
    """D's step moves no weight of G, and G's step none of D, Q and their trunk."""
    moved, _ = one_step(1.0, "D")
    assert not moved["G"].any() and all(moved[name].any() for name in ("trunk", "D", "Q"))
    moved, _ = one_step(1.0, "G")
    assert moved["G"].any() and not any(moved[name].any() for name in ("trunk", "D", "Q"))


def test_who_learns_from_the_bound(monkeypatch):
    """L_I moves G and the trunk in proportion to --info, Q always as much, and D never."""
    readers = {info: one_step(info, "D")[0] for info in (0, 1, 3)}
    generators = {info: one_step(info, "G")[0]["G"] for info in (0, 1, 3)}
    monkeypatch.setattr(infogan, "LAMBDA", (0, 0))
    plain, plain_G = one_step(1.0, "D")[0], one_step(1.0, "G")[0]["G"]

    assert readers[1]["Q"].any() and not plain["Q"].any()
    for info in (0, 1, 3):
        assert torch.equal(readers[info]["D"], plain["D"])
        assert torch.equal(readers[info]["Q"], readers[1]["Q"])
    for with_bound, without in ((generators, plain_G), (
            {info: moved["trunk"] for info, moved in readers.items()}, plain["trunk"])):
        assert torch.equal(with_bound[0], without)
        effect = with_bound[1] - without
        assert effect.norm() > 0.01 * without.norm()
        assert torch.allclose(with_bound[3] - without, 3 * effect,
                              atol=1e-4 * effect.abs().max().item())


def test_step_against_the_objectives():
    """The steps of D and Q and of G are the gradients of what the docstring says."""
    networks = small_networks()
    G, trunk, D, Q = networks.values()
    real = torch.rand(8, 784)
    z, c = infogan.sample_prior(8, torch.device("cpu"))
    fake = G(torch.cat([z, c], 1))
    probability = torch.sigmoid(D(trunk(fake)))
    bound = infogan.lower_bound(Q(trunk(fake)), c)
    information = bound[0] + 0.1 * bound[1]
    d_loss = -(torch.sigmoid(D(trunk(real))).log().mean() + (1 - probability).log().mean())
    g_loss = -probability.log().mean()

    def gradient(loss, name):
        found = torch.autograd.grad(loss, networks[name].parameters(), retain_graph=True)
        return nn.utils.parameters_to_vector(found)

    moved, row = one_step(1.0, "D")
    assert torch.allclose(row[[0, 2, 3]], torch.stack([d_loss, *bound]).detach(), atol=1e-5)
    assert torch.allclose(moved["trunk"], -gradient(d_loss - information, "trunk"), atol=1e-6)
    assert torch.allclose(moved["D"], -gradient(d_loss, "D"), atol=1e-6)
    assert torch.allclose(moved["Q"], -gradient(-information, "Q"), atol=1e-6)
    moved, row = one_step(1.0, "G")
    assert torch.allclose(moved["G"], -gradient(g_loss - information, "G"), atol=1e-6)
    assert row[1].item() == pytest.approx(g_loss.item(), abs=1e-5)


# ---- evaluation ---------------------------------------------------------------------------------


def test_one_image_is_read_among_others(data):
    """Not alone; and among a thousand others, whichever they are, much the same comes out."""
    trunk, _, Q = infogan.trunk_d_and_q()
    x = data[2]
    with pytest.raises(ValueError):
        infogan.read(trunk, Q, x[:1])
    first, second = (infogan.read(trunk, Q, torch.cat([x[:1], others]))
                     for others in (x[1:1000], x[1000:1999]))
    assert (first[0] - second[0]).abs().mean() < 0.2 * first.std(0).mean()


def test_matching_against_all_permutations():
    """Ten digits of which seven may be permuted: 5,040 matchings; the others are clear."""
    generator = torch.Generator().manual_seed(0)
    permutations = torch.tensor([(*p, 7, 8, 9) for p in itertools.permutations(range(7))])
    for _ in range(5):
        labels = torch.randint(7, (60,), generator=generator)
        noise = torch.randint(7, (60,), generator=generator)
        right = torch.rand(60, generator=generator) < 0.4
        categories = torch.where(right, (labels + 2) % 7, noise)
        clear = torch.tensor([7, 8, 9]).repeat(100)
        labels, categories = torch.cat([labels, clear]), torch.cat([categories, clear])
        numbers = infogan.classification(categories, labels, categories, labels)
        assert sorted(numbers["digit_of_category"]) == list(range(10))
        errors = (permutations[:, categories] != labels).float().mean(1)
        assert numbers["c1_error_train"] == pytest.approx(errors.min().item())
        assert (errors == errors.min()).sum() < 10


def test_training_images_choose_the_matching():
    """Categories are digits plus one in training; the test images disagree, and count as errors."""
    train_y, test_y = torch.arange(10).repeat(3), torch.arange(10)
    numbers = infogan.classification((train_y + 1) % 10, train_y, (test_y + 2) % 10, test_y)
    assert numbers["digit_of_category"] == [9, *range(9)]
    assert numbers["c1_error_train"] == 0 and numbers["c1_error_test"] == 1


def ellipse(half_width, half_height, shear, x=13.5, y=13.5):
    """A filled ellipse, sheared to the right by so many pixels a pixel upward; (784,)."""
    fine = (torch.arange(28 * 20) + 0.5) / 20 - 0.5
    up = y - fine.view(-1, 1)
    inside = ((fine - x - shear * up) / half_width) ** 2 + (up / half_height) ** 2 <= 1
    return inside.float().view(28, 20, 28, 20).mean((1, 3)).flatten()


@pytest.mark.parametrize("half_width, half_height, shear", [
    (3, 8, 0), (3, 8, 0.5), (3, 8, -0.5), (5, 7, 0.25), (2, 9, 0.3)])
def test_slant_and_width_of_ellipses(half_width, half_height, shear):
    """The ink of an ellipse deviates by half of its half axis, whatever the shear and place.

    Pixels blur it by the variance of a uniform number, 1/12.
    """
    images = torch.stack([ellipse(half_width, half_height, shear),
                          0.5 * ellipse(half_width, half_height, shear, 15, 12.2)])
    slant, width = infogan.slant_and_width(images)
    assert slant.tolist() == pytest.approx([math.degrees(math.atan(shear))] * 2, abs=0.5)
    assert width.tolist() == pytest.approx([math.sqrt(half_width**2 / 4 + 1 / 12)] * 2, rel=0.01)


class Drawn(nn.Module):
    """A generator of ellipses: c2 is the shear, c3 widens; c1 is not used."""

    def forward(self, seeds):
        return torch.stack([ellipse(4 + c3, 8, 0.2 * c2) for c2, c3 in seeds[:, 72:].tolist()])


def test_code_effect_on_drawn_ellipses():
    z, c = infogan.fixed_prior(30, 0, torch.device("cpu"))
    numbers = infogan.code_effects(Drawn(), z, c)
    assert numbers["c2_slant_correlation"] > 0.99 and numbers["c3_width_correlation"] > 0.99
    assert abs(numbers["c2_width_correlation"]) < 0.5
    assert numbers["c2_slant_degrees"] == pytest.approx(2 * math.degrees(math.atan(0.4)), abs=0.5)
    assert numbers["c2_width_pixels"] == pytest.approx(0, abs=0.05)
    assert numbers["c3_width_pixels"] == pytest.approx(2, abs=0.1)  # half of 4 pixels
    assert numbers["c3_slant_degrees"] == pytest.approx(0, abs=0.5)


class Lookup(nn.Module):
    """A generator that gives the training image of its category, or, where z is high, of 0."""

    def __init__(self, images):
        super().__init__()
        self.images = images

    def forward(self, seeds):
        category = seeds[:, 62:72].argmax(1)
        return self.images[torch.where(seeds[:, 0] > 0.5, 0, category)]


def test_label_dependence_can_be_told_beforehand(data):
    train_y = torch.arange(10)
    train_x = torch.stack([data[0][data[1] == digit][0] for digit in range(10)])
    (z, new_z), (c, new_c) = (
        part.chunk(2) for part in infogan.fixed_prior(40_000, 0, torch.device("cpu")))
    numbers = infogan.label_dependence(Lookup(train_x), z, c, new_z, new_c, train_x, train_y)
    p = Fraction(3, 4)  # that z is low: uniform on [-1, 1]
    expected = {
        "one_label_per_c1": (9 * p + 1) / 10,
        "unchanged_if_c1_resampled": 1 - p + p * Fraction(1, 10),
        "unchanged_if_rest_resampled": Fraction(9, 10) * (p**2 + (1 - p) ** 2)
        + Fraction(1, 10),
        "unchanged_if_all_resampled": 9 * (p / 10) ** 2 + (1 - 9 * p / 10) ** 2}
    assert numbers.keys() == expected.keys()
    for name, value in expected.items():
        assert numbers[name] == pytest.approx(float(value), abs=0.015), name


def test_vary_changes_one_code_along_a_row():
    z, c = infogan.fixed_prior(3, 0, torch.device("cpu"))
    values = torch.tensor([[-2.0], [0.0], [1.0], [2.0]])
    many_z, many_c = infogan.vary(z, c, infogan.C3, values)
    for row in range(3):
        for column in range(4):
            i = 4 * row + column
            assert torch.equal(many_z[i], z[row]) and torch.equal(many_c[i, :11], c[row, :11])
            assert many_c[i, 11] == values[column, 0]


def test_columns_of_figure_2a_are_in_the_order_of_their_digits():
    """With a generator that shows its code: category digits.index(d) stands in column d."""
    class Shown(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, seeds):
            return seeds[:, 62:]

    digits = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    panels = infogan.code_panels(Shown(), digits, 0)
    for panel in panels.values():
        assert panel.shape == (100, 12)
    columns = panels["c1"].view(10, 10, 12)[:, :, :10].argmax(2)
    for row in columns:
        assert torch.tensor(digits)[row].tolist() == list(range(10))
    rows = panels["c2 from -2 to 2"].view(10, 10, 12)
    assert torch.allclose(rows[:, :, 10], torch.linspace(-2, 2, 10).expand(10, 10))
    assert (rows[:, :, 11] == rows[:, :1, 11]).all()
