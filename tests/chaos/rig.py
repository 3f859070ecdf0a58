"""Runs the whole system, drives it with a fleet, and does to it what a plan says."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from busbar.local.runfile import RunFile
from busbar.local.services import Instance
from busbar.local.stack import Options, Stack
from busbar.local.supervisor import BackOff
from tests.chaos.fleet import Fleet
from tests.chaos.ledger import Ledger, Ordeal, Sockets
from tests.chaos.plan import LEASE_SECONDS, PROCESSORS, Fault
from tests.chaos.proxy import Line

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGTERM}
_BUSY_TOPICS = ("ocpp.v16.MeterValues", "ocpp.v201.TransactionEvent", "ocpp.v21.TransactionEvent", "csms.outbound")
"""Of which some partition's leader is killed."""
WH_PRICE = 0.01
_DATABASE_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class ProxiedStack(Stack):
    """A stack whose services reach Kafka and PostgreSQL through lines that can be cut, one for each pair."""

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        super().__init__(options, say)
        self.lines: dict[tuple[str, str], Line] = {}
        """By the process and what it connects to: `postgres`, or `node-1` and so on of Kafka."""

    async def settings_of(self, instance: Instance) -> Mapping[str, str]:
        assert self.kafka is not None
        assert self.postgres is not None
        database = await self._line(instance.name, "postgres", self.postgres.port)
        servers = []
        for number, node in self.kafka.nodes.items():
            detour = node.detours[_listener(instance.name)]
            line = await self._line(instance.name, f"node-{number}", detour.port, detour.advertised_port)
            servers.append(f"127.0.0.1:{line.port}")
        url = self.postgres.url.replace(f":{self.postgres.port}/", f":{database.port}/")
        return {
            "DATABASE_URL": url,
            "KAFKA_BOOTSTRAP_SERVERS": ",".join(servers),
            "BUSBAR_LEASE_SECONDS": str(LEASE_SECONDS),
            "BUSBAR_BILLING_PUSH_TARIFFS": "false",  # the stations know nothing of tariffs
        }

    async def _line(self, party: str, to: str, target_port: int, port: int = 0) -> Line:
        line = self.lines[party, to] = Line(f"{party} to {to}", target_port)
        await line.open(port)
        return line


def _listener(process: str) -> str:
    return process.upper().replace("-", "")


