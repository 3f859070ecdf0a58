"""When an open session's running cost is told to its station, and what was told last. Pure.

Four things make it due: the price has changed, the cost has moved by a configured amount, the configured interval is
over and the cost is another one, and on displays of the California set also that charging turns into parking or back.
What nobody would see is not told: a cost that is the same, or that of a session that has long been silent.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from busbar.pricing import Pricer, SessionState
from busbar.pricing.edges import NextChange, PriceEdges, Prices, Situation, situation
from busbar.pricing.facts import sampled

SILENT_MS = 30 * 60_000
"""A session not heard of for so long is told nothing more until it is heard again."""


class CostMode(StrEnum):
    """How a station is told what a session costs; the quirk `cost` of a station says it."""

    NONE = "none"
    COST_UPDATED = "costUpdated"
    CALIFORNIA = "california"

    @classmethod
    def of(cls, ocpp_version: str, quirk: object) -> CostMode:
        """By default 2.x stations get CostUpdated and 1.6 stations nothing, for the set of 1.6 is an extension."""
        try:
            mode = cls(str(quirk)) if quirk else None
        except ValueError:
            mode = None
        if ocpp_version == "1.6":
            return cls.CALIFORNIA if mode is cls.CALIFORNIA else cls.NONE
        return cls.COST_UPDATED if mode is None else mode


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often a running cost is told."""

    interval_ms: int = 60_000
    """At least so long between two; 0: never by time alone."""
    amount: Decimal = Decimal(0)
    """A change of the cost by so much, in the session's currency, is told at once; 0: none is."""


@dataclass(frozen=True, slots=True)
class Told:
    """What was told last, or that nothing was worth telling."""

    at_ms: int
    cost: Decimal
    prices: str
    """Names the prices that were told, so that others are noticed."""
    parking: bool


def told_now(state: SessionState, at_ms: int, cost: Decimal, pricer: Pricer, edges: PriceEdges) -> Told:
    """What there is to tell at an instant."""
    now = standing(state, at_ms, pricer)
    return Told(at_ms, cost, prices_key(edges.prices(now)), now.parking)


def standing(state: SessionState, at_ms: int, pricer: Pricer) -> Situation:
    """Where a session stands at an instant, if nothing has happened since its last fact."""
    now = situation(state, pricer.options)
    return now.later(at_ms) if at_ms > now.at_ms else now


def is_due(last: Told | None, now: Told, cadence: Cadence, mode: CostMode) -> bool:
    """Whether what there is to tell is to be told."""
    if mode is CostMode.NONE:
        return False
    if last is None:
        return True
    if now.prices != last.prices:
        return True
    if mode is CostMode.CALIFORNIA and now.parking is not last.parking:
        return True
    if now.cost == last.cost:
        return False
    if cadence.amount and abs(now.cost - last.cost) >= cadence.amount:
        return True
    return bool(cadence.interval_ms) and now.at_ms - last.at_ms >= cadence.interval_ms


def next_look(
    last: Told, now: Situation, change: NextChange, heard_ms: int, cadence: Cadence, edges: PriceEdges
) -> int | None:
    """When to look at an open session again although nothing was heard of it; `None`: not before it is heard.

    Args:
        last: What was told last.
        now: The session as it stood then.
        change: Where its price changes next.
        heard_ms: When the session was heard of last, by our clock.
    """
    looks = [] if change.at_ms is None else [change.at_ms]
    if cadence.interval_ms and _time_costs(edges.prices(now), now):
        looks.append(last.at_ms + cadence.interval_ms)
    look = min(looks, default=None)
    return None if look is None or look > heard_ms + SILENT_MS else look


def as_of(state: SessionState, at_ms: int, pricer: Pricer) -> SessionState:
    """The session if it goes on until an instant as it was after its last fact. Energy stays as it was read last."""
    return pricer.advance(state, sampled(at_ms)) if at_ms > state.until_ms else state


def prices_key(prices: Prices) -> str:
    """Names what is charged now. What was charged once is no price any more."""
    return "/".join("-" if each is None else str(each.index) for each in prices[:3])


def _time_costs(prices: Prices, now: Situation) -> bool:
    component = prices.parking if now.parking else prices.charging
    return component is not None and bool(component.price)
