"""The router's process: the processor on the stream runtime, and forgetting what is old."""

from __future__ import annotations

import asyncio
import logging

import asyncpg

from busbar.config import Env
from busbar.postgres import DATABASE_ERRORS
from busbar.service import Health
from busbar.stream.worker import run_processor
from services.router import metrics, store
from services.router.config import RouterConfig
from services.router.processor import RouterProcessor, wall_clock_ms

logger = logging.getLogger(__name__)

_DAY_MS = 86_400_000
_CHUNK = 2_000
_FORGET_SECONDS = 600.0


async def main(env: Env, health: Health, stop: asyncio.Event) -> None:
    """Run until told to stop."""
    config = RouterConfig.from_env(env)
    processor = RouterProcessor(config.rules, edge_silent_ms=round(config.edge_silent_seconds * 1000))
    forgetting = asyncio.create_task(_forget_old(config))
    try:
        await run_processor(
            processor,
            bootstrap_servers=config.bootstrap_servers,
            database_url=config.database_url,
            health=health,
            stop=stop,
        )
    finally:
        forgetting.cancel()
        await asyncio.gather(forgetting, return_exceptions=True)


async def _forget_old(config: RouterConfig) -> None:
    """Delete commands that finished long ago, a few at a time; several routers may do so at once."""
    while True:
        await asyncio.sleep(_FORGET_SECONDS)
        try:
            await forget(config.database_url, wall_clock_ms() - round(config.keep_commands_days * _DAY_MS))
        except DATABASE_ERRORS as error:
            logger.warning("old commands could not be deleted: trying again later", extra={"error": repr(error)})


async def forget(database_url: str, before_ms: int) -> int:
    """Delete the commands that finished before that time; returns how many."""
    connection = await asyncpg.connect(database_url, timeout=10, command_timeout=30)
    try:
        total = 0
        while True:
            deleted = await store.delete_finished(connection, before_ms, _CHUNK)
            metrics.FORGOTTEN.inc(deleted)
            total += deleted
            if deleted < _CHUNK:
                return total
    finally:
        await connection.close(timeout=5)
