"""The shell around simulated stations: sockets and time."""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

from busbar.simulator.fleet import Member
from busbar.simulator.outlet import StopCause
from busbar.simulator.station import Station

logger = logging.getLogger(__name__)

LONGEST_SLEEP_SECONDS = 30.0
OPEN_TIMEOUT_SECONDS = 15.0
CLOSE_TIMEOUT_SECONDS = 3.0
MAX_FRAME_BYTES = 4 * 1024 * 1024


@dataclass(slots=True)
class Clock:
    """The stations' clock: it starts at the time of day and runs `speed` times as fast."""

    speed: float = 1.0
    started_at: float = field(default_factory=time.time)
    _origin: float = field(default_factory=time.monotonic)

    def now(self) -> float:
        """Seconds since 1970 on the stations' clock."""
        return self.started_at + (time.monotonic() - self._origin) * self.speed

    def wait_for(self, moment: float) -> float:
        """How many real seconds remain until a moment of the stations' clock."""
        return max(0.0, (moment - self.now()) / self.speed)


class Fleet:
    """Keeps the stations of a fleet connected and running.

    Args:
        urls: Edges, as `ws://HOST:PORT/ocpp`. A station that cannot connect to one tries the next.
        ramp_seconds: Over how many real seconds the first connections are spread.
    """

    def __init__(
        self,
        members: Sequence[Member],
        stations: Sequence[Station],
        urls: Sequence[str],
        clock: Clock,
        *,
        ramp_seconds: float = 0.0,
    ) -> None:
        self.stations = stations
        self._members = members
        self._urls = urls
        self._clock = clock
        for position, station in enumerate(stations):
            station.connect_at += position / max(1, len(stations)) * ramp_seconds * clock.speed

    @property
    def online(self) -> int:
        return sum(station.link.connected for station in self.stations)

    @property
    def charging(self) -> int:
        return sum(outlet.transaction is not None for station in self.stations for outlet in station.outlets)

    async def run(self, stop: asyncio.Event, drain_seconds: float = 5.0) -> None:
        """Run until `stop` is set; then end all transactions, send what is queued, and hang up."""
        drained = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for position, (member, station) in enumerate(zip(self._members, self.stations, strict=True)):
                runner = Runner(member, station, self._urls, position, self._clock)
                group.create_task(runner.run(drained))
            await stop.wait()
            await self._drain(drain_seconds)
            drained.set()

    async def _drain(self, seconds: float) -> None:
        now = self._clock.now()
        for station in self.stations:
            for outlet in station.outlets:
                outlet.agenda.cancel(f"{outlet.number} arrive", f"{outlet.number} card", f"{outlet.number} remote")
                outlet.stop(StopCause.CARD, now)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._is_sending():  # noqa: ASYNC110 - no single event ends it
            await asyncio.sleep(0.05)
        # By now one may have asked something else: who hangs up on that would call it unanswered.
        for station in self.stations:
            station.link.hush()
        while time.monotonic() < deadline and any(station.link.is_asking for station in self.stations):  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    def _is_sending(self) -> bool:
        return any(station.link.connected and station.link.queued for station in self.stations)


class Runner:
    """One station's task: connects, feeds frames and time in, sends what comes out."""

    def __init__(self, member: Member, station: Station, urls: Sequence[str], position: int, clock: Clock) -> None:
        self._member = member
        self._station = station
        self._urls = urls
        self._next_url = position
        self._clock = clock
        self._changed = asyncio.Event()
        self._sending = asyncio.Lock()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set."""
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                self._station.step(self._clock.now())
                if self._station.wants_connection and self._clock.now() >= self._station.connect_at:
                    await self._connection(stopping)
                else:
                    await self._sleep_offline(stopping)
        finally:
            stopping.cancel()

    async def _sleep_offline(self, stopping: asyncio.Task[bool]) -> None:
        station = self._station
        due = min(station.due(), station.connect_at if station.wants_connection else station.due())
        seconds = min(self._clock.wait_for(due), LONGEST_SLEEP_SECONDS)
        await asyncio.wait((stopping,), timeout=max(seconds, 0.001))

    async def _connection(self, stopping: asyncio.Task[bool]) -> None:
        station = self._station
        try:
            socket = await self._connect()
        except (OSError, TimeoutError, WebSocketException) as error:
            logger.debug("%s cannot connect: %s", station.station_id, error)
            self._next_url += 1
            station.connect_failed(self._clock.now())
            return
        station.opened(self._clock.now())
        reader = asyncio.create_task(self._read(socket))
        try:
            await self._keep_going(socket, reader, stopping)
        finally:
            await socket.close()
            station.closed(self._clock.now())
            await reader

    async def _connect(self) -> ClientConnection:
        headers = {}
        if self._member.password is not None:
            pair = f"{self._member.station_id}:{self._member.password}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        url = self._urls[self._next_url % len(self._urls)]
        return await connect(
            f"{url.rstrip('/')}/{quote(self._member.station_id, safe='')}",
            subprotocols=[Subprotocol(self._member.version.subprotocol)],
            additional_headers=headers,
            compression=None,
            open_timeout=OPEN_TIMEOUT_SECONDS,
            close_timeout=CLOSE_TIMEOUT_SECONDS,
            ping_interval=60,
            ping_timeout=60,
            max_size=MAX_FRAME_BYTES,
            proxy=None,
        )

    async def _keep_going(
        self, socket: ClientConnection, reader: asyncio.Task[None], stopping: asyncio.Task[bool]
    ) -> None:
        station = self._station
        while not reader.done() and not stopping.done() and not station.close_requested:
            self._changed.clear()
            station.step(self._clock.now())
            await self._flush(socket)
            seconds = min(self._clock.wait_for(station.due()), LONGEST_SLEEP_SECONDS)
            if seconds <= 0:
                await asyncio.sleep(0)
                continue
            changed = asyncio.create_task(self._changed.wait())
            try:
                await asyncio.wait((reader, stopping, changed), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            finally:
                changed.cancel()

    async def _read(self, socket: ClientConnection) -> None:
        try:
            async for text in socket:
                frame = text if isinstance(text, str) else text.decode("utf-8", "replace")
                self._station.receive(frame, self._clock.now())
                await self._flush(socket)
                self._changed.set()
        except ConnectionClosed:
            pass

    async def _flush(self, socket: ClientConnection) -> None:
        async with self._sending:
            for frame in self._station.frames_to_send():
                try:
                    await socket.send(frame)
                except ConnectionClosed:
                    return  # the link still has the CALL open, and sends it again if it is about a transaction
