"""When the price of a session changes next, and what it is then: what a display shows, and when to ask a meter.

A pure question to the tariff: nothing here counts or charges. "Next" means: if things go on as they are, on the same
power, in the same charging state.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NamedTuple

from busbar.pricing.clock import MS_PER_DAY, local_clock
from busbar.pricing.engine import DEFAULT_OPTIONS, Options
from busbar.pricing.selection import Candidates, Edges
from busbar.pricing.state import NEVER, NONE, SessionState
from busbar.pricing.tariff import (
    UNIT_SIZES,
    Component,
    Dimension,
    Quantity,
    Tariff,
    TaxIncluded,
    TaxRate,
    Unit,
    tax_factor,
)

HORIZON_MS = 8 * MS_PER_DAY
"""How far ahead to look: a week's windows have all come round by then."""
_MOST_STEPS = 1_000
Rate = tuple[Fraction, tuple[TaxRate, ...]]
"""A price per one of the engine's units, and its taxes."""


class Prices(NamedTuple):
    """What is charged at an instant; `None` costs nothing."""

    energy: Component | None
    charging: Component | None
    """Of time while the EV may draw power."""
    parking: Component | None
    """Of time while it does not ask for any."""
    fee: Component | None
    """The flat fee that is due; none once it has been charged."""


@dataclass(slots=True)
class Situation:
    """A session at an instant, as far as prices depend on it. Nobody changes one; there are many, see `Fact`."""

    at_ms: int
    energy_uwh: int = 0
    charging_ms: int = 0
    idle_ms: int = 0
    current_ma: int = 0
    power_mw: int = 0
    parking: bool = False
    """Whether the time counts as parking from now on."""
    fee_charged: bool = False
    """Whether the flat fee has been charged, which happens once."""

    def later(self, at_ms: int) -> Situation:
        """The same session at a later instant, as long as only time passes."""
        passed_ms = at_ms - self.at_ms
        idle_ms, charging_ms = self.idle_ms, self.charging_ms
        if self.parking:
            idle_ms += passed_ms
        else:
            charging_ms += passed_ms
        return Situation(
            at_ms,
            self.energy_uwh,
            charging_ms,
            idle_ms,
            self.current_ma,
            self.power_mw,
            self.parking,
            self.fee_charged,
        )

    def values(self) -> tuple[int, int, int, int, int, int]:
        """By `Quantity`."""
        duration_ms = self.charging_ms + self.idle_ms
        return self.energy_uwh, duration_ms, self.charging_ms, self.idle_ms, self.current_ma, self.power_mw


def situation(state: SessionState, options: Options = DEFAULT_OPTIONS) -> Situation:
    """Where a session stands after its last fact. It must have started."""
    parking = state.state in options.parking_states
    priced = Situation(
        at_ms=state.at_ms,
        energy_uwh=state.energy_uwh,
        charging_ms=state.charging_ms,
        idle_ms=state.idle_ms,
        current_ma=state.current_ma,
        power_mw=state.power_mw,
        parking=parking,
        fee_charged=bool(state.flats),
    )
    return priced.later(state.until_ms) if state.until_ms > state.at_ms else priced


@dataclass(frozen=True, slots=True)
class NextChange:
    """Where the price changes next. What is `None` changes nothing."""

    at_ms: int | None
    then: Prices | None
    """The prices from `at_ms` on."""
    energy_uwh: int | None
    """The session's energy from which the price is another."""
    power_mw: int | None
    """The nearest power above or below which it is another."""


