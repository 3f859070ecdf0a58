"""Energy, duration, power and current: where prices change between samples."""

from __future__ import annotations

from decimal import Decimal

import pytest

from busbar.pricing.engine import Pricer
from busbar.pricing.facts import ended, sampled, started
from busbar.pricing.state import NONE, Note
from busbar.pricing.tariff import Dimension
from tests.unit.pricing.builders import (
    CHARGING,
    MINUTE_MS,
    PARKED,
    PAUSED,
    component,
    element,
    exactly,
    excl,
    ms,
    price,
    session,
    tariff,
    totals,
)

START = "2026-03-11 09:00"
AT = ms(START)
FIRST_FREE = tariff(
    element(component("ENERGY", "0"), max_kwh=5),
    element(component("ENERGY", "0.40"), min_kwh=5, max_kwh=Decimal("7.5")),
    element(component("ENERGY", "1.00")),
)


class TestEnergy:
    @pytest.mark.parametrize(
        ("kwh", "cost"), [("4.999", "0"), ("5", "0"), ("5.001", "0.0004"), ("7.5", "1"), ("10", "3.5")]
    )
    def test_a_threshold_splits_the_interval_in_which_it_is_reached(self, kwh: str, cost: str) -> None:
        assert totals(FIRST_FREE, session(START, (CHARGING, 60, kwh)))[0] == Decimal(cost)

    def test_the_instant_is_interpolated_and_rounded_up_to_the_millisecond(self) -> None:
        bill = price(FIRST_FREE, [started(AT, 0), ended(AT + 7000, 7000)])
        assert [period.start_ms - AT for period in bill.periods] == [0, 5000]
        bill = price(FIRST_FREE, [started(AT, 0), ended(AT + 7000, 6999)])
        assert [period.start_ms - AT for period in bill.periods] == [0, 5001]
        assert [period.energy_uwh for period in bill.periods] == [5_000_000_000, 1_999_000_000]

    def test_time_may_be_priced_by_energy(self) -> None:
        by_energy = tariff(element(component("TIME", "6.00"), max_kwh=10), element(component("TIME", "60.00")))
        assert totals(by_energy, session(START, (CHARGING, 60, 20)))[0] == 33

    def test_energy_that_comes_in_no_time_is_split_too(self) -> None:
        bill = price(FIRST_FREE, [started(AT, 0), sampled(AT, 10_000), ended(AT + 1000, 10_000)])
        assert bill.total.excl_tax == Decimal("3.5")
        assert bill.energy_wh == 10_000


class TestDuration:
    by_duration = tariff(
        element(component("TIME", "0"), max_duration=600),
        element(component("TIME", "6.00"), max_duration=3600),
        element(component("TIME", "12.00")),
        element(component("PARKING_TIME", "60.00"), min_duration=4200),
    )

    def test_it_counts_from_the_start_and_changes_on_the_second(self) -> None:
        assert totals(self.by_duration, session(START, (CHARGING, 10, 1)))[0] == 0
        assert totals(self.by_duration, session(START, (CHARGING, 60, 1)))[0] == 5
        assert totals(self.by_duration, session(START, (CHARGING, 90, 1)))[0] == 11

    def test_parking_counts_too(self) -> None:
        parked = session(START, (PARKED, 60, 0), (CHARGING, 10, 1), (PARKED, 10, 0))
        assert totals(self.by_duration, parked)[0] == 2 + 10

    def test_a_fee_may_come_due_later(self) -> None:
        overstay = tariff(
            element(component("FLAT", "5.00"), min_duration=4 * 3600), element(component("ENERGY", "0.10"))
        )
        assert totals(overstay, session(START, (CHARGING, 239, 10)))[0] == 1
        assert totals(overstay, session(START, (CHARGING, 240, 10)))[0] == 1
        bill = price(overstay, session(START, (CHARGING, 300, 10)))
        assert bill.total.excl_tax == 6
        assert bill.lines[1].start_ms == AT + 4 * 3600 * 1000

    def test_the_first_fee_that_applies_is_the_only_one(self) -> None:
        fees = tariff(
            element(component("FLAT", "9.00"), min_kwh=50),
            element(component("FLAT", "1.00"), max_duration=60),
            element(component("FLAT", "3.00")),
        )
        assert totals(fees, session(START, (CHARGING, 60, 60)))[0] == 1


