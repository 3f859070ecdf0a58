"""The worked examples of the OCPI specification, and of engines that follow it, as statements of our own."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest

from busbar.pricing.bill import CostType
from busbar.pricing.engine import Options
from busbar.pricing.facts import Fact, ended, reservation_expired, reserved, sampled, started
from busbar.pricing.money import RoundAt, Rounding
from busbar.pricing.tariff import Dimension, Tariff
from tests.unit.pricing.builders import (
    CHARGING,
    MINUTE_MS,
    PARKED,
    WEEKDAYS,
    assert_adds_up,
    component,
    element,
    exactly,
    excl,
    limit,
    money,
    ms,
    price,
    session,
    tariff,
)

PER_KWH = component("ENERGY", "0.25", "10.0")
START_FEE = component("FLAT", "0.50", "20.0")
LIMITED: dict[str, Any] = {"max_price": limit("10.00", "11.00")}
MORNING = "2026-03-11 09:00"
CHARGED_20 = session(MORNING, (CHARGING, 120, 20), every_minutes=15)
COMPLEX = tariff(
    element(component("FLAT", "2.50", "15.0")),
    element(component("TIME", "1.00", "20.0", 900), max_current="32.00"),
    element(component("TIME", "2.00", "20.0", 600), min_current="32.00", day_of_week=WEEKDAYS),
    element(component("TIME", "1.25", "20.0", 600), min_current="32.00", day_of_week=["SATURDAY", "SUNDAY"]),
    element(component("PARKING_TIME", "5.00", "10.0", 300), start_time="09:00", end_time="18:00", day_of_week=WEEKDAYS),
    element(
        component("PARKING_TIME", "6.00", "10.0", 300), start_time="10:00", end_time="17:00", day_of_week=["SATURDAY"]
    ),
)
SWITCHING = tariff(
    element(
        component("TIME", "1.20", step=1800),
        component("PARKING_TIME", "1.00", step=900),
        start_time="00:00",
        end_time="17:00",
    ),
    element(
        component("TIME", "2.40", step=900),
        component("PARKING_TIME", "1.00", step=900),
        start_time="17:00",
        end_time="20:00",
    ),
    element(component("TIME", "2.40", step=900), start_time="20:00", end_time="00:00"),
)


def with_reservation(*elements: dict[str, Any]) -> Tariff:
    return tariff(*elements, element(START_FEE, PER_KWH))


EXPIRY_FEE = with_reservation(
    element(component("FLAT", "4.00", "20.0"), reservation="RESERVATION_EXPIRES"),
    element(component("TIME", "2.00", "20.0", 600), reservation="RESERVATION"),
)
EXPIRY_TIME = with_reservation(
    element(component("TIME", "6.00", "20.0", 600), reservation="RESERVATION_EXPIRES"),
    element(component("TIME", "3.00", "20.0", 600), reservation="RESERVATION"),
)


def used_after(minutes: int) -> list[Fact]:
    return [reserved(ms(MORNING) - minutes * MINUTE_MS), *CHARGED_20]


def expired_after(minutes: int) -> list[Fact]:
    return [reserved(ms(MORNING)), reservation_expired(ms(MORNING) + minutes * MINUTE_MS)]


def with_current(start: str, amperes: int, *stretches: Any) -> list[Fact]:
    """The current comes with each sample, and falls to 0 when the EV stops charging."""
    facts = session(start, *stretches, every_minutes=15)
    full = max(fact.register_wh or 0 for fact in facts)
    return [
        fact
        if fact is facts[0] or fact is facts[-1]
        else sampled(
            fact.at_ms, fact.register_wh, fact.state, current_a=amperes if (fact.register_wh or 0) < full else 0
        )
        for fact in facts
    ]


@dataclass(frozen=True)
class Example:
    tariff: Tariff
    facts: list[Fact]
    excl_tax: str
    incl_tax: str | None = None
    billed: dict[Dimension, str] = field(default_factory=dict)
    """kWh, minutes."""
    costs: dict[Dimension, str] = field(default_factory=dict)
    zone: str = "Europe/Berlin"


ENERGY, TIME, PARKING, FLAT = Dimension.ENERGY, Dimension.TIME, Dimension.PARKING_TIME, Dimension.FLAT
RESERVED, RESERVED_FLAT = Dimension.RESERVATION_TIME, Dimension.RESERVATION_FLAT
BILLED_BY_HOUR = tariff(element(component("TIME", "2.00", "10.0", 60)))
FIRST_KWH = tariff(element(component("ENERGY", "0.25", "10.0")))

EXAMPLES = {
    "a price per kWh": Example(FIRST_KWH, CHARGED_20, "5", "5.5"),
    "a start fee": Example(
        tariff(element(START_FEE, PER_KWH)), CHARGED_20, "5.5", "6.1", costs={FLAT: "0.5", ENERGY: "5"}
    ),
    "a minimum that is exceeded": Example(
        tariff(element(PER_KWH), min_price=limit("0.50", "0.55")), CHARGED_20, "5", "5.5"
    ),
    "a minimum": Example(
        tariff(element(PER_KWH), min_price=limit("0.50", "0.55")),
        session(MORNING, (CHARGING, 30, "1.2"), every_minutes=15),
        "0.5",
        "0.55",
    ),
    "parking in quarters of an hour": Example(
        tariff(element(START_FEE, PER_KWH, component("PARKING_TIME", "2.00", "20.0", 900))),
        session(MORNING, (CHARGING, 120, 20), (PARKED, 40, 0), every_minutes=15),
        "7",
        "7.9",
        {PARKING: "45"},
        {FLAT: "0.5", ENERGY: "5", PARKING: "1.5"},
    ),
    "a maximum": Example(
        tariff(element(START_FEE, PER_KWH), **LIMITED), session(MORNING, (CHARGING, 240, 50)), "10", "11"
    ),
    "a maximum that is not reached": Example(
        tariff(element(START_FEE, PER_KWH), **LIMITED), session(MORNING, (CHARGING, 180, 30)), "8", "8.85"
    ),
    "a price per hour": Example(BILLED_BY_HOUR, session(MORNING, (CHARGING, 150, 18)), "5", "5.5"),
    "no price for parking": Example(BILLED_BY_HOUR, session(MORNING, (CHARGING, 150, 18), (PARKED, 60, 0)), "5", "5.5"),
    "no VAT known": Example(
        tariff(element(component("TIME", "2.00"))),
        session("2026-03-11 14:00", (CHARGING, 150, 18)),
        "5",
        zone="America/Toronto",
    ),
    "gross prices without VAT": Example(
        tariff(element(component("TIME", "2.10")), tax_included="YES"),
        session("2026-03-11 14:00", (CHARGING, 150, 18)),
        "5.25",
        "5.25",
        zone="America/Toronto",
    ),
    "charging and parking": Example(
        tariff(element(component("TIME", "3.00", "10.0", 60), component("PARKING_TIME", "5.00", "20.0", 300))),
        session(MORNING, (CHARGING, 150, 18), (PARKED, 42, 0)),
        "11.25",
        "12.75",
        {TIME: "150", PARKING: "45"},
    ),
    "a VAT with a fraction": Example(
        tariff(element(component("TIME", "1.90", "5.2", 300))),
        session(MORNING, (CHARGING, 150, 18)),
        "4.75",
        "4.997",
    ),
    "a step of 100 Wh": Example(
        tariff(element(START_FEE, component("ENERGY", "0.25", "10.0", 100))),
        session(MORNING, (CHARGING, 120, "20.45")),
        "5.625",
        "6.2375",
        {ENERGY: "20.5"},
    ),
    "the complex one on a Monday": Example(
        COMPLEX,
        with_current("2026-03-09 08:30", 16, (CHARGING, 165, 30), (PARKED, 42, 0)),
        "9",
        "10.3",
        {TIME: "165", PARKING: "45"},
        {FLAT: "2.5", TIME: "2.75", PARKING: "3.75"},
    ),
    "the complex one on a Saturday": Example(
        COMPLEX,
        with_current("2026-03-14 12:30", 43, (CHARGING, 114, 50), (PARKED, 71, 0)),
        "12.375",
        "13.975",
        {TIME: "114", PARKING: "75"},
        {FLAT: "2.5", TIME: "2.375", PARKING: "7.5"},
    ),
    "free of charge with a step of 0": Example(
        tariff(element(component("FLAT", "0.00", step=0))),
        session(MORNING, (CHARGING, 120, 20), (PARKED, 30, 0)),
        "0",
        "0",
    ),
    "a reservation": Example(
        with_reservation(element(component("TIME", "5.00", "20.0", 60), reservation="RESERVATION")),
        used_after(15),
        "6.75",
        "7.6",
        costs={RESERVED: "1.25", FLAT: "0.5", ENERGY: "5"},
    ),
    "a reservation with a fee and steps": Example(
        with_reservation(
            element(
                component("FLAT", "2.00", "20.0"), component("TIME", "5.00", "20.0", 300), reservation="RESERVATION"
            )
        ),
        used_after(13),
        "8.75",
        "10",
        {RESERVED: "15"},
        {RESERVED_FLAT: "2", RESERVED: "1.25", FLAT: "0.5", ENERGY: "5"},
    ),
    "a fee for expiry, not expired": Example(EXPIRY_FEE, used_after(22), "6.5", "7.3", {RESERVED: "30"}),
    "a fee for expiry, expired": Example(
        EXPIRY_FEE, expired_after(60), "6", "7.2", costs={RESERVED_FLAT: "4", RESERVED: "2"}
    ),
    "a price for expiry, not expired": Example(EXPIRY_TIME, used_after(22), "7", "7.9", {RESERVED: "30"}),
    "a price for expiry, expired": Example(EXPIRY_TIME, expired_after(90), "9", "10.8", costs={RESERVED: "9"}),
    **{
        f"a step of {step} Wh on 115.2 Wh": Example(
            tariff(element(component("ENERGY", "0.25", "10.0", step))),
            session(MORNING, (CHARGING, 10, "0.1152")),
            total,
            billed={ENERGY: billed},
        )
        for step, total, billed in ((1, "0.029", "0.116"), (25, "0.03125", "0.125"), (500, "0.125", "0.5"))
    },
    "steps across 17:00, then parking": Example(
        SWITCHING,
        session("2026-03-11 15:55", (CHARGING, 10, "1.5"), (PARKED, 2, 0)),
        "0.55",
        None,
        {TIME: "10", PARKING: "15"},
        {TIME: "0.3", PARKING: "0.25"},
    ),
    "steps across 17:00": Example(
        SWITCHING, session("2026-03-11 15:35", (CHARGING, 35, "5.25")), "1.3", billed={TIME: "45"}
    ),
    "parking that becomes free": Example(
        SWITCHING,
        session("2026-03-11 18:40", (CHARGING, 12, "1.8"), (PARKED, 20, 0)),
        "0.73",
        None,
        {TIME: "12", PARKING: "15"},
        {TIME: "0.48", PARKING: "0.25"},
    ),
    "prices by power": Example(
        tariff(
            element(component("ENERGY", "0.20", "20.0"), max_power="16.00"),
            element(component("ENERGY", "0.35", "20.0"), max_power="32.00"),
            element(component("ENERGY", "0.50", "20.0")),
        ),
        session(MORNING, (CHARGING, 10, 1), (CHARGING, 50, 40), (CHARGING, 7.5, "0.5"), every_minutes=15),
        "20.3",
        "24.36",
    ),
    "prices by duration": Example(
        tariff(
            element(component("ENERGY", "0.00", "20.0"), max_duration=1800),
            element(component("ENERGY", "0.25", "20.0"), max_duration=3600),
            element(component("ENERGY", "0.40", "20.0")),
        ),
        session(MORNING, (CHARGING, 30, 5), (CHARGING, 10, "1.2")),
        "0.3",
        "0.36",
    ),
    "the step of parking after charging": Example(
        tariff(element(component("TIME", "1.00", step=300), component("PARKING_TIME", "1.00", step=300))),
        session(MORNING, (CHARGING, 21, 3), (PARKED, 7, 0)),
        "0.5166666667",
        None,
        {TIME: "21", PARKING: "10"},
    ),
    "the step of energy across 17:00": Example(
        tariff(
            element(component("ENERGY", "0.20", step=500), start_time="00:00", end_time="17:00"),
            element(component("ENERGY", "0.27", step=500), start_time="17:00", end_time="00:00"),
        ),
        session("2026-03-11 15:00", (CHARGING, 60, "4.3"), (CHARGING, 60, "1.1"), every_minutes=15),
        "1.184",
        None,
        {ENERGY: "5.5"},
    ),
    "the step of time across 17:00": Example(
        tariff(
            element(component("TIME", "5.00", step=600), start_time="00:00", end_time="17:00"),
            element(component("TIME", "7.00", step=600), start_time="17:00", end_time="00:00"),
        ),
        session("2026-03-11 15:54", (CHARGING, 28, 4)),
        "3.3",
        None,
        {TIME: "30"},
    ),
    "two prices and steps of ten minutes": Example(
        tariff(element(component("TIME", "1.00", step=600), component("PARKING_TIME", "2.00", step=600))),
        session(MORNING, (CHARGING, 21, 3), (PARKED, 16, 0)),
        "1.0166666667",
        None,
        {TIME: "21", PARKING: "20"},
    ),
    "an end within a second": Example(
        tariff(element(component("TIME", "2.00", "10.0", 300))),
        session("2024-12-05 17:39:09", (CHARGING, 118.38, "15.342"), every_minutes=15),
        "4",
        "4.4",
        {TIME: "120"},
    ),
    "grace for parking at the beginning": Example(
        tariff(
            element(component("PARKING_TIME", "0.0", "0.0"), min_duration=0, max_duration=1800),
            element(component("PARKING_TIME", "3.0", "0.0"), min_duration=1800),
            element(PER_KWH),
        ),
        session("2015-06-29 15:00", (PARKED, 45, 0), (CHARGING, 30, 10), every_minutes=15),
        "3.25",
        "3.5",
        costs={PARKING: "0.75", ENERGY: "2.5"},
        zone="UTC",
    ),
    "one fee over many periods": Example(
        tariff(element(component("FLAT", "1.00", "0.0", 0))),
        session("2015-06-29 15:00", (CHARGING, 30, 0), (CHARGING, 30, 0), (CHARGING, 30, 0), every_minutes=15),
        "1",
        "1",
        zone="UTC",
    ),
    "the step of the last energy price": Example(
        tariff(
            element(component("ENERGY", "2", step=8000), start_time="00:00", end_time="17:00"),
            element(component("ENERGY", "2", step=5000), start_time="17:00", end_time="20:00"),
            element(component("ENERGY", "4", step=2000), start_time="20:00", end_time="00:00"),
        ),
        session("2022-01-13 16:55", (CHARGING, 5, 5), (CHARGING, 2, 2), (CHARGING, 5, 5)),
        "30",
        "30",
        {ENERGY: "15"},
        zone="UTC",
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_worked_example_comes_out_as_published(name: str) -> None:
    example = EXAMPLES[name]
    bill = price(example.tariff, example.facts, example.zone, exactly())
    assert bill.total.excl_tax == Decimal(example.excl_tax)
    if example.incl_tax is not None:
        assert bill.total.incl_tax == Decimal(example.incl_tax)
    for dimension, quantity in example.billed.items():
        unit = 1 if dimension is ENERGY else 60
        assert bill.billed[dimension] / unit == Decimal(quantity)
    for dimension, cost in example.costs.items():
        assert excl(bill, dimension) == Decimal(cost)
    assert_adds_up(price(example.tariff, example.facts, example.zone))


def test_the_limit_that_decided_is_named() -> None:
    least = EXAMPLES["a minimum"]
    most = EXAMPLES["a maximum"]
    assert price(least.tariff, least.facts).cost_type is CostType.MINIMUM
    assert price(most.tariff, most.facts).cost_type is CostType.MAXIMUM
    assert price(FIRST_KWH, CHARGED_20).cost_type is CostType.NORMAL


HOURLY = tariff(
    element(component("ENERGY", "0.22", "21.0"), start_time="14:00", end_time="15:00", start_date="2025-08-20"),
    element(component("ENERGY", "0.24", "21.0"), start_time="15:00", end_time="16:00", end_date="2025-08-21"),
    element(component("ENERGY", "0.23", "21.0")),
)
IN_THE_NETHERLANDS = [
    started(ms("2025-08-20 12:20:06"), Decimal("1000.5")),
    sampled(ms("2025-08-20 13:00"), Decimal("8293.5")),
    ended(ms("2025-08-20 13:05:31"), Decimal("9262.5")),
]
"""A real session: 7.293 kWh before 15:00 and 0.969 kWh after it."""


def test_rounding_once_gives_one_cent_more_than_rounding_each_period() -> None:
    once = price(HOURLY, IN_THE_NETHERLANDS, "Europe/Amsterdam")
    assert once.total == money("1.84", "2.22")
    each = price(HOURLY, IN_THE_NETHERLANDS, "Europe/Amsterdam", Options(rounding=Rounding(at=RoundAt.LINE)))
    assert each.total.excl_tax == Decimal("1.83")
    assert_adds_up(each)


def test_other_prices_apply_where_the_clock_shows_other_hours() -> None:
    assert price(HOURLY, IN_THE_NETHERLANDS, "UTC").total.excl_tax == Decimal("1.90")
