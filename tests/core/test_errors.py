"""What is missing is named with what brings it."""

import tomllib
from pathlib import Path

from covermap.core.errors import EXTRAS, MissingExtra

ROOT = Path(__file__).resolve().parents[2]


def test_extras_are_those_that_can_be_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(EXTRAS) == set(project["optional-dependencies"]) - {"dev"}


def test_a_missing_module_is_named_with_its_extra():
    error = MissingExtra.of(ModuleNotFoundError("No module named 'scipy.special'", name="scipy.special"), "assess")
    assert error is not None
    assert "assess needs the package scipy" in str(error)
    assert "covermap[ml]" in str(error)
    assert MissingExtra.of(ModuleNotFoundError("no", name="nothing"), "assess") is None


def test_no_verb_calls_a_missing_extra_a_bug(covermap, monkeypatch):
    def broken():
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")

    monkeypatch.setattr("covermap.verbs.doctor.doctor", broken)
    code, _, err = covermap("doctor")
    assert code == 1
    assert "pip install 'covermap[ml]'" in err
    assert "bug" not in err
