"""What notebooks show of rasters and runs: pictures, facts, nothing that fails, nothing that is not escaped."""

import base64
import io
import json
import re

import numpy as np
import pytest
import yaml

import covermap
from covermap.core.errors import BandError, ConfigError
from covermap.core.from_to import FromTo
from covermap.core.legend import LandClass, Legend
from covermap.geo import notebook
from covermap.geo.pictures import rgb_of
from covermap.geo.raster import Raster
from covermap.geo.shown import UNKNOWN_COLOUR, shown

NASTY = '<b>&"water"'
LEGEND = Legend("l", (LandClass(1, NASTY, "#0000ff"), LandClass(2, "wood", "#00ff00"), LandClass(3, "rock", "#888888")),
                nodata=0)  # fmt: skip


@pytest.fixture
def class_map(write_tif):
    """Codes 1 and 2 and nodata in thirds of 90 columns; no pixel of code 3."""
    codes = np.repeat(np.array([[1, 2, 0]], np.uint8), 30, 1).repeat(60, 0)
    return _tagged(write_tif("map.tif", codes, nodata=0, bands=["land_cover"]), LEGEND)


def _tagged(path, legend):
    import rasterio

    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(COVERMAP_LEGEND=json.dumps(legend.to_dict()), COVERMAP_DATE="2020-07-14")
    return path


def pixels_of(html):
    from matplotlib.image import imread

    uri = re.search(r'data:image/png;base64,([^"]+)', html)[1]
    return np.rint(imread(io.BytesIO(base64.b64decode(uri))) * 255).astype(np.uint8)


def test_a_map_is_shown_in_its_colours_with_the_classes_that_occur(class_map):
    found = shown(covermap.open_raster(class_map), 512)
    assert [(colour, name) for colour, name, _ in found.classes] == [("#0000ff", NASTY), ("#00ff00", "wood")]
    assert [share for *_, share in found.classes] == [0.5, 0.5]
    html = covermap.open_raster(class_map)._repr_html_()
    picture = pixels_of(html)
    assert picture[30, 10].tolist() == [0, 0, 255, 255]
    assert picture[30, 80].tolist()[3] == 0  # nodata lets a dark notebook through
    assert NASTY not in html
    assert "&lt;b&gt;&amp;&quot;water&quot;" in html
    assert "rock" not in html
    for fact in ("90 x 60 px", "0.9 x 0.6 km", "EPSG:32631", "10 m", "2020-07-14", "land_cover (uint8)", "map.tif"):
        assert fact in html


def test_codes_that_no_legend_knows_are_not_overlooked(write_tif):
    path = write_tif("codes.tif", np.array([[1, 2], [7, 9]], np.uint8), bands=["class"])
    found = shown(covermap.open_raster(path), 8, legend=LEGEND)
    assert {name: colour for colour, name, _ in found.classes}["not in the legend: 7, 9"] == UNKNOWN_COLOUR
    assert found.picture[1, 0].tolist() == [*rgb_of(UNKNOWN_COLOUR), 255]


def test_a_colour_table_makes_classes_too_and_names_come_from_beside(write_tif):
    import rasterio

    path = write_tif("other.tif", np.array([[10, 20]], np.uint8), bands=["x"], photometric="palette")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {10: (1, 2, 3, 255), 20: (4, 5, 6, 255)})
    names = "".join(f"<Category>{'wood' if code == 20 else ''}</Category>" for code in range(21))
    with open(path + ".aux.xml", "w") as file:
        file.write(
            f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{names}</CategoryNames></PAMRasterBand></PAMDataset>'
        )
    classes = {name: colour for colour, name, _ in shown(covermap.open_raster(path), 8).classes}
    assert classes == {"class 10": "#010203", "wood": "#040506"}


