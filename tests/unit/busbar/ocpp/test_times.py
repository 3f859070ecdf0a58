"""Timestamps: lenient in, strict out."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busbar.ocpp.times import format_timestamp, format_timestamp_ms, parse_timestamp, timestamp_ms

NOON = datetime(2026, 3, 4, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-03-04T12:00:00Z", NOON),
        ("2026-03-04T12:00:00z", NOON),
        ("2026-03-04t12:00:00Z", NOON),
        ("2026-03-04T12:00:00.000Z", NOON),
        ("2026-03-04T12:00:00.0000000Z", NOON),
        ("2026-03-04T12:00:00,5Z", NOON + timedelta(milliseconds=500)),
        ("2026-03-04T14:00:00+02:00", NOON),
        ("2026-03-04T14:00:00+0200", NOON),
        ("2026-03-04 12:00:00Z", NOON),
        ("2026-03-04T12:00:00", NOON),
        ("2026-03-04 12:00:00", NOON),
        ("2026-03-04T12:00Z", NOON),
        (" 2026-03-04T12:00:00Z\0", NOON),
        ("2026-03-04T24:00:00Z", datetime(2026, 3, 5, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("1970-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_what_stations_send_is_read(text: Any, moment: Any) -> None:
    assert parse_timestamp(text) == moment
    assert parse_timestamp(text).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    ["", "now", "2026", "2026-03-04", "12:00:00", "2026-13-01T00:00:00Z", "1750000000", "9999-12-31T23:59:59-12:00"],
)
def test_what_is_no_timestamp_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_timestamp(text)


def test_timestamps_are_written_in_utc_with_three_decimals() -> None:
    assert format_timestamp(NOON) == "2026-03-04T12:00:00.000Z"
    assert format_timestamp(NOON.astimezone(timezone(timedelta(hours=9)))) == "2026-03-04T12:00:00.000Z"
    assert format_timestamp_ms(timestamp_ms(NOON) + 7) == "2026-03-04T12:00:00.007Z"


def test_a_timestamp_without_a_zone_is_utc_wherever_we_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert parse_timestamp("2026-03-04T12:00:00") == NOON
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_naive_datetime_is_not_written() -> None:
    with pytest.raises(ValueError, match="naive"):
        format_timestamp(NOON.replace(tzinfo=None))


@given(st.text(max_size=40))
def test_any_text_gives_a_moment_or_a_value_error(text: Any) -> None:
    try:
        assert parse_timestamp(text).tzinfo is UTC
    except ValueError:
        pass


@given(st.integers(0, 253_402_300_799_999))
def test_milliseconds_survive_writing_and_reading(unix_ms: Any) -> None:
    assert timestamp_ms(parse_timestamp(format_timestamp_ms(unix_ms))) == unix_ms
