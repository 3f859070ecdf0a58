"""Reservations as they are made, used and over: what is told of them, and to the sessions that use them. Pure.

A reservation is made when the station accepts ReserveNow. A session that names its id uses it, and its price begins
with the reserved time. Where a station says nothing of the end (1.6), it has expired once its time and a grace are
over.

Spec: OCPP 1.6 §5.2 and §5.13, 2.0.1 H.
"""

from __future__ import annotations

from busbar.pricing.assignment import SessionStart
from busbar.records import Result, StationCall
from services.sessions.clock import Moment
from services.sessions.decoding import ReservationAnswer, ReservationCommand, ReservationDue
from services.sessions.events import reservation_event
from services.sessions.lifecycle import conclude
from services.sessions.model import Cause, Session, State, StationState, make_uuid
from services.sessions.reservations import (
    ENDS,
    REPLACED,
    RESERVED,
    Acceptance,
    Claim,
    History,
    Order,
    Reservation,
    Reservations,
    Word,
)
from services.sessions.tokens import token_key

TRIGGER = "reservation"
"""Of the event of a session whose reserved time became known, or another one, without a message about it."""
_CANCELLED = "Cancelled"


def fold_command(state: State, event: ReservationCommand) -> list[Result]:
    """A ReserveNow or a CancelReservation is on its way; it may have been accepted already, as far as we have read."""
    results: list[Result] = []
    station = state.station(event.station_id)
    reservations = _of(station)
    accepted = reservations.accepted.pop(event.command_id, None)
    if accepted is None:
        reservations.remember(event.command_id, event.asked)
        return results
    _accept(state, station, event.command_id, event.asked, *accepted, results)
    return results


def fold_answer(state: State, event: ReservationAnswer) -> list[Result]:
    """What a station answered to one."""
    results: list[Result] = []
    station = state.station(event.station_id)
    reservations = _of(station)
    asked = reservations.asked.pop(event.command_id, None)
    if not event.accepted:
        return results
    if asked is None:
        if not any(history.has_accepted(event.command_id) for history in reservations.histories.values()):
            reservations.remember_answer(event.command_id, event.at_ms, event.version)
        return results
    _accept(state, station, event.command_id, asked, event.at_ms, event.version, results)
    return results


def fold_due(state: State, event: ReservationDue) -> list[Result]:
    """The clock has come to the expiry of a station's reservation."""
    results: list[Result] = []
    expire_reservations(state, state.station(event.station_id), event.now_ms, results)
    return results


def expire_reservations(state: State, station: StationState, now_ms: int, results: list[Result]) -> None:
    """Let reservations expire of which nothing was heard until a grace after their time, each at its own time."""
    reservations = station.reservations
    if reservations is None:
        return
    grace_ms = state.policy.reservation_grace_ms
    while 0 < (due_ms := reservations.due_ms(grace_ms)) <= now_ms:
        for reservation_id, history in list(reservations.histories.items()):
            if any(each.status == RESERVED and each.expires_ms + grace_ms <= due_ms for each in history.told.values()):
                history.looked_ms = max(history.looked_ms, due_ms)
                _settle(state, station, reservation_id, history, due_ms, results)
        station.reservations_due_ms = reservations.due_ms(grace_ms)


def note_word(
    state: State, station: StationState, call: StationCall, reservation_id: int, status: str, results: list[Result]
) -> bool:
    """A station says what became of a reservation; returns whether it is one that we know."""
    if status not in ENDS:
        return False
    history = _of(station).history(reservation_id)
    word = Word(call.received_at_ms, status)
    known = bool(history.told)
    if word not in history.words:
        history.words.append(word)
        _settle(state, station, reservation_id, history, call.received_at_ms, results)
    return known


def claim(state: State, station: StationState, session: Session, moment: Moment, results: list[Result]) -> None:
    """A session names the reservation that it uses. Comes before the session's own event is told."""
    reservations, reservation_id = station.reservations, session.reservation_id
    if reservations is None or reservation_id is None:
        return
    history = reservations.histories.get(reservation_id)
    if history is None:
        return
    if _note_claim(history, session, moment.at_ms):
        _settle(state, station, reservation_id, history, moment.received_ms, results, session)


def _accept(
    state: State,
    station: StationState,
    command_id: str,
    asked: Order | int,
    at_ms: int,
    version: str,
    results: list[Result],
) -> None:
    """The station has done what a command asks for."""
    reservations = _of(station)
    if isinstance(asked, int):
        history = reservations.history(asked)
        history.words.append(Word(at_ms, _CANCELLED))
        _settle(state, station, asked, history, at_ms, results)
        return
    reservation_id = asked.reservation_id
    history = reservations.history(reservation_id)
    if history.has_accepted(command_id):
        return
    history.acceptances.append(Acceptance(at_ms, version, asked))
    for session in station.sessions.values():
        if session.reservation_id == reservation_id and session.reserved_ms is None:
            _note_claim(history, session, session.last_ms)  # it was read first
    _settle(state, station, reservation_id, history, at_ms, results)


