"""What a tariff costs, in words that fit on a station's display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from busbar.pricing.edges import NextChange, PriceEdges, Prices, Situation, price_after_tax
from busbar.pricing.money import MINOR_DIGITS, RoundingMode, to_decimal
from busbar.pricing.tariff import MS_PER_MINUTE, Component, Tariff

MAX_TEXT = 512
"""Of a text on a display. Spec: OCPP 2.0.1 MessageContentType."""
_PRICE_DIGITS = 4


def own_texts(tariff: Tariff) -> dict[str, str]:
    """The texts that the tariff brings along, by language. Spec: OCPI tariff_alt_text, OCPP 2.1 description."""
    source = tariff.source
    found: dict[str, str] = {}
    for item in _items(source.get("tariff_alt_text")):
        found.setdefault(str(item.get("language") or ""), str(item.get("text") or ""))
    for item in _items(source.get("description")):
        found.setdefault(str(item.get("language") or ""), str(item.get("content") or ""))
    return {language: text[:MAX_TEXT] for language, text in found.items() if text.strip()}


def price_text(tariff: Tariff, edges: PriceEdges, now: Situation, time_zone: str) -> str:
    """What a session that starts now is charged, such as `EUR 0.45/kWh, 3.60/h; from 22:00 EUR 0.25/kWh`.

    Prices are those after tax, as far as the tariff knows its taxes.
    """
    text = _prices_text(tariff, edges, now, edges.prices(now))
    change = edges.next_change(now)
    later = _later_text(tariff, edges, now, change, time_zone)
    return f"{text}; {later}"[:MAX_TEXT] if later else text[:MAX_TEXT]


def amount_text(tariff: Tariff, component: Component) -> str:
    """A price with as many digits as the currency has, or up to four if it needs them."""
    price = price_after_tax(tariff, component)
    least = MINOR_DIGITS[tariff.currency]
    for digits in range(least, max(least, _PRICE_DIGITS) + 1):
        shown = to_decimal(price.numerator, price.denominator, digits, RoundingMode.HALF_UP)
        if shown == price:
            break
    return f"{shown:f}"


def _prices_text(tariff: Tariff, edges: PriceEdges, now: Situation, prices: Prices) -> str:
    parts = []
    for component, unit in ((prices.energy, "/kWh"), (prices.charging, "/h"), (prices.fee, " per session")):
        if component is not None and component.price:
            parts.append(f"{amount_text(tariff, component)}{unit}")
    parking = edges.parking_price(now)
    if parking is not None:
        grace_ms, component = parking
        minutes = -(-grace_ms // MS_PER_MINUTE)
        after = f" after {minutes} min" if minutes else ""
        parts.append(f"{amount_text(tariff, component)}/h parked{after}")
    return f"{tariff.currency} {', '.join(parts)}" if parts else f"{tariff.currency} 0: free of charge"


def _later_text(tariff: Tariff, edges: PriceEdges, now: Situation, change: NextChange, time_zone: str) -> str:
    """The prices after the next change, if the clock makes it, within a day."""
    if change.at_ms is None or change.then is None or change.at_ms - now.at_ms >= 24 * 60 * MS_PER_MINUTE:
        return ""
    moment = datetime.fromtimestamp(change.at_ms / 1000, UTC).astimezone(ZoneInfo(time_zone))
    then = now.later(change.at_ms)
    return f"from {moment:%H:%M} {_prices_text(tariff, edges, then, change.then)}"


def _items(value: object) -> list[Mapping[str, object]]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return []
    return [item for item in value if isinstance(item, Mapping)]
