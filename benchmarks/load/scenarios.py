"""What is measured. Each scenario drives a warm system and gives rows of the table."""

from __future__ import annotations

import asyncio
import math
import os
import resource
import signal
import time
from array import array
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.load import billing, frames
from benchmarks.load.client import Fleet, Heartbeats, MakeScript, Mix16, Tally, TransactionEvents
from benchmarks.load.commands import ACTION, Caller
from benchmarks.load.report import Row, quantiles
from benchmarks.load.system import Accounts, Shape, System
from busbar.config import Env
from busbar.local.figures import quantile
from busbar.stream.partitioner import Partitioner
from busbar.stream.settings import WorkerSettings

EVENTS_TOPIC = "ocpp.v201.TransactionEvent"
STORM = 5000
SPARE_FILES = 500
"""Descriptors that an edge or the client needs beside the stations' sockets."""
SCALING_RATE = 1000.0
TAKEOVER_RATE = 500.0
BACKLOG_SECONDS = 40.0
"""A machine that makes no backlog of the wanted length in so long gets a shorter one."""
REPLAY_SECONDS = 60.0

ONE = Shape()
TWO = Shape(edges=2, sessions=2)
OPEN = Shape(lot="open loops")
"""After closed loops PostgreSQL is busy with their rows for minutes (vacuum, checkpoints), and answers later."""
BACKLOG = Shape(lot="a backlog")
"""A sessions process that has had other fleets keeps their state, and takes a tenth longer."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to measure."""

    stations: int = 1000
    seconds: float = 8.0
    """Measured time of each scenario."""
    warm: float = 3.0
    """Before each, with the same load."""
    pairs: int = 10
    """Slices with billing, and as many without; each is a quarter of the measured time of other scenarios."""
    backlog: int = 60_000


