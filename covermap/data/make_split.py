"""How a split is made: scenes -> blocks -> parts -> rectangles; then shared ground and the label budget.

What the user names, what a data set's layout says, a fold or a region fixes parts; the other blocks are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace

import numpy as np

from covermap.core.config import Box, SplitConfig
from covermap.core.errors import ConfigError, LabelError, suggest
from covermap.data.assign import TRIALS, assign, assign_folds
from covermap.data.blocks import Block, cut, default_side_px, table
from covermap.data.budget import with_budget, with_even_classes
from covermap.data.overlap import with_shared_ground
from covermap.data.regions import Regions, find_regions
from covermap.data.scene import Scene
from covermap.data.split import PARTS, Split, Tile, part_counts
from covermap.geo.grid import Window

LEAKY = ("random", "stratified")


@dataclass
class _Wishes:
    """What is settled before anything is drawn.

    whole: the part of scenes that stand in one whole. fractions: shares of the other labels to draw.
    """

    whole: dict[str, str]
    fractions: dict[str, float]
    boxes: list[Tile]
    wanted: Set[str]
    notes: list[str] = field(default_factory=list)


def make_split(scenes: Sequence[Scene], config: SplitConfig, *, size_px: int, chips: bool = False) -> Split:
    """Build the split that a config asks for; raises LabelError for an empty part, ConfigError for wrong settings.

    size_px: side of a training window, which is the block of the random methods. chips: they come whole, and so have no
    buffer unless the config asks for one, which leaves out those that touch it; blocks hold whole chips.
    """
    config = with_sides(config, scenes, size_px=size_px, chips=chips)
    if config.method == "csv":
        split = _from_csv(scenes, config.path)
        wanted: Set[str] = {"train"} | {tile.part for tile in split.tiles if tile.part in ("val", "test")}
    else:
        wishes = _by_layout(scenes, config) if config.method == "source" else _by_config(scenes, config)
        wanted = {"train", *wishes.wanted}
        split = _draw(scenes, config, wishes)
        if config.balanced:
            split = with_even_classes(split, scenes, config.balanced, seed=config.seed)
    return replace(split, notes=(*split.notes, *_check(split, scenes, wanted)))


def with_sides(config: SplitConfig, scenes: Sequence[Scene], *, size_px: int, chips: bool = False) -> SplitConfig:
    """The config with the sides of blocks and buffer that it leaves open."""
    leaky = config.method in LEAKY
    side = config.block_px or (size_px if leaky else default_side_px(scenes))
    if chips and config.block_px is None and not leaky:
        side = max(1, side // size_px) * size_px
    buffer = 0 if leaky or chips else min(64, side // 10)
    return config.model_copy(
        update={"block_px": side, "buffer_px": buffer if config.buffer_px is None else config.buffer_px}
    )  # fmt: skip


def _draw(scenes: Sequence[Scene], config: SplitConfig, wishes: _Wishes) -> Split:
    """Blocks with parts by the config's rule, fixed rectangles on top; one pass over the labels."""
    side, buffer = config.block_px, config.buffer_px
    assert side is not None
    assert buffer is not None
    fixed: dict[str, list[Window]] = {}
    for box in wishes.boxes:
        fixed.setdefault(box.scene, []).append(box.window)
    blocks = cut([scene for scene in scenes if scene.name not in wishes.whole], side, fixed)
    parts, notes = _parts(blocks, config, wishes.fractions)
    tiles = [Tile(s.name, w, part) for block, part in zip(blocks, parts, strict=True) for s, w in block.places]
    tiles += [Tile(s.name, s.grid.window, wishes.whole[s.name]) for s in scenes if s.name in wishes.whole]
    split = Split(tuple(tiles + wishes.boxes), buffer, config.method, (*wishes.notes, *notes))
    named = {s.name: s.part for s in scenes if s.part} if config.method == "source" else wishes.whole
    split = with_shared_ground(split, scenes, named, by_user=config.method != "source")
    if config.budget == 1:
        return split
    train = [block for block, part in zip(blocks, parts, strict=True) if part == "train"]
    seed = config.seed if config.budget_seed is None else config.budget_seed
    return with_budget(split, scenes, train, config.budget, seed=seed)


