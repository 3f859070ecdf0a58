"""Settings of the stations service, from the environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from busbar.config import ConfigError, Env, database_url, kafka_bootstrap_servers
from services.stations.data_transfer import DEFAULT_TABLE, read_table
from services.stations.policy import Policy


@dataclass(frozen=True, slots=True)
class Config:
    """What the service is started with."""

    bootstrap_servers: str
    database_url: str
    policy: Policy

    @classmethod
    def from_env(cls, env: Env) -> Config:
        """Read the `BUSBAR_STATIONS_…` settings."""
        return cls(
            bootstrap_servers=kafka_bootstrap_servers(env),
            database_url=database_url(env),
            policy=Policy(
                heartbeat_interval_seconds=env.integer("BUSBAR_STATIONS_HEARTBEAT_SECONDS", 300, minimum=1),
                pending_interval_seconds=env.integer("BUSBAR_STATIONS_PENDING_SECONDS", 60, minimum=1),
                rejected_interval_seconds=env.integer("BUSBAR_STATIONS_REJECTED_SECONDS", 600, minimum=1),
                interval_jitter=_share(env, "BUSBAR_STATIONS_INTERVAL_JITTER", 0.1),
                data_transfer=read_table(Path(env.text("BUSBAR_STATIONS_DATA_TRANSFER", str(DEFAULT_TABLE)))),
            ),
        )


def _share(env: Env, name: str, default: float) -> float:
    share = env.seconds(name, default)  # reads any number that is not negative
    if share >= 1:
        raise ConfigError(f"{name}: {share} is not a share below 1")
    return share
