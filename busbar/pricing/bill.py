"""From what was used to what is charged, with lines that add up to it.

Costs are summed as exact ratios and rounded where `Rounding` says, once. A line's own amounts are shown with four
digits more than the currency has; what that and the rounding of the total leave is a line of its own, so that the
lines always add up to the total.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import NamedTuple

from busbar.pricing.money import RoundAt, Rounding, RoundingMode, decimal_of, round_ratio, to_decimal
from busbar.pricing.state import NONE, Note, Period, PeriodKind, SessionState
from busbar.pricing.tariff import Component, Dimension, Tariff, TaxIncluded, Unit, tax_factor

DETAIL_DIGITS = 4
"""How many digits more a line shows than the currency has."""
ENERGY_DIGITS = 6
"""Of a watt-hour: the engine's unit."""
_EXPIRED = {
    Dimension.EXPIRED_TIME: Dimension.RESERVATION_TIME,
    Dimension.EXPIRED_FLAT: Dimension.RESERVATION_FLAT,
}


class CostType(StrEnum):
    """Whether a limit decided the total. Spec: OCPP 2.1 TariffCostEnumType."""

    NORMAL = "NormalCost"
    MINIMUM = "MinCost"
    MAXIMUM = "MaxCost"


class LineKind(StrEnum):
    """What a line charges."""

    ENERGY = "ENERGY"
    TIME = "TIME"
    PARKING_TIME = "PARKING_TIME"
    FLAT = "FLAT"
    RESERVATION_TIME = "RESERVATION_TIME"
    RESERVATION_FLAT = "RESERVATION_FLAT"
    STEP = "STEP"
    """What is added to fill up the last step of `component`."""
    MINIMUM = "MINIMUM"
    MAXIMUM = "MAXIMUM"
    ROUNDING = "ROUNDING"


class Amount(NamedTuple):
    """Money before and after tax."""

    excl_tax: Decimal
    incl_tax: Decimal

    @property
    def tax(self) -> Decimal:
        return self.incl_tax - self.excl_tax


class Line(NamedTuple):
    """One line of a bill."""

    kind: LineKind
    component: Component | None
    """The price that applied; `None` for limits and rounding."""
    start_ms: int
    end_ms: int
    period: int
    """Which of the bill's periods, or -1."""
    quantity: Decimal
    """kWh of energy, seconds of time, 1 for a fee."""
    excl_tax: Decimal
    incl_tax: Decimal


@dataclass(frozen=True, slots=True)
class TaxAmount:
    """One tax of a bill."""

    name: str
    percent: Decimal | None
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Cost:
    """A running cost."""

    currency: str
    excl_tax: Decimal
    incl_tax: Decimal
    cost_type: CostType
    """`MAXIMUM` once the most that a session may cost is reached."""
    energy_wh: Decimal
    duration_ms: int
    """Since the start, parking included."""
    parking_ms: int


@dataclass(frozen=True, slots=True)
class Bill:
    """What a session costs, and why."""

    tariff: Tariff
    currency: str
    total: Amount
    cost_type: CostType
    costs: Mapping[Dimension, Amount]
    """Per dimension, unlimited and unrounded but for the digits of a line; expired reservations under reservations."""
    taxes: tuple[TaxAmount, ...]
    """They add up to the tax of the total."""
    start_ms: int
    """Of the session, or of the reservation if there was no session."""
    end_ms: int
    reservation: tuple[int, int] | None
    """Begin and end of the reservation."""
    energy_wh: Decimal
    duration_ms: int
    """Of the session, parking included."""
    parking_ms: int
    billed: Mapping[Dimension, Decimal]
    """Billed quantities, steps filled: kWh, seconds, or 1."""
    periods: tuple[Period, ...]
    """Empty if they were not kept."""
    lines: tuple[Line, ...]
    """They add up to the total."""
    notes: tuple[Note, ...]
    changes: tuple[int, ...] = ()
    """When its tariff was changed, from one of `tariff.parts` to the next."""

    def tariff_at(self, at_ms: int) -> Tariff:
        """The tariff that it had at an instant."""
        return self.tariff.parts[bisect_right(self.changes, at_ms)]


