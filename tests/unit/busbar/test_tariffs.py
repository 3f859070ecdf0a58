"""The tariff book, fed with configurations: what it decides, prices and forgets."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from busbar.config import ConfigError, Env
from busbar.pricing.assignment import Assignment, Scope, SessionStart
from busbar.pricing.facts import ended, started
from busbar.pricing.jsontext import serialize_json
from busbar.tariffs import Configuration, Site, StoredVersion, TariffBook, time_zone_setting, unix_ms
from tests.unit.pricing.builders import component, element, ms, tariff_json

NOW = ms("2026-03-11 09:00")
SESSION = SessionStart(NOW, "CS-1", connector_id=1, site_id="S1", token_key="abc")


def stored(tariff_id: str, version: int = 1, price: str = "1", valid_from_ms: int = 0, **limits: Any) -> StoredVersion:
    return StoredVersion(
        tariff_id, version, serialize_json(tariff_json(element(component("FLAT", price), **limits))), valid_from_ms
    )


def book(
    *versions: StoredVersion, assignments: tuple[Assignment, ...] = (), sites: tuple[Site, ...] = ()
) -> TariffBook:
    found = TariffBook("Europe/Paris", max_pricers=2)
    found.accept(Configuration(1, versions, assignments, sites))
    return found


def test_without_assignments_nothing_is_decided_and_the_book_says_so() -> None:
    empty = book(stored("A"))
    assert not empty.assigns
    assert empty.decide(SESSION).version is None


def test_the_most_particular_assignment_wins_and_says_its_name() -> None:
    full = book(
        stored("A"),
        stored("B"),
        assignments=(
            Assignment("A", Scope.DEFAULT, assignment_id="a1"),
            Assignment("B", Scope.SITE, "S1", assignment_id="a2"),
            Assignment("A", Scope.TOKEN, "xyz", assignment_id="a3"),
        ),
    )
    assert full.assigns
    decision = full.decide(SESSION)
    assert decision.version is not None
    assert decision.assignment is not None
    assert (decision.version.tariff_id, decision.version.version, decision.assignment.assignment_id) == ("B", 1, "a2")


def test_a_version_that_becomes_valid_later_is_for_sessions_that_start_later() -> None:
    full = book(stored("A"), stored("A", 2, "2", NOW), assignments=(Assignment("A", Scope.DEFAULT),))
    versions = []
    for at_ms in (NOW - 1, NOW):
        version = full.decide(replace(SESSION, at_ms=at_ms)).version
        versions.append(version and version.version)
    assert versions == [1, 2]


def test_another_configuration_takes_the_place_of_the_first() -> None:
    changing = book(stored("A"), assignments=(Assignment("A", Scope.DEFAULT),))
    assert changing.decide(SESSION).version is not None
    changing.accept(Configuration(2, (stored("A"), stored("A", 2, "2", 1)), (Assignment("A", Scope.DEFAULT),)))
    version = changing.decide(SESSION).version
    assert version is not None
    assert version.version == 2
    changing.accept(Configuration(3, (stored("A"),), ()))
    assert (changing.decide(SESSION).version, changing.revision) == (None, 3)


def test_a_version_that_cannot_be_read_is_passed_over_for_the_one_before() -> None:
    broken = StoredVersion("A", 2, '{"id": "A"}', 1)
    full = book(stored("A"), broken, assignments=(Assignment("A", Scope.DEFAULT),))
    version = full.decide(SESSION).version
    assert version is not None
    assert version.version == 1


def test_a_pricer_prices_by_the_version_and_is_kept() -> None:
    full = book(stored("A", 1, "1"), stored("A", 2, "2"))
    facts = [started(NOW, 0), ended(NOW + 1000, 10)]
    first, second = full.pricer("A", 1, "UTC"), full.pricer("A", 2, "UTC")
    assert [pricer.price(facts).total.excl_tax for pricer in (first, second)] == [Decimal(1), Decimal(2)]
    assert full.pricer("A", 1, "UTC") is first
    third = full.pricer("A", 1, "Asia/Tokyo")
    assert third.time_zone == "Asia/Tokyo"
    assert full.pricer("A", 1, "UTC") is first, "it was used after the second"
    assert full.pricer("A", 2, "UTC") is not second, "no more than two are kept"


def test_a_version_that_nobody_read_and_an_unknown_zone_are_errors() -> None:
    full = book(stored("A"), StoredVersion("B", 1, "[]", 0))
    with pytest.raises(KeyError):
        full.pricer("A", 2, "UTC")
    for tariff_id, zone, reason in (("A", "Mars/Olympus", "zone"), ("B", "UTC", "object")):
        with pytest.raises(ValueError, match=reason):
            full.pricer(tariff_id, 1, zone)


def test_a_site_has_its_own_wall_clock_and_all_others_the_one_that_is_set() -> None:
    site = Site("S1", "Asia/Tokyo", city="Tokyo")
    full = book(sites=(site,))
    assert [full.time_zone(name) for name in ("S1", "S2", None)] == ["Asia/Tokyo", "Europe/Paris", "Europe/Paris"]
    assert full.site("S1") == site
    assert full.site(None) is None


def test_the_setting_of_the_wall_clock_is_checked() -> None:
    assert time_zone_setting(Env({})) == "UTC"
    assert time_zone_setting(Env({"BUSBAR_TIME_ZONE": "Europe/Berlin"})) == "Europe/Berlin"
    with pytest.raises(ConfigError, match="Mars"):
        time_zone_setting(Env({"BUSBAR_TIME_ZONE": "Mars/Olympus"}))


def test_an_instant_is_never_valid_before_itself() -> None:
    moment = datetime(2026, 3, 11, 9, tzinfo=UTC)
    assert unix_ms(moment) == NOW
    assert unix_ms(moment + timedelta(microseconds=1)) == NOW + 1
    assert json.loads(stored("A").content)["id"] == "T1"
