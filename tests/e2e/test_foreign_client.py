"""A client that is not ours, the PyPI package `ocpp`, charges in every version and checks every answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import ocpp.v16.call
import ocpp.v16.call_result
import ocpp.v21.call
import ocpp.v201.call
import ocpp.v201.call_result
import pytest
from ocpp.exceptions import OCPPError
from ocpp.routing import on
from ocpp.v16 import ChargePoint as ChargePoint16
from ocpp.v21 import ChargePoint as ChargePoint21
from ocpp.v201 import ChargePoint as ChargePoint201

from tests.e2e.system import System, dial, eventually

BEGIN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def moment(minutes: float) -> str:
    return (BEGIN + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


class Station16(ChargePoint16):  # type: ignore[misc]
    """Starts what it is told to start."""

    told: list[tuple[str, Any]]

    @on("RemoteStartTransaction")  # type: ignore[untyped-decorator]
    def remote_start(self, **payload: Any) -> Any:
        self.told.append(("RemoteStartTransaction", payload))
        return ocpp.v16.call_result.RemoteStartTransaction(status="Accepted")

    @on("GetConfiguration")  # type: ignore[untyped-decorator]
    def get_configuration(self, **payload: Any) -> Any:
        keys = [{"key": "HeartbeatInterval", "readonly": False, "value": "300"}]
        return ocpp.v16.call_result.GetConfiguration(configuration_key=keys, unknown_key=[])


class Commands2:
    """Commands of 2.x that the stations of this test obey."""

    told: list[tuple[str, Any]]

    @on("RequestStartTransaction")  # type: ignore[untyped-decorator]
    def request_start(self, **payload: Any) -> Any:
        self.told.append(("RequestStartTransaction", payload))
        return ocpp.v201.call_result.RequestStartTransaction(status="Accepted")


class Station201(Commands2, ChargePoint201):  # type: ignore[misc]
    """OCPP 2.0.1."""


class Station21(Commands2, ChargePoint21):  # type: ignore[misc]
    """OCPP 2.1."""


@asynccontextmanager
async def station(kind: type[Any], system: System, station_id: str, subprotocol: str) -> AsyncIterator[Any]:
    """A registered station, connected; what it receives is checked against the schemas by the package."""
    password = await system.register(station_id)
    socket = await dial(system.edges[0], station_id, password, subprotocol)
    one = kind(station_id, socket, response_timeout=30)
    one.told = []
    task = asyncio.create_task(one.start())
    try:
        yield one
    finally:
        task.cancel()
        await socket.close()


def is_about_now(timestamp: str) -> bool:
    return abs(datetime.fromisoformat(timestamp) - datetime.now(UTC)) < timedelta(seconds=60)


async def last_command(system: System, station_id: str, action: str) -> dict[str, Any] | None:
    """The last command of the station's shadow, once it is this one."""
    last: dict[str, Any] | None = (await system.get(f"/v1/stations/{station_id}"))["shadow"]["last_command"]
    return last if last is not None and last["action"] == action else None


@pytest.fixture(scope="module")
async def tokens(system: System) -> None:
    for number in range(4):
        await system.add_token(f"CARD-{number}", id_token_type="ISO14443")
    await system.add_token("CARD-BLOCKED", id_token_type="ISO14443", status="Blocked")


