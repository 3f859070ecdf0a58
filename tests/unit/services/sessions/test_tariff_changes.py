"""Other tariffs for sessions that go on: at once where we price, with the station's word where it prices itself."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson
import pytest

from busbar.ocpp.versions import Version
from busbar.pricing.assignment import Assignment, Scope
from busbar.pricing.jsontext import serialize_json
from busbar.tariffs import Configuration, StoredVersion
from tests.unit.pricing.builders import component, element, tariff_json
from tests.unit.services.sessions.world import HOUR, MINUTE, T0, Station2x, Station16, World

HALF = 30 * MINUTE


def stored(tariff_id: str, price: str, version: int = 1, **more: Any) -> StoredVersion:
    source = tariff_json(element(component("ENERGY", price)), **more)
    return StoredVersion(tariff_id, version, serialize_json({**source, "id": tariff_id}), 0)


def world(*, cached: bool = False) -> World:
    made = World(cached=cached)
    versions = (
        stored("A", "0.50"),
        stored("B", "1.00"),
        stored("B", "2.00", version=2),
        stored("YEN", "50", currency="JPY"),
    )
    made.tariffs.accept(Configuration(1, versions, (Assignment("A", Scope.DEFAULT),), ()))
    made.token("TAG")
    return made


def costs(replies: list[dict[str, Any]]) -> list[float | None]:
    return [reply.get("totalCost") for reply in replies]


def told(event: dict[str, Any]) -> list[tuple[int, str, int]]:
    return [(each["at"] - T0, each["tariff_id"], each["tariff_version"]) for each in event["tariff_changes"]]


def own_tariff(tables: World, tariff_id: str, version: int = 1) -> str:
    """What a station calls it."""
    found = tables.tariffs.tariff_version(tariff_id, version)
    assert found is not None
    return tables.tariffs.station_tariff(found).tariff_id


class TestWhereWePrice:
    @pytest.mark.parametrize("cached", [False, True])
    @pytest.mark.parametrize("version", [Version.V201, Version.V21])
    def test_it_holds_from_when_it_was_asked_for(self, version: Version, cached: bool) -> None:
        tables, station = world(cached=cached), Station2x(version)
        tables.each([station.started(0, state="Charging"), station.updated(1, 5_000, HALF)])
        out = tables.batch(tables.change("B", 2 * HALF))
        assert (out.event["kind"], out.event["trigger"]) == ("updated", "tariff-change")
        assert told(out.event) == [(2 * HALF, "B", 1)]
        assert (out.event["tariff_id"], out.event["points"], out.commands) == ("A", [], [])
        out = tables.each([station.updated(2, 10_000, 2 * HALF), station.ended(3, 20_000, 4 * HALF)])
        assert costs(out.replies) == [5.0, 5.0 + 10.0]
        (row,) = tables.changes.values()
        assert (row.status, row.at_ms, row.command_id, row.reason) == ("applied", T0 + 2 * HALF, None, None)

    def test_of_1_6_too(self) -> None:
        tables, station = world(), Station16()
        transaction_id = tables.batch(station.start()).reply["transactionId"]
        tables.batch(tables.change("B", HALF))
        out = tables.batch(station.stop(transaction_id, ms=HOUR))
        assert told(out.event) == [(HALF, "B", 1)]

    def test_several_changes_and_back_again(self) -> None:
        tables, station = world(), Station2x()
        tables.batch(station.started(0, state="Charging"))
        tables.each([tables.change("B", HALF), tables.change("B", 2 * HALF, version=2), tables.change("A", 3 * HALF)])
        out = tables.batch(station.ended(1, 20_000, 4 * HALF))
        assert told(out.event) == [(HALF, "B", 1), (2 * HALF, "B", 2), (3 * HALF, "A", 1)]
        assert costs(out.replies) == [2.5 + 5 + 10 + 2.5]

    def test_it_does_not_reach_behind_what_has_happened(self) -> None:
        """The station's clock may be a little ahead of ours."""
        tables, station = world(), Station2x()
        tables.each([station.started(0, state="Charging"), station.updated(1, 5_000, HALF)])
        out = tables.batch(tables.change("B", HALF - 700))
        assert told(out.event) == [(HALF, "B", 1)]

    def test_what_was_before_it_and_is_heard_after_it_has_the_old_price(self) -> None:
        tables, station = world(), Station2x()
        tables.batch(station.started(0, state="Charging"))
        tables.batch(tables.change("B", 2 * HALF))
        out = tables.each([station.updated(1, 5_000, HALF, late=2 * HALF), station.ended(2, 20_000, 4 * HALF)])
        assert costs(out.replies) == [2.5, 5.0 + 10.0]
        assert told(out.events[-1]) == [(2 * HALF, "B", 1)]

    def test_what_comes_out_of_order_around_it_has_no_certain_cost(self) -> None:
        tables, station = world(), Station2x()
        tables.batch(station.started(0, state="Charging"))
        tables.batch(tables.change("B", 2 * HALF))
        late = station.updated(1, 5_000, HALF, late=3 * HALF)
        out = tables.each([station.updated(2, 15_000, 3 * HALF), late, station.ended(3, 20_000, 4 * HALF)])
        assert costs(out.replies) == [10.0, None, None]

    def test_the_same_again_changes_nothing(self) -> None:
        tables, station = world(), Station2x()
        tables.batch(station.started(0, state="Charging"))
        request = tables.change("B", HALF)
        tables.each([request])
        out = tables.each([request, tables.change("B", HOUR)])
        assert out.events == []
        assert {(row.status, row.at_ms) for row in tables.changes.values()} == {("applied", T0 + HALF)}
        assert tables.batch(station.ended(1, 20_000, 4 * HALF)).event["sequence"] == 3


