"""Short ways to write tariffs and sessions."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from busbar.pricing.bill import Bill
from busbar.pricing.engine import DEFAULT_OPTIONS, Options, Pricer
from busbar.pricing.facts import ChargingState, Fact, ended, sampled, started
from busbar.pricing.money import RoundAt, Rounding, RoundingMode
from busbar.pricing.ocpi_tariff import parse_ocpi_tariff
from busbar.pricing.tariff import Dimension, Tariff

CHARGING = ChargingState.CHARGING
PARKED = ChargingState.SUSPENDED_EV
PAUSED = ChargingState.SUSPENDED_EVSE
REGISTER_WH = 1_234_567
WEEKDAYS = ["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY"]
MINUTE_MS = 60_000


def ms(text: str) -> int:
    """`2026-03-11 10:00` in UTC, or with an offset, as Unix milliseconds."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def component(kind: str, price: str, vat: str | None = None, step: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = {"type": kind, "price": Decimal(price), "step_size": step}
    return found if vat is None else found | {"vat": Decimal(vat)}


def element(*components: dict[str, Any], **restrictions: Any) -> dict[str, Any]:
    """Numbers of restrictions may be written as text."""
    found: dict[str, Any] = {"price_components": list(components)}
    return found | {"restrictions": restrictions} if restrictions else found


def tariff_json(*elements: dict[str, Any], currency: str = "EUR", **fields: Any) -> dict[str, Any]:
    return {"id": "T1", "currency": currency, "tax_included": "NO", "elements": list(elements), **fields}


def tariff(*elements: dict[str, Any], currency: str = "EUR", **fields: Any) -> Tariff:
    return parse_ocpi_tariff(tariff_json(*elements, currency=currency, **fields))


def money(excl_tax: str | int | Decimal, incl_tax: str | int | Decimal) -> tuple[Decimal, Decimal]:
    return Decimal(excl_tax), Decimal(incl_tax)


def limit(before: str, after: str | None = None) -> dict[str, Decimal]:
    found = {"before_taxes": Decimal(before)}
    return found if after is None else found | {"after_taxes": Decimal(after)}


def session(
    start: str,
    *stretches: tuple[ChargingState, float, float | str],
    every_minutes: int | None = None,
) -> list[Fact]:
    """Facts of a session made of stretches: state, minutes, kWh. Power is constant within each.

    Args:
        start: As for `ms`.
        stretches: In order.
        every_minutes: How often the station samples in between; never, if not given.
    """
    at_ms, register = ms(start), Decimal(REGISTER_WH)
    facts = [started(at_ms, register, stretches[0][0] if stretches else CHARGING)]
    for place, (state, minutes, kwh) in enumerate(stretches):
        if place:
            facts.append(sampled(at_ms, register, state))
        length_ms, energy = round(minutes * MINUTE_MS), Decimal(str(kwh)) * 1000
        between = range(every_minutes * MINUTE_MS, length_ms, every_minutes * MINUTE_MS) if every_minutes else ()
        facts += [sampled(at_ms + passed, register + energy * passed / length_ms) for passed in between]
        at_ms += length_ms
        register += energy
    return [*facts, ended(at_ms, register)]


def price(
    tariff: Tariff, facts: Iterable[Fact], zone: str = "Europe/Berlin", options: Options = DEFAULT_OPTIONS
) -> Bill:
    return Pricer(tariff, zone, options).price(facts)


def exactly(**fields: Any) -> Options:
    """Options that leave ten digits, so that nothing hides behind the rounding."""
    return Options(rounding=Rounding(RoundingMode.HALF_UP, 10, RoundAt.TOTAL), **fields)


def totals(tariff: Tariff, facts: Iterable[Fact], zone: str = "Europe/Berlin") -> tuple[Decimal, Decimal]:
    """Before and after tax, with ten digits."""
    return price(tariff, facts, zone, exactly()).total


def excl(bill: Bill, dimension: Dimension) -> Decimal:
    """What a dimension costs before tax."""
    return bill.costs[dimension].excl_tax


def assert_adds_up(bill: Bill) -> None:
    """The lines add up to the total, and the taxes to its tax."""
    assert sum(line.excl_tax for line in bill.lines) == bill.total.excl_tax
    assert sum(line.incl_tax for line in bill.lines) == bill.total.incl_tax
    assert sum(tax.amount for tax in bill.taxes) == bill.total.tax
