from __future__ import annotations

import uuid
from typing import Any

import pytest

from busbar.avro import decode
from busbar.passwords import verify_password
from tests.integration.api.conftest import Rig

EVIL = "'); DROP TABLE config.stations; --<script>alert(1)</script>{{7*7}}"


async def create(rig: Rig, station_id: str = "CS-1", **fields: Any) -> dict[str, Any]:
    response = await rig.operator.post("/v1/stations", json={"station_id": station_id, **fields})
    assert response.status_code == 201, response.text
    document: dict[str, Any] = response.json()
    return document


async def stored_password(rig: Rig) -> str | None:
    value: str | None = await rig.pool.fetchval("SELECT password_hash FROM config.stations")
    return value


async def test_a_station_gets_a_generated_password_that_is_shown_once(rig: Rig) -> None:
    created = await create(rig)
    assert verify_password(created["password"].encode(), await stored_password(rig) or "", rig.api.config.pepper)
    shown = await rig.operator.get("/v1/stations/CS-1")
    assert created["password"] not in shown.text
    assert shown.json()["settings"]["has_password"] is True


async def test_a_given_password_is_not_shown_and_stored_slowly_hashed(rig: Rig) -> None:
    created = await create(rig, password="correct horse")
    assert "password" not in created
    stored = await stored_password(rig) or ""
    assert stored.startswith("$argon2id$")
    assert verify_password(b"correct horse", stored, b"")


@pytest.mark.parametrize("profile", [0, 3])
async def test_a_security_profile_without_passwords_gets_none(rig: Rig, profile: int) -> None:
    assert "password" not in await create(rig, security_profile=profile)
    assert await stored_password(rig) is None


async def test_a_station_is_registered_once(rig: Rig) -> None:
    await create(rig)
    response = await rig.operator.post("/v1/stations", json={"station_id": "CS-1"})
    assert response.status_code == 409


async def test_settings_are_kept_as_they_were_given(rig: Rig) -> None:
    settings: dict[str, Any] = {
        "boot_status": "Pending",
        "heartbeat_interval_seconds": 60,
        "ocpp_version": "2.0.1",
        "security_profile": 2,
        "max_frame_bytes": 65_536,
        "ping_interval_seconds": 0,
        "enabled": False,
        "site_id": "depot",
        "location_id": "L-1",
        "quirks": {"no_seconds": True, "retries": 3, "note": "old"},
    }
    await create(rig, **settings)
    shown = (await rig.viewer.get("/v1/stations/CS-1")).json()["settings"]
    assert {name: shown[name] for name in settings} == settings


async def test_a_change_touches_only_what_it_names(rig: Rig) -> None:
    await create(rig, site_id="depot", heartbeat_interval_seconds=60)
    response = await rig.operator.patch("/v1/stations/CS-1", json={"heartbeat_interval_seconds": None})
    settings = response.json()["settings"]
    assert (settings["site_id"], settings["heartbeat_interval_seconds"]) == ("depot", None)


async def test_a_change_of_nothing_or_of_nobody_is_refused(rig: Rig) -> None:
    await create(rig)
    assert (await rig.operator.patch("/v1/stations/CS-1", json={})).status_code == 422
    assert (await rig.operator.patch("/v1/stations/CS-2", json={"enabled": True})).status_code == 404


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "$.station_id"),
        ({"station_id": 7}, "$.station_id"),
        ({"station_id": ""}, "$.station_id"),
        ({"station_id": "x" * 256}, "$.station_id"),
        ({"station_id": "a/b"}, "$.station_id"),
        ({"station_id": "a\0b"}, "$.station_id"),
        ({"station_id": " a"}, "$.station_id"),
        ({"station_id": "a", "boot_status": "Maybe"}, "$.boot_status"),
        ({"station_id": "a", "boot_status": None}, "$.boot_status"),
        ({"station_id": "a", "security_profile": "1"}, "$.security_profile"),
        ({"station_id": "a", "security_profile": 1.5}, "$.security_profile"),
        ({"station_id": "a", "security_profile": True}, "$.security_profile"),
        ({"station_id": "a", "heartbeat_interval_seconds": 0}, "$.heartbeat_interval_seconds"),
        ({"station_id": "a", "heartbeat_interval_seconds": 10**40}, "$.heartbeat_interval_seconds"),
        ({"station_id": "a", "ocpp_version": "1.5"}, "$.ocpp_version"),
        ({"station_id": "a", "site_id": "a\0b"}, "$.site_id"),
        ({"station_id": "a", "quirks": []}, "$.quirks"),
        ({"station_id": "a", "password": "short"}, "$.password"),
        ({"station_id": "a", "colour": "red"}, "$.colour"),
    ],
)
async def test_what_is_wrong_with_a_station_is_named_with_its_path(rig: Rig, body: dict[str, Any], path: str) -> None:
    response = await rig.operator.post("/v1/stations", json=body)
    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["path"].startswith(path)


