"""The state of the fold: sessions, stations, and everything that a batch reads and writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import orjson

from busbar.pricing.session_facts import TariffChange, tariff_changes
from busbar.tariffs import TariffBook
from services.sessions.clock import Clock, Moment
from services.sessions.continuity import Continuity
from services.sessions.energy import Energy
from services.sessions.reservations import Reservation, Reservations
from services.sessions.samples import Samples, Shape
from services.sessions.signed import SignedReading
from services.sessions.tokens import Token, TokenPolicy

if TYPE_CHECKING:
    from services.sessions.pricing import RunningPrice

MAX_UNSETTLED = 16
"""Sessions without a stop and stops without a session that a station is remembered for."""

FINAL_STATES = frozenset(("ended", "closed", "joined"))
"""States of a session that may be billed."""

START_KEY = -1
"""The event key of a StartTransaction."""
STOP_KEY = -2
"""The event key of a StopTransaction."""


def make_uuid(*parts: object) -> str:
    """A UUID that depends on the parts alone (version 8: made of a hash)."""
    raw = bytearray(blake2b("\0".join(map(str, parts)).encode("utf-8", "replace"), digest_size=16).digest())
    raw[6] = raw[6] & 0x0F | 0x80
    raw[8] = raw[8] & 0x3F | 0x80
    digits = raw.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


@dataclass(slots=True)
class Session:
    """A charging session: a transaction of any version, or a stop that has not found one.

    Fields keep their order: they are stored as an array. New ones go to the end, with a default.
    """

    session_id: str
    station_id: str
    transaction_id: str
    generation: int
    version: str
    """1.6, 2.0.1 or 2.1."""
    opened_ms: int
    """When the first event was received."""
    site_id: str = ""
    evse_id: int = 0
    connector_id: int = 0
    start_key: str = ""
    """Business key of a StartTransaction, empty while none has been seen. 1.6 only."""
    id_token: str = ""
    id_token_type: str = ""
    has_token: bool = False
    group_id: str = ""
    authorization_status: str = ""
    stop_id_token: str = ""
    reservation_id: int | None = None
    remote_start_id: int | None = None
    station_tariff_id: str = ""
    """What the station says that it uses. 2.1 only."""

    started: bool = False
    """StartTransaction or Started has been seen."""
    stopped: bool = False
    """StopTransaction or Ended has been seen."""
    closed_by: str = ""
    """`next-start` or `watchdog`, where it was closed without a stop."""
    gave_up: bool = False
    """Missing events are no longer waited for."""
    was_final: bool = False
    """Whether an event has said that it may be billed."""
    joined_to: str = ""
    """An orphan's session, once it has been found."""

    started_ms: int | None = None
    """What we go by."""
    started_station_ms: int | None = None
    started_received_ms: int = 0
    ended_ms: int | None = None
    last_ms: int = 0
    """The newest event, by the time we go by."""
    last_received_ms: int = 0
    last_sample_ms: int | None = None
    """The newest meter value, by the station's time as it was sent. What is newer cannot have been seen before."""
    sample_interval_ms: int = 0
    connection_id: str = ""
    """The connection of its last event."""
    uses_own_id: bool = False
    """1.6: the station has shown that it knows the transaction's id."""

    stop_reason: str = ""
    stop_hash: int = 0
    """Tells stops of 1.6 with different content apart."""
    stop_status: str = ""
    """What the id token that stopped it was answered with."""
    charging_state: str = ""
    charged: bool = False
    """Charging has been reported."""
    seq_ranges: list[list[int]] = field(default_factory=list)
    """The seqNos seen, as [first, last], ascending."""
    started_seq_no: int | None = None
    ended_seq_no: int | None = None
    state_seq_no: int = -1
    """The seqNo that the charging state rests on."""

    flags: int = 0
    sequence: int = 0
    """Events on csms.session-events so far."""
    accounted: bool = False
    """Its begin has been held against the register's continuity."""
    status_asked: bool = False
    """GetTransactionStatus has been sent."""
    due_ms: int = 0
    """When the watchdog looks next, as it is stored; 0: never."""
    price_tariff_id: str = ""
    """The tariff that it is priced with, chosen once; empty: none."""
    price_tariff_version: int = 0
    price_time_zone: str = ""
    price_chosen: bool = False
    """Whether its tariff has been looked for."""
    price_memory: list[Any] | None = None
    """`price`, as it is stored."""
    tariff_changes: tuple[TariffChange, ...] = ()
    """Of `price_tariff_id`, in order."""
    tariff_requests: list[list[Any]] = field(default_factory=list)
    """Changes that the station was asked for and has not confirmed: the id, the station's name for the tariff, tariff
    and version, who asked and when."""
    reserved_ms: int | None = None
    """When the reservation that it uses was made; `None` if there is none that we know."""
    energy: Energy = field(default_factory=Energy)

    # Of this process only, not stored.
    is_new: bool = field(default=False, compare=False)
    change: int = field(default=0, compare=False)
    """0: nothing, 1: only what every event changes, 2: anything."""
    prefix: bytes | None = field(default=None, compare=False, repr=False)
    """Encoding of what the session's events begin with."""
    head: bytes | None = field(default=None, compare=False, repr=False)
    """The begin of the stored form, which only a `change` of anything changes."""
    price: RunningPrice | None = field(default=None, compare=False, repr=False)
    """What its cost so far is made of; `None` also while nobody has asked for `price_memory`."""

    @property
    def is_open(self) -> bool:
        """Energy may flow: neither stopped nor closed."""
        return not (self.stopped or self.closed_by or self.joined_to)

    @property
    def is_v2(self) -> bool:
        return self.version != "1.6"

    def missing(self) -> list[tuple[int, int]]:
        """The seqNos that are missing between those that have been seen."""
        ranges = self.seq_ranges
        found = [(ranges[i][1] + 1, ranges[i + 1][0] - 1) for i in range(len(ranges) - 1)]
        last = self.ended_seq_no
        if last is not None and self.started_seq_no is not None:
            # Counters may go on from one transaction to the next, and events may come after the Ended.
            found = [(a, b) for a, b in found if a > self.started_seq_no and b < last]
        return found

    @property
    def is_complete(self) -> bool:
        """Nothing is missing from its start to its stop. Spec: OCPP 2.0.1 Part 2 E 1.3.2."""
        return self.started and self.stopped and not (len(self.seq_ranges) > 1 and self.missing())

    @property
    def state(self) -> str:
        if self.joined_to:
            return "joined"
        if self.closed_by and not self.stopped:
            return "closed"
        if not self.stopped:
            return "open" if self.started else "incomplete"
        if not self.started and not self.is_v2:
            return "orphan"
        return "ended" if self.gave_up or self.is_complete else "ending"

    @property
    def is_final(self) -> bool:
        return self.state in FINAL_STATES


