"""From the events of a session to facts: in order, late, twice, with registers that cannot be true."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from functools import reduce
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busbar.pricing.bill import Bill
from busbar.pricing.engine import Pricer
from busbar.pricing.facts import ChargingState, Fact, FactKind
from busbar.pricing.ocpi_tariff import parse_ocpi_tariff
from busbar.pricing.session_facts import (
    MICRO,
    Feed,
    Frame,
    Observation,
    Point,
    dump_observations,
    load_observations,
    observe,
)
from busbar.pricing.state import Note, SessionState
from busbar.pricing.tariff import changed_tariff
from tests.unit.pricing.builders import component, element, tariff_json
from tests.unit.pricing.oracle import POWER_W, Stretch
from tests.unit.pricing.strategies import STATES, ZONES, starts, stretches, tariffs

MINUTE = 60_000
T0 = 1_770_000_000_000
BEGIN = 1_234_567 * MICRO
BY_ENERGY_AND_TIME = tariff_json(element(component("ENERGY", "0.50"), component("TIME", "6"), component("FLAT", "1")))


@dataclass
class Event:
    """An event of a session, as sessions tells it."""

    frame: Frame
    order: int
    state: str = ""
    points: list[Point] = field(default_factory=list)

    @property
    def observations(self) -> list[Observation]:
        return observe(self.frame.at_ms, self.order, self.state, self.points)


def event(
    minutes: float,
    order: int,
    wh: float | None = None,
    state: str = "",
    *,
    started: int | None = T0,
    ended: bool = False,
    energy: float | None = None,
    rung: str = "samples",
    begin: int | None = BEGIN,
    end_wh: float | None = None,
) -> Event:
    """One whose register is so many Wh above the begin."""
    at_ms = T0 + round(minutes * MINUTE)
    register = None if wh is None else BEGIN + round(wh * MICRO)
    energy_uwh = round((energy if energy is not None else wh or 0) * MICRO)
    end_uwh = None if begin is None else begin + energy_uwh if end_wh is None else BEGIN + round(end_wh * MICRO)
    frame = Frame(at_ms, started, at_ms if ended else None, energy_uwh, rung, begin, end_uwh)
    points: list[Point] = [] if register is None else [(at_ms, register, None, None)]
    return Event(frame, order, state, points)


def feed_all(events: list[Event]) -> tuple[Feed, list[Fact]]:
    feed, facts = Feed(), list[Fact]()
    for each in events:
        facts += feed.take(each.frame, each.observations)
    return feed, facts


def replay(events: list[Event], frame: Frame | None = None) -> list[Fact]:
    observations = [observation for each in events for observation in each.observations]
    return Feed.replay(frame or events[-1].frame, observations)[1]


def pricer(tariff: dict[str, Any] = BY_ENERGY_AND_TIME, zone: str = "UTC") -> Pricer:
    return Pricer(parse_ocpi_tariff(tariff), zone)


def bill_of(events: list[Event], tariff: dict[str, Any] = BY_ENERGY_AND_TIME) -> Bill:
    return pricer(tariff).price(replay(events))


PLAIN = [
    event(0, 0, 0, "Charging"),
    event(10, 1, 1000),
    event(20, 2, 2500, "SuspendedEV"),
    event(60, 3, 2500, ended=True, rung="transaction_registers"),
]


def reserved(events: list[Event], minutes: float | None) -> list[Event]:
    """The same, with a reservation made so long before the begin."""
    reserved_ms = None if minutes is None else T0 - round(minutes * MINUTE)
    return [replace(each, frame=each.frame._replace(reserved_ms=reserved_ms)) for each in events]


def test_a_reservation_comes_before_the_start() -> None:
    events = reserved(PLAIN, 30)
    feed, facts = feed_all(events)
    last = feed.end(events[-1].frame)
    assert last is not None
    assert [*facts, *last] == replay(events)
    assert [(fact.kind, fact.at_ms) for fact in facts[:2]] == [
        (FactKind.RESERVED, T0 - 30 * MINUTE),
        (FactKind.STARTED, T0),
    ]
    assert facts[1:] == feed_all(PLAIN)[1]


def test_a_reservation_never_moves_the_start() -> None:
    """It was made after it, by our clock."""
    facts = replay(reserved(PLAIN, -2))
    assert [fact.at_ms for fact in facts[:2]] == [T0, T0]
    assert facts[1:] == replay(PLAIN)


@pytest.mark.parametrize("place", [1, 2, 3])
@pytest.mark.parametrize(("before", "after"), [(None, 30), (30, None), (30, 20)])
def test_a_reservation_that_becomes_known_later_makes_the_facts_anew(
    place: int, before: float | None, after: float | None
) -> None:
    events = [*reserved(PLAIN[:place], before), *reserved(PLAIN[place:], after)]
    feed, _ = feed_all(events)
    assert not feed.exact
    assert replay(events) == replay(reserved(PLAIN, after))


def test_frames_and_feeds_of_before_have_no_reservation() -> None:
    frame = PLAIN[0].frame
    assert Frame.from_list(list(frame)[:8]) == Frame.from_list(list(frame)[:7]) == frame
    with_one = frame._replace(reserved_ms=T0)
    assert Frame.from_list(orjson.loads(orjson.dumps(tuple(with_one)))) == with_one
    feed, _ = feed_all(PLAIN[:2])
    assert Feed.from_list(feed.to_list()[:-1]).take(PLAIN[2].frame, PLAIN[2].observations)
    assert Feed.from_list(feed_all(reserved(PLAIN[:2], 30))[0].to_list()).reserved_ms == T0 - 30 * MINUTE


def test_facts_of_a_session_in_order_are_those_of_all_its_events() -> None:
    feed, facts = feed_all(PLAIN)
    last = feed.end(PLAIN[-1].frame)
    assert last is not None
    assert feed.exact
    assert [*facts, *last] == replay(PLAIN)
    assert [(fact.kind, (fact.at_ms - T0) // MINUTE, fact.register_wh, fact.state) for fact in [*facts, *last]] == [
        (FactKind.STARTED, 0, 0, ChargingState.CHARGING),
        (FactKind.SAMPLED, 0, 0, ChargingState.CHARGING),
        (FactKind.SAMPLED, 10, 1000, None),
        (FactKind.SAMPLED, 20, 2500, ChargingState.SUSPENDED_EV),
        (FactKind.SAMPLED, 60, 2500, None),
        (FactKind.ENDED, 60, 2500, None),
    ]


def test_an_event_that_comes_late_is_sorted_in() -> None:
    late = [PLAIN[0], PLAIN[2], PLAIN[1], PLAIN[3]]
    feed, _ = feed_all(late)
    assert not feed.exact
    assert feed.end(PLAIN[3].frame) is None
    assert replay(late) == replay(PLAIN)
    feed, facts = Feed.replay(PLAIN[2].frame, [each for e in late[:3] for each in e.observations])
    assert feed.exact
    facts += feed.take(PLAIN[3].frame, PLAIN[3].observations)
    last = feed.end(PLAIN[3].frame)
    assert last is not None
    assert [*facts, *last] == replay(PLAIN)


def test_events_of_one_instant_are_in_the_order_of_their_numbers() -> None:
    events = [PLAIN[0], event(10, 1, 1000, "SuspendedEV"), event(10, 2, 1000, "Charging"), PLAIN[3]]
    swapped = [events[0], events[2], events[1], events[3]]
    assert feed_all(events)[0].exact
    assert not feed_all(swapped)[0].exact
    assert replay(swapped) == replay(events)


def test_an_observation_that_comes_twice_costs_nothing() -> None:
    twice = [each for e in PLAIN for each in (e, e)]
    assert bill_of(twice).total == bill_of(PLAIN).total


def test_a_session_of_no_length_has_a_bill() -> None:
    events = [event(0, 0, 0, "Charging"), event(0, 1, 0, ended=True)]
    bill = bill_of(events)
    assert (bill.duration_ms, bill.energy_wh, bill.total.excl_tax) == (0, Decimal(0), Decimal(1))
    assert bill_of([event(0, 0, 0, "Charging", ended=True)]).total.excl_tax == 1


def test_a_start_that_comes_after_other_events_is_where_it_says() -> None:
    unknown = [event(10, 1, 1000, started=None), event(20, 2, 2500, started=None)]
    feed, facts = feed_all(unknown)
    assert not feed.exact
    assert facts[0] == Fact(FactKind.STARTED, T0 + 10 * MINUTE, 0, ChargingState.CHARGING)
    known = [*unknown, event(0, 0, 0, "Charging", energy=2500), PLAIN[3]]
    whole = replay(known)
    assert whole[0] == Fact(FactKind.STARTED, T0, 0, ChargingState.CHARGING)
    assert bill_of(known).duration_ms == 60 * MINUTE


def test_a_start_that_is_moved_counts_as_moved() -> None:
    feed, _ = feed_all([PLAIN[0], event(10, 1, 1000, started=T0 - MINUTE)])
    assert not feed.exact
    events = [PLAIN[0], event(10, 1, 1000, started=T0 - MINUTE, ended=True)]
    assert replay(events)[0].at_ms == T0 - MINUTE


def test_what_was_measured_before_the_start_belongs_to_it() -> None:
    first = PLAIN[0]
    first = Event(first.frame, 0, "EVConnected", [(T0 - 5 * MINUTE, BEGIN, None, None)])
    earlier = Event(first.frame, 0, "", [(T0 - 9 * MINUTE, BEGIN, None, 7)])
    earlier_state = observe(T0 - 9 * MINUTE, 0, "SuspendedEVSE", [])
    facts = Feed.replay(first.frame, [*earlier_state, *earlier.observations, *first.observations])[1]
    assert facts == [
        Fact(FactKind.STARTED, T0, 0, ChargingState.SUSPENDED_EVSE, None, Decimal("0.000007")),
        Fact(FactKind.SAMPLED, T0, None, ChargingState.EV_CONNECTED),
    ]
    facts = replay([first, PLAIN[3]])
    assert feed_all([first])[1] == facts[:2]


def test_registers_of_the_begin_count_from_it_whatever_event_they_are_of() -> None:
    # The start has no seqNo: its order is its number in the session, which is the next one's seqNo.
    events = [event(0, 1, 0, "Charging"), event(0, 1, 600), event(60, 2, 1000, ended=True)]
    by_power = tariff_json(
        element(component("ENERGY", "1"), max_power=Decimal("0.7")), element(component("ENERGY", "2"))
    )
    feed, facts = feed_all(events)
    last = feed.end(events[-1].frame)
    assert last is not None
    assert [*facts, *last] == replay(events)
    assert [fact.register_wh for fact in facts] == [0, 0, 0, 1000]
    assert bill_of(events, by_power).total.excl_tax == 2


def test_what_was_measured_after_the_end_is_left_out() -> None:
    events = [PLAIN[0], event(20, 1, 2500, ended=True)]
    late = Event(event(20, 2, 2500, ended=True).frame, 2, "", [(T0 + 50 * MINUTE, BEGIN + 2500 * MICRO, None, None)])
    assert replay([*events, late], events[1].frame) == replay(events)


def test_an_end_that_is_moved_takes_in_what_was_left_out() -> None:
    over = event(10, 1, 1000, ended=True)
    late = [
        Event(over.frame, order, "", [(T0 + minutes * MINUTE, BEGIN + 1000 * MICRO, None, None)])
        for order, minutes in ((2, 30), (3, 20))
    ]
    feed, _ = feed_all([PLAIN[0], over, *late])
    assert feed.exact
    assert feed.end(over.frame) is not None
    assert feed.end(over.frame._replace(ended_ms=T0 + 20 * MINUTE)) is None
    for ended_ms in (T0 + 20 * MINUTE, T0 + 5 * MINUTE, None):
        moved = feed.copy()
        moved.take(over.frame._replace(ended_ms=ended_ms), [])
        assert not moved.exact
    again, _ = Feed.replay(over.frame, [each for e in (PLAIN[0], over, *late) for each in e.observations])
    assert again.to_list() == feed.to_list()


def test_what_does_not_fit_now_may_fit_beside_what_comes_later() -> None:
    beyond = [event(0, 0, 0, begin=None), event(10, 1, 1000, begin=None, energy=500)]
    fell = [PLAIN[0], event(10, 1, 1000, energy=1000, end_wh=500)]
    glitch = [PLAIN[0], event(10, 1, 1000, energy=500)]
    for events in (beyond, fell, glitch):
        feed, _ = Feed.replay(events[-1].frame, [each for e in events for each in e.observations])
        assert not feed.exact


def test_a_feed_that_was_stored_before_it_knew_what_was_left_out_can_be_read() -> None:
    feed, _ = feed_all(PLAIN[:2])
    assert Feed.from_list(feed.to_list()[:-1]).to_list() == feed.to_list()


def test_a_register_that_was_exchanged_counts_on() -> None:
    events = [
        PLAIN[0],
        event(10, 1, 1000),
        event(20, 2, -1_000_000, energy=1000, end_wh=-1_000_000),
        event(30, 3, -999_500, energy=1500, end_wh=-999_500, ended=True),
    ]
    feed, _ = feed_all(events)
    assert not feed.exact
    assert [fact.register_wh for fact in replay(events)] == [0, 0, 1000, 1000, 1500, 1500]
    assert bill_of(events).energy_wh == 1500


def test_a_reading_far_off_is_not_billed() -> None:
    events = [
        PLAIN[0],
        event(10, 1, 5_000_000, energy=0),
        event(20, 2, 1000),
        event(25, 3, 1500),
        event(30, 4, 400, energy=1500),
        event(40, 5, 2500, ended=True),
    ]
    feed, _ = feed_all(events)
    assert not feed.exact
    assert [fact.register_wh for fact in replay(events)] == [0, 0, 1000, 1500, 2500, 2500]
    assert bill_of(events).energy_wh == 2500


def test_energy_that_no_register_tells_is_spread_over_the_session() -> None:
    events = [
        event(0, 0, None, "Charging", begin=None, rung="none"),
        event(60, 1, None, ended=True, energy=3000, begin=None, rung="intervals"),
    ]
    bill = bill_of(events, tariff_json(element(component("ENERGY", "1"), max_duration=1800)))
    assert bill.energy_wh == 3000
    assert bill.total.excl_tax == Decimal("1.50")


def test_energy_that_is_not_known_is_said_to_be_unknown() -> None:
    events = [event(0, 0, 0, "Charging", rung="none"), event(60, 1, None, ended=True, rung="none")]
    bill = bill_of(events)
    assert bill.energy_wh == 0
    assert Note.NO_END_REGISTER in bill.notes


def test_what_is_told_of_one_event_is_in_order() -> None:
    points: list[Point] = [(30, 3, None, 7), (10, 1, 5, None)]
    assert observe(20, 4, "Charging", points) == [
        (10, 4, 1, 5, None, ""),
        (20, 4, None, None, None, "Charging"),
        (30, 4, 3, None, 7, ""),
    ]
    assert observe(30, 4, "Idle", points)[-1] == (30, 4, 3, None, 7, "Idle")
    assert observe(30, 4, "", []) == []
    assert observe(10, 4, "Idle", [(30, 3, None, None)]) == [
        (10, 4, None, None, None, "Idle"),
        (30, 4, 3, None, None, ""),
    ]


def test_observations_and_feeds_can_be_stored() -> None:
    observations = [each for e in PLAIN for each in e.observations]
    assert load_observations(dump_observations(observations)) == observations
    feed, _ = feed_all(PLAIN[:2])
    again = Feed.from_list(feed.to_list())
    assert again.take(PLAIN[2].frame, PLAIN[2].observations) == feed.take(PLAIN[2].frame, PLAIN[2].observations)
    assert again.to_list() == feed.to_list()


instants = st.sampled_from([-7, -5, 0, 0, 3, 10, 10, 20, 30])
registers = st.sampled_from([None, -5, 0, 0, 100, 100, 500, 1000, 2000])
exceptions: list[dict[str, Any]] = [
    {"begin": None},
    {"begin": BEGIN + 100 * MICRO},
    {"energy": 500},
    {"energy": 500, "end_wh": 2000},
    {"energy": 1000},
    {"ended": 0},
    {"ended": 10},
    {"ended": 20},
    {"ended": 20, "energy": 1000},
    {"started": None},
    {"started": T0 + 10 * MINUTE},
]
told_events = st.lists(
    st.tuples(
        instants,
        st.integers(0, 2),
        st.sampled_from(["", "Charging", "SuspendedEV"]),
        st.lists(st.tuples(instants, registers, st.sampled_from([None, 7])), max_size=3),
        st.sampled_from([*[{}] * 6, *exceptions]),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=1000, deadline=None)
@given(
    told=told_events,
    rule=st.sampled_from([{}, *exceptions]),
    in_order=st.booleans(),
    restarts=st.integers(0, 63),
    catches_up=st.integers(0, 63),
    changes=st.lists(st.tuples(instants, st.integers(0, 6)), max_size=2),
)
def test_taking_events_with_any_restart_gives_the_facts_of_all_of_them(
    told: list[tuple[int, int, str, list[tuple[int, int | None, int | None]], dict[str, Any]]],
    rule: dict[str, Any],
    in_order: bool,
    restarts: int,
    catches_up: int,
    changes: list[tuple[int, int]],
) -> None:
    if in_order:
        told = sorted(told, key=lambda each: each[:2])
    feed, facts, all_observations = Feed(), list[Fact](), list[Observation]()
    # Sessions tells them in order, each from some event on.
    known_from = sorted(number for _, number in changes)
    change_instants = sorted(T0 + minute * MINUTE for minute, _ in changes)
    for number, (at, order, state, points, exception) in enumerate(told):
        at_ms, said = T0 + at * MINUTE, rule | exception
        found: list[Point] = [
            (T0 + minute * MINUTE, None if wh is None else BEGIN + wh * MICRO, None, current)
            for minute, wh, current in points
        ]
        energy_uwh, begin_uwh = said.get("energy", 2000) * MICRO, said.get("begin", BEGIN)
        end_uwh = None if begin_uwh is None else begin_uwh + energy_uwh
        frame = Frame(
            at_ms,
            said.get("started", T0),
            T0 + said["ended"] * MINUTE if "ended" in said else None,
            energy_uwh,
            "samples",
            begin_uwh,
            BEGIN + said["end_wh"] * MICRO if "end_wh" in said else end_uwh,
            tuple(
                (change_ms, "B", 1)
                for change_ms, first in zip(change_instants, known_from, strict=True)
                if first <= number
            ),
        )
        observations = observe(at_ms, order, state, found)
        all_observations += observations
        facts += feed.take(frame, observations)
        if restarts >> number & 1:
            feed = Feed.from_list(orjson.loads(orjson.dumps(feed.to_list())))
            all_observations = load_observations(dump_observations(all_observations))
        if not feed.exact and catches_up >> number & 1:
            again, facts = Feed.replay(frame._replace(ended_ms=None), all_observations)
            if again.exact:
                feed = again
        if feed.exact:
            last = feed.end(frame)
            if frame.ended_ms is None:
                assert facts == Feed.replay(frame, all_observations)[1]
            elif last is not None:
                assert [*facts, *last] == Feed.replay(frame, all_observations)[1]


def events_of(start: datetime, session: list[Stretch], every_seconds: int, *, with_power: bool) -> list[Event]:
    """What a station of 2.x reports of a session, in order."""
    found: list[Event] = []
    start_ms = at_ms = int(start.timestamp()) * 1000
    uwh = 0

    def tell(at_ms: int, uwh: int, state: str = "", power_w: int | None = None, *, ended: bool = False) -> None:
        register = BEGIN + uwh
        power = power_w * MICRO if with_power and power_w is not None else None
        frame = Frame(at_ms, start_ms, at_ms if ended else None, uwh, "samples", BEGIN, register)
        found.append(Event(frame, len(found), state, [(at_ms, register, power, power)]))

    tell(at_ms, 0, STATES[session[0][0]].value if session else "Charging")
    for place, (state, minutes) in enumerate(session):
        if place:
            tell(at_ms, uwh, STATES[state].value)
        for seconds in range(every_seconds, minutes * 60, every_seconds):
            tell(at_ms + seconds * 1000, uwh + POWER_W[state] * seconds * MICRO // 3600, "", POWER_W[state])
        at_ms += minutes * 60_000
        uwh += POWER_W[state] * minutes * MICRO // 60
    tell(at_ms, uwh, ended=True)
    return found


@settings(max_examples=40, deadline=None)
@given(
    tariff=tariffs(),
    zone=st.sampled_from(ZONES),
    start=starts,
    session=stretches,
    every=st.sampled_from([300, 900, 7200]),
    with_power=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_the_bill_does_not_depend_on_the_order_in_which_events_come(
    tariff: dict[str, Any],
    zone: str,
    start: datetime,
    session: list[Stretch],
    every: int,
    with_power: bool,
    seed: int,
) -> None:
    events = events_of(start, session, every, with_power=with_power)
    price = pricer(tariff, zone)
    feed, facts = feed_all(events)
    last = feed.end(events[-1].frame)
    assert feed.exact
    assert last is not None
    running = price.advance_all(price.begin(), [*facts, *last])
    in_order = price.finish(running)
    shuffled = events.copy()
    chance = random.Random(seed)
    chance.shuffle(shuffled)
    shuffled += chance.sample(shuffled, len(shuffled) // 3)
    later = price.price(replay(shuffled, events[-1].frame))
    assert later.total == in_order.total
    assert (later.lines, later.periods, later.notes) == (in_order.lines, in_order.periods, in_order.notes)


@settings(max_examples=60, deadline=None)
@given(
    data=st.lists(
        st.tuples(
            st.integers(-5, 90),
            st.one_of(st.none(), st.integers(-2000, 9000)),
            st.sampled_from(["", "Charging", "SuspendedEV", "Idle", "nonsense"]),
            st.integers(0, 9000),
            st.sampled_from(["samples", "none", "intervals", "signed"]),
        ),
        max_size=12,
    ),
    ends=st.integers(0, 80),
    energy=st.integers(0, 9000),
    begin=st.one_of(st.none(), st.integers(-10, 10)),
    end_wh=st.one_of(st.none(), st.integers(-10, 9000)),
)
def test_whatever_comes_the_bill_has_the_energy_and_the_times_of_the_session(
    data: list[tuple[int, int | None, str, int, str]], ends: int, energy: int, begin: int | None, end_wh: int | None
) -> None:
    events = [
        event(minutes, order, wh, state, energy=running, rung=rung)
        for order, (minutes, wh, state, running, rung) in enumerate(data)
    ]
    feed_all(events)
    begin_uwh = None if begin is None else BEGIN + begin * MICRO
    end_uwh = None if end_wh is None else BEGIN + end_wh * MICRO
    frame = Frame(T0 + ends * MINUTE, T0, T0 + ends * MINUTE, energy * MICRO, "samples", begin_uwh, end_uwh)
    bill = pricer().price(replay([*events, Event(frame, 99)], frame))
    assert bill.energy_wh == energy
    assert (bill.start_ms, bill.end_ms) == (T0, T0 + ends * MINUTE)
    assert Note.OUT_OF_ORDER not in bill.notes
    assert Note.REGISTER_FELL not in bill.notes


def test_a_change_of_the_tariff_comes_behind_all_of_its_instant() -> None:
    at_ms = T0 + 10 * MINUTE
    changed = [
        Event(each.frame._replace(changes=((at_ms, "B", 1),)), each.order, each.state, each.points) for each in PLAIN
    ]
    told = replay(changed)
    kinds = [(fact.kind, (fact.at_ms - T0) // MINUTE) for fact in told]
    assert kinds[2:5] == [(FactKind.SAMPLED, 10), (FactKind.TARIFF_CHANGED, 10), (FactKind.SAMPLED, 20)]
    feed, facts = feed_all([PLAIN[0], PLAIN[1], *changed[2:]])
    last = feed.end(changed[-1].frame)
    assert last is not None
    assert [*facts, *last] == told


def test_a_change_after_the_end_is_none_and_one_before_the_start_comes_with_it() -> None:
    frame = PLAIN[-1].frame
    assert replay(PLAIN, frame._replace(changes=((T0 + 61 * MINUTE, "B", 1),))) == replay(PLAIN)
    early = replay(PLAIN, frame._replace(changes=((T0 - MINUTE, "B", 1),)))
    assert [(fact.kind, fact.at_ms) for fact in early[1:3]] == [(FactKind.SAMPLED, T0), (FactKind.TARIFF_CHANGED, T0)]


def test_a_change_behind_what_has_been_priced_makes_the_feed_inexact() -> None:
    feed, _ = feed_all(PLAIN[:3])
    feed.take(PLAIN[2].frame._replace(changes=((T0 + 15 * MINUTE, "B", 1),)), [])
    assert not feed.exact


@pytest.mark.parametrize("minutes", [5, 10])
def test_what_comes_after_a_change_is_known_and_was_before_it_is_before_it(minutes: int) -> None:
    def with_change(each: Event) -> Event:
        changes = ((T0 + 10 * MINUTE, "B", 1),)
        return Event(each.frame._replace(changes=changes), each.order, each.state, each.points)

    known = [with_change(each) for each in (event(10, 1), event(minutes, 2, 500), *PLAIN[2:])]
    feed, facts = feed_all([PLAIN[0], *known])
    last = feed.end(known[-1].frame)
    assert last is not None
    assert [*facts, *last] == replay([PLAIN[0], *known])
    assert [fact.kind for fact in facts[2:4]] == [FactKind.SAMPLED, FactKind.TARIFF_CHANGED]
    late = with_change(event(minutes, 9, 500))
    feed, _ = feed_all([PLAIN[0], *known[:-1], late])
    assert not feed.exact


def test_a_frame_and_a_feed_with_changes_can_be_stored() -> None:
    frame = PLAIN[1].frame._replace(changes=((T0 + 5 * MINUTE, "B", 1), (T0 + 6 * MINUTE, "C", 2)))
    assert Frame.from_list(json.loads(json.dumps(frame))) == frame
    assert Frame.from_list(json.loads(json.dumps(frame[:7]))) == frame._replace(changes=())
    feed = Feed()
    feed.take(frame, PLAIN[0].observations)
    feed.take(frame, PLAIN[1].observations)
    stored = json.loads(json.dumps(feed.to_list()))
    assert Feed.from_list(stored).changed == 2
    assert Feed.from_list(stored[:8]).changed == 0  # as it was stored before there were changes


@settings(max_examples=60, deadline=None)
@given(
    chain=st.lists(tariffs(), min_size=2, max_size=4),
    zone=st.sampled_from(ZONES),
    start=starts,
    session=stretches,
    every=st.sampled_from([300, 900]),
    places=st.lists(st.integers(-2, 200), min_size=3, max_size=3),
    seed=st.integers(0, 2**32),
)
def test_changes_of_the_tariff_lead_to_one_bill_however_their_events_come(
    chain: list[dict[str, Any]],
    zone: str,
    start: datetime,
    session: list[Stretch],
    every: int,
    places: list[int],
    seed: int,
) -> None:
    first, *others = (parse_ocpi_tariff({**each, "currency": "EUR", "tax_included": "NO"}) for each in chain)
    events = events_of(start, session, every, with_power=False)
    chance = random.Random(seed)
    begin_ms, end_ms = events[0].frame.at_ms, events[-1].frame.at_ms
    # Each is known from the event on that follows it, or from a later one.
    changes = sorted(
        (max(begin_ms, min(end_ms + MINUTE, begin_ms + place * MINUTE)), f"T{number}", 1)
        for number, (place, _) in enumerate(zip(places, others, strict=False))
    )
    known, told = 0, []
    for each in events:
        while known < len(changes) and changes[known][0] <= each.frame.at_ms and chance.random() < 0.7:
            known += 1
        told.append(Event(each.frame._replace(changes=tuple(changes[:known])), each.order, each.state, each.points))
    told[-1].frame = told[-1].frame._replace(changes=tuple(changes))
    price = Pricer(reduce(changed_tariff, others, first), zone)
    expected = price.price(replay(told))
    feed, state = Feed(), price.begin()
    for each in told:
        if chance.random() < 0.3:
            feed = Feed.from_list(json.loads(json.dumps(feed.to_list())))
            state = SessionState.from_bytes(state.to_bytes())
        facts = feed.take(each.frame, each.observations)
        if not feed.exact:
            feed, facts = Feed.replay(
                each.frame._replace(ended_ms=None), [o for e in told[: told.index(each) + 1] for o in e.observations]
            )
            state = price.begin()
        state = price.advance_all(state, facts)
    last = feed.end(told[-1].frame)
    if last is not None:
        assert price.finish(price.advance_all(state, last)) == expected
    chance.shuffle(told)
    assert price.price(replay(told, expected_frame(told))) == expected


def expected_frame(events: list[Event]) -> Frame:
    """Of the newest event."""
    return max(events, key=lambda each: each.order).frame
