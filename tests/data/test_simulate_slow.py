"""The simulated scene at size: memory of a large scene, and how hard the task is."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from covermap.data.simulate import SceneRecipe, SimulatedScene

pytestmark = pytest.mark.slow


def test_a_large_scene_needs_the_memory_of_a_block(tmp_path):
    """Resident memory of a whole process that writes 16 times the area grows by less than a fifth."""
    code = (
        "import sys, resource; from covermap.data.simulate import *; n = int(sys.argv[1]);"
        "write_scene(SceneRecipe(height=n, width=n), sys.argv[2], block_px=512);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    used_kb = {
        size: int(
            subprocess.run(
                [sys.executable, "-c", code, str(size), str(tmp_path / str(size))],
                capture_output=True,
                text=True,
                check=True,
                env={**os.environ, "GDAL_CACHEMAX": "32"},
            ).stdout
        )
        for size in (768, 3072)
    }
    assert used_kb[3072] < 1.2 * used_kb[768]


@pytest.mark.parametrize("seed", [0, 1])
def test_context_helps_a_forest_of_pixels(seed):
    """Left half against right half: single pixels reach 0.70 to 0.82, their 5 x 5 means at least 0.05 more."""
    forests = pytest.importorskip("sklearn.ensemble")
    scene = SimulatedScene(SceneRecipe(seed=seed))
    image = scene.optical(scene.grid.window).astype(np.float32)
    truth = scene.truth(scene.grid.window)
    random = np.random.default_rng(0)
    train, test = random.choice(1024 * 512, 20_000, replace=False), random.choice(1024 * 512, 40_000, replace=False)

    def accuracy(values: np.ndarray) -> float:
        columns = values.transpose(1, 2, 0)
        model = forests.RandomForestClassifier(60, min_samples_leaf=2, n_jobs=2, random_state=0)
        model.fit(columns[:, :512].reshape(-1, 6)[train], truth[:, :512].ravel()[train])
        return float(model.score(columns[:, 512:].reshape(-1, 6)[test], truth[:, 512:].ravel()[test]))

    alone, smoothed = accuracy(image), accuracy(np.stack([uniform_filter(band, 5) for band in image]))
    assert 0.70 < alone < 0.82
    assert smoothed > alone + 0.05
