"""Which session a message of 1.6 belongs to, where its transaction id does not say.

Stations that were offline at the start of a transaction send -1 or 0 for want of its id; some go on with an id of their
own, and some replay what they once sent to another system.
"""

from __future__ import annotations

from services.sessions.decoding import Meter, Start, Stop, is_known_id
from services.sessions.energy import TOLERANCE_UWH
from services.sessions.model import Session, StationState
from services.sessions.tokens import token_key

_CLOCK_SLACK_MS = 60_000


def session_of_meter_values(station: StationState, event: Meter) -> tuple[Session | None, bool]:
    """The session of MeterValues, and whether it was found without the transaction's id."""
    if event.transaction_id and is_known_id(event.transaction_id):
        session = station.find(event.transaction_id)
        if session is not None:
            return session, False
    if not event.evse_id:
        return None, False  # the main meter
    candidates = [
        session
        for session in station.open_sessions()
        if session.evse_id == event.evse_id and session.version == event.call.version.value
    ]
    if len(candidates) != 1:
        return None, False
    foreign = bool(event.transaction_id) and is_known_id(event.transaction_id)
    if foreign and candidates[0].uses_own_id:
        return None, False  # the station knows the right id: this one is another transaction's
    return candidates[0], bool(event.transaction_id)


def same_stop(station: StationState, event: Stop) -> Session | None:
    """The session that got this very stop before, by whatever id."""
    for session in station.sessions.values():
        if session.stopped and not session.is_v2 and session.stop_hash == event.content_hash:
            return session
    return None


def session_of_stop(station: StationState, event: Stop, at_ms: int) -> Session | None:
    """The session that a stop without a usable transaction id ends, if there is one that fits, and fits best."""
    known = is_known_id(event.transaction_id)
    candidates = [session for session in station.sessions.values() if _fits_stop(session, event, at_ms, known)]
    ranked = sorted(candidates, key=lambda session: _distance(session, event))
    if len(ranked) > 1 and _distance(ranked[0], event) == _distance(ranked[1], event):
        return None
    return ranked[0] if ranked else None


def orphan_of_start(station: StationState, event: Start, at_ms: int) -> Session | None:
    """The stop that came before its start: the earliest one that fits."""
    fitting = [
        session
        for session in station.sessions.values()
        if session.state == "orphan"
        and not is_known_id(session.transaction_id)
        and (session.ended_ms or 0) >= at_ms
        and _same_token(session.stop_id_token, event.id_token)
        and (session.energy.meter_stop_uwh or 0) >= (event.meter_start_uwh or 0)
    ]
    return min(fitting, key=lambda session: session.ended_ms or 0, default=None)


def _fits_stop(session: Session, event: Stop, at_ms: int, known: bool) -> bool:
    if session.is_v2 or session.stopped or session.joined_to or not session.started:
        return False
    if known and (session.uses_own_id or not _same_token(event.id_token, session.id_token) or not event.id_token):
        return False
    if event.id_token and not _same_token(event.id_token, session.id_token) and not session.group_id:
        return False
    if session.started_ms is not None and session.started_ms > at_ms + _CLOCK_SLACK_MS:
        return False
    register, stop = session.energy.last_register_uwh, event.meter_stop_uwh
    return register is None or not stop or stop > register - TOLERANCE_UWH


def _distance(session: Session, event: Stop) -> tuple[int, int, int]:
    """How badly a session fits a stop: another token, no register to compare, the energy in between."""
    other = 0 if event.id_token and _same_token(event.id_token, session.id_token) else 1
    register, stop = session.energy.last_register_uwh, event.meter_stop_uwh
    if register is None or not stop:
        return other, 1, 0
    return other, 0, max(0, stop - register)


def _same_token(one: str | None, other: str | None) -> bool:
    """Whether two tokens may be the same: equal but for case, or one of them is not known."""
    return not one or not other or token_key(one) == token_key(other)
