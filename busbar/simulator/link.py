"""The station's end of the connection: one CALL at a time, and a queue that outlives the connection. No I/O."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from busbar.ocpp.errors import FrameError, OcppError
from busbar.ocpp.frames import Call, CallError, CallResult, CallResultError, Send, parse_frame, serialize_frame
from busbar.ocpp.validation import validate_response
from busbar.ocpp.versions import Version
from busbar.simulator.tally import Tally

Payload = dict[str, Any]
OnAnswer = Callable[[Payload, float], None]
"""Called with the answer's payload and the time."""
OnFailure = Callable[[float], None]
"""Called when no answer will come, with the time."""
MAX_LATENCIES = 200_000


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """Times in seconds of the station's clock."""

    response_timeout_seconds: float = 60.0
    message_attempts: int = 5
    """Spec: OCPP 2.0.1 E13, OCPP 1.6 TransactionMessageAttempts."""
    message_interval_seconds: float = 20.0
    """Between attempts, multiplied by the number of those made."""


@dataclass(slots=True)
class Pending:
    """A CALL that waits for its turn, or for its answer."""

    action: str
    payload: Payload | Callable[[], Payload]
    """A function where the payload depends on an earlier answer, as a `transactionId` of 1.6 does."""
    on_answer: OnAnswer | None
    on_failure: OnFailure | None
    durable: bool
    """Whether it is about a transaction: kept while offline and sent again until it is answered."""
    urgent: bool
    """Whether it may go before the station is accepted: a boot, or what a command has triggered."""
    attempts: int = 0
    not_before: float = -math.inf


