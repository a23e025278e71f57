import pytest

from covermap.core.errors import BandError
from covermap.core.sensors import SENSORS, common_name, find_sensor, name_bands, pick_bands

S2 = find_sensor("sentinel2")


@pytest.mark.parametrize(
    ("given", "sensor", "expected"),
    [
        ("B02", "sentinel2", "blue"), ("B2", "sentinel2", "blue"), ("b8a", "sentinel2", "nir_narrow"),
        ("B08", "sentinel2", "nir"), ("B2", "landsat7", "green"), ("B1_blue", "landsat7", "blue"),
        ("B7_swir2", "landsat7", "swir2"), ("SR_B5", "landsat8", "nir"), ("NIR_NARROW", "hls", "nir_narrow"),
        ("swir16", None, "swir1"), ("Blue", None, "blue"), ("VV", "sentinel1", "vv"), ("NDVI", None, "ndvi"),
        ("my band", None, "my band"), ("B4", None, "b4"),
    ],
)  # fmt: skip
def test_names_are_brought_to_one_vocabulary(given, sensor, expected):
    assert common_name(given, SENSORS[sensor] if sensor else None) == expected


def test_parts_that_contradict_leave_the_name_alone():
    assert common_name("B2_red", find_sensor("landsat7")) == "b2_red"


def test_sentinel2_order_and_wavelengths():
    # ESA, Sentinel-2 MSI user guide
    assert [b.native for b in S2.bands] == [
        "B01",
        "B02",
        "B03",
        "B04",
        "B05",
        "B06",
        "B07",
        "B08",
        "B8A",
        "B09",
        "B10",
        "B11",
        "B12",
    ]
    assert {b.name: b.gsd_m for b in S2.bands}["coastal"] == 60
    assert sorted(b.wavelength_nm for b in S2.bands) == [b.wavelength_nm for b in S2.bands]


@pytest.mark.parametrize("sensor", sorted(SENSORS))
def test_every_sensor_names_its_bands_once_and_finds_them_by_its_own_name(sensor):
    known = SENSORS[sensor]
    assert len(set(known.band_names)) == len(known.bands)
    assert [known.common_name(b.native) for b in known.bands] == list(known.band_names)


def test_rgb_from_a_bgrn_file():
    available = name_bands(["B1", "B2", "B3", "B4"], sensor=find_sensor("gaofen2"), where="x.tif")
    assert pick_bands(available, ["RED", "GREEN", "BLUE"], where="x.tif") == [2, 1, 0]


def test_unknown_sensor_and_missing_band_suggest():
    with pytest.raises(BandError, match="sentinel2"):
        find_sensor("sentinel-2")
    with pytest.raises(BandError, match="did you mean 'red'"):
        pick_bands(["red", "nir"], ["redd"], where="x.tif")


def test_spellings_of_stac_catalogues_are_known():
    names = {"nir08": "nir_narrow", "nir09": "water_vapour", "rededge071": "rededge1", "rededge075": "rededge2",
             "rededge078": "rededge3", "swir16": "swir1", "swir22": "swir2"}  # fmt: skip
    assert {name: common_name(name) for name in names} == names


def test_bands_of_sentinel2_are_none_of_landsat() -> None:
    """B02 is blue of the one and green of the other: read by number, all bands would be wrong without a word."""
    own = [f"B{number:02d}" for number in (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12)]
    for names in (own, ["B2", "B8A"], ["B02_blue", "B12_swir"]):
        for sensor in ("landsat7", "landsat8", "planetscope"):
            with pytest.raises(BandError, match="these are of Sentinel-2") as caught:
                name_bands(names, sensor=find_sensor(sensor), where="imgs_1")
            assert "name the bands: " in caught.value.fix
    name_bands([*own, "B8A"], sensor=find_sensor("sentinel2"), where="imgs_1")
    name_bands(["B02", "B8A", "B12"], sensor=None, where="imgs_1")
    real = ["SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B7"]
    assert name_bands(real, sensor=find_sensor("landsat7"), where="x")[0] == "blue"
    assert name_bands([f"B{n}" for n in (*range(1, 8), 10, 11)], sensor=find_sensor("landsat8"), where="x")[4] == "nir"
