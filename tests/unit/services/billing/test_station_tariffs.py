"""The default tariffs of OCPP 2.1 stations: asked for, compared, installed, removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import orjson
import pytest

from busbar.avro import decode
from busbar.ocpp.validation import validate_request
from busbar.ocpp.versions import Version
from busbar.pricing.assignment import Assignment, Scope
from busbar.pricing.jsontext import serialize_json
from busbar.records import Result, StationCall
from busbar.tariffs import Configuration, StoredVersion, TariffBook
from services.billing.desk.core import apply
from services.billing.desk.model import Asked, CommandNews, DeskPolicy, State, StationTariff, TariffLook
from services.billing.desk.tariffs import RETRY_MS, held_tariffs
from tests.unit.pricing.builders import component, element, tariff_json

NOW_MS = 1_772_366_400_000
STATION = "CS-1"
PLAIN = tariff_json(element(component("ENERGY", "0.5")))
OTHER = tariff_json(element(component("ENERGY", "0.6")))
LOSSY = tariff_json(element(component("ENERGY", "0.5", step=1000)))


def versions(**tariffs: Sequence[dict[str, Any]]) -> tuple[StoredVersion, ...]:
    return tuple(
        StoredVersion(name, number + 1, serialize_json(source), 0)
        for name, sources in tariffs.items()
        for number, source in enumerate(sources)
    )


class Desk:
    """A desk and one station: what is produced is kept, and outcomes are made up by the test."""

    def __init__(self, *assignments: Assignment, **tariffs: Sequence[dict[str, Any]]) -> None:
        self.book = TariffBook()
        self.state = State(now_ms=NOW_MS, policy=DeskPolicy(), book=self.book)
        self.now_ms = NOW_MS
        self.configure(*assignments, **tariffs)

    def configure(self, *assignments: Assignment, **tariffs: Sequence[dict[str, Any]]) -> None:
        revision = self.book.revision + 1
        self.book.accept(Configuration(revision, versions(**tariffs), assignments))

    def boot(self) -> list[dict[str, Any]]:
        call = StationCall(STATION, "c1", "edge-0", 3, Version.V21, 1, "m1", self.now_ms, "BootNotification", {})
        assert read(apply(self.state, Asked(2, call))) == []
        return self.look()

    def look(self, after_ms: int = 1000) -> list[dict[str, Any]]:
        self.now_ms += after_ms
        return read(apply(self.state, TariffLook(2, STATION, self.now_ms)))

    def outcome(
        self,
        command: Mapping[str, Any],
        payload: Mapping[str, Any] | None = None,
        stage: str = "answered",
        code: str = "",
    ) -> list[dict[str, Any]]:
        news = CommandNews(
            2, STATION, command["command_id"], command["action"], stage, payload or {}, code, self.now_ms
        )
        return read(apply(self.state, news))

    def held(self, *ids: str, kind: str = "DefaultTariff") -> dict[str, Any]:
        if not ids:
            return {"status": "NoTariff"}
        return {"status": "Accepted", "tariffAssignments": [{"tariffId": each, "tariffKind": kind} for each in ids]}

    def row(self, evse_id: int = 0) -> StationTariff:
        return self.state.tariffs[STATION, evse_id]

    def installed(self) -> dict[str, Any]:
        """Boot a station that holds nothing; returns the command that installs its tariff."""
        (query,) = self.boot()
        (install,) = self.outcome(query, self.held())
        self.outcome(install, {"status": "Accepted"})
        return install


def read(results: list[Result]) -> list[dict[str, Any]]:
    found = []
    for result in results:
        value = decode(result.value)[1]
        value["payload"] = orjson.loads(value["payload"])
        validate_request(Version.V21, value["action"], value["payload"], strict=True)
        assert value["park"] is True
        found.append(value)
    return found


EVERYBODY = Assignment("T", Scope.DEFAULT)


class TestAfterABoot:
    def test_a_station_is_asked_and_what_is_missing_is_installed(self) -> None:
        desk = Desk(EVERYBODY, T=[PLAIN])
        (query,) = desk.boot()
        assert (query["action"], query["payload"]) == ("GetTariffs", {"evseId": 0})
        (install,) = desk.outcome(query, desk.held())
        assert (install["action"], install["payload"]["evseId"]) == ("SetDefaultTariff", 0)
        tariff = install["payload"]["tariff"]
        assert tariff["energy"] == {"prices": [{"priceKwh": 0.5}]}
        assert tariff["tariffId"].startswith("T-")
        assert len(tariff["tariffId"]) <= 60
        assert desk.row().status == "sent"
        desk.outcome(install, {"status": "Accepted"})
        assert (desk.row().status, desk.row().tariff_version) == ("Accepted", 1)
        assert desk.look() == []

    def test_what_is_not_ours_is_removed_and_what_is_there_stays(self) -> None:
        desk = Desk(EVERYBODY, T=[PLAIN])
        ours = desk.installed()["payload"]["tariff"]["tariffId"]
        (query,) = desk.boot()
        (clear,) = desk.outcome(query, desk.held(ours, "of-another-csms"))
        assert (clear["action"], clear["payload"]) == ("ClearTariffs", {"tariffIds": ["of-another-csms"]})
        assert desk.row().status == "Accepted"

    def test_the_tariffs_of_drivers_are_not_ours_to_remove(self) -> None:
        payload = {
            "tariffAssignments": [
                {"tariffId": "A", "tariffKind": "DefaultTariff", "evseIds": [1, 2, "x"]},
                {"tariffId": "C", "tariffKind": "DefaultTariff"},
                {"tariffId": "B", "tariffKind": "DriverTariff"},
                "nonsense",
            ]
        }
        assert held_tariffs(payload) == {"A": {1, 2}, "C": {0}}
        assert held_tariffs({}) == held_tariffs({"tariffAssignments": None}) == {}

    def test_a_station_without_a_tariff_is_not_bothered(self) -> None:
        desk = Desk()
        assert desk.boot() == []
        desk.configure(EVERYBODY, T=[PLAIN])
        assert [each["action"] for each in desk.look()] == ["GetTariffs"]

    @pytest.mark.parametrize("stage", ["error", "answered"])
    def test_a_station_that_knows_no_tariffs_is_left_alone_until_it_boots(self, stage: str) -> None:
        desk = Desk(EVERYBODY, T=[PLAIN])
        (query,) = desk.boot()
        assert desk.outcome(query, {"status": "Rejected"}, stage, "NotImplemented") == []
        assert desk.state.stations[STATION].state == "unsupported"
        desk.configure(EVERYBODY, T=[OTHER])
        assert desk.look() == []
        assert len(desk.boot()) == 1

    def test_a_station_that_does_not_answer_is_asked_again_later(self) -> None:
        desk = Desk(EVERYBODY, T=[PLAIN])
        (query,) = desk.boot()
        assert desk.outcome(query, stage="timeout") == []
        assert desk.look() == []
        (again,) = desk.look(RETRY_MS)
        assert again["action"] == "GetTariffs"
        assert again["command_id"] != query["command_id"]

    def test_an_outcome_that_comes_twice_does_nothing(self) -> None:
        desk = Desk(EVERYBODY, T=[PLAIN])
        (query,) = desk.boot()
        (install,) = desk.outcome(query, desk.held())
        assert desk.outcome(query, desk.held()) == []
        desk.outcome(install, {"status": "Accepted"})
        desk.outcome(install, {"status": "Rejected"})
        assert desk.row().status == "Accepted"


class TestChanges:
    def test_another_version_takes_the_place_of_the_one_before_under_another_id(self) -> None:
        desk = Desk(EVERYBODY, T=[PLAIN])
        before = desk.installed()["payload"]["tariff"]["tariffId"]
        desk.configure(EVERYBODY, T=[PLAIN, OTHER])
        clear, install = desk.look()
        assert clear["payload"] == {"tariffIds": [before]}
        assert install["payload"]["tariff"]["tariffId"] != before
        assert desk.row().tariff_version == 2

    def test_an_assignment_that_ends_removes_the_tariff_at_its_time(self) -> None:
        ending = Assignment("T", Scope.DEFAULT, valid_until_ms=NOW_MS + 3_600_000)
        desk = Desk(ending, T=[PLAIN])
        ours = desk.installed()["payload"]["tariff"]["tariffId"]
        assert desk.state.stations[STATION].look_at_ms == NOW_MS + 3_600_000
        assert desk.look() == []
        (clear,) = desk.look(3_600_000)
        assert clear["payload"] == {"tariffIds": [ours]}
        assert desk.state.removed_tariffs == {(STATION, 0)}
        assert desk.state.tariffs == {}

    def test_a_connectors_own_tariff_goes_to_its_evse(self) -> None:
        own = Assignment("O", Scope.CONNECTOR, f"{STATION}/2/1")
        desk = Desk(EVERYBODY, own, T=[PLAIN], O=[OTHER])
        (query,) = desk.boot()
        installs = desk.outcome(query, desk.held())
        assert {each["payload"]["evseId"]: each["payload"]["tariff"]["energy"] for each in installs} == {
            0: {"prices": [{"priceKwh": 0.5}]},
            2: {"prices": [{"priceKwh": 0.6}]},
        }

    def test_a_tariff_that_moves_to_all_evses_is_removed_where_it_was(self) -> None:
        own = Assignment("T", Scope.CONNECTOR, f"{STATION}/2/1")
        desk = Desk(own, T=[PLAIN])
        first = desk.installed()
        assert first["payload"]["evseId"] == 2
        ours = first["payload"]["tariff"]["tariffId"]
        desk.configure(EVERYBODY, T=[PLAIN])
        clear, install = desk.look()
        assert clear["payload"] == {"tariffIds": [ours]}
        assert (install["payload"]["evseId"], install["payload"]["tariff"]["tariffId"]) == (0, ours)
        assert desk.state.removed_tariffs == {(STATION, 2)}

    def test_what_was_installed_for_all_evses_may_be_reported_for_each(self) -> None:
        desk = Desk(EVERYBODY, T=[PLAIN])
        ours = desk.installed()["payload"]["tariff"]["tariffId"]
        (query,) = desk.boot()
        each = {"tariffId": ours, "tariffKind": "DefaultTariff", "evseIds": [1, 2]}
        assert desk.outcome(query, {"status": "Accepted", "tariffAssignments": [each]}) == []
        assert desk.row().status == "Accepted"

    def test_one_id_is_not_installed_at_two_places(self) -> None:
        own = Assignment("T", Scope.CONNECTOR, f"{STATION}/2/1")
        desk = Desk(EVERYBODY, own, T=[PLAIN])
        (query,) = desk.boot()
        assert len(desk.outcome(query, desk.held())) == 1


class TestRefusals:
    @pytest.mark.parametrize("status", ["Rejected", "TooManyElements", "ConditionNotSupported", "DuplicateTariffId"])
    def test_a_refusal_is_recorded_and_not_repeated_until_the_next_boot(self, status: str) -> None:
        desk = Desk(EVERYBODY, T=[PLAIN])
        (query,) = desk.boot()
        (install,) = desk.outcome(query, desk.held())
        desk.outcome(install, {"status": status, "statusInfo": {"reasonCode": "Why", "additionalInfo": "because"}})
        assert (desk.row().status, desk.row().reason) == (status, "because")
        desk.configure(EVERYBODY, T=[PLAIN])
        assert desk.look() == []
        (query,) = desk.boot()
        assert [each["action"] for each in desk.outcome(query, desk.held())] == ["SetDefaultTariff"]

    def test_an_installation_without_an_answer_is_looked_into(self) -> None:
        desk = Desk(EVERYBODY, T=[PLAIN])
        (query,) = desk.boot()
        (install,) = desk.outcome(query, desk.held())
        desk.outcome(install, stage="timeout")
        assert (desk.row().status, desk.row().reason) == ("failed", "timeout")
        assert [each["action"] for each in desk.look(RETRY_MS + 1)] == ["GetTariffs"]

    def test_what_would_be_priced_otherwise_is_not_told(self) -> None:
        desk = Desk(EVERYBODY, T=[LOSSY])
        (query,) = desk.boot()
        assert desk.outcome(query, desk.held()) == []
        assert desk.row().status == "lossy"
        assert "step size" in str(desk.row().reason)

    def test_a_lossy_version_takes_an_exact_one_away(self) -> None:
        desk = Desk(EVERYBODY, T=[PLAIN])
        ours = desk.installed()["payload"]["tariff"]["tariffId"]
        desk.configure(EVERYBODY, T=[PLAIN, LOSSY])
        (clear,) = desk.look()
        assert clear["payload"] == {"tariffIds": [ours]}
        assert desk.row().status == "lossy"


def test_a_tariff_of_ocpp_is_told_as_it_is() -> None:
    source = {"tariffId": "X", "currency": "EUR", "energy": {"prices": [{"priceKwh": Decimal("0.5")}]}}
    desk = Desk(EVERYBODY, T=[source])
    told = desk.installed()["payload"]["tariff"]
    assert told == {**orjson.loads(serialize_json(source)), "tariffId": told["tariffId"]}
    assert told["tariffId"].startswith("T-")


def test_an_installation_may_keep_its_tariffs_to_itself() -> None:
    desk = Desk(EVERYBODY, T=[PLAIN])
    desk.state.policy = DeskPolicy(push_tariffs=False)
    assert desk.boot() == []
    assert desk.state.stations == {}
