"""`/v1/transactions`: charging sessions of all OCPP versions, and their meter values in SI units."""

from __future__ import annotations

from base64 import b64encode
from itertools import groupby
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import AwareDatetime

from services.api.auth import ApiKey
from services.api.context import Viewer, api_of
from services.api.problems import Problem, not_found
from services.api.reading import (
    DEFAULT_LIMIT,
    After,
    JsonResponse,
    Limit,
    TextQuery,
    cursor,
    masked,
    page,
    read_position,
)
from services.api.store import transactions as store
from services.api.store.tokens import token_key

router = APIRouter(prefix="/v1/transactions", tags=["transactions"])

MAX_SAMPLES = 50_000


@router.get("", summary="List transactions, the newest first")
async def list_transactions(
    request: Request,
    key: Viewer,
    limit: Limit = DEFAULT_LIMIT,
    after: After = None,
    station: TextQuery = None,
    site: TextQuery = None,
    open: bool | None = None,
    from_: Annotated[AwareDatetime | None, Query(alias="from", description="Opened at this time or later")] = None,
    to: Annotated[AwareDatetime | None, Query(description="Opened before this time")] = None,
    token: TextQuery = None,
) -> Response:
    """
    - **token**: needs the role operator
    """
    if token is not None and not key.may("operator"):
        raise Problem(
            403, "forbidden", "The key's role does not suffice", "Searching by token needs the role operator."
        )
    token = None if token is None else token_key(token)
    wanted = store.TransactionFilter(station, site, open, from_, to, token)
    rows = await store.list_transactions(api_of(request).pool, wanted, read_position(after), limit)
    following = None
    if len(rows) == limit:
        following = cursor(rows[-1]["opened_at"].isoformat(), str(rows[-1]["session_id"]))
    return page([_summary(row, key) for row in rows], following)


@router.get(
    "/{session_id}",
    summary="Show a transaction with its meter values",
    description="Meter values come event by event, in the order in which they were received; instants are corrected "
    "where the station's clock is proven wrong.",
)
async def show_transaction(request: Request, session_id: UUID, key: Viewer, meter_values: bool = True) -> Response:
    pool = api_of(request).pool
    row = await pool.fetchrow(store.FIND, session_id)
    if row is None:
        raise not_found("transaction", str(session_id))
    document = _summary(row, key)
    if meter_values:
        samples = await pool.fetch(store.SAMPLES, session_id, MAX_SAMPLES + 1)
        document["truncated"] = len(samples) > MAX_SAMPLES
        document["meter_values"] = _meter_values(samples[:MAX_SAMPLES])
        document["signed_values"] = [_signed(item) for item in await pool.fetch(store.SIGNED, session_id, MAX_SAMPLES)]
    return JsonResponse(document)


def _summary(row: Any, key: ApiKey) -> dict[str, Any]:
    document = dict(row)
    token = document["id_token"]
    if token is not None and not key.may("operator"):
        document["id_token"] = masked(token)
    return document


def _meter_values(samples: list[Any]) -> list[dict[str, Any]]:
    names = ("measurand", "phase", "location", "context", "unit", "value")
    values = []
    for (_, event, happened_at, received_at), group in groupby(
        samples, key=lambda s: (s["event_key"], s["event"], s["happened_at"], s["received_at"])
    ):
        values.append(
            {
                "event": event,
                "happened_at": happened_at,
                "received_at": received_at,
                "samples": [{name: sample[name] for name in names} for sample in group],
            }
        )
    return values


def _signed(row: Any) -> dict[str, Any]:
    document = {name: value for name, value in row.items() if name not in ("event_key", "data")}
    return document | {"data_base64": b64encode(row["data"]).decode()}
