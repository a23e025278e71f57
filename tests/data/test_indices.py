import typing

import numpy as np
import pytest
import rasterio
import torch

from covermap.core.config import DataConfig
from covermap.core.config_file import parse_config
from covermap.core.errors import BandError, ConfigError
from covermap.core.registry import find
from covermap.core.types import Batch, InputSpec, Sample, SensorInput
from covermap.data.indices import INDICES, Channels, sources
from covermap.data.scene import open_scenes
from covermap.data.stats import normalise_sample
from covermap.geo.grid import Window
from covermap.nn.groups import Groups
from covermap.nn.published import match

SIX = ["blue", "green", "red", "nir", "swir1", "swir2"]
# Reflectances of a meadow, a roof, a lake and bare soil, and indices worked out by hand from their definitions.
GROUND = np.array(
    [[0.04, 0.08, 0.05, 0.45, 0.20, 0.10], [0.14, 0.16, 0.18, 0.22, 0.30, 0.28],
     [0.06, 0.05, 0.03, 0.02, 0.01, 0.005], [0.10, 0.14, 0.20, 0.25, 0.35, 0.30]]
)  # fmt: skip
BY_HAND = {
    "ndvi": [0.40 / 0.50, 0.04 / 0.40, -0.01 / 0.05, 0.05 / 0.45],
    "ndbi": [-0.25 / 0.65, 0.08 / 0.52, -0.01 / 0.03, 0.10 / 0.60],
    "ndwi": [-0.37 / 0.53, -0.06 / 0.38, 0.03 / 0.07, -0.11 / 0.39],
    "mndwi": [-0.12 / 0.28, -0.14 / 0.46, 0.04 / 0.06, -0.21 / 0.49],
    "evi": [2.5 * 0.40 / (0.45 + 0.30 - 0.30 + 1), 2.5 * 0.04 / (0.22 + 1.08 - 1.05 + 1),
            2.5 * -0.01 / (0.02 + 0.18 - 0.45 + 1), 2.5 * 0.05 / (0.25 + 1.20 - 0.75 + 1)],
    "bsi": [(0.25 - 0.49) / 0.74, (0.48 - 0.36) / 0.84, (0.04 - 0.08) / 0.12, (0.55 - 0.35) / 0.90],
}  # fmt: skip


def scene_of(write_tif, numbers, names=SIX, nodata=None, indices=(), **image):
    """A scene of 4 x 4 px whose rows hold the four grounds; numbers (4, C)."""
    values = np.repeat(np.asarray(numbers).T[:, :, None], 4, axis=2)
    path = write_tif("i.tif", values, bands=names, nodata=nodata)
    return open_scenes(DataConfig(image=[{"path": path, **image}], indices=list(indices)), labels=False)[0]


def physical(scene, name, *, scale=1.0, offset=0.0):
    (key,) = scene.bands
    return scene.read(scene.grid.window).image[key][0, scene.bands[key].index(name)] * scale + offset


@pytest.mark.parametrize("name", BY_HAND)
def test_indices_are_those_worked_out_by_hand(write_tif, name):
    scene = scene_of(write_tif, GROUND.astype("float32"), indices=[name], scale=1.0)
    assert scene.bands == {"image": (*SIX, name)}
    assert np.allclose(physical(scene, name), np.array(BY_HAND[name])[:, None], rtol=1e-6, atol=1e-7)


def test_the_config_names_all_indices_there_are():
    kinds = typing.get_args(DataConfig.model_fields["indices"].annotation)[0]
    assert set(typing.get_args(kinds)) == set(INDICES) == set(BY_HAND)


