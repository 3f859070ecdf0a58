"""Stations, sessions and billing together: what the driver is told is what the record says."""

from __future__ import annotations

from decimal import Decimal
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busbar.ocpp.versions import Version
from busbar.pricing.assignment import Assignment, Scope
from busbar.records import StationCall
from busbar.tariffs import Configuration
from tests.unit.services.billing import world as billing
from tests.unit.services.billing.scenario import TARIFFS
from tests.unit.services.sessions import world as sessions
from tests.unit.services.sessions.world import MINUTE, T0, Station2x, Station16


def both(tariff_id: str) -> tuple[sessions.World, billing.World]:
    """Services that know one tariff for all stations."""
    made = billing.World(TARIFFS)
    stations = sessions.World()
    stations.token("TAG")
    assignments = (Assignment(tariff_id, Scope.DEFAULT),)
    stations.tariffs.accept(Configuration(1, made.configuration.versions, assignments, ()))
    return stations, made


def calls_of(chance: Random, version: Version) -> list[StationCall]:
    """A session in order: registers that rise, states, and now and then an event without either."""
    station, at_ms, wh = Station2x(version), 0, 0.0
    state = chance.choice(("Charging", "EVConnected", None))
    calls = [station.started(wh, state=state)]
    for seq_no in range(1, chance.randrange(2, 20)):
        at_ms += round(chance.choice((0.5, 1, 7, 90)) * MINUTE)
        state = chance.choice((None, None, "Charging", "SuspendedEV", "SuspendedEVSE", "Idle"))
        wh += chance.choice((0, 12.345, 900, 4000.5))
        register = None if chance.random() < 0.2 else wh
        calls.append(station.updated(seq_no, register, at_ms, state=state))
    return [*calls, station.ended(len(calls), wh + chance.choice((0, 33)), at_ms + chance.choice((0, 5)) * MINUTE)]


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    tariff=st.sampled_from([key.partition("/")[0] for key in TARIFFS]),
    version=st.sampled_from([Version.V201, Version.V21]),
)
def test_the_final_cost_that_a_station_shows_is_that_of_the_record(seed: int, tariff: str, version: Version) -> None:
    stations, made = both(tariff)
    replies: list[dict[str, Any]] = []
    for call in calls_of(Random(seed), version):
        out = stations.batch(call)
        replies += out.replies
        made.batch(*out.events)
    (cdr,) = made.tables.cdrs.values()
    assert Decimal(str(replies[-1]["totalCost"])) == cdr["total_incl"]
    costs = [Decimal(str(reply["totalCost"])) for reply in replies if "totalCost" in reply]
    assert costs == sorted(costs)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_tariff_that_is_changed_while_a_session_goes_on_is_on_both(seed: int) -> None:
    chance = Random(seed)
    versions = [key for key in TARIFFS if TARIFFS[key]["currency"] == "EUR"]
    sides = {key: TARIFFS[key].get("tax_included") for key in versions}
    first = chance.choice(versions)
    others = [key.partition("/") for key in versions if sides[key] == sides[first]]
    stations, made = both(first.partition("/")[0])
    calls = calls_of(chance, Version.V21)
    places = sorted(chance.sample(range(1, len(calls)), min(2, len(calls) - 1)))
    replies: list[dict[str, Any]] = []
    for index, call in enumerate(calls):
        if index in places:
            tariff_id, _, number = chance.choice(others)
            out = stations.batch(stations.change(tariff_id, call.received_at_ms - T0 - 1, version=int(number)))
            made.batch(*out.events)
            if chance.random() < 0.5:
                made.restart()
        out = stations.batch(call)
        replies += out.replies
        made.batch(*out.events)
    (cdr,) = made.tables.cdrs.values()
    assert {row.status for row in stations.changes.values()} == {"applied"}
    assert Decimal(str(replies[-1]["totalCost"])) == cdr["total_incl"]
    standing = cdr["bill"]
    late = billing.World(TARIFFS)
    late.batch(*stations.out.events)  # the whole session at once
    (again,) = late.tables.cdrs.values()
    assert again["bill"] == standing


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), tariff=st.sampled_from([key.partition("/")[0] for key in TARIFFS]))
def test_events_that_come_late_lead_to_the_same_record(seed: int, tariff: str) -> None:
    chance = Random(seed)
    stations, made = both(tariff)
    calls = calls_of(chance, Version.V201)
    for call in calls:
        made.batch(*stations.batch(call).events)
    (expected,) = made.tables.cdrs.values()
    stations, made = both(tariff)
    queue = [*calls, *chance.sample(calls, len(calls) // 3)]
    chance.shuffle(queue)
    for call in queue:
        made.batch(*stations.batch(call).events)
    row = made.session(expected["session_id"])
    standing = made.tables.cdrs[row["cdr_id"]]
    assert made.net() == standing["total_incl"] == expected["total_incl"]
    for name in ("total_excl", "energy", "energy_rung", "started", "ended", "bill"):
        assert standing[name] == expected[name], name


@pytest.mark.parametrize("stop_first", [False, True])
def test_a_session_of_16_is_billed_by_its_registers(stop_first: bool) -> None:
    stations, made = both("T")
    station = Station16()
    started = stations.batch(station.start(1000))
    transaction_id = started.reply["transactionId"]
    meter = station.meter("3000", 10 * MINUTE, transaction_id=transaction_id)
    rest = [meter, station.stop(transaction_id, 5000, 20 * MINUTE)]
    if stop_first:
        rest.reverse()
    made.batch(*started.events)
    for call in rest:
        made.batch(*stations.batch(call).events)
    standing = made.tables.cdrs[made.session(started.event["session_id"])["cdr_id"]]
    assert (standing["energy"], standing["energy_rung"]) == (4_000_000_000, "meter_start_stop")
    assert made.net() == Decimal("3.60")  # 4 kWh at 0.50 and the fee, with 20 % tax
