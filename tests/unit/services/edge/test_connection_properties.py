"""Whatever happens on a connection: nothing is raised, and answers and outcomes are counted out."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from busbar.avro import decode
from busbar.ocpp.versions import Version
from tests.unit.services.edge.bench import START_MS, Bench

TERMINAL = {"answered", "error", "timeout", "disconnected", "undelivered"}

ids = st.sampled_from(["a", "b", "c", "-1", "ü"])
scalars = st.none() | st.booleans() | st.integers(-5, 2**65) | st.floats(allow_nan=False) | st.text(max_size=5)
payloads: st.SearchStrategy[Any] = st.one_of(
    st.just({}),
    st.just({"idTag": "A"}),
    st.just({"connectorId": 1, "errorCode": "NoError", "status": "Available"}),
    st.just({"status": "Accepted"}),
    st.dictionaries(st.sampled_from(["idTag", "connectorId", "timestamp", "status", "x"]), scalars, max_size=4),
    scalars,
)
actions = st.sampled_from(
    ["Heartbeat", "Authorize", "StatusNotification", "BootNotification", "TransactionEvent", "Nonsense", "Reset"]
)
frames = st.one_of(
    st.tuples(st.sampled_from([2, 6]), ids, actions, payloads),
    st.tuples(st.just(3), ids, payloads),
    st.tuples(st.sampled_from([4, 5]), ids, st.text(max_size=9)),
    st.lists(scalars, max_size=5),
)
steps = st.one_of(
    st.tuples(st.just("frame"), frames),
    st.tuples(st.just("text"), st.binary(max_size=30)),
    st.tuples(st.just("reply"), ids),
    st.tuples(st.just("refuse"), ids),
    st.tuples(st.just("command"), ids, st.integers(-1, 1), st.sampled_from([0, START_MS + 20_000])),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 5.0, 31.0, 700.0])),
    st.tuples(st.just("durable")),
)


class _Story:
    """Plays steps on a bench and counts."""

    def __init__(self, version: Version) -> None:
        self.bench = Bench(version)
        self.calls: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.dispatched: set[str] = set()
        self.outcomes: Counter[str] = Counter()
        self.outstanding = 0

    def play(self, step: tuple[Any, ...]) -> None:
        bench = self.bench
        match step:
            case ("frame", frame):
                if len(frame) > 1 and frame[0] not in (3, 4):
                    self.calls[str(frame[1])] += 1
                bench.connection.receive_text(orjson.dumps(frame), bench.now)
            case ("text", text):
                bench.connection.receive_text(text, bench.now)
            case ("reply", message_id):
                self.collect(bench.deliver(message_id=message_id, payload={}))
            case ("refuse", message_id):
                self.collect(bench.deliver(kind="error", message_id=message_id, error_code="InternalError"))
            case ("command", message_id, priority, deadline):
                self.dispatched.add("k" + message_id)
                fields = {"action": "ClearCache", "payload": {}, "priority": priority, "deadline_at": deadline}
                self.collect(bench.deliver(kind="call", message_id="k" + message_id, **fields))
            case ("wait", seconds):
                bench.wait(seconds)
            case ("durable",):
                self.look(durable=True)
        self.look()
        self.collect(bench.frames())

    def collect(self, frames: list[Any]) -> None:
        for frame in frames:
            if frame[0] == 2:
                assert self.outstanding == 0, "two CALLs are out"
                self.outstanding += 1
            elif frame[0] in (3, 4):
                self.answers[frame[1]] += 1

    def look(self, *, durable: bool = False) -> None:
        for record in self.bench.publications():
            if record.call is not None and durable:
                record.call.mark_durable()
            if record.topic != "csms.command-events":
                continue
            event = decode(record.value)[1]
            if event["stage"] in TERMINAL:
                self.outcomes[event["command_id"]] += 1
                if event["stage"] != "undelivered" and not event["error_description"].startswith("not sent"):
                    self.outstanding -= 1


def _integers_fit(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_integers_fit(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(_integers_fit(item) for item in value)
    return not isinstance(value, int) or value < 2**64


@settings(max_examples=300)
@given(st.sampled_from(list(Version)), st.lists(steps, max_size=25))
def test_no_story_raises_and_every_call_and_command_is_settled_at_most_once(
    version: Version, story: list[tuple[Any, ...]]
) -> None:
    teller = _Story(version)
    for step in story:
        if _integers_fit(step):
            teller.play(step)
    teller.bench.connection.connection_lost(teller.bench.now)
    teller.look()
    for message_id, answers in teller.answers.items():
        if message_id != "-1":  # also the answer to what has no readable id
            assert answers <= teller.calls[message_id]
    assert set(teller.outcomes) == teller.dispatched
    assert all(count == 1 for count in teller.outcomes.values())


@given(st.sampled_from(list(Version)), st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode()))
def test_any_bytes_give_no_exception_and_leave_the_connection_usable(version: Version, text: bytes) -> None:
    bench = Bench(version)
    bench.connection.receive_text(text, bench.now)
    bench.frames()
    bench.publications()
    assert bench.send(2, "alive", "Heartbeat", {})[0][:2] == [3, "alive"]
