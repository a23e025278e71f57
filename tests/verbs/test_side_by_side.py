"""Several runs on one page: what differs, scores, paired differences."""

from __future__ import annotations

import copy
import re
from types import SimpleNamespace

import numpy as np
import pytest

from covermap.core.config_file import parse_config
from covermap.core.errors import DataError
from covermap.core.run import Run
from covermap.verbs.evaluate import evaluate
from covermap.verbs.side_by_side import report_several
from covermap.verbs.side_by_side_maps import maps_apart
from covermap.verbs.train import train


def one(tiny, name: str, **more) -> Run:
    raw = copy.deepcopy(tiny) | {"name": name}
    raw["train"] |= {"epochs": 2, "steps_per_epoch": 4, **more}
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
    for words in ("train.lr", "1e-05", "Minus train.lr=0.02", "random forest", "95 % by blocks", "run once"):
        assert words in text, words
    tables = {name: evaluate(run)["models"]["network"]["per_class"] for name, run in (("fast", fast), ("slow", slow))}
    for rows in zip(*tables.values(), strict=True):
        cells = "".join(f"<td>{row['iou']:.3f}</td>" for row in rows)
        assert f'<th scope="row">{rows[0]["class"]}</th>{cells}' in text
    assert re.findall(r"<h2>(.*?)</h2>", text)[3:6] == ["Classes", "Classes as rings", "Training"]
    assert "Where the maps differ" not in text
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


def test_maps_are_compared_where_they_are_of_the_same_ground(tmp_path, write_tif):
    first, second = np.ones((40, 50), np.uint8), np.ones((40, 50), np.uint8)
    second[:10] = 2
    second[:, :5] = 0
    runs = {}
    for name, codes in (("a", first), ("b", second), ("c", first)):
        write_tif(f"{name}/map.tif", codes, nodata=0)
        runs[name] = SimpleNamespace(folder=tmp_path / name, path=lambda file, name=name: tmp_path / name / file)
    (found,) = maps_apart(runs)
    share = (second == 2).sum() / (second > 0).sum()
    assert f"All agree on {100 * (1 - share):.1f} % of the ground that all mapped (1,800 pixels" in found.text
    assert sorted(found.rows) == sorted([["a", "b", "25.0 %"], ["a", "c", "0.0 %"], ["b", "c", "25.0 %"]])
    assert found.rows[-1] == ["a", "c", "0.0 %"]
    write_tif("c/map.tif", np.ones((30, 50), np.uint8), nodata=0)
    assert maps_apart({"a": runs["a"], "c": runs["c"]}) == []
    assert maps_apart({"a": runs["a"]}) == []
