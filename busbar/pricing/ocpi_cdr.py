"""A bill in the words of an OCPI CDR: its charging periods and totals. Spec: OCPI 2.2.1 and 2.3.0 mod_cdrs.

What else a CDR has (token, location, signed data, ids) is not for the engine to know.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Any

from busbar.pricing.bill import Amount, Bill, TaxAmount
from busbar.pricing.money import rounded, to_decimal
from busbar.pricing.state import NONE, Note, Period, PeriodKind
from busbar.pricing.tariff import MS_PER_HOUR, UWH_PER_KWH, Dimension, Tariff, TaxIncluded

_TO_THE_SECOND = len("2025-11-21T08:00:00")
NUMBER_DIGITS = 4
"""Spec: OCPI types, number."""


class OcpiVersion(StrEnum):
    """Decides how a price is written."""

    V221 = "2.2.1"
    V230 = "2.3.0"


_TOTALS = {
    "total_fixed_cost": (Dimension.FLAT,),
    "total_energy_cost": (Dimension.ENERGY,),
    "total_time_cost": (Dimension.TIME,),
    "total_parking_cost": (Dimension.PARKING_TIME,),
    "total_reservation_cost": (Dimension.RESERVATION_TIME, Dimension.RESERVATION_FLAT),
}


def cdr_part(bill: Bill, version: OcpiVersion = OcpiVersion.V230) -> dict[str, Any]:
    """The fields of a CDR that follow from the bill. Numbers are Decimals: write them with `serialize_json`.

    `total_cost` is what is charged; the totals by dimension are before limits and rounding, to OCPI's four digits.
    """
    start_ms = bill.reservation[0] if bill.reservation else bill.start_ms
    part: dict[str, Any] = {
        "start_date_time": timestamp(start_ms),
        "end_date_time": timestamp(bill.end_ms),
        "currency": bill.currency,
        "charging_periods": [charging_period(period, bill.tariff_at(period.start_ms)) for period in bill.periods],
        "total_cost": _price(bill.total, bill.taxes, bill, version),
        "total_energy": rounded(bill.energy_wh, NUMBER_DIGITS, -3),
        "total_time": _hours(bill.duration_ms),
        "total_parking_time": _hours(bill.parking_ms),
    }
    tariffs = ocpi_tariffs(bill)
    if tariffs:
        part["tariffs"] = [tariff.source for tariff in tariffs]
    for name, dimensions in _TOTALS.items():
        amounts = [bill.costs[dimension] for dimension in dimensions if dimension in bill.costs]
        if amounts:
            part[name] = _cost(amounts, bill, version)
    return part


def ocpi_tariffs(bill: Bill) -> list[Tariff]:
    """The tariffs that OCPI has words for."""
    return [tariff for tariff in bill.tariff.parts if tariff.format.startswith("OCPI")]


def charging_period(period: Period, tariff: Tariff) -> dict[str, Any]:
    """One ChargingPeriod. Power and current are given where the tariff depends on them."""
    length = _hours(period.end_ms - period.start_ms)
    if period.kind == PeriodKind.RESERVED:
        dimensions = [("RESERVATION_TIME", length)]
    else:
        dimensions = [("PARKING_TIME" if period.kind == PeriodKind.PARKING else "TIME", length)]
        if period.energy_uwh or period.kind == PeriodKind.CHARGING:
            dimensions.append(("ENERGY", to_decimal(period.energy_uwh, UWH_PER_KWH, NUMBER_DIGITS)))
    ranges = (
        ("MIN_POWER", period.low_power_mw, 1_000_000),
        ("MAX_POWER", period.high_power_mw, 1_000_000),
        ("MIN_CURRENT", period.low_current_ma, 1_000),
        ("MAX_CURRENT", period.high_current_ma, 1_000),
    )
    dimensions += [(name, to_decimal(value, unit, NUMBER_DIGITS)) for name, value, unit in ranges if value != NONE]
    return {
        "start_date_time": timestamp(period.start_ms),
        "dimensions": [{"type": name, "volume": volume} for name, volume in dimensions],
        "tariff_id": tariff.tariff_id,
    }


@lru_cache(maxsize=1024)
def timestamp(at_ms: int) -> str:
    """An OCPI DateTime: UTC, fractions only where there are some. A bill says begin and end of its session often."""
    moment = datetime.fromtimestamp(at_ms // 1000, UTC).isoformat()[:_TO_THE_SECOND]
    fraction = f".{at_ms % 1000:03}" if at_ms % 1000 else ""
    return f"{moment}{fraction}Z"


def _price(amount: Amount, taxes: Sequence[TaxAmount], bill: Bill, version: OcpiVersion) -> dict[str, Any]:
    if version is OcpiVersion.V221:
        price: dict[str, Any] = {"excl_vat": amount.excl_tax}
        if Note.TAX_UNKNOWN not in bill.notes or bill.tariff.tax_included is not TaxIncluded.NO:
            price["incl_vat"] = amount.incl_tax
        return price
    price = {"before_taxes": amount.excl_tax}
    if taxes:
        price["taxes"] = [
            {"name": tax.name, "amount": tax.amount} | ({} if tax.percent is None else {"percentage": tax.percent})
            for tax in taxes
        ]
    return price


def _cost(amounts: Sequence[Amount], bill: Bill, version: OcpiVersion) -> dict[str, Any]:
    excl = rounded(sum((amount.excl_tax for amount in amounts), Decimal(0)), NUMBER_DIGITS)
    incl = rounded(sum((amount.incl_tax for amount in amounts), Decimal(0)), NUMBER_DIGITS)
    taxes = (TaxAmount("VAT", None, incl - excl),) if incl != excl else ()
    return _price(Amount(excl, incl), taxes, bill, version)


def _hours(length_ms: int) -> Decimal:
    return to_decimal(length_ms, MS_PER_HOUR, NUMBER_DIGITS)
