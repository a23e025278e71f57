"""A raster in matplotlib axes: coordinates of its CRS, a legend of the classes that occur or a scale, a scale bar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from covermap.geo.grid import Grid
from covermap.geo.raster import Raster, open_dataset
from covermap.geo.shown import LegendLike, Shown, shown

SIDE_PX = 1024
"""Of a plotted picture: more than a figure of usual size shows."""
MOST_CLASSES = 16


def plot_raster(
    raster: Raster, ax: Any = None, *, bands: Sequence[str] | None = None, stretch: float = 2.0,
    legend: LegendLike | bool | None = None, date: int = 0, title: str | None = None,
) -> Any:  # fmt: skip
    """See Raster.plot; gives the axes."""
    of = None if isinstance(legend, bool) else legend
    found = shown(raster, SIDE_PX, bands=bands, stretch=stretch, legend=of, date=date)
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=(8, 6), layout="constrained")
    drawn = _draw(ax, raster.grid, found)
    when = date_of(raster, date)
    # A name may hold what matplotlib would take for a formula.
    ax.set_title(title if title is not None else " · ".join(filter(None, (raster.name, found.title, when))),
                 loc="left", fontsize="medium", parse_math=False, wrap=True)  # fmt: skip
    _name_axes(ax, raster.grid)
    if legend is not False:
        _explain(ax, drawn, found)
    _scale_bar(ax, raster.grid)
    return ax


def date_of(raster: Raster, number: int = 0) -> str:
    """The acquisition date, as it was stated or as covermap wrote it into the file; empty where it is not known."""
    stated = raster.dates[number]
    return stated or str(open_dataset(raster.sources[number][0].path).tags().get("COVERMAP_DATE", ""))


def _draw(ax: Any, grid: Grid, found: Shown) -> Any:
    from matplotlib.transforms import Affine2D

    place, bounds = grid.transform, grid.bounds
    # In pixels, then by the grid's transform: so turned grids and those with south up lie right, too.
    drawn = ax.imshow(found.picture, extent=(0, grid.width, grid.height, 0), interpolation="nearest")
    to_crs = Affine2D.from_values(place.a, place.d, place.b, place.e, place.c, place.f)
    drawn.set_transform(to_crs + ax.transData)
    if grid.crs is None and place.e > 0:  # rows of a picture without a place count downwards
        ax.set(xlim=(bounds.left, bounds.right), ylim=(bounds.top, bounds.bottom))
    else:
        ax.set(xlim=(bounds.left, bounds.right), ylim=(bounds.bottom, bounds.top))
    middle = math.radians((bounds.bottom + bounds.top) / 2)
    ax.set_aspect(1 / max(0.05, math.cos(middle)) if grid.is_geographic else 1)
    return drawn


def _name_axes(ax: Any, grid: Grid) -> None:
    ax.ticklabel_format(useOffset=False, style="plain")
    ax.tick_params(labelsize="small")
    ax.locator_params(nbins=5)
    if grid.crs is None:
        ax.set(xlabel="column, px", ylabel="row, px")
    elif grid.is_geographic:
        ax.set(xlabel="longitude, °", ylabel="latitude, °")
    else:
        authority = grid.crs.to_authority()
        unit = grid.crs.linear_units.replace("metre", "m") if grid.crs.is_projected else "CRS units"
        name = f" ({':'.join(authority)})" if authority else ""
        ax.set(xlabel=f"easting, {unit}{name}", ylabel=f"northing, {unit}")


def _explain(ax: Any, drawn: Any, found: Shown) -> None:
    """What the colours mean, beside the axes."""
    if found.scale:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import LinearSegmentedColormap, Normalize

        colours = LinearSegmentedColormap.from_list("", list(found.scale))
        low, high = found.ends
        ax.figure.colorbar(ScalarMappable(Normalize(low, high if high > low else low + 1), colours), ax=ax, shrink=0.7)
    elif found.classes:
        from matplotlib.patches import Patch

        entries = found.most(MOST_CLASSES)
        handles = [Patch(facecolor=colour, edgecolor="#888888", linewidth=0.5, label=name) for colour, name in entries]
        made = ax.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(1.01, 1),
            borderaxespad=0,
            frameon=False,
            fontsize="small",
        )
        for text in made.get_texts():
            text.set_parse_math(False)


def _scale_bar(ax: Any, grid: Grid) -> None:
    """A round length of about a fifth of the width, measured in the middle; none where metres are not known."""
    if grid.crs is None or grid.transform.b or grid.transform.d:
        return
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

    metres = grid.row_sizes_m(grid.height // 2, 1)[0][0] / abs(grid.transform.a)
    wanted = metres * (grid.bounds.right - grid.bounds.left) / 5
    if not (math.isfinite(wanted) and wanted > 0):
        return
    step = 10.0 ** math.floor(math.log10(wanted))
    length = step * max(m for m in (1, 2, 5) if m * step <= wanted)
    text = f"{length / 1000:,g} km" if length >= 1000 else f"{length:g} m"
    bar = AnchoredSizeBar(
        ax.transData, length / metres, text, "lower right", pad=0.4, sep=4, color="black", frameon=True,
        size_vertical=(grid.bounds.top - grid.bounds.bottom) / 200, fontproperties={"size": "small"},
    )  # fmt: skip
    bar.patch.set(facecolor="white", alpha=0.75, edgecolor="none")
    ax.add_artist(bar)
