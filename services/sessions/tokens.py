"""Whether an id token may charge: status, time, place, and what it is already used for."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from hashlib import blake2b
from typing import Any

ACCEPTED = "Accepted"
_KEY_LIMIT = 255

_STATUSES = frozenset(
    (
        "Accepted",
        "Blocked",
        "ConcurrentTx",
        "Expired",
        "Invalid",
        "NoCredit",
        "NotAllowedTypeEVSE",
        "NotAtThisLocation",
        "NotAtThisTime",
        "Unknown",
    )
)
"""AuthorizationStatusEnumType of 2.x."""

_STATUS_16 = {
    "Accepted": "Accepted",
    "Blocked": "Blocked",
    "ConcurrentTx": "ConcurrentTx",
    "Expired": "Expired",
    "NoCredit": "Blocked",
    "NotAtThisTime": "Blocked",
}
"""What 1.6 has no word for is Invalid, or Blocked where the token itself is known and good."""


@dataclass(frozen=True, slots=True)
class Token:
    """A row of `config.tokens`."""

    key: str
    id_token: str
    id_token_type: str
    status: str
    expires_at_ms: int | None = None
    valid_from_ms: int | None = None
    group_id: str = ""
    cache_expires_seconds: int | None = None
    allow_concurrent: bool = False
    max_concurrent: int = 1
    allowed_stations: frozenset[str] | None = None
    allowed_sites: frozenset[str] | None = None
    language: str = ""
    max_cost: Decimal | None = None
    """Of one session, taxes included."""
    max_energy_wh: int | None = None
    max_time_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Authorization:
    """The answer to a token, in the words of 2.x."""

    status: str
    group_id: str = ""
    cache_until_ms: int | None = None
    """How long the station may keep the answer."""
    language: str = ""

    @property
    def status_16(self) -> str:
        return _STATUS_16.get(self.status, "Invalid")


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """What applies to all tokens."""

    accept_unknown: bool = False
    """Accept tokens that are not in `config.tokens`, for sites that are open to everyone."""
    cache_seconds: int = 86_400
    """How long stations may keep an answer, where the token says nothing of its own."""


def token_key(id_token: str) -> str:
    """The key of `config.tokens`. Tokens compare without regard to case (CiString); blanks around them do not count."""
    key = id_token.strip().casefold()
    if len(key) > _KEY_LIMIT:
        return f"{key[:64]}#{blake2b(key.encode(), digest_size=16).hexdigest()}"
    return key


def authorize(
    token: Token | None,
    *,
    policy: TokenPolicy,
    station_id: str,
    site_id: str,
    at_ms: int,
    uses: int | None = None,
) -> Authorization:
    """Answer a token.

    Args:
        token: As configured; `None` if it is not.
        at_ms: When the question was received.
        uses: Sessions that the token already has open; `None` where that does not matter. Spec: OCPP 1.6 §7.2 and
            2.0.1 AuthorizationStatusEnumType: ConcurrentTx is only relevant for the start of a transaction.
    """
    if token is None:
        if not policy.accept_unknown:
            return Authorization("Unknown")
        return Authorization(ACCEPTED, cache_until_ms=at_ms + policy.cache_seconds * 1000)
    status = _status(token, station_id, site_id, at_ms)
    if status == ACCEPTED and uses is not None and not token.allow_concurrent and uses >= token.max_concurrent:
        status = "ConcurrentTx"
    seconds = policy.cache_seconds if token.cache_expires_seconds is None else token.cache_expires_seconds
    cache_until_ms = at_ms + seconds * 1000
    if token.expires_at_ms is not None and status == ACCEPTED:
        cache_until_ms = min(cache_until_ms, token.expires_at_ms)
    return Authorization(status, token.group_id, cache_until_ms, token.language)


def _status(token: Token, station_id: str, site_id: str, at_ms: int) -> str:
    if token.status != ACCEPTED:
        return token.status if token.status in _STATUSES else "Invalid"
    if token.expires_at_ms is not None and at_ms >= token.expires_at_ms:
        return "Expired"
    if token.valid_from_ms is not None and at_ms < token.valid_from_ms:
        return "NotAtThisTime"
    stations, sites = token.allowed_stations, token.allowed_sites
    if stations is None and sites is None:
        return ACCEPTED
    at_home = (stations is not None and station_id in stations) or (sites is not None and site_id in sites)
    return ACCEPTED if at_home else "NotAtThisLocation"


def read_token(row: list[Any]) -> Token:
    """A token from the values that `store` selects."""
    key, id_token, kind, status, expires, valid_from, group, cache, concurrent, most, stations, sites = row[:12]
    language, max_cost, max_energy_wh, max_time_seconds = row[12:]
    return Token(
        key=key,
        id_token=id_token,
        id_token_type=kind,
        status=status,
        expires_at_ms=expires,
        valid_from_ms=valid_from,
        group_id=group or "",
        cache_expires_seconds=cache,
        allow_concurrent=concurrent,
        max_concurrent=most,
        allowed_stations=None if stations is None else frozenset(stations),
        allowed_sites=None if sites is None else frozenset(sites),
        language=language or "",
        max_cost=None if max_cost is None else Decimal(max_cost),
        max_energy_wh=max_energy_wh,
        max_time_seconds=max_time_seconds,
    )
