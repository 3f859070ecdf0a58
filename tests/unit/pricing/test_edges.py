"""When the price changes next: by the clock, by time, by energy and by power."""

from __future__ import annotations

import random
from decimal import Decimal
from fractions import Fraction

from busbar.pricing import ChargingState, Pricer
from busbar.pricing.edges import PriceEdges, Situation, price_after_tax, situation
from busbar.pricing.facts import sampled, started
from busbar.pricing.ocpp_tariff import parse_ocpp_tariff
from busbar.pricing.tariff import Tariff
from tests.unit.pricing.builders import component, element, ms, tariff

KWH = 1_000_000_000
MINUTE = 60_000
HOUR = 60 * MINUTE


def edges(priced: Tariff, zone: str = "Europe/Berlin") -> PriceEdges:
    return PriceEdges(priced, zone)


def grace(ahead: PriceEdges, now: Situation) -> int | None:
    found = ahead.parking_price(now)
    return None if found is None else found[0]


NIGHT = tariff(
    element(component("ENERGY", "0.25"), start_time="22:00", end_time="06:00"),
    element(component("ENERGY", "0.50")),
)


class TestTheClock:
    def test_the_next_change_is_where_a_window_begins(self) -> None:
        change = edges(NIGHT).next_change(Situation(ms("2026-01-14 12:00+01:00")))
        assert change.at_ms == ms("2026-01-14 22:00+01:00")
        assert change.then is not None
        assert change.then.energy is not None
        assert change.then.energy.price == Decimal("0.25")

    def test_a_window_that_wraps_midnight_ends_in_the_morning(self) -> None:
        for now in ("2026-01-14 22:00+01:00", "2026-01-14 23:59+01:00", "2026-01-15 03:00+01:00"):
            assert edges(NIGHT).next_change(Situation(ms(now))).at_ms == ms("2026-01-15 06:00+01:00")

    def test_midnight_is_no_change_if_the_window_goes_on(self) -> None:
        midnight = ms("2026-01-15 00:00+01:00")
        assert edges(NIGHT).next_change(Situation(midnight - 1)).at_ms == ms("2026-01-15 06:00+01:00")

    def test_the_hour_that_is_left_out_brings_the_morning_nearer(self) -> None:
        now = ms("2026-03-29 01:00+01:00")
        assert edges(NIGHT).next_change(Situation(now)).at_ms == now + 4 * HOUR

    def test_the_hour_that_comes_twice_holds_the_window_longer(self) -> None:
        now = ms("2026-10-25 01:00+02:00")
        assert edges(NIGHT).next_change(Situation(now)).at_ms == now + 6 * HOUR

    def test_a_window_inside_the_hour_that_comes_twice_begins_twice(self) -> None:
        early = edges(
            tariff(
                element(component("TIME", "6"), start_time="02:15", end_time="02:45"), element(component("TIME", "1"))
            )
        )
        first = ms("2026-10-25 02:15+02:00")
        found, now = [], ms("2026-10-25 00:00+02:00")
        for _ in range(4):
            change = early.next_change(Situation(now)).at_ms
            assert change is not None
            found.append(change)
            now = change
        assert found == [first, first + 30 * MINUTE, first + HOUR, first + HOUR + 30 * MINUTE]

    def test_a_window_inside_the_hour_that_is_left_out_never_comes(self) -> None:
        early = edges(
            tariff(
                element(component("TIME", "6"), start_time="02:15", end_time="02:45"), element(component("TIME", "1"))
            )
        )
        assert early.next_change(Situation(ms("2026-03-28 12:00+01:00"))).at_ms == ms("2026-03-30 02:15+02:00")

    def test_the_same_price_in_another_element_is_no_change(self) -> None:
        same = tariff(
            element(component("ENERGY", "0.5"), start_time="22:00", end_time="06:00"),
            element(component("ENERGY", "0.50")),
        )
        assert edges(same).next_change(Situation(ms("2026-01-14 12:00+01:00"))).at_ms is None

    def test_a_weekday_changes_the_price_at_local_midnight(self) -> None:
        weekend = tariff(
            element(component("ENERGY", "0.25"), day_of_week=["SATURDAY", "SUNDAY"]),
            element(component("ENERGY", "0.5")),
        )
        change = edges(weekend, "America/New_York").next_change(Situation(ms("2026-01-12 12:00-05:00")))
        assert change.at_ms == ms("2026-01-17 00:00-05:00")

    def test_what_lies_beyond_the_horizon_is_not_looked_for(self) -> None:
        soon = edges(NIGHT).next_change(Situation(ms("2026-01-14 12:00+01:00")), horizon_ms=HOUR)
        assert soon.at_ms is None
        assert soon.then is None


