"""Bands by name: matching, policies, adapted kernels, and that the published weights then see what they were trained on."""

import dataclasses

import pytest
import torch

from covermap.core.errors import BandError, ConfigError, DataError, ModelError
from covermap.core.types import Batch, InputSpec, SensorInput
from covermap.nn import weights
from covermap.nn.backbones.clay import ClayBackbone
from covermap.nn.backbones.galileo import GalileoBackbone
from covermap.nn.backbones.prithvi import PrithviBackbone
from covermap.nn.backbones.terramind import MODALITIES as TERRAMIND
from covermap.nn.backbones.terramind import TerraMindBackbone
from covermap.nn.build import build_model, make_backbone
from covermap.nn.groups import Groups
from covermap.nn.published import Channel, Modality, Published, Selection, Variant, match, select, statistics

HLS = ("blue", "green", "red", "nir_narrow", "swir1", "swir2")


def spec(**sensors):
    return InputSpec(tuple(entry(name, bands) for name, bands in sensors.items()), 10, 32)


def entry(sensor, bands, num_dates=1):
    return SensorInput(sensor, tuple(bands), (0.0,) * len(bands), (1.0,) * len(bands), num_dates=num_dates)


def batch(of, height=32, width=32, size=2, seed=0):
    torch.manual_seed(seed)
    image = {e.sensor: torch.randn(size, e.num_dates, len(e.bands), height, width) for e in of.sensors}
    return Batch(image, torch.ones(size, of.num_dates, height, width, dtype=torch.bool))


def published(bands=HLS, **more):
    modality = Modality("HLS", tuple(bands), tuple(range(len(bands))), (2.0,) * len(bands))
    return Published("a model", "someone/model", "model.pt", "MIT", (modality,), 30, **more)


def test_bands_are_matched_by_name_whatever_their_order():
    found = match(spec(landsat8=["swir2", "red", "nir", "lst"]), published().modalities)
    assert [channel.source for channel in found] == [5, 2, 3, None]
    numbers = statistics(found, published().modalities)["landsat8"]
    assert numbers["nir"][:2] == pytest.approx((3e-4, 2e-4))
    assert numbers["swir2"][:2] == pytest.approx((5e-4, 2e-4))
    assert "lst" not in numbers


def test_a_stand_in_never_takes_the_place_of_the_band_itself():
    found = match(spec(sentinel2=["nir", "nir_narrow"]), published().modalities)
    assert [channel.source for channel in found] == [None, 3]


def test_a_band_that_two_sensors_have_is_taken_once():
    found = match(spec(sentinel2=["red"], landsat8=["red", "green"]), published().modalities)
    assert [channel.source for channel in found] == [2, None, 1]


def test_no_known_band_is_refused_with_what_the_model_takes():
    with pytest.raises(BandError, match=r"knows none of the bands vv, vh; it takes HLS: blue, green"):
        match(spec(sentinel1=["vv", "vh"]), published().modalities)


@pytest.mark.parametrize(
    ("sensors", "chosen"),
    [
        ({"sentinel2": ["blue", "green", "red"]}, ["S2L2A"]),
        ({"sentinel2": ["blue", "cirrus"]}, ["S2L1C"]),
        ({"rgb": ["red", "green", "blue"]}, ["RGB"]),
        ({"naip": ["red", "green", "blue", "nir"]}, ["RGB"]),
        ({"sentinel1": ["vv", "vh"], "dem": ["elevation"]}, ["S1GRD", "DEM"]),
        ({"image": ["blue", "green", "red", "nir", "swir1", "swir2"]}, ["S2L2A"]),
    ],
)
def test_each_sensor_gets_the_modality_that_suits_it(sensors, chosen):
    found = match(spec(**sensors), TERRAMIND)
    assert list(dict.fromkeys(channel.modality for channel in found)) == chosen


