"""How stations that speak OCPP 2.0.1 and 2.1 answer each command. What only 2.1 has is in `commands21`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from busbar.ocpp.times import parse_timestamp, timestamp_ms
from busbar.ocpp.versions import Version
from busbar.simulator.certificates import Certificates
from busbar.simulator.commands21 import Commands21
from busbar.simulator.device_model import DeviceModel, Variable, standard_variables
from busbar.simulator.link import Payload
from busbar.simulator.meter import GRID_VOLTAGE, sampled_values_2
from busbar.simulator.outlet import Outlet, Phase, StopCause
from busbar.simulator.profiles import Profiles
from busbar.simulator.station import Unsupported, timestamp

if TYPE_CHECKING:
    from busbar.simulator.station2 import Station201

Handler = Callable[[Payload, float], Payload]

ACCEPTED: Payload = {"status": "Accepted"}
REJECTED: Payload = {"status": "Rejected"}
EMPTY_RESULT: Payload = {"status": "EmptyResultSet"}

FIRMWARE_STEPS = ("Downloading", "Downloaded", "SignatureVerified", "Installing", "Installed")
STEP_SECONDS = 10.0


def _accept(payload: Payload, now: float) -> Payload:
    return ACCEPTED


def _nothing(payload: Payload, now: float) -> Payload:
    return {}


def not_supported(what: str) -> Handler:
    """A command that a station of this kind recognizes and does not do."""

    def handler(payload: Payload, now: float) -> Payload:
        raise Unsupported(what)

    return handler


class Commands2:
    """The commands of one station, with what it remembers between them."""

    def __init__(self, station: Station201) -> None:
        self._station = station
        self._profiles = Profiles("id")
        self._certificates = Certificates()
        self._list_version = 0
        self._messages: dict[int, Payload] = {}
        self._monitors: dict[int, tuple[Payload, Payload, Payload]] = {}
        self._firmware: Payload = {"status": "Idle"}
        model = station.model
        self.device_model = DeviceModel(
            standard_variables(
                vendor=model.vendor,
                model=model.name,
                serial_number=station.serial_number,
                firmware=model.firmware_version,
                outlets=len(station.outlets),
                direct_current=model.direct_current,
                power_w=model.max_power_w,
            )
        )
        self.table: Mapping[str, Handler] = {
            "CancelReservation": self.cancel_reservation,
            "CertificateSigned": self.certificate_signed,
            "ChangeAvailability": self.change_availability,
            "ClearCache": _accept,
            "ClearChargingProfile": self.clear_charging_profile,
            "ClearDisplayMessage": self.clear_display_message,
            "ClearVariableMonitoring": self.clear_variable_monitoring,
            "CostUpdated": _nothing,
            "CustomerInformation": self.customer_information,
            "DataTransfer": lambda payload, now: {"status": "UnknownVendorId"},
            "DeleteCertificate": self.delete_certificate,
            "GetBaseReport": self.get_base_report,
            "GetChargingProfiles": self.get_charging_profiles,
            "GetCompositeSchedule": self.get_composite_schedule,
            "GetDisplayMessages": self.get_display_messages,
            "GetInstalledCertificateIds": self.get_installed_certificate_ids,
            "GetLocalListVersion": lambda payload, now: {"versionNumber": self._list_version},
            "GetLog": self.get_log,
            "GetMonitoringReport": self.get_monitoring_report,
            "GetReport": self.get_report,
            "GetTransactionStatus": self.get_transaction_status,
            "GetVariables": self.get_variables,
            "InstallCertificate": self.install_certificate,
            "PublishFirmware": not_supported("only a local controller publishes firmware"),
            "RequestStartTransaction": self.request_start,
            "RequestStopTransaction": self.request_stop,
            "ReserveNow": self.reserve_now,
            "Reset": self.reset,
            "SendLocalList": self.send_local_list,
            "SetChargingProfile": self.set_charging_profile,
            "SetDisplayMessage": self.set_display_message,
            "SetMonitoringBase": _accept,
            "SetMonitoringLevel": self.set_monitoring_level,
            "SetNetworkProfile": self.set_network_profile,
            "SetVariableMonitoring": self.set_variable_monitoring,
            "SetVariables": self.set_variables,
            "TriggerMessage": self.trigger_message,
            "UnlockConnector": self.unlock_connector,
            "UnpublishFirmware": not_supported("only a local controller publishes firmware"),
            "UpdateFirmware": self.update_firmware,
        }
        self._of_21 = Commands21(station) if station.version is Version.V21 else None
        if self._of_21 is not None:
            self.table = {**self.table, **self._of_21.table}

    def default_tariff(self, evse_id: int) -> Payload | None:
        """What sessions of an EVSE begin with, if that was set. 2.1 only."""
        return None if self._of_21 is None else self._of_21.default_tariff(evse_id)

    # Transactions and outlets

    def request_start(self, payload: Payload, now: float) -> Payload:
        """Spec: OCPP 2.0.1 F01, F02."""
        id_token = payload["idToken"]["idToken"]
        number = payload.get("evseId")
        outlet = self._station.free_outlet(id_token) if number is None else self._station.outlet(number)
        if outlet is None:
            return _rejected("UnknownEvse" if number is not None else "NoFreeEvse")
        if not (outlet.is_free or (outlet.phase is Phase.RESERVED and outlet.reserved_for == id_token)):
            return _rejected("Occupied")
        profile = payload.get("chargingProfile")
        if profile is not None and profile["chargingProfilePurpose"] != "TxProfile":
            return _rejected("InvalidProfile")
        outlet.start_remotely(id_token, payload["remoteStartId"], now)
        if profile is not None:
            self._profiles.put(outlet.number, profile)
            self._obey_profiles(now)
        return ACCEPTED

    def request_stop(self, payload: Payload, now: float) -> Payload:
        outlet = self._outlet_with(payload["transactionId"])
        if outlet is None:
            return _rejected("TxNotFound")
        outlet.stop(StopCause.REMOTE, now)
        self._profiles.drop(outlet.number)
        return ACCEPTED

    def get_transaction_status(self, payload: Payload, now: float) -> Payload:
        """Spec: OCPP 2.0.1 E14: without an id it is asked about the queue alone."""
        waiting: Payload = {"messagesInQueue": self._station.link.queued > 0}
        wanted = payload.get("transactionId")
        if wanted is None:
            return waiting
        return waiting | {"ongoingIndicator": self._outlet_with(wanted) is not None}

    def change_availability(self, payload: Payload, now: float) -> Payload:
        evse = payload.get("evse")
        outlets = self._station.outlets if evse is None else [self._station.outlet(evse["id"])]
        operative = payload["operationalStatus"] == "Operative"
        done = [outlet.set_operative(operative, now) for outlet in outlets if outlet is not None]
        if not done:
            return _rejected("UnknownEvse")
        return ACCEPTED if all(done) else {"status": "Scheduled"}

    def unlock_connector(self, payload: Payload, now: float) -> Payload:
        outlet = self._station.outlet(payload["evseId"])
        if outlet is None or payload["connectorId"] != 1:
            return {"status": "UnknownConnector"}
        if outlet.transaction is not None:
            return {"status": "OngoingAuthorizedTransaction"}
        return {"status": "Unlocked"}

    def reserve_now(self, payload: Payload, now: float) -> Payload:
        """Spec: OCPP 2.0.1 H01."""
        number, reservation_id = payload.get("evseId"), payload["id"]
        outlets = [outlet for outlet in self._station.outlets if number is None or outlet.number == number]
        if not outlets:
            return _rejected("UnknownEvse")
        for outlet in outlets:
            if outlet.phase is Phase.FREE or outlet.reservation_id == reservation_id:
                until = timestamp_ms(parse_timestamp(payload["expiryDateTime"])) / 1000
                outlet.reserve(reservation_id, payload["idToken"]["idToken"], until, now)
                return ACCEPTED
        phases = {outlet.phase for outlet in outlets}
        if phases == {Phase.FAULTED}:
            return {"status": "Faulted"}
        return {"status": "Unavailable" if phases == {Phase.INOPERATIVE} else "Occupied"}

    def cancel_reservation(self, payload: Payload, now: float) -> Payload:
        for outlet in self._station.outlets:
            if outlet.reservation_id == payload["reservationId"]:
                outlet.end_reservation(now)
                return ACCEPTED
        return REJECTED

    def reset(self, payload: Payload, now: float) -> Payload:
        """Spec: OCPP 2.0.1 B11, B12. An EVSE alone cannot be reset here."""
        if "evseId" in payload:
            return _rejected("NotSupported")
        if self._station.is_rebooting:
            return _rejected("InProgress")
        busy = any(outlet.transaction is not None for outlet in self._station.outlets)
        if payload["type"] == "OnIdle" and busy:
            self._reset_when_idle(now)
            return {"status": "Scheduled"}
        self._station.reboot(StopCause.HARD_RESET, "RemoteReset", now)
        return ACCEPTED

    def _reset_when_idle(self, now: float) -> None:
        if any(outlet.transaction is not None for outlet in self._station.outlets):
            self._station.agenda.at(now + STEP_SECONDS, "reset", self._reset_when_idle)
        else:
            self._station.reboot(StopCause.SOFT_RESET, "ScheduledReset", now)

    # Charging profiles

    def set_charging_profile(self, payload: Payload, now: float) -> Payload:
        """Spec: OCPP 2.0.1 K01."""
        number, profile = payload["evseId"], payload["chargingProfile"]
        outlet = self._station.outlet(number)
        if number != 0 and outlet is None:
            return _rejected("UnknownEvse")
        if profile["chargingProfilePurpose"] == "TxProfile":
            transaction = outlet.transaction if outlet else None
            if transaction is None or profile.get("transactionId") != transaction.transaction_id:
                return _rejected("TxNotFound")
        self._profiles.put(number, profile)
        self._obey_profiles(now)
        return ACCEPTED

    def clear_charging_profile(self, payload: Payload, now: float) -> Payload:
        criteria = payload.get("chargingProfileCriteria", {})
        cleared = self._profiles.clear(
            payload.get("chargingProfileId"),
            criteria.get("evseId"),
            criteria.get("chargingProfilePurpose"),
            criteria.get("stackLevel"),
        )
        self._obey_profiles(now)
        return ACCEPTED if cleared else {"status": "Unknown"}

    def get_charging_profiles(self, payload: Payload, now: float) -> Payload:
        """Spec: OCPP 2.0.1 K09: the answer says whether there are any, ReportChargingProfiles which."""
        found = self._profiles.matching(payload.get("evseId"), payload["chargingProfile"])
        for index, (number, profile) in enumerate(found):
            report: Payload = {
                "requestId": payload["requestId"],
                "chargingLimitSource": "CSO",
                "chargingProfile": [profile],
                "tbc": index + 1 < len(found),
                "evseId": number,
            }
            self._tell_after("ReportChargingProfiles", report)
        return ACCEPTED if found else {"status": "NoProfiles"}

    def get_composite_schedule(self, payload: Payload, now: float) -> Payload:
        number = payload["evseId"]
        outlet = self._station.outlet(number)
        if number != 0 and outlet is None:
            return _rejected("UnknownEvse")
        most = outlet.max_power_w if outlet else sum(each.max_power_w for each in self._station.outlets)
        limit_w = min(most, self._profiles.limit_w(number, now))
        unit = payload.get("chargingRateUnit", "W")
        limit = round(limit_w if unit == "W" else limit_w / 3 / GRID_VOLTAGE, 1)
        schedule: Payload = {
            "evseId": number,
            "duration": payload["duration"],
            "scheduleStart": timestamp(now),
            "chargingRateUnit": unit,
            "chargingSchedulePeriod": [{"startPeriod": 0, "limit": limit}],
        }
        return {"status": "Accepted", "schedule": schedule}

    def _obey_profiles(self, now: float) -> None:
        for outlet in self._station.outlets:
            outlet.limit(self._profiles.limit_w(outlet.number, now), now)

    # Device model and monitoring

    def get_variables(self, payload: Payload, now: float) -> Payload:
        return {"getVariableResult": [self.device_model.answer_get(each) for each in payload["getVariableData"]]}

    def set_variables(self, payload: Payload, now: float) -> Payload:
        results = [self.device_model.answer_set(each) for each in payload["setVariableData"]]
        self._station.set_heartbeat(float(self.device_model.get("OCPPCommCtrlr", "HeartbeatInterval")), now)
        return {"setVariableResult": results}

    def get_base_report(self, payload: Payload, now: float) -> Payload:
        """Spec: OCPP 2.0.1 B07."""
        return self._report(payload, None, now)

    def get_report(self, payload: Payload, now: float) -> Payload:
        """Spec: OCPP 2.0.1 B08. Criteria pick components with problems and the like, of which there are none."""
        criteria = payload.get("componentCriteria")
        if criteria and set(criteria) == {"Problem"}:
            return EMPTY_RESULT
        return self._report(payload, payload.get("componentVariable"), now)

    def _report(self, payload: Payload, wanted: list[Payload] | None, now: float) -> Payload:
        parts = list(self.device_model.reports(payload["requestId"], timestamp(now), wanted))
        for part in parts:
            self._tell_after("NotifyReport", part)
        return ACCEPTED if parts else EMPTY_RESULT

    def set_variable_monitoring(self, payload: Payload, now: float) -> Payload:
        """Spec: OCPP 2.0.1 N04."""
        return {"setMonitoringResult": [self._set_monitor(each) for each in payload["setMonitoringData"]]}

    def _set_monitor(self, data: Payload) -> Payload:
        result: Payload = {name: data[name] for name in ("type", "severity", "component", "variable")}
        found = self.device_model.find(data["component"], data["variable"])
        if not isinstance(found, Variable):
            return result | {"status": found}
        if found.data_type not in ("decimal", "integer") and data["type"] != "Delta":
            return result | {"status": "UnsupportedMonitorType"}
        monitor_id = data.get("id", max(self._monitors, default=0) + 1)
        monitor: Payload = {
            "id": monitor_id,
            "transaction": data.get("transaction", False),
            "value": data["value"],
            "type": data["type"],
            "severity": data["severity"],
        }
        if self._station.version is Version.V21:
            monitor["eventNotificationType"] = "CustomMonitor"
        self._monitors[monitor_id] = (found.component_payload, found.variable_payload, monitor)
        return result | {"status": "Accepted", "id": monitor_id}

    def clear_variable_monitoring(self, payload: Payload, now: float) -> Payload:
        return {
            "clearMonitoringResult": [
                {"id": each, "status": "NotFound" if self._monitors.pop(each, None) is None else "Accepted"}
                for each in payload["id"]
            ]
        }

    def get_monitoring_report(self, payload: Payload, now: float) -> Payload:
        """Spec: OCPP 2.0.1 N02."""
        if not self._monitors:
            return EMPTY_RESULT
        report = [
            {"component": component, "variable": variable, "variableMonitoring": [monitor]}
            for component, variable, monitor in self._monitors.values()
        ]
        head = {"requestId": payload["requestId"], "seqNo": 0, "generatedAt": timestamp(now), "tbc": False}
        self._tell_after("NotifyMonitoringReport", head | {"monitor": report})
        return ACCEPTED

    def set_monitoring_level(self, payload: Payload, now: float) -> Payload:
        return ACCEPTED if 0 <= payload["severity"] <= 9 else REJECTED

    def set_network_profile(self, payload: Payload, now: float) -> Payload:
        return ACCEPTED if payload["connectionData"]["ocppTransport"] == "JSON" else REJECTED

    # Lists, messages, certificates

    def send_local_list(self, payload: Payload, now: float) -> Payload:
        if payload["updateType"] == "Differential" and payload["versionNumber"] <= self._list_version:
            return {"status": "VersionMismatch"}
        self._list_version = payload["versionNumber"]
        entries = payload.get("localAuthorizationList", [])
        self.device_model.set("LocalAuthListCtrlr", "Entries", str(len(entries)))
        return ACCEPTED

    def set_display_message(self, payload: Payload, now: float) -> Payload:
        message = payload["message"]
        transaction_id = message.get("transactionId")
        if transaction_id is not None and self._outlet_with(transaction_id) is None:
            return {"status": "UnknownTransaction"}
        self._messages[message["id"]] = message
        return ACCEPTED

    def get_display_messages(self, payload: Payload, now: float) -> Payload:
        """Spec: OCPP 2.0.1 O03, O04."""
        ids, priority, state = payload.get("id"), payload.get("priority"), payload.get("state")
        found = [
            message
            for message in self._messages.values()
            if (not ids or message["id"] in ids)
            and priority in (None, message["priority"])
            and state in (None, message.get("state"))
        ]
        if not found:
            return {"status": "Unknown"}
        for index, message in enumerate(found):
            report = {"requestId": payload["requestId"], "messageInfo": [message], "tbc": index + 1 < len(found)}
            self._tell_after("NotifyDisplayMessages", report)
        return ACCEPTED

    def clear_display_message(self, payload: Payload, now: float) -> Payload:
        return {"status": "Unknown"} if self._messages.pop(payload["id"], None) is None else ACCEPTED

    def customer_information(self, payload: Payload, now: float) -> Payload:
        """Spec: OCPP 2.0.1 N09, N10: the station keeps none, and says so in a report."""
        if not any(name in payload for name in ("idToken", "customerCertificate", "customerIdentifier")):
            return {"status": "Invalid"}
        if payload["report"]:
            report = {"data": "", "seqNo": 0, "generatedAt": timestamp(now), "requestId": payload["requestId"]}
            self._tell_after("NotifyCustomerInformation", report)
        return ACCEPTED

    def certificate_signed(self, payload: Payload, now: float) -> Payload:
        return ACCEPTED if payload["certificateChain"].startswith("-----BEGIN CERTIFICATE") else REJECTED

    def install_certificate(self, payload: Payload, now: float) -> Payload:
        installed = self._certificates.install(payload["certificateType"], payload["certificate"])
        return ACCEPTED if installed else {"status": "Failed"}

    def delete_certificate(self, payload: Payload, now: float) -> Payload:
        deleted = self._certificates.delete(payload["certificateHashData"])
        return ACCEPTED if deleted else {"status": "NotFound"}

    def get_installed_certificate_ids(self, payload: Payload, now: float) -> Payload:
        found = self._certificates.of(payload.get("certificateType"))
        if not found:
            return {"status": "NotFound"}
        chain = [{"certificateType": kind, "certificateHashData": hashes} for kind, hashes in found]
        return {"status": "Accepted", "certificateHashDataChain": chain}

    # Firmware, logs, triggers

    def update_firmware(self, payload: Payload, now: float) -> Payload:
        """Spec: OCPP 2.0.1 L01."""
        certificate = payload["firmware"].get("signingCertificate")
        if certificate is not None and not certificate.startswith("-----BEGIN CERTIFICATE"):
            return {"status": "InvalidCertificate"}

        def step(index: int, at: float) -> None:
            last = index + 1 == len(FIRMWARE_STEPS)
            told = {"status": FIRMWARE_STEPS[index], "requestId": payload["requestId"]}
            self._firmware = {"status": "Idle"} if last else told
            self._station.link.call("FirmwareStatusNotification", told)
            if not last:
                self._station.agenda.at(at + STEP_SECONDS, "firmware", lambda then: step(index + 1, then))

        self._station.agenda.at(now + STEP_SECONDS, "firmware", lambda at: step(0, at))
        return ACCEPTED

    def get_log(self, payload: Payload, now: float) -> Payload:
        """Spec: OCPP 2.0.1 N01."""

        def tell(status: str) -> Callable[[float], None]:
            told = {"status": status, "requestId": payload["requestId"]}
            return lambda at: self._station.link.call("LogStatusNotification", told)

        self._station.agenda.at(now + 1, "upload begins", tell("Uploading"))
        self._station.agenda.at(now + STEP_SECONDS, "upload ends", tell("Uploaded"))
        return {"status": "Accepted", "filename": f"{self._station.serial_number}-{payload['logType']}.log"}

    def trigger_message(self, payload: Payload, now: float) -> Payload:
        """Spec: OCPP 2.0.1 F06."""
        evse = payload.get("evse")
        outlets = self._station.outlets if evse is None else [self._station.outlet(evse["id"])]
        known = [outlet for outlet in outlets if outlet is not None]
        if not known:
            return _rejected("UnknownEvse")
        trigger = self._triggers(known).get(payload["requestedMessage"])
        if trigger is None:
            return {"status": "NotImplemented"}
        if payload["requestedMessage"] == "TransactionEvent" and all(each.transaction is None for each in known):
            return _rejected("TxNotFound")
        # The answer goes first: what was triggered comes a moment later.
        self._station.agenda.at(now, f"trigger {payload['requestedMessage']}", trigger)
        return ACCEPTED

    def _triggers(self, outlets: list[Outlet]) -> Mapping[str, Callable[[float], None]]:
        station, link = self._station, self._station.link

        def boot(now: float) -> None:
            link.call("BootNotification", station.boot_payload() | {"reason": "Triggered"}, urgent=True)

        def statuses(now: float) -> None:
            for outlet in outlets:
                link.call("StatusNotification", station.status_payload(outlet, now), urgent=not link.accepted)

        def events(now: float) -> None:
            for outlet in outlets:
                if outlet.transaction is not None:
                    event = station.event(outlet, outlet.transaction, "Updated", "Trigger", now, "Trigger")
                    link.call("TransactionEvent", event, durable=True)

        return {
            "BootNotification": boot,
            "FirmwareStatusNotification": lambda now: link.call("FirmwareStatusNotification", self._firmware),
            "Heartbeat": lambda now: link.call("Heartbeat", {}, urgent=not link.accepted),
            "LogStatusNotification": lambda now: link.call("LogStatusNotification", {"status": "Idle"}),
            "MeterValues": lambda now: self._trigger_meter_values(outlets, now),
            "StatusNotification": statuses,
            "TransactionEvent": events,
        }

    def _trigger_meter_values(self, outlets: list[Outlet], now: float) -> None:
        for outlet in outlets:
            sampled = {"timestamp": timestamp(now), "sampledValue": sampled_values_2(outlet.reading(now), "Trigger")}
            self._station.link.call("MeterValues", {"evseId": outlet.number, "meterValue": [sampled]})

    def _outlet_with(self, transaction_id: str) -> Outlet | None:
        for outlet in self._station.outlets:
            if outlet.transaction is not None and outlet.transaction.transaction_id == transaction_id:
                return outlet
        return None

    def _tell_after(self, action: str, payload: Payload) -> None:
        """Queue a report, which goes after the answer. It may go while the registration is pending (OCPP 2.0.1 B02)."""
        self._station.link.call(action, payload, urgent=not self._station.link.accepted)


def _rejected(reason: str) -> Payload:
    return {"status": "Rejected", "statusInfo": {"reasonCode": reason}}
