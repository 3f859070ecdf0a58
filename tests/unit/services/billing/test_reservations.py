"""What reservations cost: reserved time before a session, those that nobody came for, and those that somebody did after
all. Stations, sessions and billing together; the figures are worked out by hand.
"""

from __future__ import annotations

from decimal import Decimal
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busbar.ocpp.versions import Version
from busbar.pricing.assignment import Assignment, Scope
from busbar.pricing.jsontext import parse_json
from busbar.pricing.ocpi_downgrade import cdr_in_2_2_1
from busbar.pricing.receipt import receipt_of, receipt_text
from busbar.pricing.receipt_page import receipt_html
from busbar.tariffs import Configuration
from services.sessions.cache import StationCache
from tests.unit.pricing.builders import component, element, limit, tariff_json
from tests.unit.services.billing import world as billing
from tests.unit.services.billing.test_telling import V16, Displays, costs
from tests.unit.services.billing.test_with_sessions import both, calls_of
from tests.unit.services.sessions import world as sessions
from tests.unit.services.sessions.test_reservations import GRACE, HALF, VERSIONS, start_of, station_of
from tests.unit.services.sessions.world import HOUR, MINUTE, Operator, Station2x, Station16

TARIFF = tariff_json(
    element(component("TIME", "6", "20"), component("FLAT", "1", "20"), reservation="RESERVATION"),
    element(component("TIME", "12", "20"), component("FLAT", "5", "20"), reservation="RESERVATION_EXPIRES"),
    element(component("ENERGY", "0.50", "20")),
    min_price=limit("2.00"),
)
"""Reserved time at 6.00 an hour and a fee of 1.00; 12.00 and 5.00 if nobody comes; energy at 0.50; 20 % tax."""
STEPS = tariff_json(
    element(component("TIME", "6", step=900), reservation="RESERVATION"), element(component("ENERGY", "0.50"))
)
PLAIN = tariff_json(element(component("ENERGY", "0.50", "20")))
TARIFFS = {"R/1": TARIFF, "STEPS/1": STEPS, "PLAIN/1": PLAIN}
ENERGY = Decimal("6.00")  # 10 kWh at 0.50, and 20 %


class Both:
    """A station, the sessions service and the billing service."""

    def __init__(self, tariff_id: str = "R", **policy: Any) -> None:
        self.billing = billing.World(TARIFFS, **policy)
        self.sessions = sessions.World()
        self.sessions.token("TAG")
        assignments = (Assignment(tariff_id, Scope.DEFAULT),) if tariff_id else ()
        versions = self.billing.configuration.versions
        self.sessions.tariffs.accept(Configuration(1, versions, assignments, ()))
        self.replies: list[dict[str, Any]] = []

    def fold(self, *inputs: Any) -> list[dict[str, Any]]:
        """Fold them one by one; returns the records that came of it."""
        found = []
        for each in inputs:
            found += self.bill(self.sessions.batch(each))
        return found

    def clock(self, ms: int) -> list[dict[str, Any]]:
        return self.bill(self.sessions.due(ms))

    def bill(self, out: sessions.Out) -> list[dict[str, Any]]:
        self.replies += out.replies
        return self.billing.batch(*out.events) if out.events else []

    def charge_of(self, station: Any, start_ms: int, end_ms: int, **more: Any) -> list[dict[str, Any]]:
        """A session of 10 kWh with reservation 7."""
        found = self.fold(start_of(station, start_ms, **more))
        if isinstance(station, Station16):
            transaction_id = self.replies[-1]["transactionId"]
            return found + self.fold(station.stop(transaction_id, 11_000, end_ms))
        return found + self.fold(station.ended(1, 11_000, end_ms))

    @property
    def total(self) -> Decimal:
        return self.billing.net()

    def standing(self) -> list[dict[str, Any]]:
        """The records that no credit took back."""
        rows = self.billing.tables.cdrs.values()
        credited = {row["reference"] for row in rows if row["reference"]}
        return [row for row in rows if not row["reference"] and row["cdr_id"] not in credited]


