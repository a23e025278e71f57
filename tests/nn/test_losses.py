"""Losses: each against a plain form in float64 or another library, and what all of them must keep."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, jaccard_score, log_loss, mean_absolute_error, mean_squared_error
from torch.nn import functional

from covermap.core.errors import ConfigError, CovermapError
from covermap.core.legend import IGNORE
from covermap.core.registry import find, names
from covermap.nn.losses.binary import class_probabilities
from covermap.nn.losses.expression import make_loss
from covermap.testing import check_loss, require_conforming
from covermap.testing.loss import LossCase

K = 4
WEIGHTS = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)
CLASS_LOSSES = [name for name in names("loss") if find("loss", name).takes == "classes"]
PIXEL_LOSSES = ["cross_entropy", "focal", "symmetric_cross_entropy", "generalised_cross_entropy"]
REGION_LOSSES = ["dice", "jaccard", "tversky", "lovasz", "boundary"]


def example(seed=0, batch=3, side=6, scale=2.0):
    """Logits (B, 4, side, side) float64 and a label with a row ignored and a class missing from the first window."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, K, (batch, side, side), generator=generator)
    label[0][label[0] == 3] = 1
    label[:, 1] = IGNORE
    return scale * torch.randn(batch, K, side, side, generator=generator, dtype=torch.float64), label


def mean(name, logits, label, weights=WEIGHTS, **options):
    """The sum of a loss by its mass."""
    loss = make_loss(name, options, class_weights=weights)
    return float((loss(logits, label) / loss.mass(label)).detach())


def hard(label, classes=K):
    """Logits that are as good as certain of a label."""
    known = torch.where(label == IGNORE, 0, label)
    return 200.0 * functional.one_hot(known, classes).movedim(-1, 1).double()


def probabilities(logits, label):
    """p (N, K) of the labelled pixels and their classes (N,), in numpy."""
    x = logits.movedim(1, -1).reshape(-1, logits.shape[1]).numpy()
    y = label.reshape(-1).numpy()
    p = np.exp(x - x.max(1, keepdims=True))
    return (p / p.sum(1, keepdims=True))[y != IGNORE], y[y != IGNORE]


# What all of them keep


@pytest.mark.parametrize(
    ("loss", "options"),
    [*((name, {}) for name in names("loss")),
     *((name, {"classes": [1]}) for name in REGION_LOSSES),
     *((name, {"absent": "count"}) for name in REGION_LOSSES[:4]),
     ("cross_entropy", {"label_smoothing": 0.1}), ("focal", {"gamma": 0.5}), ("focal", {"gamma": 0}),
     ("binary_cross_entropy", {"gamma": 0.5, "positive_weights": [1, 2, 3, 4, 5]}),
     ("cross_entropy + 0.01 * boundary", {"boundary": {"classes": [0, 2]}}), ("mse + 2 * rmse", {})],
)  # fmt: skip
def test_a_loss_conforms(loss, options):
    require_conforming(check_loss(loss, options=options), loss)


@pytest.mark.parametrize("name", names("loss"))
def test_four_batches_of_two_equal_one_of_eight(name):
    case = LossCase(name, {})
    prediction, target, *_ = (torch.cat([x, x.roll(1, -1)]) for x in case.example())
    weights = torch.arange(1.0, 6)
    loss = case.make(weights)
    whole = prediction.clone().requires_grad_(True)
    (loss(whole, target) / loss.mass(target)).sum().backward()
    parts = prediction.clone().requires_grad_(True)
    mass = sum(loss.mass(target[i : i + 2]) for i in range(0, 8, 2))
    for i in range(0, 8, 2):
        (loss(parts[i : i + 2], target[i : i + 2]) / mass).sum().backward()
    torch.testing.assert_close(parts.grad, whole.grad, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", names("loss"))
def test_gradients_are_those_of_finite_differences(name):
    """Away from its kinks: errors of ranks that are apart, amounts that are not 0."""
    case = LossCase(name, {})
    loss = case.make(torch.arange(1.0, 6, dtype=torch.float64)).double()
    prediction, target, *_ = (x[:2, ..., 2:6, :4] for x in case.example())
    prediction = prediction.double().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), prediction, atol=1e-6)


