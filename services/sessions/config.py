"""Settings of the sessions service, from the environment."""

from __future__ import annotations

from dataclasses import dataclass

from busbar.config import ConfigError, Env, database_url, kafka_bootstrap_servers
from busbar.ocpp.versions import Version
from busbar.stream.worker import WorkerSettings
from busbar.tariffs import time_zone_setting
from busbar.topics import all_topics, partition_profiles, station_topic
from services.sessions.model import Policy
from services.sessions.tokens import TokenPolicy


@dataclass(frozen=True, slots=True)
class Config:
    """What the service is started with."""

    bootstrap_servers: str
    database_url: str
    partitions: int
    policy: Policy
    worker: WorkerSettings
    time_zone: str

    @classmethod
    def from_env(cls, env: Env) -> Config:
        """Read the `BUSBAR_SESSIONS_…` settings."""
        return cls(
            bootstrap_servers=kafka_bootstrap_servers(env),
            database_url=database_url(env),
            partitions=_partitions(env),
            policy=Policy(
                tokens=TokenPolicy(
                    accept_unknown=env.flag("BUSBAR_SESSIONS_ACCEPT_UNKNOWN_TOKENS", False),
                    cache_seconds=env.integer("BUSBAR_SESSIONS_TOKEN_CACHE_SECONDS", 86_400, minimum=0),
                ),
                max_power_w=env.integer("BUSBAR_SESSIONS_MAX_POWER_W", 500_000, minimum=1),
                unattributed_tolerance_uwh=_micro(env, "BUSBAR_SESSIONS_UNATTRIBUTED_TOLERANCE_WH", 0),
                open_timeout_ms=_milliseconds(env, "BUSBAR_SESSIONS_OPEN_TIMEOUT_SECONDS", 86_400),
                silent_timeout_ms=_milliseconds(env, "BUSBAR_SESSIONS_SILENT_TIMEOUT_SECONDS", 900),
                silent_intervals=env.integer("BUSBAR_SESSIONS_SILENT_INTERVALS", 5, minimum=1),
                gap_query_ms=_milliseconds(env, "BUSBAR_SESSIONS_GAP_QUERY_SECONDS", 60),
                gap_timeout_ms=_milliseconds(env, "BUSBAR_SESSIONS_GAP_TIMEOUT_SECONDS", 900),
                reservation_grace_ms=_milliseconds(env, "BUSBAR_SESSIONS_RESERVATION_GRACE_SECONDS", 300),
            ),
            worker=WorkerSettings.from_env(env),
            time_zone=time_zone_setting(env),
        )


def _milliseconds(env: Env, name: str, default: float) -> int:
    return int(env.seconds(name, default, minimum=1.0) * 1000)


def _micro(env: Env, name: str, default: int) -> int:
    return env.integer(name, default, minimum=0) * 1_000_000


def _partitions(env: Env) -> int:
    """How many partitions the topics of stations have."""
    profile = env.text("BUSBAR_PARTITIONS", "local")
    if profile not in partition_profiles():
        raise ConfigError(f"BUSBAR_PARTITIONS: {profile!r} is none of {', '.join(partition_profiles())}")
    return all_topics()[station_topic(Version.V16, "StartTransaction")].partitions(profile)
