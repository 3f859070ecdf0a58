"""PostgreSQL: what a batch of the desk needs, and what it has changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson

from busbar.records import ReturnAddress
from services.billing.desk.model import (
    Settlement,
    SettlementPlaced,
    State,
    StationSettings,
    StationTariff,
    TariffStation,
    Token,
    VatQuestion,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

SELECT_SETTINGS = "SELECT station_id, site_id, quirks::text FROM config.stations WHERE station_id = ANY($1::text[])"

SELECT_DISPLAYS = """
SELECT station_id, site_id, quirks::text
  FROM config.stations
 WHERE quirks ? 'cost' AND quirks ->> 'cost' = 'california'
"""

SELECT_TOKENS = """
SELECT id_token_key, group_id, language,
       status = 'Accepted' AND (expires_at IS NULL OR expires_at > now())
           AND (valid_from IS NULL OR valid_from <= now()) AS accepted
  FROM config.tokens
 WHERE id_token_key = ANY($1::text[])
"""

SELECT_SETTLEMENTS = """
SELECT psp_ref, station_id, transaction_id, status, amount, settled_at, receipt_id, receipt_url, vat_company,
       vat_number, status_info, received_at, session_id, currency
  FROM billing.settlements
 WHERE psp_ref = ANY($1::text[])
"""

UPSERT_SETTLEMENTS = """
INSERT INTO billing.settlements AS known (
       psp_ref, station_id, transaction_id, status, amount, settled_at, receipt_id, receipt_url, vat_company,
       vat_number, status_info, received_at, session_id, currency)
SELECT * FROM unnest(
       $1::text[], $2::text[], $3::text[], $4::text[], $5::numeric[], $6::timestamptz[], $7::text[], $8::text[],
       $9::text[], $10::text[], $11::text[], $12::timestamptz[], $13::uuid[], $14::text[])
ON CONFLICT (psp_ref) DO UPDATE SET
       station_id = excluded.station_id, transaction_id = excluded.transaction_id, status = excluded.status,
       amount = excluded.amount, settled_at = excluded.settled_at, receipt_id = excluded.receipt_id,
       receipt_url = excluded.receipt_url, vat_company = excluded.vat_company, vat_number = excluded.vat_number,
       status_info = excluded.status_info, received_at = excluded.received_at, session_id = excluded.session_id,
       currency = excluded.currency
"""

# A transaction's id may be used again by its station: the session that began last before the settlement is meant.
PLACED = """
SELECT s.psp_ref, s.station_id, found.session_id, found.currency
  FROM billing.settlements AS s
 CROSS JOIN LATERAL (
       SELECT b.session_id, b.currency
         FROM billing.sessions AS b
        WHERE b.station_id = s.station_id AND b.transaction_id = s.transaction_id
        ORDER BY (b.started_at <= s.received_at) IS TRUE DESC, b.started_at DESC NULLS LAST, b.session_id
        LIMIT 1) AS found
 WHERE s.session_id IS NULL AND s.transaction_id IS NOT NULL AND s.received_at > now() - interval '30 days'
 ORDER BY s.received_at DESC
 LIMIT $1
"""

_QUESTION = "question_id, station_id, edge_partition, connection_id, message_id, vat_number, evse_id, asked_at"
SELECT_QUESTIONS = f"SELECT {_QUESTION} FROM billing.vat_questions WHERE question_id = ANY($1::uuid[])"  # noqa: S608
OPEN_QUESTIONS = f"SELECT {_QUESTION} FROM billing.vat_questions ORDER BY asked_at LIMIT $1"  # noqa: S608

INSERT_QUESTIONS = """
INSERT INTO billing.vat_questions (
       question_id, station_id, edge_partition, connection_id, message_id, vat_number, evse_id, asked_at)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::int[], $4::text[], $5::text[], $6::text[], $7::bigint[],
       $8::timestamptz[])
ON CONFLICT DO NOTHING
"""

DELETE_QUESTIONS = "DELETE FROM billing.vat_questions WHERE question_id = ANY($1::uuid[])"

UPSERT_REFUSALS = """
INSERT INTO billing.cost_refusals (station_id, code, refused_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[])
ON CONFLICT (station_id) DO UPDATE SET code = excluded.code, refused_at = excluded.refused_at
"""

DELETE_REFUSALS = "DELETE FROM billing.cost_refusals WHERE station_id = ANY($1::text[])"

SELECT_STATIONS = """
SELECT station_id, state, booted_at, revision, look_at, query_id, attempts, problem
  FROM billing.tariff_stations
 WHERE station_id = ANY($1::text[])
