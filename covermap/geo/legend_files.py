"""Legends as other programs know them: YAML, QGIS style (.qml), colour table (.clr), CSV, .aux.xml, SLD.

| file      | holds                  | read by                     |
|-----------|------------------------|-----------------------------|
| .yaml     | everything             | covermap                    |
| .qml      | codes, names, colours  | QGIS, beside the map unasked |
| .clr      | codes, colours         | ArcGIS, OTB, GRASS          |
| .csv      | codes, names, colours  | spreadsheets                |
| .aux.xml  | codes, names, colours, pixels, areas | GDAL, QGIS, ArcGIS |
| .sld      | codes, names, colours, name, title | GeoServer, MapServer, QGIS |

`not_held` says what of a legend a form leaves out.
"""

from __future__ import annotations

import csv
import io
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from covermap.core.errors import LabelError
from covermap.core.legend import LandClass, Legend, load_legend
from covermap.core.output import write_text
from covermap.core.parsing import parse_csv

SUFFIXES = (".yaml", ".yml", ".qml", ".clr", ".csv", ".aux.xml", ".sld")
_SLD = "http://www.opengis.net/sld"

# Column, type (0 integer, 1 real, 2 string) and usage (0 generic, 1 pixel count, 2 name, 5 value, 6-9 R G B A)
# as GDALRATFieldType and GDALRATFieldUsage number them.
_RAT_COLUMNS = (
    ("Value", 0, 5),
    ("Count", 1, 1),  # real: large maps have more pixels than 32 bits can count
    ("Class", 2, 2),
    ("Red", 0, 6),
    ("Green", 0, 7),
    ("Blue", 0, 8),
    ("Alpha", 0, 9),
    ("Area_ha", 1, 0),
)


def write_legend(legend: Legend, path: str | Path) -> Path:
    """Write a legend in the form that the file's ending names; replaces the file. Raises LabelError, OutputError."""
    suffix = _suffix(path)
    if suffix == ".qml":
        text = qml_text(legend.classes)
    elif suffix == ".clr":
        text = clr_text(legend.classes)
    elif suffix == ".csv":
        text = csv_text(("code", "name", "colour"), [(c.code, c.name, c.colour) for c in legend.classes])
    elif suffix == ".aux.xml":
        text = aux_xml_text(legend.classes)
    elif suffix == ".sld":
        text = sld_text(legend)
    else:
        text = yaml.safe_dump(legend.to_dict(), sort_keys=False, allow_unicode=True, width=120)
    return write_text(path, text)


def not_held(legend: Legend, path: str | Path) -> list[str]:
    """What of a legend the form that a file's ending names cannot hold, of what this legend has; raises LabelError."""
    suffix = _suffix(path)
    if suffix in (".yaml", ".yml"):
        return []
    parts = {
        "names of the classes": suffix == ".clr",
        "the title": bool(legend.title) and suffix != ".sld",
        "the source": bool(legend.source),
        f"that {legend.nodata} is nodata": legend.nodata is not None,
        "codes that are ignored": bool(legend.ignore),
        "codes and names that were merged": bool(legend.merged or legend.old_names),
    }
    return [part for part, lost in parts.items() if lost]


def read_legend(path: str | Path) -> Legend:
    """A shipped legend by name, or one from any of the forms `write_legend` writes; raises LabelError.

    Only YAML says what is nodata and ignored; a .clr file has no names, its classes are called `class CODE`.
    """
    if not Path(path).suffix:
        return load_legend(path)
    suffix = _suffix(path)
    if suffix in (".yaml", ".yml"):
        return load_legend(path)
    if not Path(path).is_file():
        raise LabelError(f"there is no legend file {path}", fix="check the path")
    readers = {".qml": _from_qml, ".clr": _from_clr, ".csv": _from_csv, ".aux.xml": _from_aux_xml, ".sld": _from_sld}
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        rows = readers[suffix](text)
        entries = [{"code": _whole(code), "name": name, "colour": colour} for code, name, colour in rows]
    except (ET.ParseError, UnicodeDecodeError, LookupError, ValueError, TypeError, OverflowError) as error:
        raise LabelError(
            f"{path} is no legend in {suffix} form: {error!r}", fix=f"write one to compare: {_EXAMPLE}{suffix}"
        ) from error
    if not entries:
        raise LabelError(f"{path} holds no classes", fix="save the layer's style as paletted / unique values")
    name = Path(path).name.removesuffix(suffix)
    title = _sld_title(text) if suffix == ".sld" else ""
    return Legend.from_dict({"name": name, "title": title, "classes": entries}, where=str(path))


