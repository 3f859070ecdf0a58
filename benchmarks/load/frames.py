"""Prepared OCPP-J frames: WebSocket frames of fixed length with slots for what differs between two sendings.

A client frame must be masked (RFC 6455 §5.3); a masking key of zero leaves the payload as it is, so that a frame
is joined from prepared parts and never walked byte by byte.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass

ID_LENGTH = 10
"""Characters of a message id; the slot's width."""

_TEXT = 0x81
_MASKED = 0x80
_NO_MASK = b"\0\0\0\0"


def websocket_frame(payload: bytes, opcode: int = _TEXT) -> bytes:
    """One final client frame, masked with a key of zero."""
    return _header(len(payload), opcode) + payload


def _header(length: int, opcode: int = _TEXT) -> bytes:
    if length < 126:
        return bytes((opcode, _MASKED | length)) + _NO_MASK
    if length < 65536:
        return bytes((opcode, _MASKED | 126)) + struct.pack(">H", length) + _NO_MASK
    return bytes((opcode, _MASKED | 127)) + struct.pack(">Q", length) + _NO_MASK


@dataclass(frozen=True, slots=True)
class Template:
    """A CALL with slots, the first being the message id; `parts` is what stands around them."""

    parts: tuple[bytes, ...]

    def fill(self, message_id: bytes, *slots: bytes) -> bytes:
        """The frame, ready for the wire. Each slot must have the width that it had in the template."""
        parts = self.parts
        if not slots:
            return parts[0] + message_id + parts[1]
        if len(slots) == 1:
            return parts[0] + message_id + parts[1] + slots[0] + parts[2]
        filled = [parts[0], message_id, parts[1]]
        for slot, part in zip(slots, parts[2:], strict=True):
            filled += (slot, part)
        return b"".join(filled)


def template(action: str, payload: object, *slots: str) -> Template:
    """Prepare a CALL.

    Args:
        payload: JSON-able; the texts of `slots` occur in its JSON text once each, in this order.
    """
    message_id = "#" * ID_LENGTH
    text = json.dumps([2, message_id, action, payload], separators=(",", ":"))
    parts = []
    for slot in (message_id, *slots):
        before, found, text = text.partition(slot)
        if not found:
            raise ValueError(f"{action}: no slot {slot!r} in the payload")
        parts.append(before.encode())
    parts.append(text.encode())
    length = sum(map(len, parts)) + ID_LENGTH + sum(map(len, slots))
    parts[0] = _header(length) + parts[0]
    return Template(tuple(parts))


TRANSACTION = "T" * 16
TIMESTAMP = "2026-01-01T00:00:00.000Z"
REGISTER = "1000000000"
TRANSACTION_16 = "1111111111"

_PHASES = ("L1", "L2", "L3")


def _sampled_values_201() -> list[dict[str, object]]:
    """Twelve values, as a three-phase station with a state of charge reports them."""
    values: list[dict[str, object]] = [
        {
            "value": int(REGISTER),
            "context": "Sample.Periodic",
            "measurand": "Energy.Active.Import.Register",
            "location": "Outlet",
            "unitOfMeasure": {"unit": "Wh"},
        },
        {
            "value": 11021.5,
            "context": "Sample.Periodic",
            "measurand": "Power.Active.Import",
            "location": "Outlet",
            "unitOfMeasure": {"unit": "W"},
        },
        {
            "value": 57,
            "context": "Sample.Periodic",
            "measurand": "SoC",
            "location": "EV",
            "unitOfMeasure": {"unit": "Percent"},
        },
    ]
    for measurand, value, unit in (
        ("Current.Import", 15.93, "A"),
        ("Voltage", 230.4, "V"),
        ("Power.Active.Import", 3673.8, "W"),
    ):
        values += [
            {
                "value": value,
                "context": "Sample.Periodic",
                "measurand": measurand,
                "phase": phase,
                "location": "Outlet",
                "unitOfMeasure": {"unit": unit},
            }
            for phase in _PHASES
        ]
    return values


def transaction_events_201(updates: int = 10) -> list[Template]:
    """Started, `updates` x Updated with twelve values, Ended. Slots: timestamp, (register,) transaction id."""

    def event(kind: str, reason: str, sequence: int, **more: object) -> Template:
        payload: dict[str, object] = {
            "eventType": kind,
            "timestamp": TIMESTAMP,
            "triggerReason": reason,
            "seqNo": sequence,
        }
        register = "meterValue" in more
        if register:
            payload["meterValue"] = more.pop("meterValue")
        payload["transactionInfo"] = {"transactionId": TRANSACTION, "chargingState": "Charging"}
        payload.update(more)
        slots = (TIMESTAMP, REGISTER, TRANSACTION) if register else (TIMESTAMP, TRANSACTION)
        return template("TransactionEvent", payload, *slots)

    # The station's sample carries the time of the last full minute; the slot is the event's own.
    values = [{"timestamp": "2026-01-01T00:00:01.000Z", "sampledValue": _sampled_values_201()}]
    evse = {"id": 1, "connectorId": 1}
    token = {"idToken": "BENCH-TOKEN", "type": "ISO14443"}
    register_only = [
        {
            "timestamp": "2026-01-01T00:00:01.000Z",
            "sampledValue": [{"value": int(REGISTER), "context": context}],
        }
        for context in ("Transaction.Begin", "Transaction.End")
    ]
    return [
        event("Started", "Authorized", 0, meterValue=register_only[:1], evse=evse, idToken=token),
        *(event("Updated", "MeterValuePeriodic", number, meterValue=values) for number in range(1, updates + 1)),
        event("Ended", "EVDeparted", updates + 1, meterValue=register_only[1:]),
    ]


def mix_16(values: int = 10) -> dict[str, Template]:
    """The frames of the 1.6 mix by name, with slots for transaction id, timestamp and register."""
    sampled = [
        {key: str(value) if key == "value" else value for key, value in sample.items() if key != "unitOfMeasure"}
        | {"unit": str(sample["unitOfMeasure"]["unit"])}  # type: ignore[index]
        for sample in _sampled_values_201()
    ]
    return {
        "status": template(
            "StatusNotification",
            {"connectorId": 1, "errorCode": "NoError", "status": "Charging", "timestamp": TIMESTAMP},
            TIMESTAMP,
        ),
        "heartbeat": template("Heartbeat", {}),
        "start": template(
            "StartTransaction",
            {"connectorId": 1, "idTag": "BENCH-TOKEN", "timestamp": TIMESTAMP, "meterStart": int(REGISTER)},
            TIMESTAMP,
            REGISTER,
        ),
        "meter": template(
            "MeterValues",
            {
                "connectorId": 1,
                "transactionId": int(TRANSACTION_16),
                "meterValue": [{"timestamp": TIMESTAMP, "sampledValue": sampled}],
            },
            TRANSACTION_16,
            TIMESTAMP,
            REGISTER,
        ),
        "stop": template(
            "StopTransaction",
            {
                "transactionId": int(TRANSACTION_16),
                "timestamp": TIMESTAMP,
                "meterStop": int(REGISTER),
                "reason": "EVDisconnected",
            },
            TRANSACTION_16,
            TIMESTAMP,
            REGISTER,
        ),
    }


BOOT_201 = template(
    "BootNotification",
    {
        "reason": "PowerUp",
        "chargingStation": {"model": "Bench One", "vendorName": "Busbar", "firmwareVersion": "1.0"},
    },
)
BOOT_16 = template("BootNotification", {"chargePointModel": "Bench One", "chargePointVendor": "Busbar"})
