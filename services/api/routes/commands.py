"""Looking at commands: what became of each, and what a station was asked. They are sent in `command_route`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from services.api.auth import ApiKey
from services.api.context import Api, Viewer, api_of
from services.api.core import MAX_WAIT_SECONDS
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

_NOT_YET_SECONDS = (0.1, 0.2, 0.3, 0.4)
"""How long to look again for a command that the router may be about to write down."""
_END_OF_TIME = datetime.max.replace(tzinfo=UTC)


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
    if await api.gateway.outcome(command_id, future, wait_seconds) is not None:
        # The event may have come before the router's commit can be seen.
        await asyncio.sleep(_NOT_YET_SECONDS[0])


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