def test_another_modality_can_be_wished_for_and_misspelt():
    radar = spec(sentinel1=["vv", "vh"])
    assert {c.modality for c in match(radar, TERRAMIND, wanted={"sentinel1": "S1RTC"})} == {"S1RTC"}
    with pytest.raises(ConfigError, match=r"'S1RTD' is not known.*\n.*'S1RTC'"):
        match(radar, TERRAMIND, wanted={"sentinel1": "S1RTD"})
    with pytest.raises(ConfigError, match="no sensor 'sentinel'"):
        match(radar, TERRAMIND, wanted={"sentinel": "S1RTC"})


def test_policies_for_extra_and_missing_bands():
    modality = published().modalities[0]
    found = match(spec(sentinel2=["red", "ndvi"]), (modality,))
    both = select(found, modality, extra="mean", missing="drop")
    assert both.sources == (2, None)
    assert [*both.notes] == [
        "the model does not know ndvi: new kernels (mean)",
        "the model was trained with blue, green, nir_narrow, swir1, swir2 too, which the data lacks",
    ]
    assert select(found, modality, extra="drop", missing="drop").sources == (2,)
    with pytest.raises(BandError, match="does not know ndvi"):
        select(found, modality, extra="error", missing="drop")
    with pytest.raises(BandError, match="also expects blue, green, nir_narrow"):
        select(found, modality, extra="mean", missing="error")
    with pytest.raises(ConfigError, match="extra_bands: tile"):
        select(found, modality, extra="tile", missing="drop")


def chosen(*sources, new="mean"):
    channels = tuple(Channel("s", f"b{i}", i, "m", source) for i, source in enumerate(sources))
    return Selection(channels, new, 3, ())


def test_kernels_land_on_their_bands_and_the_variance_stays():
    """requirements C2: four equal-statistics inputs keep the pre-activation variance of three within 10 %."""
    torch.manual_seed(0)
    kernel = torch.randn(512, 3, 4, 4)
    x = torch.randn(64, 4, 4, 4)
    before = torch.einsum("ncij,dcij->nd", x[:, :3], kernel).var()
    for new in ("mean", "random"):
        after = torch.einsum("ncij,dcij->nd", x, weights.adapt_bands(kernel, chosen(0, 1, 2, None, new=new))).var()
        assert 0.9 < after / before < 1.1
    swapped = weights.adapt_bands(kernel, chosen(2, 0, 1))
    assert torch.equal(swapped, kernel[:, [2, 0, 1]])
    zero = weights.adapt_bands(kernel, chosen(0, None, 1, new="zeros"))
    assert torch.equal(zero[:, [0, 2]], kernel[:, :2])
    assert not zero[:, 1].any()
    two = weights.adapt_bands(kernel, chosen(0, None, None, new="random"))
    assert not torch.equal(two[:, 1], two[:, 2])
    for other in (torch.randn(8, 4, 2, 2), torch.randn(8, 2, 2, 2), torch.randn(8)):
        with pytest.raises(ModelError, match="is not one for the 3 published bands"):
            weights.adapt_bands(other, chosen(0, 1, 2))


# ------------------------------------------------------------------ through the backbones, with the golden weights


@pytest.fixture
def prithvi(shared, tmp_path):
    """prithvi(spec, golden, ...) -> a small Prithvi with the weights of a golden file, and that file."""

    def build(of, name="prithvi", **options):
        stored = torch.load(shared / "checkpoints" / f"golden_{name}.pt", weights_only=True)
        path = tmp_path / f"{name}.pt"
        torch.save(stored["state_dict"], path)
        sizes = {"width": 64, "depth": 2, "heads": 4, "patch_px": 8, "size_px": 32, "num_frames": 2}
        sizes |= {"coords": bool(stored["config"]["coords_encoding"]), "eps": stored["ln_eps"]}
        backbone = PrithviBackbone(of, published(), **sizes, **options).eval()
        backbone.load(path)
        return backbone, stored

    return build


