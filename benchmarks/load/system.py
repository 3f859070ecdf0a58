"""The system under measurement: started for a run and gone afterwards, with the kernel's accounts of its processes."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import psutil

from busbar.local.clean import clean
from busbar.local.errors import StackError
from busbar.local.figures import Scrape
from busbar.local.ports import free_port
from busbar.local.process import Process
from busbar.local.runfile import RunFile
from busbar.passwords import generate_password, hash_password

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 120.0
SETTLE_SECONDS = 20.0
"""At most, after a load has gone."""
_QUIET_CORES = 0.4


@dataclass(frozen=True, slots=True)
class Shape:
    """How many processes of what the system has; one of everything else."""

    edges: int = 1
    sessions: int = 1
    lot: str = ""
    """Scenarios of one lot share a system. Others get one that has not done their work before."""

    def __str__(self) -> str:
        lot = f", for {self.lot}" if self.lot else ""
        return f"{self.edges} edge{'s' * (self.edges > 1)}, {self.sessions} sessions{lot}"


@dataclass(frozen=True, slots=True)
class Accounts:
    """What has been used so far."""

    cpu_seconds: dict[str, float]
    """User and system, by role."""
    machine: dict[str, float]
    """Of all cores: `busy`, `stolen` and `all` seconds."""

    def since(self, before: Accounts) -> dict[str, float]:
        """CPU seconds by role since then."""
        return {role: spent - before.cpu_seconds.get(role, 0.0) for role, spent in self.cpu_seconds.items()}

    def busy(self, before: Accounts) -> float:
        """The share of the machine that was busy since then, by whomever."""
        return self._share(before, "busy")

    def stolen(self, before: Accounts) -> float:
        """The share of the machine's time that its host gave to others."""
        return self._share(before, "stolen")

    def _share(self, before: Accounts, what: str) -> float:
        return (self.machine[what] - before.machine[what]) / max(1e-9, self.machine["all"] - before.machine["all"])


