"""Reads mutated files of every kind, and says what came of them.

usage: OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.fuzz [--num 1000] [--kinds csv,yaml] [--seed 0] [--out FILE.md]
       ... --keep FOLDER   also keeps the folders of findings, to read them by hand
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from benchmarks.fuzz.files import cases, kinds
from benchmarks.fuzz.run import Tally, fuzz, mutation, place


def table(tallies: list[Tally]) -> str:
    """Counts of all kinds as Markdown."""
    lines = [
        "| files | mutations | read | refused | bug | memory | slow | died | s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in tallies:
        counts = [one.counts[key] for key in ("read", "refused", "bug", "memory", "slow", "died")]
        lines.append(f"| {one.kind} | {' | '.join(f'{n:,}' for n in (sum(counts), *counts))} | {one.seconds:.0f} |")
    return "\n".join(lines)


def findings(tally: Tally, shown: int = 200) -> str:
    """Findings of one kind, alike ones together."""
    alike = defaultdict(list)
    for one in tally.findings:
        alike[one.what, one.where].append(one)
    lines = []
    for (what, where), every in sorted(alike.items(), key=lambda pair: -len(pair[1]))[:shown]:
        last = every[0].text.strip().splitlines()[-1][:200] if every[0].text else ""
        lines.append(f"{len(every):5} {what:6} {where}  [{every[0].number}]  {last}")
    return "\n".join(lines)


def keep(tallies: list[Tally], folder: Path, seed: int) -> None:
    """The folder of one file of each sort of finding, and what it led to."""
    with tempfile.TemporaryDirectory() as valid:
        for tally in tallies:
            known = cases(tally.kind, Path(valid)) if tally.findings else []
            seen = set()
            for one in tally.findings:
                if one.where not in seen:
                    seen.add(one.where)
                    to = folder / f"{tally.kind}_{one.number}"
                    place(*mutation(known, Path(valid), seed, one.number), Path(valid), to)
                    (to / "FINDING.txt").write_text(f"{one.what} {one.where}\n{one.text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(kinds()))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args()
    if unknown := set(args.kinds.split(",")) - set(kinds()):
        parser.error(f"--kinds {','.join(sorted(unknown))}: there are {', '.join(kinds())}")

    def say(tally: Tally) -> None:
        print(table([tally]).splitlines()[-1], dict(tally.refusals), findings(tally), sep="\n", flush=True)

    tallies = fuzz(args.kinds.split(","), args.num, seed=args.seed, first=args.first, say=say)
    if args.out:
        args.out.write_text(table(tallies) + "\n")
    if args.keep:
        keep(tallies, args.keep, args.seed)
    sys.exit(any(tally.findings for tally in tallies))


if __name__ == "__main__":
    main()
