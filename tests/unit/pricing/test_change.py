"""A session whose tariff is changed while it goes on: one bill, and nothing is priced again."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from functools import reduce
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from busbar.pricing.bill import Bill, CostType
from busbar.pricing.engine import Options, Pricer
from busbar.pricing.explanation import explain
from busbar.pricing.facts import Fact, FactKind, ended, reserved, sampled, started, tariff_changed
from busbar.pricing.ocpi_cdr import cdr_part
from busbar.pricing.ocpi_tariff import parse_ocpi_tariff
from busbar.pricing.ocpp_cost import cost_details
from busbar.pricing.problems import TariffError
from busbar.pricing.receipt import make_receipt, receipt_text
from busbar.pricing.state import Note, Period, SessionState
from busbar.pricing.tariff import MAX_CHANGES, Tariff, changed_tariff
from tests.unit.pricing.builders import (
    CHARGING,
    PARKED,
    assert_adds_up,
    component,
    element,
    exactly,
    limit,
    money,
    ms,
    session,
    tariff,
    tariff_json,
)
from tests.unit.pricing.oracle import Stretch
from tests.unit.pricing.strategies import ZONES, facts_of, starts, stretches, tariffs

START = "2026-03-11 10:00"
BEGIN = ms(START)
HOUR = 3_600_000
CHEAP = tariff(element(component("ENERGY", "0.20")), id="CHEAP")
DEAR = tariff(element(component("ENERGY", "0.50")), id="DEAR")
TEN_KWH_AN_HOUR = [started(BEGIN, 0), ended(BEGIN + 2 * HOUR, 20_000)]

TIMED_JSON = tariff_json(element(component("TIME", "0.3333")), id="TIMED")
TIMED_BY_ENERGY_JSON = tariff_json(element(component("TIME", "0"), min_kwh=Decimal("0.06")), id="TIMED_BY_ENERGY")
TIMED, TIMED_BY_ENERGY = parse_ocpi_tariff(TIMED_JSON), parse_ocpi_tariff(TIMED_BY_ENERGY_JSON)

Changes = list[tuple[int, Tariff]]


def run(first: Tariff, facts: list[Fact], changes: Changes, zone: str = "UTC", **options: Any) -> Bill:
    """Price facts, with a change before the first fact that is later than it."""
    pricer = Pricer(first, zone, Options(**options))
    state, left = pricer.begin(), list(changes)
    for fact in facts:
        while left and left[0][0] <= fact.at_ms and fact.kind is not FactKind.STARTED:
            pricer, state = pricer.change(state, *left.pop(0))
        state = pricer.advance(state, fact)
    return pricer.finish(state)


def amounts(bill: Bill) -> list[tuple[str, str, Decimal]]:
    found = []
    for line in bill.lines:
        assert line.component is not None
        found.append((bill.tariff.owner(line.component).tariff_id, line.kind.value, line.excl_tax))
    return found


class TestWhatItCosts:
    def test_energy_is_cut_at_the_instant_although_no_register_came(self) -> None:
        bill = run(CHEAP, TEN_KWH_AN_HOUR, [(BEGIN + HOUR // 2, DEAR)])
        assert bill.total.excl_tax == Decimal("8.50")
        assert amounts(bill) == [("CHEAP", "ENERGY", Decimal(1)), ("DEAR", "ENERGY", Decimal("7.5"))]
        assert bill.energy_wh == 20_000
        assert_adds_up(bill)

    def test_time_and_parking_are_cut_too(self) -> None:
        first = tariff(element(component("TIME", "1"), component("PARKING_TIME", "2")), id="A")
        second = tariff(element(component("TIME", "10"), component("PARKING_TIME", "20")), id="B")
        facts = session(START, (CHARGING, 60, 10), (PARKED, 60, 0))
        bill = run(first, facts, [(BEGIN + HOUR // 2, second), (BEGIN + 3 * HOUR // 2, first)])
        assert bill.total.excl_tax == Decimal("0.5") + 5 + 10 + 1
        assert bill.parking_ms == HOUR

    def test_several_changes_are_one_bill(self) -> None:
        changes = [(BEGIN + place * HOUR // 4, tariff_) for place, tariff_ in ((1, DEAR), (2, CHEAP), (7, DEAR))]
        bill = run(CHEAP, TEN_KWH_AN_HOUR, changes)
        assert bill.total.excl_tax == Decimal("0.5") + Decimal("1.25") + Decimal("2.5") + Decimal("1.25")
        assert bill.changes == tuple(at_ms for at_ms, _ in changes)
        assert_adds_up(bill)

    def test_thresholds_count_from_the_start_of_the_session(self) -> None:
        later = tariff(element(component("ENERGY", "1"), min_kwh=Decimal(15)), element(component("ENERGY", "0")))
        bill = run(CHEAP, TEN_KWH_AN_HOUR, [(BEGIN + HOUR, later)])
        assert bill.total.excl_tax == 2 + 5

    def test_a_fee_is_charged_once_a_session(self) -> None:
        first, second = (tariff(element(component("FLAT", price)), id=price) for price in ("1", "3"))
        assert run(first, TEN_KWH_AN_HOUR, [(BEGIN + HOUR, second)]).total.excl_tax == 1
        assert run(CHEAP, TEN_KWH_AN_HOUR, [(BEGIN + HOUR, second)]).total.excl_tax == 2 + 3

    def test_different_taxes_stay_apart(self) -> None:
        first, second = (tariff(element(component("ENERGY", "1", vat)), id=vat) for vat in ("10", "20"))
        bill = run(first, TEN_KWH_AN_HOUR, [(BEGIN + HOUR, second)])
        assert bill.total == money(20, 23)
        assert [(tax.percent, tax.amount) for tax in bill.taxes] == [money(10, 1), money(20, 2)]

    def test_a_step_is_filled_up_for_the_whole_session(self) -> None:
        first = tariff(element(component("ENERGY", "1", step=1)))
        second = tariff(element(component("ENERGY", "2", step=50_000)))
        bill = run(first, TEN_KWH_AN_HOUR, [(BEGIN + HOUR, second)])
        assert bill.total.excl_tax == 10 + 20 + 60

    def test_a_change_at_the_start_leaves_nothing_to_the_first(self) -> None:
        bill = run(CHEAP, TEN_KWH_AN_HOUR, [(BEGIN, DEAR)])
        assert amounts(bill) == [("DEAR", "ENERGY", Decimal(10))]
        assert len(bill.periods) == 1

    def test_time_that_was_counted_before_a_register_came_stays_counted(self) -> None:
        first, second = TIMED, TIMED_BY_ENERGY
        pricer = Pricer(first, "UTC")
        state = pricer.begin()
        for fact in (started(BEGIN, 0), sampled(BEGIN + HOUR // 30)):
            state = pricer.advance(state, fact)
        assert pricer.cost(state).excl_tax == Decimal("0.01")
        pricer, state = pricer.change(state, BEGIN + HOUR // 2, second)
        assert pricer.cost(state).excl_tax == Decimal("0.17")
        state = pricer.advance(state, sampled(BEGIN + HOUR))
        assert pricer.cost(state).excl_tax == Decimal("0.17"), "what the energy may decide waits for the register"
        bill = pricer.finish(pricer.advance(state, ended(BEGIN + HOUR, 1_000)))
        assert bill.total.excl_tax == Decimal("0.17")

    def test_an_instant_that_is_past_is_now(self) -> None:
        pricer = Pricer(CHEAP, "UTC")
        state = pricer.begin()
        for fact in (started(BEGIN, 0), sampled(BEGIN + HOUR, 10_000)):
            state = pricer.advance(state, fact)
        pricer, state = pricer.change(state, BEGIN + 1, DEAR)
        bill = pricer.finish(pricer.advance(state, ended(BEGIN + 2 * HOUR, 20_000)))
        assert bill.total.excl_tax == 2 + 5
        assert Note.OUT_OF_ORDER in bill.notes


class TestLimits:
    def test_the_new_maximum_holds_the_session(self) -> None:
        capped = tariff(element(component("ENERGY", "0.50")), max_price=limit("4"))
        bill = run(CHEAP, TEN_KWH_AN_HOUR, [(BEGIN + HOUR, capped)])
        assert (bill.total.excl_tax, bill.cost_type) == (Decimal(4), CostType.MAXIMUM)
        assert_adds_up(bill)

    def test_but_takes_nothing_back(self) -> None:
        capped = tariff(element(component("ENERGY", "0.50")), max_price=limit("1"))
        bill = run(DEAR, TEN_KWH_AN_HOUR, [(BEGIN + HOUR, capped)])
        assert (bill.total.excl_tax, bill.cost_type) == (Decimal(5), CostType.MAXIMUM)

    def test_what_the_old_maximum_saved_stays_saved(self) -> None:
        capped = tariff(element(component("ENERGY", "1")), max_price=limit("3"))
        bill = run(capped, TEN_KWH_AN_HOUR, [(BEGIN + HOUR, CHEAP)])
        assert bill.total.excl_tax == 3 + 2
        assert_adds_up(bill)
        running = self.running(capped, CHEAP)
        assert running == [3, 3, 5]

    def test_the_last_minimum_counts_alone(self) -> None:
        least = tariff(element(component("ENERGY", "0.20")), min_price=limit("30"))
        assert run(least, TEN_KWH_AN_HOUR, [(BEGIN + HOUR, CHEAP)]).total.excl_tax == 4
        assert run(CHEAP, TEN_KWH_AN_HOUR, [(BEGIN + HOUR, least)]).total.excl_tax == 30

    @staticmethod
    def running(first: Tariff, second: Tariff) -> list[Decimal]:
        pricer = Pricer(first, "UTC")
        state = pricer.begin()
        for fact in (started(BEGIN, 0), sampled(BEGIN + HOUR, 10_000)):
            state = pricer.advance(state, fact)
        found = [pricer.cost(state).excl_tax]
        pricer, state = pricer.change(state, BEGIN + HOUR, second)
        found.append(pricer.cost(state).excl_tax)
        state = pricer.advance(state, sampled(BEGIN + 2 * HOUR, 20_000))
        return [*found, pricer.cost(state).excl_tax]


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("other", "path"),
        [
            (tariff(element(component("ENERGY", "1")), currency="USD"), "$.currency"),
            (tariff(element(component("ENERGY", "1")), tax_included="YES"), "$.tax_included"),
        ],
    )
    def test_another_currency_and_another_side_of_the_tax(self, other: Tariff, path: str) -> None:
        with pytest.raises(TariffError) as caught:
            run(CHEAP, TEN_KWH_AN_HOUR, [(BEGIN + HOUR, other)])
        assert [problem.path for problem in caught.value.problems] == [path]

    def test_a_session_that_has_not_begun_or_is_over(self) -> None:
        pricer = Pricer(CHEAP, "UTC")
        for facts in ([], [reserved(BEGIN)], TEN_KWH_AN_HOUR):
            state = pricer.begin()
            for fact in facts:
                state = pricer.advance(state, fact)
            with pytest.raises(ValueError, match="goes on"):
                pricer.change(state, BEGIN + 3 * HOUR, DEAR)

    def test_changes_without_end(self) -> None:
        changes = [(BEGIN + place * 1000, DEAR) for place in range(1, MAX_CHANGES + 1)]
        assert run(CHEAP, TEN_KWH_AN_HOUR, changes).total.excl_tax == Decimal("10.00")
        with pytest.raises(TariffError):
            run(CHEAP, TEN_KWH_AN_HOUR, [*changes, (BEGIN + HOUR, CHEAP)])

    def test_a_state_of_another_tariff(self) -> None:
        pricer = Pricer(CHEAP, "UTC")
        state = pricer.advance(pricer.begin(), started(BEGIN, 0))
        changed, later = pricer.change(state, BEGIN + 1, DEAR)
        for wrong, given_state in ((pricer, later), (Pricer(DEAR, "UTC"), later), (Pricer(DEAR, "UTC"), state)):
            with pytest.raises(ValueError, match="priced by tariff"):
                wrong.advance(given_state, sampled(BEGIN + 2))
        with pytest.raises(ValueError, match="has not been priced yet"):
            changed.change(state, BEGIN + 2, CHEAP)


class TestAsFacts:
    """The pricer of a session whose tariff has been changed prices it from its begin."""

    @staticmethod
    def pricer(*tariffs_: Tariff, zone: str = "UTC", **options: Any) -> Pricer:
        return Pricer(reduce(changed_tariff, tariffs_), zone, Options(**options))

    def test_the_whole_session_at_once_or_fact_by_fact(self) -> None:
        facts = [TEN_KWH_AN_HOUR[0], tariff_changed(BEGIN + HOUR // 2), TEN_KWH_AN_HOUR[1]]
        pricer = self.pricer(CHEAP, DEAR)
        state = pricer.begin()
        for fact in facts:
            state = pricer.advance(state, fact)
        expected = run(CHEAP, TEN_KWH_AN_HOUR, [(BEGIN + HOUR // 2, DEAR)])
        assert pricer.finish(state) == pricer.price(facts) == expected

    def test_a_state_from_before_the_change_was_known_goes_on(self) -> None:
        before = self.pricer(CHEAP)
        state = before.advance_all(before.begin(), [started(BEGIN, 0), sampled(BEGIN + HOUR, 10_000)])
        pricer = self.pricer(CHEAP, DEAR)
        assert pricer.cost(state).excl_tax == 2
        state = pricer.advance_all(state, [tariff_changed(BEGIN + HOUR), ended(BEGIN + 2 * HOUR, 20_000)])
        assert pricer.finish(state).total.excl_tax == 2 + 5

    def test_a_session_that_never_came_to_its_change_has_the_first_tariff_alone(self) -> None:
        bill = self.pricer(CHEAP, DEAR).price(TEN_KWH_AN_HOUR)
        assert bill == self.pricer(CHEAP).price(TEN_KWH_AN_HOUR)

    @pytest.mark.parametrize("place", [0, 2])
    def test_a_change_outside_of_the_session_or_of_no_tariff_is_noted(self, place: int) -> None:
        facts = TEN_KWH_AN_HOUR.copy()
        facts.insert(place, tariff_changed(BEGIN + HOUR))
        assert Note.IGNORED in self.pricer(CHEAP, DEAR).price(facts).notes
        assert Note.IGNORED in self.pricer(CHEAP).price([*facts[:1], tariff_changed(BEGIN), *facts[1:]]).notes


class TestHowItIsTold:
    BILL = run(CHEAP, TEN_KWH_AN_HOUR, [(BEGIN + HOUR // 2, DEAR)], "Europe/Berlin")

    def test_periods_of_ocpi_and_ocpp_name_their_tariff(self) -> None:
        cdr = cdr_part(self.BILL)
        assert [(p["tariff_id"], p["start_date_time"]) for p in cdr["charging_periods"]] == [
            ("CHEAP", "2026-03-11T10:00:00Z"),
            ("DEAR", "2026-03-11T10:30:00Z"),
        ]
        assert [item["id"] for item in cdr["tariffs"]] == ["CHEAP", "DEAR"]
        periods = cost_details(self.BILL, tariff_id="DEAR-7")["chargingPeriods"]
        assert [period["tariffId"] for period in periods] == ["CHEAP", "DEAR-7"]

    def test_the_receipt_says_when(self) -> None:
        document = explain(self.BILL, "Europe/Berlin")
        assert [item["until"] for item in document["earlier_tariffs"]] == ["2026-03-11T10:30:00Z"]
        assert [line["tariff"] for line in document["lines"]] == ["CHEAP", "DEAR"]
        text = receipt_text(make_receipt(self.BILL, "Europe/Berlin"))
        assert "from 2026-03-11 11:30:00 CET" in text
        assert "0.20 EUR/kWh" in text
        assert "0.50 EUR/kWh" in text

    def test_a_period_without_a_price_is_cut_too(self) -> None:
        bill = run(CHEAP, session(START, (PARKED, 60, 0)), [(BEGIN + HOUR // 2, DEAR)])
        assert [(period.start_ms - BEGIN, period.end_ms - BEGIN) for period in bill.periods] == [
            (0, HOUR // 2),
            (HOUR // 2, HOUR),
        ]


def places(facts: list[Fact], share: int) -> int:
    """The instant of one of the facts."""
    return facts[share * (len(facts) - 1) // 100].at_ms


def same_sides(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    return {**second, "id": "other", "tax_included": first["tax_included"]}


zones = st.sampled_from(ZONES)


@settings(max_examples=40, deadline=None)
@given(tariff_json=tariffs(), zone=zones, start=starts, session_=stretches, share=st.integers(0, 100))
def test_a_change_to_the_same_prices_changes_nothing(
    tariff_json: dict[str, Any], zone: str, start: datetime, session_: list[Stretch], share: int
) -> None:
    facts = facts_of(start, session_, 900)
    first, second = parse_ocpi_tariff(tariff_json), parse_ocpi_tariff({**tariff_json, "id": "other"})
    rounding = exactly().rounding
    plain = Pricer(first, zone, Options(rounding=rounding)).price(facts)
    bill = run(first, facts, [(places(facts, share), second)], zone, rounding=rounding)
    assert (bill.total, bill.taxes, bill.costs) == (plain.total, plain.taxes, plain.costs)
    assert (bill.energy_wh, bill.duration_ms, bill.parking_ms) == (
        plain.energy_wh,
        plain.duration_ms,
        plain.parking_ms,
    )


@settings(max_examples=40, deadline=None)
@given(
    first=tariffs(),
    second=tariffs(),
    zone=zones,
    start=starts,
    session_=stretches,
    at_minute=st.integers(0, 400),
    cut=st.integers(0, 6),
    silent=st.sets(st.integers(0, 30)),
)
@example(
    first=TIMED_JSON,
    second=TIMED_BY_ENERGY_JSON,
    zone="UTC",
    start=datetime.fromisoformat("2026-06-10T00:00:00+00:00"),
    session_=[("fast", 45)],
    at_minute=20,
    cut=0,
    silent={1},
)
def test_it_only_rises_adds_up_and_can_be_written_and_read_at_any_point(
    first: dict[str, Any],
    second: dict[str, Any],
    zone: str,
    start: datetime,
    session_: list[Stretch],
    at_minute: int,
    cut: int,
    silent: set[int],
) -> None:
    facts = facts_of(start, session_, 900)
    last = len(facts) - 1
    facts = [
        fact if place in (0, last) or place not in silent else Fact(fact.kind, fact.at_ms, None, fact.state)
        for place, fact in enumerate(facts)
    ]
    at_ms = min(facts[0].at_ms + at_minute * 60_000, facts[-1].at_ms)
    before, after = parse_ocpi_tariff(first), parse_ocpi_tariff(same_sides(first, second))
    whole = run(before, facts, [(at_ms, after)], zone)
    assert_adds_up(whole)
    lean = run(before, facts, [(at_ms, after)], zone, keep_periods=False)
    assert (lean.total, lean.costs, lean.taxes) == (whole.total, whole.costs, whole.taxes)

    pricer = Pricer(before, zone)
    state, cost = pricer.begin(), Decimal(0)
    detached: list[Period] = []
    changed = False
    for place, fact in enumerate(facts):
        if not changed and place and fact.at_ms >= at_ms:
            pricer, state = pricer.change(state, at_ms, after)
            changed = True
            assert cost <= pricer.cost(state).excl_tax, "nothing is taken back"
        if place % 7 == cut:
            state, periods = SessionState.from_bytes(state.to_bytes()).detach()
            detached += periods
        state = pricer.advance(state, fact)
        now = pricer.cost(state).excl_tax
        assert cost <= now
        cost = now
    bill = pricer.finish(state, detached)
    assert bill == whole
    assert cost <= bill.total.excl_tax
    for one, next_one in zip(bill.periods, bill.periods[1:], strict=False):
        assert one.end_ms == next_one.start_ms
    assert sum(period.energy_uwh for period in bill.periods) == bill.energy_wh * 1_000_000
    assert all(not period.start_ms < bill.changes[0] < period.end_ms for period in bill.periods)


def test_the_state_does_not_grow_with_the_samples() -> None:
    pricer = Pricer(CHEAP, "UTC")
    state = pricer.advance(pricer.begin(), started(BEGIN, 0))
    pricer, state = pricer.change(state, BEGIN + 1000, DEAR)
    sizes = []
    for minute in range(1, 600):
        state = pricer.advance(state, sampled(BEGIN + minute * 60_000, minute * 100))
        sizes.append(len(state.to_bytes()))
    assert max(sizes) < 600
