"""One station, its connections, its owners and the router, all of them unreliable; and a model of what must happen.

One seed is one history. The world feeds `StationConnection`s with everything that reaches one in the field: CALLs, the
same CALL again, another CALL under the same id, garbage, replies that come late, twice, never or for a connection that
has gone, commands with and without deadlines, their answers in every shape, acknowledgements of Kafka in their own
time, orders to close, and sockets that end. `Model` says in plain lists what each step leads to; on top of that the
station and the router keep accounts of their own, which know nothing of the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any

import orjson

from busbar.avro import decode, decode_call
from busbar.ocpp.versions import Version
from services.edge.clock import Instant
from services.edge.connection import ConnectionRules, StationConnection
from services.edge.metrics import EdgeMetrics
from services.edge.records import COMMAND_EVENTS_TOPIC, MALFORMED_TOPIC, Durable, Identity
from services.edge.routes import Route, make_routes
from tests.unit.services.edge.bench import START_MS, outbound

LATE_SECONDS = 20.0
CALL_TIMEOUT_SECONDS = 30.0
GIVE_UP_SECONDS = 600.0
MAX_PENDING = 64
MAX_QUEUED = 256
STORED_ANSWERS = 4
REPEAT_SECONDS = 300
"""A worker of the router dies, and only so much later another produces its last results again."""

TERMINAL = {"answered", "error", "timeout", "disconnected", "undelivered"}
HAS_LATE_ANSWER = {"StatusNotification"}
GARBAGE = (b"", b"{}", b"[]", b"null", b"[2]", b'[2,"g"', b"\xff\xfe", b'[2,"g","Authorize"]', b'[9,"g",{}]')
METRICS = EdgeMetrics()


@cache
def routes(version: Version) -> Mapping[str, Route]:
    """Made once: compiling them takes long."""
    return make_routes(version, METRICS)


@dataclass(slots=True)
class Fact:
    """Something that the station has to say; its number is part of what it says, and of the owner's reply."""

    number: int
    action: str
    message_id: str
    text: bytes
    received: float = 0.0
    durable: bool = False


@dataclass(slots=True)
class Order:
    """A command for one connection."""

    command_id: str
    priority: int
    deadline: float
    """Seconds of the world; 0: none."""
    expires: float = 0.0


