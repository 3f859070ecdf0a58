"""The fold of the sessions service: an event, the sessions it meets, and what becomes of them. Pure (rule 5).

No clock, no randomness: "now" is when the edge received the event, or the deadline that the watchdog looks at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from busbar.ocpp.versions import Version
from busbar.records import Result
from services.sessions.answers import authorize_answer
from services.sessions.decoding import (
    Authorize,
    Event,
    Meter,
    ReservationAnswer,
    ReservationCommand,
    ReservationDue,
    ReservationUpdate,
    SessionDue,
    Start,
    Stop,
    TariffRequest,
    TransactionEvent,
)
from services.sessions.events import unknown_reservation_event
from services.sessions.model import ReservationRow, State
from services.sessions.pricing import driver_tariff
from services.sessions.reserving import fold_answer, fold_command, note_word
from services.sessions.reserving import fold_due as fold_reservation_due
from services.sessions.steps import answer, check_token, enter, expire
from services.sessions.tariff_changes import fold_tariff_request
from services.sessions.tokens import ACCEPTED, Authorization
from services.sessions.transactions_2x import fold_transaction_event
from services.sessions.transactions_16 import fold_meter_values, fold_start, fold_stop
from services.sessions.watchdog import deadline_ms


def apply(state: State, event: Event) -> list[Result]:
    """Apply one event to the state, in place, and return what is to be produced, the answer last.

    Raises:
        InvalidRecord: No transaction id is left for a StartTransaction. The state has not been changed.
    """
    return _FOLDS[type(event)](state, event)


def fold_due(state: State, event: SessionDue) -> list[Result]:
    """The clock has come to a session's deadline, or to the time at which to work it out anew."""
    results: list[Result] = []
    station = state.station(event.station_id)
    session = station.sessions.get(event.session_id)
    if session is None:
        return results
    expire(state, station, session, event.now_ms, results)
    due_ms = deadline_ms(state.policy, station, session)
    if due_ms != session.due_ms:
        session.due_ms, session.change = due_ms, 2
    return results


def fold_authorize(state: State, event: Authorize) -> list[Result]:
    """Authorize of any version."""
    results: list[Result] = []
    call = event.call
    station = enter(state, call, results)
    authorization = check_token(state, station, call, event.id_token, event.id_token_type)
    certificate_status = ""
    if event.has_certificate:
        # Spec: OCPP 2.0.1 C07. Nobody here can check a contract certificate, so it is not taken for a good one.
        certificate_status = "CertChainError"
        if authorization.status == ACCEPTED:
            authorization = Authorization("Invalid")
    tariff = None
    if call.version is Version.V21 and state.tariffs.assigns:
        tariff = driver_tariff(state, station, event.id_token, authorization, call.received_at_ms)
    results.append(answer(call, authorize_answer(authorization, call.version, certificate_status, tariff)))
    return results


def fold_reservation(state: State, event: ReservationUpdate) -> list[Result]:
    """ReservationStatusUpdate of 2.x."""
    results: list[Result] = []
    call = event.call
    station = enter(state, call, results)
    if event.reservation_id is not None:
        state.reservations.append(
            ReservationRow(call.station_id, event.reservation_id, event.status, call.received_at_ms)
        )
        if not note_word(state, station, call, event.reservation_id, event.status, results):
            results.append(unknown_reservation_event(station, call, event.reservation_id, event.status))
            state.count("session_events", "reservation")
    results.append(answer(call, {}))
    return results


_FOLDS: dict[type[Any], Callable[[State, Any], list[Result]]] = {
    Authorize: fold_authorize,
    Start: fold_start,
    Stop: fold_stop,
    Meter: fold_meter_values,
    TransactionEvent: fold_transaction_event,
    ReservationUpdate: fold_reservation,
    ReservationCommand: fold_command,
    ReservationAnswer: fold_answer,
    ReservationDue: fold_reservation_due,
    SessionDue: fold_due,
    TariffRequest: fold_tariff_request,
}
