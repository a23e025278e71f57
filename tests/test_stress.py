"""benchmarks/stress.py in small: calls are killed, starved of room, doubled and repeated, and end whole or in words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")]


@pytest.mark.parametrize(
    "words",
    [
        "kill --verbs prepare predict embed change --times 3 --seed 1",
        "kill --verbs train pretrain --times 2 --seed 1",
        "kill --verbs run compare --times 3 --seed 1",
        "alone --verbs predict_processes --times 1",
        "disk --verbs predict change --times 3",
        "two --verbs prepare embed --times 2",
        "leak --times 30",
    ],
)
def test_nothing_is_wrong_afterwards(words):
    command = [sys.executable, "-W", "ignore", str(ROOT / "benchmarks/stress.py"), *words.split()]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
