"""Reservations: made, used, replaced and over, told of in whatever order it is read."""

from __future__ import annotations

import logging
from itertools import permutations
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busbar.avro import encode
from busbar.ocpp.versions import Version
from busbar.pricing.assignment import Assignment, Scope
from busbar.pricing.jsontext import serialize_json
from busbar.records import Record
from busbar.stream.interfaces import InvalidRecord
from busbar.stream.partitioner import Partitioner
from busbar.tariffs import Configuration, StoredVersion
from services.sessions.model import Policy
from services.sessions.processor import COMMAND_EVENTS_TOPIC, COMMANDS_TOPIC, SessionsProcessor
from services.sessions.reservations import Acceptance, Claim, Order, Reservations, Word, timeline
from tests.unit.pricing.builders import component, element, tariff_json
from tests.unit.services.sessions.world import (
    HOUR,
    MINUTE,
    T0,
    Operator,
    Station2x,
    Station16,
    World,
)

HALF = 30 * MINUTE
GRACE = 5 * MINUTE
VERSIONS = [Version.V16, Version.V201, Version.V21]


def world(*, cached: bool = False) -> World:
    """A station whose tariff prices reserved time at 6.00 an hour and energy at 0.50."""
    made = World(cached=cached)
    source = tariff_json(
        element(component("TIME", "6"), reservation="RESERVATION"),
        element(component("TIME", "12"), reservation="RESERVATION_EXPIRES"),
        element(component("ENERGY", "0.50")),
    )
    versions = (StoredVersion("A", 1, serialize_json({**source, "id": "A"}), 0),)
    made.tariffs.accept(Configuration(1, versions, (Assignment("A", Scope.DEFAULT),), ()))
    made.token("TAG")
    return made


def station_of(version: Version) -> Any:
    return Station16() if version is Version.V16 else Station2x(version)


def start_of(station: Any, ms: int, **more: Any) -> Any:
    """A session that uses reservation 7."""
    if isinstance(station, Station16):
        return station.start(1000, ms, reservationId=7, **more)
    return station.started(1000, ms, state="Charging", reservationId=7, **more)


def told(out: Any) -> list[tuple[str, str]]:
    return [(event["trigger"], event["state"]) for event in out.events if event["kind"] == "reservation"]


class TestMade:
    @pytest.mark.parametrize("cached", [False, True])
    @pytest.mark.parametrize("version", VERSIONS)
    def test_it_is_made_when_the_station_accepts_it(self, version: Version, cached: bool) -> None:
        tables = world(cached=cached)
        tables.config["CS1"] = ("S1", {})
        out = tables.each(Operator(version).reserve(0, HOUR, evse=2))
        event = out.event
        assert (event["kind"], event["trigger"], event["state"]) == ("reservation", "Accepted", "reserved")
        assert (event["final"], event["sequence"], event["reservation_id"]) == (False, 1, 7)
        assert (event["reserved_at"], event["reservation_expires_at"], event["ended_at"]) == (T0, T0 + HOUR, None)
        assert (event["id_token"], event["evse_id"], event["site_id"]) == ("TAG", 2, "S1")
        assert (event["tariff_id"], event["tariff_version"], event["time_zone"]) == ("A", 1, "UTC")
        assert event["ocpp_version"] == version.value
        row = tables.reservation()
        assert (row.key, row.status, row.expires_ms) == (event["session_id"], "reserved", T0 + HOUR)

    @pytest.mark.parametrize("status", ["Rejected", "Occupied", "Faulted"])
    def test_one_that_is_refused_is_none(self, status: str) -> None:
        tables = world()
        out = tables.each(Operator(Version.V16).reserve(0, HOUR, status=status))
        assert (out.events, tables.reserved) == ([], {})

    def test_an_answer_that_comes_late_is_one(self) -> None:
        tables = world()
        out = tables.each(Operator(Version.V16).reserve(0, HOUR, stage="late"))
        assert told(out) == [("Accepted", "reserved")]

    def test_the_answer_may_be_read_before_the_command(self) -> None:
        tables = world()
        command, answer = Operator(Version.V201).reserve(0, HOUR)
        assert told(tables.each([answer, command])) == [("Accepted", "reserved")]
        assert told(tables.each([answer, command, answer])) == []
        assert tables.reservation().made_ms == T0

    def test_its_tariff_is_that_of_when_it_was_made(self) -> None:
        tables = world()
        command, answer = Operator(Version.V201).reserve(0, HOUR)
        tables.batch(command, answer)
        tables.tariffs.accept(Configuration(2, (), (), ()))
        tables.each(Operator(Version.V201).reserve(1, 2 * HOUR))  # with the same id, so it replaces
        assert tables.reservation().tariff_id == "A"

    def test_the_token_s_group_decides_over_its_tariff(self) -> None:
        tables = world()
        source = serialize_json({**tariff_json(element(component("ENERGY", "1"))), "id": "FLEET"})
        versions = (StoredVersion("FLEET", 1, source, 0),)
        assignments = (Assignment("FLEET", Scope.TOKEN_GROUP, "fleet"),)
        tables.tariffs.accept(Configuration(2, versions, assignments, ()))
        tables.token("CARD", group_id="fleet")
        tables.each([*Operator(Version.V16).reserve(0, HOUR, tag="card")])
        assert tables.reservation().tariff_id == "FLEET"


