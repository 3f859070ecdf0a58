from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from busbar.pricing.session_facts import dump_observations
from tests.integration.api.conftest import Rig

DAY_AND_NIGHT: dict[str, Any] = {
    "id": "day-and-night",
    "currency": "EUR",
    "tax_included": "NO",
    "elements": [
        {
            "price_components": [{"type": "ENERGY", "price": 0.20, "vat": 19.0, "step_size": 1}],
            "restrictions": {"start_time": "22:00", "end_time": "06:00"},
        },
        {
            "price_components": [
                {"type": "ENERGY", "price": 0.50, "vat": 19.0, "step_size": 1},
                {"type": "PARKING_TIME", "price": 6.00, "vat": 19.0, "step_size": 1},
            ]
        },
    ],
}
FLAT_RATE: dict[str, Any] = {
    "tariffId": "flat-rate",
    "currency": "EUR",
    "energy": {"prices": [{"priceKwh": 0.4}], "taxRates": [{"type": "VAT", "tax": 19.0}]},
}


def priced(price: float, **fields: Any) -> dict[str, Any]:
    content = deepcopy(DAY_AND_NIGHT)
    content["elements"][0]["price_components"][0]["price"] = price
    return {**content, **fields}


def ahead(**delta: float) -> str:
    return (datetime.now(UTC) + timedelta(**delta)).isoformat()


async def add(rig: Rig, content: dict[str, Any], status: int = 201, **query: str) -> dict[str, Any]:
    response = await rig.operator.post("/v1/tariffs", json=content, params=query)
    assert response.status_code == status, response.text
    document: dict[str, Any] = response.json()
    return document


async def test_a_tariff_is_kept_as_it_was_given(rig: Rig) -> None:
    text = (
        '{"id":"A",  "currency":"EUR","elements":[{"price_components":[{"type":"FLAT","price":1.50,"step_size":1}]}]}'
    )
    response = await rig.operator.post("/v1/tariffs", content=text)
    assert response.status_code == 201
    assert text in (await rig.viewer.get("/v1/tariffs/A/versions/1")).text
    shown = (await rig.viewer.get("/v1/tariffs/A")).json()
    assert (shown["version"], shown["format"], shown["currency"]) == (1, "ocpi-2.2.1", "EUR")
    assert [item["version"] for item in shown["versions"]] == [1]


async def test_another_content_is_another_version_and_the_same_is_none(rig: Rig) -> None:
    assert (await add(rig, priced(0.2)))["version"] == 1
    assert (await add(rig, priced(0.2), 200))["version"] == 1
    changed = await rig.operator.put("/v1/tariffs/day-and-night", json=priced(0.3))
    assert (changed.status_code, changed.json()["version"]) == (201, 2)
    assert (await add(rig, priced(0.2)))["version"] == 3
    first = (await rig.viewer.get("/v1/tariffs/day-and-night/versions/1")).json()
    assert first["content"] == priced(0.2)
    other = await rig.operator.put("/v1/tariffs/other", json=priced(0.3))
    assert (other.status_code, other.json()["errors"][0]["path"]) == (422, "$.id")


async def test_a_later_version_waits_and_can_be_removed_until_it_is_valid(rig: Rig) -> None:
    await add(rig, priced(0.2))
    later = await add(rig, priced(0.3), valid_from=ahead(hours=1))
    assert later["version"] == 2
    assert (await rig.viewer.get("/v1/tariffs/day-and-night")).json()["version"] == 1
    assert (await rig.operator.delete("/v1/tariffs/day-and-night/versions/2")).status_code == 204
    assert (await rig.viewer.get("/v1/tariffs/day-and-night/versions/2")).status_code == 404
    assert (await rig.operator.delete("/v1/tariffs/day-and-night/versions/2")).status_code == 404
    used = await rig.operator.delete("/v1/tariffs/day-and-night/versions/1")
    assert (used.status_code, used.json()["type"]) == (409, "urn:busbar:problem:tariff-version-valid")
    assert (await add(rig, priced(0.4)))["version"] == 3, "a number is never given twice"


async def test_nothing_is_valid_before_it_was_made(rig: Rig) -> None:
    added = await add(rig, priced(0.2))
    assert added["valid_from"] > added["created_at"]
    past = await rig.operator.post("/v1/tariffs", json=priced(0.3), params={"valid_from": ahead(hours=-1)})
    assert (past.status_code, past.json()["errors"][0]["path"]) == (422, "query.valid_from")


