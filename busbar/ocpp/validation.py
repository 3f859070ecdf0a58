"""Payloads against the official JSON schemas, which the PyPI package `ocpp` carries.

Validators are compiled once, on first use. Inbound they are lenient about fields that the schema does not know
(vendors add some, and nothing is lost by keeping them) and about `multipleOf`; outbound they are strict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson

from busbar.ocpp.errors import OcppError, Problem, error_code
from busbar.ocpp.versions import Version

Schema = dict[str, Any]
SchemaError = jsonschema_rs.ValidationError
_Kind = jsonschema_rs.ValidationErrorKind

_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**63 - 1
_SHOWN_OPTIONS = 8


@cache
def _package_folder() -> Path:
    spec = find_spec("ocpp")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("the package ocpp, which carries the OCPP schemas, is not installed")
    return Path(spec.submodule_search_locations[0])


def _schema_path(version: Version, action: str, *, response: bool) -> Path:
    folder = _package_folder() / version.label / "schemas"
    if response:
        return folder / f"{action}Response.json"
    path = folder / f"{action}Request.json"
    # 1.6 names requests by the bare action, and so is 2.1's only SEND.
    return path if path.exists() else folder / f"{action}.json"


@cache
def schema_names(version: Version) -> frozenset[str]:
    """The file names, without `.json`, of the version's schemas."""
    return frozenset(path.stem for path in (_package_folder() / version.label / "schemas").glob("*.json"))


def load_schema(version: Version, action: str, *, response: bool) -> Schema:
    """The official schema of a request or response. Raises `KeyError` if the version has no such action."""
    path = _schema_path(version, action, response=response)
    # The names come from the wire: only files that were listed are opened.
    if path.stem not in schema_names(version):
        raise KeyError(f"OCPP {version} has no schema {path.stem}")
    schema: Schema = orjson.loads(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    return schema


@cache
def strict_validator(version: Version, action: str, response: bool = False) -> jsonschema_rs.Validator:
    """For what we send: the schema as it is. Raises `KeyError`."""
    # Draft 4 for all: there 1.0 is no integer, as in Avro. The schemas use nothing that came later.
    return jsonschema_rs.Draft4Validator(_bounded(load_schema(version, action, response=response)))


@cache
def lenient_validator(version: Version, action: str, response: bool = False) -> jsonschema_rs.Validator:
    """For what stations send: unknown fields pass, and so does any precision. Raises `KeyError`."""
    schema = load_schema(version, action, response=response)
    return jsonschema_rs.Draft4Validator(_lenient(_bounded(schema)))


def request_check(version: Version, action: str) -> Callable[[Any], bool]:
    """The fastest way to ask whether the payload of a station's CALL is valid. Raises `KeyError`."""
    return lenient_validator(version, action).is_valid


def _bounded(schema: Any) -> Any:
    """Limit integers to 64 bits, which is what Avro's long and Postgres' bigint hold."""
    if isinstance(schema, list):
        return [_bounded(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    bounded = {name: _bounded(value) for name, value in schema.items() if name not in ("$schema", "$id")}
    if bounded.get("type") == "integer":
        bounded.setdefault("minimum", _MIN_INTEGER)
        bounded.setdefault("maximum", _MAX_INTEGER)
    return bounded


def _lenient(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_lenient(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    dropped = set()
    if schema.get("type") == "number":
        dropped.add("multipleOf")
    if schema.get("additionalProperties") is False:
        dropped.add("additionalProperties")
    return {name: _lenient(value) for name, value in schema.items() if name not in dropped}


def validate_request(version: Version, action: str, payload: Any, *, strict: bool = False) -> None:
    """Check the payload of a CALL or SEND, in either direction.

    Args:
        strict: For what we send: unknown fields are refused as well.

    Raises:
        OcppError: With the code that the version spells; NotImplemented if it has no such action.
    """
    _validate(version, action, payload, response=False, strict=strict)


def validate_response(version: Version, action: str, payload: Any, *, strict: bool = False) -> None:
    """Check the payload of a CALLRESULT to this action, in either direction. Raises `OcppError`."""
    _validate(version, action, payload, response=True, strict=strict)


def _validate(version: Version, action: str, payload: Any, *, response: bool, strict: bool) -> None:
    try:
        validator = (strict_validator if strict else lenient_validator)(version, action, response)
    except KeyError:
        code = error_code(version, Problem.UNKNOWN_ACTION)
        raise OcppError(code, f"OCPP {version} has no action of this name") from None
    if not validator.is_valid(payload):
        raise describe(version, next(validator.iter_errors(payload)))


def iter_schema_errors(version: Version, action: str, payload: Any, *, response: bool = False) -> Iterator[SchemaError]:
    """Every way in which the payload breaks the lenient schema."""
    return lenient_validator(version, action, response).iter_errors(payload)


def describe(version: Version, error: SchemaError) -> OcppError:
    """The CALLERROR for a schema error: what is wrong and where, and never the value itself."""
    problem, what = _problem(error.kind)
    return OcppError(error_code(version, problem), f"{json_path(error.instance_path)} {what}")


def json_path(path: list[str | int]) -> str:
    """`$.meterValue[0].timestamp`; over-long names are cut."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part[:50]}" for part in path)
    return "$" + "".join(parts)


def _problem(kind: _Kind) -> tuple[Problem, str]:
    """Which table row a schema error belongs to, and the rest of a sentence that begins with the field."""
    match kind:
        case _Kind.Required(property=name):
            return Problem.OCCURRENCE, f"lacks the required field {name!r}"
        case _Kind.Type(types=types):
            return Problem.TYPE, f"is not of type {' or '.join(types)}"
        case _Kind.Enum(options=options):
            return Problem.PROPERTY, f"is none of {_options(options)}"
        case _Kind.MaxLength(limit=limit):
            return Problem.PROPERTY, f"is longer than {limit} characters"
        case _Kind.MinLength(limit=limit):
            return Problem.PROPERTY, f"is shorter than {limit} characters"
        case _Kind.Minimum(limit=limit):
            return Problem.PROPERTY, f"is below {limit}"
        case _Kind.Maximum(limit=limit):
            return Problem.PROPERTY, f"is above {limit}"
        case _Kind.MultipleOf(multiple_of=step):
            return Problem.PROPERTY, f"is not a multiple of {step}"
        case _Kind.Format(format=name):
            return Problem.PROPERTY, f"is not a valid {name}"
        case _Kind.MinItems(limit=limit):
            return Problem.OCCURRENCE, f"has fewer than {limit} members"
        case _Kind.MaxItems(limit=limit):
            return Problem.OCCURRENCE, f"has more than {limit} members"
        case _Kind.AdditionalProperties(unexpected=names):
            shown = ", ".join(repr(name[:50]) for name in names[:_SHOWN_OPTIONS])
            return Problem.SYNTAX, f"has fields that the action does not have: {shown}"
        case _:
            return Problem.PROPERTY, f"breaks the schema's {kind.name}"


def _options(options: list[Any]) -> str:
    shown = ", ".join(str(option) for option in options[:_SHOWN_OPTIONS])
    return f"{shown} ..." if len(options) > _SHOWN_OPTIONS else shown
