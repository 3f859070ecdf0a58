"""What is remembered of a session that is being priced: small, bounded by the tariff, and exact as bytes.

Everything is a whole number: instants and durations in milliseconds, energy in micro-watt-hours. The only part that
grows with the session are the charging periods that are over; `SessionState.detach` takes them out, for a store that
appends them elsewhere.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from itertools import chain
from typing import Any, NamedTuple

import orjson

from busbar.pricing.facts import ChargingState

_CHUNK = 64
NONE = -1
"""No component."""
NEVER = 1 << 62
"""An instant or an amount of energy that is never reached."""


class Phase(IntEnum):
    """Where the session is."""

    NEW = 0
    RESERVED = 1
    RUNNING = 2
    ENDED = 3


class Note(StrEnum):
    """What a reader of the bill should know. Each is said once."""

    OUT_OF_ORDER = "out_of_order"
    """A fact came with an earlier instant than the one before; it was taken at the later of the two."""
    IGNORED = "ignored"
    """A fact that has no place, such as a second start or a sample after the end."""
    TOO_LONG = "too_long"
    """The session exceeds `Options.longest_days`; it is priced up to there."""
    REGISTER_FELL = "register_fell"
    """The register went down: a meter exchange or a wrap. Counting went on from the lower value."""
    REGISTER_UNREADABLE = "register_unreadable"
    """Not a number, or beyond any meter; taken as if it had not come."""
    NO_START_REGISTER = "no_start_register"
    """Energy before the first register is unknown and not billed."""
    NO_END_REGISTER = "no_end_register"
    """Energy after the last register is unknown and not billed."""
    CURRENT_UNKNOWN = "current_unknown"
    """The tariff depends on the current, and some of it was never reported: 0 A was taken."""
    PENDING_MERGED = "pending_merged"
    """Too many changes between two registers to keep each; the energy of the interval is spread over fewer."""
    NOT_ENDED = "not_ended"
    """Priced before the end."""
    TAX_UNKNOWN = "tax_unknown"
    """A price has no tax rate: it counts as untaxed."""


class PeriodKind(IntEnum):
    """What the time of a period counts as."""

    CHARGING = 0
    PARKING = 1
    RESERVED = 2


class Period(NamedTuple):
    """A stretch of the session over which nothing that matters for the price changed."""

    start_ms: int
    end_ms: int
    kind: int
    energy_uwh: int
    energy: int
    """The ENERGY component, or `NONE`; of a reservation, the EXPIRED_TIME component."""
    time: int
    """The TIME, PARKING_TIME or RESERVATION_TIME component, or `NONE`."""
    low_power_mw: int = NONE
    """Least and most power and current, where the tariff depends on them; else `NONE`."""
    high_power_mw: int = NONE
    low_current_ma: int = NONE
    high_current_ma: int = NONE


class Piece(NamedTuple):
    """A stretch since the last register whose energy is not known yet."""

    end_ms: int
    kind: int
    drawing: bool
    """Whether the EV may have drawn power."""
    power_mw: int
    """By a sample that ends it, or `NONE`."""
    current_ma: int
    part: int = 0
    """Which of `Tariff.parts` prices it."""


_FIELDS = (
    "at_ms",
    "band",
    "changes",
    "charging_ms",
    "closed",
    "current_ma",
    "detached",
    "end_ms",
    "energy",
    "energy_uwh",
    "expired",
    "fingerprint",
    "flats",
    "idle_ms",
    "kind",
    "last",
    "next_ms",
    "next_uwh",
    "notes",
    "older",
    "open",
    "open_uwh",
    "part",
    "pending",
    "phase",
    "power_mw",
    "quantities",
    "register_uwh",
    "reserved_ms",
    "start_ms",
    "state",
    "state_current_ma",
    "time",
)
_QUANTITIES = _FIELDS.index("quantities")


class SessionState:
    """A session on its way. Treated as a value: `Pricer.advance` returns another one."""

    __slots__ = _FIELDS

    fingerprint: str
    """Of the tariff that it was priced with."""
    phase: Phase
    reserved_ms: int
    """When the reservation began, or `NONE`."""
    expired: bool
    """Whether the reservation was let expire."""
    start_ms: int
    """When the session began, or `NONE`."""
    end_ms: int
    """When it ended, or `NONE`."""
    at_ms: int
    """Up to where it is priced: the instant of the last register."""
    register_uwh: int
    """The last register, or `NONE`."""
    energy_uwh: int
    """Energy of the session so far."""
    charging_ms: int
    idle_ms: int
    state: ChargingState
    """The charging state of now."""
    kind: int
    """The `PeriodKind` for which the components were chosen."""
    state_current_ma: int
    """The last current that was reported in this charging state, or `NONE`."""
    pending: tuple[Piece, ...]
    """What came since the last register."""
    quantities: dict[int, int]
    """Per component, what of it was used: all that a cost is made of."""
    last: tuple[int, int, int, int]
    """The last component used of energy, of time or parking, of reservation time and of expired time, or `NONE`."""
    flats: tuple[tuple[int, int], ...]
    """Flat fees charged: the component and the instant."""
    energy: int
    """The ENERGY component of now, or `NONE`."""
    time: int
    """The component of now that prices time, or `NONE`."""
    next_ms: int
    """When the choice of components must be looked at again."""
    next_uwh: int
    power_mw: int
    current_ma: int
    band: tuple[int, int]
    """Between which thresholds power and current were when the components were chosen."""
    open: Period | None
    """The period that goes on; its end and energy are as of its beginning."""
    open_uwh: int
    """The session's energy when it began."""
    closed: tuple[Period, ...]
    """The latest periods that are over."""
    older: tuple[tuple[Period, ...], ...]
    """Those before, in chunks: so that one more never costs a copy of all."""
    detached: int
    """How many closed periods have been taken out."""
    changes: tuple[int, ...]
    """When the tariff was changed."""
    part: int
    """Which of `Tariff.parts` the components of now are of; behind `changes` while pieces from before are pending."""
    notes: tuple[Note, ...]

    def copy(self) -> SessionState:
        other = SessionState()
        other.fingerprint = self.fingerprint
        other.phase = self.phase
        other.reserved_ms = self.reserved_ms
        other.expired = self.expired
        other.start_ms = self.start_ms
        other.end_ms = self.end_ms
        other.at_ms = self.at_ms
        other.register_uwh = self.register_uwh
        other.energy_uwh = self.energy_uwh
        other.charging_ms = self.charging_ms
        other.idle_ms = self.idle_ms
        other.kind = self.kind
        other.state = self.state
        other.state_current_ma = self.state_current_ma
        other.pending = self.pending
        other.quantities = self.quantities.copy()
        other.last = self.last
        other.flats = self.flats
        other.energy = self.energy
        other.time = self.time
        other.next_ms = self.next_ms
        other.next_uwh = self.next_uwh
        other.power_mw = self.power_mw
        other.current_ma = self.current_ma
        other.band = self.band
        other.open = self.open
        other.open_uwh = self.open_uwh
        other.closed = self.closed
        other.older = self.older
        other.detached = self.detached
        other.changes = self.changes
        other.part = self.part
        other.notes = self.notes
        return other

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SessionState) and self.to_bytes() == other.to_bytes()

    __hash__ = None  # type: ignore[assignment]

    def add_note(self, note: Note) -> None:
        if note not in self.notes:
            self.notes = (*self.notes, note)

    @property
    def until_ms(self) -> int:
        """The instant of the last fact."""
        return self.pending[-1].end_ms if self.pending else self.at_ms

    def add_period(self, period: Period) -> None:
        """Keep one more period that is over."""
        if len(self.closed) == _CHUNK:
            self.older = (*self.older, self.closed)
            self.closed = ()
        self.closed = (*self.closed, period)

    @property
    def periods(self) -> tuple[Period, ...]:
        """All periods that are over and have not been taken out."""
        return (*chain.from_iterable(self.older), *self.closed)

    def detach(self) -> tuple[SessionState, tuple[Period, ...]]:
        """The state without its closed periods, and these. `Pricer.finish` wants all that were ever taken out."""
        periods = self.periods
        other = self.copy()
        other.closed, other.older = (), ()
        other.detached += len(periods)
        return other, periods

    def to_bytes(self) -> bytes:
        """JSON text that `from_bytes` reads back into an equal state."""
        value = [getattr(self, name) for name in _FIELDS]
        value[_QUANTITIES] = list(self.quantities.items())
        return orjson.dumps([_FORMAT, *value], default=tuple)

    @classmethod
    def from_bytes(cls, data: bytes | str) -> SessionState:
        """Read what `to_bytes` wrote. Raises `ValueError` for anything else."""
        value: Any = orjson.loads(data)
        if not isinstance(value, list) or len(value) != len(_FIELDS) + 1 or value[0] != _FORMAT:
            raise ValueError("not the state of a session, or of another version")
        fields: dict[str, Any] = dict(zip(_FIELDS, value[1:], strict=True))
        fields["phase"] = Phase(fields["phase"])
        fields["state"] = ChargingState(fields["state"])
        fields["pending"] = tuple(Piece(*piece) for piece in fields["pending"])
        fields["quantities"] = {pair[0]: pair[1] for pair in fields["quantities"]}
        fields["open"] = None if fields["open"] is None else Period(*fields["open"])
        fields["closed"] = tuple(Period(*period) for period in fields["closed"])
        fields["older"] = tuple(tuple(Period(*period) for period in chunk) for chunk in fields["older"])
        fields["flats"] = tuple(tuple(pair) for pair in fields["flats"])
        fields["changes"] = tuple(fields["changes"])
        fields["notes"] = tuple(Note(note) for note in fields["notes"])
        fields["last"], fields["band"] = tuple(fields["last"]), tuple(fields["band"])
        state = cls()
        for name, item in fields.items():
            setattr(state, name, item)
        return state


_FORMAT = 2


def new_state(fingerprint: str) -> SessionState:
    """A session of which nothing is known yet."""
    state = SessionState()
    state.fingerprint = fingerprint
    state.phase = Phase.NEW
    state.reserved_ms = state.start_ms = state.end_ms = NONE
    state.expired = False
    state.at_ms = 0
    state.register_uwh = NONE
    state.energy_uwh = state.charging_ms = state.idle_ms = 0
    state.kind = PeriodKind.CHARGING
    state.state = ChargingState.CHARGING
    state.state_current_ma = NONE
    state.pending = ()
    state.quantities = {}
    state.last = (NONE, NONE, NONE, NONE)
    state.flats = ()
    state.energy = state.time = NONE
    state.next_ms = state.next_uwh = NEVER
    state.power_mw = state.current_ma = 0
    state.band = (0, 0)
    state.open = None
    state.open_uwh = 0
    state.closed, state.older = (), ()
    state.detached = 0
    state.changes = ()
    state.part = 0
    state.notes = ()
    return state
