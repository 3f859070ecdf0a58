from __future__ import annotations

import asyncio
import struct
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from busbar.avro import decode
from tests.integration.api.conftest import Rig

ONE = uuid.UUID(int=1)


async def add(rig: Rig, number: int, *, station: str = "CS-1", is_open: bool = False, day: int = 1) -> uuid.UUID:
    session_id = uuid.UUID(int=number)
    await rig.pool.execute(
        "INSERT INTO sessions.transactions (session_id, station_id, transaction_id, generation, ocpp_version, site_id,"
        " evse_id, connector_id, id_token, id_token_key, state, is_open, is_final, is_complete, opened_at,"
        " last_event_at, energy_wh, energy_rung, event_count, flags, fold)"
        " VALUES ($1, $2, $3, 1, '1.6', 'depot', 1, 1, 'DEADBEEF01', 'deadbeef01', 'open', $4, false, false,"
        " make_timestamptz(2026, 11, $5, 0, 0, 0, 'UTC'), now(), 12345.500000, 'signed', 1, '{}', '')",
        session_id,
        station,
        str(number),
        is_open,
        day,
    )
    return session_id


async def listed(rig: Rig, query: str = "") -> list[int]:
    seen: list[int] = []
    after = ""
    for _ in range(20):
        body = (await rig.operator.get(f"/v1/transactions?limit=2{query}{after}")).json()
        seen += [int(item["transaction_id"]) for item in body["items"]]
        if body["next"] is None:
            return seen
        after = f"&after={body['next']}"
    raise AssertionError("the pages have no end")