async def test_a_1_6_station_boots_authorizes_charges_and_is_commanded(system: System, tokens: None) -> None:
    call = ocpp.v16.call
    async with station(Station16, system, "FOREIGN-16", "ocpp1.6") as one:
        boot = await one.call(call.BootNotification("Model", "Vendor", firmware_version="1.2"), suppress=False)
        assert boot.status == "Accepted"
        assert boot.interval > 0
        assert is_about_now(boot.current_time)
        await one.call(call.StatusNotification(1, "NoError", "Available"), suppress=False)
        assert is_about_now((await one.call(call.Heartbeat(), suppress=False)).current_time)

        unknown = await one.call(call.Authorize("NOBODY"), suppress=False)
        assert unknown.id_tag_info["status"] == "Invalid"
        blocked = await one.call(call.Authorize("CARD-BLOCKED"), suppress=False)
        assert blocked.id_tag_info["status"] == "Blocked"
        accepted = await one.call(call.Authorize("CARD-0"), suppress=False)
        assert accepted.id_tag_info["status"] == "Accepted"

        started = await one.call(call.StartTransaction(1, "CARD-0", 1_000_000, moment(0)), suppress=False)
        assert started.id_tag_info["status"] == "Accepted"
        assert started.transaction_id > 0
        sampled = [
            {"value": "1003.5", "unit": "kWh", "measurand": "Energy.Active.Import.Register"},
            {"value": "7000", "unit": "W", "measurand": "Power.Active.Import"},
        ]
        values = [{"timestamp": moment(30), "sampledValue": sampled}]
        await one.call(call.MeterValues(1, values, transaction_id=started.transaction_id), suppress=False)
        stop = call.StopTransaction(1_007_250, moment(60), started.transaction_id, reason="Local", id_tag="CARD-0")
        assert (await one.call(stop, suppress=False)).id_tag_info["status"] == "Accepted"

        told = await system.command("FOREIGN-16", "RemoteStartTransaction", {"idTag": "CARD-1", "connectorId": 1})
        assert (told["outcome"], told["answer"]) == ("answered", {"status": "Accepted"})
        assert one.told == [("RemoteStartTransaction", {"id_tag": "CARD-1", "connector_id": 1})]
        unable = await system.command("FOREIGN-16", "ClearCache", {})
        assert (unable["outcome"], unable["error"]["code"]) == ("error", "NotImplemented")

    (session,) = await system.transactions("FOREIGN-16")
    assert (session["transaction_id"], session["ocpp_version"]) == (str(started.transaction_id), "1.6")
    assert float(session["energy_wh"]) == 7250
    assert session["energy_rung"] == "meter_start_stop"
    assert session["stop_reason"] == "Local"
    shown = await system.get("/v1/stations/FOREIGN-16")
    assert (shown["vendor"], shown["model"], shown["firmware_version"]) == ("Vendor", "Model", "1.2")
    assert [each["status"] for each in shown["connectors"]] == ["Available"]
    last = (await eventually(lambda: last_command(system, "FOREIGN-16", "ClearCache"), "the last command"))["result"]
    assert last["code"] == "NotImplemented"


def evse_2(call: Any) -> dict[str, Any]:
    return {"id": 1, "connector_id": 1}


def energy(value: float, minutes: float, context: str) -> list[dict[str, Any]]:
    sampled = {
        "value": value,
        "context": context,
        "measurand": "Energy.Active.Import.Register",
        "unitOfMeasure": {"unit": "kWh"},
    }
    return [{"timestamp": moment(minutes), "sampledValue": [sampled]}]


