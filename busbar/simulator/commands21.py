"""How a station that speaks OCPP 2.1 answers the commands that 2.0.1 does not have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from busbar.simulator.link import Payload
from busbar.simulator.station import Unsupported

if TYPE_CHECKING:
    from busbar.simulator.station2 import Station201

Handler = Callable[[Payload, float], Payload]

ACCEPTED: Payload = {"status": "Accepted"}
REJECTED: Payload = {"status": "Rejected"}

# The field of SetDERControl and ReportDERControl in which each type of control travels; the other types are curves.
_DER_FIELDS = {
    "EnterService": "enterService",
    "FixedPFAbsorb": "fixedPFAbsorb",
    "FixedPFInject": "fixedPFInject",
    "FixedVar": "fixedVar",
    "FreqDroop": "freqDroop",
    "Gradients": "gradient",
    "LimitMaxDischarge": "limitMaxDischarge",
}


class Commands21:
    """Tariffs, distributed energy resources, event streams and what else is new."""

    def __init__(self, station: Station201) -> None:
        self._station = station
        self._tariffs: dict[int, Payload] = {}
        self._controls: dict[str, Payload] = {}
        self.table: Mapping[str, Handler] = {
            "AFRRSignal": _refuse("no vehicle here feeds back into the grid"),
            "AdjustPeriodicEventStream": lambda payload, now: REJECTED,
            "ChangeTransactionTariff": self.change_transaction_tariff,
            "ClearDERControl": self.clear_der_control,
            "ClearTariffs": self.clear_tariffs,
            "GetDERControl": self.get_der_control,
            "GetPeriodicEventStream": lambda payload, now: {},
            "GetTariffs": self.get_tariffs,
            "NotifyAllowedEnergyTransfer": self.notify_allowed_energy_transfer,
            "NotifyWebPaymentStarted": lambda payload, now: {},
            "RequestBatterySwap": _refuse("there are no batteries to swap"),
            "SetDERControl": self.set_der_control,
            "SetDefaultTariff": self.set_default_tariff,
            "UpdateDynamicSchedule": lambda payload, now: REJECTED,
            "UsePriorityCharging": self.use_priority_charging,
        }

    # Tariffs

    def set_default_tariff(self, payload: Payload, now: float) -> Payload:
        """Spec: OCPP 2.1 I08."""
        number, tariff = payload["evseId"], payload["tariff"]
        numbers = [outlet.number for outlet in self._station.outlets] if number == 0 else [number]
        if any(self._station.outlet(each) is None for each in numbers):
            return REJECTED
        for each in numbers:
            self._tariffs[each] = tariff
        return ACCEPTED

    def get_tariffs(self, payload: Payload, now: float) -> Payload:
        """Spec: OCPP 2.1 I09."""
        number = payload["evseId"]
        found: dict[str, list[int]] = {}
        for each, tariff in self._tariffs.items():
            if number in (0, each):
                found.setdefault(tariff["tariffId"], []).append(each)
        if not found:
            return {"status": "NoTariff"}
        assignments = [
            {"tariffId": tariff_id, "tariffKind": "DefaultTariff", "evseIds": evses}
            for tariff_id, evses in found.items()
        ]
        return {"status": "Accepted", "tariffAssignments": assignments}

    def clear_tariffs(self, payload: Payload, now: float) -> Payload:
        """Spec: OCPP 2.1 I10: one result for each tariff that was named, or for each that there was."""
        number, named = payload.get("evseId"), payload.get("tariffIds")
        cleared = [
            (each, tariff["tariffId"])
            for each, tariff in self._tariffs.items()
            if number in (None, 0, each) and (not named or tariff["tariffId"] in named)
        ]
        for each, _ in cleared:
            del self._tariffs[each]
        gone = {tariff_id for _, tariff_id in cleared}
        results: list[Payload] = [
            {"tariffId": tariff_id, "status": "Accepted" if tariff_id in gone else "NoTariff"}
            for tariff_id in (named or sorted(gone))
        ]
        return {"clearTariffsResult": results or [{"status": "NoTariff"}]}

    def change_transaction_tariff(self, payload: Payload, now: float) -> Payload:
        """Spec: OCPP 2.1 I11: the event that tells of it says which tariff is used from then on."""
        for outlet in self._station.outlets:
            transaction = outlet.transaction
            if transaction is not None and transaction.transaction_id == payload["transactionId"]:
                tariff = payload["tariff"]
                if transaction.tariff is not None and transaction.tariff["currency"] != tariff["currency"]:
                    return {"status": "NoCurrencyChange"}
                transaction.tariff = tariff
                self._station.tell_tariff(outlet, transaction, now)
                return ACCEPTED
        return {"status": "TxNotFound"}

    def default_tariff(self, evse_id: int) -> Payload | None:
        """What sessions of an EVSE begin with, if that was set."""
        return self._tariffs.get(evse_id)

    # Distributed energy resources

    def set_der_control(self, payload: Payload, now: float) -> Payload:
        """Spec: OCPP 2.1 R04. A newer control of a type takes the place of the older one."""
        kind = payload["controlType"]
        field = _DER_FIELDS.get(kind, "curve")
        if field not in payload:
            return REJECTED
        superseded = [
            control_id
            for control_id, control in self._controls.items()
            if (control["controlType"], control["isDefault"]) == (kind, payload["isDefault"])
            and control_id != payload["controlId"]
        ]
        for control_id in superseded:
            del self._controls[control_id]
        self._controls[payload["controlId"]] = payload
        return {"status": "Accepted", "supersededIds": superseded[:24]} if superseded else ACCEPTED

    def get_der_control(self, payload: Payload, now: float) -> Payload:
        """Spec: OCPP 2.1 R05: the answer says whether there are any, ReportDERControl which."""
        found = [control for control in self._controls.values() if _meets(control, payload)]
        if not found:
            return {"status": "NotFound"}
        for index, control in enumerate(found):
            report = {"requestId": payload["requestId"], "tbc": index + 1 < len(found)}
            self._station.link.call("ReportDERControl", report | _der_report(control))
        return ACCEPTED

    def clear_der_control(self, payload: Payload, now: float) -> Payload:
        found = [control_id for control_id, control in self._controls.items() if _meets(control, payload)]
        for control_id in found:
            del self._controls[control_id]
        return ACCEPTED if found else {"status": "NotFound"}

    # Charging

    def notify_allowed_energy_transfer(self, payload: Payload, now: float) -> Payload:
        return ACCEPTED if self._is_running(payload["transactionId"]) else REJECTED

    def use_priority_charging(self, payload: Payload, now: float) -> Payload:
        """Spec: OCPP 2.1 K21: it is told when priority begins or ends."""
        if not self._is_running(payload["transactionId"]):
            return REJECTED
        told = {"transactionId": payload["transactionId"], "activated": payload["activate"]}
        self._station.link.call("NotifyPriorityCharging", told)
        return ACCEPTED

    def _is_running(self, transaction_id: str) -> bool:
        return any(
            outlet.transaction is not None and outlet.transaction.transaction_id == transaction_id
            for outlet in self._station.outlets
        )


def _refuse(reason: str) -> Handler:
    def handler(payload: Payload, now: float) -> Payload:
        raise Unsupported(reason)

    return handler


def _meets(control: Payload, criteria: Payload) -> bool:
    return (
        criteria.get("controlId") in (None, control["controlId"])
        and criteria.get("controlType") in (None, control["controlType"])
        and criteria.get("isDefault") in (None, control["isDefault"])
    )


def _der_report(control: Payload) -> dict[str, Any]:
    """A control as ReportDERControl has it."""
    kind = control["controlType"]
    field = _DER_FIELDS.get(kind, "curve")
    entry: Payload = {"id": control["controlId"], field: control[field]}
    if field != "enterService":
        entry |= {"isDefault": control["isDefault"], "isSuperseded": False}
    if field == "curve":
        entry["curveType"] = kind
    return {field: [entry]}
