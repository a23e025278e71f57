"""STAC items as the public catalogues write them (keys, bands and classifications), on disk and from a local API."""

import http.server
import json
import sys
import threading

import numpy as np
import pytest

from covermap.core.config import DataConfig, ImageConfig
from covermap.core.errors import BandError, ConfigError, DataError, MissingExtra
from covermap.core.registry import find
from covermap.core.types import InputSpec, SensorInput
from covermap.data.scene import open_scenes
from covermap.infer import open_all_for
from tests.conftest import landscape

pytest.importorskip("pystac", reason="needs pystac: pip install 'covermap[stac]'")


def outline(west, south, east, north):
    return [[[west, south], [east, south], [east, north], [west, north], [west, south]]]


def item(name, day, assets, *, where=(2.9, 45.0, 3.1, 45.2), cloud=5.0, collection="sentinel-2-l2a", **properties):
    properties = {"datetime": f"{day}T10:50:31.123Z", "platform": "sentinel-2b", **properties}
    if cloud is not None:
        properties["eo:cloud_cover"] = cloud
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "bbox": list(where), "collection": collection,
        "geometry": {"type": "Polygon", "coordinates": outline(*where)}, "links": [], "assets": assets,
        "properties": properties,
    }  # fmt: skip


def earth_search(name, day, base=".", **given):
    """Assets as in Earth Search v1: two formats of each band, a picture, a thumbnail and the classification."""
    assets = {
        "thumbnail": {"href": "https://example.org/t.jpg", "roles": ["thumbnail"]},
        "visual": {"href": f"{base}/tci.tif", "roles": ["visual"], "eo:bands": [{"name": "red"}, {"name": "green"}]},
        "scl": {"href": f"{base}/scl.tif", "roles": ["data", "reflectance"]},
        "scl-jp2": {"href": f"{base}/scl.jp2", "roles": ["data", "reflectance"]},
    }
    for key, band, common in (("blue", "blue", "blue"), ("nir", "nir", "nir"), ("nir08", "nir08", "nir08"),
                              ("rededge1", "rededge1", "rededge"), ("rededge2", "rededge2", "rededge")):  # fmt: skip
        entry = {"roles": ["data", "reflectance"], "eo:bands": [{"name": band, "common_name": common}],
                 "raster:bands": [{"scale": 0.0001, "offset": -0.1}]}  # fmt: skip
        assets[f"{key}-jp2"] = {"href": f"{base}/{key}.jp2", **entry}
        assets[key] = {"href": f"{base}/{key}.tif", **entry}
    return item(name, day, assets, **{"grid:code": "MGRS-31TDL"} | given)


def static(root, items):
    links = []
    for one in items:
        (root / one["id"]).mkdir(parents=True, exist_ok=True)
        (root / one["id"] / "item.json").write_text(json.dumps(one))
        links.append({"rel": "item", "href": f"./{one['id']}/item.json"})
    inner = {"type": "Catalog", "id": "inner", "stac_version": "1.0.0", "description": "x"}
    (root / "inner.json").write_text(json.dumps(inner | {"links": links}))
    top = {"type": "Catalog", "id": "top", "stac_version": "1.0.0", "description": "x"}
    (root / "catalog.json").write_text(json.dumps(top | {"links": [{"rel": "child", "href": "./inner.json"}]}))
    return root


def write_bands(write_tif, name, value):
    for i, key in enumerate(("blue", "nir", "nir08", "rededge1", "rededge2")):
        write_tif(f"{name}/{key}.tif", np.full((1, 8, 8), value + i, "uint16"), nodata=0)
    scl = np.full((8, 8), 4, "uint8")
    scl[0] = 9
    write_tif(f"{name}/scl.tif", scl)


@pytest.fixture
def catalogue(write_tif, tmp_path):
    """Three dates of one tile, one of them cloudy, one that does not say; and another collection, and another place."""
    for name, value in (("a", 100), ("b", 200), ("c", 300), ("d", 400)):
        write_bands(write_tif, name, value)
    items = [
        earth_search("b", "2023-08-09"), earth_search("a", "2023-07-10"),
        earth_search("c", "2023-07-20", cloud=80.0), earth_search("d", "2023-07-25", cloud=None),
        earth_search("e", "2023-07-26", collection="sentinel-2-l1c"),
        earth_search("f", "2023-07-27", where=(8.0, 45.0, 8.1, 45.2)),
        earth_search("g", "2022-07-27"),
    ]  # fmt: skip
    return static(tmp_path, items)


