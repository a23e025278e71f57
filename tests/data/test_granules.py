"""Products as delivered: names, metadata and numbers as ESA and USGS publish them, written here."""

import json
import os
import tarfile
import zipfile

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from covermap.core.config import DataConfig, ImageConfig
from covermap.core.errors import BandError, ConfigError, DataError
from covermap.core.registry import find
from covermap.data.scene import open_scenes
from covermap.geo.raster import files_behind, open_raster

S2 = "S2B_MSIL2A_20230710T103629_N0509_R008_T32UNE_20230710T134600.SAFE"
L9 = "LC09_L2SP_193024_20230710_20230712_02_T1"
IDS = {"B01": 0, "B02": 1, "B03": 2, "B04": 3, "B05": 4, "B06": 5, "B07": 6, "B08": 7, "B8A": 8, "B09": 9, "B10": 10,
       "B11": 11, "B12": 12}  # fmt: skip
GSD = {"B01": 60, "B02": 10, "B03": 10, "B04": 10, "B05": 20, "B06": 20, "B07": 20, "B08": 10, "B8A": 20, "B09": 60,
       "B10": 60, "B11": 20, "B12": 20}  # fmt: skip


def put(path, values, gsd, crs="EPSG:32632", origin=(600_000, 5_700_000)):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.asarray(values)
    extra = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"} if path.suffix == ".jp2" else {}
    profile = {"driver": "GTiff", "count": 1, "height": values.shape[0], "width": values.shape[1]} | extra
    with rasterio.open(
        path, "w", **profile, dtype=values.dtype, crs=crs, transform=from_origin(*origin, gsd, gsd)
    ) as file:
        file.write(values, 1)


def s2_xml(level, start, baseline, offsets, quantification=10000):
    """As in the metadata of the two levels, which name their elements differently."""
    if level == "L1C":
        listed = "".join(f'<RADIO_ADD_OFFSET band_id="{i}">{v}</RADIO_ADD_OFFSET>' for i, v in offsets.items())
        scaling = (
            f'<QUANTIFICATION_VALUE unit="none">{quantification}</QUANTIFICATION_VALUE>'
            f"<Radiometric_Offset_List>{listed}</Radiometric_Offset_List>"
        )
    else:
        listed = "".join(f'<BOA_ADD_OFFSET band_id="{i}">{v}</BOA_ADD_OFFSET>' for i, v in offsets.items())
        scaling = (
            f'<QUANTIFICATION_VALUES_LIST><BOA_QUANTIFICATION_VALUE unit="none">{quantification}'
            '</BOA_QUANTIFICATION_VALUE><AOT_QUANTIFICATION_VALUE unit="none">1000.0</AOT_QUANTIFICATION_VALUE>'
            f"</QUANTIFICATION_VALUES_LIST><BOA_ADD_OFFSET_VALUES_LIST>{listed}</BOA_ADD_OFFSET_VALUES_LIST>"
        )
    return (
        '<?xml version="1.0" encoding="UTF-8" standalone="no" ?>\n<n1:Level-X_User_Product '
        'xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/X.xsd"><n1:General_Info><Product_Info>'
        f"<PRODUCT_START_TIME>{start}</PRODUCT_START_TIME><PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>"
        f"</Product_Info><Product_Image_Characteristics>{scaling}</Product_Image_Characteristics></n1:General_Info>"
        "</n1:Level-X_User_Product>"
    )


