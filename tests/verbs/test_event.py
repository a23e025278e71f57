"""Event mode: radar and optical pairs with a known hazard, the ranked places, and what does not go together."""

from __future__ import annotations

import csv
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from covermap.core.config import ImageConfig
from covermap.core.config_file import parse_config
from covermap.core.errors import BandError, ConfigError, CovermapError, DataError, LabelError, ModelError, OutputError
from covermap.core.legend import Legend
from covermap.data.simulate_events import EventRecipe, write_event
from covermap.verbs.event import event
from covermap.verbs.rank import rank
from covermap.verbs.train import train

PLACE = {"crs": CRS.from_epsg(32630), "transform": Affine(10, 0, 5e5, 0, -10, 4.5e6)}
HIT = np.zeros((300, 384), bool)
HIT[20:110, 90:180] = True
"""Over the border of two places, 90 px of it in one and the rest in the other."""


def write(path: Path, values: np.ndarray, bands: tuple[str, ...], nodata: float = float("nan")) -> str:
    with rasterio.open(
        path, "w", driver="GTiff", height=values.shape[1], width=values.shape[2], count=len(values),
        dtype=values.dtype.name, nodata=nodata, **PLACE,
    ) as file:  # fmt: skip
        file.write(values)
        file.descriptions = bands
    return str(path)


def speckled(mean_db: np.ndarray, seed: int, looks: int = 4) -> np.ndarray:
    """(2, H, W) power."""
    gain = np.random.default_rng(seed).gamma(looks, 1 / looks, (2, *mean_db.shape))
    return (10 ** (mean_db / 10) * gain).astype(np.float32)


def radar(path: Path, hit_db: float | None, seed: int, *, decibel: bool = False) -> ImageConfig:
    mean = np.full(HIT.shape, -9.0)
    if hit_db is not None:
        mean[HIT] = hit_db
    values = speckled(mean, seed)
    values = (10 * np.log10(values)).astype(np.float32) if decibel else values
    values[:, :4] = np.nan
    quantity = None if decibel else "power"
    return ImageConfig(path=write(path, values, ("vv", "vh")), sensor="sentinel1", quantity=quantity)


def agreement(path: Path) -> tuple[float, float]:
    """Recall of the hit pixels, and share of the others that is mapped."""
    with rasterio.open(path) as file:
        codes = file.read(1)
    assert (codes[:4] == 0).all()
    return float((codes == 2)[HIT].mean()), float((codes[4:] == 2)[~HIT[4:]].mean())


@pytest.mark.parametrize("decibel", [False, True])
def test_a_flood_in_radar_is_mapped_and_its_places_ranked(tmp_path: Path, decibel: bool) -> None:
    before = [radar(tmp_path / f"b{i}.tif", None, i, decibel=decibel) for i in range(2)]
    after = [radar(tmp_path / "a.tif", -17.0, 9, decibel=decibel)]
    done = event(before, after, tmp_path / "map.tif")
    recall, false = agreement(tmp_path / "map.tif")
    assert recall > 0.93
    assert false < 0.02
    assert any("where 2 places part into two groups" in note for note in done.notes)
    first = done.places[0]
    assert (first["row"], first["col"]) == (0, 128)
    with open(tmp_path / "places.csv") as file:
        table = list(csv.DictReader(file))
    assert [row["rank"] for row in table] == [str(i + 1) for i in range(len(table))]
    assert sum(float(row["area_ha"]) for row in table) == pytest.approx(done.mapped_ha)
    assert done.mapped_ha == pytest.approx(81.0, rel=0.05)
    squares = json.loads((tmp_path / "places.geojson").read_text())["features"]
    assert len(squares) == len(table)
    lon, lat = np.array(squares[0]["geometry"]["coordinates"][0]).T
    assert lon.min() < float(table[0]["lon"]) < lon.max()
    assert lat.min() < float(table[0]["lat"]) < lat.max()