Run = Callable[[System, Options], Coroutine[Any, Any, list[Row]]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One of those that `--scenario` takes."""

    name: str
    about: str
    run: Run
    shape: Shape = ONE
    """Of the system that it needs."""


def most_stations() -> int:
    """As many as the machine lets a process have sockets for, but 20,000 at most."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(20_000, (soft - SPARE_FILES) // 500 * 500)


@asynccontextmanager
async def fleet_of(
    system: System,
    count: int,
    script: MakeScript,
    subprotocol: str = "ocpp2.0.1",
    *,
    edges: list[str] | None = None,
    site_id: str | None = None,
    boot: frames.Template | None = None,
) -> AsyncIterator[Fleet]:
    """Stations that nobody has met before, disconnected in the end.

    Args:
        site_id: Where they are registered, each with a password; without it nobody has heard of them.
    """
    prefix = f"B{os.getpid()}-{time.time_ns() // 1_000_000 % 10_000_000}"
    names = [f"{prefix}-{number:05d}" for number in range(count)]
    passwords = await system.register(names, site_id) if site_id else None
    fleet = await Fleet.connect(
        edges or system.edges, count, script, subprotocol, prefix=prefix, passwords=passwords, boot=boot
    )
    try:
        yield fleet
    finally:
        fleet.abandon()
        fleet.close()
    await system.settle()


def account(row: Row, tally: Tally, elapsed: float, before: Accounts, after: Accounts) -> Row:
    """Fill in what a tally and the accounts say."""
    count = max(1, tally.answered)
    row.rate = tally.answered / elapsed
    row.quantiles_ms = quantiles(tally.latencies)
    row.cpu_us = {role: spent / count * 1e6 for role, spent in after.since(before).items()}
    row.busy = after.busy(before)
    if (stolen := after.stolen(before)) > 0.02:
        row.notes.append(f"{stolen:.0%} of the time was taken by the host")
    if tally.errors:
        row.problems.append(f"{tally.errors} errors: {next(iter(tally.error_texts))[:160]!r}")
    if tally.stray:
        row.problems.append(f"{tally.stray} answers to nothing")
    if tally.closed:
        row.problems.append(f"{tally.closed} connections lost")
    return row


async def loop_delays(system: System) -> dict[float, float]:
    """The edges' histogram of how late their loops run timers."""
    return (await system.scrape("edge")).buckets("csms_edge_loop_delay_seconds")


def loop_delay_ms(before: dict[float, float], after: dict[float, float]) -> tuple[float, float]:
    """p99, and the bound of the highest bucket that was hit."""
    hits, below = [], 0.0
    for bound in sorted(after):
        count = after[bound] - before.get(bound, 0.0)
        if count > below:
            hits.append(bound)
        below = count
    return quantile(0.99, before, after) * 1000, max(hits, default=math.nan) * 1000


async def measure(
    row: Row, system: System, fleet: Fleet, drive: Callable[[float], Awaitable[float]], options: Options
) -> Row:
    """Warm up, then account for one drive. The sockets are served all the while."""

    async def look_late() -> dict[float, float]:
        await asyncio.sleep(max(0.0, options.warm - 0.5))
        return await loop_delays(system)

    system.look()
    _, delays = await asyncio.gather(drive(options.warm), look_late())
    before = system.accounts()
    elapsed = await drive(options.seconds)
    after = system.accounts()
    account(row, fleet.tally, elapsed, before, after)
    row.loop_delay_ms = loop_delay_ms(delays, await loop_delays(system))
    return row


async def drain(row: Row, fleet: Fleet) -> Row:
    """Stop the load, and say if something is never answered."""
    if unanswered := await fleet.stop_loop():
        row.problems.append(f"{unanswered} never answered")
    return row


def closed(
    name: str, title: str, script: MakeScript, subprotocol: str = "ocpp2.0.1", *, stations: int | None = None
) -> Scenario:
    """A saturating closed loop."""

    async def run(system: System, options: Options) -> list[Row]:
        count = stations or options.stations
        async with fleet_of(system, count, script, subprotocol) as fleet:
            row = await measure(Row(name, title, count), system, fleet, fleet.closed_loop, options)
            return [await drain(row, fleet)]

    return Scenario(name, f"{title}, closed loop", run)


def opened(rate: int) -> Scenario:
    """An open loop at a fixed rate."""
    name, title = f"latency-{rate}", f"TransactionEvent, open loop {rate:,}/s"

    async def run(system: System, options: Options) -> list[Row]:
        async with fleet_of(system, options.stations, TransactionEvents) as fleet:
            row = Row(name, title, options.stations)
            await measure(row, system, fleet, lambda seconds: fleet.open_loop(rate, seconds), options)
            note_lateness(row, fleet)
            return [await drain(row, fleet)]

    return Scenario(name, title, run, OPEN)


def note_lateness(row: Row, fleet: Fleet) -> None:
    """Say so if the client itself was late; the latencies contain it."""
    late = quantiles(fleet.tally.lateness)[2]
    if late > 5.0:
        row.notes.append(f"the client sent up to {late:.0f} ms late (p99)")


async def scaling(system: System, options: Options) -> list[Row]:
    """What a connected station costs that sends little: the same rate from ever more of them."""
    rows = []
    async with fleet_of(system, 0, TransactionEvents) as fleet:
        for wanted in (100, 1000, 5000, 20_000):
            count = min(wanted, most_stations())
            await fleet.grow(count)
            row = Row("scaling", f"TransactionEvent, open loop {SCALING_RATE:,.0f}/s", count)
            await measure(row, system, fleet, lambda seconds: fleet.open_loop(SCALING_RATE, seconds), options)
            note_lateness(row, fleet)
            rows.append(await drain(row, fleet))
    return rows


async def idle(system: System, options: Options) -> list[Row]:
    """Memory and CPU of idle sockets, from the edges' resident sets before and after."""
    count = most_stations()
    before = system.memory_bytes("edge")
    async with fleet_of(system, count, Heartbeats) as fleet:
        await fleet.listen(2)
        used = (system.memory_bytes("edge") - before) / count / 1024
        accounts = system.accounts()
        elapsed = await fleet.listen(5)
        spent = system.accounts().since(accounts)["edge"] / elapsed
    return [Row("idle", "idle sockets", count, notes=[f"{used:.1f} KiB a socket, {spent:.1%} of a core"])]


async def storm(system: System, options: Options) -> list[Row]:
    """All stations connect with their passwords and boot at once."""
    passwords = await system.prepare(STORM)
    system.look()
    before = system.accounts()
    began = time.perf_counter()
    fleet = await Fleet.connect(
        system.edges,
        STORM,
        Heartbeats,
        "ocpp2.0.1",
        prefix="STORM",
        passwords=passwords,
        at_once=STORM,
        boot=frames.BOOT_201,
    )
    elapsed = time.perf_counter() - began
    row = Row("storm", "reconnect storm: password and boot, latency from the first SYN", STORM)
    account(row, fleet.tally, elapsed, before, system.accounts())
    row.notes.append(f"all booted after {elapsed:.2f} s")
    fleet.close()
    await system.settle()
    return [row]


async def commands(system: System, options: Options) -> list[Row]:
    """Commands through the API to stations on two edges, which answer at once."""
    rows = []
    async with fleet_of(system, options.stations, Heartbeats, boot=frames.BOOT_201) as fleet:
        names = [station.path.rpartition("/")[2] for station in fleet.stations]
        await _until_reachable(system, fleet, names)
        for callers in (1, 64):
            tally = Tally()
            connections = [
                Caller(fleet, system.run.api_url, system.run.admin_key, names[index::callers], tally)
                for index in range(callers)
            ]
            for caller in connections:
                caller.start()
            system.look()
            await fleet.listen(options.warm)
            tally.clear()
            before = system.accounts()
            elapsed = await fleet.listen(options.seconds)
            title = f"{ACTION} through the API, {callers} at a time, {len(system.edges)} edges"
            row = account(Row("commands", title, len(names)), tally, elapsed, before, system.accounts())
            for caller in connections:
                caller.stop()
            await fleet.listen(0.5)
            if waiting := sum(caller.outstanding for caller in connections):
                row.problems.append(f"{waiting} never answered")
            for caller in connections:
                caller.close()
            rows.append(row)
    return rows


async def _until_reachable(system: System, fleet: Fleet, names: list[str]) -> None:
    """Wait until the router knows where the stations are."""
    deadline = time.monotonic() + 30
    async with system.database() as connection:
        while time.monotonic() < deadline:
            await fleet.listen(0.2)
            known = await connection.fetchval(
                "SELECT count(*) FROM router.connections WHERE online AND station_id = ANY($1::text[])", names
            )
            if known == len(names):
                return
    raise TimeoutError("the router does not know all stations after 30 s")


async def replay(system: System, options: Options) -> list[Row]:
    """One sessions process folds a backlog that nobody adds to."""
    async with system.database() as connection:
        paused = system.pids("sessions")
        _signal_all(paused, signal.SIGSTOP)
        try:
            await _make_backlog(system, options)
            ends = await _end_offsets(system, len(await _leases(connection)))
            begin = await _folded(connection)
            system.look()
            before = system.accounts()
            went_on = time.perf_counter()
        finally:
            _signal_all(paused, signal.SIGCONT)
        times = [(went_on, begin)]
        while times[-1][1] < ends:
            await asyncio.sleep(0.02)
            times.append((time.perf_counter(), await _folded(connection)))
            if times[-1][0] - went_on > REPLAY_SECONDS:
                raise TimeoutError(f"{times[-1][1] - begin} of {ends - begin} events are folded after so long")
    after = system.accounts()
    first_at, first_folded = next(each for each in times if each[1] > begin)
    last_at, last_folded = times[-1]
    row = Row("replay", f"replay of {ends - begin:,} TransactionEvents by one sessions process", STORM)
    row.rate = (last_folded - first_folded) / max(1e-9, last_at - first_at)
    row.cpu_us = {role: spent / (ends - begin) * 1e6 for role, spent in after.since(before).items()}
    row.busy = after.busy(before)
    row.notes.append(f"first commit after {(first_at - went_on) * 1000:.0f} ms, all after {last_at - went_on:.2f} s")
    return [row]


async def _make_backlog(system: System, options: Options) -> None:
    """Have events made durable that nobody folds yet."""
    # This edge answers in the owner's place as soon as an event is durable (rule 9), so that stations go on.
    async with (
        system.further_edge(BUSBAR_EDGE_LATE_SECONDS="0.1") as edge,
        fleet_of(system, STORM, TransactionEvents, edges=[edge]) as fleet,
    ):
        made, deadline = 0, time.monotonic() + BACKLOG_SECONDS
        while made < options.backlog and time.monotonic() < deadline:
            await fleet.closed_loop(0.5)
            made += fleet.tally.answered
        await fleet.stop_loop()


def _signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)


