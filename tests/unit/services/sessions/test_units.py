"""Numbers of stations in SI units."""

from __future__ import annotations

from fractions import Fraction

import pytest

from services.sessions.units import in_units

LARGE = 2_258_848_920_572_997_260


@pytest.mark.parametrize("micro", [0, 1, -1, 229_800_000, 2**53 - 1, 2**53 + 1, LARGE, -LARGE])
def test_millionths_are_divided_to_the_nearest_double(micro: int) -> None:
    assert in_units(micro) == float(Fraction(micro, 10**6))


def test_a_large_number_is_not_rounded_twice() -> None:
    assert in_units(LARGE) != float(LARGE) / 1e6
