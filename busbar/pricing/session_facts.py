"""From the events of a session to the facts that its price is made of: one way for the running cost and for the bill.

What an event tells of instants becomes *observations*: registers, power, current and the charging state as they were
sent. What it says of the session as a whole is its *frame*: begin, end, and the energy with what that rests on. The
frame of the newest event decides over the energy; observations say when it flowed.

A `Feed` turns observations into facts as they come. It is exact while they come in order and agree with the frame; when
they do not, `Feed.replay` makes the facts again from all observations. Both ways give the same facts: what becomes of
an observation follows from its instant, and within that from its order, and then from when it came. Of which event it
is does not matter, and cannot be told: one with a seqNo and one without may have the same order.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from busbar.pricing.facts import ChargingState, Fact, FactKind
from busbar.pricing.money import decimal_of

if TYPE_CHECKING:
    from busbar.pricing.engine import Pricer
    from busbar.pricing.state import SessionState

Observation = tuple[int, int, int | None, int | None, int | None, str]
"""(at, order, register, power, current, charging state): Unix milliseconds; the seqNo of its event, or the number of
the event where there is none; micro-Wh, micro-W, micro-A, summed over the phases; empty if the state was not told.

A plain tuple, because there is one for every meter value."""

Point = tuple[int, int | None, int | None, int | None]
"""(at, register, power, current), as above."""

MICRO = 1_000_000
_STATES: dict[str, ChargingState] = {state.value: state for state in ChargingState}
_STARTED, _SAMPLED, _ENDED = FactKind.STARTED, FactKind.SAMPLED, FactKind.ENDED
_CHANGED, _RESERVED = FactKind.TARIFF_CHANGED, FactKind.RESERVED
_AFTER_ALL = 1 << 41
"""The order of a change of the tariff: behind everything else of its instant."""

TariffChange = tuple[int, str, int]
"""(at, tariff, version): Unix milliseconds, and the tariff from then on."""


class Frame(NamedTuple):
    """What an event says of its session as a whole."""

    at_ms: int
    """When the event happened."""
    started_ms: int | None
    ended_ms: int | None
    energy_uwh: int
    rung: str
    begin_uwh: int | None
    """The register at the begin."""
    end_uwh: int | None
    changes: tuple[TariffChange, ...] = ()
    """Of the session's tariff, in order. One that came after the session was over is none."""
    reserved_ms: int | None = None
    """When the reservation was made that the session uses: its price begins with the reserved time."""

    @classmethod
    def from_list(cls, values: Sequence[Any]) -> Frame:
        """Read what JSON made of one."""
        at_ms, started_ms, ended_ms, energy_uwh, rung, begin_uwh, end_uwh, *newer = values
        told = tariff_changes(newer[0]) if newer else ()
        reserved_ms = newer[1] if len(newer) > 1 else None
        return cls(at_ms, started_ms, ended_ms, energy_uwh, rung, begin_uwh, end_uwh, told, reserved_ms)


def tariff_changes(values: Iterable[Sequence[Any]]) -> tuple[TariffChange, ...]:
    """Changes of a tariff as JSON made lists of them."""
    return tuple((at_ms, tariff_id, version) for at_ms, tariff_id, version in values)


def observe(at_ms: int, order: int, state: str, points: Sequence[Point]) -> list[Observation]:
    """What an event tells of instants.

    Args:
        at_ms: When the event happened; its charging state holds from then on.
        order: Its seqNo, or its number in the session where it has none.
        state: As ChargingStateEnumType spells it; empty if the event does not tell.
        points: What its meter values tell.
    """
    if len(points) == 1:
        point_ms, register, power, current = points[0]
        if point_ms == at_ms or not state:
            return [(point_ms, order, register, power, current, state)]
    elif not points:
        return [(at_ms, order, None, None, None, state)] if state else []
    found: list[Observation] = [(point[0], order, point[1], point[2], point[3], "") for point in points]
    found.sort(key=_instant)
    if state:
        place = sum(1 for each in found if each[0] <= at_ms)
        if place and found[place - 1][0] == at_ms:
            found[place - 1] = (*found[place - 1][:5], state)
        else:
            found.insert(place, (at_ms, order, None, None, None, state))
    return found


