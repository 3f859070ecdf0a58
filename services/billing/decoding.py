"""`csms.session-events` as billing reads them, in straight lines.

All events of a session begin with the same bytes, the *head*: who, where, which tariff. It is read once a session.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from functools import cache
from typing import Any
from uuid import UUID

from busbar.avro import InvalidAvro, decode
from busbar.avro.codec import header_of, newest
from busbar.avro.decoders import DECODE_ERRORS, Decoder, compile_decoder
from busbar.avro.schema import parse_schema
from busbar.pricing.session_facts import MICRO, Frame, Observation, observe
from busbar.stream.interfaces import InvalidRecord

SCHEMA = "csms.SessionEvent"
_LAST_OF_HEAD = "time_zone"
_UNREAD = frozenset(
    (
        *("complete", "station_at", "trigger", "power_w", "current_a", "soc_percent"),
        *("stop_reason", "stop_id_token", "missing_seq_nos", "station_tariff_id"),
    )
)
"""What nobody here looks at."""
_MOST_HEADS = 65_536
_ID_END = 42
"""The session's id stands from 5 up to here, with its length."""


@dataclass(slots=True)
class Head:
    """What all events of a session begin with, until something of it becomes known or changes."""

    session_id: str
    station_id: str
    ocpp_version: str
    transaction_id: str
    site_id: str
    evse_id: int
    connector_id: int
    id_token: str
    id_token_type: str
    group_id: str
    authorization_status: str
    reservation_id: int | None
    remote_start_id: int | None
    tariff_id: str
    tariff_version: int
    time_zone: str

    @property
    def tariff(self) -> tuple[str, int, str]:
        return self.tariff_id, self.tariff_version, self.time_zone


HEAD_FIELDS = tuple(entry.name for entry in fields(Head))

Signed = tuple[int | None, str, str, str, str, str]
"""(station's time, context, data, encoding method, signing method, public key)."""


@dataclass(slots=True)
class Event:
    """One event of a session."""

    head: Head
    partition: int
    event_id: str
    sequence: int
    kind: str
    state: str
    final: bool
    offline: bool
    received_ms: int
    frame: Frame
    observations: list[Observation]
    signed: list[Signed]
    flags: list[str]
    raw: bytes
    """The record's value."""
    answered: bool
    """Whether it is a TransactionEvent of 2.x, whose answer tells the station what the session costs so far."""
    cost_details: str
    """JSON text: what the station says that the session costs. 2.1 only."""


def read_event(raw: bytes, partition: int) -> Event:
    """Read a record's value.

    Raises:
        InvalidRecord: It is no SessionEvent.
    """
    header, read_head, read_tail = decoders()
    try:
        if raw[:5] != header:
            return _read_other(raw, partition)
        known = _heads.get(raw[5:_ID_END])
        if known is None or not raw.startswith(known[0]):
            known = _read_head(raw, read_head)
        tail, end = read_tail(raw, len(known[0]))
        if end == len(raw):
            return _event(known[1], tail, raw, partition)
    except InvalidAvro as error:
        raise InvalidRecord("undecodable", str(error)) from error
    except DECODE_ERRORS as error:
        raise InvalidRecord("undecodable", f"{SCHEMA}: {type(error).__name__}: {error}") from error
    raise InvalidRecord("undecodable", f"{SCHEMA}: {len(raw)} bytes, of which {end} were expected")


_heads: dict[bytes, tuple[bytes, Head]] = {}


def _read_head(raw: bytes, read: Decoder) -> tuple[bytes, Head]:
    fields, end = read(raw, 5)
    if end > len(raw):
        raise InvalidAvro(f"{SCHEMA}: {len(raw)} bytes end within its first fields")
    if len(_heads) >= _MOST_HEADS:
        _heads.clear()
    known = _heads[raw[5:_ID_END]] = (raw[:end], _head(fields))
    return known


