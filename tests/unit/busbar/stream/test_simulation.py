"""Whatever happens to the workers, every record is folded once and in order, and every result is produced."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from tests.support.virtual_time import run_in_virtual_time
from tests.unit.busbar.stream.simulation import Simulation

SEEDS = int(os.environ.get("BUSBAR_SIMULATION_SEEDS", "150"))
"""More for a longer search: some thousands a minute. A failing seed repeats its history."""
BLOCK = 25


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_every_record_is_folded_exactly_once_and_in_order_under_kills_pauses_and_outages(first: int) -> None:
    for seed in range(first, first + BLOCK):
        try:
            run_in_virtual_time(_live(Simulation, seed))
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


def test_a_quiet_history_loses_no_partition_and_repeats_no_result() -> None:
    async def live() -> list[str]:
        simulation = Simulation(7, faults=False)
        await simulation.run()
        return [(record.value or b"").decode() for record in simulation.broker.records("out")]

    produced = run_in_virtual_time(live())
    assert len(produced) == len(set(produced)) == 120


def test_the_same_seed_gives_the_same_history() -> None:
    async def live() -> tuple[list[str], list[bytes | None]]:
        simulation = Simulation(11)
        await simulation.run()
        return simulation.log, [record.value for record in simulation.broker.records("out")]

    assert run_in_virtual_time(live()) == run_in_virtual_time(live())


async def _live(make: type[Simulation], seed: int) -> None:
    await make(seed).run()
