"""`covermap prepare` beside gdalwarp: the same target grid, resampling, data type, compression; pixels and time.

usage: .venv/bin/python benchmarks/peers/beside_gdalwarp.py WORK [--side 4096] [--rounds 5]
    WORK   folder for data and results, kept; gdalwarp and gdalinfo (Debian: gdal-bin) are on the path
"""

from __future__ import annotations

import argparse
import os
import subprocess
from pathlib import Path

import data
import numpy as np
import rasterio
from affine import Affine
from common import OURS, alternate, header, row, timed
from rasterio.crs import CRS
from rasterio.warp import calculate_default_transform

CASES = [
    (resampling, target)
    for resampling, targets in {
        "nearest": ("zone", "degrees"), "bilinear": ("zone", "half"), "average": ("zone", "coarse"),
    }.items() for target in targets
]  # fmt: skip
WORDS = {
    "zone": "the next UTM zone, 30 m", "degrees": "geographic degrees", "half": "the same CRS, 20 m, half a pixel off",
    "coarse": "the same CRS, 90 m",
}  # fmt: skip


def write_target(path: Path, image: Path, kind: str) -> None:
    """An empty raster whose grid is the target."""
    with rasterio.open(image) as file:
        crs, bounds, size = file.crs, file.bounds, (file.width, file.height)
    if kind in ("zone", "degrees"):
        crs = CRS.from_epsg(32632 if kind == "zone" else 4326)
        with rasterio.open(image) as file:
            transform, width, height = calculate_default_transform(
                file.crs, crs, *size, *bounds, resolution=30 if kind == "zone" else None
            )
    else:
        gsd, off = (20, 15) if kind == "half" else (90, 0)
        transform = Affine(gsd, 0, bounds.left + off, 0, -gsd, bounds.top - off)
        width, height = int(size[0] * 30 / gsd) - 2, int(size[1] * 30 / gsd) - 2
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "crs": crs, "transform": transform, "width": width,
               "height": height, "sparse_ok": True, "tiled": True}  # fmt: skip
    with rasterio.open(path, "w", **profile):
        pass


def warp_command(image: Path, like: Path, out: Path, resampling: str, threads: int, *more: str) -> list[str]:
    """gdalwarp onto the grid of `like`, written as covermap writes."""
    with rasterio.open(like) as file:
        bounds, crs, size = file.bounds, file.crs, (file.width, file.height)
    return [
        "gdalwarp", "-q", "-overwrite", "-t_srs", crs.to_string(), "-te", *(repr(v) for v in bounds),
        "-ts", *map(str, size), "-r", {"nearest": "near"}.get(resampling, resampling), "-dstnodata", "0",
        "-co", "TILED=YES", "-co", "BLOCKXSIZE=512", "-co", "BLOCKYSIZE=512", "-co", "COMPRESS=DEFLATE",
        "-co", "PREDICTOR=2", "-wm", "256", "-multi", "-wo", f"NUM_THREADS={threads}",
        "-co", f"NUM_THREADS={threads}", *more, str(image), str(out),
    ]  # fmt: skip


def difference(one: Path, two: Path) -> str:
    """Share of equal pixels, and how far the others are apart."""
    equal = near = both = only = largest = 0
    with rasterio.open(one) as a, rasterio.open(two) as b:
        for window in (w for _, w in a.block_windows(1)):
            x, y = a.read(window=window).astype(np.int32), b.read(window=window).astype(np.int32)
            valid = (x > 0).all(0), (y > 0).all(0)
            apart = np.abs(x - y)[:, valid[0] & valid[1]]
            equal, near, both = equal + int((apart == 0).sum()), near + int((apart <= 1).sum()), both + apart.size
            only, largest = only + int((valid[0] != valid[1]).sum()), max(largest, int(apart.max(initial=0)))
        pixels = a.width * a.height
    return (
        f"{equal / both:.4%} of the numbers equal, {near / both:.4%} within 1, largest difference {largest}; "
        f"valid in one only: {only / pixels:.4%} of the pixels"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    image = work / f"scene_{args.side}.tif"
    if not image.exists():
        data.scene(image, None, args.side)
    said = subprocess.run(["gdalwarp", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    print(
        f"{os.cpu_count()} cores; peer: {said}; ours: rasterio {rasterio.__version__}, GDAL {rasterio.__gdal_version__}"
    )
    notes = []
    header("gdalwarp")
    for resampling, kind in CASES:
        like = work / f"like_{kind}.tif"
        write_target(like, image, kind)
        mine, theirs, exact = (work / f"{name}.tif" for name in ("prepared", "warped", "exact"))
        ours = [Path(OURS).parent / "covermap", "prepare", image, mine, "--like", like, "--resampling", resampling,
                "--overwrite", "--quiet"]  # fmt: skip
        peer = warp_command(image, like, theirs, resampling, os.cpu_count() or 1)
        found = alternate({"a": lambda c=ours: timed(*c), "b": lambda c=peer: timed(*c)}, args.rounds)  # type: ignore[misc]
        for key, unit in (("seconds", "s"), ("cpu_s", "CPU s"), ("peak_mb", "MB")):
            row(f"{resampling}, {WORDS[kind]}: {unit}", *([f[key] for f in found[s]] for s in ("a", "b")), unit=unit)
        notes.append(f"- {resampling}, {WORDS[kind]}: {difference(mine, theirs)}")
        if kind in ("zone", "degrees"):
            subprocess.run(warp_command(image, like, exact, resampling, 1, "-et", "0"), check=True)
            notes.append(f"  - against gdalwarp -et 0: ours {difference(mine, exact)}")
            notes.append(f"  - gdalwarp's own default against -et 0: {difference(theirs, exact)}")
    print("\n" + "\n".join(notes))


if __name__ == "__main__":
    main()
