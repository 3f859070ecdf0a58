"""Keeps child processes running: restarts what crashes, with back-off, and stops everything in order."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Protocol

import aiohttp

from busbar.local.errors import StackError
from busbar.local.kafka import KafkaCluster
from busbar.local.postgres import PostgresServer
from busbar.local.process import Process

Say = Callable[[str], None]
"""Tells the person at the terminal one line."""

EX_CONFIG = 78
"""A service's exit code for settings that it cannot use: a restart would not help."""


class Rank(IntEnum):
    """The order of stopping: who asks stops before who answers."""

    SIMULATOR = 0
    API = 1
    EDGE = 2
    PROCESSOR = 3
    KAFKA = 4
    POSTGRES = 5


class Child(Protocol):
    """Something that runs until it is stopped."""

    name: str
    rank: Rank

    @property
    def process(self) -> Process | None:
        """The process of the current run."""

    async def start(self) -> None:
        """Start it, or start it again."""

    async def stop(self) -> None:
        """Stop it in an orderly way; returns when it is gone."""


class ServiceChild:
    """A process with `/readyz`, such as a service of Busbar.

    Args:
        name: Such as `edge-0`.
        health_url: Base URL of its health server; `None` if it has none.
        nice: See `Process`.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        rank: Rank,
        log_path: Path,
        environment: Mapping[str, str] | None = None,
        health_url: str | None = None,
        grace_seconds: float = 10.0,
        nice: int = 0,
    ) -> None:
        self.name = name
        self.rank = rank
        self.health_url = health_url
        self.process: Process = Process(name, command, log_path=log_path, environment=environment, nice=nice)
        self._grace_seconds = grace_seconds

    async def start(self) -> None:
        self.process.start()

    async def stop(self) -> None:
        await self.process.stop(signal.SIGTERM, self._grace_seconds)


class KafkaChild:
    """One node of the embedded cluster, once that has been started."""

    def __init__(self, cluster: KafkaCluster, node_id: int = 1) -> None:
        self.name = "kafka" if len(cluster.nodes) == 1 else f"kafka-{node_id}"
        self.rank = Rank.KAFKA
        self._cluster = cluster
        self._node_id = node_id

    @property
    def process(self) -> Process | None:
        return self._cluster.nodes[self._node_id].process

    async def start(self) -> None:
        if self.process is None or not self.process.running:
            await self._cluster.restart(self._node_id, wait=False)

    async def stop(self) -> None:
        await self._cluster.stop(self._node_id)


class PostgresChild:
    """The embedded database, once it has been started."""

    def __init__(self, server: PostgresServer) -> None:
        self.name = "postgres"
        self.rank = Rank.POSTGRES
        self._server = server

    @property
    def process(self) -> Process | None:
        return self._server.process

    async def start(self) -> None:
        if not self._server.running:
            await self._server.restart()

    async def stop(self) -> None:
        await self._server.stop()


@dataclass(frozen=True, slots=True)
class BackOff:
    """How long to wait before the n-th restart in a row."""

    first_seconds: float = 0.5
    longest_seconds: float = 30.0
    forgiven_after_seconds: float = 60.0
    """A child that ran this long starts again with the first wait."""

    def seconds(self, failures: int) -> float:
        """The wait after this many failures in a row, the first being 1."""
        return min(self.first_seconds * 2.0 ** min(failures - 1, 30), self.longest_seconds)


@dataclass(slots=True)
class _Watched:
    child: Child
    started_at: float
    failures: int = 0
    restarts: int = 0
    restart: asyncio.Task[None] | None = None
    """Waits out the back-off and starts the child again."""


@dataclass(slots=True)
class Supervisor:
    """Watches children.

    Args:
        say: Told of every crash and restart.
        changed: Called after a restart, when process ids have changed.
    """

    say: Say
    back_off: BackOff = field(default_factory=BackOff)
    changed: Callable[[], None] = lambda: None
    _watched: list[_Watched] = field(default_factory=list)

    @property
    def children(self) -> list[Child]:
        return [watched.child for watched in self._watched]

    @property
    def restarts(self) -> dict[str, int]:
        """How often each child has been started again."""
        return {watched.child.name: watched.restarts for watched in self._watched}

    def watch(self, child: Child) -> None:
        """Take over a child that runs already."""
        self._watched.append(_Watched(child, time.monotonic()))

    async def start(self, children: Iterable[Child]) -> None:
        """Start children and watch them."""
        for child in children:
            self.watch(child)
            await child.start()

    async def run(self, stop: asyncio.Event) -> None:
        """Restart what ends, until `stop` is set.

        Raises:
            StackError: A child cannot use its settings.
        """
        try:
            while not stop.is_set():
                for watched in self._watched:
                    self._look_after(watched)
                try:
                    await asyncio.wait_for(stop.wait(), 0.1)
                except TimeoutError:
                    continue
        finally:
            restarts = [watched.restart for watched in self._watched if watched.restart is not None]
            for restart in restarts:
                restart.cancel()
            await asyncio.gather(*restarts, return_exceptions=True)

    def _look_after(self, watched: _Watched) -> None:
        child, process = watched.child, watched.child.process
        if watched.restart is not None and not watched.restart.done():
            return
        if process is not None and process.running:
            return
        if process is not None and process.returncode == EX_CONFIG:
            raise StackError(f"{child.name} cannot use its settings: {last_words(process)}")
        lived = time.monotonic() - watched.started_at
        watched.failures = 1 if lived > self.back_off.forgiven_after_seconds else watched.failures + 1
        wait = self.back_off.seconds(watched.failures)
        self.say(f"{child.name} {how_it_ended(process)}: starts again in {wait:g} s{_see(child)}")
        watched.restart = asyncio.create_task(self._restart(watched, wait))

    async def _restart(self, watched: _Watched, wait_seconds: float) -> None:
        await asyncio.sleep(wait_seconds)
        watched.started_at = time.monotonic()
        watched.restarts += 1
        try:
            await watched.child.start()
        except StackError as error:
            self.say(f"{watched.child.name} does not start: {error}")
            return
        self.say(f"{watched.child.name} is started again (restart {watched.restarts})")
        self.changed()

    async def wait_ready(self, timeout_seconds: float) -> None:
        """Wait until every child with a health server answers `/readyz` with 200.

        Raises:
            StackError: The time ran out; the message says who is not ready and why.
        """
        deadline = time.monotonic() + timeout_seconds
        waiting = {
            child.name: child
            for child in self.children
            if isinstance(child, ServiceChild) and child.health_url is not None
        }
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as http:
            while waiting:
                problems = {}
                for name, child in list(waiting.items()):
                    problem = await _readiness_problem(http, f"{child.health_url}/readyz")
                    if problem is None:
                        del waiting[name]
                    else:
                        problems[name] = problem
                if waiting and time.monotonic() > deadline:
                    name, problem = next(iter(problems.items()))
                    raise StackError(f"{name} is not ready after {timeout_seconds:g} s: {problem}{_see(waiting[name])}")
                await asyncio.sleep(0.05 if waiting else 0)

    async def stop(self) -> None:
        """Stop all children, those of one rank at a time, and return when all are gone."""
        for rank in sorted({child.rank for child in self.children}):
            await asyncio.gather(*(child.stop() for child in self.children if child.rank == rank))

    async def kill(self) -> None:
        """SIGKILL all children at once: for people who press Ctrl-C twice."""
        processes = [child.process for child in self.children if child.process is not None]
        await asyncio.gather(*(process.kill() for process in processes))


async def _readiness_problem(http: aiohttp.ClientSession, url: str) -> str | None:
    try:
        async with http.get(url) as response:
            if response.status == 200:
                return None
            problems = (await response.json(content_type=None)).get("problems", {})
            return "; ".join(f"{name}: {problem}" for name, problem in problems.items()) or f"HTTP {response.status}"
    except (aiohttp.ClientError, TimeoutError, ValueError, AttributeError):
        return "it does not answer yet"


def how_it_ended(process: Process | None) -> str:
    """`ended with 1` or `was killed by SIGKILL`."""
    code = None if process is None else process.returncode
    if code is None:
        return "is not running"
    if code < 0:
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"
    return f"ended with {code}"


def last_words(process: Process) -> str:
    """The last line of the log; of a line in JSON the message."""
    line = process.log_tail(1)
    try:
        return str(json.loads(line)["message"])
    except (ValueError, KeyError, TypeError):
        return line


def _see(child: Child) -> str:
    return "" if child.process is None else f"; see {child.process.log_path}"
