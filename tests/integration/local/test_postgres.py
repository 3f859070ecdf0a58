"""The embedded PostgreSQL: durable, restartable, and careful with other people's folders."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from busbar.local import postgres_files
from busbar.local.errors import StackError
from busbar.local.postgres import PostgresServer, check_database

ROOT = os.geteuid() == 0


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[PostgresServer]:
    """A server of the test's own, in a home that nobody else may enter."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    found = PostgresServer(home / ".busbar" / "postgres")
    try:
        await found.start()
        yield found
    finally:
        await found.remove()


async def test_what_is_committed_survives_kill_and_restart(server: PostgresServer) -> None:
    url = server.url
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE numbers (n int)")
    for number in range(3):
        await connection.execute("INSERT INTO numbers VALUES ($1)", number)
        await server.kill()
        await server.restart()
        assert server.url == url
        connection = await asyncpg.connect(url)
    assert [row["n"] for row in await connection.fetch("SELECT n FROM numbers ORDER BY n")] == [0, 1, 2]
    await connection.close()
    await server.stop()
    await server.start()
    connection = await asyncpg.connect(server.url)
    assert await connection.fetchval("SELECT count(*) FROM numbers") == 3
    await connection.close()


async def test_it_is_durable_and_as_large_as_the_services_need(server: PostgresServer) -> None:
    connection = await asyncpg.connect(server.url)
    settings = {row["name"]: row["setting"] for row in await connection.fetch("SELECT name, setting FROM pg_settings")}
    await connection.close()
    assert (settings["fsync"], settings["synchronous_commit"], settings["full_page_writes"]) == ("on", "on", "on")
    assert settings["max_connections"] == "200"
    assert settings["listen_addresses"] == "127.0.0.1"
    assert settings["TimeZone"] == "UTC"
    assert settings["server_encoding"] == "UTF8"


async def test_nobody_gets_in_without_the_password(server: PostgresServer) -> None:
    for url in (
        f"postgresql://busbar@127.0.0.1:{server.port}/busbar",
        f"postgresql://busbar:wrong@127.0.0.1:{server.port}/busbar",
    ):
        with pytest.raises((asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError)):
            await asyncpg.connect(url, passfile=str(server.folder / "no-such-file"))
    assert stat.S_IMODE((server.folder / "password").stat().st_mode) == 0o600


async def test_the_permissions_of_the_home_stay_as_they_are(server: PostgresServer) -> None:
    home = server.folder.parent.parent
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


@pytest.mark.skipif(not ROOT, reason="only root has to run it as somebody else")
async def test_started_by_root_it_runs_as_somebody_without_rights(server: PostgresServer) -> None:
    assert server.process is not None
    assert server.files is not None
    assert psutil.Process(server.process.pid).uids().effective not in (0, os.geteuid())
    assert server.files.data.stat().st_uid != 0
    assert stat.S_IMODE(server.files.data.stat().st_mode) == 0o700
    assert server.files.programs.joinpath("postgres").stat().st_uid == 0
    assert "as the user nobody" in server.where


@pytest.mark.skipif(not ROOT, reason="only root's data lies elsewhere")
async def test_data_whose_project_was_removed_by_hand_is_swept(server: PostgresServer) -> None:
    assert server.files is not None
    home = server.files.data.parent
    await server.stop()
    server.files.password_path.unlink()
    postgres_files.prepare(server.folder.parent / "another")
    assert not home.exists()
    postgres_files.remove(server.folder.parent / "another")


async def test_remove_leaves_nothing(server: PostgresServer) -> None:
    assert server.files is not None
    data = server.files.data
    await server.remove()
    assert not data.exists()
    assert not server.folder.exists()


async def test_a_server_that_cannot_start_says_why_at_once(server: PostgresServer) -> None:
    await server.stop()
    assert server.files is not None
    (server.files.data / "PG_VERSION").write_text("9\n")
    with pytest.raises(StackError, match=r"PostgreSQL ended with 1 at its start: .*version 9.*; see .*postgres\.log"):
        await server.start()


async def test_a_given_database_is_tried_and_its_version_told(server: PostgresServer) -> None:
    assert (await check_database(server.url)).startswith("18.")


async def test_a_given_database_that_cannot_be_used_is_named_without_its_password(server: PostgresServer) -> None:
    with pytest.raises(StackError, match=r"DATABASE_URL: .*127\.0\.0\.1:\d+/busbar refuses") as refused:
        await check_database(f"postgresql://busbar:s3cret@127.0.0.1:{server.port}/busbar")
    with pytest.raises(StackError, match=r"DATABASE_URL: .*does not exist.*createdb"):
        await check_database(server.url_of("nothing"))
    with pytest.raises(StackError, match=r"DATABASE_URL: 127\.0\.0\.1:1/x cannot be reached") as away:
        await check_database("postgresql://u:s3cret@127.0.0.1:1/x")
    assert "s3cret" not in str(refused.value) + str(away.value)