class Model:
    """What one connection does about each thing that happens: `frames` and `stages` since the last look.

    Of CALLERRORs that the edge makes itself only type and id are told.
    """

    def __init__(self, version: Version) -> None:
        self.version = version
        self.frames: list[list[Any]] = []
        self.stages: list[tuple[str, str]] = []
        self.published: list[Fact] = []
        self.malformed = 0
        self.pending: list[Fact] = []
        self.answers: list[tuple[Fact, list[Any]]] = []
        self.out: Order | None = None
        self.waiting: list[Order] = []
        self.seen: set[str] = set()
        self.late: set[str] = set()
        self.rejected = self.closing = False

    def call(self, fact: Fact, now: float) -> None:
        if self.closing:
            return
        if self.rejected and fact.action != "BootNotification":
            self.refuse(fact.message_id)
        elif fact.action == "Heartbeat":
            self.published.append(fact)
            self.frames.append([3, fact.message_id])
        elif any(known.text == fact.text for known in self.pending):
            pass  # the answer to the first is the answer to this one
        elif any(known.text == fact.text for known, _ in self.answers):
            self.frames.append(next(frame for known, frame in self.answers if known.text == fact.text))
        else:
            self.published.append(fact)
            self.pending = [known for known in self.pending if known.message_id != fact.message_id]
            self.pending = [*self.pending[-MAX_PENDING + 1 :], fact]
            fact.received = now

    def refuse(self, message_id: str) -> None:
        self.frames.append([4, message_id])
        self.malformed += 1

    def reply(self, message: Mapping[str, Any]) -> None:
        if self.closing:
            return
        for fact in self.pending:
            if (fact.message_id, fact.action) == (message["message_id"], message["action"]):
                if message["kind"] == "error":
                    self.answer(fact, [4, fact.message_id, message["error_code"], message["error_description"], {}])
                    return
                payload = orjson.loads(message["payload"])
                if fact.action == "BootNotification" and self.version is not Version.V16:
                    self.rejected = payload["status"] == "Rejected"
                self.answer(fact, [3, fact.message_id, payload])
                return

    def answer(self, fact: Fact, frame: list[Any]) -> None:
        self.pending.remove(fact)
        self.frames.append(frame)
        kept = [(known, stored) for known, stored in self.answers if known.message_id != fact.message_id]
        self.answers = [*kept, (fact, frame)][-STORED_ANSWERS:]

    def order(self, order: Order, now: float) -> None:
        if order.command_id in self.seen:
            return
        self.seen.add(order.command_id)
        if self.closing or len(self.waiting) >= MAX_QUEUED:
            self.stages.append((order.command_id, "undelivered"))
            return
        self.waiting.append(order)
        self.waiting.sort(key=lambda each: -each.priority)  # stable: in order of arrival
        self.next_order(now)

    def next_order(self, now: float) -> None:
        while self.out is None and self.waiting:
            order = self.waiting.pop(0)
            order.expires = now + CALL_TIMEOUT_SECONDS
            if order.deadline:
                order.expires = min(order.expires, order.deadline)
            if order.expires <= now:
                self.stages.append((order.command_id, "timeout"))
                continue
            self.out = order
            self.frames.append([2, order.command_id])
            self.stages.append((order.command_id, "sent"))

    def command_answer(self, command_id: str, shape: str, now: float) -> None:
        if self.closing:
            return
        if self.out is None or self.out.command_id != command_id:
            self.malformed += shape == "unreadable"
            if command_id in self.late and shape != "unreadable":
                self.late.remove(command_id)
                self.stages.append((command_id, "late"))
            return
        if shape == "wrong" and self.version is Version.V21:
            self.frames.append([5, command_id])
        self.malformed += shape in ("unreadable", "wrong")
        self.finish("answered" if shape == "right" else "error", now)

    def finish(self, stage: str, now: float) -> None:
        assert self.out is not None
        self.stages.append((self.out.command_id, stage))
        if stage == "timeout":
            self.late.add(self.out.command_id)
        self.out = None
        self.next_order(now)

    def garbage(self, text: bytes) -> None:
        if self.closing:
            return
        self.malformed += 1
        has_id = b'"g"' in text
        if self.version is Version.V16:
            if has_id and not text.startswith(b"[9"):
                self.frames.append([4, "g"])
        else:
            self.frames.append([4, "g" if has_id else "-1"])

    def sweep(self, now: float) -> None:
        if self.closing:
            return
        for fact in list(self.pending):
            if fact.received <= now - LATE_SECONDS and fact.durable and fact.action in HAS_LATE_ANSWER:
                self.answer(fact, [3, fact.message_id, {}])
            elif fact.received <= now - GIVE_UP_SECONDS:
                self.pending.remove(fact)
        if self.out is not None and self.out.expires <= now:
            self.finish("timeout", now)

    def end(self) -> None:
        self.closing = True
        self.pending = []
        if self.out is not None:
            self.stages.append((self.out.command_id, "disconnected"))
        self.stages += [(order.command_id, "undelivered") for order in self.waiting]
        self.out, self.waiting = None, []


@dataclass(slots=True)
class Link:
    """A connection, its model, and the station's account of it."""

    connection_id: str
    connection: StationConnection
    model: Model
    facts: dict[int, Fact] = field(default_factory=dict)
    sendings: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    last_answer: dict[bytes, bytes] = field(default_factory=dict)
    """By the CALL's text: what answered it."""
    commands: list[tuple[str, float]] = field(default_factory=list)
    """CALLs that the station got, and until when it may answer."""
    sequence: int = 0
    records: list[tuple[Fact, Durable]] = field(default_factory=list)
    """What Kafka has not acknowledged."""
    ended: bool = False


