"""The read side of the Confluent schema registry protocol, so that any Kafka tool can decode the topics."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Request, Response

from busbar.avro import registry
from services.api.context import api_of

_NOT_JSON = {"error_code": 42201, "message": "The body is not JSON with a `schema`."}


async def _allowed(request: Request) -> None:
    """Schemas may be read with any key, as Bearer or as the password of Basic; without one if the setting says so."""
    api = api_of(request)
    if not api.config.open_registry:
        await api.keys.require(request.headers.get("authorization"), "viewer", basic=True)


router = APIRouter(tags=["schema registry"], dependencies=[Depends(_allowed)])


def _answer(value: Any, missing: dict[str, Any] | None = None) -> Response:
    if value is None and missing is not None:
        return Response(orjson.dumps(missing), 404, media_type=registry.CONTENT_TYPE)
    return Response(orjson.dumps(value), media_type=registry.CONTENT_TYPE)


@router.get("/schemas/types", summary="The kinds of schemas")
async def schema_types() -> Response:
    return _answer(registry.types())


@router.get("/schemas/ids/{number}", summary="A schema by its id, which every record begins with")
async def schema_by_id(number: int) -> Response:
    return _answer(registry.schema_by_id(number), registry.SCHEMA_NOT_FOUND)


@router.get("/schemas/ids/{number}/versions", summary="The subjects and versions that an id stands for")
async def versions_by_id(number: int) -> Response:
    return _answer(registry.versions_by_id(number), registry.SCHEMA_NOT_FOUND)


@router.get("/subjects", summary="All subjects: a topic's name with `-value`")
async def subjects() -> Response:
    return _answer(registry.subjects())


@router.get("/subjects/{subject}/versions", summary="The versions of a subject")
async def versions(subject: str) -> Response:
    return _answer(registry.versions(subject), registry.SUBJECT_NOT_FOUND)


@router.get("/subjects/{subject}/versions/{version}", summary="A version of a subject, or `latest`")
async def version(subject: str, version: str) -> Response:
    found = registry.version(subject, version)
    missing = registry.SUBJECT_NOT_FOUND if registry.versions(subject) is None else registry.VERSION_NOT_FOUND
    return _answer(found, missing)


@router.get("/subjects/{subject}/versions/{version}/schema", summary="Only the schema of a version")
async def version_schema(subject: str, version: str) -> Response:
    found = registry.version(subject, version)
    return _answer(None if found is None else orjson.Fragment(found["schema"]), registry.VERSION_NOT_FOUND)


@router.post("/subjects/{subject}", summary="Which version of a subject a schema is")
async def lookup(subject: str, request: Request) -> Response:
    try:
        schema = orjson.loads(await request.body())["schema"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        schema = None
    if not isinstance(schema, str):
        return Response(orjson.dumps(_NOT_JSON), 422, media_type=registry.CONTENT_TYPE)
    missing = registry.SUBJECT_NOT_FOUND if registry.versions(subject) is None else registry.SCHEMA_NOT_FOUND
    return _answer(registry.lookup(subject, schema), missing)


@router.post("/subjects/{subject}/versions", summary="Refused: schemas come with the release")
async def register(subject: str, request: Request) -> Response:
    """Serializers register before they write. One that brings a schema that is there already gets its id."""
    response = await lookup(subject, request)
    if response.status_code != 200:
        return Response(orjson.dumps(registry.READ_ONLY), 422, media_type=registry.CONTENT_TYPE)
    return _answer({"id": orjson.loads(bytes(response.body))["id"]})


@router.get("/config", summary="The compatibility that every change of a schema is held to")
@router.get("/config/{subject}", include_in_schema=False)
async def config(subject: Annotated[str, "not told apart"] = "") -> Response:
    return _answer(registry.config())


@router.get("/mode", summary="Always read-only")
@router.get("/mode/{subject}", include_in_schema=False)
async def mode(subject: Annotated[str, "not told apart"] = "") -> Response:
    return _answer(registry.mode())
