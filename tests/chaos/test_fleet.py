"""The stations mistrust what they receive: each thing that no station may see is written down."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.chaos.fleet import ChaosStation
from tests.chaos.ledger import Ledger


class Socket:
    """Takes what a station sends."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    async def send(self, text: str) -> None:
        self.sent.append(json.loads(text))


async def station_that_waits() -> tuple[ChaosStation, Ledger, Socket]:
    ledger = Ledger()
    station = ChaosStation(1, 7, dict, ledger, pace=1.0)
    station._waiting["a-1"] = asyncio.get_running_loop().create_future()
    return station, ledger, Socket()


async def test_an_answer_is_taken_and_no_violation() -> None:
    station, ledger, socket = await station_that_waits()
    reply = station._waiting["a-1"]
    await station._receive(socket, [3, "a-1", {"x": 1}])  # type: ignore[arg-type]
    assert reply.result() == {"x": 1}
    assert not ledger.violations


@pytest.mark.parametrize(
    ("frames", "violation"),
    [
        ([[3, "a-9", {}]], "stray reply"),
        ([[3, "a-1", {}], [3, "a-1", {}]], "second reply to a-1"),
        ([[4, "a-1", "InternalError", "", {}]], "CALLERROR"),
    ],
)
async def test_what_no_station_may_see_is_written_down(frames: list[Any], violation: str) -> None:
    station, ledger, socket = await station_that_waits()
    for frame in frames:
        await station._receive(socket, frame)  # type: ignore[arg-type]
    [found] = ledger.violations
    assert violation in found


async def test_a_command_is_answered_and_booked_with_its_connection() -> None:
    station, ledger, socket = await station_that_waits()
    station._connection = 4
    await station._receive(socket, [2, "command-1", "ClearCache", {}])  # type: ignore[arg-type]
    assert socket.sent == [[3, "command-1", {"status": "Accepted"}]]
    [receipt] = ledger.commands["command-1"]
    assert (receipt.station_id, receipt.connection) == (station.station_id, 4)


def test_what_a_station_lives_through_comes_from_its_seed() -> None:
    def plans(seed: int) -> list[Any]:
        station = ChaosStation(1, seed, dict, Ledger(), pace=1.0)
        transaction = station._begin(0)
        return [fact.action for fact in station._events(transaction, offline=False)] + [transaction.stop_wh]

    assert plans(1) == plans(1)
    assert plans(1) != plans(2)