def test_dates_and_places_reach_a_tl_model(prithvi):
    two = InputSpec((entry("hls", HLS, 2),), 30, 32)
    backbone, stored = prithvi(two, "prithvi_tl", layers=[1])
    given = stored["inputs"]["native"]
    inputs = Batch(
        {"hls": given.transpose(1, 2)}, torch.ones(2, 2, 32, 32, dtype=torch.bool),
        dates=(("2020-01-10", "2021-07-19"),) * 2, location=stored["inputs"]["native_coords"]["location_coords"],
    )  # fmt: skip
    with torch.inference_mode():
        found = backbone(inputs).maps[0]
        undated = backbone(dataclasses.replace(inputs, dates=((None, None),) * 2)).maps[0]
    expected = stored["outputs"]["native"][1][:, 1:].view(2, 2, 4, 4, 64).permute(0, 1, 4, 2, 3)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert not torch.allclose(undated, expected, atol=1e-4)


def test_the_order_of_the_files_bands_does_not_matter(prithvi):
    first, other = spec(hls=HLS), spec(hls=[HLS[i] for i in (3, 0, 5, 1, 2, 4)])
    inputs = batch(first)
    turned = dataclasses.replace(inputs, image={"hls": inputs.image["hls"][:, :, [3, 0, 5, 1, 2, 4]]})
    with torch.inference_mode():
        assert torch.allclose(prithvi(first)[0](inputs).maps[0], prithvi(other)[0](turned).maps[0], atol=1e-5)


def test_a_missing_band_counts_as_its_mean_and_a_zero_kernel_changes_nothing(prithvi):
    inputs = batch(spec(hls=HLS))
    inputs.image["hls"][:, :, 4] = 0
    shorter = dataclasses.replace(inputs, image={"hls": inputs.image["hls"][:, :, [0, 1, 2, 3, 5]]})
    longer = dataclasses.replace(
        inputs, image={"hls": torch.cat([inputs.image["hls"], torch.randn(2, 1, 1, 32, 32)], 2)}
    )
    with torch.inference_mode():
        expected = prithvi(spec(hls=HLS))[0](inputs).maps[0]
        lacking = prithvi(spec(hls=[*HLS[:4], "swir2"]))[0](shorter).maps[0]
        extra = prithvi(spec(hls=[*HLS, "ndvi"]), extra_bands="zeros")[0](longer).maps[0]
    assert torch.allclose(lacking, expected, atol=1e-5)
    assert torch.allclose(extra, expected, atol=1e-5)


def test_every_tensor_is_in_the_report(prithvi, tmp_path):
    backbone, stored = prithvi(spec(hls=[*HLS, "ndvi"]))
    report = backbone.load(tmp_path / "prithvi.pt")
    assert len(report.rows) == len(stored["state_dict"])
    fates = {row.name: row.fate for row in report.rows}
    assert fates["patch_embed.weight"] == "adapted"
    assert fates["decoder.mask_token"] == "ignored"
    assert (
        report.summary() == f"prithvi.pt: {report.count('ignored')} ignored, {report.count('loaded')} loaded, 1 adapted"
    )


def test_a_checkpoint_of_another_family_is_refused(prithvi, shared, tmp_path):
    backbone, _ = prithvi(spec(hls=HLS))
    stored = torch.load(shared / "checkpoints" / "golden_terramind_gelu.pt", weights_only=True)
    torch.save(stored["state_dict"], tmp_path / "other.pt")
    with pytest.raises(ModelError, match="does not fit this model"):
        backbone.load(tmp_path / "other.pt")


# ------------------------------------------------------------------ what is particular to a family


def terramind(of, **options):
    torch.manual_seed(0)
    sizes = {"width": 48, "depth": 2, "heads": 3, "gated": False}
    return TerraMindBackbone(of, published().__class__("t", "", "", "", TERRAMIND, 10), **sizes, **options).eval()


FUSION = {"sentinel2": HLS, "sentinel1": ["vv", "vh"], "dem": ["elevation"]}


