"""What the path of an image names: one scene, many, or a list of STAC items."""

import shutil

import numpy as np
import pytest

from covermap.core.config import DataConfig, ImageConfig
from covermap.core.errors import BandError, ConfigError, DataError
from covermap.core.registry import find
from covermap.core.sensors import find_sensor
from covermap.data.given import given_paths, holds_items
from covermap.data.scene import open_scenes
from covermap.data.source import scenes_of
from covermap.geo.raster import open_raster
from tests.conftest import landscape

BANDS = ["green", "red", "nir"]


@pytest.fixture
def folder(write_tif, tmp_path):
    """make(name, {file: bands}) -> a folder of rasters."""

    def make(name, files):
        for file, bands in files.items():
            _, image = landscape(16, 16)
            write_tif(f"{name}/{file}", np.resize(image, (len(bands), 16, 16)), bands=[b for b in bands if b], nodata=0)
        return str(tmp_path / name)

    return make


def names(path, **more):
    return list(scenes_of(ImageConfig(path=path, **more)))


def test_bands_of_one_scene_are_one_image_as_before(folder):
    one = folder("one", {"a_B03.tif": ["x"], "a_B04.tif": ["x"], "a_B08.tif": ["x"]})
    assert given_paths(ImageConfig(path=one)) == [one]
    assert open_raster(one, sensor=find_sensor("sentinel2")).bands == ("green", "red", "nir")
    both = folder("both", {"visible.tif": ["blue", "green"], "infrared.tif": ["nir", "swir1"]})
    assert given_paths(ImageConfig(path=both)) == [both]
    alone = folder("alone", {"a.tif": BANDS})
    assert names(alone) == ["alone"]


def test_rasters_of_the_same_bands_are_a_scene_each(folder):
    many = folder("many", {"b.tif": BANDS, "a.tif": BANDS, "c.tif": ["nir", "red", "green"]})
    assert names(many) == ["a", "b", "c"]
    scenes = open_scenes(DataConfig(image=many), labels=False)
    assert [scene.rasters["image"].bands for scene in scenes] == [tuple(BANDS)] * 3
    radar = folder("radar", {"x_vv.tif": ["x"], "y_vv.tif": ["x"]})
    assert names(radar) == ["x_vv", "y_vv"]


def test_names_that_are_given_are_those_of_one_file_or_of_all(folder):
    nameless = folder("nameless", {"a.tif": [None] * 3, "b.tif": [None] * 3})
    assert names(nameless, bands=BANDS) == ["a", "b"]
    assert names(nameless, bands=["blue", "swir1", "swir2", *BANDS]) == ["nameless"]
    with pytest.raises(BandError, match="3 bands without names"):
        open_scenes(DataConfig(image=nameless), labels=False)


def test_tiles_of_one_image_stay_one(folder):
    side = folder("side", {"a.tif": BANDS, "b.tif": BANDS})
    assert names(side, tiles=True) == ["side"]


def test_products_and_folders_of_bands_are_a_scene_each(folder, tmp_path):
    for name in ("s1", "s2"):
        folder(f"top/{name}", {"B03.tif": ["x"], "B04.tif": ["x"]})
    (tmp_path / "top/readme.txt").write_text("x")
    assert names(str(tmp_path / "top")) == ["s1", "s2"]
    find("source", "safe").write_miniature(tmp_path / "products")
    found = names(str(tmp_path / "products"))
    assert len(found) == 4
    product = next((tmp_path / "products").glob("*.SAFE"))
    assert names(str(product)) == [product.stem]
    find("source", "landsat").write_miniature(tmp_path / "usgs")
    assert len(names(str(tmp_path / "usgs"))) == 4


@pytest.mark.parametrize(
    ("files", "message", "fix"),
    [
        ({"a.tif": BANDS, "b.tif": BANDS, "dem.tif": ["elevation"]}, r"a\.tif \(green, red, nir\), dem\.tif", r"\*\.tif"),
        ({"s1_B03.tif": ["x"], "s1_B04.tif": ["x"], "s2_B03.tif": ["x"]}, "share some bands", "folder of its own"),
    ],
)  # fmt: skip
def test_rasters_that_may_be_either_are_refused(folder, files, message, fix):
    with pytest.raises(BandError, match=message) as caught:
        names(folder("odd", files))
    assert fix.replace("\\", "") in caught.value.fix


