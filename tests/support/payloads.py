"""Payloads made from the official schemas: the smallest, the fullest, and any."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from hypothesis import strategies as st

from busbar.ocpp.validation import load_schema
from busbar.ocpp.versions import Version

Schema = dict[str, Any]

MOMENT = "2026-03-01T12:00:00.000Z"
_MAX_DEPTH = 12


def smallest(version: Version, action: str, *, response: bool = False) -> Any:
    """The payload with required fields only."""
    schema = load_schema(version, action, response=response)
    return _example(schema, schema, full=False, depth=0)


def fullest(version: Version, action: str, *, response: bool = False) -> Any:
    """The payload with every field that the schema has, `customData` apart."""
    schema = load_schema(version, action, response=response)
    return _example(schema, schema, full=True, depth=0)


@cache
def any_payload(version: Version, action: str, *, response: bool = False) -> st.SearchStrategy[Any]:
    """Payloads that are valid by the schema."""
    schema = load_schema(version, action, response=response)
    return _strategy(schema, schema, 0)


def _resolve(root: Schema, schema: Schema) -> Schema:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: Any = root
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return dict(found)


def _properties(schema: Schema, root: Schema) -> dict[str, Schema]:
    return {name: _resolve(root, value) for name, value in schema.get("properties", {}).items() if name != "customData"}


def _example(schema: Schema, root: Schema, *, full: bool, depth: int) -> Any:
    schema = _resolve(root, schema)
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            required = set(schema.get("required", []))
            return {
                name: _example(value, root, full=full, depth=depth + 1)
                for name, value in _properties(schema, root).items()
                if name in required or (full and depth < _MAX_DEPTH)
            }
        case "array":
            count = max(1, schema.get("minItems", 0)) if full or schema.get("minItems") else 0
            return [_example(schema["items"], root, full=full, depth=depth + 1) for _ in range(count)]
        case "string":
            return _text(schema)
        case "integer":
            return _within(1, schema)
        case "number":
            return _within(1.5, schema)
        case "boolean":
            return True
        case _:
            return {"any": "value"}


def _within(number: float, schema: Schema) -> float:
    lowest, highest = schema.get("minimum", number), schema.get("maximum", number)
    return type(number)(min(max(number, lowest), highest))


def _text(schema: Schema) -> str:
    if schema.get("format") == "date-time":
        return MOMENT
    if schema.get("format") == "uri":
        return "https://example.com/file"
    if "pattern" in schema:
        return _matching(schema["pattern"])
    return "text"[: schema.get("maxLength", 4)].ljust(schema.get("minLength", 0), "x")


def _matching(pattern: str) -> str:
    for candidate in ("12:00", "2026-03-01", "1", "A"):
        if re.search(pattern, candidate):
            return candidate
    raise AssertionError(f"no example for the pattern {pattern}")


def _strategy(schema: Schema, root: Schema, depth: int) -> st.SearchStrategy[Any]:
    schema = _resolve(root, schema)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "object":
            required = set(schema.get("required", []))
            fields = {
                name: _strategy(value, root, depth + 1)
                for name, value in _properties(schema, root).items()
                if name in required or depth < _MAX_DEPTH
            }
            mandatory = {name: value for name, value in fields.items() if name in required}
            optional = {name: value for name, value in fields.items() if name not in required}
            return st.fixed_dictionaries(mandatory, optional=optional)
        case "array":
            least = schema.get("minItems", 0)
            most = min(schema.get("maxItems", least + 2), least + 2)
            return st.lists(_strategy(schema["items"], root, depth + 1), min_size=least, max_size=most)
        case "string":
            return _text_strategy(schema)
        case "integer":
            least, most = int(schema.get("minimum", -(2**31))), int(schema.get("maximum", 2**31))
            return st.integers(least, most)
        case "number":
            lowest, highest = schema.get("minimum", -1e9), schema.get("maximum", 1e9)
            return st.floats(lowest, highest) | st.integers(int(lowest), int(highest))
        case "boolean":
            return st.booleans()
        case _:
            return st.none() | st.text(max_size=10) | st.dictionaries(st.text(max_size=5), st.integers(), max_size=2)


def _text_strategy(schema: Schema) -> st.SearchStrategy[str]:
    if schema.get("format") == "date-time":
        return st.sampled_from((MOMENT, "1970-01-01T00:00:00Z", "2026-03-01T12:00:00+02:00"))
    if schema.get("format") == "uri":
        return st.just("https://example.com/file")
    if "pattern" in schema:
        return st.just(_matching(schema["pattern"]))
    most = min(schema.get("maxLength", 20), 20)
    least = min(schema.get("minLength", 0), most)
    return st.text(min_size=least, max_size=most)
