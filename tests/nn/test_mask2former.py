"""Mask2Former: published keys give the same queries, its loss looks at labelled pixels alone, it trains in a run."""

import pytest
import torch
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

from covermap.core.config_file import parse_config
from covermap.core.errors import ModelError
from covermap.core.legend import IGNORE
from covermap.core.types import Features
from covermap.nn.build import make_part
from covermap.testing.decoder import random_features
from covermap.verbs.evaluate import evaluate
from covermap.verbs.train import train

SMALL = {"width": 32, "queries": 8, "layers": 2, "encoder_layers": 1}
CHANNELS, STRIDES = (8, 16, 32, 64), (4, 8, 16, 32)


def published(num_classes=3):
    """A miniature of a published model, with a Swin of 8 to 64 channels."""
    torch.manual_seed(0)
    swin = SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=4, image_size=64, drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=swin, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=128,
        dim_feedforward=256, num_queries=8, decoder_layers=3, encoder_layers=1, num_attention_heads=1,
        num_labels=num_classes,
    )  # fmt: skip
    return Mask2FormerForUniversalSegmentation(config).eval()


def make(num_classes=3, channels=CHANNELS, **options):
    torch.manual_seed(1)
    return make_part("decoder", "mask2former", {**SMALL, **options}, channels, STRIDES, num_classes).eval()


def test_published_keys_give_the_same_classes_and_masks(tmp_path):
    theirs = published()
    torch.save(theirs.state_dict(), tmp_path / "published.pt")
    decoder = make(weights=str(tmp_path / "published.pt"))
    image = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = theirs(image)
        maps = theirs.model.pixel_level_module.encoder(image).feature_maps
        classes, masks = decoder.queries(Features(tuple(maps), STRIDES))[-1]
    assert torch.allclose(classes, expected.class_queries_logits, atol=1e-5)
    assert torch.allclose(masks, expected.masks_queries_logits, atol=1e-5)


def test_another_backbone_and_legend_keep_their_own_ends(tmp_path):
    torch.save(published(num_classes=5).state_dict(), tmp_path / "published.pt")
    other = make(num_classes=3, channels=(8, 24, 32, 48), weights=str(tmp_path / "published.pt"))
    assert other(random_features((8, 24, 32, 48), STRIDES, 64), (64, 64)).shape == (2, 3, 64, 64)
    with pytest.raises(ModelError, match="of another shape"):
        make(queries=9, weights=str(tmp_path / "published.pt"))


def test_probabilities_are_shares_of_the_queries_votes():
    decoder, features = make(), random_features(CHANNELS, STRIDES, 64)
    with torch.inference_mode():
        shares = decoder(features, (64, 64)).exp()
        classes, masks = decoder.queries(features)[-1]
        votes = torch.einsum("bqk,bqhw->bkhw", classes.softmax(-1)[..., :-1], masks.sigmoid())
    assert torch.allclose(shares.sum(1), torch.ones(2, 64, 64), atol=1e-5)
    assert votes.shape[-1] == 16


def test_ignored_pixels_have_no_part_in_the_loss():
    decoder, features = make(), random_features(CHANNELS, STRIDES, 64)
    label = torch.full((2, 64, 64), IGNORE)
    assert [x.detach().item() for x in decoder.own_loss(features, label)] == [0, 0]
    label[0, :, :32] = 1
    torch.manual_seed(0)
    total, count = decoder.own_loss(features, label)
    assert float(count) == 1
    for x in features.maps:
        x[1] = 99 * torch.randn_like(x[1])
    torch.manual_seed(0)
    assert torch.allclose(decoder.own_loss(features, label)[0], total, rtol=1e-4)


def test_it_trains_in_a_run(tiny, tmp_path):
    config = parse_config(
        {
            **tiny, "name": "mask", "output": str(tmp_path), "baseline": False,
            "model": {
                "backbone": "unet", "backbone_options": {"widths": [8, 16, 24]}, "decoder": "mask2former",
                "decoder_options": {**SMALL, "points": 256},
            },
            "train": {"epochs": 1, "steps_per_epoch": 4, "batch_size": 2, "size_px": 32, "accumulate": 2},
        }
    )  # fmt: skip
    run = train(config)
    assert "mask2former has its own loss: train.loss and class_weights have no effect" in run.read_json("notes.json")
    scores = evaluate(run)["models"]["network"]["scores"]
    assert 0 <= scores["oa"] <= 1
