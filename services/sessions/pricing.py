"""What a session costs while it goes on: its tariff, chosen once, and what its events tell, priced as it comes. Pure.

The bill is made by the billing service, from the same facts with the same engine. Here is only what the driver is told:
nothing where it is not certain, because events came out of order or are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from busbar.pricing.assignment import Scope, SessionStart
from busbar.pricing.engine import Pricer
from busbar.pricing.facts import Fact
from busbar.pricing.session_facts import Feed, Frame, Observation, TariffChange, observe, with_changes
from busbar.pricing.state import SessionState
from services.sessions.model import Cause, Session, State, StationState
from services.sessions.tokens import ACCEPTED, Authorization, Token, token_key

MOST_WAITING = 64
"""Events that are kept until the id token is known, which may decide over the tariff."""


@dataclass(slots=True)
class RunningPrice:
    """What a session's cost so far is made of."""

    waiting: list[tuple[Frame, list[Observation]]] = field(default_factory=list)
    """Events since the begin, while no tariff has been chosen."""
    feed: Feed = field(default_factory=Feed)
    price: SessionState | None = None

    def dump(self) -> list[Any]:
        """The stored form: values that JSON has."""
        if self.price is None:
            return [[[tuple(frame), observations] for frame, observations in self.waiting]]
        return [[], self.feed.to_list(), self.price.to_bytes().decode()]

    @classmethod
    def load(cls, stored: list[Any]) -> RunningPrice:
        """Read the stored form."""
        waiting = [(Frame.from_list(frame), [tuple(each) for each in told]) for frame, told in stored[0]]
        if len(stored) == 1:
            return cls(waiting)
        return cls(waiting, Feed.from_list(stored[1]), SessionState.from_bytes(stored[2]))


def follow(state: State, session: Session, cause: Cause) -> None:
    """Price what an event of a session tells, and choose the tariff first if that can be done now.

    Comes before the event is told, so that it says the tariff.
    """
    if session.price_chosen:
        running = _running(session)
        if running is None:
            return
        assert running.price is not None
        frame, observations = _told(session, cause)
        if session.reserved_ms is not None and running.feed.reserved_ms is None:
            _reserve(state, session, running, session.reserved_ms)
        facts = running.feed.take(frame, observations)
        _price(state, session, running, facts)
        return
    running = _running(session)
    if running is None and session.is_v2 and not session.sequence:
        running = session.price = RunningPrice()  # 1.6 has no answer that could tell a cost
    if running is not None:
        running.waiting.append(_told(session, cause))
    if session.has_token or session.is_final or session.sequence + 1 >= MOST_WAITING:
        _choose(state, session, running)


def _choose(state: State, session: Session, running: RunningPrice | None) -> None:
    """Freeze the tariff. It is that of when the session was first heard of, whenever this happens to be found out."""
    book = state.tariffs
    start = SessionStart(
        at_ms=session.opened_ms,
        station_id=session.station_id,
        connector_id=session.connector_id or None,
        evse_id=(session.evse_id or None) if session.is_v2 else None,
        site_id=session.site_id or None,
        token_key=token_key(session.id_token) or None if session.has_token else None,
        group_id=session.group_id or None,
    )
    version = book.decide(start).version
    session.price_chosen, session.prefix, session.change = True, None, 2
    state.count("tariffs", "none" if version is None else "chosen")
    if version is None:
        _give_up(session)
        return
    session.price_tariff_id, session.price_tariff_version = version.tariff_id, version.version
    session.price_time_zone = book.time_zone(start.site_id)
    if running is None:
        return
    waiting, running.waiting = running.waiting, []
    if session.reserved_ms is not None:  # which may have become known last, and comes first
        waiting = [(frame._replace(reserved_ms=session.reserved_ms), told) for frame, told in waiting]
    facts = [fact for frame, observations in waiting for fact in running.feed.take(frame, observations)]
    _price(state, session, running, facts)


def _reserve(state: State, session: Session, running: RunningPrice, reserved_ms: int) -> None:
    """Put the reserved time before what has been priced: its reservation has become known only now."""
    pricer = _pricer(state, session)
    if pricer is not None and running.price is not None and running.feed.exact:
        running.price, running.feed.reserved_ms = pricer.reserve(running.price, reserved_ms), reserved_ms


