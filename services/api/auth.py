"""API keys: `Authorization: Bearer bsb_<key id>_<secret>`, with roles viewer < operator < admin.

The database holds SHA-256 of the secrets, which have 256 random bits. All keys are kept in memory and read anew
every few seconds, so that a request costs no query and a key that is revoked stops working soon.
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import hmac
import logging
import secrets
import time
from base64 import b64decode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg

from busbar.postgres import DATABASE_ERRORS
from services.api import metrics
from services.api.problems import Problem, unavailable

logger = logging.getLogger(__name__)

ROLES = ("viewer", "operator", "admin")
"""In rising order: each may do what those before it may."""

_RANK = {role: rank for rank, role in enumerate(ROLES)}
_UNKNOWN = hashlib.sha256(b"").digest()
_HEADER_LIMIT = 512

LOAD_KEYS = "SELECT key_id, key_hash, name, role, expires_at, revoked_at FROM config.api_keys"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is stored: without its secret."""

    key_id: str
    key_hash: bytes
    name: str
    role: str
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def why_not(self, now: datetime) -> str | None:
        """Why the key is of no use any more; `None` if it is."""
        if self.revoked_at is not None and self.revoked_at <= now:
            return "the key was revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "the key has expired"
        return None

    def may(self, role: str) -> bool:
        """Whether the key's role includes this one."""
        return _RANK[self.role] >= _RANK[role]


def new_key() -> tuple[str, str, bytes]:
    """A new key id, the whole key as its owner gets it, and what to store of it."""
    key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    return key_id, f"bsb_{key_id}_{secret}", hash_secret(secret)


def hash_secret(secret: str) -> bytes:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode()).digest()


def split_key(text: str) -> tuple[str, str] | None:
    """Key id and secret of a whole key; `None` if it is not one."""
    parts = text.split("_", 2)
    return (parts[1], parts[2]) if len(parts) == 3 and parts[0] == "bsb" and all(parts) else None


def read_authorization(header: str | None, *, basic: bool = False) -> tuple[str, str] | None:
    """Key id and secret of an `Authorization` header.

    Args:
        basic: Whether Basic authentication will do too, with the key as the password: for tools that know no other.
    """
    if header is None or len(header) > _HEADER_LIMIT:
        return None
    scheme, _, rest = header.partition(" ")
    if scheme.lower() == "bearer":
        return split_key(rest.strip())
    if basic and scheme.lower() == "basic":
        try:
            return split_key(b64decode(rest.strip(), validate=True).decode().partition(":")[2])
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None


class KeyRing:
    """The keys that are in force.

    Args:
        refresh_seconds: How long a revoked key may go on working.
        stale_seconds: For how long the keys are trusted while the database is away.
    """

    def __init__(self, pool: asyncpg.Pool[Any], *, refresh_seconds: float = 5.0, stale_seconds: float = 600.0) -> None:
        self._pool = pool
        self._refresh_seconds = refresh_seconds
        self._stale_seconds = stale_seconds
        self._keys: dict[str, ApiKey] = {}
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def refresh(self) -> None:
        """Read all keys."""
        rows = await self._pool.fetch(LOAD_KEYS)
        self._keys = {row["key_id"]: ApiKey(**row) for row in rows}
        self._read_at = time.monotonic()

    async def run(self) -> None:
        """Go on reading them, until cancelled."""
        while True:
            await asyncio.sleep(self._refresh_seconds)
            try:
                await self.refresh()
            except DATABASE_ERRORS as error:
                logger.warning("the API keys could not be read", extra={"error": repr(error)})

    def problem(self) -> str | None:
        """That the database has not been read for a while, if so."""
        age = time.monotonic() - self._read_at
        return f"PostgreSQL has not answered for {age:.0f} s" if age > 4 * self._refresh_seconds else None

    async def require(self, header: str | None, role: str, *, basic: bool = False) -> ApiKey:
        """The key of a request, if it is in force and its role suffices.

        Raises:
            Problem: 401 without a key that is in force, 403 if its role does not suffice.
        """
        credentials = read_authorization(header, basic=basic)
        if credentials is None:
            raise _unauthorized("missing", "Send `Authorization: Bearer bsb_<key id>_<secret>`.", basic)
        key_id, secret = credentials
        key = self._keys.get(key_id)
        if key is None:
            await self._catch_up()
            key = self._keys.get(key_id)
        if time.monotonic() - self._read_at > self._stale_seconds:
            raise unavailable("database", "API keys cannot be checked.")
        matches = hmac.compare_digest(hash_secret(secret), _UNKNOWN if key is None else key.key_hash)
        if key is None or not matches:
            raise _unauthorized("unknown", "There is no such key.", basic)
        why_not = key.why_not(datetime.now(UTC))
        if why_not is not None:
            raise _unauthorized("void", f"Of no use any more: {why_not}.", basic)
        if not key.may(role):
            metrics.REFUSED.labels("role").inc()
            detail = f"This needs the role {role}; the key's role is {key.role}."
            raise Problem(403, "forbidden", "The key's role does not suffice", detail)
        return key

    async def _catch_up(self) -> None:
        """Read the keys because one is not known, which may be new; not more than once a second."""
        if time.monotonic() - self._read_at < 1.0:
            return
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self.refresh())
        await asyncio.shield(self._reading)


def _unauthorized(reason: str, detail: str, basic: bool) -> Problem:
    metrics.REFUSED.labels(reason).inc()
    challenge = 'Bearer realm="busbar"' + (', Basic realm="busbar"' if basic else "")
    return Problem(401, "unauthorized", "No valid API key", detail, headers={"WWW-Authenticate": challenge})
