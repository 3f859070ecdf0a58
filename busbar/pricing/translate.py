"""Says an OCPI tariff in OCPP 2.1's TariffType, and what cannot be said in it.

A station that prices by the translation and the engine that prices by the original agree where no finding is `lossy`
and step sizes are at most one Wh or second. With a lossy finding the tariff is better left with the CSMS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from busbar.pricing.money import RoundingMode, decimal_of, round_ratio, to_decimal
from busbar.pricing.ocpp_tariff import FIELDS, WEEKDAYS
from busbar.pricing.tariff import (
    MS_PER_SECOND,
    UWH_PER_WH,
    Component,
    Conditions,
    Dimension,
    Limit,
    Quantity,
    Tariff,
    TaxIncluded,
    Unit,
    tax_factor,
)

PRICE_DIGITS = 10
"""Fraction digits of a price that does not end, such as 1.00 an hour in minutes."""
_FIELD_OF = {dimension: (field, key) for field, (dimension, key, _) in FIELDS.items()}
_BOUND_NAMES = {
    Quantity.ENERGY: ("Energy", 6),
    Quantity.CURRENT: ("Current", 3),
    Quantity.POWER: ("Power", 3),
    Quantity.DURATION: ("Time", 3),
    Quantity.CHARGING: ("ChargingTime", 3),
    Quantity.IDLE: ("IdleTime", 3),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that the translation does not say as the original does."""

    path: str
    """In the original."""
    reason: str
    lossy: bool
    """Whether sessions can come to another price."""


@dataclass(frozen=True, slots=True)
class Translation:
    """A TariffType, and what was lost on the way."""

    tariff: Mapping[str, Any]
    findings: tuple[Finding, ...]

    @property
    def exact(self) -> bool:
        """Whether every session comes to the same price."""
        return not any(finding.lossy for finding in self.findings)


def to_tariff_type(
    tariff: Tariff,
    *,
    tariff_id: str | None = None,
    max_elements: int | None = None,
    conditions_supported: bool = True,
) -> Translation:
    """Translate a tariff.

    Args:
        tariff: Read from OCPI.
        tariff_id: Of the TariffType; by default the tariff's id and the fingerprint of its content, because one
            tariffId never changes its content (I08.FR.08).
        max_elements: The station's `TariffCostCtrlr.MaxElements[Tariff]`: no field may have more prices.
        conditions_supported: The station's `TariffCostCtrlr.ConditionsSupported[Tariff]`.
    """
    if not tariff.format.startswith("OCPI"):
        raise ValueError(f"an {tariff.format} tariff needs no translation")
    return _Translator(tariff).translate(tariff_id, max_elements, conditions_supported)


