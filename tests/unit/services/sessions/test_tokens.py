"""Id tokens: who may charge where and when, in the words of each version."""

from __future__ import annotations

from typing import Any

import pytest

from busbar.ocpp.versions import Version
from services.sessions.tokens import TokenPolicy, token_key
from tests.unit.services.sessions.world import HOUR, MINUTE, T0, Station2x, Station16, World, iso


def status_16(world: World, ms: int = 0, tag: str = "TAG", station_id: str = "CS1") -> str:
    status: str = world.batch(Station16(station_id).authorize(tag, ms)).reply["idTagInfo"]["status"]
    return status


def status_2x(world: World, ms: int = 0, tag: str = "TAG", kind: str = "ISO14443", station_id: str = "CS1") -> str:
    reply = world.batch(Station2x(station_id=station_id).authorize(tag, kind, ms)).reply
    status: str = reply["idTokenInfo"]["status"]
    return status


def both(world: World, ms: int = 0, **more: Any) -> tuple[str, str]:
    return status_16(world, ms, **more), status_2x(world, ms, **more)


def test_an_unknown_token_is_invalid_in_1_6_and_unknown_in_2x() -> None:
    assert both(World()) == ("Invalid", "Unknown")


def test_unknown_tokens_are_accepted_where_the_setting_says_so() -> None:
    world = World(tokens=TokenPolicy(accept_unknown=True))
    assert both(world) == ("Accepted", "Accepted")
    assert both(world, tag="") == ("Invalid", "Invalid")


@pytest.mark.parametrize(
    ("status", "in_16", "in_2x"),
    [
        ("Accepted", "Accepted", "Accepted"),
        ("Blocked", "Blocked", "Blocked"),
        ("Expired", "Expired", "Expired"),
        ("Invalid", "Invalid", "Invalid"),
        ("NoCredit", "Blocked", "NoCredit"),
        ("NotAllowedTypeEVSE", "Invalid", "NotAllowedTypeEVSE"),
        ("Unknown", "Invalid", "Unknown"),
        ("SomethingElse", "Invalid", "Invalid"),
    ],
)
def test_the_status_of_a_token_is_told_in_the_words_of_the_version(status: str, in_16: str, in_2x: str) -> None:
    """W-M11: Authorize looks at more than whether the token exists."""
    world = World()
    world.token("TAG", status)
    assert both(world) == (in_16, in_2x)


def test_a_token_expires_at_its_instant() -> None:
    world = World()
    world.token("TAG", expires_at=T0 + HOUR)
    assert both(world, HOUR - 1) == ("Accepted", "Accepted")
    assert both(world, HOUR) == ("Expired", "Expired")


def test_a_token_is_not_yet_valid_before_its_instant() -> None:
    world = World()
    world.token("TAG", valid_from=T0 + HOUR)
    assert both(world, HOUR - 1) == ("Blocked", "NotAtThisTime")
    assert both(world, HOUR) == ("Accepted", "Accepted")


def test_a_token_may_be_allowed_at_some_stations_or_sites_only() -> None:
    world = World()
    world.token("TAG", allowed_stations=["CS1"], allowed_sites=["north"])
    world.config["CS2"] = ("north", {})
    world.config["CS3"] = ("south", {})
    assert both(world, station_id="CS1") == ("Accepted", "Accepted")
    assert both(world, station_id="CS2") == ("Accepted", "Accepted")
    assert both(world, station_id="CS3") == ("Invalid", "NotAtThisLocation")
    assert both(world, station_id="CS4") == ("Invalid", "NotAtThisLocation")
    world.token("NOWHERE", allowed_stations=[])
    assert both(world, tag="NOWHERE") == ("Invalid", "NotAtThisLocation")


def test_tokens_compare_without_case_and_blanks_around_them() -> None:
    """§3.2 compare case-insensitively (CiString)."""
    world = World()
    world.token("aBc")
    assert both(world, tag="AbC") == ("Accepted", "Accepted")
    assert both(world, tag=" abc ") == ("Accepted", "Accepted")
    assert token_key("STRASSE") == token_key("straße")


def test_an_empty_token_is_invalid() -> None:
    world = World()
    assert both(world, tag="") == ("Invalid", "Invalid")


def test_no_authorization_is_accepted() -> None:
    """§3.1 NoAuthorization → Accepted: C02.FR.02."""
    assert status_2x(World(), tag="", kind="NoAuthorization") == "Accepted"


def test_a_central_token_is_looked_up_as_any_other() -> None:
    """W-M30: Central is no password."""
    world = World()
    assert status_2x(world, tag="C-1", kind="Central") == "Unknown"
    world.token("C-1")
    assert status_2x(world, tag="C-1", kind="Central") == "Accepted"


def test_the_answer_says_how_long_it_may_be_kept() -> None:
    world = World(tokens=TokenPolicy(cache_seconds=7200))
    world.token("TAG")
    world.token("SHORT", cache_expires_seconds=60)
    world.token("ENDS", expires_at=T0 + 30 * MINUTE)
    assert world.batch(Station16().authorize("TAG")).reply["idTagInfo"]["expiryDate"] == iso(2 * HOUR)
    reply = world.batch(Station2x().authorize("SHORT")).reply
    assert reply["idTokenInfo"]["cacheExpiryDateTime"] == iso(MINUTE)
    assert world.batch(Station16().authorize("ENDS")).reply["idTagInfo"]["expiryDate"] == iso(30 * MINUTE)


