"""Records that cannot be processed, wrapped for `csms.dead-letters` with where they stood and why (rule 8)."""

from __future__ import annotations

from typing import Any

from busbar.avro import encode
from busbar.records import Headers, Record, Result

DEAD_LETTER_TOPIC = "csms.dead-letters"
_SCHEMA = "csms.DeadLetter"
_DETAIL_LIMIT = 2_000
_VALUE_LIMIT = 900_000
"""Above this the wrapper might not fit into one request; the record still stands where it stood."""


def dead_letter(record: Record, group: str, reason: str, detail: str, now_ms: int) -> Result:
    """The dead letter of a record.

    Args:
        group: The processor that gives up on it.
        reason: A short stable word, such as `undecodable`.
        detail: What exactly was wrong; it may quote the record and is not logged.
    """
    return _letter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp_ms,
        key=record.key,
        value=record.value,
        headers=record.headers,
        group=group,
        reason=reason,
        detail=detail,
        now_ms=now_ms,
    )


def undeliverable(result: Result, group: str, reason: str, detail: str, now_ms: int) -> Result:
    """The dead letter of a result that no topic can take. It never stood anywhere: its offset is -1."""
    return _letter(
        topic=result.topic,
        partition=-1 if result.partition is None else result.partition,
        offset=-1,
        timestamp_ms=now_ms if result.timestamp_ms is None else result.timestamp_ms,
        key=result.key,
        value=result.value,
        headers=result.headers,
        group=group,
        reason=reason,
        detail=detail,
        now_ms=now_ms,
    )


def _letter(
    *,
    topic: str,
    partition: int,
    offset: int,
    timestamp_ms: int,
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
    group: str,
    reason: str,
    detail: str,
    now_ms: int,
) -> Result:
    if value is not None and len(value) > _VALUE_LIMIT:
        detail = f"{detail} (the value of {len(value)} bytes is left out)"
        value = None
    # A message may quote anything, lone surrogates included; Avro strings are UTF-8.
    detail = detail[:_DETAIL_LIMIT].encode("utf-8", "backslashreplace").decode()
    fields: dict[str, Any] = {
        "topic": topic,
        "partition": partition,
        "offset": offset,
        "timestamp": timestamp_ms,
        "group": group,
        "reason": reason,
        "detail": detail,
        "failed_at": now_ms,
        "key": key,
        "value": value,
        "headers": {name: content or b"" for name, content in headers},
    }
    where: Headers = (
        ("topic", topic.encode()),
        ("partition", str(partition).encode()),
        ("offset", str(offset).encode()),
        ("group", group.encode()),
        ("reason", reason.encode()),
    )
    return Result(DEAD_LETTER_TOPIC, key or b"", encode(_SCHEMA, fields), headers=where, timestamp_ms=now_ms)