@pytest.mark.parametrize("name", names("loss"))
def test_half_precision_is_computed_in_float32(name):
    case = LossCase(name, {})
    prediction, target, *_ = case.example()
    half = prediction.bfloat16()
    assert torch.equal(case.make()(half, target), case.make()(half.float(), target))
    with torch.autocast("cpu", torch.bfloat16):
        inside = case.make()(half, target)
    torch.testing.assert_close(inside, case.make()(half.float(), target), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in CLASS_LOSSES if name != "boundary"])
def test_labels_of_chips(name):
    """logits (B, K), label (B,): as windows of one pixel."""
    logits, label = example(batch=1)
    logits, label = logits[0].flatten(1).T, label.flatten()
    loss = make_loss(name, class_weights=WEIGHTS)
    pixels = logits[:, :, None, None], label[:, None, None]
    torch.testing.assert_close(loss(logits, label), loss(*pixels))
    assert torch.equal(loss.mass(label), loss.mass(pixels[1]))
    assert loss(hard(label), label) < loss(logits, label)


@given(st.integers(0, 10_000), st.sampled_from([n for n in CLASS_LOSSES if n != "boundary"]))
def test_the_order_of_the_pixels_does_not_matter(seed, name):
    logits, label = example(seed)
    order = torch.randperm(36, generator=torch.Generator().manual_seed(seed))
    mixed = logits.flatten(2)[:, :, order].view_as(logits), label.flatten(1)[:, order].view_as(label)
    assert mean(name, *mixed) == pytest.approx(mean(name, logits, label), rel=1e-9)


@given(st.integers(0, 10_000), st.sampled_from(CLASS_LOSSES))
def test_ignored_pixels_change_nothing(seed, name):
    """Neither by their logits nor by being there: a border of them is as none, but for the boundary's distances."""
    logits, label = example(seed)
    wild = logits.clone()
    wild[:, :, 1] = 1e4 * torch.randn(3, K, 6, dtype=torch.float64)
    assert mean(name, wild, label) == mean(name, logits, label)
    wider = functional.pad(logits, (2, 3, 1, 0), value=7.0), functional.pad(label, (2, 3, 1, 0), value=IGNORE)
    assert mean(name, *wider) == pytest.approx(mean(name, logits, label), rel=1e-9)


# Cross entropy and its kin


def test_cross_entropy_is_scikit_learns_log_loss():
    logits, label = example()
    p, y = probabilities(logits, label)
    assert mean("cross_entropy", logits, label) == pytest.approx(log_loss(y, p, sample_weight=WEIGHTS.numpy()[y]))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs(smoothing):
    logits, label = example()
    theirs = functional.cross_entropy(
        logits, label, WEIGHTS, ignore_index=IGNORE, label_smoothing=smoothing, reduction="sum"
    )
    loss = make_loss("cross_entropy", {"label_smoothing": smoothing}, class_weights=WEIGHTS)
    torch.testing.assert_close(loss(logits, label)[0], theirs)
    assert float(loss.mass(label)) == float(WEIGHTS[label[label != IGNORE]].sum())


@pytest.mark.parametrize(
    ("name", "options", "cost"),
    [("focal", {}, lambda p: -((1 - p) ** 2) * np.log(p)),
     ("focal", {"gamma": 0.5}, lambda p: -((1 - p) ** 0.5) * np.log(p)),
     ("symmetric_cross_entropy", {}, lambda p: -0.1 * np.log(p) + 4 * (1 - p)),
     ("symmetric_cross_entropy", {"alpha": 6, "beta": 0.1}, lambda p: -6 * np.log(p) + 0.4 * (1 - p)),
     ("generalised_cross_entropy", {}, lambda p: (1 - p**0.7) / 0.7),
     ("generalised_cross_entropy", {"q": 1}, lambda p: 1 - p)],
)  # fmt: skip
def test_costs_of_the_true_class(name, options, cost):
    logits, label = example()
    p, y = probabilities(logits, label)
    w = WEIGHTS.numpy()[y]
    expected = (w * cost(p[np.arange(len(y)), y])).sum() / w.sum()
    assert mean(name, logits, label, **options) == pytest.approx(expected, rel=1e-9)