def running_cost(tariff: Tariff, state: SessionState, rounding: Rounding) -> Cost:
    """The cost so far: no step sizes and no minimum, but never more than the maximum."""
    amounts = tariff.amounts
    before_tax, after_tax, denominator = amounts.before_tax, amounts.after_tax, amounts.denominator
    left_out = _left_out(tariff, state)
    excl = incl = 0
    for index, quantity in state.quantities.items():
        if index not in left_out:
            excl += quantity * before_tax[index]
            incl += quantity * after_tax[index]
    digits = rounding.digits_for(tariff.currency)
    cost_type = CostType.NORMAL
    most_excl, most_incl = amounts.maximum
    if tariff.before is not None:
        quantities = {i: q for i, q in state.quantities.items() if i not in left_out}
        limits = _limits_of_parts(tariff, quantities)
        totals = limits.apply(Fraction(excl, denominator), Fraction(incl, denominator), minimum=False)
        excl_tax, incl_tax = (_rounded(side, digits, rounding) for side in totals[:2])
        cost_type = totals[2]
    elif (most_excl is not None and excl > most_excl) or (most_incl is not None and incl > most_incl):
        totals = limited(tariff, Fraction(excl, denominator), Fraction(incl, denominator), minimum=False)
        excl_tax, incl_tax = (_rounded(side, digits, rounding) for side in totals[:2])
        cost_type = totals[2]
    else:
        excl_tax = to_decimal(excl, denominator, digits, rounding.mode)
        incl_tax = to_decimal(incl, denominator, digits, rounding.mode)
    return Cost(
        currency=tariff.currency,
        excl_tax=excl_tax,
        incl_tax=incl_tax,
        cost_type=cost_type,
        energy_wh=decimal_of(state.energy_uwh, ENERGY_DIGITS),
        duration_ms=state.charging_ms + state.idle_ms,
        parking_ms=state.idle_ms,
    )


def limited(
    tariff: Tariff, excl: Fraction, incl: Fraction, *, minimum: bool = True
) -> tuple[Fraction, Fraction, CostType]:
    """Hold a total between the tariff's limits.

    The sides before and after tax act on their own. A side that the tariff leaves open follows the other: the tax
    keeps the share that it has in this session.
    """
    cost_type = CostType.NORMAL
    for limit, pick, limited_type in (
        (tariff.minimum if minimum else None, max, CostType.MINIMUM),
        (tariff.maximum, min, CostType.MAXIMUM),
    ):
        if limit is None:
            continue
        low = excl if limit.excl is None else pick(excl, Fraction(limit.excl))
        high = incl if limit.incl is None else pick(incl, Fraction(limit.incl))
        if limit.incl is None and low != excl:
            high = low * (incl / excl if excl else _common_factor(tariff))
        if limit.excl is None and high != incl:
            low = high / (incl / excl if excl else _common_factor(tariff))
        if (low, high) != (excl, incl):
            excl, incl, cost_type = low, high, limited_type
    return excl, incl, cost_type


class _Limits(NamedTuple):
    """What holds the total of a session whose tariff may have been changed."""

    tariff: Tariff
    """The last one."""
    spent: tuple[Fraction, Fraction]
    """What it cost when the tariff was changed: never taken back."""
    saved: tuple[Fraction, Fraction]
    """By how much earlier maximums had lowered it by then."""

    def apply(self, excl: Fraction, incl: Fraction, *, minimum: bool) -> tuple[Fraction, Fraction, CostType]:
        """As `limited`, from the sum of everything that was used."""
        if self.tariff.before is not None:
            excl, incl = excl - self.saved[0], incl - self.saved[1]
        low, high, cost_type = limited(self.tariff, excl, incl, minimum=minimum)
        if cost_type is CostType.MAXIMUM:
            low, high = max(low, self.spent[0]), max(high, self.spent[1])
        elif self.saved != _NOTHING and cost_type is CostType.NORMAL:
            cost_type = CostType.MAXIMUM
        return low, high, cost_type


_NOTHING = (Fraction(0), Fraction(0))


def _limits_of_parts(tariff: Tariff, quantities: Mapping[int, int]) -> _Limits:
    before = tariff.before
    if before is None:
        return _Limits(tariff, _NOTHING, _NOTHING)
    amounts, most = before.amounts, len(before.components)
    used = {index: quantity for index, quantity in quantities.items() if index < most}
    excl, incl = (
        Fraction(sum(quantity * prices[index] for index, quantity in used.items()), amounts.denominator)
        for prices in (amounts.before_tax, amounts.after_tax)
    )
    spent = _limits_of_parts(before, used).apply(excl, incl, minimum=False)[:2]
    return _Limits(tariff, spent, (excl - spent[0], incl - spent[1]))


