"""A receipt that a driver understands, from a bill, in words and as text; `receipt_page` makes HTML of it.

Prices and amounts are shown as the tariff states them, before or after tax, and the rows add up to the total.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from busbar.pricing.bill import Bill, LineKind
from busbar.pricing.explanation import explain, plain
from busbar.pricing.money import MINOR_DIGITS
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
    return receipt_of(explain(bill, time_zone), heading, detailed=detailed)


def receipt_of(document: Mapping[str, Any], heading: Heading | None = None, *, detailed: bool = False) -> Receipt:
    """The same from what `explain` made of the bill, which may have been kept for years."""
    side = "incl_tax" if document["prices_include_tax"] else "excl_tax"
    zone = ZoneInfo(document["time_zone"])
    shown = [line for line in document["lines"] if line["kind"] != LineKind.ROUNDING or line[side]]
    groups: Iterable[Sequence[_Line]] = [[line] for line in shown] if detailed else _by_price(shown)
    return Receipt(
        heading=heading or Heading(),
        facts=tuple(_facts(document, zone)),
        rows=tuple(_row(group, document["currency"], zone, side, detailed=detailed) for group in groups),
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
        if row.quantity:
            out.append(f"    {row.quantity}" + (f" x {row.price}" if row.price else ""))
    out.append("-" * _WIDTH)
    out += [_justified(label, amount) for label, amount in receipt.sums]
    out += ["", *receipt.remarks] if receipt.remarks else []
    return "\n".join(_printable(line) for line in out) + "\n"


def labelled(receipt: Receipt) -> list[tuple[str, str]]:
    """What stands between the heading and the rows: labels and values."""
    heading = receipt.heading
    own = (("Receipt", heading.receipt_id), ("Station", heading.station))
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
            yield "of it parking", _duration(session["parking_seconds"])
        yield "Energy", f"{_kwh(Decimal(session['energy_wh']) / 1000)}"
    for earlier in document.get("earlier_tariffs", ()):
        yield "New prices", f"from {_moment(earlier['until'], zone)}"


def _by_price(lines: Iterable[_Line]) -> list[list[_Line]]:
    groups: dict[tuple[str, int], list[_Line]] = {}
    for line in lines:
        groups.setdefault((line["kind"], line.get("component", -1)), []).append(line)
    return list(groups.values())


def _row(lines: Sequence[_Line], currency: str, zone: ZoneInfo, side: str, *, detailed: bool) -> Row:
    first = lines[0]
    amount = _money(_sum(lines, side), currency)
    if "component" not in first:
        return Row(_NAMES[first["kind"]], "", "", amount)
    if first["kind"] == LineKind.STEP:
        what, when = f"Up to the next step of {_STEPS[first['dimension']]}", ""
    else:
        what, when = _NAMES[first["kind"]], first.get("when", "")
    if detailed and first["end"] != first["begin"]:
        when = f"{_clock(first['begin'], zone)}-{_clock(first['end'], zone)}"
    price = _money(first["price"], currency)
    return Row(
        f"{what} ({when})" if when else what,
        _quantity(lines),
        f"{price}/{first['per']}" if first["per"] != Unit.SESSION else "",
        amount,
    )


def _sum(lines: Iterable[_Line], name: str) -> Decimal:
    return sum((Decimal(line[name]) for line in lines), Decimal(0))


def _sums(document: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    total, taxes, currency = document["total"], document["taxes"], document["currency"]
    gross = document["prices_include_tax"]
    if not gross and (total["incl_tax"] != total["excl_tax"] or any(tax["amount"] for tax in taxes)):
        yield "Sum before tax", _money(total["excl_tax"], currency)
    for tax in taxes:
        if tax["amount"] or tax.get("percent"):
            rate = f" {plain(tax['percent'], 0)} %" if "percent" in tax else ""
            yield f"{'including ' if gross else ''}{tax['name']}{rate}", _money(tax["amount"], currency)
    yield "Total", _money(total["incl_tax"], currency)


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


def _clock(at: str, zone: ZoneInfo) -> str:
    return f"{datetime.fromisoformat(at).astimezone(zone):%a %H:%M:%S}"


def _money(amount: Decimal, currency: str) -> str:
    return f"{plain(amount, MINOR_DIGITS[currency])} {currency}"


def _justified(left: str, right: str) -> str:
    return f"{left} {right:>{max(len(right), _WIDTH - len(left) - 1)}}"


def _printable(text: str) -> str:
    """Without characters that would move the cursor or colour a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)
