"""A receipt that a driver understands, from a bill, in words and as text; `receipt_page` makes HTML of it.

Prices and amounts are shown as the tariff states them, before or after tax, and the rows add up to the total. Amounts
have the digits of the total, or those of a detailed receipt as many as the finest of them, so that all of them line up:
what that takes away or adds is a row of its own. The explanation has every line to its last digit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from busbar.pricing.bill import Bill, LineKind
from busbar.pricing.explanation import explain, plain
from busbar.pricing.money import MINOR_DIGITS, to_decimal
from busbar.pricing.state import Note
from busbar.pricing.tariff import Dimension, Unit

_WIDTH = 72
_NAMES: dict[str, str] = {
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
_STEPS: dict[str, str] = {
    Dimension.ENERGY: "energy",
    Dimension.TIME: "charging time",
    Dimension.PARKING_TIME: "parking time",
    Dimension.RESERVATION_TIME: "reservation",
    Dimension.EXPIRED_TIME: "reservation",
}
_REMARKS: dict[str, str] = {
    Note.NO_START_REGISTER: "The meter was not read at the start: energy before its first reading is not charged.",
    Note.NO_END_REGISTER: "The meter was not read at the end: energy after its last reading is not charged.",
    Note.REGISTER_FELL: "The meter was exchanged or reset during the session.",
    Note.TOO_LONG: "The session is charged up to the longest possible duration only.",
    Note.NOT_ENDED: "The session goes on: this is what it costs so far.",
}

_Line = Mapping[str, Any]
"""A line of the explanation."""


@dataclass(frozen=True, slots=True)
class Heading:
    """What stands above the rows."""

    title: str = "Charging receipt"
    seller: str = ""
    place: str = ""
    station: str = ""
    receipt_id: str = ""
    credit_of: str = ""
    """The record that this one takes back, if it is a credit."""
    credited_by: str = ""
    """The credit that has taken this record back: nobody has to pay it any more."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: texts, ready to be shown."""

    what: str
    quantity: str
    price: str
    """Of one unit, and its taxes where the bill has several rates."""
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
    return receipt_of(explain(bill, time_zone), heading, detailed=detailed)


def receipt_of(document: Mapping[str, Any], heading: Heading | None = None, *, detailed: bool = False) -> Receipt:
    """The same from what `explain` made of the bill, which may have been kept for years."""
    return Receipt(
        heading=heading or Heading(),
        facts=tuple(_facts(document, ZoneInfo(document["time_zone"]))),
        rows=tuple(_rows(document, detailed=detailed)),
        sums=tuple(_sums(document)),
        remarks=tuple(_REMARKS[note] for note in document["notes"] if note in _REMARKS),
    )


def receipt_text(receipt: Receipt) -> str:
    """Lay a receipt out as plain text, 72 columns wide where the words allow."""
    heading = receipt.heading
    out = [heading.title, "=" * len(heading.title)]
    out += [text for text in (heading.seller, heading.place) if text]
    out += [f"{label + ':':15}{value}" for label, value in labelled(receipt)]
    out.append("-" * _WIDTH)
    for row in receipt.rows:
        out.append(_justified(row.what, row.amount))
        if below := " x ".join(text for text in (row.quantity, row.price) if text):
            out.append(f"    {below}")
    out.append("-" * _WIDTH)
    out += [_justified(label, amount) for label, amount in receipt.sums]
    out += ["", *receipt.remarks] if receipt.remarks else []
    return "\n".join(_printable(line) for line in out) + "\n"


def labelled(receipt: Receipt) -> list[tuple[str, str]]:
    """What stands between the heading and the rows: labels and values."""
    heading = receipt.heading
    own = (
        ("Credit note" if heading.credit_of else "Receipt", heading.receipt_id),
        ("Takes back", heading.credit_of),
        ("Taken back by", heading.credited_by),
        ("Station", heading.station),
    )
    return [(label, value) for label, value in own if value] + list(receipt.facts)


def _facts(document: Mapping[str, Any], zone: ZoneInfo) -> Iterable[tuple[str, str]]:
    reservation, session = document.get("reservation"), document.get("session")
    if reservation:
        yield "Reserved", f"{_moment(reservation['begin'], zone)} to {_moment(reservation['end'], zone)}"
    if session:
        yield "Begin", _moment(session["begin"], zone)
        yield "End", _moment(session["end"], zone)
        yield "Duration", _duration(session["seconds"])
        if session["parking_seconds"]:
            yield "Parked", _duration(session["parking_seconds"])
        yield "Energy", f"{_kwh(Decimal(session['energy_wh']) / 1000)}"
    for earlier in document.get("earlier_tariffs", ()):
        yield "New prices", f"from {_moment(earlier['until'], zone)}"


