"""Writes the constraints that hold every dependency at the lowest version that pyproject.toml allows.

    python packaging/lowest.py > lowest.txt       or: make test-lowest, which also installs them and runs tests

torch stays at the version of constraints.txt: there are CPU builds of few. Tools of the extra `dev` are no part of what
users install, so they stay as pip finds them; so does what dependencies depend on.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def lowest() -> list[str]:
    """NAME==VERSION of each dependency and extra; raises ValueError for one without a lower bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(each for name, listed in extras.items() if name != "dev" for each in listed)]
    found = []
    for each in wanted:
        match = re.fullmatch(r"([\w.-]+)>=([\d.]+)", each)
        if match is None:
            raise ValueError(f"pyproject.toml: {each} has no lower bound of the form NAME>=VERSION")
        if match[1] != "torch":
            found.append(f"{match[1]}=={match[2]}")
    return found


def torch() -> str:
    """The line of torch in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith("torch=="))


if __name__ == "__main__":
    print("\n".join([torch(), *lowest()]))  # noqa: T201 - what it is for
