"""The sessions service on a real PostgreSQL: load, fold, store, and what the tables say afterwards."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import asyncpg
import orjson
import pytest

from busbar.avro import call_encoder, decode, meta_prefix
from busbar.ocpp.versions import Version
from busbar.records import Record, Result, StationCall
from busbar.stream.partitioner import murmur2
from busbar.topics import station_topic
from services.sessions.decoding import ReservationDue, SessionDue
from services.sessions.model import Policy
from services.sessions.processor import SessionsProcessor
from tests.unit.services.sessions.world import HOUR, MINUTE, T0, Station2x, Station16

PARTITIONS = 4

_TABLES = (
    "transactions",
    "stations",
    "meter_values",
    "sample_shapes",
    "signed_values",
    "authorizations",
    "reservations",
    "reservation_updates",
)


class Service:
    """A sessions processor with a connection, driven as the stream runtime drives it."""

    def __init__(self, connection: Any, policy: Policy | None = None, *, remembers: bool = False) -> None:
        self.connection = connection
        self.remembers = remembers
        self.processor = SessionsProcessor(policy or Policy(), partitions=PARTITIONS, due_every_ms=0)
        self.events: list[dict[str, Any]] = []
        self.replies: list[dict[str, Any]] = []
        self.offset = 0

    def record(self, call: StationCall) -> Record:
        """The CALL as it stands in the log."""
        self.offset += 1
        prefix = meta_prefix(call.station_id, call.connection_id, call.edge, call.edge_partition, call.version)
        value = call_encoder(call.version, call.action)(
            prefix, call.sequence, call.message_id, call.received_at_ms, call.payload
        )
        key = call.station_id.encode()
        partition = (murmur2(key) & 0x7FFFFFFF) % PARTITIONS
        topic = station_topic(call.version, call.action)
        return Record(topic, partition, self.offset, call.received_at_ms, key, value)

    async def batch(
        self, *calls: StationCall | SessionDue | ReservationDue | Record, commit: bool = True
    ) -> list[Result]:
        decoded = [
            call
            if isinstance(call, SessionDue | ReservationDue)
            else self.processor.decode(call if isinstance(call, Record) else self.record(call))
            for call in calls
        ]
        events = [event for event in decoded if event is not None]
        state = await self.processor.load(self.connection, events)
        results = [result for event in events for result in self.processor.fold(state, event)]
        transaction = self.connection.transaction()
        await transaction.start()
        await self.processor.store(self.connection, state)
        await (transaction.commit() if commit else transaction.rollback())
        if commit and self.remembers:
            self.processor.committed(state)
        if commit:
            for result in results:
                name, value = decode(result.value)
                if name == "csms.SessionEvent":
                    self.events.append(value)
                elif name == "csms.OutboundMessage":
                    self.replies.append(orjson.loads(value["payload"]))
        return results

    async def tables(self) -> dict[str, list[str]]:
        """All rows of all tables, in an order of their own."""
        return {
            table: sorted(map(repr, await self.connection.fetch(f"SELECT * FROM sessions.{table}")))
            for table in _TABLES
        }


@pytest.fixture
async def connection(postgres_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("TRUNCATE config.tokens, config.stations, " + ", ".join(f"sessions.{t}" for t in _TABLES))
    await connection.execute(
        "INSERT INTO config.tokens (id_token, id_token_key, group_id, allow_concurrent)"
        " VALUES ('TAG', 'tag', 'g', true)"
    )
    yield connection
    await connection.close()


async def test_a_session_of_1_6_stands_in_the_tables(connection: Any) -> None:
    await connection.execute("INSERT INTO config.stations (station_id, site_id) VALUES ('CS1', 'north')")
    service, station = Service(connection), Station16()
    await service.batch(station.start(1000, reservationId=3))
    number = service.replies[0]["transactionId"]
    await service.batch(station.meter("1500.125", MINUTE, transaction_id=number, unit="Wh"))
    running = await connection.fetchrow("SELECT * FROM sessions.transactions")
    assert (running["state"], running["is_open"], running["is_final"]) == ("open", True, False)
    assert (running["energy_wh"], running["energy_rung"], running["event_count"]) == (Decimal("500.125"), "samples", 2)
    await service.batch(station.stop(number, 3000, HOUR, reason="Remote"))
    row = await connection.fetchrow("SELECT * FROM sessions.transactions")
    assert (row["transaction_id"], row["ocpp_version"], row["site_id"]) == (str(number), "1.6", "north")
    assert (row["evse_id"], row["connector_id"], row["generation"]) == (1, 1, 1)
    assert (row["id_token"], row["id_token_key"], row["group_id"], row["authorization_status"]) == (
        "TAG",
        "tag",
        "g",
        "Accepted",
    )
    assert (row["state"], row["is_open"], row["is_final"], row["is_complete"]) == ("ended", False, True, True)
    assert (row["energy_wh"], row["energy_rung"]) == (2000, "meter_start_stop")
    assert (row["register_begin_wh"], row["register_end_wh"]) == (1000, 3000)
    assert (row["stop_reason"], row["reservation_id"], row["flags"], row["due_at"]) == ("Remote", 3, [], None)
    assert (row["ended_at"] - row["started_at"]).total_seconds() == 3600
    assert row["started_at"].timestamp() == T0 / 1000
    assert row["opened_at"].timestamp() == (T0 + 100) / 1000
    samples = await connection.fetch(
        "SELECT event, event_key, measurand, context, unit, source_unit, value, happened_at FROM sessions.meter_samples"
        " WHERE session_id = $1 ORDER BY received_at",
        row["session_id"],
    )
    assert [(s["event"], s["context"], s["value"]) for s in samples] == [
        ("StartTransaction", "Transaction.Begin", 1000),
        ("MeterValues", "Sample.Periodic", Decimal("1500.125")),
        ("StopTransaction", "Transaction.End", 3000),
    ]
    assert samples[1]["happened_at"].timestamp() == (T0 + MINUTE) / 1000


async def test_what_a_batch_stored_is_what_the_next_one_loads(connection: Any) -> None:
    service, station = Service(connection), Station2x(Version.V21)
    calls = [
        station.started(100.5, state="EVConnected"),
        station.updated(1, 150.25, MINUTE, state="Charging"),
        station.updated(1, 150.25, MINUTE, state="Charging"),
        station.updated(2, 160.0, 2 * MINUTE),
        station.ended(3, 400.75, HOUR),
    ]
    for call in calls:
        await service.batch(call)
    assert [event["kind"] for event in service.events] == ["started", "updated", "updated", "ended"]
    assert [event["sequence"] for event in service.events] == [1, 2, 3, 4]
    assert service.events[-1]["energy_wh"] == Decimal("300.25")
    assert len(service.replies) == 5
    assert await connection.fetchval("SELECT count(*) FROM sessions.meter_values") == 4


async def test_events_are_known_again_after_any_time(connection: Any) -> None:
    service, station = Service(connection), Station2x()
    calls = [
        station.started(100.0),
        *(station.updated(n, 100.0 + n, n * MINUTE) for n in range(1, 80)),
        station.ended(80, 500.0, 2 * HOUR),
    ]
    await service.batch(*calls)
    told = len(service.events)
    await service.batch(*calls[::-1])
    await service.batch(calls[3], station.updated(3, 777.0, 3 * MINUTE))
    assert len(service.events) == told + 1
    assert "seq_no_conflict" in service.events[-1]["flags"]
    meter = [Station16("CS2").meter("5", n * MINUTE, connector=0) for n in range(5)]
    await service.batch(*meter)
    results = await service.batch(*meter)
    assert {result.topic for result in results} == {"csms.outbound"}


async def test_a_batch_that_is_rolled_back_leaves_nothing_and_can_be_done_again(connection: Any) -> None:
    service, station = Service(connection), Station2x()
    calls = [station.started(100.0), station.updated(1, 150.0, MINUTE)]
    first = await service.batch(*calls, commit=False)
    assert await connection.fetchval("SELECT count(*) FROM sessions.transactions") == 0
    second = await service.batch(*calls)
    assert [result.value for result in first] == [result.value for result in second]
    shapes = await connection.fetchval(
        "SELECT count(*) FROM sessions.meter_values m JOIN sessions.sample_shapes s USING (shape_id)"
    )
    assert shapes == 2


async def test_a_replay_into_empty_tables_gives_the_same_tables_and_results(connection: Any) -> None:
    rng = random.Random(11)
    calls = _history(rng, 30)
    service = Service(connection)
    first = [result for n in range(0, len(calls), 7) for result in await service.batch(*calls[n : n + 7])]
    tables = await service.tables()
    await connection.execute("TRUNCATE " + ", ".join(f"sessions.{table}" for table in _TABLES))
    again = Service(connection, remembers=True)
    second = [result for n in range(0, len(calls), 50) for result in await again.batch(*calls[n : n + 50])]
    assert [result.value for result in first] == [result.value for result in second]
    assert await again.tables() == tables


async def test_two_hundred_sessions_of_each_version_add_up_exactly(connection: Any) -> None:
    service = Service(connection)
    rng = random.Random(5)
    expected = Decimal(0)
    registers: dict[tuple[str, int], Decimal] = {}
    for n in range(200):
        for version in (Version.V16, Version.V201):
            station_id, evse = f"{version.label}-{n % 17}", 1 + n % 2
            register = registers.get((station_id, evse), Decimal(rng.randrange(10**9)) / 1000)
            if version is Version.V16:
                register = Decimal(int(register))
            energy = (
                Decimal(rng.randrange(1, 60_000_000))
                / (1 if version is Version.V16 else 1000)
                // (1000 if version is Version.V16 else 1)
            )
            if version is not Version.V16:
                energy = Decimal(rng.randrange(1, 60_000_000)) / 1000
            if version is Version.V16:
                energy = Decimal(int(energy))
            await _charge(service, version, station_id, evse, n * 5 * HOUR, register, energy)
            registers[station_id, evse] = register + energy
            expected += energy
    rows = await connection.fetchrow(
        "SELECT count(*) AS sessions, sum(energy_wh) AS energy, bool_and(is_complete AND is_final) AS complete,"
        " count(DISTINCT session_id) AS distinct FROM sessions.transactions"
    )
    assert (rows["sessions"], rows["distinct"], rows["complete"]) == (400, 400, True)
    assert rows["energy"] == expected
    told = [event for event in service.events if event["kind"] == "ended"]
    assert sum(event["energy_wh"] for event in told) == expected
    assert len({event["session_id"] for event in told}) == 400
    assert await connection.fetchval("SELECT sum(unattributed_wh) FROM sessions.stations") == 0


async def test_what_has_come_due_is_found_by_its_partition_and_closed(connection: Any) -> None:
    service = Service(connection, Policy(open_timeout_ms=HOUR))
    for n in range(8):
        await service.batch(Station16(f"CS{n}").start(1000))
    now = T0 + 2 * HOUR
    found: list[Any] = []
    for partition in range(PARTITIONS):
        due = await service.processor.due(connection, [partition], now)
        assert all(service.processor.partition_of_event(event) == partition for event in due)
        found += due
    assert len(found) == 8
    assert await service.processor.due(connection, [0, 1, 2, 3], T0 + MINUTE) == []
    await service.batch(*found)
    states = await connection.fetch("SELECT DISTINCT state, is_open, due_at FROM sessions.transactions")
    assert [tuple(row) for row in states] == [("closed", False, None)]
    assert await service.processor.due(connection, [0, 1, 2, 3], now) == []


async def test_a_token_in_use_at_another_station_is_seen_in_the_tables(connection: Any) -> None:
    await connection.execute("INSERT INTO config.tokens (id_token, id_token_key) VALUES ('Once', 'once')")
    service = Service(connection)
    await service.batch(Station16("CS1").start(1000, tag="ONCE"))
    await service.batch(Station2x(station_id="CS2").started(100.0, tag="oNcE"))
    assert service.replies[0]["idTagInfo"]["status"] == "Accepted"
    assert service.replies[1]["idTokenInfo"]["status"] == "ConcurrentTx"
    rows = await connection.fetch("SELECT action, status FROM sessions.authorizations ORDER BY received_at, action")
    assert [tuple(row) for row in rows] == [("StartTransaction", "Accepted"), ("TransactionEvent", "ConcurrentTx")]


async def test_expired_never_ending_and_placed_tokens_are_read(connection: Any) -> None:
    await connection.execute(
        """
        INSERT INTO config.tokens (id_token, id_token_key, expires_at, allowed_sites)
        VALUES ('old', 'old', '2020-01-01Z', NULL), ('ever', 'ever', 'infinity', NULL),
               ('there', 'there', NULL, '{south}')
        """
    )
    service, station = Service(connection), Station2x()
    await service.batch(*(station.authorize(tag) for tag in ("old", "ever", "there")))
    assert [reply["idTokenInfo"]["status"] for reply in service.replies] == ["Expired", "Accepted", "NotAtThisLocation"]


async def test_a_worker_that_remembers_stations_hears_of_changes_to_their_configuration(connection: Any) -> None:
    await connection.execute("INSERT INTO config.stations (station_id, site_id) VALUES ('CS1', 'south')")
    await connection.execute("UPDATE config.tokens SET allowed_sites = '{north}'")
    service, station = Service(connection, remembers=True), Station2x()
    await service.batch(station.authorize("TAG"))
    await service.batch(station.authorize("TAG"))
    await connection.execute("UPDATE config.stations SET site_id = 'north', updated_at = now()")
    service.processor.look_at_configuration()
    await service.batch(station.authorize("TAG"))
    statuses = [reply["idTokenInfo"]["status"] for reply in service.replies]
    assert statuses == ["NotAtThisLocation", "NotAtThisLocation", "Accepted"]


async def test_strings_and_numbers_of_any_kind_reach_the_tables(connection: Any) -> None:
    service, station = Service(connection), Station16()
    nasty = "'; DROP TABLE x; -- \\ \" \u2028 \ud7ff 🙂 <script>"
    await service.batch(station.start(1000, tag=nasty))
    number = service.replies[-1]["transactionId"]
    await service.batch(
        station.meter("NaN", MINUTE, transaction_id=number, unit="olf", measurand="X" * 300),
        station.stop(number, 2**62, reason=nasty[:50]),
        station.stop(2**63 - 1, 5),
        station.stop(-1, -(2**40)),
    )
    row = await connection.fetchrow("SELECT * FROM sessions.transactions WHERE transaction_id = $1", str(number))
    assert (row["id_token"], row["stop_reason"]) == (nasty, nasty[:50])
    payload = await connection.fetchval("SELECT payload FROM sessions.meter_values WHERE event = 'MeterValues'")
    assert orjson.loads(payload)["meterValue"][0]["sampledValue"][0]["value"] == "NaN"
    value = await connection.fetchrow("SELECT value, unit FROM sessions.meter_samples WHERE event = 'MeterValues'")
    assert tuple(value) == (None, "olf")


async def test_signed_data_is_stored_byte_for_byte(connection: Any) -> None:
    service, station = Service(connection), Station2x()
    data = 'OCMF|{ "RD": [] } |' + "é\u0301" * 3000
    signed = {"signedMeterData": data, "signingMethod": "ES256", "encodingMethod": "OCMF", "publicKey": "AA=="}
    await service.batch(station.started(samples=[{"value": 5.0, "signedMeterValue": signed}]))
    row = await connection.fetchrow("SELECT * FROM sessions.signed_values")
    assert row["data"].decode() == data
    assert (row["signing_method"], row["encoding_method"], row["public_key"]) == ("ES256", "OCMF", "AA==")


async def test_samples_of_several_times_keep_them_in_the_tables(connection: Any) -> None:
    service, station = Service(connection), Station2x()
    call = station.started(100.0)
    call.payload["meterValue"] += station.updated(0, 200.0, MINUTE).payload["meterValue"]
    await service.batch(call)
    rows = await connection.fetch("SELECT value, happened_at FROM sessions.meter_samples ORDER BY place")
    assert [(row["value"], row["happened_at"].timestamp() - T0 / 1000) for row in rows] == [(100, 0), (200, 60)]


async def test_updates_within_a_session_stay_on_their_page(connection: Any) -> None:
    service, station = Service(connection), Station2x()
    await service.batch(station.started(100.0))
    before = await _updates(connection)
    for n in range(1, 30):
        await service.batch(station.updated(n, 100.0 + n, n * MINUTE))
    after = await _updates(connection)
    assert after["n_tup_upd"] - before["n_tup_upd"] == 29
    assert after["n_tup_hot_upd"] - before["n_tup_hot_upd"] >= 27


async def _updates(connection: Any) -> Any:
    await connection.execute("SELECT pg_stat_force_next_flush()")
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    return await connection.fetchrow(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables"
        " WHERE schemaname = 'sessions' AND relname = 'transactions'"
    )


async def _charge(
    service: Service, version: Version, station_id: str, evse: int, ms: int, register: Decimal, energy: Decimal
) -> None:
    if version is Version.V16:
        station = Station16(station_id)
        await service.batch(station.start(int(register), ms, connector=evse))
        number = service.replies[-1]["transactionId"]
        half = register + energy / 2
        await service.batch(
            station.meter(str(half), ms + HOUR, transaction_id=number, connector=evse),
            station.stop(number, int(register + energy), ms + 2 * HOUR),
        )
    else:
        station2 = Station2x(version, station_id)
        more: dict[str, Any] = {"transaction_id": f"{station_id}-{ms}-{evse}"}
        await service.batch(
            station2.started(float(register), ms, evse=evse, **more),
            station2.updated(1, float(register + energy // 2), ms + HOUR, **more),
            station2.ended(2, float(register + energy), ms + 2 * HOUR, **more),
        )


def _history(rng: random.Random, sessions: int) -> list[StationCall]:
    calls: list[StationCall] = []
    for n in range(sessions):
        station = Station2x(station_id=f"CS{n % 5}")
        more: dict[str, Any] = {"transaction_id": f"tx-{n}"}
        ms, register = n * HOUR, 1000.0 * n
        calls.append(station.started(register, ms, **more))
        updates = range(rng.randrange(6))
        calls += [station.updated(m + 1, register + m, ms + m * MINUTE, **more) for m in updates]
        if rng.random() < 0.8:
            calls.append(station.ended(9, register + 500, ms + 30 * MINUTE, **more))
        one = Station16(f"CP{n % 5}")
        calls += [one.start(n, ms), one.meter(str(n), ms + MINUTE), one.stop(-1, n + 50, ms + 2 * MINUTE)]
    return calls
