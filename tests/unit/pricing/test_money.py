"""Rounding, taxes and limits."""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Any

import pytest

from busbar.pricing.bill import CostType, LineKind, TaxAmount
from busbar.pricing.engine import Options, Pricer
from busbar.pricing.money import RoundAt, Rounding, RoundingMode
from busbar.pricing.state import Note
from busbar.pricing.tariff import Tariff
from tests.unit.pricing.builders import (
    CHARGING,
    PARKED,
    assert_adds_up,
    component,
    element,
    limit,
    money,
    price,
    session,
    tariff,
    totals,
)

START = "2026-03-11 09:00"
HOUR = session(START, (CHARGING, 60, 10))


def fee(amount: str, vat: str | None = None, **fields: Any) -> Tariff:
    return tariff(element(component("FLAT", amount, vat)), **fields)


class TestRounding:
    @pytest.mark.parametrize(
        ("currency", "amount", "charged"),
        [
            ("EUR", "0.125", "0.13"),
            ("JPY", "100.5", "101"),
            ("JPY", "0.49", "0"),
            ("KWD", "0.1235", "0.124"),
            ("CLF", "0.00005", "0.0001"),
        ],
    )
    def test_the_currency_says_to_how_many_digits(self, currency: str, amount: str, charged: str) -> None:
        total = price(fee(amount, currency=currency), HOUR).total.excl_tax
        assert str(total) == charged

    @pytest.mark.parametrize(
        ("mode", "charged"),
        [("HALF_UP", "0.13"), ("HALF_EVEN", "0.12"), ("HALF_DOWN", "0.12"), ("UP", "0.13"), ("DOWN", "0.12")],
    )
    def test_the_mode_is_a_matter_of_contract(self, mode: str, charged: str) -> None:
        options = Options(rounding=Rounding(RoundingMode(mode)))
        assert price(fee("0.125"), HOUR, options=options).total.excl_tax == Decimal(charged)

    def test_a_tie_of_parts_that_do_not_end_is_still_a_tie(self) -> None:
        # A third of 0.005 and two thirds of it: exactly half a cent, which no sum of rounded parts shows.
        thirds = tariff(element(component("TIME", "0.015"), component("PARKING_TIME", "0.015")))
        facts = session(START, (CHARGING, 20 / 3, 0), (PARKED, 40 / 3, 0))
        assert price(thirds, facts).total.excl_tax == Decimal("0.01")

    def test_where_it_is_rounded_can_cost_cents(self) -> None:
        three = tariff(element(component("FLAT", "0.004"), component("TIME", "0.004"), component("ENERGY", "0.0004")))
        charged = {at: price(three, HOUR, options=Options(rounding=Rounding(at=at))).total.excl_tax for at in RoundAt}
        assert charged[RoundAt.TOTAL] == Decimal("0.01")
        assert charged[RoundAt.DIMENSION] == charged[RoundAt.LINE] == 0

    def test_the_thread_s_decimal_context_does_not_matter(self) -> None:
        expected = price(fee("12345.678", "19"), HOUR)
        with localcontext() as context:
            context.prec = 3
            assert price(fee("12345.678", "19"), HOUR) == expected

    def test_a_line_says_what_the_rounding_took(self) -> None:
        bill = price(fee("0.126"), HOUR)
        assert [line.kind for line in bill.lines] == [LineKind.FLAT, LineKind.ROUNDING]
        assert bill.lines[1].excl_tax == Decimal("0.004")

    def test_an_impossible_number_of_digits_is_refused(self) -> None:
        with pytest.raises(ValueError, match="fraction digits"):
            Rounding(digits=11)


