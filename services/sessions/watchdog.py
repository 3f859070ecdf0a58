"""When a session is looked at although nothing was heard of it.

A deadline follows from what was heard last, and what is done at a deadline says so: it carries the deadline's time.
So it is the same whether the clock finds it (`due`), or the station's next event does, and a replay gives what the
first run gave.
"""

from __future__ import annotations

from services.sessions.model import Policy, Session, StationState


def deadline_ms(policy: Policy, station: StationState, session: Session) -> int:
    """When something is to be done about a session; 0: never."""
    if session.is_open:
        return _silence_ms(policy, station, session)
    if session.state == "ending":
        wait = policy.gap_timeout_ms if session.status_asked or not session.is_v2 else policy.gap_query_ms
        return session.last_received_ms + wait
    return 0


def _silence_ms(policy: Policy, station: StationState, session: Session) -> int:
    deadline = session.last_received_ms + policy.open_timeout_ms
    if session.sample_interval_ms and station.connection_id not in ("", session.connection_id):
        # The station has come back, and does not speak of the transaction any more.
        since = max(session.last_received_ms, station.connected_ms)
        silent = max(policy.silent_timeout_ms, policy.silent_intervals * session.sample_interval_ms)
        deadline = min(deadline, since + silent)
    return deadline