class TestTime:
    def test_a_price_after_two_hours_comes_at_two_hours(self) -> None:
        long_stay = edges(tariff(element(component("TIME", "6"), min_duration=7200), element(component("TIME", "1"))))
        now = Situation(ms("2026-01-14 12:00"), charging_ms=HOUR)
        assert long_stay.next_change(now).at_ms == now.at_ms + HOUR
        assert long_stay.next_change(Situation(now.at_ms, charging_ms=2 * HOUR)).at_ms is None

    def test_idle_time_passes_only_while_the_ev_is_parked(self) -> None:
        idle = edges(
            parse_ocpp_tariff(
                {
                    "tariffId": "T",
                    "currency": "EUR",
                    "idleTime": {"prices": [{"priceMinute": Decimal("0.1"), "conditions": {"minIdleTime": 600}}]},
                }
            )
        )
        now = ms("2026-01-14 12:00")
        assert idle.next_change(Situation(now)).at_ms is None
        assert idle.next_change(Situation(now, parking=True)).at_ms == now + 10 * MINUTE
        assert grace(idle, Situation(now)) == 10 * MINUTE
        assert grace(idle, Situation(now, idle_ms=4 * MINUTE, parking=True)) == 6 * MINUTE

    def test_parking_that_costs_from_the_first_second_has_no_grace(self) -> None:
        at_once = edges(tariff(element(component("PARKING_TIME", "6"))))
        assert grace(at_once, Situation(ms("2026-01-14 12:00"))) == 0
        assert grace(edges(NIGHT), Situation(ms("2026-01-14 12:00"))) is None

    def test_a_fee_that_becomes_due_later_is_a_change_until_it_is_charged(self) -> None:
        overstay = edges(tariff(element(component("FLAT", "5"), min_duration=3600)))
        now = ms("2026-01-14 12:00")
        assert overstay.next_change(Situation(now)).at_ms == now + HOUR
        assert overstay.next_change(Situation(now, fee_charged=True)).at_ms is None


class TestEnergyAndPower:
    STEPS = tariff(
        element(component("ENERGY", "0.2"), max_kwh=Decimal(10)),
        element(component("ENERGY", "0.2"), max_kwh=Decimal(20)),
        element(component("ENERGY", "0.4")),
    )

    def test_the_next_energy_is_where_the_price_differs_and_not_where_an_element_ends(self) -> None:
        now = Situation(ms("2026-01-14 12:00"), energy_uwh=5 * KWH)
        assert edges(self.STEPS).next_change(now).energy_uwh == 20 * KWH
        assert edges(self.STEPS).next_change(Situation(now.at_ms, energy_uwh=20 * KWH)).energy_uwh is None

    def test_the_nearest_power_may_lie_below_or_above(self) -> None:
        fast = edges(
            tariff(
                element(component("ENERGY", "0.3"), max_power=Decimal(11)),
                element(component("ENERGY", "0.5"), max_power=Decimal(50)),
                element(component("ENERGY", "0.8")),
            )
        )
        now = ms("2026-01-14 12:00")
        found = [fast.next_change(Situation(now, power_mw=kw * 1_000_000)).power_mw for kw in (0, 11, 20, 40, 60)]
        assert found == [11_000_000, 11_000_000, 11_000_000, 50_000_000, 50_000_000]


class TestASession:
    def test_what_is_announced_is_what_the_engine_does(self) -> None:
        """Walk a session in small steps: the engine changes its components exactly where a change was announced."""
        priced = tariff(
            element(component("ENERGY", "0.25"), component("TIME", "1.2"), start_time="22:00", end_time="06:00"),
            element(component("ENERGY", "0.5"), component("TIME", "3.6"), max_duration=5400),
            element(component("ENERGY", "0.6"), component("PARKING_TIME", "9")),
        )
        pricer, ahead = Pricer(priced, "Europe/Berlin"), edges(priced)
        chance = random.Random(3)
        for _ in range(20):
            at = ms("2026-03-28 15:00+01:00") + chance.randrange(36 * 60) * MINUTE
            state = pricer.advance(pricer.begin(), started(at, 0))
            state = pricer.advance(state, sampled(at + MINUTE, 100))
            now = situation(state, pricer.options)
            change = ahead.next_change(now)
            assert change.at_ms is not None
            assert change.then is not None
            before = pricer.advance(state, sampled(change.at_ms, 200))
            assert (before.energy, before.time) == (state.energy, state.time)
            after = pricer.advance(before, sampled(change.at_ms + 1, 201))
            told = (change.then.energy, change.then.charging)
            assert (after.energy, after.time) == tuple(-1 if each is None else each.index for each in told)
            assert (after.energy, after.time) != (before.energy, before.time)

    def test_what_is_pending_counts_as_time(self) -> None:
        pricer = Pricer(NIGHT, "UTC")
        at = ms("2026-01-14 12:00")
        state = pricer.advance(pricer.begin(), started(at, 0))
        state = pricer.advance(state, sampled(at + MINUTE, None, ChargingState.SUSPENDED_EV))
        now = situation(state)
        assert (now.at_ms, now.idle_ms + now.charging_ms, now.parking) == (at + MINUTE, MINUTE, True)

    def test_drivers_are_told_prices_with_tax_per_kwh_hour_or_session(self) -> None:
        taxed = tariff(element(component("ENERGY", "0.5", vat="20")))
        assert price_after_tax(taxed, taxed.components[0]) == Fraction(6, 10)
        included = tariff(element(component("ENERGY", "0.5", vat="20")), tax_included="YES")
        assert price_after_tax(included, included.components[0]) == Fraction(1, 2)
        minutes = parse_ocpp_tariff(
            {"tariffId": "T", "currency": "EUR", "chargingTime": {"prices": [{"priceMinute": Decimal("0.1")}]}}
        )
        assert price_after_tax(minutes, minutes.components[0]) == 6
        assert price_after_tax(taxed, None) == 0