@dataclass(slots=True)
class StationState:
    """A station: what the fold keeps of it, and those of its sessions that a batch needs."""

    station_id: str
    clock: Clock = field(default_factory=Clock)
    continuity: dict[int, Continuity] = field(default_factory=dict)
    """By EVSE."""
    public_keys: dict[int, str] = field(default_factory=dict)
    """Hash of the meter's public key by EVSE."""
    connection_id: str = ""
    connected_ms: int = 0
    """When the first event of that connection was received."""
    unattributed_uwh: int = 0
    unsettled: list[str] = field(default_factory=list)
    """Ids of sessions closed without a stop, of those that wait for missing events, and of orphans, the latest ones."""
    reservations: Reservations | None = None
    """`None` if it never had any."""
    reservations_due_ms: int = 0
    """When the next of them is taken to have expired; 0: never. Not stored."""

    sessions: dict[str, Session] = field(default_factory=dict)
    transactions: dict[str, list[Session]] = field(default_factory=dict)
    """By transaction id; several where the station used an id again, oldest first."""
    looked_up: set[str] = field(default_factory=set)
    """The transaction ids of which all sessions are here."""
    site_id: str = ""
    quirks: dict[str, Any] = field(default_factory=dict)
    is_new: bool = False
    changed: bool = False

    def remove(self, session: Session) -> None:
        """Leave a session to the tables."""
        del self.sessions[session.session_id]
        same = self.transactions[session.transaction_id]
        same.remove(session)
        if not same:
            del self.transactions[session.transaction_id]
        self.looked_up.discard(session.transaction_id)

    def add(self, session: Session) -> None:
        if session.session_id in self.sessions:
            return
        self.sessions[session.session_id] = session
        same = self.transactions.setdefault(session.transaction_id, [])
        same.append(session)
        if len(same) > 1:
            same.sort(key=lambda each: each.generation)

    def find(self, transaction_id: str) -> Session | None:
        """The latest session of a transaction id."""
        same = self.transactions.get(transaction_id)
        return same[-1] if same else None

    def open_sessions(self) -> Iterator[Session]:
        return (session for session in self.sessions.values() if session.is_open)

    def unsettle(self, session_id: str) -> None:
        """Remember a session that may yet get its stop, or a stop that may yet get its session."""
        if session_id not in self.unsettled:
            self.unsettled = [*self.unsettled, session_id][-MAX_UNSETTLED:]
            self.changed = True

    def settle(self, session_id: str) -> None:
        if session_id in self.unsettled:
            self.unsettled = [each for each in self.unsettled if each != session_id]
            self.changed = True


