"""`schemas/registry.lock.json`: the id of every schema, and the text of every version there has been.

Ids are given once and never change; the file only grows. It is all that a reader of the topics needs: no service
asks a registry for a schema at run time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from busbar.avro.errors import SchemaError
from busbar.avro.schema import Schema, parse_schema
from busbar.resources import schemas_folder

LOCK_FILE = "registry.lock.json"


@dataclass(frozen=True, slots=True)
class LockedSchema:
    """One version of one schema."""

    id: int
    """What stands in the first bytes of every record that was written with it."""
    name: str
    """The full name, such as `csms.OutboundMessage`."""
    subject: str
    """In the registry: the topic's name and `-value`."""
    version: int
    """Counts the versions of the subject from 1."""
    fingerprint: str
    """SHA-256 of the canonical form."""
    schema: str
    """The canonical form."""

    def parsed(self) -> Schema:
        return parse_schema(self.schema)


class Lock:
    """The entries of a lock file, oldest first."""

    def __init__(self, entries: Iterable[LockedSchema] = ()) -> None:
        self.entries: list[LockedSchema] = []
        self.by_id: dict[int, LockedSchema] = {}
        self._versions: dict[str, list[LockedSchema]] = {}
        for entry in entries:
            self._add(entry)

    def latest(self, name: str) -> LockedSchema:
        """The newest version of a schema. Raises `KeyError` for an unknown name."""
        return self._versions[name][-1]

    def versions(self, name: str) -> list[LockedSchema]:
        """Every version of a schema, oldest first; empty for an unknown name."""
        return self._versions.get(name, [])

    def names(self) -> list[str]:
        return list(self._versions)

    def append(self, schema: Schema, subject: str) -> LockedSchema:
        """Give a new version of a schema the next id; a schema that is the newest already keeps its own."""
        versions = self.versions(schema.name)
        if versions and versions[-1].fingerprint == schema.fingerprint:
            return versions[-1]
        entry = LockedSchema(
            id=max(self.by_id, default=0) + 1,
            name=schema.name,
            subject=subject,
            version=len(versions) + 1,
            fingerprint=schema.fingerprint,
            schema=schema.canonical,
        )
        self._add(entry)
        return entry

    def amend(self, schema: Schema) -> LockedSchema:
        """Replace the newest version of a schema that no record has been written with."""
        old = self.latest(schema.name)
        new = LockedSchema(old.id, old.name, old.subject, old.version, schema.fingerprint, schema.canonical)
        self.entries[self.entries.index(old)] = new
        self.by_id[old.id] = new
        self._versions[schema.name][-1] = new
        return new

    def to_json(self) -> str:
        """The file's text: one line per entry, so that a difference shows what was added."""
        lines = ",\n".join(json.dumps(asdict(entry), ensure_ascii=False) for entry in self.entries)
        return f"[\n{lines}\n]\n"

    def _add(self, entry: LockedSchema) -> None:
        if entry.id in self.by_id:
            raise SchemaError(f"the lock has id {entry.id} twice")
        self.entries.append(entry)
        self.by_id[entry.id] = entry
        self._versions.setdefault(entry.name, []).append(entry)


def read_lock(path: Path) -> Lock:
    """Read a lock file; an absent one is empty."""
    if not path.is_file():
        return Lock()
    entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return Lock(LockedSchema(**entry) for entry in entries)


@cache
def shipped_lock() -> Lock:
    """The lock that ships with this version of Busbar."""
    return read_lock(schemas_folder() / LOCK_FILE)
