"""`busbar tariffs`: tariffs and whom they are assigned to, through the API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from busbar.cli._api import Api, RefusedError, api_options
from busbar.pricing.jsontext import serialize_json

SCOPES = ("token", "token_group", "connector", "station", "site", "default")


@click.group("tariffs")
def command() -> None:
    """List, add and assign tariffs.

    \b
    busbar tariffs add tariff.json
    busbar tariffs assign day-and-night site berlin-7
    busbar tariffs assign day-and-night default
    busbar tariffs change SESSION night-rate
    busbar tariffs list

    `busbar price` says what a session costs by a tariff before it is added.
    """


@command.command("list")
@click.option("--match", help="Only those whose id begins with this.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@api_options
def list_tariffs(api: Api, match: str | None, as_json: bool) -> None:
    """List the tariffs, each with its latest version."""
    found = False
    for row in api.items("/v1/tariffs", {"q": match}, None):
        found = True
        if as_json:
            click.echo(serialize_json(row))
        else:
            click.echo(
                f"{row['tariff_id']:36}  v{row['version']:<4} {row['format']:10}  {row['currency']}"
                f"  from {row['valid_from']}"
            )
    if not found and not as_json:
        click.echo("there is no such tariff" if match else "there is no tariff yet: `busbar tariffs add FILE`")


@command.command("show")
@click.argument("tariff")
@click.option("--version", type=click.IntRange(1), help="The one of now unless given.")
@api_options
def show(api: Api, tariff: str, version: int | None) -> None:
    """Print the content of TARIFF as JSON."""
    path = f"/v1/tariffs/{quote(tariff, safe='')}"
    row = api.get(path if version is None else f"{path}/versions/{version}")
    click.echo(serialize_json(row["content"]))


@command.command("add")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True))
@click.option("--valid-from", help="RFC 3339, as 2027-01-01T00:00:00+01:00; at once unless given.")
@api_options
def add(api: Api, file: Path, valid_from: str | None) -> None:
    """Add the tariff in FILE, or the next version of one that exists.

    FILE holds a Tariff of OCPI 2.2.1 or 2.3.0, or a TariffType of OCPP 2.1; - is standard input. What cannot be priced
    is refused, with every reason and its place. Sessions that go on keep the version that they began with.
    """
    with click.open_file(str(file), "rb") as opened:
        content: bytes = opened.read()
    try:
        answer = api.ask("POST", "/v1/tariffs", {"valid_from": valid_from}, body=content)
    except RefusedError as error:
        reasons = error.document.get("errors")
        if error.status != 422 or not reasons or not all(str(item.get("path", "")).startswith("$") for item in reasons):
            raise
        lines = [f"{file}: {item['path']}: {item['message']}" for item in reasons]
        raise click.ClickException("\n".join(lines)) from None
    row = json.loads(answer)
    click.echo(f"{row['tariff_id']} version {row['version']}, valid from {row['valid_from']}")
    for warning in row["warnings"]:
        click.echo(f"warning: {warning}", err=True)


@command.command("assign")
@click.argument("tariff")
@click.argument("scope", type=click.Choice(SCOPES))
@click.argument("subject", default="")
@click.option("--priority", default=0, show_default=True, help="Within a scope the highest goes first.")
@click.option("--valid-from", help="RFC 3339; at once unless given.")
@click.option("--valid-until", help="RFC 3339; until it is ended unless given.")
@api_options
def assign(
    api: Api,
    tariff: str,
    scope: str,
    subject: str,
    priority: int,
    valid_from: str | None,
    valid_until: str | None,
) -> None:
    """Give TARIFF to the sessions of SCOPE: those of SUBJECT, or with `default` all others.

    SUBJECT is an id token, its group, STATION/CONNECTOR (OCPP 1.6) or STATION/EVSE/CONNECTOR (2.x), a station, or a
    site. The most particular assignment decides: token, token_group, connector, station, site, default.
    """
    if (scope == "default") is bool(subject):
        raise click.UsageError("SUBJECT says whom SCOPE means: `default` has none, all others need one")
    body: dict[str, Any] = {"tariff_id": tariff, "scope": scope, "subject": subject, "priority": priority}
    body |= {name: at for name, at in (("valid_from", valid_from), ("valid_until", valid_until)) if at is not None}
    row = json.loads(api.ask("POST", "/v1/tariff-assignments", body=json.dumps(body).encode()))
    click.echo(_assignment(row))


@command.command("assignments")
@click.option("--tariff", help="Of this tariff.")
@click.option("--scope", type=click.Choice(SCOPES), help="Of this scope.")
@click.option("--all", "ended_too", is_flag=True, help="Also those that have ended.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@api_options
def assignments(api: Api, tariff: str | None, scope: str | None, ended_too: bool, as_json: bool) -> None:
    """List who has which tariff, the newest first."""
    query = {"tariff": tariff, "scope": scope, "standing": None if ended_too else True}
    for row in api.items("/v1/tariff-assignments", query, None):
        click.echo(serialize_json(row) if as_json else _assignment(row))


@command.command("end")
@click.argument("assignment")
@click.option("--at", help="RFC 3339; at once unless given.")
@api_options
def end(api: Api, assignment: str, at: str | None) -> None:
    """End ASSIGNMENT, for sessions that start later."""
    path = f"/v1/tariff-assignments/{quote(assignment, safe='')}/end"
    click.echo(
        _assignment(json.loads(api.ask("POST", path, body=json.dumps({} if at is None else {"at": at}).encode())))
    )


@command.command("change")
@click.argument("session")
@click.argument("tariff")
@click.option("--version", type=click.IntRange(1), help="The one of now unless given.")
@click.option("--wait", default=10.0, show_default=True, type=click.FloatRange(0, 300), help="Seconds for the outcome.")
@api_options
def change(api: Api, session: str, tariff: str, version: int | None, wait: float) -> None:
    """Give SESSION, which goes on, TARIFF from now on. What was used until now keeps its price.

    SESSION is the `session_id` of a transaction. A station of OCPP 2.1 that prices it itself is told, and has the last
    word.
    """
    body = {"tariff_id": tariff} | ({} if version is None else {"version": version})
    path = f"/v1/transactions/{quote(session, safe='')}/tariff"
    row = json.loads(api.ask("POST", path, {"wait": wait}, body=json.dumps(body).encode()))
    told = {
        "applied": f"from {row.get('applies_from')} on",
        "asked": f"waits for the station: command {row.get('command_id')}",
    }.get(row["status"], f"not known yet: GET {path}-changes")
    click.echo(f"{row['tariff_id']} version {row['version']} for {row['session_id']}: {row['status']}, {told}")


def _assignment(row: dict[str, Any]) -> str:
    whom = " ".join(filter(None, (row["scope"], row["subject"])))
    until = f" until {row['valid_until']}" if row["valid_until"] else ""
    priority = f", priority {row['priority']}" if row["priority"] else ""
    return f"{row['assignment_id']}  {row['tariff_id']} for {whom} from {row['valid_from']}{until}{priority}"
