"""The read side of the Confluent schema registry protocol, answered from the lock file.

Pure functions that return the bodies of answers; whoever serves HTTP turns `None` into a 404 with the fitting error
of this module. With this, `kcat`, Kafka Connect, Flink and user interfaces decode the topics without a registry.
"""

from __future__ import annotations

from typing import Any

from busbar.avro.errors import SchemaError
from busbar.avro.lock import Lock, LockedSchema, shipped_lock
from busbar.avro.schema import parse_schema

CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"

SUBJECT_NOT_FOUND = {"error_code": 40401, "message": "Subject not found."}
VERSION_NOT_FOUND = {"error_code": 40402, "message": "Version not found."}
SCHEMA_NOT_FOUND = {"error_code": 40403, "message": "Schema not found."}
READ_ONLY = {"error_code": 42205, "message": "This registry is read-only: schemas come with the release."}

COMPATIBILITY = "FULL_TRANSITIVE"
"""What the tests hold every change of a schema to: readable both ways, against all versions there have been."""


def schema_by_id(number: int) -> dict[str, Any] | None:
    """`GET /schemas/ids/{id}`."""
    entry = shipped_lock().by_id.get(number)
    return None if entry is None else {"schema": entry.schema}


def versions_by_id(number: int) -> list[dict[str, Any]] | None:
    """`GET /schemas/ids/{id}/versions`."""
    entry = shipped_lock().by_id.get(number)
    return None if entry is None else [{"subject": entry.subject, "version": entry.version}]


def types() -> list[str]:
    """`GET /schemas/types`."""
    return ["AVRO"]


def subjects() -> list[str]:
    """`GET /subjects`."""
    return sorted({entry.subject for entry in shipped_lock().entries})


def versions(subject: str) -> list[int] | None:
    """`GET /subjects/{subject}/versions`. `None` for an unknown subject."""
    return [entry.version for entry in _of_subject(shipped_lock(), subject)] or None


def version(subject: str, wanted: int | str) -> dict[str, Any] | None:
    """`GET /subjects/{subject}/versions/{version}`; the version is a number or `latest`."""
    entries = _of_subject(shipped_lock(), subject)
    if str(wanted) == "latest":
        return _body(entries[-1]) if entries else None
    return next((_body(entry) for entry in entries if str(entry.version) == str(wanted)), None)


def lookup(subject: str, schema: str) -> dict[str, Any] | None:
    """`POST /subjects/{subject}`: the version that a schema's text is, in whatever form it is written."""
    try:
        fingerprint = parse_schema(schema).fingerprint
    except SchemaError:
        return None
    entries = _of_subject(shipped_lock(), subject)
    return next((_body(entry) for entry in entries if entry.fingerprint == fingerprint), None)


def config() -> dict[str, Any]:
    """`GET /config` and `GET /config/{subject}`."""
    return {"compatibilityLevel": COMPATIBILITY}


def mode() -> dict[str, Any]:
    """`GET /mode`."""
    return {"mode": "READONLY"}


def _of_subject(lock: Lock, subject: str) -> list[LockedSchema]:
    return [entry for entry in lock.entries if entry.subject == subject]


def _body(entry: LockedSchema) -> dict[str, Any]:
    return {"subject": entry.subject, "version": entry.version, "id": entry.id, "schema": entry.schema}
