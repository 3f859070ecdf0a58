"""Numbers, decimals and JSON text in Avro."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from busbar.avro import InvalidAvro
from busbar.avro.primitives import (
    decimal_context,
    decode_block,
    decode_decimal,
    decode_instant,
    decode_length,
    decode_long,
    dump_json,
    encode_decimal,
    encode_long,
    encode_varint,
    load_json,
)

LONGS = st.integers(-(2**63), 2**63 - 1) | st.integers(-(2**44), 2**44) | st.integers(1_700_000_000_000, 2**41)


def fastavro_long(value: int) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "long", value)
    return out.getvalue()


@given(LONGS)
def test_longs_have_fastavros_bytes_and_are_read_again(value: int) -> None:
    encoded = encode_long(value)
    assert encoded == encode_varint(value) == fastavro_long(value)
    for decode in (decode_long, decode_instant):
        assert decode(b"?" + encoded + b"?", 1) == (value, 1 + len(encoded))
        assert decode(encoded, 0) == (value, len(encoded))


def test_instants_are_read_the_same_before_and_after_they_are_remembered() -> None:
    for number in range(1_777_889_472_000, 1_777_889_472_000 + 50_000, 7):
        for value in (number, -number, ~number):
            encoded = encode_varint(value)
            assert encode_long(value) == encode_long(value) == encoded
            assert decode_instant(encoded, 0)[0] == decode_instant(encoded, 0)[0] == value


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1])
def test_a_long_of_more_than_64_bits_is_refused(value: int) -> None:
    with pytest.raises(InvalidAvro):
        encode_long(value)


@pytest.mark.parametrize("data", [b"\x03", b"\x0a1234", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"])
def test_a_length_that_leads_past_the_data_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidAvro):
        decode_length(data, 0)


@pytest.mark.parametrize("decode", [decode_long, decode_instant, decode_length, decode_block])
def test_a_number_without_end_is_given_up_after_ten_bytes(decode: Any) -> None:
    with pytest.raises(InvalidAvro, match="more than ten bytes"):
        decode(b"\x80" * 1_000_000, 0)


def test_a_block_may_tell_its_size_but_not_lie_about_its_count() -> None:
    assert decode_block(b"\x03\x06abc", 0) == (2, 2)  # minus two items, in three bytes
    assert decode_block(b"\x06abc", 0) == (3, 1)
    for data in (b"\x08abc", b"\x03\x08abc", b"\x03\x01abc"):
        with pytest.raises(InvalidAvro):
            decode_block(data, 0)


@given(st.integers(-(10**20), 10**20), st.integers(0, 6))
def test_decimals_are_read_as_they_were_written(unscaled: int, scale: int) -> None:
    value = Decimal(unscaled).scaleb(-scale)
    encoded = encode_decimal("x", value, scale, decimal_context(24))
    assert decode_decimal(encoded, scale, decimal_context(24, strict=True)) == value


@pytest.mark.parametrize("raw", [b"\x7f" * 9, b"\x00" * 1_000_000, (10**18).to_bytes(8, "big")])
def test_a_decimal_with_too_many_digits_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidAvro):
        decode_decimal(raw, 4, decimal_context(18, strict=True))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_json_text_is_the_value_again(value: Any) -> None:
    assert json.dumps(load_json(dump_json(value).decode())) == json.dumps(value)


@pytest.mark.parametrize(
    "value", [float("nan"), [float("inf")], {"a": (float("-inf"), None)}, object(), b"x", "\ud800"]
)
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises((InvalidAvro, UnicodeEncodeError)):
        dump_json(value)


@pytest.mark.parametrize("text", ["", "{", "nul", "[" * 100_000, "1" * 5000, "NaN"])
def test_text_that_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(InvalidAvro):
        load_json(text)
