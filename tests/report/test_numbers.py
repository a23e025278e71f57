"""Numbers told against numbers known: those of the table, each chip a point."""

from __future__ import annotations

import re

from covermap.report.numbers import numbers_of
from tests.report.test_report import svg


def test_chips_are_points_and_their_spread_is_told(tmp_path):
    path = tmp_path / "chips_test_model.csv"
    lines = ["place,scene,row,col,known height,known share,height (m),share"]
    lines += [f"a,s,0,{i},{i},0.5,{5 + i / 2},0.5" for i in range(10)] + ["a,s,0,11,,0.5,3,0.5"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = numbers_of(path)
    assert found["names"] == ["height (m)"]  # a number that is always the same is no picture
    assert found["words"] == (
        "height (m): what is told spreads 0.50 times as wide as what is known, so high values are told too low and low "
        "ones too high."
    )
    drawn = svg(found["chart"])
    assert all(text in drawn for text in ("known", "told", "height (m)"))
    assert len(re.findall(r"<use xlink:href=\"#m\w+\" x=\"[\d.]+\" y=\"[\d.]+\" style=\"fill: #1f5f8b", drawn)) == 10


def test_without_numbers_there_is_no_figure(tmp_path):
    assert numbers_of(tmp_path / "none.csv") is None
    path = tmp_path / "chips_test_model.csv"
    path.write_text("place,scene,row,col,reference,code,class,p(a)\na,s,0,0,a,1,a,0.9\n", encoding="utf-8")
    assert numbers_of(path) is None
    path.write_text("place,scene,row,col,known a,classes,p(a)\na,s,0,0,1,a,0.9\n", encoding="utf-8")
    assert numbers_of(path) is None
