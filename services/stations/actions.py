"""The table of actions: for each, what it is answered with and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from busbar.ocpp.times import format_timestamp_ms
from busbar.ocpp.versions import Version
from busbar.records import StationCall
from services.stations.boot import answer_boot, register_boot
from services.stations.effects import (
    Effect,
    by,
    der_controls,
    document,
    documents,
    event_variables,
    firmware_status,
    keep,
    label,
    log_status,
    monitors,
    reported_variables,
    withdraw,
)
from services.stations.reading import items, mapping, text
from services.stations.state import State
from services.stations.status import availability_events, status_notification_2, status_notification_16

Answer = Callable[[State, StationCall], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Action:
    """How one action is treated."""

    answer: Answer | None
    """`None` for SEND messages, which nobody answers."""
    effects: tuple[Effect, ...]


def does(answer: Answer | None, *effects: Effect) -> Action:
    return Action(answer, effects)


def always(payload: Mapping[str, Any]) -> Answer:
    """The same answer to everybody."""
    return lambda state, call: dict(payload)


def answer_data_transfer(state: State, call: StationCall) -> dict[str, Any]:
    return state.policy.data_transfer.answer(call.version, call.payload)


def answer_chain_status(state: State, call: StationCall) -> dict[str, Any]:
    """Spec: OCPP 2.1 M06: one status for each certificate asked about; `Failed`, for nothing was looked up.

    `nextUpdate` is the moment of asking: the station may ask again at once.
    """
    return {
        "certificateStatus": [
            {
                "certificateHashData": _texts(mapping(request.get("certificateHashData")), *_HASH_DATA),
                "source": text(request.get("source")) or "OCSP",
                "status": "Failed",
                "nextUpdate": format_timestamp_ms(call.received_at_ms),
            }
            for request in items(call.payload.get("certificateStatusRequests"))
        ]
    }


def _texts(payload: Mapping[str, Any], *names: str) -> dict[str, str]:
    """These fields alone: what is unknown to the schema is kept, and never sent back."""
    return {name: text(payload.get(name)) or "" for name in names}


def limit_key(payload: Mapping[str, Any]) -> str:
    """EVSE and source. Spec: OCPP 2.0.1 K12, K13: a limit is told with its source, and cleared by it."""
    source = mapping(payload.get("chargingLimit")).get("chargingLimitSource")
    return label(payload.get("evseId"), source or payload.get("chargingLimitSource"))


def stream_key(payload: Mapping[str, Any]) -> str:
    return label(mapping(payload.get("constantStreamData")).get("id"))


_HASH_DATA = ("hashAlgorithm", "issuerNameHash", "issuerKeyHash", "serialNumber")

DONE = always({})
UNSUPPORTED = {"reasonCode": "UnsupportedRequest"}
REJECTED = always({"status": "Rejected", "statusInfo": UNSUPPORTED})
ACCEPTED = always({"status": "Accepted"})
CERTIFICATE_FAILED = always({"status": "Failed"})
CONTRACT_FAILED = always({"status": "Failed", "exiResponse": ""})

_COMMON: dict[str, Action] = {
    "BootNotification": does(answer_boot, register_boot, keep),
    "DataTransfer": does(answer_data_transfer, keep),
    "FirmwareStatusNotification": does(DONE, keep, firmware_status),
    "LogStatusNotification": does(DONE, keep, log_status),
    "SecurityEventNotification": does(DONE, keep),
    "SignCertificate": does(always({"status": "Rejected"}), keep),
}

_ONLY_16: dict[str, Action] = {
    "StatusNotification": does(DONE, status_notification_16),
    "DiagnosticsStatusNotification": does(DONE, keep, log_status),
    "SignedFirmwareStatusNotification": does(DONE, keep, firmware_status),
}

_FROM_201: dict[str, Action] = {
    "StatusNotification": does(DONE, status_notification_2),
    "ClearedChargingLimit": does(DONE, keep, withdraw("charging-limit", limit_key)),
    "Get15118EVCertificate": does(CONTRACT_FAILED, keep),
    "GetCertificateStatus": does(CERTIFICATE_FAILED, keep),
    "NotifyChargingLimit": does(DONE, keep, document("charging-limit", limit_key)),
    "NotifyCustomerInformation": does(DONE, keep),
    "NotifyDisplayMessages": does(DONE, documents("display-message", "messageInfo", by("id"), "requestId")),
    "NotifyEVChargingNeeds": does(REJECTED, keep, document("ev-charging-needs", by("evseId"))),
    "NotifyEVChargingSchedule": does(ACCEPTED, keep, document("ev-charging-schedule", by("evseId"))),
    "NotifyEvent": does(DONE, keep, event_variables, availability_events),
    "NotifyMonitoringReport": does(DONE, monitors),
    "NotifyReport": does(DONE, reported_variables),
    "PublishFirmwareStatusNotification": does(DONE, keep),
    "ReportChargingProfiles": does(
        DONE,
        documents("charging-profile", "chargingProfile", by("id"), "evseId", "chargingLimitSource", "requestId"),
    ),
}

_FROM_21: dict[str, Action] = {
    "BatterySwap": does(DONE, keep),
    "ClosePeriodicEventStream": does(DONE, withdraw("event-stream", by("id"))),
    "GetCertificateChainStatus": does(answer_chain_status, keep),
    "NotifyDERAlarm": does(DONE, keep),
    "NotifyDERStartStop": does(DONE, keep, document("der-control-state", by("controlId"))),
    "NotifyEVChargingNeeds": does(
        always({"status": "NoChargingProfile"}), keep, document("ev-charging-needs", by("evseId"))
    ),
    "NotifyPeriodicEventStream": does(None, document("event-stream-data", by("id"))),
    "NotifyPriorityCharging": does(DONE, keep, document("priority-charging", by("transactionId"))),
    "OpenPeriodicEventStream": does(ACCEPTED, document("event-stream", stream_key)),
    "PullDynamicScheduleUpdate": does(REJECTED, keep),
    "ReportDERControl": does(DONE, der_controls),
}

ACTIONS: Mapping[Version, Mapping[str, Action]] = {
    Version.V16: _COMMON | _ONLY_16,
    Version.V201: _COMMON | _FROM_201,
    Version.V21: _COMMON | _FROM_201 | _FROM_21,
}
"""Every action that this service owns, by version; the tests hold it against `schemas/actions.toml`."""
