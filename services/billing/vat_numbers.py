"""Whether a VAT number can be one: its country's form, and its check digits where they are simple and certain.

That a number can be one does not say that it was given to anybody: only the tax authorities know.
"""

from __future__ import annotations

import re

MAX_LENGTH = 20
"""Spec: OCPP 2.1 VatNumberValidationRequest."""

_FORMS = {
    "AT": r"U\d{8}",
    "BE": r"[01]\d{9}",
    "BG": r"\d{9,10}",
    "CH": r"E\d{9}(MWST|TVA|IVA)?",
    "CY": r"\d{8}[A-Z]",
    "CZ": r"\d{8,10}",
    "DE": r"\d{9}",
    "DK": r"\d{8}",
    "EE": r"\d{9}",
    "EL": r"\d{9}",
    "ES": r"[A-Z0-9]\d{7}[A-Z0-9]",
    "FI": r"\d{8}",
    "FR": r"[A-HJ-NP-Z0-9]{2}\d{9}",
    "GB": r"(\d{9}|\d{12}|GD[0-4]\d\d|HA[5-9]\d\d)",
    "HR": r"\d{11}",
    "HU": r"\d{8}",
    "IE": r"(\d{7}[A-W][A-I]?|\d[A-Z+*]\d{5}[A-W])",
    "IS": r"\d{5,6}",
    "IT": r"\d{11}",
    "LT": r"(\d{9}|\d{12})",
    "LU": r"\d{8}",
    "LV": r"\d{11}",
    "MT": r"\d{8}",
    "NL": r"\d{9}B\d\d",
    "NO": r"\d{9}(MVA)?",
    "PL": r"\d{10}",
    "PT": r"\d{9}",
    "RO": r"\d{2,10}",
    "SE": r"\d{10}01",
    "SI": r"\d{8}",
    "SK": r"\d{10}",
    "XI": r"(\d{9}|\d{12}|GD[0-4]\d\d|HA[5-9]\d\d)",
}
_PATTERNS = {country: re.compile(form, re.ASCII) for country, form in _FORMS.items()}
_ALIASES = {"GR": "EL"}
_FILLING = re.compile(r"[\s.\-/]")


def normalize(text: str) -> str:
    """A VAT number without spaces and punctuation, in capitals."""
    return _FILLING.sub("", text).upper()


def country_of(number: str) -> str:
    """The country that a normalized number begins with, as tax authorities write it: Greece is EL."""
    return _ALIASES.get(number[:2], number[:2])


def problem(text: str) -> str | None:
    """Why this cannot be a VAT number, or `None` if it can be one."""
    number = normalize(text)
    if not number or len(text) > MAX_LENGTH:
        return "it is empty or too long"
    country = country_of(number)
    pattern = _PATTERNS.get(country)
    if pattern is None:
        return "it does not begin with a known country"
    if not pattern.fullmatch(number[2:]):
        return f"it has not the form of {country}"
    check = _CHECKS.get(country)
    if check is not None and not check(number[2:]):
        return "its check digits do not fit"
    return None


def _weighted(digits: str, weights: tuple[int, ...]) -> int:
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False))


def _at(body: str) -> bool:
    total = sum(sum(divmod(int(digit) * (1 + place % 2), 10)) for place, digit in enumerate(body[1:8]))
    return (10 - (total + 4) % 10) % 10 == int(body[8])


def _be(body: str) -> bool:
    return 97 - int(body[:8]) % 97 == int(body[8:])


def _iso7064(body: str) -> bool:
    """ISO 7064 mod 11,10."""
    product = 10
    for digit in body[:-1]:
        product = ((int(digit) + product) % 10 or 10) * 2 % 11
    return (11 - product) % 10 == int(body[-1])


def _dk(body: str) -> bool:
    return _weighted(body, (2, 7, 6, 5, 4, 3, 2, 1)) % 11 == 0


def _fi(body: str) -> bool:
    rest = _weighted(body[:7], (7, 9, 10, 5, 8, 4, 2)) % 11
    return rest != 1 and (11 - rest) % 11 == int(body[7])


def _fr(body: str) -> bool:
    if not body[:2].isdigit():
        return True  # the newer keys with letters are not checked
    return (12 + 3 * (int(body[2:]) % 97)) % 97 == int(body[:2])


def _it(body: str) -> bool:
    total = sum(sum(divmod(int(digit) * (1 + place % 2), 10)) for place, digit in enumerate(body))
    return total % 10 == 0


def _lu(body: str) -> bool:
    return int(body[:6]) % 89 == int(body[6:])


def _pl(body: str) -> bool:
    return _weighted(body[:9], (6, 5, 7, 2, 3, 4, 5, 6, 7)) % 11 == int(body[9])


def _pt(body: str) -> bool:
    rest = 11 - _weighted(body[:8], (9, 8, 7, 6, 5, 4, 3, 2)) % 11
    return (0 if rest > 9 else rest) == int(body[8])


_CHECKS = {
    "AT": _at,
    "BE": _be,
    "DE": _iso7064,
    "DK": _dk,
    "FI": _fi,
    "FR": _fr,
    "HR": _iso7064,
    "IT": _it,
    "LU": _lu,
    "PL": _pl,
    "PT": _pt,
}
