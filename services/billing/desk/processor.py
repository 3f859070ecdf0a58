"""The desk as the stream runtime sees it."""

from __future__ import annotations

import time
from collections import ChainMap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson

from busbar.avro import InvalidAvro, decode, decode_call
from busbar.ocpp.versions import Version
from busbar.records import Record, Result
from busbar.stream.interfaces import InvalidRecord
from busbar.stream.partitioner import Partitioner
from busbar.tariffs import TariffBook
from busbar.topics import station_topic, topics_read_by
from services.billing.commands import SERVICE
from services.billing.desk import metrics
from services.billing.desk.core import apply
from services.billing.desk.model import (
    Asked,
    CommandNews,
    DeskPolicy,
    Event,
    SettlementPlaced,
    State,
    StationSettings,
    TariffLook,
    VatChecked,
    question_id,
)
from services.billing.desk.store import (
    due_stations,
    load_displays,
    load_questions,
    load_settings,
    load_settlements,
    load_tariffs,
    load_tokens,
    open_questions,
    placed_settlements,
    store_state,
)
from services.billing.desk.tariffs import ACTIONS
from services.billing.desk.vat import UNAVAILABLE, VatChecker
from services.billing.processor import TOPICS as BILLING_TOPICS

COMMAND_EVENTS_TOPIC = "csms.command-events"
OUTCOMES = frozenset({"answered", "error", "timeout", "offline", "disconnected", "rejected"})
"""The stages that end a command."""

_COMMANDS = ACTIONS | {"CostUpdated"}
_MOST_QUESTIONS = 1_000
_MOST_LOOKS = 200
"""Stations whose tariffs are looked at in one go: a fleet that boots at once is not asked at once."""
_MOST_PLACED = 1_000
_PLACE_EVERY_MS = 5_000
_BOOK_SECONDS = 2.0
_DISPLAYS_SECONDS = 15.0
_AUTHORIZE_TOPIC = station_topic(Version.V16, "Authorize")


