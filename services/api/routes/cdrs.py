"""`/v1/cdrs`: charge detail records, why each costs what it costs, its receipt, and all of them as a file."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse, StreamingResponse
from pydantic import AfterValidator, AwareDatetime
from starlette.types import Receive, Scope, Send

from busbar.pricing.credit_note import taken_back
from busbar.pricing.jsontext import parse_json, serialize_json
from busbar.pricing.ocpi_cdr import OcpiVersion
from busbar.pricing.ocpi_downgrade import cdr_in_2_2_1
from busbar.pricing.receipt import Heading, receipt_of, receipt_text
from busbar.pricing.receipt_page import receipt_html
from services.api.auth import ApiKey
from services.api.context import Operator, Viewer, api_of
from services.api.problems import Problem, invalid, not_found
from services.api.reading import (
    DEFAULT_LIMIT,
    After,
    JsonResponse,
    Limit,
    TextQuery,
    cursor,
    dump_json,
    embedded,
    masked,
    page,
    printable,
    read_cursor,
)
from services.api.store import cdrs as store
from services.api.store.tokens import token_key

router = APIRouter(prefix="/v1/cdrs", tags=["billing"])

MAX_EXPORTS = 2
"""At a time in one process: each holds a connection to the database for as long as its reader takes."""

_RECEIPT_POLICY = "default-src 'none'; style-src 'unsafe-inline'"

CdrPath = Annotated[str, Path(min_length=1, max_length=64), AfterValidator(printable)]
Version = Annotated[Literal["2.2.1", "2.3.0"], Query(description="Of OCPI")]
Rows = list[Any]


async def _wanted(
    key: Viewer,
    station: TextQuery = None,
    site: TextQuery = None,
    token: Annotated[TextQuery, Query(description="Needs the role operator")] = None,
    session: UUID | None = None,
    currency: Annotated[str | None, Query(pattern="^[A-Z]{3}$", description="ISO 4217")] = None,
    credit: Annotated[bool | None, Query(description="Only credits, or none of them")] = None,
    from_: Annotated[AwareDatetime | None, Query(alias="from", description="Updated at this time or later")] = None,
    to: Annotated[AwareDatetime | None, Query(description="Updated before this time")] = None,
    ended_from: Annotated[AwareDatetime | None, Query(description="Ended at this time or later")] = None,
    ended_to: Annotated[AwareDatetime | None, Query(description="Ended before this time")] = None,
) -> store.CdrFilter:
    """What lists and exports are narrowed down to."""
    id_token = id_token_key(token, key)
    return store.CdrFilter(station, site, id_token, session, currency, credit, from_, to, ended_from, ended_to)


Wanted = Annotated[store.CdrFilter, Depends(_wanted)]


@router.get("", summary="List charge detail records, the newest first")
async def list_cdrs(
    request: Request, key: Viewer, wanted: Wanted, limit: Limit = DEFAULT_LIMIT, after: After = None
) -> Response:
    """
    A record is never changed: what turns out to be wrong is taken back by a credit, which copies it with a negative
    total, and a new record follows.
    """
    position = read_position(after)
    rows = await store.list_cdrs(api_of(request).pool, wanted, position, limit)
    following = cursor(rows[-1]["last_updated"].isoformat(), rows[-1]["cdr_id"]) if len(rows) == limit else None
    return page([shown(row, key) for row in rows], following)


@router.get(
    "/export",
    summary="Download charge detail records, the oldest first",
    response_class=StreamingResponse,
    responses={200: {"content": {kind: {} for kind in ("text/csv", "application/json", "application/x-ndjson")}}},
)
async def export_cdrs(
    request: Request,
    key: Operator,
    wanted: Wanted,
    format: Literal["csv", "ocpi", "ndjson"] = "csv",
    version: Version = "2.3.0",
) -> Response:
    """
    Any number of them, as they were when the download began.

    - **csv**: a table with a head
    - **ocpi**: a JSON array of CDRs in this `version` of OCPI
    - **ndjson**: in each line what `GET /v1/cdrs/{cdr_id}` shows
    """
    slots: ExportSlots = request.app.state.exports
    documents, write = _FORMATS[format]
    rows = store.export_cdrs(api_of(request).pool, wanted, documents, rows=100 if documents else 500)
    batches = slots.limited(rows)
    # What cannot be read at all is still an error of its own; later ones can only break the download off.
    first = await anext(batches, None)
    headers = {"Content-Disposition": f'attachment; filename="cdrs.{"json" if format == "ocpi" else format}"'}
    chunks = write(batches if first is None else _after(first, batches), version)
    return _Download(chunks, media_type=_MEDIA_TYPES[format], headers=headers)


@router.get("/{cdr_id}", summary="Show a charge detail record, and why it costs what it costs")
async def show_cdr(request: Request, cdr_id: CdrPath, key: Viewer) -> Response:
    """
    `explanation` has a line for each price that applied: when, to how much, and where it stands in the tariff. Its
    lines add up to the total. `credited_by` is the credit that took the record back.
    """
    return JsonResponse(_explained(shown(await _find(request, cdr_id), key)))


@router.get(
    "/{cdr_id}/receipt",
    summary="A receipt for the driver",
    responses={200: {"content": {"text/plain": {}, "text/html": {}}}},
    response_class=PlainTextResponse,
)
async def show_receipt(
    request: Request,
    cdr_id: CdrPath,
    _: Viewer,
    format: Annotated[Literal["text", "html"] | None, Query(description="Else what Accept prefers")] = None,
    detailed: Annotated[bool, Query(description="A row for each stretch of the session, not for each price")] = False,
) -> Response:
    row = await _find(request, cdr_id)
    bill = parse_json(_explanation(row))
    receipt = receipt_of(bill, _heading(row, api_of(request).config.receipt_seller), detailed=detailed)
    headers = {"Vary": "Accept"}
    if format == "html" or (format is None and _prefers_html(request.headers.get("accept", ""))):
        return HTMLResponse(receipt_html(receipt), headers=headers | {"Content-Security-Policy": _RECEIPT_POLICY})
    return PlainTextResponse(receipt_text(receipt), headers=headers)


@router.get("/{cdr_id}/ocpi", summary="The record as an OCPI CDR")
async def show_ocpi(request: Request, cdr_id: CdrPath, _: Operator, version: Version = "2.3.0") -> Response:
    row = await _find(request, cdr_id)
    return Response(_ocpi(row, version), media_type="application/json")


def shown(row: Any, key: ApiKey) -> dict[str, Any]:
    """A row as JSON; whoever only watches gets to see the end of the id token."""
    document = dict(row)
    if document["id_token"] is not None and not key.may("operator"):
        document["id_token"] = masked(document["id_token"])
    return document


def id_token_key(token: str | None, key: ApiKey) -> str | None:
    """What to search for. Raises `Problem` if the key may not search by token."""
    if token is not None and not key.may("operator"):
        raise Problem(
            403, "forbidden", "The key's role does not suffice", "Searching by token needs the role operator."
        )
    return None if token is None else token_key(token)


def read_position(after: str | None) -> tuple[datetime, str] | None:
    """The instant and the id that a page ended with. Raises `Problem`."""
    parts = read_cursor(after, str, str)
    if parts is None:
        return None
    try:
        moment = datetime.fromisoformat(parts[0])
        if moment.tzinfo is not None:
            return moment, parts[1]
    except ValueError:
        pass
    raise invalid([{"path": "query.after", "message": "is not the `next` of an earlier page"}])


async def _find(request: Request, cdr_id: str) -> Any:
    row = await api_of(request).pool.fetchrow(store.FIND, cdr_id)
    if row is None:
        raise not_found("cdr", cdr_id)
    return row


def _explained(row: Mapping[str, Any]) -> dict[str, Any]:
    document = {name: value for name, value in row.items() if name not in ("ocpi", "bill")}
    return document | {"explanation": embedded(_explanation(row))}


def _explanation(row: Mapping[str, Any]) -> str:
    """A credit is kept with the bill that it takes back."""
    bill: str = row["bill"]
    return serialize_json(taken_back(parse_json(bill))) if row["credit"] else bill


def _ocpi(row: Any, version: str) -> bytes:
    text: str = row["ocpi"]
    if version == OcpiVersion.V230:
        return text.encode()
    tax_known = "tax_unknown" not in row["flags"]
    return serialize_json(cdr_in_2_2_1(parse_json(text), tax_known=tax_known)).encode()


def _heading(row: Any, seller: str) -> Heading:
    location = orjson.loads(row["ocpi"]).get("cdr_location") or {}
    town = " ".join(filter(None, (location.get("postal_code"), location.get("city"))))
    place = ", ".join(dict.fromkeys(filter(None, (location.get("name"), location.get("address"), town))))
    title = "Credit note" if row["credit"] else "Charging receipt"
    reference, credited_by = row["credit_reference_id"] or "", row["credited_by"] or ""
    return Heading(title, seller, place, row["station_id"], row["cdr_id"], reference, credited_by)


def _prefers_html(accept: str) -> bool:
    """Whether an `Accept` header names HTML before plain text, as browsers do."""
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    for kind in kinds:
        if kind in ("text/plain", "text/html"):
            return kind == "text/html"
    return False


class ExportSlots:
    """How many exports may run at a time, so that slow readers leave connections for everybody else."""

    def __init__(self, limit: int = MAX_EXPORTS) -> None:
        self._free = limit

    async def limited(self, batches: AsyncIterator[Rows]) -> AsyncIterator[Rows]:
        """The same, in one of the slots. Raises `Problem` at the first one if all are taken."""
        if not self._free:
            raise Problem(
                503,
                "too-many-exports",
                "Other exports are running",
                f"There may be {MAX_EXPORTS} at a time.",
                headers={"Retry-After": "10"},
            )
        self._free -= 1
        try:
            async for rows in batches:
                yield rows
        finally:
            self._free += 1
            await _close(batches)


class _Download(StreamingResponse):
    """A stream that lets go of what it holds as soon as its reader is gone."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await _close(self.body_iterator)


