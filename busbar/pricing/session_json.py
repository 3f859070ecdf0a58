"""Reads a whole session from JSON, to be priced without a station: a list of facts, or an OCPI CDR or Session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise
from typing import Any

from busbar.pricing.explanation import plain
from busbar.pricing.facts import ChargingState, Fact, FactKind, sampled, started
from busbar.pricing.problems import SessionError
from busbar.pricing.reader import Reader
from busbar.pricing.tariff import MS_PER_HOUR

_FACT_KEYS = {"kind", "at", "register_wh", "state", "power_w", "current_a"}
_TOLERATED_HOURS = Decimal("0.01")
"""By how much a period's own duration may differ from its timestamps without being mentioned."""
_DIGITS = 9


@dataclass(frozen=True, slots=True)
class RecordedSession:
    """What there is to be priced."""

    facts: tuple[Fact, ...]
    remarks: tuple[str, ...] = ()
    """What contradicts itself in it, and how it was read."""
    stated_excl: Decimal | None = None
    """What a CDR says that it costs, before tax."""


def read_facts(value: Any) -> RecordedSession:
    """A list of facts: `{"kind": "started", "at": "2026-03-29T01:30:00+01:00", "register_wh": 0, "state": "Charging"}`.

    `kind` is reserved, reservation_expired, reservation_cancelled, started, sampled or ended; `at` is RFC 3339;
    `register_wh`, `state`, `power_w` and `current_a` are there where they are known.

    Raises:
        SessionError: With every reason why it cannot be priced.
    """
    reader = _SessionReader()
    facts = [fact for number, item in enumerate(value) if (fact := reader.fact(item, f"$[{number}]")) is not None]
    if not reader.problems and not any(fact.kind in (FactKind.STARTED, FactKind.RESERVED) for fact in facts):
        reader.fail("$", "nothing begins the session: a fact of the kind started is missing")
    if reader.problems:
        raise SessionError(reader.problems)
    return RecordedSession(tuple(facts))


def read_ocpi_session(value: Mapping[str, Any]) -> RecordedSession:
    """An OCPI CDR or Session by its charging periods: their timestamps and their volumes of energy.

    Raises:
        SessionError: With every reason why it cannot be priced.
    """
    reader = _SessionReader()
    session = reader.ocpi(value)
    if reader.problems:
        raise SessionError(reader.problems)
    return session


@dataclass(frozen=True, slots=True)
class _Period:
    path: str
    start_ms: int
    volumes: Mapping[str, Decimal]

    @property
    def reserved(self) -> bool:
        return "RESERVATION_TIME" in self.volumes

    @property
    def hours(self) -> Decimal | None:
        """How long it was by its own account."""
        told = [self.volumes[name] for name in ("TIME", "PARKING_TIME", "RESERVATION_TIME") if name in self.volumes]
        return sum(told, Decimal(0)) if told else None

    @property
    def state(self) -> ChargingState:
        parking = "PARKING_TIME" in self.volumes and not self.volumes.get("TIME")
        return ChargingState.SUSPENDED_EV if parking else ChargingState.CHARGING

    @property
    def current_a(self) -> Decimal | None:
        """One that lies between what it says are its least and its most."""
        told = [self.volumes[name] for name in ("CURRENT", "MIN_CURRENT", "MAX_CURRENT") if name in self.volumes]
        return sum(told, Decimal(0)) / len(told) if told else None


_KINDS = [kind for kind in FactKind if kind is not FactKind.TARIFF_CHANGED]
"""A session that is described has one tariff."""


