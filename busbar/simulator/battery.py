"""How a battery takes its energy: constant power up to a knee, then ever less (constant voltage).

In closed form, so that the energy at a moment does not depend on how often somebody asks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Vehicle:
    """An EV with its battery."""

    capacity_wh: float
    initial_soc: float
    """State of charge when it is plugged in, 0 to 1."""
    target_soc: float
    """State of charge at which it stops asking for energy, 0 to 1."""
    max_power_w: float
    """What it takes below the knee."""
    knee_soc: float = 0.8
    """Where the taper begins."""

    @property
    def taper_wh(self) -> float:
        """Past the knee, power falls by a factor of e with each of these."""
        return self.capacity_wh * (1 - self.knee_soc) / 2.5


@dataclass(slots=True)
class Charge:
    """One vehicle being charged. Its limit may change; energy is counted from zero.

    Args:
        vehicle: What is charged.
        limit_w: What the EVSE offers.
        at: When the power comes on, in seconds of any clock.
    """

    vehicle: Vehicle
    limit_w: float
    at: float
    energy_at: float = 0.0
    """Energy that had flowed at `at`, the last change of the limit."""

    def energy_wh(self, now: float) -> float:
        """Energy that has flowed by `now`, never beyond what the vehicle asks for."""
        return min(self._unbounded_wh(now), self.wanted_wh)

    def power_w(self, now: float) -> float:
        """Power at `now`; 0 once the vehicle has what it wants."""
        energy = self._unbounded_wh(now)
        return 0.0 if energy >= self.wanted_wh else self._acceptance_w(energy)

    def soc(self, now: float) -> float:
        """State of charge at `now`, 0 to 1."""
        return self.vehicle.initial_soc + self.energy_wh(now) / self.vehicle.capacity_wh

    def limit(self, limit_w: float, now: float) -> None:
        """Change what the EVSE offers; 0 suspends the charge."""
        self.energy_at = self.energy_wh(now)
        self.at = now
        self.limit_w = limit_w

    def full_at(self) -> float:
        """When the vehicle will have what it wants, if nothing changes; infinite while it is suspended."""
        if self.limit_w <= 0:
            return self.at if self.energy_at >= self.wanted_wh else math.inf
        missing = self.wanted_wh - self.energy_at
        if missing <= 0:
            return self.at
        full_power = min(missing, max(0.0, self._bend_wh - self.energy_at))
        seconds = full_power / self._plateau_w * 3600
        tapered = missing - full_power
        if tapered > 0:
            start_w = self._acceptance_w(self.energy_at + full_power)
            taper = self.vehicle.taper_wh
            seconds += taper / start_w * math.expm1(tapered / taper) * 3600
        return self.at + seconds

    @property
    def wanted_wh(self) -> float:
        """What the vehicle asks for in all."""
        return max(0.0, (self.vehicle.target_soc - self.vehicle.initial_soc) * self.vehicle.capacity_wh)

    @property
    def _knee_wh(self) -> float:
        return (self.vehicle.knee_soc - self.vehicle.initial_soc) * self.vehicle.capacity_wh

    @property
    def _plateau_w(self) -> float:
        return min(self.limit_w, self.vehicle.max_power_w)

    @property
    def _bend_wh(self) -> float:
        """The energy at which the taper falls below what the EVSE offers."""
        return self._knee_wh + self.vehicle.taper_wh * math.log(self.vehicle.max_power_w / self._plateau_w)

    def _acceptance_w(self, energy: float) -> float:
        if self.limit_w <= 0:
            return 0.0
        tapered = self.vehicle.max_power_w * math.exp(-max(0.0, energy - self._knee_wh) / self.vehicle.taper_wh)
        return min(self._plateau_w, tapered)

    def _unbounded_wh(self, now: float) -> float:
        hours = max(0.0, now - self.at) / 3600
        if self.limit_w <= 0 or hours == 0:
            return self.energy_at
        plateau_wh = max(0.0, self._bend_wh - self.energy_at)
        flat_hours = plateau_wh / self._plateau_w
        if hours <= flat_hours:
            return self.energy_at + self._plateau_w * hours
        start = self.energy_at + plateau_wh
        start_w = self._acceptance_w(start)
        taper = self.vehicle.taper_wh
        return start + taper * math.log1p(start_w * (hours - flat_hours) / taper)
