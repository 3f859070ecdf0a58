"""Rows as the billing service writes them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from busbar.pricing import Bill, Pricer, parse_ocpi_tariff
from busbar.pricing.explanation import explain
from busbar.pricing.facts import ChargingState, ended, sampled, started
from busbar.pricing.jsontext import serialize_json
from busbar.pricing.ocpi_cdr import cdr_part

BEGIN = datetime(2026, 11, 1, 8, tzinfo=UTC)
MINUTE_MS = 60_000
TARIFF = parse_ocpi_tariff(
    {
        "country_code": "DE",
        "party_id": "ABC",
        "id": "T1",
        "currency": "EUR",
        "tax_included": "NO",
        "elements": [
            {"price_components": [{"type": "FLAT", "price": Decimal("0.5"), "vat": 19, "step_size": 1}]},
            {"price_components": [{"type": "ENERGY", "price": Decimal("0.49"), "vat": 19, "step_size": 1}]},
            {"price_components": [{"type": "PARKING_TIME", "price": 6, "vat": 7, "step_size": 60}]},
        ],
        "last_updated": "2026-01-01T00:00:00Z",
    }
)


def session_id(number: int) -> uuid.UUID:
    return uuid.UUID(int=number)


def bill_of(begin: datetime, wh: Decimal | int = 10_000) -> Bill:
    """Ninety minutes of charging and 40 of parking."""
    begin_ms = round(begin.timestamp() * 1000)
    return Pricer(TARIFF, "Europe/Berlin").price(
        [
            started(begin_ms, 0),
            sampled(begin_ms + 90 * MINUTE_MS, wh, ChargingState.SUSPENDED_EV),
            ended(begin_ms + 130 * MINUTE_MS, wh),
        ]
    )


@dataclass(frozen=True, slots=True)
class CdrRow:
    """What a test says of a record; the rest is the same for all."""

    number: int
    """Of the session; also of its hour."""
    station_id: str = "CS-1"
    site_id: str | None = "depot"
    id_token: str | None = "DEADBEEF01"
    currency: str = "EUR"
    credit: bool = False
    correction: int = 1

    @property
    def cdr_id(self) -> str:
        return f"{session_id(self.number).hex}-{self.correction}" + ("-C" if self.credit else "")

    def values(self) -> list[Any]:
        begin = BEGIN + timedelta(hours=self.number)
        bill = bill_of(begin)
        sign = -1 if self.credit else 1
        ocpi = {
            "country_code": "DE",
            "party_id": "ABC",
            "id": self.cdr_id,
            **cdr_part(bill),
            "cdr_token": {"uid": self.id_token, "type": "RFID"},
            "cdr_location": {
                "name": "Depot <1>",
                "address": "Marktplatz 1",
                "city": "Musterstadt",
                "postal_code": "12345",
            },
        }
        return [
            self.cdr_id,
            session_id(self.number),
            self.correction,
            self.credit,
            self.cdr_id.removesuffix("-C") if self.credit else None,
            self.station_id,
            self.site_id,
            self.id_token,
            begin,
            begin + timedelta(minutes=130),
            self.currency,
            sign * bill.total.excl_tax,
            sign * bill.total.incl_tax,
            bill.energy_wh,
            "signed",
            "T1",
            3,
            ["register_fell"],
            serialize_json(ocpi),
            serialize_json(explain(bill, "Europe/Berlin")),
            begin + timedelta(minutes=131),
        ]


INSERT_CDR = (
    "INSERT INTO billing.cdrs (cdr_id, session_id, number, credit, credit_reference_id, station_id, site_id, id_token,"
    " started_at, ended_at, currency, total_excl, total_incl, energy_wh, energy_rung, tariff_id, tariff_version, flags,"
    " ocpi, bill, last_updated) VALUES"
    " ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)"
)


async def add_cdr(pool: Any, number: int, **more: Any) -> str:
    """Insert a record; its id."""
    row = CdrRow(number, **more)
    await pool.execute(INSERT_CDR, *row.values())
    return row.cdr_id


async def add_many_cdrs(pool: Any, count: int) -> None:
    """Insert a lot of records, which differ in their ids and instants."""
    await add_cdr(pool, 1)
    await pool.execute(
        "INSERT INTO billing.cdrs SELECT r.cdr_id || '-' || n, r.session_id, n, credit, credit_reference_id,"
        " station_id, site_id, id_token, started_at, ended_at, currency, total_excl, total_incl, energy_wh,"
        " energy_rung, tariff_id, tariff_version, flags, ocpi, bill, last_updated + make_interval(secs => n)"
        " FROM billing.cdrs r, generate_series(2, $1) n",
        count,
    )


async def add_charge(pool: Any, number: int, *, status: str = "priced", **more: Any) -> uuid.UUID:
    """Insert a session as billing sees it; its id."""
    begin = BEGIN + timedelta(hours=number)
    columns: dict[str, Any] = {
        "session_id": session_id(number),
        "station_id": "CS-1",
        "transaction_id": str(number),
        "site_id": "depot",
        "evse_id": 1,
        "connector_id": 1,
        "id_token": "DEADBEEF01",
        "ocpp_version": "1.6",
        "status": status,
        "tariff_id": "T1",
        "tariff_version": 3,
        "time_zone": "Europe/Berlin",
        "currency": "EUR",
        "cost_excl": Decimal("9.40"),
        "cost_incl": Decimal("10.71"),
        "energy_wh": Decimal(10_000),
        "energy_rung": "signed",
        "started_at": begin,
        "ended_at": begin + timedelta(minutes=130),
        "cdr_count": 1,
        "updated_at": begin + timedelta(minutes=131),
        "fold": b"",
        **more,
    }
    places = ", ".join(f"${place}" for place in range(1, len(columns) + 1))
    await pool.execute(
        f"INSERT INTO billing.sessions ({', '.join(columns)}) VALUES ({places})",
        *columns.values(),
    )
    return session_id(number)