async def test_what_cannot_be_priced_is_refused_with_every_reason_and_its_path(rig: Rig) -> None:
    broken = deepcopy(DAY_AND_NIGHT)
    del broken["currency"]
    broken["elements"][0]["price_components"][0]["type"] = "NOISE"
    broken["elements"][0]["restrictions"] |= {"min_kwh": 9, "max_kwh": 3, "colour": "red"}
    many = [{"type": "ENERGY", "price": "x", "step_size": 1}] * 30
    for content, paths in (
        (
            broken,
            {
                "$.currency",
                "$.elements[0].price_components[0].type",
                "$.elements[0].restrictions.colour",
                "$.elements[0].restrictions.max_kwh",
            },
        ),
        (
            {**DAY_AND_NIGHT, "elements": [{"price_components": many}]},
            {f"$.elements[0].price_components[{place}].price" for place in range(30)},
        ),
    ):
        response = await rig.operator.post("/v1/tariffs", json=content)
        assert (response.status_code, response.json()["type"]) == (422, "urn:busbar:problem:tariff-not-priceable")
        assert {error["path"] for error in response.json()["errors"]} >= paths
        checked = (await rig.viewer.post("/v1/tariffs/validate", json=content)).json()
        assert (checked["valid"], checked["errors"]) == (False, response.json()["errors"])
    assert (await rig.viewer.get("/v1/tariffs")).json()["items"] == []


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"", "$"),
        (b"[]", "$"),
        (b"\xff\xfe", "$"),
        (b'{"id": "A", "id": "B"}', "$"),
        (b'{"id": NaN}', "$"),
        (b"[" * 100_000, "$"),
        (b'{"id":"a/b","currency":"EUR","elements":[{"price_components":[{"type":"FLAT","price":1}]}]}', "$.id"),
    ],
)
async def test_what_is_no_tariff_is_refused(rig: Rig, body: bytes, path: str) -> None:
    response = await rig.operator.post("/v1/tariffs", content=body)
    assert response.status_code == 422
    assert response.json()["errors"][0]["path"] == path


async def test_validating_keeps_nothing_and_warns(rig: Rig) -> None:
    free = {"id": "A", "currency": "EUR", "elements": [{"price_components": [{"type": "TIME", "price": -1}]}]}
    checked = (await rig.viewer.post("/v1/tariffs/validate", json=free)).json()
    assert (checked["valid"], checked["errors"], checked["format"]) == (True, [], "ocpi-2.2.1")
    assert any("negative" in warning for warning in checked["warnings"])
    assert (await rig.viewer.get("/v1/tariffs/A")).status_code == 404


async def test_tariffs_are_listed_page_by_page(rig: Rig) -> None:
    for name in ("a1", "a2", "b1"):
        await add(rig, {**FLAT_RATE, "tariffId": name})
    await add(rig, {**FLAT_RATE, "tariffId": "a1", "currency": "USD"})
    first = (await rig.viewer.get("/v1/tariffs?limit=2")).json()
    second = (await rig.viewer.get(f"/v1/tariffs?limit=2&after={first['next']}")).json()
    assert [(item["tariff_id"], item["version"], item["currency"]) for item in first["items"] + second["items"]] == [
        ("a1", 2, "USD"),
        ("a2", 1, "EUR"),
        ("b1", 1, "EUR"),
    ]
    assert [item["tariff_id"] for item in (await rig.viewer.get("/v1/tariffs?q=b")).json()["items"]] == ["b1"]


