"""The audit: each fault seeded in generated data is reported with its files and counts; clean data has none."""

import json
import os

import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine

from covermap.cli import app
from covermap.core.config_file import load_config, parse_config
from covermap.core.errors import ConfigError, DataError
from covermap.core.registry import find
from covermap.data.audit import audit_data
from covermap.data.noise import TILE_PX, find_noise
from covermap.data.pixels import plain_spec
from covermap.data.scene import open_scenes
from covermap.data.shift import find_shifts
from covermap.data.simulate import SceneRecipe, write_scene
from tests.conftest import landscape

BANDS = ["green", "red", "nir"]


@pytest.fixture
def chips(write_tif, tmp_path):
    """Eight chips of 32 x 32 px of different landscapes beside each other, with masks; gives their config."""
    for i in range(8):
        codes, image = landscape(32, 32, seed=i)
        at = {"origin": (500_000 + 1000 * i, 5_000_000)}
        write_tif(f"images/c{i}.tif", image, bands=BANDS, nodata=0, compress="deflate", **at)
        write_tif(f"masks/c{i}.tif", codes, nodata=0, **at)
    data = {"image": "images/*.tif", "labels": "masks/*.tif", "legend": {1: "field", 2: "water", 3: "town"}}
    split = {"test": ["c6", "c7"], "val": ["c5"]}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"data": data, "split": split}))
    return tmp_path / "c.yaml"


def pixels(path, **changes):
    """Values (C, H, W) and profile of a file, to be written anew with changes."""
    with rasterio.open(path) as file:
        return file.read(), {**file.profile, **changes}, file.descriptions


def write(path, values, profile, names=()):
    with rasterio.open(path, "w", **profile) as file:
        file.write(values.astype(profile["dtype"]))
        for i, name in enumerate(names, 1):
            file.set_band_description(i, name)


def rewrite(path, change, **profile):
    values, profile, names = pixels(path, **profile)
    values = values.astype(profile["dtype"])
    change(values)
    write(path, values, profile, names)


def faults(config, *settings):
    found = audit_data(load_config(config, settings))
    return {fault.kind: fault for fault in found.faults}


def put(index, value):
    return lambda values: values.__setitem__(index, value)


def damage(path):
    """Break the pixels and keep the header."""
    raw = bytearray(path.read_bytes())
    middle = len(raw) // 2
    raw[middle - 300 : middle + 300] = os.urandom(600)
    path.write_bytes(raw)


def test_clean_data_has_no_faults(chips):
    found = audit_data(load_config(chips))
    assert not found.faults
    assert [int(sum(counts)) for counts in found.classes.values()] == [1024] * 8
    assert {part: int(sum(counts)) for part, counts in found.parts.items()} == {
        "train": 5120,
        "val": 1024,
        "test": 2048,
    }


SEEDS = {
    "no partner": lambda d: (d / "masks/c1.tif").unlink(),
    "unreadable": lambda d: (d / "images/c1.tif").write_bytes((d / "images/c1.tif").read_bytes()[:300]),
    "NaN": lambda d: rewrite(d / "images/c1.tif", put((0, 3, slice(5)), np.nan), dtype="float32", nodata=-1),
    "Inf": lambda d: rewrite(d / "images/c1.tif", put((0, 3, 4), np.inf), dtype="float32", nodata=-1),
    "constant channel": lambda d: rewrite(d / "images/c1.tif", put(1, 7)),
    "no data": lambda d: rewrite(d / "images/c1.tif", put(slice(None), 0)),
    "label values": lambda d: rewrite(d / "masks/c1.tif", put((0, 0, slice(9)), 77)),
    "nothing labelled": lambda d: rewrite(d / "masks/c1.tif", put(slice(None), 0)),
    "duplicate": lambda d: rewrite(d / "images/c1.tif", put(slice(None), pixels(d / "images/c0.tif")[0])),
    "does not fit": lambda d: rewrite(d / "images/c1.tif", lambda values: None, crs="EPSG:32632"),
    "odd CRS": lambda d: [rewrite(d / f"{kind}/c1.tif", lambda values: None, crs=None) for kind in ("images", "masks")],
    "odd type": lambda d: rewrite(d / "images/c1.tif", lambda values: None, dtype="int32"),
}  # fmt: skip
COUNTS = {"NaN": 5, "label values": 9}


