"""`doctor`: what this installation can do, and what would go wrong."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path

from covermap.core.engine import cores
from covermap.core.errors import EXTRAS
from covermap.core.run import versions


def doctor() -> list[dict[str, str]]:
    """Rows {state: ok | note | bad, what, text} about versions, machine, GDAL and PROJ, extras and disk."""
    return [_python(), *_packages(), _machine(), _accelerator(), *_environment(), *_extras(), _disk()]


def _row(state: str, what: str, text: str) -> dict[str, str]:
    return {"state": state, "what": what, "text": text}


def _python() -> dict[str, str]:
    fits = sys.version_info >= (3, 11)
    return _row(
        "ok" if fits else "bad", "Python", platform.python_version() + ("" if fits else "; 3.11 or newer is needed")
    )


def _packages() -> list[dict[str, str]]:
    import rasterio

    known = versions()
    listed = ", ".join(
        f"{n} {known[n]}" for n in ("covermap", "torch", "numpy", "accelerate", "transformers") if n in known
    )
    return [
        _row("ok", "packages", listed),
        _row("ok", "GDAL", f"{rasterio.__gdal_version__} (rasterio {rasterio.__version__})"),
    ]


def _machine() -> dict[str, str]:
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        text = f"{cores()} cores, {memory:.0f} GiB memory"
    except (ValueError, OSError):
        text = f"{cores()} cores"
    return _row("ok", "machine", text + f", {platform.system()} {platform.machine()}")


def _accelerator() -> dict[str, str]:
    import torch

    if torch.cuda.is_available():
        return _row("ok", "GPU", torch.cuda.get_device_name(0))
    return _row("ok", "GPU", "none: everything runs on the processor, the demo takes about a minute")


def _environment() -> list[dict[str, str]]:
    """Variables of another GDAL or PROJ installation that lead the bundled ones astray."""
    rows = []
    for name in ("GDAL_DATA", "PROJ_LIB", "PROJ_DATA", "GDAL_DRIVER_PATH"):
        value = os.environ.get(name)
        if value:
            rows.append(_row("note", name, f"is set to {value}; if CRS errors appear, unset it: unset {name}"))
    try:
        from pyproj import CRS
        from rasterio.warp import transform

        assert CRS.from_epsg(32631).is_projected
        x, _ = transform("EPSG:4326", "EPSG:32631", [3.0], [45.0])
        state = "ok" if abs(x[0] - 500_000) < 1 else "bad"
        rows.append(
            _row(state, "projections", "work" if state == "ok" else "give wrong coordinates: unset PROJ_LIB, PROJ_DATA")
        )
    except Exception as error:
        rows.append(_row("bad", "projections", f"do not work ({error}): unset PROJ_LIB and PROJ_DATA"))
    return rows


def _extras() -> list[dict[str, str]]:
    rows = []
    for extra, (modules, purpose) in EXTRAS.items():
        there = all(importlib.util.find_spec(module) is not None for module in modules)
        text = "installed" if there else f"not installed (pip install 'covermap[{extra}]')"
        rows.append(_row("ok" if there else "note", f"extra {extra}", f"{purpose}: {text}"))
    return rows


def _disk() -> dict[str, str]:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return _row("ok" if free > 2 else "note", "disk", f"{free:.0f} GiB free here")
