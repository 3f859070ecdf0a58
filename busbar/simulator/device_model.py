"""The device model of a 2.x station: components, variables and their attributes.

Spec: OCPP 2.0.1 Part 1 §4, Part 2 B05 to B08.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Payload = dict[str, Any]
MAX_VARIABLES_PER_REPORT = 20


@dataclass(slots=True)
class Variable:
    """One variable with its actual value."""

    component: str
    name: str
    value: str
    mutability: str = "ReadOnly"
    data_type: str = "string"
    unit: str | None = None
    values: str | None = None
    evse: int | None = None
    connector: int | None = None
    instance: str | None = None

    @property
    def component_payload(self) -> Payload:
        payload: Payload = {"name": self.component}
        if self.evse is not None:
            payload["evse"] = {"id": self.evse}
            if self.connector is not None:
                payload["evse"]["connectorId"] = self.connector
        return payload

    @property
    def variable_payload(self) -> Payload:
        return {"name": self.name} if self.instance is None else {"name": self.name, "instance": self.instance}

    def report(self) -> Payload:
        """As an entry of NotifyReport."""
        attribute: Payload = {"type": "Actual", "mutability": self.mutability, "persistent": True}
        if self.mutability != "WriteOnly":
            attribute["value"] = self.value
        characteristics: Payload = {"dataType": self.data_type, "supportsMonitoring": self.data_type == "decimal"}
        if self.unit is not None:
            characteristics["unit"] = self.unit
        if self.values is not None:
            characteristics["valuesList"] = self.values
        return {
            "component": self.component_payload,
            "variable": self.variable_payload,
            "variableAttribute": [attribute],
            "variableCharacteristics": characteristics,
        }


class DeviceModel:
    """All variables of one station."""

    def __init__(self, variables: list[Variable]) -> None:
        self._variables = variables

    def find(self, component: Payload, variable: Payload) -> Variable | str:
        """The variable that a command names, or the status that says what is not there."""
        evse = component.get("evse") or {}
        of_component = [
            each
            for each in self._variables
            if each.component.casefold() == str(component.get("name", "")).casefold()
            and (each.evse, each.connector) == (evse.get("id"), evse.get("connectorId"))
        ]
        for each in of_component:
            same_instance = each.instance == variable.get("instance")
            if each.name.casefold() == str(variable.get("name", "")).casefold() and same_instance:
                return each
        return "UnknownVariable" if of_component else "UnknownComponent"

    def set(self, component: str, name: str, value: str, evse: int | None = None) -> None:
        """Set a value from inside the station."""
        for each in self._variables:
            if (each.component, each.name, each.evse) == (component, name, evse):
                each.value = value

    def get(self, component: str, name: str) -> str:
        """A value, for the station itself. Raises `KeyError`."""
        for each in self._variables:
            if (each.component, each.name) == (component, name):
                return each.value
        raise KeyError(f"{component}.{name}")

    def answer_get(self, entry: Payload) -> Payload:
        """One result of GetVariables."""
        result = {"component": _plain(entry["component"]), "variable": _plain(entry["variable"])}
        kind = entry.get("attributeType", "Actual")
        found = self.find(entry["component"], entry["variable"])
        if isinstance(found, str):
            return {"attributeStatus": found, "attributeType": kind, **result}
        if kind != "Actual":
            return {"attributeStatus": "NotSupportedAttributeType", "attributeType": kind, **result}
        if found.mutability == "WriteOnly":
            return {"attributeStatus": "Rejected", "attributeType": kind, **result}
        return {"attributeStatus": "Accepted", "attributeType": kind, "attributeValue": found.value, **result}

    def answer_set(self, entry: Payload) -> Payload:
        """One result of SetVariables."""
        result = {"component": _plain(entry["component"]), "variable": _plain(entry["variable"])}
        kind = entry.get("attributeType", "Actual")
        found = self.find(entry["component"], entry["variable"])
        if isinstance(found, str):
            status = found
        elif kind != "Actual":
            status = "NotSupportedAttributeType"
        else:
            status = _write(found, entry["attributeValue"])
        return {"attributeStatus": status, "attributeType": kind, **result}

    def reports(self, request_id: int, generated_at: str, wanted: list[Payload] | None = None) -> Iterator[Payload]:
        """NotifyReport payloads, in parts. Spec: OCPP 2.0.1 B07, B08."""
        chosen = [each for each in self._variables if wanted is None or any(_meets(each, want) for want in wanted)]
        parts = [
            chosen[start : start + MAX_VARIABLES_PER_REPORT]
            for start in range(0, len(chosen), MAX_VARIABLES_PER_REPORT)
        ]
        for number, part in enumerate(parts):
            yield {
                "requestId": request_id,
                "generatedAt": generated_at,
                "seqNo": number,
                "tbc": number + 1 < len(parts),
                "reportData": [each.report() for each in part],
            }


def _write(variable: Variable, value: str) -> str:
    if variable.mutability == "ReadOnly":
        return "Rejected"
    if variable.data_type == "integer" and not value.lstrip("-").isdigit():
        return "Rejected"
    if variable.data_type == "boolean" and value not in ("true", "false"):
        return "Rejected"
    variable.value = value
    return "Accepted"


def _meets(variable: Variable, want: Payload) -> bool:
    component, name = want["component"], want.get("variable")
    evse = component.get("evse")
    return (
        variable.component == component["name"]
        and (evse is None or evse.get("id") == variable.evse)
        and (name is None or name["name"] == variable.name)
    )


def _plain(payload: Payload) -> Payload:
    """Without custom data, which an answer need not repeat."""
    return {name: value for name, value in payload.items() if name != "customData"}


def standard_variables(
    *, vendor: str, model: str, serial_number: str, firmware: str, outlets: int, direct_current: bool, power_w: float
) -> list[Variable]:
    """The variables of a station with one connector per EVSE."""
    kind = "cCCS2" if direct_current else "sType2"
    variables = [
        Variable("ChargingStation", "VendorName", vendor),
        Variable("ChargingStation", "Model", model),
        Variable("ChargingStation", "SerialNumber", serial_number),
        Variable("ChargingStation", "FirmwareVersion", firmware),
        Variable("ChargingStation", "Available", "true", data_type="boolean"),
        Variable("OCPPCommCtrlr", "HeartbeatInterval", "300", "ReadWrite", "integer", "s"),
        Variable("OCPPCommCtrlr", "NetworkConfigurationPriority", "1", "ReadWrite", "SequenceList"),
        Variable("OCPPCommCtrlr", "OfflineThreshold", "600", "ReadWrite", "integer", "s"),
        Variable("OCPPCommCtrlr", "RetryBackOffWaitMinimum", "3", "ReadWrite", "integer", "s"),
        Variable("OCPPCommCtrlr", "RetryBackOffRandomRange", "3", "ReadWrite", "integer", "s"),
        Variable("OCPPCommCtrlr", "RetryBackOffRepeatTimes", "5", "ReadWrite", "integer"),
        Variable("OCPPCommCtrlr", "MessageAttempts", "5", "ReadWrite", "integer", instance="TransactionEvent"),
        Variable("AuthCtrlr", "AuthorizeRemoteStart", "false", "ReadWrite", "boolean"),
        Variable("AuthCtrlr", "OfflineTxForUnknownIdEnabled", "true", "ReadWrite", "boolean"),
        Variable("LocalAuthListCtrlr", "Entries", "0", data_type="integer"),
        Variable("SecurityCtrlr", "BasicAuthPassword", "", "WriteOnly"),
        Variable("SecurityCtrlr", "OrganizationName", "Busbar", "ReadWrite"),
        Variable("SampledDataCtrlr", "TxUpdatedInterval", "60", "ReadWrite", "integer", "s"),
        Variable("SampledDataCtrlr", "TxUpdatedMeasurands", "Energy.Active.Import.Register", "ReadWrite", "MemberList"),
        Variable("SmartChargingCtrlr", "Enabled", "true", "ReadWrite", "boolean"),
        Variable("TxCtrlr", "StopTxOnInvalidId", "true", "ReadWrite", "boolean"),
        Variable("TxCtrlr", "EVConnectionTimeOut", "60", "ReadWrite", "integer", "s"),
        Variable("ClockCtrlr", "TimeSource", "Heartbeat", "ReadWrite", "SequenceList"),
    ]
    for number in range(1, outlets + 1):
        variables += [
            Variable("EVSE", "AvailabilityState", "Available", data_type="OptionList", evse=number),
            Variable("EVSE", "Power", f"{power_w:.0f}", data_type="decimal", unit="W", evse=number),
            Variable("EVSE", "SupplyPhases", "3", data_type="integer", evse=number),
            Variable("Connector", "ConnectorType", kind, evse=number, connector=1),
            Variable("Connector", "AvailabilityState", "Available", data_type="OptionList", evse=number, connector=1),
        ]
    return variables
