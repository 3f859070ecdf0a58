"""`make bench`: starts the whole system on this machine, drives it, and says what it did and what it cost.

Every figure is of the real thing: Kafka with `acks=all`, PostgreSQL with fsync, every reply checked by its id.
CPU is counted per process from the kernel's own accounts; the client's share is reported beside the others.
"""

from __future__ import annotations

import asyncio
import base64
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import click
import psutil
import uvloop

from benchmarks.load import frames
from benchmarks.load.client import Fleet, Heartbeats, MakeScript, Mix16, Tally, TransactionEvents
from busbar.local.errors import StackError
from busbar.local.runfile import RunFile
from busbar.passwords import generate_password, hash_password

ROOT = Path(__file__).resolve().parents[2]


@dataclass(slots=True)
class Row:
    """One line of the table."""

    scenario: str
    stations: int
    rate: float
    """Messages answered a second."""
    quantiles_ms: tuple[float, float, float]
    """p50, p95, p99."""
    cpu_us: dict[str, float]
    """CPU microseconds per message, by process."""
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class System:
    """A running stack, as its run file describes it."""

    run: RunFile
    pepper: bytes

    @classmethod
    def of(cls, run_file: Path) -> System:
        return cls(RunFile.read(run_file), base64.b64decode((run_file.parent / "pepper").read_text()))

    @property
    def edges(self) -> list[str]:
        return [urlsplit(edge.url).netloc for edge in self.run.edges]

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Processes by role; PostgreSQL's many count as one."""
        pids = [("kafka", pid) for pid in self.run.kafka.pids] + [("postgres", pid) for pid in self.run.postgres.pids]
        pids += [(entry.service, entry.pid) for entry in self.run.services]
        found: dict[str, list[psutil.Process]] = {"client": [psutil.Process()]}
        for role, pid in pids:
            if pid is not None:
                process = psutil.Process(pid)
                found.setdefault(role, []).extend([process, *process.children(recursive=True)])
        return found


def cpu_seconds(processes: dict[str, list[psutil.Process]]) -> dict[str, float]:
    """User and system seconds so far, by role."""
    totals = {}
    for role, members in processes.items():
        total = 0.0
        for process in members:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        totals[role] = total
    return totals


def quantiles(tally: Tally) -> tuple[float, float, float]:
    """p50, p95 and p99 in milliseconds."""
    ordered = sorted(tally.latencies)
    if not ordered:
        return (float("nan"),) * 3
    return tuple(ordered[min(len(ordered) - 1, int(len(ordered) * q))] * 1000 for q in (0.5, 0.95, 0.99))  # type: ignore[return-value]


async def measure(
    name: str, system: System, fleet: Fleet, drive: Callable[[float], Awaitable[float]], seconds: float
) -> Row:
    """Run one drive and account for it."""
    before = cpu_seconds(system.processes())
    elapsed = await drive(seconds)
    after = cpu_seconds(system.processes())
    tally = fleet.tally
    count = max(1, tally.answered)
    row = Row(
        name,
        len(fleet.stations),
        tally.answered / elapsed,
        quantiles(tally),
        {role: (after.get(role, 0) - spent) / count * 1e6 for role, spent in before.items()},
    )
    if tally.errors:
        row.notes.append(f"{tally.errors} CALLERRORs: {next(iter(tally.error_texts))[:160]!r}")
    if tally.stray:
        row.notes.append(f"{tally.stray} STRAY frames")
    return row


async def closed(
    name: str, system: System, count: int, script: MakeScript, subprotocol: str, seconds: float, warm: float
) -> Row:
    """A saturating closed loop after a warm-up."""
    fleet = await Fleet.connect(system.edges, count, script, subprotocol, prefix=f"B{os.getpid()}{count}")
    await fleet.closed_loop(warm)
    row = await measure(name, system, fleet, fleet.closed_loop, seconds)
    unanswered = await fleet.stop_loop()
    if unanswered:
        row.notes.append(f"{unanswered} never answered")
    fleet.close()
    await asyncio.sleep(0.5)
    return row


