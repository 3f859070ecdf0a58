"""The whole system on one machine, from nothing to ready and back."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import os
import resource
import sys
import time
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

import busbar
from busbar.kafka_topics import TopicError
from busbar.local import fleet as demo
from busbar.local import secrets
from busbar.local.artifacts import Progress, ensure_kafka, pinned_kafka
from busbar.local.errors import StackError
from busbar.local.kafka import RUN, KafkaCluster
from busbar.local.postgres import PostgresServer, check_database
from busbar.local.process import Process
from busbar.local.runfile import RunFile, Server
from busbar.local.services import Instance, entry, instances
from busbar.local.supervisor import KafkaChild, PostgresChild, Rank, Say, ServiceChild, Supervisor
from busbar.postgres import migrate
from busbar.topics import create_topics

READY_SECONDS = 120.0
_OPEN_FILES = 65_536
_SAMPLE_SECONDS = 15
"""Between two meter values of a demo station: more often than in the field, for there is somebody watching."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `busbar up` was asked for."""

    folder: Path
    """Data, logs, secrets and `run.json`."""
    processes: dict[str, int] = field(default_factory=dict)
    """How many processes of each service; 1 unless given."""
    fleet: int = 50
    """Stations of the demo fleet; 0: no fleet."""
    seed: int = 1
    speed: float = 1.0
    """How fast the fleet's clock runs."""
    auto_register: bool = False
    """Whether stations that nobody has registered may connect."""
    kafka_nodes: int = 1
    """Of the embedded Kafka: 1, or 3 with every record on all three, two of which must have it."""
    kafka_detours: tuple[str, ...] = ()
    """For tests: see `KafkaCluster`."""
    kafka_bootstrap_servers: str | None = None
    """Use this Kafka instead of the embedded one."""
    database_url: str | None = None
    """Use this PostgreSQL instead of the embedded one."""
    partitions: str = "local"


