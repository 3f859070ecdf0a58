"""Wires the billing service and runs it: the fold of sessions, and the desk beside it."""

from __future__ import annotations

import asyncio
from typing import Any

from busbar.config import Env
from busbar.service import Health
from busbar.stream.interfaces import Processor
from busbar.stream.settings import WorkerSettings
from busbar.stream.worker import run_processor
from busbar.tariffs import TariffBook
from services.billing.config import Config
from services.billing.desk.processor import DeskProcessor
from services.billing.desk.vat import HttpVatChecker
from services.billing.processor import BillingProcessor


async def main(env: Env, health: Health, stop: asyncio.Event) -> None:
    """Fold until `stop` is set, then hand the partitions over."""
    config = Config.from_env(env)
    checker = HttpVatChecker(config.vat_url, config.desk.vat_seconds) if config.vat_url else None
    desk = DeskProcessor(config.desk, TariffBook(config.time_zone), partitions=config.partitions, checker=checker)
    desk_health = Health()
    health.live["desk"] = lambda: _problem(desk_health, desk_health.live)
    health.ready["desk"] = lambda: _problem(desk_health, desk_health.ready)

    async def run(processor: Processor[Any], its_health: Health, settings: WorkerSettings) -> None:
        await run_processor(
            processor,
            bootstrap_servers=config.bootstrap_servers,
            database_url=config.database_url,
            health=its_health,
            stop=stop,
            settings=settings,
        )

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(run(BillingProcessor(TariffBook(config.time_zone), config.policy), health, config.worker))
            group.create_task(run(desk, desk_health, config.desk_worker))
    finally:
        if checker is not None:
            await checker.close()


def _problem(health: Health, checks: dict[str, Any]) -> str | None:
    """What is wrong with the desk, in a sentence."""
    problems = health.problems(checks)
    return "; ".join(f"{name}: {problem}" for name, problem in problems.items()) or None