class TestUsed:
    @pytest.mark.parametrize("version", VERSIONS)
    def test_the_session_s_record_begins_with_the_reserved_time(self, version: Version) -> None:
        world, station = Both(), station_of(version)
        world.fold(*Operator(version).reserve(0, HOUR))
        (cdr,) = world.charge_of(station, HALF, 2 * HOUR)
        # Half an hour at 6.00, the fee of 1.00, 5.00 of energy; 20 % on all of it.
        assert (cdr["total_cost_excl_vat"], cdr["total_cost_incl_vat"]) == (Decimal("9.00"), Decimal("10.80"))
        if version is not Version.V16:
            assert world.replies[-1]["totalCost"] == 10.8
        document = billing.ocpi(cdr)
        assert document["total_reservation_cost"]["before_taxes"] == Decimal("4.00")
        assert (document["start_date_time"], document["end_date_time"]) == (
            "2025-11-21T08:00:00Z",
            "2025-11-21T10:00:00Z",
        )
        first = document["charging_periods"][0]
        assert first["dimensions"] == [{"type": "RESERVATION_TIME", "volume": Decimal("0.5000")}]
        assert cdr["started_at"] == sessions.T0 + HALF
        bill = parse_json(cdr["bill"])
        assert bill["reservation"] == {"begin": "2025-11-21T08:00:00Z", "end": "2025-11-21T08:30:00Z"}

    def test_the_receipt_has_its_lines(self) -> None:
        world = Both()
        world.fold(*Operator(Version.V16).reserve(0, HOUR))
        (cdr,) = world.charge_of(Station16(), HALF, 2 * HOUR)
        receipt = receipt_of(parse_json(cdr["bill"]))
        assert [row.what for row in receipt.rows] == ["Reservation fee", "Reservation", "Energy"]
        assert "Reservation" in receipt_text(receipt)
        assert "Reservation fee" in receipt_html(receipt)

    def test_its_last_step_is_filled_up_on_its_own(self) -> None:
        world = Both("STEPS")
        world.fold(*Operator(Version.V16).reserve(0, HOUR))
        (cdr,) = world.charge_of(Station16(), 13 * MINUTE, HOUR)
        assert cdr["total_cost_incl_vat"] == Decimal("1.50") + 5  # 15 minutes for 13

    def test_one_that_is_replaced_counts_from_when_it_was_made_first(self) -> None:
        world, operator = Both(), Operator(Version.V201)
        world.fold(*operator.reserve(0, HOUR), *operator.reserve(HALF, 2 * HOUR))
        (cdr,) = world.charge_of(Station2x(), HOUR + HALF, 2 * HOUR)
        assert cdr["total_cost_excl_vat"] == 9 + 1 + 5

    def test_a_tariff_without_prices_for_it_prices_the_session_as_before(self) -> None:
        world = Both("PLAIN")
        world.fold(*Operator(Version.V16).reserve(0, HOUR))
        (cdr,) = world.charge_of(Station16(), HALF, 2 * HOUR)
        assert cdr["total_cost_incl_vat"] == ENERGY

    def test_an_answer_that_is_read_late_corrects_the_record_once(self) -> None:
        world, station = Both(), Station16()
        (first,) = world.charge_of(station, HALF, 2 * HOUR)
        assert first["total_cost_incl_vat"] == ENERGY
        command, answer = Operator(Version.V16).reserve(0, HOUR)
        credit, second = world.fold(command, answer)
        assert (credit["credit_reference_id"], second["number"]) == (first["cdr_id"], 2)
        assert second["total_cost_incl_vat"] == world.total == Decimal("10.80")
        assert world.fold(answer) == []

    def test_the_running_cost_includes_it(self) -> None:
        world, station = Both(), Station16()
        world.fold(*Operator(Version.V16).reserve(0, HOUR))
        world.fold(start_of(station, HALF))
        assert world.billing.session(world.sessions.session().session_id)["cost_excl"] == 4


