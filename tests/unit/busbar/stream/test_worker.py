"""What a worker does besides folding: events that come due, batches that shrink, results that cannot go anywhere."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from busbar.avro import decode
from busbar.records import Record, Result, TopicPartition
from busbar.service import Health
from busbar.stream.interfaces import Busy, InvalidRecord
from busbar.stream.leases import Unstorable
from busbar.stream.leases_memory import MemoryConnection, MemoryDatabase, MemoryProgressStore
from busbar.stream.loop import Worker
from busbar.stream.memory import MemoryBroker
from busbar.stream.settings import WorkerSettings
from busbar.stream.worker import add_checks
from tests.support.virtual_time import run_in_virtual_time

GROUP, TOPIC, OUT = "unit", "in", "out"


@dataclass(frozen=True)
class Deadline:
    """An event by the clock."""

    partition: int
    at_ms: int


@dataclass
class Script:
    """A processor that notes what it is asked, and does what the test wants."""

    group: str = GROUP
    topics: Sequence[str] = (TOPIC,)
    folded: list[Any] = field(default_factory=list)
    loads: list[int] = field(default_factory=list)
    asked: list[tuple[float, tuple[int, ...]]] = field(default_factory=list)
    deadlines: dict[int, int] = field(default_factory=dict)
    on_load: Callable[[Sequence[Any]], None] = lambda events: None
    on_fold: Callable[[Any], Iterable[Result]] = lambda event: ()
    on_store: Callable[[list[Any]], None] = lambda events: None

    def decode(self, record: Record) -> Any:
        return record

    async def load(self, connection: MemoryConnection, events: Sequence[Any]) -> list[Any]:
        self.loads.append(len(events))
        self.on_load(events)
        return []

    def fold(self, state: list[Any], event: Any) -> Iterable[Result]:
        results = self.on_fold(event)
        state.append(event)
        return results

    async def store(self, connection: MemoryConnection, state: list[Any]) -> None:
        self.on_store(state)
        self.folded.extend(state)

    async def due(self, connection: Any, partitions: Sequence[int], now_ms: int) -> Sequence[Any]:
        self.asked.append((asyncio.get_running_loop().time(), tuple(partitions)))
        return [Deadline(number, at) for number, at in self.deadlines.items() if at <= now_ms]

    def partition_of_event(self, event: Any) -> int:
        return int(event.partition)


class Bench:
    """One worker in virtual time."""

    def __init__(self, script: Script, **settings: Any) -> None:
        self.broker = MemoryBroker({TOPIC: 2, OUT: 2, "csms.dead-letters": 1})
        self.database = MemoryDatabase()
        self.settings = WorkerSettings(**settings)
        self.script = script
        self.producer = self.broker.producer()
        self.consumer = self.broker.consumer(group_id=GROUP)
        self.worker = Worker(
            script,
            producer=self.producer,
            consumer=self.consumer,
            store=MemoryProgressStore(
                self.database, group=GROUP, worker_id="w", lease_seconds=self.settings.lease_seconds
            ),
            worker_id="w",
            settings=self.settings,
            wall_clock=asyncio.get_running_loop().time,
        )
        self.stop = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(self.worker.run(self.stop))
        yield task
        self.stop.set()
        await task

    def write(self, *values: str, partition: int = 0) -> None:
        for value in values:
            self.broker.write(TOPIC, partition, key=b"k", value=value.encode(), timestamp_ms=0)

    def folded(self) -> list[str]:
        return [(event.value or b"").decode() for event in self.script.folded if isinstance(event, Record)]

    def letters(self) -> list[dict[str, Any]]:
        return [decode(record.value or b"")[1] for record in self.broker.records("csms.dead-letters")]


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        run_in_virtual_time(test())

    run.__name__ = test.__name__
    return run


@virtual
async def test_what_has_come_due_is_asked_for_once_a_second_and_folded() -> None:
    script = Script(deadlines={1: 2_500})
    script.on_fold = lambda event: [Result(OUT, b"k", b"due")]
    bench = Bench(script)
    async with bench.running():
        await asyncio.sleep(2.4)
        assert script.folded == []
        await asyncio.sleep(1.2)
        assert script.folded == [Deadline(1, 2_500)]
        del script.deadlines[1]
        await asyncio.sleep(2)
    assert [record.value for record in bench.broker.records(OUT)] == [b"due"]
    times = [at for at, partitions in script.asked if partitions == (0, 1)]
    assert 4 <= len(times) <= 7


@virtual
async def test_deadlines_of_a_partition_wait_while_it_has_records_to_read() -> None:
    script = Script(deadlines={0: 0, 1: 0})

    def on_fold(event: Any) -> Iterable[Result]:
        if isinstance(event, Record) and event.partition == 0:
            raise Busy("not now", 0.3)
        return ()

    script.on_fold = on_fold
    bench = Bench(script)
    bench.write("stuck", partition=0)
    async with bench.running():
        await asyncio.sleep(3)
        assert {event.partition for event in script.folded} == {1}
        script.on_fold = lambda event: ()
        await asyncio.sleep(2)
        kinds = [type(event) for event in script.folded if event.partition == 0]
    assert kinds[0] is Record
    assert Deadline in kinds


@virtual
async def test_a_deadline_that_is_busy_or_invalid_stops_nothing() -> None:
    script = Script(deadlines={0: 0, 1: 0})

    def on_fold(event: Any) -> Iterable[Result]:
        if isinstance(event, Deadline):
            raise Busy("not now") if event.partition else InvalidRecord("bad")
        return ()

    script.on_fold = on_fold
    bench = Bench(script)
    async with bench.running():
        bench.write("a", "b")
        await asyncio.sleep(3)
        assert bench.folded() == ["a", "b"]
    assert bench.letters() == []


@virtual
async def test_a_load_that_is_busy_makes_its_partitions_wait_and_nothing_is_lost() -> None:
    script = Script()
    tries: list[float] = []

    def on_load(events: Sequence[Any]) -> None:
        tries.append(asyncio.get_running_loop().time())
        if len(tries) < 3:
            raise Busy("not now", 0.5)

    script.on_load = on_load
    bench = Bench(script)
    bench.write("a", "b")
    async with bench.running():
        await asyncio.sleep(3)
        assert bench.folded() == ["a", "b"]
    assert [round(later - earlier, 2) for earlier, later in itertools.pairwise(tries)] == [0.5, 0.5]


@virtual
async def test_a_record_that_cannot_be_stored_is_found_in_its_batch_by_halving() -> None:
    script = Script()

    def on_store(state: list[Any]) -> None:
        if any(event.value == b"bad" for event in state):
            raise Unstorable("22021 a NUL")

    script.on_store = on_store
    bench = Bench(script)
    bench.write(*(f"{number}" if number != 77 else "bad" for number in range(200)))
    async with bench.running():
        await asyncio.sleep(5)
    assert bench.folded() == [f"{number}" for number in range(200) if number != 77]
    assert [(letter["reason"], letter["value"], letter["detail"]) for letter in bench.letters()] == [
        ("unstorable", b"bad", "22021 a NUL")
    ]
    assert max(script.loads) > 100
    assert len(script.loads) < 60


@virtual
async def test_batches_shrink_when_they_take_a_good_part_of_the_lease_and_grow_again() -> None:
    script = Script()
    bench = Bench(script, lease_seconds=3.0)
    slow = True

    async def hook(worker: str, operation: str, moment: str) -> None:
        if slow and operation == "load" and moment == "before":
            await asyncio.sleep(1.2)

    bench.database.hook = hook
    bench.write(*map(str, range(6_000)))
    async with bench.running():
        await asyncio.sleep(4)
        assert min(script.loads) <= 500
        slow = False
        await asyncio.sleep(2)
        assert bench.folded() == list(map(str, range(6_000)))
        bench.write(*map(str, range(4_000)))
        await asyncio.sleep(2)
    assert max(script.loads[-3:]) == 2_000


@virtual
async def test_batches_are_short_while_somebody_waits_and_long_in_a_backlog() -> None:
    script = Script()
    bench = Bench(script, batch_seconds=0.05)

    async def hook(worker: str, operation: str, moment: str) -> None:
        if operation == "load" and moment == "before":
            await asyncio.sleep(0.001 * pending())

    def pending() -> int:
        return min(1000, script.loads[-1] if script.loads else 200)

    bench.database.hook = hook
    await asyncio.sleep(100)
    now_ms = int(asyncio.get_running_loop().time() * 1000)
    for number in range(3_000):
        bench.broker.write(TOPIC, 0, key=b"k", value=b"%d" % number, timestamp_ms=now_ms + number)
    async with bench.running():
        await asyncio.sleep(1.5)
        assert script.loads[-1] == 100  # fewer than that would be for the sake of 50 ms alone
        await asyncio.sleep(8)
        assert len(bench.folded()) == 3_000
        script.loads.clear()
        bench.write(*map(str, range(2_000)))  # old by their timestamps
        await asyncio.sleep(4)
    assert max(script.loads) >= 1_900


@virtual
async def test_results_that_no_topic_can_take_become_dead_letters_before_the_commit() -> None:
    script = Script()
    script.on_fold = lambda event: {
        b"partition": [Result(OUT, b"k", b"1", partition=2)],
        b"negative": [Result(OUT, b"k", b"2", partition=-1)],
        b"topic": [Result("nowhere", b"k", b"3", partition=0)],
        b"large": [Result(OUT, b"k", bytes(1_000_000))],
        b"good": [Result(OUT, b"k", b"4", partition=1, timestamp_ms=5)],
    }[event.value]
    bench = Bench(script)
    bench.write("partition", "negative", "topic", "large", "good")
    async with bench.running():
        await asyncio.sleep(1)
    assert [(record.partition, record.value) for record in bench.broker.records(OUT)] == [(1, b"4")]
    assert [(letter["reason"], letter["topic"]) for letter in bench.letters()] == [
        ("unknown-partition", OUT),
        ("unknown-partition", OUT),
        ("unknown-partition", "nowhere"),
        ("too-large", OUT),
    ]


@virtual
async def test_results_are_stored_with_the_batch_and_forgotten_once_they_are_durable() -> None:
    script = Script()
    script.on_fold = lambda event: [Result(OUT, b"k", event.value)]
    bench = Bench(script)
    bench.broker.ack_seconds = 1.0
    bench.write("a")
    async with bench.running():
        await asyncio.sleep(0.9)
        row = bench.database.rows[GROUP, 0]
        assert b"a" in row.results
        await asyncio.sleep(3)
        assert row.results == b""
        assert row.offsets == {TOPIC: 1}


@virtual
async def test_the_next_batch_is_not_committed_before_the_results_of_the_last_are_durable() -> None:
    script = Script()
    script.on_fold = lambda event: [Result(OUT, b"k", event.value)]
    bench = Bench(script)
    bench.broker.ack_seconds = 2.0
    bench.write("a")
    async with bench.running():
        await asyncio.sleep(0.5)
        bench.write("b")
        await asyncio.sleep(1.3)
        assert bench.database.rows[GROUP, 0].offsets == {TOPIC: 1}
        await asyncio.sleep(1)
        assert bench.database.rows[GROUP, 0].offsets == {TOPIC: 2}
        await asyncio.sleep(3)


@virtual
async def test_leases_are_kept_while_kafka_does_not_acknowledge() -> None:
    script = Script()
    script.on_fold = lambda event: [Result(OUT, b"k", event.value)]
    bench = Bench(script, lease_seconds=1.0)
    bench.broker.ack_seconds = 8.0
    bench.write("a")
    async with bench.running():
        await asyncio.sleep(0.5)
        bench.write("b")
        for _ in range(20):
            await asyncio.sleep(0.3)
            assert bench.database.rows[GROUP, 0].lease_until > bench.database.now()
        bench.broker.ack_seconds = 0.0
        await asyncio.sleep(4)
    assert bench.folded() == ["a", "b"]


@virtual
async def test_a_commit_that_outlasts_its_lease_leaves_its_results_to_the_next_claim() -> None:
    script = Script()
    script.on_fold = lambda event: [Result(OUT, b"k", event.value)]
    bench = Bench(script, lease_seconds=1.0)
    delays = [2.0]

    async def hook(worker: str, operation: str, moment: str) -> None:
        if operation == "commit" and moment == "after" and delays:
            await asyncio.sleep(delays.pop())

    bench.database.hook = hook
    bench.write("a")
    async with bench.running():
        await asyncio.sleep(1.9)
        assert bench.broker.records(OUT) == []
        await asyncio.sleep(1)
        assert [record.value for record in bench.broker.records(OUT)] == [b"a"]
        bench.write("b")
        await asyncio.sleep(1)
    assert [record.value for record in bench.broker.records(OUT)] == [b"a", b"b"]
    assert bench.folded() == ["a", "b"]


@virtual
async def test_a_worker_that_cannot_read_kafka_gives_its_partitions_back_until_it_can() -> None:
    bench = Bench(Script(), silence_seconds=3.0)
    async with bench.running():
        await asyncio.sleep(1)
        assert bench.database.rows[GROUP, 0].owner == "w"
        bench.broker.go_away()
        await asyncio.sleep(5)
        assert bench.database.rows[GROUP, 0].owner is None
        assert bench.database.heartbeats == {}
        await asyncio.sleep(20)
        bench.broker.come_back()
        bench.write("a")
        await asyncio.sleep(3)
        assert bench.database.rows[GROUP, 0].owner == "w"
        assert bench.folded() == ["a"]


@virtual
async def test_topics_with_different_partition_counts_cannot_be_folded_together() -> None:
    bench = Bench(Script(topics=(TOPIC, "csms.dead-letters")))
    with pytest.raises(ValueError, match="same partition count"):
        await bench.worker.run(bench.stop)


@virtual
async def test_a_worker_waits_for_topics_that_do_not_exist_yet() -> None:
    bench = Bench(Script(topics=(TOPIC, "later")))
    bench.write("a")
    async with bench.running():
        await asyncio.sleep(5)
        assert bench.folded() == []
        bench.broker.create_topic("later", 2)
        await asyncio.sleep(2)
        assert bench.folded() == ["a"]


@virtual
async def test_stopping_is_prompt_even_while_nothing_arrives_or_everything_is_away() -> None:
    for away in ("nothing", "broker", "database"):
        bench = Bench(Script(), poll_seconds=30.0, due_seconds=30.0)
        async with bench.running() as task:
            await asyncio.sleep(1)
            if away == "broker":
                bench.broker.go_away()
            if away == "database":
                bench.database.available = False
            await asyncio.sleep(1)
            began = asyncio.get_running_loop().time()
            bench.stop.set()
            await task
            assert asyncio.get_running_loop().time() - began < 0.2, away


@virtual
async def test_records_below_a_jump_of_the_log_are_reported_and_reading_goes_on() -> None:
    bench = Bench(Script())
    bench.write(*map(str, range(10)))
    async with bench.running():
        await asyncio.sleep(1)
    bench.write(*map(str, range(10, 20)))
    bench.broker.trim(TopicPartition(TOPIC, 0), 15)
    again = Bench(bench.script)
    again.broker, again.database = bench.broker, bench.database
    worker = Worker(
        bench.script,
        producer=bench.broker.producer(),
        consumer=bench.broker.consumer(),
        store=MemoryProgressStore(bench.database, group=GROUP, worker_id="v", lease_seconds=6.0),
        worker_id="v",
        settings=WorkerSettings(),
        wall_clock=asyncio.get_running_loop().time,
    )
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    await asyncio.sleep(2)
    stop.set()
    await task
    assert bench.folded() == [*map(str, range(10)), *map(str, range(15, 20))]


@virtual
async def test_a_worker_that_lingers_takes_few_large_batches() -> None:
    script = Script()
    batches: list[int] = []
    script.on_store = lambda state: batches.append(len(state))
    bench = Bench(script, linger_seconds=2.0, batch_limit=4)
    async with bench.running():
        bench.write("first")
        await asyncio.sleep(1)
        assert bench.folded() == ["first"]
        bench.write("a")
        await asyncio.sleep(0.3)
        bench.write("b", "c", partition=1)
        await asyncio.sleep(0.3)
        assert bench.folded() == ["first"]
        await asyncio.sleep(2)
        assert batches == [1, 3]
        await asyncio.sleep(2)
        bench.write(*"0123456789")
        await asyncio.sleep(1)
        assert batches == [1, 3, 4, 4, 2]  # what is full is followed by the next at once
        bench.write("last")
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 0.2


@dataclass
class Choosy(Script):
    """Has no use for what begins with a dash."""

    def decode(self, record: Record) -> Any:
        return None if (record.value or b"").startswith(b"-") else record


@virtual
async def test_records_that_are_nothing_to_the_processor_wait_for_a_commit_of_others_or_a_second() -> None:
    bench = Bench(Choosy())
    commits: list[float] = []

    async def watch(_: str, operation: str, moment: str) -> None:
        if (operation, moment) == ("commit", "after"):
            commits.append(asyncio.get_running_loop().time())

    bench.database.hook = watch
    async with bench.running():
        await asyncio.sleep(2)
        for number in range(5):
            bench.write(f"-{number}", partition=number % 2)
            await asyncio.sleep(0.1)
        assert commits == []
        bench.write("a")
        await asyncio.sleep(0.1)
        assert len(commits) == 1
        rows = [bench.database.rows[GROUP, number].offsets[TOPIC] for number in (0, 1)]
        assert rows == [4, 2]  # with what had waited
        began = asyncio.get_running_loop().time()
        bench.write("-5", partition=1)
        await asyncio.sleep(0.5)
        assert len(commits) == 1
        await asyncio.sleep(2)
        assert [round(at - began) for at in commits[1:]] == [1]
        assert bench.database.rows[GROUP, 1].offsets[TOPIC] == 3
    assert bench.folded() == ["a"]
    assert bench.script.loads == [1]


@virtual
async def test_a_worker_that_stops_leaves_what_is_nothing_to_it_to_the_next() -> None:
    bench = Bench(Choosy())
    async with bench.running():
        await asyncio.sleep(1)
        bench.write("-0", "a", "-1")
        await asyncio.sleep(0.2)
        bench.write("-2")
        await asyncio.sleep(0.2)
    assert bench.database.rows[GROUP, 0].offsets[TOPIC] == 3
    assert bench.folded() == ["a"]


class Hanging(Script):
    """Waits for what never comes, once it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def load(self, connection: MemoryConnection, events: Sequence[Any]) -> list[Any]:
        await self.go_on.wait()
        return await super().load(connection, events)


@virtual
async def test_a_worker_whose_loop_stands_still_says_that_only_a_restart_helps() -> None:
    script, health = Hanging(), Health()
    bench = Bench(script)
    add_checks(health, bench.worker, cast(Any, bench.producer), cast(Any, bench.consumer))
    async with bench.running():
        await asyncio.sleep(300)
        assert health.problems(health.live) == {}, "nothing to do is not standing still"
        script.go_on.clear()
        bench.write("a")
        await asyncio.sleep(50)
        assert health.problems(health.live) == {}
        await asyncio.sleep(20)
        (problem,) = health.problems(health.live).values()
        assert "the loop has not gone round for" in problem
        script.go_on.set()
        await asyncio.sleep(1)
        assert health.problems(health.live) == {}
    assert bench.folded() == ["a"]
