"""A bill in the words of OCPP 2.1's CostDetails. Spec: OCPP 2.1 Part 2, I12.

Energy is in Wh, power in W, current in A and time in seconds. A reservation took place before the transaction and is
not one of its charging periods.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from busbar.pricing.bill import Amount, Bill, Cost, CostType
from busbar.pricing.money import RoundingMode, decimal_of, round_ratio
from busbar.pricing.ocpi_cdr import timestamp
from busbar.pricing.state import NONE, Period, PeriodKind
from busbar.pricing.tariff import MS_PER_SECOND, Dimension, TaxIncluded

_COSTS = {
    Dimension.FLAT: "fixed",
    Dimension.ENERGY: "energy",
    Dimension.TIME: "chargingTime",
    Dimension.PARKING_TIME: "idleTime",
    Dimension.RESERVATION_TIME: "reservationTime",
    Dimension.RESERVATION_FLAT: "reservationFixed",
}


def cost_details(bill: Bill, *, tariff_id: str | None = None) -> dict[str, Any]:
    """A CostDetailsType of a finished transaction. Numbers are Decimals.

    Args:
        bill: Of the transaction.
        tariff_id: Of the TariffType that the station has; by default that of the bill's tariff.
    """
    total: dict[str, Any] = {"currency": bill.currency, "typeOfCost": bill.cost_type.value}
    if bill.cost_type is CostType.MINIMUM:
        # I12.FR.38: the minimum takes the place of all costs and is reported as a fixed one.
        total["fixed"] = _price(bill.total)
    else:
        total |= {_COSTS[dimension]: _price(amount, bill, dimension) for dimension, amount in bill.costs.items()}
    total["total"] = _price(bill.total)
    usage: dict[str, Any] = {
        "energy": _whole(bill.energy_wh),
        "chargingTime": _seconds(bill.duration_ms - bill.parking_ms),
        "idleTime": _seconds(bill.parking_ms),
    }
    if bill.reservation:
        usage["reservationTime"] = _seconds(bill.reservation[1] - bill.reservation[0])
    details: dict[str, Any] = {"totalCost": total, "totalUsage": usage}
    periods = [
        _period(period, _tariff_id(bill, period, tariff_id))
        for period in bill.periods
        if period.kind != PeriodKind.RESERVED
    ]
    if periods:
        details["chargingPeriods"] = periods
    return details


def running_details(cost: Cost) -> dict[str, Any]:
    """A CostDetailsType of a transaction that goes on: without charging periods (I12.FR.02, errata 2025-09)."""
    return {
        "totalCost": {
            "currency": cost.currency,
            "typeOfCost": cost.cost_type.value,
            "total": _price(Amount(cost.excl_tax, cost.incl_tax)),
        },
        "totalUsage": {
            "energy": _whole(cost.energy_wh),
            "chargingTime": _seconds(cost.duration_ms - cost.parking_ms),
            "idleTime": _seconds(cost.parking_ms),
        },
    }


def _price(amount: Amount, bill: Bill | None = None, dimension: Dimension | None = None) -> dict[str, Any]:
    price: dict[str, Any] = {"exclTax": amount.excl_tax, "inclTax": amount.incl_tax}
    if bill is not None and dimension is not None:
        taxes = _taxes(bill, dimension)
        if taxes:
            price["taxRates"] = taxes
    return price


def _taxes(bill: Bill, dimension: Dimension) -> list[dict[str, Any]]:
    """The tax rates of a dimension, if all its prices have the same."""
    sets = {component.taxes for component in bill.tariff.components if component.dimension is dimension}
    if len(sets) != 1 or bill.tariff.tax_included is TaxIncluded.NOT_APPLICABLE:
        return []
    return [
        {"type": rate.name, "tax": rate.percent} | ({"stack": rate.stack} if rate.stack else {})
        for rate in sets.pop()[:5]
    ]


def _period(period: Period, tariff_id: str) -> dict[str, Any]:
    length = decimal_of(period.end_ms - period.start_ms, 3)
    parking = period.kind == PeriodKind.PARKING
    # The specification's own spelling.
    dimensions = [("IdleTIme" if parking else "ChargingTime", _whole(length))]
    if period.energy_uwh or not parking:
        dimensions.append(("Energy", _whole(decimal_of(period.energy_uwh, 6))))
    ranges: Iterable[tuple[str, int]] = (
        ("MinPower", period.low_power_mw),
        ("MaxPower", period.high_power_mw),
        ("MinCurrent", period.low_current_ma),
        ("MaxCurrent", period.high_current_ma),
    )
    dimensions += [(name, _whole(decimal_of(value, 3))) for name, value in ranges if value != NONE]
    return {
        "startPeriod": timestamp(period.start_ms),
        "tariffId": tariff_id,
        "dimensions": [{"type": name, "volume": volume} for name, volume in dimensions],
    }


def _tariff_id(bill: Bill, period: Period, tariff_id: str | None) -> str:
    """What a period was priced with; `tariff_id` names the last tariff."""
    tariff = bill.tariff_at(period.start_ms)
    return tariff_id if tariff_id and tariff is bill.tariff else tariff.tariff_id


def _seconds(length_ms: int) -> int:
    return round_ratio(length_ms, MS_PER_SECOND, RoundingMode.HALF_UP)


def _whole(value: Decimal) -> Decimal | int:
    """A whole number as such, which is how most stations write it."""
    numerator, denominator = value.as_integer_ratio()
    return numerator if denominator == 1 else value
