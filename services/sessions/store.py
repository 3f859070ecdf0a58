"""PostgreSQL: what a batch needs, in one call, and what it has changed, in one call."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from struct import pack
from typing import Any

import orjson

from busbar.stream.interfaces import StoreCall
from busbar.tariffs import TariffBook
from services.sessions.cache import StationCache
from services.sessions.decoding import (
    Authorize,
    Event,
    Meter,
    ReservationAnswer,
    ReservationCommand,
    ReservationDue,
    ReservationUpdate,
    SessionDue,
    Start,
    Stop,
    TariffRequest,
    TransactionEvent,
)
from services.sessions.flags import flag_names
from services.sessions.model import (
    NO_TARIFFS,
    EventRow,
    Policy,
    Session,
    State,
    StationState,
    dump_session,
    dump_station,
    load_session,
    load_station,
)
from services.sessions.reservations import Order, Reservation
from services.sessions.samples import Shape
from services.sessions.steps import outside_id
from services.sessions.tokens import read_token, token_key
from services.sessions.transactions_2x import has_seq_no
from services.sessions.wire import sample_times

LOAD = "SELECT kind, name, detail, fold FROM sessions.load($1, $2, $3, $4, $5)"

SEEN = "SELECT session_id, event_key, content_hash FROM sessions.seen($1, $2)"

CONFIGURED_SINCE = """
SELECT station_id, site_id, quirks::text
  FROM config.stations
 WHERE updated_at >= $1::timestamptz - interval '1 minute'
"""

# Sessions that are over and name a reservation: an answer that is read after them makes it theirs.
USERS = """
SELECT t.fold
  FROM unnest($1::text[], $2::bigint[]) AS n (station_id, reservation_id),
       LATERAL (SELECT u.fold
                  FROM sessions.transactions AS u
                 WHERE u.station_id = n.station_id AND u.reservation_id = n.reservation_id AND NOT u.is_open
                 ORDER BY u.opened_at DESC
                 LIMIT 8) AS t
"""

# The watchdog's next look at a session may be early, never late: events move the deadline without moving `due_at`.
DUE = """
SELECT session_id, station_id
  FROM sessions.transactions
 WHERE due_at <= to_timestamp($1::bigint / 1000.0::float8)
 ORDER BY due_at
 LIMIT $2
"""

RESERVATIONS_DUE = """
SELECT DISTINCT station_id
  FROM sessions.reservations
 WHERE status = 'reserved' AND expires_at <= to_timestamp($1::bigint / 1000.0::float8)
 LIMIT $2
"""

STORE_FUNCTION = "sessions.store"
_TRANSACTION_COLUMNS = 33
_STATION_COLUMNS = 4


class Wanted:
    """What the events of a batch need loaded."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.stations: set[str] = set()
        self.named: set[tuple[str, str]] = set()
        self.due: set[str] = set()
        self.tokens: set[str] = set()
        self.tariffs: set[tuple[str, int]] = set()
        self.reservations: list[ReservationCommand | ReservationAnswer] = []
        self.users: set[tuple[str, int]] = set()
        """Reservations that sessions name, by station and id."""
        for event in events:
            match event:
                case TransactionEvent():
                    self._transaction(event.call.station_id, event.transaction_id)
                    if event.id_token:
                        self.tokens.add(token_key(event.id_token))
                    if event.reservation_id is not None:
                        self.users.add((event.call.station_id, event.reservation_id))
                case Meter():
                    self._transaction(event.call.station_id, event.transaction_id)
                case Start():
                    self.stations.add(event.call.station_id)
                    self.named.update((event.call.station_id, each) for each in event.candidates)
                    self.tokens.add(token_key(event.id_token))
                    if event.reservation_id is not None:
                        self.users.add((event.call.station_id, event.reservation_id))
                case Stop():
                    self._transaction(event.call.station_id, event.transaction_id)
                    if event.id_token:
                        self.tokens.add(token_key(event.id_token))
                case Authorize():
                    self.stations.add(event.call.station_id)
                    self.tokens.add(token_key(event.id_token))
                case ReservationUpdate():
                    self.stations.add(event.call.station_id)
                case TariffRequest():
                    self._transaction(event.station_id, event.transaction_id)
                    self.tariffs.add((event.tariff_id, event.version))
                case SessionDue():
                    self.stations.add(event.station_id)
                    self.due.add(event.session_id)
                case ReservationCommand() | ReservationAnswer():
                    self.stations.add(event.station_id)
                    self.reservations.append(event)
                case ReservationDue():
                    self.stations.add(event.station_id)

    def _transaction(self, station_id: str, transaction_id: str) -> None:
        self.stations.add(station_id)
        if transaction_id:
            self.named.add((station_id, transaction_id))


