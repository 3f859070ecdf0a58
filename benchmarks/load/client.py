"""A fleet of bare stations: non-blocking sockets on one epoll, prepared frames out, replies checked by message id.

It costs little more per message than the system calls under it, so that it is not what a benchmark measures. The
sockets are served by a thread of their own while a drive runs (`Fleet.closed_loop` and the like), so that whoever
drives may look at the system meanwhile.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import gc
import itertools
import os
import re
import select
import socket
import time
from array import array
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol, TypeVar

from benchmarks.load import frames
from benchmarks.load.frames import Template, websocket_frame

RETRY_SECONDS = 0.2
"""Before a station that was sent away with 503 tries again."""
CONNECT_SECONDS = 120.0
"""In which a fleet has to be connected."""
_LONGEST_WAIT_SECONDS = 0.1
_EVENTS_AT_ONCE = 1024
_READ_BYTES = 4096
_TRANSACTION_ID = re.compile(rb'"transactionId":\s*(-?\d+)')

T = TypeVar("T")


@dataclass(slots=True)
class Tally:
    """What a fleet has seen since `clear`."""

    latencies: array[float] = field(default_factory=lambda: array("d"))
    """Seconds from when a message was due (open loop) or sent (closed loop) to its reply."""
    lateness: array[float] = field(default_factory=lambda: array("d"))
    """Open loop: seconds from when a message was due to when it was sent, if its station was free."""
    answered: int = 0
    errors: int = 0
    """CALLERRORs."""
    stray: int = 0
    """Frames that answer no outstanding message: none is ever right."""
    commands: int = 0
    """CALLs of the CSMS that were answered."""
    closed: int = 0
    """Connections that ended by themselves."""
    error_texts: set[bytes] = field(default_factory=set)
    trace: list[tuple[float, int]] | None = None
    """When which station was answered, if somebody wants to know."""

    def clear(self) -> None:
        self.latencies, self.lateness = array("d"), array("d")
        self.answered = self.errors = self.stray = self.commands = self.closed = 0


class Clock:
    """The time as stations write it, as of the last look at the sockets."""

    def __init__(self) -> None:
        self.text = b""
        self._second = 0
        self._prefix = b""
        self.look()

    def look(self) -> None:
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
        self.text = b"%b.%03dZ" % (self._prefix, (now - second) * 1000)


class Script(Protocol):
    """What one station sends, message after message."""

    learns: bool
    """Whether it wants to see the replies."""

    def frame(self, message_id: bytes) -> bytearray:
        """The next frame for the wire; valid until anybody asks for another."""

    def learn(self, reply: bytes) -> None:
        """See a reply."""


MakeScript = Callable[[int, Clock], Script]
"""Makes the script of the station with this number."""


class Heartbeats:
    """Heartbeats for ever."""

    learns = False
    _TEMPLATE = frames.template("Heartbeat", {})

    def __init__(self, number: int, clock: Clock) -> None:
        self._frame = self._TEMPLATE.frame
        (self._slot,) = self._TEMPLATE.slots

    def frame(self, message_id: bytes) -> bytearray:
        self._frame[self._slot] = message_id
        return self._frame

    def learn(self, reply: bytes) -> None:
        """Nothing to learn."""


class TransactionEvents:
    """Transactions of OCPP 2.0.1 for ever: Started, ten Updated with twelve values, Ended.

    A station begins with a shorter transaction, so that not all stations start and stop in step.
    """

    learns = False
    _EVENTS = tuple(frames.transaction_events_201(10 - fewer) for fewer in range(10))
    """By how many updates fewer; the seqNos of each have no gap, after which the CSMS would ask."""

    def __init__(self, number: int, clock: Clock) -> None:
        self._clock = clock
        self._run = b"%06x%06x" % (int(time.time()) & 0xFFFFFF, number & 0xFFFFFF)
        self._transaction = 0
        self._transaction_id = self._run + b"0000"
        self._register = 1_000_000_000
        self._next = 0
        self._events = self._EVENTS[number % 10]

    def frame(self, message_id: bytes) -> bytearray:
        event = self._events[self._next]
        if self._next == 0:
            self._transaction_id = b"%b%04x" % (self._run, self._transaction & 0xFFFF)
            self._transaction += 1
        self._next += 1
        if self._next == len(self._events):
            self._next, self._events = 0, self._EVENTS[0]
        self._register += 17
        now = self._clock.text
        return event.fill(message_id, now, now, b"%010d" % self._register, self._transaction_id)

    def learn(self, reply: bytes) -> None:
        """Nothing to learn."""


class Mix16:
    """The 1.6 mix for ever: Status, Start, ten MeterValues, Heartbeat, Stop."""

    learns = True
    _MIX = frames.mix_16()
    _CYCLE = ("status", "start", *("meter",) * 10, "heartbeat", "stop")

    def __init__(self, number: int, clock: Clock) -> None:
        self._clock = clock
        self._transaction_id = b"0" * 10
        self._register = 1_000_000_000
        self._next = 0
        self._skip = number % 10

    def frame(self, message_id: bytes) -> bytearray:
        index = self._next
        kind = self._CYCLE[index]
        self._next = (index + 1) % len(self._CYCLE)
        if kind == "start":
            self._next, self._skip = self._next + self._skip, 0
        template = self._MIX[kind]
        if kind == "meter" or kind == "stop":
            self._register += 17
            register = b"%010d" % self._register
            return template.fill(message_id, self._transaction_id, self._clock.text, register)
        if kind == "start":
            return template.fill(message_id, self._clock.text, b"%010d" % self._register)
        if kind == "status":
            return template.fill(message_id, self._clock.text)
        return template.fill(message_id)

    def learn(self, reply: bytes) -> None:
        """Take over the id of the transaction, which only the answer to its start says."""
        match = _TRANSACTION_ID.search(reply)
        if match:
            if len(match[1]) > 10:
                raise ValueError(f"a transaction id that does not fit its slot: {match[1]!r}")
            self._transaction_id = match[1].rjust(10)


class Station:
    """One station. In the closed loop it sends the next message at each reply; in the open loop when told to."""

    __slots__ = (
        "_boot",
        "_buffer",
        "_clock_due",
        "_count",
        "_expected",
        "_fleet",
        "_prefix",
        "_recv",
        "_send",
        "_socket",
        "_unsent",
        "_waiting",
        "address",
        "looping",
        "number",
        "path",
        "script",
        "tally",
    )

    def __init__(self, fleet: Fleet, number: int, name: str, address: tuple[str, int], script: Script) -> None:
        self._fleet = fleet
        self.number = number
        self.path = f"/ocpp/{name}"
        self.address = address
        self.script = script
        self.tally = fleet.tally
        self.looping = False
        # The ids of a station differ from those of every other, so that a stray reply is noticed.
        self._prefix = b"%05x" % (number & 0xFFFFF)
        self._count = 0
        self._expected = b""
        """How the answer to the outstanding CALL begins; empty if there is none."""
        self._clock_due = 0.0
        self._waiting: deque[float] = deque()
        """When messages were due that wait until the one before them is answered."""
        self._buffer = b""
        self._unsent = b""
        self._boot: Template | None = None
        self._open()

    # Sending

    def send_due(self, due: float) -> None:
        """Send the next message, or remember that it was due if one is outstanding."""
        if self._expected:
            self._waiting.append(due)
        else:
            self.tally.lateness.append(perf_counter() - due)
            self._transmit(due)

    def start(self) -> None:
        """Begin the closed loop."""
        self.looping = True
        if not self._expected:
            self._transmit(perf_counter())

    def forget(self) -> None:
        """Send nothing more by itself."""
        self.looping = False
        self._waiting.clear()

    @property
    def outstanding(self) -> bool:
        return bool(self._expected)

    def _transmit(self, due: float) -> None:
        self._count = count = self._count + 1
        message_id = b"%b%05x" % (self._prefix, count & 0xFFFFF)
        self._expected = b'[3,"%b",' % message_id
        self._clock_due = due
        self._write(self.script.frame(message_id) if self._boot is None else self._boot.fill(message_id))

    def _write(self, frame: bytes | bytearray) -> None:
        if self._unsent:
            self._unsent += frame
            return
        try:
            sent = self._send(frame)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lost()
            return
        if sent < len(frame):
            self._unsent = bytes(frame[sent:])
            self._fleet.watch(self._socket, writable=True)

    # Receiving

    def ready(self, events: int) -> None:
        """The socket may be read, or written again."""
        if events & select.EPOLLOUT:
            frame, self._unsent = self._unsent, b""
            self._fleet.watch(self._socket, writable=False)
            self._write(frame)
        if not events & ~select.EPOLLOUT:
            return
        try:
            data = self._recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        if self._buffer:
            data = self._buffer + data
        end = len(data)
        # Nearly always it is one short frame, and the answer.
        if data[0] == 0x81 and end == data[1] + 2 and data.startswith(self._expected, 2) and self._expected:
            self._buffer = b""
            self._answered(data)
        else:
            self._receive(data)

    def _receive(self, data: bytes) -> None:
        """Any frames, and any parts of them."""
        while len(data) >= 2:
            length, start = data[1] & 0x7F, 2
            if length == 126:
                length, start = int.from_bytes(data[2:4], "big"), 4
            elif length == 127:
                length, start = int.from_bytes(data[2:10], "big"), 10
            end = start + length
            if len(data) < end:
                break
            opcode, payload, data = data[0] & 0x0F, data[start:end], data[end:]
            if opcode == 1:
                self._text(payload)
            elif opcode == 9:
                self._write(websocket_frame(payload, 0x8A))
        self._buffer = data

    def _text(self, payload: bytes) -> None:
        expected = self._expected
        if expected and payload.startswith(expected):
            self._answered(payload)
        elif expected and payload.startswith(b'[4,"' + expected[4:]):
            self.tally.errors += 1
            if len(self.tally.error_texts) < 5:
                self.tally.error_texts.add(payload)
            self._answered(payload)
        elif payload.startswith(b'[2,"'):
            self.tally.commands += 1
            message_id = payload[4 : payload.index(b'"', 4)]
            self._write(websocket_frame(b'[3,"%b",{"status":"Accepted"}]' % message_id))
        else:
            self.tally.stray += 1

    def _answered(self, reply: bytes) -> None:
        now = perf_counter()
        tally = self.tally
        tally.latencies.append(now - self._clock_due)
        tally.answered += 1
        if tally.trace is not None:
            tally.trace.append((now, self.number))
        if self.script.learns:
            self.script.learn(reply)
        if self._boot is not None:
            self._boot = None
            self._fleet.arrived()
        if self._waiting:
            self._transmit(self._waiting.popleft())
        elif self.looping:
            self._transmit(now)
        else:
            self._expected = b""

    # Connecting

    def _open(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._send, self._recv = self._socket.send, self._socket.recv

    def connect(self) -> None:
        """Begin to connect; the fleet is told when it is done, boot included."""
        self._clock_due = self._clock_due or perf_counter()
        problem = self._socket.connect_ex(self.address)
        if problem not in (0, errno.EINPROGRESS):
            raise ConnectionError(f"{self.path}: {os.strerror(problem)}")
        self._fleet.watch(self._socket, writable=True, handler=self._connected)

    def _connected(self, events: int) -> None:
        problem = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if problem:
            raise ConnectionError(f"{self.path}: {os.strerror(problem)}")
        self._fleet.watch(self._socket, writable=False, handler=self._handshake)
        self._send(self._fleet.request(self.path))

    def _handshake(self, events: int) -> None:
        try:
            data = self._recv(_READ_BYTES)
        except BlockingIOError:
            return
        self._buffer += data
        head, ended, rest = self._buffer.partition(b"\r\n\r\n")
        if data and not ended:
            return
        if head.startswith(b"HTTP/1.1 101 "):
            self._buffer = rest
            self._fleet.watch(self._socket, writable=False, handler=self.ready)
            self._boot = self._fleet.boot
            if self._boot is None:
                self._clock_due = 0.0
                self._fleet.arrived()
            else:
                self._transmit(self._clock_due)
        elif head.startswith(b"HTTP/1.1 503 "):
            self._fleet.unwatch(self._socket)
            self._buffer = b""
            self._open()
            self._fleet.retry(self)
        else:
            raise ConnectionError(f"{self.path}: {head[:200]!r}")

    def _lost(self) -> None:
        self.tally.closed += 1
        self._fleet.unwatch(self._socket)
        if self._boot is not None:
            raise ConnectionError(f"{self.path}: the connection ended before its boot was answered")
        self._expected = b""
        self.forget()

    def close(self) -> None:
        """Say good-bye."""
        self.forget()
        try:
            self._send(websocket_frame(b"\x03\xe8", 0x88))
        except OSError:
            pass
        self._fleet.unwatch(self._socket)


class Fleet:
    """Stations of one script on one or more edges, and the loop that serves their sockets.

    Args:
        edges: `HOST:PORT` of each; station n goes to edge n modulo their number.
        prefix: Of the stations' names.
        passwords: By name; without them nobody says who it is.
        boot: With what a station boots, if it does.
    """

    def __init__(
        self,
        edges: list[str],
        script: MakeScript,
        subprotocol: str,
        *,
        prefix: str = "BENCH",
        passwords: Mapping[str, str] | None = None,
        boot: Template | None = None,
    ) -> None:
        self.stations: list[Station] = []
        self.tally = Tally()
        self.clock = Clock()
        self.boot = boot
        self._edges = [_address(edge) for edge in edges]
        self._script = script
        self._subprotocol = subprotocol
        self._prefix = prefix
        self._passwords = passwords
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._retries: deque[tuple[float, Station]] = deque()
        self._arrived = 0
        self._abandoned = False

    @classmethod
    async def connect(
        cls,
        edges: list[str],
        count: int,
        script: MakeScript,
        subprotocol: str,
        *,
        prefix: str = "BENCH",
        passwords: Mapping[str, str] | None = None,
        at_once: int = 100,
        boot: Template | None = None,
    ) -> Fleet:
        """A fleet with `count` stations (see `grow`)."""
        fleet = cls(edges, script, subprotocol, prefix=prefix, passwords=passwords, boot=boot)
        await fleet.grow(count, at_once=at_once)
        return fleet

    async def grow(self, count: int, *, at_once: int = 100) -> None:
        """Connect more stations until there are `count`, `at_once` at a time.

        Raises:
            ConnectionError: A handshake was refused, other than with 503.
            TimeoutError: They are not all there after two minutes.
        """
        await self._drive(lambda: self._grow(count, at_once))

    async def closed_loop(self, seconds: float) -> float:
        """Every station keeps one message outstanding. Returns the seconds that were measured."""
        return await self._drive(lambda: self._closed_loop(seconds))

    async def open_loop(self, rate: float, seconds: float) -> float:
        """Messages fall due at a fixed rate, whatever the replies do; their latency counts from then."""
        return await self._drive(lambda: self._open_loop(rate, seconds))

    async def listen(self, seconds: float) -> float:
        """Send nothing by itself, and answer what comes."""
        return await self._drive(lambda: self._serve(seconds))

    async def stop_loop(self, timeout: float = 10.0) -> int:
        """Let what is outstanding be answered; returns how many messages never were."""
        return await self._drive(lambda: self._stop_loop(timeout))

    def close(self) -> None:
        """Close all connections."""
        for station in self.stations:
            station.close()
        self._epoll.close()

    def abandon(self) -> None:
        """End the drive that runs."""
        self._abandoned = True

    # What stations ask for

    def request(self, path: str) -> bytes:
        """The opening handshake."""
        credentials = ""
        if self._passwords is not None:
            user = path.rpartition("/")[2]
            word = base64.b64encode(f"{user}:{self._passwords[user]}".encode()).decode()
            credentials = f"Authorization: Basic {word}\r\n"
        return (
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Protocol: {self._subprotocol}\r\n{credentials}\r\n"
        ).encode()

    def watch(self, sock: socket.socket, *, writable: bool, handler: Callable[[int], None] | None = None) -> None:
        """Call the handler when there is something to read, or also when something can be written."""
        number = sock.fileno()
        mask = select.EPOLLIN | select.EPOLLOUT if writable else select.EPOLLIN
        if number in self._handlers:
            self._epoll.modify(number, mask)
        else:
            self._epoll.register(number, mask)
        if handler is not None:
            self._handlers[number] = handler

    def unwatch(self, sock: socket.socket) -> None:
        """Close a socket."""
        self._handlers.pop(sock.fileno(), None)
        sock.close()

    def retry(self, station: Station) -> None:
        """Let it connect again a little later."""
        self._retries.append((perf_counter() + RETRY_SECONDS, station))

    def arrived(self) -> None:
        """A station is connected, and booted if it should."""
        self._arrived += 1

    # The loop, in its own thread

    async def _drive(self, drive: Callable[[], T]) -> T:
        self._abandoned = False
        try:
            return await asyncio.to_thread(drive)
        except asyncio.CancelledError:
            self.abandon()
            raise

    def _serve(
        self,
        seconds: float,
        *,
        due: Callable[[float], float] | None = None,
        done: Callable[[], bool] | None = None,
    ) -> float:
        """Serve the sockets for so long, or until `done`; returns how long it was.

        Args:
            due: Sends what is due at the time given, and says how long there is nothing more to do.
        """
        poll, handlers, look = self._epoll.poll, self._handlers, self.clock.look
        began = perf_counter()
        end = began + seconds
        while (now := perf_counter()) < end and not self._abandoned and not (done is not None and done()):
            look()
            wait = min(end - now, _LONGEST_WAIT_SECONDS)
            if due is not None:
                wait = min(wait, due(now))
            for number, events in poll(max(0.0, wait), _EVENTS_AT_ONCE):
                handler = handlers.get(number)
                if handler is not None:
                    handler(events)
        return perf_counter() - began

    def _grow(self, count: int, at_once: int) -> None:
        numbers = range(len(self.stations), count)
        unborn = iter(numbers)
        self._arrived = begun = 0
        self.tally.clear()

        def begin(now: float) -> float:
            nonlocal begun
            while self._retries and self._retries[0][0] <= now:
                self._retries.popleft()[1].connect()
            while begun - self._arrived < at_once and (number := next(unborn, None)) is not None:
                name = f"{self._prefix}-{number:05d}"
                address = self._edges[number % len(self._edges)]
                station = Station(self, number, name, address, self._script(number, self.clock))
                self.stations.append(station)
                station.connect()
                begun += 1
            return self._retries[0][0] - now if self._retries else _LONGEST_WAIT_SECONDS

        self._serve(CONNECT_SECONDS, due=begin, done=lambda: self._arrived == len(numbers))
        if self._arrived < len(numbers) and not self._abandoned:
            raise TimeoutError(f"{self._arrived} of {len(numbers)} stations are connected after {CONNECT_SECONDS:g} s")
        gc.collect()
        gc.freeze()  # a look at every station and slot takes longer than what is measured

    def _closed_loop(self, seconds: float) -> float:
        self.tally.clear()
        for station in self.stations:
            if not station.looping:
                station.start()
        return self._serve(seconds)

    def _open_loop(self, rate: float, seconds: float) -> float:
        stations = itertools.cycle(self.stations)
        self.tally.clear()
        began = perf_counter()
        sent = 0

        def send(now: float) -> float:
            nonlocal sent
            while (due := began + sent / rate) <= now:
                next(stations).send_due(due)
                sent += 1
            return due - now

        return self._serve(seconds, due=send)

    def _stop_loop(self, timeout: float) -> int:
        for station in self.stations:
            station.forget()
        self._serve(timeout, done=lambda: not any(station.outstanding for station in self.stations))
        return sum(station.outstanding for station in self.stations)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)
