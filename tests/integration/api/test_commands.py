from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pytest

from services.api.config import ApiConfig
from tests.integration.api.conftest import Rig

RESET = {"type": "Soft"}


def send(rig: Rig, path: str, payload: Any = RESET, **options: Any) -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(rig.operator.post(f"/v1/stations/{path}", json=payload, **options))


async def test_an_answered_command_comes_back_with_the_answer(rig: Rig) -> None:
    await rig.online("CS-1")
    request = send(rig, "CS-1/commands/Reset?priority=5")
    command = await rig.next_command()
    assert (command["station_id"], command["action"], command["priority"]) == ("CS-1", "Reset", 5)
    assert (orjson.loads(command["payload"]), command["requested_by"], command["park"]) == (RESET, "operator", False)
    rig.report(command, "dispatched", source="router")
    rig.report(command, "sent")
    rig.report(command, "answered", payload='{"status":"Accepted"}')
    response = await request
    assert response.status_code == 200
    body = response.json()
    assert body["outcome"] == "answered"
    assert body["answer"] == {"status": "Accepted"}
    assert response.headers["location"] == f"/v1/commands/{command['command_id']}"


@pytest.mark.parametrize(
    ("stage", "status"),
    [("error", 200), ("offline", 409), ("rejected", 422), ("disconnected", 502), ("timeout", 504)],
)
async def test_other_outcomes_are_told_apart(rig: Rig, stage: str, status: int) -> None:
    await rig.online("CS-1")
    request = send(rig, "CS-1/commands/Reset")
    rig.report(await rig.next_command(), stage, error_code="Why", error_description="because", error_details='{"a":1}')
    response = await request
    assert response.status_code == status
    assert response.json()["outcome"] == stage
    assert response.json()["error"] == {"code": "Why", "description": "because", "details": {"a": 1}}


async def test_without_waiting_the_command_is_pending(rig: Rig) -> None:
    await rig.online("CS-1")
    response = await send(rig, "CS-1/commands/Reset?wait=0")
    assert response.status_code == 202
    assert response.json()["outcome"] == "pending"
    assert response.headers["location"] == f"/v1/commands/{response.json()['command_id']}"
    assert len(rig.commands()) == 1


async def test_when_the_wait_is_over_the_command_is_pending(rig: Rig) -> None:
    await rig.online("CS-1")
    response = await send(rig, "CS-1/commands/Reset?wait=0.05")
    assert response.status_code == 202


async def test_the_deadline_follows_from_timeout_wait_and_park(rig: Rig) -> None:
    await rig.online("CS-1")
    for query, seconds in (("wait=0", 30), ("wait=0&timeout=5", 5), ("wait=0&park=true", 86_400)):
        await send(rig, f"CS-1/commands/Reset?{query}")
        command = rig.commands()[-1]
        assert command["deadline_at"] - command["requested_at"] == seconds * 1000
        assert command["park"] == ("park" in query)


async def test_the_end_of_an_earlier_connection_does_not_end_the_wait(rig: Rig) -> None:
    await rig.online("CS-1")
    request = send(rig, "CS-1/commands/Reset")
    command = await rig.next_command()
    rig.report(command, "dispatched", source="router", connection_id="b")
    rig.report(command, "disconnected", connection_id="a")
    rig.report(command, "answered", connection_id="b", payload="{}")
    assert (await request).json()["outcome"] == "answered"


async def test_an_outcome_that_is_only_in_the_table_is_found(rig: Rig) -> None:
    await rig.online("CS-1")
    request = send(rig, "CS-1/commands/Reset")
    command = await rig.next_command()
    await finish(rig, command["command_id"], '{"status":"Accepted"}')
    body = (await request).json()
    assert (body["outcome"], body["answer"]) == ("answered", {"status": "Accepted"})


async def finish(rig: Rig, command_id: str, answer: str | None, outcome: str | None = "answered") -> None:
    await rig.pool.execute(
        "INSERT INTO router.commands (command_id, partition, station_id, action, payload, requested_by, requested_at,"
        " deadline_at, priority, park, stage, outcome, answer, finished_at)"
        " VALUES ($1, 0, 'CS-1', 'Reset', '{\"idTag\":\"SECRET\"}', 'test', now(), now(), 0, false, 'sent', $3, $2,"
        " now())",
        command_id,
        answer,
        outcome,
    )


async def test_the_same_idempotency_key_is_the_same_command(rig: Rig) -> None:
    await rig.online("CS-1")
    headers = {"Idempotency-Key": "reset-of-monday"}
    one = await send(rig, "CS-1/commands/Reset?wait=0", headers=headers)
    two = await send(rig, "CS-1/commands/Reset?wait=0", headers=headers)
    other = await send(rig, "CS-1/commands/Reset?wait=0", headers={"Idempotency-Key": "another"})
    assert one.json()["command_id"] == two.json()["command_id"] != other.json()["command_id"]


