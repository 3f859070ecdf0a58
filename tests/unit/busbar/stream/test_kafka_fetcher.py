"""Fetch sessions: what is asked for, byte for byte as aiokafka would, and what the broker is taken to remember."""

from __future__ import annotations

from io import BytesIO

import pytest
from aiokafka import TopicPartition, errors
from aiokafka.protocol.fetch import FetchRequest_v11, FetchResponse_v11

from busbar.stream.kafka_fetcher import AnsweredPartition, FetchAnswer, FetchRequest, Session

A0, A1, B0 = TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("bé", 0)


def request(**changes: object) -> FetchRequest:
    options: dict[str, object] = {
        "max_wait_ms": 500,
        "min_bytes": 1,
        "max_bytes": 4096,
        "isolation_level": 1,
        "session": (17, 3),
        "positions": [(A0, 5), (B0, 2**40), (A1, 0)],
        "max_partition_bytes": 1024,
        "forgotten": [B0, A1],
        "rack_id": "zone-1",
        **changes,
    }
    return FetchRequest(**options)  # type: ignore[arg-type]


def test_a_request_has_the_bytes_that_aiokafka_would_write() -> None:
    expected = FetchRequest_v11(
        -1,
        500,
        1,
        4096,
        1,
        17,
        3,
        [("a", [(0, -1, 5, -1, 1024), (1, -1, 0, -1, 1024)]), ("bé", [(0, -1, 2**40, -1, 1024)])],
        [("bé", [0]), ("a", [1])],
        "zone-1",
    )
    ours = request()
    assert ours.encode() == expected.encode()
    assert ours.build_request_header(7, "me").encode() == expected.build_request_header(7, "me").encode()
    assert ours.parse_response_header(BytesIO(b"\x00\x00\x00\x07rest")).correlation_id == 7


def test_an_answer_is_read_as_aiokafka_would_read_it() -> None:
    written = FetchResponse_v11(
        0,
        0,
        99,
        [
            ("bé", [(0, 0, 12, 11, 3, [(8, 9), (10, 2**40)], 2, b"records"), (1, 6, -1, -1, -1, None, -1, b"")]),
            ("a", [(1, 0, 1, 1, 0, [], -1, None)]),
        ],
    ).encode()
    buffer = BytesIO(b"head" + written)
    buffer.read(4)
    answer = FetchAnswer.decode(buffer)
    assert (answer.error_code, answer.session_id) == (0, 99)
    assert answer.partitions == [
        AnsweredPartition(B0, 0, 12, 11, [(8, 9), (10, 2**40)], 2, b"records"),
        AnsweredPartition(TopicPartition("bé", 1), 6, -1, -1, [], -1, b""),
        AnsweredPartition(A1, 0, 1, 1, [], -1, b""),
    ]


def test_a_broker_that_speaks_older_versions_only_is_refused() -> None:
    ours = request()
    assert ours.prepare({1: (4, 17)}) is ours
    with pytest.raises(errors.IncompatibleBrokerVersion):
        ours.prepare({1: (0, 10)})


def test_a_session_names_what_has_changed_and_forgets_what_is_not_wanted() -> None:
    session = Session()
    identity, positions, forgotten = session.next_request({A0: 1, A1: 2, B0: 3})
    assert (identity, sorted(positions), forgotten) == ((0, 0), [(A0, 1), (A1, 2), (B0, 3)], [])
    session.answered(42)
    assert session.next_request({A0: 1, A1: 7, B0: 3}) == ((42, 1), [(A1, 7)], [])
    session.answered(42)
    assert session.next_request({A0: 1, A1: 7}) == ((42, 2), [], [B0])
    session.answered(42)
    # It was paused, say: it comes back where it was.
    assert session.next_request({A0: 1, A1: 7, B0: 3}) == ((42, 3), [(B0, 3)], [])


def test_a_session_begins_anew_with_everything_when_it_is_not_certain_what_the_broker_remembers() -> None:
    session = Session()
    session.next_request({A0: 1})
    session.answered(42)
    session.next_request({A0: 2, A1: 5})
    session.restart()
    identity, positions, forgotten = session.next_request({A0: 2, A1: 5})
    # The old id with epoch 0 ends that session at the broker.
    assert (identity, sorted(positions), forgotten) == ((42, 0), [(A0, 2), (A1, 5)], [])


def test_a_broker_without_room_for_a_session_is_asked_for_everything_each_time() -> None:
    session = Session()
    for _ in range(2):
        assert session.next_request({A0: 1}) == ((0, 0), [(A0, 1)], [])
        session.answered(0)


def test_the_epoch_goes_round_to_one() -> None:
    session = Session()
    session.next_request({A0: 1})
    session.answered(42)
    session.epoch = 2**31 - 1
    session.answered(42)
    assert session.epoch == 1