async def test_a_what_if_is_priced_by_the_wall_clock_of_the_place(rig: Rig) -> None:
    await add(rig, DAY_AND_NIGHT)
    # An hour of 11 kW over 22:00 in Berlin, and half an hour of parking: 5.5 kWh each at 0.50 and 0.20.
    what_if = {"start": "2026-03-11T20:30:00Z", "energy_wh": 11000, "power_w": 11000, "parking_seconds": 1800}
    body = {"what_if": what_if, "time_zone": "Europe/Berlin"}
    bill = (await rig.viewer.post("/v1/tariffs/day-and-night/price", json=body)).json()
    assert bill["total"] == {"excl_tax": 6.85, "incl_tax": 8.15}
    assert bill["taxes"] == [{"name": "VAT", "percent": 19, "amount": 1.3}]
    assert [(line["kind"], line["excl_tax"]) for line in bill["lines"][:3]] == [
        ("ENERGY", 2.75),
        ("ENERGY", 1.1),
        ("PARKING_TIME", 3),
    ]
    assert [period["start_date_time"] for period in bill["periods"]] == [
        "2026-03-11T20:30:00Z",
        "2026-03-11T21:00:00Z",
        "2026-03-11T21:30:00Z",
    ]
    assert "8.15 EUR" in bill["receipt"]
    assert "21:30:00 CET" in bill["receipt"]
    in_utc = (await rig.viewer.post("/v1/tariffs/day-and-night/price", json={"what_if": what_if})).json()
    assert in_utc["total"]["excl_tax"] == 8.5


async def test_energy_follows_from_power_and_time(rig: Rig) -> None:
    await add(rig, FLAT_RATE)
    body = {"what_if": {"start": "2026-03-11T20:30:00Z", "charging_seconds": 1800, "power_w": 20000}}
    bill = (await rig.viewer.post("/v1/tariffs/flat-rate/price", json=body)).json()
    assert (bill["session"]["energy_wh"], bill["total"]["excl_tax"]) == (10000, 4)


async def test_given_facts_are_priced_by_the_version_that_is_asked_for(rig: Rig) -> None:
    await add(rig, FLAT_RATE)
    await add(rig, {**FLAT_RATE, "energy": {"prices": [{"priceKwh": 1}]}})
    facts = [
        {"kind": "started", "at": "2026-03-11T10:00:00Z", "register_wh": 500},
        {"kind": "sampled", "at": "2026-03-11T10:30:00Z", "register_wh": 1500.5, "state": "SuspendedEV"},
        {"kind": "ended", "at": "2026-03-11T11:00:00+00:00", "register_wh": 1500.5},
    ]
    totals = [
        (await rig.viewer.post(f"/v1/tariffs/flat-rate/price?version={version}", json={"facts": facts})).json()
        for version in (1, 2)
    ]
    assert [bill["total"]["excl_tax"] for bill in totals] == [0.4, 1]
    assert totals[0]["session"]["parking_seconds"] == 1800
    missing = await rig.viewer.post("/v1/tariffs/flat-rate/price?version=3", json={"facts": facts})
    assert missing.status_code == 404


async def test_a_session_that_exists_is_priced_by_another_tariff(rig: Rig) -> None:
    await add(rig, FLAT_RATE)
    session_id = uuid4()
    start = datetime(2026, 3, 11, 10, tzinfo=UTC)
    await rig.pool.execute("INSERT INTO config.sites (site_id, time_zone) VALUES ('S1', 'Asia/Tokyo')")
    await rig.pool.execute(
        "INSERT INTO sessions.transactions (session_id, station_id, transaction_id, generation, ocpp_version, site_id,"
        " evse_id, connector_id, state, is_open, is_final, is_complete, opened_at, started_at, ended_at, last_event_at,"
        " energy_wh, energy_rung, register_begin_wh, register_end_wh, event_count, flags, fold)"
        " VALUES ($1, 'CS-1', 'T1', 1, '2.0.1', 'S1', 1, 1, 'ended', false, true, true, $2, $2, $3, $3,"
        " 10000, 'transaction', 500, 10500, 3, '{}', '')",
        session_id,
        start,
        start + timedelta(hours=1),
    )
    start_ms = int(start.timestamp() * 1000)
    rows = [
        [(start_ms, 0, 500_000_000, None, None, "Charging")],
        [(start_ms + 1_800_000, 1, 10_500_000_000, None, None, "SuspendedEV")],
    ]
    for sequence, observations in enumerate(rows):
        await rig.pool.execute(
            "INSERT INTO billing.facts (session_id, sequence, facts) VALUES ($1, $2, $3)",
            session_id,
            sequence,
            dump_observations(observations),
        )
    body = {"session_id": str(session_id)}
    bill = (await rig.viewer.post("/v1/tariffs/flat-rate/price", json=body)).json()
    assert (bill["total"]["excl_tax"], bill["time_zone"]) == (4, "Asia/Tokyo")
    assert bill["session"]["parking_seconds"] == 1800
    unknown = await rig.viewer.post("/v1/tariffs/flat-rate/price", json={"session_id": str(uuid4())})
    assert unknown.status_code == 404


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "$"),
        ({"what_if": {"start": "2026-03-11T20:30:00Z"}, "facts": []}, "$.facts"),
        ({"what_if": {"start": "2026-03-11T20:30:00"}}, "$.what_if.start"),
        ({"what_if": {"start": "2026-03-11T20:30:00Z", "energy_wh": 5}}, "$.what_if"),
        ({"what_if": {"start": "2026-03-11T20:30:00Z", "power_w": 5}}, "$.what_if"),
        ({"what_if": {"start": "2026-03-11T20:30:00Z", "energy_wh": -5, "power_w": 5}}, "$.what_if.energy_wh"),
        ({"what_if": {"start": "2026-03-11T20:30:00Z"}, "time_zone": "Mars/Olympus"}, "$.time_zone"),
        ({"facts": [{"kind": "started", "at": "2026-03-11T10:00:00Z", "state": "On"}]}, "$.facts[0].state"),
        ({"facts": [{"kind": "begun", "at": "2026-03-11T10:00:00Z"}]}, "$.facts[0].kind"),
        ({"facts": [{"kind": "started", "at": "2026-03-11T10:00:00Z", "mood": 1}]}, "$.facts[0].mood"),
        ({"facts": [7]}, "$.facts[0]"),
        ({"session_id": "x"}, "$.session_id"),
    ],
)
async def test_what_is_wrong_with_a_session_to_be_priced_is_named(rig: Rig, body: dict[str, Any], path: str) -> None:
    await add(rig, FLAT_RATE)
    response = await rig.viewer.post("/v1/tariffs/flat-rate/price", json=body)
    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["path"] == path


