"""What sessions tells the world: `csms.session-events`, `csms.meter-samples` and questions to stations."""

from __future__ import annotations

from typing import Any

import orjson

from busbar.avro import encode
from busbar.records import Result, StationCall
from services.sessions.clock import Moment
from services.sessions.continuity import Change
from services.sessions.model import Cause, Session, StationState, make_uuid
from services.sessions.reservations import RESERVED, Reservation
from services.sessions.samples import Samples
from services.sessions.wire import encode_meter_samples, encode_session_event

SERVICE = "sessions"
SESSION_EVENTS_TOPIC = "csms.session-events"
METER_SAMPLES_TOPIC = "csms.meter-samples"
COMMANDS_TOPIC = "csms.commands"


def session_event(
    session: Session, kind: str, cause: Cause, *, gap: Change | None = None, event_id: str | None = None
) -> Result:
    """One event of a session, with the session's state as it is now. For the arguments see `encode_session_event`."""
    session.sequence += 1
    session.change = session.change or 1
    value = encode_session_event(session, kind, cause, gap, event_id)
    return Result(SESSION_EVENTS_TOPIC, session.station_id.encode(), value, timestamp_ms=cause.moment.received_ms)


def meter_samples(
    call: StationCall,
    station: StationState,
    session: Session | None,
    place: tuple[int, int],
    samples: Samples,
    event_id: str,
    seq_no: int | None,
    shift_ms: int,
) -> Result:
    """The meter values of one event.

    Args:
        place: EVSE and connector, 0 where they are not known.
        shift_ms: What is added to the station's times.
    """
    session_id, transaction_id = (session.session_id, session.transaction_id) if session else ("", "")
    evse_id, connector_id = place
    key = (call.station_id, station.site_id, evse_id, connector_id, session_id, transaction_id)
    value = encode_meter_samples(key, event_id, call.action, seq_no, call.received_at_ms, samples, shift_ms)
    return Result(METER_SAMPLES_TOPIC, call.station_id.encode(), value, timestamp_ms=call.received_at_ms)


def reservation_event(reservation: Reservation, at_ms: int) -> Result:
    """What became of a reservation, for those who bill it.

    Args:
        at_ms: When what led to it was received.
    """
    value = {
        "session_id": reservation.key,
        "station_id": reservation.station_id,
        "ocpp_version": reservation.version,
        "transaction_id": "",
        "site_id": reservation.site_id,
        "evse_id": reservation.evse_id,
        "connector_id": reservation.connector_id,
        "id_token": reservation.id_token,
        "id_token_type": reservation.id_token_type,
        "group_id": reservation.group_id,
        "authorization_status": "",
        "reservation_id": reservation.reservation_id,
        "remote_start_id": None,
        "tariff_id": reservation.tariff_id,
        "tariff_version": reservation.tariff_version,
        "time_zone": reservation.time_zone,
        "event_id": f"{reservation.key}/{reservation.sequence}",
        "sequence": reservation.sequence,
        "kind": "reservation",
        "state": reservation.status,
        "final": reservation.status != RESERVED,
        "complete": True,
        "offline": False,
        "at": at_ms if reservation.ended_ms is None else reservation.ended_ms,
        "station_at": None,
        "received_at": at_ms,
        "started_at": None,
        "ended_at": reservation.ended_ms,
        "trigger": reservation.word,
        "seq_no": None,
        "charging_state": "",
        "energy_wh": 0,
        "energy_rung": "none",
        "register_begin_wh": None,
        "register_end_wh": None,
        "power_w": None,
        "current_a": None,
        "soc_percent": None,
        "points": [],
        "stop_reason": "",
        "stop_id_token": "",
        "missing_seq_nos": [],
        "flags": [],
        "reserved_at": reservation.made_ms,
        "reservation_expires_at": reservation.expires_ms,
    }
    key, encoded = reservation.station_id.encode(), encode("csms.SessionEvent", value)
    return Result(SESSION_EVENTS_TOPIC, key, encoded, timestamp_ms=at_ms)


def unknown_reservation_event(station: StationState, call: StationCall, reservation_id: int, status: str) -> Result:
    """What a station says of a reservation that no command of ours has made."""
    session = Session(
        session_id="",
        station_id=station.station_id,
        transaction_id="",
        generation=0,
        version=call.version.value,
        opened_ms=call.received_at_ms,
        site_id=station.site_id,
        reservation_id=reservation_id,
    )
    cause = Cause(Moment(call.received_at_ms, None, call.received_at_ms), status)
    event_id = make_uuid(station.station_id, "reservation", reservation_id, status)
    return session_event(session, "reservation", cause, event_id=event_id)


def transaction_status_command(session: Session, at_ms: int, timeout_ms: int) -> Result:
    """GetTransactionStatus: whether the station still holds events of it. Spec: OCPP 2.0.1 Part 2 E14."""
    command_id = make_uuid(session.session_id, "GetTransactionStatus")
    return _command(session, command_id, "GetTransactionStatus", {}, at_ms, timeout_ms)


def change_tariff_command(session: Session, command_id: str, tariff: str, at_ms: int, timeout_ms: int) -> Result:
    """ChangeTransactionTariff to a TariffType, which is JSON text. Spec: OCPP 2.1 I11."""
    payload = {"tariff": orjson.Fragment(tariff)}
    return _command(session, command_id, "ChangeTransactionTariff", payload, at_ms, timeout_ms)


def _command(
    session: Session, command_id: str, action: str, more: dict[str, Any], at_ms: int, timeout_ms: int
) -> Result:
    """A command about a session's transaction.

    Args:
        more: What its payload has beside the transaction.
    """
    value = {
        "command_id": command_id,
        "station_id": session.station_id,
        "action": action,
        "payload": orjson.dumps({"transactionId": session.transaction_id, **more}).decode(),
        "requested_by": SERVICE,
        "requested_at": at_ms,
        "deadline_at": at_ms + timeout_ms,
        "park": True,
    }
    return Result(COMMANDS_TOPIC, session.station_id.encode(), encode("csms.Command", value), timestamp_ms=at_ms)
