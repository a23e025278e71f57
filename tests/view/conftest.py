"""Maps, images and samples to look at, and a client of the server over them."""

from __future__ import annotations

import numpy as np
import pytest

from covermap.geo.products import finish_map

pytest.importorskip("starlette")

from starlette.testclient import TestClient

from covermap.verbs.sample import Plan, sample
from covermap.verbs.view import assessed
from covermap.view.layers import open_view
from covermap.view.server import Access, build_app
from tests.view.browser import address, chromium, labelled, open_page, own, scene, static_folder  # noqa: F401
from tests.view.view_data import LEGEND, codes


@pytest.fixture
def folder(tmp_path, write_tif):
    """A folder with map.tif (finished), image.tif (blue, green, red, nir) and sample.gpkg of 60 points."""
    values = codes()
    plain = write_tif("plain/plain.tif", values, nodata=0, tiled=True, blockxsize=256, blockysize=256)
    finish_map(plain, tmp_path / "data" / "map.tif", LEGEND, date="2020-07-14")
    rng = np.random.default_rng(0)
    image = (values[None].astype(int) * 50 + rng.integers(0, 500, (4, *values.shape)) + 1).astype(np.uint16)
    image[:, values == 0] = 0
    write_tif("data/image.tif", image, nodata=0, bands=["B2", "B3", "B4", "B8"], tiled=True)
    sample(tmp_path / "data" / "map.tif", tmp_path / "data" / "sample.gpkg", Plan(num=60, floor=15))
    return tmp_path / "data"


@pytest.fixture
def client_of():
    """client_of(paths, host) -> a client of the server, with the view and its access."""

    def make(paths, host="127.0.0.1", base="http://127.0.0.1:8000", by_token=False):
        view = open_view(paths)
        access = Access.for_host(host, by_token=by_token)
        client = TestClient(build_app(view, access, assessed), base_url=base, raise_server_exceptions=True)
        client.view, client.access = view, access
        client.token = {"X-Covermap-Token": access.token}
        return client

    return make
