"""`busbar price` of what a station sent."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from busbar.cli import main

TARIFF = {
    "id": "T1",
    "currency": "EUR",
    "elements": [
        {"price_components": [{"type": "ENERGY", "price": 0.30, "step_size": 1}]},
        {"price_components": [{"type": "PARKING_TIME", "price": 6, "step_size": 1}]},
    ],
}


def event(kind: str, minute: int, wh: float, seq_no: int, state: str, transaction: str = "T-1") -> dict[str, Any]:
    at = f"2026-03-11T{9 + minute // 60:02}:{minute % 60:02}:00Z"
    return {
        "eventType": kind,
        "timestamp": at,
        "triggerReason": "ChargingStateChanged",
        "seqNo": seq_no,
        "transactionInfo": {"transactionId": transaction, "chargingState": state},
        "evse": {"id": 1, "connectorId": 1},
        "meterValue": [{"timestamp": at, "sampledValue": [{"value": wh}]}],
    }


EVENTS = [
    event("Started", 0, 1000.5, 0, "Charging"),
    event("Updated", 60, 11000.5, 1, "SuspendedEV"),
    event("Ended", 90, 11000.5, 2, "EVConnected"),
]
SENT_16: list[list[Any]] = [
    [
        2,
        "a",
        "StartTransaction",
        {"connectorId": 1, "idTag": "A", "meterStart": 5, "timestamp": "2026-03-11T09:00:00Z"},
    ],
    [3, "a", {"transactionId": 77, "idTagInfo": {"status": "Accepted"}}],
    [
        2,
        "b",
        "MeterValues",
        {
            "connectorId": 1,
            "transactionId": 77,
            "meterValue": [{"timestamp": "2026-03-11T09:30:00Z", "sampledValue": [{"value": "8.005", "unit": "kWh"}]}],
        },
    ],
    [2, "c", "StopTransaction", {"transactionId": 77, "meterStop": 10005, "timestamp": "2026-03-11T10:00:00Z"}],
]


def frames(events: Iterable[dict[str, Any]]) -> list[Any]:
    return [[2, str(number), "TransactionEvent", payload] for number, payload in enumerate(events)]


def tailed(item: list[Any]) -> dict[str, Any]:
    """A frame as `busbar tail --json` prints it."""
    line = {"at": "2026-03-11T12:00:00.000Z", "message_id": item[1], "connection_id": "x"}
    if item[0] == 2:
        return line | {"from": "station", "kind": "CALL", "action": item[2], "content": item[3]}
    return line | {"from": "csms", "kind": "CALLRESULT", "action": "StartTransaction", "content": item[2]}


def priced(tmp_path: Path, sent: Any, *arguments: str) -> Result:
    tariff = tmp_path / "tariff.json"
    tariff.write_text(json.dumps(TARIFF))
    text = sent if isinstance(sent, str) else json.dumps(sent)
    return CliRunner().invoke(main, ["price", str(tariff), "-", *arguments], input=text)


def cost(result: Result) -> tuple[Any, Any]:
    """Total, and seconds of parking."""
    assert result.exit_code == 0, result.output
    document = json.loads(result.output)
    return document["total"]["excl_tax"], document["session"]["parking_seconds"]


@pytest.mark.parametrize(
    "sent",
    [
        EVENTS,
        frames(EVENTS),
        list(map(tailed, frames(EVENTS))),
        "\n".join(map(json.dumps, frames(EVENTS))),
        # Late and twice: it is the same session.
        [*frames([EVENTS[0], EVENTS[2], EVENTS[1], EVENTS[1]])],
    ],
    ids=["payloads", "frames", "tail", "lines", "disorder"],
)
def test_a_transaction_of_2_x_is_priced_as_in_operation(tmp_path: Path, sent: Any) -> None:
    assert cost(priced(tmp_path, sent, "--json")) == (6, 1800)


@pytest.mark.parametrize("sent", [SENT_16, list(map(tailed, SENT_16)), [SENT_16[0], *SENT_16[2:]]])
def test_a_transaction_of_1_6_is_priced_with_whatever_id_it_had(tmp_path: Path, sent: Any) -> None:
    assert cost(priced(tmp_path, sent, "--json", "--transaction", "77")) == (3, 0)


def test_a_transaction_that_was_never_stopped_ends_where_the_next_begins(tmp_path: Path) -> None:
    payload = {"connectorId": 1, "idTag": "B", "meterStart": 9005, "timestamp": "2026-03-11T12:00:00Z"}
    following = [[2, "z", "StartTransaction", payload], [3, "z", {"transactionId": 78}]]
    assert cost(priced(tmp_path, [*SENT_16[:3], *following], "--transaction", "77", "--json")) == (2.4, 0)
    assert "pick one with --transaction, of 77, 78" in priced(tmp_path, [*SENT_16[:3], *following]).output


def test_what_is_no_part_of_a_transaction_is_passed_over(tmp_path: Path) -> None:
    others = [[2, "h", "Heartbeat", {}], [3, "h", {}], [4, "x", "InternalError", "", {}]]
    lines = [{"kind": "CONNECTION", "content": "connected"}, {"kind": "CALL", "from": "csms", "content": {}}]
    assert cost(priced(tmp_path, [*frames(EVENTS), *others, *lines], "--json")) == (6, 1800)


def test_one_that_goes_on_costs_what_it_costs_so_far(tmp_path: Path) -> None:
    result = priced(tmp_path, EVENTS[:2])
    assert "The session goes on" in result.output
    assert "session energy is by" in result.output
    assert "unauthorized" not in result.output


def test_one_of_several_has_to_be_named(tmp_path: Path) -> None:
    other = [event("Started", 120, 20000, 0, "Charging", "T-2"), event("Ended", 180, 21000, 1, "Charging", "T-2")]
    result = priced(tmp_path, [*EVENTS, *other])
    assert result.exit_code == 1
    assert "several transactions: pick one with --transaction, of T-1, T-2" in result.output
    assert cost(priced(tmp_path, [*EVENTS, *other], "--transaction", "T-2", "--json")) == (0.3, 0)
    assert (
        "there is no transaction T-3: there is T-1, T-2"
        in priced(tmp_path, [*EVENTS, *other], "--transaction", "T-3").output
    )


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ([[2, "h", "Heartbeat", {}]], "there is no transaction in what the station sent"),
        ([*frames(EVENTS), 7], "$[3]: is not an OCPP-J frame"),
        ([[2, "short"]], "$[0]: is not an OCPP-J frame"),
        ([EVENTS[0], {"hello": 1}], "$[1]: is not an OCPP-J frame"),
        ([[2, 5, ["x"], {}]], "$[0]: is not an OCPP-J frame"),
    ],
)
def test_what_is_no_recording_is_refused_with_the_place(tmp_path: Path, sent: Any, reason: str) -> None:
    result = priced(tmp_path, sent)
    assert result.exit_code == 1
    assert f"standard input: {reason}" in result.output or f"standard input: $: {reason}" in result.output


def test_nothing_of_the_services_is_loaded_for_a_few_numbers() -> None:
    import subprocess
    import sys

    code = "import busbar.cli.price, sys; print([name for name in sys.modules if name.startswith('services')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
