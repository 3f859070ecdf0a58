"""Commands: asking stations to do something, and what became of it.

`POST /v1/stations/{id}/commands/{Action}` is the hot path of the API. It is a plain route: the key, the station and the
validators are in memory, and only the log is written.
"""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request, Response

from services.api import metrics
from services.api.auth import ApiKey
from services.api.context import Api, Viewer, api_of
from services.api.core import (
    MAX_WAIT_SECONDS,
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
from services.api.problems import invalid, not_found
from services.api.reading import (
    DEFAULT_LIMIT,
    After,
    JsonResponse,
    Limit,
    StationPath,
    cursor,
    embedded,
    page,
    read_cursor,
)
from services.api.store import commands as store

router = APIRouter(prefix="/v1", tags=["commands"])

COMMAND_PATH = "/v1/stations/{station_id}/commands/{action}"
_NOT_YET_SECONDS = (0.1, 0.2, 0.3, 0.4)
"""How long to look again for a command that the router may be about to write down."""
_END_OF_TIME = datetime.max.replace(tzinfo=UTC)


async def post_command(request: Request) -> Response:
    """Submit a command and wait for its outcome, for as long as the caller wants to."""
    api = api_of(request)
    request.scope["busbar.route"] = COMMAND_PATH
    key = await api.keys.require(request.headers.get("authorization"), "operator")
    station_id, action = request.path_params["station_id"], request.path_params["action"]
    options = read_options(request.query_params)
    payload = read_payload(await request.body())
    station = None if "\0" in station_id else await api.directory.find(station_id)
    if station is None:
        raise not_found("station", station_id)
    version = command_version(station)
    check_command(version, action, payload)
    now_ms = api.clock()
    command = NewCommand(
        command_id=_command_id(request, key, station_id, action),
        station_id=station_id,
        action=action,
        payload=orjson.dumps(payload).decode(),
        requested_by=key.name,
        requested_at_ms=now_ms,
        deadline_at_ms=now_ms + round(options.timeout_seconds * 1000),
        priority=options.priority,
        park=options.park,
    )
    outcome = await _run(api, command, options)
    return _told(command, version, outcome)


def _command_id(request: Request, key: ApiKey, station_id: str, action: str) -> str:
    idempotency_key = request.headers.get("idempotency-key")
    if idempotency_key is None:
        return str(uuid.uuid4())
    if not 0 < len(idempotency_key) <= 255:
        raise invalid([{"path": "header.Idempotency-Key", "message": "has not 1 to 255 characters"}])
    return command_id_for(idempotency_key, key.key_id, station_id, action)


async def _run(api: Api, command: NewCommand, options: CommandOptions) -> Outcome | None:
    """Submit the command; its outcome, unless the caller is told before there is one."""
    if options.wait_seconds <= 0:
        await api.gateway.submit(command)
        return None
    future = api.gateway.expect(command.command_id)
    try:
        await api.gateway.submit(command)
        done, _ = await asyncio.wait((future,), timeout=patience_seconds(options))
        return future.result() if done else None
    finally:
        api.gateway.release(command.command_id, future)


def _told(command: NewCommand, version: str, outcome: Outcome | None) -> Response:
    document: dict[str, Any] = {
        "command_id": command.command_id,
        "station_id": command.station_id,
        "action": command.action,
        "ocpp_version": version,
        "outcome": "pending",
        "requested_at": instant(command.requested_at_ms),
        "deadline_at": instant(command.deadline_at_ms),
    }
    location = {"Location": f"/v1/commands/{command.command_id}"}
    if outcome is None:
        metrics.COMMANDS.labels("pending").inc()
        return JsonResponse(document, PENDING_STATUS, location)
    metrics.COMMANDS.labels(outcome.outcome).inc()
    document["ocpp_version"] = outcome.ocpp_version or version
    document |= outcome_members(outcome)
    return JsonResponse(document, STATUS_BY_OUTCOME[outcome.outcome], location)


@router.get(
    "/commands/{command_id}",
    summary="Show a command with its stages",
    description="With `wait`, the response comes when there is an outcome, or after so many seconds.",
)
async def show_command(
    request: Request,
    command_id: str,
    key: Viewer,
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS)] = 0.0,
) -> Response:
    api = api_of(request)
    if "\0" in command_id:
        raise not_found("command", command_id)
    row = await _find(api, command_id)
    if wait > 0 and row["outcome"] is None:
        await _await_outcome(api, command_id, wait)
        row = await _find(api, command_id)
    document = _document(row, key)
    document["stages"] = [dict(stage) for stage in await api.pool.fetch(store.STAGES, command_id)]
    return JsonResponse(document)


async def _find(api: Api, command_id: str) -> Any:
    for pause in (*_NOT_YET_SECONDS, None):
        row = await api.pool.fetchrow(store.FIND, command_id)
        if row is not None:
            return row
        if pause is not None:
            await asyncio.sleep(pause)
    raise not_found("command", command_id)


async def _await_outcome(api: Api, command_id: str, wait_seconds: float) -> None:
    future = api.gateway.expect(command_id)
    try:
        await asyncio.wait((future,), timeout=wait_seconds)
        # The event may have come before the router's commit can be seen.
        if future.done():
            await asyncio.sleep(_NOT_YET_SECONDS[0])
    finally:
        api.gateway.release(command_id, future)


@router.get("/stations/{station_id}/commands", summary="List a station's commands, the newest first")
async def list_commands(
    request: Request,
    station_id: StationPath,
    key: Viewer,
    limit: Limit = DEFAULT_LIMIT,
    after: After = None,
    pending: bool | None = None,
) -> Response:
    api = api_of(request)
    if await api.directory.find(station_id) is None:
        raise not_found("station", station_id)
    requested_at, command_id = _position(after)
    rows = await api.pool.fetch(store.LIST, station_id, requested_at, command_id, pending, limit)
    following = None
    if len(rows) == limit:
        following = cursor(rows[-1]["requested_at"].isoformat(), rows[-1]["command_id"])
    return page([_document(row, key) for row in rows], following)


def _position(after: str | None) -> tuple[datetime, str]:
    parts = read_cursor(after, str, str)
    if parts is None:
        return _END_OF_TIME, ""
    try:
        requested_at = datetime.fromisoformat(parts[0])
        if requested_at.tzinfo is not None and "\0" not in parts[1]:
            return requested_at, parts[1]
    except ValueError:
        pass
    raise invalid([{"path": "query.after", "message": "is not the `next` of an earlier page"}])


def _document(row: Any, key: ApiKey) -> dict[str, Any]:
    plain = (
        "command_id",
        "station_id",
        "action",
        "ocpp_version",
        "stage",
        "requested_by",
        "requested_at",
        "deadline_at",
        "priority",
        "park",
        "attempts",
        "connection_id",
        "edge",
        "dispatched_at",
        "sent_at",
        "finished_at",
    )
    document: dict[str, Any] = {name: row[name] for name in plain}
    document["outcome"] = row["outcome"] or "pending"
    # A payload may hold an id token, which whoever only watches has no need to see.
    document["payload"] = embedded(row["payload"]) if key.may("operator") else None
    if row["outcome"] == "answered":
        document["answer"] = embedded(row["answer"])
    elif row["outcome"] is not None:
        document["error"] = {
            "code": row["error_code"],
            "description": row["error_description"],
            "details": embedded(row["error_details"]) or {},
        }
    return document
