"""What is known of a station's reservations, and what became of each: a function of the facts, whatever their order.

Answers to commands, messages of the station and its sessions stand on topics of their own and may be read in any order.
So every fact is kept with its instant, and what became of the reservations of an id is worked out anew from all facts
whenever one is added. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from services.sessions.tokens import token_key

RESERVED = "reserved"
"""The station holds it."""
USED = "used"
EXPIRED = "expired"
CANCELLED = "cancelled"
REMOVED = "removed"
"""The station took it away."""
REPLACED = "replaced"
"""Its id was given to the reservation of another id token."""

ACCEPTED_WORD = "Accepted"
ENDS = {"Expired": EXPIRED, "NoTransaction": EXPIRED, "Cancelled": CANCELLED, "Removed": REMOVED}
"""By word: ReservationUpdateStatusEnumType of 2.x, and `Cancelled` for a CancelReservation that was accepted."""

MOST_COMMANDS = 16
"""Commands of a station that are remembered until they are answered, and answers until their commands are known."""
MOST_IDS = 16
"""Reservation ids of a station that are remembered; those that hold are kept whatever their number."""
_MOST_STRETCHES = 6
"""Reservations of one id that are remembered."""
_MOST_LOOSE = 16
"""Words and claims on an id that no reservation has been found for."""


class Order(NamedTuple):
    """What a ReserveNow asks for."""

    command_id: str
    reservation_id: int
    version: str
    """1.6 or 2.0.1, by the form of its payload."""
    evse_id: int
    """1.6: the connector. 0: any."""
    connector_id: int
    id_token: str
    id_token_type: str
    group_id: str
    expires_ms: int


class Acceptance(NamedTuple):
    """The station has accepted a ReserveNow."""

    at_ms: int
    version: str
    """As the answer says it; empty if it does not."""
    order: Order


class Word(NamedTuple):
    """The end of a reservation, as the station says it, or as it accepted it."""

    at_ms: int
    status: str


class Claim(NamedTuple):
    """A session says that it uses the reservation."""

    at_ms: int
    """When it began."""
    session_id: str


@dataclass(slots=True)
class Stretch:
    """One reservation of an id, from the first acceptance to its end."""

    first: Order
    """The one that made it."""
    made_ms: int
    order: Order
    """The newest one: a ReserveNow with the id of a reservation that holds replaces what it says."""
    version: str
    status: str = RESERVED
    ended_ms: int | None = None
    session_id: str = ""
    """That uses it."""
    word: str = ACCEPTED_WORD
    """What became of it last."""

    def end(self, status: str, at_ms: int, word: str) -> None:
        """It is over; at once if it was made for a time that is past."""
        self.status, self.ended_ms, self.word = status, max(at_ms, self.made_ms), word

    def use(self, claim: Claim) -> None:
        self.session_id = claim.session_id
        self.status, self.ended_ms, self.word = USED, claim.at_ms, "Used"

    def takes(self, claim: Claim, grace_ms: int) -> bool:
        """Whether a session may use it. That it did counts for more than that the station gave the reservation up."""
        return self.status in (RESERVED, EXPIRED, REMOVED) and claim.at_ms <= self.order.expires_ms + grace_ms


def timeline(
    acceptances: Iterable[Acceptance], words: Iterable[Word], claims: Iterable[Claim], looked_ms: int, grace_ms: int
) -> list[Stretch]:
    """What became of the reservations of one id, oldest first.

    Args:
        looked_ms: Up to when the clock is known to have come.
        grace_ms: How long after its expiry a reservation of which nothing is heard is taken to have expired, and by how
            much the clock of a station may differ from ours.
    """
    facts: list[tuple[int, int, str, Acceptance | Word | Claim]] = [
        *((each.at_ms, 0, each.order.command_id, each) for each in acceptances),
        *((each.at_ms, 1, each.session_id, each) for each in claims),
        *((each.at_ms, 2, each.status, each) for each in words),
    ]
    facts.sort(key=_place)
    found: list[Stretch] = []
    waiting: list[Claim] = []
    for at_ms, _, _, fact in facts:
        last = found[-1] if found else None
        if isinstance(fact, Acceptance):
            if last is None or not _goes_on(last, fact):
                made = Stretch(fact.order, at_ms, fact.order, fact.version or fact.order.version)
                found.append(made)
                _take_waiting(made, waiting, grace_ms)
        elif isinstance(fact, Claim):
            if last is not None and last.takes(fact, grace_ms):
                last.use(fact)
            else:
                waiting.append(fact)
        elif last is not None and last.status == RESERVED:
            _end(last, fact, grace_ms)
    if found and found[-1].status == RESERVED and found[-1].order.expires_ms + grace_ms <= looked_ms:
        found[-1].end(EXPIRED, found[-1].order.expires_ms, "Expired")
    return found


def _place(fact: tuple[int, int, str, Any]) -> tuple[int, int, str]:
    return fact[:3]


def _goes_on(last: Stretch, acceptance: Acceptance) -> bool:
    """Whether a reservation goes on as another ReserveNow has it; ends it where not.

    Spec: OCPP 1.6 §5.13, 2.0.1 H01: one with the id of a reservation replaces it.
    """
    if last.status != RESERVED:
        return False
    if acceptance.at_ms > last.order.expires_ms:
        last.end(EXPIRED, last.order.expires_ms, "Expired")
        return False
    if token_key(last.order.id_token) != token_key(acceptance.order.id_token):
        last.end(REPLACED, acceptance.at_ms, "Replaced")
        return False
    last.order = acceptance.order
    return True


def _take_waiting(made: Stretch, waiting: list[Claim], grace_ms: int) -> None:
    """A session that seems to have begun just before its reservation: the station's clock is a little behind ours."""
    for claim in reversed(waiting):
        if made.made_ms - claim.at_ms <= grace_ms:
            made.use(claim)
            waiting.remove(claim)
            return


