"""Charge detail records over HTTP."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from decimal import Decimal
from typing import Any

import pytest

from services.api.store.cdrs import SUMMARY, CdrFilter, export_cdrs
from tests.integration.api.billing_rows import CdrRow, add_cdr, add_many_cdrs, session_id
from tests.integration.api.conftest import Rig


async def listed(rig: Rig, query: str = "") -> list[int]:
    """The hours of the sessions, page by page."""
    seen: list[int] = []
    after = ""
    for _ in range(20):
        body = (await rig.operator.get(f"/v1/cdrs?limit=2{query}{after}")).json()
        seen += [int(item["session_id"].replace("-", ""), 16) for item in body["items"]]
        if body["next"] is None:
            return seen
        after = f"&after={body['next']}"
    raise AssertionError("the pages have no end")


async def test_records_are_listed_page_by_page_the_newest_first(rig: Rig) -> None:
    ids = {await add_cdr(rig.pool, number): number for number in range(1, 6)}
    assert await listed(rig) == [5, 4, 3, 2, 1]
    await rig.pool.execute("UPDATE billing.cdrs SET last_updated = date_trunc('day', last_updated)")
    assert await listed(rig) == [ids[cdr_id] for cdr_id in sorted(ids, reverse=True)]


async def test_lists_are_narrowed_down(rig: Rig) -> None:
    await add_cdr(rig.pool, 1)
    await add_cdr(rig.pool, 2, station_id="CS-2", site_id="harbour")
    await add_cdr(rig.pool, 3, id_token="CAFE", currency="CHF")
    await add_cdr(rig.pool, 3, id_token="CAFE", currency="CHF", credit=True)
    assert await listed(rig, "&station=CS-1") == [3, 3, 1]
    assert await listed(rig, "&site=harbour") == [2]
    assert await listed(rig, "&token=cafe") == [3, 3]
    assert await listed(rig, f"&session={session_id(1)}") == [1]
    assert await listed(rig, "&currency=EUR") == [2, 1]
    assert await listed(rig, "&credit=true") == [3]
    assert await listed(rig, "&credit=false&currency=CHF") == [3]
    # The second one was updated at 12:11, and ended at 12:10.
    assert await listed(rig, "&from=2026-11-01T12:11:00Z") == [3, 3, 2]
    assert await listed(rig, "&to=2026-11-01T12:11:00Z") == [1]
    assert await listed(rig, "&ended_from=2026-11-01T12:10:01Z") == [3, 3]
    assert await listed(rig, "&ended_to=2026-11-01T12:10:00Z") == [1]


async def test_a_record_is_shown_with_its_explanation_and_its_credit(rig: Rig) -> None:
    cdr_id = await add_cdr(rig.pool, 1)
    response = await rig.viewer.get(f"/v1/cdrs/{cdr_id}")
    body = response.json()
    assert '"total_excl":9.4,' in response.text
    assert (body["cdr_id"], body["credited_by"], body["flags"]) == (cdr_id, None, ["register_fell"])
    assert [line["kind"] for line in body["explanation"]["lines"]] == [
        "FLAT",
        "ENERGY",
        "PARKING_TIME",
        "ROUNDING",
    ]
    assert sum(line["excl_tax"] for line in body["explanation"]["lines"]) == pytest.approx(body["total_excl"])
    assert "ocpi" not in body
    credit = await add_cdr(rig.pool, 1, credit=True)
    assert (await rig.viewer.get(f"/v1/cdrs/{cdr_id}")).json()["credited_by"] == credit
    taken_back = (await rig.viewer.get(f"/v1/cdrs/{credit}")).json()
    assert taken_back["total_incl"] == -10.71
    assert taken_back["explanation"]["total"] == {"excl_tax": -9.4, "incl_tax": -10.71}
    assert [line["excl_tax"] for line in taken_back["explanation"]["lines"]] == [-0.5, -4.9, -4, 0]


async def test_a_receipt_is_text_or_html_as_its_reader_wants(rig: Rig) -> None:
    path = f"/v1/cdrs/{await add_cdr(rig.pool, 1)}/receipt"
    text = await rig.viewer.get(path)
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert "Depot <1>, Marktplatz 1, 12345 Musterstadt" in text.text
    assert "    10.000 kWh x 0.49 EUR/kWh" in text.text
    browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    page = await rig.viewer.get(path, headers=browser)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'"
    assert page.headers["vary"] == "Accept"
    assert "Depot &lt;1&gt;" in page.text
    assert (await rig.viewer.get(f"{path}?format=html")).text == page.text
    assert (await rig.viewer.get(f"{path}?format=text", headers=browser)).text == text.text
    plain = {"Accept": "text/plain, text/html;q=0.5"}
    assert (await rig.viewer.get(path, headers=plain)).text == text.text
    assert "Charging time" not in text.text
    assert "(Sun 01 Nov 11:30-12:10)" in (await rig.viewer.get(f"{path}?detailed=true")).text
    credit = await add_cdr(rig.pool, 1, credit=True)
    note = (await rig.viewer.get(f"/v1/cdrs/{credit}/receipt")).text
    assert note.startswith("Credit note\n")
    assert note.splitlines()[-1].split() == ["Total", "-10.71", "EUR"]
    record = credit.removesuffix("-C")
    assert f"Credit note:   {credit}\nTakes back:    {record}\n" in note
    assert "Taken back by" not in text.text
    assert f"Taken back by: {credit}\n" in (await rig.viewer.get(path)).text


async def test_a_record_is_shown_in_both_versions_of_ocpi(rig: Rig) -> None:
    path = f"/v1/cdrs/{await add_cdr(rig.pool, 1)}/ocpi"
    newer = (await rig.operator.get(path)).json()
    older = (await rig.operator.get(f"{path}?version=2.2.1")).json()
    assert newer["total_cost"]["before_taxes"] == 9.4
    assert older["total_cost"] == {"excl_vat": 9.4, "incl_vat": 10.71}
    assert older["charging_periods"] == newer["charging_periods"]
    assert "tax_included" not in older["tariffs"][0]


async def test_a_viewer_does_not_see_id_tokens(rig: Rig) -> None:
    cdr_id = await add_cdr(rig.pool, 1)
    assert (await rig.viewer.get(f"/v1/cdrs/{cdr_id}")).json()["id_token"] == "…EF01"
    assert (await rig.operator.get(f"/v1/cdrs/{cdr_id}")).json()["id_token"] == "DEADBEEF01"
    assert "DEADBEEF01" not in (await rig.viewer.get("/v1/cdrs")).text
    assert "DEADBEEF01" not in (await rig.viewer.get(f"/v1/cdrs/{cdr_id}/receipt?format=html")).text
    for path in ("?token=DEADBEEF01", f"/{cdr_id}/ocpi", "/export"):
        assert (await rig.viewer.get(f"/v1/cdrs{path}")).status_code == 403
    for path in ("", f"/{cdr_id}", f"/{cdr_id}/receipt", "/export"):
        assert (await rig.stranger.get(f"/v1/cdrs{path}")).status_code == 401


async def test_records_are_exported_in_three_formats_the_oldest_first(rig: Rig) -> None:
    ids = [await add_cdr(rig.pool, number) for number in (1, 2)]
    ids.append(await add_cdr(rig.pool, 3, credit=True))
    table = await rig.operator.get("/v1/cdrs/export")
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    assert table.headers["content-disposition"] == 'attachment; filename="cdrs.csv"'
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [row["cdr_id"] for row in rows] == ids
    assert rows[2] | {"total_excl": "-9.40", "credit": "true", "last_updated": "2026-11-01T13:11:00Z"} == rows[2]
    assert (rows[0]["credit_reference_id"], rows[0]["flags"]) == ("", "register_fell")
    array = (await rig.operator.get("/v1/cdrs/export?format=ocpi&version=2.2.1")).json()
    assert [cdr["id"] for cdr in array] == ids
    assert array[0]["total_cost"]["excl_vat"] == 9.4
    lines = (await rig.operator.get("/v1/cdrs/export?format=ndjson&station=CS-1")).text.splitlines()
    assert [json.loads(line)["cdr_id"] for line in lines] == ids
    assert json.loads(lines[0])["explanation"]["total"]["incl_tax"] == 10.71


async def test_an_export_of_nothing_is_a_file_all_the_same(rig: Rig) -> None:
    assert (await rig.operator.get("/v1/cdrs/export")).text == ",".join(SUMMARY) + "\r\n"
    assert (await rig.operator.get("/v1/cdrs/export?format=ocpi")).json() == []
    assert (await rig.operator.get("/v1/cdrs/export?format=ndjson")).text == ""


async def test_a_spreadsheet_takes_no_text_for_a_formula(rig: Rig) -> None:
    await add_cdr(rig.pool, 1, id_token='=HYPERLINK("http://x")', site_id='a "b", c', credit=True)
    (row,) = csv.DictReader(io.StringIO((await rig.operator.get("/v1/cdrs/export")).text))
    assert row["id_token"] == '\'=HYPERLINK("http://x")'
    assert row["site_id"] == 'a "b", c'
    assert row["total_excl"] == "-9.40"


async def test_exports_are_limited_and_give_their_place_back(rig: Rig) -> None:
    await add_cdr(rig.pool, 1)
    app: Any = rig.operator._transport.app._app._app  # type: ignore[attr-defined]
    slots = app.state.exports

    async def endless() -> Any:
        while True:
            yield b"x"

    running = [slots.limited(endless()) for _ in range(2)]
    for each in running:
        await anext(each)
    refused = await rig.operator.get("/v1/cdrs/export")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
    for each in running:
        await each.aclose()
    for _ in range(3):
        assert (await rig.operator.get("/v1/cdrs/export?format=ocpi")).status_code == 200


async def test_an_export_of_very_many_records_needs_little_memory(rig: Rig) -> None:
    count = 20_000
    await add_many_cdrs(rig.pool, count)
    seen, last, size = 0, None, 0
    tracemalloc.start()
    async for rows in export_cdrs(rig.pool, CdrFilter(), ("ocpi", "bill"), rows=100):
        assert last is None or rows[0]["last_updated"] > last
        seen, last, size = seen + len(rows), rows[-1]["last_updated"], size + sum(len(row["ocpi"]) for row in rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seen == count
    assert size > 20_000_000
    assert peak < 5_000_000


async def test_an_export_shows_what_was_there_when_it_began(rig: Rig) -> None:
    await add_many_cdrs(rig.pool, 30)
    seen = 0
    async for rows in export_cdrs(rig.pool, CdrFilter(), (), rows=10):
        seen += len(rows)
        await rig.pool.execute("DELETE FROM billing.cdrs WHERE number > 10")
    assert seen == 30


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/no-such-record", 404),
        ("/no-such-record/receipt", 404),
        ("/no-such-record/ocpi", 404),
        ("/%00", 422),
        ("?after=x", 422),
        ("?from=yesterday", 422),
        ("?ended_to=2026-11-01T00:00:00", 422),
        ("?currency=eur", 422),
        ("?session=1", 422),
        ("?credit=2", 422),
        ("/export?format=xml", 422),
        ("/export?format=ocpi&version=3.0", 422),
        ("/no-such-record/receipt?format=pdf", 422),
    ],
)
async def test_what_cannot_be_found_or_read_is_refused(rig: Rig, path: str, status: int) -> None:
    response = await rig.operator.get(f"/v1/cdrs{path}")
    assert response.status_code == status
    document: dict[str, Any] = response.json()
    assert document["status"] == status


def test_the_rows_of_these_tests_are_those_of_a_session() -> None:
    values = CdrRow(1).values()
    assert (values[11], values[12]) == (Decimal("9.40"), Decimal("10.71"))
