"""What is fitted on the val part after training: temperature, logit adjustment, thresholds."""

import json

import numpy as np
import pytest

from covermap.core.config_file import parse_config
from covermap.core.errors import ConfigError, DataError
from covermap.core.train_config import PredictConfig
from covermap.metrics.calibration import Calibration, fit_sets
from covermap.metrics.tradeoff import best_within, expected_tradeoff, tradeoff
from covermap.models import load_model, read_card
from covermap.start import prepare_run
from covermap.verbs.decide import answers_of
from covermap.verbs.evaluate import evaluate
from covermap.verbs.train import train


def with_(raw, name, **more):
    return parse_config(json.loads(json.dumps(raw)) | {"name": name, "baseline": False} | more)


def plain_loss(raw):
    return raw | {"train": raw["train"] | {"class_weights": "none"}}


def test_without_the_section_nothing_is_fitted(tiny):
    card = read_card(train(with_(tiny, "plain")).path("model"))
    assert (card.task.temperature, card.task.offsets) == (1.0, ())
    assert "decision" not in card.facts


def test_temperature_makes_val_probabilities_right_and_changes_no_class(tiny):
    plain = train(with_(tiny, "plain"))
    run = train(with_(tiny, "soft", decision={"temperature": True}))
    card = read_card(run.path("model"))
    assert card.task.temperature != 1
    assert "temperature" in card.facts["decision"]
    models = [load_model(each.path("model")) for each in (plain, run)]
    assert all(
        np.array_equal(a, b) for a, b in zip(models[0].arrays().values(), models[1].arrays().values(), strict=True)
    )
    scores = []
    for model in models:
        log_p, label = answers_of(model, prepare_run(run.config), PredictConfig())
        found = Calibration()
        found.add(np.exp(log_p).T, label)
        scores.append((found.scores()["nll"], log_p.argmax(1)))
    assert scores[1][0] < scores[0][0]
    assert np.array_equal(scores[0][1], scores[1][1])


def test_logit_adjustment_by_a_number_takes_the_classes_shares_off(tiny):
    run = train(with_(plain_loss(tiny), "one", decision={"adjust": 0.5}))
    shares = prepare_run(run.config).survey.class_px
    offsets = read_card(run.path("model")).task.offsets
    assert np.allclose(offsets, -0.5 * np.log(shares / shares.sum()))


def test_logit_adjustment_is_chosen_on_val(tiny):
    """Half of the pixels of class 3 are called 1: a network that cannot tell them gives the class away, unless ..."""
    rng = np.random.default_rng(0)
    import rasterio

    with rasterio.open(tiny["data"]["labels"], "r+") as dataset:
        codes = dataset.read(1)
        codes[(codes == 3) & (rng.random(codes.shape) < 0.7)] = 1
        dataset.write(codes, 1)
    settings = {"train": tiny["train"] | {"class_weights": "none"}}
    plain = train(with_(tiny, "plain", **settings))
    run = train(with_(tiny, "auto", decision={"adjust": "auto", "adjust_loss": 0.2}, **settings))
    before, after = (evaluate(each)["models"]["network"]["scores"] for each in (plain, run))
    assert after["macro_recall"] > before["macro_recall"] + 0.03
    assert after["oa"] > before["oa"] - 0.3
    assert "logit adjustment" in read_card(run.path("model")).facts["decision"]
    again = train(with_(tiny, "auto", decision={"adjust": "auto", "adjust_loss": 0.2}, **settings), resume=True)
    assert read_card(again.path("model")).task == read_card(run.path("model")).task


def test_expected_tradeoff_is_that_of_labels_where_probabilities_are_right():
    rng = np.random.default_rng(1)
    prior = np.array([0.7, 0.2, 0.1])
    label = rng.choice(3, 40_000, p=prior)
    x = label + rng.normal(0, 0.8, len(label))
    joint = -((x[:, None] - np.arange(3)) ** 2) / (2 * 0.8**2) + np.log(prior)
    log_p = joint - np.logaddexp.reduce(joint, 1, keepdims=True)
    taus = np.linspace(0, 1.5, 7)
    seen, expected = tradeoff(log_p, label, prior, taus), expected_tradeoff(log_p, prior, taus)
    assert np.allclose(seen, expected, atol=0.01)
    assert best_within(expected, 0.03).tau == best_within(seen, 0.03).tau


def test_a_hazard_threshold_is_a_shift_of_its_probability(tiny):
    data = tiny["data"] | {"merge": {"hazard": ["town"], "none": ["field", "water"]}}
    raw = tiny | {"data": data, "task": {"name": "hazard", "positive": "hazard"}}
    run = train(with_(raw, "auto", decision={"threshold": "auto"}))
    task = read_card(run.path("model")).task
    shifts = [value for value in task.offsets if value]
    assert len(shifts) == 1
    assert task.offsets[task.positive] == shifts[0]
    fixed = train(with_(raw, "fixed", decision={"threshold": 0.25}))
    assert read_card(fixed.path("model")).task.offsets[task.positive] == pytest.approx(np.log(3))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"decision": {"temperature": True}, "split": {"val": 0.0, "test": 0.3}}, "no.* val part|there is none"),
        ({"decision": {"threshold": 0.3}}, "no effect"),
        ({"task": "regression", "decision": {"temperature": True}}, "no effect"),
        ({"decision": {"adjust": 3}}, "adjust"),
        ({"decision": {"adjust": "auto"}}, "goes with train.class_weights: none"),
    ],
)
def test_what_makes_no_sense_is_refused(tiny, more, words):
    with pytest.raises(ConfigError, match=words):
        train(with_(tiny, "bad", **more))


