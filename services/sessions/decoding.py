"""CALLs of 1.6 and 2.x as events of one model. Whatever a station sends becomes an event: nothing here raises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from struct import pack
from typing import Any
from zlib import crc32

import orjson

from busbar.records import StationCall
from services.sessions.clock import station_ms
from services.sessions.reservations import Order
from services.sessions.samples import Samples, read_meter_values, with_register
from services.sessions.tokens import token_key
from services.sessions.units import MICRO

CANDIDATES = 4
"""How many transaction ids of 1.6 are tried for a start: one is enough but once in two thousand million."""

RESERVATION_ACTIONS = ("ReserveNow", "CancelReservation")
"""Commands that make a reservation, and end it."""

_LONG_MAX = 2**63 - 1
_ID_LIMIT = 255


@dataclass(slots=True)
class Authorize:
    """A token is presented, and no transaction with it."""

    call: StationCall
    id_token: str
    id_token_type: str
    """Empty for 1.6."""
    has_certificate: bool = False
    """2.x: it comes with a contract certificate, which has to be checked first."""


@dataclass(slots=True)
class Start:
    """StartTransaction of 1.6."""

    call: StationCall
    connector_id: int
    id_token: str
    meter_start_uwh: int | None
    station_ms: int | None
    reservation_id: int | None
    key: str
    """The business key (rule 7), hashed: station, connector, idTag, meterStart and timestamp."""
    candidates: tuple[str, ...]
    """Transaction ids to try, in order; made of the key, so that a retry and a replay give the same."""
    samples: Samples | None
    readable: bool


@dataclass(slots=True)
class Stop:
    """StopTransaction of 1.6."""

    call: StationCall
    transaction_id: str
    """As a decimal number; empty if there was none."""
    id_token: str | None
    meter_stop_uwh: int | None
    station_ms: int | None
    reason: str
    data: Samples | None
    """`transactionData`."""
    samples: Samples | None
    """The same with `meterStop`."""
    content_hash: int
    readable: bool


@dataclass(slots=True)
class Meter:
    """MeterValues of any version."""

    call: StationCall
    evse_id: int
    connector_id: int
    transaction_id: str
    """1.6: as a decimal number; empty if there was none."""
    samples: Samples | None
    event_key: int
    """A hash of the content, positive."""


@dataclass(slots=True)
class TransactionEvent:
    """TransactionEvent of 2.x."""

    call: StationCall
    event_type: str
    transaction_id: str
    seq_no: int
    station_ms: int | None
    trigger: str
    offline: bool
    charging_state: str
    stopped_reason: str
    evse_id: int
    connector_id: int
    id_token: str | None
    id_token_type: str
    reservation_id: int | None
    remote_start_id: int | None
    tariff_id: str
    cost_details: dict[str, Any] | None
    samples: Samples | None
    content_hash: int
    readable: bool


@dataclass(slots=True)
class ReservationUpdate:
    """ReservationStatusUpdate of 2.x."""

    call: StationCall
    reservation_id: int | None
    status: str


@dataclass(slots=True)
class SessionDue:
    """The time has come to look at a session: from the watchdog, not from a station."""

    partition: int
    station_id: str
    session_id: str
    now_ms: int


@dataclass(slots=True)
class TariffRequest:
    """Somebody wants another tariff for a session that goes on: a record of `csms.tariff-changes`."""

    change_id: str
    station_id: str
    session_id: str
    transaction_id: str
    tariff_id: str
    version: int
    requested_by: str
    requested_ms: int


@dataclass(slots=True)
class ReservationCommand:
    """A ReserveNow or a CancelReservation on its way to a station: a record of `csms.commands`."""

    station_id: str
    command_id: str
    asked: Order | int
    """What ReserveNow asks for, or the reservation that CancelReservation is about."""


@dataclass(slots=True)
class ReservationAnswer:
    """What a station answered to one: a record of `csms.command-events`."""

    station_id: str
    command_id: str
    at_ms: int
    version: str
    accepted: bool


@dataclass(slots=True)
class ReservationDue:
    """A reservation of a station has come to its expiry: from the clock, not from the station."""

    partition: int
    station_id: str
    now_ms: int


Event = (
    Authorize
    | Start
    | Stop
    | Meter
    | TransactionEvent
    | ReservationUpdate
    | SessionDue
    | TariffRequest
    | ReservationCommand
    | ReservationAnswer
    | ReservationDue
)


def event_of(call: StationCall) -> Event:
    """The event that a CALL is. Raises `KeyError` for an action that sessions does not own."""
    return _READERS[(call.version.is_v2, call.action)](call)


def tariff_request_of(value: Mapping[str, Any]) -> TariffRequest:
    """The event that a `csms.TariffChange` is."""
    return TariffRequest(
        value["change_id"],
        value["station_id"],
        value["session_id"],
        value["transaction_id"],
        value["tariff_id"],
        value["tariff_version"],
        value["requested_by"],
        value["requested_at"],
    )


def reservation_command_of(value: Mapping[str, Any]) -> ReservationCommand | None:
    """The event that a `csms.Command` is; `None` if it is about no reservation, or its payload makes no sense."""
    action = value["action"]
    if action not in RESERVATION_ACTIONS:
        return None
    payload = _json_object(value["payload"])
    asked = integer(payload.get("reservationId")) if action == "CancelReservation" else _order(value, payload)
    return None if asked is None else ReservationCommand(value["station_id"], value["command_id"], asked)


def reservation_answer_of(value: Mapping[str, Any]) -> ReservationAnswer | None:
    """The event that a `csms.CommandEvent` is; `None` if it is no answer about a reservation.

    A late answer is one: the station did what it says. Only the answer to a command that was given up is called so.
    """
    if value["action"] not in RESERVATION_ACTIONS or value["stage"] not in ("answered", "late") or value["error_code"]:
        return None
    accepted = _json_object(value["payload"]).get("status") == "Accepted"
    version = text(value["ocpp_version"])
    return ReservationAnswer(value["station_id"], value["command_id"], value["at"], version, accepted)


def _order(value: Mapping[str, Any], payload: dict[str, Any]) -> Order | None:
    get = payload.get
    if "reservationId" in payload:
        reservation_id, expires_ms = integer(get("reservationId")), station_ms(get("expiryDate"))
        version, evse_id = "1.6", integer(get("connectorId")) or 0
        connector_id, id_token, kind, group_id = evse_id, text(get("idTag")), "", text(get("parentIdTag"))
    else:
        reservation_id, expires_ms = integer(get("id")), station_ms(get("expiryDateTime"))
        version, evse_id, connector_id = "2.0.1", integer(get("evseId")) or 0, 0
        token, kind = _id_token(payload)
        id_token, group = token or "", get("groupIdToken")
        group_id = text(group.get("idToken")) if isinstance(group, dict) else ""
    if reservation_id is None or expires_ms is None:
        return None
    command_id = value["command_id"]
    return Order(command_id, reservation_id, version, evse_id, connector_id, id_token, kind, group_id, expires_ms)


def _json_object(raw: str) -> dict[str, Any]:
    try:
        value = orjson.loads(raw)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def is_known_id(transaction_id: str) -> bool:
    """Whether a 1.6 transaction id may be one that we gave: stations send -1, 0 and the like for want of one."""
    return transaction_id.isdigit() and 0 < int(transaction_id) < 2**31


def _authorize_16(call: StationCall) -> Authorize:
    return Authorize(call, text(call.payload.get("idTag")), "")


def _authorize_2x(call: StationCall) -> Authorize:
    payload = call.payload
    id_token, kind = _id_token(payload)
    certificate = "certificate" in payload or "iso15118CertificateHashData" in payload
    return Authorize(call, id_token or "", kind, certificate)


def _start(call: StationCall) -> Start:
    payload = call.payload
    connector_id, meter_start = integer(payload.get("connectorId")), integer(payload.get("meterStart"))
    id_token, at_ms = text(payload.get("idTag")), station_ms(payload.get("timestamp"))
    when = text(payload.get("timestamp")) if at_ms is None else at_ms
    fact = f"{call.station_id}\0{connector_id}\0{token_key(id_token)}\0{meter_start}\0{when}"
    key = blake2b(fact.encode("utf-8", "replace"), digest_size=16).hexdigest()
    meter_start_uwh = _micro_wh(meter_start)
    samples = with_register(None, meter_start_uwh, at_ms, "Transaction.Begin")
    return Start(
        call=call,
        connector_id=connector_id or 0,
        id_token=id_token,
        meter_start_uwh=meter_start_uwh,
        station_ms=at_ms,
        reservation_id=integer(payload.get("reservationId")),
        key=key,
        candidates=tuple(_transaction_id(key, attempt) for attempt in range(CANDIDATES)),
        samples=samples,
        readable=meter_start_uwh is not None and connector_id is not None,
    )


def _transaction_id(key: str, attempt: int) -> str:
    """A positive 31-bit number."""
    digest = blake2b(f"{key}/{attempt}".encode(), digest_size=4).digest()
    return str(int.from_bytes(digest, "big") & 0x7FFFFFFF or 1)


def _stop(call: StationCall) -> Stop:
    payload = call.payload
    transaction_id, meter_stop = integer(payload.get("transactionId")), integer(payload.get("meterStop"))
    at_ms, data = station_ms(payload.get("timestamp")), read_meter_values(payload.get("transactionData"), is_v2=False)
    reason = text(payload.get("reason")) or "Local"
    id_token = text(payload["idTag"]) if "idTag" in payload else None
    meter_stop_uwh = _micro_wh(meter_stop)
    samples = with_register(data, meter_stop_uwh, at_ms, "Transaction.End")
    # The transaction id is left out: a station may send a stop again once it knows the right one.
    facts = f"{at_ms}\0{reason}\0{token_key(id_token or '')}\0{meter_stop}"
    return Stop(
        call=call,
        transaction_id="" if transaction_id is None else str(transaction_id),
        id_token=id_token,
        meter_stop_uwh=meter_stop_uwh,
        station_ms=at_ms,
        reason=reason,
        data=data,
        samples=samples,
        content_hash=_content_hash(facts, data),
        readable=meter_stop_uwh is not None,
    )


def _meter_16(call: StationCall) -> Meter:
    payload = call.payload
    connector_id, transaction_id = integer(payload.get("connectorId")) or 0, integer(payload.get("transactionId"))
    samples = read_meter_values(payload.get("meterValue"), is_v2=False)
    known = "" if transaction_id is None else str(transaction_id)
    return Meter(call, connector_id, connector_id, known, samples, _meter_key(connector_id, samples, payload))


def _meter_2x(call: StationCall) -> Meter:
    payload = call.payload
    evse_id = integer(payload.get("evseId")) or 0
    samples = read_meter_values(payload.get("meterValue"), is_v2=True)
    return Meter(call, evse_id, 0, "", samples, _meter_key(evse_id, samples, payload))


def _transaction_event(call: StationCall) -> TransactionEvent:
    payload = call.payload
    info = payload.get("transactionInfo")
    if not isinstance(info, dict):
        info = {}
    seq_no = integer(payload.get("seqNo"))
    transaction_id = identity(info.get("transactionId"))
    event_type, timestamp = text(payload.get("eventType")), text(payload.get("timestamp"))
    trigger = text(payload.get("triggerReason"))
    charging_state, reason = text(info.get("chargingState")), text(info.get("stoppedReason"))
    offline = payload.get("offline") is True
    id_token, kind = _id_token(payload)
    evse_id, connector_id = _evse(payload.get("evse"))
    samples = read_meter_values(payload.get("meterValue"), is_v2=True)
    cost_details = payload.get("costDetails")
    facts = f"{event_type}\0{timestamp}\0{trigger}\0{charging_state}\0{reason}\0{offline}\0{evse_id}\0{id_token}"
    return TransactionEvent(
        call,
        event_type,
        transaction_id,
        seq_no if seq_no is not None and seq_no >= 0 else 0,
        station_ms(timestamp),
        trigger,
        offline,
        charging_state,
        reason,
        evse_id,
        connector_id,
        id_token,
        kind,
        integer(payload.get("reservationId")),
        integer(info.get("remoteStartId")),
        text(info.get("tariffId")),
        cost_details if isinstance(cost_details, dict) else None,
        samples,
        _content_hash(facts, samples),
        bool(transaction_id) and seq_no is not None and seq_no >= 0 and event_type in _EVENT_TYPES,
    )


_EVENT_TYPES = frozenset(("Started", "Updated", "Ended"))


def _reservation_update(call: StationCall) -> ReservationUpdate:
    payload = call.payload
    return ReservationUpdate(call, integer(payload.get("reservationId")), text(payload.get("reservationUpdateStatus")))


def _id_token(payload: dict[str, Any]) -> tuple[str | None, str]:
    member = payload.get("idToken")
    if not isinstance(member, dict):
        return None, ""
    return text(member.get("idToken")), text(member.get("type"))


def _evse(member: Any) -> tuple[int, int]:
    if not isinstance(member, dict):
        return 0, 0
    return integer(member.get("id")) or 0, integer(member.get("connectorId")) or 0


def _content_hash(facts: str, samples: Samples | None) -> int:
    """Tells two messages of the same key apart; a signed 32-bit number."""
    raw = facts.encode("utf-8", "replace")
    if samples is not None:
        raw += samples.packed()
        for reading in samples.signed:
            raw += reading.data.encode("utf-8", "replace")
    return crc32(raw) - 2**31


def _meter_key(evse_id: int, samples: Samples | None, payload: dict[str, Any]) -> int:
    digest = blake2b(digest_size=8)
    if samples is None:
        digest.update(repr(payload).encode("utf-8", "replace"))
    else:
        times = [0 if at is None else at for at in samples.times]
        digest.update(pack(f">qq{len(times)}q", evse_id, samples.shape.shape_id, *times))
        digest.update(samples.packed())
        for reading in samples.signed:
            digest.update(reading.data.encode("utf-8", "replace"))
    return int.from_bytes(digest.digest(), "big") >> 2


def _micro_wh(value: int | None) -> int | None:
    return value * MICRO if value is not None and abs(value) <= 10**10 else None


def text(value: Any) -> str:
    """A string as it is but for NUL characters, which PostgreSQL cannot hold; anything else is empty."""
    if type(value) is not str:
        return ""
    return value if "\0" not in value else value.replace("\0", "")


def identity(value: Any) -> str:
    """A string that is looked up by an index: one that is too long for that is cut, and told apart by a hash."""
    name = text(value)
    if len(name) <= _ID_LIMIT:
        return name
    return f"{name[:64]}#{blake2b(name.encode('utf-8', 'replace'), digest_size=16).hexdigest()}"


def integer(value: Any) -> int | None:
    """A whole number of 64 bits; `None` for anything else."""
    if type(value) is int and -_LONG_MAX <= value <= _LONG_MAX:
        return value
    return None


_READERS: dict[tuple[bool, str], Callable[[StationCall], Event]] = {
    (False, "Authorize"): _authorize_16,
    (False, "StartTransaction"): _start,
    (False, "StopTransaction"): _stop,
    (False, "MeterValues"): _meter_16,
    (True, "Authorize"): _authorize_2x,
    (True, "TransactionEvent"): _transaction_event,
    (True, "MeterValues"): _meter_2x,
    (True, "ReservationStatusUpdate"): _reservation_update,
}
