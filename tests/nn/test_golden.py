"""Encoders against stored outputs of the reference implementations, and against the keys of the full-size files."""

import json

import pytest
import torch

from covermap.core.errors import ModelError
from covermap.nn import weights
from covermap.nn.backbones import clay, galileo, presto, prithvi, terramind


@pytest.fixture
def golden(shared):
    return lambda name: torch.load(shared / "checkpoints" / f"golden_{name}.pt", weights_only=True)


def difference(found, expected):
    """Largest difference in units of the reference's largest magnitude."""
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", ["prithvi", "prithvi_tl"])
def test_prithvi(golden, name):
    stored = golden(name)
    config = stored["config"]
    encoder = prithvi.PrithviEncoder(
        width=64, depth=2, heads=4, patch_px=8, size_px=32, num_frames=2, coords=bool(config["coords_encoding"]),
        eps=stored["ln_eps"],
    )  # fmt: skip
    report = weights.fill(encoder, stored["state_dict"], prithvi.LAYOUT, path=name)
    assert report.count("loaded") == len(encoder.state_dict())
    assert report.count("loaded") + report.count("ignored") == len(stored["state_dict"])
    for case in ("native", "larger"):
        coords = stored["inputs"][f"{case}_coords"]
        with torch.inference_mode():
            found = encoder(
                stored["inputs"][case], [0, 1], temporal=coords.get("temporal_coords"),
                location=coords.get("location_coords"),
            )  # fmt: skip
        assert max(map(difference, found, stored["outputs"][case])) < 1e-5


@pytest.mark.parametrize("name", ["terramind_gelu", "terramind_swiglu"])
def test_terramind(golden, name):
    stored = golden(name)
    modalities = {"S2L2A": 12, "S1GRD": 2, "DEM": 1}
    encoder = terramind.TerraMindEncoder(modalities, width=48, depth=2, heads=3, gated=stored["config"]["gated"])
    weights.fill(encoder, stored["state_dict"], terramind.layout(modalities), path=name)
    for case, images in stored["inputs"].items():
        with torch.inference_mode():
            found = encoder(images, [0, 1])
        assert max(map(difference, found, stored["outputs"][case])) < 1e-5
    part = {"S1GRD": 2}
    alone = terramind.TerraMindEncoder(part, width=48, depth=2, heads=3, gated=stored["config"]["gated"])
    report = weights.fill(alone, stored["state_dict"], terramind.layout(part), path=name)
    assert report.count("ignored") == 6


def test_clay(golden):
    stored = golden("clay")
    encoder = clay.ClayEncoder(width=32, depth=2, heads=2).eval()
    weights.fill(encoder, stored["state_dict"], clay.LAYOUT, path="clay")
    given = stored["inputs"]
    meta = torch.cat([given["time"], given["latlon"]], 1)
    with torch.inference_mode():
        found = encoder(given["pixels"], given["waves"], [1], gsd_m=float(given["gsd"]), meta=meta)[0]
    assert difference(found, stored["outputs"]) < 1e-5


@pytest.mark.parametrize("case", ["p8", "p4"])
def test_galileo(golden, case):
    stored = golden("galileo")
    encoder = galileo.GalileoEncoder(width=32, depth=2, heads=4)
    weights.fill(encoder, stored["state_dict"], galileo.layout(), path="galileo")
    given, expected = stored["inputs"][case], stored["outputs"][case]["s_t_x"]
    bands = given["s_t_x"].permute(0, 3, 4, 1, 2).split(list(galileo.SPACE_TIME.values()), 2)
    groups = dict(zip(galileo.SPACE_TIME, bands, strict=True))
    with torch.inference_mode():
        found = encoder(
            groups, [1], months=given["months"], patch_px=given["patch_size"], gsd_m=given["input_resolution_m"]
        )[0]
    for number, name in enumerate(groups):
        assert difference(found[name], expected[..., number, :].permute(0, 3, 1, 2, 4)) < 1e-5


def test_presto_with_its_real_weights(golden, shared):
    stored = golden("presto")
    encoder = presto.PrestoEncoder()
    weights.load(encoder, shared / "weights/presto/default_model.pt", presto.layout())
    given = stored["inputs"]
    places = {"S1": [0, 1], "S2_RGB": [2, 3, 4], "S2_Red_Edge": [5, 6, 7], "S2_NIR_10m": [8], "S2_NIR_20m": [9],
              "S2_SWIR": [10, 11], "ERA5": [12, 13], "SRTM": [14, 15], "NDVI": [16]}  # fmt: skip
    groups = {name: given["x"][..., place] for name, place in places.items()}
    months = (given["month"][:, None] + torch.arange(5)) % 12
    with torch.inference_mode():
        whole = encoder(groups, months=months, location=given["latlons"], land_cover=given["dynamic_world"])
        del groups["S1"]
        part = encoder(groups, months=months, location=given["latlons"])
    assert difference(whole, stored["outputs"]["dynamic_world_no_mask"]) < 1e-5
    assert difference(part, stored["outputs"]["dynamic_world_missing_s1_masked"]) < 1e-5


