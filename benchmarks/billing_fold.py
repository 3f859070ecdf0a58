"""What one event of a session costs the billing service: decoding, folding and pricing, and making ready what is
stored; with --url, loading and storing in a real PostgreSQL as well.

    python -m benchmarks.billing_fold [--sessions N] [--events N] [--batch N] [--live] [--url postgresql://...]

Sessions as 2.x stations tell them: started, updates with one register each, ended; a batch has about one event of
each, as it has when billing rests for a second between batches. With a tariff and without; the ends of sessions also
by themselves, for that is when the bill and the record are made. Prints microseconds of CPU per event, the best of
several runs.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg

from busbar.avro import encode
from busbar.postgres import migrate
from busbar.pricing.jsontext import serialize_json
from busbar.records import Record
from busbar.tariffs import REVISION, Configuration, StoredVersion, TariffBook
from services.billing.processor import SESSION_EVENTS_TOPIC, BillingProcessor

T0 = 1_763_712_000_000
MINUTE = 60_000
PARTITIONS = 4
TARIFF: dict[str, Any] = {
    "id": "T",
    "currency": "EUR",
    "tax_included": "NO",
    "elements": [
        {
            "price_components": [
                {"type": "ENERGY", "price": Decimal("0.39"), "vat": Decimal(21), "step_size": 1},
                {"type": "PARKING_TIME", "price": Decimal(6), "vat": Decimal(21), "step_size": 60},
            ],
            "restrictions": {"start_time": "07:00", "end_time": "22:00"},
        },
        {"price_components": [{"type": "ENERGY", "price": Decimal("0.29"), "vat": Decimal(21), "step_size": 1}]},
    ],
}
CONFIGURATION = Configuration(1, (StoredVersion("T", 1, serialize_json(TARIFF), 0),))


class Nothing:
    """Stands in for a database that has no rows."""

    async def fetch(self, *_: object) -> Sequence[Any]:
        return ()

    async def fetchval(self, query: str) -> int:
        return 1 if query == REVISION else 0


def event(number: int, step: int, steps: int, begin_ms: int, *, priced: bool) -> Record:
    """One event of a session."""
    at_ms = begin_ms + step * MINUTE
    is_last = step == steps - 1
    register = Decimal(1_000_000 + number) + Decimal("184.25") * step
    kind = "started" if step == 0 else "ended" if is_last else "updated"
    session_id, station_id = str(UUID(int=number + 1, version=4)), f"CS-{number:06}"
    value = {
        "session_id": session_id,
        "station_id": station_id,
        "ocpp_version": "2.0.1",
        "transaction_id": session_id,
        "site_id": "depot-north",
        "evse_id": 1,
        "connector_id": 1,
        "id_token": f"TAG{number}",
        "id_token_type": "ISO14443",
        "group_id": "",
        "authorization_status": "Accepted",
        "reservation_id": None,
        "remote_start_id": None,
        "tariff_id": "T" if priced else "",
        "tariff_version": 1 if priced else 0,
        "time_zone": "Europe/Amsterdam" if priced else "",
        "event_id": f"{session_id}/{step + 1}",
        "sequence": step + 1,
        "kind": kind,
        "state": "ended" if is_last else "open",
        "final": is_last,
        "complete": is_last,
        "offline": False,
        "at": at_ms,
        "station_at": at_ms,
        "received_at": at_ms + 100,
        "started_at": begin_ms,
        "ended_at": at_ms if is_last else None,
        "trigger": "MeterValuePeriodic",
        "seq_no": step,
        "charging_state": "" if step else "Charging",
        "energy_wh": Decimal("184.25") * step,
        "energy_rung": "samples",
        "register_begin_wh": Decimal(1_000_000 + number),
        "register_end_wh": register,
        "power_w": 11_040.0,
        "current_a": 48.0,
        "soc_percent": 50.0,
        "points": [{"at": at_ms, "register_wh": register, "power_w": 11_040.0, "current_a": 48.0}],
        "stop_reason": "",
        "stop_id_token": "",
        "missing_seq_nos": [],
        "flags": [],
    }
    raw = encode("csms.SessionEvent", value)
    return Record(SESSION_EVENTS_TOPIC, number % PARTITIONS, 0, at_ms, station_id.encode(), raw)


def make_batches(sessions: int, steps: int, size: int, *, live: bool, priced: bool = True) -> list[list[Record]]:
    """Each session's next event in turn. Live: the last event is of now, so that stations would be told costs."""
    begin_ms = time.time_ns() // 1_000_000 - (steps - 1) * MINUTE if live else T0
    records = [
        event(number, step, steps, begin_ms, priced=priced) for step in range(steps) for number in range(sessions)
    ]
    return [records[start : start + size] for start in range(0, len(records), size)]


