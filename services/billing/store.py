"""PostgreSQL: what a batch needs, and what it has changed, in one call."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import Any

from busbar.lz4_blocks import compress, decompress
from busbar.pricing.session_facts import dump_observations, load_observations
from busbar.stream.interfaces import StoreCall
from services.billing.core import price_so_far
from services.billing.decoding import Event
from services.billing.model import OPEN, Cdr, Charge, Partition, State, add_batch, dump_charge, load_charge
from services.billing.station_cost import StationCost

STORE_FUNCTION = "billing.store"

SESSIONS = "SELECT session_id, fold FROM billing.sessions WHERE session_id = ANY($1::uuid[])"

FACTS = """
SELECT session_id, facts
  FROM billing.facts
 WHERE session_id = ANY($1::uuid[])
 ORDER BY session_id, sequence
"""

UNPLUGGED = """
SELECT session_id
  FROM billing.sessions
 WHERE station_id = $1 AND transaction_id = $2
 ORDER BY started_at DESC NULLS LAST, session_id
 LIMIT 1
"""

JOURNAL = """
SELECT partition, batch, entries
  FROM billing.journal
 WHERE partition = ANY($1::int[])
 ORDER BY partition, batch
"""

COST_QUIRKS = """
SELECT wanted.station_id, CASE WHEN refusal.station_id IS NULL THEN station.quirks ->> 'cost' ELSE 'none' END
  FROM unnest($1::text[]) AS wanted (station_id)
  LEFT JOIN config.stations AS station USING (station_id)
  LEFT JOIN billing.cost_refusals AS refusal USING (station_id)
 WHERE station.quirks ? 'cost' OR refusal.station_id IS NOT NULL
"""

CDRS = """
SELECT cdr_id, session_id, number, station_id, site_id, id_token, started_at, ended_at, currency, total_excl,
       total_incl, energy_wh, energy_rung, tariff_id, tariff_version, flags, ocpi, bill, last_updated
  FROM billing.cdrs
 WHERE cdr_id = ANY($1::text[])
