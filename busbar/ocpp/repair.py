"""Harmless quirks of stations in the field, and what is done about each.

Nothing here runs for a payload that validates. A repair changes the payload in place to what the station evidently
meant; a tolerated deviation is kept as it was sent. Everything else is refused with the code that the version spells.
The names of the repairs are counted, so that a quirk of a firmware is seen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import islice
from typing import Any

import jsonschema_rs
import orjson

from busbar.ocpp.errors import FrameError
from busbar.ocpp.frames import CALL, CALL_RESULT, Frame, frame_of
from busbar.ocpp.times import parse_timestamp
from busbar.ocpp.validation import SchemaError, describe, iter_schema_errors
from busbar.ocpp.versions import Version

_Kind = jsonschema_rs.ValidationErrorKind

LOSSY = frozenset({"unreadable-value-removed", "fraction-rounded", "transaction-id-unusable"})
"""Repairs after which the frame as it was sent is worth keeping."""

_IDENTITIES = {"idTag", "parentIdTag", "idToken", "additionalIdToken", "messageId", "vendorId"}
_DESCRIPTIONS = {"info", "vendorErrorCode", "techInfo", "techCode", "additionalInfo", "actualValue", "value"}
_DESCRIPTIONS |= {"reasonCode", "statusInfo", "vendorName", "model", "serialNumber", "firmwareVersion", "unit"}
_DESCRIPTIONS |= {"chargePointVendor", "chargePointModel", "chargePointSerialNumber", "chargeBoxSerialNumber"}
_DESCRIPTIONS |= {"meterSerialNumber", "meterType", "iccid", "imsi"}
_SIGNATURES = {"signedMeterData", "signingMethod", "encodingMethod", "publicKey"}

LONG_STRINGS_TOLERATED = frozenset(_IDENTITIES | _DESCRIPTIONS | _SIGNATURES)
"""Fields in which a string may be longer than the schema says: they are compared, read or verified as sent."""

UNKNOWN_OPTIONS_TOLERATED = frozenset(
    {"measurand", "context", "unit", "location", "phase", "format"}
    | {"reason", "stoppedReason", "errorCode", "triggerReason"}
)
"""Fields in which a vendor's own word is kept as it was sent."""

_TOLERANCES = frozenset({"string-too-long", "unknown-option"})
"""Deviations that leave the payload as it is."""

_MAX_ROUNDS = 5
_MAX_ERRORS = 500
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?")
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}
Path = list[str | int]


def repair_request(version: Version, action: str, payload: dict[str, Any]) -> list[str]:
    """Repair in place the payload of a station's CALL that did not validate.

    Returns:
        The names of what was repaired or tolerated, each once.

    Raises:
        OcppError: What is wrong is no known quirk. The payload may have been changed in part.
    """
    return _repair(version, action, payload, response=False)


def repair_response(version: Version, action: str, payload: dict[str, Any]) -> list[str]:
    """As `repair_request`, for a station's answer to a command."""
    return _repair(version, action, payload, response=True)


def _repair(version: Version, action: str, payload: dict[str, Any], *, response: bool) -> list[str]:
    names: dict[str, None] = {}
    for _ in range(_MAX_ROUNDS):
        errors = list(islice(iter_schema_errors(version, action, payload, response=response), _MAX_ERRORS))
        removals: list[Path] = []
        changed = False
        for error in errors:
            name = _repair_one(version, action, payload, error, removals)
            if name is None:
                raise describe(version, error)
            names[name] = None
            changed = changed or name not in _TOLERANCES
        _remove(payload, removals)
        if not changed:
            return list(names)
    raise describe(version, errors[0])


def _repair_one(
    version: Version, action: str, payload: dict[str, Any], error: SchemaError, removals: list[Path]
) -> str | None:
    """Apply the first rule that fits. Returns its name, or `None` if the error is no known quirk."""
    path = error.instance_path
    if version is Version.V16 and action == "StopTransaction" and (name := _stop_transaction(payload, error)):
        return name
    if path and _get(payload, path) is None:
        removals.append(path)
        return "null-removed"
    match error.kind:
        case _Kind.Type(types=types) if path:
            return _fix_type(payload, path, types, removals)
        case _Kind.Enum(options=options):
            return _fix_option(payload, path, options)
        case _Kind.MaxLength() if path and path[-1] in LONG_STRINGS_TOLERATED:
            return "string-too-long"
        case _Kind.Format(format="date-time"):
            return _fix_timestamp(payload, path)
        case _Kind.MinItems() if path and _get(payload, path) == []:
            removals.append(path)
            return "empty-list-removed"
        case _Kind.Required(property="sampledValue") if path and isinstance(path[-1], int):
            removals.append(path)
            return "empty-list-removed"
        case _:
            return None


def _stop_transaction(payload: dict[str, Any], error: SchemaError) -> str | None:
    """A stop must never be refused for its transaction id: the station would replay it for weeks.

    -1 is what stations themselves send for a start that was never answered; the stop is matched by connector and meter.
    """
    missing = isinstance(error.kind, _Kind.Required) and error.kind.property == "transactionId"
    if not missing and error.instance_path != ["transactionId"]:
        return None
    sent = payload.get("transactionId")
    if type(sent) is int and _fits(sent):
        return "transaction-id-unusable"  # by an earlier error about the same field
    if isinstance(sent, str) and _INTEGER.fullmatch(sent.strip()) and _fits(int(sent)):
        return None
    if isinstance(sent, float) and sent.is_integer() and _fits(int(sent)):
        return None
    if sent is not None:
        payload["transactionIdAsSent"] = sent
    payload["transactionId"] = -1
    return "transaction-id-unusable"


