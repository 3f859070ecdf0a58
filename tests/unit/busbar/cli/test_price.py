"""`busbar price`: a session's cost without servers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from busbar.cli import main

ELEMENTS: list[Any] = [
    {
        "price_components": [{"type": "ENERGY", "price": 0.20, "vat": 19, "step_size": 1}],
        "restrictions": {"start_time": "00:00", "end_time": "03:00"},
    },
    {"price_components": [{"type": "ENERGY", "price": 0.30, "vat": 19, "step_size": 1}]},
    {"price_components": [{"type": "PARKING_TIME", "price": 6, "step_size": 60}]},
]
TARIFF = {"id": "T1", "currency": "EUR", "elements": ELEMENTS}
NIGHT = ("--start", "2026-03-29T01:30", "--time-zone", "Europe/Berlin", "--kwh", "20", "--minutes", "60")
CDR = {
    "start_date_time": "2026-03-11T09:00:00Z",
    "end_date_time": "2026-03-11T10:00:00Z",
    "charging_periods": [
        {"start_date_time": "2026-03-11T09:00:00Z", "dimensions": [{"type": "ENERGY", "volume": 10}]},
    ],
    "total_cost": {"excl_vat": 2.9},
}
FACTS = [
    {"kind": "started", "at": "2026-03-11T09:00:00Z", "register_wh": 0},
    {"kind": "ended", "at": "2026-03-11T10:00:00Z", "register_wh": 10000},
]


@pytest.fixture
def tariff(tmp_path: Path) -> str:
    return written(tmp_path / "tariff.json", TARIFF)


def written(path: Path, value: Any) -> str:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def priced(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, ["price", *arguments], input=stdin)


def total(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.output)["total"]["excl_tax"]


def test_a_session_in_a_few_numbers_is_priced_and_explained(tariff: str) -> None:
    result = priced(tariff, *NIGHT, "--parking", "30")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    # At 02:00 the clock was put forward to 03:00: half of the energy is by night.
    assert "Energy (00:00-03:00)                                            2.00 EUR" in lines
    assert "Total                                                           8.95 EUR" in lines
    assert (
        "   1 Sun 2026-03-29 01:30:00 CET-03:00:00 CEST ENERGY 10.000 kWh x 0.20/kWh = 2.00 EUR"
        "  [$.elements[0].price_components[0]: 00:00-03:00; VAT 19 %]"
    ) in lines
    assert any("PARKING_TIME 1800 s x 6.00/h = 3.00 EUR" in line for line in lines)
    assert any(line.strip().startswith("note tax_unknown: a price has no tax rate") for line in lines)


def test_power_takes_the_place_of_time_or_energy(tariff: str) -> None:
    start = ("--start", "2026-03-11T10:00+01:00", "--json")
    assert total(priced(tariff, *start, "--kwh", "11", "--power", "11")) == 3.3
    assert total(priced(tariff, *start, "--minutes", "30", "--power", "22")) == 3.3
    document = json.loads(priced(tariff, *start, "--kwh", "11", "--power", "22", "--parking", "10").output)
    assert document["session"]["seconds"] == 2400


def test_a_reservation_may_come_first(tmp_path: Path) -> None:
    time = [{"type": "TIME", "price": 3, "step_size": 0}]
    reserved = {"price_components": time, "restrictions": {"reservation": "RESERVATION"}}
    path = written(tmp_path / "reserved.json", TARIFF | {"elements": [reserved, *ELEMENTS]})
    charged = ("--start", "2026-03-11T10:00Z", "--kwh", "1", "--minutes", "1")
    assert total(priced(path, *charged, "--reserved", "20", "--json")) == 1.3


@pytest.mark.parametrize("form", ["cdr", "facts", "lines"])
def test_sessions_come_in_several_forms(tariff: str, tmp_path: Path, form: str) -> None:
    value = {"cdr": CDR, "facts": FACTS, "lines": "\n".join(map(json.dumps, FACTS)) + "\n"}[form]
    path = written(tmp_path / "session.json", value)
    assert total(priced(tariff, path, "--json")) == 3
    assert total(priced(tariff, "-", "--json", stdin=Path(path).read_text())) == 3


def test_a_cdr_is_held_against_what_it_says_itself(tariff: str, tmp_path: Path) -> None:
    output = priced(tariff, written(tmp_path / "cdr.json", CDR)).output
    assert "the CDR itself says 2.90 EUR before tax: 0.10 more" in output
    same = CDR | {"total_cost": {"before_taxes": 3.00}}
    assert "says 3.00 EUR before tax: the same" in priced(tariff, written(tmp_path / "cdr.json", same)).output
    more = CDR | {"total_cost": {"before_taxes": 3.01}}
    assert "says 3.01 EUR before tax: 0.01 less" in priced(tariff, written(tmp_path / "cdr.json", more)).output


def test_one_of_the_cdrs_of_an_export_is_picked_by_its_id(tariff: str, tmp_path: Path) -> None:
    export = written(tmp_path / "cdrs.json", [CDR | {"id": "A", "total_cost": {"before_taxes": 1}}, CDR | {"id": "B"}])
    assert "says 2.90 EUR" in priced(tariff, export, "--transaction", "B").output
    for more, reason in (
        ((), "several CDRs: pick one with --transaction, of A, B"),
        (("--transaction", "C"), "no CDR C"),
    ):
        result = priced(tariff, export, *more)
        assert result.exit_code == 1
        assert f"{export}: $: there " in result.output
        assert reason in result.output
    assert total(priced(tariff, written(tmp_path / "one.json", [CDR]), "--json")) == 3


def test_a_file_that_is_something_else_altogether_does_not_fill_the_screen(tariff: str, tmp_path: Path) -> None:
    path = written(tmp_path / "other.json", [{"name": "x", "price": 1}] * 100)
    lines = priced(tariff, path).output.splitlines()
    assert len(lines) == 26
    assert lines[-1] == f"{path}: and 375 more"


def test_a_tariff_of_ocpp_will_do(tmp_path: Path) -> None:
    ocpp = {"tariffId": "T2", "currency": "EUR", "energy": {"prices": [{"priceKwh": 0.5}]}}
    assert total(priced(written(tmp_path / "t.json", ocpp), *NIGHT, "--json")) == 10


def test_rounding_can_be_chosen(tariff: str) -> None:
    arguments = (tariff, "--start", "2026-03-11T10:00Z", "--kwh", "0.55", "--minutes", "1", "--json")
    assert total(priced(*arguments)) == 0.17
    assert total(priced(*arguments, "--rounding", "DOWN")) == 0.16
    assert total(priced(*arguments, "--digits", "3")) == 0.165


def test_the_receipt_comes_as_html(tariff: str) -> None:
    output = priced(tariff, *NIGHT, "--html").output
    assert output.startswith("<!doctype html>")
    assert "5.95 EUR" in output


def test_errors_name_the_file_and_the_place(tariff: str, tmp_path: Path) -> None:
    wrong = written(tmp_path / "wrong.json", {"id": "T", "currency": "XXX", "elements": []})
    result = priced(wrong, *NIGHT)
    assert result.exit_code == 1
    assert f"{wrong}: $.currency: 'XXX' is not an ISO 4217 currency\n" in result.output
    assert f"{wrong}: $.elements: is empty" in result.output
    facts = written(tmp_path / "facts.json", [{"kind": "started", "at": "noon"}])
    assert f"{facts}: $[0].at: 'noon' is not a date" in priced(tariff, facts).output
    lines = written(tmp_path / "facts.jsonl", '{"kind": "started"}\n{"kind": \n')
    assert f"{lines}: line 2: is not JSON" in priced(tariff, lines).output
    assert "standard input: $: is not JSON" in priced(tariff, "-", stdin="{").output
    assert f"{facts}: $: is empty" in priced(tariff, written(tmp_path / "facts.json", [])).output
    neither = written(tmp_path / "neither.json", {"hello": 1})
    assert f"{neither}: $: is neither an OCPI CDR or Session" in priced(tariff, neither).output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "which session?"),
        (("--kwh", "20"), "how long does it charge?"),
        (("--power", "20"), "--power needs --kwh or --minutes"),
        (("--kwh", "20", "--power", "0"), "--power is 0"),
        (("--kwh", "20", "--minutes", "90", "--power", "11"), "20 kWh at 11 kW take 109.1 min, not 90 min"),
        (("--kwh", "-1"), "is not a number from 0"),
        (("--kwh", "nan"), "is not a number from 0"),
        (("--minutes", "1e9"), "is not a number from 0"),
        (("--minutes", "5", "--start", "noon"), "'noon' is not a date and time"),
        (("--minutes", "5", "--start", "9999-12-31"), "is not a date and time"),
        (("--minutes", "5", "--time-zone", "Mars/Base"), "'Mars/Base' is an unknown IANA time zone"),
        (("--minutes", "5", "--transaction", "T"), "which is not given"),
        (("--minutes", "5", "--json", "--html"), "not both"),
    ],
)
def test_what_contradicts_itself_is_refused_with_the_reason(
    tariff: str, arguments: tuple[str, ...], reason: str
) -> None:
    result = priced(tariff, *arguments)
    assert result.exit_code == 2
    assert reason in result.output


def test_a_session_is_either_in_a_file_or_in_the_options(tariff: str, tmp_path: Path) -> None:
    result = priced(tariff, written(tmp_path / "facts.json", FACTS), "--kwh", "5")
    assert result.exit_code == 2
    assert "the session is in SESSION" in result.output