@dataclass(slots=True)
class System:
    """A running stack, as its run file describes it."""

    run_file: Path
    run: RunFile
    pepper: bytes
    extra: dict[str, list[int]] = field(default_factory=dict)
    """Further processes by role, which the run started itself."""
    _processes: dict[str, list[psutil.Process]] = field(default_factory=dict)

    @classmethod
    def of(cls, run_file: Path) -> System:
        """Raises `StackError` if it does not run."""
        system = cls(run_file, RunFile.read(run_file), base64.b64decode((run_file.parent / "pepper").read_text()))
        system.look()
        return system

    @property
    def edges(self) -> list[str]:
        """`HOST:PORT` of each."""
        return [urlsplit(edge.url).netloc for edge in self.run.edges]

    def pids(self, service: str) -> list[int]:
        """The process ids of a service at this moment."""
        self.look()
        return [entry.pid for entry in self.run.services if entry.service == service and entry.pid is not None]

    def look(self) -> None:
        """Read the run file again, and find all processes; PostgreSQL's many count as one."""
        self.run = RunFile.read(self.run_file)
        pids = [("kafka", pid) for pid in self.run.kafka.pids] + [("postgres", pid) for pid in self.run.postgres.pids]
        pids += [(entry.service, entry.pid) for entry in self.run.services]
        pids += [(role, pid) for role, extra in self.extra.items() for pid in extra]
        found: dict[str, list[psutil.Process]] = {"client": [psutil.Process()]}
        for role, pid in pids:
            if pid is None:
                continue
            try:
                process = psutil.Process(pid)
                found.setdefault(role, []).extend([process, *process.children(recursive=True)])
            except psutil.NoSuchProcess:
                continue  # it was killed and comes back
        self._processes = found

    def accounts(self) -> Accounts:
        """The accounts of now. Processes that are new since `look` are not in them."""
        totals = {}
        for role, members in self._processes.items():
            total = 0.0
            for process in members:
                try:
                    times = process.cpu_times()
                except psutil.NoSuchProcess:
                    continue
                total += times.user + times.system
                if role != "client":  # children that have come and gone, such as PostgreSQL's
                    total += times.children_user + times.children_system
            totals[role] = total
        cpu = psutil.cpu_times()
        everything = sum(cpu) - getattr(cpu, "guest", 0.0) - getattr(cpu, "guest_nice", 0.0)
        idle, stolen = cpu.idle + getattr(cpu, "iowait", 0.0), getattr(cpu, "steal", 0.0)
        return Accounts(totals, {"busy": everything - idle - stolen, "stolen": stolen, "all": everything})

    def memory_bytes(self, role: str) -> int:
        """The resident sets of a role's processes."""
        return sum(process.memory_info().rss for process in self._processes[role])

    async def settle(self) -> None:
        """Wait until what a load has left behind is done, so that it is not counted in what comes next."""
        self.look()
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            before = self.accounts()
            await asyncio.sleep(0.5)
            if sum(self.accounts().since(before).values()) < _QUIET_CORES * 0.5:
                return

    async def scrape(self, service: str) -> Scrape:
        """The metrics of a service's processes, added up."""
        scrape = Scrape()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http:
            for entry in self.run.services:
                if entry.service == service and entry.metrics_url is not None:
                    async with http.get(entry.metrics_url) as response:
                        scrape.add(await response.text())
        return scrape

    @asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """A connection to its PostgreSQL."""
        connection = await asyncpg.connect(self.run.postgres.url)
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def further_edge(self, **settings: str) -> AsyncIterator[str]:
        """One more edge, with settings of its own; yields its `HOST:PORT`."""
        listen, health = free_port(), free_port()
        environment = {
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": self.run.kafka.url,
            "DATABASE_URL": self.run.postgres.url,
            "BUSBAR_PASSWORD_PEPPER": base64.b64encode(self.pepper).decode(),
            "BUSBAR_AUTO_REGISTER": "true",
            "BUSBAR_EDGE_ID": "edge-15",
            "BUSBAR_EDGE_PARTITION": "15",
            "BUSBAR_EDGE_LISTEN": f"127.0.0.1:{listen}",
            "BUSBAR_EDGE_DRAIN_SECONDS": "0",
            "BUSBAR_HEALTH_ADDRESS": f"127.0.0.1:{health}",
            "PYTHONPATH": str(ROOT),
            **settings,
        }
        log = Path(self.run.logs) / "edge-15.log"
        process = Process("edge-15", [sys.executable, "-m", "services.edge"], log_path=log, environment=environment)
        process.start()
        try:
            await _ready(process, f"http://127.0.0.1:{health}/readyz")
            yield f"127.0.0.1:{listen}"
        finally:
            await process.stop()

    async def prepare(self, storm: int) -> dict[str, str]:
        """Make what the scenarios need, straight in the configuration: a token, and stations with passwords."""
        passwords = await self.register(f"STORM-{number:05d}" for number in range(storm))
        async with self.database() as connection:
            await connection.execute(
                "INSERT INTO config.tokens (id_token, id_token_key, id_token_type, allow_concurrent)"
                " VALUES ('BENCH-TOKEN', 'bench-token', 'ISO14443', true) ON CONFLICT DO NOTHING"
            )
        return passwords

    async def register(self, names: Iterable[str], site_id: str | None = None) -> dict[str, str]:
        """Put stations into the configuration, if they are not there; returns their new passwords."""
        passwords = {name: generate_password() for name in names}
        hashes = [hash_password(word, self.pepper, generated=True) for word in passwords.values()]
        async with self.database() as connection:
            await connection.executemany(
                "INSERT INTO config.stations (station_id, password_hash, site_id) VALUES ($1, $2, $3)"
                " ON CONFLICT (station_id) DO UPDATE SET password_hash = excluded.password_hash",
                [(name, hashed, site_id) for name, hashed in zip(passwords, hashes, strict=True)],
            )
        return passwords


@asynccontextmanager
async def stack(shape: Shape) -> AsyncIterator[System]:
    """The whole system in a folder of its own, gone afterwards.

    Raises:
        StackError: It does not start.
    """
    with tempfile.TemporaryDirectory(prefix="busbar-bench-", ignore_cleanup_errors=True) as folder:
        data, log = Path(folder) / "data", Path(folder) / "up.log"
        command = [sys.executable, "-m", "busbar", "up", "--plain", "--no-fleet", "--auto-register"]
        command += ["--data", str(data), "--edges", str(shape.edges), "--sessions", str(shape.sessions)]
        process = Process("busbar up", command, log_path=log, folder=ROOT)
        process.start()
        try:
            deadline = time.monotonic() + START_SECONDS
            while True:
                try:
                    system = System.of(data / "run.json")
                    break
                except (StackError, FileNotFoundError):
                    if not process.running or time.monotonic() > deadline:
                        raise StackError(f"the stack did not start:\n{process.log_tail(15)}") from None
                    await asyncio.sleep(0.2)
            yield system
        finally:
            await asyncio.shield(process.stop(grace_seconds=40.0))
            if data.exists():
                clean(data)


async def _ready(process: Process, url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as http:
        while True:
            try:
                async with http.get(url) as response:
                    if response.status == 200:
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass
            if not process.running or time.monotonic() > deadline:
                raise StackError(f"{process.name} is not ready:\n{process.log_tail(15)}")
            await asyncio.sleep(0.1)