async def _end_offsets(system: System, partitions: int) -> int:
    """How many TransactionEvents there are."""
    consumer = AIOKafkaConsumer(bootstrap_servers=system.run.kafka.url, group_id=None)
    await consumer.start()
    try:
        ends = await consumer.end_offsets([TopicPartition(EVENTS_TOPIC, number) for number in range(partitions)])
        return sum(ends.values())
    finally:
        await consumer.stop()


async def _folded(connection: asyncpg.Connection[asyncpg.Record]) -> int:
    """How many TransactionEvents the sessions service has committed."""
    value = await connection.fetchval(
        "SELECT coalesce(sum((offsets->>$1)::bigint), 0) FROM stream.progress WHERE group_name = 'sessions'",
        EVENTS_TOPIC,
    )
    return int(value)


def beside_billing(name: str, title: str, rate: float | None = None) -> Scenario:
    """A load in slices without and with billing, in turn; first without a tariff, then with one."""

    async def run(system: System, options: Options) -> list[Row]:
        site = f"bench-{time.time_ns() // 1_000_000}"
        await billing.configure(system, site)
        rows = []
        async with billing.billing_of(system) as its:
            for site_id, tariff in ((None, "no tariff"), (site, "with a tariff")):
                async with fleet_of(system, options.stations, TransactionEvents, site_id=site_id) as fleet:
                    found = await _in_turn(system, its, fleet, options, rate)
                    for slices, what in ((found.without, "billing stopped"), (found.those_with, "billing running")):
                        row = Row(name, f"{title}, {tariff}, {what}", len(fleet.stations))
                        rows.append(billing.joined(row, slices))
                    rows[-1].notes += found.notes(is_closed=rate is None)
        return rows

    return Scenario(name, f"{title}, without and with billing in turn", run)