class World:
    """One history of one station."""

    def __init__(self, seed: int, steps: int = 70) -> None:
        self.random = Random(seed)
        self.version = self.random.choice(list(Version))
        self.steps = steps
        self.ids = ["1"] if self.random.random() < 0.15 else [f"m{number}" for number in range(8)]
        """A station that has used up its ids begins again; some have one id only."""
        self.seconds = 0.0
        self.links: list[Link] = []
        self.mail: list[tuple[float, str, dict[str, Any]]] = []
        """Records of `csms.outbound` on their way."""
        self.ordered: set[str] = set()
        self.outcomes: Counter[str] = Counter()
        self.last: tuple[Link, Fact] | None = None
        self.count = 0
        self.log: list[str] = []
        self.connect()

    @property
    def now(self) -> Instant:
        return Instant.at(START_MS + round(self.seconds * 1000), 1000.0 + self.seconds)

    def run(self) -> None:
        """Live through the history to its end; every account must balance then."""
        acts = (
            (self.say, 22), (self.say_again, 8), (self.pass_time, 20), (self.acknowledge, 14), (self.order, 10),
            (self.answer, 12), (self.disturb, 5), (self.connect, 2), (self.hang_up, 3), (self.close, 1),
            (self.talk_on, 0.15), (self.flood, 0.05),
        )  # fmt: skip
        chosen = self.random.choices([act for act, _ in acts], [weight for _, weight in acts], k=self.steps)
        for act in chosen:
            self.log.append(f"{self.seconds:.2f} {act.__name__}")
            act()
        while self.mail:
            self.pass_time()
        for link in self.links:
            self.end(link)
        assert self.outcomes.keys() == self.ordered, "every command has an outcome"
        assert set(self.outcomes.values()) <= {1}, "no command has two"

    # The station

    def connect(self) -> None:
        """A new connection; the older one may linger."""
        if self.links and self.random.random() < 0.5:
            self.end(self.links[-1])
        number = len(self.links)
        identity = Identity("CP1", f"c-{number}", "edge-0", 3, self.version, 2)
        connection = StationConnection(
            identity,
            routes(self.version),
            METRICS,
            ConnectionRules(LATE_SECONDS, CALL_TIMEOUT_SECONDS),
            trace=b"0123456789abcdef",
            source=b"/edges/edge-0/stations/CP1",
        )
        self.links.append(Link(identity.connection_id, connection, Model(self.version)))

    def say(self) -> None:
        """A new CALL, whether or not the one before was answered."""
        self.count += 1
        action = self.random.choice(
            ("Heartbeat", "Authorize", "StatusNotification", "DataTransfer", "BootNotification")
        )
        message_id = self.random.choice(self.ids)
        call = [2, message_id, action, _payload(self.version, action, self.count)]
        self.send(self.links[-1], Fact(self.count, action, message_id, orjson.dumps(call)))

    def say_again(self) -> None:
        """The last CALL once more: its answer went astray, says the station."""
        if self.last is not None:
            link, fact = self.last
            self.send(link if self.random.random() < 0.8 else self.links[-1], fact)

    def send(self, link: Link, fact: Fact) -> None:
        if link.ended:
            return
        again = Fact(fact.number, fact.action, fact.message_id, fact.text)
        self.last = link, again
        link.facts.setdefault(again.number, again)
        link.sendings[again.message_id] += 1
        link.model.call(again, self.seconds)
        link.connection.receive_text(again.text, self.now)
        self.look(link)

    def talk_on(self) -> None:
        """A station that does not wait for its answers."""
        for number in range(MAX_PENDING + 6):
            self.count += 1
            message_id = f"t{number}"
            call = [2, message_id, "Authorize", _payload(self.version, "Authorize", self.count)]
            self.send(self.links[-1], Fact(self.count, "Authorize", message_id, orjson.dumps(call)))

    def disturb(self) -> None:
        link = self.random.choice(self.links)
        text = self.random.choice(GARBAGE)
        if not link.ended:
            if b'"g"' in text:
                link.sendings["g"] += 1
            link.sendings["-1"] += 1
            link.model.garbage(text)
            link.connection.receive_text(text, self.now)
            self.look(link)

    def answer(self) -> None:
        """An answer to a command: to the one that is out, to an older one, to none; right, wrong, twice."""
        link = self.random.choice(self.links)
        if link.ended:
            return
        command_id = self.random.choice(link.commands)[0] if link.commands and self.random.random() < 0.3 else "nobody"
        if link.commands and self.random.random() < 0.8:
            command_id = link.commands[-1][0]
        shape = self.random.choice(("right", "right", "wrong", "error", "unreadable"))
        frame: list[Any] = {
            "right": [3, command_id, {"status": "Accepted"}],
            "wrong": [3, command_id, {"status": {}}],
            "error": [4, command_id, "GenericError", "", {}],
            "unreadable": [3, command_id],
        }[shape]
        for _ in range(self.random.choice((1, 1, 1, 2))):
            link.model.command_answer(command_id, shape, self.seconds)
            link.connection.receive_text(orjson.dumps(frame), self.now)
            link.commands = [(known, until) for known, until in link.commands if known != command_id]
            self.look(link)

    def hang_up(self) -> None:
        self.end(self.random.choice(self.links))
        if all(link.ended for link in self.links):
            self.connect()

    def end(self, link: Link) -> None:
        if not link.ended:
            link.model.end()
            link.connection.connection_lost(self.now)
            self.look(link)
            link.ended = True

    # Everybody else

    def pass_time(self) -> None:
        """Whole eighths of a second, which floats can count. Mail is brought when it is due."""
        until = self.seconds + self.random.choice((0.125, 0.5, 0.5, 4.0, 11.0, 25.0, 25.0, 650.0))
        while due := [mail for mail in self.mail if mail[0] <= until]:
            first = min(due, key=lambda mail: mail[0])
            self.mail.remove(first)
            self.seconds = max(self.seconds, first[0])
            self.sweep()
            self.bring(*first[1:])
        self.seconds = until
        self.sweep()

    def sweep(self) -> None:
        for link in self.links:
            if not link.ended and link.connection.waits:
                link.model.sweep(self.seconds)
                link.connection.sweep(self.now)
                self.look(link)

    def acknowledge(self) -> None:
        """Kafka acknowledges some of what it has, in order."""
        for link in self.links:
            for _ in range(self.random.randint(0, len(link.records))):
                fact, durable = link.records.pop(0)
                fact.durable = True
                durable.mark_durable()

    def order(self) -> None:
        """The router sends a command to a connection that it knows, and, after a take-over, sends it again."""
        link = self.links[-1] if self.random.random() < 0.8 else self.random.choice(self.links)
        self.post_order(link, repeat=self.random.random() < 0.3)

    def post_order(self, link: Link, *, repeat: bool) -> None:
        command_id = f"k{len(self.ordered)}"
        self.ordered.add(command_id)
        deadline = self.random.choice((0.0, 0.0, self.seconds + 3, self.seconds + 50))
        message = outbound(
            kind="call",
            message_id=command_id,
            command_id=command_id,
            action="ClearCache",
            payload="{}",
            priority=self.random.choice((0, 0, 0, 5)),
            deadline_at=START_MS + round(deadline * 1000) if deadline else 0,
        )
        self.mail.append((self.seconds, link.connection_id, message))
        if repeat:
            later = self.seconds + self.random.randrange(REPEAT_SECONDS)
            self.mail.append((later, link.connection_id, message))

    def flood(self) -> None:
        """More commands than fit into the queue, and the router repeats all of them."""
        if len(self.ordered) > MAX_QUEUED:
            return
        for _ in range(MAX_QUEUED + 8):
            self.post_order(self.links[-1], repeat=True)

    def close(self) -> None:
        message = outbound(kind="close", message_id="", close_code=1000, error_description="replaced")
        self.mail.append(
            (self.seconds + self.random.choice((0.0, 1.0)), self.random.choice(self.links).connection_id, message)
        )

    def bring(self, connection_id: str, message: dict[str, Any]) -> None:
        """Deliver a record as the hub does: to that very connection, or not at all (rule 4)."""
        link = next((link for link in self.links if link.connection_id == connection_id and not link.ended), None)
        if link is None:
            if message["kind"] == "call":
                self.outcomes.setdefault(message["command_id"], 1)  # undelivered; the router goes by what comes first
            return
        model = link.model
        match message["kind"]:
            case "call":
                deadline = (message["deadline_at"] - START_MS) / 1000 if message["deadline_at"] else 0.0
                model.order(Order(message["command_id"], message["priority"], deadline), self.seconds)
            case "close":
                model.closing = True
            case _:
                model.reply(message)
        link.connection.receive_outbound(message, self.now)
        self.look(link)

    def reply(self, link: Link, fact: Fact) -> None:
        """The owner of an action has got a CALL: it replies, late or never, and now and then twice."""
        fields: dict[str, Any] = {"connection_id": link.connection_id, "message_id": fact.message_id}
        fields["action"] = fact.action
        if self.random.random() < 0.2:
            return
        # A fold: the same CALL gets the same reply, however often it comes.
        if fact.number % 9 == 0:
            fields |= {"kind": "error", "error_code": "InternalError", "error_description": str(fact.number)}
        else:
            status = "Rejected" if fact.number % 4 == 0 else "Accepted"
            fields["payload"] = orjson.dumps({"status": status, "echo": fact.number}).decode()
        for _ in range(self.random.choice((1, 1, 1, 2))):
            delay = self.random.choice((0.0, 0.125, 0.25, 5.0, 19.0, 30.0, 500.0))
            self.mail.append((self.seconds + delay, link.connection_id, outbound(**fields)))

    # What came of it

    def look(self, link: Link) -> None:
        """Compare what a connection did with what the model says, and enter it in the accounts."""
        model, connection = link.model, link.connection
        raw = connection.frames_to_send()
        frames = [orjson.loads(frame) for frame in raw]
        self.look_at_records(link)
        expected, model.frames = model.frames, []
        _same("number of frames", len(frames), len(expected))
        told = [frame[: len(wanted)] for frame, wanted in zip(frames, expected, strict=True)]
        _same("frames", told, expected)
        for frame, its_bytes in zip(frames, raw, strict=True):
            if frame[0] == 2:
                self.take_command(link, frame[1])
            elif frame[0] in (3, 4):
                self.take_answer(link, frame, its_bytes)
        self.check_bounds(connection)

    def look_at_records(self, link: Link) -> None:
        model = link.model
        stages, malformed = [], 0
        for record in link.connection.records_to_publish():
            if record.topic == COMMAND_EVENTS_TOPIC:
                event = decode(record.value)[1]
                stages.append((event["command_id"], event["stage"]))
                self.outcomes[event["command_id"]] += event["stage"] in TERMINAL
            elif record.topic == MALFORMED_TOPIC:
                malformed += 1
            else:
                fact, call = model.published.pop(0), decode_call(record.value)
                link.sequence += 1
                assert call.sequence == link.sequence, "sequence numbers follow on"
                _same("CALL", [2, call.message_id, call.action, call.payload], orjson.loads(fact.text))
                if record.call is not None:
                    link.records.append((fact, record.call))
                    self.reply(link, fact)
        _same("stages", stages, model.stages)
        _same("malformed frames", malformed, model.malformed)
        _same("CALLs that were not published", model.published, [])
        model.stages, model.malformed = [], 0

    def take_command(self, link: Link, command_id: str) -> None:
        """The station's account of commands: one CALL at a time."""
        for other, until in link.commands:
            assert until <= self.seconds, f"{command_id} comes while {other} is open"
        link.commands.append((command_id, self.seconds + CALL_TIMEOUT_SECONDS))
        if (order := link.model.out) is not None and order.command_id == command_id:
            link.commands[-1] = (command_id, order.expires)

    def take_answer(self, link: Link, frame: list[Any], its_bytes: bytes) -> None:
        """The station's account of its CALLs: an answer for each sending at most, and the answer to what it said."""
        message_id = frame[1]
        link.answers[message_id] += 1
        assert link.answers[message_id] <= link.sendings[message_id], f"too many answers to {message_id}"
        number = frame[2].get("echo") if frame[0] == 3 else frame[3] if frame[2] == "InternalError" else None
        if number is None:
            return
        fact = link.facts[int(number)]
        assert fact.message_id == message_id, "the answer to another CALL"
        first = link.last_answer.setdefault(fact.text, its_bytes)
        assert first == its_bytes, "another answer to the same CALL"

    def check_bounds(self, connection: StationConnection) -> None:
        """Nothing grows without bound, whatever a station or the router does."""
        assert len(connection._pending) <= MAX_PENDING
        assert len(connection._answers or ()) <= STORED_ANSWERS
        if connection._commands is not None:
            assert len(connection._commands._waiting) <= MAX_QUEUED
            assert len(connection._commands._past) <= 2 * MAX_QUEUED
        assert not connection._records
        assert not connection._frames


