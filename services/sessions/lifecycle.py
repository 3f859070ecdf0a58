"""What happens to a session whatever the version: it is heard of, measured, closed, reopened and told about."""

from __future__ import annotations

from hashlib import blake2b

from busbar.records import Result, StationCall
from services.sessions.clock import TOLERANCE_MS, UNSET_BEFORE_MS, Clock, Moment
from services.sessions.continuity import Change, Continuity, begin_session, cover_session
from services.sessions.energy import TOLERANCE_UWH, add_reading, settle
from services.sessions.events import session_event
from services.sessions.flags import Flag
from services.sessions.model import Cause, Point, Policy, Session, State, StationState, make_uuid
from services.sessions.pricing import follow
from services.sessions.samples import Reading, Samples
from services.sessions.signed import SignedReading, signed_registers
from services.sessions.tokens import ACCEPTED, token_key
from services.sessions.watchdog import deadline_ms

_LONGEST_MS = 45 * 86_400_000
"""A session that seems longer has a clock that was set while it went on."""

NEXT_START = "next-start"
WATCHDOG = "watchdog"


def new_session(station: StationState, transaction_id: str, generation: int, call: StationCall) -> Session:
    """A session of which this CALL is the first that is heard."""
    session = Session(
        session_id=make_uuid(station.station_id, transaction_id, generation),
        station_id=station.station_id,
        transaction_id=transaction_id,
        generation=generation,
        version=call.version.value,
        opened_ms=call.received_at_ms,
        site_id=station.site_id,
        is_new=True,
        change=2,
    )
    if generation > 1 and call.version.is_v2:
        session.flags |= Flag.TRANSACTION_ID_REUSED
    station.add(session)
    return session


def hear(session: Session, call: StationCall, moment: Moment, *, offline: bool = False) -> None:
    """Note that something was heard of a session."""
    if moment.at_ms > session.last_ms:
        session.last_ms = moment.at_ms
    if call.received_at_ms > session.last_received_ms:
        session.last_received_ms = call.received_at_ms
    if session.connection_id != call.connection_id:
        session.connection_id, session.change = call.connection_id, 2
    flags = moment.flags | (Flag.OFFLINE if offline else 0)
    if flags:
        add_flags(session, flags)
    if moment.shift_ms:
        _shift_start(session, moment.shift_ms)


def add_flags(session: Session, flags: int) -> None:
    if flags & ~session.flags:
        session.flags |= flags
        session.change = 2


def remove_flags(session: Session, flags: int) -> None:
    if flags & session.flags:
        session.flags &= ~flags
        session.change = 2


def begin(session: Session, moment: Moment) -> None:
    """The start of a session has been seen."""
    session.started = True
    session.started_ms = moment.at_ms
    session.started_station_ms = moment.station_ms
    session.started_received_ms = moment.received_ms
    session.change = 2
    remove_flags(session, Flag.START_MISSING)


def _shift_start(session: Session, shift_ms: int) -> None:
    """The clock has been proven wrong after the start: a live start with the same deviation is shifted as well."""
    station_ms = session.started_station_ms
    if station_ms is None or session.started_ms != station_ms:
        return
    if abs(session.started_received_ms - station_ms - shift_ms) <= TOLERANCE_MS:
        session.started_ms = station_ms + shift_ms
        session.change = 2


def take_samples(
    policy: Policy,
    station: StationState,
    session: Session,
    samples: Samples | None,
    moment: Moment,
    cause: Cause,
    *,
    is_newest: bool = True,
) -> None:
    """Fold the samples of an event into the session's energy, and describe the event's instants in `cause`."""
    if samples is None:
        return
    flags = Flag.VALUE_UNREADABLE if samples.unreadable else 0
    quirks = station.quirks
    max_power_w = max_power(policy, station)
    factor = 1000 if quirks and str(quirks.get("register_unit", "")).casefold() == "kwh" else 1
    points: list[Point] = []
    for reading in samples.readings:
        at_ms = moment.at_ms if reading.at_ms is None else reading.at_ms + moment.shift_ms
        flags |= add_reading(
            session.energy, reading, at_ms, max_power_w=max_power_w, unit_factor=factor, is_newest=is_newest
        )
        point = _point(reading, at_ms, factor)
        if point is not None:
            points.append(point)
        if reading.soc_micro is not None:
            cause.soc_micro = reading.soc_micro
    if len(points) > 1:
        points.sort(key=lambda point: point[0])
    cause.points = points
    if samples.signed:
        cause.signed = samples.signed
        for signed in samples.signed:
            flags |= _take_signed(station, session, signed, samples.readings)
    _note_sample_time(session, samples)
    if flags:
        add_flags(session, flags)