def _end(last: Stretch, word: Word, grace_ms: int) -> None:
    expires_ms, status = last.order.expires_ms, ENDS[word.status]
    if word.at_ms > expires_ms + grace_ms:
        last.end(EXPIRED, expires_ms, "Expired")
    elif status == EXPIRED:
        last.end(EXPIRED, min(word.at_ms, expires_ms), word.status)
    else:
        last.end(status, word.at_ms, word.status)


@dataclass(slots=True)
class Reservation:
    """A reservation as it was told last; a row of `sessions.reservations`. Fields keep their order: it is stored."""

    key: str
    """A UUID made of the station, the id and the command that made it."""
    station_id: str
    reservation_id: int
    command_id: str
    site_id: str
    tariff_id: str
    """What was assigned when it was made; empty: nothing."""
    tariff_version: int
    time_zone: str
    sequence: int = 0
    """Events on csms.session-events so far."""
    version: str = ""
    evse_id: int = 0
    connector_id: int = 0
    id_token: str = ""
    id_token_type: str = ""
    group_id: str = ""
    made_ms: int = 0
    expires_ms: int = 0
    status: str = ""
    ended_ms: int | None = None
    session_id: str = ""
    word: str = ""

    def take(self, stretch: Stretch) -> bool:
        """Be as the facts have it; returns whether that is anything new."""
        order = stretch.order
        known = self.to_list()
        self.version, self.evse_id, self.connector_id = stretch.version, order.evse_id, order.connector_id
        self.id_token, self.id_token_type, self.group_id = order.id_token, order.id_token_type, order.group_id
        self.made_ms, self.expires_ms = stretch.made_ms, order.expires_ms
        self.status, self.ended_ms = stretch.status, stretch.ended_ms
        self.session_id, self.word = stretch.session_id, stretch.word
        return known != self.to_list()

    def to_list(self) -> list[Any]:
        """The stored form."""
        return [
            self.key,
            self.station_id,
            self.reservation_id,
            self.command_id,
            self.site_id,
            self.tariff_id,
            self.tariff_version,
            self.time_zone,
            self.sequence,
            self.version,
            self.evse_id,
            self.connector_id,
            self.id_token,
            self.id_token_type,
            self.group_id,
            self.made_ms,
            self.expires_ms,
            self.status,
            self.ended_ms,
            self.session_id,
            self.word,
        ]


