"""How a session's state moves on: from register to register, from edge to edge.

Between two registers energy grows linearly over the time in which the EV could draw power; clock edges and thresholds
of energy and duration are interpolated on that line. An instant is rounded up to the millisecond, an amount of energy
down to the micro-watt-hour, and the pieces of an interval always add up to the interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from busbar.pricing.clock import LocalClock
from busbar.pricing.selection import Candidates, Circumstances, Edges
from busbar.pricing.state import NEVER, NONE, Note, Period, PeriodKind, Piece, SessionState
from busbar.pricing.tariff import Dimension, Quantity, Tariff

MAX_PENDING = 16
"""How many pieces without a register are told apart."""
_PARKING = int(PeriodKind.PARKING)
_ENERGY = Quantity.ENERGY


class SessionFold:
    """Moves states of sessions that are priced by one tariff at one location. All methods change the state in place."""

    def __init__(
        self,
        tariff: Tariff,
        clock: LocalClock,
        circumstances: Circumstances,
        before: SessionFold | None = None,
        *,
        keep_periods: bool,
    ) -> None:
        self._before = before
        self._part = len(tariff.parts) - 1
        by = {dimension: Candidates(tariff.of(dimension), circumstances) for dimension in Dimension}
        self._clock = clock
        self._keep_periods = keep_periods
        self._energy = by[Dimension.ENERGY]
        self._time = (by[Dimension.TIME], by[Dimension.PARKING_TIME])
        self._fees = by[Dimension.FLAT]
        self._session_fees = frozenset(c.index for c in tariff.components if c.dimension is Dimension.FLAT)
        self._later_fees = () if tariff.fixed_at_start else (self._fees,)
        self._reserved_time = (by[Dimension.RESERVATION_TIME], by[Dimension.EXPIRED_TIME])
        self._reserved_fees = (by[Dimension.RESERVATION_FLAT], by[Dimension.EXPIRED_FLAT])
        timed = (*self._time, *self._later_fees)
        self._edges = Edges((self._energy, *timed), clock)
        self._by_power, self._by_current = self._edges.by_power, self._edges.by_current
        self._reserved_edges = Edges((*self._reserved_time, *self._reserved_fees), clock)
        self._time_stands_alone: bool = not any(
            quantity in (Quantity.ENERGY, Quantity.POWER)
            for dimension in timed
            for *_, bounds in dimension.rows
            for quantity, _, _ in bounds
        )
        """Whether time can be priced before the energy that went with it is known."""

    def start(self, session: SessionState) -> None:
        """Choose the components of the first instant."""
        session.band = self._edges.band(session.power_mw, session.current_ma)
        self._select(session)
        if not self._later_fees:
            day, minute = self._clock.day_and_minute(session.at_ms)
            self._charge_fee(session, self._fees, _values(session), minute, day)

    def defer(self, session: SessionState, piece: Piece) -> None:
        """Keep a piece until a register says what energy went into it."""
        pending = session.pending
        start_ms = pending[-1].end_ms if pending else session.at_ms
        if piece.end_ms == start_ms:
            return
        if pending and piece.power_mw == NONE == pending[-1].power_mw and self._alike(piece, pending[-1]):
            session.pending = (*pending[:-1], piece)
            return
        session.pending = (*pending, piece)
        if len(session.pending) > MAX_PENDING:
            session.add_note(Note.PENDING_MERGED)
            session.pending = self._merged(session)
            if len(session.pending) > MAX_PENDING:
                half = MAX_PENDING // 2
                rest = session.pending[half:]
                self.settle(session, session.pending[:half], 0)
                session.pending = rest

    def settle(self, session: SessionState, pieces: Sequence[Piece], spent_uwh: int) -> None:
        """Price pieces over which this energy was used, and forget what was pending.

        It is spread by their power samples if each drawing one has one, else by time; over those in which the EV could
        not draw power only if there is no other.
        """
        session.pending = ()
        lengths, start_ms = [], session.at_ms
        for piece in pieces:
            lengths.append(piece.end_ms - start_ms)
            start_ms = piece.end_ms
        drawing = [length * piece.drawing for length, piece in zip(lengths, pieces, strict=True)]
        weights = lengths
        if any(drawing):
            weights = drawing
            if all(piece.power_mw != NONE for piece in pieces if piece.drawing):
                sampled = [length * piece.power_mw for length, piece in zip(drawing, pieces, strict=True)]
                weights = sampled if any(sampled) else drawing
        total, done, before_uwh = sum(weights), 0, session.energy_uwh
        for weight, piece in zip(weights, pieces, strict=True):
            done += weight
            share_uwh = spent_uwh * done // total if total else spent_uwh
            self.run(session, piece, before_uwh + share_uwh)

    def settle_time(self, session: SessionState) -> None:
        """Price the time of what is pending, up to where a price depends on the energy that went with it."""
        if session.pending:
            self.settle(session, tuple(takewhile(self._is_time_known, session.pending)), 0)

    def _is_time_known(self, piece: Piece) -> bool:
        """A piece from before a change of the tariff goes by the tariff of then."""
        if piece.part == self._part:
            return self._time_stands_alone
        assert self._before is not None
        return self._before._is_time_known(piece)

    def run(self, session: SessionState, piece: Piece, until_uwh: int) -> None:
        """Price one piece, in which energy grows linearly and nothing but clock, durations and energy changes."""
        start_ms, start_uwh = session.at_ms, session.energy_uwh
        until_ms = piece.end_ms
        span_ms, span_uwh = until_ms - start_ms, until_uwh - start_uwh
        if not span_ms and not span_uwh:
            return
        if piece.part != self._part:
            assert self._before is not None
            self._before.run(session, piece, until_uwh)
            return
        if session.part != self._part:
            self._take_over(session)
        if self._by_power or self._by_current:
            self._note_band(session, piece, span_ms, span_uwh)
        if piece.kind != session.kind:
            session.kind = piece.kind
            session.next_ms = start_ms
        while True:
            end_ms, end_uwh = until_ms, until_uwh
            if session.at_ms >= session.next_ms or session.energy_uwh >= session.next_uwh:
                self._select(session)
            if session.next_ms < end_ms:
                end_ms = session.next_ms
                end_uwh = start_uwh + span_uwh * (end_ms - start_ms) // span_ms
            if session.next_uwh < end_uwh:
                end_uwh = session.next_uwh
                reached_ms = start_ms - (start_uwh - end_uwh) * span_ms // span_uwh
                end_ms = max(session.at_ms, min(end_ms, reached_ms))
            self._take(session, end_ms, end_uwh)
            if end_ms == until_ms and end_uwh == until_uwh:
                return

    def _take_over(self, session: SessionState) -> None:
        """Price with this tariff from here on: its components are chosen anew, and a period of its own begins."""
        session.part = self._part
        session.band = self._edges.band(session.power_mw, session.current_ma)
        session.next_ms = session.at_ms
        self.close(session)

    def open(self, session: SessionState) -> None:
        """Begin a charging period with the components of now."""
        at_ms = session.at_ms
        low_mw = high_mw = session.power_mw if self._by_power else NONE
        low_ma = high_ma = session.current_ma if self._by_current else NONE
        session.open = Period(
            at_ms, at_ms, session.kind, 0, session.energy, session.time, low_mw, high_mw, low_ma, high_ma
        )
        session.open_uwh = session.energy_uwh

    def close(self, session: SessionState) -> None:
        """End the period that goes on, if there is one."""
        period = session.open
        if period is None:
            return
        session.open = None
        if self._keep_periods:
            energy_uwh = session.energy_uwh - session.open_uwh
            session.add_period(Period(period.start_ms, session.at_ms, period.kind, energy_uwh, *period[4:]))

    def reserve(self, session: SessionState) -> None:
        """Begin a reservation."""
        session.kind = PeriodKind.RESERVED
        self._select_reserved(session)

    def run_reserved(self, session: SessionState, until_ms: int) -> None:
        """Count reserved time for both outcomes: whether it will be used is not known before its end."""
        while session.at_ms < until_ms:
            if session.at_ms >= session.next_ms:
                self._select_reserved(session)
            end_ms = min(until_ms, session.next_ms)
            spent_ms = end_ms - session.at_ms
            period = session.open
            if period is None or (period.energy, period.time) != (session.energy, session.time):
                self.close(session)
                self.open(session)
            quantities, last = session.quantities, list(session.last)
            for place, index in ((2, session.time), (3, session.energy)):
                if index != NONE:
                    quantities[index] = quantities.get(index, 0) + spent_ms
                    last[place] = index
            session.last = (last[0], last[1], last[2], last[3])
            session.at_ms = end_ms

    def _alike(self, one: Piece, other: Piece) -> bool:
        """Whether two pieces differ in nothing but their power."""
        if one.kind != other.kind or one.drawing is not other.drawing or one.part != other.part:
            return False
        return not self._by_current or one.current_ma == other.current_ma

    def _merged(self, session: SessionState) -> tuple[Piece, ...]:
        """The pending pieces with alike neighbours joined, two by two."""
        merged: list[Piece] = []
        start_ms = joint_ms = session.at_ms
        joined = True
        for piece in session.pending:
            if not joined and self._alike(merged[-1], piece):
                merged[-1] = _joint(merged[-1], piece, joint_ms)
                joined = True
            else:
                merged.append(piece)
                joint_ms, joined = start_ms, False
            start_ms = piece.end_ms
        return tuple(merged)

    def _note_band(self, session: SessionState, piece: Piece, span_ms: int, span_uwh: int) -> None:
        if self._by_power:
            if not piece.drawing:
                session.power_mw = 0
            elif span_ms:
                # A watt is 3.6 uWh/ms. Rounded to the watt: registers do not tell more.
                session.power_mw = (span_uwh * 36 + 5 * span_ms) // (10 * span_ms) * 1000
        if self._by_current:
            if piece.current_ma == NONE and piece.drawing:
                session.add_note(Note.CURRENT_UNKNOWN)
            session.current_ma = max(piece.current_ma, 0)
        band = self._edges.band(session.power_mw, session.current_ma)
        if band != session.band:
            session.band = band
            session.next_ms = session.at_ms

    def _select(self, session: SessionState) -> None:
        """Choose the components of now, and find out when to look again."""
        edges, at_ms, kind = self._edges, session.at_ms, session.kind
        day, minute = edges.day_and_minute(at_ms)
        values = _values(session)
        session.energy = self._energy.choose(values, minute, day)
        session.time = self._time[kind].choose(values, minute, day)
        for fees in self._later_fees:
            self._charge_fee(session, fees, values, minute, day)
        session.next_ms = edges.next_ms(at_ms, values, parking=kind == _PARKING)
        session.next_uwh = edges.after(_ENERGY, session.energy_uwh)

    def _select_reserved(self, session: SessionState) -> None:
        edges, at_ms = self._reserved_edges, session.at_ms
        day, minute = edges.day_and_minute(at_ms)
        values = (0, at_ms - session.reserved_ms, 0, 0, 0, 0)
        used, expired = self._reserved_time
        session.time = used.choose(values, minute, day)
        session.energy = expired.choose(values, minute, day)
        for fees in self._reserved_fees:
            self._charge_fee(session, fees, values, minute, day)
        session.next_ms = edges.next_ms(at_ms, values, parking=False)
        session.next_uwh = NEVER

    def _charge_fee(
        self, session: SessionState, fees: Candidates, values: Sequence[int], minute: int, day: int
    ) -> None:
        """Charge the first flat fee that applies, once a session."""
        once = self._session_fees if fees is self._fees else fees.indexes
        for index, _ in session.flats:
            if index in once:
                return
        index = fees.choose(values, minute, day)
        if index != NONE:
            session.flats = (*session.flats, (index, session.at_ms))
            session.quantities[index] = 1

    def _take(self, session: SessionState, end_ms: int, end_uwh: int) -> None:
        """Count what was used from where the session is up to here, with the components of now."""
        spent_ms, spent_uwh = end_ms - session.at_ms, end_uwh - session.energy_uwh
        energy, time, period = session.energy, session.time, session.open
        if (
            period is None
            or period.kind != session.kind
            or (spent_ms and period.time != time)
            or (spent_uwh and period.energy != energy)
        ):
            self._change_period(session)
        elif self._by_power or self._by_current:
            self._widen(session, period)
        quantities, last = session.quantities, session.last
        if spent_uwh and energy != NONE:
            quantities[energy] = quantities.get(energy, 0) + spent_uwh
            if last[0] != energy:
                session.last = last = (energy, last[1], last[2], last[3])
        if spent_ms:
            if time != NONE:
                quantities[time] = quantities.get(time, 0) + spent_ms
                if last[1] != time:
                    session.last = (last[0], time, last[2], last[3])
            if session.kind == _PARKING:
                session.idle_ms += spent_ms
            else:
                session.charging_ms += spent_ms
        session.at_ms, session.energy_uwh = end_ms, end_uwh

    def _change_period(self, session: SessionState) -> None:
        period = session.open
        if (
            period is not None
            and period.kind == session.kind
            and period.time == session.time
            and session.open_uwh == session.energy_uwh
        ):
            # No energy was used in it so far, so it does not matter what would have priced it.
            session.open = period._replace(energy=session.energy)
            self._widen(session, session.open)
        else:
            self.close(session)
            self.open(session)

    def _widen(self, session: SessionState, period: Period) -> None:
        """Keep the range of power and current of the open period."""
        low_mw, high_mw, low_ma, high_ma = period[6:]
        if self._by_power:
            low_mw, high_mw = min(low_mw, session.power_mw), max(high_mw, session.power_mw)
        if self._by_current:
            low_ma, high_ma = min(low_ma, session.current_ma), max(high_ma, session.current_ma)
        if (low_mw, high_mw, low_ma, high_ma) != period[6:]:
            session.open = Period(*period[:6], low_mw, high_mw, low_ma, high_ma)


def _values(session: SessionState) -> tuple[int, int, int, int, int, int]:
    """By `Quantity`."""
    return (
        session.energy_uwh,
        session.at_ms - session.start_ms,
        session.charging_ms,
        session.idle_ms,
        session.current_ma,
        session.power_mw,
    )


def _joint(first: Piece, second: Piece, start_ms: int) -> Piece:
    """Two neighbours as one, with the mean of their power."""
    power_mw = NONE
    if first.power_mw != NONE != second.power_mw:
        length, added = first.end_ms - start_ms, second.end_ms - first.end_ms
        power_mw = (first.power_mw * length + second.power_mw * added) // (length + added)
    return second._replace(power_mw=power_mw)
