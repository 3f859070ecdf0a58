"""A frame's whole way in one process, without a broker, a socket or a database: start reading here.

Each step is the one that production takes; what stands between the steps there (Kafka, Postgres) is a hand-over here.
"""

from __future__ import annotations

import orjson

from busbar.avro import decode, encode
from busbar.ocpp.versions import Version
from busbar.records import Record, Result
from services.edge.clock import Instant
from services.edge.connection import ConnectionRules, StationConnection
from services.edge.metrics import EdgeMetrics
from services.edge.records import Identity, Publication
from services.edge.routes import make_routes
from services.router.core import Rules
from services.router.core import State as RouterState
from services.router.processor import RouterProcessor
from services.sessions.model import Policy
from services.sessions.model import State as SessionsState
from services.sessions.processor import SessionsProcessor

NOW = Instant.at(1_767_225_600_000, 1000.0)  # 2026-01-01T00:00:00Z
PARTITION = 2
"""Of the station's key, in every topic that is keyed by station."""
EDGE_PARTITION = 3
"""Of `csms.outbound`: this edge's own."""


def station_connection(version: Version) -> StationConnection:
    metrics = EdgeMetrics()
    return StationConnection(
        Identity("CS-1", "connection-1", "edge-3", EDGE_PARTITION, version, PARTITION),
        make_routes(version, metrics),
        metrics,
        ConnectionRules(),
        trace=b"0123456789abcdef",
        source=b"/edges/edge-3/stations/CS-1",
    )


def as_read(produced: Publication | Result, partition: int) -> Record:
    """What a consumer gets of what a producer was given."""
    return Record(
        produced.topic, partition, 0, NOW.unix_ms, produced.key, produced.value, produced.headers
    )  # fmt: skip


def test_an_event_of_a_station_comes_back_as_the_answer_on_its_own_socket() -> None:
    edge = station_connection(Version.V201)
    call = {
        "eventType": "Started",
        "timestamp": "2026-01-01T00:00:00Z",
        "triggerReason": "Authorized",
        "seqNo": 0,
        "transactionInfo": {"transactionId": "T-1"},
        "evse": {"id": 1, "connectorId": 1},
        "idToken": {"idToken": "NOBODY-KNOWS-IT", "type": "ISO14443"},
    }

    # The socket hands over a text; nothing goes back before somebody has answered.
    edge.receive_text(orjson.dumps([2, "message-1", "TransactionEvent", call]), NOW)
    assert edge.frames_to_send() == []

    # It has become a record of its action's topic.
    (event,) = edge.records_to_publish()
    assert (event.topic, event.key) == ("ocpp.v201.TransactionEvent", b"CS-1")

    # The owner reads it, folds it, and has something to say: to the station, and to whoever bills.
    owner = SessionsProcessor(Policy(), partitions=4)
    owner._placed.add(PARTITION)
    state = SessionsState(policy=Policy())
    decoded = owner.decode(as_read(event, PARTITION))
    assert decoded is not None
    results = list(owner.fold(state, decoded))
    assert {result.topic for result in results} == {"csms.session-events", "csms.outbound"}

    # The reply stands in the partition of the edge that asked, with the address of the very connection.
    reply = next(result for result in results if result.topic == "csms.outbound")
    assert reply.partition == EDGE_PARTITION
    _, message = decode(reply.value)
    assert (message["connection_id"], message["message_id"]) == ("connection-1", "message-1")

    # The edge delivers it, once.
    edge.receive_outbound(message, NOW)
    edge.receive_outbound(message, NOW)
    frames = [orjson.loads(frame) for frame in edge.frames_to_send()]
    assert frames == [[3, "message-1", {"idTokenInfo": {"status": "Unknown"}}]]


def test_a_command_finds_the_socket_and_its_outcome_comes_back() -> None:
    edge = station_connection(Version.V16)
    router = RouterProcessor(Rules(), clock=lambda: NOW.unix_ms)
    state = RouterState(now_ms=NOW.unix_ms)

    def fold(topic: str, schema: str, **value: object) -> list[Result]:
        record = Record(topic, PARTITION, 0, NOW.unix_ms, b"CS-1", encode(schema, value))
        return list(router.fold(state, router.decode(record)))

    # The edge says that it lives, and that it holds the station's socket.
    pod = {"edge": "edge-3", "edge_instance": "instance-1", "edge_partition": EDGE_PARTITION, "at": NOW.unix_ms}
    fold("csms.edges", "csms.EdgeEvent", **pod, event="alive", connections=1, address="127.0.0.1:9310")
    fold(
        "csms.connections",
        "csms.ConnectionEvent",
        **pod,
        station_id="CS-1",
        event="connected",
        connection_id="connection-1",
        ocpp_version="1.6",
        subprotocol="ocpp1.6",
        remote_address="127.0.0.1",
        security_profile=1,
        connected_at=NOW.unix_ms,
    )

    # Somebody wants the station to reset: the router knows where to.
    results = fold(
        "csms.commands",
        "csms.Command",
        command_id="5f0b8f2e-6a0e-4b53-9d52-2f6f4f6b7c11",
        station_id="CS-1",
        action="Reset",
        payload='{"type":"Soft"}',
        requested_by="operator",
        requested_at=NOW.unix_ms,
        deadline_at=NOW.unix_ms + 30_000,
    )
    dispatch = next(result for result in results if result.topic == "csms.outbound")
    assert dispatch.partition == EDGE_PARTITION

    # The edge sends it, the station answers, and the outcome is an event.
    edge.receive_outbound(decode(dispatch.value)[1], NOW)
    (frame,) = [orjson.loads(frame) for frame in edge.frames_to_send()]
    assert frame == [2, "5f0b8f2e-6a0e-4b53-9d52-2f6f4f6b7c11", "Reset", {"type": "Soft"}]
    edge.receive_text(orjson.dumps([3, frame[1], {"status": "Accepted"}]), NOW)
    stages = [decode(record.value)[1] for record in edge.records_to_publish()]
    assert [(stage["stage"], stage["payload"]) for stage in stages] == [
        ("sent", ""),
        ("answered", '{"status":"Accepted"}'),
    ]
