"""Results for `csms.outbound`: replies, commands and orders to close, each with its return address (rule 4).

The record goes to the partition that the edge pod with that very connection reads. Nothing here reads a clock: the
same event gives the same reply, byte for byte, whoever folds it and how often (rule 5).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from busbar.avro import encode
from busbar.records import Result, ReturnAddress, StationCall

OUTBOUND_TOPIC = "csms.outbound"
_SCHEMA = "csms.OutboundMessage"


def reply(call: StationCall, payload: Mapping[str, Any], produced_by: str, now_ms: int) -> Result:
    """The CALLRESULT to a CALL.

    Args:
        payload: As the specification has it; written as JSON text.
        produced_by: The service that owns the action.
        now_ms: When the reply is made, Unix milliseconds.
    """
    return with_return_address(
        call.return_address,
        call.station_id,
        "result",
        produced_by=produced_by,
        now_ms=now_ms,
        action=call.action,
        payload=orjson.dumps(payload).decode(),
    )


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