def test_reverse_cross_entropy_is_its_sum_over_classes():
    """-sum_k p_k log q_k with log 0 = -4, as the paper has it."""
    logits, label = example()
    p, y = probabilities(logits, label)
    log_q = np.where(np.eye(K)[y] == 1, 0.0, -4.0)
    expected = -(p * log_q).sum(1).mean()
    found = mean("symmetric_cross_entropy", logits, label, torch.ones(K), alpha=0)
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [2.0, 1e4])
def test_gamma_0_is_cross_entropy_to_the_bit(dtype, scale):
    logits, label = example(scale=scale)
    found = []
    for name, options in (("cross_entropy", {}), ("focal", {"gamma": 0})):
        loss = make_loss(name, options, class_weights=WEIGHTS.to(dtype))
        x = logits.to(dtype).requires_grad_(True)
        total = loss(x, label)
        total.sum().backward()
        found.append((total.detach(), x.grad, loss.mass(label)))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_doubling_a_weight_doubles_that_classs_gradient(name):
    """S0's focal loss took weights and never used them."""
    logits, label = example()
    double = WEIGHTS.clone()
    double[2] *= 2
    slopes = []
    for weights in (WEIGHTS, double):
        x = logits.clone().requires_grad_(True)
        make_loss(name, class_weights=weights)(x, label).sum().backward()
        slopes.append(x.grad)
    factor = torch.where(label == 2, 2.0, 1.0)[:, None]
    assert slopes[0].abs().max() > 0
    torch.testing.assert_close(slopes[1], slopes[0] * factor)


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), st.sampled_from([n for n in CLASS_LOSSES if n != "boundary"]))
def test_no_pair_of_logits_breaks_a_loss(one, other, name):
    x = torch.tensor([[[[one, other]], [[other, one]]]]).requires_grad_(True)
    loss = make_loss(name, class_weights=torch.ones(2))
    total = loss(x, torch.tensor([[[0, 1]]])).sum()
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(x.grad).all()


# Regions


@pytest.mark.parametrize(
    ("name", "score"),
    [("dice", f1_score), ("jaccard", jaccard_score), ("lovasz", jaccard_score),
     ("tversky", lambda y, found, labels, average: np.array(
         [(h := ((y == c) & (found == c)).sum())
          / (h + 0.3 * ((y != c) & (found == c)).sum() + 0.7 * ((y == c) & (found != c)).sum()) for c in labels]))],
)  # fmt: skip
def test_of_hard_predictions_it_is_one_minus_the_score(name, score):
    _, label = example()
    _, other = example(seed=1)
    other = torch.where(other == IGNORE, 2, other)
    options = {} if name == "lovasz" else {"smooth": 1e-9}
    expected = []
    for y, found in zip(label.numpy(), other.numpy(), strict=True):
        known = y != IGNORE
        here = np.unique(y[known])
        w = WEIGHTS.numpy()[here]
        expected.append(1 - (w * score(y[known], found[known], labels=here, average=None)).sum() / w.sum())
    assert mean(name, hard(other), label, **options) == pytest.approx(np.mean(expected), rel=1e-6)


def soft_overlap(p, y, c, alpha, beta, smooth):
    hit, false, missed = (p[:, c] * (y == c)).sum(), (p[:, c] * (y != c)).sum(), ((1 - p[:, c]) * (y == c)).sum()
    return 1 - (hit + smooth) / (hit + alpha * false + beta * missed + smooth)


