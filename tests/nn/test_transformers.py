"""Networks of the `transformers` library against the library itself, and against what is known of the published files."""

import subprocess
import sys
from functools import cache

import pytest
import torch
from accelerate import init_empty_weights
from safetensors.torch import load_file, save_file

from covermap.core.errors import BandError, ConfigError, ModelError
from covermap.core.registry import find, names
from covermap.core.types import Batch, InputSpec, SensorInput
from covermap.nn.backbones import hf
from covermap.nn.build import build_model, make_backbone
from covermap.nn.published import Published

FACTS = Published("small", "", "", "", (hf.picture((0.4, 0.5, 0.6), (0.1, 0.2, 0.3)),), 0)
STAGES = {"hidden_sizes": (8, 12, 20, 24), "depths": (1, 1, 2, 1)}
TOKENS = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
SMALL = {
    "resnet": (hf.ResNet, STAGES | {"layer_type": "basic", "embedding_size": 8}),
    "bottleneck": (hf.ResNet, STAGES | {"layer_type": "bottleneck", "embedding_size": 8}),
    "segformer": (hf.SegFormer, STAGES | {"num_attention_heads": (1, 2, 5, 8), "drop_path_rate": 0.0}),
    "swin": (hf.Swin, {"embed_dim": 12, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 3, 6), "drop_path_rate": 0.0}),
    "convnext": (hf.ConvNeXt, STAGES | {"layer_scale_init_value": 0.5}),
    "dinov2": (hf.DinoV2, TOKENS | {"patch_size": 14, "image_size": 56, "use_mask_token": False}),
    "swiglu": (
        hf.DinoV2,
        TOKENS | {"patch_size": 14, "image_size": 56, "use_mask_token": False, "use_swiglu_ffn": True},
    ),
    "vit": (hf.ViT, TOKENS | {"patch_size": 16, "image_size": 64, "intermediate_size": 64}),
}
WHOLE = {"swiglu": "Dinov2Model", "dinov2": "Dinov2Model", "vit": "ViTModel"}
"""What the published files were saved from; the others from the library's classifiers."""


def spec(*bands):
    return InputSpec((SensorInput("rgb", bands, (0.0,) * len(bands), (1.0,) * len(bands)),))


def batch(height, width, bands=3, size=1):
    torch.manual_seed(1)
    image = torch.randn(size, 1, bands, height, width)
    return Batch({"rgb": image}, torch.ones(size, 1, height, width, dtype=torch.bool))


def build(name, *bands, **options):
    kind, config = SMALL[name]
    torch.manual_seed(0)
    return kind(spec(*(bands or ("red", "green", "blue"))), FACTS, config=config, **options).eval()


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """published(name) -> a file with random numbers as the library publishes it, and the whole model it is of."""
    import transformers

    @cache
    def save(name):
        kind, config = SMALL[name]
        torch.manual_seed(2)
        if name in ("dinov2", "swiglu"):
            config = config | {"use_mask_token": True}
        whole = getattr(transformers, WHOLE.get(name, f"{kind.library}ForImageClassification"))(
            getattr(transformers, f"{kind.library}Config")(**config)
        )
        with torch.no_grad():
            for parameter in whole.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        folder = tmp_path_factory.mktemp(name)
        whole.save_pretrained(folder)
        return folder / "model.safetensors", whole.eval()

    return save


