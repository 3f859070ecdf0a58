"""Facts as they come from the field: late, doubled, unreadable, without registers."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busbar.pricing.engine import Options, Pricer
from busbar.pricing.facts import (
    ChargingState,
    Fact,
    FactKind,
    ended,
    reservation_cancelled,
    reservation_expired,
    reserved,
    sampled,
    started,
)
from busbar.pricing.fold import MAX_PENDING
from busbar.pricing.state import Note, SessionState
from busbar.pricing.tariff import Dimension
from tests.unit.pricing.builders import (
    CHARGING,
    MINUTE_MS,
    PARKED,
    PAUSED,
    assert_adds_up,
    component,
    element,
    excl,
    ms,
    price,
    tariff,
)

AT = ms("2026-03-11 09:00")
ALL = tariff(
    element(
        component("FLAT", "1.00"),
        component("ENERGY", "1.00"),
        component("TIME", "6.00"),
        component("PARKING_TIME", "60.00"),
    )
)


def later(minutes: int) -> int:
    return AT + minutes * MINUTE_MS


def test_a_register_that_falls_is_counted_on_from_there() -> None:
    bill = price(ALL, [started(AT, 5000), sampled(later(10), 7000), sampled(later(20), 100), ended(later(30), 1100)])
    assert bill.energy_wh == 3000
    assert Note.REGISTER_FELL in bill.notes


@pytest.mark.parametrize(
    "register", [Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), -1, 10**13, Decimal("-0.1")]
)
def test_an_unreadable_register_is_as_none(register: Decimal | int) -> None:
    bill = price(ALL, [started(AT, 0), sampled(later(10), register), ended(later(20), 2000)])
    assert bill.energy_wh == 2000
    assert bill.notes == (Note.REGISTER_UNREADABLE, Note.TAX_UNKNOWN)


@pytest.mark.parametrize("value", [Decimal("NaN"), Decimal("sNaN"), Decimal("-Infinity"), 10**40])
def test_an_unreadable_sample_is_as_none(value: Decimal | int) -> None:
    bill = price(ALL, [started(AT, 0), sampled(later(10), None, None, value, value), ended(later(20), 2000)])
    assert bill.total.excl_tax == 5


def test_energy_before_the_first_register_is_not_billed_and_said() -> None:
    bill = price(ALL, [started(AT), sampled(later(10), 5000), ended(later(20), 6000)])
    assert bill.energy_wh == 1000
    assert Note.NO_START_REGISTER in bill.notes
    assert bill.duration_ms == 20 * MINUTE_MS


def test_a_first_register_at_the_very_start_is_early_enough() -> None:
    bill = price(ALL, [started(AT), sampled(AT, 5000), ended(later(20), 6000)])
    assert Note.NO_START_REGISTER not in bill.notes


def test_a_register_that_jumps_to_and_fro_adds_up_to_no_more_than_any_register() -> None:
    engine = Pricer(ALL, "UTC")
    state = engine.advance(engine.begin(), started(AT, 0))
    for minute in range(1, 60):
        state = engine.advance(state, sampled(later(minute), (10**12 - 1) * (minute % 2)))
        state = SessionState.from_bytes(state.to_bytes())
    bill = engine.finish(state)
    assert bill.energy_wh == 10**12 - 1
    assert Note.REGISTER_UNREADABLE in bill.notes


def test_energy_after_the_last_register_is_not_billed_and_said() -> None:
    bill = price(ALL, [started(AT, 0), sampled(later(10), 1000), ended(later(20))])
    assert bill.energy_wh == 1000
    assert bill.duration_ms == 20 * MINUTE_MS
    assert Note.NO_END_REGISTER in bill.notes


def test_an_end_without_a_register_while_parked_is_no_loss() -> None:
    bill = price(ALL, [started(AT, 0), sampled(later(10), 1000, PARKED), ended(later(20))])
    assert Note.NO_END_REGISTER not in bill.notes


def test_an_earlier_instant_counts_as_the_latest_one() -> None:
    bill = price(ALL, [started(AT, 0), sampled(later(10), 1000), sampled(later(5), 1500), ended(later(20), 2000)])
    assert bill.energy_wh == 2000
    assert bill.duration_ms == 20 * MINUTE_MS
    assert Note.OUT_OF_ORDER in bill.notes


@pytest.mark.parametrize(
    "facts",
    [
        [started(AT, 0), started(later(1), 0), ended(later(10), 1000)],
        [sampled(AT - 1, 0), started(AT, 0), ended(later(10), 1000)],
        [ended(AT - 1, 0), started(AT, 0), ended(later(10), 1000)],
        [started(AT, 0), reserved(later(1)), ended(later(10), 1000)],
        [started(AT, 0), ended(later(10), 1000), sampled(later(11), 9000), ended(later(12), 9000)],
        [started(AT, 0), sampled(-1, 500), ended(later(10), 1000)],
        [started(AT, 0), sampled(10**18, 500), ended(later(10), 1000)],
        [reservation_expired(AT - 1), started(AT, 0), ended(later(10), 1000)],
    ],
)
def test_a_fact_without_a_place_is_left_out_and_said(facts: list[Fact]) -> None:
    bill = price(ALL, facts)
    assert bill.total.excl_tax == 3
    assert bill.notes == (Note.IGNORED, Note.TAX_UNKNOWN)


def test_a_clock_that_jumps_ahead_is_not_billed_for_years() -> None:
    bill = price(ALL, [started(AT, 0), ended(ms("9998-01-01 00:00"), 1000)], options=Options(longest_days=2))
    assert bill.duration_ms == 48 * 60 * MINUTE_MS
    assert Note.TOO_LONG in bill.notes


def test_a_bill_before_the_end_says_so() -> None:
    engine = Pricer(ALL, "UTC")
    state = engine.advance(engine.begin(), started(AT, 0))
    state = engine.advance(state, sampled(later(10), 1000))
    assert engine.finish(state).total.excl_tax == 3
    assert Note.NOT_ENDED in engine.finish(state).notes


def test_nothing_at_all_costs_nothing() -> None:
    engine = Pricer(ALL, "UTC")
    assert engine.cost(engine.begin()).incl_tax == 0
    assert engine.finish(engine.begin()).total.incl_tax == 0


def test_a_state_of_another_tariff_is_refused() -> None:
    state = Pricer(ALL, "UTC").begin()
    other = Pricer(tariff(element(component("FLAT", "2.00"))), "UTC")
    for use in (lambda: other.advance(state, started(AT, 0)), lambda: other.cost(state), lambda: other.finish(state)):
        with pytest.raises(ValueError, match="priced by tariff"):
            use()


def test_periods_that_were_taken_out_must_all_be_given_back() -> None:
    engine = Pricer(ALL, "UTC")
    state = engine.begin()
    for fact in (started(AT, 0), sampled(later(10), 1000, PARKED), sampled(later(20), 1000, CHARGING)):
        state = engine.advance(state, fact)
    lean, taken = state.detach()
    assert len(taken) == 1
    assert engine.finish(lean, taken) == engine.finish(state)
    with pytest.raises(ValueError, match="given back"):
        engine.finish(lean)


@pytest.mark.parametrize("data", [b"[]", b"{}", b"[0]", b"null", b"not json"])
def test_bytes_of_another_kind_are_not_a_state(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        SessionState.from_bytes(data)


class TestManyChangesBetweenRegisters:
    def test_ticks_leave_the_state_as_small_as_it_was(self) -> None:
        engine = Pricer(ALL, "UTC")
        state = engine.advance(engine.begin(), started(AT, 0))
        for minute in range(1, 500):
            state = engine.advance(state, sampled(later(minute)))
            assert len(state.pending) == 1
        bill = engine.finish(engine.advance(state, ended(later(500), 1000)))
        assert bill.total.excl_tax == 1 + 1 + 50
        assert Note.PENDING_MERGED not in bill.notes

    def test_power_samples_are_merged_two_by_two(self) -> None:
        engine = Pricer(ALL, "UTC")
        state = engine.advance(engine.begin(), started(AT, 0))
        for minute in range(1, 200):
            state = engine.advance(state, sampled(later(minute), power_w=1000 * minute))
            assert len(state.pending) <= MAX_PENDING
        bill = engine.finish(engine.advance(state, ended(later(200), 20_000)))
        assert bill.energy_wh == 20_000
        assert bill.total.excl_tax == 1 + 20 + 20
        assert Note.PENDING_MERGED in bill.notes

    def test_a_flapping_state_is_priced_by_its_time(self) -> None:
        engine = Pricer(ALL, "UTC")
        state = engine.advance(engine.begin(), started(AT, 0))
        for minute in range(1, 200):
            state = engine.advance(state, sampled(later(minute), None, PARKED if minute % 2 else CHARGING))
            assert len(state.pending) <= MAX_PENDING
        bill = engine.finish(engine.advance(state, ended(later(200), 20_000)))
        assert excl(bill, Dimension.TIME) == 10
        assert excl(bill, Dimension.PARKING_TIME) == 100
        assert excl(bill, Dimension.ENERGY) == 20
        assert_adds_up(bill)


instants = st.integers(-5, 60).map(later) | st.integers(-(10**20), 10**20)
numbers = st.none() | st.integers(-10, 20_000) | st.decimals(allow_nan=True, allow_infinity=True)
any_fact = st.builds(
    Fact,
    st.sampled_from(list(FactKind)),
    instants,
    numbers,
    st.none() | st.sampled_from(list(ChargingState)),
    numbers,
    numbers,
)
EVERYTHING = tariff(
    element(
        component("TIME", "2.00", "19", 60), component("FLAT", "1.00"), reservation="RESERVATION", start_time="09:00"
    ),
    element(component("TIME", "3.00", "7", 600), reservation="RESERVATION_EXPIRES"),
    element(component("TIME", "6.00", "19"), max_current=16),
    element(component("ENERGY", "0.30", "19"), max_power=11, end_time="09:30"),
    element(component("ENERGY", "0.50", "7", 100), component("PARKING_TIME", "6.00"), min_duration=600),
    element(component("FLAT", "1.50", "19"), min_kwh=2),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(any_fact, max_size=30))
def test_any_facts_in_any_order_give_a_bill_that_adds_up(facts: list[Fact]) -> None:
    engine = Pricer(EVERYTHING, "Europe/Berlin")
    state, before = engine.begin(), Decimal(0)
    for fact in facts:
        state = engine.advance(SessionState.from_bytes(state.to_bytes()), fact)
        if state.reserved_ms < 0:
            now = engine.cost(state).incl_tax
            assert now >= before
            before = now
    assert_adds_up(engine.finish(state))
    assert engine.finish(state) == engine.price(facts)


def test_a_cancelled_reservation_costs_as_one_that_was_used() -> None:
    def of(end: Fact) -> Decimal:
        return price(EVERYTHING, [reserved(AT), end]).total.excl_tax

    assert of(reservation_cancelled(later(60))) == 3
    assert of(reservation_expired(later(60))) == 4
    assert of(started(later(60), 0, PAUSED)) == 3
