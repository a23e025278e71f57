"""A folder without a server: all tiles, no more; what lies in the way is never replaced."""

import base64
import json
import re

import numpy as np
import pytest

from covermap.core.errors import OutputError
from covermap.verbs.view import view
from covermap.view.static import rectangles
from tests.view.view_data import codes, grey


def written(paths, out, **more):
    said = []
    found = view([str(path) for path in paths], static=out, say=said.append, **more)
    return found, said


def view_js(out):
    text = (out / "view.js").read_text(encoding="utf-8")
    assert text.startswith("var covermap = window.covermap || {};\ncovermap.view = ")
    return json.loads(text.partition("covermap.view = ")[2].rstrip().removesuffix(";"))


def test_a_folder_holds_the_page_its_data_and_all_tiles(folder, tmp_path):
    out, steps = tmp_path / "site", []
    found, said = written([folder], out, on_progress=lambda done, total: steps.append((done, total)))
    told = view_js(out)
    layers = {one["id"]: one for one in told["layers"]}
    assert told["static"] is True
    assert "token" not in told
    assert (layers["sample"]["editable"], len(layers["sample"]["points"])) == (False, 60)
    assert layers["map"]["tiles"] == {"0": [[0, 0, 0, 0]], "1": [[0, 1, 0, 1]], "2": [[0, 2, 0, 2]]}
    assert layers["image"]["stretches"] == [2]
    assert [one["bands"] for one in layers["image"]["presets"]] == [["red", "green", "blue"], ["nir", "red", "green"]]
    listed = {f"{z}/{x}/{y}" for z, boxes in layers["map"]["tiles"].items()
              for x0, x1, y0, y1 in boxes for x in range(x0, x1 + 1) for y in range(y0, y1 + 1)}  # fmt: skip
    files = {str(path.relative_to(out / "tiles" / "map").with_suffix("")) for path in (out / "tiles/map").rglob("*.js")}
    assert files == listed
    text = (out / "tiles/map/2/0/0.js").read_text()
    name, data = re.fullmatch(r'covermap\.tile\("([^"]+)","data:image/png;base64,([^"]+)"\);\n', text).groups()
    assert name == "map/2/0/0"
    np.testing.assert_array_equal(grey(base64.b64decode(data)), codes()[:256, :256] // 10 - 1)
    assert (out / "tiles/image/0/2/0/0.jpg").read_bytes()[:2] == b"\xff\xd8"
    assert (out / "tiles/image/1/2/2/2.jpg").read_bytes()[:4] == b"\x89PNG"
    assert (out / "index.html").is_file()
    everything = [path for path in out.rglob("*") if path.is_file()]
    assert found.num_files == len(everything)
    assert found.num_bytes == sum(path.stat().st_size for path in everything)
    assert steps[-1][0] == steps[-1][1] > 30
    assert re.fullmatch(r"\d+ tiles, about \d+ MB", said[-1])


def test_a_filled_folder_is_not_replaced_but_an_earlier_view_is(folder, tmp_path):
    out = tmp_path / "site"
    written([folder / "map.tif"], out)
    with pytest.raises(OutputError, match="not empty"):
        written([folder / "map.tif"], out)
    written([folder / "image.tif"], out, overwrite=True)
    assert [one["id"] for one in view_js(out)["layers"]] == ["image"]
    assert not (out / "tiles/map").exists()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"mine\.txt"):
        written([folder / "map.tif"], out, overwrite=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="only a folder that covermap view wrote"):
        written([folder / "map.tif"], other, overwrite=True)
    assert (other / "mine.txt").read_text() == "mine"
    with pytest.raises(OutputError, match="is a file"):
        written([folder / "map.tif"], other / "mine.txt", overwrite=True)
    (tmp_path / "empty").mkdir()
    written([folder / "map.tif"], tmp_path / "empty")


def test_a_failure_leaves_nothing(folder, tmp_path, monkeypatch):
    def failing(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("covermap.view.static._view_js", failing)
    with pytest.raises(OutputError, match="disk is full"):
        written([folder / "map.tif"], tmp_path / "site")
    assert not [path for path in tmp_path.iterdir() if "site" in path.name]


def test_rectangles_cover_each_tile_once():
    rng = np.random.default_rng(0)
    tiles = {(3, int(x), int(y)) for x, y in rng.integers(0, 8, (40, 2))} | {(1, 0, 0)}
    found = rectangles(tiles)
    covered = [(int(z), x, y) for z, boxes in found.items() for x0, x1, y0, y1 in boxes
               for x in range(x0, x1 + 1) for y in range(y0, y1 + 1)]  # fmt: skip
    assert sorted(covered) == sorted(tiles)
    assert rectangles((2, x, y) for x in range(4) for y in range(4)) == {"2": [[0, 3, 0, 3]]}