@pytest.mark.parametrize("kind", SEEDS)
def test_each_fault_is_reported_with_file_and_count(chips, kind):
    SEEDS[kind](chips.parent)
    found = faults(chips)
    assert kind in found, found
    assert any(path.endswith("c1.tif") for path in found[kind].files)
    assert found[kind].count == COUNTS.get(kind, 1)
    assert "c1" in found[kind].told or kind in ("odd CRS", "odd type", "nothing labelled")


def test_many_faults_are_reported_at_once_and_the_exit_code_is_one(chips, write_tif, capsys):
    folder = chips.parent
    damage(folder / "images/c0.tif")
    SEEDS["NaN"](folder)
    (folder / "masks/c2.tif").unlink()
    (folder / "images/c3.tif").write_bytes(b"no raster")
    write_tif("masks/extra.tif", np.ones((32, 32), "uint8"))
    image = landscape(40, 40, seed=9)[1]
    write_tif("images/c4.tif", image, bands=BANDS, nodata=0, origin=(504_000, 5_000_000))
    code = app(
        ["check", str(chips), "--audit", "--json", "--quiet", "--out", str(folder / "out")], standalone_mode=False
    )
    assert code == 1
    told = json.loads(capsys.readouterr().out)
    kinds = {}
    for fault in told["faults"]:
        kinds.setdefault(fault["kind"], []).append(" ".join(fault["files"]) + fault["told"])
    assert len(kinds["unreadable"]) == 2
    assert any("c0.tif" in text for text in kinds["unreadable"])
    assert any("c3.tif" in text for text in kinds["unreadable"])
    assert "5 px" in kinds["NaN"][0]
    assert any("c2.tif" in text for text in kinds["no partner"])
    assert any("extra.tif" in text for text in kinds["no partner"])
    assert "40 x 40" in kinds["does not fit"][0]
    assert "c0.tif" in (folder / "out/audit.html").read_text()
    # What cannot be used is left out by the list, and the rest is found to be whole.
    settings = ["data.leave_out=out/leave_out.txt"]
    assert sorted(load_config(chips, settings).data.left_out) == ["c0", "c2", "c3", "c4", "extra"]
    assert set(faults(chips, *settings)) == {"NaN"}
    scenes = open_scenes(load_config(chips, settings).data)
    assert [scene.name for scene in scenes] == ["c1", "c5", "c6", "c7"]
    assert scenes[0].notes[0].startswith("left out 5 by name")


def test_tiles_on_the_same_ground_in_two_parts_are_counted(chips):
    folder = chips.parent
    for kind in ("images", "masks"):
        values, profile, names = pixels(folder / kind / "c6.tif")
        moved = profile["transform"] * Affine.translation(-84, 0)  # half of c5, which is val; c6 is test
        write(folder / kind / "c6.tif", values, {**profile, "transform": moved}, names)
    found = faults(chips)["overlap"]
    assert found.count == 16 * 32
    assert [path.rsplit("/", 1)[1] for path in found.files] == ["c5.tif", "c6.tif"]
    assert "overlap" not in faults(chips, "split.val=[c0]", "split.test=[c5, c6]")


def test_an_unreadable_scene_is_skipped_counted_and_named_and_one_alone_is_refused(chips):
    path = chips.parent / "images/c1.tif"
    path.write_bytes(b"no raster")
    scenes = open_scenes(load_config(chips).data)
    assert [scene.name for scene in scenes] == [f"c{i}" for i in (0, 2, 3, 4, 5, 6, 7)]
    assert "left out 1 of 8 scenes that cannot be read" in scenes[0].notes[0]
    assert "c1.tif" in scenes[0].notes[0]
    with pytest.raises(DataError, match="not a raster"):
        open_scenes(load_config(chips, [f"data.image={path}", "data.labels=masks/c1.tif"]).data)
    damage(chips.parent / "images/c2.tif")
    with pytest.raises(DataError, match=r"c2\.tif is damaged(.|\n)*--audit"):
        open_scenes(load_config(chips).data)[1].read(scenes[1].grid.window)


def test_names_that_do_not_exist_are_refused(chips):
    with pytest.raises(ConfigError, match="do not exist: c9"):
        open_scenes(load_config(chips, ["data.leave_out=[c1, c9]"]).data)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(chips, ["data.leave_out=nothing.txt"])