class TestUsed:
    @pytest.mark.parametrize("cached", [False, True])
    @pytest.mark.parametrize("version", VERSIONS)
    def test_the_session_has_the_reserved_time(self, version: Version, cached: bool) -> None:
        tables, station = world(cached=cached), station_of(version)
        tables.each(Operator(version).reserve(0, HOUR))
        out = tables.batch(start_of(station, HALF))
        used, started = out.events
        assert (used["trigger"], used["state"], used["final"]) == ("Used", "used", True)
        assert (used["reserved_at"], used["ended_at"]) == (T0, T0 + HALF)
        assert (started["kind"], started["reserved_at"], started["reservation_expires_at"]) == ("started", T0, None)
        assert tables.reservation().session_id == started["session_id"]

    @pytest.mark.parametrize("version", [Version.V201, Version.V21])
    def test_the_station_is_told_a_cost_that_begins_with_it(self, version: Version) -> None:
        tables, station = world(), Station2x(version)
        tables.each(Operator(version).reserve(0, HOUR))
        out = tables.each(
            [start_of(station, HALF), station.updated(1, 5_000, HOUR), station.ended(2, 11_000, 2 * HOUR)]
        )
        # Half an hour at 6.00, then 4 and 10 kWh at 0.50.
        assert [reply.get("totalCost") for reply in out.replies] == [None, 3 + 2.0, 3 + 5.0]

    @pytest.mark.parametrize("version", [Version.V201, Version.V21])
    def test_it_may_be_named_by_a_later_event_with_the_token(self, version: Version) -> None:
        tables, station = world(), Station2x(version)
        tables.each(Operator(version).reserve(0, HOUR))
        token = {"idToken": "TAG", "type": "ISO14443"}
        plugged = station.event("Started", 0, HALF, 1000, evse={"id": 1, "connectorId": 1}, trigger="CablePluggedIn")
        authorized = station.updated(1, 1000, 31 * MINUTE, idToken=token, reservationId=7, trigger="Authorized")
        out = tables.each([plugged, authorized, station.ended(2, 11_000, 2 * HOUR)])
        assert out.replies[-1]["totalCost"] == 3 + 5.0
        assert [event["reserved_at"] for event in out.events if event["kind"] != "reservation"] == [None, T0, T0]

    def test_it_may_be_named_by_an_event_that_comes_before_the_start(self) -> None:
        tables, station = world(), Station2x()
        tables.each(Operator(Version.V201).reserve(0, HOUR))
        later = station.updated(1, 2000, 2 * HOUR, reservationId=7, offline=True, late=HOUR)
        out = tables.each([later, station.started(1000, HALF, offline=True, late=3 * HOUR)])
        assert out.events[-1]["reserved_at"] == T0
        assert (tables.reservation().status, tables.reservation().ended_ms) == ("used", T0 + HALF)

    @pytest.mark.parametrize("version", [Version.V201, Version.V21])
    def test_it_may_be_named_when_the_session_is_priced_already(self, version: Version) -> None:
        tables, station = world(), Station2x(version)
        tables.each(Operator(version).reserve(0, HOUR))
        named = station.updated(1, 3_000, HOUR, reservationId=7)
        out = tables.each([station.started(1000, HALF, state="Charging"), named, station.ended(2, 11_000, 2 * HOUR)])
        assert [reply.get("totalCost") for reply in out.replies] == [None, 3 + 1.0, 3 + 5.0]

    def test_one_that_is_taken_back_leaves_no_certain_cost(self) -> None:
        """Its cancellation is read after the session that seemed to use it."""
        tables, operator, station = world(), Operator(Version.V201), Station2x()
        tables.each([*operator.reserve(0, HOUR), start_of(station, HALF)])
        out = tables.each([*operator.cancel(20 * MINUTE), station.ended(1, 11_000, 2 * HOUR)])
        assert (out.events[-1]["reserved_at"], out.replies[-1].get("totalCost")) == (None, None)

    @pytest.mark.parametrize("cached", [False, True])
    def test_it_may_become_known_only_then(self, cached: bool) -> None:
        tables, station = world(cached=cached), Station2x()
        out = tables.each([start_of(station, HALF), station.updated(1, 5_000, HOUR)])
        assert out.replies[-1]["totalCost"] == 2.0  # no such reservation so far
        out = tables.each(Operator(Version.V201).reserve(0, HOUR))
        kinds = [(event["kind"], event["trigger"], event["reserved_at"]) for event in out.events]
        assert kinds == [("reservation", "Used", T0), ("updated", "reservation", T0)]
        out = tables.batch(station.ended(2, 11_000, 2 * HOUR))
        assert (out.event["reserved_at"], out.reply["totalCost"]) == (T0, 3 + 5.0)

    @pytest.mark.parametrize("cached", [False, True])
    def test_a_session_that_is_over_by_then_is_corrected(self, cached: bool) -> None:
        tables, station = world(cached=cached), Station16()
        transaction_id = tables.batch(start_of(station, HALF)).reply["transactionId"]
        tables.batch(station.stop(transaction_id, ms=HOUR))
        out = tables.each(Operator(Version.V16).reserve(0, HOUR))
        assert [(event["kind"], event["reserved_at"]) for event in out.events] == [
            ("reservation", T0),
            ("corrected", T0),
        ]

    def test_a_clock_that_is_a_little_behind_does_not_matter(self) -> None:
        tables, station = world(), Station16()
        tables.each(Operator(Version.V16).reserve(MINUTE, HOUR))
        out = tables.batch(start_of(station, 0, late=2 * MINUTE))
        assert told(out) == [("Used", "used")]
        assert tables.session().reserved_ms == T0 + MINUTE

    @pytest.mark.parametrize("stops", [False, True])
    def test_a_clock_that_is_proven_wrong_later_takes_the_session_out_of_it(self, stops: bool) -> None:
        """The station is two hours behind, which only its second frame shows."""
        tables, station = world(), Station16()
        tables.each(Operator(Version.V16).reserve(0, HOUR))
        behind = 2 * HOUR
        out = tables.batch(start_of(station, HALF, late=behind))
        assert told(out) == [("Expired", "expired"), ("Used", "used")]
        transaction_id = out.reply["transactionId"]
        meter = station.meter("1500", HALF + MINUTE, transaction_id=transaction_id, late=behind)
        stop = station.stop(transaction_id, 1500, HALF + MINUTE, late=behind)
        out = tables.batch(stop if stops else meter)
        assert told(out) == [("Expired", "expired")]
        assert (out.events[-1]["started_at"], out.events[-1]["reserved_at"]) == (T0 + HALF + behind, None)

    def test_an_id_that_means_nothing_is_left_alone(self) -> None:
        tables, station = world(), Station16()
        tables.each(Operator(Version.V16).reserve(0, HOUR, reservation_id=8))
        out = tables.batch(start_of(station, HALF))
        assert (out.event["reserved_at"], out.event["reservation_id"]) == (None, 7)
        assert tables.reservation().status == "reserved"

    def test_long_after_its_time_it_means_nothing_either(self) -> None:
        tables, station = world(), Station16()
        tables.each(Operator(Version.V16).reserve(0, HOUR))
        out = tables.batch(start_of(station, HOUR + GRACE + 1))
        assert told(out) == [("Expired", "expired")]
        assert tables.session().reserved_ms is None

    def test_the_same_again_changes_nothing(self) -> None:
        tables, station = world(), Station16()
        tables.each(Operator(Version.V16).reserve(0, HOUR))
        start = start_of(station, HALF)
        tables.batch(start)
        assert told(tables.batch(start)) == []

    def test_sessions_that_name_it_for_ever_are_forgotten(self) -> None:
        tables, station = world(), Station16()
        tables.each(Operator(Version.V16).reserve(0, HOUR))
        for number in range(50):
            transaction_id = tables.batch(start_of(station, (number + 3) * HOUR)).reply["transactionId"]
            tables.batch(station.stop(transaction_id, 1000, (number + 3) * HOUR + MINUTE))
        stored = orjson.loads(tables.stations["CS1"])["reservations"]
        ((_, _, _, claims, *_),) = stored[2]
        assert len(claims) == 16

    def test_only_one_session_uses_it(self) -> None:
        tables, station = world(), Station2x()
        tables.each(Operator(Version.V201).reserve(0, HOUR))
        tables.each([start_of(station, HALF), station.ended(1, 2000, HALF + MINUTE)])
        out = tables.batch(start_of(station, HALF + 2 * MINUTE, transaction_id="tx-2"))
        assert (out.event["transaction_id"], out.event["reserved_at"]) == ("tx-2", None)