async def test_an_unknown_station_is_not_found(rig: Rig) -> None:
    for name in ("CS-404", "CS%00", "'; DROP TABLE config.stations; --"):
        response = await send(rig, f"{name}/commands/Reset")
        assert response.status_code == 404
        assert response.json()["type"] == "urn:busbar:problem:unknown-station"


async def test_an_action_of_another_version_is_not_found_and_the_known_ones_are_named(rig: Rig) -> None:
    await rig.online("CS-1")
    response = await send(rig, "CS-1/commands/GetVariables")
    assert response.status_code == 404
    assert "RemoteStartTransaction" in response.json()["detail"]
    assert rig.commands() == []


async def test_each_version_takes_its_own_payload(rig: Rig) -> None:
    await rig.online("CS-16")
    await rig.online("CS-201", "2.0.1")
    await rig.online("CS-21", "2.1")
    assert (await send(rig, "CS-16/commands/Reset?wait=0", {"type": "Soft"})).status_code == 202
    assert (await send(rig, "CS-201/commands/Reset?wait=0", {"type": "Immediate"})).status_code == 202
    assert (await send(rig, "CS-21/commands/Reset?wait=0", {"type": "ImmediateAndResume"})).status_code == 202
    assert (await send(rig, "CS-201/commands/Reset?wait=0", {"type": "Soft"})).status_code == 422


async def test_every_error_of_a_payload_is_named_with_its_path(rig: Rig) -> None:
    await rig.online("CS-1", "2.0.1")
    payload = {"getVariableData": [{"component": {"name": 7}, "variable": {}}], "more": 1}
    response = await send(rig, "CS-1/commands/GetVariables", payload)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    errors = {error["path"]: error["message"] for error in response.json()["errors"]}
    assert errors.keys() == {
        "$",
        "$.getVariableData[0].component.name",
        "$.getVariableData[0].variable",
    }
    assert rig.commands() == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"\xff", 400),
        (b'{"type":NaN}', 400),
        (b'{"type":"\\ud800"}', 400),
        (b"[" * 5000, 400),
        (b'["Soft"]', 422),
        (b"null", 422),
        (b'{"type":"Soft\\u0000"}', 422),
        (b'{"type":7}', 422),
        (b'{"type":"Soft","x":1}', 422),
        (b"", 422),
    ],
)
async def test_a_body_that_is_no_payload_is_refused(rig: Rig, body: bytes, status: int) -> None:
    await rig.online("CS-1")
    response = await rig.operator.post("/v1/stations/CS-1/commands/Reset", content=body)
    assert response.status_code == status, response.text
    assert rig.commands() == []


async def test_a_nul_character_is_refused_where_the_schema_would_take_it(rig: Rig) -> None:
    await rig.online("CS-1")
    response = await send(rig, "CS-1/commands/DataTransfer", {"vendorId": "a\0b"})
    assert response.status_code == 422
    assert response.json()["errors"] == [{"path": "$", "message": "holds a NUL character"}]


async def test_an_empty_body_is_an_empty_object(rig: Rig) -> None:
    await rig.online("CS-1")
    response = await rig.operator.post("/v1/stations/CS-1/commands/ClearCache?wait=0")
    assert response.status_code == 202
    assert rig.commands()[0]["payload"] == "{}"


@pytest.mark.parametrize(
    "query",
    ["wait=-1", "wait=x", "wait=nan", "wait=inf", "wait=1e9", "timeout=0", "park=maybe", "priority=1.5"],
)
async def test_an_option_that_makes_no_sense_is_refused(rig: Rig, query: str) -> None:
    await rig.online("CS-1")
    response = await send(rig, f"CS-1/commands/Reset?{query}")
    assert response.status_code == 422
    assert response.json()["errors"][0]["path"].startswith("query.")


async def test_the_version_comes_from_the_pin_while_the_station_is_offline(rig: Rig) -> None:
    await rig.operator.post("/v1/stations", json={"station_id": "CS-1", "security_profile": 0})
    response = await send(rig, "CS-1/commands/Reset?wait=0")
    assert response.status_code == 409
    assert response.json()["type"] == "urn:busbar:problem:version-unknown"
    await rig.operator.patch("/v1/stations/CS-1", json={"ocpp_version": "2.0.1"})
    response = await send(rig, "CS-1/commands/Reset?wait=0", {"type": "OnIdle"})
    assert (response.status_code, response.json()["ocpp_version"]) == (202, "2.0.1")


async def test_a_viewer_may_not_send_commands(rig: Rig) -> None:
    await rig.online("CS-1")
    response = await rig.viewer.post("/v1/stations/CS-1/commands/Reset", json=RESET)
    assert response.status_code == 403
    assert rig.commands() == []


