"""How a station that speaks OCPP 1.6 answers each command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from busbar.ocpp.times import parse_timestamp, timestamp_ms
from busbar.simulator.certificates import Certificates
from busbar.simulator.link import Payload
from busbar.simulator.outlet import Outlet, Phase, StopCause
from busbar.simulator.profiles import Profiles
from busbar.simulator.station import timestamp

if TYPE_CHECKING:
    from busbar.simulator.station16 import Station16

Handler = Callable[[Payload, float], Payload]

ACCEPTED: Payload = {"status": "Accepted"}
REJECTED: Payload = {"status": "Rejected"}

FIRMWARE_STEPS = ("Downloading", "Downloaded", "Installing", "Installed")
SIGNED_FIRMWARE_STEPS = ("Downloading", "Downloaded", "SignatureVerified", "Installing", "Installed")
STEP_SECONDS = 10.0
MAX_KEYS = 50


class Commands16:
    """The commands of one station, with the little that it remembers between them."""

    def __init__(self, station: Station16) -> None:
        self._station = station
        self._profiles = Profiles("chargingProfileId")
        self._certificates = Certificates()
        self._list_version = 0
        self._firmware = "Idle"
        self._upload = "Idle"
        interval = station.settings.behaviour.sample_interval_seconds
        self._configuration: dict[str, tuple[str, bool]] = {
            "AuthorizeRemoteTxRequests": ("false", False),
            "AllowOfflineTxForUnknownId": ("true", False),
            "ConnectionTimeOut": ("60", False),
            "GetConfigurationMaxKeys": (str(MAX_KEYS), True),
            "HeartbeatInterval": ("300", False),
            "LocalAuthListEnabled": ("true", False),
            "LocalAuthListMaxLength": ("1000", True),
            "MeterValueSampleInterval": (f"{interval:.0f}", False),
            "MeterValuesSampledData": ("Energy.Active.Import.Register,Power.Active.Import,Current.Import", False),
            "NumberOfConnectors": (str(len(station.outlets)), True),
            "ReserveConnectorZeroSupported": ("false", True),
            "SecurityProfile": ("1", False),
            "StopTransactionOnEVSideDisconnect": ("true", False),
            "StopTransactionOnInvalidId": ("true", False),
            "SupportedFeatureProfiles": (
                "Core,FirmwareManagement,LocalAuthListManagement,Reservation,SmartCharging,RemoteTrigger",
                True,
            ),
            "TransactionMessageAttempts": ("5", False),
            "TransactionMessageRetryInterval": ("20", False),
            "WebSocketPingInterval": ("60", False),
        }
        self.table: Mapping[str, Handler] = {
            "CancelReservation": self.cancel_reservation,
            "CertificateSigned": self.certificate_signed,
            "ChangeAvailability": self.change_availability,
            "ChangeConfiguration": self.change_configuration,
            "ClearCache": lambda payload, now: ACCEPTED,
            "ClearChargingProfile": self.clear_charging_profile,
            "DataTransfer": lambda payload, now: {"status": "UnknownVendorId"},
            "DeleteCertificate": self.delete_certificate,
            "ExtendedTriggerMessage": self.trigger_message,
            "GetCompositeSchedule": self.get_composite_schedule,
            "GetConfiguration": self.get_configuration,
            "GetDiagnostics": self.get_diagnostics,
            "GetInstalledCertificateIds": self.get_installed_certificate_ids,
            "GetLocalListVersion": lambda payload, now: {"listVersion": self._list_version},
            "GetLog": self.get_log,
            "InstallCertificate": self.install_certificate,
            "RemoteStartTransaction": self.remote_start,
            "RemoteStopTransaction": self.remote_stop,
            "ReserveNow": self.reserve_now,
            "Reset": self.reset,
            "SendLocalList": self.send_local_list,
            "SetChargingProfile": self.set_charging_profile,
            "SignedUpdateFirmware": self.signed_update_firmware,
            "TriggerMessage": self.trigger_message,
            "UnlockConnector": self.unlock_connector,
            "UpdateFirmware": self.update_firmware,
        }

    # Transactions and outlets

    def remote_start(self, payload: Payload, now: float) -> Payload:
        id_tag = payload["idTag"]
        number = payload.get("connectorId")
        outlet = self._station.free_outlet(id_tag) if number is None else self._station.outlet(number)
        if outlet is None or not _can_start(outlet, id_tag):
            return REJECTED
        profile = payload.get("chargingProfile")
        outlet.start_remotely(id_tag, None, now)
        if profile is not None:
            self._profiles.put(outlet.number, profile)
            self._obey_profiles(now)
        return ACCEPTED

    def remote_stop(self, payload: Payload, now: float) -> Payload:
        wanted = str(payload["transactionId"])
        for outlet in self._station.outlets:
            if outlet.transaction is not None and outlet.transaction.transaction_id == wanted:
                outlet.stop(StopCause.REMOTE, now)
                self._profiles.drop(outlet.number)
                return ACCEPTED
        return REJECTED

    def change_availability(self, payload: Payload, now: float) -> Payload:
        number = payload["connectorId"]
        outlets = self._station.outlets if number == 0 else [self._station.outlet(number)]
        operative = payload["type"] == "Operative"
        done = [outlet.set_operative(operative, now) for outlet in outlets if outlet is not None]
        if not done:
            return REJECTED
        return ACCEPTED if all(done) else {"status": "Scheduled"}

    def unlock_connector(self, payload: Payload, now: float) -> Payload:
        outlet = self._station.outlet(payload["connectorId"])
        if outlet is None or outlet.direct_current:
            return {"status": "NotSupported"}  # a cable of its own does not lock at the station
        outlet.unlock(now)
        return {"status": "Unlocked"}

    def reserve_now(self, payload: Payload, now: float) -> Payload:
        outlet = self._station.outlet(payload["connectorId"])
        if outlet is None:
            return REJECTED  # ReserveConnectorZeroSupported is false
        refusal = _refusal(outlet, payload["reservationId"])
        if refusal is not None:
            return {"status": refusal}
        outlet.reserve(payload["reservationId"], payload["idTag"], _seconds(payload["expiryDate"]), now)
        return ACCEPTED

    def cancel_reservation(self, payload: Payload, now: float) -> Payload:
        for outlet in self._station.outlets:
            if outlet.reservation_id == payload["reservationId"]:
                outlet.end_reservation(now)
                return ACCEPTED
        return REJECTED

    def reset(self, payload: Payload, now: float) -> Payload:
        if self._station.is_rebooting:
            return REJECTED
        cause = StopCause.HARD_RESET if payload["type"] == "Hard" else StopCause.SOFT_RESET
        self._station.reboot(cause, "RemoteReset", now)
        return ACCEPTED

    # Charging profiles

    def set_charging_profile(self, payload: Payload, now: float) -> Payload:
        number, profile = payload["connectorId"], payload["csChargingProfiles"]
        outlet = self._station.outlet(number)
        if number != 0 and outlet is None:
            return REJECTED
        if profile["chargingProfilePurpose"] == "TxProfile" and (outlet is None or outlet.transaction is None):
            return REJECTED  # §5.16: there is no transaction that it could apply to
        self._profiles.put(number, profile)
        self._obey_profiles(now)
        return ACCEPTED

    def clear_charging_profile(self, payload: Payload, now: float) -> Payload:
        cleared = self._profiles.clear(
            payload.get("id"),
            payload.get("connectorId"),
            payload.get("chargingProfilePurpose"),
            payload.get("stackLevel"),
        )
        self._obey_profiles(now)
        return ACCEPTED if cleared else {"status": "Unknown"}

    def get_composite_schedule(self, payload: Payload, now: float) -> Payload:
        number = payload["connectorId"]
        outlet = self._station.outlet(number)
        if number != 0 and outlet is None:
            return REJECTED
        most = outlet.max_power_w if outlet else sum(each.max_power_w for each in self._station.outlets)
        limit = min(most, self._profiles.limit_w(number, now))
        unit = payload.get("chargingRateUnit", "W")
        shown = limit if unit == "W" else round(limit / 3 / 230, 1)
        return {
            "status": "Accepted",
            "connectorId": number,
            "scheduleStart": timestamp(now),
            "chargingSchedule": {
                "duration": payload["duration"],
                "chargingRateUnit": unit,
                "chargingSchedulePeriod": [{"startPeriod": 0, "limit": round(shown, 1)}],
            },
        }

    def _obey_profiles(self, now: float) -> None:
        for outlet in self._station.outlets:
            outlet.limit(self._profiles.limit_w(outlet.number, now), now)

    # Configuration and lists

    def get_configuration(self, payload: Payload, now: float) -> Payload:
        asked = payload.get("key") or list(self._configuration)
        known = [name for name in asked if name in self._configuration]
        return {
            "configurationKey": [
                {"key": name, "value": self._configuration[name][0], "readonly": self._configuration[name][1]}
                for name in known
            ],
            "unknownKey": [name for name in asked if name not in self._configuration],
        }

    def change_configuration(self, payload: Payload, now: float) -> Payload:
        name, value = payload["key"], payload["value"]
        if name == "AuthorizationKey":
            return ACCEPTED  # write-only: taken, and never shown
        if name not in self._configuration:
            return {"status": "NotSupported"}
        known, read_only = self._configuration[name]
        if read_only or (known.isdigit() and not value.isdigit()):
            return REJECTED
        self._configuration[name] = (value, read_only)
        if name == "HeartbeatInterval":
            self._station.set_heartbeat(float(value), now)
        return {"status": "RebootRequired"} if name == "SecurityProfile" else ACCEPTED

    def send_local_list(self, payload: Payload, now: float) -> Payload:
        if payload["updateType"] == "Differential" and payload["listVersion"] <= self._list_version:
            return {"status": "VersionMismatch"}
        self._list_version = payload["listVersion"]
        return ACCEPTED

    # Certificates

    def certificate_signed(self, payload: Payload, now: float) -> Payload:
        return ACCEPTED if payload["certificateChain"].startswith("-----BEGIN CERTIFICATE") else REJECTED

    def install_certificate(self, payload: Payload, now: float) -> Payload:
        installed = self._certificates.install(payload["certificateType"], payload["certificate"])
        return ACCEPTED if installed else {"status": "Failed"}

    def delete_certificate(self, payload: Payload, now: float) -> Payload:
        deleted = self._certificates.delete(payload["certificateHashData"])
        return ACCEPTED if deleted else {"status": "NotFound"}

    def get_installed_certificate_ids(self, payload: Payload, now: float) -> Payload:
        found = [hashes for _, hashes in self._certificates.of([payload["certificateType"]])]
        return {"status": "Accepted", "certificateHashData": found} if found else {"status": "NotFound"}

    # Firmware, logs, triggers

    def update_firmware(self, payload: Payload, now: float) -> Payload:
        self._run_firmware("FirmwareStatusNotification", FIRMWARE_STEPS, {}, now)
        return {}

    def signed_update_firmware(self, payload: Payload, now: float) -> Payload:
        if not payload["firmware"]["signingCertificate"].startswith("-----BEGIN CERTIFICATE"):
            return {"status": "InvalidCertificate"}
        extra = {"requestId": payload["requestId"]}
        self._run_firmware("SignedFirmwareStatusNotification", SIGNED_FIRMWARE_STEPS, extra, now)
        return ACCEPTED

    def get_diagnostics(self, payload: Payload, now: float) -> Payload:
        self._run_upload("DiagnosticsStatusNotification", {}, now)
        return {"fileName": f"{self._station.serial_number}-diagnostics.tar.gz"}

    def get_log(self, payload: Payload, now: float) -> Payload:
        self._run_upload("LogStatusNotification", {"requestId": payload["requestId"]}, now)
        return {"status": "Accepted", "filename": f"{self._station.serial_number}-{payload['logType']}.log"}

    def trigger_message(self, payload: Payload, now: float) -> Payload:
        number = payload.get("connectorId")
        outlets = self._station.outlets if number in (None, 0) else [self._station.outlet(number)]
        known = [outlet for outlet in outlets if outlet is not None]
        trigger = self._triggers(known).get(payload["requestedMessage"])
        if not known:
            return REJECTED
        if trigger is None:
            return {"status": "NotImplemented"}
        # The answer goes first: what was triggered comes a moment later.
        self._station.agenda.at(now, f"trigger {payload['requestedMessage']}", trigger)
        return ACCEPTED

    def _triggers(self, outlets: list[Outlet]) -> Mapping[str, Callable[[float], None]]:
        station, link = self._station, self._station.link

        def statuses(now: float) -> None:
            for outlet in outlets:
                station.tell_status(outlet, now)

        def meter_values(now: float) -> None:
            for outlet in outlets:
                station.trigger_meter_values(outlet, now)

        return {
            "BootNotification": station.boot,
            "DiagnosticsStatusNotification": lambda now: link.call(
                "DiagnosticsStatusNotification", {"status": self._upload}
            ),
            "FirmwareStatusNotification": lambda now: link.call(
                "FirmwareStatusNotification", {"status": self._firmware}
            ),
            "LogStatusNotification": lambda now: link.call("LogStatusNotification", {"status": "Idle"}),
            "Heartbeat": lambda now: link.call("Heartbeat", {}),
            "MeterValues": meter_values,
            "StatusNotification": statuses,
        }

    def _run_firmware(self, action: str, steps: tuple[str, ...], extra: Mapping[str, Any], now: float) -> None:
        def step(index: int, at: float) -> None:
            self._firmware = steps[index] if index < len(steps) - 1 else "Idle"
            self._station.link.call(action, {**extra, "status": steps[index]})
            if index + 1 < len(steps):
                self._station.agenda.at(at + STEP_SECONDS, "firmware", lambda then: step(index + 1, then))

        self._station.agenda.at(now + STEP_SECONDS, "firmware", lambda at: step(0, at))

    def _run_upload(self, action: str, extra: Mapping[str, Any], now: float) -> None:
        def tell(status: str) -> Callable[[float], None]:
            def act(at: float) -> None:
                self._upload = "Uploading" if status == "Uploading" else "Idle"
                self._station.link.call(action, {**extra, "status": status})

            return act

        self._station.agenda.at(now + 1, "upload begins", tell("Uploading"))
        self._station.agenda.at(now + STEP_SECONDS, "upload ends", tell("Uploaded"))


def _can_start(outlet: Outlet, id_tag: str) -> bool:
    return outlet.is_free or (outlet.phase is Phase.RESERVED and outlet.reserved_for == id_tag)


def _refusal(outlet: Outlet, reservation_id: int) -> str | None:
    """Why an outlet cannot be reserved; `None` if it can."""
    if outlet.reservation_id == reservation_id or outlet.phase is Phase.FREE:
        return None
    match outlet.phase:
        case Phase.FAULTED:
            return "Faulted"
        case Phase.INOPERATIVE:
            return "Unavailable"
        case _:
            return "Occupied"


def _seconds(moment: str) -> float:
    return timestamp_ms(parse_timestamp(moment)) / 1000
