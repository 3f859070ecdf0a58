"""Settings of the billing service, from the environment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal

from busbar.config import ConfigError, Env, database_url, kafka_bootstrap_servers
from busbar.stream.worker import WorkerSettings
from busbar.tariffs import time_zone_setting
from busbar.topics import all_topics, partition_profiles
from services.billing.desk.model import DeskPolicy
from services.billing.model import Policy
from services.billing.processor import SESSION_EVENTS_TOPIC
from services.billing.running import Cadence
from services.billing.telling import Telling


@dataclass(frozen=True, slots=True)
class Config:
    """What the service is started with."""

    bootstrap_servers: str
    database_url: str
    time_zone: str
    partitions: int
    policy: Policy
    worker: WorkerSettings
    desk: DeskPolicy
    desk_worker: WorkerSettings
    vat_url: str
    """The service that knows VAT numbers; empty: none is asked."""

    @classmethod
    def from_env(cls, env: Env) -> Config:
        """Read the `BUSBAR_BILLING_…` settings."""
        vat_check = _vat_check(env)
        asks = vat_check.startswith("http")
        return cls(
            bootstrap_servers=kafka_bootstrap_servers(env),
            database_url=database_url(env),
            time_zone=time_zone_setting(env),
            partitions=_partitions(env),
            policy=Policy(
                bill_power_integral=env.flag("BUSBAR_BILLING_POWER_INTEGRAL", False),
                bill_cancelled_reservations=env.flag("BUSBAR_BILLING_CANCELLED_RESERVATIONS", False),
                country_code=_code(env, "BUSBAR_BILLING_COUNTRY_CODE", 2),
                party_id=_code(env, "BUSBAR_BILLING_PARTY_ID", 3),
                telling=Telling(
                    cadence=Cadence(
                        interval_ms=int(env.seconds("BUSBAR_BILLING_COST_INTERVAL_SECONDS", 60.0) * 1000),
                        amount=_amount(env, "BUSBAR_BILLING_COST_CHANGE"),
                    ),
                    receipt_url=_url(env, "BUSBAR_BILLING_RECEIPT_URL"),
                ),
            ),
            worker=replace(
                WorkerSettings.from_env(env),
                linger_seconds=env.seconds("BUSBAR_BILLING_LINGER_SECONDS", 1.0),
                batch_limit=10_000,
                buffer_limit=10_000,
            ),
            desk=DeskPolicy(
                vat_check="service" if asks else vat_check,
                vat_seconds=env.seconds("BUSBAR_BILLING_VAT_SECONDS", 15.0, minimum=1.0),
                receipt_url=_url(env, "BUSBAR_BILLING_PAYMENT_URL"),
                accept_unknown_tokens=env.flag("BUSBAR_SESSIONS_ACCEPT_UNKNOWN_TOKENS", False),
                push_tariffs=env.flag("BUSBAR_BILLING_PUSH_TARIFFS", True),
            ),
            # Somebody stands before the display, but nobody minds a blink.
            desk_worker=replace(WorkerSettings.from_env(env), linger_seconds=0.2),
            vat_url=vat_check if asks else "",
        )


def _amount(env: Env, name: str) -> Decimal:
    """An amount of money, or 0."""
    text = env.text(name, "0")
    try:
        amount = Decimal(text)
    except ArithmeticError:
        raise ConfigError(f"{name}: {text!r} is not an amount") from None
    if not amount.is_finite() or amount < 0:
        raise ConfigError(f"{name}: {text!r} is not an amount")
    return amount


def _url(env: Env, name: str) -> str:
    url = env.text(name, "")
    if url and not url.startswith(("https://", "http://")):
        raise ConfigError(f"{name}: {url!r} is not a URL")
    return url


def _vat_check(env: Env) -> str:
    """`syntax`, `off`, or the URL of a service."""
    check = env.text("BUSBAR_BILLING_VAT_CHECK", "syntax")
    if check not in ("syntax", "off") and not check.startswith(("https://", "http://")):
        raise ConfigError(f"BUSBAR_BILLING_VAT_CHECK: {check!r} is neither syntax, off nor a URL")
    return check


def _partitions(env: Env) -> int:
    """How many partitions the topics of stations have."""
    profile = env.text("BUSBAR_PARTITIONS", "local")
    if profile not in partition_profiles():
        raise ConfigError(f"BUSBAR_PARTITIONS: {profile!r} is none of {', '.join(partition_profiles())}")
    return all_topics()[SESSION_EVENTS_TOPIC].partitions(profile)


def _code(env: Env, name: str, length: int) -> str:
    """So many letters, or nothing."""
    code = env.text(name, "").upper()
    if code and len(code) != length:
        raise ConfigError(f"{name}: {code!r} has not {length} letters")
    return code
