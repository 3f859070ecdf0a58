"""What the metrics of billing say of batches that were stored."""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from typing import Any

from tests.support import metrics
from tests.unit.services.billing.test_fold import correction
from tests.unit.services.billing.world import Session, World, plain_session

figures = partial(metrics.figures, "csms_billing_")
since = partial(metrics.since, prefix="csms_billing_")


def gap(session: Session, wh: str, **more: Any) -> dict[str, Any]:
    """Energy outside of any session."""
    registers = {"register_begin_wh": Decimal(900), "register_end_wh": Decimal(900) + Decimal(wh)}
    return session.event(0, "unattributed", energy_wh=Decimal(wh), **registers, **more)


def test_sessions_are_counted_by_what_became_of_them_and_repeats_count_for_nothing() -> None:
    world, session, before = World(), Session(), figures()
    events = plain_session(session)
    world.batch(*events)
    found = since(before)
    assert found["sessions_total", "priced"] == 1
    assert (found["events_total", "started"], found["events_total", "updated"]) == (1, 3)
    assert found["pricing_seconds_count", ""] >= 1
    before = figures()
    world.batch(*events)
    assert since(before) == {("events_total", "repeated"): 5}
    before = figures()
    world.batch(correction(session))
    found = since(before)
    assert {key: found[key] for key in found if key[0] == "sessions_total"} == {("sessions_total", "corrected"): 1}


def test_a_session_without_a_price_is_counted_once_by_its_reason() -> None:
    for tariff, outcome in (("", "unpriced"), ("GONE/1", "failed")):
        world, session, before = World(), Session(tariff), figures()
        world.batch(*plain_session(session))
        world.batch(session.event(61, "corrected", final=True, state="ended", energy_wh=Decimal(10_000)))
        found = since(before)
        assert {key: found[key] for key in found if key[0] == "sessions_total"} == {("sessions_total", outcome): 1}


def test_unattributed_energy_is_counted_in_wh_as_found_and_as_explained() -> None:
    world, session, before = World(), Session(), figures()
    world.batch(gap(session, "12.5"))
    world.batch(gap(session, "-2.25"))
    found = since(before)
    assert found["unattributed_wh_total", "found"] == 12.5
    assert found["unattributed_wh_total", "explained"] == 2.25


def test_a_batch_that_was_not_stored_counts_nothing() -> None:
    world, before = World(), figures()
    world.batch(*plain_session(), commit=False)
    assert {key for key in since(before) if key[0] != "pricing_seconds_count"} == set()
    world.batch(*plain_session())
    assert since(before)["sessions_total", "priced"] == 1
