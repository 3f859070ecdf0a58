"""`busbar dead-letters`: records that could not be processed, and driving them in again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from aiokafka import AIOKafkaProducer, TopicPartition

from busbar.avro import InvalidAvro, decode
from busbar.avro.readable import instant, readable_value
from busbar.cli._kafka import (
    consumer,
    find_kafka,
    history,
    kafka_options,
    parse_since,
    partition_counts,
    run_kafka,
    starts,
)
from busbar.local.errors import StackError
from busbar.records import Record
from busbar.stream.partitioner import Partitioner
from busbar.topics import all_topics

TOPIC = "csms.dead-letters"
REDRIVEN_HEADER = "busbar-dead-letter"
"""Of a record that was driven in again: the dead letter that it comes from."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter."""

    name: str
    """Its partition and offset in `csms.dead-letters`, as `3:42`: what `show` and `replay` take."""
    topic: str
    """Where the record stood."""
    partition: int
    """-1: it was to be produced, and could not be."""
    offset: int
    timestamp_ms: int
    failed_at_ms: int
    group: str
    reason: str
    detail: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]

    @property
    def key_text(self) -> str:
        return (self.key or b"").decode("utf-8", "replace")

    @property
    def redriven_from(self) -> str | None:
        """The dead letter that this one is the second failure of."""
        return next((value.decode() for name, value in self.headers if name == REDRIVEN_HEADER), None)


def read_letter(record: Record) -> DeadLetter | None:
    """A record of `csms.dead-letters`; `None` if even that cannot be decoded."""
    try:
        _, value = decode(record.value or b"")
    except InvalidAvro:
        return None
    return DeadLetter(
        name=f"{record.partition}:{record.offset}",
        topic=value["topic"],
        partition=value["partition"],
        offset=value["offset"],
        timestamp_ms=value["timestamp"],
        failed_at_ms=value["failed_at"],
        group=value["group"],
        reason=value["reason"],
        detail=value["detail"],
        key=value["key"],
        value=value["value"],
        headers=tuple(value["headers"].items()),
    )


@click.group("dead-letters")
def command() -> None:
    """List, show and replay records that could not be processed.

    A dead letter is kept with where it stood and why. Once the reason is mended, `replay` drives the record in again.
    """


def _filters(function: Any) -> Any:
    """What narrows a list of dead letters down."""
    for option in (
        click.option("--topic", help="Of the original record."),
        click.option("--reason", help="Such as undecodable."),
        click.option("--group", help="The processor that gave up."),
        click.option("--key", help="Of the original record, as a rule the station's id."),
        click.option("--since", help="Failed since: 10m, 2h, 1d, or a point in time."),
    ):
        function = option(function)
    return function


@command.command("list")
@_filters
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="The newest ones.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@kafka_options
def list_letters(
    limit: int, as_json: bool, run_file: Path, bootstrap_servers: str | None, since: str | None, **wanted: str | None
) -> None:
    """List dead letters, oldest first. The first column is what `show` and `replay` take."""
    servers = find_kafka(bootstrap_servers, run_file)
    found = run_kafka(servers, read_letters(servers, parse_since(since) if since else 0))
    chosen = [letter for letter in found if meets(letter, wanted)]
    for letter in chosen[-limit:]:
        if as_json:
            click.echo(json.dumps(_shown(letter), ensure_ascii=False))
            continue
        again = f"  again from {letter.redriven_from}" if letter.redriven_from else ""
        click.echo(
            f"{letter.name:<8} {instant(letter.failed_at_ms)}  {letter.group}  {letter.reason}  "
            f"{letter.topic}/{letter.partition}@{letter.offset}  {letter.key_text}{again}"
        )
    if not as_json:
        more = f", the last {limit} shown" if len(chosen) > limit else ""
        click.echo(f"{len(chosen)} dead letters{more}", err=True)


@command.command("show")
@click.argument("name")
@kafka_options
def show(name: str, run_file: Path, bootstrap_servers: str | None) -> None:
    """Show the dead letter NAME (as `list` names it, such as 3:42) with its value."""
    servers = find_kafka(bootstrap_servers, run_file)
    (letter,) = run_kafka(servers, find_letters(servers, [name]))
    click.echo(json.dumps({**_shown(letter), **_value(letter)}, indent=2, ensure_ascii=False))


