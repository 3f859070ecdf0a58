"""The tariff and the running cost of sessions on a real PostgreSQL: configured, frozen, stored, and found again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import orjson
import pytest

from busbar.avro import decode, encode
from busbar.ocpp.versions import Version
from busbar.pricing.jsontext import serialize_json
from busbar.records import Record, StationCall
from busbar.stream.interfaces import InvalidRecord
from busbar.stream.partitioner import Partitioner
from services.sessions.processor import TARIFF_CHANGES_TOPIC
from tests.integration.sessions.test_store import PARTITIONS, Service
from tests.unit.pricing.builders import component, element, tariff_json
from tests.unit.services.sessions.world import HOUR, MINUTE, T0, Station2x

_TABLES = ("sessions.transactions", "sessions.stations", "sessions.meter_values", "config.tokens", "config.stations")
_CONFIGURATION = ("tariffs", "tariff_assignments", "sites")


@pytest.fixture
async def connection(postgres_url: str) -> AsyncIterator[Any]:
    opened = await asyncpg.connect(postgres_url)
    await opened.execute(f"TRUNCATE {', '.join(_TABLES)}")
    for table in _CONFIGURATION:
        await opened.execute(f"DELETE FROM config.{table}")
    await opened.execute(
        "INSERT INTO config.tokens (id_token, id_token_key, group_id, max_cost, max_energy_wh, max_time_seconds)"
        " VALUES ('TAG', 'tag', 'fleet', 12.50, 40000, 7200)"
    )
    await opened.execute("INSERT INTO config.stations (station_id, site_id) VALUES ('CS1', 'S1')")
    await opened.execute("INSERT INTO config.sites (site_id, time_zone) VALUES ('S1', 'Europe/Berlin')")
    yield opened
    await opened.close()


async def configure(
    connection: Any, tariff_id: str, price: str, scope: str, subject: str = "", since: str = "2025-01-01Z"
) -> None:
    """Add a tariff and assign it, as if at an instant that is past."""
    content = serialize_json({**tariff_json(element(component("ENERGY", price, "20"))), "id": tariff_id})
    await connection.execute(
        "INSERT INTO config.tariffs (tariff_id, version, content, format, currency, fingerprint, valid_from,"
        " created_at) VALUES ($1, 1, $2, 'ocpi-2.3.0', 'EUR', 'f', $3::text::timestamptz, $3::text::timestamptz)",
        tariff_id,
        content,
        since,
    )
    await connection.execute(
        "INSERT INTO config.tariff_assignments (assignment_id, tariff_id, scope, subject, valid_from, created_at)"
        " VALUES (gen_random_uuid(), $1, $2, $3, $4::text::timestamptz, $4::text::timestamptz)",
        tariff_id,
        scope,
        subject,
        since,
    )


def charging(station: Station2x) -> list[StationCall]:
    return [
        station.started(0, state="Charging"),
        *(station.updated(n, n * 5000, n * 30 * MINUTE) for n in range(1, 4)),
        station.ended(4, 20_000, 2 * HOUR),
    ]


def told(service: Service) -> tuple[list[float | None], list[tuple[str, int, str]]]:
    return (
        [reply.get("totalCost") for reply in service.replies],
        [(event["tariff_id"], event["tariff_version"], event["time_zone"]) for event in service.events],
    )


@pytest.mark.parametrize("remembers", [False, True])
async def test_what_is_configured_prices_sessions_from_their_next_start_on(connection: Any, remembers: bool) -> None:
    service = Service(connection, remembers=remembers)
    first, second = charging(Station2x(Version.V21)), charging(Station2x(Version.V21, "CS2"))
    await service.batch(first[0])
    await configure(connection, "A", "0.50", "default", since="2025-12-01Z")
    await service.batch(*first[1:])
    assert told(service) == ([None] * 5, [("", 0, "")] * 5)
    service.events.clear()
    service.replies.clear()
    await configure(connection, "B", "1", "token_group", "fleet")
    for call in second:
        await service.batch(call)
    assert told(service) == ([None, 6.0, 12.0, 18.0, 24.0], [("B", 1, "UTC")] * 5)
    assert service.replies[0]["transactionLimit"] == {"maxCost": 12.5, "maxEnergy": 40_000, "maxTime": 7200}


async def test_the_site_of_the_station_gives_the_wall_clock(connection: Any) -> None:
    await configure(connection, "A", "0.50", "site", "S1")
    service = Service(connection)
    await service.batch(*charging(Station2x()))
    assert told(service) == ([None, 3.0, 6.0, 9.0, 12.0], [("A", 1, "Europe/Berlin")] * 5)


async def test_a_batch_that_is_done_again_and_a_replay_from_the_beginning_tell_the_same(connection: Any) -> None:
    await configure(connection, "A", "0.50", "default")
    calls = charging(Station2x(Version.V21))
    service = Service(connection)
    await service.batch(*calls[:2])
    await service.batch(*calls[2:4], commit=False)
    again = Service(connection)
    await again.batch(*calls[2:4])
    await again.batch(calls[4])
    replies, events = service.replies[:2] + again.replies, service.events[:2] + again.events
    await connection.execute("TRUNCATE sessions.transactions, sessions.stations, sessions.meter_values")
    # What is configured since is for sessions that start since.
    await configure(connection, "B", "9", "token", "tag", since="2025-12-01Z")
    replayed = Service(connection)
    await replayed.batch(*calls)
    assert (replayed.replies, replayed.events) == (replies, events)
    assert [reply.get("totalCost") for reply in replies] == [None, 3.0, 6.0, 9.0, 12.0]


def request(session: dict[str, Any], tariff_id: str, ms: int, change_id: str) -> Record:
    """A record of `csms.tariff-changes`."""
    value = {
        "change_id": change_id,
        "station_id": session["station_id"],
        "session_id": session["session_id"],
        "transaction_id": session["transaction_id"],
        "tariff_id": tariff_id,
        "tariff_version": 1,
        "requested_by": "ops",
        "requested_at": T0 + ms,
    }
    key = session["station_id"].encode()
    raw = encode("csms.TariffChange", value)
    return Record(TARIFF_CHANGES_TOPIC, Partitioner().partition(key, PARTITIONS), 0, T0 + ms, key, raw)


@pytest.mark.parametrize("remembers", [False, True])
async def test_a_tariff_is_changed_while_a_session_goes_on(connection: Any, remembers: bool) -> None:
    await connection.execute("TRUNCATE sessions.tariff_changes")
    await configure(connection, "A", "0.50", "default")
    await configure(connection, "B", "1.00", "site", "nowhere")
    service, station = Service(connection, remembers=remembers), Station2x(Version.V21)
    await service.batch(station.started(0, state="Charging"))
    first, second = "018f0000-0000-7000-8000-000000000001", "018f0000-0000-7000-8000-000000000002"
    session = service.events[0]
    await service.batch(request(session, "B", HOUR, first), request(session, "NONE", HOUR, second))
    await service.batch(station.ended(1, 20_000, 2 * HOUR))
    assert service.replies[-1]["totalCost"] == 6 + 12
    assert [(each["tariff_id"], each["at"]) for each in service.events[-1]["tariff_changes"]] == [("B", T0 + HOUR)]
    rows = await connection.fetch("SELECT * FROM sessions.tariff_changes ORDER BY change_id")
    assert [(str(row["change_id"]), row["status"], row["requested_by"]) for row in rows] == [
        (first, "applied", "ops"),
        (second, "refused", "ops"),
    ]
    assert rows[0]["applies_from"] == rows[0]["requested_at"]
    assert "does not exist" in rows[1]["reason"]


async def test_a_station_has_the_last_word_on_its_own_tariff(connection: Any) -> None:
    await connection.execute("TRUNCATE sessions.tariff_changes")
    await configure(connection, "A", "0.50", "default")
    await configure(connection, "B", "1.00", "site", "nowhere")
    service, station = Service(connection), Station2x(Version.V21)
    await service.batch(station.started(0, state="Charging", info={"tariffId": "A-1"}))
    change_id = "018f0000-0000-7000-8000-000000000003"
    results = await service.batch(request(service.events[0], "B", HOUR, change_id))
    (command,) = [decode(result.value)[1] for result in results]
    name = orjson.loads(command["payload"])["tariff"]["tariffId"]
    query = "SELECT status, command_id FROM sessions.tariff_changes"
    assert tuple(await connection.fetchrow(query)) == ("asked", command["command_id"])
    await service.batch(
        station.updated(1, 10_000, HOUR + MINUTE, trigger="TariffChanged", info={"tariffId": name}),
        station.ended(2, 20_000, 2 * HOUR),
    )
    assert tuple(await connection.fetchrow(query)) == ("applied", command["command_id"])
    assert service.replies[-1]["totalCost"] == 6 + 12


@pytest.mark.parametrize("field", ["change_id", "session_id"])
async def test_what_is_no_change_is_told_apart(connection: Any, field: str) -> None:
    service = Service(connection)
    session = {"station_id": "CS1", "session_id": "5f2b8c1e-6f0c-8a3e-9d37-2b0f4a6f1c55", "transaction_id": "1"}
    good = request(session, "B", 0, "018f0000-0000-7000-8000-000000000004")
    value = decode(good.value or b"")[1]
    raw = encode("csms.TariffChange", value | {field: "nonsense"})
    bad = Record(good.topic, good.partition, 0, T0, good.key, raw)
    with pytest.raises(InvalidRecord, match="UUID"):
        service.processor.decode(bad)
