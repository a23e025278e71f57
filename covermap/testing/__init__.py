"""Conformance of plug-ins, for ours and for anybody's: `check_backbone(MyBackbone)`, `covermap check-plugin`.

Each check is one function that raises AssertionError with what was expected; a class that passes all of them works in
every recipe.
"""

from covermap.testing.backbone import check_backbone, random_batch, suitable_spec
from covermap.testing.decoder import check_decoder
from covermap.testing.loss import check_loss
from covermap.testing.outcome import Outcome, require_conforming
from covermap.testing.source import check_source

__all__ = [
    "Outcome", "check_backbone", "check_decoder", "check_loss", "check_source", "random_batch", "require_conforming",
    "suitable_spec",
]  # fmt: skip
