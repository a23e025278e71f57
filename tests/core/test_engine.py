"""Work spread over threads comes back in the order of its items where that is asked."""

from __future__ import annotations

import time

import pytest

from covermap.core.engine import map_ordered


@pytest.mark.parametrize("workers", [1, 3])
def test_results_keep_the_order_of_their_items(workers: int) -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.02 * (item % 3 == 0))
        return item * item

    assert list(map_ordered(slow_first, range(20), workers=workers)) == [n * n for n in range(20)]


def test_an_error_ends_it() -> None:
    def fail(item: int) -> int:
        if item == 5:
            raise ValueError("five")
        return item

    with pytest.raises(ValueError, match="five"):
        list(map_ordered(fail, range(9), workers=3))
