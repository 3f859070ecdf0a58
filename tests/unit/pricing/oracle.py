"""Prices a session the slow way, half a minute at a time, straight from the tariff's JSON.

It shares no code with the engine and knows no intervals, registers or edges. It is right for sessions whose states
last whole minutes, at 0, 3.6 or 7.2 kW, and tariffs whose thresholds are multiples of 60 Wh and of whole minutes: then
nothing changes within half a minute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from math import ceil
from typing import Any
from zoneinfo import ZoneInfo

STEP_SECONDS = 30
DAYS = ["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY"]

Stretch = tuple[str, int]
"""What goes on (`slow`, `fast`, `paused`, `parked`) and for how many minutes."""

POWER_W = {"slow": 3600, "fast": 7200, "paused": 0, "parked": 0}


def applies(restrictions: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    local: datetime = now["local"]
    clock = f"{local.hour:02}:{local.minute:02}"
    start, end = restrictions.get("start_time") or "00:00", restrictions.get("end_time") or "00:00"
    if start != end:
        inside = start <= clock < ("24:00" if end == "00:00" else end)
        if end != "00:00" and end < start:
            inside = clock >= start or clock < end
        if not inside:
            return False
    if restrictions.get("day_of_week") and DAYS[local.weekday()] not in restrictions["day_of_week"]:
        return False
    if "start_date" in restrictions and local.date() < date.fromisoformat(restrictions["start_date"]):
        return False
    if "end_date" in restrictions and local.date() >= date.fromisoformat(restrictions["end_date"]):
        return False
    for low, high, value in (
        ("min_kwh", "max_kwh", now["kwh"]),
        ("min_power", "max_power", now["kw"]),
        ("min_duration", "max_duration", now["seconds"]),
    ):
        if low in restrictions and value < Fraction(restrictions[low]):
            return False
        if high in restrictions and value >= Fraction(restrictions[high]):
            return False
    return True


def price_of(tariff: Mapping[str, Any], kind: str, now: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for element in tariff["elements"]:
        for component in element["price_components"]:
            if component["type"] == kind and applies(element.get("restrictions", {}), now):
                found: Mapping[str, Any] = component
                return found
    return None


def cost(
    tariff: Mapping[str, Any], zone: str, start: datetime, stretches: Sequence[Stretch]
) -> tuple[Fraction, Fraction]:
    """The exact total before and after tax, limits and step sizes included."""
    used: list[tuple[str, Mapping[str, Any], Fraction]] = []
    moment = start.astimezone(UTC)
    # At the first instant nothing flows yet.
    now: dict[str, Any] = {
        "kwh": Fraction(0),
        "kw": Fraction(0),
        "seconds": 0,
        "local": moment.astimezone(ZoneInfo(zone)),
    }
    fee = price_of(tariff, "FLAT", now)
    for state, minutes in stretches:
        for _ in range(minutes * 60 // STEP_SECONDS):
            now |= {"local": moment.astimezone(ZoneInfo(zone)), "kw": Fraction(POWER_W[state], 1000)}
            fee = fee or price_of(tariff, "FLAT", now)
            energy = now["kw"] * STEP_SECONDS / 3600
            energy_price = price_of(tariff, "ENERGY", now)
            if energy_price and energy:
                used.append(("ENERGY", energy_price, energy))
            kind = "PARKING_TIME" if state == "parked" else "TIME"
            time_price = price_of(tariff, kind, now)
            if time_price:
                used.append((kind, time_price, Fraction(STEP_SECONDS, 3600)))
            now["kwh"] += energy
            now["seconds"] += STEP_SECONDS
            moment += timedelta(seconds=STEP_SECONDS)
    if fee:
        used.append(("FLAT", fee, Fraction(1)))
    used += surpluses(used)
    return limited(tariff, total(tariff, used))


def surpluses(used: Sequence[tuple[str, Mapping[str, Any], Fraction]]) -> list[tuple[str, Mapping[str, Any], Fraction]]:
    found = []
    for kinds, unit in ((("ENERGY",), 1000), (("TIME", "PARKING_TIME"), 3600)):
        relevant = [item for item in used if item[0] in kinds]
        if relevant:
            kind, component, _ = relevant[-1]
            step = Fraction(component["step_size"], unit)
            quantity = sum((item[2] for item in used if item[0] == kind), Fraction(0))
            if step:
                found.append((kind, component, ceil(quantity / step) * step - quantity))
    return found


def total(
    tariff: Mapping[str, Any], used: Sequence[tuple[str, Mapping[str, Any], Fraction]]
) -> tuple[Fraction, Fraction]:
    excl = incl = Fraction(0)
    for _, component, quantity in used:
        amount = Fraction(component["price"]) * quantity
        factor = 1 + Fraction(component.get("vat", 0)) / 100
        gross = tariff["tax_included"] == "YES"
        excl += amount / factor if gross else amount
        incl += amount if gross else amount * factor
    return excl, incl


def limited(tariff: Mapping[str, Any], amounts: tuple[Fraction, Fraction]) -> tuple[Fraction, Fraction]:
    """Limits of which both sides are given."""
    excl, incl = amounts
    for name, pick in (("min_price", max), ("max_price", min)):
        if name in tariff:
            excl = pick(excl, Fraction(tariff[name]["before_taxes"]))
            incl = pick(incl, Fraction(tariff[name]["after_taxes"]))
    return excl, incl
