"""The fold of the stations service: a station's CALL, or news of a command, and what becomes of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from busbar.records import Result, StationCall
from busbar.stream.interfaces import InvalidRecord
from busbar.stream.replies import reply, reply_error
from services.stations.actions import ACTIONS
from services.stations.effects import named_variable
from services.stations.reading import items, json_text, mapping, text
from services.stations.state import CommandNews, State, Station, StationEvent, Variable

SERVICE = "stations"

TRIGGERS = frozenset({"TriggerMessage", "GetBaseReport", "GetReport"})
"""Commands after which a pending station may send more than BootNotification."""


def apply(state: State, event: StationEvent | CommandNews) -> list[Result]:
    """Apply one event to the state and return what is to be produced, the answer last.

    Raises:
        InvalidRecord: For an action that this service does not own.
    """
    if isinstance(event, CommandNews):
        _apply_command(state, event)
        return []
    call = event.call
    action = ACTIONS[call.version].get(call.action)
    if action is None:
        raise InvalidRecord("unowned-action", f"{call.version} {call.action}")
    station = state.see(event)
    if not may_speak(station, call):
        return [_refuse(station, call)]
    results = [result for effect in action.effects for result in effect(state, call)]
    if action.answer is not None:
        results.append(reply(call, action.answer(state, call), SERVICE, call.received_at_ms))
    return results


def may_speak(station: Station, call: StationCall) -> bool:
    """Whether the station is registered far enough to send this.

    Spec: OCPP 2.0.1 B02.FR.09 (pending: only BootNotification and what a command triggered) and B03.FR.07 (rejected:
    only BootNotification). OCPP 1.6 asks the same of stations, but nothing of us, so it is not enforced there.
    """
    if not call.version.is_v2 or call.action == "BootNotification":
        return True
    match station.registration_status:
        case "Rejected":
            return False
        case "Pending":
            booted = station.last_boot.received_at_ms if station.last_boot else 0
            return station.triggered_at_ms is not None and station.triggered_at_ms >= booted
        case _:
            return True


def _refuse(station: Station, call: StationCall) -> Result:
    description = f"The registration is {station.registration_status}: only BootNotification is taken"
    return reply_error(call, "SecurityError", description, SERVICE, call.received_at_ms)


def _apply_command(state: State, news: CommandNews) -> None:
    """Show a command on the station that it went to, if the station has ever been heard."""
    station = state.stations.get(news.station_id)
    if station is None:
        return
    if news.stage == "sent":
        if news.action in TRIGGERS and news.at_ms > (station.triggered_at_ms or 0):
            station.triggered_at_ms = news.at_ms
            state.changed_stations.add(station.station_id)
        return
    if news.at_ms >= (station.last_command_at_ms or 0):
        station.last_command_id = news.command_id
        station.last_command_action = news.action
        station.last_command_stage = news.stage
        station.last_command_status = _command_status(news)
        result = news.payload if news.stage == "answered" else news.error
        station.last_command_result = None if result is None else json_text(result)
        station.last_command_at_ms = news.at_ms
        state.changed_stations.add(station.station_id)
    if news.stage == "answered":
        state.put_variables(_told_variables(news))


def _command_status(news: CommandNews) -> str | None:
    if news.stage == "answered":
        return text(mapping(news.payload).get("status"))
    return text((news.error or {}).get("code")) or None


def _told_variables(news: CommandNews) -> list[Variable]:
    """Variables and configuration keys whose value a station told in an answer.

    Spec: OCPP 2.0.1 B06 GetVariables; OCPP 1.6 §5.8 GetConfiguration.
    """
    payload = mapping(news.payload)
    if news.action == "GetVariables":
        return [
            _told(news, entry, entry.get("attributeType"), text(entry.get("attributeValue")), None)
            for entry in items(payload.get("getVariableResult"))
            if entry.get("attributeStatus") == "Accepted"
        ]
    if news.action == "GetConfiguration":
        return [
            _told(
                news,
                {"variable": {"name": entry.get("key")}},
                "Actual",
                text(entry.get("value")),
                "ReadOnly" if entry.get("readonly") is True else "ReadWrite",
            )
            for entry in items(payload.get("configurationKey"))
        ]
    return []


def _told(
    news: CommandNews, entry: Mapping[str, Any], attribute: Any, value: str | None, mutability: str | None
) -> Variable:
    return named_variable(
        news.station_id,
        entry,
        attribute,
        value=value,
        mutability=mutability,
        source=news.action,
        received_at_ms=news.at_ms,
        connection_id=news.connection_id,
        sequence=0,
    )
