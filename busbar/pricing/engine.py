"""The pricing engine: one fold over the facts of a session. No I/O and no clock of its own.

pricer = Pricer(tariff, "Europe/Berlin")
state = pricer.begin()
for fact in facts:
    state = pricer.advance(state, fact)     # the same effort after ten hours as after ten minutes
    running = pricer.cost(state)
bill = pricer.finish(state)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from busbar.pricing.bill import Bill, Cost, make_bill, running_cost
from busbar.pricing.clock import MAX_MS, MS_PER_DAY, local_clock
from busbar.pricing.facts import ChargingState, Fact, FactKind, reserved, sampled
from busbar.pricing.fold import SessionFold
from busbar.pricing.money import DEFAULT_ROUNDING, Rounding, scale_of
from busbar.pricing.selection import UNKNOWN_CIRCUMSTANCES, Circumstances
from busbar.pricing.state import NONE, Note, Period, PeriodKind, Phase, Piece, SessionState, new_state
from busbar.pricing.tariff import UWH_PER_WH, Tariff, changed_tariff

LARGEST_WH = 10**12
"""Beyond any register: what claims more is unreadable."""

# Members of enumerations are slow to look up, and these are looked at for every fact.
_NEW, _RESERVED, _RUNNING, _ENDED = Phase
_CHARGING, _SAMPLED, _END = ChargingState.CHARGING, FactKind.SAMPLED, FactKind.ENDED
_CHANGED = FactKind.TARIFF_CHANGED


@dataclass(frozen=True, slots=True)
class Options:
    """What a contract or a site may want otherwise."""

    rounding: Rounding = DEFAULT_ROUNDING
    circumstances: Circumstances = UNKNOWN_CIRCUMSTANCES
    parking_states: frozenset[ChargingState] = frozenset(
        (ChargingState.SUSPENDED_EV, ChargingState.EV_CONNECTED, ChargingState.IDLE)
    )
    """States in which the EV does not ask for power. A pause by the EVSE is charging time. Spec: OCPI 2.3.0 ed2."""
    keep_periods: bool = True
    """Whether the state keeps the charging periods that are over; without them a bill has one line a component."""
    longest_days: int = 400
    """No session is longer: a wrong clock must not be billed."""


DEFAULT_OPTIONS = Options()


class Pricer:
    """Prices sessions by one tariff at one location. Holds no session; one serves them all.

    Args:
        tariff: As frozen at the start of the session. One that a session has after a change (`changed_tariff`) prices
            it from its begin; `tariff_changed` facts lead from one tariff to the next.
        time_zone: The location's IANA zone. `ValueError` if it is unknown.
        options: What a contract or a site wants otherwise.
    """

    def __init__(self, tariff: Tariff, time_zone: str, options: Options = DEFAULT_OPTIONS) -> None:
        self.tariff = tariff
        self.time_zone = time_zone
        self.options = options
        self._longest_ms = options.longest_days * MS_PER_DAY
        self._before = None if tariff.before is None else Pricer(tariff.before, time_zone, options)
        self._chain: tuple[Pricer, ...] = (self,) if self._before is None else (*self._before._chain, self)
        self._fold: SessionFold = SessionFold(
            tariff,
            local_clock(time_zone),
            options.circumstances,
            None if self._before is None else self._before._fold,
            keep_periods=options.keep_periods,
        )
        self._kinds = {
            state: PeriodKind.PARKING if state in options.parking_states else PeriodKind.CHARGING
            for state in ChargingState
        }

    def begin(self) -> SessionState:
        """A session of which nothing is known yet. It begins with the first of its tariffs."""
        return new_state(self._chain[0].tariff.fingerprint)

    def change(self, state: SessionState, at_ms: int, tariff: Tariff) -> tuple[Pricer, SessionState]:
        """Change the tariff of a session that goes on: until then it is priced as before, from then on with the other.

        Nothing is priced again (I11.FR.08). Energy, durations and fees are those of the whole session, so a price from
        the tenth kWh on applies at once if there were ten before. What was a maximum stays one for what was charged by
        then; the other tariff's limits then hold for the whole session, but never take back what had been reached.

        Args:
            state: Priced by this pricer so far.
            at_ms: When; taken for the instant of the last fact if it lies before it.
            tariff: From then on.

        Returns:
            The pricer to go on with, which holds no session either, and the session.

        Raises:
            TariffError: The currency would change (I11.FR.05), or prices before tax and after tax would mix.
            ValueError: The state is another pricer's or of an earlier tariff, or the session has not begun or is over.
        """
        if self._of(state) is not self:
            raise ValueError("a change of the session's tariff is known and has not been priced yet")
        if state.phase is not _RUNNING:
            raise ValueError("only the tariff of a session that goes on can be changed")
        pricer = Pricer(changed_tariff(self.tariff, tariff), self.time_zone, self.options)
        session = state.copy()
        self._hand_over(session, at_ms, pricer)
        return pricer, session

    def _hand_over(self, session: SessionState, at_ms: int, to: Pricer) -> None:
        self._apply(session, sampled(at_ms))
        session.changes = (*session.changes, session.until_ms)
        session.fingerprint = to.tariff.fingerprint

    def price(self, facts: Iterable[Fact]) -> Bill:
        """The bill of a whole session."""
        session = self.begin()
        return self._advance(self._chain[0], session, facts)._finish(session, ())

    def advance(self, state: SessionState, fact: Fact) -> SessionState:
        """The session after one more fact. The state that is given stays as it is.

        No fact is an error: what has no place or cannot be read leaves a `Note`.

        Raises:
            ValueError: The state belongs to another tariff.
        """
        session = state.copy()
        self._advance(self._of(state), session, (fact,))
        return session

    def advance_all(self, state: SessionState, facts: Iterable[Fact]) -> SessionState:
        """The session after more facts: as `advance` for each of them, with less effort."""
        session = state.copy()
        self._advance(self._of(state), session, facts)
        return session

    def _advance(self, pricer: Pricer, session: SessionState, facts: Iterable[Fact]) -> Pricer:
        """Apply facts to a session that stands where one of the chain prices it; returns which one does then."""
        for fact in facts:
            if fact.kind is not _CHANGED:
                pricer._apply(session, fact)
            elif session.phase is _RUNNING and len(session.changes) + 1 < len(self._chain):
                following = self._chain[len(session.changes) + 1]
                pricer._hand_over(session, fact.at_ms, following)
                pricer = following
            else:
                session.add_note(Note.IGNORED)
        return pricer

    def reserve(self, state: SessionState, at_ms: int) -> SessionState:
        """The session if it turns out, after it has begun, to use a reservation: reserved time comes before everything.

        Args:
            state: The session, which has no reservation.
            at_ms: When the reservation was made; taken for the session's start if it lies behind it.

        Raises:
            ValueError: It has not begun, has a reservation already, or its periods are kept: the first ones cannot be
                put in front of what may have been taken out.
        """
        if self.options.keep_periods or state.start_ms == NONE or state.reserved_ms != NONE:
            raise ValueError("no reservation can be put before this session")
        first = self._chain[0]
        before = first.begin()
        first._advance(first, before, (reserved(min(at_ms, state.start_ms)), sampled(state.start_ms)))
        session = state.copy()
        session.reserved_ms = before.reserved_ms
        session.quantities = {**before.quantities, **session.quantities}
        session.flats = (*before.flats, *session.flats)
        session.last = (session.last[0], session.last[1], before.last[2], before.last[3])
        return session

    def cost(self, state: SessionState) -> Cost:
        """What it costs so far. Never more than the final cost, as long as no price is negative.

        Minimum price and step sizes are left to the end; the maximum caps it.
        """
        pricer = self._of(state)
        if state.pending:
            state = state.copy()
            pricer._fold.settle_time(state)
        return running_cost(pricer.tariff, state, self.options.rounding)

    def finish(self, state: SessionState, detached: Sequence[Period] = ()) -> Bill:
        """The bill: final if the session has ended, else as if it ended with the last fact.

        Args:
            state: The session.
            detached: All periods that were taken out of its states, in order.
        """
        pricer = self._of(state)
        if len(detached) != state.detached:
            raise ValueError(f"{state.detached} periods were taken out and {len(detached)} are given back")
        return pricer._finish(state.copy(), detached)

    def _of(self, state: SessionState) -> Pricer:
        """Who prices a session where it stands: this one, or one of those before it."""
        fingerprint = state.fingerprint
        if fingerprint == self.tariff.fingerprint:
            return self
        for pricer in self._chain:
            if pricer.tariff.fingerprint == fingerprint:
                return pricer
        raise ValueError(f"this session is priced by tariff {fingerprint}, not {self.tariff.fingerprint}")

    def _finish(self, session: SessionState, detached: Sequence[Period]) -> Bill:
        fold = self._fold
        if session.pending:
            if any(piece.drawing for piece in session.pending):
                session.add_note(Note.NO_END_REGISTER)
            fold.settle(session, session.pending, 0)
        if session.phase is not _ENDED:
            session.add_note(Note.NOT_ENDED)
            session.end_ms = session.at_ms
        if session.start_ms != NONE and session.start_ms == session.end_ms and session.open is None:
            # A session of no length has one period all the same. Spec: OCPI mod_cdrs, charging_periods 1..n.
            fold.open(session)
        fold.close(session)
        periods = (*detached, *session.periods) if self.options.keep_periods else None
        return make_bill(self.tariff, session, periods, self.options.rounding)

    def _apply(self, session: SessionState, fact: Fact) -> None:
        kind, phase = fact.kind, session.phase
        if not 0 <= fact.at_ms < MAX_MS:
            session.add_note(Note.IGNORED)
        elif phase is _RUNNING and (kind is _SAMPLED or kind is _END):
            self._sample(session, fact)
            if kind is _END:
                session.phase = _ENDED
                session.end_ms = session.until_ms
        elif phase is _NEW and kind is FactKind.STARTED:
            self._start(session, fact)
        elif phase is _NEW and kind is FactKind.RESERVED:
            session.phase = _RESERVED
            session.reserved_ms = session.at_ms = fact.at_ms
            self._fold.reserve(session)
        elif phase is _RESERVED and kind is not FactKind.RESERVED and kind is not _END:
            self._advance_reserved(session, fact)
        else:
            session.add_note(Note.IGNORED)

    def _start(self, session: SessionState, fact: Fact) -> None:
        session.phase = _RUNNING
        session.start_ms = session.at_ms = max(fact.at_ms, session.at_ms)
        session.state = fact.state or ChargingState.CHARGING
        session.kind = self._kinds[session.state]
        session.register_uwh = _register(session, fact.register_wh)
        session.state_current_ma = _milli(fact.current_a)
        session.current_ma = max(session.state_current_ma, 0)
        self._fold.start(session)

    def _sample(self, session: SessionState, fact: Fact) -> None:
        at_ms = fact.at_ms
        longest_ms = session.start_ms + self._longest_ms
        if not session.until_ms <= at_ms <= longest_ms:
            at_ms = _moved(session, at_ms, longest_ms)
        before, after = session.state, fact.state or session.state
        piece_current_ma = session.state_current_ma
        if fact.current_a is not None or after is not before:
            session.state_current_ma = _milli(fact.current_a)
            if after is before:
                # A sample that comes with a change of state tells of the new state, else of the time up to it.
                piece_current_ma = session.state_current_ma
        part = len(session.changes)
        piece = Piece(at_ms, self._kinds[before], before is _CHARGING, _milli(fact.power_w), piece_current_ma, part)
        session.state = after
        register_uwh = NONE if fact.register_wh is None else _register(session, fact.register_wh)
        if register_uwh == NONE:
            self._fold.defer(session, piece)
            return
        spent_uwh = _spent(session, register_uwh, at_ms)
        session.register_uwh = register_uwh
        if session.pending:
            self._fold.settle(session, (*session.pending, piece), spent_uwh)
        else:
            self._fold.run(session, piece, session.energy_uwh + spent_uwh)

    def _advance_reserved(self, session: SessionState, fact: Fact) -> None:
        longest_ms = session.reserved_ms + self._longest_ms
        until_ms = fact.at_ms
        if not session.at_ms <= until_ms <= longest_ms:
            until_ms = _moved(session, until_ms, longest_ms)
        self._fold.run_reserved(session, until_ms)
        if fact.kind is _SAMPLED:
            return
        self._fold.close(session)
        if fact.kind is FactKind.STARTED:
            self._start(session, fact)
        else:
            session.expired = fact.kind is FactKind.RESERVATION_EXPIRED
            session.phase = _ENDED
            session.end_ms = session.at_ms


def _moved(session: SessionState, at_ms: int, longest_ms: int) -> int:
    """An instant that lies before the last one, or too far from the start."""
    if at_ms < session.until_ms:
        session.add_note(Note.OUT_OF_ORDER)
        return session.until_ms
    session.add_note(Note.TOO_LONG)
    return max(session.until_ms, longest_ms)


def _spent(session: SessionState, register_uwh: int, at_ms: int) -> int:
    """The energy between the last register and this one."""
    if session.register_uwh == NONE:
        if at_ms > session.start_ms:
            session.add_note(Note.NO_START_REGISTER)
        return 0
    spent_uwh = register_uwh - session.register_uwh
    if spent_uwh < 0:
        session.add_note(Note.REGISTER_FELL)
        return 0
    if session.energy_uwh + spent_uwh > LARGEST_WH * UWH_PER_WH:
        session.add_note(Note.REGISTER_UNREADABLE)
        return 0
    return spent_uwh


def _register(session: SessionState, register_wh: Decimal | int | None) -> int:
    if register_wh is None:
        return NONE
    if isinstance(register_wh, int):
        if 0 <= register_wh < LARGEST_WH:
            return register_wh * UWH_PER_WH
    elif register_wh.is_finite() and 0 <= register_wh < LARGEST_WH:
        return scale_of(register_wh, 6)
    session.add_note(Note.REGISTER_UNREADABLE)
    return NONE


def _milli(value: Decimal | int | None) -> int:
    """A sample in thousandths; `NONE` if absent or unreadable, 0 if negative: discharging is not priced."""
    if value is None or (isinstance(value, Decimal) and not value.is_finite()):
        return NONE
    if not -LARGEST_WH < value < LARGEST_WH:
        return NONE
    return max(0, value * 1000 if isinstance(value, int) else scale_of(value, 3))
