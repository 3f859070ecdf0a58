"""Settings of the billing service."""

from __future__ import annotations

import pytest

from busbar.config import ConfigError, Env
from services.billing.config import Config


def test_without_settings_it_works() -> None:
    config = Config.from_env(Env({}))
    assert (config.worker.linger_seconds, config.time_zone) == (1.0, "UTC")
    assert not config.policy.bill_power_integral
    assert config.worker.batch_limit == config.worker.buffer_limit == 10_000


def test_settings_are_taken() -> None:
    config = Config.from_env(
        Env(
            {
                "BUSBAR_BILLING_LINGER_SECONDS": "0.25",
                "BUSBAR_BILLING_POWER_INTEGRAL": "yes",
                "BUSBAR_BILLING_COUNTRY_CODE": "nl",
                "BUSBAR_BILLING_PARTY_ID": "BUS",
                "BUSBAR_TIME_ZONE": "Europe/Amsterdam",
                "BUSBAR_LEASE_SECONDS": "2",
            }
        )
    )
    assert (config.worker.linger_seconds, config.worker.lease_seconds) == (0.25, 2.0)
    assert config.policy.bill_power_integral
    assert (config.policy.country_code, config.policy.party_id) == ("NL", "BUS")
    assert config.time_zone == "Europe/Amsterdam"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BUSBAR_BILLING_COUNTRY_CODE", "NLD"),
        ("BUSBAR_BILLING_PARTY_ID", "B"),
        ("BUSBAR_TIME_ZONE", "Nowhere"),
        ("BUSBAR_BILLING_LINGER_SECONDS", "-1"),
    ],
)
def test_a_setting_that_means_nothing_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        Config.from_env(Env({name: value}))