"""

DUE_STATIONS = """
(SELECT station_id FROM billing.tariff_stations WHERE look_at <= $1 LIMIT $3)
 UNION
(SELECT station_id FROM billing.tariff_stations WHERE revision < $2 LIMIT $3)
"""

UPSERT_STATIONS = """
INSERT INTO billing.tariff_stations (
       station_id, state, booted_at, revision, look_at, query_id, attempts, problem)
SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::bigint[], $5::timestamptz[], $6::uuid[], $7::int[],
       $8::text[])
ON CONFLICT (station_id) DO UPDATE SET
       state = excluded.state, booted_at = excluded.booted_at, revision = excluded.revision,
       look_at = excluded.look_at, query_id = excluded.query_id, attempts = excluded.attempts,
       problem = excluded.problem
"""

SELECT_TARIFFS = """
SELECT station_id, evse_id, station_tariff_id, tariff_id, tariff_version, status, reason, command_id, changed_at
  FROM billing.station_tariffs
 WHERE station_id = ANY($1::text[])
"""

UPSERT_TARIFFS = """
INSERT INTO billing.station_tariffs (
       station_id, evse_id, station_tariff_id, tariff_id, tariff_version, status, reason, command_id, changed_at)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[],
       $8::uuid[], $9::timestamptz[])
ON CONFLICT (station_id, evse_id) DO UPDATE SET
       station_tariff_id = excluded.station_tariff_id, tariff_id = excluded.tariff_id,
       tariff_version = excluded.tariff_version, status = excluded.status, reason = excluded.reason,
       command_id = excluded.command_id, changed_at = excluded.changed_at
"""

DELETE_TARIFFS = """
DELETE FROM billing.station_tariffs
 WHERE (station_id, evse_id) IN (SELECT * FROM unnest($1::text[], $2::bigint[]))
