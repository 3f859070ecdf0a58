"""A sessions service in memory: tables as dictionaries, batches as the runtime makes them, stations that send CALLs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from busbar.avro import decode, encode
from busbar.ocpp.times import format_timestamp_ms
from busbar.ocpp.validation import validate_response
from busbar.ocpp.versions import Version
from busbar.pricing import Options
from busbar.records import Record, Result, StationCall
from busbar.stream.partitioner import Partitioner
from busbar.tariffs import TariffBook
from services.sessions.cache import StationCache
from services.sessions.core import apply
from services.sessions.decoding import (
    Event,
    ReservationAnswer,
    ReservationCommand,
    ReservationDue,
    SessionDue,
    TariffRequest,
    event_of,
)
from services.sessions.model import (
    Policy,
    Session,
    State,
    TariffChangeRow,
    dump_session,
    dump_station,
    load_session,
)
from services.sessions.processor import COMMAND_EVENTS_TOPIC, COMMANDS_TOPIC, SessionsProcessor
from services.sessions.reservations import Reservation
from services.sessions.store import LOAD, SEEN, USERS, load_state
from services.sessions.tokens import ACCEPTED, token_key

T0 = 1_763_712_000_000
"""2025-11-21T08:00:00Z: what test stations call zero."""

MINUTE = 60_000
HOUR = 60 * MINUTE


def iso(ms: int) -> str:
    """Milliseconds after T0 as a timestamp."""
    return format_timestamp_ms(T0 + ms)


@dataclass
class Out:
    """What folding produced."""

    events: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    replies: list[dict[str, Any]] = field(default_factory=list)
    commands: list[dict[str, Any]] = field(default_factory=list)

    @property
    def reply(self) -> dict[str, Any]:
        """The only reply."""
        assert len(self.replies) == 1
        return self.replies[0]

    @property
    def event(self) -> dict[str, Any]:
        """The only event of a session."""
        assert len(self.events) == 1, [event["kind"] for event in self.events]
        return self.events[0]

    @property
    def kinds(self) -> list[str]:
        return [event["kind"] for event in self.events]

    def add(self, results: Iterable[Result], call: StationCall | None = None) -> Out:
        for result in results:
            name, value = decode(result.value)
            assert encode(name, value) == result.value  # what is encoded by hand is what anybody else would encode
            if result.topic == "csms.outbound":
                payload = orjson.loads(value["payload"])
                assert call is not None
                assert value["kind"] == "result"
                assert (value["message_id"], value["connection_id"]) == (call.message_id, call.connection_id)
                validate_response(call.version, call.action, payload, strict=True)
                self.replies.append(payload)
            else:
                assert result.key == value["station_id"].encode()
                {
                    "csms.session-events": self.events,
                    "csms.meter-samples": self.samples,
                    "csms.commands": self.commands,
                }[result.topic].append(value)
        return self


Input = StationCall | SessionDue | TariffRequest | ReservationCommand | ReservationAnswer | ReservationDue
"""What a batch may be made of, but for CALLs decoded already."""


class World:
    """Tables, and batches that read and write them."""

    def __init__(self, *, cached: bool = False, **policy: Any) -> None:
        self.policy = Policy(**policy)
        self.sessions: dict[str, bytes] = {}
        self.stations: dict[str, bytes] = {}
        self.unsettled: dict[str, list[str]] = {}
        self.rows: list[Any] = []
        self.signed: list[Any] = []
        self.authorizations: list[Any] = []
        self.reservations: list[Any] = []
        self.changes: dict[str, TariffChangeRow] = {}
        self.reserved: dict[str, list[Any]] = {}
        """Rows of sessions.reservations, by key."""
        self.tokens: dict[str, list[Any]] = {}
        self.config: dict[str, tuple[str | None, dict[str, Any]]] = {}
        self.out = Out()
        """Everything that was ever produced."""
        self.cache: StationCache | None = StationCache() if cached else None
        self.queries = 0
        self.tariffs = TariffBook(options=Options(keep_periods=False))

    def token(self, id_token: str, status: str = ACCEPTED, **more: Any) -> None:
        """A row of config.tokens."""
        columns = {
            "expires_at": None,
            "valid_from": None,
            "group_id": None,
            "cache_expires_seconds": None,
            "allow_concurrent": False,
            "max_concurrent": 1,
            "allowed_stations": None,
            "allowed_sites": None,
            "language": None,
            "max_cost": None,
            "max_energy_wh": None,
            "max_time_seconds": None,
        }
        columns.update(more)
        self.tokens[token_key(id_token)] = [token_key(id_token), id_token, "Central", status, *columns.values()]

    def load(self, events: Sequence[Event]) -> State:
        """As the service loads, from these tables."""
        loading = load_state(self, events, self.policy, self.cache, self.tariffs)
        try:
            loading.send(None)
        except StopIteration as done:
            state: State = done.value
            return state
        raise AssertionError("nothing here waits")

    async def fetch(self, query: str, *arguments: Any) -> list[Any]:
        """Stands in for a connection."""
        self.queries += 1
        if query == LOAD:
            stations, named_stations, named_transactions, due, tokens = arguments
            return list(self._rows(stations, set(zip(named_stations, named_transactions, strict=True)), due, tokens))
        if query == USERS:
            wanted = set(zip(*arguments, strict=True))
            users = (load_session(raw) for raw in self.sessions.values())
            return [
                (self.sessions[user.session_id],)
                for user in users
                if (user.station_id, user.reservation_id) in wanted and not user.is_open
            ]
        if "config.tariffs" in query:
            return []  # all that there are have been accepted
        assert query == SEEN
        wanted = set(zip(*arguments, strict=True))
        return [
            (row.session_id, row.event_key, row.content_hash)
            for row in self.rows
            if (row.session_id, row.event_key) in wanted
        ]

    def _rows(
        self, stations: Sequence[str], named: set[tuple[str, str]], due: Sequence[str], tokens: Sequence[str]
    ) -> Iterator[tuple[str, str, str | None, bytes | None]]:
        sessions = {session_id: load_session(raw) for session_id, raw in self.sessions.items()}
        unsettled = {each for name in stations for each in self.unsettled.get(name, ())}
        for name in set(stations) & self.stations.keys():
            yield "station", name, None, self.stations[name]
        for name in set(stations) & self.config.keys():
            yield "config", name, orjson.dumps(self.config[name]).decode(), None
        for session_id, session in sessions.items():
            is_open = session.is_open and session.station_id in stations
            is_named = (session.station_id, session.transaction_id) in named and not session.is_open
            if is_open or is_named or session_id in unsettled or session_id in due:
                yield "session", session_id, None, self.sessions[session_id]
        for key in set(tokens) & self.tokens.keys():
            yield "token", key, orjson.dumps(self.tokens[key]).decode(), None
        for session_id, session in sessions.items():
            key = token_key(session.id_token)
            if session.is_open and session.authorization_status == ACCEPTED and key in tokens:
                yield "use", key, session_id, None

    def save(self, state: State) -> None:
        for session in state.changed_sessions():
            self.sessions[session.session_id] = dump_session(session)
        for station in state.stations.values():
            if station.changed:
                self.stations[station.station_id] = dump_station(station)
                self.unsettled[station.station_id] = station.unsettled
        self.rows += state.rows
        self.signed += state.signed
        self.authorizations += state.authorizations
        self.reservations += state.reservations
        self.changes |= {row.change_id: row for row in state.tariff_changes}
        self.reserved |= {key: each.to_list() for key, each in state.told_reservations.items()}

    def batch(self, *calls: Input) -> Out:
        """Fold some CALLs in one batch."""
        events = [event_of(call) if isinstance(call, StationCall) else call for call in calls]
        state = self.load(events)
        out = Out()
        for call, event in zip(calls, events, strict=True):
            results = apply(state, event)
            origin = call if isinstance(call, StationCall) else None
            out.add(results, origin)
            self.out.add(results, origin)
        self.save(state)
        if self.cache is not None:
            self.cache.put_back(state)
        return out

    def each(self, calls: Iterable[Input]) -> Out:
        """Fold CALLs one by one, each in a batch of its own."""
        out = Out()
        for call in calls:
            done = self.batch(call)
            out.events += done.events
            out.samples += done.samples
            out.replies += done.replies
            out.commands += done.commands
        return out

    def change(self, tariff_id: str, ms: int, *, version: int = 1, change_id: str | None = None) -> TariffRequest:
        """Somebody wants another tariff for the newest session."""
        session = self.all_sessions()[-1]
        change_id = change_id or f"{tariff_id}@{ms}"
        return TariffRequest(
            change_id,
            session.station_id,
            session.session_id,
            session.transaction_id,
            tariff_id,
            version,
            "ops",
            T0 + ms,
        )

    def due(self, ms: int) -> Out:
        """Let the clock reach a time: the watchdog looks at every session whose deadline has come."""
        found = [load_session(raw) for raw in self.sessions.values()]
        calls: list[Input] = [
            SessionDue(0, session.station_id, session.session_id, T0 + ms)
            for session in found
            if 0 < session.due_ms <= T0 + ms
        ]
        expired_ms = T0 + ms - self.policy.reservation_grace_ms
        held = {each.station_id for each in self.reservations_now() if _is_due(each, expired_ms)}
        calls += [ReservationDue(0, station_id, T0 + ms) for station_id in sorted(held)]
        return self.batch(*calls) if calls else Out()

    def reservations_now(self) -> list[Reservation]:
        """Rows of sessions.reservations, oldest first."""
        return sorted((Reservation(*row) for row in self.reserved.values()), key=lambda each: each.made_ms)

    def reservation(self) -> Reservation:
        """The only one."""
        (found,) = self.reservations_now()
        return found

    def all_sessions(self) -> list[Session]:
        return sorted((load_session(raw) for raw in self.sessions.values()), key=lambda each: each.opened_ms)

    def session(self) -> Session:
        """The only session."""
        sessions = self.all_sessions()
        assert len(sessions) == 1, [(each.transaction_id, each.state) for each in sessions]
        return sessions[0]

    def flags(self) -> set[str]:
        """The flags of the last event of the only session."""
        return set(self.out.events[-1]["flags"])

    def unattributed_wh(self) -> Any:
        return sum(event["energy_wh"] for event in self.out.events if event["kind"] == "unattributed")


def _is_due(reservation: Reservation, expired_ms: int) -> bool:
    return reservation.status == "reserved" and reservation.expires_ms <= expired_ms


_PROCESSOR = SessionsProcessor(Policy(), partitions=4)


def record_of(topic: str, schema: str, value: dict[str, Any], at_ms: int) -> Record:
    """A record of a topic of ours, of four partitions."""
    key = value["station_id"].encode()
    return Record(topic, Partitioner().partition(key, 4), 0, at_ms, key, encode(schema, value))


class Operator:
    """Makes and cancels reservations through commands; `ms` is when the station answers, after T0.

    Args:
        raw: Whether to give records, instead of what the service makes of them.
    """

    def __init__(self, version: Version, station_id: str = "CS1", *, raw: bool = False) -> None:
        self.version = version
        self.station_id = station_id
        self.raw = raw
        self.count = 0

    def command(self, action: str, payload: Any, ms: int, status: str = "Accepted", **more: Any) -> list[Any]:
        """A command and its answer, as they are read; `None` for what is skipped."""
        self.count += 1
        command_id = f"command-{self.version.value}-{self.count}"
        raw = payload if isinstance(payload, str) else orjson.dumps(payload).decode()
        known = {"command_id": command_id, "station_id": self.station_id, "action": action}
        asked = {"requested_by": "ops", "requested_at": T0 + ms - 300, "deadline_at": T0 + ms + HOUR}
        answered = {"stage": "answered", "source": "edge", "at": T0 + ms, "ocpp_version": self.version.value}
        answer = {"payload": orjson.dumps({"status": status}).decode()}
        records = [
            record_of(COMMANDS_TOPIC, "csms.Command", {**known, **asked, "payload": raw}, T0 + ms - 300),
            record_of(COMMAND_EVENTS_TOPIC, "csms.CommandEvent", {**known, **answered, **answer, **more}, T0 + ms),
        ]
        return records if self.raw else [_PROCESSOR.decode(record) for record in records]

    def reserve(
        self, ms: int, expires: int, *, reservation_id: int = 7, tag: str = "TAG", evse: int = 1, **more: Any
    ) -> list[Any]:
        if self.version is Version.V16:
            payload = {"connectorId": evse, "expiryDate": iso(expires), "idTag": tag, "reservationId": reservation_id}
        else:
            token = {"idToken": tag, "type": "ISO14443"}
            payload = {"id": reservation_id, "expiryDateTime": iso(expires), "idToken": token, "evseId": evse}
        return self.command("ReserveNow", payload, ms, **more)

    def cancel(self, ms: int, *, reservation_id: int = 7, **more: Any) -> list[Any]:
        return self.command("CancelReservation", {"reservationId": reservation_id}, ms, **more)


class Caller:
    """A station that makes CALLs; `ms` is when they are received, after T0."""

    def __init__(self, version: Version, station_id: str = "CS1", connection_id: str = "c1") -> None:
        self.version = version
        self.station_id = station_id
        self.connection_id = connection_id
        self.sequence = 0

    def call(self, action: str, payload: dict[str, Any], ms: int) -> StationCall:
        self.sequence += 1
        return StationCall(
            self.station_id,
            self.connection_id,
            "edge-0",
            0,
            self.version,
            self.sequence,
            f"m{self.sequence}",
            T0 + ms,
            action,
            payload,
        )


class Station16(Caller):
    """A 1.6 station. Its clock is right, and its frames take 100 ms."""

    def __init__(self, station_id: str = "CS1", connection_id: str = "c1") -> None:
        super().__init__(Version.V16, station_id, connection_id)

    def authorize(self, id_tag: str, ms: int = 0) -> StationCall:
        return self.call("Authorize", {"idTag": id_tag}, ms)

    def start(
        self, meter: Any = 1000, ms: int = 0, *, tag: str = "TAG", connector: int = 1, late: int = 100, **more: Any
    ) -> StationCall:
        payload = {"connectorId": connector, "idTag": tag, "meterStart": meter, "timestamp": iso(ms), **more}
        return self.call("StartTransaction", payload, ms + late)

    def stop(
        self, transaction_id: Any, meter: Any = 2000, ms: int = HOUR, *, late: int = 100, **more: Any
    ) -> StationCall:
        payload = {"transactionId": transaction_id, "meterStop": meter, "timestamp": iso(ms), **more}
        return self.call("StopTransaction", payload, ms + late)

    def meter(
        self,
        value: Any = "1500",
        ms: int = MINUTE,
        *,
        transaction_id: Any = None,
        connector: int = 1,
        late: int = 100,
        samples: list[dict[str, Any]] | None = None,
        **sample: Any,
    ) -> StationCall:
        payload = {
            "connectorId": connector,
            "meterValue": [{"timestamp": iso(ms), "sampledValue": samples or [{"value": value, **sample}]}],
        }
        if transaction_id is not None:
            payload["transactionId"] = transaction_id
        return self.call("MeterValues", payload, ms + late)


class Station2x(Caller):
    """A 2.x station. Its clock is right, and its frames take 100 ms."""

    def __init__(self, version: Version = Version.V201, station_id: str = "CS1", connection_id: str = "c1") -> None:
        super().__init__(version, station_id, connection_id)

    def authorize(self, id_token: str, kind: str = "ISO14443", ms: int = 0, **more: Any) -> StationCall:
        return self.call("Authorize", {"idToken": {"idToken": id_token, "type": kind}, **more}, ms)

    def event(
        self,
        event_type: str,
        seq_no: int,
        ms: int,
        wh: Any = None,
        *,
        transaction_id: str = "tx-1",
        late: int = 100,
        trigger: str = "MeterValuePeriodic",
        state: str | None = None,
        samples: list[dict[str, Any]] | None = None,
        info: dict[str, Any] | None = None,
        **more: Any,
    ) -> StationCall:
        payload: dict[str, Any] = {
            "eventType": event_type,
            "timestamp": iso(ms),
            "triggerReason": trigger,
            "seqNo": seq_no,
            "transactionInfo": {"transactionId": transaction_id, **(info or {})},
            **more,
        }
        if state:
            payload["transactionInfo"]["chargingState"] = state
        if wh is not None:
            samples = [{"value": wh}]
        if samples is not None:
            payload["meterValue"] = [{"timestamp": iso(ms), "sampledValue": samples}]
        return self.call("TransactionEvent", payload, ms + late)

    def reservation(self, status: str, ms: int, *, reservation_id: int = 7) -> StationCall:
        payload = {"reservationId": reservation_id, "reservationUpdateStatus": status}
        return self.call("ReservationStatusUpdate", payload, ms)

    def started(self, wh: Any = None, ms: int = 0, *, tag: str = "TAG", evse: int = 1, **more: Any) -> StationCall:
        more.setdefault("idToken", {"idToken": tag, "type": "ISO14443"})
        more.setdefault("evse", {"id": evse, "connectorId": 1})
        more.setdefault("trigger", "Authorized")
        return self.event("Started", more.pop("seq_no", 0), ms, wh, **more)

    def updated(self, seq_no: int, wh: Any, ms: int, **more: Any) -> StationCall:
        return self.event("Updated", seq_no, ms, wh, **more)

    def ended(self, seq_no: int, wh: Any, ms: int, **more: Any) -> StationCall:
        more.setdefault("trigger", "EVDeparted")
        return self.event("Ended", seq_no, ms, wh, **more)

    def meter(self, wh: Any, ms: int, *, evse: int = 1, late: int = 100) -> StationCall:
        payload = {"evseId": evse, "meterValue": [{"timestamp": iso(ms), "sampledValue": [{"value": wh}]}]}
        return self.call("MeterValues", payload, ms + late)
