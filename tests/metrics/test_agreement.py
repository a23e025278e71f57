"""Agreement of two maps against the definitions, written out anew."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from covermap.metrics.agreement import agreement_of, agreement_per_class
from covermap.metrics.confusion import scores_of

tables = arrays(np.float64, st.integers(1, 6).map(lambda k: (k, k)), elements=st.integers(0, 50).map(float))


@given(tables)
def test_quantity_and_allocation_make_up_the_disagreement(table: np.ndarray) -> None:
    found = agreement_of(table)
    if not table.sum():
        assert all(np.isnan(value) for value in found.values())
        return
    assert sum(found.values()) == pytest.approx(1)
    assert found["agreement"] == pytest.approx(float(scores_of(table)["oa"]))
    # By single places: those of the class in one map alone, and in the other alone, could be exchanged pairwise.
    share = table / table.sum()
    rows, cols = share.sum(1), share.sum(0)
    assert found["quantity_disagreement"] == pytest.approx(sum(abs(rows - cols)) / 2)
    exchanged = sum(min(rows[k] - share[k, k], cols[k] - share[k, k]) for k in range(len(share)))
    assert found["allocation_disagreement"] == pytest.approx(exchanged)
    assert agreement_of(table.T) == pytest.approx(found)


def test_a_moved_map_differs_in_place_only_a_recoded_one_in_quantity() -> None:
    assert agreement_of(np.array([[40, 10], [10, 40]])) == pytest.approx(
        {"agreement": 0.8, "quantity_disagreement": 0, "allocation_disagreement": 0.2}
    )
    assert agreement_of(np.array([[40, 20], [0, 40]])) == pytest.approx(
        {"agreement": 0.8, "quantity_disagreement": 0.2, "allocation_disagreement": 0}
    )


def test_classes() -> None:
    each = agreement_per_class(np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]]))
    assert each["first"].tolist() == [8, 4, 0]
    assert each["other"].tolist() == [7, 5, 0]
    assert each["both"].tolist() == [6, 3, 0]
    assert each["of_first"][:2].tolist() == [6 / 8, 3 / 4]
    assert each["of_other"][:2].tolist() == [6 / 7, 3 / 5]
    assert each["of_either"][:2].tolist() == [6 / 9, 3 / 6]
    assert each["quantity"].tolist() == [1, 1, 0]
    assert each["allocation"].tolist() == [2, 2, 0]
    assert np.isnan([each[key][2] for key in ("of_first", "of_other", "of_either")]).all()
