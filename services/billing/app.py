"""Wires the billing service and runs it."""

from __future__ import annotations

import asyncio

from busbar.config import Env
from busbar.service import Health
from busbar.stream.worker import run_processor
from busbar.tariffs import TariffBook
from services.billing.config import Config
from services.billing.processor import BillingProcessor


async def main(env: Env, health: Health, stop: asyncio.Event) -> None:
    """Fold until `stop` is set, then hand the partitions over."""
    config = Config.from_env(env)
    await run_processor(
        BillingProcessor(TariffBook(config.time_zone), config.policy),
        bootstrap_servers=config.bootstrap_servers,
        database_url=config.database_url,
        health=health,
        stop=stop,
        settings=config.worker,
    )
