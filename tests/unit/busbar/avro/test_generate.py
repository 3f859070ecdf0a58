"""The generator and the lock: ids are given once, and a change that a reader could not follow is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from busbar.avro import SchemaError, generate
from busbar.avro.generate import generated_files, missing_schemas
from busbar.avro.lock import LOCK_FILE, Lock, read_lock
from busbar.avro.schema import parse_schema
from busbar.resources import schemas_folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the schemas that a test may change."""
    shutil.copytree(schemas_folder(), tmp_path / "schemas")
    return tmp_path


def change(project: Path, name: str, **fields: dict[str, Any] | None) -> None:
    """Add fields to a `csms` schema, or take them out with `None`."""
    path = project / "schemas" / "avro" / "csms" / f"{name}.avsc"
    source = json.loads(path.read_text())
    source["fields"] = [entry for entry in source["fields"] if entry["name"] not in fields]
    source["fields"] += [{"name": key, **entry} for key, entry in fields.items() if entry is not None]
    path.write_text(json.dumps(source))


def lock_of(project: Path, **options: Any) -> Lock:
    """Generate, and return the lock that was written."""
    path = project / "schemas" / LOCK_FILE
    path.write_text(generated_files(project, **options)[path])
    return read_lock(path)


def test_a_compatible_change_gets_the_next_id_and_every_other_schema_keeps_its_own(project: Path) -> None:
    before = read_lock(project / "schemas" / LOCK_FILE)
    change(project, "EdgeEvent", zone={"type": "string", "default": ""})
    after = lock_of(project)
    assert after.entries[: len(before.entries)] == before.entries
    (added,) = after.entries[len(before.entries) :]
    assert (added.name, added.version) == ("csms.EdgeEvent", before.latest("csms.EdgeEvent").version + 1)
    assert added.id == max(before.by_id) + 1
    assert after.latest("csms.EdgeEvent") == added
    assert lock_of(project).entries == after.entries


def test_words_get_no_id(project: Path) -> None:
    before = read_lock(project / "schemas" / LOCK_FILE)
    path = project / "schemas" / "avro" / "csms" / "EdgeEvent.avsc"
    path.write_text(path.read_text().replace("The pod.", "The pod, in other words."))
    assert lock_of(project).entries == before.entries


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"zone": {"type": "string"}}, "csms.EdgeEvent.zone is missing and has no default"),
        ({"address": None}, "csms.EdgeEvent.address is missing and has no default"),
        ({"address": {"type": "long"}}, "address is string and the reader expects long"),
    ],
)
def test_an_incompatible_change_is_refused(project: Path, fields: dict[str, Any], told: str) -> None:
    change(project, "EdgeEvent", **fields)
    with pytest.raises(SchemaError, match=f"csms.EdgeEvent against its version 1: .*{told}"):
        generated_files(project)


def test_a_change_is_held_against_every_version_there_has_been(project: Path) -> None:
    change(project, "EdgeEvent", zone={"type": "string", "default": ""})
    lock_of(project)
    change(project, "EdgeEvent", zone=None)
    lock_of(project)
    change(project, "EdgeEvent", zone={"type": "long", "default": 0})
    with pytest.raises(SchemaError, match="against its version 2"):
        generated_files(project)


def test_a_change_of_meta_reaches_every_action(project: Path) -> None:
    before = read_lock(project / "schemas" / LOCK_FILE)
    change(project, "Meta", zone={"type": "string", "default": ""})
    after = lock_of(project)
    assert len(after.entries) - len(before.entries) == 76 + 1  # and MalformedFrame


def test_a_schema_that_nobody_has_written_with_may_be_amended(project: Path) -> None:
    before = read_lock(project / "schemas" / LOCK_FILE)
    change(project, "EdgeEvent", zone={"type": "string"})
    after = lock_of(project, amend=frozenset({"csms.EdgeEvent"}))
    assert [entry.id for entry in after.entries] == [entry.id for entry in before.entries]
    assert after.latest("csms.EdgeEvent").fingerprint != before.latest("csms.EdgeEvent").fingerprint
    assert lock_of(project).entries == after.entries


def test_a_file_that_defines_another_schema_is_refused(project: Path) -> None:
    folder = project / "schemas" / "avro" / "csms"
    shutil.copy(folder / "EdgeEvent.avsc", folder / "Edge.avsc")
    with pytest.raises(SchemaError, match=r"Edge\.avsc defines csms\.EdgeEvent"):
        generated_files(project)


def test_a_missing_and_a_superfluous_schema_are_told(project: Path) -> None:
    folder = project / "schemas" / "avro" / "csms"
    source = json.loads((folder / "EdgeEvent.avsc").read_text())
    (folder / "EdgeEvent.avsc").unlink()
    (folder / "Pod.avsc").write_text(json.dumps(source | {"name": "Pod"}))
    assert missing_schemas(project / "schemas") == [
        "csms.edges: there is no schema csms.EdgeEvent",
        "csms.Pod is the schema of no topic",
    ]


def test_check_tells_what_is_stale_and_writes_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "schemas_folder", lambda: project / "schemas")
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    stale = project / "schemas" / "avro" / "ocpp" / "v16" / "Heartbeat.avsc"
    stale.write_text("{}")
    superfluous = stale.with_name("Nothing.avsc")
    superfluous.write_text("{}")
    capsys.readouterr()
    assert generate.main(["--check"]) == 1
    told = capsys.readouterr().err
    assert "Heartbeat.avsc" in told
    assert "Nothing.avsc" in told
    assert stale.read_text() == "{}"
    assert generate.main([]) == 0
    assert stale.read_text() != "{}"
    assert not superfluous.exists()


def test_a_lock_with_an_id_twice_is_refused(project: Path) -> None:
    path = project / "schemas" / LOCK_FILE
    entries = json.loads(path.read_text())
    path.write_text(json.dumps([*entries, entries[0]]))
    with pytest.raises(SchemaError, match="has id 1 twice"):
        read_lock(path)


def test_an_absent_lock_is_empty(tmp_path: Path) -> None:
    lock = read_lock(tmp_path / LOCK_FILE)
    schema = parse_schema({"type": "record", "name": "T", "fields": []})
    assert lock.append(schema, "t-value").id == 1
    assert lock.append(schema, "t-value").id == 1
    assert lock.names() == ["T"]
