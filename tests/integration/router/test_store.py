"""The router's fold with its tables in a real PostgreSQL: every batch is loaded, folded and stored anew."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest

from services.router import store
from services.router.core import Rules, apply
from services.router.events import Dispatch, Event, Outcome
from services.router.processor import RouterProcessor
from services.router.rows import dump_rows
from tests.unit.services.router.given import (
    T0,
    connected,
    disconnected,
    dispatches,
    heard,
    reported,
    requested,
    stages,
    terminal,
)


class Rig:
    """A router whose state lives in Postgres between any two batches."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self.connection = connection
        self.now_ms = T0
        self.processor = RouterProcessor(Rules(), clock=lambda: self.now_ms)

    async def batch(self, *events: Event) -> list[Outcome]:
        state = await store.load(self.connection, events, self.now_ms, Rules())
        outcomes = [outcome for event in events for outcome in apply(state, event)]
        async with self.connection.transaction():
            await self.processor.store(self.connection, state)
        return outcomes

    async def tick(self, milliseconds: int) -> list[Outcome]:
        outcomes = []
        for _ in range(milliseconds // 1_000):
            self.now_ms += 1_000
            events = await self.processor.due(self.connection, [0], self.now_ms)
            outcomes += await self.batch(*events)
        return outcomes


@pytest.fixture
async def rig(postgres_url: str) -> AsyncIterator[Rig]:
    connection = await asyncpg.connect(postgres_url)
    tables = ("router.connections", "router.edges", "router.commands", "router.command_events")
    await connection.execute("; ".join(f"DELETE FROM {table}" for table in tables))
    yield Rig(connection)
    await connection.close()


async def test_presence_survives_from_batch_to_batch(rig: Rig) -> None:
    a, b = connected("a"), connected("b", edge="edge-1", edge_partition=1, at=T0 + 5)
    await rig.batch(heard("edge-0"), heard("edge-1", edge_partition=1))
    await rig.batch(a)
    await rig.batch(b)
    await rig.batch(disconnected(a, at=T0 + 9))
    row = await rig.connection.fetchrow("SELECT connection_id, online, edge FROM router.connections")
    assert row is not None
    assert tuple(row) == ("b", True, "edge-1")
    await rig.batch(disconnected(b, at=T0 + 10))
    row = await rig.connection.fetchrow("SELECT online, close_code, close_reason FROM router.connections")
    assert row is not None
    assert tuple(row) == (False, 1000, "left")


async def test_what_is_loaded_is_what_was_stored(rig: Rig) -> None:
    a, b = connected("a"), connected("b", at=T0 + 5)
    events = (
        heard(),
        a,
        b,
        disconnected(a, at=T0 + 9),
        requested(park=True),
        requested("c2", station="CS-2", park=True),
    )
    state = await store.load(rig.connection, events, T0, Rules())
    for event in events:
        apply(state, event)
    await store.save(rig.connection, state)
    again = await store.load(rig.connection, events, T0, Rules())
    assert again.edges == state.edges
    assert again.stations == state.stations
    assert {name: replace(item, payload="") for name, item in again.commands.items()} == {
        name: replace(item, payload="") for name, item in state.commands.items()
    }


async def test_a_command_goes_its_whole_way_through_the_tables(rig: Rig) -> None:
    await rig.batch(heard(), connected("a"))
    outcomes = await rig.batch(requested(payload='{"type":"Hard"}'))
    assert dispatches(outcomes) == [("c1", "a")]
    await rig.batch(reported("sent", at=T0 + 10))
    await rig.batch(reported("answered", at=T0 + 20, payload='{"status":"Accepted"}'))
    row = await rig.connection.fetchrow("SELECT outcome, answer->>'status', attempts, review_at FROM router.commands")
    assert row is not None
    assert tuple(row) == ("answered", "Accepted", 1, None)
    rows = await rig.connection.fetch("SELECT stage FROM router.command_events ORDER BY at")
    assert [row["stage"] for row in rows] == ["dispatched", "sent", "answered"]


async def test_the_same_records_again_leave_the_same_rows(rig: Rig) -> None:
    events = (heard(), connected("a"), requested(), reported("sent", at=T0 + 9), reported("answered", at=T0 + 10))
    await rig.batch(*events)
    tables = ("router.edges", "router.connections", "router.commands", "router.command_events")
    before = [await rig.connection.fetch(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]
    assert await rig.batch(*events) == []
    assert before == [await rig.connection.fetch(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]


async def test_a_parked_command_is_found_when_its_station_returns(rig: Rig) -> None:
    await rig.batch(requested(park=True, payload='{"type":"Soft"}'))
    outcomes = await rig.batch(heard(), connected("a"))
    [call] = [item for item in outcomes if isinstance(item, Dispatch)]
    assert call.payload.replace(" ", "") == '{"type":"Soft"}'


async def test_the_connections_of_a_restarted_edge_are_found_by_the_clock(rig: Rig) -> None:
    await rig.batch(heard("edge-0"), heard("edge-1"), connected("a"), connected("x", station="CS-2", edge="edge-1"))
    await rig.batch(requested())
    rig.now_ms = T0 + 2_000
    await rig.batch(heard("edge-0", "i2", at=rig.now_ms, event="started"))
    await rig.tick(1_000)
    rows = await rig.connection.fetch("SELECT station_id, online FROM router.connections ORDER BY 1")
    assert [tuple(row) for row in rows] == [("CS-1", False), ("CS-2", True)]
    await rig.batch(connected("b", edge="edge-1", at=rig.now_ms))
    assert dispatches(await rig.tick(8_000)) == [("c1", "b")]


async def test_the_connections_of_a_silent_edge_go_and_come_back(rig: Rig) -> None:
    await rig.batch(heard("edge-0"), connected("a"))
    await rig.tick(12_000)
    assert await rig.connection.fetchval("SELECT online FROM router.connections")
    await rig.tick(6_000)
    assert not await rig.connection.fetchval("SELECT online FROM router.connections")
    await rig.batch(heard("edge-0", at=rig.now_ms))
    await rig.tick(1_000)
    assert await rig.connection.fetchval("SELECT online FROM router.connections")


async def test_the_connections_of_an_edge_that_nobody_heard_of_are_given_up(rig: Rig) -> None:
    await rig.batch(connected("a"))
    await rig.tick(58_000)
    assert await rig.connection.fetchval("SELECT online FROM router.connections")
    await rig.tick(5_000)
    assert not await rig.connection.fetchval("SELECT online FROM router.connections")


async def test_only_the_owner_of_a_partition_finds_what_is_due_in_it(rig: Rig) -> None:
    await rig.batch(requested(park=True, within=1_000))
    rig.now_ms += 10_000
    assert await rig.processor.due(rig.connection, [1, 2, 3], rig.now_ms) == []
    assert len(await rig.processor.due(rig.connection, [0], rig.now_ms)) == 1


async def test_an_overdue_command_gets_its_outcome_by_the_clock(rig: Rig) -> None:
    await rig.batch(heard(), connected("a"), requested(within=5_000), reported("sent"))
    outcomes = []
    for _ in range(10):
        await rig.batch(heard(at=rig.now_ms))
        outcomes += await rig.tick(1_000)
    assert terminal(outcomes) == [("c1", "timeout")]
    assert await rig.connection.fetchval("SELECT count(*) FROM router.commands WHERE review_at IS NOT NULL") == 0


async def test_an_old_socket_is_closed_after_the_grace(rig: Rig) -> None:
    await rig.batch(heard(), heard("edge-1", edge_partition=1), connected("a"))
    await rig.batch(connected("b", edge="edge-1", edge_partition=1, at=T0 + 1))
    outcomes = []
    for _ in range(12):
        await rig.batch(heard(at=rig.now_ms), heard("edge-1", edge_partition=1, at=rig.now_ms))
        outcomes += await rig.tick(1_000)
    assert [(item.connection_id, item.edge_partition) for item in outcomes] == [("a", 0)]  # type: ignore[union-attr]


async def test_script_and_sql_are_text_like_any_other(rig: Rig) -> None:
    evil = "'); DROP TABLE router.commands; --<script>alert(1)</script>"
    await rig.batch(replace(requested(evil, station=evil, action=evil), requested_by=evil))
    row = await rig.connection.fetchrow("SELECT command_id, station_id, action, requested_by FROM router.commands")
    assert row is not None
    assert tuple(row) == (evil, evil, evil, evil)


async def test_an_answer_that_postgres_cannot_hold_as_it_is_does_not_stop_the_router(rig: Rig) -> None:
    await rig.batch(heard(), connected("a"), requested())
    answer = '{"data":"a\\u0000b","n":1e-400000}'
    await rig.batch(reported("answered", at=T0 + 20, payload=answer))
    assert await rig.connection.fetchval("SELECT answer->>'data' FROM router.commands") == "a\ufffdb"


def test_an_escaped_backslash_before_u0000_is_kept() -> None:
    assert dump_rows([{"a": "\\u0000", "b": "\0"}]) == '[{"a":"\\\\u0000","b":"�"}]'


async def test_finished_commands_are_forgotten_when_they_are_old_enough(rig: Rig) -> None:
    await rig.batch(requested(), requested("c2", park=True))
    assert await store.delete_finished(rig.connection, T0 - 1) == 0
    assert await store.delete_finished(rig.connection, T0 + 1) == 1
    rows = await rig.connection.fetch("SELECT command_id FROM router.command_events")
    assert [row["command_id"] for row in rows] == ["c2"]


async def test_a_batch_of_thousands_is_stored_in_a_few_statements(rig: Rig) -> None:
    await rig.batch(heard(), *(connected(f"x{i}", station=f"CS-{i}") for i in range(3_000)))
    outcomes = await rig.batch(*(requested(f"c{i}", station=f"CS-{i}") for i in range(3_000)))
    assert stages(outcomes) == ["dispatched"] * 3_000
    assert await rig.connection.fetchval("SELECT count(*) FROM router.commands WHERE stage = 'dispatched'") == 3_000
