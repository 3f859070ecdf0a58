"""The tariff of a session, chosen once, and the cost that stations are told while it goes on."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest

from busbar.ocpp.versions import Version
from busbar.pricing.assignment import Assignment, Scope
from busbar.pricing.jsontext import serialize_json
from busbar.records import StationCall
from busbar.tariffs import Configuration, Site, StoredVersion
from services.sessions.pricing import MOST_WAITING
from tests.unit.pricing.builders import component, element, tariff_json
from tests.unit.services.sessions.world import HOUR, MINUTE, T0, Station2x, Station16, World


def stored(tariff_id: str, *elements: dict[str, Any], version: int = 1, valid_from_ms: int = 0) -> StoredVersion:
    content = serialize_json({**tariff_json(*elements), "id": tariff_id})
    return StoredVersion(tariff_id, version, content, valid_from_ms)


def energy(tariff_id: str, price: str, vat: str = "0", **more: Any) -> StoredVersion:
    return stored(tariff_id, element(component("ENERGY", price, vat)), **more)


EVERYWHERE = (Assignment("A", Scope.DEFAULT),)


def world(
    *versions: StoredVersion,
    assignments: tuple[Assignment, ...] = EVERYWHERE,
    sites: tuple[Site, ...] = (),
    cached: bool = False,
    tokens: tuple[str, ...] = ("TAG",),
) -> World:
    made = World(cached=cached)
    made.tariffs.accept(Configuration(1, versions or (energy("A", "0.50", "20"),), assignments, sites))
    for id_token in tokens:
        made.token(id_token)
    return made


def charging(station: Station2x, hours: int = 2, every: int = 30) -> list[StationCall]:
    """10 kW, with a register each half an hour."""
    steps = range(1, hours * 60 // every)
    return [
        station.started(0, state="Charging"),
        *(station.updated(n, n * every * 1000 // 6, n * every * MINUTE) for n in steps),
        station.ended(hours * 60 // every, hours * 10_000, hours * HOUR),
    ]


def costs(replies: list[dict[str, Any]]) -> list[float | None]:
    return [reply.get("totalCost") for reply in replies]


def tariffs_of(events: list[dict[str, Any]]) -> list[tuple[str, int, str]]:
    return [(event["tariff_id"], event["tariff_version"], event["time_zone"]) for event in events]


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("version", [Version.V201, Version.V21])
def test_the_running_and_the_final_cost_are_told_with_taxes(version: Version, cached: bool) -> None:
    tables = world(cached=cached)
    out = tables.each(charging(Station2x(version)))
    assert costs(out.replies) == [None, 3.0, 6.0, 9.0, 12.0]
    assert set(tariffs_of(out.events)) == {("A", 1, "UTC")}


def test_one_batch_tells_the_same_as_many() -> None:
    assert costs(world().batch(*charging(Station2x())).replies) == [None, 3.0, 6.0, 9.0, 12.0]


def test_without_any_tariff_nothing_is_told_and_nothing_kept() -> None:
    tables = World()
    tables.token("TAG")
    out = tables.each(charging(Station2x()))
    assert costs(out.replies) == [None] * 5
    assert set(tariffs_of(out.events)) == {("", 0, "")}
    session = tables.session()
    assert (session.price_chosen, session.price_memory) == (False, None)


def test_a_session_that_no_assignment_means_has_no_cost() -> None:
    tables = world(assignments=(Assignment("A", Scope.STATION, "CS2"),))
    out = tables.each(charging(Station2x()))
    assert costs(out.replies) == [None] * 5
    assert tables.session().price_chosen


def test_a_free_session_is_said_to_cost_nothing() -> None:
    out = world(energy("A", "0")).each(charging(Station2x()))
    assert costs(out.replies) == [None, 0.0, 0.0, 0.0, 0.0]


def test_the_final_cost_has_the_step_and_the_minimum() -> None:
    tariff = tariff_json(element(component("ENERGY", "1", step=7_000)), min_price={"before_taxes": Decimal(30)})
    content = serialize_json({**tariff, "id": "A"})
    out = world(StoredVersion("A", 1, content, 0)).each(charging(Station2x()))
    assert costs(out.replies) == [None, 5.0, 10.0, 15.0, 30.0]


def test_what_is_sent_again_is_answered_with_the_same_cost() -> None:
    tables = world()
    calls = charging(Station2x())
    tables.each(calls)
    again = tables.each([calls[0], calls[-1], calls[-1]])
    assert costs(again.replies) == [None, 12.0, 12.0]
    assert again.events == []


class TestChoice:
    def test_the_tariff_is_that_of_the_start_whatever_is_configured_later(self) -> None:
        tables = world(energy("A", "1"))
        station = Station2x()
        calls = charging(station)
        tables.each(calls[:2])
        tables.tariffs.accept(
            Configuration(2, (energy("A", "1"), energy("A", "9", version=2, valid_from_ms=T0 + MINUTE)), EVERYWHERE)
        )
        out = tables.each(calls[2:])
        assert costs(out.replies)[-1] == 20.0
        later = tables.each([station.started(0, HOUR, transaction_id="tx-2")])
        assert tariffs_of(later.events)[-1] == ("A", 2, "UTC")

    @pytest.mark.parametrize(
        ("scope", "subject"),
        [
            (Scope.TOKEN, "tag"),
            (Scope.TOKEN_GROUP, "fleet"),
            (Scope.CONNECTOR, "CS1/1/1"),
            (Scope.STATION, "CS1"),
            (Scope.SITE, "S1"),
        ],
    )
    def test_what_is_particular_goes_before_the_default(self, scope: Scope, subject: str) -> None:
        assignments = (*EVERYWHERE, Assignment("B", scope, subject))
        tables = world(energy("A", "1"), energy("B", "2"), assignments=assignments, sites=(Site("S1", "Asia/Tokyo"),))
        tables.token("TAG", group_id="fleet")
        tables.config["CS1"] = ("S1", {})
        out = tables.each(charging(Station2x()))
        assert set(tariffs_of(out.events)) == {("B", 1, "Asia/Tokyo")}
        assert costs(out.replies)[-1] == 40.0

    def test_of_1_6_too(self) -> None:
        tables = world(
            energy("A", "1"), energy("B", "2"), assignments=(*EVERYWHERE, Assignment("B", Scope.CONNECTOR, "CS1/2"))
        )
        station = Station16()
        out = tables.each([station.start(connector=2), Station16("CS2").start(connector=2)])
        assert tariffs_of(out.events) == [("B", 1, "UTC"), ("A", 1, "UTC")]
        assert all(session.price_memory is None for session in tables.all_sessions())

    def test_a_token_that_comes_later_still_decides(self) -> None:
        tables = world(
            energy("A", "1"), energy("B", "2"), assignments=(*EVERYWHERE, Assignment("B", Scope.TOKEN, "tag"))
        )
        station = Station2x()
        out = tables.each(
            [
                station.event("Started", 0, 0, 0, evse={"id": 1, "connectorId": 1}, trigger="CablePluggedIn"),
                station.updated(1, 0, MINUTE, state="EVConnected"),
                station.updated(
                    2, 0, HOUR, state="Charging", trigger="Authorized", idToken={"idToken": "TAG", "type": "ISO14443"}
                ),
                station.ended(3, 10_000, 2 * HOUR),
            ]
        )
        assert [event["tariff_id"] for event in out.events] == ["", "", "B", "B"]
        assert costs(out.replies) == [None, None, 0.0, 20.0]

    @pytest.mark.parametrize("cached", [False, True])
    def test_a_token_that_never_comes_is_not_waited_for_without_end(self, cached: bool) -> None:
        tables = world(energy("A", "1"), cached=cached)
        station = Station2x()
        calls = [station.event("Started", 0, 0, 0, evse={"id": 1, "connectorId": 1}, trigger="CablePluggedIn")]
        calls += [station.updated(n, n * 100, n * MINUTE) for n in range(1, 80)]
        out = tables.each(calls)
        chosen = [event["tariff_id"] for event in out.events]
        assert chosen == [""] * (MOST_WAITING - 1) + ["A"] * (81 - MOST_WAITING)
        assert costs(out.replies)[-1] == 7.9
        sizes = [len(raw) for raw in tables.sessions.values()]
        assert max(sizes) < 4000

    def test_nor_after_the_end(self) -> None:
        tables = world(energy("A", "1"))
        station = Station2x()
        started = station.event("Started", 0, 0, 0, evse={"id": 1, "connectorId": 1}, trigger="CablePluggedIn")
        out = tables.each([started, station.ended(1, 5_000, HOUR)])
        assert [event["tariff_id"] for event in out.events] == ["", "A"]
        assert costs(out.replies) == [None, 5.0]

    def test_a_tariff_that_is_assigned_while_a_session_goes_on_is_for_the_next(self) -> None:
        tables = world(assignments=())
        calls = charging(Station2x())
        tables.each(calls[:2])
        later = (Assignment("A", Scope.DEFAULT, valid_from_ms=T0 + HOUR),)
        tables.tariffs.accept(Configuration(2, (energy("A", "1"),), later))
        assert costs(tables.each(calls[2:]).replies) == [None] * 3
        assert tables.session().price_tariff_id == ""


class TestWhatIsNotCertain:
    def test_no_cost_is_told_once_events_came_out_of_order(self) -> None:
        tables = world()
        calls = charging(Station2x())
        out = tables.each([calls[0], calls[2], calls[1], calls[3], calls[4]])
        assert costs(out.replies) == [None, 6.0, None, None, None]
        assert set(tariffs_of(out.events)) == {("A", 1, "UTC")}

    def test_no_final_cost_while_events_are_missing(self) -> None:
        calls = charging(Station2x())
        out = world().each([calls[0], calls[1], calls[4]])
        assert costs(out.replies) == [None, 3.0, None]

    def test_no_cost_of_energy_that_was_only_estimated_from_power(self) -> None:
        station = Station2x()
        power = [{"value": 10_000, "measurand": "Power.Active.Import"}]
        out = world().each(
            [
                station.started(state="Charging", samples=power),
                station.updated(1, None, HOUR, samples=power),
                station.ended(2, None, 2 * HOUR, samples=power),
            ]
        )
        assert out.events[-1]["energy_rung"] == "power_integral"
        assert costs(out.replies) == [None, None, None]

    def test_a_tariff_that_cannot_be_read_any_more_is_no_reason_to_stop(self) -> None:
        tables = world()
        calls = charging(Station2x())
        tables.each(calls[:2])
        tables.tariffs.accept(Configuration(2, (StoredVersion("A", 1, "{}", 0),), EVERYWHERE))
        tables.tariffs._pricers.clear()
        assert costs(tables.each(calls[2:]).replies) == [None] * 3


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_order_and_the_batches_only_the_right_final_cost_is_told(seed: int) -> None:
    chance = random.Random(seed)
    calls = charging(Station2x(), every=10)
    for _ in range(chance.randrange(3)):
        one = chance.randrange(1, len(calls) - 1)
        calls.insert(one, calls.pop(chance.randrange(1, len(calls) - 1)))
    calls.insert(chance.randrange(1, len(calls)), calls[chance.randrange(len(calls))])
    tables = world(cached=chance.random() < 0.5)
    replies: list[dict[str, Any]] = []
    while calls:
        size = chance.randrange(1, 5)
        replies += tables.batch(*calls[:size]).replies
        calls = calls[size:]
    told = [cost for cost in costs(replies) if cost is not None]
    assert told == sorted(told)
    assert told[-1] <= 12.0
    final = costs(replies)[-1]
    assert final in (None, 12.0)


class TestLimits:
    def test_a_station_of_2_1_is_told_what_the_token_may_charge_for(self) -> None:
        tables = world()
        tables.token("TAG", max_cost="12.50", max_energy_wh=30_000, max_time_seconds=3600)
        calls = charging(Station2x(Version.V21))
        out = tables.each([*calls, calls[0]])
        limit = {"maxCost": 12.5, "maxEnergy": 30_000, "maxTime": 3600}
        assert [reply.get("transactionLimit") for reply in out.replies] == [limit, None, None, None, None, limit]

    def test_without_a_tariff_a_limit_of_cost_has_no_currency(self) -> None:
        tables = World()
        tables.token("TAG", max_cost="12.50", max_energy_wh=30_000)
        reply = tables.each([Station2x(Version.V21).started(0)]).reply
        assert reply["transactionLimit"] == {"maxEnergy": 30_000}

    def test_earlier_versions_and_tokens_that_may_not_charge_get_none(self) -> None:
        tables = world()
        tables.token("TAG", max_energy_wh=30_000)
        tables.token("BAD", "Blocked", max_energy_wh=30_000)
        out = tables.each([Station2x(Version.V201).started(0), Station2x(Version.V21, "CS2").started(0, tag="BAD")])
        assert all("transactionLimit" not in reply for reply in out.replies)


class TestDriverTariff:
    @pytest.mark.parametrize(("scope", "subject"), [(Scope.TOKEN, "tag"), (Scope.TOKEN_GROUP, "fleet")])
    def test_the_token_brings_its_tariff(self, scope: Scope, subject: str) -> None:
        tables = world(energy("A", "0.50", "20"), assignments=(Assignment("A", scope, subject),))
        tables.token("TAG", group_id="fleet")
        reply = tables.each([Station2x(Version.V21).authorize("TAG")]).reply
        assert reply["tariff"]["energy"] == {"prices": [{"priceKwh": 0.5}], "taxRates": [{"type": "VAT", "tax": 20}]}
        assert reply["tariff"]["tariffId"].startswith("A-")

    def test_a_tariff_of_ocpp_is_sent_under_an_id_of_its_content(self) -> None:
        content = '{"tariffId":"X","currency":"EUR","energy":{"prices":[{"priceKwh":0.30}]}}'
        tables = world(StoredVersion("X", 1, content, 0), assignments=(Assignment("X", Scope.TOKEN, "tag"),))
        reply = tables.each([Station2x(Version.V21).authorize("TAG")]).reply
        assert reply["tariff"].pop("tariffId").startswith("X-")
        assert reply["tariff"] == {"currency": "EUR", "energy": {"prices": [{"priceKwh": 0.3}]}}

    @pytest.mark.parametrize(
        ("version", "status", "assignment", "step"),
        [
            (Version.V201, "Accepted", Assignment("A", Scope.TOKEN, "tag"), 1),
            (Version.V21, "Blocked", Assignment("A", Scope.TOKEN, "tag"), 1),
            (Version.V21, "Accepted", Assignment("A", Scope.STATION, "CS1"), 1),
            (Version.V21, "Accepted", Assignment("A", Scope.TOKEN, "other"), 1),
            (Version.V21, "Accepted", Assignment("A", Scope.TOKEN, "tag"), 500),
        ],
    )
    def test_nothing_is_sent_that_is_not_the_tokens_own_or_would_price_otherwise(
        self, version: Version, status: str, assignment: Assignment, step: int
    ) -> None:
        tables = world(stored("A", element(component("ENERGY", "1", step=step))), assignments=(assignment,))
        tables.token("TAG", status)
        assert "tariff" not in tables.each([Station2x(version).authorize("TAG")]).reply
