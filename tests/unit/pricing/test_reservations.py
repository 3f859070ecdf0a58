"""What a reservation costs, used or not."""

from __future__ import annotations

from decimal import Decimal

import pytest

from busbar.pricing.bill import CostType
from busbar.pricing.engine import Options, Pricer
from busbar.pricing.facts import Fact, reservation_expired, reserved, sampled, tariff_changed
from busbar.pricing.state import Note, PeriodKind
from busbar.pricing.tariff import Dimension, Tariff, changed_tariff
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


LONG = tariff(
    element(component("TIME", "3.00", "20", 60), component("FLAT", "0.50", "20"), reservation="RESERVATION"),
    element(component("TIME", "12.00", "20"), reservation="RESERVATION_EXPIRES"),
    element(component("ENERGY", "0.25", "10"), component("TIME", "1.00", "20", 300), component("FLAT", "0.30")),
    max_price=limit("12.00"),
)


@pytest.mark.parametrize("rules", [BY_CLOCK, LONG])
@pytest.mark.parametrize("minutes", [95, 20.5, 0, -3])
@pytest.mark.parametrize("place", [1, 2, 3])
def test_one_that_becomes_known_later_costs_the_same(rules: Tariff, minutes: float, place: int) -> None:
    at_ms = AT - round(minutes * MINUTE_MS)
    facts = session(START, (CHARGING, 60, 40), (CHARGING, 30, 3))
    pricer = Pricer(rules, "Europe/Berlin", Options(keep_periods=False))
    known = pricer.advance_all(pricer.begin(), [reserved(min(at_ms, AT)), *facts[:place]])
    later = pricer.reserve(pricer.advance_all(pricer.begin(), facts[:place]), at_ms)
    assert pricer.cost(later) == pricer.cost(known)
    bills = [pricer.finish(pricer.advance_all(state, facts[place:])) for state in (known, later)]
    assert bills[0] == bills[1]
    assert bills[0].reservation == (min(at_ms, AT), AT)


def test_after_a_change_of_the_tariff_it_is_priced_by_the_first_one() -> None:
    facts = session(START, (CHARGING, 60, 40))
    options = Options(keep_periods=False)
    pricer = Pricer(changed_tariff(BY_CLOCK, LONG), "Europe/Berlin", options)
    changed = [facts[0], tariff_changed(AT + MINUTE_MS), sampled(AT + 2 * MINUTE_MS)]
    known = pricer.advance_all(pricer.begin(), [reserved(AT - 30 * MINUTE_MS), *changed])
    later = pricer.reserve(pricer.advance_all(pricer.begin(), changed), AT - 30 * MINUTE_MS)
    assert pricer.cost(later) == pricer.cost(known)
    assert pricer.finish(pricer.advance_all(later, facts[1:])) == pricer.finish(pricer.advance_all(known, facts[1:]))


def test_it_cannot_be_put_before_what_has_one_has_not_begun_or_has_periods() -> None:
    plain, keeping = (Pricer(LONG, "UTC", Options(keep_periods=keeps)) for keeps in (False, True))
    started = plain.advance_all(plain.begin(), session(START, (CHARGING, 60, 40))[:1])
    twice = plain.reserve(started, AT)
    for pricer, state in ((plain, plain.begin()), (plain, twice), (keeping, started)):
        with pytest.raises(ValueError, match="no reservation"):
            pricer.reserve(state, AT)