def _by_config(scenes: Sequence[Scene], config: SplitConfig) -> _Wishes:
    """Fractions, boxes and names that the config gives."""
    given = {"val": config.val, "test": config.test}
    fractions = {part: value for part, value in given.items() if isinstance(value, float) and value}
    wanted = {part for part, value in given.items() if value}
    if config.method == "kfold":
        fractions.pop("test", None)
        wanted |= {"test"}
    if config.method == "regions" and "test" in fractions:
        raise ConfigError(
            "split.method regions needs scene names for test, or names of places or regions",
            fix=f"name one: split.test: [{scenes[-1].name}]",
        )
    whole: dict[str, str] = {}
    for part, value in given.items():
        for name in value if isinstance(value, list) and config.regions is None else ():
            found = [scene for scene in scenes if scene.name == name] or [s for s in scenes if s.place == name]
            if not found:
                known = [*(s.name for s in scenes), *(s.place for s in scenes if s.place)]
                raise ConfigError(
                    f"split.{part}: there is no scene {name!r}, nor a place",
                    fix=suggest(name, list(dict.fromkeys(known))),
                )
            whole |= {scene.name: part for scene in found}
    return _Wishes(whole, fractions, _boxes(config, scenes), wanted)


def _by_layout(scenes: Sequence[Scene], config: SplitConfig) -> _Wishes:
    """The layout's own parts; a part that it lacks is drawn from its train part."""
    there = {scene.part for scene in scenes if scene.part}
    if "train" not in there:
        raise ConfigError(
            f"split.method source: the layout says {'only ' + ', '.join(sorted(there)) if there else 'nothing'} "
            "of the parts of its scenes",
            fix="use method: blocks, or name scenes: split.test: [...]",
        )
    fractions = {}
    for part, share in (("val", config.val), ("test", config.test)):
        assert isinstance(share, float)
        if part in there and part in config.changed:
            raise ConfigError(
                f"split.{part} has no effect: the layout has a {part} part", fix=f"leave split.{part} out"
            )
        if part not in there and share:
            fractions[part] = share
    notes = [f"the layout has no {part} part: it is taken from its train part" for part in fractions]
    lone = sum(scene.part is None for scene in scenes)
    if lone:
        notes.append(f"{lone:,} scenes have no part in the layout and are left out")
    whole = {scene.name: scene.part or "none" for scene in scenes if scene.part != "train"}
    return _Wishes(whole, fractions, _boxes(config, scenes), {*there, *fractions}, notes)


def _boxes(config: SplitConfig, scenes: Sequence[Scene]) -> list[Tile]:
    """The rectangles that the config fixes, excluded ones first so that val and test lie on top."""
    asked: list[tuple[str, object]] = [("none", box) for box in config.exclude]
    asked += [("val", config.val), ("test", config.test)]
    found: list[Tile] = []
    for part, box in asked:
        for scene in scenes if isinstance(box, Box) else ():
            assert isinstance(box, Box)
            if box.scene in (None, scene.name):
                rows, cols = box.rows or (0, scene.grid.height), box.cols or (0, scene.grid.width)
                window = Window(rows[0], cols[0], rows[1] - rows[0], cols[1] - cols[0]).intersect(scene.grid.window)
                if window.is_empty:
                    raise ConfigError(
                        f"split: the {part} box rows {rows}, columns {cols} lies outside of scene {scene.name}",
                        fix=f"the scene has {scene.grid.height} rows and {scene.grid.width} columns",
                    )
                found.append(Tile(scene.name, window, part))
    return found


def _parts(blocks: Sequence[Block], config: SplitConfig, fractions: dict[str, float]) -> tuple[list[str], list[str]]:
    """The part of each block, and notes: held-out folds and regions first, the rest by fractions."""
    if not blocks:
        return [], []
    legend = blocks[0].places[0][0].legend
    assert legend is not None
    counts = table(blocks, len(legend))
    parts, notes = _held_out(blocks, counts, config)
    free = np.array([part is None for part in parts])
    _require_enough(blocks, counts, len(fractions))
    trials = 1 if config.method == "random" else TRIALS
    drawn = iter(assign(counts[free], fractions, trials=trials, seed=config.seed))
    found = [next(drawn) if part is None else part for part in parts]
    total = counts[free].sum()
    for part, wanted in fractions.items():
        held = counts[np.array(found) == part].sum() / max(1, total)
        if held and not wanted / 1.5 <= held <= wanted * 1.5:
            notes.append(
                f"{part} holds {held:.0%} of the labels, not {wanted:.0%}: the blocks are too few or too large"
            )
    return found, notes


def _require_enough(blocks: Sequence[Block], counts: np.ndarray, num_parts: int) -> None:
    """Places that cannot be divided must be as many as the parts; raises ConfigError."""
    filled = [block for block, row in zip(blocks, counts, strict=True) if row.sum()]
    places = [block for block in filled if len(block.pieces) > 1]
    if places and len(filled) <= num_parts:
        scene = places[0].places[-1][0]
        raise ConfigError(
            f"{num_parts + 1} parts need as many places; the labelled scenes are of {len(filled)}, and the scenes of "
            f"one place ({scene.place}) may overlap, so they stay together",
            fix=f"name scenes for a part (split.test: [{scene.name}]), or do without one (split.val: 0)",
        )


