"""How every service process starts, answers for its health, and stops.

`run_service` sets up JSON logs and uvloop, serves `/metrics`, `/livez` and `/readyz`, runs the service until
SIGTERM or SIGINT, and ends the process with an exit code that a supervisor can read.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import uvloop
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from busbar import compiled
from busbar.config import ConfigError, Env
from busbar.logs import configure_logging

logger = logging.getLogger(__name__)

Check = Callable[[], str | None]
"""Returns `None` when all is well, else one sentence that says what is not."""


@dataclass(slots=True)
class Health:
    """What `/livez` and `/readyz` answer. Checks are plain calls that look at what is already known."""

    live: dict[str, Check] = field(default_factory=dict)
    """A failing live check means that only a restart helps."""
    ready: dict[str, Check] = field(default_factory=dict)
    """A failing ready check means: send no new work here. While there is none at all, the process is starting."""
    draining: bool = False

    def problems(self, checks: dict[str, Check]) -> dict[str, str]:
        """The failing checks by name, with what each says."""
        found = {name: problem for name, check in checks.items() if (problem := check()) is not None}
        if checks is self.ready and not checks:
            found["starting"] = "the process has not come far enough to be asked"
        if self.draining and checks is self.ready:
            found["draining"] = "the process is stopping"
        return found


@asynccontextmanager
async def health_server(address: tuple[str, int], health: Health) -> AsyncIterator[tuple[str, int]]:
    """Serve `/metrics`, `/livez` and `/readyz`; yields the address that was bound."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def probe(checks: dict[str, Check]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(_: web.Request) -> web.Response:
            problems = health.problems(checks)
            status = 503 if problems else 200
            return web.json_response({"status": "error" if problems else "ok", "problems": problems}, status=status)

        return answer

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/livez", probe(health.live))
    app.router.add_get("/readyz", probe(health.ready))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, *address)
    await site.start()
    try:
        yield runner.addresses[0][:2]
    finally:
        await runner.cleanup()


def relax_garbage_collection() -> None:
    """Collect cycles less often than Python's defaults, and never look at what importing has made.

    Events and connections are freed by reference counting; a full collection among 20,000 connections takes a
    quarter of a second, and with the defaults the young generation is walked every few events. A batch of 2,000 events
    holds some 80,000 objects until it is committed, the next one is decoded meanwhile, and none of them is garbage.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(400_000, 20, 50)


def run_service(
    name: str,
    main: Callable[[Env, Health, asyncio.Event], Awaitable[None]],
    default_health_address: str,
) -> None:
    """Run one service process and exit.

    Args:
        name: As in the logs and in `BUSBAR_<NAME>_…` settings.
        main: Runs until the event is set (SIGTERM or SIGINT), then drains and returns.
        default_health_address: `HOST:PORT` of metrics and health; `BUSBAR_HEALTH_ADDRESS` overrides it.
    """
    env = Env()
    configure_logging(name, env.text("BUSBAR_LOG_LEVEL", "INFO"))

    async def entry() -> None:
        stop = asyncio.Event()
        health = Health()
        relax_garbage_collection()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        address = env.address("BUSBAR_HEALTH_ADDRESS", default_health_address)
        async with health_server(address, health) as (host, port):
            about = {"health": f"http://{host}:{port}", "pid": os.getpid(), "compiled": compiled.said()}
            logger.info("started", extra=about)
            await main(env, health, stop)
        logger.info("stopped")

    try:
        uvloop.run(entry())
    except ConfigError as error:
        logger.error("cannot start: %s", error)
        sys.exit(78)  # EX_CONFIG: a restart will not help
    except Exception:
        logger.exception("the service ends: a supervisor should start it again")
        sys.exit(1)