def s2_l2a(root, *, name=S2, baseline="05.09", offsets=None, number=3000, tile="T32UNE", suffix=".jp2"):
    """A product of 24 x 24 px at 10 m; band b holds number + 10 * its metadata number."""
    folder, stamp = root / name, name.split("_")[2]
    images = folder / "GRANULE" / f"L2A_{tile}_A033133_20230710T104159" / "IMG_DATA"
    for band, gsd in GSD.items():
        if band != "B10":
            values = np.full((240 // gsd, 240 // gsd), number + 10 * IDS[band], "uint16")
            if gsd == 10:
                values[0, 0] = 0
            put(images / f"R{gsd}m" / f"{tile}_{stamp}_{band}_{gsd}m{suffix}", values, gsd)
    put(images / "R20m" / f"{tile}_{stamp}_B02_20m{suffix}", np.full((12, 12), 9, "uint16"), 20)  # resampled by ESA
    put(images / "R20m" / f"{tile}_{stamp}_B01_20m{suffix}", np.full((12, 12), 9, "uint16"), 20)
    scl = np.full((12, 12), 4, "uint8")
    scl[3, :12] = np.arange(12)
    put(images / "R20m" / f"{tile}_{stamp}_SCL_20m{suffix}", scl, 20)
    put(images / "R10m" / f"{tile}_{stamp}_TCI_10m{suffix}", np.full((24, 24), 7, "uint8"), 10)
    offsets = dict.fromkeys(range(13), -1000) if offsets is None else offsets
    date = f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]}"
    (folder / "MTD_MSIL2A.xml").write_text(s2_xml("L2A", f"{date}T10:36:29.024Z", baseline, offsets))
    (folder / "manifest.safe").write_text("<x/>")
    return folder


def test_level_2a_by_its_metadata(tmp_path):
    """Offsets go by band_id, where 7 is B08 and 8 is B8A; each band comes at its own pixel size, 0 is nodata."""
    offsets = dict.fromkeys(range(13), -1000) | {7: -700, 8: -800}
    del offsets[10]  # level 2A has no B10
    folder = s2_l2a(tmp_path, offsets=offsets)
    raster = open_raster(folder)
    assert raster.bands == ("coastal", "blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir_narrow",
                            "water_vapour", "swir1", "swir2")  # fmt: skip
    assert (raster.grid.height, raster.grid.gsd_m, raster.dates) == (24, 10, ("2023-07-10",))
    values, valid = raster.read()
    wanted = [3000 + 10 * IDS[b] + offsets[IDS[b]] for b in GSD if b != "B10"]
    assert values[0, :, 20, 20].tolist() == wanted
    assert wanted[7:9] == [2370, 2280]
    assert not valid[0, 0, 0]
    # The classification is at 20 m: row 3 of it is rows 6 and 7; codes 0, 1, 3, 8, 9 and 10 are masked.
    assert valid[0, 6, ::2].tolist() == [False, False, True, False, True, True, True, True, False, False, False, True]
    assert np.array_equal(valid[0, 6], valid[0, 7])
    assert valid[0, 8:].all()


def test_the_pixels_masked_are_told_and_chosen(tmp_path):
    folder = s2_l2a(tmp_path)
    scene = open_scenes(DataConfig(image=[ImageConfig(path=str(folder))]))[0]
    assert scene.dates == ("2023-07-10",)
    assert list(scene.rasters) == ["sentinel2"]
    assert scene.added == {"sentinel2": (0.0,)}
    # 5 of the 143 pixels that hold something: 1, 3, 8, 9, 10.
    assert any("SCL_20m.jp2: about 3% is masked as cloud, cirrus, shadow, defective" in note for note in scene.notes)
    assert any(file.endswith("SCL_20m.jp2") for file in scene.files)
    for clouds, masked in (("none", []), ({"kinds": ["snow", "cirrus"]}, [0, 10, 11]), ({"kinds": ["water"]}, [0, 6])):
        valid = open_raster(folder, clouds=ImageConfig(path="-", clouds=clouds).clouds).read()[1]
        assert np.flatnonzero(~valid[0, 6, ::2]).tolist() == masked
    with pytest.raises(ConfigError, match=r"scl has no 'clouds'.*\n.*did you mean 'cloud'"):
        open_raster(folder, clouds=ImageConfig(path="-", clouds={"kinds": ["clouds"]}).clouds)


