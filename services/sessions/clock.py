"""Station clocks: their timestamps are kept, and corrected only where a live frame proves the clock wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from busbar.ocpp.times import parse_timestamp, timestamp_ms
from services.sessions.flags import Flag

TOLERANCE_MS = 300_000
"""A frame is at most so long under way; a clock that deviates less is left alone."""

UNSET_BEFORE_MS = 1_420_070_400_000
"""2015-01-01: a clock that shows less was never set."""

_ZONE_STEP_MS = 900_000
_ZONE_SLACK_MS = 90_000
_ZONE_LIMIT_MS = 14 * 3_600_000 + _ZONE_SLACK_MS
_PACE_SLACK_MS = 5_000
_PACE_MINIMUM_MS = 10_000
_MEMO_LIMIT = 4096

_memo: dict[Any, int | None] = {}


def station_ms(text: Any) -> int | None:
    """A station's timestamp in Unix milliseconds; `None` if it cannot be read."""
    try:
        return _memo[text]
    except KeyError:
        pass
    except TypeError:  # no text at all
        return None
    try:
        moment: int | None = timestamp_ms(parse_timestamp(text)) if isinstance(text, str) else None
    except ValueError:
        moment = None
    if len(_memo) >= _MEMO_LIMIT:
        _memo.clear()
    _memo[text] = moment
    return moment


@dataclass(slots=True)
class Clock:
    """What is known of a station's clock. A clock that is right leaves no trace."""

    shift_ms: int = 0
    """To be added to the station's time of a live frame. 0: the clock is right, or nothing is proven."""
    station_ms: int = 0
    """The last suspicious frame: its time by the station."""
    received_ms: int = 0
    """The last suspicious frame: when it was received."""
    changed: bool = field(default=False, compare=False)
    """Whether something was learnt that has to be stored."""


@dataclass(slots=True)
class Moment:
    """When something happened: by the station, by the edge, and what we go by."""

    at_ms: int
    """What we go by."""
    station_ms: int | None
    received_ms: int
    shift_ms: int = 0
    """What was added to the station's time."""
    flags: int = 0


def moment(clock: Clock, station: int | None, received: int, *, offline: bool, is_v2: bool) -> Moment:
    """Judge a timestamp, and learn from it.

    A frame that was buffered keeps its station's time whatever it says: how the clock ran then is not known. A frame is
    live if the station says so (2.x) and its time is impossible otherwise, or if the station's time has run at
    the pace of ours since the frame before.
    """
    if station is None:
        return Moment(received, None, received, 0, Flag.TIMESTAMP_UNREADABLE)
    behind = received - station
    if -TOLERANCE_MS <= behind <= TOLERANCE_MS:
        if clock.shift_ms and not offline:
            clock.shift_ms = clock.station_ms = clock.received_ms = 0
            clock.changed = True
        return Moment(station, station, received)
    live = not offline and _is_live(clock, station, received, is_v2)
    if not offline:
        clock.station_ms, clock.received_ms = station, received
        clock.changed = True
    if not live:
        impossible = behind < 0 or station < UNSET_BEFORE_MS
        return Moment(station, station, received, 0, Flag.CLOCK_IMPLAUSIBLE if impossible else 0)
    zone = _zone_step(behind)
    if not clock.shift_ms or abs(behind - clock.shift_ms) > TOLERANCE_MS:
        clock.shift_ms = zone or behind
    flag = Flag.CLOCK_ZONE if zone else Flag.CLOCK_SHIFTED
    return Moment(station + clock.shift_ms, station, received, clock.shift_ms, flag)


def _is_live(clock: Clock, station: int, received: int, is_v2: bool) -> bool:
    behind = received - station
    if clock.shift_ms and abs(behind - clock.shift_ms) <= TOLERANCE_MS:
        return True
    if is_v2 and (behind < 0 or station < UNSET_BEFORE_MS):
        return True
    passed = received - clock.received_ms
    pace = passed - (station - clock.station_ms)
    return bool(clock.received_ms) and passed >= _PACE_MINIMUM_MS and abs(pace) <= _PACE_SLACK_MS


def _zone_step(behind: int) -> int:
    """The offset of a time zone that this is, in steps of 15 minutes; 0 if it is none."""
    step = round(behind / _ZONE_STEP_MS) * _ZONE_STEP_MS
    return step if abs(behind) <= _ZONE_LIMIT_MS and abs(behind - step) <= _ZONE_SLACK_MS else 0
