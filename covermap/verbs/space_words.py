"""What `space` says of regions, distances and errors, in sentences; and what speaks against believing them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from covermap.data.chip_regions import ChipRegions
from covermap.metrics.group_distances import DISTANCES, GroupDistances
from covermap.metrics.mantel import LEAST, Rising
from covermap.metrics.positional import positional_sentence
from covermap.report.space_page import NAMED, Words
from covermap.verbs.space_transfer import Transfer

_FEW_REGIONS, _UNEVEN = 6, 5
"""Regions below which, and ratio of chips learnt from above which, a doubt is told."""
_APART, _MIXED = 1.5, 1.1
"""Neighbours of the own region, over chance, that say so."""


def words_of(
    regions: ChipRegions, far: GroupDistances, probed: Transfer | None, rising: Mapping[str, Rising],
    positional: Mapping[str, Any],
) -> Words:  # fmt: skip
    """What was found, in sentences."""
    distances = _distances(regions, far)
    carried, cost = ("", "") if probed is None else (_transfer(probed), _cost(rising, len(regions.names)))
    place = tuple(
        f"{Path(path).name}: "
        + (positional_sentence(facts) or f"what position tells is not known ({facts.get('why', '')})") + "."
        for path, facts in positional.items()
    )  # fmt: skip
    known = any(np.isfinite(one.correlation) for one in rising.values())
    lead = (cost if known else distances).split(". ")[0].rstrip(".") + "."
    return Words(lead, distances, carried, cost, place)


def _distances(regions: ChipRegions, far: GroupDistances) -> str:
    knn, matrix, names = far.matrices["knn"], far.matrices["frechet"], regions.names
    mean = float(np.nanmean(knn))
    how = "lie clearly apart" if mean > _APART else "are mixed" if mean < _MIXED else "overlap"
    upper = np.triu(np.ones_like(matrix, dtype=bool), 1)
    told = (
        f"The {len(names)} regions (by {regions.by}) {how}: among the 10 nearest chips, {mean:.2f} times as many as by "
        "chance are of a chip's own region (1: mixed, about 2: apart; mean over pairs of regions)"
    )
    if len(names) < 3:
        return told + "."
    near, away = (np.unravel_index(int(pick(np.where(upper, matrix, np.nan))), matrix.shape)
                  for pick in (np.nanargmin, np.nanargmax))  # fmt: skip
    return (
        f"{told}. Nearest are {names[near[0]]} and {names[near[1]]} (Fréchet distance {matrix[near]:.2f}), "
        f"farthest {names[away[0]]} and {names[away[1]]} ({matrix[away]:.2f})."
    )


def _transfer(probed: Transfer) -> str:
    local, apart = np.diag(probed.error), ~np.eye(len(probed.error), dtype=bool)
    kind = "classes" if probed.unit.startswith("share") else "targets"
    targets = f"{len(probed.targets)} {kind}" if len(probed.targets) > 1 else probed.targets[0]
    here, there = (
        f"{np.nanmean(values):.3f}" if np.isfinite(values).any() else "not known"
        for values in (local, probed.error[apart])
    )
    return (
        f"A ridge probe of {targets} has an error ({probed.unit}) of {here} in held-out ground of its own region, of "
        f"{there} in other regions (means)."
    )


def _cost(rising: Mapping[str, Rising], count: int) -> str:
    main = rising["frechet"]  # the one that is told first is chosen before the numbers are seen
    if not np.isfinite(main.correlation):
        return "Whether distance costs is not known: too few pairs of regions have an extra error."
    number = f"rank correlation {main.correlation:.2f} of the Fréchet distance with the extra error"
    others = ", ".join(f"{NAMED[name]} {rising[name].correlation:.2f}" for name in DISTANCES if name != "frechet")
    tail = f" The others: {others}."
    if count < LEAST:
        return f"With {count} regions there are numbers, but no test: {number}.{tail}"
    p = f"p = {main.p:.3f} by relabelling regions" if main.p >= 0.001 else "p < 0.001 by relabelling regions"
    if main.p <= 0.05:
        return f"The farther apart two regions are, the larger the extra error: {number} ({p}).{tail}"
    return f"That distance costs cannot be told from chance: {number} ({p}).{tail}"


def methods(far: GroupDistances) -> str:
    """How distances were made, in words with sources."""
    low, high = float(far.shrunk.min()), float(far.shrunk.max())
    return (
        "Features are in pooled standard deviations within regions. Centroid: Euclidean distance of means. Fréchet: of "
        f"Gaussians (Dowson and Landau 1982; its square is the FID of Heusel et al. 2017) on {far.components} "
        f"principal components, covariances shrunk as by Ledoit and Wolf (2004; {low:.0%} to {high:.0%}). MMD²: "
        f"unbiased, RBF kernel as wide as the median distance, {far.bandwidth:.2f} (Gretton et al. 2012). Own among 10 "
        "nearest: over what chance gives, of as many chips from both regions. The last two take at most "
        f"{far.each:,} chips of a region ({len(far.sample):,} in all). Centroid and Fréchet distances are above 0 even "
        "of regions alike, the more so the fewer their chips; MMD² is 0 then in the mean, and the last is 1."
    )


def doubts_of(regions: ChipRegions, probed: Transfer | None) -> list[str]:
    """What speaks against believing it."""
    found = []
    scenes = [set(np.array(regions.chips.scene, object)[regions.region == i]) for i in range(len(regions.names))]
    if sum(len(each) for each in scenes) > len(set().union(*scenes)):
        found.append(
            "Regions share scenes: chips of one may lie beside chips of another, or on the same ground, so that "
            "distances and transfer errors may be too small."
        )
    if probed is None:
        return found
    if LEAST <= len(regions.names) < _FEW_REGIONS:
        found.append(f"{len(regions.names)} regions are few: a rank correlation over them moves with each of them.")
    learnt = probed.num_train[probed.num_train > 0]
    if len(learnt) and learnt.max() > _UNEVEN * learnt.min():
        found.append(
            f"Probes learnt from {learnt.min():,} to {learnt.max():,} chips: errors follow from that too, not from "
            "distance alone."
        )
    return found
