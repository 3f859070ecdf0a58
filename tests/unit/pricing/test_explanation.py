"""What is kept of a bill beside its total."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from busbar.pricing.engine import Options, Pricer
from busbar.pricing.explanation import explain
from busbar.pricing.facts import reservation_expired, reserved
from busbar.pricing.jsontext import parse_json, serialize_json
from busbar.pricing.ocpi_tariff import parse_ocpi_tariff
from busbar.pricing.receipt import make_receipt, receipt_of
from tests.unit.pricing.builders import CHARGING, MINUTE_MS, PARKED, component, element, ms, price, session, tariff
from tests.unit.pricing.oracle import Stretch
from tests.unit.pricing.strategies import facts_of, starts, stretches, tariffs

BERLIN = "Europe/Berlin"
EVENING = tariff(
    element(component("ENERGY", "0.20", "19", 500), start_time="00:00", end_time="17:00"),
    element(component("ENERGY", "0.27", "19", 500), start_time="17:00", end_time="00:00"),
    element(component("PARKING_TIME", "6.00", "7"), component("FLAT", "0.5", "19")),
)


def test_a_line_says_which_price_applied_when_and_to_how_much() -> None:
    document = explain(price(EVENING, session("2026-03-11 15:00", (CHARGING, 120, "5.4"), (PARKED, 20, 0))), BERLIN)
    assert document["lines"][2] == {
        "kind": "ENERGY",
        "component": 1,
        "path": "$.elements[1].price_components[0]",
        "dimension": "ENERGY",
        "price": Decimal("0.27"),
        "per": "kWh",
        "taxes": [{"name": "VAT", "percent": Decimal(19)}],
        "when": "17:00-24:00",
        "begin": "2026-03-11T16:00:00Z",
        "end": "2026-03-11T17:00:00Z",
        "period": 1,
        "kwh": Decimal("2.7"),
        "excl_tax": Decimal("0.729"),
        "incl_tax": Decimal("0.86751"),
    }
    assert document["lines"][3]["seconds"] == 1200
    assert document["session"]["parking_seconds"] == 1200
    assert document["lines"][-1]["kind"] == "ROUNDING"


def test_a_reservation_without_a_session_says_so() -> None:
    no_show = tariff(element(component("TIME", "6.00", step=0), reservation="RESERVATION_EXPIRES"))
    begin = ms("2026-03-11 09:00")
    document = explain(price(no_show, [reserved(begin), reservation_expired(begin + 30 * MINUTE_MS)]), BERLIN)
    assert document["reservation"] == {"begin": "2026-03-11T09:00:00Z", "end": "2026-03-11T09:30:00Z"}
    assert "session" not in document


@settings(max_examples=40, deadline=None)
@given(data=tariffs(), start=starts, stretch=stretches, detailed=st.booleans(), keep=st.booleans())
def test_a_receipt_made_of_what_was_kept_is_the_receipt_of_the_bill(
    data: dict[str, Any], start: datetime, stretch: list[Stretch], detailed: bool, keep: bool
) -> None:
    pricer = Pricer(parse_ocpi_tariff(data), BERLIN, Options(keep_periods=keep))
    bill = pricer.price(facts_of(start, stretch, None))
    kept = parse_json(serialize_json(explain(bill, BERLIN)))
    assert receipt_of(kept, detailed=detailed) == make_receipt(bill, BERLIN, detailed=detailed)
    for side in ("excl_tax", "incl_tax"):
        assert sum(line[side] for line in kept["lines"]) == kept["total"][side]
