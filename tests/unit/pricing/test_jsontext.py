"""JSON text: digit for digit, and the same however a part of it came to be."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busbar.pricing import jsontext
from busbar.pricing.jsontext import MAX_EXPONENT, Written, parse_json, serialize_json

decimals = st.decimals(allow_nan=False, allow_infinity=False).filter(lambda each: abs(each.adjusted()) < MAX_EXPONENT)


@given(decimals.filter(lambda each: len(each.as_tuple().digits) <= MAX_EXPONENT))
def test_a_number_is_written_without_an_exponent(number: Decimal) -> None:
    assert serialize_json(number) == format(number, "f")


@pytest.mark.parametrize("number", ["1e7", "0e-9", "-0", "0.0000001", "1.50"])
def test_what_python_writes_otherwise_is_written_digit_for_digit(number: str) -> None:
    assert serialize_json([Decimal(number)]) == f"[{Decimal(number):f}]"


@pytest.mark.parametrize("number", ["NaN", "sNaN", "NaN123", "Infinity", "-Infinity", "1e101", "1e-101"])
def test_what_is_no_number_is_refused(number: str) -> None:
    with pytest.raises(TypeError, match="not a number that can be priced"):
        serialize_json({"price": Decimal(number)})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    )
)
def test_a_document_is_read_as_it_was(document: object) -> None:
    for _ in range(2):  # its names are known the second time
        text = serialize_json(document)
        assert json.loads(text) == document
        assert text == json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def test_a_part_that_was_written_before_is_taken_over() -> None:
    part = {"b": [1, Decimal("2.50")], "a": {}}
    known = Written(serialize_json(part))
    assert serialize_json({"x": [known], "y": known}) == serialize_json({"x": [part], "y": part})


def test_names_that_nobody_has_used_before_do_not_fill_the_memory() -> None:
    long = "n" * 1_000
    for number in range(10_000):
        assert parse_json(serialize_json({f"name {number}": 1, long: 2})) == {f"name {number}": 1, long: 2}
    assert len(jsontext._names) <= 4_096
    assert f"{long}" not in jsontext._names
