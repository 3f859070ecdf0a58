"""`/v1/transactions`: charging sessions of all OCPP versions, and their meter values in SI units."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from itertools import groupby
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import APIRouter, Query, Request, Response
from pydantic import AwareDatetime, Field

from services.api.auth import ApiKey
from services.api.context import Api, Operator, Viewer, api_of
from services.api.core import MAX_WAIT_SECONDS, instant
from services.api.gateway import NewTariffChange
from services.api.problems import Problem, not_found
from services.api.reading import (
    DEFAULT_LIMIT,
    After,
    Body,
    JsonResponse,
    Limit,
    Text,
    TextQuery,
    cursor,
    documented,
    json_body,
    masked,
    page,
    read_position,
)
from services.api.store import transactions as store
from services.api.store.tokens import token_key

router = APIRouter(prefix="/v1/transactions", tags=["transactions"])

MAX_SAMPLES = 50_000
MAX_CHANGES = 1_000
_LOOK_SECONDS = 0.15


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
    "where the station's clock is proven wrong. `reservation` is the one that it uses: its price begins with the "
    "reserved time.",
)
async def show_transaction(request: Request, session_id: UUID, key: Viewer, meter_values: bool = True) -> Response:
    pool = api_of(request).pool
    row = await pool.fetchrow(store.FIND, session_id)
    if row is None:
        raise not_found("transaction", str(session_id))
    document = _summary(row, key)
    document["reservation"] = _reservation(await pool.fetchrow(store.RESERVATION, session_id))
    if meter_values:
        samples = await pool.fetch(store.SAMPLES, session_id, MAX_SAMPLES + 1)
        document["truncated"] = len(samples) > MAX_SAMPLES
        document["meter_values"] = _meter_values(samples[:MAX_SAMPLES])
        document["signed_values"] = [_signed(item) for item in await pool.fetch(store.SIGNED, session_id, MAX_SAMPLES)]
    return JsonResponse(document)


class TariffChangeRequest(Body):
    """The tariff that a transaction is to have from now on."""

    tariff_id: Text
    version: Annotated[int | None, Field(ge=1, description="The one of now unless given")] = None


@router.post(
    "/{session_id}/tariff",
    summary="Change the tariff of a transaction that goes on",
    openapi_extra=documented(TariffChangeRequest, {"tariff_id": "day-and-night"}),
)
async def change_tariff(
    request: Request,
    session_id: UUID,
    key: Operator,
    body: Annotated[TariffChangeRequest, json_body(TariffChangeRequest)],
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS, description="Seconds to wait for the outcome")] = 10.0,
) -> Response:
    """
    What was used until then keeps its price. A station of OCPP 2.1 that prices the transaction itself gets
    ChangeTransactionTariff, and the change holds from the event in which it says that it uses the tariff; any other
    transaction has it from now on.

    200: it is `applied`; 202: it is `asked` (of the station, see `command_id`) or `pending`; 409: it is refused, with
    the reason, and nothing has changed.
    """
    api = api_of(request)
    row = await api.pool.fetchrow(store.FIND, session_id)
    if row is None:
        raise not_found("transaction", str(session_id))
    if not row["is_open"]:
        raise Problem(409, "transaction-over", "The transaction is over", "What it costs does not change any more.")
    version = await api.pool.fetchval(store.TARIFF, body.tariff_id, body.version)
    if version is None:
        name = body.tariff_id if body.version is None else f"{body.tariff_id} version {body.version}"
        raise not_found("valid tariff", name)
    change = NewTariffChange(
        change_id=str(uuid4()),
        station_id=row["station_id"],
        session_id=str(session_id),
        transaction_id=row["transaction_id"],
        tariff_id=body.tariff_id,
        tariff_version=version,
        requested_by=key.name,
        requested_at=api.clock(),
    )
    await api.gateway.change_tariff(change)
    outcome = await _outcome(api, change.change_id, wait)
    if outcome is None:
        document = {name: getattr(change, name) for name in ("change_id", "session_id", "tariff_id", "requested_by")}
        at = instant(change.requested_at)
        return JsonResponse(document | {"version": version, "status": "pending", "requested_at": at}, 202)
    if outcome["status"] == "refused":
        title = "The transaction cannot have that tariff"
        raise Problem(409, "tariff-change-refused", title, outcome["reason"], extra={"change_id": change.change_id})
    return JsonResponse(dict(outcome), 200 if outcome["status"] == "applied" else 202)


async def _outcome(api: Api, change_id: str, wait_seconds: float) -> Any:
    """What became of a change by then; `None`: it is not known yet."""
    row = None
    ends = time.monotonic() + wait_seconds
    while True:
        row = await api.pool.fetchrow(store.FIND_CHANGE, change_id) or row
        left = ends - time.monotonic()
        if left <= 0 or (row is not None and row["status"] != "asked"):
            return row
        await asyncio.sleep(min(left, _LOOK_SECONDS))


@router.get("/{session_id}/tariff-changes", summary="List the changes of a transaction's tariff, the oldest first")
async def list_tariff_changes(request: Request, session_id: UUID, _: Viewer) -> Response:
    """`applied` from `applies_from` on; `asked`: the station has not said yet that it uses it; or `refused`."""
    pool = api_of(request).pool
    if await pool.fetchval(store.FIND, session_id) is None:
        raise not_found("transaction", str(session_id))
    return page([dict(row) for row in await pool.fetch(store.CHANGES, session_id, MAX_CHANGES)], None)


def _summary(row: Any, key: ApiKey) -> dict[str, Any]:
    document = dict(row)
    token = document["id_token"]
    if token is not None and not key.may("operator"):
        document["id_token"] = masked(token)
    return document


def _reservation(row: Any) -> dict[str, Any] | None:
    """The reservation that a transaction uses; `None` without one."""
    if row is None:
        return None
    document = dict(row)
    document["reserved_seconds"] = max(0.0, (document.pop("ended_at") - row["made_at"]).total_seconds())
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
