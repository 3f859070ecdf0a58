"""Who may come in, decided without a socket."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, Future
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.datastructures import Headers

from busbar.passwords import hash_password
from services.edge import credentials
from services.edge import directory as directory_module
from services.edge.credentials import FailureLimit, PasswordChecker
from services.edge.directory import StationDirectory, Unavailable
from services.edge.door import Admitted, Door
from services.edge.handshake import Refusal, StationSettings, Visitor, busy, read_passwords, read_station_id

PEPPER = b"pepper"
KEYED = hash_password("right", PEPPER, generated=True)


class Threads(Executor):
    """Runs nothing until it is told to."""

    def __init__(self) -> None:
        self.work: list[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **_: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.work.append((future, fn, args))
        return future

    def run(self) -> None:
        work, self.work = self.work, []
        for future, fn, args in work:
            future.set_result(fn(*args))


class Source:
    def __init__(self, *rows: StationSettings) -> None:
        self.rows = {row.station_id: row for row in rows}
        self.is_away = False
        self.reads = 0

    async def read(self, station_ids: Iterable[str]) -> Mapping[str, StationSettings]:
        self.reads += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise OSError("away")
        return {name: self.rows[name] for name in station_ids if name in self.rows}


class House:
    """A door with a clock and a directory on the bench."""

    def __init__(self, *rows: StationSettings, **options: bool) -> None:
        self.now = 0.0
        self.threads = Threads()
        self.source = Source(*rows)
        self.directory = StationDirectory(self.source, fresh_seconds=10, clock=lambda: self.now)
        checker = PasswordChecker(PEPPER, self.threads, lambda call: call())
        self.door = Door(self.directory, checker, FailureLimit(), clock=lambda: self.now, **options)

    async def visit(self, station_id: str = "CP1", password: str = "right", **fields: Any) -> Admitted | Refusal:
        visitor = Visitor(
            station_id,
            ("ocpp2.0.1", "ocpp1.6"),
            (password.encode(),) if password else (),
            "10.0.0.1",
            tls=False,
            **fields,
        )
        decisions: list[Admitted | Refusal] = []
        running = asyncio.create_task(self.directory.run())
        self.door.admit(visitor, decisions.append)
        for _ in range(20):
            await asyncio.sleep(0)
            self.threads.run()
        running.cancel()
        (decision,) = decisions
        return decision

    async def refusal(self, *args: Any, **fields: Any) -> tuple[int, str]:
        decision = await self.visit(*args, **fields)
        assert isinstance(decision, Refusal)
        return decision.status, decision.outcome


async def test_a_station_with_its_password_comes_in() -> None:
    house = House(StationSettings("CP1", KEYED))
    decision = await house.visit()
    assert isinstance(decision, Admitted)
    assert (decision.subprotocol, decision.security_profile) == ("ocpp2.0.1", 1)


async def test_what_was_read_is_good_for_a_while() -> None:
    house = House(StationSettings("CP1", KEYED))
    for now in (0.0, 9.0, 11.0, 12.0):
        house.now = now
        await house.visit()
    assert house.source.reads == 2


async def test_a_changed_password_is_read_before_anybody_is_refused() -> None:
    house = House(StationSettings("CP1", KEYED))
    await house.visit()
    house.source.rows["CP1"] = StationSettings("CP1", hash_password("new", PEPPER, generated=True))
    assert isinstance(await house.visit(password="new"), Admitted)
    assert await house.refusal() == (401, "bad_password")


async def test_a_gate_is_asked_before_anything_else() -> None:
    house = House()
    house.door.gates.append(lambda: None)
    house.door.gates.append(lambda: busy("draining", "later"))
    assert await house.refusal() == (503, "draining")
    assert house.source.reads == 0


async def test_guesses_are_counted_per_address_and_station() -> None:
    house = House(StationSettings("CP1", KEYED), StationSettings("CP2", KEYED))
    for _ in range(10):
        assert await house.refusal(password="guess") == (401, "bad_password")
    assert await house.refusal() == (429, "too_many_failures")
    assert isinstance(await house.visit("CP2"), Admitted)
    house.now = 60.0
    assert isinstance(await house.visit(), Admitted)


async def test_a_station_that_was_verified_is_not_locked_out_by_the_guesses_of_others() -> None:
    house = House(StationSettings("CP1", KEYED))
    await house.visit()
    for _ in range(10):
        await house.visit(password="guess")
    assert isinstance(await house.visit(), Admitted)


async def test_an_address_that_guesses_for_many_stations_is_stopped() -> None:
    limit = FailureLimit(per_station=10, per_address=30)
    for number in range(30):
        assert not limit.is_exceeded("a", f"CP{number}", 0.0)
        limit.note_failure("a", f"CP{number}", 0.0)
    assert limit.is_exceeded("a", "CP99", 0.0)
    assert not limit.is_exceeded("b", "CP99", 0.0)
    assert not limit.is_exceeded("a", "CP99", 60.0)


async def test_the_memory_of_failures_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "MAX_ADDRESSES", 100)
    limit = FailureLimit()
    for number in range(1000):
        limit.note_failure(f"address {number}", "CP1", 0.0)
    assert len(limit._failures) <= 100


async def test_slow_checks_do_not_pile_up_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "MAX_SLOW_CHECKS", 2)
    threads = Threads()
    checker = PasswordChecker(PEPPER, threads, lambda call: call())
    stored = hash_password("right", PEPPER, generated=False)
    answers: list[bool | None] = []
    for password in (b"right", b"wrong", b"right"):
        checker.check("CP1", stored, (password,), answers.append)
    assert answers == [None]
    threads.run()
    assert answers == [None, True, False]
    assert checker.is_verified("CP1", stored, (b"right",))
    assert not checker.is_verified("CP1", stored, (b"wrong",))
    assert not checker.is_verified("CP2", stored, (b"right",))
    assert not checker.is_verified("CP1", KEYED, (b"right",))


async def test_without_postgres_what_is_remembered_counts_however_old() -> None:
    house = House(StationSettings("CP1", KEYED))
    await house.visit()
    await house.visit("CP9")
    house.source.is_away = True
    house.now = 10_000.0
    assert isinstance(await house.visit(), Admitted)
    assert await house.refusal("CP2") == (503, "no_directory")
    # That it was not registered once says nothing now.
    assert await house.refusal("CP9") == (503, "no_directory")


class HungSource:
    """A database that does not even let go."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()

    async def read(self, station_ids: Iterable[str]) -> Mapping[str, StationSettings]:
        try:
            await self.let_go.wait()
        finally:
            await self.let_go.wait()
        return {}


