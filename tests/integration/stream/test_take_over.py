"""Workers as real processes: they share, die, stop and go on, and nothing is folded twice or left out."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.integration.stream.conftest import PARTITIONS, Chains, WorkerProcess, until

LEASE_SECONDS = 2.0
Start = Callable[[], Awaitable[WorkerProcess]]


@pytest.fixture
async def start(chains: Chains) -> AsyncIterator[Start]:
    """Starts workers of the group, and ends them with the test."""
    started: list[WorkerProcess] = []

    async def start_one() -> WorkerProcess:
        process = await WorkerProcess.start(chains, LEASE_SECONDS)
        started.append(process)
        return process

    yield start_one
    for process in started:
        await process.remove()


@pytest.fixture
async def writing(chains: Chains) -> AsyncIterator[asyncio.Event]:
    """Writes 400 records a second to all partitions of both topics until the event is set."""
    enough = asyncio.Event()

    async def write() -> None:
        while not enough.is_set():
            for topic in (0, 1):
                chains.write(PARTITIONS, topic=topic)
            await asyncio.sleep(0.02)

    task = asyncio.create_task(write())
    yield enough
    enough.set()
    await task


async def silence_of(chains: Chains, partition: int) -> float:
    """How long from now until the partition's count moves again, after what is on its way has arrived."""
    place = (chains.topics[0], partition)
    await asyncio.sleep(0.05)
    before = (await chains.counts()).get(place, 0)

    async def moves() -> bool:
        return (await chains.counts()).get(place, 0) > before

    return 0.05 + await until(moves)


async def test_after_sigkill_another_worker_goes_on_within_the_lease(
    chains: Chains, start: Start, writing: asyncio.Event
) -> None:
    victim, _ = await start(), await start()
    owners = await chains.wait_for_owners(2)
    partition = next(number for number, owner in owners.items() if victim.worker_id_part in (owner or ""))
    await asyncio.sleep(0.5)
    victim.send(signal.SIGKILL)
    assert await silence_of(chains, partition) < LEASE_SECONDS + 1.5
    await chains.wait_for_owners(1)
    writing.set()
    await chains.wait_until_folded()
    await chains.check()


async def test_after_sigterm_another_worker_goes_on_at_once(
    chains: Chains, start: Start, writing: asyncio.Event
) -> None:
    leaving, _ = await start(), await start()
    owners = await chains.wait_for_owners(2)
    partition = next(number for number, owner in owners.items() if leaving.worker_id_part in (owner or ""))
    await asyncio.sleep(0.5)
    leaving.send(signal.SIGTERM)
    assert await silence_of(chains, partition) < 1.2
    assert await leaving.ended() == 0
    writing.set()
    await chains.wait_until_folded()
    await chains.check()


async def test_a_worker_stopped_for_longer_than_its_lease_comes_back_without_a_trace(
    chains: Chains, start: Start, writing: asyncio.Event
) -> None:
    zombie, _ = await start(), await start()
    await chains.wait_for_owners(2)
    for _ in range(2):
        await asyncio.sleep(0.3)
        zombie.send(signal.SIGSTOP)
        await chains.wait_for_owners(1)
        zombie.send(signal.SIGCONT)
        await chains.wait_for_owners(2)
    writing.set()
    await chains.wait_until_folded()
    await chains.check()


async def test_partitions_spread_over_workers_as_they_come_and_gather_as_they_go(
    chains: Chains, start: Start, writing: asyncio.Event
) -> None:
    first = await start()
    await chains.wait_for_owners(1)
    second, third = await start(), await start()
    owners = await chains.wait_for_owners(3)
    assert sorted(list(owners.values()).count(owner) for owner in set(owners.values())) == [1, 1, 2]
    for process in (first, second, third):
        process.send(signal.SIGTERM)
        assert await process.ended() == 0
    assert set((await chains.owners()).values()) == {None}
    writing.set()
    await start()
    await chains.wait_until_folded()
    await chains.check()