async def _after(first: Rows, rest: AsyncIterator[Rows]) -> AsyncIterator[Rows]:
    try:
        yield first
        async for rows in rest:
            yield rows
    finally:
        await _close(rest)


async def _close(generator: Any) -> None:
    """End a generator that may not have come to its end."""
    if isinstance(generator, AsyncGenerator):
        await generator.aclose()


async def _csv(batches: AsyncIterator[Rows], _: str) -> AsyncIterator[bytes]:
    try:
        yield _csv_lines([store.SUMMARY])
        async for rows in batches:
            yield _csv_lines([_cell(row[name]) for name in store.SUMMARY] for row in rows)
    finally:
        await _close(batches)


async def _ocpi_array(batches: AsyncIterator[Rows], version: str) -> AsyncIterator[bytes]:
    before = b"["
    try:
        async for rows in batches:
            yield before + b",\n".join(_ocpi(row, version) for row in rows)
            before = b",\n"
    finally:
        await _close(batches)
    yield b"[]\n" if before == b"[" else b"]\n"


async def _ndjson(batches: AsyncIterator[Rows], _: str) -> AsyncIterator[bytes]:
    try:
        async for rows in batches:
            yield b"".join(dump_json(_explained(row)) + b"\n" for row in rows)
    finally:
        await _close(batches)


def _csv_lines(rows: Iterable[Iterable[str]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerows(rows)
    return buffer.getvalue().encode()


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case Decimal():
            return format(value, "f")
        case list():
            return " ".join(value)
        case str() if value[:1] in _FORMULA:
            # Stations choose id tokens: a spreadsheet must not take one for a formula.
            return f"'{value}"
        case _:
            return str(value)


_FORMULA = tuple("=+-@\t\r")
_FORMATS: dict[str, tuple[tuple[str, ...], Callable[[AsyncIterator[Rows], str], AsyncIterator[bytes]]]] = {
    "csv": ((), _csv),
    "ocpi": (("ocpi",), _ocpi_array),
    "ndjson": (("bill",), _ndjson),
}
_MEDIA_TYPES = {"csv": "text/csv; charset=utf-8", "ocpi": "application/json", "ndjson": "application/x-ndjson"}