async def measure(
    batches: Sequence[list[Record]], connection: Any, *, is_real: bool, live: bool, last: int | None = None
) -> dict[str, float]:
    """Microseconds per event, by part; of the last so many batches, or of all."""
    counted = 0 if last is None else len(batches) - last
    parts = dict.fromkeys(("decode", "load", "fold", "make ready", "commit"), 0.0)
    clock = time.perf_counter if is_real else time.process_time
    book = TariffBook()
    book.accept(CONFIGURATION)
    count = 0
    now = [0]
    processor = BillingProcessor(book, now_ms=lambda: now[0])
    for number, batch in enumerate(batches):
        now[0] = batch[-1].timestamp_ms + 500 if live else T0 + 10**9
        times = [clock()]
        events = [processor.decode(each) for each in batch]
        times.append(clock())
        state = await processor.load(connection, events)
        times.append(clock())
        for each in events:
            processor.fold(state, each)
        times.append(clock())
        if is_real:
            async with connection.transaction():
                await processor.store(connection, state)
        else:
            processor.store_call(state)
        times.append(clock())
        processor.committed(state)
        times.append(clock())
        if number < counted:
            continue
        count += len(batch)
        for place, part in enumerate(parts):
            parts[part] += times[place + 1] - times[place]
    return {part: seconds / count * 1e6 for part, seconds in parts.items()}


async def measure_database(batches: list[list[Record]], url: str, *, live: bool, last: int | None) -> dict[str, float]:
    """The same, waiting for a database."""
    await migrate(url)
    connection = await asyncpg.connect(url)
    await connection.execute("TRUNCATE billing.sessions, billing.facts, billing.journal, billing.cdrs")
    try:
        return await measure(batches, connection, is_real=True, live=live, last=last)
    finally:
        await connection.close()


def show(title: str, runs: list[dict[str, float]]) -> None:
    best = {part: min(run[part] for run in runs) for part in runs[0]}
    figures = "  ".join(f"{part} {best[part]:5.1f}" for part in best)
    print(f"{title:32} {figures}  sum {min(sum(run.values()) for run in runs):5.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--events", type=int, default=12, help="of each session")
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--live", action="store_true", help="the events are of now: stations are told costs")
    parser.add_argument("--url", help="of a PostgreSQL database that may be emptied")
    options = parser.parse_args()
    print(f"microseconds per event, batches of {options.batch}, Python {platform.python_version()}")
    ends = -(-options.sessions // options.batch)
    for title, priced in (("no tariff", False), ("with a tariff", True)):
        batches = make_batches(options.sessions, options.events, options.batch, live=options.live, priced=priced)
        for part, last in (("", None), (", the last event", ends)):
            runs = []
            for _ in range(options.repeat):
                if options.url:
                    work = measure_database(batches, options.url, live=options.live, last=last)
                else:
                    work = measure(batches, Nothing(), is_real=False, live=options.live, last=last)
                runs.append(asyncio.run(work))
            show(title + part, runs)


if __name__ == "__main__":
    main()
