"""Local time at a location: what its wall clock shows, and when it next shows one of some times.

A window such as 22:00-06:00 is judged by the wall clock, a quantity by real time. Where the clock is put back, 02:30
comes twice and a window holds both times; where it is put forward, 02:30 never comes and the window's part is missing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

MS_PER_MINUTE = 60_000
MS_PER_DAY = 86_400_000
EPOCH_DAY = datetime(1970, 1, 1, tzinfo=UTC).toordinal()
_REMEMBERED_DAYS = 1024
MAX_MS = 253_370_764_800_000
"""The beginning of the year 9999."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def zone_problem(name: str) -> str | None:
    """What is wrong with the name of a time zone, or `None`."""
    try:
        ZoneInfo(name)
    except (OSError, ValueError, TypeError):
        return f"{name!r} is not an IANA time zone"
    except KeyError:  # ZoneInfoNotFoundError
        return f"{name!r} is an unknown IANA time zone"
    return None


@lru_cache(maxsize=512)
def local_clock(time_zone: str) -> LocalClock:
    """The clock of a zone. Raises `ValueError` for an unknown one."""
    problem = zone_problem(time_zone)
    if problem:
        raise ValueError(problem)
    return LocalClock(ZoneInfo(time_zone))


class LocalClock:
    """The wall clock of one zone, in Unix milliseconds."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._offsets: dict[int, int | None] = {}

    def offset_ms(self, at_ms: int) -> int:
        """Local time minus UTC."""
        day = at_ms // MS_PER_DAY
        try:
            offset = self._offsets[day]
        except KeyError:
            offset = self._remember(day)
        return self._look_up(at_ms) if offset is None else offset

    def _remember(self, day: int) -> int | None:
        """The offset of a UTC day, or `None` if the clock is changed on it."""
        if len(self._offsets) >= _REMEMBERED_DAYS:
            self._offsets.clear()
        first, last = self._look_up(day * MS_PER_DAY), self._look_up((day + 1) * MS_PER_DAY)
        self._offsets[day] = first if first == last else None
        return self._offsets[day]

    def _look_up(self, at_ms: int) -> int:
        offset = (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(self._zone).utcoffset()
        assert offset is not None
        return (offset.days * 86_400 + offset.seconds) * 1000 + offset.microseconds // 1000

    def day_and_minute(self, at_ms: int) -> tuple[int, int]:
        """The local day (ordinal of `datetime.date`) and the minute of that day."""
        days, ms = divmod(at_ms + self.offset_ms(at_ms), MS_PER_DAY)
        return days + EPOCH_DAY, ms // MS_PER_MINUTE

    def next_edge(self, after_ms: int, minutes: Sequence[int]) -> int:
        """The first instant after `after_ms` at which the wall clock shows one of `minutes`, or is put forward or back.

        Args:
            after_ms: Unix milliseconds.
            minutes: Minutes of the day, ascending, at least one.
        """
        offset = self.offset_ms(after_ms)
        now = (after_ms + offset) % MS_PER_DAY
        place = bisect_right(minutes, now // MS_PER_MINUTE)
        if place < len(minutes):
            edge = after_ms + minutes[place] * MS_PER_MINUTE - now
        else:
            edge = after_ms + minutes[0] * MS_PER_MINUTE + MS_PER_DAY - now
        if self.offset_ms(edge) == offset:
            return edge
        return self._change(after_ms, edge, offset)

    def _change(self, low: int, high: int, offset: int) -> int:
        """The instant in (low, high] from which the offset is no longer `offset`."""
        while high - low > 1:
            middle = (low + high) // 2
            if self.offset_ms(middle) == offset:
                low = middle
            else:
                high = middle
        return high