_STORED = (
    "at_ms",
    "base_uwh",
    "begin_uwh",
    "energy_uwh",
    "exact",
    "first_ms",
    "order",
    "start_ms",
    "left_ms",
    "changed",
    "reserved_ms",
)


class Feed:
    """Makes facts of a session's observations, in order.

    Energy is counted from 0 at the begin of the session: a later register becomes what it is above `base_uwh`.
    """

    __slots__ = _STORED

    def __init__(self) -> None:
        self.start_ms: int | None = None
        """Begin of the session, or of what is known of it; `None` before the first event."""
        self.at_ms = 0
        """The last observation."""
        self.order = 0
        self.begin_uwh: int | None = None
        """The session's first register."""
        self.base_uwh: int | None = None
        """What is taken off registers: `begin_uwh` until one falls."""
        self.energy_uwh = 0
        """At the last register, also of one from before the begin."""
        self.first_ms: int | None = None
        """The first register's instant."""
        self.left_ms: int | None = None
        """The first observation that was left out because the session was over by then."""
        self.exact = True
        """Whether the facts so far are those that `replay` would make of the same events."""
        self.changed = 0
        """How many changes of the tariff are among the facts."""
        self.reserved_ms: int | None = None
        """When the reservation among the facts was made; `None` if there is none."""

    def copy(self) -> Feed:
        other = Feed()
        for name in _STORED:
            setattr(other, name, getattr(self, name))
        return other

    def to_list(self) -> list[Any]:
        """A form that JSON can hold and `from_list` reads."""
        return [getattr(self, name) for name in _STORED]

    @classmethod
    def from_list(cls, values: Sequence[Any]) -> Feed:
        feed = cls()
        for name, value in zip(_STORED, values, strict=False):  # the last ones are newer than the others
            setattr(feed, name, value)
        return feed

    def take(self, frame: Frame, observations: Sequence[Observation]) -> list[Fact]:
        """The facts of one more event; none any more once the feed is not exact."""
        facts: list[Fact] = []
        if not self.exact:
            return facts
        ended_ms = frame.ended_ms
        if self.start_ms is None:
            observations = self._begin(frame, observations, facts)
        elif frame.started_ms != self.start_ms or not self._leads_up_to(ended_ms):
            self.exact = False
        elif frame.reserved_ms != self.reserved_ms:
            self.exact = False  # reserved time comes before the start, which has been taken
        if self.changed != len(frame.changes) and self._effective(frame, self.changed) < self.at_ms:
            self.exact = False  # what came after the change has been taken as before it
        for observation in observations:
            at_ms, order, register = observation[:3]
            if at_ms < self.at_ms or (at_ms == self.at_ms and order < self.order):
                self.exact = False
            if not self.exact:
                return facts
            if ended_ms is not None and at_ms > ended_ms:
                self._leave_out(at_ms)
                continue
            if self.changed != len(frame.changes):
                self._change(frame, at_ms, facts)
            self.at_ms, self.order = at_ms, order
            if register is not None and not self._climb(frame, at_ms, register):
                self.exact = False
                return facts
            facts.append(self._fact(observation))
        # What the session says of its energy decides; a register that it left out must not be priced.
        if self.energy_uwh > frame.energy_uwh or (self.base_uwh is not None and frame.begin_uwh != self.begin_uwh):
            self.exact = False
        return facts

    def end(self, frame: Frame) -> list[Fact] | None:
        """The facts that end the session; `None` if what was taken does not lead up to them."""
        if not self.exact or self.start_ms is None or frame.ended_ms is None or not self._leads_up_to(frame.ended_ms):
            return None
        return [*self._last_changes(frame, frame.ended_ms), _end(frame)]

    @classmethod
    def replay(cls, frame: Frame, observations: Iterable[Observation]) -> tuple[Feed, list[Fact]]:
        """The facts of a whole session, in whatever order its events came, and a feed that goes on from there.

        Args:
            frame: Of the newest event. With an end, the last fact is `ended`.
            observations: Of all events.
        """
        feed, facts = cls(), list[Fact]()
        ordered: Sequence[Observation] = sorted(observations, key=_place)
        if frame.ended_ms is not None:
            known = bisect_right(ordered, frame.ended_ms, key=_instant)
            if known < len(ordered):
                feed._leave_out(ordered[known][0])
                ordered = ordered[:known]
        begin_uwh, energy_uwh = frame.begin_uwh, max(0, frame.energy_uwh)
        fell = begin_uwh is not None and frame.end_uwh is not None and begin_uwh + energy_uwh != frame.end_uwh
        if begin_uwh is not None and not fell:
            ordered, left_out = _fitting(ordered, begin_uwh, begin_uwh + energy_uwh)
            feed.exact = not left_out  # it may fit beside what comes later
        rest = feed._begin(frame, ordered, facts, fell=fell)
        feed.exact &= not fell
        for observation in rest:
            at_ms, order, register = observation[:3]
            feed._change(frame, at_ms, facts)
            feed.at_ms, feed.order = at_ms, order
            if register is not None:
                feed._climb(frame, at_ms, register, fell=fell)
                if feed.energy_uwh > energy_uwh:
                    feed.energy_uwh, feed.exact = energy_uwh, False
            facts.append(feed._fact(observation))
        if frame.ended_ms is not None:
            facts += [*feed._last_changes(frame, frame.ended_ms), _end(frame)]
        return feed, facts

    def _begin(
        self, frame: Frame, observations: Sequence[Observation], facts: list[Fact], *, fell: bool = False
    ) -> Sequence[Observation]:
        """Make the first facts, of what was observed before the start; returns the other observations.

        A start that has not been seen is taken to be at the first instant that is known. Energy counts from 0. Reserved
        time never moves the start: a station's clock may be a little behind ours.
        """
        start_ms = frame.started_ms
        if start_ms is None:
            start_ms = min(frame.at_ms, observations[0][0]) if observations else frame.at_ms
            self.exact = False  # a guess, which later events may change
        if frame.ended_ms is not None:
            start_ms = min(start_ms, frame.ended_ms)
        self.start_ms = self.at_ms = start_ms
        state, current, place = ChargingState.CHARGING, None, 0
        for at_ms, _, register, _, current_ua, told in observations:
            if at_ms >= start_ms:
                break
            place += 1
            if register is not None and not self._climb(frame, start_ms, register, fell=fell):
                self.exact = False
            state = _STATES.get(told, state)
            current = current if current_ua is None else current_ua
        self.reserved_ms = frame.reserved_ms
        if frame.reserved_ms is not None:
            facts.append(Fact(_RESERVED, min(frame.reserved_ms, start_ms)))
        facts.append(Fact(_STARTED, start_ms, 0, state, None, _si(current)))
        return observations[place:]

    def _effective(self, frame: Frame, place: int) -> int:
        """From when on a change holds: not from before the session."""
        return max(frame.changes[place][0], self.start_ms or 0)

    def _change(self, frame: Frame, before_ms: int, facts: list[Fact]) -> None:
        """Make the facts of the changes of the tariff that lie before an instant.

        They wait for it: what is still to come of a session may lie before a change that is known already.
        """
        while self.changed < len(frame.changes):
            at_ms = self._effective(frame, self.changed)
            if at_ms >= before_ms:
                return
            facts.append(Fact(_CHANGED, at_ms))
            self.changed += 1
            self.at_ms, self.order = at_ms, _AFTER_ALL

    def _last_changes(self, frame: Frame, ended_ms: int) -> list[Fact]:
        """The changes that nothing but the end follows."""
        places = range(self.changed, len(frame.changes))
        return [Fact(_CHANGED, at_ms) for place in places if (at_ms := self._effective(frame, place)) <= ended_ms]

    def _leave_out(self, at_ms: int) -> None:
        if self.left_ms is None or at_ms < self.left_ms:
            self.left_ms = at_ms

    def _leads_up_to(self, ended_ms: int | None) -> bool:
        """Whether the session, if it ends then, has all observations that were taken, and none that was left out."""
        if ended_ms is None:
            return self.left_ms is None
        return self.at_ms <= ended_ms and (self.left_ms is None or ended_ms < self.left_ms)

    def _climb(self, frame: Frame, at_ms: int, register: int, *, fell: bool = False) -> bool:
        """Count up to a register; `False` if it is below the last one or the first, which then still stand."""
        if self.base_uwh is None:
            begin_uwh = frame.begin_uwh
            if begin_uwh is not None and register < begin_uwh and not fell:
                return False
            self.begin_uwh = begin_uwh
            self.base_uwh = register if begin_uwh is None else min(begin_uwh, register)
            self.first_ms = at_ms
        energy_uwh = register - self.base_uwh
        if energy_uwh < self.energy_uwh:
            if fell:  # exchanged, reset or wrapped: counting goes on from here
                self.base_uwh = register - self.energy_uwh
            return False
        self.energy_uwh = energy_uwh
        return True

    def _fact(self, observation: Observation) -> Fact:
        at_ms, _, register, power, current, told = observation
        state = _STATES.get(told) if told else None
        if register is not None:  # then power is not looked at
            energy_uwh = self.energy_uwh if at_ms != self.start_ms else 0  # what was before it counts for nothing
            return Fact(_SAMPLED, at_ms, _si(energy_uwh), state, None, _si(current))
        return Fact(_SAMPLED, at_ms, None, state, _si(power), _si(current))


