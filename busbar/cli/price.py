"""`busbar price`: what a session would cost, without servers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click

from busbar.cli._explained import explanation_lines
from busbar.cli._recording import is_recorded, read_recording
from busbar.ocpp.times import timestamp_ms
from busbar.pricing import ChargingState, Fact, FactKind, Options, Pricer, Rounding, RoundingMode, Tariff
from busbar.pricing.assignment import read_tariff
from busbar.pricing.clock import zone_problem
from busbar.pricing.explanation import explain, plain
from busbar.pricing.facts import ended, sampled, started
from busbar.pricing.jsontext import parse_json, serialize_json
from busbar.pricing.problems import Problem, SessionError, UnreadableError
from busbar.pricing.receipt import receipt_of, receipt_text
from busbar.pricing.receipt_page import receipt_html
from busbar.pricing.session_json import RecordedSession, read_facts, read_ocpi_session

MS_PER_MINUTE = 60_000
_CONTRADICTION_KWH = Decimal("0.001")
_MOST_REASONS = 25


class DecimalType(click.ParamType):  # type: ignore[type-arg]  # not generic in every click
    """A number that is not negative, exact to the digit."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        try:
            number = Decimal(value)
        except ArithmeticError:
            number = Decimal("NaN")
        if not number.is_finite() or not 0 <= number <= 1_000_000 or number.as_tuple().exponent < -6:  # type: ignore[operator]
            self.fail(f"{value!r} is not a number from 0 to 1000000 with at most 6 fraction digits", param, ctx)
        return number


@dataclass(frozen=True, slots=True)
class Described:
    """A session in a few numbers."""

    start: str | None
    kwh: Decimal | None
    minutes: Decimal | None
    parking: Decimal
    power: Decimal | None
    reserved: Decimal


NUMBER = DecimalType()
FILE = click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True)


