"""`csms.session-events` as billing reads them, in straight lines.

All events of a session begin with the same bytes, the *head*: who, where, which tariff. It is read once a session.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from decimal import Decimal
from functools import cache
from typing import Any
from uuid import UUID

from busbar.avro import InvalidAvro, decode
from busbar.avro.codec import header_of, newest
from busbar.avro.decoders import DECODE_ERRORS, Decoder, compile_decoder
from busbar.avro.schema import parse_schema
from busbar.pricing.session_facts import MICRO, Frame, Observation, Point, observe
from busbar.stream.interfaces import InvalidRecord

SCHEMA = "csms.SessionEvent"
_LAST_OF_HEAD = "time_zone"
_READ = (
    *("event_id", "sequence", "kind", "state", "final", "offline", "at", "received_at", "started_at", "ended_at"),
    *("seq_no", "charging_state", "energy_wh", "energy_rung", "register_begin_wh", "register_end_wh", "points"),
    *("flags", "signed_values", "cost_details", "tariff_changes", "reserved_at"),
)
"""What is read behind the head, in the order in which `_event` takes it."""
_MEMBERS = {
    "points": ("at", "register_wh", "power_w", "current_a"),
    "signed_values": ("at", "context", "data", "encoding_method", "signing_method", "public_key"),
    "tariff_changes": ("at", "tariff_id", "tariff_version"),
}
"""What is read of the records in some of these; signed values and changes are kept as they come."""
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
    for each, members in _MEMBERS.items():
        value[each] = [tuple([_unscaled(item[name]) for name in members]) for item in value[each]]
    return _event(head, tuple([_unscaled(value[each]) for each in _READ]), raw, partition)


def _unscaled(value: Any) -> Any:
    """Energy in micro-Wh; anything else as it is. Raises `InvalidAvro` for what no table has room for."""
    if not isinstance(value, Decimal):
        return value
    micro = int(value.scaleb(6))
    if not -(1 << 63) <= micro < 1 << 63:
        raise InvalidAvro(f"{SCHEMA}: energy of {value} Wh")
    return micro


def _event(head: Head, tail: tuple[Any, ...], raw: bytes, partition: int) -> Event:
    (
        event_id,
        sequence,
        kind,
        state,
        final,
        offline,
        at_ms,
        received_ms,
        started_ms,
        ended_ms,
        order,
        charging_state,
        energy_uwh,
        rung,
        begin_uwh,
        end_uwh,
        points,
        flags,
        signed,
        cost_details,
        changes,
        reserved_ms,
    ) = tail
    return Event(
        head,
        partition,
        event_id,
        sequence,
        kind,
        state,
        final,
        offline,
        received_ms,
        Frame(
            at_ms,
            started_ms,
            ended_ms,
            energy_uwh,
            rung,
            begin_uwh,
            end_uwh,
            tuple(changes) if changes else (),
            reserved_ms,
        ),
        observe(
            at_ms,
            sequence if order is None else order,
            charging_state,
            [_point(at, register, power, current) for at, register, power, current in points],
        ),
        signed,
        flags,
        raw,
        order is not None,
        cost_details,
    )


def _point(at_ms: int, register: int | None, power_w: float | None, current_a: float | None) -> Point:
    return (
        at_ms,
        register,
        None if power_w is None else _micro(power_w),
        None if current_a is None else _micro(current_a),
    )


def _micro(value: float) -> int | None:
    """A sample in millionths; `None` if it is no number that a meter can mean."""
    return round(value * MICRO) if -1e12 < value < 1e12 else None


@cache
def decoders() -> tuple[bytes, Decoder, Decoder]:
    """The header of the newest schema, and decoders of its first fields and of what is read of the others.

    The first makes a dict, the second a plain tuple.
    """
    entry = newest(SCHEMA)
    source = json.loads(entry.schema)
    fields = source["fields"]
    split = [field["name"] for field in fields].index(_LAST_OF_HEAD) + 1
    head, tail = {**source, "fields": fields[:split]}, {**source, "fields": fields[split:]}
    by_name = {field["name"]: field for field in fields}
    read = {**source, "fields": [_reduced(by_name[name]) for name in _READ]}
    read_head = compile_decoder(parse_schema(head))
    return header_of(entry), read_head, compile_decoder(parse_schema(tail), parse_schema(read), plain=True)


def _reduced(field: dict[str, Any]) -> dict[str, Any]:
    """A field with only those members of its records that are read, in the order in which they are taken."""
    members = _MEMBERS.get(field["name"])
    if members is None:
        return field
    items = field["type"]["items"]
    by_name = {member["name"]: member for member in items["fields"]}
    record = {**items, "fields": [by_name[name] for name in members]}
    return {**field, "type": {**field["type"], "items": record}}
