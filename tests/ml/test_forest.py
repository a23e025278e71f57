import numpy as np
import pytest

from covermap.core.errors import ModelError
from covermap.ml.forest import Forest, fit_forest

sklearn_ensemble = pytest.importorskip("sklearn.ensemble", reason="needs the extra ml")


def _data(n=3000, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5)).astype(np.float32)
    y = ((x[:, 0] + x[:, 1] ** 2 + 0.3 * rng.normal(size=n)) > 0.5).astype(np.uint8) * 2 + (x[:, 2] > 1)
    return x, y.astype(np.uint8)


@pytest.mark.parametrize("balanced", [False, True])
def test_probabilities_equal_scikit_learns(balanced):
    x, y = _data()
    forest = fit_forest(x, y, num_classes=4, trees=20, balanced=balanced, seed=3, jobs=1)
    oracle = sklearn_ensemble.RandomForestClassifier(
        20, random_state=3, class_weight="balanced" if balanced else None
    ).fit(x, y)
    unseen, _ = _data(seed=1)
    got = forest.probabilities(unseen, chunk=700)
    assert np.abs(got - oracle.predict_proba(unseen)).max() < 1e-6


def test_a_class_without_samples_gets_probability_zero():
    x, y = _data()
    y[y == 1] = 0
    got = fit_forest(x, y, num_classes=6, trees=5, jobs=1).probabilities(x[:50])
    assert got.shape == (50, 6)
    assert (got[:, [1, 4, 5]] == 0).all()
    assert np.allclose(got.sum(1), 1)


def test_thresholds_that_float32_cannot_hold_decide_as_in_float64():
    x = np.array([[16777216.0], [16777218.0]] * 20, np.float32)  # the midpoint rounds up in float32
    y = np.array([0, 1] * 20, np.uint8)
    got = fit_forest(x, y, num_classes=2, trees=3, jobs=1).probabilities(x[:2]).argmax(1)
    assert got.tolist() == [0, 1]


@pytest.mark.parametrize("name", ["feature", "left", "threshold", "shares", "roots"])
def test_damaged_arrays_are_refused(name):
    x, y = _data(400)
    arrays = fit_forest(x, y, num_classes=4, trees=3, jobs=1).arrays()
    good = Forest.from_arrays(arrays, num_features=5, num_classes=4)
    assert np.array_equal(good.left, arrays["left"])
    broken = dict(arrays)
    broken[name] = np.zeros_like(arrays[name]) - 1
    with pytest.raises(ModelError):
        Forest.from_arrays(broken, num_features=5, num_classes=4)
    del broken[name]
    with pytest.raises(ModelError, match=name):
        Forest.from_arrays(broken, num_features=5, num_classes=4)
