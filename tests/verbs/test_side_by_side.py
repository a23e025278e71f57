"""Several runs on one page: what differs, scores, paired differences."""

from __future__ import annotations

import copy

import pytest

from covermap.core.config_file import parse_config
from covermap.core.errors import DataError
from covermap.core.run import Run
from covermap.verbs.evaluate import evaluate
from covermap.verbs.side_by_side import report_several
from covermap.verbs.train import train


def one(tiny, name: str, **more) -> Run:
    raw = copy.deepcopy(tiny) | {"name": name}
    raw["train"] |= {"epochs": 1, "steps_per_epoch": 4, **more}
    raw["baseline"] = {"trees": 5}
    return train(parse_config(raw))


def test_runs_are_shown_beside_each_other(tiny, covermap, tmp_path):
    fast, slow = one(tiny, "fast", lr=0.02), one(tiny, "slow", lr=1e-5)
    value = evaluate(fast)["models"]["network"]["scores"]["miou"]
    code, out, _ = covermap("report", fast.folder, slow.folder)
    assert code == 0
    page = fast.folder.parent / "comparison.html"
    assert out.strip() == str(page)
    text = page.read_text()
    assert f"{value:.3f}" in text
    for words in ("train.lr", "1e-05", "Minus train.lr=0.02", "random forest", "95 % by blocks"):
        assert words in text, words
    assert "http" not in text.replace("http-equiv", "")
    code, _, err = covermap("report", fast.folder, slow.folder)
    assert code == 1
    assert "exists already" in err
    assert covermap("report", fast.folder, slow.folder, "--out", tmp_path / "x.html")[0] == 0
    assert covermap("report", fast.folder, "--out", tmp_path / "y.html")[0] == 1


def test_runs_of_other_classes_do_not_compare(tiny, tmp_path):
    first = one(tiny, "one")
    tiny["data"]["merge"] = {"dry": ["field", "town"]}
    with pytest.raises(DataError, match="different tasks or classes"):
        report_several([first, one(tiny, "two")], tmp_path / "x.html")
