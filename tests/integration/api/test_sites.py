from __future__ import annotations

from typing import Any

import pytest

from tests.integration.api.conftest import Rig

BERLIN: dict[str, Any] = {
    "site_id": "berlin-7",
    "name": "Car park",
    "time_zone": "Europe/Berlin",
    "country_code": "DE",
    "postal_code": "10557",
    "city": "Berlin",
    "address": "Europaplatz 1",
    "latitude": 52.5251,
    "longitude": 13.3694,
    "party_id": "ABC",
    "operator_country": "DE",
}


async def test_a_site_is_kept_changed_and_removed(rig: Rig) -> None:
    made = await rig.operator.post("/v1/sites", json=BERLIN)
    assert made.status_code == 201, made.text
    shown = (await rig.viewer.get("/v1/sites/berlin-7")).json()
    assert {name: shown[name] for name in BERLIN} == BERLIN
    assert (await rig.operator.post("/v1/sites", json=BERLIN)).status_code == 409
    changed = (await rig.operator.patch("/v1/sites/berlin-7", json={"city": None, "time_zone": "UTC"})).json()
    assert (changed["city"], changed["time_zone"], changed["name"]) == (None, "UTC", "Car park")
    assert (await rig.operator.delete("/v1/sites/berlin-7")).status_code == 204
    for response in (
        await rig.viewer.get("/v1/sites/berlin-7"),
        await rig.operator.delete("/v1/sites/berlin-7"),
        await rig.operator.patch("/v1/sites/berlin-7", json={"city": "x"}),
    ):
        assert response.status_code == 404


async def test_a_site_with_stations_stays(rig: Rig) -> None:
    await rig.operator.post("/v1/sites", json=BERLIN)
    await rig.operator.post("/v1/stations", json={"station_id": "CS-1", "site_id": "berlin-7"})
    assert (await rig.operator.delete("/v1/sites/berlin-7")).status_code == 409
    assert (await rig.viewer.get("/v1/sites/berlin-7")).status_code == 200


async def test_sites_are_listed_page_by_page(rig: Rig) -> None:
    for name in ("a1", "a2", "b1"):
        await rig.operator.post("/v1/sites", json={"site_id": name, "time_zone": "UTC"})
    first = (await rig.viewer.get("/v1/sites?limit=2")).json()
    second = (await rig.viewer.get(f"/v1/sites?limit=2&after={first['next']}")).json()
    assert [item["site_id"] for item in first["items"] + second["items"]] == ["a1", "a2", "b1"]
    assert [item["site_id"] for item in (await rig.viewer.get("/v1/sites?q=b")).json()["items"]] == ["b1"]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"site_id": "a"}, "$.time_zone"),
        ({"site_id": "a", "time_zone": "Mars/Olympus"}, "$.time_zone"),
        ({"site_id": "a/b", "time_zone": "UTC"}, "$.site_id"),
        ({"site_id": "a", "time_zone": "UTC", "latitude": 91}, "$.latitude"),
        ({"site_id": "a", "time_zone": "UTC", "country_code": "Germany"}, "$.country_code"),
        ({"site_id": "a", "time_zone": "UTC", "party_id": "abcd"}, "$.party_id"),
        ({"site_id": "a", "time_zone": "UTC", "extra": 1}, "$.extra"),
    ],
)
async def test_what_is_wrong_with_a_site_is_named(rig: Rig, body: dict[str, Any], path: str) -> None:
    response = await rig.operator.post("/v1/sites", json=body)
    assert response.status_code == 422
    assert response.json()["errors"][0]["path"] == path


async def test_a_site_always_has_a_time_zone(rig: Rig) -> None:
    await rig.operator.post("/v1/sites", json=BERLIN)
    response = await rig.operator.patch("/v1/sites/berlin-7", json={"time_zone": None})
    assert (response.status_code, response.json()["errors"][0]["path"]) == (422, "$.time_zone")
    assert (await rig.operator.patch("/v1/sites/berlin-7", json={})).status_code == 422


async def test_a_viewer_changes_no_site(rig: Rig) -> None:
    for response in (
        await rig.viewer.post("/v1/sites", json=BERLIN),
        await rig.viewer.patch("/v1/sites/berlin-7", json={"city": "x"}),
        await rig.viewer.delete("/v1/sites/berlin-7"),
    ):
        assert response.status_code == 403
    assert (await rig.stranger.get("/v1/sites")).status_code == 401
