"""`/v1/system`, `/v1/actions` and the probes: what runs here, how it is doing, what it can do."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

import busbar
from busbar.ocpp.actions import csms_actions
from busbar.ocpp.validation import load_schema
from busbar.ocpp.versions import Version
from busbar.service import Health
from busbar.topics import all_topics
from services.api.context import Viewer, api_of
from services.api.lag import LogEnds
from services.api.problems import not_found
from services.api.reading import JsonResponse
from services.api.store import system as store

router = APIRouter(tags=["system"])
probes = APIRouter(include_in_schema=False)

_REMEMBER_SECONDS = 2.0


class SystemView:
    """The state of the whole system, looked at anew every two seconds at most, however many ask."""

    def __init__(self, log_ends: LogEnds | None) -> None:
        self._log_ends = log_ends
        self._lock = asyncio.Lock()
        self._seen: tuple[float, dict[str, Any]] | None = None

    async def look(self, pool: Any) -> dict[str, Any]:
        async with self._lock:
            if self._seen is None or time.monotonic() - self._seen[0] > _REMEMBER_SECONDS:
                self._seen = time.monotonic(), await self._read(pool)
            return self._seen[1]

    async def _read(self, pool: Any) -> dict[str, Any]:
        counts = await pool.fetchrow(store.COUNTS)
        return {
            "version": busbar.__version__,
            "stations": {"registered": counts["registered"], "online": counts["online"]},
            "pending_commands": counts["pending_commands"],
            "open_transactions": counts["open_transactions"],
            "edges": [_edge(row) for row in await pool.fetch(store.EDGES)],
            "processors": await self._processors(pool),
        }

    async def _processors(self, pool: Any) -> list[dict[str, Any]]:
        rows = await pool.fetch(store.PROGRESS)
        workers = {row["group_name"]: row["workers"] for row in await pool.fetch(store.WORKERS)}
        groups: dict[str, list[Any]] = {}
        for row in rows:
            groups.setdefault(row["group_name"], []).append(row)
        processors = []
        for group, members in groups.items():
            processors.append(
                {
                    "group": group,
                    "workers": workers.get(group, 0),
                    "partitions": len(members),
                    "owned": sum(row["owned"] for row in members),
                    "lag": await self._lag(members),
                    "updated_at": max(row["updated_at"] for row in members),
                }
            )
        return processors

    async def _lag(self, rows: list[Any]) -> int | None:
        """Records still to be read, of the topics that the group has begun to read; `None` if Kafka does not say."""
        if self._log_ends is None:
            return None
        offsets = {row["partition"]: orjson.loads(row["offsets"]) for row in rows}
        topics = {topic for known in offsets.values() for topic in known} & all_topics().keys()
        progress = {(topic, number): known.get(topic) for topic in topics for number, known in offsets.items()}
        if not progress:
            return 0
        lag = await self._log_ends.lag(progress)
        return None if lag is None else sum(lag.values())


def _edge(row: Any) -> dict[str, Any]:
    state = "stopped" if row["event"] == "stopped" else "silent" if row["silent"] else row["event"]
    names = ("edge", "edge_instance", "edge_partition", "connections", "address", "last_seen", "instance_since")
    return {name: row[name] for name in names} | {"state": "alive" if state == "started" else state}


@router.get("/v1/system", summary="Version, counts, edges, and how far behind each processor is")
async def show_system(request: Request, _: Viewer) -> Response:
    view: SystemView = request.app.state.system
    return JsonResponse(await view.look(api_of(request).pool))


@router.get("/v1/actions", summary="The CALLs that stations of each OCPP version take")
async def list_actions(_: Viewer) -> Response:
    return JsonResponse({version.value: csms_actions(version) for version in Version})


@router.get("/v1/actions/{version}/{action}", summary="The JSON schemas of a CALL and its answer")
async def show_action(version: str, action: str, _: Viewer) -> Response:
    if version not in set(Version) or action not in csms_actions(Version(version)):
        raise not_found("action", f"{version} {action}")
    known = Version(version)
    return JsonResponse(
        {
            "version": version,
            "action": action,
            "request": load_schema(known, action, response=False),
            "response": load_schema(known, action, response=True),
        }
    )


@probes.get("/livez")
async def livez(request: Request) -> Response:
    health: Health = request.app.state.health
    return _probe(health.problems(health.live))


@probes.get("/readyz")
async def readyz(request: Request) -> Response:
    health: Health = request.app.state.health
    return _probe(health.problems(health.ready))


def _probe(problems: dict[str, str]) -> Response:
    return JsonResponse({"status": "error" if problems else "ok", "problems": problems}, 503 if problems else 200)
