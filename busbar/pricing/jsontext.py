"""JSON text with exact numbers: every fraction is read into a Decimal and written back digit for digit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any

from busbar.pricing.problems import Problem, TariffError

MAX_BYTES = 4 * 1024 * 1024
MAX_EXPONENT = 100
_MOST_NAMES = 4_096
_LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class Written:
    """A part of a document that has been written already."""

    text: str
    """JSON."""


def parse_json(text: str | bytes) -> Any:
    """Read JSON; fractions and exponents become `Decimal`, whole numbers `int`.

    Raises:
        TariffError: Not JSON, too long, a key given twice, NaN, Infinity, or a number beyond any reason.
    """
    if len(text) > MAX_BYTES:
        raise TariffError([Problem("$", f"is longer than {MAX_BYTES} bytes")])
    try:
        return json.loads(text, parse_float=_number, parse_constant=_refuse, object_pairs_hook=_pairs)
    except RecursionError:
        raise TariffError([Problem("$", "is nested too deeply")]) from None
    except TariffError:
        raise
    except ValueError as error:
        raise TariffError([Problem("$", f"is not JSON: {error}")]) from None


def serialize_json(value: Any, *, sort_keys: bool = False) -> str:
    """Write JSON with Decimals as plain numbers, without exponents and without passing through a float.

    Raises:
        TypeError: A value that JSON has no word for, a float among them, or a number beyond any reason.
    """
    parts: list[str] = []
    _write(value, parts, sort_keys)
    return "".join(parts)


def _number(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except ArithmeticError:
        value = Decimal("NaN")
    if not _reasonable(value):
        raise TariffError([Problem("$", f"{text[:40]} is not a number that can be priced")])
    return value


def _reasonable(value: Decimal) -> bool:
    """Whether writing it out takes some hundred digits at most: 1e999999999 is a short way to ask for a gigabyte."""
    return value.is_finite() and abs(value.adjusted()) <= MAX_EXPONENT and len(value.as_tuple().digits) <= MAX_EXPONENT


def _refuse(name: str) -> Any:
    raise TariffError([Problem("$", f"{name} is not a JSON number")])


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise TariffError([Problem("$", f"the key {twice!r} is given twice in one object")])
    return result


def _write(value: Any, parts: list[str], sort_keys: bool) -> None:
    # In the order of how many there are of each; dictionaries and lists are seen at once, and what acts like them late.
    if isinstance(value, str):
        parts.append(encode_basestring(value))
    elif isinstance(value, dict):
        _write_members(sorted(value.items()) if sort_keys else value.items(), parts, sort_keys)
    elif isinstance(value, Decimal):
        parts.append(_digits(value))
    elif isinstance(value, list):
        _write_items(value, parts, sort_keys)
    elif value is None or value is True or value is False:
        parts.append({None: "null", True: "true", False: "false"}[value])
    elif isinstance(value, int):
        if value.bit_length() > 4 * MAX_EXPONENT:
            raise TypeError("a whole number is too long")
        parts.append(str(value))
    elif isinstance(value, Written):
        parts.append(value.text)
    elif isinstance(value, Mapping):
        _write_members(sorted(value.items()) if sort_keys else value.items(), parts, sort_keys)
    elif isinstance(value, Sequence):
        _write_items(value, parts, sort_keys)
    else:
        raise TypeError(f"{type(value).__name__} has no place in JSON")


def _write_members(members: Iterable[tuple[str, Any]], parts: list[str], sort_keys: bool) -> None:
    place = len(parts)
    for name, item in members:
        parts.append(_names.get(name) or _remember(name))
        _write(item, parts, sort_keys)
    if len(parts) == place:
        parts.append("{}")
    else:
        parts[place] = "{" + parts[place][1:]
        parts.append("}")


def _write_items(items: Sequence[Any], parts: list[str], sort_keys: bool) -> None:
    separator = "["
    for item in items:
        parts.append(separator)
        _write(item, parts, sort_keys)
        separator = ","
    parts.append("]" if items else "[]")


def _digits(value: Decimal) -> str:
    text = str(value)
    if len(text) <= MAX_EXPONENT and "E" not in text and "e" not in text and value.is_finite():  # as nearly all are
        return text
    if not (value.is_finite() and abs(value.adjusted()) <= MAX_EXPONENT):
        raise TypeError(f"{value} is not a number that can be priced")
    text = format(value, "f")
    if len(text) > MAX_EXPONENT and not _reasonable(value):
        raise TypeError(f"{value} is not a number that can be priced")
    return text


_names: dict[str, str] = {}
"""Names of members as they are written, a comma before and a colon behind. They are few, and come in every document."""


def _remember(name: str) -> str:
    written = f",{encode_basestring(name)}:"
    if len(name) <= _LONGEST_NAME:
        if len(_names) >= _MOST_NAMES:
            _names.clear()
        _names[name] = written
    return written
