"""Reads OCPP 2.1 TariffType objects. Spec: OCPP 2.1 Part 2, I07-I12 and 2.x data types.

Prices are before tax; every field has its own taxes, added in stacks. Fixed fees are judged once, at the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from busbar.pricing.jsontext import parse_json
from busbar.pricing.money import to_decimal
from busbar.pricing.problems import Problem, TariffError
from busbar.pricing.reader import MAX_COMPONENTS, Reader
from busbar.pricing.tariff import (
    Component,
    Conditions,
    Dimension,
    Limit,
    Quantity,
    Tariff,
    TaxIncluded,
    TaxRate,
    Unit,
    tax_factor,
)

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
FIELDS = {
    "energy": (Dimension.ENERGY, "priceKwh", Unit.KWH),
    "chargingTime": (Dimension.TIME, "priceMinute", Unit.MINUTE),
    "idleTime": (Dimension.PARKING_TIME, "priceMinute", Unit.MINUTE),
    "fixedFee": (Dimension.FLAT, "priceFixed", Unit.SESSION),
    "reservationTime": (Dimension.RESERVATION_TIME, "priceMinute", Unit.MINUTE),
    "reservationFixed": (Dimension.RESERVATION_FLAT, "priceFixed", Unit.SESSION),
}
"""The fields of a TariffType: what each prices, by which key, per which unit."""

_BOUNDS = {
    "Energy": (Quantity.ENERGY, 6),
    "Current": (Quantity.CURRENT, 3),
    "Power": (Quantity.POWER, 3),
    "Time": (Quantity.DURATION, 3),
    "ChargingTime": (Quantity.CHARGING, 3),
    "IdleTime": (Quantity.IDLE, 3),
}
"""Quantities of conditions and the digits from their unit (Wh, A, W, s) to the engine's."""
_FIXED_CONDITIONS = {
    "startTimeOfDay",
    "endTimeOfDay",
    "dayOfWeek",
    "validFromDate",
    "validToDate",
    "evseKind",
    "paymentBrand",
    "paymentRecognition",
    "customData",
}
_CONDITIONS = (_FIXED_CONDITIONS - {"paymentBrand", "paymentRecognition"}) | {
    f"{side}{name}" for side in ("min", "max") for name in _BOUNDS
}
_TARIFF_FIELDS = FIELDS.keys() | {
    "tariffId",
    "currency",
    "description",
    "validFrom",
    "minCost",
    "maxCost",
    "customData",
}


def parse_ocpp_tariff(data: Mapping[str, Any] | str | bytes) -> Tariff:
    """Read and validate a TariffType.

    Args:
        data: The JSON text, or what `parse_json` made of it.

    Raises:
        TariffError: With every reason why it cannot be priced.
    """
    source = parse_json(data) if isinstance(data, str | bytes) else data
    if not isinstance(source, Mapping):
        raise TariffError([Problem("$", "is not an object")])
    return _OcppReader().tariff(source)


