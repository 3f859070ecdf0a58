"""How our consumer parts with aiokafka's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from busbar.stream.kafka_consumer import KafkaConsumer


class Client:
    def __init__(self) -> None:
        self.closed = False

    async def close(self) -> None:
        self.closed = True


class Consumer:
    """Stands in for aiokafka's, with an end of its own."""

    def __init__(self, end: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._client = Client()
        self.stop = end


async def well() -> None:
    await asyncio.sleep(0)


async def by_a_cancellation_of_its_own() -> None:
    task = asyncio.ensure_future(asyncio.sleep(60))
    task.cancel()
    await task


async def badly() -> None:
    raise RuntimeError("bad")


async def never() -> None:
    await asyncio.sleep(60)


@pytest.mark.parametrize("end", [well, by_a_cancellation_of_its_own, badly, never])
async def test_however_it_ends_we_go_on_and_its_connections_are_closed(end: Callable[[], Any]) -> None:
    consumer = KafkaConsumer("127.0.0.1:1")
    inner = consumer._consumer = Consumer(end)
    async with asyncio.timeout(20):
        await consumer.stop()
    assert inner._client.closed == (end is not well)  # else it has done so itself
    assert consumer.silent_seconds() == float("inf")
