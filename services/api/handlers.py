"""Exceptions of handlers, as problem documents."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import asyncpg
import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from services.api.problems import MAX_ERRORS, MEDIA_TYPE, Problem, invalid, unavailable

logger = logging.getLogger(__name__)

_SHOWN = 200

_DATABASE_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    OSError,  # TimeoutError is one
)


def respond(problem: Problem) -> Response:
    """The response that a problem becomes."""
    return Response(orjson.dumps(problem.document()), problem.status, dict(problem.headers), MEDIA_TYPE)


def json_errors(error: ValidationError) -> list[dict[str, str]]:
    """What pydantic found, as paths and messages; the values themselves are not repeated."""
    return [
        {"path": json_path(item["loc"]), "message": _message(item["msg"])}
        for item in error.errors(include_url=False, include_context=False, include_input=False)[:MAX_ERRORS]
    ]


def json_path(location: Sequence[str | int]) -> str:
    """`$.meterValue[0].timestamp`; over-long names are cut."""
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{str(part)[:50]}" for part in location)


def _message(text: str) -> str:
    return text.removeprefix("Value error, ")[:_SHOWN]


def install(app: FastAPI) -> None:
    """Turn every exception that a handler may raise into a problem document."""

    async def problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return respond(error)

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind = {404: "unknown-path", 405: "method-not-allowed"}.get(error.status_code, "http")
        return respond(Problem(error.status_code, kind, str(error.detail), headers=error.headers))

    async def parameters(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        errors = [
            {"path": ".".join(str(part) for part in item["loc"])[:_SHOWN], "message": _message(item["msg"])}
            for item in error.errors()[:MAX_ERRORS]
        ]
        return respond(invalid(errors))

    async def data(_: Request, error: Exception) -> Response:
        logger.warning("a value that the database refuses reached it", extra={"error": type(error).__name__})
        return respond(invalid([], "A value is outside of what can be stored."))

    async def database(_: Request, error: Exception) -> Response:
        logger.error("PostgreSQL cannot be used", extra={"error": repr(error)})
        return respond(unavailable("database"))

    async def unexpected(request: Request, error: Exception) -> Response:
        route = getattr(request.scope.get("route"), "path", "")
        logger.error("a request failed", exc_info=error, extra={"method": request.method, "route": route})
        return respond(Problem(500, "internal", "Something went wrong on our side"))

    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, parameters)
    app.add_exception_handler(asyncpg.DataError, data)
    for kind in _DATABASE_AWAY:
        app.add_exception_handler(kind, database)
    app.add_exception_handler(Exception, unexpected)
