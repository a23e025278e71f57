"""What all comparisons with peers share: processes that take turns, their time and peak memory, tables, environments.

Both sides run on one thread unless a comparison says otherwise; a process that waits does not spin. On a machine with
other work the processor's seconds tell more than the wall's.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
OURS = sys.executable
THREADS = os.environ.get("OMP_NUM_THREADS", "1")
QUIET = {
    "OMP_NUM_THREADS": THREADS, "OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "PYTHONPATH": str(ROOT),
    "PYTHONWARNINGS": "ignore", "TQDM_DISABLE": "1",
}  # fmt: skip
# A small Python that starts a command: the peak memory of children counts from the size of what forked them.
TIMED = (
    "import resource, subprocess, sys, time\n"
    "start = time.perf_counter()\n"
    "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)\n"
    "seconds = time.perf_counter() - start\n"
    "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
    "if done.returncode: sys.exit(done.stderr[-3000:])\n"
    "print(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)"
)
STACK = ("torch", "torchgen", "functorch", "torchvision", "nvidia", "triton", "cuda")
"""What differs between builds of torch, and torchvision, which ours does without."""


def timed(*command: object) -> dict[str, float]:
    """Wall and processor seconds and peak MB of a command, start-up included."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", TIMED, *map(str, command)], capture_output=True, text=True,
        env=os.environ | QUIET, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{command}: {done.stderr[-3000:]}")
    return dict(zip(("seconds", "cpu_s", "peak_mb"), map(float, done.stdout.split()), strict=True))


def job(python: str, script: str, name: str, **values: object) -> dict[str, Any]:
    """What a job of a script found (its last line, JSON), in a process of its own."""
    done = subprocess.run(
        [python, str(HERE / script), name, json.dumps(values, default=str)], capture_output=True, text=True,
        env=os.environ | QUIET, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{script} {name}: {done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


class Server:
    """A process that holds what a job made ready, and times single calls when it is asked to."""

    def __init__(self, python: str, script: str, name: str, **values: object) -> None:
        self.process = subprocess.Popen(
            [python, str(HERE / script), name, json.dumps(values, default=str)], text=True, env=os.environ | QUIET,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.facts: dict[str, Any] = self._answer()

    def time(self, what: str) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        while line := self.process.stdout.readline():
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise SystemExit(self.process.stderr.read()[-4000:])

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def alternate(sides: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[Any]]:
    """Results of the sides, one after the other in each round; the first one changes from round to round."""
    found: dict[str, list[Any]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            found[name].append(sides[name]())
    return found


def spread(values: Sequence[float]) -> str:
    """Smallest to largest, after the median."""
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def row(what: str, mine: Sequence[float], theirs: Sequence[float], unit: str = "s") -> None:
    """One line of a table: what, ours, the peer's, peer / ours by neighbouring calls."""
    pairs = sorted(a / b for a, b in zip(theirs, mine, strict=True))
    line = f"| {what} | {spread(mine)} {unit} | {spread(theirs)} {unit} | **{statistics.median(pairs):.2f}**"
    print(f"{line} ({pairs[0]:.2f} to {pairs[-1]:.2f}) |", flush=True)


def header(peer: str) -> None:
    print(f"\n| | covermap | {peer} | {peer} / covermap |\n|---|---|---|---|", flush=True)


def environment(python: str) -> dict[str, Any]:
    """Packages of an environment, and their size on disk without and with torch's stack."""
    code = (
        "import importlib.metadata as m, json, sysconfig, pathlib\n"
        f"stack = {STACK}\n"
        "root = pathlib.Path(sysconfig.get_paths()['purelib'])\n"
        "rest = {'pip', 'setuptools', 'wheel', '_distutils_hack', 'pkg_resources'}\n"
        "sizes = {}\n"
        "for entry in root.iterdir():\n"
        "    name = entry.name.split('-')[0].split('.')[0]\n"
        "    if name.lower() in rest or name == '__pycache__': continue\n"
        "    files = [entry] if entry.is_file() else [f for f in entry.rglob('*') if f.is_file()]\n"
        "    size = sum(f.stat().st_size for f in files if f.suffix != '.pyc')\n"
        "    key = 'stack' if name.split('_')[0] in stack else 'other'\n"
        "    sizes[key] = sizes.get(key, 0) + size\n"
        "names = {d.metadata['Name'].lower().replace('_', '-'): d.version for d in m.distributions()}\n"
        "own = [n for n in names if n not in rest and n.replace('-', '_').split('_')[0] not in stack]\n"
        "print(json.dumps({'packages': len(own), 'all': len(names), 'mb': sizes.get('other', 0) / 1e6,\n"
        "                  'stack_mb': sizes.get('stack', 0) / 1e6, 'versions': names}))\n"
    )
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def about(python: str, *names: str) -> None:
    """One line on the machine and the versions of both sides."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    print(f"{os.cpu_count()} cores {cpu}, {THREADS} thread(s), Python {platform.python_version()}")
    for label, each in (("ours", OURS), ("peer", python)):
        versions = environment(each)["versions"]
        print(label + ": " + ", ".join(f"{name} {versions[name]}" for name in names if name in versions), flush=True)