def _head(fields: dict[str, Any]) -> Head:
    """Raises `InvalidAvro` for what no table has room for."""
    head = Head(**fields)
    try:
        if head.session_id:
            UUID(head.session_id)
    except ValueError:
        raise InvalidAvro(f"{SCHEMA}: the session's id is no UUID") from None
    if not 0 <= head.tariff_version < 1 << 31:
        raise InvalidAvro(f"{SCHEMA}: version {head.tariff_version} of a tariff")
    return head


def _read_other(raw: bytes, partition: int) -> Event:
    """One that was written with another version of the schema."""
    name, value = decode(raw)
    if name != SCHEMA:
        raise InvalidRecord("undecodable", f"{name} is not {SCHEMA}")
    head = _head({each: value[each] for each in HEAD_FIELDS})
    for each in ("energy_wh", "register_begin_wh", "register_end_wh"):
        value[each] = _octets(value[each])
    for point in value["points"]:
        point["register_wh"] = _octets(point["register_wh"])
    return _event(head, value, raw, partition)


def _event(head: Head, tail: dict[str, Any], raw: bytes, partition: int) -> Event:
    at_ms, sequence, order = tail["at"], tail["sequence"], tail["seq_no"]
    begin, end = tail["register_begin_wh"], tail["register_end_wh"]
    points = [
        (
            point["at"],
            None if (register := point["register_wh"]) is None else _uwh(register),
            None if (power := point["power_w"]) is None else _micro(power),
            None if (current := point["current_a"]) is None else _micro(current),
        )
        for point in tail["points"]
    ]
    signed, changes = tail["signed_values"], tail.get("tariff_changes")
    return Event(
        head,
        partition,
        tail["event_id"],
        sequence,
        tail["kind"],
        tail["state"],
        tail["final"],
        tail["offline"],
        tail["received_at"],
        Frame(
            at_ms,
            tail["started_at"],
            tail["ended_at"],
            _uwh(tail["energy_wh"]),
            tail["energy_rung"],
            None if begin is None else _uwh(begin),
            None if end is None else _uwh(end),
            tuple([(each["at"], each["tariff_id"], each["tariff_version"]) for each in changes]) if changes else (),
            tail.get("reserved_at"),
        ),
        observe(at_ms, sequence if order is None else order, tail["charging_state"], points),
        [_signed(value) for value in signed] if signed else [],
        tail["flags"],
        raw,
        order is not None,
        tail["cost_details"],
    )


def _signed(value: Mapping[str, Any]) -> Signed:
    return (
        value["at"],
        value["context"],
        value["data"],
        value["encoding_method"],
        value["signing_method"],
        value["public_key"],
    )


def _uwh(octets: bytes) -> int:
    """Energy in micro-Wh. Raises `InvalidAvro` for what no table has room for."""
    if len(octets) > 8:
        raise InvalidAvro(f"{SCHEMA}: energy of {len(octets)} bytes")
    return int.from_bytes(octets, "big", signed=True)


def _micro(value: float) -> int | None:
    """A sample in millionths; `None` if it is no number that a meter can mean."""
    return round(value * MICRO) if -1e12 < value < 1e12 else None


def _octets(value: Decimal | None) -> bytes | None:
    """A decimal with six places as Avro writes it."""
    if value is None:
        return None
    micro = int(value.scaleb(6))
    return micro.to_bytes(micro.bit_length() // 8 + 1, "big", signed=True)


@cache
def decoders() -> tuple[bytes, Decoder, Decoder]:
    """The header of the newest schema, and decoders of its first fields and of the others.

    Decimals stay bytes.
    """
    entry = newest(SCHEMA)
    source = json.loads(entry.schema)
    fields = source["fields"]
    split = [field["name"] for field in fields].index(_LAST_OF_HEAD) + 1
    head = {**source, "fields": fields[:split]}
    tail = {**source, "fields": [_plain(field) for field in fields[split:]]}
    read = {**source, "fields": [field for field in tail["fields"] if field["name"] not in _UNREAD]}
    read_head = compile_decoder(parse_schema(head))
    return header_of(entry), read_head, compile_decoder(parse_schema(tail), parse_schema(read))


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.get("logicalType") == "decimal":
        return "bytes"
    return {name: _plain(each) for name, each in value.items()}
