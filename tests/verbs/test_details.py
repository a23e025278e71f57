"""Intervals, reliability, edges and objects beside the scores of a run."""

import json

import numpy as np
import pytest

from covermap.core.config_file import parse_config
from covermap.core.legend import IGNORE, load_legend
from covermap.core.task import Task
from covermap.geo.grid import Window
from covermap.metrics.objects import BoundaryIoU, ObjectRecall
from covermap.verbs.details import Details, sure_scores
from covermap.verbs.evaluate import evaluate
from covermap.verbs.ground import CELL_PX
from covermap.verbs.number_details import NumberDetails, number_scores
from covermap.verbs.presence_details import PresenceDetails
from covermap.verbs.score import Compared, make_scorer
from covermap.verbs.train import train

TASK = Task("segmentation", load_legend({1: "a", 2: "b", 3: "c"}))


def strips(reference, predicted, width):
    """A block cut into strips, with sure probabilities of what is predicted."""
    block = Window(50, 70, *reference.shape)
    answers = np.eye(3, dtype="float32")[predicted].transpose(2, 0, 1)
    for col in range(0, reference.shape[1], width):
        part = np.s_[:, col : col + width]
        window = Window(50, 70 + col, len(reference), reference[part].shape[1])
        yield Compared(answers[:, *part], reference[part], "p", "s", window, block)


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    reference = np.kron(rng.integers(0, 3, (30, 40)), np.ones((10, 10))).astype("uint8")
    predicted = np.roll(reference, 2, 1)
    reference[rng.random(reference.shape) < 0.1] = IGNORE
    return reference, predicted