def test_mixed_offsets_are_named(write_tif, tmp_path):
    for i in range(3):
        codes, image = landscape(32, 32, seed=i)
        write_tif(f"x/s{i}.tif", image + (1000 if i == 2 else 0), bands=BANDS, origin=(500_000 + 1000 * i, 5_000_000))
        write_tif(f"y/s{i}.tif", codes, origin=(500_000 + 1000 * i, 5_000_000))
    image = [{"path": str(tmp_path / "x/*.tif"), "sensor": "sentinel2"}]
    config = parse_config({"data": {"image": image, "labels": str(tmp_path / "y/*.tif")}})
    (fault,) = [f for f in audit_data(config).faults if f.kind == "offset mixed"]
    assert fault.files == (str(tmp_path / "x/s2.tif"),)
    assert "1 of 3" in fault.told


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated")
    write_scene(SceneRecipe(height=384, width=384, seed=3), folder)
    return folder


def labelled(folder, change):
    """The generated scene with its truth changed: open scenes, and the codes."""
    values, profile, _ = pixels(folder / "truth.tif")
    codes = change(values[0].copy())
    write(folder / "changed.tif", codes[None], profile)
    data = {key: str(folder / f"{name}") for key, name in (("image", "image.tif"), ("labels", "changed.tif"))}
    return open_scenes(parse_config({"data": {**data, "legend": str(folder / "legend.yaml")}}).data)


@pytest.mark.parametrize("side", [1, 10])
def test_the_worst_twentieth_of_the_labels_holds_most_flips(generated, side):
    pytest.importorskip("sklearn")
    rng, flipped = np.random.default_rng(0), np.zeros((384, 384), bool)

    def flip(codes):
        present = np.setdiff1d(np.unique(codes), [0])
        while flipped.mean() < 0.05:
            row, col = rng.integers(0, 384 - side + 1, 2)
            place = np.s_[row : row + side, col : col + side]
            new = rng.choice(present)
            wrong = (codes[place] != new) & ~flipped[place]
            codes[place] = np.where(wrong, new, codes[place])
            flipped[place] |= wrong
        return codes

    (scene,) = scenes = labelled(generated, flip)
    noise = find_noise(scenes, plain_spec(scene))
    margin = np.full((384, 384), np.nan)
    for tile in noise.tiles:
        margin[tile.window.slices] = noise.judge(scene, tile.window).margin
    assert len(noise.tiles) == (384 // TILE_PX) ** 2
    worst = margin <= np.nanquantile(margin, 0.05)
    assert flipped[worst].sum() / flipped.sum() > 0.5


@pytest.mark.parametrize(("rows", "cols"), [(0, 0), (1, 0), (0, -1), (2, 3)])
def test_shifted_labels_are_found(generated, rows, cols):
    scenes = labelled(generated, lambda codes: np.roll(codes, (-rows, -cols), (0, 1)))
    found = find_shifts(scenes)[""]
    assert (found.rows, found.cols) == (pytest.approx(rows, abs=0.2), pytest.approx(cols, abs=0.2))


def test_labels_that_have_nothing_to_do_with_the_image_tell_no_shift(generated):
    found = find_shifts(labelled(generated, lambda codes: np.rot90(codes)))[""]
    assert found.rows is None


@pytest.mark.parametrize(
    ("layout", "pattern", "kind"),
    [("m3leo", "**/gssic-2020/*.nc", "unreadable"), ("m3leo", "**/s1grd-2020/*.tif", "unreadable"),
     ("prepared", "**/class.tif", "checksum"), ("wusu", "**/imgs/*.tif", "unreadable")],
)  # fmt: skip
def test_damaged_files_of_layouts_are_faults(tmp_path, layout, pattern, kind):
    options = {"options": {"inputs": {"s1grd-2020": {}, "gssic-2020": {}}}} if layout == "m3leo" else {}
    found = {}
    for name in ("whole", "damaged"):
        (tmp_path / name).mkdir()
        find("source", layout).write_miniature(tmp_path / name)
        path = sorted((tmp_path / name).glob(pattern))[0]
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= name == "damaged"
        path.write_bytes(raw[:200] if (name, kind) == ("damaged", "unreadable") else raw)
        data = {"source": layout, "root": str(tmp_path / name), **options}
        config = parse_config({"data": data, "train": {"size_px": 16}})
        found[name] = [fault for fault in audit_data(config).faults if fault.kind in ("unreadable", "checksum")]
    assert not found["whole"]
    (fault,) = found["damaged"]
    assert (fault.kind, fault.count) == (kind, 1)
    assert path.name in " ".join(fault.files) or path.stem in fault.told