def soft_lovasz(p, y, c):
    """Equation 9 word by word: the sum of errors times what each raises the Jaccard loss by."""
    error = np.where(y == c, 1 - p[:, c], p[:, c])
    order = np.argsort(-error)
    truth, total, before = set(np.flatnonzero(y == c)), 0.0, 0.0
    for i in range(1, len(order) + 1):
        wrong = set(order[:i])
        after = len(wrong) / len(truth | wrong)
        total, before = total + error[order[i - 1]] * (after - before), after
    return total


@pytest.mark.parametrize("absent", ["skip", "count"])
@pytest.mark.parametrize(
    ("name", "options", "cost"),
    [("dice", {}, lambda *of: soft_overlap(*of, 0.5, 0.5, 0.5)),
     ("jaccard", {"smooth": 2}, lambda *of: soft_overlap(*of, 1, 1, 2)),
     ("tversky", {"alpha": 0.2, "beta": 0.9}, lambda *of: soft_overlap(*of, 0.2, 0.9, 1)),
     ("lovasz", {}, soft_lovasz)],
)  # fmt: skip
def test_soft_overlap_is_its_definition_window_by_window(name, options, cost, absent):
    logits, label = example()
    windows = []
    for x, window in zip(logits, label, strict=True):
        p, y = probabilities(x[None], window[None])
        classes = [c for c in range(K) if absent == "count" or (y == c).any()]
        w = WEIGHTS.numpy()[classes]
        windows.append((w * [cost(p, y, c) for c in classes]).sum() / w.sum())
    assert mean(name, logits, label, absent=absent, **options) == pytest.approx(np.mean(windows), rel=1e-9)


@pytest.mark.parametrize("name", REGION_LOSSES[:4])
def test_a_chip_without_positives_costs_what_is_falsely_found(name):
    """Requirement F3: nothing there and nothing found is 0, not an artefact; one class counts where it is absent."""
    label = torch.zeros(2, 8, 8, dtype=torch.long)
    loss = make_loss(name, {"classes": [1]}, class_weights=torch.ones(2))
    assert float(loss(hard(label, 2), label)) < 1e-50
    assert float(loss(hard(label, 2).float(), label)) == 0
    false = label.clone()
    false[0, :2] = 1
    few, many = float(loss(hard(false, 2), label)), float(loss(hard(1 - label, 2), label))
    assert 0 < few < many
    assert float(loss.mass(label)) == 2
    skipped = make_loss(name, {"classes": [1], "absent": "skip"}, class_weights=torch.ones(2))
    assert float(skipped(hard(1 - label, 2), label)) == float(skipped.mass(label)) == 0


def test_classes_without_a_training_pixel_have_no_part():
    logits, label = example()
    weights = torch.tensor([1.0, 1, 0, 1])
    for name in REGION_LOSSES[:4]:
        kept = mean(name, logits, label, torch.ones(K), classes=[0, 1, 3])
        assert mean(name, logits, label, weights) == pytest.approx(kept, rel=1e-9)
    with pytest.raises(ConfigError, match="nothing would be learnt"):
        make_loss("dice", {"classes": [2]}, class_weights=weights)


def plain_boundary(p, window, weights, classes):
    """Distances by looking at every pair of pixels; p (K, H, W)."""
    spots = np.argwhere(window != IGNORE)
    y = window[tuple(spots.T)]
    total, mass = 0.0, 0.0
    for c in classes:
        if not ((y == c).any() and (y != c).any()):
            continue
        cost = 0.0
        for spot, own in zip(spots, y, strict=True):
            others = spots[(y == c) != (own == c)]
            distance = np.sqrt(((others - spot) ** 2).sum(1)).min() - 0.5
            cost += distance * abs(p[(c, *spot)] - (own == c))
        total, mass = total + weights[c] * cost / len(y), mass + weights[c]
    return total / mass


