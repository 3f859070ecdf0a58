"""Timestamps: a lenient reader for what stations send, a strict writer for what we send."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_MIDNIGHT_AT_THE_END = re.compile(r"^(\d{4}-\d\d-\d\d)([T ])24:00(?::00(?:\.0+)?)?")
_LEAP_SECOND = re.compile(r"^(.{17})60")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def parse_timestamp(text: str) -> datetime:
    """Read a timestamp as an aware UTC datetime.

    RFC 3339, and what stations send instead: a space for the `T`, no zone (taken as UTC), a zone without its colon,
    more than six decimals (cut), a comma for the decimal point, `24:00`, and a leap second.

    Raises:
        ValueError: Not a date and time, or one outside the years 1 to 9999.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = _parse_oddity(text.strip().strip("\0"))
    if "T" not in text and "t" not in text and " " not in text.strip():
        raise ValueError("a date without a time")
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("a timestamp outside the years 1 to 9999") from None


def _parse_oddity(text: str) -> datetime:
    late = _MIDNIGHT_AT_THE_END.match(text)
    if late:
        return datetime.fromisoformat(f"{late[1]}T00:00:00{text[late.end() :]}") + timedelta(days=1)
    leap = _LEAP_SECOND.match(text)
    if leap:
        return datetime.fromisoformat(f"{leap[1]}59{text[leap.end() :]}") + timedelta(seconds=1)
    return datetime.fromisoformat(text.upper())


def format_timestamp(moment: datetime) -> str:
    """Write RFC 3339 in UTC with three decimals and `Z`. Spec: OCPP 2.0.1 Part 2, primitive datatypes.

    Raises:
        ValueError: The datetime is naive.
    """
    if moment.tzinfo is None:
        raise ValueError("a naive datetime has no place in OCPP")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def format_timestamp_ms(unix_ms: int) -> str:
    """Write Unix milliseconds as `format_timestamp` does."""
    return (_EPOCH + unix_ms * _MILLISECOND).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def timestamp_ms(moment: datetime) -> int:
    """Unix milliseconds of an aware datetime, rounded down."""
    return (moment - _EPOCH) // _MILLISECOND
