"""What billing and stations tell each other, on real Kafka and PostgreSQL: each thing once, whatever is read again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import orjson
import pytest
from aiohttp import web

from busbar.avro import decode, encode, meta_prefix
from busbar.avro.calls import call_encoder
from busbar.config import Env
from busbar.ocpp.versions import Version
from busbar.pricing.assignment import read_tariff
from busbar.pricing.jsontext import serialize_json
from busbar.records import TopicPartition
from busbar.service import Health
from busbar.stream.kafka import KafkaConsumer, KafkaProducer
from busbar.topics import station_topic
from services.billing.app import main as billing_main
from tests.unit.pricing.builders import component, element, tariff_json
from tests.unit.services.billing.world import Session

TARIFF = tariff_json(element(component("ENERGY", "0.50")))
EDGE = 5
"""The partition of csms.outbound that the stations' edge reads."""
SETTLEMENT = {
    "pspRef": "PSP-1",
    "status": "Settled",
    "settlementAmount": 2.5,
    "settlementTime": "2026-03-01T12:00:00Z",
    "transactionId": "tx-21",
}


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class Bench:
    """Plays stations, the router and sessions, and reads what billing produces."""

    producer: KafkaProducer
    consumer: KafkaConsumer
    commands: list[dict[str, Any]] = field(default_factory=list)
    replies: list[dict[str, Any]] = field(default_factory=list)
    sequence: int = 0

    def say(self, topic: str, station_id: str, value: bytes) -> None:
        key = station_id.encode()
        partition = self.producer.partition_for(topic, key)
        self.producer.append(topic, partition, key=key, value=value, timestamp_ms=now_ms())

    def call(self, station_id: str, version: Version, action: str, payload: dict[str, Any]) -> None:
        self.sequence += 1
        prefix = meta_prefix(station_id, f"connection-of-{station_id}", "edge-5", EDGE, version)
        value = call_encoder(version, action)(prefix, self.sequence, f"m-{self.sequence}", now_ms(), payload)
        self.say(station_topic(version, action), station_id, value)

    def session(self, event: dict[str, Any]) -> None:
        """An event of a session, as if it happened now."""
        moved = now_ms() - event["received_at"]
        times = {name: event[name] + moved for name in ("at", "received_at", "started_at", "ended_at") if event[name]}
        points = [point | {"at": point["at"] + moved} for point in event["points"]]
        value = encode("csms.SessionEvent", event | times | {"points": points})
        self.say("csms.session-events", event["station_id"], value)

    def outcome(self, command: dict[str, Any], payload: dict[str, Any]) -> None:
        value = {
            "command_id": command["command_id"],
            "station_id": command["station_id"],
            "action": command["action"],
            "stage": "answered",
            "source": "edge",
            "at": now_ms(),
            "payload": orjson.dumps(payload).decode(),
        }
        self.say("csms.command-events", command["station_id"], encode("csms.CommandEvent", value))

    async def read(self, seconds: float = 0.5) -> None:
        for partition, records in (await self.consumer.fetch(seconds)).items():
            for record in records:
                value = decode(record.value or b"")[1]
                value["payload"] = orjson.loads(value["payload"])
                (self.commands if partition.topic == "csms.commands" else self.replies).append(value)

    async def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Read until something is there, and return it."""
        try:
            async with asyncio.timeout(60):
                while not (found := condition()):
                    await self.read()
        except TimeoutError:
            raise AssertionError(f"{what} did not come; {self.commands}, {self.replies}") from None
        return found

    def command(self, station_id: str, action: str, number: int = 0) -> dict[str, Any] | None:
        found = [each for each in self.commands if (each["station_id"], each["action"]) == (station_id, action)]
        return found[number] if number < len(found) else None

    def transfer(self, message_id: str, number: int = 0) -> dict[str, Any] | None:
        """The data of a DataTransfer."""
        found = [
            each["payload"]["data"]
            for each in self.commands
            if each["action"] == "DataTransfer" and each["payload"]["messageId"] == message_id
        ]
        data: dict[str, Any] | None = orjson.loads(found[number]) if number < len(found) else None
        return data

    def replies_to(self, action: str) -> list[dict[str, Any]]:
        return [each for each in self.replies if each["action"] == action]


@asynccontextmanager
async def bench(servers: str) -> AsyncIterator[Bench]:
    async with KafkaProducer(servers) as producer, KafkaConsumer(servers) as consumer:
        places = [TopicPartition("csms.commands", number) for number in range(4)]
        await consumer.assign(dict.fromkeys([*places, TopicPartition("csms.outbound", EDGE)]))
        yield Bench(producer, consumer)


@asynccontextmanager
async def billing(servers: str, url: str, vat_url: str) -> AsyncIterator[None]:
    """The whole service; it hands its partitions over at the end."""
    env = Env(
        {
            "KAFKA_BOOTSTRAP_SERVERS": servers,
            "DATABASE_URL": url,
            "BUSBAR_LEASE_SECONDS": "1",
            "BUSBAR_BILLING_LINGER_SECONDS": "0.05",
            "BUSBAR_BILLING_VAT_CHECK": vat_url,
            "BUSBAR_BILLING_PAYMENT_URL": "https://pay.example/{psp_ref}",
        }
    )
    stop = asyncio.Event()
    running = asyncio.create_task(billing_main(env, Health(), stop))
    try:
        yield
    finally:
        stop.set()
        await running


@pytest.fixture
async def vat_service() -> AsyncIterator[str]:
    async def handle(request: web.Request) -> web.Response:
        asked = await request.json()
        valid = asked == {"countryCode": "DE", "vatNumber": "136695976"}
        return web.json_response({"valid": valid, "name": "ACME GmbH", "address": "Street 1\n12345 Berlin"})

    app = web.Application()
    app.router.add_post("/check", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}/check"
    await runner.cleanup()


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(postgres_url)
    content = serialize_json(TARIFF)
    await connection.execute(
        "INSERT INTO config.tariffs (tariff_id, version, content, format, currency, fingerprint)"
        " VALUES ('T', 1, $1, 'ocpi-2.3.0', 'EUR', $2)",
        content,
        read_tariff(content).fingerprint,
    )
    await connection.execute(
        "INSERT INTO config.tariff_assignments (assignment_id, tariff_id, scope, valid_from)"
        " VALUES (gen_random_uuid(), 'T', 'default', now())"
    )
    await connection.execute(
        "INSERT INTO config.stations (station_id, quirks) VALUES ('CS-16', '{\"cost\": \"california\"}')"
    )
    await connection.execute("INSERT INTO config.tokens (id_token, id_token_key) VALUES ('TAG', 'tag')")
    yield connection
    await connection.close()


def session(station_id: str, version: str, transaction_id: str, number: int) -> Session:
    head = {"station_id": station_id, "ocpp_version": version, "transaction_id": transaction_id}
    return Session(session_id=f"{number}f2b8c1e-6f0c-8a3e-9d37-2b0f4a6f1c55", head=head)


def talk(play: Bench) -> None:
    """Everything that stations and sessions say, in the order in which it is said."""
    play.call("CS-16", Version.V16, "Authorize", {"idTag": "TAG"})
    play.call("CS-21", Version.V21, "NotifySettlement", SETTLEMENT)
    play.call("CS-21", Version.V21, "NotifySettlement", SETTLEMENT)
    play.call("CS-21", Version.V21, "VatNumberValidation", {"vatNumber": "DE 136695976"})
    play.call("CS-21", Version.V21, "VatNumberValidation", {"vatNumber": "DE 136695977"})
    boot = {"reason": "PowerUp", "chargingStation": {"model": "M", "vendorName": "V"}}
    play.call("CS-21", Version.V21, "BootNotification", boot)


async def test_each_thing_is_said_once(
    topics: str, postgres_url: str, database: asyncpg.Connection[Any], vat_service: str
) -> None:
    async with bench(topics) as play:
        async with billing(topics, postgres_url, vat_service):
            talk(play)
            price = await play.until(lambda: play.transfer("SetUserPrice"), "the user's price")
            assert price == {"idToken": "TAG", "priceText": "EUR 0.50/kWh"}
            settled = await play.until(lambda: play.replies_to("NotifySettlement")[1:], "the answers to settlements")
            assert settled[0]["payload"] == {"receiptUrl": "https://pay.example/PSP-1"}
            assert {each["message_id"] for each in play.replies_to("NotifySettlement")} == {"m-2", "m-3"}
            await play.until(lambda: len(play.replies_to("VatNumberValidation")) == 2, "the VAT numbers")
            vat = {each["payload"]["vatNumber"]: each["payload"] for each in play.replies_to("VatNumberValidation")}
            assert vat["DE 136695976"]["status"] == "Accepted"
            assert vat["DE 136695976"]["company"]["name"] == "ACME GmbH"
            assert vat["DE 136695977"]["status"] == "Rejected"

            query = await play.until(lambda: play.command("CS-21", "GetTariffs"), "GetTariffs")
            foreign = {"tariffId": "foreign", "tariffKind": "DefaultTariff"}
            play.outcome(query, {"status": "Accepted", "tariffAssignments": [foreign]})
            clear = await play.until(lambda: play.command("CS-21", "ClearTariffs"), "ClearTariffs")
            assert clear["payload"] == {"tariffIds": ["foreign"]}
            install = await play.until(lambda: play.command("CS-21", "SetDefaultTariff"), "SetDefaultTariff")
            play.outcome(install, {"status": "Accepted"})

            on_16, on_21 = session("CS-16", "1.6", "4711", 1), session("CS-21", "2.1", "tx-21", 2)
            play.session(on_16.started())
            play.session(on_21.started())
            running = await play.until(lambda: play.transfer("RunningCost"), "RunningCost")
            assert (running["transactionId"], running["chargingPrice"]) == (4711, {"kWhPrice": 0.5})
            updated = await play.until(lambda: play.command("CS-21", "CostUpdated"), "CostUpdated")
            assert updated["payload"] == {"totalCost": 0, "transactionId": "tx-21"}
            play.session(on_16.ended(10, 5000))
            cost = {"totalCost": {"currency": "EUR", "typeOfCost": "NormalCost", "total": {"inclTax": 2.75}}}
            play.session(on_21.ended(10, 5000, cost_details=orjson.dumps(cost).decode()))
            final = await play.until(lambda: play.transfer("FinalCost"), "FinalCost")
            assert final["cost"] == 2.5

            async def row() -> Any:
                return await database.fetchrow("SELECT status, amount, difference FROM billing.payments")

            async with asyncio.timeout(60):
                while (found := await row()) is None or found["difference"] is None:
                    await play.read(0.2)
            assert tuple(found) == ("Settled", found["amount"], 0)
            tariffs = await database.fetch("SELECT evse_id, status, tariff_id FROM billing.station_tariffs")
            assert [tuple(each) for each in tariffs] == [(0, "Accepted", "T")]
            assert await database.fetchval("SELECT count(*) FROM billing.vat_questions") == 0
            (differing,) = await database.fetch("SELECT total, ours, difference, details FROM billing.station_costs")
            assert [str(differing[place]) for place in range(3)] == ["2.75", "2.50", "0.25"]
            assert orjson.loads(differing["details"]) == cost

            told = {"transactionId": 4711, "timestamp": "2100-01-01T00:00:00Z"}  # taken for the time of the message
            transfer = {"vendorId": "org.openchargealliance.costmsg", "messageId": "ConnectorUnplugged"}
            play.call("CS-16", Version.V16, "DataTransfer", transfer | {"data": orjson.dumps(told).decode()})
            again = await play.until(lambda: play.transfer("FinalCost", 1), "FinalCost after unplugging")
            assert again["cost"] == 2.5
            records = "SELECT count(*) FROM billing.cdrs WHERE station_id = 'CS-16'"
            assert await database.fetchval(records) == 3

        said = {each["command_id"] for each in play.commands}
        assert len(said) == len(play.commands)
        before = len(play.commands)

        # Another process takes over: nothing is said again but what the last batch said, under the same ids.
        async with billing(topics, postgres_url, vat_service):
            play.call("CS-21", Version.V21, "NotifySettlement", SETTLEMENT)
            await play.until(lambda: len(play.replies_to("NotifySettlement")) >= 3, "the answer after a take-over")
        assert {each["command_id"] for each in play.commands} == said

        # Everything is read again into empty tables: what is said again is the same.
        for table in ("sessions", "facts", "cdrs", "journal", "settlements", "tariff_stations", "station_tariffs",
                      "station_costs"):  # fmt: skip
            await database.execute(f"DELETE FROM billing.{table}")
        await database.execute("DELETE FROM stream.progress WHERE group_name IN ('billing', 'billing-desk')")
        replies = len(play.replies)
        async with billing(topics, postgres_url, vat_service):
            await play.until(lambda: len(play.replies_to("VatNumberValidation")) >= 4, "the answers of the replay")
            await play.until(lambda: len(play.replies) >= replies + 5, "all answers of the replay")
            async with asyncio.timeout(60):
                while await database.fetchval("SELECT count(*) FROM billing.cdrs") < 2:
                    await play.read()
        assert len(play.commands) >= before
        # But for what the station holds, which is not known any more.
        asked = {each["command_id"] for each in play.commands if each["action"] == "GetTariffs"}
        assert {each["command_id"] for each in play.commands} - said <= asked
        assert await database.fetchval("SELECT count(*) FROM billing.settlements") == 1
