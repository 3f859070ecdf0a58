"""Runs the whole system, drives it with a fleet, and does to it what a plan says."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from busbar.local.runfile import RunFile
from busbar.local.stack import Options, Stack
from busbar.local.supervisor import BackOff
from tests.chaos.fleet import run_fleet
from tests.chaos.ledger import Ledger
from tests.chaos.plan import LEASE_SECONDS, Fault

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGTERM}


@dataclass(slots=True)
class Rig:
    """A running system and what has been done to it."""

    stack: Stack
    said: list[str] = field(default_factory=list)
    """What the supervisor told: crashes and restarts."""
    done: list[Fault] = field(default_factory=list)
    _paused: set[int] = field(default_factory=set)

    def run_file(self) -> RunFile:
        """Process ids and addresses of this moment."""
        return self.stack.run_file()

    def edges(self) -> list[str]:
        """Where stations connect."""
        return [edge.url for edge in self.run_file().edges]

    def pid(self, role: str, pick: int) -> int | None:
        """The process id of one process of a role, if one runs."""
        run = self.run_file()
        if role == "kafka":
            return run.kafka.pids[pick % len(run.kafka.pids)]
        if role == "postgres":
            return run.postgres.pids[0]
        pids = [entry.pid for entry in run.services if entry.service == role and entry.pid is not None]
        return pids[pick % len(pids)] if pids else None

    async def carry_out(self, plan: list[Fault], report: Callable[[str], None] = print) -> None:
        """Do what the plan says, each fault at its time. Pauses overlap with what follows."""
        began = time.monotonic()
        pauses: list[asyncio.Task[None]] = []
        for fault in plan:
            await asyncio.sleep(max(0.0, fault.at_seconds - (time.monotonic() - began)))
            pid = self.pid(fault.role, fault.pick)
            if pid is None or pid in self._paused:
                continue  # it is down already
            report(str(fault))
            self.done.append(fault)
            if fault.kind == "pause":
                pauses.append(asyncio.create_task(self._pause(pid, fault.seconds)))
            else:
                _signal(pid, _SIGNALS[fault.kind])
        await asyncio.gather(*pauses)

    async def _pause(self, pid: int, seconds: float) -> None:
        self._paused.add(pid)
        _signal(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            _signal(pid, signal.SIGCONT)
            self._paused.discard(pid)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it had ended by itself, which the supervisor reports


@asynccontextmanager
async def running_rig(folder: Path, *, edges: int = 2, workers: int = 2) -> AsyncIterator[Rig]:
    """The whole system with short leases and an impatient supervisor; stopped afterwards.

    Args:
        workers: Processes of each processor.
    """
    os.environ["BUSBAR_LEASE_SECONDS"] = str(LEASE_SECONDS)
    said: list[str] = []
    processes = {"edge": edges, "sessions": workers, "stations": workers, "router": workers, "api": 1}
    stack = Stack(Options(folder=folder, processes=processes, fleet=0, auto_register=True), said.append)
    stack.supervisor.back_off = BackOff(first_seconds=0.3, longest_seconds=1.0)
    stop = asyncio.Event()
    watching: asyncio.Task[None] | None = None
    try:
        await stack.start()
        watching = asyncio.create_task(stack.run(stop))
        yield Rig(stack, said)
    finally:
        stop.set()
        if watching is not None:
            await watching
        await stack.stop()


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
                        ledger.accepted_commands.append((await response.json())["command_id"])
            except (aiohttp.ClientError, TimeoutError):
                continue  # the API is down: it has promised nothing


async def ordeal(
    rig: Rig, plan: list[Fault], *, seed: int, stations: int, transactions: int, pace: float, deadline_seconds: float
) -> Ledger:
    """Run the fleet to its end while the plan is carried out.

    Raises:
        TimeoutError: A station is stuck: some fact has not been acknowledged long after the last fault.
    """
    ledger = Ledger()
    commander = asyncio.create_task(command_stations(rig, ledger, mean_interval_seconds=pace / 2))
    try:
        async with asyncio.timeout(deadline_seconds), asyncio.TaskGroup() as group:
            group.create_task(rig.carry_out(plan))
            group.create_task(
                run_fleet(rig.edges, ledger, seed=seed, stations=stations, transactions=transactions, pace=pace)
            )
    finally:
        commander.cancel()
    return ledger
