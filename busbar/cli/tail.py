"""`busbar tail`: a station's frames as they pass."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
from aiokafka import AIOKafkaConsumer, TopicPartition

from busbar.cli._frames import OTHER_TOPICS, OUTBOUND, Line, json_line, read_line, text_line
from busbar.cli._kafka import (
    consumer,
    find_kafka,
    history,
    kafka_options,
    parse_since,
    partition_counts,
    record_of,
    run_kafka,
    starts,
)
from busbar.stream.partitioner import Partitioner
from busbar.topics import all_topics

ORDERING_SECONDS = 0.3
"""Lines that come within this time are put in the order in which things happened."""


@dataclass(frozen=True, slots=True)
class Tail:
    """What was asked for."""

    station_id: str
    since_ms: int | None
    follow: bool
    actions: frozenset[str]
    write: Callable[[Line], None]
    ready: Callable[[], None] = lambda: None
    """Told once everything that comes from now on will be seen."""


@click.command("tail")
@click.argument("station")
@click.option("--since", help="Begin in the past: 10m, 2h, 1d, or a point in time. Without it: from now on.")
@click.option("--follow/--no-follow", default=True, help="Go on with what comes.  [default: follow]")
@click.option("--action", "actions", multiple=True, help="Only these actions. May be repeated.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, payloads whole.")
@click.option("--wide", is_flag=True, help="Do not cut lines to the width of the terminal.")
@kafka_options
def command(
    station: str,
    since: str | None,
    follow: bool,
    actions: tuple[str, ...],
    as_json: bool,
    wide: bool,
    run_file: Path,
    bootstrap_servers: str | None,
) -> None:
    """Show the frames of STATION, in both directions, as they pass through Kafka.

    → comes from the station, ← goes to it, · is about its connection or a command. Heartbeats are answered by the
    edge at once, so their answers are not seen here; passwords are hidden.

    \b
    busbar tail DEMO-0001
    busbar tail DEMO-0001 --since 1h --no-follow --action TransactionEvent
    """
    servers = find_kafka(bootstrap_servers, run_file)
    width = None if wide or not sys.stdout.isatty() else shutil.get_terminal_size().columns

    def write(line: Line) -> None:
        click.echo(json_line(line) if as_json else text_line(line, width))

    if since is None and not follow:
        raise click.UsageError("--no-follow shows what has passed: give --since as well, for instance --since 1h")

    def ready() -> None:
        click.echo(f"following {station}; Ctrl-C ends it", err=True)

    asked = Tail(station, parse_since(since) if since else None, follow, frozenset(actions), write, ready)
    run_kafka(servers, tail(servers, asked))


async def tail(bootstrap_servers: str, asked: Tail) -> None:
    """Write the lines of a station until interrupted, or to the end of what there is."""
    partitions = await station_partitions(bootstrap_servers, asked.station_id)
    async with consumer(bootstrap_servers) as client:
        ends = await client.end_offsets(partitions)
        begin = await starts(client, partitions, asked.since_ms, ends)
        past = [record async for record in history(client, begin, ends)]
        lines = [line for record in past if (line := read_line(record, asked.station_id)) is not None]
        for line in sorted(lines, key=lambda line: line.order):
            # Records are not in the order of their times: the first one that is young enough has older ones after it.
            if asked.since_ms is None or line.at_ms >= asked.since_ms:
                _write(asked, line)
        if asked.follow:
            asked.ready()
            await _follow(client, asked)


async def _follow(client: AIOKafkaConsumer, asked: Tail) -> None:
    waiting: list[Line] = []
    oldest = 0.0
    while True:
        batches = await client.getmany(timeout_ms=200)
        for message in (message for messages in batches.values() for message in messages):
            line = read_line(record_of(message), asked.station_id)
            if line is not None:
                oldest = oldest if waiting else time.monotonic()
                waiting.append(line)
        if waiting and (not batches or time.monotonic() > oldest + ORDERING_SECONDS):
            for line in sorted(waiting, key=lambda line: line.order):
                _write(asked, line)
            waiting.clear()


def _write(asked: Tail, line: Line) -> None:
    if not asked.actions or line.action in asked.actions:
        asked.write(line)


async def station_partitions(bootstrap_servers: str, station_id: str) -> list[TopicPartition]:
    """Where the records of a station are: its own partition of each topic, and all of `csms.outbound`, which has one
    partition for each edge.
    """
    topics = [topic.name for topic in all_topics().values() if topic.action is not None]
    partitioner, found = Partitioner(), []
    for topic, count in (await partition_counts(bootstrap_servers, (*topics, *OTHER_TOPICS))).items():
        numbers = range(count) if topic == OUTBOUND else (partitioner.partition(station_id.encode(), count),)
        found += [TopicPartition(topic, number) for number in numbers]
    if not found:
        raise click.ClickException("this Kafka has no topics of Busbar: create them with `busbar topics create`")
    return found
