import json

import pytest
import yaml

from covermap.core.config import RunConfig, expand, split_date, whole_period
from covermap.core.config_file import load_config, parse_config
from covermap.core.errors import ConfigError

MINIMAL = {"data": {"image": "a.tif", "labels": "b.tif"}}


def write(tmp_path, raw):
    path = tmp_path / "c.yaml"
    path.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw))
    return path


def test_four_lines_are_a_config_and_paths_count_from_its_folder(tmp_path):
    config = load_config(write(tmp_path, MINIMAL))
    assert config.data.images[0].path == str(tmp_path / "a.tif")
    assert config.data.labels == str(tmp_path / "b.tif")
    assert config.folder == tmp_path / "runs" / "run"


def test_plug_ins_in_files_count_from_the_configs_folder_too(tmp_path):
    raw = {"data": {"source": "mine.py:Layout", "root": "d"}, "train": {"loss": "dice + 0.5 * own/loss 2.py:L"},
           "model": {"backbone": "unet+../net.py:A", "decoder": "fpn"}}  # fmt: skip
    config = load_config(write(tmp_path, raw))
    assert config.data.source == f"{tmp_path}/mine.py:Layout"
    assert config.train.loss == f"dice + 0.5 * {tmp_path}/own/loss 2.py:L"
    assert (config.model.backbone, config.model.decoder) == (f"unet+{tmp_path.parent}/net.py:A", "fpn")


@pytest.mark.parametrize(
    ("section", "key", "suggestion"),
    [
        ((), "modle", "model"),
        (("train",), "epoch", "epochs"),
        (("train", "augment"), "flip", "flips"),
        (("split",), "blok_px", "block_px"),
    ],
)
def test_a_misspelt_key_is_refused_with_a_suggestion(section, key, suggestion):
    raw = json.loads(json.dumps(MINIMAL))
    place = raw
    for name in section:
        place = place.setdefault(name, {})
    place[key] = 1
    with pytest.raises(ConfigError, match=f"unknown key .*{key}") as caught:
        parse_config(raw)
    assert f"'{suggestion}'" in caught.value.fix


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("", "no settings"),
        ("a: [", "not valid YAML"),
        ("- 1", "no settings"),
        ("train: {}", "data is missing"),
        ('data: {image: "a\\0b.tif"}', "holds a zero"),
        ("data: {image: a.tif}\ntrain: {lr: fast}", "train.lr = 'fast'"),
        ("data: {image: a.tif}\ntrain: {monitor: val_iou}", "val_miou"),
    ],
)
def test_what_is_no_config_is_said(tmp_path, raw, words):
    with pytest.raises(ConfigError, match=words):
        load_config(write(tmp_path, raw))


def test_a_name_that_is_too_long_is_a_sentence():
    with pytest.raises(ConfigError, match="there is no config"):
        load_config("9" * 300)


def test_overrides_change_values_and_are_checked(tmp_path):
    path = write(tmp_path, MINIMAL)
    config = load_config(path, ["train.lr=1e-4", "split.test={cols: [7, 9]}", "train.class_weights=none"])
    assert config.train.lr == 1e-4
    assert config.split.test.cols == (7, 9)
    for wrong in ("train.lr", "=3", "data.image.x=1", "train.lrr=1"):
        with pytest.raises(ConfigError):
            load_config(path, [wrong])


def test_the_short_form_does_not_mix_with_a_list():
    with pytest.raises(ConfigError, match=r"data\.sensor"):
        parse_config({"data": {"image": [{"path": "a.tif"}], "sensor": "rgb"}})


