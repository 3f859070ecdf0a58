"""What the commands that ask the HTTP API have in common: where it is, with which key, and its refusals in one line."""

from __future__ import annotations

import functools
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import urlencode

import click

from busbar.cli._kafka import run_file_option
from busbar.local.errors import StackError
from busbar.local.runfile import RunFile
from busbar.pricing.jsontext import parse_json

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_TIMEOUT_SECONDS = 30.0
PAGE = 1000
_CHUNK = 64 * 1024


class RefusedError(StackError):
    """The API does not do it."""

    def __init__(self, status: int, document: dict[str, Any]) -> None:
        self.status = status
        self.document = document
        super().__init__(_refusal(status, document))


@dataclass(frozen=True, slots=True)
class Api:
    """The HTTP API, with a key."""

    url: str
    key: str

    def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    ) -> bytes:
        """The body of the response.

        Args:
            query: Names and values; `None` is left out.

        Raises:
            StackError: The API is not there.
            RefusedError: It is, and does not do it.
        """
        with self._opened(method, path, query, body, headers, timeout_seconds) as response:
            content: bytes = response.read()
            return content

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A JSON object, its fractions as Decimals."""
        value = parse_json(self.ask("GET", path, query))
        return value if isinstance(value, dict) else {}

    def items(self, path: str, query: Mapping[str, Any], limit: int | None) -> Iterator[dict[str, Any]]:
        """The items of a list, page by page, so many at most."""
        after = None
        while limit is None or limit > 0:
            size = PAGE if limit is None else min(limit, PAGE)
            page = self.get(path, {**query, "limit": size, "after": after})
            yield from page["items"]
            limit = None if limit is None else limit - len(page["items"])
            after = page["next"]
            if after is None:
                return

    def download(self, path: str, query: Mapping[str, Any]) -> Iterator[bytes]:
        """A response of any length, in pieces. Raises `StackError` if it breaks off."""
        received = 0
        with self._opened("GET", path, query, None, None, 120.0) as response:
            try:
                while piece := response.read(_CHUNK):
                    received += len(piece)
                    yield piece
                complete = not response.length
            except (HTTPException, OSError):
                complete = False
            if not complete:
                raise StackError(f"the download broke off after {received} bytes: try again, or for a shorter time")

    @contextmanager
    def _opened(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: bytes | None,
        headers: Mapping[str, str] | None,
        timeout_seconds: float,
    ) -> Iterator[Any]:
        given = {name: _text(value) for name, value in (query or {}).items() if value is not None}
        url = f"{self.url.rstrip('/')}{path}{'?' if given else ''}{urlencode(given)}"
        sent = {"Authorization": f"Bearer {self.key}", **(headers or {})}
        if body is not None:
            sent["Content-Type"] = "application/json"
        request = urllib.request.Request(url, data=body, headers=sent, method=method)  # noqa: S310 - given by the user
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            response = opener.open(request, timeout=timeout_seconds)
        except urllib.error.HTTPError as error:
            raise RefusedError(error.code, _object(error.read())) from None
        except (urllib.error.URLError, OSError, TimeoutError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise StackError(f"the API at {self.url} does not answer ({reason}): is it running?") from None
        with response:
            yield response


def api_options(function: Callable[Concatenate[Api, P], T]) -> Callable[..., T]:
    """`--api-url`, `--key` and `--run-file`, handed over as an `Api`."""

    @click.option(
        "--api-url", envvar="BUSBAR_API_URL", show_envvar=True, help="That of the running stack unless given."
    )
    @click.option("--key", envvar="BUSBAR_API_KEY", show_envvar=True, help="API key; that of the stack unless given.")
    @run_file_option
    @functools.wraps(function)
    def wrapped(*args: Any, api_url: str | None, key: str | None, run_file: Path, **kwargs: Any) -> T:
        if api_url is None or key is None:
            running = RunFile.read(run_file)
            api_url, key = api_url or running.api_url, key or running.admin_key
        return function(Api(api_url, key), *args, **kwargs)

    return wrapped


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _refusal(status: int, problem: dict[str, Any]) -> str:
    """A problem document in one line."""
    parts = [problem.get("title") or f"the API answered {status}", problem.get("detail")]
    parts += [f"{error.get('path')} {error.get('message')}" for error in problem.get("errors", [])[:3]]
    if status == 401:
        parts.append("give an API key with --key or BUSBAR_API_KEY")
    return ": ".join(str(part).rstrip(".") for part in parts if part)
