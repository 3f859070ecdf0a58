"""The API's settings."""

from __future__ import annotations

from dataclasses import dataclass

from busbar.config import Env, database_url, kafka_bootstrap_servers
from busbar.passwords import read_pepper
from busbar.tariffs import time_zone_setting


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """What the environment says."""

    bootstrap_servers: str = ""
    database_url: str = ""
    listen: tuple[str, int] = ("127.0.0.1", 9410)
    """`BUSBAR_API_LISTEN`."""
    pepper: bytes = b""
    """`BUSBAR_PASSWORD_PEPPER`; without it no passwords can be generated."""
    open_registry: bool = False
    """`BUSBAR_API_OPEN_REGISTRY`: whether schemas can be read without a key, for tools that cannot send one."""
    open_docs: bool = False
    """`BUSBAR_API_OPEN_DOCS`: whether the OpenAPI document can be read without a key."""
    max_body_bytes: int = 1024 * 1024
    """`BUSBAR_API_MAX_BODY_BYTES`."""
    database_connections: int = 8
    """`BUSBAR_API_DATABASE_CONNECTIONS`."""
    station_cache_seconds: float = 2.0
    """`BUSBAR_API_STATION_CACHE_SECONDS`: for how long a station's version is not looked up again for a command."""
    max_waiting: int = 20_000
    """`BUSBAR_API_MAX_WAITING`: requests that may wait for the outcome of a command at a time."""
    receipt_seller: str = ""
    """`BUSBAR_RECEIPT_SELLER`: who sells, as it stands on receipts."""
    time_zone: str = "UTC"
    """`BUSBAR_TIME_ZONE`: the wall clock of stations whose site has none, for tariffs."""

    @classmethod
    def from_env(cls, env: Env) -> ApiConfig:
        """Read the settings. Raises `ConfigError`."""
        defaults = cls()
        return cls(
            bootstrap_servers=kafka_bootstrap_servers(env),
            database_url=database_url(env),
            listen=env.address("BUSBAR_API_LISTEN", "127.0.0.1:9410"),
            pepper=read_pepper(env),
            open_registry=env.flag("BUSBAR_API_OPEN_REGISTRY", defaults.open_registry),
            open_docs=env.flag("BUSBAR_API_OPEN_DOCS", defaults.open_docs),
            max_body_bytes=env.integer("BUSBAR_API_MAX_BODY_BYTES", defaults.max_body_bytes, minimum=1024),
            database_connections=env.integer(
                "BUSBAR_API_DATABASE_CONNECTIONS", defaults.database_connections, minimum=1
            ),
            station_cache_seconds=env.seconds("BUSBAR_API_STATION_CACHE_SECONDS", defaults.station_cache_seconds),
            max_waiting=env.integer("BUSBAR_API_MAX_WAITING", defaults.max_waiting, minimum=1),
            receipt_seller=env.text("BUSBAR_RECEIPT_SELLER", defaults.receipt_seller),
            time_zone=time_zone_setting(env),
        )
