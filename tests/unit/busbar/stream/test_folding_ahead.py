"""In a backlog, batches of other partitions are folded while one commits: as exact as one after the other."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from busbar.records import Record
from busbar.stream.leases import Advance
from busbar.stream.leases_memory import MemoryConnection
from busbar.stream.ownership import Owned, Ownership
from tests.support.virtual_time import run_in_virtual_time
from tests.unit.busbar.stream.simulation import SETTINGS, ChainProcessor, ChainState
from tests.unit.busbar.stream.test_remembering import Remembering, RememberingSimulation

SEEDS = int(os.environ.get("BUSBAR_SIMULATION_SEEDS", "150"))
BLOCK = 25


class Ahead(Remembering):
    """Counts how often it loads while a batch of its is being committed."""

    folds_ahead = True

    def __init__(self, rng: random.Random, busy_share: float) -> None:
        super().__init__(rng, busy_share)
        self.storing: set[int] = set()
        self.ahead = 0

    async def load(self, connection: MemoryConnection, events: Sequence[Record]) -> ChainState:
        if self.storing:
            self.ahead += 1
            assert not self.storing & {event.partition for event in events}
        return await super().load(connection, events)

    async def store(self, connection: MemoryConnection, state: ChainState) -> None:
        self.storing = {partition for _, partition in state.chains}
        await super().store(connection, state)

    def committed(self, state: ChainState) -> None:
        self.storing = set()
        super().committed(state)

    def lost(self) -> None:
        self.storing = set()
        super().lost()


class AheadSimulation(RememberingSimulation):
    """Much is a backlog, and three records are worth a batch. Every process has a memory of its own."""

    partitions = 6
    made: list[Any]

    @property
    def processor(self) -> Any:
        self.made.append(Ahead(self.rng, 0.01 if self.faults else 0.0))
        return self.made[-1]

    @processor.setter
    def processor(self, _: ChainProcessor) -> None:
        self.made = []

    def __init__(self, seed: int) -> None:
        backlog_seconds = random.Random(seed).choice((-1.0, 0.05, 0.3))
        self.settings = replace(SETTINGS, backlog_seconds=backlog_seconds, ahead_least=3)
        super().__init__(seed, records=300)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_every_record_is_folded_exactly_once_and_in_order_under_kills_pauses_and_outages(first: int) -> None:
    ahead = 0
    for seed in range(first, first + BLOCK):

        async def live(seed: int = seed) -> int:
            simulation = AheadSimulation(seed)
            await simulation.run()
            return sum(processor.ahead for processor in simulation.made)

        try:
            ahead += run_in_virtual_time(live())
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    assert ahead > 50


async def test_what_watched_the_results_of_one_batch_says_nothing_of_the_next() -> None:
    nothing: Any = None
    ownership = Ownership(
        "chain",
        ["alpha"],
        "worker",
        producer=nothing,
        consumer=nothing,
        store=nothing,
        merge=nothing,
        outbox=nothing,
        settings=SETTINGS,
        now=lambda: 0.0,
        on_lost=lambda: None,
    )
    flush = asyncio.create_task(asyncio.sleep(0))
    ownership.owned[0] = Owned(1, {}, pending=True, flush=flush)
    ownership.owned[1] = Owned(1, {}, pending=True)
    assert ownership.flushes([0]) == {flush}
    assert ownership.flushes([0, 1, 2]) == {flush, None}
    ownership.advanced([Advance(0, 1, {"alpha": 5}, b"more results")])
    assert ownership.flushes([0]) == {None}
    ownership.settle([0])
    assert ownership.flushes([0]) == set()
    await flush
