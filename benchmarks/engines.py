"""Who works blocks off: one and two workers of each engine on the same scene, and a prediction killed again and again.

    scale    wall time of predict with 1 and 2 workers: threads, processes, ray; the maps must be the same bytes
    kill     the same call killed with SIGKILL at random moments until it is done; no finished block may be lost

usage: .venv/bin/python benchmarks/engines.py [--side 4096] [--rounds 2] [--engines threads processes ray] [--kills 20]
"""

from __future__ import annotations

import argparse
import hashlib
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from predict import write_model, write_scene

CODE = (
    "import sys, time\n"
    "from covermap.core.train_config import PredictConfig\n"
    "from covermap.verbs.predict import predict\n"
    "start = time.perf_counter()\n"
    "predict(*sys.argv[1:4], settings=PredictConfig(engine=sys.argv[4], workers=int(sys.argv[5]), block_px=512))\n"
    "print(time.perf_counter() - start)\n"
)


def command(root: Path, out: str, engine: str, workers: int) -> list[str]:
    """A prediction in a process of its own, which prints its seconds."""
    return [sys.executable, "-c", CODE, str(root / "model"), str(root / "scene.tif"), str(root / out / "map.tif"),
            engine, str(workers)]  # fmt: skip


def sums(folder: Path) -> str:
    """Of all files of a map."""
    whole = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        whole.update(path.name.encode() + path.read_bytes())
    return whole.hexdigest()[:12]


def scale(root: Path, engines: list[str], rounds: int) -> None:
    """Rounds of all engines in turn, so that a drifting machine hits them alike."""
    found: dict[tuple[str, int], list[float]] = {}
    seen = set()
    for number in range(rounds):
        for engine in engines:
            for workers in (1, 2):
                out = f"{engine}_{workers}_{number}"
                done = subprocess.run(command(root, out, engine, workers), capture_output=True, text=True, check=True)
                found.setdefault((engine, workers), []).append(float(done.stdout.split()[-1]))
                seen.add(sums(root / out))
    print("| engine | 1 worker, s | 2 workers, s | 1 over 2, median |\n|---|---|---|---|")
    for engine in engines:
        one, two = found[engine, 1], found[engine, 2]
        ratio = statistics.median(a / b for a, b in zip(one, two, strict=True))
        shown = [", ".join(f"{s:.1f}" for s in each) for each in (one, two)]
        print(f"| {engine} | {shown[0]} | {shown[1]} | {ratio:.2f} |")
    print(f"\n{len(seen)} different outputs")


def kill(root: Path, kills: int) -> None:
    """Kill a prediction at random moments; the blocks that were there must stay, and the end must be the same bytes."""
    start = time.perf_counter()
    subprocess.run(command(root, "whole", "threads", 2), capture_output=True, check=True)
    whole_s = time.perf_counter() - start
    draw, done, lost, killed = random.Random(0), False, 0, 0
    work = root / "killed" / "map.tif.work"
    while not done:
        before = {path.name for path in work.glob("[0-9]*.npz")}
        process = subprocess.Popen(command(root, "killed", "threads", 2), stdout=subprocess.DEVNULL)
        try:
            process.wait(draw.uniform(0.15, 0.3) * whole_s if killed < kills else None)
            done = process.returncode == 0
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
        if work.exists():
            lost += len(before - {path.name for path in work.glob("[0-9]*.npz")})
    same = sums(root / "killed") == sums(root / "whole")
    print(f"killed {killed} times: {lost} finished blocks lost, the same bytes at the end: {same}")


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--engines", nargs="*", default=["threads", "processes", "ray"])
    parser.add_argument("--kills", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_scene(root / "scene.tif", given.side)
        write_model(root / "model")
        if given.engines:
            scale(root, given.engines, given.rounds)
        if given.kills:
            kill(root, given.kills)


if __name__ == "__main__":
    main()
