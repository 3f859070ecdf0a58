"""What a station says that a session costs, beside what it costs here."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson
import pytest

from busbar.avro import decode
from busbar.pricing.facts import ended, started
from busbar.pricing.jsontext import serialize_json
from busbar.pricing.ocpp_cost import cost_details
from busbar.records import Result
from services.billing.station_cost import DIFFERS, FAILED, UNREADABLE, compare
from tests.unit.pricing.builders import component, element, price, tariff
from tests.unit.services.billing.test_telling import BY_ENERGY, Displays
from tests.unit.services.billing.world import SESSION_ID, Session

BILL = price(tariff(element(component("ENERGY", "0.5", vat="20"))), [started(0, 0), ended(3_600_000, 10_000)])
"""5.00 before tax, 6.00 after."""


def details(**fields: Any) -> str:
    return serialize_json(cost_details(BILL) | fields)


def told(total: dict[str, Any], currency: str = "EUR") -> str:
    return details(totalCost={"currency": currency, "typeOfCost": "NormalCost", "total": total})


class TestCompare:
    def test_what_the_engine_says_itself_agrees(self) -> None:
        found = compare(SESSION_ID, details(), BILL, 0)
        assert (found.total, found.ours, found.after_tax, found.flag) == (Decimal("6.00"), Decimal("6.00"), True, "")

    @pytest.mark.parametrize(
        ("total", "flag"),
        [
            ({"inclTax": Decimal("6.01")}, ""),
            ({"inclTax": Decimal("6.02")}, DIFFERS),
            ({"inclTax": Decimal("5.98")}, DIFFERS),
            ({"exclTax": Decimal("5.00")}, ""),
            ({"exclTax": Decimal("6.00")}, DIFFERS),
            ({}, UNREADABLE),
            ({"inclTax": "six"}, UNREADABLE),
            ({"inclTax": Decimal("1e50")}, UNREADABLE),
        ],
    )
    def test_more_than_a_cent_is_a_difference(self, total: dict[str, Any], flag: str) -> None:
        assert compare(SESSION_ID, told(total), BILL, 0).flag == flag

    def test_another_currency_cannot_be_compared(self) -> None:
        found = compare(SESSION_ID, told({"inclTax": 6}, "USD"), BILL, 0)
        assert (found.flag, found.reason) == (UNREADABLE, "its currency is USD")

    def test_a_station_may_say_that_it_failed(self) -> None:
        found = compare(SESSION_ID, details(failureToCalculate=True, failureReason="no tariff"), BILL, 0)
        assert (found.flag, found.reason, found.total) == (FAILED, "no tariff", None)

    @pytest.mark.parametrize("text", ["", "nonsense", "[]", '{"totalCost": 5}', '{"a":1,"a":2}', "\x00"])
    def test_anything_else_is_kept_and_flagged(self, text: str) -> None:
        found = compare(SESSION_ID, text, BILL, 0)
        assert found.flag == UNREADABLE
        assert "\x00" not in found.details


def updates(results: list[Result]) -> list[Any]:
    return [orjson.loads(decode(each.value)[1]["payload"]) for each in results if each.topic == "csms.commands"]


class TestASession:
    """A session of 5 kWh, 2.50."""

    def end(self, cost: str, **more: Any) -> tuple[Displays, list[Any]]:
        world, session = Displays(BY_ENERGY), Session(head={"ocpp_version": "2.1"})
        world.told(session.started(seq_no=0))
        before = len(world.results)
        world.told(session.ended(10, 5000, seq_no=1, cost_details=cost, **more))
        return world, updates(world.results[before:])

    def test_a_difference_is_on_the_record_and_both_are_kept(self) -> None:
        text = told({"inclTax": Decimal("2.60")})
        world, commands = self.end(text)
        (cdr,) = world.tables.cdrs.values()
        assert DIFFERS in cdr["flags"].split(",")
        assert DIFFERS in world.session()["flags"].split(",")
        row = world.tables.station_costs[SESSION_ID]
        assert (row["total"], row["ours"], row["details"]) == (Decimal("2.60"), Decimal("2.50"), text)
        assert cdr["total_incl"] == Decimal("2.50")
        assert commands == []

    def test_what_agrees_is_kept_without_a_flag(self) -> None:
        world, _ = self.end(told({"inclTax": Decimal("2.50")}))
        (cdr,) = world.tables.cdrs.values()
        assert cdr["flags"] == "tax_unknown"
        assert world.tables.station_costs[SESSION_ID]["total"] == Decimal("2.50")

    def test_a_station_that_failed_is_told_the_total(self) -> None:
        world, commands = self.end(details(failureToCalculate=True))
        assert commands == [{"totalCost": 2.5, "transactionId": "tx-1"}]
        (cdr,) = world.tables.cdrs.values()
        assert FAILED in cdr["flags"]

    def test_a_station_that_says_nothing_leaves_nothing(self) -> None:
        world, _ = self.end("")
        assert world.tables.station_costs == {}

    def test_what_was_said_before_a_restart_is_remembered(self) -> None:
        world, session = Displays(BY_ENERGY), Session(head={"ocpp_version": "2.1"})
        world.told(session.started(seq_no=0))
        said = session.ended(10, 5000, seq_no=1, cost_details=told({"inclTax": Decimal("9.99")}))
        world.told(said | {"final": False, "state": "ending"})
        world.restart()
        world.told(session.ended(10, 5000))
        (cdr,) = world.tables.cdrs.values()
        assert DIFFERS in cdr["flags"]
