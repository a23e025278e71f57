import numpy as np
import pytest
from scipy import ndimage

from covermap.core.errors import ConfigError, CovermapError
from covermap.core.legend import IGNORE
from covermap.metrics.confusion import Confusion
from covermap.metrics.objects import BoundaryIoU, ObjectRecall

RNG = np.random.default_rng(0)


def _patches(shape=(120, 140), sigma=6.0):
    return (ndimage.gaussian_filter(RNG.normal(size=shape), sigma) > 0).astype(np.uint8)


@pytest.mark.parametrize("distance", [1, 2, 5])
def test_boundaries_are_those_of_repeated_erosion(distance):
    reference, prediction = _patches(), _patches()
    scores = BoundaryIoU(2, distance)
    scores.add(reference, prediction)
    square = np.ones((3, 3))
    for c in (0, 1):
        a, b = (
            (m == c) & ~ndimage.binary_erosion(m == c, square, iterations=distance, border_value=1)
            for m in (reference, prediction)
        )
        assert scores.per_class()[c] == pytest.approx((a & b).sum() / (a | b).sum())


def test_blurred_edges_cost_far_more_boundary_iou_than_iou():
    reference = _patches()
    blurred = (ndimage.gaussian_filter(reference.astype(float), 2) + RNG.normal(0, 0.05, reference.shape) > 0.5).astype(
        np.uint8
    )
    shifted = np.roll(reference, 2, axis=1)
    for worse in (blurred, shifted):
        scores, same, area = BoundaryIoU(2), BoundaryIoU(2), Confusion(2)
        scores.add(reference, worse)
        same.add(reference, reference)
        area.add(reference, worse)
        assert same.scores()["boundary_iou"] == 1
        assert scores.scores()["boundary_iou"] < area.scores()["miou"] - 0.1


def test_what_is_unknown_or_beyond_the_image_makes_no_boundary():
    reference = np.zeros((20, 20), np.uint8)
    scores = BoundaryIoU(2)
    scores.add(reference, reference)
    assert np.isnan(scores.scores()["boundary_iou"])
    assert scores.scores()["num_present"] == 0
    reference[:, 10:] = IGNORE
    prediction = np.zeros_like(reference)
    prediction[:, 10:] = 1
    scores.add(reference, prediction)
    assert np.isnan(scores.per_class()).all()
    reference[5:8, 3:6] = 1
    other = BoundaryIoU(2)
    other.add(reference, prediction)
    scores.merge(other)
    assert scores.per_class().tolist() == [0, 0]  # the field is missed; so is the hole's edge
    assert scores._pixels[2].tolist() == [7 * 7 - 9, 9]
    with pytest.raises(CovermapError, match="distance"):
        scores.merge(BoundaryIoU(2, 3))
    with pytest.raises(ConfigError, match="0 px"):
        BoundaryIoU(2, 0)
    with pytest.raises(CovermapError, match="differs in shape"):
        scores.add(reference, prediction[:5])


def test_objects_are_recalled_by_size_when_more_than_half_is_hit():
    reference = np.zeros((40, 40), np.uint8)
    prediction = np.zeros((40, 40), np.uint8)
    reference[0:2, 0:2] = 1  # 4 px, half hit: not found
    prediction[0, 0:2] = 1
    reference[5:7, 5:7] = 1  # 4 px, three hit: found
    prediction[5:7, 5:7] = 1
    prediction[5, 5] = 0
    reference[10, 10] = reference[11, 11] = 1  # corners join: one object of 2 px, not found
    reference[20:30, 20:30] = 1  # 100 px, found
    prediction[20:30, 20:30] = 1
    reference[35:, 35:] = IGNORE
    scores, again = (ObjectRecall(2, edges=(3, 50)) for _ in "ab")
    scores.add(reference, prediction)
    again.add(reference, prediction)
    scores.merge(again)
    rows = {(row["class"], row["from"]): (row["objects"], row["found"]) for row in scores.table(["field", "house"])}
    assert rows == {("field", 0): (0, 0), ("field", 3): (0, 0), ("field", 50): (2, 2),
                    ("house", 0): (2, 0), ("house", 3): (4, 2), ("house", 50): (2, 2)}  # fmt: skip
    got = scores.scores()
    assert got["object_recall"] == pytest.approx(6 / 10)
    assert (got["object_recall_3_50_px"], got["objects_50_up_px"]) == (0.5, 4)
    hectares = ObjectRecall(2, edges=(0.03, 0.5), pixel_ha=0.01)
    hectares.add(reference, prediction)
    assert hectares.scores()["object_recall_0.03_0.5_ha"] == 0.5
    with pytest.raises(CovermapError, match="unit"):
        scores.merge(ObjectRecall(2, edges=(3, 50), pixel_ha=1))
