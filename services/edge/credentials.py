"""Checking passwords without holding up the event loop, and without letting anyone guess for long."""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from hashlib import blake2b

from busbar.passwords import is_slow, verify_password

MAX_REMEMBERED = 200_000
MAX_ADDRESSES = 50_000
MAX_SLOW_CHECKS = 200
"""Waiting or running; each takes about 20 ms of a thread."""


@dataclass(slots=True)
class _Failures:
    count: int
    since: float


class FailureLimit:
    """Wrong passwords per address within a minute.

    Many stations may stand behind one address, and one of them may be misconfigured: the limit per pair of address
    and station is low, that per address is high.
    """

    def __init__(self, *, window_seconds: float = 60.0, per_station: int = 10, per_address: int = 300) -> None:
        self._window = window_seconds
        self._per_station = per_station
        self._per_address = per_address
        self._failures: OrderedDict[tuple[str, str], _Failures] = OrderedDict()

    def is_exceeded(self, address: str, station_id: str, now: float) -> bool:
        """Whether this address has to wait before it may try this station again."""
        return (
            self._count(address, station_id, now) >= self._per_station
            or self._count(address, "", now) >= self._per_address
        )

    def note_failure(self, address: str, station_id: str, now: float) -> None:
        """Count a wrong password."""
        for key in ((address, station_id), (address, "")):
            failures = self._failures.get(key)
            if failures is None or now - failures.since >= self._window:
                self._failures[key] = _Failures(1, now)
            else:
                failures.count += 1
            self._failures.move_to_end(key)
        while len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)

    def _count(self, address: str, station_id: str, now: float) -> int:
        failures = self._failures.get((address, station_id))
        if failures is None or now - failures.since >= self._window:
            return 0
        return failures.count


class PasswordChecker:
    """Checks passwords against stored hashes.

    A password that was right once is remembered by a digest under a key of this process, until the stored hash
    changes: a station that reconnects costs microseconds, also with a slow hash.

    Args:
        executor: Where slow hashes are computed. Its queue is bounded here.
        call_soon_threadsafe: The event loop's; everything but the hashing happens on the loop.
    """

    def __init__(
        self, pepper: bytes, executor: Executor, call_soon_threadsafe: Callable[[Callable[[], None]], object]
    ) -> None:
        self._pepper = pepper
        self._executor = executor
        self._call_soon_threadsafe = call_soon_threadsafe
        self._key = secrets.token_bytes(32)
        self._verified: OrderedDict[str, tuple[str, bytes]] = OrderedDict()
        self._slow = 0

    def is_verified(self, station_id: str, stored: str, passwords: tuple[bytes, ...]) -> bool:
        """Whether one of the passwords was found right before, against the same stored hash."""
        known = self._verified.get(station_id)
        if known is None or known[0] != stored:
            return False
        return any(hmac.compare_digest(self._digest(station_id, password), known[1]) for password in passwords)

    def check(
        self, station_id: str, stored: str, passwords: tuple[bytes, ...], done: Callable[[bool | None], None]
    ) -> None:
        """Check passwords and call `done` once, on the loop: at once, or later for a slow hash.

        `done` is told `None` if too many slow checks are waiting.
        """
        if not is_slow(stored):
            done(self._settle(station_id, stored, _find(stored, passwords, self._pepper)))
            return
        if self._slow >= MAX_SLOW_CHECKS:
            done(None)
            return
        self._slow += 1

        def settle(future: Future[bytes | None]) -> None:
            self._slow -= 1
            found = None if future.cancelled() or future.exception() is not None else future.result()
            done(self._settle(station_id, stored, found))

        future = self._executor.submit(_find, stored, passwords, self._pepper)
        future.add_done_callback(lambda finished: self._call_soon_threadsafe(lambda: settle(finished)))

    def _settle(self, station_id: str, stored: str, password: bytes | None) -> bool:
        if password is None:
            return False
        self._verified[station_id] = (stored, self._digest(station_id, password))
        if len(self._verified) > MAX_REMEMBERED:
            self._verified.popitem(last=False)
        return True

    def _digest(self, station_id: str, password: bytes) -> bytes:
        name = station_id.encode()
        return blake2b(len(name).to_bytes(2) + name + password, key=self._key, digest_size=16).digest()


def _find(stored: str, passwords: tuple[bytes, ...], pepper: bytes) -> bytes | None:
    """The first of the passwords that is the stored one."""
    for password in passwords:
        if verify_password(password, stored, pepper):
            return password
    return None