"""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_LENGTH = Struct(">I")


async def load_charges(connection: Any, session_ids: Collection[str]) -> dict[str, Charge]:
    """The sessions among these that there are."""
    if not session_ids:
        return {}
    rows = await connection.fetch(SESSIONS, list(session_ids))
    return {str(session_id): load_charge(fold) for session_id, fold in rows}


async def load_cost_quirks(connection: Any, station_ids: Collection[str]) -> dict[str, str]:
    """How stations are told what sessions cost, where it is not as usual."""
    if not station_ids:
        return {}
    return {station_id: quirk or "" for station_id, quirk in await connection.fetch(COST_QUIRKS, list(station_ids))}


async def load_facts(connection: Any, charges: Iterable[Charge]) -> None:
    """Give these sessions the observations that the tables have of them."""
    wanted = {charge.head.session_id: charge for charge in charges}
    if not wanted:
        return
    for charge in wanted.values():
        charge.loaded = []
    for session_id, facts in await connection.fetch(FACTS, list(wanted)):
        loaded = wanted[str(session_id)].loaded
        assert loaded is not None
        loaded += load_observations(facts)


async def load_cdrs(connection: Any, charges: Iterable[Charge]) -> None:
    """Give these sessions the record that stands."""
    wanted = {charge.cdr_id: charge for charge in charges}
    if wanted:
        for row in await connection.fetch(CDRS, list(wanted)):
            wanted[row["cdr_id"]].standing = _cdr(row)


async def load_journal(connection: Any, partitions: Sequence[int]) -> list[tuple[int, int, list[bytes]]]:
    """(partition, batch, values of records), in order."""
    rows = await connection.fetch(JOURNAL, list(partitions))
    return [(partition, batch, unpack_entries(entries)) for partition, batch, entries in rows]


def pack_entries(values: Iterable[bytes]) -> bytes:
    """Values one behind the other, each after its length, compressed."""
    pack = _LENGTH.pack  # its first byte is 0: no record is that long
    return compress(b"".join([part for value in values for part in (pack(len(value)), value)]))


def unpack_entries(packed: bytes) -> list[bytes]:
    """What `pack_entries` has packed, or the versions before it, which did not compress."""
    packed = decompress(packed)
    found, position = [], 0
    while position < len(packed):
        (length,) = _LENGTH.unpack_from(packed, position)
        position += _LENGTH.size
        found.append(packed[position : position + length])
        position += length
    return found


def store_call(state: State) -> StoreCall:
    """Everything that the batch has changed, as one call."""
    charges = state.written = []
    journal = []
    for partition in state.partitions.values():
        is_due = partition.due_ms is not None or due_charges(partition, state.policy.journal_batches)
        if partition.events or partition.changed or is_due:
            charges += _settle(state, partition)
            journal.append(_journal(partition, state.policy.journal_batches))
            partition.batch += 1
    facts = [_facts(charge) for charge in charges if charge.unwritten]
    arguments = (
        *_columns(charges, _SESSION_COLUMNS),
        *([row[place] for row in facts] for place in range(3)),
        *_columns(state.cdrs, _CDR_COLUMNS),
        *_columns(state.unattributed, _UNATTRIBUTED_COLUMNS),
        *([row[place] for row in journal] for place in range(4)),
        *_columns(list(state.station_costs.values()), _STATION_COST_COLUMNS),
    )
    return StoreCall(STORE_FUNCTION, arguments)


def due_charges(partition: Partition, journal_batches: int) -> list[Charge]:
    """The sessions whose rows must be written with this batch, because the journal forgets what they lack."""
    last, found = last_due(partition, journal_batches), []
    for batch, (_, session_ids) in partition.begun.items():
        if batch <= last:
            charges = (partition.charges.get(session_id) for session_id in session_ids)
            found += [charge for charge in charges if charge is not None and charge.since == batch]
    return found


def last_due(partition: Partition, journal_batches: int) -> int:
    """What began with this batch or an earlier one is written."""
    last, due_ms = partition.batch - journal_batches, partition.due_ms
    if due_ms is None:
        return last
    return max([last, *(batch for batch, (at_ms, _) in partition.begun.items() if at_ms <= due_ms)])


def _facts(charge: Charge) -> tuple[str, int, bytes]:
    """A row of what the tables lack; they have it from now on."""
    row = (charge.head.session_id, charge.sequence, dump_observations(charge.unwritten))
    charge.written += len(charge.unwritten)
    if charge.loaded is not None:
        charge.loaded += charge.unwritten
    charge.unwritten = []
    return row


def _settle(state: State, partition: Partition) -> list[Charge]:
    """The sessions to be written; the others are noted for the journal."""
    touched = {event.head.session_id: partition.charges[event.head.session_id] for event in partition.events}
    touched |= {session_id: partition.charges[session_id] for session_id in partition.changed}
    late = due_charges(partition, state.policy.journal_batches)
    last = last_due(partition, state.policy.journal_batches)
    for batch in [each for each in partition.begun if each <= last]:
        del partition.begun[batch]
    for charge in (*late, *(touched.values() if len(partition.events) <= state.policy.few_events else ())):
        charge.due = True
    written = {charge.head.session_id: charge for charge in (*late, *touched.values()) if charge.due}
    for charge in written.values():
        charge.since = None
        if charge.status == OPEN:
            price_so_far(state, charge)
    add_batch(partition, (charge for charge in touched.values() if not charge.due), state.now_ms)
    return list(written.values())


def _journal(partition: Partition, journal_batches: int) -> tuple[int, int, int, bytes]:
    charges = partition.charges
    entries = pack_entries(event.raw for event in partition.events if not charges[event.head.session_id].due)
    return partition.number, partition.batch, partition.batch - journal_batches, entries


def _columns(rows: Sequence[Any], columns: Sequence[Callable[[Any], Any]]) -> Iterable[list[Any]]:
    return ([column(row) for row in rows] for column in columns)


_SESSION_COLUMNS: Sequence[Callable[[Charge], Any]] = (
    lambda charge: charge.head.session_id,
    lambda charge: charge.head.station_id,
    lambda charge: charge.head.transaction_id,
    lambda charge: charge.head.site_id,
    lambda charge: charge.head.evse_id,
    lambda charge: charge.head.connector_id,
    lambda charge: charge.head.id_token,
    lambda charge: charge.head.id_token_type,
    lambda charge: charge.head.ocpp_version,
    lambda charge: charge.status,
    lambda charge: charge.reason,
    lambda charge: charge.head.tariff_id,
    lambda charge: charge.head.tariff_version,
    lambda charge: charge.head.time_zone,
    lambda charge: charge.currency,
    lambda charge: charge.cost and charge.cost[0],
    lambda charge: charge.cost and charge.cost[1],
    lambda charge: charge.frame.energy_uwh,
    lambda charge: charge.frame.rung,
    lambda charge: charge.frame.started_ms,
    lambda charge: charge.frame.ended_ms,
    lambda charge: charge.cdr_id,
    lambda charge: charge.number,
    lambda charge: ",".join([*charge.flags, charge.remark] if charge.remark else charge.flags),
    lambda charge: charge.received_ms,
    dump_charge,
)
_CDR_COLUMNS: Sequence[Callable[[Cdr], Any]] = (
    lambda cdr: cdr.cdr_id,
    lambda cdr: cdr.session_id,
    lambda cdr: cdr.number,
    lambda cdr: cdr.credit_reference_id,
    lambda cdr: cdr.station_id,
    lambda cdr: cdr.site_id,
    lambda cdr: cdr.id_token,
    lambda cdr: cdr.started_ms,
    lambda cdr: cdr.ended_ms,
    lambda cdr: cdr.currency,
    lambda cdr: cdr.total_excl,
    lambda cdr: cdr.total_incl,
    lambda cdr: cdr.energy_uwh,
    lambda cdr: cdr.energy_rung,
    lambda cdr: cdr.tariff_id,
    lambda cdr: cdr.tariff_version,
    lambda cdr: ",".join(cdr.flags),
    lambda cdr: cdr.ocpi,
    lambda cdr: cdr.bill,
    lambda cdr: cdr.updated_ms,
)
_STATION_COST_COLUMNS: Sequence[Callable[[StationCost], Any]] = (
    lambda cost: cost.session_id,
    lambda cost: cost.currency,
    lambda cost: cost.total,
    lambda cost: cost.after_tax,
    lambda cost: cost.ours,
    lambda cost: cost.failed,
    lambda cost: cost.reason,
    lambda cost: cost.details,
    lambda cost: cost.checked_ms,
)
_UNATTRIBUTED_COLUMNS: Sequence[Callable[[Event], Any]] = (
    lambda event: event.event_id,
    lambda event: event.head.station_id,
    lambda event: event.head.evse_id,
    lambda event: event.frame.energy_uwh,
    lambda event: event.frame.begin_uwh,
    lambda event: event.frame.end_uwh,
    lambda event: event.frame.at_ms,
    lambda event: event.head.session_id,
)


def _cdr(row: Any) -> Cdr:
    return Cdr(
        cdr_id=row["cdr_id"],
        session_id=str(row["session_id"]),
        number=row["number"],
        credit_reference_id="",
        station_id=row["station_id"],
        site_id=row["site_id"] or "",
        id_token=row["id_token"] or "",
        started_ms=_milliseconds(row["started_at"]),
        ended_ms=_milliseconds(row["ended_at"]),
        currency=row["currency"],
        total_excl=row["total_excl"],
        total_incl=row["total_incl"],
        energy_uwh=int(row["energy_wh"].scaleb(6)),
        energy_rung=row["energy_rung"],
        tariff_id=row["tariff_id"],
        tariff_version=row["tariff_version"],
        flags=tuple(row["flags"]),
        ocpi=row["ocpi"],
        bill=row["bill"],
        updated_ms=_milliseconds(row["last_updated"]),
    )


def _milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MILLISECOND
