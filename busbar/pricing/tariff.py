"""The tariff that the engine prices with: what OCPI tariffs and OCPP 2.1 tariffs both become.

Quantities are whole numbers of small units, so that sums are exact and equal in any order: energy in micro-watt-hours
(`_uwh`), time in milliseconds (`_ms`), current in milliamperes (`_ma`), power in milliwatts (`_mw`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import IntEnum, StrEnum
from fractions import Fraction
from functools import cached_property
from math import lcm
from typing import Any

from busbar.pricing.jsontext import Written, serialize_json
from busbar.pricing.money import MINOR_DIGITS
from busbar.pricing.problems import Problem, TariffError

UWH_PER_WH = 1_000_000
UWH_PER_KWH = 1_000 * UWH_PER_WH
MS_PER_SECOND = 1_000
MS_PER_MINUTE = 60 * MS_PER_SECOND
MS_PER_HOUR = 60 * MS_PER_MINUTE
MAX_CHANGES = 16
"""How often a session's tariff may be changed."""


class Dimension(StrEnum):
    """What a component prices. Reservations have dimensions of their own."""

    ENERGY = "ENERGY"
    TIME = "TIME"
    PARKING_TIME = "PARKING_TIME"
    FLAT = "FLAT"
    RESERVATION_TIME = "RESERVATION_TIME"
    RESERVATION_FLAT = "RESERVATION_FLAT"
    EXPIRED_TIME = "EXPIRED_TIME"
    """Time of a reservation that was let expire; takes the place of `RESERVATION_TIME`."""
    EXPIRED_FLAT = "EXPIRED_FLAT"


class Unit(StrEnum):
    """What a price is per."""

    KWH = "kWh"
    HOUR = "h"
    MINUTE = "min"
    SESSION = "session"


UNIT_SIZES = {Unit.KWH: UWH_PER_KWH, Unit.HOUR: MS_PER_HOUR, Unit.MINUTE: MS_PER_MINUTE, Unit.SESSION: 1}
"""How many of the engine's own units make one of the price's."""


class TaxIncluded(StrEnum):
    """Whether prices include taxes. Spec: OCPI 2.3.0 `tax_included`."""

    YES = "YES"
    NO = "NO"
    NOT_APPLICABLE = "N/A"


class Quantity(IntEnum):
    """What a bound of a condition is about; also the place of its value in the engine's list of values."""

    ENERGY = 0
    DURATION = 1
    CHARGING = 2
    """Charging time so far. Spec: OCPP 2.1 `minChargingTime`."""
    IDLE = 3
    CURRENT = 4
    POWER = 5


@dataclass(frozen=True, slots=True)
class Bound:
    """From `minimum` (inclusive) to `maximum` (exclusive), in the engine's units.

    A negative bound counts away from zero. Spec: OCPP 2.1 TariffConditionsType (`minXXX` is closest to zero).
    """

    quantity: Quantity
    minimum: int | None
    maximum: int | None


@dataclass(frozen=True, slots=True)
class Conditions:
    """When a component applies: all must hold."""

    start_minute: int = 0
    """Of the local day, inclusive."""
    end_minute: int = 1440
    """Exclusive. Below `start_minute` the window goes on past midnight; equal to it, it is the whole day."""
    days: frozenset[int] | None = None
    """Local weekdays, Monday is 0."""
    from_day: int | None = None
    """First local day, as the proleptic ordinal of `datetime.date`."""
    until_day: int | None = None
    """Exclusive."""
    bounds: tuple[Bound, ...] = ()
    evse_kind: str | None = None
    payment_brand: str | None = None
    payment_recognition: str | None = None

    @property
    def always(self) -> bool:
        return self == _ALWAYS

    @property
    def whole_day(self) -> bool:
        return self.start_minute == self.end_minute % 1440

    @property
    def by_date(self) -> bool:
        """Whether it depends on the local day."""
        return self.days is not None or self.from_day is not None or self.until_day is not None


_ALWAYS = Conditions()


@dataclass(frozen=True, slots=True)
class TaxRate:
    """One tax. Rates of one `stack` share a base; a higher stack is on top. Spec: OCPP 2.1 TaxRateType."""

    name: str
    percent: Decimal
    stack: int = 0


@dataclass(frozen=True, slots=True)
class Component:
    """One price of one dimension."""

    index: int
    """Its place in `Tariff.components`."""
    element: int
    """Which element of the tariff (OCPI), or which price of its dimension (OCPP)."""
    path: str
    """Where it stands in the tariff's JSON."""
    dimension: Dimension
    price: Decimal
    """As written in the tariff, before or after tax as `Tariff.tax_included` says."""
    unit: Unit
    step: int = 0
    """Step size in the engine's units; 0 is none."""
    taxes: tuple[TaxRate, ...] = ()
    conditions: Conditions = _ALWAYS


@dataclass(frozen=True, slots=True)
class Limit:
    """The least or most that a session costs. Each side acts on its own; an absent one follows the other."""

    excl: Decimal | None
    incl: Decimal | None


