"""`python -m busbar.avro.generate`: write what follows from `topics.toml`, `actions.toml` and the schemas of OCPP.

That is `schemas/avro/ocpp/**`, `schemas/registry.lock.json`, the examples of action topics and the pages in `docs`.
`schemas/avro/csms/*.avsc` are written by hand; each gets an id here. A schema that older or newer readers could not
follow is refused. With `--check` nothing is written, and the exit code says whether anything would be.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from busbar.avro.asyncapi import asyncapi_document
from busbar.avro.compatibility import problems
from busbar.avro.conversion import action_record
from busbar.avro.documents import topics_page
from busbar.avro.errors import SchemaError
from busbar.avro.examples import action_example
from busbar.avro.lock import LOCK_FILE, Lock, read_lock
from busbar.avro.schema import Schema, parse_schema
from busbar.resources import schemas_folder
from busbar.topics import all_topics


def json_text(source: Mapping[str, Any]) -> str:
    """The text of a file of JSON that people read."""
    return json.dumps(source, indent=2, ensure_ascii=False) + "\n"


def hand_written(folder: Path) -> dict[str, Any]:
    """The schemas under `avro/csms` by full name, in their JSON form."""
    found = {}
    for path in sorted((folder / "avro" / "csms").glob("*.avsc")):
        try:
            source = json.loads(path.read_text(encoding="utf-8"))
            name = f"{source['namespace']}.{source['name']}"
        except (ValueError, KeyError, TypeError) as error:
            raise SchemaError(f"{path.name}: no Avro schema: {error!r}") from None
        if name != f"csms.{path.stem}":
            raise SchemaError(f"{path.name} defines {name}")
        found[name] = source
    return found


def topic_schemas(sources: Mapping[str, Any]) -> Iterator[tuple[str, Schema]]:
    """The subject and schema of every topic, in the order of ids."""
    for topic in all_topics().values():
        if topic.schema not in sources:
            continue  # told by `missing_schemas`, so that the other topics can be used
        try:
            yield f"{topic.name}-value", parse_schema(sources[topic.schema], sources)
        except SchemaError as error:
            raise SchemaError(f"{topic.schema}: {error}") from None


def missing_schemas(folder: Path) -> list[str]:
    """What is wrong with the schemas that are written by hand: one is missing, or no topic needs it."""
    names = set(hand_written(folder))
    needed = {topic.schema: topic.name for topic in all_topics().values() if topic.action is None}
    missing = [f"{topic}: there is no schema {name}" for name, topic in needed.items() if name not in names]
    return missing + [f"{name} is the schema of no topic" for name in sorted(names - needed.keys() - {"csms.Meta"})]


def update_lock(lock: Lock, schemas: Iterator[tuple[str, Schema]], amend: frozenset[str]) -> None:
    """Bring a lock up to date. Raises `SchemaError` for a change that a reader of either version could not follow."""
    for subject, schema in schemas:
        versions = lock.versions(schema.name)
        if versions and schema.name in amend:
            versions = versions[:-1]
        for entry in versions:
            found = problems(entry.parsed(), schema)
            if found:
                raise SchemaError(f"{schema.name} against its version {entry.version}: {'; '.join(found)}")
        if schema.name in amend and lock.versions(schema.name):
            lock.amend(schema)
        else:
            lock.append(schema, subject)


def generated_files(root: Path, amend: frozenset[str] = frozenset()) -> dict[Path, str]:
    """Every file that is generated, with its text. Raises `SchemaError`."""
    folder = root / "schemas"
    sources = hand_written(folder)
    files: dict[Path, str] = {}
    for topic in all_topics().values():
        if topic.version is None or topic.action is None:
            continue
        sources[topic.schema] = action_record(topic.version, topic.action)
        path = folder / "avro" / "ocpp" / topic.version.label / f"{topic.action}.avsc"
        files[path] = json_text(sources[topic.schema])
        files[folder / "examples" / f"{topic.name}.json"] = json_text(action_example(topic.version, topic.action))
    lock = read_lock(folder / LOCK_FILE)
    update_lock(lock, topic_schemas(sources), amend)
    files[folder / LOCK_FILE] = lock.to_json()
    files[root / "docs" / "topics.md"] = topics_page()
    files[root / "docs" / "asyncapi.yaml"] = asyncapi_document(lock)
    return files


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m busbar.avro.generate", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is not current")
    parser.add_argument(
        "--amend",
        action="append",
        default=[],
        metavar="SCHEMA",
        help="replace the newest version of a schema that no record has been written with",
    )
    options = parser.parse_args(arguments)
    root = schemas_folder().parent
    try:
        files = generated_files(root, frozenset(options.amend))
    except SchemaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    stale = [path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    found = {
        *(root / "schemas" / "avro" / "ocpp").glob("**/*.avsc"),
        *(root / "schemas" / "examples").glob("ocpp.v*.json"),
    }
    superfluous = sorted(found - files.keys())
    wrong = missing_schemas(root / "schemas")
    for problem in wrong:
        print(f"error: {problem}", file=sys.stderr)
    if options.check:
        for path in [*stale, *superfluous]:
            print(f"not current: {path.relative_to(root)} (run `make schemas`)", file=sys.stderr)
        return 1 if stale or superfluous or wrong else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path], encoding="utf-8")
        print(f"wrote {path.relative_to(root)}")
    for path in superfluous:
        path.unlink()
        print(f"removed {path.relative_to(root)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