async def load_state(
    connection: Any,
    events: Sequence[Event],
    policy: Policy,
    cache: StationCache | None = None,
    tariffs: TariffBook = NO_TARIFFS,
) -> State:
    """The state that folding these events needs; what the cache holds of it is taken from there.

    Args:
        tariffs: Read again if the configuration of tariffs has changed.
    """
    wanted = Wanted(events)
    state = State(policy=policy, tariffs=tariffs)
    for station in cache.take(wanted.stations) if cache else ():
        state.stations[station.station_id] = station
    unknown = [station_id for station_id in wanted.stations if station_id not in state.stations]
    named = [each for each in wanted.named if not _is_here(state, *each)]
    if unknown or named or wanted.due or wanted.tokens or wanted.reservations:
        rows = await connection.fetch(
            LOAD,
            unknown,
            [station_id for station_id, _ in named],
            [transaction_id for _, transaction_id in named],
            list(wanted.due),
            list(wanted.tokens),
        )
        read_rows(state, rows)
        if state.tariff_revision is not None and state.tariff_revision != tariffs.revision:
            await tariffs.refresh(connection, state.tariff_revision)
        for station_id, transaction_id in named:
            state.station(station_id).looked_up.add(transaction_id)
    if wanted.tariffs:
        await tariffs.load(connection, wanted.tariffs)
    if wanted.reservations or wanted.users:
        await _load_reserved(connection, state, wanted)
    suspects = suspicious(state, events)
    if suspects:
        sessions, keys = zip(*suspects, strict=True)
        for session_id, key, content_hash in await connection.fetch(SEEN, sessions, keys):
            state.known.setdefault((str(session_id), key), []).append(content_hash)
    return state


async def _load_reserved(connection: Any, state: State, wanted: Wanted) -> None:
    """What reservations need beside their stations: the sessions that name them, and what is configured of tokens."""
    users, tokens = set[tuple[str, int]](), set[str]()
    asked = {event.command_id: event.asked for event in wanted.reservations if isinstance(event, ReservationCommand)}
    for event in wanted.reservations:
        known = state.station(event.station_id).reservations
        found = asked.get(event.command_id)
        if found is None and known is not None:
            found = known.asked.get(event.command_id)
        if isinstance(found, Order):
            tokens.add(token_key(found.id_token))
        if found is not None:
            users.add((event.station_id, found.reservation_id if isinstance(found, Order) else found))
    for station_id, reservation_id in wanted.users:
        known = state.station(station_id).reservations
        if known is not None and reservation_id in known.histories:
            users.add((station_id, reservation_id))
    if tokens:
        read_rows(state, await connection.fetch(LOAD, [], [], [], [], list(tokens)))
    if users:
        for (fold,) in await connection.fetch(USERS, *map(list, zip(*users, strict=True))):
            session = load_session(fold)
            state.station(session.station_id).add(session)


def _is_here(state: State, station_id: str, transaction_id: str) -> bool:
    station = state.stations.get(station_id)
    return station is not None and transaction_id in station.looked_up


