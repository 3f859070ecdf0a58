"""Settings of the billing service, from the environment."""

from __future__ import annotations

from dataclasses import dataclass, replace

from busbar.config import ConfigError, Env, database_url, kafka_bootstrap_servers
from busbar.stream.worker import WorkerSettings
from busbar.tariffs import time_zone_setting
from services.billing.model import Policy


@dataclass(frozen=True, slots=True)
class Config:
    """What the service is started with."""

    bootstrap_servers: str
    database_url: str
    time_zone: str
    policy: Policy
    worker: WorkerSettings

    @classmethod
    def from_env(cls, env: Env) -> Config:
        """Read the `BUSBAR_BILLING_…` settings."""
        return cls(
            bootstrap_servers=kafka_bootstrap_servers(env),
            database_url=database_url(env),
            time_zone=time_zone_setting(env),
            policy=Policy(
                bill_power_integral=env.flag("BUSBAR_BILLING_POWER_INTEGRAL", False),
                country_code=_code(env, "BUSBAR_BILLING_COUNTRY_CODE", 2),
                party_id=_code(env, "BUSBAR_BILLING_PARTY_ID", 3),
            ),
            worker=replace(
                WorkerSettings.from_env(env),
                linger_seconds=env.seconds("BUSBAR_BILLING_LINGER_SECONDS", 1.0),
                batch_limit=10_000,
                buffer_limit=10_000,
            ),
        )


def _code(env: Env, name: str, length: int) -> str:
    """So many letters, or nothing."""
    code = env.text(name, "").upper()
    if code and len(code) != length:
        raise ConfigError(f"{name}: {code!r} has not {length} letters")
    return code