def test_a_rise_of_backscatter_is_damage_but_no_flood(tmp_path: Path) -> None:
    before, after = [radar(tmp_path / "b.tif", None, 1)], [radar(tmp_path / "a.tif", -2.0, 2)]
    event(before, after, tmp_path / "damage.tif", kind="damage")
    assert agreement(tmp_path / "damage.tif")[0] > 0.9
    event(before, after, tmp_path / "flood.tif", kind="flood")
    assert agreement(tmp_path / "flood.tif")[0] < 0.02


@pytest.mark.parametrize("method", ["irmad", "cva"])
def test_change_of_radar_by_all_its_bands(tmp_path: Path, method: str) -> None:
    before, after = [radar(tmp_path / "b.tif", None, 1)], [radar(tmp_path / "a.tif", -2.0, 2)]
    event(before, after, tmp_path / "map.tif", kind="change", method=method)
    recall, false = agreement(tmp_path / "map.tif")
    assert recall > 0.9
    assert false < 0.02


def test_slopes_rule_out(tmp_path: Path) -> None:
    before, after = [radar(tmp_path / "b.tif", None, 1)], [radar(tmp_path / "a.tif", -17.0, 2)]
    steep = np.tile(np.arange(384, dtype=np.float32) * 5, (300, 1))[None]
    steep[:, 60:] = 0
    dem = write(tmp_path / "dem.tif", steep, ("elevation",))
    event(before, after, tmp_path / "flood.tif", dem=dem)
    with rasterio.open(tmp_path / "flood.tif") as file:
        flood = file.read(1) == 2
    assert flood[62:][HIT[62:]].mean() > 0.9
    assert not flood[:58].any()  # also on the scene's frame
    event(before, after, tmp_path / "slides.tif", kind="landslide", dem=dem)
    with rasterio.open(tmp_path / "slides.tif") as file:
        slides = file.read(1) == 2
    assert not slides[62:].any()
    assert slides[4:58][HIT[4:58]].mean() > 0.9


def test_slopes_that_rule_all_out_are_named(tmp_path: Path) -> None:
    sides = [[radar(tmp_path / f"{name}.tif", None, 0)] for name in "ba"]
    flat = write(tmp_path / "dem.tif", np.ones((1, 300, 384), np.float32), ("elevation",))
    with pytest.raises(DataError, match="slopes of the elevation rule the event out everywhere"):
        event(*sides, tmp_path / "slides.tif", kind="landslide", dem=flat)
    assert not (tmp_path / "slides.tif").exists()


