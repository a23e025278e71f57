"""What comes from npm: named by version and sum, never committed, and put beside the page when covermap is built."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_the_lock_names_versions_and_sums_but_no_addresses():
    text = (ROOT / "package-lock.json").read_text(encoding="utf-8")
    assert "resolved" not in text
    assert "://" not in text
    packages = {name: row for name, row in json.loads(text)["packages"].items() if name}
    assert set(packages) == {"node_modules/leaflet", "node_modules/axe-core"}
    assert all(row["integrity"].startswith("sha512-") for row in packages.values())
    wanted = json.loads((ROOT / "package.json").read_text(encoding="utf-8"))
    assert packages["node_modules/leaflet"]["version"] == wanted["dependencies"]["leaflet"]


def test_nothing_of_others_is_committed():
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    held = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert not [name for name in held if "node_modules" in name or "/vendor/" in name or "leaflet" in name.lower()]


@pytest.mark.slow
def test_a_wheel_holds_leaflet_with_its_licence(tmp_path):
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, names):
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "source" / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path / "out"), "."]
    subprocess.run(command, cwd=tmp_path / "source", check=True, timeout=300)
    (wheel,) = (tmp_path / "out").glob("covermap-*.whl")
    with zipfile.ZipFile(wheel) as held:
        inside = set(held.namelist())
        vendor = "covermap/view/page/vendor"
        assert {f"{vendor}/leaflet.js", f"{vendor}/leaflet.css", f"{vendor}/LICENSE.leaflet"} <= inside
        assert b"1.9.4" in held.read(f"{vendor}/leaflet.js")[:400]
