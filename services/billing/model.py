"""The state of the fold: sessions with what they cost so far, by partition, and what a batch writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import orjson

from busbar.pricing.facts import ChargingState, Fact
from busbar.pricing.session_facts import Feed, Frame, Observation
from busbar.pricing.state import SessionState
from busbar.tariffs import TariffBook
from services.billing.decoding import HEAD_FIELDS, Event, Head, Signed
from services.billing.running import CostMode
from services.billing.station_cost import StationCost
from services.billing.telling import Display, Looks, Telling

OPEN = "open"
PRICED = "priced"
UNPRICED = "unpriced"
"""It is over and has no tariff."""
FAILED = "failed"
"""It is over and could not be priced; the reason says why."""
JOINED = "joined"
"""A stop without a start that has found its session: that one is billed."""
RETURNED = "returned"
"""A reservation whose record was taken back: it has not expired after all."""

RESERVATION = "reservation"
"""The kind of events about reservations, and the flag of their charges and records."""

_UNKNOWN = Frame(0, None, None, 0, "none", None, None)

_LAST = 1 << 40
"""The order of what comes after all events of an instant."""

QUIET_MS = 60_000
"""After so long the rows of open sessions are written, even if too few batches have come since."""
MOST_WAITING = 256
"""Facts or events that wait for a tariff; with more, the session is priced from its stored facts."""


@dataclass(frozen=True, slots=True)
class Cdr:
    """A charge detail record."""

    cdr_id: str
    session_id: str
    number: int
    credit_reference_id: str
    """The record that a credit takes back; empty if this is none."""
    station_id: str
    site_id: str
    id_token: str
    started_ms: int
    ended_ms: int
    currency: str
    total_excl: Decimal
    total_incl: Decimal
    energy_uwh: int
    energy_rung: str
    tariff_id: str
    tariff_version: int
    flags: tuple[str, ...]
    ocpi: str
    bill: str
    updated_ms: int
    digest: str = field(default="", compare=False)
    """Of what it says, its own id and the site's address apart. Not stored with it."""

    @property
    def credit(self) -> bool:
        return bool(self.credit_reference_id)


@dataclass(slots=True)
class Charge:
    """A session as billing knows it."""

    head: Head
    sequence: int = 0
    """Of the last event that was folded."""
    state: str = ""
    final: bool = False
    frame: Frame = _UNKNOWN
    flags: list[str] = field(default_factory=list)
    received_ms: int = 0
    """When the newest event was received."""
    offline: bool = False
    """Its start was buffered while the station was offline."""

    feed: Feed = field(default_factory=Feed)
    price: SessionState | None = None
    """What the facts come to that have been priced; `None` if none have."""
    priced_by: tuple[str, int, str] = ("", 0, "")
    """The tariff of `price`."""
    waiting: list[Fact] = field(default_factory=list)
    """Facts that have not been priced yet."""
    untaken: list[tuple[Frame, list[Observation]]] = field(default_factory=list)
    """What of its events the feed has not taken yet: it does nothing for a session without a tariff."""
    unwritten: list[Observation] = field(default_factory=list)
    """Observations that the tables lack."""
    written: int = 0
    """How many observations the tables have."""
    loaded: list[Observation] | None = None
    """Those, if they have been loaded."""
    signed: list[Signed] = field(default_factory=list)

    status: str = OPEN
    reason: str = ""
    currency: str = ""
    cost: tuple[Decimal, Decimal] | None = None
    """Before and after tax: of an open session so far, else of the record that stands."""
    number: int = 0
    """Records so far, credits left out."""
    cdr_id: str = ""
    """The record that stands."""
    digest: str = ""
    """Of what it says."""

    station_cost: str = ""
    """What the station said last that it costs: JSON text of its costDetails. 2.1 only."""
    remark: str = ""
    """The flag that comes of it."""
    unplugged_ms: int = 0
    """When the car was unplugged after the stop, if the station told; until then it is parked."""
    parked_ms: int = 0
    """The stop from which on it was parked."""

    # Of this process only, not stored.
    standing: Cdr | None = None
    """The record that stands, if it is at hand."""
    since: int | None = None
    """The batch from which on the tables lack something of it."""
    due: bool = False
    """Its row is written with this batch."""
    display: Display | None = None
    """What its station was told of its cost; `None`: nothing yet."""
    doubtful: bool = False
    """Events came out of order: answers to its TransactionEvents tell no cost any more."""

    @property
    def is_reservation(self) -> bool:
        """Whether it is a reservation that no session used."""
        return RESERVATION in self.flags

    @property
    def observations(self) -> list[Observation] | None:
        """All of them, or `None` if they have to be loaded."""
        if not self.written:
            return [*self.unwritten, *self.parked]
        return None if self.loaded is None else [*self.loaded, *self.unwritten, *self.parked]

    @property
    def parked(self) -> list[Observation]:
        """That the car stayed after the stop, behind all that was observed by then."""
        if not self.parked_ms:
            return []
        return [(self.parked_ms, _LAST, None, None, None, ChargingState.EV_CONNECTED.value)]