def with_changes(pricer: Pricer, state: SessionState, changes: Sequence[TariffChange]) -> SessionState:
    """A session that goes on with the tariff that holds now, although nothing of it has followed the last changes."""
    if len(state.changes) == len(changes):
        return state
    return pricer.advance_all(state, [Fact(_CHANGED, change[0]) for change in changes[len(state.changes) :]])


def dump_observations(observations: Sequence[Observation]) -> bytes:
    """The stored form: JSON."""
    return orjson.dumps(observations)


def load_observations(raw: bytes) -> list[Observation]:
    """Read the stored form."""
    found: list[Observation] = [tuple(each) for each in orjson.loads(raw)]
    return found


def _end(frame: Frame) -> Fact:
    ended_ms = frame.ended_ms
    assert ended_ms is not None
    return Fact(_ENDED, ended_ms, None if frame.rung == "none" else _si(max(0, frame.energy_uwh)))


def _fitting(ordered: Sequence[Observation], low_uwh: int, high_uwh: int) -> tuple[Sequence[Observation], bool]:
    """Observations without the registers that the session's energy has no room for, and whether there were any.

    Of those between begin and end, as many are kept as rise: a glitch must not hide what comes after it.
    """
    last = low_uwh
    for observation in ordered:
        register = observation[2]
        if register is not None:
            if not last <= register <= high_uwh:
                break
            last = register
    else:
        return ordered, False
    tails: list[int] = []
    ends: list[int] = []
    before: dict[int, int | None] = {}
    for index, observation in enumerate(ordered):
        register = observation[2]
        if register is not None and low_uwh <= register <= high_uwh:
            place = bisect_right(tails, register)
            tails[place : place + 1] = [register]
            before[index] = ends[place - 1] if place else None
            ends[place : place + 1] = [index]
    kept: set[int] = set()
    at = ends[-1] if ends else None
    while at is not None:
        kept.add(at)
        at = before[at]
    found: list[Observation] = []
    for index, observation in enumerate(ordered):
        if observation[2] is None or index in kept:
            found.append(observation)
        elif observation[3] is not None or observation[4] is not None or observation[5]:
            found.append((*observation[:2], None, *observation[3:]))
    return found, True


def _instant(observation: Observation) -> int:
    return observation[0]


def _place(observation: Observation) -> tuple[int, int]:
    return observation[0], observation[1]


def _si(micro: int | None) -> Decimal | int | None:
    """Millionths as the engine takes them."""
    if micro is None:
        return None
    whole, rest = divmod(micro, MICRO)
    return decimal_of(micro, 6) if rest else whole