def _fix_type(payload: dict[str, Any], path: Path, types: list[str], removals: list[Path]) -> str | None:
    value = _get(payload, path)
    for wanted in types:
        if (fix := _CONVERSIONS.get(wanted)) and (fixed := fix(value, path)) is not None:
            name, new = fixed
            _set(payload, path, new)
            return name
    if types == ["number"] and path[-1] == "value" and len(path) > 2 and path[-3] == "sampledValue":
        removals.append(path[:-1])
        return "unreadable-value-removed"
    return None


def _to_integer(value: Any, path: Path) -> tuple[str, Any] | None:
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()) and _fits(int(value)):
        return "integer-from-string", int(value)
    if isinstance(value, float) and math.isfinite(value) and _fits(int(value)):
        if value.is_integer():
            return "integer-from-float", int(value)
        if path[-1] in ("meterStart", "meterStop"):
            return "fraction-rounded", round(value)
    return None


def _to_number(value: Any, path: Path) -> tuple[str, Any] | None:
    if not isinstance(value, str) or not _NUMBER.fullmatch(value.strip()):
        return None
    number = float(value)
    return ("number-from-string", number) if math.isfinite(number) else None


def _to_string(value: Any, path: Path) -> tuple[str, Any] | None:
    if isinstance(value, bool):
        return "string-from-boolean", "true" if value else "false"
    return ("string-from-number", str(value)) if isinstance(value, int | float) else None


def _to_boolean(value: Any, path: Path) -> tuple[str, Any] | None:
    if isinstance(value, str | int) and str(value).strip().lower() in _BOOLEANS:
        return "boolean-from-text", _BOOLEANS[str(value).strip().lower()]
    return None


def _to_array(value: Any, path: Path) -> tuple[str, Any] | None:
    return ("object-wrapped", [value]) if isinstance(value, dict) else None


_CONVERSIONS: dict[str, Callable[[Any, Path], tuple[str, Any] | None]] = {
    "integer": _to_integer,
    "number": _to_number,
    "string": _to_string,
    "boolean": _to_boolean,
    "array": _to_array,
}


def _fix_option(payload: dict[str, Any], path: Path, options: list[Any]) -> str | None:
    value = _get(payload, path)
    if not isinstance(value, str):
        return None
    wanted = value.strip().strip("\0").casefold()
    for option in options:
        if isinstance(option, str) and option.casefold() == wanted:
            _set(payload, path, option)
            return "option-case"
    if path[-1] in UNKNOWN_OPTIONS_TOLERATED or path[-2:] == ["idToken", "type"]:
        return "unknown-option"
    return None


def _fix_timestamp(payload: dict[str, Any], path: Path) -> str | None:
    try:
        moment = parse_timestamp(_get(payload, path))
    except ValueError:
        return None
    timespec = "milliseconds" if moment.microsecond % 1000 == 0 else "microseconds"
    _set(payload, path, moment.isoformat(timespec=timespec).replace("+00:00", "Z"))
    return "timestamp"


def _fits(value: int) -> bool:
    return -(2**63) <= value < 2**63


def _get(payload: Any, path: Path) -> Any:
    for part in path:
        payload = payload[part]
    return payload


def _set(payload: Any, path: Path, value: Any) -> None:
    _get(payload, path[:-1])[path[-1]] = value


def _remove(payload: dict[str, Any], paths: list[Path]) -> None:
    """Take out members and elements, the last elements of a list first so that indexes stay true."""
    unique = {tuple(path) for path in paths}
    # Names and indexes never share a place in two paths of one payload, so the key compares like with like.
    for path in sorted(unique, key=lambda path: [(isinstance(p, str), p) for p in path], reverse=True):
        del _get(payload, list(path[:-1]))[path[-1]]


def remove_nul(value: Any) -> Any:
    """The value without NUL characters in its strings and names: PostgreSQL's text cannot hold them."""
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, list):
        return [remove_nul(item) for item in value]
    if isinstance(value, dict):
        return {name.replace("\0", ""): remove_nul(item) for name, item in value.items()}
    return value


def repair_frame(text: bytes) -> tuple[Frame, str] | None:
    """The frame that a text evidently is although it cannot be read, with the name of the repair; else `None`.

    Known: a byte order mark before the frame, NULs after it, and null or an empty list for an empty payload.
    """
    trimmed = text.removeprefix(b"\xef\xbb\xbf").strip(b"\0 \t\r\n")
    try:
        value = orjson.loads(trimmed)
    except ValueError:
        return None
    name = "frame-trimmed"
    if isinstance(value, list) and value and value[-1] in (None, []):
        if (len(value), value[0]) not in ((4, CALL), (3, CALL_RESULT)):
            return None
        value[-1] = {}
        name = "payload-null"
    try:
        return frame_of(value), name
    except FrameError:
        return None
