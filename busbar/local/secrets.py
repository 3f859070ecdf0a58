"""The stack's own secrets: the key of its administrator and the pepper of the stations' passwords.

Both are files in the project's folder that only their owner may read; they are made once and kept.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from pathlib import Path

import asyncpg

from busbar.local.errors import StackError
from busbar.local.postgres_files import write_secret

_KEY = re.compile(r"bsb_(?P<key_id>[0-9a-zA-Z]+)_(?P<secret>[0-9a-zA-Z_-]{32,})")


def ensure_pepper(path: Path) -> bytes:
    """The pepper in this file, made on the first call: 32 bytes in Base64."""
    if not path.exists():
        write_secret(path, base64.b64encode(secrets.token_bytes(32)).decode())
    try:
        pepper = base64.b64decode(path.read_text().strip(), validate=True)
    except ValueError:
        pepper = b""
    if len(pepper) < 16:
        raise StackError(f"{path} is not a pepper in Base64: put the old one back, or `make clean`")
    return pepper


def ensure_admin_key(path: Path) -> str:
    """The API key in this file, made on the first call: `bsb_<key id>_<secret>`."""
    if not path.exists():
        write_secret(path, f"bsb_{secrets.token_hex(6)}_{secrets.token_hex(32)}")
    key = path.read_text().strip()
    if _KEY.fullmatch(key) is None:
        raise StackError(f"{path} is not an API key: remove it to have a new one made")
    return key


async def register_admin_key(key: str, connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Let the API know the key, with the role `admin`. A key that was revoked stays revoked."""
    match = _KEY.fullmatch(key)
    if match is None:
        raise ValueError("not an API key")
    await connection.execute(
        "INSERT INTO config.api_keys (key_id, key_hash, name, role) VALUES ($1, $2, 'admin', 'admin')"
        " ON CONFLICT (key_id) DO NOTHING",
        match["key_id"],
        hashlib.sha256(match["secret"].encode()).digest(),
    )
