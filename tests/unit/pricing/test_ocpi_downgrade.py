"""CDRs for parties of OCPI 2.2.1."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from busbar.pricing.jsontext import parse_json, serialize_json
from busbar.pricing.ocpi_cdr import OcpiVersion, cdr_part
from busbar.pricing.ocpi_downgrade import cdr_in_2_2_1
from busbar.pricing.ocpi_tariff import parse_ocpi_tariff
from tests.unit.pricing.builders import CHARGING, PARKED, component, element, limit, price, session, tariff

FACTS = session("2026-03-11 09:00", (CHARGING, 60, "10.333"), (PARKED, 25, 0))


def downgraded(data: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The 2.3.0 CDR taken down, and the one that is made for 2.2.1."""
    bill = price(data, FACTS)
    cdr = parse_json(serialize_json(cdr_part(bill)))
    return cdr_in_2_2_1(cdr, tax_known="tax_unknown" not in bill.notes), cdr_part(bill, OcpiVersion.V221)


@settings(max_examples=40, deadline=None)
@given(vat=st.sampled_from(["7", "19", "7.7"]), rate=st.decimals("0.01", "5", places=4))
def test_totals_are_those_that_the_engine_gives_for_2_2_1(vat: str, rate: Decimal) -> None:
    cdr, expected = downgraded(
        tariff(
            element(
                component("ENERGY", str(rate), vat), component("PARKING_TIME", "3", "20"), component("FLAT", "1", vat)
            )
        )
    )
    for name, value in expected.items():
        if name.startswith("total_"):
            assert cdr[name] == value, name


def test_what_is_due_on_a_price_of_unknown_tax_is_not_claimed() -> None:
    cdr, expected = downgraded(tariff(element(component("ENERGY", "0.50"))))
    assert cdr["total_cost"] == expected["total_cost"] == {"excl_vat": Decimal("5.17")}


def test_its_tariff_is_one_of_2_2_1() -> None:
    gross = tariff(
        element(component("ENERGY", "0.50", "19"), component("FLAT", "1")),
        tax_included="YES",
        min_price=limit("1.00", "1.19"),
    )
    cdr, _ = downgraded(gross)
    (found,) = cdr["tariffs"]
    assert "tax_included" not in found
    assert found["min_price"] == {"excl_vat": 1, "incl_vat": Decimal("1.19")}
    assert [item["price"] for item in found["elements"][0]["price_components"]] == [Decimal("0.4202"), 1]
    assert parse_ocpi_tariff(found).format == "OCPI 2.2.1"
    assert gross.source["tax_included"] == "YES"


def test_a_token_of_a_newer_kind_is_another() -> None:
    assert cdr_in_2_2_1({"cdr_token": {"uid": "1", "type": "EMAID"}}) == {"cdr_token": {"uid": "1", "type": "OTHER"}}
    assert cdr_in_2_2_1({"cdr_token": {"type": "RFID"}, "total_cost": {"excl_vat": 1}}) == {
        "cdr_token": {"type": "RFID"},
        "total_cost": {"excl_vat": 1},
    }
