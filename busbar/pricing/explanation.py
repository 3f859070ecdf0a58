"""Why a session costs what it costs, line by line, as a JSON document: what is kept with a CDR and shown to people.

It stands alone: a receipt is made of it without the tariff, which may have been replaced long since.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from busbar.pricing.bill import Amount, Bill, Line
from busbar.pricing.money import decimal_of
from busbar.pricing.ocpi_cdr import timestamp
from busbar.pricing.state import NONE
from busbar.pricing.tariff import Component, Conditions, Quantity, Tariff, TaxIncluded, Unit

_QUANTITIES = {
    Quantity.ENERGY: ("kWh", Decimal("1e9")),
    Quantity.CURRENT: ("A", Decimal(1000)),
    Quantity.POWER: ("kW", Decimal("1e6")),
    Quantity.DURATION: ("min", Decimal(60_000)),
    Quantity.CHARGING: ("min of charging", Decimal(60_000)),
    Quantity.IDLE: ("min of parking", Decimal(60_000)),
}
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def explain(bill: Bill, time_zone: str) -> dict[str, Any]:
    """The bill as JSON. Numbers are Decimals: write it with `serialize_json`, read it with `parse_json`.

    Args:
        bill: Of the session, with or without its periods.
        time_zone: The IANA zone by whose clock the tariff was read.
    """
    tariff = bill.tariff
    document: dict[str, Any] = {
        "tariff": _tariff(tariff),
        "time_zone": time_zone,
        "currency": bill.currency,
        "prices_include_tax": tariff.tax_included is TaxIncluded.YES,
        "total": _amount(bill.total),
        "cost_type": bill.cost_type.value,
        "taxes": [
            {"name": tax.name, "amount": tax.amount} | ({} if tax.percent is None else {"percent": tax.percent})
            for tax in bill.taxes
        ],
    }
    if bill.changes:
        earlier = zip(tariff.parts, bill.changes, strict=False)
        document["earlier_tariffs"] = [_tariff(part) | {"until": timestamp(at_ms)} for part, at_ms in earlier]
    if bill.reservation:
        begin_ms, end_ms = bill.reservation
        document["reservation"] = {"begin": timestamp(begin_ms), "end": timestamp(end_ms)}
    if bill.reservation is None or bill.reservation[1] == bill.start_ms:  # else nobody came
        document["session"] = {
            "begin": timestamp(bill.start_ms),
            "end": timestamp(bill.end_ms),
            "seconds": decimal_of(bill.duration_ms, 3),
            "parking_seconds": decimal_of(bill.parking_ms, 3),
            "energy_wh": bill.energy_wh,
        }
    return document | {
        "costs": {dimension.value: _amount(amount) for dimension, amount in bill.costs.items()},
        "billed": {dimension.value: quantity for dimension, quantity in bill.billed.items()},
        "lines": [_line(line, tariff) for line in bill.lines],
        "notes": [note.value for note in bill.notes],
    }


def _amount(amount: Amount) -> dict[str, Decimal]:
    return {"excl_tax": amount.excl_tax, "incl_tax": amount.incl_tax}


def _tariff(tariff: Tariff) -> dict[str, Any]:
    return {"id": tariff.tariff_id, "format": tariff.format, "fingerprint": tariff.fingerprint}


def _line(line: Line, tariff: Tariff) -> dict[str, Any]:
    """One line: what, of which price of the tariff, when, how much."""
    document: dict[str, Any] = {"kind": line.kind.value}
    if line.component is not None:
        document |= _price(line.component)
        if tariff.before is not None:
            document["tariff"] = tariff.owner(line.component).tariff_id
        document |= {"begin": timestamp(line.start_ms), "end": timestamp(line.end_ms)}
        if line.period != NONE:
            document["period"] = line.period
        if line.component.unit is Unit.KWH:
            document["kwh"] = line.quantity
        elif line.component.unit is not Unit.SESSION:
            document["seconds"] = line.quantity
    return document | {"excl_tax": line.excl_tax, "incl_tax": line.incl_tax}


def _price(component: Component) -> dict[str, Any]:
    found: dict[str, Any] = {
        "component": component.index,
        "path": component.path,
        "dimension": component.dimension.value,
        "price": component.price,
        "per": component.unit.value,
    }
    taxes = [{"name": rate.name, "percent": rate.percent} for rate in component.taxes]
    if taxes:
        found["taxes"] = taxes
    conditions = conditions_text(component.conditions)
    return found | ({"when": conditions} if conditions else {})


def conditions_text(conditions: Conditions) -> str:
    """When a price applies, as people say it; empty if always."""
    parts = []
    if not conditions.whole_day:
        start, end = conditions.start_minute, conditions.end_minute
        parts.append(f"{start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}")
    if conditions.days is not None:
        parts.append(" ".join(_WEEKDAYS[day] for day in sorted(conditions.days)))
    for bound in conditions.bounds:
        unit, size = _QUANTITIES[bound.quantity]
        low, high = (
            None if side is None else plain(Decimal(side) / size, 0) for side in (bound.minimum or None, bound.maximum)
        )
        if low and high:
            parts.append(f"{low} to {high} {unit}")
        elif low:
            parts.append(f"from {low} {unit}")
        elif high:
            parts.append(f"below {high} {unit}")
    return ", ".join(parts)


def plain(value: Decimal | int, digits: int) -> str:
    """A number with as many fraction digits as it has, but not fewer than these."""
    whole, _, fraction = f"{Decimal(value):f}".partition(".")
    fraction = fraction.rstrip("0").ljust(digits, "0")
    return f"{whole}.{fraction}" if fraction else whole
