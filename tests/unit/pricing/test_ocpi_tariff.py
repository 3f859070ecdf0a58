"""Which tariffs are refused, and that every reason is given with its place."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busbar.pricing.jsontext import parse_json, serialize_json
from busbar.pricing.ocpi_tariff import parse_ocpi_tariff
from busbar.pricing.problems import TariffError
from busbar.pricing.tariff import TaxIncluded
from tests.unit.pricing.builders import component, element, limit, tariff, tariff_json
from tests.unit.pricing.strategies import tariffs

GOOD = component("ENERGY", "0.25", "10")


def problems(data: Any, **options: Any) -> dict[str, str]:
    """Paths and reasons of a refusal."""
    with pytest.raises(TariffError) as caught:
        parse_ocpi_tariff(data, **options)
    found = {problem.path: problem.reason for problem in caught.value.problems}
    assert len(found) == len(caught.value.problems)
    return found


def restricted(**restrictions: Any) -> dict[str, Any]:
    return tariff_json(element(GOOD, **restrictions))


def with_component(**fields: Any) -> dict[str, Any]:
    """A field given as `None` is left out."""
    return tariff_json(element({k: v for k, v in (GOOD | fields).items() if v is not None}))


@pytest.mark.parametrize(
    ("data", "path", "reason"),
    [
        (tariff_json(element(GOOD)) | {"currency": None}, "$.currency", "is missing"),
        (tariff_json(element(GOOD), currency="XYZ"), "$.currency", "'XYZ' is not an ISO 4217 currency"),
        (tariff_json(element(GOOD), currency="EURO"), "$.currency", "is longer than 3 characters"),
        (tariff_json(element(GOOD)) | {"id": None}, "$.id", "is missing"),
        (tariff_json(element(GOOD)) | {"id": "x" * 37}, "$.id", "is longer than 36 characters"),
        (tariff_json(element(GOOD)) | {"id": 7}, "$.id", "is not a text"),
        (tariff_json(), "$.elements", "is empty"),
        ({"id": "1", "currency": "EUR"}, "$.elements", "is missing"),
        (tariff_json() | {"elements": {}}, "$.elements", "is not a list"),
        (tariff_json() | {"elements": [3]}, "$.elements[0]", "is not an object"),
        (tariff_json({"price_components": []}), "$.elements[0].price_components", "is empty"),
        (tariff_json({}), "$.elements[0].price_components", "is missing"),
        (tariff_json({"price_components": ["x"]}), "$.elements[0].price_components[0]", "is not an object"),
        (tariff_json(element(GOOD)) | {"tax_included": "MAYBE"}, "$.tax_included", "'MAYBE' is none of YES, NO, N/A"),
        (
            tariff_json(element(GOOD, GOOD)),
            "$.elements[0].price_components[1].type",
            "ENERGY is given twice in one element",
        ),
        (
            tariff_json(element(GOOD))
            | {"start_date_time": "2026-01-01T00:00:00Z", "end_date_time": "2026-01-01T00:00:00Z"},
            "$.end_date_time",
            "is not after start_date_time: the tariff would never be valid",
        ),
        (
            tariff_json(element(GOOD)) | {"start_date_time": "soon"},
            "$.start_date_time",
            "'soon' is not a date and time as 2026-03-29T01:00:00Z",
        ),
    ],
)
def test_a_tariff_that_lacks_what_it_needs_is_refused(data: Any, path: str, reason: str) -> None:
    assert problems(data) == {path: reason}


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"type": "POWER"}, "type", "'POWER' is none of ENERGY, TIME, PARKING_TIME, FLAT"),
        ({"type": None}, "type", "is missing"),
        ({"price": None}, "price", "is missing"),
        ({"price": "free"}, "price", "'free' is not a number of at most 12 digits and 10 fraction digits"),
        ({"price": 0.25}, "price", "is a binary float: parse the JSON with parse_float=Decimal"),
        ({"price": True}, "price", "is not a number"),
        ({"price": Decimal("NaN")}, "price", "'NaN' is not a number of at most 12 digits and 10 fraction digits"),
        (
            {"price": Decimal("1e30")},
            "price",
            "'1000000000000000000000000000000' is not a number of at most 12 digits and 10 fraction digits",
        ),
        ({"step_size": -1}, "step_size", "is negative"),
        ({"step_size": Decimal("1.5")}, "step_size", "is not a whole number"),
        ({"step_size": "soon"}, "step_size", "'soon' is not a number of at most 12 digits and 10 fraction digits"),
        ({"vat": Decimal(-1)}, "vat", "is negative"),
        ({"vat": Decimal(190)}, "vat", "190 is more than 100 %"),
    ],
)
def test_a_component_that_cannot_be_priced_is_refused(fields: dict[str, Any], field: str, reason: str) -> None:
    assert problems(with_component(**fields)) == {f"$.elements[0].price_components[0].{field}": reason}


@pytest.mark.parametrize(
    ("restrictions", "field", "reason"),
    [
        ({"start_time": "24:00"}, "start_time", "'24:00' is not a time of day from 00:00 to 23:59"),
        ({"end_time": "9:30"}, "end_time", "'9:30' is not a time of day from 00:00 to 23:59"),
        ({"start_time": 900}, "start_time", "900 is not a time of day from 00:00 to 23:59"),
        ({"start_date": "2026-02-30"}, "start_date", "'2026-02-30' is not a date as 2026-03-29"),
        ({"end_date": "20260229"}, "end_date", "'20260229' is not a date as 2026-03-29"),
        (
            {"start_date": "2026-03-02", "end_date": "2026-03-02"},
            "end_date",
            "is not after start_date: the price would never apply",
        ),
        ({"min_kwh": 5, "max_kwh": 5}, "max_kwh", "is not beyond min_kwh: the price would never apply"),
        ({"max_kwh": 0}, "max_kwh", "is 0: the price would never apply"),
        ({"min_current": -1}, "min_current", "is negative"),
        (
            {"min_current": 40, "max_current": 32},
            "max_current",
            "is not beyond min_current: the price would never apply",
        ),
        ({"min_power": "a lot"}, "min_power", "'a lot' is not a number of at most 12 digits and 10 fraction digits"),
        ({"min_duration": Decimal("0.5")}, "min_duration", "is not a whole number"),
        (
            {"min_duration": 60, "max_duration": 30},
            "max_duration",
            "is not beyond min_duration: the price would never apply",
        ),
        ({"min_current": Decimal("1.0001")}, "min_current", "has more than 3 fraction digits"),
        ({"day_of_week": "MONDAY"}, "day_of_week", "is not a list"),
        (
            {"day_of_week": ["MONDAY", "Funday"]},
            "day_of_week[1]",
            "'Funday' is none of MONDAY, TUESDAY, WEDNESDAY, THURSDAY, FRIDAY, SATURDAY, SUNDAY",
        ),
        ({"weather": "SUNNY"}, "weather", "is not a restriction that can be priced"),
        ({"reservation": "MAYBE"}, "reservation", "'MAYBE' is none of RESERVATION, RESERVATION_EXPIRES"),
    ],
)
def test_a_restriction_that_contradicts_itself_is_refused(
    restrictions: dict[str, Any], field: str, reason: str
) -> None:
    assert problems(restricted(**restrictions)) == {f"$.elements[0].restrictions.{field}": reason}


def test_a_reservation_has_neither_energy_nor_parking() -> None:
    path = "$.elements[0].price_components[0].type"
    assert problems(restricted(reservation="RESERVATION")) == {
        path: "ENERGY cannot price a reservation: only FLAT and TIME can"
    }
    time = component("TIME", "1")
    assert "$.elements[0].restrictions" in problems(tariff_json(element(time, reservation="RESERVATION", min_kwh=1)))


@pytest.mark.parametrize(
    ("fields", "path", "reason"),
    [
        ({"min_price": limit("-1")}, "$.min_price.before_taxes", "is negative"),
        ({"min_price": {"after_taxes": Decimal(1)}}, "$.min_price.before_taxes", "is missing"),
        ({"min_price": 3}, "$.min_price", "is not an object"),
        ({"min_price": limit("5", "4")}, "$.min_price.after_taxes", "is below before_taxes"),
        ({"min_price": limit("5"), "max_price": limit("4")}, "$.max_price", "is below min_price before taxes"),
        (
            {"min_price": limit("3", "7"), "max_price": limit("4", "6")},
            "$.max_price",
            "is below min_price after taxes",
        ),
    ],
)
def test_limits_that_contradict_each_other_are_refused(fields: dict[str, Any], path: str, reason: str) -> None:
    assert problems(tariff_json(element(GOOD), **fields)) == {path: reason}


def test_a_vat_contradicts_taxes_that_do_not_apply() -> None:
    reason = "is given although tax_included is N/A"
    data = tariff_json(element(GOOD)) | {"tax_included": "N/A", "max_price": limit("5", "6")}
    assert problems(data) == {
        "$.elements[0].price_components[0].vat": reason,
        "$.max_price.after_taxes": "differs from before_taxes although tax_included is N/A",
    }


def test_every_reason_is_given_at_once() -> None:
    data = {
        "currency": "???",
        "elements": [
            {"price_components": [{"type": "SUNSHINE", "step_size": -1}], "restrictions": {"start_time": "25:00"}},
            {"price_components": [{"type": "TIME", "price": Decimal(1)}, 7]},
        ],
    }
    assert set(problems(data, time_zone="Mars/Olympus")) == {
        "$.id",
        "$.currency",
        "time_zone",
        "$.elements[0].restrictions.start_time",
        "$.elements[0].price_components[0].type",
        "$.elements[0].price_components[0].price",
        "$.elements[0].price_components[0].step_size",
        "$.elements[1].price_components[1]",
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not JSON"),
        ("[]", "is not an object"),
        ("3", "is not an object"),
        ('{"id": NaN}', "NaN is not a JSON number"),
        ('{"id": "1", "id": "2"}', "the key 'id' is given twice in one object"),
        ('{"x": ' * 100_000, "is nested too deeply"),
        (b"\xff", "is not JSON"),
        (" " * (5 * 1024 * 1024), "is longer than"),
        ('{"id": 1e999999999}', "1e999999999 is not a number that can be priced"),
        ('{"id": 1e9999999999999999999999}', "1e9999999999999999999999 is not a number that can be priced"),
        ('{"id": 1' + "0" * 5000 + "}", "is not JSON"),
    ],
)
def test_text_that_is_no_json_object_is_refused(text: str | bytes, reason: str) -> None:
    assert problems(text)["$"].startswith(reason)


@pytest.mark.parametrize(
    ("junk", "reason"),
    [
        (0.5, "is not JSON with exact numbers: float has no place in JSON"),
        ("\ud800", "holds a text that is not Unicode"),
        (Decimal("1e999999"), "is not JSON with exact numbers: 1E+999999 is not a number that can be priced"),
        ({1, 2}, "is not JSON with exact numbers: set has no place in JSON"),
    ],
)
def test_what_cannot_be_kept_exactly_is_refused_wherever_it_stands(junk: Any, reason: str) -> None:
    assert problems(tariff_json(element(GOOD)) | {"energy_mix": [junk]}) == {"$": reason}


def test_a_price_beyond_any_reason_is_refused_in_no_time() -> None:
    for price in (10**5000, Decimal("1e999999999"), Decimal("1e-999999999")):
        assert list(problems(with_component(price=price))) == ["$.elements[0].price_components[0].price"]


def test_too_many_components_are_refused() -> None:
    assert "hold more than" in problems(tariff_json(*[element(GOOD, min_kwh=n + 1) for n in range(2001)]))["$.elements"]


def test_numbers_may_be_texts_and_the_old_form_is_known() -> None:
    old = {
        "id": "T",
        "currency": "eur",
        "min_price": {"excl_vat": "0.50", "incl_vat": "0.55"},
        "elements": [{"price_components": [{"type": "ENERGY", "price": "0.25", "vat": "10.0", "step_size": "1"}]}],
    }
    read = parse_ocpi_tariff(old)
    assert read.format == "OCPI 2.2.1"
    assert read.currency == "EUR"
    assert read.tax_included is TaxIncluded.NO
    assert read.minimum is not None
    assert (read.minimum.excl, read.minimum.incl) == (Decimal("0.50"), Decimal("0.55"))


def test_what_can_never_apply_and_what_may_be_free_is_pointed_out() -> None:
    shadowed = tariff(element(GOOD), element(component("ENERGY", "-0.5"), max_kwh=5))
    assert shadowed.warnings == (
        "$.elements[1].price_components[0].price: is negative: the driver is paid",
        "$.elements[1].price_components[0]: never applies: an earlier ENERGY has no restriction",
    )
    gap = tariff(element(GOOD, max_kwh=5))
    assert gap.warnings == ("$.elements: no unrestricted ENERGY comes last: at times it is free",)


def test_the_fingerprint_names_the_content() -> None:
    def fingerprint(components: str) -> str:
        return parse_ocpi_tariff(
            f'{{"id": "1", "currency": "EUR", "elements": [{{"price_components": {components}}}]}}'
        ).fingerprint

    one = fingerprint('[{"type": "FLAT", "price": 1.50, "step_size": 0}]')
    assert one == fingerprint('[ {"price": 1.50, "step_size": 0, "type": "FLAT"} ]')
    assert one != fingerprint('[{"type": "FLAT", "price": 1.51, "step_size": 0}]')


@settings(max_examples=25, deadline=None)
@given(tariffs())
def test_a_tariff_survives_its_json(data: dict[str, Any]) -> None:
    text = serialize_json(data)
    assert parse_json(text) == data
    assert parse_ocpi_tariff(text) == parse_ocpi_tariff(data)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=80, deadline=None)
@given(data=tariffs(), junk=json_values, place=st.integers(0, 10**6))
def test_any_junk_in_any_place_is_read_or_refused(data: dict[str, Any], junk: Any, place: int) -> None:
    def places(value: Any) -> list[tuple[Any, Any]]:
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [(value, key) for key, _ in pairs] + [found for _, item in pairs for found in places(item)]

    found = places(data)
    holder, key = found[place % len(found)]
    holder[key] = junk
    try:
        parse_ocpi_tariff(data)
    except TariffError as error:
        refusal = error
    else:
        return
    assert refusal.problems
    assert all(problem.path and problem.reason for problem in refusal.problems)
