"""OCPP 2.1's TariffType as input."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busbar.pricing.bill import CostType, TaxAmount
from busbar.pricing.engine import Options, Pricer
from busbar.pricing.facts import Fact, reserved
from busbar.pricing.ocpp_tariff import parse_ocpp_tariff
from busbar.pricing.problems import TariffError
from busbar.pricing.selection import Circumstances
from tests.unit.pricing.builders import CHARGING, MINUTE_MS, PARKED, assert_adds_up, money, ms, session

START = "2026-03-11 09:00"
HOUR = session(START, (CHARGING, 60, 10))


def of(**fields: Any) -> dict[str, Any]:
    return {"tariffId": "T1", "currency": "EUR", **fields}


def energy(*prices: tuple[str, dict[str, Any] | None], taxes: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return _field("priceKwh", prices, taxes)


def minutes(*prices: tuple[str, dict[str, Any] | None], taxes: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return _field("priceMinute", prices, taxes)


def fixed(*prices: tuple[str, dict[str, Any] | None], taxes: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return _field("priceFixed", prices, taxes)


def _field(key: str, prices: Any, taxes: Any) -> dict[str, Any]:
    items = [{key: Decimal(price)} | ({"conditions": when} if when else {}) for price, when in prices]
    return {"prices": items} | ({"taxRates": taxes} if taxes else {})


def total(tariff: dict[str, Any], facts: list[Fact], **circumstances: str) -> tuple[Decimal, Decimal]:
    options = Options(circumstances=Circumstances(**circumstances))
    bill = Pricer(parse_ocpp_tariff(tariff), "Europe/Berlin", options).price(facts)
    assert_adds_up(bill)
    return bill.total


def test_each_field_prices_its_part() -> None:
    tariff = of(
        energy=energy(("0.30", None)),
        chargingTime=minutes(("0.05", None)),
        idleTime=minutes(("0.20", None)),
        fixedFee=fixed(("1.50", None)),
        reservationTime=minutes(("0.10", None)),
        reservationFixed=fixed(("0.75", None)),
    )
    facts = [reserved(ms(START) - 15 * MINUTE_MS), *session(START, (CHARGING, 60, 10), (PARKED, 10, 0))]
    assert total(tariff, facts)[0] == Decimal("3") + 3 + 2 + Decimal("1.5") + Decimal("1.5") + Decimal("0.75")


def test_taxes_of_one_stack_share_a_base_and_higher_ones_come_on_top() -> None:
    # Spec: I12.FR.13. 100 -> 105 + 3 = 108 -> 10 % of 108 = 118.8
    taxes = [
        {"type": "Federal", "tax": Decimal(5)},
        {"type": "State", "tax": Decimal(3), "stack": 0},
        {"type": "Luxury", "tax": Decimal(10), "stack": 1},
    ]
    tariff = of(fixedFee=fixed(("100", None), taxes=taxes))
    bill = Pricer(parse_ocpp_tariff(tariff), "UTC").price(HOUR)
    assert bill.total == money(100, "118.8")
    assert bill.taxes == (
        TaxAmount("Federal", Decimal(5), Decimal("5.00")),
        TaxAmount("State", Decimal(3), Decimal("3.00")),
        TaxAmount("Luxury", Decimal(10), Decimal("10.80")),
    )


RATES = st.lists(
    st.tuples(st.sampled_from("ABC"), st.sampled_from(["0", "3", "7.5", "10", "19"]), st.integers(0, 2)),
    max_size=3,
    unique_by=lambda rate: rate[0],
)


@given(
    kwh_price=st.decimals(-2, 2, places=4), fee=st.decimals(-9, 9, places=2), of_energy=RATES, of_fee=RATES
)  # fmt: skip
def test_the_tax_of_the_total_is_shared_out_by_what_each_rate_makes(
    kwh_price: Decimal, fee: Decimal, of_energy: list[tuple[str, str, int]], of_fee: list[tuple[str, str, int]]
) -> None:
    def rates(chosen: list[tuple[str, str, int]]) -> list[dict[str, Any]]:
        return [{"type": name, "tax": Decimal(percent), "stack": stack} for name, percent, stack in chosen]

    parts = ((energy, str(kwh_price), of_energy), (fixed, str(fee), of_fee))
    fields = [make((price, None), taxes=rates(chosen)) for make, price, chosen in parts]
    try:
        tariff = parse_ocpp_tariff(of(energy=fields[0], fixedFee=fields[1]))
    except TariffError:
        assert kwh_price < 0 or fee < 0
        return
    bill = Pricer(tariff, "UTC").price(HOUR)
    made: dict[tuple[str, Decimal], Fraction] = {}
    for base, chosen in ((10 * Fraction(kwh_price), of_energy), (Fraction(fee), of_fee)):
        for name, percent, stack in chosen:
            below = base
            for lower in range(stack):
                below *= 1 + sum((Fraction(each) for _, each, its in chosen if its == lower), Fraction(0)) / 100
            key = (name, Decimal(percent))
            made[key] = made.get(key, Fraction(0)) + below * Fraction(percent) / 100
    cents, whole = int(bill.total.tax * 100), sum(made.values(), Fraction(0))
    told = {(tax.name, tax.percent): int(tax.amount * 100) for tax in bill.taxes}
    assert sum(told.values()) == cents
    if whole:
        exact = {key: share / whole * cents for key, share in made.items()}
        assert told.keys() == exact.keys()
        up = [told[key] - each for key, each in exact.items() if told[key] > each]
        down = [each - told[key] for key, each in exact.items() if told[key] <= each]
        assert all(error < 1 for error in (*up, *down))
        # Whoever was rounded up had lost more by being rounded down than anybody who was.
        assert not up or not down or max(down) <= 1 - max(up)


def test_the_first_price_whose_conditions_hold_applies() -> None:
    tariff = of(
        energy=energy(
            ("0.10", {"maxEnergy": 2000}),
            ("0.20", {"minPower": 5000, "maxPower": 20_000, "startTimeOfDay": "10:30", "endTimeOfDay": "11:00"}),
            ("0.50", None),
        )
    )
    # 10 kWh from 10:00 to 11:00 local: 2 at 0.10, 3 until 10:30 at 0.50, 5 at 0.20.
    assert total(tariff, HOUR)[0] == Decimal("0.2") + Decimal("1.5") + 1


@pytest.mark.parametrize(
    ("conditions", "cost"),
    [
        ({"minTime": 600, "maxTime": 1200}, 10),
        ({"minChargingTime": 1200}, 30),
        ({"minIdleTime": 300}, 25),
        ({"maxIdleTime": 300}, 25),
        ({"dayOfWeek": ["Wednesday"], "validFromDate": "2026-03-11", "validToDate": "2026-03-12"}, 50),
        ({"dayOfWeek": ["Thursday"]}, 0),
        ({"evseKind": "DC"}, 50),
        ({"evseKind": "AC"}, 0),
        ({"minCurrent": 1}, 0),
        ({"minPower": -10_000, "maxPower": -50_000}, 0),
    ],
)
def test_conditions_count_charging_and_idle_time_apart(conditions: dict[str, Any], cost: int) -> None:
    # 20 minutes charging, 10 idle, 20 charging.
    facts = session(START, (CHARGING, 20, 5), (PARKED, 10, 0), (CHARGING, 20, 5))
    tariff = of(chargingTime=minutes(("1", conditions)), idleTime=minutes(("1", conditions)))
    assert total(tariff, facts, evse_kind="DC")[0] == cost


def test_a_fixed_fee_is_judged_once_at_the_start() -> None:
    tariff = of(fixedFee=fixed(("1", {"endTimeOfDay": "10:30"}), ("5", {"startTimeOfDay": "10:30"})))
    assert total(tariff, HOUR)[0] == 1
    # Another price changes at the same time, so that the tariff is looked at again.
    energy_too = energy(("0", {"startTimeOfDay": "10:30"}))
    later = of(fixedFee=fixed(("5", {"startTimeOfDay": "10:30"})), energy=energy_too)
    assert total(later, HOUR)[0] == 0


def test_a_fixed_fee_may_depend_on_how_it_is_paid() -> None:
    tariff = of(
        fixedFee=fixed(("0.25", {"paymentRecognition": "Debit"}), ("0.40", {"paymentBrand": "VISA"}), ("0.5", None))
    )
    assert total(tariff, HOUR)[0] == Decimal("0.5")
    assert total(tariff, HOUR, payment_brand="VISA")[0] == Decimal("0.4")
    assert total(tariff, HOUR, payment_brand="VISA", payment_recognition="Debit")[0] == Decimal("0.25")


def test_costs_are_held_between_the_limits() -> None:
    taxes = [{"type": "VAT", "tax": Decimal(20)}]
    tariff = of(
        energy=energy(("1", None), taxes=taxes),
        minCost={"exclTax": Decimal(5), "taxRates": taxes},
        maxCost={"inclTax": Decimal(9), "taxRates": taxes},
    )
    assert total(tariff, session(START, (CHARGING, 60, 1))) == money(5, 6)
    assert total(tariff, session(START, (CHARGING, 60, 6))) == money(6, "7.2")
    assert total(tariff, session(START, (CHARGING, 60, 60))) == money("7.5", 9)
    gross_only = of(energy=energy(("1", None), taxes=taxes), maxCost={"inclTax": Decimal(9)})
    bill = Pricer(parse_ocpp_tariff(gross_only), "UTC").price(session(START, (CHARGING, 60, 60)))
    assert bill.total == money("7.5", 9)
    assert bill.cost_type is CostType.MAXIMUM


@pytest.mark.parametrize(
    ("data", "path", "reason"),
    [
        ({"currency": "EUR"}, "$.tariffId", "is missing"),
        ({"tariffId": "1"}, "$.currency", "is missing"),
        (of(power={}), "$.power", "is not a field that can be priced"),
        (of(energy=[]), "$.energy", "is not an object"),
        (of(energy={}), "$.energy.prices", "is missing"),
        (of(energy={"prices": [3]}), "$.energy.prices[0]", "is not an object"),
        (of(energy={"prices": [{}]}), "$.energy.prices[0].priceKwh", "is missing"),
        (
            of(energy=energy(("1", {"paymentBrand": "VISA"}))),
            "$.energy.prices[0].conditions.paymentBrand",
            "is not a field that can be priced",
        ),
        (
            of(fixedFee=fixed(("1", {"minEnergy": 5}))),
            "$.fixedFee.prices[0].conditions.minEnergy",
            "is not a field that can be priced",
        ),
        (
            of(energy=energy(("1", {"minEnergy": 5, "maxEnergy": 5}))),
            "$.energy.prices[0].conditions.maxEnergy",
            "is not beyond minEnergy: the price would never apply",
        ),
        (
            of(energy=energy(("1", {"minPower": 5, "maxPower": -9}))),
            "$.energy.prices[0].conditions.maxPower",
            "has another sign than minPower",
        ),
        (
            of(energy=energy(("1", {"evseKind": "HVDC"}))),
            "$.energy.prices[0].conditions.evseKind",
            "'HVDC' is none of AC, DC",
        ),
        (
            of(energy=energy(("1", {"startTimeOfDay": "7"}))),
            "$.energy.prices[0].conditions.startTimeOfDay",
            "'7' is not a time of day from 00:00 to 23:59",
        ),
        (
            of(energy=energy(("1", None), taxes=[{"type": "VAT"}])),
            "$.energy.taxRates[0].tax",
            "is missing",
        ),
        (
            of(energy=energy(("1", None), taxes=[{"type": "VAT", "tax": 1, "stack": -1}])),
            "$.energy.taxRates[0].stack",
            "is negative",
        ),
        (
            of(energy=energy(("1", None), taxes=[{"type": str(n), "tax": 1} for n in range(6)])),
            "$.energy.taxRates",
            "holds more than 5 rates",
        ),
        (of(minCost={}), "$.minCost", "has neither exclTax nor inclTax"),
        (of(minCost={"exclTax": 2}, maxCost={"exclTax": 1}), "$.maxCost.exclTax", "is below minCost"),
        (of(maxCost={"exclTax": 2, "inclTax": 1}), "$.maxCost.inclTax", "is below exclTax"),
        (of(validFrom="today"), "$.validFrom", "'today' is not a date and time as 2026-03-29T01:00:00Z"),
    ],
)
def test_what_cannot_be_priced_is_refused(data: dict[str, Any], path: str, reason: str) -> None:
    with pytest.raises(TariffError) as caught:
        parse_ocpp_tariff(data)
    assert {problem.path: problem.reason for problem in caught.value.problems} == {path: reason}


def test_what_never_applies_is_pointed_out() -> None:
    assert parse_ocpp_tariff(of()).warnings == ("$: has no price: all is free",)
    discharging = parse_ocpp_tariff(of(energy=energy(("-0.1", {"minPower": -1}))))
    assert len(discharging.warnings) == 2
