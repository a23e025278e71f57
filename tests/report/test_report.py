from __future__ import annotations

import base64
import io
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import rasterio
from matplotlib.image import imread

from covermap.core.config_file import parse_config
from covermap.core.legend import IGNORE
from covermap.core.run import Run
from covermap.data.scene import open_scenes
from covermap.data.split import Split
from covermap.geo import pictures
from covermap.geo.grid import Window
from covermap.report import scene_pictures, words, write_report
from covermap.report.page import COUNTED_PX, result_sentence
from covermap.report.render import hectares, seconds

SECTIONS = [
    "doubts", "scores", "classes", "confusion", "training", "split", "examples", "map", "areas", "confidence", "data",
    "settings", "versions",
]  # fmt: skip


class Page(HTMLParser):
    """What a browser sees: sections in order with their text, tables by caption, images, every attribute."""

    VOID = ("meta", "img", "link", "br", "hr", "input")

    def __init__(self, html):
        super().__init__()
        self.open, self.sections, self.tables, self.images = [], {}, {}, {}
        self.attributes, self.tags, self.section, self.cell, self.rows, self.caption = [], [], None, None, None, ""
        self.feed(html)
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs.items()]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = attrs["id"]
            self.sections[self.section] = ""
        elif tag == "img":
            self.images.setdefault(self.section, []).append((attrs["alt"], attrs["src"]))
        elif tag == "table":
            self.rows, self.caption = [], ""
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"{tag} closes what it did not open"
        if tag == "table":
            self.tables[self.caption.strip()] = [[cell.strip() for cell in row] for row in self.rows]
        elif tag == "section":
            self.section = None

    def handle_data(self, data):
        if self.section:
            self.sections[self.section] += data
        if "caption" in self.open:
            self.caption += data
        elif {"th", "td"} & set(self.open):
            self.rows[-1][-1] += data

    def table(self, start):
        return next(rows for caption, rows in self.tables.items() if caption.startswith(start))


def pixels(uri):
    """A PNG data URI as (H, W, 3) uint8."""
    kind, data = uri.split(",", 1)
    assert kind == "data:image/png;base64"
    return np.rint(imread(io.BytesIO(base64.b64decode(data)))[..., :3] * 255).astype(np.uint8)


def svg(uri):
    kind, data = uri.split(",", 1)
    assert kind == "data:image/svg+xml;base64"
    return base64.b64decode(data).decode("utf-8")


def colours_in(picture):
    return {"#{:02x}{:02x}{:02x}".format(*rgb) for rgb in np.unique(picture.reshape(-1, 3), axis=0)}


def squeezed(text):
    return " ".join(text.split())