@command.command("replay")
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that meet the options below, rather than named ones.")
@_filters
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@kafka_options
def replay(
    names: tuple[str, ...],
    everything: bool,
    dry_run: bool,
    run_file: Path,
    bootstrap_servers: str | None,
    since: str | None,
    **wanted: str | None,
) -> None:
    """Produce the originals of dead letters to their topics again, with their key, time and headers.

    Replaying twice does no harm: processors know each fact by its business key and answer a repeated event as they
    did the first time. The replayed record says in its header busbar-dead-letter where it comes from, and the dead
    letter stays until its retention ends. What could not be written to an edge (csms.outbound) is left out, for its
    connection is gone.

    \b
    busbar dead-letters replay 3:42 0:17
    busbar dead-letters replay --all --reason undecodable --since 1d --dry-run
    """
    if bool(names) == everything:
        raise click.UsageError("name the dead letters to replay, or give --all with options that choose them")
    servers = find_kafka(bootstrap_servers, run_file)
    if names:
        chosen = run_kafka(servers, find_letters(servers, names))
    else:
        found = run_kafka(servers, read_letters(servers, parse_since(since) if since else 0))
        chosen = [letter for letter in found if meets(letter, wanted)]
    able = [letter for letter in chosen if why_not(letter) is None]
    unable = [letter for letter in chosen if why_not(letter) is not None]
    if not dry_run and able:
        run_kafka(servers, produce_again(servers, able))
    for letter in able:
        click.echo(f"{letter.name} {'would go' if dry_run else 'went'} to {letter.topic} with key {letter.key_text}")
    for letter in unable:
        click.echo(f"{letter.name} left out: {why_not(letter)}", err=True)
    click.echo(f"{len(able)} replayed{' (dry run)' if dry_run else ''}, {len(unable)} left out", err=True)


def meets(letter: DeadLetter, wanted: dict[str, str | None]) -> bool:
    """Whether the letter has what is wanted; `None` wants nothing."""
    has = {"topic": letter.topic, "reason": letter.reason, "group": letter.group, "key": letter.key_text}
    return all(value is None or has[name] == value for name, value in wanted.items())


def why_not(letter: DeadLetter) -> str | None:
    """Why a letter cannot be replayed; `None` if it can."""
    if letter.topic not in all_topics():
        return f"there is no topic {letter.topic}"
    if letter.topic == "csms.outbound":
        return "it was meant for a connection that is gone"
    if letter.value is None:
        return "its value was too large to be kept; the record still stands at its offset"
    return None


async def read_letters(bootstrap_servers: str, since_ms: int) -> list[DeadLetter]:
    """All dead letters that failed since then, oldest first."""
    count = (await partition_counts(bootstrap_servers, [TOPIC])).get(TOPIC, 0)
    partitions = [TopicPartition(TOPIC, number) for number in range(count)]
    if not partitions:
        raise StackError(f"this Kafka has no topic {TOPIC}: create the topics with `busbar topics create`")
    async with consumer(bootstrap_servers) as client:
        ends = await client.end_offsets(partitions)
        begin = await starts(client, partitions, since_ms, ends)
        letters = [letter async for record in history(client, begin, ends) if (letter := read_letter(record))]
    return sorted(letters, key=lambda letter: letter.failed_at_ms)


async def find_letters(bootstrap_servers: str, names: Sequence[str]) -> list[DeadLetter]:
    """The dead letters of these names, in their order. Raises `StackError` for a name that is none."""
    known = {letter.name: letter for letter in await read_letters(bootstrap_servers, 0)}
    missing = [name for name in names if name not in known]
    if missing:
        raise StackError(f"there is no dead letter {missing[0]}: `busbar dead-letters list` names them")
    return [known[name] for name in names]


async def produce_again(bootstrap_servers: str, letters: Sequence[DeadLetter]) -> None:
    """Append the originals to their topics; returns when all of them are durable."""
    counts = await partition_counts(bootstrap_servers, {letter.topic for letter in letters})
    missing = {letter.topic for letter in letters} - counts.keys()
    if missing:
        raise StackError(f"this Kafka has no topic {min(missing)}: create the topics with `busbar topics create`")
    partitioner = Partitioner()
    async with _producer(bootstrap_servers) as producer:
        for letter in letters:
            key = letter.key or b""
            headers = [header for header in letter.headers if header[0] != REDRIVEN_HEADER]
            await producer.send_and_wait(
                letter.topic,
                letter.value,
                key=key,
                partition=partitioner.partition(key, counts[letter.topic]),
                timestamp_ms=letter.timestamp_ms,
                headers=[*headers, (REDRIVEN_HEADER, letter.name.encode())],
            )


@asynccontextmanager
async def _producer(bootstrap_servers: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers, client_id="busbar-cli", acks="all", enable_idempotence=True
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


def _shown(letter: DeadLetter) -> dict[str, Any]:
    return {
        "name": letter.name,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "timestamp": instant(letter.timestamp_ms),
        "failed_at": instant(letter.failed_at_ms),
        "group": letter.group,
        "reason": letter.reason,
        "detail": letter.detail,
        "key": letter.key_text,
        "redriven_from": letter.redriven_from,
    }


def _value(letter: DeadLetter) -> dict[str, Any]:
    """The original's value and headers, as far as they can be read."""
    headers = {name: value.decode("utf-8", "replace") for name, value in letter.headers}
    try:
        return {"headers": headers, "value": readable_value(letter.value)}
    except InvalidAvro as error:
        return {"headers": headers, "value": (letter.value or b"").hex(), "undecodable": str(error)}