def max_power(policy: Policy, station: StationState) -> int:
    """What a connector of the station can deliver, with a margin of 20 %."""
    if not station.quirks:
        return policy.max_power_w
    quirk = station.quirks.get("max_power_w")
    if isinstance(quirk, int | float) and 0 < quirk <= 10**9:
        return int(quirk * 1.2)
    return policy.max_power_w


def _point(reading: Reading, at_ms: int, factor: int) -> Point | None:
    register = reading.register_uwh
    if register is not None and reading.unit_assumed:
        register *= factor
    if register is None and reading.power_uw is None and reading.current_ua is None:
        return None
    return at_ms, register, reading.power_uw, reading.current_ua


def _note_sample_time(session: Session, samples: Samples) -> None:
    newest, known = samples.last_ms(), session.last_sample_ms
    if newest is None or (known is not None and newest <= known):
        return
    if known is not None:
        session.sample_interval_ms = newest - known
    session.last_sample_ms = newest


def _take_signed(station: StationState, session: Session, signed: SignedReading, readings: list[Reading]) -> int:
    flags = 0
    if signed.public_key:
        digest = blake2b(signed.public_key.encode("utf-8", "replace"), digest_size=8).hexdigest()
        known = station.public_keys.get(session.evse_id)
        if known != digest:
            flags |= Flag.PUBLIC_KEY_CHANGED if known else 0
            station.public_keys[session.evse_id] = digest
            station.changed = True
    registers = signed_registers(signed)
    if registers is None:
        return flags | Flag.SIGNED_UNREADABLE
    energy = session.energy
    begin_uwh, end_uwh = registers.begin_uwh, registers.end_uwh
    if signed.context == "Transaction.Begin" and begin_uwh is None:
        begin_uwh = registers.other_uwh
    if signed.context == "Transaction.End" and end_uwh is None:
        end_uwh = registers.other_uwh
    if begin_uwh is not None and energy.signed_begin_uwh is None:
        energy.signed_begin_uwh = begin_uwh
    if end_uwh is not None:
        energy.signed_end_uwh = end_uwh
    for reading in readings:
        beside = {0: begin_uwh, 2: end_uwh}.get(reading.rank)
        if beside is not None and reading.register_uwh is not None and reading.at_ms == signed.at_ms:
            flags |= Flag.SIGNED_MISMATCH if abs(beside - reading.register_uwh) >= TOLERANCE_UWH else 0
    return flags


def finish(session: Session, at_ms: int) -> None:
    """Set the end of a session, and mend a start that cannot be true beside it."""
    session.ended_ms = at_ms
    session.change = 2
    start = session.started_ms
    if start is None or 0 <= at_ms - start <= _LONGEST_MS:
        return
    add_flags(session, Flag.CLOCK_IMPLAUSIBLE)
    if start < UNSET_BEFORE_MS or start > at_ms:
        # The clock was set in between: the start was received when it happened, or later and before its end.
        session.started_ms = min(session.started_received_ms, at_ms)


def check_energy(session: Session) -> None:
    """Flag a session that is over and has next to no energy although it is said to have charged."""
    if session.ended_ms is None or session.started_ms is None or not session.charged:
        return
    hours_ms = session.ended_ms - session.started_ms
    if hours_ms > 600_000 and session.energy.rung != "none" and session.energy.total_uwh * 36 < hours_ms * 10:
        add_flags(session, Flag.ENERGY_IMPLAUSIBLE)


def close(state: State, station: StationState, session: Session, by: str) -> None:
    """Close a session without a stop, for the time being. What is heard later wins."""
    session.closed_by = by
    add_flags(session, Flag.STOP_MISSING | (Flag.CLOSED_BY_NEXT_START if by == NEXT_START else Flag.CLOSED_BY_WATCHDOG))
    if not session.started:
        add_flags(session, Flag.START_MISSING)
    finish(session, max(session.last_ms, session.started_ms or session.last_ms))
    station.unsettle(session.session_id)


def reopen_if_silent(station: StationState, session: Session) -> None:
    """A session that was closed for want of news goes on, unless another one has taken its place."""
    if not session.closed_by or session.stopped:
        return
    if session.closed_by == NEXT_START or (session.evse_id and _is_occupied(station, session)):
        session.ended_ms = max(session.ended_ms or 0, session.last_ms)
        session.change = 2
        return
    session.closed_by = ""
    session.ended_ms = None
    remove_flags(session, Flag.STOP_MISSING)
    add_flags(session, Flag.REOPENED)
    station.settle(session.session_id)