class Stack:
    """Kafka, PostgreSQL, every service and the fleet.

    Args:
        say: Told one line about each step.
        progress: Told about the download of the broker, if there is one.
    """

    def __init__(self, options: Options, say: Say, progress: Progress | None = None) -> None:
        self.options = options
        self.folder = options.folder.absolute()
        self.logs = self.folder / "logs"
        self.run_file_path = self.folder / "run.json"
        self.supervisor = Supervisor(say, changed=self.write_run_file)
        self._say = say
        self._progress = progress
        self._lock: TextIO | None = None
        self.kafka: KafkaCluster | None = None
        """The embedded one, once it has been started."""
        self.postgres: PostgresServer | None = None
        """The embedded one, once it has been started."""
        self._replication_factor = 1
        self._services: list[tuple[Instance, ServiceChild]] = []
        self._simulator: ServiceChild | None = None
        self._started_at = datetime.now(UTC)

    async def start(self) -> None:
        """Start everything; returns when every service is ready.

        Raises:
            StackError: Something does not work, in one line with the remedy. Call `stop` all the same.
        """
        self._take_lock()
        raise_open_files()
        pepper = secrets.ensure_pepper(self.folder / "pepper")
        key = secrets.ensure_admin_key(self.folder / "admin.key")
        await _both(self._try_given_kafka(), self._try_given_postgres())
        if self.options.kafka_bootstrap_servers is None:
            await asyncio.to_thread(ensure_kafka, self._progress)
        begin = time.monotonic()
        await _both(self._start_kafka(), self._start_postgres())
        await _both(self._create_topics(), self._prepare_database(key, pepper))
        await self._start_services(pepper)
        self.write_run_file()
        if self.options.fleet:
            self._simulator = self._make_simulator()
            await self.supervisor.start([self._simulator])
            self.write_run_file()
        self._say(f"ready after {time.monotonic() - begin:.1f} s")

    async def run(self, stop: asyncio.Event) -> None:
        """Keep everything running until `stop` is set."""
        await self.supervisor.run(stop)

    async def stop(self) -> None:
        """Stop everything in order, and give the folder free."""
        await self.supervisor.stop()
        if self._lock is not None:  # else the folder is another stack's
            self.run_file_path.unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    @property
    def bootstrap_servers(self) -> str:
        """Of the Kafka in use."""
        if self.kafka is not None:
            return self.kafka.bootstrap_servers
        return self.options.kafka_bootstrap_servers or ""

    @property
    def database_url(self) -> str:
        """Of the PostgreSQL in use."""
        if self.postgres is not None:
            return self.postgres.url
        return self.options.database_url or ""

    def run_file(self) -> RunFile:
        """What runs at this moment."""
        nodes = [] if self.kafka is None else [node.process for node in self.kafka.nodes.values()]
        postgres = [] if self.postgres is None else [self.postgres.process]
        api = next(instance for instance, _ in self._services if instance.service == "api")
        services = [entry(instance.service, child) for instance, child in self._services]
        if self._simulator is not None:
            services.append(entry("simulator", self._simulator))
        return RunFile(
            busbar=busbar.__version__,
            pid=os.getpid(),
            started_at=self._started_at.isoformat(timespec="seconds"),
            logs=str(self.logs),
            kafka=Server(self.bootstrap_servers, self.kafka is not None, _pids(nodes)),
            postgres=Server(self.database_url, self.postgres is not None, _pids(postgres)),
            api_url=f"http://127.0.0.1:{api.listen_port}",
            admin_key_path=str(self.folder / "admin.key"),
            fleet_path=str(self.folder / "fleet.json") if self.options.fleet else None,
            edges=tuple(instance.edge() for instance, _ in self._services if instance.service == "edge"),
            services=tuple(services),
        )

    def write_run_file(self) -> None:
        """Write `run.json` anew, with the process ids of now."""
        if self._services:
            self.run_file().write(self.run_file_path)

    def _take_lock(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = open(self.folder / "lock", "a+")  # noqa: SIM115 - held until the stack stops
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip()
            lock.close()
            raise StackError(
                f"busbar already runs in {self.options.folder} (process {owner or 'unknown'}): stop it there first"
                f" (`kill {owner or 'PID'}`), or use another folder with --data"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    async def _try_given_kafka(self) -> None:
        servers = self.options.kafka_bootstrap_servers
        if servers is not None:
            self._replication_factor = min(3, await check_kafka(servers))
            self._say(f"Kafka at {servers} (KAFKA_BOOTSTRAP_SERVERS)")

    async def _try_given_postgres(self) -> None:
        url = self.options.database_url
        if url is not None:
            self._say(f"PostgreSQL {await check_database(url)} (DATABASE_URL)")

    async def _start_kafka(self) -> None:
        if self.options.kafka_bootstrap_servers is not None:
            return
        begin = time.monotonic()
        cluster = KafkaCluster(
            self.folder / "kafka",
            nodes=self.options.kafka_nodes,
            profile=RUN,
            preferred_port=9092,
            log_folder=self.logs,
            detours=self.options.kafka_detours,
            progress=self._progress,
        )
        self.kafka = cluster
        self._replication_factor = len(cluster.nodes)
        try:
            await cluster.start()
        finally:
            for node_id in cluster.nodes:
                self.supervisor.watch(KafkaChild(cluster, node_id))
        took = time.monotonic() - begin
        self._say(f"Kafka {pinned_kafka().version} at {cluster.bootstrap_servers} on {cluster.java}, {took:.1f} s")

    async def _start_postgres(self) -> None:
        if self.options.database_url is not None:
            return
        begin = time.monotonic()
        folder = self.folder / "postgres"
        server = PostgresServer(folder, preferred_port=5432, log_path=self.logs / "postgres.log")
        self.postgres = server
        try:
            await server.start()
        finally:
            self.supervisor.watch(PostgresChild(server))
        version = await check_database(server.url)
        took = time.monotonic() - begin
        self._say(f"PostgreSQL {version} at 127.0.0.1:{server.port}, {server.where}, {took:.1f} s")

    async def _create_topics(self) -> None:
        try:
            await create_topics(
                self.bootstrap_servers, self.options.partitions, replication_factor=self._replication_factor
            )
        except (TopicError, TimeoutError) as error:
            why = str(error) or "Kafka did not take them in time"
            raise StackError(f"the topics cannot be made: {why}; see {self.logs}") from error

    async def _prepare_database(self, key: str, pepper: bytes) -> None:
        await migrate(self.database_url)
        connection = await asyncpg.connect(self.database_url)
        try:
            await secrets.register_admin_key(key, connection)
            if self.options.fleet:
                stations = demo.ensure_fleet(self.folder / "fleet.json", self.options.fleet)
                await demo.register(stations, connection, pepper)
        finally:
            await connection.close()

    async def _start_services(self, pepper: bytes) -> None:
        common = self._environment(pepper)
        for instance in instances(self.options.processes):
            settings = {**common, **await self.settings_of(instance)}
            self._services.append((instance, instance.child(settings, self.logs)))
        await self.supervisor.start(child for _, child in self._services)
        counts = {instance.service: 0 for instance, _ in self._services}
        for instance, _ in self._services:
            counts[instance.service] += 1
        self._say("services: " + ", ".join(f"{count} {service}" for service, count in counts.items()))
        stop = asyncio.Event()
        watching = asyncio.create_task(self.supervisor.run(stop))
        ready = asyncio.create_task(self.supervisor.wait_ready(READY_SECONDS))
        try:
            await asyncio.wait((watching, ready), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.set()
            if not ready.done():
                ready.cancel()
            results = await asyncio.gather(watching, ready, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def settings_of(self, instance: Instance) -> Mapping[str, str]:
        """Settings of one process beside those that all have. Tests put theirs here, in a subclass."""
        return {}

    def _environment(self, pepper: bytes) -> dict[str, str]:
        root = str(Path(busbar.__file__).resolve().parent.parent)
        paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        return {
            "BUSBAR_EDGE_DRAIN_SECONDS": "2",  # people who press Ctrl-C do not want to wait
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "DATABASE_URL": self.database_url,
            "BUSBAR_PARTITIONS": self.options.partitions,
            "BUSBAR_PASSWORD_PEPPER": base64.b64encode(pepper).decode(),
            "BUSBAR_AUTO_REGISTER": "true" if self.options.auto_register else "false",
            "PYTHONPATH": os.pathsep.join(paths),
        }

    def _make_simulator(self) -> ServiceChild:
        command = [sys.executable, "-m", "busbar", "simulate", "--run-file", str(self.run_file_path)]
        command += ["--stations", str(self.options.fleet), "--seed", str(self.options.seed)]
        command += ["--speed", str(self.options.speed), "--sample-interval", str(_SAMPLE_SECONDS)]
        return ServiceChild("simulator", command, rank=Rank.SIMULATOR, log_path=self.logs / "simulator.log")


async def check_kafka(bootstrap_servers: str, timeout_seconds: float = 10.0) -> int:
    """Find out whether a cluster that somebody else runs answers, and how many brokers it has.

    Raises:
        StackError: It does not.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=5000)
    try:
        async with asyncio.timeout(timeout_seconds):
            await admin.start()
            return len((await admin.describe_cluster())["brokers"])
    except (KafkaError, OSError, TimeoutError, ValueError) as error:
        raise StackError(
            f"KAFKA_BOOTSTRAP_SERVERS: no broker answers at {bootstrap_servers} ({type(error).__name__}): is it"
            " there? Unset the variable to use the embedded one"
        ) from error
    finally:
        await admin.close()


def raise_open_files() -> None:
    """Let this process and its children open as many files as the machine allows: a station is a socket."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _pids(processes: Iterable[Process | None]) -> tuple[int | None, ...]:
    return tuple(None if process is None else process.pid for process in processes)


async def _both(first: Coroutine[Any, Any, None], second: Coroutine[Any, Any, None]) -> None:
    """Run both at once; if one fails, let the other come to its end before its error is raised."""
    results = await asyncio.gather(first, second, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
