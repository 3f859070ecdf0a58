"""What the stations of sessions are told of their cost: commands, made where the fold has priced a session.

What was told last is kept in memory only: a process that takes over tells the next time that it hears of a session,
which is once too often at worst.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from heapq import heappop, heappush
from typing import Any

from busbar.pricing.bill import Bill
from busbar.pricing.edges import NextChange, PriceEdges
from busbar.pricing.engine import Pricer
from busbar.pricing.money import decimal_of
from busbar.pricing.state import NONE, SessionState
from busbar.records import Result
from busbar.tariffs import MAX_PRICERS
from services.billing.commands import command, make_id
from services.billing.costmsg import (
    Standing,
    cost_updated,
    cost_updated_with_prices,
    final_cost_16,
    running_cost_16,
)
from services.billing.running import Cadence, CostMode, Told, as_of, is_due, next_look, standing, told_now

COMMAND_MS = 30_000
"""A cost that has not reached its station by then is out of date."""
FINAL_MS = 600_000
"""So long after its end nobody looks at a display any more."""


@dataclass(frozen=True, slots=True)
class Telling:
    """How stations are told what sessions cost, from the service's settings."""

    cadence: Cadence = field(default_factory=Cadence)
    receipt_url: str = ""
    """Where a driver finds the receipt of a session; `{session_id}` stands for it. Empty: there is none."""


@dataclass(slots=True)
class Display:
    """What a session's station shows, as far as we told it."""

    told: Told | None = None
    calm_until_ms: int = 0
    """By our clock; before that nothing that is heard of the session can make anything worth telling."""
    answered_ms: int = 0
    """When the answer to a TransactionEvent told the station the cost last; the answers are not ours."""
    look_ms: int | None = None
    """When to look at the session although nothing was heard of it."""


@dataclass(frozen=True, slots=True)
class Look:
    """It is time to look at a session of which nothing was heard."""

    partition: int
    session_id: str
    at_ms: int


@dataclass(slots=True)
class Looks:
    """When to look at which session, the earliest first. An entry that a display does not know any more is void."""

    heap: list[tuple[int, str]] = field(default_factory=list)

    def add(self, at_ms: int, session_id: str) -> None:
        heappush(self.heap, (at_ms, session_id))

    def due(self, now_ms: int) -> list[tuple[int, str]]:
        """Take out what has come due."""
        found = []
        while self.heap and self.heap[0][0] <= now_ms:
            found.append(heappop(self.heap))
        return found


@dataclass(frozen=True, slots=True)
class Subject:
    """A session that is told of."""

    session_id: str
    station_id: str
    transaction_id: str
    ocpp_version: str
    heard_ms: int
    """When it was heard of last, by our clock."""
    begin_uwh: int | None
    """The meter at its begin."""


_edges: dict[Pricer, PriceEdges] = {}


def edges_of(pricer: Pricer) -> PriceEdges:
    """What looks ahead in the tariff of a pricer; made once for each."""
    found = _edges.get(pricer)
    if found is None:
        if len(_edges) >= MAX_PRICERS:
            _edges.clear()
        found = _edges[pricer] = PriceEdges(pricer.tariff, pricer.time_zone, pricer.options)
    return found


def tell_running(
    display: Display,
    subject: Subject,
    price: SessionState,
    at_ms: int,
    mode: CostMode,
    telling: Telling,
    pricer: Pricer,
    *,
    answered: bool = False,
) -> Result | None:
    """Tell what a session costs by now, if that is worth telling, and note when to look again.

    Args:
        price: All that is known of it, priced.
        at_ms: Now: when the event was received, or the instant of a look.
        answered: Plain CostUpdated is not needed now, because the event's own answer says the same.
    """
    edges = edges_of(pricer)
    answered = answered and mode is CostMode.COST_UPDATED
    state = as_of(price, at_ms, pricer)
    cost = pricer.cost(state).incl_tax
    now = told_now(state, at_ms, cost, pricer, edges)
    result = None
    if _answered_lately(display, now, telling.cadence, mode):
        display.told = replace(now, at_ms=display.answered_ms)
    elif is_due(display.told, now, telling.cadence, mode):
        payload = None if answered else _running(subject, state, at_ms, cost, mode, pricer, edges)
        if payload is not None:
            result = _command(subject, mode, payload, "running", at_ms)
        display.told = now
    elif display.look_ms is not None and at_ms >= display.look_ms:
        assert display.told is not None
        display.told = replace(display.told, at_ms=at_ms, prices=now.prices)
    assert display.told is not None
    then = standing(state, display.told.at_ms, pricer)
    change = edges.next_change(then)
    display.look_ms = next_look(display.told, then, change, subject.heard_ms, telling.cadence, edges)
    display.calm_until_ms = _calm_until(display.told, change, mode, telling.cadence)
    return result


