"""Cloud masks by the numbers of their specifications."""

import numpy as np
import pytest

from covermap.core.config import DataConfig, ImageConfig
from covermap.core.config_file import parse_config
from covermap.core.errors import ConfigError, DataError
from covermap.data.scene import open_scenes
from covermap.geo.clouds import CloudMask, find_specification


def image_of(write_tif, name="a.tif", size=8):
    return write_tif(name, np.full((1, size, size), 5, "uint16"), bands=["red"])


@pytest.mark.parametrize(
    ("specification", "codes", "clear"),
    [
        ("scl", range(12), [2, 4, 5, 6, 7, 11]),
        # clear, water, snow; fill, dilated, cirrus, cloud, shadow; bits 8 to 15 are confidences and count for nothing
        ("qa_pixel", [21824, 21952, 30048, 1, 21826, 54596, 22280, 23888, 0], [21824, 21952, 30048, 0]),
        # bits: 1 cloud, 2 beside one, 3 shadow, 4 snow, 5 water, 6 and 7 aerosol; 255 fill; bit 0 is not used
        ("fmask", [0, 1, 2, 4, 8, 16, 32, 64, 192, 255], [0, 1, 16, 32, 64, 192]),
        ("mask", [0, 1, 2, 255], [0]),
    ],
)  # fmt: skip
def test_what_is_clear_by_default(specification, codes, clear):
    codes = np.array([codes], "uint16")
    seen = CloudMask.of("x.tif", specification).clear(codes[None])
    assert codes[seen].tolist() == clear


def test_kinds_are_chosen_by_name():
    codes = np.array([[21824, 22280, 23888, 30048]], "uint16")
    assert CloudMask.of("a_QA_PIXEL.TIF", kinds=["snow"]).clear(codes[None]).tolist() == [[True, True, True, False]]
    assert CloudMask.of("a_QA_PIXEL.TIF", kinds=["shadow", "cloud"]).clear(codes[None]).sum() == 2
    for kinds in (["defective"], []):
        with pytest.raises(ConfigError, match=r"qa_pixel has .*dilated, cirrus, cloud, shadow, snow, water"):
            CloudMask.of("a_QA_PIXEL.TIF", kinds=kinds)


@pytest.mark.parametrize(
    ("name", "specification"),
    [
        ("T32UNE_20230710T103629_SCL_20m.jp2", "scl"), ("SCL.tif", "scl"),
        ("LC09_L2SP_193024_20230710_20230712_02_T1_QA_PIXEL.TIF", "qa_pixel"),
        ("HLS.S30.T31TCG.2018123T105031.v2.0.Fmask.tif", "fmask"),
    ],
)  # fmt: skip
def test_the_usual_names_say_what_they_hold(name, specification):
    assert find_specification(f"/some/folder/{name}") == specification


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r"clouds\.tif does not say how .*\n.*scl . qa_pixel"):
        CloudMask.of("clouds.tif")
    with pytest.raises(DataError, match="holds the code 100, scl ends at 11"):
        CloudMask.of("scl.tif").clear(np.array([[[100]]], "uint8"))
    with pytest.raises(DataError, match="holds float32 numbers"):
        CloudMask.of("scl.tif").clear(np.zeros((1, 1, 1), "float32"))


def test_a_mask_on_another_grid_is_taken_by_the_nearest_pixel(write_tif):
    scl = np.full((3, 4), 4, "uint8")
    scl[1, 2] = 9
    path = write_tif("T_SCL_20m.tif", scl, gsd=20.0)
    image = ImageConfig(path=image_of(write_tif), clouds=path)
    scene = open_scenes(DataConfig(image=[image]))[0]
    valid = scene.read(scene.grid.window).valid[0]
    wanted = np.ones((8, 8), bool)
    wanted[2:4, 4:6] = False
    wanted[6:] = False  # the mask ends before: nothing is known there
    assert np.array_equal(valid, wanted)
    assert scene.notes == ["T_SCL_20m.tif: about 8% is masked as cloud, cirrus, shadow, defective"]
    assert path in scene.files


def test_each_date_has_its_own_mask(write_tif):
    masks = [np.zeros((8, 8), "uint8"), np.zeros((8, 8), "uint8")]
    masks[0][:4], masks[1][:, :2] = 1, 7
    images = [
        ImageConfig(
            path=image_of(write_tif, f"{t}.tif"), date=f"2020-0{t + 1}",
            clouds={"path": write_tif(f"m{t}.tif", mask), "specification": "mask"},
        )
        for t, mask in enumerate(masks)
    ]  # fmt: skip
    images.append(ImageConfig(path=image_of(write_tif, "2.tif"), date="2020-03"))
    scene = open_scenes(DataConfig(image=images))[0]
    valid = scene.read(scene.grid.window).valid
    assert [(~v).sum() for v in valid] == [32, 16, 0]
    assert not valid[0, :4].any()


def test_masks_of_a_pattern_pair_by_name(write_tif):
    for name, code in (("a", 9), ("b", 4)):
        path = image_of(write_tif, f"x/{name}.tif")
        mask = write_tif(f"scl/{name}.tif", np.full((8, 8), code, "uint8"))
    clouds = {"path": mask.replace("b.tif", "*.tif"), "specification": "scl"}
    image = ImageConfig(path=path.replace("b.tif", "*.tif"), clouds=clouds)
    scenes = open_scenes(DataConfig(image=[image]))
    assert [s.read(s.grid.window).valid.all() for s in scenes] == [False, True]
    image_of(write_tif, "x/c.tif")
    with pytest.raises(DataError, match=r"\(2 files\) has none for c"):
        open_scenes(DataConfig(image=[image]))


def test_paths_of_masks_count_from_the_configs_folder(tmp_path):
    raw = {
        "data": {"image": [{"path": "a.tif", "clouds": c} for c in ("auto", "none", "b_SCL.tif", {"path": "c.tif"})]}
    }
    images = parse_config(raw, base=tmp_path).data.images
    assert [i.cloud_path for i in images] == ["auto", "none", str(tmp_path / "b_SCL.tif"), str(tmp_path / "c.tif")]
    short = {"image": "a.tif", "clouds": {"path": "c.tif", "specification": "mask"}}
    assert parse_config({"data": short}, base=tmp_path).data.images[0].cloud_path == str(tmp_path / "c.tif")
    with pytest.raises(ConfigError, match=r"data\.clouds goes with one image path"):
        parse_config({"data": {"image": [{"path": "a.tif"}], "clouds": "none"}})
    with pytest.raises(ConfigError, match=r"unknown key .*kind"):
        parse_config({"data": {"image": [{"path": "a.tif", "clouds": {"kind": ["snow"]}}]}})