def make_bill(tariff: Tariff, state: SessionState, periods: Sequence[Period] | None, rounding: Rounding) -> Bill:
    """The bill of a session whose last fact has been priced.

    Args:
        tariff: What it was priced with.
        state: The session, with nothing pending and no period open.
        periods: All its periods, or `None` if they were not kept: then there is one line a component.
        rounding: Where and how to round.
    """
    left_out = _left_out(tariff, state)
    entries = _entries(state, periods, left_out)
    steps = _surpluses(tariff, state, left_out)
    entries += [(index, state.end_ms, state.end_ms, NONE, surplus) for index, surplus in steps.items()]
    quantities = {i: q + steps.get(i, 0) for i, q in state.quantities.items() if i not in left_out}
    digits = rounding.digits_for(tariff.currency)
    detail = digits + DETAIL_DIGITS
    costs = _costs(tariff, quantities)
    denominator = tariff.amounts.denominator
    lines, shown = _lines(tariff, entries, len(entries) - len(steps), digits, rounding)
    excl, incl = _sum(costs, denominator, lines, digits, rounding)
    limits = _limits_of_parts(tariff, {i: q for i, q in state.quantities.items() if i not in left_out})
    total_excl, total_incl, cost_type = limits.apply(excl, incl, minimum=state.start_ms != NONE)
    if cost_type is not CostType.NORMAL:
        kind = LineKind.MINIMUM if cost_type is CostType.MINIMUM else LineKind.MAXIMUM
        moved = [_units(total - cost, detail) for total, cost in ((total_excl, excl), (total_incl, incl))]
        shown = shown[0] + moved[0], shown[1] + moved[1]
        lines.append(_closing_line(kind, state.end_ms, moved, detail))
    units = [round_ratio(*_scaled(total, digits), rounding.mode) for total in (total_excl, total_incl)]
    rest = [unit * 10**DETAIL_DIGITS - sum_of_lines for unit, sum_of_lines in zip(units, shown, strict=True)]
    if any(rest):
        lines.append(_closing_line(LineKind.ROUNDING, state.end_ms, rest, detail))
    start_ms = state.reserved_ms if state.start_ms == NONE else state.start_ms
    reservation = None
    if state.reserved_ms != NONE:
        reservation = state.reserved_ms, state.end_ms if state.start_ms == NONE else state.start_ms
    return Bill(
        tariff=tariff,
        currency=tariff.currency,
        total=Amount(decimal_of(units[0], digits), decimal_of(units[1], digits)),
        cost_type=cost_type,
        costs={
            dimension: Amount(_detailed(before, denominator, detail), _detailed(after, denominator, detail))
            for dimension, (before, after) in costs.items()
        },
        taxes=_taxes(tariff, quantities, units[1] - units[0], digits),
        start_ms=start_ms,
        end_ms=state.end_ms,
        reservation=reservation,
        energy_wh=decimal_of(state.energy_uwh, ENERGY_DIGITS),
        duration_ms=state.charging_ms + state.idle_ms,
        parking_ms=state.idle_ms,
        billed=_billed(tariff, quantities),
        periods=tuple(periods or ()),
        lines=tuple(lines),
        notes=_notes(tariff, state, quantities),
        changes=state.changes,
    )


_Entry = tuple[int, int, int, int, int]
"""What a line charges: component, begin, end, period and quantity in the engine's units."""


def _left_out(tariff: Tariff, state: SessionState) -> frozenset[int]:
    """The components of the outcome that a reservation did not have.

    Spec: OCPI ReservationRestrictionType: of an expired reservation, RESERVATION_EXPIRES takes the place of RESERVATION
    where both price the same dimension.
    """
    if state.reserved_ms == NONE:
        return frozenset()
    expired = {c.dimension for c in tariff.components if c.dimension in _EXPIRED} if state.expired else set()
    replaced = {_EXPIRED[dimension] for dimension in expired}
    unused = set(_EXPIRED) - expired
    return frozenset(c.index for c in tariff.components if c.dimension in replaced | unused)