@pytest.mark.parametrize(
    ("kind", "call", "subprotocol", "card"),
    [
        (Station201, ocpp.v201.call, "ocpp2.0.1", "CARD-2"),
        (Station21, ocpp.v21.call, "ocpp2.1", "CARD-3"),
    ],
)
async def test_a_2_x_station_boots_authorizes_charges_and_is_commanded(
    system: System, tokens: None, kind: type[Any], call: Any, subprotocol: str, card: str
) -> None:
    name = f"FOREIGN-{subprotocol.removeprefix('ocpp')}"
    async with station(kind, system, name, subprotocol) as one:
        described = {"model": "Model", "vendor_name": "Vendor", "modem": {"iccid": "8949"}}
        boot = await one.call(call.BootNotification(charging_station=described, reason="PowerUp"), suppress=False)
        assert boot.status == "Accepted"
        assert is_about_now(boot.current_time)
        status = call.StatusNotification(timestamp=moment(0), connector_status="Available", evse_id=1, connector_id=1)
        await one.call(status, suppress=False)
        assert is_about_now((await one.call(call.Heartbeat(), suppress=False)).current_time)

        async def authorize(id_token: str) -> str:
            token = {"id_token": id_token, "type": "ISO14443"}
            answer = await one.call(call.Authorize(id_token=token), suppress=False)
            return str(answer.id_token_info["status"])

        assert await authorize("NOBODY") == "Unknown"
        assert await authorize("CARD-BLOCKED") == "Blocked"
        assert await authorize(card) == "Accepted"

        def event(kind: str, trigger: str, number: int, minutes: float, **more: Any) -> Any:
            info = {"transaction_id": f"tx-{name}", **more.pop("info", {})}
            return call.TransactionEvent(
                event_type=kind,
                timestamp=moment(minutes),
                trigger_reason=trigger,
                seq_no=number,
                transaction_info=info,
                **more,
            )

        token = {"id_token": card, "type": "ISO14443"}
        begin = event(
            "Started",
            "Authorized",
            0,
            0,
            evse=evse_2(call),
            id_token=token,
            meter_value=energy(1000.0, 0, "Transaction.Begin"),
        )
        assert (await one.call(begin, suppress=False)).id_token_info["status"] == "Accepted"
        for number in (1, 2, 3):
            periodic = energy(1000.0 + number, number, "Sample.Periodic")
            await one.call(event("Updated", "MeterValuePeriodic", number, number, meter_value=periodic), suppress=False)
        end = event(
            "Ended",
            "EVDeparted",
            4,
            5,
            info={"stopped_reason": "EVDisconnected"},
            meter_value=energy(1007.25, 5, "Transaction.End"),
        )
        await one.call(end, suppress=False)

        start = {"idToken": {"idToken": card, "type": "ISO14443"}, "remoteStartId": 5}
        told = await system.command(name, "RequestStartTransaction", start)
        assert (told["outcome"], told["answer"]) == ("answered", {"status": "Accepted"})
        assert one.told[0][1]["remote_start_id"] == 5

        certificate = await one.call(call.SignCertificate(csr="-----BEGIN CERTIFICATE REQUEST-----"), suppress=False)
        assert certificate.status == "Rejected"
        data = await one.call(call.DataTransfer(vendor_id="com.example", data={"any": [1]}), suppress=False)
        assert data.status == "UnknownVendorId"

    (session,) = await system.transactions(name)
    assert (session["transaction_id"], session["is_final"]) == (f"tx-{name}", True)
    assert float(session["energy_wh"]) == 7250
    assert session["energy_rung"] == "transaction_registers"
    assert session["stop_reason"] == "EVDisconnected"


async def test_an_action_of_another_version_and_a_wrong_payload_get_the_codes_of_the_specification(
    system: System, tokens: None
) -> None:
    call = ocpp.v16.call
    async with station(Station16, system, "FOREIGN-WRONG", "ocpp1.6") as one:
        await one.call(call.BootNotification("Model", "Vendor"), suppress=False)
        with pytest.raises(OCPPError) as wrong:
            await one.call(call.Authorize(None), suppress=False, skip_schema_validation=True)
        assert wrong.value.code == "OccurenceConstraintViolation"

        class TransactionEvent(call.Heartbeat):  # type: ignore[misc,name-defined]
            """Of 2.x; the package takes the action from the class's name."""

        with pytest.raises(OCPPError) as unsupported:
            await one.call(TransactionEvent(), suppress=False, skip_schema_validation=True)
        assert unsupported.value.code in ("NotSupported", "NotImplemented")
        assert is_about_now((await one.call(call.Heartbeat(), suppress=False)).current_time)


async def test_a_pending_station_is_told_so_and_accepted_once_an_operator_agrees(system: System) -> None:
    call = ocpp.v16.call
    password = await system.register("FOREIGN-PENDING", boot_status="Pending")
    socket = await dial(system.edges[1], "FOREIGN-PENDING", password, "ocpp1.6")
    one = Station16("FOREIGN-PENDING", socket)
    task = asyncio.create_task(one.start())
    boot = call.BootNotification("Model", "Vendor")
    assert (await one.call(boot, suppress=False)).status == "Pending"
    status, _ = await system.request(
        "PATCH", "/v1/stations/FOREIGN-PENDING", {"boot_status": "Accepted", "heartbeat_interval_seconds": 100}
    )
    assert status == 200
    answer = await one.call(boot, suppress=False)
    assert answer.status == "Accepted"
    assert 90 <= answer.interval <= 100
    shown = await system.get("/v1/stations/FOREIGN-PENDING")
    assert shown["registration_status"] == "Accepted"
    task.cancel()
    await socket.close()
