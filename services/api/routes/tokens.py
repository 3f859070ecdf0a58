"""`/v1/tokens`: who may charge. Id tokens are personal data: reading them takes an operator, and no log has them."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request, Response
from pydantic import AfterValidator, AwareDatetime, Field

from services.api.context import Operator, api_of
from services.api.problems import Problem, invalid, not_found
from services.api.reading import (
    DEFAULT_LIMIT,
    After,
    Body,
    JsonResponse,
    Limit,
    Text,
    TextQuery,
    documented,
    json_body,
    page,
    printable,
)
from services.api.store import tokens as store

router = APIRouter(prefix="/v1/tokens", tags=["tokens"])

Status = Literal[
    "Accepted",
    "Blocked",
    "ConcurrentTx",
    "Expired",
    "Invalid",
    "NoCredit",
    "NotAllowedTypeEVSE",
    "NotAtThisLocation",
    "NotAtThisTime",
    "Unknown",
]
Names = Annotated[list[Text], Field(max_length=10_000)]
TokenPath = Annotated[
    str, Path(min_length=1, max_length=255, description="In upper or lower case"), AfterValidator(printable)
]


class TokenSettings(Body):
    """What a token may do. Fields that are absent stay as they are, or take their default at creation."""

    id_token_type: Annotated[Text, Field(max_length=20)] = "Central"  # noqa: S105
    status: Status = "Accepted"
    expires_at: AwareDatetime | None = None
    valid_from: AwareDatetime | None = None
    group_id: Text | None = None
    cache_expires_seconds: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    allow_concurrent: bool = False
    max_concurrent: Annotated[int, Field(ge=1, le=10_000)] = 1
    allowed_stations: Names | None = None
    allowed_sites: Names | None = None
    language: Annotated[Text, Field(max_length=8)] | None = None
    contract_id: Text | None = None
    max_cost: Annotated[Decimal, Field(ge=0, max_digits=18, decimal_places=6)] | None = None
    max_energy_wh: Annotated[int, Field(ge=1, le=10**12)] | None = None
    max_time_seconds: Annotated[int, Field(ge=1, le=10**9)] | None = None


class NewToken(TokenSettings):
    """A token to be added."""

    id_token: Text


_EXAMPLE = {
    "id_token": "04A2B3C4D5E680",
    "id_token_type": "ISO14443",
    "group_id": "fleet-7",
    "expires_at": "2027-12-31T23:59:59Z",
}


@router.post("", status_code=201, summary="Add a token", openapi_extra=documented(NewToken, _EXAMPLE))
async def create_token(request: Request, _: Operator, body: Annotated[NewToken, json_body(NewToken)]) -> Response:
    values = [getattr(body, name) for name in store.SETTINGS]
    key = store.token_key(body.id_token)
    row = await api_of(request).pool.fetchrow(store.CREATE, body.id_token, key, *values)
    if row is None:
        raise Problem(409, "token-exists", "There is such a token", "Tokens are the same in upper and lower case.")
    return JsonResponse(_document(row), 201)


@router.get("", summary="List tokens")
async def list_tokens(
    request: Request,
    _: Operator,
    limit: Limit = DEFAULT_LIMIT,
    after: After = None,
    q: TextQuery = None,
    status: Status | None = None,
    group: TextQuery = None,
) -> Response:
    """
    - **q**: the beginning of the token
    """
    prefix = None if q is None else store.token_key(q)
    rows = await api_of(request).pool.fetch(store.LIST, after or "", prefix, status, group, limit)
    following = rows[-1]["id_token_key"] if len(rows) == limit else None
    return page([_document(row) for row in rows], following)


@router.get("/{id_token:path}", summary="Show a token")
async def show_token(request: Request, id_token: TokenPath, _: Operator) -> Response:
    row = await api_of(request).pool.fetchrow(store.FIND, store.token_key(id_token))
    if row is None:
        raise not_found("token", id_token)
    return JsonResponse(_document(row))


@router.patch(
    "/{id_token:path}",
    summary="Change a token",
    openapi_extra=documented(TokenSettings, {"status": "Blocked"}),
)
async def change_token(
    request: Request,
    id_token: TokenPath,
    _: Operator,
    body: Annotated[TokenSettings, json_body(TokenSettings)],
) -> Response:
    changes = {name: getattr(body, name) for name in store.SETTINGS if name in body.model_fields_set}
    if not changes:
        raise invalid([{"path": "$", "message": "names nothing to change"}])
    row = await store.update_token(api_of(request).pool, id_token, changes)
    if row is None:
        raise not_found("token", id_token)
    return JsonResponse(_document(row))


@router.delete("/{id_token:path}", status_code=204, summary="Remove a token")
async def delete_token(request: Request, id_token: TokenPath, _: Operator) -> Response:
    deleted = await api_of(request).pool.fetchval(store.DELETE, store.token_key(id_token))
    if deleted is None:
        raise not_found("token", id_token)
    return Response(status_code=204)


def _document(row: Any) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "id_token_key"}