class TestOver:
    @pytest.mark.parametrize("cached", [False, True])
    def test_where_nobody_says_anything_the_clock_decides(self, cached: bool) -> None:
        tables = world(cached=cached)
        tables.each(Operator(Version.V16).reserve(0, HOUR))
        assert tables.due(HOUR + GRACE - 1).events == []
        event = tables.due(HOUR + GRACE + 12_345).event
        assert (event["trigger"], event["state"], event["final"]) == ("Expired", "expired", True)
        assert (event["at"], event["ended_at"]) == (T0 + HOUR, T0 + HOUR)
        assert event["received_at"] == T0 + HOUR + GRACE
        assert tables.due(2 * HOUR).events == []

    def test_the_station_s_next_message_finds_the_same(self) -> None:
        by_clock, by_call = world(), world()
        for tables in (by_clock, by_call):
            tables.each(Operator(Version.V16).reserve(0, HOUR))
        by_clock.due(2 * HOUR)
        by_call.batch(Station16().authorize("TAG", 3 * HOUR))
        assert by_call.out.events == by_clock.out.events

    def test_the_clock_decides_as_far_as_the_expiry_only(self) -> None:
        """One that replaced it is read late: it expires at its own time."""
        tables, operator = world(), Operator(Version.V16)
        tables.each(operator.reserve(0, HOUR))
        tables.due(5 * HOUR)
        assert told(tables.each(operator.reserve(HALF, 2 * HOUR))) == [("Accepted", "reserved")]
        event = tables.due(6 * HOUR).event
        assert (event["state"], event["ended_at"]) == ("expired", T0 + 2 * HOUR)
        assert event["received_at"] == T0 + 2 * HOUR + GRACE

    def test_one_that_was_made_for_a_time_that_is_past_has_no_length(self) -> None:
        tables = world()
        tables.each(Operator(Version.V16).reserve(HOUR, 0))
        event = tables.due(2 * HOUR).event
        assert (event["state"], event["reserved_at"], event["ended_at"]) == ("expired", T0 + HOUR, T0 + HOUR)

    @pytest.mark.parametrize("word", ["Expired", "NoTransaction"])
    def test_the_station_says_so(self, word: str) -> None:
        tables = world()
        tables.each(Operator(Version.V21).reserve(0, HOUR))
        event = tables.batch(Station2x(Version.V21).reservation(word, HOUR + 700)).event
        assert (event["trigger"], event["state"], event["ended_at"]) == (word, "expired", T0 + HOUR)
        assert tables.due(2 * HOUR).events == []

    def test_it_is_over_when_the_station_says_so_if_that_is_earlier(self) -> None:
        tables = world()
        tables.each(Operator(Version.V21).reserve(0, HOUR))
        event = tables.batch(Station2x(Version.V21).reservation("NoTransaction", HALF)).event
        assert (event["state"], event["ended_at"]) == ("expired", T0 + HALF)

    def test_the_station_takes_it_away(self) -> None:
        tables = world()
        tables.each(Operator(Version.V201).reserve(0, HOUR))
        event = tables.batch(Station2x().reservation("Removed", HALF)).event
        assert (event["trigger"], event["state"], event["ended_at"]) == ("Removed", "removed", T0 + HALF)

    @pytest.mark.parametrize("version", VERSIONS)
    def test_it_is_cancelled(self, version: Version) -> None:
        tables, operator = world(), Operator(version)
        tables.each(operator.reserve(0, HOUR))
        event = tables.each(operator.cancel(HALF)).event
        assert (event["trigger"], event["state"], event["ended_at"]) == ("Cancelled", "cancelled", T0 + HALF)
        out = tables.batch(start_of(station_of(version), HALF + MINUTE))
        assert told(out) == []
        assert tables.session().reserved_ms is None

    def test_a_refused_cancellation_changes_nothing(self) -> None:
        tables, operator = world(), Operator(Version.V16)
        tables.each(operator.reserve(0, HOUR))
        assert tables.each(operator.cancel(HALF, status="Rejected")).events == []

    def test_a_start_that_was_buffered_takes_the_expiry_back(self) -> None:
        tables, station = world(), Station16()
        tables.each(Operator(Version.V16).reserve(0, HOUR))
        tables.due(2 * HOUR)
        out = tables.batch(start_of(station, HALF, late=10 * HOUR))
        assert told(out) == [("Used", "used")]
        assert [event["sequence"] for event in tables.out.events if event["kind"] == "reservation"] == [1, 2, 3]
        assert tables.session().reserved_ms == T0

    def test_what_a_station_says_of_reservations_that_are_not_ours_is_told_all_the_same(self) -> None:
        tables, station = world(), Station2x()
        event = tables.batch(station.reservation("Removed", 0, reservation_id=99)).event
        assert (event["session_id"], event["trigger"], event["reservation_id"]) == ("", "Removed", 99)
        assert tables.reserved == {}


