"""`busbar cdrs`: charge detail records, through the API."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import quote

import click

from busbar.cli._api import Api, api_options
from busbar.cli._explained import explanation_lines
from busbar.cli._kafka import parse_since
from busbar.local.errors import StackError
from busbar.ocpp.times import format_timestamp_ms
from busbar.pricing.explanation import plain
from busbar.pricing.jsontext import serialize_json
from busbar.pricing.money import MINOR_DIGITS

P = ParamSpec("P")
T = TypeVar("T")


@click.group("cdrs")
def command() -> None:
    """List, explain and download charge detail records.

    \b
    busbar cdrs list --station CS-0001 --from 30d
    busbar cdrs show 0b5f1c1e-6c1b-5b0e-9d0a-3c1b1f0a7d11
    busbar cdrs receipt 0b5f1c1e-6c1b-5b0e-9d0a-3c1b1f0a7d11 --html -o receipt.html
    busbar cdrs export --format csv --from 2026-11-01T00:00:00Z -o november.csv
    """


class _Instant(click.ParamType):  # type: ignore[type-arg]  # not generic in every click
    """A point in time, or so long ago."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return format_timestamp_ms(parse_since(value))


_OPTIONS = (
    click.option("--station", help="Of this station."),
    click.option("--site", help="Of this site."),
    click.option("--token", help="Of this id token."),
    click.option("--session", help="Of this session."),
    click.option("--currency", help="ISO 4217, as EUR."),
    click.option("--credit/--no-credit", default=None, help="Only credits, or none of them."),
    click.option(
        "--from", "from_", type=_Instant(), help="Updated then or later: 10m, 2h, 30d ago or a point in time."
    ),
    click.option("--to", type=_Instant(), help="Updated before then."),
    click.option("--ended-from", type=_Instant(), help="Of sessions that ended then or later."),
    click.option("--ended-to", type=_Instant(), help="Of sessions that ended before then."),
)


def filter_options(function: Callable[P, T]) -> Callable[P, T]:
    """What lists and exports are narrowed down to."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@command.command("list")
@filter_options
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="How many at most.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@api_options
def list_cdrs(api: Api, /, limit: int, as_json: bool, **conditions: Any) -> None:
    """List records, the newest first. A credit takes the record back whose number it has."""
    rows = list(api.items("/v1/cdrs", _query(conditions), limit))
    if as_json:
        for row in rows:
            click.echo(serialize_json(row))
        return
    heads = ("ENDED (UTC)", "STATION", "ID TOKEN", "ENERGY", "TOTAL", "CDR")
    digits = max((_digits(_kwh(row)) for row in rows), default=0)
    table = [heads, *([*_cells(row, digits)] for row in rows)]
    click.echo("\n".join(_aligned(table, right=(3, 4))) if rows else "no charge detail record fits")


@command.command("show")
@click.argument("cdr")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
@api_options
def show(api: Api, cdr: str, as_json: bool) -> None:
    """Show the record CDR, and line by line why it costs what it costs."""
    row = api.get(f"/v1/cdrs/{quote(cdr, safe='')}")
    if as_json:
        click.echo(serialize_json(row))
        return
    for label, value in _summary(row):
        click.echo(f"{label + ':':15}{value}")
    click.echo()
    click.echo("\n".join(explanation_lines(row["explanation"])))


@command.command("receipt")
@click.argument("cdr")
@click.option("--html", "as_html", is_flag=True, help="As a page for browsers and paper.")
@click.option("--detailed", is_flag=True, help="A row for each stretch of the session, not for each price.")
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="Write it to this file.")
@api_options
def receipt(api: Api, cdr: str, as_html: bool, detailed: bool, output: Path | None) -> None:
    """Print the receipt of the record CDR for its driver."""
    query = {"format": "html" if as_html else "text", "detailed": detailed}
    _write(api.download(f"/v1/cdrs/{quote(cdr, safe='')}/receipt", query), output)


@command.command("export")
@filter_options
@click.option("--format", "kind", type=click.Choice(["csv", "ocpi", "ndjson"]), default="csv", show_default=True)
@click.option("--ocpi-version", type=click.Choice(["2.2.1", "2.3.0"]), default="2.3.0", show_default=True)
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="Write it to this file.")
@api_options
def export(api: Api, /, kind: str, ocpi_version: str, output: Path | None, **conditions: Any) -> None:
    """Download any number of records, the oldest first.

    csv is a table, ocpi a JSON array of OCPI CDRs, and ndjson has in each line what `busbar cdrs show --json` prints.
    A file is there only once it is complete.
    """
    query = {**_query(conditions), "format": kind, "version": ocpi_version if kind == "ocpi" else None}
    size = _write(api.download("/v1/cdrs/export", query), output)
    if output is not None:
        click.echo(f"{output}: {size} bytes", err=True)


def _query(conditions: dict[str, Any]) -> dict[str, Any]:
    return {"from" if name == "from_" else name: value for name, value in conditions.items()}


def _write(pieces: Iterable[bytes], output: Path | None) -> int:
    """Write to a file, which appears when all is there, or to standard output."""
    size = 0
    if output is None:
        for piece in pieces:
            size += sys.stdout.buffer.write(piece)
        sys.stdout.flush()
        return size
    partial = output.with_name(f"{output.name}.part")
    try:
        with partial.open("wb") as file:
            for piece in pieces:
                size += file.write(piece)
        partial.replace(output)
    except OSError as error:
        raise StackError(f"{output}: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
    return size


def _kwh(row: dict[str, Any], digits: int = 3) -> str:
    return plain(Decimal(row["energy_wh"]) / 1000, digits)


def _digits(number: str) -> int:
    return len(number.partition(".")[2])


def _cells(row: dict[str, Any], digits: int) -> tuple[str, ...]:
    ended = datetime.fromisoformat(row["ended_at"]).astimezone(UTC)
    return (
        f"{ended:%Y-%m-%d %H:%M}",
        row["station_id"],
        row["id_token"] or "-",
        f"{_kwh(row, digits)} kWh",
        _money(row["total_incl"], row["currency"]),
        row["cdr_id"],
    )


def _summary(row: dict[str, Any]) -> Iterable[tuple[str, str]]:
    yield "Record", f"{row['cdr_id']} (number {row['number']} of its session)"
    if row["credit"]:
        yield "Credit of", row["credit_reference_id"]
    if row["credited_by"]:
        yield "Taken back by", row["credited_by"]
    yield "Session", row["session_id"]
    yield "Station", row["station_id"] + (f", site {row['site_id']}" if row["site_id"] else "")
    if row["id_token"]:
        yield "Id token", row["id_token"]
    yield "From", f"{row['started_at']} to {row['ended_at']}"
    yield "Energy", f"{_kwh(row)} kWh, by {row['energy_rung']}"
    yield "Tariff", f"{row['tariff_id']} version {row['tariff_version']}"
    total = (_money(row[name], row["currency"]) for name in ("total_excl", "total_incl"))
    yield "Total", "{} before tax, {} after tax".format(*total)
    if row["flags"]:
        yield "Noticed", ", ".join(row["flags"])


def _money(amount: Any, currency: str) -> str:
    return f"{plain(amount, MINOR_DIGITS.get(currency, 2))} {currency}"


def _aligned(table: list[Any], right: tuple[int, ...]) -> Iterable[str]:
    widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    for row in table:
        cells = (
            f"{cell:>{width}}" if place in right else f"{cell:<{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()
