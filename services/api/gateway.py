"""Commands on their way in, and their outcomes on the way back.

A command is produced to `csms.commands` and acknowledged by Kafka before anybody is told of it. Each API process reads
all of `csms.command-events` from the end and wakes the request that waits. Should that path fail, for instance because
the process started after the outcome, the router's table is asked once a second.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from busbar.avro import InvalidAvro, decode, encode
from busbar.postgres import DATABASE_ERRORS
from busbar.records import Record, ReturnAddress, TopicPartition
from busbar.stream.interfaces import Consumer, Producer, RecordTooLarge, UnknownTopic
from busbar.stream.replies import with_return_address
from services.api import metrics
from services.api.core import Outcome
from services.api.problems import Problem, unavailable

logger = logging.getLogger(__name__)

COMMANDS = "csms.commands"
EVENTS = "csms.command-events"
TARIFF_CHANGES = "csms.tariff-changes"

_TERMINAL = frozenset({"answered", "error", "timeout", "offline", "disconnected", "rejected"})
_ACK_SECONDS = 10.0
_POLICY_VIOLATION = 1008
_FETCH_SECONDS = 0.5
_ASK_TABLE_AFTER_SECONDS = 1.5

FIND_OUTCOMES = """
SELECT command_id, outcome, finished_at, ocpp_version, answer, error_code, error_description, error_details
FROM router.commands WHERE command_id = ANY($1::text[]) AND outcome IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class NewCommand:
    """A command as it goes to the router."""

    command_id: str
    station_id: str
    action: str
    payload: str
    requested_by: str
    requested_at_ms: int
    deadline_at_ms: int
    priority: int
    park: bool


@dataclass(frozen=True, slots=True)
class NewTariffChange:
    """Another tariff for a session that goes on, as it goes to the sessions service."""

    change_id: str
    station_id: str
    session_id: str
    transaction_id: str
    tariff_id: str
    tariff_version: int
    requested_by: str
    requested_at: int
    """Unix milliseconds."""


@dataclass(slots=True)
class _Waiter:
    since: float
    futures: list[asyncio.Future[Outcome | None]] = field(default_factory=list)
    connection_id: str = ""
    """The connection of the last dispatch that was seen."""


