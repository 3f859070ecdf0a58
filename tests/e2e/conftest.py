"""One system for each module of end-to-end tests: two edges, three sessions processes, and one of everything else."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.e2e.system import System, running


@pytest.fixture(scope="module")
async def system(topics: str, postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """The whole system on the run's broker and a database of the module's own."""
    folder = tmp_path_factory.mktemp("system")
    async with running(folder, topics, postgres_url, edge=2, sessions=3) as one:
        yield one
