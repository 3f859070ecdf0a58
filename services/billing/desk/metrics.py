"""Metrics of the desk; those of reading, committing and producing belong to the stream runtime."""

from __future__ import annotations

from prometheus_client import Counter

from services.billing.desk.model import State

SETTLEMENTS = Counter(
    "csms_billing_settlements_total", "Settlements of payment terminals, by status, changed or repeated", ["status"]
)
VAT = Counter("csms_billing_vat_numbers_total", "VAT numbers that stations asked about, by outcome", ["outcome"])
USER_PRICES = Counter("csms_billing_user_prices_total", "Prices that users were told before charging", ["outcome"])
COST_REFUSALS = Counter("csms_billing_cost_refusals_total", "Stations that know no CostUpdated, by error", ["code"])
STATION_TARIFFS = Counter(
    "csms_billing_station_tariffs_total", "Default tariffs of OCPP 2.1 stations, by what became of them", ["status"]
)

_BY_NAME = {
    "settlements": SETTLEMENTS,
    "vat": VAT,
    "user_prices": USER_PRICES,
    "cost_refusals": COST_REFUSALS,
    "station_tariffs": STATION_TARIFFS,
}


def count(state: State) -> None:
    """Add up what a batch has counted."""
    for (name, label), number in state.counts.items():
        _BY_NAME[name].labels(label).inc(number)