OPTIONS = {"collections": ["sentinel-2-l2a"], "bbox": [2.95, 45.05, 3.0, 45.1], "period": "2023-07/2023-08"}


def test_a_catalogue_on_disk(catalogue):
    options = {**OPTIONS, "max_cloud": 20, "use": ["nir", "B8A", "B06"]}
    source = find("source", "stac")(catalogue, **options)
    assert [(f.name, [i.date for i in f.images]) for f in source.scenes()] == [("31TDL", ["2023-07-10", "2023-08-09"])]
    assert source.notes == [
        "1 of 4 items do not say their cloud cover: left out", "1 of 4 items have more than 20 % clouds: left out",
    ]  # fmt: skip
    scene = open_scenes(DataConfig(source="stac", root=str(catalogue), options=options))[0]
    assert scene.rasters["sentinel2"].bands == ("nir", "nir_narrow", "rededge2")
    sample = scene.read(scene.grid.window)
    assert sample.image["sentinel2"][:, :, 4, 4].tolist() == [[101, 102, 104], [201, 202, 204]]
    assert (~sample.valid).sum() == 16  # the first row of both dates is cloudy
    every = find("source", "stac")(catalogue, **OPTIONS, dates="single").scenes()
    assert [f.name for f in every] == [f"31TDL_2023-0{d}" for d in ("7-10", "7-20", "7-25", "8-09")]


def test_a_list_of_items_instead_of_a_catalogue(catalogue, tmp_path):
    """A saved search, a pattern of item files, an item: the same scenes, files counting from where they are named."""
    whole = find("source", "stac")(catalogue, **OPTIONS, use=["nir"]).scenes()
    paths = [str(path) for image in whole[0].images for path in image.path]
    items = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("?/item.json"))]
    for one in items:
        for asset in one["assets"].values():
            asset["href"] = asset["href"].replace("./", f"./{one['id']}/")
    (tmp_path / "search.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    for root in (tmp_path / "search.geojson", tmp_path / "*/item.json"):
        found = find("source", "stac")(root, **OPTIONS, use=["nir"]).scenes()
        assert [str(path) for image in found[0].images for path in image.path] == paths
    one = find("source", "stac")(tmp_path / "a/item.json", use=["nir"]).scenes()
    assert [image.date for image in one[0].images] == ["2023-07-10"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"has no catalog\.json and no STAC items"):
        find("source", "stac")(tmp_path / "empty").scenes()
    with pytest.raises(DataError, match="there is no folder"):
        find("source", "stac")(tmp_path / "nothing")


def test_keys_of_other_catalogues(write_tif, tmp_path):
    """Copernicus writes pixel sizes into its keys; STAC's nir08 is the only near infrared of Landsat."""
    keys = {"B04_20m": 1, "B04_10m": 2, "B8A_20m": 3}
    assets = {key: {"href": f"./{key}.tif", "roles": ["data", "reflectance"]} for key in keys}
    assets |= {key: {"href": f"./{key}.tif", "roles": ["data"]} for key in ("SCL_60m", "SCL_20m")}
    (found,) = find("source", "stac")(static(tmp_path, [item("s", "2023-07-10", assets)])).items()
    assert {band: path.rpartition("/")[2] for band, path in found.files.items()} == {
        "red": "B04_10m.tif", "nir_narrow": "B8A_20m.tif",
    }  # fmt: skip
    assert (found.clouds[0].rpartition("/")[2], found.clouds[1]) == ("SCL_20m.tif", "scl")
    assets = {"nir08": {"href": "./n.tif"}, "red": {"href": "./r.tif"}}
    one = item("l", "2023-07-10", assets, platform="landsat-9")
    (found,) = find("source", "stac")(static(tmp_path / "l", [one])).items()
    assert list(found.files) == ["red", "nir"]


def test_an_area_of_polygons(catalogue, tmp_path):
    (tmp_path / "here.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}, "geometry": {
            "type": "Polygon", "coordinates": outline(8.0, 45.0, 8.05, 45.1)}}]})
    )  # fmt: skip
    options = {"area": str(tmp_path / "here.geojson"), "dates": "single"}
    assert [f.name for f in find("source", "stac")(catalogue, **options).scenes()] == ["31TDL_2023-07-27"]