def _price(state: State, session: Session, running: RunningPrice, facts: list[Fact]) -> None:
    pricer = _pricer(state, session) if running.feed.exact else None
    if pricer is None:
        state.count("tariffs", "uncertain")
        _give_up(session)
        return
    running.price = pricer.advance_all(running.price or pricer.begin(), facts)


def total_cost(state: State, session: Session) -> Decimal | None:
    """What a session costs by now, taxes included; its final cost once it is over. `None` if that is not certain."""
    running = _running(session) if session.price_tariff_id else None
    if running is None or running.price is None or session.energy.rung == "power_integral":
        return None
    pricer = _pricer(state, session)
    if pricer is None:
        return None
    if session.is_open:
        return pricer.cost(with_changes(pricer, running.price, session.tariff_changes)).incl_tax
    if not session.is_complete:
        return None
    end = running.feed.end(_frame(session, session.last_ms))
    return None if end is None else pricer.finish(pricer.advance_all(running.price, end)).total.incl_tax


def transaction_limit(session: Session, token: Token | None) -> dict[str, Any]:
    """The TransactionLimitType of what a token may charge for; empty without limits. Spec: OCPP 2.1 E16."""
    if token is None:
        return {}
    found: dict[str, Any] = {}
    if token.max_cost is not None and session.price_tariff_id:
        found["maxCost"] = float(token.max_cost)
    if token.max_energy_wh is not None:
        found["maxEnergy"] = token.max_energy_wh
    if token.max_time_seconds is not None:
        found["maxTime"] = token.max_time_seconds
    return found


def driver_tariff(
    state: State, station: StationState, id_token: str, authorization: Authorization, at_ms: int
) -> str | None:
    """The tariff of an id token as a TariffType of OCPP 2.1, as JSON text.

    Only one that is assigned to the token or its group, and only if the station would come to the same price with it.
    """
    key = token_key(id_token)
    if authorization.status != ACCEPTED or not key or not state.tariffs.assigns:
        return None
    start = SessionStart(
        at_ms=at_ms,
        station_id=station.station_id,
        site_id=station.site_id or None,
        token_key=key,
        group_id=authorization.group_id or None,
    )
    decision = state.tariffs.decide(start)
    if decision.version is None or decision.assignment is None:
        return None
    if decision.assignment.scope not in (Scope.TOKEN, Scope.TOKEN_GROUP):
        return None
    return state.tariffs.tariff_type(decision.version)


def _running(session: Session) -> RunningPrice | None:
    if session.price is None and session.price_memory is not None:
        session.price = RunningPrice.load(session.price_memory)
    return session.price


def _give_up(session: Session) -> None:
    session.price = session.price_memory = None


def _pricer(state: State, session: Session) -> Pricer | None:
    try:
        return pricer_of(state, session, session.tariff_changes)
    except (KeyError, ValueError):
        return None


def pricer_of(state: State, session: Session, changes: Sequence[TariffChange]) -> Pricer:
    """What prices a session with its tariff and these changes of it. Raises what `TariffBook.pricer` does."""
    following = tuple(change[1:] for change in changes) if changes else ()
    tariff_id, version, time_zone = session.price_tariff_id, session.price_tariff_version, session.price_time_zone
    return state.tariffs.pricer(tariff_id, version, time_zone, following)


def _told(session: Session, cause: Cause) -> tuple[Frame, list[Observation]]:
    """What an event tells, as `csms.session-events` will have it."""
    at_ms = cause.moment.at_ms
    order = session.sequence + 1 if cause.seq_no is None else cause.seq_no
    return _frame(session, at_ms), observe(at_ms, order, cause.charging_state, cause.points)


def _frame(session: Session, at_ms: int) -> Frame:
    energy = session.energy
    return Frame(
        at_ms,
        session.started_ms,
        session.ended_ms,
        energy.total_uwh,
        energy.rung,
        energy.register_begin_uwh,
        energy.register_end_uwh,
        session.tariff_changes,
        session.reserved_ms,
    )
