"""Reads tariff JSON field by field and collects every reason why it cannot be priced."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from busbar.pricing.jsontext import serialize_json
from busbar.pricing.money import MINOR_DIGITS, scale_of
from busbar.pricing.problems import Problem
from busbar.pricing.tariff import Bound, Quantity

MAX_COMPONENTS = 2000
_NUMBER = re.compile(r"-?\d{1,12}(\.\d{1,10})?")
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
_DATE = re.compile(r"[12]\d{3}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _plain(value: int | Decimal) -> str:
    """A number without an exponent, unless it is beyond any price."""
    if isinstance(value, int):
        return str(value) if abs(value) < 10**13 else "more than 12 digits"
    return format(value, "f") if value.is_finite() and abs(value.adjusted()) < 40 else str(value)


class Reader:
    """Takes values out of parsed JSON. What is wrong is noted in `problems` with its path, and `None` is returned."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[str] = []

    def fail(self, path: str, reason: str) -> None:
        self.problems.append(Problem(path, reason))

    def warn(self, path: str, reason: str) -> None:
        self.warnings.append(f"{path}: {reason}")

    def check_source(self, source: Mapping[str, Any]) -> None:
        """The whole must be JSON that can be written back exactly: it is kept, named by its digest and sent on."""
        try:
            serialize_json(source, sort_keys=True).encode()
        except UnicodeEncodeError:
            self.fail("$", "holds a text that is not Unicode")
        except RecursionError:
            self.fail("$", "is nested too deeply")
        except TypeError as error:
            if not self.problems:
                self.fail("$", f"is not JSON with exact numbers: {error}")

    def mapping(self, parent: Mapping[str, Any], key: str, path: str) -> Mapping[str, Any] | None:
        """An object that may be absent."""
        value = parent.get(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            self.fail(f"{path}.{key}", "is not an object")
            return None
        return value

    def items(self, parent: Mapping[str, Any], key: str, path: str) -> Sequence[Any]:
        """A list with at least one item."""
        value = parent.get(key)
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            if value:
                return value
            self.fail(f"{path}.{key}", "is empty")
        else:
            self.fail(f"{path}.{key}", "is missing" if value is None else "is not a list")
        return ()

    def text(self, parent: Mapping[str, Any], key: str, path: str, longest: int) -> str | None:
        """A string that must be there."""
        value = parent.get(key)
        if value is None:
            self.fail(f"{path}.{key}", "is missing")
        elif not isinstance(value, str) or not value:
            self.fail(f"{path}.{key}", "is not a text")
        elif len(value) > longest:
            self.fail(f"{path}.{key}", f"is longer than {longest} characters")
        else:
            return value
        return None

    def currency(self, parent: Mapping[str, Any], path: str) -> str | None:
        code = self.text(parent, "currency", path, 3)
        if code is None:
            return None
        if code.upper() not in MINOR_DIGITS:
            self.fail(f"{path}.currency", f"{code!r} is not an ISO 4217 currency")
            return None
        return code.upper()

    def choice(self, parent: Mapping[str, Any], key: str, path: str, allowed: Sequence[str]) -> str | None:
        """One word of a list; `None` also when absent."""
        value = parent.get(key)
        if value is None:
            return None
        if value not in allowed:
            self.fail(f"{path}.{key}", f"{value!r} is none of {', '.join(allowed)}")
            return None
        return str(value)

    def number(
        self, parent: Mapping[str, Any], key: str, path: str, *, required: bool = False, signed: bool = False
    ) -> Decimal | None:
        """A JSON number, or the same as a text, which some platforms send."""
        value = parent.get(key)
        where = f"{path}.{key}"
        if value is None:
            if required:
                self.fail(where, "is missing")
            return None
        if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
            exact = "is a binary float: parse the JSON with parse_float=Decimal"
            self.fail(where, exact if isinstance(value, float) else "is not a number")
            return None
        text = value if isinstance(value, str) else _plain(value)
        if not _NUMBER.fullmatch(text):
            self.fail(where, f"{text[:40]!r} is not a number of at most 12 digits and 10 fraction digits")
            return None
        result = Decimal(text)
        if result < 0 and not signed:
            self.fail(where, "is negative")
            return None
        return result

    def whole(self, parent: Mapping[str, Any], key: str, path: str, *, longest: int = 10) -> int | None:
        """A whole number that is not negative; `None` also when absent."""
        value = self.number(parent, key, path)
        if value is None:
            return None
        if value != value.to_integral_value():
            self.fail(f"{path}.{key}", "is not a whole number")
            return None
        if len(str(int(value))) > longest:
            self.fail(f"{path}.{key}", f"has more than {longest} digits")
            return None
        return int(value)

    def minute_of_day(self, parent: Mapping[str, Any], key: str, path: str) -> int | None:
        """`HH:MM` as minutes since local midnight."""
        value = parent.get(key)
        if value is None:
            return None
        match = _TIME.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            self.fail(f"{path}.{key}", f"{value!r} is not a time of day from 00:00 to 23:59")
            return None
        return int(match[1]) * 60 + int(match[2])

    def window(self, parent: Mapping[str, Any], start_key: str, end_key: str, path: str) -> tuple[int, int]:
        """A daily window; an absent start is the beginning of the day, an absent end or 00:00 its end."""
        start = self.minute_of_day(parent, start_key, path)
        end = self.minute_of_day(parent, end_key, path)
        if start is not None and start == end and start > 0:
            self.warn(f"{path}.{end_key}", f"equals {start_key}: the window is the whole day")
        return start or 0, end or 1440

    def days(
        self, parent: Mapping[str, Any], from_key: str, until_key: str, path: str
    ) -> tuple[int | None, int | None]:
        """A range of local dates as ordinals."""
        first = self._day(parent, from_key, path)
        until = self._day(parent, until_key, path)
        if first is not None and until is not None and first >= until:
            self.fail(f"{path}.{until_key}", f"is not after {from_key}: the price would never apply")
        return first, until

    def _day(self, parent: Mapping[str, Any], key: str, path: str) -> int | None:
        value = parent.get(key)
        if value is None:
            return None
        if isinstance(value, str) and _DATE.fullmatch(value):
            try:
                return date.fromisoformat(value).toordinal()
            except ValueError:
                pass
        self.fail(f"{path}.{key}", f"{value!r} is not a date as 2026-03-29")
        return None

    def weekdays(self, parent: Mapping[str, Any], key: str, path: str, names: Sequence[str]) -> frozenset[int] | None:
        """Weekday names as numbers from 0, Monday; an absent or empty list is no condition."""
        value = parent.get(key)
        if value is None:
            return None
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            self.fail(f"{path}.{key}", "is not a list")
            return None
        for place, name in enumerate(value):
            if name not in names:
                self.fail(f"{path}.{key}[{place}]", f"{name!r} is none of {', '.join(names)}")
        found = frozenset(names.index(name) for name in value if name in names)
        return found if found and len(found) < 7 else None

    def bound(
        self,
        parent: Mapping[str, Any],
        keys: tuple[str, str],
        path: str,
        quantity: Quantity,
        digits: int,
        *,
        signed: bool = False,
    ) -> Bound | None:
        """A lower and an upper bound, scaled by `10**digits` into the engine's units."""
        low = self.number(parent, keys[0], path, signed=signed)
        high = self.number(parent, keys[1], path, signed=signed)
        if low is None and high is None:
            return None
        if low is not None and high is not None:
            if (low < 0) != (high < 0) and low != 0:
                self.fail(f"{path}.{keys[1]}", f"has another sign than {keys[0]}")
            elif abs(low) >= abs(high):
                self.fail(f"{path}.{keys[1]}", f"is not beyond {keys[0]}: the price would never apply")
        elif high == 0:
            self.fail(f"{path}.{keys[1]}", "is 0: the price would never apply")
        for key, value in zip(keys, (low, high), strict=True):
            if value is not None and scale_of(value, digits) != value.scaleb(digits):
                self.fail(f"{path}.{key}", f"has more than {digits} fraction digits")
        return Bound(
            quantity,
            None if low is None else scale_of(low, digits),
            None if high is None else scale_of(high, digits),
        )

    def instant(self, parent: Mapping[str, Any], key: str, path: str) -> int | None:
        """An RFC 3339 date-time as Unix milliseconds; without an offset it is UTC, as OCPI has it."""
        value = parent.get(key)
        if value is None:
            return None
        try:
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            elapsed = moment - _EPOCH
        except (TypeError, ValueError, OverflowError):
            self.fail(f"{path}.{key}", f"{value!r} is not a date and time as 2026-03-29T01:00:00Z")
            return None
        return (elapsed.days * 86_400 + elapsed.seconds) * 1000 + elapsed.microseconds // 1000
