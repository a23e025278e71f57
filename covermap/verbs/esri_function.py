"""A Python raster function for ArcGIS: an ONNX network over an image, tile by tile -> a raster of class codes.

covermap copies this file beside an Esri model definition (.emd); it is complete in itself and needs numpy and
onnxruntime in the Python of ArcGIS. Interface: Esri, "Python raster functions" and "Deep learning model definition".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class LandCover:
    """Codes of the most probable classes; ArcGIS calls the methods in the order in which they stand."""

    def __init__(self) -> None:
        self.name = "Land cover"
        self.description = "Classifies each pixel with an ONNX network that covermap exported."
        self.definition: dict[str, Any] = {}
        self.padding = 0

    def initialize(self, **kwargs: Any) -> None:
        """Load the network; `model` is the path of the .emd file, or its text."""
        import onnxruntime

        if not kwargs.get("model"):
            return
        text, folder = str(kwargs["model"]), Path()
        if not text.lstrip().startswith("{"):
            folder = Path(text).parent
            text = Path(text).read_text(encoding="utf-8")
        self.definition = json.loads(text)
        file = folder / self.definition["ModelFile"]
        self.session = onnxruntime.InferenceSession(str(file), providers=onnxruntime.get_available_providers())
        self.codes = np.array([each["Value"] for each in self.definition["Classes"]])

    def getParameterInfo(self) -> list[dict[str, Any]]:
        """What a user of the function is asked."""
        return [
            {"name": "raster", "dataType": "raster", "value": None, "required": True, "displayName": "Image",
             "description": "Bands in the order of BandNames in the model definition, numbers as in its files."},
            {"name": "model", "dataType": "string", "value": None, "required": True, "displayName": "Model definition",
             "description": "The .emd file."},
            {"name": "padding", "dataType": "numeric", "value": self.definition.get("ModelPadding", 0),
             "required": False, "displayName": "Padding", "description": "Pixels of a tile's frame that are left out."},
        ]  # fmt: skip

    def getConfiguration(self, **scalars: Any) -> dict[str, Any]:
        """Which bands and how large tiles ArcGIS is to hand over: those of the network with its frame."""
        self.padding = int(scalars.get("padding") or 0)
        inner = int(self.definition["ImageHeight"]) - 2 * self.padding
        if inner < 1:
            raise ValueError(f"padding {self.padding} leaves nothing of a tile")
        return {
            "extractBands": tuple(self.definition["ExtractBands"]), "padding": self.padding, "tx": inner, "ty": inner,
            "fixedTileSize": 1, "inheritProperties": 2 | 4 | 8, "inputMask": True,
        }  # fmt: skip

    def updateRasterInfo(self, **kwargs: Any) -> dict[str, Any]:
        """One band of codes, with the names and colours of the classes."""
        kinds = {
            "OID": "OID",
            "Value": "Integer",
            "Class": "String",
            "Red": "Integer",
            "Green": "Integer",
            "Blue": "Integer",
        }
        rows = [(number, c["Value"], c["Name"], *c["Color"]) for number, c in enumerate(self.definition["Classes"], 1)]
        table = {
            "fields": [{"name": key, "alias": key, "type": f"esriFieldType{kind}"} for key, kind in kinds.items()],
            "features": [{"attributes": dict(zip(kinds, row, strict=True))} for row in rows],
        }
        kwargs["output_info"] |= {
            "bandCount": 1, "pixelType": "u1" if self.codes.max() < 256 else "u2", "statistics": (), "histogram": (),
            "noData": np.array([self.definition["NoData"]]), "rasterAttributeTable": json.dumps(table),
        }  # fmt: skip
        return kwargs

    def updatePixels(
        self,
        tlc: tuple[int, int],
        shape: tuple[int, ...],
        props: dict[str, Any],
        **pixelBlocks: npt.NDArray[Any],
    ) -> dict[str, npt.NDArray[Any]]:
        """Classify a tile (bands, rows, columns) with its frame; the frame is cut off, nodata stays nodata."""
        pixels = np.asarray(pixelBlocks["raster_pixels"], np.float32)
        mask = np.asarray(pixelBlocks.get("raster_mask", np.ones_like(pixels, np.uint8)))
        known = mask.reshape(-1, *pixels.shape[-2:]).min(0) > 0
        side, (height, width) = int(self.definition["ImageHeight"]), pixels.shape[-2:]
        rows, cols = max(0, side - height), max(0, side - width)  # ArcGIS cuts tiles at the image's border
        # As in training: what is not known are the bands' means, which the network takes as 0.
        pixels = np.where(known, pixels, np.array(self.definition["Fill"], np.float32)[:, None, None])
        filled = np.pad(pixels[:, :side, :side], ((0, 0), (0, rows), (0, cols)), mode="edge")
        name = self.session.get_inputs()[0].name
        logits = self.session.run(None, {name: filled[None, None]})[0][0, :, :height, :width]
        codes = np.where(known, self.codes[logits.argmax(0)], self.definition["NoData"])
        frame = self.padding
        inner = (slice(frame, height - frame), slice(frame, width - frame))
        pixelBlocks["output_pixels"] = codes[inner][None].astype(props["pixelType"], copy=False)
        pixelBlocks["output_mask"] = known[inner][None].astype("u1", copy=False)
        return pixelBlocks
