"""The OpenAPI document: what FastAPI makes of the routes, and the command route, which it does not see."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

import busbar
from services.api.command_route import COMMAND_PATH
from services.api.core import DEFAULT_WAIT_SECONDS, MAX_TIMEOUT_SECONDS, MAX_WAIT_SECONDS
from services.api.problems import MEDIA_TYPE, SCHEMA

_DESCRIPTION = """
Stations, sites, id tokens, tariffs, transactions and commands of a charging station management system.

Every request but the probes needs an API key: `Authorization: Bearer bsb_<key id>_<secret>`. A **viewer** reads, an
**operator** also registers stations, keeps tokens and tariffs and sends commands, an **admin** may do everything.

Lists come in pages: `limit` says how many, and `next` of one page is `after` of the following one. Errors are problem
documents (RFC 9457). Instants are RFC 3339 in UTC, energy is in Wh.
"""

_COMMAND_DESCRIPTION = """
`Action` is any CALL from CSMS to station of the station's OCPP version (`GET /v1/actions`); the body is its payload,
and has to be valid by the official schema. The version is that of the station's connection; while it is offline, the
one that it is pinned to, else its last one.

The response comes with the outcome, or with `pending` when `wait` is over; then `GET /v1/commands/{command_id}` tells
the rest.

| outcome | status | |
|---|---|---|
| `answered` | 200 | `answer` is the station's CALLRESULT; it may well say `Rejected` |
| `error` | 200 | `error` is the station's CALLERROR |
| `pending` | 202 | no outcome yet; `Location` is where to ask |
| `offline` | 409 | the station is not connected, and was not for as long as the command could wait |
| `rejected` | 422 | the connection that the command met does not speak a version that has it |
| `disconnected` | 502 | the connection ended before the answer; the CALL may have been carried out |
| `timeout` | 504 | sent, but not answered before the deadline |
"""

_COMMAND_EXAMPLES: dict[str, Any] = {
    "Reset (1.6)": {"value": {"type": "Soft"}},
    "RemoteStartTransaction (1.6)": {"value": {"connectorId": 1, "idTag": "04A2B3C4D5E680"}},
    "RequestStartTransaction (2.0.1)": {
        "value": {
            "evseId": 1,
            "remoteStartId": 4711,
            "idToken": {"idToken": "04A2B3C4D5E680", "type": "ISO14443"},
        }
    },
    "GetVariables (2.0.1)": {
        "value": {
            "getVariableData": [{"component": {"name": "OCPPCommCtrlr"}, "variable": {"name": "HeartbeatInterval"}}]
        }
    },
}

_ANSWERED = {
    "command_id": "2f1c9e0e-6c1b-4b0e-9d0a-3c1b1f0a7d11",
    "station_id": "CS-0001",
    "action": "Reset",
    "ocpp_version": "1.6",
    "outcome": "answered",
    "requested_at": "2026-11-21T06:35:00.120Z",
    "deadline_at": "2026-11-21T06:35:30.120Z",
    "finished_at": "2026-11-21T06:35:00.171Z",
    "answer": {"status": "Accepted"},
}


def _parameter(name: str, where: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "schema": schema,
        "description": description,
    }


def _command_operation() -> dict[str, Any]:
    number = {"type": "number", "minimum": 0}
    example = {"application/json": {"schema": {"type": "object"}, "example": _ANSWERED}}
    problem = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        "tags": ["commands"],
        "summary": "Send a command to a station and wait for its outcome",
        "description": _COMMAND_DESCRIPTION,
        "operationId": "send_command",
        "security": [{"API key": []}],
        "parameters": [
            _parameter("station_id", "path", {"type": "string"}, "The station's identity"),
            _parameter("action", "path", {"type": "string", "example": "Reset"}, "As OCPP spells it"),
            _parameter(
                "wait",
                "query",
                {**number, "maximum": MAX_WAIT_SECONDS, "default": DEFAULT_WAIT_SECONDS},
                "How many seconds the response waits for the outcome; 0: not at all",
            ),
            _parameter(
                "timeout",
                "query",
                {**number, "minimum": 1, "maximum": MAX_TIMEOUT_SECONDS},
                "After how many seconds the outcome is decided; `wait` or 30 if not given, a day with `park`",
            ),
            _parameter(
                "park",
                "query",
                {"type": "boolean", "default": False},
                "Whether to wait for a station that is offline, instead of ending with `offline`",
            ),
            _parameter("priority", "query", {"type": "integer", "default": 0}, "Higher goes first"),
            _parameter(
                "Idempotency-Key",
                "header",
                {"type": "string", "maxLength": 255},
                "Sent again with the same value, it is the same command, and is carried out once",
            ),
        ],
        "requestBody": {
            "description": "The payload of the CALL; none is an empty object",
            "content": {"application/json": {"schema": {"type": "object"}, "examples": _COMMAND_EXAMPLES}},
        },
        "responses": {
            "200": {"description": "The station answered, with a CALLRESULT or a CALLERROR", "content": example},
            "202": {"description": "No outcome yet", "content": example},
            "404": {"description": "No such station, or the action is not in its version", "content": problem},
            "409": {"description": "The station is offline, or its version is not known", "content": example},
            "422": {"description": "The payload does not fit the action; `errors` says where", "content": problem},
            "502": {"description": "The connection ended before the answer", "content": example},
            "503": {"description": "Kafka does not take the command", "content": problem},
            "504": {"description": "No answer before the deadline", "content": example},
        },
    }


def describe(app: FastAPI) -> dict[str, Any]:
    """The document, made once."""
    if app.openapi_schema is None:
        document = get_openapi(title="Busbar", version=busbar.__version__, description=_DESCRIPTION, routes=app.routes)
        document["paths"][COMMAND_PATH] = {"post": _command_operation()}
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = SCHEMA
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        problem = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        for path, operations in document["paths"].items():
            for operation in operations.values():
                if path.startswith("/v1/"):
                    operation["responses"]["400"] = {"description": "The request cannot be read", "content": problem}
                operation["responses"]["422"] = {"description": "The request is not valid", "content": problem}
                operation["responses"].setdefault("401", {"description": "No valid API key", "content": problem})
        app.openapi_schema = document
    return app.openapi_schema
