"""The tariff of a session that goes on is changed: the display, the bill and the record change at the same instant."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import ocpp.v21.call
import ocpp.v21.call_result
from ocpp.routing import after, on
from ocpp.v21 import ChargePoint as ChargePoint21

from tests.e2e.system import System, dial, eventually

call, result = ocpp.v21.call, ocpp.v21.call_result
BEGIN = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)
TOKEN = {"id_token": "TARIFF-CARD", "type": "ISO14443"}


class PricingStation(ChargePoint21):  # type: ignore[misc]
    """Prices its sessions itself, with the tariffs that it is told."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.default_tariff = ""
        self.changed: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @on("GetTariffs")  # type: ignore[untyped-decorator]
    def get_tariffs(self, **_: Any) -> Any:
        return result.GetTariffs(status="NoTariff")

    @on("SetDefaultTariff")  # type: ignore[untyped-decorator]
    def set_default_tariff(self, tariff: dict[str, Any], **_: Any) -> Any:
        self.default_tariff = tariff["tariff_id"]
        return result.SetDefaultTariff(status="Accepted")

    @on("ChangeTransactionTariff")  # type: ignore[untyped-decorator]
    def change_tariff(self, **_: Any) -> Any:
        return result.ChangeTransactionTariff(status="Accepted")

    @after("ChangeTransactionTariff")  # type: ignore[untyped-decorator]
    async def tell_change(self, tariff: dict[str, Any], **_: Any) -> None:
        self.changed.set_result(tariff["tariff_id"])


def tariff(tariff_id: str, price: float) -> dict[str, Any]:
    return {
        "id": tariff_id,
        "currency": "EUR",
        "elements": [{"price_components": [{"type": "ENERGY", "price": price, "step_size": 1}]}],
    }


def event(kind: str, trigger: str, number: int, minutes: float, kwh: float, **info: Any) -> Any:
    at = (BEGIN + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")
    sampled = {"value": kwh, "measurand": "Energy.Active.Import.Register", "unitOfMeasure": {"unit": "kWh"}}
    more = {"id_token": TOKEN, "evse": {"id": 1, "connector_id": 1}} if kind == "Started" else {}
    return call.TransactionEvent(
        event_type=kind,
        timestamp=at,
        trigger_reason=trigger,
        seq_no=number,
        transaction_info={"transaction_id": "tx-tariff", **info},
        meter_value=[{"timestamp": at, "sampledValue": [sampled]}],
        offline=True,
        **more,
    )


async def test_a_station_that_prices_itself_is_asked_and_decides_from_when_on(system: System) -> None:
    await system.add_token("TARIFF-CARD", id_token_type="ISO14443")
    for tariff_id, price in (("E2E-A", 0.5), ("E2E-B", 1.0)):
        assert (await system.request("POST", "/v1/tariffs", tariff(tariff_id, price)))[0] == 201
    password = await system.register("FOREIGN-TARIFF")
    assignment = {"tariff_id": "E2E-A", "scope": "station", "subject": "FOREIGN-TARIFF"}
    assert (await system.request("POST", "/v1/tariff-assignments", assignment))[0] == 201
    await asyncio.sleep(1.5)  # nothing takes effect before it was made
    socket = await dial(system.edges[0], "FOREIGN-TARIFF", password, "ocpp2.1")
    one = PricingStation("FOREIGN-TARIFF", socket, response_timeout=30)
    task = asyncio.create_task(one.start())
    try:
        described = {"model": "Model", "vendor_name": "Vendor"}
        await one.call(call.BootNotification(charging_station=described, reason="PowerUp"), suppress=False)
        await eventually(lambda: _value(one.default_tariff), "the default tariff")
        assert one.default_tariff.startswith("E2E-A-")
        await one.call(event("Started", "Authorized", 0, 0, 1000, tariff_id=one.default_tariff), suppress=False)
        (session,) = await eventually(lambda: system.transactions("FOREIGN-TARIFF"), "the session")
        path = f"/v1/transactions/{session['session_id']}/tariff"
        asking = asyncio.create_task(system.request("POST", f"{path}?wait=20", {"tariff_id": "E2E-B"}))
        async with asyncio.timeout(20):
            name = await one.changed
        assert name.startswith("E2E-B-")
        await one.call(event("Updated", "TariffChanged", 1, 30, 1005, tariff_id=name), suppress=False)
        status, outcome = await asking
        assert (status, outcome["status"]) == (200, "applied")
        assert outcome["applies_from"] == (BEGIN + timedelta(minutes=30)).isoformat().replace("+00:00", "Z")
        last = await one.call(event("Ended", "EVDeparted", 2, 60, 1010, stopped_reason="Local"), suppress=False)
        assert last.total_cost == 2.5 + 5.0
        charge = await eventually(lambda: _billed(system, session["session_id"]), "the record")
        cdr = await system.get(f"/v1/cdrs/{charge['cdr_id']}")
        assert float(cdr["total_incl"]) == 7.5
        assert [line["tariff"] for line in cdr["explanation"]["lines"] if line["kind"] == "ENERGY"] == [
            "E2E-A",
            "E2E-B",
        ]
        refused, problem = await system.request("POST", path, {"tariff_id": "E2E-A"})
        assert (refused, problem["title"]) == (409, "The transaction is over")
    finally:
        task.cancel()
        await socket.close()


async def _value(value: Any) -> Any:
    return value


async def _billed(system: System, session_id: str) -> Any:
    charge = (await system.get(f"/v1/charges/{session_id}")) or {}
    return charge if charge.get("cdr_id") else None
