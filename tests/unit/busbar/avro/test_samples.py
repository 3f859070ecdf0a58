"""The memo of sampled values saves time and changes nothing: not the bytes, not the values, not what is shared."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busbar.avro import InvalidAvro
from busbar.avro.decoders import Decoder, compile_decoder
from busbar.avro.encoders import Encoder, compile_encoder
from busbar.avro.sample_decoder import SampleDecoder
from busbar.avro.sample_encoder import SampleEncoder
from busbar.avro.samples import MAX_TAILS, is_sample_record
from tests.unit.busbar.avro.reference import schema_of

SCHEMAS = {"string": schema_of("ocpp.v16.MeterValues"), "double": schema_of("ocpp.v201.MeterValues")}
UNITS = [{"unit": "Wh"}, {"unit": "W", "multiplier": 3}, {"multiplier": 0}, {}, {"unit": "A"}]


@cache
def compiled(kind: str) -> tuple[Encoder, Decoder]:
    schema = SCHEMAS[kind]
    record = next(record for record in schema.records.values() if is_sample_record(record))
    return compile_encoder(schema, record), compile_decoder(schema, record=record)


def coders(kind: str) -> tuple[SampleEncoder, Any]:
    """Coders with nothing remembered."""
    encode_item, decode_item = compiled(kind)
    is_double = kind == "double"
    return SampleEncoder(encode_item, is_double=is_double), SampleDecoder(decode_item, is_double=is_double)


def encode(encoder: SampleEncoder, samples: list[Any]) -> bytes:
    out = bytearray()
    encoder.encode(out, samples)
    return bytes(out) + b"\x00"


def samples_of(kind: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Lists that often differ in one thing only."""
    if kind == "double":
        value: st.SearchStrategy[Any] = st.sampled_from([1.5, 2, -0.0, 2**53 + 1, 2**53, 10**400, 1e300])
    else:
        value = st.sampled_from(["1", "230.1", "", "é" * 40, "x" * 9000])
    members = {
        "context": st.sampled_from(["Sample.Periodic", "Transaction.Begin"]),
        "measurand": st.sampled_from(["Voltage", "SoC", 5]),
        "phase": st.sampled_from(["L1", "L2"]),
        "vendorX": st.sampled_from(["a", "b", 1, None]),
        "unitOfMeasure": st.sampled_from([*UNITS, "Wh", {"multiplier": True}, {"unit": ["Wh"]}]).map(copy.deepcopy),
        "signedMeterValue": st.just("x"),
    }
    sample = st.fixed_dictionaries({"value": value}, optional=members)
    return st.lists(sample, min_size=1, max_size=3)


@pytest.mark.parametrize("kind", ["string", "double"])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_lists_have_the_same_bytes_and_values_whatever_was_seen_before(kind: str, data: st.DataObject) -> None:
    encoder, decoder = coders(kind)
    for samples in data.draw(st.lists(samples_of(kind), min_size=2, max_size=6)):
        fresh_encoder, fresh_decoder = coders(kind)
        encoded = encode(encoder, samples)
        assert encoded == encode(fresh_encoder, samples)
        decoded = decoder.decode(encoded, 0)
        assert json.dumps(decoded) == json.dumps(fresh_decoder.decode(encoded, 0))
        assert decoded == (samples, len(encoded))


def sample(value: Any, **members: Any) -> dict[str, Any]:
    return {"value": value, "measurand": "Voltage", "unitOfMeasure": {"unit": "V", "multiplier": 0}, **members}


def test_nothing_that_is_decoded_is_shared() -> None:
    encoder, decoder = coders("double")
    for units in UNITS:
        encoded = encode(encoder, [sample(1.5, unitOfMeasure=units), sample(2.5, unitOfMeasure=units)])
        first, _ = decoder.decode(encoded, 0)
        expected = copy.deepcopy(first)
        for _ in range(3):
            again, _ = decoder.decode(encoded, 0)
            assert again == expected
            again[0]["unitOfMeasure"]["unit"] = "spoilt"
            again[1]["measurand"] = "spoilt"
            again.pop()