@dataclass(slots=True)
class Partition:
    """The sessions of a partition's stations that are at hand, and its journal."""

    number: int
    batch: int = 0
    """Counts its batches: the next one to be written."""
    charges: dict[str, Charge] = field(default_factory=dict)
    begun: dict[int, tuple[int, list[str]]] = field(default_factory=dict)
    """By batch, oldest first, when it was (Unix milliseconds; 0: before the partition was ours), and the sessions of
    which the tables lack something since then."""
    due_ms: int | None = None
    """The rows of those that have waited since then are written with this batch."""
    events: list[Event] = field(default_factory=list)
    """Folded in this batch."""
    changed: set[str] = field(default_factory=set)
    """Sessions that something else than their events changed in this batch."""
    looks: Looks = field(default_factory=Looks)
    """When to look at sessions whose stations may have to be told a cost by the clock."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the fold decides by, from the service's settings."""

    bill_power_integral: bool = False
    """Whether energy that only samples of power tell is billed."""
    bill_cancelled_reservations: bool = False
    """Whether a reservation that was cancelled costs what one costs that is used."""
    country_code: str = ""
    party_id: str = ""
    """Of the operator in OCPI, where the site does not say."""
    journal_batches: int = 64
    """After so many batches the rows of sessions that go on are written."""
    few_events: int = 20
    """A batch with no more events of a partition writes the rows of their sessions at once."""
    telling: Telling = field(default_factory=Telling)


@dataclass(frozen=True, slots=True)
class Quiet:
    """Something of a partition's sessions has been in the journal alone for long, or since before it was ours."""

    partition: int
    since_ms: int
    """Since then at least; 0: since before it was ours."""


@dataclass(slots=True)
class State:
    """What a batch reads and writes."""

    book: TariffBook
    policy: Policy = field(default_factory=Policy)
    partitions: dict[int, Partition] = field(default_factory=dict)
    written: list[Charge] = field(default_factory=list)
    """Sessions whose rows are written."""
    cdrs: list[Cdr] = field(default_factory=list)
    unattributed: list[Event] = field(default_factory=list)
    station_costs: dict[str, StationCost] = field(default_factory=dict)
    counts: dict[tuple[str, str], float] = field(default_factory=dict)
    """What happened how often, for the metrics."""
    unplugged: dict[tuple[str, str], str] = field(default_factory=dict)
    """By station and transaction the session whose car was unplugged."""
    now_ms: int = 0
    """The time at which the batch is folded: stations are told nothing that is out of date by then."""
    cost_quirks: Mapping[str, str] = field(default_factory=dict)
    """By station how it is told what sessions cost, where that is configured, or `none` if it knows no such message."""

    def mode_of(self, head: Head) -> CostMode:
        """How the station of a session is told what it costs."""
        return CostMode.of(head.ocpp_version, self.cost_quirks.get(head.station_id))

    def count(self, what: str, which: str = "", number: float = 1) -> None:
        key = (what, which)
        self.counts[key] = self.counts.get(key, 0) + number


_FORMAT = 1


def dump_charge(charge: Charge) -> bytes:
    """The stored form."""
    head = charge.head
    price = charge.price
    return orjson.dumps(
        [
            _FORMAT,
            [getattr(head, name) for name in HEAD_FIELDS],
            charge.sequence,
            charge.state,
            charge.final,
            tuple(charge.frame),
            charge.flags,
            charge.received_ms,
            charge.offline,
            _stored_feed(charge),
            None if price is None else orjson.Fragment(price.to_bytes()),
            charge.priced_by,
            charge.written,
            charge.signed,
            charge.status,
            charge.reason,
            charge.currency,
            None if charge.cost is None else [str(side) for side in charge.cost],
            charge.number,
            charge.cdr_id,
            charge.digest,
            charge.station_cost,
            charge.remark,
            charge.unplugged_ms,
            charge.parked_ms,
        ]
    )


def _stored_feed(charge: Charge) -> list[Any]:
    """What waits is not stored: without it, pricing begins anew from the observations."""
    if not charge.waiting and not charge.untaken:
        return charge.feed.to_list()
    feed = charge.feed.copy()
    feed.exact = False
    return feed.to_list()


def load_charge(raw: bytes) -> Charge:
    """Read the stored form. Raises `ValueError` for another version's."""
    stored_format, *values = orjson.loads(raw)
    if stored_format != _FORMAT:
        raise ValueError(f"a session of format {stored_format}, not {_FORMAT}")
    (
        head,
        sequence,
        state,
        final,
        frame,
        flags,
        received_ms,
        offline,
        feed,
        price,
        priced_by,
        written,
        signed,
        status,
        reason,
        currency,
        cost,
        number,
        cdr_id,
        digest,
        station_cost,
        remark,
        unplugged_ms,
        parked_ms,
    ) = values
    return Charge(
        head=Head(*head),
        sequence=sequence,
        state=state,
        final=final,
        frame=Frame.from_list(frame),
        flags=flags,
        received_ms=received_ms,
        offline=offline,
        feed=Feed.from_list(feed),
        price=None if price is None else SessionState.from_bytes(orjson.dumps(price)),
        priced_by=(priced_by[0], priced_by[1], priced_by[2]),
        written=written,
        signed=[_signed(each) for each in signed],
        status=status,
        reason=reason,
        currency=currency,
        cost=None if cost is None else (Decimal(cost[0]), Decimal(cost[1])),
        number=number,
        cdr_id=cdr_id,
        digest=digest,
        station_cost=station_cost,
        remark=remark,
        unplugged_ms=unplugged_ms,
        parked_ms=parked_ms,
    )


def _signed(value: Sequence[Any]) -> Signed:
    at_ms, context, data, encoding, signing, key = value
    return at_ms, context, data, encoding, signing, key


def add_batch(partition: Partition, charges: Iterable[Charge], now_ms: int) -> None:
    """Note since which batch the tables lack something of these sessions."""
    begun: list[str] = []
    for charge in charges:
        if charge.since is None:
            charge.since = partition.batch
            begun.append(charge.head.session_id)
    if begun:
        partition.begun[partition.batch] = now_ms, begun