@pytest.mark.parametrize("body", [b"{", b'{"station_id":NaN}', b"[" * 3000, b"\xff\xfe", b'{"station_id":"\\ud800"}'])
async def test_what_is_not_json_is_refused(rig: Rig, body: bytes) -> None:
    assert (await rig.operator.post("/v1/stations", content=body)).status_code == 400


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"null", b"7", b""])
async def test_json_that_is_no_object_is_refused(rig: Rig, body: bytes) -> None:
    assert (await rig.operator.post("/v1/stations", content=body)).status_code == 422


async def test_sql_and_script_are_names_like_any_other(rig: Rig) -> None:
    evil = EVIL.replace("/", "|")
    await create(rig, evil, site_id=EVIL)
    listed = (await rig.viewer.get("/v1/stations", params={"q": evil[:5], "site": EVIL})).json()["items"]
    assert [item["station_id"] for item in listed] == [evil]
    assert (await rig.viewer.get(f"/v1/stations/{evil}")).json()["settings"]["site_id"] == EVIL


async def pages(rig: Rig, query: str = "") -> list[str]:
    seen: list[str] = []
    after = ""
    for _ in range(50):
        body = (await rig.viewer.get(f"/v1/stations?limit=3{query}{after}")).json()
        seen += [item["station_id"] for item in body["items"]]
        if body["next"] is None:
            return seen
        after = f"&after={body['next']}"
    raise AssertionError("the pages have no end")


async def test_every_station_is_on_exactly_one_page(rig: Rig) -> None:
    names = [f"CS-{number:02}" for number in range(10)]
    for name in names[::2]:
        await create(rig, name, security_profile=0)
    for name in names[1::2]:
        await rig.online(name)  # connected, though nobody registered them
    assert await pages(rig) == names
    assert await pages(rig, "&registered=true") == names[::2]
    assert await pages(rig, "&registered=false") == names[1::2]


async def test_lists_are_narrowed_down(rig: Rig) -> None:
    for name in ("A-1", "A-2", "B-1"):
        await create(rig, name, security_profile=0, site_id=f"site-{name[0]}")
    await rig.online("A-2", "2.0.1")
    await rig.online("B-1", "1.6")
    await rig.pool.execute(
        "INSERT INTO stations.stations (station_id, partition, ocpp_version, vendor, model, first_seen_at,"
        " last_seen_at) VALUES ('B-1', 0, '1.6', 'Vendor & Co', 'M1', now(), now())"
    )
    assert await pages(rig, "&q=A-") == ["A-1", "A-2"]
    assert await pages(rig, "&q=%25") == []
    assert await pages(rig, "&online=true") == ["A-2", "B-1"]
    assert await pages(rig, "&online=false") == ["A-1"]
    assert await pages(rig, "&version=2.0.1") == ["A-2"]
    assert await pages(rig, "&site=site-B") == ["B-1"]
    assert await pages(rig, "&vendor=Vendor%20%26%20Co&model=M1") == ["B-1"]
    assert await pages(rig, "&q=A-&online=true&version=2.0.1&site=site-A") == ["A-2"]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=9999", "limit=x", "online=perhaps", "version=3", "q=%00", "after=%00", "site="]
)
async def test_a_query_that_makes_no_sense_is_refused(rig: Rig, query: str) -> None:
    response = await rig.viewer.get(f"/v1/stations?{query}")
    assert response.status_code == 422
    assert response.json()["errors"][0]["path"].startswith("query.")


async def test_a_station_is_shown_with_connection_shadow_connectors_and_open_transactions(rig: Rig) -> None:
    await create(rig)
    await rig.online("CS-1")
    await rig.pool.execute(
        "INSERT INTO stations.stations (station_id, partition, ocpp_version, vendor, boot, last_command_id,"
        " last_command_action, last_command_result, first_seen_at, last_seen_at)"
        " VALUES ('CS-1', 0, '1.6', 'V', '{\"chargePointVendor\":\"V\"}', 'c', 'Reset', '{\"a\":1}', now(), now())"
    )
    await rig.pool.execute(
        "INSERT INTO stations.connectors (station_id, evse_id, connector_id, status, status_since, payload,"
        " received_at, connection_id, sequence) VALUES ('CS-1', 0, 1, 'Available', now(), '{}', now(), 'a', 1)"
    )
    body = (await rig.viewer.get("/v1/stations/CS-1")).json()
    assert body["online"] is True
    assert body["connection"]["edge"] == "edge-0"
    assert body["shadow"]["boot"] == {"chargePointVendor": "V"}
    assert body["shadow"]["last_command"]["result"] == {"a": 1}
    assert [connector["status"] for connector in body["connectors"]] == ["Available"]
    assert body["open_transactions"] == []
    assert body["shadow"]["last_transaction_event"] is None