def test_an_absent_modality_changes_nothing_but_its_own_part():
    """The peer's concat fills the place of a missing modality with uninitialised memory (checkpoints.md, defect 22)."""
    backbone = terramind(spec(**FUSION), merge="concat")
    whole = batch(spec(**FUSION))
    part = dataclasses.replace(whole, image={"sentinel2": whole.image["sentinel2"]})
    with torch.inference_mode():
        first, second = backbone(part).maps[-1], backbone(part).maps[-1]
    assert torch.equal(first, second)
    assert first.shape[1] == 3 * 48
    assert not first[:, 48:].any()
    assert first[:, :48].abs().sum() > 0
    alone = terramind(spec(sentinel2=HLS))
    alone.encoder.embeddings["S2L2A"].load_state_dict(backbone.encoder.embeddings["S2L2A"].state_dict())
    alone.encoder.trunk.load_state_dict(backbone.encoder.trunk.state_dict())
    with torch.inference_mode():
        assert torch.allclose(alone(part).maps[-1], first[:, :48], atol=1e-6)


def test_a_sensor_that_no_modality_takes_is_left_out_and_said():
    backbone = terramind(spec(sentinel2=HLS, thermal=["lst"]))
    assert backbone.notes[0] == "the model does not know lst: not used"
    with pytest.raises(BandError, match="does not know lst"):
        terramind(spec(sentinel2=HLS, thermal=["lst"]), extra_bands="error")
    with pytest.raises(ConfigError, match="merge: sum"):
        terramind(spec(sentinel2=HLS), merge="sum")


def test_clay_takes_any_band_that_has_a_wavelength():
    facts = make_backbone.__globals__["find"]("backbone", "clay_v1").published
    small = {"width": 32, "depth": 2, "heads": 2}
    backbone = ClayBackbone(spec(sentinel2=["red", "water_vapour", "nir"]), facts, **small)
    assert backbone.waves.tolist() == pytest.approx([0.665, 0.945, 0.842])
    with pytest.raises(BandError, match="ndvi has none"):
        ClayBackbone(spec(sentinel2=["red", "ndvi"]), facts, **small)
    assert backbone.statistics["sentinel2"]["red"][:2] == pytest.approx((0.1552, 0.1888))
    landsat = ClayBackbone(spec(landsat8=["red"]), facts, **small)
    assert landsat.statistics["landsat8"]["red"][:2] == pytest.approx((13705 * 2.75e-5 - 0.2, 9578 * 2.75e-5))


def test_ndvi_is_made_from_physical_values():
    facts = SensorInput("sentinel2", ("red", "nir"), (0.1, 0.3), (0.05, 0.1))
    of = InputSpec((facts,), 10, 8)
    groups = Groups(of, match(of, galileo_facts().modalities))
    inputs = batch(of, 8, 8)
    inputs.image["sentinel2"][:, :, 0] = (0.2 - 0.1) / 0.05
    inputs.image["sentinel2"][:, :, 1] = (0.6 - 0.3) / 0.1
    found = groups(inputs)
    assert set(found) == {"S2_RGB", "S2_NIR_10m", "NDVI"}
    assert torch.allclose(found["NDVI"], torch.tensor(0.5))
    assert found["S2_RGB"].shape == (2, 1, 3, 8, 8)
    assert not found["S2_RGB"][:, :, :2].any()  # blue and green are not there: their mean


def galileo_facts():
    return make_backbone.__globals__["find"]("backbone", "galileo_nano").published


def galileo(of, **options):
    torch.manual_seed(0)
    return GalileoBackbone(of, galileo_facts(), width=32, depth=2, heads=4, **options)


def test_galileo_can_be_trained_after_it_was_used_in_inference_mode():
    """The resized kernel is kept between calls: made in inference mode it would forbid training."""
    backbone = galileo(spec(sentinel2=HLS), patch_px=7)
    with torch.inference_mode():
        backbone(batch(spec(sentinel2=HLS), 14, 14))
    backbone(batch(spec(sentinel2=HLS), 14, 14)).maps[0].sum().backward()
    assert backbone.encoder.embed["S2_RGB"].weight.grad.abs().sum() > 0


def test_patches_without_data_do_not_change_the_others():
    backbone = galileo(spec(sentinel2=HLS), patch_px=4).eval()
    inputs = batch(spec(sentinel2=HLS), 8, 8)
    inputs.valid[:, :, :4, :4] = False
    other = dataclasses.replace(inputs, image={"sentinel2": inputs.image["sentinel2"].clone()})
    other.image["sentinel2"][..., :4, :4] = 5
    with torch.inference_mode():
        one, two = backbone(inputs).maps[-1], backbone(other).maps[-1]
    assert torch.allclose(one[..., 1, 1], two[..., 1, 1], atol=1e-6)
    assert not torch.allclose(one[..., 0, 0], two[..., 0, 0], atol=1e-3)


