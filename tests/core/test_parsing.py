"""Texts that are broken, or mean far more than they are long, are refused in a sentence."""

from __future__ import annotations

import csv
import io
import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from covermap.core.config_file import load_config, parse_option
from covermap.core.errors import ConfigError, CovermapError, DataError, LabelError, ModelError
from covermap.core.parsing import MOST_DEEP, Malformed, parse_csv, parse_json, parse_rows, parse_yaml, read_json

_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=4),
    max_leaves=20,
)


@given(_PLAIN)
def test_what_is_written_is_read(value):
    assert parse_json(json.dumps(value)) == value
    assert parse_yaml(yaml.safe_dump(value)) == yaml.safe_load(yaml.safe_dump(value))


@given(st.lists(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=2, max_size=2), max_size=5))
def test_rows_of_a_table_are_read(rows):
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["a", "b"], *rows])
    assert parse_csv(text.getvalue(), ("a",)) == [{"a": a, "b": b} for a, b in rows]


@given(st.text(alphabet='ab,"\r\n\v\u2028', max_size=30))
def test_lines_end_as_the_csv_module_says(text):
    try:
        expected = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except csv.Error:
        with pytest.raises(Malformed):
            parse_rows(text)
        return
    assert parse_rows(text) == expected


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]" for i in range(levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (bomb(9), "mean more than"),
        ("a: &a {k: 1}\n" + "b: &b {<<: [" + ", ".join(["*a"] * 10) + "]}\n", None),
        ("self: &self [*self, *self]", "or themselves"),
        ("map: &map {a: 1, <<: *map}", "or themselves"),
        ("[" * 20_000, "deeper than"),
        ("[" * (MOST_DEEP + 5) + "]" * (MOST_DEEP + 5), "deeper than"),
        ("a: 2001-99-99", "month"),
        ("a: !!int ''", "index"),
        ("a: !!bool x", "x"),
        (f"a: {'9' * 5000}", "digits"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("{[1]: 2}", "unhashable"),
        ("a: [1", "expected"),
        ("a: \0", "special characters"),
    ],
)
def test_yaml_that_cannot_be_used(text, words):
    if words is None:
        assert parse_yaml(text)["b"] == {"k": 1}
        return
    with pytest.raises(Malformed, match=words):
        parse_yaml(text)


def test_a_key_that_is_given_twice_is_refused():
    for text, lines in (("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", "lines 3 and 5"), ("- {c: 1, c: 2}", "lines 1 and 1")):
        with pytest.raises(Malformed, match=f"^c is given twice, in {lines}$"):
            parse_yaml(text)
    merged = "x: &x {a: 1, b: 2}\ny: {<<: *x, a: 3}\nz: {a: 4}\n"
    assert parse_yaml(merged)["y"] == {"a": 3, "b": 2}


def test_values_that_lie_deep_by_aliases_alone():
    chain = "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, MOST_DEEP + 2))
    with pytest.raises(Malformed, match="deeper than"):
        parse_yaml(f"a0: &a0 [1]\n{chain}")


def test_aliases_that_merge_are_counted_before_they_are_merged():
    lines = ["a0: &a0 {k: 1}"]
    lines += [f"a{i + 1}: &a{i + 1} {{<<: [{', '.join([f'*a{i}'] * 10)}]}}" for i in range(9)]
    with pytest.raises(Malformed, match="mean more than"):
        parse_yaml("\n".join(lines))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[" * 500 + "]" * 500, '{"a":' * 500 + "1" + "}" * 500, "9" * 5000, "{", ""]
)
def test_json_that_cannot_be_used(text):
    with pytest.raises(Malformed):
        parse_json(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1\n", "row 1 has 1 cells, the header names 2"),
        ("a,b\n1,2,3\n", "row 1 has 3 cells"),
        ("a,a\n1,2\n", "the column a twice"),
        ("b\n1\n", "no column a, but b"),
        ("", "no column a, but none"),
        ("a\n" + "x" * 200_000, "field larger than field limit"),
    ],
)
def test_tables_that_cannot_be_used(text, words):
    with pytest.raises(Malformed, match=words):
        parse_csv(text, ("a",))


def test_cells_beyond_the_header_may_be_empty_and_lines_too():
    assert parse_csv("\ufeffa, b\n1,2,\n\n3,4\n".removeprefix("\ufeff")) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    assert parse_rows("a;b\n", ";") == [["a", "b"]]


def test_files_name_themselves_and_walls_of_text_are_cut(tmp_path):
    for content in (b"\xff\xfe", b"[" * 10_000, b'{"a": "'):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(ModelError, match=r"a\.json .*\n  fix: again"):
            read_json(tmp_path / "a.json", fix="again", error=ModelError)
    error = DataError("x" * 100_000, fix="y" * 100_000)
    assert len(str(error)) < 10_000
    assert "100,000 characters" in error.message


def test_a_config_of_aliases_is_refused_shortly(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(bomb(4))
    with pytest.raises(ConfigError) as refused:
        load_config(path)
    assert len(str(refused.value)) < 10_000
    path.write_text("data: " + "[" * 5000)
    with pytest.raises(ConfigError, match=r"c\.yaml is not valid YAML.*deeper"):
        load_config(path)
    with pytest.raises(ConfigError, match="is not a value"):
        parse_option("a=2001-99-99")


def test_readers_of_tables_say_what_is_wrong(tmp_path):
    from covermap.data.split import Split
    from covermap.geo.legend_files import read_legend
    from covermap.ml.transitions import TransitionPrior
    from covermap.verbs.change_rules import ChangeRules

    legend = read_legend("ipcc")
    path = tmp_path / "a.csv"
    readers = (
        lambda: Split.load(path),
        lambda: read_legend(path),
        lambda: TransitionPrior.read(path, legend),
        lambda: ChangeRules(impossible=(str(path),)).forbidden(legend),
    )
    for text in ("x" * 200_000, "a,b\n\0", "", "from,to\n1\n"):
        path.write_text(text)
        for read in readers:
            with pytest.raises(CovermapError, match=r"a\.csv"):
                read()
    (tmp_path / "a.clr").write_text("1e999 1 2 3\n")
    with pytest.raises(LabelError, match=r"a\.clr"):
        read_legend(tmp_path / "a.clr")
