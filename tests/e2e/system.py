"""The whole system as processes, and a way to operate it through its HTTP API."""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from busbar.local.figures import Scrape
from busbar.local.runfile import RunFile
from busbar.local.services import Instance
from busbar.local.stack import READY_SECONDS, Options, Stack
from busbar.local.supervisor import Child

Document = dict[str, Any]


Settings = Mapping[str, Mapping[str, str]]
"""Settings of processes beside the usual ones, by service."""


class SetStack(Stack):
    """A stack with settings of a test's own."""

    def __init__(self, options: Options, say: Callable[[str], None], settings: Settings) -> None:
        super().__init__(options, say)
        self._settings = settings

    async def settings_of(self, instance: Instance) -> Mapping[str, str]:
        return self._settings.get(instance.service, {})


@dataclass(frozen=True, slots=True)
class System:
    """A running system."""

    stack: Stack

    @property
    def run(self) -> RunFile:
        return self.stack.run_file()

    @property
    def edges(self) -> list[str]:
        return [edge.url for edge in self.run.edges]

    async def request(self, method: str, path: str, body: Any = None) -> tuple[int, Document]:
        """Ask the API with the admin's key."""
        run = self.run
        headers = {"Authorization": f"Bearer {run.admin_key}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(run.api_url + path, data=data, headers=headers, method=method)
        return await asyncio.to_thread(_open, asked)

    async def get(self, path: str) -> Document:
        status, document = await self.request("GET", path)
        assert status == 200, (path, status, document)
        return document

    async def register(self, station_id: str, **settings: Any) -> str:
        """Register a station; returns its password."""
        status, document = await self.request("POST", "/v1/stations", {"station_id": station_id, **settings})
        assert status == 201, document
        password: str = document["password"]
        return password

    async def add_token(self, id_token: str, **settings: Any) -> None:
        status, document = await self.request("POST", "/v1/tokens", {"id_token": id_token, **settings})
        assert status == 201, document

    async def command(self, station_id: str, action: str, payload: Document, wait: float = 30) -> Document:
        """Send a command through the API; returns its outcome."""
        path = f"/v1/stations/{quote(station_id)}/commands/{action}?wait={wait}"
        _, document = await self.request("POST", path, payload)
        assert "outcome" in document, document
        return document

    async def transactions(self, station_id: str) -> list[Document]:
        """The transactions of a station, with their meter values, oldest first."""
        listed = await self.get(f"/v1/transactions?station={quote(station_id)}")
        return [await self.get(f"/v1/transactions/{each['session_id']}") for each in reversed(listed["items"])]

    async def stop_service(self, service: str) -> None:
        """End all processes of a service in an orderly way."""
        await asyncio.gather(*(child.stop() for child in self._children(service)))

    async def start_service(self, service: str) -> None:
        """Start them again, and wait until they are ready."""
        for child in self._children(service):
            await child.start()
        await self.stack.supervisor.wait_ready(READY_SECONDS)

    def _children(self, service: str) -> list[Child]:
        return [child for child in self.stack.supervisor.children if child.name.rpartition("-")[0] == service]

    async def metrics(self, service: str) -> Scrape:
        """The metrics of all processes of a service, added up."""
        scrape = Scrape()
        for entry in self.run.services:
            if entry.service == service and entry.metrics_url is not None:
                status, text = await asyncio.to_thread(_read, entry.metrics_url)
                assert status == 200, text
                scrape.add(text)
        return scrape

    async def readiness(self, service: str) -> list[tuple[int, Document]]:
        """What `/readyz` of each process of a service says: the status and the problems."""
        urls = [entry.metrics_url for entry in self.run.services if entry.service == service]
        found = []
        for url in urls:
            assert url is not None
            status, text = await asyncio.to_thread(_read, url.removesuffix("/metrics") + "/readyz")
            found.append((status, json.loads(text)["problems"]))
        return found


def _read(url: str) -> tuple[int, str]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def _open(request: urllib.request.Request) -> tuple[int, Document]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as response:
            return response.status, json.loads(response.read() or b"{}")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


@asynccontextmanager
async def running(
    folder: Path,
    bootstrap_servers: str | None,
    database_url: str,
    settings: Settings | None = None,
    **processes: int,
) -> AsyncIterator[System]:
    """Every service as a process of its own, on these servers; without a Kafka it gets one of its own."""
    said: list[str] = []
    options = Options(
        folder=folder,
        processes=processes,
        fleet=0,
        kafka_bootstrap_servers=bootstrap_servers,
        database_url=database_url,
    )
    stack = SetStack(options, said.append, settings or {})
    try:
        await stack.start()
        yield System(stack)
    except BaseException:
        print("\n".join(said))
        raise
    finally:
        await stack.stop()


async def dial(url: str, station_id: str, password: str, subprotocol: str) -> ClientConnection:
    """Open a station's WebSocket as any client would."""
    credentials = base64.b64encode(f"{station_id}:{password}".encode()).decode()
    return await connect(
        f"{url}/{quote(station_id, safe='')}",
        subprotocols=[Subprotocol(subprotocol)],
        additional_headers={"Authorization": f"Basic {credentials}"},
        open_timeout=20,
        proxy=None,
    )


async def eventually(check: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """Wait until the check (a plain or a coroutine function) returns something true."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        found = check()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert asyncio.get_running_loop().time() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.1)
