"""The API's metrics. Routes are templates: no station id or token is ever a label."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter(
    "csms_api_requests_total", "HTTP requests by route, method and status.", ["route", "method", "status"]
)
REQUEST_SECONDS = Histogram(
    "csms_api_request_seconds",
    "Time to answer an HTTP request, by route; that of commands includes the wait for the outcome.",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
REFUSED = Counter(
    "csms_api_refused_total",
    "Requests that were turned away: key missing, unknown or void (expired, revoked), or of too low a role.",
    ["reason"],
)
COMMANDS = Counter(
    "csms_api_commands_total",
    "Commands that were asked for, by what the caller was told: an outcome, or pending.",
    ["outcome"],
)
COMMANDS_WAITING = Gauge("csms_api_commands_waiting", "Requests that wait for the outcome of a command.")
COMMAND_ACK_SECONDS = Histogram(
    "csms_api_command_ack_seconds",
    "Time until Kafka acknowledged a command.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
OUTCOMES_FOUND = Counter(
    "csms_api_outcomes_found_total",
    "Outcomes that reached a waiting request, by where they were seen: events (Kafka) or table (PostgreSQL).",
    ["where"],
)
EVENTS_UNREADABLE = Counter("csms_api_events_unreadable_total", "Command events that could not be decoded.")
