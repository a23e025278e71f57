"""How fast the viewer answers: tiles of a class map and of imagery, and whether its memory stays flat.

    python benchmarks/view.py --out results.md

Makes two cloud-optimised GeoTIFFs of --side px (a map of 11 classes, an image of three bands in 16 bit), starts
`covermap view` as a process of its own, and asks it from another one by 8 clients that keep their connection and wait
for each answer: tiles at random over all zooms, and users who pan over neighbouring tiles. Memory is that of the server
after 1,000 and after 10,000 tiles. CPU time is that of the server, so it tells something on a busy machine too.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.transform import from_origin

CLIENTS = 8
BLOCK = 512
CLASSES = 11


def make(folder: Path, side: int) -> None:
    """map.tif and image.tif, whose codes and values have patches of all sizes, as landscapes have."""
    rng = np.random.default_rng(0)
    coarse = [rng.normal(size=(side // step + 2, side // step + 2)) for step in (8, 40, 200)]
    profile = {
        "driver": "GTiff", "width": side, "height": side, "crs": "EPSG:32631", "tiled": True, "blockxsize": BLOCK,
        "blockysize": BLOCK, "transform": from_origin(500_000, 5_000_000, 10, 10),
    }  # fmt: skip
    kinds = {"map": (1, "uint8", 0, "mode"), "image": (3, "uint16", 0, "average")}
    for name, (count, dtype, nodata, resampling) in kinds.items():
        if (folder / f"{name}.tif").exists():
            continue
        plain = folder / "plain" / f"{name}.tif"
        plain.parent.mkdir(exist_ok=True)
        with rasterio.open(plain, "w", count=count, dtype=dtype, nodata=nodata, **profile) as dataset:
            for row in range(0, side, BLOCK):
                rows = np.arange(row, min(side, row + BLOCK))
                sums = sum(
                    noise[np.ix_(rows // step, np.arange(side) // step)]
                    for noise, step in zip(coarse, (8, 40, 200), strict=True)
                )
                for band in range(1, count + 1):
                    if dtype == "uint8":
                        values = np.clip((sums + 4) * CLASSES / 8, 0, CLASSES - 1) + 1
                    else:
                        values = 1500 + 400 * sums + rng.normal(0, 60, sums.shape) + 100 * band
                    window = rasterio.windows.Window(0, row, side, len(rows))
                    dataset.write(values.clip(1, 10_000).astype(dtype), band, window=window)
                if dtype == "uint8":
                    continue
        options = {"COMPRESS": "DEFLATE", "BLOCKSIZE": BLOCK, "OVERVIEW_RESAMPLING": resampling, "NUM_THREADS": 2}
        options |= {"PREDICTOR": "YES"} if dtype == "uint16" else {}
        with rasterio.open(plain) as dataset:
            rasterio.shutil.copy(dataset, folder / f"{name}.tif", driver="COG", **options)
        plain.unlink()


def addresses(view: dict, layer: str, pattern: str, num: int, seed: int) -> list[str]:
    """Tiles of one client: at random over all zooms, or those of windows of 5 x 4 tiles that move by one tile."""
    rng, frame = np.random.default_rng(seed), view["frame"]
    about = next(one for one in view["layers"] if one["id"] == layer)
    query = {"v": about["version"]}
    if about["kind"] == "image":
        query |= {"bands": ",".join(about["bands"][:3]), "stretch": 2}
    ending = ("jpg" if about["kind"] == "image" else "png") + "?" + urlencode(query)
    found: list[str] = []
    while len(found) < num:
        z = int(rng.integers(0 if pattern == "random" else 2, frame["native"] + 1))
        across, down = (max(1, -(-frame[key] // (256 << (frame["native"] - z)))) for key in ("width", "height"))
        x, y = int(rng.integers(across)), int(rng.integers(down))
        if pattern == "random":
            found.append(f"/tiles/{layer}/{z}/{x}/{y}.{ending}")
            continue
        seen: set[tuple[int, int]] = set()
        for _ in range(12):  # what a browser has already it does not ask for again
            window = [(x + i, y + j) for j in range(4) for i in range(5) if x + i < across and y + j < down]
            found += [f"/tiles/{layer}/{z}/{i}/{j}.{ending}" for i, j in window if (i, j) not in seen]
            seen |= set(window)
            x, y = max(0, x + int(rng.integers(-1, 2))), max(0, y + int(rng.integers(-1, 2)))
    return found[:num]


def client(host: str, port: int, paths: list[str], times: list[float], start: threading.Barrier) -> None:
    connection = http.client.HTTPConnection(host, port, timeout=120)
    start.wait()
    for path in paths:
        begun = time.perf_counter()
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        times.append(time.perf_counter() - begun)
        assert answer.status in (200, 204), (answer.status, path)
    connection.close()


def clients(url: str, paths: list[list[str]], out: multiprocessing.connection.Connection) -> None:
    """All clients at once, in a process of their own."""
    place, start = urlsplit(url), threading.Barrier(len(paths))
    times: list[list[float]] = [[] for _ in paths]
    threads = [
        threading.Thread(target=client, args=(place.hostname, place.port, mine, mine_times, start))
        for mine, mine_times in zip(paths, times, strict=True)
    ]
    begun, cpu = time.perf_counter(), time.process_time()
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    out.send(([t for each in times for t in each], time.perf_counter() - begun, time.process_time() - cpu))


def ask(
    url: str, view: dict, layers: list[str], pattern: str, num: int, seed: int = 0
) -> tuple[np.ndarray, float, float]:
    """Times (N,) of answers in s, s in all, CPU s of the clients."""
    paths = [
        addresses(view, layers[number % len(layers)], pattern, num // CLIENTS, 1000 * seed + number)
        for number in range(CLIENTS)
    ]
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=clients, args=(url, paths, there))
    process.start()
    times, seconds, cpu = here.recv()
    process.join()
    return np.array(times), seconds, cpu


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder for the rasters, kept; default: a temporary one")
    parser.add_argument("--side", type=int, default=10_980)
    parser.add_argument("--tiles", type=int, default=2_000, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--flat", type=int, default=10_000, help="tiles over which memory is watched; 0: not")
    parser.add_argument("--out", help="also write the table there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.data or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        make(folder, args.side)
        command = [sys.executable, "-c", "from covermap.cli import main; main()", "view"]
        command += [str(folder / "map.tif"), str(folder / "image.tif"), "--port", "0", "--no-open", "--quiet"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout
            url = next(word for word in server.stdout.readline().split() if word.startswith("http"))
            lines = measured(url, server.pid, args)
        finally:
            server.terminate()
            server.wait(20)
    text = "\n".join(lines)
    print(text)
    if args.out:
        Path(args.out).write_text(text + "\n", encoding="utf-8")


def measured(url: str, pid: int, args: argparse.Namespace) -> list[str]:
    """The lines of the table."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    connection.request("GET", "/view.json")
    view = json.loads(connection.getresponse().read())
    cores = len(os.sched_getaffinity(0))
    lines = [
        f"{args.side:,} px, {CLIENTS} clients, {args.tiles:,} tiles, median of {args.repeats} repeats; {cores} cores, "
        f"{platform.machine()}, Python {platform.python_version()}, GDAL {rasterio.__gdal_version__}, load before "
        f"{os.getloadavg()[0]:.1f}",
        "",
        "| layer | tiles | median ms | 95th % ms | tiles/s | server CPU ms per tile | clients' CPU ms | load |",
        "|---|---|---|---|---|---|---|---|",
    ]
    ask(url, view, ["map", "image"], "random", 200, seed=99)  # opens the files
    for layer in ("map", "image"):
        for pattern in ("random", "panning"):
            rows = []
            for repeat in range(args.repeats):
                before = cpu_s(pid)
                times, seconds, cpu = ask(url, view, [layer], pattern, args.tiles, repeat)
                used = cpu_s(pid) - before
                per_tile = [1e3 * each / len(times) for each in (used, cpu)]
                rows.append(
                    [*np.percentile(times * 1e3, (50, 95)), len(times) / seconds, *per_tile, os.getloadavg()[0]]
                )
            median = np.median(rows, axis=0)
            lines.append(f"| {layer} | {pattern} | " + " | ".join(f"{value:.1f}" for value in median) + " |")
    if args.flat:
        sizes, done = {}, 0
        for until in (1_000, args.flat // 2, args.flat):
            ask(url, view, ["map", "image"], "random", until - done, seed=until)
            done, sizes[until] = until, rss_mb(pid)
        told = ", ".join(f"{size:.0f} MB after {num:,}" for num, size in sizes.items())
        lines += ["", f"Memory of the server (RSS) with both layers mixed: {told} more tiles."]
    return lines


if __name__ == "__main__":
    main()
