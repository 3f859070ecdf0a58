"""Wires the sessions service and runs it."""

from __future__ import annotations

import asyncio

from busbar.config import Env
from busbar.service import Health
from busbar.stream.worker import run_processor
from services.sessions.config import Config
from services.sessions.processor import SessionsProcessor


async def main(env: Env, health: Health, stop: asyncio.Event) -> None:
    """Fold until `stop` is set, then hand the partitions over."""
    config = Config.from_env(env)
    await run_processor(
        SessionsProcessor(config.policy, partitions=config.partitions, time_zone=config.time_zone),
        bootstrap_servers=config.bootstrap_servers,
        database_url=config.database_url,
        health=health,
        stop=stop,
        settings=config.worker,
    )
