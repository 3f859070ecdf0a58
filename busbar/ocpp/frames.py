"""OCPP-J frames: the JSON arrays that travel on the WebSocket."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import orjson

from busbar.ocpp.errors import FrameError, Problem

CALL, CALL_RESULT, CALL_ERROR, CALL_RESULT_ERROR, SEND = 2, 3, 4, 5, 6
"""Message type numbers. Spec: OCPP-J 1.6 §4.1.3, OCPP 2.1 Part 4 §4.1.3."""

UNREADABLE_MESSAGE_ID = "-1"
"""Stands for a message id that cannot be read. Spec: OCPP 2.0.1 Part 4 §4.2.3."""

MAX_MESSAGE_ID = 255
"""The specification says 36; longer ones are seen in the field and do no harm."""


@dataclass(frozen=True, slots=True)
class Call:
    """`[2, messageId, action, payload]`"""

    message_id: str
    action: str
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CallResult:
    """`[3, messageId, payload]`"""

    message_id: str
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CallError:
    """`[4, messageId, errorCode, errorDescription, errorDetails]`"""

    message_id: str
    code: str
    description: str = ""
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CallResultError:
    """`[5, messageId, errorCode, errorDescription, errorDetails]`: OCPP 2.1, about a CALLRESULT."""

    message_id: str
    code: str
    description: str = ""
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Send:
    """`[6, messageId, action, payload]`: OCPP 2.1, never answered."""

    message_id: str
    action: str
    payload: dict[str, Any]


Frame = Call | CallResult | CallError | CallResultError | Send

# What can be made out of a text that is not JSON: the type and the id at its beginning.
_BEGINNING = re.compile(r'^[\s\ufeff\0]*\[\s*(\d{1,9})\s*,\s*"([^"\\\x00-\x1f]{1,255})"')


def parse_frame(text: str | bytes) -> Frame:
    """Read one OCPP-J frame.

    Of an object's members with the same name the last one counts. Integers beyond 64 bits become floats, which no
    schema takes for an integer. NaN, lone surrogates, more than 1,024 levels and bytes that are not UTF-8 are errors.
    Spec: OCPP-J 1.6 §4.2, OCPP 2.0.1 Part 4 §4.2, OCPP 2.1 Part 4 §4.2.

    Args:
        text: A JSON array: `[2, messageId, action, payload]`, `[3, messageId, payload]`,
            `[4, messageId, errorCode, errorDescription, errorDetails]`, or 2.1's
            `[5, messageId, errorCode, errorDescription, errorDetails]` and `[6, messageId, action, payload]`.

    Raises:
        FrameError: Anything else. Carries the problem and, if it can be read, the message id to answer with.
    """
    try:
        value = orjson.loads(text)
    except ValueError as error:
        raise _unreadable(text, error) from None
    return frame_of(value)


def frame_of(value: Any) -> Frame:
    """The frame that a JSON value is. Raises `FrameError` as `parse_frame` does."""
    if type(value) is list and len(value) == 4 and value[0] == CALL:
        _, message_id, action, payload = value
        if (
            type(message_id) is str
            and type(action) is str
            and type(payload) is dict
            and 0 < len(message_id) <= MAX_MESSAGE_ID
            and message_id.isprintable()
        ):
            return Call(message_id, action, payload)
    return _other_frame(value)


def _other_frame(value: Any) -> Frame:
    """Whatever is not a sound CALL."""
    if not isinstance(value, list):
        raise FrameError(Problem.UNREADABLE, None, f"a frame is a JSON array, this is {_kind(value)}")
    message_type = value[0] if value and type(value[0]) is int else None
    message_id = _readable_id(value)
    if message_id is None:
        raise FrameError(
            Problem.UNREADABLE,
            None,
            f"element 1, the message id, is not a string of 1 to {MAX_MESSAGE_ID} printable characters",
            message_type,
        )
    if message_type is None:
        raise FrameError(Problem.FRAME_STRUCTURE, message_id, "element 0 is not a message type number")
    if message_type in (CALL, SEND):
        return _call(value, message_type, message_id)
    if message_type == CALL_RESULT:
        return _call_result(value, message_id)
    if message_type in (CALL_ERROR, CALL_RESULT_ERROR):
        return _call_error(value, message_type, message_id)
    raise FrameError(Problem.MESSAGE_TYPE, message_id, f"message type {message_type} is not supported", message_type)


def _call(value: list[Any], message_type: int, message_id: str) -> Call | Send:
    if len(value) != 4:
        raise FrameError(
            Problem.FRAME_STRUCTURE,
            message_id,
            f"message type {message_type} has 4 elements, this has {len(value)}",
            message_type,
        )
    action, payload = value[2:]
    if not isinstance(action, str):
        raise FrameError(
            Problem.FRAME_STRUCTURE,
            message_id,
            f"element 2, the action, is {_kind(action)} and not a string",
            message_type,
        )
    _require_object(payload, 3, message_type, message_id)
    return Call(message_id, action, payload) if message_type == CALL else Send(message_id, action, payload)


def _call_result(value: list[Any], message_id: str) -> CallResult:
    if len(value) != 3:
        raise FrameError(
            Problem.FRAME_STRUCTURE, message_id, f"a CALLRESULT has 3 elements, this has {len(value)}", CALL_RESULT
        )
    _require_object(value[2], 2, CALL_RESULT, message_id)
    return CallResult(message_id, value[2])


def _call_error(value: list[Any], message_type: int, message_id: str) -> CallError | CallResultError:
    """Description and details are often left out or null: no reason to lose the code."""
    if not 3 <= len(value) <= 5 or not isinstance(value[2], str):
        raise FrameError(
            Problem.FRAME_STRUCTURE,
            message_id,
            "an error has 5 elements: type, message id, code, description, details",
            message_type,
        )
    description = value[3] if len(value) > 3 and isinstance(value[3], str) else ""
    details = value[4] if len(value) > 4 and isinstance(value[4], dict) else {}
    make = CallError if message_type == CALL_ERROR else CallResultError
    return make(message_id, value[2], description, details)


def _require_object(payload: Any, index: int, message_type: int, message_id: str) -> None:
    if not isinstance(payload, dict):
        raise FrameError(
            Problem.PAYLOAD_STRUCTURE,
            message_id,
            f"element {index}, the payload, is {_kind(payload)} and not an object",
            message_type,
        )


def _readable_id(value: list[Any]) -> str | None:
    if len(value) < 2:
        return None
    message_id = value[1]
    if isinstance(message_id, str) and 0 < len(message_id) <= MAX_MESSAGE_ID and message_id.isprintable():
        return message_id
    return None


def _unreadable(text: str | bytes, error: ValueError) -> FrameError:
    """What to say of a text that is not JSON. The parser's message names the place and no content."""
    beginning = text[:600]
    if isinstance(beginning, bytes):
        beginning = beginning.decode("utf-8", "replace")
    found = _BEGINNING.match(beginning)
    if found is None or not found[2].isprintable():
        return FrameError(Problem.UNREADABLE, None, f"not JSON: {error}")
    return FrameError(Problem.SYNTAX, found[2], f"not JSON: {error}", int(found[1]))


