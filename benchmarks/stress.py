"""What interrupts, hinders and strains covermap: does each call end whole, or in words, and go on by the same command?

    kill     the process group is killed at a random moment, or just before its n-th change of a file; the same command
             again must end with the files of a call that was left alone, and leave nothing else
    disk     a file system too small for the output (tmpfs, or where none may be mounted a limit on file sizes): an error in
             words; with room, the same command ends as if nothing had been
    two      the same command twice at once on one output: both end right, or one is refused in words; the output is whole
    locale   ASCII and decimal commas, other time zones, file times in the past and the future
    names    inputs and outputs called with spaces, accents, CJK, emoji, dashes, quotes, 200 letters; links, read-only inputs
    leak     predict, embed, change, Raster again and again in one process: memory, open files and threads stay

usage: .venv/bin/python benchmarks/stress.py kill [--verbs train predict ...] [--times 20] [--seed 0] [--root FOLDER]
Calls are forked from a process that has imported torch; --cold starts each as `python -m covermap`.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stressed import CASES, Call, Ended, arguments_of, contents, differences, fresh, write_data

Found = list[tuple[str, str]]
"""(case, what is wrong)."""


def warm() -> None:
    """Import what all verbs need, once; threads must not be started before forks."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import accelerate  # noqa: F401
    import pandas  # noqa: F401
    import rasterio  # noqa: F401
    import safetensors.torch  # noqa: F401
    import sklearn.ensemble  # noqa: F401
    import torch

    import covermap.cli
    import covermap.report.page
    import covermap.verbs.change
    import covermap.verbs.embed
    import covermap.verbs.predict
    import covermap.verbs.prepare
    import covermap.verbs.pretrain
    import covermap.verbs.run
    import covermap.verbs.study  # noqa: F401

    torch.set_num_threads(1)


def make_root(root: Path, seed: int, *, cold: bool = False) -> None:
    """Generated data and a model trained on them, if they are not there."""
    data = root / "data"
    if (data / "runs/small/metrics.json").is_file():
        return
    shutil.rmtree(data, ignore_errors=True)
    write_data(data, seed)
    (data / "legend.yaml").write_text("1: field\n2: water\n3: town\n", encoding="utf-8")
    (root / "work").mkdir(exist_ok=True)
    done = Call(["run", "../data/covermap.yaml"], root / "work", cold=cold).wait()
    if done.code:
        sys.exit(done.told)


def undisturbed(root: Path, case: str, *, cold: bool = False) -> tuple[dict[str, Any], Ended, list[tuple[float, str]]]:
    """What a case makes when nothing happens, how it ended, and when it changed which file (seconds, what)."""
    work, events, start = fresh(root), root / "events.txt", time.time()
    done = Call(arguments_of(case), work, events=events, cold=cold).wait()
    if done.code:
        sys.exit(f"{case}: {done.told}")
    lines = events.read_text().splitlines() if events.exists() else []
    return contents(work), done, [(float(line.split()[0]) - start, line.split(" ", 1)[1]) for line in lines]


def kill(root: Path, case: str, times: int, draw: random.Random, *, cold: bool) -> tuple[str, Found]:
    """Kills at random: half of them by the clock, half by the number of the change of a file."""
    wanted, whole, events = undisturbed(root, case, cold=cold)
    first, last = (events[0][0], whole.seconds) if events else (0.0, whole.seconds)
    killed = {"clock": 0, "change": 0}
    told, again, found = [0, 0], 0, Found()
    while sum(killed.values()) < times:
        work, said, hits = fresh(root), [], 0
        for _ in range(draw.choice((1, 1, 2, 3))):
            by_clock = killed["clock"] <= killed["change"]
            if by_clock or not events:
                moment = draw.uniform(first * 0.9, last)
                ended = Call(arguments_of(case), work, cold=cold).wait(moment)
                said.append(f"after {moment:.2f} of {last:.2f} s")
            else:
                number = draw.randint(1, len(events))
                more = {"events": root / "events.txt", "kill_at": number}
                ended = Call(arguments_of(case), work, cold=cold, **more).wait()  # type: ignore[arg-type]
                said.append(f"before change {number} of {len(events)} ({events[number - 1][1]})")
            if not ended.killed:
                break
            killed["clock" if by_clock else "change"] += 1
            hits += 1
        if not hits:
            continue
        ended = ended if not ended.killed else Call(arguments_of(case), work, cold=cold).wait()
        wrong = ended.rude or (f"exit code {ended.code}: {ended.error}" if ended.code else "")
        if ended.code and is_finished_before(ended):
            wrong, again = "", again + 1
        left = differences(contents(work), wanted)
        told[bool(wrong or left)] += 1
        if wrong or left:
            found.append((case, f"killed {', then '.join(said)}: {'; '.join([wrong, *left[:4]]).strip('; ')}"))
    row = f"| {case} | {whole.seconds:.1f} | {len(events)} | {killed['clock']} + {killed['change']} | {told[0]} |"
    return f"{row} {again} | {told[1]} |", found


def is_finished_before(ended: Ended) -> bool:
    """Whether a call was refused for its output was there: the one before was killed when all was done."""
    return "exists already" in ended.error or "is finished already" in ended.error


HEADS = {
    "kill": "| call | undisturbed, s | changes of files | kills by clock + by change | ended the same | of them refused "
    "as finished | wrong |\n|---|---|---|---|---|---|---|",
}
RUNS: dict[str, Callable[..., tuple[str, Found]]] = {"kill": kill}


def main(words: Sequence[str] | None = None) -> int:
    """See the top of the file; the number of findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(RUNS))
    parser.add_argument("--verbs", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--root", help="folder for the work, which stays")
    parser.add_argument("--cold", action="store_true")
    given = parser.parse_args(words)
    if not given.cold:
        warm()
    with tempfile.TemporaryDirectory(prefix="stress.") as folder:
        root = Path(given.root or folder).resolve()
        root.mkdir(parents=True, exist_ok=True)
        make_root(root, given.seed, cold=given.cold)
        print(HEADS[given.what], flush=True)
        wrong: Found = []
        for case in given.verbs:
            draw = random.Random(f"{given.seed} {case}")
            row, found = RUNS[given.what](root, case, given.times, draw, cold=given.cold)
            print(row, flush=True)
            for name, said in found:
                print(f"  {name}: {said}", file=sys.stderr, flush=True)
            wrong += found
    return len(wrong)


if __name__ == "__main__":
    sys.exit(min(main(), 1))
