from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.integration.api.conftest import Rig

TARIFFS = ("token", "token_group", "connector", "station", "site", "default")
SUBJECTS = {"token": "AbC-12345", "token_group": "fleet", "connector": "CS-1/1/2", "station": "CS-1", "site": "S1"}
WHERE: dict[str, Any] = {
    "station": "CS-1",
    "evse": 1,
    "connector": 2,
    "token": "abc-12345",
    "site": "S1",
    "group": "fleet",
}


def ahead(**delta: float) -> str:
    return (datetime.now(UTC) + timedelta(**delta)).isoformat()


async def add_tariff(rig: Rig, tariff_id: str, **query: str) -> None:
    content = {
        "id": tariff_id,
        "currency": "EUR",
        "elements": [{"price_components": [{"type": "FLAT", "price": 1, "step_size": 1}]}],
    }
    response = await rig.operator.post("/v1/tariffs", json=content, params=query)
    assert response.status_code == 201, response.text


async def assign(rig: Rig, tariff_id: str, scope: str, status: int = 201, **fields: Any) -> dict[str, Any]:
    body = {"tariff_id": tariff_id, "scope": scope, **fields}
    response = await rig.operator.post("/v1/tariff-assignments", json=body)
    assert response.status_code == status, response.text
    document: dict[str, Any] = response.json()
    return document


async def decide(rig: Rig, at: str | None = None, **where: Any) -> dict[str, Any]:
    query = {"station": "CS-1", "at": at or ahead(seconds=5), **where}
    response = await rig.operator.get("/v1/tariff-assignments/decide", params=query)
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


async def test_the_most_particular_assignment_decides(rig: Rig) -> None:
    for scope in reversed(TARIFFS):
        await add_tariff(rig, scope)
        subject: dict[str, Any] = {"subject": SUBJECTS[scope]} if scope in SUBJECTS else {}
        made = await assign(rig, scope, scope, **subject)
        decision = await decide(rig, **WHERE)
        assert decision["tariff"]["tariff_id"] == scope
        assert decision["assignment"]["assignment_id"] == made["assignment_id"]
    elsewhere = await decide(rig, station="CS-2", connector=2)
    assert elsewhere["tariff"]["tariff_id"] == "default"


async def test_a_decision_knows_the_site_of_the_station_and_the_group_of_the_token(rig: Rig) -> None:
    await rig.operator.post("/v1/stations", json={"station_id": "CS-1", "site_id": "S1"})
    await rig.operator.post("/v1/tokens", json={"id_token": "ABC", "group_id": "fleet"})
    await rig.operator.post("/v1/sites", json={"site_id": "S1", "time_zone": "Asia/Tokyo"})
    for name, scope, subject in (("a", "site", "S1"), ("b", "token_group", "fleet")):
        await add_tariff(rig, name)
        await assign(rig, name, scope, subject=subject)
    at_site = await decide(rig)
    assert (at_site["tariff"]["tariff_id"], at_site["time_zone"]) == ("a", "Asia/Tokyo")
    assert (await decide(rig, token="abc"))["tariff"]["tariff_id"] == "b"
    assert (await decide(rig, site="S2"))["tariff"] is None


async def test_what_is_passed_over_is_named_with_the_reason(rig: Rig) -> None:
    for name in ("now", "later", "gone"):
        await add_tariff(rig, name)
    await add_tariff(rig, "versionless", valid_from=ahead(hours=1))
    await assign(rig, "now", "default")
    await assign(rig, "later", "station", subject="CS-1", valid_from=ahead(hours=1))
    await assign(rig, "versionless", "station", subject="CS-1", priority=1)
    gone = await assign(rig, "gone", "station", subject="CS-1", priority=2)
    ended = await rig.operator.post(f"/v1/tariff-assignments/{gone['assignment_id']}/end")
    assert ended.status_code == 200
    decision = await decide(rig)
    assert decision["tariff"]["tariff_id"] == "now"
    assert [(item["tariff_id"], item["reason"]) for item in decision["passed_over"]] == [
        ("gone", "the assignment is no longer valid"),
        ("versionless", "no version of the tariff is valid"),
        ("later", "the assignment is not valid yet"),
    ]
    assert (await decide(rig, at=ahead(hours=2)))["tariff"]["tariff_id"] == "versionless"


async def test_without_any_assignment_there_is_no_tariff(rig: Rig) -> None:
    decision = await decide(rig)
    assert (decision["tariff"], decision["assignment"], decision["passed_over"]) == (None, None, [])
    assert decision["time_zone"] == "UTC"


