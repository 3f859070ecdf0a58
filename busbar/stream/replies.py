"""Results for `csms.outbound`: replies, commands and orders to close, each with its return address (rule 4).

The record goes to the partition that the edge pod with that very connection reads. Nothing here reads a clock: the
same event gives the same reply, byte for byte, whoever folds it and how often (rule 5).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from busbar.avro import encode
from busbar.avro.codec import header_of, newest
from busbar.avro.primitives import encode_long, encode_octets, encode_text
from busbar.records import Result, ReturnAddress, StationCall

OUTBOUND_TOPIC = "csms.outbound"
_SCHEMA = "csms.OutboundMessage"


def reply(call: StationCall, payload: Mapping[str, Any], produced_by: str, now_ms: int) -> Result:
    """The CALLRESULT to a CALL: `csms.OutboundMessage` written in straight lines, as every CALL gets one.

    Args:
        payload: As the specification has it; written as JSON text.
        produced_by: The service that owns the action.
        now_ms: When the reply is made, Unix milliseconds.
    """
    return Result(
        OUTBOUND_TOPIC,
        call.station_id.encode(),
        b"".join(
            (
                _connection(call.station_id, call.connection_id),
                encode_text(call.message_id),
                _word(call.action),
                encode_octets(orjson.dumps(payload)) if payload else _EMPTY_OBJECT,
                _NOTHING_MORE,
                _word(produced_by),
                encode_long(now_ms),
            )
        ),
        call.edge_partition,
        (),
        now_ms,
    )


_MEMO_LIMIT = 32_768
_EMPTY_OBJECT = b"\x04{}"
_NOTHING_MORE = bytes(7)
"""The fields from `error_code` to `close_code`, at their defaults."""
_connections: dict[tuple[str, str], bytes] = {}
_words: dict[str, bytes] = {}


def _connection(station_id: str, connection_id: str) -> bytes:
    """What every reply on a connection begins with: the schema, station and connection, and that it is a result."""
    known = _connections.get((station_id, connection_id))
    if known is None:
        known = b"".join((header_of(newest(_SCHEMA)), *map(encode_text, (station_id, connection_id, "result"))))
        if len(_connections) >= _MEMO_LIMIT:
            _connections.clear()
        _connections[station_id, connection_id] = known
    return known


def _word(text: str) -> bytes:
    """A string that comes again and again."""
    known = _words.get(text)
    if known is None:
        known = encode_text(text)
        if len(_words) >= _MEMO_LIMIT:
            _words.clear()
        _words[text] = known
    return known


def reply_error(
    call: StationCall,
    code: str,
    description: str,
    produced_by: str,
    now_ms: int,
    details: Mapping[str, Any] | None = None,
) -> Result:
    """The CALLERROR to a CALL.

    Args:
        code: In the spelling of the call's version (`FormationViolation` in 1.6, `FormatViolation` in 2.x).
    """
    return with_return_address(
        call.return_address,
        call.station_id,
        "error",
        produced_by=produced_by,
        now_ms=now_ms,
        action=call.action,
        error_code=code,
        error_description=description,
        error_details=orjson.dumps(details).decode() if details else "",
    )


def with_return_address(
    address: ReturnAddress,
    station_id: str,
    kind: str,
    *,
    produced_by: str,
    now_ms: int,
    **fields: Any,
) -> Result:
    """Any outbound message for one connection.

    Args:
        kind: `result`, `error`, `call`, `close` or `marker`.
        fields: Other fields of `csms.OutboundMessage` (`action`, `payload`, `command_id`, `deadline_at` …).
    """
    value = {
        "station_id": station_id,
        "connection_id": address.connection_id,
        "kind": kind,
        "message_id": address.message_id,
        "action": "",
        "produced_by": produced_by,
        "produced_at": now_ms,
        **fields,
    }
    return Result(
        OUTBOUND_TOPIC,
        station_id.encode(),
        encode(_SCHEMA, value),
        partition=address.edge_partition,
        timestamp_ms=now_ms,
    )
