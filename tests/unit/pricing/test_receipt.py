"""Receipts for drivers."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from busbar.pricing.credit_note import taken_back
from busbar.pricing.engine import Pricer
from busbar.pricing.explanation import explain
from busbar.pricing.facts import reservation_expired, reserved
from busbar.pricing.ocpi_tariff import parse_ocpi_tariff
from busbar.pricing.receipt import Heading, make_receipt, receipt_of, receipt_text
from busbar.pricing.receipt_page import receipt_html
from tests.unit.pricing.builders import (
    CHARGING,
    MINUTE_MS,
    PARKED,
    component,
    element,
    exactly,
    limit,
    ms,
    price,
    session,
    tariff,
)
from tests.unit.pricing.oracle import Stretch
from tests.unit.pricing.strategies import facts_of, starts, stretches, tariffs

BERLIN = "Europe/Berlin"
SWITCHING = tariff(
    element(component("ENERGY", "0.20", "19", 500), start_time="00:00", end_time="17:00"),
    element(component("ENERGY", "0.27", "19", 500), start_time="17:00", end_time="00:00"),
    element(component("PARKING_TIME", "6.00", "7"), component("FLAT", "0.5", "19")),
)
FACTS = session("2026-03-11 15:00", (CHARGING, 120, "5.4"), (PARKED, 20.5, 0))


def test_a_driver_can_follow_it_line_by_line() -> None:
    heading = Heading("Charging receipt", "Stadtwerke Musterstadt", "Marktplatz 1", "DE*ABC*E1", "R-7")
    receipt = make_receipt(price(SWITCHING, FACTS), BERLIN, heading)
    assert receipt_text(receipt).splitlines() == [
        "Charging receipt",
        "================",
        "Stadtwerke Musterstadt",
        "Marktplatz 1",
        "Receipt:       R-7",
        "Station:       DE*ABC*E1",
        "Begin:         2026-03-11 16:00:00 CET",
        "End:           2026-03-11 18:20:30 CET",
        "Duration:      2 h 20 min 30 s",
        "Parked:        20 min 30 s",
        "Energy:        5.400 kWh",
        "-" * 72,
        "Fee                                                             0.50 EUR",
        "    VAT 19 %",
        "Energy (00:00-17:00)                                            0.54 EUR",
        "    2.700 kWh x 0.20 EUR/kWh, VAT 19 %",
        "Energy (17:00-24:00)                                            0.73 EUR",
        "    2.700 kWh x 0.27 EUR/kWh, VAT 19 %",
        "Parking time                                                    2.05 EUR",
        "    20 min 30 s x 6.00 EUR/h, VAT 7 %",
        "Up to the next step of energy                                   0.03 EUR",
        "    0.100 kWh x 0.27 EUR/kWh, VAT 19 %",
        "-" * 72,
        "Sum before tax                                                  3.85 EUR",
        "VAT 19 %                                                        0.34 EUR",
        "VAT 7 %                                                         0.14 EUR",
        "Total                                                           4.33 EUR",
    ]


def test_gross_prices_are_shown_as_such() -> None:
    gross = tariff(element(component("ENERGY", "0.50", "19")), tax_included="YES")
    receipt = make_receipt(price(gross, session("2026-03-11 09:00", (CHARGING, 60, 10))), BERLIN)
    assert [(row.quantity, row.price, row.amount) for row in receipt.rows] == [
        ("10.000 kWh", "0.50 EUR/kWh", "5.00 EUR")
    ]
    assert receipt.sums == (("including VAT 19 %", "0.80 EUR"), ("Total", "5.00 EUR"))


def test_a_detailed_one_has_a_row_for_each_stretch() -> None:
    receipt = make_receipt(price(SWITCHING, FACTS), BERLIN, detailed=True)
    assert [row.what for row in receipt.rows][:4] == [
        "Fee",
        "Energy (Wed 11 Mar 16:00-17:00)",
        "Energy (Wed 11 Mar 17:00-18:00)",
        "Parking time (Wed 11 Mar 18:00-18:20:30)",
    ]
    assert [row.amount for row in receipt.rows] == [
        "0.500 EUR",
        "0.540 EUR",
        "0.729 EUR",
        "2.050 EUR",
        "0.027 EUR",
        "0.004 EUR",
    ]


def test_a_stretch_in_which_the_clock_is_changed_says_by_which_it_began_and_ended() -> None:
    by_time = tariff(element(component("TIME", "1.00", step=0)))
    facts = session("2026-10-24 20:00", (CHARGING, 10 * 60, 20))
    row = make_receipt(price(by_time, facts), BERLIN, detailed=True).rows[0]
    assert row.what == "Charging time (Sat 24 Oct 22:00 CEST-Sun 25 Oct 07:00 CET)"
    assert row.quantity == "10 h"


def test_what_rounding_the_rows_takes_away_is_a_row_and_a_step_of_nothing_is_none() -> None:
    thirds = tariff(element(component("ENERGY", "0.333", step=1000), component("TIME", "0.333")))
    facts = session("2026-03-11 09:00", (CHARGING, 60, "3.999"), (PARKED, 60, 0))
    rows = make_receipt(price(thirds, facts), BERLIN).rows
    assert [(row.what, row.quantity, row.amount) for row in rows] == [
        ("Energy", "3.999 kWh", "1.33 EUR"),
        ("Charging time", "1 h", "0.33 EUR"),
        ("Rounding", "", "0.01 EUR"),
    ]


def test_without_minor_units_and_with_more_digits_than_they_have_amounts_line_up() -> None:
    yen = tariff(element(component("ENERGY", "45.5"), component("TIME", "300")), currency="JPY")
    facts = session("2026-03-11 09:00", (CHARGING, 60, "5.4"))
    assert [row.amount for row in make_receipt(price(yen, facts), BERLIN).rows] == ["246 JPY", "300 JPY"]
    fine = make_receipt(price(SWITCHING, FACTS, options=exactly()), BERLIN)
    assert len({len(amount) - amount.index(".") for _, amount in fine.sums}) == 1
    assert len({len(row.amount) - row.amount.index(".") for row in fine.rows}) == 1


def test_a_credit_names_what_it_takes_back_and_a_credited_record_its_credit() -> None:
    document = explain(price(SWITCHING, FACTS), BERLIN)
    credit = Heading("Credit note", receipt_id="R-7-C", credit_of="R-7")
    assert receipt_text(receipt_of(taken_back(document), credit)).splitlines()[2:4] == [
        "Credit note:   R-7-C",
        "Takes back:    R-7",
    ]
    old = receipt_of(document, Heading(receipt_id="R-7", credited_by="R-7-C"))
    assert "Taken back by: R-7-C" in receipt_text(old).splitlines()
    assert "<dt>Taken back by</dt><dd>R-7-C</dd>" in receipt_html(old)


def test_the_page_tells_those_who_cannot_see_it_what_each_amount_is_of() -> None:
    page = receipt_html(make_receipt(price(SWITCHING, FACTS), BERLIN))
    assert "<caption>What was charged</caption>" in page
    rate = "VAT 7\N{NO-BREAK SPACE}%"
    head = f'<th scope="row">Parking time<small>20 min 30 s × 6.00 EUR/h, {rate}</small></th>'
    assert f"{head}<td>2.05 EUR</td>" in page


def test_limits_and_conditions_are_said() -> None:
    capped = tariff(
        element(
            component("ENERGY", "1.00"),
            min_power=11,
            max_power=22,
            day_of_week=["MONDAY", "WEDNESDAY"],
            max_kwh=Decimal("7.5"),
        ),
        element(component("ENERGY", "2.00"), min_duration=600),
        max_price=limit("5.00"),
    )
    receipt = make_receipt(price(capped, session("2026-03-11 09:00", (CHARGING, 60, 15))), BERLIN)
    assert [(row.what, row.amount) for row in receipt.rows] == [
        ("Energy (Mon Wed, below 7.5 kWh, 11 to 22 kW)", "7.50 EUR"),
        ("Energy (from 10 min)", "15.00 EUR"),
        ("Down to the maximum price", "-17.50 EUR"),
    ]
    assert receipt.sums == (("Total", "5.00 EUR"),)


def test_a_reservation_that_expired_has_no_session() -> None:
    no_show = tariff(element(component("TIME", "6.00", step=0), reservation="RESERVATION_EXPIRES"))
    begin = ms("2026-03-11 09:00")
    bill = price(no_show, [reserved(begin), reservation_expired(begin + 30 * MINUTE_MS)])
    text = receipt_text(make_receipt(bill, BERLIN))
    assert "Reserved:      2026-03-11 10:00:00 CET to 2026-03-11 10:30:00 CET" in text
    assert "    30 min x 6.00 EUR/h" in text


def test_currencies_have_their_own_digits() -> None:
    for currency, total in (("JPY", "3 JPY"), ("KWD", "2.700 KWD")):
        own = tariff(element(component("ENERGY", "0.50")), currency=currency)
        receipt = make_receipt(price(own, session("2026-03-11 09:00", (CHARGING, 60, "5.4"))), "Asia/Tokyo")
        assert receipt.sums == (("Total", total),)


def test_what_a_driver_should_know_is_said() -> None:
    facts = session("2026-03-11 09:00", (CHARGING, 60, 10))[:1]
    text = receipt_text(make_receipt(price(SWITCHING, facts), BERLIN))
    assert text.endswith("The session goes on: this is what it costs so far.\n")


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=30))
def test_no_text_of_others_becomes_markup_or_moves_the_cursor(text: str) -> None:
    evil = f"<script>alert(1)</script>\"'&{text}\x1b[2J\r\n"
    receipt = make_receipt(price(SWITCHING, FACTS), BERLIN, Heading(evil, evil, evil, evil, evil))
    parser = _Parser()
    parser.feed(receipt_html(receipt))
    assert "script" not in parser.tags
    assert parser.tags.count("h1") == 1
    assert "\x1b" not in receipt_text(receipt)
    assert len(receipt_text(receipt).splitlines()) == len(
        receipt_text(make_receipt(price(SWITCHING, FACTS), BERLIN, Heading("a", "b", "c", "d", "e"))).splitlines()
    )


@settings(max_examples=25, deadline=None)
@given(data=tariffs(), start=starts, stretch=stretches, detailed=st.booleans())
def test_the_rows_add_up_to_what_is_paid(
    data: dict[str, Any], start: datetime, stretch: list[Stretch], detailed: bool
) -> None:
    read = parse_ocpi_tariff(data)
    receipt = make_receipt(Pricer(read, BERLIN).price(facts_of(start, stretch, None)), BERLIN, detailed=detailed)

    def amount(text: str) -> Decimal:
        return Decimal(text.split(" ", maxsplit=1)[0])

    rows = sum((amount(row.amount) for row in receipt.rows), Decimal(0))
    *sums, (_, paid) = receipt.sums
    if data["tax_included"] == "YES":
        assert rows == amount(paid)
    else:
        taxes = sum((amount(text) for label, text in sums if label != "Sum before tax"), Decimal(0))
        assert rows + taxes == amount(paid)
    assert receipt_html(receipt).count("<tr>") == len(receipt.rows) + len(receipt.sums)
