"""The report of a pre-training: numbers of its log, what speaks against them, several beside each other."""

from __future__ import annotations

import json
import re

import matplotlib.image
import numpy as np
import pytest
import yaml

from covermap.core.pretrain_config import parse_pretrain_config
from covermap.report.pretrain_doubts import of_pretraining
from covermap.report.pretrain_page import Pretrained, sentence, write_pretrain_report
from tests.report.test_report import svg

LOOKS = (  # step, loss, spread, effective rank, R2
    (0, None, 0.52, 13.2, 0.60), (50, 0.95, 0.70, 9.0, 0.62), (100, 0.80, 0.74, 8.0, 0.66), (150, 0.71, 0.76, 8.1, 0.69),
    (200, 0.66, 0.77, 8.4, 0.71),
)  # fmt: skip


def make(folder, *, name="ssl", method="mae", looks=LOOKS, raw=0.58, **more):
    """A finished pre-training whose numbers are made."""
    config = parse_pretrain_config(
        {"name": name, "output": str(folder), "data": {"image": str(folder / "a.tif")},
         "model": {"backbone": "sensor_vit_nano"}, "method": method, "train": {"steps": 200}},
        where="recipe", base=folder,
    )  # fmt: skip
    run = Pretrained(folder / name, config)
    run.path("model").mkdir(parents=True)
    run.path("config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    for step, loss, spread, rank, r2 in looks:
        row = {"step": step, "spread": spread, "effective_rank": rank}
        row |= {} if r2 is None else {"probe_r2": r2}
        row |= {"probe_r2_raw": raw} if step == 0 and r2 is not None else {}
        row |= {} if loss is None else {"loss": loss, "mae_optical": loss - 0.1, "mae_radar": loss + 0.1, "lr": 1e-3}
        run.log(row | ({} if loss is None else {"seconds": 2.0}) | (more if step == looks[-1][0] else {}))
    facts = {"run": name, "method": method, "step": looks[-1][0], "dimensions": 96, "parameters": 460_224}
    sensor = {"sensor": "optical", "bands": ["red", "nir"], "num_dates": 1}
    run.write_json("model/config.json", {"facts": facts, "input": {"sensors": [sensor]}})
    run.write_json("notes.json", ["<b>a note</b>"])
    run.write_json("inputs.json", {"a.tif": "0" * 64})
    run.write_json("versions.json", {"covermap": "0.1.0", "command": "covermap pretrain recipe.yaml"})
    return run


def report(run):
    return write_pretrain_report(run).read_text(encoding="utf-8")


def drawn(html):
    return [svg(uri) for uri in re.findall(r'src="(data:image/svg[^"]*)"', html)]


def doubts(run):
    return " ".join(of_pretraining(run.config, run.rows, run.probe, run.own))


def test_the_page_tells_what_the_log_holds(tmp_path):
    run = make(tmp_path)
    html = report(run)
    assert sentence(run) == (
        "After 200 steps of mae a linear probe reaches R2 0.710: +0.130 against raw statistics of the bands and "
        "+0.110 against random weights."
    )
    for text in (sentence(run), "raw statistics", "0.580", "460,224", "200 of 200", "error of hidden patches of radar",
                 "The loss fell from 0.95 (up to step 50) to 0.66", "rank from 13.2 to 8.4", "optical",
                 "covermap pretrain recipe.yaml", "&lt;b&gt;a note"):  # fmt: skip
        assert text in html, text
    probe, terms, vectors = drawn(html)
    assert "R2 of the probe" in probe
    assert all(text in terms for text in ("Loss", "Terms", "mae_radar", "Learning rate"))
    assert "Effective rank" in vectors
    assert html.index("Before this is believed") < html.index("What a probe tells")
    assert "http" not in html
    assert all(re.findall(r'<img [^>]*alt="([^"]*)"', html))
    assert len(html) < 5e6
    assert "Hidden patches" not in html
    assert "Which tensors" not in html


def test_a_look_at_the_end_alone_is_no_curve(tmp_path):
    html = report(make(tmp_path, looks=(LOOKS[0], LOOKS[-1])))
    (bars,) = drawn(html)
    assert all(text in bars for text in ("0.580", "0.600", "0.710", "after 200 steps"))
    assert "looked at once only" in html
    assert "no curve" in html


def test_what_several_processes_share_is_counted(tmp_path):
    run = make(tmp_path)
    run.write_json("versions.json", {"command": "covermap pretrain recipe.yaml", "processes": "2"})
    html = report(run)
    assert "64 of 64 px a step (32 in each of 2 processes)" in html
    assert "torchrun --nproc-per-node 2 -m covermap pretrain recipe.yaml" in html
    assert "1 files were read, with those of labels" in html


def test_reconstructions_and_loaded_tensors_are_shown(tmp_path):
    run = make(tmp_path)
    matplotlib.image.imsave(run.path("reconstruction.png"), np.zeros((8, 8, 3)))
    rows = [{"tensor": "a", "shape": [1], "fate": "loaded", "note": ""},
            {"tensor": "b", "shape": [1], "fate": "missing", "note": ""}]  # fmt: skip
    run.write_json("weights.json", {"facts": {}, "summary": "w.safetensors: 1 loaded, 1 missing", "tensors": rows})
    html = report(run)
    assert "brightness and contrast are given, its colours" in html
    assert "75 % of the patches hidden" in html
    assert "w.safetensors: 1 loaded, 1 missing. weights.json names every tensor." in html
    assert re.search(r"missing</th><td[^>]*>1</td><td[^>]*>b<", html)


def test_what_is_to_be_distrusted_is_said(tmp_path):
    assert "One run with seed 0" in doubts(make(tmp_path / "1"))
    assert "no better than raw statistics of the bands: R2 0.710 against 0.705" in doubts(
        make(tmp_path / "2", raw=0.705)
    )
    assert "worse than raw statistics" in doubts(make(tmp_path / "3", raw=0.9))
    fallen = (*LOOKS[:4], (200, 0.66, 0.77, 8.4, 0.61))
    assert "better before: R2 0.690 at step 150, 0.610 at the end" in doubts(make(tmp_path / "4", looks=fallen))
    dead = (*LOOKS[:4], (200, 0.66, 0.05, 2.1, 0.61))
    assert "near collapse: spread 0.05 of 1, 2.1 directions" in doubts(make(tmp_path / "5", looks=dead))
    narrow = (*LOOKS[:4], (200, 0.66, 0.7, 5.0, 0.71))
    assert "narrowed from 13.2 to 5.0 directions" in doubts(make(tmp_path / "6", looks=narrow))
    rising = (*LOOKS[:4], (200, 0.97, 0.77, 8.4, 0.71))
    assert "The loss did not fall: 0.95 at first, 0.97 at the end" in doubts(make(tmp_path / "7", looks=rising))
    assert "hidden patches of radar is told: error 0.99" in doubts(make(tmp_path / "8", mae_radar=0.99))
    assert "stopped after step 150 of 200" in doubts(make(tmp_path / "9", looks=LOOKS[:4]))
    unknown = tuple((*look[:4], None) for look in LOOKS)
    run = make(tmp_path / "10", looks=unknown)
    assert "No probe was made: there are no labels of classes" in doubts(run)
    assert "no probe says what it is worth" in report(run)
    dead = make(tmp_path / "13", looks=LOOKS[:4], collapse="all windows get one vector")
    assert "ended at step 150 of 200: all windows get one vector. --resume would run into the same" in doubts(dead)
    assert "Nothing has been learnt yet" in doubts(make(tmp_path / "11", looks=LOOKS[:1]))
    assert "Nothing has been learnt yet" in report(make(tmp_path / "12", looks=LOOKS[:1]))


def test_the_command_knows_a_pretraining(tmp_path, covermap):
    first, second = make(tmp_path, name="a"), make(tmp_path, name="b", method="dino", raw=0.58)
    code, out, _ = covermap("report", first.folder)
    assert (code, out.strip()) == (0, str(first.path("report.html")))
    code, out, _ = covermap("report", first.folder, second.folder)
    assert code == 0
    html = (tmp_path / "comparison.html").read_text(encoding="utf-8")
    for text in (
        "R2 of a linear probe, the best first",
        "method.name",
        "dino",
        "are not told apart without more seeds",
    ):
        assert text in html, text
    bars, curves = drawn(html)
    assert all(text in bars for text in ("raw statistics", "0.580", "0.710"))
    assert "R2 of the probe" in curves
    assert covermap("report", first.folder, first.folder, "--out", tmp_path / "x.html")[0] == 1
    (tmp_path / "c").mkdir()
    (tmp_path / "c/config.yaml").write_text(json.dumps({"name": "c"}), encoding="utf-8")
    code, _, err = covermap("report", first.folder, tmp_path / "c")
    assert code == 1
    assert "their numbers do not compare" in err


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: [", "name: x"])
def test_what_is_no_pretraining_is_none(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    assert not Pretrained.lies_in(tmp_path)
    assert not Pretrained.lies_in(tmp_path / "none")
