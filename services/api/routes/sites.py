"""`/v1/sites`: where stations stand. Times of day in tariffs are those of its wall clock."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import AfterValidator, Field, StringConstraints

from busbar.pricing.clock import zone_problem
from services.api.context import Operator, Viewer, api_of
from services.api.problems import Problem, invalid, not_found
from services.api.reading import (
    DEFAULT_LIMIT,
    After,
    Body,
    JsonResponse,
    Limit,
    StationId,
    Text,
    TextQuery,
    documented,
    json_body,
    page,
    printable,
)
from services.api.store import sites as store

router = APIRouter(prefix="/v1/sites", tags=["sites"])


def time_zone(name: str) -> str:
    """The name, if it is a time zone's."""
    if problem := zone_problem(name):
        raise ValueError(problem)
    return name


TimeZone = Annotated[str, StringConstraints(max_length=255), AfterValidator(time_zone)]
Country = Annotated[str, StringConstraints(pattern="^[A-Z]{2}$")]
SitePath = Annotated[str, Path(min_length=1, max_length=255), AfterValidator(printable)]


class SiteSettings(Body):
    """What is known of a site. Fields that are absent stay as they are."""

    name: Text | None = None
    time_zone: TimeZone = "UTC"
    country_code: Annotated[Country | None, Field(description="ISO 3166-1 alpha-2")] = None
    postal_code: Annotated[Text, Field(max_length=10)] | None = None
    city: Annotated[Text, Field(max_length=45)] | None = None
    address: Annotated[Text, Field(max_length=45)] | None = None
    latitude: Annotated[Decimal, Field(ge=-90, le=90)] | None = None
    longitude: Annotated[Decimal, Field(ge=-180, le=180)] | None = None
    party_id: Annotated[str, StringConstraints(pattern="^[A-Z0-9]{3}$")] | None = None
    operator_country: Annotated[Country | None, Field(description="Of the party id")] = None


class NewSite(SiteSettings):
    """A site to be added."""

    site_id: StationId
    time_zone: TimeZone


_EXAMPLE = {
    "site_id": "berlin-7",
    "name": "Car park at the station",
    "time_zone": "Europe/Berlin",
    "country_code": "DE",
    "postal_code": "10557",
    "city": "Berlin",
    "address": "Europaplatz 1",
    "latitude": 52.525,
    "longitude": 13.369,
    "party_id": "ABC",
    "operator_country": "DE",
}


@router.post("", status_code=201, summary="Add a site", openapi_extra=documented(NewSite, _EXAMPLE))
async def create_site(request: Request, _: Operator, body: Annotated[NewSite, json_body(NewSite)]) -> Response:
    values = [getattr(body, name) for name in store.SETTINGS]
    row = await api_of(request).pool.fetchrow(store.CREATE, body.site_id, *values)
    if row is None:
        raise Problem(409, "site-exists", "There is such a site")
    return JsonResponse(dict(row), 201)


@router.get("", summary="List sites")
async def list_sites(
    request: Request, _: Viewer, limit: Limit = DEFAULT_LIMIT, after: After = None, q: TextQuery = None
) -> Response:
    """
    - **q**: the beginning of the site's id
    """
    rows = await api_of(request).pool.fetch(store.LIST, after or "", q, limit)
    return page([dict(row) for row in rows], rows[-1]["site_id"] if len(rows) == limit else None)


@router.get("/{site_id}", summary="Show a site")
async def show_site(request: Request, site_id: SitePath, _: Viewer) -> Response:
    return JsonResponse(await _found(request, site_id))


@router.patch("/{site_id}", summary="Change a site", openapi_extra=documented(SiteSettings, {"city": "Potsdam"}))
async def change_site(
    request: Request, site_id: SitePath, _: Operator, body: Annotated[SiteSettings, json_body(SiteSettings)]
) -> Response:
    """Sessions that go on keep the time zone with which they began."""
    changes = {name: getattr(body, name) for name in store.SETTINGS if name in body.model_fields_set}
    if not changes:
        raise invalid([{"path": "$", "message": "names nothing to change"}])
    row = await store.update_site(api_of(request).pool, site_id, changes)
    if row is None:
        raise not_found("site", site_id)
    return JsonResponse(dict(row))


@router.delete("/{site_id}", status_code=204, summary="Remove a site that no station names")
async def delete_site(request: Request, site_id: SitePath, _: Operator) -> Response:
    if await api_of(request).pool.fetchval(store.DELETE, site_id) is None:
        await _found(request, site_id)
        raise Problem(409, "site-in-use", "Stations name the site", "Move them first: PATCH /v1/stations/{id}.")
    return Response(status_code=204)


async def _found(request: Request, site_id: str) -> dict[str, Any]:
    row = await api_of(request).pool.fetchrow(store.FIND, site_id)
    if row is None:
        raise not_found("site", site_id)
    return dict(row)
