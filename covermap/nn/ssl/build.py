"""Methods of learning without labels by their configs."""

from __future__ import annotations

import importlib

from covermap.core.pretrain_config import (
    ClipConfig,
    DinoConfig,
    GlcnetConfig,
    MaeConfig,
    MethodConfig,
    SimclrConfig,
    ViewConfig,
)
from covermap.core.types import InputSpec
from covermap.nn.model import Backbone
from covermap.nn.ssl.clip import CLIP
from covermap.nn.ssl.contrast import GLCNet, SimCLR
from covermap.nn.ssl.dino import DINO
from covermap.nn.ssl.method import Method


def build_method(
    config: MethodConfig, views: ViewConfig, encoder: Backbone, spec: InputSpec, inputs: tuple[str, ...], size_px: int
) -> Method:
    """A method around an encoder of `inputs`; spec: of all sensors of the windows, which are of size_px.

    Raises ConfigError for settings that do not go together.
    """
    match config:
        case MaeConfig():
            method: Method = importlib.import_module("covermap.nn.ssl.mae").MaskedAutoencoder(encoder, spec, config)
            return method
        case DinoConfig():
            return DINO(config, views, encoder, spec, inputs, size_px)
        case GlcnetConfig():
            return GLCNet(config, views, encoder, spec, inputs, size_px)
        case SimclrConfig():
            return SimCLR(config, views, encoder, spec, inputs, size_px)
        case ClipConfig():
            return CLIP(config, views, encoder, spec, inputs, size_px)
