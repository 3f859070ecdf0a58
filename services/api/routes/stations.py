"""`/v1/stations`: registering stations, their settings and passwords, and what is known of them."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from busbar.passwords import generate_password, hash_password
from services.api.context import Api, Operator, Viewer, api_of
from services.api.problems import Problem, invalid, not_found
from services.api.reading import (
    DEFAULT_LIMIT,
    After,
    Body,
    JsonResponse,
    Limit,
    StationId,
    StationPath,
    Text,
    TextQuery,
    documented,
    embedded,
    json_body,
    page,
)
from services.api.store import stations as store

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/v1/stations", tags=["stations"])

VersionName = Literal["1.6", "2.0.1", "2.1"]
Password = Annotated[Text, Field(min_length=8, max_length=255)]
Quirk = bool | int | Text

_NO_PASSWORD = (0, 3)
"""Security profiles that authenticate without a password."""


class Settings(Body):
    """How a station is treated. Fields that are absent stay as they are, or take their default at creation."""

    boot_status: Literal["Accepted", "Pending", "Rejected"] = "Accepted"
    heartbeat_interval_seconds: Annotated[int, Field(ge=1, le=604_800)] | None = None
    ocpp_version: VersionName | None = None
    security_profile: Annotated[int, Field(ge=0, le=3)] = 1
    max_frame_bytes: Annotated[int, Field(ge=1024, le=512 * 1024)] | None = None
    ping_interval_seconds: Annotated[int, Field(ge=0, le=86_400)] | None = None
    enabled: bool = True
    site_id: Text | None = None
    location_id: Text | None = None
    quirks: dict[Text, Quirk] = Field(default_factory=dict, max_length=50)


class NewStation(Settings):
    """A station to be registered."""

    station_id: StationId
    password: Password | None = None


class NewPassword(Body):
    """A password for a station; without one, one is generated."""

    password: Password | None = None


_EXAMPLE = {"station_id": "CS-0001", "site_id": "depot-north", "heartbeat_interval_seconds": 300}


@router.post(
    "",
    status_code=201,
    summary="Register a station",
    description=(
        "Without a `password`, one of 160 random bits is generated for security profiles 1 and 2. It is in this "
        "response and nowhere else."
    ),
    openapi_extra=documented(NewStation, _EXAMPLE),
)
async def create_station(
    request: Request, key: Operator, body: Annotated[NewStation, json_body(NewStation)]
) -> Response:
    api = api_of(request)
    generated = None
    if body.password is None and body.security_profile not in _NO_PASSWORD:
        generated = generate_password()
    password_hash = await _hashed(api, body.password, generated)
    settings = body.model_dump(include=set(store.SETTINGS))
    settings["quirks"] = orjson.dumps(settings["quirks"]).decode()
    values = [settings[name] for name in store.SETTINGS]
    created = await api.pool.fetchval(store.CREATE, body.station_id, password_hash, *values)
    if created is None:
        detail = f"PATCH /v1/stations/{body.station_id} changes its settings."
        raise Problem(409, "station-exists", "A station of this name is registered", detail)
    api.directory.forget(body.station_id)
    logger.info("station registered", extra={"station_id": body.station_id, "by": key.name})
    document = await _document(api, body.station_id)
    if generated is not None:
        document["password"] = generated
    return JsonResponse(document, 201, {"Location": f"/v1/stations/{body.station_id}"})


async def _hashed(api: Api, given: str | None, generated: str | None) -> str | None:
    if given is not None:
        # argon2id takes 20 ms of a core: not on the loop.
        return await asyncio.to_thread(hash_password, given, api.config.pepper, generated=False)
    if generated is None:
        return None
    if not api.config.pepper:
        detail = "BUSBAR_PASSWORD_PEPPER is not set, so passwords cannot be generated. Send a `password` of your own."
        raise Problem(409, "no-pepper", "Passwords cannot be generated", detail)
    return hash_password(generated, api.config.pepper, generated=True)


@router.get("", summary="List stations", description="In the order of their ids, a page at a time.")
async def list_stations(
    request: Request,
    _: Viewer,
    limit: Limit = DEFAULT_LIMIT,
    after: After = None,
    q: TextQuery = None,
    online: bool | None = None,
    version: VersionName | None = None,
    site: TextQuery = None,
    vendor: TextQuery = None,
    model: TextQuery = None,
    registered: Annotated[
        bool | None, Query(description="false: those that connected without being registered")
    ] = None,
) -> Response:
    """
    - **q**: the beginning of the id
    - **version**: of the last connection
    """
    wanted = store.StationFilter(q, online, version, site, vendor, model, registered)
    rows = await store.list_stations(api_of(request).pool, wanted, after or "", limit)
    following = rows[-1]["station_id"] if len(rows) == limit else None
    return page([_summary(row) for row in rows], following)


@router.get("/{station_id}", summary="Show a station, with its connection, shadow and connectors")
async def show_station(request: Request, station_id: StationPath, _: Viewer) -> Response:
    return JsonResponse(await _document(api_of(request), station_id))


@router.patch(
    "/{station_id}",
    summary="Change a station's settings",
    description="Fields that are absent stay as they are. A station that is disabled is disconnected.",
    openapi_extra=documented(Settings, {"boot_status": "Pending", "ocpp_version": "2.0.1"}),
)
async def change_station(
    request: Request,
    station_id: StationPath,
    key: Operator,
    body: Annotated[Settings, json_body(Settings)],
) -> Response:
    api = api_of(request)
    changes = body.model_dump(include=body.model_fields_set)
    if not changes:
        raise invalid([{"path": "$", "message": "names no setting to change"}])
    if "quirks" in changes:
        changes["quirks"] = orjson.dumps(changes["quirks"]).decode()
    if not await store.update_station(api.pool, station_id, changes):
        raise not_found("registered station", station_id)
    api.directory.forget(station_id)
    logger.info("station changed", extra={"station_id": station_id, "by": key.name, "settings": sorted(changes)})
    if body.enabled is False:
        await _disconnect(api, station_id, "the station was disabled")
    return JsonResponse(await _document(api, station_id))


@router.post(
    "/{station_id}/password",
    summary="Set a station's password",
    description="Without a `password`, one is generated; it is in this response and nowhere else.",
    openapi_extra=documented(NewPassword, {}),
)
async def set_password(
    request: Request,
    station_id: StationPath,
    key: Operator,
    body: Annotated[NewPassword, json_body(NewPassword)],
) -> Response:
    api = api_of(request)
    generated = generate_password() if body.password is None else None
    password_hash = await _hashed(api, body.password, generated)
    if await api.pool.fetchval(store.REPLACE_CREDENTIAL, station_id, password_hash) is None:
        raise not_found("registered station", station_id)
    logger.info("station password set", extra={"station_id": station_id, "by": key.name})
    return JsonResponse({"station_id": station_id} | ({"password": generated} if generated else {}))


@router.post("/{station_id}/disconnect", status_code=202, summary="Close a station's socket; it will connect again")
async def disconnect_station(request: Request, station_id: StationPath, key: Operator) -> Response:
    api = api_of(request)
    if not await _disconnect(api, station_id, "an operator closed the connection"):
        raise Problem(409, "station-offline", "The station is not connected")
    logger.info("station disconnected", extra={"station_id": station_id, "by": key.name})
    return Response(status_code=202)


@router.delete(
    "/{station_id}",
    status_code=204,
    summary="Remove a station from the registry",
    description="It is disconnected and not let in again. Its transactions and what it reported stay.",
)
async def delete_station(request: Request, station_id: StationPath, key: Operator) -> Response:
    api = api_of(request)
    if await api.pool.fetchval(store.DELETE, station_id) is None:
        raise not_found("registered station", station_id)
    api.directory.forget(station_id)
    logger.info("station removed", extra={"station_id": station_id, "by": key.name})
    await _disconnect(api, station_id, "the station was removed")
    return Response(status_code=204)


async def _disconnect(api: Api, station_id: str, reason: str) -> bool:
    row = await api.pool.fetchrow(store.FIND_CONNECTION, station_id)
    if row is None:
        return False
    await api.gateway.close_connection(station_id, row["edge_partition"], row["connection_id"], reason, api.clock())
    return True


async def _document(api: Api, station_id: str) -> dict[str, Any]:
    row = await api.pool.fetchrow(store.FIND, station_id)
    if row is None:
        raise not_found("station", station_id)
    connectors = await api.pool.fetch(store.CONNECTORS, station_id)
    transactions = await api.pool.fetch(store.OPEN_TRANSACTIONS, station_id)
    last_event = await api.pool.fetchrow(store.LAST_TRANSACTION_EVENT, station_id)
    document = _summary(row)
    document["shadow"] = _shadow(row)
    if document["shadow"] is not None:
        document["shadow"]["last_transaction_event"] = dict(last_event) if last_event is not None else None
    document["connectors"] = [dict(connector) for connector in connectors]
    document["open_transactions"] = [dict(transaction) for transaction in transactions]
    return document


def _summary(row: Any) -> dict[str, Any]:
    settings: dict[str, Any] | None = None
    if row["registered"]:
        settings = {name: row[name] for name in store.SETTINGS}
        settings["quirks"] = embedded(row["quirks"])
        settings |= {name: row[name] for name in ("has_password", "created_at", "updated_at")}
    return {
        "station_id": row["station_id"],
        "registered": row["registered"],
        "online": row["online"],
        "settings": settings,
        "connection": _connection(row),
        "vendor": row["vendor"],
        "model": row["model"],
        "serial_number": row["serial_number"],
        "firmware_version": row["firmware_version"],
        "registration_status": row["registration_status"],
        "last_boot_at": row["last_boot_at"],
        "last_seen_at": row["last_seen_at"],
    }


def _connection(row: Any) -> dict[str, Any] | None:
    if row["connection_id"] is None:
        return None
    names = ("connection_id", "edge", "subprotocol", "remote_address", "connected_at", "disconnected_at")
    connection = {name: row[name] for name in names}
    connection["ocpp_version"] = row["connection_version"]
    connection["security_profile"] = row["connection_profile"]
    if row["disconnected_at"] is not None:
        connection["close_code"] = row["close_code"]
        connection["close_reason"] = row["close_reason"]
    return connection


def _shadow(row: Any) -> dict[str, Any] | None:
    if row["first_seen_at"] is None:
        return None
    plain = (
        "charge_box_serial_number",
        "modem_iccid",
        "modem_imsi",
        "meter_type",
        "meter_serial_number",
        "boot_reason",
        "boot_count",
        "interval_seconds",
        "firmware_status",
        "firmware_status_at",
        "log_status",
        "log_status_at",
        "clock_offset_ms",
        "first_seen_at",
    )
    shadow: dict[str, Any] = {name: row[name] for name in plain}
    shadow["boot"] = embedded(row["boot"])
    shadow["last_command"] = None
    if row["last_command_id"] is not None:
        names = ("id", "action", "stage", "status", "at")
        shadow["last_command"] = {name: row[f"last_command_{name}"] for name in names}
        shadow["last_command"]["result"] = embedded(row["last_command_result"])
    return shadow
