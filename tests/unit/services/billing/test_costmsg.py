"""The cost messages of the California set."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from busbar.pricing import ChargingState, Pricer, SessionState
from busbar.pricing.edges import PriceEdges
from busbar.pricing.facts import Fact, ended, sampled, started
from busbar.pricing.jsontext import parse_json
from busbar.pricing.tariff import Tariff
from services.billing.costmsg import (
    Standing,
    cost_updated,
    cost_updated_with_prices,
    final_cost_16,
    final_text,
    running_cost,
    running_cost_16,
    user_price_16,
)
from tests.unit.pricing.builders import component, element, ms, tariff

ZONE = "America/Los_Angeles"
NOON = ms("2026-01-14 12:00-08:00")
MINUTE = 60_000
DAY_AND_NIGHT = tariff(
    element(component("ENERGY", "0.25"), start_time="21:00", end_time="06:00"),
    element(component("ENERGY", "0.50", vat="10"), component("PARKING_TIME", "6"), component("FLAT", "1")),
    currency="USD",
)


def priced(tariff: Tariff, *facts: Fact) -> tuple[Pricer, SessionState]:
    pricer = Pricer(tariff, ZONE)
    state = pricer.begin()
    for fact in facts:
        state = pricer.advance(state, fact)
    return pricer, state


def told(tariff: Tariff, *facts: Fact, at_ms: int = NOON) -> dict[str, Any]:
    pricer, state = priced(tariff, *facts)
    standing = Standing(at_ms, pricer.cost(state).incl_tax, Decimal(1_000_500), state)
    return running_cost(standing, pricer, PriceEdges(tariff, ZONE))


CHARGING = (started(NOON - 60 * MINUTE, 1_000_000), sampled(NOON, 1_000_500))


class TestRunningCost:
    def test_it_says_the_prices_of_now_and_of_the_next_period(self) -> None:
        cost = told(DAY_AND_NIGHT, *CHARGING)
        assert cost["chargingPrice"] == {"kWhPrice": Decimal("0.55"), "flatFee": 1}
        assert cost["idlePrice"] == {"hourPrice": 6}
        assert cost["nextPeriod"] == {
            "atTime": "2026-01-15T05:00:00.000Z",
            "chargingPrice": {"kWhPrice": Decimal("0.25")},
            "idlePrice": {"hourPrice": 6},
        }
        assert (cost["state"], cost["meterValue"]) == ("Charging", 1_000_500)
        assert cost["timestamp"] == "2026-01-14T20:00:00.000Z"

    def test_it_asks_for_meter_values_where_the_price_changes(self) -> None:
        steps = tariff(
            element(component("ENERGY", "0.2"), max_kwh=Decimal(10)),
            element(component("ENERGY", "0.4"), max_power=Decimal("11.5")),
            element(component("ENERGY", "0.6")),
        )
        assert told(steps, *CHARGING)["triggerMeterValue"] == {"atEnergykWh": 10}
        beyond = (started(NOON - 60 * MINUTE, 0), sampled(NOON, 11_000))
        assert told(steps, *beyond)["triggerMeterValue"] == {"atPowerkW": Decimal("11.5")}
        trigger = told(DAY_AND_NIGHT, *CHARGING)["triggerMeterValue"]
        assert trigger == {"atTime": "2026-01-15T05:00:00.000Z", "atCPStatus": ["SuspendedEV", "Finishing"]}

    def test_a_price_that_never_changes_asks_for_nothing(self) -> None:
        flat = told(tariff(element(component("ENERGY", "0.2"))), *CHARGING)
        assert set(flat) == {"timestamp", "state", "chargingPrice", "meterValue"}

    def test_a_fee_that_was_charged_is_told_though_it_would_not_be_due_now(self) -> None:
        morning = tariff(element(component("FLAT", "2"), end_time="11:30"), element(component("ENERGY", "0.5")))
        assert told(morning, *CHARGING)["chargingPrice"] == {"kWhPrice": Decimal("0.5"), "flatFee": 2}

    def test_a_parked_car_is_idle_and_waits_for_charging(self) -> None:
        cost = told(DAY_AND_NIGHT, *CHARGING, sampled(NOON, 1_000_500, ChargingState.SUSPENDED_EV))
        assert cost["state"] == "Idle"
        assert cost["triggerMeterValue"]["atCPStatus"] == ["Charging", "SuspendedEVSE"]

    def test_time_that_has_passed_since_the_last_fact_counts(self) -> None:
        later = told(DAY_AND_NIGHT, *CHARGING, at_ms=NOON + 10 * 60 * MINUTE)
        assert later["chargingPrice"]["kWhPrice"] == Decimal("0.25")
        assert later["nextPeriod"]["atTime"] == "2026-01-15T14:00:00.000Z"

    def test_on_1_6_it_is_json_text_in_a_data_transfer(self) -> None:
        pricer, state = priced(DAY_AND_NIGHT, *CHARGING)
        standing = Standing(NOON, Decimal("1.28"), None, state)
        transfer = running_cost_16(4711, standing, pricer, PriceEdges(DAY_AND_NIGHT, ZONE))
        assert (transfer["vendorId"], transfer["messageId"]) == ("org.openchargealliance.costmsg", "RunningCost")
        data = parse_json(transfer["data"])
        assert (data["transactionId"], data["cost"]) == (4711, Decimal("1.28"))
        assert "meterValue" not in data

    def test_on_2_x_it_is_custom_data_of_cost_updated(self) -> None:
        pricer, state = priced(DAY_AND_NIGHT, *CHARGING)
        standing = Standing(NOON, Decimal("1.28"), Decimal(1_000_500), state)
        message = cost_updated_with_prices("tx-1", standing, pricer, PriceEdges(DAY_AND_NIGHT, ZONE))
        assert message["totalCost"] == Decimal("1.28")
        assert message["customData"]["vendorId"] == "org.openchargealliance.costmsg"
        assert message["customData"]["triggerMeterValue"] == {"atTime": "2026-01-15T05:00:00.000Z"}
        assert cost_updated("tx-1", Decimal("0.00")) == {"totalCost": Decimal("0.00"), "transactionId": "tx-1"}


class TestFinalCost:
    def test_it_explains_the_total_in_a_line(self) -> None:
        pricer, _ = priced(DAY_AND_NIGHT)
        bill = pricer.price([*CHARGING, ended(NOON + 5 * MINUTE, 1_012_000)])
        assert final_text(bill) == "USD 7.60 (energy 6.60, fee 1.00), 12.00 kWh in 1:05"
        transfer = final_cost_16(4711, bill, "https://pay.example/r/1")
        data = parse_json(transfer["data"])
        assert (data["cost"], data["qrCodeText"]) == (Decimal("7.60"), "https://pay.example/r/1")
        assert "qrCodeText" not in parse_json(final_cost_16(1, bill)["data"])

    def test_one_kind_of_cost_needs_no_split(self) -> None:
        pricer, _ = priced(tariff(element(component("ENERGY", "0.5"))))
        assert final_text(pricer.price([started(0, 0), ended(90 * MINUTE, 2000)])) == "EUR 1.00, 2.00 kWh in 1:30"


def test_a_users_price_comes_in_every_language_that_there_is() -> None:
    transfer = user_price_16("TAG", "0.50 EUR/kWh", {"de": "fünfzig Cent"})
    assert parse_json(transfer["data"]) == {
        "idToken": "TAG",
        "priceText": "0.50 EUR/kWh",
        "priceTextExtra": [{"format": "UTF8", "language": "de", "content": "fünfzig Cent"}],
    }
    assert "priceTextExtra" not in parse_json(user_price_16("TAG", "x", {})["data"])