class _Translator:
    def __init__(self, tariff: Tariff) -> None:
        self._tariff = tariff
        self._findings: list[Finding] = []

    def translate(self, tariff_id: str | None, max_elements: int | None, conditions_supported: bool) -> Translation:
        tariff = self._tariff
        result: dict[str, Any] = {
            "tariffId": tariff_id or f"{tariff.tariff_id[:43]}-{tariff.fingerprint}",
            "currency": tariff.currency,
        }
        description = self._description()
        if description:
            result["description"] = description
        if tariff.valid_from_ms is not None:
            result["validFrom"] = tariff.source.get("start_date_time")
        for dimension, (field, key) in _FIELD_OF.items():
            components = tariff.of(dimension)
            if components:
                result[field] = self._field(components, key)
                self._check_station(field, result[field], max_elements, conditions_supported)
        for dimension in (Dimension.EXPIRED_TIME, Dimension.EXPIRED_FLAT):
            for component in tariff.of(dimension):
                self._lose(component.path, "OCPP has no price for a reservation that expires")
        for name, limit in (("minCost", tariff.minimum), ("maxCost", tariff.maximum)):
            if limit is not None:
                result[name] = self._limit(limit)
        if tariff.valid_until_ms is not None:
            self._remark("$.end_date_time", "OCPP has no end of validity: clear the tariff from the station then")
        if any(c.conditions != Conditions() and _by_clock(c.conditions) for c in tariff.components):
            self._remark("$", "times are the station's local time: its ClockCtrlr must agree with the location's zone")
        return Translation(result, tuple(self._findings))

    def _lose(self, path: str, reason: str) -> None:
        self._findings.append(Finding(path, reason, lossy=True))

    def _remark(self, path: str, reason: str) -> None:
        self._findings.append(Finding(path, reason, lossy=False))

    def _description(self) -> list[dict[str, str]]:
        texts = self._tariff.source.get("tariff_alt_text")
        if not isinstance(texts, Sequence):
            return []
        found = [
            {"format": "UTF8", "language": str(item.get("language", ""))[:8], "content": str(item["text"])[:1024]}
            for item in texts
            if isinstance(item, Mapping) and item.get("text")
        ]
        return found[:10]

    def _field(self, components: Sequence[Component], key: str) -> dict[str, Any]:
        field: dict[str, Any] = {"prices": [self._price(component, key) for component in components]}
        taxes = {component.taxes for component in components if component.price}
        if len(taxes) > 1:
            self._lose(components[0].path, "OCPP has one tax for all prices of a kind, and these have several")
        rates = components[0].taxes if not taxes else next(c.taxes for c in components if c.price)
        if rates:
            field["taxRates"] = [{"type": rate.name, "tax": rate.percent} for rate in rates]
        return field

    def _price(self, component: Component, key: str) -> dict[str, Any]:
        self._check_step(component)
        price = Fraction(component.price)
        if self._tariff.tax_included is TaxIncluded.YES:
            price /= tax_factor(component.taxes)
        if component.unit is Unit.HOUR:
            price /= 60
        shown = to_decimal(price.numerator, price.denominator, PRICE_DIGITS, RoundingMode.HALF_EVEN)
        if Fraction(shown) != price:
            self._lose(f"{component.path}.price", f"does not end as {key} before tax: {PRICE_DIGITS} digits are sent")
        item: dict[str, Any] = {key: _plain(shown)}
        conditions = self._conditions(component)
        if conditions:
            item["conditions"] = conditions
        return item

    def _check_step(self, component: Component) -> None:
        if component.dimension in (Dimension.FLAT, Dimension.RESERVATION_FLAT):
            return
        one = UWH_PER_WH if component.dimension is Dimension.ENERGY else MS_PER_SECOND
        path = f"{component.path}.step_size"
        if component.step > one:
            self._lose(path, "OCPP has no step size")
        elif component.step == one:
            self._remark(path, "OCPP does not fill up to whole Wh and seconds")

    def _conditions(self, component: Component) -> dict[str, Any]:
        conditions = component.conditions
        found: dict[str, Any] = {}
        if not conditions.whole_day:
            found["startTimeOfDay"] = _clock_text(conditions.start_minute)
            found["endTimeOfDay"] = _clock_text(conditions.end_minute)
        if conditions.days is not None:
            found["dayOfWeek"] = [WEEKDAYS[day] for day in sorted(conditions.days)]
        restrictions = self._tariff.source["elements"][component.element].get("restrictions") or {}
        for name, key in (("validFromDate", "start_date"), ("validToDate", "end_date")):
            if restrictions.get(key) is not None:
                found[name] = restrictions[key]
        fixed = component.unit is Unit.SESSION
        if fixed and found:
            self._lose(component.path, "OCPP judges a fixed fee at the start only, OCPI when it becomes active")
        if component.dimension is Dimension.RESERVATION_TIME and conditions.bounds:
            self._lose(component.path, "OCPP's durations are those of the transaction, not of its reservation")
        for bound in conditions.bounds:
            if fixed:
                self._lose(component.path, "OCPP's fixed fees do not depend on energy, current, power or duration")
                break
            name, digits = _BOUND_NAMES[bound.quantity]
            for side, value in (("min", bound.minimum), ("max", bound.maximum)):
                if value is not None:
                    found[f"{side}{name}"] = _plain(decimal_of(value, digits))
        return found

    def _check_station(
        self, field: str, item: Mapping[str, Any], max_elements: int | None, conditions_supported: bool
    ) -> None:
        prices = item["prices"]
        if max_elements is not None and len(prices) > max_elements:
            self._lose(
                "$.elements", f"the station takes {max_elements} prices for {field}, and there are {len(prices)}"
            )
        if not conditions_supported and any("conditions" in price for price in prices):
            self._lose("$.elements", f"the station takes no conditions, and {field} has some")

    @staticmethod
    def _limit(limit: Limit) -> dict[str, Decimal]:
        found = {}
        if limit.excl is not None:
            found["exclTax"] = limit.excl
        if limit.incl is not None:
            found["inclTax"] = limit.incl
        return found


def _by_clock(conditions: Conditions) -> bool:
    return not conditions.whole_day or conditions.by_date


def _clock_text(minute: int) -> str:
    return f"{minute // 60 % 24:02}:{minute % 60:02}"


def _plain(value: Decimal) -> Decimal | int:
    """Without trailing zeros; a whole number as such."""
    numerator, denominator = value.as_integer_ratio()
    if denominator == 1:
        return numerator
    digits = next(d for d in range(1, PRICE_DIGITS + 1) if (numerator * 10**d) % denominator == 0)
    return decimal_of(round_ratio(numerator * 10**digits, denominator, RoundingMode.HALF_UP), digits)
