"""The fold of the billing service: an event of a session, and what the session costs after it. Pure (rule 5).

Facts are taken as they come and priced together: when the session's row is due to be written, and when it is over. What
a session costs in the end does not depend on when that was.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from busbar.pricing.bill import Bill
from busbar.pricing.engine import Pricer
from busbar.pricing.session_facts import Feed, with_changes
from busbar.pricing.state import SessionState
from busbar.records import Result
from services.billing import metrics
from services.billing.cdr import cdr_result, credit_of, make_cdr
from services.billing.decoding import Event
from services.billing.model import FAILED, JOINED, MOST_WAITING, OPEN, PRICED, UNPRICED, Cdr, Charge, State
from services.billing.running import CostMode
from services.billing.station_cost import compare
from services.billing.telling import COMMAND_MS, FINAL_MS, Display, Look, Subject, tell_final, tell_running, tell_total
from services.billing.unplugged import Unplugged

logger = logging.getLogger(__name__)

NO_TARIFF = "no tariff is assigned to it"
POWER_INTEGRAL = "its energy rests on samples of power alone, which is not billed"
_UNATTRIBUTED = "unattributed"


class CannotPriceError(Exception):
    """A session has no price; the message says why."""


def apply(state: State, event: Event) -> list[Result]:
    """Apply one event to the state, in place, and return the charge detail records that it leads to."""
    session_id = event.head.session_id
    if not session_id:
        state.count("events", event.kind)
        return []  # of no session
    partition = state.partitions[event.partition]
    charge = partition.charges.get(session_id)
    if charge is None:
        charge = partition.charges[session_id] = Charge(event.head)
    if event.sequence <= charge.sequence:
        state.count("events", "repeated")
        return []
    state.count("events", event.kind)
    partition.events.append(event)
    if event.kind == _UNATTRIBUTED:
        charge.sequence = event.sequence
        charge.received_ms = charge.received_ms or event.received_ms
        state.unattributed.append(event)
        found = event.frame.energy_uwh
        state.count("unattributed", "found" if found > 0 else "explained", abs(found))
        return []
    was_final = charge.final
    take(charge, event)
    if event.state == "joined":
        charge.status, charge.reason, charge.due = JOINED, "", True
        return []
    if not event.final:
        if was_final:
            charge.status, charge.reason, charge.due = OPEN, "", True
        answered = event.answered and not charge.doubtful
        return [] if event.offline else _tell(state, event.partition, charge, event.received_ms, answered=answered)
    charge.due = True
    return _settle(state, charge, event.partition)


def look(state: State, event: Look) -> list[Result]:
    """Tell a station what a session costs by now, because of the clock."""
    partition = state.partitions[event.partition]
    charge = partition.charges.get(event.session_id)
    if charge is None or charge.final or charge.display is None or charge.display.look_ms != event.at_ms:
        return []
    late = state.now_ms - event.at_ms > COMMAND_MS
    return _tell(state, event.partition, charge, state.now_ms if late else event.at_ms)


def take(charge: Charge, event: Event) -> None:
    """Note what an event tells, and price nothing yet."""
    frame, observations = event.frame, event.observations
    if charge.display is not None and len(frame.changes) != len(charge.frame.changes):
        charge.display.calm_until_ms = 0
    charge.sequence, charge.head, charge.frame = event.sequence, event.head, frame
    charge.state, charge.final, charge.flags = event.state, event.final, event.flags
    charge.received_ms = event.received_ms
    if event.kind == "started":
        charge.offline = event.offline
    if event.signed:
        charge.signed += event.signed
    charge.station_cost = event.cost_details or charge.station_cost
    charge.unwritten += observations
    charge.untaken.append((frame, observations))
    if event.head.tariff_id:
        make_facts(charge)
        if charge.reason and len(charge.waiting) > MOST_WAITING:
            charge.waiting, charge.feed.exact = [], False
    elif len(charge.untaken) > MOST_WAITING:
        charge.untaken, charge.waiting, charge.feed.exact = [], [], False
    _park(charge)
    if charge.price is not None and charge.priced_by != event.head.tariff:
        charge.price, charge.feed.exact = None, False


def make_facts(charge: Charge) -> None:
    """Have the feed take what it has not taken yet. A session that gets its tariff late is priced like any other."""
    feed = charge.feed
    untaken, charge.untaken = charge.untaken, []
    for frame, observations in untaken:
        charge.waiting += feed.take(frame, observations)
    charge.doubtful |= not feed.exact


def unplug(state: State, event: Unplugged) -> list[Result]:
    """The car was unplugged: until then it was parked, which the session's tariff may have a price for."""
    partition = state.partitions[event.partition]
    session_id = state.unplugged.get((event.station_id, event.transaction_id), "")
    charge = partition.charges.get(session_id)
    if charge is None or state.mode_of(charge.head) is not CostMode.CALIFORNIA or charge.unplugged_ms == event.at_ms:
        return []
    charge.unplugged_ms, charge.due = event.at_ms, True
    partition.changed.add(session_id)
    if not charge.final:
        return []
    charge.received_ms = max(charge.received_ms, event.received_ms)
    _park(charge)
    return _settle(state, charge, event.partition)


