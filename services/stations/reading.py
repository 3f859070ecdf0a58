"""Reading payloads leniently, and making what was read fit to be stored.

Payloads have been validated, but what is unknown to the schema, and some of what is known, can still be odd:
a NUL that PostgreSQL does not take, a number beyond its integers, a text where an object is expected.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson

_MAX_INTEGER = 2**63 - 1
_NUL = "\x00"
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def text(value: Any) -> str | None:
    """A string that PostgreSQL can keep; `None` for anything but a string."""
    if not isinstance(value, str):
        return None
    return value.replace(_NUL, _REPLACEMENT) if _NUL in value else value


def integer(value: Any) -> int | None:
    """A whole number, cut to 64 bits; `None` for anything else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return max(-_MAX_INTEGER - 1, min(_MAX_INTEGER, value))


def flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def mapping(value: Any) -> Mapping[str, Any]:
    """The object itself; an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Mapping[str, Any]]:
    """The objects in a list; nothing in place of anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def json_text(value: Any) -> str:
    """JSON text that PostgreSQL's `jsonb` can keep."""
    encoded = _dump(value)
    return _dump(_without_nul(value)) if "\\u0000" in encoded else encoded


def _dump(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # a number of more than 64 bits, which orjson does not write
        return json.dumps(value, default=str)


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(_NUL, _REPLACEMENT)
    if isinstance(value, dict):
        return {_without_nul(name): _without_nul(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    return value