@pytest.mark.parametrize("classes", [None, [1], [0, 3]])
def test_boundary_is_the_mean_distance_of_wrong_pixels(classes):
    logits, label = example(side=9)
    p = logits.softmax(1).numpy()
    expected = [
        plain_boundary(p[i], label[i].numpy(), WEIGHTS.numpy(), classes or range(K))
        for i in range(3)
        if classes is None or np.isin(label[i], classes).any()
    ]
    assert mean("boundary", logits, label, classes=classes) == pytest.approx(np.mean(expected), rel=1e-6)


def test_boundary_has_the_gradient_of_the_signed_distance():
    """Kervadec et al. 2019, eq. 5: its slope in p is the signed distance by the number of pixels."""
    from scipy.ndimage import distance_transform_edt

    label = torch.zeros(1, 7, 7, dtype=torch.long)
    label[0, 2:5, 2:6] = 1
    logits = torch.randn(1, 2, 7, 7, dtype=torch.float64, requires_grad=True)
    make_loss("boundary", {"classes": [1]}, class_weights=torch.ones(2))(logits, label).sum().backward()
    inside = label[0].numpy() == 1
    signed = np.where(inside, 0.5 - distance_transform_edt(inside), distance_transform_edt(~inside) - 0.5)
    p = logits.detach().softmax(1)[0, 1].numpy()
    np.testing.assert_allclose(logits.grad[0, 1].numpy(), signed / 49 * p * (1 - p), rtol=1e-6)


def test_boundary_has_no_opinion_where_there_is_none():
    loss = make_loss("boundary", class_weights=torch.ones(K))
    for value in (2, IGNORE):
        label = torch.full((2, 5, 5), value)
        assert float(loss(hard(1 - label % 2), label)) == float(loss.mass(label)) == 0
    with pytest.raises(ConfigError, match="not of whole chips"):
        loss(torch.zeros(2, K), torch.zeros(2, dtype=torch.long))


# Numbers


@pytest.fixture
def numbers():
    """Predictions and targets (3, 2, 4, 5), the second with gaps, one window with nothing else."""
    generator = torch.Generator().manual_seed(3)
    prediction, target = 3 * torch.randn(2, 3, 2, 4, 5, generator=generator, dtype=torch.float64)
    target[:, :, 0] = torch.nan
    target[2] = torch.nan
    return prediction, target


def test_numbers_are_scored_as_scikit_learn_does(numbers):
    prediction, target = numbers
    known = ~target.isnan()
    pair = target[known].numpy(), prediction[known].numpy()
    assert mean("mse", *numbers) == pytest.approx(mean_squared_error(*pair))
    assert mean("mae", *numbers) == pytest.approx(mean_absolute_error(*pair))
    huber = functional.huber_loss(prediction[known], target[known], delta=0.5)
    assert mean("huber", *numbers, delta=0.5) == pytest.approx(float(huber))
    roots = [mean_squared_error(target[i][known[i]], prediction[i][known[i]]) ** 0.5 for i in range(2)]
    assert mean("rmse", *numbers) == pytest.approx(np.mean(roots))


@pytest.mark.parametrize("name", ["mse", "mae", "huber", "rmse"])
def test_a_target_of_0_7_is_not_truncated(name):
    target = torch.full((2, 1), 0.7)
    assert mean(name, torch.full((2, 1), 0.7), target) == pytest.approx(0, abs=1e-6)
    assert mean(name, torch.zeros(2, 1), target) > 0.2


@pytest.mark.parametrize("name", ["mse", "mae", "huber", "rmse"])
def test_a_perfect_prediction_and_a_wild_one_have_a_finite_gradient(name, numbers):
    for prediction in (numbers[1].nan_to_num(5.0), torch.full_like(numbers[0], 1e4)):
        x = prediction.float().requires_grad_(True)
        make_loss(name)(x, numbers[1]).sum().backward()
        assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("name", ["mse", "binary_cross_entropy"])
def test_another_shape_is_not_stretched_to_fit(name):
    with pytest.raises(ConfigError, match=r"gives \(4, 1\), the target is \(4,\)"):
        make_loss(name)(torch.zeros(4, 1), torch.zeros(4))


