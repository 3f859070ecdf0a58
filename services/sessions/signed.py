"""Signed meter values: kept byte for byte, and read where their format is known.

Spec: OCPP 1.6 signed meter values whitepaper v1.0; OCPP 2.0.1 Part 2 SignedMeterValueType; OCMF 1.0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from services.sessions.units import LARGEST, MICRO, SampleKind

_UNIT_MICRO = {"kwh": 1000 * MICRO, "wh": MICRO}
_OBIS = re.compile(r"(?:.*:)?0*([0-9a-z]+)\.0*([0-9a-z]+)")
_IMPORTED = frozenset(("1", "98", "b0", "b1", "b2", "b3"))
"""OBIS group C of imported active energy; 98 and B0 to B3 are OCMF's. Its group D is 8: a time integral."""


@dataclass(frozen=True, slots=True)
class SignedReading:
    """One piece of signed data, as it came."""

    at_ms: int | None
    """The station's time of the meter value that holds it."""
    context: str
    data: str
    """The signed data, byte for byte: trailing zeros are signed as well."""
    encoding_method: str
    signing_method: str
    public_key: str
    index: int
    """Its place among the samples of its meter value."""


@dataclass(frozen=True, slots=True)
class SignedRegisters:
    """What signed data says of the energy register."""

    begin_uwh: int | None
    end_uwh: int | None
    other_uwh: int | None
    """A register that is marked neither as the begin nor as the end of a transaction."""


def signed_from_16(kind: SampleKind, at_ms: int | None, data: Any, index: int) -> SignedReading:
    """1.6 puts JSON text into `value`; stations in the field put the bare signed text there."""
    text = data if isinstance(data, str) else ""
    wrapper: Any = None
    if text.lstrip()[:1] == "{":
        try:
            wrapper = orjson.loads(text)
        except orjson.JSONDecodeError:
            wrapper = None
    if isinstance(wrapper, dict) and isinstance(wrapper.get("signedMeterData"), str):
        return signed_from_2x(kind, at_ms, wrapper, index)
    encoding = "OCMF" if text.startswith("OCMF|") else ""
    return SignedReading(at_ms, kind.context, text, encoding, "", "", index)


def signed_from_2x(kind: SampleKind, at_ms: int | None, data: Any, index: int) -> SignedReading:
    """A SignedMeterValueType; members that are absent or no texts are empty."""
    members = data if isinstance(data, dict) else {}

    def text(name: str) -> str:
        value = members.get(name)
        return value if isinstance(value, str) else ""

    return SignedReading(
        at_ms,
        kind.context,
        text("signedMeterData"),
        text("encodingMethod"),
        text("signingMethod"),
        text("publicKey"),
        index,
    )


def signed_registers(reading: SignedReading) -> SignedRegisters | None:
    """The import registers in OCMF data; `None` for other formats and for data that cannot be read.

    Base64 around OCMF is not undone here: what is signed is the text as it came.
    """
    if not reading.data.startswith("OCMF|"):
        return None
    payload, _, _ = reading.data[5:].rpartition("|")
    try:
        entries = orjson.loads(payload or reading.data[5:]).get("RD")
    except (orjson.JSONDecodeError, AttributeError):
        return None
    if not isinstance(entries, list):
        return None
    begin = end = other = None
    for entry in _completed(entries):
        register = _register(entry)
        if register is None:
            continue
        mark = str(entry.get("TX", ""))[:1]
        if mark == "B":
            begin = register if begin is None else begin
        elif mark in ("E", "L", "R", "A", "P"):
            end = register
        else:
            other = register
    if begin is None and end is None and other is None:
        return None
    return SignedRegisters(begin, end, other)


def _completed(entries: list[Any]) -> list[dict[str, Any]]:
    """The entries as objects; members that an entry leaves out are those of the entry before (OCMF 1.0, table 4)."""
    whole = []
    known: dict[str, Any] = {}
    for entry in entries:
        if isinstance(entry, dict):
            known = {**{k: v for k, v in known.items() if k in ("RI", "RU", "RT")}, **entry}
            whole.append(known)
    return whole


def _register(entry: dict[str, Any]) -> int | None:
    identifier = str(entry.get("RI", "")).casefold()
    obis = _OBIS.match(identifier)
    if identifier and not (obis and obis[1] in _IMPORTED and obis[2] == "8"):
        return None
    unit = _UNIT_MICRO.get(str(entry.get("RU", "")).strip().casefold())
    value = entry.get("RV")
    if unit is None or isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = Decimal(value.strip() if isinstance(value, str) else repr(value))
        micro = int((number * unit).to_integral_value()) if number.is_finite() else None
    except (InvalidOperation, ValueError):
        return None
    return micro if micro is not None and 0 <= micro <= LARGEST else None