def _kind(value: Any) -> str:
    """The JSON type of a value, for error texts that must not repeat the value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list) else "an object"


def serialize_frame(frame: Frame) -> str:
    """Write one OCPP-J frame. Raises `TypeError` for a payload that is not JSON."""
    match frame:
        case Call(message_id, action, payload):
            value: list[Any] = [CALL, message_id, action, payload]
        case CallResult(message_id, payload):
            value = [CALL_RESULT, message_id, payload]
        case CallError(message_id, code, description, details):
            value = [CALL_ERROR, message_id, code, description, details]
        case CallResultError(message_id, code, description, details):
            value = [CALL_RESULT_ERROR, message_id, code, description, details]
        case Send(message_id, action, payload):
            value = [SEND, message_id, action, payload]
    return orjson.dumps(value).decode()


def call_bytes(message_id: str, action: str, payload: str) -> bytes:
    """A CALL around a payload that is JSON text already."""
    return b"[2,%b,%b,%b]" % (orjson.dumps(message_id), orjson.dumps(action), payload.encode() or b"{}")


def call_result_bytes(message_id: str, payload: str) -> bytes:
    """A CALLRESULT around a payload that is JSON text already."""
    return b"[3,%b,%b]" % (orjson.dumps(message_id), payload.encode() or b"{}")


def call_error_bytes(message_id: str, code: str, description: str, details: str = "{}") -> bytes:
    """A CALLERROR around details that are JSON text already."""
    head = orjson.dumps([message_id, code, description])[1:-1]
    return b"[4,%b,%b]" % (head, details.encode() or b"{}")


def call_result_error_bytes(message_id: str, code: str, description: str, details: str = "{}") -> bytes:
    """A CALLRESULTERROR of OCPP 2.1 around details that are JSON text already."""
    return b"[5" + call_error_bytes(message_id, code, description, details)[2:]
