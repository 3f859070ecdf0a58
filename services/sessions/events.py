"""What sessions tells the world: `csms.session-events`, `csms.meter-samples` and questions to stations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson

from busbar.avro import encode
from busbar.avro.primitives import dump_json
from busbar.records import Result, StationCall
from services.sessions.clock import Moment
from services.sessions.flags import flag_names
from services.sessions.model import Session, StationState, make_uuid
from services.sessions.samples import Samples
from services.sessions.signed import SignedReading
from services.sessions.units import MICRO

SERVICE = "sessions"
SESSION_EVENTS_TOPIC = "csms.session-events"
METER_SAMPLES_TOPIC = "csms.meter-samples"
COMMANDS_TOPIC = "csms.commands"

Point = tuple[int, int | None, int | None, int | None]
"""(time we go by, register, power, current) of one instant; millionths."""


@dataclass(slots=True)
class Cause:
    """What an event of a session rests on."""

    moment: Moment
    trigger: str
    seq_no: int | None = None
    offline: bool = False
    charging_state: str = ""
    points: Sequence[Point] = ()
    soc_micro: int | None = None
    signed: Sequence[SignedReading] = ()
    cost_details: dict[str, Any] | None = None


def wh(micro: int | None) -> Decimal | None:
    """Micro-Wh as Wh, exact."""
    return None if micro is None else Decimal(micro).scaleb(-6)


def session_event(session: Session, kind: str, cause: Cause, **changes: Any) -> Result:
    """One event of a session, with the session's state as it is now.

    Args:
        changes: Fields that differ from what the session says.
    """
    session.sequence += 1
    session.change = session.change or 1
    energy, moment = session.energy, cause.moment
    last = cause.points[-1] if cause.points else (0, None, None, None)
    value = {
        "session_id": session.session_id,
        "station_id": session.station_id,
        "ocpp_version": session.version,
        "transaction_id": session.transaction_id,
        "site_id": session.site_id,
        "evse_id": session.evse_id,
        "connector_id": session.connector_id,
        "id_token": session.id_token,
        "id_token_type": session.id_token_type,
        "group_id": session.group_id,
        "authorization_status": session.authorization_status,
        "reservation_id": session.reservation_id,
        "remote_start_id": session.remote_start_id,
        "event_id": f"{session.session_id}/{session.sequence}",
        "sequence": session.sequence,
        "kind": kind,
        "state": session.state,
        "final": session.is_final,
        "complete": session.is_complete,
        "offline": cause.offline,
        "at": moment.at_ms,
        "station_at": moment.station_ms,
        "received_at": moment.received_ms,
        "started_at": session.started_ms,
        "ended_at": session.ended_ms,
        "trigger": cause.trigger,
        "seq_no": cause.seq_no,
        "charging_state": cause.charging_state,
        "energy_wh": wh(energy.total_uwh),
        "energy_rung": energy.rung,
        "register_begin_wh": wh(energy.register_begin_uwh),
        "register_end_wh": wh(energy.register_end_uwh),
        "power_w": _units(last[2]),
        "current_a": _units(last[3]),
        "soc_percent": _units(cause.soc_micro),
        "points": [
            {"at": at, "register_wh": wh(register), "power_w": _units(power), "current_a": _units(current)}
            for at, register, power, current in cause.points
        ],
        "stop_reason": session.stop_reason,
        "stop_id_token": session.stop_id_token,
        "missing_seq_nos": [{"first": first, "last": last} for first, last in session.missing()],
        "flags": flag_names(session.flags),
        "signed_values": [_signed_value(reading) for reading in cause.signed],
        "tariff_id": session.tariff_id,
        "cost_details": dump_json(cause.cost_details).decode() if cause.cost_details else "",
        **changes,
    }
    return _result(SESSION_EVENTS_TOPIC, "csms.SessionEvent", session.station_id, value, moment.received_ms)


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
    times = sample_times(samples, call.received_at_ms, shift_ms)
    value = {
        "station_id": call.station_id,
        "site_id": station.site_id,
        "evse_id": place[0],
        "connector_id": place[1],
        "session_id": session.session_id if session else "",
        "transaction_id": session.transaction_id if session else "",
        "event_id": event_id,
        "action": call.action,
        "seq_no": seq_no,
        "received_at": call.received_at_ms,
        "samples": [
            {
                "measurand": kind.measurand,
                "phase": kind.phase,
                "location": kind.location,
                "context": kind.context,
                "unit": kind.unit,
                "at": at,
                "value": _units(micro),
            }
            for kind, micro, at in zip(samples.shape.kinds, samples.values, times, strict=True)
            if not kind.signed
        ],
    }
    return _result(METER_SAMPLES_TOPIC, "csms.MeterSamples", call.station_id, value, call.received_at_ms)


def sample_times(samples: Samples, received_ms: int, shift_ms: int) -> list[int]:
    """The time we go by of each sample."""
    times: list[int] = []
    for at, count in zip(samples.times, samples.counts, strict=True):
        times += [received_ms if at is None else at + shift_ms] * count
    return times


def reservation_event(station: StationState, call: StationCall, reservation_id: int, status: str) -> Result:
    """What became of a reservation, for those who bill it."""
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
    return session_event(session, "reservation", cause, event_id=event_id, state="")


def transaction_status_command(session: Session, at_ms: int, timeout_ms: int) -> Result:
    """GetTransactionStatus: whether the station still holds events of it. Spec: OCPP 2.0.1 Part 2 E14."""
    value = {
        "command_id": make_uuid(session.session_id, "GetTransactionStatus"),
        "station_id": session.station_id,
        "action": "GetTransactionStatus",
        "payload": orjson.dumps({"transactionId": session.transaction_id}).decode(),
        "requested_by": SERVICE,
        "requested_at": at_ms,
        "deadline_at": at_ms + timeout_ms,
        "park": True,
    }
    return _result(COMMANDS_TOPIC, "csms.Command", session.station_id, value, at_ms)


def _units(micro: int | None) -> float | None:
    return None if micro is None else micro / MICRO


def _signed_value(reading: SignedReading) -> dict[str, Any]:
    return {
        "at": reading.at_ms,
        "context": reading.context,
        "data": reading.data,
        "encoding_method": reading.encoding_method,
        "signing_method": reading.signing_method,
        "public_key": reading.public_key,
    }


def _result(topic: str, schema: str, station_id: str, value: dict[str, Any], timestamp_ms: int) -> Result:
    return Result(topic, station_id.encode(), encode(schema, value), timestamp_ms=timestamp_ms)
