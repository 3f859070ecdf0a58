"""Metrics of the sessions service; those of reading, committing and producing belong to the stream runtime.

A batch counts as it folds and adds up once, when it is stored.
"""

from __future__ import annotations

from prometheus_client import Counter

from services.sessions.model import State
from services.sessions.units import MICRO

EVENTS = Counter("csms_sessions_events_total", "Events told on csms.session-events, by kind", ["kind"])
AUTHORIZATIONS = Counter("csms_sessions_authorizations_total", "Id tokens that were answered, by status", ["status"])
DUPLICATES = Counter(
    "csms_sessions_duplicates_total", "CALLs with content that had been folded before, by action", ["action"]
)
WATCHDOG = Counter(
    "csms_sessions_watchdog_total",
    "Sessions closed for want of news, stations asked for missing events, sessions that stay incomplete",
    ["outcome"],
)
UNATTRIBUTED = Counter(
    "csms_sessions_unattributed_wh_total",
    "Energy that registers counted outside of any session: found, and later explained by a session",
    ["outcome"],
)
TARIFFS = Counter(
    "csms_sessions_tariffs_total",
    "Sessions whose tariff was chosen, that have none, and whose cost cannot be told while they go on",
    ["outcome"],
)
TARIFF_CHANGES = Counter(
    "csms_sessions_tariff_changes_total",
    "Other tariffs wanted for sessions that go on, by what became of it",
    ["status"],
)
RESERVATIONS = Counter(
    "csms_sessions_reservations_total", "Reservations, by what became of them with each change", ["status"]
)
METER_SAMPLES = Counter("csms_sessions_meter_samples_total", "Sampled values stored")

_BY_NAME = {
    "session_events": EVENTS,
    "authorizations": AUTHORIZATIONS,
    "duplicates": DUPLICATES,
    "watchdog": WATCHDOG,
    "unattributed_uwh": UNATTRIBUTED,
    "tariffs": TARIFFS,
    "tariff_changes": TARIFF_CHANGES,
    "reservations": RESERVATIONS,
}
_children: dict[tuple[str, str], Counter] = {}


def count(state: State) -> None:
    """Add up what a batch has counted."""
    for key, number in state.counts.items():
        child = _children.get(key)
        if child is None:
            child = _children[key] = _BY_NAME[key[0]].labels(key[1])
        child.inc(number / MICRO if key[0] == "unattributed_uwh" else number)
    samples = sum(len(row.samples.values) for row in state.rows if row.samples is not None)
    if samples:
        METER_SAMPLES.inc(samples)
