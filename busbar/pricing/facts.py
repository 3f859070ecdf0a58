"""What is known of a session, in neutral form: a stream of facts, in the order of their instants."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum


class ChargingState(StrEnum):
    """As in OCPP 2.x; a 1.6 connector's status maps onto it by name, `Preparing` and `Finishing` to `EVConnected`."""

    CHARGING = "Charging"
    SUSPENDED_EV = "SuspendedEV"
    SUSPENDED_EVSE = "SuspendedEVSE"
    EV_CONNECTED = "EVConnected"
    IDLE = "Idle"


class FactKind(StrEnum):
    """What happened."""

    RESERVED = "reserved"
    RESERVATION_EXPIRED = "reservation_expired"
    RESERVATION_CANCELLED = "reservation_cancelled"
    STARTED = "started"
    """Ends a reservation, if there is one."""
    SAMPLED = "sampled"
    """A meter value, a change of the charging state, both, or only the time."""
    TARIFF_CHANGED = "tariff_changed"
    """From this instant on the session has the next one of its tariffs."""
    ENDED = "ended"


@dataclass(slots=True)
class Fact:
    """One thing that is known of a session at an instant. Nobody changes one.

    There is one for every meter value, and one that is frozen takes several times as long to make.
    """

    kind: FactKind
    at_ms: int
    """Unix milliseconds."""
    register_wh: Decimal | int | None = None
    """Imported energy by the meter's register. Only differences count, so it may start anywhere."""
    state: ChargingState | None = None
    """The charging state from this instant on, if it changed."""
    power_w: Decimal | int | None = None
    """Looked at only where no register comes with it: between two registers, energy over time is the power."""
    current_a: Decimal | int | None = None
    """Sum over the phases."""


def started(
    at_ms: int, register_wh: Decimal | int | None = None, state: ChargingState = ChargingState.CHARGING
) -> Fact:
    """The session begins."""
    return Fact(FactKind.STARTED, at_ms, register_wh, state)


def sampled(
    at_ms: int,
    register_wh: Decimal | int | None = None,
    state: ChargingState | None = None,
    power_w: Decimal | int | None = None,
    current_a: Decimal | int | None = None,
) -> Fact:
    """A meter value or a change of the charging state."""
    return Fact(FactKind.SAMPLED, at_ms, register_wh, state, power_w, current_a)


def tariff_changed(at_ms: int) -> Fact:
    """The next tariff begins. What comes with its instant comes before it."""
    return Fact(FactKind.TARIFF_CHANGED, at_ms)


def ended(at_ms: int, register_wh: Decimal | int | None = None) -> Fact:
    """The session is over."""
    return Fact(FactKind.ENDED, at_ms, register_wh)


def reserved(at_ms: int) -> Fact:
    """A reservation begins."""
    return Fact(FactKind.RESERVED, at_ms)


def reservation_expired(at_ms: int) -> Fact:
    """The reservation was not used."""
    return Fact(FactKind.RESERVATION_EXPIRED, at_ms)


def reservation_cancelled(at_ms: int) -> Fact:
    """The driver gave the reservation up before it expired."""
    return Fact(FactKind.RESERVATION_CANCELLED, at_ms)
