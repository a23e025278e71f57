"""DINOv3 against stored outputs of the reference implementation, and against the keys of the full-size files."""

import json

import pytest
import torch
from accelerate import init_empty_weights

from covermap.core.errors import ModelError
from covermap.core.registry import find
from covermap.core.types import Batch, InputSpec, SensorInput
from covermap.nn import weights
from covermap.nn.backbones import dinov3

CONFIGS = {
    "mlp": {"intermediate_size": 256},
    "swiglu": {"intermediate_size": 128, "use_gated_mlp": True, "hidden_act": "silu", "query_bias": False, "value_bias": False},
}  # fmt: skip
FACTS = find("backbone", "dinov3_sat_vitl16").published


def spec(*bands):
    return InputSpec((SensorInput("rgb", bands, (0.0,) * len(bands), (1.0,) * len(bands)),))


def batch(x):
    return Batch({"rgb": x[:, None]}, torch.ones(len(x), 1, *x.shape[2:], dtype=torch.bool))


def build(name, *bands):
    config = {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "patch_size": 16, "num_register_tokens": 4,
        "pos_embed_rescale": None, **CONFIGS[name],
    }  # fmt: skip
    return dinov3.DinoV3(spec(*(bands or ("red", "green", "blue"))), FACTS, config=config).eval()


@pytest.fixture(params=CONFIGS)
def golden(request, shared, tmp_path):
    """(name, what is stored, a file of its weights)."""
    stored = torch.load(shared / "checkpoints" / f"golden_dinov3_{request.param}_hub.pt", weights_only=True)
    path = tmp_path / "hub.pth"
    torch.save(stored["state_dict"], path)
    return request.param, stored, path


def difference(found, expected):
    """Largest difference in units of the reference's largest magnitude."""
    return float((found - expected).abs().max() / expected.abs().max())


def tokens(image):
    return image.flatten(2).transpose(1, 2)


