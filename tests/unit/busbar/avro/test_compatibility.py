"""Changes of a schema that the gate lets through, and those that it holds back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from busbar.avro.compatibility import problems
from busbar.avro.schema import JSON_TEXT, Schema, parse_schema

DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 4}
INSTANT = {"type": "long", "logicalType": "timestamp-millis"}
EXTRA = {"type": "map", "values": JSON_TEXT}


def schema(*fields: tuple[Any, ...]) -> Schema:
    entries = [dict(zip(("name", "type", "default", "ocppName"), entry, strict=False)) for entry in fields]
    return parse_schema(json.dumps({"type": "record", "name": "T", "fields": entries}))


def inner(*fields: tuple[Any, ...]) -> dict[str, Any]:
    entries = [dict(zip(("name", "type", "default"), entry, strict=False)) for entry in fields]
    return {"type": "record", "name": "Inner", "fields": entries}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ([("a", "long")], [("a", "long"), ("b", "string", "")]),
        ([("a", "long"), ("b", ["null", "long"], None)], [("a", "long")]),
        ([("a", "long"), ("b", "string")], [("b", "string"), ("a", "long")]),
        ([("a", "long", 1)], [("a", "long", 2)]),
        ([("a", "string")], [("a", "bytes")]),
        ([("a", inner(("x", "long")))], [("a", inner(("x", "long"), ("y", "long", 0)))]),
    ],
)
def test_a_change_that_both_sides_can_read_passes(old: list[Any], new: list[Any]) -> None:
    assert problems(schema(*old), schema(*new)) == []
    assert problems(schema(*new), schema(*old)) == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ([("a", "long")], [("a", "long"), ("b", "string")], "T.b is missing and has no default"),
        ([("a", "long"), ("b", "string")], [("a", "long")], "T.b is missing and has no default"),
        ([("a", "long")], [("b", "long")], "T.b is missing"),
        ([("a", "long")], [("a", "string")], "T.a is long and the reader expects string"),
        ([("a", "int")], [("a", "long")], "T.a is long and the reader expects int"),
        ([("a", "long")], [("a", ["null", "long"])], "T.a may be null"),
        ([("a", "long")], [("a", {"type": "array", "items": "long"})], "T.a is long and the reader expects array"),
        ([("a", {"type": "array", "items": "long"})], [("a", {"type": "array", "items": "string"})], "T.a[] is long"),
        ([("a", "long")], [("a", INSTANT)], "T.a means another thing"),
        ([("a", "string")], [("a", JSON_TEXT)], "T.a means another thing"),
        ([("a", DECIMAL)], [("a", DECIMAL | {"scale": 2})], "T.a is a decimal of other digits"),
        ([("a", inner(("x", "long")))], [("a", inner(("x", "string")))], "T.a.x is long"),
        ([("a", inner(("x", "long")))], [("a", inner(("x", "long")) | {"name": "Other"})], "is a Inner"),
        ([("a", "long", 0)], [("a", "long", 0, "1a")], "T.a stands for another member"),
        ([("a", "long")], [("a", "long"), ("extra", EXTRA, {})], "keeps unknown members in one version only"),
    ],
)
def test_a_change_that_one_side_cannot_read_is_caught(old: list[Any], new: list[Any], told: str) -> None:
    assert any(told in problem for problem in problems(schema(*old), schema(*new)))
    assert problems(schema(*new), schema(*old))
