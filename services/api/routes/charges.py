"""`/v1/charges` and `/v1/unattributed-energy`: sessions as billing sees them, and energy that nobody pays for."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import AwareDatetime

from services.api.auth import ApiKey
from services.api.context import Viewer, api_of
from services.api.problems import invalid, not_found
from services.api.reading import (
    DEFAULT_LIMIT,
    After,
    JsonResponse,
    Limit,
    TextQuery,
    cursor,
    embedded,
    page,
    read_cursor,
)
from services.api.routes.cdrs import id_token_key, read_position, shown
from services.api.store import cdrs as cdr_store
from services.api.store import charges as store

router = APIRouter(tags=["billing"])

Status = Literal["open", "priced", "unpriced", "failed", "joined", "returned"]


@router.get("/v1/charges", summary="List sessions with their cost, the newest first")
async def list_charges(
    request: Request,
    key: Viewer,
    limit: Limit = DEFAULT_LIMIT,
    after: After = None,
    status: Status | None = None,
    station: TextQuery = None,
    site: TextQuery = None,
    token: TextQuery = None,
    tariff: TextQuery = None,
    currency: TextQuery = None,
    from_: Annotated[AwareDatetime | None, Query(alias="from", description="Began at this time or later")] = None,
    to: Annotated[AwareDatetime | None, Query(description="Began before this time")] = None,
) -> Response:
    """
    Each is `open`, with its cost so far; `priced`, with the record that stands; `unpriced`, for want of a tariff;
    `failed`; or `joined`, a stop whose session has been found and has the cost. `reason` says why there is no price.
    Sessions whose begin is not known come first.

    A reservation that expired is among them, with the flag `reservation`, if its tariff has a price for that. Its
    record is taken back (`returned`) if a session used it after all.

    - **token**: needs the role operator
    """
    wanted = store.ChargeFilter(status, station, site, id_token_key(token, key), tariff, currency, from_, to)
    rows = await store.list_charges(api_of(request).pool, wanted, _position(after), limit)
    following = None
    if len(rows) == limit:
        began = rows[-1]["started_at"]
        following = cursor("" if began is None else began.isoformat(), str(rows[-1]["session_id"]))
    return page([shown(row, key) for row in rows], following)


@router.get("/v1/charges/{session_id}", summary="Show what a session costs, its records and what was settled")
async def show_charge(request: Request, session_id: UUID, key: Viewer) -> Response:
    """
    `station_cost` is what a station of OCPP 2.1 says that it costs, beside what it costs here. Who gets the invoice for
    a settlement is shown to operators.
    """
    pool = api_of(request).pool
    row = await pool.fetchrow(store.FIND, session_id)
    if row is None:
        raise not_found("charge", str(session_id))
    document = shown(row, key)
    document["cdrs"] = [shown(cdr, key) for cdr in await pool.fetch(cdr_store.OF_SESSION, session_id)]
    document["settlements"] = [_settled(settled, key) for settled in await pool.fetch(store.SETTLEMENTS, session_id)]
    told = await pool.fetchrow(store.STATION_COST, session_id)
    document["station_cost"] = None if told is None else dict(told)
    return JsonResponse(document)


@router.get("/v1/unattributed-energy", summary="List energy that flowed outside of sessions, the newest first")
async def list_unattributed(
    request: Request,
    _: Viewer,
    limit: Limit = DEFAULT_LIMIT,
    after: After = None,
    station: TextQuery = None,
    from_: Annotated[AwareDatetime | None, Query(alias="from", description="At this time or later")] = None,
    to: Annotated[AwareDatetime | None, Query(description="Before this time")] = None,
) -> Response:
    """
    What a register counted between two sessions. It is negative where a session that came late explains energy that had
    been listed before: the sum over a station is what nobody pays for.
    """
    wanted = store.UnattributedFilter(station, from_, to)
    rows = await store.list_unattributed(api_of(request).pool, wanted, read_position(after), limit)
    following = cursor(rows[-1]["at"].isoformat(), rows[-1]["event_id"]) if len(rows) == limit else None
    return page([dict(row) for row in rows], following)


def _settled(row: Any, key: ApiKey) -> dict[str, Any]:
    document = dict(row)
    company, number = document.pop("vat_company"), document.pop("vat_number")
    if not key.may("operator"):
        return document
    return document | {"vat_company": embedded(company), "vat_number": number}


def _position(after: str | None) -> tuple[datetime | None, UUID] | None:
    """Where a page of charges ended; the instant is absent where the begin is not known."""
    parts = read_cursor(after, str, str)
    if parts is None:
        return None
    try:
        session_id, moment = UUID(parts[1]), datetime.fromisoformat(parts[0]) if parts[0] else None
    except ValueError:
        session_id, moment = None, None
    if session_id is None or (moment is not None and moment.tzinfo is None):
        raise invalid([{"path": "query.after", "message": "is not the `next` of an earlier page"}])
    return moment, session_id
