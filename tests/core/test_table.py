import csv

import pytest

from covermap.core.table import Between, Table, Tables, Within

ROWS = [["<water> & \"sea\"", 1.0, Within(1234.56, 7.8), Between(0.5, 0.25, 0.625)], ["wood", None, None, 0.75],
        ["rock", 12, Within(3.0, None), None]]  # fmt: skip
TABLE = Table(["class", "share", "area", "score"], ROWS, "A <title>", {"area": ",.1f"})


def test_the_terminal_sees_numbers_to_the_right_and_nothing_cut():
    lines = str(TABLE).splitlines()
    assert lines[0] == "A <title>"
    assert lines[1].split() == ["class", "share", "area", "score"]
    assert lines[2] == '<water> & "sea"  1.0000      1,234.6 ± 7.8  0.5000 (0.2500 to 0.6250)'
    assert lines[3].split() == ["wood", "-", "-", "0.7500"]
    assert lines[4].split() == ["rock", "12", "3.0", "not", "estimable", "-"]
    assert lines[3].index("0.7500") == lines[2].index("0.5000")
    assert lines[3].rindex("-") == lines[4].index("estimable") + len("estimabl")


def test_a_notebook_sees_the_same_texts_escaped():
    html = TABLE._repr_html_()
    assert "&lt;water&gt; &amp; &quot;sea&quot;" in html
    assert "A &lt;title&gt;" in html
    assert "<water>" not in html
    for text in ("1,234.6 ± 7.8", "0.5000 (0.2500 to 0.6250)", "3.0 not estimable"):
        assert text in html
        assert text in str(TABLE)


def test_long_tables_say_what_a_notebook_leaves_out():
    table = Table(["n"], [[n] for n in range(250)])
    html = table._repr_html_()
    assert html.count("<tr>") == 201
    assert "50 more rows" in html
    assert len(str(table).splitlines()) == 251


def test_values_and_intervals_take_columns_of_their_own(tmp_path):
    frame = TABLE.to_pandas()
    assert list(frame) == [
        "class",
        "share",
        "area",
        "area ±",
        "area low",
        "area high",
        "score",
        "score low",
        "score high",
    ]
    assert frame["area"].tolist()[0] == 1234.56
    rows = list(csv.reader(TABLE.to_csv(tmp_path / "t.csv").splitlines()))
    assert rows[1][:4] == ['<water> & "sea"', "1.0", "1234.56", "7.8"]
    assert (tmp_path / "t.csv").read_text() == TABLE.to_csv()


def test_a_column_with_and_without_an_interval_keeps_its_values():
    frame = Table(["x"], [[Between(1.0, 0.5, 1.5)], [2.0], [None]]).to_pandas()
    assert frame["x"].tolist()[:2] == [1.0, 2.0]
    assert frame["x low"].tolist()[0] == 0.5
    assert frame["x high"].isna().tolist() == [False, True, True]


def test_ends_are_told_where_half_the_width_would_be_wrong():
    assert Within(0.5, 0.1, 0.4, 0.6).text(".2f") == "0.50 ± 0.10"
    assert Within(1.0, 0.55, 0.45, 1.0).text(".2f") == "1.00 (0.45 to 1.00)"
    table = Table(["x"], [[Within(209.0, 224.0, 0.0, 433.0)]], formats={"x": ",.0f"})
    assert str(table).splitlines()[1] == "209 (0 to 433)"
    assert table.to_pandas().iloc[0].tolist() == [209.0, 224.0, 0.0, 433.0]


@pytest.mark.parametrize("table", [Table([], []), Table(["a"], []), Table.of([])])
def test_nothing_is_a_table_too(table):
    assert isinstance(str(table), str)
    assert "<table>" in table._repr_html_()
    assert len(table.to_pandas()) == 0


def test_rows_may_be_mappings_and_tables_follow_each_other():
    table = Table.of([{"a": 1, "b": 2}, {"b": 3, "c": 4}], title="t")
    assert table.head == ["a", "b", "c"]
    assert table.rows[1] == [None, 3, 4]
    both = Tables((table, table))
    assert str(both) == f"{table}\n\n{table}"
    assert both._repr_html_().count("<table>") == 2
