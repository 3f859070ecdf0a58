"""The energy of a session: the ladder of §3.3, and registers that fall, jump, come late and come twice."""

from __future__ import annotations

import random
from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest

from services.sessions.energy import Energy, add_register, position, settle
from services.sessions.flags import flag_names
from services.sessions.units import MICRO
from tests.unit.services.sessions.world import HOUR, MINUTE, Station2x, Station16, World, iso

MAX_POWER_W = 500_000


def ocmf(*readings: tuple[str, str]) -> str:
    rows = ",".join(
        f'{{"TM":"2025-11-21T08:00:00,000+0000 S","TX":"{tx}","RV":{rv},"RI":"1-0:1.8.0","RU":"kWh"}}'
        for tx, rv in readings
    )
    return f'OCMF|{{"FV":"1.0","RD":[{rows}]}}|{{"SD":"3045"}}'


def series(*points: tuple[float, float]) -> tuple[Decimal | int, set[str]]:
    """Energy in Wh and flags of registers at minutes; those out of order come late."""
    energy, flags, newest = Energy(), 0, -1.0
    for minute, wh in points:
        at = position(int(minute * MINUTE), 1)
        flags |= add_register(energy, at, round(wh * MICRO), MAX_POWER_W, is_newest=minute > newest)
        newest = max(newest, minute)
    settle(energy)
    return Decimal(energy.total_uwh) / MICRO, set(flag_names(flags))


def accepting() -> World:
    world = World()
    world.token("TAG")
    return world


def ended(world: World, **stop: Any) -> dict[str, Any]:
    station = Station16()
    number = world.batch(station.start(1000)).reply["transactionId"]
    return world.batch(station.stop(number, **stop)).events[0]


def data(*samples: dict[str, Any], ms: int = 0) -> dict[str, Any]:
    return {"timestamp": iso(ms), "sampledValue": list(samples)}


def test_rung_1_signed_end_minus_signed_begin() -> None:
    begin = {"value": ocmf(("B", "1000.000")), "format": "SignedData", "context": "Transaction.Begin"}
    end = {"value": ocmf(("E", "1012.345")), "format": "SignedData", "context": "Transaction.End"}
    event = ended(accepting(), meter=13_000, transactionData=[data(begin), data(end, ms=HOUR)])
    assert (event["energy_rung"], event["energy_wh"]) == ("signed", 12_345)
    assert (event["register_begin_wh"], event["register_end_wh"]) == (1_000_000, 1_012_345)


def test_rung_1_begin_and_end_may_stand_in_one_signed_record() -> None:
    both = {"value": ocmf(("B", "5.5"), ("E", "7.25")), "format": "SignedData", "context": "Transaction.End"}
    event = ended(accepting(), meter=3_000, transactionData=[data(both, ms=HOUR)])
    assert (event["energy_rung"], event["energy_wh"]) == ("signed", 1_750)


def test_rung_2_transaction_end_minus_transaction_begin() -> None:
    world, station = accepting(), Station2x()
    world.batch(station.started(samples=[{"value": 100.25, "context": "Transaction.Begin"}]))
    world.batch(station.updated(1, 300.0, MINUTE))
    event = world.batch(station.ended(2, None, HOUR, samples=[{"value": 900.5, "context": "Transaction.End"}])).event
    assert (event["energy_rung"], event["energy_wh"]) == ("transaction_registers", Decimal("800.25"))


def test_rung_3_meter_stop_minus_meter_start() -> None:
    world, station = accepting(), Station16()
    number = world.batch(station.start(1000)).reply["transactionId"]
    world.batch(station.meter("1000.9", MINUTE))
    event = world.batch(station.stop(number, 3000)).event
    assert (event["energy_rung"], event["energy_wh"]) == ("meter_start_stop", 2000)


def test_rung_4_last_minus_first_register() -> None:
    world, station = accepting(), Station2x()
    world.batch(station.started(100.5), station.updated(1, 300.0, MINUTE))
    event = world.batch(station.ended(2, None, HOUR)).event
    assert (event["energy_rung"], event["energy_wh"]) == ("samples", Decimal("199.5"))


def test_rung_5_the_sum_of_intervals_and_only_without_registers() -> None:
    world, station = accepting(), Station2x()
    interval = {"value": 250.5, "measurand": "Energy.Active.Import.Interval"}
    world.batch(station.started(), station.updated(1, None, MINUTE, samples=[interval]))
    world.batch(station.updated(1, None, MINUTE, samples=[interval]))  # the same event again
    event = world.batch(station.ended(2, None, HOUR, samples=[interval])).event
    assert (event["energy_rung"], event["energy_wh"]) == ("intervals", 501)
    other, station = accepting(), Station2x()
    other.batch(station.started(1000.0), station.updated(1, None, MINUTE, samples=[interval, {"value": 1240.0}]))
    assert other.out.events[-1]["energy_rung"] == "samples"
    assert other.out.events[-1]["energy_wh"] == 240


def test_rung_6_the_integral_of_power_is_told_as_such() -> None:
    world, station = accepting(), Station2x()

    def power(kw: float) -> list[dict[str, Any]]:
        return [{"value": kw, "measurand": "Power.Active.Import", "unitOfMeasure": {"unit": "kW"}}]

    world.batch(station.started(samples=power(0.0)), station.event("Updated", 1, 30 * MINUTE, samples=power(20.0)))
    event = world.batch(station.ended(2, None, HOUR, samples=power(20.0))).event
    assert (event["energy_rung"], event["energy_wh"]) == ("power_integral", 15_000)