def _rows(document: Mapping[str, Any], *, detailed: bool) -> Iterable[Row]:
    side = "incl_tax" if document["prices_include_tax"] else "excl_tax"
    currency, total = document["currency"], document["total"][side]
    lines = [line for line in document["lines"] if line["kind"] != LineKind.ROUNDING]
    digits = max(MINOR_DIGITS[currency], _digits(total))
    if detailed:
        digits = max([digits, *(_digits(line[side]) for line in document["lines"])])
    rates = [_rates(line) for line in lines if "component" in line]
    several_rates = any(each != rates[0] for each in rates)
    zone, left = ZoneInfo(document["time_zone"]), total
    for group in [[line] for line in lines] if detailed else _by_price(lines):
        amount = to_decimal(*_sum(group, side).as_integer_ratio(), digits)
        if not amount and group[0]["kind"] == LineKind.STEP:
            continue  # the step of most tariffs is a Wh or a second
        left -= amount
        what, price = _what(group[0], zone, detailed=detailed), _price(group[0], currency)
        if several_rates and (rate := _rates(group[0])):
            price = f"{price}, {rate}" if price else rate
        yield Row(what, _quantity(group), price, _money(amount, currency, digits))
    if left:
        yield Row(_NAMES[LineKind.ROUNDING], "", "", _money(left, currency, digits))


def _by_price(lines: Iterable[_Line]) -> list[list[_Line]]:
    groups: dict[tuple[str, int], list[_Line]] = defaultdict(list)
    for line in lines:
        groups[line["kind"], line.get("component", -1)].append(line)
    return list(groups.values())


def _what(line: _Line, zone: ZoneInfo, *, detailed: bool) -> str:
    if line["kind"] == LineKind.STEP:
        what, when = f"Up to the next step of {_STEPS[line['dimension']]}", ""
    else:
        what, when = _NAMES[line["kind"]], line.get("when", "")
    if detailed and "begin" in line and line["end"] != line["begin"]:
        when = _stretch(line, zone)
    return f"{what} ({when})" if when else what


def _price(line: _Line, currency: str) -> str:
    """Of one unit; empty where a price is charged once."""
    if "component" not in line or line["per"] == Unit.SESSION:
        return ""
    return f"{_money(line['price'], currency)}/{line['per']}"


def _rates(line: _Line) -> str:
    """The taxes of a line, such as `VAT 7 %`."""
    return " + ".join(f"{rate['name']} {plain(rate['percent'], 0)} %" for rate in line.get("taxes", ()))


def _sum(lines: Iterable[_Line], name: str) -> Decimal:
    return sum((Decimal(line[name]) for line in lines), Decimal(0))


def _sums(document: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    total, taxes, currency = document["total"], document["taxes"], document["currency"]
    gross = document["prices_include_tax"]
    digits = max(map(_digits, (*total.values(), *(tax["amount"] for tax in taxes))))
    if not gross and (total["incl_tax"] != total["excl_tax"] or any(tax["amount"] for tax in taxes)):
        yield "Sum before tax", _money(total["excl_tax"], currency, digits)
    for tax in taxes:
        if tax["amount"] or tax.get("percent"):
            rate = f" {plain(tax['percent'], 0)} %" if "percent" in tax else ""
            yield f"{'including ' if gross else ''}{tax['name']}{rate}", _money(tax["amount"], currency, digits)
    yield "Total", _money(total["incl_tax"], currency, digits)


def _quantity(lines: Sequence[_Line]) -> str:
    if "kwh" in lines[0]:
        return _kwh(_sum(lines, "kwh"))
    return _duration(_sum(lines, "seconds")) if "seconds" in lines[0] else ""


def _kwh(value: Decimal) -> str:
    return f"{plain(value.quantize(Decimal('0.000001')), 3)} kWh"


def _duration(length: Decimal) -> str:
    seconds, fraction = divmod(int(length * 1000), 1000)
    hours, minutes, seconds = seconds // 3600, seconds // 60 % 60, seconds % 60
    parts = [f"{number} {unit}" for number, unit in ((hours, "h"), (minutes, "min")) if number]
    if fraction:
        parts.append(f"{seconds}.{fraction:03} s")
    elif seconds or not parts:
        parts.append(f"{seconds} s")
    return " ".join(parts)


def _moment(at: str, zone: ZoneInfo) -> str:
    local = datetime.fromisoformat(at).astimezone(zone)
    return f"{local:%Y-%m-%d %H:%M:%S} {local:%Z}"


def _stretch(line: _Line, zone: ZoneInfo) -> str:
    """From when to when, with the name of the clock where it was changed in between."""
    begin, end = (datetime.fromisoformat(line[name]).astimezone(zone) for name in ("begin", "end"))
    texts = [f"{each:%a %d %b} {_clock(each)}" for each in (begin, end)]
    if begin.tzname() != end.tzname():
        texts = [f"{text} {each:%Z}" for text, each in zip(texts, (begin, end), strict=True)]
    elif begin.date() == end.date():
        texts[1] = _clock(end)
    return "-".join(texts)


def _clock(moment: datetime) -> str:
    return f"{moment:%H:%M:%S}" if moment.second else f"{moment:%H:%M}"


def _digits(amount: Decimal) -> int:
    """How many fraction digits it needs."""
    return len(plain(amount, 0).partition(".")[2])


def _money(amount: Decimal, currency: str, digits: int = 0) -> str:
    return f"{plain(amount, max(digits, MINOR_DIGITS[currency]))} {currency}"


def _justified(left: str, right: str) -> str:
    return f"{left} {right:>{max(len(right), _WIDTH - len(left) - 1)}}"


def _printable(text: str) -> str:
    """Without characters that would move the cursor or colour a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)