def test_the_group_is_the_parent_of_1_6_and_the_group_token_of_2x() -> None:
    world = World()
    world.token("TAG", group_id="fleet-7", language="de")
    assert world.batch(Station16().authorize("TAG")).reply["idTagInfo"]["parentIdTag"] == "fleet-7"
    info = world.batch(Station2x().authorize("TAG")).reply["idTokenInfo"]
    assert info["groupIdToken"] == {"idToken": "fleet-7", "type": "Central"}
    assert info["language1"] == "de"


def test_a_group_that_is_too_long_for_the_version_is_left_out() -> None:
    world = World()
    world.token("TAG", group_id="g" * 40)
    assert "parentIdTag" not in world.batch(Station16().authorize("TAG")).reply["idTagInfo"]
    assert "groupIdToken" not in world.batch(Station2x().authorize("TAG")).reply["idTokenInfo"]
    assert "groupIdToken" in world.batch(Station2x(Version.V21).authorize("TAG")).reply["idTokenInfo"]


def test_a_token_that_charges_elsewhere_may_not_start_again_but_may_be_authorized() -> None:
    world = World()
    world.token("TAG")
    assert world.batch(Station16("CS1").start()).reply["idTagInfo"]["status"] == "Accepted"
    assert both(world, station_id="CS2") == ("Accepted", "Accepted")
    started = world.batch(Station16("CS2").start(ms=HOUR))
    assert started.reply["idTagInfo"]["status"] == "ConcurrentTx"
    assert world.batch(Station2x(station_id="CS3").started()).reply["idTokenInfo"]["status"] == "ConcurrentTx"
    assert "unauthorized" in started.event["flags"]


def test_a_token_may_start_again_once_its_session_is_over() -> None:
    world, station = World(), Station16()
    world.token("TAG")
    number = world.batch(station.start()).reply["transactionId"]
    world.batch(station.stop(number))
    assert world.batch(Station16("CS2").start(ms=2 * HOUR)).reply["idTagInfo"]["status"] == "Accepted"


def test_a_token_may_have_as_many_sessions_as_it_is_allowed() -> None:
    world = World()
    world.token("TAG", max_concurrent=2)
    world.token("MANY", allow_concurrent=True)
    statuses = [world.batch(Station16(f"CS{n}").start()).reply["idTagInfo"]["status"] for n in range(3)]
    assert statuses == ["Accepted", "Accepted", "ConcurrentTx"]
    statuses = [
        world.batch(Station16(f"CS{n}").start(tag="MANY", connector=2)).reply["idTagInfo"]["status"] for n in range(3)
    ]
    assert statuses == ["Accepted"] * 3


def test_concurrent_starts_in_one_batch_see_each_other() -> None:
    world = World()
    world.token("TAG")
    out = world.batch(Station16("CS1").start(), Station16("CS2").start())
    assert [reply["idTagInfo"]["status"] for reply in out.replies] == ["Accepted", "ConcurrentTx"]


def test_a_start_that_replaces_a_lost_session_of_its_token_is_no_second_use() -> None:
    world, station = World(), Station16()
    world.token("TAG")
    world.batch(station.start())
    assert world.batch(station.start(2000, HOUR)).reply["idTagInfo"]["status"] == "Accepted"


def test_the_token_that_started_and_one_of_its_group_may_stop() -> None:
    world, station = World(), Station2x()
    world.token("TAG", group_id="family")
    world.token("WIFE", group_id="family")
    world.batch(station.started())
    token = {"idToken": "WIFE", "type": "ISO14443"}
    out = world.batch(station.event("Updated", 1, MINUTE, trigger="StopAuthorized", idToken=token))
    assert out.reply["idTokenInfo"]["status"] == "Accepted"
    assert out.reply["idTokenInfo"]["groupIdToken"]["idToken"] == "family"


def test_a_contract_certificate_that_nobody_can_check_is_not_taken_for_a_good_one() -> None:
    world = World()
    world.token("DE8AAC12345678X")
    reply = world.batch(Station2x().authorize("DE8AAC12345678X", "eMAID", certificate="PEM")).reply
    assert reply == {"idTokenInfo": {"status": "Invalid"}, "certificateStatus": "CertChainError"}


def test_every_answer_is_logged_once() -> None:
    world, station = World(), Station16()
    world.token("TAG")
    world.batch(station.authorize("TAG"), station.authorize("X"))
    call = station.start()
    world.batch(call)
    world.batch(call)
    assert [(row.action, row.id_token, row.status) for row in world.authorizations] == [
        ("Authorize", "TAG", "Accepted"),
        ("Authorize", "X", "Unknown"),
        ("StartTransaction", "TAG", "Accepted"),
    ]


def test_a_token_that_is_sent_again_within_its_session_is_no_second_use() -> None:
    world, station = World(), Station2x()
    world.token("TAG")
    token = {"idToken": "TAG", "type": "ISO14443"}
    world.batch(station.started())
    reply = world.batch(station.event("Updated", 1, MINUTE, idToken=token)).reply
    assert reply["idTokenInfo"]["status"] == "Accepted"
