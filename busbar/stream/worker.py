"""Running a processor as a service does: on Kafka and PostgreSQL, with health checks."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from busbar.config import Env
from busbar.records import Result
from busbar.service import Health
from busbar.stream.dead_letters import DEAD_LETTER_TOPIC, undeliverable
from busbar.stream.interfaces import Processor
from busbar.stream.kafka_consumer import KafkaConsumer
from busbar.stream.kafka_producer import KafkaProducer, RefusedRecord
from busbar.stream.leases import new_worker_id
from busbar.stream.leases_postgres import PostgresProgressStore
from busbar.stream.loop import Worker
from busbar.stream.settings import WorkerSettings

logger = logging.getLogger(__name__)

__all__ = ["Worker", "WorkerSettings", "run_processor"]

_HUNG_SECONDS = 60.0
"""A loop that has not gone round for so long is given up: a restart helps."""
_SILENT_SECONDS = 15.0
"""Without an answer of Kafka for so long, the worker is not ready."""
_STALE_SECONDS = 10.0
"""Without an answer of the database for so long, the worker is not ready."""


async def run_processor(
    processor: Processor[Any],
    *,
    bootstrap_servers: str,
    database_url: str,
    health: Health,
    stop: asyncio.Event,
    settings: WorkerSettings | None = None,
) -> None:
    """Run one worker of a processor until `stop` is set, then hand its partitions over.

    Kafka and the database may be away at the start and at any time later; health checks say so meanwhile. Anything
    unexpected is raised: the process should end and be started again.
    """
    settings = settings or WorkerSettings.from_env(Env())
    worker_id = new_worker_id()
    producer = KafkaProducer(bootstrap_servers, flush_interval_seconds=0.0, client_id=f"busbar-{processor.group}")
    producer.on_refused = lambda refused: _dead_letter(producer, processor.group, refused)
    consumer = KafkaConsumer(bootstrap_servers, group_id=processor.group, client_id=f"busbar-{processor.group}")
    store = PostgresProgressStore(
        database_url, group=processor.group, worker_id=worker_id, lease_seconds=settings.lease_seconds
    )
    worker = Worker(
        processor, producer=producer, consumer=consumer, store=store, worker_id=worker_id, settings=settings
    )
    add_checks(health, worker, producer, consumer)
    logger.info("worker starts", extra={"group": processor.group, "worker_id": worker_id})
    main = asyncio.create_task(_run(worker, producer, consumer, stop), name=f"worker-{processor.group}")
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((main, stopping), return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            health.draining = True
            if not worker.started:  # it may be waiting for Kafka, which is of no use any more
                main.cancel()
        await asyncio.wait((main,))
        if not main.cancelled():
            main.result()
    finally:
        stopping.cancel()
        main.cancel()
        await asyncio.wait((main,))


def add_checks(health: Health, worker: Worker, producer: KafkaProducer, consumer: KafkaConsumer) -> None:
    """What `/livez` and `/readyz` say of a worker. A worker that owns nothing, because others do, is ready."""
    now = asyncio.get_running_loop().time

    def loop() -> str | None:
        still = now() - worker.turned_at
        return f"the loop has not gone round for {still:.0f} s" if still > _HUNG_SECONDS else None

    def kafka() -> str | None:
        silent = consumer.silent_seconds()
        if silent > _SILENT_SECONDS:
            return f"Kafka has not answered for {silent:.0f} s" if silent < float("inf") else "not connected to Kafka"
        return producer.problem() or (None if worker.ownership.fit else "Kafka could not be read, and is asked again")

    def postgres() -> str | None:
        age = now() - worker.ownership.stored_at
        if not worker.started:
            return "not started"
        return f"PostgreSQL has not answered for {age:.0f} s" if age > _STALE_SECONDS else None

    health.live["loop"] = loop
    health.ready["kafka"] = kafka
    health.ready["postgres"] = postgres


async def _run(worker: Worker, producer: KafkaProducer, consumer: KafkaConsumer, stop: asyncio.Event) -> None:
    try:
        await producer.start()
        await consumer.start()
        await worker.run(stop)
    finally:
        await consumer.stop()
        await producer.stop()


def _dead_letter(producer: KafkaProducer, group: str, refused: RefusedRecord) -> None:
    """Keep a result that the broker refuses for good; what it led to is committed already."""
    if refused.topic == DEAD_LETTER_TOPIC:
        return  # counted and logged by the producer; there is nowhere else to go
    result = Result(
        refused.topic,
        refused.key or b"",
        refused.value or b"",
        partition=refused.partition,
        headers=refused.headers,
        timestamp_ms=refused.timestamp_ms,
    )
    now_ms = time.time_ns() // 1_000_000
    letter = undeliverable(result, group, "refused", refused.error, now_ms)
    producer.append(
        letter.topic,
        producer.partition_for(letter.topic, letter.key),
        key=letter.key,
        value=letter.value,
        timestamp_ms=now_ms,
        headers=letter.headers,
    )