class TestReplaced:
    def test_the_same_id_goes_on_with_another_expiry_and_place(self) -> None:
        tables, operator = world(), Operator(Version.V201)
        tables.each(operator.reserve(0, HOUR))
        event = tables.each(operator.reserve(HALF, 2 * HOUR, evse=2)).event
        assert (event["trigger"], event["state"], event["sequence"]) == ("Accepted", "reserved", 2)
        assert (event["reserved_at"], event["reservation_expires_at"], event["evse_id"]) == (T0, T0 + 2 * HOUR, 2)
        assert tables.due(HOUR + GRACE).events == []
        assert tables.due(2 * HOUR + GRACE).event["ended_at"] == T0 + 2 * HOUR

    def test_for_another_token_it_is_another_reservation(self) -> None:
        tables, operator = world(), Operator(Version.V201)
        tables.each(operator.reserve(0, HOUR))
        out = tables.each(operator.reserve(HALF, 2 * HOUR, tag="OTHER"))
        assert [(event["state"], event["id_token"], event["reserved_at"]) for event in out.events] == [
            ("replaced", "TAG", T0),
            ("reserved", "OTHER", T0 + HALF),
        ]

    def test_after_its_end_the_id_is_free_again(self) -> None:
        tables, operator, station = world(), Operator(Version.V201), Station2x()
        tables.each(operator.reserve(0, HOUR))
        tables.each([start_of(station, MINUTE), station.ended(1, 2000, 2 * MINUTE)])
        tables.each(operator.reserve(HALF, HOUR))
        tables.batch(start_of(station, HALF + MINUTE, transaction_id="tx-2"))
        assert [session.reserved_ms for session in tables.all_sessions()] == [T0, T0 + HALF]
        assert [row.status for row in tables.reservations_now()] == ["used", "used"]

    def test_an_earlier_acceptance_may_be_read_later(self) -> None:
        tables, operator = world(), Operator(Version.V201)
        first, second = operator.reserve(0, HOUR), operator.reserve(HALF, 2 * HOUR)
        tables.each(second)
        out = tables.each(first)
        assert sorted(told(out)) == [("Accepted", "reserved"), ("Replaced", "replaced")]
        made = [row for row in tables.reservations_now() if row.status == "reserved"]
        assert [(row.made_ms, row.expires_ms) for row in made] == [(T0, T0 + 2 * HOUR)]

    def test_many_of_one_id_and_of_many_ids_are_forgotten_in_time(self) -> None:
        tables, operator = world(), Operator(Version.V16)
        for number in range(40):
            tables.each(operator.reserve(2 * number * HOUR, (2 * number + 1) * HOUR))
            tables.each(operator.reserve(2 * number * HOUR, (2 * number + 1) * HOUR, reservation_id=100 + number))
            tables.due((2 * number + 2) * HOUR)
        stored = orjson.loads(tables.stations["CS1"])["reservations"]
        assert len(stored[2]) <= 17
        assert len(tables.stations["CS1"]) < 20_000
        assert {row.status for row in tables.reservations_now()} == {"expired"}
        assert len(tables.reserved) == 80