async def _in_turn(
    system: System, its: billing.Billing, fleet: Fleet, options: Options, rate: float | None
) -> billing.Comparison:
    """Short slices without and with billing, as many of each; every other pair begins with the one with it."""
    found = billing.Comparison()

    async def drive(seconds: float) -> float:
        return await (fleet.closed_loop(seconds) if rate is None else fleet.open_loop(rate, seconds))

    async def handled(seconds: float) -> float:
        elapsed = await drive(seconds)
        found.answered += fleet.tally.answered
        return elapsed

    await drive(options.warm)
    await fleet.stop_loop()
    await its.caught_up(fleet)
    system.look()
    begin = system.accounts()
    for number in range(2 * options.pairs):
        has_billing = number % 4 in (1, 2)
        if has_billing:
            its.go_on()
            if await its.lag():  # it has its own slices' work to do in them, not that of those without it
                await fleet.stop_loop()
                await its.caught_up(fleet)
        else:
            its.stop()
        await handled(options.warm / 3)
        before = system.accounts()
        elapsed = await handled(options.seconds / 4)
        row = account(Row("", "", 0), fleet.tally, elapsed, before, system.accounts())
        (found.those_with if has_billing else found.without).append(
            billing.Slice(row, array("d", fleet.tally.latencies))
        )
    its.go_on()
    await drain(row, fleet)
    found.lag = await its.lag()
    found.catch_up_seconds = await its.caught_up(fleet)
    found.cpu_seconds = system.accounts().since(begin)
    return found


async def takeover(system: System, options: Options) -> list[Row]:
    """A sessions process goes while events come in; what stations and the lease rows see of it."""
    lease = WorkerSettings.from_env(Env()).lease_seconds
    return [
        await _overthrow(system, options, number, lease, seconds)
        for number, seconds in ((signal.SIGKILL, lease + 4), (signal.SIGTERM, 6.0))
    ]


async def _overthrow(system: System, options: Options, number: signal.Signals, lease: float, seconds: float) -> Row:
    lead = options.warm + 1
    pid = system.pids("sessions")[0]
    async with fleet_of(system, options.stations, TransactionEvents) as fleet, system.database() as connection:
        await _until_shared(connection, fleet)
        trace: list[tuple[float, int]] = []
        fleet.tally.trace = trace
        went_at = 0.0
        moved: dict[int, float] = {}

        async def strike() -> None:
            nonlocal went_at
            await asyncio.sleep(lead)
            theirs = {row["partition"]: row["owner"] for row in await _leases(connection) if f"-{pid}-" in row["owner"]}
            if not theirs:
                raise RuntimeError(f"process {pid} holds no partition")
            went_at = time.perf_counter()
            os.kill(pid, number)
            while len(moved) < len(theirs) and time.perf_counter() - went_at < seconds:
                await asyncio.sleep(0.02)
                for row in await _leases(connection):
                    if row["partition"] in theirs and row["owner"] not in ("", theirs[row["partition"]]):
                        moved.setdefault(row["partition"], time.perf_counter() - went_at)

        elapsed, _ = await asyncio.gather(fleet.open_loop(TAKEOVER_RATE, lead + seconds), strike())
        count = len(await _leases(connection))
        rate = fleet.tally.answered / elapsed
        title = f"take-over: {number.name} to one of two sessions processes at {TAKEOVER_RATE:,.0f} events/s"
        row = Row(
            "takeover", f"{title}, lease {lease:g} s", len(fleet.stations), rate, quantiles(fleet.tally.latencies)
        )
        await drain(row, fleet)
        gaps = _gaps(trace, fleet, count, went_at)
        orphans = [gaps[partition] for partition in moved]
        others = [gap for partition, gap in gaps.items() if partition not in moved]
        row.notes += [
            f"its {len(moved)} partitions had another owner after {_span(moved.values())} s",
            f"the longest time without an answer was {_span(orphans)} s there"
            + (f" and {_span(others)} s elsewhere" if others else ""),
        ]
        if fleet.tally.errors or fleet.tally.stray or fleet.tally.closed:
            row.problems.append(f"{fleet.tally.errors} errors, {fleet.tally.stray} answers to nothing")
    return row