class CommandGateway:
    """Submits commands and waits for their outcomes.

    Args:
        max_waiting: Beyond so many waiting requests, further ones are turned away.
    """

    def __init__(
        self,
        producer: Producer,
        consumer: Consumer,
        pool: asyncpg.Pool[Any],
        *,
        max_waiting: int = 20_000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._producer = producer
        self._consumer = consumer
        self._pool = pool
        self._max_waiting = max_waiting
        self._monotonic = monotonic
        self._waiters: dict[str, _Waiter] = {}
        self._unacknowledged: dict[asyncio.Future[None], tuple[float, str]] = {}
        """Until when each record is waited for, and what it is called."""

    async def start(self) -> None:
        """Begin to read events from the end: what is submitted from now on is not missed."""
        count = self._producer.partitions(EVENTS)
        while count is None:
            count = await self._producer.refresh(EVENTS)
            if count is None:
                logger.warning("the topic of command events does not exist yet", extra={"topic": EVENTS})
                await asyncio.sleep(1)
        await self._consumer.assign({TopicPartition(EVENTS, number): None for number in range(count)})

    async def run(self) -> None:
        """Wake those who wait, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read_events())
            tasks.create_task(self._every_second())

    async def submit(self, command: NewCommand) -> None:
        """Hand a command to Kafka and wait until it is durable.

        Raises:
            Problem: 413 if it is too large for a record, 503 if Kafka does not acknowledge it in time.
        """
        value = encode(
            "csms.Command",
            {
                "command_id": command.command_id,
                "station_id": command.station_id,
                "action": command.action,
                "payload": command.payload,
                "requested_by": command.requested_by,
                "requested_at": command.requested_at_ms,
                "deadline_at": command.deadline_at_ms,
                "priority": command.priority,
                "park": command.park,
            },
        )
        began = self._monotonic()
        await self._append(COMMANDS, command.station_id, value, command.requested_at_ms, command.command_id)
        metrics.COMMAND_ACK_SECONDS.observe(self._monotonic() - began)

    async def change_tariff(self, change: NewTariffChange) -> None:
        """Hand a change to Kafka and wait until it is durable. Raises `Problem` as `submit` does."""
        value = encode("csms.TariffChange", {name: getattr(change, name) for name in NewTariffChange.__slots__})
        await self._append(TARIFF_CHANGES, change.station_id, value, change.requested_at, change.change_id)

    async def close_connection(
        self, station_id: str, edge_partition: int, connection_id: str, reason: str, now_ms: int
    ) -> None:
        """Tell the edge that holds the connection to close it. Raises `Problem`."""
        order = with_return_address(
            ReturnAddress(edge_partition, connection_id, ""),
            station_id,
            "close",
            produced_by="api",
            now_ms=now_ms,
            error_description=reason,
            close_code=_POLICY_VIOLATION,
        )
        await self._append(order.topic, station_id, order.value, now_ms, connection_id, partition=edge_partition)

    async def _append(
        self, topic: str, station_id: str, value: bytes, now_ms: int, name: str, partition: int | None = None
    ) -> None:
        key = station_id.encode()
        acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_ack() -> None:
            if not acknowledged.done():
                acknowledged.set_result(None)

        try:
            number = self._producer.partition_for(topic, key) if partition is None else partition
            self._producer.append(topic, number, key=key, value=value, timestamp_ms=now_ms, on_ack=on_ack)
        except UnknownTopic:
            raise unavailable("kafka", f"The topic {topic} is not there.") from None
        except RecordTooLarge:
            raise Problem(413, "too-large", "The command is too large for the log") from None
        self._unacknowledged[acknowledged] = (self._monotonic() + _ACK_SECONDS, name)
        try:
            await acknowledged
        finally:
            del self._unacknowledged[acknowledged]

    def expect(self, command_id: str) -> asyncio.Future[Outcome | None]:
        """A future for the outcome, to be asked for before the command is submitted, and released after.

        It may end with `None`, when the process stops.
        """
        if len(self._waiters) >= self._max_waiting:
            raise Problem(503, "too-many-waiting", "Too many requests wait for commands", headers={"Retry-After": "5"})
        waiter = self._waiters.setdefault(command_id, _Waiter(self._monotonic()))
        future: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        waiter.futures.append(future)
        metrics.COMMANDS_WAITING.set(len(self._waiters))
        return future

    async def outcome(self, command_id: str, future: asyncio.Future[Outcome | None], seconds: float) -> Outcome | None:
        """Wait for the outcome and release the future; `None` if there is none in time."""
        # One timer, and no task or callback besides: this is done for every command.
        timer = asyncio.get_running_loop().call_later(seconds, _give_up, future)
        try:
            return await future
        finally:
            timer.cancel()
            self.release(command_id, future)

    def release(self, command_id: str, future: asyncio.Future[Outcome | None]) -> None:
        """Nobody waits for this future any more."""
        future.cancel()
        waiter = self._waiters.get(command_id)
        if waiter is not None and future in waiter.futures:
            waiter.futures.remove(future)
            if not waiter.futures:
                del self._waiters[command_id]
        metrics.COMMANDS_WAITING.set(len(self._waiters))

    def dismiss_all(self) -> None:
        """Let every waiting request go without an outcome: the process is stopping."""
        for waiter in self._waiters.values():
            for future in waiter.futures:
                if not future.done():
                    future.set_result(None)

    def problem(self) -> str | None:
        """What keeps commands from working, if anything does."""
        unacknowledged = self._producer.oldest_unacknowledged_seconds()
        if unacknowledged > _ACK_SECONDS:
            return f"Kafka has not acknowledged a record for {unacknowledged:.0f} s"
        silent = self._consumer.silent_seconds()
        return f"Kafka has been silent for {silent:.0f} s" if silent > 15 else None

    async def _read_events(self) -> None:
        while True:
            for records in (await self._consumer.fetch(_FETCH_SECONDS)).values():
                for record in records:
                    if self._waiters:
                        self.see(record)

    def see(self, record: Record) -> None:
        """Wake whoever waits for the outcome that this record of `csms.command-events` may be."""
        try:
            _, event = decode(record.value or b"")
            command_id, stage, connection_id = event["command_id"], event["stage"], event["connection_id"]
        except (InvalidAvro, KeyError):
            metrics.EVENTS_UNREADABLE.inc()
            return
        waiter = self._waiters.get(command_id)
        if waiter is None:
            return
        if stage == "dispatched":
            waiter.connection_id = connection_id
        if stage not in _TERMINAL or _of_an_earlier_connection(event, waiter):
            return
        outcome = Outcome(
            command_id=command_id,
            outcome=stage,
            at_ms=event["at"],
            ocpp_version=event["ocpp_version"],
            answer=event["payload"],
            error_code=event["error_code"],
            error_description=event["error_description"],
            error_details=event["error_details"],
        )
        self._wake(outcome, "events")

    async def _every_second(self) -> None:
        while True:
            await asyncio.sleep(1)
            now = self._monotonic()
            self._fail_unacknowledged(now)
            before = now - _ASK_TABLE_AFTER_SECONDS
            wanted = [command_id for command_id, waiter in self._waiters.items() if waiter.since < before]
            if wanted:
                await self._look_up(wanted)

    def _fail_unacknowledged(self, now: float) -> None:
        for future, (until, name) in self._unacknowledged.items():
            if until < now and not future.done():
                detail = f"{name} was not acknowledged in time. It may still be carried out, before its deadline."
                future.set_exception(unavailable("kafka", detail))

    async def _look_up(self, command_ids: list[str]) -> None:
        try:
            rows = await self._pool.fetch(FIND_OUTCOMES, command_ids)
        except DATABASE_ERRORS as error:
            logger.warning("outcomes could not be looked up", extra={"error": repr(error)})
            return
        for row in rows:
            outcome = Outcome(
                command_id=row["command_id"],
                outcome=row["outcome"],
                at_ms=round(row["finished_at"].timestamp() * 1000),
                ocpp_version=row["ocpp_version"],
                answer=row["answer"] or "",
                error_code=row["error_code"],
                error_description=row["error_description"],
                error_details=row["error_details"] or "",
            )
            self._wake(outcome, "table")

    def _wake(self, outcome: Outcome, where: str) -> None:
        waiter = self._waiters.get(outcome.command_id)
        for future in waiter.futures if waiter else ():
            if not future.done():
                future.set_result(outcome)
                metrics.OUTCOMES_FOUND.labels(where).inc()


def _give_up(future: asyncio.Future[Outcome | None]) -> None:
    if not future.done():
        future.set_result(None)


def _of_an_earlier_connection(event: dict[str, Any], waiter: _Waiter) -> bool:
    """Whether a connection failed from which the router has since moved on: the router does not count it either."""
    failed = event["source"] == "edge" and event["stage"] in ("timeout", "disconnected")
    return failed and waiter.connection_id not in ("", event["connection_id"])