def _held_out(blocks: Sequence[Block], counts: np.ndarray, config: SplitConfig) -> tuple[list[str | None], list[str]]:
    """Parts that a fold or named regions fix; None where nothing is fixed. Raises ConfigError."""
    if config.method == "kfold" and config.regions is None:
        fold = assign_folds(counts, _num_folds(config, int((counts.sum(1) > 0).sum()), "blocks"), seed=config.seed)
        return ["test" if number == (config.fold or 1) - 1 else None for number in fold.tolist()], []
    if config.regions is None:
        return [None] * len(blocks), []
    regions = find_regions(blocks, config.regions, config.region_field)
    if config.method == "kfold":
        sums = np.array([counts[[own == name for own in regions.own]].sum(0) for name in regions.names])
        fold = assign_folds(sums, _num_folds(config, int((sums.sum(1) > 0).sum()), "regions"), seed=config.seed)
        chosen = {
            name: "test" for name, f in zip(regions.names, fold.tolist(), strict=True) if f == (config.fold or 1) - 1
        }
    else:
        chosen = _named_regions(config, regions)
    return _by_region(regions, chosen, counts)


def _num_folds(config: SplitConfig, filled: int, what: str) -> int:
    folds = config.folds or 5
    if filled < folds:
        raise ConfigError(
            f"{folds} folds need as many labelled {what}; there are {filled}",
            fix=f"split.folds: {max(2, filled)}, or smaller blocks (split.block_px)",
        )
    return folds


def _named_regions(config: SplitConfig, regions: Regions) -> dict[str, str]:
    """{region: part} that the config names; raises ConfigError for a name that the file does not have."""
    chosen = {}
    for part, names in (("val", config.val), ("test", config.test)):
        for name in names if isinstance(names, list) else ():
            if name not in regions.names:
                raise ConfigError(
                    f"split.{part}: {config.regions} has no region {name!r}", fix=suggest(name, regions.names)
                )
            chosen[name] = part
    return chosen


def _by_region(regions: Regions, chosen: dict[str, str], counts: np.ndarray) -> tuple[list[str | None], list[str]]:
    """Blocks of chosen regions get their part; those that only touch one, or lie in no region, none."""
    parts: list[str | None] = []
    for own, touched in zip(regions.own, regions.touched, strict=True):
        away = own is None or (own not in chosen and touched & set(chosen))
        parts.append("none" if away else chosen.get(own or ""))
    lost = sum(part == "none" and row.sum() > 0 for part, row in zip(parts, counts, strict=True))
    notes = [*regions.notes]
    if lost:
        notes.append(f"{lost:,} labelled blocks lie in no region, or on the border of a held-out one, and are not used")
    return parts, notes


def _from_csv(scenes: Sequence[Scene], path: str | None) -> Split:
    """A split written earlier, if it goes with these scenes."""
    if not path:
        raise ConfigError("split.method csv needs split.path", fix="name the CSV, or use method: blocks")
    split = Split.load(path)
    grids = {scene.name: scene.grid for scene in scenes}
    known = {tile.scene for tile in split.tiles}
    if lone := sorted(known ^ set(grids)):
        raise ConfigError(
            f"{path} and the images do not name the same scenes: {', '.join(lone[:5])}",
            fix=f"the images are the scenes {', '.join(list(grids)[:5])}: name them so in the CSV",
        )
    for tile in split.tiles:
        if tile.part in PARTS and tile.window.intersect(grids[tile.scene].window).is_empty:
            raise ConfigError(
                f"{path}: the rectangle {tuple(tile.window)} lies outside of scene {tile.scene}",
                fix="the split was made for another image: make a new one with method: blocks",
            )
    return split


def _check(split: Split, scenes: Sequence[Scene], wanted: Set[str]) -> list[str]:
    """Refuse wanted parts that are empty; say which classes are missing where."""
    counts = part_counts(split, scenes)
    legend = scenes[0].legend
    assert legend is not None
    notes = []
    for part, row in counts.items():
        if part in wanted and row.sum() == 0:
            raise LabelError(
                f"the {part} part of the split holds no labelled pixel",
                fix="use smaller blocks (split.block_px), a smaller split.buffer_px, or more labels",
            )
        lacking = [n for n, c in zip(legend.names, row, strict=True) if c == 0]
        if part in wanted and lacking and len(lacking) < len(legend):
            notes.append(f"{part} has no pixel of {', '.join(lacking)}")
    if len(legend) > 1 and (counts["train"] > 0).sum() == 1:
        only = legend.names[int(np.argmax(counts["train"]))]
        raise LabelError(
            f"train holds only one class, {only!r}: there is nothing to learn",
            fix="add labels of at least a second class",
        )
    if split.method in LEAKY:
        notes.append(f"split {split.method}: neighbouring windows stand on both sides, so scores are too good")
    return notes
