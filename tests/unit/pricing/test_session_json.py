"""Sessions that come as JSON: lists of facts, and OCPI's CDRs and Sessions."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busbar.pricing.engine import Pricer
from busbar.pricing.facts import ChargingState, FactKind, reservation_expired, reserved
from busbar.pricing.jsontext import parse_json, serialize_json
from busbar.pricing.ocpi_cdr import OcpiVersion, cdr_part
from busbar.pricing.problems import SessionError
from busbar.pricing.session_json import read_facts, read_ocpi_session
from tests.unit.pricing.builders import CHARGING, MINUTE_MS, PARKED, component, element, ms, price, session, tariff

BERLIN = "Europe/Berlin"
HALF = Decimal("0.5")
START = "2026-03-11 09:00"
TARIFF = tariff(
    element(component("TIME", "3.00", step=0), component("FLAT", "1.00"), reservation="RESERVATION"),
    element(component("ENERGY", "0.20"), max_kwh=Decimal("7.5")),
    element(component("ENERGY", "0.30")),
    element(component("PARKING_TIME", "6.00"), component("FLAT", "0.5")),
)


def problems(read: Any, value: Any) -> list[str]:
    with pytest.raises(SessionError) as caught:
        read(value)
    return [str(problem) for problem in caught.value.problems]


def test_facts_are_read_as_the_engine_takes_them() -> None:
    read = read_facts(
        [
            {"kind": "started", "at": "2026-03-11T10:00:00+01:00", "register_wh": 5},
            {"kind": "sampled", "at": "2026-03-11T09:30:00Z", "power_w": Decimal("7400.5"), "current_a": "32"},
            {"kind": "ended", "at": "2026-03-11T10:00:00Z", "register_wh": Decimal("10005.25"), "state": "SuspendedEV"},
        ]
    )
    first, second, third = read.facts
    assert (first.kind, first.at_ms, first.state) == (FactKind.STARTED, ms(START), ChargingState.CHARGING)
    assert (second.register_wh, second.power_w, second.current_a) == (None, Decimal("7400.5"), 32)
    assert (third.register_wh, third.state) == (Decimal("10005.25"), ChargingState.SUSPENDED_EV)


def test_every_fault_of_a_fact_is_named_with_its_place() -> None:
    assert problems(
        read_facts, [{"kind": "begun", "at": "noon"}, {"register_wh": True, "power": 1}, "x", {"kind": "ended"}]
    ) == [
        "$[0].kind: 'begun' is none of reserved, reservation_expired, reservation_cancelled, started, sampled, ended",
        "$[0].at: 'noon' is not a date and time as 2026-03-29T01:00:00Z",
        "$[1].power: is none of at, current_a, kind, power_w, register_wh, state",
        "$[1].kind: is missing",
        "$[1].at: is missing",
        "$[1].register_wh: is not a number",
        "$[2]: is not an object",
        "$[3].at: is missing",
    ]


def test_a_session_that_nothing_begins_is_refused() -> None:
    assert problems(read_facts, [{"kind": "ended", "at": "2026-03-11T09:00:00Z"}]) == [
        "$: nothing begins the session: a fact of the kind started is missing"
    ]


@pytest.mark.parametrize("version", list(OcpiVersion))
@settings(max_examples=40, deadline=None)
@given(
    before=st.integers(0, 40),
    stretches=st.lists(
        st.tuples(st.sampled_from([CHARGING, PARKED]), st.integers(1, 90), st.integers(1, 20)), min_size=1
    ),
)
def test_a_cdr_that_we_made_costs_what_it_says(
    version: OcpiVersion, before: int, stretches: list[tuple[ChargingState, int, int]]
) -> None:
    stretches = [(state, minutes, energy if state is CHARGING else 0) for state, minutes, energy in stretches]
    facts = session(START, *stretches)
    if before:
        facts = [reserved(ms(START) - before * MINUTE_MS), *facts]
    bill = price(TARIFF, facts)
    read = read_ocpi_session(parse_json(serialize_json(cdr_part(bill, version))))
    again = Pricer(TARIFF, BERLIN).price(read.facts)
    assert read.stated_excl == bill.total.excl_tax
    # Its volumes have four digits.
    assert abs(again.total.excl_tax - bill.total.excl_tax) <= Decimal("0.01")
    assert (again.duration_ms, again.parking_ms) == (bill.duration_ms, bill.parking_ms)
    assert read.remarks == ()


def test_a_reservation_that_nobody_used_stays_one() -> None:
    no_show = tariff(element(component("TIME", "6.00", step=0), reservation="RESERVATION_EXPIRES"))
    bill = price(no_show, [reserved(ms(START)), reservation_expired(ms(START) + 30 * MINUTE_MS)])
    read = read_ocpi_session(parse_json(serialize_json(cdr_part(bill))))
    assert Pricer(no_show, BERLIN).price(read.facts).total.excl_tax == Decimal("3.00")


def cdr(**more: Any) -> dict[str, Any]:
    periods = [
        {"start_date_time": "2026-03-11T09:00:00Z", "dimensions": [{"type": "ENERGY", "volume": 5}]},
        {
            "start_date_time": "2026-03-11T10:00:00Z",
            "dimensions": [
                {"type": "TIME", "volume": Decimal("0.5")},
                {"type": "PARKING_TIME", "volume": Decimal("0.5")},
            ],
        },
    ]
    return {"charging_periods": periods, "end_date_time": "2026-03-11T11:00:00Z"} | more


def test_a_period_with_charging_and_parking_is_charging_first() -> None:
    bill = Pricer(TARIFF, BERLIN).price(read_ocpi_session(cdr()).facts)
    assert (bill.duration_ms, bill.parking_ms) == (120 * MINUTE_MS, 30 * MINUTE_MS)


def test_without_an_end_the_last_period_says_how_long_it_was() -> None:
    facts = read_ocpi_session(cdr(end_date_time=None)).facts
    assert facts[-1].at_ms == ms("2026-03-11 11:00")


def test_contradictions_are_told_and_the_timestamps_and_periods_count() -> None:
    read = read_ocpi_session(cdr(end_date_time="2026-03-11T12:00:00Z", total_energy=7))
    assert read.remarks == (
        "$.charging_periods[1]: its volumes say 1 h, its timestamps 2 h: the timestamps count",
        "$.total_energy: 7 kWh, its periods 5 kWh: the periods count",
    )


def test_a_session_that_goes_on_without_periods_has_its_energy() -> None:
    session_object = {
        "start_date_time": "2026-03-11T09:00:00Z",
        "last_updated": "2026-03-11T09:30:00Z",
        "kwh": Decimal("3.3333333333333333"),
    }
    bill = Pricer(TARIFF, BERLIN).price(read_ocpi_session(session_object).facts)
    assert bill.energy_wh == Decimal("3333.333333")
    assert bill.duration_ms == 30 * MINUTE_MS


def test_every_fault_of_a_cdr_is_named_with_its_place() -> None:
    assert problems(
        read_ocpi_session,
        {
            "charging_periods": [
                {"start_date_time": "2026-03-11T09:00:00Z", "dimensions": []},
                {"dimensions": [{"type": "ENERGY"}, {"volume": 1}, 7]},
                None,
            ],
            "end_date_time": "then",
        },
    ) == [
        "$.charging_periods[0].dimensions: is empty",
        "$.charging_periods[1].start_date_time: is missing",
        "$.charging_periods[1].dimensions[0].volume: is missing",
        "$.charging_periods[1].dimensions[1].type: is missing",
        "$.charging_periods[1].dimensions[2]: is not an object",
        "$.charging_periods[2]: is not an object",
        "$.end_date_time: 'then' is not a date and time as 2026-03-29T01:00:00Z",
    ]
    assert problems(read_ocpi_session, {"charging_periods": None}) == ["$.charging_periods: is missing"]
    backwards = cdr()
    backwards["charging_periods"].reverse()
    assert problems(read_ocpi_session, backwards) == [
        "$.charging_periods[1].start_date_time: is before that of the period before"
    ]
    assert problems(read_ocpi_session, cdr(end_date_time="2026-03-11T09:30:00Z")) == [
        "$.end_date_time: is before the begin of the last charging period"
    ]
