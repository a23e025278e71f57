"""Mutated files of every kind are read, or refused in a sentence: benchmarks/fuzz, with few of each."""

from __future__ import annotations

import pytest

from benchmarks.fuzz.files import kinds
from benchmarks.fuzz.run import fuzz

QUICK = ("csv", "json", "legend", "npy", "parquet", "pt", "vrt", "yaml")
KNOWN = {("netcdf", "died"), ("pt", "memory")}
"""What covermap cannot mend: benchmarks/results/fuzz_2-cores_2026-11-22.md."""


def require_nothing_found(tallies) -> None:
    for tally in tallies:
        found = [f"{one.what} {one.where} [{one.number}]\n{one.text}" for one in tally.findings
                 if (tally.kind, one.what) not in KNOWN]  # fmt: skip
        assert not found, f"{tally.kind}: {len(found)} findings\n{found[0]}"
        assert {"read", "refused"} <= set(tally.counts), tally


def test_some_mutations_of_quick_kinds():
    require_nothing_found(fuzz(QUICK, 150, seed=7))


@pytest.mark.slow
@pytest.mark.parametrize("kind", kinds())
def test_many_mutations_of_every_kind(kind):
    require_nothing_found(fuzz([kind], 1000, seed=8))
