"""Commands on topics, schemas and dead letters, as far as they need no broker."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from busbar.avro.lock import shipped_lock
from busbar.cli import main
from busbar.cli._kafka import find_kafka, parse_since
from busbar.cli.dead_letters import REDRIVEN_HEADER, DeadLetter, meets, read_letter, why_not
from busbar.local.errors import StackError
from busbar.records import Record
from busbar.stream.dead_letters import dead_letter
from busbar.topics import all_topics

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOW_MS = 1_772_366_400_000


def busbar(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10m", NOW_MS - 600_000),
        ("1.5h", NOW_MS - 5_400_000),
        ("2d", NOW_MS - 172_800_000),
        ("30s", NOW_MS - 30_000),
        ("2026-03-01T11:00:00Z", NOW_MS - 3_600_000),
        ("2026-03-01 13:00:00+02:00", NOW_MS - 3_600_000),
    ],
)
def test_since_is_a_time_ago_or_a_point_in_time(text: str, expected: int) -> None:
    assert parse_since(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "10", "10x", "-5m"])
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(click.BadParameter, match="point in time"):
        parse_since(text, NOW)


def test_kafka_is_the_one_that_is_given_or_the_running_one_or_an_error_with_the_remedy(tmp_path: Path) -> None:
    assert find_kafka("kafka:9092", tmp_path / "run.json") == "kafka:9092"
    with pytest.raises(StackError, match="busbar up"):
        find_kafka(None, tmp_path / "run.json")


def test_a_broker_that_does_not_answer_is_told_in_one_line() -> None:
    for command in (["topics", "list", "--describe"], ["dead-letters", "list"], ["tail", "CS-1"]):
        result = busbar(*command, "--bootstrap-servers", "127.0.0.1:9")
        assert result.exit_code == 1
        assert result.output.startswith("Error: Kafka at 127.0.0.1:9 does not answer")
        assert result.output.count("\n") == 1


def test_the_list_of_topics_is_that_of_the_tables() -> None:
    output = busbar("topics", "list").output
    assert len(output.splitlines()) == len(all_topics())
    topics = json.loads(busbar("topics", "list", "--match", "csms.outbound", "--json").output)
    assert [topic["name"] for topic in topics] == ["csms.outbound"]
    assert topics[0]["readers"] == ["edge"]


def test_nothing_found_names_the_way_to_see_all() -> None:
    for command in ("topics", "schemas"):
        result = busbar(command, "list", "--match", "nonsense")
        assert result.exit_code == 1
        assert f"`busbar {command} list`" in result.output


def test_a_schema_is_found_by_id_name_subject_and_topic() -> None:
    entry = shipped_lock().latest("csms.StationStatus")
    for name in (str(entry.id), "csms.StationStatus", "csms.station-status-value", "csms.station-status"):
        result = busbar("schemas", "show", name)
        assert result.exit_code == 0, result.output
        assert json.loads(result.output) == json.loads(entry.schema)


def test_a_schema_that_is_not_there_is_an_error() -> None:
    for arguments in (["99999"], ["csms.Nonsense"], ["csms.StationStatus", "--version", "99"]):
        result = busbar("schemas", "show", *arguments)
        assert result.exit_code == 1
        assert "busbar schemas list" in result.output


def test_the_check_of_schemas_passes_in_this_checkout() -> None:
    result = busbar("schemas", "check")
    assert result.exit_code == 0, result.output


ORIGINAL = Record("ocpp.v16.MeterValues", 2, 7, NOW_MS, b"CS-1", b"value", (("traceparent", b"t"),))


def letter(original: Record = ORIGINAL, reason: str = "undecodable") -> DeadLetter:
    """As it is read back from the topic."""
    wrapped = dead_letter(original, "sessions", reason, "a detail", NOW_MS + 5)
    found = read_letter(Record("csms.dead-letters", 3, 42, NOW_MS + 5, wrapped.key, wrapped.value, wrapped.headers))
    assert found is not None
    return found


def test_a_dead_letter_has_all_of_its_original() -> None:
    one = letter()
    assert one.name == "3:42"
    assert (one.topic, one.partition, one.offset, one.timestamp_ms) == ("ocpp.v16.MeterValues", 2, 7, NOW_MS)
    assert (one.key, one.value, one.headers) == (b"CS-1", b"value", (("traceparent", b"t"),))
    assert (one.group, one.reason, one.failed_at_ms) == ("sessions", "undecodable", NOW_MS + 5)


def test_letters_are_chosen_by_what_they_have() -> None:
    one = letter()
    assert meets(one, {"topic": None, "reason": "undecodable", "group": "sessions", "key": "CS-1"})
    for wrong in ({"topic": "x"}, {"reason": "x"}, {"group": "x"}, {"key": "CS-2"}):
        assert not meets(one, {**wrong})


def test_a_second_failure_says_where_the_first_one_was() -> None:
    again = Record("ocpp.v16.MeterValues", 2, 9, NOW_MS, b"CS-1", b"value", ((REDRIVEN_HEADER, b"0:17"),))
    assert letter(again).redriven_from == "0:17"
    assert letter().redriven_from is None


def test_what_cannot_be_replayed_says_why() -> None:
    assert why_not(letter()) is None
    assert "connection" in str(why_not(letter(Record("csms.outbound", 0, -1, NOW_MS, b"CS-1", b"v"))))
    assert "no topic" in str(why_not(letter(Record("other", 0, 0, NOW_MS, b"CS-1", b"v"))))
    assert "too large" in str(why_not(letter(Record("ocpp.v16.MeterValues", 0, 0, NOW_MS, b"CS-1", None))))


def test_replay_wants_names_or_all_and_not_both() -> None:
    for arguments in ([], ["3:42", "--all"]):
        result = busbar("dead-letters", "replay", *arguments, "--bootstrap-servers", "127.0.0.1:9")
        assert result.exit_code == 2


def test_no_follow_without_since_would_show_nothing_and_says_so() -> None:
    result = busbar("tail", "CS-1", "--no-follow", "--bootstrap-servers", "127.0.0.1:9")
    assert result.exit_code == 2
    assert "--since" in result.output