def test_images_show_true_colour_else_the_first_three_else_grey(write_tif):
    image = np.arange(4 * 20 * 30, dtype=np.uint16).reshape(4, 20, 30)
    four = covermap.open_raster(write_tif("i.tif", image, bands=["blue", "green", "red", "nir"]))
    assert shown(four, 64).title == "red, green, blue"
    assert shown(four, 64, bands=["nir", "red", "green"]).title == "nir, red, green"
    assert shown(four, 64, bands="nir").scale
    assert shown(four.select(["nir", "blue"]), 64).title == "nir"
    with pytest.raises(BandError, match="one band or three"):
        shown(four, 64, bands=["nir", "red"])
    with pytest.raises(ConfigError, match="stretch"):
        shown(four, 64, stretch=50)
    with pytest.raises(BandError, match="legend"):
        shown(four, 64, legend=LEGEND)


def test_the_stretch_cuts_percent_at_both_ends(write_tif):
    one = covermap.open_raster(write_tif("v.tif", np.arange(10_000, dtype=np.uint16).reshape(100, 100), bands=["vv"]))
    assert shown(one, 100, stretch=0).ends == (0, 9999)
    assert shown(one, 100, stretch=10).ends == pytest.approx((999.9, 8999.1))


def test_a_picture_is_small_and_a_large_file_without_overviews_is_not_read(write_tif, monkeypatch):
    path = write_tif("big.tif", np.ones((1, 900, 1200), np.uint8), bands=["x"])
    raster = covermap.open_raster(path)
    assert shown(raster, 512).picture.shape == (384, 512, 4)
    monkeypatch.setattr(notebook, "MOST_PX", 100_000)
    html = raster._repr_html_()
    assert "gdaladdo" in html
    assert "<img" not in html
    import rasterio

    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([4], rasterio.enums.Resampling.nearest)
    assert "900 x" in notebook.raster_html(covermap.open_raster(path))


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_file_that_cannot_be_read_has_a_reason_and_no_error(write_tif, damage):
    path = write_tif("d <1>.tif", np.random.default_rng(0).integers(0, 99, (1, 300, 300), np.uint8), bands=["x"],
                     compress="deflate")  # fmt: skip
    raster = covermap.open_raster(path)
    import os
    from pathlib import Path

    if damage == "gone":
        os.remove(path)
    else:
        content = Path(path).read_bytes()
        Path(path).write_bytes(content[: len(content) // 2])
        os.utime(path, (1, 1))
    html = raster._repr_html_()
    assert "no picture" in html or "no display" in html
    assert "<1>" not in html


def test_no_display_fails_whatever_the_raster(monkeypatch, class_map):
    def fail(*_, **__):
        raise RuntimeError("<script>")

    raster = covermap.open_raster(class_map)
    monkeypatch.setattr(notebook, "_facts", fail)
    assert "&lt;script&gt;" in raster._repr_html_()


@pytest.fixture
def axes():
    import matplotlib as mpl

    before = mpl.get_backend()
    mpl.use("Agg")
    from matplotlib import pyplot

    yield pyplot.figure().add_subplot()
    pyplot.close("all")
    mpl.use(before)


def test_a_plot_has_coordinates_legend_title_and_scale(class_map, axes):
    assert covermap.open_raster(class_map).plot(axes) is axes
    assert axes.get_xlim() == (500_000, 500_900)
    assert axes.get_ylim() == (4_999_400, 5_000_000)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [NASTY, "wood"]
    assert axes.get_title(loc="left") == "map.tif · land_cover · 2020-07-14"
    assert axes.get_xlabel() == "easting, m (EPSG:32631)"
    assert axes.images[0].get_array()[0, -1, 3] == 0
    assert [a.txt.get_text() for a in axes.artists if hasattr(a, "txt")] or axes.get_children()
    axes.figure.canvas.draw()
    left = axes.images[0].get_transform().transform((0, 60))
    assert left == pytest.approx(axes.transData.transform((500_000, 4_999_400)))


@pytest.mark.parametrize(("legend", "words"), [(False, None), (None, [NASTY, "wood"])])
def test_a_plot_makes_its_own_axes_and_the_legend_may_stay_away(class_map, axes, legend, words):
    made = covermap.open_raster(class_map).plot(legend=legend)
    assert made is not axes
    assert (made.get_legend() is None) == (words is None)


def test_degrees_turned_grids_and_none_can_be_plotted(write_tif, axes):
    from dataclasses import replace

    from affine import Affine

    values = np.arange(200, dtype=np.uint8).reshape(10, 20)
    degrees = covermap.open_raster(
        write_tif("deg.tif", values, bands=["dem"], crs="EPSG:4326", origin=(10, 60), gsd=0.01)
    )
    degrees.plot(axes)
    assert axes.get_xlabel() == "longitude, °"
    assert axes.get_aspect() == pytest.approx(1 / np.cos(np.radians(59.95)))
    turned = replace(degrees, grid=replace(degrees.grid, transform=Affine.rotation(30) * Affine.scale(2, -2)))
    axes.clear()
    # Read through a file on another grid, which is empty there: what counts is the place.
    turned.plot(axes)
    axes.figure.canvas.draw()
    bare = covermap.open_raster(write_tif("bare.tif", values, bands=["x"], crs=None, origin=(0, 0), gsd=1))
    axes.clear()
    bare.plot(axes)
    assert axes.get_xlabel() == "column, px"
    axes.figure.canvas.draw()


def test_change_maps_name_the_largest_transitions_and_confidence_has_a_scale(write_tif, axes):
    classes = Legend("k", tuple(LandClass(i, f"c{i}", "#123456") for i in range(1, 7)), nodata=0)
    every = FromTo(classes).transitions()
    legend = Legend("k_change", (LandClass(0, "unchanged", "#eeeeee"), *(LandClass(t.code, t.name, t.colour) for t in every)),
                    nodata=65535)  # fmt: skip
    codes = np.zeros((40, 40), np.uint16)
    codes.ravel()[: len(every)] = [t.code for t in every]
    path = _tagged(write_tif("change.tif", codes, nodata=65535, bands=["change"]), legend)
    covermap.open_raster(path).plot(axes)
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names[0] == "unchanged"
    assert len(names) == 17
    assert names[-1].startswith("15 more")
    layer = np.full((4, 4), 255, np.uint8)
    layer[0] = (0, 50, 100, 80)
    found = shown(covermap.open_raster(write_tif("c.tif", layer, nodata=255, bands=["confidence in percent"])), 8)
    assert found.ends == (0, 100)
    assert found.picture[0, 2].tolist() == [*rgb_of(found.scale[-1]), 255]
    assert not found.picture[1:, :, 3].any()


def test_a_picture_of_a_run_needs_no_run_to_be_complete(tiny, tmp_path):
    config = covermap.load_config(_write(tiny | {"name": "<tiny> & co"}, tmp_path))
    run = covermap.Run.create(config)
    html = run._repr_html_()
    assert "&lt;tiny&gt; &amp; co" in html
    assert "<tiny>" not in html
    assert "not scored yet" in html
    run.path("metrics.json").write_text("{broken")
    run.path("areas.csv").write_text("class,area_ha\nwood,12.5\n")
    html = run._repr_html_()
    assert "no scores" in html
    assert "12.5" in html
    assert run.areas().rows == [["wood", 12.5]]


def _write(config, folder):
    path = folder / "covermap.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_rasters_of_several_dates_show_one_of_them(write_tif):
    first, other = (
        covermap.open_raster(write_tif(f"d{n}.tif", np.full((1, 5, 5), n, np.uint8), bands=["x"]), date=f"202{n}-01-01")
        for n in (1, 2)
    )
    from covermap.geo.raster import stack_dates

    both = stack_dates([first, other])
    assert isinstance(both, Raster)
    assert "2021-01-01, 2022-01-01" in both._repr_html_()
    assert shown(both, 8, date=1).ends == (2, 2)
    with pytest.raises(ConfigError, match="2 dates"):
        shown(both, 8, date=2)
