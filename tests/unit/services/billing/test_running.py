"""When a running cost is due."""

from __future__ import annotations

from decimal import Decimal

import pytest

from busbar.pricing import ChargingState, Pricer, SessionState
from busbar.pricing.edges import PriceEdges
from busbar.pricing.facts import Fact, sampled, started
from busbar.pricing.tariff import Tariff
from services.billing.running import SILENT_MS, Cadence, CostMode, Told, as_of, is_due, next_look, standing, told_now
from tests.unit.pricing.builders import component, element, ms, tariff

NOON = ms("2026-01-14 12:00")
MINUTE = 60_000
BY_ENERGY = tariff(element(component("ENERGY", "0.5")))
BY_TIME = tariff(element(component("TIME", "6")))
BY_NIGHT = tariff(
    element(component("ENERGY", "0.25"), start_time="12:10", end_time="13:00"), element(component("ENERGY", "0.5"))
)
EVERY_MINUTE = Cadence(MINUTE)
LAST = Told(NOON, Decimal("1.00"), "0/-/-", False)


def changed(at_ms: int = NOON, cost: str = "1.00", prices: str = "0/-/-", parking: bool = False) -> Told:
    return Told(at_ms, Decimal(cost), prices, parking)


def session(priced: Tariff, *facts: Fact) -> tuple[Pricer, PriceEdges, SessionState]:
    pricer = Pricer(priced, "UTC")
    state = pricer.begin()
    for fact in facts or (started(NOON, 0),):
        state = pricer.advance(state, fact)
    return pricer, PriceEdges(priced, "UTC"), state


def look(priced: Tariff, cadence: Cadence = EVERY_MINUTE, *facts: Fact, heard_ms: int = NOON) -> int | None:
    pricer, edges, state = session(priced, *facts)
    told = told_now(state, NOON, Decimal(0), pricer, edges)
    now = standing(state, told.at_ms, pricer)
    return next_look(told, now, edges.next_change(now), heard_ms, cadence, edges)


class TestDue:
    @pytest.mark.parametrize(
        ("now", "due"),
        [
            (changed(NOON + MINUTE), False),  # the same cost
            (changed(NOON + MINUTE - 1, "1.01"), False),  # too soon
            (changed(NOON + MINUTE, "1.01"), True),
            (changed(NOON + 1, prices="1/-/-"), True),  # another price
            (changed(NOON + 1, parking=True), False),
        ],
    )
    def test_by_interval_and_price(self, now: Told, due: bool) -> None:
        assert is_due(LAST, now, EVERY_MINUTE, CostMode.COST_UPDATED) is due

    def test_the_first_cost_is_told_at_once(self) -> None:
        assert is_due(None, LAST, EVERY_MINUTE, CostMode.COST_UPDATED)

    def test_a_change_by_the_configured_amount_does_not_wait(self) -> None:
        cadence = Cadence(MINUTE, Decimal("0.50"))
        assert not is_due(LAST, changed(NOON + 1, "1.49"), cadence, CostMode.COST_UPDATED)
        assert is_due(LAST, changed(NOON + 1, "1.50"), cadence, CostMode.COST_UPDATED)
        assert is_due(LAST, changed(NOON + 1, "0.50"), cadence, CostMode.COST_UPDATED)

    def test_an_interval_of_zero_never_makes_it_due(self) -> None:
        assert not is_due(LAST, changed(NOON + 1000 * MINUTE, "9"), Cadence(0), CostMode.COST_UPDATED)

    def test_a_california_display_is_told_when_charging_becomes_parking(self) -> None:
        assert is_due(LAST, changed(NOON + 1, parking=True), EVERY_MINUTE, CostMode.CALIFORNIA)

    def test_who_is_told_nothing_is_told_nothing(self) -> None:
        assert not is_due(None, LAST, EVERY_MINUTE, CostMode.NONE)


class TestTheNextLook:
    def test_energy_waits_for_the_next_meter_value(self) -> None:
        assert look(BY_ENERGY) is None

    def test_time_costs_by_the_interval(self) -> None:
        assert look(BY_TIME) == NOON + MINUTE
        assert look(BY_TIME, Cadence(0)) is None

    def test_time_that_costs_nothing_while_parked_is_not_waited_for(self) -> None:
        assert look(BY_TIME, EVERY_MINUTE, started(NOON, 0, ChargingState.SUSPENDED_EV)) is None

    def test_a_price_that_changes_is_looked_at_then(self) -> None:
        assert look(BY_NIGHT) == NOON + 10 * MINUTE
        assert look(BY_NIGHT, Cadence(0)) == NOON + 10 * MINUTE

    def test_a_session_that_is_silent_is_left_alone(self) -> None:
        assert look(BY_TIME, heard_ms=NOON + MINUTE - SILENT_MS) == NOON + MINUTE
        assert look(BY_TIME, heard_ms=NOON + MINUTE - SILENT_MS - 1) is None


class TestAsOf:
    def test_time_goes_on_and_energy_does_not(self) -> None:
        both = tariff(element(component("ENERGY", "0.5"), component("TIME", "6")))
        pricer, _, state = session(both, started(NOON, 0), sampled(NOON + MINUTE, 2000))
        assert pricer.cost(state).incl_tax == Decimal("1.10")
        assert pricer.cost(as_of(state, NOON + 11 * MINUTE, pricer)).incl_tax == Decimal("2.10")
        assert as_of(state, NOON, pricer) is state

    def test_a_look_at_an_edge_finds_the_new_price(self) -> None:
        pricer, edges, state = session(BY_NIGHT)
        before = told_now(state, NOON, Decimal(0), pricer, edges)
        after = told_now(state, NOON + 10 * MINUTE, Decimal(0), pricer, edges)
        assert before.prices != after.prices


class TestMode:
    @pytest.mark.parametrize(
        ("version", "quirk", "mode"),
        [
            ("1.6", None, "none"),
            ("1.6", "california", "california"),
            ("1.6", "costUpdated", "none"),
            ("2.0.1", None, "costUpdated"),
            ("2.1", "california", "california"),
            ("2.0.1", "none", "none"),
            ("2.0.1", "nonsense", "costUpdated"),
        ],
    )
    def test_version_and_quirk_decide(self, version: str, quirk: str | None, mode: str) -> None:
        assert CostMode.of(version, quirk) == mode