def _entries(state: SessionState, periods: Sequence[Period] | None, left_out: frozenset[int]) -> list[_Entry]:
    flats = [(index, at_ms, at_ms, NONE, 1) for index, at_ms in state.flats if index not in left_out]
    found: list[_Entry] = []
    if periods is None:
        begin = state.reserved_ms if state.start_ms == NONE else state.start_ms
        fees = {index for index, *_ in flats}
        for index, quantity in state.quantities.items():
            if index not in left_out and index not in fees:
                found.append((index, begin, state.end_ms, NONE, quantity))
        return flats + found
    for place, period in enumerate(periods):
        start_ms, end_ms, kind, energy_uwh, energy, time = period[:6]
        if kind == PeriodKind.RESERVED:
            chosen = time if time != NONE and time not in left_out else energy
            if chosen != NONE and chosen not in left_out:
                found.append((chosen, start_ms, end_ms, place, end_ms - start_ms))
            continue
        if energy != NONE and energy_uwh:
            found.append((energy, start_ms, end_ms, place, energy_uwh))
        if time != NONE and end_ms > start_ms:
            found.append((time, start_ms, end_ms, place, end_ms - start_ms))
    if flats:
        found = flats + found
        found.sort(key=_begin)
    return found


def _begin(entry: _Entry) -> int:
    return entry[1]


def _surpluses(tariff: Tariff, state: SessionState, left_out: frozenset[int]) -> dict[int, int]:
    """What fills up the last step of energy, of time and parking together, and of a reservation.

    Spec: OCPI mod_cdrs_step_size: the step of the last component used counts, and for the total of its dimension.
    """
    found = {}
    for index in state.last:
        if index == NONE or index in left_out:
            continue
        last = tariff.components[index]
        if last.step > 0:
            total = sum(
                quantity
                for other, quantity in state.quantities.items()
                if tariff.components[other].dimension is last.dimension
            )
            surplus = -total % last.step
            if surplus:
                found[index] = surplus
    return found


def _costs(tariff: Tariff, quantities: Mapping[int, int]) -> dict[Dimension, tuple[int, int]]:
    """By dimension what it costs before and after tax, over the tariff's common denominator."""
    amounts = tariff.amounts
    sums: dict[Dimension, list[int]] = {}
    for index, quantity in quantities.items():
        dimension = tariff.components[index].dimension
        pair = sums.setdefault(_EXPIRED.get(dimension, dimension), [0, 0])
        pair[0] += quantity * amounts.before_tax[index]
        pair[1] += quantity * amounts.after_tax[index]
    return {dimension: (before, after) for dimension, (before, after) in sums.items()}


def _lines(
    tariff: Tariff, entries: Sequence[_Entry], steps_from: int, digits: int, rounding: Rounding
) -> tuple[list[Line], tuple[int, int]]:
    """The lines, and their sums in units of the last digit that a line can have."""
    each = rounding.at is RoundAt.LINE
    shown = digits if each else digits + DETAIL_DIGITS
    amounts, scale = tariff.amounts, 10**shown
    denominator, half = amounts.denominator, amounts.denominator // 2
    lines = []
    excl_sum = incl_sum = 0
    for place, (index, start_ms, end_ms, period, quantity) in enumerate(entries):
        component = tariff.components[index]
        excl, incl = quantity * amounts.before_tax[index] * scale, quantity * amounts.after_tax[index] * scale
        if each:
            excl, incl = (round_ratio(side, denominator, rounding.mode) for side in (excl, incl))
        else:
            # What is only shown is rounded to the nearest; the line that closes the bill takes up the rest.
            excl, incl = (excl + half) // denominator, (incl + half) // denominator
        excl_sum += excl
        incl_sum += incl
        lines.append(
            Line(
                _KINDS[component.dimension] if place < steps_from else LineKind.STEP,
                component,
                start_ms,
                end_ms,
                period,
                decimal_of(quantity, _QUANTITY_DIGITS[component.unit]),
                decimal_of(excl, shown),
                decimal_of(incl, shown),
            )
        )
    finer: int = 10 ** (digits + DETAIL_DIGITS - shown)
    return lines, (excl_sum * finer, incl_sum * finer)


def _closing_line(kind: LineKind, at_ms: int, units: Sequence[int], digits: int) -> Line:
    excl, incl = (decimal_of(side, digits) for side in units)
    return Line(kind, None, at_ms, at_ms, NONE, Decimal(1), excl, incl)