async def test_while_kafka_is_away_the_caller_is_told(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.api.gateway._ACK_SECONDS", 0.1)
    await rig.online("CS-1")
    rig.broker.go_away()
    response = await send(rig, "CS-1/commands/Reset")
    assert response.status_code == 503
    assert "may still be carried out" in response.json()["detail"]


async def test_a_command_that_no_record_can_hold_is_refused(make_rig: Callable[[ApiConfig], Any]) -> None:
    async with make_rig(ApiConfig(max_body_bytes=4_000_000)) as large:
        await large.online("CS-1")
        response = await send(large, "CS-1/commands/DataTransfer", {"vendorId": "v", "data": "x" * 1_100_000})
        assert response.status_code == 413


async def test_more_requests_than_may_wait_are_turned_away(make_rig: Callable[[ApiConfig], Any]) -> None:
    async with make_rig(ApiConfig(max_waiting=1)) as rig:
        await rig.online("CS-1")
        first = send(rig, "CS-1/commands/Reset")
        await rig.next_command()
        assert (await send(rig, "CS-1/commands/Reset")).status_code == 503
        rig.report(rig.commands()[0], "answered", payload="{}")
        assert (await first).status_code == 200
        assert (await send(rig, "CS-1/commands/Reset?wait=0.01")).status_code == 202


async def test_many_commands_wait_at_a_time_and_each_gets_its_own_answer(rig: Rig) -> None:
    await rig.online("CS-1")
    requests = [send(rig, "CS-1/commands/DataTransfer", {"vendorId": str(n)}) for n in range(200)]
    await rig.next_command(199)
    for command in reversed(rig.commands()):
        vendor = orjson.loads(command["payload"])["vendorId"]
        rig.report(command, "answered", payload=orjson.dumps({"status": "Accepted", "data": vendor}).decode())
    answers = [response.json()["answer"]["data"] for response in await asyncio.gather(*requests)]
    assert answers == [str(n) for n in range(200)]
    assert rig.api.gateway._waiters == {}


async def test_a_command_is_shown_with_its_stages(rig: Rig) -> None:
    await finish(rig, "c-1", '{"status":"Accepted"}')
    await rig.pool.execute(
        "INSERT INTO router.command_events VALUES ('c-1', now(), 'answered', 'edge', 'a', 1, 'CS-1', 'edge-0', '', '')"
    )
    body = (await rig.operator.get("/v1/commands/c-1")).json()
    assert (body["outcome"], body["answer"]) == ("answered", {"status": "Accepted"})
    assert [stage["stage"] for stage in body["stages"]] == ["answered"]
    assert body["payload"] == {"idTag": "SECRET"}


async def test_a_viewer_does_not_see_what_a_payload_says(rig: Rig) -> None:
    await finish(rig, "c-1", "{}")
    assert "SECRET" not in (await rig.viewer.get("/v1/commands/c-1")).text


async def test_showing_a_command_can_wait_for_its_outcome(rig: Rig) -> None:
    await finish(rig, "c-1", None, outcome=None)
    request = asyncio.create_task(rig.viewer.get("/v1/commands/c-1?wait=10"))
    await asyncio.sleep(0.1)
    await rig.pool.execute("UPDATE router.commands SET outcome = 'timeout', stage = 'timeout', finished_at = now()")
    body = (await request).json()
    assert (body["outcome"], body["error"]["details"]) == ("timeout", {})


async def test_a_command_that_does_not_exist_is_not_found(rig: Rig) -> None:
    for name in ("c-404", "c%00", "' OR 1=1 --"):
        assert (await rig.viewer.get(f"/v1/commands/{name}")).status_code == 404


async def test_a_stations_commands_are_listed_page_by_page_the_newest_first(rig: Rig) -> None:
    await rig.online("CS-1")
    for number in range(5):
        await finish(rig, f"c-{number}", "{}")
    await finish(rig, "c-5", None, outcome=None)
    seen: list[str] = []
    after = ""
    while True:
        body = (await rig.viewer.get(f"/v1/stations/CS-1/commands?limit=2{after}")).json()
        seen += [item["command_id"] for item in body["items"]]
        if body["next"] is None:
            break
        after = f"&after={body['next']}"
    assert seen == ["c-5", "c-4", "c-3", "c-2", "c-1", "c-0"]
    pending = (await rig.viewer.get("/v1/stations/CS-1/commands?pending=true")).json()
    assert [item["command_id"] for item in pending["items"]] == ["c-5"]


@pytest.mark.parametrize("after", ["x", "W10", "WzEsMl0", "WyJhIiwiYiJd", "%00", "é"])
async def test_a_cursor_that_we_did_not_make_is_refused(rig: Rig, after: str) -> None:
    await rig.online("CS-1")
    assert (await rig.viewer.get(f"/v1/stations/CS-1/commands?after={after}")).status_code == 422
    assert (await rig.viewer.get(f"/v1/transactions?after={after}")).status_code == 422
