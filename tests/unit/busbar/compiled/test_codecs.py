"""Compiled codecs do what the text does that they were made of.

As plain Python these tests hold the text against itself; `tests/integration/busbar/test_compiled.py` runs them again on
the compiled codecs.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from types import MappingProxyType, ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busbar import compiled
from busbar.avro import encode
from busbar.avro.calls import call_decoder
from busbar.avro.codec import ENCODE_ERRORS, newest
from busbar.avro.decoders import DECODE_ERRORS, compile_decoder
from busbar.avro.encoders import compile_encoder
from busbar.avro.samples import PackedSamples
from busbar.avro.schema import parse_schema
from busbar.avro.source import recorded, run
from busbar.compiled import ROOT
from busbar.compiled.codecs import ACTIONS
from services.billing import decoding as billing
from tests.unit.busbar.avro import reference
from tests.unit.busbar.avro.reference import payload_record, schema_of

Coder = Callable[..., Any]
IS_COMPILED = compiled.said().startswith("yes")

NAMES = [
    "csms.OutboundMessage",
    *(f"ocpp.{version.label}.{action}" for version, actions in ACTIONS.items() for action in actions),
]


def both(make: Callable[[], object], function: str) -> list[tuple[Coder, Coder]]:
    """Of the codecs that are made meanwhile: what this process uses, and what their text does."""
    with recorded() as texts:
        make()
    found = []
    for name, text in texts.items():
        if function in (plain := run("plain", text)):
            module = compiled.module(partial(str, name))
            assert module is not None or not IS_COMPILED or "_default_" in name, name
            found.append(((run("again", text) if module is None else vars(module))[function], plain[function]))
    return found


@cache
def coders(name: str) -> tuple[tuple[Coder, Coder], tuple[Coder, Coder]]:
    """The encoders and the decoders of a schema; of an action, those of its payload."""
    schema = schema_of(name)
    if name.startswith("csms."):
        return (
            both(lambda: compile_encoder(schema), "encode_1")[-1],  # behind those of its defaults
            both(lambda: compile_decoder(schema), "decode_1")[0],
        )
    record = payload_record(schema)
    return (
        both(lambda: compile_encoder(schema, record), "encode_1")[-1],
        both(lambda: call_decoder(newest(name), packed_samples=True), "decode_1")[0],
    )


def encoded(encoder: Coder, value: Any) -> Any:
    """The bytes, or the error."""
    out = bytearray()
    try:
        encoder(out, value)
    except ENCODE_ERRORS as error:
        return type(error), str(error)
    return bytes(out)


def decoded(decoder: Coder, data: bytes, position: int = 0) -> Any:
    """The value and the position behind it, or the error."""
    try:
        value, end = decoder(data, position)
    except DECODE_ERRORS as error:
        return type(error), str(error)
    return plain(value), end


def plain(value: Any) -> Any:
    """In the order of its members, and telling 1 from 1.0 and `True`.

    Whether samples come packed depends on what a decoder has read before, in other tests, too.
    """
    if isinstance(value, PackedSamples):
        return plain(value.expand())
    if isinstance(value, list):
        return list(map(plain, value))
    return [(name, plain(member)) for name, member in value.items()] if isinstance(value, dict) else repr(value)


def spoilt(data: bytes, chance: random.Random) -> bytes:
    """Cut short, with other bytes, with a number that lies, or shifted."""
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 6])):
        place = chance.randrange(len(changed) + 1)
        match chance.randrange(6):
            case 0:
                del changed[place:]
            case 1:
                changed[place:place] = chance.choice(LIES)
            case 2:
                changed[place : place + 1] = chance.choice(LIES)
            case 3:
                del changed[place : place + chance.randrange(4)]
            case _:
                changed[place : place + 1] = bytes([chance.choice([0, 1, 2, 3, 127, 128, 255, chance.randrange(256)])])
    return bytes(changed)


LIES = (
    b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # 2**63 - 1
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # -2**63
    b"\xfd\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # -2**63 + 1
    b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f",  # 2**62 - 1, the largest small number of compiled code
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",  # 2**62
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # eleven bytes
    b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # 70 bits
    b"\x80\x80\x80\x80\x08",  # 2**30
    b"\x80\x80\x00",  # zero, at length
    b"\x03\x80\x80\x80\x80\x10",  # a block of two items and its size, a lie
)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_both_write_the_same_bytes_and_read_the_same_values(name: str, data: st.DataObject) -> None:
    encoders, decoders = coders(name)
    schema = schema_of(name)
    record = schema.root if name.startswith("csms.") else payload_record(schema)
    value = data.draw(reference.values(record, schema, wild=True))
    one, other = (encoded(encoder, value) for encoder in encoders)
    assert one == other
    if isinstance(one, bytes):
        chance = random.Random(data.draw(st.integers(0, 2**32)))
        for octets in (one, one, *(spoilt(one, chance) for _ in range(40))):
            first, second = (decoded(decoder, octets) for decoder in decoders)
            assert first == second, octets


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Object(dict[str, Any]):
    pass


ODD: list[Any] = [
    *(None, True, 0, -1, 2**63, 2**62, -(2**63), 3.0, 1e300, float("nan"), b"x", bytearray(b"x"), "", "\ud800"),
    *([], {}, (), [None], object(), {1: 2}, {"extra": object()}, Text("x"), Whole(3), Object(), MappingProxyType({})),
]


def changed(value: Any, chance: random.Random) -> Any:
    """The same but for one place, which has something odd."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        name = chance.choice(list(value))
        if chance.random() < 0.1:
            return {member: value[member] for member in value if member != name}
        return Object({**value, name: changed(value[name], chance)})
    if isinstance(value, list) and value and chance.random() < 0.9:
        index = chance.randrange(len(value))
        return [*value[:index], changed(value[index], chance), *value[index + 1 :]]
    return chance.choice(ODD)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_both_take_or_refuse_values_of_unusual_types(name: str, data: st.DataObject) -> None:
    encoders, _ = coders(name)
    schema = schema_of(name)
    record = schema.root if name.startswith("csms.") else payload_record(schema)
    value = data.draw(reference.values(record, schema))
    chance = random.Random(data.draw(st.integers(0, 2**32)))
    for _ in range(20):
        odd = changed(value, chance)
        one, other = (encoded(encoder, odd) for encoder in encoders)
        assert one == other, odd


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_both_read_the_same_session_events(data: st.DataObject) -> None:
    heads, tails = session_events()
    value = data.draw(reference.values(schema_of("csms.SessionEvent").root, schema_of("csms.SessionEvent")))
    whole = encode("csms.SessionEvent", value)
    _, begin = heads[1](whole, 5)
    chance = random.Random(data.draw(st.integers(0, 2**32)))
    for octets in (whole, *(spoilt(whole, chance) for _ in range(60))):
        for pair, position in ((heads, 5), (tails, begin)):
            first, second = (decoded(decoder, octets, position) for decoder in pair)
            assert first == second, octets


@cache
def session_events() -> list[tuple[Coder, Coder]]:
    billing.decoders.cache_clear()
    return both(billing.decoders, "decode_1")


def test_the_texts_are_the_same_in_every_process() -> None:
    script = "from busbar.compiled.codecs import codecs; print(*codecs())"
    said = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "BUSBAR_COMPILED": "0"},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
    assert len(said.pop().split()) > 2 * len(NAMES)


def test_a_codec_is_the_compiled_one_of_its_text_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(data: bytes, position: int) -> tuple[Any, int]:
        return data, position

    schema = parse_schema('{"type": "record", "name": "T", "fields": [{"name": "a", "type": "string"}]}')
    other = parse_schema('{"type": "record", "name": "T", "fields": [{"name": "a", "type": "bytes"}]}')
    with recorded() as texts:
        compile_decoder(schema)
    (name,) = texts
    module = ModuleType(name)
    module.__dict__["decode_1"] = fake
    monkeypatch.setitem(sys.modules, name, module)
    assert compile_decoder(schema) is not fake
    monkeypatch.setattr(compiled, "_names", frozenset([name]))
    assert compile_decoder(schema) is fake
    assert compile_decoder(other) is not fake
