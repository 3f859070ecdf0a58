"""`busbar send`: a command to a station, through the API."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import click

from busbar.cli._kafka import run_file_option
from busbar.local.errors import StackError
from busbar.local.runfile import RunFile

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
@click.option("--api-url", envvar="BUSBAR_API_URL", show_envvar=True, help="That of the running stack unless given.")
@click.option("--key", envvar="BUSBAR_API_KEY", show_envvar=True, help="API key; that of the stack unless given.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole response.")
@run_file_option
def command(
    station: str,
    action: str,
    payload: str,
    wait: float,
    timeout: float | None,
    park: bool,
    priority: int,
    idempotency_key: str | None,
    api_url: str | None,
    key: str | None,
    as_json: bool,
    run_file: Path,
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
    if api_url is None or key is None:
        running = RunFile.read(run_file)
        api_url, key = api_url or running.api_url, key or running.admin_key
    query: dict[str, Any] = {"wait": wait, "priority": priority, "park": str(park).lower()}
    if timeout is not None:
        query["timeout"] = timeout
    path = f"/v1/stations/{quote(station, safe='')}/commands/{quote(action, safe='')}?{urlencode(query)}"
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    if idempotency_key is not None:
        headers["Idempotency-Key"] = idempotency_key
    document = post(api_url.rstrip("/") + path, headers, body, (timeout or wait) + NETWORK_SLACK_SECONDS)
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


def post(url: str, headers: dict[str, str], body: bytes, timeout_seconds: float) -> dict[str, Any]:
    """Ask the API. Raises `StackError` if it is not there, or refuses the request."""
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")  # noqa: S310 - given by the user
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout_seconds) as response:
            return _object(response.read())
    except urllib.error.HTTPError as error:
        document = _object(error.read())
        if "outcome" in document:
            return document
        raise StackError(_refusal(error.code, document)) from None
    except (urllib.error.URLError, OSError, TimeoutError) as error:
        reason = getattr(error, "reason", error)
        raise StackError(f"the API at {url.split('/v1/')[0]} does not answer ({reason}): is it running?") from None


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _refusal(status: int, problem: dict[str, Any]) -> str:
    """A problem document in one line."""
    parts = [problem.get("title") or f"the API answered {status}", problem.get("detail")]
    parts += [f"{error.get('path')} {error.get('message')}" for error in problem.get("errors", [])[:3]]
    if status == 401:
        parts.append("give an API key with --key or BUSBAR_API_KEY")
    return ": ".join(str(part).rstrip(".") for part in parts if part)


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
