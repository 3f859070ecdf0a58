"""`busbar cdrs` against an API of the test's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from busbar.pricing.explanation import explain
from busbar.pricing.jsontext import serialize_json
from tests.unit.busbar.cli.fake_api import FakeApi, fake_api
from tests.unit.pricing.builders import CHARGING, PARKED, component, element, price, session, tariff

CDR: dict[str, Any] = {
    "cdr_id": "cdr-1",
    "session_id": "session-1",
    "number": 2,
    "credit": False,
    "credit_reference_id": None,
    "credited_by": "cdr-1-C",
    "station_id": "CS-0001",
    "site_id": "depot",
    "id_token": "04A2",
    "started_at": "2026-03-11T09:00:00Z",
    "ended_at": "2026-03-11T10:30:00Z",
    "currency": "EUR",
    "total_excl": 8.4,
    "total_incl": 9.95,
    "energy_wh": 10333.5,
    "energy_rung": "signed",
    "tariff_id": "T1",
    "tariff_version": 3,
    "flags": ["register_fell"],
    "last_updated": "2026-03-11T10:30:01Z",
}


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as fake:
        yield fake


def page(*items: Any, following: str | None = None) -> tuple[int, Any]:
    return 200, {"items": items, "next": following}


def test_records_are_listed_as_a_table_over_all_pages(api: FakeApi) -> None:
    credit = CDR | {"cdr_id": "cdr-1-C", "total_incl": -9.95, "id_token": None, "station_id": "A", "energy_wh": 500}
    api.answers = [page(CDR, following="more"), page(credit)]
    result = api.run("cdrs", "list", "--limit", "2")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [
        "ENDED (UTC)       STATION  ID TOKEN       ENERGY      TOTAL  CDR",
        "2026-03-11 10:30  CS-0001  04A2      10.3335 kWh   9.95 EUR  cdr-1",
        "2026-03-11 10:30  A        -          0.5000 kWh  -9.95 EUR  cdr-1-C",
    ]
    assert [(asked.path, asked.query) for asked in api.asked] == [
        ("/v1/cdrs", {"limit": "2"}),
        ("/v1/cdrs", {"limit": "1", "after": "more"}),
    ]
    assert api.asked[0].authorization == "Bearer k"


def test_conditions_are_those_of_the_api(api: FakeApi) -> None:
    api.answers = [page()]
    result = api.run(
        *("cdrs", "list", "--station", "CS/1", "--token", "04A2", "--no-credit", "--currency", "EUR", "--json"),
        *(
            "--from",
            "2026-03-11T10:00:00+01:00",
            "--ended-to",
            "2026-03-12T00:00:00Z",
            "--site",
            "a&b",
            "--session",
            "s",
        ),
    )
    assert (result.exit_code, result.output) == (0, "")
    assert api.asked[0].query == {
        "station": "CS/1",
        "site": "a&b",
        "token": "04A2",
        "session": "s",
        "currency": "EUR",
        "credit": "false",
        "from": "2026-03-11T09:00:00.000Z",
        "ended_to": "2026-03-12T00:00:00.000Z",
        "limit": "50",
    }
    assert api.run("cdrs", "list", "--from", "soon").exit_code == 2
    assert api.run("cdrs", "list").output == "no charge detail record fits\n"


def test_numbers_stay_exact_as_json(api: FakeApi) -> None:
    api.answers = [(200, b'{"items":[{"total_excl":0.10000000000000000001}],"next":null}')]
    assert api.run("cdrs", "list", "--json").output == '{"total_excl":0.10000000000000000001}\n'


def test_a_record_is_explained_line_by_line(api: FakeApi) -> None:
    bill = price(
        tariff(element(component("ENERGY", "0.50", "19"), component("PARKING_TIME", "6", "19"))),
        session("2026-03-11 09:00", (CHARGING, 60, 10), (PARKED, 30, 0)),
    )
    explanation = json.loads(serialize_json(explain(bill, "Europe/Berlin")))
    api.answers = [(200, CDR | {"explanation": explanation})]
    result = api.run("cdrs", "show", "cdr/1")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert api.asked[0].path == "/v1/cdrs/cdr%2F1"
    assert lines[:3] == [
        "Record:        cdr-1 (number 2 of its session)",
        "Taken back by: cdr-1-C",
        "Session:       session-1",
    ]
    assert "Total:         8.40 EUR before tax, 9.95 EUR after tax" in lines
    assert "Noticed:       register_fell" in lines
    assert any(
        "Wed 2026-03-11 10:00:00-11:00:00 " in line and "10.000 kWh x 0.50/kWh = 5.00 EUR" in line for line in lines
    )
    assert json.loads(api.run("cdrs", "show", "cdr-1", "--json").output)["explanation"] == explanation


def test_a_receipt_is_printed_or_written(api: FakeApi, tmp_path: Path) -> None:
    api.answers = [(200, "Beleg \u20ac".encode())]
    assert api.run("cdrs", "receipt", "cdr-1").output == "Beleg \u20ac"
    path = tmp_path / "receipt.html"
    assert api.run("cdrs", "receipt", "cdr-1", "--html", "--detailed", "-o", str(path)).exit_code == 0
    assert path.read_text() == "Beleg \u20ac"
    assert [asked.query for asked in api.asked] == [
        {"format": "text", "detailed": "false"},
        {"format": "html", "detailed": "true"},
    ]


def test_an_export_is_a_file_once_it_is_complete(api: FakeApi, tmp_path: Path) -> None:
    api.answers = [(200, b"a,b\r\n" * 100_000)]
    path = tmp_path / "cdrs.json"
    result = api.run("cdrs", "export", "--format", "ocpi", "--ocpi-version", "2.2.1", "--credit", "-o", str(path))
    assert result.exit_code == 0, result.output
    assert "500000 bytes" in result.output
    assert path.stat().st_size == 500_000
    assert api.asked[0].query == {"format": "ocpi", "version": "2.2.1", "credit": "true"}
    api.run("cdrs", "export")
    assert api.asked[1].query == {"format": "csv"}


@pytest.mark.parametrize("cut", ["length", "chunked"])
def test_an_export_that_breaks_off_leaves_no_file(api: FakeApi, tmp_path: Path, cut: str) -> None:
    api.answers, api.cut = [(200, b"half of it")], cut
    path = tmp_path / "cdrs.csv"
    result = api.run("cdrs", "export", "-o", str(path))
    assert result.exit_code == 1
    assert "the download broke off after " in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_one_line(api: FakeApi, tmp_path: Path) -> None:
    api.answers = [(200, b"x")]
    result = api.run("cdrs", "export", "-o", str(tmp_path / "no" / "such" / "folder"))
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert "No such file or directory" in result.output


def test_refusals_are_one_line(api: FakeApi) -> None:
    api.answers = [(404, {"title": "There is no such cdr", "detail": "No cdr is named 'x'."})]
    result = api.run("cdrs", "show", "x")
    assert (result.exit_code, result.output) == (1, "Error: There is no such cdr: No cdr is named 'x'\n")
    api.answers = [(503, b"no JSON")]
    assert api.run("cdrs", "export").output == "Error: the API answered 503\n"
