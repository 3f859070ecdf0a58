"""StartTransaction, StopTransaction and MeterValues."""

from __future__ import annotations

from busbar.records import Result
from busbar.stream.interfaces import InvalidRecord
from services.sessions.answers import start_answer, stop_answer
from services.sessions.clock import Moment, moment
from services.sessions.decoding import Meter, Start, Stop, is_known_id
from services.sessions.energy import Energy, add_meter_start, add_meter_stop, add_register, settle
from services.sessions.events import meter_samples
from services.sessions.flags import Flag
from services.sessions.lifecycle import (
    add_flags,
    begin,
    close_older,
    conclude,
    finish,
    hear,
    max_power,
    new_session,
    note_clock,
    remove_flags,
    reopen_if_silent,
    take_samples,
)
from services.sessions.matching import orphan_of_start, same_stop, session_of_meter_values, session_of_stop
from services.sessions.model import START_KEY, STOP_KEY, Cause, Point, Session, State, StationState
from services.sessions.reserving import claim
from services.sessions.steps import answer, check_token, enter, outside_id, record_event
from services.sessions.tokens import ACCEPTED

_OF_A_STOP = ("begin_uwh", "begin_position", "end_uwh", "end_position", "meter_stop_uwh", "interval_uwh", "intervals")
"""What a stop can bring of a session's energy, beside registers."""


def fold_start(state: State, event: Start) -> list[Result]:
    """StartTransaction: a session with a transaction id that a retry and a replay get again. Spec: OCPP 1.6 §4.8."""
    call = event.call
    results: list[Result] = []
    transaction_id, session = _place_of(state.station(call.station_id), event)
    station = enter(state, call, results)
    if session is not None and session.started:
        remembered = check_token(
            state, station, call, event.id_token, "", session=session, remembered=session.authorization_status
        )
        state.count("duplicates", call.action)
        return [*results, answer(call, start_answer(int(transaction_id), remembered))]
    if session is None:
        session = new_session(station, transaction_id, 1, call)
    now = moment(station.clock, event.station_ms, call.received_at_ms, offline=False, is_v2=False)
    note_clock(station)
    _fill(session, event)
    begin(session, now)
    if session.ended_ms is not None:
        finish(session, session.ended_ms)  # its stop came first
    hear(session, call, now)
    close_older(state, station, session, now, results)
    authorization = check_token(state, station, call, event.id_token, "", session=session, starts=True)
    session.authorization_status = authorization.status
    session.group_id = authorization.group_id
    if authorization.status != ACCEPTED:
        add_flags(session, Flag.UNAUTHORIZED)  # energy may flow all the same, and is nobody else's
    if session.reservation_id is not None:
        claim(state, station, session, now, results)
    cause = Cause(now, call.action)
    if event.meter_start_uwh is not None:
        add_flags(
            session, add_meter_start(session.energy, now.at_ms, event.meter_start_uwh, max_power(state.policy, station))
        )
        cause.points = [(now.at_ms, event.meter_start_uwh, None, None)]
    record_event(
        state,
        session,
        call,
        now,
        key=START_KEY,
        content_hash=0,
        event=call.action,
        evse_id=session.evse_id,
        samples=event.samples,
        keep_payload=not event.readable,
    )
    conclude(state, station, session, cause, results, "started")
    if not session.stopped:
        _join_orphan(state, station, session, event, now, results)
    _tell_samples(results, event, station, session, now, f"{session.session_id}/start")
    results.append(answer(call, start_answer(int(transaction_id), authorization)))
    return results


def _place_of(station: StationState, event: Start) -> tuple[str, Session | None]:
    """The transaction id of a start, and the session that already has it."""
    for transaction_id in event.candidates:
        session = station.find(transaction_id)
        if session is None or session.start_key == event.key or (not session.started and not session.is_v2):
            return transaction_id, session
    raise InvalidRecord("no-transaction-id", "all transaction ids of a StartTransaction belong to other transactions")