class TestExpired:
    @pytest.mark.parametrize("version", VERSIONS)
    def test_nobody_came(self, version: Version) -> None:
        world = Both()
        assert world.fold(*Operator(version).reserve(0, HOUR)) == []
        if version is Version.V16:
            (cdr,) = world.clock(2 * HOUR)
        else:
            (cdr,) = world.fold(Station2x(version).reservation("Expired", HOUR + 300))
        # An hour at 12.00 and the fee of 5.00; no minimum price, for nobody charged.
        assert (cdr["total_cost_excl_vat"], cdr["total_cost_incl_vat"]) == (17, Decimal("20.40"))
        assert (cdr["started_at"], cdr["ended_at"]) == (sessions.T0, sessions.T0 + HOUR)
        assert (cdr["energy_wh"], cdr["energy_rung"], cdr["flags"]) == (0, "none", ["reservation"])
        document = billing.ocpi(cdr)
        assert "session_id" not in document
        assert (document["auth_method"], document["cdr_token"]["uid"]) == ("COMMAND", "TAG")
        assert document["charging_periods"][0]["dimensions"] == [{"type": "RESERVATION_TIME", "volume": 1}]
        assert (document["total_energy"], document["total_time"]) == (0, 0)
        assert document["total_reservation_cost"]["before_taxes"] == 17
        row = world.billing.session(cdr["session_id"])
        assert (row["status"], row["cdr_id"], row["cost_incl"]) == ("priced", cdr["cdr_id"], Decimal("20.40"))
        assert (row["started"], row["ended"], row["transaction_id"]) == (sessions.T0, sessions.T0 + HOUR, "")
        assert world.clock(9 * HOUR) == []

    def test_another_end_that_becomes_known_later_corrects_it(self) -> None:
        world = Both()
        world.fold(*Operator(Version.V201).reserve(0, HOUR))
        (first,) = world.clock(2 * HOUR)
        credit, second = world.fold(Station2x().reservation("Expired", HALF))
        assert (credit["credit_reference_id"], second["number"]) == (first["cdr_id"], 2)
        assert second["total_cost_excl_vat"] == 6 + 5
        assert world.total == Decimal("13.20")
        assert cdr_in_2_2_1(billing.ocpi(second), tax_known=True)["total_cost"]["excl_vat"] == 11

    def test_its_receipt(self) -> None:
        world = Both()
        world.fold(*Operator(Version.V16).reserve(0, HOUR))
        (cdr,) = world.clock(2 * HOUR)
        receipt = receipt_of(parse_json(cdr["bill"]))
        assert [row.what for row in receipt.rows] == ["Reservation fee", "Reservation"]

    @pytest.mark.parametrize("tariff_id", ["PLAIN", ""])
    def test_without_a_price_for_it_there_is_nothing_to_show(self, tariff_id: str) -> None:
        world = Both(tariff_id)
        world.fold(*Operator(Version.V16).reserve(0, HOUR))
        assert world.clock(2 * HOUR) == []
        assert (world.billing.tables.sessions, world.billing.tables.cdrs) == ({}, {})
        assert world.sessions.reservation().status == "expired"

    def test_a_tariff_that_is_missing_is_a_failure_that_shows(self) -> None:
        world = Both()
        world.billing.configuration = billing.configuration({"PLAIN/1": PLAIN})
        world.billing.restart()
        world.fold(*Operator(Version.V16).reserve(0, HOUR))
        assert world.clock(2 * HOUR) == []
        (row,) = world.billing.tables.sessions.values()
        assert (row["status"], row["reason"]) == ("failed", "version 1 of its tariff R does not exist")

    @pytest.mark.parametrize("restart", [False, True])
    @pytest.mark.parametrize("version", [Version.V16, Version.V201])
    def test_a_start_that_was_buffered_leads_to_one_credit(self, version: Version, restart: bool) -> None:
        world, station = Both(), station_of(version)
        world.fold(*Operator(version).reserve(0, HOUR))
        (expired,) = world.clock(2 * HOUR)
        if restart:
            world.billing.restart()
        credit, cdr = world.charge_of(station, HALF, 2 * HOUR, late=5 * HOUR)
        assert (credit["credit"], credit["credit_reference_id"]) == (True, expired["cdr_id"])
        assert credit["total_cost_incl_vat"] == Decimal("-20.40")
        assert cdr["total_cost_incl_vat"] == world.total == Decimal("10.80")
        row = world.billing.session(expired["session_id"])
        assert (row["status"], row["cdr_id"], row["cost_incl"]) == ("returned", "", None)
        assert row["reason"] == "it is used after all"
        world.billing.restart()
        assert world.billing.batch(*world.sessions.out.events) == []  # all of it again
        assert world.total == Decimal("10.80")


