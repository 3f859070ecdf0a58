"""Any text in, a frame or a FrameError out."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from busbar.ocpp.errors import FrameError, Problem, calls_for_answer, error_code
from busbar.ocpp.frames import (
    Call,
    CallError,
    CallResult,
    CallResultError,
    Send,
    call_bytes,
    call_error_bytes,
    call_result_bytes,
    call_result_error_bytes,
    parse_frame,
    serialize_frame,
)
from busbar.ocpp.versions import Version

FRAMES = [
    ('[2,"19223201","BootNotification",{"a":1}]', Call("19223201", "BootNotification", {"a": 1})),
    ('[3,"19223201",{"status":"Accepted"}]', CallResult("19223201", {"status": "Accepted"})),
    (
        '[4,"162376037","NotSupported","SetDisplayMessageRequest not implemented",{"x":1}]',
        CallError("162376037", "NotSupported", "SetDisplayMessageRequest not implemented", {"x": 1}),
    ),
    ('[5,"1","FormatViolation","",{}]', CallResultError("1", "FormatViolation")),
    ('[6,"1","NotifyPeriodicEventStream",{}]', Send("1", "NotifyPeriodicEventStream", {})),
]


@pytest.mark.parametrize(("text", "frame"), FRAMES)
def test_each_frame_is_read_and_written_as_the_specification_shows_it(text: Any, frame: Any) -> None:
    assert parse_frame(text) == frame
    assert parse_frame(text.encode()) == frame
    assert parse_frame(serialize_frame(frame)) == frame
    assert json.loads(serialize_frame(frame)) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "problem", "message_id"),
    [
        ("", Problem.UNREADABLE, None),
        ("hello", Problem.UNREADABLE, None),
        ("{}", Problem.UNREADABLE, None),
        ('"[2]"', Problem.UNREADABLE, None),
        ("[]", Problem.UNREADABLE, None),
        ("[2]", Problem.UNREADABLE, None),
        ('[2,"1"]', Problem.FRAME_STRUCTURE, "1"),
        ('[2,"1","Heartbeat"]', Problem.FRAME_STRUCTURE, "1"),
        ('[2,"1","Heartbeat",{},{}]', Problem.FRAME_STRUCTURE, "1"),
        ('[2,"1",7,{}]', Problem.FRAME_STRUCTURE, "1"),
        ('[2,"1","Heartbeat",[1]]', Problem.PAYLOAD_STRUCTURE, "1"),
        ('[2,"1","Heartbeat","{}"]', Problem.PAYLOAD_STRUCTURE, "1"),
        ('[2,5,"Heartbeat",{}]', Problem.UNREADABLE, None),
        ('[2,"","Heartbeat",{}]', Problem.UNREADABLE, None),
        ('[2,"a\\u0000b","Heartbeat",{}]', Problem.UNREADABLE, None),
        ('[2,"' + "x" * 256 + '","Heartbeat",{}]', Problem.UNREADABLE, None),
        ('[9,"1",{}]', Problem.MESSAGE_TYPE, "1"),
        ('["2","1","Heartbeat",{}]', Problem.FRAME_STRUCTURE, "1"),
        ('[3,"1"]', Problem.FRAME_STRUCTURE, "1"),
        ('[3,"1",null]', Problem.PAYLOAD_STRUCTURE, "1"),
        ('[4,"1"]', Problem.FRAME_STRUCTURE, "1"),
        ('[4,"1",404]', Problem.FRAME_STRUCTURE, "1"),
        # What JSON libraries in stations produce that is not JSON; the id can still be made out.
        ('[2,"1","MeterValues",{"value":NaN}]', Problem.SYNTAX, "1"),
        ('[2,"1","MeterValues",{"value":Infinity}]', Problem.SYNTAX, "1"),
        ('[2,"1","MeterValues",{"value":1e999}]', Problem.SYNTAX, "1"),
        ('[2,"1","MeterValues",{"value":"a"b"}]', Problem.SYNTAX, "1"),
        ('[2,"1","MeterValues",{"value":1,}]', Problem.SYNTAX, "1"),
        ('[2,"1","MeterValues",{"value":1}', Problem.SYNTAX, "1"),
        ('[2,"1","Heartbeat",{}][2,"2","Heartbeat",{}]', Problem.SYNTAX, "1"),
        ('[2,"1","Heartbeat",{"x":"\\ud800"}]', Problem.SYNTAX, "1"),
        (b'[2,"1","Heartbeat",{"x":"\xff"}]', Problem.SYNTAX, "1"),
        (b'[2,"1","Heartbeat",{"x":"\xed\xa0\x80"}]', Problem.SYNTAX, "1"),
        ('[2,"1","Heartbeat",' + "[" * 100_000 + "]" * 100_000 + "]", Problem.SYNTAX, "1"),
        ("[" * 100_000, Problem.UNREADABLE, None),
        ('{"a":' * 100_000, Problem.UNREADABLE, None),
        ("9" * 100_000, Problem.UNREADABLE, None),
    ],
)
def test_what_is_no_frame_is_refused_with_the_id_that_can_be_read(text: Any, problem: Any, message_id: Any) -> None:
    with pytest.raises(FrameError) as caught:
        parse_frame(text)
    assert caught.value.problem is problem
    assert caught.value.message_id == message_id
    assert 0 < len(caught.value.description) <= 255


def test_a_lone_surrogate_in_a_str_is_refused() -> None:
    with pytest.raises(FrameError):
        parse_frame('[2,"1","Heartbeat",{"x":"\ud800"}]')


def test_the_last_of_two_members_with_one_name_counts() -> None:
    assert parse_frame('[2,"1","X",{"a":1,"a":2}]') == Call("1", "X", {"a": 2})


def test_an_integer_beyond_64_bits_becomes_a_float_and_does_no_harm() -> None:
    frame = parse_frame('[2,"1","X",{"a":' + "9" * 200 + "}]")
    assert isinstance(frame, Call)
    assert isinstance(frame.payload["a"], float)


def test_an_error_without_description_or_details_keeps_its_code() -> None:
    assert parse_frame('[4,"1","GenericError"]') == CallError("1", "GenericError")
    assert parse_frame('[4,"1","GenericError",null,null]') == CallError("1", "GenericError")


def test_the_description_of_an_error_never_repeats_the_content() -> None:
    with pytest.raises(FrameError) as caught:
        parse_frame('[2,"1","Authorize",{"idTag":"SECRET"')
    assert "SECRET" not in caught.value.description


def test_frames_around_json_text_equal_those_around_objects() -> None:
    payload = {"status": "Accepted", "text": 'ä"\\'}
    text = orjson.dumps(payload).decode()
    nasty = 'id"\\1'
    assert parse_frame(call_bytes(nasty, "Reset", text)) == Call(nasty, "Reset", payload)
    assert parse_frame(call_result_bytes(nasty, text)) == CallResult(nasty, payload)
    assert parse_frame(call_error_bytes(nasty, "X", 'd"', text)) == CallError(nasty, "X", 'd"', payload)
    assert parse_frame(call_result_error_bytes(nasty, "X", "d")) == CallResultError(nasty, "X", "d")
    assert parse_frame(call_result_bytes("1", "")) == CallResult("1", {})


@pytest.mark.parametrize(
    ("text", "version", "answered"),
    [
        ("garbage", Version.V16, False),
        ("garbage", Version.V201, True),
        ('[2,"1","Heartbeat"]', Version.V16, True),
        ('[2,"1","Heartbeat"]', Version.V21, True),
        ('[9,"1"]', Version.V16, False),
        ('[9,"1"]', Version.V201, True),
        ('[3,"1"]', Version.V16, False),
        ('[3,"1"]', Version.V21, False),
        ('[4,"1"]', Version.V201, False),
        ('[3,"1",{"x":NaN}]', Version.V201, False),
        ('[6,"1"]', Version.V21, False),
    ],
)
def test_only_what_may_have_been_a_call_is_answered(text: Any, version: Any, answered: Any) -> None:
    with pytest.raises(FrameError) as caught:
        parse_frame(text)
    assert calls_for_answer(version, caught.value) is answered


def test_each_version_spells_its_codes_as_its_specification_does() -> None:
    assert error_code(Version.V16, Problem.OCCURRENCE) == "OccurenceConstraintViolation"
    assert error_code(Version.V201, Problem.OCCURRENCE) == "OccurrenceConstraintViolation"
    assert error_code(Version.V16, Problem.SYNTAX) == "FormationViolation"
    assert error_code(Version.V21, Problem.SYNTAX) == "FormatViolation"
    assert error_code(Version.V201, Problem.UNREADABLE) == "RpcFrameworkError"
    common = {"NotImplemented", "NotSupported", "InternalError", "ProtocolError", "SecurityError", "GenericError"}
    common |= {"PropertyConstraintViolation", "TypeConstraintViolation"}
    v16 = common | {"FormationViolation", "OccurenceConstraintViolation"}
    v2 = common | {"FormatViolation", "MessageTypeNotSupported", "OccurrenceConstraintViolation", "RpcFrameworkError"}
    for problem in Problem:
        assert error_code(Version.V16, problem) in v16
        assert error_code(Version.V201, problem) in v2
        assert error_code(Version.V21, problem) in v2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=15,
)


def _only_a_frame_error(text: str | bytes) -> None:
    message_id: str | None
    try:
        message_id = parse_frame(text).message_id
    except FrameError as error:
        message_id = error.message_id
    assert message_id is None or (message_id and message_id.isprintable())


@given(st.text() | st.binary())
def test_any_text_gives_a_frame_or_a_frame_error(text: Any) -> None:
    _only_a_frame_error(text)


@given(json_values)
def test_any_json_gives_a_frame_or_a_frame_error(value: Any) -> None:
    _only_a_frame_error(json.dumps(value))


@given(st.lists(st.sampled_from([2, 3, 4, 5, 6, 7, -1, "2", 2.0, True]) | json_values, max_size=6))
def test_any_array_gives_a_frame_or_a_frame_error(value: Any) -> None:
    _only_a_frame_error(json.dumps(value))


@given(st.integers(0, 200), st.binary(max_size=3))
def test_a_damaged_frame_gives_a_frame_or_a_frame_error(position: Any, noise: Any) -> None:
    sound = b'[2,"19223201","BootNotification",{"reason":"PowerUp","chargingStation":{"model":"M","vendorName":"V"}}]'
    _only_a_frame_error(sound[:position] + noise + sound[position + 1 :])
