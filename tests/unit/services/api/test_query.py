"""Every route of the application, asked for what it does not know, and all that the command line asks for."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from busbar.service import Health
from services.api import openapi
from services.api.app import _framework, create_app
from services.api.auth import KeyRing, new_key
from services.api.command_route import COMMAND_PATH
from services.api.config import ApiConfig
from services.api.context import Api
from services.api.problems import MAX_ERRORS, Problem
from services.api.query import check_query
from services.api.reading import cursor
from tests.unit.busbar.cli.fake_api import fake_api
from tests.unit.pricing.builders import component, element, tariff_json

KEY_ID, KEY, KEY_HASH = new_key()
ID = "0b5f1c1e-6c1b-5b0e-9d0a-3c1b1f0a7d11"
NEXT = cursor("2026-11-01T00:00:00+00:00", ID)


class KeyTable:
    """A database that has one key."""

    async def fetch(self, _: str) -> list[dict[str, Any]]:
        return [{"key_id": KEY_ID, "key_hash": KEY_HASH, "name": "test", "role": "admin"}]


class Away:
    """What cannot be reached: a handler that comes to ask it answers 503."""

    def __getattr__(self, _: str) -> Any:
        raise ConnectionError


def parts() -> Api:
    away: Any = Away()
    keys: Any = KeyTable()
    return Api(ApiConfig(open_registry=True, open_docs=True), away, KeyRing(keys), away, away, lambda: 0)


def walked(routes: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Method and path of each route, also of those in routers that stay together."""
    for route in routes:
        if isinstance(route, APIRoute):
            yield from ((method, route.path) for method in sorted(route.methods or ()))
        else:
            yield from walked(route.original_router.routes)


APP = _framework(parts(), Health(), None)
ROUTES = [*walked(APP.routes), ("POST", COMMAND_PATH)]
STRICT = [(method, path) for method, path in ROUTES if path.startswith("/v1/")]
TOLERANT = [(method, path) for method, path in ROUTES if not path.startswith("/v1/")]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    api = parts()
    await api.keys.refresh()
    transport = httpx.ASGITransport(app=create_app(api, Health()))
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test", headers=headers) as opened:
        yield opened


def filled(path: str) -> str:
    """A path of the template, whose ids are all the number 1."""
    return re.sub(r"\{[^}]*\}", "1", path)


def test_the_walk_meets_every_kind_of_route() -> None:
    assert {path for _, path in TOLERANT} >= {"/livez", "/readyz", "/docs", "/openapi.json", "/subjects", "/config"}
    assert len(STRICT) > 40
    assert ("GET", "/v1/cdrs/export") in STRICT


@pytest.mark.parametrize(("method", "path"), STRICT)
async def test_what_a_route_does_not_know_is_refused_with_what_it_knows(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    response = await client.request(method, filled(path), params={"nonsense": "1"}, content=b"not JSON")
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == "urn:busbar:problem:unknown-parameter"
    assert problem["errors"] == [{"path": "query.nonsense", "message": "is not known here"}]
    operation = openapi.describe(APP)["paths"][path.replace(":path}", "}")][method.lower()]
    named = sorted(each["name"] for each in operation.get("parameters", ()) if each["in"] == "query")
    assert problem["detail"] == f"The query of this path takes {', '.join(named) or 'nothing'}."


@pytest.mark.parametrize(("method", "path"), STRICT)
async def test_who_has_no_key_is_not_told_what_a_route_knows(client: httpx.AsyncClient, method: str, path: str) -> None:
    response = await client.request(method, filled(path), params={"nonsense": "1"}, headers={"Authorization": ""})
    assert response.status_code == 401


@pytest.mark.parametrize(("method", "path"), TOLERANT)
async def test_probes_documents_and_the_schema_registry_do_not_mind(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    bare = await client.request(method, filled(path))
    asked = await client.request(method, filled(path), params=[("nonsense", "1"), ("nonsense", "2")])
    assert (asked.status_code, asked.content) == (bare.status_code, bare.content)


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1/cdrs/export?stations=CS-1", "station"),
        ("/v1/cdrs?From=2026-11-01T00:00:00Z", "from"),
        ("/v1/cdrs?endedFrom=2026-11-01T00:00:00Z", "ended_from"),
        ("/v1/charges?Status=open", "status"),
        ("/v1/stations?limits=5", "limit"),
        ("/v1/stations/CS-1/commands?pendin=true", "pending"),
    ],
)
async def test_a_typing_error_is_told_what_was_meant(client: httpx.AsyncClient, path: str, meant: str) -> None:
    (error,) = (await client.get(path)).json()["errors"]
    assert error["message"] == f"is not known here: did you mean {meant}?"


