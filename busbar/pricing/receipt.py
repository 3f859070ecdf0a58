"""A receipt that a driver understands, from a bill: as text and as HTML.

Prices and amounts are shown as the tariff states them, before or after tax, and the rows add up to the total.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from html import escape
from zoneinfo import ZoneInfo

from busbar.pricing.bill import Bill, Line, LineKind
from busbar.pricing.money import MINOR_DIGITS
from busbar.pricing.state import Note
from busbar.pricing.tariff import Component, Conditions, Dimension, Quantity, TaxIncluded, Unit

_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_WIDTH = 72
_NAMES = {
    LineKind.ENERGY: "Energy",
    LineKind.TIME: "Charging time",
    LineKind.PARKING_TIME: "Parking time",
    LineKind.FLAT: "Fee",
    LineKind.RESERVATION_TIME: "Reservation",
    LineKind.RESERVATION_FLAT: "Reservation fee",
    LineKind.MINIMUM: "Up to the minimum price",
    LineKind.MAXIMUM: "Down to the maximum price",
    LineKind.ROUNDING: "Rounding",
}
_STEPS = {
    Dimension.ENERGY: "energy",
    Dimension.TIME: "charging time",
    Dimension.PARKING_TIME: "parking time",
    Dimension.RESERVATION_TIME: "reservation",
    Dimension.EXPIRED_TIME: "reservation",
}
_QUANTITIES = {
    Quantity.ENERGY: ("kWh", Decimal("1e9")),
    Quantity.CURRENT: ("A", Decimal(1000)),
    Quantity.POWER: ("kW", Decimal("1e6")),
    Quantity.DURATION: ("min", Decimal(60_000)),
    Quantity.CHARGING: ("min of charging", Decimal(60_000)),
    Quantity.IDLE: ("min of parking", Decimal(60_000)),
}
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_REMARKS = {
    Note.NO_START_REGISTER: "The meter was not read at the start: energy before its first reading is not charged.",
    Note.NO_END_REGISTER: "The meter was not read at the end: energy after its last reading is not charged.",
    Note.REGISTER_FELL: "The meter was exchanged or reset during the session.",
    Note.TOO_LONG: "The session is charged up to the longest possible duration only.",
    Note.NOT_ENDED: "The session goes on: this is what it costs so far.",
}


@dataclass(frozen=True, slots=True)
class Heading:
    """What stands above the rows."""

    title: str = "Charging receipt"
    seller: str = ""
    place: str = ""
    station: str = ""
    receipt_id: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: texts, ready to be shown."""

    what: str
    quantity: str
    price: str
    amount: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """The texts of a receipt, before they are laid out."""

    heading: Heading
    facts: tuple[tuple[str, str], ...]
    """Label and value, such as when it began."""
    rows: tuple[Row, ...]
    sums: tuple[tuple[str, str], ...]
    """Label and amount below the rows; the last one is what is paid."""
    remarks: tuple[str, ...]


def make_receipt(bill: Bill, time_zone: str, heading: Heading | None = None, *, detailed: bool = False) -> Receipt:
    """Put a bill into words.

    Args:
        bill: Of the session.
        time_zone: The location's IANA zone, in which times are shown.
        heading: What stands above.
        detailed: One row for each stretch of the session, instead of one for each price.
    """
    gross = bill.tariff.tax_included is TaxIncluded.YES
    zone = ZoneInfo(time_zone)
    shown = [line for line in bill.lines if line.kind is not LineKind.ROUNDING or _side(line, gross=gross)]
    groups: Iterable[Sequence[Line]] = [[line] for line in shown] if detailed else _by_price(shown)
    return Receipt(
        heading=heading or Heading(),
        facts=tuple(_facts(bill, zone)),
        rows=tuple(_row(group, bill.currency, zone, gross=gross, detailed=detailed) for group in groups),
        sums=tuple(_sums(bill, gross=gross)),
        remarks=tuple(_REMARKS[note] for note in bill.notes if note in _REMARKS),
    )