@click.command("price")
@click.argument("tariff", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True))
@click.argument(
    "session", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True), required=False
)
@click.option("--start", help="When it begins, as 2026-03-29T01:30+01:00; by the clock there if without offset. [now]")
@click.option("--kwh", type=NUMBER, help="Energy, charged at constant power.")
@click.option("--minutes", type=NUMBER, help="Charging time.")
@click.option("--power", type=NUMBER, help="kW, in the place of --kwh or --minutes.")
@click.option("--parking", type=NUMBER, default="0", help="Minutes that the car stays after that.")
@click.option("--reserved", type=NUMBER, default="0", help="Minutes that it was reserved before.")
@click.option("--transaction", help="Which one, if SESSION has several; for CDRs the id of one.")
@click.option("--time-zone", default="UTC", show_default=True, help="IANA name of the location's, as Europe/Berlin.")
@click.option(
    "--digits", type=click.IntRange(0, 10), help="Round to so many digits; those of the currency unless given."
)
@click.option("--rounding", type=click.Choice(list(RoundingMode)), default="HALF_UP", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the explanation as JSON.")
@click.option("--html", "as_html", is_flag=True, help="Print the receipt as HTML.")
def command(
    tariff: Path,
    session: Path | None,
    start: str | None,
    kwh: Decimal | None,
    minutes: Decimal | None,
    power: Decimal | None,
    parking: Decimal,
    reserved: Decimal,
    transaction: str | None,
    time_zone: str,
    digits: int | None,
    rounding: str,
    as_json: bool,
    as_html: bool,
) -> None:
    """Show what SESSION costs by TARIFF, and why: the receipt, and which price applied when.

    TARIFF is a JSON file: a Tariff of OCPI 2.2.1 or 2.3.0, or a TariffType of OCPP 2.1. SESSION is one, too: an OCPI
    CDR or Session, or a list of them; what a station sent; or facts such as {"kind": "sampled", "at":
    "2026-03-29T01:30:00Z", "register_wh": 5000, "state": "SuspendedEV"}. What a station sent are OCPP-J frames,
    payloads of TransactionEvents or what `busbar tail --json` printed; they and facts are in a list or one in a line.
    Without SESSION, the session is what the options say. - reads from standard input.

    The engine is the one that bills. No server is needed.

    \b
    busbar price tariff.json --start 2026-03-29T01:30 --time-zone Europe/Berlin --kwh 20 --minutes 90 --parking 30
    busbar price tariff.json cdr.json --json
    busbar tail DEMO-0001 --since 1d --no-follow --json > sent.jsonl
    busbar price tariff.json sent.jsonl --transaction 4711 --html > receipt.html
    """
    if as_json and as_html:
        raise click.UsageError("--json or --html, not both")
    if problem := zone_problem(time_zone):
        raise click.BadParameter(problem, param_hint="--time-zone")
    described = Described(start, kwh, minutes, parking, power, reserved)
    if session is not None and (
        start or kwh is not None or minutes is not None or power is not None or parking or reserved
    ):
        raise click.UsageError(
            "the session is in SESSION: --start, --kwh, --minutes and their like describe one without"
        )
    if session is None and transaction is not None:
        raise click.UsageError("--transaction picks one out of SESSION, which is not given")
    read = _read_tariff(tariff)
    recorded = described_session(described, time_zone) if session is None else _read_session(session, transaction)
    options = Options(rounding=Rounding(mode=RoundingMode(rounding), digits=digits))
    document = explain(Pricer(read, time_zone, options).price(recorded.facts), time_zone)
    if as_html:
        click.echo(receipt_html(receipt_of(document)), nl=False)
        return
    if as_json:
        click.echo(serialize_json(document | {"warnings": list(read.warnings), "remarks": list(recorded.remarks)}))
        return
    click.echo(receipt_text(receipt_of(document)))
    click.echo("\n".join(explanation_lines(document)))
    for line in _beside(read, recorded, document):
        click.echo(f"     {line}")


def _beside(tariff: Tariff, recorded: RecordedSession, document: dict[str, Any]) -> list[str]:
    """What else a reader should know."""
    lines = [f"session {remark}" for remark in recorded.remarks]
    lines += [f"tariff {warning}" for warning in tariff.warnings]
    if recorded.stated_excl is not None:
        difference = document["total"]["excl_tax"] - recorded.stated_excl
        stated = f"the CDR itself says {plain(recorded.stated_excl, 2)} {document['currency']} before tax"
        lines.append(f"{stated}: {plain(difference, 2)} more" if difference > 0 else stated + _less(difference))
    return lines


def _less(difference: Decimal) -> str:
    return f": {plain(-difference, 2)} less" if difference else ": the same"


def described_session(described: Described, time_zone: str) -> RecordedSession:
    """A session at constant power. Raises `click.UsageError` for numbers that contradict each other."""
    kwh, minutes, power = described.kwh, described.minutes, described.power
    if kwh is minutes is power is None and not described.reserved and not described.parking:
        raise click.UsageError("which session? Give SESSION, or at least --kwh or --minutes (busbar price --help)")
    if kwh is not None and minutes is not None and power is not None:
        if abs(power * minutes / 60 - kwh) > _CONTRADICTION_KWH:
            took = f"{plain(round(kwh / power * 60, 1), 0)} min" if power else "forever"
            raise click.UsageError(
                f"{kwh} kWh at {power} kW take {took}, not {minutes} min: leave one of --kwh, --minutes, --power out"
            )
    elif power is not None:
        if not power:
            raise click.UsageError("--power is 0: leave it out")
        if kwh is None and minutes is None:
            raise click.UsageError("--power needs --kwh or --minutes as well")
        kwh = power * minutes / 60 if kwh is None and minutes is not None else kwh
        minutes = kwh / power * 60 if minutes is None and kwh is not None else minutes
    elif minutes is None and kwh:
        raise click.UsageError("how long does it charge? Give --minutes or --power as well as --kwh")
    start_ms = _start_ms(described.start, time_zone)
    charged_ms = start_ms + int((minutes or Decimal(0)) * MS_PER_MINUTE)
    wh = round((kwh or Decimal(0)) * 1000, 6)
    facts: list[Fact] = []
    if described.reserved:
        facts.append(Fact(FactKind.RESERVED, start_ms - int(described.reserved * MS_PER_MINUTE)))
    facts.append(started(start_ms, 0))
    if described.parking:
        facts.append(sampled(charged_ms, wh, ChargingState.SUSPENDED_EV))
    facts.append(ended(charged_ms + int(described.parking * MS_PER_MINUTE), wh))
    return RecordedSession(tuple(facts))


def _start_ms(text: str | None, time_zone: str) -> int:
    if text is None:
        return timestamp_ms(datetime.now(UTC).replace(microsecond=0))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or not 1970 < moment.year < 9998:
        raise click.BadParameter(f"{text!r} is not a date and time as 2026-03-29T01:30+01:00", param_hint="--start")
    return timestamp_ms(moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(time_zone)))


