"""The API as a process: its ports, its end, and what comes over the wire that is no request."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx
import pytest

from busbar.local.ports import free_port
from services.api.keys import create_key
from services.api.routes.cdrs import MAX_EXPORTS
from tests.integration.api.billing_rows import add_many_cdrs

ROOT = Path(__file__).resolve().parents[3]


@dataclass
class Running:
    """A process of the API."""

    process: asyncio.subprocess.Process
    port: int
    health_port: int
    key: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    async def talk(self, *sent: bytes, seconds: float = 10) -> bytes:
        """What comes back for these bytes until the connection closes, or for so long."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        answer = b""
        try:
            async with asyncio.timeout(seconds):
                for piece in sent:
                    writer.write(piece)
                    await writer.drain()
                await asyncio.sleep(0.1)  # a reset would have thrown away by now what was not read
                while chunk := await reader.read(65_536):
                    answer += chunk
        except (TimeoutError, ConnectionError):
            pass
        finally:
            writer.close()
        return answer


@asynccontextmanager
async def running_api(bootstrap_servers: str, database_url: str, log: Path, **settings: str) -> AsyncIterator[Running]:
    port, health_port = free_port(19_410), free_port(19_510)
    environment = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
        "DATABASE_URL": database_url,
        "BUSBAR_API_LISTEN": f"127.0.0.1:{port}",
        "BUSBAR_HEALTH_ADDRESS": f"127.0.0.1:{health_port}",
        **settings,
    }
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.api", cwd=ROOT, env=environment, stderr=output
        )
    try:
        yield Running(process, port, health_port, "")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api") / "api.log"


@pytest.fixture(scope="module")
async def api(topics: str, postgres_url: str, log: Path) -> AsyncIterator[Running]:
    connection = await asyncpg.connect(postgres_url)
    key = await create_key(connection, "test", "admin")
    await connection.execute(
        "INSERT INTO config.stations (station_id, ocpp_version) VALUES ('CS-1', '1.6')",
    )
    await connection.close()
    async with running_api(topics, postgres_url, log) as running:
        running.key = key
        await answers(running, "/readyz")
        yield running


async def answers(running: Running, path: str) -> None:
    """Wait until a probe says yes."""
    async with httpx.AsyncClient() as client, asyncio.timeout(60):
        while True:
            try:
                if (await client.get(f"http://127.0.0.1:{running.health_port}{path}")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)


async def test_probes_answer_on_both_ports_and_metrics_on_one(api: Running) -> None:
    async with httpx.AsyncClient() as client:
        for port in (api.port, api.health_port):
            for path in ("/livez", "/readyz"):
                assert (await client.get(f"http://127.0.0.1:{port}{path}")).status_code == 200
        metrics = await client.get(f"http://127.0.0.1:{api.health_port}/metrics")
        assert "csms_api_requests_total" in metrics.text
        assert (await client.get(f"{api.url}/metrics")).status_code == 404


async def test_the_lag_of_processors_comes_from_kafka(api: Running, postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(
        "INSERT INTO stream.progress (group_name, partition, offsets) VALUES ('router', 0, '{\"csms.edges\": 0}')"
    )
    async with httpx.AsyncClient(headers=api.headers()) as client:
        body = (await client.get(f"{api.url}/v1/system")).json()
    await connection.execute("DELETE FROM stream.progress")
    await connection.close()
    assert [processor["lag"] for processor in body["processors"]] == [0]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0" * 1000,
        b"POST /v1/stations HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/stations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\n" + b"x" * 200_000,
    ],
)
async def test_bytes_that_are_no_request_get_a_400_or_a_closed_connection(api: Running, garbage: bytes) -> None:
    answer = await api.talk(garbage, seconds=3)
    assert answer == b"" or b" 400 " in answer.split(b"\r\n")[0]


@pytest.mark.parametrize("path", ["/v1/stations", "/v1/stations/CS-1/commands/Reset"])
async def test_a_huge_body_is_refused_before_it_is_read(api: Running, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.key}\r\n"
    announced = await api.talk(f"{head}Content-Length: 99999999999\r\n\r\n".encode(), seconds=5)
    assert b" 413 " in announced.split(b"\r\n")[0]
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    chunked = await api.talk(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode(), *[chunk] * 40, seconds=5)
    assert b" 413 " in chunked.split(b"\r\n")[0]


def resident_bytes(running: Running) -> int:
    """Memory of the process."""
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    return int(re.findall(r"(?m)^VmRSS:\s+(\d+) kB$", status)[0]) * 1024


async def test_an_export_of_any_size_needs_little_memory_and_lets_go_of_readers_that_leave(
    api: Running, postgres_url: str
) -> None:
    pool = await asyncpg.create_pool(postgres_url, min_size=1, max_size=1)
    await add_many_cdrs(pool, 25_000)
    async with httpx.AsyncClient(headers=api.headers(), timeout=60) as client:
        url = f"{api.url}/v1/cdrs/export?format=ndjson"
        for _ in range(2 * MAX_EXPORTS):
            async with client.stream("GET", url) as response:
                assert response.status_code == 200
                await anext(response.aiter_bytes(1000))
        size = lines = 0
        async with asyncio.timeout(30):
            # The places of those who left are free as soon as the process has noticed.
            while True:
                probe = await client.get(f"{url}&station=nobody")
                if probe.status_code == 200:
                    break
                assert probe.status_code == 503
                await asyncio.sleep(0.05)
        before = resident_bytes(api)
        async with client.stream("GET", url) as response:
            async for piece in response.aiter_bytes():
                size, lines = size + len(piece), lines + piece.count(b"\n")
        grown = resident_bytes(api) - before
    await pool.execute("DELETE FROM billing.cdrs")
    await pool.close()
    assert lines == 25_000
    assert size > 40_000_000
    assert grown < 20_000_000


async def test_no_secret_and_no_path_is_in_the_log(api: Running, log: Path) -> None:
    async with httpx.AsyncClient(headers=api.headers()) as client:
        await client.get(f"{api.url}/v1/tokens/SECRET-TOKEN")
        await client.post(f"{api.url}/v1/stations", json={"station_id": "CS-P", "password": "secret password"})
    text = await asyncio.to_thread(log.read_text)
    assert "CS-P" in text
    for secret in ("SECRET-TOKEN", "secret password", api.key, api.key.split("_", 2)[2]):
        assert secret not in text


async def test_a_process_without_kafka_stops_when_it_is_told_to(postgres_url: str, tmp_path: Path) -> None:
    async with running_api("127.0.0.1:1", postgres_url, tmp_path / "log") as running:
        await answers(running, "/livez")
        running.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(running.process.wait(), 15) == 0


async def test_when_it_stops_those_who_wait_are_told_that_it_is_pending(api: Running) -> None:
    async with httpx.AsyncClient(headers=api.headers(), timeout=30) as client:
        url = f"{api.url}/v1/stations/CS-1/commands/Reset"
        waiting = asyncio.create_task(client.post(url, json={"type": "Soft"}))
        await asyncio.sleep(1)
        api.process.send_signal(signal.SIGTERM)
        response = await waiting
        assert (response.status_code, response.json()["outcome"]) == (202, "pending")
    assert await asyncio.wait_for(api.process.wait(), 15) == 0
