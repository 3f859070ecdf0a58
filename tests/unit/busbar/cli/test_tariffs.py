"""`busbar tariffs` against an API of the test's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.busbar.cli.fake_api import FakeApi, fake_api

TARIFF = {
    "tariff_id": "day",
    "version": 2,
    "format": "ocpi-2.3.0",
    "currency": "EUR",
    "valid_from": "2026-11-21T10:00:00Z",
}
ASSIGNMENT: dict[str, Any] = {
    "assignment_id": "a-1",
    "tariff_id": "day",
    "scope": "site",
    "subject": "berlin-7",
    "priority": 5,
    "valid_from": "2026-11-21T10:00:00Z",
    "valid_until": "2027-01-01T00:00:00Z",
}
SHOWN = "a-1  day for site berlin-7 from 2026-11-21T10:00:00Z until 2027-01-01T00:00:00Z, priority 5\n"


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as fake:
        yield fake


def test_tariffs_are_listed(api: FakeApi) -> None:
    api.answers = [(200, {"items": [TARIFF], "next": None})]
    line = api.run("tariffs", "list", "--match", "d").output
    assert line.split() == ["day", "v2", "ocpi-2.3.0", "EUR", "from", "2026-11-21T10:00:00Z"]
    assert (api.asked[0].path, api.asked[0].query) == ("/v1/tariffs", {"q": "d", "limit": "1000"})
    assert json.loads(api.run("tariffs", "list", "--json").output) == TARIFF
    api.answers = [(200, {"items": [], "next": None})]
    assert "busbar tariffs add FILE" in api.run("tariffs", "list").output


def test_the_content_is_shown_exactly(api: FakeApi) -> None:
    api.answers = [(200, b'{"content":{"price":0.10000000000000000001}}')]
    assert api.run("tariffs", "show", "day/1").output == '{"price":0.10000000000000000001}\n'
    api.run("tariffs", "show", "day", "--version", "2")
    assert [asked.path for asked in api.asked] == ["/v1/tariffs/day%2F1", "/v1/tariffs/day/versions/2"]


def test_a_tariff_is_added_as_it_is_in_the_file(api: FakeApi, tmp_path: Path) -> None:
    path = tmp_path / "tariff.json"
    path.write_text('{"id": "day"}')
    api.answers = [(201, TARIFF | {"warnings": ["$.elements: at times it is free"]})]
    result = api.run("tariffs", "add", str(path), "--valid-from", "2027-01-01T00:00:00+01:00")
    assert result.exit_code == 0, result.output
    assert "day version 2, valid from 2026-11-21T10:00:00Z" in result.output
    assert "warning: $.elements: at times it is free" in result.output
    assert api.asked[0].body == {"id": "day"}
    assert api.asked[0].query == {"valid_from": "2027-01-01T00:00:00+01:00"}
    assert api.run("tariffs", "add", "-", stdin='{"id": "other"}').exit_code == 0
    assert api.asked[1].body == {"id": "other"}


def test_every_reason_why_it_cannot_be_priced_is_a_line(api: FakeApi, tmp_path: Path) -> None:
    path = tmp_path / "tariff.json"
    path.write_text("{}")
    reasons = [{"path": f"$.elements[{number}]", "message": "is not an object"} for number in range(5)]
    api.answers = [(422, {"title": "The tariff cannot be priced", "errors": reasons})]
    result = api.run("tariffs", "add", str(path))
    assert result.exit_code == 1
    assert f"{path}: $.elements[4]: is not an object" in result.output
    api.answers = [
        (422, {"title": "The request is not valid", "errors": [{"path": "query.valid_from", "message": "is past"}]})
    ]
    assert api.run("tariffs", "add", str(path)).output == "Error: The request is not valid: query.valid_from is past\n"


def test_a_tariff_is_assigned(api: FakeApi) -> None:
    api.answers = [(201, ASSIGNMENT)]
    until = "2027-01-01T00:00:00Z"
    result = api.run("tariffs", "assign", "day", "site", "berlin-7", "--priority", "5", "--valid-until", until)
    assert (result.exit_code, result.output) == (0, SHOWN)
    assert (api.asked[0].method, api.asked[0].path) == ("POST", "/v1/tariff-assignments")
    assert api.asked[0].body == {
        "tariff_id": "day",
        "scope": "site",
        "subject": "berlin-7",
        "priority": 5,
        "valid_until": until,
    }
    for arguments in (("default", "berlin-7"), ("site",)):
        result = api.run("tariffs", "assign", "day", *arguments)
        assert result.exit_code == 2
        assert "`default` has none, all others need one" in result.output
    assert len(api.asked) == 1


def test_assignments_are_listed_and_ended(api: FakeApi) -> None:
    api.answers = [(200, {"items": [ASSIGNMENT], "next": None})]
    assert api.run("tariffs", "assignments", "--tariff", "day", "--scope", "site").output == SHOWN
    assert api.asked[0].query == {"tariff": "day", "scope": "site", "standing": "true", "limit": "1000"}
    api.run("tariffs", "assignments", "--all", "--json")
    assert api.asked[1].query == {"limit": "1000"}
    api.answers = [(200, ASSIGNMENT)]
    assert api.run("tariffs", "end", "a-1", "--at", "2027-01-01T00:00:00Z").output == SHOWN
    assert (api.asked[2].path, api.asked[2].body) == ("/v1/tariff-assignments/a-1/end", {"at": "2027-01-01T00:00:00Z"})
