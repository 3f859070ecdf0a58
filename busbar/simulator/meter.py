"""What a meter shows at a moment, and how the two families of OCPP write it down."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

GRID_VOLTAGE = 230.0
PACK_VOLTAGE = 400.0


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of an outlet's meter."""

    register_wh: float
    """Lifetime register, monotonic."""
    power_w: float
    direct_current: bool
    soc: float | None
    """0 to 1; what an AC station does not know."""

    @property
    def register_tenths(self) -> float:
        """The register as it is shown: in tenths of a watt-hour, rounded down, so that it never runs ahead."""
        return math.floor(self.register_wh * 10) / 10


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled value, version-neutral."""

    measurand: str
    value: float
    unit: str
    phase: str | None = None
    location: str = "Outlet"


def samples(reading: Reading) -> list[Sample]:
    """What a station samples: energy, power, and current and voltage of each phase; SoC where the car tells it."""
    found = [
        Sample("Energy.Active.Import.Register", reading.register_tenths, "Wh"),
        Sample("Power.Active.Import", round(reading.power_w, 1), "W"),
    ]
    if reading.direct_current:
        found.append(Sample("Current.Import", round(reading.power_w / PACK_VOLTAGE, 2), "A"))
        found.append(Sample("Voltage", PACK_VOLTAGE, "V"))
    else:
        current = round(reading.power_w / 3 / GRID_VOLTAGE, 2)
        for number in (1, 2, 3):
            found.append(Sample("Current.Import", current, "A", phase=f"L{number}"))
            found.append(Sample("Voltage", GRID_VOLTAGE, "V", phase=f"L{number}-N"))
        found.append(Sample("Frequency", 50.0, "Hertz", location="Inlet"))
    if reading.soc is not None:
        found.append(Sample("SoC", round(reading.soc * 100, 1), "Percent", location="EV"))
    return found


def sampled_values_16(reading: Reading, context: str) -> list[dict[str, Any]]:
    """`sampledValue` of OCPP 1.6: values are strings. Defaults are left out where stations leave them out."""
    return [_value_16(sample, context) for sample in samples(reading)]


def sampled_values_2(reading: Reading, context: str) -> list[dict[str, Any]]:
    """`sampledValue` of OCPP 2.x: values are numbers, units have their own object."""
    return [_value_2(sample, context) for sample in samples(reading)]


def _value_16(sample: Sample, context: str) -> dict[str, Any]:
    value: dict[str, Any] = {"value": f"{sample.value:.10g}" if sample.value < 1e9 else f"{sample.value:.1f}"}
    value["context"] = context
    value["measurand"] = sample.measurand
    value["location"] = sample.location
    if sample.phase:
        value["phase"] = sample.phase
    # OCPP 1.6 has no unit for a frequency, and says that Hertz is meant.
    if sample.measurand != "Frequency":
        value["unit"] = sample.unit
    return value


def _value_2(sample: Sample, context: str) -> dict[str, Any]:
    value: dict[str, Any] = {
        "value": sample.value,
        "context": context,
        "measurand": sample.measurand,
        "location": sample.location,
    }
    if sample.phase:
        value["phase"] = sample.phase
    if sample.unit != "Hertz":
        value["unitOfMeasure"] = {"unit": sample.unit}
    return value
