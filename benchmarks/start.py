"""Start-up and install: time and memory of --help and import, packages and size of the core.

usage: .venv/bin/python benchmarks/start.py [--install]   (--install makes a fresh environment, about two minutes)
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MEASURE = (
    "import resource, subprocess, sys, time\n"
    "start = time.perf_counter()\n"
    "subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)\n"
    "print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
)


def measure(*command: str, rounds: int = 7) -> tuple[float, float]:
    """Median seconds and largest memory in MB of a command."""
    found = []
    for _ in range(rounds):
        done = subprocess.run(
            [sys.executable, "-S", "-c", MEASURE, *command], capture_output=True, text=True, check=True
        )
        found.append([float(v) for v in done.stdout.split()])
    return statistics.median(f[0] for f in found), max(f[1] for f in found)


def install() -> dict[str, float]:
    """Install the core into a fresh environment with the CPU build of torch that constraints.txt names."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = f"{folder}/bin/pip"
        start = time.perf_counter()
        options = ["-q", "--no-compile", "-c", str(ROOT / "constraints.txt")]  # as the Makefile does
        subprocess.run([pip, "install", *options, str(ROOT)], check=True)
        seconds = time.perf_counter() - start
        listed = subprocess.run([pip, "list", "--format", "json"], capture_output=True, text=True, check=True).stdout
        names = {p["name"].lower() for p in json.loads(listed)} - {"pip", "setuptools"}
        size = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file()) / 1e9
        return {"install_s": round(seconds, 1), "packages": len(names), "size_gb": round(size, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", action="store_true")
    args = parser.parse_args()
    covermap = str(Path(sys.executable).parent / "covermap")
    found: dict[str, float] = {}
    for name, command in {
        "help": (covermap, "--help"),
        "typer_and_rich_alone": (sys.executable, "-c", "import typer, rich"),
        "import_covermap": (sys.executable, "-c", "import covermap"),
        "python_alone": (sys.executable, "-c", "pass"),
    }.items():
        seconds, memory = measure(*command)
        found |= {f"{name}_s": round(seconds, 3), f"{name}_mb": round(memory)}
    found["import_covermap_itself_s"] = round(found["import_covermap_s"] - found["python_alone_s"], 3)
    if args.install:
        found |= install()
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
