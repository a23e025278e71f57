import numpy as np
import pytest

from covermap.core.config import parse_config
from covermap.data.balance import class_weights


def weights(counts, method, **more):
    return class_weights(np.asarray(counts), method, names=[f"c{i}" for i in range(len(counts))], **more)


def test_class_weights_are_those_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    counts = np.array([600, 300, 0, 100])
    y = np.repeat([0, 1, 3], [600, 300, 100])
    expected = sklearn.compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=y)
    got = weights(counts, "balanced")
    assert np.allclose(got[[0, 1, 3]], expected)
    assert got[2] == 0
    assert np.allclose(weights(counts, "sqrt")[[0, 1, 3]], np.sqrt(expected))
    assert weights(counts, "none").tolist() == [1, 1, 0, 1]
    with pytest.raises(ValueError, match="3 numbers for 4 classes"):
        weights(counts, [1.0, 2.0, 3.0])


def test_balanced_weights_of_lucas_italy_are_the_published_ones():
    # Training chips of each class follow from the published weights N / (K n) with N = 1595 chips in K = 10 classes.
    published = [
        0.38997555,
        1.12323944,
        0.97256098,
        0.28330373,
        1.57920792,
        3.4673913,
        1.595,
        4.69117647,
        9.96875,
        7.975,
    ]
    chips = np.rint(159.5 / np.array(published)).astype(int)
    assert chips.sum() == 1595
    assert np.allclose(weights(chips, "balanced"), published, rtol=1e-6)
    assert np.allclose(weights(chips, "sqrt"), np.sqrt(published), rtol=1e-6)


def test_inverse_weights_differ_from_balanced_ones_by_a_factor():
    got = weights([600, 300, 0, 100], "inverse")
    assert got[[0, 1, 3]] * [600, 300, 100] == pytest.approx([got[0] * 600] * 3)
    assert got[[0, 1, 3]].mean() == pytest.approx(1)
    assert got[2] == 0


@pytest.mark.parametrize("beta", [0.9, 0.999, 0.9999])
def test_effective_numbers_are_sums_of_powers(beta):
    # E_n = (1 - b^n) / (1 - b) = 1 + b + ... + b^(n - 1): each further sample of a class counts a little less.
    counts = [5000, 20, 0, 500]
    numbers = np.array([sum(beta**i for i in range(n)) for n in (5000, 20, 500)])
    got = weights(counts, "effective", beta=beta)
    assert np.allclose(got[[0, 1, 3]], 1 / numbers / (1 / numbers).mean(), rtol=1e-5)
    assert got[2] == 0


def test_effective_weights_have_two_known_limits():
    counts = [40_000_000, 900, 30]
    assert np.allclose(weights(counts, "effective", beta=0.0), 1)
    assert np.allclose(weights(counts, "effective", beta=1 - 1e-13), weights(counts, "inverse"), rtol=1e-3)
    own = weights(counts, "effective")
    assert np.isfinite(own).all()
    assert own[0] < own[1] < own[2]


def test_a_beta_that_nothing_uses_is_refused():
    from covermap.core.errors import ConfigError

    with pytest.raises(ConfigError, match="no effect without class_weights: effective"):
        parse_config({"data": {"image": "i.tif"}, "train": {"effective_beta": 0.9}})
    assert parse_config({"data": {"image": "i.tif"}, "train": {"class_weights": "effective"}})
