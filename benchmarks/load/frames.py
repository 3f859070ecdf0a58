"""Prepared OCPP-J frames: WebSocket frames of fixed length with slots for what differs between two sendings.

A client frame must be masked (RFC 6455 §5.3); a masking key of zero leaves the payload as it is, so that a frame
is made once, header and mask included, and only its slots are written again.
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
    length = len(payload)
    if length < 126:
        return bytes((opcode, _MASKED | length)) + _NO_MASK + payload
    if length < 65536:
        return bytes((opcode, _MASKED | 126)) + struct.pack(">H", length) + _NO_MASK + payload
    return bytes((opcode, _MASKED | 127)) + struct.pack(">Q", length) + _NO_MASK + payload


@dataclass(frozen=True, slots=True)
class Template:
    """A CALL ready for the wire. All stations write into the same bytes, which are valid until the next `fill`."""

    frame: bytearray
    slots: tuple[slice, ...]
    """Where the message id stands, and whatever else differs."""

    def fill(self, *values: bytes) -> bytearray:
        """The frame with these values, the first being the message id. Each has the width of its slot."""
        frame = self.frame
        for slot, value in zip(self.slots, values, strict=True):
            frame[slot] = value
        return frame


def template(action: str, payload: object, *slots: str) -> Template:
    """Prepare a CALL.

    Args:
        payload: JSON-able; the texts of `slots` occur in its JSON text once each, in this order.
    """
    message_id = "#" * ID_LENGTH
    frame = websocket_frame(json.dumps([2, message_id, action, payload], separators=(",", ":")).encode())
    places, at = [], 0
    for slot in (message_id, *slots):
        start = frame.find(slot.encode(), at)
        if start < 0:
            raise ValueError(f"{action}: no slot {slot!r} in the payload")
        at = start + len(slot)
        places.append(slice(start, at))
    return Template(bytearray(frame), tuple(places))


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
    """Started, `updates` x Updated with twelve values, Ended. Slots: timestamp, the same, register, transaction id."""

    def event(kind: str, reason: str, sequence: int, values: list[dict[str, object]], **more: object) -> Template:
        payload = {
            "eventType": kind,
            "timestamp": TIMESTAMP,
            "triggerReason": reason,
            "seqNo": sequence,
            "meterValue": [{"timestamp": TIMESTAMP, "sampledValue": values}],
            "transactionInfo": {"transactionId": TRANSACTION, "chargingState": "Charging"},
            **more,
        }
        return template("TransactionEvent", payload, TIMESTAMP, TIMESTAMP, REGISTER, TRANSACTION)

    def register(context: str) -> list[dict[str, object]]:
        return [{"value": int(REGISTER), "context": context}]

    evse = {"id": 1, "connectorId": 1}
    token = {"idToken": "BENCH-TOKEN", "type": "ISO14443"}
    values = _sampled_values_201()
    return [
        event("Started", "Authorized", 0, register("Transaction.Begin"), evse=evse, idToken=token),
        *(event("Updated", "MeterValuePeriodic", number, values) for number in range(1, updates + 1)),
        event("Ended", "EVDeparted", updates + 1, register("Transaction.End")),
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
