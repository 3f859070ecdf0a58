"""Every topic there is: read from `schemas/topics.toml`, with one per station-to-CSMS action from `actions.toml`.

The code knows no other topic names: ask `station_topic` or spell a name that `all_topics()` holds.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from busbar.ocpp.versions import Version
from busbar.resources import schemas_folder

MAX_BATCH_BYTES = 1_048_576 + 65_536
"""What a topic takes in one batch: a producer's largest request, 1 MiB at most, and what surrounds its records."""

_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic, as `topics.toml` describes it."""

    name: str
    key: str
    """What the record key is: `station`, `pod`, `cdr`, `station/connector`, `site` or `as the original`."""
    schema: str
    """Full name of the value's Avro record, such as `csms.OutboundMessage` or `ocpp.v16.MeterValues`."""
    partition_group: str
    """Topics of one group have the same count, so that one key has the same partition number in all of them."""
    partition_counts: Mapping[str, int]
    policy: str
    """`delete` or `compact`."""
    retention_days: int | None
    """`None` for compacted topics: the last record of each key stays."""
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    purpose: str
    version: Version | None = None
    """Of an action topic."""
    action: str | None = None
    """Of an action topic."""

    def partitions(self, profile: str) -> int:
        """The partition count in a profile (`local`, `small` or `large`)."""
        try:
            return self.partition_counts[profile]
        except KeyError:
            known = ", ".join(self.partition_counts)
            raise ValueError(f"no partitions profile {profile!r}: there are {known}") from None


def station_topic(version: Version, action: str) -> str:
    """The topic of a station-to-CSMS action, such as `ocpp.v201.TransactionEvent`."""
    return f"ocpp.{version.label}.{action}"


@cache
def all_topics() -> dict[str, Topic]:
    """Every topic by name: action topics first, then the others in the order of the file."""
    with (schemas_folder() / "topics.toml").open("rb") as file:
        table = tomllib.load(file)
    with (schemas_folder() / "actions.toml").open("rb") as file:
        actions = tomllib.load(file)
    topics = [*_action_topics(table, actions), *_other_topics(table)]
    return {topic.name: topic for topic in topics}


def topics_read_by(service: str) -> tuple[str, ...]:
    """The topics that a service reads, in the order of `all_topics()`."""
    return tuple(topic.name for topic in all_topics().values() if service in topic.readers)


def topics_written_by(service: str) -> tuple[str, ...]:
    """The topics that a service writes, those that any service may write included."""
    return tuple(topic.name for topic in all_topics().values() if service in topic.writers or "any" in topic.writers)


def partition_profiles() -> tuple[str, ...]:
    """The names of the partition profiles that every group of topics has a count for."""
    groups = [set(topic.partition_counts) for topic in all_topics().values()]
    return tuple(name for name in next(iter(all_topics().values())).partition_counts if all(name in g for g in groups))


def topic_configuration(topic: Topic, replication_factor: int) -> dict[str, str]:
    """The whole configuration of a topic, as Kafka spells it."""
    configuration = {
        "cleanup.policy": topic.policy,
        "compression.type": "producer",
        "message.timestamp.type": "CreateTime",
        "max.message.bytes": str(MAX_BATCH_BYTES),
        "min.insync.replicas": str(max(1, replication_factor - 1)),
        "unclean.leader.election.enable": "false",
    }
    if topic.retention_days is None:
        # Only closed segments are compacted.
        return configuration | {"segment.ms": str(_DAY_MS), "delete.retention.ms": str(7 * _DAY_MS)}
    retention_ms = topic.retention_days * _DAY_MS
    # Only closed segments are deleted: a tenth of the retention is the most that a record stays beyond it.
    segment_ms = min(retention_ms // 10, 7 * _DAY_MS)
    return configuration | {"retention.ms": str(retention_ms), "segment.ms": str(segment_ms)}


async def create_topics(
    bootstrap_servers: str,
    profile: str,
    *,
    replication_factor: int = 1,
    topics: Sequence[str] | None = None,
    timeout_seconds: float = 120.0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Create the topics that a cluster lacks, bring the others in line, and wait until all of them take records.

    It may be repeated at any time: partition counts are raised and never lowered, and a configuration that differs
    is set again. A broker that does not answer yet is waited for.

    Args:
        bootstrap_servers: Comma-separated `HOST:PORT`s.
        profile: The partitions profile: `local`, `small` or `large`.
        replication_factor: Of new topics. One replica less than that has to be in sync for a record to be durable.
        topics: Their names; all of them unless given.
        timeout_seconds: For everything together.
        progress: Told how many topics take records, and how many there are.

    Raises:
        TopicError: The cluster refuses a topic; the message says which and why.
        TimeoutError: Not all topics take records in time.
    """
    from busbar import kafka_topics  # aiokafka takes a while to import, and few users of this module need a broker

    known = all_topics()
    await kafka_topics.create(
        bootstrap_servers,
        [known[name] for name in (known if topics is None else topics)],
        profile,
        replication_factor=replication_factor,
        timeout_seconds=timeout_seconds,
        progress=progress,
    )


def _action_topics(table: Mapping[str, Any], actions: Mapping[str, Any]) -> Iterator[Topic]:
    for version in Version:
        for action, row in actions[version.label].items():
            if not isinstance(row, dict):
                continue  # csms_actions: what the CSMS asks of stations travels on csms.commands
            overrides = table["actions"].get("overrides", {})
            entry = {**table["actions"], **overrides.get(action, {}), **overrides.get(f"{version.label}.{action}", {})}
            # The edge answers its own actions before they are published, so it does not read them back.
            owner = () if row["owner"] == "edge" else (row["owner"],)
            yield _topic(
                station_topic(version, action),
                {**entry, "schema": f"ocpp.{version.label}.{action}", "readers": (*owner, *entry["readers"])},
                table,
                version=version,
                action=action,
            )


def _other_topics(table: Mapping[str, Any]) -> Iterator[Topic]:
    for name, entry in table["topics"].items():
        yield _topic(name, entry, table)


def _topic(
    name: str,
    entry: Mapping[str, Any],
    table: Mapping[str, Any],
    *,
    version: Version | None = None,
    action: str | None = None,
) -> Topic:
    return Topic(
        name=name,
        key=entry["key"],
        schema=entry["schema"],
        partition_group=entry["partitions"],
        partition_counts=table["partitions"][entry["partitions"]],
        policy=entry["policy"],
        retention_days=entry.get("retention_days"),
        writers=tuple(entry["writers"]),
        readers=tuple(entry["readers"]),
        purpose=entry["purpose"],
        version=version,
        action=action,
    )