def class_names(raster: str | Path) -> dict[int, str]:
    """Class names by code that GDAL keeps beside a raster (.aux.xml) or in a VRT; empty where there are none."""
    for path in (Path(f"{raster}.aux.xml"), Path(raster)):
        if path.suffix.lower() not in (".xml", ".vrt") or not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8-sig")
            listed = next(ET.fromstring(text).iter("CategoryNames"), None)
            if listed is not None:
                return {code: each.text for code, each in enumerate(listed) if each.text}
            return {int(float(code)): name for code, name, _ in _from_aux_xml(text) if name}
        except (ET.ParseError, UnicodeDecodeError, LookupError, ValueError, OverflowError):
            continue  # names are a courtesy: another program's table may be of any form
    return {}


_EXAMPLE = "covermap legend convert esa_worldcover example"


def _suffix(path: str | Path) -> str:
    name = Path(path).name.lower()
    for suffix in SUFFIXES:
        if name.endswith(suffix):
            return suffix
    raise LabelError(f"{path} has no ending of a legend file", fix="use one of " + ", ".join(SUFFIXES))


def csv_text(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table as CSV text with a header line."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows(rows)
    return text.getvalue()


def clr_text(classes: Sequence[LandClass]) -> str:
    """A colour table of ArcGIS, OTB and GRASS: a line for each class, code red green blue."""
    return "".join(f"{c.code} {c.rgb[0]} {c.rgb[1]} {c.rgb[2]}\n" for c in classes)


def qml_text(classes: Sequence[LandClass]) -> str:
    """A QGIS style (3.x): band 1 as paletted / unique values. QGIS loads it by itself when it is called as the map."""
    qgis = ET.Element("qgis", version="3.22.0", styleCategories="Symbology")
    pipe = ET.SubElement(qgis, "pipe")
    renderer = ET.SubElement(
        pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1", nodataColor=""
    )
    ET.SubElement(renderer, "rasterTransparency")
    palette = ET.SubElement(renderer, "colorPalette")
    for c in classes:
        ET.SubElement(palette, "paletteEntry", value=str(c.code), color=c.colour, label=c.name, alpha="255")
    # Without this QGIS would blend neighbouring colours when it zooms out.
    ET.SubElement(pipe, "rasterresampler", maxOversampling="2")
    ET.SubElement(qgis, "blendMode").text = "0"
    return "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + _xml_text(qgis)


def sld_text(legend: Legend) -> str:
    """A Styled Layer Descriptor 1.0 (OGC 02-070) of one raster layer; `type="values"` as GeoServer and QGIS know it."""
    ET.register_namespace("", _SLD)
    root = ET.Element(f"{{{_SLD}}}StyledLayerDescriptor", version="1.0.0")
    layer = _below(root, "NamedLayer")
    _below(layer, "Name").text = legend.name
    style = _below(layer, "UserStyle")
    _below(style, "Title").text = legend.title or legend.name
    symbolizer = _below(_below(_below(style, "FeatureTypeStyle"), "Rule"), "RasterSymbolizer")
    colours = _below(symbolizer, "ColorMap")
    colours.set("type", "values")
    for c in legend.classes:
        entry = {"color": c.colour, "quantity": str(c.code), "label": c.name, "opacity": "1"}
        ET.SubElement(colours, f"{{{_SLD}}}ColorMapEntry", entry)
    return "<?xml version='1.0' encoding='UTF-8'?>\n" + _xml_text(root)


def _below(parent: ET.Element, tag: str) -> ET.Element:
    return ET.SubElement(parent, f"{{{_SLD}}}{tag}")


def polygon_qml_text(legend: Legend, field: str) -> str:
    """A QGIS style (3.x) of polygons: a fill for each class by the code in `field`. QGIS loads it as that of a map."""
    qgis = ET.Element("qgis", version="3.22.0", styleCategories="Symbology")
    renderer = ET.SubElement(
        qgis, "renderer-v2", type="categorizedSymbol", attr=field, symbollevels="0", enableorderby="0", forceraster="0"
    )
    categories, symbols = ET.SubElement(renderer, "categories"), ET.SubElement(renderer, "symbols")
    for number, c in enumerate(legend.classes):
        name = str(number)
        ET.SubElement(
            categories, "category", value=str(c.code), type="integer", symbol=name, label=c.name, render="true"
        )
        symbol = ET.SubElement(symbols, "symbol", type="fill", name=name, alpha="1", clip_to_extent="1", force_rhr="0")
        fill = ET.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"})
        options = ET.SubElement(fill, "Option", type="Map")
        colour = ",".join(map(str, (*c.rgb, 255)))
        for key, value in (("color", colour), ("style", "solid"), ("outline_style", "no")):
            ET.SubElement(options, "Option", name=key, type="QString", value=value)
    ET.SubElement(qgis, "blendMode").text = "0"
    ET.SubElement(qgis, "layerGeometryType").text = "2"
    return "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + _xml_text(qgis)


def aux_xml_text(
    classes: Sequence[LandClass], num_pixels: Sequence[int] | None = None, areas_ha: Sequence[float] | None = None,
    columns: Mapping[str, Sequence[str]] | None = None,
) -> str:  # fmt: skip
    """GDAL's side file of a map (PAM): category names, and a raster attribute table with one row per class.

    num_pixels, areas_ha: per class; zeros where they are not given. columns: further texts of each class, by name.
    """
    more = columns or {}
    root = ET.Element("PAMDataset")
    band = ET.SubElement(root, "PAMRasterBand", band="1")
    if max(c.code for c in classes) < 256:
        names = {c.code: c.name for c in classes}
        categories = ET.SubElement(band, "CategoryNames")
        for code in range(max(names) + 1):
            ET.SubElement(categories, "Category").text = names.get(code, "")
    table = ET.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    for index, (name, kind, usage) in enumerate((*_RAT_COLUMNS, *((name, 2, 0) for name in more))):
        column = ET.SubElement(table, "FieldDefn", index=str(index))
        for tag, value in (("Name", name), ("Type", kind), ("Usage", usage)):
            ET.SubElement(column, tag).text = str(value)
    for index, c in enumerate(classes):
        row = ET.SubElement(table, "Row", index=str(index))
        count = num_pixels[index] if num_pixels is not None else 0
        area = f"{areas_ha[index] if areas_ha is not None else 0:.4f}"
        values: list[object] = [c.code, count, c.name, *c.rgb, 255, area]
        for each in (*values, *(texts[index] for texts in more.values())):
            ET.SubElement(row, "F").text = str(each)
    return _xml_text(root)


def _xml_text(root: ET.Element) -> str:
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


_Row = tuple[str, str, str | None]


def _from_qml(text: str) -> list[_Row]:
    return [
        (e.attrib["value"], e.get("label") or f"class {e.attrib['value']}", e.attrib["color"][:7])
        for e in ET.fromstring(text).iter("paletteEntry")
    ]


def _from_sld(text: str) -> list[_Row]:
    entries = _tagged(text, "ColorMapEntry")
    shown = [e for e in entries if float(e.get("opacity", 1)) > 0]  # nodata is drawn as nothing
    return [(e.attrib["quantity"], e.get("label") or f"class {e.attrib['quantity']}", e.attrib["color"]) for e in shown]


def _sld_title(text: str) -> str:
    """The first title that is not just the layer's name."""
    names = {e.text for e in _tagged(text, "Name")}
    return next((e.text for e in _tagged(text, "Title") if e.text and e.text not in names), "")


def _tagged(text: str, tag: str) -> list[ET.Element]:
    """Elements by name in any namespace: those of versions 1.0 and 1.1 differ."""
    return [e for e in ET.fromstring(text).iter() if e.tag.rpartition("}")[2] == tag]


def _from_clr(text: str) -> list[_Row]:
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [(line[0], f"class {line[0]}", _colour(line[1:4])) for line in lines]


def _from_csv(text: str) -> list[_Row]:
    table = parse_csv(text, ("code", "name"))
    return [(row["code"], row["name"], row.get("colour") or row.get("color")) for row in table]


def _from_aux_xml(text: str) -> list[_Row]:
    root = ET.fromstring(text)
    usages = [int(e.findtext("Usage", "0")) for e in root.iter("FieldDefn")]
    at = {usage: index for index, usage in enumerate(usages)}
    rows = [[f.text or "" for f in row.iter("F")] for row in root.iter("Row")]
    return [(row[at[5]], row[at[2]], _colour([row[at[i]] for i in (6, 7, 8)])) for row in rows]


def _whole(code: str) -> int:
    """A code that may be written as 10.0; raises ValueError for 10.5."""
    if not float(code).is_integer():
        raise ValueError(f"{code} is no class code")
    return int(float(code))


def _colour(rgb: Sequence[str]) -> str:
    red, green, blue = (int(float(v)) for v in rgb)
    return f"#{red:02x}{green:02x}{blue:02x}"
