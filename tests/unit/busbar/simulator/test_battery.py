"""The charging curve, held against its own differential equation."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busbar.simulator.battery import Charge, Vehicle

VEHICLES = st.builds(
    Vehicle,
    capacity_wh=st.floats(20_000, 100_000),
    initial_soc=st.floats(0.05, 0.9),
    target_soc=st.floats(0.5, 1.0),
    max_power_w=st.floats(3_000, 250_000),
    knee_soc=st.floats(0.5, 0.95),
)
LIMITS = st.floats(1_400, 350_000)


def test_below_the_knee_the_power_is_the_lower_of_what_is_offered_and_what_is_taken() -> None:
    vehicle = Vehicle(60_000, 0.2, 1.0, 100_000)
    assert Charge(vehicle, 50_000, 0.0).power_w(60) == 50_000
    assert Charge(vehicle, 150_000, 0.0).power_w(60) == 100_000


def test_above_the_knee_the_power_falls_until_the_car_has_what_it_wants() -> None:
    charge = Charge(Vehicle(60_000, 0.75, 0.95, 100_000), 150_000, 0.0)
    powers = [charge.power_w(at) for at in (60, 300, 600, 900)]
    assert powers == sorted(powers, reverse=True)
    assert charge.power_w(charge.full_at() + 1) == 0
    assert charge.soc(charge.full_at() + 1) == pytest.approx(0.95)


@given(VEHICLES, LIMITS, st.floats(0, 40_000))
def test_the_energy_is_the_integral_of_the_power(vehicle: Vehicle, limit_w: float, until: float) -> None:
    charge = Charge(vehicle, limit_w, 0.0)
    steps = 4_000
    width = until / steps
    integral = sum(charge.power_w((index + 0.5) * width) for index in range(steps)) * width / 3600
    tolerance = 2e-3 * max(charge.wanted_wh, 1) + limit_w * width / 3600
    assert charge.energy_wh(until) == pytest.approx(integral, abs=tolerance)


@given(VEHICLES, LIMITS)
def test_the_car_is_full_at_the_time_that_is_told(vehicle: Vehicle, limit_w: float) -> None:
    charge = Charge(vehicle, limit_w, 100.0)
    full_at = charge.full_at()
    assert charge.energy_wh(full_at) == pytest.approx(charge.wanted_wh, rel=1e-6, abs=1e-3)
    assert charge.energy_wh(full_at - 1) <= charge.wanted_wh


@given(VEHICLES, st.lists(st.tuples(st.floats(1, 3_000), st.just(0.0) | LIMITS), max_size=5))
def test_energy_never_falls_whatever_the_limits(vehicle: Vehicle, changes: list[tuple[float, float]]) -> None:
    charge, now, last = Charge(vehicle, 22_000, 0.0), 0.0, 0.0
    for seconds, limit_w in changes:
        now += seconds
        energy = charge.energy_wh(now)
        assert energy >= last - 1e-6
        charge.limit(limit_w, now)
        assert charge.energy_wh(now) == pytest.approx(energy, abs=1e-6)
        last = energy


def test_a_suspended_charge_is_never_full() -> None:
    charge = Charge(Vehicle(60_000, 0.2, 0.8, 50_000), 22_000, 0.0)
    charge.limit(0.0, 600.0)
    assert charge.full_at() == math.inf
    assert charge.energy_wh(7_200) == charge.energy_wh(600)