async def test_an_unknown_name_is_told_before_a_wrong_value_and_before_the_body(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/cdrs?limit=x&stations=CS-1")
    assert [error["path"] for error in response.json()["errors"]] == ["query.stations"]
    response = await client.post("/v1/tariffs?validfrom=x", content=b"{")
    assert [error["path"] for error in response.json()["errors"]] == ["query.validfrom"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/cdrs/export?station=CS-1&station=CS-2"),
        ("GET", "/v1/stations?q=&q=CS"),
        ("POST", "/v1/stations/CS-1/commands/Reset?wait=1&wait=2"),
    ],
)
async def test_a_parameter_that_comes_twice_is_refused(client: httpx.AsyncClient, method: str, path: str) -> None:
    response = await client.request(method, path)
    assert (response.status_code, response.json()["type"]) == (400, "urn:busbar:problem:repeated-parameter")
    assert [error["message"] for error in response.json()["errors"]] == ["is given more than once"]


async def test_a_query_of_known_names_goes_on_to_the_database(client: httpx.AsyncClient) -> None:
    for query in ("", "?", "?station=CS-1&from=2026-11-01T00:00:00Z&limit=5", "?&station=CS-1&"):
        assert (await client.get(f"/v1/cdrs{query}")).status_code == 503


def test_what_is_told_of_a_long_query_is_short() -> None:
    with pytest.raises(Problem) as caught:
        check_query(["x" * 10_000, *(f"x{number}" for number in range(1000))], {"station"})
    assert len(caught.value.errors) == MAX_ERRORS
    assert all(len(error["path"]) < 60 for error in caught.value.errors)


CONDITIONS = (
    "--station=CS-1 --site=depot --token=04A2 --currency=EUR --credit --from=30d --to=1d --ended-from=30d --ended-to=1d"
    f" --session={ID}"
)


@pytest.mark.parametrize(
    ("line", "asked_for"),
    [
        (f"cdrs list {CONDITIONS} --limit=2000", 12),
        (f"cdrs export {CONDITIONS} --format=ocpi --ocpi-version=2.2.1", 12),
        ("cdrs show cdr-1", 0),
        ("cdrs receipt cdr-1 --html --detailed", 2),
        ("tariffs list --match=day", 3),
        ("tariffs show T1 --version=3", 0),
        ("tariffs add FILE --valid-from=2099-01-01T00:00:00Z", 1),
        ("tariffs assign T1 station CS-1", 0),
        ("tariffs assignments --tariff=T1 --scope=site", 5),
        (f"tariffs end {ID}", 0),
        (f"tariffs change {ID} T1 --wait=1", 1),
        ("send CS-1 Reset --wait=1 --timeout=9 --park --priority=2", 4),
    ],
)
async def test_the_api_knows_what_the_command_line_asks_for(
    client: httpx.AsyncClient, tmp_path: Path, line: str, asked_for: int
) -> None:
    file = tmp_path / "tariff.json"
    file.write_text(json.dumps(tariff_json(element(component("ENERGY", "0.3"))), default=float))
    with fake_api() as fake:
        fake.answers = [(200, {"items": [], "next": NEXT}), (200, {"items": [], "next": None})]
        fake.run(*line.replace("FILE", str(file)).split())
    assert len({name for asked in fake.asked for name in asked.query}) == asked_for
    for asked in fake.asked:
        response = await client.request(asked.method, asked.path, params=asked.query, json=asked.body)
        assert response.status_code == 503, response.text
