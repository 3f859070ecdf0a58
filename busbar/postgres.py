"""PostgreSQL: pools with the time limits that a fenced processor needs, and migrations.

Each service keeps its tables in a schema of its own name (`sessions`, `stations`, `router`, `config` for what
the API writes, `stream` for the runtime) and its migrations in `migrations/NNNN_title.sql` beside its code.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from busbar.pg_arrays import install

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent
MIGRATION_FOLDERS = (
    "busbar/stream",
    "services/api",
    "services/stations",
    "services/sessions",
    "services/router",
    "services/billing",
)
"""In the order in which they run; each may refer to the tables of those before it."""

CONNECTION_ERRORS = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg raises, beside `PostgresError`, where a connection cannot be used (`TimeoutError` is an `OSError`).

`InternalClientError` comes from a connection that the server has ended in words while nobody was asking: until it is
closed as well, asyncpg holds it for busy.
"""
DATABASE_ERRORS = (*CONNECTION_ERRORS, asyncpg.PostgresError)
"""Whatever keeps a query from its answer."""

IDLE_IN_TRANSACTION_SECONDS = 2.0
"""How long a process that stands still in the middle of a transaction may keep its rows from others."""

_LOCK = 7_215_001


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of SQL, run once in one transaction."""

    name: str
    """`services/api/0001_stations`, as recorded in `public.busbar_migrations`."""
    sql: str


def migrations() -> list[Migration]:
    """All migrations of this version of Busbar, in order."""
    return [
        Migration(f"{folder}/{path.stem}", path.read_text())
        for folder in MIGRATION_FOLDERS
        for path in sorted((ROOT / folder / "migrations").glob("*.sql"))
    ]


async def migrate(url: str) -> list[str]:
    """Bring the database up to date and return the names of what ran. Safe to run from several processes at once."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS public.busbar_migrations ("
            " name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        rows = await connection.fetch("SELECT name FROM public.busbar_migrations")
        done = {row["name"] for row in rows}
        ran = []
        for migration in migrations():
            if migration.name in done:
                continue
            async with connection.transaction():
                await connection.execute(migration.sql)
                await connection.execute("INSERT INTO public.busbar_migrations (name) VALUES ($1)", migration.name)
            ran.append(migration.name)
        return ran
    finally:
        await connection.close()


async def missing_migrations(connection: asyncpg.Connection[asyncpg.Record]) -> Sequence[str]:
    """Which migrations the database lacks; a service refuses to start while there are any."""
    known = await connection.fetchval("SELECT to_regclass('public.busbar_migrations')")
    rows = await connection.fetch("SELECT name FROM public.busbar_migrations") if known else []
    done = {row["name"] for row in rows}
    return [migration.name for migration in migrations() if migration.name not in done]


async def connect(url: str, *, service: str, command_timeout: float = 30.0) -> asyncpg.Connection[asyncpg.Record]:
    """One connection with the limits of `connect_pool`, for statements with long arrays."""
    connection = await asyncpg.connect(url, command_timeout=command_timeout, server_settings=_limits(service))
    install(connection)
    return connection


async def connect_pool(url: str, *, service: str, max_size: int = 4) -> asyncpg.Pool[asyncpg.Record]:
    """A pool whose sessions cannot hold a row for long.

    A process that is stopped inside a transaction would keep its progress row locked; these limits let the
    next owner in after two seconds.
    """
    return await asyncpg.create_pool(
        url, min_size=1, max_size=max_size, command_timeout=30, server_settings=_limits(service)
    )


def _limits(service: str) -> dict[str, str]:
    return {
        "application_name": f"busbar-{service}",
        "idle_in_transaction_session_timeout": str(round(IDLE_IN_TRANSACTION_SECONDS * 1000)),
        "statement_timeout": "20000",
        "tcp_keepalives_idle": "5",
        "tcp_keepalives_interval": "2",
        "tcp_keepalives_count": "3",
    }
