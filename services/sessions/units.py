"""Measurands and units: what one sampled value means, in SI units.

Numbers are integers in millionths of the SI unit (micro-Wh, micro-W, …), so that sums of energy are exact.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

MICRO = 1_000_000
"""Millionths in one unit."""

Double = float
"""A `float` that is never a whole number: compiled code takes it as it is (see `busbar.compiled.rewriting`)."""

LARGEST = 9 * 10**18
"""The largest magnitude that is kept as a number; anything beyond is kept as it was sent."""

_EXACT = 2**53
"""Whole numbers below this are doubles."""

DEFAULT_MEASURAND = "Energy.Active.Import.Register"
DEFAULT_CONTEXT = "Sample.Periodic"
DEFAULT_LOCATION = "Outlet"

# As the schemas spell them, and what is met in the field: SI unit, power of ten.
_UNITS: dict[str, tuple[str, int]] = {
    "Wh": ("Wh", 0),
    "kWh": ("Wh", 3),
    "MWh": ("Wh", 6),
    "varh": ("varh", 0),
    "kvarh": ("varh", 3),
    "VAh": ("VAh", 0),
    "kVAh": ("VAh", 3),
    "W": ("W", 0),
    "kW": ("W", 3),
    "MW": ("W", 6),
    "VA": ("VA", 0),
    "kVA": ("VA", 3),
    "var": ("var", 0),
    "kvar": ("var", 3),
    "A": ("A", 0),
    "V": ("V", 0),
    "kV": ("V", 3),
    "Hertz": ("Hz", 0),
    "Hz": ("Hz", 0),
    "K": ("K", 0),
    "Celsius": ("K", 0),
    "Celcius": ("K", 0),
    "Fahrenheit": ("K", 0),
    "Percent": ("Percent", 0),
    "%": ("Percent", 0),
}
# A prefix in the wrong case is clear but for m and M.
_UNITS_ANY_CASE = {name.casefold(): entry for name, entry in _UNITS.items() if name[0] != "M"}

_DEFAULT_UNITS = (
    ("Energy.Reactive", "varh"),
    ("Energy.Apparent", "VAh"),
    ("Energy", "Wh"),
    ("Power.Factor", ""),
    ("Power.Reactive", "var"),
    ("Power", "W"),
    ("Current", "A"),
    ("Voltage", "V"),
    ("SoC", "Percent"),
    ("Temperature", "Celsius"),
    ("Frequency", "Hz"),
    ("Display.InletHot", ""),
)

_RANKS = {"Transaction.Begin": 0, "Transaction.End": 2}
_NUMBER = re.compile(r"\s*[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?\s*", re.ASCII)


@dataclass(frozen=True, slots=True, eq=False)
class SampleKind:
    """All of a sampled value but the value. One object per kind, so kinds compare by identity."""

    measurand: str
    context: str
    phase: str
    """Empty: no phase, so a total or a single-phase value."""
    location: str
    unit: str
    """The SI unit; a unit that is not known stays as it was sent."""
    source_unit: str | None
    """As the station spelled it; `None` if it named none."""
    multiplier: int
    """The power of ten that the station gave beside the unit. OCPP 2.x only."""
    signed: bool
    """1.6: the value is signed data instead of a number."""
    known_unit: bool
    scale: float = field(repr=False)
    """A whole number: millionths of the SI unit in one of the value; 0 where one multiplication is not enough."""

    @property
    def rank(self) -> int:
        """Orders samples of the same time: begin of the transaction, between, its end."""
        return _RANKS.get(self.context, 1)


def sample_kind(
    measurand: Any,
    context: Any,
    phase: Any,
    location: Any,
    unit: Any,
    multiplier: Any = None,
    *,
    signed: bool = False,
) -> SampleKind:
    """What the members of a sampled value say, with the specification's defaults for those that are absent.

    Spec: OCPP 1.6 §7.43 SampledValue; OCPP 2.0.1 Part 2 §2.44 SampledValueType, §2.50 UnitOfMeasureType.
    """
    name = measurand if isinstance(measurand, str) and measurand else DEFAULT_MEASURAND
    source_unit = unit.strip() if isinstance(unit, str) and unit.strip() else None
    spelled = default_unit(name) if source_unit is None else source_unit
    entry = _UNITS.get(spelled) or _UNITS_ANY_CASE.get(spelled.casefold())
    power = multiplier if type(multiplier) is int and abs(multiplier) <= 30 else 0
    exponent = power + (entry[1] if entry else 0)
    plain = spelled.casefold() not in _OFFSETS and -6 <= exponent <= 9
    return SampleKind(
        measurand=name,
        context=context if isinstance(context, str) and context else DEFAULT_CONTEXT,
        phase=phase if isinstance(phase, str) else "",
        location=location if isinstance(location, str) and location else DEFAULT_LOCATION,
        unit=entry[0] if entry else spelled,
        source_unit=source_unit,
        multiplier=power,
        signed=signed,
        known_unit=entry is not None or not spelled,
        scale=float(10 ** (6 + exponent)) if plain else 0.0,
    )


def in_units(micro: int) -> Double:
    """Millionths in whole units: the nearest double."""
    if -_EXACT < micro < _EXACT:
        return micro / MICRO
    return int.__truediv__(micro, MICRO)  # compiled code would round twice


def default_unit(measurand: str) -> str:
    """The unit of a value that names none; empty if the measurand has none."""
    return next((unit for prefix, unit in _DEFAULT_UNITS if measurand.startswith(prefix)), "")


def to_micro(value: Any, kind: SampleKind) -> int | None:
    """A value of a station in millionths of the SI unit, exact to six decimals; `None` if it is no number.

    Blanks around a number and an exponent are read. `NaN`, an empty text and a decimal comma are not: they are
    kept as they were sent, and nothing is guessed.
    """
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value):
            return None
        text = value.strip()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        text = repr(value)  # the shortest decimal that is this double: what the station wrote
    else:
        return None
    try:
        number = Decimal(text)
        if not number.is_finite():
            return None
        micro = _scaled(number, kind)
    except InvalidOperation:
        return None
    return micro if -LARGEST <= micro <= LARGEST else None


def _scaled(number: Decimal, kind: SampleKind) -> int:
    spelled = (default_unit(kind.measurand) if kind.source_unit is None else kind.source_unit).casefold()
    entry = _UNITS.get(kind.source_unit or spelled) or _UNITS_ANY_CASE.get(spelled)
    if abs(number.adjusted()) > 60:
        raise InvalidOperation
    number = number.scaleb(kind.multiplier + (entry[1] if entry else 0))
    convert = _OFFSETS.get(spelled)
    if convert:
        number = convert(number)
    return int((number * MICRO).to_integral_value())


_OFFSETS = {
    "celsius": lambda number: number + Decimal("273.15"),
    "celcius": lambda number: number + Decimal("273.15"),
    "fahrenheit": lambda number: (number - 32) * 5 / 9 + Decimal("273.15"),
}
