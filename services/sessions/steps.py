"""Steps that every event of a station takes: what was due first, whether its token may charge, what is stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from busbar.avro.primitives import dump_json
from busbar.records import Result, StationCall
from busbar.stream.replies import reply
from services.sessions.clock import Moment
from services.sessions.events import SERVICE, transaction_status_command
from services.sessions.flags import Flag
from services.sessions.lifecycle import WATCHDOG, add_flags, close, conclude
from services.sessions.model import (
    AuthorizationRow,
    Cause,
    EventRow,
    Session,
    SignedRow,
    State,
    StationState,
    make_uuid,
)
from services.sessions.reserving import expire_reservations
from services.sessions.samples import Samples, as_sent
from services.sessions.tokens import ACCEPTED, Authorization, authorize, token_key
from services.sessions.watchdog import deadline_ms

NO_AUTHORIZATION = "NoAuthorization"


def enter(state: State, call: StationCall, results: list[Result]) -> StationState:
    """A station is heard: note its connection, and first do what was due before this moment."""
    station = state.station(call.station_id)
    if call.connection_id != station.connection_id and call.received_at_ms >= station.connected_ms:
        station.connection_id, station.connected_ms = call.connection_id, call.received_at_ms
        station.changed = True
        for session in station.open_sessions():
            due_ms = deadline_ms(state.policy, station, session)
            if due_ms < session.due_ms:
                session.due_ms, session.change = due_ms, 2
    if station.sessions:
        for session in list(station.sessions.values()):
            # What is stored may be early, for events since may have moved the deadline, but it is never late.
            if 0 < session.due_ms <= call.received_at_ms:
                expire(state, station, session, call.received_at_ms, results)
    if 0 < station.reservations_due_ms <= call.received_at_ms:
        expire_reservations(state, station, call.received_at_ms, results)
    return station


def expire(state: State, station: StationState, session: Session, now_ms: int, results: list[Result]) -> None:
    """Do what a session's deadlines ask for up to now, each at its own time."""
    while 0 < (due_ms := deadline_ms(state.policy, station, session)) <= now_ms:
        cause = Cause(Moment(due_ms, None, due_ms), WATCHDOG)
        if session.is_open:
            close(state, station, session, WATCHDOG)
            state.count("watchdog", "closed")
        elif session.is_v2 and not session.status_asked:
            session.status_asked, session.change = True, 2
            session.due_ms = deadline_ms(state.policy, station, session)
            results.append(transaction_status_command(session, due_ms, state.policy.command_timeout_ms))
            state.count("watchdog", "asked")
            continue
        else:
            session.gave_up = True
            add_flags(session, Flag.GAP | (0 if session.started else Flag.START_MISSING))
            state.count("watchdog", "gave_up")
        conclude(state, station, session, cause, results)


def check_token(
    state: State,
    station: StationState,
    call: StationCall,
    id_token: str,
    id_token_type: str,
    *,
    session: Session | None = None,
    starts: bool = False,
    remembered: str = "",
) -> Authorization:
    """Answer a token, and log the answer.

    Args:
        session: The session that it is about.
        starts: Whether it is to start that session: then the token's other sessions matter.
        remembered: The status that it was answered with before; the same event gets the same answer.
    """
    key = token_key(id_token)
    if id_token_type == NO_AUTHORIZATION:
        authorization = Authorization(ACCEPTED)  # Spec: OCPP 2.0.1 C02.FR.02
    elif not key:
        authorization = Authorization("Invalid")
    else:
        uses = None
        if starts:
            others = state.uses.get(key, set())
            uses = len(others) - (session is not None and session.session_id in others)
        authorization = authorize(
            state.tokens.get(key),
            policy=state.policy.tokens,
            station_id=station.station_id,
            site_id=station.site_id,
            at_ms=call.received_at_ms,
            uses=uses,
        )
    if remembered:
        return replace(authorization, status=remembered)
    state.authorizations.append(
        AuthorizationRow(
            station.station_id,
            call.received_at_ms,
            call.action,
            id_token,
            id_token_type,
            authorization.status,
            session.session_id if session else None,
        )
    )
    state.count("authorizations", authorization.status)
    return authorization


def answer(call: StationCall, payload: dict[str, Any]) -> Result:
    """The CALLRESULT. It is dated by the CALL, for the fold has no clock."""
    return reply(call, payload, SERVICE, call.received_at_ms)


def record_event(
    state: State,
    session: Session | None,
    call: StationCall,
    moment: Moment,
    *,
    key: int,
    content_hash: int,
    event: str,
    evse_id: int,
    samples: Samples | None,
    trigger: str | None = None,
    keep_payload: bool = False,
) -> EventRow:
    """Store an event with its samples; the payload as well where the samples do not hold all of it."""
    session_id = session.session_id if session else outside_id(call.station_id, evse_id)
    keep_payload = keep_payload or (samples is not None and samples.unreadable)
    row = EventRow(
        session_id,
        key,
        content_hash,
        call.station_id,
        evse_id,
        event,
        trigger,
        session is not None,
        moment.at_ms,
        moment.station_ms,
        call.received_at_ms,
        samples,
        moment.shift_ms,
        dump_json(as_sent(call.payload)) if keep_payload else None,
    )
    state.rows.append(row)
    hashes = state.known.get((session_id, key))
    if hashes is None:
        state.known[session_id, key] = [content_hash]
    else:
        hashes.append(content_hash)
    if samples is not None:
        shape = samples.shape
        state.shapes[shape.shape_id] = shape
        for reading in samples.signed:
            state.signed.append(SignedRow(session_id, key, reading))
    return row


def outside_id(station_id: str, evse_id: int) -> str:
    """Stands for a session where meter values belong to none."""
    return make_uuid(station_id, "outside", evse_id)
