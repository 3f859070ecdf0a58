"""The stations service against a real PostgreSQL: what was folded is what is there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest

from busbar.avro import encode, meta_prefix
from busbar.avro.calls import call_encoder
from busbar.ocpp.actions import station_actions
from busbar.ocpp.versions import Version
from busbar.records import Record
from services.stations.processor import COMMAND_EVENTS_TOPIC, StationsProcessor
from services.stations.state import StationEvent
from tests.support.payloads import fullest
from tests.unit.services.stations.cases import NOW_MS, POLICY, event

TABLES = ("stations", "connectors", "notifications", "variables", "documents")


@pytest.fixture
async def connection(postgres_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(postgres_url)
    for table in TABLES:
        await connection.execute(f"TRUNCATE stations.{table}")
    await connection.execute("TRUNCATE config.stations")
    yield connection
    await connection.close()


def processor() -> StationsProcessor:
    return StationsProcessor(POLICY, now_ms=lambda: NOW_MS)


async def work(connection: Any, events: Sequence[Any]) -> list[Any]:
    """One batch: load, fold, store. Returns the results."""
    one = processor()
    state = await one.load(connection, events)
    results = [result for each in events for result in one.fold(state, each)]
    async with connection.transaction():
        await one.store(connection, state)
    return results


async def dump(connection: Any) -> dict[str, list[dict[str, Any]]]:
    """All rows, but for the times at which they were written."""
    found = {}
    for table in TABLES:
        rows = await connection.fetch(f"SELECT * FROM stations.{table} AS t ORDER BY t::text")
        found[table] = sorted(
            ({name: value for name, value in dict(row).items() if name != "updated_at"} for row in rows), key=str
        )
    return found


def a_day_of_everything() -> list[StationEvent]:
    """Every action of every version, at three stations."""
    events = []
    for number, version in enumerate(Version):
        for place, (action, row) in enumerate(station_actions(version).items()):
            if row.owner == "stations":
                at_ms = NOW_MS + place * 1_000
                events.append(event(version, action, fullest(version, action), at_ms=at_ms, station_id=f"CS-{number}"))
    return events


async def test_one_batch_or_a_batch_for_each_event_leaves_the_same_tables(connection: Any) -> None:
    events = a_day_of_everything()
    at_once = await work(connection, events)
    expected = await dump(connection)
    assert all(expected[table] for table in TABLES)
    for table in TABLES:
        await connection.execute(f"TRUNCATE stations.{table}")
    one_by_one = [result for each in events for result in await work(connection, [each])]
    assert await dump(connection) == expected
    assert one_by_one == at_once


async def test_a_batch_that_is_read_again_changes_no_row_and_gives_the_same_results(connection: Any) -> None:
    events = a_day_of_everything()
    first = await work(connection, events)
    expected = await dump(connection)
    assert await work(connection, events) == first
    assert await dump(connection) == expected


async def test_a_state_that_was_stored_is_loaded_as_it_was(connection: Any) -> None:
    events = a_day_of_everything()
    one = processor()
    state = await one.load(connection, events)
    for each in events:
        one.fold(state, each)
    await one.store(connection, state)
    again = await one.load(connection, events)
    jsonb = {"boot": None, "last_command_result": None}  # PostgreSQL writes JSON with other spaces
    for station_id, station in state.stations.items():
        fields = {name: getattr(station, name) for name in station.__slots__ if name not in jsonb}
        assert {name: getattr(again.stations[station_id], name) for name in fields} == fields
    assert again.connectors.keys() == state.connectors.keys()


async def test_late_news_of_variables_and_documents_is_held_back_by_the_tables(connection: Any) -> None:
    def limit(source: str, power: int, at_ms: int, connection_id: str) -> StationEvent:
        schedule = {"id": power, "chargingRateUnit": "W", "chargingSchedulePeriod": []}
        payload = {"evseId": 1, "chargingLimit": {"chargingLimitSource": source}, "chargingSchedule": [schedule]}
        return event(Version.V201, "NotifyChargingLimit", payload, at_ms=at_ms, connection_id=connection_id)

    await work(connection, [limit("EMS", 1, NOW_MS, "connection-2")])
    await work(connection, [limit("EMS", 2, NOW_MS - 86_400_000, "connection-1")])
    query = "SELECT payload -> 'chargingSchedule' -> 0 ->> 'id' FROM stations.documents"
    assert await connection.fetchval(query) == "1"
    await work(connection, [limit("EMS", 3, NOW_MS - 1_000, "connection-3")])  # an edge with a slower clock
    assert await connection.fetchval(query) == "3"


async def test_operators_decide_the_answer_to_the_next_boot(connection: Any) -> None:
    boot = event(Version.V16, "BootNotification", {"chargePointVendor": "V", "chargePointModel": "M"})
    await connection.execute(
        "INSERT INTO config.stations (station_id, boot_status, heartbeat_interval_seconds)"
        " VALUES ('CS-1', 'Pending', 30)"
    )
    await work(connection, [boot])
    assert await connection.fetchval("SELECT registration_status FROM stations.stations") == "Pending"
    await connection.execute("UPDATE config.stations SET boot_status = 'Accepted'")
    await work(connection, [boot])
    row = await connection.fetchrow("SELECT registration_status, interval_seconds, boot_count FROM stations.stations")
    assert tuple(row) == ("Accepted", 30, 1)


@pytest.mark.parametrize(
    "text", ["Robert'); DROP TABLE stations.stations;--", "\x00", "<script>", "🔌" * 12, "\\u0000"]
)
async def test_any_text_is_kept_as_text(connection: Any, text: str) -> None:
    boot = {"chargePointVendor": text[:20], "chargePointModel": text[:20], text: text}
    await work(connection, [event(Version.V16, "BootNotification", boot)])
    row = await connection.fetchrow("SELECT vendor, boot::text AS boot FROM stations.stations")
    assert row["vendor"] == text[:20].replace("\x00", "\ufffd")
    assert "chargePointVendor" in row["boot"]


async def test_numbers_at_the_edge_of_what_postgres_holds_are_kept(connection: Any) -> None:
    status = {
        "connectorStatus": "Available",
        "evseId": 2**63 - 1,
        "connectorId": 2**64,
        "timestamp": "9999-12-31T23:59:59Z",
    }
    await work(connection, [event(Version.V201, "StatusNotification", status)])
    row = await connection.fetchrow("SELECT evse_id, connector_id FROM stations.connectors")
    assert tuple(row) == (2**63 - 1, 2**63 - 1)


async def test_records_are_read_as_the_edge_and_the_router_write_them(connection: Any) -> None:
    prefix = meta_prefix("CS-1", "connection-1", "edge-0", 3, Version.V16)
    boot = {"chargePointVendor": "V", "chargePointModel": "M", "unknownToTheSchema": {"kept": [1, 2]}}
    value = call_encoder(Version.V16, "BootNotification")(prefix, 1, "message-1", NOW_MS, boot)
    stage = {
        "command_id": "c-1",
        "station_id": "CS-1",
        "action": "GetConfiguration",
        "stage": "answered",
        "source": "edge",
        "at": NOW_MS + 5,
        "connection_id": "connection-1",
        "payload": '{"configurationKey":[{"key":"HeartbeatInterval","readonly":false,"value":"60"}]}',
    }
    one = processor()
    events = [
        one.decode(Record("ocpp.v16.BootNotification", 1, 0, NOW_MS, b"CS-1", value)),
        one.decode(Record(COMMAND_EVENTS_TOPIC, 1, 0, NOW_MS + 5, b"CS-1", encode("csms.CommandEvent", stage))),
    ]
    await work(connection, events)
    station = await connection.fetchrow(
        "SELECT partition, boot -> 'unknownToTheSchema' ->> 'kept' AS kept, last_command_action FROM stations.stations"
    )
    assert tuple(station) == (1, "[1, 2]", "GetConfiguration")
    assert await connection.fetchval("SELECT value FROM stations.variables WHERE component = ''") == "60"
