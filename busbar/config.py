"""Reading settings from the environment, with errors that name the variable and the remedy."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")


class ConfigError(ValueError):
    """A setting that cannot be used. The message names it and never repeats a secret."""


class Env:
    """Typed access to environment variables.

    Args:
        values: The environment; `os.environ` unless a test gives another.
    """

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self._values = os.environ if values is None else values

    def text(self, name: str, default: str | None = None) -> str:
        """A string. Raises `ConfigError` if it is absent and has no default."""
        value = self._values.get(name, "")
        if value:
            return value
        if default is None:
            raise ConfigError(f"{name} is not set")
        return default

    def integer(self, name: str, default: int, *, minimum: int | None = None) -> int:
        return self._number(name, default, int, "a whole number", minimum)

    def seconds(self, name: str, default: float, *, minimum: float = 0.0) -> float:
        """A duration in seconds, fractions allowed."""
        return self._number(name, default, float, "a number of seconds", minimum)

    def flag(self, name: str, default: bool) -> bool:
        """`1/true/yes/on` or `0/false/no/off`."""
        raw = self._values.get(name, "").strip().lower()
        if not raw:
            return default
        if raw in ("1", "true", "yes", "on"):
            return True
        if raw in ("0", "false", "no", "off"):
            return False
        raise ConfigError(f"{name}: {raw!r} is neither true nor false")

    def address(self, name: str, default: str) -> tuple[str, int]:
        """`HOST:PORT`; port 0 asks for a free one."""
        raw = self.text(name, default)
        host, separator, port = raw.rpartition(":")
        if not separator or not port.isdigit() or int(port) > 65535:
            raise ConfigError(f"{name}: {raw!r} is not HOST:PORT")
        return host.strip("[]") or "127.0.0.1", int(port)

    def _number(self, name: str, default: T, parse: Callable[[str], T], what: str, minimum: float | None) -> T:
        raw = self._values.get(name, "")
        if not raw:
            return default
        try:
            value = parse(raw)
        except ValueError:
            raise ConfigError(f"{name}: {raw!r} is not {what}") from None
        if minimum is not None and not value >= minimum:  # type: ignore[operator]
            raise ConfigError(f"{name}: {raw} is below {minimum}")
        return value


def kafka_bootstrap_servers(env: Env) -> str:
    """`KAFKA_BOOTSTRAP_SERVERS`, comma-separated `HOST:PORT`s."""
    return env.text("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092")


def database_url(env: Env) -> str:
    """`DATABASE_URL`, a libpq URL."""
    return env.text("DATABASE_URL", "postgresql://127.0.0.1:5432/busbar")
