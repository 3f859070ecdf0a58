"""The journal's entries: events as they were read."""

from __future__ import annotations

import pytest

from services.billing.store import pack_entries, unpack_entries


def values(count: int) -> list[bytes]:
    return [bytes(range(100)) + bytes([number]) for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 100])
def test_entries_come_back(count: int) -> None:
    assert unpack_entries(pack_entries(values(count))) == values(count)


def test_events_of_a_batch_are_alike_and_take_little_room() -> None:
    packed = pack_entries(values(100))
    assert len(packed) < 3_000


def test_entries_that_the_version_before_has_written_are_read() -> None:
    plain = b"".join(len(value).to_bytes(4, "big") + value for value in values(100))
    assert unpack_entries(plain) == values(100)
