"""PostgreSQL neither answers nor refuses: a network that swallows everything between it and one worker."""

from __future__ import annotations

import time

from prometheus_client import REGISTRY

from busbar.stream.worker import WorkerSettings
from tests.chaos.proxy import Line
from tests.integration.stream.conftest import Chains, until
from tests.integration.stream.test_worker import running
from tests.support.servers import port_of, with_port

SETTINGS = WorkerSettings(lease_seconds=2.0)
DETECTED_SECONDS = 10.0
"""As long as a statement may take; docs/failures.md says so."""


def _failures(group: str) -> float:
    return REGISTRY.get_sample_value("csms_stream_store_failures_total", {"group": group}) or 0.0


async def test_a_worker_whose_postgres_hangs_says_so_another_goes_on_and_it_comes_back_without_a_trace(
    chains: Chains,
) -> None:
    line = Line("worker to postgres", port_of(chains.url))
    await line.open()
    direct_url, chains.url = chains.url, with_port(chains.url, line.port)
    chains.write(100)
    async with running(chains, settings=SETTINGS) as (_, health, task):
        chains.url = direct_url
        await chains.wait_until_folded()
        async with line.hole():
            began = time.monotonic()
            chains.write(100)

            async def is_seen() -> bool:
                return _failures(chains.group) > 0

            await until(is_seen, DETECTED_SECONDS + 20)
            assert time.monotonic() - began > SETTINGS.lease_seconds, "not a connection that was cut"

            async def says_so() -> bool:
                return "PostgreSQL has not answered" in health.problems(health.ready).get("postgres", "")

            await until(says_so, 20)
            assert health.problems(health.live) == {}
            async with running(chains, settings=SETTINGS):
                await chains.wait_until_folded()
                chains.write(100)
                await chains.wait_until_folded()
        chains.write(100)
        await chains.wait_until_folded()

        async def is_ready() -> bool:
            return health.problems(health.ready) == {}

        await until(is_ready, 30)
        assert not task.done()
        assert len(set((await chains.owners()).values())) == 1
    await chains.check()
    await line.close()