@pytest.fixture(scope="module")
def html(run):
    return run.path("report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


@pytest.fixture
def quick(monkeypatch):
    """Nothing is drawn: for tests of the words around the figures."""
    for name in (
        "report.figures.class_bars", "report.figures.confusion_heat", "report.figures.learning_curves",
        "report.figures.reliability", "report.figures.area_bars", "report.figures.radar", "report.figures.part_bars",
        "geo.pictures.png_uri", "geo.pictures.photo_uri",
    ):  # fmt: skip
        monkeypatch.setattr(f"covermap.{name}", lambda *data, **more: "data:image/png;base64,")


def test_sections_stand_in_order_and_nothing_is_missing(page, html):
    assert list(page.sections) == SECTIONS
    assert 'class="absent"' not in html
    assert [href[1:] for _, key, href in page.attributes if key == "href"] == SECTIONS
    assert len(html) < 5e6


def test_no_address_is_loaded_and_nothing_runs(page, html):
    loaded = [v for _, key, v in page.attributes if key in ("src", "href", "srcset", "data", "action", "poster")]
    assert loaded
    assert all(v.startswith(("data:image/", "#")) for v in loaded)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert not any(key.startswith("on") for _, key, _ in page.attributes)
    assert "url(" not in html
    assert "@import" not in html
    for _, uri in (i for images in page.images.values() for i in images):
        if uri.startswith("data:image/svg"):
            assert not re.search(r"(href|src)\s*=\s*['\"](?!#|data:)", svg(uri))
            assert not re.search("url\\((?!#)|<!|<metadata|@import", svg(uri))


def test_images_have_alt_texts_and_headers_have_scopes(page):
    assert all(alt for images in page.images.values() for alt, _ in images)
    headers = page.tags.count("th")
    assert headers == sum(1 for tag, key, _ in page.attributes if (tag, key) == ("th", "scope"))


def test_scores_are_those_of_the_metrics(run, page, html):
    models = run.read_json("metrics.json")["models"]
    first, second = (models[name]["scores"] for name in ("network", "random forest"))
    rows = {row[0]: row[1:3] for row in page.table("Agreement")}
    nbsp = "\N{NO-BREAK SPACE}"
    assert rows["Overall agreement"] == [f"{100 * s['oa']:.1f}{nbsp}%" for s in (first, second)]
    assert rows["Mean IoU"] == [f"{s['miou']:.3f}" for s in (first, second)]
    assert rows["Mean F1"] == [f"{s['macro_f1']:.3f}" for s in (first, second)]
    assert rows["Kappa"] == [f"{s['kappa']:.3f}" for s in (first, second)]
    assert rows["Labelled pixels"] == [f"{s['num_pixels']:,}" for s in (first, second)]
    assert f"{100 * first['oa']:.1f}{nbsp}% (mean IoU {first['miou']:.2f} over {first['num_present']} classes)" in html


def test_the_class_table_is_that_of_the_metrics(run, page, class_colours):
    models = run.read_json("metrics.json")["models"]
    rows = page.table("Scores of each class")[2:]
    assert [row[0] for row in rows] == list(class_colours)
    for i, row in enumerate(rows):
        network, forest = (models[m]["per_class"][i] for m in ("network", "random forest"))
        assert row[1] == f"{network['reference_px']:,.0f}"
        assert row[2:4] == ["–" if m["iou"] is None else f"{m['iou']:.2f}" for m in (network, forest)]
        wanted = ["–" if m["producers"] is None else f"{100 * m['producers']:.0f}" for m in (network, forest)]
        assert [cell.rstrip("\N{NO-BREAK SPACE}%") for cell in row[8:10]] == wanted


def test_charts_show_every_class_and_the_counts(run, page, class_colours):
    (_, bars), (alt, rings) = page.images["classes"]
    assert alt.startswith("Radar chart of the IoU of each class: a ring for each of network and random forest")
    assert all(name in svg(rings) for name in (*class_colours, "network", "random forest"))
    assert all(name in svg(bars) for name in class_colours)
    assert all(colour in svg(bars) for colour in class_colours.values())
    (alt, heat), (by_column, columns), (_, other) = page.images["confusion"]
    assert "percent of each row" in alt
    assert "percent of each column" in by_column
    assert "network" in alt
    assert heat != other
    table = np.array(run.read_json("metrics.json")["models"]["network"]["confusion"])
    assert f">{table[1, 1] / table[1].sum():.0%}<" in svg(heat).replace(" ", "")
    assert f">{table[1, 1] / table[:, 1].sum():.0%}<" in svg(columns).replace(" ", "")
    assert all(text in svg(page.images["training"][0][1]) for text in ("Loss", "Learning rate", "mIoU"))


def test_the_split_table_counts_as_the_split_does(run, page, class_colours):
    scenes = open_scenes(run.config.data)
    split = Split.load(run.path("split.csv"))
    label = scenes[0].read_labels(scenes[0].grid.window)
    mask = split.part_mask("image", scenes[0].grid.window)
    rows = {row[0]: row[1:] for row in page.table("Labelled pixels of each class")[1:]}
    for i, name in enumerate(class_colours):
        assert rows[name] == [f"{((label == i) & (mask == p)).sum():,}" for p in (1, 2, 3)]
    assert rows["All"] == [f"{((label != IGNORE) & (mask == p)).sum():,}" for p in (1, 2, 3)]


def test_examples_show_what_the_files_hold(run, page, class_colours):
    scene = open_scenes(run.config.data)[0]
    images = page.images["examples"]
    assert len(images) == 12
    assert [alt.split()[0] for alt, _ in images[:3]] == ["Image", "Label", "Prediction"]
    row, col = (int(n) for n in re.search(r"row (\d+), column (\d+)", images[0][0]).groups())
    label, predicted = pixels(images[1][1]), pixels(images[2][1])
    window = Window(row, col, *label.shape[:2])
    table = np.array([pictures.rgb_of(c) for c in class_colours.values()])
    with rasterio.open(run.path("map.tif")) as dataset:
        codes = dataset.read(1, window=window.rasterio)
    assert np.array_equal(predicted[codes > 0], table[codes[codes > 0] - 1])
    truth = Split.load(run.path("split.csv")).labels(scene, window, "test")
    assert np.array_equal(label[truth != IGNORE], table[truth[truth != IGNORE]])
    assert colours_in(label[truth == IGNORE]) <= {pictures.EMPTY_COLOUR}
    assert set(np.unique(truth)) != {IGNORE}


def test_map_colours_are_the_legend_everywhere(page, class_colours):
    legend = set(class_colours.values())
    land_cover = pixels(page.images["map"][1][1])
    assert colours_in(land_cover) == legend | {pictures.EMPTY_COLOUR}
    styles = [value for _, key, value in page.attributes if key == "style"]
    assert all(f"background:{colour}" in styles for colour in legend)


def test_areas_are_those_of_the_table_beside_the_map(run, page, class_colours):
    with rasterio.open(run.path("map.tif")) as dataset:
        codes = dataset.read(1)
    rows = {row[0]: row[1:3] for row in page.table("Mapped area: pixel counting, not an error-adjusted")[1:]}
    for i, name in enumerate(class_colours, 1):
        area = (codes == i).sum() * 100 / 1e4
        assert float(rows[name][0].replace(",", "")) == pytest.approx(area, abs=0.51)
        assert rows[name][1] == f"{100 * (codes == i).sum() / (codes > 0).sum():.1f}\N{NO-BREAK SPACE}%"


def test_confidence_says_its_median(run, page):
    with rasterio.open(run.path("confidence.tif")) as dataset:
        values = dataset.read(1)
    assert f"median confidence is {np.median(values[values != 255]):.0f} %" in squeezed(page.sections["confidence"])


def test_areas_are_those_of_the_assessment(run, page, class_colours):
    found = run.read_json("assessment.json")
    text = squeezed(page.sections["areas"])
    assert f"right on {100 * found['overall']['value']:.1f} % of its area" in text
    sizes = [row["num_samples"] for row in found["strata"]]
    each = f"{min(sizes)} to {max(sizes)} in each"
    assert f"300 points (map_sample.csv) drawn at random within 7 strata, {each}; estimator: stratified" in text
    notes = {row["note"]: row["name"] for row in found["areas"] if "note" in row}
    assert notes
    assert all(note in text and name in text.split(note)[0].split(" of ")[-1] for note, name in notes.items())
    rows = {row[0]: row[1:] for row in page.table("Areas in hectares")[1:]}
    assert list(rows) == list(class_colours)
    for area, users in zip(found["areas"], found["users"], strict=True):
        mapped, value, half, *accuracies = rows[area["name"]]
        digits = 0 if area["ci95_ha"] >= 10 else 1 if area["ci95_ha"] >= 1 else 2
        assert mapped == f"{area['mapped_ha']:,.{digits}f}"
        assert value == f"{area['area_ha']:,.{digits}f}"
        assert half.startswith(("±", "("))
        assert squeezed(accuracies[0]).startswith(f"{100 * users['value']:.0f} % {100 * users['low']:.0f} to ")
    ((_, chart),) = page.images["areas"]
    assert all(name in svg(chart) and colour in svg(chart) for name, colour in class_colours.items())
    assert ">true<" not in svg(chart)
    assert "covermap sample" not in text


def test_true_areas_are_shown_where_they_are_known(make_run, tmp_path):
    run = make_run(tmp_path, size_px=96)
    found = run.read_json("assessment.json")
    for row in found["areas"]:
        row["true_ha"] = row["mapped_ha"] / 2
    run.write_json("assessment.json", found)
    page = Page(write_report(run).read_text(encoding="utf-8"))
    head, *rows = page.table("Areas in hectares")
    assert head[3] == "True"
    assert len(rows[0]) == 7
    assert ">true<" in svg(page.images["areas"][0][1])


def test_an_assessment_of_a_map_that_changed_since_is_not_shown(make_run, tmp_path, quick):
    run = make_run(tmp_path, size_px=96)
    before = run.path("report.html")
    with rasterio.open(run.path("map.tif"), "r+") as dataset:
        dataset.write(np.roll(dataset.read(), 5, 1))
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert before.is_file()
    assert "map.tif changed since a sample assessed it" in page.sections["areas"]
    assert "Areas in hectares" not in " ".join(page.tables)
    assert "use the sample's" not in page.sections["doubts"]


def test_doubts_name_areas_that_the_sample_contradicts(make_run, tmp_path, quick):
    run = make_run(tmp_path, size_px=96)
    found = run.read_json("assessment.json")
    row = found["areas"][1]
    row |= {"mapped_ha": 500.0, "area_ha": 300.0, "ci95_ha": 20.0, "low_ha": 280.0, "high_ha": 320.0}
    run.write_json("assessment.json", found)
    page = Page(write_report(run).read_text(encoding="utf-8"))
    text = squeezed(page.sections["doubts"])
    assert "500 ha of forest, the sample says 300 ± 20" in text
    assert ("td", "class", "low") in page.attributes


def test_several_maps_have_an_assessment_each(make_run, tmp_path, quick):
    run = make_run(tmp_path, size_px=96)
    run.path("maps").mkdir()
    for name in "bca":
        shutil.copy(run.path("map.tif"), run.path(f"maps/{name}.tif"))
        shutil.copy(run.path("assessment.json"), run.path(f"maps/{name}.assessment.json"))
    page = Page(write_report(run).read_text(encoding="utf-8"))
    text = squeezed(page.sections["areas"])
    assert "3 of 4 assessed maps are shown" in text
    assert re.findall(r"(\S+\.tif) The map of", text) == ["map.tif", "maps/a.tif", "maps/b.tif"]


LAYERS = ("confidence.tif", "entropy.tif", "set_size.tif", "applicability.tif")


def test_layers_are_shown_with_their_scales(run, page):
    text = squeezed(page.sections["confidence"])
    images = dict(page.images["confidence"])
    assert [alt.split(" of scene")[0] for alt in images] == [
        f"Overview of the {name}" for name in ("confidence", "entropy", "classes in a set", "unlike the training data")
    ]
    with rasterio.open(run.path("entropy.tif")) as dataset:
        entropy = dataset.read(1)
    assert f"median entropy is {np.median(entropy[entropy != 255]):.0f} %" in text
    with rasterio.open(run.path("set_size.tif")) as dataset:
        size = dataset.read(1)
    known = size[size != 255]
    assert f"{known.mean():.2f} classes on average" in text
    assert f"2 classes: {100 * (known == 2).mean():.1f} %" in text
    assert f"1 class: {100 * (known == 1).mean():.1f} %" in text
    assert "no class:" not in text
    assert "right one in 90 %" in text
    with rasterio.open(run.path("applicability.tif")) as dataset:
        away = dataset.read(1)
    away = away[away != 255]
    assert f"{100 * (away > 100).mean():.1f} % of the pixels shown are unlike the training data" in text
    assert f"51 to 100: {100 * ((away > 50) & (away <= 100)).mean():.1f} %" in text
    # What the legend says is what the picture shows.
    picture = pixels(images["Overview of the classes in a set of scene image"])
    styles = [value for _, key, value in page.attributes if key == "style"]
    for value in np.unique(known):
        (colour,) = colours_in(picture[size == value])
        assert f"background:{colour}" in styles
    assert colours_in(picture[size == 255]) == {pictures.EMPTY_COLOUR}


@pytest.mark.parametrize("gone", LAYERS)
def test_each_layer_is_shown_alone(make_run, tmp_path, quick, gone):
    run = make_run(tmp_path, size_px=96)
    for name in set(LAYERS) - {gone}:
        run.path(name).unlink()
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert len(page.images["confidence"]) == 1
    assert gone in page.sections["confidence"]


def test_a_layer_without_a_pixel_says_nothing_of_it(make_run, tmp_path, quick):
    run = make_run(tmp_path, size_px=96)
    for name in LAYERS:
        with rasterio.open(run.path(name), "r+") as dataset:
            dataset.write(np.full_like(dataset.read(), 255))
    text = Page(write_report(run).read_text(encoding="utf-8")).sections["confidence"]
    assert "median" not in text
    assert "on average" not in text
    assert "are unlike" not in text


def test_data_settings_and_versions_stand_there(run, page):
    text = squeezed(page.sections["data"])
    assert "EPSG:32631" in text
    assert "sentinel2: blue, green, red, nir" in text
    assert all(path in text and digest[:12] in text for path, digest in run.read_json("inputs.json").items())
    assert "weight_decay: 0.01" in page.sections["settings"]
    assert run.read_json("versions.json")["python"] in page.sections["versions"]


def test_the_same_run_gives_the_same_bytes(run, html):
    assert write_report(run).read_text(encoding="utf-8") == html


def test_class_names_and_notes_cannot_write_html(make_run, tmp_path):
    bad = "<script>alert(1)</script>"
    run = make_run(tmp_path, size_px=96, names=(bad, "$x^", "a & b", 'c"d', "built-up", "bare soil", "x" * 60))
    run.write_json("notes.json", ["<img src=http://example.org/x.png onerror=alert(2)>"])
    text = write_report(run).read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert all(v.startswith(("data:", "#")) for _, key, v in page.attributes if key in ("src", "href"))
    assert bad in page.sections["classes"]
    assert "<img src=http://example.org/x.png" in page.sections["doubts"]
    bars = svg(page.images["classes"][0][1])
    assert "$x^" in bars
    assert "<script" not in bars


def test_a_colour_cannot_write_css(make_run, tmp_path, quick):
    run = make_run(tmp_path, size_px=96)
    legend = run.config.data.legend
    legend["classes"][0]["colour"] = "#2b6cb0;background:url(http://example.org)"
    write_report(run)
    page = Page(run.path("report.html").read_text(encoding="utf-8"))
    assert "background:#2b6cb0" in [value for _, key, value in page.attributes if key == "style"]
    assert not any("example.org" in value for _, _, value in page.attributes)


def test_a_run_that_has_only_begun_says_which_commands_go_on(tmp_path):
    data = {"image": str(tmp_path / "none.tif"), "labels": str(tmp_path / "no.tif"), "legend": {1: "a", 2: "b"}}
    run = Run.create(parse_config({"name": "new", "output": str(tmp_path), "data": data}))
    text = write_report(run).read_text(encoding="utf-8")
    page = Page(text)
    assert list(page.sections) == SECTIONS
    assert "This run has no scores yet." in text
    assert f"there is no file {tmp_path / 'none.tif'}" in page.sections["doubts"]
    for section, command in {
        "scores": f"covermap evaluate {run.folder}", "training": f"covermap train {run.folder}/config.yaml --resume",
        "split": "covermap train", "map": f"covermap run {run.folder}/config.yaml --resume",
        "areas": f"covermap sample {run.folder}/map.tif", "examples": "covermap run", "confidence": "covermap run", "confusion": "covermap evaluate",
    }.items():  # fmt: skip
        assert command in page.sections[section], section
    assert not page.images


@pytest.mark.parametrize(
    ("gone", "section"),
    [
        ("metrics.json", "scores"), ("log.jsonl", "training"), ("map.tif", "map"), ("split.csv", "split"),
        ("confidence.tif", "confidence"), ("areas.csv", "map"), ("model/config.json", ""),
        ("../../image.tif", "map"), ("inputs.json", "data"), ("versions.json", "versions"),
        ("assessment.json", "areas"),
    ],
)  # fmt: skip
def test_each_absent_piece_is_left_out_with_its_command(run, tmp_path, quick, gone, section):
    source = run.folder.parent.parent
    shutil.copytree(source, tmp_path / "copy")
    copy = tmp_path / "copy/runs/demo"
    config = (copy / "config.yaml").read_text(encoding="utf-8").replace(str(source), str(tmp_path / "copy"))
    (copy / "config.yaml").write_text(config, encoding="utf-8")
    (copy / gone).unlink()
    text = write_report(Run.open(copy)).read_text(encoding="utf-8")
    assert list(Page(text).sections) == SECTIONS
    assert ('class="absent"' in text) == bool(section)
    assert not section or "covermap " in Page(text).sections[section]


def test_scenes_too_large_to_count_are_shown_but_not_counted(make_run, tmp_path, monkeypatch, quick):
    monkeypatch.setattr("covermap.report.page.COUNTED_PX", 1000)
    page = Page(write_report(make_run(tmp_path, size_px=96)).read_text(encoding="utf-8"))
    assert COUNTED_PX > 1000
    assert "counted by covermap check" in squeezed(page.sections["split"])
    assert len(page.images["split"]) == 1


def test_a_val_score_is_never_called_a_test(run):
    metrics = run.read_json("metrics.json") | {"part": "val", "is_test": False, "note": "val chose the checkpoint"}
    assert result_sentence(metrics).startswith("On val pixels (no test) the network agrees")


def test_numbers_in_words():
    assert [hectares(v) for v in (1234.4, 12.345, 1.2345)] == ["1,234", "12.3", "1.23"]
    assert [seconds(v) for v in (42.4, 200, 7500)] == ["42 s", "3 min 20 s", "2 h 5 min"]
    one = {"oa": 0.9123, "miou": 0.714, "num_present": 7}
    two = {"oa": 0.84, "miou": 0.58, "num_present": 7}
    models = {"network": {"scores": one}, "random forest": {"scores": two}}
    sentence = result_sentence({"part": "test", "is_test": True, "models": models})
    assert sentence.replace("\N{NO-BREAK SPACE}", " ") == (
        "On held-out test pixels the network agrees with the labels on 91.2 % (mean IoU 0.71 over 7 classes); "
        "the random forest beside it reaches 84.0 % (0.58)."
    )


def test_words_beside_figures_are_counted(run, page, class_colours):
    metrics = run.read_json("metrics.json")
    names, models = list(class_colours), metrics["models"]
    iou = {row["class"]: row["iou"] for row in models["network"]["per_class"] if row["iou"] is not None}
    best, worst = max(iou, key=iou.get), min(iou, key=iou.get)
    text = squeezed(page.sections["classes"])
    assert f"The network tells {best} best (IoU {iou[best]:.2f}), {worst} worst ({iou[worst]:.2f})." in text
    table = np.array(models["network"]["confusion"], float)
    wrong = table * (1 - np.eye(len(table)))
    row, column = np.unravel_index(wrong.argmax(), wrong.shape)
    share = f"{100 * wrong[row, column] / table[row].sum():.0f} % of {names[row]}"
    text = squeezed(page.sections["confusion"])
    assert f"the network's {wrong.sum():,.0f} wrong pixels: {names[row]} called {names[column]} ({share})" in text
    log = run.read_log()
    assert f"The train loss fell from {log[0]['loss']:.3g} to {log[-1]['loss']:.3g}" in page.sections["training"]
    counts = {row[0]: [int(cell.replace(",", "")) for cell in row[1:]] for row in page.table("Labelled pixels of")[1:]}
    shares = {name: (row[0] / counts["All"][0], row[2] / counts["All"][2]) for name, row in counts.items()}
    apart = sum(abs(a - b) for a, b in shares.values()) / 2
    assert f"{100 * apart:.0f} % of the test labels would have to be of another class" in squeezed(
        page.sections["split"]
    )
    far = max(shares, key=lambda name: abs(shares[name][0] - shares[name][1]))
    assert f"farthest apart is {far} ({100 * shares[far][0]:.1f} % of train" in squeezed(page.sections["split"])


def test_the_mix_of_classes_is_drawn_by_part(page, class_colours):
    (_, mix) = page.images["split"][-1]
    assert all(name in svg(mix) for name in (*class_colours, "train", "val", "test"))
    assert all(colour in svg(mix) for colour in scene_pictures.PART_COLOURS.values())


def test_calibration_is_told_in_points():
    rows = [{"confidence": None, "accuracy": None, "num_pixels": 0},
            {"confidence": 0.6, "accuracy": 0.7, "num_pixels": 100},
            {"confidence": 0.9, "accuracy": 0.8, "num_pixels": 300}]  # fmt: skip
    said = words.of_reliability({"network": rows}).replace("\N{NO-BREAK SPACE}", " ")
    assert said == "The network gives its answers 82.5 % on average, 77.5 % are right: too sure by 5.0 points."
    assert words.of_reliability({"network": rows[:1]}) == ""


def test_figures_that_say_nothing_are_left_out(make_run, tmp_path, quick):
    run = make_run(tmp_path, size_px=96)
    log = run.path("log.jsonl").read_text(encoding="utf-8").splitlines()
    run.path("log.jsonl").write_text(log[0] + "\n", encoding="utf-8")
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "training" not in page.images
    assert "1 epoch in 7 s" in squeezed(page.sections["training"])


def test_pages_print_well(html):
    css = html[html.index("@media print") :]
    for rule in ("@page", "color-scheme: light", "break-inside: avoid", "display: table-header-group"):
        assert rule in css, rule
