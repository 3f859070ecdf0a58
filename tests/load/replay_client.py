"""A station for load scripts: one CALL at a time over a real socket, however often the socket breaks."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

from busbar.ocpp.errors import OcppError
from busbar.ocpp.validation import validate_response
from busbar.ocpp.versions import Version

Payload = dict[str, Any]
ANSWER_SECONDS = 90.0


class WrongAnswer(Exception):  # noqa: N818 - what the CSMS must never give
    """An answer that breaks the protocol, or that differs from the one before."""


@dataclass(slots=True)
class Counts:
    """What all stations of a run have done."""

    calls: int = 0
    duplicates: int = 0
    reconnects: int = 0
    reordered: int = 0
    latencies: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Chaos:
    """What goes wrong, and how often. All zero: nothing does."""

    duplicates: float = 0.0
    """CALLs that are sent once more, with a new message id, after they were answered."""
    reconnects: float = 0.0
    """CALLs during which the connection breaks, so that nobody knows whether they arrived."""
    offline: float = 0.0
    """Sessions that the station keeps in its queue, in disorder, until it is online again."""
    late: bool = False
    """Whether owners may be so late that the edge gives the minimal answer, which says less than theirs."""


_TIMES = frozenset({"currentTime", "expiryDate", "cacheExpiryDateTime"})


def without_times(answer: Any) -> Any:
    """What of an answer is the same however late it is given."""
    if not isinstance(answer, dict):
        return answer
    return {name: without_times(value) for name, value in answer.items() if name not in _TIMES}


class ReplayStation:
    """One station.

    Args:
        urls: Edges; each connection goes to another one.
    """

    def __init__(
        self,
        station_id: str,
        password: str,
        version: Version,
        urls: Sequence[str],
        *,
        random: Random,
        chaos: Chaos,
        counts: Counts,
    ) -> None:
        self.station_id = station_id
        self.version = version
        self.random = random
        self.chaos = chaos
        self.counts = counts
        credentials = base64.b64encode(f"{station_id}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {credentials}"}
        self._urls = urls
        self._socket: ClientConnection | None = None
        self._dialled = random.randrange(len(urls))
        self._numbers = 0

    async def call(self, action: str, payload: Payload) -> Payload:
        """Have a CALL answered, whatever it takes. Chaos may break the connection, or send the CALL once more.

        Raises:
            WrongAnswer: The answer is a CALLERROR or not valid, or the duplicate got another one.
        """
        answer = await self._until_answered(action, payload)
        if self.random.random() < self.chaos.duplicates:
            self.counts.duplicates += 1
            again = await self._until_answered(action, payload)
            minimal = self.chaos.late and {} in (again, answer)
            if without_times(again) != without_times(answer) and not minimal:
                raise WrongAnswer(f"{self.station_id}: {action} was answered {answer}, and again {again}")
        return answer

    async def close(self) -> None:
        """Hang up, as far as there is a connection."""
        if self._socket is not None:
            await self._socket.close()
            self._socket = None

    async def _until_answered(self, action: str, payload: Payload) -> Payload:
        breaks = self.random.random() < self.chaos.reconnects
        while True:
            try:
                socket = self._socket or await self._dial()
                return await self._exchange(socket, action, payload, breaks=breaks)
            except (ConnectionClosed, OSError, TimeoutError, WebSocketException):
                self.counts.reconnects += 1
                breaks = False
                self._abort()
                await asyncio.sleep(self.random.uniform(0.02, 0.2))

    async def _exchange(self, socket: ClientConnection, action: str, payload: Payload, *, breaks: bool) -> Payload:
        self._numbers += 1
        message_id = f"{self._numbers:x}"
        begin = time.perf_counter()
        self.counts.calls += 1
        await socket.send(json.dumps([2, message_id, action, payload]))
        if breaks:
            await asyncio.sleep(self.random.choice((0.0, 0.003, 0.02)))
            raise ConnectionError("the network is gone")
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                frame = json.loads(await socket.recv())
                if frame[0] == 2:
                    await socket.send(json.dumps([4, frame[1], "NotSupported", "a replay obeys nobody", {}]))
                elif frame[1] == message_id:
                    break
                else:
                    raise WrongAnswer(f"{self.station_id}: a frame to {frame[1]!r}, which is not open: {frame}")
        self.counts.latencies.append(time.perf_counter() - begin)
        if frame[0] != 3:
            raise WrongAnswer(f"{self.station_id}: {action} was answered with {frame}")
        try:
            validate_response(self.version, action, frame[2], strict=True)
        except OcppError as error:
            raise WrongAnswer(f"{self.station_id}: the answer to {action}: {error}") from error
        answer: Payload = frame[2]
        return answer

    async def _dial(self) -> ClientConnection:
        self._dialled += 1
        self._socket = await connect(
            f"{self._urls[self._dialled % len(self._urls)]}/{quote(self.station_id, safe='')}",
            subprotocols=[Subprotocol(self.version.subprotocol)],
            additional_headers=self._headers,
            compression=None,
            open_timeout=30,
            proxy=None,
        )
        return self._socket

    def _abort(self) -> None:
        """Cut the connection as a network does: without a close frame."""
        if self._socket is not None:
            self._socket.transport.abort()
            self._socket = None