def test_classes_that_never_occurred_are_not_made_likelier(tiny):
    data = tiny["data"] | {"legend": {1: "field", 2: "water", 3: "town", 4: "never", 5: "seen"}}
    run = train(with_(plain_loss(tiny) | {"data": data}, "one", decision={"adjust": 1.0}))
    assert read_card(run.path("model")).task.offsets[3:] == (0.0, 0.0)
    log_p = np.log([[0.6, 0.3, 0.1], [0.5, 0.1, 0.4]])
    rows = expected_tradeoff(log_p, [0.7, 0.3, 0.0], [0.0])
    assert rows[0].macro_recall == pytest.approx((1 + 0) / 2)


def test_a_sample_of_val_is_fair(tiny, monkeypatch):
    """Labels tell which strip they are of; early and late ones are drawn alike."""
    from covermap.verbs import decide as module
    from covermap.verbs.score import Compared

    strips = [
        Compared(np.full((3, 1, 1000), 1 / 3, "float32"), np.full((1, 1000), i, "uint8"), "p")
        for i in range(3)
        for _ in range(20)
    ]
    monkeypatch.setattr(module, "MAX_PX", 600)
    monkeypatch.setattr(module, "compare", lambda *a, **k: iter(strips))
    ready = prepare_run(with_(tiny, "fair"))
    model = load_model(train(with_(tiny, "fair")).path("model"))
    counts = np.bincount(answers_of(model, ready, PredictConfig())[1])
    assert counts.sum() == 600
    assert (abs(counts - 200) < 60).all()


def test_sets_hold_the_right_class_as_often_as_they_say(tiny, tmp_path, covermap):
    import rasterio

    from covermap.infer import in_sets
    from covermap.verbs.predict import predict

    run = train(with_(tiny, "sets", decision={"conformal": 0.9, "temperature": True}))
    card = read_card(run.path("model"))
    assert 0 < card.task.set_from < 1
    assert card.task.coverage == 0.9
    assert "hold the right class in 90%" in card.facts["decision"]
    log_p, label = answers_of(load_model(run.path("model")), prepare_run(run.config), PredictConfig())
    inside = in_sets(np.exp(log_p).T.astype("float32"), card.task.set_from)
    assert inside[label, np.arange(len(label))].mean() >= 0.9 - 1e-3
    assert f"{inside.sum(0).mean():.2f} classes each" in card.facts["decision"]
    scores = evaluate(run)["models"]["network"]["scores"]
    assert 0 < scores["coverage"] <= 1
    assert 1 <= scores["set_size"] <= 3
    settings = PredictConfig(sets=True, probabilities=True)
    predict(run.path("model"), tiny["data"]["image"], tmp_path / "map.tif", settings=settings)
    with rasterio.open(tmp_path / "sets.tif") as bits, rasterio.open(tmp_path / "set_size.tif") as size:
        with rasterio.open(tmp_path / "probs.tif") as probs, rasterio.open(tmp_path / "map.tif") as codes:
            found, shares, mapped = bits.read(1), probs.read() / 200, codes.read(1)
        assert (bits.dtypes, bits.nodata) == (("uint32",), 0)
        assert np.array_equal(size.read(1), sum((found >> k) & 1 for k in range(3)))
    assert np.array_equal((found >> (mapped - 1)) & 1, np.ones(mapped.shape))  # the mapped class is always in
    clear = np.abs(shares - card.task.set_from).min(0) > 0.01
    want = sum((p >= card.task.set_from).astype("uint32") << k for k, p in enumerate(shares)) | 1 << (mapped - 1)
    assert np.array_equal(found[clear], want[clear])
    code, out, _ = covermap("evaluate", run.folder)
    assert code == 0
    assert "its sets hold the right class in" in out
    plain = train(with_(tiny, "plain"))
    code, _, err = covermap("predict", plain.path("model"), tiny["data"]["image"], tmp_path / "m.tif", "--sets")
    assert code == 1
    assert "conformal" in err


def test_coverage_on_exchangeable_blocks():
    """200 blocks of alike pixels fit the sets: 200 others are covered within two points of 90 %, nine times in ten."""
    random = np.random.default_rng(0)
    held = []
    for _ in range(40):
        hardness = random.uniform(0.3, 2.0, 400)  # pixels of a block are alike
        label = random.integers(0, 5, (400, 100))
        logits = random.normal(0, 1, (400, 100, 5)) * hardness[:, None, None]
        np.put_along_axis(logits, label[..., None], np.take_along_axis(logits, label[..., None], 2) + 1.5, 2)
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        from_ = fit_sets(p[:200].reshape(-1, 5), label[:200].ravel(), 0.9)
        right = np.take_along_axis(p[200:], label[200:, :, None], 2)[..., 0]
        held.append((right >= from_).mean())
    assert abs(np.mean(held) - 0.9) < 0.01
    assert np.quantile(np.abs(np.subtract(held, 0.9)), 0.9) < 0.02


def test_sets_of_few_answers():
    p = np.full((60, 2), 0.5)
    assert fit_sets(p, np.zeros(60, int), 0.99) == 0.0  # 60 answers cannot promise 99 %: every class is in
    with pytest.raises(DataError, match="too few"):
        fit_sets(p[:9], np.zeros(9, int), 0.9)
