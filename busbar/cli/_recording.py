"""What a station sent, as a session that can be priced: by the very folds that bill it in operation.

The command line stands above the services, so it may use them; it does so only when a recording is priced.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from busbar.ocpp.errors import FrameError
from busbar.ocpp.frames import Call, CallResult, frame_of
from busbar.ocpp.times import parse_timestamp, timestamp_ms
from busbar.ocpp.versions import Version
from busbar.pricing.problems import Problem, SessionError
from busbar.pricing.session_facts import Feed
from busbar.pricing.session_json import RecordedSession
from busbar.records import StationCall

ACTIONS = frozenset({"TransactionEvent", "StartTransaction", "StopTransaction", "MeterValues"})
_NOT_OF_A_SESSION = frozenset({"unattributed", "reservation"})
_NO_TOKENS = "unauthorized"
"""Noticed of every session here, where nobody knows any token."""


@dataclass(slots=True)
class _Message:
    """A CALL or a CALLRESULT of the recording."""

    message_id: str
    action: str
    """Empty for a CALLRESULT."""
    payload: dict[str, Any]
    at_ms: int | None = None
    """When it passed, if that is told."""


@dataclass(slots=True)
class _Station:
    """A station that sends what was recorded."""

    version: Version
    sequence: int = 0
    now_ms: int = 0
    names: dict[int, int] = field(default_factory=dict)
    """1.6: by transaction id of the recording the one that it has here."""

    def call(self, message: _Message) -> StationCall:
        self.sequence += 1
        self.now_ms = max(self.now_ms, message.at_ms or 0, _told_ms(message.payload))
        payload = message.payload
        known = payload.get("transactionId")
        if isinstance(known, int):
            payload = payload | {"transactionId": self.names.get(known, known)}
        return StationCall(
            "recorded",
            "recording",
            "",
            0,
            self.version,
            self.sequence,
            message.message_id,
            self.now_ms,
            message.action,
            payload,
        )


def is_recorded(item: Any) -> bool:
    """Whether it is an OCPP-J frame, the payload of a TransactionEvent, or a line of `busbar tail --json`."""
    if isinstance(item, Mapping):
        return "eventType" in item or ("kind" in item and "content" in item)
    return isinstance(item, Sequence) and not isinstance(item, str)


def read_recording(items: Sequence[Any], transaction: str | None) -> RecordedSession:
    """The session of a transaction, the only one unless it is named.

    Raises:
        SessionError: There is none, or more than one, or something is neither frame, payload nor line.
    """
    sessions = _fold([message for number, item in enumerate(items) for message in _messages(item, f"$[{number}]")])
    wanted = {name: events for name, events in sessions.items() if transaction is None or name == transaction}
    if len(wanted) == 1:
        (events,) = wanted.values()
        last = max(events, key=lambda event: event.sequence)
        _, facts = Feed.replay(last.frame, [each for event in events for each in event.observations])
        remarks = [f"energy is by {last.frame.rung}"]
        remarks += [f"noticed {flag}" for flag in last.flags if flag != _NO_TOKENS]
        return RecordedSession(tuple(facts), tuple(remarks))
    names = ", ".join(sorted(sessions)) or "none"
    if transaction is not None:
        raise SessionError([Problem("$", f"there is no transaction {transaction}: there is {names}")])
    if wanted:
        raise SessionError([Problem("$", f"there are several transactions: pick one with --transaction, of {names}")])
    raise SessionError([Problem("$", "there is no transaction in what the station sent")])


def _fold(messages: Sequence[_Message]) -> dict[str, list[Any]]:
    """The events of each session as billing reads them, by the transaction id of the recording."""
    # Only here, so that nothing of the services is loaded for a CDR or a few numbers.
    from services.billing.decoding import read_event
    from services.sessions.core import apply
    from services.sessions.decoding import event_of
    from services.sessions.model import State

    is_v2 = any(message.action == "TransactionEvent" for message in messages)
    station, state = _Station(Version.V201 if is_v2 else Version.V16), State()
    results = _results(messages)
    sessions: dict[str, list[Any]] = {}
    for message in messages:
        if not message.action:
            continue
        event = event_of(station.call(message))
        for result in apply(state, event):
            if result.topic == "csms.session-events":
                read = read_event(result.value, 0)
                if read.kind not in _NOT_OF_A_SESSION:
                    sessions.setdefault(read.head.session_id, []).append(read)
                if message.action == "StartTransaction" and read.kind == "started":
                    told = results.get(message.message_id)
                    station.names[told if told is not None else _only(messages)] = int(read.head.transaction_id)
    recorded = {here: there for there, here in station.names.items() if there >= 0}
    named: dict[str, list[Any]] = {}
    for events in sessions.values():
        name = events[-1].head.transaction_id
        known = recorded.get(int(name)) if not is_v2 and name.isdigit() else None
        named[name if known is None else str(known)] = events
    return named


def _results(messages: Sequence[_Message]) -> dict[str, int]:
    """The transaction ids that starts were answered with, by message id."""
    found = {}
    for message in messages:
        told = message.payload.get("transactionId")
        if not message.action and isinstance(told, int):
            found[message.message_id] = told
    return found


def _only(messages: Sequence[_Message]) -> int:
    """The transaction id that a recording without answers speaks of, if it is one; else -1."""
    ids = [message.payload.get("transactionId") for message in messages if message.action]
    told = {name for name in ids if isinstance(name, int) and name > 0}
    starts = sum(message.action == "StartTransaction" for message in messages)
    return told.pop() if len(told) == 1 and starts == 1 else -1


def _messages(item: Any, path: str) -> Iterator[_Message]:
    """What of an item is of interest, if anything."""
    item = _as_sent(item)
    if isinstance(item, dict) and "eventType" in item:
        yield _Message(path, "TransactionEvent", item)
    elif isinstance(item, dict) and "kind" in item:
        yield from _line(item, path)
    else:
        try:
            frame = frame_of(item)
        except FrameError:
            expected = "an OCPP-J frame, the payload of a TransactionEvent, or a line of `busbar tail --json`"
            raise SessionError([Problem(path, f"is not {expected}")]) from None
        if isinstance(frame, Call) and frame.action in ACTIONS:
            yield _Message(frame.message_id, frame.action, frame.payload)
        elif isinstance(frame, CallResult):
            yield _Message(frame.message_id, "", frame.payload)


def _line(item: dict[str, Any], path: str) -> Iterator[_Message]:
    """Of what `busbar tail --json` prints."""
    content, message_id = item.get("content"), str(item.get("message_id"))
    if not isinstance(content, dict):
        return
    if item["kind"] == "CALL" and item.get("from") == "station" and item.get("action") in ACTIONS:
        yield _Message(message_id, str(item["action"]), content, _instant_ms(item.get("at")))
    elif item["kind"] == "CALLRESULT" and item.get("from") == "csms":
        yield _Message(message_id, "", content)


def _told_ms(payload: Mapping[str, Any]) -> int:
    """The station's own time of a CALL, which is taken for that of its arrival where nothing else is known."""
    values = payload.get("meterValue")
    first = values[0] if isinstance(values, list) and values and isinstance(values[0], dict) else {}
    return _instant_ms(payload.get("timestamp")) or _instant_ms(first.get("timestamp")) or 0


def _instant_ms(text: Any) -> int | None:
    try:
        return timestamp_ms(parse_timestamp(text)) if isinstance(text, str) else None
    except ValueError:
        return None


def _as_sent(value: Any) -> Any:
    """With numbers as the services read them from a frame."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {name: _as_sent(item) for name, item in value.items()}
    return [_as_sent(item) for item in value] if isinstance(value, list) else value
