"""Meter values in SI units: defaults, units, phases, contexts, and what cannot be read."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from busbar.avro import call_encoder, decode_call, decode_packed_call, meta_prefix
from busbar.avro.samples import PackedSamples
from busbar.ocpp.versions import Version
from services.sessions.decoding import event_of
from services.sessions.samples import as_sent, read_meter_values
from services.sessions.units import MICRO, sample_kind, to_micro
from tests.unit.services.sessions.world import MINUTE, Station2x, Station16, World, iso


def read_16(*samples: dict[str, Any]) -> Any:
    return read_meter_values([{"timestamp": iso(0), "sampledValue": list(samples)}], is_v2=False)


def read_2x(*samples: dict[str, Any]) -> Any:
    return read_meter_values([{"timestamp": iso(0), "sampledValue": list(samples)}], is_v2=True)


def test_a_value_without_members_is_the_import_register_in_wh_at_the_outlet() -> None:
    for samples in (read_16({"value": "1234.5"}), read_2x({"value": 1234.5})):
        kind = samples.shape.kinds[0]
        assert (kind.measurand, kind.unit, kind.context, kind.location, kind.phase) == (
            "Energy.Active.Import.Register",
            "Wh",
            "Sample.Periodic",
            "Outlet",
            "",
        )
        assert samples.values == [1_234_500_000]
        assert samples.readings[0].register_uwh == 1_234_500_000
        assert samples.readings[0].unit_assumed


@pytest.mark.parametrize(
    ("unit", "si", "factor"),
    [
        ("kWh", "Wh", 1000),
        ("kwh", "Wh", 1000),
        ("varh", "varh", 1),
        ("kvarh", "varh", 1000),
        ("kW", "W", 1000),
        ("kVA", "VA", 1000),
        ("kvar", "var", 1000),
        ("A", "A", 1),
        ("V", "V", 1),
        ("Hertz", "Hz", 1),
        ("Percent", "Percent", 1),
    ],
)
def test_units_of_both_versions_become_si_units(unit: str, si: str, factor: int) -> None:
    for samples in (
        read_16({"value": "12.5", "unit": unit}),
        read_2x({"value": 12.5, "unitOfMeasure": {"unit": unit}}),
    ):
        assert samples.shape.kinds[0].unit == si
        assert samples.values == [12_500_000 * factor]


def test_the_multiplier_of_2x_is_a_power_of_ten() -> None:
    assert read_2x({"value": 12.345678, "unitOfMeasure": {"unit": "Wh", "multiplier": 3}}).values == [12_345_678_000]
    assert read_2x({"value": 5.0, "unitOfMeasure": {"unit": "kWh", "multiplier": -3}}).values == [5 * MICRO]
    assert read_2x({"value": 5.0, "unitOfMeasure": {"multiplier": -12}}).values == [0]


@pytest.mark.parametrize(
    ("unit", "value", "kelvin"),
    [("Celsius", "20", 293.15), ("Celcius", "-5.5", 267.65), ("K", "300", 300), ("Fahrenheit", "212", 373.15)],
)
def test_temperatures_become_kelvin_also_in_the_misspelt_unit(unit: str, value: str, kelvin: float) -> None:
    samples = read_16({"value": value, "measurand": "Temperature", "unit": unit})
    assert samples.values == [round(kelvin * MICRO)]
    assert samples.shape.kinds[0].unit == "K"


@pytest.mark.parametrize(
    ("measurand", "unit"),
    [
        ("Power.Active.Import", "W"),
        ("Power.Reactive.Export", "var"),
        ("Power.Factor", ""),
        ("Current.Import", "A"),
        ("Voltage", "V"),
        ("SoC", "Percent"),
        ("Temperature", "K"),
        ("Frequency", "Hz"),
        ("Energy.Reactive.Import.Register", "varh"),
        ("Energy.Active.Export.Register", "Wh"),
    ],
)
def test_a_measurand_without_a_unit_has_its_own_default(measurand: str, unit: str) -> None:
    assert read_16({"value": "1", "measurand": measurand}).shape.kinds[0].unit == unit


@pytest.mark.parametrize(
    "value", ["NaN", "", "1,5", "abc", "Infinity", "-inf", "1_000", "0x10", "--1", "1e999", None, True, [], {}]
)
def test_a_value_that_is_no_number_is_kept_and_read_as_nothing(value: Any) -> None:
    samples = read_16({"value": value}, {"value": "7"})
    assert samples.values == [None, 7 * MICRO]
    assert samples.unreadable
    assert samples.readings[0].register_uwh is None or samples.readings[0].register_uwh == 7 * MICRO


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (" 12.3 ", 12_300_000),
        ("1e3", 1_000 * MICRO),
        ("1.5E-3", 1_500),
        ("-4.25", -4_250_000),
        ("+7", 7 * MICRO),
        ("007", 7 * MICRO),
        ("0", 0),
    ],
)
def test_blanks_exponents_and_signs_are_read(value: str, expected: int) -> None:
    samples = read_16({"value": value})
    assert samples.values == [expected]
    assert not samples.unreadable


@pytest.mark.parametrize(
    "value", ["60441935.575", "0.000001", "1234567890.123456", "999999999.999999", "123456789012.654321"]
)
def test_six_decimals_are_exact_in_both_versions(value: str) -> None:
    expected = int(value.replace(".", "").ljust(len(value.split(".")[0]) + 6, "0")) if "." in value else 0
    assert read_16({"value": value}).values == [expected]
    if len(value) <= 17:
        assert read_2x({"value": float(value)}).values == [expected]


def test_values_that_no_column_could_hold_are_no_numbers() -> None:
    kind = sample_kind(None, None, None, None, "kWh")
    assert to_micro(1e300, kind) is None
    assert to_micro("9" * 40, kind) is None
    assert to_micro(float("nan"), kind) is None
    assert to_micro(float("inf"), kind) is None


def test_values_that_cannot_be_read_are_kept_as_they_came() -> None:
    world, station = World(), Station16()
    world.batch(station.meter("NaN", connector=1))
    assert orjson.loads(world.rows[-1].payload)["meterValue"][0]["sampledValue"] == [{"value": "NaN"}]
    world.batch(station.meter("15", 2 * MINUTE))
    assert world.rows[-1].payload is None


def test_an_unknown_unit_or_measurand_is_kept_as_it_was_sent() -> None:
    samples = read_16({"value": "3", "measurand": "Vendor.Smell", "unit": "olf"})
    kind = samples.shape.kinds[0]
    assert (kind.measurand, kind.unit, kind.source_unit) == ("Vendor.Smell", "olf", "olf")
    assert samples.values == [3 * MICRO]
    assert samples.unreadable


def test_phases_of_power_and_energy_are_added_up_where_there_is_no_total() -> None:
    register = [{"value": v, "phase": p} for p, v in (("L1", "100"), ("L2", "200.5"), ("L3", "300"))]
    power = [{"value": "1000", "measurand": "Power.Active.Import", "phase": p} for p in ("L1", "L2", "L3")]
    reading = read_16(*register, *power).readings[0]
    assert reading.register_uwh == 600_500_000
    assert reading.power_uw == 3_000 * MICRO


def test_a_total_is_not_added_to_its_phases() -> None:
    reading = read_16(
        {"value": "600"},
        {"value": "100", "phase": "L1"},
        {"value": "7000", "measurand": "Power.Active.Import"},
        {"value": "3000", "measurand": "Power.Active.Import", "phase": "L1"},
    ).readings[0]
    assert reading.register_uwh == 600 * MICRO
    assert reading.power_uw == 7_000 * MICRO


def test_the_current_is_the_sum_over_the_phases_without_the_neutral() -> None:
    samples = [{"value": "16", "measurand": "Current.Import", "phase": p} for p in ("L1", "L2", "L3", "N")]
    assert read_16(*samples).readings[0].current_ua == 48 * MICRO


def test_voltages_are_never_added_up() -> None:
    reading = read_16(*({"value": "230", "measurand": "Voltage", "phase": p} for p in ("L1", "L2", "L3"))).readings[0]
    assert (reading.register_uwh, reading.power_uw, reading.current_ua) == (None, None, None)


def test_the_register_at_the_outlet_comes_before_that_at_the_inlet() -> None:
    reading = read_16({"value": "900", "location": "Inlet"}, {"value": "100", "location": "Outlet"}).readings[0]
    assert (reading.register_uwh, reading.location) == (100 * MICRO, "Outlet")


def test_begin_periodic_and_end_of_one_time_stand_in_this_order() -> None:
    samples = read_16(
        {"value": "30", "context": "Transaction.End"},
        {"value": "20", "context": "Sample.Clock"},
        {"value": "10", "context": "Transaction.Begin"},
    )
    assert [(each.rank, each.register_uwh) for each in samples.readings] == [
        (0, 10 * MICRO),
        (1, 20 * MICRO),
        (2, 30 * MICRO),
    ]


def test_intervals_are_added_up_and_are_no_register() -> None:
    reading = read_16({"value": "250", "measurand": "Energy.Active.Import.Interval"}).readings[0]
    assert (reading.interval_uwh, reading.register_uwh) == (250 * MICRO, None)


@pytest.mark.parametrize(
    "broken",
    [
        None,
        "x",
        5,
        [],
        [None],
        [{}],
        [{"sampledValue": []}],
        [{"sampledValue": [None, 3]}],
        [{"timestamp": 1, "sampledValue": [{"unit": []}]}],
    ],
)
def test_meter_values_of_any_form_are_read_without_an_exception(broken: Any) -> None:
    for is_v2 in (False, True):
        samples = read_meter_values(broken, is_v2=is_v2)
        assert samples is None or samples.unreadable


def test_samples_of_several_times_keep_their_times() -> None:
    samples = read_meter_values(
        [
            {"timestamp": iso(n), "sampledValue": [{"value": str(n)}, {"value": "1", "measurand": "SoC"}]}
            for n in (0, 60_000)
        ],
        is_v2=False,
    )
    assert samples is not None
    assert samples.counts == [2, 2]
    assert samples.times[1] == samples.first_ms() + 60_000  # type: ignore[operator]
    assert len(samples.packed()) == 32


def test_the_topic_has_every_sample_in_si_units_once() -> None:
    world, station = World(), Station2x()
    out = world.batch(
        station.event(
            "Updated",
            3,
            0,
            samples=[
                {"value": 12.5, "unitOfMeasure": {"unit": "kWh"}, "context": "Sample.Clock"},
                {"value": 230.1, "measurand": "Voltage", "phase": "L1-N"},
            ],
        )
    )
    assert [(s["measurand"], s["unit"], s["phase"], s["context"], s["value"]) for s in out.samples[0]["samples"]] == [
        ("Energy.Active.Import.Register", "Wh", "", "Sample.Clock", 12_500.0),
        ("Voltage", "V", "L1-N", "Sample.Periodic", 230.1),
    ]
    assert out.samples[0]["seq_no"] == 3
    assert out.samples[0]["session_id"] == world.session().session_id


def test_a_register_in_kwh_without_a_unit_is_flagged_and_not_rescaled() -> None:
    world, station = World(max_power_w=22_000), Station2x()
    world.batch(station.started(10.0, 0))
    world.batch(station.updated(1, 25_000.0, MINUTE))
    assert world.out.events[-1]["energy_wh"] == 24_990
    assert "power_implausible" in world.flags()


def test_a_station_whose_quirk_says_so_has_registers_without_unit_in_kwh() -> None:
    world, station = World(), Station2x()
    world.config["CS1"] = (None, {"register_unit": "kWh"})
    world.batch(station.started(10.0, 0))
    world.batch(station.updated(1, 10.5, MINUTE))
    assert world.out.events[-1]["energy_wh"] == 500
    assert "unit_by_quirk" in world.flags()
    assert world.out.events[-1]["points"][0]["register_wh"] == 10_500


def test_unit_kwh_on_some_samples_only_does_not_make_a_bill_of_the_difference() -> None:
    world, station = World(), Station2x()
    world.batch(station.started(samples=[{"value": 1234.0, "unitOfMeasure": {"unit": "kWh"}}]))
    world.batch(station.updated(1, 1235.0, MINUTE))  # means kWh, says nothing
    world.batch(station.event("Updated", 2, 2 * MINUTE, samples=[{"value": 1236.0, "unitOfMeasure": {"unit": "kWh"}}]))
    assert world.out.events[-1]["energy_wh"] == 2_000
    assert "register_glitch" in world.flags()


def test_a_current_per_phase_counts_before_one_without_a_phase() -> None:
    samples = [{"value": "16", "measurand": "Current.Import", "phase": p} for p in ("L1", "L2", "L3")]
    assert read_16({"value": "99", "measurand": "Current.Import"}, *samples).readings[0].current_ua == 48 * MICRO


def test_registers_beyond_reason_are_kept_and_make_no_energy() -> None:
    samples = read_16({"value": "99999999999", "unit": "Wh"})
    assert samples.values == [99_999_999_999 * MICRO]
    assert samples.readings[0].register_uwh is None


def test_sums_of_other_phases_are_another_series() -> None:
    world, station = World(), Station2x()
    three = [{"value": 100.0, "phase": phase} for phase in ("L1", "L2", "L3")]
    world.batch(station.started(samples=three))
    out = world.batch(station.event("Updated", 1, MINUTE, samples=[{"value": 400.0, "phase": "L1"}]))
    assert out.event["energy_wh"] == 0
    assert "register_moved" in out.event["flags"]


@pytest.mark.parametrize(
    "values",
    [
        ["1234.5", "41.5", "7"],
        ["", "NaN", " 12.3 "],
        ["1e3", "-4", "0.1234567"],
        ["99999999999999999999", "1,5", "007"],
    ],
)
@pytest.mark.parametrize("form", [None, "Raw", "SignedData"])
def test_samples_of_16_are_read_packed_as_they_are_read_one_by_one(values: list[str], form: str | None) -> None:
    members = {} if form is None else {"format": form}
    sampled = [
        {"value": value, "measurand": measurand, "unit": unit, **members}
        for value, measurand, unit in zip(
            values, ("Energy.Active.Import.Register", "SoC", "Temperature"), ("kWh", "Percent", "Celsius"), strict=True
        )
    ]
    same_twice(
        Version.V16,
        "MeterValues",
        {"connectorId": 1, "transactionId": 7, "meterValue": [{"timestamp": iso(0), "sampledValue": sampled}]},
    )


@pytest.mark.parametrize(
    "values", [[1234.5, 41.5, 20.0], [float("nan"), 1.0, 2.0], [1e300, -0.0, 1e-9], [float("inf"), 2.0**60, -5.25]]
)
def test_samples_of_2x_are_read_packed_as_they_are_read_one_by_one(values: list[float]) -> None:
    sampled: list[dict[str, Any]] = [
        {"value": values[0], "unitOfMeasure": {"unit": "Wh", "multiplier": 3}},
        {"value": values[1], "measurand": "Power.Active.Import", "context": "Transaction.End"},
        {"value": values[2], "measurand": "Temperature", "unitOfMeasure": {"unit": "Celsius"}},
    ]
    same_twice(
        Version.V201,
        "TransactionEvent",
        {
            "eventType": "Updated",
            "timestamp": iso(0),
            "triggerReason": "MeterValuePeriodic",
            "seqNo": 3,
            "transactionInfo": {"transactionId": "t"},
            "meterValue": [
                {"timestamp": iso(0), "sampledValue": sampled},
                {"timestamp": iso(1), "sampledValue": sampled},
            ],
        },
    )


def same_twice(version: Version, action: str, payload: dict[str, Any]) -> None:
    """Read a CALL packed and as objects; the second time its samples are like some before."""
    prefix = meta_prefix("CS-1", "connection", "edge-0", 0, version)
    encoded = call_encoder(version, action)(prefix, 1, "m", 1_763_712_000_000, payload)
    for _ in range(3):
        call = decode_packed_call(encoded)
        packed, plain = event_of(call), event_of(decode_call(encoded))
        assert packed.samples == plain.samples  # type: ignore[union-attr]
        for name in ("event_key", "content_hash"):
            assert getattr(packed, name, None) == getattr(plain, name, None)
        assert repr(as_sent(call.payload)) == repr(plain.call.payload)  # type: ignore[union-attr]
    assert any(isinstance(item["sampledValue"], PackedSamples) for item in call.payload["meterValue"])
