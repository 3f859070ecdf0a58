"""`/v1/tariff-assignments`: which sessions have which tariff, and why."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID, uuid4

from fastapi import APIRouter, Query, Request, Response
from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from busbar.pricing.assignment import Assignment, Scope, SessionStart
from busbar.tariffs import TariffBook
from services.api.auth import ApiKey
from services.api.context import Operator, Viewer, api_of
from services.api.preview import unix_ms
from services.api.problems import Problem, invalid, not_found
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
    printable,
    read_position,
)
from services.api.store import tariffs as store
from services.api.store.tokens import token_key

router = APIRouter(prefix="/v1/tariff-assignments", tags=["tariffs"])

ScopeName = Literal["token", "token_group", "connector", "station", "site", "default"]
_CONNECTOR = re.compile(r"[^/]+/[0-9]+(/[0-9]+)?")


class NewAssignment(Body):
    """A tariff for some sessions."""

    tariff_id: Annotated[Text, Field(max_length=60)]
    scope: ScopeName
    subject: Annotated[
        str,
        Field(
            max_length=255,
            description="The id token, the group, STATION/CONNECTOR (1.6) or STATION/EVSE/CONNECTOR (2.x), the "
            "station, the site; none for the default",
        ),
        AfterValidator(printable),
    ] = ""
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 0
    valid_from: AwareDatetime | None = None
    valid_until: AwareDatetime | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.scope == "default") is bool(self.subject):
            raise ValueError("subject is whom the scope means: the default has none, all others need one")
        if self.scope == "connector" and not _CONNECTOR.fullmatch(self.subject):
            raise ValueError("subject of a connector is STATION/CONNECTOR or STATION/EVSE/CONNECTOR")
        begin = self.valid_from or datetime.now(UTC)
        if self.valid_until is not None and self.valid_until <= begin:
            raise ValueError("valid_until is not after the begin")
        return self


_EXAMPLE = {"tariff_id": "day-and-night", "scope": "site", "subject": "berlin-7"}


@router.post("", status_code=201, summary="Assign a tariff", openapi_extra=documented(NewAssignment, _EXAMPLE))
async def create_assignment(
    request: Request, _: Operator, body: Annotated[NewAssignment, json_body(NewAssignment)]
) -> Response:
    """
    It holds for sessions that start from `valid_from` on, a second from now at the earliest. The most particular one
    wins: token, token group, connector, station, site, default; within a scope the highest priority.
    """
    if body.valid_from is not None and body.valid_from < datetime.now(UTC):
        raise invalid([{"path": "$.valid_from", "message": "is past: sessions have begun since without it"}])
    subject = token_key(body.subject) if body.scope == "token" else body.subject
    row = await api_of(request).pool.fetchrow(
        store.ASSIGN,
        uuid4(),
        body.tariff_id,
        body.scope,
        subject,
        body.priority,
        body.valid_from,
        body.valid_until,
    )
    if row is None:
        raise invalid([{"path": "$.tariff_id", "message": "there is no such tariff"}])
    return JsonResponse(dict(row), 201)


@router.get("", summary="List assignments, the newest first")
async def list_assignments(
    request: Request,
    key: Viewer,
    limit: Limit = DEFAULT_LIMIT,
    after: After = None,
    tariff: TextQuery = None,
    scope: ScopeName | None = None,
    subject: TextQuery = None,
    standing: Annotated[bool | None, Query(description="Whether it has not ended")] = None,
) -> Response:
    """
    - **subject**: with the scope token it needs the role operator
    """
    if subject is not None:
        if scope in (None, "token") and not key.may("operator"):
            raise Problem(403, "forbidden", "The key's role does not suffice", "Searching by token takes an operator.")
        subject = token_key(subject) if scope == "token" else subject
    wanted = {"tariff_id": tariff, "scope": scope, "subject": subject}
    rows = await store.list_assignments(api_of(request).pool, wanted, standing, read_position(after), limit)
    following = None
    if len(rows) == limit:
        following = cursor(rows[-1]["created_at"].isoformat(), str(rows[-1]["assignment_id"]))
    return page([_document(row, key) for row in rows], following)


@router.get("/decide", summary="Say which tariff a session would have, and why")
async def decide(
    request: Request,
    key: Viewer,
    station: Annotated[str, Query(min_length=1, max_length=255)],
    connector: Annotated[int | None, Query(ge=0, le=2_147_483_647)] = None,
    evse: Annotated[int | None, Query(ge=0, le=2_147_483_647, description="OCPP 2.x; 1.6 has none")] = None,
    token: TextQuery = None,
    group: Annotated[TextQuery, Query(description="Else that of the token")] = None,
    site: Annotated[TextQuery, Query(description="Else that of the station")] = None,
    profile: Annotated[
        Literal["AD_HOC_PAYMENT", "PROFILE_CHEAP", "PROFILE_FAST", "PROFILE_GREEN", "REGULAR"] | None,
        Query(description="Only tariffs of this OCPI TariffType, or of none"),
    ] = None,
    at: Annotated[AwareDatetime | None, Query(description="When it starts; now if not given")] = None,
) -> Response:
    """
    `passed_over` are assignments that would have gone before, each with the reason why they do not count.

    - **token**: needs the role operator
    """
    if token is not None and not key.may("operator"):
        raise Problem(403, "forbidden", "The key's role does not suffice", "Looking at a token takes an operator.")
    api = api_of(request)
    token = None if token is None else token_key(token)
    async with api.pool.acquire() as connection:
        await api.tariffs.refresh(connection)
        known = await connection.fetchrow(store.FACTS_OF_START, station, token)
    assert known is not None
    start = SessionStart(
        at_ms=api.clock() if at is None else unix_ms(at),
        station_id=station,
        connector_id=connector,
        evse_id=evse,
        site_id=site or known["site_id"],
        token_key=token,
        group_id=group or known["group_id"],
        profile=profile,
    )
    return JsonResponse(_decision(api.tariffs, start, key))


@router.get("/{assignment_id}", summary="Show an assignment")
async def show_assignment(request: Request, assignment_id: UUID, key: Viewer) -> Response:
    return JsonResponse(_document(await _found(request, assignment_id), key))


class End(Body):
    """When an assignment ends."""

    at: AwareDatetime | None = None


@router.post(
    "/{assignment_id}/end",
    summary="End an assignment",
    openapi_extra=documented(End, {"at": "2027-01-01T00:00:00+01:00"}),
)
async def end_assignment(
    request: Request, assignment_id: UUID, key: Operator, body: Annotated[End, json_body(End)]
) -> Response:
    """For sessions that start later; those that go on keep their tariff. Without `at` it ends a second from now."""
    row = await api_of(request).pool.fetchrow(store.END_ASSIGNMENT, assignment_id, body.at)
    if row is None:
        await _found(request, assignment_id)
        raise Problem(409, "assignment-ended", "The assignment has ended already")
    return JsonResponse(_document(row, key))


def _decision(book: TariffBook, start: SessionStart, key: ApiKey) -> dict[str, Any]:
    decision = book.decide(start)
    version = decision.version
    chosen = None
    if version is not None:
        chosen = {
            "tariff_id": version.tariff_id,
            "version": version.version,
            "currency": version.tariff.currency,
            "fingerprint": version.tariff.fingerprint,
        }
    return {
        "tariff": chosen,
        "assignment": None if decision.assignment is None else _named(decision.assignment, key),
        "time_zone": book.time_zone(start.site_id),
        "passed_over": [_named(item, key) | {"reason": reason} for item, reason in decision.passed_over],
        "session": {
            "at": datetime.fromtimestamp(start.at_ms / 1000, UTC),
            "station_id": start.station_id,
            "evse_id": start.evse_id,
            "connector_id": start.connector_id,
            "site_id": start.site_id,
            "group_id": start.group_id,
        },
    }


def _named(item: Assignment, key: ApiKey) -> dict[str, Any]:
    return {
        "assignment_id": item.assignment_id,
        "tariff_id": item.tariff_id,
        "scope": item.scope.name.lower(),
        "subject": _subject(item.scope is Scope.TOKEN, item.subject, key),
        "priority": item.priority,
    }


def _document(row: Any, key: ApiKey) -> dict[str, Any]:
    return dict(row) | {"subject": _subject(row["scope"] == "token", row["subject"], key)}


def _subject(of_token: bool, subject: str, key: ApiKey) -> str:
    return masked(subject) if of_token and not key.may("operator") else subject


async def _found(request: Request, assignment_id: UUID) -> Any:
    row = await api_of(request).pool.fetchrow(store.FIND_ASSIGNMENT, assignment_id)
    if row is None:
        raise not_found("tariff assignment", str(assignment_id))
    return row
