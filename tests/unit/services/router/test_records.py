from __future__ import annotations

from typing import Any

import pytest

from busbar.avro import decode, encode
from busbar.records import Record
from busbar.stream.interfaces import InvalidRecord
from busbar.topics import all_topics, topics_read_by
from services.router.core import Rules, State
from services.router.events import Close, Dispatch, KnownStage, Stage, StageReported
from services.router.processor import RouterProcessor
from services.router.records import TOPICS, read_record, write_outcome
from tests.unit.services.router.given import T0, connected, fold, heard, requested

EVIL = "'); DROP TABLE x; --<script>alert(1)</script>\u202e\U0001f50c"

CONNECTION: dict[str, Any] = {
    "station_id": "CS-1",
    "event": "connected",
    "connection_id": "a",
    "edge": "edge-0",
    "edge_instance": "i1",
    "edge_partition": 0,
    "ocpp_version": "1.6",
    "subprotocol": "ocpp1.6",
    "remote_address": "192.0.2.1",
    "security_profile": 1,
    "at": T0,
    "connected_at": T0,
}


def record(topic: str, schema: str, value: dict[str, Any], partition: int = 0) -> Record:
    return Record(topic, partition, 0, T0, b"CS-1", encode(schema, value))


def test_the_router_reads_what_the_map_of_topics_says() -> None:
    assert set(TOPICS) == set(topics_read_by("router"))
    assert len({all_topics()[topic].partition_group for topic in TOPICS}) == 1


def test_a_connection_is_read_as_it_was_written() -> None:
    assert read_record(record("csms.connections", "csms.ConnectionEvent", CONNECTION)) == connected("a")


def test_names_with_sql_script_or_signs_are_names() -> None:
    event = read_record(record("csms.connections", "csms.ConnectionEvent", {**CONNECTION, "station_id": EVIL}))
    assert event == connected("a", station=EVIL)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"event": "reconnected"}, "unknown-event"),
        ({"edge_partition": -1}, "impossible-partition"),
        ({"at": -1}, "impossible-instant"),
        ({"connected_at": 1 << 60}, "impossible-instant"),
        ({"station_id": "a\0b"}, "nul-character"),
        ({"connection_id": "\0"}, "nul-character"),
        ({"station_id": "x" * 256}, "over-long-name"),
        ({"edge_instance": "x" * 100_000}, "over-long-name"),
    ],
)
def test_a_connection_that_cannot_be_is_a_dead_letter(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRecord) as raised:
        read_record(record("csms.connections", "csms.ConnectionEvent", {**CONNECTION, **change}))
    assert raised.value.reason == reason


@pytest.mark.parametrize(
    "change", [{"command_id": "x" * 3_000}, {"stage": "x" * 3_000}, {"source": "x" * 3_000}, {"at": -1}]
)
def test_a_stage_that_no_index_could_hold_is_a_dead_letter(change: dict[str, Any]) -> None:
    value = {"command_id": "c", "station_id": "s", "action": "Reset", "stage": "sent", "source": "edge", "at": T0}
    with pytest.raises(InvalidRecord):
        read_record(record("csms.command-events", "csms.CommandEvent", value | change))


@pytest.mark.parametrize("value", [None, b"", b"\0", b"garbage", b"\0\0\0\0\1", b"\0\xff\xff\xff\xff" + b"x" * 100])
def test_bytes_that_are_no_record_are_a_dead_letter(value: bytes | None) -> None:
    for topic in TOPICS:
        with pytest.raises(InvalidRecord):
            read_record(Record(topic, 0, 0, T0, b"k", value))


def test_a_record_of_another_topics_schema_is_a_dead_letter() -> None:
    with pytest.raises(InvalidRecord, match="wrong-schema"):
        read_record(record("csms.commands", "csms.ConnectionEvent", CONNECTION))


def test_a_dispatch_is_a_call_for_that_connection_on_its_edges_partition() -> None:
    result = write_outcome(Dispatch("CS-1", 5, "a", "c1", "Reset", '{"type":"Soft"}', T0 + 1, 7, T0))
    _, value = decode(result.value)
    assert (result.topic, result.partition, result.key) == ("csms.outbound", 5, b"CS-1")
    wanted = {
        "kind": "call",
        "connection_id": "a",
        "message_id": "c1",
        "command_id": "c1",
        "action": "Reset",
        "payload": '{"type":"Soft"}',
        "deadline_at": T0 + 1,
        "priority": 7,
        "produced_by": "router",
    }
    assert {name: value[name] for name in wanted} == wanted


def test_an_order_to_close_names_the_connection_and_the_reason() -> None:
    result = write_outcome(Close("CS-1", 5, "a", "replaced", T0))
    _, value = decode(result.value)
    assert (result.partition, value["kind"], value["connection_id"], value["error_description"]) == (
        5,
        "close",
        "a",
        "replaced",
    )


def test_a_stage_that_is_written_is_read_back_as_the_routers_own() -> None:
    stage = Stage("c1", "CS-1", "Reset", "parked", T0, 2, "a", "edge-0", "1.6", "{}", "Code", "why", "{}")
    result = write_outcome(stage)
    event = read_record(Record(result.topic, 3, 0, T0, result.key, result.value))
    assert isinstance(event, StageReported)
    assert (event.source, event.partition) == ("router", 3)
    for name in Stage.__slots__:
        assert getattr(event, name) == getattr(stage, name)


def test_what_this_process_wrote_is_known_when_it_comes_back_and_what_another_wrote_is_not() -> None:
    state = State(T0)
    fold(state, heard(), connected("a"))
    writer, other = RouterProcessor(Rules()), RouterProcessor(Rules())
    _, stage = writer.fold(state, requested())
    back = Record(stage.topic, 0, 0, T0, stage.key, stage.value)
    assert writer.decode(back) == KnownStage(0)
    assert isinstance(other.decode(back), StageReported)
