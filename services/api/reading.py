"""Reading requests: bodies, names in paths, cursors of lists; and writing JSON."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, TypeVar
from uuid import UUID

import orjson
from fastapi import Depends, Path, Query, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError

from services.api.handlers import json_errors
from services.api.problems import Problem, invalid

MAX_LIMIT = 1000
DEFAULT_LIMIT = 100
_SHOWN = 4
"""How many characters of an id token a viewer gets to see."""

Model = TypeVar("Model", bound=BaseModel)


def printable(value: str) -> str:
    """The text, if it has no control characters, which neither OCPP nor Postgres wants."""
    if any(character < " " or character == "\x7f" for character in value):
        raise ValueError("holds control characters")
    return value


def _station_id(value: str) -> str:
    if "/" in value or value != value.strip():
        raise ValueError("holds a slash, or begins or ends with a space")
    return printable(value)


Text = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(printable)]
StationId = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_station_id)]

StationPath = Annotated[
    str, Path(min_length=1, max_length=255, description="The station's identity"), AfterValidator(printable)
]
TextQuery = Annotated[str | None, Query(min_length=1, max_length=255), AfterValidator(lambda v: v and printable(v))]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="How many at most")]
After = Annotated[
    str | None,
    Query(max_length=1000, description="`next` of the page before"),
    AfterValidator(lambda v: v and printable(v)),
]


class Body(BaseModel):
    """A request's body: no unknown fields, no silent conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def json_body(model: type[Model]) -> Any:
    """A dependency: the body, read as this model, whatever its content type says."""

    async def read(request: Request) -> Model:
        return read_body(model, await request.body())

    reader: Callable[[Request], Awaitable[Model]] = read
    return Depends(reader)


def read_body(model: type[Model], body: bytes) -> Model:
    """Read JSON as a model. Raises `Problem`: 400 for what is not JSON, 422 with paths for what does not fit."""
    try:
        orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        raise Problem(400, "not-json", "The body is not JSON", str(error)[:200]) from None
    try:
        return model.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise invalid(json_errors(error)) from None


def documented(model: type[BaseModel], example: Any) -> dict[str, Any]:
    """The OpenAPI description of a body that `json_body` reads."""
    schema = model.model_json_schema()
    content = {"application/json": {"schema": schema, "example": example}}
    return {"requestBody": {"required": True, "content": content}}


def cursor(*parts: Any) -> str:
    """Where a page ended, for `after`."""
    return urlsafe_b64encode(orjson.dumps(parts)).decode().rstrip("=")


def read_cursor(text: str | None, *kinds: type) -> list[Any] | None:
    """The parts of a cursor. Raises `Problem` for one that we did not make."""
    if text is None:
        return None
    try:
        parts = orjson.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if len(parts) == len(kinds) and all(type(part) is kind for part, kind in zip(parts, kinds, strict=True)):
            return list(parts)
    except (binascii.Error, orjson.JSONDecodeError, TypeError, ValueError):
        pass
    raise invalid([{"path": "query.after", "message": "is not the `next` of an earlier page"}])


def read_position(text: str | None) -> tuple[datetime, UUID] | None:
    """The instant and the id that a page ended with, of lists that are in this order. Raises `Problem`."""
    parts = read_cursor(text, str, str)
    if parts is None:
        return None
    try:
        moment, row_id = datetime.fromisoformat(parts[0]), UUID(parts[1])
        if moment.tzinfo is not None:
            return moment, row_id
    except ValueError:
        pass
    raise invalid([{"path": "query.after", "message": "is not the `next` of an earlier page"}])


def masked(id_token: str) -> str:
    """What whoever only watches gets to see of an id token, which is personal data: enough to tell two apart."""
    return "…" + id_token[-_SHOWN:] if len(id_token) > 2 * _SHOWN else "…"


def _default(value: Any) -> Any:
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value.normalize(), "f"))
    if isinstance(value, UUID):  # asyncpg has a class of its own
        return str(value)
    raise TypeError(type(value).__name__)


def dump_json(value: Any) -> bytes:
    """JSON with instants in UTC and exact decimals."""
    return orjson.dumps(value, default=_default, option=orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC)


class JsonResponse(Response):
    """JSON, written by orjson."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return dump_json(content)


def page(items: list[dict[str, Any]], following: str | None) -> JsonResponse:
    """One page of a list; `next` is null on the last one."""
    return JsonResponse({"items": items, "next": following})


def embedded(text: str | None) -> Any:
    """A `jsonb` column, which comes as text, to be put into a response as it is."""
    return None if text is None else orjson.Fragment(text)