Point = tuple[int, int | None, int | None, int | None]
"""(time we go by, register, power, current) of one instant; millionths."""


@dataclass(slots=True)
class Cause:
    """What an event of a session rests on."""

    moment: Moment
    trigger: str
    seq_no: int | None = None
    offline: bool = False
    charging_state: str = ""
    points: Sequence[Point] = ()
    soc_micro: int | None = None
    signed: Sequence[SignedReading] = ()
    cost_details: dict[str, Any] | None = None


@dataclass(slots=True)
class EventRow:
    """A row of `sessions.meter_values`."""

    session_id: str
    event_key: int
    content_hash: int
    station_id: str
    evse_id: int
    event: str
    trigger: str | None
    in_session: bool
    at_ms: int
    station_ms: int | None
    received_ms: int
    samples: Samples | None = None
    shift_ms: int = 0
    payload: bytes | None = None


@dataclass(slots=True)
class SignedRow:
    """A row of `sessions.signed_values`."""

    session_id: str
    event_key: int
    reading: SignedReading


@dataclass(slots=True)
class AuthorizationRow:
    """A row of `sessions.authorizations`."""

    station_id: str
    received_ms: int
    action: str
    id_token: str
    id_token_type: str
    status: str
    session_id: str | None = None


@dataclass(slots=True)
class ReservationRow:
    """A row of `sessions.reservation_updates`."""

    station_id: str
    reservation_id: int
    status: str
    received_ms: int


@dataclass(slots=True)
class TariffChangeRow:
    """A row of `sessions.tariff_changes`."""

    change_id: str
    session_id: str
    station_id: str
    tariff_id: str
    version: int
    status: str
    """applied, asked (the station was, and has not said that it uses the tariff) or refused."""
    requested_by: str
    requested_ms: int
    at_ms: int | None = None
    """From when on it holds."""
    command_id: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What the fold decides by, from the service's settings."""

    tokens: TokenPolicy = field(default_factory=TokenPolicy)
    max_power_w: int = 500_000
    """What a connector can deliver at most, where the station's quirks do not say; used for plausibility only."""
    unattributed_tolerance_uwh: int = 0
    """Gaps between sessions up to this are counted, and told no one."""
    open_timeout_ms: int = 86_400_000
    """A transaction of which nothing is heard for so long is closed."""
    silent_timeout_ms: int = 900_000
    """The same, after the station has come back on another connection without a word of it."""
    silent_intervals: int = 5
    """… and after at least so many of its sample intervals."""
    gap_query_ms: int = 60_000
    """After the end of a session with missing events: when its station is asked whether it holds them."""
    gap_timeout_ms: int = 900_000
    """After the end of a session with missing events: when they are given up."""
    command_timeout_ms: int = 300_000
    """How long such a question may take."""
    reservation_grace_ms: int = 300_000
    """A reservation of which nothing is heard until so long after its time has expired."""


NO_TARIFFS = TariffBook()


@dataclass(slots=True)
class State:
    """What a batch reads and writes."""

    policy: Policy = field(default_factory=Policy)
    tariffs: TariffBook = NO_TARIFFS
    stations: dict[str, StationState] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)
    uses: dict[str, set[str]] = field(default_factory=dict)
    """Sessions that a token has open, by its key, for the tokens of this batch."""
    known: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    """Content hashes of events that were stored before and of those of this batch, by session and event key."""

    rows: list[EventRow] = field(default_factory=list)
    signed: list[SignedRow] = field(default_factory=list)
    authorizations: list[AuthorizationRow] = field(default_factory=list)
    reservations: list[ReservationRow] = field(default_factory=list)
    tariff_changes: list[TariffChangeRow] = field(default_factory=list)
    told_reservations: dict[str, Reservation] = field(default_factory=dict)
    """Those of which something is new, by key."""
    shapes: dict[int, Shape] = field(default_factory=dict)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    """What happened how often, for the metrics."""
    tariff_revision: int | None = None
    """Of what is configured of tariffs, if the database was asked for anything."""

    def station(self, station_id: str) -> StationState:
        found = self.stations.get(station_id)
        if found is None:
            found = self.stations[station_id] = StationState(station_id, is_new=True)
        return found

    def count(self, what: str, which: str = "", number: int = 1) -> None:
        key = (what, which)
        self.counts[key] = self.counts.get(key, 0) + number

    def changed_sessions(self) -> Iterator[Session]:
        return (
            session
            for station in self.stations.values()
            for session in station.sessions.values()
            if session.change or session.is_new
        )


