"""BootNotification: who the station says it is, and whether it may work.

Spec: OCPP 1.6 §4.2; OCPP 2.0.1 B01 (accepted), B02 (pending), B03 (rejected).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from busbar.ocpp.times import format_timestamp_ms
from busbar.records import Result, StationCall
from services.stations.policy import Policy, jittered_seconds
from services.stations.reading import json_text, mapping, text
from services.stations.state import DEFAULT_SETTINGS, State, Station, StationSettings, is_news, place_of


def answer_boot(state: State, call: StationCall) -> dict[str, Any]:
    """The answer: status and interval by the settings of the moment, and the current time.

    `currentTime` is the time of processing, and not the time at which the edge received the boot: a station sets
    its clock by it, and while a backlog is worked off the two are minutes apart. This is the one thing in which
    two answers to the same event may differ.
    """
    settings = state.settings.get(call.station_id, DEFAULT_SETTINGS)
    return {
        "status": settings.boot_status,
        "currentTime": format_timestamp_ms(max(state.now_ms, call.received_at_ms)),
        "interval": interval_seconds(settings, state.policy, call.station_id),
    }


def interval_seconds(settings: StationSettings, policy: Policy, station_id: str) -> int:
    """Between heartbeats once accepted, until the next boot otherwise."""
    match settings.boot_status:
        case "Accepted":
            seconds = settings.heartbeat_interval_seconds or policy.heartbeat_interval_seconds
        case "Pending":
            seconds = policy.pending_interval_seconds
        case _:
            seconds = policy.rejected_interval_seconds
    return jittered_seconds(seconds, station_id, policy.interval_jitter)


def register_boot(state: State, call: StationCall) -> list[Result]:
    """Take over what the station says of itself, unless a later boot is known."""
    station = state.stations[call.station_id]
    place = place_of(call)
    if station.last_boot is not None and not is_news(place, station.last_boot):
        return []
    if place != station.last_boot:
        station.boot_count += 1
    settings = state.settings.get(call.station_id, DEFAULT_SETTINGS)
    station.last_boot = place
    station.boot = json_text(call.payload)
    station.registration_status = settings.boot_status
    station.interval_seconds = interval_seconds(settings, state.policy, call.station_id)
    if call.version.is_v2:
        _describe_2(station, call.payload)
    else:
        _describe_16(station, call.payload)
    state.changed_stations.add(call.station_id)
    return []


def _describe_16(station: Station, payload: Mapping[str, Any]) -> None:
    station.vendor = text(payload.get("chargePointVendor"))
    station.model = text(payload.get("chargePointModel"))
    station.serial_number = text(payload.get("chargePointSerialNumber"))
    station.charge_box_serial_number = text(payload.get("chargeBoxSerialNumber"))
    station.firmware_version = text(payload.get("firmwareVersion"))
    station.modem_iccid = text(payload.get("iccid"))
    station.modem_imsi = text(payload.get("imsi"))
    station.meter_type = text(payload.get("meterType"))
    station.meter_serial_number = text(payload.get("meterSerialNumber"))
    station.boot_reason = None


def _describe_2(station: Station, payload: Mapping[str, Any]) -> None:
    described = mapping(payload.get("chargingStation"))
    modem = mapping(described.get("modem"))
    station.vendor = text(described.get("vendorName"))
    station.model = text(described.get("model"))
    station.serial_number = text(described.get("serialNumber"))
    station.firmware_version = text(described.get("firmwareVersion"))
    station.modem_iccid = text(modem.get("iccid"))
    station.modem_imsi = text(modem.get("imsi"))
    station.boot_reason = text(payload.get("reason"))
    station.charge_box_serial_number = station.meter_type = station.meter_serial_number = None