def unsettled() -> dict[str, int]:
    """Of all histories so far: CALLs that were accepted and have none of the outcomes that the metrics know."""
    left = {}
    for (version, action), counts in METRICS.actions.items():
        settled = counts.answered + counts.errors + counts.late + counts.unanswered
        if counts.received != settled:
            left[f"{version} {action}"] = counts.received - settled
    return left


def _payload(version: Version, action: str, number: int) -> dict[str, Any]:
    """A valid payload that says which fact it is."""
    if action == "DataTransfer":
        return {"vendorId": "V", "data": str(number)}
    payloads: dict[str, dict[str, Any]]
    if version is Version.V16:
        status = {"connectorId": 1, "errorCode": "NoError", "status": "Available", "info": str(number)}
        payloads = {
            "Heartbeat": {},
            "Authorize": {"idTag": str(number)},
            "StatusNotification": status,
            "BootNotification": {"chargePointVendor": "V", "chargePointModel": str(number)},
        }
    else:
        status = {"timestamp": "2026-01-01T00:00:00Z", "connectorStatus": "Available", "connectorId": 1}
        payloads = {
            "Heartbeat": {},
            "Authorize": {"idToken": {"idToken": str(number), "type": "Central"}},
            "StatusNotification": {**status, "evseId": number},
            "BootNotification": {"reason": "PowerUp", "chargingStation": {"model": str(number), "vendorName": "V"}},
        }
    return payloads[action]


def _same(what: str, found: object, expected: object) -> None:
    assert found == expected, f"{what}: {found} instead of {expected}"
