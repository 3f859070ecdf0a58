"""What a 2.1 station says that a session costs, beside what it costs here. Pure.

The bill is always ours; a difference is flagged, and both are kept. Spec: OCPP 2.1 I12, CostDetailsType.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from busbar.pricing.bill import Bill
from busbar.pricing.jsontext import parse_json
from busbar.pricing.money import MINOR_DIGITS
from busbar.pricing.problems import TariffError

DIFFERS = "station_cost_differs"
FAILED = "station_cost_failed"
UNREADABLE = "station_cost_unreadable"
_LARGEST = Decimal(10) ** 12


@dataclass(frozen=True, slots=True)
class StationCost:
    """A row of `billing.station_costs`."""

    session_id: str
    currency: str
    total: Decimal | None
    """What the station says; `None` if it could not compute it, or it cannot be read."""
    after_tax: bool
    """Whether `total` and `ours` include taxes."""
    ours: Decimal
    failed: bool
    """The station could not compute it."""
    reason: str
    details: str
    """As the station sent it."""
    checked_ms: int

    @property
    def flag(self) -> str:
        """What a reader of the bill should know; empty if they agree."""
        if self.failed:
            return FAILED
        if self.total is None:
            return UNREADABLE
        tolerance = Decimal(1).scaleb(-MINOR_DIGITS.get(self.currency, 2))
        return DIFFERS if abs(self.total - self.ours) > tolerance else ""


def compare(session_id: str, details: str, bill: Bill, checked_ms: int) -> StationCost:
    """Hold what the station says against the bill.

    Args:
        details: JSON text of its CostDetailsType.
        bill: Ours.
        checked_ms: When the event came that led to the bill.
    """
    try:
        told = parse_json(details)
    except TariffError:
        told = None
    cost = _mapping(_mapping(told).get("totalCost"))
    total = _mapping(cost.get("total"))
    after_tax = _amount(total.get("inclTax")) is not None
    failed = _mapping(told).get("failureToCalculate") is True
    currency = cost.get("currency")
    foreign = isinstance(currency, str) and currency != bill.currency
    found = None if failed or foreign else _amount(total.get("inclTax" if after_tax else "exclTax"))
    reason = _mapping(told).get("failureReason")
    return StationCost(
        session_id=session_id,
        currency=bill.currency,
        total=found,
        after_tax=after_tax or found is None,
        ours=bill.total.incl_tax if after_tax or found is None else bill.total.excl_tax,
        failed=failed,
        reason=reason[:500] if isinstance(reason, str) else f"its currency is {currency}"[:500] if foreign else "",
        details=details.replace("\x00", "\N{REPLACEMENT CHARACTER}"),
        checked_ms=checked_ms,
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _amount(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    amount = Decimal(value)
    return amount if abs(amount) < _LARGEST else None
