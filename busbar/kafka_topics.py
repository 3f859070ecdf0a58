"""Bringing the topics of a Kafka cluster in line with `topics.toml`.

Kafka reports errors of administration in its responses; nothing is raised by the client. A topic's configuration is
always sent whole, because altering one entry resets the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from busbar.topics import Topic, topic_configuration

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Told how many topics take records, and how many there are."""

_ALREADY_EXISTS = 36
_DYNAMIC_TOPIC_CONFIG = 1
_TOPICS_PER_REQUEST = 30
_RETRY_SECONDS = 0.2


class TopicError(RuntimeError):
    """Topics that the cluster refuses, with its reasons."""


async def create(
    bootstrap_servers: str,
    topics: Sequence[Topic],
    profile: str,
    *,
    replication_factor: int,
    timeout_seconds: float,
    progress: Progress | None,
) -> None:
    """See `busbar.topics.create_topics`."""
    async with asyncio.timeout(timeout_seconds):
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
        try:
            await _start(admin)
            known = await _partition_counts(admin)
            absent = [topic for topic in topics if topic.name not in known]
            present = [topic for topic in topics if topic.name in known]
            await _create_absent(admin, absent, profile, replication_factor)
            await _add_partitions(admin, present, profile, known)
            await _configure(admin, present, replication_factor)
        finally:
            await admin.close()
        await _wait_until_writable(bootstrap_servers, topics, profile, progress)


async def _start(admin: AIOKafkaAdminClient) -> None:
    """Connect, however long it takes: a broker that has just started refuses connections at first."""
    while True:
        try:
            await admin.start()
            return
        except KafkaError as error:
            logger.info("waiting for the broker", extra={"reason": str(error)})
            await asyncio.sleep(_RETRY_SECONDS)


async def _partition_counts(admin: AIOKafkaAdminClient) -> dict[str, int]:
    return {entry["topic"]: len(entry["partitions"]) for entry in await admin.describe_topics()}


async def _create_absent(
    admin: AIOKafkaAdminClient, topics: Iterable[Topic], profile: str, replication_factor: int
) -> None:
    for group in _groups(topics):
        wanted = [
            NewTopic(
                topic.name,
                num_partitions=topic.partitions(profile),
                replication_factor=replication_factor,
                topic_configs=topic_configuration(topic, replication_factor),
            )
            for topic in group
        ]
        while wanted:
            response = await admin.create_topics(wanted)
            again = _refused(response.topic_errors, "create", accept=_ALREADY_EXISTS)
            wanted = [topic for topic in wanted if topic.name in again]
            await asyncio.sleep(_RETRY_SECONDS if wanted else 0)


async def _add_partitions(
    admin: AIOKafkaAdminClient, topics: Iterable[Topic], profile: str, known: Mapping[str, int]
) -> None:
    """Raise partition counts; Kafka cannot lower them."""
    larger = []
    for topic in topics:
        count = topic.partitions(profile)
        if known[topic.name] > count:
            larger.append(topic.name)
        if known[topic.name] < count:
            try:
                await admin.create_partitions({topic.name: NewPartitions(total_count=count)})
            except KafkaError as error:
                raise TopicError(f"cannot add partitions to {topic.name}: {error}") from error
    if larger:
        logger.warning("topics keep more partitions than the profile asks for", extra={"topics": larger})


async def _configure(admin: AIOKafkaAdminClient, topics: Iterable[Topic], replication_factor: int) -> None:
    """Set what differs from ours; what an operator has set beside it stays."""
    wanted = {topic.name: topic_configuration(topic, replication_factor) for topic in topics}
    for names in _groups(wanted):
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        changed = []
        for response in await admin.describe_configs(resources):
            for code, message, _, name, entries in response.resources:
                if code:
                    raise TopicError(f"cannot read the configuration of {name}: {message or for_code(code).__name__}")
                current = {key: value for key, value, _, source, *_ in entries if source == _DYNAMIC_TOPIC_CONFIG}
                if not wanted[name].items() <= current.items():
                    merged = {**current, **wanted[name]}
                    changed.append(ConfigResource(ConfigResourceType.TOPIC, name, configs=merged))
        if not changed:
            continue
        for response in await admin.alter_configs(changed):
            _refused([(name, code, text) for code, text, _, name in response.resources], "configure")


def _refused(errors: Iterable[Sequence[Any]], verb: str, accept: int = 0) -> set[str]:
    """The topics to try again. Raises `TopicError` for those that no second try helps."""
    again, fatal = set(), []
    for name, code, *message in errors:
        if code in (0, accept):
            continue
        kind = for_code(code)
        if kind.retriable and verb == "create":
            again.add(name)
        else:
            fatal.append(f"{name}: {next(filter(None, message), kind.__name__)}")
    if fatal:
        raise TopicError(f"cannot {verb} {'; '.join(fatal)}")
    return again


async def _wait_until_writable(
    bootstrap_servers: str, topics: Sequence[Topic], profile: str, progress: Progress | None
) -> None:
    """Wait until every partition takes records.

    Metadata names leaders of new topics at once, but a leader refuses requests for seconds until it has opened its
    log. It answers for the end of the log as soon as it takes records, too.
    """
    fetcher = logging.getLogger("aiokafka.consumer.fetcher")
    level = fetcher.level
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, group_id=None)
    done = 0
    try:
        await consumer.start()
        fetcher.setLevel(logging.CRITICAL)  # it reports every leader that is not ready as an error
        for group in _groups(topics):
            partitions = [TopicPartition(topic.name, p) for topic in group for p in range(topic.partitions(profile))]
            consumer.assign(partitions)
            while not {topic.name for topic in group} <= await consumer.topics():  # noqa: ASYNC110 - the broker knows
                await asyncio.sleep(_RETRY_SECONDS)
            await consumer.end_offsets(partitions)
            done += len(group)
            if progress is not None:
                progress(done, len(topics))
    finally:
        fetcher.setLevel(level)
        await consumer.stop()


def _groups(items: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(items)
    while group := list(islice(rest, _TOPICS_PER_REQUEST)):
        yield group
