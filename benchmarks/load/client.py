"""A fleet of bare stations: a raw asyncio protocol each, prepared frames out, replies checked by message id.

It costs about as much per message as the system calls under it, so that it is not what a benchmark measures.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import re
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

from benchmarks.load import frames
from benchmarks.load.frames import ID_LENGTH, Template

Step = tuple[str, Callable[[bytes], bytes]]
"""What a message is (for the table), and how to make its frame once its message id is known."""


@dataclass(slots=True)
class Tally:
    """What a fleet has seen since `clear`."""

    latencies: array[float] = field(default_factory=lambda: array("d"))
    """Seconds from when a message was due (open loop) or sent (closed loop) to its reply."""
    sent: int = 0
    answered: int = 0
    errors: int = 0
    """CALLERRORs."""
    stray: int = 0
    """Frames that answer no outstanding message: none is ever right."""
    closed: int = 0
    error_texts: set[bytes] = field(default_factory=set)

    def clear(self) -> None:
        self.latencies = array("d")
        self.sent = self.answered = self.errors = self.stray = 0


_HANDSHAKE_ANSWER = re.compile(rb"HTTP/1\.1 (\d+)")
_TRANSACTION_ID = re.compile(rb'"transactionId":\s*(-?\d+)')


class BareStation(asyncio.Protocol):
    """One station. In the closed loop it sends the next message at each reply; in the open loop when told to."""

    def __init__(self, path: str, subprotocol: str, tally: Tally, number: int, password: str | None) -> None:
        self.path = path
        self.tally = tally
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.refused = b""
        self.looping = False
        self.transaction_id = b""
        self.replied: asyncio.Future[None] | None = None
        self._buffer = b""
        self._outstanding = b""
        self._sent_at = 0.0
        self._due: deque[float] = deque()
        self._steps: Iterator[Step] = iter(())
        # The ids of a station differ from those of every other, so that a stray reply is noticed.
        self._ids = (b"%05x%05x" % (number & 0xFFFFF, count & 0xFFFFF) for count in itertools.count())
        credentials = ""
        if password is not None:
            user = path.rpartition("/")[2]
            credentials = "Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode() + "\r\n"
        self._request = (
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Protocol: {subprotocol}\r\n{credentials}\r\n"
        ).encode()
        self._transport: asyncio.WriteTransport | None = None

    def run(self, steps: Iterator[Step]) -> None:
        """Set what to send."""
        self._steps = steps

    def send_next(self, due: float) -> None:
        """Send the next message, or remember that it was due if one is outstanding."""
        if self._outstanding:
            self._due.append(due)
            return
        step = next(self._steps, None)
        if step is None or self._transport is None:
            return
        message_id = next(self._ids)
        self._outstanding = message_id
        self._sent_at = due
        self.tally.sent += 1
        self._transport.write(step[1](message_id))

    @property
    def idle(self) -> bool:
        return not self._outstanding

    def close(self) -> None:
        self.looping = False
        if self._transport is not None:
            self._transport.write(frames.websocket_frame(b"\x03\xe8", 0x88))
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's are not registered as such
        self._transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        self.tally.closed += 1
        self._transport = None
        if not self.accepted.done():
            self.accepted.set_exception(ConnectionError(f"{self.path}: closed during the handshake"))

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        if not self.accepted.done():
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = data
                return
            answer = _HANDSHAKE_ANSWER.match(data)
            if answer is None or answer[1] != b"101":
                self.refused = data[:200]
                self.accepted.set_exception(ConnectionError(f"{self.path}: {data[:200]!r}"))
                return
            self.accepted.set_result(None)
            data = data[end + 4 :]
        while len(data) >= 2:
            length = data[1] & 0x7F
            start = 2
            if length == 126:
                length, start = int.from_bytes(data[2:4], "big"), 4
            elif length == 127:
                length, start = int.from_bytes(data[2:10], "big"), 10
            end = start + length
            if len(data) < end:
                break
            opcode = data[0] & 0x0F
            if opcode == 1:
                self._receive(data, start, end)
            elif opcode == 9 and self._transport is not None:
                self._transport.write(frames.websocket_frame(data[start:end], 0x8A))
            data = data[end:]
        self._buffer = data

    def _receive(self, data: bytes, start: int, end: int) -> None:
        outstanding = self._outstanding
        found = data.find(outstanding, start, start + 8 + ID_LENGTH) if outstanding else -1
        if found < 0:
            if data[start : start + 2] != b"[2":  # a command is not what a benchmark's station is for
                self.tally.stray += 1
            return
        tally = self.tally
        now = time.perf_counter()
        tally.latencies.append(now - self._sent_at)
        tally.answered += 1
        kind = data[start + 1]
        if kind == 0x34:  # "4"
            tally.errors += 1
            if len(tally.error_texts) < 5:
                tally.error_texts.add(data[start:end])
        elif b"transactionId" in data:
            match = _TRANSACTION_ID.search(data, start, end)
            if match:
                self.transaction_id = match[1]
        self._outstanding = b""
        if self.replied is not None:
            self.replied.set_result(None)
            self.replied = None
        if self._due:
            self.send_next(self._due.popleft())
        elif self.looping:
            self.send_next(now)


def _timestamp() -> bytes:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()).encode()


def heartbeats(_: BareStation, number: int) -> Iterator[Step]:
    """Heartbeats for ever."""
    heartbeat = frames.template("Heartbeat", {})
    step: Step = ("Heartbeat", lambda message_id: heartbeat.fill(message_id))
    return itertools.repeat(step)


_EVENTS = frames.transaction_events_201()


def transaction_events(station: BareStation, number: int) -> Iterator[Step]:
    """Transactions of OCPP 2.0.1 for ever: Started, up to ten Updated with twelve values, Ended.

    A station begins with a shorter transaction, so that not all stations start and stop in step.
    """
    register = 1_000_000_000
    run = int(time.time()) & 0xFFFFFF
    for transaction in itertools.count():
        transaction_id = b"%06x%06x%04x" % (run, number & 0xFFFFFF, transaction & 0xFFFF)
        skip = number % 10 if transaction == 0 else 0
        last = len(_EVENTS) - 1
        for index, event in enumerate(_EVENTS):
            if 0 < index <= skip:
                continue
            register += 17

            def make(
                message_id: bytes,
                event: Template = event,
                register: int = register,
                tx: bytes = transaction_id,
            ) -> bytes:
                if len(event.parts) == 5:
                    return event.fill(message_id, _timestamp(), b"%010d" % register, tx)
                return event.fill(message_id, _timestamp(), tx)

            yield ("Ended" if index == last else "Updated" if index else "Started"), make


_MIX = frames.mix_16()


def mix_16(station: BareStation, number: int) -> Iterator[Step]:
    """The 1.6 mix for ever: Status, Start, ten MeterValues, Heartbeat, Stop, Status."""
    register = 1_000_000_000

    def status(message_id: bytes) -> bytes:
        return _MIX["status"].fill(message_id, _timestamp())

    def start(message_id: bytes) -> bytes:
        return _MIX["start"].fill(message_id, _timestamp(), b"%010d" % register)

    def meter(message_id: bytes) -> bytes:
        return _MIX["meter"].fill(message_id, station.transaction_id.rjust(10), _timestamp(), b"%010d" % register)

    def stop(message_id: bytes) -> bytes:
        return _MIX["stop"].fill(message_id, station.transaction_id.rjust(10), _timestamp(), b"%010d" % register)

    skip = number % 10
    while True:
        yield "StatusNotification", status
        yield "StartTransaction", start
        for _ in range(10 - skip):
            register += 17
            yield "MeterValues", meter
        skip = 0
        yield "Heartbeat", lambda message_id: _MIX["heartbeat"].fill(message_id)
        yield "StopTransaction", stop


Script = Callable[[BareStation, int], Iterator[Step]]


class Fleet:
    """Stations of one script on one or more edges."""

    def __init__(self, stations: list[BareStation], tally: Tally) -> None:
        self.stations = stations
        self.tally = tally

    @classmethod
    async def connect(
        cls,
        edges: list[str],
        count: int,
        script: Script,
        subprotocol: str,
        *,
        prefix: str = "BENCH",
        passwords: dict[str, str] | None = None,
        at_once: int = 100,
        boot: Template | None = None,
    ) -> Fleet:
        """Open `count` sockets, `at_once` at a time, and boot if a template says how.

        Args:
            edges: `HOST:PORT` of each; station n goes to edge n modulo their number.

        Raises:
            ConnectionError: A handshake was refused.
        """
        loop = asyncio.get_running_loop()
        tally = Tally()
        gate = asyncio.Semaphore(at_once)

        async def one(number: int) -> BareStation:
            host, _, port = edges[number % len(edges)].rpartition(":")
            name = f"{prefix}-{number:05d}"
            password = passwords[name] if passwords else None
            async with gate:
                for _attempt in range(50):
                    station = BareStation(f"/ocpp/{name}", subprotocol, tally, number, password)
                    try:
                        await loop.create_connection(lambda: station, host, int(port))  # noqa: B023
                        await station.accepted
                        break
                    except ConnectionError:
                        if b" 503 " not in station.refused:
                            raise
                        await asyncio.sleep(0.2)
                if boot is not None:
                    await station_call(station, boot)
            station.run(script(station, number))
            return station

        return cls(list(await asyncio.gather(*(one(number) for number in range(count)))), tally)

    async def closed_loop(self, seconds: float) -> float:
        """Every station keeps one message outstanding. Returns the seconds that were measured."""
        for station in self.stations:
            station.looping = True
            station.send_next(time.perf_counter())
        began = time.perf_counter()
        self.tally.clear()
        await asyncio.sleep(seconds)
        return time.perf_counter() - began

    async def stop_loop(self, timeout: float = 10.0) -> int:
        """Let what is outstanding be answered; returns how many messages never were."""
        for station in self.stations:
            station.looping = False
            station._due.clear()
        deadline = time.perf_counter() + timeout
        while time.perf_counter() < deadline and self._outstanding():  # noqa: ASYNC110 - an event each is dearer
            await asyncio.sleep(0.02)
        return self._outstanding()

    def _outstanding(self) -> int:
        return sum(not station.idle for station in self.stations)

    async def open_loop(self, rate: float, seconds: float) -> float:
        """Messages fall due at a fixed rate, whatever the replies do; their latency counts from then."""
        stations = itertools.cycle(self.stations)
        self.tally.clear()
        began = time.perf_counter()
        sent = 0
        while (now := time.perf_counter()) - began < seconds:
            while sent < (now - began) * rate:
                next(stations).send_next(began + sent / rate)
                sent += 1
            await asyncio.sleep(0.001)
        return time.perf_counter() - began

    def close(self) -> None:
        for station in self.stations:
            station.close()


async def station_call(station: BareStation, call: Template) -> None:
    """Send one CALL and wait for its reply."""
    station.run(iter([("call", lambda message_id: call.fill(message_id))]))
    station.replied = asyncio.get_running_loop().create_future()
    station.send_next(time.perf_counter())
    await station.replied
