"""Settings of the billing service."""

from __future__ import annotations

from decimal import Decimal

import pytest

from busbar.config import ConfigError, Env
from services.billing.config import Config


def config(**values: str) -> Config:
    return Config.from_env(Env({f"BUSBAR_BILLING_{name}": value for name, value in values.items()}))


def test_the_defaults_need_nothing() -> None:
    defaults = config()
    assert defaults.policy.telling.cadence.interval_ms == 60_000
    assert (defaults.desk.vat_check, defaults.vat_url, defaults.desk.push_tariffs) == ("syntax", "", True)
    assert defaults.partitions == 4


def test_each_setting_arrives() -> None:
    chosen = config(
        COST_INTERVAL_SECONDS="0",
        COST_CHANGE="0.50",
        RECEIPT_URL="https://r.example/{session_id}",
        PAYMENT_URL="https://p.example/{psp_ref}",
        VAT_CHECK="https://vat.example/check",
        VAT_SECONDS="5",
        PUSH_TARIFFS="off",
    )
    cadence = chosen.policy.telling.cadence
    assert (cadence.interval_ms, cadence.amount) == (0, Decimal("0.50"))
    assert chosen.policy.telling.receipt_url == "https://r.example/{session_id}"
    assert chosen.desk.receipt_url == "https://p.example/{psp_ref}"
    assert (chosen.desk.vat_check, chosen.vat_url, chosen.desk.vat_seconds) == (
        "service",
        "https://vat.example/check",
        5.0,
    )
    assert chosen.desk.push_tariffs is False
    assert config(VAT_CHECK="off").desk.vat_check == "off"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("COST_CHANGE", "much"),
        ("COST_CHANGE", "-1"),
        ("COST_CHANGE", "NaN"),
        ("RECEIPT_URL", "javascript:alert(1)"),
        ("PAYMENT_URL", "pay"),
        ("VAT_CHECK", "maybe"),
        ("VAT_SECONDS", "0"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"BUSBAR_BILLING_{name}"):
        config(**{name: value})


def test_an_unknown_partitions_profile_is_refused() -> None:
    with pytest.raises(ConfigError, match="BUSBAR_PARTITIONS"):
        Config.from_env(Env({"BUSBAR_PARTITIONS": "huge"}))
