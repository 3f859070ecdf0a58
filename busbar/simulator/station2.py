"""Stations that speak OCPP 2.0.1 and 2.1."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from uuid import NAMESPACE_URL, uuid5

from busbar.ocpp.versions import Version
from busbar.simulator.commands2 import Commands2
from busbar.simulator.link import Payload
from busbar.simulator.meter import Reading, sampled_values_2
from busbar.simulator.outlet import Outlet, Phase, StopCause, Transaction
from busbar.simulator.station import Station, timestamp

TOKEN_TYPE = "ISO14443"  # noqa: S105 - a type of id token


class Station201(Station):
    """OCPP 2.0.1: one connector per EVSE; a transaction starts with the authorization."""

    version = Version.V201
    _commands: Commands2 | None = None
    _transactions = 0

    def boot_payload(self) -> Payload:
        return {
            "reason": self.boot_reason,
            "chargingStation": {
                "vendorName": self.model.vendor,
                "model": self.model.name[:20],
                "serialNumber": self.serial_number,
                "firmwareVersion": self.model.firmware_version,
                "modem": {"iccid": self.iccid, "imsi": self.imsi},
            },
        }

    def after_boot(self, now: float) -> None:
        event = "StartupOfTheDevice" if self.boot_reason == "PowerUp" else "ResetOrReboot"
        self.link.call("SecurityEventNotification", {"type": event, "timestamp": timestamp(now)})

    def commands(self) -> Mapping[str, Callable[[Payload, float], Payload]]:
        if self._commands is None:
            self._commands = Commands2(self)
        return self._commands.table

    def tell_status(self, outlet: Outlet, now: float) -> None:
        if not self.link.connected:
            return
        changed = outlet.told is None or outlet.told.value[1] != outlet.phase.value[1]
        outlet.told = outlet.phase
        if changed:
            self.link.call("StatusNotification", self.status_payload(outlet, now))

    def status_payload(self, outlet: Outlet, now: float) -> Payload:
        return {
            "timestamp": timestamp(now),
            "connectorStatus": outlet.phase.value[1],
            "evseId": outlet.number,
            "connectorId": 1,
        }

    def ask_authorization(self, outlet: Outlet, id_token: str, now: float) -> None:
        def answered(payload: Payload, at: float) -> None:
            accepted = _status_of(payload) == "Accepted"
            self.tally.authorizations_refused += not accepted
            outlet.authorized(accepted, at)

        if not self.link.connected:
            outlet.authorized(True, now)  # OfflineTxForUnknownIdEnabled
            return
        self.link.call("Authorize", {"idToken": token(id_token)}, answered, lambda at: outlet.authorized(False, at))

    def tell_start(self, outlet: Outlet, transaction: Transaction, now: float) -> None:
        def answered(payload: Payload, at: float) -> None:
            if _status_of(payload) not in ("Accepted", "") and outlet.transaction is transaction:
                self.tally.authorizations_refused += 1
                outlet.stop(StopCause.REFUSED, at)  # StopTxOnInvalidId

        self.tally.sessions_started += 1
        self._transactions += 1
        if self._commands is not None:
            transaction.tariff = self._commands.default_tariff(outlet.number)
        # Of the start of this run as well: a run with the same seed a day later has other transactions.
        name = f"{self.settings.seed}/{self.station_id}/{self.started_at}/{self._transactions}"
        transaction.transaction_id = str(uuid5(NAMESPACE_URL, name))
        event = self.event(outlet, transaction, "Started", self._start_trigger(transaction), now, "Transaction.Begin")
        event["idToken"] = token(transaction.id_token)
        if transaction.reservation_id is not None:
            event["reservationId"] = transaction.reservation_id
        self.link.call("TransactionEvent", event, answered, durable=True)

    def tell_sample(self, outlet: Outlet, transaction: Transaction, at: float) -> None:
        event = self.event(outlet, transaction, "Updated", "MeterValuePeriodic", at, "Sample.Periodic")
        self.link.call("TransactionEvent", event, durable=True)

    def tell_state(self, outlet: Outlet, transaction: Transaction, now: float) -> None:
        event = self.event(outlet, transaction, "Updated", "ChargingStateChanged", now, None)
        self.link.call("TransactionEvent", event, durable=True)

    def tell_tariff(self, outlet: Outlet, transaction: Transaction, now: float) -> None:
        """Spec: OCPP 2.1 I11.FR.07."""
        event = self.event(outlet, transaction, "Updated", "TariffChanged", now, "Other")
        self.link.call("TransactionEvent", event, durable=True)

    def tell_stop(self, outlet: Outlet, transaction: Transaction, cause: StopCause, now: float) -> None:
        event = self.event(outlet, transaction, "Ended", cause.value[2], now, "Transaction.End")
        event["transactionInfo"] |= {"stoppedReason": cause.value[1], "chargingState": self._last_state(cause)}
        if cause is StopCause.CARD:
            event["idToken"] = token(transaction.id_token)
        self.note_end(transaction, outlet.reading(now))
        self.link.call("TransactionEvent", event, durable=True)

    def tell_reservation_over(self, outlet: Outlet, reservation_id: int, now: float) -> None:
        """Spec: OCPP 2.0.1 H04."""
        update: Payload = {"reservationId": reservation_id, "reservationUpdateStatus": "Expired"}
        self.link.call("ReservationStatusUpdate", update)

    def event(
        self,
        outlet: Outlet,
        transaction: Transaction,
        event_type: str,
        trigger: str,
        at: float,
        context: str | None,
    ) -> Payload:
        """A TransactionEvent, numbered. Spec: OCPP 2.0.1 E; `context` of its meter values, `None` for none."""
        info: Payload = {
            "transactionId": transaction.transaction_id,
            "chargingState": _charging_state(outlet.phase),
        }
        if transaction.remote_start_id is not None and event_type == "Started":
            info["remoteStartId"] = transaction.remote_start_id
        if transaction.tariff is not None and (event_type == "Started" or trigger == "TariffChanged"):
            info["tariffId"] = transaction.tariff["tariffId"]
        event: Payload = {
            "eventType": event_type,
            "timestamp": timestamp(at),
            "triggerReason": trigger,
            "seqNo": transaction.seq_no,
            "transactionInfo": info,
        }
        transaction.seq_no += 1
        if not transaction.evse_told:
            event["evse"] = {"id": outlet.number, "connectorId": 1}
            transaction.evse_told = True
        if not self.link.connected:
            event["offline"] = True
        if not outlet.direct_current:
            event["numberOfPhasesUsed"] = 3
        if context is not None:
            event["meterValue"] = [meter_value(outlet.reading(at), at, context)]
        return event

    def _start_trigger(self, transaction: Transaction) -> str:
        return "Authorized" if transaction.remote_start_id is None else "RemoteStart"

    def _last_state(self, cause: StopCause) -> str:
        return "Idle" if cause is StopCause.UNPLUGGED else "EVConnected"


class Station21(Station201):
    """OCPP 2.1: as 2.0.1, with its new commands."""

    version = Version.V21


def token(id_token: str) -> Payload:
    return {"idToken": id_token, "type": TOKEN_TYPE}


def meter_value(reading: Reading, at: float, context: str) -> Payload:
    return {"timestamp": timestamp(at), "sampledValue": sampled_values_2(reading, context)}


def _charging_state(phase: Phase) -> str:
    match phase:
        case Phase.CHARGING:
            return "Charging"
        case Phase.SUSPENDED_EV:
            return "SuspendedEV"
        case Phase.SUSPENDED_EVSE:
            return "SuspendedEVSE"
        case _:
            return "EVConnected"


def _status_of(payload: Payload) -> str:
    info = payload.get("idTokenInfo")
    return str(info.get("status")) if isinstance(info, dict) else ""