def _park(charge: Charge) -> None:
    """Let the session go on as parking from its stop until the car was unplugged."""
    frame = charge.frame
    if frame.ended_ms is None or charge.unplugged_ms <= frame.ended_ms:
        return
    make_facts(charge)
    charge.frame = frame._replace(ended_ms=charge.unplugged_ms)
    if charge.parked_ms != frame.ended_ms:
        charge.feed.exact &= not charge.parked_ms
        charge.parked_ms = frame.ended_ms
        charge.waiting += charge.feed.take(charge.frame, charge.parked)


def needs_facts(charge: Charge, events: Sequence[Event]) -> bool:
    """Whether these events of a session cannot be folded without all its observations.

    It has a tariff by then, and its facts have been made.
    """
    if not charge.written or charge.loaded is not None or not any(event.final for event in events):
        return False
    if charge.unplugged_ms:
        return True
    feed = charge.feed.copy()
    for event in events:
        if event.sequence <= charge.sequence or event.kind == _UNATTRIBUTED:
            continue
        feed.take(event.frame, event.observations)
        if event.final and (feed.end(event.frame) is None or charge.priced_by != event.head.tariff):
            return True
    return False


def price_so_far(state: State, charge: Charge) -> None:
    """What a session that goes on costs by now; what cannot be priced is left for its end, with the reason."""
    try:
        with metrics.PRICING.time():
            pricer = pricer_of(state, charge)
            if not _catch_up(charge, pricer):
                return
            cost = pricer.cost(_as_known(charge, pricer))
    except CannotPriceError as error:
        charge.reason = str(error)
        return
    except Exception as error:
        charge.reason = bug(charge, error)
        return
    charge.reason = ""
    charge.currency, charge.cost = cost.currency, (cost.excl_tax, cost.incl_tax)


def _catch_up(charge: Charge, pricer: Pricer) -> bool:
    """Price the facts that wait; `False` if that takes observations that are not at hand."""
    if charge.feed.exact:
        charge.price = pricer.advance_all(charge.price or pricer.begin(), charge.waiting)
    else:
        observations = charge.observations
        if observations is None:
            return False
        feed, facts = Feed.replay(charge.frame._replace(ended_ms=None), observations)
        charge.price = pricer.advance_all(pricer.begin(), facts)
        if feed.exact:
            charge.feed = feed
    charge.waiting, charge.priced_by = [], charge.head.tariff
    return True


def _as_known(charge: Charge, pricer: Pricer) -> SessionState:
    """All that is known, priced, with the tariff that holds now."""
    assert charge.price is not None
    return with_changes(pricer, charge.price, charge.frame.changes)


def _tell(state: State, number: int, charge: Charge, at_ms: int, *, answered: bool = False) -> list[Result]:
    """Tell the station of a session that goes on what it costs by now, if that is worth telling.

    Args:
        number: The partition.
        at_ms: When the event was received, or the instant of a look.
        answered: The event's answer tells it what it costs.
    """
    head, display = charge.head, charge.display
    if not head.tariff_id or charge.frame.ended_ms is not None or state.now_ms - at_ms > COMMAND_MS:
        return []
    if display is not None and display.told is not None and at_ms < display.calm_until_ms:  # as for most events
        display.answered_ms = at_ms if answered else display.answered_ms
        return []
    mode = state.mode_of(head)
    if mode is CostMode.NONE:
        return []
    if display is None:
        display = charge.display = Display()
    elif display.told is not None and answered and mode is CostMode.COST_UPDATED:
        display.answered_ms = at_ms
        return []
    look_ms = display.look_ms
    try:
        pricer = pricer_of(state, charge)
        if not _catch_up(charge, pricer) or charge.price is None:
            return []
        telling = state.policy.telling
        price = _as_known(charge, pricer)
        told = tell_running(display, subject(charge), price, at_ms, mode, telling, pricer, answered=answered)
    except CannotPriceError as error:
        charge.reason = str(error)
        return []
    except Exception as error:
        charge.reason = bug(charge, error)
        return []
    if display.look_ms is not None and display.look_ms != look_ms:
        state.partitions[number].looks.add(display.look_ms, head.session_id)
    if told is None:
        return []
    state.count("told", "running")
    return [told]


def _tell_final(state: State, charge: Charge, bill: Bill) -> list[Result]:
    """Tell a station's display what a session came to, once."""
    if (charge.number != 1 and not charge.unplugged_ms) or state.now_ms - charge.received_ms > COMMAND_MS:
        return []
    if charge.received_ms - bill.end_ms > FINAL_MS:
        return []  # it was buffered: the driver has left
    told = tell_final(subject(charge), bill, charge.received_ms, state.mode_of(charge.head), state.policy.telling)
    if told is None:
        return []
    state.count("told", "final")
    return [told]