async def test_the_shadow_shows_the_last_event_of_the_last_transaction(rig: Rig) -> None:
    await create(rig)
    await rig.pool.execute(
        "INSERT INTO stations.stations (station_id, partition, ocpp_version, first_seen_at, last_seen_at)"
        " VALUES ('CS-1', 0, '1.6', now(), now())"
    )
    for number in (1, 2):
        await rig.pool.execute(
            "INSERT INTO sessions.transactions (session_id, station_id, transaction_id, generation, ocpp_version,"
            " evse_id, connector_id, state, is_open, is_final, is_complete, opened_at, last_event_at, energy_wh,"
            " energy_rung, event_count, flags, fold)"
            " VALUES ($1, 'CS-1', $2, 1, '1.6', 1, 1, 'ended', false, true, true, now(),"
            " make_timestamptz(2026, 11, $3, 0, 0, 0, 'UTC'), 7, 'samples', 1, '{}', '')",
            uuid.UUID(int=number),
            str(number),
            number,
        )
    for event, second in (("StartTransaction", 1), ("StopTransaction", 2)):
        await rig.pool.execute(
            "INSERT INTO sessions.meter_values (session_id, event_key, content_hash, station_id, evse_id, event,"
            " in_session, happened_at, received_at) VALUES ($1, $3, 0, 'CS-1', 1, $2, true, now(),"
            " make_timestamptz(2026, 11, 2, 0, 0, $3::bigint, 'UTC'))",
            uuid.UUID(int=2),
            event,
            second,
        )
    shadow = (await rig.viewer.get("/v1/stations/CS-1")).json()["shadow"]
    assert shadow["last_transaction_event"]["transaction_id"] == "2"
    assert shadow["last_transaction_event"]["event"] == "StopTransaction"


async def test_a_station_that_nobody_knows_is_not_found(rig: Rig) -> None:
    for name in ("CS-404", EVIL.replace("/", "|")):
        assert (await rig.viewer.get(f"/v1/stations/{name}")).status_code == 404
    assert (await rig.viewer.get("/v1/stations/a%00b")).status_code == 422


def closes(rig: Rig) -> list[dict[str, Any]]:
    return [decode(record.value or b"")[1] for record in rig.broker.records("csms.outbound")]


async def test_disabling_a_station_closes_its_socket(rig: Rig) -> None:
    await create(rig)
    await rig.online("CS-1", edge_partition=3)
    await rig.operator.patch("/v1/stations/CS-1", json={"enabled": False})
    [close] = closes(rig)
    assert (close["kind"], close["connection_id"], close["station_id"]) == ("close", "a", "CS-1")
    assert rig.broker.records("csms.outbound")[0].partition == 3


async def test_a_removed_station_is_gone_and_its_socket_closed(rig: Rig) -> None:
    await create(rig)
    await rig.online("CS-1")
    assert (await rig.operator.delete("/v1/stations/CS-1")).status_code == 204
    assert (await rig.operator.delete("/v1/stations/CS-1")).status_code == 404
    assert len(closes(rig)) == 1
    assert (await rig.viewer.get("/v1/stations/CS-1")).json()["registered"] is False


async def test_a_station_can_be_disconnected_while_it_is_online(rig: Rig) -> None:
    await create(rig)
    assert (await rig.operator.post("/v1/stations/CS-1/disconnect")).status_code == 409
    await rig.online("CS-1")
    assert (await rig.operator.post("/v1/stations/CS-1/disconnect")).status_code == 202
    assert len(closes(rig)) == 1


async def test_a_new_password_replaces_the_old_one(rig: Rig) -> None:
    first = (await create(rig))["password"]
    second = (await rig.operator.post("/v1/stations/CS-1/password")).json()["password"]
    stored = await stored_password(rig) or ""
    assert verify_password(second.encode(), stored, rig.api.config.pepper)
    assert not verify_password(first.encode(), stored, rig.api.config.pepper)
    given = await rig.operator.post("/v1/stations/CS-1/password", json={"password": "correct horse"})
    assert given.json() == {"station_id": "CS-1"}
    assert (await rig.operator.post("/v1/stations/CS-2/password")).status_code == 404
