"""What interrupts, hinders and strains covermap: does each call end whole, or in words, and go on by the same command?

    kill     the process group is killed at a random moment, or just before its n-th change of a file; the same command
             again must end with the files of a call that was left alone, and leave nothing else
    alone    the first process of a call alone is killed: its others end too, and the same command ends as above
    disk     a file system too small for the output (tmpfs; where none may be mounted, a limit on file sizes): an error
             in words; with room, the same command ends as if nothing had been
    two      the same command twice at once on one output: both end right, or one is refused in words; all is whole
    locale   ASCII and decimal commas, other time zones, file times in the past and the future
    names    inputs and outputs called with spaces, accents, CJK, emoji, dashes, quotes, 200 letters; links
    leak     predict, embed, change, Raster again and again in one process: memory, open files and threads stay

usage: .venv/bin/python benchmarks/stress.py kill [--verbs train predict ...] [--times 20] [--seed 0] [--root FOLDER]
Calls are forked from a process that has imported torch; --cold starts each as `python -m covermap`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from strained import clock, leak, locale, names, read_only
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
        sys.exit(f"{case}: {done.told or done.code}")
    lines = events.read_text().splitlines() if events.exists() else []
    return contents(work), done, [(float(line.split()[0]) - start, line.split(" ", 1)[1]) for line in lines]


def kill_alone(root: Path, case: str, times: int, draw: random.Random, *, cold: bool) -> tuple[str, Found]:
    """The first process of a call is killed by the clock, and the same call begins at once, whatever is left of it."""
    wanted, whole, events = undisturbed(root, case, cold=cold)
    first, told, stayed, found = events[0][0] if events else 0.0, [0, 0], 0, Found()
    while sum(told) < times:
        work, moment = fresh(root), draw.uniform(first * 0.9, whole.seconds)
        killed = Call(arguments_of(case), work, cold=cold)
        if not killed.wait(moment, alone=True).killed:
            continue
        ended = Call(arguments_of(case), work, cold=cold).wait()
        stays = killed.left()
        stayed += stays
        wrong = ended.rude or (f"exit code {ended.code}: {ended.error}" if ended.code else "")
        wrong = "" if ended.code and is_finished_before(ended) else wrong
        left = differences(contents(work), wanted)
        bad = [wrong, *left[:4], "processes stay" if stays else ""]
        told[any(bad)] += 1
        if any(bad):
            found.append((case, f"killed after {moment:.2f} of {whole.seconds:.2f} s: {'; '.join(filter(None, bad))}"))
    return f"| {case} | {whole.seconds:.1f} | {times} | {told[0]} | {stayed} | {told[1]} |", found


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


def disk(root: Path, case: str, times: int, draw: random.Random, *, cold: bool) -> tuple[str, Found]:
    """File systems of up to six times of what is written (working files count); then the same command with room."""
    wanted, _, _ = undisturbed(root, case, cold=cold)
    need = sum(path.stat().st_size for path in (root / "work").rglob("*") if path.is_file())
    ended, found, told = {"whole": 0, "in words": 0}, Found(), set[str]()
    for number in range(times):
        size = max(8192, int(need * 6 * (number + draw.random()) / times))
        with full(fresh(root), size) as (largest, grow):
            work = root / "work"
            (work / "out").mkdir(exist_ok=True)
            first = Call(arguments_of(case), work, largest=largest, cold=cold).wait()
            ended["in words" if first.code else "whole"] += 1
            wrong = [first.rude or ("" if "MB" in first.error or not first.code else first.error)]
            if first.code:
                told.add(first.error.split(": ", 1)[-1][:60])
            whole = {k: v for k, v in contents(work).items() if k.endswith((".tif", ".parquet")) and "/." not in k}
            wrong += [each for each in differences(whole, wanted) if "differs" in each and ".work/" not in each]
            grow()
            second = Call(arguments_of(case), work, cold=cold).wait() if first.code else first
            wrong += [second.rude or second.error] if second.code else []
            wrong += differences(contents(work), wanted)[:4]
            if any(wrong):
                found.append((case, f"{size / 1e3:,.0f} of {need / 1e3:,.0f} kB: {'; '.join(filter(None, wrong))}"))
    for each in sorted(told):
        print(f"  {case} said: {each}", file=sys.stderr)
    return f"| {case} | {need / 1e3:,.0f} | {ended['whole']} | {ended['in words']} | {len(found)} |", found


@contextlib.contextmanager
def full(folder: Path, size: int) -> Iterator[tuple[int | None, Callable[[], object]]]:
    """A file system of some bytes on a folder, and what makes it large; or the largest file that may be written."""
    options = ["mount", "-t", "tmpfs", "-o", f"size={size // 4096 * 4096}", "tmpfs", str(folder)]
    if subprocess.run(options, capture_output=True).returncode:
        yield size // 4, lambda: None
        return
    try:
        yield None, lambda: subprocess.run(["mount", "-o", "remount,size=256m", str(folder)], check=True)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def two(root: Path, case: str, times: int, draw: random.Random, *, cold: bool) -> tuple[str, Found]:
    """The same command twice at once, the second a moment later."""
    wanted, whole, _ = undisturbed(root, case, cold=cold)
    ended, found = {"both": 0, "one": 0, "none": 0}, Found()
    for _ in range(times):
        work = fresh(root)
        first = Call(arguments_of(case), work, cold=cold)
        later = draw.choice((0.0, 0.01, 0.1, draw.uniform(0, whole.seconds)))
        time.sleep(later)
        calls = [each.wait() for each in (first, Call(arguments_of(case), work, cold=cold))]
        right = sum(not call.code for call in calls)
        ended[("none", "one", "both")[right]] += 1
        wrong = [call.rude for call in calls if call.rude] + ([] if right else ["none ended"])
        wrong += differences(contents(work), wanted)[:4]
        if wrong:
            said = " / ".join(call.error for call in calls if call.code)
            found.append((case, f"{later:.2f} s later: {'; '.join(wrong)} (said: {said})"))
    return f"| {case} | {times} | {ended['both']} | {ended['one']} | {ended['none']} | {len(found)} |", found


HEADS = {
    "kill": "| call | undisturbed, s | changes of files | kills by clock + by change | ended the same "
    "| of them refused as finished | wrong |\n|---|---|---|---|---|---|---|",
    "alone": "| call | undisturbed, s | kills | ended the same | processes stayed | wrong |\n|---|---|---|---|---|---|",
    "disk": "| call | writes, kB | ended | refused in words | wrong |\n|---|---|---|---|---|",
    "two": "| call | pairs | both ended | one was refused | none ended | wrong |\n|---|---|---|---|---|---|",
}
RUNS: dict[str, Callable[..., tuple[str, Found]]] = {"kill": kill, "alone": kill_alone, "disk": disk, "two": two}


def strain(what: str, root: Path, times: int, *, cold: bool) -> tuple[list[str], Found]:
    """The parts that are no matter of chance: their rows and findings."""
    if what == "locale":
        rows, found = locale(root)
        more, others = clock(root, partial(undisturbed, cold=cold))
        return [*rows, "", *more], found + others
    if what == "names":
        rows, found = names(root, cold=cold)
        more, others = read_only(root)
        return [*rows, "", *more], found + others
    return leak(root, times)


def main(words: Sequence[str] | None = None) -> int:
    """See the top of the file; the number of findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*RUNS, "locale", "names", "leak"])
    parser.add_argument("--verbs", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--times", type=int, help="kills, full disks, pairs (20), or calls in one process (300)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--root", help="folder for the work, which stays")
    parser.add_argument("--cold", action="store_true")
    given = parser.parse_args(words)
    if not given.cold:
        warm()
    with own_folder() as folder:
        root = Path(given.root or folder).resolve()
        root.mkdir(parents=True, exist_ok=True)
        make_root(root, given.seed, cold=given.cold)
        wrong: Found = []
        if given.what in RUNS:
            print(HEADS[given.what], flush=True)
        for case in given.verbs if given.what in RUNS else ():
            draw = random.Random(f"{given.seed} {case}")
            row, found = RUNS[given.what](root, case, given.times or 20, draw, cold=given.cold)
            print(row, flush=True)
            wrong += tell(found)
        if given.what not in RUNS:
            rows, found = strain(given.what, root, given.times or 300, cold=given.cold)
            print("\n".join(rows))
            wrong += tell(found)
    return len(wrong)


@contextlib.contextmanager
def own_folder() -> Iterator[str]:
    """As tempfile.TemporaryDirectory, whose removal at exit the forked calls would inherit."""
    folder = tempfile.mkdtemp(prefix="stress.")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def tell(found: Found) -> Found:
    """Print findings as they come."""
    for name, said in found:
        print(f"  {name}: {said}", file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    sys.exit(min(main(), 1))
