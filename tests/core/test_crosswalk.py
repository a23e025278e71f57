"""Crosswalks: the shipped ones against the published definitions, and what follows from them."""

from __future__ import annotations

from importlib import resources
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from covermap.core.crosswalk import Crosswalk, find_crosswalk, meet, read_crosswalk, shipped_crosswalks
from covermap.core.errors import LabelError
from covermap.core.legend import IGNORE, LandClass, Legend, load_legend

GLOBAL = ("corine", "dynamic_world", "esa_worldcover", "esri_io", "ipcc", "nlcd")


def become(source: str, target: str) -> dict[str, str | None]:
    """Names of classes -> names of classes."""
    return {row["name"]: row["to_name"] for row in find_crosswalk(load_legend(source), load_legend(target)).rows}


def write(folder: Path, raw: object, name: str = "own.yaml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(raw))
    return path


def test_each_file_is_called_as_what_it_leads_from_and_to() -> None:
    names = sorted(p.name for p in resources.files("covermap.crosswalks").iterdir() if p.name.endswith(".yaml"))
    assert names == [f"{c.source.name}_to_{c.target.name}.yaml" for c in shipped_crosswalks()]
    for each in shipped_crosswalks():
        assert "Matched by us" in each.basis
        assert set(each.codes) - {None} <= set(each.target.codes)


def test_what_has_no_counterpart_says_why() -> None:
    for each in shipped_crosswalks():
        for row in each.rows:
            assert row["to_code"] is not None or row["note"], (each.route, row["name"])


@pytest.mark.parametrize(("source", "target"), permutations(GLOBAL, 2))
def test_every_pair_has_a_way_and_states_all_classes(source: str, target: str) -> None:
    way = find_crosswalk(load_legend(source), load_legend(target))
    assert (way.route[0], way.route[-1]) == (source, target)
    assert [row["code"] for row in way.rows] == list(load_legend(source).codes)
    assert all(code is None or code in load_legend(target).codes for code in way.codes)
    assert way.basis


def test_facts_of_the_published_definitions() -> None:
    to_esri = become("esa_worldcover", "esri_io")
    assert {name for name, to in to_esri.items() if to == "Rangeland"} == {"Shrubland", "Grassland"}
    assert {name for name, to in become("dynamic_world", "esri_io").items() if to == "Rangeland"} == {
        "Grass", "Shrub and scrub",
    }  # fmt: skip
    assert to_esri["Moss and lichen"] is None
    corine = become("corine", "ipcc")
    assert corine["Sea and ocean"] is None
    assert {corine[name] for name in ("Rice fields", "Vineyards", "Olive groves")} == {"Cropland"}
    artificial = [to for name, to in corine.items() if load_legend("corine").index_of(name) < 11]
    assert set(artificial) == {"Settlements"}
    to_cover = become("corine", "esa_worldcover")
    assert to_cover["Mineral extraction sites"] == "Bare / sparse vegetation"  # so says WorldCover's definition
    assert to_cover["Sparsely vegetated areas"] is None  # 10 to 50 %: the names mislead
    assert become("nlcd", "esa_worldcover")["Pasture / hay"] == "Grassland"
    assert become("esa_worldcover", "ipcc")["Shrubland"] == "Grassland"
    # The other classes that have no plain counterpart say so.
    doubtful = {
        ("esa_worldcover", "ipcc"): ("Tree cover", "Shrubland", "Mangroves", "Moss and lichen", "Permanent water bodies"),
        ("esa_worldcover", "dynamic_world"): ("Herbaceous wetland", "Mangroves", "Moss and lichen", "Tree cover"),
        ("corine", "ipcc"): (242, 243, 244, 322, 323, 324, 333, 334, 421, 422), ("corine", "esa_worldcover"): (243, 244, 322, 323, 324, 412),
        ("nlcd", "ipcc"): (51, 52, 72, 73, 74, 90), ("nlcd", "esa_worldcover"): (21, 22, 51, 52, 72, 81, 82, 90),
        ("dynamic_world", "ipcc"): ("Flooded vegetation", "Shrub and scrub"), ("lucas_italy", "ipcc"): ("Shrubs",),
    }  # fmt: skip
    for (source, target), classes in doubtful.items():
        rows = find_crosswalk(load_legend(source), load_legend(target)).rows
        assert all(row["note"] for row in rows if {row["code"], row["name"]} & set(classes)), (source, target)


def test_the_way_back_names_what_several_come_from() -> None:
    way = find_crosswalk(load_legend("esri_io"), load_legend("esa_worldcover"))
    rows = {row["name"]: row for row in way.rows}
    assert rows["Trees"]["to_name"] == "Tree cover"
    assert rows["Rangeland"]["to_code"] is None
    assert rows["Rangeland"]["note"] == "any of: Shrubland; Grassland"
    assert rows["Flooded vegetation"]["to_name"] == "Herbaceous wetland"
    assert "rice paddies and flooded mangroves" in rows["Flooded vegetation"]["note"]  # what the way there says holds
    assert "Read backwards" in way.basis
    assert "Mangroves" in way.basis


def test_a_longer_way_is_one_step_after_the_other() -> None:
    way = find_crosswalk(load_legend("corine"), load_legend("esri_io"))
    assert way.route == ("corine", "esa_worldcover", "esri_io")
    first, second = become("corine", "esa_worldcover"), become("esa_worldcover", "esri_io")
    assert become("corine", "esri_io") == {name: second[via] if via else None for name, via in first.items()}
    arable = next(row for row in way.rows if row["code"] == 211)
    notes = [way.notes[code] for way, code in ((find_crosswalk(load_legend("corine"), load_legend("esa_worldcover")), 211),
             (find_crosswalk(load_legend("esa_worldcover"), load_legend("esri_io")), 40))]  # fmt: skip
    assert arable["note"] == "; ".join(notes)


def test_a_third_legend_leads_on_where_neither_way_does() -> None:
    found = become("corine", "nlcd")
    assert found["Water bodies"] == "Open water"
    assert found["Coniferous forest"] is None  # NLCD has four classes of tree cover


@pytest.mark.parametrize(
    ("source", "target", "unknown"),
    [
        ("esa_worldcover", "catalonia", {"Herbaceous wetland": "Watercourses and water bodies", "Snow and ice": "Bare soil",
                                         "Moss and lichen": "Bare soil"}),
        ("corine", "catalonia", {"Inland marshes": "Watercourses and water bodies"}),
        ("nlcd", "catalonia", {"Emergent herbaceous wetlands": "Watercourses and water bodies"}),
        ("esri_io", "lucas_italy", {"Flooded vegetation": "Inland water"}),
    ],
)  # fmt: skip
def test_what_meets_in_a_third_legend_need_not_be_the_same(source: str, target: str, unknown: dict[str, str]) -> None:
    rows = {row["name"]: row for row in find_crosswalk(load_legend(source), load_legend(target)).rows}
    for name, guess in unknown.items():
        assert rows[name]["to_name"] is None
        assert f"any of, or none of: {guess}" in rows[name]["note"]
    assert become(source, target)[{"corine": "Coniferous forest", "nlcd": "Mixed forest", "esri_io": "Trees"}.get(
        source, "Tree cover")] in ("Forest", "Wooden areas")  # is all of Forest land  # fmt: skip


def test_alone_in_a_third_legend_is_the_same() -> None:
    assert become("lucas_italy", "catalonia") == {
        "Arable lands": None, "Permanent crops": None, "Grass": "Scrub, meadows and grasslands",
        "Shrubs": "Scrub, meadows and grasslands", "Wooden areas": "Forest",
        "Bare surface, low or rare vegetation": "Bare soil", "Inland water": "Watercourses and water bodies",
        "Artificial, constructions and sealed areas": None, "Transitional waters and coastal waters": None,
        "Impossible to PI": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("esa_worldcover", "dynamic_world", "dynamic_world"), ("dynamic_world", "esa_worldcover", "dynamic_world"),
        ("esri_io", "corine", "esri_io"), ("corine", "nlcd", "esa_worldcover"), ("ipcc", "nlcd", "ipcc"),
        ("catalonia", "esa_worldcover", "ipcc"), ("nlcd", "nlcd", "nlcd"),
    ],
)  # fmt: skip
def test_where_two_legends_meet(first: str, second: str, expected: str) -> None:
    one, two = meet(load_legend(first), load_legend(second))
    assert one.target == two.target == load_legend(expected)
    assert (one.source.name, two.source.name) == (first, second)
    coarse = meet(load_legend(first), load_legend(second), target="ipcc")
    assert coarse[0].target == coarse[1].target == load_legend("ipcc")


