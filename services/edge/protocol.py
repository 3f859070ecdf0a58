"""One socket: bytes to and from a `StationConnection`, by websockets' Sans-I/O protocol, without a task or a timer.

Everything happens in the transport's callbacks and in the hub's sweep. Compression is off: it costs 50 KiB a socket.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import cast

from websockets.exceptions import PayloadTooBig
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import SEND_EOF, State
from websockets.server import ServerProtocol

from busbar.stream.interfaces import RecordTooLarge, UnknownTopic
from services.edge.clock import Instant
from services.edge.config import MAX_FRAME_BYTES
from services.edge.connection import StationConnection
from services.edge.door import Admitted
from services.edge.handshake import Refusal, busy, read_visitor
from services.edge.hub import Hub
from services.edge.records import Publication
from services.edge.wire import text_frame, whole_text

logger = logging.getLogger(__name__)
_websocket_logger = logging.getLogger("services.edge.websocket")
_websocket_logger.setLevel(logging.WARNING)  # websockets logs each opening and closing at INFO

WRITE_BUFFER_BYTES = 64 * 1024
"""Above this in a socket's send buffer the station is not read until it reads."""

_TEXT, _BINARY, _CONTINUATION = Opcode.TEXT, Opcode.BINARY, Opcode.CONT
_HANDSHAKE, _OPEN, _CLOSING, _CLOSED = range(4)
_BY_WRITES, _BY_HUB = 1, 2

_NOT_HTTP_TEXT = b"this is not a WebSocket handshake over HTTP\n"
_NOT_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_NOT_HTTP_TEXT), _NOT_HTTP_TEXT)
)


