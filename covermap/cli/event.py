"""`covermap event`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from covermap.cli import show
from covermap.cli.completion import one_of, sensors
from covermap.cli.rank import Side, Top, tell

if TYPE_CHECKING:
    from covermap.core.config import ImageConfig

_SIDES = "A file, a quoted pattern, or several with commas; FILE@DATE states a date."
Before = Annotated[str, typer.Argument(help=f"Image before the event. {_SIDES}", metavar="BEFORE")]
After = Annotated[str, typer.Argument(help="Image after it, of the same sensor.", metavar="AFTER")]
Out = Annotated[str, typer.Argument(help="Map to write, .tif.", metavar="OUT.tif")]
Kind = Annotated[
    str | None,
    typer.Option(
        help="flood (default), landslide, damage or change.",
        autocompletion=one_of("flood", "landslide", "damage", "change"),
    ),
]
Index = Annotated[
    str | None,
    typer.Option(help="Of --kind change: irmad (default), mad or cva.", autocompletion=one_of("irmad", "mad", "cva")),
]
Cut = Annotated[
    str | None,
    typer.Option(
        help="How the threshold is found: places; auto (default of change) or otsu (also called kmeans), of all "
        "pixels.",
        autocompletion=one_of("places", "auto", "otsu"),
    ),
]
Model = Annotated[str | None, typer.Option(help="Model of a hazard, trained on as many dates; default: none.")]
Dem = Annotated[str | None, typer.Option(help="Elevation: floods lie on flat ground, landslides on slopes.")]
Sensor = Annotated[
    str | None, typer.Option(help="Sensor of the images: sentinel1, sentinel2, ...", autocompletion=sensors)
]
Bands = Annotated[str | None, typer.Option(help="Band names in file order, if the files have none.")]
Quantity = Annotated[
    str | None,
    typer.Option(
        help="Radar numbers that are not dB: power or amplitude.", autocompletion=one_of("power", "amplitude")
    ),
]
Nodata = Annotated[float | None, typer.Option(help="Number that means nothing was seen, if the files do not say.")]
Clouds = Annotated[str, typer.Option(help="Cloudy pixels are nodata: auto (of a product) or none.")]
Threshold = Annotated[float | None, typer.Option(help="Of the change, instead of the one that is found.")]
Looks = Annotated[int | None, typer.Option(help="Side of the square of radar pixels that are averaged; default: 5.")]


def event(
    before: Before,
    after: After,
    out: Out,
    kind: Kind = None,
    index: Index = None,
    cut: Cut = None,
    model: Model = None,
    dem: Dem = None,
    sensor: Sensor = None,
    bands: Bands = None,
    quantity: Quantity = None,
    nodata: Nodata = None,
    clouds: Clouds = "auto",
    threshold: Threshold = None,
    looks: Looks = None,
    side: Side = 128,
    top: Top = 10,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Map what a flood, landslide or other event changed, and rank the places to look at first.

    Without a model an index of change is cut where it parts into two groups; with one the map is the model's.

    Examples: covermap event before.tif after.tif flood.tif --sensor sentinel1 --dem dem.tif ·
    covermap event 'pre/*.tif' 'post/*.tif' slides.tif --kind landslide --sensor sentinel1 --quantity power ·
    covermap event before.tif after.tif flood.tif --model runs/flood --sensor sentinel1 ·
    covermap event 2000.tif 2003.tif change.tif --kind change
    """
    from covermap.verbs.event import event as work

    first, second = (_images(text, sensor, bands, quantity, nodata, clouds) for text in (before, after))
    with show.progress("comparing") as tick:
        done = work(
            first, second, out, kind=kind, method=index, cut=cut, dem=dem, model=model, threshold=threshold,
            looks_px=looks, side_px=side, overwrite=overwrite, on_progress=tick,
        )  # fmt: skip
    if as_json:
        show.as_json(
            {"map": done.path, "files": list(done.files), "class": done.name, "mapped_ha": done.mapped_ha,
             "places": done.places, "num_places": done.num_places, "notes": list(done.notes)}
        )  # fmt: skip
        return
    show.notes(done.notes)
    tell(done.places, done.num_places, done.name, top)
    typer.echo(f"{done.name}: {done.mapped_ha:,.1f} ha by pixel counts")
    show.wrote(done.files)


def _images(
    text: str, sensor: str | None, bands: str | None, quantity: str | None, nodata: float | None, clouds: str
) -> list[ImageConfig]:  # fmt: skip
    """An entry for each date of a side."""
    from covermap.core.config import ImageConfig, expand, split_date
    from covermap.core.config_file import parse_section

    shared = {"sensor": sensor, "bands": show.listed(bands), "quantity": quantity, "nodata": nodata, "clouds": clouds}
    found = []
    for each in filter(None, map(str.strip, text.split(","))):
        pattern, date = split_date(each)
        for path in expand(pattern):
            found.append(parse_section(ImageConfig, {**shared, "path": path, "date": date}, where="covermap event"))
    return found