def close_older(state: State, station: StationState, newer: Session, moment: Moment, results: list[Result]) -> None:
    """A connector has one transaction at a time: those that began before this one are over."""
    if not newer.evse_id:
        return
    begun = newer.started_ms if newer.started_ms is not None else moment.at_ms
    for session in list(station.open_sessions()):
        if session is newer or session.evse_id != newer.evse_id:
            continue
        if (session.started_ms if session.started_ms is not None else session.last_ms) > begun:
            continue  # the newer one comes late: it was buffered, and its own stop will follow
        close(state, station, session, NEXT_START)
        cause = Cause(Moment(session.ended_ms or begun, None, moment.received_ms), NEXT_START)
        conclude(state, station, session, cause, results)


def conclude(
    state: State,
    station: StationState,
    session: Session,
    cause: Cause,
    results: list[Result],
    kind: str = "updated",
    *,
    tell: bool = True,
) -> None:
    """After a change: settle the energy, account for its registers, tell the world, and set the watchdog.

    Args:
        kind: Of the event, unless the session is, or was, final.
        tell: Whether there is anything that the world should know of the session itself.
    """
    energy = session.energy
    before = (energy.register_begin_uwh, energy.rung)
    settle(energy)
    if before != (energy.register_begin_uwh, energy.rung):
        session.change = 2
    is_open = session.is_open
    if not is_open:
        session.change = 2
        check_energy(session)
        if session.is_v2 and session.stopped:
            # One that waits for missing events is kept at hand, so that its deadlines are met by any event.
            (station.unsettle if session.state == "ending" else station.settle)(session.session_id)
    changes = _account(station, session, is_open=is_open) if session.evse_id else []
    if session.change == 2:
        session.prefix = None
        _count_use(state, session)
        due_ms = deadline_ms(state.policy, station, session)
        if not is_open or not session.due_ms or due_ms < session.due_ms:
            session.due_ms = due_ms  # a later deadline is found at the earlier look; so the column seldom changes
    elif not session.change:
        session.change = 1
    if tell:
        publish(state, session, cause, results, kind)
    for change in changes:
        _tell_unattributed(state, station, session, change, cause, results)


def publish(state: State, session: Session, cause: Cause, results: list[Result], kind: str) -> None:
    """Tell what happened to a session."""
    if session.price_tariff_id or (state.tariffs.assigns and not session.price_chosen):
        follow(state, session, cause)
    if session.was_final:
        kind = "corrected"
    elif session.is_final:
        kind = "ended"
        session.was_final = True
    state.count("session_events", kind)
    results.append(session_event(session, kind, cause))


def _account(station: StationState, session: Session, *, is_open: bool) -> list[Change]:
    """Hold the session's registers against those of the sessions before and after it."""
    energy = session.energy
    if energy.register_begin_uwh is None or energy.register_end_uwh is None:
        return []
    if session.accounted and is_open:
        return []
    if not session.started and _is_occupied(station, session):
        return []  # whatever it is, the connector's register is the other's
    continuity = station.continuity.get(session.evse_id)
    if continuity is None:
        continuity = station.continuity[session.evse_id] = Continuity()
    began = session.started_ms
    if began is None:
        began = energy.stretches[0][0] // 4 if energy.stretches else session.last_ms
    changes: list[Change] = []
    if not session.accounted:
        changes, restarted = begin_session(continuity, began, energy.register_begin_uwh)
        session.accounted = True
        session.change = 2
        if restarted:
            add_flags(session, Flag.REGISTER_RESTARTED)
    if not is_open:
        changes += cover_session(
            continuity, began, energy.register_begin_uwh, energy.register_end_uwh, fell=energy.fell
        )
    station.changed = True
    return changes


def _is_occupied(station: StationState, session: Session) -> bool:
    """Whether another session is open on the session's EVSE."""
    return any(other is not session and other.evse_id == session.evse_id for other in station.open_sessions())


def _tell_unattributed(
    state: State, station: StationState, session: Session, change: Change, cause: Cause, results: list[Result]
) -> None:
    energy_uwh = change[0]
    station.unattributed_uwh += energy_uwh
    station.changed = True
    state.count("unattributed_uwh", "found" if energy_uwh > 0 else "explained", abs(energy_uwh))
    if abs(energy_uwh) <= state.policy.unattributed_tolerance_uwh:
        return
    bare = Cause(cause.moment, cause.trigger, cause.seq_no, cause.offline)
    results.append(session_event(session, "unattributed", bare, gap=change))
    state.count("session_events", "unattributed")


def _count_use(state: State, session: Session) -> None:
    """Keep count of the sessions that a token has open."""
    if not session.has_token:
        return
    uses = state.uses.setdefault(token_key(session.id_token), set())
    if session.is_open and session.authorization_status == ACCEPTED:
        uses.add(session.session_id)
    else:
        uses.discard(session.session_id)


def note_clock(station: StationState) -> None:
    """Store what the station's clock has taught."""
    clock: Clock = station.clock
    if clock.changed:
        clock.changed = False
        station.changed = True