def receipt_text(receipt: Receipt) -> str:
    """Lay a receipt out as plain text, 72 columns wide where the words allow."""
    heading = receipt.heading
    out = [heading.title, "=" * len(heading.title)]
    out += [text for text in (heading.seller, heading.place) if text]
    out += [f"{label + ':':15}{value}" for label, value in _labelled(receipt)]
    out.append("-" * _WIDTH)
    for row in receipt.rows:
        out.append(_justified(row.what, row.amount))
        if row.quantity:
            out.append(f"    {row.quantity}" + (f" x {row.price}" if row.price else ""))
    out.append("-" * _WIDTH)
    out += [_justified(label, amount) for label, amount in receipt.sums]
    out += ["", *receipt.remarks] if receipt.remarks else []
    return "\n".join(_printable(line) for line in out) + "\n"


def receipt_html(receipt: Receipt) -> str:
    """Lay a receipt out as an HTML document of its own, with everything escaped."""
    heading = receipt.heading

    def cells(tag: str, values: Iterable[str]) -> str:
        return "".join(f"<{tag}>{escape(value)}</{tag}>" for value in values)

    facts = "".join(f"<dt>{escape(label)}</dt><dd>{escape(value)}</dd>" for label, value in _labelled(receipt))
    rows = "".join(f"<tr>{cells('td', (row.what, row.quantity, row.price, row.amount))}</tr>" for row in receipt.rows)
    sums = "".join(
        f'<tr><th colspan="3">{escape(label)}</th><td>{escape(amount)}</td></tr>' for label, amount in receipt.sums
    )
    above = "".join(f"<p>{escape(text)}</p>" for text in (heading.seller, heading.place) if text)
    below = "".join(f"<p>{escape(remark)}</p>" for remark in receipt.remarks)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(heading.title)}</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>{escape(heading.title)}</h1>{above}<dl>{facts}</dl>"
        f"<table><thead><tr>{cells('th', ('What', 'Quantity', 'Price', 'Amount'))}</tr></thead>"
        f"<tbody>{rows}</tbody><tfoot>{sums}</tfoot></table>{below}</main></body></html>\n"
    )


_STYLE = (
    "body{font:16px/1.4 system-ui,sans-serif;margin:2em auto;max-width:48em;padding:0 1em}"
    "dl{display:grid;grid-template-columns:max-content auto;gap:0 1em}dd{margin:0}"
    "table{border-collapse:collapse;width:100%}td,th{padding:.25em .5em;text-align:left;vertical-align:top}"
    "td:last-child,th:last-child{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}"
    "thead,tfoot{border-block:1px solid}tfoot tr:last-child{font-weight:bold}tfoot th{font-weight:inherit}"
)


def _labelled(receipt: Receipt) -> list[tuple[str, str]]:
    heading = receipt.heading
    own = (("Receipt", heading.receipt_id), ("Station", heading.station))
    return [(label, value) for label, value in own if value] + list(receipt.facts)


def _facts(bill: Bill, zone: ZoneInfo) -> Iterable[tuple[str, str]]:
    if bill.reservation:
        yield "Reserved", f"{_moment(bill.reservation[0], zone)} to {_moment(bill.reservation[1], zone)}"
    if bill.periods or bill.duration_ms or not bill.reservation:
        yield "Begin", _moment(bill.start_ms, zone)
        yield "End", _moment(bill.end_ms, zone)
        yield "Duration", _duration(bill.duration_ms)
        if bill.parking_ms:
            yield "of it parking", _duration(bill.parking_ms)
        yield "Energy", f"{_kwh(bill.energy_wh / 1000)}"


def _side(line: Line, *, gross: bool) -> Decimal:
    return line.incl_tax if gross else line.excl_tax


def _by_price(lines: Iterable[Line]) -> list[list[Line]]:
    groups: dict[tuple[LineKind, int], list[Line]] = {}
    for line in lines:
        key = (line.kind, -1 if line.component is None else line.component.index)
        groups.setdefault(key, []).append(line)
    return list(groups.values())


