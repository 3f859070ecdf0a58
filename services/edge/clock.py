"""The time, read and written out at most once per millisecond."""

from __future__ import annotations

import time
from dataclasses import dataclass

from busbar.ocpp.times import format_timestamp_ms


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment, on both clocks and as text."""

    unix_ms: int
    """What records and answers carry."""
    monotonic: float
    """What deadlines are measured by, in seconds."""
    text: str
    """As OCPP writes it."""

    @classmethod
    def at(cls, unix_ms: int, monotonic: float) -> Instant:
        return cls(unix_ms, monotonic, format_timestamp_ms(unix_ms))


class Clock:
    """Reads the time. Calls within the same millisecond return the same `Instant`."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = Instant.at(0, 0.0)

    def read(self) -> Instant:
        unix_ms = int(time.time() * 1000)
        if unix_ms != self._last.unix_ms:
            self._last = Instant.at(unix_ms, time.monotonic())
        return self._last
