"""An OCPI 2.3.0 CDR in the words of 2.2.1, for parties that speak no other. Pure.

2.2.1 has prices as `excl_vat` and `incl_vat` where 2.3.0 has `before_taxes` and a list of taxes, its tariffs are always
before tax, and it knows fewer kinds of tokens and connectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from busbar.pricing.money import to_decimal
from busbar.pricing.ocpi_cdr import NUMBER_DIGITS

_TOTALS = ("total_cost", *(f"total_{name}_cost" for name in ("fixed", "energy", "time", "parking", "reservation")))
_LIMITS = ("min_price", "max_price")


def cdr_in_2_2_1(cdr: Mapping[str, Any], *, tax_known: bool = True) -> dict[str, Any]:
    """The CDR for a party of OCPI 2.2.1.

    Args:
        cdr: Of 2.3.0, as `parse_json` reads it.
        tax_known: Whether a price without taxes is one that nothing is due on, so that `incl_vat` can be told.
    """
    converted = dict(cdr)
    for name in _TOTALS:
        if name in cdr:
            converted[name] = _price(cdr[name], tax_known=tax_known)
    if isinstance(cdr.get("tariffs"), Sequence):
        converted["tariffs"] = [_tariff(tariff) for tariff in cdr["tariffs"]]
    token = cdr.get("cdr_token")
    if isinstance(token, Mapping) and token.get("type") == "EMAID":
        converted["cdr_token"] = {**token, "type": "OTHER"}
    return converted


def _price(price: Mapping[str, Any], *, tax_known: bool) -> dict[str, Any]:
    if "before_taxes" not in price:
        return dict(price)
    before, taxes = price["before_taxes"], price.get("taxes") or ()
    converted = {"excl_vat": before}
    if taxes or tax_known:
        converted["incl_vat"] = sum((Decimal(tax["amount"]) for tax in taxes), Decimal(before))
    return converted


def _tariff(tariff: Mapping[str, Any]) -> dict[str, Any]:
    converted = {name: value for name, value in tariff.items() if name != "tax_included"}
    for name in _LIMITS:
        limit = tariff.get(name)
        if isinstance(limit, Mapping) and "before_taxes" in limit:
            converted[name] = {"excl_vat": limit["before_taxes"]}
            if "after_taxes" in limit:
                converted[name]["incl_vat"] = limit["after_taxes"]
    if tariff.get("tax_included") == "YES":
        converted["elements"] = [
            {**element, "price_components": [_before_tax(component) for component in element["price_components"]]}
            for element in tariff["elements"]
        ]
    return converted


def _before_tax(component: Mapping[str, Any]) -> dict[str, Any]:
    """A price that includes VAT, without it: to the four digits that OCPI has."""
    price = Fraction(Decimal(component["price"])) / (1 + Fraction(Decimal(component.get("vat") or 0)) / 100)
    return {**component, "price": to_decimal(price.numerator, price.denominator, NUMBER_DIGITS)}