def _row(lines: Sequence[Line], currency: str, zone: ZoneInfo, *, gross: bool, detailed: bool) -> Row:
    first, component = lines[0], lines[0].component
    amount = sum((_side(line, gross=gross) for line in lines), Decimal(0))
    if component is None:
        return Row(_NAMES[first.kind], "", "", _money(amount, currency))
    if first.kind is LineKind.STEP:
        what, when = f"Up to the next step of {_STEPS[component.dimension]}", ""
    else:
        what, when = _NAMES[first.kind], _when(component.conditions)
    if detailed and first.end_ms > first.start_ms:
        when = f"{_clock(first.start_ms, zone)}-{_clock(first.end_ms, zone)}"
    quantity = sum((line.quantity for line in lines), Decimal(0))
    return Row(
        f"{what} ({when})" if when else what,
        _quantity(quantity, component),
        f"{_money(component.price, currency)}/{component.unit}" if component.unit is not Unit.SESSION else "",
        _money(amount, currency),
    )


def _sums(bill: Bill, *, gross: bool) -> Iterable[tuple[str, str]]:
    total = bill.total
    if not gross and (total.tax or any(tax.amount for tax in bill.taxes)):
        yield "Sum before tax", _money(total.excl_tax, bill.currency)
    for tax in bill.taxes:
        if tax.amount or tax.percent:
            rate = "" if tax.percent is None else f" {_plain(tax.percent, 0)} %"
            yield f"{'including ' if gross else ''}{tax.name}{rate}", _money(tax.amount, bill.currency)
    yield "Total", _money(total.incl_tax, bill.currency)


def _when(conditions: Conditions) -> str:
    parts = []
    if not conditions.whole_day:
        start, end = conditions.start_minute, conditions.end_minute
        parts.append(f"{start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}")
    if conditions.days is not None:
        parts.append(" ".join(_WEEKDAYS[day] for day in sorted(conditions.days)))
    for bound in conditions.bounds:
        unit, size = _QUANTITIES[bound.quantity]
        low, high = (
            None if side is None else _plain(Decimal(side) / size, 0) for side in (bound.minimum or None, bound.maximum)
        )
        if low and high:
            parts.append(f"{low} to {high} {unit}")
        elif low:
            parts.append(f"from {low} {unit}")
        elif high:
            parts.append(f"below {high} {unit}")
    return ", ".join(parts)


def _quantity(quantity: Decimal, component: Component) -> str:
    if component.unit is Unit.KWH:
        return _kwh(quantity)
    if component.unit is Unit.SESSION:
        return ""
    return _duration(int(quantity * 1000))


def _kwh(value: Decimal) -> str:
    return f"{_plain(value.quantize(Decimal('0.000001')), 3)} kWh"


def _duration(length_ms: int) -> str:
    seconds, fraction = divmod(length_ms, 1000)
    hours, minutes, seconds = seconds // 3600, seconds // 60 % 60, seconds % 60
    parts = [f"{number} {unit}" for number, unit in ((hours, "h"), (minutes, "min")) if number]
    if fraction:
        parts.append(f"{seconds}.{fraction:03} s")
    elif seconds or not parts:
        parts.append(f"{seconds} s")
    return " ".join(parts)


def _moment(at_ms: int, zone: ZoneInfo) -> str:
    local = (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(zone)
    return f"{local:%Y-%m-%d %H:%M:%S} {local:%Z}"


def _clock(at_ms: int, zone: ZoneInfo) -> str:
    return f"{(_EPOCH + timedelta(milliseconds=at_ms)).astimezone(zone):%a %H:%M:%S}"


def _money(amount: Decimal, currency: str) -> str:
    return f"{_plain(amount, MINOR_DIGITS[currency])} {currency}"


def _plain(value: Decimal, digits: int) -> str:
    """With as many fraction digits as it has, but not fewer than these."""
    text = f"{value:f}"
    whole, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0").ljust(digits, "0")
    return f"{whole}.{fraction}" if fraction else whole


def _justified(left: str, right: str) -> str:
    return f"{left} {right:>{max(len(right), _WIDTH - len(left) - 1)}}"


def _printable(text: str) -> str:
    """Without characters that would move the cursor or colour a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)