class StationProtocol(asyncio.Protocol):
    """The transport's side of one socket."""

    __slots__ = (
        "_closing_since",
        "_connection",
        "_fragments",
        "_heard",
        "_hub",
        "_is_between_messages",
        "_max_bytes",
        "_opened",
        "_paused",
        "_ping_interval",
        "_pinged",
        "_response",
        "_state",
        "_transport",
        "_websocket",
        "_write_paused_since",
        "address",
        "connected_at_ms",
        "number",
        "security_profile",
        "station_id",
        "subprotocol",
    )

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._state = _HANDSHAKE
        self._websocket: ServerProtocol | None = None
        self._transport: asyncio.Transport | None = None
        self._connection: StationConnection | None = None
        self._response: Response | None = None
        self._fragments: list[bytes] | None = None
        self._is_between_messages = True
        self._max_bytes = hub.config.max_frame_bytes
        self._paused = 0
        self._pinged = False
        self._ping_interval = hub.config.ping_interval_seconds
        self._opened = self._heard = hub.clock.read().monotonic
        self._closing_since = self._write_paused_since = 0.0
        self.number = hub.next_number()
        self.address = ""
        self.station_id = ""
        self.subprotocol = ""
        self.security_profile = 0
        self.connected_at_ms = 0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if isinstance(peer, tuple) else "local"
        self._websocket = _Websocket(max_size=self._hub.config.max_frame_bytes, logger=_websocket_logger)
        self._hub.opened(self)

    def data_received(self, data: bytes) -> None:
        websocket = self._websocket
        if websocket is None:
            return
        hub = self._hub
        now = hub.clock.read()
        self._heard = now.monotonic
        self._pinged = False
        connection = self._connection
        if connection is None:
            websocket.receive_data(data)
            self._receive_handshake(websocket.events_received(), now)
            self._flush(now)
            return
        text = whole_text(data, self._max_bytes) if self._is_between_messages and self._state == _OPEN else None
        if text is not None:
            metrics = hub.metrics
            metrics.frames_received += 1
            metrics.bytes_received += len(text)
            connection.receive_text(text, now)
            self._flush_connection(connection, websocket, now)
        else:
            self._receive_pieces(connection, websocket, data, now)
        if hub.is_overloaded(now) and self._state == _OPEN:
            self._pause(_BY_HUB)

    def eof_received(self) -> None:
        if self._websocket is not None:
            self._websocket.receive_eof()
            self._flush(self._hub.clock.read())

    def connection_lost(self, exc: Exception | None) -> None:
        now = self._hub.clock.read()
        code, reason = self._how_it_closed(exc)
        self._state = _CLOSED
        connection = self._connection
        if connection is not None:
            connection.connection_lost(now)
            self._publish(connection, now)
        self._hub.closed(self, connection.identity if connection is not None else None, now, code, reason)
        self._websocket = self._transport = self._response = self._fragments = None

    def pause_writing(self) -> None:
        self._write_paused_since = self._hub.clock.read().monotonic
        self._pause(_BY_WRITES)

    def resume_writing(self) -> None:
        self._resume(_BY_WRITES)

    # The opening handshake

    def _receive_handshake(self, events: Sequence[object], now: Instant) -> None:
        websocket = self._websocket
        if not events or websocket is None or self._state != _HANDSHAKE:
            return
        event = events[0]
        if len(events) > 1 or not isinstance(event, Request):
            self._hub.metrics.handshakes["early_data"] += 1  # a client has to wait for the answer to its handshake
            self.abort()
            return
        response = websocket.accept(event)
        if response.status_code != 101:
            self._count_refusal("not_websocket", response.status_code, now)
            self._send_response(response)
            return
        try:
            tls = self._hub.config.tls_terminated or self._is_encrypted()
            visitor = read_visitor(event, path_prefix=self._hub.config.path_prefix, address=self.address, tls=tls)
        except Refusal as refusal:
            self._refuse(refusal, now)
            return
        self._response = response
        self.station_id = visitor.station_id
        self._hub.door.admit(visitor, self._decided)

    def _is_encrypted(self) -> bool:
        return self._transport is not None and self._transport.get_extra_info("ssl_object") is not None

    def _decided(self, decision: Admitted | Refusal) -> None:
        """The door has decided, perhaps after a while."""
        if self._state != _HANDSHAKE or self._response is None:
            return  # the socket is gone, or was given up
        now = self._hub.clock.read()
        if isinstance(decision, Admitted):
            try:
                self._open(decision, self._response, now)
            except UnknownTopic:
                self._refuse(busy("kafka_down", "the event log is not ready: try again"), now)
        else:
            self._refuse(decision, now)
        self._flush(now)

    def _open(self, admitted: Admitted, response: Response, now: Instant) -> None:
        hub, settings, websocket = self._hub, admitted.settings, self._websocket
        assert websocket is not None
        self.subprotocol = admitted.subprotocol
        self.security_profile = admitted.security_profile
        self.connected_at_ms = now.unix_ms
        self._connection = hub.connect(self, admitted, now)
        if settings.max_frame_bytes is not None:
            self._max_bytes = websocket.max_message_size = min(settings.max_frame_bytes, MAX_FRAME_BYTES)
        if settings.ping_interval_seconds is not None:
            self._ping_interval = float(settings.ping_interval_seconds)
        response.headers["Sec-WebSocket-Protocol"] = admitted.subprotocol
        websocket.send_response(response)
        self._response = None
        self._state = _OPEN
        self._heard = now.monotonic
        hub.metrics.handshakes["accepted"] += 1
        hub.publish_connected(self, self._connection.identity, now)

    def _refuse(self, refusal: Refusal, now: Instant) -> None:
        websocket = self._websocket
        if websocket is None:
            return
        self._count_refusal(refusal.outcome, refusal.status, now)
        response = websocket.reject(refusal.status, refusal.text + "\n")
        for name, value in refusal.headers.items():
            response.headers[name] = value
        if refusal.retry:
            seconds = self._hub.config.retry_after_seconds
            response.headers["Retry-After"] = str(seconds + random.randrange(seconds + 1))  # noqa: S311 - jitter
        self._send_response(response)

    def _send_response(self, response: Response) -> None:
        if self._websocket is not None:
            self._websocket.send_response(response)
            self._begin_closing()

    def _count_refusal(self, outcome: str, status: int, now: Instant) -> None:
        self._hub.metrics.handshakes[outcome] += 1
        if self._hub.should_log(self.station_id or self.address, outcome, now):
            extra = {"station_id": self.station_id, "address": self.address, "outcome": outcome, "status": status}
            logger.warning("refused a handshake", extra=extra)

    # Messages

    def _receive_pieces(
        self, connection: StationConnection, websocket: ServerProtocol, data: bytes, now: Instant
    ) -> None:
        """Take whatever is not exactly one text message."""
        websocket.receive_data(data)
        for event in websocket.events_received():
            if type(event) is Frame:
                self._receive_frame(connection, event, now)
        # Nothing is left in its buffer, and no message has begun.
        self._is_between_messages = not websocket.reader.buffer and websocket.current_size is None
        self._flush(now)

    def _receive_frame(self, connection: StationConnection, frame: Frame, now: Instant) -> None:
        opcode, text = frame.opcode, bytes(frame.data)
        if opcode is _BINARY:
            connection.receive_binary(text, now)
            return
        if opcode is _CONTINUATION or (opcode is _TEXT and not frame.fin):
            # A message in fragments; websockets bounds their sum.
            if self._fragments is None:
                self._fragments = []
            self._fragments.append(text)
            if not frame.fin:
                return
            text, self._fragments = b"".join(self._fragments), None
        elif opcode is not _TEXT:
            return  # a ping, which websockets answers, a pong, or a close
        metrics = self._hub.metrics
        metrics.frames_received += 1
        metrics.bytes_received += len(text)
        connection.receive_text(text, now)

    def receive_outbound(self, message: dict[str, object], now: Instant) -> None:
        """Hand an outbound message to the connection and send what follows from it."""
        if self._connection is not None:
            self._connection.receive_outbound(message, now)
            self._flush(now)

    # Writing

    def _flush(self, now: Instant) -> None:
        """Produce and send whatever is waiting."""
        websocket, connection = self._websocket, self._connection
        if websocket is None:
            return
        writes = websocket.data_to_send()  # a pong, the answer to a handshake, or a close
        if connection is None:
            if websocket.handshake_exc is not None and self._state == _HANDSHAKE:
                self._note_bad_request(websocket, writes, now)
        elif writes and self._state == _OPEN and websocket.state is not State.OPEN:
            self._note_closing(connection, websocket, now)
        if writes:
            self._write(writes)
        if connection is not None:
            self._flush_connection(connection, websocket, now)

    def _flush_connection(self, connection: StationConnection, websocket: ServerProtocol, now: Instant) -> None:
        self._publish(connection, now)
        if self._state != _OPEN:
            return
        frames = connection.frames_to_send()
        if frames:
            self._send(frames)
        close = connection.close_to_send()
        if close is not None:
            self._begin_closing()
            websocket.send_close(_sendable(close[0]), _shortened(close[1]))
            self._write(websocket.data_to_send())

    def _publish(self, connection: StationConnection, now: Instant) -> None:
        produce = self._hub.produce
        for record in connection.records_to_publish():
            try:
                produce(record)
            except RecordTooLarge as error:
                self._give_up(connection, record, error, now)

    def _give_up(self, connection: StationConnection, record: Publication, error: Exception, now: Instant) -> None:
        logger.error("a record is too large for Kafka", extra={"topic": record.topic, "error": str(error)})
        connection.refuse_record(record, now)
        for malformed in connection.records_to_publish():
            self._hub.produce(malformed)

    def _send(self, frames: list[bytes]) -> None:
        metrics = self._hub.metrics
        for frame in frames:
            metrics.frames_sent += 1
            metrics.bytes_sent += len(frame)
        self._write([text_frame(frame) for frame in frames])

    def _note_closing(self, connection: StationConnection, websocket: ServerProtocol, now: Instant) -> None:
        """The WebSocket is closing: by us, by the station, or because of what the station sent."""
        self._begin_closing()
        error = websocket.parser_exc
        if isinstance(error, PayloadTooBig):
            connection.receive_oversize(error.size or 0, websocket.max_message_size or 0, now)
            self._publish(connection, now)
        connection.request_close(1000, "")

    def _note_bad_request(self, websocket: ServerProtocol, writes: list[bytes], now: Instant) -> None:
        """What came is no HTTP. websockets answers over-long headers itself, and ends the rest without a word."""
        if websocket.handshake_exc is not None and isinstance(websocket.handshake_exc.__cause__, EOFError):
            self._hub.metrics.handshakes["closed_early"] += 1  # as the health checks of load balancers do
        else:
            self._count_refusal("not_http", 400, now)
        self._begin_closing()
        if writes == [SEND_EOF]:
            writes.insert(0, _NOT_HTTP)

    def _write(self, writes: list[bytes]) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        ends = writes[-1] == SEND_EOF
        data = writes[0] if len(writes) == 1 else b"".join(writes)
        if data:
            transport.write(data)
        if ends:
            if transport.can_write_eof():
                transport.write_eof()
            else:
                transport.close()

    def _begin_closing(self) -> None:
        if self._state in (_HANDSHAKE, _OPEN):
            self._state = _CLOSING
            self._closing_since = self._hub.clock.read().monotonic

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake; a socket that has no connection yet is refused."""
        now = self._hub.clock.read()
        if self._connection is not None:
            self._connection.request_close(code, reason)
        elif self._state == _HANDSHAKE:
            self._refuse(busy("draining", "this edge is stopping: connect again"), now)
        self._flush(now)

    def abort(self) -> None:
        """End the socket at once."""
        self._begin_closing()
        if self._transport is not None:
            self._transport.abort()

    # Back-pressure

    def _pause(self, why: int) -> None:
        if self._paused & why or self._transport is None:
            return
        if not self._paused and not self._transport.is_closing():
            self._transport.pause_reading()
        self._paused |= why
        if why == _BY_HUB:
            self._hub.pause(self)

    def _resume(self, why: int) -> None:
        if not self._paused & why:
            return
        self._paused &= ~why
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def resume_after_backpressure(self) -> None:
        """Kafka, or the loop, has caught up."""
        # Whatever it was silent about meanwhile, we would not have heard.
        self._heard = self._hub.clock.read().monotonic
        self._resume(_BY_HUB)

    # Time

    def sweep(self, now: Instant) -> None:
        """Do what has come due: timeouts, pings, late answers. About once a second."""
        config = self._hub.config
        if self._state == _OPEN:
            self._sweep_open(now)
        elif self._state == _HANDSHAKE:
            if now.monotonic - self._opened > config.open_timeout_seconds:
                self._refuse(Refusal(408, "timeout", "the opening handshake took too long"), now)
                self._flush(now)
        elif now.monotonic - self._closing_since > config.close_timeout_seconds and self._transport is not None:
            self._transport.abort()

    def _sweep_open(self, now: Instant) -> None:
        connection, config = self._connection, self._hub.config
        assert connection is not None
        if self._paused & _BY_WRITES and now.monotonic - self._write_paused_since > config.write_timeout_seconds:
            connection.request_close(1008, "the station does not read what is sent to it")
            self.abort()
            return
        silent = now.monotonic - self._heard
        if silent > self._ping_interval and self._ping_interval and not self._paused:
            self._ping(connection, silent, now)
        if connection.waits:
            connection.sweep(now)
            self._flush(now)

    def _ping(self, connection: StationConnection, silent: float, now: Instant) -> None:
        """Ping a station that has been silent for so long, or give it up."""
        if silent > self._ping_interval + self._hub.config.ping_timeout_seconds:
            connection.request_close(1006, "no answer to a ping")
            self.abort()
        elif not self._pinged and self._websocket is not None:
            self._pinged = True
            self._hub.metrics.pings += 1
            self._websocket.send_ping(b"")
            self._flush(now)

    def _how_it_closed(self, exc: Exception | None) -> tuple[int, str]:
        """Close code and reason for `csms.connections`."""
        connection, websocket = self._connection, self._websocket
        if connection is None or websocket is None:
            return 0, ""
        metrics = self._hub.metrics
        ours = connection.close_to_send()
        received, sent = websocket.close_rcvd, websocket.close_sent
        if received is not None and not (sent is not None and websocket.close_rcvd_then_sent is False):
            metrics.closes[_label(received.code), "station"] += 1
            return received.code, received.reason
        if sent is not None:
            metrics.closes[_label(sent.code), "edge"] += 1
            return sent.code, sent.reason
        reason = ours[1] if ours is not None and ours[1] else f"the connection was lost{f': {exc}' if exc else ''}"
        metrics.closes["1006", "nobody" if ours is None else "edge"] += 1
        return 1006, reason


class _Websocket(ServerProtocol):
    """Leaves the subprotocol to the door, which knows the station's pin."""

    def select_subprotocol(self, subprotocols: object) -> None:
        return None


def _sendable(code: int) -> int:
    """A close code that may be sent. Spec: RFC 6455 §7.4."""
    return code if code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013) or 3000 <= code < 5000 else 1000


def _shortened(reason: str) -> str:
    """A reason of at most 123 bytes. Spec: RFC 6455 §5.5."""
    return reason.encode()[:123].decode("utf-8", "ignore")


def _label(code: int) -> str:
    try:
        return str(CloseCode(code).value)
    except ValueError:
        return "other"
