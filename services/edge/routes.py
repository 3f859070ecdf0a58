"""What to do with each action: looked up once per CALL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from busbar.avro import CallEncoder, call_encoder
from busbar.ocpp.actions import fallback, station_actions
from busbar.ocpp.validation import request_check
from busbar.ocpp.versions import Version
from busbar.topics import station_topic
from services.edge.metrics import ActionCounts, EdgeMetrics


@dataclass(frozen=True, slots=True)
class Route:
    """One action of one version, with everything that a CALL of it needs."""

    version: Version
    action: str
    topic: str
    answered_here: bool
    """Heartbeat: answered at once, and published all the same."""
    send: bool
    """OCPP 2.1 SEND: never answered."""
    has_late_answer: bool
    is_valid: Callable[[Any], bool]
    encode: CallEncoder
    type_header: tuple[str, bytes]
    """The CloudEvents header `ce_type`."""
    counts: ActionCounts

    def late_answer(self, now: str) -> dict[str, Any] | None:
        """The minimal valid payload (rule 9), or `None` if only the owner can answer."""
        return fallback(self.version, self.action, now)


def make_routes(version: Version, metrics: EdgeMetrics) -> Mapping[str, Route]:
    """The routes of one version by action. Compiles its validators and encoders: a tenth of a second, at start."""
    return {action: _make(version, action, metrics) for action in station_actions(version)}


def _make(version: Version, action: str, metrics: EdgeMetrics) -> Route:
    row = station_actions(version)[action]
    topic = station_topic(version, action)
    return Route(
        version=version,
        action=action,
        topic=topic,
        answered_here=row.owner == "edge",
        send=row.send,
        has_late_answer=row.fallback is not None,
        is_valid=request_check(version, action),
        encode=call_encoder(version, action),
        type_header=("ce_type", topic.encode()),
        counts=metrics.of_action(version.value, action),
    )
