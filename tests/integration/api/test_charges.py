"""Sessions as billing sees them, over HTTP, and energy that nobody pays for."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.integration.api.billing_rows import BEGIN, add_cdr, add_charge, session_id
from tests.integration.api.conftest import Rig


async def listed(rig: Rig, what: str, name: str, query: str = "") -> list[Any]:
    seen: list[Any] = []
    after = ""
    for _ in range(20):
        body = (await rig.operator.get(f"/v1/{what}?limit=2{query}{after}")).json()
        seen += [item[name] for item in body["items"]]
        if body["next"] is None:
            return seen
        after = f"&after={body['next']}"
    raise AssertionError("the pages have no end")


async def test_sessions_are_listed_with_their_cost_the_newest_first(rig: Rig) -> None:
    for number in range(1, 6):
        unknown: dict[str, Any] = {"started_at": None} if number in (1, 3, 4) else {}
        await add_charge(rig.pool, number, **unknown)
    # Where the begin is not known, there is nothing to sort by: these come first, whatever their number.
    assert await listed(rig, "charges", "transaction_id") == ["4", "3", "1", "5", "2"]


async def test_lists_are_narrowed_down(rig: Rig) -> None:
    await add_charge(rig.pool, 1, status="open", ended_at=None, cost_excl=Decimal("1.10"))
    await add_charge(rig.pool, 2, status="unpriced", reason="no tariff", tariff_id=None, currency=None)
    await add_charge(rig.pool, 3, status="failed", station_id="CS-2", site_id="harbour", id_token="CAFE")
    await add_charge(rig.pool, 4, currency="CHF", tariff_id="T2")
    for query, expected in (
        ("&status=open", ["1"]),
        ("&status=unpriced", ["2"]),
        ("&status=failed", ["3"]),
        ("&status=priced", ["4"]),
        ("&station=CS-2", ["3"]),
        ("&site=depot", ["4", "2", "1"]),
        ("&token=cafe", ["3"]),
        ("&tariff=T2", ["4"]),
        ("&currency=EUR", ["3", "1"]),
        ("&from=2026-11-01T11:00:00Z", ["4", "3"]),
        ("&to=2026-11-01T11:00:00Z", ["2", "1"]),
    ):
        assert await listed(rig, "charges", "transaction_id", query) == expected, query
    items = (await rig.viewer.get("/v1/charges?status=unpriced")).json()["items"]
    assert (items[0]["reason"], items[0]["tariff_id"]) == ("no tariff", None)


async def test_reservations_are_among_them(rig: Rig) -> None:
    await add_charge(rig.pool, 1)
    more = {"transaction_id": "", "flags": ["reservation"], "energy_wh": 0, "energy_rung": "none"}
    await add_charge(rig.pool, 2, status="returned", reason="it is used after all", **more)
    (found,) = (await rig.viewer.get("/v1/charges?status=returned")).json()["items"]
    assert (found["flags"], found["reason"], found["transaction_id"]) == (["reservation"], "it is used after all", "")


async def test_a_session_is_shown_with_its_records_and_what_was_settled(rig: Rig) -> None:
    await add_charge(rig.pool, 1)
    ids = [await add_cdr(rig.pool, 1, **more) for more in ({}, {"credit": True}, {"correction": 2})]
    await rig.pool.execute(
        "INSERT INTO billing.settlements (psp_ref, session_id, station_id, status, amount, settled_at, received_at,"
        " vat_company, vat_number) VALUES ('psp-1', $1, 'CS-1', 'Settled', 10.71, now(), now(), $2, 'DE1')",
        session_id(1),
        '{"name": "ACME"}',
    )
    await rig.pool.execute(
        "INSERT INTO billing.station_costs (session_id, currency, total, after_tax, ours, failed, details, checked_at)"
        " VALUES ($1, 'EUR', 10.70, true, 10.71, false, '{}', now())",
        session_id(1),
    )
    response = await rig.viewer.get(f"/v1/charges/{session_id(1)}")
    body = response.json()
    assert '"cost_excl":9.4,"cost_incl":10.71,' in response.text
    assert [cdr["cdr_id"] for cdr in body["cdrs"]] == ids
    assert [(settled["psp_ref"], settled["amount"]) for settled in body["settlements"]] == [("psp-1", 10.71)]
    assert body["station_cost"]["difference"] == -0.01
    assert "fold" not in body
    assert "ACME" not in response.text
    (settled,) = (await rig.operator.get(f"/v1/charges/{session_id(1)}")).json()["settlements"]
    assert (settled["vat_company"], settled["vat_number"]) == ({"name": "ACME"}, "DE1")


async def test_a_viewer_sees_only_the_end_of_an_id_token(rig: Rig) -> None:
    await add_charge(rig.pool, 1)
    await add_cdr(rig.pool, 1)
    for path in ("/v1/charges", f"/v1/charges/{session_id(1)}"):
        assert "DEADBEEF01" not in (await rig.viewer.get(path)).text
        assert "DEADBEEF01" in (await rig.operator.get(path)).text
        assert (await rig.stranger.get(path)).status_code == 401
    assert (await rig.viewer.get("/v1/charges?token=DEADBEEF01")).status_code == 403
    assert (await rig.stranger.get("/v1/unattributed-energy")).status_code == 401


async def test_energy_outside_of_sessions_is_listed_the_newest_first(rig: Rig) -> None:
    for number in range(1, 6):
        await rig.pool.execute(
            "INSERT INTO billing.unattributed (event_id, station_id, evse_id, energy_wh, register_begin_wh,"
            " register_end_wh, at, session_id) VALUES ($1, $2, 1, -12.5, 100, 112.5, $3, $4)",
            f"event-{number}",
            f"CS-{number % 2}",
            BEGIN + timedelta(hours=number // 2),
            session_id(number),
        )
    assert await listed(rig, "unattributed-energy", "event_id") == [f"event-{number}" for number in (5, 4, 3, 2, 1)]
    assert await listed(rig, "unattributed-energy", "event_id", "&station=CS-0") == ["event-4", "event-2"]
    assert await listed(rig, "unattributed-energy", "event_id", "&from=2026-11-01T10:00:00Z") == ["event-5", "event-4"]
    assert await listed(rig, "unattributed-energy", "event_id", "&to=2026-11-01T09:00:00Z") == ["event-1"]
    (item,) = (await rig.viewer.get("/v1/unattributed-energy?to=2026-11-01T09:00:00Z")).json()["items"]
    assert (item["energy_wh"], item["register_end_wh"], item["session_id"]) == (-12.5, 112.5, str(session_id(1)))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"charges/{session_id(404)}", 404),
        ("charges/not-a-uuid", 422),
        ("charges?status=paid", 422),
        ("charges?after=x", 422),
        ("charges?after=WyIyMDI2LTExLTAxVDA4OjAwOjAwIiwieCJd", 422),
        ("charges?from=yesterday", 422),
        ("unattributed-energy?after=x", 422),
        ("unattributed-energy?station=%00", 422),
    ],
)
async def test_what_cannot_be_found_or_read_is_refused(rig: Rig, path: str, status: int) -> None:
    response = await rig.operator.get(f"/v1/{path}")
    assert response.status_code == status
