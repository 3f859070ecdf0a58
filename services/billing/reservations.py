"""Reservations that no session used: what they cost, if their tariff prices that. Pure.

A session that uses a reservation has the reserved time on its own bill. Here are those that expired, and, if it is set
so, those that were cancelled: with a price, they have a charge and a record; without one, there is nothing to show.
"""

from __future__ import annotations

from busbar.pricing.bill import Bill
from busbar.pricing.facts import reservation_cancelled, reservation_expired, reserved
from busbar.pricing.session_facts import Feed
from busbar.records import Result
from services.billing import metrics
from services.billing.cdr import cdr_result, credit_of, make_cdr
from services.billing.core import CannotPriceError, bug, pricer_of
from services.billing.decoding import Event
from services.billing.model import FAILED, PRICED, RESERVATION, RETURNED, Cdr, Charge, State

_EXPIRED = "expired"
_CANCELLED = "cancelled"
_OTHERWISE = "it is {} after all"


def fold_reservation(state: State, event: Event) -> list[Result]:
    """Apply what became of a reservation, and return the records that it leads to."""
    key = event.head.session_id
    partition = state.partitions[event.partition]
    charge = partition.charges.get(key) if key else None
    if charge is not None and event.sequence <= charge.sequence:
        state.count("events", "repeated")
        return []
    state.count("events", event.kind)
    if not key:
        return []  # no command of ours made it
    is_billed = event.state == _EXPIRED or (event.state == _CANCELLED and state.policy.bill_cancelled_reservations)
    if charge is None and not is_billed:
        return []
    charge = charge or Charge(event.head)
    _take(charge, event)
    bill = _bill(state, charge) if is_billed else None
    if bill is None and not charge.reason and key not in partition.charges:
        state.count("reservations", "free")
        return []
    partition.charges[key], charge.due = charge, True
    partition.events.append(event)
    return _settle(state, charge, bill, event.partition)


def _take(charge: Charge, event: Event) -> None:
    """Note what an event tells."""
    charge.sequence, charge.head, charge.state = event.sequence, event.head, event.state
    charge.frame = event.frame._replace(started_ms=event.frame.reserved_ms)
    charge.final, charge.flags, charge.received_ms = True, [RESERVATION], event.received_ms
    charge.reason = ""


def _bill(state: State, charge: Charge) -> Bill | None:
    """The bill of a reservation; `None` if nothing is to be paid, or it has no price, and then a reason."""
    try:
        with metrics.PRICING.time():
            return _priced(state, charge)
    except CannotPriceError as error:
        charge.reason = str(error)
    except Exception as error:
        charge.reason = bug(charge, error)
    return None


def _priced(state: State, charge: Charge) -> Bill | None:
    made_ms, ended_ms = charge.frame.reserved_ms, charge.frame.ended_ms
    if not charge.head.tariff_id or made_ms is None or ended_ms is None:
        return None
    over = reservation_expired if charge.state == _EXPIRED else reservation_cancelled
    bill = pricer_of(state, charge).price((reserved(made_ms), over(ended_ms)))
    return bill if any(bill.total) else None


def _settle(state: State, charge: Charge, bill: Bill | None, number: int) -> list[Result]:
    """The record of a reservation, if it says anything else than the one that stands, and the credit of that one."""
    records: list[Cdr] = []
    if charge.reason:
        charge.status = FAILED
        state.count("reservations", FAILED)
        return []
    if bill is not None:
        charge.status = PRICED
        record = make_cdr(charge, bill, Feed(), state.policy, state.book.site(charge.head.site_id))
        if record.digest != charge.digest:
            state.count("reservations", "corrected" if charge.number else PRICED)
            records = [*_credit(charge), record]
            charge.standing, charge.number = record, record.number
            charge.cdr_id, charge.digest = record.cdr_id, record.digest
        charge.currency, charge.cost = bill.currency, (bill.total.excl_tax, bill.total.incl_tax)
    else:
        charge.status, charge.reason = RETURNED, _OTHERWISE.format(charge.state)
        records = _credit(charge)
        charge.standing, charge.cdr_id, charge.digest, charge.cost = None, "", "", None
        state.count("reservations", RETURNED)
    state.cdrs += records
    return [cdr_result(each, number) for each in records]


def _credit(charge: Charge) -> list[Cdr]:
    """What takes back the record that stands, if there is one."""
    if not charge.digest:
        return []
    if charge.standing is None:
        raise RuntimeError(f"the record {charge.cdr_id} has not been loaded")
    return [credit_of(charge.standing, charge.received_ms)]
