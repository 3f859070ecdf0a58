"""Two workers, one of which is stopped or killed at every single await of its life, one await after another.

Where the other simulation searches by chance, this one leaves nothing out: each place at which a worker waits for the
database, for Kafka's records or for its acknowledgements, before and after, is where SIGSTOP or SIGKILL hits it once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator

import pytest

from tests.support.virtual_time import run_in_virtual_time
from tests.unit.busbar.stream.simulation import SETTINGS, Simulation

NEVER = 0
RECORDS = 24


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Tripwire(asyncio.Event):
    """A process's gate that does something when it is passed for the n-th time."""

    def __init__(self, at: int, trip: Callable[[], None]) -> None:
        super().__init__()
        self.set()
        self.passed = 0
        self._at = at
        self._trip = trip

    async def wait(self) -> bool:  # type: ignore[override]
        self.passed += 1
        if self.passed == self._at:
            self._trip()
            await asyncio.sleep(0)  # where a killed one ends
        return await super().wait()


class Race(Simulation):
    """Two workers and no other trouble than what the first of them meets at its n-th await.

    Args:
        stop_seconds: For how long it is stopped; 0: it is killed.
    """

    def __init__(self, seed: int, at: int, stop_seconds: float) -> None:
        super().__init__(seed, faults=False, records=RECORDS, seconds=1.0)
        self.broker.ack_seconds = 0.4
        self._stop_seconds = stop_seconds
        self._at = at
        self.awaits = 0
        """How many the first worker had passed when all was done."""

    async def run(self) -> None:
        self._start()
        (victim,) = self._alive()
        victim.gate = gate = Tripwire(self._at, self._strike)
        victim.consumer.gate = victim.producer.gate = gate
        self._start()
        await self._feed()
        deadline = asyncio.get_running_loop().time() + 60.0
        while not self._done():
            self._raise_failures()
            assert asyncio.get_running_loop().time() < deadline, f"not everything was processed: {self._missing()}"
            await asyncio.sleep(0.1)
        self.awaits = gate.passed
        for process in self._alive():
            process.resume()
            process.stop.set()
        await asyncio.wait_for(asyncio.gather(*(process.task for process in self._alive())), 30.0)
        self._raise_failures()
        self.check()

    def _strike(self) -> None:
        victim = next(iter(self.processes.values()))
        if self._stop_seconds:
            victim.pause()
            asyncio.get_running_loop().call_later(self._stop_seconds, victim.resume)
        else:
            victim.dead = True
            victim.producer.crash(deliver=0)
            victim.task.cancel()


def live(seed: int, at: int, stop_seconds: float) -> int:
    async def run() -> int:
        race = Race(seed, at, stop_seconds)
        await race.run()
        return race.awaits

    try:
        return run_in_virtual_time(run())
    except BaseException as error:
        error.add_note(f"seed {seed}, at await {at}, stopped for {stop_seconds} s")
        raise


@pytest.mark.parametrize("seed", [1, 2], ids=["backlog", "live"])
@pytest.mark.parametrize(
    "stop_seconds",
    [0.0, SETTINGS.lease_seconds - 0.3, SETTINGS.lease_seconds + 1.0],
    ids=["killed", "stopped-within-its-lease", "stopped-beyond-its-lease"],
)
def test_whichever_await_a_worker_is_hit_at_every_record_is_folded_once_and_its_result_produced(
    seed: int, stop_seconds: float
) -> None:
    awaits = live(seed, NEVER, stop_seconds)
    assert awaits > 30
    for at in range(1, awaits + 1):
        live(seed, at, stop_seconds)
