"""What the database says is sorted into what a worker can do about it."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from busbar.stream.leases import StoreUnavailable
from busbar.stream.leases_postgres import PostgresProgressStore


class BrokenConnection:
    """Raises the same to every question."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def fetch(self, *_: Any) -> Any:
        raise self._error

    async def close(self, *, timeout: float) -> None:
        raise self._error

    def terminate(self) -> None:
        pass


@pytest.mark.parametrize(
    "error",
    [
        OSError("reset"),
        TimeoutError(),
        asyncpg.InterfaceError("connection is closed"),
        # The server has said that it shuts down, and the socket is open for a moment more.
        asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"),
        asyncpg.AdminShutdownError("terminating connection due to administrator command"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_connection_that_cannot_be_used_is_waited_for(error: Exception) -> None:
    store = PostgresProgressStore("postgresql://nowhere", group="g", worker_id="w", lease_seconds=6.0)
    store._connection = BrokenConnection(error)
    with pytest.raises(StoreUnavailable):
        await store.survey()
    await store.close()


async def test_what_nobody_expects_passes() -> None:
    store = PostgresProgressStore("postgresql://nowhere", group="g", worker_id="w", lease_seconds=6.0)
    store._connection = BrokenConnection(asyncpg.UndefinedTableError("no such table"))
    with pytest.raises(asyncpg.UndefinedTableError):
        await store.survey()
