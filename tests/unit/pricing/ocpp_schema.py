"""Types of the OCPP 2.1 JSON schemas, as validators."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

import jsonschema_rs


@cache
def schema(message: str, type_name: str) -> Any:
    """The validator of a type such as `TariffType` within a message such as `SetDefaultTariffRequest`."""
    text = (files("ocpp.v21") / "schemas" / f"{message}.json").read_text(encoding="utf-8-sig")
    whole = json.loads(text)
    return jsonschema_rs.validator_for(
        {"$schema": whole["$schema"], "$ref": f"#/definitions/{type_name}", "definitions": whole["definitions"]}
    )