class _SessionReader(Reader):
    def number(
        self, parent: Mapping[str, Any], key: str, path: str, *, required: bool = False, signed: bool = False
    ) -> Decimal | None:
        value = parent.get(key)
        if isinstance(value, Decimal):  # thirds are written with as many digits as a float has
            parent = {key: round(value, _DIGITS)}
        return super().number(parent, key, path, required=required, signed=signed)

    def fact(self, item: Any, path: str) -> Fact | None:
        if not isinstance(item, Mapping):
            self.fail(path, "is not an object")
            return None
        for name in item:
            if name not in _FACT_KEYS:
                self.fail(f"{path}.{name}", f"is none of {', '.join(sorted(_FACT_KEYS))}")
        kind, at_ms = self.choice(item, "kind", path, _KINDS), self.instant(item, "at", path)
        for name in ("kind", "at"):
            if item.get(name) is None:
                self.fail(f"{path}.{name}", "is missing")
        state = self.choice(item, "state", path, list(ChargingState))
        numbers = [self.number(item, name, path) for name in ("register_wh", "power_w", "current_a")]
        if kind is None or at_ms is None:
            return None
        if kind == FactKind.STARTED and state is None:
            state = ChargingState.CHARGING
        register_wh, power_w, current_a = numbers
        return Fact(
            FactKind(kind), at_ms, register_wh, None if state is None else ChargingState(state), power_w, current_a
        )

    def ocpi(self, value: Mapping[str, Any]) -> RecordedSession:
        items = value.get("charging_periods")
        if items or "kwh" not in value:
            periods = [
                self._period(item, number) for number, item in enumerate(self.items(value, "charging_periods", "$"))
            ]
        else:
            periods = [self._whole_session(value)]
        found = [period for period in periods if period is not None]
        end_ms = self.instant(value, "end_date_time", "$")
        for earlier, later in pairwise(found):
            if later.start_ms < earlier.start_ms:
                self.fail(f"{later.path}.start_date_time", "is before that of the period before")
        if self.problems or not found:
            return RecordedSession(())
        end_ms = self._end(value, found[-1], end_ms)
        remarks = self._contradictions(value, found, end_ms)
        return RecordedSession(tuple(_facts(found, end_ms)), tuple(remarks), self._stated(value))

    def _period(self, item: Any, number: int) -> _Period | None:
        path = f"$.charging_periods[{number}]"
        if not isinstance(item, Mapping):
            self.fail(path, "is not an object")
            return None
        start_ms = self.instant(item, "start_date_time", path)
        if item.get("start_date_time") is None:
            self.fail(f"{path}.start_date_time", "is missing")
        volumes: dict[str, Decimal] = {}
        for place, dimension in enumerate(self.items(item, "dimensions", path)):
            where = f"{path}.dimensions[{place}]"
            if not isinstance(dimension, Mapping):
                self.fail(where, "is not an object")
                continue
            name, volume = (
                self.text(dimension, "type", where, 40),
                self.number(dimension, "volume", where, required=True),
            )
            if name is not None and volume is not None:
                volumes[name] = volume
        return None if start_ms is None else _Period(path, start_ms, volumes)

    def _whole_session(self, value: Mapping[str, Any]) -> _Period | None:
        """A Session without charging periods: all its energy in one."""
        start_ms, kwh = self.instant(value, "start_date_time", "$"), self.number(value, "kwh", "$", required=True)
        if value.get("start_date_time") is None:
            self.fail("$.start_date_time", "is missing")
        return None if start_ms is None or kwh is None else _Period("$", start_ms, {"ENERGY": kwh})

    def _end(self, value: Mapping[str, Any], last: _Period, end_ms: int | None) -> int:
        if end_ms is None and last.hours is not None:
            end_ms = last.start_ms + int(last.hours * MS_PER_HOUR)
        if end_ms is None:
            end_ms = self.instant(value, "last_updated", "$")
        if end_ms is None:
            self.fail("$.end_date_time", "is missing, and the last charging period has no duration")
        elif end_ms < last.start_ms:
            self.fail("$.end_date_time", "is before the begin of the last charging period")
        return max(end_ms or 0, last.start_ms)

    def _contradictions(self, value: Mapping[str, Any], periods: Sequence[_Period], end_ms: int) -> list[str]:
        remarks = []
        ends = [*(period.start_ms for period in periods[1:]), end_ms]
        for period, until_ms in zip(periods, ends, strict=True):
            hours = Decimal(until_ms - period.start_ms) / MS_PER_HOUR
            if period.hours is not None and abs(hours - period.hours) > _TOLERATED_HOURS:
                remarks.append(
                    f"{period.path}: its volumes say {plain(round(period.hours, 4), 0)} h, its timestamps"
                    f" {plain(round(hours, 4), 0)} h: the timestamps count"
                )
        kwh, told = sum((period.volumes.get("ENERGY", Decimal(0)) for period in periods), Decimal(0)), None
        for name in ("total_energy", "kwh"):
            told = self.number(value, name, "$") if told is None else told
        if told is not None and told != kwh:
            remarks.append(f"$.total_energy: {plain(told, 0)} kWh, its periods {plain(kwh, 0)} kWh: the periods count")
        return remarks

    def _stated(self, value: Mapping[str, Any]) -> Decimal | None:
        cost = value.get("total_cost")
        if not isinstance(cost, Mapping):
            return None
        name = "before_taxes" if "before_taxes" in cost else "excl_vat"
        return self.number(cost, name, "$.total_cost", signed=True)


def _facts(periods: Sequence[_Period], end_ms: int) -> list[Fact]:
    reserved = [period for period in periods if period.reserved]
    running = [period for period in periods if not period.reserved]
    facts = [Fact(FactKind.RESERVED, reserved[0].start_ms)] if reserved else []
    if not running:
        return [*facts, Fact(FactKind.RESERVATION_EXPIRED, end_ms)]
    facts.append(started(running[0].start_ms, 0, running[0].state))
    register_wh, state = Decimal(0), running[0].state
    ends = [*(period.start_ms for period in running[1:]), end_ms]
    for period, until_ms in zip(running, ends, strict=True):
        if period.state is not state:
            state = period.state
            facts.append(sampled(period.start_ms, state=state))
        both = period.state is ChargingState.CHARGING and period.volumes.get("PARKING_TIME")
        register_wh += period.volumes.get("ENERGY", Decimal(0)) * 1000
        if both:
            # Which of the two came first is not told: who charges and then stays is the ordinary case.
            charged_ms = period.start_ms + int(period.volumes["TIME"] * MS_PER_HOUR)
            facts.append(sampled(min(charged_ms, until_ms), register_wh, current_a=period.current_a))
            state = ChargingState.SUSPENDED_EV
            facts.append(sampled(min(charged_ms, until_ms), state=state))
        facts.append(sampled(until_ms, register_wh, current_a=period.current_a))
    return [*facts[:-1], replace(facts[-1], kind=FactKind.ENDED)]