@dataclass(slots=True)
class Rig:
    """A running system and what has been done to it."""

    stack: ProxiedStack
    said: list[str] = field(default_factory=list)
    """What the supervisor told: crashes and restarts."""
    done: list[Fault] = field(default_factory=list)
    take_overs: list[float] = field(default_factory=list)
    """Seconds from the end of a processor until others owned all of its partitions."""
    _paused: set[int] = field(default_factory=set)
    _lasting: set[asyncio.Task[None]] = field(default_factory=set)

    def run_file(self) -> RunFile:
        """Process ids and addresses of this moment."""
        return self.stack.run_file()

    def edges(self) -> dict[str, str]:
        """Where stations connect: URLs by the edge's name."""
        ports = {edge.id: self.stack.lines["fleet", edge.id].port for edge in self.run_file().edges}
        return {name: f"ws://127.0.0.1:{port}/ocpp" for name, port in ports.items()}

    async def open_lines_of_fleet(self) -> None:
        """Put a line in front of each edge."""
        for edge in self.run_file().edges:
            target_port = int(edge.url.rpartition(":")[2].partition("/")[0])
            line = self.stack.lines["fleet", edge.id] = Line(f"fleet to {edge.id}", target_port)
            await line.open()

    async def configure(self) -> None:
        """Make the fleet's token known, and have every session cost a cent for each watt hour."""
        run = self.run_file()
        component = {"type": "ENERGY", "price": WH_PRICE * 1000, "step_size": 1}
        tariff = {"id": "chaos", "currency": "EUR", "elements": [{"price_components": [component]}]}
        tariff |= {"country_code": "DE", "party_id": "BUS", "last_updated": "2026-01-01T00:00:00Z"}
        headers = {"Authorization": f"Bearer {run.admin_key}"}
        async with aiohttp.ClientSession(run.api_url, headers=headers, raise_for_status=True) as session:
            await session.post("/v1/tokens", json={"id_token": "CHAOS", "allow_concurrent": True})
            await session.post("/v1/tariffs", json=tariff)
            await session.post("/v1/tariff-assignments", json={"tariff_id": "chaos", "scope": "default"})
        await asyncio.sleep(8)  # services look for other tariffs every five seconds

    async def carry_out(self, plan: list[Fault], report: Callable[[str], None] = print) -> None:
        """Do what the plan says, each fault at its time; what lasts overlaps with what follows."""
        began = time.monotonic()
        for fault in plan:
            await asyncio.sleep(max(0.0, fault.at_seconds - (time.monotonic() - began)))
            if await self._do(fault):
                report(str(fault))
                self.done.append(fault)
        await asyncio.gather(*self._lasting)

    async def _do(self, fault: Fault) -> bool:
        """Begin a fault; `False` if its victim is down already."""
        if fault.kind in ("cut", "hole"):
            lines = self._lines(fault)
            if fault.kind == "hole":
                self._last(self._hole(lines, fault.seconds))
            for line in lines if fault.kind == "cut" else ():
                line.cut()
            return bool(lines)
        pid = await self._pid(fault)
        if pid is None or pid in self._paused:
            return False
        if fault.kind == "pause":
            self._last(self._pause(pid, fault.seconds))
            return True
        owned = await self._owned_by(pid) if fault.role in PROCESSORS else []
        _signal(pid, signal.SIGINT if (fault.kind, fault.role) == ("stop", "postgres") else _SIGNALS[fault.kind])
        if owned:
            self._last(self._time_take_over(pid, owned))
        return True

    async def _pid(self, fault: Fault) -> int | None:
        """The process id of one process of a role, if one runs."""
        run = self.run_file()
        match fault.role:
            case "kafka":
                pids = list(run.kafka.pids)
            case "leader" if None in run.kafka.pids or self._paused.intersection(run.kafka.pids):
                return None  # some node is down already: two must remain
            case "leader":
                pids = [run.kafka.pids[await self._leader(fault.pick) - 1]]
            case "postgres":
                pids = list(run.postgres.pids)
            case role:
                pids = [entry.pid for entry in run.services if entry.service == role]
        running = [pid for pid in pids if pid is not None]
        return running[fault.pick % len(running)] if running else None

    async def _leader(self, pick: int) -> int:
        """The node that leads one of the busy partitions; the first one if Kafka does not tell."""
        topic = _BUSY_TOPICS[pick % len(_BUSY_TOPICS)]
        consumer = AIOKafkaConsumer(bootstrap_servers=self.stack.bootstrap_servers)
        try:
            async with asyncio.timeout(5):
                await consumer.start()
                await consumer._client.add_topic(topic)
                leader = consumer._client.cluster.leader_for_partition(TopicPartition(topic, pick % 2))
            return leader if leader in self._nodes() else 1
        except (KafkaError, OSError, TimeoutError):
            return 1
        finally:
            await consumer.stop()

    def _nodes(self) -> list[int]:
        assert self.stack.kafka is not None
        return list(self.stack.kafka.nodes)

    def _lines(self, fault: Fault) -> list[Line]:
        """The lines that a fault is about."""
        if fault.role == "fleet":
            edges = sorted(self.edges())
            return [self.stack.lines["fleet", edges[fault.pick % len(edges)]]]
        names = sorted({party for party, _ in self.stack.lines if party.rpartition("-")[0] == fault.role})
        party = names[fault.pick % len(names)]
        nodes = [f"node-{number}" for number in self._nodes()]
        to = {"postgres": ["postgres"], "kafka": nodes, "node": [nodes[fault.pick % len(nodes)]]}[fault.to]
        return [self.stack.lines[party, other] for other in to]

    # What lasts

    def _last(self, work: Coroutine[Any, Any, None]) -> None:
        self._lasting.add(asyncio.create_task(work))

    async def _hole(self, lines: list[Line], seconds: float) -> None:
        async with AsyncExitStack() as holes:
            for line in lines:
                await holes.enter_async_context(line.hole())
            await asyncio.sleep(seconds)

    async def _pause(self, pid: int, seconds: float) -> None:
        """Stop a process with all of its children, which is what PostgreSQL consists of."""
        pids = [pid, *_children(pid)]
        self._paused.update(pids)
        for each in pids:
            _signal(each, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            for each in pids:
                _signal(each, signal.SIGCONT)
            self._paused.difference_update(pids)

    async def _owned_by(self, pid: int) -> list[tuple[str, int]]:
        """The groups and partitions of a processor; none if the database cannot tell at the moment."""
        query = "SELECT group_name, partition FROM stream.progress WHERE owner LIKE $1"
        try:
            connection = await asyncpg.connect(self.stack.database_url, timeout=1)
            try:
                return [tuple(row) for row in await connection.fetch(query, f"%-{pid}-%", timeout=1)]
            finally:
                connection.terminate()
        except _DATABASE_ERRORS:
            return []

    async def _time_take_over(self, pid: int, owned: list[tuple[str, int]]) -> None:
        """Measure for how long nobody works on these partitions of a processor that has just ended.

        Each counts as taken over when another has held it once; that one may have been killed by now.
        """
        query = """
        SELECT group_name, partition FROM stream.progress JOIN unnest($2::text[], $3::int[]) AS o (g, p)
        ON group_name = g AND partition = p
        WHERE owner IS NULL OR owner LIKE $1 OR lease_until < clock_timestamp()
        """
        began = time.monotonic()
        try:
            connection = await asyncpg.connect(self.stack.database_url, timeout=2)
            try:
                while owned:
                    await asyncio.sleep(0.1)
                    groups, partitions = [group for group, _ in owned], [partition for _, partition in owned]
                    rows = await connection.fetch(query, f"%-{pid}-%", groups, partitions, timeout=5)
                    owned = [tuple(row) for row in rows]
                self.take_overs.append(time.monotonic() - began)
            finally:
                connection.terminate()
        except _DATABASE_ERRORS:
            return  # the database went down as well: what would be measured is that


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it had ended by itself, which the supervisor reports


def _children(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@asynccontextmanager
async def running_rig(folder: Path, *, edges: int = 2, workers: int = 2, kafka_nodes: int = 1) -> AsyncIterator[Rig]:
    """The whole system with short leases and an impatient supervisor; stopped afterwards.

    Args:
        workers: Processes of each processor.
    """
    said: list[str] = []
    processes = {"edge": edges, **dict.fromkeys(PROCESSORS, workers), "api": 1}
    options = Options(
        folder=folder,
        processes=processes,
        fleet=0,
        auto_register=True,
        kafka_nodes=kafka_nodes,
        kafka_detours=tuple(
            _listener(f"{service}-{number}") for service, count in processes.items() for number in range(count)
        ),
    )
    stack = ProxiedStack(options, said.append)
    stack.supervisor.back_off = BackOff(first_seconds=0.3, longest_seconds=1.0)
    rig = Rig(stack, said)
    stop = asyncio.Event()
    watching: asyncio.Task[None] | None = None
    try:
        await stack.start()
        await rig.open_lines_of_fleet()
        await rig.configure()
        watching = asyncio.create_task(stack.run(stop))
        yield rig
    finally:
        stop.set()
        if watching is not None:
            await watching
        await stack.stop()
        for line in stack.lines.values():
            await line.close()


async def command_stations(rig: Rig, ledger: Ledger, mean_interval_seconds: float) -> None:
    """Send commands through the API for ever; those that it has taken are in the ledger."""
    source = random.Random("commands")
    headers = {"Authorization": f"Bearer {rig.run_file().admin_key}"}
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        while True:
            await asyncio.sleep(source.expovariate(1 / mean_interval_seconds))
            if not ledger.facts:
                continue
            station_id = source.choice(ledger.facts).station_id
            url = f"{rig.run_file().api_url}/v1/stations/{station_id}/commands/ClearCache?wait=0"
            try:
                async with session.post(url, json={}) as response:
                    if response.status in (200, 202):
                        ledger.accepted_commands[(await response.json())["command_id"]] = station_id
            except (aiohttp.ClientError, TimeoutError):
                continue  # the API is down: it has promised nothing


async def count_sockets(rig: Rig, fleet: Fleet, deadline_seconds: float = 45.0) -> Sockets:
    """What fleet, edges and router say, as soon as they agree, or when the deadline has passed."""
    deadline = time.monotonic() + deadline_seconds
    urls = {entry.name: entry.metrics_url for entry in rig.run_file().services if entry.service == "edge"}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as session:
        while True:
            online = await _online(rig.stack.database_url)
            counts = {name: await _sockets_of(session, url or "") for name, url in urls.items()}
            sockets = Sockets(fleet.sockets(), counts, online)
            if sockets.agree or time.monotonic() > deadline:
                return sockets
            await asyncio.sleep(0.5)


async def _sockets_of(session: aiohttp.ClientSession, metrics_url: str) -> int:
    try:
        async with session.get(metrics_url) as response:
            lines = (await response.text()).splitlines()
    except (aiohttp.ClientError, TimeoutError):
        return -1
    names = ("csms_edge_connections{", "csms_edge_handshaking_sockets ")
    return int(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(names)))


async def _online(database_url: str) -> dict[str, str]:
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch("SELECT station_id, edge FROM router.connections WHERE online")
    finally:
        await connection.close()
    return {row["station_id"]: row["edge"] for row in rows}


async def ordeal(
    rig: Rig, plan: list[Fault], *, seed: int, stations: int, transactions: int, pace: float, patience_seconds: float
) -> Ordeal:
    """Run the fleet while the plan is carried out, and then to its end.

    Raises:
        TimeoutError: A station is stuck: some fact has not been acknowledged long after the last fault.
    """
    ledger = Ledger()
    fleet = Fleet(rig.edges, ledger, seed=seed, stations=stations, pace=pace)
    commander = asyncio.create_task(command_stations(rig, ledger, mean_interval_seconds=pace / 2))
    try:
        async with asyncio.TaskGroup() as group:
            trouble = group.create_task(rig.carry_out(plan))
            life = group.create_task(fleet.live(transactions, trouble.done))
            await trouble
            async with asyncio.timeout(patience_seconds):
                await life
                await fleet.probe()
        connected = await count_sockets(rig, fleet)
    finally:
        commander.cancel()
        await fleet.leave()
    return Ordeal(ledger, connected, await count_sockets(rig, fleet))
