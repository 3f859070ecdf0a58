"""Reservations through the whole system: made by a command, used by a session or by nobody, and on a record."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any

import ocpp.v16.call
import ocpp.v16.call_result
import ocpp.v201.call
import ocpp.v201.call_result
import pytest
from ocpp.routing import on
from ocpp.v16 import ChargePoint as ChargePoint16
from ocpp.v201 import ChargePoint as ChargePoint201

from tests.e2e.system import System, dial, eventually, running

TARIFF = {
    "id": "E2E-RESERVED",
    "currency": "EUR",
    "elements": [
        {
            "price_components": [{"type": "FLAT", "price": 2, "vat": 0, "step_size": 1}],
            "restrictions": {"reservation": "RESERVATION"},
        },
        {
            "price_components": [
                {"type": "FLAT", "price": 5, "vat": 0, "step_size": 1},
                {"type": "TIME", "price": 3600, "vat": 0, "step_size": 1},
            ],
            "restrictions": {"reservation": "RESERVATION_EXPIRES"},
        },
        {"price_components": [{"type": "ENERGY", "price": 0.5, "vat": 0, "step_size": 1}]},
    ],
}
"""A fee of 2.00 for a reservation that is used; of 5.00 and 1.00 a second for one that is not; energy at 0.50."""


class Station16(ChargePoint16):  # type: ignore[misc]
    @on("ReserveNow")  # type: ignore[untyped-decorator]
    def reserve_now(self, **_: Any) -> Any:
        return ocpp.v16.call_result.ReserveNow(status="Accepted")


class Station201(ChargePoint201):  # type: ignore[misc]
    @on("ReserveNow")  # type: ignore[untyped-decorator]
    def reserve_now(self, **_: Any) -> Any:
        return ocpp.v201.call_result.ReserveNow(status="Accepted")


@pytest.fixture(scope="module")
async def system(topics: str, postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """A system that waits no more than a second for word of a reservation whose time is over."""
    settings = {"sessions": {"BUSBAR_SESSIONS_RESERVATION_GRACE_SECONDS": "1"}}
    folder = tmp_path_factory.mktemp("system")
    async with running(folder, topics, postgres_url, settings, edge=2, sessions=3) as one:
        yield one


def now(seconds: float = 0) -> str:
    return iso(datetime.now(UTC) + timedelta(seconds=seconds))


def iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def tariff(system: System) -> None:
    if (await system.request("GET", "/v1/tariffs/E2E-RESERVED"))[0] == 404:
        assert (await system.request("POST", "/v1/tariffs", TARIFF))[0] == 201
        assignment = {"tariff_id": "E2E-RESERVED", "scope": "default"}
        status, document = await system.request("POST", "/v1/tariff-assignments", assignment)
        assert status == 201, document
        await system.add_token("RESERVED-CARD", id_token_type="ISO14443")
        await asyncio.sleep(1.5)  # nothing takes effect before it was made


async def test_a_session_of_1_6_that_uses_a_reservation_has_it_on_its_record(system: System) -> None:
    await tariff(system)
    socket = await dial(system.edges[0], "RESERVED-16", await system.register("RESERVED-16"), "ocpp1.6")
    one = Station16("RESERVED-16", socket, response_timeout=30)
    task = asyncio.create_task(one.start())
    call = ocpp.v16.call
    try:
        await one.call(call.BootNotification(charge_point_model="M", charge_point_vendor="V"), suppress=False)
        wanted = {"connectorId": 1, "expiryDate": now(3600), "idTag": "RESERVED-CARD", "reservationId": 41}
        outcome = await system.command("RESERVED-16", "ReserveNow", wanted)
        assert (outcome["outcome"], outcome["answer"]) == ("answered", {"status": "Accepted"})
        await asyncio.sleep(1)
        begin = call.StartTransaction(
            connector_id=1, id_tag="RESERVED-CARD", meter_start=1000, timestamp=now(), reservation_id=41
        )
        started = await one.call(begin, suppress=False)
        end = call.StopTransaction(transaction_id=started.transaction_id, meter_stop=11_000, timestamp=now(1))
        await one.call(end, suppress=False)
        (session,) = await eventually(lambda: system.transactions("RESERVED-16"), "the session")
        cdr = await eventually(lambda: _record(system, session["session_id"]), "the record")
        assert float(cdr["total_incl"]) == 2 + 5
        assert [line["kind"] for line in cdr["explanation"]["lines"]] == ["RESERVATION_FLAT", "ENERGY"]
        document = await system.get(f"/v1/cdrs/{cdr['cdr_id']}/ocpi")
        assert document["charging_periods"][0]["dimensions"][0]["type"] == "RESERVATION_TIME"
        shown = await system.get(f"/v1/transactions/{session['session_id']}")
        assert shown["reservation"]["reservation_id"] == 41
        assert 0.5 < shown["reservation"]["reserved_seconds"] < 30
    finally:
        task.cancel()
        await socket.close()


async def test_one_that_expires_has_a_record_of_its_own(system: System) -> None:
    await tariff(system)
    socket = await dial(system.edges[1], "RESERVED-201", await system.register("RESERVED-201"), "ocpp2.0.1")
    one = Station201("RESERVED-201", socket, response_timeout=30)
    task = asyncio.create_task(one.start())
    call = ocpp.v201.call
    try:
        described = {"model": "Model", "vendor_name": "Vendor"}
        await one.call(call.BootNotification(charging_station=described, reason="PowerUp"), suppress=False)
        token = {"idToken": "RESERVED-CARD", "type": "ISO14443"}
        wanted = {"id": 42, "expiryDateTime": now(6), "idToken": token, "evseId": 1}
        outcome = await system.command("RESERVED-201", "ReserveNow", wanted)
        assert outcome["answer"] == {"status": "Accepted"}
        await asyncio.sleep(6.5)
        expired = call.ReservationStatusUpdate(reservation_id=42, reservation_update_status="Expired")
        await one.call(expired, suppress=False)
        cdrs = await eventually(lambda: _of_station(system, "RESERVED-201"), "the record")
        (cdr,) = [await system.get(f"/v1/cdrs/{each['cdr_id']}") for each in cdrs]
        explanation = cdr["explanation"]
        begin, end = (datetime.fromisoformat(explanation["reservation"][name]) for name in ("begin", "end"))
        seconds = (end - begin).total_seconds()
        assert 0 < seconds <= 6
        assert float(cdr["total_incl"]) == 5 + ceil(seconds)
        assert (cdr["flags"], cdr["energy_wh"], "session" in explanation) == (["reservation"], 0, False)
        (charge,) = (await system.get("/v1/charges?station=RESERVED-201"))["items"]
        assert (charge["status"], charge["cdr_id"]) == ("priced", cdr["cdr_id"])
        assert await system.transactions("RESERVED-201") == []
    finally:
        task.cancel()
        await socket.close()


async def test_a_start_that_was_buffered_takes_back_what_the_clock_had_decided(system: System) -> None:
    """A station of 1.6 is offline while its reservation is used, and says so when it is back."""
    await tariff(system)
    socket = await dial(system.edges[0], "RESERVED-LATE", await system.register("RESERVED-LATE"), "ocpp1.6")
    one = Station16("RESERVED-LATE", socket, response_timeout=30)
    task = asyncio.create_task(one.start())
    call = ocpp.v16.call
    try:
        await one.call(call.BootNotification(charge_point_model="M", charge_point_vendor="V"), suppress=False)
        wanted = {"connectorId": 1, "expiryDate": now(6), "idTag": "RESERVED-CARD", "reservationId": 43}
        outcome = await system.command("RESERVED-LATE", "ReserveNow", wanted)
        assert outcome["answer"] == {"status": "Accepted"}
        began = datetime.now(UTC) + timedelta(seconds=1)
        (expired,) = await eventually(lambda: _of_station(system, "RESERVED-LATE"), "the record of the clock", 40)
        assert expired["flags"] == ["reservation"]
        assert 5 < float(expired["total_incl"]) <= 5 + 6
        begin = call.StartTransaction(
            connector_id=1, id_tag="RESERVED-CARD", meter_start=1000, timestamp=iso(began), reservation_id=43
        )
        started = await one.call(begin, suppress=False)
        end = call.StopTransaction(
            transaction_id=started.transaction_id, meter_stop=11_000, timestamp=iso(began + timedelta(seconds=1))
        )
        await one.call(end, suppress=False)

        async def all_three() -> Any:
            found = await _of_station(system, "RESERVED-LATE")
            return found if len(found) >= 3 else None

        records = await eventually(all_three, "a credit and the record of the session")
        assert sum(float(each["total_incl"]) for each in records) == 2 + 5
        assert [each["credit_reference_id"] for each in records if each["credit"]] == [expired["cdr_id"]]
        charges = (await system.get("/v1/charges?station=RESERVED-LATE"))["items"]
        assert sorted(each["status"] for each in charges) == ["priced", "returned"]
        receipt = await asyncio.to_thread(_receipt, system, _of_session(records))
        assert "Reservation fee" in receipt
    finally:
        task.cancel()
        await socket.close()


def _of_session(records: list[Any]) -> str:
    (found,) = [each["cdr_id"] for each in records if each["energy_wh"]]
    return str(found)


def _receipt(system: System, cdr_id: str) -> str:
    headers = {"Authorization": f"Bearer {system.run.admin_key}"}
    asked = urllib.request.Request(f"{system.run.api_url}/v1/cdrs/{cdr_id}/receipt", headers=headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=20) as response:
        text: str = response.read().decode()
    return text


async def _record(system: System, session_id: str) -> Any:
    status, charge = await system.request("GET", f"/v1/charges/{session_id}")
    if status != 200 or not charge.get("cdr_id"):
        return None
    return await system.get(f"/v1/cdrs/{charge['cdr_id']}")


async def _of_station(system: System, station_id: str) -> Any:
    return (await system.get(f"/v1/cdrs?station={station_id}"))["items"]