def test_settings_that_do_not_fit_are_refused_by_name():
    landsat = InputSpec((entry("landsat7", HLS),), 30, 32)
    with pytest.raises(ConfigError, match="patch_px 9 is not possible"):
        make_backbone("galileo_nano", landsat, {"patch_px": 9})
    with pytest.raises(ConfigError, match=r"layers \[3, 12\] are not blocks of a network of 12.*\n.*0 to 11"):
        make_backbone("prithvi_eo_v2_tiny", landsat, {"layers": [3, 12]})
    with pytest.raises(ConfigError, match="width is fixed by the published weights"):
        make_backbone("prithvi_eo_v2_tiny", landsat, {"width": 64})
    with pytest.raises(ConfigError, match=r"did you mean .*'prithvi_eo_v2_300'"):
        make_backbone("prithvi_eo_v2_301", landsat)
    with pytest.raises(DataError, match="the data has 25 dates, galileo_nano takes at most 24"):
        make_backbone("galileo_nano", InputSpec((entry("sentinel2", HLS, 25),), 10, 32))
    with pytest.raises(ConfigError, match=r"model\.dates: max has no effect: the data has one date"):
        build_model(landsat, 3, backbone="vit_tiny", dates="max")
    with pytest.raises(ConfigError, match="joins the dates itself"):
        build_model(InputSpec((entry("landsat7", HLS, 2),), 30, 32), 3, dates="max")


def test_a_variant_shows_what_holds_for_its_family():
    variant = Variant(GalileoBackbone, galileo_facts(), {})
    assert (variant.dates, variant.max_dates, variant.__doc__) == ("each", 24, galileo_facts().title)


def test_blocks_that_no_map_comes_from_are_left_out():
    landsat = InputSpec((entry("landsat7", HLS),), 30, 32)
    whole = make_backbone("vit_tiny", landsat)
    part = make_backbone("vit_tiny", landsat, {"layers": [1, 3]})
    assert (len(whole.trunk.blocks), len(part.trunk.blocks)) == (12, 4)
    sum(x.square().sum() for x in part(batch(landsat)).maps).backward()
    assert not [name for name, value in part.named_parameters() if value.grad is None]
    dino = make_backbone("dinov2_small", InputSpec((entry("rgb", ["red", "green", "blue"]),)), {"layers": [0]})
    assert sum(p.numel() for p in dino.parameters()) < 4e6


def test_a_checkpoint_with_other_bands_or_without_numbers_is_refused(prithvi, shared, tmp_path):
    backbone, stored = prithvi(spec(hls=HLS[::-1]))
    kernel = stored["state_dict"]["encoder.patch_embed.proj.weight"]
    for other in (torch.cat([kernel, kernel], 1), kernel[:, :3]):
        torch.save({**stored["state_dict"], "encoder.patch_embed.proj.weight": other}, tmp_path / "other.pt")
        with pytest.raises(ModelError, match=r"other\.pt: the checkpoint's first layer .* is not one for the 6"):
            backbone.load(tmp_path / "other.pt")
    torch.save({**stored["state_dict"], "encoder.norm.bias": torch.full((64,), torch.nan)}, tmp_path / "nan.pt")
    with pytest.raises(ModelError, match=r"norm\.bias holds values that are no numbers"):
        backbone.load(tmp_path / "nan.pt")
    torch.save({**stored["state_dict"], "encoder.patch_embed.proj.weight": kernel.flatten()}, tmp_path / "flat.pt")
    with pytest.raises(ModelError, match=r"flat\.pt does not fit this model"):
        backbone.load(tmp_path / "flat.pt")


def test_one_modality_cannot_be_merged():
    with pytest.raises(ConfigError, match="merge: max has no effect on one modality"):
        terramind(spec(sentinel2=HLS), merge="max")
