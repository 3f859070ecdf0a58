"""One station's connection, without I/O: fed frames and outbound messages, drained of frames and records.

It keeps the one-CALL rule towards the station, matches answers in both directions, remembers the last answers for
CALLs that come again, and gives the late answer of rule 9. It never raises for what a station may send.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from busbar.avro import InvalidAvro
from busbar.ocpp.actions import is_known
from busbar.ocpp.errors import FrameError, OcppError, Problem, calls_for_answer, error_code
from busbar.ocpp.frames import (
    UNREADABLE_MESSAGE_ID,
    Call,
    CallError,
    CallResult,
    CallResultError,
    Frame,
    Send,
    call_bytes,
    call_error_bytes,
    call_result_bytes,
    call_result_error_bytes,
    parse_frame,
)
from busbar.ocpp.repair import LOSSY, remove_nul, repair_frame, repair_request, repair_response
from busbar.ocpp.validation import validate_response
from busbar.ocpp.versions import Version
from services.edge.clock import Instant
from services.edge.commands import Command, CommandQueue, command_of
from services.edge.metrics import EdgeMetrics
from services.edge.records import (
    MAX_MALFORMED_TEXT,
    Identity,
    Malformed,
    Publication,
    command_record,
    malformed_record,
    without_nul,
)
from services.edge.routes import Route

logger = logging.getLogger(__name__)

MAX_PENDING_CALLS = 64
"""Of a station that does not wait for its answers; the oldest is given up."""
STORED_ANSWERS = 4
GIVE_UP_SECONDS = 600.0
"""After so long nobody waits for an answer any more, neither the station nor we."""

_SPEC_VERSION = ("ce_specversion", b"1.0")


class PendingCall:
    """A CALL of the station that has no answer yet."""

    __slots__ = ("durable", "fingerprint", "message_id", "received", "route")

    def __init__(self, message_id: str, route: Route, received: float, fingerprint: int) -> None:
        self.message_id = message_id
        self.route = route
        self.received = received
        self.fingerprint = fingerprint
        self.durable = False

    def mark_durable(self) -> None:
        """Kafka has acknowledged the event: from now on a late answer loses nothing (rule 9)."""
        self.durable = True


@dataclass(frozen=True, slots=True)
class ConnectionRules:
    """Time limits, the same for all connections of an edge."""

    late_seconds: float = 20.0
    call_timeout_seconds: float = 30.0


class StationConnection:
    """The protocol with one station.

    Args:
        routes: Of the negotiated version, by action.
        trace: 16 random hexadecimal digits, the beginning of all trace ids of this connection.
        source: CloudEvents' `ce_source`, such as `/edges/edge-0/stations/CP1`.
    """

    __slots__ = (
        "_answers",
        "_close",
        "_commands",
        "_frames",
        "_metrics",
        "_pending",
        "_records",
        "_rejected",
        "_routes",
        "_rules",
        "_sequence",
        "_source",
        "_trace",
        "_warned",
        "identity",
    )

    def __init__(
        self,
        identity: Identity,
        routes: Mapping[str, Route],
        metrics: EdgeMetrics,
        rules: ConnectionRules,
        *,
        trace: bytes,
        source: bytes,
    ) -> None:
        self.identity = identity
        self._routes = routes
        self._metrics = metrics
        self._rules = rules
        self._trace = trace
        self._source = ("ce_source", source)
        self._sequence = 0
        self._pending: dict[str, PendingCall] = {}
        self._answers: dict[str, tuple[int, bytes]] | None = None
        self._commands: CommandQueue | None = None
        self._records: list[Publication] = []
        self._frames: list[bytes] = []
        self._close: tuple[int, str] | None = None
        self._rejected = False
        self._warned = False

    # What the shell takes out

    def records_to_publish(self) -> list[Publication]:
        """What is to be produced, in order. Empties it."""
        records = self._records
        if records:
            self._records = []
        return records

    def frames_to_send(self) -> list[bytes]:
        """What is to be sent to the station, in order, as UTF-8. Empties it."""
        frames = self._frames
        if frames:
            self._frames = []
        return frames

    def close_to_send(self) -> tuple[int, str] | None:
        """The WebSocket close code and reason, once the connection is to be closed."""
        return self._close

    @property
    def waits(self) -> bool:
        """Whether something may come due, so that `sweep` is worth a call."""
        return bool(self._pending) or (self._commands is not None and self._commands.outstanding is not None)

    # Frames of the station

    def receive_text(self, text: bytes, now: Instant) -> None:
        """Take a text message. Whatever it holds, nothing is raised."""
        if self._close is not None:
            return
        try:
            frame = parse_frame(text)
        except FrameError as error:
            repaired = repair_frame(text)
            if repaired is None:
                self._refuse_frame(text, error, now)
                return
            frame, name = repaired
            self._count_repairs([name])
        if type(frame) is Call:
            self._receive_call(frame, text, now)
        else:
            self._receive_other(frame, text, now)

    def _receive_other(self, frame: Frame, text: bytes, now: Instant) -> None:
        match frame:
            case CallResult():
                self._receive_result(frame, text, now)
            case CallError():
                self._receive_error(frame, now)
            case Send():
                self._receive_send(frame, text, now)
            case CallResultError():
                self._receive_result_error(frame, text, now)

    def receive_binary(self, data: bytes, now: Instant) -> None:
        """Refuse a binary message: OCPP-J messages are text."""
        shown = data[: MAX_MALFORMED_TEXT // 2].hex()
        self._publish_malformed(Malformed(shown, len(data), self._code(Problem.UNREADABLE), "a binary message"), now)
        self.request_close(1003, "OCPP messages are text")

    def receive_oversize(self, size: int, limit: int, now: Instant) -> None:
        """Note a message that was too big to be read; the WebSocket layer has closed with 1009."""
        description = f"a message of more than {limit} bytes"
        self._publish_malformed(Malformed("", size, self._code(Problem.UNREADABLE), description), now)
        self.request_close(1009, description)

    def _receive_call(self, call: Call, text: bytes, now: Instant) -> None:
        route = self._routes.get(call.action)
        if route is None or route.send:
            self._refuse_action(call, text, now)
            return
        if self._rejected and call.action != "BootNotification":
            # OCPP 2.0.1 Part 2, B03.FR.07: until a BootNotification is accepted, anything else is a SecurityError.
            code = self._code(Problem.SECURITY)
            self._refuse(call, text, now, code, "the last BootNotification was rejected")
        elif route.answered_here:
            if self._publish_call(route, call, text, now, None):
                answer = b'[3,%b,{"currentTime":"%b"}]' % (orjson.dumps(call.message_id), now.text.encode())
                self._frames.append(answer)
                route.counts.answered += 1
        else:
            self._forward_call(route, call, text, now)

    def _forward_call(self, route: Route, call: Call, text: bytes, now: Instant) -> None:
        """Publish a CALL that its owner will answer, unless it is one that came before."""
        message_id, fingerprint = call.message_id, hash(text)
        if self._is_resent(message_id, fingerprint, route):
            return
        pending = PendingCall(message_id, route, now.monotonic, fingerprint)
        if self._publish_call(route, call, text, now, pending):
            if message_id in self._pending:
                self._give_up(message_id)
            elif len(self._pending) >= MAX_PENDING_CALLS:
                self._give_up(next(iter(self._pending)))
            self._pending[message_id] = pending

    def _is_resent(self, message_id: str, fingerprint: int, route: Route) -> bool:
        """Whether the very same CALL came before; if it was answered, that answer goes out again.

        Some stations use one message id for all their CALLs: the content has to be the same as well.
        """
        pending = self._pending.get(message_id)
        if pending is not None and pending.fingerprint == fingerprint:
            route.counts.joined += 1  # the answer that is on its way answers this one too
            return True
        if self._answers is None or message_id not in self._answers:
            return False
        known, answer = self._answers[message_id]
        if known != fingerprint:
            return False
        route.counts.resent += 1
        self._frames.append(answer)
        return True

    def _publish_call(
        self, route: Route, call: Call | Send, text: bytes, now: Instant, pending: PendingCall | None
    ) -> bool:
        """Check a CALL or SEND and hand it to the log, unless it has to be refused."""
        payload = call.payload
        # A NUL in a string is legal JSON, and nothing behind us can store it.
        if b"\\" in text and b"\\u0000" in text:
            payload = remove_nul(payload)
            self._count_repairs(["nul-removed"])
        if not route.is_valid(payload) and not self._repair(route, call, payload, text, now):
            return False
        identity, sequence = self.identity, self._sequence + 1
        try:
            value = route.encode(identity.prefix, sequence, call.message_id, now.unix_ms, payload)
        except InvalidAvro as error:
            logger.error(
                "a valid payload could not be encoded",
                extra={"station_id": identity.station_id, "action": route.action, "error": str(error)[:200]},
            )
            code = self._code(Problem.INTERNAL)
            self._refuse(call, text, now, code, "the payload could not be recorded")
            return False
        self._sequence = sequence
        route.counts.received += 1
        headers = (
            ("traceparent", b"00-%b%016x-%016x-01" % (self._trace, sequence, sequence)),
            ("ce_id", b"%b:%d" % (self._trace, sequence)),
            route.type_header,
            self._source,
            _SPEC_VERSION,
        )
        self._records.append(
            Publication(route.topic, identity.partition, identity.key, value, now.unix_ms, headers, pending)
        )
        return True

    def _repair(self, route: Route, call: Call | Send, payload: dict[str, Any], text: bytes, now: Instant) -> bool:
        """Whether a payload that did not validate is fit to be published after the known repairs."""
        try:
            names = repair_request(self.identity.version, route.action, payload)
        except OcppError as error:
            route.counts.invalid += 1
            self._refuse(call, text, now, error.code, error.description)
            return False
        self._count_repairs(names)
        if not LOSSY.isdisjoint(names):
            description = f"repaired: {', '.join(names)}"
            self._note(text, now, self._code(Problem.PROPERTY), description, call.message_id, call.action)
        return True

    def _receive_send(self, send: Send, text: bytes, now: Instant) -> None:
        """OCPP 2.1 Part 4 §4.2.4: a SEND is never answered."""
        if self.identity.version is not Version.V21:
            self._refuse_frame(text, _unsupported_type(6, send.message_id), now)
            return
        route = self._routes.get(send.action)
        if route is None or not route.send:
            self._refuse_action(send, text, now)
        else:
            self._publish_call(route, send, text, now, None)

    def _receive_result(self, result: CallResult, text: bytes, now: Instant) -> None:
        commands, payload = self._commands, result.payload
        if b"\\" in text and b"\\u0000" in text:
            payload = remove_nul(payload)
        if commands is None or commands.outstanding is None or not commands.answers(result.message_id):
            self._report_late(result.message_id, now, payload=orjson.dumps(payload).decode())
            return
        error = self._check_response(commands.outstanding.action, payload)
        json_text = orjson.dumps(payload).decode()
        if error is None:
            self._finish_command(commands, "answered", now, payload=json_text)
            return
        self._note(text, now, error.code, error.description, result.message_id, commands.outstanding.action)
        if self.identity.version is Version.V21:
            self._frames.append(call_result_error_bytes(result.message_id, error.code, error.description))
        description = f"the station's answer is not valid: {error.description}"
        self._finish_command(
            commands, "error", now, payload=json_text, error_code=error.code, error_description=description
        )

    def _check_response(self, action: str, payload: dict[str, Any]) -> OcppError | None:
        try:
            validate_response(self.identity.version, action, payload)
        except OcppError:
            try:
                self._count_repairs(repair_response(self.identity.version, action, payload))
            except OcppError as error:
                return error
        return None

    def _receive_error(self, error: CallError, now: Instant) -> None:
        commands = self._commands
        fields = {
            "error_code": without_nul(error.code),
            "error_description": without_nul(error.description),
            "error_details": orjson.dumps(remove_nul(error.details)).decode() if error.details else "",
        }
        if commands is None or not commands.answers(error.message_id):
            self._report_late(error.message_id, now, **fields)
        else:
            self._finish_command(commands, "error", now, **fields)

    def _receive_result_error(self, frame: CallResultError, text: bytes, now: Instant) -> None:
        """OCPP 2.1 Part 4 §4.2.3: the station could not use an answer of ours. There is no answer to that."""
        if self.identity.version is Version.V21:
            description = f"the station refused an answer: {without_nul(frame.code)}"
            self._note(text, now, "CallResultError", description, frame.message_id)
        else:
            self._refuse_frame(text, _unsupported_type(5, frame.message_id), now)

    # Refusals

    def _refuse_action(self, call: Call | Send, text: bytes, now: Instant) -> None:
        """NotImplemented: nobody knows the action. NotSupported: it is known, but not in this version or direction."""
        if not is_known(call.action):
            problem, description = Problem.UNKNOWN_ACTION, "OCPP has no action of this name"
        elif call.action in self._routes:
            how = "with message type 6" if isinstance(call, Call) else "as a CALL"
            problem, description = Problem.UNSUPPORTED_ACTION, f"{call.action} is sent {how}"
        else:
            version = self.identity.version
            problem, description = (
                Problem.UNSUPPORTED_ACTION,
                f"in OCPP {version} stations do not send {call.action}",
            )
        self._refuse(call, text, now, self._code(problem), description)

    def _refuse(self, call: Call | Send, text: bytes, now: Instant, code: str, description: str) -> None:
        if isinstance(call, Call):
            self._frames.append(call_error_bytes(call.message_id, code, description))
        self._note(text, now, code, description, call.message_id, call.action)

    def _refuse_frame(self, text: bytes, error: FrameError, now: Instant) -> None:
        code, commands = self._code(error.problem), self._commands
        if calls_for_answer(self.identity.version, error):
            message_id = error.message_id or UNREADABLE_MESSAGE_ID
            self._frames.append(call_error_bytes(message_id, code, error.description))
        elif error.message_id and commands is not None and commands.answers(error.message_id):
            description = f"the station's answer cannot be read: {error.description}"
            self._finish_command(commands, "error", now, error_code=code, error_description=description)
        self._note(text, now, code, error.description, error.message_id or "")

    def refuse_record(self, record: Publication, now: Instant) -> None:
        """A record was too large for Kafka: its CALL is answered with an error, for it will never be durable."""
        call = record.call
        if isinstance(call, PendingCall) and self._pending.get(call.message_id) is call:
            del self._pending[call.message_id]
            call.route.counts.errors += 1
            description = "the message is too large to be recorded"
            self._frames.append(call_error_bytes(call.message_id, self._code(Problem.INTERNAL), description))
        self._note(b"", now, self._code(Problem.INTERNAL), f"a record for {record.topic} is too large")

    def _code(self, problem: Problem) -> str:
        return error_code(self.identity.version, problem)

    def _note(
        self, text: bytes, now: Instant, code: str, description: str, message_id: str = "", action: str = ""
    ) -> None:
        shown = text[:MAX_MALFORMED_TEXT].decode("utf-8", "replace")
        self._publish_malformed(Malformed(shown, len(text), code, description, message_id, action), now)

    def _publish_malformed(self, what: Malformed, now: Instant) -> None:
        identity = self.identity
        self._metrics.malformed[identity.version.value, what.code] += 1
        if not self._warned:
            self._warned = True  # one line a connection: a station may go on for ever
            extra = {"station_id": identity.station_id, "message_id": what.message_id, "code": what.code}
            logger.warning("refused a frame: %s", what.description, extra=extra)
        self._records.append(malformed_record(identity, self._sequence, what, now))

    def _count_repairs(self, names: list[str]) -> None:
        for name in names:
            self._metrics.repairs[self.identity.version.value, name] += 1

    # Outbound messages

    def receive_outbound(self, message: Mapping[str, Any], now: Instant) -> None:
        """Take a record of `csms.outbound` that is addressed to this connection.

        Args:
            message: The fields of `csms.OutboundMessage`.
        """
        kind = message["kind"]
        if kind == "call":
            self._receive_command(command_of(message), now)
        elif self._close is not None:
            self._metrics.outbound[kind, "closing"] += 1
        elif kind in ("result", "error"):
            self._receive_reply(message, now)
        elif kind == "close":
            self._metrics.outbound[kind, "delivered"] += 1
            self.request_close(message["close_code"] or 1000, message["error_description"])
        else:
            self._metrics.outbound["other", "ignored"] += 1

    def _receive_reply(self, message: Mapping[str, Any], now: Instant) -> None:
        message_id, kind, action = message["message_id"], message["kind"], message["action"]
        pending = self._pending.get(message_id)
        # Of a station that uses one id for all its CALLs, what answers an older one must not answer a newer one.
        if pending is None or (action and action != pending.route.action):
            self._metrics.outbound[kind, "stale"] += 1
            return
        del self._pending[message_id]
        self._metrics.outbound[kind, "delivered"] += 1
        counts = pending.route.counts
        counts.latency.observe(now.monotonic - pending.received)
        if kind == "result":
            counts.answered += 1
            frame = call_result_bytes(message_id, message["payload"])
            if pending.route.action == "BootNotification" and self.identity.version.is_v2:
                self._rejected = _status_of(message["payload"]) == "Rejected"
        else:
            counts.errors += 1
            frame = call_error_bytes(
                message_id, message["error_code"], message["error_description"], message["error_details"]
            )
        self._send_answer(pending, frame)

    def _send_answer(self, pending: PendingCall, frame: bytes) -> None:
        self._frames.append(frame)
        answers = self._answers
        if answers is None:
            answers = self._answers = {}
        elif pending.message_id in answers:
            del answers[pending.message_id]
        elif len(answers) >= STORED_ANSWERS:
            del answers[next(iter(answers))]
        answers[pending.message_id] = (pending.fingerprint, frame)

    def _give_up(self, message_id: str) -> None:
        self._pending.pop(message_id).route.counts.unanswered += 1

    # Commands

    def _receive_command(self, command: Command, now: Instant) -> None:
        if self._commands is None:
            self._commands = CommandQueue()
        if self._commands.knows(command.message_id):
            outcome = "repeated"
        elif self._close is not None or not self._commands.add(command):
            outcome = "undelivered"
            self._commands.refuse(command, now)
            self._report(command, "undelivered", now)
        else:
            outcome = "delivered"
            self._send_next_command(self._commands, now)
        self._metrics.outbound["call", outcome] += 1

    def _send_next_command(self, commands: CommandQueue, now: Instant) -> None:
        command, expired = commands.take_next(now, self._rules.call_timeout_seconds)
        for late in expired:
            self._report(late, "timeout", now, error_description="not sent: the station was busy until then")
        if command is not None:
            self._frames.append(call_bytes(command.message_id, command.action, command.payload))
            self._report(command, "sent", now)

    def _finish_command(self, commands: CommandQueue, stage: str, now: Instant, **fields: str) -> None:
        """Report the outcome of the CALL that is out, and send the next."""
        self._report(commands.finish(now, timed_out=stage == "timeout"), stage, now, **fields)
        self._send_next_command(commands, now)

    def _report_late(self, message_id: str, now: Instant, **fields: str) -> None:
        """An answer to no CALL that is out: to one that has timed out, or to nothing that we know."""
        action = self._commands.take_late(message_id) if self._commands is not None else ""
        if action:
            self._report(Command(message_id, message_id, action, ""), "late", now, **fields)
        else:
            self._metrics.outbound["answer", "unknown"] += 1

    def _report(self, command: Command, stage: str, now: Instant, **fields: str) -> None:
        self._metrics.commands[stage] += 1
        record = command_record(self.identity, command.command_id, command.action, stage, now, **fields)
        self._records.append(record)

    # Time and the end

    def sweep(self, now: Instant) -> None:
        """Do what has come due: late answers, commands without an answer, CALLs that nobody answers."""
        if self._close is not None:
            return
        if self._pending:
            self._sweep_calls(now)
        commands = self._commands
        if commands is not None and commands.outstanding is not None and now.monotonic >= commands.outstanding.expires:
            self._finish_command(commands, "timeout", now, error_description="the station did not answer")

    def _sweep_calls(self, now: Instant) -> None:
        late_before = now.monotonic - self._rules.late_seconds
        for pending in list(self._pending.values()):
            if pending.received > late_before:
                continue
            if pending.durable and pending.route.has_late_answer:
                del self._pending[pending.message_id]
                payload = orjson.dumps(pending.route.late_answer(now.text)).decode()
                pending.route.counts.late += 1
                self._send_answer(pending, call_result_bytes(pending.message_id, payload))
            elif pending.received <= now.monotonic - GIVE_UP_SECONDS:
                self._give_up(pending.message_id)

    def request_close(self, code: int, reason: str) -> None:
        """Ask the shell to close the WebSocket; from now on the station is not heard."""
        if self._close is None:
            self._close = (code, reason)

    def connection_lost(self, now: Instant) -> None:
        """The socket is gone: fail the command that was sent, and hand back those that were not."""
        self.request_close(1006, "")
        for message_id in list(self._pending):
            self._give_up(message_id)
        commands = self._commands
        if commands is None:
            return
        if commands.outstanding is not None:
            command = commands.finish(now, timed_out=False)
            self._report(command, "disconnected", now, error_description="the connection ended before the answer")
        for command in commands.drain():
            self._report(command, "undelivered", now)


def _unsupported_type(message_type: int, message_id: str) -> FrameError:
    return FrameError(Problem.MESSAGE_TYPE, message_id, f"message type {message_type} is not supported")


def _status_of(payload: str) -> str:
    try:
        return str(orjson.loads(payload).get("status", ""))
    except (orjson.JSONDecodeError, AttributeError):
        return ""
