"""What comes from npm: named by version and sum, never committed, and put beside the page when covermap is built."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
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


def test_every_dependency_has_a_lowest_version_that_is_tried():
    found = runpy.run_path(str(ROOT / "packaging" / "lowest.py"))
    rows = found["lowest"]()
    assert all(re.fullmatch(r"[\w.-]+==[\d.]+", row) for row in [*rows, found["torch"]()])
    assert {"numpy", "rasterio", "scikit-learn", "pyarrow"} <= {row.split("==")[0] for row in rows}
    assert "torch" not in {row.split("==")[0] for row in rows}


def test_pictures_of_the_readme_are_small():
    shown = re.findall(r"^!\[(.+)\]\((docs/pictures/.+)\)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert {Path(path).name for _, path in shown} == {"map.png", "change.png", "report.png"}
    for meaning, path in shown:
        assert len(meaning) > 40
        assert (ROOT / path).stat().st_size < 300_000


def test_the_container_names_no_host_and_takes_the_versions_of_the_tests():
    lines = (ROOT / "Containerfile").read_text(encoding="utf-8").splitlines()
    assert not any("://" in line for line in lines)
    assert {line.split()[1] for line in lines if line.startswith("FROM")} == {"python:3.11-slim-bookworm"}
    installs = [line for line in lines if "pip install" in line]
    assert len(installs) == 2
    assert all("--constraint /tmp/constraints.txt" in line for line in installs)
    assert [line for line in lines if line.startswith("USER")] == ["USER 1000"]


def built(tmp_path, what):
    """The archive that pip or setuptools makes of what is committed; skips without npm."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, names):
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "source" / name)
    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path / "out"), "."]
    sdist = [
        sys.executable,
        "-c",
        f"import sys; sys.path[0] = 'packaging'; import backend; backend.build_sdist({str(tmp_path / 'out')!r})",
    ]
    (tmp_path / "out").mkdir()
    subprocess.run(wheel if what == "wheel" else sdist, cwd=tmp_path / "source", check=True, timeout=300)
    (archive,) = (tmp_path / "out").iterdir()
    return archive


@pytest.mark.slow
def test_a_wheel_holds_the_package_and_leaflet_with_their_licences_and_nothing_else(tmp_path):
    with zipfile.ZipFile(built(tmp_path, "wheel")) as held:
        inside = set(held.namelist())
        vendor = "covermap/view/page/vendor"
        assert {f"{vendor}/leaflet.js", f"{vendor}/leaflet.css", f"{vendor}/LICENSE.leaflet"} <= inside
        assert b"1.9.4" in held.read(f"{vendor}/leaflet.js")[:400]
        assert any(name.endswith("licenses/LICENSE") for name in inside)
        assert {"covermap/py.typed", "covermap/legends/corine.yaml", "covermap/report/page.html"} <= inside
        assert {re.split(r"[/-]", name)[0] for name in inside} == {"covermap"}
        assert not [name for name in inside if "node_modules" in name or "__pycache__" in name]


@pytest.mark.slow
def test_a_source_archive_holds_what_a_wheel_is_built_from(tmp_path):
    pytest.importorskip("setuptools")
    with tarfile.open(built(tmp_path, "sdist")) as held:
        inside = {name.partition("/")[2] for name in held.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "constraints.txt", "packaging/backend.py"} <= inside
    assert {"package-lock.json", "covermap/view/page/vendor/leaflet.js"} <= inside
    assert not [name for name in inside if name.startswith(("tests", "benchmarks", "node_modules", "recipes"))]
