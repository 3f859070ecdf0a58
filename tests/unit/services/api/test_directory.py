from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.api.directory import StationDirectory


class Pool:
    """Answers as the database does, after a moment, and counts."""

    def __init__(self, *known: str) -> None:
        self.known = known
        self.queries: list[list[str]] = []
        self.error: Exception | None = None

    async def fetch(self, _: str, wanted: list[str]) -> list[dict[str, Any]]:
        self.queries.append(wanted)
        await asyncio.sleep(0.001)
        if self.error is not None:
            raise self.error
        return [
            {"station_id": name, "pinned_version": None, "last_version": "1.6", "online": True}
            for name in wanted
            if name in self.known
        ]


def directory(pool: Any, seconds: float = 60) -> StationDirectory:
    return StationDirectory(pool, seconds)


async def test_requests_of_the_same_moment_share_a_query() -> None:
    pool = Pool("a", "b")
    book = directory(pool)
    found = await asyncio.gather(book.find("a"), book.find("b"), book.find("a"), book.find("none"))
    assert [station and station.station_id for station in found] == ["a", "b", "a", None]
    assert [sorted(query) for query in pool.queries] == [["a", "b", "none"]]


async def test_requests_that_come_while_a_query_is_under_way_share_the_next_one() -> None:
    pool = Pool("a", "b", "c")
    book = directory(pool)
    tasks = []
    for name in ("a", "b", "c"):
        tasks.append(asyncio.create_task(book.find(name)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert [sorted(query) for query in pool.queries] == [["a"], ["b", "c"]]


async def test_what_was_found_is_remembered_and_what_was_not_is_not() -> None:
    pool = Pool("a")
    book = directory(pool)
    for _ in range(3):
        await book.find("a")
        await book.find("none")
    assert pool.queries == [["a"], ["none"], ["none"], ["none"]]


async def test_what_was_changed_is_looked_up_again() -> None:
    pool = Pool("a")
    book = directory(pool)
    await book.find("a")
    book.forget("a")
    await book.find("a")
    assert len(pool.queries) == 2


async def test_a_query_that_fails_fails_for_those_who_waited_and_not_for_the_next() -> None:
    pool = Pool("a")
    pool.error = OSError("away")
    book = directory(pool)
    with pytest.raises(OSError, match="away"):
        await book.find("a")
    pool.error = None
    assert await book.find("a") is not None


async def test_whoever_gives_up_does_not_take_the_others_along() -> None:
    book = directory(Pool("a"))
    one, two = asyncio.create_task(book.find("a")), asyncio.create_task(book.find("a"))
    await asyncio.sleep(0)
    one.cancel()
    assert await two is not None
