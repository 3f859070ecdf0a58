"""From the JSON schemas of OCPP to Avro: one record per station-to-CSMS action.

The JSON schemas come with the package `ocpp`; only names and types are taken from them.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from busbar.avro.errors import SchemaError
from busbar.avro.schema import EXTRA, JSON_TEXT
from busbar.ocpp.versions import Version

_PRIMITIVES = {"string": "string", "integer": "long", "number": "double", "boolean": "boolean"}
_LAST = ("customData",)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def ocpp_schemas_folder(version: Version) -> Path:
    """Where the package `ocpp` keeps the JSON schemas of a version."""
    spec = importlib.util.find_spec("ocpp")
    if spec is None or spec.origin is None:
        raise SchemaError("the package ocpp is not installed: it brings the JSON schemas of OCPP")
    return Path(spec.origin).parent / version.label / "schemas"


def request_schema(version: Version, action: str) -> dict[str, Any]:
    """The JSON schema of an action's request. Raises `SchemaError` if the version has no such action."""
    return _read(version, (f"{action}Request.json", f"{action}.json"))


def response_schema(version: Version, action: str) -> dict[str, Any]:
    """The JSON schema of an action's response. Raises `SchemaError` if it has none, as a SEND has not."""
    return _read(version, (f"{action}Response.json",))


def requests(version: Version) -> set[str]:
    """Every action of the version, in both directions."""
    stems = {path.stem for path in ocpp_schemas_folder(version).glob("*.json")}
    return {stem.removesuffix("Request") for stem in stems if not stem.endswith("Response")}


def _read(version: Version, names: tuple[str, ...]) -> dict[str, Any]:
    for name in names:
        path = ocpp_schemas_folder(version) / name
        if path.is_file():
            schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
            return schema
    raise SchemaError(f"OCPP {version} has no schema {names[0]}")


def action_record(version: Version, action: str) -> dict[str, Any]:
    """The Avro schema of an action's topic: `meta` and the typed payload, in Avro's JSON form."""
    namespace = f"ocpp.{version.label}"
    converter = _Converter(request_schema(version, action))
    payload = converter.record(converter.root, f"{action}Request", "")
    return {
        "type": "record",
        "name": action,
        "namespace": namespace,
        "doc": f"{action} of OCPP {version}, as a station sent it.",
        "fields": [
            {"name": "meta", "type": "csms.Meta", "doc": "Where it came from."},
            {"name": "payload", "type": {**payload, "namespace": f"{namespace}.{action}_types"}},
        ],
    }


class _Converter:
    """Converts one JSON schema; records get the names of definitions, or of the members that hold them."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self.root = root
        self.shapes: dict[str, Any] = {}
        """What stands behind each record name: a reference or the JSON schema itself."""

    def type(self, source: Mapping[str, Any], name: str, owner: str) -> Any:
        if "$ref" in source:
            return self.reference(source["$ref"], owner)
        kind = source.get("type")
        if kind in _PRIMITIVES:
            return _PRIMITIVES[kind]
        if kind == "array":
            items = source.get("items", {})
            return {"type": "array", "items": self.type(items, name, owner)}
        if kind == "object" and source.get("properties"):
            return self.record(source, name[:1].upper() + name[1:], owner)
        return JSON_TEXT

    def reference(self, target: str, owner: str) -> Any:
        name = target.removeprefix("#/definitions/")
        definition = self.root.get("definitions", {}).get(name)
        if definition is None:
            raise SchemaError(f"{target} leads nowhere")
        if name == "CustomDataType" or definition.get("type") != "object":
            return JSON_TEXT if name == "CustomDataType" else self.type(definition, name, owner)
        return self.record(definition, name, owner, shape=target)

    def record(self, source: Mapping[str, Any], name: str, owner: str, shape: Any = None) -> Any:
        shape = shape or source
        if self.shapes.get(name, shape) != shape:
            name = f"{owner}{name}"  # two members of one name hold different objects
        if name in self.shapes:
            if self.shapes[name] != shape:
                raise SchemaError(f"three different objects are called {name}")
            return name
        self.shapes[name] = shape
        fields = self.fields(source, name)
        return {"type": "record", "name": name, "fields": fields}

    def fields(self, source: Mapping[str, Any], owner: str) -> list[dict[str, Any]]:
        properties: Mapping[str, Any] = source.get("properties", {})
        required = set(source.get("required", ()))

        def place(name: str) -> tuple[bool, bool]:
            return name in _LAST, name not in required

        taken = {EXTRA}
        fields = [
            self.field(name, properties[name], name in required, owner, taken) for name in sorted(properties, key=place)
        ]
        return [*fields, {"name": EXTRA, "type": {"type": "map", "values": JSON_TEXT}, "default": {}}]

    def field(
        self, name: str, source: Mapping[str, Any], required: bool, owner: str, taken: set[str]
    ) -> dict[str, Any]:
        avro_name = _avro_name(name, taken)
        type_ = self.type(source, name, owner)
        entry: dict[str, Any] = {"name": avro_name, "type": type_}
        if not required:
            entry |= {"type": ["null", type_], "default": None}
        if avro_name != name:
            entry["ocppName"] = name
        doc = self.doc(source)
        return entry | {"doc": doc} if doc else entry

    def doc(self, source: Mapping[str, Any]) -> str:
        """The values of an enumeration, and what a string means; nothing where the name says it all."""
        while "$ref" in source:
            source = self.root["definitions"][source["$ref"].removeprefix("#/definitions/")]
        if "enum" in source:
            return f"One of {', '.join(map(str, source['enum']))}."
        if source.get("format") == "date-time":
            return "A date and time, as the station wrote it."
        return ""


def _avro_name(name: str, taken: set[str]) -> str:
    """A name that Avro allows and that no other field of the record has."""
    candidate = re.sub(r"[^A-Za-z0-9_]", "_", name)
    if not _NAME.fullmatch(candidate):
        candidate = f"_{candidate}"
    while candidate in taken:
        candidate += "_"
    taken.add(candidate)
    return candidate