def _fill(session: Session, event: Start) -> None:
    if not event.readable:
        add_flags(session, Flag.UNREADABLE)
    session.start_key = event.key
    session.evse_id = session.connector_id = event.connector_id
    session.id_token, session.has_token = event.id_token, True
    session.reservation_id = event.reservation_id


def _join_orphan(
    state: State, station: StationState, session: Session, event: Start, now: Moment, results: list[Result]
) -> None:
    """A stop that came before its start and did not know its id."""
    orphan = orphan_of_start(station, event, now.at_ms)
    if orphan is None:
        return
    limit = max_power(state.policy, station)
    flags = Flag.MATCHED_WITHOUT_ID
    for first_at, first, last_at, last in orphan.energy.stretches:
        flags |= add_register(session.energy, first_at, first, limit)
        flags |= add_register(session.energy, last_at, last, limit)
    for name in (
        "begin_uwh",
        "begin_position",
        "end_uwh",
        "end_position",
        "meter_stop_uwh",
        "interval_uwh",
        "intervals",
    ):
        setattr(session.energy, name, getattr(orphan.energy, name))
    session.stopped, session.stop_reason = True, orphan.stop_reason
    session.stop_id_token, session.stop_hash = orphan.stop_id_token, orphan.stop_hash
    add_flags(session, flags | orphan.flags & ~Flag.START_MISSING)
    finish(session, orphan.ended_ms or now.at_ms)
    orphan.joined_to = session.session_id
    orphan.energy = Energy()
    orphan.was_final, orphan.change = True, 2
    station.settle(orphan.session_id)
    station.unsettle(session.session_id)  # so that the same stop, sent again, finds it
    conclude(state, station, session, Cause(now, "StopTransaction"), results)
    conclude(state, station, orphan, Cause(now, event.call.action), results)


def fold_stop(state: State, event: Stop) -> list[Result]:
    """StopTransaction: always answered, whatever its transaction id. Spec: OCPP 1.6 §4.10."""
    call = event.call
    results: list[Result] = []
    station = enter(state, call, results)
    now = moment(station.clock, event.station_ms, call.received_at_ms, offline=False, is_v2=False)
    note_clock(station)
    known = is_known_id(event.transaction_id)
    session = station.find(event.transaction_id) if known else None
    if session is not None and session.is_v2:
        session = None
    matched = session is None
    session = session or same_stop(station, event) or session_of_stop(station, event, now.at_ms)
    is_repeat = session is not None and session.stopped and session.stop_hash == event.content_hash
    authorization = None
    if event.id_token is not None:
        remembered = session.stop_status if session is not None and is_repeat else ""
        authorization = check_token(state, station, call, event.id_token, "", session=session, remembered=remembered)
    if is_repeat:
        state.count("duplicates", call.action)
        return [*results, answer(call, stop_answer(authorization))]
    conflict = session is not None and session.stopped
    if session is None:
        matched = False
        # Stops without a usable id are told apart by their content.
        generation = 1 if known else (event.content_hash & 0x3FFF_FFFF) + 2  # a PostgreSQL int
        session = new_session(station, event.transaction_id, generation, call)
        add_flags(session, Flag.START_MISSING)
    hear(session, call, now)
    if matched and session.started:
        add_flags(session, Flag.MATCHED_WITHOUT_ID)
        station.unsettle(session.session_id)
    elif known:
        session.uses_own_id = True
    if not event.readable:
        add_flags(session, Flag.UNREADABLE)
    row = record_event(
        state,
        session,
        call,
        now,
        key=STOP_KEY,
        content_hash=event.content_hash,
        event=call.action,
        evse_id=session.evse_id,
        samples=event.samples,
        keep_payload=conflict or not session.started or not event.readable,
    )
    cause = Cause(now, call.action)
    if conflict:
        add_flags(session, Flag.STOP_CONFLICT)
    else:
        session.stop_status = authorization.status if authorization else ""
        _stop(state, station, session, event, now, cause)
    if session.reservation_id is not None:
        claim(state, station, session, now, results)  # its begin may be another one now
    conclude(state, station, session, cause, results, "orphaned" if session.state == "orphan" else "updated")
    _tell_samples(results, event, station, session, now, f"{session.session_id}/stop/{row.content_hash}")
    results.append(answer(call, stop_answer(authorization)))
    return results