"""


async def load_settings(connection: Any, station_ids: Collection[str]) -> dict[str, StationSettings]:
    rows = await connection.fetch(SELECT_SETTINGS, list(station_ids)) if station_ids else ()
    return {station_id: StationSettings(site_id, orjson.loads(quirks)) for station_id, site_id, quirks in rows}


async def load_displays(connection: Any) -> dict[str, StationSettings]:
    """The stations with displays of the California set."""
    rows = await connection.fetch(SELECT_DISPLAYS)
    return {station_id: StationSettings(site_id, orjson.loads(quirks)) for station_id, site_id, quirks in rows}


async def load_tokens(connection: Any, keys: Collection[str]) -> dict[str, Token]:
    rows = await connection.fetch(SELECT_TOKENS, list(keys)) if keys else ()
    return {key: Token(accepted, group_id, language) for key, group_id, language, accepted in rows}


async def load_settlements(connection: Any, psp_refs: Collection[str]) -> dict[str, Settlement]:
    rows = await connection.fetch(SELECT_SETTLEMENTS, list(psp_refs)) if psp_refs else ()
    return {row["psp_ref"]: _settlement(row) for row in rows}


async def load_questions(connection: Any, question_ids: Collection[str]) -> dict[str, VatQuestion]:
    rows = await connection.fetch(SELECT_QUESTIONS, list(question_ids)) if question_ids else ()
    return {question.question_id: question for question in map(_question, rows)}


async def open_questions(connection: Any, limit: int) -> list[VatQuestion]:
    """The oldest that have no answer yet."""
    return [_question(row) for row in await connection.fetch(OPEN_QUESTIONS, limit)]


async def placed_settlements(connection: Any, limit: int, partition_of: Callable[[str], int]) -> list[SettlementPlaced]:
    """Settlements whose session is known now."""
    return [
        SettlementPlaced(partition_of(station_id), psp_ref, str(session_id), currency)
        for psp_ref, station_id, session_id, currency in await connection.fetch(PLACED, limit)
    ]


async def load_tariffs(
    connection: Any, station_ids: Collection[str]
) -> tuple[dict[str, TariffStation], dict[tuple[str, int], StationTariff]]:
    """The stations whose tariffs are kept, and these."""
    if not station_ids:
        return {}, {}
    stations = {
        row["station_id"]: TariffStation(
            row["station_id"],
            row["state"],
            _ms(row["booted_at"]) or 0,
            row["revision"],
            _ms(row["look_at"]),
            _id(row["query_id"]),
            row["attempts"],
            row["problem"],
        )
        for row in await connection.fetch(SELECT_STATIONS, list(station_ids))
    }
    tariffs = {
        (row["station_id"], row["evse_id"]): StationTariff(
            row["station_id"],
            row["evse_id"],
            row["station_tariff_id"],
            row["tariff_id"],
            row["tariff_version"],
            row["status"],
            row["reason"],
            _id(row["command_id"]),
            _ms(row["changed_at"]) or 0,
        )
        for row in await connection.fetch(SELECT_TARIFFS, list(stations))
    }
    return stations, tariffs


async def due_stations(connection: Any, now_ms: int, revision: int, limit: int) -> list[str]:
    """Stations whose tariffs are to be looked at."""
    return [row[0] for row in await connection.fetch(DUE_STATIONS, _at(now_ms), revision, limit)]


async def store_state(connection: Any, state: State) -> None:
    """Write what a batch has changed."""
    await _write(
        connection,
        UPSERT_SETTLEMENTS,
        (_settlement_row(state.settlements[psp_ref]) for psp_ref in sorted(state.changed_settlements)),
    )
    await _write(
        connection,
        INSERT_QUESTIONS,
        (_question_row(state.questions[question_id]) for question_id in sorted(state.new_questions)),
    )
    if state.closed_questions:
        await connection.execute(DELETE_QUESTIONS, [UUID(each) for each in sorted(state.closed_questions)])
    if state.withdrawn_refusals:
        await connection.execute(DELETE_REFUSALS, sorted(state.withdrawn_refusals))
    await _write(
        connection,
        UPSERT_REFUSALS,
        ((station_id, code, _at(at_ms)) for station_id, (code, at_ms) in sorted(state.refusals.items())),
    )
    await _write(
        connection,
        UPSERT_STATIONS,
        (_station_row(state.stations[station_id]) for station_id in sorted(state.changed_stations)),
    )
    await _write(connection, UPSERT_TARIFFS, (_tariff_row(state.tariffs[key]) for key in sorted(state.changed_tariffs)))
    if state.removed_tariffs:
        await connection.execute(DELETE_TARIFFS, *_columns(sorted(state.removed_tariffs)))


async def _write(connection: Any, query: str, rows: Iterable[Sequence[Any]]) -> None:
    """Write rows as arrays, one for each column."""
    columns = _columns(rows)
    if columns:
        await connection.execute(query, *columns)


def _columns(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _settlement(row: Mapping[str, Any]) -> Settlement:
    return Settlement(
        row["psp_ref"],
        row["station_id"],
        row["transaction_id"],
        row["status"],
        row["amount"],
        _ms(row["settled_at"]) or 0,
        row["receipt_id"],
        row["receipt_url"],
        row["vat_company"],
        row["vat_number"],
        row["status_info"],
        _ms(row["received_at"]) or 0,
        _id(row["session_id"]),
        row["currency"],
    )


def _settlement_row(settlement: Settlement) -> tuple[Any, ...]:
    amount: Decimal = settlement.amount
    return (
        settlement.psp_ref,
        settlement.station_id,
        settlement.transaction_id,
        settlement.status,
        amount,
        _at(settlement.settled_at_ms),
        settlement.receipt_id,
        settlement.receipt_url,
        settlement.vat_company,
        settlement.vat_number,
        settlement.status_info,
        _at(settlement.received_at_ms),
        settlement.session_id and UUID(settlement.session_id),
        settlement.currency,
    )


def _question(row: Mapping[str, Any]) -> VatQuestion:
    return VatQuestion(
        str(row["question_id"]),
        row["station_id"],
        ReturnAddress(row["edge_partition"], row["connection_id"], row["message_id"]),
        row["vat_number"],
        row["evse_id"],
        _ms(row["asked_at"]) or 0,
    )


def _question_row(question: VatQuestion) -> tuple[Any, ...]:
    return (
        UUID(question.question_id),
        question.station_id,
        question.address.edge_partition,
        question.address.connection_id,
        question.address.message_id,
        question.vat_number,
        question.evse_id,
        _at(question.asked_at_ms),
    )


def _station_row(station: TariffStation) -> tuple[Any, ...]:
    return (
        station.station_id,
        station.state,
        _at(station.booted_at_ms),
        station.revision,
        None if station.look_at_ms is None else _at(station.look_at_ms),
        station.query_id and UUID(station.query_id),
        station.attempts,
        station.problem,
    )


def _tariff_row(tariff: StationTariff) -> tuple[Any, ...]:
    return (
        tariff.station_id,
        tariff.evse_id,
        tariff.station_tariff_id,
        tariff.tariff_id,
        tariff.tariff_version,
        tariff.status,
        tariff.reason,
        tariff.command_id and UUID(tariff.command_id),
        _at(tariff.changed_at_ms),
    )


def _id(value: UUID | None) -> str | None:
    return None if value is None else str(value)


def _at(at_ms: int) -> datetime:
    return _EPOCH + at_ms * _MILLISECOND


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - _EPOCH) // _MILLISECOND
