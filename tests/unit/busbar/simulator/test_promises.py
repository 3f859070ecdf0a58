"""What a CSMS may rely on: order, pauses, resent messages, and meters that never start again."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from busbar.ocpp.versions import Version
from busbar.simulator.fleet import Member, make_stations
from busbar.simulator.tally import Tally
from tests.unit.busbar.simulator.csms import EPOCH, Payload, VirtualCsms
from tests.unit.busbar.simulator.test_stations import BUSY, QUIET, SETTINGS, VERSIONS, online, start, station


def first_transaction_action(version: Version) -> str:
    return "StartTransaction" if version is Version.V16 else "TransactionEvent"


def refusal(version: Version) -> Payload:
    if version is Version.V16:
        return {"transactionId": 5, "idTagInfo": {"status": "Invalid"}}
    return {"idTokenInfo": {"status": "Invalid"}}


@pytest.mark.parametrize("version", VERSIONS)
def test_drivers_who_come_before_the_station_is_accepted_are_told_of_afterwards_only(version: Version) -> None:
    boot = {"status": "Pending", "currentTime": "2026-03-01T12:00:00Z", "interval": 100_000}
    csms = VirtualCsms(station(version), answers={"BootNotification": lambda _: boot})
    csms.run(3_600)
    assert {call.action for call in csms.calls} == {"BootNotification"}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_further_attempt_waits_longer(version: Version) -> None:
    times: list[float] = []
    csms = online(version)

    def silent(_: Payload) -> None:
        times.append(csms.now)

    csms.answers[first_transaction_action(version)] = silent
    start(csms)
    csms.run(600)
    gaps = [later - earlier for earlier, later in pairwise(times[:5])]
    assert gaps == [80.0, 100.0, 120.0, 140.0]  # 60 s for the answer, then 20 s for each attempt


@pytest.mark.parametrize("version", VERSIONS)
def test_what_was_on_its_way_when_the_connection_broke_is_sent_again(version: Version) -> None:
    action = first_transaction_action(version)
    csms = online(version, answers={action: lambda _: None})
    start(csms)
    csms.run(10)
    assert len(csms.sent(action)) == 1
    csms.drop()
    del csms.answers[action]
    csms.reachable = True
    csms.run(30)
    sent = csms.sent(action)
    assert sent[1] == sent[0]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_start_that_is_refused_ends_at_once(version: Version) -> None:
    csms = online(version, answers={first_transaction_action(version): _once(refusal(version))})
    start(csms)
    csms.run(60)
    assert csms.station.tally.sessions_ended == 1
    assert csms.station.tally.authorizations_refused == 1
    if version is Version.V16:
        assert csms.sent("StopTransaction")[0]["reason"] == "DeAuthorized"
    else:
        assert csms.sent("TransactionEvent")[-1]["transactionInfo"]["stoppedReason"] == "DeAuthorized"


def _once(answer: Payload) -> Any:
    """This answer first, and then none of a kind that matters."""
    answers = [answer]
    return lambda _: answers.pop() if answers else {}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_meter_goes_on_where_the_session_before_has_ended(version: Version) -> None:
    csms = VirtualCsms(station(version, BUSY))
    csms.run(86_400)
    for outlet in csms.station.outlets:
        registers = _registers(csms, outlet.number)
        assert len(registers) >= 4
        assert registers == sorted(registers)
        assert registers[-1] > registers[0]


def _registers(csms: VirtualCsms, number: int) -> list[float]:
    """Begin and end of each session of an outlet, as they were told."""
    found: list[float] = []
    if csms.station.version is Version.V16:
        mine: list[int] = []
        for call in csms.calls:
            if call.action == "StartTransaction":
                mine.append(call.payload["connectorId"])
                if call.payload["connectorId"] == number:
                    found.append(call.payload["meterStart"])
            elif call.action == "StopTransaction" and mine[call.payload["transactionId"] - 1] == number:
                found.append(call.payload["meterStop"])
        return found
    places: dict[str, int] = {}
    for event in csms.sent("TransactionEvent"):
        transaction_id = event["transactionInfo"]["transactionId"]
        if "evse" in event:
            places[transaction_id] = event["evse"]["id"]
        if event["eventType"] != "Updated" and places[transaction_id] == number:
            found.append(event["meterValue"][0]["sampledValue"][0]["value"])
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_a_status_is_told_when_it_changes_and_not_again(version: Version) -> None:
    csms = VirtualCsms(station(version, BUSY))
    csms.run(86_400)
    name, place = ("status", "connectorId") if version is Version.V16 else ("connectorStatus", "evseId")
    for outlet in csms.station.outlets:
        told = [each[name] for each in csms.sent("StatusNotification") if each[place] == outlet.number]
        assert len(told) > 4
        assert all(earlier != later for earlier, later in pairwise(told))


@pytest.mark.parametrize("version", [Version.V201, Version.V21])
def test_another_run_with_the_same_seed_has_other_transactions(version: Version) -> None:
    def ids(started_at: float) -> set[str]:
        member = Member("CS-1", None, version)
        (one,) = make_stations([member], SETTINGS, Tally(), started_at=started_at)
        csms = VirtualCsms(one, now=started_at)
        csms.run(7_200)
        return {event["transactionInfo"]["transactionId"] for event in csms.sent("TransactionEvent")}

    assert ids(EPOCH)
    assert ids(EPOCH).isdisjoint(ids(EPOCH + 86_400))


def test_a_quiet_station_only_beats() -> None:
    csms = VirtualCsms(station(Version.V16, QUIET))
    csms.run(3_600)
    assert {call.action for call in csms.calls} == {"BootNotification", "StatusNotification", "Heartbeat"}
