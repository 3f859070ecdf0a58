"""What the fold of the billing service makes of sessions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID, uuid5

import pytest

from busbar import compiled
from busbar.avro import encode
from busbar.pricing.jsontext import parse_json
from busbar.records import Record
from busbar.stream.interfaces import InvalidRecord
from busbar.tariffs import Site
from services.billing.cdr import cdr_id
from services.billing.store import FACTS, SESSIONS
from tests.unit.pricing.builders import component, element, tariff_json
from tests.unit.services.billing.scenario import TARIFFS, session_events
from tests.unit.services.billing.world import (
    MINUTE,
    SESSION_ID,
    T0,
    TARIFF,
    Session,
    Tables,
    World,
    ocpi,
    plain_session,
)

# 10 kWh at 0.50, 40 minutes parked at 6.00/h, a fee of 1.00: 10.00, with 20 % tax 12.00.
EXPECTED = (Decimal("10.00"), Decimal("12.00"))

patches = pytest.mark.skipif(compiled.said().startswith("yes"), reason="compiled modules do not look for patches")


def total(cdr: dict[str, Any]) -> tuple[Decimal, Decimal]:
    return cdr["total_cost_excl_vat"], cdr["total_cost_incl_vat"]


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("restarts", [False, True])
def test_a_session_that_ends_has_one_record(size: int, restarts: bool) -> None:
    world, events = World(), plain_session()
    found = []
    for place in range(0, len(events), size):
        found += world.batch(*events[place : place + size])
        if restarts:
            world.restart()
    (cdr,) = found
    assert total(cdr) == EXPECTED
    assert (cdr["number"], cdr["credit"], cdr["credit_reference_id"], cdr["currency"]) == (1, False, "", "EUR")
    assert (cdr["started_at"], cdr["ended_at"], cdr["last_updated"]) == (T0, T0 + 60 * MINUTE, T0 + 60 * MINUTE + 141)
    assert (cdr["energy_wh"], cdr["energy_rung"]) == (10_000, "samples")
    assert (cdr["tariff_id"], cdr["tariff_version"]) == ("T", 1)
    row = world.session()
    assert (row["status"], row["cost_excl"], row["cost_incl"], row["cdr_count"]) == ("priced", *EXPECTED, 1)
    assert row["cdr_id"] == cdr["cdr_id"] == world.results[0].key.decode()
    stored = world.tables.cdrs[cdr["cdr_id"]]
    assert (stored["ocpi"], stored["bill"]) == (cdr["ocpi"], cdr["bill"])


@pytest.mark.parametrize("number", [1, 2, 999, 12_345])
def test_the_id_of_a_record_is_a_uuid_made_of_session_and_number(number: int) -> None:
    assert cdr_id(SESSION_ID, number) == str(uuid5(UUID(SESSION_ID), f"cdr {number}"))


def test_the_record_in_the_words_of_ocpi() -> None:
    site = Site("S", "Europe/Amsterdam", "Depot", "NL", "1011AB", "Amsterdam", "Dam 1", Decimal("52.37"),
                Decimal("4.89"), "BUS", "NL")  # fmt: skip
    world = World(sites=[site])
    (cdr,) = world.batch(*plain_session(Session(head={"site_id": "S", "remote_start_id": 7})))
    document = ocpi(cdr)
    assert (document["id"], document["session_id"]) == (cdr["cdr_id"], SESSION_ID)
    assert len(document["id"]) == 36
    assert (document["start_date_time"], document["end_date_time"]) == ("2025-11-21T08:00:00Z", "2025-11-21T09:00:00Z")
    assert document["last_updated"] == "2025-11-21T09:00:00.141Z"
    assert document["cdr_token"] == {
        "country_code": "NL", "party_id": "BUS", "uid": "TAG", "type": "RFID", "contract_id": "TAG",
    }  # fmt: skip
    assert document["cdr_location"] == {
        "id": "S", "name": "Depot", "address": "Dam 1", "city": "Amsterdam", "postal_code": "1011AB", "country": "NLD",
        "coordinates": {"latitude": "52.3700000", "longitude": "4.8900000"}, "evse_uid": "CS-1/1", "evse_id": "CS-1/1",
        "connector_id": "1",
    }  # fmt: skip
    assert (document["auth_method"], document["credit"]) == ("COMMAND", False)
    assert document["total_cost"]["before_taxes"] == Decimal("10.00")
    assert (document["total_energy"], document["total_parking_time"]) == (Decimal(10), Decimal("0.6667"))
    assert [period["start_date_time"][11:16] for period in document["charging_periods"]] == ["08:00", "08:20"]
    assert "signed_data" not in document
    bill = parse_json(cdr["bill"])
    assert sum(line["incl_tax"] for line in bill["lines"]) == bill["total"]["incl_tax"] == Decimal("12.00")
    assert bill["time_zone"] == "UTC"


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ({}, "AUTH_REQUEST"),
        ({"offline": True}, "WHITELIST"),
        ({"remote_start_id": 3}, "COMMAND"),
    ],
)
def test_how_it_was_authorized(head: dict[str, Any], expected: str) -> None:
    (cdr,) = World().batch(*plain_session(Session(head=head)))
    assert ocpi(cdr)["auth_method"] == expected


def test_ids_that_ocpi_has_no_room_for() -> None:
    (cdr,) = World().batch(*plain_session(Session(head={"id_token": "T" * 50, "station_id": "S" * 48})))
    document = ocpi(cdr)
    assert document["cdr_token"]["uid"] == "T" * 36
    assert len(document["cdr_location"]["id"]) == len(document["cdr_location"]["evse_uid"]) == 36
    assert cdr["flags"] == ["id_token_cut"]
    assert cdr["id_token"] == "T" * 50
    (cdr,) = World().batch(*plain_session(Session(head={"id_token": "", "id_token_type": "NoAuthorization"})))
    assert ocpi(cdr)["cdr_token"] == {"uid": SESSION_ID, "type": "AD_HOC_USER", "contract_id": SESSION_ID}


def test_a_session_without_a_tariff_is_seen_to_have_none() -> None:
    world = World()
    assert world.batch(*plain_session(Session(tariff=""))) == []
    row = world.session()
    assert (row["status"], row["reason"], row["cost_incl"]) == ("unpriced", "no tariff is assigned to it", None)
    assert world.tables.cdrs == {}


def test_a_free_session_has_a_record_of_zero() -> None:
    (cdr,) = World().batch(*plain_session(Session(tariff="FREE/1")))
    assert total(cdr) == (Decimal(0), Decimal(0))


@pytest.mark.parametrize(
    ("session", "reason"),
    [
        (Session(tariff="T/7"), "version 7 of its tariff T does not exist"),
        (Session(time_zone="Nowhere/Else"), "version 1 of its tariff T: "),
        (Session(tariff="BROKEN/1"), "version 1 of its tariff BROKEN: "),
    ],
)
def test_a_tariff_that_cannot_be_used_fails_that_session_alone(session: Session, reason: str) -> None:
    world = World({"T/1": TARIFF, "BROKEN/1": {"id": "BROKEN", "currency": "EUR", "elements": []}})
    other = Session(session_id="00000000-0000-8000-8000-000000000001")
    (cdr,) = world.batch(*plain_session(session), *plain_session(other))
    assert cdr["session_id"] == other.session_id
    row = world.session()
    assert row["status"] == "failed"
    assert row["reason"].startswith(reason)


@patches
def test_what_the_engine_fails_on_is_a_session_without_a_price(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("busbar.pricing.engine.Pricer.finish", fail)
    world = World()
    assert world.batch(*plain_session()) == []
    assert (world.session()["status"], world.session()["reason"]) == ("failed", "pricing failed: ZeroDivisionError")


def test_a_session_whose_row_is_not_due_yet_is_known_after_a_restart() -> None:
    world, events = World(few_events=0), plain_session()
    for event in events[:-1]:
        world.batch(event)
        assert world.tables.sessions == {}
        world.restart()
    (cdr,) = world.batch(events[-1])
    assert total(cdr) == EXPECTED


@pytest.mark.parametrize("hears", [False, True])
def test_what_a_journal_holds_is_written_after_a_restart(hears: bool) -> None:
    world, session = World(few_events=0), Session()
    world.batch(session.started())
    world.batch(session.measured(10, 1000))
    world.restart()
    if hears:
        world.batch(Session(session_id="00000000-0000-8000-8000-000000000001").started())
        assert world.tables.sessions == {}
    assert world.wait(0) == 1
    assert world.session()["cost_excl"] == Decimal("1.50")
    assert world.wait(0) == 0


def test_what_waits_for_further_batches_waits_for_a_minute_at_most() -> None:
    world, session = World(few_events=0), Session()
    world.now_ms = T0
    world.batch(session.started())
    world.batch(session.measured(10, 1000))
    world.now_ms += 30_000
    other = Session(session_id="00000000-0000-8000-8000-000000000001")
    world.batch(other.started())
    assert world.wait(29) == 0
    assert world.wait(2) == 1
    assert world.tables.sessions.keys() == {SESSION_ID}
    assert world.session()["cost_excl"] == Decimal("1.50")
    assert world.wait(0) == 0
    assert world.wait(30) == 1
    assert world.tables.sessions.keys() == {SESSION_ID, other.session_id}
    assert world.wait(600) == 0
    world.batch(session.measured(20, 2000))
    assert world.tables.writes == 2
    (cdr,) = world.batch(session.ended(30, 3000))
    assert total(cdr)[0] == Decimal("2.50")


def test_energy_that_rests_on_power_alone_is_not_billed_unseen() -> None:
    events = plain_session(Session(rung="power_integral"))
    world = World()
    assert world.batch(*events) == []
    assert world.session()["status"] == "failed"
    world = World(bill_power_integral=True)
    (cdr,) = world.batch(*events)
    assert cdr["energy_rung"] == "power_integral"


def test_an_open_session_has_a_running_cost() -> None:
    world, events = World(journal_batches=1, few_events=0), plain_session()
    world.batch(events[0])
    world.batch(events[1])
    world.batch(*plain_session(Session(session_id="00000000-0000-8000-8000-000000000001"))[:1])
    row = world.session()
    assert (row["status"], row["cost_excl"], row["currency"], row["cdr_id"]) == ("open", Decimal("3.50"), "EUR", "")


def test_on_a_quiet_system_the_running_cost_is_that_of_the_last_event() -> None:
    world, events = World(), plain_session()
    costs = []
    for event in (events[0], events[2], events[1] | {"sequence": 3, "energy_wh": Decimal(10_000)}, events[3]):
        world.batch(event)
        costs.append(world.session()["cost_excl"])
    assert costs == [Decimal(text) for text in ("1.00", "6.00", "6.00", "8.00")]
    assert world.tables.journal == {}


def test_rows_of_sessions_that_go_on_are_written_seldom() -> None:
    world, session = World(journal_batches=8, few_events=0), Session()
    world.batch(session.started())
    for minute in range(1, 30):
        world.batch(session.measured(minute, 100 * minute))
    assert world.tables.writes == 3
    assert len(world.tables.journal) < 9
    world.restart()
    (cdr,) = world.batch(session.ended(30, 3000))
    assert total(cdr)[0] == Decimal("2.50")


def test_a_batch_that_is_not_committed_leaves_nothing() -> None:
    world, events = World(), plain_session()
    world.batch(*events[:2])
    world.batch(*events[2:4], commit=False)
    world.batch(*events[2:4])
    assert world.batch(*events[4:], commit=False) == []
    (cdr,) = world.batch(*events[4:])
    assert total(cdr) == EXPECTED


def test_events_that_come_twice_change_nothing() -> None:
    world, events = World(), plain_session()
    world.batch(*events[:3], *events[:3])
    world.batch(events[1])
    assert len(world.batch(*events[3:], *events[3:])) == 1
    assert world.batch(*events) == []
    assert len(world.tables.cdrs) == 1


def test_a_late_event_is_sorted_in() -> None:
    session = Session()
    started, first, second = session.started(), session.measured(10, 5000), session.measured(20, 10_000, "SuspendedEV")
    ended = session.ended(60, 10_000)
    late = [started, second | {"sequence": 2}, first | {"sequence": 3, "energy_wh": Decimal(10_000)}, ended]
    for sizes in ((4,), (1, 1, 1, 1), (3, 1)):
        world, rest, found = World(), list(late), []
        for size in sizes:
            found += world.batch(*[rest.pop(0) for _ in range(size)])
            world.restart()
        (cdr,) = found
        assert total(cdr) == EXPECTED


def correction(session: Session, **more: Any) -> dict[str, Any]:
    """A register of 12 kWh that was missing."""
    session.register_wh = Decimal(1_012_000)
    session.energy_wh = Decimal(12_000)
    return session.measured(60, 12_000, kind="corrected", **{"final": True, "state": "ended", **more})


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("restarts", [False, True])
def test_a_correction_is_a_credit_and_a_new_record_once(together: bool, restarts: bool) -> None:
    world, session = World(), Session()
    events = plain_session(session)
    fix = correction(session)
    if together:
        first, credit, second = world.batch(*events, fix)
    else:
        (first,) = world.batch(*events)
        if restarts:
            world.restart()
        credit, second = world.batch(fix)
    assert total(first) == EXPECTED
    assert (credit["cdr_id"], credit["credit_reference_id"]) == (f"{first['cdr_id']}-C", first["cdr_id"])
    assert len(credit["cdr_id"]) <= 39
    assert total(credit) == (-EXPECTED[0], -EXPECTED[1])
    assert (credit["credit"], credit["number"], second["credit"], second["number"]) == (True, 1, False, 2)
    assert total(second) == (Decimal("11.00"), Decimal("13.20"))
    one, back = ocpi(first), ocpi(credit)
    assert back["total_cost"]["before_taxes"] == -one["total_cost"]["before_taxes"]
    amounts = [[tax["amount"] for tax in document["total_cost"]["taxes"]] for document in (one, back)]
    assert amounts[1] == [-amount for amount in amounts[0]]
    changed = {"id", "total_cost", "credit", "credit_reference_id", "last_updated"}
    assert {key: value for key, value in back.items() if key not in changed} == {
        key: value for key, value in one.items() if key not in changed
    }
    assert back["last_updated"] == ocpi(second)["last_updated"]
    assert world.net() == Decimal("13.20")
    row = world.session()
    assert (row["cdr_id"], row["cdr_count"], row["cost_incl"]) == (second["cdr_id"], 2, Decimal("13.20"))
    world.restart()
    assert world.batch(*events, fix) == []


def test_a_session_whose_token_was_not_accepted_is_billed_and_says_so() -> None:
    session = Session(head={"authorization_status": "Blocked", "flags": ["unauthorized"]})
    (cdr,) = World().batch(*plain_session(session))
    assert total(cdr) == EXPECTED
    assert "unauthorized" in cdr["flags"]


def test_what_changes_nothing_leads_to_nothing() -> None:
    world, session = World(), Session()
    (first,) = world.batch(*plain_session(session))
    same = session.event(61, "corrected", final=True, state="ended", flags=["offline"], energy_wh=Decimal(10_000))
    assert world.batch(same) == []
    assert world.session()["flags"] == "offline"
    assert world.session()["cdr_id"] == first["cdr_id"]


def test_a_session_that_goes_on_after_all_is_corrected_when_it_ends() -> None:
    world, session = World(), Session()
    events = plain_session(session)
    (first,) = world.batch(*events)
    session.ended_ms = None
    assert world.batch(session.event(61, "corrected", final=False, state="open")) == []
    assert world.session()["status"] == "open"
    world.restart()
    credit, second = world.batch(session.ended(80, 10_000))
    assert credit["credit_reference_id"] == first["cdr_id"]
    assert total(second)[0] == Decimal("12.00")
    assert world.session()["status"] == "priced"


def test_a_stop_that_has_found_its_session_is_not_billed_twice() -> None:
    world = World()
    orphan = Session(session_id="00000000-0000-8000-8000-000000000009")
    orphan.ended_ms = T0
    world.batch(orphan.event(0, "orphaned", state="orphan", ended_at=T0))
    assert world.session(orphan.session_id)["status"] == "open"
    assert world.batch(orphan.event(1, "corrected", state="joined", final=True)) == []
    assert world.session(orphan.session_id)["status"] == "joined"


def test_energy_outside_any_session_is_kept_apart() -> None:
    world, session = World(), Session()
    events = plain_session(session)
    gap = session.event(
        0, "unattributed", energy_wh=Decimal("12.5"), register_begin_wh=Decimal(900), register_end_wh=Decimal("912.5")
    )
    gap["sequence"], events[1]["sequence"], events[2]["sequence"] = 2, 3, 4
    events[3]["sequence"], events[4]["sequence"] = 5, 6
    (cdr,) = world.batch(events[0], gap, gap, *events[1:])
    assert total(cdr) == EXPECTED
    (row,) = world.tables.unattributed.values()
    assert (row["energy"], row["begin"], row["end"], row["at"]) == (12_500_000, 900_000_000, 912_500_000, T0)
    world.restart()
    assert world.batch(gap) == []


def test_signed_data_is_in_the_record_byte_for_byte() -> None:
    begin = 'OCMF|{"RD":[{"RV":0.100}]}|{"SD":"30\\u00e9"}'
    end = "A" * 6000 + "é\u0000\\"
    world, session = World(), Session()
    session_events = plain_session(session)
    key = {"encoding_method": "OCMF", "signing_method": "", "public_key": "K"}
    session_events[0]["signed_values"] = [{"at": T0, "context": "Transaction.Begin", "data": begin, **key}]
    session_events[4]["signed_values"] = [{"at": T0 + MINUTE, "context": "Transaction.End", "data": end, **key}]
    world.batch(*session_events[:2])
    world.restart()
    (cdr,) = world.batch(*session_events[2:])
    signed = ocpi(cdr)["signed_data"]
    assert (signed["encoding_method"], signed["public_key"]) == ("OCMF", "K")
    assert signed["signed_values"] == [
        {"nature": "Start", "plain_data": '{"RD":[{"RV":0.100}]}', "signed_data": begin},
        {"nature": "End", "plain_data": "", "signed_data": end},
    ]


def test_a_tariff_that_becomes_known_later_prices_the_whole_session() -> None:
    session = Session(tariff="")
    events = plain_session(session)
    for event in events[2:]:
        event |= {"tariff_id": "T", "tariff_version": 1, "time_zone": "UTC"}
    for size in (1, 5):
        world, found = World(), []
        for place in range(0, 5, size):
            found += world.batch(*events[place : place + size])
            world.restart()
        (cdr,) = found
        assert total(cdr) == EXPECTED


def test_no_facts_are_made_or_loaded_for_a_session_without_a_tariff() -> None:
    world, session = World(), Session(tariff="")
    tables = world.tables
    events = plain_session(session)
    for event in events[:-1]:
        world.batch(event)
    charge = world.processor._partitions[0].charges[SESSION_ID]
    assert (charge.feed.start_ms, charge.waiting) == (None, [])
    asked: list[str] = []

    async def fetch(query: str, wanted: Sequence[Any], *others: Any) -> list[Any]:
        asked.append(query)
        return await Tables.fetch(tables, query, wanted, *others)

    tables.fetch = fetch  # type: ignore[method-assign]
    world.restart()
    world.batch(events[-1])
    assert SESSIONS in asked
    assert FACTS not in asked
    assert (world.session()["status"], world.session()["energy"]) == ("unpriced", 10_000 * 10**6)


@pytest.mark.parametrize("seed", range(40))
def test_when_the_tariff_becomes_known_and_in_what_batches_does_not_matter(seed: int) -> None:
    chance = Random(seed)
    events = session_events(chance, "CS-1", SESSION_ID)
    while not events[0]["tariff_id"] or events[0]["tariff_id"] == "GONE":
        events = session_events(chance, "CS-1", SESSION_ID)
    late = [dict(event) for event in events]
    ends = next((place for place, event in enumerate(late) if event["final"]), len(late) - 1)
    for event in late[: chance.randint(0, ends)]:
        event |= {"tariff_id": "", "tariff_version": 0, "time_zone": ""}
    whole = World(TARIFFS)
    whole.batch(*events)
    ways: list[tuple[int, bool, dict[str, Any]]] = [
        (1, False, {}),
        (1, True, {}),
        (3, False, {"few_events": 0, "journal_batches": 2}),
        (3, True, {"few_events": 0}),
        (1000, False, {}),
    ]
    for size, restarts, policy in ways:
        world = World(TARIFFS, **policy)
        for place in range(0, len(late), size):
            world.batch(*late[place : place + size])
            if restarts:
                world.restart()
        assert world.tables.cdrs == whole.tables.cdrs


def test_a_tariff_that_becomes_known_on_the_way_prices_what_came_in_another_order() -> None:
    world, session = World(), Session(tariff="")
    events = [session.started(), session.measured(20, 2_000), session.measured(10, 1_000), session.measured(30, 4_000)]
    for event in events[:-1]:
        world.batch(event)
    assert world.session()["cost_excl"] is None
    world.batch(events[-1] | {"tariff_id": "T", "tariff_version": 1, "time_zone": "UTC"})
    assert world.session()["cost_excl"] == Decimal("3.00")


def test_many_events_without_a_tariff_are_not_kept_in_memory() -> None:
    world, session = World(), Session(tariff="")
    parked = session.started(0, 0, "SuspendedEV")
    world.batch(parked, *(session.measured(minute / 10, minute) for minute in range(1, 600)))
    charge = world.processor._partitions[0].charges[SESSION_ID]
    assert len(charge.untaken) < 300
    world.batch(session.ended(60, 600) | {"tariff_id": "T", "tariff_version": 1, "time_zone": "UTC"})
    assert world.session()["cost_excl"] == Decimal("7.30")  # 6.00 of it for having been parked from the start


def test_reservations_cost_nothing_yet() -> None:
    world = World()
    assert world.batch(Session(session_id="").event(0, "reservation", trigger="Expired")) == []
    assert world.tables.sessions == {}


def test_zero_length_multi_day_and_other_currencies() -> None:
    tariffs = {
        "JPY/1": tariff_json(element(component("ENERGY", "33", "10")), currency="JPY"),
        "KWD/1": tariff_json(element(component("ENERGY", "0.0333", "5")), currency="KWD"),
    }
    session = Session(tariff="JPY/1")
    (cdr,) = World(tariffs).batch(session.started(), session.ended(0))
    assert (*total(cdr), cdr["energy_wh"]) == (Decimal(0), Decimal(0), Decimal(0))
    session = Session(tariff="KWD/1")
    (cdr,) = World(tariffs).batch(session.started(), session.measured(5000, 100_000), session.ended(5000, 100_000))
    assert total(cdr) == (Decimal("3.330"), Decimal("3.497"))
    session = Session(tariff="JPY/1")
    (cdr,) = World(tariffs).batch(session.started(), session.ended(50, 10_000))
    assert total(cdr) == (Decimal(330), Decimal(363))


def test_what_is_no_event_of_a_session_is_refused() -> None:
    world, good = World(), encode("csms.SessionEvent", Session().started())
    for raw in (b"", b"{}", good[:30], good[:-1], good + b"\x00", b"\x00\x00\x00\x00\x01"):
        with pytest.raises(InvalidRecord):
            world.processor.decode(Record("csms.session-events", 0, 0, 0, b"", raw))


@pytest.mark.parametrize(
    "more", [{"session_id": "not-a-uuid"}, {"tariff_version": 1 << 31}, {"energy_wh": Decimal(10) ** 17}]
)
def test_what_the_tables_have_no_room_for_is_refused(more: dict[str, Any]) -> None:
    raw = encode("csms.SessionEvent", Session().started() | more)
    with pytest.raises(InvalidRecord):
        World().processor.decode(Record("csms.session-events", 0, 0, 0, b"", raw))


@patches
def test_a_record_that_cannot_be_written_is_a_session_without_a_price(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.billing.core.cdr_result", lambda *_: 1 / 0)
    world = World()
    assert world.batch(*plain_session()) == []
    assert (world.session()["status"], world.session()["cdr_count"], world.tables.cdrs) == ("failed", 0, {})


@patches
def test_an_event_of_an_older_schema_is_read_as_one_of_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    events = plain_session()
    expected = World().batch(*events)
    monkeypatch.setattr("services.billing.decoding.decoders", lambda: (b"other", None, None))
    assert World().batch(*events) == expected


@pytest.mark.parametrize(
    ("begin", "hours", "expected"),
    [
        ("2026-03-28T20:00:00+00:00", 9, "2.70"),  # the night lacks an hour: 7 at 0.10, and 2 by day at 1.00
        ("2026-10-24T19:00:00+00:00", 11, "2.90"),  # the night has one more: 9
        ("2026-06-10T19:00:00+00:00", 10, "2.80"),
    ],
)
def test_a_window_past_midnight_is_as_long_as_the_night_was(begin: str, hours: int, expected: str) -> None:
    tariff = tariff_json(
        element(component("ENERGY", "0.10"), start_time="22:00", end_time="06:00"), element(component("ENERGY", "1"))
    )
    start = (datetime.fromisoformat(begin).timestamp() * 1000 - T0) / MINUTE
    session = Session(time_zone="Europe/Berlin")
    world = World({"T/1": tariff})
    (cdr,) = world.batch(session.started(start), session.ended(start + 60 * hours, 1000 * hours))
    assert total(cdr)[0] == Decimal(expected)
