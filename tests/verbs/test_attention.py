"""`attention`: a raster on the image's grid, for models and configs, that may be an image of train."""

import json

import numpy as np
import pytest
import rasterio
from rio_cogeo import cog_validate

from covermap.core.config_file import parse_config
from covermap.core.errors import ConfigError, OutputError
from covermap.data.scene import open_scenes
from covermap.geo.grid import Window
from covermap.verbs.attention import AttentionSettings, attention

ONE = AttentionSettings(workers=1, device="cpu")
VIT = {"backbone": "sensor_vit_nano", "backbone_options": {"patch_px": 8, "class_token": True}, "decoder": "linear"}


@pytest.fixture
def config(tiny):
    return {**tiny, "model": VIT}


def parsed(raw, **changes):
    return parse_config(json.loads(json.dumps(raw | changes)))


def test_the_raster_lies_on_the_images_grid_and_is_one_on_average(config, tmp_path):
    out = tmp_path / "attention.tif"
    done = attention(parsed(config), out, settings=AttentionSettings([1, 3], workers=1, size_px=96))
    assert done.query == "class"
    assert done.bands == tuple(f"block{block}_head{head}" for block in (1, 3) for head in (0, 1, 2))
    with rasterio.open(out) as found, rasterio.open(config["data"]["image"]) as image:
        assert (found.crs, found.transform, found.shape) == (image.crs, image.transform, image.shape)
        assert found.descriptions == done.bands
        assert set(found.dtypes) == {"float32"}
        values = found.read()
    assert cog_validate(out, quiet=True)[0]
    assert np.isfinite(values).all()
    np.testing.assert_allclose(values.mean((1, 2)), 1, atol=0.2)  # of overlapping windows; of one it is exact
    np.testing.assert_array_equal(values[:, ::8, ::8].repeat(8, 1).repeat(8, 2), values)
    with pytest.raises(OutputError, match="exists"):
        attention(parsed(config), out, settings=ONE)
    attention(parsed(config), out, settings=ONE, overwrite=True)
    assert not list(tmp_path.glob("*.work"))


def test_workers_and_blocks_change_nothing(config, tmp_path):
    one = attention(parsed(config), tmp_path / "a.tif", settings=AttentionSettings(size_px=32, workers=1)).file
    two = attention(parsed(config), tmp_path / "b.tif", settings=AttentionSettings(size_px=32, workers=2)).file
    with rasterio.open(one) as first, rasterio.open(two) as second:
        np.testing.assert_array_equal(first.read(), second.read())


def test_it_is_an_image_of_train(config, tmp_path):
    out = attention(parsed(config), tmp_path / "attention.tif", settings=ONE).file
    data = {**config["data"], "image": [{"path": config["data"]["image"]}, {"path": str(out), "sensor": "attention"}]}
    (scene,) = open_scenes(parsed(config, data=data).data)
    sample = scene.read(Window(0, 0, 32, 32))
    assert sample.bands["attention"] == ("block3_head0", "block3_head1", "block3_head2")
    with rasterio.open(out) as raster:
        np.testing.assert_allclose(sample.image["attention"][0], raster.read()[:, :32, :32], rtol=1e-6)


def test_a_trained_model_shows_its_attention(config, tmp_path, covermap):
    from covermap.verbs.train import train

    run = train(parsed(config, train={"epochs": 1, "size_px": 32, "batch_size": 4, "workers": 0}))
    out = tmp_path / "a.tif"
    code, text, err = covermap(
        "attention", str(run.folder), config["data"]["image"], str(out), "--layers=-1", "--heads", "0,2", "--query", "mean",
        "--json",
    )  # fmt: skip
    assert code == 0, err
    told = json.loads(text)
    assert told["bands"] == ["block3_head0", "block3_head2"]
    assert told["query"] == "mean"
    assert out.is_file()


def test_what_has_no_attention_is_refused(config, tmp_path):
    with pytest.raises(ConfigError, match="UNetEncoder gives none"):
        attention(parsed(config, model={"backbone": "unet"}), tmp_path / "a.tif", settings=ONE)
    with pytest.raises(ConfigError, match="--layers 9"):
        attention(parsed(config), tmp_path / "a.tif", settings=AttentionSettings([9]))
    with pytest.raises(OutputError, match="raster"):
        attention(parsed(config), tmp_path / "a.parquet", settings=ONE)
    assert not list(tmp_path.glob("a.*"))
