"""What drivers do, drawn from a seeded stream: who comes when, with which card and which car, and how long they stay.

Every stream is made from the seed and a name, so that a station's drivers are the same however the fleet is
made up and however fast the answers come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from busbar.simulator.battery import Vehicle


def stream(seed: int, *names: object) -> Random:
    """An independent stream of random numbers for these names."""
    return Random("/".join(map(str, (seed, *names))))  # noqa: S311 - a simulation


@dataclass(frozen=True, slots=True)
class Visit:
    """A driver at an outlet."""

    gap_seconds: float
    """Since the outlet became free."""
    id_token: str
    card_delay_seconds: float
    """From plugging in to holding up the card."""
    vehicle: Vehicle
    patience_seconds: float
    """Leaves after this time, full or not."""
    linger_seconds: float
    """Stays this long once the car is full."""
    unplugs_to_stop: bool
    """Ends the transaction by unplugging, rather than by card."""
    leave_seconds: float
    """From the end of the transaction to the free outlet."""
    fault_after_seconds: float | None
    """Something breaks this long after the start."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How busy a fleet is. Times in seconds of the stations' clock."""

    mean_gap_seconds: float = 600.0
    first_arrival_seconds: float = 90.0
    """All outlets see their first driver within this time."""
    sample_interval_seconds: float = 60.0
    fault_share: float = 0.01
    unknown_card_share: float = 0.02
    """Drivers whose card nobody knows."""
    drops_per_hour: float = 0.0
    """How often a station loses its connection."""


class Visits:
    """The endless row of drivers at one outlet."""

    def __init__(self, random: Random, tokens: Sequence[str], behaviour: Behaviour, *, direct_current: bool) -> None:
        self._random = random
        self._tokens = tokens
        self._behaviour = behaviour
        self._direct_current = direct_current
        self._first = True

    def next(self) -> Visit:
        """The next driver. Draws the same number of times for everybody, so that visits do not shift."""
        draw = self._random
        gap = draw.expovariate(1 / self._behaviour.mean_gap_seconds)
        first_gap = draw.uniform(0, self._behaviour.first_arrival_seconds)
        known = draw.choice(self._tokens)
        unknown = f"UNKNOWN{draw.randrange(10**6):06d}"
        is_unknown = draw.random() < self._behaviour.unknown_card_share
        vehicle = self._vehicle(draw)
        fault_at = draw.uniform(60, 900)
        has_fault = draw.random() < self._behaviour.fault_share
        visit = Visit(
            gap_seconds=first_gap if self._first else gap,
            id_token=unknown if is_unknown else known,
            card_delay_seconds=draw.uniform(2, 20),
            vehicle=vehicle,
            patience_seconds=draw.uniform(600, 3600) if self._direct_current else draw.uniform(1800, 6 * 3600),
            linger_seconds=draw.uniform(30, 900),
            unplugs_to_stop=draw.random() < 0.3,
            leave_seconds=draw.uniform(5, 60),
            fault_after_seconds=fault_at if has_fault else None,
        )
        self._first = False
        return visit

    def _vehicle(self, draw: Random) -> Vehicle:
        capacity_wh = draw.choice((40_000, 52_000, 60_000, 77_000, 90_000))
        soc = draw.uniform(0.08, 0.6)
        target = draw.choice((0.8, 0.9, 1.0))
        fast_w, slow_w = draw.choice((50_000, 100_000, 150_000)), draw.choice((7_400, 11_000, 22_000))
        if self._direct_current:
            return Vehicle(capacity_wh, soc, target, fast_w, knee_soc=0.75)
        return Vehicle(capacity_wh, soc, target, slow_w, knee_soc=0.95)