class TestTold:
    """Half an hour at 6.00 and the fee of 1.00 come before everything else; 20 % tax."""

    def test_a_display_of_1_6_begins_with_the_reserved_time(self) -> None:
        world = Displays(TARIFF, "california")
        session = billing.Session(head={**V16, "reserved_at": billing.T0 - HALF})
        (first,) = world.told(session.started())
        assert orjson.loads(first["payload"]["data"])["cost"] == 4.8
        (final,) = world.told(session.ended(10, 5000))
        assert orjson.loads(final["payload"]["data"])["cost"] == 7.8

    def test_so_does_cost_updated(self) -> None:
        world, session = Displays(TARIFF), billing.Session(head={"reserved_at": billing.T0 - HALF})
        assert costs(world.told(session.started())) == [4.8]
        assert costs(world.told(session.measured(5, 1000))) == [5.4]

    def test_nobody_stands_before_the_display_of_one_that_expired(self) -> None:
        world = Displays(TARIFF, "california")
        instants = {"reserved_at": billing.T0, "reservation_expires_at": billing.T0 + HOUR}
        session = billing.Session(head={**V16, "transaction_id": ""}, ended_ms=billing.T0 + HOUR)
        event = session.event(60, "reservation", state="expired", final=True, **instants)
        assert world.told(event) == []
        assert len(world.tables.cdrs) == 1


class TestNotBilled:
    @pytest.mark.parametrize("bills", [False, True])
    def test_one_that_is_cancelled_unless_it_is_set_so(self, bills: bool) -> None:
        world, operator = Both(bill_cancelled_reservations=bills), Operator(Version.V16)
        world.fold(*operator.reserve(0, HOUR))
        found = world.fold(*operator.cancel(HALF))
        # Then as if it were used: half an hour at 6.00 and the fee of 1.00.
        assert [cdr["total_cost_excl_vat"] for cdr in found] == ([4] if bills else [])

    def test_one_that_the_station_took_away(self) -> None:
        world = Both()
        world.fold(*Operator(Version.V201).reserve(0, HOUR), Station2x().reservation("Removed", HALF))
        assert world.clock(9 * HOUR) == []

    def test_one_whose_place_another_driver_got(self) -> None:
        world, operator = Both(), Operator(Version.V201)
        world.fold(*operator.reserve(0, HOUR), *operator.reserve(HALF, HOUR, tag="OTHER"))
        (cdr,) = world.clock(9 * HOUR)
        assert (cdr["id_token"], cdr["total_cost_excl_vat"]) == ("OTHER", 6 + 5)

    def test_one_that_is_not_ours(self) -> None:
        world = Both()
        assert world.fold(Station2x().reservation("Expired", 0)) == []
        assert world.billing.tables.sessions == {}