def read_rows(state: State, rows: Iterable[Any]) -> None:
    """Take the rows of `LOAD` into the state. Stations come first."""
    details: list[tuple[str, str]] = []
    for kind, name, detail, fold in rows:
        if kind == "session":
            session = load_session(fold)
            state.station(session.station_id).add(session)
        elif kind == "station":
            state.stations[name] = load_station(name, fold, state.policy.reservation_grace_ms)
        elif kind == "config":
            details.append((name, detail))
        elif kind == "token":
            state.tokens[name] = read_token(orjson.loads(detail))
        elif kind == "tariffs":
            state.tariff_revision = int(detail)
        else:
            state.uses.setdefault(name, set()).add(detail)
    for name, detail in details:
        station = state.station(name)
        site_id, station.quirks = orjson.loads(detail)
        station.site_id = site_id or ""


def suspicious(state: State, events: Iterable[Event]) -> set[tuple[str, int]]:
    """Events that may have been stored before, by session and key: most can be seen at once not to be.

    A seqNo that a session has not seen is new, and so are meter values that are younger than all before them. The
    others are looked up, however long ago it was.
    """
    found: set[tuple[str, int]] = set()
    for event in events:
        if isinstance(event, TransactionEvent):
            station = state.stations.get(event.call.station_id)
            for session in station.transactions.get(event.transaction_id, ()) if station else ():
                if has_seq_no(session.seq_ranges, event.seq_no):
                    found.add((session.session_id, event.seq_no))
        elif isinstance(event, Meter):
            found.update(_suspicious_values(state, event))
    return found


def _suspicious_values(state: State, event: Meter) -> Iterable[tuple[str, int]]:
    station_id = event.call.station_id
    yield outside_id(station_id, event.evse_id), event.event_key
    station = state.stations.get(station_id)
    first = event.samples.first_ms() if event.samples is not None else None
    for session in station.sessions.values() if station else ():
        if session.evse_id != event.evse_id and session.transaction_id != event.transaction_id:
            continue
        if first is None or session.last_sample_ms is None or first <= session.last_sample_ms:
            yield session.session_id, event.event_key


async def load_due(connection: Any, now_ms: int, limit: int) -> list[tuple[str, str]]:
    """(session, station) of the sessions to look at."""
    return [(str(session_id), station_id) for session_id, station_id in await connection.fetch(DUE, now_ms, limit)]


async def load_reservations_due(connection: Any, now_ms: int, limit: int) -> list[str]:
    """Stations with a reservation that is taken to have expired.

    Args:
        now_ms: With the grace taken off.
    """
    return [station_id for (station_id,) in await connection.fetch(RESERVATIONS_DUE, now_ms, limit)]


def store_call(state: State, known_shapes: Collection[int]) -> StoreCall:
    """Everything that the batch has changed, as one call."""
    touched: list[Session] = []
    changed: list[Session] = []
    for session in state.changed_sessions():
        (changed if session.change == 2 or session.is_new else touched).append(session)
    rows = state.rows
    samples = [row.samples for row in rows]
    arguments = (
        [session.session_id for session in touched],
        [dump_session(session) for session in touched],
        [session.energy.total_uwh for session in touched],
        [session.energy.rung for session in touched],
        [session.energy.register_end_uwh for session in touched],
        [session.charging_state or None for session in touched],
        [session.last_received_ms for session in touched],
        [session.sequence for session in touched],
        [row.session_id for row in rows],
        [row.event_key for row in rows],
        [row.content_hash for row in rows],
        [row.station_id for row in rows],
        [row.evse_id for row in rows],
        [row.event for row in rows],
        [row.trigger for row in rows],
        [row.in_session for row in rows],
        [row.at_ms for row in rows],
        [row.station_ms for row in rows],
        [row.received_ms for row in rows],
        [each and each.shape.shape_id for each in samples],
        [each and each.packed() for each in samples],
        [_packed_times(row) for row in rows],
        [row.payload for row in rows],
        *_columns([_transaction(session) for session in changed], _TRANSACTION_COLUMNS),
        *_columns([_station(station) for station in state.stations.values() if station.changed], _STATION_COLUMNS),
        _json(_shape(shape) for shape_id, shape in state.shapes.items() if shape_id not in known_shapes),
        _json(
            (
                row.session_id,
                row.event_key,
                row.reading.index,
                row.reading.at_ms,
                row.reading.context,
                row.reading.data,
                row.reading.encoding_method,
                row.reading.signing_method,
                row.reading.public_key,
            )
            for row in state.signed
        ),
        _json(
            (
                row.station_id,
                row.received_ms,
                row.action,
                row.id_token,
                row.id_token_type,
                row.status,
                row.session_id,
            )
            for row in state.authorizations
        ),
        _json((row.station_id, row.reservation_id, row.status, row.received_ms) for row in state.reservations),
        _json(
            (
                row.change_id,
                row.session_id,
                row.station_id,
                row.tariff_id,
                row.version,
                row.status,
                row.requested_by,
                row.requested_ms,
                row.at_ms,
                row.command_id,
                row.reason,
            )
            for row in state.tariff_changes
        ),
        _json(_reservation(reservation) for reservation in state.told_reservations.values()),
    )
    return StoreCall(STORE_FUNCTION, arguments)


