"""TransactionEvent of OCPP 2.x."""

from __future__ import annotations

from busbar.records import Result
from services.sessions.answers import transaction_event_answer
from services.sessions.clock import Moment, moment
from services.sessions.decoding import TransactionEvent
from services.sessions.events import meter_samples
from services.sessions.flags import Flag
from services.sessions.lifecycle import (
    add_flags,
    begin,
    close_older,
    conclude,
    finish,
    hear,
    new_session,
    note_clock,
    remove_flags,
    reopen_if_silent,
    take_samples,
)
from services.sessions.model import Cause, Session, State, StationState
from services.sessions.pricing import total_cost, transaction_limit
from services.sessions.reserving import claim
from services.sessions.steps import answer, check_token, enter, record_event
from services.sessions.tariff_changes import confirm
from services.sessions.tokens import ACCEPTED, Authorization, token_key

_MOST_RANGES = 500
"""With more gaps than this the first one is no longer waited for."""

_STOP_TRIGGERS = frozenset(("StopAuthorized", "Deauthorized", "RemoteStop"))


def fold_transaction_event(state: State, event: TransactionEvent) -> list[Result]:
    """TransactionEvent: always answered, whatever it says. Spec: OCPP 2.0.1 Part 2 E."""
    call = event.call
    results: list[Result] = []
    station = enter(state, call, results)
    now = moment(station.clock, event.station_ms, call.received_at_ms, offline=event.offline, is_v2=True)
    note_clock(station)
    if not event.transaction_id:
        return [*results, *_fold_nameless(state, station, event, now)]
    session, is_repeat, is_conflict = _session_of(state, station, event, now)
    if is_repeat:
        assert session is not None
        state.count("duplicates", call.action)
        authorization = _repeat_token(state, station, session, event)
        return [*results, _answer(state, session, event, authorization)]
    is_first = session is None
    if session is None:
        same = station.transactions.get(event.transaction_id)
        session = new_session(station, event.transaction_id, same[-1].generation + 1 if same else 1, call)
    hear(session, call, now, offline=event.offline)
    is_newest = not session.seq_ranges or event.seq_no > session.seq_ranges[-1][1]
    _take_facts(session, event, is_newest)
    if session.tariff_requests and event.tariff_id:
        confirm(state, session, event.tariff_id, event.trigger, now.at_ms, is_newest=is_newest)
    if is_conflict:
        add_flags(session, Flag.SEQ_NO_CONFLICT)
    if not event.readable:
        add_flags(session, Flag.UNREADABLE)
    kind = _take_type(station, session, event, now)
    if is_first or kind == "started":
        close_older(state, station, session, now, results)
    authorization = _take_token(state, station, session, event) if event.id_token is not None else None
    if session.reservation_id is not None:
        claim(state, station, session, now, results)
    cause = Cause(now, event.trigger, event.seq_no, event.offline, cost_details=event.cost_details)
    cause.charging_state = event.charging_state
    take_samples(state.policy, station, session, event.samples, now, cause, is_newest=is_newest)
    record_event(
        state,
        session,
        call,
        now,
        key=event.seq_no,
        content_hash=event.content_hash,
        event=event.event_type,
        evse_id=session.evse_id,
        samples=event.samples,
        trigger=event.trigger,
        keep_payload=is_conflict or not event.readable,
    )
    conclude(state, station, session, cause, results, kind)
    if event.samples is not None:
        place = (session.evse_id, session.connector_id)
        event_id = f"{session.session_id}/{event.seq_no}"
        results.append(
            meter_samples(call, station, session, place, event.samples, event_id, event.seq_no, now.shift_ms)
        )
    results.append(_answer(state, session, event, authorization))
    return results


def _answer(state: State, session: Session, event: TransactionEvent, authorization: Authorization | None) -> Result:
    """The answer, with what the transaction costs by now and may cost at most."""
    call = event.call
    cost = limit = None
    if session.price_tariff_id and event.event_type != "Started":
        cost = total_cost(state, session)
    if authorization is not None and authorization.status == ACCEPTED and not _stops(session, event):
        limit = transaction_limit(session, state.tokens.get(token_key(event.id_token or "")))
    return answer(call, transaction_event_answer(authorization, call.version, cost, limit))


def _fold_nameless(state: State, station: StationState, event: TransactionEvent, now: Moment) -> list[Result]:
    """An event that does not say which transaction it is of: kept as it came."""
    call = event.call
    record_event(
        state,
        None,
        call,
        now,
        key=event.seq_no,
        content_hash=event.content_hash,
        event=event.event_type,
        evse_id=event.evse_id,
        samples=event.samples,
        trigger=event.trigger,
        keep_payload=True,
    )
    authorization = None
    if event.id_token is not None:
        authorization = check_token(state, station, call, event.id_token, event.id_token_type)
    return [answer(call, transaction_event_answer(authorization, call.version))]