async def _until_shared(connection: asyncpg.Connection[asyncpg.Record], fleet: Fleet) -> None:
    """Wait until two workers hold all partitions between them."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        owners = [row["owner"] for row in await _leases(connection)]
        if all(owners) and len(set(owners)) == 2:
            return
        await fleet.listen(0.2)
    raise TimeoutError("two sessions processes do not share the partitions after 60 s")


async def _leases(connection: asyncpg.Connection[asyncpg.Record]) -> list[asyncpg.Record]:
    return await connection.fetch(
        "SELECT partition, coalesce(owner, '') AS owner FROM stream.progress WHERE group_name = 'sessions'"
    )


def _gaps(trace: list[tuple[float, int]], fleet: Fleet, partitions: int, since: float) -> dict[int, float]:
    """Per partition, the longest time between two answers, the second of which came after `since`."""
    partitioner = Partitioner()
    where = [partitioner.partition(station.path.rpartition("/")[2].encode(), partitions) for station in fleet.stations]
    last: dict[int, float] = {}
    gaps: dict[int, float] = defaultdict(float)
    for at, number in trace:
        partition = where[number]
        if at > since:
            gaps[partition] = max(gaps[partition], at - last.get(partition, since))
        last[partition] = at
    return gaps


def _span(values: Iterable[float]) -> str:
    ordered = sorted(values)
    if not ordered:
        return "-"
    low, high = f"{ordered[0]:.2f}", f"{ordered[-1]:.2f}"
    return low if low == high else f"{low} to {high}"


_ALL = (
    closed("heartbeats", "heartbeats", Heartbeats, "ocpp1.6"),
    closed("heartbeats-5000", "heartbeats", Heartbeats, "ocpp1.6", stations=5000),
    closed("events", "TransactionEvent 2.0.1", TransactionEvents),
    closed("events-5000", "TransactionEvent 2.0.1", TransactionEvents, stations=5000),
    closed("mix", "1.6 mix", Mix16, "ocpp1.6"),
    *map(opened, (200, 500, 1000, 2000)),
    beside_billing("billing", "TransactionEvent 2.0.1"),
    beside_billing("billing-1000", "TransactionEvent, open loop 1,000/s", 1000.0),
    Scenario("storm", "5,000 stations connect and boot at once", storm),
    Scenario("scaling", "the same rate from ever more stations", scaling, OPEN),
    Scenario("idle", "sockets that send nothing", idle),
    Scenario("replay", "a backlog folded by one sessions process", replay, BACKLOG),
    Scenario("commands", "commands through the API", commands, TWO),
    Scenario("takeover", "a sessions process is killed, and one stopped", takeover, TWO),
)
SCENARIOS = {scenario.name: scenario for scenario in _ALL}
QUICK = ("heartbeats", "events", "latency-1000")


async def warm_up(system: System, options: Options, seconds: float) -> None:
    """Let the broker's JVM compile what it runs: fresh, it takes three to five times the CPU."""
    if seconds > 0:
        async with fleet_of(system, options.stations, TransactionEvents) as fleet:
            await fleet.closed_loop(seconds / 3)
            await fleet.stop_loop()
            await fleet.open_loop(1000, seconds * 2 / 3)
            await fleet.stop_loop()


def quick(options: Options) -> Options:
    """Shorter."""
    return replace(options, seconds=min(options.seconds, 4.0), warm=min(options.warm, 2.0), backlog=15_000)
