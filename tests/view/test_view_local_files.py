"""Nothing leads out of a viewed folder or to a network: what is found in one is not trusted."""

import os
import socket
import threading

import numpy as np
import pytest
import rasterio
from rasterio.shutil import copy

from covermap.core.errors import DataError
from covermap.view.layers import open_view

WMS = "<GDAL_WMS><Service name='TMS'><ServerUrl>{url}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service></GDAL_WMS>"
BAND = '<VRTRasterBand dataType="Byte" band="1"><SimpleSource>{source}</SimpleSource></VRTRasterBand>'


@pytest.fixture
def listening():
    """The address of a port that counts who comes, and the list of them; it never answers."""
    came, port = [], socket.create_server(("127.0.0.1", 0))
    port.settimeout(0.1)
    over = threading.Event()

    def wait():
        while not over.is_set():
            try:
                came.append(port.accept())
            except TimeoutError:
                continue

    thread = threading.Thread(target=wait)
    thread.start()
    yield f"http://127.0.0.1:{port.getsockname()[1]}", came
    over.set()
    thread.join()
    for connection, _ in came:
        connection.close()
    port.close()


def vrt(source, more=""):
    return f'<VRTDataset rasterXSize="9" rasterYSize="9">{BAND.format(source=source)}{more}</VRTDataset>'


def test_no_file_of_a_folder_asks_a_network(folder, client_of, listening):
    url, came = listening
    hostile = {
        "web.vrt": vrt(f"<SourceFilename>/vsicurl/{url}/a.tif</SourceFilename>"),
        "plain.vrt": vrt(f"<SourceFilename>{url}/a.tif</SourceFilename>"),
        "case.vrt": vrt(f"<sourcefilename>/VSICURL/{url}/a.tif</sourcefilename>"),
        "escaped.vrt": vrt(f"<SourceFilename>&#47;vsicurl/{url}/a.tif</SourceFilename>"),
        "attribute.vrt": vrt("").replace("<SimpleSource>", f'<SimpleSource SourceFilename="{url}/a.tif">'),
        "comment.vrt": vrt("<SourceFilename>image.tif<!-- --></SourceFilename>"),
        "vrt.tif": vrt(f"<SourceFilename>/vsicurl/{url}/a.tif</SourceFilename>"),
        "wms.tif": WMS.format(url=url),
        "wms.img": WMS.format(url=url),
        "inner.vrt": vrt('<SourceFilename relativeToVRT="1">wms.tif</SourceFilename>'),
        "inline.vrt": vrt("<SourceFilename>&lt;GDAL_WMS&gt;</SourceFilename>"),
        "itself.vrt": vrt('<SourceFilename relativeToVRT="1">itself.vrt</SourceFilename>'),
        "x.gpkg": f"<OGRVRTDataSource><OGRVRTLayer name='x'><SrcDataSource>{url}/a.gpkg</SrcDataSource></OGRVRTLayer>"
        "</OGRVRTDataSource>",
    }
    for name, text in hostile.items():
        (folder / name).write_text(text)
    (folder / "x.design.json").write_text("{}")
    (folder / "map.tif.ovr").write_text(WMS.format(url=url))
    with rasterio.open(folder / "image.tif", "r+") as dataset:
        dataset.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=f"/vsicurl/{url}/a.ovr")
    with pytest.raises(DataError, match="nothing of it can be shown"):
        open_view([folder])
    (folder / "map.tif.ovr").unlink()
    told = client_of([folder]).get("/view.json").json()
    assert [one["id"] for one in told["layers"]] == ["sample", "map"]
    assert {line.partition(":")[0] for line in told["skipped"]} == {*hostile, "image.tif"}
    assert came == []
    for name in ("web.vrt", "wms.tif"):  # nor one that is named
        with pytest.raises(DataError):
            open_view([folder / name])
    assert came == []


def test_a_vrt_of_files_of_its_folder_is_shown_and_follows_their_times(folder, client_of):
    with rasterio.open(folder / "image.tif") as dataset:
        copy(dataset, folder / "mosaic.vrt", driver="VRT")
    client = client_of([folder])
    told = {one["id"]: one for one in client.get("/view.json").json()["layers"]}
    version = told["mosaic"]["version"]
    assert client.get(f"/tiles/mosaic/0/0/0.jpg?v={version}").status_code == 200
    os.utime(folder / "image.tif", (1, 1))
    assert client.get(f"/tiles/mosaic/0/0/0.jpg?v={version}").status_code == 409
    assert {one["id"]: one for one in client.get("/view.json").json()["layers"]}["mosaic"]["version"] != version


def test_a_vrt_of_files_elsewhere_is_shown_only_where_it_is_named(folder, write_tif):
    outside = write_tif("elsewhere/secret.tif", np.ones((50, 50), np.uint8), nodata=0)
    with rasterio.open(outside) as dataset:
        copy(dataset, folder / "secret.vrt", driver="VRT")
    view = open_view([folder])
    assert any("secret.vrt leads away" in line and "lies out of data" in line for line in view.skipped)
    assert [one.name for one in open_view([folder / "secret.vrt"]).rasters] == ["secret.vrt"]


def test_linked_folders_that_lead_out_are_told(folder, write_tif, tmp_path):
    outside = write_tif("elsewhere/secret.tif", np.ones((50, 50), np.uint8), nodata=0)
    (folder / "run").mkdir()
    (folder / "run" / "config.yaml").write_text("name: x")
    (folder / "run" / "versions.json").write_text("{}")
    (folder / "own").mkdir()
    os.symlink(folder / "own", folder / "within")
    for link in (folder / "link", folder / "run" / "maps"):
        os.symlink(os.path.dirname(outside), link)
    view = open_view([folder])
    assert "secret.tif" not in [one.name for one in view.rasters]
    told = [line.partition(" ")[0] for line in view.notes if "is a link that leads out of data" in line]
    assert sorted(told) == ["link", "maps"]
    assert [one.name for one in open_view([folder / "link"]).rasters] == ["secret.tif"]  # which is named