async def test_transactions_are_listed_page_by_page_the_newest_first(rig: Rig) -> None:
    for number in range(1, 6):
        await add(rig, number, day=1 + number // 3)
    assert await listed(rig) == [5, 4, 3, 2, 1]


async def test_lists_are_narrowed_down(rig: Rig) -> None:
    await add(rig, 1, day=1)
    await add(rig, 2, day=2, is_open=True)
    await add(rig, 3, day=3, station="CS-2")
    assert await listed(rig, "&station=CS-1") == [2, 1]
    assert await listed(rig, "&open=true") == [2]
    assert await listed(rig, "&from=2026-11-02T00:00:00Z") == [3, 2]
    assert await listed(rig, "&to=2026-11-02T00:00:00Z") == [1]
    assert await listed(rig, "&site=depot&station=CS-2") == [3]
    assert await listed(rig, "&token=DeadBeef01") == [3, 2, 1]


async def test_the_reservation_that_it_uses_is_shown(rig: Rig) -> None:
    await add(rig, 1)
    assert (await rig.viewer.get(f"/v1/transactions/{ONE}")).json()["reservation"] is None
    await rig.pool.execute(
        "INSERT INTO sessions.reservations (reservation_key, station_id, reservation_id, ocpp_version, evse_id,"
        " connector_id, status, made_at, expires_at, ended_at, session_id, command_id)"
        " VALUES (gen_random_uuid(), 'CS-1', 7, '1.6', 1, 1, 'used', '2026-11-01T08:00:00Z', '2026-11-01T09:00:00Z',"
        " '2026-11-01T08:20:30Z', $1, 'c')",
        ONE,
    )
    body = (await rig.viewer.get(f"/v1/transactions/{ONE}")).json()
    assert body["reservation"] == {
        "reservation_id": 7,
        "made_at": "2026-11-01T08:00:00Z",
        "expires_at": "2026-11-01T09:00:00Z",
        "reserved_seconds": 1230.0,
    }


async def test_a_transaction_is_shown_with_its_meter_values(rig: Rig) -> None:
    await add(rig, 1)
    await rig.pool.execute(
        "INSERT INTO sessions.sample_shapes VALUES (7, '{Energy.Active.Import.Register,Power.Active.Import}',"
        " '{Sample.Periodic,Sample.Periodic}', '{\"\",L1}', '{Outlet,Outlet}', '{Wh,W}', '{kWh,W}', '{0,0}', '{f,f}')"
    )
    await rig.pool.execute(
        "INSERT INTO sessions.meter_values (session_id, event_key, content_hash, station_id, evse_id, event,"
        " in_session, happened_at, received_at, shape_id, samples)"
        " VALUES ($1, 5, 0, 'CS-1', 1, 'MeterValues', true, now(), now(), 7, $2)",
        ONE,
        struct.pack(">qq", 1_500_250_000, 11_000_000_000),
    )
    body = (await rig.viewer.get(f"/v1/transactions/{ONE}")).json()
    assert body["energy_wh"] == 12345.5
    [event] = body["meter_values"]
    assert [(sample["measurand"], sample["unit"], sample["value"]) for sample in event["samples"]] == [
        ("Energy.Active.Import.Register", "Wh", 1500.25),
        ("Power.Active.Import", "W", 11000),
    ]
    assert "meter_values" not in (await rig.viewer.get(f"/v1/transactions/{ONE}?meter_values=false")).json()


async def test_signed_values_are_shown_byte_for_byte(rig: Rig) -> None:
    await add(rig, 1)
    await rig.pool.execute(
        "INSERT INTO sessions.signed_values VALUES ($1, 1, 0, now(), 'Transaction.Begin', $2, 'OCMF', '', 'key')",
        ONE,
        b"\x00\xff|OCMF",
    )
    [signed] = (await rig.viewer.get(f"/v1/transactions/{ONE}")).json()["signed_values"]
    assert signed["data_base64"] == "AP98T0NNRg=="


async def test_energy_is_exact(rig: Rig) -> None:
    await add(rig, 1)
    await rig.pool.execute("UPDATE sessions.transactions SET energy_wh = 123456789012345678.000001")
    response = await rig.viewer.get(f"/v1/transactions/{ONE}")
    assert '"energy_wh":123456789012345678.000001' in response.text


async def test_a_viewer_sees_only_the_end_of_an_id_token(rig: Rig) -> None:
    await add(rig, 1)
    assert (await rig.viewer.get(f"/v1/transactions/{ONE}")).json()["id_token"] == "…EF01"
    assert (await rig.operator.get(f"/v1/transactions/{ONE}")).json()["id_token"] == "DEADBEEF01"
    assert "DEADBEEF01" not in (await rig.viewer.get("/v1/transactions")).text
    assert (await rig.viewer.get("/v1/transactions?token=DEADBEEF01")).status_code == 403


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/{uuid.UUID(int=404)}", 404),
        ("/not-a-uuid", 422),
        ("/%00", 422),
        ("?from=yesterday", 422),
        ("?from=2026-11-01T00:00:00", 422),
        ("?open=1.5", 422),
        ("?station=%00", 422),
        ("?to=99999999999999999999", 422),
    ],
)
async def test_what_cannot_be_found_or_read_is_refused(rig: Rig, path: str, status: int) -> None:
    response = await rig.viewer.get(f"/v1/transactions{path}")
    assert response.status_code == status
    document: dict[str, Any] = response.json()
    assert document["status"] == status


TARIFF = {"id": "B", "currency": "EUR", "elements": [{"price_components": [{"type": "ENERGY", "price": 1}]}]}


async def running(rig: Rig) -> None:
    """An open transaction, and a tariff that is valid."""
    await add(rig, 1, is_open=True)
    assert (await rig.operator.post("/v1/tariffs", json=TARIFF)).status_code == 201
    past = "now() - interval '1 minute'"
    await rig.pool.execute(f"UPDATE config.tariffs SET created_at = {past}, valid_from = {past}")


def wanted(rig: Rig) -> list[dict[str, Any]]:
    return [decode(record.value or b"")[1] for record in rig.broker.records("csms.tariff-changes")]


async def decided(rig: Rig, change: dict[str, Any], status: str, **more: Any) -> None:
    """What sessions writes of a change."""
    columns = {
        "change_id": change["change_id"],
        "session_id": change["session_id"],
        "station_id": change["station_id"],
        "tariff_id": change["tariff_id"],
        "version": change["tariff_version"],
        "status": status,
        "requested_by": change["requested_by"],
        "requested_at": datetime.fromtimestamp(change["requested_at"] / 1000, UTC),
        **more,
    }
    places = ", ".join(f"${index + 1}" for index in range(len(columns)))
    await rig.pool.execute(
        f"INSERT INTO sessions.tariff_changes ({', '.join(columns)}) VALUES ({places})",
        *columns.values(),
    )