_TRANSIENT = {"is_new", "change", "prefix", "head", "price", "energy"}
_SESSION_FIELDS = tuple(entry.name for entry in fields(Session) if entry.name not in _TRANSIENT)
_TARIFF_CHANGES = _SESSION_FIELDS.index("tariff_changes")
_HEAD = _SESSION_FIELDS.index("station_tariff_id")
_head_values = attrgetter(*_SESSION_FIELDS[:_HEAD])


def dump_session(session: Session) -> bytes:
    """The stored form: an array of two arrays' fields, the session's and its energy's."""
    if session.price is not None:
        session.price_memory = session.price.dump()
    head = session.head
    if head is None or session.change != 1:
        head = session.head = b"[" + orjson.dumps(_head_values(session))[:-1] + b","
    return head + orjson.dumps(_other_values(session, session.energy))[2:]


def _other_values(session: Session, energy: Energy) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The fields behind the head, and those of the energy: named one by one, which compiled code does in no time."""
    return (
        (
            session.station_tariff_id,
            session.started,
            session.stopped,
            session.closed_by,
            session.gave_up,
            session.was_final,
            session.joined_to,
            session.started_ms,
            session.started_station_ms,
            session.started_received_ms,
            session.ended_ms,
            session.last_ms,
            session.last_received_ms,
            session.last_sample_ms,
            session.sample_interval_ms,
            session.connection_id,
            session.uses_own_id,
            session.stop_reason,
            session.stop_hash,
            session.stop_status,
            session.charging_state,
            session.charged,
            session.seq_ranges,
            session.started_seq_no,
            session.ended_seq_no,
            session.state_seq_no,
            session.flags,
            session.sequence,
            session.accounted,
            session.status_asked,
            session.due_ms,
            session.price_tariff_id,
            session.price_tariff_version,
            session.price_time_zone,
            session.price_chosen,
            session.price_memory,
            session.tariff_changes,
            session.tariff_requests,
            session.reserved_ms,
        ),
        (
            energy.stretches,
            energy.older_uwh,
            energy.readings,
            energy.location,
            energy.begin_uwh,
            energy.begin_position,
            energy.end_uwh,
            energy.end_position,
            energy.meter_start_uwh,
            energy.meter_stop_uwh,
            energy.signed_begin_uwh,
            energy.signed_end_uwh,
            energy.interval_uwh,
            energy.intervals,
            energy.power_area,
            energy.power_at_ms,
            energy.power_uw,
            energy.total_uwh,
            energy.rung,
            energy.register_begin_uwh,
            energy.register_end_uwh,
        ),
    )


def load_session(raw: bytes) -> Session:
    """Read the stored form."""
    session_values, energy_values = orjson.loads(raw)
    if len(session_values) > _TARIFF_CHANGES:
        session_values[_TARIFF_CHANGES] = tariff_changes(session_values[_TARIFF_CHANGES])
    session = Session(*session_values)
    session.energy = Energy(*energy_values)
    return session


def dump_station(station: StationState) -> bytes:
    """The stored form of what the fold keeps of a station."""
    clock = station.clock
    value: dict[str, Any] = {
        "clock": [clock.shift_ms, clock.station_ms, clock.received_ms],
        "continuity": {
            str(evse): [each.covered_uwh, each.newest_ms, each.gaps] for evse, each in station.continuity.items()
        },
        "public_keys": {str(evse): digest for evse, digest in station.public_keys.items()},
        "connection": [station.connection_id, station.connected_ms],
        "unattributed_uwh": station.unattributed_uwh,
        "unsettled": station.unsettled,
    }
    if station.reservations is not None:
        value["reservations"] = station.reservations.dump()
    return orjson.dumps(value)


def load_station(station_id: str, raw: bytes, grace_ms: int = 0) -> StationState:
    """Read the stored form.

    Args:
        grace_ms: The policy's for reservations.
    """
    value = orjson.loads(raw)
    connection_id, connected_ms = value["connection"]
    stored = value.get("reservations")
    reservations = None if stored is None else Reservations.load(stored)
    return StationState(
        station_id=station_id,
        clock=Clock(*value["clock"]),
        continuity={int(evse): Continuity(*each) for evse, each in value["continuity"].items()},
        public_keys={int(evse): digest for evse, digest in value["public_keys"].items()},
        connection_id=connection_id,
        connected_ms=connected_ms,
        unattributed_uwh=value["unattributed_uwh"],
        unsettled=value["unsettled"],
        reservations=reservations,
        reservations_due_ms=0 if reservations is None else reservations.due_ms(grace_ms),
    )