async def test_a_postgres_that_hangs_even_when_it_is_given_up_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_module, "QUERY_SECONDS", 0.02)
    source, answer = HungSource(), asyncio.get_running_loop().create_future()
    directory = StationDirectory(source, fresh_seconds=10, clock=lambda: 0.0)
    running = asyncio.create_task(directory.run())
    directory.request("CP1", answer.set_result)
    assert isinstance(await asyncio.wait_for(answer, 5), Unavailable)
    assert not directory.is_up
    source.let_go.set()
    running.cancel()


async def test_an_edge_that_starts_without_postgres_is_ready_once_it_is_there_though_nobody_has_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(directory_module, "RETRY_SECONDS", 0.01)
    source = Source()
    source.is_away = True
    directory = StationDirectory(source, fresh_seconds=10, clock=lambda: 0.0)
    probing = asyncio.create_task(directory.probe())
    await asyncio.sleep(0.05)
    assert not directory.has_been_up
    source.is_away = False
    await asyncio.wait_for(probing, 5)
    assert directory.has_been_up


async def test_while_postgres_is_away_it_is_asked_once_a_second() -> None:
    house = House()
    house.source.is_away = True
    for _ in range(5):
        await house.visit()
    assert house.source.reads == 1
    house.now += 1.0
    await house.visit()
    assert house.source.reads == 2


async def test_no_station_is_registered_by_itself_while_postgres_is_away() -> None:
    house = House(auto_register=True)
    house.source.is_away = True
    assert await house.refusal() == (503, "no_directory")
    house.source.is_away = False
    house.now += 1.0
    assert isinstance(await house.visit(), Admitted)


async def test_each_waiting_handshake_is_answered() -> None:
    source, found = Source(StationSettings("A"), StationSettings("B")), list[StationSettings | Unavailable | None]()
    directory = StationDirectory(source, fresh_seconds=10, clock=lambda: 0.0)
    for name in ("A", "B", "A", "C"):
        directory.request(name, found.append)
    running = asyncio.create_task(directory.run())
    await asyncio.sleep(0.01)
    running.cancel()
    names = [row.station_id if isinstance(row, StationSettings) else repr(row) for row in found]
    assert sorted(names) == ["A", "A", "B", "None"]
    assert source.reads == 1


# Reading the request


@given(st.text(max_size=200))
def test_any_path_gives_an_identity_or_a_refusal(path: str) -> None:
    for prefix in ("/ocpp", "", "*"):
        try:
            station_id = read_station_id("/" + path, prefix)
        except Refusal as refusal:
            status = refusal.status
        else:
            status = 400
            assert station_id.isprintable()
            assert 0 < len(station_id) <= 128
        assert status in (400, 404)


@pytest.mark.parametrize(
    ("path", "prefix", "station_id"),
    [
        ("/ocpp/CP1", "/ocpp", "CP1"),
        ("/ocpp/CP1/", "/ocpp", "CP1"),
        ("/CP1", "", "CP1"),
        ("/a/b/CP1", "*", "CP1"),
        ("/a/b/CP1", "/a/b", "CP1"),
        ("/ocpp/a%2Fb", "/ocpp", "a/b"),
        ("/ocpp/CP1?x=/y", "/ocpp", "CP1"),
    ],
)
def test_the_identity_is_the_last_segment(path: str, prefix: str, station_id: str) -> None:
    assert read_station_id(path, prefix) == station_id


@pytest.mark.parametrize(("path", "prefix"), [("/other/CP1", "/ocpp"), ("/ocpp/x/CP1", "/ocpp"), ("/CP1", "/ocpp")])
def test_another_path_is_not_found(path: str, prefix: str) -> None:
    with pytest.raises(Refusal) as caught:
        read_station_id(path, prefix)
    assert caught.value.status == 404


@given(st.text(alphabet=st.characters(exclude_categories=["C"]), min_size=1, max_size=20), st.binary(max_size=40))
def test_any_password_is_read_as_it_was_sent(station_id: str, password: bytes) -> None:
    encoded = b64encode(station_id.encode() + b":" + password).decode()
    passwords = read_passwords(Headers({"Authorization": f"Basic {encoded}"}), station_id)
    assert passwords[:1] == ((password,) if password else ())
