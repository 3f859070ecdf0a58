"""Random tariffs and sessions."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from busbar.pricing.facts import ChargingState, Fact, ended, sampled, started
from tests.unit.pricing.oracle import DAYS, POWER_W, Stretch

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Sao_Paulo")
STATES = {
    "slow": ChargingState.CHARGING,
    "fast": ChargingState.CHARGING,
    "paused": ChargingState.SUSPENDED_EVSE,
    "parked": ChargingState.SUSPENDED_EV,
}
CURRENCIES = {"EUR": "0.01", "JPY": "1", "KWD": "0.001"}
REGISTER_WH = 7_777_777

# Around the days on which clocks are changed, and on ordinary ones.
_DAYS = [
    datetime.fromisoformat(f"{day}T00:00:00+00:00")
    for day in ("2026-03-28", "2026-10-24", "2026-03-07", "2026-04-04", "2026-06-10")
]

CLOCK_CHANGES = (
    ("Europe/Berlin", "2026-03-29T01:00:00+00:00"),
    ("Europe/Berlin", "2026-10-25T01:00:00+00:00"),
    ("America/New_York", "2026-03-08T07:00:00+00:00"),
    ("America/New_York", "2026-11-01T06:00:00+00:00"),
    ("Australia/Lord_Howe", "2026-04-04T15:00:00+00:00"),
)
"""The last one by half an hour."""

starts = st.builds(
    lambda day, minutes: day + timedelta(minutes=minutes),
    st.sampled_from(_DAYS),
    st.integers(0, 2 * 24 * 60),
)
stretches: st.SearchStrategy[list[Stretch]] = st.lists(
    st.tuples(st.sampled_from(sorted(POWER_W)), st.one_of(st.integers(1, 90), st.integers(1, 800))),
    max_size=5,
)
prices = st.one_of(
    st.just(Decimal(0)), st.integers(0, 999).map(lambda cents: Decimal(cents) / 100), st.just(Decimal("0.3333"))
)
taxes = st.sampled_from([None, "0", "7", "19", "20.5"])
times_of_day = st.integers(0, 95).map(lambda quarter: f"{quarter // 4:02}:{quarter % 4 * 15:02}")


@st.composite
def components(draw: st.DrawFn) -> list[dict[str, Any]]:
    kinds = draw(st.lists(st.sampled_from(["ENERGY", "TIME", "PARKING_TIME", "FLAT"]), min_size=1, unique=True))
    found = []
    for kind in kinds:
        item: dict[str, Any] = {
            "type": kind,
            "price": draw(prices),
            "step_size": draw(st.sampled_from([0, 1, 60, 900])),
        }
        vat = draw(taxes)
        found.append(item if vat is None else item | {"vat": Decimal(vat)})
    return found


def ordered(draw: st.DrawFn, low: str, high: str, values: st.SearchStrategy[Any]) -> dict[str, Any]:
    """A lower bound, an upper one, or both."""
    found = sorted(draw(st.lists(values, min_size=2, max_size=2, unique=True)))
    which = draw(st.integers(1, 3))
    return {key: value for bit, key, value in ((1, low, found[0]), (2, high, found[1])) if which & bit}


@st.composite
def restrictions(draw: st.DrawFn) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(["time", "days", "dates", "kwh", "power", "duration"]), unique=True)):
        if name == "time":
            found |= {"start_time": draw(times_of_day), "end_time": draw(times_of_day)}
        elif name == "days":
            found["day_of_week"] = draw(st.lists(st.sampled_from(DAYS), min_size=1, unique=True))
        elif name == "dates":
            days = st.sampled_from(_DAYS).flatmap(
                lambda day: st.integers(0, 4).map(lambda later: str((day + timedelta(days=later)).date()))
            )
            found |= ordered(draw, "start_date", "end_date", days)
        elif name == "kwh":
            found |= ordered(draw, "min_kwh", "max_kwh", st.integers(1, 300).map(lambda n: Decimal(60 * n) / 1000))
        elif name == "power":
            found |= ordered(draw, "min_power", "max_power", st.sampled_from([1, 3, Decimal("3.6"), 5, Decimal("7.2")]))
        else:
            found |= ordered(draw, "min_duration", "max_duration", st.integers(1, 2000).map(lambda n: 60 * n))
    return found


@st.composite
def tariffs(draw: st.DrawFn, currency: str = "EUR") -> dict[str, Any]:
    """OCPI tariffs; both sides of a limit are always given."""
    elements = []
    for number in range(draw(st.integers(1, 5))):
        item: dict[str, Any] = {"price_components": draw(components())}
        if number or draw(st.booleans()):
            item["restrictions"] = draw(restrictions())
        elements.append(item)
    tariff: dict[str, Any] = {
        "id": "random",
        "currency": currency,
        "tax_included": draw(st.sampled_from(["NO", "YES"])),
        "elements": elements,
    }
    least = draw(st.integers(0, 20))
    if draw(st.booleans()):
        tariff["min_price"] = {"before_taxes": Decimal(least), "after_taxes": Decimal(least + draw(st.integers(0, 4)))}
    if draw(st.booleans()):
        most = least + 4 + draw(st.integers(0, 100))
        tariff["max_price"] = {"before_taxes": Decimal(most), "after_taxes": Decimal(most + draw(st.integers(0, 20)))}
    return tariff


@st.composite
def across_clock_changes(draw: st.DrawFn) -> tuple[dict[str, Any], str, datetime, list[Stretch]]:
    """A session that is on while the clocks of its zone are changed, with prices by the clock around that hour."""
    zone, change = draw(st.sampled_from(CLOCK_CHANGES))
    start = datetime.fromisoformat(change) - timedelta(minutes=draw(st.integers(1, 6 * 60)))
    session = [("fast", draw(st.integers(6 * 60, 12 * 60))), ("parked", draw(st.integers(1, 20 * 60)))]
    first, last = draw(st.integers(80, 95)), draw(st.integers(1, 30))
    window = {"start_time": _quarter(draw(st.sampled_from([first, 4, 7, 9]))), "end_time": _quarter(last)}
    priced, elsewhere = (
        [
            {"type": kind, "price": Decimal(price * factor), "step_size": 1}
            for kind, price in (("ENERGY", 3), ("TIME", 5), ("PARKING_TIME", 7))
        ]
        for factor in (1, 10)
    )
    elements = [{"price_components": priced, "restrictions": window}, {"price_components": elsewhere}]
    return {"id": "clock", "currency": "EUR", "tax_included": "NO", "elements": elements}, zone, start, session


def _quarter(number: int) -> str:
    return f"{number // 4:02}:{number % 4 * 15:02}"


def one_sided(tariff: dict[str, Any], sides: str) -> dict[str, Any]:
    """The tariff with both sides of its limits, or with one alone: that before tax is what OCPI asks for."""
    if sides == "both":
        return tariff
    limits = {name: {sides: tariff[name][sides]} for name in ("min_price", "max_price") if name in tariff}
    return tariff | limits


def facts_of(start: datetime, session: list[Stretch], every_seconds: int | None = 60) -> list[Fact]:
    """What a station reports: a change of state with its register, and samples in between."""
    at_ms, mwh = int(start.timestamp()) * 1000, REGISTER_WH * 1000
    facts = [started(at_ms, REGISTER_WH, STATES[session[0][0]] if session else ChargingState.CHARGING)]
    for place, (state, minutes) in enumerate(session):
        if place:
            facts.append(sampled(at_ms, Decimal(mwh) / 1000, STATES[state]))
        if every_seconds:
            for seconds in range(every_seconds, minutes * 60, every_seconds):
                register = Decimal(mwh) / 1000 + Decimal(POWER_W[state] * seconds) / 3600
                facts.append(sampled(at_ms + seconds * 1000, register))
        at_ms += minutes * 60_000
        mwh += POWER_W[state] * minutes * 1000 // 60
    return [*facts, ended(at_ms, Decimal(mwh) / 1000)]