async def opened(
    name: str,
    system: System,
    count: int,
    rate: float,
    seconds: float,
    warm: float,
) -> Row:
    """An open loop at a fixed rate after a warm-up at the same rate."""
    prefix = f"O{os.getpid()}{int(rate)}"
    fleet = await Fleet.connect(system.edges, count, TransactionEvents, "ocpp2.0.1", prefix=prefix)
    await fleet.open_loop(rate, warm)
    row = await measure(name, system, fleet, lambda s: fleet.open_loop(rate, s), seconds)
    unanswered = await fleet.stop_loop()
    if unanswered:
        row.notes.append(f"{unanswered} never answered")
    fleet.close()
    await asyncio.sleep(0.5)
    return row


async def idle(system: System, count: int) -> Row:
    """Memory of idle sockets, from the edge's resident set before and after."""
    edge = next(members[0] for role, members in system.processes().items() if role.startswith("edge"))
    before = edge.memory_info().rss
    fleet = await Fleet.connect(system.edges, count, Heartbeats, "ocpp2.0.1", prefix=f"I{os.getpid()}", at_once=200)
    await asyncio.sleep(2)
    used = (edge.memory_info().rss - before) / count / 1024
    spent = edge.cpu_times().user + edge.cpu_times().system
    await asyncio.sleep(5)
    busy = (edge.cpu_times().user + edge.cpu_times().system - spent) / 5 * 100
    fleet.close()
    await asyncio.sleep(2)
    return Row("idle sockets", count, 0.0, (0, 0, 0), {}, [f"{used:.1f} KiB a socket, {busy:.1f} % of a core"])


async def storm(system: System, count: int, passwords: dict[str, str]) -> Row:
    """All stations connect with their passwords and boot at once."""
    before = cpu_seconds(system.processes())
    began = time.perf_counter()
    fleet = await Fleet.connect(
        system.edges, count, Heartbeats, "ocpp2.0.1", prefix="STORM", passwords=passwords, at_once=count,
        boot=frames.BOOT_201,
    )  # fmt: skip
    elapsed = time.perf_counter() - began
    after = cpu_seconds(system.processes())
    row = Row(
        "reconnect storm: password, boot",
        count,
        count / elapsed,
        quantiles(fleet.tally),
        {role: (after.get(role, 0) - spent) / count * 1e6 for role, spent in before.items()},
        [f"all booted after {elapsed:.2f} s"],
    )
    fleet.close()
    await asyncio.sleep(1)
    return row


async def register_storm(system: System, count: int) -> dict[str, str]:
    """Create the storm's stations with generated passwords, straight in the configuration table."""
    passwords = {f"STORM-{number:05d}": generate_password() for number in range(count)}
    connection = await asyncpg.connect(system.run.postgres.url)
    try:
        await connection.executemany(
            "INSERT INTO config.stations (station_id, password_hash) VALUES ($1, $2)"
            " ON CONFLICT (station_id) DO UPDATE SET password_hash = excluded.password_hash",
            [(name, hash_password(word, system.pepper, generated=True)) for name, word in passwords.items()],
        )
        await connection.execute(
            "INSERT INTO config.tokens (id_token, id_token_key, id_token_type, allow_concurrent)"
            " VALUES ('BENCH-TOKEN', 'bench-token', 'ISO14443', true) ON CONFLICT DO NOTHING"
        )
    finally:
        await connection.close()
    return passwords