def test_what_the_metadata_says_wins_over_the_guess(tmp_path):
    """A bright product before baseline 04.00: no number is below 950, but there is no offset."""
    name = "S2A_MSIL2A_20200710T103629_N0214_R008_T32UNE_20200710T134600.SAFE"
    old = s2_l2a(tmp_path, name=name, baseline="02.14", offsets={})
    new = s2_l2a(tmp_path, number=4000)
    for folder in (old, new):
        scene = open_scenes(DataConfig(image=[ImageConfig(path=str(folder), use=["B04", "B03"])]))[0]
        values = scene.read(scene.grid.window).image["sentinel2"]
        assert values[0, :, 20, 20].tolist() == [3030, 3020]
    assert open_raster(old).select(["red"]).dtype == "float32"  # as bands of several pixel sizes are
    scene = open_scenes(DataConfig(image=[ImageConfig(path=str(f)) for f in (old, new)]))[0]
    assert scene.dates == ("2020-07-10", "2023-07-10")
    for given, message in (
        ({"scale": 1e-4}, "scale and offset are in its metadata"),
        ({"offset": -0.1}, "scale and offset are in its metadata"),
        ({"date": "2020-07-11"}, "is of 2020-07-10, 2020-07-11 was given"),
        ({"sensor": "sentinel1"}, "holds reflectance, sentinel1 is dB"),
        ({"bands": ["blue"]}, "names its bands"),
    ):
        with pytest.raises((ConfigError, BandError), match=message):
            open_scenes(DataConfig(image=[ImageConfig(path=str(old), **given)]))