class _OcppReader(Reader):
    def tariff(self, source: Mapping[str, Any]) -> Tariff:
        tariff_id = self.text(source, "tariffId", "$", 60)
        currency = self.currency(source, "$")
        self._known(source, _TARIFF_FIELDS, "$")
        components: list[Component] = []
        for field in FIELDS:
            self._field(source, field, components)
        minimum = self._limit(source, "minCost")
        maximum = self._limit(source, "maxCost")
        if minimum is not None and maximum is not None:
            for side, low, high in (("exclTax", minimum.excl, maximum.excl), ("inclTax", minimum.incl, maximum.incl)):
                if low is not None and high is not None and low > high:
                    self.fail(f"$.maxCost.{side}", "is below minCost")
        valid_from = self.instant(source, "validFrom", "$")
        self.check_source(source)
        if self.problems:
            raise TariffError(self.problems)
        if not components:
            self.warn("$", "has no price: all is free")
        return Tariff(
            tariff_id=str(tariff_id),
            format="OCPP 2.1",
            currency=str(currency),
            tax_included=TaxIncluded.NO,
            components=tuple(components),
            source=source,
            minimum=minimum,
            maximum=maximum,
            valid_from_ms=valid_from,
            fixed_at_start=True,
            warnings=tuple(self.warnings),
        )

    def _known(self, item: Mapping[str, Any], names: set[str], path: str) -> None:
        for name, value in item.items():
            if name not in names and value is not None:
                self.fail(f"{path}.{name}", "is not a field that can be priced")

    def _field(self, source: Mapping[str, Any], field: str, components: list[Component]) -> None:
        item = self.mapping(source, field, "$")
        if item is None:
            return
        dimension, key, unit = FIELDS[field]
        path = f"$.{field}"
        taxes = self._taxes(item, path)
        for place, price_item in enumerate(self.items(item, "prices", path)):
            where = f"{path}.prices[{place}]"
            if not isinstance(price_item, Mapping):
                self.fail(where, "is not an object")
                continue
            price = self.number(price_item, key, where, required=True, signed=True)
            conditions = self._conditions(price_item, where, fixed=unit is Unit.SESSION)
            if price is None:
                continue
            if price < 0:
                self.warn(f"{where}.{key}", "is negative: the driver is paid")
            if len(components) == MAX_COMPONENTS:
                self.fail(path, f"the tariff holds more than {MAX_COMPONENTS} prices")
                return
            components.append(
                Component(
                    index=len(components),
                    element=place,
                    path=where,
                    dimension=dimension,
                    price=price,
                    unit=unit,
                    taxes=taxes,
                    conditions=conditions,
                )
            )

    def _taxes(self, item: Mapping[str, Any], path: str) -> tuple[TaxRate, ...]:
        if item.get("taxRates") is None:
            return ()
        found = []
        for place, rate in enumerate(self.items(item, "taxRates", path)):
            where = f"{path}.taxRates[{place}]"
            if not isinstance(rate, Mapping):
                self.fail(where, "is not an object")
                continue
            name = self.text(rate, "type", where, 20)
            percent = self.number(rate, "tax", where, required=True)
            stack = self.whole(rate, "stack", where, longest=2)
            if percent is not None and percent > 100:
                self.fail(f"{where}.tax", f"{percent} is more than 100 %")
            if name is not None and percent is not None:
                found.append(TaxRate(name, percent, stack or 0))
        if len(found) > 5:
            self.fail(f"{path}.taxRates", "holds more than 5 rates")
        return tuple(found)

    def _conditions(self, price_item: Mapping[str, Any], path: str, *, fixed: bool) -> Conditions:
        item = self.mapping(price_item, "conditions", path)
        if item is None:
            return Conditions()
        path = f"{path}.conditions"
        self._known(item, _FIXED_CONDITIONS if fixed else _CONDITIONS, path)
        start, end = self.window(item, "startTimeOfDay", "endTimeOfDay", path)
        first, until = self.days(item, "validFromDate", "validToDate", path)
        bounds = [
            self.bound(item, (f"min{name}", f"max{name}"), path, quantity, digits, signed=True)
            for name, (quantity, digits) in _BOUNDS.items()
            if not fixed
        ]
        for bound in bounds:
            if bound is not None and min(bound.minimum or 0, bound.maximum or 0) < 0:
                self.warn(path, "speaks of discharging, which is not priced: the price never applies")
        return Conditions(
            start_minute=start,
            end_minute=end,
            days=self.weekdays(item, "dayOfWeek", path, WEEKDAYS),
            from_day=first,
            until_day=until,
            bounds=tuple(bound for bound in bounds if bound is not None),
            evse_kind=self.choice(item, "evseKind", path, ("AC", "DC")),
            payment_brand=None if item.get("paymentBrand") is None else self.text(item, "paymentBrand", path, 20),
            payment_recognition=(
                None if item.get("paymentRecognition") is None else self.text(item, "paymentRecognition", path, 20)
            ),
        )

    def _limit(self, source: Mapping[str, Any], key: str) -> Limit | None:
        item = self.mapping(source, key, "$")
        if item is None:
            return None
        path = f"$.{key}"
        excl, incl = self.number(item, "exclTax", path), self.number(item, "inclTax", path)
        taxes = self._taxes(item, path)
        if excl is None and incl is None:
            if not any(problem.path.startswith(path) for problem in self.problems):
                self.fail(path, "has neither exclTax nor inclTax")
            return None
        if excl is not None and incl is not None and incl < excl:
            self.fail(f"{path}.inclTax", "is below exclTax")
        factor = tax_factor(taxes)
        if taxes and incl is None and excl is not None:
            incl = _decimal(Fraction(excl) * factor)
        elif taxes and excl is None and incl is not None:
            excl = _decimal(Fraction(incl) / factor)
        return Limit(excl, incl)


def _decimal(amount: Fraction) -> Decimal:
    return to_decimal(amount.numerator, amount.denominator, 20)