class TestWhereTheStationPrices:
    @staticmethod
    def begun(tables: World, station: Station2x) -> None:
        tables.batch(station.started(0, state="Charging", info={"tariffId": own_tariff(tables, "A")}))

    def test_it_is_told_and_the_change_holds_from_when_it_says_so(self) -> None:
        tables, station = world(), Station2x(Version.V21)
        self.begun(tables, station)
        request = tables.change("B", HALF)
        out = tables.batch(request)
        (command,) = out.commands
        payload = orjson.loads(command["payload"])
        assert (command["action"], payload["transactionId"]) == ("ChangeTransactionTariff", "tx-1")
        assert payload["tariff"]["tariffId"] == own_tariff(tables, "B")
        assert payload["tariff"]["energy"]["prices"][0]["priceKwh"] == 1
        assert out.events == []
        row = tables.changes[request.change_id]
        assert (row.status, row.command_id, row.at_ms) == ("asked", command["command_id"], None)
        # Until it has said so, what it shows is the old tariff.
        out = tables.batch(station.updated(1, 10_000, 2 * HALF))
        assert (costs(out.replies), told(out.event)) == ([5.0], [])
        out = tables.batch(
            station.updated(
                2, 12_500, 2 * HALF + HALF // 2, trigger="TariffChanged", info={"tariffId": own_tariff(tables, "B")}
            )
        )
        assert told(out.event) == [(2 * HALF + HALF // 2, "B", 1)]
        row = tables.changes[request.change_id]
        assert (row.status, row.at_ms) == ("applied", T0 + 2 * HALF + HALF // 2)
        out = tables.batch(station.ended(3, 20_000, 4 * HALF))
        assert costs(out.replies) == [6.25 + 7.5]

    def test_a_station_that_goes_on_as_before_is_billed_as_before(self) -> None:
        tables, station = world(), Station2x(Version.V21)
        self.begun(tables, station)
        tables.batch(tables.change("B", HALF))
        out = tables.batch(station.ended(1, 20_000, 4 * HALF, info={"tariffId": own_tariff(tables, "A")}))
        assert (costs(out.replies), told(out.event)) == ([10.0], [])

    def test_the_later_of_two_requests_makes_the_earlier_one_void(self) -> None:
        tables, station = world(), Station2x(Version.V21)
        self.begun(tables, station)
        first, second = tables.change("B", HALF), tables.change("B", HALF + 1, version=2)
        commands = tables.each([first, second]).commands
        assert len({command["command_id"] for command in commands}) == 2
        out = tables.batch(station.updated(1, None, HOUR, info={"tariffId": own_tariff(tables, "B", 2)}))
        assert told(out.event) == [(HOUR, "B", 2)]
        out = tables.batch(station.updated(2, None, HOUR + 1, info={"tariffId": own_tariff(tables, "B", 1)}))
        assert told(out.event) == [(HOUR, "B", 2)]
        assert [tables.changes[each.change_id].status for each in (first, second)] == ["asked", "applied"]

    def test_an_event_from_before_confirms_nothing(self) -> None:
        tables, station = world(), Station2x(Version.V21)
        self.begun(tables, station)
        names = {"info": {"tariffId": own_tariff(tables, "B")}}
        tables.each([tables.change("B", HALF), station.updated(2, None, HOUR, trigger="TariffChanged", **names)])
        tables.batch(tables.change("A", 2 * HOUR))
        late = station.updated(1, None, HALF, late=2 * HOUR, info={"tariffId": own_tariff(tables, "A")})
        assert told(tables.batch(late).event) == [(HOUR, "B", 1)]

    def test_the_same_request_is_asked_once(self) -> None:
        tables, station = world(), Station2x(Version.V21)
        self.begun(tables, station)
        request = tables.change("B", HALF)
        assert len(tables.each([request, request]).commands) == 1
        assert tables.changes[request.change_id].status == "asked"

    def test_a_tariff_that_the_station_has_no_words_for_is_refused(self) -> None:
        tables, station = world(), Station2x(Version.V21)
        source = tariff_json(element(component("ENERGY", "1", step=5_000)))
        version = StoredVersion("STEP", 1, serialize_json({**source, "id": "STEP"}), 0)
        tables.tariffs.accept(Configuration(2, (stored("A", "0.50"), version), (Assignment("A", Scope.DEFAULT),), ()))
        self.begun(tables, station)
        out = tables.batch(tables.change("STEP", HALF))
        (row,) = tables.changes.values()
        assert (row.status, out.commands, out.events) == ("refused", [], [])
        assert "no words" in (row.reason or "")
        assert "step" in (row.reason or "")


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("tariff_id", "version", "reason"),
        [("YEN", 1, "currency"), ("B", 7, "does not exist"), ("NONE", 1, "does not exist")],
    )
    def test_tariffs(self, tariff_id: str, version: int, reason: str) -> None:
        tables, station = world(), Station2x()
        tables.batch(station.started(0, state="Charging"))
        out = tables.batch(tables.change(tariff_id, HALF, version=version))
        (row,) = tables.changes.values()
        assert (row.status, out.events, out.commands) == ("refused", [], [])
        assert reason in (row.reason or "")
        assert costs(tables.batch(station.ended(1, 20_000, HOUR)).replies) == [10.0]

    def test_sessions(self) -> None:
        tables, station = world(), Station2x()
        tables.batch(station.started(0, state="Charging"))
        late = tables.change("B", HOUR)
        tables.batch(station.ended(1, 20_000, HOUR))
        tables.batch(late)
        assert [row.reason for row in tables.changes.values()] == ["the session is over"]
        stranger = tables.change("B", HOUR, change_id="other")
        stranger.session_id = "5f2b8c1e-6f0c-8a3e-9d37-2b0f4a6f1c55"
        assert tables.batch(stranger).events == []
        assert "no such session" in (tables.changes["other"].reason or "")

    def test_a_session_without_a_tariff_gets_none(self) -> None:
        tables, station = world(), Station2x()
        tables.tariffs.accept(Configuration(2, (stored("B", "1.00"),), (), ()))
        tables.batch(station.started(0, state="Charging"))
        out = tables.batch(tables.change("B", HALF))
        (row,) = tables.changes.values()
        assert (row.reason, out.events) == ("no tariff is assigned to the session", [])


def test_an_update_costs_the_same_after_a_change() -> None:
    """Nothing of what came before it is looked at again."""
    tables, station = world(), Station2x()
    tables.batch(station.started(0, state="Charging"))
    tables.batch(tables.change("B", HALF))
    tables.each(station.updated(n, n * 100, HALF + n * MINUTE) for n in range(1, 20))
    short = len(orjson.dumps(tables.session().price_memory))
    tables.each(station.updated(n, n * 100, HALF + n * MINUTE) for n in range(20, 200))
    assert len(orjson.dumps(tables.session().price_memory)) < short + 20
    assert Decimal(str(tables.batch(station.ended(200, 40_000, 6 * HOUR)).reply["totalCost"])) > 0
