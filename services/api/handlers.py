"""Exceptions of handlers, as problem documents."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

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
    asyncpg.InternalClientError,
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


def problem_of(error: Exception, method: str = "", route: str = "") -> Problem:
    """What to tell the sender of a request about any exception that a handler may raise."""
    match error:
        case Problem():
            return error
        case HTTPException():
            kind = {404: "unknown-path", 405: "method-not-allowed"}.get(error.status_code, "http")
            return Problem(error.status_code, kind, str(error.detail), headers=error.headers)
        case RequestValidationError():
            return invalid([_parameter(item) for item in error.errors()[:MAX_ERRORS]])
        case asyncpg.DataError():
            logger.warning("a value that the database refuses reached it", extra={"error": type(error).__name__})
            return invalid([], "A value is outside of what can be stored.")
    if isinstance(error, _DATABASE_AWAY):
        logger.error("PostgreSQL cannot be used", extra={"error": repr(error)})
        return unavailable("database")
    logger.error("a request failed", exc_info=error, extra={"method": method, "route": route})
    return Problem(500, "internal", "Something went wrong on our side")


def _parameter(item: dict[str, Any]) -> dict[str, str]:
    return {"path": ".".join(str(part) for part in item["loc"])[:_SHOWN], "message": _message(item["msg"])}


def install(app: FastAPI) -> None:
    """Answer every exception with a problem document."""

    async def answer(request: Request, error: Exception) -> Response:
        return respond(problem_of(error, request.method, getattr(request.scope.get("route"), "path", "")))

    for kind in (Problem, HTTPException, RequestValidationError, asyncpg.DataError, *_DATABASE_AWAY, Exception):
        app.add_exception_handler(kind, answer)