def _session_of(
    state: State, station: StationState, event: TransactionEvent, now: Moment
) -> tuple[Session | None, bool, bool]:
    """The session of an event; whether it has seen this very event; whether it has seen another one with its seqNo."""
    same = station.transactions.get(event.transaction_id)
    if not same:
        return None, False, False
    for session in reversed(same):
        if not has_seq_no(session.seq_ranges, event.seq_no):
            continue
        hashes = state.known.get((session.session_id, event.seq_no))
        if hashes is None or event.content_hash in hashes:
            return session, True, False
    session = same[-1]
    if _is_reuse(session, event, now):
        return None, False, False
    return session, False, has_seq_no(session.seq_ranges, event.seq_no)


def _is_reuse(session: Session, event: TransactionEvent, now: Moment) -> bool:
    """Whether a station begins another transaction with an id that it has used before."""
    if event.event_type != "Started" or not session.started or session.is_open:
        return False
    return now.at_ms > (session.ended_ms or session.last_ms)


def _take_facts(session: Session, event: TransactionEvent, is_newest: bool) -> None:
    """What is sent once, or when it changes, is remembered. Spec: OCPP 2.0.1 E01.FR.16 and others."""
    add_seq_no(session.seq_ranges, event.seq_no)
    if event.charging_state:
        if event.seq_no >= session.state_seq_no:
            session.charging_state, session.state_seq_no = event.charging_state, event.seq_no
        if event.charging_state == "Charging":
            session.charged = True
    if event.evse_id and not session.evse_id:
        session.evse_id, session.change = event.evse_id, 2
    if event.connector_id and not session.connector_id:
        session.connector_id, session.change = event.connector_id, 2
    if event.reservation_id is not None and session.reservation_id is None:
        session.reservation_id, session.change = event.reservation_id, 2
    if event.remote_start_id is not None and session.remote_start_id is None:
        session.remote_start_id, session.change = event.remote_start_id, 2
    if event.tariff_id and is_newest:
        session.station_tariff_id = event.tariff_id


def _take_type(station: StationState, session: Session, event: TransactionEvent, now: Moment) -> str:
    """Started, Updated or Ended. Returns the kind of the session's event."""
    if event.event_type == "Started":
        if session.started:
            return "updated"
        begin(session, now)
        session.started_seq_no = event.seq_no
        if session.ended_ms is not None and session.stopped:
            finish(session, session.ended_ms)
        return "started"
    if event.event_type == "Ended":
        if not session.stopped:
            _end(station, session, event, now)
        return "updated"
    if session.closed_by:
        reopen_if_silent(station, session)
    return "updated"


def _end(station: StationState, session: Session, event: TransactionEvent, now: Moment) -> None:
    """The real end of a session; it wins over a close for want of news."""
    if session.closed_by:
        add_flags(session, Flag.LATE_STOP)
        remove_flags(session, Flag.STOP_MISSING)
        station.settle(session.session_id)
    session.stopped = True
    session.ended_seq_no = event.seq_no
    session.stop_reason = event.stopped_reason
    finish(session, now.at_ms)


def _take_token(state: State, station: StationState, session: Session, event: TransactionEvent) -> Authorization:
    """An id token is sent when it is new: the first one starts the session, a later one stops it."""
    id_token = event.id_token or ""
    stops = _stops(session, event)
    authorization = check_token(
        state, station, event.call, id_token, event.id_token_type, session=session, starts=not stops
    )
    session.change = 2
    if stops:
        session.stop_id_token, session.stop_status = id_token, authorization.status
    elif not session.has_token:
        session.id_token, session.id_token_type, session.has_token = id_token, event.id_token_type, True
        session.group_id, session.authorization_status = authorization.group_id, authorization.status
        if authorization.status != ACCEPTED:
            add_flags(session, Flag.UNAUTHORIZED)
    return authorization


def _stops(session: Session, event: TransactionEvent) -> bool:
    return event.event_type == "Ended" or event.trigger in _STOP_TRIGGERS


def _repeat_token(
    state: State, station: StationState, session: Session, event: TransactionEvent
) -> Authorization | None:
    """The answer that the event's token got before."""
    if event.id_token is None:
        return None
    remembered = session.stop_status if _stops(session, event) else ""
    if not remembered and token_key(event.id_token) == token_key(session.id_token):
        remembered = session.authorization_status
    return check_token(
        state, station, event.call, event.id_token, event.id_token_type, session=session, remembered=remembered
    )


def has_seq_no(ranges: list[list[int]], seq_no: int) -> bool:
    """Whether a seqNo lies in one of the ranges."""
    if not ranges or seq_no > ranges[-1][1]:
        return False
    return any(first <= seq_no <= last for first, last in ranges)


def add_seq_no(ranges: list[list[int]], seq_no: int) -> None:
    """Add a seqNo to the ranges, in place."""
    if ranges:
        last = ranges[-1]
        if seq_no == last[1] + 1:
            last[1] = seq_no
            return
        if has_seq_no(ranges, seq_no):
            return
    ranges.append([seq_no, seq_no])
    ranges.sort()
    merged = [ranges[0]]
    for each in ranges[1:]:
        if each[0] <= merged[-1][1] + 1:
            merged[-1][1] = max(merged[-1][1], each[1])
        else:
            merged.append(each)
    if len(merged) > _MOST_RANGES:
        merged[:2] = [[merged[0][0], merged[1][1]]]
    ranges[:] = merged