@contextmanager
def stack(arguments: list[str]) -> Iterator[System]:
    """The whole system in a folder of its own, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="busbar-bench-") as folder:
        data = Path(folder) / "data"
        command = [sys.executable, "-m", "busbar", "up", "--plain", "--no-fleet", "--auto-register"]
        log = (Path(folder) / "up.log").open("wb")
        process = subprocess.Popen(  # noqa: S603
            [*command, "--data", str(data), *arguments], stdout=log, stderr=subprocess.STDOUT, cwd=ROOT
        )
        try:
            run_file = data / "run.json"
            deadline = time.monotonic() + 120
            while True:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise click.ClickException(
                        "the stack did not start:\n" + (Path(folder) / "up.log").read_text()[-3000:]
                    )
                try:
                    system = System.of(run_file)
                    break
                except (StackError, FileNotFoundError):
                    time.sleep(0.2)
            yield system
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def settings() -> list[str]:
    """Versions and the machine, for the head of the table."""
    packages = ("aiokafka", "asyncpg", "fastavro", "jsonschema-rs", "orjson", "uvloop", "websockets")
    return [
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, Linux {platform.release()}",
        ", ".join(f"{name} {version(name)}" for name in packages),
        "one Kafka node (acks=all, idempotent), PostgreSQL with fsync, client on the same machine",
    ]


ROLES = ("edge", "sessions", "stations", "router", "postgres", "kafka", "client")


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    roles = " / ".join(ROLES)
    lines = [
        f"| scenario | stations | messages/s | p50 / p95 / p99 ms | us per message: {roles} | sum but client |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in rows:
        quantile = " / ".join(f"{value:.1f}" for value in row.quantiles_ms)
        cpu = " / ".join(f"{row.cpu_us.get(role, 0):.0f}" for role in ROLES)
        total = sum(value for role, value in row.cpu_us.items() if role != "client")
        notes = ("; " + "; ".join(row.notes)) if row.notes else ""
        cells = (row.scenario + notes, f"{row.stations:,}", f"{row.rate:,.0f}", quantile, cpu, f"{total:.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


async def run_scenarios(
    system: System, names: tuple[str, ...], stations: int, seconds: float, warm: float
) -> list[Row]:
    """Run what was asked for, in order, printing each row as it comes."""
    passwords = await register_storm(system, 5000 if "storm" in names else 1)

    def run(name: str) -> Awaitable[Row]:
        match name:
            case "heartbeats":
                return closed("heartbeats", system, stations, Heartbeats, "ocpp1.6", seconds, warm)
            case "events":
                return closed("TransactionEvent 2.0.1", system, stations, TransactionEvents, "ocpp2.0.1", seconds, warm)
            case "events-5000":
                return closed("TransactionEvent 2.0.1", system, 5000, TransactionEvents, "ocpp2.0.1", seconds, warm)
            case "mix":
                return closed("1.6 mix", system, stations, Mix16, "ocpp1.6", seconds, warm)
            case "latency-1000" | "latency-2000" | "latency-500" | "latency-200":
                rate = float(name.partition("-")[2])
                return opened(f"TransactionEvent open loop {rate:.0f}/s", system, stations, rate, seconds, warm)
            case "idle":
                return idle(system, 19_500)
            case "storm":
                return storm(system, 5000, passwords)
        raise click.BadParameter(f"no scenario {name!r}")

    rows = []
    for name in names:
        row = await run(name)
        rows.append(row)
        print(table([row]).splitlines()[-1], flush=True)
    return rows


SCENARIOS = ("heartbeats", "events", "events-5000", "mix", "latency-1000", "latency-2000", "storm", "idle")


@click.command()
@click.option("--scenario", "names", multiple=True, help=f"One of {', '.join(SCENARIOS)}; all by default.")
@click.option("--stations", default=1000, show_default=True, help="Stations of the closed loops.")
@click.option("--seconds", default=8.0, show_default=True, help="Measured time of each.")
@click.option("--warm", default=6.0, show_default=True, help="Warm-up before each.")
@click.option("--edges", default=1, show_default=True)
@click.option("--sessions", default=1, show_default=True)
@click.option("--quick", is_flag=True, help="Heartbeats, events and a latency, short.")
@click.option("--run-file", type=click.Path(exists=True), help="Measure a stack that runs already.")
@click.option("--write", type=click.Path(), help="Append the table to this Markdown file.")
def main(
    names: tuple[str, ...],
    stations: int,
    seconds: float,
    warm: float,
    edges: int,
    sessions: int,
    quick: bool,
    run_file: str | None,
    write: str | None,
) -> None:
    """Measure Busbar on this machine."""
    if quick:
        names, seconds, warm = (
            names or ("heartbeats", "events", "latency-1000"),
            min(seconds, 4),
            min(warm, 4),
        )
    names = names or SCENARIOS

    def go(system: System) -> list[Row]:
        return uvloop.run(run_scenarios(system, names, stations, seconds, warm))

    print("\n".join(settings()))
    print("\n".join(table([]).splitlines()))
    if run_file:
        rows = go(System.of(Path(run_file)))
    else:
        with stack(["--edges", str(edges), "--sessions", str(sessions)]) as system:
            rows = go(system)
    if write:
        with Path(write).open("a") as out:
            out.write("\n\n" + "\n".join(f"- {line}" for line in settings()) + "\n\n" + table(rows) + "\n")
    bad = [row.scenario for row in rows if any("STRAY" in note or "never" in note for note in row.notes)]
    if bad:
        raise SystemExit(f"wrong or missing replies in: {', '.join(bad)}")


if __name__ == "__main__":
    main()