def test_strips_count_as_the_whole_does(maps):
    reference, predicted = maps
    found = Details(TASK)
    for one in strips(reference, predicted, 37):
        found.add(one)
    edges, objects = BoundaryIoU(3), ObjectRecall(3)
    shown = np.where(reference == IGNORE, IGNORE, predicted)
    edges.add(reference, shown)
    objects.add(reference, shown)
    scores = found.scores()
    assert scores["boundary_iou"] == edges.scores()["boundary_iou"]
    assert scores["object_recall"] == objects.scores()["object_recall"]
    known = reference != IGNORE
    assert found.blocks.stacked().sum() == known.sum()
    assert np.trace(found.blocks.stacked().sum(0)) == (reference == predicted)[known].sum()
    # Rows 50 to 349 lie in three rows of blocks, columns 70 to 469 in four.
    assert len(found.blocks.stacked()) == (349 // CELL_PX + 1) * (469 // CELL_PX + 1)


def test_the_same_blocks_are_compared_and_others_are_not(maps):
    reference, predicted = maps
    first, second, other = Details(TASK), Details(TASK), Details(TASK)
    for one in strips(reference, predicted, 50):
        first.add(one)
    for one in strips(reference, np.where(reference == IGNORE, 0, reference), 400):
        second.add(one)
    for one in strips(np.where(reference == 0, IGNORE, reference), predicted, 50):
        other.add(one)
    found = first.against(second)["oa"]
    assert found["value"] < 0
    assert found["high"] < 0
    assert found["p"] < 0.05
    assert first.against(other) == {}


def test_evaluate_tells_them(tiny):
    raw = json.loads(json.dumps(tiny)) | {
        "split": {"val": {"cols": [64, 80]}, "test": {"cols": [82, 128]}, "buffer_px": 2}
    }
    metrics = evaluate(train(parse_config(raw)))
    network = metrics["models"]["network"]
    assert 0 <= network["scores"]["ece"] <= 1
    assert sum(row["num_pixels"] for row in network["reliability"]) == network["scores"]["num_pixels"]
    assert "too few" in network["intervals"]["miou"]["note"]  # one block of 128 px
    assert network["intervals"]["miou"]["value"] == pytest.approx(network["scores"]["miou"])
    assert set(metrics["comparison"]) == {"oa", "miou", "macro_f1", "macro_recall"}
    json.dumps(metrics, allow_nan=True)


def test_a_hazard_has_intervals_of_its_own_f1_and_iou():
    tables = np.random.default_rng(0).integers(1, 50, (9, 2, 2))
    for positive in (0, 1):
        tp = tables[:, positive, positive]
        fn, fp = tables[:, positive, 1 - positive], tables[:, 1 - positive, positive]
        found = sure_scores(positive)
        assert np.allclose(found["f1"](tables), 2 * tp / (2 * tp + fp + fn))
        assert np.allclose(found["iou"](tables), tp / (tp + fp + fn))
    assert "f1" not in sure_scores(None)


def chips(places, per_place):
    for i in range(places):
        for j in range(per_place):
            known = np.array([[(i + j) % 3]], np.uint8)
            window = Window(0, 24 * j, 24, 24)
            yield Compared(np.full((3, 1, 1), 1 / 3, "float32"), known, f"place {i}", f"scene {i}", chip=window)


@pytest.mark.parametrize(("places", "per_place", "blocks"), [(6, 5, 6), (2, 5, 2 * 3), (40, 1, 40)])
def test_chips_that_depend_on_each_other_are_drawn_together(places, per_place, blocks):
    task = Task("classification", load_legend({1: "a", 2: "b", 3: "c"}))
    found = Details(task)
    for one in chips(places, per_place):
        found.add(one)
    assert len(found.blocks.stacked()) == blocks
    assert found.blocks.stacked().sum() == places * per_place


@pytest.mark.parametrize("targets", [1, 2])
def test_scores_of_numbers_over_blocks_are_those_of_the_whole(targets):
    """Values far from 0, unknown ones, coarser pixels than the image's."""
    random = np.random.default_rng(0)
    names = load_legend({i + 1: f"t{i}" for i in range(targets)})
    task = Task("regression", names, units=("m",) * targets).scaled([1000.0] * targets, [5.0, 20.0][:targets])
    known = random.normal(1000, 10, (targets, 150, 140)).astype("float32")
    known[:, :20] = np.nan
    answers = (known + random.normal(1, 3, known.shape)).astype("float32")
    scorer, found = make_scorer(task), NumberDetails(task)
    for row in (0, 75):
        one = Compared(
            answers[:, row : row + 75], known[:, row : row + 75], "p", "s", block=Window(4 * row, 0, 300, 560)
        )  # fmt: skip
        scorer.add(one.answers, one.reference, one.place)
        found.add(one)
    blocks = found.blocks.stacked()
    # Columns 0 to 559 lie in five squares of 128 px, rows 80 to 599 in five.
    assert len(blocks) == 25
    for key, by in number_scores(task).items():
        assert by(blocks.sum(0)[None])[0] == pytest.approx(scorer.scores()[key], rel=1e-6), key
    interval = found.tables()["intervals"]["rmse"]
    assert interval["low"] < interval["value"] < interval["high"]
    worse = NumberDetails(task)
    worse.add(Compared(answers + 5, known, "p", "s", block=Window(0, 0, 600, 560)))
    better = NumberDetails(task)
    better.add(Compared(answers, known, "p", "s", block=Window(0, 0, 600, 560)))
    assert better.against(worse)["rmse"]["high"] < 0


def presences(task, answers, there):
    """Scorer and details of chips (N, K), one at each place."""
    scorer, found = make_scorer(task), PresenceDetails(task)
    for i, (p, known) in enumerate(zip(answers, there, strict=True)):
        one = Compared(p, known, f"place {i}", f"scene {i}", chip=Window(0, 0, 24, 24))
        scorer.add(one.answers, one.reference, one.place)
        found.add(one)
    return scorer, found


@pytest.mark.parametrize("threshold", [0.5, 0.2])
def test_scores_of_several_classes_at_once_are_those_of_the_whole(threshold):
    """Rare and absent classes, one that all chips hold, unknown ones, probabilities at the threshold itself."""
    random = np.random.default_rng(0)
    names = load_legend({i + 1: f"c{i}" for i in range(5)})
    task = Task("multilabel", names, threshold=threshold)
    there = (random.random((300, 5)) < [0.5, 0.02, 0, 1, 0.1]).astype("float32")
    answers = (1 / (1 + np.exp(-random.normal(2 * there - 1, 1.5)))).astype("float32")
    answers[::60] = threshold
    there[::7, 0] = np.nan
    scorer, found = presences(task, answers, there)
    intervals = found.tables()["intervals"]
    assert set(intervals) == {"map", "macro_f1", "micro_f1"}
    for key, tolerance in (("map", 0.02), ("macro_f1", 1e-9), ("micro_f1", 1e-9)):
        assert intervals[key]["value"] == pytest.approx(scorer.scores()[key], abs=tolerance), key
        assert intervals[key]["low"] < intervals[key]["value"] < intervals[key]["high"]
    better = presences(task, np.where(there == 1, np.maximum(answers, 0.9), answers), there)[1]
    assert better.against(found)["map"]["low"] > 0
    assert better.against(found)["macro_f1"]["p"] < 0.01
    assert better.against(presences(task, answers, 1 - there)[1]) == {}


def test_numbers_that_do_not_vary_in_what_was_drawn_have_no_r2():
    """Squares of one value each, and one that varies: draws without it have no R2, where rounding would give 1e13."""
    random = np.random.default_rng(0)
    task = Task("regression", load_legend({1: "share"}), units=("",)).scaled([0.3], [0.2])
    known = np.full((1, 128, 128 * 8), 0.1, "float32")
    known[0, :, :128] += random.random((128, 128)).astype("float32")
    found = NumberDetails(task)
    answers = (known + random.normal(0, 0.1, known.shape)).astype("float32")
    found.add(Compared(answers, known, "p", "s", block=Window(0, 0, 128, 128 * 8)))
    interval = found.tables()["intervals"]["r2"]
    assert "draws have no score" in interval["note"]
    assert -20 < interval["low"] < interval["value"] < interval["high"] <= 1