def test_the_maps_are_the_references_intermediate_layers(golden):
    name, stored, path = golden
    with init_empty_weights(include_buffers=False):
        backbone = build(name)
    report = backbone.load(path)
    assert not any(value.is_meta for value in backbone.parameters())
    assert {row.fate for row in report.rows} == {"loaded", "ignored", "applied"}
    assert report.count("ignored") == 3  # mask token, norm of local crops
    assert report.count("loaded") == len(backbone.model.state_dict())
    for case, image in stored["inputs"].items():
        with torch.inference_mode():
            features = backbone(batch(image))
        for found, want in zip(features.maps, stored["outputs"][case]["intermediate"], strict=True):
            assert found.shape[2:] == (image.shape[2] // 16, image.shape[3] // 16)
            assert difference(tokens(found), want) < 1e-5
        assert difference(tokens(features.maps[-1]), stored["outputs"][case]["patch"]) < 1e-5


def test_a_changed_patch_changes_the_map_at_its_own_place(golden):
    """With tokens counted wrongly the map is moved by one patch."""
    name, stored, path = golden
    backbone = build(name)
    backbone.load(path)
    image = stored["inputs"]["rect"].clone()
    with torch.inference_mode():
        before = backbone(batch(image)).maps
        image[..., 16:32, 48:64] += 1
        after = backbone(batch(image)).maps
    for a, b in zip(before, after, strict=True):
        assert (a - b).abs().sum(1).flatten().argmax() == 1 * 5 + 3


def test_training_stretches_no_positions(golden):
    name, stored, path = golden
    backbone = build(name)
    backbone.load(path)
    image = batch(stored["inputs"]["square"])
    with torch.inference_mode():
        assert torch.equal(backbone.eval()(image).maps[-1], backbone.train()(image).maps[-1])


def test_bands_get_their_own_kernels_and_every_weight_learns(golden):
    name, stored, path = golden
    backbone = build(name, "nir", "blue", "red")
    assert backbone.load(path).count("adapted") == 1
    kernel, ours = stored["state_dict"]["patch_embed.proj.weight"], backbone.model.embeddings.patch_embeddings.weight
    assert torch.allclose(ours[:, 1] / ours[:, 2], kernel[:, 2] / kernel[:, 0], rtol=1e-3)
    backbone.train()(batch(torch.randn(2, 3, 32, 48))).maps[-1].square().sum().backward()
    assert not [key for key, value in backbone.named_parameters() if value.grad is None]


def test_masks_of_biases_and_positions_must_be_those_of_published_files(shared, tmp_path):
    stored = torch.load(shared / "checkpoints" / "golden_dinov3_mlp_hub.pt", weights_only=True)["state_dict"]
    mask, path = "blocks.1.attn.qkv.bias_mask", tmp_path / "hub.pth"
    for change, message in (
        ({mask: stored[mask] * torch.nan}, "the mask of the biases is not"),
        ({mask: torch.ones_like(stored[mask])}, "the mask of the biases is not"),
        ({"rope_embed.periods": stored["rope_embed.periods"] * 2}, "periods are not this model's"),
        ({"rope_embed.periods": torch.ones(16)}, "periods are not this model's"),
    ):
        torch.save(stored | change, path)
        with pytest.raises(ModelError, match=message):
            build("mlp").load(path)
    torch.save(stored | {"rope_embed.periods": stored["rope_embed.periods"].bfloat16()}, path)
    build("mlp").load(path)
    torch.save({key: tensor for key, tensor in stored.items() if ".qkv.bias" not in key}, path)
    with pytest.raises(ModelError, match=r"4 missing: model\.layer\.0\.attention\.v_proj\.bias \(64,\)"):
        build("mlp").load(path)


def _as_timm(stored, *, biases):
    """The hub's tensors under timm's names."""
    names = {"storage_tokens": "reg_token", "ls1.gamma": "gamma_1", "ls2.gamma": "gamma_2"}
    found = {}
    for key, tensor in stored.items():
        if key.endswith("qkv.bias") and biases:
            found[key.replace("qkv.bias", "q_bias")], found[key.replace("qkv.bias", "v_bias")] = tensor.chunk(3)[::2]
        elif not key.startswith(("mask_token", "rope_embed", "local_cls_norm")) and "qkv.bias" not in key:
            for old, new in names.items():
                key = key.replace(old, new)
            found[key] = tensor
    return found


@pytest.mark.parametrize("biases", [True, False])
def test_timm_files_mean_the_same(shared, tmp_path, biases):
    stored = torch.load(shared / "checkpoints" / "golden_dinov3_mlp_hub.pt", weights_only=True)
    hub, timm = stored["state_dict"], tmp_path / "timm.pth"
    torch.save(_as_timm(hub, biases=biases), timm)
    if not biases:
        hub = hub | {key: tensor * 0 for key, tensor in hub.items() if key.endswith("qkv.bias")}
    torch.save(hub, tmp_path / "hub.pth")
    one, other = build("mlp"), build("mlp")
    report = one.load(timm)
    assert report.count("zero") == (0 if biases else 4)
    assert report.count("zero") + report.count("loaded") == len(one.model.state_dict())
    other.load(tmp_path / "hub.pth")
    same = zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)


@pytest.mark.parametrize("file", ["vitl16_sat_hub", "vitl16_sat_hf", "vitl16_sat_timm", "vitl16_sat_timm_qkvb", "vit7b16_sat_hub", "vit7b16_sat_hf"])  # fmt: skip
def test_every_key_and_shape_of_the_full_size_files_is_taken(shared, file):
    raw = json.loads((shared / "checkpoints" / f"manifest_dinov3_{file}.json").read_text())
    with torch.device("meta"):
        backbone = find("backbone", f"dinov3_sat_{file.split('_')[0]}")(spec("red", "green", "blue"))
        published = {key: torch.empty(shape) for key, shape in raw["keys"].items()}
    report = weights.fill(backbone.model, published, dinov3.layout(backbone.model), path=file)
    assert report.count("loaded") == len(backbone.model.state_dict())
