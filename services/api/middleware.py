"""Around every request: the size of bodies, metrics, and headers that browsers heed."""

from __future__ import annotations

import asyncio
import time
from functools import lru_cache
from typing import Any

import orjson
from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.api import metrics
from services.api.problems import MEDIA_TYPE, Problem

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LINGER_SECONDS = 1.0
_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


class RequestGate:
    """Pure ASGI, since it stands in the way of every request."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500
        unread = False

        async def send_counted(message: Message) -> None:
            nonlocal status, unread
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message.get("headers", ())
                unread = (b"connection", b"close") in headers
                message["headers"] = [*headers, *_HEADERS]
            elif unread and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await _discard(receive)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        try:
            if _declared_length(scope) > self._max_body_bytes:
                await _refuse(send_counted, self._problem())
            else:
                await self._app(scope, self._limited(receive), send_counted)
        finally:
            count, seconds = _children(_route(scope), scope["method"], status)
            count.inc()
            seconds.observe(time.perf_counter() - began)

    def _limited(self, receive: Receive) -> Receive:
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_body_bytes:
                raise self._problem()
            return message

        return receive_limited

    def _problem(self) -> Problem:
        detail = f"A body may have {self._max_body_bytes} bytes."
        # Nobody reads the rest of the body, so the connection cannot go on.
        return Problem(413, "too-large", "The body is too large", detail, headers={"Connection": "close"})


@lru_cache(maxsize=1024)
def _children(route: str, method: str, status: int) -> tuple[Counter, Histogram]:
    known = method if method in _METHODS else "other"
    return metrics.REQUESTS.labels(route, known, status), metrics.REQUEST_SECONDS.labels(route)


def _declared_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0


def _route(scope: Scope) -> str:
    """The template of the route that was met, never the path itself, which holds station ids and tokens."""
    route: Any = scope.get("route")
    return getattr(route, "path", None) or scope.get("busbar.route") or "unknown"


async def _discard(receive: Receive) -> None:
    """Read what a client still sends of a body that was refused, for a while.

    A socket that is closed with unread bytes is reset, and a reset takes away the answer that the client has not read
    yet (RFC 9112 §9.6).
    """
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
                pass
    except TimeoutError:
        pass


async def _refuse(send: Send, problem: Problem) -> None:
    body = orjson.dumps(problem.document())
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
