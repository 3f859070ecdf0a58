"""The router's settings."""

from __future__ import annotations

from dataclasses import dataclass

from busbar.config import Env, database_url, kafka_bootstrap_servers
from services.router.commands import CommandRules
from services.router.core import Rules
from services.router.presence import PresenceRules


@dataclass(frozen=True, slots=True)
class RouterConfig:
    """What the environment says."""

    bootstrap_servers: str
    database_url: str
    rules: Rules
    edge_silent_seconds: float
    """`BUSBAR_ROUTER_EDGE_SILENT_SECONDS`: after how long without a word an edge counts as gone."""
    keep_commands_days: float
    """`BUSBAR_ROUTER_KEEP_COMMANDS_DAYS`: how long finished commands stay in Postgres."""

    @classmethod
    def from_env(cls, env: Env) -> RouterConfig:
        """Read the settings. Raises `ConfigError`."""
        grace = env.seconds("BUSBAR_ROUTER_CLOSE_GRACE_SECONDS", 10)
        undelivered_wait = env.seconds("BUSBAR_ROUTER_UNDELIVERED_WAIT_SECONDS", 5)
        return cls(
            bootstrap_servers=kafka_bootstrap_servers(env),
            database_url=database_url(env),
            rules=Rules(
                PresenceRules(close_grace_ms=round(grace * 1000)),
                CommandRules(undelivered_wait_ms=round(undelivered_wait * 1000)),
            ),
            edge_silent_seconds=env.seconds("BUSBAR_ROUTER_EDGE_SILENT_SECONDS", 15, minimum=1),
            keep_commands_days=env.seconds("BUSBAR_ROUTER_KEEP_COMMANDS_DAYS", 90, minimum=1),
        )