def test_real_galileo_weights_load_whole(shared):
    encoder = galileo.GalileoEncoder(width=128, depth=4, heads=8)
    report = weights.load(encoder, shared / "weights/galileo_nano/encoder.pt", galileo.layout())
    assert report.count("loaded") == len(encoder.state_dict())


FULL_SIZE = {
    "prithvi_eo_v1_100": lambda: prithvi.PrithviEncoder(width=768, depth=12, heads=12, num_frames=3),
    "prithvi_eo_tiny": lambda: prithvi.PrithviEncoder(width=256, depth=4, heads=4, num_frames=1),
    "prithvi_eo_v2_100": lambda: prithvi.PrithviEncoder(width=768, depth=12, heads=12),
    "prithvi_eo_v2_tiny_tl": lambda: prithvi.PrithviEncoder(width=192, depth=12, heads=3, num_frames=1, coords=True),
    "prithvi_eo_v2_100_tl": lambda: prithvi.PrithviEncoder(width=768, depth=12, heads=12, coords=True),
    "prithvi_eo_v2_300": lambda: prithvi.PrithviEncoder(width=1024, depth=24, heads=16),
    "prithvi_eo_v2_300_tl": lambda: prithvi.PrithviEncoder(width=1024, depth=24, heads=16, coords=True),
    "prithvi_eo_v2_600": lambda: prithvi.PrithviEncoder(width=1280, depth=32, heads=16, patch_px=14),
    "prithvi_eo_v2_600_tl": lambda: prithvi.PrithviEncoder(width=1280, depth=32, heads=16, patch_px=14, coords=True),
    "clay_v1_base": lambda: clay.ClayEncoder(width=768, depth=12, heads=12),
    "clay_v15_large": lambda: clay.ClayEncoder(width=1024, depth=24, heads=16),
    "galileo_nano": lambda: galileo.GalileoEncoder(width=128, depth=4, heads=8),
    "galileo_tiny": lambda: galileo.GalileoEncoder(width=192, depth=12, heads=3),
    "galileo_base": lambda: galileo.GalileoEncoder(width=768, depth=12, heads=12),
    "terramind_v1_tiny": lambda: _terramind(192, 12, 3, gated=False),
    "terramind_v1_small": lambda: _terramind(384, 12, 6, gated=False),
    "terramind_v1_base": lambda: _terramind(768, 12, 12, gated=True),
    "terramind_v1_large": lambda: _terramind(1024, 24, 16, gated=True),
}
MODALITIES = {"S2L2A": 12, "S2L1C": 13, "RGB": 3, "S1GRD": 2, "S1RTC": 2, "DEM": 1}


def _terramind(width, depth, heads, *, gated):
    return terramind.TerraMindEncoder(MODALITIES, width=width, depth=depth, heads=heads, gated=gated)


@pytest.mark.parametrize("name", FULL_SIZE)
def test_every_key_and_shape_of_the_full_size_files_is_taken(shared, name):
    raw = json.loads((shared / "checkpoints" / f"manifest_{name}.json").read_text())
    with torch.device("meta"):
        encoder = FULL_SIZE[name]()
        published = {key: torch.empty(shape) for key, shape in raw["keys"].items()}
    layout = {"prithvi": prithvi.LAYOUT, "clay": clay.LAYOUT, "galileo": galileo.layout()}.get(
        name.split("_")[0], terramind.layout(MODALITIES)
    )
    report = weights.fill(encoder, published, layout, path=name)
    assert report.count("loaded") == len(encoder.state_dict())


def test_a_checkpoint_of_another_kind_is_refused_by_name_and_shape(golden):
    stored = golden("prithvi")["state_dict"]
    small = {"width": 64, "heads": 4, "patch_px": 8, "size_px": 32, "num_frames": 2}
    deeper = prithvi.PrithviEncoder(depth=3, **small)
    with pytest.raises(ModelError, match=r"12 missing: trunk\.blocks\.2\.norm1\.weight \(64,\)"):
        weights.fill(deeper, stored, prithvi.LAYOUT, path="p.pt")
    with pytest.raises(ModelError, match=r"2 missing: temporal_scale"):
        weights.fill(prithvi.PrithviEncoder(depth=2, coords=True, **small), stored, prithvi.LAYOUT, path="p.pt")
    with pytest.raises(ModelError, match=r"left over: "):
        weights.fill(prithvi.PrithviEncoder(depth=1, **small), stored, prithvi.LAYOUT, path="p.pt")
    with pytest.raises(ModelError, match=r"of another shape: cls_token \(1, 1, 64\) instead of \(1, 1, 128\)"):
        weights.fill(prithvi.PrithviEncoder(depth=2, **small | {"width": 128}), stored, prithvi.LAYOUT, path="p.pt")
    moved = stored | {"encoder.pos_embed": stored["encoder.pos_embed"] + 0.1}
    with pytest.raises(ModelError, match="the table pos_embed is not this model's"):
        weights.fill(prithvi.PrithviEncoder(depth=2, **small), moved, prithvi.LAYOUT, path="p.pt")
    with pytest.raises(ModelError, match=r"no key that starts with model\.encoder"):
        weights.fill(clay.ClayEncoder(width=32, depth=2, heads=2), stored, clay.LAYOUT, path="p.pt")
