"""Random sessions as sessions tells of them: late events, exchanged order, corrections, all kinds of tariffs."""

from __future__ import annotations

from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID

from tests.unit.pricing.builders import WEEKDAYS, component, element, limit, tariff_json
from tests.unit.services.billing.world import BEGIN_WH, MINUTE, T0, TARIFF, Session

TARIFFS: dict[str, dict[str, Any]] = {
    "T/1": TARIFF,
    "NIGHT/3": tariff_json(
        element(component("ENERGY", "0.21", "21"), start_time="22:00", end_time="06:00"),
        element(component("ENERGY", "0.48", "21"), component("TIME", "1.2", "21", 300), day_of_week=WEEKDAYS),
        element(component("ENERGY", "0.39", "9", 500), component("FLAT", "0.35")),
        min_price=limit("0.50", "0.60"),
        max_price=limit("30", "36"),
    ),
    "KWH/1": tariff_json(
        element(component("ENERGY", "30"), max_kwh=Decimal(5)), element(component("ENERGY", "45")), currency="JPY"
    ),
    "FREE/1": tariff_json(element(component("FLAT", "0"))),
    "POWER/2": tariff_json(
        element(component("ENERGY", "0.1234", "5"), max_power=Decimal(11)),
        element(component("ENERGY", "0.2345", "5"), component("PARKING_TIME", "0.75", "5")),
        currency="KWD",
    ),
    "RESERVED/1": tariff_json(
        element(component("TIME", "6", "20"), component("FLAT", "1", "20"), reservation="RESERVATION"),
        element(component("TIME", "12", "20", 60), reservation="RESERVATION_EXPIRES"),
        element(component("ENERGY", "0.30", "20")),
        max_price=limit("40"),
    ),
}
_ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu")


def random_sessions(seed: int, count: int, *, stations: int = 6) -> list[tuple[str, dict[str, Any]]]:
    """(station, event) of all sessions, interleaved; those of a session are in order."""
    chance = Random(seed)
    waiting = []
    for number in range(count):
        station = f"CS-{seed}-{number % stations}"
        session_id = str(UUID(int=chance.getrandbits(128), version=4))
        waiting.append([(station, event) for event in session_events(chance, station, session_id)])
        if chance.random() < 0.3:
            key = str(UUID(int=chance.getrandbits(128), version=4))
            waiting.append([(station, event) for event in reservation_events(chance, station, key)])
    found = []
    while waiting:
        events = chance.choice(waiting)
        size = chance.choice((1, 1, 2, 5))
        found += events[:size]
        del events[:size]
        waiting = [each for each in waiting if each]
    return found


def session_events(chance: Random, station: str, session_id: str) -> list[dict[str, Any]]:
    """All events of one session."""
    tariff = chance.choice([*TARIFFS, *TARIFFS, "", "GONE/1"])
    head = {"station_id": station, "id_token": f"TAG{chance.randrange(9)}", "evse_id": chance.randrange(1, 3)}
    session = Session(tariff, session_id, chance.choice(_ZONES), head)
    start = chance.uniform(0, 3 * 24 * 60)
    reserved_ms = T0 + round((start - chance.uniform(0, 90)) * MINUTE) if chance.random() < 0.3 else None
    knows_late = chance.random() < 0.3
    if reserved_ms is not None and not knows_late:
        session.head["reserved_at"] = reserved_ms
    minute, wh, measured = start, 0.0, []
    for _ in range(chance.choice((0, 1, 3, 10, 30))):
        minute += chance.choice((0, 0.5, 1, 7, 60))
        state = chance.choice(("", "", "", "Charging", "SuspendedEV", "SuspendedEVSE", "Idle"))
        wh += chance.choice((0, 10, 123.456, 1500, 4000)) if state != "SuspendedEV" else 0
        measured.append((minute, None if chance.random() < 0.1 else round(wh, 3), state))
    late = [chance.randrange(len(measured)) for _ in range(chance.choice((0, 0, 0, 1, 3)))] if measured else []
    order = list(range(len(measured)))
    for index in late:
        order.insert(min(len(order), index + chance.randrange(1, 4)), order.pop(order.index(index)))
    events = [
        session.started(start, 0 if chance.random() < 0.9 else None, chance.choice(("Charging", "EVConnected", "")))
    ]
    for index in order:
        minute, so_far, state = measured[index]
        events.append(session.measured(minute, so_far, state, seq_no=index + 1))
        if chance.random() < 0.03:  # a reading far off, which the energy leaves out
            at_ms = T0 + round(minute * MINUTE)
            far = {"at": at_ms, "register_wh": BEGIN_WH + 10**7, "power_w": None, "current_a": None}
            events.append(session.event(minute, points=[far], seq_no=index + 1))
    if chance.random() < 0.1:
        return events
    if reserved_ms is not None:
        session.head["reserved_at"] = reserved_ms
    last = max((each[0] for each in measured), default=start) + chance.choice((0, 0.25, 30))
    events.append(session.ended(last, round(wh + chance.choice((0, 50)), 3)))
    for _ in range(chance.choice((0, 0, 0, 1, 2))):
        if chance.random() < 0.5:
            event = session.event(last, "corrected", flags=["offline"])
        else:
            wh += 250
            event = session.measured(last, round(wh + 50, 3), kind="corrected")
        events.append(event | {"final": True, "state": "ended"})
    return events


def reservation_events(chance: Random, station: str, key: str) -> list[dict[str, Any]]:
    """All events of one reservation: most end once, some otherwise after all, some more than once."""
    tariff = chance.choice([*TARIFFS, "RESERVED/1", "RESERVED/1", "", "GONE/1"])
    made = chance.uniform(0, 3 * 24 * 60)
    expires = made + chance.choice((0.5, 15, 60.25))
    head = {"station_id": station, "id_token": f"TAG{chance.randrange(9)}", "transaction_id": "", "reservation_id": 7}
    session = Session(tariff, key, chance.choice(_ZONES), head, rung="none")
    instants = {"reserved_at": T0 + round(made * MINUTE), "reservation_expires_at": T0 + round(expires * MINUTE)}
    events = [session.event(made, "reservation", state="reserved", trigger="Accepted", **instants)]
    for state in chance.choice(
        (["expired"], ["used"], ["expired", "used"], ["cancelled"], ["expired", "used", "expired"])
    ):
        session.ended_ms = T0 + round(chance.uniform(made, expires) * MINUTE)
        events.append(session.event(expires, "reservation", state=state, final=True, **instants))
    return events