def test_without_any_reading_there_is_no_energy_and_no_rung() -> None:
    world, station = accepting(), Station2x()
    world.batch(station.started())
    event = world.batch(station.ended(1, None, HOUR)).event
    assert (event["energy_rung"], event["energy_wh"], event["register_begin_wh"]) == ("none", 0, None)


def test_begin_and_end_of_one_instant_are_taken_in_their_order() -> None:
    world, station = accepting(), Station2x()
    samples = [
        {"value": 500.0},
        {"value": 100.0, "context": "Transaction.Begin"},
        {"value": 900.0, "context": "Transaction.End"},
    ]
    world.batch(station.started())
    event = world.batch(station.ended(1, None, HOUR, samples=samples)).event
    assert (event["energy_rung"], event["energy_wh"], event["flags"]) == (
        "transaction_registers",
        800,
        [],
    )


def test_a_register_that_falls_splits_the_series_and_is_flagged() -> None:
    """§3.2 register falls in session: meter exchange or wrap."""
    energy, flags = series((0, 1000), (1, 1500), (2, 20), (3, 320))
    assert (energy, flags) == (800, {"register_fell"})
    world, station = accepting(), Station2x()
    world.batch(station.started(samples=[{"value": 1000.0, "context": "Transaction.Begin"}]))
    world.batch(station.updated(1, 1500.0, MINUTE), station.updated(2, 20.0, 2 * MINUTE))
    event = world.batch(station.ended(3, None, HOUR, samples=[{"value": 320.0, "context": "Transaction.End"}])).event
    assert (event["energy_wh"], event["energy_rung"], event["flags"]) == (800, "samples", ["register_fell"])


def test_a_reading_of_zero_between_two_that_fit_does_not_bill_the_whole_register() -> None:
    energy, flags = series((0, 1_234_567), (1, 1_234_600), (2, 0), (3, 1_234_700))
    assert energy == 133
    assert "register_glitch" in flags


def test_an_exchange_of_the_meter_is_no_glitch() -> None:
    energy, flags = series((0, 5_000), (1, 5_500), (2, 0), (30, 4_000), (60, 9_000))
    assert (energy, flags) == (9_500, {"register_fell"})


def test_registers_that_disagree_by_less_than_a_watt_hour_do_not_fall() -> None:
    assert series((0, 1000.7), (1, 1000), (2, 1500.9), (3, 1500)) == (Decimal("500.2"), set())


def test_energy_beyond_what_a_connector_can_deliver_is_flagged() -> None:
    assert series((0, 0), (1, 8_000))[1] == set()
    assert series((0, 0), (1, 20_000))[1] == {"power_implausible"}


def test_next_to_no_energy_while_charging_is_flagged() -> None:
    """§3.2 plausibility: < 1 W with Charging."""
    world, station = accepting(), Station2x()
    world.batch(station.started(1.0, state="Charging"))
    assert "energy_implausible" in world.batch(station.ended(1, 1.5, HOUR)).event["flags"]
    world, station = accepting(), Station2x()
    world.batch(station.started(1.0, state="SuspendedEV"))
    assert world.batch(station.ended(1, 1.5, HOUR)).event["flags"] == []


@pytest.mark.parametrize(
    "points",
    [
        [(0, 100), (1, 150), (2, 150), (3, 400)],
        [(0, 100), (1, 150), (2, 5), (3, 30)],
        [(0, 7), (1, 7), (2, 7), (3, 7)],
    ],
)
def test_the_order_in_which_readings_come_does_not_matter(points: list[tuple[float, float]]) -> None:
    expected = series(*points)
    for order in permutations(points):
        assert series(*order)[0] == expected[0], order
        assert series(*order, *order)[0] == expected[0], order


def test_any_order_of_a_long_monotonic_series_gives_last_minus_first() -> None:
    rng = random.Random(7)
    points = [(minute, 1000 + minute * 3.25) for minute in range(300)]
    for _ in range(20):
        rng.shuffle(points)
        assert series(*points) == (Decimal("971.75"), set())


def test_a_clock_that_is_set_back_does_not_lose_energy() -> None:
    energy, flags = Energy(), 0
    for minute, wh in ((100, 1000), (101, 1100), (5, 1200), (6, 1300)):
        flags |= add_register(energy, position(minute * MINUTE, 1), wh * MICRO, MAX_POWER_W, is_newest=True)
    settle(energy)
    assert (energy.total_uwh, flag_names(flags)) == (300 * MICRO, ["clock_jumped"])


def test_a_register_that_falls_for_ever_keeps_the_state_small_and_the_energy_right() -> None:
    energy = Energy()
    for n in range(500):
        add_register(energy, position(2 * n * HOUR, 1), 0, MAX_POWER_W)
        add_register(energy, position((2 * n + 1) * HOUR, 1), 10 * MICRO, MAX_POWER_W)
    settle(energy)
    assert energy.total_uwh == 5000 * MICRO
    assert len(energy.stretches) <= 32


def test_a_register_of_another_place_is_left_out() -> None:
    world, station = accepting(), Station2x()
    world.batch(station.started(100.0), station.updated(1, 150.0, MINUTE))
    out = world.batch(station.event("Updated", 2, 2 * MINUTE, samples=[{"value": 9999.0, "location": "Inlet"}]))
    assert out.event["energy_wh"] == 50
    assert "register_moved" in out.event["flags"]
