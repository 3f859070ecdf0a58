"""What holds for every tariff and every session."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Context, Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from busbar.pricing.bill import CostType, LineKind
from busbar.pricing.engine import Options, Pricer
from busbar.pricing.money import RoundAt, Rounding, RoundingMode, round_ratio
from busbar.pricing.ocpi_tariff import parse_ocpi_tariff
from busbar.pricing.state import Note, Period, SessionState
from busbar.pricing.tariff import Dimension
from tests.unit.pricing import oracle
from tests.unit.pricing.builders import assert_adds_up, exactly
from tests.unit.pricing.oracle import Stretch
from tests.unit.pricing.strategies import (
    CURRENCIES,
    ZONES,
    across_clock_changes,
    facts_of,
    one_sided,
    starts,
    stretches,
    tariffs,
)

zones = st.sampled_from(ZONES)
any_tariffs = st.sampled_from(sorted(CURRENCIES)).flatmap(tariffs)
"""In currencies with two, no and three decimals."""
half_limited = st.builds(one_sided, any_tariffs, st.sampled_from(["both", "before_taxes"]))
"""Where the tax of a limit may follow from that of the session, whatever its rates."""
HIGHEST_TAX = Decimal("1.205")
"""Of those in `strategies.taxes`."""


def pricer(tariff: dict[str, Any], zone: str, options: Options | None = None) -> Pricer:
    return Pricer(parse_ocpi_tariff(tariff), zone, options or Options())


@settings(max_examples=50, deadline=None)
@given(tariff=any_tariffs, zone=zones, start=starts, session=stretches)
def test_the_total_is_what_counting_half_minutes_gives(
    tariff: dict[str, Any], zone: str, start: datetime, session: list[Stretch]
) -> None:
    expected = oracle.cost(tariff, zone, start, session)
    bill = pricer(tariff, zone, exactly()).price(facts_of(start, session, None))
    unit = Decimal("1e-10")
    assert bill.total == tuple(_decimal(side).quantize(unit, ROUND_HALF_UP) for side in expected)


@settings(max_examples=30, deadline=None)
@given(case=across_clock_changes())
def test_an_hour_that_comes_twice_counts_twice_and_one_that_is_left_out_not_at_all(
    case: tuple[dict[str, Any], str, datetime, list[Stretch]],
) -> None:
    tariff, zone, start, session = case
    expected = oracle.cost(tariff, zone, start, session)
    bill = pricer(tariff, zone, exactly()).price(facts_of(start, session, None))
    unit = Decimal("1e-10")
    assert bill.total == tuple(_decimal(side).quantize(unit, ROUND_HALF_UP) for side in expected)


@settings(max_examples=30, deadline=None)
@given(
    tariff=half_limited,
    zone=zones,
    start=starts,
    session=stretches,
    at=st.sampled_from(list(RoundAt)),
    mode=st.sampled_from(list(RoundingMode)),
)
@example(
    tariff={
        "id": "nothing-but-a-minimum",
        "currency": "JPY",
        "tax_included": "NO",
        "elements": [
            {"price_components": [{"type": "ENERGY", "price": Decimal(0), "step_size": 0, "vat": Decimal(7)}]}
        ],
        "min_price": {"before_taxes": Decimal(1)},
    },
    zone="UTC",
    start=datetime(2026, 3, 28, tzinfo=UTC),
    session=[],
    at=RoundAt.DIMENSION,
    mode=RoundingMode.HALF_UP,
)
def test_the_lines_add_up_to_the_total(
    tariff: dict[str, Any], zone: str, start: datetime, session: list[Stretch], at: RoundAt, mode: RoundingMode
) -> None:
    bill = pricer(tariff, zone, Options(rounding=Rounding(mode, at=at))).price(facts_of(start, session, 900))
    assert_adds_up(bill)
    assert bill.total.excl_tax == bill.total.excl_tax.quantize(Decimal(CURRENCIES[tariff["currency"]]))
    rounding = [line for line in bill.lines if line.kind is LineKind.ROUNDING]
    assert len(rounding) <= 1
    # Each dimension is rounded; and the total where a limit set it, for it need not be a whole number after tax.
    is_limited = bill.cost_type is not CostType.NORMAL
    parts = len(bill.costs) + is_limited if at is RoundAt.DIMENSION else 1
    for line in rounding:
        most = Decimal(CURRENCIES[tariff["currency"]]) * parts * Decimal("1.01")
        assert abs(line.excl_tax) <= most
        assert abs(line.incl_tax) <= most


@settings(max_examples=60, deadline=None)
@given(tariff=half_limited, zone=zones, start=starts, session=stretches)
def test_the_running_cost_rises_to_no_more_than_the_final_cost(
    tariff: dict[str, Any], zone: str, start: datetime, session: list[Stretch]
) -> None:
    engine = pricer(tariff, zone)
    state = engine.begin()
    before = engine.cost(state)
    # Once a maximum before tax alone is reached, the tax share of what is used later decides over the other side.
    follows = "after_taxes" not in tariff.get("max_price", {"after_taxes": None})
    for fact in facts_of(start, session, 600):
        state = engine.advance(state, fact)
        now = engine.cost(state)
        assert now.excl_tax >= before.excl_tax
        if follows and now.cost_type is CostType.MAXIMUM:
            assert now.excl_tax <= now.incl_tax <= now.excl_tax * HIGHEST_TAX + Decimal(CURRENCIES[now.currency])
        else:
            assert now.incl_tax >= before.incl_tax
        before = now
    bill = engine.finish(state)
    assert before.excl_tax <= bill.total.excl_tax
    if not (follows and bill.cost_type is CostType.MAXIMUM):
        assert before.incl_tax <= bill.total.incl_tax
    unexplained = bill.cost_type is not CostType.MINIMUM and not any(line.kind is LineKind.STEP for line in bill.lines)
    if unexplained:
        assert (before.excl_tax, before.incl_tax) == bill.total


@settings(max_examples=30, deadline=None)
@given(tariff=tariffs(), zone=zones, start=starts, session=stretches, every=st.sampled_from([60, 90, 420, 3600]))
def test_more_samples_change_nothing_while_power_is_constant(
    tariff: dict[str, Any], zone: str, start: datetime, session: list[Stretch], every: int
) -> None:
    engine = pricer(tariff, zone, exactly())
    sparse, dense = (engine.price(facts_of(start, session, seconds)) for seconds in (None, every))
    assert sparse.total == dense.total
    assert sparse.periods == dense.periods
    assert sparse.lines == dense.lines


@settings(max_examples=30, deadline=None)
@given(
    tariff=tariffs(),
    zone=zones,
    start=starts,
    session=stretches,
    cut=st.integers(0, 100),
    taken=st.booleans(),
)
def test_a_state_may_be_written_and_read_at_any_point(
    tariff: dict[str, Any], zone: str, start: datetime, session: list[Stretch], cut: int, taken: bool
) -> None:
    engine = pricer(tariff, zone)
    facts = facts_of(start, session, 1800)
    whole = engine.price(facts)
    state = engine.begin()
    detached: list[Period] = []
    for place, fact in enumerate(facts):
        if place % 7 == cut % 7:
            if taken:
                state, periods = state.detach()
                detached += periods
            restored = SessionState.from_bytes(state.to_bytes())
            assert restored == state
            state = restored
        earlier = state.to_bytes()
        later = engine.advance(state, fact)
        assert state.to_bytes() == earlier
        state = later
    assert engine.finish(state, detached) == whole


@settings(max_examples=25, deadline=None)
@given(tariff=tariffs(), zone=zones, start=starts, session=stretches)
def test_a_session_without_kept_periods_costs_the_same(
    tariff: dict[str, Any], zone: str, start: datetime, session: list[Stretch]
) -> None:
    facts = facts_of(start, session, 3600)
    kept, lean = (pricer(tariff, zone, Options(keep_periods=keep)).price(facts) for keep in (True, False))
    assert lean.total == kept.total
    assert lean.costs == kept.costs
    assert lean.taxes == kept.taxes
    assert not lean.periods
    assert_adds_up(lean)


@settings(max_examples=25, deadline=None)
@given(tariff=tariffs(), zone=zones, start=starts, session=stretches)
def test_the_periods_follow_each_other_and_hold_all_energy(
    tariff: dict[str, Any], zone: str, start: datetime, session: list[Stretch]
) -> None:
    bill = pricer(tariff, zone).price(facts_of(start, session, 1800))
    assert bill.periods[0].start_ms == bill.start_ms
    assert bill.periods[-1].end_ms == bill.end_ms
    for one, next_one in zip(bill.periods, bill.periods[1:], strict=False):
        assert one.end_ms == next_one.start_ms
        assert one[2:] != next_one[2:]
    assert sum(period.energy_uwh for period in bill.periods) == bill.energy_wh * 1_000_000


@settings(max_examples=30, deadline=None)
@given(
    tariff=tariffs(),
    zone=zones,
    start=starts,
    session=stretches,
    silent=st.sets(st.integers(0, 40)),
)
def test_registers_that_are_missing_lose_no_energy(
    tariff: dict[str, Any], zone: str, start: datetime, session: list[Stretch], silent: set[int]
) -> None:
    engine = pricer(tariff, zone)
    facts = facts_of(start, session, 900)
    last = len(facts) - 1
    heard = [
        fact if place in (0, last) or place not in silent else type(fact)(fact.kind, fact.at_ms, None, fact.state)
        for place, fact in enumerate(facts)
    ]
    full, patchy = engine.price(facts), engine.price(heard)
    assert patchy.energy_wh == full.energy_wh
    assert patchy.duration_ms == full.duration_ms
    assert patchy.parking_ms == full.parking_ms
    assert_adds_up(patchy)
    state, before = engine.begin(), Decimal(0)
    for fact in heard:
        state = engine.advance(state, fact)
        now = engine.cost(state).incl_tax
        assert now >= before
        before = now
    assert before <= patchy.total.incl_tax


@settings(max_examples=200, deadline=None)
@given(
    numerator=st.integers(-(10**12), 10**12),
    denominator=st.integers(1, 10**6),
    mode=st.sampled_from(list(RoundingMode)),
)
def test_a_ratio_is_rounded_as_the_decimal_module_rounds(numerator: int, denominator: int, mode: RoundingMode) -> None:
    exact = Context(prec=80).divide(Decimal(numerator), Decimal(denominator))
    assert round_ratio(numerator, denominator, mode) == int(exact.to_integral_value(f"ROUND_{mode.value}"))


def test_a_maximum_before_tax_alone_leaves_the_other_side_to_the_tax_share_of_the_session() -> None:
    tariff = {
        "id": "mixed",
        "currency": "EUR",
        "tax_included": "NO",
        "max_price": {"before_taxes": Decimal(4)},
        "elements": [
            {
                "price_components": [
                    {"type": "TIME", "price": Decimal(1), "step_size": 1},
                    {"type": "PARKING_TIME", "price": Decimal(1), "step_size": 1, "vat": Decimal(20)},
                ]
            }
        ],
    }
    engine = pricer(tariff, "UTC")
    facts = facts_of(datetime.fromisoformat("2026-03-11T09:00:00+00:00"), [("parked", 240), ("paused", 240)], None)
    state = engine.advance_all(engine.begin(), facts[:2])
    assert (engine.cost(state).excl_tax, engine.cost(state).incl_tax) == (Decimal(4), Decimal("4.80"))
    state = engine.advance(state, facts[2])
    # Half of it is taxed now: what taxes explain, and nothing else, makes it less than it was.
    assert (engine.cost(state).excl_tax, engine.cost(state).incl_tax) == (Decimal(4), Decimal("4.40"))
    assert engine.finish(state).total == (Decimal(4), Decimal("4.40"))


@pytest.mark.parametrize("length", [0, 90])
def test_a_session_without_energy_costs_fees_and_time_only(length: int) -> None:
    tariff = {
        "id": "all",
        "currency": "EUR",
        "tax_included": "NO",
        "elements": [
            {
                "price_components": [
                    {"type": kind, "price": Decimal(2), "step_size": 1, "vat": Decimal(10)}
                    for kind in ("ENERGY", "TIME", "PARKING_TIME", "FLAT")
                ]
            }
        ],
    }
    session = [("paused", length)] if length else []
    bill = pricer(tariff, "UTC").price(facts_of(datetime.fromisoformat("2026-03-11T09:00:00+00:00"), session))
    assert bill.total.excl_tax == 2 + 2 * Decimal(length) / 60
    assert Dimension.ENERGY not in bill.costs
    assert len(bill.periods) == 1
    assert Note.NO_START_REGISTER not in bill.notes


def _decimal(value: Fraction) -> Decimal:
    return Context(prec=60).divide(Decimal(value.numerator), Decimal(value.denominator))
