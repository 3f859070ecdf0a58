"""What a display says of a tariff."""

from __future__ import annotations

from decimal import Decimal

from busbar.pricing.edges import PriceEdges, Situation
from busbar.pricing.ocpp_tariff import parse_ocpp_tariff
from busbar.pricing.price_text import own_texts, price_text
from busbar.pricing.tariff import Tariff
from tests.unit.pricing.builders import component, element, ms, tariff


def text(priced: Tariff, at: str = "2026-01-14 12:00", zone: str = "Europe/Berlin") -> str:
    return price_text(priced, PriceEdges(priced, zone), Situation(ms(at)), zone)


def test_every_price_has_its_unit_and_includes_the_tax() -> None:
    priced = tariff(
        element(component("ENERGY", "0.375", vat="20"), component("TIME", "3"), component("FLAT", "1.00")),
        element(component("PARKING_TIME", "6")),
    )
    assert text(priced) == "EUR 0.45/kWh, 3.00/h, 1.00 per session, 6.00/h parked"


def test_a_price_finer_than_the_currency_keeps_its_digits() -> None:
    assert text(tariff(element(component("ENERGY", "0.4567")))) == "EUR 0.4567/kWh"
    assert text(tariff(element(component("ENERGY", "45")), currency="JPY")) == "JPY 45/kWh"


def test_what_is_free_is_said_to_be_free() -> None:
    assert text(tariff(element(component("FLAT", "0.00", step=0)))) == "EUR 0: free of charge"


def test_a_change_within_the_day_is_announced_in_local_time() -> None:
    priced = tariff(
        element(component("ENERGY", "0.25"), start_time="22:00", end_time="06:00"), element(component("ENERGY", "0.5"))
    )
    assert text(priced) == "EUR 0.50/kWh; from 22:00 EUR 0.25/kWh"
    assert text(priced, "2026-01-14 23:00") == "EUR 0.25/kWh; from 06:00 EUR 0.50/kWh"


def test_a_change_after_some_time_is_said_as_a_grace() -> None:
    idle = {"prices": [{"priceMinute": Decimal("0.1"), "conditions": {"minIdleTime": 590}}]}
    priced = parse_ocpp_tariff({"tariffId": "T", "currency": "EUR", "idleTime": idle})
    assert text(priced) == "EUR 6.00/h parked after 10 min"


def test_a_tariff_may_bring_its_own_words() -> None:
    spoken = tariff(
        element(component("ENERGY", "0.5")),
        tariff_alt_text=[{"language": "en", "text": "Half a euro"}, {"language": "de", "text": "x" * 600}],
    )
    assert own_texts(spoken) == {"en": "Half a euro", "de": "x" * 512}
    assert own_texts(tariff(element(component("ENERGY", "0.5")))) == {}
    described = parse_ocpp_tariff(
        {"tariffId": "T", "currency": "EUR", "description": [{"format": "UTF8", "language": "fr", "content": "cher"}]}
    )
    assert own_texts(described) == {"fr": "cher"}
