"""Which component prices a dimension at an instant, and until when that can be relied upon."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from busbar.pricing.clock import LocalClock
from busbar.pricing.state import NEVER, NONE
from busbar.pricing.tariff import Bound, Component, Conditions, Quantity

Row = tuple[int, int, int, int, tuple[tuple[int, int, int], ...]]
"""A component and its conditions but for the window: index, weekdays (bits), first day, day after the last, bounds."""

_ALL_DAYS = 0b111_1111


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is fixed for a whole session and known when it starts."""

    evse_kind: str | None = None
    """`AC` or `DC`."""
    payment_brand: str | None = None
    payment_recognition: str | None = None


UNKNOWN_CIRCUMSTANCES = Circumstances()


class Candidates:
    """The components of one dimension, in the order in which they are tried.

    Those that cannot hold in this session are left out. The day is cut where windows begin and end, so that only
    those whose window holds are looked at.
    """

    __slots__ = ("_cuts", "_segments", "edge_minutes", "indexes", "rows")

    def __init__(self, components: Iterable[Component], circumstances: Circumstances) -> None:
        possible = [c for c in components if _possible(c.conditions, circumstances)]
        windows = [(c.conditions, _row(c)) for c in possible]
        self.indexes = frozenset(c.index for c in possible)
        self.rows = tuple(row for _, row in windows)
        edges = {
            minute % 1440
            for conditions, _ in windows
            if not conditions.whole_day
            for minute in (conditions.start_minute, conditions.end_minute)
        }
        by_day = any(row[1:4] != (_ALL_DAYS, 0, NEVER) for row in self.rows)
        self.edge_minutes = frozenset(edges | {0} if by_day else edges)
        """Minutes of the local day at which a component may begin or cease to hold."""
        self._cuts = sorted(edges | {0})
        self._segments = [
            tuple(row for conditions, row in windows if _in_window(conditions, cut)) for cut in self._cuts
        ]

    def __bool__(self) -> bool:
        return bool(self.rows)

    def choose(self, values: Sequence[int], minute: int, day: int) -> int:
        """The first component whose conditions all hold, or `NONE`.

        Args:
            values: By `Quantity`.
            minute: Of the local day.
            day: The local day as an ordinal.
        """
        for index, weekdays, first, until, bounds in self._segments[bisect_right(self._cuts, minute) - 1]:
            if not weekdays >> (day + 6) % 7 & 1 or not first <= day < until:
                continue
            for quantity, low, high in bounds:
                if not low <= values[quantity] < high:
                    break
            else:
                return index
        return NONE


class Edges:
    """Where the choice among some candidates may change."""

    def __init__(self, candidates: Iterable[Candidates], clock: LocalClock) -> None:
        minutes: set[int] = set()
        by_quantity: list[set[int]] = [set() for _ in Quantity]
        for dimension in candidates:
            minutes |= dimension.edge_minutes
            for *_, bounds in dimension.rows:
                for quantity, low, high in bounds:
                    by_quantity[quantity] |= {value for value in (low, high) if 0 < value < NEVER}
        self.minutes = tuple(sorted(minutes))
        """Of the local day; empty if the clock does not matter."""
        self._by_quantity = tuple(tuple(sorted(values)) for values in by_quantity)
        self._by_duration = any(by_quantity[q] for q in (Quantity.DURATION, Quantity.CHARGING, Quantity.IDLE))
        self.by_power = bool(by_quantity[Quantity.POWER])
        self.by_current = bool(by_quantity[Quantity.CURRENT])
        self._clock = clock

    def day_and_minute(self, at_ms: int) -> tuple[int, int]:
        """The local day and minute, if the clock matters at all."""
        return self._clock.day_and_minute(at_ms) if self.minutes else (1, 0)

    def after(self, quantity: Quantity, value: int) -> int:
        """The next threshold above a value."""
        thresholds = self._by_quantity[quantity]
        place = bisect_right(thresholds, value)
        return thresholds[place] if place < len(thresholds) else NEVER

    def band(self, power_mw: int, current_ma: int) -> tuple[int, int]:
        """Between which thresholds power and current are."""
        by_quantity = self._by_quantity
        return (
            bisect_right(by_quantity[_POWER], power_mw),
            bisect_right(by_quantity[_CURRENT], current_ma),
        )

    def next_ms(self, at_ms: int, values: Sequence[int], *, parking: bool) -> int:
        """The next instant at which the clock or a duration may change the choice, if things go on as they are.

        Args:
            at_ms: Now.
            values: By `Quantity`, as of now.
            parking: Whether the time counts as parking from now on.
        """
        next_ms = self._clock.next_edge(at_ms, self.minutes) if self.minutes else NEVER
        if not self._by_duration:
            return next_ms
        for quantity in _PARKING_DURATIONS if parking else _CHARGING_DURATIONS:
            if self._by_quantity[quantity]:
                value = values[quantity]
                next_ms = min(next_ms, at_ms - value + self.after(quantity, value))
        return next_ms


_POWER, _CURRENT = Quantity.POWER, Quantity.CURRENT
_CHARGING_DURATIONS = (Quantity.DURATION, Quantity.CHARGING)
_PARKING_DURATIONS = (Quantity.DURATION, Quantity.IDLE)


def _row(component: Component) -> Row:
    conditions = component.conditions
    return (
        component.index,
        _ALL_DAYS if conditions.days is None else sum(1 << day for day in conditions.days),
        0 if conditions.from_day is None else conditions.from_day,
        NEVER if conditions.until_day is None else conditions.until_day,
        tuple((int(bound.quantity), *_range(bound)) for bound in conditions.bounds),
    )


def _range(bound: Bound) -> tuple[int, int]:
    return bound.minimum or 0, NEVER if bound.maximum is None else bound.maximum


def _in_window(conditions: Conditions, minute: int) -> bool:
    if conditions.whole_day:
        return True
    start, end = conditions.start_minute, conditions.end_minute
    return start <= minute < end if start < end else minute >= start or minute < end


def _possible(conditions: Conditions, circumstances: Circumstances) -> bool:
    for wanted, given in (
        (conditions.evse_kind, circumstances.evse_kind),
        (conditions.payment_brand, circumstances.payment_brand),
        (conditions.payment_recognition, circumstances.payment_recognition),
    ):
        if wanted is not None and wanted != given:
            return False
    # Negative bounds speak of discharging, which imported energy never is.
    return all((bound.minimum or 0) >= 0 and (bound.maximum or 0) >= 0 for bound in conditions.bounds)
