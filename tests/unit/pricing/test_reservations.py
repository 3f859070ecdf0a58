"""What a reservation costs, used or not."""

from __future__ import annotations

from decimal import Decimal

from busbar.pricing.bill import CostType
from busbar.pricing.engine import Pricer
from busbar.pricing.facts import Fact, reservation_expired, reserved, sampled
from busbar.pricing.state import Note, PeriodKind
from busbar.pricing.tariff import Dimension
from tests.unit.pricing.builders import (
    CHARGING,
    MINUTE_MS,
    assert_adds_up,
    component,
    element,
    excl,
    limit,
    money,
    ms,
    price,
    session,
    tariff,
)

START = "2026-03-11 09:00"
AT = ms(START)
BY_CLOCK = tariff(
    element(component("TIME", "6.00", "20", 600), reservation="RESERVATION", start_time="08:00", end_time="10:00"),
    element(component("TIME", "1.20", "10", 60), component("FLAT", "1.00", "20"), reservation="RESERVATION"),
    element(component("TIME", "12.00", "20", 60), component("FLAT", "5.00", "20"), reservation="RESERVATION_EXPIRES"),
    element(component("ENERGY", "0.25", "10")),
    min_price=limit("8.00", "9.00"),
)


def expired(minutes: int) -> list[Fact]:
    return [reserved(AT), reservation_expired(AT + minutes * MINUTE_MS)]


def test_it_is_split_at_clock_edges_and_filled_up_on_its_own() -> None:
    # 09:40-10:25 local: 20 minutes at 6.00 an hour, 25 at 1.20; the last step is one minute.
    facts = [reserved(ms("2026-03-11 08:40")), *session("2026-03-11 09:25:30", (CHARGING, 60, 40))]
    bill = price(BY_CLOCK, facts)
    assert excl(bill, Dimension.RESERVATION_TIME) == 2 + Decimal("0.02") * 26
    assert excl(bill, Dimension.RESERVATION_FLAT) == 1
    assert [period.kind for period in bill.periods] == [PeriodKind.RESERVED, PeriodKind.RESERVED, PeriodKind.CHARGING]
    assert bill.total.excl_tax == Decimal("2.52") + 1 + 10
    assert_adds_up(bill)


def test_the_price_of_expiry_takes_the_place_of_both() -> None:
    bill = price(BY_CLOCK, expired(30))
    assert excl(bill, Dimension.RESERVATION_TIME) == 6
    assert excl(bill, Dimension.RESERVATION_FLAT) == 5
    assert bill.total == money(11, "13.20")
    assert bill.reservation == (AT, AT + 30 * MINUTE_MS)
    assert bill.duration_ms == 0
    assert_adds_up(bill)


def test_the_minimum_is_for_sessions() -> None:
    cheap = tariff(element(component("TIME", "1.20"), reservation="RESERVATION"), min_price=limit("8.00"))
    bill = price(cheap, expired(30))
    assert bill.total.excl_tax == Decimal("0.60")
    assert bill.cost_type is CostType.NORMAL


def test_it_runs_up_while_time_passes() -> None:
    engine = Pricer(BY_CLOCK, "Europe/Berlin")
    state = engine.advance(engine.begin(), reserved(AT))
    costs = []
    for minutes in (0, 10, 20):
        state = engine.advance(state, sampled(AT + minutes * MINUTE_MS))
        costs.append(engine.cost(state).excl_tax)
    # It is 10:00 local: the cheap price, after the fee.
    assert costs == [Decimal("1.00"), Decimal("1.20"), Decimal("1.40")]
    at_once = price(BY_CLOCK, [reserved(AT), reservation_expired(AT + 20 * MINUTE_MS)])
    assert engine.finish(engine.advance(state, reservation_expired(AT + 20 * MINUTE_MS))) == at_once


def test_facts_before_it_are_moved_to_it() -> None:
    bill = price(BY_CLOCK, [reserved(AT), *session("2026-03-11 08:00", (CHARGING, 120, 40))])
    assert Note.OUT_OF_ORDER in bill.notes
    assert bill.duration_ms == 60 * MINUTE_MS


def test_a_reservation_through_the_night_of_the_change_is_billed_by_real_time() -> None:
    per_hour = tariff(
        element(component("TIME", "1.00"), reservation="RESERVATION", start_time="00:00", end_time="06:00")
    )
    facts = [reserved(ms("2026-03-28 12:00")), *session("2026-03-29 12:00", (CHARGING, 1, 0))]
    assert excl(price(per_hour, facts), Dimension.RESERVATION_TIME) == 5


def test_without_a_price_it_is_free() -> None:
    bill = price(tariff(element(component("ENERGY", "1.00"))), expired(30))
    assert bill.total == money(0, 0)
    assert bill.lines == ()
    assert len(bill.periods) == 1