KEYS = {
    "resnet": ["resnet.embedder.embedder.convolution.weight", "resnet.encoder.stages.0.layers.0.layer.0.convolution.weight",
               "resnet.encoder.stages.1.layers.0.shortcut.normalization.running_mean", "classifier.1.weight"],
    "bottleneck": ["resnet.encoder.stages.3.layers.0.layer.2.convolution.weight"],
    "segformer": ["segformer.encoder.patch_embeddings.0.proj.weight", "segformer.encoder.layer_norm.3.bias",
                  "segformer.encoder.block.0.0.attention.self.query.weight", "segformer.encoder.block.0.0.attention.self.sr.weight",
                  "segformer.encoder.block.0.0.attention.output.dense.bias", "segformer.encoder.block.2.1.mlp.dwconv.dwconv.weight",
                  "segformer.encoder.block.0.0.layer_norm_1.weight", "segformer.encoder.block.0.0.mlp.dense1.weight"],
    "swin": ["swin.embeddings.patch_embeddings.projection.weight", "swin.encoder.layers.0.blocks.0.attention.self.query.weight",
             "swin.encoder.layers.0.blocks.0.attention.self.relative_position_bias_table",
             "swin.encoder.layers.0.blocks.0.attention.output.dense.weight", "swin.encoder.layers.0.downsample.reduction.weight",
             "swin.encoder.layers.0.blocks.0.intermediate.dense.weight", "swin.layernorm.weight"],
    "convnext": ["convnext.embeddings.patch_embeddings.weight", "convnext.encoder.stages.0.layers.0.layer_scale_parameter",
                 "convnext.encoder.stages.1.downsampling_layer.1.weight", "convnext.encoder.stages.0.layers.0.dwconv.weight",
                 "convnext.layernorm.weight"],
    "dinov2": ["embeddings.cls_token", "embeddings.mask_token", "embeddings.position_embeddings", "layernorm.weight",
               "encoder.layer.0.attention.attention.query.weight", "encoder.layer.0.attention.output.dense.weight",
               "encoder.layer.0.layer_scale1.lambda1", "encoder.layer.0.mlp.fc1.weight"],
    "swiglu": ["encoder.layer.0.mlp.weights_in.weight", "encoder.layer.0.mlp.weights_out.bias"],
    "vit": ["embeddings.cls_token", "encoder.layer.0.attention.attention.query.weight", "pooler.dense.weight",
            "encoder.layer.0.intermediate.dense.weight", "encoder.layer.0.output.dense.weight",
            "encoder.layer.0.layernorm_before.weight"],
}  # fmt: skip
"""Names as they stand in the files on the hub."""
KINDS = [name for name in SMALL if name != "bottleneck"]


