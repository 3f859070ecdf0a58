"""The streams are readable without our code: with `fastavro` and the lock file, or the API's registry endpoints."""

from __future__ import annotations

import asyncio
import io
import json
import urllib.request
from pathlib import Path
from typing import Any

import fastavro
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.e2e.system import System, dial

ROOT = Path(__file__).resolve().parents[2]


async def read_topic(bootstrap_servers: str, topic: str) -> list[Any]:
    """Every record of a topic."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, group_id=None, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(4)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        found = []
        while any([await consumer.position(each) < ends[each] for each in partitions]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found += records
        return found
    finally:
        await consumer.stop()


def decode(value: bytes, schema: Any) -> dict[str, Any]:
    """Confluent wire format: a zero, four bytes of schema id, and Avro's encoding."""
    decoded = fastavro.schemaless_reader(io.BytesIO(value[5:]), fastavro.parse_schema(schema), None)
    assert isinstance(decoded, dict)
    return decoded


def schema_id(value: bytes) -> int:
    assert value[0] == 0
    return int.from_bytes(value[1:5], "big")


def locked_schemas() -> dict[int, Any]:
    """Schemas by id, from the file that is shipped."""
    document = json.loads((ROOT / "schemas" / "registry.lock.json").read_text())
    entries = document if isinstance(document, list) else document["schemas"]
    return {entry["id"]: json.loads(entry["schema"]) for entry in entries}


async def charge(system: System, station_id: str) -> None:
    """A 1.6 session of 1,500 Wh, with a field that no schema knows."""
    password = await system.register(station_id)
    await system.add_token(f"CARD-{station_id}")
    socket = await dial(system.edges[0], station_id, password, "ocpp1.6")

    async def ask(message_id: str, action: str, payload: dict[str, Any]) -> dict[str, Any]:
        await socket.send(json.dumps([2, message_id, action, payload]))
        frame = json.loads(await asyncio.wait_for(socket.recv(), 30))
        assert frame[:2] == [3, message_id], frame
        answer: dict[str, Any] = frame[2]
        return answer

    boot = {"chargePointVendor": "V", "chargePointModel": "M", "vendorField": {"kept": [1, "two"]}}
    await ask("1", "BootNotification", boot)
    start = {"connectorId": 1, "idTag": f"CARD-{station_id}", "meterStart": 500, "timestamp": "2026-03-01T12:00:00Z"}
    transaction_id = (await ask("2", "StartTransaction", start))["transactionId"]
    stop = {"transactionId": transaction_id, "meterStop": 2000, "timestamp": "2026-03-01T13:00:00Z"}
    await ask("3", "StopTransaction", stop)
    await socket.close()


async def test_any_avro_consumer_reads_actions_and_sessions_with_the_lock_file(system: System) -> None:
    await charge(system, "OPEN-1")
    schemas = locked_schemas()
    servers = system.run.kafka.url
    boots = [record for record in await read_topic(servers, "ocpp.v16.BootNotification") if record.key == b"OPEN-1"]
    boot = decode(boots[0].value, schemas[schema_id(boots[0].value)])
    assert boot["payload"]["chargePointModel"] == "M"
    assert json.loads(boot["payload"]["extra"]["vendorField"]) == {"kept": [1, "two"]}
    assert (boot["meta"]["station_id"], boot["meta"]["ocpp_version"]) == ("OPEN-1", "1.6")

    events = [record for record in await read_topic(servers, "csms.session-events") if record.key == b"OPEN-1"]
    sessions = [decode(record.value, schemas[schema_id(record.value)]) for record in events]
    assert (sessions[0]["kind"], sessions[-1]["kind"]) == ("started", "ended")
    assert sessions[-1]["energy_wh"] == 1500


async def test_any_registry_client_finds_the_schemas_at_the_api(system: System) -> None:
    await charge(system, "OPEN-2")
    run = system.run

    def fetch(path: str) -> Any:
        headers = {"Authorization": f"Bearer {run.admin_key}"}
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(run.api_url + path, headers=headers), timeout=20) as response:
            return json.loads(response.read())

    records = [each for each in await read_topic(run.kafka.url, "ocpp.v16.StopTransaction") if each.key == b"OPEN-2"]
    number = schema_id(records[0].value)
    found = await asyncio.to_thread(fetch, f"/schemas/ids/{number}")
    stop = decode(records[0].value, json.loads(found["schema"]))
    assert stop["payload"]["meterStop"] == 2000
    latest = await asyncio.to_thread(fetch, "/subjects/ocpp.v16.StopTransaction-value/versions/latest")
    assert (latest["id"], json.loads(latest["schema"])) == (number, json.loads(found["schema"]))
