"""What the commands that look into Kafka have in common: where it is, and reading topics from here to there."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from busbar.local.errors import StackError
from busbar.local.runfile import RunFile
from busbar.ocpp.times import parse_timestamp, timestamp_ms
from busbar.records import Record

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_RUN_FILE = Path(".busbar/run.json")
CONNECT_SECONDS = 10.0
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def run_file_option(function: Callable[P, T]) -> Callable[P, T]:
    """`--run-file`: the stack that `busbar up` runs here."""
    return click.option(
        "--run-file",
        type=click.Path(path_type=Path),
        default=DEFAULT_RUN_FILE,
        show_default=True,
        help="Of a running stack, for what is not given.",
    )(function)


def kafka_options(function: Callable[P, T]) -> Callable[P, T]:
    """`--bootstrap-servers` and `--run-file`."""
    return click.option(
        "--bootstrap-servers",
        envvar="KAFKA_BOOTSTRAP_SERVERS",
        show_envvar=True,
        help="HOST:PORT of Kafka; that of the running stack unless given.",
    )(run_file_option(function))


def find_kafka(bootstrap_servers: str | None, run_file: Path) -> str:
    """Where Kafka is. Raises `StackError` with the remedy if nobody says."""
    if bootstrap_servers:
        return bootstrap_servers
    if not run_file.exists():
        raise StackError(
            f"which Kafka? There is no {run_file}: start `busbar up`, or give --bootstrap-servers HOST:PORT"
        )
    return RunFile.read(run_file).kafka.url


def run_kafka(bootstrap_servers: str, work: Coroutine[Any, Any, T]) -> T:
    """Run what talks to Kafka; a broker that does not answer is told in one line."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        return asyncio.run(work)
    except (KafkaError, OSError, TimeoutError) as error:
        if isinstance(error, BrokenPipeError):
            os._exit(0)  # `| head` has seen enough
        raise StackError(
            f"Kafka at {bootstrap_servers} does not answer ({type(error).__name__}): is it running there?"
        ) from error
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None


def parse_since(text: str, now: datetime | None = None) -> int:
    """Read `10m`, `2h`, `1d` ago or a point in time, as Unix milliseconds. Raises `click.BadParameter`."""
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if ago:
        span = timedelta(**{_UNITS[ago[2]]: float(ago[1])})
        return timestamp_ms((now or datetime.now(UTC)) - span)
    try:
        return timestamp_ms(parse_timestamp(text))
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither a time ago, as 10m, 2h or 1d, nor a point in time") from None


@asynccontextmanager
async def consumer(bootstrap_servers: str) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer without a group, which commits nothing."""
    client = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        client_id="busbar-cli",
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        request_timeout_ms=10_000,
    )
    async with asyncio.timeout(CONNECT_SECONDS):
        await client.start()
    try:
        yield client
    finally:
        await client.stop()


@asynccontextmanager
async def admin(bootstrap_servers: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """A client for questions about topics and groups."""
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, client_id="busbar-cli", request_timeout_ms=10_000)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await client.start()
        yield client
    finally:
        await client.close()


async def partition_counts(bootstrap_servers: str, topics: Iterable[str]) -> dict[str, int]:
    """How many partitions each of these topics has; topics that do not exist are left out."""
    wanted = set(topics)
    async with admin(bootstrap_servers) as client:
        described = await client.describe_topics()
    return {topic["topic"]: len(topic["partitions"]) for topic in described if topic["topic"] in wanted}


async def starts(
    client: AIOKafkaConsumer,
    partitions: Iterable[TopicPartition],
    since_ms: int | None,
    ends: Mapping[TopicPartition, int],
) -> dict[TopicPartition, int]:
    """Where to begin: at the first record not older than `since_ms`; at the end if there is none, or without it."""
    if since_ms is None:
        return dict(ends)
    found = await client.offsets_for_times(dict.fromkeys(partitions, since_ms))
    return {partition: (at.offset if (at := found.get(partition)) else ends[partition]) for partition in partitions}


async def history(
    client: AIOKafkaConsumer, begin: Mapping[TopicPartition, int], end: Mapping[TopicPartition, int]
) -> AsyncIterator[Record]:
    """The records between these offsets, partition by partition as they come. The consumer goes on from there."""
    client.assign(list(begin))
    for partition, offset in begin.items():
        client.seek(partition, offset)
    open_partitions = {partition for partition, offset in begin.items() if offset < end[partition]}
    while open_partitions:
        batches = await client.getmany(*open_partitions, timeout_ms=500)
        for partition, messages in batches.items():
            for message in messages:
                if message.offset < end[partition]:
                    yield record_of(message)
                else:
                    client.seek(partition, message.offset)
                    break
        open_partitions = {each for each in open_partitions if await client.position(each) < end[each]}


def record_of(message: Any) -> Record:
    """A record as the rest of Busbar knows it."""
    return Record(
        message.topic,
        message.partition,
        message.offset,
        message.timestamp,
        message.key,
        message.value,
        tuple((name, value or b"") for name, value in message.headers),
    )