def _packed_times(row: EventRow) -> bytes | None:
    """The time of each sample, where that is not the time of the event."""
    samples = row.samples
    if samples is None:
        return None
    if len(samples.times) == 1 and samples.times[0] == row.station_ms:
        return None
    times = sample_times(samples, row.received_ms, row.shift_ms)
    return None if all(at == row.at_ms for at in times) else pack(f">{len(times)}q", *times)


def _transaction(session: Session) -> tuple[Any, ...]:
    energy = session.energy
    return (
        session.session_id,
        session.station_id,
        session.transaction_id,
        session.generation,
        session.version,
        session.site_id or None,
        session.evse_id,
        session.connector_id,
        session.id_token if session.has_token else None,
        token_key(session.id_token) if session.has_token else None,
        session.id_token_type or None,
        session.group_id or None,
        session.authorization_status or None,
        session.state,
        session.is_open,
        session.is_final,
        session.is_complete,
        session.opened_ms,
        session.started_ms,
        session.ended_ms,
        session.last_received_ms,
        session.charging_state or None,
        energy.total_uwh,
        energy.rung,
        energy.register_begin_uwh,
        energy.register_end_uwh,
        session.stop_reason or None,
        session.reservation_id,
        session.remote_start_id,
        session.sequence,
        ",".join(flag_names(session.flags)),
        session.due_ms or None,
        dump_session(session),
    )


def _station(station: StationState) -> tuple[Any, ...]:
    return station.station_id, station.unattributed_uwh, ",".join(station.unsettled), dump_station(station)


def _reservation(reservation: Reservation) -> tuple[Any, ...]:
    return (
        reservation.key,
        reservation.station_id,
        reservation.reservation_id,
        reservation.version,
        reservation.site_id or None,
        reservation.evse_id,
        reservation.connector_id,
        reservation.id_token or None,
        reservation.id_token_type or None,
        reservation.group_id or None,
        reservation.status,
        reservation.made_ms,
        reservation.expires_ms,
        reservation.ended_ms,
        reservation.session_id or None,
        reservation.tariff_id or None,
        reservation.tariff_version or None,
        reservation.time_zone or None,
        reservation.command_id,
    )


def _shape(shape: Shape) -> tuple[Any, ...]:
    return shape.shape_id, *shape.columns()


def _columns(rows: list[tuple[Any, ...]], count: int) -> Iterable[Sequence[Any]]:
    """Rows as their columns."""
    return zip(*rows, strict=True) if rows else [()] * count


def _json(rows: Iterable[tuple[Any, ...]]) -> str:
    """Rows as a JSON array; empty text for none."""
    found = list(rows)
    return orjson.dumps(found).decode() if found else ""