@pytest.mark.parametrize(
    ("image", "scale", "offset", "dtype"),
    [
        ({"sensor": "landsat8"}, 1e-4, 0.0, "int16"),
        ({"sensor": "landsat8", "scale": 2.75e-5, "offset": -0.2}, 2.75e-5, -0.2, "uint16"),  # Collection 2
        ({"sensor": "sentinel2", "offset": -0.1}, 1e-4, -0.1, "uint16"),
    ],
)
def test_scale_and_offset_come_before_the_formula(write_tif, image, scale, offset, dtype):
    numbers = np.rint((GROUND - offset) / scale).astype(dtype)
    scene = scene_of(write_tif, numbers, indices=list(BY_HAND), **image)
    rounded = numbers * scale + offset
    ndvi = (rounded[:, 3] - rounded[:, 2]) / (rounded[:, 3] + rounded[:, 2])
    assert np.allclose(physical(scene, "ndvi", scale=scale, offset=offset), ndvi[:, None], rtol=2e-6, atol=2e-6)
    for name, expected in BY_HAND.items():
        got = physical(scene, name, scale=scale, offset=offset)
        assert np.allclose(got, np.array(expected)[:, None], atol=0.01), name
    assert np.array_equal(physical(scene, "swir2"), np.repeat(numbers[:, 5:], 4, axis=1))


def test_the_offset_of_newer_sentinel2_products_is_off_before_the_formula(write_tif):
    old = np.rint(GROUND[:, :4] * 1e4).astype("uint16")
    found = []
    for add in (0, 1000):
        scene = scene_of(write_tif, old + add, SIX[:4], sensor="sentinel2", indices=["ndvi", "evi"])
        assert any("+1000" in note for note in scene.notes) == bool(add)
        found.append([physical(scene, name, scale=1e-4) for name in ("ndvi", "evi")])
    assert np.array_equal(found[0], found[1])
    assert np.allclose(found[1][0][:, 0], BY_HAND["ndvi"], atol=1e-6)


def test_where_nothing_is_reflected_an_index_is_zero_and_nodata_stays_out(write_tif):
    numbers = np.array([[0] * 6, [-9999] * 6, [5, 5, -30, 10, 0, 0], [400, 800, 500, 4500, 2000, 1000]], "int16")
    scene = scene_of(write_tif, numbers, nodata=-9999, indices=list(BY_HAND), sensor="landsat8")
    sample = scene.read(Window(-1, 0, 6, 4))
    assert not sample.valid[0, [0, 2, 5]].any()
    assert sample.valid[0, [1, 3, 4]].all()
    values = sample.image["landsat8"][0]
    assert np.isfinite(values).all()
    assert (values[6:, 1] == 0).all()
    assert (np.abs(values[6:] * 1e-4) <= 1).all()
    assert values[6, 3, 0] == 0  # nir + red is below 0: a dark pixel tells nothing


def test_missing_bands_are_named(write_tif):
    eight_bit = {"sensor": "gaofen2", "bands": SIX[:4]}
    with pytest.raises(
        BandError, match=r"ndbi is made of swir1, nir, and there is no swir1 .image has blue, green, red, nir"
    ):
        scene_of(write_tif, GROUND[:, :4].astype("float32"), SIX[:4], indices=["ndvi", "ndbi"])
    with pytest.raises(BandError, match="evi is made of reflectance") as refused:
        scene_of(write_tif, np.full((4, 4), 90, "uint8"), None, indices=["evi"], **eight_bit)
    assert "scale: 0.0001" in str(refused.value)
    with pytest.raises(BandError, match="has a band ndvi of its own"):
        scene_of(write_tif, np.full((4, 3), 90, "uint8"), ["red", "nir", "ndvi"], indices=["ndvi"])
    with pytest.raises(ConfigError, match="indices"):
        parse_config({"data": {"image": "i.tif", "indices": ["nvdi"]}})
    # A ratio needs no unit.
    scene = scene_of(write_tif, np.full((4, 4), [10, 20, 30, 90], "uint8"), None, indices=["ndvi"], **eight_bit)
    assert np.allclose(physical(scene, "ndvi", scale=1 / 255), 0.5, atol=1e-6)


def test_the_narrow_near_infrared_serves_where_there_is_no_other():
    assert sources("ndvi", ["red", "nir_narrow", "nir"]) == ("nir", "red")
    assert sources("ndvi", ["red", "nir_narrow"]) == ("nir_narrow", "red")
    assert sources("ndvi", ["red", "green"]) is None
    assert sources("of a later version", SIX) is None


def test_an_index_needs_no_band_among_those_in_use(write_tif):
    scene = scene_of(write_tif, GROUND.astype("float32"), indices=["ndvi", "ndbi"], use=["green", "red"])
    assert scene.bands == {"image": ("green", "red", "ndvi", "ndbi")}
    assert np.allclose(physical(scene, "ndbi")[:, 0], BY_HAND["ndbi"], rtol=1e-6)
    assert np.allclose(physical(scene, "green")[:, 0], GROUND[:, 1])


