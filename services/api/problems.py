"""Errors of the HTTP API: problem documents (RFC 9457) that name what is wrong and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 20

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string", "example": "urn:busbar:problem:invalid-payload"},
        "title": {"type": "string", "example": "The payload does not fit the action"},
        "status": {"type": "integer", "example": 422},
        "detail": {"type": "string", "example": "Reset of OCPP 1.6 does not take this payload"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "path": {"type": "string", "example": "$.type"},
                    "message": {"type": "string", "example": "is none of Hard, Soft"},
                },
            },
        },
    },
}
"""Of a problem document, for OpenAPI."""


class Problem(Exception):  # noqa: N818 - it is what RFC 9457 calls it
    """What is wrong with a request, in the words that its sender gets.

    Args:
        kind: A short stable word, the last part of `urn:busbar:problem:<kind>`.
        errors: Each with a `path` (JSONPath of the body, or `query.<name>`) and a `message`.
        extra: Further members of the document.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        title: str,
        detail: str = "",
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{status} {kind}")
        self.status = status
        self.kind = kind
        self.title = title
        self.detail = detail
        self.errors = errors
        self.headers = headers or {}
        self.extra = extra or {}

    def document(self) -> dict[str, Any]:
        """The problem document."""
        document: dict[str, Any] = {
            "type": f"urn:busbar:problem:{self.kind}",
            "title": self.title,
            "status": self.status,
        }
        if self.detail:
            document["detail"] = self.detail
        if self.errors:
            document["errors"] = [dict(error) for error in self.errors[:MAX_ERRORS]]
        return document | dict(self.extra)


def not_found(what: str, name: str) -> Problem:
    """Nothing of that name exists."""
    return Problem(
        404, f"unknown-{what.replace(' ', '-')}", f"There is no such {what}", f"No {what} is named {name!r}."
    )


def invalid(errors: Sequence[Mapping[str, str]], detail: str = "") -> Problem:
    """The request can be read, but not accepted."""
    return Problem(422, "invalid-request", "The request is not valid", detail, errors=errors)


def unavailable(what: str, detail: str = "") -> Problem:
    """Something that the answer needs cannot be reached."""
    return Problem(
        503, f"{what}-unavailable", f"{what.capitalize()} is not available", detail, headers={"Retry-After": "5"}
    )
