"""UMAP of embeddings, where umap-learn is installed (McInnes, Healy & Melville 2018, arXiv 1802.03426)."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

_NEIGHBOURS, _LEAST = 15, 10


def umap_of(scores: npt.NDArray[np.float64], *, seed: int) -> tuple[npt.NDArray[np.float64] | None, str]:
    """Scores (n, p) -> coordinates (n, 2) of one seed; None and why not."""
    if len(scores) < _LEAST:
        return None, f"{len(scores)} chips are too few for UMAP"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import umap
        except ImportError as error:  # numba says so where it does not know this numpy
            missing = getattr(error, "name", None) == "umap"
            said = "umap-learn is not installed" if missing else f"umap-learn cannot be loaded ({error})"
            return None, f"no UMAP: {said} (pip install 'covermap[umap]')"
        model = umap.UMAP(n_neighbors=min(_NEIGHBOURS, len(scores) - 1), random_state=seed, n_jobs=1)
        return np.asarray(model.fit_transform(scores), np.float64), ""
