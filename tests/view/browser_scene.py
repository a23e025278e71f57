"""What the tests of the page look at: a small generated scene with known pixels, and a screen that can be read."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from PIL import Image

from covermap.data.simulate import LEGEND, SceneRecipe, write_scene
from covermap.geo.products import finish_cog, finish_map
from covermap.verbs.change import change
from covermap.verbs.sample import Plan, sample

SIDE = 512
POINTS = 24
COLOURS = {c.code: tuple(int(c.colour[i : i + 2], 16) for i in (1, 3, 5)) for c in LEGEND.classes}
NAMES = dict(zip(LEGEND.codes, LEGEND.names, strict=True))
Codes = npt.NDArray[Any]


def build_scene(folder: Path) -> Path:
    """Two images, two maps (made of the truth, with a corner of no data), confidence, probabilities, change, sample."""
    paths = write_scene(SceneRecipe(height=SIDE, width=SIDE, num_dates=2, change_share=0.08), folder / "made")
    shown, plain = folder / "shown", folder / "plain.tif"
    shown.mkdir()
    for date, name in ((1, "map"), (2, "map_date2")):
        with rasterio.open(paths[f"truth_date{date}"]) as dataset:
            codes, profile = dataset.read(1), dataset.profile
        codes[:40, :60] = 0
        with rasterio.open(plain, "w", **profile) as dataset:
            dataset.write(codes, 1)
        finish_map(plain, shown / f"{name}.tif", LEGEND, date=f"20{19 + date}-07-14")
        paths[f"image_date{date}"].rename(shown / f"image_date{date}.tif")
    first = read(shown / "map.tif")
    rows, cols = np.mgrid[:SIDE, :SIDE]
    top = np.where(first == 0, 255, 40 + (rows + cols) % 61).astype("uint8")
    _layer(plain, profile, shown / "confidence.tif", top[None], ["confidence in percent"])
    shares = np.full((len(LEGEND.codes), SIDE, SIDE), 4, "uint8")  # of 200
    for k, code in enumerate(LEGEND.codes):
        shares[k][first == code] = 172
    shares[:, first == 0] = 255
    _layer(plain, profile, shown / "probs.tif", shares, list(LEGEND.names), scale=1 / 200)
    plain.unlink()
    change([shown / "map.tif", shown / "map_date2.tif"], shown / "change.tif")
    sample(shown / "map.tif", shown / "sample.gpkg", Plan(num=POINTS, floor=2, method="random"))
    return shown


def _layer(plain: Path, profile: Any, out: Path, values: Codes, names: list[str], scale: float = 1.0) -> None:
    with rasterio.open(plain, "w", **{**profile, "count": len(values), "nodata": 255}) as dataset:
        dataset.write(values)
        dataset.scales = [scale] * len(values)
    finish_cog(plain, out, nodata=255, description=names)


def read(path: Path) -> Codes:
    """The first band."""
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read(1))


@dataclass
class Screen:
    """A page of the viewer, and what can be asked of it."""

    page: Any

    def run(self, script: str, value: object = None) -> Any:
        return self.page.evaluate(script, value)

    def state(self, name: str) -> Any:
        return self.run(f"covermap.state.{name}")

    def set(self, **changes: object) -> None:
        """What a person would set by many clicks."""
        self.run("(changes) => covermap.set(changes)", changes)
        self.settle()

    def settle(self) -> None:
        """Until no tile is awaited and the browser has drawn."""
        self.page.wait_for_function(
            """() => {
              const loading = [];
              covermap.map.eachLayer((layer) => layer.isLoading && layer.isLoading() && loading.push(layer));
              const busy = document.getElementById("map").getAttribute("aria-busy") === "true";
              return !loading.length && !busy && !covermap.map._animatingZoom;
            }"""
        )
        self.run("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def look(self, zoom: int, x: float, y: float) -> None:
        """Centre the map on a frame pixel at a zoom that counts from the native one."""
        self.run(
            "([zoom, x, y]) => covermap.map.setView([y, x], covermap.view.frame.native + zoom, {animate: false})",
            [zoom, x, y],
        )
        self.settle()

    def plain(self) -> None:
        """Data layers alone, in their own colours: no image below, nothing see-through, no points."""
        self.set(base="", opacity=100, points=False)

    def map_pixels(self) -> npt.NDArray[np.uint8]:
        """(H, W, 3) of what the map's part of the window shows, without what floats above it."""
        hide = "([ids, how]) => ids.forEach((id) => (document.getElementById(id).style.opacity = how))"
        self.run(hide, [_FLOATING, "0"])
        shot = self.page.screenshot(clip=self.page.locator("#map").bounding_box())
        self.run(hide, [_FLOATING, ""])
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))

    def place(self, x: float, y: float) -> tuple[int, int]:
        """Where a frame position is on the screen, in CSS pixels of the map's part of the window."""
        at = self.run("([x, y]) => covermap.map.latLngToContainerPoint([y, x])", [x, y])
        return at["x"], at["y"]

    def seen(self, codes: Codes) -> tuple[Codes, npt.NDArray[np.uint8]]:
        """The raster's values and the screen's colours of all pixels in view, at native zoom: (H, W) and (H, W, 3)."""
        shot = self.map_pixels()
        left, top = (round(v) for v in self.place(0, 0))
        y0, x0 = max(0, top), max(0, left)
        y1, x1 = min(shot.shape[0], top + codes.shape[0]), min(shot.shape[1], left + codes.shape[1])
        return codes[y0 - top : y1 - top, x0 - left : x1 - left], shot[y0:y1, x0:x1]

    def click(self, x: float, y: float) -> dict[str, str]:
        """Click on a frame position; the rows of values by layer id."""
        self.run("covermap.closeInspect()")
        across, down = self.place(x, y)
        box = self.page.locator("#map").bounding_box()
        self.page.mouse.click(box["x"] + across, box["y"] + down)
        return self.values()

    def under(self, x: float, y: float) -> tuple[float, float]:
        """The frame position that a click at (x, y) hits: the screen has whole pixels."""
        at = self.run("(at) => covermap.map.containerPointToLatLng(at)", self.place(x, y))
        return at["lng"], at["lat"]

    def values(self) -> dict[str, str]:
        self.page.wait_for_selector("#inspect:not([hidden])")
        rows = self.run(
            "() => [...document.querySelectorAll('#inspect .row')].map((row) => "
            "[row.dataset.layer || row.querySelector('dt').textContent, row.querySelector('dd').textContent])"
        )
        return dict(rows)

    def counted(self, layer: str) -> dict[str, Any]:
        """The area chart of a layer once it is of this view: its counts and amounts by code, window and scale."""
        self.page.wait_for_timeout(200)  # it waits for the view to rest
        self.page.wait_for_selector(f"#area table[data-layer={layer}]")
        return dict(
            self.run(
                """(id) => {
              const table = document.querySelector(`#area table[data-layer=${id}]`);
              const rows = [...table.querySelectorAll("tbody tr")];
              return {
                counts: Object.fromEntries(rows.map((row) => [row.dataset.code, +row.dataset.count])),
                amounts: Object.fromEntries(rows.map((row) => [row.dataset.code, +row.dataset.amount])),
                window: table.dataset.window.split(",").map(Number), scale: +table.dataset.scale,
                words: table.caption.textContent,
              };
            }""",
                layer,
            )
        )


_FLOATING = ["buttons", "foot", "swipe", "inspect"]


def background(screen: Screen) -> tuple[int, ...]:
    """The colour of the map's ground."""
    words = screen.run("getComputedStyle(document.getElementById('map')).backgroundColor")
    return tuple(int(v) for v in words[4:-1].split(","))


def expected(codes: Codes, nothing: tuple[int, ...], colours: dict[int, tuple[int, ...]] = COLOURS) -> Codes:
    """(H, W, 3) colours of codes; `nothing` where a code has none."""
    table = np.tile(np.array(nothing, np.uint8), (int(codes.max(initial=0)) + 1, 1))
    for code, colour in colours.items():
        if code < len(table):
            table[code] = colour
    return table[codes]
