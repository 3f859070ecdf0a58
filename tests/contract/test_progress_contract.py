"""What every store of progress rows keeps to: once in memory, once on real PostgreSQL."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from busbar import postgres
from busbar.records import Record, Result
from busbar.stream.interfaces import StoreCall
from busbar.stream.leases import (
    NO_STATE,
    Advance,
    Claim,
    Overtaken,
    ProgressStore,
    StoreUnavailable,
    Survey,
    Unstorable,
    plan_share,
)
from busbar.stream.leases_memory import MemoryConnection, MemoryDatabase, MemoryProgressStore
from busbar.stream.leases_postgres import PostgresProgressStore

LEASE_SECONDS = 0.4
PARTITIONS = 4
_groups = itertools.count()


@dataclass
class Notes:
    """The state of `NotesProcessor`: what to write."""

    values: dict[str, str] = field(default_factory=dict)


class NotesProcessor:
    """Keeps one text per key. Works on both kinds of connection."""

    group = "notes"
    topics: Sequence[str] = ("notes",)

    def decode(self, record: Record) -> Any:
        return record

    async def load(self, connection: Any, events: Sequence[Any]) -> Notes:
        if isinstance(connection, MemoryConnection):
            return Notes({key: connection.read("notes", key) for key in events if connection.read("notes", key)})
        rows = await connection.fetch("SELECT key, value FROM notes WHERE key = ANY ($1)", list(events))
        return Notes({row["key"]: row["value"] for row in rows})

    def fold(self, state: Notes, event: Any) -> Iterable[Result]:
        return ()

    async def store(self, connection: Any, state: Notes) -> None:
        for key, value in state.values.items():
            if isinstance(connection, MemoryConnection):
                connection.write("notes", key, value)
            else:
                await connection.execute(
                    "INSERT INTO notes VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = $2", key, value
                )

    async def due(self, connection: Any, partitions: Sequence[int], now_ms: int) -> Sequence[Any]:
        return [f"{partition}@{now_ms}" for partition in partitions]

    def partition_of_event(self, event: Any) -> int:
        return int(event.split("@")[0])


class CallingProcessor(NotesProcessor):
    """The same, stored by one function call."""

    def store_call(self, state: Notes) -> StoreCall | None:
        if not state.values:
            return StoreCall("")
        return StoreCall("store_notes", (list(state.values), list(state.values.values())))


NOTES = NotesProcessor()

Worker = Callable[[str], ProgressStore]
"""Makes the store of a worker; all of one test share a group."""


@pytest.fixture(params=["memory", "postgres"])
def database(request: pytest.FixtureRequest) -> str | None:
    """The URL of real PostgreSQL, or `None` for memory."""
    return request.getfixturevalue("postgres_url") if request.param == "postgres" else None


@pytest.fixture
async def worker(database: str | None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Worker]:
    # A busy machine may leave this process standing for longer than a worker may stand in the middle of a transaction.
    monkeypatch.setattr(postgres, "IDLE_IN_TRANSACTION_SECONDS", 60.0)
    group = f"group-{next(_groups)}"
    memory = MemoryDatabase()
    async with AsyncExitStack() as stack:
        if database is not None:
            await _create_notes(database)

        def make(worker_id: str) -> ProgressStore:
            store: ProgressStore
            if database is None:
                store = MemoryProgressStore(memory, group=group, worker_id=worker_id, lease_seconds=LEASE_SECONDS)
            else:
                store = PostgresProgressStore(database, group=group, worker_id=worker_id, lease_seconds=LEASE_SECONDS)
            stack.push_async_callback(store.close)
            return store

        yield make


async def _create_notes(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("CREATE TABLE IF NOT EXISTS notes (key text PRIMARY KEY, value text NOT NULL)")
        await connection.execute(
            """CREATE OR REPLACE FUNCTION store_notes(keys text[], given text[]) RETURNS void LANGUAGE sql AS $$
            INSERT INTO notes SELECT * FROM unnest(keys, given)
            ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value $$"""
        )
    finally:
        await connection.close()


async def opened(worker: Worker, worker_id: str) -> ProgressStore:
    store = worker(worker_id)
    await store.open(PARTITIONS)
    return store


def only(claims: list[Claim]) -> Claim:
    assert len(claims) == 1
    return claims[0]


async def test_a_new_group_has_a_free_row_per_partition_that_begins_at_nothing(worker: Worker) -> None:
    store = await opened(worker, "a")
    survey = await store.survey()
    assert sorted((row.partition, row.owner, row.free) for row in survey.rows) == [
        (number, None, True) for number in range(PARTITIONS)
    ]
    assert survey.workers == []
    assert [(claim.partition, claim.offsets, claim.results) for claim in await store.claim(9, [])] == [
        (number, {}, b"") for number in range(PARTITIONS)
    ]


async def test_partitions_added_later_get_their_rows(worker: Worker) -> None:
    store = await opened(worker, "a")
    await store.claim(PARTITIONS, [])
    await store.open(PARTITIONS + 2)
    assert {row.partition for row in (await store.survey()).rows if row.free} == {PARTITIONS, PARTITIONS + 1}


async def test_a_claimed_partition_is_not_free_for_others_before_its_lease_ends(worker: Worker) -> None:
    a, b = await opened(worker, "a"), await opened(worker, "b")
    await a.claim(PARTITIONS, [])
    assert await b.claim(PARTITIONS, []) == []
    assert all(row.owner == "a" and not row.free for row in (await b.survey()).rows)
    await asyncio.sleep(LEASE_SECONDS + 0.1)
    assert all(row.owner == "a" and row.free for row in (await b.survey()).rows)
    assert len(await b.claim(PARTITIONS, [])) == PARTITIONS


async def test_claims_take_no_more_than_they_may_and_never_the_same_twice(worker: Worker) -> None:
    stores = [await opened(worker, name) for name in "abcde"]
    taken = await asyncio.gather(*(store.claim(1, []) for store in stores))
    numbers = [claim.partition for claims in taken for claim in claims]
    assert sorted(numbers) == list(range(PARTITIONS))


async def test_a_claim_moves_the_version_so_that_the_last_owner_is_fenced_at_once(worker: Worker) -> None:
    a, b = await opened(worker, "a"), await opened(worker, "b")
    mine = only(await a.claim(1, [1, 2, 3]))
    await asyncio.sleep(LEASE_SECONDS + 0.1)
    theirs = only(await b.claim(1, [1, 2, 3]))
    assert theirs.version == mine.version + 1
    with pytest.raises(Overtaken) as overtaken:
        await a.commit(NOTES, Notes({"fence": "a"}), [Advance(0, mine.version, {"notes": 1}, b"")])
    assert overtaken.value.lost == {0}
    await b.commit(NOTES, Notes(), [Advance(0, theirs.version, {"notes": 7}, b"")])


async def test_a_worker_that_has_forgotten_its_partitions_claims_them_again_and_fences_itself(
    worker: Worker,
) -> None:
    a = await opened(worker, "a")
    first = await a.claim(PARTITIONS, [])
    again = await a.claim(PARTITIONS, [0, 1])
    assert [claim.partition for claim in again] == [2, 3]
    with pytest.raises(Overtaken):
        await a.commit(NOTES, NO_STATE, [Advance(2, first[2].version, {"notes": 1}, b"")])


async def test_state_offsets_and_results_commit_together(worker: Worker) -> None:
    a, b = await opened(worker, "a"), await opened(worker, "b")
    claims = await a.claim(2, [])
    await a.commit(
        NOTES,
        Notes({"together": "1"}),
        [
            Advance(0, claims[0].version, {"x": 5, "y": 6}, b"r0"),
            Advance(1, claims[1].version, {"x": 9}, b"r1"),
        ],
    )
    await a.commit(NOTES, NO_STATE, [Advance(0, claims[0].version + 1, {"y": 7}, b"r2")])
    assert (await a.load(NOTES, ["together"])).values == {"together": "1"}
    await asyncio.sleep(LEASE_SECONDS + 0.1)
    assert [(claim.offsets, claim.results) for claim in await b.claim(2, [2, 3])] == [
        ({"x": 5, "y": 7}, b"r2"),
        ({"x": 9}, b"r1"),
    ]


@pytest.mark.parametrize("processor", [NOTES, CallingProcessor()], ids=["store", "store_call"])
async def test_one_lost_partition_undoes_the_whole_commit(worker: Worker, processor: NotesProcessor) -> None:
    a, b = await opened(worker, "a"), await opened(worker, "b")
    claims = await a.claim(2, [])
    await asyncio.sleep(LEASE_SECONDS + 0.1)
    only(await b.claim(1, [0, 2, 3]))
    advances = [Advance(claim.partition, claim.version, {"notes": 3}, b"r") for claim in claims]
    with pytest.raises(Overtaken) as overtaken:
        await a.commit(processor, Notes({f"half{processor}": "x"}), advances)
    assert overtaken.value.lost == {1}
    assert (await a.load(NOTES, [f"half{processor}"])).values == {}
    await a.commit(processor, Notes({f"half{processor}": "y"}), advances[:1])  # expired, but nobody has claimed it
    assert (await a.load(NOTES, [f"half{processor}"])).values == {f"half{processor}": "y"}


async def test_a_processor_may_store_by_one_call_or_have_nothing_to_store(worker: Worker) -> None:
    a = await opened(worker, "a")
    claim = only(await a.claim(1, []))
    await a.commit(CallingProcessor(), Notes({"call": "1", "me": "2"}), [Advance(0, claim.version, {}, b"")])
    await a.commit(CallingProcessor(), Notes(), [Advance(0, claim.version + 1, {"t": 1}, b"")])
    assert (await a.load(NOTES, ["call", "me"])).values == {"call": "1", "me": "2"}


async def test_a_commit_extends_the_lease(worker: Worker) -> None:
    a, b = await opened(worker, "a"), await opened(worker, "b")
    claim = only(await a.claim(1, [1, 2, 3]))
    for number in range(4):
        await asyncio.sleep(LEASE_SECONDS / 2)
        await a.commit(NOTES, NO_STATE, [Advance(0, claim.version + number, {"t": number}, b"")])
    assert await b.claim(1, [1, 2, 3]) == []


async def test_keeping_renews_leases_tells_what_is_lost_and_forgets_settled_results(worker: Worker) -> None:
    a, b = await opened(worker, "a"), await opened(worker, "b")
    claims = await a.claim(3, [])
    await a.commit(NOTES, NO_STATE, [Advance(c.partition, c.version, {"t": 1}, b"results") for c in claims])
    versions = {claim.partition: claim.version + 1 for claim in claims}
    await asyncio.sleep(LEASE_SECONDS + 0.1)
    only(await b.claim(1, [1, 2, 3]))
    assert await a.keep(versions, [1]) == {0}
    assert await b.claim(2, [0, 3]) == []
    await asyncio.sleep(LEASE_SECONDS + 0.1)
    assert [(claim.partition, claim.results) for claim in await b.claim(2, [0, 3])] == [(1, b""), (2, b"results")]


async def test_workers_are_those_with_a_fresh_heartbeat(worker: Worker) -> None:
    a, b = await opened(worker, "a"), await opened(worker, "b")
    assert await a.keep({}, []) == frozenset()
    await b.keep({}, [])
    assert sorted((await a.survey()).workers) == ["a", "b"]
    await b.leave()
    assert (await a.survey()).workers == ["a"]
    await asyncio.sleep(LEASE_SECONDS + 0.1)
    assert (await a.survey()).workers == []


async def test_a_released_partition_is_free_at_once_and_keeps_results_that_are_not_settled(worker: Worker) -> None:
    a, b = await opened(worker, "a"), await opened(worker, "b")
    claims = await a.claim(2, [])
    await a.commit(NOTES, NO_STATE, [Advance(c.partition, c.version, {"t": 1}, b"results") for c in claims])
    await a.release({claim.partition: claim.version + 1 for claim in claims}, settled=[0])
    assert [(claim.partition, claim.results) for claim in await b.claim(2, [2, 3])] == [(0, b""), (1, b"results")]


async def test_releasing_what_another_has_claimed_leaves_it_alone(worker: Worker) -> None:
    a, b = await opened(worker, "a"), await opened(worker, "b")
    claim = only(await a.claim(1, [1, 2, 3]))
    await asyncio.sleep(LEASE_SECONDS + 0.1)
    theirs = only(await b.claim(1, [1, 2, 3]))
    await a.release({0: claim.version}, [])
    await b.commit(NOTES, NO_STATE, [Advance(0, theirs.version, {"t": 1}, b"")])


async def test_groups_know_nothing_of_each_other(worker: Worker, database: str | None) -> None:
    a = await opened(worker, "a")
    await a.claim(PARTITIONS, [])
    await a.keep({}, [])
    memory = MemoryDatabase()
    other: ProgressStore
    if database is None:
        other = MemoryProgressStore(memory, group="other", worker_id="o", lease_seconds=1)
    else:
        other = PostgresProgressStore(database, group="other", worker_id="o", lease_seconds=1)
    await other.open(2)
    survey = await other.survey()
    await other.close()
    assert ([row.partition for row in survey.rows], survey.workers) == ([0, 1], [])


async def test_what_has_come_due_is_asked_of_the_processor(worker: Worker) -> None:
    a = await opened(worker, "a")
    assert list(await a.due(NOTES, [1, 3], 77)) == ["1@77", "3@77"]


async def test_workers_share_evenly_whatever_their_order_of_arrival(worker: Worker) -> None:
    names = ["m", "a", "z"]
    stores = {name: await opened(worker, name) for name in names}
    owned: dict[str, dict[int, int]] = {name: {} for name in names}

    async def look(name: str) -> None:
        store, mine = stores[name], owned[name]
        await store.keep(mine, [])
        plan = plan_share(await store.survey(), name, mine)
        if plan.release:
            await store.release({number: mine.pop(number) for number in plan.release}, plan.release)
        if plan.claim:
            mine.update({claim.partition: claim.version for claim in await store.claim(plan.claim, list(mine))})

    await look("m")
    assert len(owned["m"]) == PARTITIONS
    for _ in range(3):
        for name in names:
            await look(name)
    assert sorted(len(mine) for mine in owned.values()) == [1, 1, 2]
    assert len(owned["m"]) == 2  # the remainder stays where it is
    settled = {name: set(mine) for name, mine in owned.items()}
    for _ in range(3):
        for name in names:
            await look(name)
    assert {name: set(mine) for name, mine in owned.items()} == settled


async def test_a_survey_of_no_workers_gives_nobody_a_share() -> None:
    assert plan_share(Survey([], []), "a", []).claim == 0


@pytest.mark.parametrize("value", ["nul \x00 byte", "lone surrogate \ud800"])
@pytest.mark.parametrize("processor", [NOTES, CallingProcessor()], ids=["store", "store_call"])
async def test_postgres_says_which_data_it_will_never_take(
    postgres_url: str, value: str, processor: NotesProcessor
) -> None:
    await _create_notes(postgres_url)
    store = PostgresProgressStore(postgres_url, group="data", worker_id="a", lease_seconds=5)
    await store.open(1)
    try:
        claim = only(await store.claim(1, []))
        with pytest.raises(Unstorable):
            await store.commit(processor, Notes({"k": value}), [Advance(0, claim.version, {"t": 1}, b"")])
        await store.commit(processor, Notes({"k": "good"}), [Advance(0, claim.version, {"t": 1}, b"")])
    finally:
        await store.close()


async def test_a_connection_that_postgres_ends_is_an_absence_and_opens_again(postgres_url: str) -> None:
    store = PostgresProgressStore(postgres_url, group="absent", worker_id="a", lease_seconds=5)
    with pytest.raises(StoreUnavailable):
        await store.survey()
    await store.open(2)
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'busbar-absent'"
    )
    await connection.close()
    with pytest.raises(StoreUnavailable):
        await store.survey()
    await store.open(2)
    assert len((await store.survey()).rows) == 2
    await store.close()


async def test_a_connection_that_hangs_is_given_up_in_time_and_opened_anew(postgres_url: str) -> None:
    store = PostgresProgressStore(
        postgres_url, group="hang", worker_id="a", lease_seconds=5, command_timeout_seconds=0.5
    )
    await store.open(2)
    observer = await asyncpg.connect(postgres_url)
    pid = await observer.fetchval("SELECT pid FROM pg_stat_activity WHERE application_name = 'busbar-hang'")
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await store.survey()
        await store.open(2)
        assert len((await store.survey()).rows) == 2
        assert time.monotonic() - began < 5
    finally:
        os.kill(pid, signal.SIGCONT)
        await store.close()
        await observer.close()


async def test_who_stands_still_in_the_middle_of_a_transaction_lets_the_next_owner_in(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PostgresProgressStore(postgres_url, group="zombie", worker_id="a", lease_seconds=5)
    await store.open(1)
    monkeypatch.setattr(postgres, "IDLE_IN_TRANSACTION_SECONDS", 1.0)
    zombie = await postgres.connect(postgres_url, service="zombie")
    await zombie.execute("BEGIN")
    await zombie.execute("SELECT 1 FROM stream.progress WHERE group_name = 'zombie' FOR UPDATE")
    assert await store.claim(1, []) == []
    await asyncio.sleep(2)
    only(await store.claim(1, []))
    with pytest.raises(postgres.DATABASE_ERRORS):
        await zombie.execute("COMMIT")
    await store.close()


async def test_a_server_that_is_not_there_is_an_absence() -> None:
    store = PostgresProgressStore("postgresql://127.0.0.1:1/nowhere", group="absent", worker_id="a", lease_seconds=5)
    with pytest.raises(StoreUnavailable):
        await store.open(1)


async def test_a_batch_is_loaded_beside_a_commit_that_is_under_way(worker: Worker) -> None:
    a = await opened(worker, "a")
    claims = await a.claim(2, [])
    await a.commit(NOTES, Notes({"beside": "1"}), [Advance(0, claims[0].version, {"t": 1}, b"")])
    commit = asyncio.ensure_future(
        a.commit(NOTES, Notes({"beside too": "2"}), [Advance(1, claims[1].version, {"t": 1}, b"")])
    )
    await asyncio.sleep(0)
    assert (await a.load(NOTES, ["beside"], beside=True)).values == {"beside": "1"}
    await commit
    assert (await a.load(NOTES, ["beside too"], beside=True)).values == {"beside too": "2"}


async def test_loading_beside_does_not_wait_for_a_commit_that_hangs_and_comes_back_after_a_failure(
    postgres_url: str,
) -> None:
    await _create_notes(postgres_url)
    store = PostgresProgressStore(postgres_url, group="beside", worker_id="a", lease_seconds=5)
    observer = await asyncpg.connect(postgres_url)
    try:
        await store.open(2)
        claim = only(await store.claim(1, []))
        await store.commit(NOTES, Notes({"held": "1"}), [Advance(0, claim.version, {"t": 1}, b"")])
        holding = observer.transaction()
        await holding.start()
        await observer.execute("SELECT 1 FROM notes WHERE key = 'held' FOR UPDATE")
        commit = asyncio.ensure_future(
            store.commit(NOTES, Notes({"held": "2"}), [Advance(0, claim.version + 1, {"t": 2}, b"")])
        )
        await asyncio.sleep(0.1)
        assert (await store.load(NOTES, ["held"], beside=True)).values == {"held": "1"}
        assert not commit.done()
        await observer.execute(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE application_name = 'busbar-beside' AND state = 'idle'"""
        )
        with pytest.raises(StoreUnavailable):
            await store.load(NOTES, ["held"], beside=True)
        assert not commit.done()
        assert (await store.load(NOTES, ["held"], beside=True)).values == {"held": "1"}
        await holding.rollback()
        await commit
        assert (await store.load(NOTES, ["held"], beside=True)).values == {"held": "2"}
    finally:
        await store.close()
        await observer.close()
