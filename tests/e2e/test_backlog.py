"""Ten minutes without the sessions service: stations go on, and afterwards all is as if nothing had been."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from busbar.ocpp.versions import Version
from services.sessions.model import load_session
from tests.e2e.scripted import Script, Tables, booted, check_energy, register, settled
from tests.e2e.system import System, eventually, running
from tests.load.replay_client import Counts
from tests.support import kafka_topics

STATIONS = 18
SPEED = 40.0
"""Seconds of the stations' clocks in one of ours."""
OUTAGE = (120.0, 720.0)
"""When sessions are stopped and may start again, in seconds of the stations' clocks."""
LATE_SECONDS = 0.5


@pytest.fixture(scope="module")
async def system(topics: str, postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    settings = {"edge": {"BUSBAR_EDGE_LATE_SECONDS": str(LATE_SECONDS)}}
    folder = tmp_path_factory.mktemp("backlog")
    async with running(folder, topics, postgres_url, settings, edge=2, sessions=2, router=1) as one:
        yield one


def without_due(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Without when the watchdog looks next, which says nothing of a session."""
    return {
        table: [{column: value for column, value in row.items() if column != "due_at"} for row in its_rows]
        for table, its_rows in rows.items()
    }


RECEIVED = {"opened_at", "last_event_at", "received_at"}
"""When the edge received something: another moment in each run."""
RECEIVED_FIELDS = {"opened_ms", "last_received_ms", "started_received_ms", "due_ms"}
"""The same in what the fold keeps of a session; `due_ms` is reckoned from them."""


def comparable(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """What two runs of one seed have in common: all but receive times, and the random ids of connections."""
    found: dict[str, list[Any]] = {}
    for table, its_rows in without_due(rows).items():
        found[table] = []
        for row in its_rows:
            kept = {column: value for column, value in row.items() if column not in RECEIVED}
            if table == "transactions":
                kept["fold"] = _session(bytes.fromhex(row["fold"].removeprefix("\\x")))
            elif table == "stations":
                kept["fold"] = _station(bytes.fromhex(row["fold"].removeprefix("\\x")))
            found[table].append(kept)
        found[table].sort(key=orjson.dumps)
    return found


def _session(raw: bytes) -> dict[str, Any]:
    session = dataclasses.asdict(load_session(raw))
    return {name: value for name, value in session.items() if name not in RECEIVED_FIELDS | {"connection_id"}}


def _station(raw: bytes) -> dict[str, Any]:
    station = orjson.loads(raw)
    # The connection is its id and when it was first heard of; of the clock the last is when it was looked at.
    del station["connection"]
    station["clock"] = station["clock"][:2]
    return dict(station)


async def test_ten_minutes_without_sessions_leave_the_tables_of_an_undisturbed_run_and_so_does_a_replay(
    system: System, topics: str, postgres_url: str
) -> None:
    base = datetime.now(UTC) - timedelta(hours=1)
    scripts = [Script("BACKLOG", number, base) for number in range(STATIONS)]
    passwords = await register(system, scripts)
    tables, counts = Tables(postgres_url), Counts()

    # Undisturbed.
    players = await booted(system, scripts, passwords, counts)
    began = time.monotonic()
    await asyncio.gather(*(player.play(lambda: (time.monotonic() - began) * 100, 100) for player in players))
    undisturbed = await settled(tables, scripts)
    check_energy(undisturbed, scripts)

    # The same again, into empty tables and topics.
    await system.stop_service("sessions")
    await kafka_topics.empty(topics)
    await tables.wipe(progress=False)
    await system.start_service("sessions")
    late_before = (await system.metrics("edge")).total("csms_edge_frames_total", outcome="late")
    players = await booted(system, scripts, passwords, counts)
    began = time.monotonic()

    def clock() -> float:
        return (time.monotonic() - began) * SPEED

    playing = asyncio.gather(*(player.play(clock, SPEED) for player in players))
    try:
        await asyncio.sleep((OUTAGE[0] - clock()) / SPEED)
        await eventually(
            lambda: all(player.done for player in players if player.script.version is Version.V16), "1.6 to have begun"
        )
        await system.stop_service("sessions")
        before = {row["session_id"] for row in (await tables.rows())["transactions"]}

        def all_have_gone_on() -> bool:
            return all(player.done == len(player.script.steps) or player.waits_for_a_transaction for player in players)

        await eventually(all_have_gone_on, "everybody to be done, or to wait for a transaction's id", 60)
        await asyncio.sleep(max(0.0, OUTAGE[1] - clock()) / SPEED)
        waiting = [player for player in players if player.done < len(player.script.steps)]
        assert waiting
        assert all(player.script.begins_in_outage for player in waiting), "late answers keep the others going"
        late = (await system.metrics("edge")).total("csms_edge_frames_total", outcome="late") - late_before
        assert late > 50
        assert {row["session_id"] for row in (await tables.rows())["transactions"]} == before, "nobody folds"
        await system.start_service("sessions")
        await asyncio.wait_for(playing, 90)
    finally:
        playing.cancel()
    disturbed = await settled(tables, scripts)
    check_energy(disturbed, scripts)
    assert counts.reconnects == 0
    for table, rows in comparable(undisturbed).items():
        assert comparable(disturbed)[table] == rows, table

    # Everything once more, from the log.
    await system.stop_service("sessions")
    await tables.wipe(progress=True)
    assert not any((await tables.rows()).values())
    await system.start_service("sessions")
    replayed = await settled(tables, scripts)
    for table, rows in without_due(disturbed).items():
        assert without_due(replayed)[table] == rows, table
