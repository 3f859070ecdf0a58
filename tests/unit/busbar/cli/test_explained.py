"""The explanation of a bill as people read it."""

from __future__ import annotations

from busbar.cli._explained import _NOTES, explanation_lines
from busbar.pricing.engine import Pricer
from busbar.pricing.explanation import explain
from busbar.pricing.facts import ended, sampled, started
from busbar.pricing.state import Note
from tests.unit.pricing.builders import CHARGING, MINUTE_MS, component, element, limit, ms, price, session, tariff

BERLIN = "Europe/Berlin"
BEGIN = ms("2026-03-11 22:30")


def test_limits_steps_and_fees_are_lines_of_their_own() -> None:
    capped = tariff(
        element(component("ENERGY", "1.00", step=1000), component("FLAT", "0.5")),
        max_price=limit("5.00"),
        currency="CHF",
    )
    lines = list(explanation_lines(explain(price(capped, session("2026-03-11 22:30", (CHARGING, 60, "7.4"))), BERLIN)))
    assert lines[0].endswith("Europe/Berlin, before tax:")
    assert [line[42:].split("  [")[0].strip() for line in lines[1:-1]] == [
        "FLAT 0.50 = 0.50 CHF",
        "ENERGY 7.400 kWh x 1.00/kWh = 7.40 CHF",
        "STEP of ENERGY 0.600 kWh x 1.00/kWh = 0.60 CHF",
        "MAXIMUM = -3.50 CHF",
    ]
    assert lines[2].startswith("   2 Wed 2026-03-11 23:30:00-Thu 00:30:00")
    assert lines[-1] == "     note tax_unknown: a price has no tax rate: it counts as untaxed"


def test_a_line_in_which_the_clock_is_changed_says_by_which_it_began_and_ended() -> None:
    parking = tariff(element(component("TIME", "3.00", "7")))
    facts = session("2026-10-25 00:17", (CHARGING, 61, 0))
    line = list(explanation_lines(explain(price(parking, facts), BERLIN)))[1]
    assert "Sun 2026-10-25 02:17:00 CEST-02:18:00 CET TIME 3660 s x 3.00/h = 3.05 EUR" in line


def test_a_change_of_the_tariff_is_said_and_each_line_says_whose_it_is() -> None:
    first = Pricer(tariff(element(component("ENERGY", "0.20", "19")), id="day"), BERLIN)
    state = first.advance(first.begin(), started(BEGIN, 0))
    state = first.advance(state, sampled(BEGIN + 30 * MINUTE_MS, 5000))
    other = tariff(element(component("ENERGY", "0.40", "19")), id="night")
    pricer, state = first.change(state, BEGIN + 30 * MINUTE_MS, other)
    bill = pricer.finish(pricer.advance(state, ended(BEGIN + 60 * MINUTE_MS, 10_000)))
    lines = list(explanation_lines(explain(bill, BERLIN)))
    assert lines[0].startswith("Tariff day (")
    assert lines[0].endswith(" until Thu 2026-03-12 00:00:00")
    assert lines[1].startswith("Tariff night (")
    assert "[day $.elements[0].price_components[0]: VAT 19 %]" in lines[2]
    assert "[night $.elements[0].price_components[0]: VAT 19 %]" in lines[3]


def test_every_note_is_put_into_words() -> None:
    assert set(_NOTES) == {note.value for note in Note}
