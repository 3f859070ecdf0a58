"""Pages that follow from `topics.toml` and `actions.toml`: `docs/topics.md`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from busbar.ocpp.versions import Version
from busbar.topics import Topic, all_topics, partition_profiles

_HEAD = """\
<!-- Made by `make schemas` from schemas/topics.toml and schemas/actions.toml: change those. -->

# Topics

Every topic, who writes it, who reads it and what it carries. `schemas/topics.toml` is where this page comes from; the
local stack, the Kubernetes job and the API take their topics from the same file.

## How values are written

- Avro in the Confluent wire format: a zero byte, the id of the schema in four bytes, Avro's binary encoding. The ids
  are in `schemas/registry.lock.json`, with the text of every version of every schema; the API answers the read side
  of the schema registry protocol from it, so that `kcat`, Kafka Connect, Flink and others decode the topics.
- A schema grows by fields with defaults: every version reads the data of every other one, both ways.
- Instants are `timestamp-millis` in UTC. Energy and money are `decimal`.
- The record timestamp is the time at which the edge received the event, never the station's clock.
- The key decides the partition by murmur2, as Java's default partitioner does it. Topics of one group have the same
  number of partitions, so a station has the same partition in all of them.

## How CALLs of stations are written

A record on `ocpp.<version>.<Action>` has two fields: `meta`, where it came from (station, connection, edge, sequence,
message id, time of receipt), and `payload`, the payload as the station sent it:

- Members have the names and types that the specification gives them. Enumerations are strings, so that a value that
  the specification does not have is recorded too. Dates and times are the station's own text.
- An optional member that is absent is null.
- `customData`, and `data` of DataTransfer in 2.x, are JSON text.
- `extra` maps the names of members that the schema has no place for to JSON text: unknown ones, and those of another
  type than the specification says. It also has the exact text of a number beyond 64 bits or beyond a double's
  precision, next to the nearest number in its field. With `extra` put back, the payload is what the station sent;
  an integral number in an integer field may have lost its `.0`.
"""


def topics_page() -> str:
    """The text of `docs/topics.md`."""
    lines = [_HEAD, "## Topics of Busbar", "", *_other_topics(), "", "## Topics of actions", "", *_action_topics()]
    return "\n".join(lines) + "\n"


def _other_topics() -> Iterator[str]:
    topics = [topic for topic in all_topics().values() if topic.action is None]
    yield from _table(
        ("topic", "key", "value", "kept", "partitions", "from", "to", "what it carries"),
        (
            (
                f"`{topic.name}`",
                topic.key,
                _schema_link(topic),
                _kept(topic),
                topic.partition_group,
                ", ".join(topic.writers),
                ", ".join(topic.readers),
                topic.purpose,
            )
            for topic in topics
        ),
    )
    yield ""
    profiles = partition_profiles()
    yield "Partitions, by profile:"
    yield ""
    groups = {topic.partition_group: topic for topic in all_topics().values()}
    yield from _table(
        ("group", *profiles), ((name, *(str(t.partitions(p)) for p in profiles)) for name, t in groups.items())
    )


def _action_topics() -> Iterator[str]:
    """One table per version; what all action topics have in common stands above it."""
    first = next(topic for topic in all_topics().values() if topic.action is not None)
    yield (
        f"What they have in common: {first.purpose}. Key: {first.key}. Partitions: {first.partition_group}. "
        f"From: {', '.join(first.writers)}, which answers heartbeats itself."
    )
    for version in Version:
        topics = [topic for topic in all_topics().values() if topic.version is version]
        yield ""
        yield f"### OCPP {version.value}: {len(topics)} actions"
        yield ""
        yield from _table(
            ("topic and value", "kept", "to"),
            ((_schema_link(topic), _kept(topic), ", ".join(topic.readers)) for topic in topics),
        )


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    cells = list(head)
    yield f"| {' | '.join(cells)} |"
    yield f"|{'---|' * len(cells)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _schema_link(topic: Topic) -> str:
    path = topic.schema.replace(".", "/")
    return f"[`{topic.schema}`](../schemas/avro/{path}.avsc)"


def _kept(topic: Topic) -> str:
    if topic.retention_days is None:
        return "the last of each key"
    return f"{topic.retention_days} day{'s' if topic.retention_days > 1 else ''}"
