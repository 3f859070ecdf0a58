"""The commands that look into Kafka, on a real broker."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from busbar.avro import encode, meta_prefix
from busbar.avro.calls import call_encoder
from busbar.cli._frames import Line
from busbar.cli.dead_letters import REDRIVEN_HEADER, find_letters, produce_again, read_letters
from busbar.cli.tail import Tail, station_partitions, tail
from busbar.cli.topics import describe_topics
from busbar.local.errors import StackError
from busbar.ocpp.versions import Version
from busbar.records import Record, Result, StationCall
from busbar.stream.dead_letters import dead_letter
from busbar.stream.partitioner import Partitioner
from busbar.stream.replies import reply
from busbar.topics import all_topics

AT_MS = time.time_ns() // 1_000_000 - 600_000
"""Ten minutes ago: Kafka deletes what is older than the retention."""
PARTITIONS = 4


def partition_of(station_id: str) -> int:
    return Partitioner().partition(station_id.encode(), PARTITIONS)


def call(station_id: str, number: int, payload: dict[str, Any]) -> tuple[Result, StationCall]:
    """A CALL as the edge publishes it."""
    prefix = meta_prefix(station_id, "c-1", "edge-0", 5, Version.V16)
    at_ms = AT_MS + number * 1_000
    value = call_encoder(Version.V16, "StatusNotification")(prefix, number, f"m-{number}", at_ms, payload)
    result = Result(
        "ocpp.v16.StatusNotification",
        station_id.encode(),
        value,
        partition=partition_of(station_id),
        timestamp_ms=at_ms,
        headers=(("traceparent", b"00-t"),),
    )
    one = StationCall(
        station_id, "c-1", "edge-0", 5, Version.V16, number, f"m-{number}", at_ms, "StatusNotification", payload
    )
    return result, one


async def produce(bootstrap_servers: str, results: Sequence[Result]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers)
    await producer.start()
    try:
        for one in results:
            await producer.send_and_wait(
                one.topic,
                one.value,
                key=one.key,
                partition=one.partition,
                timestamp_ms=one.timestamp_ms,
                headers=list(one.headers),
            )
    finally:
        await producer.stop()


async def records(bootstrap_servers: str, topic: str) -> list[Any]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, group_id=None, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        found: list[Any] = []
        while any([await consumer.position(each) < ends[each] for each in partitions]):
            for batch in (await consumer.getmany(timeout_ms=500)).values():
                found += batch
        return found
    finally:
        await consumer.stop()


async def until(check: Callable[[], bool], seconds: float = 20.0) -> None:
    for _ in range(round(seconds / 0.1)):
        if check():
            return
        await asyncio.sleep(0.1)


STATUS = {"connectorId": 1, "errorCode": "NoError", "status": "Available"}


async def test_a_station_is_tailed_in_the_order_in_which_things_happened_and_no_other_is(topics: str) -> None:
    neighbour = next(name for number in range(99) if partition_of(name := f"N-{number}") == partition_of("TAIL-1"))
    results = []
    for number in (3, 1, 2):  # from three producers, as it were
        record, one = call("TAIL-1", number, {**STATUS, "connectorId": number})
        results += [reply(one, {}, "stations", one.received_at_ms), record, call(neighbour, number, STATUS)[0]]
    await produce(topics, results)
    lines: list[Line] = []
    await tail(topics, Tail("TAIL-1", AT_MS - 1, False, frozenset(), lines.append))
    assert [(line.kind, line.message_id) for line in lines] == [
        ("CALL", "m-1"),
        ("CALLRESULT", "m-1"),
        ("CALL", "m-2"),
        ("CALLRESULT", "m-2"),
        ("CALL", "m-3"),
        ("CALLRESULT", "m-3"),
    ]
    later: list[Line] = []
    await tail(topics, Tail("TAIL-1", AT_MS + 2_500, False, frozenset({"StatusNotification"}), later.append))
    assert [line.message_id for line in later] == ["m-3", "m-3"]


async def test_following_shows_what_comes_and_nothing_from_before(topics: str) -> None:
    await produce(topics, [call("TAIL-2", 1, STATUS)[0]])
    lines: list[Line] = []
    ready = asyncio.Event()
    asked = Tail("TAIL-2", None, True, frozenset(), lines.append, ready.set)
    following = asyncio.create_task(tail(topics, asked))
    await asyncio.wait_for(ready.wait(), 60)
    await produce(topics, [call("TAIL-2", 2, STATUS)[0]])
    await until(lambda: bool(lines))
    following.cancel()
    assert [line.message_id for line in lines] == ["m-2"]


async def test_only_the_partitions_of_the_station_and_all_of_the_edges_are_read(topics: str) -> None:
    partitions = await station_partitions(topics, "TAIL-1")
    own = {each.partition for each in partitions if each.topic != "csms.outbound"}
    assert own == {partition_of("TAIL-1")}
    assert sum(each.topic == "csms.outbound" for each in partitions) == all_topics()["csms.outbound"].partitions(
        "local"
    )


async def test_a_dead_letter_is_listed_and_driven_in_again_with_its_key_time_and_headers(topics: str) -> None:
    original, _ = call("DEAD-1", 1, STATUS)
    record = Record(
        original.topic,
        original.partition or 0,
        17,
        original.timestamp_ms or 0,
        original.key,
        original.value,
        original.headers,
    )
    await produce(topics, [dead_letter(record, "stations", "unstorable", "a detail", AT_MS + 5_000)])
    (letter,) = [each for each in await read_letters(topics, 0) if each.key == b"DEAD-1"]
    assert (letter.topic, letter.offset, letter.reason) == (original.topic, 17, "unstorable")
    assert await find_letters(topics, [letter.name]) == [letter]

    before = len(await records(topics, original.topic))
    await produce_again(topics, [letter])
    found = [each for each in await records(topics, original.topic) if each.key == b"DEAD-1"]
    assert len(await records(topics, original.topic)) == before + 1
    (again,) = found
    assert (again.partition, again.value, again.timestamp) == (
        original.partition,
        original.value,
        original.timestamp_ms,
    )
    assert again.headers == (("traceparent", b"00-t"), (REDRIVEN_HEADER, letter.name.encode()))
    with pytest.raises(StackError, match="9:9"):
        await find_letters(topics, ["9:9"])


async def test_letters_are_read_since_a_time(topics: str) -> None:
    for number in (1, 2):
        record = Record("csms.commands", 0, number, AT_MS, b"DEAD-2", b"value")
        await produce(topics, [dead_letter(record, "router", "undecodable", "", AT_MS + number * 100_000)])
    found = [each.offset for each in await read_letters(topics, AT_MS + 150_000) if each.key == b"DEAD-2"]
    assert found == [2]


async def test_topics_are_described_with_what_groups_have_still_to_read(topics: str) -> None:
    command = {
        "command_id": "c-1",
        "station_id": "LAG-1",
        "action": "Reset",
        "payload": "{}",
        "requested_by": "test",
        "requested_at": AT_MS,
        "deadline_at": AT_MS,
    }
    value = encode("csms.Command", command)
    one = Result("csms.commands", b"LAG-1", value, partition=partition_of("LAG-1"), timestamp_ms=AT_MS)
    (before,) = await describe_topics(topics, [all_topics()["csms.commands"]])
    await produce(topics, [one, one])
    (after,) = await describe_topics(topics, [all_topics()["csms.commands"]])
    assert (after.partitions, after.records) == (PARTITIONS, before.records + 2)
    assert after.lag["router"] == before.lag["router"] + 2


async def test_the_program_itself_says_it_all_in_json(topics: str) -> None:
    await produce(topics, [call("TAIL-3", 1, STATUS)[0]])
    arguments = ["tail", "TAIL-3", "--since", "1h", "--no-follow", "--json"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "busbar", *arguments, "--bootstrap-servers", topics, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    (line,) = [json.loads(each) for each in output.splitlines()]
    assert (line["from"], line["action"], line["content"]) == ("station", "StatusNotification", STATUS)