class PriceEdges:
    """Looks ahead in one tariff at one location. Holds no session.

    Args:
        tariff: As frozen at the start of a session.
        time_zone: The location's IANA zone.
        options: As the session is priced with.
    """

    def __init__(self, tariff: Tariff, time_zone: str, options: Options = DEFAULT_OPTIONS) -> None:
        self._tariff = tariff
        self._rates = [_rate(component) for component in tariff.components]
        self._energy, self._charging, self._parking, self._fees = (
            Candidates(tariff.of(dimension), options.circumstances)
            for dimension in (Dimension.ENERGY, Dimension.TIME, Dimension.PARKING_TIME, Dimension.FLAT)
        )
        # Spec: I12.FR.30, a fee that is judged at the start only never becomes due later.
        self._later_fees = not tariff.fixed_at_start
        later_fees = (self._fees,) if self._later_fees else ()
        self._edges = Edges((self._energy, self._charging, self._parking, *later_fees), local_clock(time_zone))

    def prices(self, now: Situation) -> Prices:
        """What is charged now."""
        day, minute = self._edges.day_and_minute(now.at_ms)
        values = now.values()
        fee = None
        if not now.fee_charged and (self._later_fees or not now.charging_ms + now.idle_ms):
            fee = self._component(self._fees.choose(values, minute, day))
        return Prices(
            self._component(self._energy.choose(values, minute, day)),
            self._component(self._charging.choose(values, minute, day)),
            self._component(self._parking.choose(values, minute, day)),
            fee,
        )

    def next_change(self, now: Situation, horizon_ms: int = HORIZON_MS) -> NextChange:
        """Where the price changes next, by time, by energy and by power, each on its own."""
        prices = self.prices(now)
        at_ms = self._next_instant(now, prices, now.at_ms + horizon_ms)
        return NextChange(
            at_ms=at_ms,
            then=None if at_ms is None else self.prices(now.later(at_ms)),
            energy_uwh=self._next_energy(now, prices),
            power_mw=self._nearest_power(now, prices),
        )

    def parking_price(self, now: Situation) -> tuple[int, Component] | None:
        """After how many milliseconds of parking from now on it costs something, and what; `None` if it never does.

        The other prices, the day and the clock are those of now.
        """
        day, minute = self._edges.day_and_minute(now.at_ms)
        parked = replace(now, parking=True)
        for _ in range(_MOST_STEPS):
            component = self._component(self._parking.choose(parked.values(), minute, day))
            if component is not None and component.price:
                return parked.at_ms - now.at_ms, component
            duration_ms = parked.charging_ms + parked.idle_ms
            step_ms = min(
                self._edges.after(Quantity.IDLE, parked.idle_ms) - parked.idle_ms,
                self._edges.after(Quantity.DURATION, duration_ms) - duration_ms,
            )
            if step_ms >= NEVER // 2:
                return None
            parked = parked.later(parked.at_ms + step_ms)
        return None

    def _next_instant(self, now: Situation, prices: Prices, until_ms: int) -> int | None:
        then = now
        for _ in range(_MOST_STEPS):
            at_ms = self._edges.next_ms(then.at_ms, then.values(), parking=then.parking)
            if at_ms > until_ms:
                return None
            then = then.later(at_ms)
            if self._differ(self.prices(then), prices):
                return at_ms
        return None

    def _next_energy(self, now: Situation, prices: Prices) -> int | None:
        energy_uwh = self._edges.after(Quantity.ENERGY, now.energy_uwh)
        while energy_uwh < NEVER:
            if self._differ(self.prices(replace(now, energy_uwh=energy_uwh)), prices):
                return energy_uwh
            energy_uwh = self._edges.after(Quantity.ENERGY, energy_uwh)
        return None

    def _nearest_power(self, now: Situation, prices: Prices) -> int | None:
        found: list[int] = []
        threshold = self._edges.after(Quantity.POWER, 0)
        while threshold < NEVER:
            beyond = threshold if threshold > now.power_mw else threshold - 1
            if self._differ(self.prices(replace(now, power_mw=beyond)), prices):
                found.append(threshold)
            threshold = self._edges.after(Quantity.POWER, threshold)
        return min(found, key=lambda each: abs(each - now.power_mw), default=None)

    def _component(self, index: int) -> Component | None:
        return None if index == NONE else self._tariff.components[index]

    def _differ(self, one: Prices, other: Prices) -> bool:
        """Whether anything costs something else."""
        return any(a is not b and self._rate(a) != self._rate(b) for a, b in zip(one, other, strict=True))

    def _rate(self, component: Component | None) -> Rate | None:
        return None if component is None else self._rates[component.index]


def _rate(component: Component) -> Rate | None:
    """What makes a price this price; one of nothing is the same as none."""
    if not component.price:
        return None
    return Fraction(component.price) / UNIT_SIZES[component.unit], component.taxes


def price_after_tax(tariff: Tariff, component: Component | None) -> Fraction:
    """What a driver pays per kWh, per hour or once."""
    if component is None:
        return Fraction(0)
    price = Fraction(component.price)
    if component.unit is Unit.MINUTE:
        price *= 60
    if tariff.tax_included is TaxIncluded.YES or tariff.tax_included is TaxIncluded.NOT_APPLICABLE:
        return price
    return price * tax_factor(component.taxes)
