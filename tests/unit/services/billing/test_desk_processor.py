"""The desk as the runtime sees it: what is read, what has come due, whom it asks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from busbar.avro import encode, meta_prefix
from busbar.avro.calls import call_encoder
from busbar.ocpp.versions import Version
from busbar.records import Record
from busbar.stream.interfaces import InvalidRecord
from busbar.stream.partitioner import Partitioner
from busbar.tariffs import REVISION, TariffBook
from services.billing.desk.model import Asked, CommandNews, DeskPolicy, VatChecked
from services.billing.desk.processor import COMMAND_EVENTS_TOPIC, DeskProcessor, read_command_event
from services.billing.desk.store import OPEN_QUESTIONS, SELECT_DISPLAYS
from services.billing.desk.vat import UNAVAILABLE, VatAnswer

NOW_MS = 1_772_366_400_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PARTITIONS = 4
OURS = Partitioner().partition(b"CS-1", PARTITIONS)


class Tables:
    """Rows by query; whatever else is asked has none."""

    def __init__(self, **rows: list[Any]) -> None:
        self.rows = {SELECT_DISPLAYS: rows.get("displays", []), OPEN_QUESTIONS: rows.get("questions", [])}

    async def fetchval(self, query: str) -> int:
        assert query == REVISION
        return -1

    async def fetch(self, query: str, *_: Any) -> list[Any]:
        return self.rows.get(query, [])


class Checker:
    """Remembers what it was asked."""

    def __init__(self, **answers: VatAnswer) -> None:
        self.asked: list[tuple[str, str]] = []
        self.forgotten: list[str] = []
        self.answers = answers

    def ask(self, question_id: str, number: str) -> None:
        self.asked.append((question_id, number))

    def answer(self, question_id: str) -> VatAnswer | None:
        return self.answers.get(question_id[-1])

    def forget(self, question_id: str) -> None:
        self.forgotten.append(question_id)


def desk(checker: Checker | None = None) -> DeskProcessor:
    policy = DeskPolicy(vat_check="service", vat_seconds=15)
    return DeskProcessor(policy, TariffBook(), partitions=PARTITIONS, checker=checker, now_ms=lambda: NOW_MS)


def record(action: str, payload: dict[str, Any], version: Version, station_id: str = "CS-1") -> Record:
    prefix = meta_prefix(station_id, "c1", "edge-0", 3, version)
    value = call_encoder(version, action)(prefix, 1, "m1", NOW_MS, payload)
    return Record(f"ocpp.{version.label}.{action}", OURS, 0, NOW_MS, station_id.encode(), value)


def question(last: str, age_ms: int = 0, station_id: str = "CS-1") -> dict[str, Any]:
    return {
        "question_id": UUID("00000000-0000-0000-0000-00000000000" + last),
        "station_id": station_id,
        "edge_partition": 3,
        "connection_id": "c1",
        "message_id": "m1",
        "vat_number": "DE136695976",
        "evse_id": None,
        "asked_at": EPOCH + timedelta(milliseconds=NOW_MS - age_ms),
    }


def due(processor: DeskProcessor, tables: Tables, partitions: Sequence[int] = (OURS,)) -> Sequence[Any]:
    return asyncio.run(processor.due(tables, partitions, NOW_MS))


def test_authorizations_of_stations_without_a_display_are_not_even_read() -> None:
    processor = desk()
    authorize = record("Authorize", {"idTag": "TAG"}, Version.V16)
    assert isinstance(processor.decode(authorize), Asked)  # it is not known yet which stations have one
    displays = [("CS-2", "S1", '{"cost": "california"}')]
    state = asyncio.run(processor.load(Tables(displays=displays), []))
    assert processor.decode(authorize) is None
    other = record("Authorize", {"idTag": "TAG"}, Version.V16, "CS-2")
    assert isinstance(processor.decode(other), Asked)
    assert state.settings_of("CS-2").site_id == "S1"
    assert isinstance(processor.decode(record("VatNumberValidation", {"vatNumber": "x"}, Version.V21)), Asked)


def test_what_cannot_be_read_is_a_dead_letter() -> None:
    for topic in ("ocpp.v21.NotifySettlement", COMMAND_EVENTS_TOPIC):
        with pytest.raises(InvalidRecord, match="undecodable"):
            desk().decode(Record(topic, 0, 0, NOW_MS, b"CS-1", b"\x00nonsense"))


def test_a_question_is_asked_once_it_is_kept() -> None:
    checker = Checker()
    processor = desk(checker)
    event = processor.decode(record("VatNumberValidation", {"vatNumber": "DE 136695976"}, Version.V21))
    state = asyncio.run(processor.load(Tables(), [event]))
    assert list(processor.fold(state, event)) == []
    assert checker.asked == []
    processor.committed(state)
    assert checker.asked == [(next(iter(state.new_questions)), "DE 136695976")]


def test_questions_come_due_with_their_answer_or_when_their_time_is_over() -> None:
    answer = VatAnswer(True)
    checker = Checker(**{"1": answer})
    questions = [question("1"), question("2", 15_001), question("3", 14_000)]
    found = due(desk(checker), Tables(questions=questions))
    assert [(event.question_id[-1], event.answer) for event in found] == [("1", answer), ("2", UNAVAILABLE)]
    assert all(isinstance(event, VatChecked) and event.partition == OURS for event in found)
    # Nobody was asked about the third by this process: it has taken over.
    assert checker.asked == [("00000000-0000-0000-0000-000000000003", "DE136695976")]


def test_questions_of_other_partitions_are_left_to_their_owners() -> None:
    checker = Checker()
    assert due(desk(checker), Tables(questions=[question("1", 60_000)]), [OURS + 1]) == []
    assert checker.asked == []


@pytest.mark.parametrize(
    ("action", "stage", "read"),
    [
        ("GetTariffs", "answered", True),
        ("CostUpdated", "error", True),
        ("SetDefaultTariff", "timeout", True),
        ("GetTariffs", "sent", False),
        ("Reset", "answered", False),
    ],
)
def test_only_outcomes_that_matter_here_are_read(action: str, stage: str, read: bool) -> None:
    value = {
        "command_id": "1",
        "station_id": "CS-1",
        "action": action,
        "stage": stage,
        "source": "edge",
        "at": NOW_MS,
        "payload": '{"status":"Accepted"}',
    }
    news = read_command_event(Record(COMMAND_EVENTS_TOPIC, 1, 0, 0, b"", encode("csms.CommandEvent", value)))
    assert isinstance(news, CommandNews) is read
    if news is not None:
        assert news.payload == ({"status": "Accepted"} if stage == "answered" else {})
        assert desk().partition_of_event(news) == 1


def test_an_answer_that_is_no_json_says_nothing() -> None:
    value = {
        "command_id": "1",
        "station_id": "CS-1",
        "action": "GetTariffs",
        "stage": "answered",
        "source": "edge",
        "at": NOW_MS,
        "payload": "nonsense",
    }
    news = read_command_event(Record(COMMAND_EVENTS_TOPIC, 1, 0, 0, b"", encode("csms.CommandEvent", value)))
    assert news is not None
    assert news.payload == {}