def _note_claim(history: History, session: Session, at_ms: int) -> bool:
    """Keep when a session began; returns whether that is new, and of a time that is not forgotten.

    Args:
        at_ms: Stands in for the begin while that is not known.
    """
    known = history.claim(session.session_id)
    if known is None:
        begun_ms = at_ms if session.started_ms is None else session.started_ms
        if begun_ms < history.since_ms:
            return False
        history.claims.append(Claim(begun_ms, session.session_id))
        return True
    if session.started_ms is None or known.at_ms == session.started_ms:
        return False
    history.claims[history.claims.index(known)] = Claim(session.started_ms, session.session_id)
    return True


def _settle(
    state: State,
    station: StationState,
    reservation_id: int,
    history: History,
    at_ms: int,
    results: list[Result],
    told_later: Session | None = None,
) -> None:
    """Work out what became of the reservations of an id, and tell what is new of them and of their sessions.

    Args:
        at_ms: When what led to it was received.
        told_later: The session that it comes from, whose own event follows.
    """
    station.changed = True
    reserved = _tell_changes(state, station, reservation_id, history, at_ms, results)
    station.reservations_due_ms = _of(station).due_ms(state.policy.reservation_grace_ms)
    for session in list(station.sessions.values()):
        if session.reservation_id != reservation_id or session.reserved_ms == reserved.get(session.session_id):
            continue
        if history.claim(session.session_id) is None:
            continue  # of a reservation that is forgotten
        session.reserved_ms, session.change = reserved.get(session.session_id), 2
        if session is not told_later:
            conclude(state, station, session, Cause(Moment(session.last_ms, None, at_ms), TRIGGER), results)


def _tell_changes(
    state: State, station: StationState, reservation_id: int, history: History, at_ms: int, results: list[Result]
) -> dict[str, int]:
    """Tell what is new of the reservations of an id; returns by session when the one that it uses was made."""
    reserved: dict[str, int] = {}
    keys = set()
    for stretch in history.stretches(state.policy.reservation_grace_ms):
        key = make_uuid(station.station_id, "reservation", reservation_id, stretch.first.command_id)
        keys.add(key)
        reservation = history.told.get(key)
        if reservation is None:
            command_id, site_id = stretch.first.command_id, station.site_id
            reservation = Reservation(key, station.station_id, reservation_id, command_id, site_id, "", 0, "")
            _choose(state, reservation, stretch.made_ms, stretch.first)
            history.told[key] = reservation
        if reservation.take(stretch):
            _tell(state, reservation, at_ms, results)
        if stretch.session_id:
            reserved[stretch.session_id] = stretch.made_ms
    for key, reservation in list(history.told.items()):
        if key not in keys and reservation.status != REPLACED:
            # An earlier ReserveNow, of which was read later, has made what this one only replaced.
            reservation.status, reservation.word, reservation.session_id = REPLACED, "Replaced", ""
            reservation.ended_ms = reservation.made_ms
            _tell(state, reservation, at_ms, results)
    return reserved


def _choose(state: State, reservation: Reservation, made_ms: int, order: Order) -> None:
    """Freeze the tariff that it is priced with if no session uses it: that of when it was made."""
    book = state.tariffs
    key = token_key(order.id_token)
    token = state.tokens.get(key)
    start = SessionStart(
        at_ms=made_ms,
        station_id=reservation.station_id,
        connector_id=order.connector_id or None,
        evse_id=(order.evse_id or None) if order.version != "1.6" else None,
        site_id=reservation.site_id or None,
        token_key=key or None,
        group_id=(token.group_id if token is not None else "") or order.group_id or None,
    )
    version = book.decide(start).version if book.assigns else None
    if version is not None:
        reservation.tariff_id, reservation.tariff_version = version.tariff_id, version.version
        reservation.time_zone = book.time_zone(start.site_id)


def _tell(state: State, reservation: Reservation, at_ms: int, results: list[Result]) -> None:
    reservation.sequence += 1
    state.told_reservations[reservation.key] = reservation
    state.count("reservations", reservation.status)
    state.count("session_events", "reservation")
    results.append(reservation_event(reservation, at_ms))


def _of(station: StationState) -> Reservations:
    if station.reservations is None:
        station.reservations = Reservations()
    station.changed = True
    return station.reservations
