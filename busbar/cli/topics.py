"""`busbar topics`: the topics as `topics.toml` has them, as Kafka has them, and making the two agree."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from busbar.cli._kafka import admin, consumer, find_kafka, kafka_options, partition_counts, run_kafka
from busbar.kafka_topics import TopicError
from busbar.local.errors import StackError
from busbar.topics import Topic, all_topics, create_topics, partition_profiles

PROCESSORS = ("router", "sessions", "stations", "billing")
"""Services that tell Kafka how far they have read, each under its own name as the group's."""

SHOWN = ("name", "key", "schema", "partition_counts", "policy", "retention_days", "writers", "readers", "purpose")
"""What `list --json` tells of a topic."""


@dataclass(frozen=True, slots=True)
class Described:
    """A topic as Kafka has it."""

    name: str
    partitions: int
    """0: it does not exist."""
    records: int
    """From its first to its last offset; compacted and transactional topics hold fewer."""
    lag: Mapping[str, int]
    """Records that a group has still to read, by the group's name."""


@click.group("topics")
def command() -> None:
    """List, describe and create the topics."""


@command.command("list")
@click.option("--describe", is_flag=True, help="Ask Kafka for partitions, records, and the lag of the processors.")
@click.option("--match", default="", help="Only topics with this in their names.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@kafka_options
def list_topics(describe: bool, match: str, as_json: bool, run_file: Path, bootstrap_servers: str | None) -> None:
    """List every topic with what it carries, from `topics.toml`; with --describe, what Kafka has of it."""
    chosen = [topic for topic in all_topics().values() if match.lower() in topic.name.lower()]
    if not chosen:
        raise StackError(f"no topic has {match!r} in its name: `busbar topics list` shows all of them")
    if describe:
        servers = find_kafka(bootstrap_servers, run_file)
        described = run_kafka(servers, describe_topics(servers, chosen))
        _print_described(described, as_json)
    else:
        _print_topics(chosen, as_json)


@command.command("create")
@click.option("--profile", type=click.Choice(partition_profiles()), default="local", show_default=True)
@click.option("--replication-factor", default=1, show_default=True, type=click.IntRange(1, 10))
@click.option("--timeout", default=120.0, show_default=True, help="Seconds for everything together.")
@kafka_options
def create(
    profile: str, replication_factor: int, timeout: float, run_file: Path, bootstrap_servers: str | None
) -> None:
    """Create what is missing and bring the rest in line. May be repeated at any time; nothing is ever deleted."""
    servers = find_kafka(bootstrap_servers, run_file)
    try:
        run_kafka(
            servers,
            create_topics(servers, profile, replication_factor=replication_factor, timeout_seconds=timeout),
        )
    except TopicError as error:
        raise StackError(str(error)) from error
    click.echo(f"{len(all_topics())} topics are as topics.toml has them, in the profile {profile}")


def _print_topics(topics: Sequence[Topic], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([{name: _plain(getattr(topic, name)) for name in SHOWN} for topic in topics], indent=2))
        return
    width = max(len(topic.name) for topic in topics)
    for topic in topics:
        kept = "compact" if topic.retention_days is None else f"{topic.retention_days} d"
        click.echo(f"{topic.name:<{width}}  {kept:<7}  {', '.join(topic.writers)} → {', '.join(topic.readers)}")


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value


def _print_described(described: Sequence[Described], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([asdict(topic) for topic in described], indent=2))
        return
    width = max(len(topic.name) for topic in described)
    click.echo(f"{'topic':<{width}}  {'partitions':>10}  {'records':>10}  lag")
    for topic in described:
        if topic.partitions == 0:
            click.echo(f"{topic.name:<{width}}  {'-':>10}  does not exist: create it with `busbar topics create`")
            continue
        lag = ", ".join(f"{group} {count}" for group, count in topic.lag.items())
        click.echo(f"{topic.name:<{width}}  {topic.partitions:>10}  {topic.records:>10}  {lag}")


async def describe_topics(bootstrap_servers: str, topics: Sequence[Topic]) -> list[Described]:
    """Partitions, records and lag of these topics."""
    counts = await partition_counts(bootstrap_servers, (topic.name for topic in topics))
    partitions = [TopicPartition(name, number) for name, count in counts.items() for number in range(count)]
    async with consumer(bootstrap_servers) as client:
        begins, ends = await _bounds(client, partitions)
    committed = await _committed(bootstrap_servers)
    described = []
    for topic in topics:
        own = [partition for partition in partitions if partition.topic == topic.name]
        lag = {
            group: sum(max(0, ends[each] - max(offsets.get(each, 0), begins[each])) for each in own)
            for group, offsets in committed.items()
            if group in topic.readers
        }
        records = sum(ends[each] - begins[each] for each in own)
        described.append(Described(topic.name, counts.get(topic.name, 0), records, lag))
    return described


async def _bounds(
    client: AIOKafkaConsumer, partitions: Sequence[TopicPartition]
) -> tuple[Mapping[TopicPartition, int], Mapping[TopicPartition, int]]:
    return await client.beginning_offsets(partitions), await client.end_offsets(partitions)


async def _committed(bootstrap_servers: str) -> dict[str, dict[TopicPartition, int]]:
    """How far each processor told Kafka it has read. Progress itself is in PostgreSQL; this follows it by seconds."""
    async with admin(bootstrap_servers) as client:
        return {group: await _committed_by(client, group) for group in PROCESSORS}


async def _committed_by(client: AIOKafkaAdminClient, group: str) -> dict[TopicPartition, int]:
    try:
        offsets = await client.list_consumer_group_offsets(group)
    except GroupCoordinatorNotAvailableError:
        return {}  # nobody has ever committed anything on this cluster
    return {partition: known.offset for partition, known in offsets.items() if known.offset >= 0}