class TestTaxes:
    def test_each_component_has_its_own(self) -> None:
        mixed = tariff(
            element(component("FLAT", "1.00", "7"), component("ENERGY", "0.30", "19"), component("TIME", "2.00", "0"))
        )
        bill = price(mixed, HOUR)
        assert bill.total == money("6.00", "6.64")
        assert bill.taxes == (
            TaxAmount("VAT", Decimal(7), Decimal("0.07")),
            TaxAmount("VAT", Decimal(19), Decimal("0.57")),
            TaxAmount("VAT", Decimal(0), Decimal("0.00")),
        )

    def test_prices_may_include_them(self) -> None:
        bill = price(tariff(element(component("ENERGY", "0.50", "19")), tax_included="YES"), HOUR)
        assert bill.total == money("4.20", "5.00")

    def test_they_may_not_apply(self) -> None:
        bill = price(tariff(element(component("ENERGY", "0.50")), tax_included="N/A"), HOUR)
        assert bill.total == money(5, 5)
        assert bill.taxes == ()
        assert Note.TAX_UNKNOWN not in bill.notes

    def test_a_price_without_a_rate_is_untaxed_and_said(self) -> None:
        bill = price(tariff(element(component("ENERGY", "0.50"))), HOUR)
        assert bill.total == money(5, 5)
        assert Note.TAX_UNKNOWN in bill.notes
        assert Note.TAX_UNKNOWN not in price(fee("0"), HOUR).notes

    def test_shares_of_a_cent_go_to_the_largest_remainder(self) -> None:
        two = tariff(element(component("FLAT", "0.05", "7"), component("ENERGY", "0.005", "19")))
        bill = price(two, HOUR)
        assert bill.total.tax == Decimal("0.01")
        assert [tax.amount for tax in bill.taxes] == [0, Decimal("0.01")]
        assert_adds_up(bill)


class TestLimits:
    mixed = element(component("FLAT", "1.00", "0"), component("ENERGY", "1.00", "20"))
    """10 kWh: 11.00 before tax and 13.00 after it."""

    @pytest.mark.parametrize(
        ("fields", "excl_tax", "incl_tax", "cost_type"),
        [
            ({"max_price": limit("10.99", "13.01")}, "10.99", "13", CostType.MAXIMUM),
            ({"max_price": limit("11.01", "12.50")}, "11", "12.5", CostType.MAXIMUM),
            ({"max_price": limit("11.00", "13.00")}, "11", "13", CostType.NORMAL),
            ({"min_price": limit("11.50", "12.00")}, "11.5", "13", CostType.MINIMUM),
            ({"min_price": limit("10.00", "14.00")}, "11", "14", CostType.MINIMUM),
            ({"min_price": limit("11.00", "13.00")}, "11", "13", CostType.NORMAL),
            (
                {"min_price": limit("12.00", "12.50"), "max_price": limit("12.10", "12.60")},
                "12",
                "12.6",
                CostType.MAXIMUM,
            ),
        ],
    )
    def test_the_sides_before_and_after_tax_act_on_their_own(
        self, fields: dict[str, Any], excl_tax: str, incl_tax: str, cost_type: CostType
    ) -> None:
        bill = price(tariff(self.mixed, **fields), HOUR)
        assert bill.total == money(Decimal(excl_tax), Decimal(incl_tax))
        assert bill.cost_type is cost_type
        assert_adds_up(bill)

    @pytest.mark.parametrize(("name", "amount"), [("max_price", "5.50"), ("min_price", "22.00")])
    def test_a_side_that_is_left_open_follows_with_the_session_s_own_tax(self, name: str, amount: str) -> None:
        fields: dict[str, Any] = {name: limit(amount)}
        bill = price(tariff(self.mixed, **fields), HOUR)
        assert bill.total == money(Decimal(amount), Decimal(amount) * 13 / 11)
        assert_adds_up(bill)

    def test_a_minimum_of_nothing_has_the_tariff_s_tax_if_it_has_one(self) -> None:
        empty = session(START, (CHARGING, 60, 0))
        one_rate = tariff(element(component("ENERGY", "1.00", "20")), min_price=limit("5.00"))
        assert totals(one_rate, empty) == money(5, 6)
        several = tariff(element(component("ENERGY", "1", "20"), component("TIME", "0", "7")), min_price=limit("5"))
        assert totals(several, empty) == money(5, 5)

    def test_a_limit_is_a_line_of_the_bill(self) -> None:
        bill = price(tariff(self.mixed, min_price=limit("20.00", "24.00")), HOUR)
        assert bill.lines[-1].kind is LineKind.MINIMUM
        assert (bill.lines[-1].excl_tax, bill.lines[-1].incl_tax) == money(9, 11)

    def test_the_running_cost_stops_at_the_maximum_and_leaves_out_the_minimum(self) -> None:
        most = Pricer(tariff(self.mixed, min_price=limit("4"), max_price=limit("10.00", "11.00")), "UTC")
        state = most.advance(most.begin(), HOUR[0])
        assert most.cost(state).incl_tax == 1
        assert most.cost(state).cost_type is CostType.NORMAL
        state = most.advance(state, HOUR[-1])
        assert (most.cost(state).excl_tax, most.cost(state).incl_tax) == money(10, 11)
        assert most.cost(state).cost_type is CostType.MAXIMUM
        assert most.finish(state).total == money(10, 11)
