"""Queries about commands."""

from __future__ import annotations

_COLUMNS = """command_id, station_id, action, payload, requested_by, requested_at, deadline_at, priority, park, stage,
    outcome, attempts, answer, error_code, error_description, error_details, ocpp_version, connection_id, edge,
    dispatched_at, sent_at, finished_at"""

FIND = f"SELECT {_COLUMNS} FROM router.commands WHERE command_id = $1"  # noqa: S608 - constants

STAGES = """
SELECT stage, source, at, attempt, connection_id, edge, error_code, error_description
FROM router.command_events WHERE command_id = $1 ORDER BY at, source DESC, stage LIMIT 1000
"""

LIST = f"""
SELECT {_COLUMNS} FROM router.commands
WHERE station_id = $1 AND (requested_at, command_id) < ($2, $3)
    AND ($4::boolean IS NULL OR (outcome IS NULL) = $4)
ORDER BY requested_at DESC, command_id DESC LIMIT $5
"""  # noqa: S608 - constants
