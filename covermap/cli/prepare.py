"""`covermap prepare`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from covermap.cli import show
from covermap.cli.completion import legends, one_of, sensors

if TYPE_CHECKING:
    from covermap.data.tiles import Tiling
    from covermap.verbs.prepare import Outcome

_TILES = "Tiles of a config's data"
Tile = Annotated[int | None, typer.Option(help="Side of tiles in px; default: whole scenes.", rich_help_panel=_TILES)]
Overlap = Annotated[int, typer.Option(help="Pixels that neighbouring tiles share.", rich_help_panel=_TILES)]
Edge = Annotated[
    str,
    typer.Option(
        help="Last tiles: shift (moved back), pad (nodata beyond), drop.",
        autocompletion=one_of("shift", "pad", "drop"),
        rich_help_panel=_TILES,
    ),
]
MaxNodata = Annotated[float, typer.Option(help="Largest share without data.", rich_help_panel=_TILES)]
MinLabelled = Annotated[float, typer.Option(help="Smallest share with a label.", rich_help_panel=_TILES)]
DropOnly = Annotated[
    str | None, typer.Option(help="Leave out tiles of these classes alone: water,snow.", rich_help_panel=_TILES)
]
Source = Annotated[list[str], typer.Argument(help="Image, product, labels, dates with --composite; or CONFIG.yaml.")]
Gsd = Annotated[float | None, typer.Option(help="Pixel size in metres; of a config a multiple, neighbours joined.")]
Composite = Annotated[
    str | None,
    typer.Option(
        help="Several dates (PATH@DATE) as one: median, mean, max-ndvi.",
        autocompletion=one_of("median", "mean", "max-ndvi"),
    ),
]
Dates = Annotated[str | None, typer.Option(help="With --composite: only this period, first/last.")]
ReportLoss = Annotated[
    bool, typer.Option("--report-loss", help="Labels: what each class loses by each method; takes three times as long.")
]
Terrain = Annotated[str | None, typer.Option(help="Of elevation, instead of itself: slope,aspect in degrees.")]
Density = Annotated[float | None, typer.Option(help="Of points: how many on a km2; bandwidth of the kernel in metres.")]
Legend = Annotated[str | None, typer.Option(help="Legend of labels; default: from the file.", autocompletion=legends)]
Sensor = Annotated[str | None, typer.Option(help="Sensor that names the bands.", autocompletion=sensors)]
Bands = Annotated[str | None, typer.Option(help="Band names in file order.")]
Clouds = Annotated[
    str, typer.Option(help="Cloudy pixels are nodata: auto (of a product), none, FILE or SPECIFICATION:FILE.")
]
Resampling = Annotated[
    str,
    typer.Option(
        help="Images: bilinear, nearest, cubic, average. Labels: mode, nearest, weighted_mode.",
        autocompletion=one_of("bilinear", "nearest", "cubic", "average", "mode", "weighted_mode"),
    ),
]


def prepare(
    source: Source,
    out: Annotated[str, typer.Argument(help="GeoTIFF to write; of a config a folder.")],
    like: Annotated[str | None, typer.Option(help="Raster whose grid is taken.")] = None,
    gsd: Gsd = None,
    resampling: Resampling = "bilinear",
    field: Annotated[str | None, typer.Option(help="Class field of polygons or points.")] = None,
    layer: show.Layer = None,
    epsg: show.Epsg = None,
    legend: Legend = None,
    sensor: Sensor = None,
    bands: Bands = None,
    clouds: Clouds = "auto",
    composite: Composite = None,
    dates: Dates = None,
    report_loss: ReportLoss = False,
    terrain: Terrain = None,
    density: Density = None,
    tile: Tile = None,
    overlap: Overlap = 0,
    edge: Edge = "shift",
    max_nodata: MaxNodata = 1.0,
    min_labelled: MinLabelled = 0.0,
    drop_only: DropOnly = None,
    settings: show.Set = None,
    overwrite: show.Overwrite = False,
    dry_run: show.DryRun = False,
    quiet: show.Quiet = False,
    as_json: show.AsJson = False,
) -> None:
    """Bring an image, several dates of it or labels onto one grid as a single GeoTIFF; or all data of a config at once.

    With CONFIG.yaml every scene, or tiles of it, is aligned and written into a folder of plain GeoTIFFs that are read
    many times faster than compressed ones, with a config that trains on them. Stopped, the same command goes on.

    Examples: covermap prepare labels.tif out.tif --like image.tif --resampling mode ·
    covermap prepare bands/ image.tif --sensor sentinel2 ·
    covermap prepare fields.gpkg labels.tif --like image.tif --field crop ·
    covermap prepare dem.tif terrain.tif --terrain slope,aspect ·
    covermap prepare heads.csv density.tif --like image.tif --density 500 ·
    covermap prepare s2/*.SAFE summer.tif --composite median --dates 2023-06-01/2023-08-31 ·
    covermap prepare covermap.yaml prepared/ --tile 256 --overlap 32 ·
    covermap prepare covermap.yaml at_4m/ --gsd 4 --tile 512
    """
    if len(source) == 1 and source[0].endswith((".yaml", ".yml")):
        if like or field or legend or sensor or bands or composite or dates or terrain or density or report_loss:
            raise typer.BadParameter("with a config only --gsd, --set and the options of tiles have an effect")
        tiling = _tiling(tile, overlap, edge, max_nodata, min_labelled, show.listed(drop_only))
        _scenes(source[0], out, tiling, gsd, settings, overwrite=overwrite, dry_run=dry_run)
        return
    from covermap.verbs.prepare import prepare as align

    with show.progress("aligning", quiet=dry_run) as tick:
        done = align(
            source, out, like=like, gsd_m=gsd, resampling=resampling, field=field, layer=layer, epsg=epsg,
            legend=legend, sensor=sensor, bands=show.listed(bands), clouds=clouds, composite=composite, dates=dates,
            report_loss=report_loss, terrain=show.listed(terrain), density_m=density, overwrite=overwrite,
            dry_run=dry_run, on_progress=tick,
        )  # fmt: skip
    _show(done, out, as_json=as_json, dry_run=dry_run)


def _show(done: Outcome, out: str, *, as_json: bool, dry_run: bool) -> None:
    if as_json:
        show.as_json({"out": out, "told": done.told, "classes": done.losses})
        return
    show.lines(done.told, out, dry_run=dry_run)
    if done.losses:
        show.table([list(row.values()) for row in done.losses], list(done.losses[0]), title="Share of labelled pixels")


def _tiling(
    tile: int | None, overlap: int, edge: str, max_nodata: float, min_labelled: float, only: Sequence[str] | None
) -> Tiling | None:
    from covermap.core.errors import ConfigError
    from covermap.data.tiles import Tiling

    if edge not in ("shift", "pad", "drop"):
        raise ConfigError(f"--edge {edge} is not known", fix="use shift, pad or drop")
    if tile is None:
        if overlap or only or edge != "shift" or (max_nodata, min_labelled) != (1.0, 0.0):
            raise ConfigError("these options choose among tiles, but scenes are not cut", fix="add --tile 256")
        return None
    return Tiling(tile, overlap, edge, max_nodata, min_labelled, tuple(only or ()))  # type: ignore[arg-type]


def _scenes(
    config: str, out: str, tiling: Tiling | None, gsd: float | None, settings: list[str] | None, *, overwrite: bool,
    dry_run: bool,
) -> None:  # fmt: skip
    from covermap.core.config_file import load_config
    from covermap.verbs.prepare_scenes import prepare_scenes

    with show.progress("preparing", quiet=dry_run) as tick:
        told = prepare_scenes(
            load_config(config, settings or ()), out, tiling=tiling, gsd_m=gsd, overwrite=overwrite, dry_run=dry_run,
            on_progress=tick,
        )  # fmt: skip
    show.lines(told, out, dry_run=dry_run)