def _sum(
    costs: Mapping[Dimension, tuple[int, int]],
    denominator: int,
    lines: Sequence[Line],
    digits: int,
    rounding: Rounding,
) -> tuple[Fraction, Fraction]:
    """The total before limits, from what `Rounding.at` says is rounded."""
    if rounding.at is RoundAt.LINE:
        sides = [(Fraction(line.excl_tax), Fraction(line.incl_tax)) for line in lines]
    elif rounding.at is RoundAt.DIMENSION:
        sides = [
            (
                Fraction(to_decimal(before, denominator, digits, rounding.mode)),
                Fraction(to_decimal(after, denominator, digits, rounding.mode)),
            )
            for before, after in costs.values()
        ]
    else:
        excl, incl = sum(before for before, _ in costs.values()), sum(after for _, after in costs.values())
        return Fraction(excl, denominator), Fraction(incl, denominator)
    return sum((excl for excl, _ in sides), Fraction(0)), sum((incl for _, incl in sides), Fraction(0))


def _taxes(tariff: Tariff, quantities: Mapping[int, int], units: int, digits: int) -> tuple[TaxAmount, ...]:
    """The tax of the total, which is so many minor units, by rate.

    Shares are by what each rate makes without limits and rounding.
    """
    amounts = tariff.amounts
    shares: dict[tuple[str, Decimal], int] = {}
    for index, quantity in quantities.items():
        base = quantity * amounts.before_tax[index]
        for name, percent, weight in amounts.taxes[index]:
            key = (name, percent)
            shares[key] = shares.get(key, 0) + base * weight
    whole = sum(shares.values())
    if not whole:
        return (TaxAmount("TAX", None, decimal_of(units, digits)),) if units else ()
    if whole < 0:
        shares, whole = {key: -share for key, share in shares.items()}, -whole
    parts = {key: share * units // whole for key, share in shares.items()}
    rest = units - sum(parts.values())
    # What is missing goes, a unit each, to those that were rounded down most.
    for key in sorted(shares, key=lambda key: parts[key] * whole - shares[key] * units)[:rest]:
        parts[key] += 1
    return tuple([TaxAmount(name, percent, decimal_of(part, digits)) for (name, percent), part in parts.items()])


def _billed(tariff: Tariff, quantities: Mapping[int, int]) -> dict[Dimension, Decimal]:
    sums: dict[Dimension, int] = {}
    for index, quantity in quantities.items():
        dimension = tariff.components[index].dimension
        dimension = _EXPIRED.get(dimension, dimension)
        sums[dimension] = sums.get(dimension, 0) + quantity
    return {dimension: decimal_of(total, _BILLED_DIGITS[dimension]) for dimension, total in sums.items()}


def _notes(tariff: Tariff, state: SessionState, quantities: Mapping[int, int]) -> tuple[Note, ...]:
    if tariff.tax_included is not TaxIncluded.NOT_APPLICABLE:
        used = (tariff.components[index] for index, quantity in quantities.items() if quantity)
        if any(component.price and not component.taxes for component in used):
            return (*state.notes, Note.TAX_UNKNOWN)
    return state.notes


def _common_factor(tariff: Tariff) -> Fraction:
    """By what tax multiplies a price, if it is the same for all of the tariff's prices; else 1."""
    factors = {tax_factor(component.taxes) for component in tariff.components}
    return factors.pop() if len(factors) == 1 else Fraction(1)


def _scaled(amount: Fraction, digits: int) -> tuple[int, int]:
    numerator: int = amount.numerator * 10**digits
    return numerator, amount.denominator


def _detailed(amount: int, denominator: int, digits: int) -> Decimal:
    return to_decimal(amount, denominator, digits, RoundingMode.HALF_EVEN)


def _units(amount: Fraction, digits: int) -> int:
    return round_ratio(*_scaled(amount, digits), RoundingMode.HALF_EVEN)


def _rounded(amount: Fraction, digits: int, rounding: Rounding) -> Decimal:
    return to_decimal(amount.numerator, amount.denominator, digits, rounding.mode)


_KINDS = {dimension: LineKind[_EXPIRED.get(dimension, dimension).name] for dimension in Dimension}
_QUANTITY_DIGITS = {Unit.KWH: 9, Unit.HOUR: 3, Unit.MINUTE: 3, Unit.SESSION: 0}
_BILLED_DIGITS = {
    dimension: 9 if dimension is Dimension.ENERGY else 0 if "FLAT" in dimension else 3 for dimension in Dimension
}