class DeskProcessor:
    """Answers settlements and questions about VAT numbers, and tells stations prices and tariffs.

    Args:
        partitions: The partition count of the topics, which says whose a station is when something has come due.
        checker: Who is asked about VAT numbers, if the policy says so.
        now_ms: The clock, read once a batch.
    """

    group = "billing-desk"
    topics: Sequence[str] = tuple(name for name in topics_read_by(SERVICE) if name not in BILLING_TOPICS)

    def __init__(
        self,
        policy: DeskPolicy,
        book: TariffBook,
        *,
        partitions: int,
        checker: VatChecker | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._policy = policy
        self._book = book
        self._partitions = partitions
        self._checker = checker
        self._now_ms = now_ms
        self._partitioner = Partitioner()
        self._next_book = 0.0
        self._next_placed_ms = 0
        self._displays: dict[str, StationSettings] | None = None
        self._next_displays = 0.0

    def decode(self, record: Record) -> Event:
        try:
            if record.topic == COMMAND_EVENTS_TOPIC:
                return read_command_event(record)
            if record.topic == _AUTHORIZE_TOPIC and not self._has_display(record):
                return None
            return Asked(record.partition, decode_call(record.value or b""))
        except InvalidAvro as error:
            raise InvalidRecord("undecodable", str(error)) from error

    async def load(self, connection: Any, events: Sequence[Event]) -> State:
        await self._refresh(connection)
        wanted: dict[str, set[str]] = {
            name: set() for name in ("settings", "tokens", "settlements", "questions", "tariffs")
        }
        for event in events:
            match event:
                case Asked(_, call) if call.action == "NotifySettlement":
                    wanted["settlements"].add(str(call.payload.get("pspRef") or ""))
                case Asked(_, call) if call.action == "VatNumberValidation":
                    wanted["questions"].add(question_id(call))
                case Asked(_, call) if call.action == "Authorize":
                    wanted["tokens"].add(str(call.payload.get("idTag") or "").strip().casefold())
                case Asked(_, call):
                    wanted["tariffs"].add(call.station_id)
                case CommandNews() | TariffLook():
                    wanted["settings"].add(event.station_id)
                    wanted["tariffs"].add(event.station_id)
                case VatChecked():
                    wanted["questions"].add(event.question_id)
                case SettlementPlaced():
                    wanted["settlements"].add(event.psp_ref)
        stations, tariffs = await load_tariffs(connection, wanted["tariffs"])
        return State(
            now_ms=self._now_ms(),
            policy=self._policy,
            book=self._book,
            settings=ChainMap(await load_settings(connection, wanted["settings"]), self._displays or {}),
            tokens=await load_tokens(connection, wanted["tokens"]),
            settlements=await load_settlements(connection, wanted["settlements"]),
            questions=await load_questions(connection, wanted["questions"]),
            stations=stations,
            tariffs=tariffs,
        )

    def fold(self, state: State, event: Event) -> Iterable[Result]:
        return apply(state, event)

    async def store(self, connection: Any, state: State) -> None:
        await store_state(connection, state)

    def committed(self, state: State) -> None:
        """Questions are asked once they are kept, so that none is forgotten."""
        metrics.count(state)
        if self._checker is not None:
            for each in sorted(state.new_questions):
                self._checker.ask(each, state.questions[each].vat_number)
            for each in state.closed_questions:
                self._checker.forget(each)

    async def due(self, connection: Any, partitions: Sequence[int], now_ms: int) -> Sequence[Event]:
        """Checked VAT numbers, settlements whose session has come, and stations whose tariffs may have changed."""
        await self._refresh(connection)
        ours = set(partitions)
        found: list[Event] = []
        if self._checker is not None:
            found += await self._checked(connection, ours, now_ms)
        if now_ms >= self._next_placed_ms:
            self._next_placed_ms = now_ms + _PLACE_EVERY_MS
            placed = await placed_settlements(connection, _MOST_PLACED, self._partition_of)
            found += [event for event in placed if event.partition in ours]
        if self._policy.push_tariffs:
            for station_id in await due_stations(connection, now_ms, self._book.revision, _MOST_LOOKS):
                partition = self._partition_of(station_id)
                if partition in ours:
                    found.append(TariffLook(partition, station_id, now_ms))
        return found

    def partition_of_event(self, event: Event) -> int:
        if event is None:
            raise ValueError("an event without a partition")
        return event.partition

    async def _checked(self, connection: Any, ours: set[int], now_ms: int) -> list[Event]:
        """Questions with an answer, and those for which the time is over; others are asked if nobody has yet."""
        assert self._checker is not None
        found: list[Event] = []
        for question in await open_questions(connection, _MOST_QUESTIONS):
            partition = self._partition_of(question.station_id)
            if partition not in ours:
                continue
            answer = self._checker.answer(question.question_id)
            if answer is None and now_ms - question.asked_at_ms > self._policy.vat_seconds * 1000:
                answer = UNAVAILABLE
            if answer is None:
                self._checker.ask(question.question_id, question.vat_number)
            else:
                found.append(VatChecked(partition, question.question_id, answer))
        return found

    def _has_display(self, record: Record) -> bool:
        """Whether the station may be told what its users will pay; most are not, and need not be read."""
        return self._displays is None or (record.key or b"").decode("utf-8", "replace") in self._displays

    async def _refresh(self, connection: Any) -> None:
        """Read tariffs again if they have changed, and which stations have displays, every few seconds."""
        now = time.monotonic()
        if now >= self._next_displays:
            self._displays = await load_displays(connection)
            self._next_displays = now + _DISPLAYS_SECONDS
        if now >= self._next_book:
            await self._book.refresh(connection)
            self._next_book = now + _BOOK_SECONDS

    def _partition_of(self, station_id: str) -> int:
        return self._partitioner.partition(station_id.encode(), self._partitions)


def read_command_event(record: Record) -> CommandNews | None:
    """The outcome of a command that the desk cares for.

    Raises:
        InvalidAvro: The record is not a CommandEvent.
    """
    _, value = decode(record.value or b"")
    if value["action"] not in _COMMANDS or value["stage"] not in OUTCOMES:
        return None
    return CommandNews(
        partition=record.partition,
        station_id=value["station_id"],
        command_id=value["command_id"],
        action=value["action"],
        stage=value["stage"],
        payload=_mapping(value["payload"]) if value["stage"] == "answered" else {},
        error_code=value["error_code"],
        at_ms=value["at"],
    )


def _mapping(text: str) -> dict[str, Any]:
    try:
        value = orjson.loads(text) if text else {}
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
