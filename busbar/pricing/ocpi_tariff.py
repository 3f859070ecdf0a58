"""Reads OCPI 2.2.1 and 2.3.0 Tariff objects. Spec: OCPI mod_tariffs.

A tariff that says something which would not be priced as it reads (an unknown component or restriction, bounds that
contradict each other) is refused: ignoring it would bill the driver something else than what is published.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from busbar.pricing.clock import zone_problem
from busbar.pricing.jsontext import parse_json
from busbar.pricing.problems import Problem, TariffError
from busbar.pricing.reader import MAX_COMPONENTS, Reader
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
    TaxRate,
    Unit,
)

WEEKDAYS = ("MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY")
_BOUNDS = ("kwh", "current", "power", "duration")
RESTRICTIONS = {"start_time", "end_time", "start_date", "end_date", "day_of_week", "reservation"} | {
    f"{side}_{name}" for side in ("min", "max") for name in _BOUNDS
}
_UNITS = {"ENERGY": Unit.KWH, "TIME": Unit.HOUR, "PARKING_TIME": Unit.HOUR, "FLAT": Unit.SESSION}
_STEPS = {"ENERGY": UWH_PER_WH, "TIME": MS_PER_SECOND, "PARKING_TIME": MS_PER_SECOND, "FLAT": 0}
_RESERVED = {
    ("RESERVATION", "TIME"): Dimension.RESERVATION_TIME,
    ("RESERVATION", "FLAT"): Dimension.RESERVATION_FLAT,
    ("RESERVATION_EXPIRES", "TIME"): Dimension.EXPIRED_TIME,
    ("RESERVATION_EXPIRES", "FLAT"): Dimension.EXPIRED_FLAT,
}


def parse_ocpi_tariff(data: Mapping[str, Any] | str | bytes, *, time_zone: str | None = None) -> Tariff:
    """Read and validate an OCPI tariff.

    Args:
        data: The JSON text, or what `parse_json` made of it.
        time_zone: The location's IANA zone, to have it checked along with the tariff.

    Raises:
        TariffError: With every reason why it cannot be priced.
    """
    source = parse_json(data) if isinstance(data, str | bytes) else data
    if not isinstance(source, Mapping):
        raise TariffError([Problem("$", "is not an object")])
    return _OcpiReader().tariff(source, time_zone)


class _OcpiReader(Reader):
    def tariff(self, source: Mapping[str, Any], time_zone: str | None) -> Tariff:
        tariff_id = self.text(source, "id", "$", 36)
        currency = self.currency(source, "$")
        tax_included = self.choice(source, "tax_included", "$", [member.value for member in TaxIncluded])
        tax = TaxIncluded(tax_included or "NO")
        if time_zone is not None and (problem := zone_problem(time_zone)):
            self.fail("time_zone", problem)
        components = self._components(source, tax)
        minimum = self._limit(source, "min_price", tax)
        maximum = self._limit(source, "max_price", tax)
        for side, low, high in self._sides(minimum, maximum):
            if low is not None and high is not None and low > high:
                self.fail("$.max_price", f"is below min_price {side}")
        valid_from = self.instant(source, "start_date_time", "$")
        valid_until = self.instant(source, "end_date_time", "$")
        if valid_from is not None and valid_until is not None and valid_from >= valid_until:
            self.fail("$.end_date_time", "is not after start_date_time: the tariff would never be valid")
        self.check_source(source)
        if self.problems:
            raise TariffError(self.problems)
        self._warn_about_gaps(components)
        return Tariff(
            tariff_id=str(tariff_id),
            format="OCPI 2.3.0" if "tax_included" in source else "OCPI 2.2.1",
            currency=str(currency),
            tax_included=tax,
            components=tuple(components),
            source=source,
            minimum=minimum,
            maximum=maximum,
            valid_from_ms=valid_from,
            valid_until_ms=valid_until,
            warnings=tuple(self.warnings),
        )

    def _components(self, source: Mapping[str, Any], tax: TaxIncluded) -> list[Component]:
        found: list[Component] = []
        for number, element in enumerate(self.items(source, "elements", "$")):
            path = f"$.elements[{number}]"
            if not isinstance(element, Mapping):
                self.fail(path, "is not an object")
                continue
            conditions, reservation = self._restrictions(element, path)
            types: set[str] = set()
            for place, item in enumerate(self.items(element, "price_components", path)):
                where = f"{path}.price_components[{place}]"
                if not isinstance(item, Mapping):
                    self.fail(where, "is not an object")
                    continue
                component = self._component(item, where, tax, conditions, reservation, (len(found), number))
                if component is None:
                    continue
                if item["type"] in types:
                    self.fail(f"{where}.type", f"{item['type']} is given twice in one element")
                types.add(item["type"])
                found.append(component)
                if len(found) > MAX_COMPONENTS:
                    self.fail("$.elements", f"hold more than {MAX_COMPONENTS} price components")
                    return found
        return found

    def _component(
        self,
        item: Mapping[str, Any],
        path: str,
        tax: TaxIncluded,
        conditions: Conditions,
        reservation: str | None,
        place: tuple[int, int],
    ) -> Component | None:
        if item.get("type") is None:
            self.fail(f"{path}.type", "is missing")
        kind = self.choice(item, "type", path, tuple(_UNITS))
        price = self.number(item, "price", path, required=True, signed=True)
        if price is not None and price < 0:
            self.warn(f"{path}.price", "is negative: the driver is paid")
        step = self.whole(item, "step_size", path)
        if item.get("step_size") is None:
            self.warn(f"{path}.step_size", "is missing: 1 is taken")
            step = 1
        taxes = self._vat(item, path, tax)
        if kind is None or price is None or step is None:
            return None
        dimension = Dimension(kind)
        if reservation is not None:
            if (reservation, kind) not in _RESERVED:
                self.fail(f"{path}.type", f"{kind} cannot price a reservation: only FLAT and TIME can")
                return None
            dimension = _RESERVED[reservation, kind]
        return Component(
            index=place[0],
            element=place[1],
            path=path,
            dimension=dimension,
            price=price,
            unit=_UNITS[kind],
            step=step * _STEPS[kind],
            taxes=taxes,
            conditions=conditions,
        )

    def _vat(self, item: Mapping[str, Any], path: str, tax: TaxIncluded) -> tuple[TaxRate, ...]:
        vat = self.number(item, "vat", path)
        if vat is None:
            return ()
        if vat > 100:
            self.fail(f"{path}.vat", f"{vat} is more than 100 %")
        if tax is TaxIncluded.NOT_APPLICABLE:
            if vat:
                self.fail(f"{path}.vat", "is given although tax_included is N/A")
            return ()
        return (TaxRate("VAT", vat),)

    def _restrictions(self, element: Mapping[str, Any], path: str) -> tuple[Conditions, str | None]:
        item = self.mapping(element, "restrictions", path)
        if item is None:
            return Conditions(), None
        path = f"{path}.restrictions"
        for name, value in item.items():
            if name not in RESTRICTIONS and value is not None:
                self.fail(f"{path}.{name}", "is not a restriction that can be priced")
        start, end = self.window(item, "start_time", "end_time", path)
        first, until = self.days(item, "start_date", "end_date", path)
        bounds = (
            self.bound(item, ("min_kwh", "max_kwh"), path, Quantity.ENERGY, 9),
            self.bound(item, ("min_duration", "max_duration"), path, Quantity.DURATION, 3),
            self.bound(item, ("min_current", "max_current"), path, Quantity.CURRENT, 3),
            self.bound(item, ("min_power", "max_power"), path, Quantity.POWER, 6),
        )
        for key in ("min_duration", "max_duration"):
            self.whole(item, key, path)
        reservation = self.choice(item, "reservation", path, ("RESERVATION", "RESERVATION_EXPIRES"))
        conditions = Conditions(
            start_minute=start,
            end_minute=end,
            days=self.weekdays(item, "day_of_week", path, WEEKDAYS),
            from_day=first,
            until_day=until,
            bounds=tuple(bound for bound in bounds if bound is not None),
        )
        if reservation and any(bound.quantity is not Quantity.DURATION for bound in conditions.bounds):
            self.fail(path, "a reservation has no energy, current or power: the price would never or always apply")
        return conditions, reservation

    def _limit(self, source: Mapping[str, Any], key: str, tax: TaxIncluded) -> Limit | None:
        item = self.mapping(source, key, "$")
        if item is None:
            return None
        path = f"$.{key}"
        old = "before_taxes" not in item and "excl_vat" in item
        names = ("excl_vat", "incl_vat") if old else ("before_taxes", "after_taxes")
        excl = self.number(item, names[0], path, required=True)
        incl = self.number(item, names[1], path)
        if excl is None:
            return None
        if incl is not None and incl < excl:
            self.fail(f"{path}.{names[1]}", f"is below {names[0]}")
        if tax is TaxIncluded.NOT_APPLICABLE and incl is not None and incl != excl:
            self.fail(f"{path}.{names[1]}", f"differs from {names[0]} although tax_included is N/A")
        return Limit(excl, incl)

    @staticmethod
    def _sides(minimum: Limit | None, maximum: Limit | None) -> list[tuple[str, Any, Any]]:
        if minimum is None or maximum is None:
            return []
        return [
            ("before taxes", minimum.excl, maximum.excl),
            ("after taxes", minimum.incl, maximum.incl),
        ]

    def _warn_about_gaps(self, components: list[Component]) -> None:
        """Say which components can never apply, and which dimensions may be left without a price."""
        for dimension in Dimension:
            covered = False
            for component in components:
                if component.dimension is not dimension:
                    continue
                if covered:
                    self.warn(component.path, f"never applies: an earlier {dimension} has no restriction")
                covered = covered or component.conditions.always
            if not covered and any(component.dimension is dimension for component in components):
                self.warn("$.elements", f"no unrestricted {dimension} comes last: at times it is free")
