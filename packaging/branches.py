"""Says how many branches of each part tests take, and exits with 1 below 90 % in the five that areas rest on.

usage: python packaging/branches.py coverage.json
"""

import json
import sys
from pathlib import Path

PARTS = ("geo", "data", "metrics", "change", "assess")
ASKED = 0.9


def part_of(path: str) -> str:
    """Package of a file; what belongs to the verbs `change` and `assess` is a part of its own."""
    place = Path(path).parts[1:]
    for verb in ("change", "assess"):
        if place[-1].startswith(verb):
            return verb
    return place[0].removesuffix(".py")


def main() -> None:
    """Print a line for each part."""
    found: dict[str, list[int]] = {}
    for path, told in json.loads(Path(sys.argv[1]).read_text())["files"].items():
        of = found.setdefault(part_of(path), [0, 0])
        of[0] += told["summary"]["covered_branches"]
        of[1] += told["summary"]["num_branches"]
    for part, (taken, every) in sorted(found.items()):
        sys.stdout.write(f"{part:12} {taken:6,} of {every:6,} branches  {taken / max(every, 1):6.1%}\n")
    sys.exit(any(found[part][0] < ASKED * found[part][1] for part in PARTS))


if __name__ == "__main__":
    main()
