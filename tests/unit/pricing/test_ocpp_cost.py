"""A bill as OCPP 2.1's CostDetails."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from hypothesis import given, settings

from busbar.pricing.engine import Pricer
from busbar.pricing.facts import reserved
from busbar.pricing.jsontext import serialize_json
from busbar.pricing.ocpi_tariff import parse_ocpi_tariff
from busbar.pricing.ocpp_cost import cost_details, running_details
from tests.unit.pricing.builders import (
    CHARGING,
    MINUTE_MS,
    PARKED,
    component,
    element,
    limit,
    ms,
    price,
    session,
    tariff,
)
from tests.unit.pricing.ocpp_schema import schema
from tests.unit.pricing.oracle import Stretch
from tests.unit.pricing.strategies import facts_of, starts, stretches, tariffs

START = "2026-03-11 09:00"
COST_DETAILS = schema("TransactionEventRequest", "CostDetailsType")
FULL = tariff(
    element(component("TIME", "6.00", "20", 60), component("FLAT", "1.00", "20"), reservation="RESERVATION"),
    element(
        component("FLAT", "0.50", "20"), component("ENERGY", "0.25", "10"), component("PARKING_TIME", "2.00", "20", 0)
    ),
)
FACTS = [reserved(ms(START) - 15 * MINUTE_MS), *session(START, (CHARGING, 120, 20), (PARKED, 30, 0))]


def plain(value: Any) -> Any:
    return json.loads(serialize_json(value))


def test_costs_usage_and_periods_are_told() -> None:
    details = cost_details(price(FULL, FACTS), tariff_id="X-1")
    COST_DETAILS.validate(plain(details))
    assert details["totalUsage"] == {
        "energy": 20_000,
        "chargingTime": 7200,
        "idleTime": 1800,
        "reservationTime": 900,
    }
    assert details["chargingPeriods"] == [
        {
            "startPeriod": "2026-03-11T09:00:00Z",
            "tariffId": "X-1",
            "dimensions": [{"type": "ChargingTime", "volume": 7200}, {"type": "Energy", "volume": 20_000}],
        },
        {
            "startPeriod": "2026-03-11T11:00:00Z",
            "tariffId": "X-1",
            "dimensions": [{"type": "IdleTIme", "volume": 1800}],
        },
    ]
    total = details["totalCost"]
    assert total["typeOfCost"] == "NormalCost"
    assert total["total"] == {"exclTax": Decimal("9.00"), "inclTax": Decimal("10.30")}
    assert {name: total[name]["exclTax"] for name in total if name not in ("currency", "typeOfCost", "total")} == {
        "reservationFixed": 1,
        "reservationTime": Decimal("1.5"),
        "fixed": Decimal("0.5"),
        "energy": 5,
        "idleTime": 1,
    }
    assert total["energy"]["taxRates"] == [{"type": "VAT", "tax": Decimal(10)}]


def test_a_minimum_takes_the_place_of_all_costs() -> None:
    # Spec: I12.FR.38
    least = tariff(element(component("ENERGY", "1", "20")), min_price=limit("5.00", "6.00"))
    total = cost_details(price(least, session(START, (CHARGING, 60, 1))))["totalCost"]
    assert total == {
        "currency": "EUR",
        "typeOfCost": "MinCost",
        "fixed": {"exclTax": 5, "inclTax": 6},
        "total": {"exclTax": 5, "inclTax": 6},
    }


def test_a_maximum_leaves_the_costs_as_they_are() -> None:
    # Spec: I12.FR.39
    most = tariff(element(component("ENERGY", "1", "20")), max_price=limit("5.00", "6.00"))
    total = cost_details(price(most, session(START, (CHARGING, 60, 10))))["totalCost"]
    assert total["typeOfCost"] == "MaxCost"
    assert total["energy"]["exclTax"] == 10
    assert total["total"] == {"exclTax": 5, "inclTax": 6}


def test_a_running_cost_has_no_periods() -> None:
    # Spec: I12.FR.02, errata 2025-09
    engine = Pricer(FULL, "UTC")
    state = engine.begin()
    for fact in FACTS[:-1]:
        state = engine.advance(state, fact)
    details = running_details(engine.cost(state))
    COST_DETAILS.validate(plain(details))
    assert "chargingPeriods" not in details
    assert details["totalUsage"]["energy"] == 20_000


@settings(max_examples=20, deadline=None)
@given(data=tariffs(), start=starts, stretch=stretches)
def test_every_bill_is_valid_in_ocpp(data: dict[str, Any], start: Any, stretch: list[Stretch]) -> None:
    engine = Pricer(parse_ocpi_tariff(data), "Europe/Berlin")
    COST_DETAILS.validate(plain(cost_details(engine.price(facts_of(start, stretch, None)))))
