"""`assess --zones`: hectares of polygons in any CRS, and where the sample tells them with intervals."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely
from rasterio.warp import transform

from covermap.core.errors import DataError, GridError
from covermap.verbs.assess import assess
from covermap.verbs.sample import Plan, sample
from tests.verbs.test_sample import interpret
from tests.verbs.test_sample import scene as scene


def test_zones(scene, tmp_path):
    path, truth, mapped = scene
    sample(path, tmp_path / "s.csv", Plan(num=900))
    interpret(tmp_path / "s.csv", path, truth)
    west, east = shapely.box(5e5, 4.99e6, 5.035e5, 5e6), shapely.box(5.035e5, 4.99e6, 5.07e5, 5e6)
    small, far = shapely.box(5e5, 4.9985e6, 5.0015e5, 4.999e6), shapely.box(6e5, 4e6, 6.1e5, 4.1e6)
    table = gpd.GeoDataFrame({"name": ["west", "east", "far"]}, geometry=[west, east, far], crs=32631).to_crs(4326)
    table.to_file(tmp_path / "z.gpkg")
    found = assess(path, tmp_path / "s.csv", zones=tmp_path / "z.gpkg", out=tmp_path / "tables")
    rows = {(row["zone"], row["code"]): row for row in found["zones"]}
    for k in (1, 2, 3):
        assert rows["west", k]["mapped_ha"] == pytest.approx((mapped[:, :350] == k).sum() * 0.01, rel=0.01)
        want = ((truth == k) & (mapped > 0))[:, 350:].sum() * 0.01
        assert abs(rows["east", k]["area_ha"] - want) < 2 * rows["east", k]["ci95_ha"]
        assert rows["far", k]["area_ha"] is None
    assert (tmp_path / "tables" / "zones.csv").read_text().startswith("zone,code,name,mapped_ha")
    assert len(found["files"]) == 5
    other = gpd.GeoDataFrame({"title": ["w", "s"]}, geometry=[west, small], crs=32631)
    other.to_file(tmp_path / "o.gpkg")
    with pytest.raises(DataError, match="--zone-field"):
        assess(path, tmp_path / "s.csv", zones=tmp_path / "o.gpkg")
    found = assess(path, tmp_path / "s.csv", zones=tmp_path / "o.gpkg", zone_field="title")
    assert any("overlap" in note for note in found["notes"])
    other[1:].set_geometry([far]).to_file(tmp_path / "o.gpkg")
    with pytest.raises(GridError, match="no polygon"):
        assess(path, tmp_path / "s.csv", zones=tmp_path / "o.gpkg", zone_field="title")


def test_edges_of_zones_are_straight_in_the_zones_own_crs(scene, tmp_path):
    """A border along a parallel by its two ends far away, and a zone that reaches around the world."""
    path, truth, mapped = scene
    sample(path, tmp_path / "s.csv", Plan(num=900))
    interpret(tmp_path / "s.csv", path, truth)

    def mapped_ha(**boxes):
        table = gpd.GeoDataFrame(
            {"name": list(boxes)}, geometry=[shapely.box(*box) for box in boxes.values()], crs=4326
        )
        table.to_file(tmp_path / "z.gpkg")
        rows = assess(path, tmp_path / "s.csv", zones=tmp_path / "z.gpkg")["zones"]
        return [sum(row["mapped_ha"] for row in rows if row["zone"] == name) for name in boxes]

    middle = transform("EPSG:32631", "EPSG:4326", [503_500], [4_997_000])[1][0]
    north, south = mapped_ha(north=(0, middle, 6, 50), south=(0, 40, 6, middle))
    assert north == pytest.approx((mapped[:300] > 0).sum() * 0.01, rel=0.005)
    assert south == pytest.approx((mapped[300:] > 0).sum() * 0.01, rel=0.005)
    assert mapped_ha(world=(-180, -90, 180, 90)) == [pytest.approx((mapped > 0).sum() * 0.01)]


def test_zones_on_both_sides_of_the_antimeridian(write_tif, tmp_path):
    mapped = np.ones((100, 100), "uint8")
    path = write_tif("m.tif", mapped, crs="EPSG:32601", origin=(169_644, 1_000_000), gsd=10.0)  # 180 degrees: 170,145
    sample(path, tmp_path / "s.csv", Plan(num=60))
    interpret(tmp_path / "s.csv", path, mapped)
    table = gpd.GeoDataFrame(
        {"name": ["west", "east"]}, geometry=[shapely.box(170, 0, 180, 20), shapely.box(-180, 0, -170, 20)], crs=4326
    )
    table.to_file(tmp_path / "z.gpkg")
    rows = assess(path, tmp_path / "s.csv", zones=tmp_path / "z.gpkg")["zones"]
    east, west = (row["mapped_ha"] for row in rows)
    assert east + west == pytest.approx(100)
    assert min(east, west) > 40


def test_zones_met_by_few_clusters_have_no_interval(scene, tmp_path):
    path, truth, _ = scene
    points = tmp_path / "s.csv"
    sample(path, points, Plan(method="cluster", num=2000, cluster_px=50, per_cluster=20))
    table = interpret(points, path, truth)
    boxes = [shapely.box(5e5, 4.994e6, 5.014e5, 5e6), shapely.box(5.02e5, 4.998e6, 5.03e5, 4.999e6)]
    gpd.GeoDataFrame({"name": ["many", "few"]}, geometry=boxes, crs=32631).to_file(tmp_path / "z.gpkg")
    rows = {row["zone"]: row for row in assess(path, points, zones=tmp_path / "z.gpkg")["zones"]}
    assert table["cluster"].nunique() == 100
    assert rows["few"]["num_points"] >= 30
    assert rows["few"]["area_ha"] is None
    assert "10 clusters" in rows["few"]["note"]
    assert rows["many"]["ci95_ha"] > 0
