"""The explanation of a bill for people: one line for each line of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from busbar.pricing.bill import LineKind
from busbar.pricing.explanation import plain
from busbar.pricing.money import MINOR_DIGITS
from busbar.pricing.tariff import Unit

_NOTES = {
    "out_of_order": "a fact came with an earlier instant than the one before and was taken at the later of the two",
    "ignored": "a fact has no place in the session, such as a second start, and was left out",
    "too_long": "the session is longer than a session may be and was priced up to there",
    "register_fell": "the register went down: counting went on from the lower value",
    "register_unreadable": "a register is not a number, or beyond any meter, and was left out",
    "no_start_register": "energy before the first register is not known and not charged",
    "no_end_register": "energy after the last register is not known and not charged",
    "current_unknown": "the tariff depends on the current, some of which was never reported: 0 A was taken",
    "pending_merged": "too many changes between two registers to keep each: the energy is spread over fewer",
    "not_ended": "it has not ended: this is what it costs so far",
    "tax_unknown": "a price has no tax rate: it counts as untaxed",
}


def explanation_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """What `busbar.pricing.explanation.explain` made, a line for each line of the bill, as the clock there shows it."""
    zone, currency = ZoneInfo(document["time_zone"]), document["currency"]
    side = "incl_tax" if document["prices_include_tax"] else "excl_tax"
    digits = MINOR_DIGITS[currency]
    for earlier in document.get("earlier_tariffs", ()):
        until = datetime.fromisoformat(earlier["until"]).astimezone(zone)
        yield f"{_tariff(earlier)} until {until:%a %Y-%m-%d %H:%M:%S}"
    taxes = "after tax" if document["prices_include_tax"] else "before tax"
    yield f"{_tariff(document['tariff'])}, {document['time_zone']}, {taxes}:"
    shown = (line for line in document["lines"] if line["kind"] != LineKind.ROUNDING or line[side])
    for number, line in enumerate(shown, 1):
        amount = f"{plain(line[side], digits)} {currency}"
        yield f"{number:4} {_when(line, zone):36} {_what(line, digits)} = {amount}{_why(line)}".rstrip()
    yield from (f"     note {note}: {_NOTES.get(note, '')}".rstrip(": ") for note in document["notes"])


def _tariff(tariff: Mapping[str, Any]) -> str:
    return f"Tariff {tariff['id']} ({tariff['format']}, {tariff['fingerprint']})"


def _when(line: Mapping[str, Any], zone: ZoneInfo) -> str:
    if "begin" not in line:
        return ""
    begin, end = (datetime.fromisoformat(line[name]).astimezone(zone) for name in ("begin", "end"))
    if begin == end:
        return f"{begin:%a %Y-%m-%d %H:%M:%S}"
    until = f"{end:%H:%M:%S}" if end.date() == begin.date() else f"{end:%a %H:%M:%S}"
    if begin.tzname() != end.tzname():  # the clock says another length than what is billed
        return f"{begin:%a %Y-%m-%d %H:%M:%S %Z}-{until} {end:%Z}"
    return f"{begin:%a %Y-%m-%d %H:%M:%S}-{until}"


def _what(line: Mapping[str, Any], digits: int) -> str:
    if "component" not in line:
        return str(line["kind"])
    kind = f"{line['kind']} of {line['dimension']}" if line["kind"] == LineKind.STEP else line["kind"]
    price = plain(line["price"], digits)
    if "kwh" in line:
        return f"{kind} {plain(line['kwh'], 3)} kWh x {price}/kWh"
    if "seconds" in line:
        return f"{kind} {plain(line['seconds'], 0)} s x {price}/{line['per']}"
    return f"{kind} {price}" if line["per"] == Unit.SESSION else f"{kind} x {price}/{line['per']}"


def _why(line: Mapping[str, Any]) -> str:
    if "component" not in line:
        return ""
    rates = [f"{rate['name']} {plain(rate['percent'], 0)} %" for rate in line.get("taxes", ())]
    reasons = [text for text in (line.get("when", ""), ", ".join(rates)) if text]
    path = f"{line['tariff']} {line['path']}" if "tariff" in line else line["path"]
    return f"  [{path}{': ' if reasons else ''}{'; '.join(reasons)}]"
