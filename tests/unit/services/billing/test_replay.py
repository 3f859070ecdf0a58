"""Whatever the batches, the restarts and the repeats: the same records, byte for byte."""

from __future__ import annotations

from decimal import Decimal
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from busbar.avro import encode
from busbar.pricing.jsontext import parse_json
from tests.unit.pricing.builders import component, element, tariff_json
from tests.unit.services.billing.scenario import TARIFFS, random_sessions
from tests.unit.services.billing.world import Session, World


def records(world: World) -> dict[str, Any]:
    """What was produced, by key; what is produced twice is the same."""
    found: dict[str, Any] = {}
    for result in world.results:
        key = result.key.decode()
        told = (result.value, result.partition, result.timestamp_ms)
        assert found.setdefault(key, told) == told
    return found


def expected(events: list[tuple[bytes, int]]) -> World:
    world = World(TARIFFS)
    world.raw_batch(events)
    return world


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    data=st.data(),
    journal_batches=st.sampled_from([1, 2, 5, 64]),
    few_events=st.sampled_from([0, 2, 20]),
)
def test_records_do_not_depend_on_batches_restarts_and_repeats(
    seed: int, data: st.DataObject, journal_batches: int, few_events: int
) -> None:
    events = [
        (encode("csms.SessionEvent", event), int(station[-1]) % 3) for station, event in random_sessions(seed, 12)
    ]
    whole = expected(events)
    world = World(TARIFFS, journal_batches=journal_batches, few_events=few_events)
    chance = Random(data.draw(st.integers(0, 10**6)))
    place = 0
    while place < len(events):
        size = chance.choice((1, 1, 2, 7, 30))
        fate = chance.random()
        batch = events[place : place + size]
        if fate < 0.1:
            world.raw_batch(batch, commit=False)
            continue
        if fate < 0.2:
            world.restart()
        if fate > 0.9 and place:
            batch = [*events[max(0, place - 5) : place], *batch]
        world.raw_batch(batch)
        place += size
    whole.wait(61, 3)
    world.wait(61, 3)
    assert world.tables.cdrs == whole.tables.cdrs
    assert records(world) == records(whole)
    assert world.tables.unattributed == whole.tables.unattributed
    known = {key: (row["status"], row["cdr_id"], row["cdr_count"]) for key, row in whole.tables.sessions.items()}
    assert {
        key: (row["status"], row["cdr_id"], row["cdr_count"]) for key, row in world.tables.sessions.items()
    } == known


def test_an_event_that_has_the_order_of_the_start_costs_the_same_after_a_restart() -> None:
    by_power = tariff_json(
        element(component("ENERGY", "1"), max_power=Decimal("0.7")), element(component("ENERGY", "2"))
    )
    session = Session("")  # which tariff it has becomes known at its end
    events = [session.started(), session.measured(0, 600, seq_no=1)]
    session.tariff = "P/1"
    events.append(session.ended(60, 1000, seq_no=2))
    whole = World({"P/1": by_power})
    whole.batch(*events)
    world = World({"P/1": by_power}, journal_batches=1, few_events=0)
    for event in events:
        world.batch(event)
        world.restart()
    assert world.tables.cdrs == whole.tables.cdrs
    assert whole.session()["cost_excl"] == 2  # 1 kW all along: what is counted at the start takes no time


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_records_say_what_their_session_has_and_lines_add_up(seed: int) -> None:
    sessions = random_sessions(seed, 10)
    world = expected([(encode("csms.SessionEvent", event), 0) for _, event in sessions])
    world.wait(61)
    last = {event["session_id"]: event for _, event in sessions if event["kind"] != "reservation"}
    for session_id, event in last.items():
        row = world.session(session_id)
        cdrs = [cdr for cdr in world.tables.cdrs.values() if cdr["session_id"] == session_id]
        if not event["final"]:
            assert row["status"] == "open"
            continue
        if event["tariff_id"] in ("", "GONE"):
            assert (row["status"], cdrs) == ("unpriced" if not event["tariff_id"] else "failed", [])
            continue
        assert row["status"] == "priced"
        standing = world.tables.cdrs[row["cdr_id"]]
        assert sum((cdr["total_incl"] for cdr in cdrs), Decimal(0)) == standing["total_incl"] == row["cost_incl"]
        assert len(cdrs) == 2 * row["cdr_count"] - 1
        assert standing["energy"] == event["energy_wh"] * 10**6
        assert (standing["started"], standing["ended"]) == (event["started_at"], event["ended_at"])
        bill = parse_json(standing["bill"])
        for side in ("excl_tax", "incl_tax"):
            assert sum(line[side] for line in bill["lines"]) == bill["total"][side]


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_running_cost_is_never_above_what_it_costs_in_the_end(seed: int) -> None:
    events = [each for each in random_sessions(seed, 3) if each[1]["kind"] != "reservation"]
    world = World(TARIFFS, journal_batches=1, few_events=0)
    running: dict[str, list[Decimal]] = {}
    numbers: dict[str, list[int]] = {}
    for _, event in events:
        numbers.setdefault(event["session_id"], []).append(event["seq_no"] or 0)
    # What comes late may move energy to where it has another price.
    late = {session_id for session_id, seen in numbers.items() if [n for n in seen if n] != sorted(set(seen) - {0})}
    for _, event in events:
        corrects = event["kind"] == "corrected" or event["session_id"] in late
        world.batch(event)
        world.wait(61)
        row = world.session(event["session_id"])
        if row["status"] == "open" and row["cost_incl"] is not None:
            running.setdefault(event["session_id"], []).append(row["cost_incl"])
        if row["status"] == "priced" and not corrects:
            assert max(running.get(event["session_id"], [Decimal(0)])) <= row["cost_incl"]
