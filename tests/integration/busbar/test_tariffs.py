"""The tariff book against a real PostgreSQL: what it reads, and when it reads again."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from busbar.pricing.assignment import SessionStart
from busbar.pricing.jsontext import serialize_json
from busbar.tariffs import TariffBook
from tests.unit.pricing.builders import component, element, tariff_json

if TYPE_CHECKING:
    Connection = asyncpg.Connection[Any]


@pytest.fixture
async def connection(postgres_url: str) -> AsyncIterator[Connection]:
    opened = await asyncpg.connect(postgres_url)
    for table in ("tariffs", "tariff_assignments", "sites"):
        await opened.execute(f"DELETE FROM config.{table}")
    yield opened
    await opened.close()


async def add_version(connection: Connection, tariff_id: str, version: int, price: str = "1", ahead_s: int = 0) -> None:
    content = serialize_json(tariff_json(element(component("FLAT", price))))
    await connection.execute(
        "INSERT INTO config.tariffs (tariff_id, version, content, format, currency, fingerprint, valid_from)"
        " VALUES ($1, $2, $3, 'ocpi-2.3.0', 'EUR', 'f', now() + $4 * interval '1 second')",
        tariff_id,
        version,
        content,
        ahead_s,
    )


async def assign(connection: Connection, tariff_id: str, scope: str, subject: str = "") -> uuid.UUID:
    assignment_id = uuid.uuid4()
    await connection.execute(
        "INSERT INTO config.tariff_assignments (assignment_id, tariff_id, scope, subject, valid_from)"
        " VALUES ($1, $2, $3, $4, now())",
        assignment_id,
        tariff_id,
        scope,
        subject,
    )
    return assignment_id


def chosen(book: TariffBook, *, after_s: int = 1, **known: Any) -> tuple[str, int] | None:
    at_ms = int((datetime.now(UTC) + timedelta(seconds=after_s)).timestamp() * 1000)
    version = book.decide(SessionStart(at_ms, "CS-1", **known)).version
    return None if version is None else (version.tariff_id, version.version)


async def test_what_is_configured_is_read_once_and_again_when_it_has_changed(connection: Connection) -> None:
    book = TariffBook()
    assert await book.refresh(connection)
    assert chosen(book) is None
    assert not book.assigns
    await add_version(connection, "A", 1)
    first = await assign(connection, "A", "default")
    assert await book.refresh(connection)
    assert not await book.refresh(connection)
    assert chosen(book) == ("A", 1)
    await add_version(connection, "A", 2, ahead_s=3600)
    await add_version(connection, "B", 1)
    await assign(connection, "B", "token", "abc")
    assert await book.refresh(connection)
    assert chosen(book) == ("A", 1)
    assert chosen(book, after_s=3700) == ("A", 2)
    assert chosen(book, token_key="abc") == ("B", 1)
    await connection.execute("UPDATE config.tariff_assignments SET valid_until = now() WHERE assignment_id = $1", first)
    assert chosen(book) == ("A", 1)
    assert await book.refresh(connection)
    assert chosen(book) is None


async def test_a_version_that_was_removed_is_for_nobody(connection: Connection) -> None:
    book = TariffBook()
    await add_version(connection, "A", 1)
    await add_version(connection, "A", 2, ahead_s=3600)
    await assign(connection, "A", "default")
    await connection.execute("UPDATE config.tariffs SET removed_at = now() WHERE version = 2")
    await book.refresh(connection)
    assert chosen(book, after_s=3700) == ("A", 1)


async def test_a_version_can_be_loaded_alone(connection: Connection) -> None:
    book = TariffBook()
    await add_version(connection, "A", 1)
    await book.load(connection, [("A", 1), ("A", 9), ("missing", 1)])
    assert book.pricer("A", 1, "UTC").tariff.currency == "EUR"
    with pytest.raises(KeyError):
        book.pricer("A", 9, "UTC")
    await add_version(connection, "A", 9)
    await book.load(connection, [("A", 9)])
    assert book.pricer("A", 9, "UTC")


async def test_a_site_says_whose_wall_clock_decides(connection: Connection) -> None:
    book = TariffBook("Europe/Paris")
    await book.refresh(connection)
    assert book.time_zone("S1") == "Europe/Paris"
    await connection.execute(
        "INSERT INTO config.sites (site_id, time_zone, city, latitude) VALUES ('S1', 'Asia/Tokyo', 'Tokyo', 35.68)"
    )
    await book.refresh(connection)
    assert book.time_zone("S1") == "Asia/Tokyo"
    site = book.site("S1")
    assert site is not None
    assert (site.city, str(site.latitude)) == ("Tokyo", "35.68")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE config.tariffs SET valid_from = created_at - interval '1 second'",
        "UPDATE config.tariffs SET removed_at = valid_from + interval '1 second'",
        "UPDATE config.tariff_assignments SET valid_from = created_at - interval '1 second'",
        "UPDATE config.tariff_assignments SET valid_until = valid_from - interval '1 second'",
        "UPDATE config.tariff_assignments SET subject = 'x'",
        "UPDATE config.tariff_assignments SET scope = 'token'",
        "INSERT INTO config.tariff_revision VALUES (true, 7)",
    ],
)
async def test_nothing_takes_effect_before_it_was_made(connection: Connection, statement: str) -> None:
    await add_version(connection, "A", 1)
    await assign(connection, "A", "default")
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await connection.execute(statement)