class Link:
    """Queues CALLs, sends one at a time, and matches answers.

    Args:
        version: Its schemas judge the answers.
    """

    def __init__(self, station_id: str, version: Version, tally: Tally, settings: LinkSettings) -> None:
        self.connected = False
        self.accepted = False
        """Set by the station once its boot was accepted; until then only urgent CALLs go out."""
        self._station_id = station_id
        self._version = version
        self._tally = tally
        self._settings = settings
        self._waiting: deque[Pending] = deque()
        self._open: Pending | None = None
        self._hushed = False
        self._open_id = ""
        self._open_since = 0.0
        self._counter = 0
        self._frames: list[str] = []

    def call(
        self,
        action: str,
        payload: Payload | Callable[[], Payload],
        on_answer: OnAnswer | None = None,
        on_failure: OnFailure | None = None,
        *,
        durable: bool = False,
        urgent: bool = False,
    ) -> None:
        """Queue a CALL. One that is neither durable nor possible now is dropped, as stations do while offline.

        Args:
            on_failure: Of a CALL that is not durable: a CALLERROR came, or the time is up, or the connection is gone.
        """
        if not self.connected and not durable:
            return
        pending = Pending(action, payload, on_answer, on_failure, durable, urgent)
        if urgent:
            self._waiting.appendleft(pending)
        else:
            self._waiting.append(pending)

    def send(self, action: str, payload: Payload) -> None:
        """Send a SEND of OCPP 2.1: nobody answers it."""
        if self.connected:
            self._tally.sent[action] += 1
            self._frames.append(serialize_frame(Send(self._next_id(), action, payload)))

    def answer(self, message_id: str, payload: Payload) -> None:
        self._frames.append(serialize_frame(CallResult(message_id, payload)))

    def refuse(self, message_id: str, error: OcppError) -> None:
        self._tally.refused_commands[error.code] += 1
        self._frames.append(serialize_frame(CallError(message_id, error.code, error.description, dict(error.details))))

    def opened(self) -> None:
        self.connected = True

    def closed(self, now: float) -> None:
        """The connection is gone: what is about transactions stays queued, the rest is forgotten."""
        self.connected = False
        self._frames.clear()
        if self._open is not None:
            self._tally.unanswered += 1
            self._waiting.appendleft(self._open)
            self._open = None
        forgotten = [pending for pending in self._waiting if not pending.durable]
        self._waiting = deque(pending for pending in self._waiting if pending.durable)
        for pending in forgotten:
            if pending.on_failure is not None:
                pending.on_failure(now)

    def step(self, now: float) -> None:
        """Give up on an overdue answer, and send what comes next."""
        if self._open is not None and now >= self._open_since + self._settings.response_timeout_seconds:
            self._tally.unanswered += 1
            self._try_again(now)
        if self.connected and self._open is None and not self._hushed:
            self._send_next(now)

    def due(self) -> float:
        """When `step` has something to do; infinite if only an answer can change that."""
        if self._open is not None:
            return self._open_since + self._settings.response_timeout_seconds
        if not self.connected or self._hushed:
            return math.inf
        # The first that may go decides: what is about transactions goes in order, and only that is ever put off.
        return next((pending.not_before for pending in self._waiting if self._may_go(pending)), math.inf)

    def frames_to_send(self) -> list[str]:
        """Drain the frames for the socket."""
        frames, self._frames = self._frames, []
        return frames

    def receive(self, text: str, now: float) -> Call | None:
        """Take in a frame; returns it if it is a command that the station has to answer."""
        try:
            frame = parse_frame(text)
        except FrameError as error:
            self._tally.fault(self._station_id, f"unreadable frame: {error.description}")
            return None
        match frame:
            case Call():
                return frame
            case CallResult(message_id, payload):
                self._take_result(message_id, payload, now)
            case CallError(message_id, code, description):
                self._take_error(message_id, code, description, now)
            case CallResultError(_, code, description):
                self._tally.fault(self._station_id, f"our answer was refused: {code} {description}")
            case Send(_, action):
                self._tally.fault(self._station_id, f"SEND {action} from the CSMS")
        return None

    def hush(self) -> None:
        """Send no further CALL: what is open may yet be answered before the connection ends."""
        self._hushed = True

    @property
    def is_asking(self) -> bool:
        """Whether a CALL waits for its answer."""
        return self.connected and self._open is not None

    @property
    def queued(self) -> int:
        """CALLs that wait, the open one included."""
        return len(self._waiting) + (self._open is not None)

    def _take_result(self, message_id: str, payload: Payload, now: float) -> None:
        if self._open is None or message_id != self._open_id:
            self._tally.fault(self._station_id, f"an answer to {message_id!r}, which is not open")
            return
        pending, self._open = self._open, None
        self._note_latency(now)
        try:
            validate_response(self._version, pending.action, payload, strict=True)
        except OcppError as error:
            self._tally.fault(self._station_id, f"the answer to {pending.action}: {error}")
        else:
            self._tally.answered += 1
        if pending.on_answer is not None:
            pending.on_answer(payload, now)

    def _take_error(self, message_id: str, code: str, description: str, now: float) -> None:
        if self._open is None or message_id != self._open_id:
            self._tally.fault(self._station_id, f"a CALLERROR {code} to {message_id!r}, which is not open")
            return
        self._tally.call_errors[code] += 1
        self._tally.fault(self._station_id, f"{self._open.action} was answered with {code}: {description}")
        self._try_again(now)

    def _try_again(self, now: float) -> None:
        """Requeue the open CALL if it is about a transaction and has attempts left. Spec: OCPP 2.0.1 E13."""
        pending, self._open = self._open, None
        if pending is None:
            return
        if not pending.durable:
            if pending.on_failure is not None:
                pending.on_failure(now)
            return
        if pending.attempts >= self._settings.message_attempts:
            self._tally.discarded += 1
            return
        pending.not_before = now + self._settings.message_interval_seconds * pending.attempts
        self._waiting.appendleft(pending)

    def _may_go(self, pending: Pending) -> bool:
        return self.accepted or pending.urgent

    def _send_next(self, now: float) -> None:
        for pending in self._waiting:
            if self._may_go(pending):
                break
        else:
            return
        if pending.not_before > now:
            return  # what is about transactions goes in the order in which it came about
        self._waiting.remove(pending)
        pending.attempts += 1
        payload = pending.payload() if callable(pending.payload) else pending.payload
        self._open, self._open_id, self._open_since = pending, self._next_id(), now
        self._tally.sent[pending.action] += 1
        self._frames.append(serialize_frame(Call(self._open_id, pending.action, payload)))

    def _next_id(self) -> str:
        self._counter += 1
        return f"{self._counter:08x}"

    def _note_latency(self, now: float) -> None:
        if len(self._tally.latencies) < MAX_LATENCIES:
            self._tally.latencies.append(now - self._open_since)
