from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.integration.api.conftest import Rig


async def create(rig: Rig, id_token: str, **fields: Any) -> dict[str, Any]:
    response = await rig.operator.post("/v1/tokens", json={"id_token": id_token, **fields})
    assert response.status_code == 201, response.text
    document: dict[str, Any] = response.json()
    return document


async def test_a_token_is_kept_as_it_was_given_and_found_in_any_case(rig: Rig) -> None:
    settings = {
        "id_token_type": "ISO14443",
        "status": "Blocked",
        "expires_at": "2030-01-01T00:00:00Z",
        "valid_from": "2026-01-01T01:00:00+01:00",
        "group_id": "fleet",
        "cache_expires_seconds": 60,
        "allow_concurrent": True,
        "max_concurrent": 3,
        "allowed_stations": ["CS-1"],
        "allowed_sites": [],
        "language": "de",
        "contract_id": "DE-XYZ",
        "max_cost": 25.5,
        "max_energy_wh": 40000,
        "max_time_seconds": 7200,
    }
    await create(rig, "AbCd", **settings)
    shown = (await rig.operator.get("/v1/tokens/aBcD")).json()
    assert shown["id_token"] == "AbCd"
    assert {name: shown[name] for name in settings} == {**settings, "valid_from": "2026-01-01T00:00:00Z"}


async def test_tokens_that_differ_only_in_case_are_the_same(rig: Rig) -> None:
    await create(rig, "abc")
    assert (await rig.operator.post("/v1/tokens", json={"id_token": "ABC"})).status_code == 409


async def test_a_change_touches_only_what_it_names(rig: Rig) -> None:
    await create(rig, "abc", group_id="g", allowed_stations=["CS-1"])
    changed = await rig.operator.patch("/v1/tokens/ABC", json={"status": "Blocked", "allowed_stations": None})
    body = changed.json()
    assert (body["status"], body["group_id"], body["allowed_stations"]) == ("Blocked", "g", None)
    assert (await rig.operator.patch("/v1/tokens/ABC", json={})).status_code == 422
    assert (await rig.operator.patch("/v1/tokens/x", json={"status": "Blocked"})).status_code == 404


async def test_a_removed_token_is_gone(rig: Rig) -> None:
    await create(rig, "abc")
    assert (await rig.operator.delete("/v1/tokens/ABC")).status_code == 204
    assert (await rig.operator.get("/v1/tokens/abc")).status_code == 404
    assert (await rig.operator.delete("/v1/tokens/abc")).status_code == 404


async def test_tokens_are_listed_page_by_page_and_narrowed_down(rig: Rig) -> None:
    for name in ("A1", "a2", "A3", "b1"):
        await create(rig, name, group_id=name[0].lower())
    await rig.operator.patch("/v1/tokens/a2", json={"status": "Blocked"})
    first = (await rig.operator.get("/v1/tokens?limit=3")).json()
    second = (await rig.operator.get(f"/v1/tokens?limit=3&after={first['next']}")).json()
    assert [item["id_token"] for item in first["items"] + second["items"]] == ["A1", "a2", "A3", "b1"]
    for query, names in (("q=A", ["A1", "a2", "A3"]), ("status=Blocked", ["a2"]), ("group=b", ["b1"])):
        body = (await rig.operator.get(f"/v1/tokens?{query}")).json()
        assert [item["id_token"] for item in body["items"]] == names


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "$.id_token"),
        ({"id_token": ""}, "$.id_token"),
        ({"id_token": 5}, "$.id_token"),
        ({"id_token": "a\0"}, "$.id_token"),
        ({"id_token": "a", "status": "Fine"}, "$.status"),
        ({"id_token": "a", "expires_at": "tomorrow"}, "$.expires_at"),
        ({"id_token": "a", "expires_at": "2030-01-01T00:00:00"}, "$.expires_at"),
        ({"id_token": "a", "expires_at": 17}, "$.expires_at"),
        ({"id_token": "a", "max_concurrent": 0}, "$.max_concurrent"),
        ({"id_token": "a", "max_cost": -1}, "$.max_cost"),
        ({"id_token": "a", "max_energy_wh": 0}, "$.max_energy_wh"),
        ({"id_token": "a", "allow_concurrent": "yes"}, "$.allow_concurrent"),
        ({"id_token": "a", "allowed_stations": "CS-1"}, "$.allowed_stations"),
        ({"id_token": "a", "allowed_stations": [None]}, "$.allowed_stations[0]"),
        ({"id_token": "a", "extra": 1}, "$.extra"),
    ],
)
async def test_what_is_wrong_with_a_token_is_named_with_its_path(rig: Rig, body: dict[str, Any], path: str) -> None:
    response = await rig.operator.post("/v1/tokens", json=body)
    assert response.status_code == 422
    assert response.json()["errors"][0]["path"] == path


async def test_a_token_with_slashes_sql_or_script_is_a_token_like_any_other(rig: Rig) -> None:
    for name in ("a/b/c", "'; DROP TABLE config.tokens; --", "<script>alert(1)</script>", "ünï%"):
        await create(rig, name)
        response = await rig.operator.get("/v1/tokens/" + name.replace("%", "%25"))
        assert response.json()["id_token"] == name


async def test_a_viewer_sees_no_tokens(rig: Rig) -> None:
    for path in ("/v1/tokens", "/v1/tokens/abc"):
        assert (await rig.viewer.get(path)).status_code == 403


async def test_no_token_is_ever_logged(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="services")
    await create(rig, "SECRET-TOKEN")
    await rig.operator.get("/v1/tokens/SECRET-TOKEN")
    await rig.operator.patch("/v1/tokens/SECRET-TOKEN", json={"status": "Fine"})
    await rig.operator.delete("/v1/tokens/SECRET-TOKEN")
    assert "SECRET-TOKEN" not in caplog.text
