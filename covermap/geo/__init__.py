"""Pixels on the Earth: grids, rasters, vectors, map products. Numpy and rasterio, never torch."""

import os
import warnings

from rasterio.errors import NotGeoreferencedWarning

# GDAL's own default is a twentieth of the machine's memory for decoded blocks: too much to call memory bounded.
os.environ.setdefault("GDAL_CACHEMAX", "192")

# Files without georeference are fine (benchmark tiles): where a place is needed, it is checked. For the whole process:
# a filter for a block of code is not safe where several threads open files.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