async def test_an_assignment_begins_and_ends_only_in_the_future(rig: Rig) -> None:
    await add_tariff(rig, "A")
    made = await assign(rig, "A", "default")
    assert made["valid_from"] > made["created_at"]
    past = await assign(rig, "A", "default", 422, valid_from=ahead(hours=-1))
    assert past["errors"][0]["path"] == "$.valid_from"
    url = f"/v1/tariff-assignments/{made['assignment_id']}"
    planned = (await rig.operator.post(url + "/end", json={"at": ahead(hours=1)})).json()
    assert planned["valid_until"] > ahead(minutes=59)
    ended = (await rig.operator.post(url + "/end", json={"at": ahead(hours=-1)})).json()
    assert made["created_at"] < ended["valid_until"] < ahead(seconds=60)
    assert (await decide(rig, at=ended["valid_until"]))["tariff"] is None
    waiting = await assign(rig, "A", "default", valid_from=ahead(hours=1))
    url = f"/v1/tariff-assignments/{waiting['assignment_id']}"
    never = (await rig.operator.post(url + "/end")).json()
    assert never["valid_until"] == never["valid_from"]


async def test_an_assignment_that_has_ended_cannot_end_again(rig: Rig) -> None:
    await add_tariff(rig, "A")
    made = await assign(rig, "A", "default")
    await rig.pool.execute(
        "UPDATE config.tariff_assignments SET created_at = created_at - interval '1 hour',"
        " valid_from = valid_from - interval '1 hour', valid_until = now() - interval '1 minute'"
    )
    url = f"/v1/tariff-assignments/{made['assignment_id']}"
    assert (await rig.operator.post(url + "/end")).status_code == 409
    missing = "/v1/tariff-assignments/00000000-0000-0000-0000-000000000000"
    assert (await rig.operator.post(missing + "/end")).status_code == 404
    assert (await rig.viewer.get(missing)).status_code == 404
    for standing, expected in ((True, 0), (False, 1)):
        listed = (await rig.viewer.get("/v1/tariff-assignments", params={"standing": standing})).json()
        assert len(listed["items"]) == expected


async def test_assignments_are_listed_page_by_page_and_narrowed_down(rig: Rig) -> None:
    await add_tariff(rig, "A")
    await add_tariff(rig, "B")
    for place in range(3):
        await assign(rig, "A", "station", subject=f"CS-{place}")
    await assign(rig, "B", "token", subject="AbC-12345")
    first = (await rig.viewer.get("/v1/tariff-assignments?limit=2")).json()
    second = (await rig.viewer.get(f"/v1/tariff-assignments?limit=2&after={first['next']}")).json()
    subjects = [item["subject"] for item in first["items"] + second["items"]]
    assert subjects == ["…2345", "CS-2", "CS-1", "CS-0"]
    for query, expected in (
        ("tariff=B", ["abc-12345"]),
        ("scope=token&subject=ABC-12345", ["abc-12345"]),
        ("scope=station&subject=CS-1", ["CS-1"]),
    ):
        body = (await rig.operator.get(f"/v1/tariff-assignments?{query}")).json()
        assert [item["subject"] for item in body["items"]] == expected
    assert (await rig.viewer.get("/v1/tariff-assignments?after=x")).status_code == 422


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"scope": "default"}, "$.tariff_id"),
        ({"tariff_id": "A", "scope": "planet", "subject": "x"}, "$.scope"),
        ({"tariff_id": "A", "scope": "default", "subject": "x"}, "$"),
        ({"tariff_id": "A", "scope": "station"}, "$"),
        ({"tariff_id": "A", "scope": "connector", "subject": "CS-1"}, "$"),
        ({"tariff_id": "A", "scope": "connector", "subject": "CS-1/x"}, "$"),
        ({"tariff_id": "A", "scope": "default", "valid_until": "2020-01-01T00:00:00Z"}, "$"),
        ({"tariff_id": "B", "scope": "default"}, "$.tariff_id"),
        ({"tariff_id": "A", "scope": "station", "subject": "a\0"}, "$.subject"),
    ],
)
async def test_what_is_wrong_with_an_assignment_is_named(rig: Rig, body: dict[str, Any], path: str) -> None:
    await add_tariff(rig, "A")
    response = await rig.operator.post("/v1/tariff-assignments", json=body)
    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["path"] == path


async def test_a_viewer_sees_no_tokens_and_assigns_nothing(rig: Rig) -> None:
    await add_tariff(rig, "A")
    made = await assign(rig, "A", "token", subject="AbC-12345")
    url = f"/v1/tariff-assignments/{made['assignment_id']}"
    assert (await rig.viewer.get(url)).json()["subject"] == "…2345"
    assert (await rig.operator.get(url)).json()["subject"] == "abc-12345"
    for path in ("?subject=abc-12345", "?scope=token&subject=abc-12345", "/decide?station=CS-1&token=abc-12345"):
        assert (await rig.viewer.get("/v1/tariff-assignments" + path)).status_code == 403
    assert (await rig.viewer.post(url + "/end")).status_code == 403
    assert (await rig.viewer.post("/v1/tariff-assignments", json={})).status_code == 403
    assert (await rig.viewer.get("/v1/tariff-assignments/decide?station=CS-1")).status_code == 200