def test_optical_pairs(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    bands = ("green", "red", "nir")

    def image(name: str, hit: tuple[int, int, int]) -> ImageConfig:
        values = np.tile(np.array([600, 500, 3000])[:, None, None], (1, *HIT.shape)).astype(np.float64)
        values[:, HIT] = np.array(hit)[:, None]
        values = (values * random.normal(1, 0.05, values.shape)).astype(np.uint16)
        values[:, :4] = 0
        return ImageConfig(path=write(tmp_path / name, values, bands, nodata=0), sensor="sentinel2", offset=0)

    green, water, bare = (
        image(f"{i}.tif", hit) for i, hit in enumerate([(600, 500, 3000), (700, 500, 200), (1200, 1500, 2000)])
    )
    for number, (kind, after) in enumerate([("flood", water), ("landslide", bare), ("damage", bare)]):
        done = event([green], [after], tmp_path / f"map{number}.tif", kind=kind)
        recall, false = agreement(tmp_path / f"map{number}.tif")
        assert recall > 0.97, kind
        assert false < 0.01, kind
        assert done.name == kind


def test_the_threshold_can_be_given(tmp_path: Path) -> None:
    before, after = [radar(tmp_path / "b.tif", None, 1)], [radar(tmp_path / "a.tif", -17.0, 2)]
    done = event(before, after, tmp_path / "map.tif", threshold=50.0)
    assert done.places == []
    assert any("50 on (as given)" in note for note in done.notes)


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    before, after = radar(tmp_path / "b.tif", None, 1), radar(tmp_path / "a.tif", -17.0, 2)
    out = tmp_path / "map.tif"
    with pytest.raises(ConfigError, match="no kind of event 'fire'"):
        event([before], [after], out, kind="fire")
    with pytest.raises(ConfigError, match="no middle"):
        event([before], [after], out, looks_px=4)
    with pytest.raises(ConfigError, match=r"does not end in \.tif"):
        event([before], [after], tmp_path / "map.png")
    for setting in ({"threshold": 1.0}, {"kind": "flood"}, {"looks_px": 3}):
        with pytest.raises(ConfigError, match="no effect with a model"):
            event([before], [after], out, model=tmp_path, **setting)
    with pytest.raises(ConfigError, match="on both sides"):
        event([before], [before, after], out)
    with pytest.raises(ConfigError, match="is before the event, 2018-08-01 after it"):
        event(
            *([one.model_copy(update={"date": day})] for one, day in ((before, "2018-10-01"), (after, "2018-08-01"))),
            out,
        )
    with pytest.raises(ConfigError, match="nan is no threshold"):
        event([before], [after], out, threshold=float("nan"))
    dem = write(tmp_path / "dem.tif", np.ones((1, 300, 384), np.float32), ("elevation",))
    with pytest.raises(ConfigError, match="a dem has no effect"):
        event([before], [after], out, kind="damage", dem=dem)
    red = write(tmp_path / "red.tif", np.ones((1, 300, 384), np.float32), ("red",))
    again = write(tmp_path / "again.tif", np.ones((1, 300, 384), np.float32), ("red",))
    with pytest.raises(CovermapError, match="images of"):
        event([before], [ImageConfig(path=red, sensor="sentinel2")], out)
    with pytest.raises(BandError, match="seen by mndwi"):
        event([ImageConfig(path=red, sensor="sentinel2")], [ImageConfig(path=again, sensor="sentinel2")], out)
    with pytest.raises(ConfigError, match="looks are of radar"):
        event(*([ImageConfig(path=path, sensor="sentinel2")] for path in (red, again)), out, kind="damage", looks_px=3)
    with pytest.raises(ConfigError, match="is of radar, not of sentinel2"):
        event(*([ImageConfig(path=p, sensor="sentinel2", quantity="power")] for p in (red, again)), out, kind="damage")
    assert not out.exists()
    assert not list(tmp_path.glob(".*"))
    event([before], [after], out)
    with pytest.raises(OutputError, match="exists already"):
        event([before], [after], out)


def test_ranks_of_any_class_map_and_expected_hectares(tmp_path: Path) -> None:
    codes = np.ones((1, 256, 256), np.uint8)
    codes[0, :40, :40] = 2
    codes[0, 200:, 200:] = 0
    source = write(tmp_path / "lc.tif", codes, ("class",), nodata=0)
    done = rank(source, tmp_path / "places.csv", classes=["class 2"], side_px=128)
    assert done.num_places == 4
    assert [(row["row"], row["col"], row["pixels"], row["area_ha"]) for row in done.rows] == [(0, 0, 1600, 16.0)]
    assert done.rows[0]["share"] == pytest.approx(1600 / 128**2, abs=1e-4)
    confidence = np.full((1, 256, 256), 90, np.uint8)
    layer = write(tmp_path / "lc_confidence.tif", confidence, ("confidence",), nodata=255)
    done = rank(source, tmp_path / "foreign.csv", classes=["class 2"], side_px=128)
    assert "expected_ha" not in done.rows[0]
    for path in (source, layer):
        with rasterio.open(path, "r+") as file:
            file.update_tags(COVERMAP_MODEL="one")
    with rasterio.open(source, "r+") as file:
        file.update_tags(COVERMAP_LEGEND=json.dumps(Legend.from_dict({1: "class 1", 2: "class 2"}).to_dict()))
    done = rank(source, tmp_path / "expected.csv", classes=["class 2"], side_px=128)
    assert done.rows[0]["expected_ha"] == pytest.approx(0.9 * 16 + 0.1 * (163.84 - 16), abs=1e-3)
    with pytest.raises(LabelError, match="no class 'flood'"):
        rank(source, tmp_path / "x.csv", classes=["flood"])
    with pytest.raises(ConfigError, match=r"does not end in \.csv"):
        rank(source, tmp_path / "x.txt", classes=["class 2"])


def test_numbers_that_are_no_decibel_are_refused(tmp_path: Path) -> None:
    sides = [radar(tmp_path / f"{i}.tif", None, i).model_copy(update={"quantity": None}) for i in range(2)]
    with pytest.raises(BandError, match="no backscatter in dB"):
        event(sides[:1], sides[1:], tmp_path / "map.tif")


def test_another_sun_is_no_change(tmp_path: Path) -> None:
    """The bright band darkens everywhere, the dark one changes only where something happened."""
    random = np.random.default_rng(0)
    before = np.stack([random.normal(200, 20, HIT.shape), random.normal(40, 2, HIT.shape)]).astype(np.float32)
    after = (before * np.array([0.5, 1])[:, None, None] + random.normal(0, 1, before.shape)).astype(np.float32)
    after[1, HIT] += 12
    images = [ImageConfig(path=write(tmp_path / f"{i}.tif", x, ("nir", "red"))) for i, x in enumerate((before, after))]
    event([images[0]], [images[1]], tmp_path / "map.tif", kind="damage")
    with rasterio.open(tmp_path / "map.tif") as file:
        mapped = file.read(1) == 2
    assert mapped[HIT].mean() > 0.95
    assert mapped[~HIT].mean() < 0.01
    with pytest.raises(ConfigError, match="two sides"):
        event([], [images[1]], tmp_path / "x.tif")


@pytest.fixture(scope="module")
def flooded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flood")
    write_event(EventRecipe("flood", seed=4, height=256, width=256), folder)
    return folder


def sides(folder: Path) -> list[ImageConfig]:
    return [
        ImageConfig(path=str(folder / f"{side}_1.tif"), sensor="sentinel1", quantity="power", date=day)
        for side, day in (("before", "2018-09-01"), ("after", "2018-09-13"))
    ]


def test_a_generated_flood_is_found_without_labels(flooded: Path, tmp_path: Path) -> None:
    before, after = sides(flooded)
    done = event([before], [after], tmp_path / "map.tif", dem=str(flooded / "dem.tif"), side_px=64)
    with rasterio.open(tmp_path / "map.tif") as file:
        mapped = file.read(1) == 2
    with rasterio.open(flooded / "labels.tif") as file:
        truth = file.read(1) == 1
    f1 = 2 * (mapped & truth).sum() / (mapped.sum() + truth.sum())
    assert f1 > 0.7  # of a threshold on this seed's radar after the event alone: 0.8
    assert any(path.name == "map.stac.json" for path in done.files)
    change = json.loads((tmp_path / "map.stac.json").read_text())["assets"]["change"]
    assert (change["href"], change["bands"][0]["nodata"]) == ("./change.tif", "nan")
    per_place = truth.reshape(4, 64, 4, 64).sum((1, 3))
    first = done.places[0]
    assert per_place[first["row"] // 64, first["col"] // 64] > np.median(per_place)


def test_a_model_maps_the_event_and_its_probabilities_rank_the_places(flooded: Path, tmp_path: Path) -> None:
    before, after = sides(flooded)
    run = train(parse_config({
        "name": "flood", "output": str(tmp_path / "runs"), "task": "hazard", "baseline": False,
        "data": {"image": [before.model_dump(exclude_unset=True), after.model_dump(exclude_unset=True)],
                 "labels": str(flooded / "labels.tif"), "legend": {0: "dry", 1: "flood"}},
        "split": {"block_px": 64, "buffer_px": 0},
        "model": {"backbone_options": {"widths": [8, 16]}},
        "train": {"epochs": 2, "steps_per_epoch": 15, "batch_size": 4, "size_px": 64, "lr": 0.01},
    }))  # fmt: skip
    done = event([before], [after], tmp_path / "map.tif", model=run.folder, side_px=64)
    assert done.name == "flood"
    assert all(a["expected_ha"] >= b["expected_ha"] for a, b in pairwise(done.places))
    assert not (tmp_path / "map_change.tif").exists()
    with pytest.raises(CovermapError, match="dates"):
        event([before, before], [after], tmp_path / "x.tif", model=run.folder)
    with pytest.raises(ConfigError, match="does not take elevation"):
        event([before], [after], tmp_path / "y.tif", model=run.folder, dem=str(flooded / "dem.tif"))


def test_a_model_of_something_else_is_refused(tiny, tmp_path: Path) -> None:
    raw = tiny | {"baseline": False, "train": tiny["train"] | {"epochs": 1, "steps_per_epoch": 1}}
    run = train(parse_config(raw))
    images = [ImageConfig(path=path) for path in (tiny["data"]["image"], "after.tif")]
    with pytest.raises(ModelError, match="an event needs a map of a hazard"):
        event(images[:1], images[1:], tmp_path / "map.tif", model=run.folder)


def test_by_the_command_line(covermap, flooded: Path, tmp_path: Path) -> None:
    code, out, _ = covermap(
        "event", f"{flooded / 'before_1.tif'}@2018-09-01", f"{flooded / 'after_1.tif'}@2018-09-13", tmp_path / "map.tif",
        "--sensor", "sentinel1", "--quantity", "power", "--side", "64", "--top", "2",
    )  # fmt: skip
    assert code == 0
    assert "made without a model: drop of backscatter, dB" in out
    assert "of 16 places hold flood" in out
    code, out, _ = covermap("rank", tmp_path / "map.tif", tmp_path / "again.csv", "--class", "flood", "--json")
    assert code == 0
    assert json.loads(out)["num_places"] == 4
    code, _, err = covermap("event", "nothing.tif", "after.tif", tmp_path / "x.tif", "--sensor", "sentinel1")
    assert code == 1
    assert "there is no file nothing.tif" in err


def test_zeros_without_a_tag_are_no_flood(tmp_path: Path) -> None:
    before, after = radar(tmp_path / "b.tif", None, 1), radar(tmp_path / "a.tif", None, 2)
    with rasterio.open(after.path, "r+") as file:
        values = file.read()
        values[:, :, 300:] = 0
        file.write(values)
    done = event([before], [after], tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as file:
        codes = file.read(1)
    assert (codes[:, 303:] == 0).all()
    assert (codes == 2).mean() < 0.01
    assert any("of the map is nodata" in note for note in done.notes)


def test_elevation_of_another_grid_is_brought_onto_the_image(tmp_path: Path) -> None:
    before, after = [radar(tmp_path / "b.tif", None, 1)], [radar(tmp_path / "a.tif", -17.0, 2)]
    fine = np.zeros((1, 700, 900), np.float32)
    place = {"crs": CRS.from_epsg(32630), "transform": Affine(5, 0, 5e5 - 200, 0, -5, 4.5e6 + 200)}
    with rasterio.open(tmp_path / "dem.tif", "w", driver="GTiff", height=700, width=900, count=1, dtype="float32",
                       nodata=-9999, **place) as file:  # fmt: skip
        file.write(fine)
    event(before, after, tmp_path / "flood.tif", dem=str(tmp_path / "dem.tif"))
    with rasterio.open(tmp_path / "flood.tif") as file:
        assert file.shape == (300, 384)
    assert agreement(tmp_path / "flood.tif")[0] > 0.93


def test_layers_of_an_earlier_map_go(flooded: Path, tmp_path: Path) -> None:
    before, after = sides(flooded)
    (tmp_path / "confidence.tif").write_bytes(b"old")
    with pytest.raises(OutputError, match="confidence"):
        event([before], [after], tmp_path / "map.tif")
    done = event([before], [after], tmp_path / "map.tif", overwrite=True)
    assert not (tmp_path / "confidence.tif").exists()
    assert "expected_ha" not in done.places[0]
