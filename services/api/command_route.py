"""`POST /v1/stations/{id}/commands/{Action}`: the hot path of the API.

Plain ASGI in front of the framework, which would cost as much again as the command: the key, the station and the
validators are in memory, and only the log is written.
"""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import parse_qsl

import orjson
from starlette.types import ASGIApp, Receive, Scope, Send

from services.api import metrics
from services.api.auth import ApiKey
from services.api.context import Api
from services.api.core import (
    COMMAND_QUERY,
    PENDING_STATUS,
    STATUS_BY_OUTCOME,
    CommandOptions,
    Outcome,
    check_command,
    command_id_for,
    command_version,
    instant,
    outcome_members,
    patience_seconds,
    read_options,
    read_payload,
)
from services.api.gateway import NewCommand
from services.api.handlers import problem_of
from services.api.problems import MEDIA_TYPE, Problem, invalid, not_found
from services.api.query import check_query

COMMAND_PATH = "/v1/stations/{station_id}/commands/{action}"

_PREFIX = "/v1/stations/"
_INFIX = "/commands/"


class CommandRoute:
    """Takes commands, and hands every other request on."""

    def __init__(self, app: ASGIApp, api: Api) -> None:
        self._app = app
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        names = _names(scope["path"]) if scope["type"] == "http" else None
        if names is None:
            await self._app(scope, receive, send)
            return
        scope["busbar.route"] = COMMAND_PATH
        try:
            status, document, headers = await self._post(scope, receive, *names)
            media_type = "application/json"
        except Exception as error:
            problem = problem_of(error, scope["method"], COMMAND_PATH)
            status, document, headers = problem.status, problem.document(), dict(problem.headers)
            media_type = MEDIA_TYPE
        await _respond(send, status, orjson.dumps(document), media_type, headers)

    async def _post(
        self, scope: Scope, receive: Receive, station_id: str, action: str
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Submit the command and wait for its outcome, for as long as the caller wants to."""
        if scope["method"] != "POST":
            raise Problem(405, "method-not-allowed", "Method Not Allowed", headers={"Allow": "POST"})
        authorization, idempotency_key = _headers(scope)
        key = await self._api.keys.require(authorization, "operator")
        options = read_options(_query(scope["query_string"]))
        payload = read_payload(await _body(receive))
        station = None if "\0" in station_id else await self._api.directory.find(station_id)
        if station is None:
            raise not_found("station", station_id)
        version = command_version(station)
        check_command(version, action, payload)
        now_ms = self._api.clock()
        command = NewCommand(
            command_id=_command_id(idempotency_key, key, station_id, action),
            station_id=station_id,
            action=action,
            payload=orjson.dumps(payload).decode(),
            requested_by=key.name,
            requested_at_ms=now_ms,
            deadline_at_ms=now_ms + round(options.timeout_seconds * 1000),
            priority=options.priority,
            park=options.park,
        )
        return _told(command, version, await self._run(command, options))

    async def _run(self, command: NewCommand, options: CommandOptions) -> Outcome | None:
        """Submit the command; its outcome, unless the caller is told before there is one."""
        gateway = self._api.gateway
        if options.wait_seconds <= 0:
            await gateway.submit(command)
            return None
        future = gateway.expect(command.command_id)
        try:
            await gateway.submit(command)
        except BaseException:
            gateway.release(command.command_id, future)
            raise
        return await gateway.outcome(command.command_id, future, patience_seconds(options))


def _names(path: str) -> tuple[str, str] | None:
    """Station and action of a path of this route; `None` for any other path."""
    if not path.startswith(_PREFIX):
        return None
    station_id, infix, action = path[len(_PREFIX) :].partition(_INFIX)
    if not infix or not station_id or not action or "/" in station_id or "/" in action:
        return None
    return station_id, action


def _headers(scope: Scope) -> tuple[str | None, str | None]:
    """`Authorization` and `Idempotency-Key`."""
    authorization = idempotency_key = None
    for name, value in scope["headers"]:
        if name == b"authorization":
            authorization = value.decode("latin-1")
        elif name == b"idempotency-key":
            idempotency_key = value.decode("latin-1")
    return authorization, idempotency_key


def _query(raw: bytes) -> dict[str, str]:
    """The parameters of the query. Raises `Problem`."""
    if not raw:
        return {}
    pairs = parse_qsl(raw.decode("latin-1"), keep_blank_values=True)
    check_query([name for name, _ in pairs], COMMAND_QUERY)
    return dict(pairs)


async def _body(receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body", False):
        message = await receive()
        body += message.get("body", b"")
    return body


def _command_id(idempotency_key: str | None, key: ApiKey, station_id: str, action: str) -> str:
    if idempotency_key is None:
        return str(uuid.uuid4())
    if not 0 < len(idempotency_key) <= 255:
        raise invalid([{"path": "header.Idempotency-Key", "message": "has not 1 to 255 characters"}])
    return command_id_for(idempotency_key, key.key_id, station_id, action)


def _told(command: NewCommand, version: str, outcome: Outcome | None) -> tuple[int, dict[str, Any], dict[str, str]]:
    """What the caller is told: status, document and headers."""
    document: dict[str, Any] = {
        "command_id": command.command_id,
        "station_id": command.station_id,
        "action": command.action,
        "ocpp_version": version,
        "outcome": "pending",
        "requested_at": instant(command.requested_at_ms),
        "deadline_at": instant(command.deadline_at_ms),
    }
    headers = {"Location": f"/v1/commands/{command.command_id}"}
    if outcome is None:
        metrics.COMMANDS.labels("pending").inc()
        return PENDING_STATUS, document, headers
    metrics.COMMANDS.labels(outcome.outcome).inc()
    document["ocpp_version"] = outcome.ocpp_version or version
    document |= outcome_members(outcome)
    return STATUS_BY_OUTCOME[outcome.outcome], document, headers


async def _respond(send: Send, status: int, body: bytes, media_type: str, headers: dict[str, str]) -> None:
    raw = [(b"content-type", media_type.encode()), (b"content-length", b"%d" % len(body))]
    raw += [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
