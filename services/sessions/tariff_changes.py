"""Another tariff for a session that goes on. Pure.

Where the CSMS prices, it holds from the instant at which it was asked for. A station of OCPP 2.1 that prices a session
itself is told (ChangeTransactionTariff), and the change holds from the event in which it says that it uses the tariff:
what its display shows and what is billed are the same at any time. Nothing is priced again. Spec: OCPP 2.1 I11.
"""

from __future__ import annotations

from busbar.records import Result
from services.sessions.clock import Moment
from services.sessions.decoding import TariffRequest
from services.sessions.events import change_tariff_command
from services.sessions.lifecycle import conclude
from services.sessions.model import Cause, Session, State, TariffChangeRow, make_uuid
from services.sessions.pricing import pricer_of

TRIGGER = "tariff-change"
"""Of the event that tells of a change which no station had to be asked for."""
_CONFIRMS = "TariffChanged"
_MOST_REQUESTS = 8


def fold_tariff_request(state: State, event: TariffRequest) -> list[Result]:
    """Change the tariff of a session, ask its station to, or note why not."""
    results: list[Result] = []
    station = state.station(event.station_id)
    session = station.sessions.get(event.session_id)
    row = TariffChangeRow(
        change_id=event.change_id,
        session_id=event.session_id,
        station_id=event.station_id,
        tariff_id=event.tariff_id,
        version=event.version,
        status="refused",
        requested_by=event.requested_by,
        requested_ms=event.requested_ms,
    )
    state.tariff_changes.append(row)
    if session is None or not session.is_open:
        row.reason = "the session is over" if session else "there is no such session, or it is over"
    elif not session.price_tariff_id:
        row.reason = "no tariff is assigned to the session"
    elif (event.tariff_id, event.version) == _current(session):
        row.status, row.at_ms = "applied", _since(session)
    elif any(request[0] == event.change_id for request in session.tariff_requests):
        row.status = "asked"
    else:
        row.reason = _problem(state, session, event)
    if session is not None and row.status == "refused" and row.reason is None:
        if session.station_tariff_id:
            _ask(state, session, row, results)
        else:
            at_ms = max(event.requested_ms, session.last_ms)
            _change(session, row, at_ms)
            cause = Cause(Moment(at_ms, None, event.requested_ms), TRIGGER)
            conclude(state, station, session, cause, results)
    state.count("tariff_changes", row.status)
    return results


def confirm(
    state: State, session: Session, station_tariff_id: str, trigger: str, at_ms: int, *, is_newest: bool
) -> None:
    """An event says which tariff the station uses: a change that was asked for holds from then on."""
    if not (is_newest or trigger == _CONFIRMS):
        return  # it may have been said before the change was asked for
    requests = session.tariff_requests
    for index in range(len(requests) - 1, -1, -1):
        change_id, name, tariff_id, version, requested_by, requested_ms = requests[index]
        if name != station_tariff_id:
            continue
        del requests[: index + 1]  # what was asked for before is out of date
        row = TariffChangeRow(
            change_id, session.session_id, session.station_id, tariff_id, version, "asked", requested_by, requested_ms
        )
        _change(session, row, at_ms)
        state.tariff_changes.append(row)
        state.count("tariff_changes", row.status)
        return


def _current(session: Session) -> tuple[str, int]:
    if session.tariff_changes:
        return session.tariff_changes[-1][1:]
    return session.price_tariff_id, session.price_tariff_version


def _since(session: Session) -> int:
    return session.tariff_changes[-1][0] if session.tariff_changes else session.started_ms or session.opened_ms


def _problem(state: State, session: Session, event: TariffRequest) -> str | None:
    """Why a session cannot go on with that tariff."""
    change = (0, event.tariff_id, event.version)
    try:
        pricer_of(state, session, (*session.tariff_changes, change))
    except KeyError:
        return f"version {event.version} of the tariff {event.tariff_id} does not exist"
    except ValueError as error:
        return str(error)[:500]
    return None


def _ask(state: State, session: Session, row: TariffChangeRow, results: list[Result]) -> None:
    """Have the station change to the tariff by which it prices the session."""
    version = state.tariffs.tariff_version(row.tariff_id, row.version)
    tariff = None if version is None else state.tariffs.station_tariff(version)
    if tariff is None or tariff.text is None:
        lost = "" if tariff is None else tariff.lost
        row.reason = f"the station prices the session itself and has no words for the tariff: {lost}"[:500]
        return
    row.command_id = make_uuid(row.change_id, "ChangeTransactionTariff")
    row.status = "asked"
    request = [row.change_id, tariff.tariff_id, row.tariff_id, row.version, row.requested_by, row.requested_ms]
    session.tariff_requests = [*session.tariff_requests, request][-_MOST_REQUESTS:]
    session.change = 2
    timeout_ms = state.policy.command_timeout_ms
    results.append(change_tariff_command(session, row.command_id, tariff.text, row.requested_ms, timeout_ms))


def _change(session: Session, row: TariffChangeRow, at_ms: int) -> None:
    """The session has another tariff from an instant on, which is not before that of the last change."""
    if session.tariff_changes:
        at_ms = max(at_ms, session.tariff_changes[-1][0])
    session.tariff_changes = (*session.tariff_changes, (at_ms, row.tariff_id, row.version))
    session.change = 2
    row.status, row.at_ms, row.reason = "applied", at_ms, None