def outcome(tables: World) -> tuple[Any, Any]:
    """What in the end became of everything."""
    rows = [(row.status, row.made_ms, row.ended_ms, row.session_id) for row in tables.reservations_now()]
    found = [row for row in rows if row[0] != "replaced"]
    return found, [(each.session_id, each.reserved_ms) for each in tables.all_sessions()]


class TestOrder:
    @pytest.mark.parametrize("version", [Version.V16, Version.V201])
    def test_whatever_is_read_first_the_same_comes_of_it(self, version: Version) -> None:
        operator = Operator(version)
        facts = [*operator.reserve(0, HOUR), *operator.cancel(HALF), start_of(station_of(version), 20 * MINUTE)]
        expected = None
        for order in permutations(facts):
            tables = world()
            tables.each(order)
            tables.due(3 * HOUR)
            found = outcome(tables)
            expected = expected or found
            assert found == expected
        assert expected is not None
        assert [row[:3] for row in expected[0]] == [("used", T0, T0 + 20 * MINUTE)]

    @pytest.mark.parametrize("seed", range(30))
    def test_with_restarts_between_and_topics_that_come_late(self, seed: int) -> None:
        """What a topic brings stays in order; how the topics interleave does not matter."""
        chance, operator, station = Random(seed), Operator(Version.V201), Station2x()
        answers, commands, calls, at_ms = [], [], list[Any](), 0
        for number in range(4):
            command, answer = operator.reserve(at_ms, at_ms + HOUR, reservation_id=7)
            commands.append(command)
            answers.append(answer)
            event = chance.choice(("start", "Expired", "Removed", "cancel", "nothing"))
            at_ms += 20 * MINUTE
            if event == "start":
                name = f"tx-{number}"
                calls.append(start_of(station, at_ms, transaction_id=name))
                calls.append(station.ended(1, 2000, at_ms + MINUTE, transaction_id=name))
            elif event == "cancel":
                command, answer = operator.cancel(at_ms)
                commands.append(command)
                answers.append(answer)
            elif event != "nothing":
                calls.append(station.reservation(event, at_ms))
            at_ms += chance.choice((MINUTE, 2 * HOUR))
        expected = None
        for _ in range(6):
            tables = world(cached=chance.random() < 0.5)
            queues: list[list[Any]] = [list(commands), list(answers), list(calls)]
            while any(queues):
                queue = chance.choice([queue for queue in queues if queue])
                size = chance.randrange(1, 4)
                tables.batch(*queue[:size])
                del queue[:size]
                if tables.cache is not None and chance.random() < 0.3:
                    tables.cache.forget()  # another process goes on
            tables.due(at_ms + 3 * HOUR)
            found = outcome(tables)
            expected = expected or found
            assert found == expected

    def test_a_replay_tells_the_same(self) -> None:
        runs = []
        for _ in range(2):
            tables, operator, station = world(), Operator(Version.V201), Station2x()
            tables.each([*operator.reserve(0, HOUR), start_of(station, HALF), *operator.reserve(2 * HOUR, 3 * HOUR)])
            tables.due(4 * HOUR)
            runs.append([encode("csms.SessionEvent", event) for event in tables.out.events])
        assert runs[0] == runs[1]

    def test_what_is_stored_is_what_was_known(self) -> None:
        tables, operator = world(), Operator(Version.V201)
        tables.each([*operator.reserve(0, HOUR), start_of(Station2x(), HALF), operator.reserve(HOUR, 2 * HOUR)[0]])
        tables.batch(operator.cancel(HOUR)[1])
        stored = orjson.loads(tables.stations["CS1"])["reservations"]
        assert orjson.loads(orjson.dumps(Reservations.load(stored).dump())) == stored


