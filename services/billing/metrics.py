"""Metrics of the billing service; those of reading, committing and producing belong to the stream runtime.

A batch counts as it folds and adds up once, when it is committed: one that is tried again counts once.
"""

from __future__ import annotations

from prometheus_client import Counter, Histogram

from busbar.pricing.session_facts import MICRO
from services.billing.model import State

EVENTS = Counter("csms_billing_events_total", "Events of sessions that were folded, by kind", ["kind"])
SESSIONS = Counter(
    "csms_billing_sessions_total",
    "Sessions priced for the first time, corrected, and over without a price (unpriced: no tariff; failed);"
    " besides, those whose station came to another cost (station_cost_...)",
    ["outcome"],
)
RESERVATIONS = Counter(
    "csms_billing_reservations_total",
    "Reservations that no session used: priced, corrected, returned (not expired after all), free, failed",
    ["outcome"],
)
UNATTRIBUTED = Counter(
    "csms_billing_unattributed_wh_total",
    "Energy outside of any session, which nobody pays: found, and later explained by a session",
    ["outcome"],
)
PRICING = Histogram(
    "csms_billing_pricing_seconds",
    "Time that pricing the new facts of one session takes",
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0),
)

TOLD = Counter("csms_billing_told_total", "Costs that stations were told: running, final or total", ["what"])

_BY_NAME = {
    "events": EVENTS,
    "sessions": SESSIONS,
    "unattributed": UNATTRIBUTED,
    "told": TOLD,
    "reservations": RESERVATIONS,
}
_children: dict[tuple[str, str], Counter] = {}


def count(state: State) -> None:
    """Add up what a batch has counted."""
    for key, number in state.counts.items():
        child = _children.get(key)
        if child is None:
            child = _children[key] = _BY_NAME[key[0]].labels(key[1])
        child.inc(number / MICRO if key[0] == "unattributed" else number)
