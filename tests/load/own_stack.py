"""A stack for load scripts whose processors may be killed by a seed's plan, stopped, emptied and started again."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from random import Random

import aiohttp
import asyncpg

from busbar.local.clean import clean
from busbar.local.stack import READY_SECONDS, Options
from busbar.local.supervisor import BackOff
from tests.e2e.system import SetStack, System

LEASE_SECONDS = 2.0
INTERVAL_SECONDS = (0.7, 2.5)
"""Between two kills, from and to."""
SETTLE_SECONDS = 2.0
"""Until whoever was killed last is known to be gone."""
BOTH = 0.15
"""The share of kills that leave none of the service's processes."""
GROUPS = {"sessions": ("sessions",), "billing": ("billing", "billing-desk")}
"""The processors that a service runs; its tables are a schema of its name."""


@dataclass(slots=True)
class OwnStack:
    """A system with two of each processor that may be killed, and what has happened to it."""

    system: System
    said: list[str] = field(default_factory=list)
    """What the supervisor told: crashes and restarts."""
    kills: Counter[str] = field(default_factory=Counter)
    """By service."""

    @asynccontextmanager
    async def killing(self, services: Sequence[str], seed: str) -> AsyncIterator[None]:
        """Kill processes of these services in turn meanwhile, and start them again; all of them run in the end."""
        stop = asyncio.Event()
        watching = asyncio.create_task(self.system.stack.run(stop))
        killing = asyncio.create_task(self._kill(services, Random(seed)))
        try:
            yield
            if killing.done():
                killing.result()
            killing.cancel()
            await asyncio.sleep(SETTLE_SECONDS)
            await self.system.stack.supervisor.wait_ready(READY_SECONDS)
        finally:
            killing.cancel()
            stop.set()
            await asyncio.gather(killing, watching, return_exceptions=True)

    async def _kill(self, services: Sequence[str], random: Random) -> None:
        for service in cycle(services):
            await asyncio.sleep(random.uniform(*INTERVAL_SECONDS))
            if not await self._works(service):
                continue
            pids = [entry.pid for entry in self.system.run.services if entry.service == service and entry.pid]
            random.shuffle(pids)
            for pid in pids if random.random() < BOTH else pids[:1]:
                os.kill(pid, signal.SIGKILL)
                self.kills[service] += 1

    async def _works(self, service: str) -> bool:
        """Whether some process of a service is ready: else, on a slow machine, nothing would ever be done."""
        urls = [entry.metrics_url or "" for entry in self.system.run.services if entry.service == service]
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http:
            for url in urls:
                try:
                    async with http.get(url.removesuffix("/metrics") + "/readyz") as response:
                        if response.status == 200:
                            return True
                except (aiohttp.ClientError, TimeoutError):
                    continue
        return False

    async def forget(self, service: str) -> None:
        """Stop a service, empty its tables, and put its offsets at the start of the log."""
        await self.system.stop_service(service)
        connection = await asyncpg.connect(self.system.run.postgres.url)
        try:
            rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", service)
            await connection.execute("TRUNCATE " + ", ".join(f"{service}.{row[0]}" for row in rows))
            for table in ("progress", "workers"):
                await connection.execute(f"DELETE FROM stream.{table} WHERE group_name = ANY($1)", GROUPS[service])
        finally:
            await connection.close()

    def by_itself(self) -> list[str]:
        """What ended without having been killed."""
        return [line for line in self.said if re.search(r"ended with|does not start|cannot", line)]


@asynccontextmanager
async def own_stack(**processes: int) -> AsyncIterator[OwnStack]:
    """The whole system in a folder that is thrown away, with short leases and an impatient supervisor."""
    with tempfile.TemporaryDirectory(prefix="busbar-load-") as folder:
        settings = {service: {"BUSBAR_LEASE_SECONDS": str(LEASE_SECONDS)} for service in GROUPS}
        data = Path(folder) / "busbar"
        stack = SetStack(Options(folder=data, processes=processes, fleet=0), print, settings)
        own = OwnStack(System(stack))
        try:
            await stack.start()
            stack.supervisor.say = own.said.append
            stack.supervisor.back_off = BackOff(first_seconds=0.3, longest_seconds=1.0)
            yield own
        finally:
            await stack.stop()
            clean(data)