class TestPower:
    by_power = tariff(
        element(component("ENERGY", "0.20"), max_power=16),
        element(component("ENERGY", "0.50"), min_power=16, max_power=Decimal("49.9")),
        element(component("ENERGY", "0.70")),
    )

    @pytest.mark.parametrize(
        ("kw", "price_per_kwh"), [("15.999", "0.2"), ("16", "0.5"), ("49.899", "0.5"), ("50", "0.7")]
    )
    def test_it_is_energy_over_time_between_two_registers(self, kw: str, price_per_kwh: str) -> None:
        assert totals(self.by_power, session(START, (CHARGING, 60, kw)))[0] == Decimal(kw) * Decimal(price_per_kwh)

    def test_registers_decide_over_power_samples(self) -> None:
        facts = [started(AT, 0), sampled(AT + 30 * MINUTE_MS, 5000, power_w=99_000), ended(AT + 60 * MINUTE_MS, 10_000)]
        assert totals(self.by_power, facts)[0] == 2

    def test_a_pause_in_the_interval_raises_the_power_of_the_rest(self) -> None:
        # 10 kWh in an hour is 10 kW; within the half hour in which the EV could draw it is 20 kW.
        facts = [started(AT, 0), sampled(AT + 30 * MINUTE_MS, None, PAUSED), ended(AT + 60 * MINUTE_MS, 10_000)]
        assert totals(self.by_power, facts)[0] == 5

    def test_power_samples_shape_the_energy_where_registers_are_missing(self) -> None:
        # 40 kW for half an hour and 10 kW for another, and one register at the end.
        facts = [
            started(AT, 0),
            sampled(AT + 30 * MINUTE_MS, power_w=40_000),
            sampled(AT + 60 * MINUTE_MS, 25_000, power_w=10_000),
            ended(AT + 60 * MINUTE_MS, 25_000),
        ]
        assert totals(self.by_power, facts)[0] == 20 * Decimal("0.5") + 5 * Decimal("0.2")

    def test_the_periods_tell_the_range(self) -> None:
        bill = price(self.by_power, session(START, (CHARGING, 60, 10), (CHARGING, 60, 12), (CHARGING, 30, 20)))
        assert [(p.low_power_mw, p.high_power_mw) for p in bill.periods] == [
            (10_000_000, 12_000_000),
            (40_000_000, 40_000_000),
        ]
        assert {(p.low_current_ma, p.high_current_ma) for p in bill.periods} == {(NONE, NONE)}


class TestCurrent:
    by_current = tariff(
        element(component("TIME", "1.00"), max_current=32), element(component("TIME", "2.00"), min_current=32)
    )

    def cost(self, *samples: tuple[int, int | None]) -> Decimal:
        """Of an hour, given (minute, amperes)."""
        facts = [sampled(AT + minute * MINUTE_MS, 0, current_a=amperes) for minute, amperes in samples]
        return totals(self.by_current, [started(AT, 0), *facts, ended(AT + 60 * MINUTE_MS, 0)])[0]

    def test_a_sample_tells_of_the_time_up_to_it_and_holds_until_the_next(self) -> None:
        assert self.cost((30, 16), (45, 40)) == Decimal("0.5") + Decimal("0.5") + Decimal("0.5")

    @pytest.mark.parametrize(("amperes", "cost"), [(31, 1), (32, 2)])
    def test_the_threshold_belongs_to_the_upper_price(self, amperes: int, cost: int) -> None:
        assert self.cost((60, amperes)) == cost

    def test_without_any_sample_no_current_is_assumed_and_said(self) -> None:
        bill = price(self.by_current, session(START, (CHARGING, 60, 10)))
        assert bill.total.excl_tax == 1
        assert Note.CURRENT_UNKNOWN in bill.notes

    def test_a_sample_that_comes_with_a_change_tells_of_the_new_state(self) -> None:
        facts = [
            started(AT, 0),
            sampled(AT + 30 * MINUTE_MS, 0, current_a=40),
            sampled(AT + 60 * MINUTE_MS, 0, PARKED, current_a=0),
            ended(AT + 90 * MINUTE_MS, 0),
        ]
        bill = price(self.by_current, facts)
        assert bill.total.excl_tax == 2
        assert Note.CURRENT_UNKNOWN not in bill.notes


class TestStates:
    both = tariff(element(component("TIME", "6.00"), component("PARKING_TIME", "60.00")))

    def test_a_pause_by_the_station_is_charging_time(self) -> None:
        assert totals(self.both, session(START, (CHARGING, 10, 1), (PAUSED, 10, 0), (PARKED, 10, 0)))[0] == 12

    def test_a_change_without_a_register_prices_time_at_once_and_energy_later(self) -> None:
        everything = tariff(
            element(component("TIME", "6.00"), component("PARKING_TIME", "60.00"), component("ENERGY", "1.00"))
        )
        engine = Pricer(everything, "UTC", exactly())
        state = engine.advance(engine.begin(), started(AT, 0))
        state = engine.advance(state, sampled(AT + 10 * MINUTE_MS, None, PARKED))
        assert engine.cost(state).excl_tax == 1
        state = engine.advance(state, sampled(AT + 20 * MINUTE_MS))
        assert engine.cost(state).excl_tax == 11
        state = engine.advance(state, sampled(AT + 30 * MINUTE_MS, 3000))
        assert engine.cost(state).excl_tax == 24
        bill = engine.finish(engine.advance(state, ended(AT + 30 * MINUTE_MS, 3000)))
        assert excl(bill, Dimension.ENERGY) == 3
        assert [period.energy_uwh for period in bill.periods] == [3_000_000_000, 0]

    def test_time_waits_for_energy_where_its_price_depends_on_it(self) -> None:
        by_energy = tariff(element(component("TIME", "60.00"), max_kwh=1), element(component("TIME", "0")))
        engine = Pricer(by_energy, "UTC", exactly())
        state = engine.advance(engine.begin(), started(AT, 0))
        state = engine.advance(state, sampled(AT + 30 * MINUTE_MS, None, PAUSED))
        assert engine.cost(state).excl_tax == 0
        state = engine.advance(state, sampled(AT + 60 * MINUTE_MS, 2000))
        assert engine.cost(state).excl_tax == 15
