"""Keeping API keys from the command line: `python -m services.api create-key | list-keys | revoke-key`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from busbar.config import Env, database_url
from services.api.auth import ROLES, ApiKey, new_key

CREATE_KEY = """
INSERT INTO config.api_keys (key_id, key_hash, name, role, expires_at) VALUES ($1, $2, $3, $4, $5)
"""

LIST_KEYS = """
SELECT key_id, key_hash, name, role, expires_at, revoked_at, created_at FROM config.api_keys ORDER BY created_at
"""

REVOKE_KEY = """
UPDATE config.api_keys SET revoked_at = now() WHERE key_id = $1 AND revoked_at IS NULL RETURNING key_id
"""


def arguments() -> argparse.ArgumentParser:
    """The command line of the API."""
    parser = argparse.ArgumentParser(
        prog="python -m services.api",
        description="Without a command: serve the HTTP API. The database is the one that DATABASE_URL names.",
    )
    commands = parser.add_subparsers(dest="command")
    create = commands.add_parser("create-key", help="make an API key and print it, once")
    create.add_argument("--name", required=True, help="who uses it; shown with what is done by it")
    create.add_argument("--role", choices=ROLES, default="viewer")
    create.add_argument("--expires-days", type=float, help="after how many days it is of no use any more")
    commands.add_parser("list-keys", help="show all keys, without their secrets")
    revoke = commands.add_parser("revoke-key", help="put a key out of use")
    revoke.add_argument("key_id", help="the part between the underscores")
    return parser


async def create_key(
    connection: asyncpg.Connection[Any], name: str, role: str, expires_at: datetime | None = None
) -> str:
    """Make a key and return it whole. It is not kept anywhere."""
    key_id, key, key_hash = new_key()
    await connection.execute(CREATE_KEY, key_id, key_hash, name, role, expires_at)
    return key


async def list_keys(connection: asyncpg.Connection[Any]) -> list[str]:
    """A line for each key."""
    lines = []
    for row in await connection.fetch(LIST_KEYS):
        key = ApiKey(*(row[name] for name in ApiKey.__slots__))
        state = key.why_not(datetime.now(UTC)) or "in force"
        lines.append(f"{key.key_id}  {key.role:8}  {row['created_at']:%Y-%m-%d}  {key.name}  ({state})")
    return lines


async def revoke_key(connection: asyncpg.Connection[Any], key_id: str) -> bool:
    """Put a key out of use; whether it was in use."""
    return await connection.fetchval(REVOKE_KEY, key_id) is not None


def run(options: argparse.Namespace) -> int:
    """Carry out a command of the command line; returns the exit code."""
    try:
        return asyncio.run(_run(options, database_url(Env())))
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        print(f"the database cannot be used ({error}): check DATABASE_URL", file=sys.stderr)
        return 1


async def _run(options: argparse.Namespace, url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        if options.command == "create-key":
            expires_at = None
            if options.expires_days is not None:
                expires_at = datetime.now(UTC) + timedelta(days=options.expires_days)
            key = await create_key(connection, options.name, options.role, expires_at)
            print(key)
            print("Keep it: it is not shown again.", file=sys.stderr)
        elif options.command == "list-keys":
            print("\n".join(await list_keys(connection)) or "There are no keys.")
        elif not await revoke_key(connection, options.key_id):
            print(f"there is no key {options.key_id!r} in use: see list-keys", file=sys.stderr)
            return 1
        return 0
    finally:
        await connection.close()
