"""Cost messages that displays show: the structures of "OCPP & California Pricing Requirements" 3.0.

In OCPP 1.6 they travel as JSON text in DataTransfer, in 2.0.1 as customData of the messages that there are for cost.
Pure: from a session's price state to payloads. All prices and costs are those after tax.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from busbar.ocpp.times import format_timestamp_ms
from busbar.pricing import ChargingState, Pricer, SessionState
from busbar.pricing.bill import Bill
from busbar.pricing.edges import NextChange, PriceEdges, Prices, Situation, price_after_tax, situation
from busbar.pricing.jsontext import serialize_json
from busbar.pricing.money import RoundingMode, decimal_of, round_ratio, to_decimal
from busbar.pricing.price_text import MAX_TEXT
from busbar.pricing.state import NONE
from busbar.pricing.tariff import MS_PER_MINUTE, Component, Dimension, Tariff

VENDOR_ID = "org.openchargealliance.costmsg"
PRICE_DIGITS = 4
"""Of a price per kWh or hour."""

_STATUSES = {
    ChargingState.CHARGING: "Charging",
    ChargingState.SUSPENDED_EV: "SuspendedEV",
    ChargingState.SUSPENDED_EVSE: "SuspendedEVSE",
    ChargingState.EV_CONNECTED: "Finishing",
}
"""The ChargePointStatus of 1.6 that stands for a charging state."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A session as its display is told of it."""

    at_ms: int
    cost: Decimal
    """After tax, rounded as it is charged."""
    register_wh: Decimal | None
    """The meter, if it has been read."""
    state: SessionState


def running_cost(standing: Standing, pricer: Pricer, edges: PriceEdges) -> dict[str, Any]:
    """What a session costs so far, and what it will cost: RunningCost without `transactionId` and `cost`."""
    now = situation(standing.state, pricer.options)
    if standing.at_ms > now.at_ms:
        now = now.later(standing.at_ms)
    tariff = pricer.tariff
    change = edges.next_change(now)
    charged = replace(now, fee_charged=False)
    told: dict[str, Any] = {
        "timestamp": format_timestamp_ms(standing.at_ms),
        "state": "Idle" if now.parking else "Charging",
        "chargingPrice": _charging_price(tariff, edges.prices(charged), _charged_fee(tariff, standing.state)),
    }
    if standing.register_wh is not None:
        told["meterValue"] = int(standing.register_wh)
    idle = _idle_price(tariff, edges, now)
    if idle:
        told["idlePrice"] = idle
    if change.at_ms is not None and change.then is not None:
        then = now.later(change.at_ms)
        told["nextPeriod"] = {
            "atTime": format_timestamp_ms(change.at_ms),
            "chargingPrice": _charging_price(tariff, change.then, None),
            **({"idlePrice": later} if (later := _idle_price(tariff, edges, then)) else {}),
        }
    trigger = _trigger(change, edges.prices(now), now, pricer)
    if trigger:
        told["triggerMeterValue"] = trigger
    return told


def running_cost_16(transaction_id: int, standing: Standing, pricer: Pricer, edges: PriceEdges) -> dict[str, Any]:
    """The DataTransfer that carries RunningCost to a 1.6 station."""
    told = running_cost(standing, pricer, edges)
    return data_transfer("RunningCost", {"transactionId": transaction_id, "cost": standing.cost, **told})


def cost_updated(transaction_id: str, cost: Decimal) -> dict[str, Any]:
    """CostUpdated. Spec: OCPP 2.0.1 and 2.1 I02."""
    return {"totalCost": cost, "transactionId": transaction_id}


def cost_updated_with_prices(
    transaction_id: str, standing: Standing, pricer: Pricer, edges: PriceEdges
) -> dict[str, Any]:
    """CostUpdated to a 2.x station that reads RunningCost from its customData."""
    told = running_cost(standing, pricer, edges)
    trigger = told.get("triggerMeterValue")
    if trigger is not None:
        trigger.pop("atCPStatus", None)  # of 1.6's connectors
    return cost_updated(transaction_id, standing.cost) | {"customData": {"vendorId": VENDOR_ID, **told}}


def final_cost_16(transaction_id: int, bill: Bill, receipt_url: str = "") -> dict[str, Any]:
    """The DataTransfer that carries FinalCost to a 1.6 station."""
    told: dict[str, Any] = {
        "transactionId": transaction_id,
        "cost": bill.total.incl_tax,
        "priceText": final_text(bill),
    }
    if receipt_url:
        told["qrCodeText"] = receipt_url
    return data_transfer("FinalCost", told)


