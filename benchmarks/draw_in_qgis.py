"""Draw a finished map in QGIS, without a screen, as a user sees it who drags the file in: the same-name .qml is used.

    sudo apt-get install python3-qgis qgis-providers
    QT_QPA_PLATFORM=offscreen /usr/bin/python3 benchmarks/draw_in_qgis.py MAP.tif OUT.png

It needs the system's Python, for which QGIS is built, and nothing of covermap. Prints the renderer and the legend as
QGIS understood them; exits 1 when the style was not used or holds no classes.
"""

from __future__ import annotations

import sys

from qgis.core import (
    QgsApplication,
    QgsMapRendererSequentialJob,
    QgsMapSettings,
    QgsPalettedRasterRenderer,
    QgsRasterLayer,
)
from qgis.PyQt.QtCore import QRect, QSize, Qt
from qgis.PyQt.QtGui import QColor, QFont, QPainter

MAP_PX = 700
LEGEND_PX = 340
ROW_PX = 26


def draw(path: str, out: str) -> int:
    layer = QgsRasterLayer(path, "map", "gdal")
    if not layer.isValid():
        print(f"QGIS cannot read {path}: {layer.error().message()}")
        return 1
    renderer = layer.renderer()
    print(f"renderer {renderer.type()}, CRS {layer.crs().authid()}, nodata {layer.dataProvider().sourceNoDataValue(1)}")
    if not isinstance(renderer, QgsPalettedRasterRenderer) or not renderer.classes():
        print("the style beside the map was not used")
        return 1
    classes = renderer.classes()
    for entry in classes:
        print(f"  {entry.value:g} {entry.color.name()} {entry.label}")
    settings = QgsMapSettings()
    settings.setLayers([layer])
    settings.setDestinationCrs(layer.crs())
    settings.setExtent(layer.extent())
    settings.setOutputSize(QSize(MAP_PX, MAP_PX))
    settings.setBackgroundColor(QColor("white"))
    job = QgsMapRendererSequentialJob(settings)
    job.start()
    job.waitForFinished()
    picture = job.renderedImage().copy(QRect(0, 0, MAP_PX + LEGEND_PX, max(MAP_PX, ROW_PX * (len(classes) + 1))))
    painter = QPainter(picture)
    painter.fillRect(QRect(MAP_PX, 0, LEGEND_PX, picture.height()), Qt.white)
    painter.setFont(QFont("sans", 10))
    for row, entry in enumerate(classes):
        top = ROW_PX * row + 12
        painter.fillRect(QRect(MAP_PX + 12, top, 26, ROW_PX - 8), entry.color)
        painter.drawText(MAP_PX + 48, top + 14, f"{entry.value:g}  {entry.label}")
    painter.end()
    if not picture.save(out):
        print(f"{out} cannot be written")
        return 1
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    application = QgsApplication([], False)
    application.initQgis()
    code = draw(sys.argv[1], sys.argv[2])
    application.exitQgis()
    sys.exit(code)