@dataclass(slots=True)
class History:
    """What is known of one reservation id of a station."""

    acceptances: list[Acceptance] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    looked_ms: int = 0
    since_ms: int = 0
    """What was before is forgotten."""
    told: dict[str, Reservation] = field(default_factory=dict)
    """By key, oldest first."""

    @property
    def holds(self) -> bool:
        return any(each.status == RESERVED for each in self.told.values())

    @property
    def last_ms(self) -> int:
        times = [each.at_ms for each in self.acceptances]
        times += [each.at_ms for each in self.words]
        times += [each.at_ms for each in self.claims]
        return max(times, default=0)

    def stretches(self, grace_ms: int) -> list[Stretch]:
        """What became of its reservations; facts about those of long ago are forgotten."""
        found = timeline(self.acceptances, self.words, self.claims, self.looked_ms, grace_ms)
        if len(found) > _MOST_STRETCHES:
            found = found[-_MOST_STRETCHES:]
            since_ms = self.since_ms = found[0].made_ms
            self.acceptances = [each for each in self.acceptances if each.at_ms >= since_ms]
            self.words = [each for each in self.words if each.at_ms >= since_ms]
            self.told = {key: each for key, each in self.told.items() if each.made_ms >= since_ms}
        self.words = self.words[-_MOST_LOOSE:]
        users = {each.session_id for each in found}
        loose = [each for each in self.claims if each.session_id not in users][-_MOST_LOOSE:]
        self.claims = [each for each in self.claims if each.session_id in users or each in loose]
        return found

    def has_accepted(self, command_id: str) -> bool:
        """Whether the acceptance of a command is known."""
        return any(each.order.command_id == command_id for each in self.acceptances)

    def claim(self, session_id: str) -> Claim | None:
        """What a session claims."""
        for each in self.claims:
            if each.session_id == session_id:
                return each
        return None


@dataclass(slots=True)
class Reservations:
    """Everything that is known of a station's reservations."""

    asked: dict[str, Order | int] = field(default_factory=dict)
    """By command, until it is answered: what a ReserveNow asks for, or the id that a CancelReservation is about."""
    accepted: dict[str, tuple[int, str]] = field(default_factory=dict)
    """By command whose content is not known yet: when the station accepted it, and its version."""
    histories: dict[int, History] = field(default_factory=dict)
    """By reservation id."""

    def history(self, reservation_id: int) -> History:
        """What is known of an id. Those of which least was heard lately are forgotten."""
        found = self.histories.get(reservation_id)
        if found is None:
            found = self.histories[reservation_id] = History()
            idle = [key for key, each in self.histories.items() if key != reservation_id and not each.holds]
            idle.sort(key=self._last_ms)
            del idle[max(0, len(self.histories) - MOST_IDS) :]
            for key in idle:
                del self.histories[key]
        return found

    def _last_ms(self, reservation_id: int) -> int:
        return self.histories[reservation_id].last_ms

    def remember(self, command_id: str, asked: Order | int) -> None:
        """A command that is not answered yet."""
        self.asked[command_id] = asked
        while len(self.asked) > MOST_COMMANDS:
            del self.asked[next(iter(self.asked))]

    def remember_answer(self, command_id: str, at_ms: int, version: str) -> None:
        """The station has accepted a command that is not known yet."""
        self.accepted.setdefault(command_id, (at_ms, version))
        while len(self.accepted) > MOST_COMMANDS:
            del self.accepted[next(iter(self.accepted))]

    def due_ms(self, grace_ms: int) -> int:
        """When the next one is taken to have expired; 0: never."""
        held = [
            each.expires_ms
            for history in self.histories.values()
            for each in history.told.values()
            if each.status == RESERVED
        ]
        return min(held) + grace_ms if held else 0

    def dump(self) -> list[Any]:
        """The stored form: values that JSON has."""
        return [
            {key: each if isinstance(each, int) else tuple(each) for key, each in self.asked.items()},
            self.accepted,
            [
                [
                    reservation_id,
                    [(each.at_ms, each.version, tuple(each.order)) for each in history.acceptances],
                    [tuple(each) for each in history.words],
                    [tuple(each) for each in history.claims],
                    history.looked_ms,
                    history.since_ms,
                    [each.to_list() for each in history.told.values()],
                ]
                for reservation_id, history in self.histories.items()
            ],
        ]

    @classmethod
    def load(cls, stored: Sequence[Any]) -> Reservations:
        """Read the stored form."""
        asked, accepted, histories = stored
        return cls(
            {key: each if isinstance(each, int) else Order(*each) for key, each in asked.items()},
            {key: (at_ms, version) for key, (at_ms, version) in accepted.items()},
            {reservation_id: _history(*parts) for reservation_id, *parts in histories},
        )


def _history(
    acceptances: list[Any], words: list[Any], claims: list[Any], looked_ms: int, since_ms: int, told: list[list[Any]]
) -> History:
    return History(
        [Acceptance(at_ms, version, Order(*order)) for at_ms, version, order in acceptances],
        [Word(*each) for each in words],
        [Claim(*each) for each in claims],
        looked_ms,
        since_ms,
        {each[0]: Reservation(*each) for each in told},
    )
