"""Currencies and the one rounding.

Amounts are kept as exact ratios of integers until the money that is charged is written down, which `round_ratio` does.
Digits are lost nowhere else than in this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from enum import StrEnum

_TWO_DIGITS = """
AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW
CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR
ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV
MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD
SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG
"""
_OTHER_DIGITS = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}

MINOR_DIGITS: dict[str, int] = dict.fromkeys(_TWO_DIGITS.split(), 2) | {
    code: digits for digits, codes in _OTHER_DIGITS.items() for code in codes.split()
}
"""Active ISO 4217 currencies and their minor digits."""


class RoundingMode(StrEnum):
    """As in the `decimal` module. `HALF_UP` takes a tie away from zero."""

    HALF_UP = "HALF_UP"
    HALF_EVEN = "HALF_EVEN"
    HALF_DOWN = "HALF_DOWN"
    UP = "UP"
    DOWN = "DOWN"
    CEILING = "CEILING"
    FLOOR = "FLOOR"


class RoundAt(StrEnum):
    """What is rounded."""

    TOTAL = "TOTAL"
    """The totals before and after tax, each once from full precision."""
    DIMENSION = "DIMENSION"
    """The cost of each dimension (fixed, energy, time, parking, reservation); the totals are their sums."""
    LINE = "LINE"
    """Each line of the bill; the totals are their sums."""


@dataclass(frozen=True, slots=True)
class Rounding:
    """Where and how money is rounded: a matter of currency, contract and law, which OCPI leaves open."""

    mode: RoundingMode = RoundingMode.HALF_UP
    digits: int | None = None
    """Fraction digits of what is charged; `None` takes the currency's minor unit."""
    at: RoundAt = RoundAt.TOTAL

    def __post_init__(self) -> None:
        if self.digits is not None and not 0 <= self.digits <= 10:
            raise ValueError(f"{self.digits} fraction digits: between 0 and 10 are possible")

    def digits_for(self, currency: str) -> int:
        return MINOR_DIGITS[currency] if self.digits is None else self.digits


DEFAULT_ROUNDING = Rounding()


def round_ratio(numerator: int, denominator: int, mode: RoundingMode) -> int:
    """The whole number that stands for an exact ratio. The denominator must be positive."""
    whole, rest = divmod(numerator, denominator)
    if not rest or mode is RoundingMode.FLOOR:
        return whole
    if mode is RoundingMode.CEILING:
        return whole + 1
    if mode is RoundingMode.DOWN or mode is RoundingMode.UP:
        away = mode is RoundingMode.UP
        return whole + 1 if (numerator > 0) is away else whole
    twice = 2 * rest - denominator
    if twice:
        return whole + 1 if twice > 0 else whole
    if mode is RoundingMode.HALF_EVEN:
        return whole + (whole & 1)
    away = mode is RoundingMode.HALF_UP
    return whole + 1 if (numerator > 0) is away else whole


def to_decimal(numerator: int, denominator: int, digits: int, mode: RoundingMode = RoundingMode.HALF_UP) -> Decimal:
    """An exact ratio as a Decimal with this many fraction digits."""
    return decimal_of(round_ratio(numerator * 10**digits, denominator, mode), digits)


def decimal_of(units: int, digits: int) -> Decimal:
    """So many units of `10**-digits`, exactly, whatever the decimal context of the thread."""
    return _EXACT.scaleb(units, -digits)


def rounded(value: Decimal, digits: int, power: int = 0) -> Decimal:
    """`value * 10**power` with this many fraction digits, a tie away from zero; zero has no sign."""
    last_digit = _EXACT.scaleb(1, -digits)
    moved = _EXACT.scaleb(value, power) if power else value
    return _EXACT.plus(moved.quantize(last_digit, ROUND_HALF_UP, _EXACT))


def scale_of(value: Decimal, digits: int) -> int:
    """A Decimal as whole units of `10**-digits`; what is finer is rounded half to even."""
    return int(_EXACT.scaleb(value, digits).to_integral_value(context=_EXACT))


_EXACT = Context(prec=200)
