"""Versions of tariffs, and which of them a session has."""

from __future__ import annotations

import random
from typing import Any

import pytest

from busbar.pricing.assignment import (
    Assignment,
    Scope,
    SessionStart,
    TariffHistory,
    TariffInUse,
    connector_subject,
    decide,
)
from busbar.pricing.jsontext import serialize_json
from busbar.pricing.problems import TariffError
from tests.unit.pricing.builders import component, element, ms, tariff_json

NOW = ms("2026-03-11 09:00")


def content(amount: str = "1", **fields: Any) -> str:
    return serialize_json(tariff_json(element(component("FLAT", amount)), **fields))


def history(tariff_id: str = "A", *versions: tuple[str, int]) -> TariffHistory:
    found = TariffHistory(tariff_id)
    for amount, valid_from_ms in versions or (("1", 0),):
        found = found.add(content(amount), valid_from_ms)
    return found


SESSION = SessionStart(
    NOW,
    "CS1",
    connector_id=2,
    evse_id=1,
    site_id="S1",
    token_key="abc",
    group_id="fleet",
)
ASSIGNMENTS = {
    Scope.TOKEN: "abc",
    Scope.TOKEN_GROUP: "fleet",
    Scope.CONNECTOR: "CS1/1/2",
    Scope.STATION: "CS1",
    Scope.SITE: "S1",
    Scope.DEFAULT: "",
}


class TestPrecedence:
    def test_the_most_particular_goes_first(self) -> None:
        tariffs = {scope.name: history(scope.name) for scope in Scope}
        left = [Assignment(scope.name, scope, subject) for scope, subject in ASSIGNMENTS.items()]
        for expected in Scope:
            random.Random(1).shuffle(left)
            decision = decide(SESSION, left, tariffs)
            assert decision.assignment is not None
            assert decision.assignment.scope is expected
            left = [assignment for assignment in left if assignment.scope is not expected]
        assert decide(SESSION, left, tariffs).version is None

    def test_what_is_another_s_does_not_count(self) -> None:
        others = [Assignment("A", scope, f"not {subject}") for scope, subject in ASSIGNMENTS.items() if subject]
        assert decide(SESSION, others, {"A": history()}).version is None

    def test_what_is_not_known_matches_nothing(self) -> None:
        unknown = SessionStart(NOW, "CS1")
        named = [Assignment("A", scope, subject) for scope, subject in ASSIGNMENTS.items() if scope < Scope.STATION]
        assert decide(unknown, named, {"A": history()}).version is None

    def test_a_connector_of_1_6_has_no_evse(self) -> None:
        assert connector_subject("CS1", 2) == "CS1/2"
        session = SessionStart(NOW, "CS1", connector_id=2)
        assert decide(session, [Assignment("A", Scope.CONNECTOR, "CS1/2")], {"A": history()}).version is not None

    def test_priority_and_then_the_later_beginning_decide_within_a_scope(self) -> None:
        tariffs = {name: history(name) for name in "ABC"}
        early, late = Assignment("A", Scope.STATION, "CS1", 1), Assignment("B", Scope.STATION, "CS1", 2)
        first = Assignment("C", Scope.STATION, "CS1", 0, priority=1)

        def chosen(*assignments: Assignment) -> str:
            version = decide(SESSION, assignments, tariffs).version
            assert version is not None
            return version.tariff_id

        assert chosen(early, late) == chosen(late, early) == "B"
        assert chosen(early, late, first) == "C"

    def test_a_default_names_nobody_and_others_somebody(self) -> None:
        with pytest.raises(ValueError, match="DEFAULT"):
            Assignment("A", Scope.DEFAULT, "CS1")
        with pytest.raises(ValueError, match="STATION"):
            Assignment("A", Scope.STATION)


