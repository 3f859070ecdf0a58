"""Rows as the billing service writes them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from busbar.pricing import Bill, Pricer, parse_ocpi_tariff
from busbar.pricing.facts import ChargingState, ended, sampled, started
from busbar.pricing.session_facts import Feed, Frame
from busbar.tariffs import Site
from services.billing.cdr import credit_of, make_cdr
from services.billing.decoding import Head
from services.billing.model import Cdr, Charge, Policy

BEGIN = datetime(2026, 11, 1, 8, tzinfo=UTC)
MINUTE_MS = 60_000
SITE = Site("depot", "Europe/Berlin", "Depot <1>", "DE", "12345", "Musterstadt", "Marktplatz 1")
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


def session_id(number: int) -> UUID:
    return UUID(int=number)


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
    site_id: str = "depot"
    id_token: str = "DEADBEEF01"
    currency: str = "EUR"
    credit: bool = False
    correction: int = 1

    def cdr(self) -> Cdr:
        """The record, as the billing service makes it."""
        begin = BEGIN + timedelta(hours=self.number)
        end_ms = _milliseconds(begin + timedelta(minutes=130))
        head = Head(
            session_id=str(session_id(self.number)),
            station_id=self.station_id,
            ocpp_version="1.6",
            transaction_id=str(self.number),
            site_id=self.site_id,
            evse_id=1,
            connector_id=1,
            id_token=self.id_token,
            id_token_type="",
            group_id="",
            authorization_status="Accepted",
            reservation_id=None,
            remote_start_id=None,
            tariff_id="T1",
            tariff_version=3,
            time_zone="Europe/Berlin",
        )
        frame = Frame(end_ms, _milliseconds(begin), end_ms, 10**10, "signed", 0, 10**10)
        charge = Charge(
            head,
            frame=frame,
            flags=["register_fell"],
            received_ms=end_ms + MINUTE_MS,
            number=self.correction - 1,
        )
        made = make_cdr(charge, bill_of(begin), Feed(), Policy(country_code="DE", party_id="ABC"), SITE)
        return credit_of(made, made.updated_ms) if self.credit else made

    def values(self) -> list[Any]:
        """The row's columns."""
        cdr = self.cdr()
        return [
            cdr.cdr_id,
            UUID(cdr.session_id),
            cdr.number,
            cdr.credit,
            cdr.credit_reference_id or None,
            cdr.station_id,
            cdr.site_id or None,
            cdr.id_token or None,
            _moment(cdr.started_ms),
            _moment(cdr.ended_ms),
            self.currency,
            cdr.total_excl,
            cdr.total_incl,
            Decimal(cdr.energy_uwh) / 10**6,
            cdr.energy_rung,
            cdr.tariff_id,
            cdr.tariff_version,
            list(cdr.flags),
            cdr.ocpi,
            cdr.bill,
            _moment(cdr.updated_ms),
        ]


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _moment(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


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
    return row.cdr().cdr_id


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


async def add_charge(pool: Any, number: int, *, status: str = "priced", **more: Any) -> UUID:
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
