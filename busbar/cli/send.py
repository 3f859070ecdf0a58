"""`busbar send`: a command to a station, through the API."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from busbar.cli._api import Api, RefusedError, api_options

EXIT_ERROR_ANSWER = 1
EXIT_NOT_DELIVERED = 3
EXIT_PENDING = 4
NETWORK_SLACK_SECONDS = 15.0


@click.command("send")
@click.argument("station")
@click.argument("action")
@click.argument("payload", default="{}")
@click.option("--wait", default=30.0, show_default=True, type=click.FloatRange(0, 300), help="Seconds for the outcome.")
@click.option("--timeout", type=click.FloatRange(1), help="Seconds after which the outcome is decided.")
@click.option("--park", is_flag=True, help="If the station is offline, wait until it returns.")
@click.option("--priority", default=0, show_default=True, help="Higher goes first.")
@click.option("--idempotency-key", help="The same key again is the same command.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole response.")
@api_options
def command(
    api: Api,
    station: str,
    action: str,
    payload: str,
    wait: float,
    timeout: float | None,
    park: bool,
    priority: int,
    idempotency_key: str | None,
    as_json: bool,
) -> None:
    """Send the command ACTION to STATION and show what it answers.

    PAYLOAD is JSON, by the schema of the action in the station's OCPP version; @FILE reads it from a file, - from
    standard input.

    The exit code is 0 if the station answered, 1 if it answered with a CALLERROR, 3 if it was not reached (offline,
    disconnected, timeout, rejected), 4 if there is no outcome yet.

    \b
    busbar send DEMO-0001 Reset '{"type": "Soft"}'
    busbar send DEMO-0002 GetVariables @variables.json --wait 60
    """
    body = read_payload(payload)
    path = f"/v1/stations/{quote(station, safe='')}/commands/{quote(action, safe='')}"
    query = {"wait": wait, "priority": priority, "park": park, "timeout": timeout}
    headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
    slack_seconds = (timeout or wait) + NETWORK_SLACK_SECONDS
    try:
        answer = api.ask("POST", path, query, body=body, headers=headers, timeout_seconds=slack_seconds)
        document: dict[str, Any] = json.loads(answer)
    except RefusedError as error:
        if "outcome" not in error.document:
            raise
        document = error.document
    click.echo(json.dumps(document, indent=2, ensure_ascii=False) if as_json else "\n".join(told(document)))
    sys.exit(exit_code(str(document.get("outcome"))))


def read_payload(text: str) -> bytes:
    """The JSON object that was given, from where it was given. Raises `click.BadParameter`."""
    if text == "-":
        text = sys.stdin.read()
    elif text.startswith("@"):
        try:
            text = Path(text[1:]).read_text()
        except OSError as error:
            raise click.BadParameter(f"{text[1:]}: {error.strerror}") from None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"the payload is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise click.BadParameter('the payload is not a JSON object, such as {"type": "Soft"}')
    return json.dumps(value).encode()


def told(document: dict[str, Any]) -> list[str]:
    """An outcome for people."""
    outcome = str(document.get("outcome"))
    head = f"{document.get('station_id')} {document.get('action')}: {outcome}"
    if outcome == "answered":
        return [head, json.dumps(document.get("answer"), indent=2, ensure_ascii=False)]
    if outcome == "pending":
        return [f"{head}, command {document.get('command_id')}"]
    error = document.get("error") or {}
    why = " ".join(str(error[name]) for name in ("code", "description") if error.get(name))
    return [f"{head} {why}".rstrip()]


def exit_code(outcome: str) -> int:
    match outcome:
        case "answered":
            return 0
        case "error":
            return EXIT_ERROR_ANSWER
        case "pending":
            return EXIT_PENDING
        case _:
            return EXIT_NOT_DELIVERED
