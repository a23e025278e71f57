"""The house rules that a machine can check: sizes, public names, quick start, what is installed."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

import covermap

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "covermap").rglob("*.py"))
PUBLIC = [
    "__version__",
    "Batch",
    "CovermapError",
    "Features",
    "Grid",
    "Legend",
    "Model",
    "Raster",
    "Run",
    "Sample",
    "Scene",
    "Window",
    "change",
    "evaluate",
    "load_config",
    "load_legend",
    "load_model",
    "open_raster",
    "open_scenes",
    "predict",
    "register",
    "train",
]


def test_files_and_functions_stay_short():
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 500, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 62, f"{path}: {node.name}"


def test_no_file_has_a_name_that_explains_nothing():
    assert not {p.stem for p in SOURCES} & {"utils", "helpers", "common", "misc", "manager"}


def test_the_public_names_are_exactly_these_and_all_load():
    assert sorted(covermap.__all__) == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(covermap, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = covermap.nothing


@pytest.mark.parametrize("command", ["--help", "info --help", "legend list", "schema", "predict --help"])
def test_torch_is_not_imported_where_it_is_not_needed(command):
    code = (
        f"import sys; sys.argv = ['covermap', *{command.split()!r}]\n"
        "from covermap.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, covermap; print(sorted({'torch', 'numpy', 'rasterio', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def _closure(root: str) -> set[str]:
    found: set[str] = set()
    todo = [root]
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in found:
            continue
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # asked for on other systems only
        found.add(name)
        todo += [re.split(r"[ ;<>=!~\[(]", line)[0] for line in required if "extra ==" not in line]
    return found


def test_the_core_installs_few_packages_and_none_of_the_forbidden():
    closure = _closure("covermap")
    forbidden = "torchvision timm segmentation-models-pytorch lightly lightning pytorch-lightning torchgeo terratorch"
    assert not closure & {*forbidden.split(), "albumentations", "hydra-core"}
    # CUDA's packages come with other builds of torch than the CPU one.
    counted = {name for name in closure if not name.startswith(("nvidia", "cuda", "triton"))}
    assert 10 <= len(counted) <= 70, sorted(counted)