class TestTimeline:
    @staticmethod
    def accepted(at_ms: int, expires_ms: int, command_id: str = "c1", tag: str = "TAG") -> Acceptance:
        return Acceptance(at_ms, "2.0.1", Order(command_id, 7, "2.0.1", 1, 0, tag, "", "", expires_ms))

    def test_a_removal_counts_less_than_the_session_that_follows(self) -> None:
        """Some stations remove a reservation when it is used."""
        (found,) = timeline([self.accepted(0, HOUR)], [Word(HALF, "Removed")], [Claim(HALF + 900, "s")], 0, GRACE)
        assert (found.status, found.ended_ms, found.session_id) == ("used", HALF + 900, "s")

    def test_so_does_an_expiry(self) -> None:
        (found,) = timeline([self.accepted(0, HOUR)], [Word(HOUR, "Expired")], [Claim(HOUR + MINUTE, "s")], 0, GRACE)
        assert (found.status, found.ended_ms, found.session_id) == ("used", HOUR + MINUTE, "s")

    def test_an_acceptance_after_the_expiry_is_a_new_one(self) -> None:
        found = timeline([self.accepted(0, HOUR), self.accepted(HOUR + 1, 2 * HOUR, "c2")], [], [], 0, GRACE)
        assert [(each.status, each.made_ms, each.ended_ms) for each in found] == [
            ("expired", 0, HOUR),
            ("reserved", HOUR + 1, None),
        ]

    def test_a_cancellation_after_the_grace_is_too_late(self) -> None:
        (found,) = timeline([self.accepted(0, HOUR)], [Word(HOUR + GRACE + 1, "Cancelled")], [], 0, GRACE)
        assert (found.status, found.ended_ms) == ("expired", HOUR)


