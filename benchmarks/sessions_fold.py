"""What one event costs the sessions service: decoding, folding, and making ready what is stored; with --url, loading
and storing in a real PostgreSQL as well.

    python benchmarks/sessions_fold.py [--sessions N] [--batch N] [--url postgresql://...]

Events are TransactionEvents of 2.0.1 as the load client sends them: Started, ten Updated with 12 sampled values, Ended;
and StartTransaction, ten MeterValues with 12 sampled values, StopTransaction of 1.6; and the former once more with a
tariff, so that every answer tells the cost. Prints microseconds of CPU per
event, the best of several runs. Nothing else should run on the core.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import time
from collections.abc import Iterable
from typing import Any

import asyncpg

from busbar.avro import call_encoder, meta_prefix
from busbar.ocpp.times import format_timestamp_ms
from busbar.ocpp.versions import Version
from busbar.postgres import migrate
from busbar.pricing import Options
from busbar.pricing.assignment import Assignment, Scope
from busbar.pricing.jsontext import serialize_json
from busbar.records import Record
from busbar.stream.partitioner import Partitioner
from busbar.tariffs import Configuration, StoredVersion, TariffBook
from busbar.topics import station_topic
from services.sessions.decoding import Event, Start
from services.sessions.model import NO_TARIFFS, Policy, State, dump_session, dump_station
from services.sessions.processor import SessionsProcessor
from services.sessions.store import read_rows, store_call
from services.sessions.tokens import TokenPolicy

T0 = 1_763_712_000_000
MINUTE = 60_000
PARTITIONS = 4
UPDATES = 10
POLICY = Policy(tokens=TokenPolicy(accept_unknown=True))

_place = Partitioner()


def record(version: Version, action: str, station_id: str, ms: int, payload: dict[str, Any]) -> Record:
    """A CALL as it stands in the log."""
    prefix = meta_prefix(station_id, f"{station_id}-connection-000001", "edge-0", 0, version)
    value = call_encoder(version, action)(prefix, 1, f"{ms}-{station_id}", T0 + ms, payload)
    key = station_id.encode()
    return Record(station_topic(version, action), _place.partition(key, PARTITIONS), 0, T0 + ms, key, value)


def samples_2x(wh: float) -> list[dict[str, Any]]:
    """12 sampled values."""

    def sample(measurand: str, value: float, unit: str, phase: str = "") -> dict[str, Any]:
        made = {"value": value, "context": "Sample.Periodic", "measurand": measurand, "location": "Outlet"}
        made["unitOfMeasure"] = {"unit": unit, "multiplier": 0}
        return {**made, "phase": phase} if phase else made

    phases = ("L1", "L2", "L3")
    return [
        sample("Energy.Active.Import.Register", wh, "Wh"),
        sample("Power.Active.Import", 11_040.5, "W"),
        sample("SoC", 41.5, "Percent"),
        *(sample("Current.Import", 16.1, "A", phase) for phase in phases),
        *(sample("Voltage", 229.8, "V", f"{phase}-N") for phase in phases),
        *(sample("Power.Active.Import", 3680.2, "W", phase) for phase in phases),
    ]


def samples_16(wh: float) -> list[dict[str, Any]]:
    """The same as 1.6 sends them."""
    return [
        {
            **{name: member for name, member in sample.items() if name != "unitOfMeasure"},
            "value": str(sample["value"]),
            "unit": sample["unitOfMeasure"]["unit"],
        }
        for sample in samples_2x(wh)
    ]


def session_2x(number: int) -> list[Record]:
    """The records of one transaction of 2.0.1."""
    station_id, transaction_id = f"CS-{number:06}", f"{number:08x}-0000-4000-8000-000000000000"

    def event(kind: str, seq_no: int, ms: int, **more: Any) -> Record:
        payload = {
            "eventType": kind,
            "timestamp": format_timestamp_ms(T0 + ms),
            "triggerReason": "MeterValuePeriodic",
            "seqNo": seq_no,
            "transactionInfo": {"transactionId": transaction_id, "chargingState": "Charging"},
            "meterValue": [
                {"timestamp": format_timestamp_ms(T0 + ms), "sampledValue": samples_2x(1000.5 + 184.25 * seq_no)}
            ],
            **more,
        }
        return record(Version.V201, "TransactionEvent", station_id, ms, payload)

    id_token = {"idToken": f"TAG{number}", "type": "ISO14443"}
    updates = [event("Updated", n, n * MINUTE) for n in range(1, UPDATES + 1)]
    started = event("Started", 0, 0, evse={"id": 1, "connectorId": 1}, idToken=id_token)
    return [started, *updates, event("Ended", UPDATES + 1, (UPDATES + 1) * MINUTE)]


def session_16(number: int) -> list[Record]:
    """The records of one transaction of 1.6."""
    station_id = f"CP-{number:06}"
    start = {"connectorId": 1, "idTag": f"TAG{number}", "meterStart": 1000, "timestamp": format_timestamp_ms(T0)}
    first = record(Version.V16, "StartTransaction", station_id, 0, start)
    event = SessionsProcessor(POLICY, partitions=PARTITIONS).decode(first)
    assert isinstance(event, Start)
    transaction_id = int(event.candidates[0])

    def values(n: int) -> Record:
        value = {"timestamp": format_timestamp_ms(T0 + n * MINUTE), "sampledValue": samples_16(1000.5 + 184 * n)}
        payload = {"connectorId": 1, "transactionId": transaction_id, "meterValue": [value]}
        return record(Version.V16, "MeterValues", station_id, n * MINUTE, payload)

    end = (UPDATES + 1) * MINUTE
    stop = {"transactionId": transaction_id, "meterStop": 4000, "timestamp": format_timestamp_ms(T0 + end)}
    middle = [values(n) for n in range(1, UPDATES + 1)]
    return [first, *middle, record(Version.V16, "StopTransaction", station_id, end, stop)]


def interleaved(sessions: list[list[Record]]) -> list[Record]:
    """As stations send them: each its next event in turn."""
    return [record for step in zip(*sessions, strict=True) for record in step]


def batches(records: list[Record], size: int) -> Iterable[list[Record]]:
    return (records[start : start + size] for start in range(0, len(records), size))


class Tables:
    """Stands in for the database: hands out what the batch before has changed."""

    def __init__(self, tariffs: TariffBook) -> None:
        self.tariffs = tariffs
        self.sessions: dict[str, dict[str, bytes]] = {}
        self.stations: dict[str, bytes] = {}

    def load(self, events: Iterable[Event]) -> State:
        state = State(policy=POLICY, tariffs=self.tariffs)
        names = {event.call.station_id for event in events}  # type: ignore[union-attr]
        rows: list[tuple[str, str, None, bytes]] = []
        for name in names:
            if name in self.stations:
                rows.append(("station", name, None, self.stations[name]))
            rows += [("session", each, None, raw) for each, raw in self.sessions.get(name, {}).items()]
        read_rows(state, rows)
        return state

    def save(self, state: State) -> None:
        for session in state.changed_sessions():
            self.sessions.setdefault(session.station_id, {})[session.session_id] = dump_session(session)
        for station in state.stations.values():
            if station.changed:
                self.stations[station.station_id] = dump_station(station)


def tariff_book() -> TariffBook:
    """Energy at two prices, by day and by night, for everyone."""
    prices = [
        {
            "price_components": [{"type": "ENERGY", "price": price, "vat": 19, "step_size": 1}],
            "restrictions": {"start_time": start, "end_time": end},
        }
        for price, start, end in ((1, "06:00", "22:00"), (2, "22:00", "06:00"))
    ]
    content = serialize_json({"id": "T", "currency": "EUR", "elements": prices})
    book = TariffBook("Europe/Berlin", options=Options(keep_periods=False))
    book.accept(Configuration(1, (StoredVersion("T", 1, content, 0),), (Assignment("T", Scope.DEFAULT),)))
    return book


def measure(records: list[Record], size: int, tariffs: TariffBook = NO_TARIFFS) -> dict[str, float]:
    """Microseconds per event, by part."""
    parts = dict.fromkeys(("decode", "load", "fold", "make ready"), 0.0)
    tables, processor, clock = Tables(tariffs), SessionsProcessor(POLICY, partitions=PARTITIONS), time.process_time
    for batch in batches(records, size):
        began = clock()
        events = [event for each in batch if (event := processor.decode(each)) is not None]
        decoded = clock()
        state = tables.load(events)
        loaded = clock()
        for event in events:
            processor.fold(state, event)
        folded = clock()
        store_call(state, state.shapes)
        ready = clock()
        times = (decoded - began, loaded - decoded, folded - loaded, ready - folded)
        parts = {part: parts[part] + seconds for part, seconds in zip(parts, times, strict=True)}
        tables.save(state)
    return {part: seconds / len(records) * 1e6 for part, seconds in parts.items()}


async def measure_database(records: list[Record], size: int, url: str) -> dict[str, float]:
    """Microseconds per event with a database: CPU here, and the time that its calls took."""
    await migrate(url)
    connection = await asyncpg.connect(url)
    await connection.execute("TRUNCATE sessions.transactions, sessions.stations, sessions.meter_values")
    processor = SessionsProcessor(POLICY, partitions=PARTITIONS)
    cpu, loading, storing = time.process_time(), 0.0, 0.0
    for batch in batches(records, size):
        events = [event for each in batch if (event := processor.decode(each)) is not None]
        began = time.perf_counter()
        state = await processor.load(connection, events)
        loading += time.perf_counter() - began
        for event in events:
            list(processor.fold(state, event))
        began = time.perf_counter()
        async with connection.transaction():
            await processor.store(connection, state)
        storing += time.perf_counter() - began
        processor.committed(state)
    cpu = time.process_time() - cpu
    await connection.close()
    parts = {"cpu here": cpu, "load (waiting)": loading, "store (waiting)": storing}
    return {part: seconds / len(records) * 1e6 for part, seconds in parts.items()}


def show(title: str, runs: list[dict[str, float]]) -> None:
    best = {part: min(run[part] for run in runs) for part in runs[0]}
    figures = "  ".join(f"{part} {best[part]:5.1f}" for part in best)
    print(f"{title:34} {figures}  sum {min(sum(run.values()) for run in runs):5.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=400)
    parser.add_argument("--batch", type=int, default=400)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--url", help="of a PostgreSQL database that may be emptied")
    options = parser.parse_args()
    print(f"microseconds per event, batches of {options.batch}, Python {platform.python_version()}")
    for title, make in (("2.0.1 TransactionEvent, 12 values", session_2x), ("1.6 mix, 12 values", session_16)):
        records = interleaved([make(number) for number in range(options.sessions)])
        show(title, [measure(records, options.batch) for _ in range(options.repeat)])
        if options.url:
            runs = [asyncio.run(measure_database(records, options.batch, options.url)) for _ in range(options.repeat)]
            show(f"{title}, stored", runs)
    records = interleaved([session_2x(number) for number in range(options.sessions)])
    show("the first with a tariff", [measure(records, options.batch, tariff_book()) for _ in range(options.repeat)])


if __name__ == "__main__":
    main()