def test_landsat_items_state_their_scaling(write_tif, tmp_path):
    """As in the Planetary Computer: keys by colour, nir08 is the near infrared, QA_PIXEL tells the clouds."""
    assets = {
        key: {
            "href": f"./{key}.tif", "roles": ["data"], "eo:bands": [{"name": name, "common_name": key}],
            "raster:bands": [{"scale": 2.75e-05, "offset": -0.2}],
        }
        for key, name in (("blue", "OLI_B2"), ("red", "OLI_B4"), ("nir08", "OLI_B5"), ("swir16", "OLI_B6"))
    }  # fmt: skip
    assets["qa_pixel"] = {"href": "./qa_pixel.tif", "roles": ["cloud"]}
    for i, key in enumerate(("blue", "red", "nir08", "swir16")):
        write_tif(f"l/{key}.tif", np.full((1, 4, 4), 10000 + i, "uint16"), nodata=0)
    write_tif("l/qa_pixel.tif", np.full((4, 4), 22280, "uint16"))
    one = item("l", "2023-07-10", assets, platform="landsat-9", **{"landsat:wrs_path": "196", "landsat:wrs_row": "028"})
    scene = open_scenes(DataConfig(source="stac", root=str(static(tmp_path, [one]))))[0]
    assert scene.name == "196028"
    assert scene.rasters["landsat8"].bands == ("blue", "red", "nir", "swir1")
    assert (scene.images[0].scale, scene.images[0].offset) == (2.75e-05, -0.2)
    assert not scene.read(scene.grid.window).valid.any()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"period": "2030"}, DataError, "has no item for any collection, 2030"),
        ({"max_cloud": 1}, DataError, "none is left"),
        ({"limit": 2}, DataError, "more than 2 items"),
        ({"bbox": [3, 45, 2, 46]}, ConfigError, "bbox"),
        ({"bbox": [2, 45, 3, 46], "area": "x.gpkg"}, ConfigError, "both say where"),
        ({"use": ["swir1"]}, DataError, "lacks swir1; it has blue, rededge1, rededge2, nir, nir_narrow"),
        ({"sensor": "sentinel1"}, BandError, "has no band of sentinel1 among its assets thumbnail"),
        ({"dates": "all"}, ConfigError, "dates: 'all' is not known"),
    ],
)
def test_what_cannot_be_found_is_said(catalogue, options, error, message):
    with pytest.raises(error, match=message):
        find("source", "stac")(catalogue, **{"period": "2023"} | options).scenes()


def test_files_of_a_catalogue_lie_in_its_folder(write_tif, tmp_path):
    outside = write_tif("blue.tif", np.ones((1, 4, 4), "uint16"))
    for href in ("../../blue.tif", outside, "/vsicurl/http://example.org/a.tif", "<VRTDataset/>"):
        root = static(tmp_path / "root", [item("a", "2023-07-10", {"blue": {"href": href, "roles": ["data"]}})])
        if href != "<VRTDataset/>":
            with pytest.raises(DataError, match="lies outside of the catalogue"):
                find("source", "stac")(root).scenes()
        else:
            path = find("source", "stac")(root).scenes()[0].images[0].path[0]
            assert path.startswith(str(root))  # a name in the folder, not a description for GDAL
    (tmp_path / "root/catalog.json").write_text("not JSON")
    for wrong in ("not JSON", '{"type": "Catalog"}', '{"type": "Feature", "stac_version": "1.0.0", "id": "a"}', "[]"):
        (tmp_path / "root/catalog.json").write_text(wrong)
        with pytest.raises(DataError, match=r"catalog\.json is no STAC catalogue that can be read"):
            find("source", "stac")(tmp_path / "root").scenes()