def test_each_sensor_that_has_the_bands_gets_the_index_for_each_of_its_dates(write_tif):
    paths = []
    for i in range(2):
        numbers = np.rint(GROUND * 1e4 * (1 + i)).astype("uint16")
        values = (
            np.repeat(numbers.T[:, :, None], 4, axis=2)[:, ::-1] if i else np.repeat(numbers.T[:, :, None], 4, axis=2)
        )
        paths.append(write_tif(f"{i}.tif", values, bands=SIX))
    radar = write_tif("radar.tif", np.full((2, 4, 4), -12, "float32"), bands=["vv", "vh"])
    images = [
        {"path": paths[0], "sensor": "landsat8", "date": "2020-05-01"},
        {"path": paths[1], "sensor": "landsat8", "date": "2020-08-01"},
        {"path": radar, "sensor": "sentinel1"},
    ]
    scene = open_scenes(DataConfig(image=images, indices=["ndvi"]), labels=False)[0]
    assert scene.bands == {"landsat8": (*SIX, "ndvi"), "sentinel1": ("vv", "vh")}
    ndvi = scene.read(scene.grid.window).image["landsat8"][:, 6] * 1e-4
    assert np.allclose(ndvi[0, :, 0], BY_HAND["ndvi"], atol=1e-4)
    assert np.allclose(ndvi[1, ::-1, 0], BY_HAND["ndvi"], atol=1e-4)


def test_galileos_own_ndvi_and_that_of_the_data_are_one():
    modalities = find("backbone", "galileo_nano").published.modalities
    rng = np.random.default_rng(0)
    numbers = rng.integers(1, 9000, (1, 2, 8, 8)).astype("uint16")
    numbers[:, :, 0, 0] = 0
    made = Channels(("red", "nir", "ndvi"), ("ndvi",), 1e-4, 0.0).of(numbers, ["red", "nir"])
    found = []
    for bands, values in ((("red", "nir"), numbers), (("red", "nir", "ndvi"), made)):
        count = len(bands)
        entry = SensorInput("sentinel2", bands, (0.3,) * count, (0.2,) * count, 1e-4)
        spec = InputSpec((entry,), 10, 8)
        groups = Groups(spec, match(spec, modalities))
        valid = np.ones((1, 8, 8), bool)
        image = normalise_sample(Sample({"sentinel2": values}, valid), spec)["sentinel2"]
        batch = Batch({"sentinel2": torch.from_numpy(image)[None]}, torch.from_numpy(valid)[None])
        found.append(groups(batch)["NDVI"])
    assert torch.allclose(found[0], found[1], atol=1e-5)
    expected = (numbers[0, 1] - numbers[0, 0].astype(float)) / np.maximum(numbers[0].sum(0, dtype=float), 1)
    assert np.allclose(found[1][0, 0, 0].numpy(), expected, atol=1e-5)


def test_ndvi_of_a_real_landsat_scene_is_that_of_its_own_numbers(shared):
    path = shared / "data/gewata/gewata_landsat7_etm_sr_west.tif"
    with rasterio.open(path) as file:
        numbers = file.read(window=((100, 200), (50, 180))).astype(float)
        names = list(file.descriptions)
    config = {"path": str(path), "sensor": "landsat7"}
    scene = open_scenes(DataConfig(image=[config], indices=["ndvi", "mndwi"]), labels=False)[0]
    own = open_scenes(DataConfig(image=[config]), labels=False)[0].bands["landsat7"]
    assert len(own) == len(names)
    red, nir, green, swir = (numbers[own.index(band)] for band in ("red", "nir", "green", "swir1"))
    sample = scene.read(Window(100, 50, 100, 130))
    valid = sample.valid[0]
    assert valid.mean() > 0.5
    for name, first, second in (("ndvi", nir, red), ("mndwi", green, swir)):
        got = sample.image["landsat7"][0, scene.bands["landsat7"].index(name)] * 1e-4
        with np.errstate(all="ignore"):
            assert np.allclose(got[valid], ((first - second) / (first + second))[valid], rtol=1e-5, atol=1e-6)