def subject(charge: Charge) -> Subject:
    """The session as its station is told of it."""
    head = charge.head
    return Subject(
        session_id=head.session_id,
        station_id=head.station_id,
        transaction_id=head.transaction_id,
        ocpp_version=head.ocpp_version,
        heard_ms=charge.received_ms,
        begin_uwh=charge.frame.begin_uwh,
    )


def _settle(state: State, charge: Charge, number: int) -> list[Result]:
    """The session may be billed: a record, if it says anything else than the one that stands."""
    before = charge.status
    try:
        with metrics.PRICING.time():
            bill, feed = _bill(state, charge)
            told = _compare(state, charge, bill)
            records = _records(state, charge, bill, feed)
            results = [cdr_result(record, number) for record in records]
    except CannotPriceError as error:
        charge.status = FAILED if charge.head.tariff_id else UNPRICED
        charge.reason = str(error)
    except Exception as error:
        charge.status, charge.reason = FAILED, bug(charge, error)
    else:
        charge.status, charge.reason = PRICED, ""
        charge.currency, charge.cost = bill.currency, (bill.total.excl_tax, bill.total.incl_tax)
        if results:
            state.count("sessions", "corrected" if charge.number else PRICED)
            state.cdrs += records
            charge.standing = last = records[-1]
            charge.number, charge.cdr_id, charge.digest = last.number, last.cdr_id, last.digest
            results += _tell_final(state, charge, bill)
        return [*results, *told]
    if charge.status != before:
        state.count("sessions", charge.status)
    if not charge.number:
        charge.cost = None
    return []


def _compare(state: State, charge: Charge, bill: Bill) -> list[Result]:
    """Hold what the station says that the session costs against the bill; tell it the total if it could not say."""
    if not charge.station_cost:
        return []
    session_id = charge.head.session_id
    found = compare(session_id, charge.station_cost, bill, charge.received_ms)
    state.station_costs[session_id] = found
    charge.remark = found.flag
    if found.flag:
        state.count("sessions", found.flag)
    if not found.failed or state.now_ms - charge.received_ms > COMMAND_MS:
        return []
    told = tell_total(subject(charge), bill.total.incl_tax, charge.received_ms)
    if told is None:
        return []
    state.count("told", "total")
    return [told]


def _records(state: State, charge: Charge, bill: Bill, feed: Feed) -> list[Cdr]:
    """The next record, after the credit of the one that stands; none if it says the same."""
    cdr = make_cdr(charge, bill, feed, state.policy, state.book.site(charge.head.site_id))
    if cdr.digest == charge.digest:
        return []
    if not charge.number:
        return [cdr]
    if charge.standing is None:
        raise RuntimeError(f"the record {charge.cdr_id} has not been loaded")
    return [credit_of(charge.standing, charge.received_ms), cdr]


def _bill(state: State, charge: Charge) -> tuple[Bill, Feed]:
    """The bill of a session that is over, and the feed that led to it.

    Raises:
        CannotPriceError: It has no tariff, or none that prices it.
    """
    frame = charge.frame
    if frame.rung == "power_integral" and charge.head.tariff_id and not state.policy.bill_power_integral:
        raise CannotPriceError(POWER_INTEGRAL)
    pricer = pricer_of(state, charge)
    end = charge.feed.end(frame)
    if end is not None:
        _catch_up(charge, pricer)
        assert charge.price is not None
        return pricer.finish(pricer.advance_all(charge.price, end)), charge.feed
    observations = charge.observations
    if observations is None:
        raise RuntimeError("its observations have not been loaded")
    feed, facts = Feed.replay(frame, observations)
    return pricer.price(facts), feed


def pricer_of(state: State, charge: Charge) -> Pricer:
    """What prices a session with its tariffs. Raises `CannotPriceError`."""
    tariff_id, version, time_zone = charge.head.tariff
    if not tariff_id:
        raise CannotPriceError(NO_TARIFF)
    changes = tuple([change[1:] for change in charge.frame.changes])
    try:
        return state.book.pricer(tariff_id, version, time_zone, changes)
    except KeyError as error:
        ((missing_id, missing_version),) = error.args
        raise CannotPriceError(f"version {missing_version} of its tariff {missing_id} does not exist") from None
    except ValueError as error:
        raise CannotPriceError(f"version {version} of its tariff {tariff_id}: {error}"[:500]) from error


def bug(charge: Charge, error: Exception) -> str:
    """A session that the engine fails on is one without a price, and no reason to stop for all others."""
    logger.error(
        "a session could not be priced",
        extra={"session_id": charge.head.session_id, "tariff_id": charge.head.tariff_id},
        exc_info=error,
    )
    return f"pricing failed: {type(error).__name__}"
