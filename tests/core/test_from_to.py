"""From-to codes: every pair of classes has one, and it leads back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covermap.core.errors import LabelError
from covermap.core.from_to import NODATA, UNCHANGED, FromTo
from covermap.core.legend import IGNORE, LandClass, Legend


def legend(count: int) -> Legend:
    return Legend("made", tuple(LandClass(10 * i + 1, f"class {i}", f"#{i:02x}0000") for i in range(count)))


@pytest.mark.parametrize("count", [1, 2, 6, 11, 254])
def test_every_pair_has_a_code_of_its_own_and_leads_back(count: int) -> None:
    codes = FromTo(legend(count))
    before, after = np.divmod(np.arange(count * count), count)
    before, after = before.astype(np.uint8), after.astype(np.uint8)
    found = codes.encode(before, after)
    changed = before != after
    assert codes.num_codes == count * (count - 1) + 1
    assert (found[~changed] == UNCHANGED).all()
    assert sorted(found[changed].tolist()) == list(range(1, codes.num_codes))
    back = codes.decode(found)
    np.testing.assert_array_equal(back[0], np.where(changed, before, IGNORE))
    np.testing.assert_array_equal(back[1], np.where(changed, after, IGNORE))
    for a, b, code in zip(before[:500].tolist(), after[:500].tolist(), found[:500].tolist(), strict=True):
        assert codes.code(a, b) == code


def test_eleven_classes_have_111_codes_by_the_formula_of_the_field() -> None:
    codes = FromTo(legend(11))
    assert codes.num_codes == 111
    assert [t.code for t in codes.transitions()] == list(range(1, 111))
    for t in codes.transitions():
        a, b = (codes.legend.classes.index(c) for c in (t.before, t.after))
        assert t.code == 1 + a * 10 + b - (b > a)
        assert t.name == f"class {a} > class {b}"


def test_what_is_unknown_on_either_date_is_nodata_also_over_block_borders() -> None:
    codes = FromTo(legend(3))
    rng = np.random.default_rng(0)
    before, after = rng.choice(np.array([0, 1, 2, IGNORE], np.uint8), (2, 700, 800))
    found = codes.encode(before, after)
    unknown = (before == IGNORE) | (after == IGNORE)
    np.testing.assert_array_equal(found == NODATA, unknown)
    np.testing.assert_array_equal(found[~unknown] == UNCHANGED, (before == after)[~unknown])


def test_numbers_that_are_no_codes_are_refused() -> None:
    codes = FromTo(legend(3))
    for wrong in (7, 65534):
        with pytest.raises(LabelError, match=f"{wrong} is no change"):
            codes.decode(np.array([0, 3, wrong, NODATA], np.uint16))
    with pytest.raises(LabelError):
        codes.pair(0)


def test_colours_of_changes_differ_by_both_classes() -> None:
    made = Legend("x", tuple(LandClass(i, f"c{i}", c) for i, c in enumerate(("#ff0000", "#00ff00", "#0000ff"))))
    assert len({t.colour for t in FromTo(made).transitions()}) == 6


@given(st.integers(1, 254), st.integers(0, 10_000))
def test_any_pair_of_maps_comes_back(count, seed) -> None:
    codes, random = FromTo(legend(count)), np.random.default_rng(seed)
    before, after = random.integers(0, count, (2, 6, 9)).astype(np.uint8)
    before[0, 0] = after[0, 1] = IGNORE
    found = codes.encode(before, after)
    assert (found[0, :2] == NODATA).all()
    changed = (before != after) & (found != NODATA)
    assert (found[changed] < codes.num_codes).all()
    one, other = codes.decode(found)
    np.testing.assert_array_equal(one, np.where(changed, before, IGNORE))
    np.testing.assert_array_equal(other, np.where(changed, after, IGNORE))
    for code in found[changed][:5].tolist():
        assert codes.code(*codes.pair(code)) == code


@given(st.integers(2, 30), st.integers(0, 70_000))
def test_a_number_is_a_code_or_refused(count, number) -> None:
    codes = FromTo(legend(count))
    if number in (UNCHANGED, NODATA) or number < codes.num_codes:
        codes.decode(np.array([number]))
        return
    with pytest.raises(LabelError, match=f"{number} is no change"):
        codes.decode(np.array([0, number]))