def test_indices_follow_the_codes() -> None:
    way = find_crosswalk(load_legend("esa_worldcover"), load_legend("esri_io"))
    index = load_legend("esa_worldcover").encode(np.array([10, 20, 30, 95, 0]))
    assert load_legend("esri_io").decode(way.table[index]).tolist() == [2, 11, 11, 0, 0]
    assert way.table[IGNORE] == IGNORE


def test_a_map_may_lack_classes_but_not_mean_others_by_them() -> None:
    whole = load_legend("esri_io")
    part = Legend("esri_io", whole.classes[:3], nodata=0)
    one, two = meet(load_legend("esa_worldcover"), part)
    assert one.target == two.target == whole
    assert two.codes == part.codes
    assert meet(part, whole)[0].target == whole
    strange = Legend.from_dict({"name": "esri_io", "classes": [{"code": 1, "name": "Trees"}]})
    with pytest.raises(LabelError, match=r"1 'Trees' is 'water'"):
        find_crosswalk(strange, load_legend("ipcc"))
    with pytest.raises(LabelError, match="two legends are called 'esri_io'"):
        meet(strange, load_legend("esa_worldcover"))


def test_a_crosswalk_of_ones_own(tmp_path: Path) -> None:
    legend = {"name": "mine", "classes": [{"code": 1, "name": "Pine"}, {"code": 2, "name": "Lake"}]}
    write(tmp_path, legend, "mine.yaml")
    raw = {
        "from": "mine.yaml",
        "to": "esa_worldcover",
        "classes": {"Pine": "tree cover", 2: 80},
        "notes": {"Pine": "x"},
    }
    way = read_crosswalk(write(tmp_path, raw))
    assert (way.codes, way.notes) == ((10, 80), {1: "x"})
    mine = Legend.from_dict(legend)
    # It leads on to where the shipped ones do, also for a map that calls the same classes otherwise.
    for one in (mine, Legend("labels", mine.classes)):
        assert meet(one, load_legend("dynamic_world"), own=[way])[0].codes == (1, 0)
        assert find_crosswalk(one, load_legend("ipcc"), [way]).codes == (1, 4)
    # It goes before a shipped one.
    raw = {"from": "esri_io", "to": "ipcc", "classes": dict.fromkeys(load_legend("esri_io").codes, 6)}
    assert set(
        find_crosswalk(load_legend("esri_io"), load_legend("ipcc"), [read_crosswalk(write(tmp_path, raw))]).codes
    ) == {6}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": {"Water": 4}}, "does not say what becomes of 'Trees'"),
        ({"classes": {"Wood": 4}}, "legend esri_io has no class 'Wood'"),
        ({"classes": {1: "Wood"}}, "does not say"),
        ({"classes": [1, 2]}, "are mappings"),
        ({"to": "ipc"}, "no legend called 'ipc'"),
        ({"from": 3}, "from and to are legends, not 3"),
        (
            {"classes": dict.fromkeys(load_legend("esri_io").codes, 6), "whole": ["Water"]},
            "other classes go to as well",
        ),
        ({"classes": dict.fromkeys(load_legend("esri_io").codes), "whole": ["Water"]}, "no counterpart"),
        ({"whole": "Water"}, "whole is a list"),
        ({"extra": 1}, "holds no crosswalk"),
        ({"classes": {**dict.fromkeys(load_legend("esri_io").codes, 6), "Water": 4}}, "stands twice"),
        ({"classes": dict.fromkeys(load_legend("esri_io").codes, "Wood")}, "legend ipcc has no class 'Wood'"),
        ({"classes": dict.fromkeys(load_legend("esri_io").codes, True)}, "legend ipcc has no class True"),
    ],
)
def test_files_that_are_no_crosswalk(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        read_crosswalk(write(tmp_path, {"from": "esri_io", "to": "ipcc", "classes": {}} | change))


def test_other_files_that_are_no_crosswalk(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="there is no crosswalk file"):
        read_crosswalk(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("from: [")
    with pytest.raises(LabelError, match="is not valid YAML"):
        read_crosswalk(tmp_path / "bad.yaml")
    with pytest.raises(LabelError, match="holds no crosswalk"):
        read_crosswalk(write(tmp_path, ["from", "to"]))


def test_legends_that_nothing_leads_to() -> None:
    own = Legend.from_dict({1: "reed", 2: "mud"})
    for call in (
        lambda: find_crosswalk(own, load_legend("ipcc")), lambda: meet(own, load_legend("esri_io")),
        lambda: meet(load_legend("ipcc"), load_legend("corine"), target="corine"),
    ):  # fmt: skip
        with pytest.raises(LabelError, match=r"has no crosswalk to '(ipcc|esri_io|corine)'") as caught:
            call()
        assert "--crosswalk" in caught.value.fix


def test_identity() -> None:
    legend = load_legend("wusu")
    assert Crosswalk.identity(legend).table[:12].tolist() == list(range(12))
    assert find_crosswalk(legend, legend).route == ("wusu",)


@st.composite
def ways(draw):
    """A crosswalk between two made legends, some classes without a counterpart."""
    sizes = draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    one, other = (
        Legend(name, tuple(LandClass(start + 3 * i, f"{name}{i}", "#000000") for i in range(size)))
        for name, start, size in zip("ab", (1, 5), sizes, strict=True)
    )
    codes = draw(st.lists(st.sampled_from([None, *other.codes]), min_size=sizes[0], max_size=sizes[0]))
    return Crosswalk(one, other, tuple(codes), route=("a", "b"))


@given(ways(), st.integers(0, 10_000))
def test_a_way_moves_indices_as_it_moves_codes(way, seed):
    index = np.random.default_rng(seed).integers(0, len(way.source), 30).astype(np.uint8)
    index[0] = IGNORE
    moved = way.table[index]
    assert moved[0] == IGNORE
    for old, new in zip(index[1:], moved[1:], strict=True):
        code = way.codes[old]
        assert new == (IGNORE if code is None else way.target.codes.index(code))
    assert np.array_equal(way.shares.sum(1), [code is not None for code in way.codes])


@given(ways())
def test_to_itself_changes_nothing_and_back_leads_only_where_one_came_from(way):
    for same in (Crosswalk.identity(way.source).then(way), way.then(Crosswalk.identity(way.target))):
        assert same.codes == way.codes
    for code, source in zip(way.target.codes, way.back().codes, strict=True):
        come = [one for one, to in zip(way.source.codes, way.codes, strict=True) if to == code]
        assert source == (come[0] if len(come) == 1 else None)
    assert way.of(way.source).codes == way.codes