def record(topic: str, value: bytes, station_id: str = "CS1") -> Record:
    key = station_id.encode()
    return Record(topic, Partitioner().partition(key, 4), 0, 0, key, value)


class TestReading:
    def test_commands_of_other_actions_are_skipped_undecoded(self) -> None:
        processor = SessionsProcessor(Policy(), partitions=4)
        assert processor.decode(record(COMMANDS_TOPIC, b"\xff not Avro at all")) is None
        assert processor.decode(record(COMMAND_EVENTS_TOPIC, b"")) is None
        assert Operator(Version.V16).command("Reset", {"type": "Soft", "note": "ReserveNow"}, 0) == [None, None]

    @pytest.mark.parametrize("stage", ["sent", "timeout", "rejected", "error", "dispatched"])
    def test_so_are_stages_that_are_no_answers(self, stage: str) -> None:
        assert Operator(Version.V16).reserve(0, HOUR, stage=stage)[1] is None

    @pytest.mark.parametrize("topic", [COMMANDS_TOPIC, COMMAND_EVENTS_TOPIC])
    def test_what_cannot_be_decoded_is_a_dead_letter(self, topic: str) -> None:
        processor = SessionsProcessor(Policy(), partitions=4)
        other = {"change_id": "ReserveNow", "station_id": "CS1", "session_id": "", "transaction_id": ""}
        change = {**other, "tariff_id": "", "tariff_version": 1, "requested_by": "", "requested_at": 0}
        for raw in (b"ReserveNow", encode("csms.TariffChange", change)):
            with pytest.raises(InvalidRecord, match="undecodable"):
                processor.decode(record(topic, raw))

    @pytest.mark.parametrize(
        "payload",
        [
            "",
            "null",
            "[]",
            "{",
            {"id": 7},
            {"id": "7", "expiryDateTime": "2026-01-01T00:00:00Z"},
            {"reservationId": 7, "expiryDate": "soon", "idTag": "SECRET"},
            '{"reservationId": 99999999999999999999, "expiryDate": "2026-01-01T00:00:00Z", "idTag": "SECRET"}',
        ],
    )
    def test_a_payload_that_makes_no_sense_is_skipped_and_logged_without_its_token(
        self, payload: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.DEBUG):
            command, answer = Operator(Version.V16).command("ReserveNow", payload, 0)
        assert command is None
        assert [each.levelname for each in caplog.records] == ["WARNING"]
        assert "SECRET" not in repr(caplog.records[0].__dict__)
        tables = world()
        assert tables.each([answer]).events == []

    @settings(max_examples=300, deadline=None)
    @given(place=st.integers(0, 400), octets=st.binary(max_size=8), answers=st.booleans(), cut=st.booleans())
    def test_damaged_bytes_are_read_or_dead_letters(self, place: int, octets: bytes, answers: bool, cut: bool) -> None:
        processor = SessionsProcessor(Policy(), partitions=4)
        damaged = Operator(Version.V201, raw=True).reserve(0, HOUR)[answers]
        raw = damaged.value or b""
        place = 5 + place % (len(raw) - 5)
        value = raw[:place] + octets + (b"" if cut else raw[place + len(octets) :])
        try:
            event: Any = processor.decode(record(damaged.topic, value))
        except InvalidRecord as error:
            assert error.reason == "undecodable"  # noqa: PT017 - most are fine
        else:
            if event is not None:
                world().batch(event)

    @pytest.mark.parametrize("version", [Version.V16, Version.V201])
    def test_whatever_is_in_it_nothing_breaks(self, version: Version) -> None:
        odd: dict[str, Any] = {
            "connectorId": "x",
            "evseId": {},
            "idTag": 5,
            "idToken": [],
            "groupIdToken": "g",
            "parentIdTag": "a\0b",
            "expiryDate": "2025-11-21T09:00:00Z",
            "expiryDateTime": "2025-11-21T09:00:00Z",
        }
        name = "reservationId" if version is Version.V16 else "id"
        tables = world()
        out = tables.each(Operator(version).command("ReserveNow", {**odd, name: -1}, 0))
        assert (out.event["id_token"], out.event["evse_id"]) == ("", 0)


def test_a_station_without_reservations_is_stored_as_before() -> None:
    tables, station = world(), Station16()
    tables.batch(station.start())
    assert "reservations" not in orjson.loads(tables.stations["CS1"])
