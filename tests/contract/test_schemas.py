"""What ships is complete and in step: schemas, lock, examples, pages, and the tables of topics and actions."""

from __future__ import annotations

import io
import json
import tomllib
from typing import Any

import fastavro
import jsonschema_rs
import pytest

from busbar.avro import decode, encode
from busbar.avro.conversion import ocpp_schemas_folder, request_schema, requests, response_schema
from busbar.avro.examples import example_value, read_example
from busbar.avro.generate import generated_files, hand_written, missing_schemas
from busbar.avro.lock import shipped_lock
from busbar.ocpp.versions import Version
from busbar.resources import schemas_folder
from busbar.topics import Topic, all_topics

ROOT = schemas_folder().parent
SERVICES = {"edge", "router", "sessions", "stations", "billing", "certificate", "insights", "api"}
OUTSIDE = {"analytics", "operators", "erp", "grafana"}
STATION_ACTIONS = {Version.V16: 14, Version.V201: 25, Version.V21: 37}
CSMS_ACTIONS = {Version.V16: 26, Version.V201: 40, Version.V21: 55}

with (schemas_folder() / "actions.toml").open("rb") as file:
    ACTIONS = tomllib.load(file)


def station_actions(version: Version) -> dict[str, dict[str, Any]]:
    return {name: row for name, row in ACTIONS[version.label].items() if isinstance(row, dict)}


def validator(schema: dict[str, Any]) -> Any:
    return jsonschema_rs.validator_for(schema, validate_formats=True)


# -- generated files ------------------------------------------------------------------------------------------


def test_make_schemas_would_change_nothing() -> None:
    stale = [str(path) for path, text in generated_files(ROOT).items() if not path.exists() or path.read_text() != text]
    assert stale == []


def test_every_topic_has_a_schema_and_every_schema_a_topic() -> None:
    assert missing_schemas(schemas_folder()) == []
    needed = {topic.schema for topic in all_topics().values()} | {"csms.Meta"}
    folder = schemas_folder() / "avro"
    found = {".".join(path.relative_to(folder).with_suffix("").parts) for path in folder.glob("**/*.avsc")}
    assert found == needed


def test_every_schema_in_use_is_the_newest_of_its_subject_in_the_lock() -> None:
    for topic in all_topics().values():
        entry = shipped_lock().latest(topic.schema)
        assert entry.subject == f"{topic.name}-value"
        assert entry.parsed().fingerprint == entry.fingerprint
        assert [e.version for e in shipped_lock().versions(topic.schema)] == list(range(1, entry.version + 1))


def test_hand_written_schemas_say_what_each_field_is() -> None:
    silent = [f"{name}.{field['name']}" for name, source in hand_written(schemas_folder()).items()
              for field in source["fields"] if not field.get("doc")]  # fmt: skip
    assert silent == []


# -- examples -------------------------------------------------------------------------------------------------


def test_every_topic_has_an_example_and_every_example_a_topic() -> None:
    assert {path.stem for path in (schemas_folder() / "examples").glob("*.json")} == set(all_topics())


@pytest.mark.parametrize("topic", all_topics().values(), ids=lambda topic: topic.name)
def test_an_example_comes_through_and_fastavro_reads_it_with_the_lock_alone(topic: Topic) -> None:
    value = example_value(topic.name, topic.schema)
    data = encode(topic.schema, value)
    name, decoded = decode(data)
    assert name == topic.schema
    assert {member: decoded[member] for member in value} == value
    with (schemas_folder() / "registry.lock.json").open() as lock:
        schema = next(entry["schema"] for entry in json.load(lock) if entry["id"] == int.from_bytes(data[1:5], "big"))
    body = io.BytesIO(data[5:])
    assert fastavro.schemaless_reader(body, fastavro.parse_schema(json.loads(schema)), None)
    assert not body.read()


@pytest.mark.parametrize("topic", [t for t in all_topics().values() if t.action], ids=lambda topic: topic.name)
def test_the_example_of_an_action_is_valid_by_its_json_schema(topic: Topic) -> None:
    assert topic.version is not None
    assert topic.action is not None
    validator(request_schema(topic.version, topic.action)).validate(read_example(topic.name)["payload"])


# -- topics.toml and actions.toml -----------------------------------------------------------------------------


@pytest.mark.parametrize("version", list(Version))
def test_the_actions_are_those_of_the_specification(version: Version) -> None:
    from_stations, to_stations = set(station_actions(version)), set(ACTIONS[version.label]["csms_actions"])
    assert len(from_stations) == STATION_ACTIONS[version]
    assert len(to_stations) == len(ACTIONS[version.label]["csms_actions"]) == CSMS_ACTIONS[version]
    assert from_stations | to_stations == requests(version)
    assert from_stations & to_stations == {"DataTransfer"}


@pytest.mark.parametrize("version", list(Version))
def test_every_action_is_owned_by_a_service_that_reads_it(version: Version) -> None:
    for action, row in station_actions(version).items():
        assert row["owner"] in SERVICES, action
        readers = all_topics()[f"ocpp.{version.label}.{action}"].readers
        assert row["owner"] == "edge" or row["owner"] in readers, action
        assert row.keys() <= {"owner", "fallback", "send"}, action


@pytest.mark.parametrize("version", list(Version))
def test_a_late_answer_is_valid_by_the_response_schema(version: Version) -> None:
    for action, row in station_actions(version).items():
        if "fallback" not in row:
            continue
        answer = {
            name: "2026-05-04T10:11:12.345Z" if value == "$now" else value for name, value in row["fallback"].items()
        }
        validator(response_schema(version, action)).validate(answer)


def test_only_a_send_is_without_a_response_schema() -> None:
    for version in Version:
        for action, row in station_actions(version).items():
            has_response = (ocpp_schemas_folder(version) / f"{action}Response.json").is_file()
            assert has_response != row.get("send", False), action


def test_every_writer_and_reader_is_known() -> None:
    for topic in all_topics().values():
        assert topic.writers, topic.name
        assert topic.readers, topic.name
        assert set(topic.writers) <= SERVICES | {"any"}, topic.name
        assert set(topic.readers) <= SERVICES | OUTSIDE, topic.name


def test_topics_are_kept_for_a_time_or_compacted() -> None:
    for topic in all_topics().values():
        assert topic.policy in ("delete", "compact"), topic.name
        assert (topic.retention_days is None) == (topic.policy == "compact"), topic.name
        assert "_" not in topic.name, topic.name
        assert topic.purpose, topic.name