def test_a_vrt_of_the_scenes_beside_them_is_refused(folder, tmp_path):
    many = folder("many", {"a.tif": BANDS, "b.tif": BANDS})
    (tmp_path / "many/all.vrt").write_text(vrt({"a.tif": 0, "b.tif": 16}, 16, 32))
    with pytest.raises(BandError, match="VRTs and other rasters"):
        names(many)


def test_several_kinds_in_one_folder_are_refused(folder, tmp_path):
    folder("top/s1", {"B03.tif": ["x"]})
    (tmp_path / "top/item.json").write_text("{}")
    with pytest.raises(DataError, match=r"folders of rasters \(s1\) and STAC items \(item.json\)") as caught:
        names(str(tmp_path / "top"))
    assert f"'{tmp_path}/top/*/' or '{tmp_path}/top/*.json'" in caught.value.fix
    shutil.move(tmp_path / "top/item.json", tmp_path / "top/catalog.json")
    assert holds_items(str(tmp_path / "top"))  # the folders are the catalogue's
    both = folder("both", {"B03.tif": ["x"]})
    (tmp_path / "both/notes.json").write_text("{}")
    assert names(both) == ["both"]  # beside rasters nothing else is looked at
    (tmp_path / "both/collection.json").write_text("{}")
    with pytest.raises(DataError, match=r"rasters \(B03.tif\) and STAC items \(collection.json\)"):
        names(both)


def test_one_that_is_damaged_changes_nothing(folder, tmp_path):
    many = folder("many", {"a.tif": BANDS, "b.tif": BANDS, "c.tif": BANDS})
    (tmp_path / "many/b.tif").write_bytes(b"II*\0")
    assert names(many) == ["a", "b", "c"]
    scenes = open_scenes(DataConfig(image=many), labels=False)
    assert [scene.name for scene in scenes] == ["a", "c"]
    assert "left out 1 of 3 scenes that cannot be read" in scenes[0].notes[0]


def test_lists_are_known_by_their_names(tmp_path):
    assert not holds_items(["a.json"])
    assert not holds_items("https://example.org/a.tif")
    with pytest.raises(DataError, match="list on the web"):
        holds_items("https://example.org/search.json")
    with pytest.raises(ConfigError, match="no file matches"):
        holds_items(str(tmp_path / "*.json"))
    (tmp_path / "LC09_L2SP_193024_20230710_20230820_02_T1_MTL.json").write_text("{}")
    assert not holds_items(str(tmp_path / "LC09_L2SP_193024_20230710_20230820_02_T1_MTL.json"))
    with pytest.raises(DataError, match="is a list of STAC items") as caught:
        scenes_of(ImageConfig(path="items.geojson"))
    assert "source: stac, root: items.geojson" in caught.value.fix


def test_a_url_keeps_its_slashes():
    (images,) = scenes_of(ImageConfig(path="https://example.org/a.tif")).values()
    assert images[0].path == "https://example.org/a.tif"


def vrt(files, height, width, bands=BANDS):
    """A VRT of files, {name: first column}, each as wide as there is room for."""
    ends = dict(zip(files, [*list(files.values())[1:], width], strict=True))
    parts = [
        f'<VRTRasterBand dataType="UInt16" band="{i}"><Description>{band}</Description><NoDataValue>0</NoDataValue>'
        + "".join(
            f'<ComplexSource><SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>{i}</SourceBand>'
            f'<SrcRect xOff="0" yOff="0" xSize="{ends[name] - col}" ySize="{height}"/>'
            f'<DstRect xOff="{col}" yOff="0" xSize="{ends[name] - col}" ySize="{height}"/><NODATA>0</NODATA>'
            "</ComplexSource>"
            for name, col in files.items()
        )
        + "</VRTRasterBand>"
        for i, band in enumerate(bands, 1)
    ]
    return (
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><SRS>EPSG:32631</SRS>'
        f"<GeoTransform>500000, 10, 0, 5000000, 0, -10</GeoTransform>{''.join(parts)}</VRTDataset>"
    )
