"""What `change` has written into a run's folder, as the page shows it: what became what, how much, and how sure.

A map with codes of transitions and one that says only where it changed, of one comparison, are shown together: what a
sample says of either is said of both.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from covermap.core.from_to import NODATA, UNCHANGED, FromTo
from covermap.core.legend import Legend
from covermap.core.parsing import as_written, parse_json, read_json
from covermap.core.run import Run
from covermap.geo import pictures
from covermap.geo.change_product import BINARY, FROM_TO
from covermap.geo.products import layer_beside
from covermap.geo.raster import grid_of, open_dataset
from covermap.report import change_figures, scene_pictures, words
from covermap.report.areas import Assessment, is_apart

if TYPE_CHECKING:
    from covermap.data.scene import Scene
    from covermap.geo.grid import Grid
    from covermap.report.pieces import Pieces

MAX_SHOWN = 3
"""Comparisons shown; a note counts the others."""
MOST_ROWS = 12
_ENDING = "change.json"


@dataclass(frozen=True)
class Comparison:
    """Two maps compared. folder: that of the run. files: its change maps by path in the run; the first says most."""

    folder: Path
    files: tuple[str, ...]
    found: Mapping[str, Any]
    assessed: Assessment | None = None

    @property
    def dates(self) -> str:
        """From when to when; the maps' names where that is not known."""
        before, after = (self.found[key]["date"] or Path(self.found[key]["path"]).name for key in ("before", "after"))
        return f"{before} to {after}"

    @property
    def in_map(self) -> dict[str, Any]:
        """Pixels and hectares that the map shows as change."""
        return dict(self.found["in_map"])

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The largest transitions, with the colour that the map gives them."""
        return [{**row, "colour": self.colours[row["code"]]} for row in self.changes[:MOST_ROWS]]

    @cached_property
    def changes(self) -> list[dict[str, Any]]:
        """Transitions of one class to another, the largest first."""
        return [row for row in self.found["transitions"] if row["code"] != UNCHANGED]

    @cached_property
    def colours(self) -> dict[int, str]:
        """Of the transitions by code."""
        return {each.code: each.colour for each in self.legend_codes.transitions()}

    @cached_property
    def legend_codes(self) -> FromTo:
        path = self.folder / self.files[0]
        with as_written(f"{path} (tag {FROM_TO})", fix="make the map again: covermap change"):
            return FromTo(Legend.from_dict(parse_json(open_dataset(str(path)).tags()[FROM_TO])))

    @property
    def is_binary(self) -> bool:
        """Whether all its maps say only where it changed."""
        return bool(self.found["rules"].get("binary"))

    @property
    def asked(self) -> bool:
        """Whether the map shows some of the transitions only."""
        return any(row["in_map"] == "no" for row in self.changes)

    @property
    def notes(self) -> list[str]:
        """What else has to be known; what the section says in its own words is left out."""
        said = ("errors of both maps", "no STAC item", "set aside as unchanged")
        notes = [note for note in self.found["notes"] if not note.startswith(said)]
        lost = [(when, row) for when in ("before", "after") for row in self.found["no_counterpart"][when]]
        notes += [f"{row['name']} ({when}, {row['area_ha']:,.1f} ha) has no counterpart: ignored" for when, row in lost]
        return [note[:1].upper() + note[1:] for note in notes]

    @property
    def set_aside(self) -> list[tuple[str, float]]:
        """Why, and hectares."""
        return [(reason, aside["area_ha"]) for reason, aside in self.found["set_aside"].items()]

    @cached_property
    def stale(self) -> list[str]:
        """Maps that it was made of and that are others by now, where that can be told."""
        sides = [self.found[key] for key in ("before", "after")]
        known = [
            (side["path"], told) for side in sides if (told := side.get("content")) and Path(side["path"]).is_file()
        ]
        return [path for path, told in known if open_dataset(path).tags().get("COVERMAP_CONTENT") != told]

    @property
    def estimate(self) -> dict[str, Any] | None:
        """Change as a whole, by the sample: mapped, estimated and true hectares; None without a current assessment.

        It is all but the rest, so its interval is as wide as that of it.
        """
        one = self.assessed
        if one is None or not one.is_current:
            return None
        rest = _rest(one.found)
        total = one.found["total_ha"]
        turned = {key: None if rest[other] is None else total - rest[other]
                  for key, other in (("mapped_ha", "mapped_ha"), ("area_ha", "area_ha"), ("true_ha", "true_ha"),
                                     ("low_ha", "high_ha"), ("high_ha", "low_ha")) if other in rest}  # fmt: skip
        return {**turned, "ci95_ha": rest["ci95_ha"], "is_apart": is_apart(turned), **_accuracies(one.found)}


def _rest(found: Mapping[str, Any]) -> dict[str, Any]:
    """The row of what the map does not show as change: in maps of both kinds it has the lowest code."""
    return dict(min(found["areas"], key=lambda row: row["code"]))


def _accuracies(found: Mapping[str, Any]) -> dict[str, Any]:
    """User's and producer's accuracy of change, where the map has one class of it."""
    rest = _rest(found)["code"]
    changed = [row["code"] for row in found["areas"] if row["code"] != rest]
    if len(changed) != 1:
        return {"users": None, "producers": None}
    return {key: next(row for row in found[key] if row["code"] == changed[0]) for key in ("users", "producers")}


def comparisons_of(run: Run, assessments: Sequence[Assessment]) -> list[Comparison]:
    """All that lie in a run, of change.tif first; maps of one comparison together."""
    by_map = {one.map: one for one in assessments}
    together: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for path in sorted([*run.folder.glob(f"*{_ENDING}"), *run.folder.glob(f"*/*{_ENDING}")]):
        source = path.with_name(
            "change.tif" if path.name == _ENDING else f"{path.name.removesuffix(f'.{_ENDING}')}.tif"
        )
        if source.is_file() and FROM_TO in open_dataset(str(source)).tags():
            found = read_json(path, fix="make it again: covermap change")
            key = json.dumps([found["before"], found["after"], found["matrix_ha"], found["in_map"]], sort_keys=True)
            together.setdefault(key, []).append((source.relative_to(run.folder).as_posix(), found))
    made = []
    for same in together.values():
        same.sort(key=lambda each: (bool(each[1]["rules"].get("binary")), each[0] != "change.tif", each[0]))
        files = tuple(name for name, _ in same)
        known = [by_map[name] for name in files if name in by_map]
        known.sort(key=lambda one: not one.is_current)
        made.append(Comparison(run.folder, files, same[0][1], next(iter(known), None)))
    return sorted(made, key=lambda one: (one.files[0] != "change.tif", one.files[0]))


def changes_of(pieces: Pieces) -> dict[str, Any] | None:
    """The section on change; None where the run has no change map, and no maps of two dates that could make one."""
    made = pieces.comparisons
    after = next(filter(None, map(pieces.map_path, pieces.scenes)), None) if pieces.is_pair_of_maps else None
    if not made and after is None:
        return None
    shown: dict[str, Any] = {
        "shown": [{"one": one, **_drawn(one, pieces)} for one in made[:MAX_SHOWN]],
        "number": len(made), "changed_colour": BINARY.classes[1].colour,
    }  # fmt: skip
    if after is not None:
        before = layer_beside(after, "before")
        files = (before, after, after.with_name("from_to.tif" if after.stem == "map" else f"{after.stem}_from_to.tif"))
        shown |= {"before": before.name, "after": after.name, "command": shlex.join(map(str, files))}
    return shown


def _drawn(one: Comparison, pieces: Pieces) -> dict[str, Any]:
    """Pictures of a comparison, and what stands beside them."""
    names = [each["name"] for each in one.found["codes"]]
    classes = one.found["classes"]
    colours = [pieces.colours.get(row["name"], "#999999") for row in classes]
    grid = grid_of(open_dataset(str(one.folder / one.files[0])))
    scene = next((scene for scene in pieces.scenes if scene.grid.is_same(grid)), None)
    return {
        "picture": pictures.png_uri(_overlay(one, grid, pieces, scene)),
        "on_image": scene is not None,
        "heat": change_figures.transition_heat(names, one.found["matrix_ha"]),
        "bars": change_figures.change_bars([row["name"] for row in classes], colours,
                                           [row["gain_ha"] for row in classes], [row["loss_ha"] for row in classes]),
        "flows": _flows(one, pieces),
        "words": words.of_flows(one.changes),
        "more": len(one.changes) > len(one.rows),
        "colours": dict(zip((row["name"] for row in classes), colours, strict=True)),
        "command": shlex.quote(str(one.folder / one.files[-1])),
    }  # fmt: skip


def _flows(one: Comparison, pieces: Pieces) -> str:
    """A Sankey of the largest transitions; "" where there is only one to draw."""
    if len(one.changes) < 2:
        return ""
    flows = [change_figures.Flow(row["from"], row["to"], row["area_ha"]) for row in one.rows]
    names = [each["name"] for each in one.found["codes"]]
    colours = {name: pieces.colours.get(name, "#999999") for name in names}
    rest = sum(row["area_ha"] for row in one.changes) - sum(flow.area_ha for flow in flows)
    return change_figures.flow_bands(flows, colours, rest if len(one.changes) > len(flows) else 0.0)


def _overlay(one: Comparison, grid: Grid, pieces: Pieces, scene: Scene | None) -> pictures.Picture:
    """Changed pixels in the colours of the map, over the scene's image in grey where it is of the same ground."""
    raster = pictures.map_raster(one.folder / one.files[0], grid)
    codes, valid = pictures.read_overview(raster, pieces.overview_px)
    ground = None if scene is None else pieces.composite(scene).overview
    return scene_pictures.change_picture(codes[0], valid, _table(one), ground)


def _table(one: Comparison) -> npt.NDArray[np.uint8]:
    """(65536, 3): colours by code; unchanged and unknown codes are not drawn."""
    table = np.zeros((NODATA + 1, 3), np.uint8)
    if one.is_binary:
        table[BINARY.codes[1]] = BINARY.classes[1].rgb
    else:
        for code, colour in one.colours.items():
            table[code] = pictures.rgb_of(colour)
    return table
