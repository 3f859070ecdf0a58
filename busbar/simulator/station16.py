"""A station that speaks OCPP 1.6."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from busbar.ocpp.versions import Version
from busbar.simulator.commands16 import Commands16
from busbar.simulator.link import Payload
from busbar.simulator.meter import Reading, sampled_values_16
from busbar.simulator.outlet import Outlet, Phase, StopCause, Transaction
from busbar.simulator.station import Station, timestamp

MAX_ID_TAG = 20


class Station16(Station):
    """OCPP 1.6, JSON: core with all its feature profiles, and the security extension."""

    version = Version.V16
    _commands: Commands16 | None = None

    def boot_payload(self) -> Payload:
        return {
            "chargePointVendor": self.model.vendor[:20],
            "chargePointModel": self.model.name[:20],
            "chargePointSerialNumber": self.serial_number,
            "firmwareVersion": self.model.firmware_version,
            "iccid": self.iccid,
            "imsi": self.imsi,
            "meterType": "ELNA 3P",
        }

    def after_boot(self, now: float) -> None:
        """Connector 0 is the station itself."""
        self.link.call("StatusNotification", {"connectorId": 0, "errorCode": "NoError", "status": "Available"})

    def commands(self) -> Mapping[str, Callable[[Payload, float], Payload]]:
        if self._commands is None:
            self._commands = Commands16(self)
        return self._commands.table

    def tell_status(self, outlet: Outlet, now: float) -> None:
        if not self.link.connected:
            return
        outlet.told = outlet.phase
        faulted = outlet.phase is Phase.FAULTED
        status: Payload = {
            "connectorId": outlet.number,
            "errorCode": "GroundFailure" if faulted else "NoError",
            "status": outlet.phase.value[0],
            "timestamp": timestamp(now),
        }
        if faulted:
            status |= {"info": "residual current", "vendorId": self.model.vendor[:20], "vendorErrorCode": "E-17"}
        self.link.call("StatusNotification", status)

    def ask_authorization(self, outlet: Outlet, id_token: str, now: float) -> None:
        def answered(payload: Payload, at: float) -> None:
            accepted = _status_of(payload) == "Accepted"
            self.tally.authorizations_refused += not accepted
            outlet.authorized(accepted, at)

        if not self.link.connected:
            outlet.authorized(True, now)  # AllowOfflineTxForUnknownId
            return
        self.link.call("Authorize", {"idTag": id_token[:MAX_ID_TAG]}, answered, lambda at: outlet.authorized(False, at))

    def tell_start(self, outlet: Outlet, transaction: Transaction, now: float) -> None:
        """Spec: OCPP 1.6 §4.8. The transaction's id comes with the answer, perhaps long after the stop."""

        def answered(payload: Payload, at: float) -> None:
            transaction.transaction_id = str(payload.get("transactionId", -1))
            if _status_of(payload) != "Accepted" and outlet.transaction is transaction:
                self.tally.authorizations_refused += 1
                outlet.stop(StopCause.REFUSED, at)  # StopTransactionOnInvalidId

        self.tally.sessions_started += 1
        start: Payload = {
            "connectorId": outlet.number,
            "idTag": transaction.id_token[:MAX_ID_TAG],
            "meterStart": _whole_wh(outlet.reading(now)),
            "timestamp": timestamp(now),
        }
        if transaction.reservation_id is not None:
            start["reservationId"] = transaction.reservation_id
        self.link.call("StartTransaction", start, answered, durable=True)

    def tell_sample(self, outlet: Outlet, transaction: Transaction, at: float) -> None:
        reading = outlet.reading(at)

        def payload() -> Payload:
            return self._meter_values(outlet, transaction, reading, at, "Sample.Periodic")

        self.link.call("MeterValues", payload, durable=True)

    def tell_state(self, outlet: Outlet, transaction: Transaction, now: float) -> None:
        """The status says it."""

    def tell_stop(self, outlet: Outlet, transaction: Transaction, cause: StopCause, now: float) -> None:
        reading = outlet.reading(now)
        stop: Payload = {
            "meterStop": _whole_wh(reading),
            "timestamp": timestamp(now),
            "reason": cause.value[0],
            "transactionData": [
                {"timestamp": timestamp(now), "sampledValue": sampled_values_16(reading, "Transaction.End")}
            ],
        }
        if cause is StopCause.CARD:
            stop["idTag"] = transaction.id_token[:MAX_ID_TAG]
        self.note_end(transaction, reading)
        self.link.call("StopTransaction", lambda: stop | {"transactionId": _number(transaction)}, durable=True)

    def tell_reservation_over(self, outlet: Outlet, reservation_id: int, now: float) -> None:
        """The status alone tells it."""

    def trigger_meter_values(self, outlet: Outlet, now: float) -> None:
        """Spec: OCPP 1.6 §5.17."""
        reading = outlet.reading(now)
        self.link.call("MeterValues", self._meter_values(outlet, outlet.transaction, reading, now, "Trigger"))

    def _meter_values(
        self, outlet: Outlet, transaction: Transaction | None, reading: Reading, at: float, context: str
    ) -> Payload:
        values: Payload = {
            "connectorId": outlet.number,
            "meterValue": [{"timestamp": timestamp(at), "sampledValue": sampled_values_16(reading, context)}],
        }
        if transaction is not None:
            values["transactionId"] = _number(transaction)
        return values


def _number(transaction: Transaction) -> int:
    """The id that the CSMS gave; -1 if the start was never answered."""
    return int(transaction.transaction_id or -1)


def _whole_wh(reading: Reading) -> int:
    return math.floor(reading.register_wh)


def _status_of(payload: Payload) -> str:
    info = payload.get("idTagInfo")
    return str(info.get("status")) if isinstance(info, dict) else ""
