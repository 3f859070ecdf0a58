"""The read side of the schema registry protocol."""

from __future__ import annotations

import json

import fastavro

from busbar.avro import registry
from busbar.avro.lock import shipped_lock
from busbar.topics import all_topics


def test_every_topic_is_a_subject_and_its_latest_version_is_the_schema_of_its_id() -> None:
    assert registry.subjects() == sorted(f"{name}-value" for name in all_topics())
    for subject in registry.subjects():
        numbers = registry.versions(subject)
        assert numbers is not None
        latest = registry.version(subject, "latest")
        assert latest is not None
        assert latest == registry.version(subject, numbers[-1]) == registry.version(subject, str(numbers[-1]))
        assert latest["subject"] == subject
        assert registry.schema_by_id(latest["id"]) == {"schema": latest["schema"]}
        assert registry.versions_by_id(latest["id"]) == [{"subject": subject, "version": latest["version"]}]


def test_schemas_stand_alone() -> None:
    for entry in shipped_lock().entries:
        found = registry.schema_by_id(entry.id)
        assert found is not None
        fastavro.parse_schema(json.loads(found["schema"]))


def test_what_is_not_there_is_none() -> None:
    assert registry.schema_by_id(0) is None
    assert registry.versions_by_id(0) is None
    assert registry.versions("nothing-value") is None
    assert registry.version("nothing-value", "latest") is None
    assert registry.version("csms.edges-value", 99) is None
    assert registry.version("csms.edges-value", "first") is None


def test_a_schema_is_found_by_its_text_in_whatever_form() -> None:
    latest = registry.version("csms.edges-value", "latest")
    assert latest is not None
    pretty = json.dumps(json.loads(latest["schema"]) | {"doc": "In other words."}, indent=3)
    assert registry.lookup("csms.edges-value", pretty) == latest
    assert registry.lookup("csms.commands-value", pretty) is None
    assert registry.lookup("csms.edges-value", "{") is None


def test_the_registry_says_what_it_is() -> None:
    assert registry.types() == ["AVRO"]
    assert registry.config() == {"compatibilityLevel": "FULL_TRANSITIVE"}
    assert registry.mode() == {"mode": "READONLY"}
