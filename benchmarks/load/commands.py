"""Commands through the HTTP API: a few connections, each with one request outstanding."""

from __future__ import annotations

import itertools
import select
import socket
from collections.abc import Sequence
from time import perf_counter
from urllib.parse import quote, urlsplit

from benchmarks.load.client import Fleet, Tally

ACTION, PAYLOAD = "ClearCache", b"{}"


class Caller:
    """One keep-alive connection. It sends one command after the other, and waits for the outcome of each.

    Args:
        fleet: Its loop serves this connection, too.
        stations: Whom to ask, in turn; nobody else asks them.
    """

    def __init__(self, fleet: Fleet, api_url: str, key: str, stations: Sequence[str], tally: Tally) -> None:
        place = urlsplit(api_url)
        head = (
            f" HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(PAYLOAD)}\r\n\r\n"
        ).encode() + PAYLOAD
        paths = (f"POST /v1/stations/{quote(name, safe='')}/commands/{ACTION}?wait=20" for name in stations)
        self._requests = itertools.cycle([path.encode() + head for path in paths])
        self._tally = tally
        self._fleet = fleet
        self._buffer = b""
        self._sent_at = 0.0
        self._going = True
        self.outstanding = False
        self._socket = socket.create_connection((place.hostname or "", place.port or 80))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        fleet.watch(self._socket, writable=False, handler=self._ready)

    def start(self) -> None:
        """Send the first command."""
        self._send()

    def stop(self) -> None:
        """Send no more."""
        self._going = False

    def close(self) -> None:
        self._fleet.unwatch(self._socket)

    def _send(self) -> None:
        self._sent_at = perf_counter()
        self.outstanding = True
        self._socket.send(next(self._requests))

    def _ready(self, events: int) -> None:
        data = self._socket.recv(65536)
        if not data or events & select.EPOLLHUP:
            raise ConnectionError("the API closed a connection")
        self._buffer += data
        head, ended, body = self._buffer.partition(b"\r\n\r\n")
        if not ended:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self._buffer = b""
        self.outstanding = False
        tally = self._tally
        tally.latencies.append(perf_counter() - self._sent_at)
        tally.answered += 1
        if not head.startswith(b"HTTP/1.1 200") or b'"outcome":"answered"' not in body:
            tally.errors += 1
            if len(tally.error_texts) < 5:
                tally.error_texts.add(head.partition(b"\r\n")[0] + b" " + body)
        if self._going:
            self._send()
