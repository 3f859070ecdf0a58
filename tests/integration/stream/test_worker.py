"""One worker on real Kafka and PostgreSQL: the fates of records, and what it does while a server is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import GroupCoordinatorNotAvailableError
from prometheus_client import REGISTRY

from busbar.avro import decode
from busbar.local.kafka import TEST, KafkaCluster
from busbar.local.postgres import PostgresServer
from busbar.postgres import migrate
from busbar.service import Health
from busbar.stream.dead_letters import DEAD_LETTER_TOPIC
from busbar.stream.kafka import KafkaProducer
from busbar.stream.kafka_producer import RefusedRecord
from busbar.stream.worker import WorkerSettings, run_processor
from tests.integration.stream.chain import TABLE, ChainProcessor
from tests.integration.stream.conftest import Chains, create_topics, read_all, until

SETTINGS = WorkerSettings(lease_seconds=2.0, due_seconds=0.2)


@asynccontextmanager
async def running(
    chains: Chains, *, by_call: bool = True, settings: WorkerSettings = SETTINGS
) -> AsyncIterator[tuple[ChainProcessor, Health, asyncio.Task[None]]]:
    """A worker of the group, ended as SIGTERM ends it."""
    processor = ChainProcessor(chains.group, chains.topics, chains.out, by_call=by_call)
    health, stop = Health(), asyncio.Event()
    task = asyncio.create_task(
        run_processor(
            processor,
            bootstrap_servers=chains.servers,
            database_url=chains.url,
            health=health,
            stop=stop,
            settings=settings,
        )
    )
    try:
        yield processor, health, task
    finally:
        stop.set()
        if not task.done():
            await asyncio.wait_for(task, 15)


async def dead_letters(chains: Chains) -> list[dict[str, object]]:
    letters = [decode(record.value or b"")[1] for record in await read_all(chains.servers, DEAD_LETTER_TOPIC)]
    return [letter for letter in letters if letter["group"] == chains.group]


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize("by_call", [True, False], ids=["store_call", "store"])
async def test_a_backlog_is_folded_in_order_and_every_result_is_produced(chains: Chains, by_call: bool) -> None:
    chains.write(6_000, topic=0)
    chains.write(1_000, topic=1)
    async with running(chains, by_call=by_call) as (_, health, _task):
        await chains.wait_until_folded()
        assert health.problems(health.ready) == health.problems(health.live) == {}
        chains.write(40)
        await chains.wait_until_folded()
    await chains.check()
    assert len(await chains.produced()) == 7_040


async def test_a_restarted_worker_goes_on_where_the_one_before_it_ended(chains: Chains) -> None:
    for _ in range(3):
        async with running(chains):
            chains.write(200)
            await chains.wait_until_folded()
    await chains.check()
    assert len(await chains.produced()) == 600


async def test_invalid_records_become_dead_letters_and_the_others_go_on(chains: Chains) -> None:
    chains.write(8)
    chains.put("poison", partition=1)
    chains.put(None, partition=2)
    chains.write(8)
    async with running(chains):
        await chains.wait_until_folded()
        await until(lambda: _count(chains, 2))
    await chains.check()
    by_reason = {letter["reason"]: letter for letter in await dead_letters(chains)}
    assert by_reason.keys() == {"poisoned", "empty"}
    letter = by_reason["poisoned"]
    assert (letter["topic"], letter["partition"], letter["offset"]) == (chains.topics[0], 1, 2)
    assert (letter["key"], letter["value"], letter["detail"]) == (b"station-1", b"poison", "as the test wants it")
    assert by_reason["empty"]["value"] is None
    assert metric("csms_stream_dead_letters_total", group=chains.group, reason="poisoned") == 1
    assert metric("csms_stream_records_total", group=chains.group, topic=chains.topics[0], fate="handled") == 16


async def test_a_dead_letter_tells_in_its_headers_where_the_record_stood(chains: Chains) -> None:
    chains.put("poison", partition=3)
    async with running(chains):
        await until(lambda: _count(chains, 1))
    letters = [
        record
        for record in await read_all(chains.servers, DEAD_LETTER_TOPIC)
        if ("group", chains.group.encode()) in record.headers
    ]
    assert dict(letters[0].headers) == {
        "topic": chains.topics[0].encode(),
        "partition": b"3",
        "offset": b"0",
        "group": chains.group.encode(),
        "reason": b"poisoned",
    }
    assert letters[0].key == b"station-3"


async def _count(chains: Chains, count: int) -> bool:
    return len(await dead_letters(chains)) >= count


async def test_a_busy_record_holds_up_its_own_partition_only_and_is_folded_in_its_turn(chains: Chains) -> None:
    chains.write(8)
    chains.put("busy", partition=1)
    chains.write(8)
    async with running(chains) as (processor, health, _):
        waiting = {(chains.topics[0], number): 4 if number != 1 else 2 for number in range(4)}
        await until(lambda: chains.has_counts(waiting))
        await asyncio.sleep(0.5)
        assert await chains.has_counts(waiting)
        assert health.problems(health.ready) == {}
        assert await dead_letters(chains) == []
        processor.patience.set()
        await chains.wait_until_folded()
    await chains.check()


@pytest.mark.parametrize("by_call", [True, False], ids=["store_call", "store"])
async def test_a_record_that_the_database_refuses_is_found_and_dead_lettered_alone(
    chains: Chains, by_call: bool
) -> None:
    chains.write(400)
    chains.put("nul", partition=2)
    chains.write(400)
    async with running(chains, by_call=by_call):
        await chains.wait_until_folded()
        await until(lambda: _count(chains, 1))
    await chains.check()
    assert [(letter["reason"], letter["value"]) for letter in await dead_letters(chains)] == [("unstorable", b"nul")]


async def test_a_result_that_no_topic_can_take_is_dead_lettered_and_holds_up_nothing(chains: Chains) -> None:
    chains.write(4)
    chains.put("nowhere", partition=0)
    chains.write(4)
    async with running(chains):
        await chains.wait_until_folded()
        await until(lambda: _count(chains, 1))
    await chains.check()
    letter = (await dead_letters(chains))[0]
    assert (letter["reason"], letter["topic"], letter["value"]) == ("unknown-partition", chains.out, b"lost")


async def test_an_error_in_a_fold_ends_the_worker_and_loses_nothing_that_came_before(chains: Chains) -> None:
    chains.write(8)
    async with running(chains) as (_, _, task):
        await chains.wait_until_folded()
        chains.put("bug", partition=0)
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(task, 10)
    await chains.check()


async def test_kafka_is_told_the_offsets_for_lag_tools(chains: Chains) -> None:
    chains.write(8)
    async with running(chains, settings=WorkerSettings(tell_seconds=0.1, kafka_commit_seconds=0.2)):
        await chains.wait_until_folded()

        async def told() -> bool:
            admin = AIOKafkaAdminClient(bootstrap_servers=chains.servers)
            await admin.start()
            try:
                offsets = await admin.list_consumer_group_offsets(chains.group)
                return {name.partition: entry.offset for name, entry in offsets.items()} == dict.fromkeys(range(4), 2)
            except GroupCoordinatorNotAvailableError:  # a fresh broker makes the topic for offsets when it is asked
                return False
            finally:
                await admin.close()

        await until(told)


@pytest.fixture
async def own_postgres(tmp_path: Path) -> AsyncIterator[PostgresServer]:
    """A server that the test may kill."""
    server = PostgresServer(tmp_path / "postgres")
    await server.start()
    try:
        await migrate(server.url_of("postgres"))
        connection = await asyncpg.connect(server.url_of("postgres"))
        await connection.execute(TABLE)
        await connection.close()
        yield server
    finally:
        await server.remove()


async def test_while_postgres_is_away_records_wait_and_none_is_given_up(
    topics: str, own_postgres: PostgresServer
) -> None:
    async with KafkaProducer(topics) as producer:
        chains = Chains(topics, own_postgres.url_of("postgres"), producer)
        await chains.create()
        chains.write(400)
        async with running(chains, settings=WorkerSettings(lease_seconds=2.0)) as (_, health, task):
            await chains.wait_until_folded()
            await own_postgres.kill()
            chains.write(400)
            await until(lambda: _says(health, "postgres"), 20)
            assert metric("csms_stream_store_failures_total", group=chains.group) > 0
            assert not task.done()
            assert health.problems(health.live) == {}
            await own_postgres.restart()
            await chains.wait_until_folded()
            await until(lambda: _is_ready(health))
        await chains.check()
        assert await dead_letters(chains) == []


async def _says(health: Health, name: str) -> bool:
    return name in health.problems(health.ready)


async def _is_ready(health: Health) -> bool:
    return health.problems(health.ready) == {}


@pytest.fixture
async def own_kafka(tmp_path: Path) -> AsyncIterator[KafkaCluster]:
    """A broker that the test may kill."""
    async with KafkaCluster(tmp_path / "kafka", profile=TEST) as cluster:
        yield cluster


async def test_while_kafka_is_away_nothing_is_lost_and_work_goes_on_when_it_is_back(
    own_kafka: KafkaCluster, postgres_url: str
) -> None:
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(TABLE)
    await connection.close()
    settings = WorkerSettings(lease_seconds=2.0, silence_seconds=3.0)
    async with KafkaProducer(own_kafka.bootstrap_servers) as producer:
        chains = Chains(own_kafka.bootstrap_servers, postgres_url, producer)
        await create_topics(chains.servers, {DEAD_LETTER_TOPIC: 1})
        await chains.create()
        async with running(chains, settings=settings) as (_, health, task):
            chains.write(400)
            await chains.wait_until_folded()
            await own_kafka.kill()
            chains.write(400)
            assert producer.unacknowledged_bytes > 0
            await until(lambda: _says(health, "kafka"), 30)
            assert set((await chains.owners()).values()) == {None}  # another worker might reach Kafka
            assert producer.oldest_unacknowledged_seconds() > 1
            assert not task.done()
            await own_kafka.restart()
            await chains.wait_until_folded(60)
            await until(lambda: _is_ready(health), 30)
        await chains.check()


async def test_a_record_that_the_broker_refuses_is_given_up_alone_and_its_partition_heals(topics: str) -> None:
    name = f"strict.{asyncio.get_running_loop().time()}"
    await _create_strict_topic(topics, name, max_message_bytes=1_000)
    refused: list[RefusedRecord] = []
    replaced = metric("csms_stream_producer_replacements_total", reason="MessageSizeTooLargeError")
    async with KafkaProducer(topics, compression=None, on_refused=refused.append) as producer:
        await until(lambda: producer.refresh(name))
        acknowledged: list[int] = []
        for number in range(40):
            producer.append(
                name,
                number % 2,
                key=b"k",
                value=bytes(2_000 if number == 16 else 20) + b"%d" % number,
                timestamp_ms=1_700_000_000_000,
                on_ack=_noting(acknowledged, number),
            )
        await asyncio.wait_for(producer.flush(), 15)
        assert sorted(acknowledged) == [number for number in range(40) if number != 16]
        assert [(record.partition, len(record.value or b"")) for record in refused] == [(0, 2_002)]
        assert producer.problem() is None
        assert metric("csms_stream_refused_records_total", topic=name, error=refused[0].error) == 1
        assert metric("csms_stream_producer_replacements_total", reason=refused[0].error) > replaced
    records = await read_all(topics, name, 2)
    values = [int((record.value or b"").strip(b"\0")) for record in records]
    assert list(dict.fromkeys(values)) == [n for n in range(0, 40, 2) if n != 16] + list(range(1, 40, 2))


def _noting(acknowledged: list[int], number: int) -> Callable[[], None]:
    return lambda: acknowledged.append(number)


async def _create_strict_topic(servers: str, name: str, *, max_message_bytes: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        configs = {"max.message.bytes": str(max_message_bytes)}
        await admin.create_topics([NewTopic(name, 2, 1, topic_configs=configs)])
    finally:
        await admin.close()
