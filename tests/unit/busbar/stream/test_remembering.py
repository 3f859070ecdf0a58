"""A processor that keeps state between batches, told by `committed` and `lost`, is as exact as one that loads it."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from busbar.records import Record
from busbar.stream.leases_memory import MemoryConnection
from tests.support.virtual_time import run_in_virtual_time
from tests.unit.busbar.stream.simulation import ChainProcessor, ChainState, Simulation


class Remembering(ChainProcessor):
    """Takes what it remembers out of its memory for a batch, and puts it back once the batch is committed."""

    def __init__(self, rng: random.Random, busy_share: float) -> None:
        super().__init__(rng, busy_share)
        self.memory: dict[tuple[str, int], Any] = {}
        self.remembered = 0

    async def load(self, connection: MemoryConnection, events: Sequence[Record]) -> ChainState:
        keys = {(event.topic, event.partition) for event in events}
        known = {key: self.memory.pop(key) for key in keys if key in self.memory}
        self.remembered += len(known)
        state = await super().load(connection, [e for e in events if (e.topic, e.partition) not in known])
        return ChainState({**state.chains, **known})

    async def store(self, connection: MemoryConnection, state: ChainState) -> None:
        for key in state.changed:
            chain = state.chains[key]
            connection.write("chains", key, type(chain)(chain.count, chain.digest, list(chain.wrong)))

    def committed(self, state: ChainState) -> None:
        self.memory.update(state.chains)

    def lost(self) -> None:
        self.memory.clear()


class RememberingSimulation(Simulation):
    """Every process has a memory of its own."""

    made: list[Remembering]

    @property
    def processor(self) -> Remembering:
        self.made.append(Remembering(self.rng, 0.01 if self.faults else 0.0))
        return self.made[-1]

    @processor.setter
    def processor(self, _: ChainProcessor) -> None:
        self.made = []


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", [0, 20, 40])
def test_memory_is_never_behind_the_tables_under_kills_pauses_and_outages(first: int) -> None:
    remembered = 0
    for seed in range(first, first + 20):

        async def live(seed: int = seed) -> int:
            simulation = RememberingSimulation(seed)
            await simulation.run()
            return sum(processor.remembered for processor in simulation.made)

        try:
            remembered += run_in_virtual_time(live())
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    assert remembered > 100
