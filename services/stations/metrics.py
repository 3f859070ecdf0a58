"""Metrics of the stations service; those of reading, committing and producing belong to the stream runtime."""

from __future__ import annotations

from functools import cache

from prometheus_client import Counter

EVENTS = Counter(
    "csms_stations_events_total",
    "CALLs and SENDs of stations that were folded, by version and action",
    ["version", "action"],
)
BOOTS = Counter(
    "csms_stations_boots_total",
    "BootNotifications by the registration status that answered them",
    ["status"],
)
REFUSED = Counter(
    "csms_stations_refused_total",
    "CALLs answered with SecurityError because the station is pending or rejected",
    ["action"],
)
COMMAND_EVENTS = Counter(
    "csms_stations_command_events_total",
    "Stages of commands that were shown on stations",
    ["stage"],
)


@cache
def events(version: str, action: str) -> Counter:
    """The child of `EVENTS`, looked up once: labels cost more than the increment."""
    return EVENTS.labels(version, action)


@cache
def command_events(stage: str) -> Counter:
    """The child of `COMMAND_EVENTS`."""
    return COMMAND_EVENTS.labels(stage)


@cache
def boots(status: str) -> Counter:
    return BOOTS.labels(status)