# Presence and order


@pytest.mark.parametrize("gamma", [0, 2])
def test_presence_is_torchs_binary_cross_entropy(gamma):
    generator = torch.Generator().manual_seed(4)
    logits = 3 * torch.randn(6, 5, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 2, (6, 5), generator=generator).double()
    weight = torch.arange(1.0, 6)
    theirs = functional.binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="none")
    theirs = theirs * torch.where(target == 1, 1 - logits.sigmoid(), logits.sigmoid()) ** gamma
    target[0, :3] = torch.nan
    theirs = theirs[~target.isnan()].mean()
    found = mean("binary_cross_entropy", logits, target, positive_weights=weight.tolist(), gamma=gamma)
    assert found == pytest.approx(float(theirs), rel=1e-6)


def test_wrong_weights_of_presence_are_refused():
    with pytest.raises(ConfigError, match="not a list of numbers"):
        make_loss("binary_cross_entropy", {"positive_weights": [1, -2]})
    with pytest.raises(ConfigError, match="2 positive_weights for 5 classes"):
        make_loss("binary_cross_entropy", {"positive_weights": [1, 2]})(torch.zeros(3, 5), torch.zeros(3, 5))


def test_order_is_a_sum_of_yes_and_no():
    logits, label = example()
    logits = logits[:, 1:]
    total, mass = 0.0, 0.0
    for b, row, col in np.argwhere(label.numpy() != IGNORE):
        y = int(label[b, row, col])
        p = 1 / (1 + np.exp(-logits[b, :, row, col].numpy()))
        total -= float(WEIGHTS[y]) * sum(np.log(p[k] if y > k else 1 - p[k]) for k in range(3))
        mass += float(WEIGHTS[y])
    assert mean("ordinal", logits, label) == pytest.approx(total / mass, rel=1e-9)
    with pytest.raises(ConfigError, match="takes 3 logits, got 4"):
        mean("ordinal", example()[0], label)


def test_a_neighbour_costs_less_than_a_class_far_off():
    steps = 8 * torch.tensor([[-1.0, -1, -1], [1, -1, -1], [1, 1, -1], [1, 1, 1]])
    costs = [mean("ordinal", x[None], torch.tensor([0])) for x in steps]
    assert costs == sorted(costs)
    assert costs[0] < 0.01


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=6))
def test_thresholds_become_probabilities(thresholds):
    p = class_probabilities(torch.tensor([thresholds]))
    assert p.shape == (1, len(thresholds) + 1)
    assert (p >= 0).all()
    assert float(p.sum()) == pytest.approx(1, abs=1e-6)


def test_thresholds_in_order_keep_their_differences():
    above = torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64)
    p = class_probabilities(above.logit()[None, :, None, None])
    torch.testing.assert_close(p.flatten(), torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=torch.float64))


# Options out of range


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [("focal", {"gamma": -1}, "gamma -1"), ("focal", {"gama": 1}, "did you mean 'gamma'"),
     ("generalised_cross_entropy", {"q": 0}, "q 0"), ("symmetric_cross_entropy", {"alpha": 0, "beta": 0}, r"alpha \+ beta"),
     ("dice", {"classes": [4]}, "indices from 0 to 3"), ("dice", {"classes": []}, "indices"),
     ("dice", {"classes": ["water"]}, "indices"), ("lovasz", {"absent": "maybe"}, "neither skip nor count"),
     ("dice", {"smooth": 0}, "smooth 0"), ("boundary", {"absent": "skip"}, "no option 'absent'"),
     ("huber", {"delta": 0}, "delta 0"), ("jaccard", {"smoth": 1}, "did you mean 'smooth'"),
     ("dice", {"clases": [1]}, "did you mean 'classes'")],
)  # fmt: skip
def test_wrong_options_are_refused(name, options, said):
    with pytest.raises(CovermapError, match=said):
        make_loss(name, options, class_weights=WEIGHTS)
