from __future__ import annotations

import orjson
import pytest

import busbar
from busbar.avro import encode
from busbar.ocpp.actions import csms_actions
from busbar.ocpp.versions import Version
from tests.integration.api.conftest import Rig


async def test_the_system_tells_its_version_edges_and_counts(rig: Rig) -> None:
    await rig.online("CS-1")
    await rig.pool.execute(
        "INSERT INTO router.edges VALUES ('edge-0', 'i1', 0, 'alive', 7, 'x:1', now(), now(), '[]', false, 0),"
        " ('edge-1', 'i1', 1, 'alive', 7, 'x:1', now(), now(), '[]', true, 0)"
    )
    body = (await rig.viewer.get("/v1/system")).json()
    assert body["version"] == busbar.__version__
    assert body["stations"] == {"registered": 0, "online": 1}
    assert [(edge["edge"], edge["state"], edge["connections"]) for edge in body["edges"]] == [
        ("edge-0", "alive", 7),
        ("edge-1", "silent", 7),
    ]


async def test_processors_are_listed_with_their_partitions(rig: Rig) -> None:
    await rig.pool.execute(
        "INSERT INTO stream.progress (group_name, partition, owner, lease_until, offsets) VALUES"
        " ('router', 0, 'w', now() + interval '1 minute', '{\"csms.commands\": 5}'), ('router', 1, NULL, NULL, '{}')"
    )
    body = (await rig.viewer.get("/v1/system")).json()
    [router] = body["processors"]
    assert (router["group"], router["partitions"], router["owned"], router["lag"]) == ("router", 2, 1, None)


async def test_every_action_is_listed_with_its_schemas(rig: Rig) -> None:
    actions = (await rig.viewer.get("/v1/actions")).json()
    assert actions == {version.value: list(csms_actions(version)) for version in Version}
    body = (await rig.viewer.get("/v1/actions/2.0.1/Reset")).json()
    assert body["request"]["required"] == ["type"]
    assert (await rig.viewer.get("/v1/actions/1.6/GetVariables")).status_code == 404
    assert (await rig.viewer.get("/v1/actions/9/..%2F..%2Fetc")).status_code == 404


async def test_the_registry_gives_the_schema_that_records_begin_with(rig: Rig) -> None:
    value = {"command_id": "c", "station_id": "s", "action": "Reset", "payload": "{}", "requested_by": "t"}
    data = encode("csms.Command", {**value, "requested_at": 1, "deadline_at": 2})
    number = int.from_bytes(data[1:5], "big")
    response = await rig.viewer.get(f"/schemas/ids/{number}")
    assert response.headers["content-type"] == "application/vnd.schemaregistry.v1+json"
    assert orjson.loads(response.json()["schema"])["name"] == "csms.Command"
    [entry] = (await rig.viewer.get(f"/schemas/ids/{number}/versions")).json()
    latest = (await rig.viewer.get(f"/subjects/{entry['subject']}/versions/latest")).json()
    assert latest["id"] == number
    found = await rig.viewer.post(f"/subjects/{entry['subject']}", json={"schema": latest["schema"]})
    assert found.json()["id"] == number
    registered = await rig.viewer.post(f"/subjects/{entry['subject']}/versions", json={"schema": latest["schema"]})
    assert registered.json() == {"id": number}
    alone = await rig.viewer.get(f"/subjects/{entry['subject']}/versions/latest/schema")
    assert alone.json() == orjson.loads(latest["schema"])


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/schemas/ids/999999", 40403),
        ("/subjects/nothing/versions", 40401),
        ("/subjects/nothing/versions/1", 40401),
        ("/subjects/csms.commands-value/versions/99", 40402),
    ],
)
async def test_what_the_registry_does_not_have_has_the_code_of_its_protocol(rig: Rig, path: str, code: int) -> None:
    response = await rig.viewer.get(path)
    assert (response.status_code, response.json()["error_code"]) == (404, code)


async def test_the_registry_takes_nothing(rig: Rig) -> None:
    response = await rig.admin.post("/subjects/new-value/versions", json={"schema": '"string"'})
    assert (response.status_code, response.json()["error_code"]) == (422, 42205)
    assert (await rig.admin.post("/subjects/new-value", content=b"[")).status_code == 422
    assert (await rig.viewer.get("/mode")).json() == {"mode": "READONLY"}
    assert "compatibilityLevel" in (await rig.viewer.get("/config")).json()


async def test_the_document_describes_every_route_with_examples(rig: Rig) -> None:
    document = (await rig.viewer.get("/openapi.json")).json()
    command = document["paths"]["/v1/stations/{station_id}/commands/{action}"]["post"]
    assert command["requestBody"]["content"]["application/json"]["examples"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
            if method in ("post", "patch") and "requestBody" in operation:
                content = operation["requestBody"]["content"]["application/json"]
                assert "example" in content or "examples" in content, (method, path)
    assert "HTTPValidationError" not in orjson.dumps(document).decode()


async def test_the_probes_tell_what_is_wrong(rig: Rig) -> None:
    rig.health.ready["kafka"] = lambda: "Kafka has been silent for 20 s"
    response = await rig.stranger.get("/readyz")
    assert (response.status_code, response.json()["problems"]) == (503, {"kafka": "Kafka has been silent for 20 s"})
    assert (await rig.stranger.get("/livez")).status_code == 200