def test_what_was_encoded_may_be_changed_afterwards() -> None:
    encoder, _ = coders("double")
    samples = [sample(1.5)]
    encoded = encode(encoder, samples)
    samples[0]["unitOfMeasure"]["unit"] = "A"
    assert encode(encoder, samples) != encoded
    assert encode(encoder, [sample(1.5)]) == encoded


def test_true_is_not_taken_for_the_one_that_was_seen_before() -> None:
    encoder, decoder = coders("double")
    for multiplier in (1, True, 1.0, False, 0):
        samples = [sample(1.5, unitOfMeasure={"unit": "V", "multiplier": multiplier})]
        decoded, _ = decoder.decode(encode(encoder, samples), 0)
        assert type(decoded[0]["unitOfMeasure"]["multiplier"]) is (bool if isinstance(multiplier, bool) else int)


@pytest.mark.parametrize("bad", ["1.5", None, True, [], {}])
def test_a_bad_value_is_refused_although_its_layout_is_known(bad: Any) -> None:
    encoder, _ = coders("double")
    for _ in range(2):
        encode(encoder, [sample(1.5)])
    with pytest.raises(InvalidAvro, match="value"):
        encode(encoder, [sample(bad)])
    with pytest.raises(InvalidAvro):
        encode(encoder, [sample(1.5), bad])


def test_the_memo_is_bounded() -> None:
    encoder, decoder = coders("double")
    for number in range(MAX_TAILS + 100):
        encoded = encode(encoder, [sample(1.5, measurand=str(number))])
        assert decoder.decode(encoded, 0)[0][0]["measurand"] == str(number)
    for memo in (encoder._memo, decoder._memo):
        assert sum(len(layouts) for layouts in memo.by_key.values()) <= MAX_TAILS


@pytest.mark.parametrize("last", [["2.5", "9"], ["22", "3"], ["", ""], ["x" * 70, "1"], ["1.5", "33"]])
def test_values_of_other_sizes_than_before_are_read(last: list[str]) -> None:
    encoder, decoder = coders("string")
    for values in (["1.5", "3"], ["1.6", "4"], ["1.7", "5"], ["1.8", "6"], last, ["1.9", "7"]):
        samples = [sample(value, measurand=name) for value, name in zip(values, ("Voltage", "SoC"), strict=True)]
        encoded = encode(encoder, samples)
        assert decoder.decode(encoded + bytes(200), 0) == (samples, len(encoded))
    other = [sample("1.5", measurand="Voltage", unitOfMeasure={}), sample("3", measurand="SoC")]
    encoded = encode(encoder, other)
    assert decoder.decode(encoded + bytes(200), 0) == (other, len(encoded))


def test_a_long_value_leaves_no_layout_that_a_short_one_could_be_taken_for() -> None:
    encoder, decoder = coders("string")
    for value in ("x" * 69 + "\x00", "ab"):
        encoded = encode(encoder, [{"value": value}])
        assert decoder.decode(encoded + bytes(30), 0) == ([{"value": value}], len(encoded))


def test_lists_in_several_blocks_are_read() -> None:
    encoder, decoder = coders("double")
    one, two = encode(encoder, [sample(1.5)]), encode(encoder, [sample(2.5), sample(3.5)])
    for _ in range(2):
        samples, end = decoder.decode(one[:-1] + two, 0)
        assert [entry["value"] for entry in samples] == [1.5, 2.5, 3.5]
        assert end == len(one) + len(two) - 1


def test_a_list_too_long_for_a_layout_is_read() -> None:
    encoder, decoder = coders("string")
    samples = [sample(str(number)) for number in range(200)]
    assert decoder.decode(encode(encoder, samples), 0)[0] == samples