@pytest.fixture
def api(write_tif, tmp_path):
    """A STAC API on this machine: its root, its search, and the files by byte ranges. Also the searches it was sent."""
    _, image = landscape(64, 64)
    for i, key in enumerate(("blue", "nir")):
        write_tif(f"files/{key}.tif", image[i], nodata=0)
    asked = []

    class Api(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def _answer(self, content, kind, status=200, **headers):
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def do_GET(self):
            base = f"http://127.0.0.1:{self.server.server_port}"
            if self.path.startswith("/files/"):
                data = (tmp_path / self.path.lstrip("/")).read_bytes()
                first, last = 0, len(data) - 1
                if span := self.headers.get("Range"):
                    first, last = (int(v) if v else last for v in span.removeprefix("bytes=").split("-"))
                    last = min(last, len(data) - 1)
                where = {"Content_Range": f"bytes {first}-{last}/{len(data)}"} if span else {}
                return self._answer(data[first : last + 1], "image/tiff", 206 if span else 200, **where)
            root = {
                "type": "Catalog", "id": "api", "stac_version": "1.0.0", "description": "x",
                "conformsTo": ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"],
                "links": [
                    {"rel": "self", "href": base},
                    {"rel": "search", "href": f"{base}/search", "method": "POST", "type": "application/geo+json"},
                ],
            }  # fmt: skip
            return self._answer(json.dumps(root).encode(), "application/json")

        do_HEAD = do_GET

        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if asked[-1].get("collections") == ["broken"]:
                return self._answer(b"no such collection", "text/plain", 400)
            base = f"http://127.0.0.1:{self.server.server_port}/files"
            found = [earth_search("x", "2023-07-10", base), earth_search("y", "2021-07-10", base)]
            for one in found:
                del one["assets"]["scl"], one["assets"]["scl-jp2"]
            answer = {"type": "FeatureCollection", "features": found, "links": []}
            return self._answer(json.dumps(answer).encode(), "application/geo+json")

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked, image
        server.shutdown()


def test_an_api_is_asked_and_its_files_are_read_in_place(api):
    pytest.importorskip("pystac_client", reason="needs pystac-client: pip install 'covermap[stac]'")
    url, asked, image = api
    scene = open_scenes(DataConfig(source="stac", root=url, options={**OPTIONS, "use": ["blue", "nir"]}))[0]
    assert scene.dates == ("2023-07-10",)  # what does not match the search is left out, whatever the API answers
    assert asked[0]["collections"] == ["sentinel-2-l2a"]
    assert asked[0]["datetime"] == "2023-07-01T00:00:00Z/2023-08-31T23:59:59Z"
    assert asked[0]["intersects"]["type"] == "Polygon"
    assert np.array_equal(scene.read(scene.grid.window).image["sentinel2"][0], image[:2])
    with pytest.raises(DataError, match="cannot be searched: no such collection"):
        find("source", "stac")(url, collections=["broken"]).scenes()
    with pytest.raises(DataError, match=r"cannot be searched: .*refused"):
        find("source", "stac")("http://127.0.0.1:1").scenes()


def test_files_on_the_web_of_a_list_on_disk(api, tmp_path):
    """As a search saves it: the list is here, its files stay where they are."""
    url, _, image = api
    one = earth_search("x", "2023-07-10", f"{url}/files")
    del one["assets"]["scl"], one["assets"]["scl-jp2"]
    (tmp_path / "search.json").write_text(json.dumps({"type": "FeatureCollection", "features": [one]}))
    entry = SensorInput("sentinel2", ("nir", "blue"), (0.0,) * 2, (1.0,) * 2, 1e-4, auto_offset=True)
    (scene,) = open_all_for(InputSpec((entry,), 10.0), [ImageConfig(path=str(tmp_path / "search.json"))], any_gsd=False)
    assert scene.name == "x"
    assert np.array_equal(scene.read(scene.grid.window).image["sentinel2"][0], image[1::-1])
    assert scene.paths == [f"{url}/files/nir.tif", f"{url}/files/blue.tif"]


def test_without_the_extra(catalogue, monkeypatch):
    monkeypatch.setitem(sys.modules, "pystac", None)
    with pytest.raises(MissingExtra, match="a STAC catalogue"):
        find("source", "stac")(catalogue).scenes()