def test_a_config_written_out_reads_back_equal(tmp_path):
    config = load_config(write(tmp_path, MINIMAL), ["split.val=[a, b]", "baseline=false"])
    again = parse_config(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json"))))
    assert again == config


def test_the_schema_knows_every_key():
    schema = RunConfig.model_json_schema()
    assert set(schema["properties"]) == set(RunConfig.model_fields)
    assert schema["additionalProperties"] is False


def test_a_pattern_without_files_is_an_error(tmp_path):
    (tmp_path / "b.tif").touch()
    (tmp_path / "a.tif").touch()
    assert expand(str(tmp_path / "*.tif")) == [str(tmp_path / "a.tif"), str(tmp_path / "b.tif")]
    odd = [tmp_path / "[1]" / name for name in ("*.tif", "c@2020-07-01.tif")]
    odd[0].parent.mkdir()
    for path in odd:
        path.touch()
    assert expand(str(odd[0])) == [str(odd[0])]  # a file that is called so
    assert expand(str(odd[0].with_name("c*"))) == [str(odd[1])]
    assert split_date(str(odd[1])) == (str(odd[1]), None)
    assert split_date(f"{odd[1]}@2021") == (str(odd[1]), "2021")
    with pytest.raises(ConfigError, match="no file matches"):
        expand(str(tmp_path / "*.png"))


@pytest.mark.parametrize(("text", "date"), [("2019-07-27", "2019-07-27"), ("2019", "2019"), ("'2019-07'", "2019-07")])
def test_dates_need_no_quotes(tmp_path, text, date):
    config = load_config(write(tmp_path, f"data: {{image: [{{path: a.tif, date: {text}}}]}}"))
    assert config.data.images[0].date == date


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data: {image: [{path: a.tif, date: 27.7.2019}]}", "'27.7.2019' is no date"),
        ("data: {image: a.tif}\nsplit: {test: 1.5}", "split.test is a share"),
        ("data: {image: a.tif}\nsplit: {val: -0.1}", "split.val is a share"),
        ("data: {image: a.tif}\nsplit: {val: 0.5, test: 0.6}", "leave nothing to train on"),
        ("data: {image: a.tif}\npredict: {overlap_px: 256}", "below the window size 256"),
        ("data: {image: a.tif}\ntrain: {device: gpu}", "train.device = 'gpu'"),
    ],
)
def test_values_that_cannot_be_are_named(tmp_path, text, words):
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(write(tmp_path, text))
    assert caught.value.fix


@pytest.mark.parametrize("more", [
    {},
    {"split": {"method": "kfold", "folds": 3, "fold": 2}},
    {"split": {"method": "csv", "path": "parts.csv"}},
    {"task": "chip_regression", "data": {"target": {"shares": True}}},
    {"task": "regression", "data": {"target": {"path": "height.tif", "scale": 0.1}}},
    {"task": {"name": "density", "breaks": [1, 5]}, "data": {"target": {"path": "d.tif", "per_chip": True}}},
    {"task": "hazard", "decision": {"threshold": "auto"}, "stages": [{"gsd_m": 10}, {"gsd_m": 5}]},
])  # fmt: skip
def test_the_config_that_a_run_keeps_is_the_same_one(more):
    """Written with every default, read again by evaluate, report and resume."""
    data = {"image": "i.tif", **({} if "data" in more and "path" in more["data"]["target"] else {"labels": "l.tif"})}
    config = parse_config(
        {"name": "a", "data": data | more.get("data", {}), **{k: v for k, v in more.items() if k != "data"}}
    )
    again = parse_config(config.model_dump(mode="json"))
    assert again.model_dump(mode="json") == config.model_dump(mode="json")


def test_recipes_survive_being_kept(pytestconfig):
    for path in sorted((pytestconfig.rootpath / "recipes").glob("*.yaml")):
        config = load_config(path)
        kept = config.model_dump(mode="json")
        assert parse_config(kept).model_dump(mode="json") == kept, path.name


def test_the_period_of_several_dates_runs_from_the_first_to_the_last():
    assert whole_period(["2019-07-27", "2019-07-27"]) == "2019-07-27"
    assert whole_period(["2019-04-01/2019-06-30", "2019-01/2019-03"]) == "2019-01/2019-06-30"
    assert whole_period(["2019", "2018-12-24"]) == "2018-12-24/2019"
