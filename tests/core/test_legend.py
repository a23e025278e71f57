"""The shipped legends, and the way between codes of a file and class indices of a network."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from covermap.core.errors import DataError, LabelError
from covermap.core.legend import IGNORE, LandClass, Legend, load_legend, shipped
from covermap.core.run import Run
from covermap.data.source import read_table
from covermap.data.split import Split

# Codes as the producers publish them; colours of some classes as a second witness.
PUBLISHED = {
    "esa_worldcover": ([10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100], {10: "#006400", 80: "#0064c8"}),
    "esri_io": ([1, 2, 4, 5, 7, 8, 9, 11], {1: "#1a5bab", 11: "#c6ad8d"}),
    "dynamic_world": (list(range(9)), {0: "#419bdf", 8: "#b39fe1"}),
    "nlcd": ([11, 12, 21, 22, 23, 24, 31, 41, 42, 43, 51, 52, 71, 72, 73, 74, 81, 82, 90, 95], {11: "#466b9f"}),
    "wusu": ([0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12], {3: "#ff0000", 6: "#267300"}),
    "wusu_merged": ([0, 1, 2, 4, 6, 7, 8, 10, 11, 12], {}),
    "catalonia": (list(range(1, 13)), {1: "#7fff00", 12: "#000080"}),
    "lucas_italy": (list(range(1, 11)), {}),
    "ipcc": (list(range(1, 7)), {}),
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_shipped_legends_hold_the_published_codes(name: str) -> None:
    legend = load_legend(name)
    codes, colours = PUBLISHED[name]
    assert legend.name == name
    assert list(legend.codes) == codes
    assert {c.code: c.colour for c in legend.classes if c.code in colours} == colours
    assert legend.title
    assert legend.source.startswith("https://")


def test_every_shipped_legend_is_tested() -> None:
    assert shipped() == sorted([*PUBLISHED, "corine"])


def test_the_first_map_of_esri_kept_grass_and_scrub_apart() -> None:
    legend = load_legend("esri_io")
    assert legend.decode(legend.encode(np.array([3, 6, 11]))).tolist() == [11, 11, 11]


def test_corine_has_its_three_levels() -> None:
    legend = load_legend("corine")
    assert len(legend) == 44
    level_2 = [code // 10 for code in legend.codes]
    assert sorted(set(level_2)) == [11, 12, 13, 14, 21, 22, 23, 24, 31, 32, 33, 41, 42, 51, 52]
    assert [level_2.count(k) for k in sorted(set(level_2))] == [2, 4, 3, 2, 3, 3, 1, 4, 3, 4, 5, 2, 3, 2, 3]
    assert legend.map_dtype == "uint16"
    # The raster of Copernicus counts 1 to 44 and holds 48 for nothing.
    assert legend.encode(np.array([1, 44, 48, 111, 523])).tolist() == [0, 43, IGNORE, 0, 43]


@pytest.mark.parametrize("name", shipped())
def test_codes_go_to_indices_and_back(name: str) -> None:
    legend = load_legend(name)
    codes = np.array([legend.codes, legend.codes[::-1]], legend.map_dtype)
    index = legend.encode(codes)
    assert index.tolist() == [list(range(len(legend))), list(range(len(legend)))[::-1]]
    assert index.dtype == np.uint8
    np.testing.assert_array_equal(legend.decode(index), codes)
    assert legend.decode(index).dtype == legend.map_dtype
    assert legend.decode(np.array([IGNORE])).tolist() == [legend.map_nodata]
    assert legend.map_nodata not in legend.codes
    assert legend.encode(codes.astype(np.float32)).tolist() == index.tolist()


@pytest.mark.parametrize("name", shipped())
def test_codes_names_and_colours_are_distinct(name: str) -> None:
    legend = load_legend(name)
    for values in (legend.codes, legend.names, [c.colour for c in legend.classes]):
        assert len(set(values)) == len(legend)


@pytest.mark.parametrize("name", shipped())
def test_a_legend_survives_its_plain_form(name: str) -> None:
    legend = load_legend(name)
    assert Legend.from_dict(yaml.safe_load(yaml.safe_dump(legend.to_dict()))) == legend


def test_nodata_is_no_class_where_zero_is_one() -> None:
    assert {name: load_legend(name).map_nodata for name in ("dynamic_world", "wusu", "esa_worldcover")} == {
        "dynamic_world": 255,
        "wusu": 255,
        "esa_worldcover": 0,
    }
    assert load_legend("dynamic_world").encode(np.array([0, 255])).tolist() == [0, IGNORE]
    assert load_legend("wusu").encode(np.array([0, 12])).tolist() == [0, 11]
    assert load_legend("esri_io").encode(np.array([0, 10, 11])).tolist() == [IGNORE, IGNORE, 7]


def test_wusu_merges_to_exactly_ten() -> None:
    merges = {"Building": ["Low building", "High building"], "Waterbody": ["River", "Lake"]}
    merged = load_legend("wusu").merge(merges)
    shipped_one = load_legend("wusu_merged")
    assert len(merged) == 10
    assert merged.classes == shipped_one.classes
    assert merged.merged == shipped_one.merged
    raw = np.array([0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12])
    assert merged.encode(raw).tolist() == [0, 1, 2, 2, 3, 4, 5, 6, 6, 7, 8, 9]
    assert shipped_one.encode(raw).tolist() == merged.encode(raw).tolist()


def test_unknown_codes_are_listed_with_counts_and_never_class_0() -> None:
    legend = load_legend("wusu")
    codes = np.array([[5, 5, 1], [13, 5, 2]], np.uint8)
    with pytest.raises(LabelError, match=r"mask\.tif hold codes .* 5 \(3 px\), 13 \(1 px\)"):
        legend.encode(codes, where="mask.tif")
    assert legend.encode(codes, unknown="ignore").tolist() == [[IGNORE, IGNORE, 1], [IGNORE, IGNORE, 2]]


def test_an_unknown_legend_is_answered_with_a_near_one() -> None:
    with pytest.raises(LabelError) as caught:
        load_legend("esa_worldcove")
    assert "'esa_worldcover'" in caught.value.fix


@pytest.mark.parametrize(("text", "message"), [
    ("1: Wüste\n".encode("latin1"), "is not valid YAML"),
    (b"classes: [{code: 1, name: a}]\nmerged: {99999: 1}\n", "99999.* outside of 0 to 65535"),
    (b"classes: [{code: 1, name: a}]\nmerged: {-1: 1}\n", "-1.* outside of 0 to 65535"),
    (b"classes: [{code: 1, name: a}]\nmerged: {3: 2}\n", "no classes of it"),
    (b"classes: [{code: 1, name: a}]\nold_names: {b: 2}\n", "no classes of it"),
])  # fmt: skip
def test_files_that_are_no_legend_are_refused(tmp_path, text, message) -> None:
    (tmp_path / "own.yaml").write_bytes(text)
    with pytest.raises(LabelError, match=message):
        load_legend(tmp_path / "own.yaml")


def test_other_files_that_are_no_utf8_are_refused(tmp_path) -> None:
    for name in ("config.yaml", "table.csv"):
        (tmp_path / name).write_bytes("a,b: Wüste\n".encode("latin1"))
    for read in (
        Run.open,
        lambda folder: Split.load(folder / "table.csv"),
        lambda folder: read_table(folder / "table.csv", "a", "b"),
    ):
        with pytest.raises(
            DataError, match=r"(config\.yaml|table\.csv) (cannot be read as text|is no split file|is not a CSV table)"
        ):
            read(tmp_path)


@st.composite
def legends(draw):
    """Any codes in any order, with nodata and ignored ones."""
    codes = draw(st.lists(st.integers(0, 65534), min_size=1, max_size=40, unique=True))
    classes = tuple(LandClass(code, f"class {code}", f"#{code:06x}") for code in codes)
    others = st.integers(-3, 70_000).filter(lambda code: code not in codes)
    ignore = tuple(draw(st.lists(others, max_size=3, unique=True)))
    return Legend("any", classes, nodata=draw(st.none() | others), ignore=ignore)


@given(legends(), st.integers(0, 10_000), st.sampled_from(["uint16", "int32", "int64", "float64"]))
def test_codes_of_any_legend_go_to_indices_and_back(legend, seed, dtype):
    index = np.random.default_rng(seed).integers(0, len(legend), (5, 7)).astype(np.uint8)
    index[0, :2] = IGNORE
    codes = legend.decode(index)
    assert codes.dtype == legend.map_dtype
    assert codes[0, 0] == legend.map_nodata
    own = np.where(index == IGNORE, legend.codes[0], codes).astype(dtype)
    expected = np.where(index == IGNORE, 0, index)
    np.testing.assert_array_equal(legend.encode(own), expected)
    np.testing.assert_array_equal(legend.encode(own.astype("uint8")) if max(legend.codes) < 256 else expected, expected)
    assert Legend.from_dict(legend.to_dict()) == legend


@given(legends(), st.lists(st.integers(-5, 80_000), min_size=1, max_size=60))
def test_a_code_is_a_class_or_ignored_or_counted_as_unknown(legend, given_codes):
    codes = np.array(given_codes)
    told = [code for code in given_codes if code in legend.codes]
    silent = {*legend.ignore, legend.nodata}
    strange = [code for code in given_codes if code not in legend.codes and code not in silent]
    index = legend.encode(codes, unknown="ignore")
    assert (index != IGNORE).sum() == len(told)
    np.testing.assert_array_equal(index[index != IGNORE], [legend.codes.index(code) for code in told])
    if not strange:
        np.testing.assert_array_equal(legend.encode(codes), index)
        return
    with pytest.raises(LabelError) as refused:
        legend.encode(codes)
    for code in sorted(set(strange))[:10]:
        assert f"{code} ({strange.count(code)} px)" in refused.value.message


@given(legends(), st.integers(0, 10_000))
def test_merged_classes_are_what_they_were_merged_into(legend, seed):
    random = np.random.default_rng(seed)
    groups = random.integers(0, 3, len(legend))
    merges = {f"group {k}": [legend.names[i] for i in np.flatnonzero(groups == k)] for k in set(groups.tolist())}
    coarse = legend.merge(merges)
    assert sorted(coarse.names) == sorted(merges)
    old = np.array(legend.codes)
    for k, index in zip(groups, coarse.encode(old), strict=True):
        assert coarse.names[index] == f"group {k}"
