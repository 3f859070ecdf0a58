"""Previews: the facts of sessions that never were, or that had another tariff, and what they would cost. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Self

from pydantic import AwareDatetime, Field, model_validator

from busbar.pricing.bill import Bill
from busbar.pricing.explanation import explain
from busbar.pricing.facts import ChargingState, Fact, ended, sampled, started
from busbar.pricing.ocpi_cdr import charging_period
from busbar.pricing.receipt import make_receipt, receipt_text
from busbar.pricing.session_facts import MICRO, Feed, Frame, load_observations
from services.api.reading import Body

MAX_FACTS = 20_000
_LONGEST_SECONDS = 400 * 86_400
_MOST_WH = 10**9

Seconds = Annotated[Decimal, Field(ge=0, le=_LONGEST_SECONDS, max_digits=12, decimal_places=3)]
EnergyWh = Annotated[Decimal, Field(ge=0, le=_MOST_WH, max_digits=16, decimal_places=6)]


class WhatIf(Body):
    """A session with constant power, and parking after it. Of energy, time and power two say the third."""

    start: AwareDatetime
    energy_wh: EnergyWh | None = None
    charging_seconds: Seconds | None = None
    power_w: Annotated[Decimal, Field(gt=0, le=_MOST_WH, max_digits=16, decimal_places=3)] | None = None
    parking_seconds: Seconds = Decimal(0)

    @model_validator(mode="after")
    def _two_of_three(self) -> Self:
        given = [name for name in ("energy_wh", "charging_seconds", "power_w") if getattr(self, name) is not None]
        if len(given) == 3:
            raise ValueError("energy_wh, charging_seconds and power_w are given: two of them say the third")
        if given == ["power_w"]:
            raise ValueError("power_w needs energy_wh or charging_seconds beside it")
        if given == ["energy_wh"] and self.energy_wh:
            raise ValueError("energy_wh needs charging_seconds or power_w beside it")
        return self

    def facts(self) -> list[Fact]:
        """The session, at its begin, at the end of charging, and at its end."""
        energy_wh, seconds, power_w = self.energy_wh or Decimal(0), self.charging_seconds, self.power_w
        if power_w is not None:
            if seconds is None:
                seconds = energy_wh * 3600 / power_w
            else:
                energy_wh = (seconds * power_w / 3600).quantize(Decimal("0.000001"))
        start_ms = unix_ms(self.start)
        charged_ms = start_ms + round((seconds or 0) * 1000)
        end_ms = charged_ms + round(self.parking_seconds * 1000)
        facts = [started(start_ms, 0, ChargingState.CHARGING if seconds else ChargingState.SUSPENDED_EV)]
        if self.parking_seconds and seconds:
            facts.append(sampled(charged_ms, energy_wh, ChargingState.SUSPENDED_EV))
        return [*facts, ended(end_ms, energy_wh)]


def facts_of_session(rows: Iterable[bytes], session: Mapping[str, Any]) -> list[Fact]:
    """The facts of a session that exists, from what was observed of it.

    Args:
        rows: `billing.facts.facts` of the session.
        session: Its row of `sessions.transactions`.
    """
    frame = Frame(
        at_ms=unix_ms(session["last_event_at"]),
        started_ms=None if session["started_at"] is None else unix_ms(session["started_at"]),
        ended_ms=None if session["ended_at"] is None else unix_ms(session["ended_at"]),
        energy_uwh=_micro(session["energy_wh"]) or 0,
        rung=session["energy_rung"],
        begin_uwh=_micro(session["register_begin_wh"]),
        end_uwh=_micro(session["register_end_wh"]),
        reserved_ms=None if session["reserved_at"] is None else unix_ms(session["reserved_at"]),
    )
    observations = [observation for row in rows for observation in load_observations(row)]
    return Feed.replay(frame, observations)[1]


def _micro(value: Decimal | None) -> int | None:
    return None if value is None else int(value * MICRO)


def unix_ms(moment: datetime) -> int:
    """Unix milliseconds, cut off."""
    return (moment - datetime.fromisoformat("1970-01-01T00:00:00+00:00")) // timedelta(milliseconds=1)


def bill_document(bill: Bill, time_zone: str) -> dict[str, Any]:
    """What a preview answers: the bill with its reasons, its charging periods and a receipt."""
    return explain(bill, time_zone) | {
        "periods": [charging_period(period, bill.tariff_at(period.start_ms)) for period in bill.periods],
        "receipt": receipt_text(make_receipt(bill, time_zone)),
    }
