"""`busbar schemas`: the Avro schemas of the topics, and whether everything that follows from them is current."""

from __future__ import annotations

import json
import sys

import click

from busbar.avro import generate
from busbar.avro.lock import LockedSchema, shipped_lock
from busbar.local.errors import StackError
from busbar.resources import schemas_folder


@click.group("schemas")
def command() -> None:
    """List, show and check the Avro schemas."""


@command.command("list")
@click.option("--match", default="", help="Only schemas with this in their names.")
@click.option("--versions", "all_versions", is_flag=True, help="Every version, not only the newest.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_schemas(match: str, all_versions: bool, as_json: bool) -> None:
    """List the schemas: id, version, full name and subject."""
    lock = shipped_lock()
    chosen = [
        entry
        for entry in lock.entries
        if match.lower() in entry.name.lower() and (all_versions or entry is lock.latest(entry.name))
    ]
    if not chosen:
        raise StackError(f"no schema has {match!r} in its name: `busbar schemas list` shows all of them")
    if as_json:
        shown = ("id", "version", "name", "subject", "fingerprint")
        click.echo(json.dumps([{name: getattr(entry, name) for name in shown} for entry in chosen], indent=2))
        return
    width = max(len(entry.name) for entry in chosen)
    for entry in chosen:
        click.echo(f"{entry.id:>5}  v{entry.version:<3} {entry.name:<{width}}  {entry.subject}")


@command.command("show")
@click.argument("schema")
@click.option("--version", type=click.IntRange(1), help="Of the schema; the newest unless given.")
def show(schema: str, version: int | None) -> None:
    """Print SCHEMA as JSON. It is named by its id, its full name (csms.SessionEvent), its subject or its topic."""
    click.echo(json.dumps(json.loads(find(schema, version).schema), indent=2, ensure_ascii=False))


@command.command("check")
def check() -> None:
    """Check that schemas, lock file, examples and documents agree, and that no schema breaks a reader.

    The exit code is 0 if they do; else what differs is printed. In a checkout only, where the sources are.
    """
    if schemas_folder().name != "schemas":
        raise StackError("the sources are not installed: run it in a checkout of Busbar")
    sys.exit(generate.main(["--check"]))


def find(name: str, version: int | None) -> LockedSchema:
    """The schema of an id, a full name, a subject or a topic. Raises `StackError`."""
    lock = shipped_lock()
    if name.isdigit():
        entry = lock.by_id.get(int(name))
        if entry is None:
            raise StackError(f"no schema has the id {name}: `busbar schemas list` shows all of them")
        return entry
    wanted = {name, f"{name}-value"}
    found = [entry for entry in lock.entries if entry.name == name or entry.subject in wanted]
    if version is not None:
        found = [entry for entry in found if entry.version == version]
    if not found:
        of = f" in version {version}" if version is not None else ""
        raise StackError(f"there is no schema {name}{of}: `busbar schemas list` shows all of them")
    return found[-1]