@pytest.fixture
def l1c(tmp_path):
    """Level 1C as a zip, 1000 units for reflectance 1, as the very first products had."""
    name = "S2A_MSIL1C_20160710T103629_N0204_R008_T32UNE_20160710T134600.SAFE"
    images = tmp_path / name / "GRANULE/L1C_T32UNE_A005465_20160710T104159/IMG_DATA"
    for band, gsd in GSD.items():
        values = np.full((240 // gsd, 240 // gsd), 300 + IDS[band], "uint16")
        put(images / f"T32UNE_20160710T103629_{band}.jp2", values, gsd)
    (tmp_path / name / "MTD_MSIL1C.xml").write_text(s2_xml("L1C", "2016-07-10T10:36:29.000Z", "02.04", {}, 1000))
    path = tmp_path / "zips" / f"{name}.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted((tmp_path / name).rglob("*")):
            archive.write(file, file.relative_to(tmp_path).as_posix())
    return path


def test_level_1c_in_a_zip(l1c):
    raster = open_raster(l1c)
    assert len(raster.bands) == 13
    values, valid = raster.read()
    assert valid.all()
    assert values[0, :, 5, 5] == pytest.approx([(300 + i) * 10 for i in range(13)])
    assert {file for path in raster.paths for file in files_behind(path)} == {str(l1c)}  # what checksums are made of
    with pytest.raises(ConfigError, match="has no classification of its own"):
        open_raster(l1c, clouds=ImageConfig(path="-", clouds={"kinds": ["snow"]}).clouds)


def test_offsets_of_level_1c(tmp_path, l1c):
    with zipfile.ZipFile(l1c) as archive:
        archive.extractall(tmp_path / "out")
    folder = next((tmp_path / "out").iterdir())
    offsets = {i: -1000 - i for i in range(13)}
    (folder / "MTD_MSIL1C.xml").write_text(s2_xml("L1C", "2016-07-10T10:36:29.000Z", "05.00", offsets))
    values, _ = open_raster(folder).read()
    assert values[0, :, 5, 5] == pytest.approx([300 + i - 1000 - i for i in range(13)])
    same, _ = open_raster(folder / "MTD_MSIL1C.xml").read()  # the file that other programs are given
    assert np.array_equal(values, same)


def test_level_1c_is_masked_by_its_own_classification(tmp_path, l1c):
    """Baseline 04.00 and later: three bands of 0 or 1 at 60 m, opaque cloud, cirrus, snow."""
    notes = open_scenes(DataConfig(image=[ImageConfig(path=str(l1c))]))[0].notes
    assert any("level 1C before baseline 04.00 has polygons" in note for note in notes)
    with zipfile.ZipFile(l1c) as archive:
        archive.extractall(tmp_path / "out")
    folder = next((tmp_path / "out").iterdir())
    qi = next((folder / "GRANULE").iterdir()) / "QI_DATA"
    qi.mkdir()
    layers = np.zeros((3, 4, 4), "uint8")
    for i in range(3):
        layers[i, 1, i] = 1
    with rasterio.open(
        qi / "MSK_CLASSI_B00.jp2", "w", driver="JP2OpenJPEG", count=3, height=4, width=4, dtype="uint8",
        crs="EPSG:32632", transform=from_origin(600_000, 5_700_000, 60, 60), QUALITY="100", REVERSIBLE="YES",
    ) as file:  # fmt: skip
        file.write(layers)
    for clouds, masked in (("auto", [0, 1]), ({"kinds": ["snow"]}, [2]), ({"kinds": ["cloud"]}, [0]), ("none", [])):
        scene = open_scenes(DataConfig(image=str(folder), clouds=clouds))[0]
        valid = scene.read(scene.grid.window).valid[0]
        assert np.flatnonzero(~valid[7, ::6]).tolist() == masked
        assert valid[12:].all()
    assert find("source", "safe")(tmp_path / "out").scenes()[0].images[0].clouds == "auto"
    told = open_scenes(DataConfig(image=str(folder)))[0].notes
    assert "MSK_CLASSI_B00.jp2: about 12% is masked as cloud, cirrus" in told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace("BOA_ADD_OFFSET", "NOTHING"), "baseline 05.09 has offsets, but BOA_ADD_OFFSET is missing for B01"),
        (lambda t: t.replace('band_id="12"', 'band_id="99"'), "missing for B12"),
        (lambda t: t.replace("BOA_QUANTIFICATION_VALUE", "X"), "BOA_QUANTIFICATION_VALUE is ''"),
        (lambda t: t.replace(">10000<", ">0<"), "BOA_QUANTIFICATION_VALUE is 0"),
        (lambda t: t.replace("PRODUCT_START_TIME", "X"), "does not say PRODUCT_START_TIME"),
        (lambda t: t.replace("2023-07-10T", "10/07/2023 "), "PRODUCT_START_TIME '10/07/2023' is no date"),
        (lambda t: t.replace("05.09", "new"), "PROCESSING_BASELINE 'new' is no version"),
        (lambda t: t[:300], "is no XML that can be read"),
        (lambda t: t.replace("?>", '?><!DOCTYPE a [<!ENTITY b "c">]>', 1), "declares a document type"),
    ],
)  # fmt: skip
def test_damaged_metadata_is_named(tmp_path, change, message):
    path = s2_l2a(tmp_path, suffix=".tif") / "MTD_MSIL2A.xml"
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=message):
        open_raster(path.parent)


def test_entities_are_refused_in_any_encoding(tmp_path):
    """The text is not searched for the word, so no encoding hides it."""
    path = s2_l2a(tmp_path, suffix=".tif") / "MTD_MSIL2A.xml"
    bomb = '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>'
    path.write_bytes(bomb.encode("utf-16"))
    with pytest.raises(DataError, match=r"MTD_MSIL2A\.xml.*declares a document type"):
        open_raster(path.parent)


def test_links_out_of_a_product_are_refused(tmp_path):
    folder = s2_l2a(tmp_path / "in", suffix=".tif")
    band = next(folder.rglob("*B04_10m.tif"))
    os.rename(band, tmp_path / "elsewhere.tif")
    band.symlink_to(tmp_path / "elsewhere.tif")
    with pytest.raises(DataError, match="leads out of"):
        open_raster(folder)


