"""An example for every topic: `schemas/examples/<topic>.json`, in the form that `readable` shows records in.

Those of action topics are made here, from the JSON schema of the action and the values in
`schemas/example-values.toml`; those of `csms.*` topics are written by hand.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from functools import cache
from typing import Any

from busbar.avro.conversion import request_schema
from busbar.avro.readable import parse_readable
from busbar.ocpp.versions import Version
from busbar.resources import schemas_folder

_KEPT_DEPTH = 4
"""Optional objects nested deeper than this are left out."""


def read_example(topic: str) -> dict[str, Any]:
    """The example of a topic, as text that a person can read."""
    path = schemas_folder() / "examples" / f"{topic}.json"
    example: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return example


def example_value(topic: str, schema: str) -> dict[str, Any]:
    """The example of a topic as `encode` takes it: instants in milliseconds, decimals as `Decimal`."""
    return parse_readable(schema, read_example(topic))


def action_example(version: Version, action: str) -> dict[str, Any]:
    """The example of an action's topic, made from its JSON schema."""
    meta = {**_values()["meta"], "ocpp_version": version.value}
    order = ("station_id", "connection_id", "edge", "edge_partition", "ocpp_version", "sequence", "message_id")
    return {
        "meta": {name: meta[name] for name in (*order, "received_at")},
        "payload": _Maker(version, action).object(request_schema(version, action), 0),
    }


@cache
def _values() -> dict[str, Any]:
    with (schemas_folder() / "example-values.toml").open("rb") as file:
        return tomllib.load(file)


class _Maker:
    def __init__(self, version: Version, action: str) -> None:
        self.version = version
        self.root = request_schema(version, action)
        own = _values().get(version.label, {}).get(action, {})
        self.values: dict[str, Any] = {**_values()["members"], **own}
        self.omitted = {*_values()["members"]["omit"], *own.get("omit", ())}

    def resolve(self, source: Mapping[str, Any]) -> Mapping[str, Any]:
        while "$ref" in source:
            source = self.root["definitions"][source["$ref"].removeprefix("#/definitions/")]
        return source

    def object(self, source: Mapping[str, Any], depth: int) -> dict[str, Any]:
        required = set(source.get("required", ()))
        members = source.get("properties", {})
        made = {}
        for name in sorted(members, key=lambda name: name not in required):
            member = self.resolve(members[name])
            if name in required or (name not in self.omitted and self.is_kept(name, member, depth)):
                made[name] = self.member(name, member, depth + 1)
        return made

    def is_kept(self, name: str, source: Mapping[str, Any], depth: int) -> bool:
        if source.get("type") == "array":
            return self.is_kept(name, self.resolve(source["items"]), depth)
        if source.get("type") == "object":
            return depth < _KEPT_DEPTH and "properties" in source
        return "enum" in source or self.value(name, source) is not None

    def member(self, name: str, source: Mapping[str, Any], depth: int) -> Any:
        match source.get("type"):
            case "object":
                return self.object(source, depth)
            case "array":
                item = self.member(name, self.resolve(source["items"]), depth)
                return [item] * max(1, source.get("minItems", 1))
        value = self.value(name, source)
        if value is not None:
            return value
        if "enum" in source:
            return source["enum"][0]
        if source.get("format") == "date-time":
            return self.values["timestamp"]
        return {"string": name, "integer": 1, "number": 1.5, "boolean": True}[source.get("type", "string")]

    def value(self, name: str, source: Mapping[str, Any]) -> Any:
        """The table's value for a member, if there is one that its schema takes."""
        kind = source.get("type", "string")
        for key in (f"{name}.{self.version.label}", f"{name}.{kind}", name):
            value = self.values.get(key)
            if value is not None and _takes(source, value):
                return float(value) if kind == "number" else value
        return None


def _takes(source: Mapping[str, Any], value: Any) -> bool:
    """Whether a plain value is of a member's type and within its bounds."""
    match source.get("type", "string"):
        case "string":
            fits = isinstance(value, str) and len(value) <= source.get("maxLength", len(value))
            if source.get("format") == "date-time":
                fits = fits and value[10:11] == "T"
        case "boolean":
            fits = isinstance(value, bool)
        case "integer" | "number" as kind:
            fits = isinstance(value, int if kind == "integer" else (int, float)) and not isinstance(value, bool)
            fits = fits and source.get("minimum", value) <= value <= source.get("maximum", value)
        case _:
            fits = False
    return fits and value in source.get("enum", [value])