def _read_tariff(path: Path) -> Tariff:
    try:
        return read_tariff(_text(path))
    except UnreadableError as error:
        raise _told(path, error) from None


def _read_session(path: Path, transaction: str | None) -> RecordedSession:
    try:
        return read_session(parse_json_or_lines(_text(path)), transaction)
    except UnreadableError as error:
        raise _told(path, error) from None


def _text(path: Path) -> str:
    try:
        with click.open_file(str(path), encoding="utf-8") as file:
            return str(file.read())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise click.ClickException(f"{_name(path)}: {reason}") from None


def _name(path: Path) -> str:
    return "standard input" if str(path) == "-" else str(path)


def _told(path: Path, error: UnreadableError) -> click.ClickException:
    """A reason in each line, with the file and the JSON path; the first ones, where the file is something else."""
    lines = [f"{_name(path)}: {problem}" for problem in error.problems]
    if len(lines) > _MOST_REASONS:
        lines[_MOST_REASONS:] = [f"{_name(path)}: and {len(lines) - _MOST_REASONS} more"]
    return click.ClickException("\n".join(lines))


def parse_json_or_lines(text: str) -> Any:
    """JSON, or JSON lines as a list. Raises `UnreadableError`, with the line for the latter."""
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if len(lines) < 2 or not _complete(lines[0][1]):
        return parse_json(text)
    values = []
    for number, line in lines:
        try:
            values.append(parse_json(line))
        except UnreadableError as error:
            raise SessionError([Problem(f"line {number}", problem.reason) for problem in error.problems]) from None
    return values


def _complete(line: str) -> bool:
    try:
        parse_json(line)
    except UnreadableError:
        return False
    return True


def read_session(value: Any, transaction: str | None = None) -> RecordedSession:
    """A session in any of the forms that SESSION may have. Raises `SessionError`."""
    if isinstance(value, list) and value and all(map(_is_ocpi, value)):
        value = _picked(value, transaction)
    if _is_ocpi(value):
        return read_ocpi_session(value)
    if isinstance(value, dict) and is_recorded(value):
        value = [value]
    if not isinstance(value, list):
        raise SessionError([Problem("$", "is neither an OCPI CDR or Session, nor facts, nor what a station sent")])
    if not value:
        raise SessionError([Problem("$", "is empty")])
    return read_recording(value, transaction) if is_recorded(value[0]) else read_facts(value)


def _is_ocpi(value: Any) -> bool:
    return isinstance(value, dict) and bool(value.keys() & {"charging_periods", "kwh", "start_date_time"})


def _picked(values: list[dict[str, Any]], wanted: str | None) -> dict[str, Any]:
    """One of several CDRs, such as an export holds. Raises `SessionError`."""
    if len(values) == 1 and wanted is None:
        return values[0]
    found = [value for value in values if wanted is not None and value.get("id") == wanted]
    if found:
        return found[0]
    ids = [str(value.get("id", "one without an id")) for value in values]
    names = ", ".join(ids[:_MOST_REASONS]) + (
        f" and {len(ids) - _MOST_REASONS} more" if len(ids) > _MOST_REASONS else ""
    )
    if wanted is not None:
        raise SessionError([Problem("$", f"there is no CDR {wanted}: there is {names}")])
    raise SessionError([Problem("$", f"there are several CDRs: pick one with --transaction, of {names}")])
