"""A bill as the part of an OCPI CDR that follows from it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from busbar.pricing.bill import Amount
from busbar.pricing.facts import reservation_expired, reserved, sampled
from busbar.pricing.jsontext import parse_json, serialize_json
from busbar.pricing.money import to_decimal
from busbar.pricing.ocpi_cdr import OcpiVersion, cdr_part, timestamp
from busbar.pricing.tariff import Dimension
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

START = "2026-03-11 09:00"
FULL = tariff(
    element(component("TIME", "6.00", "20", 60), component("FLAT", "1.00", "20"), reservation="RESERVATION"),
    element(
        component("FLAT", "0.50", "20"), component("ENERGY", "0.25", "10"), component("PARKING_TIME", "2.00", "20", 900)
    ),
)
FACTS = [reserved(ms(START) - 15 * MINUTE_MS), *session(START, (CHARGING, 120, 20), (PARKED, 40, 0))]
BILL = price(FULL, FACTS)
TIES = st.integers(-(10**9), 10**9).map(lambda units: Decimal(10 * units + 5).scaleb(-5))


def test_the_totals_are_in_the_words_of_2_3_0() -> None:
    part = cdr_part(price(FULL, FACTS))
    assert part.pop("tariffs") == [FULL.source]
    assert part == {
        "start_date_time": "2026-03-11T08:45:00Z",
        "end_date_time": "2026-03-11T11:40:00Z",
        "currency": "EUR",
        "charging_periods": [
            {
                "start_date_time": "2026-03-11T08:45:00Z",
                "dimensions": [{"type": "RESERVATION_TIME", "volume": Decimal("0.25")}],
                "tariff_id": "T1",
            },
            {
                "start_date_time": "2026-03-11T09:00:00Z",
                "dimensions": [{"type": "TIME", "volume": 2}, {"type": "ENERGY", "volume": 20}],
                "tariff_id": "T1",
            },
            {
                "start_date_time": "2026-03-11T11:00:00Z",
                "dimensions": [{"type": "PARKING_TIME", "volume": Decimal("0.6667")}],
                "tariff_id": "T1",
            },
        ],
        "total_cost": {
            "before_taxes": Decimal("9.50"),
            "taxes": [
                {"name": "VAT", "percentage": 20, "amount": Decimal("0.90")},
                {"name": "VAT", "percentage": 10, "amount": Decimal("0.50")},
            ],
        },
        "total_energy": 20,
        "total_time": Decimal("2.6667"),
        "total_parking_time": Decimal("0.6667"),
        "total_fixed_cost": {"before_taxes": Decimal("0.5"), "taxes": [{"name": "VAT", "amount": Decimal("0.1")}]},
        "total_energy_cost": {"before_taxes": 5, "taxes": [{"name": "VAT", "amount": Decimal("0.5")}]},
        "total_parking_cost": {"before_taxes": Decimal("1.5"), "taxes": [{"name": "VAT", "amount": Decimal("0.3")}]},
        "total_reservation_cost": {
            "before_taxes": Decimal("2.5"),
            "taxes": [{"name": "VAT", "amount": Decimal("0.5")}],
        },
    }


def test_prices_are_in_the_words_of_2_2_1() -> None:
    part = cdr_part(price(FULL, FACTS), OcpiVersion.V221)
    assert part["total_cost"] == {"excl_vat": Decimal("9.50"), "incl_vat": Decimal("10.90")}
    assert part["total_energy_cost"] == {"excl_vat": 5, "incl_vat": Decimal("5.5")}


def test_a_total_after_tax_is_left_out_where_the_tax_is_not_known() -> None:
    part = cdr_part(
        price(tariff(element(component("TIME", "2.00"))), session(START, (CHARGING, 60, 1))), OcpiVersion.V221
    )
    assert part["total_cost"] == part["total_time_cost"] == {"excl_vat": 2}
    untaxed = tariff(element(component("TIME", "2.00")), tax_included="N/A")
    part = cdr_part(price(untaxed, session(START, (CHARGING, 60, 1))), OcpiVersion.V221)
    assert part["total_cost"] == {"excl_vat": 2, "incl_vat": 2}


def test_totals_by_dimension_are_before_limits() -> None:
    capped = tariff(element(component("ENERGY", "1", "20")), max_price=limit("3.00", "3.30"))
    part = cdr_part(price(capped, session(START, (CHARGING, 60, 10))), OcpiVersion.V221)
    assert part["total_cost"] == {"excl_vat": 3, "incl_vat": Decimal("3.3")}
    assert part["total_energy_cost"] == {"excl_vat": 10, "incl_vat": 12}


def test_power_and_current_are_told_where_prices_depend_on_them() -> None:
    by_power = tariff(element(component("ENERGY", "1"), max_power=30, min_current=6), element(component("ENERGY", "2")))
    facts = session(START, (CHARGING, 60, 10), (CHARGING, 60, 20))
    facts[1] = sampled(facts[1].at_ms, facts[1].register_wh, current_a=16)
    dimensions = cdr_part(price(by_power, facts))["charging_periods"][0]["dimensions"]
    assert dimensions[2:] == [
        {"type": "MIN_POWER", "volume": 10},
        {"type": "MAX_POWER", "volume": 20},
        {"type": "MIN_CURRENT", "volume": 16},
        {"type": "MAX_CURRENT", "volume": 16},
    ]


def test_a_reservation_that_expired_is_a_cdr_of_its_own() -> None:
    part = cdr_part(price(FULL, [reserved(ms(START)), reservation_expired(ms(START) + 30 * MINUTE_MS)]))
    assert part["total_cost"]["before_taxes"] == 4
    assert part["total_time"] == 0
    assert part["total_energy"] == 0
    assert [period["dimensions"][0]["type"] for period in part["charging_periods"]] == ["RESERVATION_TIME"]


def test_a_session_of_no_length_has_one_period() -> None:
    assert len(cdr_part(price(FULL, session(START)))["charging_periods"]) == 1


def test_numbers_are_plain_and_exact_in_the_text() -> None:
    part = cdr_part(price(FULL, session(START, (CHARGING, 1, "0.0001234"))))
    del part["tariffs"]
    text = serialize_json(part)
    assert '"volume":0.0001' in text
    assert '"before_taxes":0.50' in text
    assert parse_json(text) == part


@given(st.decimals(-(10**12), 10**12, allow_nan=False, places=9) | TIES)
def test_costs_are_rounded_once_a_tie_away_from_zero(cost: Decimal) -> None:
    numerator, denominator = cost.as_integer_ratio()
    expected = to_decimal(numerator, denominator, 4)
    bill = replace(BILL, costs={Dimension.ENERGY: Amount(cost, cost)}, energy_wh=cost)
    part = cdr_part(bill)
    written = part["total_energy_cost"]["before_taxes"]
    assert str(written) == str(expected), "and zero has no sign"
    assert str(part["total_energy"]) == str(to_decimal(numerator, denominator * 1000, 4))


def test_instants_have_fractions_only_where_there_are_some() -> None:
    assert timestamp(ms(START)) == "2026-03-11T09:00:00Z"
    assert timestamp(ms(START) + 7) == "2026-03-11T09:00:00.007Z"
