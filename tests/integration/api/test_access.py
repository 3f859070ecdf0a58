from __future__ import annotations

from collections.abc import Callable
from typing import Any

import asyncpg
import httpx
import pytest

from services.api.auth import KeyRing
from services.api.config import ApiConfig
from services.api.keys import arguments, create_key, list_keys, revoke_key, run
from tests.integration.api.conftest import Rig

OPEN = {"/livez", "/readyz", "/docs"}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_nothing_but_the_probes_and_the_empty_page_answers_without_a_key(rig: Rig) -> None:
    document = (await rig.viewer.get("/openapi.json")).json()
    paths = {
        (method, path.replace("{number}", "1").replace("{", "").replace("}", ""))
        for path, methods in document["paths"].items()
        for method in methods
    }
    assert len(paths) > 25
    for method, path in paths | {("get", "/openapi.json")}:
        response = await rig.stranger.request(method, path, content=b"{}")
        assert response.status_code == 401, path
        assert response.headers["www-authenticate"].startswith("Bearer")
    for path in OPEN:
        assert (await rig.stranger.get(path)).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        "Bearer bsb__",
        "Bearer bsb_x",
        "Bearer xxx_a_b",
        "Bearer bsb_0123456789abcdef_" + "x" * 43,
        "Bearer " + "x" * 5000,
        "Basic Ynli",
        "Digest x",
        "Bearer bsb_' OR 1=1 --_x",
    ],
)
async def test_what_is_no_key_in_force_is_refused(rig: Rig, header: str) -> None:
    response = await rig.stranger.get("/v1/stations", headers={"Authorization": header})
    assert response.status_code == 401
    assert response.json()["type"] == "urn:busbar:problem:unauthorized"


async def test_the_right_key_id_with_another_secret_is_refused(rig: Rig) -> None:
    key = str(rig.admin.headers["authorization"])
    response = await rig.stranger.get("/v1/stations", headers={"Authorization": key[:-1] + "?"})
    assert response.status_code == 401


async def test_roles_include_those_below_them(rig: Rig) -> None:
    body = {"station_id": "CS-1"}
    assert (await rig.viewer.post("/v1/stations", json=body)).status_code == 403
    assert (await rig.operator.post("/v1/stations", json=body)).status_code == 201
    assert (await rig.admin.post("/v1/stations", json={"station_id": "CS-2"})).status_code == 201
    for client in (rig.viewer, rig.operator, rig.admin):
        assert (await client.get("/v1/stations")).status_code == 200


async def test_a_new_key_works_and_an_expired_or_revoked_one_does_not(rig: Rig) -> None:
    async with rig.pool.acquire() as connection:
        fresh = await create_key(connection, "fresh", "viewer")  # type: ignore[arg-type]
        await rig.api.keys.refresh()
        assert (await rig.stranger.get("/v1/stations", headers=bearer(fresh))).status_code == 200
        await connection.execute("UPDATE config.api_keys SET expires_at = now() WHERE name = 'fresh'")
        await rig.api.keys.refresh()
        response = await rig.stranger.get("/v1/stations", headers=bearer(fresh))
        assert (response.status_code, "expired" in response.json()["detail"]) == (401, True)
        other = await create_key(connection, "other", "viewer")  # type: ignore[arg-type]
        assert await revoke_key(connection, other.split("_")[1])  # type: ignore[arg-type]
        assert not await revoke_key(connection, other.split("_")[1])  # type: ignore[arg-type]
        await rig.api.keys.refresh()
        response = await rig.stranger.get("/v1/stations", headers=bearer(other))
        assert (response.status_code, "revoked" in response.json()["detail"]) == (401, True)
        lines = "\n".join(await list_keys(connection))  # type: ignore[arg-type]
        assert "other" in lines
        assert other not in lines
        assert other.split("_", 2)[2] not in lines