class TestTariffChange:
    async def test_it_goes_to_sessions_and_its_outcome_comes_back(self, rig: Rig) -> None:
        await running(rig)
        asking = asyncio.create_task(rig.operator.post(f"/v1/transactions/{ONE}/tariff", json={"tariff_id": "B"}))
        async with asyncio.timeout(5):
            while not wanted(rig):
                await rig.broker.arrival(0.1)
        (change,) = wanted(rig)
        assert (change["station_id"], change["session_id"], change["transaction_id"]) == ("CS-1", str(ONE), "1")
        assert (change["tariff_id"], change["tariff_version"], change["requested_by"]) == ("B", 1, "operator")
        from_ = datetime(2026, 11, 30, 10, 0, tzinfo=UTC)
        await decided(rig, change, "applied", applies_from=from_)
        response = await asking
        assert (response.status_code, response.json()["status"]) == (200, "applied")
        assert response.json()["applies_from"] == "2026-11-30T10:00:00Z"
        items = (await rig.viewer.get(f"/v1/transactions/{ONE}/tariff-changes")).json()["items"]
        assert [(item["change_id"], item["status"]) for item in items] == [(change["change_id"], "applied")]

    async def test_a_refusal_says_why(self, rig: Rig) -> None:
        await running(rig)
        asking = asyncio.create_task(rig.operator.post(f"/v1/transactions/{ONE}/tariff", json={"tariff_id": "B"}))
        async with asyncio.timeout(5):
            while not wanted(rig):
                await rig.broker.arrival(0.1)
        await decided(rig, wanted(rig)[0], "refused", reason="$.currency: is EUR")
        response = await asking
        assert response.status_code == 409
        assert response.json()["detail"] == "$.currency: is EUR"

    async def test_it_may_not_be_known_yet(self, rig: Rig) -> None:
        await running(rig)
        path = f"/v1/transactions/{ONE}/tariff"
        response = await rig.operator.post(f"{path}?wait=0", json={"tariff_id": "B", "version": 1})
        assert (response.status_code, response.json()["status"]) == (202, "pending")
        asking = asyncio.create_task(rig.operator.post(f"{path}?wait=0.5", json={"tariff_id": "B"}))
        async with asyncio.timeout(5):
            while len(wanted(rig)) < 2:
                await rig.broker.arrival(0.1)
        await decided(rig, wanted(rig)[1], "asked", command_id="c1")
        response = await asking
        assert (response.status_code, response.json()["status"]) == (202, "asked")
        assert response.json()["command_id"] == "c1"
        items = (await rig.viewer.get(f"{path}-changes")).json()["items"]
        assert [item["status"] for item in items] == ["asked"]

    async def test_what_cannot_be_asked_for(self, rig: Rig) -> None:
        await running(rig)
        await add(rig, 2)
        two, nobody = uuid.UUID(int=2), uuid.UUID(int=3)
        cases = [
            (rig.viewer, ONE, {"tariff_id": "B"}, 403),
            (rig.operator, nobody, {"tariff_id": "B"}, 404),
            (rig.operator, two, {"tariff_id": "B"}, 409),
            (rig.operator, ONE, {"tariff_id": "NONE"}, 404),
            (rig.operator, ONE, {"tariff_id": "B", "version": 2}, 404),
            (rig.operator, ONE, {"tariff_id": "B", "version": 0}, 422),
            (rig.operator, ONE, {"tariff": "B"}, 422),
        ]
        for client, session_id, body, status in cases:
            response = await client.post(f"/v1/transactions/{session_id}/tariff", json=body)
            assert response.status_code == status, body
        assert wanted(rig) == []
        # A version that is not valid yet is not one of now.
        await rig.pool.execute("UPDATE config.tariffs SET valid_from = now() + interval '1 hour'")
        assert (await rig.operator.post(f"/v1/transactions/{ONE}/tariff", json={"tariff_id": "B"})).status_code == 404
        assert (await rig.viewer.get(f"/v1/transactions/{nobody}/tariff-changes")).status_code == 404
