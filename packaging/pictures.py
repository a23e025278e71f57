"""Draws the pictures of README.md from what `covermap demo` wrote: the map, the change and the report.

    covermap demo demo && python packaging/pictures.py demo       or: make pictures

The report is what Chromium shows of it (make browser). Pictures have few colours, so that each stays below 300 kB.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

import covermap

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "pictures"
REPORT_PX = (1120, 1000)


def draw(demo: Path) -> list[Path]:
    """Write map.png, change.png and report.png; raises SystemExit without Chromium."""
    run = demo / "demo"
    FOLDER.mkdir(parents=True, exist_ok=True)
    pairs = {
        "map.png": {demo / "image_date1.tif": "image", run / "map.tif": "map"},
        "change.png": {run / "map_date2.tif": "map, four years later", run / "change.tif": "what changed"},
    }
    for name, rasters in pairs.items():
        _save(_side_by_side(rasters), FOLDER / name)
    _save(_screenshot(run / "report.html"), FOLDER / "report.png")
    return [FOLDER / name for name in (*pairs, "report.png")]


def _side_by_side(rasters: dict[Path, str]) -> Image.Image:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 4.8), dpi=90, layout="constrained")
    for ax, (path, title) in zip(axes, rasters.items(), strict=True):
        covermap.open_raster(path).plot(ax, title=title)
    file = io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight")
    return Image.open(file)


def _screenshot(page: Path) -> Image.Image:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("the picture of the report needs Chromium: make browser")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.png"
        size = ",".join(map(str, REPORT_PX))
        subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={size}",
             "--virtual-time-budget=5000", f"--screenshot={file}", page.resolve().as_uri()],
            check=True, capture_output=True, timeout=300,
        )  # fmt: skip
        with Image.open(file) as picture:
            return picture.copy()


def _save(picture: Image.Image, path: Path) -> None:
    picture.convert("RGB").quantize(192, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    for written in draw(Path(sys.argv[1])):
        print(f"{written}  {written.stat().st_size / 1e3:.0f} kB")  # noqa: T201 - what it did
