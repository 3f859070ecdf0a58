"""`/v1/tariffs`: what charging costs. A tariff has versions whose content never changes; sessions keep theirs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import AfterValidator, AwareDatetime, Field

from busbar.pricing.assignment import read_tariff
from busbar.pricing.engine import Pricer
from busbar.pricing.facts import Fact
from busbar.pricing.jsontext import parse_json
from busbar.pricing.problems import Problem as TariffProblem
from busbar.pricing.problems import SessionError, TariffError
from busbar.pricing.session_json import read_facts
from busbar.pricing.tariff import Tariff
from busbar.pricing.translate import to_tariff_type
from services.api.context import Api, Operator, Viewer, api_of
from services.api.preview import MAX_FACTS, WhatIf, bill_document, facts_of_session
from services.api.problems import Problem, invalid, not_found
from services.api.reading import (
    DEFAULT_LIMIT,
    After,
    Body,
    JsonResponse,
    Limit,
    TextQuery,
    documented,
    embedded,
    json_body,
    page,
    printable,
)
from services.api.routes.sites import TimeZone
from services.api.store import tariffs as store

router = APIRouter(prefix="/v1/tariffs", tags=["tariffs"])

TariffPath = Annotated[
    str, Path(min_length=1, max_length=60, description="`id` or `tariffId` of its content"), AfterValidator(printable)
]
Version = Annotated[int, Path(ge=1, le=2_147_483_647)]
VersionQuery = Annotated[
    int | None, Query(ge=1, le=2_147_483_647, description="Else the one that sessions which start now have")
]
ValidFrom = Annotated[
    AwareDatetime | None, Query(description="From when sessions may start with it; a second from now at the earliest")
]

_OCPI_EXAMPLE = {
    "id": "day-and-night",
    "currency": "EUR",
    "tax_included": "NO",
    "elements": [
        {
            "price_components": [{"type": "ENERGY", "price": 0.35, "vat": 19, "step_size": 1}],
            "restrictions": {"start_time": "22:00", "end_time": "06:00"},
        },
        {
            "price_components": [
                {"type": "ENERGY", "price": 0.49, "vat": 19, "step_size": 1},
                {"type": "PARKING_TIME", "price": 6, "vat": 19, "step_size": 60},
            ]
        },
    ],
}
_OCPP_EXAMPLE = {
    "tariffId": "flat-rate",
    "currency": "EUR",
    "energy": {"prices": [{"priceKwh": 0.41}], "taxRates": [{"type": "VAT", "tax": 19}]},
}
_TARIFF_BODY = {
    "requestBody": {
        "required": True,
        "description": "A Tariff of OCPI 2.2.1 or 2.3.0, or a TariffType of OCPP 2.1",
        "content": {
            "application/json": {
                "schema": {"type": "object"},
                "examples": {"OCPI": {"value": _OCPI_EXAMPLE}, "OCPP 2.1": {"value": _OCPP_EXAMPLE}},
            }
        },
    }
}


@router.post("", status_code=201, summary="Add a tariff, or its next version", openapi_extra=_TARIFF_BODY)
async def create_tariff(request: Request, _: Operator, valid_from: ValidFrom = None) -> Response:
    """
    A tariff that exists gets another version; the content of its latest one again adds nothing, and is answered
    with 200. What cannot be priced is refused, with every reason and its path.
    """
    return await _add_version(request, None, valid_from)


@router.put("/{tariff_id}", summary="Set the content of a tariff: its next version", openapi_extra=_TARIFF_BODY)
async def put_tariff(request: Request, tariff_id: TariffPath, _: Operator, valid_from: ValidFrom = None) -> Response:
    return await _add_version(request, tariff_id, valid_from)


@router.post("/validate", summary="Say whether a tariff can be priced", openapi_extra=_TARIFF_BODY)
async def validate_tariff(request: Request, _: Viewer) -> Response:
    """Nothing is kept. `warnings` name what can be priced, but is likely a mistake."""
    try:
        tariff, _text = _read(await request.body())
    except TariffError as error:
        return JsonResponse({"valid": False, "errors": _reasons(error.problems), "warnings": []})
    return JsonResponse(
        {"valid": True, "errors": [], "warnings": tariff.warnings}
        | {
            "tariff_id": tariff.tariff_id,
            "format": store.format_name(tariff),
            "currency": tariff.currency,
            "fingerprint": tariff.fingerprint,
        }
    )


@router.get("", summary="List tariffs, each with its latest version")
async def list_tariffs(
    request: Request, _: Viewer, limit: Limit = DEFAULT_LIMIT, after: After = None, q: TextQuery = None
) -> Response:
    """
    - **q**: the beginning of the tariff's id
    """
    rows = await api_of(request).pool.fetch(store.LIST, after or "", q, limit)
    return page([dict(row) for row in rows], rows[-1]["tariff_id"] if len(rows) == limit else None)


@router.get("/{tariff_id}", summary="Show a tariff: the version of now, and all that there are")
async def show_tariff(request: Request, tariff_id: TariffPath, _: Viewer) -> Response:
    rows = await api_of(request).pool.fetch(store.VERSIONS, tariff_id)
    if not rows:
        raise not_found("tariff", tariff_id)
    in_force = [row for row in rows if row["in_force"]]
    current = max(in_force, key=lambda row: (row["valid_from"], row["version"])) if in_force else rows[-1]
    versions = [{name: row[name] for name in ("version", "valid_from", "fingerprint", "created_at")} for row in rows]
    return JsonResponse(_document(current) | {"versions": versions})


@router.get("/{tariff_id}/versions/{version}", summary="Show a version")
async def show_version(request: Request, tariff_id: TariffPath, version: Version, _: Viewer) -> Response:
    return JsonResponse(_document(await _found(api_of(request), tariff_id, version)))


@router.delete("/{tariff_id}/versions/{version}", status_code=204, summary="Remove a version that is not valid yet")
async def remove_version(request: Request, tariff_id: TariffPath, version: Version, _: Operator) -> Response:
    api = api_of(request)
    if await api.pool.fetchval(store.REMOVE, tariff_id, version) is None:
        await _found(api, tariff_id, version)
        detail = "Sessions may have it. End its assignments, or put another version in its place."
        raise Problem(409, "tariff-version-valid", "The version is valid already", detail)
    return Response(status_code=204)


@router.get("/{tariff_id}/ocpp", summary="The tariff as a TariffType of OCPP 2.1")
async def translate_tariff(
    request: Request,
    tariff_id: TariffPath,
    _: Viewer,
    version: VersionQuery = None,
    max_elements: Annotated[
        int | None, Query(ge=1, le=1000, description="The station's TariffCostCtrlr.MaxElements[Tariff]")
    ] = None,
    conditions: Annotated[bool, Query(description="The station's TariffCostCtrlr.ConditionsSupported[Tariff]")] = True,
) -> Response:
    """`findings` name what it does not say as the original does; `exact`: no session comes to another price."""
    row = await _found(api_of(request), tariff_id, version)
    head = {"tariff_id": row["tariff_id"], "version": row["version"]}
    if row["format"] == "ocpp-2.1":
        return JsonResponse(head | {"exact": True, "tariff": embedded(row["content"]), "findings": []})
    tariff = read_tariff(row["content"])
    made = to_tariff_type(tariff, max_elements=max_elements, conditions_supported=conditions)
    findings = [{"path": item.path, "message": item.reason, "lossy": item.lossy} for item in made.findings]
    return JsonResponse(head | {"exact": made.exact, "tariff": dict(made.tariff), "findings": findings})


class PriceRequest(Body):
    """A session to be priced: a what-if, facts, or one that exists."""

    what_if: WhatIf | None = None
    facts: Annotated[
        list[Any] | None,
        Field(
            min_length=1,
            max_length=MAX_FACTS,
            description="Each with `kind` (started, sampled, ended, reserved, reservation_expired, "
            "reservation_cancelled), `at`, and what is known: `register_wh`, `state`, `power_w`, `current_a`",
        ),
    ] = None
    session_id: Annotated[UUID | None, Field(description="`session_id` of a transaction")] = None
    time_zone: TimeZone | None = None


_WHAT_IF = {
    "what_if": {"start": "2026-11-21T21:30:00+01:00", "energy_wh": 22000, "power_w": 11000, "parking_seconds": 1800},
    "time_zone": "Europe/Berlin",
}


@router.post(
    "/{tariff_id}/price", summary="Say what a session would cost", openapi_extra=documented(PriceRequest, _WHAT_IF)
)
async def price(
    request: Request,
    tariff_id: TariffPath,
    _: Viewer,
    body: Annotated[PriceRequest, json_body(PriceRequest)],
    version: VersionQuery = None,
) -> Response:
    """
    Nothing is kept. The answer is the bill, line by line, with a receipt as text. Without `time_zone` it is that of the
    session's site, else `BUSBAR_TIME_ZONE`.
    """
    api = api_of(request)
    if [body.what_if, body.facts, body.session_id].count(None) != 2:
        raise invalid([{"path": "$", "message": "has to hold one of what_if, facts and session_id"}])
    row = await _found(api, tariff_id, version)
    zone = body.time_zone or api.config.time_zone
    if body.what_if is not None:
        facts = body.what_if.facts()
    elif body.session_id is not None:
        facts, site_zone = await _recorded(api, body.session_id)
        zone = body.time_zone or site_zone or zone
    else:
        facts = _given(await request.body())
    bill = Pricer(read_tariff(row["content"]), zone).price(facts)
    head = {"tariff_id": row["tariff_id"], "version": row["version"]}
    return JsonResponse(head | bill_document(bill, zone))


def _given(body: bytes) -> list[Fact]:
    try:
        # Read once more: numbers as they were written, to the digit.
        return list(read_facts(parse_json(body)["facts"]).facts)
    except (TariffError, SessionError) as error:
        problems = [TariffProblem("$.facts" + problem.path[1:], problem.reason) for problem in error.problems]
        raise invalid(_reasons(problems)) from None


async def _recorded(api: Api, session_id: UUID) -> tuple[list[Fact], str | None]:
    session = await api.pool.fetchrow(store.RECORDED_SESSION, session_id)
    if session is None:
        raise not_found("transaction", str(session_id))
    rows = [row["facts"] for row in await api.pool.fetch(store.RECORDED_FACTS, session_id)]
    return facts_of_session(rows, session), session["time_zone"]


async def _add_version(request: Request, tariff_id: str | None, valid_from: datetime | None) -> Response:
    try:
        tariff, content = _read(await request.body())
    except TariffError as error:
        raise _unpriceable(error.problems) from None
    if "/" in tariff.tariff_id:
        raise _unpriceable([TariffProblem(_id_path(tariff), "holds a slash")])
    if tariff_id is not None and tariff_id != tariff.tariff_id:
        raise _unpriceable([TariffProblem(_id_path(tariff), "is not the tariff of the request's path")])
    if valid_from is not None and valid_from < datetime.now(UTC):
        raise invalid([{"path": "query.valid_from", "message": "is past: sessions have begun since with another"}])
    row, added = await store.add_version(api_of(request).pool, tariff, content, valid_from)
    return JsonResponse(_document(row) | {"warnings": tariff.warnings}, 201 if added else 200)


def _read(body: bytes) -> tuple[Tariff, str]:
    try:
        content = body.decode()
    except UnicodeDecodeError:
        raise TariffError([TariffProblem("$", "is not UTF-8")]) from None
    return read_tariff(content), content


def _unpriceable(problems: Sequence[TariffProblem]) -> Problem:
    # Every reason, however many: `extra` is not cut.
    return Problem(422, "tariff-not-priceable", "The tariff cannot be priced", extra={"errors": _reasons(problems)})


def _reasons(problems: Sequence[TariffProblem]) -> list[dict[str, str]]:
    return [{"path": problem.path, "message": problem.reason} for problem in problems]


def _id_path(tariff: Tariff) -> str:
    return "$.tariffId" if tariff.format.startswith("OCPP") else "$.id"


async def _found(api: Api, tariff_id: str, version: int | None) -> Any:
    if version is None:
        row = await api.pool.fetchrow(store.CURRENT, tariff_id)
    else:
        row = await api.pool.fetchrow(store.FIND, tariff_id, version)
    if row is None:
        raise not_found("tariff", tariff_id if version is None else f"{tariff_id} version {version}")
    return row


def _document(row: Any) -> dict[str, Any]:
    names = ("tariff_id", "version", "format", "currency", "fingerprint", "valid_from", "created_at")
    return {name: row[name] for name in names} | {"content": embedded(row["content"])}