def _stop(state: State, station: StationState, session: Session, event: Stop, now: Moment, cause: Cause) -> None:
    """The real stop of a session; it wins over a close for want of news."""
    if session.closed_by:
        add_flags(session, Flag.LATE_STOP)
        remove_flags(session, Flag.STOP_MISSING)
        station.settle(session.session_id)
    session.stopped, session.stop_reason = True, event.reason
    session.stop_id_token, session.stop_hash = event.id_token or "", event.content_hash
    take_samples(state.policy, station, session, event.data, now, cause)
    if event.meter_stop_uwh is not None:
        limit = max_power(state.policy, station)
        add_flags(session, add_meter_stop(session.energy, now.at_ms, event.meter_stop_uwh, limit))
        last: Point = (now.at_ms, event.meter_stop_uwh, None, None)
        cause.points = [*cause.points, last]
    finish(session, now.at_ms)
    if session.state == "orphan" and not is_known_id(session.transaction_id):
        station.unsettle(session.session_id)


def fold_meter_values(state: State, event: Meter) -> list[Result]:
    """MeterValues of any version: always answered, whatever they are. Spec: OCPP 1.6 §4.7, 2.0.1 J01.FR.18."""
    call, samples = event.call, event.samples
    results: list[Result] = []
    station = enter(state, call, results)
    session, matched = session_of_meter_values(station, event)
    session_id = session.session_id if session else outside_id(call.station_id, event.evse_id)
    if (session_id, event.event_key) in state.known:
        state.count("duplicates", call.action)
        return [*results, answer(call, {})]
    newest = samples.last_ms() if samples is not None else None
    now = moment(station.clock, newest, call.received_at_ms, offline=False, is_v2=call.version.is_v2)
    note_clock(station)
    known = is_known_id(event.transaction_id)
    if session is None and known and event.evse_id:
        session = new_session(station, event.transaction_id, 1, call)
        session.evse_id = session.connector_id = event.evse_id
    record_event(
        state,
        session,
        call,
        now,
        key=event.event_key,
        content_hash=0,
        event=call.action,
        evse_id=event.evse_id,
        samples=samples,
        keep_payload=samples is None,
    )
    if session is not None:
        if matched:
            add_flags(session, Flag.MATCHED_WITHOUT_ID)
        elif known:
            session.uses_own_id = True
        _measure(state, station, session, event, now, results)
    _tell_samples(results, event, station, session, now, f"{session_id}/{event.event_key}")
    results.append(answer(call, {}))
    return results


def _measure(
    state: State, station: StationState, session: Session, event: Meter, now: Moment, results: list[Result]
) -> None:
    """Fold meter values into their session."""
    ended_ms, before = session.ended_ms, session.energy.total_uwh
    hear(session, event.call, now)
    reopen_if_silent(station, session)
    cause = Cause(now, event.call.action)
    take_samples(state.policy, station, session, event.samples, now, cause)
    # Values from behind the end of a session that change nothing are stored, and no reason for a correction.
    settle(session.energy)
    reserved_ms = session.reserved_ms
    if session.reservation_id is not None:
        claim(state, station, session, now, results)
    is_late = session.stopped and ended_ms is not None and now.at_ms >= ended_ms
    is_new = session.energy.total_uwh != before or session.reserved_ms != reserved_ms
    conclude(state, station, session, cause, results, tell=not is_late or is_new)


def _tell_samples(
    results: list[Result],
    event: Start | Stop | Meter,
    station: StationState,
    session: Session | None,
    now: Moment,
    event_id: str,
) -> None:
    if event.samples is None:
        return
    place = (session.evse_id, session.connector_id) if session else _place(event)
    results.append(meter_samples(event.call, station, session, place, event.samples, event_id, None, now.shift_ms))


def _place(event: Start | Stop | Meter) -> tuple[int, int]:
    return (event.evse_id, event.connector_id) if isinstance(event, Meter) else (0, 0)