def expected(name, whole, x):
    """The library's own maps."""
    inner = getattr(whole, whole.base_model_prefix, whole)
    if name == "swin":
        found = inner(x, output_hidden_states=True, output_hidden_states_before_downsampling=True)
        return [hf._normed(each) for each in found.reshaped_hidden_states[-4:]]
    if name == "vit":
        out = inner(x, interpolate_pos_encoding=True)
    else:
        out = inner(x, output_hidden_states=True)
    if name in WHOLE:
        patch_px = SMALL[name][1]["patch_size"]
        return [out.last_hidden_state[:, 1:].transpose(1, 2).reshape(1, 32, x.shape[2] // patch_px, -1)]
    maps = out.hidden_states[-4:]
    return [hf._normed(each) for each in maps] if name == "convnext" else maps


@pytest.mark.parametrize("name", SMALL)
def test_published_weights_give_the_librarys_own_maps(published, name):
    path, whole = published(name)
    stored = load_file(path)
    assert set(KEYS[name]) <= set(stored)
    with init_empty_weights(include_buffers=False):
        backbone = build(name)
    report = backbone.load(path)
    assert not any(value.is_meta for value in backbone.parameters())
    assert {row.name: row.shape for row in report.rows} == {key: tuple(t.shape) for key, t in stored.items()}
    assert report.count("loaded") + report.count("ignored") == len(stored)
    size = {"swin": (224, 224)}.get(name, (4 * backbone.multiple, 5 * backbone.multiple))
    inputs = batch(*size)
    with torch.inference_mode():
        maps = backbone.eval()(inputs).maps
        wanted = expected(name, whole, inputs.image["rgb"][:, 0])
    for found, want in zip(maps[-len(wanted) :], wanted, strict=True):
        assert torch.allclose(found, want, atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_a_file_that_does_not_fit_is_refused_by_name(published, tmp_path, name):
    path, _ = published(name)
    stored = load_file(path)
    cut, odd = tmp_path / "cut.safetensors", tmp_path / "odd.safetensors"
    backbone = build(name)
    last = [key for key in stored if not backbone._ignored(key)][-1]
    save_file({key: tensor for key, tensor in stored.items() if key != last}, cut)
    save_file(stored | {"foreign.weight": torch.zeros(7)}, odd)
    with pytest.raises(ModelError, match=r"cut.safetensors does not fit this model; \d missing: \w"):
        backbone.load(cut)
    with pytest.raises(ModelError, match=r"1 left over: foreign\.weight \(7,\)"):
        backbone.load(odd)
    wide = next(key for key in stored if key.endswith(backbone.kernel))
    save_file(stored | {wide: stored[wide][:, :2].contiguous()}, odd)
    with pytest.raises(ModelError, match=r"of another shape: .*instead of|is not one for the 3 published bands"):
        backbone.load(odd)


@pytest.mark.parametrize("name", KINDS)
def test_bands_get_their_own_kernels_and_every_weight_learns(published, name):
    path, _ = published(name)
    backbone = build(name, "nir", "blue", "red")
    report = backbone.load(path)
    assert report.count("adapted") == 1
    kernel = next(t for key, t in load_file(path).items() if key.endswith(backbone.kernel))
    ours = next(m for m in backbone.modules() if isinstance(m, torch.nn.Conv2d)).weight
    assert torch.allclose(ours[:, 1] / ours[:, 2], kernel[:, 2] / kernel[:, 0], rtol=1e-3)
    assert torch.allclose(ours[:, 0] * 2, ours[:, 1] + ours[:, 2], atol=1e-5)
    assert "does not know nir" in backbone.notes[0]
    assert backbone.statistics["rgb"]["blue"] == (0.6, 0.3, "8-bit brightness")
    assert backbone.statistics["rgb"]["red"][:2] == (0.4, 0.1)
    features = backbone.train()(batch(2 * backbone.multiple, 3 * backbone.multiple, size=2))
    sum(each.square().sum() for each in features.maps).backward()
    assert not [key for key, value in backbone.named_parameters() if value.grad is None]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("cells", [(1, 1), (1, 3), (4, 2)])
def test_any_size_and_number_of_bands(name, cells):
    backbone = build(name, "red", "nir", "swir1", "green", extra_bands="zeros")
    height, width = (backbone.multiple * each for each in cells)
    with torch.inference_mode():
        features = backbone(batch(height, width, bands=4))
    shapes = [tuple(each.shape) for each in features.maps]
    assert shapes == [
        (1, c, height // s, width // s) for c, s in zip(backbone.channels, backbone.strides, strict=True)
    ]  # fmt: skip
    assert features.strides == backbone.strides


def test_swin_treats_all_inputs_alike_after_a_small_one():
    backbone, inputs = build("swin"), batch(96, 64)
    with torch.inference_mode():
        before = backbone(inputs).maps
        backbone(batch(32, 32))
        after = backbone(inputs).maps
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", ["dinov2", "vit"])
def test_a_changed_patch_changes_the_map_most_at_its_own_place(name):
    backbone = build(name, layers=[1, -1])
    assert backbone.layers == (1, 3)
    p = backbone.multiple
    inputs = batch(3 * p, 5 * p)
    with torch.inference_mode():
        before = backbone(inputs).maps
        inputs.image["rgb"][..., 1 * p : 2 * p, 3 * p : 4 * p] += 3
        after = backbone(inputs).maps
    for a, b in zip(before, after, strict=True):
        assert (a - b).abs().sum(1).flatten().argmax() == 1 * 5 + 3


MILLIONS = {
    "resnet18": 11.177, "resnet34": 21.285, "resnet50": 23.508,
    "segformer_b0": 3.319, "segformer_b1": 13.15, "segformer_b2": 24.20, "segformer_b3": 44.08, "segformer_b4": 60.84,
    "segformer_b5": 81.44,
    "swin_tiny": 27.519, "swin_small": 48.837, "swin_base": 86.743, "swin_large": 194.995,
    "convnext_tiny": 27.820, "convnext_small": 49.455, "convnext_base": 87.566, "convnext_large": 196.230,
    "dinov2_small": 22.057, "dinov2_base": 86.580, "dinov2_large": 304.369, "dinov2_giant": 1136.48,
    "vit_base_in21k": 85.799, "vit_large_in21k": 303.302,
    "dinov3_sat_vitl16": 303.13, "dinov3_sat_vit7b16": 6716.0,
    "vit_tiny": 5.486, "vit_small": 21.59, "vit_base": 85.65, "vit_large": 303.1,
}  # fmt: skip
"""Published numbers of parameters without the classifier; of the four from scratch without table and class token."""


@pytest.mark.parametrize("name", MILLIONS)
def test_every_size_has_its_published_number_of_parameters(name):
    assert name in names("backbone")
    with torch.device("meta"):
        backbone = find("backbone", name)(spec("red", "green", "blue"))
    count = sum(value.numel() for value in backbone.parameters()) / 1e6
    assert count == pytest.approx(MILLIONS[name], rel=1e-3)


@pytest.mark.parametrize(
    ("name", "local"), [("swin_tiny", True), ("segformer_b0", False), ("dinov2_base", False), ("vit_tiny", False)]
)
def test_what_holds_for_a_family_is_known_before_it_is_built(name, local):
    kind = find("backbone", name)
    assert (kind.dates, kind.local) == ("one", local)
    assert kind.__doc__


def test_a_model_from_a_published_file(tmp_path):
    import transformers

    whole = transformers.SegformerForImageClassification(
        transformers.SegformerConfig(**find("backbone", "segformer_b0").sizes["config"])
    )
    whole.save_pretrained(tmp_path)
    data = InputSpec((SensorInput("rgb", ("red", "green", "blue"), (0.0,) * 3, (1.0,) * 3, num_dates=2),))
    model = build_model(data, 4, backbone="segformer_b0", decoder="linear", weights=tmp_path / "model.safetensors")
    x = torch.randn(1, 2, 3, 40, 50)
    logits = model(Batch({"rgb": x}, torch.ones(1, 2, 40, 50, dtype=torch.bool)))
    assert logits.shape == (1, 4, 40, 50)
    assert model.backbone.reports[0].summary() == "model.safetensors: 2 ignored, 192 loaded"


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="resnet18 has no option 'misssing_bands'") as error:
        make_backbone("resnet18", spec("red"), {"misssing_bands": "mean"})
    assert error.value.fix.startswith("did you mean 'missing_bands'?")
    with pytest.raises(ConfigError, match="galileo_nano has no option 'merge'") as error:
        make_backbone("galileo_nano", spec("red"), {"merge": "mean"})
    assert error.value.fix.startswith("known: extra_bands, layers, patch_px")
    with pytest.raises(ConfigError, match="config is fixed"):
        make_backbone("resnet18", spec("red"), {"config": {}})
    with pytest.raises(ConfigError, match="has no option 'layers'"):
        make_backbone("segformer_b0", spec("red"), {"layers": [1]})
    with pytest.raises(ConfigError, match="are not blocks of a network of 12"):
        make_backbone("vit_tiny", spec("red"), {"layers": [12]})
    with pytest.raises(ConfigError, match="patch_px"):
        make_backbone("vit_tiny", spec("red"), {"patch_px": 0})
    with pytest.raises(BandError, match="also expects green, blue"):
        make_backbone("resnet18", spec("red"), {"missing_bands": "error"})


def test_the_library_is_imported_only_for_its_own_models():
    code = (
        "import sys; from covermap.core.registry import find, names; names('backbone')\n"
        "assert 'transformers' not in sys.modules; print(find('backbone', 'swin_tiny').published.repo)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("microsoft/swin-tiny-patch4-window7-224", "")


def test_plain_vit_knows_where_its_patches_are():
    backbone = make_backbone("vit_tiny", spec("a", "b"), {"patch_px": 8, "layers": [0, 11]}).eval()
    inputs = batch(24, 40, bands=2)
    with torch.inference_mode():
        before = backbone(inputs)
        same = backbone(Batch({"rgb": torch.ones(1, 1, 2, 24, 40)}, inputs.valid)).maps[0]
        inputs.image["rgb"][..., 8:16, 24:32] += 3
        after = backbone(inputs)
    assert [tuple(each.shape) for each in before.maps] == [(1, 192, 3, 5)] * 2
    assert before.strides == (8, 8)
    assert (before.maps[0] - after.maps[0]).abs().sum(1).flatten().argmax() == 1 * 5 + 3
    assert len(same.flatten(2)[0].T.unique(dim=0)) == 15