class TestPassingOver:
    def test_what_cannot_be_used_is_passed_over_with_the_reason(self) -> None:
        tariffs = {"later": history("later", ("1", NOW + 1)), "good": history("good")}
        assignments = [
            Assignment("good", Scope.TOKEN, "abc", valid_from_ms=NOW + 1),
            Assignment("good", Scope.TOKEN_GROUP, "fleet", valid_until_ms=NOW),
            Assignment("gone", Scope.CONNECTOR, "CS1/1/2"),
            Assignment("later", Scope.STATION, "CS1"),
            Assignment("good", Scope.SITE, "S1", valid_from_ms=NOW, valid_until_ms=NOW + 1),
        ]
        decision = decide(SESSION, assignments, tariffs)
        assert decision.assignment == assignments[-1]
        assert [reason for _, reason in decision.passed_over] == [
            "the assignment is not valid yet",
            "the assignment is no longer valid",
            "there is no such tariff",
            "no version of the tariff is valid",
        ]

    def test_an_old_tariff_gives_way_to_the_one_that_follows(self) -> None:
        change = "2026-07-01T00:00:00Z"
        tariffs = {
            "old": TariffHistory("old").add(content(end_date_time=change), 0),
            "new": TariffHistory("new").add(content(start_date_time=change), 0),
        }
        both = [Assignment("old", Scope.STATION, "CS1"), Assignment("new", Scope.STATION, "CS1")]

        def chosen(at: str) -> str:
            version = decide(SessionStart(ms(at), "CS1"), both, tariffs).version
            assert version is not None
            return version.tariff_id

        assert chosen("2026-06-30 23:59") == "old"
        assert chosen("2026-07-01 00:00") == "new"

    def test_a_tariff_for_other_sessions_is_passed_over(self) -> None:
        tariffs = {"A": TariffHistory("A").add(content(type="AD_HOC_PAYMENT"), 0), "B": history("B")}
        both = [Assignment("A", Scope.STATION, "CS1"), Assignment("B", Scope.DEFAULT)]

        def chosen(profile: str | None) -> str:
            version = decide(SessionStart(NOW, "CS1", profile=profile), both, tariffs).version
            assert version is not None
            return version.tariff_id

        assert [chosen(profile) for profile in ("AD_HOC_PAYMENT", "REGULAR", None)] == ["A", "B", "A"]


class TestVersions:
    def test_the_one_that_became_valid_last_is_in_force(self) -> None:
        tariff = history("A", ("1", 0), ("2", 1000), ("3", 500))

        def price_at(at_ms: int) -> int | None:
            version = tariff.at(at_ms)
            return None if version is None else version.version

        assert [price_at(at_ms) for at_ms in (-1, 0, 499, 500, 999, 1000)] == [None, 1, 1, 3, 3, 2]

    def test_the_same_content_again_is_no_new_version(self) -> None:
        tariff = history()
        assert tariff.add(content("1").replace(",", ", "), 0) is tariff
        assert len(tariff.add(content("1"), 5).versions) == 2

    def test_a_used_version_stays_as_it_is(self) -> None:
        tariff = history().use(1)
        with pytest.raises(TariffInUse, match="has been used"):
            tariff.change(1, content("9"))
        with pytest.raises(TariffInUse, match="has been used"):
            tariff.remove(1)
        assert tariff[1].content == content("1")

    def test_an_unused_version_may_be_changed_and_removed(self) -> None:
        tariff = history().change(1, content("9"))
        assert tariff[1].tariff.components[0].price == 9
        assert tariff.remove(1).versions == ()

    def test_a_number_is_never_given_twice(self) -> None:
        tariff = history().add(content("2"), 5).remove(2).add(content("3"), 5)
        assert [version.version for version in tariff.versions] == [1, 3]
        with pytest.raises(KeyError, match="no version 2"):
            tariff.use(2)

    def test_a_content_that_cannot_be_priced_is_refused(self) -> None:
        with pytest.raises(TariffError):
            history().add("{}", 0)
        with pytest.raises(TariffError):
            history().change(1, "{")

    def test_both_forms_of_tariffs_are_read(self) -> None:
        text = serialize_json({"tariffId": "T", "currency": "EUR", "fixedFee": {"prices": [{"priceFixed": 3}]}})
        assert TariffHistory("A").add(text, 0)[1].tariff.format == "OCPP 2.1"
