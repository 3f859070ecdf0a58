"""OCPI tariffs said in OCPP 2.1, and what cannot be said."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busbar.pricing.engine import Pricer
from busbar.pricing.facts import reserved
from busbar.pricing.jsontext import serialize_json
from busbar.pricing.ocpi_tariff import parse_ocpi_tariff
from busbar.pricing.ocpp_tariff import parse_ocpp_tariff
from busbar.pricing.translate import Translation, to_tariff_type
from tests.unit.pricing.builders import (
    CHARGING,
    MINUTE_MS,
    component,
    element,
    exactly,
    limit,
    ms,
    session,
    tariff,
    tariff_json,
)
from tests.unit.pricing.ocpp_schema import schema
from tests.unit.pricing.oracle import Stretch
from tests.unit.pricing.strategies import ZONES, facts_of, starts, stretches, tariffs

GOOD = component("ENERGY", "0.30", "19", 0)
TARIFF_TYPE = schema("SetDefaultTariffRequest", "TariffType")


def assert_valid(translation: Translation) -> None:
    TARIFF_TYPE.validate(_floats(translation.tariff))


def _floats(value: Any) -> Any:
    """The validator wants what a JSON parser gives."""
    return json.loads(serialize_json(value))


def lost(*elements: dict[str, Any], **fields: Any) -> list[tuple[str, str]]:
    translation = to_tariff_type(tariff(*elements, **fields))
    assert_valid(translation)
    assert translation.exact is not any(finding.lossy for finding in translation.findings)
    return [(finding.path, finding.reason) for finding in translation.findings if finding.lossy]


def test_every_restriction_has_its_word() -> None:
    translation = to_tariff_type(
        tariff(
            element(
                GOOD,
                start_time="22:00",
                end_time="06:00",
                start_date="2026-03-01",
                end_date="2026-04-01",
                min_kwh=Decimal("1.5"),
                max_kwh=20,
                min_current=6,
                max_current=32,
                min_power=Decimal("3.7"),
                max_power=22,
                min_duration=60,
                max_duration=7200,
                day_of_week=["SUNDAY", "MONDAY"],
            ),
            element(component("TIME", "3.00", "7", 0), component("FLAT", "1.00", "0", 0)),
            element(component("PARKING_TIME", "6.00", step=0)),
            element(component("TIME", "1.20", step=0), component("FLAT", "2.00"), reservation="RESERVATION"),
            min_price=limit("1.00"),
            max_price=limit("50.00", "60.00"),
            start_date_time="2026-01-01T00:00:00Z",
            tariff_alt_text=[{"language": "de", "text": "30 Cent die kWh"}],
        ),
        tariff_id="X-1",
    )
    assert translation.tariff == {
        "tariffId": "X-1",
        "currency": "EUR",
        "description": [{"format": "UTF8", "language": "de", "content": "30 Cent die kWh"}],
        "validFrom": "2026-01-01T00:00:00Z",
        "energy": {
            "prices": [
                {
                    "priceKwh": Decimal("0.3"),
                    "conditions": {
                        "startTimeOfDay": "22:00",
                        "endTimeOfDay": "06:00",
                        "dayOfWeek": ["Monday", "Sunday"],
                        "validFromDate": "2026-03-01",
                        "validToDate": "2026-04-01",
                        "minEnergy": 1500,
                        "maxEnergy": 20_000,
                        "minTime": 60,
                        "maxTime": 7200,
                        "minCurrent": 6,
                        "maxCurrent": 32,
                        "minPower": 3700,
                        "maxPower": 22_000,
                    },
                }
            ],
            "taxRates": [{"type": "VAT", "tax": Decimal(19)}],
        },
        "chargingTime": {
            "prices": [{"priceMinute": Decimal("0.05")}],
            "taxRates": [{"type": "VAT", "tax": Decimal(7)}],
        },
        "fixedFee": {"prices": [{"priceFixed": 1}], "taxRates": [{"type": "VAT", "tax": Decimal(0)}]},
        "idleTime": {"prices": [{"priceMinute": Decimal("0.1")}]},
        "reservationTime": {"prices": [{"priceMinute": Decimal("0.02")}]},
        "reservationFixed": {"prices": [{"priceFixed": 2}]},
        "minCost": {"exclTax": Decimal("1.00")},
        "maxCost": {"exclTax": Decimal("50.00"), "inclTax": Decimal("60.00")},
    }
    assert translation.exact
    assert_valid(translation)


@pytest.mark.parametrize(
    ("elements", "path", "reason"),
    [
        (
            [element(component("ENERGY", "1", step=2))],
            "$.elements[0].price_components[0].step_size",
            "OCPP has no step size",
        ),
        (
            [element(component("TIME", "1.00", step=0))],
            "$.elements[0].price_components[0].price",
            "does not end as priceMinute before tax: 10 digits are sent",
        ),
        (
            [element(component("TIME", "0.6", step=0), reservation="RESERVATION_EXPIRES")],
            "$.elements[0].price_components[0]",
            "OCPP has no price for a reservation that expires",
        ),
        (
            [element(component("ENERGY", "1", "19", 0), max_kwh=1), element(component("ENERGY", "2", "7", 0))],
            "$.elements[0].price_components[0]",
            "OCPP has one tax for all prices of a kind, and these have several",
        ),
        (
            [element(component("FLAT", "1"), min_duration=60)],
            "$.elements[0].price_components[0]",
            "OCPP's fixed fees do not depend on energy, current, power or duration",
        ),
        (
            [element(component("FLAT", "1"), start_time="08:00")],
            "$.elements[0].price_components[0]",
            "OCPP judges a fixed fee at the start only, OCPI when it becomes active",
        ),
        (
            [element(component("TIME", "0.6", step=0), reservation="RESERVATION", min_duration=60)],
            "$.elements[0].price_components[0]",
            "OCPP's durations are those of the transaction, not of its reservation",
        ),
    ],
)
def test_what_cannot_be_said_is_a_finding(elements: list[dict[str, Any]], path: str, reason: str) -> None:
    assert lost(*elements) == [(path, reason)]


def test_gross_prices_become_net_ones_as_far_as_they_end() -> None:
    assert lost(element(component("ENERGY", "1.20", "20", 0)), tax_included="YES") == []
    assert len(lost(element(component("ENERGY", "1.20", "19", 0)), tax_included="YES")) == 1


def test_what_a_station_cannot_take_is_a_finding() -> None:
    two = tariff(element(GOOD, max_kwh=5), element(GOOD))
    assert to_tariff_type(two, max_elements=2, conditions_supported=True).exact
    assert [f.reason for f in to_tariff_type(two, max_elements=1).findings] == [
        "the station takes 1 prices for energy, and there are 2"
    ]
    assert [f.reason for f in to_tariff_type(two, conditions_supported=False).findings] == [
        "the station takes no conditions, and energy has some"
    ]


def test_remarks_are_no_loss() -> None:
    translation = to_tariff_type(
        tariff(
            element(component("ENERGY", "0.30"), start_time="08:00", end_time="18:00"),
            end_date_time="2027-01-01T00:00:00Z",
        )
    )
    assert translation.exact
    assert [finding.path for finding in translation.findings] == [
        "$.elements[0].price_components[0].step_size",
        "$.end_date_time",
        "$",
    ]


def test_another_content_has_another_id() -> None:
    one, other = (to_tariff_type(tariff(element(component("FLAT", amount)))) for amount in ("1", "2"))
    assert one.tariff["tariffId"] != other.tariff["tariffId"]
    longest = to_tariff_type(tariff(element(GOOD), id="x" * 36))
    assert_valid(longest)


def test_what_is_ocpp_already_is_not_translated() -> None:
    with pytest.raises(ValueError, match="needs no translation"):
        to_tariff_type(parse_ocpp_tariff({"tariffId": "1", "currency": "EUR"}))


def sayable(data: dict[str, Any]) -> dict[str, Any]:
    """A random tariff without what OCPP has no words for."""
    rates = {"ENERGY": "19", "TIME": "7", "PARKING_TIME": "20.5", "FLAT": "0"}
    for item in data["elements"]:
        prices = item["price_components"]
        if "restrictions" in item:
            prices = [price for price in prices if price["type"] != "FLAT"] or [component("ENERGY", "1.5")]
        item["price_components"] = prices
        for price in prices:
            price |= {"step_size": min(price["step_size"], 1), "vat": Decimal(rates[price["type"]])}
            if price["type"] in ("TIME", "PARKING_TIME"):
                price["price"] = price["price"].quantize(Decimal(1)) * Decimal("0.6")
    return data | {"tax_included": "NO"}


@settings(max_examples=40, deadline=None)
@given(data=tariffs().map(sayable), zone=st.sampled_from(ZONES), start=starts, stretch=stretches)
def test_both_price_the_same_where_nothing_is_lost(
    data: dict[str, Any], zone: str, start: datetime, stretch: list[Stretch]
) -> None:
    original = parse_ocpi_tariff(data)
    translation = to_tariff_type(original)
    assert translation.exact
    assert_valid(translation)
    translated = parse_ocpp_tariff(serialize_json(translation.tariff))
    # All edges fall on whole seconds and Wh, so that a step of one fills nothing up.
    facts = facts_of(start, stretch, None)
    first, second = (Pricer(one, zone, exactly()).price(facts) for one in (original, translated))
    assert second.total == first.total
    assert second.cost_type == first.cost_type
    assert [period[:4] for period in second.periods] == [period[:4] for period in first.periods]


def test_reservations_price_the_same() -> None:
    data = tariff_json(
        element(component("TIME", "6.00", "19", 0), component("FLAT", "1.00", "7"), reservation="RESERVATION"),
        element(component("ENERGY", "0.25", "10", 0), component("FLAT", "0.50", "20")),
    )
    original = parse_ocpi_tariff(data)
    translated = parse_ocpp_tariff(to_tariff_type(original).tariff)
    start = "2026-03-11 09:00"
    facts = [reserved(ms(start) - 17 * MINUTE_MS), *session(start, (CHARGING, 60, 10))]
    first, second = (Pricer(one, "Europe/Berlin", exactly()).price(facts) for one in (original, translated))
    assert first.total == second.total
    assert first.total.excl_tax == Decimal("1.7") + 1 + Decimal("2.5") + Decimal("0.5")