async def test_a_tariff_is_said_in_the_words_of_ocpp(rig: Rig) -> None:
    await add(rig, DAY_AND_NIGHT)
    made = (await rig.viewer.get("/v1/tariffs/day-and-night/ocpp")).json()
    assert made["exact"] is True
    assert made["tariff"]["energy"]["prices"][0] == {
        "priceKwh": 0.2,
        "conditions": {"startTimeOfDay": "22:00", "endTimeOfDay": "06:00"},
    }
    assert made["tariff"]["idleTime"]["prices"] == [{"priceMinute": 0.1}]
    small = (await rig.viewer.get("/v1/tariffs/day-and-night/ocpp?max_elements=1&conditions=false")).json()
    assert small["exact"] is False
    assert {item["path"] for item in small["findings"] if item["lossy"]} == {"$.elements"}
    assert (await rig.viewer.get("/v1/tariffs/other/ocpp")).status_code == 404


async def test_what_ocpp_cannot_say_is_named_with_its_path(rig: Rig) -> None:
    stepped = deepcopy(DAY_AND_NIGHT)
    stepped["elements"][0]["price_components"][0]["step_size"] = 500
    await add(rig, stepped)
    made = (await rig.viewer.get("/v1/tariffs/day-and-night/ocpp")).json()
    assert made["exact"] is False
    lossy = [item for item in made["findings"] if item["lossy"]]
    assert [item["path"] for item in lossy] == ["$.elements[0].price_components[0].step_size"]


async def test_a_tariff_of_ocpp_needs_no_translation(rig: Rig) -> None:
    await add(rig, FLAT_RATE)
    made = (await rig.viewer.get("/v1/tariffs/flat-rate/ocpp")).json()
    assert (made["exact"], made["tariff"], made["findings"]) == (True, FLAT_RATE, [])


async def test_a_viewer_changes_nothing_and_a_stranger_sees_nothing(rig: Rig) -> None:
    await add(rig, FLAT_RATE)
    assert (await rig.viewer.post("/v1/tariffs", json=DAY_AND_NIGHT)).status_code == 403
    assert (await rig.viewer.put("/v1/tariffs/flat-rate", json=FLAT_RATE)).status_code == 403
    assert (await rig.viewer.delete("/v1/tariffs/flat-rate/versions/1")).status_code == 403
    for path in ("", "/flat-rate", "/flat-rate/versions/1", "/flat-rate/ocpp"):
        assert (await rig.stranger.get(f"/v1/tariffs{path}")).status_code == 401
    for path in ("/validate", "/flat-rate/price"):
        assert (await rig.stranger.post(f"/v1/tariffs{path}", json={})).status_code == 401