async def test_a_key_that_is_not_known_yet_is_looked_for(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig.pool.acquire() as connection:
        key = await create_key(connection, "fresh", "viewer")  # type: ignore[arg-type]
    monkeypatch.setattr(rig.api.keys, "_read_at", rig.api.keys._read_at - 2)
    assert (await rig.stranger.get("/v1/stations", headers=bearer(key))).status_code == 200


async def test_keys_that_were_not_read_for_long_are_not_trusted(rig: Rig) -> None:
    ring = KeyRing(rig.pool, stale_seconds=-1)
    await ring.refresh()
    with pytest.raises(Exception, match="503"):
        await ring.require(str(rig.viewer.headers["authorization"]), "viewer")


def test_the_command_line_makes_shows_and_revokes_keys(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    assert run(arguments().parse_args(["create-key", "--name", "ci", "--role", "operator"])) == 0
    key = capsys.readouterr().out.strip()
    assert key.startswith("bsb_")
    assert run(arguments().parse_args(["list-keys"])) == 0
    assert key.split("_")[1] in capsys.readouterr().out
    assert run(arguments().parse_args(["revoke-key", key.split("_")[1]])) == 0
    assert run(arguments().parse_args(["revoke-key", "unknown"])) == 1
    assert "see list-keys" in capsys.readouterr().err


def test_the_command_line_says_in_a_line_that_the_database_is_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/none")
    assert run(arguments().parse_args(["list-keys"])) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


async def test_the_registry_is_read_with_any_key_also_by_basic(rig: Rig) -> None:
    key = str(rig.viewer.headers["authorization"]).removeprefix("Bearer ")
    response = await rig.stranger.get("/subjects", auth=httpx.BasicAuth("kcat", key))
    assert response.status_code == 200
    assert (await rig.stranger.get("/subjects")).headers["www-authenticate"].endswith('Basic realm="busbar"')
    assert (await rig.stranger.get("/v1/stations", auth=httpx.BasicAuth("kcat", key))).status_code == 401


async def test_settings_open_the_registry_and_the_document_and_nothing_else(
    make_rig: Callable[[ApiConfig], Any],
) -> None:
    async with make_rig(ApiConfig(open_registry=True, open_docs=True)) as rig:
        for path in ("/subjects", "/schemas/ids/1", "/openapi.json"):
            assert (await rig.stranger.get(path)).status_code == 200
        assert (await rig.stranger.get("/v1/stations")).status_code == 401


async def test_a_body_over_the_limit_is_refused_whether_announced_or_not(
    make_rig: Callable[[ApiConfig], Any],
) -> None:
    async with make_rig(ApiConfig(max_body_bytes=2048)) as rig:
        await rig.online("CS-1")
        announced = await rig.operator.post("/v1/stations", content=b'{"station_id":"' + b"x" * 3000)
        assert announced.status_code == 413

        async def chunks() -> Any:
            for _ in range(100):
                yield b"x" * 1000

        for path in ("/v1/stations", "/v1/stations/CS-1/commands/Reset"):
            assert (await rig.operator.post(path, content=chunks())).status_code == 413


async def test_paths_and_methods_that_do_not_exist_are_problems_too(rig: Rig) -> None:
    for method, path, status in (
        ("GET", "/nowhere", 404),
        ("GET", "/v1/stations/", 404),
        ("PUT", "/v1/stations/CS-1", 405),
        ("GET", "/v1/stations/CS-1/commands/Reset", 405),
        ("POST", "/v1/stations/CS-1/commands/Reset/more", 404),
    ):
        response = await rig.admin.request(method, path)
        assert response.status_code == status, path
        assert response.headers["content-type"] == "application/problem+json"


async def test_a_database_that_is_away_is_said_to_be(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> None:
        raise asyncpg.CannotConnectNowError("starting up")

    monkeypatch.setattr(type(rig.pool), "fetchrow", away)
    response = await rig.viewer.get("/v1/stations/CS-1")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"
