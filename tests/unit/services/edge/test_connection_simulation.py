"""Whatever a station, its owners and the router do to a connection, it does what a plain model of it says."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from tests.unit.services.edge.station_world import World, unsettled

SEEDS = int(os.environ.get("BUSBAR_SIMULATION_SEEDS", "400"))
"""More for a longer search: some thousands a minute. A failing seed repeats its history."""
BLOCK = 100


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_a_connection_does_what_its_model_says_and_every_account_balances(first: int) -> None:
    for seed in range(first, first + BLOCK):
        world = World(seed)
        try:
            world.run()
        except BaseException as error:
            error.add_note(f"seed {seed}, OCPP {world.version}: {world.log[-12:]}")
            raise
    assert unsettled() == {}, "CALLs that were accepted and have no outcome"


def test_the_same_seed_gives_the_same_history() -> None:
    def live() -> tuple[list[str], list[int]]:
        world = World(11)
        world.run()
        return world.log, [link.sequence for link in world.links]

    assert live() == live()
