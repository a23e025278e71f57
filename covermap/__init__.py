"""covermap: satellite rasters and a few labels in; land-cover maps, scores and areas out.

The public names below are loaded when they are first used, so that `import covermap` stays quick and without torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Batch": "covermap.core.types",
    "CovermapError": "covermap.core.errors",
    "Features": "covermap.core.types",
    "Grid": "covermap.geo.grid",
    "Legend": "covermap.core.legend",
    "Model": "covermap.nn.model",
    "Raster": "covermap.geo.raster",
    "Run": "covermap.core.run",
    "Sample": "covermap.core.types",
    "Scene": "covermap.data.scene",
    "Window": "covermap.geo.grid",
    "change": "covermap.verbs.change",
    "evaluate": "covermap.verbs.evaluate",
    "load_config": "covermap.core.config_file",
    "load_legend": "covermap.core.legend",
    "load_model": "covermap.verbs.models",
    "open_raster": "covermap.geo.raster",
    "open_scenes": "covermap.data.scene",
    "predict": "covermap.verbs.predict",
    "register": "covermap.core.registry",
    "train": "covermap.verbs.train",
}
__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'covermap' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