def test_other_archives_and_folders_of_products_are_explained(tmp_path, l1c):
    with pytest.raises(DataError, match=r"is a folder of 1 products: S2A_.*\n.*data.source: safe"):
        open_raster(l1c.parent)
    for suffix in (".zip", ".tar"):
        path = tmp_path / f"broken{suffix}"
        path.write_bytes(b"nothing of the kind")
        with pytest.raises(DataError, match="is no archive that can be read"):
            open_raster(path)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(DataError, match="neither a Sentinel-2 nor a Landsat product"):
        open_raster(tmp_path / "other.zip")


def test_products_of_one_tile_are_dates(tmp_path):
    s2_l2a(tmp_path / "b", suffix=".tif")
    s2_l2a(tmp_path / "a", name="S2A_MSIL2A_20230805T103631_N0509_R008_T32UNE_20230805T160000.SAFE", suffix=".tif")
    with zipfile.ZipFile(tmp_path / "notes.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    source = find("source", "safe")(tmp_path, use=["B04", "B08"], clouds="none")
    files = source.scenes()
    assert [(f.name, f.place, [i.date for i in f.images]) for f in files] == [
        ("32UNE", "32UNE", ["2023-07-10", "2023-08-05"])
    ]
    assert source.notes == ["1 of 1 zips hold no Sentinel-2 product"]
    config = DataConfig(source="safe", root=str(tmp_path), options={"dates": "single", "use": ["B08", "B04"]})
    scenes = open_scenes(config)
    assert [s.name for s in scenes] == ["32UNE_2023-07-10", "32UNE_2023-08-05"]
    assert scenes[0].rasters["sentinel2"].bands == ("nir", "red")
    s2_l2a(tmp_path / "c", suffix=".tif")
    with pytest.raises(DataError, match="are of one tile and one day"):
        find("source", "safe")(tmp_path).scenes()


def test_labels_of_each_tile(tmp_path):
    s2_l2a(tmp_path, suffix=".tif")
    put(tmp_path / "labels/32UNE.tif", np.full((24, 24), 2, "uint8"), 10)
    config = DataConfig(
        source="safe", root=str(tmp_path), options={"labels": "labels/{tile}.tif"}, legend={1: "field", 2: "water"}
    )
    scene = open_scenes(config)[0]
    assert (scene.read_labels(scene.grid.window) == 1).all()
    for labels, message in (("labels/no.tif", "there are no labels"), ("../elsewhere.tif", "leads out of")):
        with pytest.raises(DataError, match=message):
            find("source", "safe")(tmp_path, labels=labels).scenes()


def test_levels_are_not_mixed_in_silence(tmp_path, l1c):
    s2_l2a(l1c.parent, suffix=".tif")
    with pytest.raises(DataError, match=r"several kinds of products: 1 of L1C, 1 of L2A\n.*level: L1C"):
        find("source", "safe")(l1c.parent).scenes()
    source = find("source", "safe")(l1c.parent, level="L2A")
    assert [f.images[0].date for f in source.scenes()] == ["2023-07-10"]
    assert source.notes == ["1 of 2 products are not of level L2A"]
    scenes = open_scenes(DataConfig(source="safe", root=str(l1c.parent), options={"level": "L2A"}))
    assert scenes[0].notes[0] == "1 of 2 products are not of level L2A"
    with pytest.raises(ConfigError, match="there is nothing of L3"):
        find("source", "safe")(l1c.parent, level="L3").scenes()


# ------------------------------------------------------------------ Landsat


def mtl(level="L2SP", sun="30.0", collection="02", date="2023-07-10"):
    """Groups of an MTL file; a level 2 file states the scaling of level 1 too, under the same keys."""
    one = {
        f"REFLECTANCE_{k}_BAND_{n}": v for n in range(1, 10) for k, v in (("MULT", "2.0000E-05"), ("ADD", "-0.100000"))
    }
    two = {f"REFLECTANCE_{k}_BAND_{n}": v for n in range(1, 8) for k, v in (("MULT", "2.75e-05"), ("ADD", "-0.2"))}
    groups = {
        "PRODUCT_CONTENTS": {"PROCESSING_LEVEL": level, "COLLECTION_NUMBER": collection},
        "IMAGE_ATTRIBUTES": {"SPACECRAFT_ID": "LANDSAT_9", "WRS_PATH": "193", "WRS_ROW": "24", "DATE_ACQUIRED": date,
                             "SUN_ELEVATION": sun},
    }  # fmt: skip
    if level.startswith("L2"):
        groups["LEVEL2_SURFACE_REFLECTANCE_PARAMETERS"] = two
    return groups | {"LEVEL1_RADIOMETRIC_RESCALING": one}


def as_txt(groups):
    lines = ["GROUP = LANDSAT_METADATA_FILE"]
    for group, entries in groups.items():
        lines += [f"  GROUP = {group}", *(f'    {k} = "{v}"' if k == "PROCESSING_LEVEL" else f"    {k} = {v}" for k, v in entries.items()), f"  END_GROUP = {group}"]  # fmt: skip
    return "\n".join([*lines, "END_GROUP = LANDSAT_METADATA_FILE", "END"])


def as_xml(groups):
    body = "".join(f"<{g}>{''.join(f'<{k}>{v}</{k}>' for k, v in e.items())}</{g}>" for g, e in groups.items())
    return f'<?xml version="1.0"?><LANDSAT_METADATA_FILE>{body}</LANDSAT_METADATA_FILE>'


def landsat(root, name=L9, numbers=range(1, 8), groups=None):
    """8 x 8 px at 30 m; band n holds 10000 + 1000 n; the first row of QA_PIXEL is a choice of its values."""
    between = "_SR_B" if name[5:7] == "L2" else "_B"
    for number in numbers:
        values = np.full((8, 8), 10000 + 1000 * number, "uint16")
        values[7, 7] = 0
        put(root / f"{name}{between}{number}.TIF", values, 30)
    put(root / f"{name}_ST_B10.TIF", np.full((8, 8), 40000, "uint16"), 30)
    qa = np.full((8, 8), 21824, "uint16")  # clear, with low confidence of all else
    # fill, dilated cloud, cirrus, cloud, shadow, snow, water
    qa[0, :7] = [1, 21826, 54596, 22280, 23888, 30048, 21952]
    put(root / f"{name}_QA_PIXEL.TIF", qa, 30)
    (root / f"{name}_MTL.txt").write_text(as_txt(groups or mtl(name[5:9])))
    return root


def test_landsat_level_2(tmp_path):
    raster = open_raster(landsat(tmp_path / "any"))
    assert raster.bands == ("coastal", "blue", "green", "red", "nir", "swir1", "swir2")
    assert raster.dates == ("2023-07-10",)
    values, valid = raster.read()
    # number * 0.0000275 - 0.2, in units of 1e-4
    assert values[0, :, 4, 4] == pytest.approx([(10000 + 1000 * n) * 0.275 - 2000 for n in range(1, 8)], rel=1e-5)
    assert valid[0, 0].tolist() == [False, False, False, False, False, True, True, True]
    assert valid[0, 1:].sum() == 55  # the corner holds nothing


@pytest.mark.parametrize("form", ["json", "xml", "tar", "file"])
def test_landsat_metadata_in_all_its_forms(tmp_path, form):
    folder = landsat(tmp_path / "any")
    wanted = open_raster(folder).read()[0]
    text, path = folder / f"{L9}_MTL.txt", folder
    if form == "tar":
        path = tmp_path / f"{L9}.tar"
        with tarfile.open(path, "w") as tape:
            for file in sorted(folder.iterdir()):
                tape.add(file, arcname=file.name)
    elif form == "file":
        path = text
    else:
        groups = mtl()
        content = json.dumps({"LANDSAT_METADATA_FILE": groups}) if form == "json" else as_xml(groups)
        (folder / f"{L9}_MTL.{form}").write_text(content)
        text.unlink()
    assert np.array_equal(open_raster(path).read()[0], wanted)


def test_landsat_level_1_is_reflectance_at_the_suns_height(tmp_path):
    raster = open_raster(landsat(tmp_path / "any", name="LC08_L1TP_193024_20230710_20230712_02_T1"))
    values, _ = raster.read()
    # (number * 2e-5 - 0.1) / sin(30 degrees)
    assert values[0, :, 4, 4] == pytest.approx(
        [((10000 + 1000 * n) * 2e-5 - 0.1) / 0.5 * 1e4 for n in range(1, 8)], rel=1e-5
    )


@pytest.mark.parametrize(("prefix", "sensor"), [("LT05", "landsat5"), ("LE07", "landsat7")])
def test_older_landsats_number_their_bands_otherwise(tmp_path, prefix, sensor):
    name = f"{prefix}_L2SP_193024_20030710_20200905_02_T1"
    folder = landsat(tmp_path / "any", name=name, numbers=(1, 2, 3, 4, 5, 7), groups=mtl(date="2003-07-10"))
    scene = open_scenes(DataConfig(image=[ImageConfig(path=str(folder))]))[0]
    assert scene.rasters[sensor].bands == ("blue", "green", "red", "nir", "swir1", "swir2")
    values = scene.read(scene.grid.window).image[sensor]
    assert values[0, :, 4, 4] == pytest.approx(
        [(10000 + 1000 * n) * 0.275 - 2000 for n in (1, 2, 3, 4, 5, 7)], rel=1e-5
    )


def test_landsat_products_in_one_folder(tmp_path):
    landsat(tmp_path)
    landsat(tmp_path, name=L9.replace("20230710", "20230811"), groups=mtl(date="2023-08-11"))
    with pytest.raises(DataError, match="holds 2 Landsat products"):
        open_raster(tmp_path)
    scene = open_scenes(DataConfig(source="landsat", root=str(tmp_path)))[0]
    assert (scene.name, scene.dates) == ("193024", ("2023-07-10", "2023-08-11"))
    landsat(tmp_path, name="LE07_L2SP_193024_20030710_20200905_02_T1", groups=mtl(date="2003-07-10"))
    with pytest.raises(DataError, match="several kinds of products: 1 of landsat7, 2 of landsat8"):
        find("source", "landsat")(tmp_path).scenes()
    source = find("source", "landsat")(tmp_path, sensor="landsat8")
    assert len(source.scenes()[0].images) == 2
    assert source.notes == ["1 of 3 products are not of sensor landsat8"]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (mtl(collection="01"), "not Collection 2"),
        (mtl(level="L1TP", sun="-3"), "the sun's elevation is -3 degrees"),
        (mtl(date="July"), "DATE_ACQUIRED 'July' is no date"),
        ({k: v for k, v in mtl().items() if k[:6] != "LEVEL2"}, "does not say REFLECTANCE_MULT_BAND_1 in LEVEL2_SURF"),
        (mtl() | {"LEVEL2_SURFACE_REFLECTANCE_PARAMETERS": {"REFLECTANCE_MULT_BAND_1": "x", "REFLECTANCE_ADD_BAND_1": "0"}},
         "REFLECTANCE_MULT_BAND_1 is 'x'"),
    ],
)  # fmt: skip
def test_landsat_metadata_that_does_not_fit_is_named(tmp_path, groups, message):
    name = L9 if groups["PRODUCT_CONTENTS"]["PROCESSING_LEVEL"] == "L2SP" else L9.replace("L2SP", "L1TP")
    with pytest.raises(DataError, match=message):
        open_raster(landsat(tmp_path, name=name, groups=groups))
