"""Pixels on the Earth: grids, rasters, vectors, map products. Numpy and rasterio, never torch."""

import os

# GDAL's own default is a twentieth of the machine's memory for decoded blocks: too much to call memory bounded.
os.environ.setdefault("GDAL_CACHEMAX", "192")