def tell_final(subject: Subject, bill: Bill, at_ms: int, mode: CostMode, telling: Telling) -> Result | None:
    """Tell a 1.6 station with a display of the California set what a session came to.

    Stations of 2.x are told with the answer to the event that ends the transaction.
    """
    transaction_id = _number(subject.transaction_id)
    if mode is not CostMode.CALIFORNIA or subject.ocpp_version != "1.6" or transaction_id is None:
        return None
    url = telling.receipt_url.replace("{session_id}", subject.session_id)
    return _command(subject, mode, final_cost_16(transaction_id, bill, url), "final", at_ms)


def tell_total(subject: Subject, total: Decimal, at_ms: int) -> Result | None:
    """Tell a 2.x station a total that it could not compute itself. Spec: OCPP 2.1 I12, failureToCalculate."""
    if subject.ocpp_version == "1.6":
        return None
    payload = cost_updated(subject.transaction_id, total)
    return _command(subject, CostMode.COST_UPDATED, payload, "total", at_ms)


def _running(
    subject: Subject,
    state: SessionState,
    at_ms: int,
    cost: Decimal,
    mode: CostMode,
    pricer: Pricer,
    edges: PriceEdges,
) -> Mapping[str, Any] | None:
    if mode is CostMode.COST_UPDATED:
        return cost_updated(subject.transaction_id, cost)
    register_wh = None
    if subject.begin_uwh is not None and state.register_uwh != NONE:
        register_wh = decimal_of(subject.begin_uwh + state.energy_uwh, 6)
    shown = Standing(at_ms, cost, register_wh, state)
    if subject.ocpp_version != "1.6":
        return cost_updated_with_prices(subject.transaction_id, shown, pricer, edges)
    transaction_id = _number(subject.transaction_id)
    return None if transaction_id is None else running_cost_16(transaction_id, shown, pricer, edges)


def _command(subject: Subject, mode: CostMode, payload: Mapping[str, Any], what: str, at_ms: int) -> Result:
    by_transfer = mode is CostMode.CALIFORNIA and subject.ocpp_version == "1.6"
    return command(
        make_id(subject.session_id, "cost", what, at_ms),
        subject.station_id,
        "DataTransfer" if by_transfer else "CostUpdated",
        payload,
        at_ms,
        COMMAND_MS,
    )


def _answered_lately(display: Display, now: Told, cadence: Cadence, mode: CostMode) -> bool:
    """Whether answers to events have told the cost within the interval, so that it need not be told by the clock."""
    if mode is not CostMode.COST_UPDATED or not cadence.interval_ms or display.told is None:
        return False
    return now.at_ms < display.answered_ms + cadence.interval_ms


def _calm_until(told: Told, change: NextChange, mode: CostMode, cadence: Cadence) -> int:
    """Until when events need not even be priced for the display's sake."""
    if mode is CostMode.CALIFORNIA or cadence.amount:
        return 0
    if change.energy_uwh is not None or change.power_mw is not None:
        return 0
    calm_ms = told.at_ms + (cadence.interval_ms or 86_400_000)
    return calm_ms if change.at_ms is None else min(calm_ms, change.at_ms)


def _number(text: str) -> int | None:
    """The transaction's id of 1.6."""
    return int(text) if text.isascii() and text.isdigit() else None