@dataclass(frozen=True)
class Tariff:
    """A tariff that has been found priceable. Immutable: a change is another tariff."""

    tariff_id: str
    format: str
    """`OCPI 2.2.1`, `OCPI 2.3.0` or `OCPP 2.1`."""
    currency: str
    tax_included: TaxIncluded
    components: tuple[Component, ...]
    source: Mapping[str, Any] = field(repr=False, compare=False)
    """The JSON it was read from."""
    minimum: Limit | None = None
    maximum: Limit | None = None
    valid_from_ms: int | None = None
    valid_until_ms: int | None = None
    fixed_at_start: bool = False
    """FLAT is judged at the start of the session only (OCPP I12.FR.30), not when it first becomes active."""
    warnings: tuple[str, ...] = ()
    before: Tariff | None = field(default=None, repr=False)
    """What the session had until its tariff was changed; its components come first. See `changed_tariff`."""

    @cached_property
    def fingerprint(self) -> str:
        """Names the content: the same text, whatever its spacing and the order of its keys, has the same."""
        canonical = serialize_json(self.source, sort_keys=True)
        if self.before is not None:
            canonical = f"{self.before.fingerprint}+{canonical}"
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @cached_property
    def source_text(self) -> Written:
        """`source` as JSON: each of its bills has it in its record."""
        return Written(serialize_json(self.source))

    @cached_property
    def parts(self) -> tuple[Tariff, ...]:
        """The tariffs that a session had, one after the other; just this one where none was changed."""
        return (self,) if self.before is None else (*self.before.parts, self)

    def of(self, dimension: Dimension) -> list[Component]:
        """The components of a dimension that may apply now, in the order in which they are tried."""
        own = self.components if self.before is None else self.components[len(self.before.components) :]
        return [component for component in own if component.dimension is dimension]

    def owner(self, component: Component) -> Tariff:
        """Which of `parts` a component is of."""
        return next(part for part in self.parts if component.index < len(part.components))

    @cached_property
    def amounts(self) -> Amounts:
        return Amounts(self)


def changed_tariff(before: Tariff, after: Tariff) -> Tariff:
    """The tariff of a session that had one until some instant and has another from then on.

    Its components are those of both, so that one bill holds them. Spec: OCPP 2.1 I11.

    Raises:
        TariffError: The currency would change (I11.FR.05), prices would be before tax here and after it there, or the
            tariff was changed too often.
    """
    problems = []
    if after.currency != before.currency:
        problems.append(Problem("$.currency", f"is {after.currency}, and the session is priced in {before.currency}"))
    if after.tax_included is not before.tax_included:
        reason = f"is {after.tax_included}, and of the session's tariff {before.tax_included}: a bill has one of both"
        problems.append(Problem("$.tax_included", reason))
    if len(before.parts) > MAX_CHANGES:
        problems.append(Problem("$", f"the tariff of a session is changed {MAX_CHANGES} times at most"))
    if problems:
        raise TariffError(problems)
    first = len(before.components)
    own = (replace(component, index=first + component.index) for component in after.components)
    return replace(after, components=(*before.components, *own), before=before)


def tax_factor(taxes: Iterable[TaxRate]) -> Fraction:
    """What a price before tax is multiplied by. Spec: I12.FR.13."""
    factor = Fraction(1)
    by_stack: dict[int, Fraction] = {}
    for rate in taxes:
        by_stack[rate.stack] = by_stack.get(rate.stack, Fraction(0)) + Fraction(rate.percent) / 100
    for stack in sorted(by_stack):
        factor *= 1 + by_stack[stack]
    return factor


class Amounts:
    """The tariff's prices as integers over one common denominator, so that sums of costs are exact.

    A cost is `quantity * before_tax[component] / denominator`; nothing is rounded before the end.
    """

    __slots__ = ("after_tax", "before_tax", "denominator", "maximum", "taxes")

    def __init__(self, tariff: Tariff) -> None:
        before, after = [], []
        for component in tariff.components:
            price = Fraction(component.price) / UNIT_SIZES[component.unit]
            factor = tax_factor(component.taxes)
            if tariff.tax_included is TaxIncluded.YES:
                before.append(price / factor)
                after.append(price)
            else:
                before.append(price)
                after.append(price * factor)
        limits = [
            Fraction(side)
            for part in tariff.parts
            for limit in (part.minimum, part.maximum)
            if limit is not None
            for side in (limit.excl, limit.incl)
            if side is not None
        ]
        self.denominator = lcm(
            10 ** MINOR_DIGITS[tariff.currency], *(value.denominator for value in (*before, *after, *limits))
        )
        self.before_tax = self._numerators(before)
        self.after_tax = self._numerators(after)
        sides = (None, None) if tariff.maximum is None else (tariff.maximum.excl, tariff.maximum.incl)
        self.maximum = tuple(None if side is None else int(Fraction(side) * self.denominator) for side in sides)
        """Before and after tax, over the common denominator; `None` is no limit."""
        self.taxes = _tax_weights(tariff.components)
        """Of each component the share that each of its taxes takes of its price before tax; see `_tax_weights`."""

    def _numerators(self, values: Sequence[Fraction]) -> tuple[int, ...]:
        return tuple(value.numerator * (self.denominator // value.denominator) for value in values)


TaxWeights = tuple[tuple[str, Decimal, int], ...]
"""(name, percent, weight) of the taxes of a component."""


def _tax_weights(components: Sequence[Component]) -> tuple[TaxWeights, ...]:
    """By component what each of its taxes makes of one unit of its price, in parts of which a whole tax has many.

    How many is the same for all components of a tariff, so that weights can be added up and compared; it does not
    matter how many, because only the share of a tax in the sum of all is asked for.
    """
    shares = [
        [(rate, tax_factor(other for other in each.taxes if other.stack < rate.stack) * Fraction(rate.percent) / 100)
         for rate in each.taxes]
        for each in components
    ]  # fmt: skip
    parts = lcm(1, *(share.denominator for each in shares for _, share in each))
    return tuple(
        tuple((rate.name, rate.percent, share.numerator * (parts // share.denominator)) for rate, share in each)
        for each in shares
    )
