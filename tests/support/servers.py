"""Real servers for integration and end-to-end tests, started once for the whole run and stopped after it.

- `kafka_servers`: bootstrap servers of a real broker.
- `topics`: the same, with every topic of `topics.toml` created and empty when the test module begins.
- `postgres_url`: a database of the test module's own, with all tables and no rows.

`--broker=local` (the default) runs the servers of `busbar.local`; `--broker=containers` takes them from Docker.
Tests that kill or pause servers start their own: see `busbar.local.kafka.KafkaCluster` and `PostgresServer`.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from busbar.local.kafka import TEST, KafkaCluster
from busbar.local.postgres import PostgresServer
from busbar.postgres import migrate
from tests.support import containers, kafka_topics

_TEMPLATE = "busbar_template"
_numbers = itertools.count(1)


def add_options(parser: pytest.Parser) -> None:
    """`--broker`, for `conftest.py`."""
    parser.addoption(
        "--broker",
        choices=("local", "containers"),
        default="local",
        help="where integration tests take Kafka and PostgreSQL from: this machine, or a Docker engine",
    )


@pytest.fixture(scope="session")
async def kafka_servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Bootstrap servers of a real Kafka broker that the whole run shares. Kill your own, not this one."""
    if request.config.getoption("--broker") == "containers":
        with containers.kafka() as servers:
            yield servers
        return
    folder = tmp_path_factory.mktemp("kafka")
    async with KafkaCluster(folder, profile=TEST) as cluster:
        yield cluster.bootstrap_servers
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
async def _created_topics(kafka_servers: str) -> str:
    await kafka_topics.create(kafka_servers)
    return kafka_servers


@pytest.fixture(scope="module")
async def topics(_created_topics: str) -> str:
    """Bootstrap servers of a broker that has every topic (profile `local`), all of them empty.

    Empty means that older records are gone; offsets go on from where they were, as they do in production. Compacted
    topics keep their records: use station ids of your own.
    """
    await kafka_topics.empty(_created_topics)
    return _created_topics


@pytest.fixture(scope="session")
async def _postgres_admin_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    if request.config.getoption("--broker") == "containers":
        with containers.postgres() as url:
            yield url
        return
    server = PostgresServer(tmp_path_factory.mktemp("postgres") / "server")
    try:
        await server.start()
        yield server.url_of("postgres")
    finally:
        await server.remove()


@pytest.fixture(scope="session")
async def _template_database(_postgres_admin_url: str) -> str:
    await _execute(_postgres_admin_url, f"CREATE DATABASE {_TEMPLATE}")
    await migrate(_with_database(_postgres_admin_url, _TEMPLATE))
    return _postgres_admin_url


@pytest.fixture(scope="module")
async def postgres_url(_template_database: str) -> AsyncIterator[str]:
    """The URL of a fresh database with all tables, which only this test module uses."""
    name = f"test_{next(_numbers)}"
    await _execute(_template_database, f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
    yield _with_database(_template_database, name)
    await _execute(_template_database, f"DROP DATABASE {name} WITH (FORCE)")


def port_of(url: str) -> int:
    """The port in a database's URL."""
    return urlsplit(url).port or 5432


def with_port(url: str, port: int) -> str:
    """The same database by way of another port on this machine."""
    return url.replace(f":{port_of(url)}/", f":{port}/")


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(30):
            await connection.execute(statement)
    finally:
        await connection.close()


def _with_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