def user_price_16(id_token: str, text: str, others: Mapping[str, str]) -> dict[str, Any]:
    """The DataTransfer that tells a 1.6 station what a user will pay: SetUserPrice.

    Args:
        id_token: As the station sent it.
        text: In the station's or the user's language.
        others: By language.
    """
    told: dict[str, Any] = {"idToken": id_token, "priceText": text}
    extra = [{"format": "UTF8", "language": language, "content": other} for language, other in others.items()]
    if extra:
        told["priceTextExtra"] = extra
    return data_transfer("SetUserPrice", told)


def data_transfer(message_id: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """A DataTransfer of OCPP 1.6, whose `data` is JSON text."""
    return {"vendorId": VENDOR_ID, "messageId": message_id, "data": serialize_json(data)}


def final_text(bill: Bill) -> str:
    """The bill in a line: what was used and what each kind of it costs."""
    parts = [
        f"{name} {bill.costs[dimension].incl_tax:.{_digits(bill)}f}"
        for dimension, name in _NAMES.items()
        if dimension in bill.costs and bill.costs[dimension].incl_tax
    ]
    hours, minutes = divmod(round_ratio(bill.duration_ms, MS_PER_MINUTE, RoundingMode.HALF_UP), 60)
    used = f"{bill.energy_wh / 1000:.2f} kWh in {hours}:{minutes:02}"
    split = f" ({', '.join(parts)})" if len(parts) > 1 else ""
    return f"{bill.currency} {bill.total.incl_tax:f}{split}, {used}"[:MAX_TEXT]


_NAMES = {
    Dimension.ENERGY: "energy",
    Dimension.TIME: "time",
    Dimension.PARKING_TIME: "parking",
    Dimension.FLAT: "fee",
    Dimension.RESERVATION_TIME: "reservation",
    Dimension.RESERVATION_FLAT: "reservation fee",
}


def _digits(bill: Bill) -> int:
    exponent = bill.total.incl_tax.as_tuple().exponent
    return -exponent if isinstance(exponent, int) else 0


def _charging_price(tariff: Tariff, prices: Prices, fee: Component | None) -> dict[str, Any]:
    told = {"kWhPrice": _price(tariff, prices.energy)}
    if prices.charging is not None and prices.charging.price:
        told["hourPrice"] = _price(tariff, prices.charging)
    fee = fee or prices.fee
    if fee is not None and fee.price:
        told["flatFee"] = _price(tariff, fee)
    return told


def _idle_price(tariff: Tariff, edges: PriceEdges, now: Situation) -> dict[str, Any]:
    """What parking costs, and after how many minutes; nothing if it never costs anything."""
    parking = edges.parking_price(now)
    if parking is None:
        return {}
    grace_ms, component = parking
    told: dict[str, Any] = {"hourPrice": _price(tariff, component)}
    if grace_ms:
        told["graceMinutes"] = -(-grace_ms // MS_PER_MINUTE)
    return told


def _charged_fee(tariff: Tariff, state: SessionState) -> Component | None:
    return next((tariff.components[index] for index, _ in state.flats if index != NONE), None)


def _trigger(change: NextChange, prices: Prices, now: Situation, pricer: Pricer) -> dict[str, Any]:
    """When the station is to send a meter value, so that the price changes on an exact one."""
    told: dict[str, Any] = {}
    if change.at_ms is not None:
        told["atTime"] = format_timestamp_ms(change.at_ms)
    if change.energy_uwh is not None:
        told["atEnergykWh"] = _plain(decimal_of(change.energy_uwh, 9))
    if change.power_mw is not None:
        told["atPowerkW"] = _plain(decimal_of(change.power_mw, 6))
    if _per_hour(prices.charging) != _per_hour(prices.parking):
        parking = pricer.options.parking_states
        told["atCPStatus"] = [name for state, name in _STATUSES.items() if (state in parking) is not now.parking]
    return told


def _per_hour(component: Component | None) -> tuple[Any, ...] | None:
    return None if component is None or not component.price else (component.price, component.unit, component.taxes)


def _price(tariff: Tariff, component: Component | None) -> Decimal | int:
    price = price_after_tax(tariff, component)
    return _plain(to_decimal(price.numerator, price.denominator, PRICE_DIGITS, RoundingMode.HALF_UP))


def _plain(value: Decimal) -> Decimal | int:
    """Without trailing zeros; a whole number as such."""
    numerator, denominator = value.as_integer_ratio()
    if denominator == 1:
        return numerator
    text = f"{value:f}".rstrip("0")
    return Decimal(text)