@pytest.mark.parametrize("seed", range(25))
def test_whatever_is_read_first_and_whoever_restarts_the_bill_is_the_same(seed: int) -> None:
    """What a topic brings stays in order. Everything is told to billing, batch by batch, with restarts in between."""
    chance, version = Random(seed), Random(seed).choice([Version.V16, Version.V201])
    operator, station = Operator(version), station_of(version)
    made = operator.reserve(0, HOUR)
    plan = chance.choice(("used", "used late", "expired", "cancelled", "renewed"))
    commands, answers, calls = [made[0]], [made[1]], list[Any]()
    if plan == "renewed":
        command, answer = operator.reserve(HALF, 2 * HOUR)
        commands.append(command)
        answers.append(answer)
    if plan == "cancelled":
        command, answer = operator.cancel(HALF)
        commands.append(command)
        answers.append(answer)
    begin = HOUR + HALF if plan == "renewed" else 45 * MINUTE
    expected = {"used": "12.60", "used late": "12.60", "expired": "20.40", "cancelled": "0", "renewed": "18.00"}[plan]
    if plan in ("used", "used late", "renewed"):
        late = 10 * HOUR if plan == "used late" else 100
        calls.append(start_of(station, begin, late=late))
    bills = set()
    for _ in range(5):
        world = Both()
        if chance.random() < 0.5:
            world.sessions.cache = StationCache()
        queues: list[list[Any]] = [list(commands), list(answers), list(calls)]
        clocked = plan != "used late" or chance.random() < 0.5
        while any(queues):
            queue = chance.choice([queue for queue in queues if queue])
            world.fold(queue.pop(0))
            if chance.random() < 0.3:
                world.billing.restart()
            if clocked and plan == "used late" and not commands and chance.random() < 0.5:
                world.clock(3 * HOUR)
        if calls:
            transaction_id = world.sessions.all_sessions()[-1].transaction_id
            end = begin + HOUR
            stop = (
                station.stop(int(transaction_id), 11_000, end, late=11 * HOUR)
                if isinstance(station, Station16)
                else station.ended(1, 11_000, end, late=11 * HOUR)
            )
            world.fold(stop)
        world.clock(20 * HOUR)
        assert world.total == Decimal(expected), (plan, world.total)
        again = billing.World(TARIFFS)
        again.batch(*world.sessions.out.events)  # the whole of it at once
        assert again.net() == world.total
        bills.add(tuple(sorted(row["bill"] for row in world.standing())))
    assert len(bills) == 1


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    tariff=st.sampled_from(["RESERVED", "RESERVED", "T", "NIGHT", "POWER"]),
    version=st.sampled_from([Version.V201, Version.V21]),
)
def test_what_the_driver_is_told_is_what_the_record_says_whenever_the_reservation_becomes_known(
    seed: int, tariff: str, version: Version
) -> None:
    chance = Random(seed)
    stations, made = both(tariff)
    calls = calls_of(chance, version)
    chance.choice(calls).payload["reservationId"] = 7
    inputs: list[Any] = list(calls)
    command, answer = Operator(version).reserve(-40 * MINUTE, 20 * MINUTE)
    inputs.insert(chance.randrange(len(calls)), command)
    inputs.insert(chance.randrange(len(calls) + 1), answer)
    replies: list[dict[str, Any]] = []
    for each in inputs:
        out = stations.batch(each)
        replies += out.replies
        made.batch(*out.events)
        if chance.random() < 0.2:
            made.restart()
    (session,) = stations.all_sessions()
    standing = made.tables.cdrs[made.session(session.session_id)["cdr_id"]]
    assert session.reserved_ms == sessions.T0 - 40 * MINUTE
    assert parse_json(standing["bill"])["reservation"]["begin"] == "2025-11-21T07:20:00Z"
    assert Decimal(str(replies[-1]["totalCost"])) == standing["total_incl"] == made.net()


def test_a_replay_of_the_events_gives_the_same_records_byte_for_byte() -> None:
    world, station = Both(), Station2x()
    world.fold(*Operator(Version.V201).reserve(0, HOUR))
    world.clock(2 * HOUR)
    world.charge_of(station, HALF, 2 * HOUR, late=5 * HOUR)
    assert len(world.billing.results) == 3
    replayed = Both()
    replayed.fold(*Operator(Version.V201).reserve(0, HOUR))
    replayed.clock(HOUR + GRACE)  # somewhat earlier than the first time
    replayed.charge_of(Station2x(), HALF, 2 * HOUR, late=5 * HOUR)
    assert [result.value for result in replayed.billing.results] == [result.value for result in world.billing.results]
