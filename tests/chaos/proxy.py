"""Lines between two parties that a test can cut, or make swallow everything for a while."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER on, for no time: closing sends RST."""


class Line:
    """A TCP proxy in front of one server, for one party that connects to it.

    Args:
        target_port: The server's, on 127.0.0.1. It may be away: connections are then reset.
    """

    def __init__(self, name: str, target_port: int) -> None:
        self.name = name
        self.port = 0
        """Where the party connects, once the line is open."""
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._ends: set[_End] = set()
        self._holes = 0
        self._passable = asyncio.Event()
        self._passable.set()

    @property
    def connections(self) -> int:
        """How many connections go through."""
        return sum(end.upstream is not None for end in self._ends)

    @property
    def passable(self) -> bool:
        """Whether anything passes at the moment."""
        return self._holes == 0

    async def open(self, port: int = 0) -> None:
        """Listen, on this port or on any that is free."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _End(self), "127.0.0.1", port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()

    def cut(self) -> None:
        """Reset every connection, towards both parties. New ones may be made at once."""
        for end in list(self._ends):
            end.reset()

    @asynccontextmanager
    async def hole(self) -> AsyncIterator[None]:
        """Within this block connections stay open, new ones are taken, and nothing passes in either direction.

        What was sent meanwhile arrives afterwards, as on a network that has been mended.
        """
        self._holes += 1
        self._passable.clear()
        for end in self._ends:
            end.pause()
        try:
            yield
        finally:
            self._holes -= 1
            if self._holes == 0:
                self._passable.set()
                for end in list(self._ends):
                    end.resume()

    async def join(self, downstream: _End) -> None:
        """Connect an accepted connection to the server."""
        await self._passable.wait()
        try:
            _, upstream = await asyncio.get_running_loop().create_connection(
                lambda: _End(self, downstream), "127.0.0.1", self._target_port
            )
        except OSError:
            downstream.reset()
            return
        downstream.pair(upstream)
        if not self._passable.is_set():
            upstream.pause()
            downstream.pause()

    def add(self, end: _End) -> None:
        self._ends.add(end)

    def discard(self, end: _End) -> None:
        self._ends.discard(end)


class _End(asyncio.Protocol):
    """One end of a connection: towards the party (`upstream` is `None` until it is joined) or towards the server."""

    def __init__(self, line: Line, downstream: _End | None = None) -> None:
        self.upstream: _End | None = None
        self._line = line
        self._other = downstream
        self._transport: asyncio.Transport | None = None
        self._joining: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._line.add(self)
        if self._other is None:
            transport.pause_reading()  # until there is somebody to hand it to
            self._joining = asyncio.create_task(self._line.join(self))
        elif self._other.is_closed:
            self.reset()

    def pair(self, upstream: _End) -> None:
        self.upstream = self._other = upstream
        self.resume()

    def data_received(self, data: bytes) -> None:
        if self._other is not None:
            self._other.write(data)

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def pause_writing(self) -> None:
        if self._other is not None:
            self._other.pause()

    def resume_writing(self) -> None:
        if self._other is not None and self._line.passable:
            self._other.resume()

    def connection_lost(self, error: Exception | None) -> None:
        self._line.discard(self)
        if self._joining is not None:
            self._joining.cancel()
        if self._other is not None:
            self._other.end(reset=error is not None)

    @property
    def is_closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def pause(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and self._other is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def end(self, *, reset: bool) -> None:
        """The other end is gone."""
        if reset:
            self.reset()
        elif self._transport is not None:
            self._transport.close()  # once what waits has been written

    def reset(self) -> None:
        if self._transport is None:
            return
        raw = self._transport.get_extra_info("socket")
        if raw is not None:
            try:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            except OSError:
                pass  # closed by itself a moment ago
        self._transport.abort()
