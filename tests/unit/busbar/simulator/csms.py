"""A CSMS for tests in virtual time: it answers everything, checks every frame, and can command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from busbar.ocpp.frames import Call, CallError, CallResult, Frame, Send, parse_frame, serialize_frame
from busbar.ocpp.times import format_timestamp_ms
from busbar.ocpp.validation import validate_request, validate_response
from busbar.simulator.station import Station

Payload = dict[str, Any]
Answer = Callable[[Payload], Payload]

EPOCH = 1_772_366_400.0
"""2026-03-01T12:00:00Z"""


@dataclass
class VirtualCsms:
    """Holds one station, in virtual time; the network is instant.

    Args:
        answers: In place of the usual answer, by action; an answer of `None` leaves the CALL open.
    """

    station: Station
    answers: dict[str, Callable[[Payload], Payload | None]] = field(default_factory=dict)
    now: float = EPOCH
    calls: list[Call] = field(default_factory=list)
    sends: list[Send] = field(default_factory=list)
    replies: dict[str, Frame] = field(default_factory=dict)
    frames: list[str] = field(default_factory=list)
    reachable: bool = True
    _transactions: int = 0
    _commands: int = 0

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while True:
            self._connect_or_close()
            self.station.step(self.now)
            self._exchange()
            waits = [self.station.due()]
            if not self.station.link.connected and self.station.wants_connection:
                waits.append(self.station.connect_at)
            due = min(waits)
            if due > end:
                break
            self.now = max(self.now, due)
        self.now = end

    def command(self, action: str, payload: Payload) -> Frame:
        """Send a command and return what the station answers."""
        self._commands += 1
        message_id = f"command-{self._commands}"
        self.station.receive(serialize_frame(Call(message_id, action, payload)), self.now)
        self._exchange()
        return self.replies[message_id]

    def drop(self) -> None:
        """The network fails until `reachable` is set again."""
        self.reachable = False
        self.station.closed(self.now)

    def sent(self, action: str) -> list[Payload]:
        return [call.payload for call in self.calls if call.action == action]

    def _connect_or_close(self) -> None:
        station = self.station
        if station.link.connected and station.close_requested:
            station.closed(self.now)
        if not station.link.connected and station.wants_connection and self.now >= station.connect_at:
            if self.reachable:
                station.opened(self.now)
            else:
                station.connect_failed(self.now)

    def _exchange(self) -> None:
        while frames := self.station.frames_to_send():
            for text in frames:
                self.frames.append(text)
                self._take(parse_frame(text))

    def _take(self, frame: Frame) -> None:
        version = self.station.version
        match frame:
            case Call(message_id, action, payload):
                validate_request(version, action, payload, strict=True)
                self.calls.append(frame)
                answer = self.answers.get(action, self._usual(action))(payload)
                if answer is not None:
                    validate_response(version, action, answer, strict=True)
                    self.station.receive(serialize_frame(CallResult(message_id, answer)), self.now)
            case Send(_, action, payload):
                validate_request(version, action, payload, strict=True)
                self.sends.append(frame)
            case CallResult(message_id) | CallError(message_id):
                assert message_id not in self.replies, "a command was answered twice"
                self.replies[message_id] = frame
            case _:
                raise AssertionError(f"a station does not send {frame}")

    def _usual(self, action: str) -> Callable[[Payload], Payload | None]:
        now = format_timestamp_ms(int(self.now * 1000))
        accepted_tag = {"idTagInfo": {"status": "Accepted"}}
        accepted_token = {"idTokenInfo": {"status": "Accepted"}}
        match action:
            case "BootNotification":
                return lambda payload: {"status": "Accepted", "currentTime": now, "interval": 300}
            case "Heartbeat":
                return lambda payload: {"currentTime": now}
            case "Authorize":
                return lambda payload: accepted_tag if "idTag" in payload else accepted_token
            case "StartTransaction":
                self._transactions += 1
                number = self._transactions
                return lambda payload: {**accepted_tag, "transactionId": number}
            case "TransactionEvent":
                return lambda payload: accepted_token if "idToken" in payload else {}
            case "DataTransfer":
                return lambda payload: {"status": "UnknownVendorId"}
            case _:
                return lambda payload: {}
